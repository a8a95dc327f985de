//! One wake target for each connection and task whose waker somebody has cloned, kept and used again; and the waker of a poll, which most tasks
//! get by with.
//!
//! It has two ways to its worker. On the worker's own thread a wake is a mark and a push: no atomic read-modify-write, no
//! letter, no system call. From elsewhere it is one letter for a burst of wakes.
//!
//! Invariants: `queued` is set while a letter for this target is under way that has something to say; it is cleared, by a
//! read-modify-write, before the poll, so a wake during the poll is not lost (`tests/loom.rs`). `listed` is the same of an entry on the
//! list of its lane, and only the lane's thread touches it. A connection that hears of a wake before it arrives clears them too, and a
//! letter or entry that finds its mark cleared says nothing; but a letter for a task always has it polled, as one of a `Stranger` has no mark. An
//! entry by the key of a task has its mark in its cell. Neither stands for the other: one mark for both, cleared by a plain store, could
//! still look set to a thread that wakes.
//!
//! A target holds no future and no state of the program: who drops the last waker, on whatever thread, frees a few words.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::task::{Wake, Waker};

use super::lane;
use super::sync::{Arc, AtomicBool, Ordering};
use crate::mem::Key;
use crate::sys::Borrowed;

/// Takes a wake to the worker that owns the key.
pub trait Deliver: Send + Sync + 'static {
    /// Sends the worker a letter for this key.
    fn deliver(&self, key: Key);

    /// Sends the worker something that is to be dropped there. If it has ended, that happens here and now.
    fn carry_home(&self, what: Box<dyn Send>) {
        drop(what);
    }
}

/// Which way a wake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// By the list of the worker.
    Here,
    /// By a letter.
    ByLetter,
}

/// What a [`Waker`] of a connection or a task points to. One allocation, made when the waker is first cloned; tasks that have ended leave theirs
/// to the next ones.
pub struct WakeTarget {
    /// Bits of the key that it stands for: of one task after the other.
    key: AtomicU64,
    queued: AtomicBool,
    listed: AtomicBool,
    /// The number of the lane whose list it may go on.
    lane: u64,
    to: Arc<dyn Deliver>,
}

impl WakeTarget {
    /// A target behind this key, at lane on the worker whose wakes go to `to`.
    pub fn new(key: Key, lane: u64, to: Arc<dyn Deliver>) -> Arc<Self> {
        let (queued, listed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { key: AtomicU64::new(key.to_bits()), queued, listed, lane, to })
    }

    /// Lets it stand for another key. Nobody else has it or a waker that leads to it, and nothing of it is under way.
    pub fn begin(&self, key: Key) {
        // Whoever gets a waker gets it from here, behind this.
        self.key.store(key.to_bits(), Relaxed);
    }

    /// Nobody has it but the caller, who has one waker that leads to it too, and no wake is under way.
    pub fn is_alone(self: &Arc<Self>) -> bool {
        if Arc::strong_count(self) > 2 {
            return false;
        }
        // What others did with it, before they dropped it, is seen from here on.
        fence(Acquire);
        !self.is_queued()
    }

    #[inline]
    fn key(&self) -> Key {
        Key::from_bits(self.key.load(Relaxed))
    }

    /// A waker that leads here.
    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// An entry on the list of its lane is made for it, by the caller, who is there. False if there is one.
    #[inline]
    pub fn mark_listed(&self) -> bool {
        if self.listed.load(Ordering::Relaxed) {
            return false;
        }
        self.listed.store(true, Ordering::Relaxed);
        true
    }

    /// A wake is under way, whichever way it goes.
    pub fn is_queued(&self) -> bool {
        self.listed.load(Ordering::Relaxed) || self.queued.load(Ordering::Acquire)
    }

    /// The wake has arrived; from now on one that takes the same way makes a new entry or letter. False if it was told before.
    #[inline]
    pub fn arrived(&self, how: Came) -> bool {
        match how {
            Came::Here => {
                let was = self.listed.load(Ordering::Relaxed);
                self.listed.store(false, Ordering::Relaxed);
                was
            }
            // Acquire: what was done before the wake is visible to the poll that follows.
            Came::ByLetter => self.queued.swap(false, Ordering::AcqRel),
        }
    }
}

impl Wake for WakeTarget {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        if lane::is_here(self.lane) {
            if self.mark_listed() {
                lane::list(self.key());
            }
            return;
        }
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.to.deliver(self.key());
        }
    }
}

/// Wakes a task from a thread that is not in its lane, a letter each time: what somebody gets who clones the waker of a poll on another thread
/// while that poll lasts.
struct Stranger {
    key: Key,
    to: Arc<dyn Deliver>,
}

impl Wake for Stranger {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.to.deliver(self.key);
    }
}

/// A poll of a task, as the waker that the task is polled with knows it: on the stack, until somebody clones it.
pub struct Polling<'a> {
    key: Key,
    lane: u64,
    to: &'a Arc<dyn Deliver>,
    /// Set by whoever wakes the task by reference meanwhile; read behind the poll.
    is_woken: AtomicBool,
}

impl<'a> Polling<'a> {
    #[inline]
    pub fn new(key: Key, lane: u64, to: &'a Arc<dyn Deliver>) -> Self {
        Self { key, lane, to, is_woken: AtomicBool::new(false) }
    }

    /// Whether the task has been woken in its poll, which is over.
    #[inline]
    pub fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }
}

impl Borrowed for Polling<'_> {
    fn to_waker(&self) -> Waker {
        match lane::here(self.lane) {
            Some(lane) => lane.executor().own_waker(self.key),
            None => Waker::from(Arc::new(Stranger { key: self.key, to: Arc::clone(self.to) })),
        }
    }

    #[inline]
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::Lane;
    use super::*;

    #[derive(Default)]
    struct Letters(Mutex<Vec<Key>>);

    impl Letters {
        fn count(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Deliver for Letters {
        fn deliver(&self, key: Key) {
            self.0.lock().unwrap().push(key);
        }
    }

    #[test]
    fn a_burst_of_wakes_from_elsewhere_is_one_letter_until_it_arrives() {
        let letters = Arc::new(Letters::default());
        let target = WakeTarget::new(Key::from_bits(7), 1, letters.clone());
        let waker = target.waker();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!((letters.count(), target.is_queued()), (1, true));

        target.arrived(Came::ByLetter);
        assert!(!target.is_queued());
        waker.wake();
        assert_eq!(letters.count(), 2);
    }

    #[test]
    fn a_wake_at_home_goes_on_the_list_once_and_sends_no_letter() {
        let letters = Arc::new(Letters::default());
        let lane = Lane::for_test(letters.clone());
        let target = WakeTarget::new(Key::from_bits(7), lane.number(), letters.clone());
        let waker = target.waker();

        let entered = lane.enter();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!((lane.take_woken(), lane.take_woken()), (Some(Key::from_bits(7)), None));
        assert!(target.is_queued(), "until it has arrived");
        target.arrived(Came::Here);
        waker.wake_by_ref();
        assert_eq!(lane.take_woken(), Some(Key::from_bits(7)));
        target.arrived(Came::Here);

        let other = Lane::for_test(letters.clone());
        let in_other = other.enter();
        waker.wake_by_ref();
        assert_eq!(
            (letters.count(), other.take_woken()),
            (1, None),
            "another worker on this thread is elsewhere"
        );
        drop(in_other);
        drop(entered);
        target.arrived(Came::ByLetter);
        waker.wake();
        assert_eq!(
            (letters.count(), lane.take_woken()),
            (2, None),
            "and so is a thread that is in no worker"
        );
    }
}
