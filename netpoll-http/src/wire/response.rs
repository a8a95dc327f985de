//! Answer heads and chunk framing, appended to a `Vec<u8>` that the caller flushes.
//!
//! Invariant: what is appended is one well-formed head, and its framing fits its status: no length and
//! no coding with 1xx, 204 and 304, and no content with 205. A header that would split the head is refused, never cut or escaped.
//!
//! Cost of the usual head: two copies of constant size. All but the length comes rendered from
//! [`HeadStarts`].

use std::fmt;

use http::StatusCode;

use super::framing::{is_token_byte, is_value_byte};
use super::starts::{HeadStarts, LENGTH_NAME};

/// The Content-Type of an answer. The beginnings of heads with the named ones are kept rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType<'a> {
    /// No Content-Type line.
    None,
    /// `text/plain`
    Plain,
    /// `text/plain; charset=utf-8`
    Text,
    /// `text/html; charset=utf-8`
    Html,
    /// `application/json`
    Json,
    /// `application/octet-stream`
    Bytes,
    /// Any other one; must be a valid header value, or nothing is written.
    Other(&'a str),
}

/// What the answer says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: the connection stays open in HTTP/1.1.
    Unsaid,
    /// `Connection: close`
    Close,
    /// `Connection: keep-alive`, which an HTTP/1.0 client has to be told, and `Keep-Alive: timeout=` with so many
    /// seconds of silence that it may rely on; zero leaves that line out.
    KeepAlive(u32),
    /// `Connection: upgrade`, with the 101 and with whatever else has an Upgrade header (RFC 9110 section 7.8).
    Upgrade,
    /// `Connection: close, upgrade`
    CloseUpgrade,
    /// `Connection: keep-alive, upgrade`
    KeepAliveUpgrade,
}

impl Connection {
    /// The same where the head has an Upgrade header.
    #[must_use]
    pub fn with_upgrade(self) -> Connection {
        match self {
            Connection::Unsaid | Connection::Upgrade => Connection::Upgrade,
            Connection::Close | Connection::CloseUpgrade => Connection::CloseUpgrade,
            Connection::KeepAlive(_) | Connection::KeepAliveUpgrade => Connection::KeepAliveUpgrade,
        }
    }
}

/// How the end of the answer's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// `Content-Length: n`
    Known(u64),
    /// `Transfer-Encoding: chunked`; not for HTTP/1.0.
    Chunked,
    /// Neither: no body, or it ends with the connection.
    Unsaid,
    /// A Content-Length that is filled in with [`patch_length`] when the body has been written.
    Deferred,
}

impl<'a> ContentType<'a> {
    /// The header's value; empty for none.
    pub fn value(self) -> &'a str {
        match (self.name(), self) {
            (Some(name), _) => name,
            (None, ContentType::Other(value)) => value,
            (None, _) => "",
        }
    }

    /// The same of one that has a name here.
    pub fn name(self) -> Option<&'static str> {
        match self {
            ContentType::None | ContentType::Other(_) => None,
            ContentType::Plain => Some("text/plain"),
            ContentType::Text => Some("text/plain; charset=utf-8"),
            ContentType::Html => Some("text/html; charset=utf-8"),
            ContentType::Json => Some("application/json"),
            ContentType::Bytes => Some("application/octet-stream"),
        }
    }
}

/// Everything in a head that is not a free header.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Any status; its reason phrase is the registered one, or empty.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: ContentType<'a>,
    /// Beginnings of heads with the current date.
    pub starts: &'a HeadStarts,
    /// What to say about the connection.
    pub connection: Connection,
    /// How the body ends; ignored with 1xx, 204 and 304, which have no body, and zero with 205.
    pub length: Length,
}

/// Where ten spaces wait for the digits of a deferred length: an index into the `Vec` that the head went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a deferred length has to be patched"]
pub struct LengthSlot(usize);

/// A header name that is not a token, or a value with CR, LF, NUL or another control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeader;

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header name is not a token, or a header value contains a control character")
    }
}

impl std::error::Error for InvalidHeader {}

const LENGTH_DIGITS: usize = 10;
/// Where digits are going to be. White space before a value is optional and skipped by every client (RFC
/// 9112 section 5).
const NO_LENGTH: &[u8; LENGTH_DIGITS] = b"         0";
/// Below it a length has at most four digits, which most bodies' have.
const SHORT: u32 = 10_000;
/// Bytes that a head without free headers and with a short Content-Type needs: what to reserve.
pub const HEAD_BYTES_USUAL: usize = 256;

/// Appends a whole head, empty line included. The slot is there if the length was deferred.
pub fn head(out: &mut Vec<u8>, head: &ResponseHead<'_>) -> Option<LengthSlot> {
    let slot = open_head(out, head);
    close_head(out);
    slot
}

/// Appends a whole head if it is a usual one: 200 with a named content type and a length, on a connection
/// of which nothing has to be said. `None`, and nothing appended, if it is not.
///
/// The same bytes as from [`head`], by way of [`HeadStarts`].
#[inline(always)]
pub fn usual_head(
    out: &mut Vec<u8>,
    starts: &HeadStarts,
    status: StatusCode,
    content_type: ContentType<'_>,
    length: Length,
) -> Option<Option<LengthSlot>> {
    let start = starts.usual(status, content_type)?;
    // Copies of constant size are a few moves each; what was copied too much is cut off again.
    let end = out.len() + start.len;
    match length {
        Length::Known(length) if length < u64::from(SHORT) => {
            let (digits, len) = short_decimal(length as u32);
            let digits_and_end = u64::from(digits) | u64::from(u32::from_le_bytes(*b"\r\n\r\n")) << (8 * len);
            out.extend_from_slice(&start.bytes);
            out.truncate(end);
            out.extend_from_slice(&digits_and_end.to_le_bytes());
            out.truncate(end + len + 4);
            Some(None)
        }
        Length::Deferred => {
            out.extend_from_slice(&start.bytes);
            out.truncate(end);
            out.extend_from_slice(NO_LENGTH);
            out.extend_from_slice(b"\r\n\r\n");
            Some(Some(LengthSlot(end)))
        }
        _ => None,
    }
}

/// The same with a line more: a name in lower case and a value that somebody has checked, as of [`checked_header`].
pub fn usual_head_and(
    out: &mut Vec<u8>,
    starts: &HeadStarts,
    status: StatusCode,
    content_type: ContentType<'_>,
    length: Length,
    (name, value): (&str, &[u8]),
) -> Option<Option<LengthSlot>> {
    let slot = usual_head(out, starts, status, content_type, length)?;
    // The empty line comes behind it.
    out.truncate(out.len() - b"\r\n".len());
    match (name, <&[u8; ID_BYTES]>::try_from(value)) {
        // What a server that names its requests adds to each answer.
        ("x-request-id", Ok(id)) => {
            let mut line = *b"X-Request-Id: ................................\r\n\r\n";
            line[14..46].copy_from_slice(id);
            out.extend_from_slice(&line);
        }
        _ => {
            checked_header(out, name, value);
            close_head(out);
        }
    }
    Some(slot)
}

/// Appends a head without its empty line: [`header`] may follow, [`close_head`] must.
pub fn open_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) -> Option<LengthSlot> {
    out.reserve(HEAD_BYTES_USUAL);
    start(out, head.status, head.starts.server(), head.content_type);
    out.extend_from_slice(head.starts.date());
    match head.connection {
        Connection::Unsaid => {}
        Connection::Close => out.extend_from_slice(b"\r\nConnection: close"),
        other => say_connection(out, other),
    }
    match head.length {
        _ if !may_have_body(head.status) => say_no_body(out, head.status),
        Length::Unsaid => out.extend_from_slice(b"\r\n"),
        Length::Known(length) => {
            out.extend_from_slice(LENGTH_NAME);
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"\r\nTransfer-Encoding: chunked\r\n"),
        Length::Deferred => {
            out.extend_from_slice(LENGTH_NAME);
            out.extend_from_slice(NO_LENGTH);
            out.extend_from_slice(b"\r\n");
            return Some(LengthSlot(out.len() - 2 - LENGTH_DIGITS));
        }
    }
    None
}

#[cold]
fn say_connection(out: &mut Vec<u8>, connection: Connection) {
    out.extend_from_slice(match connection {
        Connection::Unsaid => return,
        Connection::Close => b"\r\nConnection: close",
        Connection::KeepAlive(_) => b"\r\nConnection: keep-alive",
        Connection::Upgrade => b"\r\nConnection: upgrade",
        Connection::CloseUpgrade => b"\r\nConnection: close, upgrade",
        Connection::KeepAliveUpgrade => b"\r\nConnection: keep-alive, upgrade",
    });
    if let Connection::KeepAlive(seconds @ 1..) = connection {
        out.extend_from_slice(b"\r\nKeep-Alive: timeout=");
        out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    }
}

#[cold]
fn say_no_body(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::RESET_CONTENT {
        out.extend_from_slice(LENGTH_NAME);
        out.extend_from_slice(b"0");
    }
    out.extend_from_slice(b"\r\n");
}

/// Ends a head that [`open_head`] began.
#[inline]
pub fn close_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// False for the statuses that never have a body: 1xx, 204, 205 and 304. Only 205 has a length all the same, of
/// zero (RFC 9110 section 15.3.6).
#[inline]
pub fn may_have_body(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 100..=199 | 204 | 205 | 304)
}

/// Fills in a deferred length. `out` is the `Vec` that the head went to, nothing removed before the slot.
///
/// # Panics
/// If the length has more than ten digits, or the slot is not from this `Vec`.
#[inline]
pub fn patch_length(out: &mut [u8], slot: LengthSlot, length: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(length).as_bytes();
    let field = &mut out[slot.0..slot.0 + LENGTH_DIGITS];
    assert!(matches!(field, [b' ', .., b'0']), "the slot of a deferred length, patched once");
    field[LENGTH_DIGITS - digits.len()..].copy_from_slice(digits);
}

/// Appends one header line, its name as it is.
///
/// # Errors
/// [`InvalidHeader`]; then nothing was appended.
pub fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), InvalidHeader> {
    // All of it, as the compiler can look at many at once: hardly any has something that may not be.
    let is_value = value.iter().fold(true, |is_value, byte| is_value & is_value_byte(*byte));
    if name.is_empty() || !name.bytes().all(is_token_byte) || !is_value {
        return Err(InvalidHeader);
    }
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    value_of(out, value);
    Ok(())
}

/// The same of a name in lower case and a value that somebody else has checked by these rules, or narrower ones. The name becomes one as the rest of
/// the head has, `Content-Type`: the crate `http` knows none but those in lower case.
pub fn checked_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len().max(NAME_BYTES_USUAL) + value.len() + 4);
    capitalised(out, name.as_bytes());
    value_of(out, value);
}

/// Whether a handler may add such a line by [`checked_header`]: it is a name in lower case, none of those that the encoder writes itself,
/// and a value.
pub fn may_be_added(name: &str, value: &[u8]) -> bool {
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| is_token_byte(byte) && !byte.is_ascii_uppercase())
        && !is_reserved(name);
    is_name && value.iter().all(|byte| is_value_byte(*byte))
}

/// Bytes of the name of a request that is made here.
const ID_BYTES: usize = 32;

#[inline]
fn value_of(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Names that are capitalised in one step. Most have fewer bytes.
const NAME_BYTES_USUAL: usize = 32;

/// Appends a name with a capital at each beginning.
#[inline]
fn capitalised(out: &mut Vec<u8>, name: &[u8]) {
    let upper = |before: u8, byte: u8| byte ^ (u8::from((before == b'-') & byte.is_ascii_lowercase()) << 5);
    let mut padded = [b'-'; NAME_BYTES_USUAL + 1];
    let Some(place) = padded.get_mut(1..=name.len()) else {
        let before = std::iter::once(b'-').chain(name.iter().copied());
        return out.extend(before.zip(name).map(|(before, byte)| upper(before, *byte)));
    };
    place.copy_from_slice(name);
    // All of them at once; what was too much is cut off again.
    let mut text = [0; NAME_BYTES_USUAL];
    for at in 0..NAME_BYTES_USUAL {
        text[at] = upper(padded[at], padded[at + 1]);
    }
    let end = out.len() + name.len();
    out.extend_from_slice(&text);
    out.truncate(end);
}

/// True for the headers that the encoder writes itself, and that a handler must not add a second time.
pub fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 6] =
        ["connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"];
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// True for the headers of answers of which a second line would contradict the first (RFC 9110 section 5.3): those
/// that are registered as one value and not as a list. Names are compared in lower case.
pub fn is_single(name: &str) -> bool {
    const SINGLE: [&str; 23] = [
        "access-control-allow-credentials",
        "access-control-allow-origin",
        "access-control-max-age",
        "age",
        "content-disposition",
        "content-location",
        "content-range",
        "content-type",
        "cross-origin-embedder-policy",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "deprecation",
        "etag",
        "expires",
        "last-modified",
        "location",
        "retry-after",
        "sec-websocket-accept",
        "sec-websocket-protocol",
        "strict-transport-security",
        "sunset",
        "x-content-type-options",
        "x-frame-options",
    ];
    SINGLE.binary_search(&name).is_ok()
}

/// `100 Continue`, whole. Only for a client that speaks HTTP/1.1.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends data as one chunk; nothing if it is empty, because an empty chunk ends the body.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.reserve(data.len() + 20);
        chunk_start(out, data.len());
        out.extend_from_slice(data);
        chunk_end(out);
    }
}

/// Appends the size line of a chunk whose data travels by another way; [`chunk_end`] must follow the data.
///
/// # Panics
/// If `data_bytes` is zero: that would end the body.
pub fn chunk_start(out: &mut Vec<u8>, data_bytes: usize) {
    assert!(data_bytes > 0, "an empty chunk ends the body");
    let digits = (data_bytes.ilog2() / 4 + 1) as usize;
    out.extend((0..digits).rev().map(|digit| HEX[data_bytes >> (digit * 4) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// Appends what follows the data of a chunk.
pub fn chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends whatever `write` appends as one chunk; nothing if it appends nothing. No second buffer.
///
/// `write` may not remove what was there before it.
///
/// # Panics
/// If `write` appends 4 GiB or more, or removes earlier bytes.
pub fn chunk_with<R>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let start = out.len();
    out.extend_from_slice(b"00000000\r\n");
    let data_start = out.len();
    let result = write(out);
    assert!(out.len() >= data_start, "a chunk writer only appends");
    match out.len() - data_start {
        0 => out.truncate(start),
        data_bytes => {
            assert!(u32::try_from(data_bytes).is_ok(), "a chunk below 4 GiB");
            for digit in 0..8 {
                out[start + 7 - digit] = HEX[data_bytes >> (digit * 4) & 15];
            }
            chunk_end(out);
        }
    }
    result
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the end of a chunked body.
pub fn last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(LAST_CHUNK);
}

/// Up to four digits as one word, the first one lowest, and how many they are.
#[inline]
fn short_decimal(number: u32) -> (u32, usize) {
    debug_assert!(number < SHORT);
    let digits = [number / 1000, number / 100 % 10, number / 10 % 10, number % 10].map(|digit| digit as u8);
    let leading = match number {
        0..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    let word = (u32::from_le_bytes(digits) + u32::from_le_bytes([b'0'; 4])) >> (8 * leading);
    (word, 4 - leading as usize)
}

/// Appends status line, Server and Content-Type, and the name of the date.
pub(super) fn start(out: &mut Vec<u8>, status: StatusCode, server: &str, content_type: ContentType<'_>) {
    match status_line(status.as_u16()) {
        Some(line) => out.extend_from_slice(line.as_bytes()),
        None => {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(status.as_str().as_bytes());
            out.extend_from_slice(b" \r\n");
        }
    }
    out.extend_from_slice(server.as_bytes());
    let value = content_type.value();
    // Without a way out of the loop the compiler looks at many bytes at once.
    let is_valid = value.bytes().fold(true, |is_valid, byte| is_valid & is_value_byte(byte));
    if !value.is_empty() && is_valid {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Date: ");
}

/// The reason phrase of a registered status, as its status line has it.
pub fn reason(status: StatusCode) -> Option<&'static str> {
    // Behind `HTTP/1.1 200 `.
    status_line(status.as_u16())?.get(13..)?.strip_suffix("\r\n")
}

macro_rules! status_lines {
    ($($code:literal $reason:literal)*) => {
        /// Status line of a registered status.
        fn status_line(code: u16) -> Option<&'static str> {
            match code {
                $($code => Some(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n")),)*
                _ => None,
            }
        }
    };
}

// The IANA registry of HTTP status codes.
status_lines! {
    100 "Continue" 101 "Switching Protocols" 102 "Processing" 103 "Early Hints"
    200 "OK" 201 "Created" 202 "Accepted" 203 "Non-Authoritative Information" 204 "No Content"
    205 "Reset Content" 206 "Partial Content" 207 "Multi-Status" 208 "Already Reported" 226 "IM Used"
    300 "Multiple Choices" 301 "Moved Permanently" 302 "Found" 303 "See Other" 304 "Not Modified"
    305 "Use Proxy" 307 "Temporary Redirect" 308 "Permanent Redirect"
    400 "Bad Request" 401 "Unauthorized" 402 "Payment Required" 403 "Forbidden" 404 "Not Found"
    405 "Method Not Allowed" 406 "Not Acceptable" 407 "Proxy Authentication Required"
    408 "Request Timeout" 409 "Conflict" 410 "Gone" 411 "Length Required" 412 "Precondition Failed"
    413 "Content Too Large" 414 "URI Too Long" 415 "Unsupported Media Type" 416 "Range Not Satisfiable"
    417 "Expectation Failed" 418 "I'm a teapot" 421 "Misdirected Request" 422 "Unprocessable Content"
    423 "Locked" 424 "Failed Dependency" 425 "Too Early" 426 "Upgrade Required"
    428 "Precondition Required" 429 "Too Many Requests" 431 "Request Header Fields Too Large"
    451 "Unavailable For Legal Reasons"
    500 "Internal Server Error" 501 "Not Implemented" 502 "Bad Gateway" 503 "Service Unavailable"
    504 "Gateway Timeout" 505 "HTTP Version Not Supported" 506 "Variant Also Negotiates"
    507 "Insufficient Storage" 508 "Loop Detected" 510 "Not Extended" 511 "Network Authentication Required"
}
