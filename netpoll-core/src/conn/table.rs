//! All connections of one protocol on one worker, and the way from an event to a callback.
//!
//! One virtual call leads into a table; from there everything is monomorphised for its protocol. A table
//! never calls a callback while another of its callbacks runs: effects on others are commands.

use std::io;
use std::sync::mpsc::Sender;

use bytes::Bytes;

use super::any_table::Table;
use super::commands::Command;
use super::connect::Order;
use super::deadline::Passed;
use super::ending::CutPeer;
use super::forward::Forward;
use super::guard::Outlook;
use super::reply::{Part, Reply};
use super::slot::{Flush, Slot};
use super::stream::{End, Phase, Stream};
use super::{Conn, Context, Flow, Input, Lost, Message, Moved, Protocol, Succession};
use crate::clockwork::Instant;
use crate::driver::{Close, HangUp, Io, Verdict};
use crate::mem::{Guarded, Key, KeySlab};
use crate::reactor::Due;
use crate::sys::{self, Address};
use crate::task::Came;

/// The connections of one protocol.
pub struct Connections<P> {
    pub(super) slots: KeySlab<Slot<P>>,
    /// Where the next look for an idle connection begins.
    pub(super) hand: usize,
}

/// A chunk behind its callback: how much of it was consumed, and what goes back.
struct Offered<'a> {
    chunk: &'a [u8],
    consumed: usize,
    reply: Part,
}

impl<P: Protocol> Connections<P> {
    /// A table whose keys have this number.
    pub fn new(number: u8) -> Self {
        Self { slots: KeySlab::new(number), hand: 0 }
    }

    /// Makes room for an accepted connection. `None` when the table is full.
    pub fn admit(&mut self, protocol: P) -> Option<Key> {
        self.slots.insert_with(|_| Slot { stream: Stream::new(Phase::Open), protocol })
    }

    /// Ends the connection if its callback said so. True when it lives on.
    #[inline]
    fn done(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: Option<End>) -> bool {
        let alive = end.is_none();
        if let Some(end) = end {
            self.end(cx, io, key, end);
        }
        alive
    }

    /// Bytes for a connection that is held or over, or that has a remainder already.
    #[cold]
    fn received_out_of_turn(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        chunk: &mut [u8],
    ) -> Verdict {
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        let end = if !slot.stream.phase.is_open() {
            slot.stream.discard(&mut cx.agenda, &cx.limits, io, key, chunk.len());
            None
        } else if slot.stream.is_held() || (slot.stream.forwards() && !slot.stream.input.is_empty()) {
            // They had left the socket when the connection was paused: it is offered them when it goes on, and what it leaves of
            // them is judged then. Until then they are memory of the worker, and no more than one read.
            slot.stream.keep(cx, chunk);
            match slot.stream.is_too_much(&mut cx.agenda) {
                None => return Verdict::Stop,
                end => end,
            }
        } else if slot.stream.forwards() {
            // The worker, which has both ends, does it right behind this.
            cx.commands.push(Command::Forward(Forward::Chunk));
            return Verdict::Continue;
        } else if slot.stream.input.is_empty() {
            // Half-closed, or fed by another: nothing goes back past the queue, or it would be as usual.
            let mut input = Input::new(chunk);
            let (called, _) = slot.ask(cx, io, key, &mut input, Reply::NONE, P::received);
            let consumed = input.consumed();
            slot.stream.keep(cx, &chunk[consumed..]);
            slot.settle_offer(cx, io, key, called)
        } else {
            slot.offer(cx, io, key, chunk, P::received)
        };
        self.received_end(cx, io, key, end)
    }

    /// The callback wants something, or left something.
    #[inline(never)]
    fn received_otherwise(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        offered: Offered<'_>,
        called: std::thread::Result<Flow>,
    ) -> Verdict {
        sys::assert_not_forked();
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        let Offered { chunk, consumed, reply } = offered;
        reply.send(chunk, &mut slot.stream, cx, io, key);
        slot.stream.keep(cx, &chunk[consumed..]);
        let end = slot.settle_offer(cx, io, key, called);
        self.received_end(cx, io, key, end)
    }

    fn received_end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: Option<End>) -> Verdict {
        if !self.done(cx, io, key, end) {
            return Verdict::Gone;
        }
        self.retire_at_rest(cx, io, key);
        self.slots.get(key).map_or(Verdict::Gone, Slot::verdict)
    }

    /// Behind what may have been the last of its input in hand: ends a connection whose grace in a drain was over before.
    fn retire_at_rest(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        if stream.take_retired(&mut cx.agenda, io, key) {
            self.retired(cx, io, key);
        }
    }

    /// Left the ready list. True when the connection may be read.
    fn go_on(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let offer = slot.stream.left_ready_list(&mut cx.agenda, io, key);
        if slot.stream.take_output_left() && !self.output_left(cx, io, key) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(key) else { return false };
        if slot.stream.take_peer_ending() && !self.peer_ended(cx, io, key) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(key) else { return false };
        // What is offered comes first: a flush may find that nothing is left to do but that.
        if !offer && slot.stream.owes_flush() {
            let end = slot.stream.flush_for_source(cx, io, key);
            if end.is_some() {
                return self.done(cx, io, key, end);
            }
        }
        if slot.stream.take_room(&cx.limits) {
            return self.drained(cx, io, key);
        }
        if offer && slot.stream.forwards() {
            cx.commands.push(Command::Forward(Forward::Kept(key)));
            return false;
        }
        if offer {
            let owes_end = slot.stream.owes_end();
            let end = if owes_end {
                slot.stream.end_was_passed_on();
                slot.offer(cx, io, key, &[], P::eof)
            } else {
                slot.offer(cx, io, key, &[], P::received)
            };
            if end.is_some() {
                return self.done(cx, io, key, end);
            }
        }
        slot.verdict() == Verdict::Continue
    }

    pub(super) fn call(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        flush: Flush,
        callback: impl FnOnce(&mut P, &mut Conn<'_>) -> Flow,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let end = slot.call(cx, io, key, flush, callback);
        self.done(cx, io, key, end)
    }

    /// Tells the protocol that there is room again. True when the connection may be read.
    fn drained(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let end = slot.call(cx, io, key, Flush::Now, P::drained);
        if end.is_some() {
            return self.done(cx, io, key, end);
        }
        slot.stream.rein(&mut cx.agenda, io, key);
        slot.verdict() == Verdict::Continue
    }

    /// Brings the protocol the news that is under way to it from inside, which counts more than the clock as well.
    fn catch_up(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let is_woken = stream.wake.as_ref().is_some_and(|wake| wake.is_queued());
        stream.look_at_output(&mut cx.agenda, io, key);
        if stream.take_output_left() {
            self.output_left(cx, io, key);
        }
        if is_woken {
            self.take_wakes(key);
            self.be_woken(cx, io, key);
        }
    }

    /// A wake that is under way is told before it arrives: then it has nothing to say any more.
    fn take_wakes(&mut self, key: Key) {
        if let Some(wake) = self.slots.get_mut(key).and_then(|slot| slot.stream.wake.as_ref()) {
            wake.arrived(Came::Here);
            wake.arrived(Came::ByLetter);
        }
    }

    /// Tells the protocol that something it waits for is ready.
    fn be_woken(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        if self.slots.get(key).is_some_and(|slot| slot.stream.phase.is_open()) {
            self.call(cx, io, key, Flush::Soon, P::woken);
        }
    }

    /// Tells the protocol that the peer of a pause has ended. True if the connection lives on.
    fn peer_ended(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        self.call(cx, io, key, Flush::Now, |protocol, conn| {
            let is_paused = conn.stream.is_paused();
            match protocol.peer_ended(conn) {
                // The pause that goes on is that of others.
                Flow::Pause if !is_paused => Flow::Continue,
                flow => flow,
            }
        })
    }

    /// Tells the protocol that output which had to wait has left. True if the connection lives on.
    fn output_left(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let unchanged = slot.stream.unchanged_flow();
        self.call(cx, io, key, Flush::Soon, |protocol, conn| {
            protocol.flushed(conn);
            unchanged
        })
    }
}

impl<P: Protocol> Table for Connections<P> {
    fn opened(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, result: io::Result<()>) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let connecting = stream.phase.is_connecting();
        let to_finish = stream.phase == Phase::ConnectingToFinish;
        match result {
            Ok(()) => {
                if connecting {
                    cx.agenda.stats.connected += 1;
                    cx.attempts.forget(&*cx.resolver, key);
                    stream.clear_guard();
                    stream.phase = Phase::Open;
                    // Others may have paused it already.
                    stream.rein(&mut cx.agenda, io, key);
                    if stream.is_linked() {
                        cx.commands.push(Command::Forward(Forward::Room(key)));
                    }
                }
                let alive = self.call(cx, io, key, Flush::Now, P::opened);
                if alive && to_finish {
                    self.order(cx, io, key, Order::Finish);
                }
                if alive && cx.stopping {
                    self.stop(cx, io, key);
                }
            }
            Err(error) if connecting => {
                let next = match cx.attempts.failed(key, error) {
                    Ok(()) => self.attempt(cx, io, key),
                    Err(error) => Err(Lost::ConnectFailed(error)),
                };
                self.goes_on(cx, io, key, next);
            }
            Err(error) => self.end_now(cx, io, key, End::failed(error)),
        }
    }

    #[cold]
    fn found(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, found: io::Result<Vec<Address>>) {
        let next = self.found_addresses(cx, io, key, found);
        self.goes_on(cx, io, key, next);
    }

    #[inline]
    fn received(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict {
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        if !slot.stream.takes_chunks() {
            return self.received_out_of_turn(cx, io, key, chunk);
        }
        // The usual case in one straight line, as short as it can be: a system call of the callback before has
        // taken the caches.
        let reply = Reply::none(chunk);
        let mut input = Input::new(chunk);
        let (called, part) = slot.ask(cx, io, key, &mut input, reply, P::received);
        let is_done = matches!(called, Ok(Flow::Continue)) && input.is_empty();
        if is_done && slot.stream.goes_on(&mut cx.agenda, key) {
            return part.verdict();
        }
        let offered = Offered { consumed: input.consumed(), chunk, reply: part };
        self.received_otherwise(cx, io, key, offered, called)
    }

    fn announced(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<Verdict> {
        let slot = self.slots.get_mut(key).filter(|slot| slot.stream.takes_chunks())?;
        let called = slot.announce(cx, io, key)?;
        if matches!(called, Ok(Flow::Continue)) && slot.stream.goes_on(&mut cx.agenda, key) {
            return Some(Verdict::Continue);
        }
        let end = slot.settle_offer(cx, io, key, called);
        Some(self.received_end(cx, io, key, end))
    }

    #[cold]
    fn unsent(&mut self, cx: &mut Context, key: Key, bytes: &[u8]) {
        if let Some(Slot { stream, .. }) = self.slots.get_mut(key) {
            stream.out.write_front(&mut cx.agenda.pool, bytes);
            stream.push_dirty(&mut cx.agenda, key);
        }
    }

    fn sent(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: usize) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let waiting = stream.waiting_bytes();
        let sent = stream.sent(&mut cx.agenda, &cx.limits, io, key, bytes);
        // A driver may say that there is room where nothing waits for it.
        if sent.is_ok() && stream.waiting_bytes() < waiting && stream.has_room_for_source(&cx.limits) {
            cx.commands.push(Command::Forward(Forward::Room(key)));
        }
        match sent {
            Err(end) => self.end(cx, io, key, end),
            Ok(false) => {}
            Ok(true) => {
                self.drained(cx, io, key);
                self.retire_at_rest(cx, io, key);
            }
        }
    }

    fn hung_up(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, how: HangUp) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match how {
            HangUp::Failed(error) => self.end(cx, io, key, End::failed(error)),
            HangUp::Eof => {
                slot.stream.set_finished();
                match slot.stream.phase {
                    phase if phase.is_open() && slot.stream.forwards() => {
                        slot.stream.set_end_waits();
                        cx.commands.push(Command::Forward(Forward::Ended(key)));
                    }
                    phase if phase.is_open() => {
                        let end = slot.offer(cx, io, key, &[], P::eof);
                        self.done(cx, io, key, end);
                    }
                    Phase::Lingering => self.end(cx, io, key, End::closed()),
                    _ => {}
                }
            }
        }
    }

    fn ending(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        stream.set_peer_ending();
        if stream.take_peer_ending() {
            self.peer_ended(cx, io, key);
        }
    }

    fn unfinished(&mut self, cx: &mut Context, key: Key) {
        if let Some(Slot { stream, .. }) = self.slots.get_mut(key) {
            stream.push_ready(&mut cx.agenda, key);
        }
    }

    fn resume(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let may_be_read = self.go_on(cx, io, key);
        self.retire_at_rest(cx, io, key);
        may_be_read
    }

    fn flush(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        stream.left_dirty_list();
        if let Some(end) = stream.flush_for_source(cx, io, key) {
            self.end(cx, io, key, end);
        }
    }

    fn came_up(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Due {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return Due::Not };
        let passed = stream.timer_came_up(&mut cx.agenda, key);
        if passed == Passed::Neither {
            return Due::Not;
        }
        let looks_first = stream.looks_first(passed);
        if passed == Passed::Protocol {
            self.catch_up(cx, io, key);
        }
        if looks_first { Due::LookFirst } else { Due::Now }
    }

    fn expired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let passed = stream.take_passed(&mut cx.agenda, key);
        cx.agenda.stats.timers_fired += u64::from(passed != Passed::Neither);
        match passed {
            Passed::Neither => {}
            Passed::Guard if stream.phase.is_connecting() => {
                let next = self.attempt_timed_out(cx, io, key);
                self.goes_on(cx, io, key, next);
            }
            Passed::Guard => {
                let grace = cx.drain_grace();
                match stream.guard_passed(&mut cx.agenda, &cx.limits, io, key, grace) {
                    Outlook::GoesOn => {}
                    Outlook::Retired => self.retired(cx, io, key),
                    Outlook::Ends(end) => self.end(cx, io, key, end),
                }
            }
            Passed::Protocol if stream.phase.is_open() => {
                self.call(cx, io, key, Flush::Soon, P::deadline);
            }
            Passed::Protocol => {}
        }
    }

    fn woken(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, came: Came) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        if stream.wake.as_ref().is_some_and(|wake| wake.arrived(came)) {
            self.be_woken(cx, io, key);
        }
    }

    fn send(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: Guarded<Bytes>) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        if stream.phase != Phase::Open {
            return;
        }
        let waiting = stream.waiting_bytes();
        // Whatever its size, one message fits: nobody is cut who has taken all that came before. A layer looks itself, for it knows
        // whether the protocol above takes any more.
        if waiting > 0 && waiting + bytes.len() > cx.limits.output_bytes_max && !stream.is_layered() {
            cx.agenda.stats.output_overflows += 1;
            return self.end(cx, io, key, End::reset(Lost::OutputOverflow));
        }
        self.call(cx, io, key, Flush::Soon, |protocol, conn| protocol.outgoing(conn, bytes.into_inner()));
    }

    fn tell(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, message: Message) {
        if self.slots.get(key).is_some_and(|slot| slot.stream.phase.is_open()) {
            self.call(cx, io, key, Flush::Soon, |protocol, conn| protocol.told(conn, message));
        }
    }

    fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots.get_mut(key).map(|slot| &mut slot.stream)
    }

    fn end_by(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End) {
        self.end(cx, io, key, end);
    }

    fn order(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, order: Order) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let act = match order {
            Order::Finish if stream.phase.is_open() => P::finishing,
            Order::Finish => return stream.finish_output(&mut cx.agenda, io, key),
            Order::Reset => |_: &mut P, _: &mut Conn<'_>| Flow::Reset,
            Order::Close if stream.phase.is_open() => P::closing,
            Order::Close if stream.phase.is_connecting() => return self.end(cx, io, key, End::closed()),
            Order::Close => return,
            Order::Wake => return self.be_woken(cx, io, key),
            Order::Pause | Order::Resume => {
                return stream.hold_for_others(&mut cx.agenda, io, key, order == Order::Pause);
            }
        };
        self.call(cx, io, key, Flush::Soon, act);
    }

    fn move_idle(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        succession: &Succession,
        to: &Sender<Moved>,
    ) -> u64 {
        Self::move_idle(self, cx, io, succession, to)
    }

    fn has_arrived(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, state: &[u8]) {
        Self::has_arrived(self, cx, io, key, state);
    }

    fn stop_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        for key in self.keys() {
            self.stop(cx, io, key);
        }
    }

    fn cut_all(&mut self, cx: &mut Context, io: &mut dyn Io, peers: &mut Vec<CutPeer>) -> usize {
        self.slots.keys().collect::<Vec<_>>().into_iter().filter(|key| self.cut(cx, io, *key, peers)).count()
    }

    fn holds_drain(&self) -> bool {
        self.slots.keys().any(|key| self.slots.get(key).is_some_and(|slot| !slot.stream.is_quiet_client()))
    }

    fn close_quiet(&mut self, cx: &mut Context, io: &mut dyn Io) {
        for key in self.keys() {
            let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.stream.is_quiet_client()) else {
                continue;
            };
            // That of a layer: a server that waits for it would take the end for a cut.
            let panicked = slot.stream.phase.is_open().then(|| slot.say_last_word(cx, io, key)).flatten();
            self.end(cx, io, key, panicked.unwrap_or_else(End::closed));
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.keys().collect()
    }

    fn longest_idle(&mut self, cx: &mut Context, io: &mut dyn Io) -> Option<(Key, Instant)> {
        self.find_idle(cx, io)
    }

    fn evict(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        cx.agenda.stats.evicted += 1;
        let panicked = slot.say_last_word(cx, io, key);
        self.end(cx, io, key, panicked.unwrap_or(End { how: Close::Now, reason: Lost::Evicted }));
    }

    fn reclaim(&mut self) {
        self.slots.reclaim();
    }

    fn shrink(&mut self) {
        self.slots.shrink();
    }

    fn len(&self) -> usize {
        self.slots.len()
    }
}
