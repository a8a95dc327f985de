//! All connections of one protocol on one worker, and the way from an event to a callback.
//!
//! One virtual call leads into a table; from there everything is monomorphised for its protocol. A table
//! never calls a callback while another of its callbacks runs: effects on others are commands.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;

use super::commands::{ConnectOptions, Start};
use super::deadline::Passed;
use super::reply::Reply;
use super::slot::{Flush, Slot};
use super::stream::{End, Phase, Stream};
use super::tables::{Table, Tables};
use super::{Conn, Context, Flow, Input, Lost, Protocol};
use crate::driver::{Close, HangUp, Io, Verdict};
use crate::mem::{self, Guarded, Key, KeySlab};
use crate::reactor::Due;
use crate::sys;
use crate::time::Instant;

/// The connections of one protocol.
pub struct Connections<P> {
    slots: KeySlab<Slot<P>>,
    /// Where the next look for an idle connection begins.
    hand: usize,
}

/// Connections that one look for an idle one goes through. All of a small table; of a large one the longest idle of so many is
/// among the longest idle sixteenth, in all likelihood.
const IDLE_LOOKS: usize = 256;

impl<P: Protocol> Connections<P> {
    /// A table whose keys have this number.
    pub fn new(number: u8) -> Self {
        Self { slots: KeySlab::new(number), hand: 0 }
    }

    /// Makes room for an accepted connection. `None` when the table is full.
    pub fn admit(&mut self, protocol: P) -> Option<Key> {
        self.slots.insert_with(|_| Slot { stream: Stream::new(Phase::Open), protocol })
    }

    fn connect(&mut self, cx: &mut Context, io: &mut dyn Io, dial: Dial<P>) {
        let Dial { to, options, protocol } = dial;
        if self.slots.is_full() {
            return;
        }
        let slot = |_| Slot { stream: Stream::new(Phase::Connecting), protocol: protocol.take() };
        let Some(key) = self.slots.insert_with(slot) else { return };
        // Behind the end of a drain nobody would cut it.
        let is_too_late = cx.stopping && cx.agenda.clock.now() >= cx.drain_ends;
        let started = match is_too_late {
            true => Err(Lost::Cut),
            false => io.connect(key, to, options.from).map_err(Lost::ConnectFailed),
        };
        match started {
            Ok(()) => {
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.stream.guard(&mut cx.agenda, key, options.timeout);
                }
            }
            Err(reason) => self.end(cx, io, key, End::reset(reason)),
        }
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
    fn received_out_of_turn(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, chunk: &[u8]) -> Verdict {
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        let end = if slot.stream.phase != Phase::Open {
            slot.stream.discard(&mut cx.agenda, &cx.limits, io, key, chunk.len());
            None
        } else if slot.stream.is_held() {
            // They had left the socket when the connection was paused: it is offered them when it goes on.
            slot.stream.keep(cx, chunk);
            match slot.stream.keeps_too_much(cx) {
                None => return Verdict::Stop,
                end => end,
            }
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
        rest: &[u8],
        called: std::thread::Result<Flow>,
        mut reply: Reply<'_>,
    ) -> Verdict {
        sys::assert_not_forked();
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        reply.send(&mut slot.stream, cx, io, key);
        slot.stream.keep(cx, rest);
        let end = slot.settle_offer(cx, io, key, called);
        self.received_end(cx, io, key, end)
    }

    fn received_end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: Option<End>) -> Verdict {
        if !self.done(cx, io, key, end) {
            return Verdict::Gone;
        }
        self.slots.get(key).map_or(Verdict::Gone, Slot::verdict)
    }

    fn call(
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
            self.woken(cx, io, key);
        }
    }

    /// Tells a connection that a drain has begun.
    fn stop(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        match self.slots.get(key).map(|slot| slot.stream.phase) {
            Some(Phase::Open) => {
                self.call(cx, io, key, Flush::Soon, P::stopping);
            }
            Some(Phase::Connecting) => self.end(cx, io, key, End::reset(Lost::Cut)),
            _ => {}
        }
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

    /// Takes a connection out, closes it and tells its protocol.
    #[cold]
    fn end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End) {
        io.close(key, end.how);
        let Some(Slot { mut stream, mut protocol }) = self.slots.remove(key) else { return };
        stream.release(&mut cx.agenda);
        cx.addresses.left(key);
        let stats = &mut cx.agenda.stats;
        match &end.reason {
            Lost::ConnectFailed(_) => stats.connect_failures += 1,
            Lost::Failed(_) | Lost::FileFailed(_) => {
                stats.failed += 1;
                stats.closed += 1;
            }
            _ if stream.phase == Phase::Connecting => stats.connect_failures += 1,
            _ => stats.closed += 1,
        }
        // One after the other: a destructor that panics while `lost` unwinds would end the process.
        if mem::guarded(|| protocol.lost(end.reason)).is_none() {
            crate::log::panicked(&key);
        }
        mem::discard(protocol);
        sys::assert_not_forked();
    }
}

impl<P: Protocol> Table for Connections<P> {
    fn opened(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, result: io::Result<()>) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        let connecting = stream.phase == Phase::Connecting;
        match result {
            Ok(()) => {
                if connecting {
                    cx.agenda.stats.connected += 1;
                    stream.clear_guard();
                    stream.phase = Phase::Open;
                }
                if self.call(cx, io, key, Flush::Now, P::opened) && cx.stopping {
                    self.stop(cx, io, key);
                }
            }
            Err(error) if connecting => {
                self.end(cx, io, key, End::reset(Lost::ConnectFailed(error)));
            }
            Err(error) => self.end(cx, io, key, End::failed(error)),
        }
    }

    #[inline]
    fn received(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, chunk: &[u8]) -> Verdict {
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Gone };
        if !slot.stream.takes_chunks() {
            return self.received_out_of_turn(cx, io, key, chunk);
        }
        // The usual case in one straight line, as short as it can be: a system call of the callback before has
        // taken the caches.
        let mut input = Input::new(chunk);
        let (called, part) = slot.ask(cx, io, key, &mut input, Reply::none(chunk), P::received);
        let is_done = matches!(called, Ok(Flow::Continue)) && input.is_empty();
        if is_done && slot.stream.goes_on(&mut cx.agenda, key) {
            return part.verdict();
        }
        let rest = input.bytes();
        self.received_otherwise(cx, io, key, rest, called, Reply::of(chunk, part))
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
        match stream.sent(&mut cx.agenda, &cx.limits, io, key, bytes) {
            Err(end) => self.end(cx, io, key, end),
            Ok(false) => {}
            Ok(true) => {
                self.drained(cx, io, key);
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
                    Phase::Open => {
                        let end = slot.offer(cx, io, key, &[], P::eof);
                        self.done(cx, io, key, end);
                    }
                    Phase::Lingering => self.end(cx, io, key, End::closed()),
                    Phase::Connecting | Phase::Closing | Phase::Finishing => {}
                }
            }
        }
    }

    fn ending(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        stream.set_peer_ending();
        if stream.take_peer_ending() {
            self.call(cx, io, key, Flush::Now, P::peer_ended);
        }
    }

    fn unfinished(&mut self, cx: &mut Context, key: Key) {
        if let Some(Slot { stream, .. }) = self.slots.get_mut(key) {
            stream.push_ready(&mut cx.agenda, key);
        }
    }

    fn resume(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let offer = slot.stream.left_ready_list(&mut cx.agenda, io, key);
        if slot.stream.take_output_left() && !self.output_left(cx, io, key) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(key) else { return false };
        if slot.stream.take_peer_ending() && !self.call(cx, io, key, Flush::Now, P::peer_ended) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(key) else { return false };
        if slot.stream.owes_flush() {
            let end = slot.stream.flush(&mut cx.agenda, &cx.limits, io, key);
            if end.is_some() {
                return self.done(cx, io, key, end);
            }
        }
        if slot.stream.take_room(&cx.limits) {
            return self.drained(cx, io, key);
        }
        if offer {
            let end = slot.offer(cx, io, key, &[], P::received);
            if end.is_some() {
                return self.done(cx, io, key, end);
            }
        }
        slot.verdict() == Verdict::Continue
    }

    fn flush(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        stream.left_dirty_list();
        if let Some(end) = stream.flush(&mut cx.agenda, &cx.limits, io, key) {
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
            Passed::Guard => {
                if let Some(end) = stream.guard_passed(&mut cx.agenda, &cx.limits, io, key) {
                    self.end(cx, io, key, end);
                }
            }
            Passed::Protocol if stream.phase == Phase::Open => {
                self.call(cx, io, key, Flush::Soon, P::deadline);
            }
            Passed::Protocol => {}
        }
    }

    fn woken(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        if let Some(wake) = &stream.wake {
            wake.arrived();
        }
        if stream.phase == Phase::Open {
            self.call(cx, io, key, Flush::Soon, P::woken);
        }
    }

    fn send(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: Guarded<Bytes>) {
        let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { return };
        if stream.phase != Phase::Open {
            return;
        }
        let waiting = stream.waiting_bytes();
        // Whatever its size, one message fits: nobody is cut who has taken all that came before.
        if waiting > 0 && waiting + bytes.len() > cx.limits.output_bytes_max {
            cx.agenda.stats.output_overflows += 1;
            return self.end(cx, io, key, End::reset(Lost::OutputOverflow));
        }
        stream.out.write_common(&mut cx.agenda.pool, bytes.into_inner());
        stream.push_dirty(&mut cx.agenda, key);
    }

    fn close(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, reset: bool) {
        if self.slots.get(key).is_some_and(|slot| slot.stream.phase == Phase::Open || reset) {
            let flow = if reset { Flow::Reset } else { Flow::Linger };
            self.call(cx, io, key, Flush::Soon, |_, _| flow);
        }
    }

    fn stop_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        for key in self.keys() {
            self.stop(cx, io, key);
        }
    }

    fn cut_all(&mut self, cx: &mut Context, io: &mut dyn Io) -> usize {
        let mut cut = 0;
        for key in self.keys() {
            let now = cx.agenda.clock.now();
            let Some(Slot { stream, .. }) = self.slots.get_mut(key) else { continue };
            let is_due =
                stream.phase == Phase::Open && stream.deadlines.passed(now, None) == Passed::Protocol;
            if is_due {
                stream.deadlines.clear_protocol();
                cx.agenda.stats.timers_fired += 1;
                if !self.call(cx, io, key, Flush::Now, P::deadline) {
                    continue;
                }
            }
            // Who lingers, or was about to, or is idle, has had all of its answer: a reset could only destroy it.
            let Some(slot) = self.slots.get_mut(key) else { continue };
            let is_done = slot.stream.has_said_all() || slot.idle_since(cx, io, key).is_some();
            let end = if is_done { End::closed() } else { End::reset(Lost::Cut) };
            self.end(cx, io, key, end);
            cut += usize::from(!is_done);
        }
        cut
    }

    fn keys(&self) -> Vec<Key> {
        self.slots.keys().collect()
    }

    fn longest_idle(&mut self, cx: &mut Context, io: &mut dyn Io) -> Option<(Key, Instant)> {
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

    fn evict(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        cx.agenda.stats.evicted += 1;
        self.end(cx, io, key, End { how: Close::Now, reason: Lost::Evicted });
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

/// An outgoing connection that has not been started. Dropped, it tells its protocol that it never will be.
pub struct Dial<P: Protocol> {
    to: SocketAddr,
    options: ConnectOptions,
    protocol: Unmade<P>,
}

impl<P: Protocol> Dial<P> {
    pub fn new(to: SocketAddr, options: ConnectOptions, protocol: P) -> Self {
        Self { to, options, protocol: Unmade(Some(protocol)) }
    }
}

/// The protocol of a connection that was not made yet.
struct Unmade<P: Protocol>(Option<P>);

impl<P: Protocol> Unmade<P> {
    fn take(mut self) -> P {
        self.0.take().expect("it is taken once")
    }
}

thread_local! {
    /// A protocol on this thread is just hearing that it will not be connected.
    static REFUSING: Cell<bool> = const { Cell::new(false) };
}

impl<P: Protocol> Drop for Unmade<P> {
    fn drop(&mut self) {
        let Some(mut protocol) = self.0.take() else { return };
        // One that dials again whenever it is lost would do so for ever: its second is dropped without a call.
        if !REFUSING.replace(true) {
            let error = io::ErrorKind::NotConnected.into();
            mem::guarded(|| protocol.lost(Lost::ConnectFailed(error)));
            REFUSING.set(false);
        }
        mem::discard(protocol);
    }
}

impl<P: Protocol> Start for Dial<P> {
    fn start(self: Box<Self>, tables: &mut Tables, cx: &mut Context, io: &mut dyn Io) {
        if let Some(table) = tables.of::<P>() {
            table.connect(cx, io, *self);
        }
    }
}
