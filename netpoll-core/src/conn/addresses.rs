//! How many connections each address has, where that is limited.
//!
//! IPv4 addresses count by themselves, IPv6 ones by their /64: a network is one customer. Invariant: a connection is in both
//! maps or in neither. Touched when connections come and go, and only where there is a limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::mem::Key;

/// The connections of one worker by address.
pub struct Addresses {
    connections_max: Option<usize>,
    counts: HashMap<IpAddr, usize>,
    of: HashMap<Key, IpAddr>,
}

impl Addresses {
    pub fn new(connections_max: Option<usize>) -> Self {
        Self { connections_max, counts: HashMap::new(), of: HashMap::new() }
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.counts.shrink_to_fit();
        self.of.shrink_to_fit();
    }

    /// Whether this peer has as many connections as it may have.
    pub fn is_full(&self, peer: SocketAddr) -> bool {
        let count = || self.counts.get(&network(peer)).copied().unwrap_or(0);
        self.connections_max.is_some_and(|most| count() >= most)
    }

    /// A peer got a connection.
    pub fn came(&mut self, peer: SocketAddr, key: Key) {
        if self.connections_max.is_some() {
            let network = network(peer);
            *self.counts.entry(network).or_insert(0) += 1;
            self.of.insert(key, network);
        }
    }

    /// A connection has ended.
    pub fn left(&mut self, key: Key) {
        if self.connections_max.is_none() {
            return;
        }
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
fn network(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_full_until_one_of_its_connections_has_ended() {
        let mut addresses = Addresses::new(Some(2));
        for index in 0..2 {
            assert!(!addresses.is_full(peer("10.0.0.1:1")));
            addresses.came(peer("10.0.0.1:1"), Key::new(1, 1, index));
        }
        assert!(addresses.is_full(peer("10.0.0.1:9")) && !addresses.is_full(peer("10.0.0.2:1")));
        assert!(addresses.is_full(peer("[::ffff:10.0.0.1]:1")), "the same peer on a socket of both families");
        addresses.left(Key::new(1, 1, 0));
        addresses.left(Key::new(1, 1, 0));
        assert!(!addresses.is_full(peer("10.0.0.1:1")));
        addresses.left(Key::new(1, 1, 1));
        assert!(addresses.counts.is_empty() && addresses.of.is_empty());
    }

    #[test]
    fn the_memory_of_many_addresses_goes_back_when_they_have_left() {
        let mut addresses = Addresses::new(Some(2));
        for index in 0..10_000 {
            addresses.came(SocketAddr::from(([10, 0, 0, 1], 1)), Key::new(1, 1, index));
        }
        (0..10_000).for_each(|index| addresses.left(Key::new(1, 1, index)));
        addresses.shrink();
        assert_eq!((addresses.counts.capacity(), addresses.of.capacity()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut addresses = Addresses::new(Some(1));
        addresses.came(peer("[2001:db8:1:2::3]:1"), Key::new(1, 1, 0));
        assert!(addresses.is_full(peer("[2001:db8:1:2:ffff::4]:1")));
        assert!(!addresses.is_full(peer("[2001:db8:1:3::3]:1")));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut addresses = Addresses::new(None);
        addresses.came(peer("10.0.0.1:1"), Key::new(1, 1, 0));
        assert!(!addresses.is_full(peer("10.0.0.1:1")) && addresses.of.is_empty());
    }
}
