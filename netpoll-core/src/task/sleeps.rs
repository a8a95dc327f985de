//! Wakers in a timing wheel: what the sleeps of a worker's tasks wait for.
//!
//! A wheel of its own beside that of connections and timers, because a task is polled where nobody can lend that one. Its next
//! deadline bounds the worker's wait as well.
//!
//! Invariant: a key has a slot exactly while its entry is in the wheel. A slot that is gone has fired, or was cancelled by the
//! only one who knows its key. All is O(1).

use std::cell::RefCell;
use std::task::Waker;

use crate::mem::{Key, KeySlab, guarded};
use crate::time::{Instant, TimerKey, Wheel};

/// The keys never leave their sleeps, so that any table number does.
const TABLE: u8 = 250;

struct Sleeper {
    waker: Waker,
    entry: TimerKey,
}

struct Inner {
    slots: KeySlab<Sleeper>,
    wheel: Wheel<Key>,
    /// Those that fire, while they do.
    firing: Vec<Waker>,
}

/// The sleeps of one worker.
pub struct Sleeps(RefCell<Inner>);

impl Default for Sleeps {
    fn default() -> Self {
        Self(RefCell::new(Inner { slots: KeySlab::new(TABLE), wheel: Wheel::new(), firing: Vec::new() }))
    }
}

impl Sleeps {
    /// Wakes `waker` at `at`, unless it is cancelled before.
    ///
    /// # Panics
    /// With 16 million sleeps on one worker.
    pub fn start(&self, now: Instant, at: Instant, waker: Waker) -> Key {
        let mut inner = self.0.borrow_mut();
        let Inner { slots, wheel, .. } = &mut *inner;
        slots
            .insert_with(|key| Sleeper { waker, entry: wheel.insert(now, at, key) })
            .expect("a worker has at most 16 million sleeps")
    }

    /// Goes on waiting. False if it has fired.
    pub fn wait(&self, key: Key, waker: &Waker) -> bool {
        match self.0.borrow().slots.get(key) {
            None => return false,
            Some(sleeper) if sleeper.waker.will_wake(waker) => return true,
            Some(_) => {}
        }
        let waker = waker.clone();
        let before = match self.0.borrow_mut().slots.get_mut(key) {
            Some(sleeper) => std::mem::replace(&mut sleeper.waker, waker),
            None => return false,
        };
        drop(before);
        true
    }

    /// Takes it out of the wheel.
    pub fn cancel(&self, key: Key) {
        let mut inner = self.0.borrow_mut();
        let sleeper = inner.slots.remove(key);
        if let Some(sleeper) = &sleeper {
            inner.wheel.remove(sleeper.entry);
        }
        drop(inner);
        drop(sleeper);
    }

    /// When the first of them is due, or has to move in the wheel.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.borrow().wheel.next_deadline()
    }

    /// Wakes those that are due, `max` at most, and returns how many.
    pub fn expire(&self, now: Instant, max: usize) -> usize {
        let mut inner = self.0.borrow_mut();
        let Inner { slots, wheel, firing } = &mut *inner;
        if wheel.is_empty() {
            return 0;
        }
        let fired =
            wheel.expire(now, max, |key| firing.extend(slots.remove(key).map(|sleeper| sleeper.waker)));
        let mut firing = std::mem::take(firing);
        drop(inner);
        for waker in firing.drain(..) {
            guarded(|| waker.wake());
        }
        self.0.borrow_mut().firing = firing;
        fired
    }

    #[inline]
    pub fn reclaim(&self) {
        self.0.borrow_mut().slots.reclaim();
    }

    pub fn shrink(&self) {
        let mut inner = self.0.borrow_mut();
        inner.slots.shrink();
        inner.wheel.shrink();
        inner.firing.shrink_to_fit();
    }
}
