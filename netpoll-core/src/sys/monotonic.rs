//! The kernel's monotonic clock, as nanoseconds.
//!
//! `std` reads the same clock, and takes 60 instructions more to check and subtract what it has read: a turn asks twice.

use super::system::MONOTONIC;

/// Nanoseconds of `CLOCK_MONOTONIC`: since the system started, suspended time not included. One vDSO call.
///
/// # Panics
/// The kernel has no such clock. Every system here has it.
#[inline]
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills the timespec that it is given, a local. (test: `the_clock_is_that_of_std`)
    let returned = unsafe { libc::clock_gettime(MONOTONIC, &raw mut now) };
    assert!(returned == 0, "no monotonic clock");
    // Neither is negative: the clock starts at zero (clock_gettime(2)), and has room for 584 years here.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_clock_is_that_of_std() {
        let (began, first) = (Instant::now(), monotonic_nanos());
        let (between, second) = (Instant::now(), monotonic_nanos());
        let third = Instant::now();
        let passed = u128::from(second - first);
        assert!(passed <= (third - began).as_nanos(), "{passed}");
        assert!(first <= second && began <= between);
    }

    #[test]
    fn the_clock_goes_on() {
        let first = monotonic_nanos();
        while monotonic_nanos() == first {}
        assert!(monotonic_nanos() > first);
    }
}
