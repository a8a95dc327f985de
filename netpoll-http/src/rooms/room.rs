//! A room as all workers share it: its messages, who has members, who is present.
//!
//! Its lock is held for as long as it takes to number a message and to tell the workers that have members, or to copy out what somebody has
//! missed; no code of the program runs under it. A worker hears that there is something, once until it has looked, and looks here what it
//! is: so what waits for a worker is the log, which is bounded.
//!
//! Invariant: the numbers of messages are given, and the workers told, under one lock: each worker sees them in one order. A room that
//! is gone is in no registry any more, and nobody joins it or publishes to it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netpoll_core::Instant;

use super::Position;
use super::bus::peers::Peers;
use super::log::{Bounds, Log};

static IDS: AtomicU64 = AtomicU64::new(0);

pub struct Room {
    /// No other room of the process has it.
    pub id: u64,
    pub name: Arc<str>,
    /// Messages that members did not get, for good.
    pub dropped: AtomicU64,
    /// Messages that members did not get because a newer one of their key had come.
    pub superseded: AtomicU64,
    state: Mutex<State>,
}

pub struct State {
    pub epoch: u64,
    pub log: Log,
    /// By worker.
    pub workers: Box<[Seats]>,
    /// Sessions of each person here, those that wait for their socket included.
    pub present: BTreeMap<Arc<str>, u32>,
    /// Messages that were published here, not counting what other processes have.
    pub published: u64,
    /// When the first of them was.
    pub first_published_at: Instant,
    pub begun_at: Instant,
    /// How far other processes are, once one has said something.
    pub peers: Option<Box<Peers>>,
    /// When something was published here last, or somebody left.
    pub used_at: Instant,
    /// It stands in the line of those in which something becomes old.
    pub is_expiring: bool,
    pub is_gone: bool,
}

/// What one worker has to do with it.
#[derive(Clone)]
pub struct Seats {
    /// Sockets of that worker.
    pub members: u32,
    /// The worker knows that there is something new.
    pub is_told: bool,
    /// The first message that some of them, who are not behind, have not had; the largest number there is if they have had all.
    pub holds_from: u64,
}

impl Seats {
    pub const NONE: Self = Self { members: 0, is_told: false, holds_from: u64::MAX };
}

impl Room {
    pub fn new(name: &str, epoch: u64, workers: usize, now: Instant) -> Self {
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            name: Arc::from(name),
            dropped: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            state: Mutex::new(State {
                epoch,
                log: Log::default(),
                workers: vec![Seats::NONE; workers].into(),
                present: BTreeMap::new(),
                published: 0,
                first_published_at: now,
                begun_at: now,
                peers: None,
                used_at: now,
                is_expiring: false,
                is_gone: false,
            }),
        }
    }

    /// The worker that is told of whoever comes and leaves.
    pub fn home(&self, workers: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        (hasher.finish() >> 32) as usize % workers
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Nothing panics in between, so nothing is ever half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub fn head(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.log.head() }
    }

    /// Sockets that are members.
    pub fn members(&self) -> usize {
        self.workers.iter().map(|seats| seats.members as usize).sum()
    }

    /// Neither a socket nor a session that waits for one.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.workers.iter().all(|seats| seats.members == 0)
    }

    /// Nobody is in it, and it has never had a message: it remembers nothing.
    pub fn is_blank(&self) -> bool {
        self.log.head() == 0 && self.is_empty()
    }

    /// When something is old here: the room, if nobody is in it, and messages otherwise, if there are some.
    pub fn look_at(&self, history_time: Duration) -> Option<Instant> {
        let since = if self.is_empty() { Some(self.used_at) } else { self.log.oldest_at() };
        since.map(|since| since.saturating_add(history_time))
    }

    /// Lets go what is more than it may have. By how much it has grown or shrunk.
    pub fn trim(&mut self, bounds: &Bounds, now: Instant) {
        let held = self.workers.iter().map(|seats| seats.holds_from).min().unwrap_or(u64::MAX);
        self.log.trim(bounds, held, now);
    }

    /// One session of a person more. True if it is the first.
    pub fn arrive(&mut self, who: &Arc<str>) -> bool {
        let sessions = self.present.entry(Arc::clone(who)).or_insert(0);
        *sessions += 1;
        *sessions == 1
    }

    /// One less. True if it was the last.
    pub fn depart(&mut self, who: &str) -> bool {
        let Some(sessions) = self.present.get_mut(who) else { return false };
        *sessions -= 1;
        if *sessions > 0 {
            return false;
        }
        self.present.remove(who);
        true
    }
}
