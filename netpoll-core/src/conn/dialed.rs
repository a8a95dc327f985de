//! Names of outgoing connections, which exist before there is a slot for them.
//!
//! Whoever dials gets a name at once, to cancel or to link by, but the key comes with the slot. So a dial has a name of its own,
//! out of a table number that no table has, and its worker knows which key it stands for.
//!
//! Invariant: a name and its key are in both maps from the moment a slot is taken until it is given back, and the stream has a
//! mark that says so; no other connection is ever looked up here. A name is issued once: 2^52 of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Tables;
use crate::mem::{GENERATION_MAX, INDEX_MAX, Key};

/// Issues names, on any thread of a runtime.
#[derive(Clone, Default)]
pub struct DialNames(Arc<AtomicU64>);

impl DialNames {
    /// A new one.
    pub fn next(&self) -> Key {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let (generation, index) = (number / (INDEX_MAX as u64 + 1), number as usize & INDEX_MAX);
        Key::new(Tables::NAMES, generation as u32 & GENERATION_MAX, index)
    }
}

/// The outgoing connections of one worker.
#[derive(Default)]
pub struct Dialed {
    keys: HashMap<Key, Key>,
    names: HashMap<Key, Key>,
}

impl Dialed {
    /// A slot was taken.
    pub fn began(&mut self, name: Key, key: Key) {
        self.keys.insert(name, key);
        self.names.insert(key, name);
    }

    /// The slot is given back.
    #[cold]
    pub fn ended(&mut self, key: Key) {
        if let Some(name) = self.names.remove(&key) {
            self.keys.remove(&name);
        }
    }

    /// What a connection is called outside.
    #[cold]
    pub fn name_of(&self, key: Key) -> Key {
        self.names.get(&key).copied().unwrap_or(key)
    }

    /// The key that leads to a connection; one that leads nowhere if there is none of that name.
    #[inline]
    pub fn key_of(&self, name: Key) -> Key {
        if name.table() == Tables::NAMES { self.keys.get(&name).copied().unwrap_or(name) } else { name }
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_issued_once_and_leads_to_its_key_as_long_as_that_lives() {
        let names = DialNames::default();
        names.0.store(INDEX_MAX as u64, Ordering::Relaxed);
        let (first, second) = (names.next(), names.clone().next());
        assert!(first != second && first.table() == Tables::NAMES && second.table() == Tables::NAMES);
        let (mut dialed, key) = (Dialed::default(), Key::new(1, 7, 3));
        dialed.began(first, key);
        assert_eq!((dialed.key_of(first), dialed.name_of(key)), (key, first));
        assert_eq!((dialed.key_of(second), dialed.key_of(key)), (second, key));
        dialed.ended(key);
        assert_eq!(dialed.key_of(first), first);
        assert!(dialed.keys.is_empty() && dialed.names.is_empty());
    }
}
