//! Time for tasks and `async` handlers: sleeps, bounds and intervals on the worker's own clock.
//!
//! Everything here waits in the timing wheel of the worker that polls it, in ticks of a millisecond: it never comes early, and
//! late by the turn that is under way and a tick at most. What is dropped leaves the wheel at once, so a bound that is never
//! reached costs what it costs to set and cancel it. In a simulation the clock is the simulation's.
//!
//! ```
//! use std::time::Duration;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::time::{interval, sleep, timeout};
//!
//! let mut sim = Sim::new(Options::default());
//! sim.block_on(async {
//!     assert!(timeout(Duration::from_secs(1), sleep(Duration::from_secs(2))).await.is_err());
//!     let mut ticks = interval(Duration::from_secs(60));
//!     ticks.tick().await; // at once
//!     ticks.tick().await;
//! });
//! assert_eq!(sim.now().as_millis(), 61_000);
//! ```

mod interval;
mod sleep;
mod timeout;

pub use interval::{Interval, MissedTicks, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Elapsed, Timeout, timeout, timeout_at};

use crate::clockwork::Instant;
use crate::task;

/// A reading of the clock of the worker that this thread is. One vDSO call; [`Conn::now`](crate::Conn::now) is free, and tells when
/// the turn began.
///
/// # Panics
/// On a thread that is no worker.
#[must_use]
#[track_caller]
pub fn now() -> Instant {
    task::current("`time::now`").now()
}
