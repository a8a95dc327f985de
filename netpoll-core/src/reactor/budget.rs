//! How much one turn may take from the kernel.
//!
//! A budget bounds how long timers, mail and quiet peers wait for their turn. It has two knobs: events
//! taken in one wait, and bytes read from one connection in one turn. The adaptive budget keeps the
//! turn near a target time; it doubles only while waits come back full, halves when a turn took twice
//! the target, and holds still for a few turns after each change.
//!
//! Observing a turn costs a handful of integer operations.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::driver::{Limits, Waited};

/// Weight of the newest turn in the average cost of an event: one eighth, as in TCP's round-trip estimate.
const EWMA_SHIFT: u32 = 3;
/// Turns without a change after a change.
const HYSTERESIS_TURNS: u32 = 8;
/// Full-size reads; see [`Budget::read_bytes`].
const READ_BYTES: usize = 64 * 1024;
/// Peers accepted from one listener in one turn.
const ACCEPTS: usize = 64;
/// Length of the event array, and so the most that a budget can allow.
pub const EVENTS_MAX: usize = 2048;

/// The poll budget: how much work one turn takes before it looks after timers, mail and other peers.
///
/// Default: [`Budget::fixed`] with 64 events, the weight that the Linux kernel gives one NAPI poll
/// (`NAPI_POLL_WEIGHT`), and 64 KiB read from one connection per turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    kind: Kind,
    read_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Fixed(usize),
    Adaptive { range: RangeInclusive<usize>, target: Duration },
}

impl Default for Budget {
    fn default() -> Self {
        Self::fixed(64)
    }
}

impl Budget {
    /// Always the same number of events per turn, from 1 to 2048 (other values are brought into range).
    ///
    /// Fewer means that a timer or a quiet peer waits less behind a burst; more means fewer waits.
    #[must_use]
    pub fn fixed(events: usize) -> Self {
        Self { kind: Kind::Fixed(events.clamp(1, EVENTS_MAX)), read_bytes: READ_BYTES }
    }

    /// Between 8 and 1024 events, chosen so that a turn's work takes about 200 µs.
    #[must_use]
    pub fn adaptive() -> Self {
        Self {
            kind: Kind::Adaptive { range: 8..=1024, target: Duration::from_micros(200) },
            read_bytes: READ_BYTES,
        }
    }

    /// No bound but the event array's 2048: a connection is read, and served, until it is empty.
    ///
    /// One peer that sends faster than it is served then starves all others of its worker. It is here
    /// to show what a budget is for.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { kind: Kind::Fixed(EVENTS_MAX), read_bytes: usize::MAX }
    }

    /// Bytes read from one connection in one turn before others come first. Default 64 KiB, at least 1 KiB.
    #[must_use]
    pub fn read_bytes(mut self, per_connection: usize) -> Self {
        self.read_bytes = per_connection.max(1024);
        self
    }

    /// The time that an adaptive budget aims at for one turn; default 200 µs. No effect on a fixed one.
    #[must_use]
    pub fn turn_target(mut self, time: Duration) -> Self {
        if let Kind::Adaptive { target, .. } = &mut self.kind {
            *target = time.max(Duration::from_micros(1));
        }
        self
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Fixed(_) if self.read_bytes == usize::MAX => out.write_str("unlimited"),
            Kind::Fixed(events) => events.fmt(out),
            Kind::Adaptive { .. } => out.write_str("adaptive"),
        }
    }
}

/// The budget at work in one worker.
pub struct Controller {
    budget: Budget,
    events: usize,
    cost_nanos: u64,
    hold: u32,
}

impl Controller {
    pub fn new(budget: Budget) -> Self {
        let events = match &budget.kind {
            Kind::Fixed(events) => *events,
            Kind::Adaptive { range, .. } => 64.clamp(*range.start(), *range.end()),
        };
        Self { budget, events, cost_nanos: 0, hold: 0 }
    }

    /// What the next turn may take.
    pub fn limits(&self) -> Limits {
        Limits { events: self.events, read_bytes: self.budget.read_bytes, accepts: ACCEPTS }
    }

    /// Events per turn, now.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Messages of one connection that fit a turn.
    pub fn messages(&self) -> usize {
        if self.budget.read_bytes == usize::MAX { usize::MAX } else { self.events }
    }

    /// Learns from a turn whose work took `busy`.
    pub fn observe(&mut self, waited: Waited, busy: Duration) {
        let Kind::Adaptive { range, target } = &self.budget.kind else { return };
        if waited.events == 0 {
            return;
        }
        let cost = busy.as_nanos() as u64 / waited.events as u64;
        self.cost_nanos = if self.cost_nanos == 0 {
            cost
        } else {
            self.cost_nanos - (self.cost_nanos >> EWMA_SHIFT) + (cost >> EWMA_SHIFT)
        };
        if self.hold > 0 {
            self.hold -= 1;
            return;
        }
        let target = target.as_nanos() as u64;
        let full_turn = self.cost_nanos.saturating_mul(self.events as u64);
        let wanted = if busy.as_nanos() as u64 > 2 * target {
            // One slow event in a small batch says nothing about batches: halve the batch that was slow.
            self.events.min(waited.events.max(*range.start())) / 2
        } else if waited.saturated && full_turn < target {
            self.events * 2
        } else {
            return;
        };
        let wanted = wanted.clamp(*range.start(), *range.end());
        if wanted != self.events {
            self.events = wanted;
            self.hold = HYSTERESIS_TURNS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(controller: &mut Controller, count: usize, events: usize, busy: Duration) {
        for _ in 0..count {
            let saturated = events >= controller.events();
            let events = events.min(controller.events());
            controller.observe(Waited { events, saturated }, busy);
        }
    }

    #[test]
    fn a_fixed_budget_never_moves() {
        let mut controller = Controller::new(Budget::fixed(64));
        turns(&mut controller, 100, 5000, Duration::from_millis(50));
        assert_eq!(controller.events(), 64);
    }

    #[test]
    fn cheap_events_in_full_waits_raise_the_budget() {
        let mut controller = Controller::new(Budget::adaptive());
        turns(&mut controller, 100, 5000, Duration::from_micros(20));
        assert_eq!(controller.events(), 1024);
    }

    #[test]
    fn waits_that_are_not_full_leave_it_alone() {
        let mut controller = Controller::new(Budget::adaptive());
        turns(&mut controller, 100, 10, Duration::from_micros(20));
        assert_eq!(controller.events(), 64);
    }

    #[test]
    fn long_turns_lower_it_down_to_the_floor() {
        let mut controller = Controller::new(Budget::adaptive());
        turns(&mut controller, 200, 5000, Duration::from_millis(5));
        assert_eq!(controller.events(), 8);
    }

    #[test]
    fn a_change_is_followed_by_a_rest() {
        let mut controller = Controller::new(Budget::adaptive());
        turns(&mut controller, 1, 5000, Duration::from_micros(1));
        assert_eq!(controller.events(), 128);
        turns(&mut controller, HYSTERESIS_TURNS as usize, 5000, Duration::from_micros(1));
        assert_eq!(controller.events(), 128);
        turns(&mut controller, 1, 5000, Duration::from_micros(1));
        assert_eq!(controller.events(), 256);
    }

    #[test]
    fn values_out_of_range_are_brought_into_range() {
        assert_eq!(Controller::new(Budget::fixed(0)).limits().events, 1);
        assert_eq!(Controller::new(Budget::fixed(1 << 20)).limits().events, EVENTS_MAX);
        assert_eq!(Controller::new(Budget::fixed(9).read_bytes(1)).limits().read_bytes, 1024);
    }
}
