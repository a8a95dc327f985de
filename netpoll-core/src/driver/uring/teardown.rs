//! The end of a ring.
//!
//! Closing a ring does not end what is outstanding in it, not at once. So everything is cancelled first, and answered; what is not
//! within a time may still be written to: the memory is the kernel's for good then, and a warning says so.

use std::time::{Duration, Instant};

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

impl Drop for State {
    fn drop(&mut self) {
        // A child has its parent's ring before it, and leaves it alone.
        if sys::is_child() {
            self.buffers.leak();
        } else if !self.end_all() {
            self.buffers.leak();
            crate::log::ring_left(self.orders.len());
        }
    }
}
