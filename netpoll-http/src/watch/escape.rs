//! Text of peers in lines of logs and metrics: what it cannot do there.
//!
//! Invariant: what is written is printable ASCII. So it cannot end a line or a quoted field, begin another one, or tell a terminal
//! anything, whatever it is.

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
pub fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    escape(out, text, Style::Hex);
}

/// As part of a string of JSON.
pub fn json(out: &mut Vec<u8>, text: &[u8]) {
    escape(out, text, Style::Json);
}

/// A text of the program as part of a string of JSON: a character above ASCII is that character.
pub fn json_text(out: &mut Vec<u8>, text: &str) {
    for char in text.chars() {
        if char.is_ascii() {
            json(out, &[char as u8]);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 15)]));
        }
    }
}

fn escape(out: &mut Vec<u8>, text: &[u8], style: Style) {
    let shown = &text[..text.len().min(TEXT_BYTES_MAX)];
    // Most texts have nothing to escape.
    if text.len() == shown.len() && are_plain(shown) {
        return out.extend_from_slice(shown);
    }
    escape_slowly(out, text, shown, style);
}

#[cold]
fn escape_slowly(out: &mut Vec<u8>, text: &[u8], shown: &[u8], style: Style) {
    let mut plain = 0;
    for (at, byte) in shown.iter().enumerate() {
        if is_plain(*byte) {
            continue;
        }
        out.extend_from_slice(&shown[plain..at]);
        plain = at + 1;
        let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        match (byte, style) {
            (b'"' | b'\\', _) => out.extend_from_slice(&[b'\\', *byte]),
            (_, Style::Hex) => out.extend_from_slice(&[b'\\', b'x', high, low]),
            (_, Style::Json) => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]),
        }
    }
    out.extend_from_slice(&shown[plain..]);
    if shown.len() < text.len() {
        out.extend_from_slice(b"...");
    }
}

/// All of them stand for themselves: eight bytes in each step, those at the end perhaps twice.
fn are_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let odd = words.iter().fold(0, |odd, word| odd | odd_bytes(*word));
    let last = match text.last_chunk::<8>() {
        _ if rest.is_empty() => 0,
        Some(last) => odd_bytes(*last),
        None => {
            let mut last = [b' '; 8];
            last[..rest.len()].copy_from_slice(rest);
            odd_bytes(last)
        }
    };
    odd | last == 0
}

/// Not zero if one of them does not stand for itself.
///
/// A bit for each byte, of which the lowest is exact, and those above it may be wrong (Warren, "Hacker's Delight", 6-1).
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
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(write: fn(&mut Vec<u8>, &[u8]), text: &[u8]) -> String {
        let mut out = Vec::new();
        write(&mut out, text);
        String::from_utf8(out).expect("printable ASCII")
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
        for byte in 0..=u8::MAX {
            for length in 1..20 {
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
