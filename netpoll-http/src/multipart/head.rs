//! What a part says of itself: its name, the name of its file, its type.
//!
//! Invariant: a head has one reading. A parameter that comes twice, and an encoding that would have to be undone, are refused, and so is `filename*`, which RFC 7578
//! forbids here, unless it says what `filename` does: clients of .NET send both.

use super::parser::{Violation, malformed};
use crate::wire::framing::is_token_byte;

/// The header section of a part.
#[derive(Debug, PartialEq, Eq)]
pub struct PartHead {
    /// `name`.
    pub name: String,
    /// `filename`, if it is a file.
    pub filename: Option<String>,
    /// The Content-Type, if it says one.
    pub content_type: Option<String>,
}

impl PartHead {
    /// Reads a header section with the empty line behind it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(section: &[u8]) -> Result<Self, Violation> {
        let lines = section.strip_suffix(b"\r\n").unwrap_or(section);
        let (mut disposition, mut content_type) = (None, None);
        let mut rest = lines;
        while !rest.is_empty() {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 2..).unwrap_or_default();
            let (name, value) = field(line)?;
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let place = if is("content-disposition") {
                &mut disposition
            } else if is("content-type") {
                &mut content_type
            } else if is("content-transfer-encoding") {
                let plain = ["7bit", "8bit", "binary"];
                if !plain.iter().any(|plain| value.eq_ignore_ascii_case(plain.as_bytes())) {
                    return Err(malformed("a part has a Content-Transfer-Encoding"));
                }
                continue;
            } else {
                continue;
            };
            if place.replace(value).is_some() {
                return Err(malformed("a part has a header twice"));
            }
        }
        let disposition = disposition.ok_or(malformed("a part has no Content-Disposition"))?;
        let (name, filename) = names(disposition)?;
        let content_type = content_type.map(text).transpose()?;
        Ok(Self { name, filename, content_type })
    }
}

/// A header line: its name, and its value without the blanks around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = memchr::memchr(b':', line).ok_or(malformed("a header of a part has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(malformed("the name of a header of a part is no token"));
    }
    if value.iter().any(|&byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
        return Err(malformed("a header of a part has a control character in it"));
    }
    // No white space but SP and HTAB is left in it.
    Ok((name, value.trim_ascii()))
}

fn text(bytes: &[u8]) -> Result<String, Violation> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("a header of a part is not UTF-8"))?;
    Ok(text.to_owned())
}

/// The name of a part and that of its file, out of a Content-Disposition.
fn names(disposition: &[u8]) -> Result<(String, Option<String>), Violation> {
    let semicolon = memchr::memchr(b';', disposition).unwrap_or(disposition.len());
    if !disposition[..semicolon].trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(malformed("the Content-Disposition of a part is not form-data"));
    }
    let (mut name, mut filename, mut extended) = (None, None, None);
    let mut rest = disposition[semicolon..].trim_ascii();
    while !rest.is_empty() {
        let (parameter, value, behind) =
            parameter(rest).ok_or(malformed("a Content-Disposition is malformed"))?;
        rest = behind;
        let is = |known: &str| parameter.eq_ignore_ascii_case(known.as_bytes());
        let place = match () {
            () if is("name") => &mut name,
            () if is("filename") => &mut filename,
            () if is("filename*") => &mut extended,
            () => continue,
        };
        if place.replace(text(&value)?).is_some() {
            return Err(malformed("a Content-Disposition has a parameter twice"));
        }
    }
    if let Some(extended) = extended
        && (filename.is_none() || decoded(&extended) != filename)
    {
        return Err(malformed(
            "a part has a filename*, which a form may not have, and no filename that is the same",
        ));
    }
    Ok((name.ok_or(malformed("a part has no name"))?, filename))
}

/// The text of an extended parameter (RFC 8187) in UTF-8.
fn decoded(extended: &str) -> Option<String> {
    let mut fields = extended.splitn(3, '\'');
    let (charset, _language, coded) = (fields.next()?, fields.next()?, fields.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(coded.len()), coded.as_bytes());
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let value = |digit: u8| char::from(digit).to_digit(16);
        // Two digits are a byte.
        bytes.push((value(digits[0])? * 16 + value(digits[1])?) as u8);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

/// `; parameter=value`: the parameter, its value, and what is behind that.
pub(super) fn parameter(bytes: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let bytes = bytes.strip_prefix(b";")?.trim_ascii_start();
    let equals = bytes.iter().position(|byte| !is_token_byte(*byte)).filter(|&at| at > 0)?;
    let (parameter, value) = (&bytes[..equals], bytes[equals..].strip_prefix(b"=")?);
    let (value, rest) = match value.strip_prefix(b"\"") {
        Some(quoted) => unquoted(quoted)?,
        None => {
            let end = value.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(value.len());
            if end == 0 {
                return None;
            }
            (value[..end].to_vec(), &value[end..])
        }
    };
    let rest = rest.trim_ascii_start();
    (rest.is_empty() || rest.starts_with(b";")).then_some((parameter, value, rest))
}

/// What stands in front of the closing quote, and what is behind it. A backslash is one, but in front of a quote or another one, which it
/// escapes, as older clients do; `%22` is a quote, as browsers have it.
fn unquoted(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut value, mut rest) = (Vec::new(), bytes);
    loop {
        match rest {
            [b'"', behind @ ..] => return Some((value, behind)),
            [b'\\', escaped @ (b'"' | b'\\'), behind @ ..] => {
                value.push(*escaped);
                rest = behind;
            }
            [b'%', b'2', b'2', behind @ ..] => {
                value.push(b'"');
                rest = behind;
            }
            [byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}
