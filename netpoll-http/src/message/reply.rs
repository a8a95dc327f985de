//! Where an answer is written: the end of the connection's write queue.
//!
//! A [`Reply`] is handed to whoever answers a request and is used up by answering, so a request is answered
//! exactly once; what comes back, [`Replied`], proves it. What cannot be written at once (a large body, a
//! stream, a future) is left in a [`Rest`] beside the queue.
//!
//! Invariant: bytes below `start` are other answers and are never touched. A head leaves through
//! [`Reply::begin`] only, so that the framing always fits the request; where there are `after` hooks it is held until
//! its handler has returned, so that they see every head that leaves, once.
//! The usual answer costs its memcpys: no [`Response`] is made, nothing is allocated.

mod head;
mod held;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use netpoll_core::FileRange;

use super::response::add_header;
use super::{Body, BodyBuf, BodyStream, Error, Parts, Pending, Request, Response, RouteId, Takeover};
use crate::wire::{Connection, ContentType, HeadStarts, Length};

use self::head::named;
pub(crate) use self::head::write_headers;
use self::held::Held;
pub(crate) use self::held::{finish, too_late_to_switch};

/// Bodies up to this size are copied behind their head; larger ones are queued as they are.
///
/// The write queue draws the same line: two buffers in one system call cost more than copying 4 KiB.
const COPY_BYTES_MAX: usize = 4096;

/// What an answer has to fit.
pub(crate) struct Facts<'a> {
    /// The request was HEAD: a head with the length of a body, and no body.
    pub(crate) head_only: bool,
    /// The request was HTTP/1.0: no chunks, and keep-alive has to be said.
    pub(crate) is_http10: bool,
    /// The connection stays open after this answer.
    pub(crate) keep_alive: bool,
    /// What is said of a connection that stays open.
    pub(crate) stays: Connection,
    pub(crate) starts: &'a HeadStarts,
    /// Hooks that see every head before it leaves.
    pub(crate) after: Option<After<'a>>,
    /// Neither HEAD nor HTTP/1.0, nothing to be said of the connection, and no hooks.
    is_usual: bool,
}

impl<'a> Facts<'a> {
    #[inline]
    pub(crate) fn new(
        head_only: bool,
        is_http10: bool,
        keep_alive: bool,
        stays: Connection,
        starts: &'a HeadStarts,
        after: Option<After<'a>>,
    ) -> Self {
        // HTTP/1.0 is always told that its connection stays.
        let is_usual = !head_only && matches!(stays, Connection::Unsaid) && after.is_none();
        Self { head_only, is_http10, keep_alive, stays, starts, after, is_usual }
    }

    /// What an answer says of the connection.
    #[inline]
    fn connection(&self, keep_alive: bool) -> Connection {
        if keep_alive { self.stays } else { Connection::Close }
    }
}

/// The hooks of a route together with the request that is being answered.
#[derive(Clone, Copy)]
pub(crate) struct After<'a> {
    pub(crate) hooks: &'a dyn AfterHooks,
    pub(crate) route: Option<RouteId>,
    pub(crate) request: &'a Request<'a>,
}

/// Implemented above: what changes an answer before it leaves.
pub(crate) trait AfterHooks {
    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts);
}

/// The place where the answer to one request goes.
///
/// Handlers that take one write straight into the connection's write queue:
///
/// ```
/// use netpoll_http::{App, Reply, Request, Router, StatusCode};
///
/// let echo = |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", req.body());
/// let client = App::new(move |_| Router::new().post("/echo", echo)).test();
/// assert_eq!(client.post("/echo", "hello").text(), "hello");
/// ```
pub struct Reply<'a> {
    /// One pointer: a reply goes through several hands, and moving more than a register between them costs
    /// as much as writing the answer.
    state: &'a mut State<'a>,
}

/// What a reply is made of. It has nothing to drop, so that it can be lent for as long as it lives.
pub(crate) struct State<'a> {
    out: &'a mut Vec<u8>,
    /// Where what cannot be written at once is left; nothing is there yet.
    rest: &'a mut Rest,
    facts: &'a Facts<'a>,
    /// What most answers do not have.
    extra: &'a mut Option<Box<Extra>>,
    /// Wins over the status of the answer itself, unless that is an error.
    status: Option<StatusCode>,
    keep_alive: bool,
}

impl<'a> State<'a> {
    #[inline]
    pub(crate) fn new(
        out: &'a mut Vec<u8>,
        rest: &'a mut Rest,
        extra: &'a mut Option<Box<Extra>>,
        facts: &'a Facts<'a>,
    ) -> Self {
        Self { out, rest, facts, extra, status: None, keep_alive: facts.keep_alive }
    }
}

/// What the usual answer does not have.
#[derive(Default)]
pub(crate) struct Extra {
    /// Headers that were added before the answer.
    headers: HeaderMap,
    /// The head of an answer that hooks have to see first.
    held: Option<Held>,
}

/// Proof that a request was answered.
#[must_use = "return it from the handler"]
pub struct Replied {
    pub(crate) keep_alive: bool,
}

/// What of an answer is not in the write queue yet.
pub(crate) enum Rest {
    Nothing,
    Static(&'static [u8]),
    Shared(Bytes),
    File(FileRange),
    Stream(Outflow),
    /// Nothing was written: whether the connection may switch protocols is its own to know.
    Upgrade(Box<Switching>),
    /// Nothing was written: the handler is asynchronous and has not been polled.
    Future(Pending),
}

impl Rest {
    /// The answer is not in the queue yet, not even its head.
    pub(crate) fn is_unwritten(&self) -> bool {
        matches!(self, Rest::Future(_) | Rest::Upgrade(_))
    }
}

/// A 101 to be sent.
pub(crate) struct Switching {
    pub(crate) headers: HeaderMap,
    pub(crate) takeover: Takeover,
}

/// A stream and how its end is marked.
pub(crate) struct Outflow {
    pub(crate) stream: Box<dyn BodyStream>,
    pub(crate) framing: OutFraming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutFraming {
    Chunked,
    /// Bytes that are still owed.
    Remaining(u64),
    UntilClose,
}

impl<'a> Reply<'a> {
    #[inline]
    pub(crate) fn new(state: &'a mut State<'a>) -> Self {
        Self { state }
    }

    /// Adds a header to the answer that is going to be sent.
    ///
    /// Of a field that has one value (`Content-Type`, `Location`, `ETag` and the like) it is the one that leaves,
    /// whatever was added before and whatever the answer itself has; of a list it is one line more.
    ///
    /// The types of `http` cannot hold CR, LF or NUL, so nobody can write a second header into a value.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        add_header(&mut self.state.extra.get_or_insert_default().headers, name, value);
        self
    }

    /// Answers with this status unless the answer itself is an error (4xx, 5xx).
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        self.state.status.get_or_insert(status);
        self
    }

    /// Closes the connection after this answer, and says so in it.
    #[must_use]
    pub fn close(self) -> Self {
        self.state.keep_alive = false;
        self
    }

    /// Sends a response value.
    pub fn send(mut self, response: Response) -> Replied {
        let Response { status, headers, body } = response;
        if let Body::Upgrade(takeover) = body {
            return self.switch(headers, takeover);
        }
        let length = match body.length() {
            Some(length) => Length::Known(length),
            None if self.state.facts.head_only => Length::Unsaid,
            None if self.state.facts.is_http10 => {
                self.state.keep_alive = false;
                Length::Unsaid
            }
            None => Length::Chunked,
        };
        let begun = if headers.is_empty() {
            self.begin(status, ContentType::None, length)
        } else {
            self.begin_slowly(Parts { headers, ..Parts::new(status) }, length)
        };
        if !begun.has_body {
            return self.done();
        }
        match body {
            Body::Empty | Body::Upgrade(_) => self.done(),
            Body::Static(bytes) => self.finish_static(bytes),
            Body::Shared(bytes) => self.finish_shared(bytes),
            Body::Owned(bytes) => self.finish_owned(bytes),
            Body::File(range) => self.leave(Rest::File(range)),
            Body::Stream { stream, length: known } => {
                let framing = match (known, length) {
                    (Some(length), _) => OutFraming::Remaining(length),
                    (None, Length::Chunked) => OutFraming::Chunked,
                    (None, _) => OutFraming::UntilClose,
                };
                self.leave(Rest::Stream(Outflow { stream, framing }))
            }
        }
    }

    /// Sends bytes, copied straight to the write queue. Allocates nothing.
    ///
    /// A `content_type` that is empty or not a valid header value is left out.
    // Always: most content types are literals, and their head is then chosen by the compiler.
    #[inline(always)]
    pub fn bytes(mut self, status: StatusCode, content_type: &str, body: &[u8]) -> Replied {
        let length = Length::Known(body.len() as u64);
        if self.begin(status, named(content_type), length).has_body {
            self.state.out.extend_from_slice(body);
        }
        self.done()
    }

    /// Sends what `write` appends to the write queue; the `Content-Length` is filled in afterwards.
    #[inline]
    pub fn write(
        mut self,
        status: StatusCode,
        content_type: &str,
        write: impl FnOnce(&mut BodyBuf<'_>),
    ) -> Replied {
        let begun = self.begin(status, named(content_type), Length::Deferred);
        let start = self.state.out.len();
        write(&mut BodyBuf::new(self.state.out));
        self.patch(begun, start);
        self.done()
    }

    /// Sends a value as JSON, serialised straight into the write queue.
    ///
    /// A value that cannot be serialised (a map with keys that are no strings, an error in its own
    /// `Serialize`) is answered with 500.
    #[cfg(feature = "json")]
    #[inline]
    pub fn json<T: serde::Serialize + ?Sized>(mut self, status: StatusCode, value: &T) -> Replied {
        if !self.is_plain() {
            return self.json_first(status, value);
        }
        let before = self.state.out.len();
        let begun = self.begin(status, ContentType::Json, Length::Deferred);
        let start = self.state.out.len();
        match serde_json::to_writer(&mut *self.state.out, value) {
            Ok(()) => {
                self.patch(begun, start);
                self.done()
            }
            Err(error) => {
                self.state.out.truncate(before);
                self.fail(Error::internal(error))
            }
        }
    }

    /// The same, where headers were added or hooks have to see the answer: they belong to the one that leaves.
    #[cfg(feature = "json")]
    #[cold]
    fn json_first<T: serde::Serialize + ?Sized>(mut self, status: StatusCode, value: &T) -> Replied {
        let start = self.state.out.len();
        match serde_json::to_writer(&mut *self.state.out, value) {
            Ok(()) => {
                self.begin_behind(start, status, ContentType::Json);
                self.done()
            }
            Err(error) => {
                self.state.out.truncate(start);
                self.fail(Error::internal(error))
            }
        }
    }

    /// Sends an error: its status, its headers and its message as text. Hooks see the error itself.
    #[cold]
    pub fn fail(mut self, mut error: Error) -> Replied {
        let headers = error.take_headers();
        let (status, message) = (error.status(), error.take_message());
        let length = Length::Known(message.len() as u64);
        let begun = if headers.is_empty() && self.is_plain() {
            self.begin(status, ContentType::Text, length)
        } else {
            let error = Some(error.with_message(message.clone()));
            let mut parts = Parts { headers, error, ..Parts::new(status) };
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            parts.headers.entry(CONTENT_TYPE).or_insert(text);
            self.begin_slowly(parts, length)
        };
        if begun.has_body {
            self.state.out.extend_from_slice(message.as_bytes());
        }
        self.done()
    }

    #[inline]
    pub(crate) fn text_static(mut self, body: &'static str) -> Replied {
        let length = Length::Known(body.len() as u64);
        let begun = self.begin(StatusCode::OK, ContentType::Text, length);
        if begun.has_body { self.finish_static(body.as_bytes()) } else { self.done() }
    }

    #[inline]
    pub(crate) fn owned(mut self, content_type: ContentType<'_>, body: Vec<u8>) -> Replied {
        let length = Length::Known(body.len() as u64);
        let begun = self.begin(StatusCode::OK, content_type, length);
        if begun.has_body { self.finish_owned(body) } else { self.done() }
    }

    #[inline]
    pub(crate) fn shared(mut self, content_type: ContentType<'_>, body: Bytes) -> Replied {
        let length = Length::Known(body.len() as u64);
        let begun = self.begin(StatusCode::OK, content_type, length);
        if begun.has_body { self.finish_shared(body) } else { self.done() }
    }

    #[inline]
    pub(crate) fn empty(mut self, status: StatusCode) -> Replied {
        self.begin(status, ContentType::None, Length::Known(0));
        self.done()
    }

    /// Leaves the answer to a future, which the connection polls.
    pub(crate) fn later(self, pending: Pending) -> Replied {
        self.leave(Rest::Future(pending))
    }

    /// The time that the answer's `Date` says, in seconds since 1970.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.state.facts.starts.unix_seconds()
    }

    /// Whether somebody is going to need the request after the handler has consumed it.
    pub(crate) fn needs_request(&self) -> bool {
        self.state.facts.after.is_some()
    }

    #[inline]
    fn finish_static(self, body: &'static [u8]) -> Replied {
        if body.len() > COPY_BYTES_MAX {
            return self.leave(Rest::Static(body));
        }
        self.state.out.extend_from_slice(body);
        self.done()
    }

    #[inline]
    fn finish_owned(self, body: Vec<u8>) -> Replied {
        if body.len() > COPY_BYTES_MAX {
            return self.leave(Rest::Shared(Bytes::from(body)));
        }
        self.state.out.extend_from_slice(&body);
        self.done()
    }

    #[inline]
    fn finish_shared(self, body: Bytes) -> Replied {
        if body.len() > COPY_BYTES_MAX {
            return self.leave(Rest::Shared(body));
        }
        self.state.out.extend_from_slice(&body);
        self.done()
    }

    #[inline]
    fn done(self) -> Replied {
        Replied { keep_alive: self.state.keep_alive }
    }

    fn leave(self, rest: Rest) -> Replied {
        *self.state.rest = rest;
        self.done()
    }
}
