//! What a request head says, and what is remembered of one that is not complete yet.
//!
//! Invariant: a [`Head`] exists only for bytes that passed every check of `parse`, so nobody
//! above looks at them a second time, or to show what was refused ([`Refused`](super::Refused)). It borrows the bytes and the index, which holds everything that was
//! found out about them as positions: a request that outlives the read block copies both.

use std::ops::Deref;

use super::framing::{Framing, connection_options};
use super::headers::{HEADERS_MAX, HeadIndex, Known};

/// Upper bounds of one request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head with its final empty line: more is a 431. Default 16 KiB, at most 65535.
    pub head_bytes_max: usize,
    /// Header lines: more is a 431. Default and maximum 100.
    pub headers_max: usize,
    /// Bytes of the request target: more is a 414. Default 8 KiB (RFC 9112 section 3 asks for 8000).
    pub target_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head_bytes_max: 16 * 1024, headers_max: HEADERS_MAX, target_bytes_max: 8 * 1024 }
    }
}

/// How far a head that is not complete yet has been examined. One per connection, eight bytes.
///
/// It resets itself when a head is done. Offsets count from the first byte that the caller kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes examined; zero until a head was found to be incomplete.
    pub(super) scanned: u16,
    /// Where the target or the version begins that is being examined. `start <= scanned`.
    pub(super) start: u16,
    /// The part of the head that the next byte belongs to.
    pub(super) place: Place,
    /// Header lines begun.
    pub(super) headers: u8,
    /// Empty lines skipped so far.
    pub(super) empty_lines: u8,
}

impl Scan {
    /// Whether nothing of the next head has been seen.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.scanned == 0 && self.empty_lines == 0
    }
}

const _: () = assert!(size_of::<Scan>() <= 8);

/// A place in a head, by what may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// A byte of the method, or the space behind it.
    #[default]
    Method,
    /// A byte of the target, or the space behind it.
    Target,
    /// A byte of the version, or the CR behind it.
    Version,
    /// The LF of a line.
    LineEnd,
    /// The first byte of a header name, or the CR of the empty line.
    LineStart,
    /// A further byte of a header name, or the colon.
    Name,
    /// A byte of a value or of the white space around it, or the CR behind it.
    Value,
    /// The LF of the empty line.
    HeadEnd,
}

/// What a call of [`parse`](super::parse) came to.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The head is not complete. Drop the first `skip` bytes (empty lines, usually none), keep the rest
    /// and call again with more behind it.
    Partial {
        /// Bytes to drop now.
        skip: usize,
    },
    /// A head. Drop [`Head::consumed`] bytes; the body, if any, starts there.
    Done(Head<'a>),
}

/// The methods that a server meets; all others are `Other`, see [`Head::method_name`].
///
/// CONNECT is missing because it is refused: what follows it is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// TRACE
    Trace,
    /// Any other token; case matters, so `get` is here.
    Other,
}

impl Method {
    pub(super) fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"PUT" => Method::Put,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// The name, unless it is one of many.
    #[inline]
    pub(super) fn name(self) -> Option<&'static str> {
        Some(match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Trace => "TRACE",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => return None,
        })
    }
}

/// A valid request head, borrowed from the bytes it came in and the index of its parts.
///
/// The parts can be read as if they were its own fields.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The head from its first byte to the end of its empty line.
    pub bytes: &'a [u8],
    index: &'a HeadIndex,
    /// Bytes of empty lines before the head.
    pub skipped: usize,
}

impl Deref for Head<'_> {
    type Target = HeadParts;

    #[inline]
    fn deref(&self) -> &HeadParts {
        self.index.parts()
    }
}

impl<'a> Head<'a> {
    /// The head that `index` was made for, or a copy of both. Copies nothing.
    #[inline]
    pub fn new(bytes: &'a [u8], index: &'a HeadIndex) -> Self {
        Head { bytes, index, skipped: 0 }
    }

    /// Bytes to drop from the input: the empty lines and the head.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.skipped + self.bytes.len()
    }

    /// The request target as it was sent: ASCII without space, controls or `#`.
    pub fn target(&self) -> &'a str {
        text(self.slice(self.target))
    }

    /// Its bytes.
    #[inline]
    pub fn target_bytes(&self) -> &'a [u8] {
        self.slice(self.target)
    }

    /// The path of the target, still percent-encoded: starts with `/`, or is `*`.
    pub fn path(&self) -> &'a str {
        text(self.path_bytes())
    }

    /// The bytes of the path, which are printable ASCII.
    #[inline]
    pub fn path_bytes(&self) -> &'a [u8] {
        self.slice(self.path)
    }

    /// What follows the first `?`, still encoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query.map(|query| text(self.slice(query)))
    }

    /// The method as it was sent.
    #[inline]
    pub fn method_name(&self) -> &'a str {
        match self.method.name() {
            Some(name) => name,
            None => text(self.slice(self.method_name)),
        }
    }

    /// The host, with its port if it has one: from an absolute target, else from Host. None in HTTP/1.0, and for the
    /// target `*` with an empty Host.
    pub fn authority(&self) -> Option<&'a str> {
        // It was checked to be ASCII; it is empty when there is none.
        std::str::from_utf8(self.slice(self.authority)).ok().filter(|authority| !authority.is_empty())
    }

    /// Its bytes, which are empty when there is none.
    #[inline]
    pub fn authority_bytes(&self) -> &'a [u8] {
        self.slice(self.authority)
    }

    /// The client has said `Connection: keep-alive`, and not `close`. Reads the lines once more.
    #[cold]
    pub fn asks_to_stay(&self) -> bool {
        self.keep_alive && connection_options(self.index, self.bytes).keep_alive
    }

    /// The value of the first header with this name, in any case. O(headers).
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.index.get(self.bytes, name)
    }

    /// The value of the first line of a header whose position was noted. O(1).
    #[inline]
    pub fn known(&self, known: Known) -> Option<&'a [u8]> {
        self.index.known(self.bytes, known)
    }

    /// All headers in order; values may contain bytes above 0x7f.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.index.iter(self.bytes)
    }

    /// What was found out about the bytes, to be cloned next to a copy of [`bytes`](Head::bytes).
    pub fn index(&self) -> &'a HeadIndex {
        self.index
    }

    #[inline]
    fn slice(&self, (start, end): Span) -> &'a [u8] {
        self.bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }
}

/// Bytes of a request line that were checked to be ASCII, so that this does not fail.
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

/// What a head says besides its headers.
#[derive(Clone, Copy, Debug)]
pub struct HeadParts {
    /// The method, if it is one of the usual ones.
    pub method: Method,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1 and the later ones, and [`HTTP_2`](Self::HTTP_2).
    pub minor_version: u8,
    /// Another request may follow: the version's default, as changed by Connection.
    pub keep_alive: bool,
    /// The client asked for `100 Continue` and a body is to come.
    pub expect_continue: bool,
    /// The client asks for another protocol and may have it: HTTP/1.1 with `Connection: upgrade` and an Upgrade
    /// header, without `close`, without a body, and not HEAD. To ignore it is always right.
    pub upgrade: bool,
    pub(super) method_name: Span,
    pub(super) target: Span,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    /// Empty without a host: HTTP/1.0 without Host, or the target `*` with an empty one.
    pub(super) authority: Span,
    /// Where the body ends.
    pub framing: Framing,
}

/// Start and end of a part of the head, which has at most 65535 bytes.
pub(super) type Span = (u16, u16);

impl HeadParts {
    /// Stands for a minor version where a head has come in frames of HTTP/2.
    pub const HTTP_2: u8 = 20;

    /// The parts of no head.
    pub(super) const NONE: HeadParts = HeadParts {
        method: Method::Other,
        minor_version: 0,
        keep_alive: false,
        expect_continue: false,
        upgrade: false,
        method_name: (0, 0),
        target: (0, 0),
        path: (0, 0),
        query: None,
        authority: (0, 0),
        framing: Framing::None,
    };
}
