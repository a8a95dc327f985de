//! One thing that was looked at: what was found, whether it hurts, why, and what to do.

use std::fmt;

use serde_json::{Value, json};

/// Whether something hurts. What comes later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Good,
    /// It is so on purpose, or matters to few.
    Note,
    Advice,
    Broken,
}

impl State {
    /// The exit status of a program in which this is the worst.
    pub fn exit(self) -> u8 {
        match self {
            Self::Good | Self::Note => 0,
            Self::Advice => 1,
            Self::Broken => 2,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Advice => "advice",
            Self::Broken => "broken",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub state: State,
    pub found: String,
    /// What follows from it; empty where nothing does.
    pub why: String,
    /// What to type, or where to set it; empty where there is nothing to do.
    pub cure: String,
}

impl Finding {
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), why: String::new(), cure: String::new() }
    }

    /// The same, but it is not good, and that is why.
    pub fn but(self, state: State, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { state, why: why.into(), cure: cure.into(), ..self }
    }

    pub fn to_json(&self, group: &str) -> Value {
        json!({
            "group": group, "name": self.name, "state": self.state.word(), "found": self.found, "why": self.why,
            "do": self.cure,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "  {:<7} {:<30} {}", self.state.word(), self.name, self.found)?;
        if !self.why.is_empty() {
            writeln!(out, "          {}", self.why)?;
        }
        if !self.cure.is_empty() {
            writeln!(out, "          do: {}", self.cure)?;
        }
        Ok(())
    }
}
