//! What netpoll-http promises, through the front door: bytes in, bytes out, named by behaviour.

mod answers;
mod asynchronous;
mod behind_proxies;
mod bodies;
#[path = "../../../netpoll-core/tests/it/chance.rs"]
mod chance;
#[path = "../../../examples/src/cipher.rs"]
mod cipher;
#[cfg(feature = "compression")]
mod compression;
mod context;
mod errors;
mod exploring;
mod extracting;
mod files;
mod hooks;
mod life;
mod limits;
mod neighbours;
mod nesting;
mod on_workers;
mod operators;
mod responses;
mod routing;
mod server;
mod server_header;
mod socket_storms;
mod storms;
mod streaming;
#[cfg(feature = "tls")]
mod tls;
mod typed;
mod unix;
mod upgrade;
mod weather;
#[cfg(feature = "websocket")]
mod websocket;
#[cfg(feature = "websocket")]
mod websocket_client;
#[cfg(feature = "websocket")]
mod websocket_storms;
mod websocket_tasks;
#[cfg(feature = "websocket")]
mod ws_bytes;

use netpoll_http::TestClient;

/// A client of a router that every test builds for itself.
fn client(router: impl Fn() -> netpoll_http::Router + Send + Sync + 'static) -> TestClient {
    netpoll_http::App::new(move |_| router()).test()
}

/// What came back, as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the answer is ASCII")
}
