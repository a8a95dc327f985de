//! How far other processes are in a room: what comes twice is known by its number, and so is what does not come.
//!
//! What a process has published before it is heard for the first time is missing if its first message there is younger than this room: then all of it was for this room too.
//! Otherwise some of it may be older than the room, and nobody misses it.
//!
//! Invariant: of a process that is not known, nothing was heard since `since`.

use std::collections::BTreeMap;
use std::time::Duration;

use netpoll_core::Instant;

use super::envelope::Place;

/// Processes that a room knows, at most; the one that has been silent for longest is forgotten. 1024 of 50 bytes.
const KNOWN_MAX: usize = 1024;

/// Whoever has been silent for so long is forgotten when somebody new comes: a process that is no more. One that goes on is taken as it is then.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

pub struct Peers {
    since: Instant,
    known: BTreeMap<u64, Peer>,
}

struct Peer {
    life: u64,
    number: u64,
    heard_at: Instant,
}

impl Peers {
    pub fn new(now: Instant) -> Self {
        Self { since: now, known: BTreeMap::new() }
    }

    /// A process is at this place, with a message (`came` is one) or without it (zero). How many in front of that are missing; `None` if it was known to be
    /// there, or further.
    pub fn hear(&mut self, process: u64, at: &Place<'_>, came: u64, now: Instant) -> Option<u64> {
        let Place { life, number, age, .. } = *at;
        let number = number.max(came);
        let Some(peer) = self.known.get_mut(&process) else {
            let is_all_for_us = age < now.duration_since(self.since);
            self.make_place(now);
            self.known.insert(process, Peer { life, number, heard_at: now });
            return Some(if is_all_for_us { number - came } else { 0 });
        };
        peer.heard_at = now;
        let before = if life == peer.life { peer.number } else { 0 };
        if life < peer.life || number <= before {
            return None;
        }
        (peer.life, peer.number) = (life, number);
        Some(number - before - came)
    }

    fn make_place(&mut self, now: Instant) {
        let since = &mut self.since;
        self.known.retain(|_, peer| {
            let stays = peer.heard_at.saturating_add(FORGOTTEN_AFTER) > now;
            if !stays {
                *since = (*since).max(peer.heard_at);
            }
            stays
        });
        if self.known.len() >= KNOWN_MAX
            && let Some((&process, peer)) = self.known.iter().min_by_key(|(_, peer)| peer.heard_at)
        {
            *since = (*since).max(peer.heard_at);
            self.known.remove(&process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO.saturating_add(Duration::from_millis(millis))
    }

    fn hear(peers: &mut Peers, process: u64, (life, number, age): (u64, u64, u64), now: u64) -> Option<u64> {
        let place = Place { room: "a", life, number, age: Duration::from_millis(age) };
        peers.hear(process, &place, 1, at(now))
    }

    #[test]
    fn a_number_that_has_come_is_not_new_and_one_that_is_skipped_is() {
        let mut peers = Peers::new(at(0));
        assert_eq!(hear(&mut peers, 7, (1, 1, 5), 10), Some(0));
        assert_eq!(hear(&mut peers, 7, (1, 1, 5), 10), None);
        assert_eq!(hear(&mut peers, 7, (1, 4, 9), 20), Some(2));
        assert_eq!(hear(&mut peers, 7, (1, 2, 9), 20), None);
        assert_eq!(hear(&mut peers, 8, (1, 1, 5), 20), Some(0), "each process has numbers of its own");
    }

    #[test]
    fn who_says_where_it_is_has_said_all_in_front_of_that() {
        let mut peers = Peers::new(at(0));
        let place = |number| Place { room: "a", life: 1, number, age: Duration::from_millis(5) };
        assert_eq!(peers.hear(7, &place(3), 0, at(10)), Some(3));
        assert_eq!(peers.hear(7, &place(3), 0, at(10)), None);
        assert_eq!(peers.hear(7, &place(4), 1, at(10)), Some(0));
        assert_eq!(peers.hear(7, &place(5), 0, at(10)), Some(1));
    }

    #[test]
    fn a_later_life_begins_anew_and_an_earlier_one_is_over() {
        let mut peers = Peers::new(at(0));
        assert_eq!(hear(&mut peers, 7, (1, 5, 1000), 10), Some(0));
        assert_eq!(hear(&mut peers, 7, (2, 3, 1000), 20), Some(2));
        assert_eq!(hear(&mut peers, 7, (1, 6, 1000), 30), None);
    }

    #[test]
    fn what_was_said_before_the_room_was_there_is_not_missing() {
        let mut peers = Peers::new(at(100));
        assert_eq!(hear(&mut peers, 7, (1, 5, 150), 200), Some(0), "its first is older");
        assert_eq!(hear(&mut peers, 8, (1, 5, 50), 200), Some(4), "its first is younger");
    }

    #[test]
    fn a_process_that_was_forgotten_is_taken_as_it_is_then() {
        let mut peers = Peers::new(at(0));
        assert_eq!(hear(&mut peers, 7, (1, 5, 0), 100), Some(4));
        let later = 100 + FORGOTTEN_AFTER.as_millis() as u64;
        assert_eq!(hear(&mut peers, 8, (1, 1, 0), later), Some(0));
        assert_eq!(peers.known.len(), 1);
        assert_eq!(hear(&mut peers, 7, (1, 9, later), later), Some(0));
        for process in 0..2 * KNOWN_MAX as u64 {
            hear(&mut peers, process, (1, 1, 0), later + process);
        }
        assert_eq!(peers.known.len(), KNOWN_MAX);
    }
}
