//! The primitives that the pages and their writer are built on, for the model checker.

pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use loom::thread::JoinHandle;

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// What one thread at a time has. The model of a mutex lets nobody look at one that another thread holds: here a word says so.
pub struct Lock<T> {
    is_held: AtomicBool,
    value: Mutex<T>,
}

pub struct Held<'l, T> {
    lock: &'l Lock<T>,
    value: Option<MutexGuard<'l, T>>,
}

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Self { is_held: AtomicBool::new(false), value: Mutex::new(value) }
    }

    pub fn hold(&self) -> Held<'_, T> {
        loop {
            match self.unless_held() {
                Some(held) => return held,
                None => loom::thread::yield_now(),
            }
        }
    }

    pub fn unless_held(&self) -> Option<Held<'_, T>> {
        let taken = self.is_held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| Held { lock: self, value: self.value.lock().ok() })
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().expect("nobody panics")
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("nobody panics")
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("nobody panics")
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.lock.is_held.store(false, Ordering::Release);
    }
}

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
