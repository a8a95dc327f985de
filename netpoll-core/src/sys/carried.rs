//! Values that may be carried to other threads, and are touched on their own alone.
//!
//! Invariant: a value is seen, changed, taken out and dropped on the thread that has made its place, and nowhere else. Dropped elsewhere
//! it is leaked.

use std::cell::Cell;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of threads; no two of a process have the same, whichever has ended.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Zero until somebody asks. It has no destructor, so it is there until the thread is gone.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread.
#[inline]
fn here() -> u64 {
    match NUMBER.get() {
        0 => number(),
        number => number,
    }
}

#[cold]
fn number() -> u64 {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(number);
    number
}

/// A value of one thread, on whatever thread it is.
pub struct Carried<T> {
    thread: u64,
    /// `None` once it was taken out.
    value: Option<T>,
}

// SAFETY: what is sent is the place. `get`, `get_mut`, `into_inner` and `drop`, all there is, compare the number of the thread first, which
// no other thread ever has, and leave a value of another thread untouched (test: `a_carried_value_is_touched_on_its_own_thread_alone`).
unsafe impl<T> Send for Carried<T> {}

// SAFETY: as above: through a shared reference there is `get` alone, which gives nothing to another thread (test:
// `a_carried_value_is_touched_on_its_own_thread_alone`).
unsafe impl<T> Sync for Carried<T> {}

impl<T> Carried<T> {
    /// A value of this thread.
    #[inline]
    pub fn new(value: T) -> Self {
        Self { thread: here(), value: Some(value) }
    }

    /// The value, if this is its thread.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.thread == here() { self.value.as_ref() } else { None }
    }

    /// The value, if this is its thread.
    #[inline]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        if self.thread == here() { self.value.as_mut() } else { None }
    }

    /// The value, if this is its thread; else all comes back.
    #[inline]
    pub fn into_inner(mut self) -> Result<T, Self> {
        if self.thread != here() {
            return Err(self);
        }
        self.value.take().ok_or(self)
    }
}

impl<T> Drop for Carried<T> {
    #[inline]
    fn drop(&mut self) {
        if self.thread != here() {
            mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::thread;

    use super::*;

    #[test]
    fn a_carried_value_is_touched_on_its_own_thread_alone() {
        let counted = Rc::new(7);
        let mut carried = Carried::new(Rc::clone(&counted));
        assert!(carried.get() == Some(&counted) && carried.get_mut().is_some());
        let carried = thread::scope(|scope| {
            let there = scope.spawn(|| {
                let mut carried = carried;
                assert!(carried.get().is_none() && carried.get_mut().is_none());
                carried.into_inner().map(drop).expect_err("not there")
            });
            there.join().unwrap()
        });
        assert_eq!(Rc::strong_count(&counted), 2);
        thread::scope(|scope| scope.spawn(|| drop(Carried::new(Rc::new(1)))).join().unwrap());
        let taken = carried.into_inner().ok().unwrap();
        assert_eq!((*taken, Rc::strong_count(&counted)), (7, 2));
        drop(Carried::new(taken));
        assert_eq!(Rc::strong_count(&counted), 1, "dropped at home");

        let carried = Carried::new(Rc::clone(&counted));
        thread::scope(|scope| scope.spawn(move || drop(carried)).join().unwrap());
        assert_eq!(Rc::strong_count(&counted), 2, "leaked elsewhere");
    }
}
