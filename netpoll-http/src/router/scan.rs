//! Looking at paths eight bytes at a time.
//!
//! Segments are short, often shorter than what a call to `memchr` or `memcmp` costs; most decisions
//! fall on one `u64`. A tag never decides alone: whoever finds one compares the text.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES << 7;
const SLASHES: u64 = ONES * b'/' as u64;

/// From here on `memchr` is the faster one.
const SHORT_BYTES: usize = 32;

/// Where the segment that begins at `start` ends: at the next slash or with the path.
#[inline]
pub(super) fn segment_end(path: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(chunk) = path[at..].first_chunk::<8>() {
        if let Some(index) = first_slash(u64::from_le_bytes(*chunk)) {
            return at + index;
        }
        at += 8;
        if at - start == SHORT_BYTES {
            return memchr::memchr(b'/', &path[at..]).map_or(path.len(), |index| at + index);
        }
    }
    let left = path.len() - at; // 0..=7
    match path.last_chunk::<8>() {
        // What is left moves down; zeros follow it, and they are no slashes.
        Some(chunk) if left > 0 => {
            let word = u64::from_le_bytes(*chunk) >> (64 - 8 * left);
            first_slash(word).map_or(path.len(), |index| at + index)
        }
        Some(_) => at,
        None => path[at..].iter().position(|byte| *byte == b'/').map_or(path.len(), |index| at + index),
    }
}

/// The lowest byte of `word` that is a slash. (The lowest zero byte of `x` is the lowest one that
/// borrows in `x - ONES`; only bytes above it can be wrong.)
#[inline]
fn first_slash(word: u64) -> Option<usize> {
    let x = word ^ SLASHES;
    let zeros = x.wrapping_sub(ONES) & !x & HIGH_BITS;
    if zeros == 0 { None } else { Some(zeros.trailing_zeros() as usize / 8) }
}

/// Mixes the length and eight bytes of a text: the last ones, since the beginnings of paths are alike.
#[doc(hidden)]
#[inline]
pub const fn tag(text: &[u8]) -> u64 {
    let word = if let Some(last) = text.last_chunk::<8>() {
        u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64
    } else if let (Some(first), Some(last)) = (text.first(), text.last()) {
        // One to three bytes: with the one in the middle, that is all of them.
        (*first as u64) << 16 | (text[text.len() / 2] as u64) << 8 | *last as u64
    } else {
        0
    };
    // The multiplier is 2^64 divided by the golden ratio: lengths end up far apart.
    word ^ (text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether two texts of equal tags are equal. The tags have settled the last eight bytes, if the lengths agree.
#[inline]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let (Some(a_first), Some(b_first)) = (a.first_chunk::<8>(), b.first_chunk::<8>()) else {
        // Below eight bytes the tag and the length are the text.
        return a.len() == b.len();
    };
    a.len() == b.len()
        && u64::from_le_bytes(*a_first) == u64::from_le_bytes(*b_first)
        && (a.len() <= 16 || a[8..] == b[8..])
}

/// The first eight bytes, the first one lowest, zeros behind a shorter text.
#[inline]
pub(super) fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_segment_ends_where_a_plain_search_says(
            path in "[a-c/]{0,80}|[a-c]{0,60}/[a-c]{0,10}",
            start in 0usize..80,
        ) {
            let start = start.min(path.len());
            let plain = path[start..].find('/').map_or(path.len(), |index| start + index);
            prop_assert_eq!(segment_end(path.as_bytes(), start), plain);
        }

        #[test]
        fn any_byte_may_stand_beside_a_slash(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let plain = bytes.iter().position(|byte| *byte == b'/').unwrap_or(bytes.len());
            prop_assert_eq!(segment_end(&bytes, 0), plain);
        }

        #[test]
        fn short_texts_of_one_length_have_their_own_tags(a in "[a-z]{1,8}", b in "[a-z]{1,8}") {
            prop_assert_eq!(a == b, a.len() == b.len() && tag(a.as_bytes()) == tag(b.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn equal_tags_and_the_comparison_decide(
            a in prop::collection::vec(0_u8..3, 0..40),
            b in prop::collection::vec(0_u8..3, 0..40),
            at in any::<prop::sample::Index>(),
        ) {
            let says = |a: &[u8], b: &[u8]| tag(a) == tag(b) && is_same(a, b);
            prop_assert_eq!(says(&a, &b), a == b);
            prop_assert!(says(&a, &a.clone()));
            if !a.is_empty() {
                let mut other = a.clone();
                other[at.index(a.len())] ^= 4;
                prop_assert!(!says(&a, &other));
            }
        }
    }

    #[test]
    fn the_head_of_a_short_text_is_padded() {
        assert_eq!(head(b"/a"), u64::from_le_bytes(*b"/a\0\0\0\0\0\0"));
        assert_eq!(head(b"/abcdefgh"), u64::from_le_bytes(*b"/abcdefg"));
    }
}
