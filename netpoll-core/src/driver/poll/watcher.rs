//! Descriptors of somebody else at a poller: registered and reported, and that is all.
//!
//! Their events carry [`WATCHED`] in the driver's bits of their key, so that they are told from those of sources without a look into
//! a table. One `epoll_ctl` to begin, one to end; nothing in between.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::super::{Interest, Watcher};
use super::streams::Register;
use crate::mem::Key;
use crate::sys;

/// The driver's bits of the key of a watched descriptor.
pub const WATCHED: u8 = 1;

/// Watches them at a poller.
pub struct Watch<R> {
    poller: Rc<R>,
    /// System calls that are not counted yet.
    calls: Cell<u64>,
}

impl<R> Watch<R> {
    pub fn new(poller: Rc<R>) -> Self {
        Self { poller, calls: Cell::new(0) }
    }

    /// How many system calls there were since it was asked last.
    #[inline]
    pub fn take_calls(&self) -> u64 {
        self.calls.take()
    }
}

impl<R: Register> Watcher for Watch<R> {
    fn watch(&self, key: Key, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        // A child would take its parent's events.
        sys::assert_not_forked();
        self.calls.set(self.calls.get() + 1);
        self.poller.watch(fd, key.with_driver_bits(WATCHED), interest)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) {
        // The instance is the parent's as well, and so would the registration be that goes.
        if !sys::is_child() {
            self.calls.set(self.calls.get() + 1);
            // One that its owner has closed by its number is not there any more.
            let _ = self.poller.unwatch(fd);
        }
    }
}
