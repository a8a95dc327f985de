//! How a simulated world is set up.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::blocking::JOBS_MAX;
use crate::conn::{ConnLimits, UdpOptions};
use crate::driver::Faults;
use crate::reactor::Budget;

/// How a simulated world is set up.
///
/// ```
/// use std::time::Duration;
///
/// use netpoll_core::sim::{Faults, Options, Sim};
///
/// let millis = Duration::from_millis;
/// let options = Options::default().seed(7).workers(2).faults(Faults::stormy()).latency(millis(5)..=millis(40));
/// let sim = Sim::new(options);
/// assert_eq!(sim.handle().workers(), 2);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Decides everything that is left to chance. Default 0.
    pub seed: u64,
    /// How often the network misbehaves. Default never. [`Sim::set_faults`](super::Sim::set_faults) does it for one peer.
    pub faults: Faults,
    /// The poll budget. Default as in a real runtime.
    pub budget: Budget,
    /// Bounds on each connection. Default as in a real runtime.
    pub limits: ConnLimits,
    /// Workers, each with listeners, connections and a mailbox of its own; 1 to 65 535. All are turned in one thread, in
    /// an order that the seed chooses. Default 1.
    pub workers: usize,
    /// How long each segment is under way, in both directions: a time in this range, chosen by the seed. Segments of one
    /// connection do not overtake each other. Default zero: what is sent is there.
    pub latency: RangeInclusive<Duration>,
    /// Bytes that a peer takes at once: what is sent and not yet read never exceeds them, and of one that reads a turn takes
    /// no more. Default `None`: any number while it reads, 64 KiB more when it has stopped.
    pub window: Option<usize>,
    /// Settings of datagram sockets. Default as in a real runtime.
    pub udp: UdpOptions,
    /// Datagrams that are longer, in bytes, do not get through: those of far ends are lost, ours are refused. Default 65 507, what
    /// UDP over IPv4 carries.
    pub datagram_bytes_max: usize,
    /// Jobs that may wait for their moment ([`blocking`](crate::blocking)), at least 1. Default as in a real runtime.
    pub blocking_jobs_max: usize,
    /// Wall-clock time at the start, in seconds since 1970. Default 784111777, RFC 9110's example date.
    pub unix_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            faults: Faults::none(),
            budget: Budget::default(),
            limits: ConnLimits::default(),
            workers: 1,
            latency: Duration::ZERO..=Duration::ZERO,
            window: None,
            udp: UdpOptions::default(),
            datagram_bytes_max: 65_507,
            blocking_jobs_max: JOBS_MAX,
            unix_seconds: 784_111_777,
        }
    }
}

impl Options {
    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets [`faults`](Self::faults).
    #[must_use]
    pub fn faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// Sets [`budget`](Self::budget).
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// Sets [`limits`](Self::limits).
    #[must_use]
    pub fn limits(self, limits: ConnLimits) -> Self {
        Self { limits, ..self }
    }

    /// Sets [`workers`](Self::workers).
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Sets [`latency`](Self::latency).
    #[must_use]
    pub fn latency(self, latency: RangeInclusive<Duration>) -> Self {
        Self { latency, ..self }
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn window(self, bytes: usize) -> Self {
        Self { window: Some(bytes), ..self }
    }

    /// Sets [`udp`](Self::udp).
    #[must_use]
    pub fn udp(self, udp: UdpOptions) -> Self {
        Self { udp, ..self }
    }

    /// Sets [`datagram_bytes_max`](Self::datagram_bytes_max).
    #[must_use]
    pub fn datagram_bytes_max(self, datagram_bytes_max: usize) -> Self {
        Self { datagram_bytes_max, ..self }
    }

    /// Sets [`blocking_jobs_max`](Self::blocking_jobs_max).
    #[must_use]
    pub fn blocking_jobs_max(self, blocking_jobs_max: usize) -> Self {
        Self { blocking_jobs_max, ..self }
    }

    /// Sets [`unix_seconds`](Self::unix_seconds).
    #[must_use]
    pub fn unix_seconds(self, unix_seconds: u64) -> Self {
        Self { unix_seconds, ..self }
    }
}
