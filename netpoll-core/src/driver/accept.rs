//! Peers that stand at the door of a poller's listener.
//!
//! A listener is accepted from until it is empty, its share of the turn is used up, or no descriptor is left. Then
//! one peer is told so by way of the reserve descriptor, and the listener is paused: an edge that has been seen does not come
//! again, so somebody has to tell it to go on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::readiness::{PAUSED, READABLE, Register, Streams};
use super::{Io, Limits, Sink};
use crate::mem::Key;
use crate::sys;

impl<R: Register> Streams<R> {
    pub(super) fn accept<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key) {
        let mut left = limits.accepts;
        while let Some(source) = self.sources.get_mut(key) {
            if source.bits & (READABLE | PAUSED) != READABLE {
                return;
            }
            if left == 0 {
                return sink.unfinished(key);
            }
            left -= 1;
            self.counts.syscalls_accept += 1;
            match sys::accept(source.fd.as_fd()) {
                Ok((socket, peer)) => self.admit(sink, key, socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.bits &= !READABLE,
                // The peer went away while it was queued, or a signal came: the next one may be fine.
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    source.bits |= PAUSED;
                    if is_exhaustion(&error) {
                        self.counts.descriptors_exhausted += 1;
                        self.shed_one(key);
                    }
                    sink.accepted(self, key, Err(error));
                    return;
                }
            }
        }
    }

    fn admit<S: Sink>(&mut self, sink: &mut S, listener: Key, socket: OwnedFd, peer: SocketAddr) {
        match sink.accepted(self, listener, Ok(peer)) {
            Some(key) => {
                let result = self.adopt(key, socket);
                sink.opened(self, key, result);
            }
            None => {
                self.counts.syscalls_close += 1;
                drop(socket);
            }
        }
    }

    /// Gives the reserve descriptor to one queued peer and closes it, so that the peer learns at
    /// once instead of waiting in a queue that does not move.
    fn shed_one(&mut self, listener: Key) {
        let Some(source) = self.sources.get(listener) else { return };
        self.reserve.release();
        self.counts.syscalls_accept += 1;
        if let Ok((socket, _)) = sys::accept(source.fd.as_fd()) {
            self.counts.syscalls_close += 1;
            drop(socket);
        }
        self.counts.syscalls_other += 2;
        // Without a reserve the next peer waits in the queue until a descriptor is free: no harm.
        let _ = self.reserve.refill();
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
        || matches!(
            error.raw_os_error(),
            // accept(2): errors already pending on the new socket are passed on by Linux.
            Some(
                libc::EPROTO
                    | libc::ENETDOWN
                    | libc::ENOPROTOOPT
                    | libc::EHOSTDOWN
                    | libc::ENONET
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EPERM
            )
        )
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
