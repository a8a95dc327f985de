//! Request heads: from bytes to a [`Head`], or to the reason why not.
//!
//! One pass splits a complete head and checks every byte of it: a byte is compared against the class
//! of the place it is in, and what ends a run must be what ends that part, or the head is not read. What is not
//! read is incomplete or broken, and `partial` says which. Then come the rules about the whole
//! head: its host, its framing, its connection options.
//!
//! Invariant: how the bytes were cut into reads makes no difference to a head that comes out, nor to
//! whether one comes out. A head that cannot become valid any more is refused with the read that broke
//! it, not when the head deadline passes.
//!
//! Touched by the connection machine only. A head that arrives whole is read once; of one that trickles in
//! every byte is examined once, and it is read when its end is there. Nothing is allocated.

use super::error::{Violation, WireError};
use super::framing;
use super::headers::{Entry, HEADERS_MAX, HeaderIndex, Known};
use super::partial::{self, METHOD_BYTES_MAX};
use super::request::{Head, HeadParts, Limits, Method, Progress, Scan, span};
use super::scan;
use super::target;

/// Positions in a head are kept in 16 bits.
const HEAD_BYTES_LIMIT: usize = u16::MAX as usize;
/// Empty lines before a request line that are forgiven (RFC 9112 section 2.2 asks for one).
const EMPTY_LINES_MAX: u8 = 4;

/// Reads the head at the start of `bytes`.
///
/// `scan` belongs to the connection; `index` may be shared by all connections of a worker and is
/// overwritten. Bytes after the head are not looked at.
///
/// # Errors
/// The first rule that the peer broke. The connection has to be closed after the answer.
#[inline]
pub fn parse<'a>(
    bytes: &'a [u8],
    scan: &mut Scan,
    limits: &Limits,
    index: &'a mut HeaderIndex,
) -> Result<Progress<'a>, WireError> {
    if scan.scanned == 0
        && let Some(parts) = read(bytes, limits, index)
    {
        let head = complete(bytes, 0, &parts, index)?;
        *scan = Scan::default();
        return Ok(Progress::Done(head));
    }
    parse_slowly(bytes, scan, limits, index)
}

/// The same for heads that are incomplete, broken, or behind empty lines.
#[cold]
fn parse_slowly<'a>(
    bytes: &'a [u8],
    scan: &mut Scan,
    limits: &Limits,
    index: &'a mut HeaderIndex,
) -> Result<Progress<'a>, WireError> {
    let skip = if scan.scanned == 0 { skip_empty_lines(bytes, scan)? } else { 0 };
    let bytes = &bytes[skip..];
    let head_bytes_max = head_bytes_max(limits);
    let window = &bytes[..bytes.len().min(head_bytes_max)];
    // The first half of an empty line is none of the head.
    if window.is_empty() || (window == b"\r" && scan.scanned == 0) {
        return Ok(Progress::Partial { skip });
    }
    if !partial::examine(window, scan, limits)? {
        return if window.len() == head_bytes_max {
            Err(Violation::HeadTooLarge.into())
        } else {
            Ok(Progress::Partial { skip })
        };
    }
    let Some(parts) = read(window, limits, index) else {
        debug_assert!(false, "examined to its end, but not read: {}", window.escape_ascii());
        return Err(Violation::BadRequestLine.into());
    };
    let head = complete(window, skip, &parts, index)?;
    *scan = Scan::default();
    Ok(Progress::Done(head))
}

fn head_bytes_max(limits: &Limits) -> usize {
    limits.head_bytes_max.clamp(1, HEAD_BYTES_LIMIT)
}

/// The content type of a TLS record that holds a ClientHello (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Steps over empty lines and tells a TLS handshake from a request. Returns the bytes to drop.
fn skip_empty_lines(bytes: &[u8], scan: &mut Scan) -> Result<usize, Violation> {
    let mut skipped = 0;
    loop {
        match bytes[skipped..] {
            [b'\r', b'\n', ..] if scan.empty_lines == EMPTY_LINES_MAX => {
                return Err(Violation::TooManyEmptyLines);
            }
            [b'\r', b'\n', ..] => {
                scan.empty_lines += 1;
                skipped += 2;
            }
            [b'\n', ..] => return Err(Violation::BareLf),
            [b'\r', _, ..] => return Err(Violation::BareCr),
            [TLS_HANDSHAKE, ..] => return Err(Violation::TlsOnPlainPort),
            _ => return Ok(skipped),
        }
    }
}

/// The parts of a head whose bytes are all in their place.
struct Parts<'a> {
    method: Method,
    method_name: &'a [u8],
    target: &'a [u8],
    /// The bytes of the target before the first `?`.
    path_len: usize,
    minor_version: u8,
    head_len: usize,
}

/// Takes a complete head apart; None if it is not one, for whatever reason.
#[inline(always)]
fn read<'a>(window: &'a [u8], limits: &Limits, index: &mut HeaderIndex) -> Option<Parts<'a>> {
    let (method, method_len) = method(window)?;
    let (method_name, behind) = window.split_at_checked(method_len)?;
    let (_space, target) = behind.split_first()?;
    let (path_len, mut behind) = scan::path(target)?;
    let mut target_len = path_len;
    if behind.first() == Some(&b'?') {
        let query_len;
        (query_len, behind) = scan::target(behind)?;
        target_len += query_len;
    }
    if target_len == 0 || target_len > limits.target_bytes_max {
        return None;
    }
    let target = target.get(..target_len)?;
    let (line_end, mut line) = behind.split_first_chunk::<11>()?;
    let minor_version = minor_version(line_end)?;

    index.clear();
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let mut count = 0;
    let mut is_last = line.starts_with(b"\r\n");
    if is_last {
        line = &line[2..];
    }
    while !is_last {
        if count >= headers_max {
            return None;
        }
        (line, is_last) = header(window.len(), line, count, index)?;
        count += 1;
    }
    index.set_count(count);
    let head_len = window.len() - line.len();
    // Also what keeps positions within their 16 bits.
    (head_len <= head_bytes_max(limits)).then_some(Parts {
        method,
        method_name,
        target,
        path_len,
        minor_version,
        head_len,
    })
}

/// The method and its length; a space follows it.
#[inline(always)]
fn method(window: &[u8]) -> Option<(Method, usize)> {
    let word = u64::from_le_bytes(*window.first_chunk()?);
    let begins_with = |name: &[u8; 8], len: usize| {
        let used = u64::MAX >> (64 - 8 * len);
        word & used == u64::from_le_bytes(*name) & used
    };
    if begins_with(b"GET     ", 4) {
        return Some((Method::Get, 3));
    }
    if begins_with(b"POST    ", 5) {
        return Some((Method::Post, 4));
    }
    other_method(window)
}

#[inline(never)]
fn other_method(window: &[u8]) -> Option<(Method, usize)> {
    let len = window.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| !framing::is_token_byte(byte))?;
    let name = &window[..len];
    if len == 0 || window[len] != b' ' || name == b"CONNECT" {
        return None;
    }
    Some((Method::of(name), len))
}

/// The minor version of ` HTTP/1.x` and a line end. In words: byte by byte it would be ten branches.
#[inline(always)]
fn minor_version(line_end: &[u8; 11]) -> Option<u8> {
    let [start @ .., _, _, _] = line_end;
    let [_, _, _, _, _, _, _, end @ ..] = line_end;
    if u64::from_le_bytes(*start) != u64::from_le_bytes(*b" HTTP/1.") {
        return None;
    }
    let end = u32::from_le_bytes(*end);
    if end == u32::from_le_bytes(*b".1\r\n") {
        return Some(1);
    }
    (end == u32::from_le_bytes(*b".0\r\n")).then_some(0)
}

/// Takes the header line apart that `line` begins with, and notes it. Returns what follows its line end,
/// or what follows the empty line behind it and true.
#[inline(always)]
fn header<'a>(
    window_len: usize,
    line: &'a [u8],
    at: usize,
    index: &mut HeaderIndex,
) -> Option<(&'a [u8], bool)> {
    let (known, mut name_len) = Known::of_line(line);
    if known.is_none() {
        name_len = self::name_len(line)?;
    }
    let mut value = line.get(name_len + 1..)?;
    match value {
        // One space is what everybody sends.
        [b' ', first, ..] if *first > b' ' => value = &value[1..],
        _ => value = &value[blanks_at_start(value)..],
    }
    let (mut value_len, behind) = scan::value(value)?;
    if value.get(value_len.wrapping_sub(1)).is_some_and(|&last| last <= b' ') {
        value_len -= blanks_at_end(&value[..value_len]);
    }
    index.note(at, known, Entry::new(window_len - line.len(), name_len, window_len - value.len(), value_len));
    let (ends, behind_both) = behind.split_first_chunk::<4>()?;
    let ends = u32::from_le_bytes(*ends);
    if ends == u32::from_le_bytes(*b"\r\n\r\n") {
        return Some((behind_both, true));
    }
    (ends as u16 == u16::from_le_bytes(*b"\r\n")).then(|| (&behind[2..], false))
}

/// The bytes of a name, if it is a token and a colon follows it.
#[inline(always)]
fn name_len(line: &[u8]) -> Option<usize> {
    let (len, behind) = scan::token(line)?;
    (len > 0 && behind.first() == Some(&b':')).then_some(len)
}

#[cold]
fn blanks_at_start(value: &[u8]) -> usize {
    value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

#[cold]
fn blanks_at_end(value: &[u8]) -> usize {
    value.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Makes a head of its parts, or finds the rule that they break together.
#[inline(always)]
fn complete<'a>(
    window: &'a [u8],
    skipped: usize,
    parts: &Parts<'a>,
    index: &'a HeaderIndex,
) -> Result<Head<'a>, Violation> {
    let &Parts { method, minor_version, .. } = parts;
    let bytes = &window[..parts.head_len];
    let target = parts.target;
    let (authority, path, query) = if target.first() == Some(&b'/') {
        let (path, query) = target.split_at(parts.path_len);
        (None, path, query.get(1..))
    } else {
        let target::Parts { authority, path, query } = target::split(text(target)?, method)?;
        (authority, path.as_bytes(), query.map(str::as_bytes))
    };
    let host = host(index, bytes, minor_version)?;
    let framing = framing::framing(index, bytes, minor_version)?;
    let options = framing::connection_options(index, bytes);
    let expects = framing::expects_continue(index, bytes, minor_version)?;
    let parts = HeadParts {
        method,
        minor_version,
        keep_alive: !options.close && (minor_version == 1 || options.keep_alive),
        expect_continue: expects && framing.has_body(),
        upgrade: options.upgrade && minor_version == 1 && index.has(Known::Upgrade),
        method_name: (0, parts.method_name.len() as u16),
        target: span(bytes, target),
        path: span(bytes, path),
        query: query.map(|query| span(bytes, query)),
        authority: span(bytes, authority.unwrap_or(host)),
        framing,
    };
    Ok(Head { bytes, index, parts, skipped })
}

/// A part of the request line as text. It is ASCII, so this does not fail.
fn text(part: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(part).map_err(|_| Violation::BadTarget)
}

/// The one Host, checked; empty when HTTP/1.0 has none.
#[inline(always)]
fn host<'a>(index: &HeaderIndex, head: &'a [u8], minor_version: u8) -> Result<&'a [u8], Violation> {
    match index.known(head, Known::Host) {
        None if minor_version == 0 => Ok(b""),
        None => Err(Violation::NoHost),
        Some(_) if index.is_repeated(Known::Host) => Err(Violation::TwoHosts),
        Some(host) if target::is_authority(host) => Ok(host),
        Some(_) => Err(Violation::BadHost),
    }
}
