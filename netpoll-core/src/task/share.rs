//! How many waits may be over when they begin, until whoever awaits them gives way: so that a loop over what is always ready does not keep
//! its worker.
//!
//! It counts on a worker only, for all that a task, or a future that a callback polls, awaits in one poll. Each poll begins with a full share.
//! When it is spent all waits give way, so that a `select!` of several that are ready ends its poll too. But futures may be polled inside
//! others that no worker knows, and their poll may not end before one is ready: behind so many that have given way there is a full share again.
//!
//! Cost: a comparison before a wait and a decrement behind one that was ready.

use std::task::Waker;

use super::sync::{HERE, LEFT};

/// Waits in one poll that may be over when they begin.
pub const READY_MAX: i32 = 128;
/// Waits that give way in one poll: more than anybody selects from.
const GIVEN_WAY_MAX: i32 = 32;

/// A poll begins.
#[inline]
pub fn refill() {
    LEFT.with(|left| left.set(READY_MAX));
}

/// Whether others come first: then the wait wakes itself, and is not ready. Never so on a thread that is no worker.
#[inline]
pub fn is_spent() -> bool {
    LEFT.with(|left| left.get() <= 0) && others_come_first()
}

/// The same for who has nothing else to do about it: the waker is woken.
#[inline]
pub fn gives_way(waker: &Waker) -> bool {
    LEFT.with(|left| left.get() <= 0) && wakes_anew(waker)
}

#[cold]
#[inline(never)]
fn wakes_anew(waker: &Waker) -> bool {
    let is_on_worker = others_come_first();
    if is_on_worker {
        waker.wake_by_ref();
    }
    is_on_worker
}

/// True on a worker.
#[cold]
#[inline(never)]
fn others_come_first() -> bool {
    let is_on_worker = is_on_worker();
    spend();
    if !is_on_worker || LEFT.with(|left| left.get() <= -GIVEN_WAY_MAX) {
        refill();
    }
    is_on_worker
}

/// Whether this thread is a worker: elsewhere nobody has a share.
pub fn is_on_worker() -> bool {
    // A thread that ends may have dropped its own of it, where the model checker has it.
    HERE.try_with(|here| here.get() != 0).unwrap_or(false)
}

/// A wait was ready.
#[inline]
pub fn spend() {
    LEFT.with(|left| left.set(left.get() - 1));
}
