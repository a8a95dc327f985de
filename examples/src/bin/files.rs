//! A directory as a web site: pages, pictures and downloads straight from the page cache.
//!
//! Run it with `cargo run --bin files` to serve the directory that you are in, or with an address and a directory
//! behind it: `cargo run --bin files 127.0.0.1:8083 docs`. Then `curl http://127.0.0.1:8083/README.md` prints that
//! file, `curl -i -r 0-9 ...` its first ten bytes with 206, `curl -i -H 'If-None-Match: *' ...` only a head with 304,
//! and `curl -i --path-as-is http://127.0.0.1:8083/../secret` is refused with 400. At the end it prints how many
//! system calls of what kind that took.

use std::io;

use netpoll_http::{Files, HeaderValue, Router, Server};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or("127.0.0.1:8083".to_owned());
    let directory = arguments.next().unwrap_or(".".to_owned());
    // Opened once, for all workers: no path leads out of it again.
    let files = Files::new(&directory)?.cache_control(HeaderValue::from_static("no-cache"));
    let server = Server::bind(addr)?
        .runtime(|builder| builder.stop_on_signals(true))
        .app(move |_worker| Router::new().get("/", files.clone()).get("/{*path}", files.clone()))
        .start()?;
    println!("files serves {directory} on http://{}", server.addr());

    let report = server.wait()?;
    let stats = report.stats;
    println!("{stats}");
    println!(
        "{} B left in {} send and {} sendfile",
        stats.sent_bytes, stats.syscalls_send, stats.syscalls_sendfile
    );
    Ok(())
}
