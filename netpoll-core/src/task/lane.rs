//! What the tasks, the wakers and the sleeps of one worker share, and how code on its thread finds it.
//!
//! A thread is *in* the lane of a worker while that worker runs on it: for its whole life with real workers, for each of its
//! turns in a simulated world. Being in one is a stack, as a simulation may run inside a worker.
//!
//! Invariant: nothing in here is borrowed while code of the program runs, and that is wherever a future is polled or dropped,
//! a waker is woken, replaced or dropped, or a value of a task is handed on. What is to be dropped leaves its cell first.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::executor::Executor;
use super::ring::Ring;
use super::sleeps::Sleeps;
use super::sync::{Arc, CURRENT, HERE};
use super::waiting::Waiting;
use super::{Deliver, States};
use crate::clockwork::{ClockReader, Instant};
use crate::mem::{Key, Pool};
use crate::sys::{Lendable, Lent};

/// Numbers of lanes; no two of a process have the same.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Waits in a row that may be over when they begin: whoever cannot keep up with its ticks would never give its worker back.
const LATE_MAX: usize = 128;

/// One worker, as far as tasks know it.
pub struct Lane {
    number: u64,
    clock: ClockReader,
    wakes: Arc<dyn Deliver>,
    /// Who was woken on this thread: keys of tasks, of connections, of datagram sockets.
    woken: Ring,
    /// Whom code of a task has left something to do, beside its poll: keys of connections, listeners, datagram sockets.
    stirred: Ring,
    executor: Executor,
    sleeps: Sleeps,
    /// Waits in a row that were over when they began.
    late: Cell<usize>,
    is_stopping: Cell<bool>,
    /// Who waits for that.
    stop_waiters: Waiting,
    /// Of a worker: what else tasks find here. `None` in tests of this room.
    home: OnceCell<Home>,
    /// What rooms above have for code on this worker, one of a type.
    kept: RefCell<Vec<Rc<dyn Any>>>,
    /// Stands in for the pool of the worker where that is out of reach. It keeps nothing.
    stand_in: RefCell<Option<Box<Pool>>>,
    /// It was used, and the pool does not know of it yet.
    has_stood_in: Cell<bool>,
    /// What the task that is polled for its connection has written there, until that poll is over.
    draft: RefCell<Vec<u8>>,
    /// Input of that connection, and its key.
    offer: Lent<Offer>,
    offered_to: Cell<Key>,
}

/// A piece of input, of which nobody has taken what is left of it.
struct Offer;

impl Lendable for Offer {
    type Of<'a> = &'a [u8];
}

/// The key of no connection.
const NO_CONNECTION: Key = Key::new(super::TABLE, 0, 0);

/// What a worker keeps for its tasks.
pub struct Home {
    /// Its number, from zero.
    pub worker: usize,
    pub states: States,
    /// What the floors above have for tasks, which they alone know.
    pub above: Rc<dyn Any>,
}

/// Bytes that a task takes beside its future, about, with a sleep that it waits for: for who decides whether a spike is over.
const TASK_BYTES: usize = 256;

impl Lane {
    /// Of a worker whose wakes from elsewhere go to `wakes`.
    pub fn new(clock: ClockReader, wakes: Arc<dyn Deliver>) -> Rc<Self> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let executor = Executor::new(number, Arc::clone(&wakes));
        Rc::new(Self {
            number,
            clock,
            wakes,
            woken: Ring::default(),
            stirred: Ring::default(),
            executor,
            sleeps: Sleeps::default(),
            late: Cell::new(0),
            is_stopping: Cell::new(false),
            stop_waiters: Waiting::default(),
            home: OnceCell::new(),
            kept: RefCell::default(),
            stand_in: RefCell::default(),
            has_stood_in: Cell::new(false),
            draft: RefCell::default(),
            offer: Lent::new(),
            offered_to: Cell::new(NO_CONNECTION),
        })
    }

    /// One whose clock stands still.
    #[cfg(test)]
    pub fn for_test(wakes: Arc<dyn Deliver>) -> Rc<Self> {
        Self::new(crate::clockwork::Clock::manual(0).reader(), wakes)
    }

    /// What wakers know it by.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where wakes from other threads go.
    pub fn wakes(&self) -> Arc<dyn Deliver> {
        Arc::clone(&self.wakes)
    }

    /// A reading of the clock, now: what counts from a call counts from here and not from when the turn began.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What the worker keeps for its tasks.
    pub fn home(&self) -> Option<&Home> {
        self.home.get()
    }

    /// What the floors above do.
    pub fn above(&self) -> Option<&dyn Any> {
        Some(&*self.home.get()?.above)
    }

    /// What its tasks take, about, their futures not counted.
    #[inline]
    pub fn in_use_bytes(&self) -> usize {
        self.executor.len() * TASK_BYTES
    }

    /// Its clock.
    #[cfg(feature = "hyper")]
    pub fn clock(&self) -> &ClockReader {
        &self.clock
    }

    /// Its tasks.
    #[inline]
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Its sleeps.
    pub fn sleeps(&self) -> &Sleeps {
        &self.sleeps
    }

    /// Puts this thread into it, until what is returned is dropped.
    #[must_use]
    pub fn enter(self: &Rc<Self>) -> Entered {
        // A thread that ends may have dropped its own of it: then nobody is in it any more.
        let Ok(before) =
            CURRENT.try_with(|current| current.replace(ManuallyDrop::new(Some(Rc::clone(self)))))
        else {
            return Entered(None);
        };
        HERE.with(|here| here.set(self.number));
        Entered(ManuallyDrop::into_inner(before))
    }

    /// The same for who comes from outside of the worker's turns, or may: what it wakes there is told to the worker, which may sleep.
    #[must_use]
    pub fn visit(self: &Rc<Self>) -> Visit {
        Visit { entered: (!is_here(self.number)).then(|| self.enter()), lane: Rc::clone(self) }
    }

    /// Counts a wait of a task that was over when it began. True if these were enough in a row, and others come first.
    pub fn is_late_too_often(&self) -> bool {
        let late = self.late.get() + 1;
        self.late.set(if late > LATE_MAX { 0 } else { late });
        late > LATE_MAX
    }

    /// A task really waits.
    #[inline]
    pub fn waits(&self) {
        self.late.set(0);
    }

    /// Whether anybody on the lists waits for a turn.
    #[inline]
    pub fn has_woken(&self) -> bool {
        self.woken.len() + self.stirred.len() > 0
    }

    /// Has the worker look after a key, behind the polls that it is at, or in its next turn: a task has left something there for it. Whoever stirs
    /// one sees to it that it stands there once.
    #[inline]
    pub fn stir(self: &Rc<Self>, key: Key) {
        self.inside(|| self.stirred.push(key));
    }

    /// Wakes a task of this lane by its key: no waker is needed for it. On its thread only; nothing happens if it has ended.
    #[inline]
    pub fn wake(self: &Rc<Self>, task: Key) {
        if self.executor.mark_listed(task) {
            self.inside(|| self.list(task));
        }
    }

    /// Puts something on a list: the worker is told if it is not at work on this thread.
    #[inline]
    fn inside(self: &Rc<Self>, push: impl FnOnce()) {
        if is_here(self.number) {
            return push();
        }
        let _inside = self.visit();
        push();
    }

    /// Who was stirred first.
    #[inline]
    pub fn take_stirred(&self) -> Option<Key> {
        self.stirred.pop()
    }

    /// How many there are.
    pub fn stirred(&self) -> usize {
        self.stirred.len()
    }

    /// How many there are.
    #[inline]
    pub fn woken(&self) -> usize {
        self.woken.len()
    }

    /// Who was woken first. Its target does not know yet that the wake has arrived.
    #[inline]
    pub fn take_woken(&self) -> Option<Key> {
        self.woken.pop()
    }

    /// Puts a key on the list, which its target has been told.
    #[inline]
    pub fn list(&self, key: Key) {
        self.woken.push(key);
    }

    /// A drain has begun: those who wait for that hear of it.
    pub fn stop(self: &Rc<Self>) {
        self.is_stopping.set(true);
        self.stop_waiters.wake_all(self);
    }

    /// A drain is under way.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Who waits for a drain.
    pub fn stop_waiters(&self) -> &Waiting {
        &self.stop_waiters
    }

    /// Keeps something for code on this worker. Of a type there is one.
    pub fn keep<T: 'static>(&self, value: Rc<T>) {
        self.kept.borrow_mut().push(value);
    }

    /// Lends a pool that stands in for the worker's, which is out of reach.
    #[cold]
    pub fn with_stand_in<R>(&self, mut borrow: impl FnMut(&mut Pool) -> R) -> R {
        self.has_stood_in.set(true);
        match self.stand_in.try_borrow_mut() {
            Ok(mut pool) => borrow(pool.get_or_insert_with(|| Box::new(Pool::new(0)))),
            // In a destructor of bytes that it drops: what is counted there is lost.
            Err(_) => borrow(&mut Pool::new(0)),
        }
    }

    /// Counts in the worker's pool what another has stood in for.
    #[inline]
    pub fn settle(&self, pool: &mut Pool) {
        if self.has_stood_in.replace(false)
            && let Some(stand_in) = &mut *self.stand_in.borrow_mut()
        {
            pool.absorb(stand_in);
        }
    }

    /// A place for small pieces that leave together when the poll that writes them is over.
    #[inline]
    pub fn draft(&self) -> &RefCell<Vec<u8>> {
        &self.draft
    }

    /// Lets the task that `poll` polls for a connection find this input where it lies.
    #[inline]
    pub fn offer(&self, connection: Key, input: &mut &[u8], poll: impl FnOnce()) {
        let before = self.offered_to.replace(connection);
        self.offer.lend(input, poll);
        self.offered_to.set(before);
    }

    /// That input, for who has this connection. `None` for others.
    #[inline]
    pub fn with_offer<R>(&self, connection: Key, borrow: impl FnOnce(&mut &[u8]) -> R) -> Option<R> {
        if self.offered_to.get() == connection { self.offer.with(borrow) } else { None }
    }

    /// What was kept of this type.
    pub fn kept<T: 'static>(&self) -> Option<Rc<T>> {
        self.kept.borrow().iter().find_map(|kept| Rc::clone(kept).downcast().ok())
    }

    /// Gives back what a spike has left.
    pub fn shrink(&self) {
        self.woken.shrink();
        self.stirred.shrink();
        self.draft.borrow_mut().shrink_to(0);
        self.executor.shrink();
        self.sleeps.shrink();
    }
}

/// The lane of the worker that this belongs to: its tasks end with it, whoever else still sees it.
pub struct OwnLane(Rc<Lane>);

impl OwnLane {
    pub fn new(clock: ClockReader, wakes: Arc<dyn Deliver>, home: Home) -> Self {
        let lane = Lane::new(clock, wakes);
        let is_first = lane.home.set(home).is_ok();
        debug_assert!(is_first, "a lane is new here");
        Self(lane)
    }
}

impl Deref for OwnLane {
    type Target = Rc<Lane>;

    #[inline]
    fn deref(&self) -> &Rc<Lane> {
        &self.0
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        let _entered = self.0.enter();
        self.0.executor.close();
    }
}

/// Takes this thread out of all lanes, until what is returned is dropped: it runs what another thread would run.
#[must_use]
pub fn leave_all() -> Entered {
    let before = CURRENT.try_with(|current| current.replace(ManuallyDrop::new(None)));
    HERE.with(|here| here.set(0));
    Entered(before.ok().and_then(ManuallyDrop::into_inner))
}

/// A thread is in a lane while it has this.
pub struct Entered(Option<Rc<Lane>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        HERE.with(|here| here.set(before.as_ref().map_or(0, |lane| lane.number)));
        let left = CURRENT.try_with(|current| current.replace(ManuallyDrop::new(before)));
        drop(left.map(ManuallyDrop::into_inner));
    }
}

/// Somebody from outside is in a lane while it has this.
pub struct Visit {
    /// `None` if it was there already.
    entered: Option<Entered>,
    lane: Rc<Lane>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.entered.take().is_some() && self.lane.has_woken() {
            // A key of no task: the letter is all that counts.
            self.lane.wakes.deliver(Key::new(super::TABLE, 0, 0));
        }
    }
}

/// Whether this thread is in the lane of this number.
#[inline]
pub fn is_here(number: u64) -> bool {
    HERE.with(|here| here.get() == number)
}

/// Shows the lane that this thread is in. Nothing of the program runs in `look`, nor whoever else would look.
#[inline]
fn look<R>(look: impl FnOnce(&Rc<Lane>) -> R) -> Option<R> {
    let shown = CURRENT.try_with(|current| {
        let lane = current.replace(ManuallyDrop::new(None));
        let shown = lane.as_ref().map(look);
        current.set(lane);
        shown
    });
    shown.ok().flatten()
}

/// Puts a key on the list of the lane that this thread is in, which its target has been told.
#[inline]
pub fn list(key: Key) {
    look(|lane| lane.list(key));
}

/// The lane of this number, if this thread is in it.
pub fn here(number: u64) -> Option<Rc<Lane>> {
    if is_here(number) { try_current() } else { None }
}

/// The lane that this thread is in.
pub fn try_current() -> Option<Rc<Lane>> {
    look(Rc::clone)
}

/// The same where there has to be one.
///
/// # Panics
/// On a thread that is no worker.
#[track_caller]
pub fn current(what: &str) -> Rc<Lane> {
    let Some(lane) = try_current() else {
        panic!(
            "{what} was called on a thread that is no worker: there it is `Handle::spawn_on` that starts a task"
        );
    };
    lane
}
