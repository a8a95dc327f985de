//! Waiting for room in the queue of the pool.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::JoinHandle;
use super::handle::spawn;
use super::pool::{Entry, Place, Pool};

/// Waits until one more job may wait for a thread, and keeps that place; those who came first are served first.
///
/// ```
/// use netpoll_core::blocking::reserve;
/// use netpoll_core::sim::{Options, Sim};
///
/// let mut sim = Sim::new(Options::default().blocking_jobs_max(2)); // with sockets: Builder::blocking_jobs_max
/// let sum = sim.block_on(async {
///     let mut jobs = Vec::new();
///     for number in 0..10 {
///         jobs.push(reserve().await.spawn(move || number * number));
///     }
///     let mut sum = 0;
///     for job in jobs {
///         sum += job.await.unwrap();
///     }
///     sum
/// });
/// assert_eq!(sum, 285);
/// ```
///
/// # Cancel safety
/// Who gives up leaves the line, and a place that was kept for it goes to the next.
///
/// # Panics
/// On a thread that is no worker.
#[track_caller]
pub fn reserve() -> Reserve {
    Reserve { pool: Pool::clone(&super::current("`reserve`")), place: None }
}

/// The future of [`reserve`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Reserve {
    pool: Pool,
    place: Option<Place>,
}

impl Future for Reserve {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Self { pool, place } = &mut *self;
        match pool.wait_for_room(place, cx.waker()) {
            true => Poll::Ready(Permit { pool: pool.clone(), is_used: false }),
            false => Poll::Pending,
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.pool.leave(place);
        }
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").finish_non_exhaustive()
    }
}

/// A place for one job. Dropped, it goes to the next who waits for one.
#[must_use = "it keeps a place that others wait for"]
pub struct Permit {
    pool: Pool,
    is_used: bool,
}

impl Permit {
    /// [`spawn_blocking`](super::spawn_blocking), for which there is room. On any thread.
    ///
    /// It is refused only if there is no thread to be had at all, or the runtime has ended.
    pub fn spawn<T, F>(mut self, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.is_used = true;
        spawn(&self.pool, job, Entry::Reserved)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_used {
            self.pool.give_back();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
