//! Request heads: from bytes to a [`Head`], or to the reason why not.
//!
//! One pass splits a complete head and checks every byte of it: a byte is compared against the class
//! of the place it is in, and what ends a run must be what ends that part, or the head is not read. What is not
//! read is incomplete or broken, and `partial` says which. Then come the rules about the whole
//! head: its host, its framing, its connection options.
//!
//! A worker reads by a [`HeadReader`](super::HeadReader), which remembers.
//!
//! Invariant: how the bytes were cut into reads makes no difference to a head that comes out, nor to
//! whether one comes out. A head that cannot become valid any more is refused with the read that broke
//! it, not when the head deadline passes.
//!
//! Touched by the connection machine only. A head that arrives whole is read once; of one that trickles in
//! every byte is examined once, and it is read when its end is there. Nothing is allocated.

use std::ops::Range;

use super::error::{Violation, WireError};
use super::framing::{self, ConnectionOptions, Framing};
use super::headers::{Entry, HEADERS_MAX, HeadIndex, Known, Slot};
use super::partial::{self, METHOD_BYTES_MAX};
use super::request::{Head, HeadParts, Limits, Method, Progress, Scan, Span};
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
    index: &'a mut HeadIndex,
) -> Result<Progress<'a>, WireError> {
    match parse_whole(bytes, scan, limits, index) {
        Some(head_len) => Ok(Progress::Done(Head::new(&bytes[..head_len], index))),
        None => parse_slowly(bytes, scan, limits, index).map_err(|refused| refused.error),
    }
}

/// [`parse`] for the usual head, which is whole and valid: its length. For all others `None`, and
/// [`parse_slowly`] says what they are.
///
/// Apart, because a caller in a hurry keeps a length in a register, and a [`Progress`] in memory.
#[inline(always)]
fn parse_whole(bytes: &[u8], scan: &Scan, limits: &Limits, index: &mut HeadIndex) -> Option<usize> {
    if !scan.is_fresh() {
        return None;
    }
    let line = read(bytes, limits, index)?;
    if bytes[line.target_start] != b'/' {
        return None;
    }
    let authority = host(index, bytes, line.minor_version).ok()?;
    complete(&line, line.origin_form(authority), index, bytes).ok()?;
    Some(line.head_len)
}

/// Why a head is not taken.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong with it.
    pub error: WireError,
    /// Where it is, if it could be read and only breaks a rule about the whole: `index` then has all of its parts but a host, and
    /// it may be looked at, but not served.
    pub head: Option<Range<usize>>,
}

impl<E: Into<WireError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { error: error.into(), head: None }
    }
}

/// [`parse`] for heads that are incomplete, broken, behind empty lines, or of an unusual form.
///
/// # Errors
/// The first rule that the peer broke.
#[cold]
pub fn parse_slowly<'a>(
    bytes: &'a [u8],
    scan: &mut Scan,
    limits: &Limits,
    index: &'a mut HeadIndex,
) -> Result<Progress<'a>, Refused> {
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
    let Some(line) = read(window, limits, index) else {
        debug_assert!(false, "examined to its end, but not read: {}", window.escape_ascii());
        return Err(Violation::BadRequestLine.into());
    };
    let checked = spans(&line, window, index).and_then(|spans| complete(&line, spans, index, window));
    if let Err(violation) = checked {
        index.set_parts(line.parts_of_refused(window));
        return Err(Refused { error: violation.into(), head: Some(skip..skip + line.head_len) });
    }
    *scan = Scan::default();
    let mut head = Head::new(&window[..line.head_len], index);
    head.skipped = skip;
    Ok(Progress::Done(head))
}

/// Reads a head that has come in frames of HTTP/2 and was written down as one of HTTP/1.1, which is all there is in `bytes`: the rules are
/// the same. Whether there is a body the frames say, and where it ends, so one without a length is as good as chunked.
///
/// # Errors
/// The first rule that the peer broke.
pub fn parse_framed(
    bytes: &[u8],
    limits: &Limits,
    index: &mut HeadIndex,
    has_body: bool,
) -> Result<(), Refused> {
    let parsed = match parse_slowly(bytes, &mut Scan::default(), limits, index) {
        Ok(Progress::Done(head)) if head.consumed() == bytes.len() => Ok(()),
        // The writer ends every head, and writes nothing behind it.
        Ok(_) => return Err(Violation::BadRequestLine.into()),
        Err(refused @ Refused { head: Some(_), .. }) => Err(refused),
        Err(refused) => return Err(refused),
    };
    let parts = *index.parts();
    let framing = match parts.framing {
        _ if !has_body => Framing::None,
        Framing::None => Framing::Chunked,
        framing => framing,
    };
    // The connection is others' as well: it stays, and speaks nothing else.
    let (keep_alive, upgrade) = (true, false);
    let minor_version = HeadParts::HTTP_2;
    let expect_continue = parts.expect_continue && has_body;
    index.set_parts(HeadParts { minor_version, keep_alive, expect_continue, upgrade, framing, ..parts });
    parsed
}

pub(super) fn head_bytes_max(limits: &Limits) -> usize {
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

/// The request line of a head whose bytes are all in their place.
pub(super) struct Line {
    pub(super) method: Method,
    pub(super) method_len: usize,
    pub(super) target_start: usize,
    pub(super) target_len: usize,
    /// The bytes of the target before the first `?`.
    path_len: usize,
    pub(super) minor_version: u8,
    pub(super) head_len: usize,
}

impl Line {
    /// Where the line behind it begins.
    #[inline(always)]
    pub(super) fn end(&self) -> usize {
        self.target_start + self.target_len + " HTTP/1.1\r\n".len()
    }
}

/// Where the parts of a target are, and the authority, from wherever it is.
pub(super) struct Spans {
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    authority: Span,
}

impl Line {
    pub(super) fn target(&self) -> Span {
        span(self.target_start, self.target_len)
    }

    /// What can be said of a head that breaks a rule.
    fn parts_of_refused(&self, window: &[u8]) -> HeadParts {
        let bytes = &window[self.target_start..][..self.target_len];
        let Spans { path, query, .. } = match bytes.first() {
            Some(b'/') => self.origin_form((0, 0)),
            _ => text(bytes)
                .and_then(|target| target::split(target, self.method))
                .map_or(Spans { path: (0, 0), query: None, authority: (0, 0) }, |target| {
                    self.spans_of(&target, window, (0, 0))
                }),
        };
        HeadParts {
            method: self.method,
            minor_version: self.minor_version,
            method_name: span(0, self.method_len),
            target: self.target(),
            path,
            query,
            ..HeadParts::NONE
        }
    }

    /// The spans of a target of another form.
    fn spans_of(&self, target: &target::Parts<'_>, window: &[u8], host: Span) -> Spans {
        let within = |part: &[u8]| {
            let start = part.as_ptr().addr() - window.as_ptr().addr();
            debug_assert!(start + part.len() <= self.head_len, "a part of other bytes");
            span(start, part.len())
        };
        Spans {
            path: within(target.path.as_bytes()),
            query: target.query.map(|query| within(query.as_bytes())),
            authority: target.authority.map_or(host, within),
        }
    }

    /// The spans of a target that begins with a slash.
    #[inline(always)]
    pub(super) fn origin_form(&self, authority: Span) -> Spans {
        let path_end = self.target_start + self.path_len;
        let query = (self.path_len < self.target_len)
            .then(|| span(path_end + 1, self.target_len - self.path_len - 1));
        Spans { path: span(self.target_start, self.path_len), query, authority }
    }
}

/// Positions in a head, which has at most 65535 bytes.
#[inline(always)]
pub(super) fn span(start: usize, len: usize) -> Span {
    (start as u16, (start + len) as u16)
}

/// Takes a request line apart, and says what follows it. The length of the head is not known yet.
#[inline(always)]
pub(super) fn request_line<'a>(window: &'a [u8], limits: &Limits) -> Option<(Line, &'a [u8])> {
    let (method, method_len) = method(window)?;
    let target_start = method_len + 1;
    let (path_len, mut behind) = scan::path(window.get(target_start..)?)?;
    let mut target_len = path_len;
    if behind.first() == Some(&b'?') {
        let query_len;
        (query_len, behind) = scan::target(behind)?;
        target_len += query_len;
    }
    if target_len == 0 || target_len > limits.target_bytes_max {
        return None;
    }
    let (line_end, behind) = behind.split_first_chunk::<11>()?;
    let minor_version = minor_version(line_end)?;
    let line = Line { method, method_len, target_start, target_len, path_len, minor_version, head_len: 0 };
    Some((line, behind))
}

/// Takes a complete head apart; None if it is not one, for whatever reason.
#[inline(always)]
pub(super) fn read(window: &[u8], limits: &Limits, index: &mut HeadIndex) -> Option<Line> {
    let (request, mut line) = request_line(window, limits)?;
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
    (head_len <= head_bytes_max(limits)).then_some(Line { head_len, ..request })
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
    if end == u32::from_le_bytes(*b".0\r\n") {
        return Some(0);
    }
    // A later minor version is read as the highest that is known (RFC 9110 section 2.5).
    matches!(line_end, [.., b'2'..=b'9', b'\r', b'\n']).then_some(1)
}

/// The usual value of Connection.
const KEEP_ALIVE: &[u8] = b" keep-alive";

/// Takes the header line apart that `line` begins with, and notes it. Returns what follows its line end,
/// or what follows the empty line behind it and true.
#[inline(always)]
fn header<'a>(
    window_len: usize,
    line: &'a [u8],
    at: usize,
    index: &mut HeadIndex,
) -> Option<(&'a [u8], bool)> {
    let (slot, name_len) = match Known::of_line(line) {
        Some(known) => known,
        None => (Slot::OTHER, name_len(line)?),
    };
    let mut value = line.get(name_len + 1..)?;
    let mut value_len;
    let behind;
    if slot == Slot::CONNECTION
        && let Some(line_end) = value.strip_prefix(KEEP_ALIVE)
        && line_end.first() == Some(&b'\r')
    {
        // What nearly every client says needs no search for its end.
        (value, value_len, behind) = (&value[1..], KEEP_ALIVE.len() - 1, line_end);
    } else {
        match value {
            // One space is what everybody sends.
            [b' ', first, ..] if *first > b' ' => value = &value[1..],
            _ => value = &value[blanks_at_start(value)..],
        }
        (value_len, behind) = scan::value(value)?;
        if value.get(value_len.wrapping_sub(1)).is_some_and(|&last| last <= b' ') {
            value_len -= blanks_at_end(&value[..value_len]);
        }
    }
    index.note(at, slot, Entry::new(window_len - line.len(), name_len, window_len - value.len(), value_len));
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

/// Notes what a head says besides its headers, or finds the rule that they break together.
#[inline(always)]
pub(super) fn complete(
    line: &Line,
    spans: Spans,
    index: &mut HeadIndex,
    window: &[u8],
) -> Result<(), Violation> {
    let &Line { method, minor_version, .. } = line;
    let head = &window[..line.head_len];
    let framing = framing::framing(index, head, minor_version)?;
    let options = framing::connection_options(index, head);
    let expects = framing::expects_continue(index, head, minor_version)?;
    let Spans { path, query, authority } = spans;
    index.set_parts(HeadParts {
        method,
        minor_version,
        keep_alive: !options.close && (minor_version == 1 || options.keep_alive),
        expect_continue: expects && framing.has_body(),
        upgrade: options.upgrade && may_upgrade(index, line, options, framing),
        method_name: span(0, line.method_len),
        target: line.target(),
        path,
        query,
        authority,
        framing,
    });
    Ok(())
}

/// Whether a request whose Connection header says `upgrade` may be answered by another protocol.
#[cold]
fn may_upgrade(index: &HeadIndex, line: &Line, options: ConnectionOptions, framing: Framing) -> bool {
    index.has(Known::Upgrade)
        && line.minor_version == 1
        && line.method != Method::Head
        && !options.close
        && !framing.has_body()
}

/// Where the parts of a target of any form are.
fn spans(line: &Line, window: &[u8], index: &HeadIndex) -> Result<Spans, Violation> {
    let bytes = &window[line.target_start..][..line.target_len];
    if bytes.first() == Some(&b'/') {
        return Ok(line.origin_form(host(index, window, line.minor_version)?));
    }
    let target = target::split(text(bytes)?, line.method)?;
    // A client that has no authority to name, as for the target *, sends an empty Host (RFC 9112 section 3.2); an
    // absolute target brings its own.
    let host = match index.known_span(Known::Host) {
        Some((start, end)) if start == end && !index.is_repeated(Known::Host) => (start, end),
        _ => host(index, window, line.minor_version)?,
    };
    Ok(line.spans_of(&target, window, host))
}

/// A part of the request line as text. It is ASCII, so this does not fail.
fn text(part: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(part).map_err(|_| Violation::BadTarget)
}

/// The one Host, checked and not empty; empty when HTTP/1.0 has none.
#[inline(always)]
pub(super) fn host(index: &HeadIndex, head: &[u8], minor_version: u8) -> Result<Span, Violation> {
    match index.known_span(Known::Host) {
        None if minor_version == 0 => Ok((0, 0)),
        None => Err(Violation::NoHost),
        Some(_) if index.is_repeated(Known::Host) => Err(Violation::TwoHosts),
        Some((start, end)) if target::is_authority(&head[usize::from(start)..usize::from(end)]) => {
            Ok((start, end))
        }
        Some(_) => Err(Violation::BadHost),
    }
}
