//! Which call made a turn long.
//!
//! A turn reads the clock twice, so that a long one is noticed when it is over, and nobody knows who it was. What takes long once
//! does so again: behind a long turn the worker reads the clock after every call into the program, for a while, and the next
//! long turn has a name. Invariant: as long as no turn is long none of this costs more than a look at a bit for each call.

use std::fmt;
use std::panic::Location;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::{ConnId, DatagramId};
use crate::clockwork::Instant;

/// How long calls are timed behind a long turn.
const WATCH: Duration = Duration::from_secs(60);

/// A turn of a worker whose work took at least [`Builder::long_turn`](crate::Builder::long_turn).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LongTurn {
    /// When it was noticed, which is when its work had ended.
    pub at: Instant,
    /// How long its work took.
    pub took: Duration,
    /// The longest call in it. `None` for the first long turn in a minute: only behind one are calls timed.
    pub longest: Option<LongCall>,
}

/// A call of a worker into the program, with what the worker itself did for it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LongCall {
    /// How long it took.
    pub took: Duration,
    /// What was called.
    pub callee: Callee,
}

/// What a worker calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Callee {
    /// A callback of a connection.
    Connection(ConnId),
    /// One of a datagram socket.
    Datagrams(DatagramId),
    /// The poll of a task that was spawned there.
    Task(&'static Location<'static>),
    /// A timer, code that was handed to the worker, or the accept function of a listener.
    Code,
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(id) => write!(f, "{id:?}"),
            Self::Datagrams(id) => write!(f, "{id:?}"),
            Self::Task(place) => write!(f, "the task spawned at {place}"),
            Self::Code => f.write_str("a timer, code for this worker, or an accept function"),
        }
    }
}

impl fmt::Display for LongTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a turn took {:.1?}", self.took)?;
        match &self.longest {
            Some(call) => write!(f, ", {:.1?} of it {}", call.took, call.callee),
            None => Ok(()),
        }
    }
}

/// The last long turn of a worker, for whoever asks.
#[derive(Default)]
pub struct LastLongTurn(Mutex<Option<LongTurn>>);

impl LastLongTurn {
    pub fn set(&self, turn: LongTurn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }

    pub fn get(&self) -> Option<LongTurn> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The times of calls, while they are taken.
#[derive(Default)]
pub struct Watch {
    is_on: bool,
    ends: Instant,
    /// When the last call had returned.
    lap: Instant,
    longest: Option<LongCall>,
}

impl Watch {
    /// Whether calls are timed.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// The work of a turn begins.
    pub fn begin(&mut self, now: Instant) {
        self.is_on = now < self.ends;
        (self.lap, self.longest) = (now, None);
    }

    /// What was done last was no call.
    pub fn resume(&mut self, now: Instant) {
        self.lap = now;
    }

    /// A call has returned.
    pub fn lap(&mut self, now: Instant, callee: Callee) {
        let took = now.duration_since(std::mem::replace(&mut self.lap, now));
        if self.longest.is_none_or(|longest| took > longest.took) {
            self.longest = Some(LongCall { took, callee });
        }
    }

    /// A turn was long: the longest call in it, if they were timed. From here on they are.
    pub fn was_long(&mut self, now: Instant) -> Option<LongCall> {
        let longest = self.longest.take();
        (self.is_on, self.ends, self.lap) = (true, now.saturating_add(WATCH), now);
        longest
    }
}
