//! The key of an opening handshake, and the answer to it (RFC 6455 sections 4.1 and 4.2.2).
//!
//! It keeps nobody out: it shows that a server has read the request as a WebSocket one, and not something in between from memory.

use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What both sides hash behind the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const KEY_BYTES: usize = 24;
const ACCEPT_BYTES: usize = 28;

/// Sixteen bytes in base64: a valid `Sec-WebSocket-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key of a client's handshake, of random bytes that no other one has.
    pub fn new(random: [u8; 16]) -> Key {
        Key(base64(&random))
    }

    /// The key that a client has sent; `None` unless it is sixteen bytes in base64, padded and without stray bits.
    pub fn parse(value: &[u8]) -> Option<Key> {
        let key = value.try_into().ok()?;
        // The decoder wants room for three bytes out of four.
        let mut bytes = [0; KEY_BYTES / 4 * 3];
        (STANDARD.decode_slice(value, &mut bytes) == Ok(16)).then_some(Key(key))
    }

    /// As it is on the wire.
    pub fn as_str(&self) -> &str {
        // Base64, so this does not fail.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The answer to it.
    pub fn accept(&self) -> Accept {
        let hash: [u8; 20] = Sha1::new().chain_update(self.0).chain_update(GUID).finalize().into();
        Accept(base64(&hash))
    }
}

/// A `Sec-WebSocket-Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept([u8; ACCEPT_BYTES]);

impl Accept {
    /// As it is on the wire.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Bytes whose base64 is so long.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut text = [0; N];
    assert_eq!(STANDARD.encode_slice(bytes, &mut text), Ok(N));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        let key = Key::parse(b"dGhlIHNhbXBsZSBub25jZQ==").expect("a valid key");
        assert_eq!(key.accept().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key, Key::new(*b"the sample nonce"));
        assert_eq!(key.as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_strict_base64() {
        for key in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZQ===",
            b"dGhlIHNhbXBsZSBub25jZR==",
            b"dGhlIHNhbXBsZSBub25jZTE=",
            b"dGhlIHNhbXBsZSBub25jZTEy",
            b"dGhlIHNhbXBsZSBub25j",
            b"dGhlIHNhbXBsZSBub25jZQ== ",
            b" GhlIHNhbXBsZSBub25jZQ==",
            b"dGhlIHNhbXBsZSBub25j-Q==",
            b"dGhlIHNhbXBsZSBub25j\xffQ==",
        ] {
            assert_eq!(Key::parse(key), None, "{}", key.escape_ascii());
        }
    }
}
