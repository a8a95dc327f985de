//! The end of a ring.
//!
//! Closing a ring does not end what is outstanding in it, not at once. So everything is cancelled first, and answered; what is not
//! within a time may still be written to: the memory is the kernel's for good then, and a warning says so.

use std::time::{Duration, Instant};

use super::Uring;
use super::half::State;
use crate::sys;

/// How long cancelled orders may take. They take none, unless the kernel is in trouble.
const PATIENCE: Duration = Duration::from_secs(1);

impl State {
    /// Ends what is outstanding. True if nothing is left.
    pub(super) fn end_all(&mut self) -> bool {
        let began = Instant::now();
        self.ring.cancel_all();
        loop {
            let waits = self.orders.len() > 0;
            let entered = self.ring.enter(waits, Some(Duration::from_millis(50)));
            while let Some(answer) = self.ring.came().pop_front() {
                if !answer.has_more() {
                    self.orders.end(answer.id & (u64::MAX >> 4));
                }
            }
            if self.orders.len() == 0 && !self.ring.has_orders() {
                return true;
            }
            if entered.is_err() || began.elapsed() > PATIENCE {
                return false;
            }
        }
    }
}

impl State {
    /// Ends everything, once: while the descriptors are open that the orders name, or what is to be sent would go to whoever has
    /// their numbers next.
    pub(super) fn go(&mut self) {
        if sys::is_child() || std::mem::replace(&mut self.is_over, true) {
            return;
        }
        if self.end_all() {
            self.soon.clear();
        } else {
            self.buffers.leak();
            crate::log::ring_left(self.orders.len());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A child has its parent's ring before it, and leaves it alone.
        if sys::is_child() {
            self.buffers.leak();
        }
        self.go();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Whoever watches a descriptor may keep the ring for longer than the streams are there.
        if let Ok(mut state) = self.half.state.try_borrow_mut() {
            state.go();
        }
    }
}
