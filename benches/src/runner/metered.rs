//! What a server spends while somebody in this process asks it.

use super::process::Server;
use super::rounds::Sample;
use super::{CpuTime, Failure, UserTime};
use crate::sampler::{Sampler, Sides};

/// A server and, where the kernel permits it, its sampler.
pub struct Metered {
    /// The process.
    pub server: Server,
    sampler: Option<Sampler>,
}

/// What was spent on so many things that were asked for.
pub struct Spent {
    /// Requests, deliveries, whatever is counted.
    pub count: f64,
    cpu: CpuTime,
    sides: Sides,
    /// CPU time of this process.
    client_seconds: f64,
}

impl Metered {
    /// Its user time is told apart from its kernel time on the threads that it has now.
    pub fn new(server: Server) -> Self {
        let sampler = Sampler::attach(server.pid()).ok();
        Self { server, sampler }
    }

    /// What it spends while `ask` runs, which returns a count.
    ///
    /// # Errors
    /// That of `ask`; the server is gone.
    pub fn during(&mut self, ask: impl FnOnce() -> Result<f64, Failure>) -> Result<Spent, Failure> {
        let (pid, own) = (self.server.pid(), std::process::id());
        let (cpu, client) = (CpuTime::of(pid)?, CpuTime::of(own)?);
        self.sampler.as_mut().map(Sampler::drain);
        let count = ask()?;
        let sampled = self.sampler.as_mut().map(Sampler::drain);
        let (cpu, client) = (CpuTime::of(pid)?.since(cpu), CpuTime::of(own)?.since(client));
        let sides = sampled.unwrap_or(Sides { user: cpu.user_ticks, kernel: cpu.system_ticks });
        Ok(Spent { count, cpu, sides, client_seconds: client.total_ns as f64 / 1e9 })
    }
}

impl Spent {
    /// CPU time of the server for each, in µs.
    pub fn us(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e3 / self.count
    }

    /// The part of it in user space, of all of these together.
    pub fn user<'a>(all: impl Iterator<Item = &'a Self>) -> UserTime {
        UserTime::of_parts(all.map(|spent| (spent.count, spent.us(), spent.sides)))
    }
}

impl Sample for Spent {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e9 + self.client_seconds
    }
}
