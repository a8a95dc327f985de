//! A bounded channel between threads: many senders, one receiver.
//!
//! To send is to lock, push and unlock, and to wake the receiver if it sleeps: once for a burst. The receiver takes out all
//! that is there in one go and hands it on value by value, without the lock. Senders that find no room wait in line, first
//! come first served, with their values: the receiver lets them in as it makes room.
//!
//! A task that waits for room keeps no thread from anything else. Two workers whose tasks send to each other may both have
//! full queues: each goes on receiving, as long as that is another task's work, or another branch's, than the sending.
//!
//! With a capacity of 0 values are handed over: a send is done when its value was received.
//!
//! ```
//! use std::thread;
//!
//! use netpoll_core::sync::shared::mpsc;
//!
//! let (sender, mut receiver) = mpsc::channel(64);
//! let threads: Vec<_> = (0..3)
//!     .map(|number| {
//!         let sender = sender.clone();
//!         thread::spawn(move || sender.blocking_send(number)) // in a task: sender.send(number).await
//!     })
//!     .collect();
//! drop(sender);
//! # futures::executor::block_on(async {
//! let mut sum = 0;
//! while let Some(number) = receiver.recv().await {
//!     sum += number;
//! }
//! assert_eq!(sum, 0 + 1 + 2);
//! # });
//! # threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_ok()));
//! ```
//!
//! A receiver that finds values again and again gives way: on a worker as [all waits](crate::sync#giving-way) do, elsewhere behind 128 values, or
//! a full queue if that is more.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use super::primitives::{AtomicUsize, Mutex, Ordering};
use crate::sync::queue::{Queue, Remains, Taken, Wish};
use crate::sync::wakers::{Step, drive, drive_with, give_way, wake_all, wake_each, wake_one};
pub use crate::sync::{Closed, SendError, TryError, TrySendError};
use crate::task::{share, wait_for};

/// A receiver that has found so many values in a row on a thread that is no worker gives way.
const SHARE: usize = 128;

/// In `Shared::hand`: senders wait for the rooms of values in hand.
const WANTED: usize = 1;
/// In `Shared::hand`: one value.
const ONE: usize = 2;

/// A channel that holds at most so many values.
///
/// One allocation; the queue grows as it is used, and keeps its memory until both sides are gone. A capacity of 0 is a
/// rendezvous: a value goes from a sender that waits to the receiver.
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared =
        Arc::new(Shared { queue: Mutex::new(Queue::new(capacity)), hand: Hand(AtomicUsize::new(0)) });
    let receiver =
        Receiver { shared: Arc::clone(&shared), hand: VecDeque::new(), found: 0, wakers: Vec::new() };
    (Sender { shared }, receiver)
}

struct Shared<T> {
    /// Locked for a step only, which runs no code of the program: so the lock is held for some instructions, and no panic
    /// leaves a step half done.
    queue: Mutex<Queue<T>>,
    hand: Hand,
}

/// How many values the receiver has in hand, which count as held, and whether somebody waits for their rooms.
///
/// Senders read it under the lock, and only when there seems to be no room: who then joins the line sets WANTED in one
/// operation with the reading. The receiver takes values off in one operation with looking at WANTED. One of the two is
/// later and sees the other, so no sender waits for a room that is there (`tests/loom.rs`). Invariant: whenever the lock
/// is free and the line is not empty while values are in hand, WANTED is set.
///
/// On a cache line of its own: the receiver writes it with each value, and senders are busy with the lock.
#[repr(align(128))]
struct Hand(AtomicUsize);

impl<T> Shared<T> {
    #[inline]
    fn with<R>(&self, step: impl FnOnce(&mut Queue<T>) -> R) -> R {
        step(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A step of who needs a room. What the receiver has handed on meanwhile is room.
    #[inline]
    fn with_room<R>(&self, will_wait: bool, step: impl FnOnce(&mut Queue<T>) -> R) -> R {
        self.with(|queue| {
            if queue.in_hand > 0 && !queue.has_room() {
                let wanted = if will_wait { WANTED } else { 0 };
                queue.in_hand = self.hand.0.fetch_or(wanted, Ordering::AcqRel) / ONE;
            }
            step(queue)
        })
    }
}

/// The sending side; clone it for more senders. The channel ends when the last one is dropped.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
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
        let wake = self.shared.with_room(false, |queue| queue.try_send(value))?;
        wake_one(wake);
        Ok(())
    }

    /// Sends a value from a thread that is no worker, which sleeps while there is no room. A worker would stand still, and
    /// the receiver with it if it is there.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone or has closed.
    pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(value)) => Err(SendError(value)),
            Err(TrySendError::Full(value)) => wait_for(self.send(value)),
        }
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
        self.shared.with_room(false, Queue::try_reserve)?;
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
        self.shared.with(|queue| queue.is_closed())
    }

    /// Values that were sent and not received, a moment ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.with(|queue| queue.len() + self.shared.hand.0.load(Ordering::Acquire) / ONE)
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.with(|queue| queue.capacity())
    }

    /// Both lead to the same receiver.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn release(&self) {
        let [wake, receiver] = self.shared.with(Queue::release);
        wake_one(wake);
        wake_one(receiver);
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.with(Queue::add_sender);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wake = self.shared.with(Queue::remove_sender);
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
        // It will wait, unless it does already: a clone at hand saves a lock.
        let spare = place.is_none().then(|| cx.waker().clone());
        let (outcome, wake) = ready!(drive_with(spare, cx.waker(), |spare| {
            sender.shared.with_room(spare.is_some(), |queue| queue.step_send(place, value, cx.waker(), spare))
        }));
        wake_one(wake);
        Poll::Ready(outcome)
    }

    /// A first poll that gives way.
    #[cold]
    fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        let (value, place) = (&mut self.value, &mut self.place);
        // It stays out here if it is not kept: to drop it runs code of the program.
        let mut waker = Some(cx.waker().clone());
        let joined = self.sender.shared.with_room(true, |queue| {
            if queue.is_closed() {
                return None;
            }
            Some(queue.join(place, Wish::Value(value.take()?), waker.take()?))
        });
        let Some(wakes) = joined else { return give_way(cx.waker()) };
        wakes.into_iter().for_each(wake_one);
        Poll::Pending
    }

    fn withdraw(&mut self) -> Option<T> {
        let Some(place) = self.place.take() else { return self.value.take() };
        let waiter = self.sender.shared.with(|queue| queue.withdraw(place));
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
        if place.is_none() && share::is_spent() {
            let mut waker = Some(cx.waker().clone());
            let joined = sender.shared.with_room(true, |queue| {
                if queue.is_closed() { None } else { Some(queue.join(place, Wish::Room, waker.take()?)) }
            });
            let Some(wakes) = joined else { return give_way(cx.waker()) };
            wakes.into_iter().for_each(wake_one);
            return Poll::Pending;
        }
        let reserved = ready!(drive_with(None, cx.waker(), |spare| {
            sender.shared.with_room(spare.is_some(), |queue| queue.step_reserve(place, cx.waker(), spare))
        }));
        Poll::Ready(reserved.map(|()| Permit { sender }))
    }
}

impl<T> Drop for Reserving<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let waiter = self.sender.shared.with(|queue| queue.withdraw(place));
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
        let wake = shared.with(|queue| queue.send_reserved(value))?;
        wake_one(wake);
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
        let (shared, place) = (&self.sender.shared, &mut self.place);
        drive(cx.waker(), |spare| shared.with(|queue| queue.step_closed(place, cx.waker(), spare)))
    }
}

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let _waker = self.sender.shared.with(|queue| queue.forget_leaving(place));
        }
    }
}

/// The receiving side. Dropping it drops what was not received, and senders that wait have their values back.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Taken out of the queue in one go; they count as held (`Hand`).
    hand: VecDeque<T>,
    /// Values that were found in a row, without a wait.
    found: usize,
    /// Senders to be woken, while they are; kept for its memory.
    wakers: Vec<Waker>,
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
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if share::gives_way(cx.waker()) {
            return Poll::Pending;
        }
        match self.take_from_hand() {
            Some(value) => {
                share::spend();
                Poll::Ready(Some(value))
            }
            None => self.poll_queue(cx),
        }
    }

    /// The oldest value, if there is one. With a capacity of 0: that of a sender that waits.
    ///
    /// # Errors
    /// [`TryError::NotNow`] if there is none, [`TryError::Closed`] if the channel has ended.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryError> {
        if let Some(value) = self.take_from_hand() {
            return Ok(value);
        }
        let Self { shared, hand, wakers, .. } = self;
        let taken = shared.with(|queue| refill(queue, &shared.hand, hand, wakers));
        self.wake_senders();
        match taken {
            Taken::Value(value, _) => Ok(value),
            Taken::Nothing => Err(TryError::NotNow),
            Taken::End => Err(TryError::Closed),
        }
    }

    /// Waits for a value on a thread that is no worker: it sleeps. A worker would stand still.
    pub fn blocking_recv(&mut self) -> Option<T> {
        wait_for(self.recv())
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
        let count = self.hand.len().min(limit - 1);
        values.extend(self.hand.drain(..count));
        self.handed_on(count);
        1 + count
    }

    /// Takes nothing new in. Senders that wait have their values back; what is in the channel, and what comes by a
    /// [`Permit`], can still be received.
    pub fn close(&mut self) {
        let wakers = self.shared.with(Queue::close);
        wake_all(wakers);
    }

    /// Values that were sent and not received, a moment ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hand.len() + self.shared.with(|queue| queue.len())
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the channel may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.with(|queue| queue.capacity())
    }

    #[inline]
    fn take_from_hand(&mut self) -> Option<T> {
        let value = self.hand.pop_front()?;
        self.handed_on(1);
        Some(value)
    }

    /// So many values have left the hand.
    #[inline]
    fn handed_on(&mut self, count: usize) {
        let before = self.shared.hand.0.fetch_sub(count * ONE, Ordering::AcqRel);
        if before & WANTED != 0 {
            self.let_in();
        }
    }

    /// Lets those in who wait for the rooms of values that were handed on.
    #[cold]
    fn let_in(&mut self) {
        let Self { shared, hand, wakers, .. } = self;
        shared.with(|queue| {
            queue.in_hand = hand.len();
            wakers.extend(std::iter::from_fn(|| queue.let_in()));
            if queue.is_line_empty() {
                shared.hand.0.fetch_and(!WANTED, Ordering::AcqRel);
            }
        });
        self.wake_senders();
    }

    fn wake_senders(&mut self) {
        let mut wakers = self.wakers.drain(..);
        wake_each(|| wakers.next());
    }

    /// A poll with nothing in hand.
    #[inline(never)]
    fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { shared, hand, wakers, found, .. } = self;
        if *found >= SHARE {
            *found = 0;
            if !share::is_on_worker() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        // Who has just found something finds nothing now, more often than not: a clone at hand saves a lock.
        let spare = (*found > 0).then(|| cx.waker().clone());
        let polled = drive_with(spare, cx.waker(), |spare| {
            shared.with(|queue| match refill(queue, &shared.hand, hand, wakers) {
                Taken::Value(value, _) => Step::Ready(Some(value)),
                Taken::End => Step::Ready(None),
                Taken::Nothing => queue.listen(cx.waker(), spare),
            })
        });
        *found = if polled.is_ready() { *found + 1 + hand.len() } else { 0 };
        self.wake_senders();
        polled
    }
}

/// Takes one value out of the queue, and the others into the hand, which is empty; lets in who has room by that.
fn refill<T>(
    queue: &mut Queue<T>,
    in_hand: &Hand,
    hand: &mut VecDeque<T>,
    wakers: &mut Vec<Waker>,
) -> Taken<T> {
    queue.in_hand = 0;
    let mut taken = queue.take();
    if let Taken::Value(_, wake) = &mut taken {
        wakers.extend(wake.take());
    }
    wakers.extend(std::iter::from_fn(|| queue.let_in()));
    queue.take_all(hand);
    queue.in_hand = hand.len();
    let wanted = if queue.is_line_empty() { 0 } else { WANTED };
    in_hand.0.store(hand.len() * ONE + wanted, Ordering::Release);
    taken
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let Remains { values, receiver, wakers } = self.shared.with(Queue::remove_receiver);
        self.shared.hand.0.store(0, Ordering::Release);
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
            let _waker = self.receiver.shared.with(Queue::stop_listening);
        }
    }
}

impl<T> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("is_waiting", &self.is_waiting).finish_non_exhaustive()
    }
}
