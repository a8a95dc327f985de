//! The latest value of something, for many who want to know when it changes: settings, a state, a stop signal.
//!
//! Who reads gets the value as an [`Rc`], so it may be kept over an `await`, and whatever happens meanwhile nothing is
//! borrowed. Who is slow misses values in between, never the last one.
//!
//! Nothing here is [`Send`]. A new value is one allocation, and a wake for each receiver that waits.
//!
//! ```
//! use netpoll_core::sync::watch;
//! # futures::executor::block_on(async {
//! let (limit, mut seen) = watch::channel(10);
//! let follow = async {
//!     while seen.changed().await.is_ok() {
//!         println!("the limit is {}", seen.latest());
//!     }
//!     *seen.latest()
//! };
//! let change = async move {
//!     limit.send(20);
//!     limit.send(30);
//! };
//! assert_eq!(futures::join!(follow, change).0, 30);
//! # });
//! ```

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use super::Closed;
use super::wakers::{Crowd, Step, drive, wake_all};

struct State<T> {
    value: Rc<T>,
    /// How many values there were. It does not wrap in a thousand years.
    version: u64,
    senders: usize,
    receivers: usize,
    /// Receivers that wait for a change, or for the end.
    following: Crowd,
    /// Senders that wait until there is no receiver.
    leaving: Crowd,
}

/// Open only for a step; never while code of the program runs.
type Shared<T> = Rc<RefCell<State<T>>>;

/// Both sides, with the first value, which the receiver has seen.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(RefCell::new(State {
        value: Rc::new(value),
        version: 0,
        senders: 1,
        receivers: 1,
        following: Crowd::new(),
        leaving: Crowd::new(),
    }));
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared, seen: 0 })
}

/// The side that changes the value; clone it for more of them.
pub struct Sender<T> {
    shared: Shared<T>,
}

impl<T> Sender<T> {
    /// Puts a new value there and wakes who waits for one, also if it is equal to the one before.
    ///
    /// It is kept even if there is no receiver: one that [`subscribe`](Self::subscribe)s later finds it.
    pub fn send(&self, value: T) {
        drop(self.replace(value));
    }

    /// [`send`](Self::send), which returns the value before.
    pub fn replace(&self, value: T) -> Rc<T> {
        let value = Rc::new(value);
        let (before, wakers) = {
            let state = &mut *self.shared.borrow_mut();
            state.version += 1;
            (mem::replace(&mut state.value, value), state.following.take_all())
        };
        wake_all(wakers);
        before
    }

    /// The value as it is now.
    #[must_use]
    pub fn latest(&self) -> Rc<T> {
        Rc::clone(&self.shared.borrow().value)
    }

    /// One more receiver, which has seen the value as it is now.
    pub fn subscribe(&self) -> Receiver<T> {
        let state = &mut *self.shared.borrow_mut();
        state.receivers += 1;
        Receiver { shared: Rc::clone(&self.shared), seen: state.version }
    }

    /// How many receivers there are.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.shared.borrow().receivers
    }

    /// Waits until there is no receiver.
    ///
    /// # Cancel safety
    /// There is nothing to lose.
    pub async fn closed(&self) {
        let mut leaving = Leaving { shared: &self.shared, place: None };
        std::future::poll_fn(move |cx| leaving.poll(cx)).await;
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().senders += 1;
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let state = &mut *self.shared.borrow_mut();
            state.senders -= 1;
            if state.senders == 0 { state.following.take_all() } else { Vec::new() }
        };
        wake_all(wakers);
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

/// A wait until there is no receiver.
struct Leaving<'a, T> {
    shared: &'a Shared<T>,
    place: Option<usize>,
}

impl<T> Leaving<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        drive(cx.waker(), |spare| {
            let state = &mut *self.shared.borrow_mut();
            if state.receivers == 0 {
                Step::Ready(())
            } else if state.leaving.wait(&mut self.place, cx.waker(), spare) {
                Step::Pending(None)
            } else {
                Step::Clone
            }
        })
    }
}

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let _waker = self.shared.borrow_mut().leaving.remove(place);
        }
    }
}

/// The side that follows the value; a clone has seen what this has seen.
pub struct Receiver<T> {
    shared: Shared<T>,
    /// The version that was seen last.
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value as it is now. It does not count as seen.
    #[must_use]
    pub fn latest(&self) -> Rc<T> {
        Rc::clone(&self.shared.borrow().value)
    }

    /// There is a value that was not seen.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.shared.borrow().version != self.seen
    }

    /// The value as it is now counts as seen.
    pub fn mark_seen(&mut self) {
        self.seen = self.shared.borrow().version;
    }

    /// Waits for a value that was not seen, and marks it as seen. What it is says [`latest`](Self::latest).
    ///
    /// # Errors
    /// [`Closed`] if no sender is left and the last value has been seen.
    ///
    /// # Cancel safety
    /// Nothing is lost: a change counts as seen only with the poll that returns it.
    pub fn changed(&mut self) -> Changed<'_, T> {
        Changed { receiver: self, place: None }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().receivers += 1;
        Self { shared: Rc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let wakers = {
            let state = &mut *self.shared.borrow_mut();
            state.receivers -= 1;
            if state.receivers == 0 { state.leaving.take_all() } else { Vec::new() }
        };
        wake_all(wakers);
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

/// A wait for a change; [`Receiver::changed`] makes it.
#[must_use = "nothing is waited for before it is awaited"]
pub struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    place: Option<usize>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { receiver, place } = self.get_mut();
        drive(cx.waker(), |spare| {
            let state = &mut *receiver.shared.borrow_mut();
            if state.version != receiver.seen {
                receiver.seen = state.version;
                Step::Ready(Ok(()))
            } else if state.senders == 0 {
                Step::Ready(Err(Closed))
            } else if state.following.wait(place, cx.waker(), spare) {
                Step::Pending(None)
            } else {
                Step::Clone
            }
        })
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let _waker = self.receiver.shared.borrow_mut().following.remove(place);
        }
    }
}

impl<T> fmt::Debug for Changed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}
