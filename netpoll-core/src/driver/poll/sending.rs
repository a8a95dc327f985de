//! The sending half of the stream engine: what is queued, or what a caller lends.
//!
//! Invariant: a source whose BLOCKED bit is set had a send cut short, and something of it is still queued: the
//! poller's next edge clears the bit. Until then no send is tried.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use super::super::files::FILE_BYTES_PER_FLUSH;
use super::super::{Flushed, IoCounts, Sink};
use super::files::FileSent;
use super::source::{BLOCKED, CONNECTING, FINISHES, SEND_FAILED, Source};
use super::streams::{Register, Streams};
use crate::mem::{Key, Pool, WriteQueue};
use crate::sys;

/// Segments per `sendmsg`. Past this the copy of the vector costs more than a second call.
const SLICES_MAX: usize = 64;

/// What one system call came to.
enum Sent {
    Bytes(usize),
    /// A signal came first.
    Interrupted,
    Failed(io::Error),
}

impl Source {
    /// Counts a send of `asked` bytes, and marks the source when it was cut short.
    #[inline(always)]
    fn sent(&mut self, counts: &mut IoCounts, asked: usize, result: io::Result<usize>) -> Sent {
        counts.syscalls_send += 1;
        match result {
            Ok(bytes) => {
                counts.sent_bytes += bytes as u64;
                if bytes < asked {
                    self.cut_short(counts);
                }
                Sent::Bytes(bytes)
            }
            Err(error) => self.refused(counts, error),
        }
    }

    #[cold]
    pub(in crate::driver) fn cut_short(&mut self, counts: &mut IoCounts) {
        self.bits |= BLOCKED;
        counts.sends_blocked += 1;
    }

    #[cold]
    fn refused(&mut self, counts: &mut IoCounts, error: io::Error) -> Sent {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.cut_short(counts);
                Sent::Bytes(0)
            }
            io::ErrorKind::Interrupted => Sent::Interrupted,
            _ => Sent::Failed(error),
        }
    }

    /// A send failed whose sender does not hear of it: the next flush says so.
    #[cold]
    pub(in crate::driver) fn send_failed(&mut self, error: &io::Error) {
        self.bits |= SEND_FAILED;
        // Every error of the kernel has a number, and none is above 4095 (`MAX_ERRNO`).
        self.number = error.raw_os_error().map_or(0, |number| number as u16);
    }

    /// Sends in as few calls as it takes, until nothing is left or the socket is full.
    #[inline(never)]
    fn send_all(&mut self, counts: &mut IoCounts, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        let mut file_bytes_left = FILE_BYTES_PER_FLUSH;
        while !queue.is_empty() {
            if self.has(BLOCKED | CONNECTING | SEND_FAILED) {
                return self.held_up();
            }
            if let Some(part) = queue.front_file() {
                match self.send_file(counts, part, &mut file_bytes_left, pool) {
                    FileSent::Bytes(bytes) => queue.consume(pool, bytes),
                    FileSent::Stopped(why) => return why,
                }
                continue;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = queue.slices(&mut slices);
            let asked: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let result = if filled < SLICES_MAX && asked < queue.queued_bytes() {
                // A file comes next, and fills the segment that these bytes begin.
                sys::send_vectored_with_more_behind(self.fd.as_fd(), &slices[..filled])
            } else {
                sys::send_vectored(self.fd.as_fd(), &slices[..filled])
            };
            match self.sent(counts, asked, result) {
                Sent::Bytes(bytes) => queue.consume(pool, bytes),
                Sent::Interrupted => {}
                Sent::Failed(error) => return Flushed::Failed(error),
            }
        }
        Flushed::Done
    }

    /// Why nothing is sent now.
    #[cold]
    fn held_up(&self) -> Flushed {
        if self.has(SEND_FAILED) {
            Flushed::Failed(io::Error::from_raw_os_error(self.number.into()))
        } else {
            Flushed::Blocked { in_flight: 0 }
        }
    }
}

impl<R: Register> Streams<R> {
    #[inline]
    pub(super) fn send_queued(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        let Some(source) = self.sources.get_mut(key) else {
            return Flushed::Failed(io::ErrorKind::NotConnected.into());
        };
        if R::MOVES_BYTES {
            return self.send_or_give(key, queue, pool);
        }
        // The usual case first: one block, and all of it leaves.
        if queue.is_single() && !source.has(BLOCKED | CONNECTING | SEND_FAILED) {
            let front = queue.front();
            let asked = front.len();
            let result = sys::send(source.fd.as_fd(), front);
            match source.sent(&mut self.counts, asked, result) {
                Sent::Bytes(bytes) if bytes == asked => {
                    queue.clear(pool);
                    return Flushed::Done;
                }
                Sent::Bytes(bytes) => queue.consume(pool, bytes),
                Sent::Interrupted => {}
                Sent::Failed(error) => return Flushed::Failed(error),
            }
        }
        source.send_all(&mut self.counts, queue, pool)
    }

    /// Has the poller send what is queued, or what it does not take sent as ever.
    #[inline]
    fn send_or_give(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        let Some(source) = self.sources.get_mut(key) else {
            return Flushed::Failed(io::ErrorKind::NotConnected.into());
        };
        if !source.has(BLOCKED | CONNECTING | SEND_FAILED)
            && let Some(flushed) = self.poller.send_soon(key, source, queue, pool, &mut self.counts)
        {
            if source.has(FINISHES) && self.poller.finish_soon(key) {
                source.bits &= !FINISHES;
            }
            return flushed;
        }
        let flushed = source.send_all(&mut self.counts, queue, pool);
        if source.has(BLOCKED) {
            self.poller.await_writable(source.fd.as_fd(), key);
        }
        if source.has(FINISHES) && matches!(flushed, Flushed::Done) {
            source.bits &= !FINISHES;
            self.counts.syscalls_shutdown += 1;
            // As in `finish`.
            let _ = sys::shutdown_write(source.fd.as_fd());
        }
        flushed
    }

    /// Sends back what a callback said; nobody has closed the source in between, or it is too late.
    #[inline(always)]
    pub(super) fn reply<S: Sink>(&mut self, sink: &mut S, key: Key, bytes: &[u8]) {
        let sent = self.send_lent(key, bytes);
        if sent < bytes.len() {
            sink.unsent(key, &bytes[sent..]);
        }
    }

    #[inline(always)]
    pub(super) fn send_lent(&mut self, key: Key, bytes: &[u8]) -> usize {
        let Some(source) = self.sources.get_mut(key) else { return 0 };
        if source.has(BLOCKED | CONNECTING | SEND_FAILED) || self.poller.sends_soon(key) {
            return 0;
        }
        let result = sys::send(source.fd.as_fd(), bytes);
        let sent = source.sent(&mut self.counts, bytes.len(), result);
        if R::MOVES_BYTES && source.has(BLOCKED) {
            self.poller.await_writable(source.fd.as_fd(), key);
        }
        match sent {
            Sent::Bytes(bytes) => bytes,
            Sent::Interrupted => 0,
            Sent::Failed(error) => {
                source.send_failed(&error);
                0
            }
        }
    }
}
