//! What the machinery itself waits for, on a connection's behalf: a connect, a peer that should read, the end of a
//! lingering close.
//!
//! Few connections have something of the kind at a time, so it is boxed. It shares the wheel's one entry with the
//! protocol's deadline.

use std::time::Duration;

use super::deadline::Passed;
use super::stream::{End, Phase, Stream};
use super::{ConnLimits, Lost};
use crate::driver::Io;
use crate::mem::Key;
use crate::reactor::Agenda;
use crate::time::Instant;

/// What the machinery itself waits for: a connect, output that the peer does not take, a lingering close.
pub struct Guard {
    at: Instant,
    /// Progress of output since the last look.
    sent_bytes: u64,
    unacknowledged_bytes: usize,
}

impl Stream {
    /// Output left that was waited for.
    pub fn progressed(&mut self, sent_bytes: usize) {
        if let Some(guard) = &mut self.guard {
            guard.sent_bytes += sent_bytes as u64;
        }
    }

    /// Output waits: watch whether the peer takes it.
    pub fn stalled(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
        sent_bytes: usize,
    ) {
        if self.guard.is_some() {
            return self.progressed(sent_bytes);
        }
        let unacknowledged_bytes = io.unacknowledged(key).unwrap_or(0);
        self.watch(agenda, key, limits.write_grace, unacknowledged_bytes);
    }

    /// The machinery's own deadline passed.
    pub fn guard_passed(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<End> {
        if self.phase == Phase::Connecting {
            return Some(End::reset(Lost::ConnectFailed(std::io::ErrorKind::TimedOut.into())));
        }
        if self.phase == Phase::Lingering {
            return Some(End::closed());
        }
        let guard = self.guard.take()?;
        let unacknowledged_bytes = io.unacknowledged(key).unwrap_or(0);
        // What left our queue and what the peer's kernel acknowledged of what had left before.
        let taken = (guard.sent_bytes + guard.unacknowledged_bytes as u64)
            .saturating_sub(unacknowledged_bytes as u64);
        let least = u64::from(limits.write_rate_min) * limits.write_grace.as_secs().max(1);
        if taken < least {
            agenda.stats.stalled += 1;
            return Some(End::reset(Lost::Stalled));
        }
        self.watch(agenda, key, limits.write_grace, unacknowledged_bytes);
        None
    }

    /// Sets the machinery's own deadline.
    pub fn guard(&mut self, agenda: &mut Agenda, key: Key, after: Duration) {
        self.watch(agenda, key, after, 0);
    }

    fn watch(&mut self, agenda: &mut Agenda, key: Key, after: Duration, unacknowledged_bytes: usize) {
        let now = agenda.clock.now();
        let at = now.saturating_add(after);
        self.deadlines.set_guard(&mut agenda.timers, now, key, at);
        self.guard = Some(Box::new(Guard { at, sent_bytes: 0, unacknowledged_bytes }));
    }

    /// The machinery has nothing to wait for.
    pub fn clear_guard(&mut self) {
        self.guard = None;
    }

    /// The wheel's entry came up: which deadline passed, and whether it came up early.
    pub fn timer_came_up(&mut self, agenda: &mut Agenda, key: Key) -> (Passed, bool) {
        let now = agenda.clock.now();
        let guard = self.guard.as_ref().map(|guard| guard.at);
        self.deadlines.came_up(&mut agenda.timers, now, key, guard)
    }
}
