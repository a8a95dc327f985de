//! What a task leaves behind: its value, its panic, or that it was dropped, for who waits for it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use super::Lane;
use super::executor::Task;
use super::waiter::Waiter;
use crate::mem::{self, Guarded, Key};

/// Waits for a task, on the worker that it runs on; a future of its result.
///
/// Dropping it lets the task go on by itself. What the task returns is dropped then, and its panic, which was counted.
///
/// Cancel-safe: a wait for it (`&mut handle`) that is given up loses nothing.
#[must_use = "dropping a handle lets its task go on alone; `let _ =` says that it is meant"]
pub struct JoinHandle<T> {
    shared: Rc<Shared<T>>,
    lane: Rc<Lane>,
    /// `None` if the task never began.
    key: Option<Key>,
}

/// Why a task has no result.
pub struct JoinError(Option<Mutex<Box<dyn Any + Send>>>);

struct Shared<T> {
    result: RefCell<Option<Result<Guarded<T>, JoinError>>>,
    waiter: Waiter,
    is_finished: Cell<bool>,
}

impl<T> Shared<T> {
    fn finish(&self, result: Result<Guarded<T>, JoinError>) {
        if self.is_finished.replace(true) {
            return;
        }
        *self.result.borrow_mut() = Some(result);
        self.waiter.wake();
    }
}

/// Says that a task was dropped, unless it has said something else before.
struct Finish<T>(Rc<Shared<T>>);

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        self.0.finish(Err(JoinError::cancelled()));
    }
}

/// A task that runs `future` and tells who joins it.
pub fn spawn<F>(lane: &Rc<Lane>, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let shared = Rc::new(Shared {
        result: RefCell::new(None),
        waiter: Waiter::default(),
        is_finished: Cell::new(false),
    });
    let finish = Finish(Rc::clone(&shared));
    let task: Task = Box::pin(async move {
        let finish = finish;
        let mut future = pin!(future);
        let result = std::future::poll_fn(|cx| caught(future.as_mut(), cx)).await;
        finish.0.finish(result);
    });
    let key = lane.executor().spawn(lane, task);
    JoinHandle { shared, lane: Rc::clone(lane), key }
}

/// Polls a future of the program; its panic is its result.
pub fn caught<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<Guarded<F::Output>, JoinError>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(Guarded::new(value))),
        Err(payload) => {
            mem::count_panic();
            crate::log::task_panicked();
            Poll::Ready(Err(JoinError(Some(Mutex::new(payload)))))
        }
    }
}

impl<T> JoinHandle<T> {
    /// Drops the task where it stands; whoever waits for it gets [`JoinError::is_cancelled`]. Nothing happens if it has ended.
    ///
    /// Its future is dropped before this returns. A task that aborts itself goes on to its next `await` first.
    pub fn abort(&self) {
        if let Some(key) = self.key {
            let _inside = self.lane.visit();
            self.lane.executor().abort(key);
        }
    }

    /// Whether it has returned, panicked or been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again after it has returned the result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.shared;
        let result = shared.result.borrow_mut().take();
        if let Some(result) = result {
            return Poll::Ready(result.map(Guarded::into_inner));
        }
        assert!(!shared.is_finished.get(), "a `JoinHandle` was polled after it had returned its result");
        shared.waiter.wait(cx.waker());
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl JoinError {
    pub(super) fn cancelled() -> Self {
        Self(None)
    }

    /// The task was dropped before it had returned: it was aborted, or its worker has ended.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_none()
    }

    /// The task has panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.0.is_some()
    }

    /// What it panicked with; `None` if it did not.
    #[must_use]
    pub fn into_panic(mut self) -> Option<Box<dyn Any + Send>> {
        self.0.take().map(into_inner)
    }

    /// Goes on with the panic here, if it was one; gives itself back if not.
    ///
    /// # Errors
    /// Itself: the task was cancelled.
    pub fn resume_panic(mut self) -> Result<(), Self> {
        match self.0.take() {
            Some(payload) => resume_unwind(into_inner(payload)),
            None => Err(self),
        }
    }

    fn text(&self) -> Option<String> {
        let payload = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.text()) {
            (None, _) => f.write_str("the task was dropped before it had returned"),
            (Some(_), Some(text)) => write!(f, "the task panicked: {text}"),
            (Some(_), None) => f.write_str("the task panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.text()) {
            (None, _) => f.write_str("JoinError::Cancelled"),
            (Some(_), text) => write!(f, "JoinError::Panic({:?})", text.as_deref().unwrap_or("..")),
        }
    }
}

impl std::error::Error for JoinError {}

impl Drop for JoinError {
    fn drop(&mut self) {
        if let Some(payload) = self.0.take() {
            mem::discard_payload(into_inner(payload));
        }
    }
}

/// The lock makes it `Sync`; nobody ever waits for it.
fn into_inner<T>(lock: Mutex<T>) -> T {
    lock.into_inner().unwrap_or_else(PoisonError::into_inner)
}
