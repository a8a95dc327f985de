//! The smallest server. `cargo run --bin hello` prints where it listens; open that in a browser to read
//! "Hello, World!". Another address: `cargo run --bin hello 127.0.0.1:9000`. Ctrl-C ends it.
use netpoll_http::{Request, Router, Server};
use std::io::Write;

fn main() -> std::io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::bind(addr)?.runtime(move |builder| builder.backend(backend).stop_on_signals(true));
    let server = server.app(|_worker| Router::new().get("/", |_: &Request| "Hello, World!")).start()?;
    let _ = writeln!(std::io::stdout(), "http://{}", server.addr()); // nobody may be reading
    server.wait().map(drop)
}
