//! A doorbell: any thread can ring it, an epoll or a poll hears it.
//!
//! Registered edge-triggered it is never read: each `signal` adds one to the counter and is a new edge
//! (eventfd(2), epoll(7)). A level-triggered waiter reads it with `take`. One write per `signal`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sys::checked;
use crate::sys::timeout::{Timeout, readable_within};

/// An eventfd, non-blocking and close-on-exec, its counter at zero.
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// A new one that has not been rung.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENFILE` or `ENOMEM`.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd(2) takes no pointers. (test: `every_signal_is_a_new_edge_without_a_read`)
        let raw = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns. The line above has just got it
        // from the kernel, and `raw` is not used again. (test: `dropping_an_eventfd_closes_its_descriptor`)
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(EventFd { file: File::from(fd) })
    }

    /// Rings once. One `write`; at the counter's limit (2^64 - 2 rings unread) also a read and a write.
    ///
    /// # Errors
    /// None are known for a healthy descriptor; the kernel's travels as it came.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        match self.add(1) {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                self.take()?;
                self.add(1)
            }
            result => result,
        }
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

    /// How often it was rung since the last `take`, and resets that to zero. One `read`.
    ///
    /// # Errors
    /// None are known for a healthy descriptor; the kernel's travels as it came.
    pub fn take(&self) -> io::Result<u64> {
        let mut counter = [0; 8];
        match (&self.file).read(&mut counter) {
            Ok(_) => Ok(u64::from_ne_bytes(counter)),
            Err(empty) if empty.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Where a signal handler rings it, by writing what eight bytes are as a number that is not zero.
    pub fn ringer(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    /// The kernel takes all eight bytes or none, so there is no short write to handle.
    #[inline]
    fn add(&self, rings: u64) -> io::Result<()> {
        (&self.file).write(&rings.to_ne_bytes()).map(|_| ())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoll::{EDGE_IN, Epoll, Events};
    use super::*;
    use crate::sys::limits::open_file_count;
    use crate::sys::testing::{alone, open_flags};

    #[test]
    fn every_signal_is_a_new_edge_without_a_read() {
        let (epoll, mut events, bell) =
            (Epoll::new().unwrap(), Events::with_capacity(1), EventFd::new().unwrap());
        epoll.add(bell.as_fd(), EDGE_IN, 1).unwrap();
        for _ in 0..3 {
            assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 0);
            bell.signal().unwrap();
            assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1);
        }
    }

    #[test]
    fn a_full_counter_still_rings() {
        let (epoll, mut events, bell) =
            (Epoll::new().unwrap(), Events::with_capacity(1), EventFd::new().unwrap());
        bell.add(u64::MAX - 1).unwrap();
        epoll.add(bell.as_fd(), EDGE_IN, 1).unwrap();
        assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1, "the first report");

        bell.signal().unwrap();

        assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1);
        assert_eq!(bell.take().unwrap(), 1);
    }

    #[test]
    fn taking_counts_the_rings_and_does_not_wait() {
        let bell = EventFd::new().unwrap();
        bell.signal().unwrap();
        bell.signal().unwrap();

        assert_eq!(bell.take().unwrap(), 2);
        assert_eq!(bell.take().unwrap(), 0);
    }

    #[test]
    fn an_eventfd_is_not_inherited_and_does_not_block() {
        let flags = open_flags(EventFd::new().unwrap().as_fd());
        assert_ne!(flags & libc::O_CLOEXEC, 0);
        assert_ne!(flags & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn dropping_an_eventfd_closes_its_descriptor() {
        alone!(dropping_an_eventfd_closes_its_descriptor);
        let before = open_file_count().unwrap();
        let bell = EventFd::new().unwrap();
        assert_eq!(open_file_count().unwrap(), before + 1);
        drop(bell);
        assert_eq!(open_file_count().unwrap(), before);
    }
}
