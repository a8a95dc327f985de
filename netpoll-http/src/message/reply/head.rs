//! The head of an answer: the one place where it is written.
//!
//! The usual head has no free headers and no hooks, and is one call of the encoder. Any other is
//! collected first, shown to the hooks, and then written line by line.
//!
//! Invariant: the framing fits the request and the status that goes out, whatever hooks have made of it:
//! [`Begun::has_body`] decides, after them, whether body bytes may follow.

use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Replied, Reply, Rest, Switching};
use crate::message::{Parts, Takeover};
use crate::wire::response::{self as encode, LengthSlot, ResponseHead};
use crate::wire::{Connection, ContentType, Length};

/// A head that was written.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) slot: Option<LengthSlot>,
    /// Whether a body follows: neither the request nor the status forbids one.
    pub(super) has_body: bool,
}

impl<'a> Reply<'a> {
    /// Drops the body that was written behind `start` if the answer has none, else fills in its length.
    #[inline]
    pub(super) fn patch(&mut self, begun: Begun, start: usize) {
        if let Some(slot) = begun.slot {
            let length = (self.state.out.len() - start) as u64;
            encode::patch_length(self.state.out, slot, length);
        }
        if !begun.has_body {
            self.state.out.truncate(start);
        }
    }

    /// The status that goes out. An answer that turned out to be an error stays one.
    #[inline]
    fn effective(&self, status: StatusCode) -> StatusCode {
        let status = match self.state.status {
            Some(outer) if status.as_u16() < 400 => outer,
            _ => status,
        };
        final_status(status)
    }

    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.state.facts.after.is_none() && self.state.headers.is_none()
    }

    /// Writes the head of an answer without headers of its own.
    #[inline(always)]
    pub(super) fn begin(
        &mut self,
        status: StatusCode,
        content_type: ContentType<'_>,
        length: Length,
    ) -> Begun {
        let state = &mut *self.state;
        if state.status.is_none()
            && state.keep_alive
            && state.facts.is_usual
            && state.headers.is_none()
            && let Some(slot) =
                encode::usual_head(state.out, state.facts.starts, status, content_type, length)
        {
            return Begun { slot, has_body: true };
        }
        self.begin_unusual(status, content_type, length)
    }

    #[inline(never)]
    fn begin_unusual(&mut self, status: StatusCode, content_type: ContentType<'_>, length: Length) -> Begun {
        if !self.is_plain() {
            return self.begin_collected(status, content_type, length);
        }
        let status = self.effective(status);
        let slot = encode::head(self.state.out, &self.head(status, content_type, length));
        Begun { slot, has_body: !self.state.facts.head_only && !encode::is_bodiless(status) }
    }

    #[cold]
    fn begin_collected(
        &mut self,
        status: StatusCode,
        content_type: ContentType<'_>,
        length: Length,
    ) -> Begun {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(content_type.value())
            && !value.is_empty()
        {
            headers.insert(CONTENT_TYPE, value);
        }
        self.begin_slowly(Parts { status, headers, error: None }, length)
    }

    /// Writes a head with free headers, after the hooks have seen it. With [`begin`](Self::begin) the only way
    /// for a head to leave.
    #[cold]
    pub(super) fn begin_slowly(&mut self, mut parts: Parts, length: Length) -> Begun {
        parts.status = self.effective(parts.status);
        self.add_headers(&mut parts);
        parts.status = final_status(parts.status);
        let slot = self.write_head(&parts, length);
        Begun { slot, has_body: !self.state.facts.head_only && !encode::is_bodiless(parts.status) }
    }

    /// What was asked of the reply beforehand, and what hooks make of it.
    fn add_headers(&mut self, parts: &mut Parts) {
        if let Some(headers) = self.state.headers.take() {
            // Replaces headers of the same name: the answer's own content type was only a default.
            parts.headers.extend(*headers);
        }
        if let Some(after) = self.state.facts.after {
            after.hooks.after(after.route, after.request, parts);
        }
    }

    fn write_head(&mut self, parts: &Parts, length: Length) -> Option<LengthSlot> {
        let head = self.head(parts.status, ContentType::None, length);
        let slot = encode::open_head(self.state.out, &head);
        write_headers(self.state.out, &parts.headers);
        encode::close_head(self.state.out);
        slot
    }

    /// Leaves the 101 to the connection, which hands itself on. A hook that makes an error of it declines.
    #[cold]
    pub(super) fn switch(mut self, headers: HeaderMap, takeover: Takeover) -> Replied {
        let mut parts = Parts { status: StatusCode::SWITCHING_PROTOCOLS, headers, error: None };
        self.add_headers(&mut parts);
        if parts.status.is_client_error() || parts.status.is_server_error() {
            self.write_head(&parts, Length::Known(0));
            return self.done();
        }
        parts.headers.insert(UPGRADE, takeover.protocol.clone());
        self.leave(Rest::Upgrade(Box::new(Switching { headers: parts.headers, takeover })))
    }

    #[inline]
    fn head<'h>(&self, status: StatusCode, content_type: ContentType<'h>, length: Length) -> ResponseHead<'h>
    where
        'a: 'h,
    {
        let connection = match (self.state.keep_alive, self.state.facts.is_http10) {
            (true, false) => Connection::Unsaid,
            (true, true) => Connection::KeepAlive,
            (false, _) => Connection::Close,
        };
        ResponseHead { status, content_type, starts: self.state.facts.starts, connection, length }
    }
}

/// Writes the header lines that do not belong to the framing.
pub(crate) fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if !encode::is_reserved(name.as_str()) {
            // `http` let the name and the value pass, and its rules are not wider than ours.
            let _ = encode::header(out, name.as_str(), value.as_bytes());
        }
    }
}

/// The types for which the encoder has a constant.
#[inline]
pub(super) fn named(content_type: &str) -> ContentType<'_> {
    match content_type {
        "" => ContentType::None,
        "text/plain" => ContentType::Plain,
        "application/json" => ContentType::Json,
        other => named_rarely(other),
    }
}

/// Apart, so that the two usual ones stay few enough to be told apart by the compiler where they are literals.
#[inline(never)]
fn named_rarely(content_type: &str) -> ContentType<'_> {
    match content_type {
        "text/plain; charset=utf-8" => ContentType::Text,
        "text/html; charset=utf-8" => ContentType::Html,
        "application/octet-stream" => ContentType::Bytes,
        other => ContentType::Other(other),
    }
}

/// 1xx is no answer: the peer would wait for the real one.
#[inline]
fn final_status(status: StatusCode) -> StatusCode {
    if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status }
}
