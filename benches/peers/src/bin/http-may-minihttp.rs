//! may_minihttp: a coroutine per connection, httparse, pipelined answers in one write; no work stealing and no
//! cancellation, and 32 KiB stacks, as in its TechEmpower entry.
//!
//! The library binds by itself, with `SO_REUSEPORT`, and does not turn Nagle's algorithm off; it is off here
//! all the same, set on the listener. It pins worker threads to CPUs in order, of those that `--cpu` left.

use std::io::{self, Read};
use std::net::Ipv4Addr;

use may_minihttp::{HttpServer, HttpService, Request, Response};
use peers::http::{BODY_BYTES_MAX, HELLO, Message};
use peers::{Options, end, tune_listeners};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    end(serve(&Options::from_args()))
}

fn serve(options: &Options) -> io::Result<()> {
    may::config().set_workers(options.workers).set_pool_capacity(1000).set_stack_size(0x1000);
    let server = HttpServer(Answers).start((Ipv4Addr::LOCALHOST, options.port))?;
    tune_listeners()?;
    server.join().map_err(|_| io::Error::other("the accept loop panicked"))
}

#[derive(Clone)]
struct Answers;

impl HttpService for Answers {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match (request.method(), request.path()) {
            ("GET", "/plaintext") => {
                response.header("Content-Type: text/plain").body(HELLO);
            }
            ("GET", "/json") => {
                response.header("Content-Type: application/json").body_vec(Message::HELLO.to_json());
            }
            ("POST", "/echo") => {
                let mut body = Vec::new();
                request.body().take(BODY_BYTES_MAX as u64).read_to_end(&mut body)?;
                response.header("Content-Type: application/octet-stream").body_vec(body);
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}
