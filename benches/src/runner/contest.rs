//! One server under one load: what a run of the client cost it.
//!
//! *Total* is the scheduler's own sum of run time (/proc/PID/task/*/schedstat), exact to the ns and free of
//! steal. *User space* has no exact source on an ordinary kernel: somebody has to look, now and then, where the
//! server is. utime and stime count which side a timer tick (4 ms at HZ 250) happened to hit; one run of a second has a
//! dozen ticks in user space for a good server, too few for a ratio. So the kernel's sampling clock looks every
//! 0.25 ms of the server's run time ([`crate::sampler`]; ticks are the fallback where that is not permitted),
//! samples are added up over all kept rounds first, and then
//!
//! user time per request = (user samples / all samples) x exact run time / requests.
//!
//! It is one ratio of two sums, without a median. It does not suffer from what makes the total noisy: cold caches
//! and deeper kernel queues while the host is busy show up in the kernel's part. What is left is the error of a
//! count, 1/sqrt(user samples). Sampling costs every contestant the same small time.

use super::process::{Load, Server, number};
use super::rounds::Sample;
use super::{CpuTime, Failure, Switches};
use crate::sampler::{Sampler, Sides};
use serde_json::Value;

/// One run of the client.
pub struct Window {
    /// Answers that were right.
    pub requests: f64,
    /// What they cost the server.
    pub cpu: CpuTime,
    /// How often the server left its core meanwhile.
    pub switches: Switches,
    /// CPU time of the client.
    pub load_seconds: f64,
    /// All that the client said.
    pub report: Value,
    sampled: Option<Sides>,
}

impl Sample for Window {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e9 + self.load_seconds
    }
}

impl Window {
    /// CPU time of the server, user and system, per request.
    pub fn total_us(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e3 / self.requests
    }

    /// Where the sampling clock found the server, or else the ticks.
    pub fn sampled(&self) -> Sides {
        self.sampled.unwrap_or_else(|| self.ticks())
    }

    /// In units of USER_HZ, 100, where HZ is 250: fewer than the ticks were, so an error from them is too large.
    pub fn ticks(&self) -> Sides {
        Sides { user: self.cpu.user_ticks, kernel: self.cpu.system_ticks }
    }
}

/// User-space time of one contestant, summed over rounds.
pub struct UserTime {
    /// In µs of one core.
    pub us_per_request: f64,
    /// One standard deviation, as a share of the figure.
    pub error: f64,
}

impl UserTime {
    /// Adds up windows; `sides` says where each of them has its samples from.
    pub fn of<'a>(windows: impl Iterator<Item = &'a Window>, sides: fn(&Window) -> Sides) -> Self {
        let (mut requests, mut ns, mut user, mut all) = (0.0, 0, 0, 0);
        for window in windows {
            requests += window.requests;
            ns += window.cpu.total_ns;
            let Sides { user: hits, kernel } = sides(window);
            user += hits;
            all += hits + kernel;
        }
        let share = user as f64 / all.max(1) as f64;
        Self {
            us_per_request: share * ns as f64 / 1e3 / requests,
            error: ((1.0 - share) / user.max(1) as f64).sqrt(),
        }
    }
}

/// A running server and, where the kernel permits it, its sampler.
pub struct Contestant {
    /// The process.
    pub server: Server,
    sampler: Option<Sampler>,
}

impl Contestant {
    /// With `sampled` its user time is told apart from its kernel time.
    pub fn new(server: Server, sampled: bool) -> Self {
        let sampler = if sampled { Sampler::attach(server.pid()).ok() } else { None };
        Self { server, sampler }
    }

    /// Whether the sampling clock runs; else user time comes from ticks.
    pub fn is_sampled(&self) -> bool {
        self.sampler.is_some()
    }

    /// Runs the client against it once.
    ///
    /// # Errors
    /// The client failed, or the server is gone.
    pub fn window(&mut self, load: &Load<'_>, options: &str) -> Result<Window, Failure> {
        let pid = self.server.pid();
        let (before, switches) = (CpuTime::of(pid)?, Switches::of(pid)?);
        self.sampler.as_mut().map(Sampler::drain);
        let report = load.run(self.server.port, options)?;
        Ok(Window {
            requests: number(&report, "requests")?,
            cpu: CpuTime::of(pid)?.since(before),
            switches: Switches::of(pid)?.since(switches),
            load_seconds: number(&report, "cpu_seconds")?,
            report,
            sampled: self.sampler.as_mut().map(Sampler::drain),
        })
    }
}
