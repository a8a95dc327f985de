//! Echo on may: a coroutine with its stack and 16 KiB per connection, as in the library's own echo example.
//!
//! Without work stealing and cancellation, as in its TechEmpower entry. The library pins worker threads to CPUs in
//! order, of those that `--cpu` left, and binds by itself, with `SO_REUSEPORT`.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use may::go;
use may::net::{TcpListener, TcpStream};
use peers::{Options, end, tune_listeners};

const READ_BYTES: usize = 16 * 1024;

fn main() {
    let options = Options::from_args();
    may::config().set_workers(options.workers);
    let accept = go!(move || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
        tune_listeners()?;
        loop {
            let (stream, _) = listener.accept()?;
            go!(move || echo(stream));
        }
    });
    end(accept.join().unwrap_or_else(|_| Err(io::Error::other("the accept loop panicked"))))
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
