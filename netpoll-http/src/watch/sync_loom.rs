//! The primitives that the ring and its writer are built on, for the model checker.

pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use loom::thread::JoinHandle;

use std::io;
use std::time::Duration;

/// A thread that sleeps until somebody wakes it. Its mutex orders what it ordered in `std`: who wakes it before who was woken.
#[derive(Clone)]
pub struct Sleeper(Arc<(Mutex<bool>, Condvar)>);

impl Sleeper {
    pub fn wake(&self) {
        *self.0.0.lock().expect("nobody panics") = true;
        self.0.1.notify_one();
    }

    pub fn sleep(&self) {
        let mut is_woken = self.0.0.lock().expect("nobody panics");
        while !*is_woken {
            is_woken = self.0.1.wait(is_woken).expect("nobody panics");
        }
        *is_woken = false;
    }

    /// In a model no time passes: it is over at once.
    pub fn sleep_for(&self, _longest: Duration) {
        *self.0.0.lock().expect("nobody panics") = false;
    }
}

/// Starts such a thread.
pub fn spawn(
    _name: &str,
    body: impl FnOnce(Sleeper) + Send + 'static,
) -> io::Result<(JoinHandle<()>, Sleeper)> {
    let sleeper = Sleeper(Arc::new((Mutex::new(false), Condvar::new())));
    let of_thread = sleeper.clone();
    Ok((loom::thread::spawn(move || body(of_thread)), sleeper))
}
