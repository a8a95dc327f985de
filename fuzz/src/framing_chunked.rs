//! A chunked body decodes the same however it arrives, and as a model that sees all of it at once.

use netpoll_http::internals::wire::{Decoder, Violation};

/// Data and consumed bytes of a finished body.
type Verdict = Result<Option<(Vec<u8>, usize)>, Violation>;

fn decode(body: &[u8], step: usize, body_bytes_max: u64) -> Verdict {
    let (mut decoder, mut out, mut consumed) = (Decoder::new(), Vec::new(), 0);
    for read in body.chunks(step) {
        let before = out.len();
        let decoded = decoder.decode(read, &mut out, body_bytes_max).map_err(|error| error.violation())?;
        assert!(out.len() - before <= read.len() && out.len() as u64 <= body_bytes_max);
        assert_eq!(decoder.data_bytes(), out.len() as u64);
        consumed += decoded.consumed;
        if decoded.done {
            let trailers = decoder.into_trailers();
            assert!(trailers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("content-length")));
            return Ok(Some((out, consumed)));
        }
        assert_eq!(decoded.consumed, read.len());
    }
    Ok(None)
}

/// The first byte picks the limit and the size of reads, the others are the body.
///
/// # Panics
/// If two ways of cutting disagree, or the decoder and the model do.
pub fn run(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let body_bytes_max = [16, 1 << 20, u64::MAX][usize::from(choice) % 3];
    let whole = decode(body, body.len().max(1), body_bytes_max);
    for step in [1, usize::from(choice >> 2) % 13 + 2] {
        assert_eq!(decode(body, step, body_bytes_max), whole);
    }
    if let Ok(Some(done)) = &whole {
        assert_eq!(Some(done), model(body).as_ref());
    }
    // What the model takes is refused only for a limit.
    if let (Some(_), Err(violation)) = (model(body), &whole) {
        assert!(matches!(
            violation,
            Violation::BodyTooLarge
                | Violation::ChunkExtensionsTooLarge
                | Violation::TooMuchChunkOverhead
                | Violation::TrailersTooLarge
        ));
    }
}

/// RFC 9112 section 7.1, read line by line. None for a body that is broken or not complete.
fn model(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = line(body, &mut at)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 || !extensions_are_valid(&line[digits..]) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        let end = at.checked_add(size)?;
        data.extend_from_slice(body.get(at..end)?);
        if body.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let line = line(body, &mut at)?;
        if line.is_empty() {
            return Some((data, at));
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name_is_token = colon > 0 && line[..colon].iter().copied().all(is_token);
        if !name_is_token || !line[colon + 1..].iter().copied().all(is_text) {
            return None;
        }
    }
}

/// The bytes before the next CRLF; None if a CR or LF stands alone before it.
fn line<'a>(body: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = body.get(*at..)?;
    let end = rest.iter().position(|byte| b"\r\n".contains(byte))?;
    if !rest[end..].starts_with(b"\r\n") {
        return None;
    }
    *at += end + 2;
    Some(&rest[..end])
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`, by recursive descent.
fn extensions_are_valid(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = blanks(rest).strip_prefix(b";") else { return false };
        let Some(after) = token(blanks(after)) else { return false };
        rest = after;
        if let Some(value) = blanks(rest).strip_prefix(b"=") {
            let value = blanks(value);
            let after = if value.first() == Some(&b'"') { quoted(&value[1..]) } else { token(value) };
            let Some(after) = after else { return false };
            rest = after;
        }
    }
    true
}

fn blanks(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(rest.len());
    &rest[end..]
}

fn token(rest: &[u8]) -> Option<&[u8]> {
    let end = rest.iter().position(|&byte| !is_token(byte)).unwrap_or(rest.len());
    (end > 0).then(|| &rest[end..])
}

fn quoted(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'"', after @ ..] => Some(after),
        [b'\\', escaped, after @ ..] if is_text(*escaped) => quoted(after),
        [byte, after @ ..] if *byte != b'\\' && is_text(*byte) => quoted(after),
        _ => None,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
