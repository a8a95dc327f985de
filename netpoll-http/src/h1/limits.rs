//! Every limit of a connection, with its default and the reason for it.

use std::time::Duration;

/// The limits of a connection. Reaching one is an answer (408, 413, 414, 431, 503) or a silent close.
///
/// How slowly a peer may read, and how much may be queued for it, is the core's
/// [`ConnLimits`](netpoll_core::ConnLimits). A streamed answer may go on for as long as its peer keeps up.
///
/// A limit of zero that would let nothing through is an error when the server starts (`InvalidInput`), which names it.
///
/// ```
/// use netpoll_http::Limits;
///
/// let limits = Limits::default().body_bytes_max(64 * 1024).handler_timeout(std::time::Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request head, from the request line to the empty line. Default 16 KiB, at most 65 535 (a larger
    /// value counts as that); beyond it 431.
    ///
    /// Browsers send 1–2 KiB, with large cookies 8 KiB. A head is kept in memory until it is complete.
    pub head_bytes_max: usize,
    /// Header lines of a request. Default and maximum 100 (a larger value counts as that); beyond it 431.
    pub headers_max: usize,
    /// Bytes of a request target. Default 8192 (RFC 9112 asks for at least 8000); beyond it 414.
    pub target_bytes_max: usize,
    /// Bytes of a request body. Default 1 MiB; beyond it 413. A route can set its own.
    ///
    /// A body is complete before its handler runs, so this is memory per upload in progress; it grows with what
    /// arrives. Of one that is read while it arrives ([`BodyReader`](crate::BodyReader), [`sink`](crate::sink)) it is no memory, and its route may set
    /// as much as it likes, or [no limit](RouteLimits::unlimited_body).
    pub body_bytes_max: usize,
    /// Bytes of a body that is read while it arrives ([`BodyReader`](crate::BodyReader)) that wait for its handler; beyond it the
    /// connection is not read until they are taken. Default 64 KiB: what is read in one go, so a handler that keeps up is never waited for.
    pub body_buffer_bytes: usize,
    /// How long a head may take from its first byte. Default 10 s; then 408. Dripping does not extend it.
    pub head_timeout: Duration,
    /// How long a connection may be silent before its first request and between two. Default 75 s; then it is closed
    /// silently. A time of a hundred years or more, as `Duration::MAX`, is for ever; who idles makes room for newcomers all the
    /// same when connections are many.
    ///
    /// A client that is still taking its answer by then, at the core's
    /// [`write_rate_min`](netpoll_core::ConnLimits::write_rate_min) at least, is not idle. One that has stopped
    /// is reset, so that no kernel keeps the answer for it.
    ///
    /// Longer than the 60 s that common proxies keep their side, so that they and not we close first.
    pub idle_timeout: Duration,
    /// Bytes per second that a body must come at, in each [`body_grace`](Self::body_grace). Default 256; slower is 408. Of a body that is read while it
    /// arrives only the time counts in which its handler waits for more and nothing is there.
    pub body_bytes_per_second_min: u32,
    /// How long a body may take before its rate is looked at, and how often from then on. Default 5 s. What came before the
    /// last look does not count: a body that stops is cut after one to two of these times, however much of it is there.
    pub body_grace: Duration,
    /// Bytes of a body that nobody wants, read and dropped so that the connection stays usable. Default 64 KiB: a longer one
    /// costs more than a new connection.
    ///
    /// Nobody wants the body of a request that is answered without its handler, nor that of a `GET`, `HEAD`, `OPTIONS` or
    /// `DELETE` whose route has no body limit of its own ([`RouteLimits`]):
    /// RFC 9110 gives it no meaning. Their handlers see an empty body; beyond this limit the answer is 413.
    pub skip_bytes_max: usize,
    /// Whether a client that ends its direction behind its request still gets an answer that is not there yet. Default
    /// false: it has left, in all likelihood, and its handler's future or stream is dropped, which cancels it. What is
    /// answered at once is answered in any case, and so is a stream for as long as it has something to send.
    ///
    /// True is for clients that shut their sending side down and listen. One that has left is then held until
    /// the handler's deadline, and a stream until it writes.
    pub half_close: bool,
    /// How long an asynchronous handler may take. Default 30 s; then its future is dropped, which cancels it, and
    /// the answer is 503.
    ///
    /// A backend that never answers would otherwise hold the connection for ever.
    ///
    /// One that reads its body while it arrives ([`BodyReader`](crate::BodyReader)) has this time anew whenever it looks for more of it, and
    /// the time in which it waits for the client is not its own: this bounds how long it may leave its body alone, and how long it may take
    /// behind the end of it.
    pub handler_timeout: Duration,
    /// Requests of one connection that are answered before others get their turn. Default `None`: as many as
    /// the core's poll budget has events ([`Conn::turn_budget`](netpoll_core::Conn::turn_budget)), which is 64.
    ///
    /// A peer that pipelines without end then costs the others no more than a turn full of events.
    pub requests_per_turn: Option<usize>,
}

/// Setters of settings, for chains: one for each field, of its name.
macro_rules! setters {
    ($settings:ident { $($name:ident: $type:ty,)* }) => {
        impl $settings {$(
            #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

#[cfg_attr(not(feature = "http2"), allow(unused_imports))]
pub(crate) use setters;

setters! {
    Limits {
        head_bytes_max: usize,
        headers_max: usize,
        target_bytes_max: usize,
        body_bytes_max: usize,
        body_buffer_bytes: usize,
        head_timeout: Duration,
        idle_timeout: Duration,
        body_bytes_per_second_min: u32,
        body_grace: Duration,
        skip_bytes_max: usize,
        half_close: bool,
        handler_timeout: Duration,
        requests_per_turn: impl Into<Option<usize>>,
    }
}

/// What one route has in place of the [`Limits`] of its connections: an argument of the route, see
/// [`Handler::limits`](crate::Handler::limits).
///
/// ```
/// use std::time::Duration;
/// use netpoll_http::{App, Handler, Request, RouteLimits, Router, StatusCode};
///
/// fn upload(req: &Request) -> String {
///     format!("{} bytes", req.body().len())
/// }
///
/// let large = RouteLimits::default().body_bytes_max(32 << 20);
/// let short = RouteLimits::default().handler_timeout(Duration::from_secs(2));
/// let router = move |_: &_| Router::new()
///     .put("/files/{name}", upload.limits(large))
///     .get("/search", (async |_: Request| "found").limits(short));
/// let client = App::new(router).test();
/// let sent = client.request(netpoll_http::Method::PUT, "/files/a").body(vec![0; 2 << 20]).send();
/// assert_eq!(sent.text(), "2097152 bytes");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteLimits {
    /// Bytes of a request body; beyond it 413. Default `None`: [`Limits::body_bytes_max`], and for methods without
    /// content (`GET`, `HEAD`, `OPTIONS`, `DELETE`) no body, which is what this changes as well. `usize::MAX` is no limit.
    pub body_bytes_max: Option<usize>,
    /// How long an asynchronous handler may take, and asynchronous hooks before it; then 503. Default `None`:
    /// [`Limits::handler_timeout`].
    pub handler_timeout: Option<Duration>,
}

impl RouteLimits {
    /// Sets [`body_bytes_max`](field@Self::body_bytes_max).
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = Some(bytes);
        self
    }

    /// Takes bodies of any length, which is for routes that read them while they arrive: [`BodyReader`](crate::BodyReader),
    /// [`sink`](crate::sink).
    #[must_use]
    pub fn unlimited_body(self) -> Self {
        self.body_bytes_max(usize::MAX)
    }

    /// Sets [`handler_timeout`](field@Self::handler_timeout).
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = Some(timeout);
        self
    }

    /// These, and the others where these say nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            body_bytes_max: self.body_bytes_max.or(others.body_bytes_max),
            handler_timeout: self.handler_timeout.or(others.handler_timeout),
        }
    }

    /// # Panics
    /// If they let nothing through.
    #[track_caller]
    pub(crate) fn checked(self) -> Self {
        let is_zero = self.handler_timeout.is_some_and(|timeout| timeout.is_zero());
        assert!(!is_zero, "RouteLimits::handler_timeout is zero: no handler could wait for anything");
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            headers_max: 100,
            target_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
            body_buffer_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes_per_second_min: 256,
            body_grace: Duration::from_secs(5),
            skip_bytes_max: 64 * 1024,
            half_close: false,
            handler_timeout: Duration::from_secs(30),
            requests_per_turn: None,
        }
    }
}

impl Limits {
    /// What has to come of a body within this time, in bytes: at least one.
    pub(crate) fn body_bytes_min(&self, within: Duration) -> u64 {
        let bytes = u128::from(self.body_bytes_per_second_min) * within.as_millis() / 1000;
        u64::try_from(bytes.max(1)).unwrap_or(u64::MAX)
    }

    /// Says which of the limits lets nothing through.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let nonsense = [
            (self.head_bytes_max == 0, "Limits::head_bytes_max is zero: no request has a head of no bytes"),
            (self.headers_max == 0, "Limits::headers_max is zero: every request of HTTP/1.1 has a Host"),
            (self.target_bytes_max == 0, "Limits::target_bytes_max is zero: every request has a target"),
            (self.head_timeout.is_zero(), "Limits::head_timeout is zero: no head could arrive"),
            (self.idle_timeout.is_zero(), "Limits::idle_timeout is zero: no client could be quick enough"),
            (self.body_grace.is_zero(), "Limits::body_grace is zero: no body could arrive"),
            (
                self.body_buffer_bytes == 0,
                "Limits::body_buffer_bytes is zero: nothing could be read of a body while it arrives",
            ),
            (
                self.handler_timeout.is_zero(),
                "Limits::handler_timeout is zero: no handler could wait for anything",
            ),
            (
                self.requests_per_turn == Some(0),
                "Limits::requests_per_turn is zero: no request would be answered",
            ),
        ];
        nonsense.into_iter().find(|(is_so, _)| *is_so).map_or(Ok(()), |(_, sentence)| Err(sentence))
    }
}
