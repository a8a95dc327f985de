//! How long a wait may sleep, and waiting for one descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::signal::poll;

/// How long a wait may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Look, and return at once.
    #[cfg_attr(any(not(target_os = "linux"), netpoll_portable), allow(dead_code, reason = "for epoll"))]
    Now,
    /// Sleep until something happens.
    Never,
    /// Sleep at most this long. Zero is the same as [`Timeout::Now`].
    After(Duration),
}

impl Timeout {
    /// The `int timeout` of `epoll_wait(2)` and `poll(2)`: milliseconds, rounded up so that a wait does
    /// not end before its time, at most `i32::MAX` (24.8 days), `-1` for ever.
    pub fn as_millis_rounded_up(self) -> i32 {
        match self {
            Timeout::Now => 0,
            Timeout::Never => -1,
            Timeout::After(time) => i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
        }
    }
}

/// Sleeps until a descriptor is readable or hung up, for so long at most; false if the time is up. In milliseconds, rounded up; a
/// signal that interrupts a timed wait ends it. One `poll`, and one more after each signal.
///
/// # Errors
/// The kernel's: `ENOMEM`.
pub(super) fn readable_within(fd: BorrowedFd<'_>, timeout: Timeout) -> io::Result<bool> {
    let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    let mut millis = timeout.as_millis_rounded_up();
    loop {
        match poll(&mut fds, millis) {
            Ok(count) => return Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => millis = millis.min(0),
            Err(error) => return Err(error),
        }
    }
}
