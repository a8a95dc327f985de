//! A doorbell out of a pipe: any thread can ring it, a poller or a poll hears it.
//!
//! Registered edge-triggered it is never read: each `signal` puts something into the pipe and is a new edge. A pipe that is full by then
//! is emptied by who rings, and rung again. One write per `signal`, and some fifty reads for each eight thousand of them.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, SockRef, Socket, Type};

use crate::sys::timeout::{Timeout, readable_within};

/// What a ring leaves in the pipe: as long as what a signal handler writes, and taken whole or not at all (`PIPE_BUF`).
const RING: [u8; 8] = 1_u64.to_ne_bytes();

/// A pipe, both ends non-blocking and close-on-exec, empty.
pub struct PipeBell {
    reader: PipeReader,
    writer: PipeWriter,
}

impl PipeBell {
    /// A new one that has not been rung.
    ///
    /// # Errors
    /// The kernel's: `EMFILE` or `ENFILE`.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        SockRef::from(&reader).set_nonblocking(true)?;
        SockRef::from(&writer).set_nonblocking(true)?;
        Ok(Self { reader, writer })
    }

    /// Rings once.
    ///
    /// # Errors
    /// None are known for a healthy descriptor; the kernel's travels as it came.
    pub fn signal(&self) -> io::Result<()> {
        match self.ring() {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                self.take()?;
                match self.ring() {
                    // Others have filled it meanwhile, and each of them has rung.
                    Err(full) if full.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    rung => rung,
                }
            }
            rung => rung,
        }
    }

    fn ring(&self) -> io::Result<()> {
        (&self.writer).write(&RING).map(drop)
    }

    /// Sleeps until it has been rung. One `poll`, and one more after each signal that interrupts it.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM`.
    pub fn wait(&self) -> io::Result<()> {
        self.wait_for(Timeout::Never).map(drop)
    }

    /// The same for so long at most; false if it has not been rung. In milliseconds, rounded up; a signal that interrupts a timed
    /// wait ends it.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM`.
    pub fn wait_for(&self, timeout: Timeout) -> io::Result<bool> {
        readable_within(self.as_fd(), timeout)
    }

    /// How often it was rung since the last `take`, as far as the pipe had room, and resets that to zero.
    ///
    /// # Errors
    /// None are known for a healthy descriptor; the kernel's travels as it came.
    pub fn take(&self) -> io::Result<u64> {
        let (mut rings, mut room) = (0, [0; 1024]);
        loop {
            match (&self.reader).read(&mut room) {
                Ok(bytes) => {
                    rings += (bytes / RING.len()) as u64;
                    if bytes < room.len() {
                        return Ok(rings);
                    }
                }
                Err(empty) if empty.kind() == io::ErrorKind::WouldBlock => return Ok(rings),
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where a signal handler rings it, by writing eight bytes.
    pub fn ringer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

impl AsFd for PipeBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// A descriptor that stands for another: a socket that nobody is connected to.
pub struct Spare {
    _held: OwnedFd,
}

impl Spare {
    /// Takes one.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENFILE` or `ENOBUFS`.
    pub fn new() -> io::Result<Self> {
        Socket::new(Domain::UNIX, Type::DGRAM, None).map(|socket| Self { _held: socket.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::sys::limits::open_file_count;
    use crate::sys::testing::{alone, open_flags};

    #[test]
    fn who_waits_is_woken_by_another_thread() {
        let bell = PipeBell::new().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| bell.signal().unwrap());
            bell.wait().unwrap();
        });
        assert_eq!(bell.take().unwrap(), 1);
        assert!(!bell.wait_for(Timeout::Now).unwrap());
    }

    #[test]
    fn rings_are_counted_and_taking_does_not_wait() {
        let bell = PipeBell::new().unwrap();
        for _ in 0..300 {
            bell.signal().unwrap();
        }
        assert_eq!((bell.take().unwrap(), bell.take().unwrap()), (300, 0));
    }

    #[test]
    fn a_full_pipe_still_rings() {
        let bell = PipeBell::new().unwrap();
        while bell.ring().is_ok() {}
        bell.signal().unwrap();
        assert!(bell.wait_for(Timeout::Now).unwrap());
        assert_eq!(bell.take().unwrap(), 1, "what was in it had been heard");
    }

    #[test]
    fn a_full_pipe_rings_whoever_fills_it_meanwhile() {
        let (bell, is_done) = (PipeBell::new().unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    bell.signal().unwrap();
                }
            });
            for _ in 0..50_000 {
                bell.signal().unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        assert!(bell.wait_for(Timeout::Now).unwrap());
    }

    #[test]
    fn a_pipe_that_is_a_bell_is_not_inherited_and_does_not_block() {
        let bell = PipeBell::new().unwrap();
        for end in [bell.as_fd(), bell.ringer()] {
            let flags = open_flags(end);
            assert_ne!(flags & libc::O_CLOEXEC, 0);
            assert_ne!(flags & libc::O_NONBLOCK, 0);
        }
    }

    #[test]
    fn a_bell_and_a_spare_are_closed_when_dropped() {
        alone!(a_bell_and_a_spare_are_closed_when_dropped);
        let before = open_file_count().unwrap();
        let held = (PipeBell::new().unwrap(), Spare::new().unwrap());
        assert_eq!(open_file_count().unwrap(), before + 3);
        drop(held);
        assert_eq!(open_file_count().unwrap(), before);
    }
}
