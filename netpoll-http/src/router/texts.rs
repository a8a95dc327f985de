//! Literal paths and segments, by hash.
//!
//! Invariant: each text stands in the table once. Built when routes are added; a lookup reads one slot, one entry
//! and the text, rarely more.

use super::scan::{is_same, tag};

/// Texts with a number each: a hash table by tags, at most half full.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    /// Places in `entries`, or `NO_ENTRY`. A power of two of them, or none. An entry stands in its home, which
    /// its tag names, or in one of the slots behind it, and no slot between the two is empty.
    slots: Vec<u32>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    tag: u64,
    text: Box<[u8]>,
    number: u32,
}

const NO_ENTRY: u32 = u32::MAX;

impl Texts {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline(always)]
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        let tag = tag(text);
        let entry = self.entry(home(tag))?;
        if entry.tag == tag && is_same(&entry.text, text) {
            return Some(entry.number);
        }
        self.find_behind(tag, text)
    }

    /// What stands in a slot, counted on beyond the last one.
    #[inline(always)]
    fn entry(&self, at: usize) -> Option<&Entry> {
        let slot = *self.slots.get(at & self.slots.len().wrapping_sub(1))?;
        // `NO_ENTRY` is out of range.
        self.entries.get(slot as usize)
    }

    #[inline(never)]
    fn find_behind(&self, tag: u64, text: &[u8]) -> Option<u32> {
        let mut at = home(tag);
        loop {
            at += 1;
            let entry = self.entry(at)?;
            if entry.tag == tag && is_same(&entry.text, text) {
                return Some(entry.number);
            }
        }
    }

    pub(super) fn find_or_insert(&mut self, text: &str, fresh: u32) -> u32 {
        let text = text.as_bytes();
        if let Some(number) = self.find(text) {
            return number;
        }
        self.entries.push(Entry { tag: tag(text), text: text.into(), number: fresh });
        self.slots = vec![NO_ENTRY; (2 * self.entries.len()).next_power_of_two()];
        for (place, entry) in self.entries.iter().enumerate() {
            let mask = self.slots.len() - 1;
            let mut at = home(entry.tag) & mask;
            while self.slots[at] != NO_ENTRY {
                at = (at + 1) & mask;
            }
            self.slots[at] = place as u32;
        }
        fresh
    }
}

/// Where to look for a tag first, still to be cut to the number of slots.
#[inline]
fn home(tag: u64) -> usize {
    // The multiplier is odd and has bits everywhere; the upper half of the product depends on all of the tag.
    (tag.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as usize
}
