//! One stream of a poller: its socket, what is remembered of it, and one `recv`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::super::{HangUp, IoCounts};
use crate::sys;

/// One `recv` asks for this much: the default read quantum, so that one read fills one turn's share.
const SCRATCH_BYTES: usize = 64 * 1024;

pub const READABLE: u16 = 1;
pub const PAUSED: u16 = 1 << 1;
/// The poller reported RDHUP, HUP or ERR: read to the end.
pub const ENDING: u16 = 1 << 2;
/// The end of input was delivered.
pub const ENDED: u16 = 1 << 3;
/// A send was cut short; the next OUT edge matters.
pub const BLOCKED: u16 = 1 << 4;
pub const CONNECTING: u16 = 1 << 5;
/// A send of lent bytes failed; the next flush says so.
pub const SEND_FAILED: u16 = 1 << 6;
/// It was told of the peer's end while it was paused.
const END_TOLD: u16 = 1 << 7;
/// The peer has sent urgent data: a short read is no proof that nothing is left.
pub const URGENT: u16 = 1 << 8;
/// Its input is moved to another stream (`splicing.rs`).
pub const SPLICES: u16 = 1 << 9;
/// The last step of that moved little: the next one that does is the last.
pub const EBBS: u16 = 1 << 10;
/// Its input is announced and taken by its receiver (`announcing.rs`).
pub const ANNOUNCED: u16 = 1 << 12;
/// Of a poller that moves bytes itself: it is not to receive from this stream, whose input the engine reads or splices. It does not
/// tell of urgent data, so a short read proves nothing.
pub const POLLED: u16 = 1 << 13;
/// Our direction is to end behind what was not sent.
pub const FINISHES: u16 = 1 << 14;
/// The poller reported ERR. One that ended before it failed reads as ended: its failure is asked for behind that.
pub const FAILED: u16 = 1 << 11;

/// What a poller reports about one source.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readiness {
    /// Input or a new peer may be there.
    pub readable: bool,
    /// There may be room to send, or a connect has ended.
    pub writable: bool,
    /// RDHUP, HUP or ERR.
    pub ending: bool,
    /// Urgent data came, or is still there.
    pub urgent: bool,
    /// ERR: the stream is dead.
    pub failed: bool,
}

pub struct Source {
    pub fd: OwnedFd,
    /// With `SEND_FAILED` the kernel's error number. With `CONNECTING` the port that is called; zero if it has none.
    pub number: u16,
    pub bits: u16,
}

const _: () = assert!(size_of::<Source>() == 8);

impl Source {
    pub fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    /// True once: its peer has ended, and as it is paused nobody would learn of that.
    pub fn take_end_to_tell(&mut self) -> bool {
        let tell = self.bits & (PAUSED | ENDING | ENDED | END_TOLD) == PAUSED | ENDING;
        if tell {
            self.bits |= END_TOLD;
        }
        tell
    }

    /// Whether bytes may be read from it, and nothing else is to be said about it.
    #[inline]
    pub fn is_plain_stream(&self) -> bool {
        self.bits & !READABLE == 0
    }

    /// The same of one whose input is announced.
    #[inline]
    pub fn is_announced(&self) -> bool {
        self.bits & !READABLE == ANNOUNCED
    }

    /// One `recv`, and what it says about the source.
    #[inline(always)]
    pub fn receive(&mut self, counts: &mut IoCounts, room: &mut [u8]) -> Received {
        counts.syscalls_recv += 1;
        match sys::recv(self.fd.as_fd(), room) {
            Ok(0) => {
                self.bits = (self.bits | ENDED) & !READABLE;
                Received::End(HangUp::Eof)
            }
            Ok(len) => {
                counts.received_bytes += len as u64;
                let drained = sys::TELLS_URGENT && len < room.len() && !self.has(ENDING | URGENT | POLLED);
                self.bits = if drained { self.bits & !READABLE } else { self.bits | READABLE };
                Received::Bytes { len, drained }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.bits &= !READABLE;
                counts.receives_empty += 1;
                Received::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Interrupted,
            Err(error) => {
                self.bits = (self.bits | ENDED) & !READABLE;
                Received::End(HangUp::Failed(error))
            }
        }
    }
}

/// Where reads land: one block per worker, hot in the cache.
pub struct Scratch(Box<[u8]>);

impl Scratch {
    pub fn new() -> Self {
        Self(vec![0; SCRATCH_BYTES].into_boxed_slice())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub fn part(&mut self, start: usize, len: usize) -> &mut [u8] {
        &mut self.0[start..start + len]
    }

    #[inline]
    pub fn get(&self, start: usize, end: usize) -> &[u8] {
        &self.0[start..end]
    }
}

/// What one `recv` came to.
pub enum Received {
    /// So many bytes; `drained` if no more can be there.
    Bytes { len: usize, drained: bool },
    /// There was nothing.
    Nothing,
    /// A signal came first.
    Interrupted,
    /// The peer ended its direction, or the stream failed.
    End(HangUp),
}
