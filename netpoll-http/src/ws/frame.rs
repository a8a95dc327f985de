//! Frames: the header in front of a payload, read and written (RFC 6455 section 5.2).
//!
//! Invariant: a [`Header`] that was read has one reading and may stand where it stands. Each byte is judged when it is there, so a peer that
//! is wrong hears so before it has sent the rest. Server frames are not masked: their bytes are the same for every peer, header and
//! payload behind each other, made once and shared.

use std::io;
use std::ops::Deref;

use bytes::Bytes;

use super::mask::Mask;
use super::violation::Violation;

/// The longest header: two bytes, a length in eight, and a key in four.
pub const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_RSV3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// A text, or its first fragment.
    Text,
    /// Bytes, or their first fragment.
    Binary,
    /// The last word of a direction.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer.
    Pong,
}

impl Opcode {
    #[inline]
    fn of(first: u8) -> Option<Opcode> {
        Some(match first & 0xf {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Close, Ping or Pong: short, whole, and allowed between the fragments of a message.
    #[inline]
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What we read is masked.
    Server,
    /// What we read is not.
    Client,
}

/// What decides which header may come next.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Which side reads.
    pub role: Role,
    /// An extension was agreed on that uses RSV1 (RFC 7692).
    pub compression: bool,
    /// The last fragment of a message has not come yet.
    pub in_message: bool,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub opcode: Opcode,
    /// The message ends with it.
    pub is_last: bool,
    /// RSV1: the message that begins with it is compressed.
    pub is_compressed: bool,
    /// For a server.
    pub mask: Option<Mask>,
    /// Bytes of the payload, at most 2^63 - 1, and 125 of a control frame.
    pub len: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`: it and its length, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The first rule that the peer has broken, and as soon as a byte shows it.
    #[inline]
    pub fn parse(bytes: &[u8], context: Context) -> Result<Option<(Header, usize)>, Violation> {
        let [first, behind @ ..] = bytes else { return Ok(None) };
        let opcode = match *first {
            // Whole messages, which nearly all are.
            0x81 if !context.in_message => Opcode::Text,
            0x82 if !context.in_message => Opcode::Binary,
            _ => first_byte(*first, context)?,
        };
        let [second, behind @ ..] = behind else { return Ok(None) };
        match (context.role, second & MASKED != 0) {
            (Role::Server, false) => return Err(Violation::NotMasked),
            (Role::Client, true) => return Err(Violation::Masked),
            _ => {}
        }
        let (len, behind) = match second & !MASKED {
            len @ 0..=125 => (u64::from(len), behind),
            _ if opcode.is_control() => return Err(Violation::ControlTooLong),
            126 => {
                let Some((len, behind)) = behind.split_first_chunk() else { return Ok(None) };
                let len = u16::from_be_bytes(*len);
                if len <= 125 {
                    return Err(Violation::LengthNotMinimal);
                }
                (u64::from(len), behind)
            }
            _ => {
                let Some((len, behind)) = behind.split_first_chunk() else { return Ok(None) };
                match u64::from_be_bytes(*len) {
                    0..=0xffff => return Err(Violation::LengthNotMinimal),
                    len if len > i64::MAX as u64 => return Err(Violation::LengthTooLarge),
                    len => (len, behind),
                }
            }
        };
        let (mask, behind) = match context.role {
            Role::Server => {
                let Some((key, behind)) = behind.split_first_chunk() else { return Ok(None) };
                (Some(Mask::new(*key)), behind)
            }
            Role::Client => (None, behind),
        };
        let header =
            Header { opcode, is_last: first & FIN != 0, is_compressed: first & RSV1 != 0, mask, len };
        Ok(Some((header, bytes.len() - behind.len())))
    }
}

#[inline(never)]
fn first_byte(first: u8, context: Context) -> Result<Opcode, Violation> {
    let Some(opcode) = Opcode::of(first) else { return Err(Violation::ReservedOpcode) };
    let begins_message = matches!(opcode, Opcode::Text | Opcode::Binary);
    // What is compressed is a message: its first frame says so.
    if first & RSV2_AND_RSV3 != 0 || first & RSV1 != 0 && !(context.compression && begins_message) {
        return Err(Violation::ReservedBits);
    }
    match opcode {
        Opcode::Continuation if !context.in_message => Err(Violation::NothingToContinue),
        Opcode::Text | Opcode::Binary if context.in_message => Err(Violation::MessageInMessage),
        Opcode::Close | Opcode::Ping | Opcode::Pong if first & FIN == 0 => Err(Violation::ControlFragmented),
        _ => Ok(opcode),
    }
}

/// The first byte of a frame that is to be sent: what it is, whether its message ends, whether that is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// A whole text message.
    pub const TEXT: Kind = Kind(FIN | 1);
    /// A whole binary message.
    pub const BINARY: Kind = Kind(FIN | 2);
    /// The last fragment of a message.
    pub const LAST: Kind = Kind(FIN);
    /// A fragment between the first and the last.
    pub const CONTINUATION: Kind = Kind(0);
    /// The last word.
    pub const CLOSE: Kind = Kind(FIN | 8);
    /// A question whether the peer is there.
    pub const PING: Kind = Kind(FIN | 9);
    /// The answer to one.
    pub const PONG: Kind = Kind(FIN | 10);

    /// The first fragment of such a message, which is text or binary.
    ///
    /// # Panics
    /// If it is no text and no binary message.
    #[must_use]
    pub const fn first(self) -> Kind {
        assert!(self.0 & 0xf == 1 || self.0 & 0xf == 2);
        Kind(self.0 & !FIN)
    }

    /// The same of a message whose payload is compressed, if that was agreed on; text or binary.
    ///
    /// # Panics
    /// If it is no text and no binary message.
    #[must_use]
    pub const fn compressed(self) -> Kind {
        assert!(self.0 & 0xf == 1 || self.0 & 0xf == 2);
        Kind(self.0 | RSV1)
    }

    const fn is_control(self) -> bool {
        self.0 & 8 != 0
    }
}

/// A header that is to be sent, inline.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl Head {
    /// The header of a server's frame, with so many bytes of payload: 2, 4 or 10 bytes.
    ///
    /// # Panics
    /// If it is a control frame with more than 125.
    #[inline]
    pub fn new(kind: Kind, payload_bytes: usize) -> Head {
        assert!(
            !kind.is_control() || payload_bytes <= CONTROL_BYTES_MAX,
            "a control frame of {payload_bytes} bytes"
        );
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[0] = kind.0;
        let len = match payload_bytes {
            0..=125 => {
                bytes[1] = payload_bytes as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
                10
            }
        };
        Head { bytes, len }
    }

    /// The header of a client's frame, whose payload is masked with this key. Keys are not to be foreseen: a new random one for each frame.
    ///
    /// # Panics
    /// If it is a control frame with more than 125 bytes.
    pub fn masked(kind: Kind, payload_bytes: usize, key: [u8; 4]) -> Head {
        let mut head = Head::new(kind, payload_bytes);
        head.bytes[1] |= MASKED;
        let len = usize::from(head.len);
        head.bytes[len..len + 4].copy_from_slice(&key);
        head.len += 4;
        head
    }
}

impl Deref for Head {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends a server's frame.
///
/// # Panics
/// If it is a control frame with more than 125 bytes.
#[inline]
pub fn push(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let head = Head::new(kind, payload.len());
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

/// Appends a client's frame, its payload masked with this key.
///
/// # Panics
/// If it is a control frame with more than 125 bytes.
pub fn push_masked(out: &mut Vec<u8>, kind: Kind, payload: &[u8], key: [u8; 4]) {
    let head = Head::masked(kind, payload.len(), key);
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    let start = out.len();
    out.extend_from_slice(payload);
    Mask::new(key).apply(&mut out[start..]);
}

/// The longest header of a server's frame, in front of whose payload it is written.
const SERVER_HEADER_BYTES_MAX: usize = 10;

/// A server's frame under construction: the payload is written behind room for its header, and the two are one piece of
/// memory that any number of connections share. One allocation, if its size is known, and one for the count of who shares it.
#[derive(Debug)]
pub struct Builder {
    /// At least the room for a header.
    bytes: Vec<u8>,
}

impl Builder {
    /// A frame with room for so many bytes of payload; it grows if there are more.
    pub fn with_capacity(payload_bytes: usize) -> Builder {
        let mut bytes = Vec::with_capacity(SERVER_HEADER_BYTES_MAX + payload_bytes);
        bytes.resize(SERVER_HEADER_BYTES_MAX, 0);
        Builder { bytes }
    }

    /// Appends to the payload.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[SERVER_HEADER_BYTES_MAX..]
    }

    /// The frame. That the payload of a text is UTF-8 is the caller's to know.
    ///
    /// # Panics
    /// If it is a control frame with more than 125 bytes.
    pub fn finish(mut self, kind: Kind) -> Bytes {
        let head = Head::new(kind, self.payload().len());
        let start = SERVER_HEADER_BYTES_MAX - head.len();
        self.bytes[start..SERVER_HEADER_BYTES_MAX].copy_from_slice(&head);
        Bytes::from(self.bytes).slice(start..)
    }
}

impl io::Write for Builder {
    #[inline]
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.push(payload);
        Ok(payload.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server's frame that any number of connections share.
///
/// # Panics
/// If it is a control frame with more than 125 bytes.
pub fn shared(kind: Kind, payload: &[u8]) -> Bytes {
    let mut builder = Builder::with_capacity(payload.len());
    builder.push(payload);
    builder.finish(kind)
}
