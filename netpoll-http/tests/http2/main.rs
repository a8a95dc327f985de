//! HTTP/2 through the front door: the same service in frames, byte by byte in memory where a peer breaks the rules, and by clients that
//! others have written.

mod attacks;
mod bodies;
mod ends;
mod frames;
mod hooks;
mod hostile;
mod peer;
mod requests;
mod sockets;
mod storms;

use netpoll_http::{App, Http2, IntoService, TestClient, Worker};

/// A service in memory that speaks HTTP/2.
fn served<S: IntoService>(factory: impl Fn(&Worker) -> S + Send + Sync + 'static) -> TestClient {
    App::new(factory).http2(Http2::default()).test()
}
