//! What a WebSocket may do, and how long it may do nothing.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::ws;

/// Limits and times of a WebSocket, see [`Opening::settings`](super::Opening::settings). Beside them those of the connection hold
/// ([`ConnLimits`](netpoll_core::ConnLimits)): what waits to be sent and the rate at which it has to leave.
///
/// ```
/// use netpoll_http::websocket::Settings;
///
/// let small = Settings { message_bytes_max: 16 * 1024, ..Settings::default() };
/// assert_eq!(small.fragments_max, 16_384);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a message, in one frame or in many, and inflated if it was compressed. Default 1 MiB: what is larger belongs into a request with a body. A
    /// peer that announces more is closed with 1009.
    pub message_bytes_max: u32,
    /// Frames of a message, empty ones too. Default 16 384: 1 MiB in pieces of 64 bytes. A peer that sends more is closed with 1009.
    pub fragments_max: u32,
    /// Silence of the peer behind which it is asked whether it is there, by a ping. Default 25 seconds: less than the 30 to 60 seconds in which
    /// proxies and address translation forget a connection. Anything that the peer sends counts. Zero asks never, and then nobody notices a peer
    /// whose machine is gone.
    pub ping_after: Duration,
    /// How long the peer may take to say anything behind that; then it is reset. Default 20 seconds.
    pub pong_within: Duration,
    /// How long the peer may take to answer our Close; then the connection is closed without it. Default 5 seconds. In a drain it has at most its grace.
    pub close_within: Duration,
    /// In a drain each peer is told to come back some time in this one, in the reason of its Close, `retry=MILLISECONDS`. Default 10 seconds. A thousand that
    /// come back at once are a thousand handshakes at once.
    pub retry_within: Duration,
    /// Agrees on `permessage-deflate` with peers that offer it: messages of 512 bytes and more are compressed, each by itself, and a connection keeps no memory
    /// for it. Default false: it takes more time than sending the message, and most are short.
    pub compression: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let ws::Limits { message_bytes_max, fragments_max } = ws::Limits::default();
        Self {
            message_bytes_max,
            fragments_max,
            ping_after: Duration::from_secs(25),
            pong_within: Duration::from_secs(20),
            close_within: Duration::from_secs(5),
            retry_within: Duration::from_secs(10),
            compression: false,
        }
    }
}

impl Settings {
    pub(super) fn limits(&self) -> ws::Limits {
        ws::Limits { message_bytes_max: self.message_bytes_max, fragments_max: self.fragments_max }
    }
}

/// The times of a connection, in milliseconds. 49 days are for ever. Connections of the same settings have them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    ping_after: u32,
    pong_within: u32,
    close_within: u32,
    retry_within: u32,
}

/// Of so many settings a thread finds what connections may have together: programs have one for each route.
const KNOWN_MAX: usize = 8;

thread_local! {
    static KNOWN: RefCell<Vec<Arc<Times>>> = const { RefCell::new(Vec::new()) };
}

impl Times {
    pub fn of(settings: &Settings) -> Arc<Self> {
        let own = Self::new(settings);
        KNOWN.with_borrow_mut(|known| {
            if let Some(times) = known.iter().find(|times| ***times == own) {
                return Arc::clone(times);
            }
            let times = Arc::new(own);
            if known.len() == KNOWN_MAX {
                known.remove(0);
            }
            known.push(Arc::clone(&times));
            times
        })
    }

    fn new(settings: &Settings) -> Self {
        let millis = |time: Duration| u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        Self {
            ping_after: millis(settings.ping_after),
            // It may begin anew, which must take time.
            pong_within: millis(settings.pong_within).max(1),
            close_within: millis(settings.close_within),
            retry_within: millis(settings.retry_within),
        }
    }

    pub fn ping_after(self) -> Duration {
        Duration::from_millis(self.ping_after.into())
    }

    pub fn pong_within(self) -> Duration {
        Duration::from_millis(self.pong_within.into())
    }

    pub fn close_within(self) -> Duration {
        Duration::from_millis(self.close_within.into())
    }

    pub fn retry_within(self) -> Duration {
        Duration::from_millis(self.retry_within.into())
    }
}
