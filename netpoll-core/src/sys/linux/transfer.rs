//! Accepting, and moving bytes, one system call each.
//!
//! Moving goes straight to the kernel ([`kernel::call`]), past the C library's wrappers.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use super::kernel;
use crate::sys::address::{Address, UnixAddress};
use crate::sys::checked;
use crate::sys::socket::{RawAddress, peer_addr};

/// No peer address is asked for or given.
const NO_ADDRESS: usize = 0;

/// A socket that does not block and is closed on exec.
///
/// # Errors
/// The kernel's: `EMFILE`, `ENFILE`, `EAFNOSUPPORT`.
pub fn new_socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new_raw(domain, kind.nonblocking().cloexec(), protocol)
}

/// Takes one connection from the listener's queue, and says who it is.
///
/// # Errors
/// The kernel's: `EAGAIN` when the queue is empty; `ECONNABORTED`, `EPROTO` and the like when that one
/// connection is already gone; `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM` when this machine is short (the
/// connection stays queued).
#[inline]
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut address = RawAddress::new();
    let mut length = RawAddress::BYTES as libc::socklen_t;
    let place = (&raw mut address).cast::<libc::sockaddr>();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) writes at most `*length` bytes at `place`, and the true length to `length`.
    // `address` is that large, aligned for every sockaddr, and any bytes are valid in it; both locals
    // outlive the call. (test: `an_accepted_connection_comes_with_its_peer_address`)
    let raw = checked(unsafe { libc::accept4(listener.as_raw_fd(), place, &raw mut length, flags) })?;
    // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns. The line above has just got it from
    // the kernel, and `raw` is not used again. (test: `an_accepted_socket_closes_when_dropped`)
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let peer = match address.decode() {
        Some(peer) => Address::Inet(peer),
        None => other_peer(socket.as_fd(), length),
    };
    Ok((socket, peer))
}

/// The address of a peer that has no IP address, of which `accept4` has seen so many bytes.
#[cold]
fn other_peer(socket: BorrowedFd<'_>, length: libc::socklen_t) -> Address {
    if length as usize <= size_of::<libc::sa_family_t>() {
        return Address::Unix(UnixAddress::UNNAMED);
    }
    // A name, which `RawAddress` has no room for. Whoever cannot be asked is gone, and its next call says so.
    peer_addr(socket).unwrap_or(Address::Unknown)
}

/// Receives into `into`; 0 is the peer's FIN (or an empty `into`).
///
/// # Errors
/// The kernel's: `EAGAIN` when there is nothing yet, `ECONNRESET`, `ETIMEDOUT`.
#[inline]
pub fn recv(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (start, len) = (into.as_mut_ptr(), into.len());
    let arguments = [kernel::descriptor(socket), start.expose_provenance(), len, 0, NO_ADDRESS, 0];
    // SAFETY: recvfrom(2) without an address writes at most `len` bytes from `start` on. Both come from one `&mut [u8]`, borrowed
    // exclusively during the call. (test: `received_bytes_stay_inside_the_buffer`)
    unsafe { kernel::call(libc::SYS_recvfrom, arguments) }
}

/// Sends the start of `bytes` and returns how many were taken, possibly fewer than all.
///
/// # Errors
/// The kernel's: `EAGAIN` when the send buffer is full, `EPIPE` after the write side was shut down,
/// `ECONNRESET`.
#[inline]
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let (start, len) = (bytes.as_ptr(), bytes.len());
    let flags = kernel::int(libc::MSG_NOSIGNAL);
    let arguments = [kernel::descriptor(socket), start.expose_provenance(), len, flags, NO_ADDRESS, 0];
    // SAFETY: sendto(2) without an address reads `len` bytes from `start` on. Both come from one `&[u8]`, borrowed during the
    // call; the kernel copies. (test: `what_is_sent_is_received`)
    unsafe { kernel::call(libc::SYS_sendto, arguments) }
}

/// Sends the start of `slices`, one after the other, in one `sendmsg`; returns the bytes taken.
///
/// # Errors
/// As [`send`]; `EMSGSIZE` for more than 1024 slices (`UIO_MAXIOV`).
#[inline]
pub fn send_vectored(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    send_slices(socket, slices, libc::MSG_NOSIGNAL)
}

/// As [`send_vectored`], when more is going to be sent at once: the last segment is kept back to be filled
/// (`MSG_MORE`), for 200 ms at most (tcp(7)).
///
/// # Errors
/// As [`send_vectored`].
#[inline]
pub fn send_vectored_with_more_behind(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    send_slices(socket, slices, libc::MSG_NOSIGNAL | libc::MSG_MORE)
}

#[inline]
fn send_slices(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>], flags: c_int) -> io::Result<usize> {
    // SAFETY: `msghdr` is plain C data, integers and pointers; all zeroes is a valid one, and the only way
    // to fill the private padding some libcs have. (test: `slices_are_sent_in_order`)
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // The cast drops `const`; sendmsg(2) only reads. `IoSlice` is an `iovec` by std's promise.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    let message = (&raw const message).expose_provenance();
    let arguments = [kernel::descriptor(socket), message, kernel::int(flags), 0, 0, 0];
    // SAFETY: sendmsg(2) reads `message` and `msg_iovlen` iovecs from `msg_iov` on, and the bytes they name.
    // Length and pointer come from one slice; each `IoSlice` borrows its bytes beyond the call; name and
    // control are null with length 0. (test: `slices_are_sent_in_order`)
    unsafe { kernel::call(libc::SYS_sendmsg, arguments) }
}

/// Bytes that were sent and that the peer has not acknowledged (`SIOCOUTQ`). In the Unix domain what the peer has not read, as
/// memory: with what each piece takes beyond its bytes, and until all of a piece is read.
///
/// # Errors
/// The kernel's; none are known for a connected socket.
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
    use std::io::ErrorKind;

    use super::*;
    use crate::sys::testing::{self, Pair};

    #[test]
    fn bytes_with_more_behind_wait_for_it() {
        // For 200 ms at most: an attempt that the scheduler interrupted for longer says nothing.
        let waited = (0..5).any(|_| {
            let pair = Pair::new();
            let head = [IoSlice::new(b"he"), IoSlice::new(b"ad")];
            assert_eq!(send_vectored_with_more_behind(pair.client.as_fd(), &head).unwrap(), 4);
            let waits = recv(pair.server.as_fd(), &mut [0; 16])
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            send(pair.client.as_fd(), b", body").unwrap();
            waits && testing::recv(&pair.server).unwrap() == b"head, body"
        });
        assert!(waited);
    }
}
