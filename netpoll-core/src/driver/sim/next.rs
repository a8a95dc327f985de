//! What happens next on one link. Decided with the network borrowed, delivered without.

use std::io;

use super::link::{Link, State};
use super::network::Net;
use super::outgoing::send_in_flight;
use super::{SimDriver, SimIo};
use crate::clockwork::Instant;
use crate::driver::{HangUp, IoCounts, Limits};
use crate::mem::{Key, Pool};

/// Bytes of one chunk, at most.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

pub enum Next {
    Nothing,
    Accept(Key),
    Opened(Key, io::Result<()>),
    /// So many bytes of what was in flight have left.
    Sent(Key, usize),
    /// There is room for what was left in a queue.
    Room(Key),
    /// A false alarm.
    NoRoom(Key),
    /// Up to so many bytes lie in the socket for whoever takes them there.
    Announced(Key, usize),
    /// In `SimDriver::chunk`.
    Chunk(Key),
    End(Key, HangUp),
    /// The peer of a paused link has ended.
    Ending(Key),
    Interrupted(Key),
}

impl SimDriver {
    pub(super) fn next(&mut self, index: usize, limits: &Limits, pool: &mut Pool) -> Next {
        let Self { io: SimIo { net, random, counts, worker, .. }, chunk, .. } = self;
        let mut guard = net.net.borrow_mut();
        let net = &mut *guard;
        let faults = net.faults(index);
        let link = &mut net.links[index];
        if link.worker != *worker || random.happens(faults.delays) {
            return Next::Nothing;
        }
        link.reopen_window();
        let key = match link.state {
            State::Gone => return Next::Nothing,
            State::Queued(listener) => {
                let accepts = net.shares[*worker].listeners.get(listener).copied().unwrap_or(false);
                return if accepts { Next::Accept(listener) } else { Next::Nothing };
            }
            State::Dialing(key, at) => return net.dial(index, key, at),
            State::Open(key) => key,
        };
        // A reset takes what is in flight along, but not what had arrived before it: who is interrupted receives that when it is
        // resumed, who is paused may never.
        if link.reset && !link.reads() && (link.paused || !link.interrupted) {
            return link.next_input(key);
        }
        if !link.in_flight.is_empty() && !link.reset {
            let left = link.in_flight.queued_bytes().min(link.room());
            let bytes = random.part(left, faults.partial_sends);
            if bytes > 0 {
                counts.sent_bytes += bytes as u64;
                let travel = net.travel(index);
                send_in_flight(&mut net.links[index], travel, bytes, pool);
                return Next::Sent(key, bytes);
            }
        } else if link.blocked && link.room() > 0 {
            link.blocked = false;
            return Next::Room(key);
        } else if random.happens(faults.spurious_sent) {
            return Next::NoRoom(key);
        }
        if link.paused && !link.has_end_to_tell() {
            // What had left the socket before the pause may come now, or never during it.
            let late = !link.to_us.is_empty() && std::mem::take(&mut link.may_be_late);
            if !late || link.interrupted || !random.happens(faults.late_receives) {
                return Next::Nothing;
            }
        } else if !link.reads() {
            return link.next_input(key);
        } else if random.happens(faults.interrupted_receives) {
            link.interrupted = true;
            return Next::Interrupted(key);
        }
        let bytes_max = link.to_us.len().min(limits.read_bytes).min(CHUNK_BYTES_MAX);
        let bytes = random.part(bytes_max, faults.partial_receives);
        if link.announced && !link.paused {
            return Next::Announced(key, bytes);
        }
        link.take_chunk(bytes, chunk, counts);
        Next::Chunk(key)
    }

    /// What has happened to a link by now and nobody was told: nothing is late for one who looks.
    pub(super) fn next_seen(&mut self, index: usize, bytes_max: usize) -> Next {
        let Self { io: SimIo { net, counts, .. }, chunk, .. } = self;
        let mut net = net.net.borrow_mut();
        let link = &mut net.links[index];
        let key = match link.state {
            State::Gone | State::Queued(_) => return Next::Nothing,
            State::Dialing(key, at) => return net.dial(index, key, at),
            State::Open(key) => key,
        };
        if link.paused || link.eof_told {
            return Next::Nothing;
        }
        link.interrupted = false;
        if link.reads() && bytes_max > 0 {
            link.take_chunk(link.to_us.len().min(bytes_max), chunk, counts);
            return Next::Chunk(key);
        }
        if link.to_us.is_empty() { link.next_input(key) } else { Next::Nothing }
    }
}

impl Net {
    /// The answer to an outgoing connection, if it is there.
    fn dial(&mut self, index: usize, key: Key, at: Option<Instant>) -> Next {
        let link = &mut self.links[index];
        let is_due = at.is_some_and(|at| at <= self.now);
        if link.reset || (link.is_refused && is_due) {
            link.state = State::Gone;
            self.shares[link.worker].by_key.remove(key);
            return Next::Opened(key, Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if !is_due {
            return Next::Nothing;
        }
        link.state = State::Open(key);
        Next::Opened(key, Ok(()))
    }
}

impl Link {
    /// Input may be delivered.
    fn reads(&self) -> bool {
        !(self.paused || self.interrupted || self.eof_told || self.to_us.is_empty())
    }

    /// What there is to say of the input if no bytes are.
    fn next_input(&mut self, key: Key) -> Next {
        if self.reset && !std::mem::replace(&mut self.reset_told, true) {
            return Next::End(key, HangUp::Failed(reset_error(self)));
        }
        if self.take_end_to_tell() {
            return Next::Ending(key);
        }
        if self.interrupted || self.paused || !self.finished || !self.to_us.is_empty() {
            return Next::Nothing;
        }
        if std::mem::replace(&mut self.eof_told, true) { Next::Nothing } else { Next::End(key, HangUp::Eof) }
    }

    fn take_chunk(&mut self, bytes: usize, chunk: &mut Vec<u8>, counts: &mut IoCounts) {
        chunk.clear();
        let (front, back) = self.to_us.as_slices();
        let first = bytes.min(front.len());
        chunk.extend_from_slice(&front[..first]);
        chunk.extend_from_slice(&back[..bytes - first]);
        self.to_us.drain(..bytes);
        counts.syscalls_recv += 1;
        counts.received_bytes += bytes as u64;
    }
}

/// As Linux says it: a stream whose end had come before is a broken pipe.
pub fn reset_error(link: &Link) -> io::Error {
    let kind = if link.finished { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
    kind.into()
}
