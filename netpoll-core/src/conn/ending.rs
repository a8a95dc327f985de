//! How a connection comes to its end, and who has to go first.

use std::fmt;

use super::deadline::Passed;
use super::slot::{Flush, Slot};
use super::stream::{End, Phase};
use super::table::Connections;
use super::{Context, Lost, Protocol, forward};
use crate::clockwork::Instant;
use crate::driver::{Close, Io};
use crate::mem::{self, Key};
use crate::sys::{self, Address};

/// Connections that one look for an idle one goes through. All of a small table; of a large one the longest idle of so many is
/// among the longest idle sixteenth, in all likelihood.
const IDLE_LOOKS: usize = 256;

/// How much of what lies in the socket of a connection that has failed a protocol is offered, in bytes: one read. Others wait for their turn.
const LAST_BYTES_MAX: usize = 64 * 1024;

/// How much of it is read at a time.
const LAST_PIECE_BYTES: usize = 16 * 1024;

/// Peers that are named of those whose connections the deadline of a drain has cut: as many as a line of a log is read for, at a system call each.
pub const CUT_PEERS_MAX: usize = 8;

/// The other end of a connection that the deadline of a drain has cut.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutPeer {
    /// Its address, as the socket says it: behind a proxy that of the proxy. [`Address::Unknown`] of a dial that was not answered, and of a
    /// peer that has reset it already.
    pub addr: Address,
    /// We have connected to it.
    pub is_dialed: bool,
}

impl fmt::Display for CutPeer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", if self.is_dialed { "to" } else { "from" }, self.addr)
    }
}

impl<P: Protocol> Connections<P> {
    /// Takes a connection out, closes it and tells its protocol, which is offered before what it had received by then if it has failed.
    #[cold]
    pub fn end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End) {
        let end = match end.reason {
            Lost::Failed(_) => self.offer_last(cx, io, key).unwrap_or(end),
            _ => end,
        };
        self.end_now(cx, io, key, end);
    }

    /// A send has failed, or input is held back: what came before the failure may still lie in the socket, and be the peer's reason. Who has
    /// paused is not called, unless it takes all. How the connection ends if the protocol ends it otherwise.
    fn offer_last(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<End> {
        let slot = self.slots.get_mut(key)?;
        let takes_all = slot.protocol.takes_last_input();
        let most = if takes_all { cx.limits.output_bytes_max } else { LAST_BYTES_MAX };
        let may_be_offered = takes_all || !slot.stream.is_held() || slot.stream.is_behind();
        let (mut piece, mut offered, mut is_over) = ([0; LAST_PIECE_BYTES], 0, !may_be_offered);
        while !is_over && offered < most && !cx.agenda.is_short_of_memory() {
            let stream = &mut slot.stream;
            if !stream.phase.is_open() || stream.is_finished() || stream.is_linked() {
                return None;
            }
            // Nobody hears it any more, and nobody waits for room.
            stream.out.clear(&mut cx.agenda.pool);
            let room = piece.len().min(most - offered);
            let len = io.salvage(key, &mut piece[..room]);
            let has_kept = offered == 0 && stream.is_held() && !stream.input.is_empty();
            if len == 0 && !has_kept {
                return None;
            }
            offered += len;
            let end = slot.offer(cx, io, key, &piece[..len], P::received);
            // What it answers cannot be sent.
            if let Some(end) = end.filter(|end| !matches!(end.reason, Lost::Failed(_))) {
                return Some(end);
            }
            is_over = len == 0 || (slot.stream.is_held() && !takes_all);
        }
        None
    }

    /// The same without that: its protocol has not been called yet, or hears of it otherwise.
    #[cold]
    pub fn end_now(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End) {
        let stream = self.slots.get_mut(key).map(|slot| &mut slot.stream);
        let last = stream.and_then(|stream| stream.last_input(cx, io, key, &end));
        io.close(key, end.how);
        let Some(Slot { mut stream, mut protocol }) = self.slots.remove(key) else { return };
        stream.release(&mut cx.agenda);
        cx.addresses.left(key);
        cx.attempts.forget(&*cx.resolver, key);
        if stream.is_linked() {
            forward::left(cx, key, last);
        }
        if stream.is_layered() {
            cx.above.remove(&key);
        }
        if stream.is_dialed() {
            cx.dialed.ended(key);
        }
        let stats = &mut cx.agenda.stats;
        match &end.reason {
            Lost::ConnectFailed(_) => stats.connect_failures += 1,
            Lost::Failed(_) | Lost::FileFailed(_) => {
                stats.failed += 1;
                stats.closed += 1;
            }
            _ if stream.phase.is_connecting() => stats.connect_failures += 1,
            _ => stats.closed += 1,
        }
        // One after the other: a destructor that panics while `lost` unwinds would end the process.
        if mem::guarded(|| protocol.lost(end.reason, &mut cx.commands)).is_none() {
            crate::log::panicked(&key);
        }
        mem::discard(protocol);
        cx.agenda.pool.collect();
        sys::assert_not_forked();
    }

    /// Tells a connection that a drain has begun.
    pub fn stop(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        // A dial goes on, and is told when it is open.
        if self.slots.get(key).is_some_and(|slot| slot.stream.phase.is_open()) {
            self.call(cx, io, key, Flush::Soon, P::stopping);
        }
    }

    /// The grace of a drain is over for a connection.
    pub fn retired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        if self.call(cx, io, key, Flush::Soon, P::closing)
            && let Some(Slot { stream, .. }) = self.slots.get_mut(key)
        {
            stream.watch_output(&mut cx.agenda, &cx.limits, io, key);
        }
    }

    /// Ends a connection at the end of a drain. True if something was under way on it, which is lost; then it is among `peers`, as long as there is
    /// room.
    pub fn cut(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, peers: &mut Vec<CutPeer>) -> bool {
        let now = cx.agenda.clock.now();
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return false };
        let is_due = stream.phase.is_open() && stream.deadlines.passed(now, None) == Passed::Protocol;
        if is_due {
            stream.deadlines.clear_protocol();
            cx.agenda.stats.timers_fired += 1;
            if !self.call(cx, io, key, Flush::Now, P::deadline) {
                return false;
            }
        }
        // Who lingers, or was about to, or is idle, has had all of its answer: a reset could only destroy it.
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let is_done = slot.stream.has_said_all() || slot.idle_since(cx, io, key).is_some();
        let phase = slot.stream.phase;
        if !is_done && peers.len() < CUT_PEERS_MAX {
            let addr = io.peer_addr(key).unwrap_or(Address::Unknown);
            peers.push(CutPeer { addr, is_dialed: slot.stream.is_dialed() });
        }
        let has_last_word = is_done && phase == Phase::Open;
        if has_last_word && !self.call(cx, io, key, Flush::Now, P::closing) {
            return false;
        }
        let end = match phase {
            _ if is_done => End::closed(),
            // All of its output is on its way, which a reset could only destroy; its input is cut.
            Phase::HalfClosed => End { how: Close::Now, reason: Lost::Cut },
            _ => End::reset(Lost::Cut),
        };
        self.end(cx, io, key, end);
        !is_done
    }

    /// The longest idle of some connections that can be closed without a reset; the next call looks at others.
    pub fn find_idle(&mut self, cx: &mut Context, io: &mut dyn Io) -> Option<(Key, Instant)> {
        let indexes = self.slots.indexes();
        let mut longest: Option<(Key, Instant)> = None;
        for _ in 0..IDLE_LOOKS.min(indexes) {
            self.hand = (self.hand + 1) % indexes;
            let Some(key) = self.slots.key_at(self.hand) else { continue };
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let Some(since) = slot.idle_since(cx, io, key) else { continue };
            if longest.is_none_or(|(_, longest)| since < longest) && !io.has_input(key) {
                longest = Some((key, since));
            }
        }
        longest
    }
}
