//! What a stream has only while something lies in it or somebody waits: input, output, an error, a socket under way, who waits to write.
//!
//! Most streams are idle most of the time, and have none of it. The box that a stream has done with serves the next one of the thread.
//!
//! Invariant: a [`Taken`] is dropped before the next one of its place is made. One that finds another in its place has lost what that one held,
//! and panics.

use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::task::Waker;

use crate::mem::{ReadBuffer, WriteQueue};
use crate::task::Parked;

thread_local! {
    /// The box of the stream that was last done with its own: one that is busy for a moment needs no allocation.
    static SPARE: Cell<Option<Box<Rest>>> = const { Cell::new(None) };
}

/// All of it.
#[derive(Default)]
pub struct Rest {
    /// Input that nobody has read.
    pub input: ReadBuffer,
    /// What was written and not handed over.
    pub out: WriteQueue,
    pub failure: Option<io::Error>,
    /// Of one that is taken over: until its worker has it, which is behind the poll that wants it.
    pub socket: Option<OwnedFd>,
    /// Input that a reader wants to be there before it is woken, in bytes; zero for any.
    pub wanted: usize,
    /// Of a reader that is no task of the worker. It stays when it is woken, so that one that waits again and again is cloned once; until
    /// another waits.
    pub reader: Option<Waker>,
    /// Who waits to write, or to be connected.
    pub writer: Option<Parked>,
}

impl Rest {
    fn is_vacant(&self) -> bool {
        self.input.is_empty()
            && self.out.is_empty()
            && self.failure.is_none()
            && self.socket.is_none()
            && self.wanted == 0
            && self.reader.is_none()
            && self.writer.is_none()
    }
}

/// The place of one. 8 bytes.
#[derive(Default)]
pub struct Place(Cell<Option<Box<Rest>>>);

/// What is in a place, until this is dropped.
pub struct Taken<'a> {
    place: &'a Place,
    /// `None` in the destructor.
    rest: Option<Box<Rest>>,
}

impl Place {
    /// What is there, if anything is.
    #[inline]
    pub fn get(&self) -> Option<Taken<'_>> {
        Some(Taken { place: self, rest: Some(self.0.take()?) })
    }

    /// What is there; something empty if nothing was.
    #[inline]
    pub fn get_or_make(&self) -> Taken<'_> {
        let rest = self.0.take().unwrap_or_else(make);
        Taken { place: self, rest: Some(rest) }
    }

    /// Gives up what is empty.
    #[inline]
    pub fn settle(&self) {
        if let Some(rest) = self.0.take() {
            self.settle_with(rest);
        }
    }

    #[inline(never)]
    fn settle_with(&self, rest: Box<Rest>) {
        self.0.set(keep_if_vacant(rest));
    }

    /// The same where a task reads, which is known by its key: the waker of an earlier reader is dropped, with nothing taken.
    #[inline]
    pub fn settle_without_reader(&self) {
        if let Some(rest) = self.0.take() {
            self.give_up_reader(rest);
        }
    }

    #[inline(never)]
    fn give_up_reader(&self, mut rest: Box<Rest>) {
        let over = rest.reader.take();
        self.0.set(keep_if_vacant(rest));
        drop(over);
    }

    /// What is left, of a stream that is gone.
    pub fn take(&mut self) -> Option<Box<Rest>> {
        self.0.take()
    }
}

fn make() -> Box<Rest> {
    SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
}

/// Keeps it for another stream if nothing is in it, else gives it back.
pub fn keep_if_vacant(rest: Box<Rest>) -> Option<Box<Rest>> {
    if !rest.is_vacant() {
        return Some(rest);
    }
    let before = SPARE.try_with(|spare| spare.replace(Some(rest)));
    drop(before);
    None
}

impl Deref for Taken<'_> {
    type Target = Rest;

    #[inline]
    fn deref(&self) -> &Rest {
        self.rest.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Taken<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Rest {
        self.rest.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        let other = self.place.0.replace(self.rest.take());
        assert!(other.is_none(), "two have had what one stream has");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_has_none_and_the_next_one_gets_what_the_last_has_left() {
        let (one, other) = (Place::default(), Place::default());
        assert!(one.get().is_none());
        one.get_or_make().wanted = 1;
        one.settle();
        assert_eq!(one.get().map(|rest| rest.wanted), Some(1), "it is not empty");
        let mut rest = one.get_or_make();
        rest.wanted = 0;
        let address = &raw const *rest;
        drop(rest);
        one.settle();
        assert!(one.get().is_none());
        assert_eq!(&raw const *other.get_or_make(), address);
    }

    #[test]
    #[should_panic = "two have had what one stream has"]
    fn two_at_once_are_noticed() {
        let place = Place::default();
        let first = place.get_or_make();
        drop(place.get_or_make());
        drop(first);
    }
}
