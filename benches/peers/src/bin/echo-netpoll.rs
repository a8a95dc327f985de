//! Echo on netpoll's fast lane: callbacks on the worker's shared read buffer, no task per connection.
//!
//! Build it with `--profile unwind`: netpoll contains panics, and is measured as it is shipped.

use std::io;
use std::net::Ipv4Addr;

use netpoll_core::{Conn, Flow, Input, Protocol, Runtime, Workers};
use peers::{BACKLOG, Options, end};

struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send_now(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

fn main() {
    end(serve(&Options::from_args()))
}

fn serve(options: &Options) -> io::Result<()> {
    let workers = match options.cpus.is_empty() {
        true => Workers::Count(options.workers),
        false => Workers::Cpus((0..options.workers).filter_map(|index| options.cpu(index)).collect()),
    };
    let running = Runtime::builder()
        .workers(workers)
        .pin(false) // unless CPUs are named, as in the other peers
        .backlog(BACKLOG)
        .listen((Ipv4Addr::LOCALHOST, options.port), |_worker| |_peer| Echo)?
        .start()?;
    running.wait().map(drop)
}
