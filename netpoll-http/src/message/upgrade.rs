//! A request that asks to go on in another protocol, and what goes on.
//!
//! Invariant: an [`Upgrade`] exists only for a request that may be upgraded, and a [`Takeover`] only for an
//! upgrade, so a handler cannot switch protocols on a peer that did not ask for it.

use std::any::Any;
use std::fmt;

use http::HeaderValue;

use super::Request;
use crate::wire::{Known, framing};

/// Leave to go on in another protocol, from [`Request::upgrade`]. Dropping it declines: whatever else the
/// handler answers is an ordinary answer, and the connection stays with HTTP.
#[derive(Clone, Debug)]
pub struct Upgrade {
    pub(crate) protocol: HeaderValue,
}

/// The protocol that takes a connection over; made by [`Upgrade::accept`].
pub struct Takeover {
    pub(crate) protocol: HeaderValue,
    /// Only the connection knows what it is.
    pub(crate) next: Box<dyn Any>,
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Request<'_> {
    /// Whether another protocol may answer.
    pub(crate) fn may_switch(&self) -> bool {
        self.head().upgrade
    }

    /// Leave to switch to this protocol, `websocket` for example, if the request asks for it and may have it.
    ///
    /// That is an HTTP/1.1 request with `Connection: upgrade` that lists the protocol in `Upgrade` (in any case of
    /// letters), is not HEAD, has no body, and does not ask for the connection to be closed. For any other
    /// request it is `None`, and a handler answers as if nothing had been asked; `426 Upgrade Required`
    /// tells a peer that it should have.
    pub fn upgrade(&self, protocol: &str) -> Option<Upgrade> {
        if !self.head().upgrade {
            return None;
        }
        let (bytes, index) = self.lines();
        let mut lines = index.known_lines(bytes, Known::Upgrade);
        if !lines.any(|line| framing::lists(line, protocol)) {
            return None;
        }
        // What was found in a header is a valid value of one, so this does not fail.
        HeaderValue::from_str(protocol).ok().map(|protocol| Upgrade { protocol })
    }
}
