//! Where a runtime stands between its start and its end, and whether it wants to be sent work.
//!
//! Two words that any thread reads: a stage, which only moves on, and what the program says of itself. Invariant: whoever waits for a
//! change hears of each, because a stage is written before the lock is taken that the waiting thread looks at it under.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Where a runtime stands. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Its sockets are bound, and its workers are being made: whoever connects waits.
    Starting,
    /// It serves.
    Serving,
    /// It serves, and is going to drain: who has other machines to choose from should ([`Builder::lame_duck`](crate::Builder::lame_duck)).
    LameDuck,
    /// What is under way is finished, and nobody new should come.
    Draining,
    /// Its workers have ended.
    Ended,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Starting, Self::Serving, Self::LameDuck, Self::Draining, Self::Ended];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::LameDuck => "about to drain",
            Self::Draining => "draining",
            Self::Ended => "ended",
        })
    }
}

/// What is known of a runtime's course.
pub struct Life {
    /// An index of [`Stage::ALL`].
    stage: AtomicU8,
    /// The program is not ready, whatever the stage.
    is_withheld: AtomicBool,
    changes: Mutex<()>,
    changed: Condvar,
}

impl Life {
    pub fn new() -> Self {
        Self {
            stage: AtomicU8::new(0),
            is_withheld: AtomicBool::new(false),
            changes: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))]
    }

    /// Moves on to this stage, unless it is reached or behind us.
    pub fn reach(&self, stage: Stage) {
        if self.stage.fetch_max(stage as u8, Ordering::AcqRel) < stage as u8 {
            drop(self.changes.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Waits until the stage is another than this one, or the time is up, or for no reason.
    pub fn wait(&self, seen: Stage, at_most: Option<Duration>) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stage() != seen {
            return;
        }
        match at_most {
            Some(time) => drop(self.changed.wait_timeout(changes, time)),
            None => drop(self.changed.wait(changes)),
        }
    }
}

/// Whether a runtime wants to be sent work, for whoever sends it: a load balancer, Kubernetes. Clones are one; any thread may ask.
///
/// It is ready while it serves and the program does not say otherwise: not while it starts, and not from the first stop signal on
/// ([`Builder::lame_duck`](crate::Builder::lame_duck)). From [`Handle::readiness`](crate::Handle::readiness). Whether it is alive at all is another
/// question: see [`Handle::turn_age`](crate::Handle::turn_age).
///
/// ```
/// use netpoll_core::sim::{Options, Sim};
///
/// let mut sim = Sim::new(Options::default());
/// let readiness = sim.handle().readiness();
/// readiness.set_ready(false); // until the cache is warm
/// assert!(!readiness.is_ready());
/// readiness.set_ready(true);
/// assert!(readiness.is_ready());
/// sim.begin_drain(std::time::Duration::from_secs(1));
/// assert!(!readiness.is_ready());
/// ```
#[derive(Clone)]
pub struct Readiness(pub(super) Arc<Life>);

impl Readiness {
    /// Whether it serves, is not about to drain, and the program is ready. Two loads.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.says_ready() && self.stage() == Stage::Serving
    }

    /// What the program says of itself. Default true. One that has something to do first says false where it is made (a state, the function
    /// of a listener), and true when that is done; one whose database is gone may say false as well, if others have one.
    pub fn set_ready(&self, ready: bool) {
        self.0.is_withheld.store(!ready, Ordering::Release);
    }

    /// What [`set_ready`](Self::set_ready) was told last.
    #[must_use]
    pub fn says_ready(&self) -> bool {
        !self.0.is_withheld.load(Ordering::Acquire)
    }

    /// Where the runtime stands.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("stage", &self.stage())
            .field("says_ready", &self.says_ready())
            .finish()
    }
}
