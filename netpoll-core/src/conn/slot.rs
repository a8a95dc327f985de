//! One connection and its protocol: a callback, and what follows from it.
//!
//! Every callback goes through here, so a panic in one ends its connection and nothing else, and what it wants
//! ([`Flow`]) and has queued is seen to.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::reply::{Part, Reply};
use super::stream::{End, Phase, Stream};
use super::{Conn, Context, Flow, Input, Lost, Protocol};
use crate::clockwork::Instant;
use crate::driver::{Io, Verdict};
use crate::mem::{self, Key};
use crate::sys;

/// When output of a callback leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Right after the callback.
    Now,
    /// With that of other connections, and before the worker waits. Mail, wakers and timers may add more
    /// until then.
    Soon,
}

/// One connection with its protocol.
pub struct Slot<P> {
    pub stream: Stream,
    pub protocol: P,
}

impl<P: Protocol> Slot<P> {
    /// One callback and its consequences.
    #[inline]
    pub fn call(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        flush: Flush,
        callback: impl FnOnce(&mut P, &mut Conn<'_>) -> Flow,
    ) -> Option<End> {
        let Self { stream, protocol } = self;
        let reply = Reply::NONE;
        let mut conn = Conn { stream, cx, io, key, reply };
        let called = catch_unwind(AssertUnwindSafe(|| callback(protocol, &mut conn)));
        self.settle(cx, io, key, flush, called)
    }

    /// Offers the chunk behind the remainder, and keeps what is not consumed.
    pub fn offer(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        chunk: &[u8],
        callback: impl FnOnce(&mut P, &mut Conn<'_>, &mut Input<'_>) -> Flow,
    ) -> Option<End> {
        self.stream.keep(cx, chunk);
        // The remainder leaves its slot for the time of the callback, which may use the slot's rest.
        let mut kept = std::mem::take(&mut self.stream.input);
        let mut input = Input::new(kept.bytes_mut());
        let (called, _) = self.ask(cx, io, key, &mut input, Reply::NONE, callback);
        let consumed = input.consumed();
        kept.advance(&mut cx.agenda.pool, consumed);
        self.stream.input = kept;
        self.settle_offer(cx, io, key, called)
    }

    /// The callback's wish, and what it wants sent back.
    #[inline(always)]
    pub fn ask(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        input: &mut Input<'_>,
        reply: Reply,
        callback: impl FnOnce(&mut P, &mut Conn<'_>, &mut Input<'_>) -> Flow,
    ) -> (std::thread::Result<Flow>, Part) {
        let Self { stream, protocol } = self;
        let mut conn = Conn { stream, cx, io, key, reply };
        let called = catch_unwind(AssertUnwindSafe(|| callback(protocol, &mut conn, input)));
        (called, conn.reply.part())
    }

    /// The wish of a protocol that takes input out of the socket; `None` of one that does not.
    #[inline]
    pub fn announce(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<std::thread::Result<Flow>> {
        let Self { stream, protocol } = self;
        let mut conn = Conn { stream, cx, io, key, reply: Reply::NONE };
        catch_unwind(AssertUnwindSafe(|| protocol.announced(&mut conn)))
            .map_or_else(|payload| Some(Err(payload)), |flow| flow.map(Ok))
    }

    pub fn settle_offer(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        called: std::thread::Result<Flow>,
    ) -> Option<End> {
        // What is left behind an end is forgotten; a panic is one.
        let ends = matches!(called, Err(_) | Ok(Flow::Close | Flow::Linger | Flow::Reset));
        let waits = matches!(called, Ok(Flow::Pause | Flow::Yield));
        if !ends && let Some(end) = self.stream.keeps_too_much(cx, !waits) {
            return Some(end);
        }
        let flush = if self.stream.may_flush_later() { Flush::Soon } else { Flush::Now };
        self.settle(cx, io, key, flush, called)
    }

    fn settle(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        flush: Flush,
        called: std::thread::Result<Flow>,
    ) -> Option<End> {
        sys::assert_not_forked();
        let flow = match called {
            Ok(flow) => flow,
            Err(payload) => return Some(panicked(cx, key, payload)),
        };
        if let Some(end) = self.stream.steer(&mut cx.agenda, io, key, flow) {
            return Some(cx.because(key, end));
        }
        match flow {
            Flow::Retire => self.stream.begin_to_retire(cx, key),
            // It has had its last word, and what is queued is watched from here on.
            Flow::Close | Flow::Linger => {
                self.stream.go_on_after_all(&mut cx.agenda, &cx.limits, io, key);
            }
            Flow::Yield => self.stream.wait_if_backed_up(&mut cx.agenda, &cx.limits, io, key),
            _ => {}
        }
        match flush {
            Flush::Now => self.stream.flush_for_source(cx, io, key),
            Flush::Soon => {
                self.stream.flush_soon(&mut cx.agenda, key);
                None
            }
        }
    }

    /// Asks the protocol for its last word, of which leaves what the socket takes at once: nobody waits for the rest. An end if
    /// it panics.
    pub fn say_last_word(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<End> {
        let Self { stream, protocol } = self;
        let mut conn = Conn { stream, cx, io, key, reply: Reply::NONE };
        let called = catch_unwind(AssertUnwindSafe(|| protocol.closing(&mut conn)));
        sys::assert_not_forked();
        if let Err(payload) = called {
            return Some(panicked(cx, key, payload));
        }
        // If the stream has failed there is nobody to hear it.
        drop(self.stream.flush(&mut cx.agenda, &cx.limits, io, key));
        None
    }

    /// Since when nothing is under way on it, if it is open, its output has left, and its protocol says so.
    pub fn idle_since(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<Instant> {
        let Self { stream, protocol } = self;
        if stream.phase != Phase::Open
            || stream.is_held()
            || stream.waiting_bytes() > 0
            || stream.has_remainder()
        {
            return None;
        }
        let mut conn = Conn { stream, cx, io, key, reply: Reply::NONE };
        // A protocol that panics here is not idle.
        let asked = mem::guarded(|| protocol.idle_since(&mut conn));
        sys::assert_not_forked();
        if asked.is_none() {
            crate::log::panicked(&key);
        }
        asked.flatten()
    }

    pub fn verdict(&self) -> Verdict {
        if self.stream.is_held() { Verdict::Stop } else { Verdict::Continue }
    }
}

#[cold]
fn panicked(cx: &mut Context, key: Key, payload: Box<dyn Any + Send>) -> End {
    cx.agenda.stats.panics += 1;
    crate::log::panicked(&key);
    mem::discard_payload(payload);
    End::reset(Lost::Panicked)
}
