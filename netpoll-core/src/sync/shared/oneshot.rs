//! One value, once, between threads: the answer to a question.
//!
//! A lock of a few instructions, and one allocation. On one thread there is [`oneshot`](crate::sync::oneshot), without lock.
//!
//! ```
//! use netpoll_core::sync::shared::oneshot;
//!
//! let (sender, receiver) = oneshot::channel();
//! let thread = std::thread::spawn(move || sender.send(6 * 7));
//! assert_eq!(receiver.blocking_recv(), Ok(42)); // or receiver.await, in a task
//! assert_eq!(thread.join().expect("no panic"), Ok(()));
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use super::primitives::Mutex;
use crate::sync::slot::Slot;
use crate::sync::wakers::{drive, wake_one};
pub use crate::sync::{Closed, SendError, TryError};
use crate::task::wait_for;

/// Both sides.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared(Mutex::new(Slot::new())));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// Locked for a step only, which runs no code of the program: so the lock is held for some instructions, and no panic
/// leaves a step half done.
struct Shared<T>(Mutex<Slot<T>>);

impl<T> Shared<T> {
    fn with<R>(&self, step: impl FnOnce(&mut Slot<T>) -> R) -> R {
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The side that has the value. Dropped without one, the receiver gets [`Closed`].
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends the value. Never waits.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone or has closed.
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        let [wake, _not_needed] = self.shared.with(|slot| slot.send(value))?;
        wake_one(wake);
        Ok(())
    }

    /// Waits until the receiver is gone or has closed: the answer is not needed any more.
    ///
    /// # Cancel safety
    /// There is nothing to lose.
    pub async fn closed(&mut self) {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// [`closed`](Self::closed) for who writes a future. The last waker that it was polled with is woken.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        drive(cx.waker(), |spare| self.shared.with(|slot| slot.step_closed(cx.waker(), spare)))
    }

    /// The receiver is gone or has closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.with(|slot| slot.is_closed())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let [wake, _not_needed] = self.shared.with(Slot::remove_sender);
        wake_one(wake);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The side that waits for the value: a future of it, or of [`Closed`] if the sender was dropped without sending.
///
/// # Cancel safety
/// Await `&mut receiver`, and nothing is lost: the value leaves with the poll that returns it. A receiver that is dropped
/// drops a value that has been sent; [`close`](Self::close) and [`try_recv`](Self::try_recv) take it out before.
#[must_use = "nothing is received before it is awaited"]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The value, if it is there.
    ///
    /// # Errors
    /// [`TryError::NotNow`] if it may come yet, [`TryError::Closed`] if it never will, or was taken.
    pub fn try_recv(&mut self) -> Result<T, TryError> {
        self.shared.with(Slot::try_recv)
    }

    /// Waits for the value on a thread that is no worker: it sleeps. A worker would stand still.
    ///
    /// # Errors
    /// [`Closed`] if the sender was dropped without sending.
    pub fn blocking_recv(self) -> Result<T, Closed> {
        wait_for(self)
    }

    /// Takes nothing any more. A value that was sent already can be taken out.
    pub fn close(&mut self) {
        let wake = self.shared.with(Slot::close);
        wake_one(wake);
    }
}

/// No field is pinned.
impl<T> Unpin for Receiver<T> {}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        drive(cx.waker(), |spare| self.shared.with(|slot| slot.step_recv(cx.waker(), spare)))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (wake, _not_needed, _value) = self.shared.with(Slot::remove_receiver);
        wake_one(wake);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
