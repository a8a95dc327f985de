//! Descriptors that are watched for somebody: what the kernel has said of each, and who waits for it.
//!
//! Edge-triggered: what is so is said once, so it is remembered until somebody who has tried knows better.
//!
//! Invariant: a descriptor is registered at the kernel exactly while its key is in the table. What was reported when it is not
//! there any more finds nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::conn::Tables;
use crate::driver::{Interest, Ready, Watcher};
use crate::mem::{Key, KeySlab};
use crate::sync::{Crowd, Step, drive, wake_each};
use crate::task::{self, Lane};

/// What is known of one descriptor.
#[derive(Default)]
pub struct Readiness {
    ready: Cell<Ready>,
    /// How often something was reported: who has tried before the last report knows nothing of now.
    reports: Cell<u32>,
    readers: RefCell<Crowd>,
    writers: RefCell<Crowd>,
}

/// A reading of a [`Readiness`].
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub ready: Ready,
    reports: u32,
}

impl Readiness {
    /// What is so now of what ends a wait with this interest. `None` if nothing of it is.
    pub fn see(&self, interest: Interest) -> Option<Seen> {
        let ready = self.ready.get().and(Ready::ends(interest));
        (!ready.is_empty()).then_some(Seen { ready, reports: self.reports.get() })
    }

    /// A try has found nothing, so nothing of this is so any more, unless something was reported since. Not even the end, of which
    /// a datagram socket knows another kind: who believed it more than the try would try for ever.
    pub fn found_nothing(&self, seen: Seen) {
        if seen.reports == self.reports.get() {
            self.ready.set(self.ready.get().without(seen.ready));
        }
    }

    /// It is not so any more, as somebody says, unless something was reported since. What is at an end stays so.
    pub fn clear(&self, what: Ready, seen: Seen) {
        if seen.reports == self.reports.get() {
            let lasting = Ready::READ_CLOSED | Ready::WRITE_CLOSED;
            self.ready.set(self.ready.get().without(what.without(lasting)));
        }
    }

    /// Waits until something is so that ends a wait with this interest.
    pub fn poll(&self, interest: Interest, place: &mut Place, cx: &Context<'_>) -> Poll<Seen> {
        drive(cx.waker(), |spare| {
            if let Some(seen) = self.see(interest) {
                return Step::Ready(seen);
            }
            // Two wakers where both directions are waited for.
            let reads = interest.contains(Interest::READABLE) || interest.contains(Interest::PRIORITY);
            let kept = (!reads || self.readers.borrow_mut().wait(&mut place.reader, cx.waker(), spare))
                && (!interest.contains(Interest::WRITABLE)
                    || self.writers.borrow_mut().wait(&mut place.writer, cx.waker(), spare));
            if kept { Step::Pending(None) } else { Step::Clone }
        })
    }

    /// Nobody waits at this place any more.
    pub fn leave(&self, place: &mut Place) {
        let reader = place.reader.take().map(|place| self.readers.borrow_mut().remove(place));
        drop(reader);
        let writer = place.writer.take().map(|place| self.writers.borrow_mut().remove(place));
        drop(writer);
    }

    fn report(&self, ready: Ready) {
        self.ready.set(self.ready.get() | ready);
        self.reports.set(self.reports.get().wrapping_add(1));
        let both = Interest::READABLE | Interest::PRIORITY;
        let ends = |interest| !ready.and(Ready::ends(interest)).is_empty();
        if ends(both) {
            wake(&self.readers);
        }
        if ends(Interest::WRITABLE) {
            wake(&self.writers);
        }
    }
}

/// Wakes a crowd, with nothing borrowed.
pub fn wake(crowd: &RefCell<Crowd>) {
    let mut at = 0;
    wake_each(|| crowd.borrow_mut().take_from(&mut at));
}

/// Where somebody waits for one descriptor.
#[derive(Debug, Default)]
pub struct Place {
    reader: Option<usize>,
    writer: Option<usize>,
}

/// The watched descriptors of one worker.
pub struct Watched {
    /// `None` where there are no descriptors to watch, and when the worker has ended.
    watcher: RefCell<Option<Rc<dyn Watcher>>>,
    slots: RefCell<KeySlab<Rc<Readiness>>>,
    some_died: Cell<bool>,
}

impl Watched {
    /// Those of a worker, which its lane leads to from now on.
    pub fn of(lane: &Lane, watcher: Option<Rc<dyn Watcher>>) -> Rc<Self> {
        let slots = RefCell::new(KeySlab::new(Tables::WATCHED));
        let watched = Rc::new(Self { watcher: RefCell::new(watcher), slots, some_died: Cell::new(false) });
        lane.keep(Rc::clone(&watched));
        watched
    }

    /// Those of the worker that this thread is.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn current(what: &str) -> Rc<Self> {
        task::current(what).kept().expect("a worker has a table of them")
    }

    /// Watches a descriptor from now on.
    ///
    /// # Errors
    /// `Unsupported` where there are none; the kernel's.
    ///
    /// # Panics
    /// With 16 million of them.
    pub fn watch(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<(Key, Rc<Readiness>)> {
        let watcher = self.watcher.borrow().clone().ok_or_else(|| {
            let message =
                "nothing watches descriptors here: the network is a simulated one, or the worker has ended";
            io::Error::new(io::ErrorKind::Unsupported, message)
        })?;
        let readiness = Rc::new(Readiness::default());
        let key = self.slots.borrow_mut().insert_with(|_| Rc::clone(&readiness));
        let key = key.expect("a worker watches at most 16 million descriptors");
        match watcher.watch(key, fd, interest) {
            Ok(()) => Ok((key, readiness)),
            Err(error) => {
                self.forget(key);
                Err(explained(error))
            }
        }
    }

    /// Does so no more. Before the descriptor is closed.
    pub fn unwatch(&self, key: Key, fd: BorrowedFd<'_>) {
        self.forget(key);
        // The instance goes with the last one who may want this.
        if let Some(watcher) = &*self.watcher.borrow() {
            watcher.unwatch(fd);
        }
    }

    fn forget(&self, key: Key) {
        let readiness = self.slots.borrow_mut().remove(key);
        self.some_died.set(true);
        drop(readiness);
    }

    /// The kernel has something to say of one.
    pub fn report(&self, key: Key, ready: Ready) {
        let readiness = self.slots.borrow().get(key).cloned();
        if let Some(readiness) = readiness {
            readiness.report(ready);
        }
    }

    /// The worker has ended: nothing more is reported.
    pub fn close(&self) {
        self.watcher.replace(None);
    }

    #[inline]
    pub fn reclaim(&self) {
        if self.some_died.replace(false) {
            self.slots.borrow_mut().reclaim();
        }
    }

    pub fn shrink(&self) {
        self.slots.borrow_mut().shrink();
    }
}

/// What the kernel's number means here.
fn explained(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "it is always ready, as files on disk are: nobody can wait for it",
        Some(libc::EEXIST) => "it is watched on this worker already: watch a copy of it (dup)",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("cannot watch the descriptor: {why}"))
}
