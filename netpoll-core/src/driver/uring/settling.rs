//! What has become of the output that left with the last enter.
//!
//! Usually all of it has, and its blocks go back. What a full socket did not take is queued again by whoever had queued it,
//! and a stream that was closed meanwhile has it sent when there is room, for some time.

use std::os::fd::{AsFd, OwnedFd};

use super::super::Sink;
use super::super::poll::source::{BLOCKED, FINISHES};
use super::Uring;
use super::half::State;
use super::sending::{Bytes, Soon, failure};
use crate::mem::{Key, KeySlab, WriteQueue};
use crate::sys;

/// What a closed stream had to send.
struct Leftover {
    fd: OwnedFd,
    queue: WriteQueue,
}

/// All of those.
pub struct Leftovers(KeySlab<Leftover>);

impl Leftovers {
    pub const fn new() -> Self {
        Self(KeySlab::new(0))
    }
}

impl Uring {
    /// Sees to what was sent with the last enter.
    #[inline]
    pub(super) fn settle<S: Sink>(&mut self, sink: &mut S) {
        let mut state = self.half.state.borrow_mut();
        // Orders that the kernel has not taken are carried out by the next enter, and their bytes stay.
        if state.soon.is_empty() || state.ring.has_orders() {
            return;
        }
        let mut soon = std::mem::take(&mut state.soon);
        for Soon { key, .. } in &soon {
            if let Some(side) = state.sides.get_mut(*key) {
                side.soon = 0;
            }
        }
        for sent in &mut soon {
            if sent.answer.is_none() {
                state.discard(std::mem::replace(&mut sent.bytes, Bytes::None), sink.pool());
            }
        }
        drop(state);
        for sent in soon.drain(..) {
            if sent.answer.is_some() || sent.finishes || sent.closes.is_some() {
                self.settle_one(sink, sent);
            }
        }
        let mut state = self.half.state.borrow_mut();
        // A callback may have sent more.
        if state.soon.is_empty() {
            state.soon = soon;
        }
    }

    #[cold]
    fn settle_one<S: Sink>(&mut self, sink: &mut S, sent: Soon) {
        let Soon { key, bytes, answer, finishes, closes, resets } = sent;
        let error = answer.and_then(failure);
        let sent = answer.map_or(bytes.len(), |answer| usize::try_from(answer).unwrap_or(0));
        let rest = match answer {
            None => WriteQueue::new(),
            Some(_) => {
                self.streams.counts.sent_bytes -= (bytes.len() - sent) as u64;
                self.half.state.borrow_mut().rest_of(bytes, sent, sink.pool())
            }
        };
        if let Some(fd) = closes {
            if finishes && rest.is_empty() {
                // Behind a reset nothing would tell of the end.
                self.streams.counts.syscalls_shutdown += 1;
                let _ = sys::shutdown_write(fd.as_fd());
            }
            return self.close_with(sink, fd, rest, error.is_some() || resets);
        }
        let Some(source) = self.streams.sources.get_mut(key) else {
            let mut rest = rest;
            return rest.clear(sink.pool());
        };
        if rest.is_empty() {
            self.streams.counts.syscalls_shutdown += 1;
            // ENOTCONN: the peer was faster, and there is nobody left to tell.
            let _ = sys::shutdown_write(source.fd.as_fd());
            return;
        }
        match error {
            // The next flush says so.
            Some(error) => source.send_failed(&error),
            None => {
                source.bits |= if finishes { FINISHES } else { 0 };
                source.cut_short(&mut self.streams.counts);
                self.half.await_stream_room(source.fd.as_fd(), key);
            }
        }
        debug_assert!(source.has(BLOCKED) || source.has(super::super::poll::source::SEND_FAILED));
        unsent(sink, key, rest);
    }

    /// A stream that was closed goes, behind what it had to send.
    fn close_with<S: Sink>(&mut self, sink: &mut S, fd: OwnedFd, mut rest: WriteQueue, is_over: bool) {
        let mut state = self.half.state.borrow_mut();
        if rest.is_empty() || is_over {
            rest.clear(sink.pool());
            return state.ring.close(fd);
        }
        let mut leftover = Some(Leftover { fd, queue: rest });
        let key = self.leftovers.0.insert_with(|_| leftover.take().expect("taken once"));
        let Some(key) = key else { return };
        if let Some(leftover) = self.leftovers.0.get(key) {
            state.await_leftover(key, &leftover.fd);
        }
    }

    /// There is room for what a closed stream had to send, or its time is over.
    pub(super) fn send_leftover<S: Sink>(&mut self, sink: &mut S, key: Key, result: i32) {
        let Some(leftover) = self.leftovers.0.get_mut(key) else { return };
        while result > 0 && !leftover.queue.is_empty() {
            self.streams.counts.syscalls_send += 1;
            match sys::send(leftover.fd.as_fd(), leftover.queue.front()) {
                Ok(bytes) => {
                    self.streams.counts.sent_bytes += bytes as u64;
                    leftover.queue.consume(sink.pool(), bytes);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return self.half.state.borrow_mut().await_leftover(key, &leftover.fd);
                }
                Err(_) => break,
            }
        }
        if let Some(mut leftover) = self.leftovers.0.take(key) {
            leftover.queue.clear(sink.pool());
            self.half.state.borrow_mut().ring.close(leftover.fd);
        }
    }
}

/// Gives back what did not leave, in order.
fn unsent<S: Sink>(sink: &mut S, key: Key, mut rest: WriteQueue) {
    if rest.is_single() {
        sink.unsent(key, rest.front());
    } else {
        // Each goes in front of all others: from the last one to the first.
        let mut bytes = Vec::with_capacity(rest.queued_bytes());
        while !rest.is_empty() {
            let front = rest.front().len();
            bytes.extend_from_slice(rest.front());
            rest.consume(sink.pool(), front);
        }
        sink.unsent(key, &bytes);
    }
    rest.clear(sink.pool());
}

impl State {
    /// Notes that a receive found no buffer. Whoever is the first of a turn makes one more: one for each would make more than are needed, and
    /// all of them come round, through a cache that holds some.
    pub fn starve(&mut self, key: Key) {
        if self.starved.is_empty() {
            self.buffers.grow();
        }
        self.starved.push(key);
    }
}
