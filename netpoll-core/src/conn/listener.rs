//! Listeners of one worker: whom to admit, when to rest, how to close without losing anybody.
//!
//! When descriptors run out the listener pauses, 10 ms at first and up to 1 s while it goes on: the loop
//! never ends on an accept error, and never spins on one. A listener that closes first takes in
//! everybody who stands in its accept queue.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Context, Peer, Protocol, Tables};
use crate::driver::{Close, Demand, Io};
use crate::mem::{Key, KeySlab};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

type Admit = Box<dyn FnMut(&mut Tables, Peer) -> Option<Key>>;

struct Listener {
    admit: Admit,
    pause: Duration,
    on_ready_list: bool,
    closing: bool,
    /// Peers taken in since it was last resumed.
    accepted: usize,
}

impl Listener {
    /// Runs the user's accept function; a panic in it costs the peer only.
    fn admit(&mut self, tables: &mut Tables, cx: &mut Context, peer: Peer) -> Option<Key> {
        let admitted = catch_unwind(AssertUnwindSafe(|| (self.admit)(tables, peer)));
        admitted.unwrap_or_else(|_| {
            cx.agenda.stats.panics += 1;
            crate::log::panicked(&peer);
            None
        })
    }
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
        let admit: Admit = Box::new(move |tables, peer| tables.of::<P>().admit(accept(peer)));
        let listener =
            Listener { admit, pause: PAUSE_MIN, on_ready_list: false, closing: false, accepted: 0 };
        self.slots.insert_with(|_| listener).expect("fewer listeners than a slab holds")
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A peer was accepted, or accepting failed.
    pub fn accepted(
        &mut self,
        tables: &mut Tables,
        cx: &mut Context,
        key: Key,
        peer: io::Result<SocketAddr>,
    ) -> Option<Key> {
        let listener = self.slots.get_mut(key)?;
        match peer {
            Ok(addr) => {
                listener.pause = PAUSE_MIN;
                listener.accepted += 1;
                let full = tables.len() >= cx.limits.connections_max;
                let admitted = if full { None } else { listener.admit(tables, cx, Peer { addr }) };
                match admitted {
                    Some(_) => cx.agenda.stats.accepted += 1,
                    None => cx.agenda.stats.shed += 1,
                }
                admitted
            }
            Err(error) => {
                crate::log::accept_paused(&error, listener.pause);
                let now = cx.agenda.clock.now();
                cx.agenda.timers.insert(now, now.saturating_add(listener.pause), key);
                listener.pause = (listener.pause * 2).min(PAUSE_MAX);
                None
            }
        }
    }

    /// The pause is over.
    pub fn expired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        if io.receive(key, Demand::Flow) {
            self.unfinished(cx, key);
        }
    }

    /// More peers may be waiting.
    pub fn unfinished(&mut self, cx: &mut Context, key: Key) {
        let Some(listener) = self.slots.get_mut(key) else { return };
        if !listener.on_ready_list {
            listener.on_ready_list = true;
            cx.agenda.ready.push(key);
        }
    }

    /// Left the ready list. True when the driver should accept more.
    pub fn resume(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(listener) = self.slots.get_mut(key) else { return false };
        listener.on_ready_list = false;
        if !listener.closing {
            return true;
        }
        if std::mem::take(&mut listener.accepted) == 0 {
            self.slots.remove(key);
            io.close(key, Close::Now);
            return false;
        }
        self.unfinished(cx, key);
        true
    }

    /// Takes in who stands in the queues, then closes.
    pub fn close_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            if let Some(listener) = self.slots.get_mut(key) {
                listener.closing = true;
                // The first round always accepts; the round that takes in nobody is the last.
                listener.accepted = 1;
            }
            io.receive(key, Demand::Flow);
            self.unfinished(cx, key);
        }
    }

    /// Closes at once: who stands in the queues is reset by the kernel.
    pub fn cut_all(&mut self, io: &mut dyn Io) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            self.slots.remove(key);
            io.close(key, Close::Now);
        }
    }

    pub fn reclaim(&mut self) {
        self.slots.reclaim();
    }
}
