//! A task as it lies in its cell: a future, and what that leaves.
//!
//! Invariant: no panic of the program leaves [`Body`]: one of the future is its outcome, one of its destructor is counted. The
//! future is dropped in its place, before whoever called knows that it has ended.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::JoinError;
use crate::mem::{self, Guarded};
use crate::sys::Run;

/// What a task leaves: its value, or why there is none.
pub type Outcome<T> = Result<Guarded<T>, JoinError>;

pin_project! {
    /// The future of a task.
    pub struct Body<F> {
        #[pin]
        future: F,
    }
}

impl<F> Body<F> {
    pub const fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F> Run for Body<F>
where
    F: Future + 'static,
    F::Output: 'static,
{
    type Left = Outcome<F::Output>;

    #[inline]
    fn run(self: Pin<&mut Self>, waker: &Waker) -> Poll<Self::Left> {
        caught(self.project().future, &mut Context::from_waker(waker))
    }

    #[inline(always)]
    fn guard(left: Option<&Self::Left>, end: impl FnOnce()) {
        let has_panicked = left.is_some_and(Result::is_err);
        let before = if has_panicked { PANICKED.replace(true) } else { false };
        // As `mem::guarded`, in line: every task comes by here.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(end)) {
            destructor_panicked(payload);
        }
        if has_panicked {
            PANICKED.set(before);
        }
    }

    fn take(left: Self::Left, into: &mut dyn Any) {
        let place: &mut Option<Self::Left> = into.downcast_mut().expect("a handle has the type of its task");
        *place = Some(left);
    }
}

thread_local! {
    /// A future that has panicked is being dropped: what it owns can ask.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether what is dropped here goes because a task has panicked: while that unwinds, or with its future behind it.
pub fn is_panicking() -> bool {
    PANICKED.get() || std::thread::panicking()
}

#[cold]
fn destructor_panicked(payload: Box<dyn Any + Send>) {
    mem::count_panic();
    mem::discard_payload(payload);
    crate::log::destructor_panicked();
}

/// Polls a future of the program; its panic is its result.
#[inline]
pub fn caught<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Outcome<F::Output>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(Guarded::new(value))),
        Err(payload) => Poll::Ready(Err(panicked(payload))),
    }
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
    mem::count_panic();
    crate::log::task_panicked();
    JoinError::panicked(payload)
}
