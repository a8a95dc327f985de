//! The tasks of one worker: kept, polled, aborted and dropped.
//!
//! Invariant: a task's future is in its slot, in the hands of `poll`, or dropped. While it is polled its slot stays, so that its
//! key leads somewhere; who aborts it then leaves a mark, and the poll drops it behind itself. A slot is taken out of the table
//! before its future is dropped, and the future is dropped with nothing borrowed, inside a guard.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::sync::Arc;
use super::{Came, Lane, WakeTarget};
use crate::mem::{self, Key, KeySlab};

/// A future of the program, with whoever waits for it told inside.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The table of tasks: the number in their keys.
pub const TABLE: u8 = 251;

/// Destructors of tasks may spawn tasks whose destructors spawn tasks, but not for ever.
const GENERATIONS_MAX: usize = 8;

/// Targets that are kept for the next tasks.
const SPARE_MAX: usize = 1024;

struct Slot {
    /// `None` while it is polled.
    parts: Option<(Task, Waker)>,
    target: Arc<WakeTarget>,
    /// Whoever wanted it to end did so while it was polled.
    aborted: bool,
}

/// The tasks of one worker.
pub struct Executor {
    slots: RefCell<KeySlab<Slot>>,
    /// Targets that nobody else has.
    spare: RefCell<Vec<Arc<WakeTarget>>>,
    /// Slots have died since the last [`reclaim`](Self::reclaim).
    some_died: Cell<bool>,
    /// Tasks that are being refused, one inside the destructor of the other.
    refusing: Cell<usize>,
    /// The worker ends: a task that is spawned now is dropped at once.
    closed: Cell<bool>,
}

impl Default for Executor {
    fn default() -> Self {
        Self {
            slots: RefCell::new(KeySlab::new(TABLE)),
            spare: RefCell::default(),
            some_died: Cell::new(false),
            refusing: Cell::new(0),
            closed: Cell::new(false),
        }
    }
}

impl Executor {
    /// Tasks that have not ended.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Keeps a task, which is polled for the first time when its turn comes. Its key; `None` if the worker ends.
    ///
    /// # Panics
    /// With 16 million tasks on one worker.
    pub fn spawn(&self, lane: &Lane, task: Task) -> Option<Key> {
        if self.closed.get() {
            self.refuse(task);
            return None;
        }
        let spare = self.spare.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let key = slots.insert_with(|key| {
            let target = match spare {
                Some(mut target) => {
                    Arc::get_mut(&mut target).expect("nobody else has a spare target").reuse(key);
                    target
                }
                None => WakeTarget::new(key, lane.number(), lane.wakes()),
            };
            target.list();
            Slot { parts: Some((task, target.waker())), target, aborted: false }
        });
        drop(slots);
        let key = key.expect("a worker has at most 16 million tasks");
        lane.list(key);
        Some(key)
    }

    /// Drops a task that comes too late. Its destructor may spawn, and so on; but not for ever.
    fn refuse(&self, task: Task) {
        let depth = self.refusing.get();
        if depth >= GENERATIONS_MAX {
            // Its destructor would go on: it is leaked.
            std::mem::forget(task);
            return;
        }
        self.refusing.set(depth + 1);
        mem::discard(task);
        self.refusing.set(depth);
    }

    /// Polls a task that was woken. Nothing happens if it has ended.
    pub fn poll(&self, key: Key, came: Came) {
        let Some((mut task, waker)) = self.take(key, came) else { return };
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => self.put_back(key, task, waker),
            Ok(Poll::Ready(())) => self.finish(key, task, waker),
            Err(payload) => {
                // Those of the future are caught where its value is handed on: this is its destructor.
                mem::count_panic();
                crate::log::destructor_panicked();
                self.finish(key, task, waker);
                mem::discard_payload(payload);
            }
        }
    }

    fn take(&self, key: Key, came: Came) -> Option<(Task, Waker)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key)?;
        slot.target.arrived(came);
        slot.parts.take()
    }

    fn put_back(&self, key: Key, task: Task, waker: Waker) {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(key)
            && !slot.aborted
        {
            slot.parts = Some((task, waker));
            return;
        }
        drop(slots);
        self.finish(key, task, waker);
    }

    /// The end of a task that is not in its slot.
    fn finish(&self, key: Key, task: Task, waker: Waker) {
        let slot = self.slots.borrow_mut().remove(key);
        self.some_died.set(true);
        mem::discard(task);
        drop(waker);
        if let Some(slot) = slot {
            self.keep(slot.target);
        }
    }

    /// Keeps a target for the next task, if nothing leads to it any more.
    fn keep(&self, mut target: Arc<WakeTarget>) {
        if Arc::get_mut(&mut target).is_some_and(|target| !target.is_queued()) {
            let mut spare = self.spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(target);
            }
        }
    }

    /// Ends a task: now, or when it returns if it is the one that asks. Nothing happens if it has ended.
    pub fn abort(&self, key: Key) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return };
        let Some((task, waker)) = slot.parts.take() else {
            slot.aborted = true;
            return;
        };
        drop(slots);
        self.finish(key, task, waker);
    }

    /// Drops all tasks, one by one, and those that their destructors spawn, until none is left.
    pub fn clear(&self) {
        for _ in 0..GENERATIONS_MAX {
            let keys: Vec<Key> = self.slots.borrow().keys().collect();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.abort(key);
            }
        }
    }

    /// The same for good: who spawns from here on has its future dropped at once.
    pub fn close(&self) {
        self.clear();
        self.closed.set(true);
        self.clear();
    }

    #[inline]
    pub fn reclaim(&self) {
        if self.some_died.replace(false) {
            self.slots.borrow_mut().reclaim();
        }
    }

    pub fn shrink(&self) {
        self.slots.borrow_mut().shrink();
        let mut spare = self.spare.borrow_mut();
        spare.clear();
        spare.shrink_to_fit();
    }
}
