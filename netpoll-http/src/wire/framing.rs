//! Where the body of a request ends, and whether another request may follow.
//!
//! Two parties that disagree about either can be made to see different requests in the same bytes
//! (request smuggling). So each rule here has one reading, and a head that would need a choice is
//! refused: Content-Length next to Transfer-Encoding, two lengths even if equal, any coding but one
//! plain `chunked`. Costs a load per absent header; values are read once.

use super::error::Violation;
use super::headers::{HeadIndex, Known, begins};

/// How the body of a request is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No Content-Length and no Transfer-Encoding: there is no body.
    None,
    /// Exactly that many bytes, at most `i64::MAX`.
    Length(u64),
    /// Chunked, see [`Decoder`](super::Decoder).
    Chunked,
}

impl Framing {
    /// True when body bytes follow the head: chunked, or a length above zero.
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }
}

/// Decides how the body is delimited.
#[inline(always)]
pub(super) fn framing(index: &HeadIndex, head: &[u8], minor_version: u8) -> Result<Framing, Violation> {
    if index.has(Known::TransferEncoding) {
        return chunked(index, head, minor_version);
    }
    match index.known(head, Known::ContentLength) {
        None => Ok(Framing::None),
        Some(_) if index.is_repeated(Known::ContentLength) => Err(Violation::TwoContentLengths),
        Some(value) => content_length(value).map(Framing::Length),
    }
}

/// Reads `1*DIGIT`. No sign, no list, no white space; leading zeros are just zeros.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Violation::BadContentLength);
    }
    let length = value.iter().try_fold(0_u64, |length, digit| {
        length.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|&length| length <= BODY_MAX)
    });
    length.ok_or(Violation::BodyTooLarge)
}

/// The longest body that can be named; a signed 64-bit length is what files and other servers have.
const BODY_MAX: u64 = i64::MAX as u64;

/// Checks that the transfer codings of all lines together are exactly one plain `chunked`.
#[cold]
fn chunked(index: &HeadIndex, head: &[u8], minor_version: u8) -> Result<Framing, Violation> {
    if index.has(Known::ContentLength) {
        return Err(Violation::LengthAndEncoding);
    }
    if minor_version == 0 {
        return Err(Violation::EncodingInHttp10);
    }
    let mut others = false;
    let mut ends_with_chunked = false;
    for coding in index.known_lines(head, Known::TransferEncoding).flat_map(elements) {
        // Nothing may follow `chunked`, an element may not be empty, and parameters are for no coding we take.
        if ends_with_chunked || coding.is_empty() || !coding.iter().copied().all(is_token_byte) {
            return Err(Violation::BadTransferEncoding);
        }
        ends_with_chunked = coding.eq_ignore_ascii_case(b"chunked");
        others |= !ends_with_chunked;
    }
    match (ends_with_chunked, others) {
        (true, false) => Ok(Framing::Chunked),
        (true, true) => Err(Violation::UnknownTransferEncoding),
        (false, _) => Err(Violation::BadTransferEncoding),
    }
}

/// What the Connection header asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// Collects the options of all Connection lines; unknown ones have no effect on us.
#[inline(always)]
pub(super) fn connection_options(index: &HeadIndex, head: &[u8]) -> ConnectionOptions {
    match index.known(head, Known::Connection) {
        None => ConnectionOptions::default(),
        Some(value)
            if value.len() == 10 && begins(value, b"keep-alive") && !index.is_repeated(Known::Connection) =>
        {
            ConnectionOptions { keep_alive: true, ..ConnectionOptions::default() }
        }
        Some(_) => all_connection_options(index, head),
    }
}

#[inline(never)]
fn all_connection_options(index: &HeadIndex, head: &[u8]) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for option in index.known_lines(head, Known::Connection).flat_map(elements) {
        options.close |= option.eq_ignore_ascii_case(b"close");
        options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
    }
    options
}

/// True when the client waits for `100 Continue`; an error for any other expectation.
#[inline(always)]
pub(super) fn expects_continue(index: &HeadIndex, head: &[u8], minor_version: u8) -> Result<bool, Violation> {
    // RFC 9110 section 10.1.1: an expectation in HTTP/1.0 is ignored.
    if minor_version == 0 || !index.has(Known::Expect) {
        return Ok(false);
    }
    expectations(index, head)
}

/// Whether `100-continue` is among the members of all Expect lines; an error if anything else is.
#[cold]
fn expectations(index: &HeadIndex, head: &[u8]) -> Result<bool, Violation> {
    let mut waits = false;
    for member in
        index.known_lines(head, Known::Expect).flat_map(elements).filter(|member| !member.is_empty())
    {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Err(Violation::BadExpectation);
        }
        waits = true;
    }
    Ok(waits)
}

/// The elements of a comma-separated list, without the white space around them; empty ones included.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// True if a comma-separated list has this element, in any case of letters.
pub fn lists(value: &[u8], element: &str) -> bool {
    elements(value).any(|listed| !listed.is_empty() && listed.eq_ignore_ascii_case(element.as_bytes()))
}

/// Cuts SP and HTAB, and nothing else, off both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `tchar` of RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// A byte that a header value may contain: everything but control characters, HTAB excepted.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_decimal_digits_up_to_i64_max() {
        assert_eq!(content_length(b"0"), Ok(0));
        assert_eq!(content_length(b"00000000000000000000000000017"), Ok(17));
        assert_eq!(content_length(b"9223372036854775807"), Ok(i64::MAX as u64));
        for too_large in [&b"9223372036854775808"[..], b"18446744073709551617", b"99999999999999999999999999"]
        {
            assert_eq!(content_length(too_large), Err(Violation::BodyTooLarge));
        }
    }

    #[test]
    fn trimming_spares_bytes_that_only_look_like_white_space() {
        assert_eq!(trim(b" \t a b\t"), b"a b");
        assert_eq!(trim(b"\x85a\xa0"), b"\x85a\xa0");
        assert_eq!(trim(b" \t"), b"");
    }

    #[test]
    fn token_bytes_are_those_of_the_rfc() {
        let tokens: Vec<u8> = (0..=255).filter(|&byte| is_token_byte(byte)).collect();
        assert_eq!(tokens.len(), 26 * 2 + 10 + 15);
        assert!(!tokens.contains(&b':') && !tokens.contains(&b' ') && !tokens.contains(&0x80));
    }
}
