//! A body that is handed over while it arrives, where it landed: by callbacks, without a task and without a copy.
//!
//! Invariant: a sink gets the pieces of one body in order, and then exactly one of `end` and `failed`, or is dropped.

use super::{BodyError, Error, IntoResponse, Replied, Reply, Request};

/// What becomes of a body, piece by piece: what [`sink`](crate::sink) makes for each request.
///
/// | method | when it is called | the default |
/// |---|---|---|
/// | [`chunk`](Self::chunk) | a piece is there | none |
/// | [`end`](Self::end) | the body is whole | none |
/// | [`failed`](Self::failed) | it is not going to be | drops it |
///
/// A piece is a slice of the block that it was received into: nothing is allocated for it, and nothing copied. One that cannot take it at
/// once, because it has to wait for somebody, is for a handler with a [`BodyReader`](crate::BodyReader) instead. None of these may block.
///
/// The rules of a body that is received as a whole hold for it: the client has to be quick enough
/// ([`Limits::body_grace`](crate::Limits::body_grace)), and what goes wrong with the body is answered by this crate. A panic is answered
/// with 500.
pub trait BodySink: Sized + 'static {
    /// Takes the next piece, which is not empty. A body that has none has no call.
    ///
    /// # Errors
    /// The answer, in front of the rest of the body, which is skipped if it is short ([`Limits::skip_bytes_max`](crate::Limits::skip_bytes_max)), or
    /// ends the connection. Nothing else of this sink is called then.
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error>;

    /// Answers. The request has its [trailers](Request::trailers), and no body.
    fn end(self, request: &Request<'_>) -> impl IntoResponse;

    /// The body is not going to be whole, and the answer, if anybody is there to get one, is not this sink's.
    fn failed(self, error: BodyError) {
        let _ = error;
    }
}

/// Any [`BodySink`], behind a pointer: what [`Service::open_sink`](crate::Service::open_sink) returns.
pub struct OpenSink(Box<dyn Pour>);

impl OpenSink {
    /// Of this one.
    pub fn new(sink: impl BodySink) -> Self {
        Self(Box::new(sink))
    }

    pub(crate) fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.0.chunk(chunk)
    }

    pub(crate) fn end(self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.0.end(request, reply)
    }

    pub(crate) fn failed(self, error: BodyError) {
        self.0.failed(error);
    }
}

impl std::fmt::Debug for OpenSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenSink")
    }
}

trait Pour {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error>;
    fn end(self: Box<Self>, request: &Request<'_>, reply: Reply<'_>) -> Replied;
    fn failed(self: Box<Self>, error: BodyError);
}

impl<S: BodySink> Pour for S {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        BodySink::chunk(self, chunk)
    }

    fn end(self: Box<Self>, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        BodySink::end(*self, request).respond(reply)
    }

    fn failed(self: Box<Self>, error: BodyError) {
        BodySink::failed(*self, error);
    }
}

/// How a route takes the bodies of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// As a whole, in front of the handler.
    #[default]
    Whole,
    /// While they arrive, by a handler with a [`BodyReader`](crate::BodyReader).
    Reader,
    /// While they arrive, by a [`BodySink`].
    Sink,
}
