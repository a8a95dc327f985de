//! Which driver the workers of a runtime run on.
//!
//! Chosen once for all of them, before anything is bound: a choice that cannot be honoured is an error of the start, and nothing
//! else is taken for it. Each worker makes its driver on its own thread, and runs a reactor that was compiled for it (`seat.rs`).

#[cfg(all(target_os = "linux", not(netpoll_portable)))]
mod epoll;
#[cfg(not(all(target_os = "linux", not(netpoll_portable))))]
#[path = "backend/no_epoll.rs"]
mod epoll;
#[cfg(any(feature = "mio", not(target_os = "linux"), netpoll_portable))]
mod mio;
#[cfg(not(any(feature = "mio", not(target_os = "linux"), netpoll_portable)))]
#[path = "backend/no_mio.rs"]
mod mio;
#[cfg(all(feature = "uring", not(all(target_os = "linux", not(netpoll_portable)))))]
#[path = "backend/no_uring.rs"]
mod uring;
#[cfg(all(feature = "uring", target_os = "linux", not(netpoll_portable)))]
mod uring;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::str::FromStr;
#[cfg(feature = "uring")]
use std::{
    thread,
    time::{Duration, Instant},
};

use crate::reactor::{ParseSettingError, WaitStrategy};

use self::epoll::OnEpoll;
use self::mio::OnMio;
#[cfg(feature = "uring")]
use self::uring::OnUring;

/// Names the backend of runtimes whose program leaves it to them.
const VARIABLE: &str = "NETPOLL_BACKEND";

/// What a runtime gets that leaves it to this crate.
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
const BEST: Backend = Backend::Epoll;
#[cfg(not(all(target_os = "linux", not(netpoll_portable))))]
const BEST: Backend = Backend::Mio;

/// How much longer than elsewhere it takes until an address counts as taken.
#[cfg(feature = "uring")]
const AFTERLIFE_MAX: Duration = Duration::from_millis(500);

/// What can be asked for.
#[cfg(not(feature = "uring"))]
const WORDS: &str =
    "one of `auto`, `epoll` and `mio`; `uring` needs a build with that feature of netpoll-core";
#[cfg(feature = "uring")]
const WORDS: &str = "one of `auto`, `epoll`, `mio` and `uring`";

/// The driver that workers run on, by which they hear from the kernel. `docs/TUNING.md` has a table of what each of them can do.
///
/// As words, for command lines and configuration files: `auto`, `epoll`, `mio`; `uring` with the feature of that name.
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
    /// that this build and this machine have, which is [`Epoll`](Self::Epoll) on Linux, and elsewhere [`Mio`](Self::Mio).
    #[default]
    Auto,
    /// Linux's epoll, edge-triggered. On other systems an error of the start.
    Epoll,
    /// The poller of the crate `mio`: on Linux in builds with the feature `mio`, elsewhere in all of them.
    Mio,
    /// Linux's io_uring (6.1 and later), where nothing forbids it, which is tried before anything is bound. In builds with the feature
    /// `uring`, and not finished: no promise of this crate holds for it yet.
    #[cfg(feature = "uring")]
    Uring,
}

/// What a [`Backend`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Epoll(OnEpoll),
    Mio(OnMio),
    #[cfg(feature = "uring")]
    Uring(OnUring),
}

impl Choice {
    /// As in [`Setup::backend`](crate::Setup::backend).
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll(_) => "epoll",
            Self::Mio(_) => "mio",
            #[cfg(feature = "uring")]
            Self::Uring(_) => "uring",
        }
    }

    /// Binds a socket. The one that a process on rings has left behind is asked for until it is free: the kernel ends the rings of one that was
    /// killed, and what is open in them, some milliseconds behind it.
    pub fn bind<T>(self, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Epoll(_) | Self::Mio(_) => bind(),
            #[cfg(feature = "uring")]
            Self::Uring(_) => {
                let end = Instant::now() + AFTERLIFE_MAX;
                loop {
                    match bind() {
                        Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                            thread::sleep(Duration::from_millis(2));
                        }
                        outcome => return outcome,
                    }
                }
            }
        }
    }
}

impl Backend {
    /// The driver for a runtime that is about to start, whose workers are to wait like this.
    ///
    /// # Errors
    /// The environment names one that there is not; it is not in this build, cannot be had on this machine, or cannot wait like that.
    pub(super) fn choose(self, wait: WaitStrategy) -> io::Result<Choice> {
        let asked = match self {
            Self::Auto => env::var_os(VARIABLE).filter(|word| !word.is_empty()),
            _ => None,
        };
        match asked {
            Some(word) => named(&word)?.find(wait).map_err(|error| of_variable(error.kind(), &error)),
            None => self.find(wait),
        }
    }

    /// This one, or the best there is, whatever the environment says.
    fn find(self, wait: WaitStrategy) -> io::Result<Choice> {
        match self {
            Self::Auto => BEST.find(wait),
            Self::Epoll => OnEpoll::find().map(Choice::Epoll),
            Self::Mio => OnMio::find(wait).map(Choice::Mio),
            #[cfg(feature = "uring")]
            Self::Uring => OnUring::find().map(Choice::Uring),
        }
    }
}

/// The backend that the environment names.
fn named(word: &OsStr) -> io::Result<Backend> {
    let parsed = word.to_string_lossy().parse::<Backend>();
    parsed.map_err(|error| of_variable(io::ErrorKind::InvalidInput, &error))
}

/// Says where a choice comes from that nobody sees in the program.
fn of_variable(kind: io::ErrorKind, error: &dyn fmt::Display) -> io::Error {
    io::Error::new(kind, format!("{VARIABLE}: {error}"))
}

impl FromStr for Backend {
    type Err = ParseSettingError;

    fn from_str(word: &str) -> Result<Self, ParseSettingError> {
        match word {
            "auto" => Ok(Self::Auto),
            "epoll" => Ok(Self::Epoll),
            "mio" => Ok(Self::Mio),
            #[cfg(feature = "uring")]
            "uring" => Ok(Self::Uring),
            _ => Err(ParseSettingError::new(word, WORDS)),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Epoll => "epoll",
            Self::Mio => "mio",
            #[cfg(feature = "uring")]
            Self::Uring => "uring",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_as_they_are_written() {
        #[cfg(feature = "uring")]
        assert_eq!(Backend::Uring.to_string().parse(), Ok(Backend::Uring));
        for backend in [Backend::Auto, Backend::Epoll, Backend::Mio] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        let error = "kqueue".parse::<Backend>().unwrap_err();
        assert_eq!(error.to_string(), format!("`kqueue` is not {WORDS}"));
    }

    #[test]
    fn what_the_environment_names_wrongly_is_said_with_the_variable() {
        let error = named(OsStr::new("Epoll")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("NETPOLL_BACKEND: `Epoll` is not {WORDS}"));
    }
}
