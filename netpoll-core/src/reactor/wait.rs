//! What a worker does when it has nothing to do: sleep, look again, or spin for a moment.
//!
//! Spinning buys latency with a core. It is bounded by time, and the hybrid strategy has to earn it:
//! after three spins that brought nothing it sleeps for a growing number of turns before it tries again.
//! Whoever may not spin (one CPU, a CPU quota, more workers than cores) is given [`WaitStrategy::Block`].

use std::time::Duration;

use crate::clockwork::Instant;

/// The longest spin, and the default: past this, sleeping costs less than a core's time
/// (libuv#5233 measured at most 2 % more CPU with a window of 10 µs, and 67 % with 50 µs).
pub const SPIN_MAX: Duration = Duration::from_micros(10);
/// Unpaid spins in a row after which the hybrid strategy stops spinning for a while.
const PATIENCE: u32 = 3;
/// Longest pause between attempts, in sleeps.
const PAUSE_MAX: u32 = 1024;

/// How a worker waits for events when it has no work.
///
/// Default [`WaitStrategy::Block`]. On loopback, where client and server share the machine, polling
/// took 10 to 50 % more CPU per request and gave no throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitStrategy {
    /// Sleep in the kernel at once.
    #[default]
    Block,
    /// Keep looking for up to this long after the last event, then sleep. At most [`SPIN_MAX`], 10 µs; more is an
    /// error of [`Builder::start`](crate::Builder::start).
    Spin(Duration),
    /// Look once more after a turn that had events; spin only while recent spins paid off.
    Hybrid,
    /// Sleep, and let the kernel poll the network card for a while before it gives up the core
    /// (`EPIOCSPARAMS`, for io_uring `IORING_REGISTER_NAPI`; Linux 6.9). It has no effect on loopback, which has no card to poll.
    KernelBusyPoll {
        /// Microseconds of polling.
        usecs: u32,
        /// Packets per poll; above 64 needs `CAP_NET_ADMIN`. With io_uring it is eight, whatever is asked.
        budget: u16,
        /// Prefer polling to interrupts (`SO_PREFER_BUSY_POLL`).
        prefer: bool,
    },
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Sleep,
    Look,
}

/// A strategy at work in one worker.
pub struct Waiting {
    strategy: WaitStrategy,
    last_event: Instant,
    looked: bool,
    spinning: bool,
    unpaid: u32,
    pause: u32,
    pause_left: u32,
    /// Spins that an event ended.
    pub paid_count: u64,
    /// Spins that ended in sleep.
    pub unpaid_count: u64,
}

impl Waiting {
    pub fn new(strategy: WaitStrategy) -> Self {
        let strategy = match strategy {
            WaitStrategy::Spin(time) => WaitStrategy::Spin(time.min(SPIN_MAX)),
            other => other,
        };
        Self {
            strategy,
            last_event: Instant::ZERO,
            looked: false,
            spinning: false,
            unpaid: 0,
            pause: 1,
            pause_left: 0,
            paid_count: 0,
            unpaid_count: 0,
        }
    }

    /// Asked when no work is left.
    pub fn decide(&mut self, now: Instant) -> Decision {
        let window = match self.strategy {
            WaitStrategy::Block | WaitStrategy::KernelBusyPoll { .. } => return Decision::Sleep,
            WaitStrategy::Spin(window) => window,
            WaitStrategy::Hybrid if !self.looked => {
                self.looked = true;
                return Decision::Look;
            }
            WaitStrategy::Hybrid if self.pause_left > 0 => Duration::ZERO,
            WaitStrategy::Hybrid => SPIN_MAX,
        };
        if now.duration_since(self.last_event) < window {
            self.spinning = true;
            return Decision::Look;
        }
        if self.spinning {
            self.spinning = false;
            self.unpaid_count += 1;
            self.unpaid += 1;
            if self.unpaid >= PATIENCE {
                self.pause_left = self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        } else {
            self.pause_left = self.pause_left.saturating_sub(1);
        }
        Decision::Sleep
    }

    /// Learns what a wait brought.
    pub fn observe(&mut self, now: Instant, events: usize) {
        if events == 0 {
            return;
        }
        self.last_event = now;
        self.looked = false;
        if self.spinning {
            self.spinning = false;
            self.paid_count += 1;
            self.unpaid = 0;
            self.pause = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::ZERO.saturating_add(Duration::from_micros(micros))
    }

    #[test]
    fn blocking_sleeps_at_once() {
        let mut waiting = Waiting::new(WaitStrategy::Block);
        waiting.observe(at(1), 1);
        assert_eq!(waiting.decide(at(1)), Decision::Sleep);
    }

    #[test]
    fn spinning_looks_for_its_window_and_then_sleeps() {
        let mut waiting = Waiting::new(WaitStrategy::Spin(Duration::from_micros(5)));
        waiting.observe(at(100), 1);
        assert_eq!(waiting.decide(at(104)), Decision::Look);
        assert_eq!(waiting.decide(at(105)), Decision::Sleep);
        assert_eq!(waiting.unpaid_count, 1);
    }

    #[test]
    fn a_spin_is_never_longer_than_ten_microseconds() {
        let mut waiting = Waiting::new(WaitStrategy::Spin(Duration::from_secs(1)));
        waiting.observe(at(100), 1);
        assert_eq!(waiting.decide(at(110)), Decision::Sleep);
    }

    #[test]
    fn hybrid_looks_once_more_after_every_turn_with_events() {
        let mut waiting = Waiting::new(WaitStrategy::Hybrid);
        for turn in 0..50 {
            waiting.observe(at(turn * 1000), 1);
            assert_eq!(waiting.decide(at(turn * 1000)), Decision::Look);
            while waiting.decide(at(turn * 1000 + 500)) == Decision::Look {}
        }
    }

    #[test]
    fn hybrid_stops_spinning_when_spins_do_not_pay() {
        let mut waiting = Waiting::new(WaitStrategy::Hybrid);
        for turn in 0..1000 {
            let start = turn * 1000;
            waiting.observe(at(start), 1);
            waiting.decide(at(start));
            waiting.decide(at(start + 1));
            waiting.decide(at(start + 20));
        }
        assert!(waiting.unpaid_count < 20, "{} spins for nothing", waiting.unpaid_count);
    }

    #[test]
    fn a_spin_that_pays_brings_spinning_back() {
        let mut waiting = Waiting::new(WaitStrategy::Hybrid);
        for turn in 0..200 {
            let start = turn * 1000;
            waiting.observe(at(start), 1);
            waiting.decide(at(start));
            waiting.decide(at(start + 1));
            waiting.observe(at(start + 3), 1);
        }
        assert_eq!((waiting.paid_count, waiting.unpaid_count), (200, 0));
    }
}
