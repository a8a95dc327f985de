//! A server that starts when its first client comes: the service manager opens the socket, and goes on with it when this
//! program ends, so that no client is refused in between, whatever is restarted or upgraded.
//!
//! With systemd, `hello.socket` says `ListenStream=/run/hello.sock` (or `8080`) and `hello.service`
//! `ExecStart=/usr/bin/socket_activation`. To try it: `systemd-socket-activate -l 8080 target/debug/socket_activation`,
//! then `curl http://127.0.0.1:8080/`. Without a service manager it listens on 127.0.0.1:8080, or on the address that is its
//! argument, such as `unix:/tmp/hello.sock`. Ctrl-C ends it.
use std::io::Write;

use netpoll_http::{Request, Router, Server};

fn main() -> std::io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let server = match netpoll_core::listen_fds()?.into_iter().next() {
        Some(socket) => Server::on(socket),
        None => Server::bind(words.next().unwrap_or("127.0.0.1:8080".to_owned()))?,
    };
    let running = server
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(|_worker| Router::new().get("/", |req: &Request| format!("hello, {}\n", req.peer())))
        .start()?;
    // Nobody may be reading.
    let _ = writeln!(std::io::stdout(), "socket_activation listens on {}", running.addr());
    println!("{}", running.wait()?);
    Ok(())
}
