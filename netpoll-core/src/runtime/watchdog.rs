//! A thread that looks at the workers, and says which of them has been in one turn for too long while it is.
//!
//! It reads when the present turn of each began, which the worker publishes, and never waits for one. Invariant: of a turn that is stuck
//! it speaks twice, when it has noticed it and when it has ended; a turn is known by when it began.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::builder::Builder;
use crate::clockwork::Instant;
use crate::conn::{Handle, Stage};
use crate::mem::{self, Guarded};
use crate::sys;

/// How often it looks in the time from which on a turn counts as stuck.
const LOOKS: u32 = 4;

/// Called for each turn that is stuck, and when it has ended.
pub(super) type OnStuck = Box<dyn Fn(&StuckTurn) + Send + Sync>;

/// A turn that has lasted for [`Builder::stuck_turn`](crate::Builder::stuck_turn) or longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckTurn {
    /// The worker, from zero.
    pub worker: usize,
    /// How long it has lasted; of one that has ended by a quarter of that time too much, where it was not noted as a
    /// [`LongTurn`](crate::LongTurn).
    pub age: Duration,
    /// The worker has come back from it.
    pub is_over: bool,
}

impl fmt::Display for StuckTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, age, is_over } = self;
        if *is_over {
            write!(f, "worker {worker} has come back from a turn of {age:.1?}")
        } else {
            write!(f, "worker {worker} has been in one turn for {age:.1?} and serves nobody")
        }
    }
}

/// The thread, until it is dropped or the runtime has ended.
pub struct Watchdog {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts it, if somebody wants it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(settings: &Arc<Guarded<Builder>>, handle: &Handle) -> io::Result<Option<Self>> {
        if !settings.watchdog {
            return Ok(None);
        }
        let mut look = Look { settings: Arc::clone(settings), handle: handle.clone(), stuck: Vec::new() };
        look.stuck.resize(handle.workers(), None);
        let thread = std::thread::Builder::new().name("netpoll-watchdog".to_owned());
        let thread = thread.spawn(move || look.on())?;
        Ok(Some(Self { handle: handle.clone(), thread: Some(thread) }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if sys::is_child() {
            // The thread is the parent's.
            return drop(self.thread.take());
        }
        self.handle.life.reach(Stage::Ended);
        if let Some(thread) = self.thread.take() {
            // What it calls is guarded.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Look {
    settings: Arc<Guarded<Builder>>,
    handle: Handle,
    /// Of each worker the stuck turn that was told: when it began.
    stuck: Vec<Option<Instant>>,
}

impl Look {
    /// Until the end.
    fn on(&mut self) {
        let period = self.settings.stuck_turn / LOOKS;
        loop {
            let stage = self.handle.life.stage();
            if stage == Stage::Ended {
                return;
            }
            for worker in 0..self.stuck.len() {
                self.at(worker);
            }
            self.handle.life.wait(stage, Some(period.max(Duration::from_millis(1))));
        }
    }

    fn at(&mut self, worker: usize) {
        let since = self.handle.published[worker].working_since();
        let now = self.handle.clock.now();
        if let Some(began) = self.stuck[worker]
            && since != Some(began)
        {
            self.stuck[worker] = None;
            let noted = self.handle.long_turns[worker].get();
            let noted = noted.filter(|turn| turn.at - turn.took == began).map(|turn| turn.took);
            let age = noted.unwrap_or_else(|| now.duration_since(began));
            self.tell(&StuckTurn { worker, age, is_over: true });
        }
        if let Some(began) = since {
            let age = now.duration_since(began);
            if age >= self.settings.stuck_turn && self.stuck[worker].is_none() {
                self.stuck[worker] = Some(began);
                self.tell(&StuckTurn { worker, age, is_over: false });
            }
        }
    }

    fn tell(&self, turn: &StuckTurn) {
        crate::log::stuck(turn);
        for call in &self.settings.on_stuck {
            if mem::guarded(|| call(turn)).is_none() {
                crate::log::code_panicked();
            }
        }
    }
}
