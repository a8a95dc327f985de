//! Outgoing connections that take more than one attempt: a name has to be looked up, an address may not answer, the queue of
//! a Unix listener may be full.
//!
//! The addresses are tried one after the other. The time that is left is divided evenly among those that are, so that one
//! which does not answer leaves some for the next, but no share is so small that a handshake does not fit in. Invariant: whoever is in the map has a slot in the phase of connecting,
//! and its guard is set. A dial of one IP address never gets here.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use super::connect::ConnectOptions;
use super::table::Connections;
use super::target::{Place, malformed};
use super::{Context, Lost, Protocol};
use crate::clockwork::Instant;
use crate::driver::{Close, Io};
use crate::mem::Key;
use crate::sys::Address;

/// What an address gets at least, of what is left: a handshake that loses its first packet takes a second.
const ATTEMPT_MIN: Duration = Duration::from_secs(2);

/// How long to wait for room in the queue of a Unix listener: nothing tells when there is some.
const RETRY: Duration = Duration::from_millis(10);

/// Looks names up, on whatever thread; the answer is [`Table::found`](super::any_table::Table::found) of the key.
pub trait Resolve {
    fn look_up(&self, key: Key, name: String, port: u16);
    /// Nobody wants to know any more.
    fn forget(&self, key: Key);
}

/// What is left to try, by connection.
#[derive(Default)]
pub struct Attempts {
    of: HashMap<Key, Attempt>,
}

struct Attempt {
    next: VecDeque<Address>,
    options: ConnectOptions,
    ends: Instant,
    /// What the last one failed with.
    failure: Option<io::Error>,
    /// Its addresses are not known yet.
    is_looked_up: bool,
}

impl Attempts {
    /// A connection has been made, or has ended.
    #[inline]
    pub fn forget(&mut self, resolver: &dyn Resolve, key: Key) {
        if !self.of.is_empty() && self.of.remove(&key).is_some_and(|attempt| attempt.is_looked_up) {
            resolver.forget(key);
        }
    }

    /// The attempt that is under way has failed. The error comes back if it was the only way to go.
    pub fn failed(&mut self, key: Key, error: io::Error) -> Result<(), io::Error> {
        match self.of.get_mut(&key) {
            Some(attempt) if !attempt.is_looked_up => {
                attempt.failure = Some(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.of.shrink_to_fit();
    }
}

impl<P: Protocol> Connections<P> {
    /// Begins an outgoing connection whose slot is there.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        place: Place,
        options: ConnectOptions,
    ) -> Result<(), Lost> {
        let ends = cx.agenda.clock.now().saturating_add(options.timeout);
        let (next, name) = match place {
            Place::Known(address, others) if others.is_empty() && !address.is_unix() => {
                io.connect(key, &address, &options.stream()).map_err(Lost::ConnectFailed)?;
                self.guard_connecting(cx, key, options.timeout);
                return Ok(());
            }
            Place::Known(address, others) => (std::iter::once(address).chain(others).collect(), None),
            Place::Name(name, port) => (VecDeque::new(), Some((name, port))),
            Place::Nothing(text, why) => return Err(Lost::ConnectFailed(malformed(&text, why))),
        };
        let attempt = Attempt { next, options, ends, failure: None, is_looked_up: name.is_some() };
        cx.attempts.of.insert(key, attempt);
        match name {
            None => self.attempt(cx, io, key),
            Some((name, port)) => {
                self.guard_connecting(cx, key, options.timeout);
                cx.resolver.look_up(key, name, port);
                Ok(())
            }
        }
    }

    /// Tries the next address.
    pub(super) fn attempt(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Result<(), Lost> {
        let now = cx.agenda.clock.now();
        let timed_out = || Lost::ConnectFailed(io::ErrorKind::TimedOut.into());
        loop {
            let Some(attempt) = cx.attempts.of.get_mut(&key) else { return Err(timed_out()) };
            let left = attempt.ends.duration_since(now);
            let Some(address) = attempt.next.pop_front() else {
                return Err(attempt.failure.take().map_or_else(timed_out, Lost::ConnectFailed));
            };
            if left.is_zero() {
                return Err(timed_out());
            }
            let wait = match io.connect(key, &address, &attempt.options.stream()) {
                Ok(()) => (left / (attempt.next.len() as u32 + 1)).max(ATTEMPT_MIN).min(left),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    attempt.next.push_front(address);
                    RETRY.min(left)
                }
                Err(error) => {
                    attempt.failure = Some(error);
                    continue;
                }
            };
            self.guard_connecting(cx, key, wait);
            return Ok(());
        }
    }

    /// The time of an attempt is over, or the time to wait for the next.
    pub(super) fn attempt_timed_out(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
    ) -> Result<(), Lost> {
        let error = cx.attempts.failed(key, io::ErrorKind::TimedOut.into());
        error.map_err(Lost::ConnectFailed)?;
        // Whether one is under way or not: the driver does not know a key that it has no source for.
        io.close(key, Close::Reset);
        self.attempt(cx, io, key)
    }

    /// The answer of the resolver.
    pub(super) fn found_addresses(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        found: io::Result<Vec<Address>>,
    ) -> Result<(), Lost> {
        if self.slots.get(key).is_none_or(|slot| !slot.stream.phase.is_connecting()) {
            return Ok(());
        }
        let Some(attempt) = cx.attempts.of.get_mut(&key) else { return Ok(()) };
        attempt.is_looked_up = false;
        attempt.next = found.map_err(Lost::ConnectFailed)?.into();
        self.attempt(cx, io, key)
    }

    fn guard_connecting(&mut self, cx: &mut Context, key: Key, after: Duration) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.stream.guard(&mut cx.agenda, key, after);
        }
    }
}
