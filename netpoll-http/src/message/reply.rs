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

mod facts;
mod head;
mod held;
#[cfg_attr(not(feature = "compression"), allow(dead_code))]
mod recode;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use netpoll_core::FileRange;

use super::errors::{self, line_end};
use super::response::add_header;
use super::{Asked, Body, BodyBuf, BodyStream, Error, Parts, Pending, Request, Response, Takeover};
use crate::wire::{ContentType, Length};

pub(crate) use self::facts::Stamp;
pub(crate) use self::facts::{Above, Context, Facts};
use self::head::named;
pub(crate) use self::head::write_headers;
use self::held::Held;
pub(crate) use self::held::{finish, too_late_to_switch};
pub(crate) use self::recode::Recode;
#[cfg(feature = "compression")]
pub(crate) use self::recode::{Content, Source, weaken};

/// Bodies up to this size are copied behind their head; larger ones are queued as they are.
///
/// The write queue draws the same line: two buffers in one system call cost more than copying 4 KiB.
const COPY_BYTES_MAX: usize = 4096;

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
    /// Nothing, and so many bytes of it were coded, which has taken a while.
    Coded(usize),
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
    /// The request, if somebody needs it who has not seen the 101 before it is decided: it may be declined.
    pub(crate) request: Option<Request<'static>>,
}

/// A stream and how its end is marked.
pub(crate) struct Outflow {
    pub(crate) stream: Box<dyn BodyStream>,
    pub(crate) framing: OutFraming,
}

impl Outflow {
    fn new(stream: Box<dyn BodyStream>, known: Option<u64>, length: Length) -> Self {
        let framing = match (known, length) {
            (Some(length), _) => OutFraming::Remaining(length),
            (None, Length::Chunked) => OutFraming::Chunked,
            (None, _) => OutFraming::UntilClose,
        };
        Self { stream, framing }
    }
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

    /// So many bytes were coded before anything is answered, which has taken a while: it counts, if the answer is there at once.
    #[cfg(feature = "compression")]
    pub(crate) fn behind_coded(self, bytes: usize) -> Self {
        *self.state.rest = Rest::Coded(bytes);
        self.state.facts.context.above.coded(bytes);
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
        let length = self.length(&body);
        let begun = if headers.is_empty() {
            self.begin(status, ContentType::None, length)
        } else {
            let is_file = matches!(body, Body::File(_));
            self.begin_slowly(Parts { headers, is_file, ..Parts::new(status) }, length)
        };
        if begun.has_body { self.finish(body, length) } else { self.done() }
    }

    /// How the end of a body is marked.
    fn length(&mut self, body: &Body) -> Length {
        let (length, ends_the_connection) = self.state.facts.length(body);
        self.state.keep_alive &= !ends_the_connection;
        length
    }

    /// Puts a body behind its head.
    fn finish(self, body: Body, length: Length) -> Replied {
        match body {
            Body::Empty | Body::Upgrade(_) => self.done(),
            Body::Static(bytes) => self.finish_static(bytes),
            Body::Shared(bytes) => self.finish_shared(bytes),
            Body::Owned(bytes) => self.finish_owned(bytes),
            Body::File(range) => self.leave(Rest::File(range)),
            Body::Stream { stream, length: known } => {
                self.leave(Rest::Stream(Outflow::new(stream, known, length)))
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

    /// Sends an error: its status, its headers and its message as text, or what [`Server::errors`](crate::Server::errors)
    /// makes of it. Hooks see the error itself.
    #[cold]
    pub fn fail(mut self, error: Error) -> Replied {
        self.state.facts.note(&error);
        if let Some(response) = self.state.facts.render(&error) {
            return self.fail_as(error, response);
        }
        if self.is_plain() && !error.has_headers() {
            let (message, line_end) = (error.message(), line_end(error.message()));
            let length = Length::Known((message.len() + line_end.len()) as u64);
            if self.begin(error.status(), ContentType::Text, length).has_body {
                self.state.out.extend_from_slice(message.as_bytes());
                self.state.out.extend_from_slice(line_end.as_bytes());
            }
            return self.done();
        }
        let text = errors::text_of(&error);
        self.fail_as(error, text)
    }

    /// Sends an error as it was written.
    fn fail_as(mut self, error: Error, response: Response) -> Replied {
        let Response { status, headers, body } = response;
        let parts = errors::head(error, status, headers);
        let length = self.length(&body);
        if self.begin_slowly(parts, length).has_body { self.finish(body, length) } else { self.done() }
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
    pub(crate) fn later(self, mut pending: Pending) -> Replied {
        let State { ref mut extra, status, keep_alive, facts, .. } = *self.state;
        let headers =
            extra.as_deref_mut().map(|extra| std::mem::take(&mut extra.headers)).unwrap_or_default();
        if !headers.is_empty() || status.is_some() || keep_alive != facts.keep_alive {
            pending.set_asked(Asked { headers, status, keep_alive });
        }
        self.leave(Rest::Future(pending))
    }

    /// What was asked of a reply that came to nothing, because the answer was left to a future.
    pub(crate) fn with_asked(self, asked: Option<Asked>) -> Self {
        if let Some(asked) = asked {
            let Asked { headers, status, keep_alive } = asked;
            self.state.extra.get_or_insert_default().headers = headers;
            self.state.status = status;
            self.state.keep_alive &= keep_alive;
        }
        self
    }

    /// The time that the answer's `Date` says, in seconds since 1970.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.state.facts.starts.unix_seconds()
    }

    /// Whether somebody is going to need the request after the handler has consumed it.
    pub(crate) fn needs_request(&self) -> bool {
        self.state.facts.needs_request()
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
