//! An answer that is not there yet: the future of an asynchronous handler, or of hooks before one.
//!
//! A handler's output is boxed without its type, but not turned into a [`Response`]: when it is
//! there it still writes itself straight into the write queue, as a synchronous answer does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use netpoll_core::Held;

use super::request::Owned;
use super::{Error, IntoResponse, Replied, Reply, Request, Response};
use crate::wire::Framing;

/// A future of hooks: the answer that ends the request, if one of them has one.
pub(crate) type Ask = Pin<Box<dyn Future<Output = Option<Result<Response, Error>>>>>;

/// A handler's future, and the request if hooks are going to ask for it; or that of hooks, and the request.
///
/// Small, because it is a part of what every answer may leave behind.
pub(crate) struct Pending {
    future: Pin<Box<dyn Future<Output = Futures>>>,
    request: Option<Arc<Owned>>,
    /// Bytes of the request that were copied for the handler.
    pub(crate) copied_bytes: usize,
    /// The same in the worker's budget, if they are many.
    pub(crate) held: Option<Held>,
    /// What most do not have.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    behind: Option<Behind>,
    asked: Option<Asked>,
    timeout: Option<Duration>,
}

impl Pending {
    /// Two allocations: the future now, its answer when it is there.
    pub(crate) fn new<R: IntoResponse>(
        future: impl Future<Output = R> + 'static,
        request: Option<Request<'static>>,
        copied_bytes: usize,
    ) -> Self {
        let future = Box::pin(async move { Futures::Answered(Box::new(future.await)) });
        Self { future, request: request.map(Request::into_shared), copied_bytes, held: None, more: None }
    }

    /// Hooks that wait before this request, whose body was not looked at.
    pub(crate) fn ask(ask: Ask, request: Request<'static>, behind: Behind, copied_bytes: usize) -> Self {
        let future = Box::pin(async move { Futures::Asked(ask.await) });
        let more = Some(Box::new(More { behind: Some(behind), ..More::default() }));
        Self { future, request: Some(request.into_shared()), copied_bytes, held: None, more }
    }

    /// The request, if hooks are going to ask for it.
    pub(crate) fn request(&self) -> Option<Request<'static>> {
        self.request.clone().map(Request::from)
    }

    /// What follows, if it is hooks that wait.
    pub(crate) fn behind(&self) -> Option<Behind> {
        self.more.as_deref()?.behind
    }

    /// What was asked of the reply before the handler was called.
    pub(crate) fn set_asked(&mut self, asked: Asked) {
        self.more.get_or_insert_default().asked = Some(asked);
    }

    pub(crate) fn take_asked(&mut self) -> Option<Asked> {
        self.more.as_deref_mut()?.asked.take()
    }

    /// How long it may take, if that is not what its route says.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.more.get_or_insert_default().timeout = Some(timeout);
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.more.as_deref()?.timeout
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Futures> {
        self.future.as_mut().poll(context)
    }
}

/// What an answer is to have, whatever it is.
pub(crate) struct Asked {
    pub(crate) headers: HeaderMap,
    pub(crate) status: Option<StatusCode>,
    pub(crate) keep_alive: bool,
}

/// What came of it.
pub(crate) enum Futures {
    Answered(Box<dyn Answer>),
    Asked(Option<Result<Response, Error>>),
}

/// What lies behind a head: of a request whose hooks wait, it is still there when they have decided.
#[derive(Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) framing: Framing,
    /// The body may be dropped to keep the connection.
    pub(crate) may_skip: bool,
    /// The client waits for a 100 before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Any [`IntoResponse`], behind a pointer.
pub(crate) trait Answer {
    fn respond(self: Box<Self>, reply: Reply<'_>) -> Replied;
}

impl<R: IntoResponse> Answer for R {
    fn respond(self: Box<Self>, reply: Reply<'_>) -> Replied {
        IntoResponse::respond(*self, reply)
    }
}
