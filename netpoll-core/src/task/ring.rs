//! A queue of keys in a few instructions: every wake goes through one.
//!
//! The first of them stand in a circle of places that is always there, so that nothing is borrowed and no bound is checked; the others, in a
//! burst, behind it.
//!
//! Invariant: a key stands in `rest` only while the circle is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::mem::Key;

/// Places of the circle: as many as a `u8` has values, which goes round by itself. Twice as many as the polls of a slice.
const PLACES: usize = 256;

/// A queue of keys, first in first out.
pub struct Ring {
    places: [Cell<Key>; PLACES],
    /// The place of the first key.
    first: Cell<u8>,
    /// Keys in the circle and behind it.
    len: Cell<usize>,
    rest: RefCell<VecDeque<Key>>,
}

impl Default for Ring {
    fn default() -> Self {
        let places = [const { Cell::new(Key::from_bits(0)) }; PLACES];
        Self { places, first: Cell::new(0), len: Cell::new(0), rest: RefCell::default() }
    }
}

impl Ring {
    /// How many stand in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Puts a key behind the last one.
    #[inline(always)]
    pub fn push(&self, key: Key) {
        let len = self.len.get();
        self.len.set(len + 1);
        if len < PLACES {
            self.place(len).set(key);
        } else {
            self.push_behind(key);
        }
    }

    /// Takes the first one.
    #[inline]
    pub fn pop(&self) -> Option<Key> {
        let len = self.len.get();
        if len == 0 {
            return None;
        }
        let first = self.place(0).get();
        self.first.set(self.first.get().wrapping_add(1));
        self.len.set(len - 1);
        if len > PLACES {
            self.close_up();
        }
        Some(first)
    }

    /// The place so many places behind the first one.
    #[inline]
    fn place(&self, index: usize) -> &Cell<Key> {
        &self.places[usize::from(self.first.get().wrapping_add(index as u8))]
    }

    #[cold]
    #[inline(never)]
    fn push_behind(&self, key: Key) {
        self.rest.borrow_mut().push_back(key);
    }

    /// The circle has room for the first of the others.
    #[cold]
    #[inline(never)]
    fn close_up(&self) {
        if let Some(next) = self.rest.borrow_mut().pop_front() {
            self.place(PLACES - 1).set(next);
        }
    }

    /// Gives back what a burst has left.
    pub fn shrink(&self) {
        self.rest.borrow_mut().shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_in_the_order_in_which_they_came_however_many_there_are() {
        let (ring, mut came, mut left) = (Ring::default(), 0, 0);
        assert_eq!(ring.pop(), None);
        // The length goes up and down, past the circle and back to none.
        for (more, fewer) in
            [(100, 40), (300, 10), (5, 320), (700, 650), (1, 1), (300, 385), (256, 1), (2, 257)]
        {
            for _ in 0..more {
                ring.push(Key::from_bits(came));
                came += 1;
            }
            for _ in 0..fewer {
                assert_eq!(ring.pop(), Some(Key::from_bits(left)));
                left += 1;
            }
            ring.shrink();
            assert_eq!(ring.len() as u64, came - left);
        }
        assert_eq!((ring.pop(), came), (None, left));
    }
}
