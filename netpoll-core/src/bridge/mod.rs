//! Bridges to the crates that people have: the traits of other runtimes, implemented on what is here.
//!
//! | feature | what it brings | for |
//! |---|---|---|
//! | `hyper` | `hyper::rt::{Read, Write}` on [`Stream`](crate::net::Stream) and its halves, `HyperTimer`, `HyperExecutor` | hyper, hyper-util, axum, tonic |
//! | `tokio-io` | `tokio::io::{AsyncRead, AsyncBufRead, AsyncWrite}` on the same | tokio-rustls, tokio-tungstenite, tokio-postgres, redis, tokio-util |
//! | `futures-io` | `futures_io::{AsyncRead, AsyncBufRead, AsyncWrite}` on the same | futures-rustls, async-tungstenite, the `futures` crates |
//! | none | [`SendWrapper`] | whatever demands [`Send`] of what never leaves its worker |
//!
//! All are off by default, and without them nothing of tokio or hyper is built. With them the traits are: the features `hyper` and `tokio-io`
//! bring the crate `tokio` along without a runtime, timers, sockets or threads.
//!
//! The traits are on the types themselves: a [`Stream`](crate::net::Stream) goes to `serve_connection`, to `TlsAcceptor::accept`, to `connect_raw`
//! as it is. Methods of the type come first where both have one of the same name: `stream.read(..)` is
//! [`Stream::read`](crate::net::Stream::read), whatever is imported. But `split` of `tokio::io::AsyncBufReadExt` and of `futures::AsyncReadExt` takes `self`, and so comes
//! before ours where one of them is imported: write `Stream::split(&mut stream)` there.
//!
//! What the traits say holds: a read gives what is there, at least a byte, and no bytes are the peer's end; a write takes up to 64 KiB, and waits while the
//! peer is behind; shutting down ends our direction behind what was written, and reading goes on. Each poll may be given up, and has read and written nothing then.
//!
//! Flushing is ready at once and does nothing. What a write has taken leaves when the poll that wrote it is over, whether the task flushes, waits, returns or drops
//! the stream: there is nothing that a flush could bring about, and like that of any socket it says nothing of what the peer has read. Only
//! [`reset`](crate::net::Stream::reset), a panic and an end of the connection lose what has not left; the next read or write says so. What is
//! buffered *around* a stream (a `BufWriter`, TLS) is for its own flush.
//!
//! `examples/async` has whole programs: axum, a client of hyper, gRPC, HTTPS, WebSocket, PostgreSQL and Redis.
#![cfg_attr(feature = "tokio-io", doc = include_str!("tokio_example.md"))]
#![cfg_attr(feature = "futures-io", doc = include_str!("futures_example.md"))]

#[cfg(feature = "futures-io")]
mod futures_traits;
#[cfg(feature = "hyper")]
mod hyper_rt;
mod send_wrapper;
#[cfg(feature = "tokio-io")]
mod tokio_traits;

#[cfg(feature = "hyper")]
pub use hyper_rt::{HyperExecutor, HyperTimer};
pub use send_wrapper::SendWrapper;

/// Implements traits on everything that reads, or writes.
#[cfg(any(feature = "hyper", feature = "tokio-io", feature = "futures-io"))]
macro_rules! on_each {
    ($bridge:ident: $($kind:ty),*) => {$( $bridge!($kind); )*};
}
#[cfg(any(feature = "hyper", feature = "tokio-io", feature = "futures-io"))]
use on_each;
