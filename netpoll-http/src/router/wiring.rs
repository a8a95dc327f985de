//! The run-time router: patterns to handlers, with hooks and options per group.
//!
//! Matching is [`Tree`]'s; this file keeps what a match leads to. Routes are numbered in the order of
//! adding, and the tree holds the numbers.
//!
//! Invariant: every number in the tree is an index into `routes`. A request has one chain of groups around it, whether it
//! finds a route or not, so no hook sees it twice.

use std::fmt;
use std::rc::Rc;

use http::Method;

use super::{Found, Tree};
use crate::h1::{BeforeFuture, Route as FoundRoute, Service};
use crate::handler::{Endpoint, Handler};
use crate::layer::{Before, Hook, Hooks, ask, ask_later, waits};
use crate::message::{Error, Params, Parts, Replied, Reply, Request, Response, RouteId};

/// Routes by method and path, put together when a worker starts.
///
/// A pattern is a path with parameters: `/orders/{id}` takes one segment, `/files/{*rest}` all that
/// follows. A literal beats a parameter, and the order of adding does not matter.
///
/// Answered without a handler: HEAD from GET, OPTIONS with `Allow`, 404, 405 with `Allow`, and 501 for
/// methods that neither HTTP nor any of the routes knows.
///
/// ```
/// use netpoll_http::{App, Error, Request, Router, StatusCode};
///
/// let admin = || Router::new()
///     .get("/stats", |_: &Request| "all is well")
///     .before(|req: &Request| match req.header_str("x-key") {
///         Some("secret") => Ok(()),
///         _ => Err(Error::from(StatusCode::UNAUTHORIZED)),
///     });
/// let client = App::new(move |_| Router::new().get("/", |_: &Request| "hello").nest("/admin", admin())).test();
/// assert_eq!(client.get("/").text(), "hello");
/// assert_eq!(client.get("/admin/stats").status, StatusCode::UNAUTHORIZED);
/// assert_eq!(client.get("/admin/anything").status, StatusCode::UNAUTHORIZED);
/// assert_eq!(client.get("/anything").status, StatusCode::NOT_FOUND);
/// ```
///
/// # Hooks
///
/// On the way in `before` hooks run in the order in which they were added, those of an outer router before those of one
/// that is nested in it; on the way out `after` hooks run in the opposite order. So the hook that was added first to the
/// outermost router sees everything: it is the place for an access log.
///
/// A request that finds no route passes the hooks of the router that it belongs to: of the one that has the path, for
/// another method (405, OPTIONS); else of the innermost one that is nested at a prefix of its path (404); else of the
/// outermost alone. If two routers share a path or a prefix, it is the one that was added first.
#[derive(Default)]
pub struct Router {
    tree: Tree<RouteId>,
    routes: Vec<Route>,
    hooks: Hooks,
    methods: String,
    /// Routers that are nested at a prefix, the longest first.
    nests: Vec<Nest>,
    /// Whether any group has hooks.
    has_groups: bool,
    /// Whether any hook before handlers may wait, those of groups included.
    waits: bool,
    /// The route that was added last is one of its own, and nothing was taken in since.
    can_limit_last: bool,
}

/// What is below a prefix.
struct Nest {
    /// Segments of the pattern, the empty one before the first slash included.
    segments: Vec<String>,
    /// As those of a route.
    groups: Vec<Rc<Hooks>>,
}

impl Nest {
    fn new(prefix: &str, groups: Vec<Rc<Hooks>>) -> Self {
        Self { segments: prefix.split('/').map(str::to_owned).collect(), groups }
    }

    /// Whether a raw path is the prefix or goes on behind it.
    fn has(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        self.segments.iter().all(|segment| {
            parts
                .next()
                .is_some_and(|part| if is_param(segment) { !part.is_empty() } else { part == segment })
        })
    }

    /// Longer prefixes come first, and a literal before a parameter.
    fn order(&self) -> (std::cmp::Reverse<usize>, Vec<bool>) {
        let params = self.segments.iter().map(|segment| is_param(segment)).collect();
        (std::cmp::Reverse(self.segments.len()), params)
    }
}

fn is_param(segment: &str) -> bool {
    segment.starts_with('{')
}

struct Route {
    endpoint: Box<dyn Endpoint>,
    body_bytes_max: Option<usize>,
    /// Hooks of the groups that the route was merged with, innermost first. Usually none.
    groups: Vec<Rc<Hooks>>,
}

macro_rules! methods {
    ($($name:ident $method:ident,)*) => {
        $(
            #[doc = concat!("Adds a route for `", stringify!($method), "`.")]
            ///
            /// # Panics
            /// When the pattern is malformed or takes the same paths as an earlier one; the message names both.
            #[must_use]
            pub fn $name<M>(self, pattern: &str, handler: impl Handler<M>) -> Self {
                self.on(Method::$method, pattern, handler)
            }
        )*
    };
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    methods! {
        get GET,
        post POST,
        put PUT,
        patch PATCH,
        delete DELETE,
        head HEAD,
        options OPTIONS,
    }

    /// Adds a route for any method, registered or not.
    ///
    /// # Panics
    /// When the pattern is malformed or takes the same paths as an earlier one; the message names both.
    #[must_use]
    pub fn on<M>(mut self, method: Method, pattern: &str, handler: impl Handler<M>) -> Self {
        let endpoint = Box::new(handler.into_endpoint());
        self.add(method, pattern, Route { endpoint, body_bytes_max: None, groups: Vec::new() });
        self
    }

    /// The largest body, in bytes, that the route added last takes; beyond it 413.
    ///
    /// Default: [`Limits::body_bytes_max`](crate::Limits::body_bytes_max).
    ///
    /// # Panics
    /// When no route was added before, or when [`nest`](Self::nest) or [`merge`](Self::merge) came in between: routes
    /// of another router have their limits from there.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        let sentence = "body_bytes_max follows the route that it is for, before `nest` and `merge`";
        let route = self.routes.last_mut().filter(|_| self.can_limit_last).expect(sentence);
        route.body_bytes_max = Some(bytes);
        self
    }

    /// Adds a hook that sees the head of every request of this router before its handler does.
    ///
    /// It returns `()` to only look, or `Result<(), Error>` or `Option<Response>` to be able to answer instead
    /// of the handler. It runs before the body is read, so a refused upload costs nothing; the body of
    /// its request is empty. Requests that find no route pass it as well, those that cannot be read do not; of a nested
    /// router see [Hooks](Self#hooks). What it finds out it leaves in [`Request::extensions`], for the handler.
    ///
    /// It may be `async`, to ask a database who somebody is. The connection is not read while it waits, for
    /// [`Limits::handler_timeout`](crate::Limits::handler_timeout) at most; then the answer is 503. One that waits costs a copy of the head
    /// and two allocations a request.
    ///
    /// ```
    /// use netpoll_http::{App, Request, Router, StatusCode};
    ///
    /// struct User(String);
    /// async fn find_session(token: &str) -> Option<User> {
    ///     (token == "q8Wb3").then(|| User("Ada".to_owned()))
    /// }
    ///
    /// let sign_in = async |req: Request| {
    ///     let token = req.cookie("session").ok_or(StatusCode::UNAUTHORIZED)?;
    ///     req.extensions().insert(find_session(token).await.ok_or(StatusCode::UNAUTHORIZED)?);
    ///     Ok(())
    /// };
    /// let hello = |req: &Request| req.extensions().get::<User>().map(|user| format!("hello, {}", user.0));
    /// let client = App::new(move |_| Router::new().get("/", hello).before(sign_in)).test();
    /// assert_eq!(client.get("/").status, StatusCode::UNAUTHORIZED);
    /// ```
    #[must_use]
    pub fn before<M>(mut self, hook: impl Hook<M>) -> Self {
        self.hooks.add_before(hook);
        self.waits |= waits(self.hooks.before());
        self
    }

    /// Adds a hook that may change status and headers of every answer of this router before it leaves.
    ///
    /// It runs once for each answer, when that is complete: also for those of `before` hooks, for 404, 405 and 408, for
    /// the 500 that a panic is answered with, and, in the outermost router, for refusals of requests that could not be
    /// read ([`Request::is_unread`]). A hook that panics makes a 500 of the answer, and the hooks around it see that.
    /// The order is told under [Hooks](Self#hooks). Not for 1xx, and not for what is cut without an
    /// answer: a client that left before it was there, a TLS handshake.
    ///
    /// Answers then take a slower way out, because their headers are collected first and their bodies moved behind them.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&Request<'_>, &mut Parts) + 'static) -> Self {
        self.hooks.add_after(hook);
        self
    }

    /// Takes in all routes of another router, which keep its hooks; this router's are around them.
    ///
    /// Paths that neither has are this router's own: 404 passes no hook of `other`.
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there.
    #[must_use]
    pub fn merge(self, other: Router) -> Self {
        self.nest("", other)
    }

    /// Like [`merge`](Self::merge), with `prefix` before each pattern: `/api` and `/orders` make `/api/orders`. All that
    /// begins with the prefix is `other`'s then, and its hooks see the 404 for what it has not.
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there.
    #[must_use]
    pub fn nest(mut self, prefix: &str, other: Router) -> Self {
        let group = Rc::new(other.hooks);
        self.has_groups |= !group.is_empty() || other.has_groups;
        self.waits |= other.waits;
        let inner = other.nests.into_iter().map(|nest| (nest.segments.join("/"), nest.groups));
        let all = inner.chain((!prefix.is_empty()).then(|| (String::new(), Vec::new())));
        for (inner, mut groups) in all {
            if !group.is_empty() {
                groups.push(Rc::clone(&group));
            }
            self.nests.push(Nest::new(&format!("{prefix}{inner}"), groups));
        }
        // Stable: of equals the first one stays first.
        self.nests.sort_by_cached_key(Nest::order);
        let mut patterns: Vec<_> = other
            .tree
            .iter()
            .map(|(method, pattern, route)| (route.0, method.clone(), pattern.to_owned()))
            .collect();
        patterns.sort_by_key(|(number, ..)| *number);
        for ((_, method, pattern), mut route) in patterns.into_iter().zip(other.routes) {
            if !group.is_empty() {
                route.groups.push(Rc::clone(&group));
            }
            self.add(method, &format!("{prefix}{pattern}"), route);
        }
        self.can_limit_last = false;
        self
    }

    fn add(&mut self, method: Method, pattern: &str, route: Route) {
        let number = RouteId(u32::try_from(self.routes.len()).expect("fewer than 2^32 routes"));
        for name in [method.as_str(), if method == Method::GET { "HEAD" } else { "" }] {
            if !name.is_empty() && !self.methods.split(", ").any(|known| known == name) {
                self.methods.push_str(if self.methods.is_empty() { "" } else { ", " });
                self.methods.push_str(name);
            }
        }
        if let Err(error) = self.tree.insert(method, pattern, number) {
            panic!("{error}");
        }
        self.routes.push(route);
        self.can_limit_last = true;
    }

    fn route(&self, route: RouteId) -> &Route {
        &self.routes[route.0 as usize]
    }

    /// The groups around a request, innermost first.
    #[inline]
    fn groups(&self, route: Option<RouteId>, request: &Request<'_>) -> &[Rc<Hooks>] {
        match route {
            Some(route) => &self.route(route).groups,
            None => self.groups_without_route(request.path()),
        }
    }

    /// All hooks before a request, in their order.
    #[inline]
    fn chain(&self, route: Option<RouteId>, request: &Request<'_>) -> impl Iterator<Item = &Before> {
        let groups = self.groups(route, request).iter().rev();
        self.hooks.before().chain(groups.flat_map(|group| group.before()))
    }

    #[cold]
    fn groups_without_route(&self, path: &str) -> &[Rc<Hooks>] {
        if let Some(route) = self.tree.find_any(path) {
            return &self.route(*route).groups;
        }
        self.nests.iter().find(|nest| nest.has(path)).map_or(&[], |nest| &nest.groups)
    }
}

impl Service for Router {
    const IS_OWN: bool = true;

    #[inline]
    fn find(&self, method: &str, path: &[u8], params: &mut Params) -> FoundRoute<'_> {
        match self.tree.find_bytes(method, path, params) {
            Found::Route(route) => FoundRoute::To(*route),
            Found::MethodNotAllowed(allow) => FoundRoute::MethodNotAllowed(allow),
            Found::NotFound => FoundRoute::NotFound,
        }
    }

    fn methods(&self) -> &str {
        &self.methods
    }

    #[inline]
    fn body_bytes_max(&self, route: RouteId) -> Option<usize> {
        self.route(route).body_bytes_max
    }

    #[inline]
    fn has_before(&self, route: Option<RouteId>) -> bool {
        !self.hooks.is_empty() || route.map_or(self.has_groups, |route| !self.route(route).groups.is_empty())
    }

    #[inline]
    fn before(&self, route: Option<RouteId>, request: &Request<'_>) -> Option<Result<Response, Error>> {
        ask(self.chain(route, request), request)
    }

    #[inline]
    fn has_before_async(&self, route: Option<RouteId>, request: &Request<'_>) -> bool {
        self.waits && waits(self.chain(route, request))
    }

    fn before_async(&self, route: Option<RouteId>, request: Request<'static>) -> BeforeFuture {
        ask_later(self.chain(route, &request), request.clone())
    }

    #[inline]
    fn has_after(&self, route: Option<RouteId>) -> bool {
        self.has_before(route)
            && (self.hooks.has_after()
                || route.is_none_or(|route| self.route(route).groups.iter().any(|group| group.has_after())))
    }

    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        for group in self.groups(route, request) {
            group.after(request, parts);
        }
        self.hooks.after(request, parts);
    }

    #[inline]
    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.route(route).endpoint.call(request, reply)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.tree.iter().map(|(method, pattern, _)| format!("{method} {pattern}"));
        f.debug_list().entries(routes).finish()
    }
}
