//! Descriptors of somebody else at a poller: registered and reported, and that is all.
//!
//! Their events carry [`WATCHED`] in the driver's bits of their key, so that they are told from those of sources without a look into
//! a table. One `epoll_ctl` to begin, one to end; nothing in between.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::super::{Interest, Ready, Watcher};
use crate::mem::Key;
use crate::sys;

/// The driver's bits of the key of a watched descriptor.
pub const WATCHED: u8 = 1;

/// Watches them at an epoll instance.
pub struct Watch {
    epoll: Rc<sys::Epoll>,
    /// System calls that are not counted yet.
    calls: Cell<u64>,
}

impl Watch {
    pub fn new(epoll: Rc<sys::Epoll>) -> Self {
        Self { epoll, calls: Cell::new(0) }
    }

    /// How many system calls there were since it was asked last.
    #[inline]
    pub fn take_calls(&self) -> u64 {
        self.calls.take()
    }
}

impl Watcher for Watch {
    fn watch(&self, key: Key, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        // A child would take its parent's events.
        sys::assert_not_forked();
        let wanted = |which, bits| if interest.contains(which) { bits } else { 0 };
        let bits = wanted(Interest::READABLE, sys::WATCH_IN)
            | wanted(Interest::WRITABLE, sys::WATCH_OUT)
            | wanted(Interest::PRIORITY, sys::WATCH_URGENT);
        self.calls.set(self.calls.get() + 1);
        self.epoll.add(fd, bits, key.with_driver_bits(WATCHED))
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        // The instance is the parent's as well, and so would the registration be that goes.
        if !sys::is_child() {
            self.calls.set(self.calls.get() + 1);
            // One that its owner has closed by its number is not there any more.
            let _ = self.epoll.delete(fd);
        }
    }
}

/// What an event says of a watched descriptor.
pub fn ready(event: sys::Event) -> Ready {
    let when = |holds, ready| if holds { ready } else { Ready::EMPTY };
    let hung_up = event.is_hang_up();
    when(event.is_readable(), Ready::READABLE)
        | when(event.is_writable(), Ready::WRITABLE)
        | when(event.is_urgent(), Ready::PRIORITY)
        | when(hung_up || event.is_peer_closed(), Ready::READ_CLOSED)
        // Of the pipe whose reader is gone there is an error, and that is what writing says as well.
        | when(hung_up || (event.is_writable() && event.is_error()), Ready::WRITE_CLOSED)
        | when(event.is_error(), Ready::ERROR)
}
