//! How many connections each address has, where that is limited.
//!
//! IPv4 addresses count by themselves, IPv6 ones by their /64: a network is one customer. Invariant: a connection is in both
//! maps or in neither; one whose driver has not said its address is in neither until it was asked. Who has no IP address counts
//! nowhere: a peer in the Unix domain is a neighbour, and they are all alike. Touched when connections come and go, and only where there is a limit.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::mem::Key;
use crate::sys::Address;

/// The connections of one worker by address.
pub struct Addresses {
    connections_max: Option<usize>,
    counts: HashMap<IpAddr, usize>,
    of: HashMap<Key, IpAddr>,
    /// Accepted, and not open yet: nobody has said where they come from.
    unsaid: HashSet<Key>,
}

impl Addresses {
    pub fn new(connections_max: Option<usize>) -> Self {
        Self { connections_max, counts: HashMap::new(), of: HashMap::new(), unsaid: HashSet::new() }
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.counts.shrink_to_fit();
        self.of.shrink_to_fit();
        self.unsaid.shrink_to_fit();
    }

    /// Whether this peer has as many connections as it may have.
    pub fn is_full(&self, peer: &Address) -> bool {
        let count = || network(peer).and_then(|network| self.counts.get(&network)).copied().unwrap_or(0);
        self.connections_max.is_some_and(|most| count() >= most)
    }

    /// A peer got a connection. If nobody knows where it comes from, and it is limited, it is asked when it opens.
    pub fn came(&mut self, peer: Option<&Address>, key: Key, is_limited: bool) {
        if self.connections_max.is_none() {
            return;
        }
        match peer {
            Some(peer) => self.count(peer, key),
            None if is_limited => {
                self.unsaid.insert(key);
            }
            None => {}
        }
    }

    /// True once for a connection whose peer is to be asked for its address.
    #[inline]
    pub fn is_to_ask(&mut self, key: Key) -> bool {
        !self.unsaid.is_empty() && self.unsaid.remove(&key)
    }

    /// This is where it comes from. False if there is no room for it.
    pub fn is_from(&mut self, peer: &Address, key: Key) -> bool {
        let has_room = !self.is_full(peer);
        if has_room {
            self.count(peer, key);
        }
        has_room
    }

    fn count(&mut self, peer: &Address, key: Key) {
        if let Some(network) = network(peer) {
            *self.counts.entry(network).or_insert(0) += 1;
            self.of.insert(key, network);
        }
    }

    /// A connection has ended.
    pub fn left(&mut self, key: Key) {
        if self.connections_max.is_none() {
            return;
        }
        self.unsaid.remove(&key);
        let Some(network) = self.of.remove(&key) else { return };
        if let Some(count) = self.counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }
}

/// The addresses that are taken for one.
fn network(peer: &Address) -> Option<IpAddr> {
    let network = match peer.ip()?.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    };
    Some(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_full_until_one_of_its_connections_has_ended() {
        let mut addresses = Addresses::new(Some(2));
        for index in 0..2 {
            assert!(!addresses.is_full(&peer("10.0.0.1:1")));
            addresses.came(Some(&peer("10.0.0.1:1")), Key::new(1, 1, index), true);
        }
        assert!(addresses.is_full(&peer("10.0.0.1:9")) && !addresses.is_full(&peer("10.0.0.2:1")));
        assert!(
            addresses.is_full(&peer("[::ffff:10.0.0.1]:1")),
            "the same peer on a socket of both families"
        );
        addresses.left(Key::new(1, 1, 0));
        addresses.left(Key::new(1, 1, 0));
        assert!(!addresses.is_full(&peer("10.0.0.1:1")));
        addresses.left(Key::new(1, 1, 1));
        assert!(addresses.counts.is_empty() && addresses.of.is_empty());
    }

    #[test]
    fn the_memory_of_many_addresses_goes_back_when_they_have_left() {
        let mut addresses = Addresses::new(Some(2));
        for index in 0..10_000 {
            addresses.came(Some(&peer("10.0.0.1:1")), Key::new(1, 1, index), true);
        }
        (0..10_000).for_each(|index| addresses.left(Key::new(1, 1, index)));
        addresses.shrink();
        assert_eq!((addresses.counts.capacity(), addresses.of.capacity()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut addresses = Addresses::new(Some(1));
        addresses.came(Some(&peer("[2001:db8:1:2::3]:1")), Key::new(1, 1, 0), true);
        assert!(addresses.is_full(&peer("[2001:db8:1:2:ffff::4]:1")));
        assert!(!addresses.is_full(&peer("[2001:db8:1:3::3]:1")));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut addresses = Addresses::new(None);
        addresses.came(Some(&peer("10.0.0.1:1")), Key::new(1, 1, 0), true);
        assert!(!addresses.is_full(&peer("10.0.0.1:1")) && addresses.of.is_empty());
    }

    #[test]
    fn a_peer_in_the_unix_domain_counts_nowhere() {
        let mut addresses = Addresses::new(Some(1));
        addresses.came(Some(&peer("unix:@x")), Key::new(1, 1, 0), true);
        assert!(!addresses.is_full(&peer("unix:@x")) && addresses.of.is_empty());
    }

    #[test]
    fn a_peer_of_whom_nobody_has_said_where_it_comes_from_is_asked_once() {
        let mut addresses = Addresses::new(Some(1));
        let [first, second, reserved] = [0, 1, 2].map(|index| Key::new(1, 1, index));
        addresses.came(None, first, true);
        addresses.came(None, second, true);
        addresses.came(None, reserved, false);
        assert!(addresses.is_to_ask(first) && !addresses.is_to_ask(first) && !addresses.is_to_ask(reserved));
        assert!(addresses.is_from(&peer("10.0.0.1:1"), first));
        assert!(addresses.is_to_ask(second) && !addresses.is_from(&peer("10.0.0.1:2"), second));
        addresses.left(first);
        addresses.left(second);
        assert!(addresses.counts.is_empty() && addresses.of.is_empty() && addresses.unsaid.is_empty());
    }
}
