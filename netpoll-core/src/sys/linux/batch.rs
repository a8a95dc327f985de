//! Datagrams in batches: `recvmmsg` and `sendmmsg`.
//!
//! [`Incoming`] is the block that a worker receives into, [`Outgoing`] what it keeps of headers for sending. Both make
//! their pointers anew in each call, from what they own or borrow during it.
//!
//! Cost: one system call for a batch. Before a receive eight words are written for each place that is offered, whether it is
//! used or not, so callers offer about as many as they expect.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use super::kernel;
use crate::sys::control::Control;
use crate::sys::datagrams::{Message, Parcel};
use crate::sys::socket::RawAddress;
use crate::sys::sockopt::set_int;

/// Between two places of the block, so that datagrams do not all meet in the same lines of the cache.
const SKEW_BYTES: usize = 192;

/// Lets the kernel hand over datagrams of one sender that came together as one (`UDP_GRO`). False if it cannot (before
/// Linux 5.0).
pub fn join_datagrams(socket: BorrowedFd<'_>) -> bool {
    set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
}

/// Whether the kernel cuts a buffer into datagrams (`UDP_SEGMENT`, Linux 4.18).
pub fn cuts_datagrams(socket: BorrowedFd<'_>) -> bool {
    // Zero is what it is set to already; a kernel that does not know it says so.
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Where datagrams of one batch are received: places for their bytes, addresses and control messages.
pub struct Incoming {
    block: Box<[u8]>,
    /// From one place to the next.
    stride: usize,
    place_bytes: usize,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
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
            slices: Vec::with_capacity(places),
            headers: Vec::with_capacity(places),
        }
    }

    pub fn places(&self) -> usize {
        self.names.len()
    }

    pub fn place_bytes(&self) -> usize {
        self.place_bytes
    }

    /// Receives up to so many datagrams, but no more than there are places, and returns how many came. One system call.
    ///
    /// # Errors
    /// The kernel's: `EAGAIN` when there is none; what is pending at the socket, such as `ECONNREFUSED`, which is no
    /// longer pending then. Nothing was received in either case.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.min(self.places());
        self.slices.clear();
        self.headers.clear();
        let places = self.block.chunks_exact_mut(self.stride).take(most);
        self.slices.extend(
            places
                .map(|place| libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: self.place_bytes }),
        );
        let parts = self.slices.iter_mut().zip(&mut self.names).zip(&mut self.controls);
        for ((slice, name), control) in parts {
            let mut header = empty_header();
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = RawAddress::BYTES as _;
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = Control::BYTES as _;
            self.headers.push(header);
        }
        let headers = self.headers.as_mut_ptr().expose_provenance();
        let arguments = [kernel::descriptor(socket), headers, self.headers.len(), 0, 0, 0];
        // SAFETY: recvmmsg(2) reads and writes so many `mmsghdr`s from `headers` on, and writes at most what each allows to
        // its name, control block and one slice of bytes. They were pointed above at places of `self` that do not
        // overlap, are borrowed exclusively, as large as said, and do not move before it returns; any bytes are valid in them.
        // No timeout is given. (test: `received_datagrams_stay_in_their_places`)
        unsafe { kernel::call(libc::SYS_recvmmsg, arguments) }
    }

    /// What came in place `index` of the last [`receive`](Self::receive); nothing of use beyond what it returned.
    ///
    /// # Panics
    /// If the last receive did not offer that place.
    pub fn message(&self, index: usize) -> Message {
        let header = &self.headers[index];
        Message {
            start: index * self.stride,
            len: (header.msg_len as usize).min(self.place_bytes),
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            peer: self.names[index].decode(),
            facts: self.controls[index].facts(header.msg_hdr.msg_controllen as _),
        }
    }

    /// The block, in which messages lie in order.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.block
    }
}

/// Headers for sending one batch.
pub struct Outgoing {
    names: Vec<RawAddress>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Outgoing {
    /// Parcels that leave in one call, at most.
    pub const PARCELS_MAX: usize = 64;

    pub fn new() -> Self {
        Self {
            names: Vec::with_capacity(Self::PARCELS_MAX),
            controls: Vec::with_capacity(Self::PARCELS_MAX),
            slices: Vec::with_capacity(Self::PARCELS_MAX),
            headers: Vec::with_capacity(Self::PARCELS_MAX),
        }
    }

    /// Sends the first parcels, [`PARCELS_MAX`](Self::PARCELS_MAX) at most, and returns how many were taken: possibly fewer
    /// than were given, and at least one. One system call.
    ///
    /// # Errors
    /// The kernel's about the first parcel: `EAGAIN` when the socket is full, `EMSGSIZE`, `EPERM` of a filter, `ENETUNREACH`;
    /// or what is pending at the socket. `EIO` and `EINVAL` for segments that cannot be cut.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        parcels: impl Iterator<Item = Parcel<'a>>,
    ) -> io::Result<usize> {
        self.names.clear();
        self.controls.clear();
        self.slices.clear();
        self.headers.clear();
        for Parcel { to, from, bytes, segment } in parcels.take(Self::PARCELS_MAX) {
            let mut name = RawAddress::new();
            let mut header = empty_header();
            header.msg_hdr.msg_namelen = name.encode(to) as _;
            self.names.push(name);
            let mut control = Control::new();
            header.msg_hdr.msg_controllen = control.write(from, segment) as _;
            self.controls.push(control);
            // The cast drops `const`; sendmmsg(2) only reads.
            self.slices
                .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            self.headers.push(header);
        }
        let parts = self.slices.iter_mut().zip(&mut self.names).zip(&mut self.controls);
        for (header, ((slice, name), control)) in self.headers.iter_mut().zip(parts) {
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            if header.msg_hdr.msg_controllen > 0 {
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            }
        }
        let headers = self.headers.as_mut_ptr().expose_provenance();
        let flags = kernel::int(libc::MSG_NOSIGNAL);
        let arguments = [kernel::descriptor(socket), headers, self.headers.len(), flags, 0, 0];
        // SAFETY: sendmmsg(2) reads so many `mmsghdr`s from `headers` on, what their names, control blocks and slices point
        // at, and writes `msg_len` of each. Names, controls and slices are those of `self`, complete and not moved since the
        // pointers were taken; the bytes are borrowed for 'a, beyond the call. (test: `parcels_arrive_whole_and_in_order`)
        unsafe { kernel::call(libc::SYS_sendmmsg, arguments) }
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is plain C data, integers and pointers; all zeroes is a valid one, and the only way to fill the
    // private padding some libcs have. (test: `parcels_arrive_whole_and_in_order`)
    unsafe { mem::zeroed() }
}

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the other half has to do the same")]
#[path = "../datagrams/batch_tests.rs"]
mod tests;
