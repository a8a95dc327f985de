//! The ring: what is asked of the kernel goes in here, and what it says comes out.
//!
//! An order without a pointer is safe to give: whatever descriptor it names, the kernel answers with an error or does it. One
//! with a pointer is [`Ring::send`], whose memory has to stay until an [`enter`](Ring::enter) has taken the order.
//!
//! Invariant: orders are carried out in the order in which they were given. Nothing is asked between two enters; what an
//! enter has brought lies in `came` when it returns, overflows included.
//!
//! A ring belongs to the thread that has made it (`IORING_SETUP_SINGLE_ISSUER`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Napi, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::mem::Key;
use crate::sys;

/// Orders between two enters; more of them enter once more. 64 bytes each.
const ORDERS: u32 = 512;

/// Answers between two looks, 16 bytes each; the kernel keeps what is more (`IORING_FEAT_NODROP`).
const ANSWERS: u32 = 4096;

/// Driver's bits of the number of an order: what is no source's.
/// Sends that leave with the next enter; the rest of the number is a place in a list.
pub const SOON: u8 = 1;
/// The bell.
pub const BELL: u8 = 2;
/// The epoll instance for descriptors of somebody else.
pub const WATCHED: u8 = 3;
/// Orders whose answer nobody waits for.
const NOBODY: u8 = 15;

/// The number of an order that is no source's.
pub const fn special(bits: u8, place: usize) -> u64 {
    Key::new(0, 0, place).with_driver_bits(bits)
}

/// Where the cap of a multishot receive stands in an entry (`optlen` of `struct io_uring_sqe`, linux/io_uring.h).
const CAP_OFFSET: usize = 44;

const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// One answer of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Of the order.
    pub id: u64,
    /// A number, or an error as its negative number.
    pub result: i32,
    pub flags: u32,
    /// Where in its block lies what was received, once that is known (`buffers.rs`).
    pub start: Option<u32>,
}

impl Answer {
    /// The order stands: more answers follow.
    #[inline]
    pub fn has_more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// More input may be had from the socket.
    #[inline]
    pub fn has_more_input(self) -> bool {
        io_uring::cqueue::sock_nonempty(self.flags)
    }

    /// The buffer that it has filled, and whether it goes on with that one.
    #[inline]
    pub fn buffer(self) -> Option<(u16, bool)> {
        Some((io_uring::cqueue::buffer_select(self.flags)?, io_uring::cqueue::buffer_more(self.flags)))
    }

    /// Its first bytes, whose place is known, were taken. Without any it says no more than that an order may have ended.
    pub fn skip(&mut self, bytes: usize) {
        self.start = self.start.map(|start| start + bytes as u32);
        self.result -= bytes as i32;
        if self.result == 0 {
            self.result = -libc::ECANCELED;
        }
    }

    /// The error, if it is one.
    pub fn error(self) -> Option<io::Error> {
        (self.result < 0).then(|| io::Error::from_raw_os_error(-self.result))
    }
}

/// The ring of one worker.
pub struct Ring {
    ring: IoUring,
    name: sys::RingName,
    came: VecDeque<Answer>,
    /// Sends that were cut short: their places, and what was said of them.
    short_sends: Vec<(usize, i32)>,
    /// Enters since [`take_enters`](Self::take_enters).
    enters: u64,
    /// Of the orders that the kernel has not taken, one is to close something.
    closes: bool,
    /// See [`defers`](Self::defers).
    defers: bool,
}

impl Ring {
    /// A ring for this thread.
    ///
    /// # Errors
    /// The kernel's: `ENOSYS` or `EPERM` where it is forbidden, `ENOMEM` at the limit on locked memory, `EINVAL` before Linux 6.0.
    pub fn new() -> io::Result<Self> {
        let common = || {
            let mut builder = IoUring::builder();
            builder.setup_clamp().setup_cqsize(ANSWERS).setup_submit_all().setup_single_issuer();
            builder
        };
        // What is ready is done by the enter that waits (6.1); else whenever the thread enters the kernel.
        let deferring = common().setup_defer_taskrun().setup_taskrun_flag().build(ORDERS);
        let defers = deferring.is_ok();
        let ring = deferring.or_else(|_| common().setup_coop_taskrun().setup_taskrun_flag().build(ORDERS))?;
        let params = ring.params();
        if !(params.is_feature_nodrop()
            && params.is_feature_ext_arg()
            && params.is_feature_skip_cqe_on_success())
        {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the ring is open. (test: `a_wait_ends_in_time_or_by_the_bell`)
        let name = sys::RingName::of(unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) });
        Ok(Self {
            ring,
            name,
            came: VecDeque::new(),
            short_sends: Vec::new(),
            enters: 0,
            closes: false,
            defers,
        })
    }

    /// Whether the kernel does its work within enters only.
    pub fn defers(&self) -> bool {
        self.defers
    }

    pub fn io_uring(&self) -> &IoUring {
        &self.ring
    }

    /// Has the kernel poll the network cards of its sockets for a while before a wait sleeps, eight packets at a time.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` before Linux 6.9, and where it was built without that.
    pub fn busy_poll(&self, usecs: u32, prefer: bool) -> io::Result<()> {
        let mut settings = Napi::new().set_busy_poll_timeout(usecs).set_prefer_busy_poll(prefer);
        self.ring.submitter().register_napi(&mut settings)
    }

    /// Receives into provided buffers until the stream ends, so many bytes have come, there is no buffer or it is cancelled.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, group: u16, cap: Option<u32>, id: u64) {
        let mut entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), group).build().user_data(id);
        if let Some(cap) = cap {
            let field = (&raw mut entry).cast::<u8>().wrapping_add(CAP_OFFSET).cast::<u32>();
            // SAFETY: an entry is the kernel's `struct io_uring_sqe`, 64 bytes (checked above) of plain numbers; these four are
            // aligned and inside. (test: `a_receive_ends_at_its_cap_and_the_rest_stays_in_the_socket`)
            unsafe { field.write(cap) };
        }
        self.order(&entry);
    }

    /// Says when one of these events is there: each time, or once.
    pub fn poll(&mut self, fd: BorrowedFd<'_>, events: u32, each_time: bool, id: u64) {
        let order = opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).multi(each_time);
        self.order(&order.build().user_data(id));
    }

    /// The same, once, and given up after a time: the answer is `ECANCELED` then.
    pub fn poll_for(&mut self, fd: BorrowedFd<'_>, events: u32, time: &'static Timespec, id: u64) {
        // Linked entries have to be taken by one enter.
        if self.orders() + 2 > self.ring.params().sq_entries() as usize {
            self.submit();
        }
        let order = opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).build();
        self.order(&order.flags(squeue::Flags::IO_LINK).user_data(id));
        self.order(&opcode::LinkTimeout::new(time).build().user_data(special(NOBODY, 0)));
    }

    /// Ends an order, which gets its last answer.
    pub fn cancel(&mut self, id: u64) {
        let entry = opcode::AsyncCancel::new(id).build().user_data(special(NOBODY, 0));
        self.order(&entry.flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Ends all orders.
    pub fn cancel_all(&mut self) {
        let order = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.order(&order.user_data(special(NOBODY, 0)));
    }

    /// Closes a descriptor, behind all orders that were given for it.
    pub fn close(&mut self, fd: OwnedFd) {
        let entry = opcode::Close::new(Fd(fd.into_raw_fd())).build().user_data(special(NOBODY, 0));
        self.order(&entry.flags(squeue::Flags::SKIP_SUCCESS));
        self.closes = true;
    }

    /// Whether the next enter closes anything.
    pub fn closes(&mut self) -> bool {
        self.closes && self.has_orders()
    }

    /// Sends now or not at all: bytes that the socket has no room for are not waited for. There is an answer only if not all
    /// of them left: how many did, or the error.
    ///
    /// # Safety
    /// The bytes stay where they are until [`has_orders`](Self::has_orders) is false.
    pub unsafe fn send(&mut self, fd: BorrowedFd<'_>, bytes: *const u8, len: u32, id: u64) {
        let order = opcode::Send::new(Fd(fd.as_raw_fd()), bytes, len).flags(AT_ONCE);
        self.order(&order.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(id));
    }

    /// The same of several pieces.
    ///
    /// # Safety
    /// As [`send`](Self::send), of the pieces and of what lists them.
    pub unsafe fn send_pieces(&mut self, fd: BorrowedFd<'_>, message: *const libc::msghdr, id: u64) {
        let order = opcode::SendMsg::new(Fd(fd.as_raw_fd()), message).flags(AT_ONCE as u32);
        self.order(&order.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(id));
    }

    #[inline]
    fn order(&mut self, entry: &squeue::Entry) {
        // A child would give its parent's orders.
        sys::assert_not_forked();
        // SAFETY: what an entry points to has to be valid until the order is carried out. Entries of this file point to nothing,
        // to a static, or to what the caller of an unsafe function keeps. (test: `what_is_sent_soon_has_left_with_the_next_wait`)
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    /// Orders that the kernel has not taken.
    fn orders(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Whether there are orders that the kernel has not taken.
    #[inline]
    pub fn has_orders(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether an enter that does not wait would do anything.
    #[inline]
    pub fn is_idle(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Hands over the orders and does not wait.
    pub fn submit(&mut self) {
        // What was not taken is handed over again by the next enter, whose error is told.
        let _ = self.enter(false, None);
    }

    /// Hands over the orders, waits for an answer if it is to, for a time or for ever, and takes in what there is.
    ///
    /// # Errors
    /// Only what makes further waiting pointless.
    pub fn enter(&mut self, waits: bool, time: Option<Duration>) -> io::Result<()> {
        let orders = self.orders() as u32;
        let entered = self.name.enter(orders, u32::from(waits), time.filter(|_| waits));
        self.enters += 1;
        self.closes &= self.has_orders();
        self.take_in();
        while self.ring.submission().cq_overflow() {
            self.enters += 1;
            self.name.enter(0, 0, None)?;
            self.take_in();
        }
        match entered {
            Ok(_) => Ok(()),
            // The time is over, or a signal came; what was handed over is done. Without memory, or with too many answers
            // outstanding, orders are left for the next enter.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes in what the kernel has said without being entered.
    pub fn take_in(&mut self) {
        for entry in self.ring.completion() {
            let answer =
                Answer { id: entry.user_data(), result: entry.result(), flags: entry.flags(), start: None };
            match Key::split_driver_bits(answer.id) {
                (_, NOBODY) => {}
                (place, SOON) => self.short_sends.push((place.index(), answer.result)),
                _ => self.came.push_back(answer),
            }
        }
    }

    pub fn came(&mut self) -> &mut VecDeque<Answer> {
        &mut self.came
    }

    /// Sends that were cut short.
    #[inline]
    pub fn short_sends(&mut self) -> std::vec::Drain<'_, (usize, i32)> {
        self.short_sends.drain(..)
    }

    /// How often the kernel was entered since this was asked last.
    #[inline]
    pub fn take_enters(&mut self) -> u64 {
        std::mem::take(&mut self.enters)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A child has no names.
        if !sys::is_child() {
            // SAFETY: the ring is open. (test: `a_wait_ends_in_time_or_by_the_bell`)
            self.name.forget(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) });
        }
    }
}

/// All of it or as much as there is room for, and no SIGPIPE. `MSG_WAITALL` makes a short send one that has failed, which is
/// answered; `MSG_DONTWAIT` ends it there.
const AT_ONCE: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
