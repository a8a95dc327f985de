//! A stream that is idle: nothing is under way on it, as whoever has it has said, and nothing has come or was written since.
//!
//! Invariants: while `IDLE` is set no input lies here that nobody has read. `RETIRES` is set from when a drain has found it idle, or it has become
//! so in one, until its connection has looked whether it still is: the grace of the drain begins or goes on, or is called off.

use super::{BACKED_UP, CLOSING, DIALED, DRAFTS, GONE, IDLE, RETIRES, STIRRED, Shared, VEILED, WRITTEN};
use crate::clockwork::Instant;
use crate::conn::{Conn, desk};

/// The beginning of idle time is kept in units of so many nanoseconds, as a power of two: in four bytes nine years of 67 ms.
const UNIT_SHIFT: u32 = 26;

impl Shared {
    /// Nothing is under way, from now on, or something is. Input that nobody has read is.
    pub fn set_idle(&self, idle: bool) {
        if !idle {
            return self.end_idle_time();
        }
        let has_input = self.is_behind() || self.with_chunk(|chunk| !chunk.is_empty()) == Some(true);
        if has_input || self.has(IDLE | GONE | CLOSING) {
            return;
        }
        let of_turn = desk::with(self.lane.number(), |desk| desk.cx.agenda.clock.now());
        let now = of_turn.unwrap_or_else(|| self.lane.now());
        // Later rather than earlier: who makes room for others has been idle for as long as is said.
        self.idle_since.set(now.as_nanos().div_ceil(1 << UNIT_SHIFT) as u32);
        self.set(IDLE);
        if self.lane.is_stopping() {
            self.set(RETIRES);
            self.stir();
        }
    }

    /// Something is under way again.
    #[cold]
    pub fn end_idle_time(&self) {
        self.clear(IDLE);
        if self.has(RETIRES) {
            self.stir();
        }
    }

    /// Since when it has been idle, if it is.
    pub fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.bits.get() & (IDLE | GONE | CLOSING | WRITTEN) == IDLE;
        is_idle.then(|| Instant::from_nanos(u64::from(self.idle_since.get()) << UNIT_SHIFT))
    }

    /// A drain begins.
    pub fn retire_if_idle(&self, conn: &mut Conn<'_>) {
        if self.has(IDLE) {
            self.set(RETIRES);
            conn.retire();
        }
    }

    /// In a drain: whether its grace goes on.
    #[inline]
    pub fn look_at_grace(&self, conn: &mut Conn<'_>) {
        if !self.has(RETIRES) {
            return;
        }
        if self.has(IDLE) {
            return conn.retire();
        }
        self.clear(RETIRES);
        conn.go_on_after_all();
    }

    /// It was dialed and is idle: its peer has nothing to be heard out for.
    pub fn is_idle_client(&self) -> bool {
        self.has(IDLE) && self.has(DIALED)
    }

    /// Lets a task find input. What ends idle time by it is as fast from there on as any other.
    pub(super) fn begin_offer(&self) {
        self.clear(IDLE);
        if self.has(BACKED_UP | VEILED | WRITTEN) {
            return self.set(STIRRED);
        }
        self.set(STIRRED | DRAFTS);
        self.lane.draft().borrow_mut().clear();
    }
}
