//! The head of a server's answer, read and judged.
//!
//! Invariant: what is no head of HTTP/1.1, or longer than one may be, is found out by its first bytes or as soon as it is too long.

use super::{Client, NotOpened};
use crate::wire::framing::is_token_byte;
use crate::ws::{Asking, Deflate, Key};

/// Bytes of the head of an answer, those of interim answers in front of it included.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What the head of an answer comes to.
pub(super) enum Answer {
    /// More is needed.
    Partial,
    /// It is open, behind so many bytes.
    Open {
        bytes: usize,
        protocol: Option<String>,
        deflate: Option<Deflate>,
    },
    Not(NotOpened),
}

impl Client {
    /// Reads the answer to a request with this key, and passes over interim ones (RFC 9110 section 15.2).
    pub(super) fn read(&self, key: Key, input: &[u8]) -> Answer {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
                let is_too_long = input.len() >= HEAD_BYTES_MAX;
                // Whoever speaks something else is found out by its first bytes.
                let start = b"HTTP/1.1 ";
                let is_other = !start.starts_with(&rest[..rest.len().min(start.len())]);
                return if is_too_long || is_other {
                    Answer::Not(NotOpened::Malformed)
                } else {
                    Answer::Partial
                };
            };
            let bytes = at + end + 4;
            if bytes > HEAD_BYTES_MAX {
                return Answer::Not(NotOpened::Malformed);
            }
            let Some((status, fields)) = head(&rest[..end]) else { return Answer::Not(NotOpened::Malformed) };
            match status {
                101 => return self.judge(key, bytes, &fields),
                100..=199 => at = bytes,
                status => return Answer::Not(NotOpened::Refused(status)),
            }
        }
    }

    fn judge(&self, key: Key, bytes: usize, fields: &[(&str, &[u8])]) -> Answer {
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let asking = Asking { key, protocols: &protocols, compression: self.settings.compression };
        match asking.judge(101, fields.iter().copied()) {
            Ok(agreed) => {
                Answer::Open { bytes, protocol: agreed.protocol.map(str::to_owned), deflate: agreed.deflate }
            }
            Err(why) => Answer::Not(NotOpened::Mistrusted(why.reason())),
        }
    }
}

/// The fields of a head, in their order.
type Fields<'h> = Vec<(&'h str, &'h [u8])>;

/// The status and the fields of a head; `None` if it is none (RFC 9112 sections 4 and 5).
fn head(bytes: &[u8]) -> Option<(u16, Fields<'_>)> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return None;
    }
    let mut lines = lines.into_iter();
    // A reason may be missing, and the space in front of it with some.
    let (status, [] | [b' ', ..]) = lines.next()?.strip_prefix(b"HTTP/1.1 ")?.split_at_checked(3)? else {
        return None;
    };
    if !matches!(status, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return None;
        }
        fields.push((std::str::from_utf8(name).ok()?, value.trim_ascii()));
    }
    Some((status, fields))
}
