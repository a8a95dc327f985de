//! The task that waits for one direction of a stream.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use crate::mem;

/// A waker that stays when it is woken, so that a task that waits again and again clones it once. Nothing is borrowed while
/// one is cloned, woken or dropped.
#[derive(Default)]
pub struct Wait {
    waker: RefCell<Option<Waker>>,
    waits: Cell<bool>,
}

impl Wait {
    /// Keeps the waker of who waits, in the place of an earlier one.
    #[inline]
    pub fn wait(&self, waker: &Waker) {
        self.waits.set(true);
        if self.waker.borrow().as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let waker = waker.clone();
        let before = self.waker.borrow_mut().replace(waker);
        drop(before);
    }

    /// Wakes whoever waits, once.
    #[inline]
    pub fn wake(&self) {
        if !self.waits.replace(false) {
            return;
        }
        let Some(waker) = self.waker.borrow_mut().take() else { return };
        mem::guarded(|| waker.wake_by_ref());
        let mut place = self.waker.borrow_mut();
        if place.is_none() {
            *place = Some(waker);
            return;
        }
        // What was woken has waited again, inside.
        drop(place);
        mem::discard(waker);
    }
}
