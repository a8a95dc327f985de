//! Hooks around handlers: look at a request before it is handled, change an answer before it leaves.
//!
//! Invariant: the first `before` hook that answers ends the request; later ones and the handler do not
//! run, `after` hooks do. `after` hooks run once for each head that leaves, in reverse order of adding, so
//! that the hook added first is the outermost on both ways. One that panics makes a 500 of the answer, which those
//! around it see.
//!
//! Hooks run on the worker, synchronously. With none added a request pays one test for an empty list.

mod rate_limit;

use std::fmt;

use crate::message::{Error, Parts, Request, Response, guarded};

pub use rate_limit::RateLimit;

type Before = Box<dyn Fn(&Request<'_>) -> Option<Result<Response, Error>>>;
type After = Box<dyn Fn(&Request<'_>, &mut Parts)>;

/// The hooks of one group of routes.
#[derive(Default)]
pub(crate) struct Hooks {
    before: Vec<Before>,
    after: Vec<After>,
}

impl Hooks {
    pub(crate) fn add_before<V: Verdict>(&mut self, hook: impl Fn(&Request<'_>) -> V + 'static) {
        self.before.push(Box::new(move |request| hook(request).into_answer()));
    }

    pub(crate) fn add_after(&mut self, hook: impl Fn(&Request<'_>, &mut Parts) + 'static) {
        self.after.push(Box::new(hook));
    }

    #[inline]
    pub(crate) fn has_after(&self) -> bool {
        !self.after.is_empty()
    }

    #[inline]
    pub(crate) fn before(&self, request: &Request<'_>) -> Option<Result<Response, Error>> {
        self.before.iter().find_map(|hook| hook(request))
    }

    pub(crate) fn after(&self, request: &Request<'_>, parts: &mut Parts) {
        for hook in self.after.iter().rev() {
            if guarded(|| hook(request, parts)).is_none() {
                parts.apologise();
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({} before, {} after)", self.before.len(), self.after.len())
    }
}

/// What a `before` hook may return: go on, or an answer.
pub trait Verdict {
    /// The answer that ends the request, or the error that it is answered with, which `after` hooks find in
    /// [`Parts::error`]; `None` to go on.
    fn into_answer(self) -> Option<Result<Response, Error>>;
}

/// Goes on: the hook only looked.
impl Verdict for () {
    fn into_answer(self) -> Option<Result<Response, Error>> {
        None
    }
}

/// Goes on without an answer.
impl Verdict for Option<Response> {
    fn into_answer(self) -> Option<Result<Response, Error>> {
        self.map(Ok)
    }
}

/// Goes on, or answers with the error.
impl Verdict for Result<(), Error> {
    fn into_answer(self) -> Option<Result<Response, Error>> {
        self.err().map(Err)
    }
}
