//! Whether a file is still what the peer has, or what it expects (RFC 9110 section 13).
//!
//! Invariant: the conditions are looked at in the order of section 13.2.2. A tag that cannot be read matches nothing,
//! and a date that cannot be read is no
//! condition; nor is one that comes on two lines, or with others in a list (sections 13.1.3 and 13.1.4).

use http::HeaderName;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

use crate::message::Request;
use crate::wire::date;

/// What tells one state of a file from another.
pub(super) struct Validators<'a> {
    /// Strong, with its quotes.
    pub(super) tag: &'a str,
    /// Since 1970, negative before it.
    pub(super) modified_seconds: i64,
    /// When the request is answered.
    pub(super) now_seconds: i64,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Send what is asked for, which may be a part.
    Go,
    /// Send it, but all of it: the peer's part belongs to another state.
    Whole,
    /// The peer has it: 304.
    NotModified,
    /// It is not what the peer expects: 412.
    Failed,
}

/// Evaluates the conditions of a request to GET or HEAD a file that exists.
pub(super) fn evaluate(request: &Request<'_>, file: &Validators<'_>) -> Outcome {
    let is_expected = match (has(request, &IF_MATCH), date(request, &IF_UNMODIFIED_SINCE, file)) {
        (true, _) => lists(request, &IF_MATCH, file, Comparison::Strong),
        (false, Some(seconds)) => file.modified_seconds <= seconds,
        (false, None) => true,
    };
    if !is_expected {
        return Outcome::Failed;
    }
    let is_known = match (has(request, &IF_NONE_MATCH), date(request, &IF_MODIFIED_SINCE, file)) {
        (true, _) => lists(request, &IF_NONE_MATCH, file, Comparison::Weak),
        (false, Some(seconds)) => file.modified_seconds <= seconds,
        (false, None) => false,
    };
    if is_known {
        return Outcome::NotModified;
    }
    // A date is not strong enough to put parts together by, and whoever got a tag has no use for one.
    // Of two lines one at least is not the tag.
    if lines(request, &IF_RANGE).all(|tag| tag == file.tag.as_bytes()) { Outcome::Go } else { Outcome::Whole }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Equal to the byte.
    Strong,
    /// Equal in meaning.
    Weak,
}

/// The values of all lines with this name.
fn lines<'r>(request: &'r Request<'_>, name: &HeaderName) -> impl Iterator<Item = &'r [u8]> {
    let all = request.headers().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_str()));
    all.map(|(_, value)| value)
}

fn has(request: &Request<'_>, name: &HeaderName) -> bool {
    request.header(name).is_some()
}

/// Whether the tag of the file is among those that are listed. `*` stands for any.
fn lists(request: &Request<'_>, name: &HeaderName, file: &Validators<'_>, how: Comparison) -> bool {
    lines(request, name).any(|list| list == b"*" || tags(list).any(|tag| tag.is(file.tag, how)))
}

/// One entity tag of a list: with its quotes, without its `W/`.
#[derive(Debug, PartialEq, Eq)]
struct Tag<'a> {
    is_weak: bool,
    opaque: &'a [u8],
}

impl Tag<'_> {
    fn is(&self, strong: &str, how: Comparison) -> bool {
        self.opaque == strong.as_bytes() && (how == Comparison::Weak || !self.is_weak)
    }
}

/// The tags of a list, up to what is none.
fn tags(mut list: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    std::iter::from_fn(move || {
        let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let (is_weak, quoted) = match &list[start..] {
            [b'W', b'/', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let end = quoted.strip_prefix(b"\"")?.iter().position(|byte| *byte == b'"')? + 2;
        let (opaque, rest) = quoted.split_at(end);
        list = rest;
        Some(Tag { is_weak, opaque })
    })
}

/// The date of the one line with this name, in seconds since 1970; `None` without one, with one that is none, and
/// with several lines.
fn date(request: &Request<'_>, name: &HeaderName, file: &Validators<'_>) -> Option<i64> {
    let mut lines = lines(request, name);
    match (lines.next(), lines.next()) {
        (Some(line), None) => date::parse(line, file.now_seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Vec<(bool, &str)> {
        tags(list.as_bytes()).map(|tag| (tag.is_weak, std::str::from_utf8(tag.opaque).unwrap())).collect()
    }

    #[test]
    fn a_list_of_tags_is_read_up_to_what_is_no_tag() {
        assert_eq!(read("\"a\""), [(false, "\"a\"")]);
        assert_eq!(
            read(" W/\"a\" ,, \"b,c\"\t,\"\""),
            [(true, "\"a\""), (false, "\"b,c\""), (false, "\"\"")]
        );
        assert_eq!(read("\"a\", b, \"c\""), [(false, "\"a\"")]);
        for none in ["", "a", "\"a", "W/", "w/\"a\"", "*"] {
            assert_eq!(read(none), [], "{none}");
        }
    }
}
