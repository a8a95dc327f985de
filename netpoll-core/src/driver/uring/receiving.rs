//! What the kernel says of a stream, and what is said of it to the sink.

use std::os::fd::AsFd;

use super::super::poll::source::{
    BLOCKED, CONNECTING, ENDED, ENDING, FAILED, PAUSED, POLLED, READABLE, Readiness, SEND_FAILED,
};
use super::super::{HangUp, Limits, Sink, Verdict};
use super::Uring;
use super::buffers::Chunk;
use super::ring::Answer;
use crate::mem::Key;
use crate::sys;

/// The stream is dead, as a poll says it.
const ERROR: i32 = libc::POLLERR as i32;
/// Something has come to an end, as a poll says it.
const ANY_END: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

impl Uring {
    /// A receive has brought something, or has ended.
    pub(super) fn input<S: Sink>(&mut self, sink: &mut S, owner: Option<Key>, answer: Answer) {
        let chunk = self.half.state.borrow_mut().buffers.received(answer);
        let verdict = match (owner, chunk) {
            (Some(key), Some(chunk)) if chunk.len > 0 => self.chunk(sink, key, chunk, answer),
            _ => Verdict::Continue,
        };
        let Some(key) = owner else {
            return self.release(chunk);
        };
        if let Verdict::Reply { start, end } = verdict {
            self.reply(sink, key, chunk, start as usize, end as usize);
        }
        self.release(chunk);
        if answer.has_more() {
            return;
        }
        let Some(source) = self.streams.sources.get_mut(key) else { return };
        match answer.result {
            0 if source.has(PAUSED) => {
                // It says so again when it is let go.
                source.bits |= ENDING;
                if source.take_end_to_tell() {
                    sink.ending(&mut self.streams, key);
                }
            }
            0 => self.end(sink, key, HangUp::Eof),
            1.. if source.has(POLLED) => self.go_on(key),
            1.. => self.is_capped(sink, key, verdict),
            error => match -error {
                libc::ENOBUFS => self.half.state.borrow_mut().starve(key),
                // It was paused, or a signal came first: whoever flows goes on.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOMEM => self.go_on(key),
                error => self.end(sink, key, HangUp::Failed(std::io::Error::from_raw_os_error(error))),
            },
        }
    }

    fn release(&mut self, chunk: Option<Chunk>) {
        if let Some(chunk) = chunk {
            self.half.state.borrow_mut().buffers.release(chunk);
        }
    }

    /// Delivers a chunk.
    #[inline]
    fn chunk<S: Sink>(&mut self, sink: &mut S, key: Key, chunk: Chunk, answer: Answer) -> Verdict {
        let Some(source) = self.streams.sources.get_mut(key) else { return Verdict::Gone };
        source.bits = if answer.has_more_input() { source.bits | READABLE } else { source.bits & !READABLE };
        self.streams.counts.received_bytes += chunk.len as u64;
        let place = self.half.state.borrow().buffers.place(chunk);
        // SAFETY: the chunk is held until it is released behind its delivery, and lies where no other one does.
        // (test: `what_has_come_lies_in_the_blocks`)
        let bytes = unsafe { place.bytes() };
        let verdict = sink.received(&mut self.streams, key, bytes);
        // A callback may have forked; its child must not answer as well.
        sys::assert_not_forked();
        verdict
    }

    /// Sends a part of a chunk back from where it lies.
    fn reply<S: Sink>(&mut self, sink: &mut S, key: Key, chunk: Option<Chunk>, start: usize, end: usize) {
        let (Some(source), Some(chunk)) = (self.streams.sources.get(key), chunk) else { return };
        let mut state = self.half.state.borrow_mut();
        if !source.has(BLOCKED | CONNECTING | SEND_FAILED) && state.reply_soon(key, source, chunk, start, end)
        {
            self.streams.counts.sent_bytes += (end - start) as u64;
            return;
        }
        let place = state.buffers.place(chunk);
        drop(state);
        // SAFETY: as above; its delivery is over. (test: `what_a_full_socket_does_not_take_of_a_reply_is_queued`)
        let bytes = unsafe { place.bytes() };
        sink.unsent(key, &bytes[start..end]);
    }

    /// A receive has brought as much as it may in one turn.
    fn is_capped<S: Sink>(&mut self, sink: &mut S, key: Key, verdict: Verdict) {
        let Some(source) = self.streams.sources.get_mut(key) else { return };
        source.bits |= READABLE;
        if source.has(PAUSED) || matches!(verdict, Verdict::Stop | Verdict::Gone) {
            return;
        }
        if !self.half.receives(key) {
            self.streams.counts.quantum_hits += 1;
            sink.unfinished(key);
        }
    }

    fn end<S: Sink>(&mut self, sink: &mut S, key: Key, how: HangUp) {
        let Some(source) = self.streams.sources.get_mut(key) else { return };
        let failed_behind = source.has(FAILED) && matches!(how, HangUp::Eof);
        source.bits = (source.bits | ENDED) & !READABLE;
        sink.hung_up(&mut self.streams, key, how);
        if failed_behind {
            self.streams.tell_failure(sink, key);
        }
        // One that is not closed may still fail.
        self.half.rein_later(key);
    }

    /// A stream that flows receives.
    pub(super) fn go_on(&mut self, key: Key) {
        let Some(source) = self.streams.sources.get(key) else { return };
        if source.has(POLLED) {
            self.half.state.borrow_mut().poll_edges(source.fd.as_fd(), key);
        } else if !source.has(PAUSED | ENDED | CONNECTING) {
            self.half.state.borrow_mut().receive(source.fd.as_fd(), key);
        }
    }

    /// Something has happened to a stream that is polled.
    pub(super) fn edges<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key, answer: Answer) {
        if !answer.has_more() {
            self.go_on(key);
        }
        let says = |bits: i16| answer.result > 0 && answer.result & i32::from(bits) != 0;
        let now = Readiness {
            readable: says(libc::POLLIN),
            writable: false,
            ending: answer.result > 0 && answer.result & ANY_END != 0,
            urgent: false,
            failed: says(libc::POLLERR),
        };
        self.streams.ready(&mut self.scratch, limits, sink, key, now);
    }

    /// There is room to send on a stream, or its connect has come to an end.
    pub(super) fn room<S: Sink>(&mut self, sink: &mut S, key: Key, result: i32) {
        let Some(source) = self.streams.sources.get_mut(key) else { return };
        if source.has(CONNECTING) {
            return self.streams.connected(sink, key, result < 0 || result & ANY_END != 0);
        }
        if source.has(BLOCKED) {
            source.bits &= !BLOCKED;
            sink.sent(&mut self.streams, key, 0);
        }
    }

    /// A stream that is not received from has ended, or failed.
    pub(super) fn ended<S: Sink>(&mut self, sink: &mut S, key: Key, answer: Answer) {
        if !answer.has_more() {
            // The kernel had no room to report it each time; it may still fail.
            self.half.rein_later(key);
        }
        let result = answer.result;
        let Some(source) = self.streams.sources.get_mut(key) else { return };
        if result <= 0 || source.has(CONNECTING) {
            return;
        }
        source.bits |= ENDING;
        let has_failed = result & ERROR != 0;
        if has_failed {
            source.bits |= FAILED;
            if source.has(PAUSED | ENDED) {
                self.streams.tell_failure(sink, key);
            }
        } else if source.take_end_to_tell() {
            sink.ending(&mut self.streams, key);
        }
    }
}
