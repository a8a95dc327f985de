//! How wakers are kept, and when a program's code may run.
//!
//! Waking, cloning and dropping a [`Waker`] runs code of whoever made it, and that code may use the very channel that it was
//! kept in. So it happens while nothing is borrowed and nothing is locked: a step of a state works with the cell open and
//! only moves wakers, the cell is closed, and then they are woken or dropped. `tests/sync` has wakers that call back.

use std::task::{Poll, Waker};

use slab::Slab;

use crate::task::share;

/// What a step of a state has come to.
pub enum Step<R> {
    /// It is done.
    Ready(R),
    /// The waker is kept. Who is to be woken now, if anybody.
    Pending(Option<Waker>),
    /// A waker has to be kept, and none was at hand: the step is to be done again with a clone.
    Clone,
}

/// Does a step until it needs nothing more. The step opens its cell each time it is called; nothing is open in between,
/// when the waker is cloned, and the one that it replaces is dropped.
///
/// Gives way if the share of this poll is spent: then what is there stays there, and the caller is polled again.
pub fn drive<R>(waker: &Waker, step: impl FnMut(&mut Option<Waker>) -> Step<R>) -> Poll<R> {
    if share::gives_way(waker) {
        return Poll::Pending;
    }
    drive_with(None, waker, step)
}

/// Others come first.
#[cold]
pub fn give_way<R>(waker: &Waker) -> Poll<R> {
    waker.wake_by_ref();
    Poll::Pending
}

/// [`drive`], for who has asked whether others come first, and with a clone of the waker at hand: who is likely to wait saves a step by it.
pub fn drive_with<R>(
    mut spare: Option<Waker>,
    waker: &Waker,
    mut step: impl FnMut(&mut Option<Waker>) -> Step<R>,
) -> Poll<R> {
    loop {
        match step(&mut spare) {
            Step::Ready(result) => {
                share::spend();
                return Poll::Ready(result);
            }
            Step::Pending(wake) => {
                wake_one(wake);
                return Poll::Pending;
            }
            Step::Clone => spare = Some(waker.clone()),
        }
    }
}

/// Sees to it that `kept` leads where `waker` does. False if that takes a clone, which is not at hand.
///
/// What was kept before goes to `spare`, to be dropped with nothing open.
#[must_use]
pub fn keep(kept: &mut Option<Waker>, waker: &Waker, spare: &mut Option<Waker>) -> bool {
    if kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        return true;
    }
    if spare.is_none() {
        return false;
    }
    std::mem::swap(kept, spare);
    true
}

pub fn wake_one(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Wakes one after the other until there is none left; the rest also if one of them panics.
pub fn wake_each(next: impl FnMut() -> Option<Waker>) {
    struct Rest<F: FnMut() -> Option<Waker>>(F);

    impl<F: FnMut() -> Option<Waker>> Rest<F> {
        fn wake(&mut self) {
            while let Some(waker) = (self.0)() {
                waker.wake();
            }
        }
    }

    impl<F: FnMut() -> Option<Waker>> Drop for Rest<F> {
        fn drop(&mut self) {
            // Nothing is left, unless a wake has panicked.
            self.wake();
        }
    }

    Rest(next).wake();
}

/// Wakes all of these; the rest also if one of them panics.
pub fn wake_all(wakers: Vec<Waker>) {
    let mut wakers = wakers.into_iter();
    wake_each(|| wakers.next());
}

/// Waiters that wait for the same thing and are woken together.
///
/// Each has a place until its future takes it away, whether it was woken or not.
#[derive(Default)]
pub struct Crowd(Slab<Option<Waker>>);

impl Crowd {
    pub const fn new() -> Self {
        Self(Slab::new())
    }

    /// Keeps the waker of one that has to wait, at its place or at a new one. False if that takes a clone.
    #[must_use]
    pub fn wait(&mut self, place: &mut Option<usize>, waker: &Waker, spare: &mut Option<Waker>) -> bool {
        match *place {
            Some(place) => keep(&mut self.0[place], waker, spare),
            None if spare.is_none() => false,
            None => {
                *place = Some(self.0.insert(spare.take()));
                true
            }
        }
    }

    /// Gives a place up; the waker is to be dropped with nothing open.
    pub fn remove(&mut self, place: usize) -> Option<Waker> {
        let waker = self.0.remove(place);
        if self.0.is_empty() && self.0.capacity() > 64 {
            self.0 = Slab::new();
        }
        waker
    }

    /// The waker of the next that waits, from a place on, to be woken with nothing open. `at` is the place behind it then.
    pub fn take_from(&mut self, at: &mut usize) -> Option<Waker> {
        while *at < self.0.capacity() {
            *at += 1;
            if let Some(waker) = self.0.get_mut(*at - 1).and_then(Option::take) {
                return Some(waker);
            }
        }
        None
    }

    /// The wakers of all that wait, to be woken with nothing open.
    pub fn take_all(&mut self) -> Vec<Waker> {
        self.0.iter_mut().filter_map(|(_, waker)| waker.take()).collect()
    }
}
