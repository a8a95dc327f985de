//! Who waits for a stream: one to read, one to write.
//!
//! A task of the worker itself is known by its key: nothing is cloned, nothing is called to wake it, and who has something for it can poll it
//! on the spot. Whoever waits with another waker (a handler inside its connection, a future that has wakers of its own) is kept with that.
//!
//! Invariant: nothing is taken out of the rest while a waker is cloned, woken or dropped.

use std::task::Waker;

use super::{Shared, WANTS, WRITER_WAITS};
use crate::mem::{self, Key};
use crate::task::Parked;

/// Nobody waits: no key, as tasks have a table of their own.
pub const NOBODY: u64 = 0;
/// Whoever the waker leads to that is kept.
const WAKER: u64 = u64::MAX;

impl Shared {
    /// Keeps who waits for input where none lies, in the place of an earlier one. Who waits for any is idle, or will be soon.
    #[inline]
    pub(super) fn wait_for_any(&self, waker: &Waker) {
        match self.lane.executor().task_of(waker) {
            Some(task) => {
                self.reader.set(task.to_bits());
                self.rest.settle_without_reader();
            }
            None => {
                self.rest.settle();
                self.keep_reader(waker);
            }
        }
    }

    /// The same until so many bytes lie here.
    pub(super) fn wait_for_bytes(&self, waker: &Waker, wanted: usize) {
        let task = self.lane.executor().task_of(waker);
        self.set(WANTS);
        let mut rest = self.rest.get_or_make();
        rest.wanted = wanted;
        match task {
            Some(task) => {
                self.reader.set(task.to_bits());
                let over = rest.reader.take();
                drop(rest);
                drop(over);
            }
            None => {
                drop(rest);
                self.keep_reader(waker);
            }
        }
    }

    fn keep_reader(&self, waker: &Waker) {
        self.reader.set(WAKER);
        let known = self.rest.get().and_then(|mut rest| rest.reader.take());
        let (kept, over) = match known {
            Some(known) if known.will_wake(waker) => (known, None),
            known => (waker.clone(), known),
        };
        let before = self.rest.get_or_make().reader.replace(kept);
        drop((over, before));
    }

    /// The task that waits for input, if there is one and any will do: it can be polled where the input lies.
    #[inline]
    pub fn take_reader(&self) -> Option<Key> {
        if self.has(WANTS) { None } else { self.take_reading_task() }
    }

    #[inline]
    fn take_reading_task(&self) -> Option<Key> {
        match self.reader.get() {
            NOBODY | WAKER => None,
            bits => {
                self.reader.set(NOBODY);
                Some(Key::from_bits(bits))
            }
        }
    }

    /// Wakes who waits for input, once.
    #[inline]
    pub(super) fn wake_reader(&self) {
        if self.reader.get() == NOBODY {
            return;
        }
        match self.take_reading_task() {
            Some(task) => self.lane.wake(task),
            None => self.wake_kept_reader(),
        }
    }

    fn wake_kept_reader(&self) {
        self.reader.set(NOBODY);
        let Some(waker) = self.rest.get().and_then(|mut rest| rest.reader.take()) else { return };
        mem::guarded(|| waker.wake_by_ref());
        // What was woken may have waited again, inside.
        let mut rest = self.rest.get_or_make();
        let over = if rest.reader.is_some() { Some(waker) } else { rest.reader.replace(waker) };
        drop(rest);
        mem::discard(over);
    }

    /// Keeps who waits for room to write, or for the connection, in the place of an earlier one.
    pub(super) fn wait_to_write(&self, waker: &Waker) {
        let is_known = |known: &Parked| known.is(&self.lane, waker);
        // Whether it will wake another is asked of a waker of ours or of the standard's.
        if self.rest.get().is_some_and(|rest| rest.writer.as_ref().is_some_and(is_known)) {
            return;
        }
        let who = Parked::of(&self.lane, waker);
        self.set(WRITER_WAITS);
        let before = self.rest.get_or_make().writer.replace(who);
        drop(before);
    }

    /// Wakes it, once.
    #[inline]
    pub(super) fn wake_writer(&self) {
        if self.has(WRITER_WAITS) {
            self.wake_waiting_writer();
        }
    }

    fn wake_waiting_writer(&self) {
        self.clear(WRITER_WAITS);
        let who = self.rest.get().and_then(|mut rest| rest.writer.take());
        if let Some(who) = who {
            who.wake(&self.lane);
        }
    }
}
