//! One server under one load: what a window of the client cost it.
//!
//! Server and client are there before the first window and stay: a window is nothing but requests and answers.
//!
//! *Total* is the scheduler's own sum of run time (/proc/PID/task/*/schedstat), exact to the ns and free of
//! steal. *User space* has no exact source on an ordinary kernel: somebody has to look, now and then, where the
//! server is. utime and stime count which side a timer tick (4 ms at HZ 250) happened to hit; a second of it has a
//! dozen ticks in user space for a good server, too few for a ratio. So the kernel's sampling clock looks every
//! 0.25 ms of the server's run time ([`crate::sampler`]; ticks are the fallback where that is not permitted),
//! samples are added up over all kept rounds first, and then
//!
//! user time per request = (user samples / all samples) x exact run time / requests.
//!
//! It is one ratio of two sums, without a median. It does not suffer from what makes the total noisy: cold caches
//! and deeper kernel queues while the host is busy show up in the kernel's part. What is left is the error of a
//! count, 1/sqrt(user samples). Sampling costs every contestant the same small time.

use super::client::{Load, StandBy, number};
use super::process::Server;
use super::rounds::Sample;
use super::{CpuTime, Failure, Switches};
use crate::sampler::{Sampler, Sides};
use hdrhistogram::Histogram;
use serde_json::Value;

/// One window.
pub struct Window {
    /// Answers that were right.
    pub requests: f64,
    /// What they cost the server.
    pub cpu: CpuTime,
    /// How often the server left its core meanwhile.
    pub switches: Switches,
    /// How long the client asked, and waited for its last answers.
    pub seconds: f64,
    /// CPU time of the client.
    pub load_seconds: f64,
    /// All else that the client said.
    pub report: Value,
    /// Latencies in us and how often each occurred, if the client was told to give a `--histogram`.
    latencies: Vec<(u64, u64)>,
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

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.requests / self.seconds
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
        Self::of_parts(windows.map(|window| (window.requests, window.total_us(), sides(window))))
    }

    /// The same of requests, what each cost in us, and where the sampling clock found the server meanwhile.
    pub fn of_parts(parts: impl Iterator<Item = (f64, f64, Sides)>) -> Self {
        let (mut requests, mut us, mut user, mut all) = (0.0, 0.0, 0, 0);
        for (count, us_each, Sides { user: hits, kernel }) in parts {
            requests += count;
            us += us_each * count;
            user += hits;
            all += hits + kernel;
        }
        let share = user as f64 / all.max(1) as f64;
        Self { us_per_request: share * us / requests, error: ((1.0 - share) / user.max(1) as f64).sqrt() }
    }
}

/// A running server with its client and, where the kernel permits it, its sampler.
pub struct Contestant {
    /// The process.
    pub server: Server,
    client: StandBy,
    sampler: Option<Sampler>,
}

impl Contestant {
    /// Connects a client with these options, which warms the server up. With `is_sampled` its user time is told apart
    /// from its kernel time, on the threads that it has then.
    ///
    /// # Errors
    /// The client failed.
    pub fn new(server: Server, load: &Load<'_>, options: &str, is_sampled: bool) -> Result<Self, Failure> {
        let client = load.stand_by(server.port, options)?;
        let sampler = if is_sampled { Sampler::attach(server.pid()).ok() } else { None };
        Ok(Self { server, client, sampler })
    }

    /// Whether the sampling clock runs; else user time comes from ticks.
    pub fn is_sampled(&self) -> bool {
        self.sampler.is_some()
    }

    /// One window. A server that has closed idle connections since the last one would be charged for making them anew,
    /// so that window is not counted, and the next one is.
    ///
    /// # Errors
    /// The client failed, or the server is gone.
    pub fn window(&mut self, seconds: f64) -> Result<Window, Failure> {
        let window = self.any_window(seconds)?;
        match number(&window.report, "reconnected")? > 0.0 {
            true => self.any_window(seconds),
            false => Ok(window),
        }
    }

    fn any_window(&mut self, seconds: f64) -> Result<Window, Failure> {
        let pid = self.server.pid();
        let (switches, cpu) = (Switches::of(pid)?, CpuTime::of(pid)?);
        self.sampler.as_mut().map(Sampler::drain);
        let mut report = self.client.window(seconds)?;
        let sampled = self.sampler.as_mut().map(Sampler::drain);
        let (cpu, switches) = (CpuTime::of(pid)?.since(cpu), Switches::of(pid)?.since(switches));
        Ok(Window {
            requests: number(&report, "requests")?,
            cpu,
            switches,
            seconds: number(&report, "seconds")? + number(&report, "drain_seconds")?,
            load_seconds: number(&report, "cpu_seconds")?,
            latencies: pairs(&report["histogram"].take()),
            report,
            sampled,
        })
    }

    /// The server alone, without its client.
    pub fn into_server(self) -> Server {
        self.server
    }
}

fn pairs(histogram: &Value) -> Vec<(u64, u64)> {
    let pairs = histogram.as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))).collect()
}

/// Percentiles of all requests in these windows together, in us; the client was told to give a `--histogram`.
///
/// # Errors
/// A latency beyond everything that the client reports.
pub fn percentiles<const N: usize>(windows: &[&Window], parts: [f64; N]) -> Result<[f64; N], Failure> {
    let mut all = Histogram::<u64>::new(3)?;
    for &(us, times) in windows.iter().flat_map(|window| &window.latencies) {
        all.record_n(us, times)?;
    }
    Ok(parts.map(|part| all.value_at_quantile(part) as f64))
}
