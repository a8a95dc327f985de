//! `Sec-WebSocket-Extensions`, and of what it may offer permessage-deflate (RFC 6455 section 9.1, RFC 7692 section 7.1).
//!
//! A line that is not of the grammar is an error of its sender. An offer that is, and asks for what does not exist, twice for the same or with a value that
//! is none, is an offer that is not taken: there may be another one behind it.
//!
//! Invariant: what is agreed on has no context takeover in either direction. A message is compressed by itself: it costs a peer no memory between two
//! messages, and what many are sent is compressed once.

use std::fmt;

use crate::wire::framing::is_token_byte;

/// The extension that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The most bits of the window that a server may compress with, 8 to 15, if the client has asked for that. Who compresses with more
    /// sends such a client longer messages as they are, which is always allowed.
    pub server_window_bits: Option<u8>,
}

impl fmt::Display for Deflate {
    /// The value of the answer's `Sec-WebSocket-Extensions`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permessage-deflate; server_no_context_takeover; client_no_context_takeover")?;
        match self.server_window_bits {
            Some(bits) => write!(f, "; server_max_window_bits={bits}"),
            None => Ok(()),
        }
    }
}

/// What a client offers that keeps no context, and lets a server choose.
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What is named, with its parameters if they are those of permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// It is permessage-deflate, its parameters exist, come once each and have the values that they may have.
    pub(super) is_deflate: bool,
    pub(super) server_no_context_takeover: bool,
    pub(super) client_no_context_takeover: bool,
    pub(super) server_max_window_bits: Option<u8>,
    /// Without a value: any.
    pub(super) client_max_window_bits: Option<Option<u8>>,
}

/// The line is not of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Shows each element of a line; how many there are.
pub(super) fn elements(line: &[u8], mut each: impl FnMut(Element)) -> Result<usize, Malformed> {
    let mut cursor = Cursor { rest: line };
    let mut count = 0;
    loop {
        cursor.blanks();
        // Empty elements are none (RFC 9110 section 5.6.1.2).
        if !cursor.rest.is_empty() && !cursor.rest.starts_with(b",") {
            each(cursor.element()?);
            count += 1;
        }
        match cursor.rest {
            [] => return Ok(count),
            [b',', behind @ ..] => cursor.rest = behind,
            _ => return Err(Malformed),
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn blanks(&mut self) {
        while let [b' ' | b'\t', behind @ ..] = self.rest {
            self.rest = behind;
        }
    }

    /// Takes this byte, and the white space on both sides.
    fn takes(&mut self, byte: u8) -> bool {
        self.blanks();
        match self.rest {
            [first, behind @ ..] if *first == byte => {
                self.rest = behind;
                self.blanks();
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(self.rest.len());
        let (token, behind) = self.rest.split_at(end);
        self.rest = behind;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// `token *( ";" token [ "=" ( token / quoted-string ) ] )`
    fn element(&mut self) -> Result<Element, Malformed> {
        let is_deflate = self.token()?.eq_ignore_ascii_case(b"permessage-deflate");
        let mut element = Element { is_deflate, ..Element::default() };
        while self.takes(b';') {
            let name = self.token()?;
            let value = if self.takes(b'=') { Some(self.value()?) } else { None };
            element.is_deflate &= is_deflate && element.has(name, value).is_some();
        }
        Ok(element)
    }

    /// A token, quoted or not.
    fn value(&mut self) -> Result<Value, Malformed> {
        let mut value = Value::default();
        let Some(mut quoted) = self.rest.strip_prefix(b"\"") else {
            self.token()?.iter().for_each(|&byte| value.push(byte));
            return Ok(value);
        };
        loop {
            let (byte, behind) = match quoted {
                [b'"', behind @ ..] => {
                    self.rest = behind;
                    return if value.len == 0 { Err(Malformed) } else { Ok(value) };
                }
                [b'\\', byte, behind @ ..] | [byte, behind @ ..] => (*byte, behind),
                [] => return Err(Malformed),
            };
            if !is_token_byte(byte) {
                return Err(Malformed);
            }
            value.push(byte);
            quoted = behind;
        }
    }
}

/// The first bytes of a value: no value that means anything has more than two.
#[derive(Clone, Copy, Default)]
struct Value {
    bytes: [u8; 3],
    len: usize,
}

impl Value {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// 8 to 15, without zeros in front.
    fn window_bits(self) -> Option<u8> {
        match &self.bytes[..self.len] {
            [digit @ b'8'..=b'9'] => Some(digit - b'0'),
            [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
            _ => None,
        }
    }
}

impl Element {
    /// Notes a parameter; `None` if it is none of permessage-deflate's, has come before or has a wrong value.
    fn has(&mut self, name: &[u8], value: Option<Value>) -> Option<()> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("server_no_context_takeover") {
            let again = std::mem::replace(&mut self.server_no_context_takeover, true);
            (!again && value.is_none()).then_some(())
        } else if is("client_no_context_takeover") {
            let again = std::mem::replace(&mut self.client_no_context_takeover, true);
            (!again && value.is_none()).then_some(())
        } else if is("server_max_window_bits") {
            let again = self.server_max_window_bits.replace(value?.window_bits()?);
            again.is_none().then_some(())
        } else if is("client_max_window_bits") {
            let bits = match value {
                Some(value) => Some(value.window_bits()?),
                None => None,
            };
            self.client_max_window_bits.replace(bits).is_none().then_some(())
        } else {
            None
        }
    }

    /// What a server agrees to of this offer.
    pub(super) fn accepted(self) -> Option<Deflate> {
        self.is_deflate.then_some(Deflate { server_window_bits: self.server_max_window_bits })
    }

    /// What a server has agreed to of [`OFFER`]: all of it, and nothing that was not offered.
    pub(super) fn confirmed(self) -> Option<Deflate> {
        let is_offered =
            self.is_deflate && self.server_no_context_takeover && self.client_max_window_bits.is_none();
        is_offered.then_some(Deflate { server_window_bits: self.server_max_window_bits })
    }
}
