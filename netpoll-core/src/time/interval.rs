//! Points in time at even distances.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::sleep::{Sleep, sleep_until};
use crate::clockwork::Instant;
use crate::task;

/// What an [`Interval`] does about ticks that nobody waited for in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedTicks {
    /// Leaves them out: the next one comes at the next multiple of the period. The rhythm stays. As
    /// [`Builder::every`](crate::Builder::every) does.
    #[default]
    Skip,
    /// Brings them all, one behind the other, until it has caught up. The count stays.
    Burst,
    /// Counts the period from when the late one was taken. The distance stays.
    Delay,
}

/// Ticks, a period apart. [`tick`](Self::tick) waits for the next.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
    missed: MissedTicks,
}

/// Ticks from now on, the first at once.
///
/// # Panics
/// If the period is zero; on a thread that is no worker.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(task::current("`interval`").now(), period)
}

/// Ticks whose first is at `start`.
///
/// # Panics
/// If the period is zero.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "the period of an interval is above zero");
    Interval { sleep: sleep_until(start), period, missed: MissedTicks::default() }
}

impl Interval {
    /// What to do about ticks that were missed.
    #[must_use]
    pub fn missed_ticks(mut self, missed: MissedTicks) -> Self {
        self.missed = missed;
        self
    }

    /// Waits for the next tick, and tells when it was due. Cancel-safe: a tick that nobody got comes again.
    ///
    /// # Panics
    /// On a thread that is no worker.
    pub async fn tick(&mut self) -> Instant {
        std::future::poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// The same as a poll.
    ///
    /// # Panics
    /// On a thread that is no worker.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        if Pin::new(&mut self.sleep).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let due = self.sleep.deadline();
        let now = task::current("the poll of an `Interval`").now();
        self.sleep.reset(next(due, self.period, now, self.missed));
        Poll::Ready(due)
    }

    /// Begins anew: the next tick comes a period from now.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn reset(&mut self) {
        let now = task::current("`Interval::reset`").now();
        self.sleep.reset(now.saturating_add(self.period));
    }

    /// The distance of two ticks.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }
}

/// When the tick behind that of `due` is, which was taken `now`.
fn next(due: Instant, period: Duration, now: Instant, missed: MissedTicks) -> Instant {
    let on_time = due.saturating_add(period);
    match missed {
        _ if on_time > now => on_time,
        MissedTicks::Burst => on_time,
        MissedTicks::Delay => now.saturating_add(period),
        MissedTicks::Skip => due.next_tick(period, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_left_out_or_brought_or_moves_the_rest() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let period = Duration::from_millis(10);
        for missed in [MissedTicks::Skip, MissedTicks::Burst, MissedTicks::Delay] {
            assert_eq!(next(at(10), period, at(10), missed), at(20));
            assert_eq!(next(at(10), period, at(19), missed), at(20));
        }
        assert_eq!(next(at(10), period, at(47), MissedTicks::Skip), at(50));
        assert_eq!(next(at(10), period, at(50), MissedTicks::Skip), at(60), "later than now");
        assert_eq!(next(at(10), period, at(47), MissedTicks::Burst), at(20));
        assert_eq!(next(at(10), period, at(47), MissedTicks::Delay), at(57));
        assert_eq!(next(at(10), Duration::MAX, at(10), MissedTicks::Skip), Instant::MAX);
    }
}
