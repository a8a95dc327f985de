//! Who waits for something on one worker.

use std::rc::Rc;
use std::task::Waker;

use super::Lane;
use crate::mem::{self, Key};

/// A task of that worker by its key, so that nothing is cloned; whoever else by a waker.
pub enum Parked {
    Task(Key),
    Waker(Waker),
}

const _: () = assert!(size_of::<Parked>() == size_of::<Waker>());

impl Parked {
    /// Who this waker leads to. A clone is code of the program.
    #[inline]
    pub fn of(lane: &Lane, waker: &Waker) -> Self {
        match lane.executor().task_of(waker) {
            Some(task) => Self::Task(task),
            None => Self::Waker(waker.clone()),
        }
    }

    /// Whether it is that one.
    #[inline]
    pub fn is(&self, lane: &Lane, waker: &Waker) -> bool {
        match self {
            Self::Task(task) => lane.executor().task_of(waker) == Some(*task),
            Self::Waker(known) => known.will_wake(waker),
        }
    }

    /// Wakes it. Nothing may be borrowed.
    #[inline]
    pub fn wake(self, lane: &Rc<Lane>) {
        match self {
            Self::Task(task) => lane.wake(task),
            Self::Waker(waker) => drop(mem::guarded(|| waker.wake())),
        }
    }
}
