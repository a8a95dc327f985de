//! What a connection asks of the program above it.
//!
//! The connection is generic over this trait, so from the parser to the handler a compile-time route
//! table is one call without a pointer in between. A [`Router`](crate::Router) has one, to its handler.

use std::pin::Pin;
use std::time::Duration;

use crate::message::{
    BodyReader, Delivery, Error, Names, OpenSink, Params, Parts, Replied, Reply, Request, Response, RouteId,
};

/// A look at a head that may wait, see [`Service::before_async`]: an answer ends the request.
pub type BeforeFuture = Pin<Box<dyn Future<Output = Option<Result<Response, Error>>>>>;

/// What a service says about a method and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The route to take; the parameters are filled in.
    To(RouteId),
    /// The path is known, the method is not: 405 with this `Allow` value.
    MethodNotAllowed(&'a str),
    /// Nothing has this path: 404.
    NotFound,
}

/// Answers the requests of a connection: a [`Router`](crate::Router), or what [`routes!`](crate::routes)
/// makes.
///
/// This crate implements it for those two; a program does for a routing of its own. Three methods have no default:
///
/// | method | when it is called | the default |
/// |---|---|---|
/// | [`find`](Self::find) | the head is there | none |
/// | [`methods`](Self::methods) | `OPTIONS *`, and a method that HTTP does not define has found no route | none |
/// | [`call`](Self::call) | the body is there, and no hook has answered | none |
/// | [`pattern`](Self::pattern) | a request has ended of which somebody wants to [hear](crate::Server::on_complete) | `None`: the route has no name |
/// | [`body_bytes_max`](Self::body_bytes_max) | in front of the body | `None`: that of the connection, and no body for `GET`, `HEAD`, `OPTIONS` and `DELETE` |
/// | [`delivery`](Self::delivery) | in front of a body that has not come as a whole | [`Delivery::Whole`]: it is received first |
/// | [`call_reading`](Self::call_reading) | that was [`Delivery::Reader`] | the body is not read: `call`, with an empty one |
/// | [`open_sink`](Self::open_sink) | that was [`Delivery::Sink`] | 500 |
/// | [`handler_timeout`](Self::handler_timeout) | a handler or a hook waits | `None`: that of the connection |
/// | [`fallback`](Self::fallback) | `find` has found no route | `None`: 404, or 405 with `Allow` |
/// | [`has_before`](Self::has_before) | a route is found | `true`: `before` is asked, which is the longer way |
/// | [`before`](Self::before) | the head is there | `None`: the request passes |
/// | [`has_before_async`](Self::has_before_async) | `before` has let it pass | `false`: there is nothing to wait for |
/// | [`before_async`](Self::before_async) | that was `true` | `None` at once: the request passes |
/// | [`has_after`](Self::has_after) | an answer is made | `false`: `after` is not called |
/// | [`after`](Self::after) | that was `true`: once for each answer | changes nothing |
/// | [`stamp`](Self::stamp) | it was `false` | `None`: no line is added |
///
/// A request is looked up when its head is there and called when its body is, which may be later. A panic in any of these
/// functions is answered with 500 and ends the connection; one in `has_after` only keeps `after` from being called. A
/// service of one's own can be as small as this:
///
/// ```
/// use netpoll_http::{App, Params, Replied, Reply, Request, Route, RouteId, Service, StatusCode};
///
/// struct EchoPath;
/// impl Service for EchoPath {
///     fn find(&self, _method: &str, _path: &[u8], _params: &mut Params) -> Route<'_> {
///         Route::To(RouteId(0))
///     }
///     fn methods(&self) -> &str {
///         "GET, HEAD"
///     }
///     fn call(&self, _route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
///         reply.bytes(StatusCode::OK, "text/plain", request.path().as_bytes())
///     }
/// }
/// assert_eq!(App::new(|_| EchoPath).test().get("/a/b").text(), "/a/b");
/// ```
pub trait Service: 'static {
    /// This crate has written it: nothing of the program runs, and panics, while a request is looked up.
    #[doc(hidden)]
    const IS_OWN: bool = false;

    /// Finds the route of a method and a raw path, and fills in its parameters.
    ///
    /// The path is printable ASCII; it comes as bytes because text would have to be checked once more.
    fn find(&self, method: &str, path: &[u8], params: &mut Params) -> Route<'_>;

    /// The methods that any of the routes has, for `OPTIONS *`: `GET, HEAD, POST`.
    fn methods(&self) -> &str;

    /// The pattern of a route, for logs and metrics: `/orders/{id}`. `None` if it has none.
    fn pattern(&self, _route: RouteId) -> Option<&str> {
        None
    }

    /// The largest body of a route in bytes, if it differs from
    /// [`Limits::body_bytes_max`](crate::Limits::body_bytes_max).
    fn body_bytes_max(&self, _route: RouteId) -> Option<usize> {
        None
    }

    /// How the route takes a body that does not come together with its head. One that does is handed to [`call`](Self::call), whatever this says.
    ///
    /// A service around another one that does not pass this on has bodies received as a whole.
    fn delivery(&self, _route: RouteId) -> Delivery {
        Delivery::Whole
    }

    /// Calls the route's handler, which reads the body while it arrives. The body of the request is empty.
    fn call_reading(
        &self,
        route: RouteId,
        request: &Request<'_>,
        body: BodyReader,
        reply: Reply<'_>,
    ) -> Replied {
        drop(body);
        self.call(route, request, reply)
    }

    /// What takes the body of this request while it arrives, and answers; or an error that it is answered with.
    ///
    /// # Errors
    /// The body is not wanted.
    fn open_sink(&self, _route: RouteId, _request: &Request<'_>) -> Result<OpenSink, Error> {
        Err(Error::internal("this service has no sinks"))
    }

    /// How long the route's asynchronous handler may take, and asynchronous hooks before it, if it differs from
    /// [`Limits::handler_timeout`](crate::Limits::handler_timeout).
    fn handler_timeout(&self, _route: RouteId) -> Option<Duration> {
        None
    }

    /// What is called for a path that nothing has, or for a method that its path has not, in place of the answer 404 or 405.
    ///
    /// Not asked for the target `*`, nor where OPTIONS is answered with `Allow`, nor for a method that is not known at all (501).
    /// Hooks are asked with no route all the same, and before this.
    fn fallback(&self, _path: &str, _found: Route<'_>) -> Option<RouteId> {
        None
    }

    /// Looks at a head before its body is read; an answer ends the request, or an error that it is answered with.
    ///
    /// `route` is `None` for requests that found none. The request's body is empty.
    fn before(&self, _route: Option<RouteId>, _request: &Request<'_>) -> Option<Result<Response, Error>> {
        None
    }

    /// Whether [`before_async`](Self::before_async) is to be asked, when [`before`](Self::before) has let the request pass.
    fn has_before_async(&self, _route: Option<RouteId>, _request: &Request<'_>) -> bool {
        false
    }

    /// A look at a head that may wait; an answer ends the request.
    ///
    /// The request is a copy of the head, and the one whose handler is called afterwards. The body is not read meanwhile. The
    /// future is dropped when the client leaves, and after [`Limits::handler_timeout`](crate::Limits::handler_timeout), which is
    /// answered with 503.
    fn before_async(&self, _route: Option<RouteId>, _request: Request<'static>) -> BeforeFuture {
        Box::pin(std::future::ready(None))
    }

    /// Whether [`before`](Self::before) or [`before_async`](Self::before_async) does anything for this route. Requests of a route without it, the
    /// default being that it has one, take a shorter way.
    fn has_before(&self, _route: Option<RouteId>) -> bool {
        true
    }

    /// Whether [`after`](Self::after) does anything for this route, or for requests without one. Answers of routes
    /// without it take a shorter way, and an `async` handler's request is not kept for it.
    fn has_after(&self, _route: Option<RouteId>) -> bool {
        false
    }

    /// Whether answers of this route have to be shown to [`after`](Self::after): not where [`stamp`](Self::stamp) says all that it would add. A service
    /// around this one, which can pass on `has_after` and `after` and does not know of this, loses nothing.
    #[doc(hidden)]
    #[inline]
    fn must_see(&self, route: Option<RouteId>) -> bool {
        self.has_after(route)
    }

    /// A header line for answers of routes for which [`has_before`](Self::has_before) says yes and [`has_after`](Self::has_after) no: what a hook that only adds this one would do, without
    /// the longer way. The name in lower case, and a value that is one of [`HeaderValue`](crate::HeaderValue): one that is not is left out, and so is a line
    /// that this crate writes itself, such as `Content-Length`. It takes the place of one of that name that the handler has added.
    #[inline]
    fn stamp<'r>(
        &self,
        _route: Option<RouteId>,
        _request: &'r Request<'_>,
    ) -> Option<(&'static str, &'r [u8])> {
        None
    }

    /// What is to be found out about each request before [`before`](Self::before) is asked.
    #[doc(hidden)]
    #[inline]
    fn names(&self) -> Names {
        Names::default()
    }

    /// Whether all that hooks do for this route is what [`names`](Self::names) says and [`stamp`](Self::stamp) adds: then none is called. Not asked
    /// where [`has_before`](Self::has_before) says no.
    #[doc(hidden)]
    #[inline]
    fn has_only_names(&self, _route: RouteId) -> bool {
        false
    }

    /// May change an answer before it leaves.
    ///
    /// Called once for each answer, when whoever made it has returned: also for refusals, for 408 and for the 500 that a
    /// panic is answered with, whose bodies are the message of `parts.error`. `route` is `None` where none was found, and
    /// where the head could not be read ([`Request::is_unread`]) or breaks a rule. If it panics, 500 leaves, and it is not called again.
    fn after(&self, _route: Option<RouteId>, _request: &Request<'_>, _parts: &mut Parts) {}

    /// Calls the route's handler.
    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied;
}
