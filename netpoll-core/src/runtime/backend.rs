//! Which driver the workers of a runtime run on.
//!
//! Chosen once for all of them, before anything is bound: a choice that cannot be honoured is an error of the start, and nothing
//! else is taken for it. Each worker makes its driver on its own thread, and runs a reactor that was compiled for it (`seat.rs`).

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::str::FromStr;

use crate::reactor::ParseSettingError;

/// Names the backend of runtimes whose program leaves it to them.
const VARIABLE: &str = "NETPOLL_BACKEND";

/// The driver that workers run on, by which they hear from the kernel. `docs/TUNING.md` has a table of what each of them can do.
///
/// As words, for command lines and configuration files: `auto`, `epoll`.
///
/// ```
/// use netpoll_core::{Backend, Runtime, Workers};
///
/// # fn main() -> std::io::Result<()> {
/// let backend: Backend = "epoll".parse().expect("one of the words");
/// let running = Runtime::builder().workers(Workers::Count(1)).backend(backend).start()?;
/// assert_eq!(running.handle().setup().backend, "epoll");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// The one that the environment variable `NETPOLL_BACKEND` names, by one of the words; where it is not set, or empty, the best
    /// that this build and this machine have, which is [`Epoll`](Self::Epoll).
    #[default]
    Auto,
    /// Linux's epoll, edge-triggered.
    Epoll,
}

/// What a [`Backend`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Epoll,
}

impl Choice {
    /// As in [`Setup::backend`](crate::Setup::backend).
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
        }
    }
}

impl Backend {
    /// The driver for a runtime that is about to start.
    ///
    /// # Errors
    /// The environment names one that there is not.
    pub(super) fn choose(self) -> io::Result<Choice> {
        match self {
            Self::Auto => match env::var_os(VARIABLE).filter(|word| !word.is_empty()) {
                Some(word) => named(&word)?.or_best(),
                None => self.or_best(),
            },
            _ => self.or_best(),
        }
    }

    /// This one if it is one, whatever the environment says.
    fn or_best(self) -> io::Result<Choice> {
        match self {
            Self::Auto | Self::Epoll => Ok(Choice::Epoll),
        }
    }
}

/// The backend that the environment names.
fn named(word: &OsStr) -> io::Result<Backend> {
    let parsed = word.to_string_lossy().parse::<Backend>();
    parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{VARIABLE}: {error}")))
}

impl FromStr for Backend {
    type Err = ParseSettingError;

    fn from_str(word: &str) -> Result<Self, ParseSettingError> {
        match word {
            "auto" => Ok(Self::Auto),
            "epoll" => Ok(Self::Epoll),
            _ => Err(ParseSettingError::new(word, "one of `auto` and `epoll`")),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Epoll => "epoll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_as_they_are_written() {
        for backend in [Backend::Auto, Backend::Epoll] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        let error = "kqueue".parse::<Backend>().unwrap_err();
        assert_eq!(error.to_string(), "`kqueue` is not one of `auto` and `epoll`");
    }

    #[test]
    fn what_the_environment_names_wrongly_is_said_with_the_variable() {
        let error = named(OsStr::new("Epoll")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "NETPOLL_BACKEND: `Epoll` is not one of `auto` and `epoll`");
    }
}
