//! How many waits may be over when they begin, until whoever awaits them gives way: so that a loop over what is always ready does not keep
//! its worker.
//!
//! It counts on a worker only, for all that a task, or a future that a callback polls, awaits in one poll. Each poll begins with a full share;
//! so does whoever goes on behind having given way, as futures may be polled inside others that no worker knows: who gives way does so once.
//!
//! Cost: a comparison before a wait and a decrement behind one that was ready.

use std::task::Waker;

use super::sync::{HERE, LEFT};

/// Waits in one poll that may be over when they begin.
pub const READY_MAX: i32 = 128;

/// A poll begins.
#[inline]
pub fn refill() {
    LEFT.with(|left| left.set(READY_MAX));
}

/// Whether others come first: then the wait wakes itself, and is not ready. Says so once, and never on a thread that is no worker.
#[inline]
pub fn is_spent() -> bool {
    LEFT.with(|left| left.get() <= 0) && begins_anew()
}

/// The same for who has nothing else to do about it: the waker is woken.
#[inline]
pub fn gives_way(waker: &Waker) -> bool {
    LEFT.with(|left| left.get() <= 0) && wakes_anew(waker)
}

#[cold]
#[inline(never)]
fn wakes_anew(waker: &Waker) -> bool {
    let is_on_worker = begins_anew();
    if is_on_worker {
        waker.wake_by_ref();
    }
    is_on_worker
}

/// True on a worker.
#[cold]
#[inline(never)]
fn begins_anew() -> bool {
    refill();
    // A thread that ends may have dropped its own of it, where the model checker has it.
    HERE.try_with(|here| here.get() != 0).unwrap_or(false)
}

/// A wait was ready.
#[inline]
pub fn spend() {
    LEFT.with(|left| left.set(left.get() - 1));
}
