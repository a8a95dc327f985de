//! Text of peers in lines of logs and metrics: what it cannot do there.
//!
//! Invariant: what is written is printable ASCII. So it cannot end a line or a quoted field, begin another one, or tell a terminal
//! anything, whatever it is.

use super::cursor::Cursor;

/// The most that is shown of one text, in bytes before they are escaped. What is longer is cut, and ends with `...`.
pub const TEXT_BYTES_MAX: usize = 2048;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// How a byte that may not stand for itself is written.
#[derive(Clone, Copy)]
enum Style {
    /// `\x0a`, as Apache and nginx have it.
    Hex,
    /// `\u000a`. A byte above ASCII is shown as the character of that number, as Latin-1 has it.
    Json,
}

/// As part of a quoted field of a line.
#[inline]
pub fn quoted(out: &mut Cursor<'_>, text: &[u8]) {
    escape(out, text, Style::Hex);
}

/// As part of a string of JSON.
#[inline]
pub fn json(out: &mut Cursor<'_>, text: &[u8]) {
    escape(out, text, Style::Json);
}

/// A text of the program as part of a string of JSON: a character above ASCII is that character.
#[cold]
pub fn json_text(out: &mut Cursor<'_>, text: &str) {
    for char in text.chars() {
        if char.is_ascii() {
            json(out, &[char as u8]);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.put(b"\\u");
            out.put(&[12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 15)]));
        }
    }
}

/// The same of a host, which was refused if anything in it would have to be escaped.
#[inline(always)]
pub fn json_host(out: &mut Cursor<'_>, host: &[u8]) {
    debug_assert!(host.iter().all(|byte| is_plain(*byte)));
    match (host.first_chunk::<8>(), host.last_chunk::<8>()) {
        (Some(first), Some(last)) if host.len() <= 16 => {
            _ = out.text_if(host.len(), |place| {
                put_both(place, first, last);
                true
            })
        }
        _ => json(out, host),
    }
}

#[inline(always)]
fn escape(out: &mut Cursor<'_>, text: &[u8], style: Style) {
    // Most texts have nothing to escape.
    if text.len() > TEXT_BYTES_MAX || !out.text_if(text.len(), |place| copied_if_plain(text, place)) {
        out.go_on(|out| escape_slowly(out, text, style));
    }
}

#[cold]
#[inline(never)]
fn escape_slowly(out: &mut Cursor<'_>, text: &[u8], style: Style) {
    let shown = &text[..text.len().min(TEXT_BYTES_MAX)];
    let mut plain = 0;
    for (at, byte) in shown.iter().enumerate() {
        if is_plain(*byte) {
            continue;
        }
        out.text(&shown[plain..at]);
        plain = at + 1;
        let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        match (byte, style) {
            (b'"' | b'\\', _) => out.put(&[b'\\', *byte]),
            (_, Style::Hex) => out.put(&[b'\\', b'x', high, low]),
            (_, Style::Json) => out.put(&[b'\\', b'u', b'0', b'0', high, low]),
        }
    }
    out.text(&shown[plain..]);
    if shown.len() < text.len() {
        out.put(b"...");
    }
}

/// Copies a text into a place of its size, and looks whether all of it stands for itself.
#[inline(always)]
fn copied_if_plain(text: &[u8], place: &mut [u8]) -> bool {
    if text.len() > 16 {
        return copied_long_if_plain(text, place);
    }
    // From both ends: what lies in the middle may come twice.
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        put_both(place, first, last);
        return odd_bytes(*first) | odd_bytes(*last) == 0;
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        put_both(place, first, last);
        let ([a, b, c, d], [e, f, g, h]) = (*first, *last);
        return odd_bytes([a, b, c, d, e, f, g, h]) == 0;
    }
    let mut are_plain = true;
    for (byte, place) in text.iter().zip(place) {
        are_plain &= is_plain(*byte);
        *place = *byte;
    }
    are_plain
}

#[inline(never)]
fn copied_long_if_plain(text: &[u8], place: &mut [u8]) -> bool {
    let (words, _) = text.as_chunks::<8>();
    let (places, _) = place.as_chunks_mut::<8>();
    let mut odd = 0;
    for (word, place) in words.iter().zip(places) {
        odd |= odd_bytes(*word);
        *place = *word;
    }
    if let (Some(last), Some(place)) = (text.last_chunk::<8>(), place.last_chunk_mut::<8>()) {
        odd |= odd_bytes(*last);
        *place = *last;
    }
    odd == 0
}

#[inline(always)]
fn put_both<const N: usize>(place: &mut [u8], first: &[u8; N], last: &[u8; N]) {
    if let Some(place) = place.first_chunk_mut() {
        *place = *first;
    }
    if let Some(place) = place.last_chunk_mut() {
        *place = *last;
    }
}

/// Not zero if one of them does not stand for itself.
///
/// A bit for each byte, of which the lowest is exact, and those above it may be wrong (Warren, "Hacker's Delight", 6-1).
#[inline(always)]
fn odd_bytes(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(bytes);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    // From 0x7f on: one more sets the top bit, unless it was set.
    let beyond = word.wrapping_add(ONES) | word;
    (quote | backslash | control | beyond) & (ONES << 7)
}

/// It stands for itself.
#[inline(always)]
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cursor::written;
    use super::*;

    fn with(write: fn(&mut Cursor<'_>, &[u8]), text: &[u8]) -> String {
        let mut room = vec![0; 16 * 1024];
        let bytes = written(&mut room, |out| write(out, text)).expect("it is short");
        room.truncate(bytes);
        String::from_utf8(room).expect("printable ASCII")
    }

    /// What was escaped as a quoted field.
    fn unquoted(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            match (byte, byte == b'\\') {
                (_, false) => out.push(byte),
                (..) => match bytes.next().expect("something behind a backslash") {
                    b'x' => {
                        let digits = [bytes.next().expect("a digit"), bytes.next().expect("a digit")];
                        let digits = std::str::from_utf8(&digits).expect("ASCII");
                        out.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                    }
                    other => out.push(other),
                },
            }
        }
        out
    }

    #[test]
    fn any_byte_at_any_place_is_plain_or_not_for_itself() {
        let mut copy = [0; 40];
        let mut are_plain = |text: &[u8]| {
            let place = &mut copy[..text.len()];
            let are_plain = copied_if_plain(text, place);
            assert_eq!(place, text);
            are_plain
        };
        for byte in 0..=u8::MAX {
            for length in 1..40 {
                for at in 0..length {
                    let mut text = vec![b'~'; length];
                    text[at] = byte;
                    assert_eq!(are_plain(&text), is_plain(byte), "{byte} at {at} of {length}");
                    text[(at + 1) % length] = 0xff;
                    assert!(!are_plain(&text));
                }
            }
        }
        assert!(are_plain(b""));
    }

    #[test]
    fn hostile_text_is_shown_and_does_nothing() {
        let hostile = b"/\" 200 1\r\n10.0.0.1 - - [\x1b[31m \xff \\";
        assert_eq!(with(quoted, hostile), r#"/\" 200 1\x0d\x0a10.0.0.1 - - [\x1b[31m \xff \\"#);
        assert_eq!(with(json, hostile), r#"/\" 200 1\u000d\u000a10.0.0.1 - - [\u001b[31m \u00ff \\"#);
        let long = with(quoted, &[b'a'; TEXT_BYTES_MAX + 1]);
        assert_eq!((long.len(), long.ends_with("a...")), (TEXT_BYTES_MAX + 3, true));
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_printable_and_says_what_it_was(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = with(quoted, &text);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            // A quote ends nothing: there is an odd number of backslashes before it.
            let bytes = line.as_bytes();
            for (at, _) in line.match_indices('"') {
                let backslashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                prop_assert_eq!(backslashes % 2, 1);
            }
            prop_assert_eq!(unquoted(&line), text);
        }

        #[cfg(feature = "json")]
        #[test]
        fn what_is_escaped_for_json_is_a_string_of_it(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = with(json, &text);
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let read: String = serde_json::from_str(&format!("\"{line}\"")).expect("JSON");
            let expected: String = text.iter().map(|byte| char::from(*byte)).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
