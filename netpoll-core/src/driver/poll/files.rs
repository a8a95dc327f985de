//! Files on their way out of a poller.
//!
//! A poller hands a file to `sendfile(2)`, which takes what the socket has room for. So that one connection with a
//! large file does not keep the others waiting, a flush sends a share of it and reports [`Flushed::ShareSpent`].
//! A file system that has no `sendfile` is read into a block, piece by piece.
//!
//! A partial `sendfile` does not tell a full socket from the end of a file. So only `EAGAIN` blocks a stream, and
//! only 0 is the end: a call more for each time that the socket is full, and never a wait for an edge that does
//! not come.

use std::io;
use std::os::fd::AsFd;

use super::super::files::{ended, read_part};
use super::super::{Flushed, IoCounts};
use super::source::{BLOCKED, Source};
use crate::mem::{BLOCK_BYTES_MAX, FilePart, Pool};
use crate::sys;

/// What became of an attempt to send a part of a file.
pub enum FileSent {
    /// So many bytes left; zero if a signal came first.
    Bytes(usize),
    /// The flush is over.
    Stopped(Flushed),
}

impl Source {
    /// Sends a part of a file as far as the socket and the share of this flush allow, in one step.
    #[cold]
    pub fn send_file(
        &mut self,
        counts: &mut IoCounts,
        part: FilePart<'_>,
        file_bytes_left: &mut usize,
        pool: &mut Pool,
    ) -> FileSent {
        if *file_bytes_left == 0 {
            return FileSent::Stopped(Flushed::ShareSpent);
        }
        let asked = part.length.min(*file_bytes_left);
        counts.syscalls_sendfile += 1;
        let sent = match sys::sendfile(self.fd.as_fd(), part.file.as_fd(), part.offset, asked) {
            Ok(0) => Err(Failure::File(ended())),
            Err(error) if cannot_splice(&error) => self.copy_file(counts, part, asked, pool),
            sent => sent.map_err(Failure::of_sendfile),
        };
        match sent {
            Ok(bytes) => {
                *file_bytes_left -= bytes;
                counts.sent_bytes += bytes as u64;
                FileSent::Bytes(bytes)
            }
            Err(Failure::File(error)) => FileSent::Stopped(Flushed::Broken(error)),
            Err(Failure::Stream(error)) => match error.kind() {
                io::ErrorKind::Interrupted => FileSent::Bytes(0),
                io::ErrorKind::WouldBlock => {
                    self.bits |= BLOCKED;
                    counts.sends_blocked += 1;
                    FileSent::Stopped(Flushed::Blocked { in_flight: 0 })
                }
                _ => FileSent::Stopped(Flushed::Failed(error)),
            },
        }
    }

    /// Reads a piece of a file that cannot be spliced, and sends it as bytes. What the socket does not take is read
    /// again when it has room.
    fn copy_file(
        &self,
        counts: &mut IoCounts,
        part: FilePart<'_>,
        asked: usize,
        pool: &mut Pool,
    ) -> Result<usize, Failure> {
        let mut block = pool.take(BLOCK_BYTES_MAX);
        block.as_vec().resize(asked.min(BLOCK_BYTES_MAX), 0);
        counts.syscalls_sendfile += 1;
        let sent = read_part(part, &mut block).map_err(Failure::File).and_then(|read| {
            counts.syscalls_send += 1;
            sys::send(self.fd.as_fd(), &block[..read]).map_err(Failure::Stream)
        });
        pool.give(block);
        sent
    }
}

/// Whose fault it is.
enum Failure {
    File(io::Error),
    Stream(io::Error),
}

impl Failure {
    /// One call has two sides. What no socket says comes from the file.
    fn of_sendfile(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::EAGAIN
                | libc::EINTR
                | libc::EPIPE
                | libc::ENOTCONN
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ECONNREFUSED
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOBUFS
                | libc::ENOMEM,
            ) => Self::Stream(error),
            _ => Self::File(error),
        }
    }
}

/// What the kernel says of a file that has no pages to splice, and a sandbox of a call that it forbids.
fn cannot_splice(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM | libc::ESPIPE)
    )
}
