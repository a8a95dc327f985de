//! Tasks in a timing wheel: what the sleeps of a worker's tasks wait for.
//!
//! A wheel of its own beside that of connections and timers, because a task is polled where nobody can lend that one. Its next
//! deadline bounds the worker's wait as well.
//!
//! Invariant: a key has a slot exactly while its entry is in the wheel. A slot that is gone has fired, or was cancelled by the
//! only one who knows its key. All is O(1).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::{Lane, Parked};
use crate::clockwork::{Instant, TimerKey, Wheel};
use crate::mem::{Key, KeySlab};

/// The keys never leave their sleeps, so that any table number does.
const TABLE: u8 = 250;

struct Sleeper {
    who: Parked,
    entry: TimerKey,
}

struct Inner {
    slots: KeySlab<Sleeper>,
    wheel: Wheel<Key>,
    /// Those that fire, while they do.
    firing: Vec<Parked>,
}

/// The sleeps of one worker.
pub struct Sleeps {
    inner: RefCell<Inner>,
    /// Those in the wheel.
    waiting: Cell<usize>,
}

impl Default for Sleeps {
    fn default() -> Self {
        let inner = Inner { slots: KeySlab::new(TABLE), wheel: Wheel::new(), firing: Vec::new() };
        Self { inner: RefCell::new(inner), waiting: Cell::new(0) }
    }
}

impl Sleeps {
    /// Wakes `who` at `at`, unless it is cancelled before.
    ///
    /// # Panics
    /// With 16 million sleeps on one worker.
    pub fn start(&self, now: Instant, at: Instant, who: Parked) -> Key {
        let mut inner = self.inner.borrow_mut();
        let Inner { slots, wheel, .. } = &mut *inner;
        let key = slots
            .insert_with(|key| Sleeper { who, entry: wheel.insert(now, at, key) })
            .expect("a worker has at most 16 million sleeps");
        self.waiting.set(wheel.len());
        key
    }

    /// Goes on waiting. False if it has fired.
    pub fn wait(&self, lane: &Lane, key: Key, waker: &Waker) -> bool {
        match self.inner.borrow().slots.get(key) {
            None => return false,
            Some(sleeper) if sleeper.who.is(lane, waker) => return true,
            Some(_) => {}
        }
        let who = Parked::of(lane, waker);
        let before = match self.inner.borrow_mut().slots.get_mut(key) {
            Some(sleeper) => std::mem::replace(&mut sleeper.who, who),
            None => return false,
        };
        drop(before);
        true
    }

    /// Takes it out of the wheel.
    pub fn cancel(&self, key: Key) {
        let mut inner = self.inner.borrow_mut();
        let sleeper = inner.slots.take(key);
        if let Some(sleeper) = &sleeper {
            inner.wheel.remove(sleeper.entry);
        }
        self.waiting.set(inner.wheel.len());
        drop(inner);
        drop(sleeper);
    }

    /// When the first of them is due, or has to move in the wheel.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.get() == 0 { None } else { self.inner.borrow().wheel.next_deadline() }
    }

    /// Wakes those that are due, `max` at most, and returns how many.
    #[inline]
    pub fn expire(&self, lane: &Rc<Lane>, now: Instant, max: usize) -> usize {
        if self.waiting.get() == 0 { 0 } else { self.fire(lane, now, max) }
    }

    fn fire(&self, lane: &Rc<Lane>, now: Instant, max: usize) -> usize {
        let mut inner = self.inner.borrow_mut();
        let Inner { slots, wheel, firing } = &mut *inner;
        let fired = wheel.expire(now, max, |key| firing.extend(slots.take(key).map(|sleeper| sleeper.who)));
        self.waiting.set(wheel.len());
        let mut firing = std::mem::take(firing);
        drop(inner);
        for who in firing.drain(..) {
            who.wake(lane);
        }
        self.inner.borrow_mut().firing = firing;
        fired
    }

    pub fn shrink(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.slots.shrink();
        inner.wheel.shrink();
        inner.firing.shrink_to_fit();
    }
}
