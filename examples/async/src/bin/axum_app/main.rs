//! An axum application on netpoll, unchanged: HTTP/1.1 and HTTP/2, streams, WebSocket, on all workers.
//!
//! Run it with `cargo run --release -p async-examples --bin axum_app` and ask it:
//!
//! | `curl http://127.0.0.1:8090`… | what you will see |
//! |---|---|
//! | `/hello/ada` | `hello, ada` |
//! | `/sum -d '{"numbers":[1,2,3]}' -H 'content-type: application/json'` | `{"sum":6}`; 4xx for what is no JSON, or other JSON |
//! | `/visits` | how often anybody has asked, on all workers |
//! | `/slow?ms=500` | `waited 500 ms`, after half a second |
//! | `/ticks?count=3` | three lines, a tenth of a second apart |
//! | `/upload --data-binary @FILE` | how many bytes came |
//! | `/echo`, by a WebSocket client | what it says |
//!
//! `--http2-prior-knowledge` speaks HTTP/2, and anything that begins with its preface does. Ctrl-C drains: who waits gets the
//! answer. `app.rs` is the application, and knows no runtime but for what [`On`] does; `on_netpoll.rs` serves it. With `--runtime tokio`
//! `on_tokio.rs` does, on threads of a current-thread runtime each, to compare.

mod app;
mod on_netpoll;
mod on_tokio;

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use netpoll_core::Backend;

const HELP: &str = "axum_app [--listen ADDRESS] [--runtime netpoll|tokio] [--workers COUNT] [--backend NAME]";

/// What an application wants of a runtime.
#[derive(Clone, Copy)]
pub enum On {
    /// Its tasks and its wheel.
    Netpoll,
    /// The tokio runtime that this thread has entered.
    Tokio,
}

impl On {
    /// Waits.
    pub fn sleep(self, time: Duration) -> BoxFuture<'static, ()> {
        match self {
            On::Netpoll => Box::pin(netpoll_core::time::sleep(time)),
            On::Tokio => Box::pin(tokio::time::sleep(time)),
        }
    }

    /// Lets this go on beside its request.
    pub fn spawn(self, future: impl Future<Output = ()> + Send + 'static) {
        match self {
            On::Netpoll => drop(netpoll_core::task::spawn_local(future)),
            On::Tokio => drop(tokio::spawn(future)),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use lexopt::prelude::*;

    let mut addr = SocketAddr::from(([127, 0, 0, 1], 8090));
    let (mut on, mut workers, mut backend) = (On::Netpoll, None, Backend::Auto);
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("listen") => addr = words.value()?.parse()?,
            Long("workers") => workers = Some(words.value()?.parse()?),
            Long("backend") => backend = words.value()?.parse()?,
            Long("runtime") => {
                on = match words.value()?.to_str() {
                    Some("netpoll") => On::Netpoll,
                    Some("tokio") => On::Tokio,
                    _ => return Err(HELP.into()),
                }
            }
            Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(word.unexpected().into()),
        }
    }
    match on {
        On::Netpoll => on_netpoll::serve(addr, workers, backend, app::router(on)),
        On::Tokio => on_tokio::serve(addr, workers.unwrap_or(1), &app::router(on)),
    }
}
