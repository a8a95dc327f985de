//! The receiving half of an open connection: chunks in, messages out.
//!
//! A chunk is what the worker has just read, in memory that all its connections share. Payloads are unmasked there. A message that is whole in a chunk
//! is handed out as a slice of it, without a copy; one that is not is gathered, and memory for that exists while it is incomplete and no longer, so that a
//! connection between two messages owns none, however large the last one was.
//!
//! Invariant: an incomplete message holds at most twice the bytes that have come of it, or 512, and never more than the limit: what a header announces
//! is nothing that memory is taken for. A fragment costs what its payload costs. Behind a Close or a violation nothing is read any more.
//!
//! What has no limit here is how often: pings, empty messages and fragments of a peer that sends nothing else cost time, and there is no clock in this room.

use std::fmt;

use super::close::Close;
use super::frame::{Context, HEADER_BYTES_MAX, Header, Opcode, Role};
use super::mask::Mask;
use super::utf8::{self, Utf8};
use super::violation::Violation;

/// What a peer may send in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message, as they are on the wire, in one frame or in many. Default 1 MiB: what is larger belongs into a request with a body, where
    /// others are not kept waiting behind it. A frame that announces more is refused before its payload.
    pub message_bytes_max: u32,
    /// Fragments of a message, empty ones too. Default 16 384: 1 MiB in pieces of 64 bytes, a size below which nobody who means well sends them. It bounds
    /// the headers of a message as well, to 224 KiB.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { message_bytes_max: 1 << 20, fragments_max: 16_384 }
    }
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// A text message.
    Text(&'e str),
    /// A binary message.
    Binary(&'e [u8]),
    /// A message whose payload is compressed, if that was agreed on: it is neither inflated nor is its text judged. An [`Inflater`](super::Inflater)
    /// makes one of the others of it.
    Compressed {
        /// It is to be a text.
        is_text: bool,
        /// The payload, without the four bytes at its end that RFC 7692 leaves out.
        payload: &'e [u8],
    },
    /// To be answered with a Pong of the same payload; of several the last will do.
    Ping(&'e [u8]),
    /// An answer to a Ping, or to none.
    Pong(&'e [u8]),
    /// The peer's last word, to be answered with a Close of the same code. It is the last event.
    Close(Close<'e>),
    /// The peer has broken a rule: a Close with [its code](Violation::close_code) is to be sent. It is the last event.
    Failed(Violation),
}

/// The least memory that a message is gathered in, unless it is known to be shorter.
const GATHERED_BYTES_MIN: usize = 512;

/// Reads the frames of one connection.
pub struct Reader {
    limits: Limits,
    context: Context,
    phase: Phase,
    /// What the message is that has begun; meaningless when none has.
    is_text: bool,
    is_compressed: bool,
    /// Frames of it so far.
    fragments: u32,
    /// Its text so far, unless it is compressed; the empty one between messages, because each ends behind a character.
    utf8: Utf8,
    /// `gathered` was handed out as far as it is no part of an incomplete message, and is no longer wanted.
    is_spent: bool,
    /// The bytes of an incomplete message, and behind them those of an incomplete control frame in the midst of it.
    gathered: Vec<u8>,
    /// How many of them are the message's; <= gathered.len().
    message_bytes: usize,
}

#[derive(Clone, Copy)]
enum Phase {
    /// In a header, of which so many bytes have come.
    Header { len: u8, bytes: [u8; HEADER_BYTES_MAX] },
    /// In the payload of a frame that began in an earlier chunk.
    Payload { opcode: Opcode, is_last: bool, mask: Option<Mask>, left: u32 },
    /// Behind a Close or a violation.
    Done,
}

const START: Phase = Phase::Header { len: 0, bytes: [0; HEADER_BYTES_MAX] };

// An idle connection has one, and nothing else of this room.
const _: () = assert!(size_of::<Reader>() <= 72);

/// What a chunk has come to.
enum Step<'c> {
    /// All of it is read.
    Starved,
    /// A whole payload, in the chunk.
    Lent {
        opcode: Opcode,
        is_compressed: bool,
        payload: &'c [u8],
    },
    /// A whole message, gathered.
    Message,
    /// A whole control frame, gathered behind the message.
    Control(Opcode),
    Failed(Violation),
}

impl Reader {
    /// A reader behind a handshake. `compression`: permessage-deflate was agreed on.
    pub fn new(role: Role, compression: bool, limits: Limits) -> Reader {
        Reader {
            limits,
            context: Context { role, compression, in_message: false },
            phase: START,
            is_text: false,
            is_compressed: false,
            fragments: 0,
            utf8: Utf8::new(),
            is_spent: false,
            gathered: Vec::new(),
            message_bytes: 0,
        }
    }

    /// The next event of a chunk, which is cut behind it; `None` when all of it was read. The chunk's bytes are changed as far as they are read, and no further:
    /// who stops earlier keeps the rest as it is, and goes on with it later.
    ///
    /// An event is the caller's until the next call. That frees the memory of a message that was gathered; who stops in front of it may
    /// [`release`](Self::release) it.
    #[inline]
    pub fn next<'e, 'c: 'e>(&'e mut self, chunk: &mut &'c mut [u8]) -> Option<Event<'e>> {
        if self.is_spent {
            self.release();
        }
        let (opcode, is_compressed, payload) = match self.step(chunk) {
            Step::Starved => return None,
            Step::Failed(violation) => {
                self.stop();
                return Some(Event::Failed(violation));
            }
            Step::Lent { opcode, is_compressed, payload } => (opcode, is_compressed, payload),
            Step::Message => {
                self.is_spent = true;
                self.message_bytes = 0;
                let opcode = if self.is_text { Opcode::Text } else { Opcode::Binary };
                (opcode, self.is_compressed, self.gathered.as_slice())
            }
            Step::Control(opcode) => {
                self.is_spent = true;
                (opcode, false, &self.gathered[self.message_bytes..])
            }
        };
        let event = match opcode {
            _ if is_compressed => Ok(Event::Compressed { is_text: opcode == Opcode::Text, payload }),
            Opcode::Text => utf8::text(payload).map(Event::Text).ok_or(Violation::BadText),
            Opcode::Binary => Ok(Event::Binary(payload)),
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            Opcode::Close => Close::parse(payload).map(Event::Close),
            Opcode::Continuation => unreachable!("a message has the opcode of its first frame"),
        };
        let event = event.unwrap_or_else(Event::Failed);
        if matches!(event, Event::Close(_) | Event::Failed(_)) {
            self.phase = Phase::Done;
            self.context.in_message = false;
            self.message_bytes = 0;
            self.is_spent = true;
        }
        Some(event)
    }

    /// What a message may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Frees the memory of the message that was handed out last, as the next call of [`next`](Self::next) would.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.is_spent) {
            self.gathered.truncate(self.message_bytes);
            if self.message_bytes == 0 {
                self.gathered = Vec::new();
            }
        }
    }

    /// Reads no more: what follows is dropped, as behind a violation. For a program that has seen one of its own.
    pub fn stop(&mut self) {
        self.phase = Phase::Done;
        self.context.in_message = false;
        self.gathered = Vec::new();
        self.message_bytes = 0;
    }

    /// Nothing is incomplete, no message and no frame, and neither a Close nor a violation has come.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.phase, Phase::Header { len: 0, .. }) && !self.context.in_message
    }

    /// A Close or a violation has come: what follows is dropped.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Memory that an incomplete message takes, in bytes; zero between messages, once the last one was [released](Self::release).
    pub fn gathered_bytes(&self) -> usize {
        self.gathered.capacity()
    }

    /// Reads on until something is complete, or all of the chunk is read.
    #[inline]
    fn step<'c>(&mut self, chunk: &mut &'c mut [u8]) -> Step<'c> {
        loop {
            let header = match self.phase {
                Phase::Header { len: 0, .. } => match Header::parse(chunk, self.context) {
                    Ok(Some((header, header_bytes))) => {
                        if let Some(step) = self.lend(&header, header_bytes, chunk) {
                            return step;
                        }
                        take(chunk, header_bytes);
                        header
                    }
                    Ok(None) if chunk.is_empty() => return Step::Starved,
                    Ok(None) => return self.header_begins(chunk),
                    Err(violation) => return Step::Failed(violation),
                },
                Phase::Header { len, bytes } => match self.header_goes_on(len, bytes, chunk) {
                    Ok(Some(header)) => {
                        self.phase = START;
                        if let Some(step) = self.lend(&header, 0, chunk) {
                            return step;
                        }
                        header
                    }
                    Ok(None) => return Step::Starved,
                    Err(violation) => return Step::Failed(violation),
                },
                Phase::Payload { opcode, is_last, mask, left } => {
                    if chunk.is_empty() {
                        return Step::Starved;
                    }
                    match self.payload_goes_on(opcode, is_last, mask, left, chunk) {
                        Ok(Some(step)) => return step,
                        Ok(None) => continue,
                        Err(violation) => return Step::Failed(violation),
                    }
                }
                Phase::Done => {
                    *chunk = &mut [];
                    return Step::Starved;
                }
            };
            match self.frame_begins(&header, chunk) {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(violation) => return Step::Failed(violation),
            }
        }
    }

    /// The payload of a frame that is no fragment, if all of it is in the chunk, so many bytes behind its start.
    #[inline(always)]
    fn lend<'c>(&self, header: &Header, header_bytes: usize, chunk: &mut &'c mut [u8]) -> Option<Step<'c>> {
        let is_alone = header.is_last && header.opcode != Opcode::Continuation;
        let most = (chunk.len() - header_bytes).min(self.limits.message_bytes_max as usize);
        if !is_alone || header.len > most as u64 {
            return None;
        }
        let payload = &mut take(chunk, header_bytes + header.len as usize)[header_bytes..];
        if let Some(mut mask) = header.mask {
            mask.apply(payload);
        }
        Some(Step::Lent { opcode: header.opcode, is_compressed: header.is_compressed, payload })
    }

    /// Keeps what has come of a header.
    #[cold]
    fn header_begins<'c>(&mut self, chunk: &mut &'c mut [u8]) -> Step<'c> {
        let piece = take(chunk, chunk.len());
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..piece.len()].copy_from_slice(piece);
        self.phase = Phase::Header { len: piece.len() as u8, bytes };
        Step::Starved
    }

    #[cold]
    fn header_goes_on(
        &mut self,
        len: u8,
        mut bytes: [u8; HEADER_BYTES_MAX],
        chunk: &mut &mut [u8],
    ) -> Result<Option<Header>, Violation> {
        let start = usize::from(len);
        let end = HEADER_BYTES_MAX.min(start + chunk.len());
        bytes[start..end].copy_from_slice(&chunk[..end - start]);
        let parsed = Header::parse(&bytes[..end], self.context)?;
        let header_bytes = parsed.map_or(end, |(_, header_bytes)| header_bytes);
        take(chunk, header_bytes - start);
        self.phase = Phase::Header { len: header_bytes as u8, bytes };
        Ok(parsed.map(|(header, _)| header))
    }

    /// Begins a frame that is a fragment, is cut by the end of the chunk, or is too large.
    #[inline(never)]
    fn frame_begins<'c>(
        &mut self,
        header: &Header,
        chunk: &mut &mut [u8],
    ) -> Result<Option<Step<'c>>, Violation> {
        let Header { opcode, is_last, mask, len, .. } = *header;
        if !opcode.is_control() {
            if opcode != Opcode::Continuation {
                self.context.in_message = true;
                self.is_text = opcode == Opcode::Text;
                self.is_compressed = header.is_compressed;
                self.fragments = 0;
            }
            self.fragments += 1;
            if opcode == Opcode::Continuation && self.fragments > self.limits.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            // Neither has more than 63 bits.
            if self.message_bytes as u64 + len > u64::from(self.limits.message_bytes_max) {
                return Err(Violation::MessageTooLarge);
            }
        }
        // 125, or the limit, is the most.
        self.payload_goes_on(opcode, is_last, mask, len as u32, chunk)
    }

    /// Gathers what the chunk has of a payload, of which so much is left.
    fn payload_goes_on<'c>(
        &mut self,
        opcode: Opcode,
        is_last: bool,
        mut mask: Option<Mask>,
        left: u32,
        chunk: &mut &mut [u8],
    ) -> Result<Option<Step<'c>>, Violation> {
        let piece_bytes = chunk.len().min(left as usize);
        let left = left - piece_bytes as u32;
        let piece = take(chunk, piece_bytes);
        if let Some(mask) = &mut mask {
            mask.apply(piece);
        }
        self.phase = if left == 0 { START } else { Phase::Payload { opcode, is_last, mask, left } };
        let is_control = opcode.is_control();
        if !is_control && self.is_text && !self.is_compressed && !self.utf8.feed(piece) {
            return Err(Violation::BadText);
        }
        // What the message, or the control frame behind its bytes, can come to.
        let end = self.gathered.len() + piece_bytes;
        let most = if is_last { end + left as usize } else { self.limits.message_bytes_max as usize };
        if end > self.gathered.capacity() {
            let bytes = (2 * end).max(GATHERED_BYTES_MIN).min(most);
            self.gathered.reserve_exact(bytes - self.gathered.len());
        }
        self.gathered.extend_from_slice(piece);
        if !is_control {
            self.message_bytes = end;
        }
        Ok(match left {
            0 if is_control => Some(Step::Control(opcode)),
            0 if is_last => {
                self.context.in_message = false;
                Some(Step::Message)
            }
            _ => None,
        })
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("limits", &self.limits)
            .field("is_between_messages", &self.is_between_messages())
            .field("is_done", &self.is_done())
            .field("gathered_bytes", &self.gathered_bytes())
            .finish_non_exhaustive()
    }
}

/// Cuts so many bytes off the chunk.
#[inline]
fn take<'c>(chunk: &mut &'c mut [u8], bytes: usize) -> &'c mut [u8] {
    let (piece, rest) = std::mem::take(chunk).split_at_mut(bytes);
    *chunk = rest;
    piece
}
