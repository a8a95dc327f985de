//! Peers that are queued at a poller's listener.
//!
//! A listener is reported by every wait as long as somebody is queued (level-triggered), so nobody has to accept until
//! there is nobody: for an `accept4` that finds nothing the kernel makes a socket and a file, and throws them away. From
//! each report as many peers are accepted as are likely there, its *share*. At a poller that reports a listener once, somebody has to:
//! then its queue is accepted from until it is empty, a bounded number in a turn, and the ready list has the rest.
//!
//! When no descriptor is left and nobody makes room, one peer is told so by way of the reserve descriptor and the listener is
//! paused. The poller has to be told as well, or it would report the listener in every wait until somebody tells it to go on.
//!
//! A queue that several workers accept from wakes one of those who wait, who then takes the last place among them: the kernel
//! wakes whoever was registered first. A poller that cannot do so wakes them all; each takes a share, and some find nothing. So it is with a worker of another process:
//! while one follows the other both are woken, as one that is stuck or about to close may not accept. The descriptors of such queues lead to one socket, which stays open when one of
//! them is closed, so the poller has to be told of that.
//!
//! Invariant: the poller reports a listener exactly while it is not paused. One that it reports once is empty, paused or on the ready
//! list between two deliveries.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::super::{Io, Limits, Sink};
use super::door::Arrival;
use super::streams::{Register, Streams};
use crate::mem::Key;
use crate::sys::{self, Address};

impl<R: Register> Streams<R> {
    /// Accepts the share of a listener that was reported.
    pub(in crate::driver) fn accept_share<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key) {
        let Some(door) = self.doors.get(key) else { return };
        let peers_max = limits.accepts;
        let found = self.accept(door.share_peers().min(peers_max), sink, key);
        if let (Some(found), Some(door)) = (found, self.doors.get_mut(key)) {
            door.learn(found, peers_max);
            if found > 0 && !door.is_paused && door.queue.takes_turns() {
                self.take_last_place(sink, key);
            }
        }
    }

    /// Lets the other workers of a queue come first.
    #[cold]
    fn take_last_place<S: Sink>(&mut self, sink: &mut S, key: Key) {
        // Never an error.
        let _ = self.hush(key, true);
        if let Err(error) = self.hush(key, false) {
            sink.accepted(self, key, Err(error));
        }
    }

    /// Accepts whom a listener has left, and says when that was all of them, if it is to. Of a queue that others accept from too, no
    /// more than a share at a time: they were woken as well.
    pub(in crate::driver) fn accept_rest<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key) {
        let Some(door) = self.doors.get(key) else { return };
        let shares = R::REPORTS_LISTENERS_ONCE && door.queue.takes_turns() && !door.is_drained;
        let share = if shares { door.share_peers().min(limits.accepts) } else { limits.accepts };
        let found = self.accept(share, sink, key);
        let (Some(found), Some(door)) = (found, self.doors.get_mut(key)) else { return };
        if shares {
            door.learn(found, limits.accepts);
        }
        if found == share {
            sink.unfinished(key);
        } else if std::mem::take(&mut door.is_drained) {
            sink.listener_empty(self, key);
        }
    }

    /// Accepts so many peers or as many as are queued, and says how many that was; `None` if the listener is paused.
    pub(super) fn accept<S: Sink>(&mut self, peers_max: usize, sink: &mut S, key: Key) -> Option<usize> {
        if self.doors.get(key).is_some_and(|door| door.is_lost)
            && let Err(error) = self.hush(key, false)
        {
            sink.accepted(self, key, Err(error));
            return None;
        }
        for found in 0..peers_max {
            let door = self.doors.get_mut(key).filter(|door| !door.is_paused)?;
            self.counts.syscalls_accept += 1;
            let accepted = match sys::accept(door.socket().as_fd()) {
                Err(error) if is_exhaustion(&error) && self.poller.closes_now() => {
                    self.counts.syscalls_accept += 1;
                    sys::accept(door.socket().as_fd())
                }
                accepted => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(sink, key, socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(found),
                // The peer went away while it was queued: the next one may be fine.
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    // Never an error.
                    let _ = self.hush(key, true);
                    let is_exhausted = is_exhaustion(&error);
                    self.counts.descriptors_exhausted += u64::from(is_exhausted);
                    sink.accepted(self, key, Err(error));
                    if !self.doors.get(key).is_some_and(|door| door.is_paused) {
                        // Room was made.
                        continue;
                    }
                    if is_exhausted {
                        self.accept_with_reserve(sink, key);
                    }
                    return None;
                }
            }
        }
        Some(peers_max)
    }

    /// Pauses a listener, or lets it go on.
    ///
    /// # Errors
    /// The poller has no room for it any more (`ENOSPC`, `ENOMEM`): somebody else took its place. It is paused then.
    #[cold]
    pub(super) fn hush(&mut self, key: Key, hush: bool) -> io::Result<()> {
        let Some(door) = self.doors.get_mut(key).filter(|door| door.is_paused != hush) else { return Ok(()) };
        if !hush {
            // Somebody was faster when it was given away: without it the next shortage would leave peers without a word.
            let _ = self.reserve.refill();
        }
        self.counts.syscalls_ctl += R::CALLS;
        let told = self.poller.hush_listener(door.socket().as_fd(), key, door.queue.takes_turns(), hush);
        // One that cannot be hushed is reported on and not accepted from, which costs waits and nothing else.
        door.is_paused = hush || told.is_err();
        door.is_lost = !hush && told.is_err();
        if hush { Ok(()) } else { told }
    }

    fn admit<S: Sink>(&mut self, sink: &mut S, listener: Key, socket: OwnedFd, peer: Address) {
        match sink.accepted(self, listener, Ok(Some(peer))) {
            Some(key) if !R::MOVES_BYTES && self.expects_first_words(listener) => {
                self.insert(key, socket, 0);
                self.arrivals.push(Arrival { key, listener });
                sink.opened(self, key, Ok(()));
            }
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

    /// Gives the reserve descriptor to one queued peer, so that it learns at once whether it is served, instead of waiting in
    /// a queue that does not move.
    fn accept_with_reserve<S: Sink>(&mut self, sink: &mut S, listener: Key) {
        let Some(door) = self.doors.get(listener) else { return };
        self.reserve.release();
        self.counts.syscalls_accept += 1;
        if let Ok((socket, peer)) = sys::accept(door.socket().as_fd()) {
            self.admit(sink, listener, socket, peer);
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
                    | sys::ENONET
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EPERM
            )
        )
}

/// There is no descriptor or no memory for another peer.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::BorrowedFd;

    use super::super::super::{Demand, HangUp, Interest, Queue, Verdict};
    use super::super::batch::Batch;
    use super::super::source::Readiness;
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn an_error_of_accept_is_the_peers_or_a_shortage_or_neither() {
        let kinds = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            (is_transient(&error), is_exhaustion(&error))
        };
        // accept(2): of the connection that was queued, or of the network it came by; the next one may be fine.
        for errno in [
            libc::EINTR,
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::EPERM,
            libc::ENETDOWN,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            sys::ENONET,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
        ] {
            assert_eq!(kinds(errno), (true, false), "{}", io::Error::from_raw_os_error(errno));
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(kinds(errno), (false, true), "{}", io::Error::from_raw_os_error(errno));
        }
        for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP, libc::EAGAIN] {
            assert_eq!(kinds(errno), (false, false), "{}", io::Error::from_raw_os_error(errno));
        }
    }

    /// A poller that agrees to everything, but that one comes back while it is full.
    #[derive(Default)]
    struct Willing<const ONCE: bool = false> {
        is_full: Cell<bool>,
    }

    impl<const ONCE: bool> Register for Willing<ONCE> {
        const REPORTS_LISTENERS_ONCE: bool = ONCE;

        fn register_stream(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
            Ok(())
        }

        fn register_listener(&self, _fd: BorrowedFd<'_>, _key: Key, _shared: bool) -> io::Result<()> {
            Ok(())
        }

        fn hush_listener(&self, _fd: BorrowedFd<'_>, _key: Key, _shared: bool, hush: bool) -> io::Result<()> {
            if hush || !self.is_full.get() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) }
        }

        fn register_datagrams(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
            Ok(())
        }

        fn await_room(&self, _fd: BorrowedFd<'_>, _key: Key, _awaits: bool) -> io::Result<()> {
            Ok(())
        }

        fn forget(&self, _fd: BorrowedFd<'_>) {}

        fn watch(&self, _fd: BorrowedFd<'_>, _token: u64, _interest: Interest) -> io::Result<()> {
            Ok(())
        }

        fn unwatch(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reserve_that_somebody_else_took_is_taken_again_when_the_pause_is_over() {
        let mut streams = Streams::new(<Willing>::default()).unwrap();
        let options = sys::ListenOptions {
            backlog: 8,
            sharing: sys::Sharing::Alone,
            defer_accept: None,
            fast_open: None,
        };
        let key = Key::new(0, 1, 0);
        let socket = sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        streams.listen(key, socket, Queue::Own).unwrap();
        streams.hush(key, true).unwrap();
        streams.reserve.release();
        assert!(!streams.reserve.is_held());

        streams.hush(key, false).unwrap();
        assert!(streams.reserve.is_held());
    }

    /// A worker that pauses a listener which is in trouble, and lets it go on when it is told to.
    #[derive(Default)]
    struct Worker {
        pool: Option<Pool>,
        peers: usize,
        troubles: Vec<Option<i32>>,
        unfinished: usize,
    }

    impl Sink for Worker {
        fn pool(&mut self) -> &mut Pool {
            self.pool.get_or_insert_with(|| Pool::new(0))
        }

        fn accepted(
            &mut self,
            io: &mut dyn Io,
            listener: Key,
            peer: io::Result<Option<Address>>,
        ) -> Option<Key> {
            match peer {
                Ok(_) => {
                    self.peers += 1;
                    Some(Key::new(1, 1, self.peers))
                }
                Err(error) => {
                    self.troubles.push(error.raw_os_error());
                    assert!(!io.receive(listener, Demand::Pause));
                    None
                }
            }
        }

        fn listener_empty(&mut self, _io: &mut dyn Io, _listener: Key) {}

        fn opened(&mut self, _io: &mut dyn Io, _key: Key, result: io::Result<()>) {
            result.unwrap();
        }

        fn unsent(&mut self, _key: Key, _bytes: &[u8]) {}

        fn received(&mut self, _io: &mut dyn Io, _key: Key, _chunk: &mut [u8]) -> Verdict {
            Verdict::Continue
        }

        fn sent(&mut self, _io: &mut dyn Io, _key: Key, _bytes: usize) {}

        fn hung_up(&mut self, _io: &mut dyn Io, _key: Key, _how: HangUp) {}

        fn ending(&mut self, _io: &mut dyn Io, _key: Key) {}

        fn unfinished(&mut self, _key: Key) {
            self.unfinished += 1;
        }

        fn delivered(&mut self, _io: &mut dyn Io) {}
    }

    #[test]
    fn a_listener_that_is_reported_once_is_accepted_from_to_the_end_and_one_of_several_workers_by_shares() {
        // What each go finds of five peers, and whether it leaves the listener to the ready list.
        let goes = |queue, accepts, count: usize| {
            let mut streams = Streams::new(Willing::<true>::default()).unwrap();
            let (key, mut worker) = (Key::new(0, 1, 0), Worker::default());
            let options = sys::ListenOptions {
                backlog: 8,
                sharing: sys::Sharing::Alone,
                defer_accept: None,
                fast_open: None,
            };
            let socket = sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
            let addr = sys::local_addr(socket.as_fd()).unwrap();
            streams.listen(key, socket, queue).unwrap();
            let _peers = [(); 5].map(|()| std::net::TcpStream::connect(&addr).unwrap());
            let limits = Limits { events: 8, read_bytes: 1024, accepts };
            let mut batch = Batch::new();
            let goes = (0..count).map(|go| {
                let before = worker.peers;
                match go {
                    0 => {
                        let now = Readiness { readable: true, ..Readiness::default() };
                        streams.ready(batch.scratch(), &limits, &mut worker, key, now);
                    }
                    _ => streams.resume(&mut batch, &limits, &mut worker, key),
                }
                (worker.peers - before, std::mem::take(&mut worker.unfinished) > 0)
            });
            goes.collect::<Vec<_>>()
        };
        assert_eq!(goes(Queue::Own, 64, 1), [(5, false)]);
        assert_eq!(goes(Queue::Own, 3, 2), [(3, true), (2, false)]);
        // Which may have been all of them: only one that is not there says so.
        assert_eq!(goes(Queue::Own, 5, 2), [(5, true), (0, false)]);
        let shares = goes(Queue::Workers { workers: 2 }, 64, 5);
        assert_eq!(shares, [(1, true), (1, true), (1, true), (1, true), (1, false)]);
    }

    #[test]
    fn a_listener_that_lost_its_place_tries_again_behind_each_pause_and_accepts_who_has_waited() {
        let mut streams = Streams::new(Willing::<false> { is_full: Cell::new(true) }).unwrap();
        let (key, mut worker) = (Key::new(0, 1, 0), Worker::default());
        let options = sys::ListenOptions {
            backlog: 8,
            sharing: sys::Sharing::Alone,
            defer_accept: None,
            fast_open: None,
        };
        let socket = sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let addr = sys::local_addr(socket.as_fd()).unwrap();
        streams.listen(key, socket, Queue::Workers { workers: 2 }).unwrap();
        let _peers = [(); 3].map(|()| std::net::TcpStream::connect(&addr).unwrap());
        let limits = Limits { events: 8, read_bytes: 1024, accepts: 8 };

        // Behind its share it takes the last place, and there is none.
        streams.accept_share(&limits, &mut worker, key);
        assert_eq!((worker.peers, &worker.troubles[..]), (1, &[Some(libc::ENOSPC)][..]));
        for tries in 2..5 {
            // Its pause is over: it wants to be looked after, and it is the second try that fails.
            assert!(streams.receive(key, Demand::Flow));
            streams.accept_rest(&limits, &mut worker, key);
            assert_eq!((worker.peers, worker.troubles.len()), (1, tries));
            assert!(streams.doors.get(key).is_some_and(|door| door.is_paused));
        }
        // Room is found by the try behind the pause, and by the one before its accepts.
        assert!(streams.receive(key, Demand::Flow));
        streams.poller.is_full.set(false);
        streams.accept_rest(&limits, &mut worker, key);
        assert_eq!((worker.peers, worker.troubles.len()), (3, 4));
        assert!(streams.doors.get(key).is_some_and(|door| !door.is_paused && !door.is_lost));
    }

    #[test]
    fn a_listener_whose_place_somebody_else_took_rests_until_there_is_one() {
        let mut streams = Streams::new(Willing::<false> { is_full: Cell::new(true) }).unwrap();
        let key = Key::new(0, 1, 0);
        let options = sys::ListenOptions {
            backlog: 8,
            sharing: sys::Sharing::Alone,
            defer_accept: None,
            fast_open: None,
        };
        let socket = sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        streams.listen(key, socket, Queue::Own).unwrap();
        streams.hush(key, true).unwrap();
        assert_eq!(streams.hush(key, false).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert!(streams.doors.get(key).unwrap().is_paused && streams.receive(key, Demand::Flow));
        streams.poller.is_full.set(false);
        assert!(!streams.receive(key, Demand::Flow));
        let door = streams.doors.get(key).unwrap();
        assert!(!door.is_paused && !door.is_lost);
    }
}
