//! permessage-deflate (RFC 7692 section 7.2), a message at a time.
//!
//! One inflater and one deflater serve all connections of a worker, because no message refers to another one: that is what is
//! [agreed on](super::extension). So a connection keeps no window, and what many are sent is compressed once.
//!
//! Invariant: what inflates to more than a message may have is given up as soon as it does, and memory is doubled on the way there, so that a payload costs
//! what comes out of it and never more than the limit. Memory of large messages is freed with the next one.

use zlib_rs::{DeflateFlush, Inflate, InflateFlush, Status};

use super::reader::{Event, Limits};
use super::utf8;
use super::violation::Violation;

/// What a sender has left out at the end of a payload, and an empty last block behind it: a payload is whole if the stream ends with that.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// What of it a sender leaves out.
const LEFT_OUT: &[u8] = &[0, 0, 0xff, 0xff];

/// Streams in one payload. One that ends is followed by one more if its sender flushes with last blocks (RFC 7692 section 7.2.3.4); each costs a reset.
const STREAMS_MAX: usize = 64;

/// Memory that is kept from one message to the next.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// The memory that a message is first inflated or deflated into.
const FIRST_BYTES: usize = 4096;

/// Inflates messages of all connections of a worker, one after another. 47 KiB, and up to 64 KiB of the last message.
pub struct Inflater {
    state: Inflate,
    /// The message so far, and zeros or what is left of others behind it.
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Inflater::new()
    }
}

impl Inflater {
    /// One that has inflated nothing.
    pub fn new() -> Inflater {
        Inflater { state: Inflate::new(false, 15), out: Vec::new() }
    }

    /// The message of an [`Event::Compressed`]: a text, bytes, or what is wrong with it. Behind a violation the reader has to be
    /// [stopped](super::Reader::stop).
    pub fn inflate(&mut self, is_text: bool, payload: &[u8], limits: &Limits) -> Event<'_> {
        match self.bytes(payload, limits.message_bytes_max as usize) {
            Ok(len) if is_text => {
                utf8::text(&self.out[..len]).map_or(Event::Failed(Violation::BadText), Event::Text)
            }
            Ok(len) => Event::Binary(&self.out[..len]),
            Err(violation) => Event::Failed(violation),
        }
    }

    /// How many bytes come out.
    fn bytes(&mut self, payload: &[u8], bytes_max: usize) -> Result<usize, Violation> {
        forget(&mut self.out);
        let (mut len, mut streams) = (0, 1);
        // Some send an empty message so.
        if payload.is_empty() {
            return Ok(0);
        }
        self.state.reset(false);
        for (mut rest, is_end) in [(payload, false), (&END[..], true)] {
            loop {
                if len == self.out.len() {
                    // One more than may be: it shows that there are too many.
                    grow(&mut self.out, bytes_max.saturating_add(1));
                }
                let (seen, made) = (self.state.total_in(), self.state.total_out());
                let status = self.state.decompress(rest, &mut self.out[len..], InflateFlush::SyncFlush);
                rest = &rest[(self.state.total_in() - seen) as usize..];
                let made = (self.state.total_out() - made) as usize;
                len += made;
                if len > bytes_max {
                    return Err(Violation::MessageTooLarge);
                }
                match status {
                    // Nothing may be behind the end, which is the sender's if it has left nothing out.
                    Ok(Status::StreamEnd) if rest.is_empty() => return Ok(len),
                    Ok(Status::StreamEnd) if !is_end && streams < STREAMS_MAX => {
                        streams += 1;
                        self.state.reset(false);
                    }
                    // All is read, and there is room for what it has come to.
                    Ok(Status::Ok | Status::BufError) if rest.is_empty() && len < self.out.len() => break,
                    Ok(Status::Ok | Status::BufError) if made > 0 || len == self.out.len() => {}
                    _ => return Err(Violation::BadCompression),
                }
            }
        }
        Err(Violation::BadCompression)
    }
}

/// Compresses messages of all connections of a worker, one after another. 370 KiB, and up to 64 KiB of the last message.
pub struct Deflater {
    state: zlib_rs::Deflate,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Deflater::new()
    }
}

impl Deflater {
    /// The shortest message that is compressed: below that a header and a packet weigh more than what is won.
    pub const BYTES_MIN: usize = 512;
    /// How far back a copy may reach, as a power of two: the most that there is.
    pub const WINDOW_BITS: u8 = 15;

    /// One that has deflated nothing. Level 1 and the largest window: a smaller one takes longer, and what it saves is there once for a worker.
    pub fn new() -> Deflater {
        Deflater { state: zlib_rs::Deflate::new(1, false, Deflater::WINDOW_BITS), out: Vec::new() }
    }

    /// The compressed payload of a message; `None` if it is short, or does not become shorter. Such a message is sent as it is.
    pub fn deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        forget(&mut self.out);
        if payload.len() < Deflater::BYTES_MIN {
            return None;
        }
        self.state.reset();
        let mut rest = payload;
        let mut len = 0;
        loop {
            if len == self.out.len() {
                if len >= payload.len() {
                    self.give_up();
                    return None;
                }
                grow(&mut self.out, payload.len());
            }
            let (seen, made) = (self.state.total_in(), self.state.total_out());
            let status = self.state.compress(rest, &mut self.out[len..], DeflateFlush::SyncFlush);
            rest = &rest[(self.state.total_in() - seen) as usize..];
            len += (self.state.total_out() - made) as usize;
            // There is room left, so all is written.
            if rest.is_empty() && len < self.out.len() {
                return self.out[..len].strip_suffix(LEFT_OUT);
            }
            if status.is_err() {
                self.give_up();
                return None;
            }
        }
    }

    /// Ends a message of which the rest is not wanted. A reset alone does not forget that a block has begun (zlib-rs 0.6.8, level 1), and the next
    /// message would lack the start of its first one.
    #[cold]
    fn give_up(&mut self) {
        let mut nowhere = [0; 1024];
        loop {
            let made = self.state.total_out();
            let status = self.state.compress(&[], &mut nowhere, DeflateFlush::SyncFlush);
            if self.state.total_out() - made < nowhere.len() as u64 {
                if status.is_err() {
                    *self = Deflater::new();
                }
                return;
            }
        }
    }
}

/// Doubles the memory, up to so much.
fn grow(out: &mut Vec<u8>, most: usize) {
    let bytes = (2 * out.len()).max(FIRST_BYTES).min(most);
    out.reserve_exact(bytes - out.len());
    out.resize(bytes, 0);
}

/// Frees what a large message has left.
fn forget(out: &mut Vec<u8>) {
    if out.len() > KEPT_BYTES_MAX {
        *out = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_large_message_is_freed_with_the_next_one() {
        let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new());
        let message: Vec<u8> = (0..100_000).flat_map(|at: u32| format!("{at} ").into_bytes()).collect();
        let limits = Limits { message_bytes_max: 8 << 20, ..Limits::default() };
        let payload = deflater.deflate(&message).expect("a shorter one").to_vec();
        assert_eq!(inflater.inflate(false, &payload, &limits), Event::Binary(&message));
        assert!(inflater.out.capacity() > KEPT_BYTES_MAX && deflater.out.capacity() > KEPT_BYTES_MAX);

        assert_eq!(inflater.inflate(true, b"\x00", &limits), Event::Text(""));
        assert_eq!(deflater.deflate(b"short"), None);
        assert!(inflater.out.capacity() <= KEPT_BYTES_MAX && deflater.out.capacity() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn a_message_behind_one_that_was_given_up_is_whole() {
        let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new());
        let limits = Limits { message_bytes_max: 8 << 20, ..Limits::default() };
        let mut noise = 1_u64;
        let mut noise = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        };
        for bytes in [512, 513, 4096, 5000, 65_536, 70_000, 1_000_000] {
            let incompressible: Vec<u8> = (0..bytes).map(|_| noise()).collect();
            assert_eq!(deflater.deflate(&incompressible), None);
            let message = b"ab".repeat(bytes);
            let payload = deflater.deflate(&message).expect("a shorter one");
            let got = inflater.inflate(false, payload, &limits);
            assert!(got == Event::Binary(&message), "behind {bytes} bytes");
        }
    }
}
