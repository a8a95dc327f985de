//! The clock of one worker, read once a turn.
//!
//! Between two refreshes time stands still: everything that happens in one turn happens at the same
//! instant, and asking for it is a load. The only place that reads `CLOCK_MONOTONIC` or the wall clock.
//!
//! Invariant: `now` never goes back. Touched by its worker only. A refresh is one vDSO call (two when a
//! second of the wall clock has ended).

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::sys;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point in time: nanoseconds since the runtime, or the simulated world, was made.
///
/// Instants of all workers of one runtime can be compared, those of two runtimes cannot. The range is 584 years. Arithmetic
/// saturates, as the methods do: `+` at [`MAX`](Self::MAX), `-` at [`ZERO`](Self::ZERO), the difference of two at zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// When the clock was made.
    pub const ZERO: Instant = Instant(0);

    /// The last instant there is, for "never".
    pub const MAX: Instant = Instant(u64::MAX);

    /// This many nanoseconds after the clock was made.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock was made.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the clock was made, rounded down.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The instant `after` later, or [`Instant::MAX`] if that is out of range.
    #[inline]
    pub const fn saturating_add(self, after: Duration) -> Self {
        let nanos =
            after.as_secs().saturating_mul(NANOS_PER_SECOND).saturating_add(after.subsec_nanos() as u64);
        Self(self.0.saturating_add(nanos))
    }

    /// The first multiple of the period behind this that is later than `now`.
    ///
    /// # Panics
    /// If the period is zero.
    pub(crate) fn next_tick(self, period: Duration, now: Instant) -> Self {
        let periods = now.duration_since(self).as_nanos() / period.as_nanos() + 1;
        let after = periods.saturating_mul(period.as_nanos());
        Self(self.0.saturating_add(u64::try_from(after).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    #[inline]
    pub const fn duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn add(self, after: Duration) -> Self {
        self.saturating_add(after)
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, after: Duration) {
        *self = *self + after;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn sub(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(Self::ZERO.saturating_add(before).0))
    }
}

impl SubAssign<Duration> for Instant {
    #[inline]
    fn sub_assign(&mut self, before: Duration) {
        *self = *self - before;
    }
}

impl Sub for Instant {
    type Output = Duration;

    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Where a worker gets the time from. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Instant,
    /// The wall clock at `now`.
    unix_seconds: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Monotonic {
        /// The kernel's clock at [`Instant::ZERO`], in nanoseconds.
        base: u64,
        /// When `unix_seconds` is to be read again: the wall clock's next full second.
        next_second: Instant,
    },
    Manual {
        start_unix_seconds: u64,
        /// The latest time of all clones, for readers.
        latest: Arc<AtomicU64>,
    },
}

impl Clock {
    /// The system's monotonic clock. Starts at [`Instant::ZERO`].
    pub fn monotonic() -> Self {
        let source = Source::Monotonic { base: sys::monotonic_nanos(), next_second: Instant::ZERO };
        let mut clock = Self { now: Instant::ZERO, unix_seconds: 0, source };
        clock.refresh();
        clock
    }

    /// A clock that stands still until [`Clock::advance`] moves it. Starts at [`Instant::ZERO`], when the
    /// wall clock shows `start_unix_seconds`.
    pub fn manual(start_unix_seconds: u64) -> Self {
        let source = Source::Manual { start_unix_seconds, latest: Arc::default() };
        Self { now: Instant::ZERO, unix_seconds: start_unix_seconds, source }
    }

    /// The instant of the last refresh. A load.
    #[inline]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock at the last refresh: whole seconds since 1970, for the `Date` header. A load.
    ///
    /// It is read again whenever one of its seconds has ended, so a step of the wall clock shows up within
    /// a second; unlike [`Clock::now`] it may go back then. Zero if the wall clock shows a time before 1970.
    #[inline]
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }

    /// Reads the clock and returns the new [`Clock::now`]. A manual clock stays where it is.
    #[inline]
    pub fn refresh(&mut self) -> Instant {
        if let Source::Monotonic { base, next_second } = &mut self.source {
            self.now = self.now.max(since(*base));
            if self.now >= *next_second {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.unix_seconds = wall.as_secs();
                *next_second = self.now.saturating_add(until_next_second(wall));
            }
        }
        self.now
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// If the clock is the system's.
    pub fn advance(&mut self, by: Duration) {
        let Source::Manual { start_unix_seconds, latest } = &self.source else {
            panic!("only a manual clock can be moved");
        };
        self.now = self.now.saturating_add(by);
        self.unix_seconds = start_unix_seconds.saturating_add(self.now.as_nanos() / NANOS_PER_SECOND);
        latest.fetch_max(self.now.0, Ordering::Relaxed);
    }

    /// A way to read this clock's source from any thread, at any time.
    pub fn reader(&self) -> ClockReader {
        ClockReader(match &self.source {
            Source::Monotonic { base, .. } => Reading::Monotonic(*base),
            Source::Manual { latest, .. } => Reading::Manual(Arc::clone(latest)),
        })
    }
}

/// Reads the time of a [`Clock`] and its clones, on any thread.
#[derive(Clone, Debug)]
pub struct ClockReader(Reading);

#[derive(Clone, Debug)]
enum Reading {
    Monotonic(u64),
    Manual(Arc<AtomicU64>),
}

impl ClockReader {
    /// The time now: never before what a clone of the clock has shown. One vDSO call.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Reading::Monotonic(base) => since(*base),
            Reading::Manual(latest) => Instant(latest.load(Ordering::Relaxed)),
        }
    }

    /// The time now as `std` has it. For a clock that is moved by hand it is counted from a moment of this process that stays the
    /// same.
    pub fn std_now(&self) -> StdInstant {
        match &self.0 {
            Reading::Monotonic(_) => StdInstant::now(),
            Reading::Manual(_) => {
                let since = Duration::from_nanos(self.now().as_nanos());
                manual_zero().checked_add(since).unwrap_or_else(manual_zero)
            }
        }
    }

    /// What an instant of `std` is on this clock: now, if it has passed.
    pub fn of_std(&self, instant: StdInstant) -> Instant {
        // In this order, so that it is rather later than earlier.
        let left = instant.saturating_duration_since(self.std_now());
        self.now().saturating_add(left)
    }
}

/// What clocks that are moved by hand begin with for `std`.
fn manual_zero() -> StdInstant {
    static ZERO: OnceLock<StdInstant> = OnceLock::new();
    *ZERO.get_or_init(StdInstant::now)
}

/// The time since the kernel's clock showed `base`.
#[inline]
fn since(base: u64) -> Instant {
    Instant(sys::monotonic_nanos().saturating_sub(base))
}

/// From `wall`, the time since 1970, to its next full second. More than zero.
const fn until_next_second(wall: Duration) -> Duration {
    Duration::from_nanos(NANOS_PER_SECOND - wall.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_between_refreshes() {
        let mut clock = Clock::monotonic();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        let mut last = before;
        for _ in 0..1000 {
            let now = clock.refresh();
            assert!(now >= last && now == clock.now());
            last = now;
        }
        assert!(last > before);
    }

    #[test]
    fn a_monotonic_clock_shows_the_wall_clocks_second() {
        let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (before, clock, after) = (seconds(), Clock::monotonic(), seconds());
        assert!((before..=after).contains(&clock.unix_seconds()));
    }

    #[test]
    fn the_wall_clock_is_read_again_at_its_next_full_second() {
        assert_eq!(until_next_second(Duration::new(5, 999_999_999)), Duration::from_nanos(1));
        assert_eq!(until_next_second(Duration::new(5, 0)), Duration::from_secs(1));
    }

    #[test]
    fn a_second_that_has_ended_is_not_shown_again() {
        let mut clock = Clock::monotonic();
        clock.unix_seconds = 7;
        let Source::Monotonic { next_second, .. } = &mut clock.source else { panic!("made monotonic") };
        *next_second = Instant::ZERO;
        clock.refresh();
        assert!(clock.unix_seconds() > 1_500_000_000, "read from the wall clock");
    }

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let mut clock = Clock::manual(1000);
        assert_eq!((clock.refresh(), clock.unix_seconds()), (Instant::ZERO, 1000));
        clock.advance(Duration::from_millis(1999));
        assert_eq!((clock.now().as_millis(), clock.unix_seconds()), (1999, 1001));
        clock.advance(Duration::from_millis(1));
        assert_eq!((clock.refresh().as_nanos(), clock.unix_seconds()), (2_000_000_000, 1002));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Instant::MAX);
    }

    #[test]
    #[should_panic = "only a manual clock can be moved"]
    fn the_systems_clock_cannot_be_moved() {
        Clock::monotonic().advance(Duration::ZERO);
    }

    #[test]
    fn a_reader_shows_the_time_of_all_clones() {
        let mut clock = Clock::monotonic();
        let reader = clock.reader();
        let read = reader.now();
        assert!(clock.refresh() >= read && reader.now() >= clock.now());

        let mut clock = Clock::manual(0);
        let (mut clone, reader) = (clock.clone(), clock.reader());
        clone.advance(Duration::from_secs(2));
        assert_eq!(reader.now(), clone.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(reader.now(), clone.now(), "the latest");
    }

    #[test]
    fn instants_of_std_are_told_from_both_kinds_of_clock() {
        let hour = Duration::from_secs(3600);
        let mut clock = Clock::manual(0);
        let reader = clock.reader();
        let begun = reader.std_now();
        assert_eq!(reader.of_std(begun + hour), Instant::ZERO + hour);
        clock.advance(hour);
        assert_eq!((reader.std_now() - begun, reader.of_std(begun)), (hour, reader.now()), "passed: now");
        clock.advance(Duration::MAX);
        // Behind what `std` can count it is some time or other.
        let _ = reader.std_now();

        let reader = Clock::monotonic().reader();
        let before = reader.now();
        let told = reader.of_std(StdInstant::now() + hour);
        assert!(told >= before + hour && told <= reader.now() + hour);
    }

    #[test]
    fn instants_saturate() {
        let (early, late) = (Instant::from_nanos(5), Instant::from_nanos(12));
        assert_eq!(late.duration_since(early), Duration::from_nanos(7));
        assert_eq!(early.duration_since(late), Duration::ZERO);
        assert_eq!(early.saturating_add(Duration::from_nanos(7)), late);
        assert_eq!(late.saturating_add(Duration::MAX), Instant::MAX);
        assert_eq!((late - early, early - late), (Duration::from_nanos(7), Duration::ZERO));
        assert_eq!((early + (late - early), late - (late - early)), (late, early));
        assert_eq!((late + Duration::MAX, late - Duration::MAX), (Instant::MAX, Instant::ZERO));
        let mut moved = early;
        moved += Duration::from_nanos(7);
        assert_eq!(moved, late);
        moved -= Duration::from_nanos(7);
        assert_eq!(moved, early);
    }

    #[test]
    fn missed_ticks_are_left_out_and_the_rhythm_stays() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let period = Duration::from_millis(10);
        assert_eq!(at(10).next_tick(period, at(10)), at(20));
        assert_eq!(at(10).next_tick(period, at(19)), at(20));
        assert_eq!(at(10).next_tick(period, at(20)), at(30), "later than now");
        assert_eq!(at(10).next_tick(period, at(1_234)), at(1_240));
        assert_eq!(at(10).next_tick(Duration::MAX, at(10)), Instant::MAX);
        assert_eq!(at(10).next_tick(Duration::from_nanos(1), at(11)), Instant::from_nanos(11_000_001));
    }
}
