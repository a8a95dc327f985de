//! One wake target per waiting connection, kept and reused while the connection lives.
//!
//! Invariant: `queued` is set exactly while a letter for this target is under way, so a burst of
//! wakes is one letter. It is cleared before the poll, so a wake during the poll is not lost (`tests/loom.rs`).

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::sync::{AtomicBool, Ordering};
use crate::mem::Key;

/// Takes a wake to the worker that owns the key.
pub trait Deliver: Send + Sync + 'static {
    /// Sends the worker a letter for this key.
    fn deliver(&self, key: Key);
}

/// What a [`Waker`] of a connection points to. One allocation, made at its first use.
pub struct WakeTarget {
    key: Key,
    queued: AtomicBool,
    to: Arc<dyn Deliver>,
}

impl WakeTarget {
    /// A target behind this key.
    pub fn new(key: Key, to: Arc<dyn Deliver>) -> Arc<Self> {
        Arc::new(Self { key, queued: AtomicBool::new(false), to })
    }

    /// A waker that leads here.
    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// A letter is under way.
    pub fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Acquire)
    }

    /// The letter has arrived; from now on a wake sends another one.
    pub fn arrived(&self) {
        // Acquire: what was done before the wake is visible to the poll that follows.
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for WakeTarget {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.to.deliver(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Letters(Mutex<Vec<Key>>);

    impl Deliver for Letters {
        fn deliver(&self, key: Key) {
            self.0.lock().unwrap().push(key);
        }
    }

    #[test]
    fn a_burst_of_wakes_is_one_letter_until_it_arrives() {
        let letters = Arc::new(Letters::default());
        let target = WakeTarget::new(Key::from_bits(7), letters.clone());
        let waker = target.waker();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(letters.0.lock().unwrap().len(), 1);

        target.arrived();
        waker.wake();
        assert_eq!(letters.0.lock().unwrap().len(), 2);
    }
}
