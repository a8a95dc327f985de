//! Keys that notice when they are stale, the table that issues them, and side tables at the same keys.
//!
//! The kernel reports events by a number that was given to it earlier, and wakers, timers and user
//! handles outlive what they point at. So a key is an index plus a generation: a lookup compares the
//! whole key with the one in the slot, and a stale key finds nothing.
//!
//! Invariant: an index is *live* (slot holds a value under exactly one key), *retired* (removed in this
//! batch, the slot is kept empty) or *free*. Retired becomes free only in [`KeySlab::reclaim`], at the
//! end of a turn, so that no event of one batch can meet a newer owner of the same index.
//!
//! Touched by one worker only. Lookup is one bounds check and one 64-bit compare; insert and remove are
//! O(1) and do not allocate once the table has seen its peak.

use std::fmt;

use slab::Slab;

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 28;
const DRIVER_BITS: u32 = 4;

/// The largest index of a key, and so one less than the most values one [`KeySlab`] holds: 16 777 215.
pub const INDEX_MAX: usize = (1 << INDEX_BITS) - 1;

/// The largest generation of a key: 268 435 455.
pub const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

const _: () = assert!(INDEX_BITS + GENERATION_BITS + u8::BITS + DRIVER_BITS == u64::BITS);

/// The name of one value in one table: table (8 bits), generation (28 bits), index (24 bits).
///
/// Fits the 64 bits of user data that epoll and io_uring carry, with 4 bits to spare in which a driver can say which of a
/// source's operations is meant ([`Key::with_driver_bits`]). Shown as `t1:i7g3`: table 1, index 7,
/// generation 3. The order is by table, then generation, then index, and means nothing beyond that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// Puts a key together. Keys that shall be found come from [`KeySlab::insert_with`].
    ///
    /// # Panics
    /// If `index` is above [`INDEX_MAX`], or `generation` above [`GENERATION_MAX`].
    #[inline]
    pub const fn new(table: u8, generation: u32, index: usize) -> Self {
        assert!(index <= INDEX_MAX, "an index has 24 bits");
        assert!(generation <= GENERATION_MAX, "a generation has 28 bits");
        Self(
            (table as u64) << (GENERATION_BITS + INDEX_BITS)
                | (generation as u64) << INDEX_BITS
                | index as u64,
        )
    }

    /// The key as the kernel carries it.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The key that [`Key::to_bits`] came from. Any number without a driver's bits is a key; one that was never issued finds
    /// nothing.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        debug_assert!(bits >> (u64::BITS - DRIVER_BITS) == 0, "a driver splits its bits off");
        Self(bits)
    }

    /// The key as the kernel carries it for one of several operations, with that one's number, `0..16`, in front.
    ///
    /// # Panics
    /// If `bits` is above 15.
    #[inline]
    pub const fn with_driver_bits(self, bits: u8) -> u64 {
        assert!(bits < 1 << DRIVER_BITS, "a driver has 4 bits");
        (bits as u64) << (u64::BITS - DRIVER_BITS) | self.0
    }

    /// The key and the number that [`Key::with_driver_bits`] was made of.
    #[inline]
    pub const fn split_driver_bits(bits: u64) -> (Self, u8) {
        (Self(bits & (u64::MAX >> DRIVER_BITS)), (bits >> (u64::BITS - DRIVER_BITS)) as u8)
    }

    /// Which table issued it.
    #[inline]
    pub const fn table(self) -> u8 {
        (self.0 >> (GENERATION_BITS + INDEX_BITS)) as u8
    }

    /// Which slot of the table, `0..=INDEX_MAX`.
    #[inline]
    pub const fn index(self) -> usize {
        (self.0 as usize) & INDEX_MAX
    }

    /// Which owner of the slot. Comes round after 2^28 inserts into the table.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> INDEX_BITS) as u32 & GENERATION_MAX
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}:i{}g{}", self.table(), self.index(), self.generation())
    }
}

/// A table of values that issues the keys to them.
pub struct KeySlab<T> {
    slots: Slab<Slot<T>>,
    /// Indexes whose slot is occupied in `slots` but holds no value; each at most once.
    retired: Vec<u32>,
    slots_max: usize,
    /// The generation of the newest key. One counter for all slots: it needs no memory in free ones.
    generation: u32,
    table: u8,
}

/// `value` is `None` only while the index is retired.
struct Slot<T> {
    key: Key,
    value: Option<T>,
}

impl<T> KeySlab<T> {
    /// An empty table whose keys carry `table`. Allocates nothing yet.
    #[inline]
    pub const fn new(table: u8) -> Self {
        Self::with_limit(table, INDEX_MAX + 1)
    }

    /// An empty table that holds at most `values_max` values, those retired in this batch included.
    ///
    /// # Panics
    /// If `values_max` is more than the indexes there are, `INDEX_MAX + 1`.
    pub const fn with_limit(table: u8, values_max: usize) -> Self {
        assert!(values_max <= INDEX_MAX + 1, "an index has 24 bits");
        Self { slots: Slab::new(), retired: Vec::new(), slots_max: values_max, generation: 0, table }
    }

    /// Stores what `make` returns for the key it is given, and returns that key; `None` if the table is
    /// full, in which case `make` is not called.
    ///
    /// The index is the one freed last (its memory is warm). O(1), amortised.
    #[inline]
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.slots.len() == self.slots_max {
            return None;
        }
        self.generation = (self.generation + 1) & GENERATION_MAX;
        let slot = self.slots.vacant_entry();
        let key = Key::new(self.table, self.generation, slot.key());
        slot.insert(Slot { key, value: Some(make(key)) });
        Some(key)
    }

    /// The value, if the key is not stale.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some(slot) if slot.key == key => slot.value.as_ref(),
            _ => None,
        }
    }

    /// The value to change, if the key is not stale.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(slot) if slot.key == key => slot.value.as_mut(),
            _ => None,
        }
    }

    /// Whether the key still finds something.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// Takes the value out; from here on the key is stale. The index is retired until [`KeySlab::reclaim`].
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index()).filter(|slot| slot.key == key)?;
        let value = slot.value.take()?;
        self.retired.push(key.index() as u32);
        Some(value)
    }

    /// Takes the value out, and lets its index be used again at once: for keys that no batch of events holds. O(1).
    #[inline]
    pub fn take(&mut self, key: Key) -> Option<T> {
        // A retired one is left to `reclaim`.
        self.get(key)?;
        self.slots.remove(key.index()).value
    }

    /// Lets retired indexes be used again. Called between batches of events. O(retired).
    #[inline]
    pub fn reclaim(&mut self) {
        // The usual case, in every turn and for every table.
        if !self.retired.is_empty() {
            self.free_retired();
        }
    }

    fn free_retired(&mut self) {
        for index in self.retired.drain(..) {
            let slot = self.slots.remove(index as usize);
            debug_assert!(slot.value.is_none(), "only retired slots are reclaimed");
        }
    }

    /// The key of the value at this index, if there is one.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        self.slots.get(index).filter(|slot| slot.value.is_some()).map(|slot| slot.key)
    }

    /// All values have an index below this.
    pub fn indexes(&self) -> usize {
        self.slots.capacity()
    }

    /// Gives back the memory of free slots behind the last value. O(slots).
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.retired.shrink_to_fit();
    }

    /// How many values there are; retired ones do not count.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len() - self.retired.len()
    }

    /// Whether there is no value.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further value fits before something is removed and reclaimed.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.slots.len() == self.slots_max
    }

    /// All values with their keys, by index. O(peak of the table).
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().filter_map(|(_, slot)| slot.value.as_ref().map(|value| (slot.key, value)))
    }

    /// All keys that are not stale, by index. O(peak of the table).
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.iter().map(|(key, _)| key)
    }
}

/// Values stored at keys that some [`KeySlab`]s issued, one slot for each index of each table.
///
/// For the floor that keeps its own state for somebody else's things. O(1) without hashing; memory
/// follows the highest index ever stored per table and is not given back before the map is dropped.
pub struct KeyMap<T> {
    /// By table, then by index.
    tables: Vec<Vec<Option<(u32, T)>>>,
    len: usize,
}

impl<T> KeyMap<T> {
    /// An empty map. Allocates nothing yet.
    #[inline]
    pub const fn new() -> Self {
        Self { tables: Vec::new(), len: 0 }
    }

    /// Stores a value and returns the one that it displaced: under this key, or under a stale key with
    /// the same table and index, whose owner is gone.
    pub fn insert(&mut self, key: Key, value: T) -> Option<T> {
        let table = key.table() as usize;
        if self.tables.len() <= table {
            self.tables.resize_with(table + 1, Vec::new);
        }
        let slots = &mut self.tables[table];
        if slots.len() <= key.index() {
            slots.resize_with(key.index() + 1, || None);
        }
        let displaced = slots[key.index()].replace((key.generation(), value));
        self.len += usize::from(displaced.is_none());
        displaced.map(|(_, value)| value)
    }

    /// The value stored under exactly this key.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.tables.get(key.table() as usize)?.get(key.index())? {
            Some((generation, value)) if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// The value stored under exactly this key, to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.tables.get_mut(key.table() as usize)?.get_mut(key.index())? {
            Some((generation, value)) if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// Takes the value out.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.tables.get_mut(key.table() as usize)?.get_mut(key.index())?;
        let (_, value) = slot.take_if(|(generation, _)| *generation == key.generation())?;
        self.len -= 1;
        Some(value)
    }

    /// Gives back the memory of free slots behind the last value.
    pub fn shrink(&mut self) {
        for slots in &mut self.tables {
            let used = slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            slots.truncate(used);
            slots.shrink_to_fit();
        }
    }

    /// How many values there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values with their keys, by table and index. O(highest index of each table).
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.tables.iter().enumerate().flat_map(|(table, slots)| {
            slots.iter().enumerate().filter_map(move |(index, slot)| {
                let (generation, value) = slot.as_ref()?;
                Some((Key::new(table as u8, *generation, index), value))
            })
        })
    }
}

impl<T> Default for KeyMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
