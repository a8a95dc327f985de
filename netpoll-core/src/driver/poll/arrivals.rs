//! Accepted connections between `accept4` and the poller.
//!
//! Who connects has often sent its request by the time it is accepted. So an arrival is received from first, what it
//! brought is delivered and answered, and only then it is registered, if it still lives: a connection of one request
//! can be over before the poller hears of it, which saves the registration, its removal and an event. Nothing is lost
//! meanwhile, because a registration reports what is true already: input, an end, and room for a send that was cut short.
//!
//! Invariant: a stream is registered or stands in `arrivals`, never both, and `arrivals` is empty between deliveries.
//!
//! Cost: where peers do not speak first, one `recv` for 65 connections finds nothing. A connection that is registered
//! behind its first bytes is reported once for the room that it has to send, and nothing else.

use std::os::fd::AsFd;

use super::super::{HangUp, Limits, Sink};
use super::batch::{Ahead, Batch};
use super::door::Arrival;
use super::streams::{Register, Streams};
use crate::mem::Key;

impl<R: Register> Streams<R> {
    pub(super) fn expects_first_words(&mut self, listener: Key) -> bool {
        self.doors.get_mut(listener).is_some_and(|door| door.first_words.are_expected())
    }

    /// Receives from all arrivals and delivers what they brought.
    #[inline(never)]
    pub(super) fn hear_arrivals<S: Sink>(&mut self, batch: &mut Batch, limits: &Limits, sink: &mut S) {
        for index in 0..self.arrivals.len() {
            if batch.is_full() {
                self.hand_over(batch, limits, sink);
                sink.delivered(self);
            }
            let Arrival { key, listener } = self.arrivals[index];
            let spoke = match self.receive_ahead(batch, limits, sink, key) {
                Ahead::Received => true,
                Ahead::Empty => false,
                // It is gone, or paused, or its first output was cut short: the poller will tell.
                Ahead::PutOff => continue,
            };
            if let Some(door) = self.doors.get_mut(listener) {
                door.first_words.learn(spoke);
            }
        }
        self.hand_over(batch, limits, sink);
    }

    /// Registers the arrivals that still live.
    #[inline(never)]
    pub(super) fn register_arrivals<S: Sink>(&mut self, sink: &mut S) {
        let mut has_failed = false;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for Arrival { key, .. } in arrivals.drain(..) {
            let Some(source) = self.sources.get(key) else { continue };
            self.counts.syscalls_ctl += 1;
            if let Err(error) = self.poller.register_stream(source.fd.as_fd(), key) {
                has_failed = true;
                sink.hung_up(self, key, HangUp::Failed(error));
            }
        }
        debug_assert!(self.arrivals.is_empty(), "nobody is accepted here");
        self.arrivals = arrivals;
        if has_failed {
            sink.delivered(self);
        }
    }
}

#[cfg(test)]
mod tests;
