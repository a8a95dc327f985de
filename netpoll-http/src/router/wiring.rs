//! The run-time router: patterns to handlers, with hooks and options per group.
//!
//! Matching is [`Tree`]'s; this file keeps what a match leads to. Routes are numbered in the order of
//! adding, and the tree holds the numbers.
//!
//! Invariant: every number in the tree is an index into `routes`.

use std::fmt;
use std::rc::Rc;

use http::Method;

use super::Tree;
use super::nest::{Nest, WithAllow};
use crate::h1::RouteLimits;
use crate::handler::{Endpoint, Handler};
use crate::layer::{Hook, Hooks, waits};
use crate::message::{Parts, Request, RouteId};

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
/// another method (405, OPTIONS); else of the innermost one that is nested at a prefix of its path (404), one at `/admin` before one at
/// `/{shop}/items`; else of the outermost alone. If two routers share a path or a prefix, it is the one that was added first.
///
/// # What finds no route
///
/// [`fallback`](Self::fallback) takes paths that nothing has, and [`method_not_allowed`](Self::method_not_allowed) methods that a path has
/// not. Those of a nested router are for what begins with its prefix; where it has none, those around it. Without them it is
/// an error like others, which [`Server::errors`](crate::Server::errors) writes.
#[derive(Default)]
// The tree first: every request goes through it, and a few instructions are saved by where it lies.
#[repr(C)]
pub struct Router {
    pub(super) tree: Tree<RouteId>,
    pub(super) routes: Vec<Route>,
    pub(super) hooks: Hooks,
    pub(super) methods: String,
    /// For routes that have none of their own.
    pub(super) limits: RouteLimits,
    /// Routers that are nested at a prefix, the longest first.
    pub(super) nests: Vec<Nest>,
    /// Whether any group has hooks.
    pub(super) has_groups: bool,
    /// Whether any hook before handlers may wait, those of groups included.
    pub(super) waits: bool,
    pub(super) fallback: Option<RouteId>,
    pub(super) method_not_allowed: Option<RouteId>,
}

pub(super) struct Route {
    pub(super) endpoint: Box<dyn Endpoint>,
    /// The first that leads to it, as it is from the root. Empty if none does.
    pub(super) pattern: Box<str>,
    pub(super) limits: RouteLimits,
    /// Hooks of the groups that the route was merged with, innermost first. Usually none.
    pub(super) groups: Vec<Rc<Hooks>>,
    /// What its group has for methods that its paths have not.
    pub(super) method_not_allowed: Option<RouteId>,
}

macro_rules! methods {
    ($($name:ident $method:ident,)*) => {
        $(
            #[doc = concat!("Adds a route for `", stringify!($method), "`.")]
            ///
            /// # Panics
            /// When the pattern is malformed or takes the same paths as an earlier one; the message names both.
            #[must_use]
            #[track_caller]
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

    pub(super) fn with_hooks(hooks: Hooks) -> Self {
        Self { waits: waits(hooks.before()), hooks, ..Self::default() }
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

    /// Adds a route for a method that HTTP may know or not.
    ///
    /// # Panics
    /// When the pattern is malformed or takes the same paths as an earlier one; the message names both.
    #[must_use]
    #[track_caller]
    pub fn on<M>(self, method: Method, pattern: &str, handler: impl Handler<M>) -> Self {
        self.route(pattern, [method], handler)
    }

    /// Adds a route for several methods, with one handler: `.route("/echo", [Method::PUT, Method::POST], echo)`.
    ///
    /// # Panics
    /// As [`on`](Self::on), and when there is no method.
    #[must_use]
    #[track_caller]
    pub fn route<M>(
        mut self,
        pattern: &str,
        methods: impl IntoIterator<Item = Method>,
        handler: impl Handler<M>,
    ) -> Self {
        let number = self.hold(handler.into_endpoint());
        let mut methods = methods.into_iter().peekable();
        assert!(methods.peek().is_some(), "route \"{pattern}\" is for no method");
        for method in methods {
            self.insert(Some(method), pattern, number);
        }
        self
    }

    /// Adds a route for all methods for which the same paths have no other, also those that HTTP does not know. OPTIONS and HEAD are its
    /// business too; the latter's body is dropped.
    ///
    /// # Panics
    /// When the pattern is malformed, or takes the same paths as an earlier one for any method; the message names both.
    #[must_use]
    #[track_caller]
    pub fn any<M>(mut self, pattern: &str, handler: impl Handler<M>) -> Self {
        let number = self.hold(handler.into_endpoint());
        self.insert(None, pattern, number);
        self
    }

    /// A handler for paths that nothing has, with any method, in place of 404. Hooks see its requests before and after, as they see those
    /// of a 404.
    ///
    /// ```
    /// use netpoll_http::{App, Request, Response, Router, StatusCode};
    ///
    /// let page = |req: &Request| Response::html(format!("<p>{} bytes", req.path().len())).status(StatusCode::NOT_FOUND);
    /// let client = App::new(move |_| Router::new().get("/", |_: &Request| "root").fallback(page)).test();
    /// let response = client.get("/nowhere");
    /// assert_eq!((response.status, response.text()), (StatusCode::NOT_FOUND, "<p>8 bytes"));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn fallback<M>(mut self, handler: impl Handler<M>) -> Self {
        self.fallback = Some(self.hold(handler.into_endpoint()));
        self
    }

    /// A handler for paths that have other methods, in place of 405. Its answer gets the `Allow` header that a 405 has to have. OPTIONS, and
    /// methods that nobody knows (501), are answered as without it.
    #[must_use]
    #[track_caller]
    pub fn method_not_allowed<M>(mut self, handler: impl Handler<M>) -> Self {
        self.method_not_allowed = Some(self.hold(WithAllow(handler.into_endpoint())));
        self
    }

    /// Limits for all routes of this router, those of nested ones too, that have none of their own
    /// ([`Handler::limits`]).
    ///
    /// # Panics
    /// When one of them lets nothing through.
    #[must_use]
    #[track_caller]
    pub fn limits(mut self, limits: RouteLimits) -> Self {
        self.limits = limits.checked();
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

    /// Takes in all routes of another router, or of a table ([`routes!`](crate::routes)), which keep its hooks; this router's are
    /// around them.
    ///
    /// Paths that neither has are this router's own: 404 passes no hook of `other`, nor does a fallback that comes from there.
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there, or both have a [`fallback`](Self::fallback).
    #[must_use]
    #[track_caller]
    pub fn merge(self, other: impl Into<Router>) -> Self {
        self.take_in("", other.into())
    }

    /// Like [`merge`](Self::merge), with `prefix` before each pattern: `/api` and `/orders` make `/api/orders`. All that
    /// begins with the prefix is `other`'s then, and its hooks and its fallback see what it has not. So is what a pattern of this router
    /// would take by a parameter in the prefix's place, such as `/{*path}`; what it has below the prefix, spelled out, stays its own.
    ///
    /// The root of `other`, `/`, is at both `/api` and `/api/`. A slash at the end of the prefix changes nothing.
    ///
    /// ```
    /// use netpoll_http::{App, Request, Router};
    ///
    /// let items = || Router::new()
    ///     .get("/", |_: &Request| "all")
    ///     .get("/{id}", |req: &Request| req.param::<String>("id"));
    /// let client = App::new(move |_| Router::new().nest("/items", items())).test();
    /// assert_eq!(client.get("/items").text(), "all");
    /// assert_eq!(client.get("/items/").text(), "all");
    /// assert_eq!(client.get("/items/7").text(), "7");
    /// ```
    ///
    /// # Panics
    /// When a pattern takes the same paths as one that is there, or the prefix is no path.
    #[must_use]
    #[track_caller]
    pub fn nest(self, prefix: &str, other: impl Into<Router>) -> Self {
        self.take_in(prefix.strip_suffix('/').unwrap_or(prefix), other.into())
    }

    #[track_caller]
    fn take_in(mut self, prefix: &str, other: Router) -> Self {
        let base = u32::try_from(self.routes.len()).expect("fewer than 2^32 routes");
        let here = |number: RouteId| RouteId(base + number.0);
        let group = Rc::new(other.hooks);
        self.has_groups |= !group.is_empty() || other.has_groups;
        self.waits |= other.waits;
        let fallback = other.fallback.map(here);
        if prefix.is_empty() && fallback.is_some() {
            assert!(
                self.fallback.is_none(),
                "both routers have a fallback, and there is no prefix to tell by"
            );
            self.fallback = fallback;
        }
        let own = (!prefix.is_empty()).then(|| Nest::new("", Vec::new(), None));
        for mut nest in other.nests.into_iter().chain(own) {
            if !group.is_empty() {
                nest.groups.push(Rc::clone(&group));
            }
            nest.fallback = nest.fallback.map(here).or(fallback);
            let nest = nest.below(prefix);
            if let Err(error) = self.tree.reserve(&nest.prefix()) {
                panic!("{error}");
            }
            self.nests.push(nest);
        }
        // Stable: of equals the first one stays first.
        self.nests.sort_by_cached_key(Nest::order);
        for mut route in other.routes {
            if !group.is_empty() {
                route.groups.push(Rc::clone(&group));
            }
            route.pattern = Box::default();
            route.limits = route.limits.or(other.limits);
            route.method_not_allowed = route.method_not_allowed.or(other.method_not_allowed).map(here);
            self.routes.push(route);
        }
        let mut patterns: Vec<_> = other.tree.iter().collect();
        patterns.sort_by_key(|(_, _, number)| number.0);
        for (method, pattern, number) in patterns {
            let (method, number) = (method.cloned(), here(*number));
            if pattern == "/" && !prefix.is_empty() {
                self.insert(method.clone(), prefix, number);
            }
            self.insert(method, &format!("{prefix}{pattern}"), number);
        }
        self
    }

    /// Keeps a handler, which no path leads to yet.
    #[track_caller]
    pub(super) fn hold(&mut self, endpoint: impl Endpoint) -> RouteId {
        let number = RouteId(u32::try_from(self.routes.len()).expect("fewer than 2^32 routes"));
        let limits = endpoint.limits().checked();
        let endpoint = Box::new(endpoint);
        let (pattern, groups) = (Box::default(), Vec::new());
        self.routes.push(Route { endpoint, pattern, limits, groups, method_not_allowed: None });
        number
    }

    /// Leads a method, or any, and a pattern to a handler.
    #[track_caller]
    pub(super) fn insert(&mut self, method: Option<Method>, pattern: &str, number: RouteId) {
        let implied = if method == Some(Method::GET) { "HEAD" } else { "" };
        for name in [method.as_ref().map_or("", Method::as_str), implied] {
            if !name.is_empty() && !self.methods.split(", ").any(|known| known == name) {
                self.methods.push_str(if self.methods.is_empty() { "" } else { ", " });
                self.methods.push_str(name);
            }
        }
        if let Err(error) = self.tree.insert_for(method, pattern, number) {
            panic!("{error}");
        }
        let route = &mut self.routes[number.0 as usize];
        if route.pattern.is_empty() {
            route.pattern = pattern.into();
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |method: Option<&Method>| method.map_or("ANY".to_owned(), Method::to_string);
        let routes = self.tree.iter().map(|(method, pattern, _)| format!("{} {pattern}", name(method)));
        f.debug_list().entries(routes).finish()
    }
}
