//! Echo on kimojio: one io_uring per worker, a task and a 16 KiB buffer per connection, a `recv` and a `send` of the ring for each message.
//!
//! `SINGLE_ISSUER`, which fits a runtime of one thread, and no busy polling, which is the default.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use kimojio::Runtime;
use kimojio::configuration::Configuration;
use kimojio::operations::{RecvFlags, SendFlags, accept, recv, send, spawn_task};
use peers::{Options, on_each_worker};

const READ_BYTES: usize = 16 * 1024;

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
        drop(spawn_task(echo(socket)));
    }
}

async fn echo(socket: OwnedFd) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = recv(&socket, &mut buffer, RecvFlags::empty(), None).await {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let Ok(sent @ 1..) = send(&socket, rest, SendFlags::NOSIGNAL, None).await else { return };
            rest = &rest[sent..];
        }
    }
}
