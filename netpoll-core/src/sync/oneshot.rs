//! One value, once, on one thread: the answer to a question.
//!
//! Nothing here is [`Send`]; for other threads there is [`shared::oneshot`](super::shared::oneshot). One allocation, no
//! lock, no atomic operation.
//!
//! ```
//! use netpoll_core::sync::oneshot;
//! # futures::executor::block_on(async {
//! let (sender, receiver) = oneshot::channel();
//! let ask = async { receiver.await };
//! let answer = async { sender.send(42) };
//! let (answer, sent) = futures::join!(ask, answer);
//! assert_eq!((answer, sent), (Ok(42), Ok(())));
//! # });
//! ```

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::slot::Slot;
use super::wakers::{drive, wake_one};
pub use super::{Closed, SendError, TryError};

/// Both sides.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Rc::new(RefCell::new(Slot::new()));
    (Sender { slot: Rc::clone(&slot) }, Receiver { slot })
}

/// The side that has the value. Dropped without one, the receiver gets [`Closed`].
pub struct Sender<T> {
    /// Open only for a step; never while code of the program runs.
    slot: Rc<RefCell<Slot<T>>>,
}

impl<T> Sender<T> {
    /// Sends the value. Never waits.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone or has closed.
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        let [wake, _not_needed] = self.slot.borrow_mut().send(value)?;
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
        drive(cx.waker(), |spare| self.slot.borrow_mut().step_closed(cx.waker(), spare))
    }

    /// The receiver is gone or has closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.slot.borrow().is_closed()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let [wake, _not_needed] = self.slot.borrow_mut().remove_sender();
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
    slot: Rc<RefCell<Slot<T>>>,
}

impl<T> Receiver<T> {
    /// The value, if it is there.
    ///
    /// # Errors
    /// [`TryError::NotNow`] if it may come yet, [`TryError::Closed`] if it never will, or was taken.
    pub fn try_recv(&mut self) -> Result<T, TryError> {
        self.slot.borrow_mut().try_recv()
    }

    /// Takes nothing any more. A value that was sent already can be taken out.
    pub fn close(&mut self) {
        let wake = self.slot.borrow_mut().close();
        wake_one(wake);
    }
}

/// No field is pinned.
impl<T> Unpin for Receiver<T> {}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        drive(cx.waker(), |spare| self.slot.borrow_mut().step_recv(cx.waker(), spare))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (wake, _not_needed, _value) = self.slot.borrow_mut().remove_receiver();
        wake_one(wake);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
