//! Listeners of one worker: whom to admit, when to rest, how to close without losing anybody.
//!
//! When descriptors run out idle connections make room. If none can, the listener pauses, 10 ms at first and up to 1 s while it
//! goes on, as it does for any error: the loop never ends on an accept error, and never spins on one.
//!
//! A listener that closes first takes in everybody whom the kernel has told that they are connected. So it retires: the
//! kernel lets nobody begin a connection from then on (they try again, and find another process on the port or a closed one),
//! those who had begun get a moment to complete theirs, and then the driver is told to take in whoever stands in the queue:
//! when it says that nobody is left, the listener closes. A queue that somebody else goes on with is only drained, and one that the
//! process that follows goes on with is left to it.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::{Context, Fate, Peer, Protocol, Tables};
use crate::clockwork::Instant;
use crate::driver::{Close, Demand, Io, Retired, is_exhaustion};
use crate::mem::{self, Guarded, Key, KeySlab};
use crate::sys::{self, Address};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a retired listener stays for handshakes that had begun: a round trip within a continent. Who begins one meanwhile is
/// turned away without a word and tries again a second later (`TCP_TIMEOUT_INIT`), behind its end; so a longer time delays more
/// newcomers than it saves.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// Peers that a listener takes in while it closes, if newcomers are not kept away: twice the usual
/// backlog. Who comes later was not there when the drain began.
const CLOSING_PEERS_MAX: usize = 8192;

/// Idle time after which a connection may be closed for a newcomer: who has just connected is about to speak.
const IDLE_MIN: Duration = Duration::from_millis(250);
/// The same while there still is room: from three quarters of the most connections on, and when there are nearly as many as may be.
const IDLE_PRESSED: Duration = Duration::from_secs(60);
const IDLE_HARD_PRESSED: Duration = Duration::from_secs(1);
/// Idle connections closed at once when descriptors run out: what the next peers need before this happens again.
const EVICTED_FOR_DESCRIPTORS: usize = 16;

type Admit = Box<dyn FnMut(&mut Tables, Peer) -> Option<Key>>;

/// Whether somebody takes in those that a listener admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Open,
    /// There are as many as may wait: no more are accepted until it is open again.
    Full,
    /// Nobody does any more: the listener closes.
    Shut,
}

struct Listener {
    /// Shared by those of one address.
    admit: Guarded<Rc<RefCell<Admit>>>,
    pause: Duration,
    on_ready_list: bool,
    /// Its peers are served whatever the limits on connections say, with the last descriptor if need be.
    is_reserved: bool,
    /// Descriptors ran out; a timer lets it go on.
    is_resting: bool,
    closing: bool,
    /// The driver takes in whoever stands in the queue; when nobody does, it closes.
    is_drained: bool,
    /// Which `listen` call it is of.
    of: Option<usize>,
    /// What the process that follows knows its socket by.
    number: Option<usize>,
    /// Peers that it may still take in while it closes.
    newcomers_left: usize,
    /// Of one whose peers are taken in one by one.
    door: Option<Rc<Cell<Door>>>,
}

impl Listener {
    /// Whether there is room for a newcomer, if need be because somebody idle has gone.
    fn has_room(
        &self,
        tables: &mut Tables,
        cx: &mut Context,
        io: &mut dyn Io,
        addr: Option<&Address>,
    ) -> bool {
        if self.is_reserved {
            return true;
        }
        if addr.is_some_and(|addr| cx.addresses.is_full(addr)) {
            cx.agenda.stats.shed_by_address += 1;
            return false;
        }
        let (open, most) = (tables.len(), cx.limits.connections_max);
        let pressed_from = most - most / 4;
        if open < pressed_from {
            return true;
        }
        if open < most {
            let left = (most - open) as u32;
            let allowed = IDLE_PRESSED * left / (most / 4).max(1) as u32;
            evict(tables, cx, io, allowed.max(IDLE_HARD_PRESSED));
            return true;
        }
        evict(tables, cx, io, IDLE_MIN)
    }

    /// Whose its queue is.
    fn fate(&self, cx: &Context) -> Fate {
        match (&cx.handle.succession, self.number) {
            (Some(succession), Some(number)) => succession.shared.fate(number),
            _ => Fate::Ours,
        }
    }

    /// Takes a peer in, if there is room.
    fn take_in(
        &mut self,
        tables: &mut Tables,
        cx: &mut Context,
        io: &mut dyn Io,
        addr: Option<Address>,
        may_come: bool,
    ) -> Option<Key> {
        let admitted = if may_come && self.has_room(tables, cx, io, addr.as_ref()) {
            let addr = addr.clone().unwrap_or(Address::Unknown);
            self.admit(tables, cx, Peer { addr })
        } else {
            None
        };
        match admitted {
            Some(key) => {
                cx.agenda.stats.accepted += 1;
                cx.addresses.came(addr.as_ref(), key, !self.is_reserved);
            }
            None => cx.agenda.stats.shed += 1,
        }
        admitted
    }

    /// Runs the user's accept function; a panic in it costs the peer only.
    fn admit(&mut self, tables: &mut Tables, cx: &mut Context, peer: Peer) -> Option<Key> {
        let shown = peer.clone();
        let admitted = catch_unwind(AssertUnwindSafe(|| (self.admit.borrow_mut())(tables, shown)));
        sys::assert_not_forked();
        admitted.unwrap_or_else(|payload| {
            cx.agenda.stats.panics += 1;
            crate::log::panicked(&peer);
            mem::discard_payload(payload);
            None
        })
    }
}

/// Closes the longest idle connection of those that are looked at, if it has been idle for so long. True if there was one.
fn evict(tables: &mut Tables, cx: &mut Context, io: &mut dyn Io, idle_for: Duration) -> bool {
    let now = cx.agenda.clock.now().duration_since(Instant::ZERO);
    let idle_before = now.checked_sub(idle_for).map(|before| Instant::ZERO.saturating_add(before));
    idle_before.is_some_and(|before| tables.evict(cx, io, before))
}

/// The listeners of one worker.
pub struct Listeners {
    slots: KeySlab<Listener>,
}

impl Listeners {
    pub fn new() -> Self {
        Self { slots: KeySlab::new(Tables::LISTENERS) }
    }

    /// A listener whose peers get a protocol from `accept`.
    ///
    /// # Panics
    /// With more listeners than a slab holds.
    pub fn add<P: Protocol>(&mut self, mut accept: impl FnMut(Peer) -> P + 'static) -> Key {
        let admit: Admit = Box::new(move |tables, peer| tables.of::<P>()?.admit(accept(peer)));
        self.add_one(Rc::new(RefCell::new(admit)), false)
    }

    /// Another socket at the address of a listener.
    ///
    /// # Panics
    /// With more listeners than a slab holds.
    pub fn add_another(&mut self, of: Key) -> Option<Key> {
        let first = self.slots.get(of)?;
        let (admit, is_reserved) = (Rc::clone(&first.admit), first.is_reserved);
        Some(self.add_one(admit, is_reserved))
    }

    fn add_one(&mut self, admit: Rc<RefCell<Admit>>, is_reserved: bool) -> Key {
        let listener = Listener {
            admit: Guarded::new(admit),
            pause: PAUSE_MIN,
            on_ready_list: false,
            is_reserved,
            is_resting: false,
            closing: false,
            is_drained: false,
            of: None,
            number: None,
            newcomers_left: usize::MAX,
            door: None,
        };
        self.slots.insert_with(|_| listener).expect("fewer listeners than a slab holds")
    }

    /// Keeps room for this listener's peers.
    pub fn reserve(&mut self, key: Key) {
        if let Some(listener) = self.slots.get_mut(key) {
            listener.is_reserved = true;
        }
    }

    /// Which `listen` call it is of, and what the process that follows knows its socket by.
    pub fn set_origin(&mut self, key: Key, of: usize, number: Option<usize>) {
        if let Some(listener) = self.slots.get_mut(key) {
            (listener.of, listener.number) = (Some(of), number);
        }
    }

    /// One of this `listen` call.
    pub fn of(&self, of: usize) -> Option<Key> {
        self.slots.keys().find(|key| self.slots.get(*key).is_some_and(|listener| listener.of == Some(of)))
    }

    /// Its peers are taken in at this door, and whoever moves it has the listener looked after ([`stirred`](Self::stirred)).
    pub fn set_door(&mut self, key: Key, door: Rc<Cell<Door>>) {
        if let Some(listener) = self.slots.get_mut(key) {
            listener.door = Some(door);
        }
    }

    /// Its door may have moved.
    pub fn stirred(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(listener) = self.slots.get_mut(key) else { return };
        match listener.door.as_ref().map(|door| door.get()) {
            Some(Door::Shut) => self.remove(io, key),
            Some(Door::Full) => {
                io.receive(key, Demand::Pause);
            }
            Some(Door::Open) if !listener.is_resting => {
                // Of one that is drained the end of its queue is still to be found.
                if io.receive(key, Demand::Flow) || listener.is_drained {
                    self.unfinished(cx, key);
                }
            }
            Some(Door::Open) | None => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A peer was accepted, or accepting failed.
    pub fn accepted(
        &mut self,
        tables: &mut Tables,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        peer: io::Result<Option<Address>>,
    ) -> Option<Key> {
        let listener = self.slots.get_mut(key)?;
        if listener.newcomers_left == 0 {
            self.remove(io, key);
            return None;
        }
        match peer {
            Ok(addr) => {
                listener.newcomers_left -= usize::from(listener.closing);
                if !listener.is_resting {
                    listener.pause = PAUSE_MIN;
                }
                // Of one that rests, he took the last descriptor.
                let may_come = listener.is_reserved || !listener.is_resting;
                let admitted = listener.take_in(tables, cx, io, addr, may_come);
                // The driver has more of them in hand.
                if listener.door.as_ref().is_some_and(|door| door.get() == Door::Full) {
                    io.receive(key, Demand::Pause);
                }
                admitted
            }
            Err(error) => {
                let evicted = (0..EVICTED_FOR_DESCRIPTORS).take_while(|_| evict(tables, cx, io, IDLE_MIN));
                if is_exhaustion(&error) && evicted.count() > 0 {
                    io.receive(key, Demand::Flow);
                    return None;
                }
                crate::log::accept_paused(&error, listener.pause);
                listener.is_resting = true;
                let now = cx.agenda.clock.now();
                cx.agenda.timers.insert(now, now.saturating_add(listener.pause), key);
                listener.pause = (listener.pause * 2).min(PAUSE_MAX);
                None
            }
        }
    }

    /// A peer has come from the process before, with its descriptor.
    pub fn arrived(
        &mut self,
        tables: &mut Tables,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        peer: Address,
    ) -> Option<Key> {
        self.slots.get_mut(key)?.take_in(tables, cx, io, Some(peer), true)
    }

    /// A pause is over, or the time for handshakes.
    pub fn expired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(listener) = self.slots.get_mut(key) else { return };
        listener.is_resting = false;
        let closing = listener.closing;
        let is_full = listener.door.as_ref().is_some_and(|door| door.get() == Door::Full);
        if !is_full && io.receive(key, Demand::Flow) {
            self.unfinished(cx, key);
        }
        if closing {
            self.drain(cx, io, key);
        }
    }

    /// Has the driver take in whoever stands in the queue, and close behind them.
    fn drain(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(listener) = self.slots.get_mut(key) else { return };
        listener.is_drained = true;
        if io.drain_listener(key) {
            self.unfinished(cx, key);
        }
    }

    /// Nobody is left in the queue.
    pub fn empty(&mut self, io: &mut dyn Io, key: Key) {
        if self.slots.get(key).is_some_and(|listener| listener.is_drained) {
            self.remove(io, key);
        }
    }

    fn remove(&mut self, io: &mut dyn Io, key: Key) {
        self.slots.remove(key);
        io.close(key, Close::Now);
    }

    /// One that does not listen.
    pub fn forget(&mut self, key: Key) {
        self.slots.remove(key);
    }

    /// More peers may be waiting.
    pub fn unfinished(&mut self, cx: &mut Context, key: Key) {
        let Some(listener) = self.slots.get_mut(key) else { return };
        if !listener.on_ready_list {
            listener.on_ready_list = true;
            cx.agenda.ready.push(key);
        }
    }

    /// Peers may be waiting at any of them.
    pub fn look_at_all(&mut self, cx: &mut Context) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            self.unfinished(cx, key);
        }
    }

    /// Left the ready list. True when the driver should accept more.
    pub fn resume(&mut self, key: Key) -> bool {
        let Some(listener) = self.slots.get_mut(key) else { return false };
        listener.on_ready_list = false;
        if listener.door.as_ref().is_some_and(|door| door.get() != Door::Open) {
            return false;
        }
        // Whoever stands in the queue waits for a descriptor; the end of the pause brings it back.
        !(listener.closing && listener.is_resting)
    }

    /// Takes in who stands in the queues or is about to, then closes.
    pub fn close_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        let now = cx.agenda.clock.now();
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            let Some(listener) = self.slots.get_mut(key) else { continue };
            listener.closing = true;
            let retired = match listener.fate(cx) {
                Fate::Ours => io.retire(key),
                Fate::Lent => Retired::Not,
                Fate::Handed => {
                    self.remove(io, key);
                    continue;
                }
            };
            match retired {
                Retired::Soon => {
                    // Never up to the end of the drain: whoever comes in needs some of it.
                    let wait = HANDSHAKES.min(cx.drain_ends.duration_since(now) / 2);
                    cx.agenda.timers.insert(now, now.saturating_add(wait), key);
                }
                Retired::Now => self.expired(cx, io, key),
                Retired::Not => {
                    listener.newcomers_left = CLOSING_PEERS_MAX;
                    self.expired(cx, io, key);
                }
            }
        }
    }

    /// Closes at once: who stands in the queues is reset by the kernel.
    pub fn cut_all(&mut self, io: &mut dyn Io) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            self.remove(io, key);
        }
    }

    pub fn reclaim(&mut self) {
        self.slots.reclaim();
    }
}
