//! All tables of one worker: one for each protocol, found by the number in a key.

use std::any::{Any, TypeId};

use super::any_table::Table;
use super::table::Connections;
use super::{Context, Protocol};
use crate::clockwork::Instant;
use crate::driver::Io;
use crate::mem::Key;

/// The tables of one worker. Table 0 and the last sixteen are the worker's own.
pub struct Tables {
    tables: Vec<Box<dyn Table>>,
    protocols: Vec<TypeId>,
}

impl Tables {
    /// Keys of this table number name listeners, not connections.
    pub const LISTENERS: u8 = 0;
    /// Keys of this table number name timers that belong to no connection.
    pub const TIMERS: u8 = u8::MAX - 1;
    /// Keys of this table number name datagram sockets.
    pub const DATAGRAMS: u8 = u8::MAX - 2;
    /// Keys of this table number are names of outgoing connections.
    pub const NAMES: u8 = u8::MAX - 3;
    /// Keys of this table number name descriptors that are watched for somebody. (In between are tasks, and sleeps of tasks.)
    pub const WATCHED: u8 = u8::MAX - 6;
    /// Keys of this table number are names that are looked up.
    pub const LOOKUPS: u8 = u8::MAX - 7;
    /// From this number on tables are the worker's own.
    const FIRST_RESERVED: u8 = u8::MAX - 15;

    pub fn new() -> Self {
        Self { tables: Vec::new(), protocols: Vec::new() }
    }

    /// The table of a protocol, made at its first use. `None` for the 240th protocol of a worker.
    pub fn of<P: Protocol>(&mut self) -> Option<&mut Connections<P>> {
        let wanted = TypeId::of::<P>();
        let index = match self.protocols.iter().position(|protocol| *protocol == wanted) {
            Some(index) => index,
            None => {
                let number = u8::try_from(self.tables.len() + 1)
                    .ok()
                    .filter(|number| *number < Self::FIRST_RESERVED)?;
                self.tables.push(Box::new(Connections::<P>::new(number)));
                self.protocols.push(wanted);
                self.tables.len() - 1
            }
        };
        let table: &mut dyn Any = self.tables[index].as_mut();
        Some(table.downcast_mut().expect("a table holds the protocol that it was made for"))
    }

    /// Whether a key may name a connection: it is of no table of the worker's own.
    pub fn is_of_connections(key: Key) -> bool {
        (Self::LISTENERS + 1..Self::FIRST_RESERVED).contains(&key.table())
    }

    /// The table that a key belongs to.
    #[inline]
    pub fn get(&mut self, key: Key) -> Option<&mut dyn Table> {
        let table = self.tables.get_mut(usize::from(key.table()).wrapping_sub(1))?;
        Some(table.as_mut())
    }

    pub fn each(&mut self) -> impl Iterator<Item = &mut Box<dyn Table>> {
        self.tables.iter_mut()
    }

    /// The names of all connections.
    pub fn keys(&self) -> Vec<Key> {
        self.tables.iter().flat_map(|table| table.keys()).collect()
    }

    /// Closes the longest idle connection of those that are looked at, if it has been idle since before `idle_before`. True if there
    /// was one.
    pub fn evict(&mut self, cx: &mut Context, io: &mut dyn Io, idle_before: Instant) -> bool {
        let idle =
            self.tables.iter_mut().filter_map(|table| table.longest_idle(cx, io)).min_by_key(|idle| idle.1);
        let Some((key, _)) = idle.filter(|(_, since)| *since <= idle_before) else { return false };
        if let Some(table) = self.get(key) {
            table.evict(cx, io, key);
        }
        true
    }

    /// Gives back the memory of slots that a spike has left free.
    pub fn shrink(&mut self) {
        for table in &mut self.tables {
            table.shrink();
        }
    }

    /// Connections in all tables.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.len()).sum()
    }

    /// Whether a drain has to wait for any.
    pub fn hold_drain(&self) -> bool {
        self.tables.iter().any(|table| table.holds_drain())
    }

    pub fn reclaim(&mut self) {
        for table in &mut self.tables {
            table.reclaim();
        }
    }
}
