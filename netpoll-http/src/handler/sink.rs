//! Handlers that are handed their body while it arrives, by callbacks.

use super::{Endpoint, Handler};
use crate::message::{BodySink, Delivery, Error, OpenSink, Replied, Reply, Request};

/// A handler that makes a [`BodySink`] for each request, which gets its body while it arrives and answers it.
///
/// ```
/// use netpoll_http::{App, BodySink, Error, Handler, IntoResponse, Request, RouteLimits, Router, sink};
///
/// #[derive(Default)]
/// struct Sum(u64);
///
/// impl BodySink for Sum {
///     fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
///         self.0 += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
///         Ok(())
///     }
///
///     fn end(self, _: &Request<'_>) -> impl IntoResponse {
///         self.0.to_string()
///     }
/// }
///
/// let sum = || sink(|_: &Request| Ok(Sum::default())).limits(RouteLimits::default().unlimited_body());
/// let client = App::new(move |_| Router::new().put("/sum", sum())).test();
/// assert_eq!(client.put("/sum", vec![2; 3 << 20]).text(), "6291456");
/// ```
///
/// `make` is called when the head is there and hooks have let it pass; its error is the answer, and the body is not wanted then.
pub fn sink<F, S>(make: F) -> Sink<F>
where
    F: Fn(&Request<'_>) -> Result<S, Error> + 'static,
    S: BodySink,
{
    Sink(make)
}

/// A handler that makes a sink for each request; made by [`sink`].
#[derive(Debug)]
pub struct Sink<F>(F);

/// Marks [`Sink`].
#[derive(Debug)]
pub struct Sinking(());

impl<F, S> Handler<Sinking> for Sink<F>
where
    F: Fn(&Request<'_>) -> Result<S, Error> + 'static,
    S: BodySink,
{
    type Endpoint = Self;

    fn into_endpoint(self) -> Self {
        self
    }
}

impl<F, S> Endpoint for Sink<F>
where
    F: Fn(&Request<'_>) -> Result<S, Error> + 'static,
    S: BodySink,
{
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        let filled = (self.0)(request).and_then(|mut sink| {
            if !request.body().is_empty() {
                sink.chunk(request.body())?;
            }
            Ok(sink)
        });
        match filled {
            Ok(sink) => OpenSink::new(sink).end(&request.without_body(), reply),
            Err(error) => reply.fail(error),
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::Sink
    }

    fn open_sink(&self, request: &Request<'_>) -> Result<OpenSink, Error> {
        (self.0)(request).map(OpenSink::new)
    }
}
