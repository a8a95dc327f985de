//! The stream engine for pollers: turns "readable" and "writable" into bytes.
//!
//! Edge-triggered readiness is reported once, so the engine remembers it. Invariant: a stream whose
//! READABLE bit is clear has been drained, and the poller will report the next byte, now or when it is registered
//! (`arrivals.rs`); a stream whose bit is set is being read, is paused, or was reported unfinished. The bit is cleared
//! in two places only: after a read that returned less than was asked for, and after `EAGAIN`.
//!
//! A short read means drained, which saves the `EAGAIN` read, unless the peer's end was reported
//! as well: then reading goes on to the end, or a FIN that came with data would be lost. A read stops short at TCP's mark
//! of urgent data too, so the sources that had some are read until there is nothing.
//!
//! Cost per keep-alive request: one `recv`, one `send`, a share of one wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::accept::Door;
use super::arrivals::Arrival;
use super::{Close, Demand, Flushed, HangUp, Io, IoCounts, Limits, Sink, Verdict};
use crate::mem::{Key, KeyMap, Pool, WriteQueue};
use crate::sys;

/// One `recv` asks for this much: the default read quantum, so that one read fills one turn's share.
const SCRATCH_BYTES: usize = 64 * 1024;

const READABLE: u16 = 1;
const PAUSED: u16 = 1 << 1;
/// The poller reported RDHUP, HUP or ERR: read to the end.
const ENDING: u16 = 1 << 2;
/// The end of input was delivered.
const ENDED: u16 = 1 << 3;
/// A send was cut short; the next OUT edge matters.
pub(super) const BLOCKED: u16 = 1 << 4;
pub(super) const CONNECTING: u16 = 1 << 5;
/// A send of lent bytes failed; the next flush says so.
pub(super) const SEND_FAILED: u16 = 1 << 6;
/// It was told of the peer's end while it was paused.
const END_TOLD: u16 = 1 << 7;
/// The peer has sent urgent data: a short read is no proof that nothing is left.
const URGENT: u16 = 1 << 8;

/// What a poller reports about one source.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readiness {
    /// Input or a new peer may be there.
    pub readable: bool,
    /// There may be room to send, or a connect has ended.
    pub writable: bool,
    /// RDHUP, HUP or ERR.
    pub ending: bool,
    /// Urgent data came, or is still there.
    pub urgent: bool,
    /// ERR: the stream is dead.
    pub failed: bool,
}

/// What the engine needs from a poller.
pub trait Register {
    /// Reports edges of a stream under this key from now on.
    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()>;
    /// Reports a listener under this key in every wait, as long as peers are queued at it.
    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()>;
    /// Keeps silent about a registered listener, or reports it again.
    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, hush: bool) -> io::Result<()>;
}

pub(super) struct Source {
    pub(super) fd: OwnedFd,
    /// The kernel's error number, with `SEND_FAILED`.
    pub(super) errno: u16,
    pub(super) bits: u16,
}

const _: () = assert!(size_of::<Source>() == 8);

impl Source {
    pub(super) fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    /// True once: its peer has ended, and as it is paused nobody would learn of that.
    fn take_end_to_tell(&mut self) -> bool {
        let tell = self.bits & (PAUSED | ENDING | ENDED | END_TOLD) == PAUSED | ENDING;
        if tell {
            self.bits |= END_TOLD;
        }
        tell
    }

    /// Whether bytes may be read from it, and nothing else is to be said about it.
    #[inline]
    pub(super) fn is_plain_stream(&self) -> bool {
        self.bits & !READABLE == 0
    }

    /// One `recv`, and what it says about the source.
    #[inline(always)]
    pub(super) fn receive(&mut self, counts: &mut IoCounts, room: &mut [u8]) -> Received {
        counts.syscalls_recv += 1;
        match sys::recv(self.fd.as_fd(), room) {
            Ok(0) => {
                self.bits = (self.bits | ENDED) & !READABLE;
                Received::End(HangUp::Eof)
            }
            Ok(len) => {
                counts.received_bytes += len as u64;
                let drained = len < room.len() && !self.has(ENDING | URGENT);
                self.bits = if drained { self.bits & !READABLE } else { self.bits | READABLE };
                Received::Bytes { len, drained }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.bits &= !READABLE;
                counts.receives_empty += 1;
                Received::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Interrupted,
            Err(error) => {
                self.bits = (self.bits | ENDED) & !READABLE;
                Received::End(HangUp::Failed(error))
            }
        }
    }
}

/// The order-taking half of a poller: sockets and what is known about each.
pub struct Streams<R> {
    pub(super) poller: R,
    pub(super) sources: KeyMap<Source>,
    pub(super) doors: KeyMap<Door>,
    /// Accepted in this batch; the poller does not know them yet.
    pub(super) arrivals: Vec<Arrival>,
    pub(super) reserve: sys::ReserveFd,
    pub(super) counts: IoCounts,
}

/// Where reads land: one block per worker, hot in the cache.
pub struct Scratch(Box<[u8]>);

impl Scratch {
    pub fn new() -> Self {
        Self(vec![0; SCRATCH_BYTES].into_boxed_slice())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub fn part(&mut self, start: usize, len: usize) -> &mut [u8] {
        &mut self.0[start..start + len]
    }

    #[inline]
    pub fn get(&self, start: usize, end: usize) -> &[u8] {
        &self.0[start..end]
    }
}

/// What one `recv` came to.
pub enum Received {
    /// So many bytes; `drained` if no more can be there.
    Bytes { len: usize, drained: bool },
    /// There was nothing.
    Nothing,
    /// A signal came first.
    Interrupted,
    /// The peer ended its direction, or the stream failed.
    End(HangUp),
}

impl<R: Register> Streams<R> {
    /// # Errors
    /// When no descriptor is left to hold in reserve.
    pub fn new(poller: R) -> io::Result<Self> {
        Ok(Self {
            poller,
            sources: KeyMap::new(),
            doors: KeyMap::new(),
            arrivals: Vec::new(),
            reserve: sys::ReserveFd::new()?,
            counts: IoCounts::default(),
        })
    }

    pub fn poller(&self) -> &R {
        &self.poller
    }

    /// Handles what the poller reported about one source.
    pub fn ready<S: Sink>(
        &mut self,
        scratch: &mut Scratch,
        limits: &Limits,
        sink: &mut S,
        key: Key,
        now: Readiness,
    ) {
        let Some(source) = self.sources.get(key) else { return self.accept_share(limits, sink, key) };
        if source.has(CONNECTING) {
            if now.writable || now.ending {
                self.connected(sink, key);
            }
            let Some(source) = self.sources.get(key) else { return };
            if source.has(CONNECTING) {
                return;
            }
        }
        let Some(source) = self.sources.get_mut(key) else { return };
        if now.readable || now.ending {
            source.bits |= READABLE;
        }
        if now.ending {
            source.bits |= ENDING;
        }
        if now.urgent {
            source.bits |= URGENT;
        }
        let ends_unread = source.take_end_to_tell() && !now.failed;
        let unblocked = now.writable && source.has(BLOCKED);
        if unblocked {
            source.bits &= !BLOCKED;
        }
        // A dead stream that nobody reads would stay unnoticed until the next write.
        let dead_unread = now.failed && source.has(PAUSED | ENDED);
        if unblocked {
            sink.sent(self, key, 0);
        }
        if dead_unread {
            let Some(source) = self.sources.get(key) else { return };
            self.counts.syscalls_other += 1;
            let error = sys::take_error(source.fd.as_fd()).ok().flatten();
            let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
            return sink.hung_up(self, key, HangUp::Failed(error));
        }
        if ends_unread {
            return sink.ending(self, key);
        }
        if now.readable || now.ending {
            self.read(scratch, limits, sink, key);
        }
    }

    pub(super) fn read<S: Sink>(&mut self, scratch: &mut Scratch, limits: &Limits, sink: &mut S, key: Key) {
        let mut left = limits.read_bytes;
        // Looked up again after every delivery: the receiver may have closed or paused the source.
        while let Some(source) = self.sources.get_mut(key) {
            if source.bits & (READABLE | PAUSED | ENDED | CONNECTING) != READABLE {
                return;
            }
            if left == 0 {
                self.counts.quantum_hits += 1;
                return sink.unfinished(key);
            }
            let room = left.min(scratch.0.len());
            match source.receive(&mut self.counts, &mut scratch.0[..room]) {
                Received::Bytes { len, drained } => {
                    left -= len;
                    let verdict = sink.received(self, key, &scratch.0[..len]);
                    sys::assert_not_forked();
                    match verdict {
                        Verdict::Continue => {}
                        Verdict::Reply { start, end } => {
                            self.reply(sink, key, scratch.get(start as usize, end as usize));
                        }
                        Verdict::Stop | Verdict::Gone => return,
                    }
                    if drained {
                        return;
                    }
                }
                Received::Interrupted => {}
                Received::Nothing => return,
                Received::End(how) => return sink.hung_up(self, key, how),
            }
        }
    }

    /// Delivers what has happened to a source, whatever the poller has said of it.
    pub(super) fn look<S: Sink>(&mut self, scratch: &mut Scratch, limits: &Limits, sink: &mut S, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        if source.has(CONNECTING) {
            self.counts.syscalls_other += 1;
            if sys::has_connected_or_failed(source.fd.as_fd()) {
                self.connected(sink, key);
            }
            return;
        }
        source.bits |= READABLE;
        self.read(scratch, limits, sink, key);
    }

    fn connected<S: Sink>(&mut self, sink: &mut S, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        source.bits &= !CONNECTING;
        self.counts.syscalls_other += 3;
        let result = match sys::take_error(source.fd.as_fd()) {
            Ok(None) if sys::is_connected_to_itself(source.fd.as_fd()) => {
                // Without a wait for stray segments, or whoever is to listen there finds the port taken.
                let _ = sys::reset_on_close(source.fd.as_fd());
                Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
            }
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        if result.is_err() {
            self.sources.remove(key);
            self.counts.syscalls_close += 1;
        }
        sink.opened(self, key, result);
    }

    pub(super) fn insert(&mut self, key: Key, fd: OwnedFd, bits: u16) {
        let replaced = self.sources.insert(key, Source { fd, errno: 0, bits });
        assert!(replaced.is_none(), "a key names one source at a time");
    }
}

impl<R: Register> Io for Streams<R> {
    fn listen(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        self.counts.syscalls_ctl += 1;
        self.poller.register_listener(socket.as_fd(), key)?;
        let replaced = self.doors.insert(key, Door::new(socket));
        assert!(replaced.is_none(), "a key names one listener at a time");
        Ok(())
    }

    fn connect(&mut self, key: Key, to: SocketAddr, from: Option<SocketAddr>) -> io::Result<()> {
        self.counts.syscalls_connect += 2;
        let socket = sys::connect(to, from)?;
        self.counts.syscalls_ctl += 1;
        self.poller.register_stream(socket.as_fd(), key)?;
        self.insert(key, socket, CONNECTING);
        Ok(())
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        self.counts.syscalls_ctl += 1;
        self.poller.register_stream(socket.as_fd(), key)?;
        self.insert(key, socket, 0);
        Ok(())
    }

    fn receive(&mut self, key: Key, demand: Demand) -> bool {
        let Some(source) = self.sources.get_mut(key) else {
            self.hush(key, demand == Demand::Pause);
            return false;
        };
        match demand {
            Demand::Pause => {
                source.bits |= PAUSED;
                source.take_end_to_tell()
            }
            Demand::Flow => {
                source.bits &= !PAUSED;
                source.bits & (READABLE | ENDED) == READABLE
            }
        }
    }

    fn may_have_input(&mut self, key: Key) -> bool {
        self.sources.get(key).is_some_and(|source| source.bits & (READABLE | ENDED) == READABLE)
    }

    fn has_input(&mut self, key: Key) -> bool {
        let Some(source) = self.sources.get(key) else { return false };
        self.counts.syscalls_other += 1;
        sys::unread_bytes(source.fd.as_fd()).is_ok_and(|bytes| bytes > 0)
    }

    fn flush(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        self.send_queued(key, queue, pool)
    }

    fn send(&mut self, key: Key, bytes: &[u8]) -> usize {
        self.send_lent(key, bytes)
    }

    fn retire(&mut self, listener: Key) -> bool {
        let Some(door) = self.doors.get(listener) else { return false };
        self.counts.syscalls_other += 1;
        sys::refuse_new_connections(door.socket().as_fd()).is_ok()
    }

    fn finish(&mut self, key: Key) {
        let Some(source) = self.sources.get(key) else { return };
        self.counts.syscalls_shutdown += 1;
        // ENOTCONN: the peer was faster, and there is nobody left to tell.
        let _ = sys::shutdown_write(source.fd.as_fd());
    }

    fn unacknowledged(&mut self, key: Key) -> Option<usize> {
        let source = self.sources.get(key)?;
        self.counts.syscalls_other += 1;
        sys::unacknowledged_bytes(source.fd.as_fd()).ok()
    }

    fn close(&mut self, key: Key, how: Close) {
        let Some(source) = self.sources.remove(key) else {
            self.counts.syscalls_close += u64::from(self.doors.remove(key).is_some());
            return;
        };
        if how == Close::Reset {
            self.counts.syscalls_other += 1;
            // A socket that is gone already cannot be reset; closing it is all that is left.
            let _ = sys::reset_on_close(source.fd.as_fd());
        }
        self.counts.syscalls_close += 1;
    }

    fn shrink(&mut self) {
        self.sources.shrink();
        self.arrivals.shrink_to_fit();
    }

    fn counts(&self) -> &IoCounts {
        &self.counts
    }
}
