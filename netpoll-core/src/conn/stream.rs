//! What the machinery knows of one connection, whatever its protocol: queue, remainder, deadlines, phase.
//!
//! The callbacks' wishes ([`Flow`]) become orders to the driver here. Invariants:
//! - input is *held* (the driver told to pause) exactly while the protocol paused, yielded, the queue
//!   is above high water, a plain close is under way, a lingering one has discarded all it may, or a remainder has to be
//!   offered first;
//! - a connection stands on the ready list, and on the dirty list, at most once: its mark says so;
//! - an idle connection owns no block: queue and remainder are empty, and then they own nothing.
//!
//! A [`End`] that comes back means that the connection is over; its table does the rest.

use std::sync::Arc;

use super::deadline::Deadlines;
use super::guard::Guard;
use super::{ConnLimits, Context, Flow, Lost};
use crate::driver::{Close, Demand, Flushed, Io};
use crate::mem::{Key, ReadBuffer, WriteQueue};
use crate::reactor::Agenda;
use crate::task::WakeTarget;

/// The protocol paused reading.
const PAUSED: u16 = 1;
/// The protocol gave way; input is offered again in the next turn.
const YIELDED: u16 = 1 << 1;
/// The queue passed high water and has not come down yet.
const BACKED_UP: u16 = 1 << 2;
/// The driver was told to pause.
const HELD: u16 = 1 << 3;
/// The peer has sent all it will send.
const ENDED: u16 = 1 << 4;
const ON_READY_LIST: u16 = 1 << 5;
const ON_DIRTY_LIST: u16 = 1 << 6;
/// The driver knows that the peer has ended, behind input that is held back, and the protocol was not told yet.
const PEER_ENDING: u16 = 1 << 7;
/// Output that had to wait has left, and the protocol was not told yet.
const OUTPUT_LEFT: u16 = 1 << 8;
/// A deadline that has passed waits for the turn of input that the protocol left for later.
const DEADLINE_WAITS: u16 = 1 << 9;
/// That turn has come.
const TURN_CAME: u16 = 1 << 10;

/// Output up to this size leaves together with that of other connections. More is sent at once: it may not
/// fit into the socket, and then its connection has to be held before it brings more.
const FLUSH_LATER_BYTES_MAX: usize = 16 * 1024;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Open,
    /// Close as soon as everything has been sent.
    Closing,
    /// End our direction as soon as everything has been sent; input is discarded.
    Finishing,
    /// Our direction is ended; input is discarded until the peer ends too.
    Lingering,
}

/// How a connection ends.
pub struct End {
    pub how: Close,
    pub reason: Lost,
}

impl End {
    pub fn closed() -> Self {
        Self { how: Close::Now, reason: Lost::Closed }
    }

    pub fn failed(error: std::io::Error) -> Self {
        Self { how: Close::Now, reason: Lost::Failed(error) }
    }

    pub fn reset(reason: Lost) -> Self {
        Self { how: Close::Reset, reason }
    }
}

/// One connection, without its protocol.
pub struct Stream {
    pub out: WriteQueue,
    pub input: ReadBuffer,
    pub deadlines: Deadlines,
    pub wake: Option<Arc<WakeTarget>>,
    /// Few connections have one at a time, so it is not part of the slot.
    pub(super) guard: Option<Box<Guard>>,
    /// Bytes that a completion driver took and has not sent yet.
    in_flight: usize,
    discarded: u32,
    pub phase: Phase,
    bits: u16,
}

// With its generation (8 B) and the driver's part (16 B) a slot is at most 128 B, plus the protocol's own state.
const _: () = assert!(size_of::<Stream>() <= 104);

impl Stream {
    pub fn new(phase: Phase) -> Self {
        Self {
            out: WriteQueue::new(),
            input: ReadBuffer::new(),
            deadlines: Deadlines::new(),
            wake: None,
            guard: None,
            in_flight: 0,
            discarded: 0,
            phase,
            bits: 0,
        }
    }

    #[inline]
    fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    #[inline]
    fn mark(&mut self, bit: u16, on: bool) {
        self.bits = if on { self.bits | bit } else { self.bits & !bit };
    }

    /// Input is being held back.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.has(HELD)
    }

    /// Input is held back by output that has not left or by a turn that has not come, and not because the protocol paused.
    pub fn is_behind(&self) -> bool {
        self.is_held() && !self.has(PAUSED)
    }

    /// Bytes that wait to leave.
    pub fn waiting_bytes(&self) -> usize {
        self.out.queued_bytes() + self.in_flight
    }

    /// Output is queued, and so little that nobody minds when it leaves a moment later.
    #[inline]
    pub fn may_flush_later(&self) -> bool {
        (1..=FLUSH_LATER_BYTES_MAX).contains(&self.out.queued_bytes())
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

    /// True once when the protocol, which has paused, is to be told that the peer has ended.
    pub fn take_peer_ending(&mut self) -> bool {
        let tell = self.bits & (PEER_ENDING | PAUSED) == PEER_ENDING | PAUSED && self.phase == Phase::Open;
        if tell {
            self.mark(PEER_ENDING, false);
        }
        tell
    }

    /// The flow that changes nothing.
    pub fn unchanged_flow(&self) -> Flow {
        if self.has(PAUSED) { Flow::Pause } else { Flow::Continue }
    }

    /// All output has left that had to wait for the peer.
    pub fn output_left(&mut self, agenda: &mut Agenda, key: Key) {
        self.mark(OUTPUT_LEFT, true);
        self.push_ready(agenda, key);
    }

    /// True once when the protocol is to be told of that.
    pub fn take_output_left(&mut self) -> bool {
        let tell = self.has(OUTPUT_LEFT);
        self.mark(OUTPUT_LEFT, false);
        tell && self.phase == Phase::Open && self.waiting_bytes() == 0
    }

    pub fn push_ready(&mut self, agenda: &mut Agenda, key: Key) {
        if !self.has(ON_READY_LIST) {
            self.mark(ON_READY_LIST, true);
            agenda.ready.push(key);
        }
    }

    #[inline]
    pub fn push_dirty(&mut self, agenda: &mut Agenda, key: Key) {
        if !self.has(ON_DIRTY_LIST) {
            self.mark(ON_DIRTY_LIST, true);
            agenda.dirty.push_back(key);
        }
    }

    /// Left the dirty list.
    pub fn left_dirty_list(&mut self) {
        self.mark(ON_DIRTY_LIST, false);
    }

    /// Left the ready list. True when the remainder of the input is to be offered now.
    pub fn left_ready_list(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) -> bool {
        self.mark(YIELDED, false);
        self.mark(TURN_CAME, self.has(DEADLINE_WAITS));
        let was_held = self.is_held();
        self.rein_in(agenda, io, key, true);
        self.mark(ON_READY_LIST, false);
        was_held && !self.is_held() && self.phase == Phase::Open && !self.input.is_empty()
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
            Flow::Pause => {
                self.mark(PAUSED, true);
                if self.has(PEER_ENDING) {
                    self.push_ready(agenda, key);
                }
            }
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

    /// Output that had to wait has left the queue, and has not arrived yet: a reset would destroy it.
    fn is_under_way(&self, io: &mut dyn Io, key: Key) -> bool {
        self.guard.is_some() && (self.in_flight > 0 || io.unacknowledged(key).is_some_and(|bytes| bytes > 0))
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
            Phase::Open => self.has(PAUSED | YIELDED | BACKED_UP),
            Phase::Closing => true,
            Phase::Finishing | Phase::Lingering => self.has(PAUSED),
            Phase::Connecting => false,
        };
        if hold == self.is_held() {
            return;
        }
        if !hold && !offers_next && self.phase == Phase::Open && !self.input.is_empty() {
            // The remainder is offered without new bytes, and before the end can come: what is behind it waits until then.
            return self.push_ready(agenda, key);
        }
        self.mark(HELD, hold);
        let demand = if hold { Demand::Pause } else { Demand::Flow };
        let waiting = io.receive(key, demand);
        if hold && waiting {
            self.set_peer_ending();
        }
        if waiting {
            self.push_ready(agenda, key);
        }
    }

    /// Whether a chunk may be offered just as it came: the connection is open, not held, and has no remainder.
    #[inline(always)]
    pub fn takes_chunks(&self) -> bool {
        self.phase == Phase::Open && !self.is_held() && self.input.is_empty()
    }

    /// After a callback that took everything and said no more than `Flow::Continue`: true if nothing has to
    /// be done about it but to send the little that it has queued.
    #[inline(always)]
    pub fn goes_on(&mut self, agenda: &mut Agenda, key: Key) -> bool {
        let queued = self.out.queued_bytes();
        if self.has(PAUSED) || queued > FLUSH_LATER_BYTES_MAX || self.guard.is_some() {
            return false;
        }
        if queued > 0 {
            self.push_dirty(agenda, key);
        }
        true
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

    /// Ends the connection whose unconsumed input is more than it, or its worker, may keep.
    pub fn keeps_too_much(&self, cx: &mut Context) -> Option<End> {
        if self.input.is_empty() || self.phase != Phase::Open {
            return None;
        }
        if self.input.len() > cx.limits.input_bytes_max {
            cx.agenda.stats.input_overflows += 1;
            return Some(End::reset(Lost::InputOverflow));
        }
        self.is_too_much(&mut cx.agenda)
    }

    /// Ends the connection, which holds memory, if its worker is short of it: the newest goes.
    fn is_too_much(&self, agenda: &mut Agenda) -> Option<End> {
        if !agenda.is_short_of_memory() {
            return None;
        }
        agenda.stats.memory_overflows += 1;
        Some(End::reset(Lost::MemoryOverflow))
    }

    /// Sends what is queued and draws the consequences of how far it went.
    #[inline(always)]
    pub fn flush(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<End> {
        if !self.out.is_empty() {
            let queued = self.out.queued_bytes();
            // Looked at before the flush: a protocol that saw `is_backed_up` and stopped waits for `drained`.
            let backs_up = queued + self.in_flight > limits.write_high_bytes
                && self.phase == Phase::Open
                && !self.has(BACKED_UP);
            match io.flush(key, &mut self.out, &mut agenda.pool) {
                Flushed::Done => {
                    self.progressed(queued);
                    if backs_up {
                        // All of it left at once; `drained` comes when others have had their turn.
                        self.back_up(agenda, io, key);
                        self.push_ready(agenda, key);
                    }
                }
                Flushed::Blocked { in_flight } => {
                    self.in_flight += in_flight;
                    if in_flight == 0 {
                        self.did_not_leave_whole(agenda, io, key);
                    }
                    let left = queued - self.out.queued_bytes() - in_flight;
                    // A file takes no memory, however slowly it is read.
                    if in_flight > 0 || !self.owes_file() {
                        let end = self.is_too_much(agenda);
                        if end.is_some() {
                            return end;
                        }
                    }
                    self.stalled(agenda, limits, io, key, left);
                    if backs_up {
                        agenda.stats.backed_up += 1;
                        self.back_up(agenda, io, key);
                    }
                }
                Flushed::ShareSpent => {
                    let left = queued - self.out.queued_bytes();
                    self.goes_on_later(agenda, io, key, left, backs_up);
                }
                Flushed::Failed(error) => return Some(End::failed(error)),
                Flushed::Broken(error) => return Some(End::reset(Lost::FileFailed(error))),
            }
        }
        if self.phase == Phase::Open && self.guard.is_none() {
            return None;
        }
        self.flushed(agenda, limits, io, key)
    }

    /// The rest of a file leaves when others have had their turn.
    #[cold]
    fn goes_on_later(
        &mut self,
        agenda: &mut Agenda,
        io: &mut dyn Io,
        key: Key,
        sent_bytes: usize,
        backs_up: bool,
    ) {
        self.progressed(sent_bytes);
        self.did_not_leave_whole(agenda, io, key);
        if backs_up {
            agenda.stats.backed_up += 1;
            self.back_up(agenda, io, key);
        }
        self.push_ready(agenda, key);
    }

    /// To be flushed when it leaves the ready list: a file comes next, whose share of an earlier turn may have been used
    /// up; or others have sent more since all of it left and before it has heard of room, which only the ready list or
    /// a send that was cut short brings.
    pub fn owes_flush(&self) -> bool {
        self.has(BACKED_UP) || self.owes_file()
    }

    fn owes_file(&self) -> bool {
        self.out.front_file().is_some()
    }

    /// Bytes of an earlier flush left. True when the protocol is to be told that there is room again.
    pub fn sent(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
        bytes: usize,
    ) -> Result<bool, End> {
        self.in_flight -= bytes;
        self.progressed(bytes);
        if self.waiting_bytes() > 0 {
            self.did_not_leave_whole(agenda, io, key);
        }
        if let Some(end) = self.flush(agenda, limits, io, key) {
            return Err(end);
        }
        Ok(self.take_room(limits))
    }

    /// True once when the queue has come down to low water: the protocol is to be told.
    pub fn take_room(&mut self, limits: &ConnLimits) -> bool {
        let room = self.has(BACKED_UP) && self.waiting_bytes() <= limits.write_low_bytes;
        if room {
            self.mark(BACKED_UP, false);
        }
        room && self.phase == Phase::Open
    }

    /// Holds the input back until `drained`.
    fn back_up(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        self.mark(BACKED_UP, true);
        self.rein(agenda, io, key);
    }

    fn flushed(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<End> {
        if self.waiting_bytes() > 0 {
            return None;
        }
        if self.phase == Phase::Lingering {
            return None;
        }
        if self.phase == Phase::Open && self.watches_on(io, key) {
            return None;
        }
        if self.guard.take().is_some() && self.phase == Phase::Open {
            self.output_left(agenda, key);
        }
        match self.phase {
            Phase::Closing => Some(End::closed()),
            Phase::Finishing if self.has(ENDED) => Some(End::closed()),
            Phase::Finishing => {
                io.finish(key);
                self.phase = Phase::Lingering;
                self.linger(agenda, limits, key);
                None
            }
            Phase::Connecting | Phase::Open | Phase::Lingering => None,
        }
    }

    /// What is queued leaves, then our direction ends; input is discarded.
    fn finish(&mut self, agenda: &mut Agenda) {
        self.phase = Phase::Finishing;
        self.mark(PAUSED, false);
        self.input.clear(&mut agenda.pool);
    }

    /// A connection that is about to close lingers if its last output has to wait for the peer: a reset, which answers
    /// whatever the peer may still send, would destroy what of it is under way.
    fn did_not_leave_whole(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        if self.phase == Phase::Closing && !self.has(ENDED) {
            self.finish(agenda);
            self.rein(agenda, io, key);
        }
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

    /// Gives back everything that is borrowed from the worker.
    pub fn release(&mut self, agenda: &mut Agenda) {
        self.out.clear(&mut agenda.pool);
        self.input.clear(&mut agenda.pool);
        self.deadlines.disarm(&mut agenda.timers);
    }
}
