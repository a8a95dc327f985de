//! Tasks that wait for one thing that happens once to all of them.

use std::cell::RefCell;
use std::task::Waker;

use slab::Slab;

/// Wakers by a place that their future keeps. Nothing is borrowed while one is cloned, woken or dropped.
#[derive(Default)]
pub struct Waiting(RefCell<Slab<Waker>>);

impl Waiting {
    /// Waits at a place, or at a new one, and returns it.
    pub fn wait(&self, place: Option<usize>, waker: &Waker) -> usize {
        let known =
            place.filter(|place| self.0.borrow().get(*place).is_some_and(|known| known.will_wake(waker)));
        if let Some(place) = known {
            return place;
        }
        let waker = waker.clone();
        match place.filter(|place| self.0.borrow().contains(*place)) {
            Some(place) => {
                let before = std::mem::replace(&mut self.0.borrow_mut()[place], waker);
                drop(before);
                place
            }
            None => self.0.borrow_mut().insert(waker),
        }
    }

    /// Leaves a place.
    pub fn leave(&self, place: usize) {
        let waker = self.0.borrow_mut().try_remove(place);
        drop(waker);
    }

    /// Wakes all. Their places are gone.
    pub fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.0.borrow_mut());
        for (_, waker) in waiting {
            crate::mem::guarded(|| waker.wake());
        }
    }
}
