//! The primitives that the pages and their writer are built on, in a normal build.

pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use std::thread::JoinHandle;

use std::io;
use std::sync::{PoisonError, TryLockError};
use std::thread::{self, Builder, Thread};
use std::time::Duration;

/// What one thread at a time has. Who panics while it does leaves what is whole at each moment.
pub struct Lock<T>(Mutex<T>);

/// Had by this thread, until it is dropped.
pub type Held<'l, T> = MutexGuard<'l, T>;

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub fn hold(&self) -> Held<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if another thread has it.
    #[inline(always)]
    pub fn unless_held(&self) -> Option<Held<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

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
