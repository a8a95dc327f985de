//! What a room remembers: its last messages, and of keys the newest one.
//!
//! Invariant: `entries` has the messages up to `head`, in order, but those that another process has lost on their way: the last of these is `hole`, zero if there
//! are none. A message that is in neither `entries` nor `kept` was superseded by one of its key, or its number is `lost` at most. `newest` has the keys of all
//! entries and of all that are kept, each with its newest number; what is kept is the newest of its key, and older than all entries.
//!
//! Plain data: no lock, no clock, no I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::Instant;

use super::Settings;
use crate::websocket::Frame;

/// What an entry counts beside the bytes of its frame and of its key: its place, the frame itself and what its bytes are counted by, about.
const ENTRY_BYTES: usize = 200;

/// A message and its number.
#[derive(Clone, Debug)]
pub struct Numbered {
    pub sequence: u64,
    pub frame: Frame,
}

struct Entry {
    message: Numbered,
    at: Instant,
    key: Option<Arc<str>>,
    is_superseded: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.message.frame.wire_bytes() + self.key.as_ref().map_or(0, |key| key.len()) + ENTRY_BYTES
    }
}

/// How much may stay.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub messages: usize,
    pub bytes: usize,
    pub time: Duration,
    pub burst_bytes: usize,
    /// Zero keeps nothing by its key.
    pub keys: usize,
}

impl Bounds {
    pub fn of(settings: &Settings) -> Self {
        Self {
            messages: settings.history_messages,
            bytes: settings.history_bytes,
            time: settings.history_time,
            burst_bytes: settings.burst_bytes_max.max(settings.history_bytes),
            keys: if settings.behind == super::Behind::Newest { settings.keys_max } else { 0 },
        }
    }

    /// When all rooms together keep too much.
    pub fn least(self) -> Self {
        Self { messages: self.messages.min(1), keys: 0, ..self }
    }
}

/// What is read of a log.
pub struct Read {
    pub messages: Vec<Numbered>,
    /// Nothing is left behind them, up to the head.
    pub is_complete: bool,
    /// The newest message when it was read.
    pub head: u64,
    /// Of what was skipped up to here something is gone; what was skipped behind it was superseded.
    pub lost: u64,
}

#[derive(Default)]
pub struct Log {
    head: u64,
    entries: VecDeque<Entry>,
    kept: BTreeMap<u64, Entry>,
    newest: HashMap<Arc<str>, u64>,
    lost: u64,
    hole: u64,
    bytes: usize,
}

impl Log {
    /// The number of the newest message, zero if there was none.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The number of the oldest message from which on there is no hole.
    pub fn first(&self) -> u64 {
        self.oldest().max(self.hole + 1)
    }

    /// The number of the oldest message that is there.
    pub fn oldest(&self) -> u64 {
        self.entries.front().map_or(self.head + 1, |entry| entry.message.sequence)
    }

    /// When the oldest message that is not kept by its key was published.
    pub fn oldest_at(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.at)
    }

    /// Where the entries from this number on begin.
    fn index_of(&self, from: u64) -> usize {
        self.entries.partition_point(|entry| entry.message.sequence < from)
    }

    /// Of the messages up to here something is gone that was not superseded, and is not kept.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The last message that another process has lost.
    pub fn hole(&self) -> u64 {
        self.hole
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn messages(&self) -> usize {
        self.entries.len() + self.kept.len()
    }

    /// Adds a message. A key is remembered if any is kept by it.
    pub fn append(&mut self, frame: Frame, key: Option<&str>, at: Instant) -> u64 {
        self.head += 1;
        let sequence = self.head;
        let key: Option<Arc<str>> = key.map(Arc::from);
        if let Some(key) = &key
            && let Some(old) = self.newest.insert(Arc::clone(key), sequence)
        {
            self.supersede(old);
        }
        let entry = Entry { message: Numbered { sequence, frame }, at, key, is_superseded: false };
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        sequence
    }

    /// So many messages that have been there are not to be had: they have their numbers.
    pub fn lose(&mut self, messages: u64) {
        self.head += messages;
        (self.lost, self.hole) = (self.head, self.head);
    }

    fn supersede(&mut self, old: u64) {
        // The new one is not among the entries yet.
        if old >= self.oldest() {
            let index = self.index_of(old);
            self.entries[index].is_superseded = true;
        } else if let Some(entry) = self.kept.remove(&old) {
            self.bytes -= entry.bytes();
        }
    }

    /// Lets go what is more than it may have, but what a worker has still to take, from `held` on.
    pub fn trim(&mut self, bounds: &Bounds, held: u64, now: Instant) {
        let mut is_burst = false;
        while let Some(front) = self.entries.front() {
            let is_old = front.at.saturating_add(bounds.time) <= now;
            let is_over = is_old || self.entries.len() > bounds.messages || self.bytes > bounds.bytes;
            let is_held = front.message.sequence >= held && self.bytes <= bounds.burst_bytes;
            if !is_over || is_held {
                is_burst = is_over;
                break;
            }
            self.let_go(bounds);
        }
        // What is over without a burst is what is kept.
        while self.kept.len() > bounds.keys || self.bytes > bounds.bytes && !is_burst && !self.kept.is_empty()
        {
            self.forget_kept();
        }
        // A burst is over.
        if self.entries.capacity() > 64.max(4 * self.entries.len()) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// The oldest entry goes, or is kept as the newest of its key.
    fn let_go(&mut self, bounds: &Bounds) {
        let Some(entry) = self.entries.pop_front() else { return };
        let sequence = entry.message.sequence;
        if entry.is_superseded {
            self.bytes -= entry.bytes();
            return;
        }
        if let Some(key) = &entry.key {
            if bounds.keys > 0 {
                self.kept.insert(sequence, entry);
                // What is kept takes room too, and the oldest of it gives way.
                if self.bytes > bounds.bytes {
                    self.forget_kept();
                }
                return;
            }
            self.newest.remove(key);
        }
        self.bytes -= entry.bytes();
        self.lost = self.lost.max(sequence);
    }

    fn forget_kept(&mut self) {
        if let Some((sequence, entry)) = self.kept.pop_first() {
            self.bytes -= entry.bytes();
            // All that is lost is older than what was kept, or was forgotten with it.
            self.lost = self.lost.max(sequence);
            if let Some(key) = &entry.key {
                self.newest.remove(key);
            }
        }
    }

    /// What a reader gets that has all in front of `from`: about so many bytes of it, and one message at least. `newest` leaves out what was superseded.
    pub fn read(&self, from: u64, newest: bool, bytes_max: usize) -> Read {
        let skipped = self.index_of(from);
        let kept = self.kept.range(from..).map(|(_, entry)| entry).take(if newest { usize::MAX } else { 0 });
        let entries = self.entries.iter().skip(skipped).filter(|entry| !(newest && entry.is_superseded));
        let (mut messages, mut bytes, mut is_complete) = (Vec::new(), 0, true);
        for entry in kept.chain(entries) {
            if bytes > bytes_max {
                is_complete = false;
                break;
            }
            bytes += entry.bytes();
            messages.push(entry.message.clone());
        }
        let lost = if newest { self.lost } else { self.head };
        Read { messages, is_complete, head: self.head, lost }
    }

    /// Messages from `from` on: what is not among them was lost.
    pub fn since(&self, from: u64) -> Vec<Numbered> {
        let skipped = self.index_of(from);
        self.entries.iter().skip(skipped).map(|entry| entry.message.clone()).collect()
    }

    /// Whether a reader that has all in front of `from` can have all that it wants.
    pub fn has_all_since(&self, from: u64, newest: bool) -> bool {
        if newest { from > self.lost } else { from >= self.first() }
    }

    /// How many messages it would get.
    pub fn count_since(&self, from: u64, newest: bool) -> u64 {
        let skipped = self.index_of(from);
        if !newest {
            return (self.entries.len() - skipped) as u64;
        }
        let entries = self.entries.iter().skip(skipped).filter(|entry| !entry.is_superseded).count();
        (self.kept.range(from..).count() + entries) as u64
    }
}

#[cfg(test)]
mod tests;
