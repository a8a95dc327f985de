//! Hooks around handlers: look at a request before it is handled, change an answer before it leaves.
//!
//! Invariant: the first `before` hook that answers ends the request; later ones and the handler do not
//! run, `after` hooks do. `after` hooks run once for each head that leaves, in reverse order of adding, so
//! that the hook added first is the outermost on both ways. One that panics makes a 500 of the answer, which those
//! around it see.
//!
//! Hooks run on the worker. `before` hooks may wait: the first that might, and all behind it, run in one future on a copy of the
//! head. With none added a request pays one test for an empty list.

#[cfg(feature = "compression")]
mod compress;
mod forwarded;
mod rate_limit;

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::message::{Ask, Error, Names, Parts, Request, RequestId, Response, TraceContext, guarded_or_told};

#[cfg(feature = "compression")]
pub use compress::Compress;
pub use forwarded::{Forwarded, ParseNetworkError};
pub use rate_limit::RateLimit;

type Answer = Option<Result<Response, Error>>;
type After = Box<dyn Fn(&Request<'_>, &mut Parts)>;

/// A `before` hook as it is kept.
#[derive(Clone)]
pub struct Before(Kind);

#[derive(Clone)]
enum Kind {
    Now(Rc<dyn Fn(&Request<'_>) -> Answer>),
    Later(Rc<dyn Fn(Request<'static>) -> Ask>),
}

/// The hooks of one group of routes.
#[derive(Default)]
pub(crate) struct Hooks {
    before: Vec<Before>,
    /// What the first of these find out, if nothing was found out before them.
    names: Names,
    /// How many they are.
    naming: usize,
    after: Vec<After>,
    /// Those after handlers are [`RequestId::show`], and nothing else.
    only_names: bool,
}

impl Hooks {
    pub(crate) fn add_before<M>(&mut self, hook: impl Hook<M>) {
        // A function has a type of its own.
        let (id, trace) =
            (type_id(&hook) == type_id(&RequestId::take), type_id(&hook) == type_id(&TraceContext::take));
        if self.naming == self.before.len() && (id || trace) {
            self.names = Names { id: self.names.id || id, trace: self.names.trace || trace };
            self.naming += 1;
        }
        self.before.push(hook.into_before());
    }

    /// What is to be found out about requests before the hooks of their outermost router are asked.
    #[inline]
    pub(crate) fn names(&self) -> Names {
        self.names
    }

    /// Nothing is left to do for a request whose names are known, but for a [`stamp`](Self::stamp) on its answer.
    #[inline]
    pub(crate) fn has_only_names(&self) -> bool {
        self.naming == self.before.len() && !self.must_see()
    }

    /// Those before a handler that have something left to do, in the outermost router.
    #[inline]
    pub(crate) fn outermost(&self, request: &Request<'_>) -> impl Iterator<Item = &Before> {
        // Somebody else's service may ask without having looked, and a handler of a router that has looked for something else.
        let done = if request.extensions().are_known(self.names) { self.naming } else { 0 };
        self.before[done..].iter()
    }

    pub(crate) fn add_after(&mut self, hook: impl Fn(&Request<'_>, &mut Parts) + 'static) {
        let is_naming = type_id(&hook) == type_id(&RequestId::show);
        self.only_names = is_naming && (self.after.is_empty() || self.only_names);
        self.after.push(Box::new(hook));
    }

    /// What they add to an answer, if it is one line that needs no look at it.
    #[inline]
    pub(crate) fn stamp<'r>(&self, request: &'r Request<'_>) -> Option<(&'static str, &'r [u8])> {
        if self.only_names { Some(RequestId::line(request)) } else { None }
    }

    /// Whether those after handlers have to see answers.
    #[inline]
    pub(crate) fn must_see(&self) -> bool {
        self.has_after() && !self.only_names
    }

    #[inline]
    pub(crate) fn has_after(&self) -> bool {
        !self.after.is_empty()
    }

    /// Those before a handler, in their order.
    pub(crate) fn before(&self) -> impl Iterator<Item = &Before> {
        self.before.iter()
    }

    pub(crate) fn after(&self, request: &Request<'_>, parts: &mut Parts) {
        for hook in self.after.iter().rev() {
            let mut text = None;
            if guarded_or_told(|| hook(request, parts), |said| text = Some(said.to_owned())).is_none() {
                parts.apologise(text);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

fn type_id<T: 'static>(_: &T) -> TypeId {
    TypeId::of::<T>()
}

/// Asks hooks, up to the first that answers or may wait.
#[inline]
pub(crate) fn ask<'h>(hooks: impl Iterator<Item = &'h Before>, request: &Request<'_>) -> Answer {
    for hook in hooks {
        match &hook.0 {
            Kind::Now(hook) => match hook(request) {
                None => {}
                answer => return answer,
            },
            Kind::Later(_) => break,
        }
    }
    None
}

/// Whether [`ask`] leaves any.
pub(crate) fn waits<'h>(mut hooks: impl Iterator<Item = &'h Before>) -> bool {
    hooks.any(|hook| matches!(hook.0, Kind::Later(_)))
}

/// Asks those that [`ask`] has left, from the first that may wait on.
pub(crate) fn ask_later<'h>(hooks: impl Iterator<Item = &'h Before>, request: Request<'static>) -> Ask {
    let left: Vec<Before> = hooks.skip_while(|hook| matches!(hook.0, Kind::Now(_))).cloned().collect();
    Box::pin(async move {
        for hook in left {
            let answer = match hook.0 {
                Kind::Now(hook) => hook(&request),
                Kind::Later(hook) => hook(request.clone()).await,
            };
            if answer.is_some() {
                return answer;
            }
        }
        None
    })
}

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Now(_) => "Before",
            Kind::Later(_) => "Before(async)",
        })
    }
}

/// What can be a hook before handlers: `Fn(&Request) -> impl Verdict`, or `async Fn(Request) -> impl Verdict`. `M` is a marker that
/// is inferred.
///
/// As with handlers, closures annotate their arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hook",
    label = "not a hook",
    note = "a hook is `|req: &Request| ..` or `async |req: Request| ..`, annotated like this and with `'static` captures",
    note = "it returns `()`, `Option<Response>` or `Result<(), netpoll_http::Error>`"
)]
pub trait Hook<M>: 'static {
    /// Makes it ready to be kept.
    fn into_before(self) -> Before;
}

/// Marks `Fn(&Request) -> V`.
#[derive(Debug)]
pub struct Synchronous<V>(PhantomData<fn() -> V>);

/// Marks `async Fn(Request) -> V`.
#[derive(Debug)]
pub struct Asynchronous<V>(PhantomData<fn() -> V>);

impl<F, V> Hook<Synchronous<V>> for F
where
    F: Fn(&Request<'_>) -> V + 'static,
    V: Verdict,
{
    fn into_before(self) -> Before {
        Before(Kind::Now(Rc::new(move |request| self(request).into_answer())))
    }
}

impl<F, V> Hook<Asynchronous<V>> for F
where
    F: AsyncFn(Request<'static>) -> V + 'static,
    V: Verdict,
{
    fn into_before(self) -> Before {
        let hook = Rc::new(self);
        Before(Kind::Later(Rc::new(move |request| {
            let hook = Rc::clone(&hook);
            Box::pin(async move { hook(request).await.into_answer() })
        })))
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
