//! Where a connection goes next: the callbacks' wishes ([`Flow`]) become marks, and orders to the driver, here.
//!
//! Invariant: input is *held* (the driver told to pause) exactly while the protocol paused, yielded, another connection has paused it or
//! has no room for it, the queue is above high water, a plain close or a late reset is under way, a lingering one has discarded all it
//! may, or a remainder has to be offered first.

use super::stream::{
    BACKED_UP, DEADLINE_WAITS, ENDED, End, FED, FORWARDS, HELD, HELD_BY_OTHERS, HELD_BY_TARGET, KEEPS,
    ON_READY_LIST, PAUSED, PEER_ENDING, Phase, Stream, TURN_CAME, YIELDED,
};
use super::{ConnLimits, Context, Flow, Lost};
use crate::driver::{Demand, Io};
use crate::mem::Key;
use crate::reactor::Agenda;

/// What holds input back while it is open.
const HOLDING: u16 = HOLDING_LONG | YIELDED | BACKED_UP;
/// What of that somebody has wanted, or may last for as long as others like.
const HOLDING_LONG: u16 = PAUSED | HELD_BY_OTHERS | HELD_BY_TARGET;

/// What a layer may leave whatever the limit is, in bytes, because it can do nothing with a part of it: the largest message of a handshake of TLS, and a record.
const LAYER_INPUT_BYTES: usize = 96 * 1024;

impl Stream {
    /// Input is being held back.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.has(HELD)
    }

    /// Input is held back by output that has not left or by a turn that has not come, and not because somebody paused it.
    pub fn is_behind(&self) -> bool {
        self.is_held() && !self.has(HOLDING_LONG)
    }

    /// The queue passed high water and has not come down yet.
    pub fn is_backed_up(&self) -> bool {
        self.has(BACKED_UP)
    }

    pub fn is_finished(&self) -> bool {
        self.has(ENDED)
    }

    pub fn set_finished(&mut self) {
        self.mark(ENDED, true);
        self.mark(PEER_ENDING, false);
    }

    /// The driver has reported that the peer of this connection, whose input is held back, has ended.
    pub fn set_peer_ending(&mut self) {
        self.mark(PEER_ENDING, !self.has(ENDED));
    }

    /// True once when the protocol, which has paused or was, is to be told that the peer has ended.
    pub fn take_peer_ending(&mut self) -> bool {
        let is_paused = self.has(HOLDING_LONG);
        let tell = self.has(PEER_ENDING) && is_paused && self.phase.is_open();
        if tell {
            self.mark(PEER_ENDING, false);
        }
        tell
    }

    /// Its protocol has paused it.
    pub fn is_paused(&self) -> bool {
        self.has(PAUSED)
    }

    /// Others hold its input back, or let it go.
    pub fn hold_for_others(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key, hold: bool) {
        self.mark(HELD_BY_OTHERS, hold);
        self.rein(agenda, io, key);
    }

    /// The flow that changes nothing.
    pub fn unchanged_flow(&self) -> Flow {
        if self.has(PAUSED) { Flow::Pause } else { Flow::Continue }
    }

    /// Left the ready list. True when the remainder of the input is to be offered now.
    pub fn left_ready_list(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) -> bool {
        self.mark(YIELDED, false);
        self.mark(TURN_CAME, self.has(DEADLINE_WAITS));
        let was_held = self.is_held();
        self.rein_in(agenda, io, key, true);
        self.mark(ON_READY_LIST, false);
        was_held && !self.is_held() && self.phase.is_open() && self.has_remainder()
    }

    /// Turns what a callback wants into marks and orders. Output is not flushed here.
    #[inline(always)]
    pub fn steer(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key, flow: Flow) -> Option<End> {
        if flow == Flow::Continue && !self.has(PAUSED) {
            return None;
        }
        self.change_course(agenda, io, key, flow)
    }

    #[inline(never)]
    fn change_course(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key, flow: Flow) -> Option<End> {
        match flow {
            Flow::Continue => self.mark(PAUSED, false),
            Flow::Pause => self.mark(PAUSED, true),
            Flow::Yield => {
                agenda.stats.yields += 1;
                self.mark(PAUSED, false);
                self.mark(YIELDED, true);
                self.push_ready(agenda, key);
            }
            Flow::Close | Flow::Linger if self.has(ENDED) => self.phase = Phase::Closing,
            Flow::Close if !io.may_have_input(key) && !self.is_under_way(io, key) => {
                self.phase = Phase::Closing;
            }
            Flow::Close | Flow::Linger => self.finish(agenda),
            // Its time is set by the table, which knows when the drain ends.
            Flow::Retire => {}
            Flow::Reset => return Some(End::reset(Lost::Reset)),
        }
        self.rein(agenda, io, key);
        None
    }

    /// Whether a deadline that has passed has to wait: input that the protocol left for later gets its turn first. Only one,
    /// or a protocol that goes on like that would never meet its deadline.
    pub fn puts_off_deadline(&mut self) -> bool {
        let puts_off = self.has(YIELDED) && !self.has(TURN_CAME);
        self.mark(DEADLINE_WAITS, puts_off);
        self.mark(TURN_CAME, false);
        puts_off
    }

    /// No deadline has passed.
    pub fn put_off_none(&mut self) {
        self.mark(DEADLINE_WAITS | TURN_CAME, false);
    }

    /// Brings the driver in line with whether input may flow.
    pub fn rein(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        self.rein_in(agenda, io, key, false);
    }

    fn rein_in(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key, offers_next: bool) {
        let hold = match self.phase {
            Phase::Open | Phase::HalfClosing | Phase::HalfClosed => {
                self.has(if self.hears_on() { HOLDING & !BACKED_UP } else { HOLDING })
            }
            Phase::Closing | Phase::Cutting => true,
            Phase::Finishing | Phase::Lingering => self.has(PAUSED),
            Phase::Connecting | Phase::ConnectingToFinish => false,
        };
        if hold && self.has(PEER_ENDING) && self.has(HOLDING_LONG) {
            // It was behind, which is nobody's business, and is paused now: the protocol is told.
            self.push_ready(agenda, key);
        }
        if hold == self.is_held() {
            return;
        }
        if !hold && !offers_next && self.phase.is_open() && self.has_remainder() {
            // The remainder is offered without new bytes, and before the end can come: what is behind it waits until then.
            return self.push_ready(agenda, key);
        }
        self.mark(HELD, hold);
        if self.ends_with_input() {
            // Both directions have ended: it closes behind the rest of its input.
            self.push_dirty(agenda, key);
        }
        let demand = if hold { Demand::Pause } else { Demand::Flow };
        let waiting = io.receive(key, demand);
        if hold && waiting {
            self.set_peer_ending();
        }
        if waiting {
            self.push_ready(agenda, key);
        }
    }

    /// Input was left, here or by a protocol above a layer, or its end has to be told.
    pub fn has_remainder(&self) -> bool {
        !self.input.is_empty() || self.has(KEEPS) || self.owes_end()
    }

    /// Whether a chunk may be offered just as it came: the connection is open, not held, no end of a link, and has no
    /// remainder.
    #[inline(always)]
    pub fn takes_chunks(&self) -> bool {
        self.phase == Phase::Open && !self.has(HELD | FORWARDS | FED) && self.input.is_empty()
    }

    /// Copies input that nobody consumed behind what is kept already.
    #[cold]
    pub fn keep(&mut self, cx: &mut Context, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.input.append(&mut cx.agenda.pool, bytes);
        cx.agenda.stats.copied_bytes += bytes.len() as u64;
    }

    /// Ends the connection whose unconsumed input is more than it, or its worker, may keep. Who asks for no more now is judged by its limit
    /// when it does: a driver that receives ahead may have brought it more than it was offered.
    pub fn keeps_too_much(&self, cx: &mut Context, asks_for_more: bool) -> Option<End> {
        if self.input.is_empty() || !self.phase.is_open() {
            return None;
        }
        let least = if self.is_layered() { LAYER_INPUT_BYTES } else { 0 };
        if asks_for_more && self.input.len() > cx.limits.input_bytes_max.max(least) {
            cx.agenda.stats.input_overflows += 1;
            return Some(End::reset(Lost::InputOverflow));
        }
        self.is_too_much(&mut cx.agenda)
    }

    /// Ends the connection, which holds memory, if its worker is short of it: the newest goes.
    pub(super) fn is_too_much(&self, agenda: &mut Agenda) -> Option<End> {
        if !agenda.is_short_of_memory() {
            return None;
        }
        agenda.stats.memory_overflows += 1;
        Some(End::reset(Lost::MemoryOverflow))
    }

    /// What is queued leaves, then our direction ends; input is discarded.
    pub(super) fn finish(&mut self, agenda: &mut Agenda) {
        self.phase = Phase::Finishing;
        self.mark(PAUSED, false);
        self.input.clear(&mut agenda.pool);
    }

    /// Input of a connection that is over as far as its protocol is concerned. Beyond the limit it stays in the kernel,
    /// where it holds the peer back, until the lingering close is over.
    pub fn discard(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
        bytes: usize,
    ) {
        self.discarded = self.discarded.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let finishing = matches!(self.phase, Phase::Finishing | Phase::Lingering);
        if finishing && self.discarded as usize > limits.linger_bytes_max {
            self.mark(PAUSED, true);
            self.rein(agenda, io, key);
        }
    }

    /// Input that was discarded so far, in bytes.
    pub fn discarded_bytes(&self) -> u64 {
        self.discarded.into()
    }
}
