//! What the two sides of a channel share: values, rooms, and senders in line. One state for both kinds of channel, which
//! keep it in a cell or behind a lock.
//!
//! No code of the program runs in here: wakers and values are moved out and handed to the caller, who wakes or drops
//! them when the cell is closed. A waiting sender leaves its value in its place in the line, where the receiver lets it in
//! as soon as there is room; so who stands in front is never overtaken, and a sender that is slow to wake up keeps nobody
//! waiting.
//!
//! Invariant: `values + in_hand + reserved <= capacity`, and while there is room nobody stands in the line. A channel of
//! capacity 0 has no room, but one while its receiver waits; values go from the line straight to the receiver. Whoever
//! stands in the line has a waker; a place outside of it has none.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use super::line::Line;
use super::wakers::{Crowd, Step, keep};
use super::{Closed, SendError, TryError, TrySendError};

/// What a sender waits for.
pub enum Wish<T> {
    /// That this value is let in.
    Value(T),
    /// A room, for a value that is not there yet.
    Room,
    /// Nothing any more: the value is in, or the room is reserved.
    Met,
}

/// A place in the line.
pub struct Waiter<T> {
    pub wish: Wish<T>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    /// The receiver takes what is there, and nothing new.
    Closed,
    /// There is no receiver.
    Gone,
}

/// What there is for the receiver.
pub enum Taken<T> {
    /// A value, and who is to be woken.
    Value(T, Option<Waker>),
    /// Nothing yet.
    Nothing,
    /// Nothing, for ever.
    End,
}

/// What a receiver leaves behind, to be woken and dropped with nothing open.
pub struct Remains<T> {
    pub values: VecDeque<T>,
    pub receiver: Option<Waker>,
    pub wakers: Vec<Waker>,
}

/// The state of a channel.
pub struct Queue<T> {
    values: VecDeque<T>,
    capacity: usize,
    /// Rooms that are promised: by permits, and to places whose wish for one was met.
    reserved: usize,
    /// Rooms of values that the receiver has taken out in one go and not handed on.
    pub in_hand: usize,
    line: Line<Waiter<T>>,
    /// Senders that wait for the end.
    leaving: Crowd,
    receiver: Option<Waker>,
    /// The receiver wants to be woken; set only while its waker is there.
    listens: bool,
    senders: usize,
    ending: Ending,
}

impl<T> Queue<T> {
    /// With one sender.
    pub fn new(capacity: usize) -> Self {
        Self {
            values: VecDeque::new(),
            capacity,
            reserved: 0,
            in_hand: 0,
            line: Line::new(),
            leaving: Crowd::new(),
            receiver: None,
            listens: false,
            senders: 1,
            ending: Ending::Open,
        }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Values that are here.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_closed(&self) -> bool {
        self.ending != Ending::Open
    }

    /// Nobody waits for room.
    pub fn is_line_empty(&self) -> bool {
        self.line.is_empty()
    }

    #[inline]
    pub fn has_room(&self) -> bool {
        let rooms = if self.capacity == 0 { usize::from(self.listens) } else { self.capacity };
        self.values.len() + self.in_hand + self.reserved < rooms
    }

    pub fn add_sender(&mut self) {
        self.senders += 1;
    }

    pub fn remove_sender(&mut self) -> Option<Waker> {
        self.senders -= 1;
        if self.senders == 0 { self.call_receiver() } else { None }
    }

    /// Takes a value in, if that needs no waiting. Who is to be woken.
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<Option<Waker>, TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(value));
        }
        if !self.has_room() || !self.line.is_empty() {
            return Err(TrySendError::Full(value));
        }
        self.values.push_back(value);
        Ok(self.call_receiver())
    }

    /// A poll of who sends. The value is in `value` at first, and then at the place.
    #[expect(clippy::type_complexity, reason = "the outcome, and who is to be woken")]
    pub fn step_send(
        &mut self,
        place: &mut Option<usize>,
        value: &mut Option<T>,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Step<(Result<(), SendError<T>>, Option<Waker>)> {
        if let Some(at) = *place {
            if self.line.is_linked(at) {
                return if keep(&mut self.line[at].waker, waker, spare) {
                    Step::Pending(None)
                } else {
                    Step::Clone
                };
            }
            *place = None;
            return match self.line.remove(at).wish {
                Wish::Value(value) => Step::Ready((Err(SendError(value)), None)),
                Wish::Met | Wish::Room => Step::Ready((Ok(()), None)),
            };
        }
        match self.try_send(value.take().expect("a send is not polled again when it is done")) {
            Ok(wake) => Step::Ready((Ok(()), wake)),
            Err(TrySendError::Closed(value)) => Step::Ready((Err(SendError(value)), None)),
            Err(TrySendError::Full(full)) if spare.is_none() => {
                *value = Some(full);
                Step::Clone
            }
            Err(TrySendError::Full(value)) => {
                *place = Some(self.line.join(Waiter { wish: Wish::Value(value), waker: spare.take() }));
                Step::Pending(if self.capacity == 0 { self.call_receiver() } else { None })
            }
        }
    }

    /// Reserves a room, if that needs no waiting.
    pub fn try_reserve(&mut self) -> Result<(), TryError> {
        if self.is_closed() {
            return Err(TryError::Closed);
        }
        if !self.has_room() || !self.line.is_empty() {
            return Err(TryError::NotNow);
        }
        self.reserved += 1;
        Ok(())
    }

    /// A poll of who wants a room.
    pub fn step_reserve(
        &mut self,
        place: &mut Option<usize>,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Step<Result<(), Closed>> {
        if let Some(at) = *place {
            if self.line.is_linked(at) {
                return if keep(&mut self.line[at].waker, waker, spare) {
                    Step::Pending(None)
                } else {
                    Step::Clone
                };
            }
            *place = None;
            return match self.line.remove(at).wish {
                Wish::Met => Step::Ready(Ok(())),
                Wish::Room | Wish::Value(_) => Step::Ready(Err(Closed)),
            };
        }
        match self.try_reserve() {
            Ok(()) => Step::Ready(Ok(())),
            Err(TryError::Closed) => Step::Ready(Err(Closed)),
            Err(TryError::NotNow) if spare.is_none() => Step::Clone,
            Err(TryError::NotNow) => {
                *place = Some(self.line.join(Waiter { wish: Wish::Room, waker: spare.take() }));
                Step::Pending(None)
            }
        }
    }

    /// A poll of who sends, and gives way: it takes its place behind the others, and is let in at once if there is room, so that nobody
    /// overtakes it. Who is to be woken.
    #[cold]
    pub fn join(&mut self, place: &mut Option<usize>, wish: Wish<T>, waker: Waker) -> [Option<Waker>; 2] {
        let is_value = matches!(wish, Wish::Value(_));
        *place = Some(self.line.join(Waiter { wish, waker: Some(waker) }));
        let wake = self.let_in();
        // For the value that was let in, or to take it from the line.
        let has_news = is_value && (wake.is_some() || self.capacity == 0);
        [wake, if has_news { self.call_receiver() } else { None }]
    }

    /// Gives a place up.
    pub fn withdraw(&mut self, place: usize) -> Waiter<T> {
        self.line.remove(place)
    }

    /// Gives a reserved room back. Who is to be woken: who gets it, and the receiver.
    pub fn release(&mut self) -> [Option<Waker>; 2] {
        self.reserved -= 1;
        let wake = self.let_in();
        // For the value that was let in, or because this was the last thing to wait for.
        let has_news = !self.values.is_empty() || self.is_closed() && self.reserved == 0;
        [wake, if has_news { self.call_receiver() } else { None }]
    }

    /// Puts a value into a reserved room, also when the channel was closed meanwhile. The value, if nobody is there.
    pub fn send_reserved(&mut self, value: T) -> Result<Option<Waker>, SendError<T>> {
        self.reserved -= 1;
        if self.ending == Ending::Gone {
            return Err(SendError(value));
        }
        self.values.push_back(value);
        Ok(self.call_receiver())
    }

    /// Takes the oldest value out, and lets in who has waited longest.
    #[inline]
    pub fn take(&mut self) -> Taken<T> {
        if let Some(value) = self.values.pop_front() {
            let wake = if self.line.is_empty() { None } else { self.let_in() };
            return Taken::Value(value, wake);
        }
        self.take_from_line()
    }

    /// With no value here: from a sender in line, if that is how this channel works, or none.
    #[inline(never)]
    fn take_from_line(&mut self) -> Taken<T> {
        if self.capacity == 0
            && self.reserved == 0
            && let Some(first) = self.line.first()
            && let Wish::Value(_) = self.line[first].wish
        {
            self.line.leave(first);
            let waiter = &mut self.line[first];
            let wake = waiter.waker.take();
            if let Wish::Value(value) = mem::replace(&mut waiter.wish, Wish::Met) {
                return Taken::Value(value, wake);
            }
        }
        // Who has a permit may send yet.
        let is_over = self.is_closed() || self.senders == 0;
        if is_over && self.reserved == 0 { Taken::End } else { Taken::Nothing }
    }

    /// A poll of the receiver.
    pub fn step_recv(
        &mut self,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Step<(Option<T>, Option<Waker>)> {
        match self.take() {
            Taken::Value(value, wake) => Step::Ready((Some(value), wake)),
            Taken::End => Step::Ready((None, None)),
            Taken::Nothing => self.listen(waker, spare),
        }
    }

    /// Keeps the waker of a receiver that found nothing.
    pub fn listen<R>(&mut self, waker: &Waker, spare: &mut Option<Waker>) -> Step<R> {
        if !keep(&mut self.receiver, waker, spare) {
            return Step::Clone;
        }
        self.listens = true;
        // Without a capacity there is a room now, for who wants to reserve one.
        Step::Pending(if self.capacity == 0 { self.let_in() } else { None })
    }

    /// The receiver does not wait any more. Its waker, to be dropped.
    pub fn stop_listening(&mut self) -> Option<Waker> {
        self.listens = false;
        self.receiver.take()
    }

    /// Keeps a waker that was called for the next time. It comes back if there is another one, or nobody to wake.
    #[must_use]
    pub fn put_back(&mut self, waker: Waker) -> Option<Waker> {
        if self.receiver.is_some() || self.ending == Ending::Gone {
            return Some(waker);
        }
        self.receiver = Some(waker);
        None
    }

    /// Takes all values out in one go, for a hand that is empty.
    pub fn take_all(&mut self, hand: &mut VecDeque<T>) {
        debug_assert!(hand.is_empty(), "what is in hand comes first");
        mem::swap(&mut self.values, hand);
    }

    /// Lets in who has waited longest, if there is room. Who is to be woken for it.
    pub fn let_in(&mut self) -> Option<Waker> {
        let first = self.line.first()?;
        if !self.has_room() {
            return None;
        }
        if self.capacity == 0 && matches!(self.line[first].wish, Wish::Value(_)) {
            // It has waited behind a permit that was given back. The receiver takes it from the line.
            return self.call_receiver();
        }
        self.line.leave(first);
        let waiter = &mut self.line[first];
        match mem::replace(&mut waiter.wish, Wish::Met) {
            Wish::Value(value) => self.values.push_back(value),
            Wish::Room | Wish::Met => self.reserved += 1,
        }
        self.line[first].waker.take()
    }

    /// Takes nothing new in. Who is to be woken.
    pub fn close(&mut self) -> Vec<Waker> {
        if self.is_closed() {
            return Vec::new();
        }
        self.ending = Ending::Closed;
        let mut wakers = self.leaving.take_all();
        while let Some(first) = self.line.first() {
            self.line.leave(first);
            wakers.extend(self.line[first].waker.take());
        }
        wakers.extend(self.call_receiver());
        wakers
    }

    /// The end of the receiver.
    pub fn remove_receiver(&mut self) -> Remains<T> {
        let wakers = self.close();
        self.ending = Ending::Gone;
        Remains { values: mem::take(&mut self.values), receiver: self.stop_listening(), wakers }
    }

    /// A poll of a sender that waits for the end.
    pub fn step_closed(
        &mut self,
        place: &mut Option<usize>,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> Step<()> {
        if self.is_closed() {
            Step::Ready(())
        } else if self.leaving.wait(place, waker, spare) {
            Step::Pending(None)
        } else {
            Step::Clone
        }
    }

    /// Gives the place of one that waits for the end up. Its waker, to be dropped.
    pub fn forget_leaving(&mut self, place: usize) -> Option<Waker> {
        self.leaving.remove(place)
    }

    /// The receiver is to be woken, once until it listens again.
    #[inline]
    fn call_receiver(&mut self) -> Option<Waker> {
        if mem::take(&mut self.listens) { self.receiver.take() } else { None }
    }
}
