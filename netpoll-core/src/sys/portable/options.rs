//! Options of sockets as macOS has them; on Linux, where they are tested, by its own numbers.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, SockRef};

use super::unsupported;
use crate::sys::sockopt::set_int;

/// Of several sockets on one address one has all who connect: workers have one queue.
pub const SPREADS: bool = false;

/// Datagrams are not joined.
pub const JOINED: Option<(c_int, c_int)> = None;

/// Nor cut.
pub const CUT: Option<(c_int, c_int)> = None;

/// `TCP_NOTSENT_LOWAT` of netinet/tcp.h.
const NOTSENT_LOWAT: c_int = if cfg!(target_os = "macos") { 0x201 } else { 25 };

/// `TCP_RXT_CONNDROPTIME` of netinet/tcp.h, in seconds; on Linux `TCP_USER_TIMEOUT`, in milliseconds.
const USER_TIMEOUT: (c_int, u128) =
    if cfg!(target_os = "macos") { (0x80, 1_000_000_000) } else { (18, 1_000_000) };

/// Where `in_pktinfo` says which address of ours a datagram came to: macOS tells the destination alone.
pub const LOCAL_V4_AT: usize = if cfg!(target_os = "macos") { 8 } else { 4 };

/// The family of a socket.
///
/// # Errors
/// The kernel's: `ENOTSOCK`.
pub fn domain(socket: BorrowedFd<'_>) -> io::Result<Domain> {
    SockRef::from(&socket).local_addr().map(|addr| addr.domain())
}

/// Whether a stream socket of an IP family is TCP's: it is, as nothing else is said.
///
/// # Errors
/// None.
pub fn is_tcp(_socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(true)
}

/// Whether a stream socket listens, as far as can be told: it is bound and has no peer.
///
/// # Errors
/// The kernel's; none are known.
pub fn is_listener(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let socket = SockRef::from(&socket);
    let local = socket.local_addr()?;
    let is_bound = local.as_socket().is_none_or(|addr| addr.port() > 0);
    Ok(is_bound && socket.peer_addr().is_err())
}

/// # Errors
/// `Unsupported`.
pub fn defer_accept(_listener: BorrowedFd<'_>, _time: Duration) -> io::Result<()> {
    Err(unsupported("defer_accept is Linux's"))
}

/// # Errors
/// `Unsupported`.
pub fn accept_early_data(_listener: BorrowedFd<'_>, _pending_max: u32) -> io::Result<()> {
    Err(unsupported("a queue of connections that begin with data is Linux's"))
}

/// The port is picked when the socket is bound: one source address serves as many connections as there are ports.
///
/// # Errors
/// None.
pub fn pick_port_late(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Ends the connection when what was sent stays without an acknowledgement for so long. Rounded up.
///
/// # Errors
/// The kernel's; none are known.
pub fn set_user_timeout(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let (name, unit) = USER_TIMEOUT;
    let units = c_int::try_from(time.as_nanos().div_ceil(unit)).unwrap_or(c_int::MAX);
    set_int(socket, libc::IPPROTO_TCP, name, units)
}

/// How many bytes the socket takes beyond what it can send.
///
/// # Errors
/// The kernel's; none are known.
pub fn set_unsent_bytes_max(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, NOTSENT_LOWAT, c_int::try_from(bytes).unwrap_or(c_int::MAX))
}

/// # Errors
/// `Unsupported`.
pub fn attach_reuseport_cpu_steering(_listener: BorrowedFd<'_>, _workers: u32) -> io::Result<()> {
    Err(unsupported("steer_by_cpu is Linux's"))
}

/// Nothing keeps newcomers away from a listener that stays open.
///
/// # Errors
/// `Unsupported`.
pub fn refuse_new_connections(_listener: BorrowedFd<'_>) -> io::Result<()> {
    Err(unsupported("a listener takes in everybody until it is closed"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::socket;
    use crate::sys::testing::{LOOPBACK, PLAIN, Pair};

    #[test]
    fn a_listener_is_told_from_a_connection_and_from_what_is_not_bound() {
        let listener = socket::listen(LOOPBACK, &PLAIN).unwrap();
        assert!(is_listener(listener.as_fd()).unwrap());
        assert_eq!(domain(listener.as_fd()).unwrap(), Domain::IPV4);
        let pair = Pair::new();
        assert!(!is_listener(pair.client.as_fd()).unwrap() && !is_listener(pair.server.as_fd()).unwrap());
        let fresh = socket2::Socket::new(Domain::IPV6, socket2::Type::STREAM, None);
        assert!(fresh.is_err() || !is_listener(fresh.unwrap().as_fd()).unwrap());
    }

    #[test]
    fn times_and_bytes_are_set_as_asked() {
        let pair = Pair::new();
        set_user_timeout(pair.server.as_fd(), Duration::from_nanos(12_344_500_001)).unwrap();
        set_unsent_bytes_max(pair.server.as_fd(), 54_321).unwrap();
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&pair.server);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 54_321);
        }
    }
}
