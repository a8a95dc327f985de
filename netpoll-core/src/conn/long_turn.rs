//! Which call made a turn long.
//!
//! A turn reads the clock twice, so that a long one is noticed when it is over, and nobody knows who it was. What takes long once
//! does so again: behind a long turn the worker reads the clock after every call into the program, for a while, and the next
//! long turn has a name. Invariants: as long as no turn is long none of this costs more than a look at a bit for each call; and
//! however many are, as on a virtual machine whose CPUs are taken away all the time, no more than a share of the calls is timed.

use std::fmt;
use std::panic::Location;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::{ConnId, DatagramId};
use crate::clockwork::Instant;

/// How long calls are timed behind a long turn.
const WATCH: Duration = Duration::from_secs(60);

/// How many calls are timed in a second, and the rest of the turn in which they were that many. A reading of the clock and its note take
/// 50 to 100 ns: 0.2 to 0.4 % of the worker's time at most. So one with few calls has all of them timed, and one with a million a second
/// one in twenty-five.
const LAPS_PER_SECOND: usize = 40_000;

/// A turn of a worker whose work took at least [`Builder::long_turn`](crate::Builder::long_turn).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LongTurn {
    /// When it was noticed, which is when its work had ended.
    pub at: Instant,
    /// How long its work took.
    pub took: Duration,
    /// The longest call in it. `None` for the first long turn in a minute: only behind one are calls timed. Nor has one a name for which a busy
    /// worker took no times, which it does for 40 000 calls a second, so that this costs less than half a percent.
    pub longest: Option<LongCall>,
}

/// A call of a worker into the program, with what the worker itself did for it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LongCall {
    /// How long it took.
    pub took: Duration,
    /// What was called.
    pub callee: Callee,
}

/// What a worker calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Callee {
    /// A callback of a connection.
    Connection(ConnId),
    /// One of a datagram socket.
    Datagrams(DatagramId),
    /// The poll of a task that was spawned there.
    Task(&'static Location<'static>),
    /// A timer, code that was handed to the worker, or the accept function of a listener.
    Code,
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(id) => write!(f, "{id:?}"),
            Self::Datagrams(id) => write!(f, "{id:?}"),
            Self::Task(place) => write!(f, "the task spawned at {place}"),
            Self::Code => f.write_str("a timer, code for this worker, or an accept function"),
        }
    }
}

impl fmt::Display for LongTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a turn took {:.1?}", self.took)?;
        match &self.longest {
            Some(call) => write!(f, ", {:.1?} of it {}", call.took, call.callee),
            None => Ok(()),
        }
    }
}

/// The last long turn of a worker, for whoever asks.
#[derive(Default)]
pub struct LastLongTurn(Mutex<Option<LongTurn>>);

impl LastLongTurn {
    pub fn set(&self, turn: LongTurn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }

    pub fn get(&self) -> Option<LongTurn> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The times of calls, while they are taken.
#[derive(Default)]
pub struct Watch {
    /// A turn was long lately.
    is_alert: bool,
    /// Calls of this turn are timed. Then it is alert.
    is_on: bool,
    ends: Instant,
    /// How many calls may still be timed until then.
    laps_left: usize,
    more_laps_at: Instant,
    /// When the last call had returned.
    lap: Instant,
    longest: Option<LongCall>,
}

impl Watch {
    /// Whether calls of this turn are timed.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether calls of the turn that begins may be.
    #[inline]
    pub fn is_alert(&self) -> bool {
        self.is_alert
    }

    /// The work of a turn begins.
    pub fn begin(&mut self, now: Instant) {
        self.is_alert = now < self.ends;
        if now >= self.more_laps_at {
            (self.laps_left, self.more_laps_at) =
                (LAPS_PER_SECOND, now.saturating_add(Duration::from_secs(1)));
        }
        self.is_on = self.is_alert && self.laps_left > 0;
        (self.lap, self.longest) = (now, None);
    }

    /// What was done last was no call.
    pub fn resume(&mut self, now: Instant) {
        self.lap = now;
    }

    /// A call has returned.
    pub fn lap(&mut self, now: Instant, callee: Callee) {
        self.laps_left = self.laps_left.saturating_sub(1);
        let took = now.duration_since(std::mem::replace(&mut self.lap, now));
        if self.longest.is_none_or(|longest| took > longest.took) {
            self.longest = Some(LongCall { took, callee });
        }
    }

    /// A turn was long: the longest call in it, if they were timed. From here on they are.
    pub fn was_long(&mut self, now: Instant) -> Option<LongCall> {
        let longest = self.longest.take();
        self.ends = now.saturating_add(WATCH);
        self.begin(now);
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO.saturating_add(Duration::from_millis(millis))
    }

    /// Turns of a millisecond with so many calls each, and how many of these were timed.
    fn timed(watch: &mut Watch, turns: std::ops::Range<u64>, calls: usize) -> usize {
        let mut timed = 0;
        for turn in turns {
            if watch.is_alert() {
                watch.begin(at(turn));
            }
            for _ in 0..calls {
                if watch.is_on() {
                    watch.lap(at(turn), Callee::Code);
                    timed += 1;
                }
            }
        }
        timed
    }

    #[test]
    fn of_many_calls_behind_a_long_turn_a_few_are_timed_and_of_few_all_for_a_minute() {
        let mut watch = Watch::default();
        assert_eq!(timed(&mut watch, 0..1000, 1000), 0, "no turn was long");
        watch.was_long(at(1000));
        let seconds = timed(&mut watch, 1000..11_000, 1000);
        assert_eq!(seconds, 10 * LAPS_PER_SECOND);
        watch.was_long(at(11_000));
        assert_eq!(timed(&mut watch, 11_000..71_000, 30), 60_000 * 30);
        assert_eq!(timed(&mut watch, 71_000..72_000, 30), 0);
    }

    #[test]
    fn turns_that_are_always_long_have_no_more_calls_timed() {
        let mut watch = Watch::default();
        let mut timed_calls = 0;
        for turn in 0..100 {
            watch.was_long(at(turn * 10));
            timed_calls += timed(&mut watch, turn * 10..turn * 10 + 10, 1000);
        }
        assert!(timed_calls <= LAPS_PER_SECOND + 1000, "{timed_calls} in a second");
    }
}
