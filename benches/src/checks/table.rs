//! The answer: a row per check, as a table for people or as JSON lines for programs.

use benches::runner::{Rounds, digits};
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

#[cfg(test)]
mod tests {
    use super::*;

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
