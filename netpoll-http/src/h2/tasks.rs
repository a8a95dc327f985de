//! The tasks of a connection: one for each request that is under way, with its handler and then the body of its answer.
//!
//! Invariant: a task ends when its stream has ended, in whatever way, or when its client does not take the answer. What a drain still finds
//! is dropped at its deadline. What they compress at once is a share of a turn: behind it they are polled in vain until it is paid for.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::rt::Executor;
use netpoll_core::task::spawn_local;

use super::answering::{Answering, begin};
use super::line::Line;
use super::outgoing::{BrokenOff, Outgoing};
use crate::h1::Service;

/// What requests are handed to.
pub(super) struct Front<S: Service>(pub(super) Rc<Line<S>>);

impl<S: Service> hyper::service::Service<hyper::Request<Incoming>> for Front<S> {
    type Response = hyper::Response<Outgoing<S>>;
    type Error = BrokenOff;
    type Future = Answering<S>;

    fn call(&self, request: hyper::Request<Incoming>) -> Answering<S> {
        let (tale, answering) = begin(&self.0, request);
        self.0.latest.replace(Some(tale));
        answering
    }
}

/// What starts the task of a request, which was handed over just before.
pub(super) struct Tasks<S: Service>(pub(super) Rc<Line<S>>);

impl<S: Service> Clone for Tasks<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Service, F> Executor<F> for Tasks<S>
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, stream: F) {
        let Some(tale) = self.0.latest.take() else {
            // A tunnel, of which this server makes none.
            return;
        };
        drop(spawn_local(async move {
            let mut stream = pin!(stream);
            let (mut timer, mut seen_bytes) = (None, 0);
            poll_fn(|context| {
                if tale.line.worker.gives_way() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                tale.poll_stalled(context, &mut timer, &mut seen_bytes)
            })
            .await;
            tale.end();
        }));
    }
}
