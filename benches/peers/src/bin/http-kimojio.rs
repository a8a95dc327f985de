//! HTTP/1 on kimojio, by [`peers::http1`]: one io_uring per worker, a task and two buffers per connection, a `recv` of the ring for each read
//! and a `send` for its answers.
//!
//! `SINGLE_ISSUER`, which fits a runtime of one thread, and no busy polling, which is the default.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use kimojio::Runtime;
use kimojio::configuration::Configuration;
use kimojio::operations::{RecvFlags, SendFlags, accept, recv, send, spawn_task};
use peers::http1::{Exchange, READ_BYTES};
use peers::{Options, on_each_worker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        listener.set_nonblocking(false)?;
        match Runtime::new(0, Configuration::new()).block_on(serve(listener)) {
            Some(Ok(served)) => served,
            _ => Err(io::Error::other("the runtime ended")),
        }
    })
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let socket = accept(&listener).await?;
        drop(spawn_task(connection(socket)));
    }
}

async fn connection(socket: OwnedFd) {
    let mut exchange = Exchange::new("kimojio");
    let mut buffer = vec![0; READ_BYTES];
    let mut answers = Vec::with_capacity(READ_BYTES);
    let mut goes_on = true;
    while goes_on {
        let Ok(read @ 1..) = recv(&socket, &mut buffer, RecvFlags::empty(), None).await else { return };
        goes_on = exchange.received(&buffer[..read], &mut answers);
        let mut rest = &answers[..];
        while !rest.is_empty() {
            let Ok(sent @ 1..) = send(&socket, rest, SendFlags::NOSIGNAL, None).await else { return };
            rest = &rest[sent..];
        }
        answers.clear();
    }
}
