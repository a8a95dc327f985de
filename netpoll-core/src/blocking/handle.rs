//! A job of the program, and who waits for what it returns.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::pool::{Entry, Pool, Ticket, end_forked_child};
use crate::mem::Guarded;
use crate::task::{JoinError, RemoteHandle, pair};

/// Waits for a job of the pool; a future of its result, on any thread and any executor.
///
/// Dropping it lets the job go on by itself. What it returns is dropped then. Cancel-safe: a wait for it (`&mut handle`) that is
/// given up loses nothing.
#[must_use = "dropping a handle lets its job go on alone; `let _ =` says that it is meant"]
pub struct JoinHandle<T> {
    result: RemoteHandle<T>,
    /// `None` if it was refused.
    job: Option<(Pool, Ticket)>,
}

/// Queues a job.
pub fn spawn<T, F>(pool: &Pool, job: F, entry: Entry) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (finish, result) = pair();
    let job = Guarded::new(job);
    let put = pool.put(entry, (finish, job), |(finish, job)| {
        let outcome = catch_unwind(AssertUnwindSafe(job.into_inner()));
        end_forked_child();
        finish.finish(match outcome {
            Ok(value) => Ok(Guarded::new(value)),
            Err(payload) => {
                crate::log::job_panicked();
                Err(JoinError::panicked(payload))
            }
        });
    });
    let job = match put {
        Ok(ticket) => Some((pool.clone(), ticket)),
        Err(((finish, job), error)) => {
            drop(job);
            finish.finish(Err(JoinError::refused(error)));
            None
        }
    };
    JoinHandle { result, job }
}

impl<T> JoinHandle<T> {
    /// Drops the job if it has not begun, before this returns; whoever waits for it gets
    /// [`JoinError::is_cancelled`](crate::task::JoinError::is_cancelled). False if it has begun, and goes on, or has ended. O(jobs that
    /// wait).
    pub fn abort(&self) -> bool {
        self.job.as_ref().is_some_and(|(pool, ticket)| pool.abort(*ticket))
    }

    /// Whether it has returned, panicked, or been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.result.is_finished()
    }

    /// Blocks this thread until the job has ended.
    ///
    /// # Errors
    /// The job panicked, was dropped before it began, or was refused.
    ///
    /// # Panics
    /// On a worker, which must not block: await it there.
    pub fn join(self) -> Result<T, JoinError> {
        self.result.join()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again after it has returned the result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}
