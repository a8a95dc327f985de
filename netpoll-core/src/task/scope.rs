//! Tasks that belong together: joined together, and cancelled together on the first error.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::executor::Kind;
use super::lane;
use super::waiter::Waiter;
use super::{JoinError, JoinHandle, Lane, body, join};
use crate::mem::Guarded;

/// Tasks that end together: one that fails cancels the others, and whoever waits for all of them hears why.
///
/// Dropping a scope aborts what is left in it, so nothing in it outlives the function that made it.
///
/// ```
/// use std::time::Duration;
///
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::task::Scope;
/// use netpoll_core::time::sleep;
///
/// let mut sim = Sim::new(Options::default());
/// let failed = sim.block_on(async {
///     let scope = Scope::new();
///     for number in 0..10 {
///         scope.spawn(async move {
///             sleep(Duration::from_secs(number)).await;
///             if number == 3 { Err("three") } else { Ok(()) }
///         });
///     }
///     scope.join().await
/// });
/// assert_eq!(failed.unwrap_err().into_error(), Some("three"));
/// assert_eq!(sim.now().as_millis(), 3000, "the others were cancelled");
/// ```
pub struct Scope<E> {
    group: Rc<Group<E>>,
}

/// Why a scope ended early.
pub enum ScopeError<E> {
    /// A task returned this error.
    Failed(E),
    /// A task panicked, or was dropped at the end of its worker.
    Lost(JoinError),
}

struct Group<E> {
    lane: Rc<Lane>,
    /// Those that have ended are taken out when they are the half of it.
    tasks: RefCell<Vec<JoinHandle<()>>>,
    /// Tasks that have not ended.
    running: Cell<usize>,
    failure: RefCell<Option<ScopeError<E>>>,
    waiter: Waiter,
}

impl<E: 'static> Scope<E> {
    /// A scope without tasks.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[must_use]
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it panics where there is no worker")]
    pub fn new() -> Self {
        let lane = lane::current("`Scope::new`");
        let group = Group {
            lane,
            tasks: RefCell::default(),
            running: Cell::new(0),
            failure: RefCell::new(None),
            waiter: Waiter::default(),
        };
        Self { group: Rc::new(group) }
    }

    /// Starts a task in it, as [`spawn_local`](super::spawn_local) does. If the scope has failed already, `future` is dropped.
    #[track_caller]
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        let group = &self.group;
        if group.failure.borrow().is_some() {
            return;
        }
        group.running.set(group.running.get() + 1);
        let mut member = Member { group: Rc::clone(group), has_ended: false };
        let task = async move {
            let mut future = pin!(future);
            let result = std::future::poll_fn(|cx| body::caught(future.as_mut(), cx)).await;
            member.has_ended = true;
            match result.map(Guarded::into_inner) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => member.group.fail(ScopeError::Failed(error)),
                Err(lost) => member.group.fail(ScopeError::Lost(lost)),
            }
        };
        // Whoever has kept a scope may be outside of the worker's turns, in a simulation.
        let _inside = group.lane.visit();
        let task = join::spawn(&group.lane, task, Kind::Waited, Location::caller());
        let mut tasks = group.tasks.borrow_mut();
        tasks.push(task);
        if tasks.len() >= 2 * group.running.get().max(8) {
            let ended: Vec<_> = tasks.extract_if(.., |task| task.is_finished()).collect();
            drop(tasks);
            drop(ended);
        }
    }

    /// Waits until all its tasks have returned.
    ///
    /// Dropping this aborts them.
    ///
    /// # Errors
    /// The first that went wrong: the others are dropped by then.
    pub async fn join(self) -> Result<(), ScopeError<E>> {
        std::future::poll_fn(|cx| self.group.poll_join(cx)).await;
        self.group.abort_all();
        let failure = self.group.failure.borrow_mut().take();
        failure.map_or(Ok(()), Err)
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.group.running.get()
    }

    /// Whether all have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E> Group<E> {
    fn fail(&self, why: ScopeError<E>) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_some() {
            drop(failure);
            return;
        }
        *failure = Some(why);
        drop(failure);
        self.waiter.wake();
    }

    fn poll_join(&self, cx: &Context<'_>) -> Poll<()> {
        if self.running.get() == 0 || self.failure.borrow().is_some() {
            return Poll::Ready(());
        }
        self.waiter.wait(cx.waker());
        Poll::Pending
    }

    fn abort_all(&self) {
        let _inside = self.lane.visit();
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                return;
            }
            for task in tasks {
                task.abort();
            }
        }
    }
}

/// A task of a scope, for as long as its future is there.
struct Member<E> {
    group: Rc<Group<E>>,
    has_ended: bool,
}

impl<E> Drop for Member<E> {
    fn drop(&mut self) {
        let group = &self.group;
        if !self.has_ended {
            group.fail(ScopeError::Lost(JoinError::cancelled()));
        }
        group.running.set(group.running.get() - 1);
        if group.running.get() == 0 {
            group.waiter.wake();
        }
    }
}

impl<E> Drop for Scope<E> {
    fn drop(&mut self) {
        self.group.abort_all();
    }
}

impl<E> fmt::Debug for Scope<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.group.running.get()).finish_non_exhaustive()
    }
}

impl<E> ScopeError<E> {
    /// The error that a task returned; `None` if none did.
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Lost(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for ScopeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Lost(lost) => lost.fmt(f),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for ScopeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Lost(lost) => f.debug_tuple("Lost").field(lost).finish(),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ScopeError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::Lost(_) => None,
        }
    }
}
