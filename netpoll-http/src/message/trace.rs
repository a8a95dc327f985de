//! W3C Trace Context: which trace a request belongs to, and what it is told to those that are asked on its behalf.
//!
//! <https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3. What breaks its rules is as if it had not been sent.

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
/// As any hook it makes a request take the longer way; an allocation if there is a trace, two with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
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
        Some(Self { state: state(request), ..parse(parent)? })
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
        self.trace_id
    }

    /// The same as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        let mut digits = String::with_capacity(32);
        digits.extend(self.trace_id_digits().map(char::from));
        digits
    }

    pub(crate) fn trace_id_digits(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        hex(&self.trace_id, &mut digits);
        digits
    }

    /// What the client calls its part of the trace.
    #[must_use]
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
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
        hex(&self.trace_id, &mut text[3..35]);
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
fn state(request: &Request<'_>) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = request.header_lines("tracestate").filter(|line| !line.is_empty()).collect();
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

fn parse(text: &[u8]) -> Option<TraceContext> {
    let (known, more) = text.split_at_checked(BYTES)?;
    let [version @ .., b'-'] = &known[..3] else { return None };
    let [version] = digits::<1>(version)?;
    // A later version may have more behind another dash.
    let may_follow = match version {
        0 => more.is_empty(),
        255 => false,
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    if !may_follow || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let trace_id = digits(&known[3..35])?;
    let parent_id = digits(&known[36..52])?;
    let [flags] = digits(&known[53..55])?;
    if trace_id == [0; 16] || parent_id == [0; 8] {
        return None;
    }
    let span_id = unique_8();
    Some(TraceContext { trace_id, parent_id, span_id, flags: flags & KNOWN_FLAGS, state: None })
}

/// Lower-case hexadecimal digits, two for each byte.
fn digits<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    /// What is no digit has bits that none has.
    const NONE: u8 = 0xf0;
    const VALUES: [u8; 256] = {
        let (mut values, mut digit) = ([NONE; 256], 0);
        while digit < 16 {
            values[b"0123456789abcdef"[digit] as usize] = digit as u8;
            digit += 1;
        }
        values
    };
    let (mut bytes, mut seen) = ([0; BYTES], 0);
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    if pairs.len() != BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| VALUES[usize::from(digit)]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen & NONE == 0).then_some(bytes)
}
