//! Request targets, queries and cookies: taken apart as they were sent, decoded on demand.
//!
//! Routing looks at the raw path, so that an encoded slash or dot never changes which handler is
//! called. Decoding happens once, in the place that uses the value, and borrows when there is nothing
//! to decode.

use std::borrow::Cow;
use std::fmt;

use super::error::Violation;
use super::request::Method;
use super::scan;

/// A target taken apart.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Of an absolute target only.
    pub(super) authority: Option<&'a [u8]>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

/// Takes a target of printable ASCII apart (RFC 9112 section 3.2).
#[inline]
pub(super) fn split(target: &str, method: Method) -> Result<Parts<'_>, Violation> {
    if target.as_bytes().first() == Some(&b'/') {
        let (path, query) = split_query(target)?;
        return Ok(Parts { authority: None, path, query });
    }
    if target == "*" {
        return match method {
            Method::Options => Ok(Parts { authority: None, path: target, query: None }),
            _ => Err(Violation::AsteriskNotOptions),
        };
    }
    split_absolute(target)
}

/// Cuts at the first `?`. A `#` is part of no target: it would hide the rest from some readers.
#[inline]
fn split_query(target: &str) -> Result<(&str, Option<&str>), Violation> {
    let bytes = target.as_bytes();
    let find = |from: usize| match bytes[from..].len() {
        // Most targets are too short for memchr to pay.
        0..32 => bytes[from..].iter().position(|&byte| byte == b'?' || byte == b'#'),
        _ => memchr::memchr2(b'?', b'#', &bytes[from..]),
    };
    let Some(at) = find(0) else { return Ok((target, None)) };
    // A query may contain more question marks.
    if bytes[at] == b'#' || (find(at + 1).is_some() && bytes[at..].contains(&b'#')) {
        return Err(Violation::BadTarget);
    }
    Ok((&target[..at], Some(&target[at + 1..])))
}

#[cold]
fn split_absolute(target: &str) -> Result<Parts<'_>, Violation> {
    let scheme = target.find("://").ok_or(Violation::BadTarget)?;
    if !["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(&target[..scheme])) {
        return Err(Violation::BadTarget);
    }
    let rest = &target[scheme + 3..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest.as_bytes()[..end];
    if !is_authority(authority) {
        return Err(Violation::BadHost);
    }
    let (path, query) = split_query(&rest[end..])?;
    // An empty path means "/": the first slash of "://" is one that lives in the head.
    let path = if path.is_empty() { &target[scheme + 1..scheme + 2] } else { path };
    Ok(Parts { authority: Some(authority), path, query })
}

/// Checks `uri-host [":" port]` with a host that is not empty (RFC 9110 sections 4.2.1 and 7.2).
#[inline(always)]
pub(super) fn is_authority(authority: &[u8]) -> bool {
    if authority.first() == Some(&b'[') {
        return is_ip_literal(authority);
    }
    let name = scan::plain_host_len(authority);
    match authority.get(name) {
        None => name > 0,
        Some(b':') => name > 0 && is_port(&authority[name + 1..]),
        Some(_) => is_unusual_name(authority),
    }
}

/// A name with other marks or percent escapes: legal, and hardly ever seen.
#[cold]
fn is_unusual_name(authority: &[u8]) -> bool {
    let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
    let (mut name, port) = authority.split_at(end);
    while let [first, rest @ ..] = name {
        name = match (first, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            (byte, rest) if HOST_BYTES[usize::from(*byte)] => rest,
            _ => return false,
        };
    }
    end > 0 && (port.is_empty() || is_port(&port[1..]))
}

#[cold]
fn is_ip_literal(authority: &[u8]) -> bool {
    let Some(end) = authority.iter().position(|&byte| byte == b']') else { return false };
    let is_address = std::str::from_utf8(&authority[1..end])
        .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    is_address
        && match &authority[end + 1..] {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// `*DIGIT` (so `host:` is legal), and not more digits than a port has.
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// `unreserved / sub-delims` of RFC 3986: a name without escapes.
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// A `%` without two hexadecimal digits, or bytes that are not UTF-8 once decoded: the peer's fault, a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// `%` is not followed by two hexadecimal digits.
    BadEscape,
    /// The decoded bytes are not UTF-8 (overlong forms and surrogates are not).
    NotUtf8,
    /// A file path that could leave its folder, see [`file_path`].
    UnsafePath,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::BadEscape => "A percent sign is not followed by two hexadecimal digits.",
            DecodeError::NotUtf8 => "The percent-decoded text is not UTF-8.",
            DecodeError::UnsafePath => {
                "The path contains a parent folder, a backslash, a NUL or an encoded slash."
            }
        })
    }
}

impl std::error::Error for DecodeError {}

/// Decodes a path segment or parameter: `%41` is `A`, `+` stays. Once: `%2541` gives `%41`.
///
/// Allocates only if there is an escape.
///
/// # Errors
/// [`DecodeError::BadEscape`] and [`DecodeError::NotUtf8`].
pub fn decode_segment(raw: &str) -> Result<Cow<'_, str>, DecodeError> {
    match memchr::memchr(b'%', raw.as_bytes()) {
        None => Ok(Cow::Borrowed(raw)),
        Some(first) => unescape(raw, first, false),
    }
}

/// Decodes a name or value of a query or form: as [`decode_segment`], and `+` is a space.
///
/// # Errors
/// [`DecodeError::BadEscape`] and [`DecodeError::NotUtf8`].
pub fn decode_form(raw: &str) -> Result<Cow<'_, str>, DecodeError> {
    match memchr::memchr2(b'%', b'+', raw.as_bytes()) {
        None => Ok(Cow::Borrowed(raw)),
        Some(first) => unescape(raw, first, true),
    }
}

fn unescape(raw: &str, first: usize, plus_is_space: bool) -> Result<Cow<'_, str>, DecodeError> {
    let (plain, mut rest) = raw.as_bytes().split_at(first);
    let mut decoded = Vec::with_capacity(raw.len());
    decoded.extend_from_slice(plain);
    while let [byte, tail @ ..] = rest {
        rest = tail;
        decoded.push(match byte {
            b'%' => {
                let [high, low, tail @ ..] = tail else { return Err(DecodeError::BadEscape) };
                rest = tail;
                hex(*high)? << 4 | hex(*low)?
            }
            b'+' if plus_is_space => b' ',
            _ => *byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| DecodeError::NotUtf8)
}

fn hex(digit: u8) -> Result<u8, DecodeError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(DecodeError::BadEscape),
    }
}

/// Decodes a path that is going to name a file below some folder.
///
/// Refuses what means something else to a file system than to a router: `..` segments, NUL, backslash,
/// and a slash that only appears by decoding. The folder should still be opened with RESOLVE_BENEATH:
/// symbolic links cannot be seen from here.
///
/// # Errors
/// [`DecodeError::UnsafePath`], and those of [`decode_segment`].
pub fn file_path(raw: &str) -> Result<Cow<'_, str>, DecodeError> {
    let decoded = decode_segment(raw)?;
    let slashes = |text: &str| text.bytes().filter(|&byte| byte == b'/').count();
    if decoded.contains(['\0', '\\'])
        || decoded.split('/').any(|segment| segment == "..")
        || slashes(&decoded) != slashes(raw)
    {
        return Err(DecodeError::UnsafePath);
    }
    Ok(decoded)
}

/// A decoded name and its decoded value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The pairs of a query or of a form body, decoded, in order. `a` is `("a", "")`; empty parts are left out.
pub fn query_pairs(raw: &str) -> impl Iterator<Item = Result<Pair<'_>, DecodeError>> {
    raw_pairs(raw).map(|(name, value)| Ok((decode_form(name)?, decode_form(value)?)))
}

/// The decoded value of the first pair with this (decoded) name. Other pairs are not decoded beyond their name.
///
/// # Errors
/// [`DecodeError`] for that value; pairs whose name cannot be decoded are passed over.
pub fn query_value<'a>(raw: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, DecodeError> {
    raw_pairs(raw)
        .find(|(raw_name, _)| decode_form(raw_name).is_ok_and(|decoded| decoded == name))
        .map(|(_, value)| decode_form(value))
        .transpose()
}

/// The pairs of a query or of a form body as they were sent, in order; empty parts are left out.
pub fn raw_pairs(raw: &str) -> impl Iterator<Item = (&str, &str)> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The pairs of one Cookie header value, as sent: no decoding, quotes included (RFC 6265 section 4.2).
///
/// Pairs without `=`, without a name or that are not UTF-8 are left out. Allocates nothing.
pub fn cookie_pairs(value: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    value.split(|&byte| byte == b';').filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
        (!name.is_empty()).then_some((name, value))
    })
}
