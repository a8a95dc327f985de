//! A thread that looks at the workers, says which of them has been in one turn for too long while it is, and tells a service manager how
//! they are.
//!
//! It reads when the present turn of each began, which the worker publishes, and never waits for one. Invariant: of a turn that is stuck
//! it speaks twice, when it has noticed it and when it has ended; a turn is known by when it began. The manager hears that the process
//! lives only while no turn is stuck.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::builder::Builder;
use super::service_manager::ServiceManager;
use crate::clockwork::Instant;
use crate::conn::{Handle, Stage};
use crate::mem::{self, Guarded};
use crate::sys;

/// How often it looks in the time from which on a turn counts as stuck.
const LOOKS: u32 = 4;

/// When a manager that has not read what it was told before is told once more.
const ONCE_MORE: Duration = Duration::from_millis(100);
/// Of the thread.
const NAME: &str = "netpoll-watchdog";

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
    pub fn start(
        settings: &Arc<Guarded<Builder>>,
        handle: &Handle,
        manager: Option<ServiceManager>,
    ) -> io::Result<Option<Self>> {
        let looks = settings.watchdog || manager.as_ref().is_some_and(|it| it.watchdog_every().is_some());
        if !looks && manager.is_none() {
            return Ok(None);
        }
        let look = Look {
            settings: Arc::clone(settings),
            handle: handle.clone(),
            stuck: vec![None; handle.workers()],
            looks,
            reports: manager.map(Reports::new),
        };
        let thread = std::thread::Builder::new().name(NAME.to_owned());
        let mut look = look;
        let thread = thread.spawn(move || look.on()).map_err(|error| sys::no_thread(NAME, error))?;
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
    /// It looks at workers; else it waits for what the manager is to hear.
    looks: bool,
    reports: Option<Reports>,
}

impl Look {
    /// Until the end.
    fn on(&mut self) {
        let period = self.period();
        loop {
            let stage = self.handle.life.stage();
            let mut wait = period;
            if let Some(reports) = &mut self.reports {
                let now = self.handle.clock.now();
                let is_stuck = self.looks && !self.handle.stuck().is_empty();
                let succession = self.handle.succession.as_ref();
                let is_over = succession.is_some_and(|succession| succession.shared.is_handed_over());
                if !is_over && !reports.report(stage, now, is_stuck) {
                    wait = Some(wait.unwrap_or(ONCE_MORE).min(ONCE_MORE));
                }
            }
            if stage == Stage::Ended {
                return;
            }
            if self.looks {
                (0..self.stuck.len()).for_each(|worker| self.at(worker));
            }
            self.handle.life.wait(stage, wait);
        }
    }

    /// From one look to the next.
    fn period(&self) -> Option<Duration> {
        let own = self.settings.stuck_turn / LOOKS;
        let managers = self.reports.as_ref().and_then(|reports| reports.manager.watchdog_every());
        // It is to hear it twice in that time, and late by an eighth of it at most.
        let period = managers.map_or(own, |every| own.min(every / 8));
        self.looks.then(|| period.max(Duration::from_millis(1)))
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

/// What the manager was told.
struct Reports {
    manager: ServiceManager,
    is_ready: bool,
    stops: bool,
    /// When it is to hear again that the process lives.
    lives_at: Instant,
}

impl Reports {
    fn new(manager: ServiceManager) -> Self {
        Self { manager, is_ready: false, stops: false, lives_at: Instant::ZERO }
    }

    /// Tells what there is to be told. False if it is to be tried once more.
    fn report(&mut self, stage: Stage, now: Instant, is_stuck: bool) -> bool {
        // A start that has failed ends without having served.
        if !self.is_ready && stage > Stage::Starting && stage < Stage::Ended {
            self.is_ready = self.tell("READY=1");
        }
        if self.is_ready && !self.stops && stage >= Stage::LameDuck {
            self.stops = self.tell("STOPPING=1");
        }
        if let Some(every) = self.manager.watchdog_every()
            && now >= self.lives_at
            && !is_stuck
        {
            // What does not get through is as good as said: it hears of it again in half the time that it gives.
            self.tell("WATCHDOG=1");
            self.lives_at = now.saturating_add(every / 2);
        }
        self.is_ready == (stage > Stage::Starting) && self.stops == (stage >= Stage::LameDuck)
    }

    /// False if it may get through later.
    fn tell(&self, state: &str) -> bool {
        match self.manager.tell(state) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                crate::log::manager_not_told(state, &error);
                true
            }
        }
    }
}
