//! What lies below the prefix of a nested router, and what its paths do not have.

use std::rc::Rc;

use http::header::ALLOW;

use crate::handler::Endpoint;
use crate::layer::Hooks;
use crate::message::{Allow, Replied, Reply, Request, RouteId};

/// What is below a prefix.
pub(super) struct Nest {
    /// Segments of the pattern, the empty one before the first slash included.
    segments: Vec<String>,
    /// As those of a route.
    pub(super) groups: Vec<Rc<Hooks>>,
    /// What its own router has for paths that are not there, or one around it, up to the outermost.
    pub(super) fallback: Option<RouteId>,
}

impl Nest {
    pub(super) fn new(prefix: &str, groups: Vec<Rc<Hooks>>, fallback: Option<RouteId>) -> Self {
        Self { segments: prefix.split('/').map(str::to_owned).collect(), groups, fallback }
    }

    /// The same, with its router nested in its turn.
    pub(super) fn below(self, prefix: &str) -> Self {
        Self::new(&format!("{prefix}{}", self.prefix()), self.groups, self.fallback)
    }

    /// The prefix.
    pub(super) fn prefix(&self) -> String {
        self.segments.join("/")
    }

    /// Whether a raw path is the prefix or goes on behind it.
    pub(super) fn has(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        self.segments.iter().all(|segment| {
            parts
                .next()
                .is_some_and(|part| if is_param(segment) { !part.is_empty() } else { part == segment })
        })
    }

    /// As the tree looks for a path: a literal comes before a parameter, and what goes on before what ends.
    pub(super) fn order(&self) -> Vec<u8> {
        const END: u8 = 2;
        self.segments.iter().map(|segment| u8::from(is_param(segment))).chain([END]).collect()
    }
}

fn is_param(segment: &str) -> bool {
    segment.starts_with('{')
}

/// A handler for methods that a path has not: its answers say which ones it has.
pub(super) struct WithAllow<E>(pub(super) E);

impl<E: Endpoint> Endpoint for WithAllow<E> {
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match request.extensions().get::<Allow>() {
            Some(Allow(methods)) => self.0.call(request, reply.with_header(ALLOW, methods.clone())),
            None => self.0.call(request, reply),
        }
    }

    fn limits(&self) -> crate::h1::RouteLimits {
        self.0.limits()
    }
}
