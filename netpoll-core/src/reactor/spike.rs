//! When memory that a spike has taken can go back.
//!
//! Tables, lists and the allocator keep what they once needed, because it is likely to be needed again. After an attack, or a
//! burst that comes once a day, it is not. Invariant: a spike is over once; what is given back then is not looked at again
//! before another one.

use std::time::Duration;

use crate::clockwork::Instant;

/// Less than this is not worth the time that giving back takes.
const SPIKE_BYTES: usize = 8 << 20;
/// What a connection without buffers takes, in the tables of a worker and with its protocol.
const CONNECTION_BYTES: usize = 512;
/// Giving back takes milliseconds: memory that comes and goes by the second is kept.
const REST: Duration = Duration::from_secs(1);

/// The most that was in use since memory was last given back.
#[derive(Debug, Default)]
pub struct Spike {
    peak_bytes: usize,
    rests_until: Instant,
}

impl Spike {
    /// How long nothing goes back behind the end of one.
    pub fn rest(&self) -> Duration {
        REST
    }

    /// What is in use now. True once when it is less than a quarter of what it was.
    #[inline]
    pub fn is_over(&mut self, in_use_bytes: usize, connections: u64, now: Instant) -> bool {
        let bytes = in_use_bytes + connections as usize * CONNECTION_BYTES;
        if bytes >= self.peak_bytes {
            self.peak_bytes = bytes;
            return false;
        }
        if self.peak_bytes < SPIKE_BYTES || bytes > self.peak_bytes / 4 || now < self.rests_until {
            return false;
        }
        self.peak_bytes = bytes;
        self.rests_until = now.saturating_add(REST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_spike_is_over_once_when_a_quarter_of_it_is_left() {
        let (mut spike, now) = (Spike::default(), Instant::ZERO);
        for (bytes, is_over) in [(100, false), (400, false), (101, false), (99, true), (20, false), (0, true)]
        {
            // A rest lies between two of them.
            let now = now.saturating_add(REST * bytes as u32);
            assert_eq!(spike.is_over(bytes * MIB, 0, now), is_over && bytes != 0, "{bytes} MiB");
            let _ = now;
        }
    }

    #[test]
    fn little_is_kept_and_so_is_what_comes_and_goes_within_a_second() {
        let (mut spike, mut now) = (Spike::default(), Instant::ZERO);
        assert!(!spike.is_over(7 * MIB, 0, now) && !spike.is_over(0, 0, now));
        assert!(!spike.is_over(100 * MIB, 0, now) && spike.is_over(0, 0, now));
        assert!(!spike.is_over(100 * MIB, 0, now) && !spike.is_over(0, 0, now), "it rests");
        now = now.saturating_add(REST);
        assert!(spike.is_over(0, 0, now), "and then it is over");
    }

    #[test]
    fn connections_count_as_well() {
        let (mut spike, now) = (Spike::default(), Instant::ZERO);
        assert!(!spike.is_over(0, 100_000, now) && spike.is_over(0, 10, now));
    }
}
