//! Queues without datagrams, and with memory: a socket of a task that has nothing to say or to hear owns none.
//!
//! Invariant: what lies here is empty.

use std::cell::RefCell;

use crate::mem::DatagramQueue;

/// Queues that are kept.
const QUEUES_MAX: usize = 16;

/// One with more memory is not: a batch of usual datagrams takes half of that.
const BYTES_MAX: usize = 128 * 1024;

/// The empty queues of one worker.
#[derive(Default)]
pub struct Spares(RefCell<Vec<DatagramQueue>>);

impl Spares {
    /// One that is empty, with this limit.
    pub fn take(&self, bytes_max: usize) -> DatagramQueue {
        match self.0.borrow_mut().pop() {
            Some(queue) => queue.limited_to(bytes_max),
            None => DatagramQueue::new(bytes_max),
        }
    }

    /// Takes a queue that has become empty, and leaves one without memory.
    pub fn put(&self, queue: &mut DatagramQueue) {
        debug_assert!(queue.is_empty(), "what is in it would be lost");
        let queue = std::mem::replace(queue, DatagramQueue::new(0));
        let mut kept = self.0.borrow_mut();
        if kept.len() < QUEUES_MAX && (1..=BYTES_MAX).contains(&queue.capacity()) {
            kept.push(queue);
        }
    }

    /// Gives them back.
    pub fn shrink(&self) {
        self.0.take();
    }
}
