//! One task as its worker keeps it: a future, and then what that has left, in one allocation.
//!
//! Invariant: no panic of the program leaves [`Run`]: one of the future is its outcome, one of its destructor is counted. The
//! future is dropped in its place, before whoever called knows that it has ended.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::JoinError;
use crate::mem::{self, Guarded};

/// What a task leaves: its value, or why there is none.
pub type Outcome<T> = Result<Guarded<T>, JoinError>;

/// A task, whatever its future is.
pub type Task = Pin<Box<dyn Run>>;

/// What is done to a task.
pub trait Run {
    /// Polls the future, which has ended if this is ready.
    fn run(self: Pin<&mut Self>, waker: &Waker) -> Poll<()>;
    /// Drops the future.
    fn cancel(self: Pin<&mut Self>);
    /// Moves what the future has left into an `Option<Outcome<T>>` of its `T`.
    fn take(self: Pin<&mut Self>, into: &mut dyn Any);
    /// Where it was spawned.
    fn place(&self) -> &'static Location<'static>;
}

pin_project! {
    struct Body<F: Future> {
        place: &'static Location<'static>,
        #[pin]
        stage: Stage<F>,
    }
}

pin_project! {
    #[project = StageProjected]
    enum Stage<F: Future> {
        Running { #[pin] future: F },
        Ended { outcome: Option<Outcome<F::Output>> },
    }
}

/// A task that has not begun.
pub fn task<F>(future: F, place: &'static Location<'static>) -> Task
where
    F: Future + 'static,
    F::Output: 'static,
{
    Box::pin(Body { place, stage: Stage::Running { future } })
}

impl<F> Run for Body<F>
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn run(self: Pin<&mut Self>, waker: &Waker) -> Poll<()> {
        let mut stage = self.project().stage;
        let StageProjected::Running { future } = stage.as_mut().project() else {
            unreachable!("a task that has ended is not polled");
        };
        let Poll::Ready(outcome) = caught(future, &mut Context::from_waker(waker)) else {
            return Poll::Pending;
        };
        if outcome.is_err() {
            end_of_panicked(stage, outcome);
        } else {
            end(stage, Some(outcome));
        }
        Poll::Ready(())
    }

    fn cancel(self: Pin<&mut Self>) {
        end(self.project().stage, None);
    }

    fn take(self: Pin<&mut Self>, into: &mut dyn Any) {
        let place: &mut Option<Outcome<F::Output>> =
            into.downcast_mut().expect("a handle has the type of its task");
        if let StageProjected::Ended { outcome } = self.project().stage.project() {
            *place = outcome.take();
        }
    }

    fn place(&self) -> &'static Location<'static> {
        self.place
    }
}

thread_local! {
    /// A future that has panicked is being dropped.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether what is dropped here goes because a task has panicked: while that unwinds, or with its future behind it.
pub fn is_panicking() -> bool {
    PANICKED.get() || std::thread::panicking()
}

/// Drops a future that has panicked: what it owns can ask.
#[cold]
fn end_of_panicked<F: Future>(stage: Pin<&mut Stage<F>>, outcome: Outcome<F::Output>) {
    let before = PANICKED.replace(true);
    end(stage, Some(outcome));
    PANICKED.set(before);
}

/// Drops a future in its place, and leaves what is left of it there.
fn end<F: Future>(mut stage: Pin<&mut Stage<F>>, outcome: Option<Outcome<F::Output>>) {
    if mem::guarded(|| stage.set(Stage::Ended { outcome })).is_none() {
        crate::log::destructor_panicked();
    }
}

/// Polls a future of the program; its panic is its result.
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
