//! Datagrams in batches, one `recvmsg` or `sendmsg` after the other.
//!
//! [`Incoming`] is the block that a worker receives into; both make their pointers anew in each call, from what they own or borrow during
//! it. The kernel neither cuts nor joins datagrams.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;

use crate::sys::checked_bytes;
use crate::sys::control::{Control, Facts};
use crate::sys::datagrams::{Message, Parcel};
use crate::sys::socket::RawAddress;

/// Between two places of the block, so that datagrams do not all meet in the same lines of the cache.
const SKEW_BYTES: usize = 192;

/// Errors behind a datagram of the same batch that are passed over, at most: each is told once, and is of another datagram that was sent.
const ERRORS_MAX: usize = 16;

/// Sends raise no signal; macOS does not for datagrams.
const QUIET: c_int = if cfg!(target_os = "macos") { 0 } else { libc::MSG_NOSIGNAL };

/// The kernel joins none.
pub fn join_datagrams(_socket: BorrowedFd<'_>) -> bool {
    false
}

/// Nor does it cut any.
pub fn cuts_datagrams(_socket: BorrowedFd<'_>) -> bool {
    false
}

/// What came in one place.
#[derive(Clone, Copy)]
struct Landed {
    len: usize,
    flags: c_int,
    control_bytes: usize,
}

/// Where datagrams of one batch are received: places for their bytes, addresses and control messages.
pub struct Incoming {
    block: Box<[u8]>,
    /// From one place to the next.
    stride: usize,
    place_bytes: usize,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    landed: Vec<Landed>,
}

impl Incoming {
    /// A block of so many places of so many bytes each. Memory that is never written to costs none.
    ///
    /// # Panics
    /// Without a place.
    pub fn new(places: usize, place_bytes: usize) -> Self {
        assert!(places > 0, "a batch has room for a datagram");
        let stride = place_bytes.next_multiple_of(64) + SKEW_BYTES;
        Self {
            block: vec![0; places * stride].into_boxed_slice(),
            stride,
            place_bytes,
            names: (0..places).map(|_| RawAddress::new()).collect(),
            controls: vec![Control::new(); places].into_boxed_slice(),
            landed: Vec::with_capacity(places),
        }
    }

    pub fn places(&self) -> usize {
        self.names.len()
    }

    pub fn place_bytes(&self) -> usize {
        self.place_bytes
    }

    /// Receives up to so many datagrams, but no more than there are places, and returns how many came. One system call for each, and one
    /// that finds nothing.
    ///
    /// # Errors
    /// The kernel's: `EAGAIN` when there is none; what is pending at the socket, such as `ECONNREFUSED`, which is no
    /// longer pending then. Nothing was received in either case.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.min(self.places());
        self.landed.clear();
        let mut errors = 0;
        while self.landed.len() < most {
            match self.receive_one(socket, self.landed.len()) {
                Ok(landed) => self.landed.push(landed),
                Err(error) if self.landed.is_empty() => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Behind it there may be more, of which nobody would hear.
                Err(_) => {
                    errors += 1;
                    if errors == ERRORS_MAX {
                        break;
                    }
                }
            }
        }
        Ok(self.landed.len())
    }

    fn receive_one(&mut self, socket: BorrowedFd<'_>, index: usize) -> io::Result<Landed> {
        let place = &mut self.block[index * self.stride..][..self.place_bytes];
        let mut slice = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
        let mut header = empty_header();
        header.msg_name = self.names[index].as_mut_ptr().cast();
        header.msg_namelen = RawAddress::BYTES as _;
        header.msg_iov = &raw mut slice;
        header.msg_iovlen = 1;
        header.msg_control = self.controls[index].as_mut_ptr().cast();
        header.msg_controllen = Control::BYTES as _;
        // SAFETY: recvmsg(2) reads and writes one `msghdr`, and writes at most what it allows to its name, control block and one slice of
        // bytes. They were pointed above at places of `self`, which are borrowed exclusively and as large as said, and at a local; any
        // bytes are valid in them. (test: `received_datagrams_stay_in_their_places`)
        let len = checked_bytes(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) })?;
        Ok(Landed { len, flags: header.msg_flags, control_bytes: header.msg_controllen as _ })
    }

    /// What came in place `index` of the last [`receive`](Self::receive).
    ///
    /// # Panics
    /// If nothing came there.
    pub fn message(&self, index: usize) -> Message {
        let landed = &self.landed[index];
        let facts = match landed.control_bytes {
            0 => Facts::default(),
            bytes => self.controls[index].facts(bytes),
        };
        Message {
            start: index * self.stride,
            len: landed.len.min(self.place_bytes),
            is_truncated: landed.flags & libc::MSG_TRUNC != 0,
            peer: self.names[index].decode(),
            facts,
        }
    }

    /// The block, in which messages lie in order.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.block
    }
}

/// Sends one batch.
pub struct Outgoing(());

impl Outgoing {
    /// Parcels that leave in one call, at most.
    pub const PARCELS_MAX: usize = 64;

    pub fn new() -> Self {
        Self(())
    }

    /// Sends the first parcels, [`PARCELS_MAX`](Self::PARCELS_MAX) at most, and returns how many were taken: possibly fewer
    /// than were given, and at least one. One system call for each.
    ///
    /// # Errors
    /// The kernel's about the first parcel: `EAGAIN` when the socket is full, `EMSGSIZE`, `EPERM` of a filter, `ENETUNREACH`;
    /// or what is pending at the socket.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        parcels: impl Iterator<Item = Parcel<'a>>,
    ) -> io::Result<usize> {
        let mut sent = 0;
        for parcel in parcels.take(Self::PARCELS_MAX) {
            match send_one(socket, &parcel) {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }
}

fn send_one(socket: BorrowedFd<'_>, parcel: &Parcel<'_>) -> io::Result<()> {
    debug_assert!(parcel.segment.is_none(), "nobody cuts it");
    let mut name = RawAddress::new();
    let mut control = Control::new();
    // The cast drops `const`; sendmsg(2) only reads.
    let start = parcel.bytes.as_ptr().cast_mut().cast();
    let mut slice = libc::iovec { iov_base: start, iov_len: parcel.bytes.len() };
    let mut header = empty_header();
    header.msg_namelen = name.encode(parcel.to) as _;
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    let control_bytes = control.write(parcel.from, None);
    if control_bytes > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control_bytes as _;
    }
    // SAFETY: sendmsg(2) reads one `msghdr`, and what its name, control block and slice point at: locals, and bytes that are borrowed beyond
    // the call. (test: `parcels_arrive_whole_and_in_order`)
    checked_bytes(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, QUIET) }).map(drop)
}

fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` is plain C data, integers and pointers; all zeroes is a valid one, and the only way to fill the
    // private padding some libcs have. (test: `parcels_arrive_whole_and_in_order`)
    unsafe { mem::zeroed() }
}

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the other half has to do the same")]
#[path = "../datagrams/batch_tests.rs"]
mod tests;
