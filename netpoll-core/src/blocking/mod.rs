//! Work that blocks, on threads of its own: a library that has no asynchronous side, a password hash, a file on a slow disk.
//!
//! A worker must not wait for such a thing: everything else on it would wait too. [`spawn_blocking`] hands it over to a pool of the
//! runtime and returns a future of what it returns.
//!
//! ```
//! use netpoll_core::Runtime;
//! use netpoll_core::blocking::spawn_blocking;
//!
//! # fn main() -> std::io::Result<()> {
//! let length = Runtime::block_on(async {
//!     let hosts = spawn_blocking(|| std::fs::read("/etc/hosts")).await.expect("no panic, and room");
//!     hosts.map(|text| text.len())
//! })??;
//! println!("{length} bytes");
//! # Ok(())
//! # }
//! ```
//!
//! # The pool
//!
//! One for a runtime, for all of its workers. There is no thread before the first job, never more than
//! [`Builder::blocking_threads`](crate::Builder::blocking_threads), and one that has had nothing to do for ten seconds ends. They are
//! called `netpoll-blocking-0` and so on (of which the kernel's own tools show 15 bytes), and run where the thread that made the runtime
//! may run, never on one worker's CPU alone. They are no workers: what belongs to one, tasks and sleeps, is not to be had there, and
//! what blocks is allowed.
//!
//! Up to [`Builder::blocking_jobs_max`](crate::Builder::blocking_jobs_max) jobs wait for a thread. Beyond that `spawn_blocking` refuses, at
//! once, and [`reserve`] waits for room first: the one is for who answers 503, the other for who feeds the pool in a loop.
//!
//! # How jobs end
//!
//! A job that has begun cannot be stopped. One that has not is dropped when its handle is [aborted](JoinHandle::abort), and when the
//! runtime ends. Dropping a handle stops nothing.
//!
//! A drain waits for no job as such, but for the tasks and connections that wait for one, up to its deadline. When the workers have
//! ended, jobs that have not begun are dropped, and those that run are left to their threads, which end with them: a job that never
//! returns would keep [`Running::stop`](crate::Running::stop) from returning. Who needs a job done waits for it, in a task or with
//! [`JoinHandle::join`]. Threads that still run when `main` returns end with the process.
//!
//! # In a simulation
//!
//! There are no threads. A job runs between two steps of the world, in one go and in no time, and the seed says between which; jobs
//! begin in the order in which they were spawned. So a seed repeats them too, as long as they do not ask for time or chance themselves.
//! One that waits for something that its world has yet to do waits for ever.
//!
//! # Forks
//!
//! A child that a job forks, and that returns from the job instead of going on to another program, ends there with
//! `_exit(101)`, as one of a callback does.

mod handle;
mod pool;
mod reserve;

pub use handle::JoinHandle;
pub use reserve::{Permit, Reserve, reserve};

pub(crate) use pool::{Entry, Limits, Pool, Ticket};

use std::rc::Rc;

use crate::task::try_current;

/// Runs `job` on a thread of the runtime's pool, and returns at once.
///
/// Callable in tasks, handlers, callbacks, timers and factories. It takes two allocations and a lock that nobody holds for long; it
/// starts a thread if none rests and there may be another. What the job returns, or panics with, comes out of
/// the handle; nobody need wait for it. A job that panics costs nothing else: its thread goes on.
///
/// If as many jobs wait as may, or there is no thread to be had at all, `job` is dropped, and the handle says so
/// ([`JoinError::is_refused`](crate::task::JoinError::is_refused)). With [`reserve`] that does not happen.
///
/// # Panics
/// On a thread that is no worker: whoever may block calls the job itself.
#[track_caller]
pub fn spawn_blocking<T, F>(job: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    handle::spawn(&current("`spawn_blocking`"), job, pool::Entry::New)
}

/// Jobs that may wait, unless the program says otherwise ([`Builder::blocking_jobs_max`](crate::Builder::blocking_jobs_max)).
pub(crate) const JOBS_MAX: usize = 4096;

/// The pool of the worker that this thread is.
#[track_caller]
fn current(what: &str) -> Rc<Pool> {
    let pool = try_current().and_then(|lane| lane.kept::<Pool>());
    pool.unwrap_or_else(|| panic!("{what} was called on a thread that is no worker, and may block itself"))
}
