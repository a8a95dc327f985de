//! The limits of HTTP/2: what one connection may ask for at once, and in vain.

use std::time::Duration;

use crate::h1::shared::setters;

/// The largest window of flow control (RFC 9113 section 6.9.1).
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// Limits of connections that speak HTTP/2: see [`Server::http2`](crate::Server::http2). Those of requests are the same as in HTTP/1.1,
/// [`Limits`](crate::Limits): the length of a head, of a target and of a body, how slowly a body may come, and how long a handler may take.
///
/// Reaching a limit of a connection ends it, with a GOAWAY that says why where there is room for one; requests that were answered are
/// answered. A limit of zero that would let nothing through is an error when the server starts (`InvalidInput`), which names it.
///
/// ```
/// use netpoll_http::{App, Http2, Request, Router};
///
/// let app = App::new(|_worker| Router::new().get("/", |_: &Request| "hello"));
/// let client = app.http2(Http2::default().streams_max(32)).test();
/// let mut connection = client.connect();
/// // What a client begins with, and settings without any.
/// connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
/// let frames = connection.received();
/// assert_eq!(frames[3], 4, "settings");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http2 {
    /// Requests that one connection may have under way. Default 128, above the 100 that clients reckon with; who asks for more is refused the
    /// request (REFUSED_STREAM), and may try again.
    pub streams_max: u32,
    /// Requests that the client takes back before anybody has looked at them, at a time. Default 20, behind which the connection ends: who sends
    /// requests only to reset them (CVE-2023-44487) has many.
    pub resets_waiting_max: usize,
    /// Requests of one connection that we have reset because the client has broken a rule with them. Default 128, behind which it ends:
    /// such a reset costs the client nothing, and frees its place among `streams_max` at once (CVE-2025-8671).
    pub resets_by_rule_max: usize,
    /// Bytes of a body that the client may send ahead of its handler, for each request. Default 64 KiB, as
    /// [`Limits::body_buffer_bytes`](crate::Limits::body_buffer_bytes). What the handler has taken the client may send again.
    pub stream_window_bytes: u32,
    /// The same for all requests of a connection together. Default 1 MiB: what one connection can have us hold, while its handlers are busy.
    pub connection_window_bytes: u32,
    /// Bytes of an answer that may wait for the client's window, for each request. Default 64 KiB, a fourth of what may wait for a
    /// connection of HTTP/1.1 ([`write_high_bytes`](netpoll_core::ConnLimits::write_high_bytes)); what is made of the answer then is made
    /// when the client takes more.
    pub send_buffer_bytes: usize,
    /// Frames that bring nothing: PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, empty DATA, HEADERS of a stream that is known, and those of
    /// unknown types. Default 1000
    /// at once and 100 a second from then on, and two more for each request and one for each KiB that was sent, as windows are a matter of
    /// what was sent. A request that the client takes back (RST_STREAM) is one such frame altogether, whenever that happens. Behind it the
    /// connection ends.
    pub idle_frames_max: u32,
    /// How long a connection may be silent before it is asked for a sign of life (PING). Default 60 s, below the time that middleboxes remember a
    /// connection. `None` asks nobody.
    pub ping_after: Option<Duration>,
    /// How long the answer to that may take; then the connection ends. Default 20 s.
    pub pong_within: Duration,
    /// How old a connection may become; then the client is told to open another one (GOAWAY), and what is under way is answered. Default
    /// `None`, for as long as it is used: clients of HTTP/2 keep a connection for days, and where a balancer of connections stands in front
    /// a new process gets none of them before.
    pub age_max: Option<Duration>,
}

setters! {
    Http2 {
        streams_max: u32,
        resets_waiting_max: usize,
        resets_by_rule_max: usize,
        stream_window_bytes: u32,
        connection_window_bytes: u32,
        send_buffer_bytes: usize,
        idle_frames_max: u32,
        ping_after: impl Into<Option<Duration>>,
        pong_within: Duration,
        age_max: impl Into<Option<Duration>>,
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams_max: 128,
            resets_waiting_max: 20,
            resets_by_rule_max: 128,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            idle_frames_max: 1000,
            ping_after: Some(Duration::from_secs(60)),
            pong_within: Duration::from_secs(20),
            age_max: None,
        }
    }
}

impl Http2 {
    /// Says which of the limits lets nothing through.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let is_window = |bytes: u32| (1..=WINDOW_BYTES_MAX).contains(&bytes);
        let nonsense = [
            (self.streams_max == 0, "Http2::streams_max is zero: no request could come"),
            (
                !is_window(self.stream_window_bytes),
                "Http2::stream_window_bytes is zero or above 2 GiB: no body could come, or no client would understand it",
            ),
            (
                !is_window(self.connection_window_bytes),
                "Http2::connection_window_bytes is zero or above 2 GiB: no body could come, or no client would understand it",
            ),
            (
                self.send_buffer_bytes == 0 || u32::try_from(self.send_buffer_bytes).is_err(),
                "Http2::send_buffer_bytes is zero or above 4 GiB: no answer could leave, or nobody would count it",
            ),
            (
                self.idle_frames_max == 0,
                "Http2::idle_frames_max is zero: every connection begins with SETTINGS",
            ),
            (self.pong_within.is_zero(), "Http2::pong_within is zero: no client could be quick enough"),
            (
                self.ping_after.is_some_and(|after| after.is_zero()),
                "Http2::ping_after is zero: a connection would be asked without end",
            ),
            (
                self.age_max.is_some_and(|age| age.is_zero()),
                "Http2::age_max is zero: no connection could be used",
            ),
        ];
        nonsense.into_iter().find(|(is_so, _)| *is_so).map_or(Ok(()), |(_, sentence)| Err(sentence))
    }
}
