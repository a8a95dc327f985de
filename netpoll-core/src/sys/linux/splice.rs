//! A pipe as the way from one socket to another: the kernel moves pages through it, and nobody copies them.
//!
//! One system call each, without a retry. A pipe has slots, not bytes: what was received lies in pieces, each of which takes a slot
//! however small it is.
//!
//! There is no flag against SIGPIPE: `broken_pipe.rs` keeps it away.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::broken_pipe::without_broken_pipe;
use super::kernel;
use crate::sys::checked;

/// A pipe of our own, close-on-exec.
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    /// A pipe with room for so many bytes in whole pages, rounded up to a power of two, or for what the kernel gives to everybody (16
    /// pages, or two of a user who has many pipes) where more is not granted: `fs.pipe-max-size`, `fs.pipe-user-pages-soft`.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENFILE`.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: fcntl(2): F_SETPIPE_SZ takes an int, and no pointers. (test: `a_pipe_is_as_large_as_was_asked_for`)
        let granted = checked(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) });
        // EPERM: the user has as much as one may have. A smaller pipe does as well, only less at once.
        drop(granted);
        Ok(Self { reader, writer })
    }

    /// Moves up to so many received bytes of a socket into the pipe, which has to be empty. Fewer than asked for means nothing:
    /// there are no more, or no more slots.
    ///
    /// Zero is the peer's FIN, or input in front of the mark of urgent data.
    ///
    /// # Errors
    /// The kernel's: `EAGAIN` when there is nothing yet, or nothing in front of the mark; `ECONNRESET`, `ETIMEDOUT`. `EINVAL` of a
    /// socket that cannot be spliced, `ENOSYS` or `EPERM` where a sandbox forbids the call.
    #[inline]
    pub fn fill(&self, socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<usize> {
        splice(socket, self.writer.as_fd(), bytes_max)
    }

    /// Moves up to so many bytes out of the pipe into a socket; the kernel may still hold what of the pipe comes behind.
    ///
    /// # Errors
    /// The kernel's: `EAGAIN` when the send buffer is full, or the pipe empty; `EPIPE`, `ECONNRESET`.
    #[inline]
    pub fn drain(&self, socket: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
        without_broken_pipe(|| splice(self.reader.as_fd(), socket, bytes))
    }

    /// Takes bytes out of the pipe, as many as there are or as there is room for. Waits for some if it is empty.
    ///
    /// # Errors
    /// None are known, but of an interruption.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.reader).read(into)
    }
}

#[inline]
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    const NO_OFFSET: usize = 0;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (from, to) = (kernel::descriptor(from), kernel::descriptor(to));
    let arguments = [from, NO_OFFSET, to, NO_OFFSET, bytes, flags as usize];
    // SAFETY: splice(2) without offsets takes no pointers. (test: `what_goes_through_a_pipe_arrives_in_order`)
    unsafe { kernel::call(libc::SYS_splice, arguments) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::super::broken_pipe::watch_broken_pipe;
    use super::*;
    use crate::sys::limits::open_file_count;
    use crate::sys::socket;
    use crate::sys::testing::{Pair, alone, recv, until};

    #[test]
    fn what_goes_through_a_pipe_arrives_in_order() {
        let (source, target, pipe) = (Pair::new(), Pair::new(), Pipe::new(1 << 16).unwrap());
        assert_eq!(pipe.fill(source.server.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        socket::send(source.client.as_fd(), b"0123456789").unwrap();
        until(source.server.as_fd(), libc::POLLIN);
        assert_eq!(pipe.fill(source.server.as_fd(), 8).unwrap(), 8);
        assert_eq!(pipe.drain(target.server.as_fd(), 5).unwrap(), 5);
        let mut rest = [0; 10];
        assert_eq!(pipe.read(&mut rest).unwrap(), 3);
        assert_eq!((recv(&target.client).unwrap(), &rest[..3]), (b"01234".to_vec(), &b"567"[..]));
        assert_eq!(pipe.drain(target.server.as_fd(), 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(pipe.fill(source.server.as_fd(), 8).unwrap(), 2);
    }

    #[test]
    fn an_end_is_zero_and_a_reset_an_error() {
        let (source, pipe) = (Pair::new(), Pipe::new(1 << 16).unwrap());
        socket::shutdown_write(source.client.as_fd()).unwrap();
        until(source.server.as_fd(), libc::POLLRDHUP);
        assert_eq!(pipe.fill(source.server.as_fd(), 8).unwrap(), 0);
        let source = Pair::new();
        socket::reset_on_close(source.client.as_fd()).unwrap();
        drop(source.client);
        until(source.server.as_fd(), libc::POLLERR);
        let error = pipe.fill(source.server.as_fd(), 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_full_socket_takes_no_more() {
        let (source, target, pipe) = (Pair::new(), Pair::new(), Pipe::new(1 << 16).unwrap());
        let error = loop {
            socket::send(source.client.as_fd(), &[b'x'; 8192]).unwrap();
            until(source.server.as_fd(), libc::POLLIN);
            let moved = pipe.fill(source.server.as_fd(), 8192).unwrap();
            match pipe.drain(target.server.as_fd(), moved) {
                Ok(sent) if sent == moved => {}
                Ok(sent) => break pipe.drain(target.server.as_fd(), moved - sent).unwrap_err(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_pipe_is_as_large_as_was_asked_for() {
        let pages = |pipe: &Pipe| {
            // SAFETY: fcntl(2): F_GETPIPE_SZ takes no argument. (test: `a_pipe_is_as_large_as_was_asked_for`)
            let bytes = unsafe { libc::fcntl(pipe.reader.as_raw_fd(), libc::F_GETPIPE_SZ) };
            bytes / 4096
        };
        assert_eq!(pages(&Pipe::new(1 << 18).unwrap()), 64);
        // More than anybody is granted.
        assert!(pages(&Pipe::new(usize::MAX).unwrap()) >= 2);
    }

    #[test]
    fn dropping_a_pipe_closes_both_ends() {
        alone!(dropping_a_pipe_closes_both_ends);
        let before = open_file_count().unwrap();
        let pipe = Pipe::new(1 << 16).unwrap();
        assert_eq!(open_file_count().unwrap(), before + 2);
        drop(pipe);
        assert_eq!(open_file_count().unwrap(), before);
    }

    #[test]
    fn what_is_spliced_to_who_is_gone_is_an_error_and_no_signal() {
        alone!(what_is_spliced_to_who_is_gone_is_an_error_and_no_signal);
        // SAFETY: signal(2) takes no pointers but this constant.
        // (test: `what_is_spliced_to_who_is_gone_is_an_error_and_no_signal`)
        assert_ne!(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) }, libc::SIG_ERR);
        watch_broken_pipe().unwrap();
        let (source, target, pipe) = (Pair::new(), Pair::new(), Pipe::new(1 << 16).unwrap());
        socket::reset_on_close(target.client.as_fd()).unwrap();
        drop(target.client);
        until(target.server.as_fd(), libc::POLLHUP);
        assert!(socket::take_error(target.server.as_fd()).unwrap().is_some());
        TcpStream::from(source.client).write_all(b"0123456789").unwrap();
        until(source.server.as_fd(), libc::POLLIN);
        assert_eq!(pipe.fill(source.server.as_fd(), 10).unwrap(), 10);
        let error = pipe.drain(target.server.as_fd(), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        for set in ["SigBlk", "SigPnd"] {
            let line = format!("{set}:\t{:016x}", 0);
            assert!(status.contains(&line), "{set} is not empty: {status}");
        }
    }
}
