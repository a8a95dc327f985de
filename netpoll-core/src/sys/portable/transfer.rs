//! Accepting, and moving bytes, by the calls of POSIX.
//!
//! Accepting is one call and up to three more, as what Linux gives a socket from birth is set behind it.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys::address::{Address, UnixAddress};
use crate::sys::socket::{RawAddress, peer_addr};
use crate::sys::{checked, checked_bytes};

/// Sends raise no signal: on macOS because their sockets are told so (`SO_NOSIGPIPE`).
const QUIET: c_int = if cfg!(target_os = "macos") { 0 } else { libc::MSG_NOSIGNAL };

/// A socket that does not block and is closed on exec.
///
/// # Errors
/// The kernel's: `EMFILE`, `ENFILE`, `EAFNOSUPPORT`.
pub fn new_socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    // It sets SO_NOSIGPIPE as well.
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes one connection from the listener's queue, and says who it is.
///
/// # Errors
/// The kernel's: `EAGAIN` when the queue is empty; `ECONNABORTED` and the like when that one connection is already gone; `EMFILE`,
/// `ENFILE`, `ENOBUFS`, `ENOMEM` when this machine is short (the connection stays queued).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut address = RawAddress::new();
    let mut length = RawAddress::BYTES as libc::socklen_t;
    let place = (&raw mut address).cast::<libc::sockaddr>();
    // SAFETY: accept(2) writes at most `*length` bytes at `place`, and the true length to `length`. `address` is that large, aligned for
    // every sockaddr, and any bytes are valid in it; both locals outlive the call.
    // (test: `an_accepted_connection_comes_with_its_peer_address`)
    let raw = checked(unsafe { libc::accept(listener.as_raw_fd(), place, &raw mut length) })?;
    // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns. The line above has just got it from
    // the kernel, and `raw` is not used again. (test: `an_accepted_socket_closes_when_dropped`)
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // macOS refuses to set anything on a connection that its peer has reset, and has no address for it.
    let gone = |_| io::Error::from_raw_os_error(libc::ECONNABORTED);
    if length == 0 {
        return Err(gone(()));
    }
    settle(&socket).map_err(|_| gone(()))?;
    let peer = match address.decode() {
        Some(peer) => Address::Inet(peer),
        None => other_peer(socket.as_fd(), &address, length),
    };
    Ok((socket, peer))
}

/// Gives an accepted socket what a new one has.
fn settle(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "macos")]
    socket.set_nosigpipe(true)?;
    Ok(())
}

/// The address of a peer that has no IP address, of which `accept` has seen so many bytes.
fn other_peer(socket: BorrowedFd<'_>, address: &RawAddress, length: libc::socklen_t) -> Address {
    // Where nobody has a name macOS gives an empty one.
    let is_unnamed = length as usize <= mem::offset_of!(libc::sockaddr_un, sun_path)
        || (address.family() == libc::AF_UNIX && address.starts_empty());
    if is_unnamed {
        return Address::Unix(UnixAddress::UNNAMED);
    }
    // A name, which `RawAddress` has no room for. Whoever cannot be asked is gone, and its next call says so.
    peer_addr(socket).unwrap_or(Address::Unknown)
}

/// Receives into `into`; 0 is the peer's FIN (or an empty `into`).
///
/// # Errors
/// The kernel's: `EAGAIN` when there is nothing yet, `ECONNRESET`, `ETIMEDOUT`.
pub fn recv(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: recv(2) writes at most `len` bytes from the pointer on. Both come from one `&mut [u8]`, borrowed exclusively during the
    // call. (test: `received_bytes_stay_inside_the_buffer`)
    checked_bytes(unsafe { libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) })
}

/// Sends the start of `bytes` and returns how many were taken, possibly fewer than all.
///
/// # Errors
/// The kernel's: `EAGAIN` when the send buffer is full, `EPIPE` after the write side was shut down,
/// `ECONNRESET`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: send(2) reads `len` bytes from the pointer on. Both come from one `&[u8]`, borrowed during the call; the kernel copies.
    // (test: `what_is_sent_is_received`)
    checked_bytes(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), QUIET) })
}

/// Sends the start of `slices`, one after the other, in one `sendmsg`; returns the bytes taken.
///
/// # Errors
/// As [`send`]; `EMSGSIZE` for more than 1024 slices (`UIO_MAXIOV`).
pub fn send_vectored(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: `msghdr` is plain C data, integers and pointers; all zeroes is a valid one.
    // (test: `slices_are_sent_in_order`)
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // The cast drops `const`; sendmsg(2) only reads. `IoSlice` is an `iovec` by std's promise.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    // SAFETY: sendmsg(2) reads `message` and `msg_iovlen` iovecs from `msg_iov` on, and the bytes they name. Length and pointer come from
    // one slice; each `IoSlice` borrows its bytes beyond the call; name and control are null with length 0.
    // (test: `slices_are_sent_in_order`)
    checked_bytes(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, QUIET) })
}

/// As [`send_vectored`]: nothing says here that more is going to be sent, so that the last segment may leave half empty.
///
/// # Errors
/// As [`send_vectored`].
pub fn send_vectored_with_more_behind(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    send_vectored(socket, slices)
}

/// Bytes that were sent and that the peer has not acknowledged (`SO_NWRITE`): what is in the send buffer. In the Unix domain of macOS
/// there is never anything in it.
///
/// # Errors
/// The kernel's; none are known for a connected socket.
#[cfg(target_os = "macos")]
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_NWRITE);
    let place = (&raw mut bytes).cast();
    // SAFETY: getsockopt(2) writes at most `length` bytes at `place`, which is an int, and the true length to `length`; both are locals.
    // (test: `bytes_that_the_peer_does_not_read_are_unacknowledged_in_the_end`)
    checked(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, place, &raw mut length) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// The same where it is asked for as of a terminal (`SIOCOUTQ`).
///
/// # Errors
/// The kernel's; none are known for a connected socket.
#[cfg(not(target_os = "macos"))]
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: tcp(7): SIOCOUTQ (the same number as TIOCOUTQ) writes one int, and `bytes` is one that outlives
    // the call. (test: `bytes_that_the_peer_does_not_read_are_unacknowledged_in_the_end`)
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the other half has to do the same")]
#[path = "../socket/transfer_tests.rs"]
mod tests;

#[cfg(test)]
mod own_tests {
    use super::*;
    use crate::sys::testing::{Pair, recv};

    #[test]
    fn bytes_with_more_behind_leave_at_once() {
        let pair = Pair::new();
        let head = [IoSlice::new(b"he"), IoSlice::new(b"ad")];
        assert_eq!(send_vectored_with_more_behind(pair.client.as_fd(), &head).unwrap(), 4);
        assert_eq!(recv(&pair.server).unwrap(), b"head");
    }
}
