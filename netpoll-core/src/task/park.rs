//! How a thread that is no worker waits for a future: it sleeps until somebody wakes it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::sync::{Condvar, Mutex};
use super::try_current;

/// Not `std::thread::park`, whose token belongs to everybody on the thread.
struct Sleeper {
    is_woken: Mutex<bool>,
    wakes: Condvar,
}

impl Sleeper {
    fn sleep(&self) {
        let mut is_woken = self.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_woken {
            is_woken = self.wakes.wait(is_woken).unwrap_or_else(PoisonError::into_inner);
        }
        *is_woken = false;
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wakes.notify_one();
    }
}

/// Polls a future on this thread until it is done, and sleeps in between.
///
/// # Panics
/// On a worker.
pub fn wait_for<F: Future>(future: F) -> F::Output {
    assert!(try_current().is_none(), "this would block a worker: await it instead");
    let mut future = pin!(future);
    let sleeper = Arc::new(Sleeper { is_woken: Mutex::new(false), wakes: Condvar::new() });
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        sleeper.sleep();
    }
}
