//! Server-sent events: an answer that goes on, of which each client has a queue (the HTML standard, section 9.2).
//!
//! Invariant: a stream of events is lines that this file has written. No text of the program can end one, so what one event says is never
//! taken for another. Memory is bounded by the queue: a client that does not read is not asked for, and whoever sends to it is told.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use netpoll_core::sync::mpsc::{self, Receiver, Sender};
use netpoll_core::task::{JoinHandle, Stopping, spawn_daemon, stopping};
use netpoll_core::time::{Sleep, now, sleep};

use crate::message::{Body, BodyBuf, BodyStream, IntoResponse, Pull, Request, Response};

#[cfg(feature = "json")]
use crate::message::Error;

/// Between two words to a client that has nothing to be told: below the minute after which common proxies end what is silent.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A comment of no words.
const BEAT: &[u8] = b":\n\n";

/// Bytes of one pull, and the event that goes beyond them.
const PULL_BYTES: usize = 4096;

/// One event, or a comment: for an [`Events`] answer. Cheap to clone, and `Send`: one that many are told is made once.
///
/// A text may have any characters in it. Data and comments have as many lines as their text (it ends lines with CR, LF or both, and the client
/// sees LF). From a name or an id, which are one line, CR, LF and NUL are left out, as clients ignore an id that has the last of these.
///
/// ```
/// use netpoll_http::Event;
///
/// let event = Event::data("tea\nis ready").id("7").event("kitchen");
/// assert_eq!(event.as_bytes(), b"data: tea\ndata: is ready\nid: 7\nevent: kitchen\n\n");
/// assert_eq!(Event::comment("a\rb").as_bytes(), b": a\n: b\n\n");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Whole lines, and an empty one.
    text: Bytes,
}

impl Event {
    const NONE: Self = Self { text: Bytes::from_static(b"\n") };

    /// An event with this data.
    #[must_use]
    pub fn data(text: impl AsRef<str>) -> Self {
        Self::NONE.with_lines("data:", text.as_ref())
    }

    /// An event whose data is this value as JSON.
    ///
    /// # Errors
    /// 500 when it cannot be serialised.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        serde_json::to_string(value).map(Self::data).map_err(Error::internal)
    }

    /// A comment, which clients ignore.
    #[must_use]
    pub fn comment(text: impl AsRef<str>) -> Self {
        Self::NONE.with_lines(":", text.as_ref())
    }

    /// The same with an id, which the client says when it connects again: [`Request::last_event_id`].
    #[must_use]
    pub fn id(self, id: impl AsRef<str>) -> Self {
        self.with_line("id:", id.as_ref())
    }

    /// The same with a name other than `message`.
    #[must_use]
    pub fn event(self, name: impl AsRef<str>) -> Self {
        self.with_line("event:", name.as_ref())
    }

    /// The same, and from now on the client waits so long before it connects again; in milliseconds, rounded up.
    #[must_use]
    pub fn retry(self, after: Duration) -> Self {
        let millis = after.as_nanos().div_ceil(1_000_000);
        self.with_line("retry:", &millis.to_string())
    }

    /// As it is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    fn with_line(self, field: &str, value: &str) -> Self {
        self.extended(|text| line(text, field, value.split(['\r', '\n', '\0'])))
    }

    fn with_lines(self, field: &str, value: &str) -> Self {
        self.extended(|text| {
            let mut rest = value;
            loop {
                let end = rest.find(['\r', '\n']);
                line(text, field, std::iter::once(&rest[..end.unwrap_or(rest.len())]));
                let Some(end) = end else { break };
                let pair = rest[end..].starts_with("\r\n");
                rest = &rest[end + 1 + usize::from(pair)..];
            }
        })
    }

    fn extended(self, extend: impl FnOnce(&mut BytesMut)) -> Self {
        let mut text = self.text.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        // The empty line.
        text.truncate(text.len() - 1);
        extend(&mut text);
        text.extend_from_slice(b"\n");
        Self { text: text.freeze() }
    }
}

fn line<'t>(text: &mut BytesMut, field: &str, parts: impl Iterator<Item = &'t str>) {
    text.extend_from_slice(field.as_bytes());
    text.extend_from_slice(b" ");
    parts.for_each(|part| text.extend_from_slice(part.as_bytes()));
    text.extend_from_slice(b"\n");
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", String::from_utf8_lossy(&self.text))
    }
}

/// An answer of server-sent events: 200 with `text/event-stream`, kept by no cache, and held up by no proxy that hears of
/// `X-Accel-Buffering`, as nginx does.
///
/// It goes on until whoever sends is done (all senders are dropped), the client leaves, or a drain begins; what is queued by then leaves first. A client that has
/// left, or a drain, closes the channel, which senders see by `is_closed`, `closed`, and the error of the next `send`. To a client that has
/// nothing to be told a comment is sent every 15 s, so that proxies keep the connection and a client that is gone is noticed.
///
/// The queue is a channel of the worker's, of as many events as its capacity says. When it is full, because the client does not
/// read as fast, `send` waits, and `try_send` returns the event: whoever has many clients lets that one go by dropping its sender, and it comes
/// again with the last id that it has seen.
///
/// ```
/// use std::time::Duration;
///
/// use netpoll_core::time::sleep;
/// use netpoll_http::{App, Event, Events, Request, Router};
///
/// let count = |req: &Request| {
///     let last: u64 = req.last_event_id().and_then(|id| id.parse().ok()).unwrap_or(0);
///     Events::run(async move |client| {
///         for n in last + 1..=last + 3 {
///             client.send(Event::data(format!("number {n}")).id(n.to_string())).await?;
///             sleep(Duration::from_secs(1)).await;
///         }
///         Ok::<(), Box<dyn std::error::Error>>(())
///     })
/// };
/// let client = App::new(move |_| Router::new().get("/count", count)).test();
/// let answer = client.request(netpoll_http::Method::GET, "/count").header("Last-Event-ID", "7").send();
/// assert_eq!(answer.header("content-type"), Some("text/event-stream"));
/// assert!(answer.text().starts_with("data: number 8\nid: 8\n\ndata: number 9\n"));
/// ```
#[derive(Debug)]
pub struct Events {
    queue: Receiver<Event>,
    heartbeat: Option<Duration>,
    /// What sends, if this is the answer's own.
    sending: Option<Sending>,
}

/// A task that ends with the answer that it makes.
#[derive(Debug)]
struct Sending(JoinHandle<()>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Events {
    /// Events that [`run`](Self::run) keeps waiting.
    pub const QUEUE: usize = 16;

    /// An answer, and where its events are sent; so many of them may wait. The sender may be cloned.
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// use netpoll_core::{sync::mpsc::Sender, task};
    /// use netpoll_http::{App, Event, Events, Request, Router};
    ///
    /// /// Who listens on this worker.
    /// #[derive(Default)]
    /// struct Listeners(RefCell<Vec<Sender<Event>>>);
    ///
    /// impl Listeners {
    ///     /// Who has left, or is sixteen events behind, is let go.
    ///     fn tell(&self, event: &Event) {
    ///         self.0.borrow_mut().retain(|listener| listener.try_send(event.clone()).is_ok());
    ///     }
    /// }
    ///
    /// let listen = |_: &Request| {
    ///     let (sender, events) = Events::channel(16);
    ///     task::state::<Listeners>().0.borrow_mut().push(sender);
    ///     events
    /// };
    /// let app = App::new(move |_| {
    ///     let tell = |_: &Request| task::state::<Listeners>().tell(&Event::data("tea is ready"));
    ///     Router::new().get("/events", listen).post("/events", tell)
    /// });
    /// # let client = app.state(|_| Listeners::default()).test();
    /// # let mut listener = client.connect();
    /// # listener.send(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n");
    /// # client.post("/events", "");
    /// # client.begin_drain(std::time::Duration::from_secs(9));
    /// # assert_eq!(listener.response().unwrap().text(), "data: tea is ready\n\n");
    /// ```
    #[must_use]
    pub fn channel(capacity: usize) -> (Sender<Event>, Self) {
        let (sender, queue) = mpsc::channel(capacity);
        (sender, Self { queue, heartbeat: Some(HEARTBEAT), sending: None })
    }

    /// An answer whose events `send` sends, in a task of its own: the answer ends when that returns, whatever it returns, and it is dropped where it
    /// stands when the client leaves or a drain begins.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[must_use]
    pub fn run<R: 'static>(send: impl AsyncFnOnce(Sender<Event>) -> R + 'static) -> Self {
        let (sender, events) = Self::channel(Self::QUEUE);
        let sending = spawn_daemon(async move { drop(send(sender).await) });
        Self { sending: Some(Sending(sending)), ..events }
    }

    /// How long the client hears nothing before it is sent a comment; `None` sends none. Default 15 s.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn heartbeat(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.heartbeat = every.into();
        assert!(self.heartbeat.is_none_or(|every| !every.is_zero()), "a heartbeat of zero never rests");
        self
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        let mut response = Response::new(StatusCode::OK);
        let mut say =
            |name: HeaderName, value| response.headers.insert(name, HeaderValue::from_static(value));
        say(CONTENT_TYPE, "text/event-stream");
        say(CACHE_CONTROL, "no-store");
        say(HeaderName::from_static("x-accel-buffering"), "no");
        response.body(Body::stream(Stream {
            queue: self.queue,
            heartbeat: self.heartbeat,
            beat: None,
            stopping: None,
            _sending: self.sending,
        }))
    }
}

/// The events of one client, as they leave.
struct Stream {
    queue: Receiver<Event>,
    heartbeat: Option<Duration>,
    /// When the client has heard nothing for long enough.
    beat: Option<Sleep>,
    stopping: Option<Stopping>,
    _sending: Option<Sending>,
}

impl Stream {
    /// Whether the client is to hear that there is nothing.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(every) = self.heartbeat else { return false };
        let beat = self.beat.get_or_insert_with(|| sleep(every));
        Pin::new(beat).poll(cx).is_ready()
    }

    /// The client has been sent something.
    fn has_spoken(&mut self) {
        if let (Some(beat), Some(every)) = (&mut self.beat, self.heartbeat) {
            beat.reset(now().saturating_add(every));
        }
    }
}

impl BodyStream for Stream {
    fn pull(&mut self, cx: &mut Context<'_>, out: &mut BodyBuf<'_>) -> Pull {
        // Whoever sends without a rest is told as well: nothing more is queued.
        let is_over = Pin::new(self.stopping.get_or_insert_with(stopping)).poll(cx).is_ready();
        if is_over {
            self.queue.close();
        }
        while out.len() < PULL_BYTES {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(event)) => out.extend(event.as_bytes()),
                Poll::Ready(None) if out.is_empty() => return Pull::Done,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if !out.is_empty() {
            self.has_spoken();
            return Pull::More;
        }
        if is_over {
            return Pull::Done;
        }
        if self.is_silent(cx) {
            out.extend(BEAT);
            self.has_spoken();
            return Pull::More;
        }
        Pull::Wait
    }
}

impl Request<'_> {
    /// The id of the last event that the client has seen, of one that has lost its connection and comes again (`Last-Event-ID`).
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.header_str("last-event-id").filter(|id| !id.is_empty())
    }
}
