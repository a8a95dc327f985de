//! The handle of a task: waits for what the task leaves, its value, its panic, or that it was dropped.

use std::any::Any;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use super::Lane;
use super::body::Outcome;
use super::executor::{Joined, Kind};
use crate::mem::{self, Guarded, Key};

/// Waits for a task, on the worker that it runs on; a future of its result.
///
/// Dropping it lets the task go on by itself, as [`detach`](Self::detach) says. A handle holds the task's result, where there is one,
/// in the memory of the task.
///
/// Cancel-safe: a wait for it (`&mut handle`) that is given up loses nothing.
#[must_use = "dropping a handle lets its task go on alone; `detach` says that it is meant"]
pub struct JoinHandle<T> {
    lane: Rc<Lane>,
    task: Joining,
    result: PhantomData<Rc<T>>,
}

/// How far a handle is.
#[derive(Clone, Copy)]
enum Joining {
    Task(Key),
    /// The task never began.
    Refused,
    /// The result was handed out.
    Done,
}

/// Why a task, or a job of the [pool](crate::blocking), has no result.
pub struct JoinError(Why);

enum Why {
    Cancelled,
    /// The lock makes it `Sync`; nobody ever waits for it.
    Panicked(Option<Box<Mutex<Payload>>>),
    Refused(Box<io::Error>),
}

type Payload = Box<dyn Any + Send>;

/// Starts a task, which was spawned at `place`.
pub fn spawn<F>(
    lane: &Rc<Lane>,
    future: F,
    kind: Kind,
    place: &'static Location<'static>,
) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let key = lane.executor().spawn(lane, future, kind, place, true);
    let task = key.map_or(Joining::Refused, Joining::Task);
    JoinHandle { lane: Rc::clone(lane), task, result: PhantomData }
}

impl<T> JoinHandle<T> {
    /// Drops the task where it stands; whoever waits for it gets [`JoinError::is_cancelled`]. Nothing happens if it has ended.
    ///
    /// Its future is dropped before this returns. A task that aborts itself goes on to its next `await` first.
    pub fn abort(&self) {
        if let Joining::Task(key) = self.task {
            let _inside = self.lane.visit();
            self.lane.executor().abort(key);
        }
    }

    /// Lets the task go on by itself, which is what dropping the handle does too; this says that it is meant.
    ///
    /// What the task returns is dropped then, and so is its panic, which was counted. A drain waits for it as before.
    pub fn detach(self) {}

    /// Whether it has returned, panicked or been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match self.task {
            Joining::Task(key) => self.lane.executor().has_ended(key),
            Joining::Refused | Joining::Done => true,
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if let Joining::Task(key) = self.task {
            self.lane.executor().detach(key);
        }
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again after it has returned the result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut outcome: Option<Outcome<T>> = None;
        let joined = match self.task {
            Joining::Task(key) => self.lane.executor().join(&self.lane, key, cx.waker(), &mut outcome),
            Joining::Refused => Joined::Gone,
            Joining::Done => panic!("a `JoinHandle` was polled after it had returned its result"),
        };
        if joined == Joined::Waits {
            return Poll::Pending;
        }
        self.task = Joining::Done;
        Poll::Ready(outcome.unwrap_or_else(|| Err(JoinError::cancelled())).map(Guarded::into_inner))
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl JoinError {
    pub(super) fn cancelled() -> Self {
        Self(Why::Cancelled)
    }

    pub(crate) fn panicked(payload: Payload) -> Self {
        Self(Why::Panicked(Some(Box::new(Mutex::new(payload)))))
    }

    pub(crate) fn refused(why: io::Error) -> Self {
        Self(Why::Refused(Box::new(why)))
    }

    /// It was dropped before it had returned: it was aborted, or its worker, or the runtime, has ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Why::Cancelled)
    }

    /// It has panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Why::Panicked(_))
    }

    /// It was never taken: there was no room for one more job ([`spawn_blocking`](crate::blocking::spawn_blocking)), or no thread. The
    /// text says which. A task is never refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.0, Why::Refused(_))
    }

    /// What it panicked with; `None` if it did not.
    #[must_use]
    pub fn into_panic(mut self) -> Option<Box<dyn Any + Send>> {
        self.take_panic()
    }

    /// Goes on with the panic here, if it was one; gives itself back if not.
    ///
    /// # Errors
    /// Itself: it was cancelled or refused.
    pub fn resume_panic(mut self) -> Result<(), Self> {
        match self.take_panic() {
            Some(payload) => resume_unwind(payload),
            None => Err(self),
        }
    }

    fn take_panic(&mut self) -> Option<Payload> {
        match &mut self.0 {
            Why::Panicked(payload) => {
                payload.take().map(|lock| (*lock).into_inner().unwrap_or_else(PoisonError::into_inner))
            }
            Why::Cancelled | Why::Refused(_) => None,
        }
    }

    fn text(&self) -> Option<String> {
        let Why::Panicked(Some(payload)) = &self.0 else { return None };
        let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.text()) {
            (Why::Cancelled, _) => f.write_str("the task was dropped before it had returned"),
            (Why::Panicked(_), Some(text)) => write!(f, "the task panicked: {text}"),
            (Why::Panicked(_), None) => f.write_str("the task panicked"),
            (Why::Refused(why), _) => write!(f, "the task was refused: {why}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.text()) {
            (Why::Cancelled, _) => f.write_str("JoinError::Cancelled"),
            (Why::Panicked(_), text) => {
                write!(f, "JoinError::Panic({:?})", text.as_deref().unwrap_or(".."))
            }
            (Why::Refused(why), _) => write!(f, "JoinError::Refused({why})"),
        }
    }
}

impl From<JoinError> for io::Error {
    /// [`ErrorKind::Other`](io::ErrorKind::Other), or that of the reason for which it was refused.
    fn from(error: JoinError) -> Self {
        let kind = match &error.0 {
            Why::Refused(why) => why.kind(),
            Why::Cancelled | Why::Panicked(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Why::Refused(why) => Some(&**why),
            Why::Cancelled | Why::Panicked(_) => None,
        }
    }
}

impl Drop for JoinError {
    fn drop(&mut self) {
        if let Some(payload) = self.take_panic() {
            mem::discard_payload(payload);
        }
    }
}
