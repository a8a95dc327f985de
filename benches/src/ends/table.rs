//! The answer: a row for each check, with the exact count and what it may be.

use std::fmt;

/// What a count may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    AtMost(u64),
    AtLeast(u64),
    /// Nothing is promised; the count is there to be read.
    Shown,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(0) => f.pad("0"),
            Self::AtMost(count) => f.pad(&format!("<= {count}")),
            Self::AtLeast(count) => f.pad(&format!(">= {count}")),
            Self::Shown => f.pad("-"),
        }
    }
}

/// One count against its target.
#[derive(Clone, Debug)]
pub struct Row {
    pub part: &'static str,
    pub what: String,
    pub count: u64,
    pub unit: &'static str,
    pub target: Target,
    pub note: String,
}

impl Row {
    pub fn new(part: &'static str, what: impl Into<String>, count: u64, target: Target) -> Self {
        Self { part, what: what.into(), count, unit: "", target, note: String::new() }
    }

    pub fn noting(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    pub fn holds(&self) -> bool {
        match self.target {
            Target::AtMost(most) => self.count <= most,
            Target::AtLeast(least) => self.count >= least,
            Target::Shown => true,
        }
    }

    pub fn print_head() {
        println!("{:<8} {:<68} {:>9} {:>9}  {:<6} note", "part", "check", "count", "target", "");
    }

    /// The row as it is printed.
    pub fn line(&self) -> String {
        let verdict = match (self.target, self.holds()) {
            (Target::Shown, _) => "",
            (_, true) => "ok",
            (_, false) => "FAILED",
        };
        let count = format!("{} {}", self.count, self.unit);
        let line = format!(
            "{:<8} {:<68} {:>9} {:>9}  {verdict:<6} {}",
            self.part,
            self.what,
            count.trim(),
            self.target,
            self.note
        );
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_includes_its_own_value() {
        let holds = |count, target| Row::new("", "", count, target).holds();
        assert!(holds(0, Target::AtMost(0)) && !holds(1, Target::AtMost(0)));
        assert!(holds(150, Target::AtLeast(150)) && !holds(149, Target::AtLeast(150)));
        assert!(holds(7, Target::Shown));
    }
}
