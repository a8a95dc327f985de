//! The sending half of the stream engine: what is queued, or what a caller lends.
//!
//! Invariant: a source whose BLOCKED bit is set had a send cut short, and something of it is still queued: the
//! poller's next edge clears the bit. Until then no send is tried.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use super::files::{FILE_BYTES_PER_FLUSH, FileSent};
use super::readiness::{BLOCKED, CONNECTING, Register, SEND_FAILED, Source, Streams};
use super::{Flushed, IoCounts};
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
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Sent::Interrupted,
            Err(error) => return Sent::Failed(error),
        };
        counts.sent_bytes += bytes as u64;
        if bytes < asked {
            self.bits |= BLOCKED;
            counts.sends_blocked += 1;
        }
        Sent::Bytes(bytes)
    }

    /// Why nothing is sent now.
    #[cold]
    fn held_up(&self) -> Flushed {
        if self.has(SEND_FAILED) {
            Flushed::Failed(io::Error::from_raw_os_error(self.errno.into()))
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
        let mut file_bytes_left = FILE_BYTES_PER_FLUSH;
        while !queue.is_empty() {
            if source.has(BLOCKED | CONNECTING | SEND_FAILED) {
                return source.held_up();
            }
            let (asked, result);
            if queue.is_single() {
                let front = queue.front();
                (asked, result) = (front.len(), sys::send(source.fd.as_fd(), front));
            } else if let Some(part) = queue.front_file() {
                match source.send_file(&mut self.counts, part, &mut file_bytes_left, pool) {
                    FileSent::Bytes(bytes) => queue.consume(pool, bytes),
                    FileSent::Stopped(why) => return why,
                }
                continue;
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let filled = queue.slices(&mut slices);
                asked = slices[..filled].iter().map(|slice| slice.len()).sum();
                result = if filled < SLICES_MAX && asked < queue.queued_bytes() {
                    // A file comes next, and fills the segment that these bytes begin.
                    sys::send_vectored_with_more_behind(source.fd.as_fd(), &slices[..filled])
                } else {
                    sys::send_vectored(source.fd.as_fd(), &slices[..filled])
                };
            }
            match source.sent(&mut self.counts, asked, result) {
                Sent::Bytes(bytes) => queue.consume(pool, bytes),
                Sent::Interrupted => {}
                Sent::Failed(error) => return Flushed::Failed(error),
            }
        }
        Flushed::Done
    }

    #[inline]
    pub(super) fn send_lent(&mut self, key: Key, bytes: &[u8]) -> usize {
        let Some(source) = self.sources.get_mut(key) else { return 0 };
        while !source.has(BLOCKED | CONNECTING | SEND_FAILED) {
            let result = sys::send(source.fd.as_fd(), bytes);
            match source.sent(&mut self.counts, bytes.len(), result) {
                Sent::Bytes(bytes) => return bytes,
                Sent::Interrupted => {}
                Sent::Failed(error) => {
                    // Every error of the kernel has a number, and none is above 4095 (`MAX_ERRNO`).
                    source.errno = error.raw_os_error().map_or(0, |number| number as u16);
                    source.bits |= SEND_FAILED;
                }
            }
        }
        0
    }
}
