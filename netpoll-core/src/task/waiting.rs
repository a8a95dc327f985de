//! Tasks that wait for one thing that happens once to all of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

use super::{Lane, Parked};

/// Who waits, by a place that their future keeps. Nothing is borrowed while one is cloned, woken or dropped.
#[derive(Default)]
pub struct Waiting(RefCell<Slab<Parked>>);

impl Waiting {
    /// Waits at a place, or at a new one, and returns it.
    pub fn wait(&self, lane: &Lane, place: Option<usize>, waker: &Waker) -> usize {
        let known =
            place.filter(|place| self.0.borrow().get(*place).is_some_and(|known| known.is(lane, waker)));
        if let Some(place) = known {
            return place;
        }
        let who = Parked::of(lane, waker);
        match place.filter(|place| self.0.borrow().contains(*place)) {
            Some(place) => {
                let before = std::mem::replace(&mut self.0.borrow_mut()[place], who);
                drop(before);
                place
            }
            None => self.0.borrow_mut().insert(who),
        }
    }

    /// Leaves a place.
    pub fn leave(&self, place: usize) {
        let who = self.0.borrow_mut().try_remove(place);
        drop(who);
    }

    /// Wakes all. Their places are gone.
    pub fn wake_all(&self, lane: &Rc<Lane>) {
        let waiting = std::mem::take(&mut *self.0.borrow_mut());
        for (_, who) in waiting {
            who.wake(lane);
        }
    }
}
