//! What the stream engine of the pollers asks of a ring: the half that takes orders.
//!
//! Listeners, datagram sockets, connects and room to send are polls of the ring, and what follows is the engine's, as with any poller.
//! Input of streams is received by the kernel, and small output leaves with the next enter (`sending.rs`): the engine has
//! no part in either.
//!
//! Invariant: a stream that flows has a receive outstanding, or is in one of the lists of those that get one in this turn, or
//! was reported unfinished. One that does not flow has a poll for its end instead from the next wait on.
//!
//! Nothing is borrowed while a program's code runs.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::poll::source::{CONNECTING, ENDED, PAUSED, POLLED, Source};
use super::super::poll::streams::Register;
use super::super::{Flushed, Interest, IoCounts};
use super::buffers::{Buffers, GROUP};
use super::ring::{Answer, Ring};
use super::selftest::Features;
use super::sending::Soon;
use super::slots::{Kind, OrderId, Orders};
use crate::mem::{Key, KeyMap, Pool, WriteQueue};
use crate::sys;

/// Input or peers, whichever it is, reported each time.
const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;
/// The peer's end. Errors and hang-ups are reported with every poll, and this is as well.
const END: u32 = libc::POLLRDHUP as u32;
/// As for epoll: of those that wait for one queue, one is woken.
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;

/// The orders of one source.
#[derive(Default)]
pub struct Side {
    /// Receives, or waits for peers or datagrams.
    pub input: OrderId,
    /// That was told to end, and has not yet.
    pub stops: bool,
    /// Waits for room, or for a connect.
    pub room: OrderId,
    /// Waits for the end of a stream.
    pub end: OrderId,
    /// One more than its place among what is sent soon; zero if it has none there.
    pub soon: u32,
    /// It is in the list of those whose rein has changed.
    pub is_reined: bool,
    /// Its port is to be free when it is let go: of listeners and of datagram sockets.
    pub closes_at_once: bool,
}

impl Side {
    fn has_nothing_outstanding(&self) -> bool {
        self.input.is_none() && self.room.is_none() && self.end.is_none()
    }
}

/// The ring of a worker with everything that is outstanding in it.
pub struct State {
    // In front of the buffers, which have to outlive it.
    pub ring: Ring,
    pub buffers: Buffers,
    pub orders: Orders,
    pub sides: KeyMap<Side>,
    pub soon: Vec<Soon>,
    /// Whether something has to be done when the next enter is over, which must not wait then.
    pub acts_next: bool,
    /// Streams that were paused or let go, or have ended, since the last wait.
    pub reined: Vec<Key>,
    /// Streams whose receive has found no buffer.
    pub starved: Vec<Key>,
    /// What a receive brings at most before it is given again.
    cap: Option<u32>,
    /// Everything has been ended.
    pub is_over: bool,
}

impl State {
    pub fn receive(&mut self, fd: BorrowedFd<'_>, key: Key) {
        let Some(side) = self.sides.get_mut(key).filter(|side| side.input.is_none()) else { return };
        side.input = self.orders.begin(Kind::Input, key);
        self.ring.receive(fd, GROUP, self.cap, side.input.to_bits());
    }

    /// Orders a poll in one of the places of a source, if there is none.
    fn poll(&mut self, fd: BorrowedFd<'_>, key: Key, kind: Kind, events: u32, each_time: bool) {
        let Some(side) = self.sides.get_mut(key) else { return };
        let place = match kind {
            Kind::Room | Kind::DatagramRoom => &mut side.room,
            Kind::End => &mut side.end,
            _ => &mut side.input,
        };
        if place.is_none() {
            *place = self.orders.begin(kind, key);
            self.ring.poll(fd, events, each_time, place.to_bits());
        }
    }

    /// Reports peers at a listener once.
    pub fn poll_peers(&mut self, fd: BorrowedFd<'_>, key: Key, shared: bool) {
        self.poll(fd, key, Kind::Peers, if shared { IN | EXCLUSIVE } else { IN }, false);
    }

    /// Reports edges of a stream.
    pub fn poll_edges(&mut self, fd: BorrowedFd<'_>, key: Key) {
        // Not of urgent data: what a poll of the ring says of that when input comes is not so.
        self.poll(fd, key, Kind::Edges, IN | END, true);
    }

    pub fn poll_datagrams(&mut self, fd: BorrowedFd<'_>, key: Key) {
        self.poll(fd, key, Kind::Datagrams, IN, true);
    }

    /// The order has had its last answer.
    pub fn ended(&mut self, id: u64, owner: Option<Key>) {
        self.orders.end(id);
        if let Some(side) = owner.and_then(|key| self.sides.get_mut(key)) {
            for place in [&mut side.input, &mut side.room, &mut side.end] {
                if place.to_bits() == id {
                    *place = OrderId::NONE;
                }
            }
            side.stops &= !side.input.is_none();
        }
    }

    /// A source has nothing outstanding from here on; what is said of it goes to nobody.
    fn forget(&mut self, side: &Side) {
        for id in [side.input, side.room, side.end] {
            if !id.is_none() {
                self.orders.disown(id);
                self.ring.cancel(id.to_bits());
            }
        }
    }

    /// Has the receive of a stream end. What it has brought by then is delivered; behind its last answer whoever flows goes on.
    fn stop(&mut self, key: Key) {
        if let Some(side) = self.sides.get_mut(key)
            && !side.input.is_none()
            && !std::mem::replace(&mut side.stops, true)
        {
            self.ring.cancel(side.input.to_bits());
        }
    }

    /// Brings the orders of a stream in line with whether it flows.
    pub fn rein(&mut self, key: Key, source: Option<&Source>) {
        let Some(side) = self.sides.get_mut(key) else { return };
        side.is_reined = false;
        let Some(source) = source.filter(|source| !source.has(CONNECTING)) else { return };
        if source.has(POLLED) {
            return self.poll_edges(source.fd.as_fd(), key);
        }
        if !source.has(PAUSED | ENDED) {
            return self.receive(source.fd.as_fd(), key);
        }
        self.stop(key);
        self.poll(source.fd.as_fd(), key, Kind::End, END, true);
    }
}

/// The order-taking half.
pub struct Half {
    pub state: RefCell<State>,
    /// Descriptors of somebody else, of which it has to be said at once what cannot be watched. The ring polls it.
    pub watched: sys::Epoll,
    features: Features,
}

impl Half {
    /// A ring with these features.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(features: Features) -> io::Result<Self> {
        let ring = Ring::new()?;
        let buffers = Buffers::new(&ring, features)?;
        let state = State {
            ring,
            buffers,
            orders: Orders::new(),
            sides: KeyMap::new(),
            soon: Vec::new(),
            acts_next: false,
            reined: Vec::new(),
            starved: Vec::new(),
            cap: None,
            is_over: false,
        };
        Ok(Self { state: RefCell::new(state), watched: sys::Epoll::new()?, features })
    }

    /// How much of one stream may come in one turn.
    pub fn set_cap(&self, read_bytes: usize) {
        if self.features.caps {
            self.state.borrow_mut().cap = Some(u32::try_from(read_bytes.max(1)).unwrap_or(u32::MAX));
        }
    }

    /// Whether a stream has a receive outstanding, or an answer of one that was not delivered.
    pub fn receives(&self, key: Key) -> bool {
        let state = self.state.borrow();
        let input = state.sides.get(key).map_or(OrderId::NONE, |side| side.input);
        matches!(state.orders.get(input.to_bits()), Some((Kind::Input, _)))
    }

    /// The next wait sees to the orders of a stream.
    pub fn rein_later(&self, key: Key) {
        let mut state = self.state.borrow_mut();
        if let Some(side) = state.sides.get_mut(key)
            && !std::mem::replace(&mut side.is_reined, true)
        {
            state.reined.push(key);
        }
    }

    /// Reports when a stream has room.
    pub fn await_stream_room(&self, fd: BorrowedFd<'_>, key: Key) {
        self.state.borrow_mut().poll(fd, key, Kind::Room, OUT, false);
    }

    /// Takes the next answer about a stream out of those that have come in.
    pub fn next_of(&self, key: Key) -> Option<Answer> {
        let mut state = self.state.borrow_mut();
        let State { ring, orders, buffers, .. } = &mut *state;
        let is_its =
            |answer: &Answer| matches!(orders.get(answer.id), Some((_, Some(owner))) if owner == key);
        let at = ring.came().iter().position(is_its)?;
        if at > 0 {
            buffers.place_all(ring.came().range_mut(..=at));
        }
        ring.came().remove(at)
    }

    fn begin(&self, key: Key) {
        let replaced = self.state.borrow_mut().sides.insert(key, Side::default());
        assert!(replaced.is_none(), "a key names one source at a time");
    }
}

impl Register for Half {
    const REPORTS_LISTENERS_ONCE: bool = false;
    const MOVES_BYTES: bool = true;
    const CALLS: u64 = 0;

    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.begin(key);
        self.state.borrow_mut().receive(fd, key);
        Ok(())
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Register::watch(&self.watched, fd, token, interest)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Register::unwatch(&self.watched, fd)
    }

    fn register_connecting(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.begin(key);
        self.state.borrow_mut().poll(fd, key, Kind::Room, OUT, false);
        Ok(())
    }

    fn is_connected(&self, fd: BorrowedFd<'_>, key: Key) {
        // Its opener may pause it, and the next wait sees to that.
        self.state.borrow_mut().receive(fd, key);
    }

    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.sides.get(key).is_none() {
            state.sides.insert(key, Side { closes_at_once: true, ..Side::default() });
        }
        state.poll_peers(fd, key, shared);
        Ok(())
    }

    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool, hush: bool) -> io::Result<()> {
        if !hush {
            return self.register_listener(fd, key, shared);
        }
        let mut state = self.state.borrow_mut();
        if let Some(side) = state.sides.get_mut(key) {
            let side = std::mem::replace(side, Side { closes_at_once: true, ..Side::default() });
            state.forget(&side);
        }
        Ok(())
    }

    fn forget(&self, _fd: BorrowedFd<'_>) {
        // `release` follows.
    }

    fn register_datagrams(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.begin(key);
        let mut state = self.state.borrow_mut();
        if let Some(side) = state.sides.get_mut(key) {
            side.closes_at_once = true;
        }
        state.poll_datagrams(fd, key);
        Ok(())
    }

    fn await_room(&self, fd: BorrowedFd<'_>, key: Key, awaits: bool) -> io::Result<()> {
        if awaits {
            self.state.borrow_mut().poll(fd, key, Kind::DatagramRoom, OUT, false);
        }
        Ok(())
    }

    fn release(&self, key: Key, fd: OwnedFd) {
        let mut state = self.state.borrow_mut();
        let Some(side) = state.sides.remove(key) else { return drop(fd) };
        if side.soon > 0 {
            state.forget(&side);
            return state.close_behind(side.soon, fd);
        }
        if side.has_nothing_outstanding() && !state.ring.has_orders() {
            return drop(fd);
        }
        state.forget(&side);
        if side.closes_at_once {
            // Its port is free when this returns, as it is with a poller.
            state.submit();
            return drop(fd);
        }
        state.ring.close(fd);
    }

    fn reined(&self, key: Key) {
        // Who is let go to be offered what it left, and gives way again, must not have received in between.
        self.rein_later(key);
    }

    fn send_soon(
        &self,
        key: Key,
        source: &mut Source,
        queue: &mut WriteQueue,
        pool: &mut Pool,
        counts: &mut IoCounts,
    ) -> Option<Flushed> {
        self.state.borrow_mut().send_soon(key, source, queue, pool, counts)
    }

    fn sends_soon(&self, key: Key) -> bool {
        self.state.borrow().sides.get(key).is_some_and(|side| side.soon > 0)
    }

    fn unsent_bytes(&self, key: Key) -> usize {
        self.state.borrow().unsent_bytes(key)
    }

    fn finish_soon(&self, key: Key) -> bool {
        self.state.borrow_mut().finish_behind(key)
    }

    fn await_writable(&self, fd: BorrowedFd<'_>, key: Key) {
        self.await_stream_room(fd, key);
    }

    fn poll_instead(&self, fd: BorrowedFd<'_>, key: Key) {
        let mut state = self.state.borrow_mut();
        state.stop(key);
        // If nothing is to end first.
        state.poll_edges(fd, key);
    }

    fn shrink(&self) {
        let mut state = self.state.borrow_mut();
        state.buffers.shrink();
        state.orders.shrink();
        state.sides.shrink();
        state.soon.shrink_to_fit();
        state.ring.came().shrink_to_fit();
    }

    fn has_received(&self, key: Key) -> bool {
        let mut state = self.state.borrow_mut();
        let State { ring, orders, .. } = &mut *state;
        ring.came().iter().any(|answer| is_input(orders, answer, key))
    }

    fn take_received(&self, key: Key, into: &mut [u8]) -> usize {
        let mut state = self.state.borrow_mut();
        let State { ring, orders, buffers, .. } = &mut *state;
        // Without deferred work more may have come without an enter.
        ring.take_in();
        let Some(at) = ring.came().iter().position(|answer| is_input(orders, answer, key)) else { return 0 };
        buffers.place_all(ring.came().range_mut(..=at));
        let answer = &mut ring.came()[at];
        let Some(chunk) = buffers.received(*answer) else { return 0 };
        // SAFETY: the chunk is held, as its place is known and it is not delivered, and nobody else looks at it meanwhile.
        // (test: `what_was_received_of_a_stream_that_has_failed_is_salvaged_in_order`)
        let bytes = unsafe { buffers.place(chunk).bytes() };
        let len = into.len().min(bytes.len());
        into[..len].copy_from_slice(&bytes[..len]);
        // What is left stays, and be it nothing.
        answer.skip(len);
        len
    }

    fn is_blind(&self, key: Key) -> bool {
        self.state.borrow().sides.get(key).is_some_and(|side| side.input.is_none() || side.stops)
    }

    fn abandon(&self, key: Key) {
        self.state.borrow_mut().abandon(key);
    }

    fn closes_now(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let closes = state.ring.closes();
        if closes {
            state.submit();
        }
        closes
    }
}

/// Whether an answer has brought input of a stream.
fn is_input(orders: &Orders, answer: &Answer, key: Key) -> bool {
    answer.result > 0 && orders.get(answer.id) == Some((Kind::Input, Some(key)))
}
