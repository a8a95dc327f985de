//! What the machinery knows of one connection, whatever its protocol: queue, remainder, deadlines, phase.
//!
//! What it does about input is in `course.rs`, about output in `output.rs`, about its machinery's own deadline in `guard.rs`.
//! Invariants:
//! - a connection stands on the ready list, and on the dirty list, at most once: its mark says so;
//! - an idle connection owns no block: queue and remainder are empty, and then they own nothing.
//!
//! A [`End`] that comes back means that the connection is over; its table does the rest.

use std::sync::Arc;

use super::Lost;
use super::deadline::Deadlines;
use super::guard::Guard;
use crate::driver::Close;
use crate::mem::{Key, ReadBuffer, WriteQueue};
use crate::reactor::Agenda;
use crate::task::WakeTarget;

/// The protocol paused reading.
pub(super) const PAUSED: u16 = 1;
/// The protocol gave way; input is offered again in the next turn.
pub(super) const YIELDED: u16 = 1 << 1;
/// The queue passed high water and has not come down yet.
pub(super) const BACKED_UP: u16 = 1 << 2;
/// The driver was told to pause.
pub(super) const HELD: u16 = 1 << 3;
/// The peer has sent all it will send.
pub(super) const ENDED: u16 = 1 << 4;
pub(super) const ON_READY_LIST: u16 = 1 << 5;
pub(super) const ON_DIRTY_LIST: u16 = 1 << 6;
/// The driver knows that the peer has ended, behind input that is held back, and the protocol was not told yet.
pub(super) const PEER_ENDING: u16 = 1 << 7;
/// Output that had to wait has left, and the protocol was not told yet.
pub(super) const OUTPUT_LEFT: u16 = 1 << 8;
/// A deadline that has passed waits for the turn of input that the protocol left for later.
pub(super) const DEADLINE_WAITS: u16 = 1 << 9;
/// That turn has come.
pub(super) const TURN_CAME: u16 = 1 << 10;
/// The protocol keeps something for itself that it wants to be offered, or to send, when input flows again.
pub(super) const KEEPS: u16 = 1 << 11;
/// Its input goes to another connection (`forward.rs`).
pub(super) const FORWARDS: u16 = 1 << 12;
/// The input of another connection comes here.
pub(super) const FED: u16 = 1 << 13;
/// The connection that its input goes to has no room, or is not open yet.
pub(super) const HELD_BY_TARGET: u16 = 1 << 14;
/// Another connection has paused it.
pub(super) const HELD_BY_OTHERS: u16 = 1 << 15;

/// It was dialed: its worker knows it by a name of its own.
const DIALED: u8 = 1;
/// A layer has it: its bytes on the wire are not those of its protocol.
const LAYERED: u8 = 1 << 1;
/// Its input has ended while it went to another connection, and the end was not passed on yet.
const END_WAITS: u8 = 1 << 2;
/// The grace of a drain begins when it is no end of a link any more.
const RETIRES_LATER: u8 = 1 << 3;
/// What waits to leave holds no input back: its output ends as soon as a layer has room for the rest of it.
const HEARS_ON: u8 = 1 << 4;
/// Its own protocol has ended our direction.
const SAID_END: u8 = 1 << 5;

/// Our direction ends before the reset that it waits for.
const ENDS_BEFORE_CUT: u8 = 1 << 6;
/// A task has it, and writes past its queue.
const IN_TASK: u8 = 1 << 7;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    /// As `Connecting`; our direction ends as soon as it is open.
    ConnectingToFinish,
    Open,
    /// Our direction ends behind what is queued; input goes on.
    HalfClosing,
    /// Our direction has ended; input goes on.
    HalfClosed,
    /// Close as soon as everything has been sent.
    Closing,
    /// End our direction as soon as everything has been sent; input is discarded.
    Finishing,
    /// Our direction is ended; input is discarded until the peer ends too.
    Lingering,
    /// Reset as soon as the peer's side has all that was queued: the source of a link has failed (`forward.rs`).
    Cutting,
}

impl Phase {
    /// It is not made yet.
    pub fn is_connecting(self) -> bool {
        matches!(self, Self::Connecting | Self::ConnectingToFinish)
    }

    /// Its protocol is called: input is received.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosing | Self::HalfClosed)
    }

    /// Its protocol is called, and what it sends is dropped.
    pub fn is_half_closed(self) -> bool {
        matches!(self, Self::HalfClosing | Self::HalfClosed)
    }
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
    pub(super) in_flight: usize,
    pub(super) discarded: u32,
    pub phase: Phase,
    pub(super) bits: u16,
    /// What few connections are.
    rare: u8,
}

// With its generation (8 B) and the driver's part (16 B) a slot is at most 120 B, plus the protocol's own state.
const _: () = assert!(size_of::<Stream>() <= 96);

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
            rare: 0,
        }
    }

    #[inline]
    pub(super) fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    /// Sets those of a mask, and returns what they were.
    #[inline]
    pub(super) fn exchange(&mut self, mask: u16, bits: u16) -> u16 {
        let were = self.bits & mask;
        self.bits = (self.bits & !mask) | bits;
        were
    }

    #[inline]
    pub(super) fn mark(&mut self, bit: u16, on: bool) {
        self.bits = if on { self.bits | bit } else { self.bits & !bit };
    }

    pub fn set_dialed(&mut self) {
        self.rare |= DIALED;
    }

    /// It has a name beside its key.
    #[inline]
    pub fn is_dialed(&self) -> bool {
        self.rare & DIALED != 0
    }

    /// From now on, and until it ends, a task has it.
    pub fn set_in_task(&mut self) {
        self.rare |= IN_TASK;
    }

    /// It leads to a server, or will, some task or state has it, and all that it was given to send has left: whoever waits for it, a drain need
    /// not.
    pub fn is_quiet_client(&self) -> bool {
        self.rare & (IN_TASK | DIALED) == IN_TASK | DIALED
            && (self.phase.is_open() || self.phase.is_connecting())
            && self.waiting_bytes() == 0
    }

    /// A layer or a task has it: what comes and goes is theirs, and no end of a link.
    pub fn is_linkable(&self) -> bool {
        self.rare & (LAYERED | IN_TASK) == 0
    }

    /// From now on, and until it ends, a layer has it.
    pub fn set_layered(&mut self) {
        self.rare |= LAYERED;
    }

    /// A layer has it, wherever in its protocol that is.
    #[inline]
    pub fn is_layered(&self) -> bool {
        self.rare & LAYERED != 0
    }

    /// Its input has ended, and goes to another connection: the end is still to be passed on.
    pub fn set_end_waits(&mut self) {
        self.rare |= END_WAITS;
    }

    /// The end of its input has gone where its input goes.
    pub fn end_was_passed_on(&mut self) {
        self.rare &= !END_WAITS;
    }

    /// Its protocol, which has its input itself again, is to be told that it has ended.
    pub fn owes_end(&self) -> bool {
        self.rare & END_WAITS != 0 && !self.has(FORWARDS)
    }

    pub fn set_retires_later(&mut self) {
        self.rare |= RETIRES_LATER;
    }

    /// True once.
    pub fn take_retires_later(&mut self) -> bool {
        let was = self.rare & RETIRES_LATER != 0;
        self.rare &= !RETIRES_LATER;
        was
    }

    pub fn hears_on(&self) -> bool {
        self.rare & HEARS_ON != 0
    }

    /// Whether output that waits holds input back. Returns what it was.
    pub fn set_hears_on(&mut self, on: bool) -> bool {
        let was = self.hears_on();
        self.rare = if on { self.rare | HEARS_ON } else { self.rare & !HEARS_ON };
        was
    }

    /// Our direction is to end behind what is queued, and then it is reset.
    pub fn set_ends_before_cut(&mut self, ends: bool) {
        self.rare = if ends { self.rare | ENDS_BEFORE_CUT } else { self.rare & !ENDS_BEFORE_CUT };
    }

    /// True once.
    pub fn take_ends_before_cut(&mut self) -> bool {
        let ends = self.rare & ENDS_BEFORE_CUT != 0;
        self.set_ends_before_cut(false);
        ends
    }

    /// Its own protocol ends our direction: it is no end of a source that is passed on.
    pub fn say_end(&mut self) {
        self.rare |= SAID_END;
    }

    /// Its own protocol has ended our direction, or closes it.
    pub fn has_said_end(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::ConnectingToFinish | Phase::Open => false,
            Phase::HalfClosing | Phase::HalfClosed => self.rare & SAID_END != 0,
            Phase::Closing | Phase::Finishing | Phase::Lingering | Phase::Cutting => true,
        }
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

    /// Gives back everything that is borrowed from the worker.
    pub fn release(&mut self, agenda: &mut Agenda) {
        self.out.clear(&mut agenda.pool);
        self.input.clear(&mut agenda.pool);
        self.deadlines.disarm(&mut agenda.timers);
    }
}
