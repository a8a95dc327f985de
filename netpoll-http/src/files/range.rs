//! Which part of a file is asked for (RFC 9110 section 14).
//!
//! A range that is malformed, of another unit, or of several parts is as good as none: the whole file is a right
//! answer to any of them. Several parts cost a boundary and a head each, and are mostly sent to make a server work for
//! nothing.

use http::header::RANGE;

use crate::message::Request;

/// What to send of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// `first <= last < size`
    Some {
        first: u64,
        last: u64,
    },
    /// The file ends before it.
    Unsatisfiable,
}

/// What a request wants of a file of so many bytes. Only GET has ranges.
pub(super) fn wanted(request: &Request<'_>, size: u64) -> Part {
    if request.method_str() != "GET" {
        return Part::Whole;
    }
    let mut lines = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case(RANGE.as_str()));
    match (lines.next(), lines.next()) {
        (Some((_, value)), None) => parse(value, size).unwrap_or(Part::Whole),
        _ => Part::Whole,
    }
}

/// `None` for what is to be ignored.
fn parse(value: &[u8], size: u64) -> Option<Part> {
    let (unit, spec) = std::str::from_utf8(value).ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // A list may have empty members (RFC 9110 section 5.6.1.2), and this one has to have one that is not.
    let mut specs =
        spec.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
    let (spec, None) = (specs.next()?, specs.next()) else { return None };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = position(last)?;
        return match (suffix, size) {
            (0, _) => Some(Part::Unsatisfiable),
            // There are no bytes to name in an answer.
            (_, 0) => Some(Part::Whole),
            _ => Some(Part::Some { first: size.saturating_sub(suffix), last: size - 1 }),
        };
    }
    let first = position(first)?;
    let last = if last.is_empty() { u64::MAX } else { position(last)? };
    if last < first {
        return None;
    }
    Some(if first >= size { Part::Unsatisfiable } else { Part::Some { first, last: last.min(size - 1) } })
}

/// Digits only; a number of any length, cut at the largest.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, last: u64) -> Option<Part> {
        Some(Part::Some { first, last })
    }

    #[test]
    fn a_range_of_one_part_is_cut_to_the_file() {
        let of_ten = |value: &str| parse(value.as_bytes(), 10);
        assert_eq!(of_ten("bytes=0-0"), part(0, 0));
        assert_eq!(of_ten("bytes=2-5"), part(2, 5));
        assert_eq!(of_ten("BYTES=2-"), part(2, 9));
        assert_eq!(of_ten("bytes= 9-9 "), part(9, 9));
        assert_eq!(of_ten("bytes=5-99999999999999999999999"), part(5, 9));
        assert_eq!(of_ten("bytes=-3"), part(7, 9));
        assert_eq!(of_ten("bytes=-99999999999999999999999"), part(0, 9));
        assert_eq!(of_ten("bytes=0005-07"), part(5, 7));
        for one in ["bytes=2-5,", "bytes=,2-5", "bytes= , 2-5\t,, "] {
            assert_eq!(of_ten(one), part(2, 5), "{one}");
        }
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(parse(value.as_bytes(), 10), Some(Part::Unsatisfiable), "{value}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Some(Part::Unsatisfiable));
        assert_eq!(parse(b"bytes=-1", 0), Some(Part::Whole));
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-2",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=0-1,3-4",
            "bytes=,",
            "bytes=0-1,,2-3",
            "bytes=1 - 2",
            "bytes =1-2",
            "lines=1-2",
            "bytes=0x1-2",
            "bytes:1-2",
            "bytes=--1",
            "bytes=\u{661}-2",
        ] {
            assert_eq!(parse(value.as_bytes(), 10), None, "{value}");
        }
        assert_eq!(parse(b"bytes=\xff-", 10), None);
    }
}
