//! Budgets and wait strategies as words, for command lines and configuration files.

use std::fmt;
use std::str::FromStr;

use super::budget::EVENTS_MAX;
use super::{Budget, SPIN_MAX, WaitStrategy};

/// A word that names no setting; it says which ones there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSettingError {
    given: String,
    wanted: &'static str,
}

impl ParseSettingError {
    pub(crate) fn new(given: &str, wanted: &'static str) -> Self {
        Self { given: given.to_owned(), wanted }
    }
}

impl fmt::Display for ParseSettingError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` is not {}", self.given, self.wanted)
    }
}

impl std::error::Error for ParseSettingError {}

/// A number of events, `adaptive` or `unlimited`.
impl FromStr for Budget {
    type Err = ParseSettingError;

    fn from_str(word: &str) -> Result<Self, ParseSettingError> {
        match word {
            "adaptive" => Ok(Self::adaptive()),
            "unlimited" => Ok(Self::unlimited()),
            number => match number.parse() {
                Ok(events) if (1..=EVENTS_MAX).contains(&events) => Ok(Self::fixed(events)),
                _ => Err(ParseSettingError::new(
                    word,
                    "a number of events from 1 to 2048, `adaptive` or `unlimited`",
                )),
            },
        }
    }
}

const _: () = assert!(EVENTS_MAX == 2048, "the message above says so");

/// `block`, `spin` (10 µs), `hybrid` or `busy-poll` (50 µs, 8 packets at a time, the kernel's own default).
impl FromStr for WaitStrategy {
    type Err = ParseSettingError;

    fn from_str(word: &str) -> Result<Self, ParseSettingError> {
        match word {
            "block" => Ok(Self::Block),
            "spin" => Ok(Self::Spin(SPIN_MAX)),
            "hybrid" => Ok(Self::Hybrid),
            "busy-poll" => Ok(Self::KernelBusyPoll { usecs: 50, budget: 8, prefer: false }),
            _ => Err(ParseSettingError::new(word, "one of `block`, `spin`, `hybrid` and `busy-poll`")),
        }
    }
}

impl fmt::Display for WaitStrategy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Block => "block",
            Self::Spin(_) => "spin",
            Self::Hybrid => "hybrid",
            Self::KernelBusyPoll { .. } => "busy-poll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        for word in ["block", "spin", "hybrid", "busy-poll"] {
            assert_eq!(word.parse::<WaitStrategy>().unwrap().to_string(), word);
        }
        for word in ["1", "64", "2048", "adaptive", "unlimited"] {
            assert_eq!(word.parse::<Budget>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn a_word_that_is_no_setting_is_named_with_those_that_are() {
        let error = "many".parse::<Budget>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`many` is not a number of events from 1 to 2048, `adaptive` or `unlimited`"
        );
        assert!("0".parse::<Budget>().is_err() && "2049".parse::<Budget>().is_err());
        let error = "sleep".parse::<WaitStrategy>().unwrap_err();
        assert_eq!(error.to_string(), "`sleep` is not one of `block`, `spin`, `hybrid` and `busy-poll`");
    }
}
