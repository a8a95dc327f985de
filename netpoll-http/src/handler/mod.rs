//! From a closure to something that a route can hold.
//!
//! Four shapes of function are handlers, told apart by a marker type that the compiler infers:
//!
//! | shape | request | cost |
//! |---|---|---|
//! | `Fn(&Request) -> impl IntoResponse` | borrowed | nothing is allocated |
//! | `async Fn(Request) -> impl IntoResponse` | owned | a copy of the request, the future, its answer |
//! | `async Fn(Request, BodyReader) -> impl IntoResponse` | owned, without its body | the same, and an allocation or two for each piece |
//! | `Fn(&Request, Reply) -> Replied` | borrowed | nothing; the answer is written by hand |
//!
//! Invariant: a handler answers exactly once, because a [`Reply`] is used up by answering. It runs on
//! the worker of its connection, so it need not be `Send`, and it must not block.

#[cfg(feature = "compression")]
mod decoded;

use std::marker::PhantomData;
use std::rc::Rc;

mod reading;
mod sink;

use crate::h1::RouteLimits;
use crate::message::{BodyReader, Delivery, Error, IntoResponse, OpenSink, Pending, Replied, Reply, Request};

pub use sink::{Sink, sink};

#[cfg(feature = "compression")]
pub use decoded::{Decoded, Decoding};

/// A function that answers requests. `M` is a marker that is inferred.
///
/// | shape | request | cost |
/// |---|---|---|
/// | `Fn(&Request) -> impl IntoResponse` | borrowed | nothing is allocated |
/// | `async Fn(Request) -> impl IntoResponse` | owned | a copy of the request, the future, its answer |
/// | `async Fn(Request, BodyReader) -> impl IntoResponse` | owned; its [body](BodyReader) is read while it arrives | the same, and an allocation or two for each piece |
/// | [`sink`]`(Fn(&Request) -> Result<impl BodySink, Error>)` | borrowed; its body is [handed over](BodySink) while it arrives | a copy of the head, the sink |
/// | `Fn(&Request, Reply) -> Replied` | borrowed | nothing; the answer is written by hand |
/// | [`Files`](crate::Files) | borrowed | as it says |
/// | any of these [with limits](Self::limits) | | |
///
/// All of these are implemented by this crate: a program writes functions, and implements this only for a type of its own that is to stand in
/// routes, together with [`Endpoint`], whose page shows how.
///
/// | method | when it is called | the default |
/// |---|---|---|
/// | [`into_endpoint`](Self::into_endpoint) | once, when the handler is given to a router | none |
/// | [`limits`](Self::limits) | by the program, in a route | [`Limited`]: the same endpoint, with these limits in front of its own |
///
/// What it captures is `'static` and need not be `Send`: it stays on its worker. It must not block, because the worker
/// serves all its connections on one thread. A panic is answered with 500.
///
/// An `async` handler may wait for anything that needs no more than a waker, and for what is tokio's if its worker has entered a
/// runtime of tokio ([`Builder::on_thread_start`](netpoll_core::Builder::on_thread_start); `docs/ASYNC.md` says how, and what it costs).
/// Its future is polled and dropped on its worker, so what it holds need not be `Send` either.
///
/// Closures annotate their arguments, because the compiler cannot guess the lifetime of a request:
///
/// ```
/// use netpoll_http::{Error, Reply, Request, Router, StatusCode};
///
/// async fn lookup(id: u64) -> Result<String, Error> {
///     Ok(format!("order {id}"))
/// }
///
/// let router = Router::new()
///     .get("/", |_: &Request| "hello")
///     .get("/orders/{id}", async |req: Request| lookup(req.param("id")?).await)
///     .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()));
/// # drop(router);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is `|req: &Request| ..`, `async |req: Request| ..` or `|req: &Request, reply: Reply| ..`",
    note = "or, to read its body while it arrives, `async |req: Request, body: BodyReader| ..`",
    note = "with its arguments annotated like this, `'static` captures, and a result that is `IntoResponse`",
    note = "for JSON: `Json(value)`, of any type that is `serde::Serialize`",
    note = "a `Result` must be `Result<_, netpoll_http::Error>`; write `impl ResponseError for YourError` for `?`"
)]
pub trait Handler<M>: 'static {
    /// What a route holds.
    type Endpoint: Endpoint;

    /// Makes the handler ready to be held by a route.
    fn into_endpoint(self) -> Self::Endpoint;

    /// The same handler with limits of its own: `.post("/upload", upload.limits(..))`. See [`RouteLimits`].
    fn limits(self, limits: RouteLimits) -> Limited<Self::Endpoint>
    where
        Self: Sized,
    {
        Limited { endpoint: self.into_endpoint(), limits }
    }
}

/// A handler as a route holds it.
///
/// [`Handler::into_endpoint`] makes one of a function, which is the usual way. A type of the program that answers requests implements it by hand,
/// and [`Handler`] beside it, with any type as the marker, so that routes take it: as [`Files`](crate::Files) does.
///
/// | method | when it is called | the default |
/// |---|---|---|
/// | [`call`](Self::call) | for each request of its route, when the body is there and no hook has answered | none |
/// | [`limits`](Self::limits) | once, when the route is made | no limits of its own: those of its router, or else of the connection |
/// | [`delivery`](Self::delivery), [`call_reading`](Self::call_reading), [`open_sink`](Self::open_sink) | as those of a [`Service`](crate::Service) | bodies are received as a whole |
///
/// ```
/// use netpoll_http::{App, Endpoint, Handler, Replied, Reply, Request, RouteLimits, Router, StatusCode};
///
/// /// What was here is somewhere else now.
/// struct Gone(String);
///
/// impl Endpoint for Gone {
///     fn call(&self, _request: &Request<'_>, reply: Reply<'_>) -> Replied {
///         reply.bytes(StatusCode::GONE, "text/plain", self.0.as_bytes())
///     }
///
///     fn limits(&self) -> RouteLimits {
///         RouteLimits::default().body_bytes_max(64)
///     }
/// }
///
/// impl Handler<Gone> for Gone {
///     type Endpoint = Self;
///
///     fn into_endpoint(self) -> Self {
///         self
///     }
/// }
///
/// let client = App::new(|_worker| Router::new().any("/old", Gone("see /new".to_owned()))).test();
/// assert_eq!(client.get("/old").text(), "see /new");
/// assert_eq!(client.post("/old", "short").status, StatusCode::GONE);
/// assert_eq!(client.post("/old", vec![0; 65]).status, StatusCode::PAYLOAD_TOO_LARGE);
/// ```
pub trait Endpoint: 'static {
    /// Answers one request. It must not block, and a panic is answered with 500.
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied;

    /// What it wants in place of the limits of its connections. Asked once, by what holds it. Default: nothing, so those of the
    /// [router](crate::Router::limits) go, or else of the [connection](crate::Limits).
    fn limits(&self) -> RouteLimits {
        RouteLimits::default()
    }

    /// How it takes a body that does not come together with its head: see [`Service::delivery`](crate::Service::delivery).
    fn delivery(&self) -> Delivery {
        Delivery::Whole
    }

    /// Answers one request, and reads its body while it arrives: called in place of [`call`](Self::call) where [`delivery`](Self::delivery)
    /// says so.
    fn call_reading(&self, request: &Request<'_>, body: BodyReader, reply: Reply<'_>) -> Replied {
        drop(body);
        self.call(request, reply)
    }

    /// What takes the body of one request while it arrives, where [`delivery`](Self::delivery) says so.
    ///
    /// # Errors
    /// The answer: the body is not wanted.
    fn open_sink(&self, _request: &Request<'_>) -> Result<OpenSink, Error> {
        Err(Error::internal("this endpoint has no sinks"))
    }
}

/// A handler with limits of its own; made by [`Handler::limits`].
#[derive(Debug)]
pub struct Limited<E> {
    endpoint: E,
    limits: RouteLimits,
}

/// Marks [`Limited`].
#[derive(Debug)]
pub struct WithLimits(());

impl<E: Endpoint> Handler<WithLimits> for Limited<E> {
    type Endpoint = Self;

    fn into_endpoint(self) -> Self {
        self
    }
}

impl<E: Endpoint> Endpoint for Limited<E> {
    #[inline]
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.endpoint.call(request, reply)
    }

    fn limits(&self) -> RouteLimits {
        self.limits.or(self.endpoint.limits())
    }

    fn delivery(&self) -> Delivery {
        self.endpoint.delivery()
    }

    fn call_reading(&self, request: &Request<'_>, body: BodyReader, reply: Reply<'_>) -> Replied {
        self.endpoint.call_reading(request, body, reply)
    }

    fn open_sink(&self, request: &Request<'_>) -> Result<OpenSink, Error> {
        self.endpoint.open_sink(request)
    }
}

/// Marks `Fn(&Request) -> R`.
#[derive(Debug)]
pub struct Synchronous<R>(PhantomData<fn() -> R>);

/// Marks `async Fn(Request) -> R`.
#[derive(Debug)]
pub struct Asynchronous<R>(PhantomData<fn() -> R>);

/// Marks `Fn(&Request, Reply) -> Replied`.
#[derive(Debug)]
pub struct Direct(());

/// Holds a synchronous handler.
#[derive(Debug)]
pub struct SynchronousEndpoint<F, R>(F, PhantomData<fn() -> R>);

impl<F, R> Handler<Synchronous<R>> for F
where
    F: Fn(&Request<'_>) -> R + 'static,
    R: IntoResponse,
{
    type Endpoint = SynchronousEndpoint<F, R>;

    fn into_endpoint(self) -> Self::Endpoint {
        SynchronousEndpoint(self, PhantomData)
    }
}

impl<F, R> Endpoint for SynchronousEndpoint<F, R>
where
    F: Fn(&Request<'_>) -> R + 'static,
    R: IntoResponse,
{
    #[inline]
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        (self.0)(request).respond(reply)
    }
}

/// Holds an asynchronous handler, shared with its futures.
#[derive(Debug)]
pub struct AsynchronousEndpoint<F, R>(Rc<F>, PhantomData<fn() -> R>);

impl<F, R> Handler<Asynchronous<R>> for F
where
    F: AsyncFn(Request<'static>) -> R + 'static,
    R: IntoResponse,
{
    type Endpoint = AsynchronousEndpoint<F, R>;

    fn into_endpoint(self) -> Self::Endpoint {
        AsynchronousEndpoint(Rc::new(self), PhantomData)
    }
}

impl<F, R> Endpoint for AsynchronousEndpoint<F, R>
where
    F: AsyncFn(Request<'static>) -> R + 'static,
    R: IntoResponse,
{
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        let handler = Rc::clone(&self.0);
        let copied_bytes = request.borrowed_bytes();
        let request = request.to_owned();
        let kept = reply.needs_request().then(|| request.clone());
        reply.later(Pending::new(async move { handler(request).await }, kept, copied_bytes))
    }
}

/// Holds a handler that writes its answer itself.
#[derive(Debug)]
pub struct DirectEndpoint<F>(F);

impl<F> Handler<Direct> for F
where
    F: Fn(&Request<'_>, Reply<'_>) -> Replied + 'static,
{
    type Endpoint = DirectEndpoint<F>;

    fn into_endpoint(self) -> Self::Endpoint {
        DirectEndpoint(self)
    }
}

impl<F> Endpoint for DirectEndpoint<F>
where
    F: Fn(&Request<'_>, Reply<'_>) -> Replied + 'static,
{
    #[inline]
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        (self.0)(request, reply)
    }
}
