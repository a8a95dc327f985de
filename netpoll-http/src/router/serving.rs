//! The run-time router at work: from a method and a path to hooks and a handler.
//!
//! Invariant: a request has one chain of groups around it, whether it finds a route or not, so no hook sees it twice.

use std::rc::Rc;
use std::time::Duration;

use super::Found;
use super::wiring::{Route, Router};
use crate::h1::{BeforeFuture, Route as FoundRoute, Service};
use crate::layer::{Before, Hooks, ask, ask_later, waits};
use crate::message::{
    BodyReader, Delivery, Error, Names, OpenSink, Params, Parts, Replied, Reply, Request, Response, RouteId,
};

impl Router {
    fn held(&self, route: RouteId) -> &Route {
        &self.routes[route.0 as usize]
    }

    /// The groups around a request, innermost first.
    #[inline]
    fn groups(&self, route: Option<RouteId>, request: &Request<'_>) -> &[Rc<Hooks>] {
        match route {
            Some(route) => &self.held(route).groups,
            None => self.groups_without_route(request.path()),
        }
    }

    /// All hooks before a request, in their order.
    #[inline]
    fn chain(&self, route: Option<RouteId>, request: &Request<'_>) -> impl Iterator<Item = &Before> {
        let groups = self.groups(route, request).iter().rev();
        self.hooks.outermost(request).chain(groups.flat_map(|group| group.before()))
    }

    #[cold]
    fn groups_without_route(&self, path: &str) -> &[Rc<Hooks>] {
        if let Some(route) = self.tree.find_any(path) {
            return &self.held(*route).groups;
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
            // It is reserved for a nested router, which has no such path.
            Found::MethodNotAllowed("") => FoundRoute::NotFound,
            Found::MethodNotAllowed(allow) => FoundRoute::MethodNotAllowed(allow),
            Found::NotFound => FoundRoute::NotFound,
        }
    }

    fn methods(&self) -> &str {
        &self.methods
    }

    fn pattern(&self, route: RouteId) -> Option<&str> {
        Some(&*self.held(route).pattern).filter(|pattern| !pattern.is_empty())
    }

    #[inline]
    fn body_bytes_max(&self, route: RouteId) -> Option<usize> {
        self.held(route).limits.body_bytes_max.or(self.limits.body_bytes_max)
    }

    fn delivery(&self, route: RouteId) -> Delivery {
        self.held(route).endpoint.delivery()
    }

    fn call_reading(
        &self,
        route: RouteId,
        request: &Request<'_>,
        body: BodyReader,
        reply: Reply<'_>,
    ) -> Replied {
        self.held(route).endpoint.call_reading(request, body, reply)
    }

    fn open_sink(&self, route: RouteId, request: &Request<'_>) -> Result<OpenSink, Error> {
        self.held(route).endpoint.open_sink(request)
    }

    fn handler_timeout(&self, route: RouteId) -> Option<Duration> {
        self.held(route).limits.handler_timeout.or(self.limits.handler_timeout)
    }

    fn fallback(&self, path: &str, found: FoundRoute<'_>) -> Option<RouteId> {
        match found {
            FoundRoute::To(route) => Some(route),
            FoundRoute::NotFound => {
                let mut nests = self.nests.iter().filter(|nest| nest.has(path));
                nests.find_map(|nest| nest.fallback).or(self.fallback)
            }
            FoundRoute::MethodNotAllowed(_) => {
                let route = self.tree.find_any(path).map(|route| self.held(*route));
                route.and_then(|route| route.method_not_allowed).or(self.method_not_allowed)
            }
        }
    }

    #[inline]
    fn has_before(&self, route: Option<RouteId>) -> bool {
        !self.hooks.is_empty() || route.map_or(self.has_groups, |route| !self.held(route).groups.is_empty())
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
        self.hooks.has_after() || self.must_see(route)
    }

    #[inline]
    fn must_see(&self, route: Option<RouteId>) -> bool {
        self.has_before(route)
            // Hooks of groups have to see answers, whatever they are.
            && (self.hooks.must_see()
                || route.is_none_or(|route| self.held(route).groups.iter().any(|group| group.has_after())))
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
    fn has_only_names(&self, route: RouteId) -> bool {
        self.hooks.has_only_names() && self.held(route).groups.is_empty()
    }

    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        for group in self.groups(route, request) {
            group.after(request, parts);
        }
        self.hooks.after(request, parts);
    }

    #[inline]
    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.held(route).endpoint.call(request, reply)
    }
}
