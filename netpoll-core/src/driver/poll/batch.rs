//! Events of a poller in batches: first every `recv`, then every callback, then every send. New connections come last:
//! they are received from when the listeners have been accepted from, and registered behind the sends.
//!
//! What a callback sends back of its input stays where it was received until all callbacks have returned, and leaves
//! from there.
//!
//! Between two system calls the kernel takes the caches, and between two callbacks the next connection's system
//! calls do. So the engine goes through some connections three times instead of once: each pass runs the
//! same code over and over and finds it where it left it.
//!
//! Invariant: what was received ahead is delivered in the same batch, whatever the callbacks before it
//! did, unless its connection is gone. Nothing else reads into the scratch block meanwhile: everything but
//! plain bytes on a plain stream waits until the bytes are delivered.

use super::super::{Limits, Sink, Verdict};
use super::source::{READABLE, Readiness, Received, Scratch};
use super::streams::{Register, Streams};
use crate::mem::Key;
use crate::sys;

/// Events of one batch. The caches hold what sixteen small requests need; more would only let the first
/// answer wait longer.
const BATCH: usize = 16;

/// Bytes after which a batch is over: half of a usual first-level cache, so that they are still there when they are
/// looked at and sent on. Far below the length of the scratch block, so that there is room for another read.
const BATCH_BYTES: usize = 16 * 1024;

/// What became of an attempt to receive ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Bytes, which are delivered with the batch or were taken at once, or the end of the stream, which was delivered.
    Received,
    /// There was nothing.
    Empty,
    /// The source is not a plain stream, or gone: its event has to be put off.
    PutOff,
}

/// Where one read ahead lies in the scratch block.
#[derive(Clone, Copy)]
struct Landed {
    key: Key,
    start: usize,
    end: usize,
    drained: bool,
}

/// Events on their way to their receivers. Empty between batches.
pub struct Batch {
    scratch: Scratch,
    /// The scratch block is used up to here.
    filled: usize,
    landed: Vec<Landed>,
    /// What goes back: source, and place in the scratch block.
    replies: Vec<(Key, usize, usize)>,
    /// What is not a plain read, in the order in which it was reported.
    others: Vec<(Key, Readiness)>,
}

impl Batch {
    pub fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            filled: 0,
            landed: Vec::with_capacity(BATCH),
            replies: Vec::with_capacity(BATCH),
            others: Vec::with_capacity(BATCH),
        }
    }

    /// Takes no more: it has as many events, or as many bytes, as a batch may have.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.landed.len() + self.others.len() >= BATCH || self.filled >= BATCH_BYTES
    }

    /// Keeps an event until the bytes of its batch are delivered.
    pub fn put_off(&mut self, key: Key, now: Readiness) {
        self.others.push((key, now));
    }

    /// The scratch block, between batches.
    pub fn scratch(&mut self) -> &mut Scratch {
        debug_assert!(self.landed.is_empty(), "something in it was not delivered");
        &mut self.scratch
    }
}

impl<R: Register> Streams<R> {
    /// Takes in one event of a wait: receives at once where that is all there is to do, and puts off what else was reported.
    #[inline(always)]
    pub fn take_in<S: Sink>(
        &mut self,
        batch: &mut Batch,
        limits: &Limits,
        sink: &mut S,
        key: Key,
        is_plain_input: bool,
        now: impl FnOnce() -> Readiness,
    ) {
        if !is_plain_input || self.receive_ahead(batch, limits, sink, key) == Ahead::PutOff {
            batch.put_off(key, now());
        }
    }

    /// Receives from a source of which no more is known than that there may be input.
    #[inline(always)]
    pub fn receive_ahead<S: Sink>(
        &mut self,
        batch: &mut Batch,
        limits: &Limits,
        sink: &mut S,
        key: Key,
    ) -> Ahead {
        let start = batch.filled;
        let room = limits.read_bytes.min(batch.scratch.len() - start);
        let Some(source) = self.sources.get_mut(key) else { return Ahead::PutOff };
        if !source.is_plain_stream() {
            if source.is_announced() {
                source.bits |= READABLE;
                return self.announce_ahead(limits, sink, key);
            }
            return Ahead::PutOff;
        }
        match source.receive(&mut self.counts, batch.scratch.part(start, room)) {
            Received::Bytes { len, drained } => {
                batch.landed.push(Landed { key, start, end: start + len, drained });
                // The next one begins on a cache line of its own.
                batch.filled = (start + len).next_multiple_of(64).min(batch.scratch.len());
            }
            Received::Nothing => return Ahead::Empty,
            Received::Interrupted => return Ahead::PutOff,
            Received::End(how) => sink.hung_up(self, key, how),
        }
        Ahead::Received
    }

    /// Delivers what was collected, and ends the batch.
    #[inline]
    pub fn deliver<S: Sink>(&mut self, batch: &mut Batch, limits: &Limits, sink: &mut S) {
        self.hand_over(batch, limits, sink);
        self.end_batch(batch, limits, sink);
    }

    /// Sees to who has arrived, and lets the output of the batch leave.
    #[inline]
    fn end_batch<S: Sink>(&mut self, batch: &mut Batch, limits: &Limits, sink: &mut S) {
        if !self.arrivals.is_empty() {
            self.hear_arrivals(batch, limits, sink);
        }
        sink.delivered(self);
        if !self.arrivals.is_empty() {
            self.register_arrivals(sink);
        }
    }

    /// Delivers more of a source that stopped with input left, or accepts whom a listener has left.
    pub fn resume<S: Sink>(&mut self, batch: &mut Batch, limits: &Limits, sink: &mut S, key: Key) {
        if self.sources.get(key).is_some() {
            return self.read(batch.scratch(), limits, sink, key);
        }
        if self.datagrams.has(key) {
            return self.receive_datagrams(sink, key);
        }
        self.accept_rest(limits, sink, key);
        if !self.arrivals.is_empty() {
            self.end_batch(batch, limits, sink);
        }
    }

    /// Delivers what was collected.
    #[inline]
    pub(super) fn hand_over<S: Sink>(&mut self, batch: &mut Batch, limits: &Limits, sink: &mut S) {
        for &Landed { key, start, end, drained } in &batch.landed {
            match sink.received(self, key, batch.scratch.part(start, end - start)) {
                Verdict::Continue => {}
                Verdict::Reply { start: from, end: to } => {
                    batch.replies.push((key, start + from as usize, start + to as usize));
                }
                Verdict::Stop | Verdict::Gone => continue,
            }
            if !drained {
                // The rest of its share; all of it if the block had no more room.
                if end - start == limits.read_bytes {
                    self.counts.quantum_hits += 1;
                    sink.unfinished(key);
                } else {
                    batch.others.push((key, Readiness { readable: true, ..Readiness::default() }));
                }
            }
        }
        batch.landed.clear();
        batch.filled = 0;
        // A callback may have forked; its child must not answer as well.
        sys::assert_not_forked();
        for (key, start, end) in batch.replies.drain(..) {
            self.reply(sink, key, batch.scratch.get(start, end));
        }
        for (key, now) in batch.others.drain(..) {
            self.ready(&mut batch.scratch, limits, sink, key, now);
        }
    }
}
