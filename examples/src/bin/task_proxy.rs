//! A TCP proxy in tasks: whoever connects is connected on, and both directions flow until both have ended.
//!
//! `cargo run --bin task_proxy 127.0.0.1:7000 example.org:80`. The name is looked up for each client; of several addresses the first that answers is
//! taken, and one that does not answer costs a quarter of a second. `tcp_proxy` does the same with callbacks, and lets the kernel
//! move bulk.

use std::io;
use std::time::Duration;

use netpoll_core::net::{Stream, connect_with, copy_bidirectional};
use netpoll_core::{ConnectOptions, Runtime};

async fn relay(mut client: Stream, backend: &str) -> io::Result<(u64, u64)> {
    let options = ConnectOptions::default().timeout(Duration::from_secs(3));
    let mut backend = match connect_with(backend, &options).await {
        Ok(backend) => backend,
        Err(error) => {
            // Its client is not left to think that it was served.
            client.reset();
            return Err(error);
        }
    };
    copy_bidirectional(&mut client, &mut backend).await
}

fn main() -> io::Result<()> {
    let (driver, mut arguments) = examples::words()?;
    let (Some(listen), Some(backend)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: task_proxy LISTEN BACKEND");
        std::process::exit(2);
    };
    let server = Runtime::builder()
        .backend(driver)
        .stop_on_signals(true)
        .listen_tasks(listen, move |client, peer| {
            let backend = backend.clone();
            async move {
                match relay(client, &backend).await {
                    Ok((there, back)) => println!("{}: {there} bytes there, {back} back", peer.addr),
                    Err(error) => println!("{}: {error}", peer.addr),
                }
            }
        })?
        .start()?;
    for addr in server.local_addrs() {
        println!("proxy at {addr}");
    }
    println!("{}", server.wait()?);
    Ok(())
}
