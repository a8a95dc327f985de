//! How far the median of the rounds can be believed, without assuming what their noise looks like.

use super::figures::{median, range};
use serde_json::{Value, json};

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle of the rounds.
    pub median: f64,
    /// The ends of the 95 % confidence interval of the median.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The smallest round.
    pub min: f64,
    /// The largest round.
    pub max: f64,
    /// How many there were.
    pub rounds: usize,
}

impl Figure {
    /// Of nothing there is none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let (min, max) = range(values)?;
        let (low, high) = median_interval(values)?;
        Some(Self { median: median(values)?, low, high, min, max, rounds: values.len() })
    }

    /// All of it.
    pub fn to_json(self) -> Value {
        json!({
            "median": self.median, "low": self.low, "high": self.high, "min": self.min, "max": self.max,
            "rounds": self.rounds,
        })
    }

    /// What [`to_json`](Self::to_json) has made; `None` of anything else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let of = |key| value[key].as_f64();
        let rounds = value["rounds"].as_u64()?.try_into().ok()?;
        Some(Self {
            median: of("median")?,
            low: of("low")?,
            high: of("high")?,
            min: of("min")?,
            max: of("max")?,
            rounds,
        })
    }

    /// Whether the interval reaches further than `share` of the median to either side. So it does below six rounds,
    /// of which there is no such interval.
    pub fn is_wider_than(&self, share: f64) -> bool {
        let within = self.median * (1.0 - share)..=self.median * (1.0 + share);
        order_statistic(self.rounds).is_none() || !within.contains(&self.low) || !within.contains(&self.high)
    }
}

/// The 95 % confidence interval of a median, from order statistics: distribution-free. `None` of nothing.
///
/// Each of n independent values lies below the true median with probability 1/2, so how many do is binomial. The k-th
/// smallest and the k-th largest value enclose the median with probability 1 − 2 P(B ≤ k − 1), where B ~ Bin(n, 1/2) and
/// P(B ≤ k − 1) = 2⁻ⁿ Σ(i = 0 .. k − 1) C(n, i); k is the largest for which that is at least 0.95. With 31 rounds
/// these are the 10th and the 22nd, with 61 the 23rd and the 39th. Below six values even the smallest and the largest,
/// which are returned then, enclose it less often. (Conover, "Practical Nonparametric Statistics", section 3.2.)
///
/// Rounds that follow each other are not quite independent: a slow spell hits several. Then the interval is too narrow.
fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let k = order_statistic(sorted.len()).unwrap_or(1);
    Some((*sorted.get(k - 1)?, *sorted.get(sorted.len() - k)?))
}

/// k as above, counted from 1; `None` for fewer than six values.
fn order_statistic(values: usize) -> Option<usize> {
    let n = values as f64;
    // Logarithms, because 2^-n is below the smallest number for a thousand rounds.
    let mut log_of_term = -n * std::f64::consts::LN_2;
    let mut below = 0.0;
    let mut k = 0;
    loop {
        below += log_of_term.exp();
        if below > 0.025 {
            return (k > 0).then_some(k);
        }
        log_of_term += ((n - k as f64) / (k as f64 + 1.0)).ln();
        k += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_takes_the_order_statistics_of_the_tables() {
        // By sums of exact binomial coefficients.
        for (values, k) in [
            (6, 1),
            (8, 1),
            (9, 2),
            (11, 2),
            (12, 3),
            (15, 4),
            (20, 6),
            (25, 8),
            (31, 10),
            (61, 23),
            (100, 40),
        ] {
            assert_eq!(order_statistic(values), Some(k), "{values} values");
        }
        assert_eq!(order_statistic(5), None);
        assert_eq!(order_statistic(0), None);
        assert_eq!(
            order_statistic(4000),
            Some(1938),
            "2000 less 1.96 / 2 times the root of 4000, and no underflow"
        );
    }

    #[test]
    fn the_ends_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=31).rev().map(f64::from).collect();
        let figure = Figure::of(&values).unwrap();
        assert_eq!((figure.low, figure.median, figure.high), (10.0, 16.0, 22.0));
        assert_eq!((figure.min, figure.max, figure.rounds), (1.0, 31.0, 31));
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn one_wild_round_in_ten_does_not_widen_it() {
        let mut values = vec![1.0; 28];
        values.extend([90.0, 95.0, 99.0]);
        assert!(!Figure::of(&values).unwrap().is_wider_than(0.0));
    }

    #[test]
    fn an_interval_is_too_wide_when_it_leaves_its_share_on_either_side() {
        let of = |low, high| Figure { median: 1.0, low, high, min: 0.0, max: 9.0, rounds: 31 };
        assert!(!of(0.96, 1.04).is_wider_than(0.05));
        assert!(of(0.94, 1.0).is_wider_than(0.05));
        assert!(of(1.0, 1.06).is_wider_than(0.05));
        assert!(Figure { rounds: 5, ..of(1.0, 1.0) }.is_wider_than(0.05), "five rounds have none");
    }
}
