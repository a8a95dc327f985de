//! The payload of a Close: a code, and a reason behind it (RFC 6455 sections 5.5.1 and 7.4).
//!
//! Invariant: a [`CloseCode`] is one that may be on the wire. 1004, 1005, 1006 and 1015 never are; they are names for what has come without one.

use std::ops::Deref;

use super::utf8;
use super::violation::Violation;

/// A close code that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the server goes down, or the page has been left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: the peer has broken a rule of the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: data of a type that is not taken, binary where only text is.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// 1007: data that is not what its type says, text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// 1008: the peer has broken a rule of the program.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message that is too large.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// 1011: the server has failed.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// 1012: the server starts again; come back.
    pub const RESTART: CloseCode = CloseCode(1012);
    /// 1013: the server has too much to do; come back later.
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);

    /// The code of this number, if it may be on the wire: 1000 to 1003, 1007 to 1014, and 3000 to 4999, which belong to
    /// libraries and programs.
    #[inline]
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a Close says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// None if the payload was empty.
    pub code: Option<CloseCode>,
    /// Empty without a code.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// Reads an unmasked payload.
    ///
    /// # Errors
    /// A payload of one byte, a code that may not be sent, a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Close<'a>, Violation> {
        match payload {
            [] => Ok(Close { code: None, reason: "" }),
            [_] => Err(Violation::BadClosePayload),
            [high, low, reason @ ..] => {
                let code = CloseCode::new(u16::from_be_bytes([*high, *low]));
                Ok(Close {
                    code: Some(code.ok_or(Violation::BadCloseCode)?),
                    reason: utf8::text(reason).ok_or(Violation::BadCloseReason)?,
                })
            }
        }
    }
}

/// The most bytes of a reason: what a control frame holds besides the code.
pub const REASON_BYTES_MAX: usize = 123;

/// The payload of a Close that is to be sent, inline: at most 125 bytes.
#[derive(Clone, Copy, Debug)]
pub struct ClosePayload {
    bytes: [u8; 2 + REASON_BYTES_MAX],
    len: u8,
}

impl ClosePayload {
    /// A code and a reason, which is cut in front of the character that does not fit any more.
    pub fn new(code: CloseCode, reason: &str) -> ClosePayload {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = &reason.as_bytes()[..end];
        let mut bytes = [0; 2 + REASON_BYTES_MAX];
        bytes[..2].copy_from_slice(&code.0.to_be_bytes());
        bytes[2..2 + reason.len()].copy_from_slice(reason);
        ClosePayload { bytes, len: 2 + reason.len() as u8 }
    }
}

impl Deref for ClosePayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_that_may_be_sent_are_those_of_the_registry_and_of_programs() {
        let allowed: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode::new(code).is_some()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_in_front_of_a_character() {
        let payload = ClosePayload::new(CloseCode::RESTART, &"ä".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        let close = Close::parse(&payload).expect("a valid payload");
        assert_eq!((close.code, close.reason), (Some(CloseCode::RESTART), &*"ä".repeat(61)));
    }

    #[test]
    fn a_payload_has_no_byte_or_a_code_and_text() {
        assert_eq!(Close::parse(b""), Ok(Close { code: None, reason: "" }));
        assert_eq!(Close::parse(b"\x03"), Err(Violation::BadClosePayload));
        assert_eq!(Close::parse(b"\x03\xed"), Err(Violation::BadCloseCode), "1005");
        assert_eq!(Close::parse(b"\x03\xe8\xc3"), Err(Violation::BadCloseReason), "a cut character");
        let bye = Close::parse(b"\x03\xe8bye").map(|close| (close.code, close.reason));
        assert_eq!(bye, Ok((Some(CloseCode::NORMAL), "bye")));
    }
}
