//! The task that waits for one thing: a peer at a listener. A stream has its own places (`shared/waits.rs`), which are smaller.
//!
//! A task of the worker itself is known by its key: nothing is cloned, and nothing is called to wake it. Whoever waits with another waker (a handler inside its connection, a future that has wakers of its own) is kept with that, which
//! stays when it is woken, so that one that waits again and again is cloned once; until another waits.
//!
//! Invariant: nothing is borrowed while a waker is cloned, woken or dropped.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Waker;

use crate::mem::{self, Key};
use crate::task::Lane;

/// Nobody waits: no key, as tasks have a table of their own.
const NOBODY: u64 = 0;
/// Whoever the waker leads to.
const WAKER: u64 = u64::MAX;

/// One place to wait in. 16 bytes.
#[derive(Default)]
pub struct Wait {
    /// `NOBODY`, `WAKER`, or the key of a task.
    who: Cell<u64>,
    /// Few have one, so it is not part of them.
    waker: Cell<Option<Box<Waker>>>,
}

impl Wait {
    /// Keeps who waits, in the place of an earlier one.
    #[inline]
    pub fn wait(&self, lane: &Lane, waker: &Waker) {
        match lane.executor().task_of(waker) {
            Some(task) => {
                self.who.set(task.to_bits());
                drop(self.waker.take());
            }
            None => self.keep(waker),
        }
    }

    fn keep(&self, waker: &Waker) {
        self.who.set(WAKER);
        let known = self.waker.take();
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return self.waker.set(known);
        }
        let before = self.waker.replace(Some(Box::new(waker.clone())));
        drop((known, before));
    }

    /// Takes the task that waits here, if one does.
    #[inline]
    fn take_task(&self) -> Option<Key> {
        match self.who.get() {
            NOBODY | WAKER => None,
            bits => {
                self.who.set(NOBODY);
                Some(Key::from_bits(bits))
            }
        }
    }

    /// Wakes whoever waits, once.
    #[inline]
    pub fn wake(&self, lane: &Rc<Lane>) {
        if self.who.get() == NOBODY {
            return;
        }
        match self.take_task() {
            Some(task) => lane.wake(task),
            None => self.wake_waker(),
        }
    }

    fn wake_waker(&self) {
        self.who.set(NOBODY);
        let Some(waker) = self.waker.take() else { return };
        mem::guarded(|| waker.wake_by_ref());
        // What was woken may have waited again, inside.
        let newer = self.waker.take();
        let (kept, over) = if newer.is_some() { (newer, Some(waker)) } else { (Some(waker), None) };
        self.waker.set(kept);
        mem::discard(over);
    }
}
