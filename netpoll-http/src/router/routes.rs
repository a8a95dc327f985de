//! The compile-time router: [`routes!`](crate::routes), handlers wired to a checked table.
//!
//! The patterns are checked and sorted by the compiler, see [`route_table!`](crate::route_table); the handlers
//! are a list whose type names each of them, so that the way from the parser to a handler has no
//! pointer in it.
//!
//! Invariant: the list has as many handlers as the table has routes, in the same order; the macro
//! makes both from one list.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use super::{Found, Router, Table};
use crate::h1::{BeforeFuture, Route, RouteLimits, Service};
use crate::handler::Endpoint;
use crate::layer::{Hook, Hooks, ask, ask_later, waits};
use crate::message::{
    BodyReader, Delivery, Error, Names, OpenSink, Params, Parts, Replied, Reply, Request, Response, RouteId,
};

/// Makes a [`Service`](crate::Service) from routes that are known at compile time.
///
/// Same patterns, same rules and same handlers as [`Router`](crate::Router); a flawed or conflicting
/// pattern does not compile. Handlers may capture, so call it in the factory, once per worker. A method that is no
/// identifier is written as text: `"M-SEARCH" "/devices" => ..`. At most 1500 routes; a thousand take the compiler
/// some seconds.
///
/// ```
/// use netpoll_http::{App, Json, Request, routes};
///
/// let client = App::new(|_| {
///     let greeting = String::from("hello");
///     routes! {
///         GET "/" => |_: &Request| "Hello, World!",
///         GET "/greet/{name}" => move |req: &Request| {
///             let name: String = req.param("name")?;
///             Ok(format!("{greeting}, {name}"))
///         },
///         POST "/orders" => async |req: Request| Ok(Json(req.json::<u32>()?)),
///     }
/// })
/// .test();
/// assert_eq!(client.get("/greet/Ada").text(), "hello, Ada");
/// assert_eq!(client.get("/orders").header("allow"), Some("POST"));
/// ```
#[macro_export]
macro_rules! routes {
    (@handlers) => { () };
    // Sixteen at a time: a macro may not call itself more often than 128 times, and types may not nest deeper.
    (@handlers
        $h0:expr, $h1:expr, $h2:expr, $h3:expr, $h4:expr, $h5:expr, $h6:expr, $h7:expr,
        $h8:expr, $h9:expr, $h10:expr, $h11:expr, $h12:expr, $h13:expr, $h14:expr, $h15:expr,
        $($rest:expr),+
    ) => {
        $crate::router::Then(
            $crate::routes!(@handlers
                $h0, $h1, $h2, $h3, $h4, $h5, $h6, $h7, $h8, $h9, $h10, $h11, $h12, $h13, $h14, $h15
            ),
            $crate::routes!(@handlers $($rest),+),
        )
    };
    (@handlers $handler:expr $(, $rest:expr)*) => {
        ($crate::Handler::into_endpoint($handler), $crate::routes!(@handlers $($rest),*))
    };
    ($($method:tt $pattern:literal => $handler:expr),* $(,)?) => {{
        $crate::route_table! { struct Routes { $($method $pattern),* } }
        $crate::router::TableRouter::<Routes, _>::new($crate::routes!(@handlers $($handler),*))
    }};
}

/// A compile-time table with its handlers; made by [`routes!`](crate::routes).
pub struct TableRouter<T, H> {
    handlers: H,
    hooks: Hooks,
    methods: String,
    /// For each route, in their order.
    limits: Box<[RouteLimits]>,
    table: PhantomData<fn() -> T>,
}

impl<T: Table, H: Endpoints> TableRouter<T, H> {
    /// Puts handlers to the routes of a table, in the same order.
    ///
    /// # Panics
    /// When there are more or fewer handlers than routes, or a limit of one lets nothing through.
    #[track_caller]
    pub fn new(handlers: H) -> Self {
        let routes = T::routes().list();
        assert_eq!(routes.len(), H::COUNT, "one handler for each route of the table");
        let mut methods: Vec<&str> = Vec::new();
        for route in routes {
            for name in [route.method(), if route.method() == "GET" { "HEAD" } else { route.method() }] {
                if !methods.contains(&name) {
                    methods.push(name);
                }
            }
        }
        let mut limits = Vec::with_capacity(H::COUNT);
        handlers.add_limits(&mut limits);
        for limits in &limits {
            let _ = limits.checked();
        }
        let (hooks, methods, limits) = (Hooks::default(), methods.join(", "), limits.into_boxed_slice());
        Self { handlers, hooks, methods, limits, table: PhantomData }
    }

    /// Limits for those of its routes that have none of their own.
    ///
    /// # Panics
    /// When one of them lets nothing through.
    #[must_use]
    #[track_caller]
    pub fn limits(mut self, limits: RouteLimits) -> Self {
        let limits = limits.checked();
        self.limits.iter_mut().for_each(|own| *own = own.or(limits));
        self
    }

    /// Adds a hook before all handlers, see [`Router::before`](crate::Router::before).
    #[must_use]
    pub fn before<M>(mut self, hook: impl Hook<M>) -> Self {
        self.hooks.add_before(hook);
        self
    }

    /// Adds a hook after all answers, see [`Router::after`](crate::Router::after).
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&Request<'_>, &mut Parts) + 'static) -> Self {
        self.hooks.add_after(hook);
        self
    }
}

impl<T: Table + 'static, H: Endpoints> Service for TableRouter<T, H> {
    const IS_OWN: bool = true;

    #[inline]
    fn find(&self, method: &str, path: &[u8], params: &mut Params) -> Route<'_> {
        match T::find_bytes(method, path, params) {
            Found::Route(number) => Route::To(RouteId(number as u32)),
            Found::MethodNotAllowed(allow) => Route::MethodNotAllowed(allow),
            Found::NotFound => Route::NotFound,
        }
    }

    fn methods(&self) -> &str {
        &self.methods
    }

    fn pattern(&self, route: RouteId) -> Option<&str> {
        T::routes().list().get(route.0 as usize).map(super::table::Route::pattern)
    }

    #[inline]
    fn body_bytes_max(&self, route: RouteId) -> Option<usize> {
        self.limits[route.0 as usize].body_bytes_max
    }

    fn delivery(&self, route: RouteId) -> Delivery {
        self.handlers.nth(route.0).delivery()
    }

    fn call_reading(
        &self,
        route: RouteId,
        request: &Request<'_>,
        body: BodyReader,
        reply: Reply<'_>,
    ) -> Replied {
        self.handlers.nth(route.0).call_reading(request, body, reply)
    }

    fn open_sink(&self, route: RouteId, request: &Request<'_>) -> Result<OpenSink, Error> {
        self.handlers.nth(route.0).open_sink(request)
    }

    fn handler_timeout(&self, route: RouteId) -> Option<Duration> {
        self.limits[route.0 as usize].handler_timeout
    }

    #[inline]
    fn has_before(&self, _route: Option<RouteId>) -> bool {
        !self.hooks.is_empty()
    }

    #[inline]
    fn before(&self, _route: Option<RouteId>, request: &Request<'_>) -> Option<Result<Response, Error>> {
        ask(self.hooks.outermost(request), request)
    }

    fn has_before_async(&self, _route: Option<RouteId>, _request: &Request<'_>) -> bool {
        waits(self.hooks.before())
    }

    fn before_async(&self, _route: Option<RouteId>, request: Request<'static>) -> BeforeFuture {
        ask_later(self.hooks.before(), request)
    }

    #[inline]
    fn has_after(&self, _route: Option<RouteId>) -> bool {
        self.hooks.has_after()
    }

    #[inline]
    fn must_see(&self, _route: Option<RouteId>) -> bool {
        self.hooks.must_see()
    }

    #[inline]
    fn stamp<'r>(
        &self,
        _route: Option<RouteId>,
        request: &'r Request<'_>,
    ) -> Option<(&'static str, &'r [u8])> {
        self.hooks.stamp(request)
    }

    #[inline]
    fn names(&self) -> Names {
        self.hooks.names()
    }

    #[inline]
    fn has_only_names(&self, _route: RouteId) -> bool {
        self.hooks.has_only_names()
    }

    fn after(&self, _route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        self.hooks.after(request, parts);
    }

    #[inline]
    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.handlers.call(route.0, request, reply)
    }
}

/// The same routes at run time, to be nested, merged, and given a fallback. One pointer more on the way to a handler.
///
/// ```
/// use netpoll_http::{App, Request, Router, routes};
///
/// let router = |_: &_| {
///     let table = routes! { GET "/orders/{id}" => |req: &Request| req.param::<String>("id") };
///     Router::new().nest("/api", table).fallback(|_: &Request| "nothing here")
/// };
/// let client = App::new(router).test();
/// assert_eq!(client.get("/api/orders/7").text(), "7");
/// assert_eq!(client.get("/orders/7").text(), "nothing here");
/// ```
impl<T: Table + 'static, H: Endpoints> From<TableRouter<T, H>> for Router {
    fn from(table: TableRouter<T, H>) -> Self {
        let TableRouter { handlers, hooks, limits, .. } = table;
        let handlers = Rc::new(handlers);
        let mut router = Router::with_hooks(hooks);
        for ((number, route), limits) in (0..).zip(T::routes().list()).zip(limits) {
            let method = route.method().parse().expect("the table has checked it");
            let number = router.hold(Nth { handlers: Rc::clone(&handlers), number, limits });
            router.insert(Some(method), route.pattern(), number);
        }
        router
    }
}

/// One handler of a row.
struct Nth<H> {
    handlers: Rc<H>,
    number: u32,
    limits: RouteLimits,
}

impl<H: Endpoints> Endpoint for Nth<H> {
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.handlers.call(self.number, request, reply)
    }

    fn limits(&self) -> RouteLimits {
        self.limits
    }

    fn delivery(&self) -> Delivery {
        self.handlers.nth(self.number).delivery()
    }

    fn call_reading(&self, request: &Request<'_>, body: BodyReader, reply: Reply<'_>) -> Replied {
        self.handlers.nth(self.number).call_reading(request, body, reply)
    }

    fn open_sink(&self, request: &Request<'_>) -> Result<OpenSink, Error> {
        self.handlers.nth(self.number).open_sink(request)
    }
}

impl<T: Table, H> fmt::Debug for TableRouter<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = T::routes().list().iter().map(|route| format!("{} {}", route.method(), route.pattern()));
        f.debug_list().entries(routes).finish()
    }
}

/// Handlers in a row: `(first, (second, (third, ())))`, or two such rows one [`Then`] the other.
pub trait Endpoints: 'static {
    /// How many there are.
    const COUNT: usize;

    /// Calls the one with this number, from zero.
    fn call(&self, number: u32, request: &Request<'_>, reply: Reply<'_>) -> Replied;

    /// The one with this number, for what is not asked of every request.
    fn nth(&self, number: u32) -> &dyn Endpoint;

    /// Adds the limits of each, in their order.
    fn add_limits(&self, limits: &mut Vec<RouteLimits>);
}

/// A row of handlers and those behind it.
#[derive(Debug)]
pub struct Then<A, B>(pub A, pub B);

impl<A: Endpoints, B: Endpoints> Endpoints for Then<A, B> {
    const COUNT: usize = A::COUNT + B::COUNT;

    // Not inlined into each other: a thousand handlers would be one function.
    #[inline]
    fn call(&self, number: u32, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match number.checked_sub(A::COUNT as u32) {
            None => self.0.call(number, request, reply),
            Some(behind) => self.1.call(behind, request, reply),
        }
    }

    fn nth(&self, number: u32) -> &dyn Endpoint {
        match number.checked_sub(A::COUNT as u32) {
            None => self.0.nth(number),
            Some(behind) => self.1.nth(behind),
        }
    }

    fn add_limits(&self, limits: &mut Vec<RouteLimits>) {
        self.0.add_limits(limits);
        self.1.add_limits(limits);
    }
}

impl Endpoints for () {
    const COUNT: usize = 0;

    fn call(&self, _number: u32, _request: &Request<'_>, _reply: Reply<'_>) -> Replied {
        unreachable!("a table finds only numbers that it has")
    }

    fn nth(&self, _number: u32) -> &dyn Endpoint {
        unreachable!("a table finds only numbers that it has")
    }

    fn add_limits(&self, _limits: &mut Vec<RouteLimits>) {}
}

impl<E: Endpoint, Rest: Endpoints> Endpoints for (E, Rest) {
    const COUNT: usize = 1 + Rest::COUNT;

    // The chain of comparisons folds into one switch once it is inlined into itself.
    #[inline(always)]
    fn call(&self, number: u32, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match number {
            0 => self.0.call(request, reply),
            _ => self.1.call(number - 1, request, reply),
        }
    }

    fn nth(&self, number: u32) -> &dyn Endpoint {
        match number {
            0 => &self.0,
            _ => self.1.nth(number - 1),
        }
    }

    fn add_limits(&self, limits: &mut Vec<RouteLimits>) {
        limits.push(self.0.limits());
        self.1.add_limits(limits);
    }
}
