//! What others took of this machine meanwhile: the hypervisor's other guests, and processes that are none of ours.
//!
//! The kernel tells in ticks of 10 ms, so a stretch of 0.1 s is known to a tenth of a core at best: judge longer ones.

use super::{Failure, proc::Machine};
use std::time::{Duration, Instant};

/// The unit of /proc/stat and /proc/PID/stat (USER_HZ): part of the kernel's interface on x86 and ARM.
pub const TICKS_PER_SECOND: f64 = 100.0;

/// Fifty ticks: one more or less is 2 % of a core, well below what is allowed by default.
const STRETCH: Duration = Duration::from_millis(500);

/// Shares of a core, all cores added up.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    /// By other guests of the host, while we had work.
    pub stolen: f64,
    /// By other processes.
    pub busy: f64,
}

/// A stretch of time that is being watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    before: Machine,
    begin: Instant,
}

impl Watch {
    /// From now on.
    ///
    /// # Errors
    /// /proc/stat is not as expected.
    pub fn begin() -> Result<Self, Failure> {
        Ok(Self { before: Machine::now()?, begin: Instant::now() })
    }

    /// Whether ticks are fine enough to judge it by now.
    pub fn is_long_enough(&self) -> bool {
        self.begin.elapsed() >= STRETCH
    }

    /// What others took since it began, if our own processes used so much CPU time.
    ///
    /// # Errors
    /// /proc/stat is not as expected.
    pub fn others(&self, own_cpu_seconds: f64) -> Result<Others, Failure> {
        let (now, seconds) = (Machine::now()?, self.begin.elapsed().as_secs_f64());
        let share = |ticks: u64| ticks as f64 / (TICKS_PER_SECOND * seconds);
        Ok(Others {
            // The counter of a CPU can lose a little when that is taken offline.
            stolen: share(now.stolen.saturating_sub(self.before.stolen)),
            busy: share(now.busy.saturating_sub(self.before.busy)) - own_cpu_seconds / seconds,
        })
    }
}
