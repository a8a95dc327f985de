//! An answer that is not there yet: the future of an asynchronous handler.
//!
//! Its output is boxed without its type, but not turned into a [`Response`](super::Response): when it is
//! there it still writes itself straight into the write queue, as a synchronous answer does.

use std::pin::Pin;
use std::task::{Context, Poll};

use netpoll_core::Held;

use super::{IntoResponse, Replied, Reply, Request};

/// A handler's future, and the request if hooks are going to ask for it.
pub(crate) struct Pending {
    future: Pin<Box<dyn Future<Output = Box<dyn Answer>>>>,
    pub(crate) request: Option<Request<'static>>,
    /// Bytes of the request that were copied for the handler.
    pub(crate) copied_bytes: usize,
    /// The same in the worker's budget, if they are many.
    pub(crate) held: Option<Held>,
}

impl Pending {
    /// Two allocations: the future now, its answer when it is there.
    pub(crate) fn new<R: IntoResponse>(
        future: impl Future<Output = R> + 'static,
        request: Option<Request<'static>>,
        copied_bytes: usize,
    ) -> Self {
        let future = Box::pin(async move { Box::new(future.await) as Box<dyn Answer> });
        Self { future, request, copied_bytes, held: None }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Box<dyn Answer>> {
        self.future.as_mut().poll(context)
    }
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
