//! A task on another worker, and who waits for it, on whatever thread.
//!
//! Invariant: the lock is held for a load or a store; nothing of the program runs under it.

use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::executor::Task;
use super::park::wait_for;
use super::sync::Arc;
use super::{JoinError, Lane, join};
use crate::mem::{self, Guarded};

/// Waits for a task that was started on a worker from elsewhere ([`Handle::spawn_on`](crate::Handle::spawn_on)); a future of its
/// result, on any thread and any executor.
///
/// Dropping it lets the task go on by itself. Cancel-safe: a wait for it (`&mut handle`) that is given up loses nothing.
#[must_use = "dropping a handle lets its task go on alone; `let _ =` says that it is meant"]
pub struct RemoteHandle<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T>(Mutex<State<T>>);

enum State<T> {
    Running(Option<Waker>),
    Ended(Result<Guarded<T>, JoinError>),
    Taken,
}

impl<T> Shared<T> {
    fn with<R>(&self, access: impl FnOnce(&mut State<T>) -> R) -> R {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(&self, result: Result<Guarded<T>, JoinError>) {
        let before = self.with(|state| match state {
            State::Running(_) => Ok(std::mem::replace(state, State::Ended(result))),
            _ => Err(result),
        });
        match before {
            Ok(State::Running(Some(waker))) => drop(mem::guarded(|| waker.wake())),
            Ok(_) => {}
            Err(result) => drop(result),
        }
    }
}

/// Says how a task ended, once. Dropped before that, it says that the task was.
pub struct Finish<T>(Option<Arc<Shared<T>>>);

impl<T> Finish<T> {
    pub fn finish(mut self, result: Result<Guarded<T>, JoinError>) {
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
    let shared = Arc::new(Shared(Mutex::new(State::Running(None))));
    (Finish(Some(Arc::clone(&shared))), RemoteHandle { shared })
}

/// Starts a task whose future is made here, and hands its result on to who waits elsewhere.
pub fn spawn<F>(lane: &Rc<Lane>, make: impl FnOnce() -> F + 'static, finish: Finish<F::Output>)
where
    F: Future + 'static,
    F::Output: 'static,
{
    let task: Task = Box::pin(async move {
        let finish = finish;
        // A panic of `make` is one of the task.
        let mut future = pin!(async move { make().await });
        let result = std::future::poll_fn(|cx| join::caught(future.as_mut(), cx)).await;
        finish.finish(result);
    });
    // If the worker ends, `finish` is dropped with it.
    let _ = lane.executor().spawn(lane, task);
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

    /// Whether the task has returned, panicked or been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.with(|state| !matches!(state, State::Running(_)))
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
            State::Running(known) => (None, known.replace(waker)),
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
