//! Tasks: futures that a worker polls in its turns, beside its connections.
//!
//! A task lives on the worker that it was spawned on and never leaves it, so neither it nor what it captures need be `Send`, and
//! nothing in it takes a lock. Waking it on its own worker is a push on a list; from another thread it is one letter for a
//! burst of wakes.
//!
//! ```
//! use std::time::Duration;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::task::spawn_local;
//! use netpoll_core::time::sleep;
//!
//! let mut sim = Sim::new(Options::default()); // with sockets: Runtime::block_on, or a handler, or a callback
//! let sum = sim.block_on(async {
//!     let later = spawn_local(async {
//!         sleep(Duration::from_secs(3600)).await; // takes no time in a simulation
//!         40
//!     });
//!     later.await.unwrap() + 2
//! });
//! assert_eq!(sum, 42);
//! ```
//!
//! # When they run
//!
//! Never inside a callback of the program: behind those of a batch of events, and before the worker waits, always in front of the output that
//! leaves then. A task that waits for input of a [stream](crate::net) is polled where a callback of that connection would be called. At most 128 polls in a row, and as many with the events of a turn; then sockets get their turn, without sleeping.
//!
//! # What they reach
//!
//! | of | by |
//! |---|---|
//! | the worker's state | [`state`], [`worker`] |
//! | connections, of this worker and of others; timers | [`Commands::with`](crate::Commands::with) |
//! | other workers, counters, the drain | [`Handle::current`](crate::Handle::current), [`stopping`] |
//!
//! Futures that a callback polls, such as handlers of HTTP, reach the same.
//!
//! # How they end
//!
//! A task ends when it returns, when it is [aborted](JoinHandle::abort), or when it panics, which its [`JoinHandle`] hands on, and
//! nothing else notices. A graceful drain waits for tasks as it does for connections, but not for [daemons](spawn_daemon): they hear of it
//! by [`stopping`]. Tasks that are left at its deadline are dropped, while everything that they own still works, and counted in
//! [`Report::tasks_cut`](crate::Report::tasks_cut).

mod body;
mod executor;
mod join;
mod lane;
mod park;
mod parked;
mod remote;
mod ring;
mod scope;
pub(crate) mod share;
mod sleeps;
mod slots;
mod states;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
#[path = "sync_loom.rs"]
mod sync;
mod waiter;
mod waiting;
mod waker;

use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use join::{JoinError, JoinHandle};
pub use remote::RemoteHandle;
pub use scope::{Scope, ScopeError};

pub(crate) use body::is_panicking;
pub(crate) use executor::{Kind, TABLE};
pub(crate) use join::spawn as spawn_at;
pub(crate) use lane::{Home, Lane, OwnLane, current, is_here as is_in, leave_all, try_current};
pub(crate) use park::wait_for;
pub(crate) use parked::Parked;
pub(crate) use remote::{pair, spawn as spawn_from_elsewhere};
pub(crate) use states::{OwnStates, States, two_states};
pub(crate) use waker::{Came, Deliver, WakeTarget};

/// The inner parts, for the model checker.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod inner {
    pub use super::lane::Lane;
    pub use super::waker::{Came, Deliver, WakeTarget};
}

/// Starts a task on the worker that this thread is, and returns at once: it is polled for the first time when its turn comes.
///
/// Callable in callbacks, handlers, timers, factories, code from [`Handle::run_on`](crate::Handle::run_on), and tasks. From other
/// threads it is [`Handle::spawn_on`](crate::Handle::spawn_on). One allocation, and more for a task whose waker somebody clones,
/// unless tasks that have ended lately have left theirs. If the worker is ending, `future` is dropped and the handle says so.
///
/// # Panics
/// On a thread that is no worker; with 16 million tasks on one worker.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_at(&current("`spawn_local`"), future, Kind::Waited, Location::caller())
}

/// Starts a task that no drain waits for, as [`spawn_local`] does otherwise: what goes on for as long as there is something else to do.
///
/// It is dropped when all else has ended: connections, and tasks that are not daemons, at a deadline too. So it serves a drain to its end,
/// where one that waits for [`stopping`] has gone when it begins; it hears what the last of the others tell it if it waits for just that.
/// What it still has to say at its own end, its destructors say.
///
/// Nor does one wait for a [`Stream`](crate::net::Stream) that was connected to a server, or is about to be, and that only daemons and states
/// have, but for what was written to it to leave. For one that was accepted it waits, whoever has it: a daemon lets go of it when [`stopping`] says so, or the
/// drain lasts until its deadline. UDP sockets hold none.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::task::spawn_daemon;
/// use netpoll_core::time::interval;
///
/// let mut sim = Sim::new(Options::default());
/// let ticks = Rc::new(Cell::new(0));
/// let counted = Rc::clone(&ticks);
/// sim.block_on(async move {
///     let task = spawn_daemon(async move {
///         let mut every_second = interval(Duration::from_secs(1));
///         loop {
///             every_second.tick().await;
///             counted.set(counted.get() + 1);
///         }
///     });
///     task.detach();
/// });
/// sim.advance(Duration::from_secs(10));
/// assert!(ticks.get() >= 10);
/// sim.begin_drain(Duration::from_secs(60));
/// sim.run();
/// assert!(sim.is_finished());
/// ```
///
/// # Panics
/// As [`spawn_local`].
#[track_caller]
pub fn spawn_daemon<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_at(&current("`spawn_daemon`"), future, Kind::Daemon, Location::caller())
}

/// The number of the worker that this thread is, from zero.
///
/// # Panics
/// On a thread that is no worker.
#[must_use]
#[track_caller]
pub fn worker() -> usize {
    home(&current("`task::worker`")).worker
}

/// The value of this type that [`Builder::state`](crate::Builder::state) made for the worker that this thread is: for tasks, handlers, and
/// whatever else runs there. A short search and a clone of an `Rc`.
///
/// ```
/// use std::cell::Cell;
///
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::task;
///
/// #[derive(Default)]
/// struct Jobs(Cell<u64>);
///
/// let mut sim = Sim::new(Options::default());
/// sim.state(|_worker| Jobs::default());
/// let done = sim.block_on(async {
///     let jobs = task::state::<Jobs>();
///     jobs.0.set(jobs.0.get() + 1);
///     jobs.0.get()
/// });
/// assert_eq!(done, 1);
/// ```
///
/// # Panics
/// On a thread that is no worker; if the worker has none of this type, or not any more: states end with their worker.
#[must_use]
#[track_caller]
pub fn state<S: 'static>() -> Rc<S> {
    home(&current("`task::state`")).states.get()
}

fn home(lane: &Lane) -> &lane::Home {
    lane.home().expect("a lane of a worker has its home")
}

/// Lets the others have their turn first: tasks that are ready, and sockets if 128 tasks were polled in a row.
///
/// Cancel-safe: there is nothing to lose.
pub fn yield_now() -> Yield {
    Yield(false)
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Waits until the worker begins a graceful drain; at once if it has.
///
/// What a task that goes on for ever waits for beside its work, so that it does not hold the drain up to its deadline.
/// Cancel-safe.
///
/// # Panics
/// On a thread that is no worker.
#[track_caller]
pub fn stopping() -> Stopping {
    Stopping { lane: current("`stopping`"), place: None }
}

/// The future of [`stopping`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Stopping {
    lane: Rc<Lane>,
    place: Option<usize>,
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.lane.is_stopping() {
            // All places went when it began.
            self.place = None;
            return Poll::Ready(());
        }
        self.place = Some(self.lane.stop_waiters().wait(&self.lane, self.place, cx.waker()));
        Poll::Pending
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if let Some(place) = self.place.filter(|_| !self.lane.is_stopping()) {
            self.lane.stop_waiters().leave(place);
        }
    }
}

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopping").field("is_stopping", &self.lane.is_stopping()).finish_non_exhaustive()
    }
}
