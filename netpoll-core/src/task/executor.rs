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
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::body::{self, Task};
use super::slots::{Marks, Rare, Slots, Stage};
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
        Some(self.keep(lane, body::task(future, place), kind, has_handle))
    }

    fn keep(&self, lane: &Lane, task: Task, kind: Kind, has_handle: bool) -> Key {
        let is_daemon = kind == Kind::Daemon;
        self.running.set(self.running.get() + 1);
        if is_daemon {
            self.daemons.set(self.daemons.get() + 1);
        }
        let marks = Marks { has_handle, is_daemon, is_listed: true, stage: Stage::Runs };
        let key = self.slots.borrow_mut().insert(task, marks);
        lane.list(key);
        key
    }

    /// A waker of its own for the task that is being polled, whose waker somebody has cloned.
    #[inline(never)]
    pub fn own_waker(&self, key: Key) -> Waker {
        let make = || {
            let target = WakeTarget::new(key, self.lane, Arc::clone(&self.wakes));
            let waker = target.waker();
            (target, waker)
        };
        self.slots.borrow_mut().own(key, make).clone()
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
    pub fn poll(&self, lane: &Lane, key: Key, came: Came) {
        if let Some((task, rare)) = self.take(key, Some(came)) {
            self.run(lane, key, task, rare);
        }
    }

    /// Polls a task that waits for what is there now. One that stands on the list is polled once more when its turn comes. Nothing happens if
    /// it has ended.
    #[inline]
    pub fn poll_now(&self, lane: &Lane, key: Key) {
        if let Some((task, rare)) = self.take(key, None) {
            self.run(lane, key, task, rare);
        }
    }

    #[inline(always)]
    fn run(&self, lane: &Lane, key: Key, mut task: Task, rare: Option<Rc<Rare>>) {
        share::refill();
        let own = rare.as_ref().and_then(|rare| rare.waker());
        let (run, is_woken) = match own {
            Some(waker) => (self.run_by(key, &mut task, waker), false),
            // Nobody has cloned one yet.
            None => {
                let polling = Polling::new(key, self.lane, &self.wakes);
                let run = sys::with_waker(&polling, |waker| self.run_by(key, &mut task, waker));
                (run, polling.is_woken())
            }
        };
        drop(rare);
        match run {
            Poll::Pending => self.put_back(lane, key, task, is_woken),
            Poll::Ready(()) => self.returned(key, task),
        }
    }

    #[inline(always)]
    fn run_by(&self, key: Key, task: &mut Task, waker: &Waker) -> Poll<()> {
        self.polled_with.set(parts(waker));
        self.polled.set(key);
        let run = task.as_mut().run(waker);
        // Behind the poll another may come to lie there.
        self.polled_with.set((0, 0));
        run
    }

    /// Takes a task out to be polled, with what few tasks have. `came` is the way of a wake that has to be news; a letter always is: not
    /// every waker knows which of its letters have arrived.
    #[inline(always)]
    fn take(&self, key: Key, came: Option<Came>) -> Option<(Task, Option<Rc<Rare>>)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).filter(|slot| !slot.has_ended())?;
        let rare = slot.rare().cloned();
        if let Some(came) = came {
            let told = rare.is_some() && slot.own().is_some_and(|target| target.arrived(came));
            if came == Came::Here && !(std::mem::take(&mut slot.marks.is_listed) | told) {
                return None;
            }
        }
        Some((slot.task.take()?, rare))
    }

    /// The task that is being polled, if this waker leads to it.
    #[inline]
    pub fn task_of(&self, waker: &Waker) -> Option<Key> {
        (self.polled_with.get() == parts(waker)).then(|| self.polled.get())
    }

    /// Marks a task as one that stands on the list. False if it does already, or has ended.
    #[inline]
    pub fn mark_listed(&self, key: Key) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key).filter(|slot| !slot.has_ended()) else { return false };
        !std::mem::replace(&mut slot.marks.is_listed, true)
    }

    /// The same, and puts it there, on the thread of its lane.
    fn list_here(&self, key: Key) {
        if self.mark_listed(key) {
            lane::list(key);
        }
    }

    #[inline(always)]
    fn put_back(&self, lane: &Lane, key: Key, task: Task, is_woken: bool) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("a task that is polled has its slot");
        if slot.marks.stage == Stage::IsAborted {
            drop(slots);
            return self.cancel(key, task);
        }
        slot.put(task);
        if is_woken && !std::mem::replace(&mut slot.marks.is_listed, true) {
            drop(slots);
            lane.list(key);
        }
    }

    fn ended(&self, is_daemon: bool) {
        self.running.set(self.running.get() - 1);
        if is_daemon {
            self.daemons.set(self.daemons.get() - 1);
        }
    }

    /// The end of a task whose future has returned, or panicked, and is dropped by now.
    #[inline(never)]
    fn returned(&self, key: Key, task: Task) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("a task that is polled has its slot");
        self.ended(slot.marks.is_daemon);
        let joiner = slot.take_joiner();
        if slot.marks.has_handle {
            slot.marks.stage = Stage::HasEnded;
            slot.task = Some(task);
            drop(slots);
        } else {
            let left = slots.end(key);
            drop(slots);
            drop(left);
            // With what the future has left, whose destructor has a guard around it.
            drop(task);
        }
        self.wake(joiner);
    }

    /// The end of a task that is not in its slot, before its future has returned.
    #[inline(never)]
    fn cancel(&self, key: Key, mut task: Task) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("a task that runs has its slot");
        self.ended(slot.marks.is_daemon);
        let joiner = slot.take_joiner();
        // Before its future is dropped, which may hold wakers: they lead to whom they have led.
        let left = slots.end(key);
        drop(slots);
        drop(left);
        task.as_mut().cancel();
        drop(task);
        self.wake(joiner);
    }

    /// Ends a task: now, or when it returns if it is the one that asks. Nothing happens if it has ended.
    pub fn abort(&self, key: Key) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key).filter(|slot| !slot.has_ended()) else { return };
        let Some(task) = slot.task.take() else {
            slot.marks.stage = Stage::IsAborted;
            return;
        };
        drop(slots);
        self.cancel(key, task);
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
        self.slots.borrow().get(key).is_none_or(|slot| slot.has_ended())
    }

    /// Moves what a task has left into an `Option<Outcome<T>>` of its `T`, for its handle; or keeps who waits for it.
    pub fn join(&self, lane: &Lane, key: Key, waker: &Waker, into: &mut dyn Any) -> Joined {
        let mut joiner = None;
        loop {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return Joined::Gone };
            if slot.has_ended() {
                let task = slot.task.take();
                let left = slots.end(key);
                drop(slots);
                drop(left);
                if let Some(mut task) = task {
                    task.as_mut().take(into);
                }
                return Joined::Ended;
            }
            if slot.is_joined_by(|joiner| joiner.is(lane, waker)) {
                return Joined::Waits;
            }
            if let Some(joiner) = joiner.take() {
                let before = slots.set_joiner(key, joiner);
                drop(slots);
                drop(before);
                return Joined::Waits;
            }
            // A clone is code of the program, and much may have happened behind it.
            drop(slots);
            joiner = Some(Parked::of(lane, waker));
        }
    }

    /// The handle of a task is gone.
    pub fn detach(&self, key: Key) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return };
        slot.marks.has_handle = false;
        if slot.has_ended() {
            let (task, left) = (slot.task.take(), slots.end(key));
            drop(slots);
            drop((task, left));
        } else {
            let joiner = slot.take_joiner();
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
