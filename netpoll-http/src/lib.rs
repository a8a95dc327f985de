//! A thin, strict and fast HTTP/1.1 layer on [`netpoll_core`].
//!
//! ```no_run
//! use netpoll_http::{Request, Router, Server};
//!
//! fn main() -> std::io::Result<()> {
//!     Server::bind("127.0.0.1:8080")?
//!         .serve(|_worker| Router::new().get("/", |_: &Request| "Hello, World!"))?;
//!     Ok(())
//! }
//! ```
//!
//! A handler borrows its request where it landed (`&Request`, synchronous) or owns it (`Request`, `async`),
//! and returns anything that is [`IntoResponse`]. `?` turns a bad parameter, bad JSON, or an error of
//! the program into an [`Error`] that says what was wrong:
//!
//! ```
//! use netpoll_http::{App, Error, Json, Request, Router, StatusCode};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Order {
//!     id: u64,
//! }
//! # fn find(id: u64) -> Result<Order, Error> { Ok(Order { id }) }
//! # async fn insert(order: Order) -> Result<Order, Error> { Ok(order) }
//!
//! let app = App::new(|_worker| {
//!     Router::new()
//!         .get("/orders/{id}", move |req: &Request| find(req.param("id")?).map(Json))
//!         .post("/orders", async move |req: Request| {
//!             let order: Order = req.json()?;
//!             Ok((StatusCode::CREATED, Json(insert(order).await?)))
//!         })
//! });
//!
//! let client = app.test(); // in memory: no socket, no clock
//! assert_eq!(client.get("/orders/7").text(), r#"{"id":7}"#);
//! assert_eq!(client.get("/orders/x").text(), "path parameter `id`: invalid digit found in string\n");
//! assert_eq!(client.post_json("/orders", &Order { id: 8 }).status, StatusCode::CREATED);
//! ```
//!
//! `docs/GUIDE.md` of the repository leads from here to a tested service. Recipes (state, sign-in, JSON errors, databases, events, uploads,
//! CORS, drains) are in `docs/COOKBOOK.md`, with a table for those who know axum.
//!
//! # Floors
//!
//! Knowledge points down this list only: `watch`, `rooms` → `server` → `test`, `websocket` → [`router`], `files`, `events`, `multipart` → `handler`, `layer`, `h2` → `h1` → `message` →
//! `wire`, `coding`. The wire knows bytes, messages know no sockets, the connection knows no routes: it calls
//! up through [`Service`].
//!
//! # Strict
//!
//! Whatever RFC 9112 lets two parties read in two ways is refused: one answer, then the connection
//! closes, and nothing behind it is served. There are no lenient switches.

#![forbid(unsafe_code)]

// The room is complete by itself: what a coding is called has more users with the feature.
#[cfg_attr(not(feature = "compression"), allow(dead_code))]
mod coding;
mod events;
mod files;
mod h1;
#[cfg(feature = "http2")]
mod h2;
mod handler;
mod health;
mod layer;
#[cfg(not(feature = "tracing"))]
mod log;
#[cfg(feature = "tracing")]
#[path = "log_tracing.rs"]
mod log;
mod message;
pub mod multipart;
#[cfg(feature = "websocket")]
pub mod rooms;
pub mod router;
mod server;
mod test;
mod watch;
#[cfg(feature = "websocket")]
pub mod websocket;
// The room is complete by itself: a few pieces (such as chunk writing by halves) wait for their users.
#[cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]
mod wire;
// The room is complete by itself: the client's half waits for its users.
#[cfg(feature = "websocket")]
#[cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]
mod ws;

pub use coding::Coding;
pub use events::{Event, Events};
pub use files::Files;
pub use h1::{
    BeforeFuture, Completed, Http, Limits, Outcome, Refusal, Route, RouteLimits, ServerHeader, Service,
};
#[cfg(feature = "http2")]
pub use h2::Http2;
#[cfg(feature = "compression")]
pub use handler::{Decoded, Decoding};
pub use handler::{Endpoint, Handler, Limited, Sink, sink};
pub use health::Health;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
#[cfg(feature = "compression")]
pub use layer::Compress;
pub use layer::{Forwarded, Hook, ParseNetworkError, RateLimit, Verdict};
#[cfg(feature = "json")]
pub use message::Json;
pub use message::{
    Body, BodyBuf, BodyError, BodyReader, BodySink, BodyStream, Chunk, ClientAddr, Cookie, Delivery, Error,
    Extensions, FromRequest, IntoResponse, OpenSink, Parts, Pull, Replied, Reply, Request, RequestId,
    Response, ResponseError, RouteId, SameSite, Takeover, TraceContext, Upgrade, errors,
};
#[cfg(feature = "serde")]
pub use message::{FIELDS_MAX, Form, Path, Query};
pub use multipart::Multipart;
pub use netpoll_core::{FileRange, Local};
pub use router::{Params, Router};
pub use server::{App, IntoService, Report, Running, Server, Worker};
pub use test::explore;
pub use test::{TestClient, TestConnection, TestRequest, TestResponse};
pub use watch::{AccessLog, LogFormat, LostLines, Metrics};

/// Opens the inner rooms to the fuzz targets and the benches. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    /// The bytes of HTTP/1.1, without I/O.
    pub mod wire {
        pub use crate::wire::*;
    }

    /// Content codings, without I/O.
    pub mod coding {
        pub use crate::coding::*;
    }

    /// The bytes of WebSocket, without I/O.
    #[cfg(feature = "websocket")]
    pub mod ws {
        pub use crate::ws::*;
    }

    /// The bytes of forms with files, without I/O.
    pub mod multipart {
        pub use crate::multipart::MultipartLimits;
        pub use crate::multipart::internals::*;
    }

    /// The access log between its threads.
    pub mod watch {
        pub use crate::watch::internals::*;
    }
}

/// The code on the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The same of this crate's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeOfTheCrate;

/// So does the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/GUIDE.md")]
struct Guide;

/// The recipes do what they say.
#[cfg(doctest)]
#[doc = include_str!("../../docs/COOKBOOK.md")]
struct Cookbook;
