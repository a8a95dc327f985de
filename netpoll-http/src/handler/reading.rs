//! Handlers that read their body while it arrives.
//!
//! Invariant: its request has no body. One that came together with its head, or was received as a whole by somebody else's service, is
//! what the reader has.

use std::marker::PhantomData;
use std::rc::Rc;

use super::{Endpoint, Handler};
use crate::message::{BodyReader, Delivery, IntoResponse, Pending, Replied, Reply, Request};

/// Marks `async Fn(Request, BodyReader) -> R`.
#[derive(Debug)]
pub struct Reading<R>(PhantomData<fn() -> R>);

/// Holds a handler that reads its body, shared with its futures.
#[derive(Debug)]
pub struct ReadingEndpoint<F, R>(Rc<F>, PhantomData<fn() -> R>);

impl<F, R> Handler<Reading<R>> for F
where
    F: AsyncFn(Request<'static>, BodyReader) -> R + 'static,
    R: IntoResponse,
{
    type Endpoint = ReadingEndpoint<F, R>;

    fn into_endpoint(self) -> Self::Endpoint {
        ReadingEndpoint(Rc::new(self), PhantomData)
    }
}

impl<F, R> ReadingEndpoint<F, R>
where
    F: AsyncFn(Request<'static>, BodyReader) -> R + 'static,
    R: IntoResponse,
{
    fn begin(
        &self,
        request: Request<'static>,
        copied_bytes: usize,
        body: BodyReader,
        reply: Reply<'_>,
    ) -> Replied {
        let handler = Rc::clone(&self.0);
        let kept = reply.needs_request().then(|| request.clone());
        reply.later(Pending::new(async move { handler(request, body).await }, kept, copied_bytes))
    }
}

impl<F, R> Endpoint for ReadingEndpoint<F, R>
where
    F: AsyncFn(Request<'static>, BodyReader) -> R + 'static,
    R: IntoResponse,
{
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        let copied_bytes = request.borrowed_bytes();
        let (request, body, trailers) = request.take_apart();
        self.begin(request, copied_bytes, BodyReader::whole(body, trailers), reply)
    }

    fn delivery(&self) -> Delivery {
        Delivery::Reader
    }

    fn call_reading(&self, request: &Request<'_>, body: BodyReader, reply: Reply<'_>) -> Replied {
        self.begin(request.to_owned(), request.borrowed_bytes(), body, reply)
    }
}
