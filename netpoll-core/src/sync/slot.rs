//! What the two sides of a oneshot share: one value, once. One state for both kinds, which keep it in a cell or behind a lock.
//!
//! No code of the program runs in here: wakers and values are handed to the caller, who wakes or drops them when the cell is
//! closed.
//!
//! Invariant: there is a value only behind a send, so only while `has_sender` is not set.

use std::mem;
use std::task::Waker;

use super::wakers::{Step, keep};
use super::{Closed, SendError, TryError};

/// The state of a oneshot.
pub struct Slot<T> {
    value: Option<T>,
    receiver: Option<Waker>,
    /// Of a sender that waits for the receiver's end.
    sender: Option<Waker>,
    has_sender: bool,
    is_closed: bool,
}

impl<T> Slot<T> {
    pub fn new() -> Self {
        Self { value: None, receiver: None, sender: None, has_sender: true, is_closed: false }
    }

    /// Puts the value in; it is the sender's last word. Who is to be woken, and a waker to be dropped.
    pub fn send(&mut self, value: T) -> Result<[Option<Waker>; 2], SendError<T>> {
        self.has_sender = false;
        if self.is_closed {
            return Err(SendError(value));
        }
        self.value = Some(value);
        Ok([self.receiver.take(), self.sender.take()])
    }

    /// The end of a sender. Who is to be woken, and a waker to be dropped.
    pub fn remove_sender(&mut self) -> [Option<Waker>; 2] {
        let wake = if mem::take(&mut self.has_sender) { self.receiver.take() } else { None };
        [wake, self.sender.take()]
    }

    pub fn try_recv(&mut self) -> Result<T, TryError> {
        match self.value.take() {
            Some(value) => Ok(value),
            None if self.has_sender && !self.is_closed => Err(TryError::NotNow),
            None => Err(TryError::Closed),
        }
    }

    /// A poll of the receiver.
    pub fn step_recv(&mut self, waker: &Waker, spare: &mut Option<Waker>) -> Step<Result<T, Closed>> {
        match self.try_recv() {
            Ok(value) => Step::Ready(Ok(value)),
            Err(TryError::Closed) => Step::Ready(Err(Closed)),
            Err(TryError::NotNow) if keep(&mut self.receiver, waker, spare) => Step::Pending(None),
            Err(TryError::NotNow) => Step::Clone,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// A poll of a sender that waits for the receiver's end.
    pub fn step_closed(&mut self, waker: &Waker, spare: &mut Option<Waker>) -> Step<()> {
        if self.is_closed {
            Step::Ready(())
        } else if keep(&mut self.sender, waker, spare) {
            Step::Pending(None)
        } else {
            Step::Clone
        }
    }

    /// Takes no value any more, but one that is there. Who is to be woken.
    pub fn close(&mut self) -> Option<Waker> {
        self.is_closed = true;
        self.sender.take()
    }

    /// The end of the receiver: who is to be woken, and what is to be dropped.
    pub fn remove_receiver(&mut self) -> (Option<Waker>, Option<Waker>, Option<T>) {
        (self.close(), self.receiver.take(), self.value.take())
    }
}
