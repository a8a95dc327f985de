//! The end of values that are the program's: their destructors may panic, as its callbacks may.
//!
//! Callbacks are guarded where they are called. But a worker also drops what the program handed over: bytes with an
//! owner, protocols, closures, what a panic carried. A destructor that panics there would take the worker along.
//!
//! Invariant: no panic leaves this file. Each is counted for its thread, until the turn of a worker on that thread
//! takes the count. While nothing panics all of this costs a landing pad.

use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Panics of destructors on this thread that nobody has counted yet.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Panics on this thread since the last call, but those that were counted where they were caught.
#[inline]
pub fn take_panics() -> u64 {
    PANICS.replace(0)
}

/// Calls code of the program; `None` if it panicked, which is counted.
#[inline]
pub fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Some(result),
        Err(payload) => {
            count_panic();
            discard_payload(payload);
            None
        }
    }
}

/// Drops a value of the program.
#[inline]
pub fn discard<T>(value: T) {
    if guarded(|| drop(value)).is_none() {
        crate::log::destructor_panicked();
    }
}

/// Drops what a panic carried, which is a value of the program too.
pub fn discard_payload(payload: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        count_panic();
        crate::log::destructor_panicked();
        // It might go on like this for ever: the second one is leaked.
        mem::forget(next);
    }
}

/// Counts a panic of the program that was caught elsewhere.
#[cold]
pub fn count_panic() {
    PANICS.set(PANICS.get() + 1);
}

/// A value of the program that may be dropped anywhere.
pub struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    /// Guards the destructor of a value from here on.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value, whose destructor is the caller's from here on.
    ///
    /// # Panics
    /// Never: a guard holds its value until it ends.
    #[inline]
    pub fn into_inner(mut self) -> T {
        self.0.take().expect(HELD)
    }
}

/// Only `into_inner` and `drop` take the value out, and both end the guard.
const HELD: &str = "a guard holds its value until it ends";

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for Guarded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(HELD)
    }
}

impl<T> Drop for Guarded<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            discard(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped, with another one of its kind: so many in a row.
    struct Chained(u64);

    impl Drop for Chained {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Chained(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_destructor_that_panics_is_counted_and_goes_no_further() {
        take_panics();
        discard(Chained(1));
        drop(Guarded::new(Chained(1)));
        assert_eq!(take_panics(), 2);
        assert_eq!(take_panics(), 0, "each is counted once");
    }

    #[test]
    fn a_panic_whose_payload_panics_for_ever_ends_all_the_same() {
        take_panics();
        discard(Chained(u64::MAX));
        assert_eq!(take_panics(), 2);
    }

    #[test]
    fn a_guard_that_gave_its_value_away_drops_nothing() {
        take_panics();
        assert_eq!(Guarded::new(vec![7]).into_inner(), [7]);
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(take_panics(), 0);
    }
}
