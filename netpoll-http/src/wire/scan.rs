//! Runs of bytes of one class: how far a name, a target or a value reaches.
//!
//! Eight bytes are looked at together as one word, in which sums and differences set the top bit of every
//! byte that may end the run. Long values are skipped over in blocks first; the compiler makes vector compares of
//! a fold over a block, on every architecture. (Intrinsics have no safe form outside of functions with
//! `target_feature`, and no safe function can call those.)
//!
//! Invariant: the lowest byte that ends a run is marked. Carries and borrows only come from bytes that are marked
//! themselves, so they spoil nothing below. A byte that is marked and does not end the run costs a few
//! instructions, no more.
//!
//! Reads nothing but the slice and costs one to two instructions per byte.

use super::framing::{is_token_byte, is_value_byte};

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x80 * ONES;

/// The bytes of a run, and the input from the byte on that ends it.
pub(super) type Run<'a> = (usize, &'a [u8]);

/// The bytes of a path before its end, a `?`, or what belongs into no target; None when the input ends first.
#[inline(always)]
pub(super) fn path(input: &[u8]) -> Option<Run<'_>> {
    // `?` and DEL differ in one bit.
    let marks = |word: u64| less(word, b'#' + 1) | above(word | (0x40 * ONES), 0x7e) | word;
    run(input, input, marks, is_marked_target_byte, |byte| byte != b'?' && is_target_byte(byte))
}

/// The bytes of a target before what belongs into none; None when the input ends first.
#[inline(always)]
pub(super) fn target(input: &[u8]) -> Option<Run<'_>> {
    let marks = |word: u64| less(word, b'#' + 1) | above(word, 0x7e) | word;
    run(input, input, marks, is_marked_target_byte, is_target_byte)
}

/// Printable ASCII except `#`, which would hide the rest of the target from some readers.
#[inline(always)]
fn is_target_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

/// Those that are marked together with `#`.
#[inline(always)]
fn is_marked_target_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'"')
}

/// The bytes of a token; None when the input ends first.
#[inline(always)]
pub(super) fn token(input: &[u8]) -> Option<Run<'_>> {
    // Most names consist of letters and hyphens.
    let marks = |word: u64| {
        let no_hyphen = low_bits(word ^ (u64::from(b'-') * ONES)) + (0x7f * ONES);
        (no_letter(word) & no_hyphen) | word
    };
    run(input, input, marks, is_token_byte, is_token_byte)
}

/// The letters, digits, hyphens and dots that the input begins with: what most host names consist of.
#[inline(always)]
pub(super) fn plain_host_len(input: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = input[at..].first_chunk() {
        let marked = no_plain_host(u64::from_le_bytes(*word));
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // What is left moves to the low end; the zeros above it are marked.
    let left = input.len() - at;
    let word = match (input.last_chunk(), input.first_chunk(), input.last_chunk()) {
        _ if left == 0 => return at,
        (Some(word), ..) => u64::from_le_bytes(*word) >> (64 - 8 * left),
        (None, Some(low), Some(high)) => {
            u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << (8 * (left - 4))
        }
        _ => input.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    at + no_plain_host(word).trailing_zeros() as usize / 8
}

/// The top bits of the bytes that are neither letters nor digits, hyphens or dots. Exact.
#[inline(always)]
fn no_plain_host(word: u64) -> u64 {
    let low = low_bits(word);
    let from_hyphen = low + (u64::from(0x80 - b'-') * ONES);
    let above_9 = low + (u64::from(0x7f - b'9') * ONES);
    let no_slash = (low ^ (u64::from(b'/') * ONES)) + (0x7f * ONES);
    ((no_letter(word) & (!from_hyphen | above_9 | !no_slash)) | word) & TOPS
}

/// The bytes before the first that no value contains; None when the input ends first.
#[inline(always)]
pub(super) fn value(input: &[u8]) -> Option<Run<'_>> {
    let mut rest = input;
    while let Some((block, behind)) = rest.split_first_chunk::<16>() {
        let ends = |byte: u8| (byte < b' ') | (byte == 0x7f);
        if !block.iter().fold(false, |any, &byte| any | ends(byte)) {
            rest = behind;
            continue;
        }
        let marked = u128::from_le_bytes(block.map(|byte| if ends(byte) { 0xff } else { 0 }));
        rest = &rest[marked.trailing_zeros() as usize / 8..];
        if rest.first() != Some(&b'\t') {
            return Some((input.len() - rest.len(), rest));
        }
        break;
    }
    value_slowly(input, rest)
}

/// The same without blocks: near the end of the input, and from a tab on.
#[inline(never)]
fn value_slowly<'a>(input: &[u8], rest: &'a [u8]) -> Option<Run<'a>> {
    let marks = |word: u64| less(word, b' ') | above(word, 0x7e) | word;
    let (len, end) = run(rest, rest, marks, |byte| byte == b'\t' || byte > 0x7f, is_value_byte)?;
    Some((input.len() - rest.len() + len, end))
}

/// Finds the first byte that is not `within` the run; before `rest` there is none.
///
/// `passes` says as much of a byte that is marked: which of those that may be are `within`.
#[inline(always)]
fn run<'a>(
    input: &'a [u8],
    mut rest: &'a [u8],
    marks: impl Fn(u64) -> u64,
    passes: impl Fn(u8) -> bool,
    within: impl Fn(u8) -> bool,
) -> Option<Run<'a>> {
    while let Some((word, behind)) = rest.split_first_chunk() {
        let marked = marks(u64::from_le_bytes(*word)) & TOPS;
        if marked == 0 {
            rest = behind;
            continue;
        }
        rest = &rest[marked.trailing_zeros() as usize / 8..];
        if rest.first().is_some_and(|&byte| passes(byte)) {
            rest = run_slowly(rest, marks, within)?;
        }
        return Some((input.len() - rest.len(), rest));
    }
    let left = rest.iter().position(|&byte| !within(byte))?;
    let rest = &rest[left..];
    Some((input.len() - rest.len(), rest))
}

/// The same from a byte on that was marked for nothing, as more may be.
#[cold]
fn run_slowly(mut rest: &[u8], marks: impl Fn(u64) -> u64, within: impl Fn(u8) -> bool) -> Option<&[u8]> {
    loop {
        if let Some((word, behind)) = rest.split_first_chunk() {
            let marked = marks(u64::from_le_bytes(*word)) & TOPS;
            if marked == 0 {
                rest = behind;
                continue;
            }
            rest = &rest[marked.trailing_zeros() as usize / 8..];
        }
        let (&byte, behind) = rest.split_first()?;
        if !within(byte) {
            return Some(rest);
        }
        rest = behind;
    }
}

/// Marks ASCII but letters. Without carries and borrows, because hyphens are taken out of it again.
#[inline(always)]
fn no_letter(word: u64) -> u64 {
    let lower = low_bits(word | (0x20 * ONES));
    let from_a = lower + (u64::from(0x80 - b'a') * ONES);
    let above_z = lower + (u64::from(0x7f - b'z') * ONES);
    !from_a | above_z
}

/// Seven bits of each byte: they can be added to without touching the next byte.
#[inline(always)]
fn low_bits(word: u64) -> u64 {
    word & !TOPS
}

/// Marks bytes below `bound`; above 0x7f not all and not only those.
#[inline(always)]
fn less(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(u64::from(bound) * ONES)
}

/// Marks bytes above `bound`; above 0x7f not all and not only those.
#[inline(always)]
fn above(word: u64, bound: u8) -> u64 {
    word.wrapping_add(u64::from(0x7f - bound) * ONES)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Scan = fn(&[u8]) -> Option<Run<'_>>;
    type IsWithin = fn(u8) -> bool;

    /// Each run, and once more what it consists of.
    const RUNS: [(Scan, IsWithin); 4] = [
        (path, |byte| (0x21..0x7f).contains(&byte) && byte != b'?' && byte != b'#'),
        (target, |byte| (0x21..0x7f).contains(&byte) && byte != b'#'),
        (token, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)),
        (value, |byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t'),
    ];

    fn run_len(scan: Scan, input: &[u8]) -> Option<usize> {
        let (len, rest) = scan(input)?;
        assert_eq!(&input[len..], rest);
        Some(len)
    }

    #[test]
    fn every_byte_in_every_place_ends_the_runs_that_it_should() {
        for (scan, is_in) in RUNS {
            for len in 1..100 {
                for at in 0..len {
                    for byte in 0..=255 {
                        let mut input = vec![b'a'; len];
                        input[at] = byte;
                        let expected = if is_in(byte) { None } else { Some(at) };
                        assert_eq!(run_len(scan, &input), expected, "{byte:#x} at {at} of {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_byte_hides_the_one_behind_it() {
        for (scan, is_in) in RUNS {
            for first in 0..=255 {
                for second in 0..=255 {
                    for len in [2, 8, 20, 60] {
                        let mut input = vec![second; len];
                        input[len / 2 - 1] = first;
                        let expected = input.iter().position(|&byte| !is_in(byte));
                        assert_eq!(run_len(scan, &input), expected, "{first:#x} {second:#x}");
                        input[..len / 2 - 1].fill(b'-');
                        let expected = input.iter().position(|&byte| !is_in(byte));
                        assert_eq!(run_len(scan, &input), expected, "{first:#x} {second:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_plain_host_is_as_long_as_its_bytes_say() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        for len in 0..40 {
            assert_eq!(plain_host_len(&vec![b'0'; len]), len);
            for at in 0..len {
                for byte in 0..=255 {
                    let mut input = vec![b'Z'; len];
                    input[at] = byte;
                    let expected = if is_plain(byte) { len } else { at };
                    assert_eq!(plain_host_len(&input), expected, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn nothing_ends_an_empty_run() {
        assert!(RUNS.iter().all(|(scan, _)| scan(b"").is_none()));
    }
}
