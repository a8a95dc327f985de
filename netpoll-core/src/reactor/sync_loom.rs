//! The primitives that the mailbox is built on, for the model checker.
//!
//! The queue is a stand-in with the weakest ordering that the mailbox may rely on: a letter is
//! published with release and seen with acquire. Its lock guards the letters only; whether the queue
//! *looks* empty is decided by the counter, so that a missing fence in the doorbell shows.

use std::collections::VecDeque;
use std::sync::Mutex;

use loom::sync::atomic::AtomicUsize;
pub use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
pub use std::sync::Arc;

pub struct Queue<T> {
    letters: Mutex<VecDeque<T>>,
    count: AtomicUsize,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { letters: Mutex::new(VecDeque::new()), count: AtomicUsize::new(0) }
    }

    pub fn push(&self, letter: T) {
        self.letters.lock().expect("no panic under the lock").push_back(letter);
        self.count.fetch_add(1, Ordering::Release);
    }

    pub fn pop(&self) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        // Senders take letters out as well when the mailbox is closed.
        let letter = self.letters.lock().expect("no panic under the lock").pop_front()?;
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(letter)
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}
