//! The tasks of one worker: kept, polled, joined, aborted and dropped.
//!
//! Invariant: a key leads to the cell of its task for as long as that is there. Who aborts a task while it is polled leaves a mark, and the
//! poll drops it behind itself. A key leads nowhere any more before the future is dropped, and the future is dropped with nothing
//! borrowed, inside a guard. A task whose future has returned stays for its handle, with what that has left: nobody polls it, and no
//! drain waits for it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::task::{Poll, Waker};

use super::body::Body;
use super::slots::{
    HAS_ENDED, HAS_HANDLE, HAS_WAKER, IS_ABORTED, IS_DAEMON, IS_JOINED, IS_LISTED, Slots, Task,
};
use super::sync::Arc;
use super::waker::Polling;
use super::{Came, Deliver, Lane, Parked, WakeTarget, lane, share};
use crate::mem::{self, Key};
use crate::sys;

/// The table of tasks: the number in their keys.
pub const TABLE: u8 = 251;

/// Destructors of tasks may spawn tasks whose destructors spawn tasks, but not for ever.
const GENERATIONS_MAX: usize = 8;

/// What a drain does about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It waits for it.
    Waited,
    /// It does not.
    Daemon,
}

/// Whether a task has left something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Not yet.
    Waits,
    /// What it has left is there.
    Ended,
    /// It was dropped before, or what it has left was taken.
    Gone,
}

/// The tasks of one worker.
pub struct Executor {
    slots: RefCell<Slots>,
    /// Tasks that have not ended.
    running: Cell<usize>,
    /// Those of them that a drain does not wait for.
    daemons: Cell<usize>,
    /// Tasks that are being refused, one inside the destructor of the other.
    refusing: Cell<usize>,
    /// The worker ends: a task that is spawned now is dropped at once.
    is_closed: Cell<bool>,
    /// The waker of the task that is being polled, for whoever has one and asks whose it is: its data and its table. Zero: none is.
    polled_with: Cell<(usize, usize)>,
    /// The key of that task.
    polled: Cell<Key>,
    /// The number of its lane, and where wakes from other threads go.
    lane: u64,
    wakes: Arc<dyn Deliver>,
}

/// What tells a waker from others.
#[inline]
fn parts(waker: &Waker) -> (usize, usize) {
    (waker.data().addr(), ptr::from_ref(waker.vtable()).addr())
}

impl Executor {
    /// Of the lane of this number.
    pub fn new(lane: u64, wakes: Arc<dyn Deliver>) -> Self {
        Self {
            slots: RefCell::default(),
            running: Cell::new(0),
            daemons: Cell::new(0),
            refusing: Cell::new(0),
            is_closed: Cell::new(false),
            polled_with: Cell::new((0, 0)),
            polled: Cell::new(Key::new(TABLE, 0, 0)),
            lane,
            wakes,
        }
    }

    /// Tasks that have not ended, but those that no drain waits for.
    #[inline]
    pub fn waited(&self) -> usize {
        self.running.get() - self.daemons.get()
    }

    /// Tasks that have not ended.
    #[inline]
    pub fn len(&self) -> usize {
        self.running.get()
    }

    /// Keeps a task, which is polled for the first time when its turn comes. Its key; `None` if the worker ends.
    ///
    /// # Panics
    /// With 16 million tasks on one worker.
    pub fn spawn<F>(
        &self,
        lane: &Lane,
        future: F,
        kind: Kind,
        place: &'static Location<'static>,
        has_handle: bool,
    ) -> Option<Key>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        if self.is_closed.get() {
            self.refuse(future);
            return None;
        }
        self.running.set(self.running.get() + 1);
        let mut marks = IS_LISTED | if has_handle { HAS_HANDLE } else { 0 };
        if kind == Kind::Daemon {
            self.daemons.set(self.daemons.get() + 1);
            marks |= IS_DAEMON;
        }
        let key = self.slots.borrow_mut().insert(Body::new(future), marks, place);
        lane.list(key);
        Some(key)
    }

    /// A waker of its own for the task that is being polled, whose waker somebody has cloned.
    #[inline(never)]
    pub fn own_waker(&self, key: Key) -> Waker {
        let make = || {
            let target = WakeTarget::new(key, self.lane, Arc::clone(&self.wakes));
            let waker = target.waker();
            (target, waker)
        };
        let task = self.find(key).expect("a task that is polled is there");
        let (target, waker) = task.wake_or_make(make);
        if !task.has(HAS_WAKER) {
            // It may be that of a task before.
            target.begin(key);
            task.mark(HAS_WAKER);
        }
        waker.clone()
    }

    /// A task, if it has not gone.
    #[inline(always)]
    fn find(&self, key: Key) -> Option<Task> {
        // By `borrow_mut`, which takes fewer instructions.
        self.slots.borrow_mut().get(key).cloned()
    }

    /// Drops a future that comes too late. Its destructor may spawn, and so on; but not for ever.
    #[cold]
    fn refuse<F>(&self, future: F) {
        let depth = self.refusing.get();
        if depth >= GENERATIONS_MAX {
            // Its destructor would go on: it is leaked.
            std::mem::forget(future);
            return;
        }
        self.refusing.set(depth + 1);
        mem::discard(future);
        self.refusing.set(depth);
    }

    /// Polls a task that was woken. Nothing happens if it has ended, or was told of the wake in another way.
    #[inline(always)]
    pub fn poll(&self, lane: &Lane, key: Key, came: Came) {
        if let Some(task) = self.find(key).filter(|task| Self::is_news(task, came)) {
            self.run(lane, key, &task);
        }
    }

    /// Polls a task that waits for what is there now. One that stands on the list is polled once more when its turn comes. Nothing happens if
    /// it has ended.
    #[inline]
    pub fn poll_now(&self, lane: &Lane, key: Key) {
        if let Some(task) = self.find(key) {
            self.run(lane, key, &task);
        }
    }

    /// Whether a wake that came this way was not told before. A letter always is news: not every waker knows which of its letters have
    /// arrived.
    #[inline(always)]
    fn is_news(task: &Task, came: Came) -> bool {
        let told = task.has(HAS_WAKER) && task.wake().is_some_and(|(target, _)| target.arrived(came));
        match came {
            Came::Here => {
                let was_listed = task.has(IS_LISTED);
                task.unmark(IS_LISTED);
                was_listed | told
            }
            Came::ByLetter => true,
        }
    }

    #[inline(always)]
    fn run(&self, lane: &Lane, key: Key, task: &Task) {
        if task.has(HAS_ENDED) || task.is_busy() {
            return;
        }
        share::refill();
        let own = if task.has(HAS_WAKER) { task.wake() } else { None };
        let (run, is_woken) = match own {
            Some((_, waker)) => (self.run_by(key, task, waker), false),
            // Nobody has cloned one yet.
            None => {
                let polling = Polling::new(key, self.lane, &self.wakes);
                let run = sys::with_waker(&polling, |waker| self.run_by(key, task, waker));
                (run, polling.is_woken())
            }
        };
        if run.is_ready() {
            self.returned(key, task);
        } else if task.has(IS_ABORTED) {
            self.cancel(key, task);
        } else if is_woken && !task.has(IS_LISTED) {
            task.mark(IS_LISTED);
            lane.list(key);
        }
    }

    #[inline(always)]
    fn run_by(&self, key: Key, task: &Task, waker: &Waker) -> Poll<()> {
        self.polled_with.set(parts(waker));
        self.polled.set(key);
        let run = task.run(waker);
        // Behind the poll another may come to lie there.
        self.polled_with.set((0, 0));
        run
    }

    /// The task that is being polled, if this waker leads to it.
    #[inline]
    pub fn task_of(&self, waker: &Waker) -> Option<Key> {
        (self.polled_with.get() == parts(waker)).then(|| self.polled.get())
    }

    /// Marks a task as one that stands on the list. False if it does already, or has ended.
    #[inline]
    pub fn mark_listed(&self, key: Key) -> bool {
        let slots = self.slots.borrow();
        let Some(task) = slots.get(key).filter(|task| !task.has(IS_LISTED | HAS_ENDED)) else { return false };
        task.mark(IS_LISTED);
        true
    }

    /// The same, and puts it there, on the thread of its lane.
    fn list_here(&self, key: Key) {
        if self.mark_listed(key) {
            lane::list(key);
        }
    }

    fn ended(&self, is_daemon: bool) {
        self.running.set(self.running.get() - 1);
        if is_daemon {
            self.daemons.set(self.daemons.get() - 1);
        }
    }

    /// The end of a task whose future has returned, or panicked, and is dropped by now.
    #[inline(always)]
    fn returned(&self, key: Key, task: &Task) {
        self.ended(task.has(IS_DAEMON));
        if task.has(HAS_HANDLE) {
            let joiner = task.take_joiner();
            task.mark(HAS_ENDED);
            self.wake(joiner);
        } else {
            // With what the future has left, whose destructor has a guard around it.
            self.go(key, task);
        }
    }

    /// The end of a task that is not being polled, before its future has returned.
    #[inline(never)]
    fn cancel(&self, key: Key, task: &Task) {
        self.ended(task.has(IS_DAEMON));
        let joiner = task.take_joiner();
        self.go(key, task);
        self.wake(joiner);
    }

    /// Drops what is left of a task. Its key leads nowhere before, as its future may hold wakers.
    #[inline]
    fn go(&self, key: Key, task: &Task) {
        Slots::leave(task);
        task.empty();
        let left = self.slots.borrow_mut().free(key);
        drop(left);
    }

    /// Ends a task: now, or when it returns if it is the one that asks. Nothing happens if it has ended.
    pub fn abort(&self, key: Key) {
        match self.find(key) {
            Some(task) if task.has(HAS_ENDED) => {}
            Some(task) if task.is_busy() => task.mark(IS_ABORTED),
            Some(task) => self.cancel(key, &task),
            None => {}
        }
    }

    /// Wakes who waits for the end of a task.
    #[inline]
    fn wake(&self, joiner: Option<Parked>) {
        match joiner {
            None => {}
            Some(Parked::Task(key)) => self.list_here(key),
            Some(Parked::Waker(waker)) => drop(mem::guarded(|| waker.wake())),
        }
    }

    /// Whether a task has ended.
    pub fn has_ended(&self, key: Key) -> bool {
        self.slots.borrow().get(key).is_none_or(|task| task.has(HAS_ENDED))
    }

    /// Moves what a task has left into an `Option<Outcome<T>>` of its `T`, for its handle; or keeps who waits for it.
    pub fn join(&self, lane: &Lane, key: Key, waker: &Waker, into: &mut dyn Any) -> Joined {
        let mut joiner = None;
        loop {
            let Some(task) = self.find(key) else { return Joined::Gone };
            if task.has(HAS_ENDED) {
                task.take(into);
                self.go(key, &task);
                return Joined::Ended;
            }
            if task.is_joined_by(|joiner| joiner.is(lane, waker)) {
                return Joined::Waits;
            }
            if let Some(joiner) = joiner.take() {
                task.mark(IS_JOINED);
                drop(task.set_joiner(joiner));
                return Joined::Waits;
            }
            // A clone is code of the program, and much may have happened behind it.
            joiner = Some(Parked::of(lane, waker));
        }
    }

    /// The handle of a task is gone.
    #[inline]
    pub fn detach(&self, key: Key) {
        let slots = self.slots.borrow_mut();
        let Some(task) = slots.get(key) else { return };
        task.unmark(HAS_HANDLE);
        if task.has(HAS_ENDED | IS_JOINED) {
            let task = task.clone();
            drop(slots);
            self.detached(key, &task);
        }
    }

    #[inline(never)]
    fn detached(&self, key: Key, task: &Task) {
        if task.has(HAS_ENDED) {
            self.go(key, task);
        } else {
            drop(task.take_joiner());
        }
    }

    /// Where a task was spawned. `None` if it has ended, or is being polled.
    pub fn place(&self, key: Key) -> Option<&'static Location<'static>> {
        self.find(key).filter(|task| !task.is_busy()).map(|task| task.place.get())
    }

    /// Where the tasks were spawned that have not ended: those that a drain waits for first.
    pub fn places(&self) -> Vec<&'static Location<'static>> {
        let slots = self.slots.borrow();
        let keys = [Kind::Waited, Kind::Daemon].into_iter().flat_map(|kind| slots.running(kind));
        keys.filter_map(|key| Some(slots.get(key)?.place.get())).collect()
    }

    /// Drops the tasks that a drain waits for, and for good: who spawns from here on has its future dropped at once. Daemons go on.
    pub fn close_to_tasks(&self) {
        self.clear(Kind::Waited);
        self.is_closed.set(true);
        self.clear(Kind::Waited);
    }

    /// Drops all tasks, daemons last, for good.
    pub fn close(&self) {
        self.close_to_tasks();
        self.clear(Kind::Daemon);
    }

    /// Drops all tasks of this kind, one by one, and those that their destructors spawn, until none is left.
    fn clear(&self, kind: Kind) {
        for _ in 0..GENERATIONS_MAX {
            let keys = self.slots.borrow().running(kind);
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.abort(key);
            }
        }
    }

    pub fn shrink(&self) {
        self.slots.borrow_mut().shrink();
    }
}
