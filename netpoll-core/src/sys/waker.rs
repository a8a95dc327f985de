//! Wakers that borrow: a future is polled with one, and nothing is counted or allocated for it unless somebody clones it.
//!
//! A [`Waker`] owns what it points to, so the one that a poll is given costs a reference count and an allocation somewhere, though most
//! futures only look at it. Here it points to a value that its caller has for the length of the call; a clone is whatever waker that
//! value makes, which owns what it needs.
//!
//! Invariant: nobody owns the borrowed one but the call that has made it, which never drops it.

use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// What a waker can borrow. It is shared with other threads if the future that is polled shares its waker with them.
pub trait Borrowed: Sync {
    /// A waker that wakes the same, and outlives this.
    fn to_waker(&self) -> Waker;
    /// Wakes it.
    fn wake(&self);
}

/// Calls with a waker that borrows `of`.
#[inline]
pub fn with_waker<B: Borrowed, R>(of: &B, call: impl FnOnce(&Waker) -> R) -> R {
    let table = const { &RawWakerVTable::new(clone::<B>, wake::<B>, wake::<B>, forget) };
    // SAFETY: RawWakerVTable's contract is kept by the functions below, as long as the pointer leads to a `B`: it does for this call, which
    // borrows it, and the waker does not outlive the call: `call` is generic over the lifetime of its reference, and nothing but the
    // reference leaves. Its functions may be called on any thread, as a `B` is `Sync`. Shaken by
    // `a_waker_that_borrows_is_cloned_and_woken_from_any_thread`.
    let waker = unsafe { Waker::new(ptr::from_ref(of).cast(), table) };
    // Dropping it would do nothing; that nobody can take it out is what counts.
    let waker = ManuallyDrop::new(waker);
    call(&waker)
}

/// A clone of a waker that borrows a `B`.
unsafe fn clone<B: Borrowed>(data: *const ()) -> RawWaker {
    let waker = ManuallyDrop::new(borrowed::<B>(data).to_waker());
    // What the waker owned is owned by the raw one from here on.
    RawWaker::new(waker.data(), waker.vtable())
}

/// Wakes by a reference; or by value, which nobody has.
unsafe fn wake<B: Borrowed>(data: *const ()) {
    borrowed::<B>(data).wake();
}

/// It owns nothing.
unsafe fn forget(_data: *const ()) {}

/// What the data of a borrowing waker point to.
#[inline]
fn borrowed<'a, B: Borrowed>(data: *const ()) -> &'a B {
    // SAFETY: the pointer is the one that `with_waker` has made of a `&B`; that call is still running, or nobody would have the waker whose
    // function this is; the reference is used while that function runs, and leaves it no further. Shaken by
    // `a_waker_that_borrows_is_cloned_and_woken_from_any_thread`.
    unsafe { &*data.cast::<B>() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(100, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Task {
        woken: AtomicUsize,
        kept: Arc<Count>,
    }

    impl Borrowed for Task {
        fn to_waker(&self) -> Waker {
            Waker::from(Arc::clone(&self.kept))
        }

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waker_that_borrows_is_cloned_and_woken_from_any_thread() {
        let task = Task::default();
        let clones = with_waker(&task, |waker| {
            waker.wake_by_ref();
            let theirs = thread::scope(|scope| {
                let clone = scope.spawn(|| {
                    waker.wake_by_ref();
                    waker.clone()
                });
                clone.join().unwrap()
            });
            let ours = waker.clone();
            assert!(ours.will_wake(&theirs) && !ours.will_wake(waker), "clones are of another kind");
            assert_eq!(waker.data(), ptr::from_ref(&task).cast());
            [ours, theirs]
        });
        assert_eq!(task.woken.load(Ordering::Relaxed), 2);

        let kept = Arc::clone(&task.kept);
        drop(task);
        let [ours, theirs] = clones;
        ours.wake_by_ref();
        drop(ours);
        theirs.wake();
        assert_eq!((kept.0.load(Ordering::Relaxed), Arc::strong_count(&kept)), (200, 1));
    }

    #[test]
    fn a_panic_leaves_the_call() {
        let task = Task::default();
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_waker(&task, |waker| {
                drop(waker.clone());
                panic!("in a poll")
            })
        }));
        assert!(polled.is_err());
        assert_eq!(Arc::strong_count(&task.kept), 1);
    }
}
