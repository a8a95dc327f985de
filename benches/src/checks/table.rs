//! The answer: a row per check, as a table for people or as JSON lines for programs.

use serde_json::{Value, json};

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Fail,
    /// Too few undisturbed rounds to say.
    Noisy,
    /// This server does not offer what the check needs.
    Skipped,
}

/// One figure against its bound.
#[derive(Clone, Debug)]
pub struct Row {
    pub check: u8,
    pub what: String,
    /// `None`: not measured.
    pub figure: Option<f64>,
    pub unit: &'static str,
    /// Passed when the figure is at most this, or at least this where `at_least`.
    pub bound: f64,
    pub at_least: bool,
    /// Smallest and largest of the rounds that make the figure.
    pub range: Option<(f64, f64)>,
    pub rounds: Rounds,
    pub note: String,
    /// Set where the figure alone does not decide.
    pub verdict: Option<Verdict>,
}

/// Rounds of a measurement.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rounds {
    pub kept: usize,
    pub dropped: usize,
    /// Highest share of a core that was stolen in a kept round, and in any.
    pub steal_kept: f64,
    pub steal_any: f64,
}

impl Row {
    /// A row without its figure.
    pub fn new(check: u8, what: impl Into<String>, unit: &'static str, bound: f64) -> Self {
        Self {
            check,
            what: what.into(),
            figure: None,
            unit,
            bound,
            at_least: false,
            range: None,
            rounds: Rounds::default(),
            note: String::new(),
            verdict: None,
        }
    }

    pub fn verdict(&self) -> Verdict {
        match (self.verdict, self.figure) {
            (Some(verdict), _) => verdict,
            (None, None) => Verdict::Skipped,
            (None, Some(figure)) if self.at_least == (figure < self.bound) && figure != self.bound => {
                Verdict::Fail
            }
            (None, Some(_)) => Verdict::Pass,
        }
    }

    pub fn print_head() {
        println!(
            "{:>2}  {:<46} {:>10} {:>10}  {:<17} {:>6} {:>7} {:>11}  {:<7} note",
            "#", "check", "figure", "bound", "min..max", "kept", "dropped", "steal/any %", "verdict"
        );
    }

    pub fn print(&self) {
        let figure = self.figure.map_or("-".into(), |figure| format!("{} {}", digits(figure), self.unit));
        let bound =
            format!("{} {} {}", if self.at_least { ">=" } else { "<=" }, digits(self.bound), self.unit);
        let range = self.range.map_or("-".into(), |(min, max)| format!("{}..{}", digits(min), digits(max)));
        let verdict = format!("{:?}", self.verdict()).to_lowercase();
        let rounds = self.rounds;
        let (kept, dropped, steal) = match rounds.kept + rounds.dropped {
            0 => ("-".into(), "-".into(), "-".into()),
            _ => (
                rounds.kept.to_string(),
                rounds.dropped.to_string(),
                format!("{:.1}/{:.1}", rounds.steal_kept * 100.0, rounds.steal_any * 100.0),
            ),
        };
        println!(
            "{:>2}  {:<46} {:>10} {:>10}  {:<17} {:>6} {:>7} {:>11}  {:<7} {}",
            self.check,
            self.what,
            figure.trim(),
            bound.trim(),
            range,
            kept,
            dropped,
            steal,
            verdict,
            self.note
        );
    }

    pub fn to_json(&self) -> Value {
        json!({
            "check": self.check, "what": self.what, "figure": self.figure, "unit": self.unit, "bound": self.bound,
            "at_least": self.at_least, "min": self.range.map(|range| range.0), "max": self.range.map(|range| range.1),
            "kept": self.rounds.kept, "dropped": self.rounds.dropped, "steal_kept": self.rounds.steal_kept,
            "steal_any": self.rounds.steal_any, "verdict": format!("{:?}", self.verdict()).to_lowercase(), "note": self.note,
        })
    }
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Smallest and largest; `None` of nothing.
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    let min = values.iter().copied().reduce(f64::min)?;
    Some((min, values.iter().copied().reduce(f64::max)?))
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (upper + sorted[sorted.len() / 2 - 1]) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 9.0]), Some(4.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_bound_includes_its_own_value_on_both_sides() {
        for (at_least, figure, verdict) in [
            (false, 1.0, Verdict::Pass),
            (false, 1.1, Verdict::Fail),
            (false, 0.9, Verdict::Pass),
            (true, 1.0, Verdict::Pass),
            (true, 0.9, Verdict::Fail),
            (true, 1.1, Verdict::Pass),
        ] {
            let row = Row { figure: Some(figure), at_least, ..Row::new(1, "", "", 1.0) };
            assert_eq!(row.verdict(), verdict, "{row:?}");
        }
    }
}
