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
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::super::{HangUp, IoCounts, Limits, Sink, Verdict, Watcher};
use super::announcing::Taking;
use super::datagrams::DatagramSockets;
use super::door::{Arrival, Door};
pub use super::register::Register;
use super::source::{
    ANNOUNCED, BLOCKED, CONNECTING, ENDED, ENDING, FAILED, PAUSED, READABLE, Readiness, Received, SPLICES,
    Scratch, Source, URGENT,
};
use super::splicing::{BYTES_PER_SHARE_BYTE, Splicer, Step};
use crate::mem::{Key, KeyMap};
use crate::sys;

/// The order-taking half of a poller: sockets and what is known about each.
pub struct Streams<R> {
    pub(in crate::driver) poller: R,
    pub(in crate::driver) sources: KeyMap<Source>,
    pub(in crate::driver) doors: KeyMap<Door>,
    /// Accepted in this batch; the poller does not know them yet.
    pub(in crate::driver) arrivals: Vec<Arrival>,
    pub(in crate::driver) datagrams: DatagramSockets,
    pub(in crate::driver) reserve: sys::ReserveFd,
    pub(in crate::driver) splicer: Splicer,
    /// The stream whose input is being announced.
    pub(super) taking: Taking,
    pub(in crate::driver) watcher: Option<Rc<dyn Watcher>>,
    pub(in crate::driver) counts: IoCounts,
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
            datagrams: DatagramSockets::new(),
            reserve: sys::ReserveFd::new()?,
            splicer: Splicer::new(true),
            taking: Taking::default(),
            watcher: None,
            counts: IoCounts::default(),
        })
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
        let Some(source) = self.sources.get(key) else {
            if self.datagrams.has(key) {
                return self.datagrams_ready(sink, key, now);
            }
            return match R::REPORTS_LISTENERS_ONCE {
                true => self.accept_rest(limits, sink, key),
                false => self.accept_share(limits, sink, key),
            };
        };
        if source.has(CONNECTING) {
            if now.writable || now.ending {
                self.connected(sink, key, now.ending);
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
        if now.failed {
            source.bits |= FAILED;
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
            return self.tell_failure(sink, key);
        }
        if ends_unread {
            return sink.ending(self, key);
        }
        if now.readable || now.ending {
            self.read(scratch, limits, sink, key);
        }
    }

    pub(in crate::driver) fn read<S: Sink>(
        &mut self,
        scratch: &mut Scratch,
        limits: &Limits,
        sink: &mut S,
        key: Key,
    ) {
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
            let room = left.min(scratch.len());
            let mut source = source;
            if source.has(SPLICES | ANNOUNCED) {
                let step = if source.has(SPLICES) {
                    self.splice(left.saturating_mul(BYTES_PER_SHARE_BYTE), sink, key)
                        .map(|bytes| bytes.div_ceil(BYTES_PER_SHARE_BYTE))
                } else {
                    self.announce_input(left, sink, key)
                };
                match step {
                    Step::Moved(bytes) => {
                        left -= bytes;
                        continue;
                    }
                    Step::Reads => continue,
                    Step::Drained => match self.sources.get_mut(key) {
                        Some(spliced) => source = spliced,
                        None => return,
                    },
                    Step::Over => return,
                }
            }
            match source.receive(&mut self.counts, scratch.part(0, room)) {
                Received::Bytes { len, drained } => {
                    left -= len;
                    if R::MOVES_BYTES && source.has(SPLICES) {
                        source.moved(len);
                    }
                    let verdict = sink.received(self, key, scratch.part(0, len));
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
                Received::End(how) => {
                    let failed_behind = source.has(FAILED) && matches!(how, HangUp::Eof);
                    sink.hung_up(self, key, how);
                    if failed_behind {
                        self.tell_failure(sink, key);
                    }
                    return;
                }
            }
        }
    }

    /// A stream is dead, and no read says so.
    pub(in crate::driver) fn tell_failure<S: Sink>(&mut self, sink: &mut S, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        source.bits &= !FAILED;
        self.counts.syscalls_other += 1;
        let error = sys::take_error(source.fd.as_fd()).ok().flatten();
        let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        sink.hung_up(self, key, HangUp::Failed(error));
    }

    /// Delivers what has happened to a source, whatever the poller has said of it.
    pub(in crate::driver) fn look<S: Sink>(
        &mut self,
        scratch: &mut Scratch,
        limits: &Limits,
        sink: &mut S,
        key: Key,
    ) {
        let Some(source) = self.sources.get_mut(key) else {
            self.datagrams.look(key);
            return self.receive_datagrams(sink, key);
        };
        if source.has(CONNECTING) {
            self.counts.syscalls_other += 1;
            if sys::has_connected_or_failed(source.fd.as_fd()) {
                self.connected(sink, key, true);
            }
            return;
        }
        source.bits |= READABLE;
        self.read(scratch, limits, sink, key);
    }

    /// A connect has come to its end. One that has failed is reported with an error, and asked for it.
    pub(in crate::driver) fn connected<S: Sink>(&mut self, sink: &mut S, key: Key, may_have_failed: bool) {
        let Some(source) = self.sources.get_mut(key) else { return };
        source.bits &= !CONNECTING;
        let port = std::mem::take(&mut source.number);
        self.counts.syscalls_other += u64::from(may_have_failed) + u64::from(port > 0);
        let error = if may_have_failed { sys::take_error(source.fd.as_fd()) } else { Ok(None) };
        let result = match error {
            Ok(None) if port > 0 && sys::is_connected_to_itself(source.fd.as_fd(), port) => {
                // Without a wait for stray segments, or whoever is to listen there finds the port taken.
                let _ = sys::reset_on_close(source.fd.as_fd());
                Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
            }
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        if result.is_ok() {
            self.poller.is_connected(source.fd.as_fd(), key);
        } else if let Some(source) = self.sources.remove(key) {
            self.poller.release(key, source.fd);
            self.counts.syscalls_close += R::CALLS;
        }
        sink.opened(self, key, result);
    }

    pub(super) fn insert(&mut self, key: Key, fd: OwnedFd, bits: u16) {
        let replaced = self.sources.insert(key, Source { fd, number: 0, bits });
        assert!(replaced.is_none(), "a key names one source at a time");
    }
}
