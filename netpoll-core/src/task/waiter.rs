//! The one task that waits for something.

use std::cell::RefCell;
use std::task::Waker;

use crate::mem;

/// A waker. Nothing is borrowed while one is cloned, woken or dropped.
#[derive(Default)]
pub struct Waiter(RefCell<Option<Waker>>);

impl Waiter {
    /// Keeps the waker of who waits, in the place of an earlier one.
    pub fn wait(&self, waker: &Waker) {
        if self.0.borrow().as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let waker = waker.clone();
        let before = self.0.borrow_mut().replace(waker);
        drop(before);
    }

    /// Wakes it, once.
    pub fn wake(&self) {
        let waker = self.0.borrow_mut().take();
        if let Some(waker) = waker {
            mem::guarded(|| waker.wake());
        }
    }
}
