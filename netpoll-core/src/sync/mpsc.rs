//! A bounded channel on one thread: many senders, one receiver.
//!
//! A value is a push and a pop; a burst to a receiver that sleeps wakes it once. Senders that find no room wait in line,
//! first come first served, with their values: the receiver lets them in as it makes room, so a sender is woken once, when
//! its value is in.
//!
//! With a capacity of 0 values are handed over, as by an unbuffered channel of Go: a send is done when its value was
//! received.
//!
//! Nothing here is [`Send`]: both sides stay on the thread that made them, and no step takes a lock or an atomic
//! operation. For other threads there is [`shared::mpsc`](super::shared::mpsc).
//!
//! ```
//! use netpoll_core::sync::mpsc;
//! # futures::executor::block_on(async {
//! let (sender, mut receiver) = mpsc::channel(2);
//! let produce = async move {
//!     for number in 1..=5 {
//!         sender.send(number).await?; // waits while two are there
//!     }
//!     Ok::<_, mpsc::SendError<i32>>(())
//! };
//! let consume = async {
//!     let mut sum = 0;
//!     while let Some(number) = receiver.recv().await {
//!         sum += number;
//!     }
//!     sum
//! };
//! let (produced, sum) = futures::join!(produce, consume);
//! assert_eq!((produced.is_ok(), sum), (true, 15));
//! # });
//! ```
//!
//! The receiver is a stream for those who want one: `futures::stream::poll_fn(|cx| receiver.poll_recv(cx))`.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::queue::{Queue, Remains, Taken, Wish};
use super::wakers::{Step, drive, drive_with, give_way, wake_all, wake_one};
pub use super::{Closed, SendError, TryError, TrySendError};
use crate::task::share;

/// A channel that holds at most so many values.
///
/// One allocation; the queue grows as it is used, and keeps its memory until both sides are gone. A capacity of 0 is a
/// rendezvous: a value goes from a sender that waits to the receiver.
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared { queue: RefCell::new(Queue::new(capacity)) });
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    /// Open only for a step; never while code of the program runs.
    queue: RefCell<Queue<T>>,
}

impl<T> Shared<T> {
    /// Wakes the receiver, and keeps its waker for the next time, which saves a clone.
    #[inline]
    fn wake_receiver(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            self.wake_and_put_back(waker);
        }
    }

    #[inline(never)]
    fn wake_and_put_back(&self, waker: Waker) {
        waker.wake_by_ref();
        let _not_needed = self.queue.borrow_mut().put_back(waker);
    }
}

/// The sending side; clone it for more senders. The channel ends when the last one is dropped.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends a value, and waits in line while there is no room.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone or has closed, before or while this waits.
    ///
    /// # Cancel safety
    /// A [`Sending`] that is dropped before its value was let in takes the value along, and the channel has not seen it; its
    /// place in line goes to the next. To have the value back, keep the future and call [`Sending::into_value`], or use
    /// [`reserve`](Self::reserve), which takes the value last.
    pub fn send(&self, value: T) -> Sending<'_, T> {
        Sending { sender: self, value: Some(value), place: None }
    }

    /// Sends a value if there is room and nobody waits for it.
    ///
    /// With a capacity of 0 that is so while the receiver waits, for one value.
    ///
    /// # Errors
    /// [`TrySendError`] with the value: there is no room, or the receiver is gone or has closed.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let wake = self.shared.queue.borrow_mut().try_send(value)?;
        self.shared.wake_receiver(wake);
        Ok(())
    }

    /// Waits in line for a room, to be filled later. With a capacity of 0: until the receiver waits.
    ///
    /// # Errors
    /// [`Closed`] if the receiver is gone or has closed, before or while this waits.
    ///
    /// # Cancel safety
    /// Nothing is lost: a room that this was given and did not take goes to the next in line.
    pub fn reserve(&self) -> Reserving<'_, T> {
        Reserving { sender: self, place: None }
    }

    /// A room if there is one and nobody waits for it.
    ///
    /// # Errors
    /// [`TryError::NotNow`] without room, [`TryError::Closed`] if the receiver is gone or has closed.
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TryError> {
        self.shared.queue.borrow_mut().try_reserve()?;
        Ok(Permit { sender: self })
    }

    /// Waits until the receiver is gone or has closed: what it would have been sent needs no doing any more.
    ///
    /// # Cancel safety
    /// There is nothing to lose.
    pub async fn closed(&self) {
        let mut leaving = Leaving { sender: self, place: None };
        std::future::poll_fn(move |cx| leaving.poll(cx)).await;
    }

    /// The receiver is gone or has closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.queue.borrow().is_closed()
    }

    /// Values that were sent and not received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.queue.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.queue.borrow().capacity()
    }

    /// Both lead to the same receiver.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    fn release(&self) {
        let [wake, receiver] = self.shared.queue.borrow_mut().release();
        wake_one(wake);
        self.shared.wake_receiver(receiver);
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.queue.borrow_mut().add_sender();
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wake = self.shared.queue.borrow_mut().remove_sender();
        wake_one(wake);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

/// A value on its way into a channel; [`Sender::send`] makes it.
#[must_use = "nothing is sent before it is awaited"]
pub struct Sending<'a, T> {
    sender: &'a Sender<T>,
    /// The value, until it stands in the line or is in.
    value: Option<T>,
    place: Option<usize>,
}

/// No field is pinned: it may be moved between polls.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Sending<'_, T> {
    /// Ends the wait. The value if the channel has not let it in; none if it has, whether this knew of it or not.
    #[must_use = "the value was not sent"]
    pub fn into_value(mut self) -> Option<T> {
        self.withdraw()
    }

    /// A poll of one that has to wait in line, or was in it.
    #[inline(never)]
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        let Self { sender, value, place } = self;
        let queue = &sender.shared.queue;
        // Who stands in line has been taken in, or has nothing to do but to wait.
        let step = |spare: &mut _| queue.borrow_mut().step_send(place, value, cx.waker(), spare);
        let (outcome, wake) = ready!(drive_with(None, cx.waker(), step));
        sender.shared.wake_receiver(wake);
        Poll::Ready(outcome)
    }

    /// A first poll that gives way.
    #[cold]
    fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        let (shared, waker) = (&self.sender.shared, cx.waker().clone());
        if shared.queue.borrow().is_closed() {
            return give_way(&waker);
        }
        // To clone a waker runs code of the program, but nothing does from here on.
        let Some(value) = self.value.take() else { return Poll::Pending };
        let [wake, receiver] = shared.queue.borrow_mut().join(&mut self.place, Wish::Value(value), waker);
        wake_one(wake);
        shared.wake_receiver(receiver);
        Poll::Pending
    }

    fn withdraw(&mut self) -> Option<T> {
        let Some(place) = self.place.take() else { return self.value.take() };
        let waiter = self.sender.shared.queue.borrow_mut().withdraw(place);
        match waiter.wish {
            Wish::Value(value) => Some(value),
            Wish::Met | Wish::Room => None,
        }
    }
}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.value.is_some() && share::is_spent() {
            return this.give_way(cx);
        }
        if let Some(value) = this.value.take() {
            match this.sender.try_send(value) {
                Err(TrySendError::Full(value)) => this.value = Some(value),
                sent => {
                    share::spend();
                    return Poll::Ready(sent.map_err(|error| SendError(error.into_inner())));
                }
            }
        }
        this.poll_line(cx)
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        drop(self.withdraw());
    }
}

impl<T> fmt::Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// A wait for room; [`Sender::reserve`] makes it.
#[must_use = "nothing is reserved before it is awaited"]
pub struct Reserving<'a, T> {
    sender: &'a Sender<T>,
    place: Option<usize>,
}

impl<'a, T> Future for Reserving<'a, T> {
    type Output = Result<Permit<'a, T>, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { sender, place } = self.get_mut();
        let queue = &sender.shared.queue;
        if place.is_none() && share::is_spent() {
            let waker = cx.waker().clone();
            if queue.borrow().is_closed() {
                return give_way(&waker);
            }
            let [wake, _no_value] = queue.borrow_mut().join(place, Wish::Room, waker);
            wake_one(wake);
            return Poll::Pending;
        }
        let step = |spare: &mut _| queue.borrow_mut().step_reserve(place, cx.waker(), spare);
        let reserved = ready!(drive_with(None, cx.waker(), step));
        Poll::Ready(reserved.map(|()| Permit { sender }))
    }
}

impl<T> Drop for Reserving<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let waiter = self.sender.shared.queue.borrow_mut().withdraw(place);
            if let Wish::Met = waiter.wish {
                self.sender.release();
            }
        }
    }
}

impl<T> fmt::Debug for Reserving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserving").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// A room in a channel that nobody else gets. Dropped without a value it goes to the next in line.
///
/// While there is one the channel does not end: a receiver that has closed still waits for it.
#[must_use = "it keeps a room"]
pub struct Permit<'a, T> {
    sender: &'a Sender<T>,
}

impl<T> Permit<'_, T> {
    /// Sends a value without waiting, also if the receiver has closed since.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        let shared = &self.sender.shared;
        // The room is used now, and not to be released.
        std::mem::forget(self);
        let wake = shared.queue.borrow_mut().send_reserved(value)?;
        shared.wake_receiver(wake);
        Ok(())
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        self.sender.release();
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// A wait for the end.
struct Leaving<'a, T> {
    sender: &'a Sender<T>,
    place: Option<usize>,
}

impl<T> Leaving<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (queue, place) = (&self.sender.shared.queue, &mut self.place);
        drive(cx.waker(), |spare| queue.borrow_mut().step_closed(place, cx.waker(), spare))
    }
}

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let _waker = self.sender.shared.queue.borrow_mut().forget_leaving(place);
        }
    }
}

/// The receiving side. Dropping it drops what was not received, and senders that wait have their values back.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The oldest value; waits until there is one. `None` when the channel has ended: no sender is left, or
    /// [`close`](Self::close) was called, and everything was received.
    ///
    /// # Cancel safety
    /// Nothing is lost: a value leaves the channel only with the poll that returns it.
    pub fn recv(&mut self) -> Receiving<'_, T> {
        Receiving { receiver: self, is_waiting: false }
    }

    /// [`recv`](Self::recv) for who writes a future or a stream. The last waker that it was polled with is woken.
    #[inline(always)]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if share::gives_way(cx.waker()) {
            return Poll::Pending;
        }
        match self.try_recv() {
            Ok(value) => {
                share::spend();
                Poll::Ready(Some(value))
            }
            Err(TryError::Closed) => {
                share::spend();
                Poll::Ready(None)
            }
            Err(TryError::NotNow) => self.listen(cx),
        }
    }

    /// Waits, with nothing there.
    #[inline(never)]
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let queue = &self.shared.queue;
        let listened = queue.borrow_mut().listen::<()>(cx.waker(), &mut None);
        if let Step::Pending(wake) = listened {
            wake_one(wake);
            return Poll::Pending;
        }
        // To clone a waker runs code of the program, so there may be a value now.
        let (value, wake) =
            ready!(drive(cx.waker(), |spare| queue.borrow_mut().step_recv(cx.waker(), spare)));
        wake_one(wake);
        Poll::Ready(value)
    }

    /// The oldest value, if there is one. With a capacity of 0: that of a sender that waits.
    ///
    /// # Errors
    /// [`TryError::NotNow`] if there is none, [`TryError::Closed`] if the channel has ended.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryError> {
        let taken = self.shared.queue.borrow_mut().take();
        match taken {
            Taken::Value(value, wake) => {
                wake_one(wake);
                Ok(value)
            }
            Taken::Nothing => Err(TryError::NotNow),
            Taken::End => Err(TryError::Closed),
        }
    }

    /// Takes up to so many values out, behind what is in `values` already, and waits until there is one. How many; 0 when
    /// the channel has ended, or if `limit` is 0.
    ///
    /// # Cancel safety
    /// Nothing is lost: values leave the channel only with the poll that completes.
    pub async fn recv_many(&mut self, values: &mut Vec<T>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let Some(value) = self.recv().await else { return 0 };
        values.push(value);
        for count in 1..limit {
            match self.try_recv() {
                Ok(value) => values.push(value),
                Err(_) => return count,
            }
        }
        limit
    }

    /// Takes nothing new in. Senders that wait have their values back; what is in the channel, and what comes by a
    /// [`Permit`], can still be received.
    pub fn close(&mut self) {
        let wakers = self.shared.queue.borrow_mut().close();
        wake_all(wakers);
    }

    /// Values that were sent and not received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.queue.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.queue.borrow().capacity()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let Remains { values, receiver, wakers } = self.shared.queue.borrow_mut().remove_receiver();
        wake_all(wakers);
        drop(receiver);
        drop(values);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

/// A wait for a value; [`Receiver::recv`] makes it.
#[must_use = "nothing is received before it is awaited"]
pub struct Receiving<'a, T> {
    receiver: &'a mut Receiver<T>,
    is_waiting: bool,
}

impl<T> Future for Receiving<'_, T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        let polled = this.receiver.poll_recv(cx);
        this.is_waiting = polled.is_pending();
        polled
    }
}

impl<T> Drop for Receiving<'_, T> {
    fn drop(&mut self) {
        if self.is_waiting {
            let _waker = self.receiver.shared.queue.borrow_mut().stop_listening();
        }
    }
}

impl<T> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("is_waiting", &self.is_waiting).finish_non_exhaustive()
    }
}
