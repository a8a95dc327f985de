//! The run-time router: patterns to handlers, with hooks and options per group.
//!
//! Matching is [`Tree`]'s; this file keeps what a match leads to. Routes are numbered in the order of
//! adding, and the tree holds the numbers.
//!
//! Invariant: every number in the tree is an index into `routes`.

use std::fmt;
use std::rc::Rc;

use http::Method;

use super::{Found, Tree};
use crate::h1::{Route as FoundRoute, Service};
use crate::handler::{Endpoint, Handler};
use crate::layer::{Hooks, Verdict};
use crate::message::{Params, Parts, Replied, Reply, Request, Response, RouteId};

/// Routes by method and path, put together when a worker starts.
///
/// A pattern is a path with parameters: `/orders/{id}` takes one segment, `/files/{*rest}` all that
/// follows. A literal beats a parameter, and the order of adding does not matter.
///
/// Answered without a handler: HEAD from GET, OPTIONS with `Allow`, 404, 405 with `Allow`, and 501 for
/// methods that HTTP does not know.
///
/// ```
/// use netpoll_http::{App, Error, Parts, Request, Router, StatusCode};
///
/// let admin = Router::new()
///     .get("/stats", |_: &Request| "all is well")
///     .before(|req: &Request| match req.header_str("x-key") {
///         Some("secret") => Ok(()),
///         _ => Err(Error::from(StatusCode::UNAUTHORIZED)),
///     });
/// let client = App::new(move |_| Router::new().get("/", |_: &Request| "hello")).test();
/// assert_eq!(client.get("/").text(), "hello");
/// # drop(Router::new().nest("/admin", admin));
/// ```
#[derive(Default)]
pub struct Router {
    tree: Tree<RouteId>,
    routes: Vec<Route>,
    hooks: Hooks,
    methods: String,
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
    /// When no route was added before.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        let route = self.routes.last_mut().expect("body_bytes_max follows the route that it is for");
        route.body_bytes_max = Some(bytes);
        self
    }

    /// Adds a hook that sees the head of every request of this router before its handler does.
    ///
    /// It returns `()` to only look, or `Result<(), Error>` or `Option<Response>` to be able to answer instead
    /// of the handler. It runs before the body is read, so a refused upload costs nothing; the body of
    /// its request is empty. Requests that find no route pass it as well.
    #[must_use]
    pub fn before<V: Verdict>(mut self, hook: impl Fn(&Request<'_>) -> V + 'static) -> Self {
        self.hooks.add_before(hook);
        self
    }

    /// Adds a hook that may change status and headers of every answer of this router before it leaves.
    ///
    /// Answers of `before` hooks, 404 and 405 pass it as well; refusals of malformed requests do not.
    /// Answers then take a slower way out, because their headers are collected first.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(&Request<'_>, &mut Parts) + 'static) -> Self {
        self.hooks.add_after(hook);
        self
    }

    /// Takes in all routes of another router, which keep its hooks; this router's are around them.
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there.
    #[must_use]
    pub fn merge(self, other: Router) -> Self {
        self.nest("", other)
    }

    /// Like [`merge`](Self::merge), with `prefix` before each pattern: `/api` and `/orders` make `/api/orders`.
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there.
    #[must_use]
    pub fn nest(mut self, prefix: &str, other: Router) -> Self {
        let group = Rc::new(other.hooks);
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
    }

    fn route(&self, route: RouteId) -> &Route {
        &self.routes[route.0 as usize]
    }

    /// The groups of a route, innermost first; of no route, none.
    #[inline]
    fn groups(&self, route: Option<RouteId>) -> &[Rc<Hooks>] {
        route.map_or(&[], |route| &self.route(route).groups)
    }
}

impl Service for Router {
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
        !self.hooks.is_empty() || !self.groups(route).is_empty()
    }

    #[inline]
    fn before(&self, route: Option<RouteId>, request: &Request<'_>) -> Option<Response> {
        let groups = self.groups(route).iter().rev();
        self.hooks.before(request).or_else(|| groups.into_iter().find_map(|group| group.before(request)))
    }

    #[inline]
    fn has_after(&self, route: Option<RouteId>) -> bool {
        self.has_before(route)
            && (self.hooks.has_after() || self.groups(route).iter().any(|group| group.has_after()))
    }

    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        for group in self.groups(route) {
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
