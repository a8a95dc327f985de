//! One connection of the simulated network, with both of its ends: what lies in which socket, what is on its way, and
//! what a kernel does about segments that nobody wants.
//!
//! Invariants: what is on its way arrives in the order in which it was sent, and not at all behind a reset. Bytes that
//! reach a closed socket are answered with a reset. A reset costs the receiver what it has not read yet: some kernels keep
//! it, others do not, so nobody may rely on it.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::faults::Faults;
use crate::clockwork::Instant;
use crate::mem::{Key, WriteQueue};
use crate::sys::Address;

/// Bytes that a peer's socket buffer takes while the peer does not read.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// Our end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits in the accept queue of a listener.
    Queued(Key),
    /// We connect; the peer answers at this time, or never.
    Dialing(Key, Option<Instant>),
    Open(Key),
    /// Our side is closed.
    Gone,
}

/// What travels.
pub enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// Segments in one direction, in the order of their arrival.
#[derive(Default)]
pub struct Way {
    segments: VecDeque<(Instant, Segment)>,
    bytes: usize,
}

impl Way {
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.segments.front().map(|(at, _)| *at)
    }

    fn push(&mut self, at: Instant, segment: Segment) {
        if let Segment::Bytes(bytes) = &segment {
            self.bytes += bytes.len();
        }
        let last = self.segments.back().map_or(at, |(last, _)| at.max(*last));
        self.segments.push_back((last, segment));
    }

    fn pop(&mut self, now: Instant) -> Option<Segment> {
        if self.next_arrival()? > now {
            return None;
        }
        let (_, segment) = self.segments.pop_front()?;
        if let Segment::Bytes(bytes) = &segment {
            self.bytes -= bytes.len();
        }
        Some(segment)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

pub struct Link {
    pub state: State,
    pub worker: usize,
    /// The peer's address, for those that it connects from.
    pub addr: Address,
    /// Ours.
    pub local: Address,
    /// Its own, if it does not share those of the network.
    pub faults: Option<Faults>,
    pub latency: Option<RangeInclusive<Duration>>,
    pub window: Option<usize>,
    /// A dial that a listener of this world does not answer any more: of which worker, which one, and since when.
    pub unanswered: Option<(usize, Key, Instant)>,
    /// Nobody listens where it is dialed, which it learns at its time.
    pub is_refused: bool,
    /// What is left of a small window until its worker's next turn, while the peer reads.
    pub window_left: usize,

    /// In our socket.
    pub to_us: VecDeque<u8>,
    pub way_to_us: Way,
    /// The peer's FIN, or its reset, is here.
    pub finished: bool,
    pub reset: bool,
    pub eof_told: bool,
    pub reset_told: bool,
    /// That the peer has ended was told while the link was paused.
    pub ending_told: bool,
    pub paused: bool,
    /// Since it was paused nothing has come.
    pub may_be_late: bool,
    pub interrupted: bool,
    /// Its input is announced.
    pub announced: bool,
    /// A flush was cut short and left the rest in the queue: room is to be announced.
    pub blocked: bool,
    pub we_finished: bool,

    /// Taken out of the queue and not yet sent.
    pub in_flight: WriteQueue,
    pub way_to_peer: Way,
    /// In the peer's socket.
    pub unread: Vec<u8>,
    /// What the peer has read.
    pub received: Vec<u8>,
    pub peer_reads: bool,
    /// The peer sends no more: it has finished, closed or reset.
    pub peer_silent: bool,
    /// The peer's socket is closed.
    pub peer_closed: bool,
    /// The peer has sent a reset, or what it sends is answered with nothing any more.
    pub peer_reset: bool,
    /// What the peer has seen of our end.
    pub fin_seen: bool,
    pub reset_seen: bool,
}

impl Link {
    pub fn new(state: State, worker: usize, addr: Address, local: Address) -> Self {
        Self {
            state,
            worker,
            addr,
            local,
            faults: None,
            latency: None,
            window: None,
            unanswered: None,
            is_refused: false,
            window_left: 0,
            to_us: VecDeque::new(),
            way_to_us: Way::default(),
            finished: false,
            reset: false,
            eof_told: false,
            reset_told: false,
            ending_told: false,
            paused: false,
            may_be_late: false,
            interrupted: false,
            announced: false,
            blocked: false,
            we_finished: false,
            in_flight: WriteQueue::new(),
            way_to_peer: Way::default(),
            unread: Vec::new(),
            received: Vec::new(),
            peer_reads: true,
            peer_silent: false,
            peer_closed: false,
            peer_reset: false,
            fin_seen: false,
            reset_seen: false,
        }
    }

    /// True once: the peer has ended, and nobody would learn of it, because the link is paused.
    pub fn take_end_to_tell(&mut self) -> bool {
        let tell = self.has_end_to_tell();
        self.ending_told |= tell;
        tell
    }

    pub fn has_end_to_tell(&self) -> bool {
        self.paused && self.finished && !(self.reset || self.eof_told || self.ending_told)
    }

    /// Bytes that one send may take now.
    #[inline]
    pub fn room(&self) -> usize {
        match self.window {
            _ if self.peer_closed => usize::MAX,
            None if self.peer_reads => usize::MAX,
            Some(_) if self.peer_reads => self.window_left.saturating_sub(self.way_to_peer.bytes()),
            window => self.left_of(window.unwrap_or(WINDOW_BYTES)),
        }
    }

    /// There is room, or will be when its worker turns.
    pub fn has_room(&self) -> bool {
        match self.window {
            Some(window) if self.peer_reads && !self.peer_closed => self.left_of(window) > 0,
            _ => self.room() > 0,
        }
    }

    fn left_of(&self, window: usize) -> usize {
        window.saturating_sub(self.unread.len() + self.way_to_peer.bytes())
    }

    /// Its worker turns: who reads has taken what came before.
    pub fn reopen_window(&mut self) {
        if let Some(window) = self.window {
            self.window_left = window;
        }
    }

    /// Bytes that the peer has not read yet, which is as near as one comes to what it has not acknowledged.
    pub fn unacknowledged_bytes(&self) -> usize {
        self.unread.len() + self.way_to_peer.bytes()
    }

    /// What arrives at our end; a reset answers it if nobody is there.
    pub fn arrive(&mut self, segment: Segment) -> Option<Segment> {
        match segment {
            Segment::Bytes(bytes) => return self.arrive_bytes(&bytes),
            Segment::Fin => self.finished = true,
            Segment::Reset => {
                self.reset = true;
                self.way_to_peer.clear();
            }
        }
        None
    }

    /// Bytes that arrive at our end.
    pub fn arrive_bytes(&mut self, bytes: &[u8]) -> Option<Segment> {
        if self.state == State::Gone {
            return (!self.reset).then_some(Segment::Reset);
        }
        self.to_us.extend(bytes);
        None
    }

    /// What arrives at the peer.
    pub fn arrive_at_peer(&mut self, segment: Segment) -> Option<Segment> {
        match segment {
            Segment::Bytes(bytes) => return self.arrive_bytes_at_peer(&bytes),
            Segment::Fin => self.fin_seen = true,
            Segment::Reset => {
                self.reset_seen = true;
                self.unread.clear();
                self.way_to_us.clear();
            }
        }
        None
    }

    /// Bytes that arrive at the peer: for those that it does not want a closed socket answers with a reset, once.
    pub fn arrive_bytes_at_peer(&mut self, bytes: &[u8]) -> Option<Segment> {
        if self.peer_closed {
            return (!std::mem::replace(&mut self.peer_reset, true)).then_some(Segment::Reset);
        }
        let into = if self.peer_reads { &mut self.received } else { &mut self.unread };
        into.extend_from_slice(bytes);
        None
    }

    /// Takes what is in our socket, as far as there is room. How much.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let len = into.len().min(self.to_us.len());
        let (front, back) = self.to_us.as_slices();
        let first = len.min(front.len());
        into[..first].copy_from_slice(&front[..first]);
        into[first..len].copy_from_slice(&back[..len - first]);
        self.to_us.drain(..len);
        len
    }

    /// Sends a segment to the peer, and what comes back.
    pub fn send_to_peer(&mut self, travel: Travel, segment: Segment) {
        if self.way_to_peer.is_empty() && travel.is_none() {
            if let Some(answer) = self.arrive_at_peer(segment) {
                self.send_to_us(travel, answer);
            }
            return;
        }
        self.way_to_peer.push(travel.arrival(), segment);
    }

    /// Sends a segment to us, and what comes back.
    pub fn send_to_us(&mut self, travel: Travel, segment: Segment) {
        if self.way_to_us.is_empty() && travel.is_none() {
            if let Some(answer) = self.arrive(segment) {
                self.send_to_peer(travel, answer);
            }
            return;
        }
        self.way_to_us.push(travel.arrival(), segment);
    }

    /// Everything arrives that is due. What is sent back is under way for as long again.
    pub fn arrive_due(&mut self, travel: Travel) {
        while let Some(segment) = self.way_to_us.pop(travel.now) {
            if let Some(answer) = self.arrive(segment) {
                self.send_to_peer(travel, answer);
            }
        }
        while let Some(segment) = self.way_to_peer.pop(travel.now) {
            if let Some(answer) = self.arrive_at_peer(segment) {
                self.send_to_us(travel, answer);
            }
        }
    }

    /// Our socket is closed, with a reset if that is wanted or if there is input that nobody has read.
    pub fn hang_up(&mut self, travel: Travel, reset: bool) {
        self.state = State::Gone;
        let unread = !self.to_us.is_empty();
        self.to_us.clear();
        if self.reset {
            // Nobody is there any more to be told, and nothing of what was sent arrives.
            (self.fin_seen, self.way_to_peer) = (true, Way::default());
        } else if reset || unread {
            self.send_to_peer(travel, Segment::Reset);
        } else if !self.we_finished {
            self.send_to_peer(travel, Segment::Fin);
        }
    }

    /// What would have begun this connection is dropped, and everything behind it.
    pub fn drop_silently(&mut self) {
        (self.state, self.peer_silent) = (State::Gone, true);
    }

    /// The peer closes its socket.
    pub fn close_peer(&mut self, travel: Travel) {
        if self.peer_closed {
            return;
        }
        let finished = std::mem::replace(&mut self.peer_silent, true);
        self.peer_closed = true;
        if !self.unread.is_empty() {
            self.unread.clear();
            self.peer_reset = true;
            self.send_to_us(travel, Segment::Reset);
        } else if !finished {
            self.send_to_us(travel, Segment::Fin);
        }
    }

    /// The peer sends bytes.
    pub fn send_bytes_to_us(&mut self, travel: Travel, bytes: &[u8]) {
        if self.peer_silent {
            return;
        }
        if !self.way_to_us.is_empty() || !travel.is_none() {
            return self.way_to_us.push(travel.arrival(), Segment::Bytes(bytes.to_vec()));
        }
        if let Some(answer) = self.arrive_bytes(bytes) {
            self.send_to_peer(travel, answer);
        }
    }

    /// We send bytes.
    pub fn send_bytes_to_peer(&mut self, travel: Travel, bytes: &[u8]) {
        self.window_left = self.window_left.saturating_sub(bytes.len());
        if !self.way_to_peer.is_empty() || !travel.is_none() {
            return self.way_to_peer.push(travel.arrival(), Segment::Bytes(bytes.to_vec()));
        }
        if let Some(answer) = self.arrive_bytes_at_peer(bytes) {
            self.send_to_us(travel, answer);
        }
    }

    /// The peer sees the end of our direction and has read all before it, or sees a reset.
    pub fn is_closed(&self) -> bool {
        self.reset_seen || (self.fin_seen && self.unread.is_empty())
    }
}

/// When something is sent, and how long it is under way.
#[derive(Clone, Copy)]
pub struct Travel {
    pub now: Instant,
    pub time: Duration,
}

impl Travel {
    #[inline]
    pub fn is_none(self) -> bool {
        self.time.is_zero()
    }

    pub fn arrival(self) -> Instant {
        self.now.saturating_add(self.time)
    }
}
