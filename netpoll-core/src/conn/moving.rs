//! A connection that goes on in the process that follows, and one that has come from the process before.
//!
//! It goes as a descriptor and what its protocol says of it, between two messages: nothing was taken off the socket that was not
//! used up, and nothing waits to be sent, so whatever its peer sends meanwhile lies in the socket. Invariant: a connection that is taken out
//! of the driver is handed to the thread that sends it, or closed.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use super::slot::{Flush, Slot};
use super::stream::{End, Phase};
use super::succession::Succession;
use super::table::Connections;
use super::{Conn, Context, Lost, Protocol};
use crate::driver::{Close, Io};
use crate::mem::{self, Key};
use crate::sys;

/// What a protocol may say of a connection, in bytes: a peer's address, a few counters.
pub const STATE_BYTES_MAX: usize = 1024;

/// A connection on its way to another process.
pub struct Moved {
    pub socket: OwnedFd,
    pub state: Vec<u8>,
}

/// One that has come.
pub struct Arrived {
    /// Which `listen` call its listener is of.
    pub of: usize,
    pub socket: OwnedFd,
    pub state: Vec<u8>,
}

impl<P: Protocol> Slot<P> {
    /// What the protocol says of a connection that may move, if nothing is under way on it.
    fn state_to_move(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<Vec<u8>> {
        let Self { stream, protocol } = self;
        let is_woken = stream.wake.as_ref().is_some_and(|wake| wake.is_queued());
        if stream.phase != Phase::Open
            || stream.is_held()
            || stream.is_finished()
            || stream.waiting_bytes() > 0
            || stream.has_remainder()
            || stream.is_linked()
            || stream.is_layered()
            || stream.is_dialed()
            || is_woken
        {
            return None;
        }
        let mut conn = Conn { stream, cx, io, key, reply: super::reply::Reply::NONE };
        // A protocol that panics here is drained.
        let asked = mem::guarded(|| protocol.hand_over(&mut conn));
        sys::assert_not_forked();
        if asked.is_none() {
            crate::log::panicked(&key);
        }
        asked.flatten().filter(|state| state.len() <= STATE_BYTES_MAX && stream.waiting_bytes() == 0)
    }
}

impl<P: Protocol> Connections<P> {
    /// Sends all that can go on elsewhere there; how many that were.
    pub fn move_idle(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        succession: &Succession,
        to: &Sender<Moved>,
    ) -> u64 {
        let keys: Vec<Key> = self.slots.keys().collect();
        let mut moved = 0;
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let Some(state) = slot.state_to_move(cx, io, key) else { continue };
            // Of a listener that nobody has claimed: there is none for it.
            if !io.local_addr(key).is_some_and(|local| succession.goes_on_at(&local)) {
                continue;
            }
            let Some(socket) = io.take_out(key) else { continue };
            // A thread that has given up closes it.
            drop(to.send(Moved { socket, state }));
            moved += 1;
            self.end_now(cx, io, key, End { how: Close::Now, reason: Lost::HandedOver });
        }
        moved
    }

    /// Tells the protocol of a connection that has come what it was told.
    pub fn has_arrived(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, state: &[u8]) {
        if self.slots.get(key).is_some_and(|slot| slot.stream.phase.is_open()) {
            self.call(cx, io, key, Flush::Soon, |protocol, conn| protocol.taken_over(conn, state));
        }
    }
}
