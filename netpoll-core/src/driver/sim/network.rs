//! The network between the simulated driver and the tests: links, what goes wrong on them, and chance.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::mem::{Key, KeyMap, WriteQueue};

/// How often the network misbehaves, each in thousandths. Zero is never, 1000 always.
///
/// The default is a perfect network: whole chunks, immediate sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Input arrives in pieces of random length.
    pub partial_receives: u16,
    /// Output leaves in pieces of random length, later.
    pub partial_sends: u16,
    /// A connection stops delivering with input left, and has to be resumed.
    pub interrupted_receives: u16,
    /// Nothing is delivered for a connection in this turn.
    pub delays: u16,
    /// Accepting fails for want of a descriptor (EMFILE).
    pub descriptor_shortages: u16,
    /// Room to send is announced although nothing was sent.
    pub spurious_sent: u16,
    /// A chunk had left the socket already when its connection was paused, and comes in a later turn.
    pub late_receives: u16,
}

impl Faults {
    /// A perfect network.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            partial_receives: 0,
            partial_sends: 0,
            interrupted_receives: 0,
            delays: 0,
            descriptor_shortages: 0,
            spurious_sent: 0,
            late_receives: 0,
        }
    }

    /// Everything that goes wrong goes wrong often.
    #[must_use]
    pub const fn stormy() -> Self {
        Self {
            partial_receives: 700,
            partial_sends: 600,
            interrupted_receives: 300,
            delays: 300,
            descriptor_shortages: 100,
            spurious_sent: 100,
            late_receives: 500,
        }
    }
}

/// Sebastiano Vigna's SplitMix64: tiny, and good enough to shuffle a network.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(super) fn happens(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < usize::from(per_mille)
    }

    /// All of it, or a part of at least one.
    pub(super) fn part(&mut self, whole: usize, per_mille: u16) -> usize {
        if whole > 1 && self.happens(per_mille) { 1 + self.below(whole - 1) } else { whole }
    }
}

/// Bytes that a peer's socket buffer takes while the peer does not read.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits in the accept queue of a listener.
    Queued(Key),
    /// We connect; the peer has not answered.
    Dialing(Key),
    Open(Key),
    /// Our side is closed.
    Gone,
}

/// One connection in the simulated network, seen from the test.
pub struct Link {
    pub(super) state: State,
    pub(super) to_us: VecDeque<u8>,
    /// What the peer has read.
    pub received: Vec<u8>,
    /// In the peer's socket buffer.
    pub(super) unread: Vec<u8>,
    pub(super) in_flight: WriteQueue,
    pub(super) peer_reads: bool,
    pub(super) peer_finished: bool,
    pub(super) peer_reset: bool,
    pub(super) end_delivered: bool,
    pub(super) paused: bool,
    /// Since it was paused nothing has come.
    pub(super) may_be_late: bool,
    pub(super) interrupted: bool,
    /// That the peer has ended was told while the link was paused.
    pub(super) end_told: bool,
    pub(super) we_finished: bool,
    pub(super) we_reset: bool,
    pub(super) refused: bool,
}

impl Link {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            to_us: VecDeque::new(),
            received: Vec::new(),
            unread: Vec::new(),
            in_flight: WriteQueue::new(),
            peer_reads: true,
            peer_finished: false,
            peer_reset: false,
            end_delivered: false,
            end_told: false,
            paused: false,
            may_be_late: false,
            interrupted: false,
            we_finished: false,
            we_reset: false,
            refused: false,
        }
    }

    /// True once: the peer has ended, and nobody would learn of it, because the link is paused.
    pub(super) fn take_end_to_tell(&mut self) -> bool {
        let tell = self.paused && self.peer_finished && !self.end_delivered && !self.end_told;
        self.end_told |= tell;
        tell
    }

    /// The peer sees the end of our direction, or a reset.
    pub fn is_closed(&self) -> bool {
        self.we_reset || ((self.we_finished || self.state == State::Gone) && self.unread.is_empty())
    }

    pub fn is_reset(&self) -> bool {
        self.we_reset
    }
}

#[derive(Default)]
pub(super) struct Net {
    pub(super) links: Vec<Link>,
    pub(super) by_key: KeyMap<usize>,
    pub(super) listeners: KeyMap<bool>,
    /// Listeners that nobody new gets in line at.
    pub(super) retired: KeyMap<()>,
    pub(super) dialed: Vec<(usize, SocketAddr)>,
    pub(super) refuse: bool,
    pub(super) faults: Faults,
}

/// The network as the test sees it. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct SimNet {
    pub(super) net: Rc<RefCell<Net>>,
}

impl SimNet {
    pub fn new(faults: Faults) -> Self {
        Self { net: Rc::new(RefCell::new(Net { faults, ..Net::default() })) }
    }

    /// A peer connects to a listener; it waits there until it is accepted.
    pub fn connect(&self, listener: Key) -> usize {
        let mut net = self.net.borrow_mut();
        let is_late = net.retired.get(listener).is_some();
        net.links.push(Link::new(if is_late { State::Gone } else { State::Queued(listener) }));
        net.links.len() - 1
    }

    /// Nothing goes wrong here.
    pub fn is_perfect(&self) -> bool {
        self.net.borrow().faults == Faults::none()
    }

    /// Looks at one link.
    pub fn link<R>(&self, link: usize, look: impl FnOnce(&mut Link) -> R) -> R {
        look(&mut self.net.borrow_mut().links[link])
    }

    pub fn send(&self, link: usize, bytes: &[u8]) {
        self.link(link, |link| link.to_us.extend(bytes));
    }

    pub fn finish(&self, link: usize) {
        self.link(link, |link| link.peer_finished = true);
    }

    pub fn reset(&self, link: usize) {
        self.link(link, |link| link.peer_reset = true);
    }

    pub fn read(&self, link: usize, reads: bool) {
        self.link(link, |link| {
            link.peer_reads = reads;
            if reads {
                link.received.append(&mut link.unread);
            }
        });
    }

    /// Outgoing connections since the last call.
    pub fn take_dialed(&self) -> Vec<(usize, SocketAddr)> {
        std::mem::take(&mut self.net.borrow_mut().dialed)
    }

    /// Whether outgoing connections are refused from now on.
    pub fn refuse(&self, refuse: bool) {
        self.net.borrow_mut().refuse = refuse;
    }
}
