//! A toy cipher for `bin/toy_cipher.rs`, and for the tests that send everything through a layer. NO SECURITY WHATSOEVER: the key
//! is in this file. What it has in common with TLS is its shape: a greeting in both directions, records that may be cut
//! anywhere, a state for each direction, and a last word.
//!
//! A record is a kind (1 byte), a length (2 bytes), so many bytes, and a check of them (1 byte). All but the greeting is
//! encrypted, with a stream of bytes that both ends make from the sender's greeting.

use netpoll_core::{Conn, Flow, Input, Layer, Upper};

/// How long the peer may take to greet.
const GREETING_TIME: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of a record around what it carries.
const OVERHEAD: usize = 4;
const SECRET: u64 = 0x7079_6f74;

const GREETING: u8 = b'G';
const DATA: u8 = b'D';
const BYE: u8 = b'B';

/// A stream of bytes that does not repeat for long.
struct Stream(u64);

impl Stream {
    fn mix(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte ^= (self.0 >> 56) as u8;
        }
    }
}

fn check(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0x5a, |sum, byte| sum.rotate_left(1) ^ byte)
}

/// What came in a record.
pub enum Record {
    /// The peer has greeted.
    Greeting,
    /// This many bytes, which lie decrypted behind the first three.
    Data(usize),
    /// The peer says no more.
    Bye,
}

/// Both directions of one end, without input and output.
pub struct Codec {
    sends: Stream,
    receives: Option<Stream>,
    /// The peer has said its last word.
    pub is_over: bool,
}

impl Codec {
    /// One end, whose bytes no other end makes that has another number.
    pub fn new(nonce: u64) -> Self {
        Self { sends: Stream(SECRET ^ nonce), receives: None, is_over: false }
    }

    /// The peer has greeted.
    pub fn is_greeted(&self) -> bool {
        self.receives.is_some()
    }

    fn seal(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) {
        let length = u16::try_from(plain.len()).expect("a layer is given pieces of 16 KiB at most");
        let start = out.len() + 3;
        out.extend([kind, (length >> 8) as u8, length as u8]);
        out.extend_from_slice(plain);
        out.push(check(plain));
        self.sends.mix(&mut out[start..]);
    }

    pub fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend([GREETING, 0, 8]);
        out.extend((self.sends.0 ^ SECRET).to_be_bytes());
        out.push(0);
    }

    pub fn data(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.seal(DATA, plain, out);
    }

    pub fn bye(&mut self, out: &mut Vec<u8>) {
        self.seal(BYE, &[], out);
    }

    /// The first record of these bytes, decrypted where it lies, and how long it is in all; `None` if it is not whole.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Option<(Record, usize)>, &'static str> {
        let [kind, high, low, ..] = *bytes else { return Ok(None) };
        let length = usize::from(high) << 8 | usize::from(low);
        if self.is_over || !matches!((kind, self.is_greeted()), (GREETING, false) | (DATA | BYE, true)) {
            return Err("a record that has no business here");
        }
        let Some(sealed) = bytes.get_mut(3..length + OVERHEAD) else { return Ok(None) };
        let record = match &mut self.receives {
            None => {
                let nonce = sealed[..length].try_into().map_err(|_| "a greeting has eight bytes")?;
                self.receives = Some(Stream(SECRET ^ u64::from_be_bytes(nonce)));
                Record::Greeting
            }
            Some(stream) => {
                stream.mix(sealed);
                if sealed[length] != check(&sealed[..length]) {
                    return Err("a record that was changed, or came out of order");
                }
                self.is_over = kind == BYE;
                if self.is_over { Record::Bye } else { Record::Data(length) }
            }
        };
        Ok(Some((record, length + OVERHEAD)))
    }
}

/// The cipher as a layer. Both ends are the same.
pub struct Cipher {
    codec: Codec,
}

impl Cipher {
    pub fn new(nonce: u64) -> Self {
        Self { codec: Codec::new(nonce) }
    }
}

impl Layer for Cipher {
    fn opened(&mut self, conn: &mut Conn<'_>, _upper: &mut Upper<'_>) -> Flow {
        conn.append(16, |out| self.codec.greet(out));
        conn.set_deadline(GREETING_TIME);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        while !upper.is_open() || upper.takes_more(conn) {
            let bytes = input.bytes_mut();
            let record_bytes = match self.codec.open(bytes) {
                Ok(None) => break,
                Err(_) => return Flow::Reset,
                Ok(Some((record, record_bytes))) => {
                    match record {
                        Record::Greeting => {
                            conn.clear_deadline();
                            upper.open(conn);
                        }
                        Record::Data(length) => {
                            upper.received(conn, &mut bytes[3..3 + length]);
                        }
                        Record::Bye => upper.eof(conn),
                    }
                    record_bytes
                }
            };
            input.advance(record_bytes);
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.append(plain.len() + OVERHEAD, |out| self.codec.data(plain, out));
        Flow::Continue
    }

    fn finish(&mut self, conn: &mut Conn<'_>) {
        conn.append(OVERHEAD, |out| self.codec.bye(out));
    }

    /// Only the last word is an end; without it somebody may have cut the connection.
    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>, _upper: &mut Upper<'_>) -> Flow {
        match (self.codec.is_over, self.codec.is_greeted()) {
            (true, _) => Flow::Continue,
            (_, false) => Flow::Close,
            _ => Flow::Reset,
        }
    }
}
