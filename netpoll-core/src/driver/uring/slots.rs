//! Orders that the kernel has not answered for the last time, and which source each of them is for.
//!
//! Invariant: the number that an order carries leads to its slot until its last answer, and to nothing afterwards: numbers have
//! generations. A source that is closed, or that has no use for an order any more, only lets go of it: answers that come then find
//! a slot without an owner, and nobody else.

use crate::mem::{Key, KeySlab};

/// The number of an order, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderId(u64);

impl OrderId {
    pub const NONE: Self = Self(0);

    #[inline]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// As the kernel carries it.
    #[inline]
    pub fn to_bits(self) -> u64 {
        self.0
    }
}

/// What an order is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Input of a stream.
    Input,
    /// Input and ends of a stream whose input is not received.
    Edges,
    /// Room to send on a stream, or the end of a connect.
    Room,
    /// The end of a stream that is not being received from.
    End,
    /// Peers at a listener.
    Peers,
    /// Datagrams at a socket.
    Datagrams,
    /// Room to send datagrams.
    DatagramRoom,
    /// Room for what a stream had to send when it was closed.
    Leftover,
}

struct Slot {
    kind: Kind,
    owner: Option<Key>,
}

/// All orders of a ring that are outstanding.
pub struct Orders(KeySlab<Slot>);

impl Orders {
    pub fn new() -> Self {
        Self(KeySlab::new(0))
    }

    /// A number for an order that is about to be given.
    ///
    /// # Panics
    /// If 16 million are outstanding: each is of a descriptor, and no process has so many.
    #[inline]
    pub fn begin(&mut self, kind: Kind, owner: Key) -> OrderId {
        let key = self.0.insert_with(|_| Slot { kind, owner: Some(owner) });
        OrderId(key.expect("fewer orders than a slab holds").to_bits())
    }

    /// What an answer is about, and whose it is if somebody still wants it. `None` of one that is no source's.
    #[inline]
    pub fn get(&self, bits: u64) -> Option<(Kind, Option<Key>)> {
        let (key, of_nobody) = Key::split_driver_bits(bits);
        self.0.get(key).filter(|_| of_nobody == 0).map(|slot| (slot.kind, slot.owner))
    }

    /// Nobody wants its answers any more.
    pub fn disown(&mut self, id: OrderId) {
        if let Some(slot) = self.0.get_mut(Key::from_bits(id.0)) {
            slot.owner = None;
        }
    }

    /// The last answer has come.
    #[inline]
    pub fn end(&mut self, bits: u64) {
        self.0.take(Key::from_bits(bits));
    }

    pub fn shrink(&mut self) {
        self.0.shrink();
    }

    /// How many are outstanding.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_finds_neither_a_closed_source_nor_a_newcomer() {
        let (mut orders, key) = (Orders::new(), Key::new(1, 1, 0));
        let first = orders.begin(Kind::Input, key);
        assert_eq!(orders.get(first.to_bits()), Some((Kind::Input, Some(key))));
        orders.disown(first);
        assert_eq!(orders.get(first.to_bits()), Some((Kind::Input, None)));
        orders.end(first.to_bits());
        // The same slot, for the same key.
        let second = orders.begin(Kind::Input, key);
        assert_eq!(orders.get(first.to_bits()), None);
        assert_ne!(first, second);
        assert_eq!(orders.len(), 1);
    }
}
