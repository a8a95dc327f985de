//! UTF-8 that comes in pieces, and is refused at its first wrong byte.
//!
//! A text that is cut anywhere is judged as the whole would be, and as soon: when no continuation could make valid what has come, it is
//! refused, inside a character too (RFC 6455 section 8.1 and the Unicode standard, table 3-7). `simdutf8` judges the middle of long
//! pieces; what it cannot see, a character across their ends, goes byte by byte.
//!
//! Invariant: the state is what may follow, and `Refused` stays. One byte, no memory of what has come.

/// From here on `simdutf8` is faster than looking at words.
const LONG: usize = 64;

/// A text so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    next: Next,
}

/// What may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// A character, or the end.
    #[default]
    Character,
    /// One more continuation byte.
    Last,
    /// Two more.
    Two,
    /// Two more, the first not below A0: shorter forms exist.
    TwoHigh,
    /// Two more, the first not above 9F: surrogates are no characters.
    TwoLow,
    /// Three more.
    Three,
    /// Three more, the first not below 90: shorter forms exist.
    ThreeHigh,
    /// Three more, the first not above 8F: behind U+10FFFF there is nothing.
    ThreeLow,
    /// Nothing: it was no UTF-8.
    Refused,
}

impl Next {
    #[inline]
    fn step(self, byte: u8) -> Next {
        match (self, byte) {
            (Next::Character, 0..=0x7f) | (Next::Last, 0x80..=0xbf) => Next::Character,
            (Next::Character, 0xc2..=0xdf)
            | (Next::Two, 0x80..=0xbf)
            | (Next::TwoHigh, 0xa0..=0xbf)
            | (Next::TwoLow, 0x80..=0x9f) => Next::Last,
            (Next::Character, 0xe0) => Next::TwoHigh,
            (Next::Character, 0xed) => Next::TwoLow,
            (Next::Character, 0xe1..=0xef)
            | (Next::Three, 0x80..=0xbf)
            | (Next::ThreeHigh, 0x90..=0xbf)
            | (Next::ThreeLow, 0x80..=0x8f) => Next::Two,
            (Next::Character, 0xf0) => Next::ThreeHigh,
            (Next::Character, 0xf1..=0xf3) => Next::Three,
            (Next::Character, 0xf4) => Next::ThreeLow,
            _ => Next::Refused,
        }
    }
}

impl Utf8 {
    /// The empty text.
    pub const fn new() -> Utf8 {
        Utf8 { next: Next::Character }
    }

    /// Takes the next piece; whether the text can still become valid.
    #[must_use]
    pub fn feed(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        // A character that an earlier piece has begun.
        while let (true, [byte, behind @ ..]) = (self.next != Next::Character, rest) {
            self.next = self.next.step(*byte);
            if self.next == Next::Refused {
                return false;
            }
            rest = behind;
        }
        if rest.len() >= LONG {
            let (middle, end) = rest.split_at(rest.len() - begun(rest));
            if simdutf8::basic::from_utf8(middle).is_err() {
                self.next = Next::Refused;
                return false;
            }
            rest = end;
        }
        self.next = walk(self.next, rest);
        self.next != Next::Refused
    }

    /// Whether what has come is a whole text: valid, and not inside a character.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next == Next::Character
    }
}

/// A whole text, if it is one.
#[inline]
pub fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() < LONG { std::str::from_utf8(bytes).ok() } else { simdutf8::basic::from_utf8(bytes).ok() }
}

/// Bytes from the last lead byte to the end, if it is one of the last three: a character that may go on behind the end.
fn begun(piece: &[u8]) -> usize {
    let lead = piece.iter().rev().take(3).position(|&byte| byte >= 0xc0);
    lead.map_or(0, |behind| behind + 1)
}

fn walk(mut next: Next, mut rest: &[u8]) -> Next {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let [byte, behind @ ..] = rest {
        if next == Next::Character
            && let Some((word, behind)) = rest.split_first_chunk::<8>()
            && u64::from_le_bytes(*word) & HIGH == 0
        {
            rest = behind;
            continue;
        }
        next = next.step(*byte);
        if next == Next::Refused {
            break;
        }
        rest = behind;
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first byte that no valid text has there, by what `std` says. Its error has the length of what was fine in front of that byte; or one, for a
    /// byte that begins no character.
    fn first_wrong_byte(bytes: &[u8]) -> Option<usize> {
        let error = std::str::from_utf8(bytes).err()?;
        let start = error.valid_up_to();
        let len = error.error_len()?;
        let begins_a_character = matches!(bytes[start], 0xc2..=0xf4);
        Some(if begins_a_character { start + len } else { start })
    }

    /// Pieces of text that are fine, cut, or wrong in a way that matters.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ -~]{0,80}".prop_map(String::into_bytes),
            "[äß€中文😀\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,40}"
                .prop_map(String::into_bytes),
            any::<Vec<char>>().prop_map(|chars| chars.into_iter().collect::<String>().into_bytes()),
        ];
        let wrong = prop::sample::select(vec![
            &b""[..],
            b"",
            b"",
            b"\x80",
            b"\xc0\x80",
            b"\xc1",
            b"\xe0\x9f",
            b"\xed\xa0\x80",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xf5",
            b"\xff",
            b"\xe4\xb8",
            b"\xf0\x9f\x98",
            b"\xc3",
            b"\xc3(",
            b"\xe2\x82(",
            b"\xf0\x9f\x98(",
        ]);
        prop::collection::vec((piece, wrong), 0..5).prop_map(|pieces| {
            pieces.into_iter().flat_map(|(piece, wrong)| [piece, wrong.to_vec()].concat()).collect()
        })
    }

    #[test]
    fn a_character_that_no_byte_can_complete_is_refused_before_it_ends() {
        for beginning in [&b"\xed\xa0"[..], b"\xf4\x90", b"\xe0\x80", b"\xf0\x80", b"\xc0", b"\xf5", b"\x80"]
        {
            assert!(!Utf8::new().feed(beginning), "{beginning:x?}");
        }
    }

    #[test]
    fn an_unfinished_character_is_no_complete_text() {
        for beginning in [&b"\xc3"[..], b"\xe4\xb8", b"\xf0\x9f\x98", b"\xed\x9f", b"\xf4\x8f\xbf"] {
            let mut utf8 = Utf8::new();
            assert!(utf8.feed(beginning) && !utf8.is_complete(), "{beginning:x?}");
        }
    }

    #[test]
    fn a_refused_text_stays_so() {
        let mut utf8 = Utf8::new();
        assert!(!utf8.feed(b"\xff"));
        assert!(!utf8.feed(b"a") && !utf8.feed(&[b'a'; 100]) && !utf8.is_complete());
    }

    proptest! {
        #[test]
        fn every_cut_is_refused_at_the_byte_where_the_whole_is_wrong(
            bytes in texts(),
            cuts in prop::collection::vec(1_usize..100, 1..12),
        ) {
            let wrong = first_wrong_byte(&bytes);
            let (mut utf8, mut at) = (Utf8::new(), 0);
            for cut in cuts.into_iter().cycle() {
                let end = bytes.len().min(at + cut);
                let is_fine = utf8.feed(&bytes[at..end]);
                prop_assert_eq!(is_fine, wrong.is_none_or(|wrong| wrong >= end), "{:x?} {}..{}", bytes, at, end);
                at = end;
                if !is_fine || at == bytes.len() {
                    break;
                }
            }
            if at == bytes.len() {
                prop_assert_eq!(utf8.is_complete(), std::str::from_utf8(&bytes).is_ok());
            }
        }

        #[test]
        fn a_text_cut_in_two_anywhere_is_judged_as_the_whole(bytes in texts()) {
            let wrong = first_wrong_byte(&bytes);
            for cut in 0..=bytes.len() {
                let mut utf8 = Utf8::new();
                prop_assert_eq!(utf8.feed(&bytes[..cut]), wrong.is_none_or(|wrong| wrong >= cut));
                prop_assert_eq!(utf8.feed(&bytes[cut..]), wrong.is_none());
                prop_assert_eq!(utf8.is_complete(), std::str::from_utf8(&bytes).is_ok());
            }
        }

        #[test]
        fn a_whole_text_is_what_std_says(bytes in texts()) {
            prop_assert_eq!(text(&bytes), std::str::from_utf8(&bytes).ok());
        }
    }
}
