//! Counts of latencies: steps of 1 µs up to 0.1 s, then of 1 ms up to 60 s. 0.6 MB, of which few lines are hot.

use std::time::Duration;

const FINE_US: u64 = 100_000;
const COARSE_MS: u64 = 60_000;

/// How often each latency occurred.
pub struct Histogram {
    fine: Vec<u64>,
    coarse: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let zeroes = |length| vec![0; usize::try_from(length).expect("fits")];
        Self { fine: zeroes(FINE_US), coarse: zeroes(COARSE_MS + 1), count: 0, max: Duration::ZERO }
    }

    /// Counts `latency` for `answers` answers.
    pub fn record(&mut self, latency: Duration, answers: u64) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let index = |value| usize::try_from(value).expect("within the table");
        match us < FINE_US {
            true => self.fine[index(us)] += answers,
            false => self.coarse[index((us / 1000).min(COARSE_MS))] += answers,
        }
        self.count += answers;
        self.max = self.max.max(latency);
    }

    /// The latency in µs that the share `part` (0 to 1) of all answers did not exceed.
    pub fn percentile(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let fine = self.fine.iter().zip(0..);
        let coarse = self.coarse.iter().zip((0..).map(|ms| ms * 1000));
        let mut seen = 0;
        for (count, us) in fine.chain(coarse) {
            seen += count;
            if seen >= wanted {
                return us;
            }
        }
        self.max_us()
    }

    /// The longest latency in µs.
    pub fn max_us(&self) -> u64 {
        u64::try_from(self.max.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_below_a_tenth_of_a_second() {
        let mut histogram = Histogram::new();
        for us in 1..=100 {
            histogram.record(Duration::from_micros(us), 1);
        }
        histogram.record(Duration::from_secs(2), 1);
        assert_eq!(histogram.percentile(0.5), 51);
        assert_eq!(histogram.percentile(0.99), 100);
        assert_eq!(histogram.percentile(1.0), 2_000_000);
        assert_eq!(histogram.max_us(), 2_000_000);
    }
}
