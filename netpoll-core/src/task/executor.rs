//! The tasks of one worker: kept, polled, joined, aborted and dropped.
//!
//! Invariant: a task is in its slot or in the hands of `poll`. While it is polled its slot stays, so that its key leads
//! somewhere; who aborts it then leaves a mark, and the poll drops it behind itself. A slot is taken out of the table before its
//! future is dropped, and the future is dropped with nothing borrowed, inside a guard. One whose future has returned stays for its
//! handle, with what that has left: nobody polls it, and no drain waits for it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::task::{Poll, RawWakerVTable, Waker};

use super::body::{self, Task};
use super::slots::{Marks, Slots, Wake};
use super::sync::Arc;
use super::{Came, Lane, WakeTarget, share};
use crate::mem::{self, Key};

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
    /// Where the target of the task lies that is being polled, for whoever has a waker and asks whose it is. Zero: none is.
    polled_target: Cell<usize>,
    /// Its key.
    polled: Cell<Key>,
    /// That of wakers of tasks, once there is one.
    vtable: Cell<Option<&'static RawWakerVTable>>,
}

impl Default for Executor {
    fn default() -> Self {
        Self {
            slots: RefCell::default(),
            running: Cell::new(0),
            daemons: Cell::new(0),
            refusing: Cell::new(0),
            is_closed: Cell::new(false),
            polled_target: Cell::new(0),
            polled: Cell::new(Key::new(TABLE, 0, 0)),
            vtable: Cell::new(None),
        }
    }
}

impl Executor {
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
        let (index, spare) = self.slots.borrow_mut().reserve();
        let (target, waker) = spare.unwrap_or_else(|| self.new_wake(lane));
        let task = body::task(future, waker, place);
        Some(self.keep(lane, index, task, target, kind, has_handle))
    }

    /// A target that has not stood for a task yet.
    #[cold]
    fn new_wake(&self, lane: &Lane) -> Wake {
        let target = WakeTarget::new(Key::new(TABLE, 0, 0), lane.number(), lane.wakes());
        let waker = target.waker();
        self.vtable.set(Some(waker.vtable()));
        (target, waker)
    }

    fn keep(
        &self,
        lane: &Lane,
        index: usize,
        task: Task,
        target: Arc<WakeTarget>,
        kind: Kind,
        has_handle: bool,
    ) -> Key {
        let is_daemon = kind == Kind::Daemon;
        self.running.set(self.running.get() + 1);
        if is_daemon {
            self.daemons.set(self.daemons.get() + 1);
        }
        let marks = Marks { has_handle, is_daemon, ..Marks::default() };
        let key = self.slots.borrow_mut().begin(index, task, target, marks);
        lane.list(key);
        key
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
    #[inline]
    pub fn poll(&self, key: Key, came: Came) {
        if let Some(task) = self.take(key, |target| target.arrived(came)) {
            self.run(key, task);
        }
    }

    /// Polls a task that waits for what is there now. One that stands on the list is polled once more when its turn comes: to take it off
    /// would touch its target. Nothing happens if it has ended.
    #[inline]
    pub fn poll_now(&self, key: Key) {
        if let Some(task) = self.take(key, |_target| true) {
            self.run(key, task);
        }
    }

    #[inline(always)]
    fn run(&self, key: Key, mut task: Task) {
        share::refill();
        let run = task.as_mut().run();
        // Behind the poll another target may come to lie there.
        self.polled_target.set(0);
        match run {
            Poll::Pending => self.put_back(key, task),
            Poll::Ready(waker) => self.returned(key, task, waker),
        }
    }

    #[inline]
    fn take(&self, key: Key, tell: impl FnOnce(&WakeTarget) -> bool) -> Option<Task> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).filter(|slot| !slot.marks.has_ended)?;
        let target = slot.target.as_ref()?;
        if !tell(target) {
            return None;
        }
        self.polled_target.set(Arc::as_ptr(target).addr());
        self.polled.set(key);
        slot.task.take()
    }

    /// The task that is being polled, if this waker leads to it.
    #[inline]
    pub fn task_of(&self, waker: &Waker) -> Option<Key> {
        let is_of_tasks = || self.vtable.get().is_some_and(|vtable| ptr::eq(waker.vtable(), vtable));
        (waker.data().addr() == self.polled_target.get() && is_of_tasks()).then(|| self.polled.get())
    }

    /// Marks a task as one that stands on the list. False if it does already, or has ended.
    #[inline]
    pub fn mark_listed(&self, key: Key) -> bool {
        let slots = self.slots.borrow();
        let target = slots.get(key).and_then(|slot| slot.target.as_ref());
        target.is_some_and(|target| target.mark_listed())
    }

    #[inline(always)]
    fn put_back(&self, key: Key, task: Task) {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(key)
            && !slot.marks.is_aborted
        {
            slot.task = Some(task);
            return;
        }
        drop(slots);
        self.cancel(key, task);
    }

    fn ended(&self, is_daemon: bool) {
        self.running.set(self.running.get() - 1);
        if is_daemon {
            self.daemons.set(self.daemons.get() - 1);
        }
    }

    /// The end of a task whose future has returned, or panicked, and is dropped by now.
    #[inline(never)]
    fn returned(&self, key: Key, task: Task, own: Option<Waker>) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("a task that is polled has its slot");
        self.ended(slot.marks.is_daemon);
        let joiner = std::mem::replace(&mut slot.waker, own);
        if slot.marks.has_handle {
            slot.marks.has_ended = true;
            slot.task = Some(task);
            drop(slots);
        } else {
            let left = slots.end(key);
            drop(slots);
            drop(left);
            // With what the future has left, whose destructor has a guard around it.
            drop(task);
        }
        wake(joiner);
    }

    /// The end of a task that is not in its slot, before its future has returned.
    #[inline(never)]
    fn cancel(&self, key: Key, mut task: Task) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("a task that runs has its slot");
        self.ended(slot.marks.is_daemon);
        let (target, joiner) = (slot.target.take(), slot.waker.take());
        let left = slots.end(key);
        drop(slots);
        drop(left);
        // With its waker, which was the last that led to the target.
        task.as_mut().cancel();
        drop((task, target));
        wake(joiner);
    }

    /// Ends a task: now, or when it returns if it is the one that asks. Nothing happens if it has ended.
    pub fn abort(&self, key: Key) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key).filter(|slot| !slot.marks.has_ended) else { return };
        let Some(task) = slot.task.take() else {
            slot.marks.is_aborted = true;
            return;
        };
        drop(slots);
        self.cancel(key, task);
    }

    /// Whether a task has ended.
    pub fn has_ended(&self, key: Key) -> bool {
        self.slots.borrow().get(key).is_none_or(|slot| slot.marks.has_ended)
    }

    /// Moves what a task has left into an `Option<Outcome<T>>` of its `T`, for its handle; or keeps the waker of who waits for it.
    pub fn join(&self, key: Key, waker: &Waker, into: &mut dyn Any) -> Joined {
        let mut own = None;
        loop {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return Joined::Gone };
            if slot.marks.has_ended {
                let task = slot.task.take();
                let left = slots.end(key);
                drop(slots);
                drop(left);
                if let Some(mut task) = task {
                    task.as_mut().take(into);
                }
                return Joined::Ended;
            }
            if slot.waker.as_ref().is_some_and(|joiner| joiner.will_wake(waker)) {
                return Joined::Waits;
            }
            if let Some(own) = own.take() {
                let before = slot.waker.replace(own);
                drop(slots);
                drop(before);
                return Joined::Waits;
            }
            // A clone is code of the program, and much may have happened behind it.
            drop(slots);
            own = Some(waker.clone());
        }
    }

    /// The handle of a task is gone.
    pub fn detach(&self, key: Key) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return };
        slot.marks.has_handle = false;
        if slot.marks.has_ended {
            let (task, left) = (slot.task.take(), slots.end(key));
            drop(slots);
            drop((task, left));
        } else {
            let joiner = slot.waker.take();
            drop(slots);
            drop(joiner);
        }
    }

    /// Where a task was spawned. `None` if it has ended, or is being polled.
    pub fn place(&self, key: Key) -> Option<&'static Location<'static>> {
        self.slots.borrow().get(key)?.task.as_ref().map(|task| task.place())
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

/// Wakes who waits for the end of a task.
#[inline]
fn wake(joiner: Option<Waker>) {
    if let Some(joiner) = joiner {
        mem::guarded(|| joiner.wake());
    }
}
