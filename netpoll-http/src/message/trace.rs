//! W3C Trace Context: which trace a request belongs to, and what it is told to those that are asked on its behalf.
//!
//! <https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3. What breaks its rules is as if it had not been sent.

use std::fmt;

use http::HeaderValue;

use super::Request;
use super::chance::{hex, unique_8};

/// The form of version 00, and what later ones begin with.
const BYTES: usize = 55;
/// What goes on of a `tracestate` (section 3.3.1.5 wants at least this much).
const STATE_BYTES_MAX: usize = 512;
/// Of one that is longer, entries above this are left behind first, and then the last ones: those of systems that are furthest away.
const STATE_ENTRY_BYTES_MAX: usize = 128;
/// Sampled, and that the trace id is random: what is known of the flags goes on.
const KNOWN_FLAGS: u8 = 0b11;

/// The trace that a request belongs to: what its field `traceparent` says, and a name for what is done here.
///
/// [`take`](Self::take) is a hook that puts it into the request's extensions. Without the field, with a malformed one, or with several,
/// there is none. Who asks others on behalf of the request gives them [`traceparent`](Self::traceparent) and
/// [`tracestate`](Self::tracestate). The JSON lines of an [`AccessLog`](crate::AccessLog) have the trace id.
///
/// ```
/// use netpoll_http::{App, Method, Request, Router, TraceContext};
///
/// let router = |_: &_| {
///     Router::new().before(TraceContext::take).get("/", |req: &Request| match req.extensions().get::<TraceContext>() {
///         Some(trace) => trace.traceparent().to_str().unwrap().to_owned(), // for a request to somebody else
///         None => "no trace".to_owned(),
///     })
/// };
/// let client = App::new(router).test();
/// let ask = |parent: &str| client.request(Method::GET, "/").header("traceparent", parent).send().text().to_owned();
/// let passed_on = ask("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
/// assert!(passed_on.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed_on.ends_with("-01"));
/// assert!(!passed_on.contains("00f067aa0ba902b7"), "what is done here has a name of its own");
/// assert_eq!(ask("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"), "no trace");
/// ```
///
/// As any hook it makes a request take the longer way, but where there are no others than those of [`RequestId`](crate::RequestId); an allocation if there is a trace, two with a state. Not that for the trace where
/// it is the first hook of the outermost router, or has only that of [`RequestId`](crate::RequestId) before it.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Digits, as they came: logs and others are told the same.
    trace_id: [u8; 32],
    parent_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// The trace of a request, if it says one.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Option<Self> {
        let mut lines = request.header_lines("traceparent");
        let (Some(parent), None) = (lines.next(), lines.next()) else { return None };
        let mut found = None;
        Self::find(&mut found, parent);
        if let Some(trace) = &mut found {
            trace.find_state(request.header_lines("tracestate"));
        }
        found
    }

    /// It lies where it is.
    #[inline]
    pub(super) fn is_flat(&self) -> bool {
        self.state.is_none()
    }

    /// The same of its only line. It is made where it stays: it is long.
    #[inline]
    pub(super) fn find(place: &mut Option<Self>, parent: &[u8]) {
        parse(place, parent);
    }

    /// What follows from the lines of its state.
    pub(super) fn find_state<'l>(&mut self, lines: impl Iterator<Item = &'l [u8]>) {
        self.state = state(lines);
    }

    /// For [`Router::before`](crate::Router::before): puts it into the [extensions](Request::extensions), if there is one.
    pub fn take(request: &Request<'_>) {
        if let Some(trace) = Self::of(request) {
            request.extensions().insert(trace);
        }
    }

    /// The name of the trace, for all who have to do with it.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        bytes(&self.trace_id)
    }

    /// The same as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        self.trace_id_digits().iter().copied().map(char::from).collect()
    }

    pub(crate) fn trace_id_digits(&self) -> &[u8; 32] {
        &self.trace_id
    }

    /// What the client calls its part of the trace.
    #[must_use]
    pub fn parent_id(&self) -> [u8; 8] {
        bytes(&self.parent_id)
    }

    /// What this request is called: a new name.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The client may have recorded its part: then the others should.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The field for a request that is made on behalf of this one: its parent is [`span_id`](Self::span_id).
    #[must_use]
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-                                -                -  ";
        text[3..35].copy_from_slice(&self.trace_id);
        hex(&self.span_id, &mut text[36..52]);
        hex(&[self.flags], &mut text[53..]);
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// The field `tracestate` of the same, as it was sent; `None` if there is none. Of one of more than 512 bytes the entries
    /// above 128 are left out, and as many of the last ones as it takes.
    #[must_use]
    pub fn tracestate(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }
}

/// All lines are one list.
#[cold]
fn state<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    let mut joined = lines.join(&b","[..]);
    if joined.len() > STATE_BYTES_MAX {
        joined = shortened(&joined);
    }
    let is_good = !joined.is_empty() && joined.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_good { HeaderValue::from_bytes(&joined).ok() } else { None }
}

/// As many entries as there may be. None is cut.
#[cold]
fn shortened(state: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(STATE_BYTES_MAX);
    for entry in state.split(|byte| *byte == b',').filter(|entry| entry.len() <= STATE_ENTRY_BYTES_MAX) {
        let comma = usize::from(!short.is_empty());
        if short.len() + comma + entry.len() > STATE_BYTES_MAX {
            break;
        }
        short.extend_from_slice(&b","[..comma]);
        short.extend_from_slice(entry);
    }
    short
}

fn parse(place: &mut Option<TraceContext>, text: &[u8]) -> Option<()> {
    let (known, more) = text.split_first_chunk::<BYTES>()?;
    // `00-` trace id `-` parent id `-` flags
    if (known[2], known[35], known[52]) != (b'-', b'-', b'-') {
        return None;
    }
    let mut digits = [b'0'; 64];
    digits[..BYTES].copy_from_slice(known);
    for dash in [2, 35, 52] {
        digits[dash] = b'0';
    }
    // A later version may have more behind another dash.
    let may_follow = match &known[..2] {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    if !may_follow || !are_digits(&digits) {
        return None;
    }
    let (trace_id, parent_id) = (*known[3..].first_chunk()?, *known[36..].first_chunk()?);
    if trace_id == [b'0'; 32] || parent_id == [b'0'; 16] {
        return None;
    }
    let [flags] = bytes(&[known[53], known[54]]);
    let span_id = unique_8();
    *place = Some(TraceContext { trace_id, parent_id, span_id, flags: flags & KNOWN_FLAGS, state: None });
    Some(())
}

/// All of them are hexadecimal digits, in lower case. Without a way out of the loop the compiler looks at many at once.
fn are_digits(text: &[u8; 64]) -> bool {
    let mut others = [0; 64];
    for (other, byte) in others.iter_mut().zip(text) {
        *other = u8::from(byte.wrapping_sub(b'0') > 9) & u8::from(byte.wrapping_sub(b'a') > 5);
    }
    let (words, _) = others.as_chunks::<8>();
    words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word)) == 0
}

/// What such digits say, two for each byte.
fn bytes<const DIGITS: usize, const BYTES: usize>(digits: &[u8; DIGITS]) -> [u8; BYTES] {
    const { assert!(DIGITS == 2 * BYTES) };
    let value = |digit: u8| (digit & 15) + 9 * (digit >> 6);
    std::array::from_fn(|at| value(digits[2 * at]) << 4 | value(digits[2 * at + 1]))
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceContext")
            .field("traceparent", &self.traceparent())
            .field("tracestate", &self.state)
            .finish_non_exhaustive()
    }
}
