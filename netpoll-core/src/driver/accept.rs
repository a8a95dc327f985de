//! Peers that are queued at a poller's listener.
//!
//! A listener is reported by every wait as long as somebody is queued (level-triggered), so nobody has to accept until
//! there is nobody: for an `accept4` that finds nothing the kernel makes a socket and a file, and throws them away. From
//! each report as many peers are accepted as are likely there, its *share*.
//!
//! When no descriptor is left and nobody makes room, one peer is told so by way of the reserve descriptor and the listener is
//! paused. The poller has to be told as well, or it would report the listener in every wait until somebody tells it to go on.
//!
//! Invariant: the poller reports a listener exactly while it is not paused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::arrivals::{Arrival, FirstWords};
use super::readiness::{Register, Streams};
use super::{Io, Limits, Sink};
use crate::mem::Key;
use crate::sys;

/// Full shares in a row that make the next one twice as large. A busy worker takes many waits to hear of everybody, so they
/// are counted in reports, not in waits.
const FULL_SHARES: u8 = 4;
/// The same for a queue that turned out shorter each time. One of so many accepts then finds nothing; a burst waits for
/// so many reports until the share begins to grow.
const FULL_SHARES_MAX: u8 = 16;

/// A listener.
pub struct Door {
    socket: OwnedFd,
    paused: bool,
    share: Share,
    pub(super) first_words: FirstWords,
}

impl Door {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, paused: false, share: Share::new(), first_words: FirstWords::new() }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

/// How many peers to accept from one report.
struct Share {
    peers: usize,
    /// Shares in a row that were full.
    full: u8,
    /// So many of them make the next share larger; `FULL_SHARES..=FULL_SHARES_MAX`.
    patience: u8,
    /// It was made larger, and that has not proved right yet.
    on_trial: bool,
}

impl Share {
    fn new() -> Self {
        Self { peers: 1, full: 0, patience: FULL_SHARES, on_trial: false }
    }

    /// What became of the share.
    fn learn(&mut self, found: usize, peers_max: usize) {
        if found < self.peers {
            if self.on_trial {
                self.patience = self.patience.saturating_mul(2).min(FULL_SHARES_MAX);
            }
            (self.peers, self.full, self.on_trial) = (found.max(1), 0, false);
            return;
        }
        self.full += 1;
        if self.on_trial && self.full >= FULL_SHARES {
            (self.on_trial, self.patience) = (false, FULL_SHARES);
        }
        if self.full >= self.patience {
            (self.full, self.on_trial) = (0, self.peers < peers_max);
            self.peers = (self.peers * 2).min(peers_max);
        }
    }
}

impl<R: Register> Streams<R> {
    /// Accepts the share of a listener that was reported.
    pub(super) fn accept_share<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key) {
        let Some(door) = self.doors.get(key) else { return };
        let peers_max = limits.accepts;
        let found = self.accept(door.share.peers.min(peers_max), sink, key);
        if let (Some(found), Some(door)) = (found, self.doors.get_mut(key)) {
            door.share.learn(found, peers_max);
        }
    }

    /// Accepts so many peers or as many as are queued, and says how many that was; `None` if the listener is paused.
    pub(super) fn accept<S: Sink>(&mut self, peers_max: usize, sink: &mut S, key: Key) -> Option<usize> {
        for found in 0..peers_max {
            let door = self.doors.get_mut(key).filter(|door| !door.paused)?;
            self.counts.syscalls_accept += 1;
            match sys::accept(door.socket.as_fd()) {
                Ok((socket, peer)) => self.admit(sink, key, socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(found),
                // The peer went away while it was queued: the next one may be fine.
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.hush(key, true);
                    let is_exhausted = is_exhaustion(&error);
                    self.counts.descriptors_exhausted += u64::from(is_exhausted);
                    sink.accepted(self, key, Err(error));
                    if !self.doors.get(key).is_some_and(|door| door.paused) {
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
    #[cold]
    pub(super) fn hush(&mut self, key: Key, hush: bool) {
        let Some(door) = self.doors.get_mut(key).filter(|door| door.paused != hush) else { return };
        door.paused = hush;
        if !hush {
            // Somebody was faster when it was given away: without it the next shortage would leave peers without a word.
            let _ = self.reserve.refill();
        }
        self.counts.syscalls_ctl += 1;
        let told = self.poller.hush_listener(door.socket.as_fd(), key, hush);
        told.expect("a listener is registered until it is closed");
    }

    fn admit<S: Sink>(&mut self, sink: &mut S, listener: Key, socket: OwnedFd, peer: SocketAddr) {
        match sink.accepted(self, listener, Ok(peer)) {
            Some(key) if self.expects_first_words(listener) => {
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
        if let Ok((socket, peer)) = sys::accept(door.socket.as_fd()) {
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
                    | libc::ENONET
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
    use std::os::fd::BorrowedFd;

    use super::*;

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
            libc::ENONET,
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

    /// A poller that agrees to everything.
    struct Willing;

    impl Register for Willing {
        fn register_stream(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
            Ok(())
        }

        fn register_listener(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
            Ok(())
        }

        fn hush_listener(&self, _fd: BorrowedFd<'_>, _key: Key, _hush: bool) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reserve_that_somebody_else_took_is_taken_again_when_the_pause_is_over() {
        let mut streams = Streams::new(Willing).unwrap();
        let options =
            sys::ListenOptions { backlog: 8, reuse_port: false, defer_accept: None, fast_open: None };
        let key = Key::new(0, 1, 0);
        streams.listen(key, sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap()).unwrap();
        streams.hush(key, true);
        streams.reserve.release();
        assert!(!streams.reserve.is_held());

        streams.hush(key, false);
        assert!(streams.reserve.is_held());
    }

    /// A queue that so many peers have joined before each wait, every `nth` of which reports it, because others are ready
    /// too; how many accepts found one, and nothing.
    fn accepts(nth: usize, joined: impl IntoIterator<Item = usize>) -> (usize, usize) {
        let (mut share, mut queued, mut some, mut none) = (Share::new(), 0, 0, 0);
        for (wait, joined) in joined.into_iter().enumerate() {
            queued += joined;
            if queued > 0 && wait % nth == 0 {
                let found = share.peers.min(queued);
                none += usize::from(found < share.peers);
                (queued, some) = (queued - found, some + found);
                share.learn(found, 64);
            }
        }
        assert_eq!(queued, 0, "everybody is accepted in the end");
        (some, none)
    }

    #[test]
    fn one_in_seventeen_accepts_of_peers_that_come_one_at_a_time_finds_nothing() {
        let (some, none) = accepts(1, (0..3400).map(|wait| wait % 2));
        assert_eq!(some, 1700);
        assert!((1..=1700 / 16 + 3).contains(&none), "{none}");
    }

    #[test]
    fn a_steady_stream_seldom_finds_an_empty_queue() {
        for rate in [1, 2, 5, 20] {
            let (some, none) = accepts(1, (0..2000).map(|wait| if wait < 1900 { rate } else { 0 }));
            assert_eq!(some, 1900 * rate);
            assert!(none <= 1900 / 16 + 10, "{none} of {some} at {rate} in a wait");
        }
    }

    #[test]
    fn a_burst_is_taken_in_by_shares_that_grow_however_seldom_a_busy_worker_hears_of_it() {
        let calm = [0, 1].repeat(500);
        for before in [vec![], calm, vec![1; 1000]] {
            for nth in [1, 8] {
                // While it is calm every report finds one; then 16 full shares of one, 4 of each size up to 32, and 64 at once.
                let before =
                    before.iter().flat_map(|&joined| std::iter::once(joined).chain(vec![0; nth - 1]));
                let before: Vec<usize> = before.collect();
                let known = before.iter().sum::<usize>();
                let waits = before.into_iter().chain([4000]).chain(vec![0; nth * 110]);
                assert_eq!(accepts(nth, waits).0, known + 4000, "at most 110 reports");
            }
        }
    }
}
