//! What the machinery itself waits for, on a connection's behalf: a connect, a peer that should read, the end of a
//! lingering close, the grace of a drain.
//!
//! Few connections have something of the kind at a time, so it is boxed. It shares the wheel's one entry with the
//! protocol's deadline.

use std::time::Duration;

use super::deadline::Passed;
use super::stream::{End, Phase, Stream};
use super::{ConnLimits, Context, Lost};
use crate::clockwork::Instant;
use crate::driver::Io;
use crate::mem::Key;
use crate::reactor::Agenda;

/// When it is looked first whether a peer has acknowledged what it got before a reset. A few round trips; who delays acknowledgements
/// does so for 40 ms (Linux, `TCP_DELACK_MIN`).
const CUTTING_LOOK: Duration = Duration::from_millis(10);

/// How often that time is doubled from look to look, up to 640 ms: who does not read costs twenty looks in ten seconds.
const CUTTING_DOUBLINGS: u32 = 6;

/// One of these; while it runs it is the only one.
pub struct Guard {
    at: Instant,
    /// Progress of output since the last look.
    sent_bytes: u64,
    unacknowledged_bytes: usize,
    /// Looks in a row at which it had not taken enough, and what it takes is not seen more closely than that. Of one that is cut when
    /// its peer has all: looks so far.
    looks: u32,
    /// What the peer had still to take at the last look. Who has taken all of that is not behind, however little it was.
    outstanding_bytes: u64,
    /// When a lingering close ends whatever the peer does, and what it had sent when it was looked at last. Of one that is to end
    /// with what it has in hand: until when it may take in more. Of one that is cut: when it is, whatever waits.
    until: Instant,
    discarded_bytes: u64,
    /// The grace of a drain: it is no output that is watched.
    retires: bool,
    /// That is over: what is in hand is answered first.
    is_over: bool,
    /// What was in hand at the last look, in bytes.
    in_hand_bytes: usize,
    /// All has left the queue, and the peer's side had not acknowledged it then: the next look asks again.
    awaits_acknowledgement: bool,
}

/// What a guard that has passed leads to.
pub enum Outlook {
    GoesOn,
    /// The grace of a drain is over: the protocol is asked for its last word.
    Retired,
    Ends(End),
}

impl Stream {
    /// Output left the queue, or was sent past it.
    #[inline]
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
        grace: Duration,
    ) -> Outlook {
        let Some(mut guard) = self.guard.take() else { return Outlook::GoesOn };
        if guard.retires && self.is_linked() {
            self.set_retires_later();
            self.watch_output(agenda, limits, io, key);
            return Outlook::GoesOn;
        }
        if guard.retires {
            if !self.is_behind() || !self.gets_on(limits, &guard) {
                return Outlook::Retired;
            }
            self.retire_behind_input(agenda, limits, key, &guard, grace);
            return Outlook::GoesOn;
        }
        if self.phase == Phase::Lingering {
            return self.linger_on(agenda, limits, key, &guard).map_or(Outlook::GoesOn, Outlook::Ends);
        }
        if self.phase == Phase::Cutting {
            return self.cut_on(agenda, io, key, &guard).map_or(Outlook::GoesOn, Outlook::Ends);
        }
        let unacknowledged_bytes = io.unacknowledged(key).unwrap_or(0);
        if unacknowledged_bytes == 0 && self.waiting_bytes() == 0 {
            self.output_left(agenda, key);
            return Outlook::GoesOn;
        }
        // What left our queue and what the peer's kernel acknowledged of what had left before.
        let taken = (guard.sent_bytes + guard.unacknowledged_bytes as u64)
            .saturating_sub(unacknowledged_bytes as u64);
        let least = limits.least_taken_bytes(limits.write_grace);
        if taken < least.min(guard.outstanding_bytes) {
            guard.looks += 1;
            if least.saturating_mul(guard.looks.into()) >= io.unacknowledged_step(key) as u64 {
                agenda.stats.stalled += 1;
                return Outlook::Ends(End::reset(Lost::Stalled));
            }
            // It may have taken as much as it has to: only a whole step would be seen.
            let now = agenda.clock.now();
            guard.at = now.saturating_add(limits.write_grace);
            self.deadlines.set_guard(&mut agenda.timers, now, key, guard.at);
            self.guard = Some(guard);
            return Outlook::GoesOn;
        }
        self.watch(agenda, key, limits.write_grace, unacknowledged_bytes);
        Outlook::GoesOn
    }

    /// The grace of a drain is called off, if it runs; for an end of a link until it is none any more.
    pub fn go_on_after_all(&mut self, agenda: &mut Agenda, limits: &ConnLimits, io: &mut dyn Io, key: Key) {
        if self.is_retiring() {
            if self.is_linked() {
                self.set_retires_later();
            }
            self.clear_guard();
            self.watch_output(agenda, limits, io, key);
        }
    }

    /// Watches output that was left behind a guard of another kind.
    pub fn watch_output(&mut self, agenda: &mut Agenda, limits: &ConnLimits, io: &mut dyn Io, key: Key) {
        if self.guard.is_none() && self.waiting_bytes() > 0 {
            let unacknowledged_bytes = io.unacknowledged(key).unwrap_or(0);
            self.watch(agenda, key, limits.write_grace, unacknowledged_bytes);
        }
    }

    /// Sets the machinery's own deadline.
    pub fn guard(&mut self, agenda: &mut Agenda, key: Key, after: Duration) {
        self.watch(agenda, key, after, 0);
    }

    fn watch(&mut self, agenda: &mut Agenda, key: Key, after: Duration, unacknowledged_bytes: usize) {
        let now = agenda.clock.now();
        let at = now.saturating_add(after);
        self.deadlines.set_guard(&mut agenda.timers, now, key, at);
        self.guard = Some(Box::new(Guard {
            at,
            sent_bytes: 0,
            looks: 0,
            unacknowledged_bytes,
            outstanding_bytes: (unacknowledged_bytes + self.waiting_bytes()) as u64,
            until: at,
            discarded_bytes: 0,
            retires: false,
            is_over: false,
            in_hand_bytes: 0,
            awaits_acknowledgement: false,
        }));
    }

    /// The grace of a drain begins, if it has not; for an end of a link when it is none any more.
    pub fn begin_to_retire(&mut self, cx: &mut Context, key: Key) {
        if self.is_linked() {
            return self.set_retires_later();
        }
        if !self.phase.is_open() || self.is_retiring() {
            return;
        }
        let grace = cx.drain_grace();
        self.retire(&mut cx.agenda, key, grace);
    }

    /// Lingers after this time. Output that waits for the peer is not watched meanwhile.
    fn retire(&mut self, agenda: &mut Agenda, key: Key, after: Duration) {
        self.guard(agenda, key, after);
        if let Some(guard) = &mut self.guard {
            guard.retires = true;
        }
    }

    /// The grace of a drain is over, and there is input that was taken in: it is answered first, which is looked at again and again.
    fn retire_behind_input(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        key: Key,
        guard: &Guard,
        grace: Duration,
    ) {
        let until = if guard.is_over { guard.until } else { agenda.clock.now().saturating_add(grace) };
        self.retire(agenda, key, limits.drain_grace);
        let in_hand_bytes = self.input.len();
        if let Some(next) = &mut self.guard {
            (next.is_over, next.until, next.in_hand_bytes) = (true, until, in_hand_bytes);
        }
    }

    /// Whether input that is in hand gets less: its protocol takes it, or the peer reads the answers that it waits for. At the first
    /// look nobody knows what was taken in since.
    fn gets_on(&self, limits: &ConnLimits, guard: &Guard) -> bool {
        let least = limits.least_taken_bytes(limits.drain_grace).min(guard.outstanding_bytes).max(1);
        let is_taken = match guard.is_over {
            true => self.input.len() < guard.in_hand_bytes,
            false => !self.is_backed_up(),
        };
        is_taken || guard.sent_bytes >= least
    }

    /// True once when the grace of a drain is over and nothing is in hand any more: it is to end now, between two messages. What had
    /// arrived by then and lay in the socket is taken in first; but what comes on and on is not for ever.
    pub fn take_retired(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) -> bool {
        let Some(guard) = &self.guard else { return false };
        let takes_more = agenda.clock.now() < guard.until;
        let is_retired = guard.is_over
            && self.phase.is_open()
            && !self.is_held()
            && !self.is_linked()
            && !(takes_more && io.has_input(key));
        if is_retired {
            self.clear_guard();
        }
        is_retired
    }

    /// All has left the queue. Whether it is to be watched on, because the peer's side may not have all of it yet: it is asked
    /// once between two looks.
    pub fn watches_on(&mut self, io: &mut dyn Io, key: Key) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        if !guard.retires && !guard.awaits_acknowledgement {
            guard.awaits_acknowledgement = io.unacknowledged(key).is_some_and(|bytes| bytes > 0);
        }
        guard.retires || guard.awaits_acknowledgement
    }

    /// Asks once more whether the peer's side has all of the output, if that is all that is waited for: a deadline is about to
    /// count.
    pub fn look_at_output(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        let is_all_sent = self.phase.is_open() && self.waiting_bytes() == 0;
        if is_all_sent
            && self.guard.as_ref().is_some_and(|guard| guard.awaits_acknowledgement)
            && io.unacknowledged(key).unwrap_or(0) == 0
        {
            self.clear_guard();
            self.output_left(agenda, key);
        }
    }

    /// The grace of a drain is running.
    pub fn is_retiring(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.retires)
    }

    /// Our direction is ended: waits for the peer to end its own.
    pub fn linger(&mut self, agenda: &mut Agenda, limits: &ConnLimits, key: Key) {
        let until = agenda.clock.now().saturating_add(limits.linger_time_max);
        self.guard(agenda, key, limits.linger_silence_max.min(limits.linger_time_max));
        if let Some(guard) = &mut self.guard {
            guard.until = until;
        }
    }

    /// It is reset when its peer has all that is queued, and when this time is over, whatever waits.
    pub fn begin_to_cut(&mut self, agenda: &mut Agenda, limits: &ConnLimits, key: Key) {
        self.phase = Phase::Cutting;
        self.guard(agenda, key, limits.linger_time_max);
    }

    /// All has left the queue: resets the connection when the peer's side has it, and our end, which nothing tells.
    pub fn cut_when_taken(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) -> Option<End> {
        if self.take_ends_before_cut() {
            io.finish(key);
        }
        let guard = self.guard.take().expect("one that is cut is watched from the beginning");
        self.cut_on(agenda, io, key, &guard)
    }

    fn cut_on(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key, guard: &Guard) -> Option<End> {
        let left = guard.until.duration_since(agenda.clock.now());
        let is_all_sent = self.waiting_bytes() == 0;
        if left.is_zero() || (is_all_sent && io.unacknowledged(key).unwrap_or(0) == 0) {
            return Some(End::reset(Lost::Reset));
        }
        let look = if is_all_sent { CUTTING_LOOK * (1 << guard.looks.min(CUTTING_DOUBLINGS)) } else { left };
        self.guard(agenda, key, look.min(left));
        if let Some(next) = &mut self.guard {
            (next.until, next.looks) = (guard.until, guard.looks + u32::from(is_all_sent));
        }
        None
    }

    /// A lingering close goes on as long as the peer speaks and may.
    fn linger_on(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        key: Key,
        guard: &Guard,
    ) -> Option<End> {
        let left = guard.until.duration_since(agenda.clock.now());
        if left.is_zero() || (!self.is_held() && self.discarded_bytes() == guard.discarded_bytes) {
            return Some(End::closed());
        }
        // Who has sent all that is discarded is not read any more: it is not silent.
        let look = if self.is_held() { left } else { limits.linger_silence_max.min(left) };
        self.guard(agenda, key, look);
        let discarded_bytes = self.discarded_bytes();
        if let Some(next) = &mut self.guard {
            (next.until, next.discarded_bytes) = (guard.until, discarded_bytes);
        }
        None
    }

    /// The machinery has nothing to wait for.
    pub fn clear_guard(&mut self) {
        self.guard = None;
    }

    /// The wheel's entry came up. Which deadline has passed; if none has, or it has to wait, the entry goes back.
    pub fn timer_came_up(&mut self, agenda: &mut Agenda, key: Key) -> Passed {
        self.deadlines.left_wheel();
        let now = agenda.clock.now();
        let passed = self.deadlines.passed(now, self.guard_at());
        if passed == Passed::Neither {
            self.put_off_none();
            agenda.stats.timers_moved +=
                u64::from(self.guard.is_some() || self.deadlines.protocol().is_some());
            self.take_passed(agenda, key);
        } else if passed == Passed::Protocol && self.puts_off_deadline() {
            self.deadlines.put_off(&mut agenda.timers, now, key);
            return Passed::Neither;
        }
        passed
    }

    /// The deadline that has passed, if it still stands; the entry goes back for the next one.
    pub fn take_passed(&mut self, agenda: &mut Agenda, key: Key) -> Passed {
        let now = agenda.clock.now();
        let guard = self.guard_at();
        self.deadlines.take_passed(&mut agenda.timers, now, key, guard)
    }

    fn guard_at(&self) -> Option<Instant> {
        self.guard.as_ref().map(|guard| guard.at)
    }

    /// It lingers, or would as soon as the grace of a drain is over, and nothing waits to leave.
    pub fn has_said_all(&self) -> bool {
        let retires = self.is_retiring() && !self.has_remainder() && self.waiting_bytes() == 0;
        self.phase == Phase::Lingering || (self.phase.is_open() && retires)
    }

    /// Whether a deadline that has passed has to wait until what lies in the socket is delivered: it is what the peer
    /// should have sent by then.
    pub fn looks_first(&self, passed: Passed) -> bool {
        match self.phase {
            Phase::Connecting | Phase::ConnectingToFinish | Phase::Lingering => passed == Passed::Guard,
            Phase::Open | Phase::HalfClosing | Phase::HalfClosed => {
                (passed == Passed::Protocol || self.is_retiring()) && !self.is_held()
            }
            Phase::Closing | Phase::Finishing | Phase::Cutting => false,
        }
    }
}
