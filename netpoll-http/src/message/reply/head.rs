//! The head of an answer: the one place where it is written.
//!
//! The usual head has no free headers and no hooks, and is one call of the encoder. Any other is
//! collected first and then written line by line; one that hooks have to see is held back (`held`).
//!
//! Invariant: the framing fits the request and the status that goes out, whatever hooks have made of it:
//! [`Begun::has_body`] decides, after them, whether body bytes may follow.

use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::held::Held;
use super::{Facts, Replied, Reply, Rest, State, Switching};
use crate::message::response::{add_header, has, says_close};
use crate::message::{Parts, Request, Takeover};
use crate::wire::response::{self as encode, LengthSlot, ResponseHead};
use crate::wire::{ContentType, Length};

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
        if begun.slot.is_none() {
            self.measure(start);
        }
        if !begun.has_body {
            self.state.out.truncate(start);
        }
    }

    /// Notes how long the body of a held answer has become.
    #[cold]
    fn measure(&mut self, start: usize) {
        let length = (self.state.out.len() - start) as u64;
        if let Some(held) = self.state.extra.as_deref_mut().and_then(|extra| extra.held.as_mut()) {
            held.length = Length::Known(length);
        }
    }

    /// Writes the head of an answer whose body is there already, behind `start`.
    #[cfg(feature = "json")]
    #[cold]
    pub(super) fn begin_behind(&mut self, start: usize, status: StatusCode, content_type: ContentType<'_>) {
        let body_end = self.state.out.len();
        let begun = self.begin(status, content_type, Length::Known((body_end - start) as u64));
        let head_bytes = self.state.out.len() - body_end;
        self.state.out[start..].rotate_right(head_bytes);
        self.state.facts.head_end.set(start + head_bytes);
        if !begun.has_body {
            self.state.out.truncate(start + head_bytes);
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
        !self.state.facts.has_after() && self.state.extra.is_none()
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
            && state.extra.is_none()
            && let Some(slot) =
                encode::usual_head(state.out, state.facts.starts, status, content_type, length)
        {
            state.facts.head_end.set(state.out.len());
            return Begun { slot, has_body: true };
        }
        self.begin_unusual(status, content_type, length)
    }

    #[inline(never)]
    fn begin_unusual(&mut self, status: StatusCode, content_type: ContentType<'_>, length: Length) -> Begun {
        if !self.is_plain() {
            return self.begin_collected(status, content_type, length);
        }
        let state = &mut *self.state;
        if let Some(stamp) = state.facts.context.stamp
            && state.facts.is_usual_but_for_stamp()
            && state.status.is_none()
            && state.keep_alive
            && let Some(slot) =
                encode::usual_head_and(state.out, state.facts.starts, status, content_type, length, *stamp)
        {
            state.facts.head_end.set(state.out.len());
            return Begun { slot, has_body: true };
        }
        let status = self.effective(status);
        let State { ref mut out, facts, keep_alive, .. } = *self.state;
        let slot = encode::open_head(out, &head(facts, keep_alive, status, content_type, length));
        if let Some(&(name, value)) = facts.context.stamp {
            encode::checked_header(out, name, value);
        }
        encode::close_head(out);
        facts.head_end.set(out.len());
        Begun { slot, has_body: !facts.head_only && encode::may_have_body(status) }
    }

    #[cold]
    fn begin_collected(
        &mut self,
        status: StatusCode,
        content_type: ContentType<'_>,
        length: Length,
    ) -> Begun {
        let mut headers = HeaderMap::new();
        let value = match content_type.name() {
            // Without a copy.
            Some(name) => Ok(HeaderValue::from_static(name)),
            None => HeaderValue::from_str(content_type.value()),
        };
        if let Ok(value) = value
            && !value.is_empty()
        {
            headers.insert(CONTENT_TYPE, value);
        }
        self.begin_slowly(Parts { headers, ..Parts::new(status) }, length)
    }

    /// Writes a head with free headers, or holds it back for the hooks. With [`begin`](Self::begin) the only way
    /// for a head to leave.
    #[cold]
    pub(super) fn begin_slowly(&mut self, mut parts: Parts, length: Length) -> Begun {
        parts.status = self.effective(parts.status);
        self.add_headers(&mut parts);
        self.state.keep_alive &= !says_close(&parts.headers);
        let facts = self.state.facts;
        if facts.has_after() {
            self.hold(parts, length);
            // Whether the status has one is known behind the hooks.
            return Begun { slot: None, has_body: !facts.head_only };
        }
        let slot = write_head(self.state.out, facts, self.state.keep_alive, &parts, length);
        Begun { slot, has_body: !facts.head_only && encode::may_have_body(parts.status) }
    }

    fn hold(&mut self, parts: Parts, length: Length) {
        self.state.extra.get_or_insert_default().held = Some(Held { parts, length });
    }

    /// What was asked of the reply beforehand.
    fn add_headers(&mut self, parts: &mut Parts) {
        let Some(extra) = self.state.extra.as_deref_mut() else { return };
        let mut last = None;
        for (name, value) in std::mem::take(&mut extra.headers) {
            // Only the first value of a name comes with it.
            last = name.or(last);
            // Replaces what there can be one of: the answer's own content type was only a default.
            if let Some(name) = &last {
                add_header(&mut parts.headers, name.clone(), value);
            }
        }
    }

    /// Leaves the 101 to the connection, which hands itself on. A hook that makes an error of it declines.
    #[cold]
    pub(super) fn switch(mut self, headers: HeaderMap, takeover: Takeover) -> Replied {
        let mut parts = Parts { headers, ..Parts::new(StatusCode::SWITCHING_PROTOCOLS) };
        self.add_headers(&mut parts);
        parts.headers.insert(UPGRADE, takeover.protocol.clone());
        if let Some(&(name, value)) = self.state.facts.context.stamp
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            parts.headers.insert(HeaderName::from_static(name), value);
        }
        if self.state.facts.has_after() {
            self.hold(parts, Length::Known(0));
            let headers = HeaderMap::new();
            return self.leave(Rest::Upgrade(Box::new(Switching { headers, takeover, request: None })));
        }
        let facts = self.state.facts;
        let request = facts.context.request.filter(|_| facts.needs_request()).map(Request::to_owned);
        self.leave(Rest::Upgrade(Box::new(Switching { headers: parts.headers, takeover, request })))
    }
}

#[inline]
fn head<'h>(
    facts: &'h Facts<'_>,
    keep_alive: bool,
    status: StatusCode,
    content_type: ContentType<'h>,
    length: Length,
) -> ResponseHead<'h> {
    let connection = facts.connection(keep_alive);
    ResponseHead { status, content_type, starts: facts.starts, connection, length }
}

/// Writes a head with free headers.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    facts: &Facts<'_>,
    keep_alive: bool,
    parts: &Parts,
    length: Length,
) -> Option<LengthSlot> {
    let mut head = head(facts, keep_alive, parts.status, ContentType::None, length);
    if has(&parts.headers, &UPGRADE) {
        head.connection = head.connection.with_upgrade();
    }
    let slot = encode::open_head(out, &head);
    if let Some(&(name, value)) = facts.context.stamp {
        // In place of one that the program has added.
        encode::checked_header(out, name, value);
        write_all_but(out, &parts.headers, name);
    } else {
        write_headers(out, &parts.headers);
    }
    encode::close_head(out);
    facts.head_end.set(out.len());
    slot
}

/// Writes the header lines that do not belong to the framing. Of a field that has one value the last line is written.
pub(crate) fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    // No header has no name.
    write_all_but(out, headers, "");
}

fn write_all_but(out: &mut Vec<u8>, headers: &HeaderMap, left_out: &str) {
    let mut lines = headers.iter().peekable();
    // Lines of one name come one behind the other.
    while let Some((name, value)) = lines.next() {
        let is_overruled =
            lines.peek().is_some_and(|(next, _)| *next == name && encode::is_single(name.as_str()));
        if !is_overruled && !encode::is_reserved(name.as_str()) && name.as_str() != left_out {
            // `http` let the name and the value pass, and its rules are not wider than ours.
            encode::checked_header(out, name.as_str(), value.as_bytes());
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
pub(super) fn final_status(status: StatusCode) -> StatusCode {
    if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status }
}
