//! The Redis protocol (RESP2) as bytes: what a server reads, an array of byte strings, and the answers it gives.
//!
//! Strict: numbers are decimal without sign and leading zeros, lines end with CR LF, and nothing but arrays of byte strings
//! is a request (no inline commands). Whatever else comes is refused, and its connection ends.

/// Words of a request, its name among them.
pub const WORDS_MAX: usize = 1024;
/// Bytes of one word, such as a value.
pub const WORD_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a whole request.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Why something is no request. The text is for the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request of so many bytes.
    Request(usize),
    /// The beginning of one: it is not worth looking again before so many bytes are there.
    Incomplete(usize),
}

/// Reads the request that the input begins with, and puts its words, which lie in the input, into `words`.
pub fn parse<'a>(input: &'a [u8], words: &mut Vec<&'a [u8]>) -> Result<Parsed, Malformed> {
    words.clear();
    let Some((count, mut at)) = number(input, 0, b'*')? else {
        return Ok(Parsed::Incomplete(input.len() + 1));
    };
    if count == 0 {
        return Err(Malformed("a request has a name"));
    }
    if count > WORDS_MAX {
        return Err(Malformed("a request has at most 1024 words"));
    }
    for _ in 0..count {
        let Some((bytes, start)) = number(input, at, b'$')? else {
            return Ok(Parsed::Incomplete(input.len() + 1));
        };
        if bytes > WORD_BYTES_MAX {
            return Err(Malformed("a word has at most 128 KiB"));
        }
        let end = start + bytes;
        if end + 2 > REQUEST_BYTES_MAX {
            return Err(Malformed("a request has at most 256 KiB"));
        }
        let Some(line_end) = input.get(end..end + 2) else { return Ok(Parsed::Incomplete(end + 2)) };
        if line_end != b"\r\n" {
            return Err(Malformed("a word ends with CR LF"));
        }
        words.push(&input[start..end]);
        at = end + 2;
    }
    Ok(Parsed::Request(at))
}

/// A line with a sign and a number, and where the next one begins. `None` if it is not complete.
fn number(input: &[u8], at: usize, sign: u8) -> Result<Option<(usize, usize)>, Malformed> {
    let Some((first, digits)) = input[at..].split_first() else { return Ok(None) };
    if *first != sign {
        return Err(Malformed(if sign == b'*' { "expected '*'" } else { "expected '$'" }));
    }
    let mut value = 0;
    for (index, digit) in digits.iter().enumerate() {
        match digit {
            // Nothing that is allowed has more than seven digits.
            b'0'..=b'9' if index < 7 && (index == 0 || value > 0) => {
                value = 10 * value + usize::from(digit - b'0')
            }
            b'\r' if index > 0 => {
                return match digits.get(index + 1) {
                    Some(b'\n') => Ok(Some((value, at + index + 3))),
                    Some(_) => Err(Malformed("a line ends with CR LF")),
                    None => Ok(None),
                };
            }
            _ => return Err(Malformed("expected a number")),
        }
    }
    Ok(None)
}

/// A request of these words.
pub fn write_request(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_array(out, words.len());
    for word in words {
        write_bytes(out, Some(word));
    }
}

/// The head of an array of so many answers.
pub fn write_array(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    write_decimal(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// A byte string, or nothing.
pub fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return out.extend_from_slice(b"$-1\r\n") };
    out.push(b'$');
    write_decimal(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A number.
pub fn write_integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    write_decimal(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// An error, with its code in front.
pub fn write_error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The digits of a number; several times as fast as by `write!`.
fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}
