//! What the floors above ask of a stream, a listener or a datagram socket of a poller.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::super::{
    Close, DatagramBind, DatagramSetup, DatagramsFlushed, Demand, Flushed, Io, IoCounts, Queue, Retired,
    Watcher,
};
use super::accept::is_exhaustion;
use super::door::Door;
use super::source::{ANNOUNCED, CONNECTING, ENDED, PAUSED, POLLED, READABLE};
use super::streams::{Register, Streams};
use crate::mem::{DatagramQueue, Key, Pool, WriteQueue};
use crate::sys::{self, Address, DatagramOption, StreamOptions};

/// What the kernel keeps of a send to a Unix socket in one piece, and lets go as one, is less than this (`unix_stream_sendmsg`,
/// net/unix/af_unix.c: 32 KiB in pages, and what fits into an allocation of 16 KiB).
const UNIX_PIECE_BYTES: usize = 64 * 1024;

impl<R: Register> Streams<R> {
    fn close_door(&mut self, key: Key) {
        let Some(door) = self.doors.remove(key) else {
            if let Some((socket, is_shared)) = self.datagrams.remove(key) {
                if is_shared {
                    self.counts.syscalls_ctl += R::CALLS;
                    self.poller.forget(socket.as_fd());
                }
                self.poller.release(key, socket);
                self.counts.syscalls_close += R::CALLS;
            }
            return;
        };
        if door.queue.is_shared() {
            self.counts.syscalls_ctl += R::CALLS;
            self.poller.forget(door.socket().as_fd());
        }
        self.poller.release(key, door.into_socket());
        self.counts.syscalls_close += R::CALLS;
    }
}

impl<R: Register> Io for Streams<R> {
    fn listen(&mut self, key: Key, socket: OwnedFd, queue: Queue) -> io::Result<()> {
        self.counts.syscalls_ctl += R::CALLS;
        self.poller.register_listener(socket.as_fd(), key, queue.takes_turns())?;
        let replaced = self.doors.insert(key, Door::new(socket, queue));
        assert!(replaced.is_none(), "a key names one listener at a time");
        Ok(())
    }

    fn connect(&mut self, key: Key, to: &Address, options: &StreamOptions) -> io::Result<()> {
        self.counts.syscalls_connect += 2;
        self.counts.syscalls_other += if to.is_unix() { 0 } else { options.calls() };
        let socket = match sys::connect(to, options) {
            Err(error) if is_exhaustion(&error) && self.poller.closes_now() => sys::connect(to, options)?,
            outcome => outcome?,
        };
        self.counts.syscalls_ctl += R::CALLS;
        self.poller.register_connecting(socket.as_fd(), key)?;
        self.insert(key, socket, CONNECTING);
        if let (Some(source), Some(inet)) = (self.sources.get_mut(key), to.as_socket_addr()) {
            source.number = inet.port();
        }
        Ok(())
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        self.counts.syscalls_ctl += R::CALLS;
        self.poller.register_stream(socket.as_fd(), key)?;
        self.insert(key, socket, 0);
        Ok(())
    }

    fn take_out(&mut self, key: Key) -> Option<OwnedFd> {
        let ended = R::MOVES_BYTES || self.sources.get(key)?.bits & (CONNECTING | ENDED) != 0;
        let source = if ended { None } else { self.sources.remove(key) }?;
        self.counts.syscalls_ctl += R::CALLS;
        // Its socket stays open, and would be reported on.
        self.poller.forget(source.fd.as_fd());
        Some(source.fd)
    }

    fn socket(&self, key: Key) -> Option<BorrowedFd<'_>> {
        self.sources.get(key).map(|source| source.fd.as_fd())
    }

    fn receive(&mut self, key: Key, demand: Demand) -> bool {
        let Some(source) = self.sources.get_mut(key) else {
            // One that has lost its place at the poller is looked after when it is resumed.
            return self.hush(key, demand == Demand::Pause).is_err();
        };
        match demand {
            Demand::Pause => {
                source.bits |= PAUSED;
                self.poller.reined(key);
                source.take_end_to_tell()
            }
            Demand::Flow => {
                source.bits &= !PAUSED;
                self.poller.reined(key);
                (!R::MOVES_BYTES || source.has(POLLED)) && source.bits & (READABLE | ENDED) == READABLE
            }
        }
    }

    fn may_have_input(&mut self, key: Key) -> bool {
        let Some(source) = self.sources.get(key) else { return false };
        source.bits & (READABLE | ENDED) == READABLE
            || !source.has(ENDED | CONNECTING) && self.poller.is_blind(key)
            || self.poller.has_received(key)
    }

    fn has_input(&mut self, key: Key) -> bool {
        let Some(source) = self.sources.get(key) else { return false };
        self.counts.syscalls_other += 1;
        sys::unread_bytes(source.fd.as_fd()).is_ok_and(|bytes| bytes > 0) || self.poller.has_received(key)
    }

    fn salvage(&mut self, key: Key, into: &mut [u8]) -> usize {
        // Who has been read to the end, or to the error, has nothing left.
        let Some(source) = self.sources.get(key).filter(|source| !source.has(ENDED)) else { return 0 };
        let mut len = self.poller.take_received(key, into);
        if len == 0 {
            self.counts.syscalls_recv += 1;
            len = sys::recv(source.fd.as_fd(), into).unwrap_or(0);
        }
        self.counts.received_bytes += len as u64;
        len
    }

    fn flush(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        self.send_queued(key, queue, pool)
    }

    fn send(&mut self, key: Key, bytes: &[u8]) -> usize {
        self.send_lent(key, bytes)
    }

    fn splice(&mut self, from: Key) -> bool {
        self.begin_to_splice(from)
    }

    fn announce(&mut self, key: Key) {
        if R::MOVES_BYTES {
            // It has been received by the time that anybody hears of it.
            return;
        }
        if let Some(source) = self.sources.get_mut(key) {
            source.bits |= ANNOUNCED;
        }
    }

    fn take(&mut self, key: Key, into: &mut [u8]) -> usize {
        self.take_input(key, into)
    }

    fn bind(&mut self, key: Key, socket: OwnedFd, setup: &DatagramSetup) -> io::Result<()> {
        self.bind_datagrams(key, socket, setup)
    }

    fn open_datagrams(&mut self, key: Key, bind: &DatagramBind) -> io::Result<SocketAddr> {
        self.open_datagram_socket(key, bind)
    }

    fn set_datagram_option(&mut self, key: Key, option: DatagramOption) -> io::Result<()> {
        self.set_option_of_datagrams(key, option)
    }

    fn send_to(&mut self, key: Key, queue: &mut DatagramQueue) -> DatagramsFlushed {
        self.send_datagrams(key, queue)
    }

    fn watcher(&self) -> Option<Rc<dyn Watcher>> {
        self.watcher.clone()
    }

    fn retire(&mut self, listener: Key) -> Retired {
        let Some(door) = self.doors.get(listener) else { return Retired::Not };
        let (retired, kept_away) = match door.queue {
            Queue::Own | Queue::Several { .. } => {
                (Retired::Soon, sys::refuse_new_connections(door.socket().as_fd()))
            }
            // Of all workers: whoever is first does it for the others, who drain as well.
            Queue::Workers { .. } => (Retired::Now, sys::refuse_new_unix_connections(door.socket().as_fd())),
            Queue::Foreign { .. } => return Retired::Not,
        };
        self.counts.syscalls_other += 1;
        if kept_away.is_ok() { retired } else { Retired::Not }
    }

    fn drain_listener(&mut self, listener: Key) -> bool {
        let Some(door) = self.doors.get_mut(listener) else { return false };
        door.is_drained = true;
        true
    }

    fn peer_addr(&mut self, key: Key) -> Option<Address> {
        let source = self.sources.get(key)?;
        self.counts.syscalls_other += 1;
        sys::peer_addr(source.fd.as_fd()).ok()
    }

    fn local_addr(&mut self, key: Key) -> Option<Address> {
        let source = self.sources.get(key)?;
        self.counts.syscalls_other += 1;
        sys::local_addr(source.fd.as_fd()).ok()
    }

    fn finish(&mut self, key: Key) {
        let Some(source) = self.sources.get(key) else { return };
        if self.poller.finish_soon(key) {
            return;
        }
        self.counts.syscalls_shutdown += 1;
        // ENOTCONN: the peer was faster, and there is nobody left to tell.
        let _ = sys::shutdown_write(source.fd.as_fd());
    }

    fn unacknowledged(&mut self, key: Key) -> Option<usize> {
        let source = self.sources.get(key)?;
        self.counts.syscalls_other += 1;
        let unsent_bytes = self.poller.unsent_bytes(key);
        sys::unacknowledged_bytes(source.fd.as_fd()).ok().map(|bytes| bytes + unsent_bytes)
    }

    fn unacknowledged_step(&mut self, key: Key) -> usize {
        let Some(source) = self.sources.get(key) else { return 0 };
        self.counts.syscalls_other += 1;
        if sys::is_unix(source.fd.as_fd()) { UNIX_PIECE_BYTES } else { 0 }
    }

    fn close(&mut self, key: Key, how: Close) {
        let Some(source) = self.sources.remove(key) else { return self.close_door(key) };
        if how == Close::Reset {
            self.counts.syscalls_other += 1;
            // A socket that is gone already cannot be reset; closing it is all that is left.
            let _ = sys::reset_on_close(source.fd.as_fd());
            self.poller.abandon(key);
        }
        self.counts.syscalls_close += R::CALLS;
        self.poller.release(key, source.fd);
    }

    fn shrink(&mut self) {
        self.sources.shrink();
        self.splicer.shrink();
        self.arrivals.shrink_to_fit();
        self.poller.shrink();
    }

    fn counts(&self) -> &IoCounts {
        &self.counts
    }
}
