//! Datagrams in a task: each is sent back to where it came from, from the address that it was sent to.
//!
//! Run it with `cargo run --bin udp_echo` (or with an address: `0.0.0.0:9000`) and talk to it with `nc -u 127.0.0.1 7000`. Ctrl-C ends it, and it
//! reports what it did.

use std::fmt::Display;
use std::io::{self, Write};

use netpoll_core::net::UdpSocket;
use netpoll_core::task::{spawn_local, stopping};
use netpoll_core::{Runtime, Workers};

async fn serve(socket: &UdpSocket) -> io::Result<()> {
    loop {
        // All that is there; what is sent leaves together, when this task waits again.
        let mut batch = socket.recv_batch().await?;
        while let Some((path, bytes)) = batch.next() {
            socket.send_to(bytes, path).await?;
        }
    }
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let server = Runtime::builder()
        .backend(backend)
        .workers(Workers::Count(1))
        .stop_on_signals(true)
        .on_start(move |_worker, _commands| {
            let addr = addr.clone();
            let _detached = spawn_local(async move {
                let socket = match UdpSocket::bind(addr).await {
                    Ok(socket) => socket,
                    Err(error) => return say(error),
                };
                say(format_args!("echo listens on {}", socket.local_addr()));
                let echo = spawn_local(async move {
                    if let Err(error) = serve(&socket).await {
                        say(error);
                    }
                });
                stopping().await; // a drain waits for tasks, and this one would go on for ever
                echo.abort();
            });
            Ok(())
        })
        .start()?;
    say(server.wait()?);
    Ok(())
}
