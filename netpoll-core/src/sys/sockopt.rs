//! Socket options that tune, rather than decide whether things work. One system call each, except
//! [`set_keepalive`] with four.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{SockRef, TcpKeepalive};

use super::checked;

/// Asks the peer for a sign of life after `idle` of silence, then every `interval`, and gives the
/// connection up (`ETIMEDOUT`) after `count` probes without answer. Whole seconds, 1 to 32767.
///
/// # Errors
/// The kernel's: `EINVAL` out of range.
pub fn set_keepalive(
    socket: BorrowedFd<'_>,
    idle: Duration,
    interval: Duration,
    count: u32,
) -> io::Result<()> {
    let params = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
    SockRef::from(&socket).set_tcp_keepalive(&params)
}

/// Sizes of the kernel's buffers, if they are not to grow by themselves (`SO_SNDBUF`, `SO_RCVBUF`). Of a listener, before anybody
/// connects: the window scale is said once, in the handshake.
///
/// # Errors
/// The kernel's; none are known.
pub fn set_buffers(socket: BorrowedFd<'_>, send: Option<usize>, receive: Option<usize>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    send.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes))?;
    receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
}

/// Sets an option whose value is an `int`.
pub(super) fn set_int(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let (place, length) = ((&raw const value).cast(), size_of::<c_int>() as libc::socklen_t);
    // SAFETY: setsockopt(2) reads `length` bytes at `place`: the parameter `value`, an initialised c_int that
    // outlives the call. An option that wants more answers EINVAL. (test: `a_listener_defers_and_fast_opens`)
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, length) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::testing::Pair;
    use super::*;

    #[test]
    fn keepalive_is_set_as_asked() {
        let pair = Pair::new();
        set_keepalive(pair.server.as_fd(), Duration::from_secs(61), Duration::from_secs(7), 3).unwrap();

        let socket = SockRef::from(&pair.server);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
