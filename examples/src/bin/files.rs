//! A directory as a web site: pages, pictures and downloads straight from the page cache.
//!
//! Run it with `cargo run --bin files` to serve the directory that you are in, or with an address and a directory
//! behind it: `cargo run --bin files 127.0.0.1:8083 docs`. Then `curl http://127.0.0.1:8083/README.md` prints that
//! file, `curl -i -r 0-9 ...` its first ten bytes with 206, `curl -i -H 'If-None-Match: *' ...` only a head with 304,
//! and `curl -i --path-as-is http://127.0.0.1:8083/../secret` is refused with 400. At the end it prints how many
//! system calls of what kind that took.

use std::fmt::Display;
use std::io::{self, Write};

use netpoll_http::{Files, HeaderValue, Router, Server};

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut arguments) = examples::words()?;
    let addr = arguments.next().unwrap_or("127.0.0.1:8083".to_owned());
    let directory = arguments.next().unwrap_or(".".to_owned());
    // Opened once, for all workers: no path leads out of it again.
    let files = Files::new(&directory)?.cache_control(HeaderValue::from_static("no-cache"));
    let server = Server::bind(addr)?
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(move |_worker| Router::new().get("/", files.clone()).get("/{*path}", files.clone()))
        .start()?;
    say(format_args!("files serves {directory} on http://{}", server.addr()));

    let report = server.wait()?;
    let stats = report.stats;
    say(stats);
    let (send, sendfile) = (stats.syscalls_send, stats.syscalls_sendfile);
    say(format_args!("{} B left in {send} send and {sendfile} sendfile", stats.sent_bytes));
    Ok(())
}
