//! An epoll instance, and the array that the kernel reports into.
//!
//! Sources are registered once with 64 bits of the caller's choice: streams and doorbells edge-triggered, listeners
//! level-triggered. Waiting is one system call and allocates nothing.
//!
//! Timed waits use `epoll_pwait2` (Linux 5.11), which takes nanoseconds. A kernel without it, or a
//! sandbox that forbids it, is asked once; from then on the wait is rounded up to milliseconds.
//! One [`Epoll`] belongs to one worker: it is `Send`, not `Sync`.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::c_int;

use super::kernel;
use crate::sys::checked;
use crate::sys::timeout::Timeout;

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
const HANG_UP: u32 = libc::EPOLLHUP as u32;
const ERROR: u32 = libc::EPOLLERR as u32;
const URGENT: u32 = libc::EPOLLPRI as u32;
const EDGE: u32 = libc::EPOLLET as u32;

/// Interest of a connection: both directions, urgent data and the peer's FIN, edge-triggered.
pub const EDGE_STREAM: u32 = IN | OUT | URGENT | PEER_CLOSED | EDGE;

/// Interest of a doorbell or a datagram socket: incoming only, edge-triggered.
pub const EDGE_IN: u32 = IN | EDGE;

/// Interest of a datagram socket that waits for room, beside what comes in.
pub const EDGE_IN_OUT: u32 = IN | OUT | EDGE;

/// Interest in the input of a descriptor that belongs to somebody else, and in the end of it, edge-triggered.
pub const WATCH_IN: u32 = IN | PEER_CLOSED | EDGE;

/// Interest in room for its output.
pub const WATCH_OUT: u32 = OUT | EDGE;

/// Interest in its urgent data, or what else it reports as such.
pub const WATCH_URGENT: u32 = URGENT | EDGE;

/// Interest of a listener: incoming only, reported by every wait as long as somebody is queued.
pub const LEVEL_IN: u32 = IN;

/// Interest of a listener that several instances share: when somebody joins the queue only one of those that wait is woken, the
/// one that was registered longest ago (`EPOLLEXCLUSIVE`). Cannot be modified, only deleted.
pub const LEVEL_IN_SHARED: u32 = IN | libc::EPOLLEXCLUSIVE as u32;

/// No interest. Errors and hang-ups are reported all the same (epoll_ctl(2)), but once and not by every wait.
pub const NOTHING: u32 = libc::EPOLLONESHOT as u32;

/// The most events that one wait may ask for: `EP_MAX_EVENTS` of the kernel (fs/eventpoll.c).
const EVENTS_MAX: usize = i32::MAX as usize / size_of::<libc::epoll_event>();

/// Signals stay as they are during a wait.
const NO_MASK: usize = 0;

/// `struct __kernel_timespec`: 64 bits per field on every architecture, unlike libc's `timespec`.
#[repr(C)]
pub(super) struct KernelTimespec {
    seconds: i64,
    /// below 1_000_000_000, or the kernel answers `EINVAL`
    nanoseconds: i64,
}

const _: () = assert!(size_of::<KernelTimespec>() == 16);

impl KernelTimespec {
    pub(super) fn new(time: Duration) -> KernelTimespec {
        KernelTimespec {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(time.subsec_nanos()),
        }
    }
}

/// `struct epoll_params` of linux/eventpoll.h (Linux 6.9).
#[repr(C)]
struct BusyPollParams {
    usecs: u32,
    budget: u16,
    prefer: u8,
    /// must be zero, or the kernel answers `EINVAL`
    padding: u8,
}

const _: () = assert!(size_of::<BusyPollParams>() == 8 && align_of::<BusyPollParams>() == 4);

/// `EPIOCSPARAMS`: `_IOW(0x8A, 0x01, struct epoll_params)`.
const SET_BUSY_POLL: libc::Ioctl = libc::_IOW::<BusyPollParams>(0x8A, 0x01);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const _: () = assert!(SET_BUSY_POLL as u32 == 0x4008_8A01);

/// What happened to one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the source was registered with.
    pub data: u64,
    /// `EPOLLIN | EPOLLOUT | ..` as the kernel reported it.
    pub bits: u32,
}

impl Event {
    /// There are bytes, connections or a FIN to take.
    #[inline]
    pub fn is_readable(self) -> bool {
        self.bits & IN != 0
    }

    /// There is something to take, and nothing is at an end. There may be room to send as well.
    #[inline]
    pub fn is_plain_input(self) -> bool {
        self.bits & (IN | URGENT | PEER_CLOSED | HANG_UP | ERROR) == IN
    }

    /// The send buffer has room again.
    #[inline]
    pub fn is_writable(self) -> bool {
        self.bits & OUT != 0
    }

    /// The peer shut down its sending side: keep reading until 0, or its last bytes are lost.
    #[inline]
    pub fn is_peer_closed(self) -> bool {
        self.bits & PEER_CLOSED != 0
    }

    /// Urgent data has come and lies unread, or a part of it: reading stops short at its mark (tcp(7)).
    #[inline]
    pub fn is_urgent(self) -> bool {
        self.bits & URGENT != 0
    }

    /// Both directions are shut down.
    #[inline]
    pub fn is_hang_up(self) -> bool {
        self.bits & HANG_UP != 0
    }

    /// The socket has an error for [`take_error`](crate::sys::take_error).
    #[inline]
    pub fn is_error(self) -> bool {
        self.bits & ERROR != 0
    }
}

/// Where the kernel puts events; allocated once.
pub struct Events {
    slots: Vec<libc::epoll_event>,
    /// how many slots the last wait filled; <= slots.len()
    filled: usize,
}

impl Events {
    /// Room for `capacity` events: 12 bytes each on x86-64, 16 elsewhere.
    ///
    /// # Panics
    /// When `capacity` is zero or above what the kernel takes in one wait (178 million).
    pub fn with_capacity(capacity: usize) -> Events {
        assert!((1..=EVENTS_MAX).contains(&capacity), "event capacity {capacity}");
        Events { slots: vec![libc::epoll_event { events: 0, u64: 0 }; capacity], filled: 0 }
    }

    /// Event number `index` of the last wait.
    ///
    /// # Panics
    /// When the last wait returned no more than `index` events.
    #[inline]
    pub fn get(&self, index: usize) -> Event {
        assert!(index < self.filled, "event {index} of {}", self.filled);
        let slot = self.slots[index];
        Event { data: slot.u64, bits: slot.events }
    }
}

/// An epoll instance.
pub struct Epoll {
    fd: OwnedFd,
    /// `epoll_pwait2` was refused once, so it is not tried again
    coarse: Cell<bool>,
}

impl Epoll {
    /// A new, empty instance, close-on-exec.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENFILE` or `ENOMEM`.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1(2) takes no pointers; any flag word is allowed.
        // (test: `an_event_carries_the_data_of_its_source`)
        let raw = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns. The line above has just got it
        // from the kernel, and `raw` is not used again. (test: `dropping_an_epoll_closes_its_descriptor`)
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Epoll { fd, coarse: Cell::new(false) })
    }

    /// Reports `bits` of `source` with `data` from now on; what is already true is reported too.
    ///
    /// # Errors
    /// The kernel's: `EEXIST` when registered already, `EPERM` for a regular file, `ENOMEM`, `ENOSPC`
    /// at `/proc/sys/fs/epoll/max_user_watches`.
    pub fn add(&self, source: BorrowedFd<'_>, bits: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, source, bits, data)
    }

    /// Reports `bits` of `source` instead of what it was registered with; what is already true is reported too.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` when it is not registered here.
    pub fn modify(&self, source: BorrowedFd<'_>, bits: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, source, bits, data)
    }

    fn control(&self, operation: c_int, source: BorrowedFd<'_>, bits: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: data };
        let (epoll, source) = (self.fd.as_raw_fd(), source.as_raw_fd());
        // SAFETY: epoll_ctl(2) reads one `epoll_event`; `event` is one, initialised, and lives to the
        // end of this function. The kernel keeps a copy, no pointer.
        // (test: `an_event_carries_the_data_of_its_source`)
        checked(unsafe { libc::epoll_ctl(epoll, operation, source, &mut event) })?;
        Ok(())
    }

    /// Reports nothing about `source` any more.
    ///
    /// Closing the last descriptor of a source does the same; this is for one that stays open.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` when it is not registered here.
    pub fn delete(&self, source: BorrowedFd<'_>) -> io::Result<()> {
        let (epoll, source) = (self.fd.as_raw_fd(), source.as_raw_fd());
        // SAFETY: EPOLL_CTL_DEL ignores the event pointer and takes null since Linux 2.6.9
        // (epoll_ctl(2), BUGS). (test: `a_deleted_source_is_silent`)
        checked(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, source, ptr::null_mut()) })?;
        Ok(())
    }

    /// Waits for events and returns how many came; at most `max` and at most the array's capacity.
    ///
    /// One system call. A signal that interrupts the sleep looks like a wait without events. A timed
    /// wait never ends early otherwise: it sleeps in nanoseconds, or in milliseconds rounded up where
    /// `epoll_pwait2` is missing.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` when `max` is zero.
    #[inline]
    pub fn wait(&self, events: &mut Events, max: usize, timeout: Timeout) -> io::Result<usize> {
        events.filled = 0;
        let result = match timeout {
            Timeout::After(time) if !self.coarse.get() => self.wait_nanoseconds(events, max, time),
            _ => self.wait_milliseconds(events, max, timeout.as_millis_rounded_up()),
        };
        events.filled = result.or_else(none_if_interrupted)?;
        Ok(events.filled)
    }

    #[inline]
    fn wait_milliseconds(&self, events: &mut Events, max: usize, millis: i32) -> io::Result<usize> {
        let (slots, room) = room(events, max);
        let arguments = [kernel::descriptor(self.fd.as_fd()), slots, room, kernel::int(millis), NO_MASK, 0];
        // SAFETY: epoll_pwait(2) writes at most `room` events from `slots` on. `room` has limited it to
        // the slots there are; they are borrowed exclusively during the call and any bit pattern is a
        // valid event. A null mask is allowed and its size is then ignored.
        // (test: `a_wait_reports_no_more_than_asked`)
        unsafe { kernel::call(libc::SYS_epoll_pwait, arguments) }
    }

    fn wait_nanoseconds(&self, events: &mut Events, max: usize, time: Duration) -> io::Result<usize> {
        let timespec = KernelTimespec::new(time);
        let limit = (&raw const timespec).expose_provenance();
        let (slots, room) = room(events, max);
        let arguments = [kernel::descriptor(self.fd.as_fd()), slots, room, limit, NO_MASK, 0];
        // SAFETY: epoll_pwait2(2) writes at most `room` events from `slots` on, see above, and reads one
        // `__kernel_timespec`, which `timespec` is; a null mask is allowed and its size is then ignored.
        // (tests: `a_timed_wait_without_events_returns_none`, `a_wait_reports_no_more_than_asked`)
        let error = match unsafe { kernel::call(libc::SYS_epoll_pwait2, arguments) } {
            Ok(count) => return Ok(count),
            Err(error) => error,
        };
        if !is_missing(&error) {
            return Err(error);
        }
        self.coarse.set(true);
        self.wait_milliseconds(events, max, Timeout::After(time).as_millis_rounded_up())
    }

    /// Lets a sleeping wait poll the network card's queues itself (`EPIOCSPARAMS`, Linux 6.9).
    ///
    /// `usecs` is how long, zero turns it off; `budget` is how many packets per try, the kernel's
    /// default is 8 and more than 64 needs `CAP_NET_ADMIN`; `prefer` asks the card to stay quiet
    /// meanwhile. It does nothing on loopback. See the kernel's `networking/napi.rst`.
    ///
    /// # Errors
    /// The kernel's: `ENOTTY` or `EINVAL` before 6.9, `EOPNOTSUPP` without `CONFIG_NET_RX_BUSY_POLL`,
    /// `EINVAL` when `usecs` is above `i32::MAX`, `EPERM` for a large budget.
    pub fn set_busy_poll(&self, usecs: u32, budget: u16, prefer: bool) -> io::Result<()> {
        let params = BusyPollParams { usecs, budget, prefer: u8::from(prefer), padding: 0 };
        // SAFETY: this ioctl reads one `struct epoll_params`; `BusyPollParams` has its layout (size checked
        // above) and `params` outlives the call. (test: `busy_polling_can_be_set_where_the_kernel_has_it`)
        checked(unsafe { libc::ioctl(self.fd.as_raw_fd(), SET_BUSY_POLL, &raw const params) })?;
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The array's start, and `max` limited to what it holds; it fits a `c_int` by `EVENTS_MAX`.
#[inline]
fn room(events: &mut Events, max: usize) -> (usize, usize) {
    (events.slots.as_mut_ptr().expose_provenance(), max.min(events.slots.len()))
}

/// `ENOSYS` is a kernel without the call; `EPERM` is how older sandboxes spell it. `epoll_pwait` itself
/// never fails with either.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

#[cold]
fn none_if_interrupted(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests;
