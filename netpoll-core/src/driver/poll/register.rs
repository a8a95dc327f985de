//! What the stream engine needs from a poller, and what one may do beside that.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::super::{Flushed, Interest, IoCounts};
use super::source::Source;
use crate::mem::{Key, Pool, WriteQueue};

/// What the engine needs from a poller.
///
/// One that moves the bytes of streams itself, as io_uring does, says so by a constant: of what is only for it, there is nothing in the
/// code of the others.
pub trait Register {
    /// Whether a listener is reported once for those who have come since, and not by every wait as long as peers are queued at it.
    const REPORTS_LISTENERS_ONCE: bool;
    /// Streams are received from by the poller, and what is small is sent by it.
    const MOVES_BYTES: bool = false;
    /// How many system calls an order is.
    const CALLS: u64 = 1;

    /// Reports edges of a stream under this key from now on.
    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()>;
    /// Reports a listener under this key in every wait, as long as peers are queued at it, or once
    /// ([`REPORTS_LISTENERS_ONCE`](Self::REPORTS_LISTENERS_ONCE)). Of those who share its queue and wait, only one is woken, if the poller
    /// has a way to do that.
    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool) -> io::Result<()>;
    /// Keeps silent about a registered listener, or reports it again, those who have come meanwhile included.
    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool, hush: bool) -> io::Result<()>;
    /// A socket that is reported, and that others have open as well, is about to be closed here, or a stream is about to go elsewhere.
    fn forget(&self, fd: BorrowedFd<'_>);
    /// Reports edges of the input of a datagram socket under this key from now on.
    fn register_datagrams(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()>;
    /// Reports when there is room to send on a registered datagram socket, or no longer.
    fn await_room(&self, fd: BorrowedFd<'_>, key: Key, awaits: bool) -> io::Result<()>;
    /// Reports edges of a descriptor of somebody else under this key with a driver's bits.
    fn watch(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()>;
    /// Reports nothing about it any more.
    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Reports when a stream that is being connected is so, or has failed.
    fn register_connecting(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.register_stream(fd, key)
    }

    /// It is connected.
    fn is_connected(&self, fd: BorrowedFd<'_>, key: Key) {
        let _ = (fd, key);
    }

    /// A source is closed: its descriptor goes, and nothing of it is reported any more.
    fn release(&self, key: Key, fd: OwnedFd) {
        let _ = key;
        drop(fd);
    }

    /// Whether a stream is paused has changed.
    fn reined(&self, key: Key) {
        let _ = key;
    }

    /// Sends what is queued of a stream that is not held up, in the next wait. `None` if the engine is to send it at once.
    fn send_soon(
        &self,
        key: Key,
        source: &mut Source,
        queue: &mut WriteQueue,
        pool: &mut Pool,
        counts: &mut IoCounts,
    ) -> Option<Flushed> {
        let _ = (key, source, queue, pool, counts);
        None
    }

    /// Something is to be sent in the next wait: nothing may overtake it.
    fn sends_soon(&self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// Bytes that are to be sent in the next wait.
    fn unsent_bytes(&self, key: Key) -> usize {
        let _ = key;
        0
    }

    /// Ends our direction behind what is to be sent in the next wait; false if that is nothing.
    fn finish_soon(&self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// Reports when a stream whose output was cut short has room.
    fn await_writable(&self, fd: BorrowedFd<'_>, key: Key) {
        let _ = (fd, key);
    }

    /// Reports edges of a stream that was received from, as of a stream of a poller that does not.
    fn poll_instead(&self, fd: BorrowedFd<'_>, key: Key) {
        let _ = (fd, key);
    }

    /// Gives back memory that a spike has left behind.
    fn shrink(&self) {}

    /// Whether input of a stream was received that is not delivered.
    fn has_received(&self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// Takes such input: zero if there is none.
    fn take_received(&self, key: Key, into: &mut [u8]) -> usize {
        let _ = (key, into);
        0
    }

    /// Whether input of a stream may come that is not reported.
    fn is_blind(&self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// A stream is about to be closed by a reset: what is to be sent in the next wait is not kept for a peer that has no room for it.
    fn abandon(&self, key: Key) {
        let _ = key;
    }

    /// Closes now what was to be closed in the next wait, since descriptors are short. False if that is nothing.
    fn closes_now(&self) -> bool {
        false
    }
}

impl<R: Register> Register for Rc<R> {
    const REPORTS_LISTENERS_ONCE: bool = R::REPORTS_LISTENERS_ONCE;
    const MOVES_BYTES: bool = R::MOVES_BYTES;
    const CALLS: u64 = R::CALLS;

    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        R::register_stream(self, fd, key)
    }

    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool) -> io::Result<()> {
        R::register_listener(self, fd, key, shared)
    }

    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool, hush: bool) -> io::Result<()> {
        R::hush_listener(self, fd, key, shared, hush)
    }

    fn forget(&self, fd: BorrowedFd<'_>) {
        R::forget(self, fd);
    }

    fn register_datagrams(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        R::register_datagrams(self, fd, key)
    }

    fn await_room(&self, fd: BorrowedFd<'_>, key: Key, awaits: bool) -> io::Result<()> {
        R::await_room(self, fd, key, awaits)
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        R::watch(self, fd, token, interest)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        R::unwatch(self, fd)
    }

    fn register_connecting(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        R::register_connecting(self, fd, key)
    }

    fn is_connected(&self, fd: BorrowedFd<'_>, key: Key) {
        R::is_connected(self, fd, key);
    }

    fn release(&self, key: Key, fd: OwnedFd) {
        R::release(self, key, fd);
    }

    fn reined(&self, key: Key) {
        R::reined(self, key);
    }

    #[inline]
    fn send_soon(
        &self,
        key: Key,
        source: &mut Source,
        queue: &mut WriteQueue,
        pool: &mut Pool,
        counts: &mut IoCounts,
    ) -> Option<Flushed> {
        R::send_soon(self, key, source, queue, pool, counts)
    }

    #[inline]
    fn sends_soon(&self, key: Key) -> bool {
        R::sends_soon(self, key)
    }

    fn unsent_bytes(&self, key: Key) -> usize {
        R::unsent_bytes(self, key)
    }

    fn finish_soon(&self, key: Key) -> bool {
        R::finish_soon(self, key)
    }

    fn await_writable(&self, fd: BorrowedFd<'_>, key: Key) {
        R::await_writable(self, fd, key);
    }

    fn poll_instead(&self, fd: BorrowedFd<'_>, key: Key) {
        R::poll_instead(self, fd, key);
    }

    fn shrink(&self) {
        R::shrink(self);
    }

    fn has_received(&self, key: Key) -> bool {
        R::has_received(self, key)
    }

    fn take_received(&self, key: Key, into: &mut [u8]) -> usize {
        R::take_received(self, key, into)
    }

    fn is_blind(&self, key: Key) -> bool {
        R::is_blind(self, key)
    }

    fn abandon(&self, key: Key) {
        R::abandon(self, key);
    }

    fn closes_now(&self) -> bool {
        R::closes_now(self)
    }
}
