//! Route patterns: text in, checked parts out, at run time and at compile time alike.
//!
//! A pattern is a raw path in which a whole segment may be `{name}` or, as the last one, `{*name}`.
//! It is checked once, when the route is added; what comes out is trusted from then on.
//!
//! Invariant: `path = literals[0] value[0] literals[1] value[1] .. literals[n]` for every path that
//! matches, with every literal at a segment's edge and no value empty. Everything is `const`, so
//! that `route_table!` can refuse a bad pattern in the compiler. Parsing is O(length).

use super::scan::segment_end;
use crate::message::{PARAMS_MAX, Params};
use std::fmt;

/// Segments that one pattern may have: 32. Two bits each make up [`Pattern`]'s order in a `u64`.
pub const SEGMENTS_MAX: usize = 32;

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// The pattern is empty or does not begin with `/`.
    NoLeadingSlash,
    /// `//` inside the pattern. A slash at the end is fine, and means just that.
    EmptySegment,
    /// A byte that no raw path has: a space, a control, `?`, `#`, or anything beyond ASCII.
    ByteNotInPaths,
    /// A segment that begins with `:` or `*`, the way other routers write parameters.
    ForeignSyntax,
    /// A brace anywhere but at the two ends of a segment.
    BraceInSegment,
    /// `{}` or `{*}`.
    EmptyName,
    /// A name with something else than ASCII letters, digits, `_` and `-`.
    NameNotPlain,
    /// Two parameters with one name.
    DuplicateName,
    /// Something follows `{*rest}`.
    RestNotLast,
    /// More than [`PARAMS_MAX`] parameters.
    TooManyParams,
    /// More than [`SEGMENTS_MAX`] segments.
    TooManySegments,
}

impl Flaw {
    /// A sentence for the person who wrote the pattern.
    pub const fn sentence(self) -> &'static str {
        match self {
            Flaw::NoLeadingSlash => "a pattern begins with `/`",
            Flaw::EmptySegment => "`//` inside a pattern: a segment is empty",
            Flaw::ByteNotInPaths => {
                "a raw path has no spaces, controls, `?`, `#` or non-ASCII characters: percent-encode them"
            }
            Flaw::ForeignSyntax => {
                "a segment begins with `:` or `*`: parameters are written `{name}` and `{*name}`"
            }
            Flaw::BraceInSegment => "a parameter is a whole segment: `{` and `}` stand at its two ends only",
            Flaw::EmptyName => "a parameter needs a name: `{name}` or `{*name}`",
            Flaw::NameNotPlain => "a parameter's name has ASCII letters, digits, `_` and `-` only",
            Flaw::DuplicateName => "two parameters have the same name",
            Flaw::RestNotLast => "`{*name}` takes the rest of the path, so nothing can follow it",
            Flaw::TooManyParams => "a pattern has at most 8 parameters",
            Flaw::TooManySegments => "a pattern has at most 32 segments",
        }
    }
}

const _: () = assert!(PARAMS_MAX == 8 && SEGMENTS_MAX == 32, "the sentences above say so");

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// A checked pattern, cut into literal text and parameters.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'a> {
    text: &'a str,
    /// Text before, between and after the parameters; `literals[..=params]` are meant.
    literals: [&'a str; PARAMS_MAX + 1],
    /// `names[..params]` are meant.
    names: [&'a str; PARAMS_MAX],
    params: usize,
    /// The last parameter is `{*name}`.
    has_rest: bool,
    /// Two bits per segment from the top: 1 literal, 2 `{name}`, 3 `{*name}`. See [`Pattern::order`].
    order: u64,
    /// Hash of all but the names; equal shapes have equal hashes.
    shape: u64,
}

/// A segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(&'a str),
    Param,
    Rest,
}

impl<'a> Pattern<'a> {
    /// Stands where no pattern is, in tables of fixed size.
    pub(super) const NONE: Pattern<'static> = Pattern {
        text: "",
        literals: [""; PARAMS_MAX + 1],
        names: [""; PARAMS_MAX],
        params: 0,
        has_rest: false,
        order: 0,
        shape: 0,
    };

    /// Checks `text` and cuts it up.
    ///
    /// # Errors
    /// The first [`Flaw`]; bytes are looked at first, then the segments from the left.
    pub const fn parse(text: &'a str) -> Result<Pattern<'a>, Flaw> {
        let bytes = text.as_bytes();
        if let Err(flaw) = check_bytes(bytes) {
            return Err(flaw);
        }
        let mut pattern: Pattern<'a> = Pattern { text, shape: FNV_BASIS, ..Pattern::NONE };
        let mut literal_start = 0;
        let mut segments = 0;
        let mut start = 1;
        loop {
            let mut end = start;
            while end < bytes.len() && bytes[end] != b'/' {
                end += 1;
            }
            let is_last = end == bytes.len();
            if segments == SEGMENTS_MAX {
                return Err(Flaw::TooManySegments);
            }
            if pattern.has_rest {
                return Err(Flaw::RestNotLast);
            }
            pattern.shape = fnv(pattern.shape, b'/');
            let kind = if start == end {
                if !is_last {
                    return Err(Flaw::EmptySegment);
                }
                1
            } else if bytes[start] == b'{' && bytes[end - 1] == b'}' {
                let is_rest = bytes[start + 1] == b'*';
                let name = cut(text, if is_rest { start + 2 } else { start + 1 }, end - 1);
                if let Err(flaw) = pattern.push_name(name) {
                    return Err(flaw);
                }
                pattern.literals[pattern.params - 1] = cut(text, literal_start, start);
                pattern.has_rest = is_rest;
                literal_start = end;
                let kind = if is_rest { 3 } else { 2 };
                pattern.shape = fnv(pattern.shape, kind); // a control byte: no literal has it
                kind
            } else {
                if let Err(flaw) = check_literal(bytes, start, end) {
                    return Err(flaw);
                }
                let mut at = start;
                while at < end {
                    pattern.shape = fnv(pattern.shape, bytes[at]);
                    at += 1;
                }
                1
            };
            pattern.order |= (kind as u64) << (62 - 2 * segments);
            segments += 1;
            if is_last {
                pattern.literals[pattern.params] = cut(text, literal_start, end);
                return Ok(pattern);
            }
            start = end + 1;
        }
    }

    const fn push_name(&mut self, name: &'a str) -> Result<(), Flaw> {
        if name.is_empty() {
            return Err(Flaw::EmptyName);
        }
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'{' | b'}' => return Err(Flaw::BraceInSegment),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => at += 1,
                _ => return Err(Flaw::NameNotPlain),
            }
        }
        let mut index = 0;
        while index < self.params {
            if same(self.names[index], name) {
                return Err(Flaw::DuplicateName);
            }
            index += 1;
        }
        if self.params == PARAMS_MAX {
            return Err(Flaw::TooManyParams);
        }
        self.names[self.params] = name;
        self.params += 1;
        Ok(())
    }

    /// The pattern as it was written.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// Names of the parameters, from left to right.
    pub const fn names(&self) -> &[&'a str] {
        self.names.split_at(self.params).0
    }

    /// Whether the pattern has no parameters, so that it matches one path only: its own text.
    pub const fn is_literal(&self) -> bool {
        self.params == 0
    }

    /// Literal text before the first parameter.
    pub(super) const fn prefix(&self) -> &'a str {
        self.literals[0]
    }

    /// Which of several matching patterns wins: the one with the smallest number.
    ///
    /// Two patterns that match one path agree in their kinds of segments up to some place; there the
    /// literal goes before `{name}` before `{*name}`. Comparing the numbers compares just that.
    pub(super) const fn order(&self) -> u64 {
        self.order
    }

    /// Equal for patterns of one shape, and hardly ever for others.
    pub(super) const fn shape(&self) -> u64 {
        self.shape
    }

    /// Whether the two match the same paths, that is, differ in names at most.
    pub const fn has_same_shape(&self, other: &Pattern<'_>) -> bool {
        if self.shape != other.shape || self.params != other.params || self.has_rest != other.has_rest {
            return false;
        }
        let mut index = 0;
        while index <= self.params {
            if !same(self.literals[index], other.literals[index]) {
                return false;
            }
            index += 1;
        }
        true
    }

    /// The segments, from left to right.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        self.text.split('/').skip(1).map(|segment| {
            if segment.starts_with("{*") {
                Segment::Rest
            } else if segment.starts_with('{') {
                Segment::Param
            } else {
                Segment::Literal(segment)
            }
        })
    }

    /// Whether `path`, of which [`Pattern::prefix`] is known to match, matches altogether. Puts the
    /// values into `params`, but does not name them.
    #[inline]
    pub(super) fn matches_behind_prefix(&self, path: &[u8], params: &mut Params) -> bool {
        let mut at = self.literals[0].len();
        for index in 0..self.params {
            let is_rest = self.has_rest && index + 1 == self.params;
            let end = if is_rest { path.len() } else { segment_end(path, at) };
            let literal = self.literals[index + 1].as_bytes();
            if end == at || !(literal.is_empty() || path[end..].starts_with(literal)) {
                return false;
            }
            params.set(index, at, end);
            at = end + literal.len();
        }
        at == path.len()
    }
}

/// Whether `pattern` has no parameters. For patterns that are not checked yet.
pub const fn is_literal(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            return false;
        }
        at += 1;
    }
    true
}

/// `a == b`, in constants as well. From the end: that is where routes differ, and constant evaluation
/// of a long table is mostly this.
pub(super) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = a.len();
    while at > 0 {
        at -= 1;
        if a[at] != b[at] {
            return false;
        }
    }
    true
}

/// `&text[start..end]`, in constants as well.
const fn cut(text: &str, start: usize, end: usize) -> &str {
    text.split_at(end).0.split_at(start).1
}

const fn check_bytes(bytes: &[u8]) -> Result<(), Flaw> {
    if bytes.is_empty() || bytes[0] != b'/' {
        return Err(Flaw::NoLeadingSlash);
    }
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], 0x21..=0x7e) || matches!(bytes[at], b'?' | b'#') {
            return Err(Flaw::ByteNotInPaths);
        }
        at += 1;
    }
    Ok(())
}

const fn check_literal(bytes: &[u8], start: usize, end: usize) -> Result<(), Flaw> {
    if matches!(bytes[start], b':' | b'*') {
        return Err(Flaw::ForeignSyntax);
    }
    let mut at = start;
    while at < end {
        if matches!(bytes[at], b'{' | b'}') {
            return Err(Flaw::BraceInSegment);
        }
        at += 1;
    }
    Ok(())
}

// FNV-1a, 64 bits (draft-eastlake-fnv). Speeds up comparing; equality is always checked.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

const fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}
