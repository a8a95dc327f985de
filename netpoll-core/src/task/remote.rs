//! A task on another worker, and who waits for it, on whatever thread.
//!
//! Invariant: the lock is held for a load or a store; nothing of the program runs under it.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::body::Outcome;
use super::executor::Kind;
use super::park::wait_for;
use super::sync::{Arc, AtomicBool, Ordering};
use super::{JoinError, Lane, body};
use crate::mem::{self, Guarded};

/// Waits for a task that was started on a worker from elsewhere ([`Handle::spawn_on`](crate::Handle::spawn_on)); a future of its
/// result, on any thread and any executor.
///
/// Dropping it lets the task go on by itself. Cancel-safe: a wait for it (`&mut handle`) that is given up loses nothing.
#[must_use = "dropping a handle lets its task go on alone; `detach` says that it is meant"]
pub struct RemoteHandle<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Somebody wants it to end: asked in front of each poll.
    is_aborted: AtomicBool,
}

enum State<T> {
    Running {
        /// Of who waits for it.
        joiner: Option<Waker>,
        /// Its own, once it has begun: who aborts it has it polled.
        task: Option<Waker>,
    },
    Ended(Outcome<T>),
    Taken,
}

impl<T> Shared<T> {
    fn with<R>(&self, access: impl FnOnce(&mut State<T>) -> R) -> R {
        access(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the task's own waker, for who aborts it. False if somebody has.
    fn begin(&self, waker: &Waker) -> bool {
        self.with(|state| {
            if let State::Running { task, .. } = state {
                *task = Some(waker.clone());
            }
        });
        !self.is_aborted.load(Ordering::Acquire)
    }

    fn abort(&self) {
        self.is_aborted.store(true, Ordering::Release);
        let waker = self.with(|state| match state {
            State::Running { task, .. } => task.take(),
            _ => None,
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn finish(&self, result: Outcome<T>) {
        let before = self.with(|state| match state {
            State::Running { .. } => Ok(std::mem::replace(state, State::Ended(result))),
            _ => Err(result),
        });
        match before {
            Ok(State::Running { joiner: Some(joiner), .. }) => drop(mem::guarded(|| joiner.wake())),
            Ok(_) => {}
            Err(result) => drop(result),
        }
    }
}

/// Says how a task ended, once. Dropped before that, it says that the task was.
pub struct Finish<T>(Option<Arc<Shared<T>>>);

impl<T> Finish<T> {
    pub fn finish(mut self, result: Outcome<T>) {
        if let Some(shared) = self.0.take() {
            shared.finish(result);
        }
    }
}

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.finish(Err(JoinError::cancelled()));
        }
    }
}

/// Both ends of a task that begins on another thread.
pub fn pair<T>() -> (Finish<T>, RemoteHandle<T>) {
    let state = Mutex::new(State::Running { joiner: None, task: None });
    let shared = Arc::new(Shared { state, is_aborted: AtomicBool::new(false) });
    (Finish(Some(Arc::clone(&shared))), RemoteHandle { shared })
}

/// Starts a task whose future is made here, and hands its result on to who waits elsewhere.
pub fn spawn<F>(
    lane: &Rc<Lane>,
    make: impl FnOnce() -> F + 'static,
    finish: Finish<F::Output>,
    place: &'static Location<'static>,
) where
    F: Future + 'static,
    F::Output: 'static,
{
    let task = async move {
        let finish = finish;
        let Some(shared) = finish.0.as_ref().map(Arc::clone) else { return };
        if !poll_fn(|cx| Poll::Ready(shared.begin(cx.waker()))).await {
            return;
        }
        // A panic of `make` is one of the task.
        let mut future = pin!(async move { make().await });
        let outcome = poll_fn(|cx| {
            if shared.is_aborted.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            body::caught(future.as_mut(), cx).map(Some)
        });
        if let Some(outcome) = outcome.await {
            finish.finish(outcome);
        }
    };
    // If the worker ends, `finish` is dropped with it.
    let _ = lane.executor().spawn(lane, task, Kind::Waited, place, false);
}

impl<T> RemoteHandle<T> {
    /// Blocks this thread until the task has ended.
    ///
    /// # Errors
    /// The task panicked, or was dropped: its worker had ended, or has.
    ///
    /// # Panics
    /// On a worker, which must not block: await it there.
    pub fn join(self) -> Result<T, JoinError> {
        wait_for(self)
    }

    /// Has the task dropped on its worker, in that worker's next turn; whoever waits for it gets [`JoinError::is_cancelled`] then, or its
    /// result if it comes first. One that has not begun never does. Returns at once; nothing happens if it has ended.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// Lets the task go on by itself, which is what dropping the handle does too; this says that it is meant.
    pub fn detach(self) {}

    /// Whether the task has returned, panicked or been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.with(|state| !matches!(state, State::Running { .. }))
    }
}

impl<T> Future for RemoteHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again after it has returned the result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned outside of the lock, as a clone is code of the program.
        let waker = cx.waker().clone();
        let (ready, before) = self.shared.with(|state| match state {
            State::Running { joiner, .. } => (None, joiner.replace(waker)),
            State::Ended(_) => (Some(std::mem::replace(state, State::Taken)), None),
            State::Taken => panic!("a `RemoteHandle` was polled after it had returned its result"),
        });
        drop(before);
        match ready {
            Some(State::Ended(result)) => Poll::Ready(result.map(Guarded::into_inner)),
            _ => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for RemoteHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}
