//! A listener of a poller: how many peers are likely there, and whether they speak first.

use std::os::fd::OwnedFd;

use super::super::Queue;
use crate::mem::Key;

/// Full shares in a row that make the next one twice as large. A busy worker takes many waits to hear of everybody, so they
/// are counted in reports, not in waits.
const FULL_SHARES: u8 = 4;
/// The same for a queue that turned out shorter each time. One of so many accepts then finds nothing; a burst waits for
/// so many reports until the share begins to grow.
const FULL_SHARES_MAX: u8 = 16;

/// A listener.
pub struct Door {
    socket: OwnedFd,
    pub queue: Queue,
    pub is_paused: bool,
    /// The poller had no room for it when it was to go on: it is paused, and not registered.
    pub is_lost: bool,
    /// To be told when nobody stands in the queue.
    pub is_drained: bool,
    share: Share,
    pub first_words: FirstWords,
}

impl Door {
    pub fn new(socket: OwnedFd, queue: Queue) -> Self {
        let (share, first_words) = (Share::new(), FirstWords::new());
        Self { socket, queue, is_paused: false, is_lost: false, is_drained: false, share, first_words }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Peers to accept from one report.
    pub fn share_peers(&self) -> usize {
        self.share.peers
    }

    /// How many of them were there.
    pub fn learn(&mut self, found: usize, peers_max: usize) {
        self.share.learn(found, peers_max);
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

/// Arrivals in a row that had nothing to say yet, after which the next are registered at once. So many that a listener one
/// in ten of whose peers has spoken hardly ever gets there.
pub const SILENT_MAX: u8 = 32;
/// So many of them, before one is received from again to see whether that has changed.
const UNASKED: u8 = 64;

/// A connection that the poller does not know yet.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub key: Key,
    pub listener: Key,
}

/// Whether the peers of a listener have spoken when they are accepted.
pub struct FirstWords {
    /// Arrivals in a row that had not.
    silent: u8,
    /// Connections that are still to be registered at once.
    unasked: u8,
}

impl FirstWords {
    pub fn new() -> Self {
        Self { silent: 0, unasked: 0 }
    }

    /// Whether to receive from the next one before it is registered.
    pub fn are_expected(&mut self) -> bool {
        if self.unasked > 0 {
            self.unasked -= 1;
            return false;
        }
        if self.silent == SILENT_MAX {
            // One is enough to see whether that has changed, however many are accepted with it.
            self.unasked = UNASKED;
        }
        true
    }

    pub fn learn(&mut self, spoke: bool) {
        if spoke {
            *self = Self::new();
            return;
        }
        self.silent = (self.silent + 1).min(SILENT_MAX);
        if self.silent == SILENT_MAX && self.unasked == 0 {
            self.unasked = UNASKED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
