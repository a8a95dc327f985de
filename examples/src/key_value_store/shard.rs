//! The keys of one worker.
//!
//! A key whose time is over is not found any more, whether it has been swept or not. Invariant: `expiring` has exactly the
//! keys with an end, and `bytes` is what all entries take, the places of their ends included.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::Instant;

use crate::resp::{write_bytes, write_error, write_integer};

/// What a key takes beside its bytes and those of its value: a place in the map (57 bytes, and the map is between seven sixteenths and
/// seven eighths full), and two allocations with their heads (16 bytes of an `Rc`'s counts, and what malloc rounds up).
const ENTRY_BYTES: usize = 192;
/// What its end takes: a place of 24 bytes in a tree whose nodes are about half full.
const END_BYTES: usize = 64;
/// The map shrinks when it has room for so many times as many keys as there are.
const ROOM_MAX: usize = 4;

/// What can be done to one key, or to a whole shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Set,
    Del,
    Exists,
    Incr,
    Expire,
    Ttl,
    DbSize,
    FlushAll,
}

struct Entry {
    value: Vec<u8>,
    ends: Option<Instant>,
}

impl Entry {
    /// What it takes, under this key.
    fn bytes(&self, key: &[u8]) -> usize {
        entry_bytes(key, self.value.capacity(), self.ends)
    }
}

fn entry_bytes(key: &[u8], value_bytes: usize, ends: Option<Instant>) -> usize {
    key.len() + value_bytes + ENTRY_BYTES + if ends.is_some() { END_BYTES } else { 0 }
}

/// The keys of one worker.
pub struct Shard {
    entries: HashMap<Rc<[u8]>, Entry>,
    /// Keys that end, the next one first.
    expiring: BTreeSet<(Instant, Rc<[u8]>)>,
    bytes: usize,
    bytes_max: usize,
}

/// An error of the request, as the client reads it.
type Refused = &'static str;

const NO_INTEGER: Refused = "ERR value is not an integer or out of range";
const OUT_OF_MEMORY: Refused = "OOM command not allowed when used memory > 'maxmemory'.";
const SYNTAX: Refused = "ERR syntax error";
/// A request with too few words, or too many.
pub const WRONG_ARITY: Refused = "ERR wrong number of arguments";

impl Shard {
    /// No keys; later ones that take no more than so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), expiring: BTreeSet::new(), bytes: 0, bytes_max }
    }

    /// Carries out a command, whose name stands in front of the words, and writes the answer.
    pub fn execute(&mut self, verb: Verb, words: &[&[u8]], now: Instant, out: &mut Vec<u8>) {
        let outcome = match (verb, &words[1..]) {
            (Verb::Get, [key]) => {
                write_bytes(out, self.find(key, now).map(|entry| &entry.value[..]));
                Ok(())
            }
            (Verb::Set, [key, value, options @ ..]) => {
                self.set(key, value, options, now).map(|()| out.extend_from_slice(b"+OK\r\n"))
            }
            (verb, words) => self.count(verb, words, now).map(|number| write_integer(out, number)),
        };
        outcome.unwrap_or_else(|refused| write_error(out, refused));
    }

    /// Commands whose answer is a number.
    fn count(&mut self, verb: Verb, words: &[&[u8]], now: Instant) -> Result<i64, Refused> {
        match (verb, words) {
            (Verb::Del, [key]) => Ok(i64::from(self.find(key, now).is_some() && self.remove(key))),
            (Verb::Exists, [key]) => Ok(i64::from(self.find(key, now).is_some())),
            (Verb::Incr, [key]) => self.increment(key, now),
            (Verb::Expire, [key, seconds]) => {
                let seconds = integer(seconds)?;
                if self.find(key, now).is_none() {
                    return Ok(0);
                }
                match u64::try_from(seconds) {
                    Ok(seconds) if seconds > 0 => {
                        self.expire(key, now.saturating_add(Duration::from_secs(seconds)))?
                    }
                    _ => drop(self.remove(key)),
                }
                Ok(1)
            }
            (Verb::Ttl, [key]) => Ok(match self.find(key, now) {
                None => -2,
                Some(Entry { ends: None, .. }) => -1,
                Some(Entry { ends: Some(ends), .. }) => {
                    (ends.duration_since(now).as_millis() as i64 + 500) / 1000
                }
            }),
            (Verb::DbSize, []) => {
                self.sweep(now, usize::MAX);
                Ok(self.entries.len() as i64)
            }
            (Verb::FlushAll, []) => {
                let bytes_max = self.bytes_max;
                *self = Self::new(bytes_max);
                Ok(0)
            }
            _ => Err(WRONG_ARITY),
        }
    }

    /// Removes keys whose time is over, this many at most. How many.
    pub fn sweep(&mut self, now: Instant, keys_max: usize) -> usize {
        for swept in 0..keys_max {
            let Some((ends, _)) = self.expiring.first() else { return swept };
            if *ends > now {
                return swept;
            }
            let Some((_, key)) = self.expiring.pop_first() else { return swept };
            self.remove(&key);
        }
        keys_max
    }

    /// What all keys take, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&self, key: &[u8], now: Instant) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.ends.is_none_or(|ends| ends > now))
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]], now: Instant) -> Result<(), Refused> {
        let ends = match options {
            [] => None,
            [unit, number] => {
                let to_duration = match () {
                    () if unit.eq_ignore_ascii_case(b"EX") => Duration::from_secs,
                    () if unit.eq_ignore_ascii_case(b"PX") => Duration::from_millis,
                    () => return Err(SYNTAX),
                };
                let number = u64::try_from(integer(number)?).ok().filter(|number| *number > 0);
                let number = number.ok_or("ERR invalid expire time in 'set' command")?;
                Some(now.saturating_add(to_duration(number)))
            }
            _ => return Err(SYNTAX),
        };
        self.store(key, value, ends)
    }

    fn increment(&mut self, key: &[u8], now: Instant) -> Result<i64, Refused> {
        let (before, ends) = match self.find(key, now) {
            Some(entry) => (integer(&entry.value)?, entry.ends),
            // What is there may be over.
            None => (0, None),
        };
        let after = before.checked_add(1).ok_or("ERR increment or decrement would overflow")?;
        self.store(key, after.to_string().as_bytes(), ends)?;
        Ok(after)
    }

    /// Stores a value that ends then, or never.
    fn store(&mut self, key: &[u8], value: &[u8], ends: Option<Instant>) -> Result<(), Refused> {
        let Some((own, entry)) = self.entries.get_key_value(key) else {
            self.take(0, entry_bytes(key, value.len(), ends))?;
            let key: Rc<[u8]> = key.into();
            self.expiring.extend(ends.map(|ends| (ends, Rc::clone(&key))));
            self.entries.insert(key, Entry { value: value.into(), ends });
            return Ok(());
        };
        // Memory that fits is kept, if less than half of it would be for nothing.
        let capacity = entry.value.capacity();
        let fits = (value.len()..=2 * value.len()).contains(&capacity);
        let own = Rc::clone(own);
        let after = entry_bytes(key, if fits { capacity } else { value.len() }, ends);
        self.take(entry.bytes(key), after)?;
        let entry = self.entries.get_mut(key).expect("it was found");
        if fits {
            entry.value.clear();
            entry.value.extend_from_slice(value);
        } else {
            entry.value = value.into();
        }
        self.end_at(own, ends);
        Ok(())
    }

    /// Lets a key that is there end then.
    fn expire(&mut self, key: &[u8], ends: Instant) -> Result<(), Refused> {
        let (own, entry) = self.entries.get_key_value(key).expect("it was found");
        let own = Rc::clone(own);
        self.take(entry.bytes(key), entry_bytes(key, entry.value.capacity(), Some(ends)))?;
        self.end_at(own, Some(ends));
        Ok(())
    }

    /// Counts what a key takes from now on, unless that is more than before and more than there is.
    fn take(&mut self, before: usize, after: usize) -> Result<(), Refused> {
        let bytes = self.bytes - before + after;
        if bytes > self.bytes_max && bytes > self.bytes {
            return Err(OUT_OF_MEMORY);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Notes the end of a key whose memory is counted.
    fn end_at(&mut self, key: Rc<[u8]>, ends: Option<Instant>) {
        let entry = self.entries.get_mut(&key).expect("it was found");
        let before = std::mem::replace(&mut entry.ends, ends);
        if before == ends {
            return;
        }
        if let Some(before) = before {
            self.expiring.remove(&(before, Rc::clone(&key)));
        }
        self.expiring.extend(ends.map(|ends| (ends, key)));
    }

    /// Forgets a key. Whether it was there.
    fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= entry.bytes(&key);
        if let Some(ends) = entry.ends {
            self.expiring.remove(&(ends, key));
        }
        if self.entries.capacity() > 1024.max(ROOM_MAX * self.entries.len()) {
            self.entries.shrink_to(2 * self.entries.len());
        }
        true
    }
}

/// A number in its only spelling: no plus, no leading zeros, no spaces.
fn integer(text: &[u8]) -> Result<i64, Refused> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.filter(|number| number.to_string().as_bytes() == text).ok_or(NO_INTEGER)
}
