//! The primitives that the ring and its writer are built on, in a normal build.

pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use std::thread::JoinHandle;

use std::io;
use std::thread::{self, Builder, Thread};
use std::time::Duration;

/// A thread that sleeps until somebody wakes it. Being woken is remembered until the next sleep, which it keeps from beginning.
#[derive(Clone)]
pub struct Sleeper(Thread);

impl Sleeper {
    pub fn wake(&self) {
        self.0.unpark();
    }

    /// By the thread itself.
    pub fn sleep(&self) {
        thread::park();
    }

    /// By the thread itself; not for longer than this.
    pub fn sleep_for(&self, longest: Duration) {
        thread::park_timeout(longest);
    }
}

/// Starts such a thread.
pub fn spawn(
    name: &str,
    body: impl FnOnce(Sleeper) + Send + 'static,
) -> io::Result<(JoinHandle<()>, Sleeper)> {
    let handle = Builder::new().name(name.to_owned()).spawn(|| body(Sleeper(thread::current())))?;
    let sleeper = Sleeper(handle.thread().clone());
    Ok((handle, sleeper))
}
