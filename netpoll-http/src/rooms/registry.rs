//! Rooms by their names, and the line of those in which something becomes old.
//!
//! The lock of a part is taken in front of that of a room, and that of the line behind both.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use netpoll_core::Instant;

use super::room::{Room, State, lock};

/// Parts with a lock of their own, so that hardly two threads want the same.
const SHARDS: usize = 64;

/// How soon a room is looked at again that somebody is in, at least.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(10);

type Shard = HashMap<Arc<str>, Arc<Room>>;

pub struct Registry {
    shards: Box<[Mutex<Shard>]>,
    rooms: AtomicUsize,
    expiring: Mutex<Line>,
}

/// Rooms in which something is old at some time: messages, or the room itself, if nobody is in it.
#[derive(Default)]
struct Line {
    /// By the time at which each is looked at, and its number.
    rooms: BTreeMap<(Instant, u64), Arc<Room>>,
    /// Those among them that [remember nothing](State::is_blank), by their numbers, and when each is looked at.
    blank: BTreeMap<u64, Instant>,
    /// Somebody comes and looks.
    is_watched: bool,
}

impl Line {
    fn push(&mut self, at: Instant, room: &Arc<Room>, is_blank: bool) {
        self.rooms.insert((at, room.id), Arc::clone(room));
        if is_blank {
            self.blank.insert(room.id, at);
        }
    }

    fn pop_due(&mut self, now: Instant) -> Option<Arc<Room>> {
        let (&(at, id), _) = self.rooms.first_key_value()?;
        if at > now {
            return None;
        }
        self.blank.remove(&id);
        self.rooms.pop_first().map(|(_, room)| room)
    }

    fn pop_blank(&mut self) -> Option<(Instant, Arc<Room>)> {
        let (id, at) = self.blank.pop_first()?;
        let room = self.rooms.get(&(at, id)).expect("it stands in line");
        Some((at, Arc::clone(room)))
    }
}

impl Registry {
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            rooms: AtomicUsize::new(0),
            expiring: Mutex::default(),
        }
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        lock(&self.shards[hasher.finish() as usize % SHARDS])
    }

    pub fn rooms(&self) -> usize {
        self.rooms.load(Ordering::Relaxed)
    }

    /// Each room that is there at some moment of this.
    pub fn all(&self) -> Vec<Arc<Room>> {
        self.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>()).collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        self.shard(name).get(name).cloned()
    }

    /// Acts on the room of this name, which is made if there is none, and is not gone before that is done. `None` if there may be no other room, and
    /// `make_place` has made none.
    pub fn with<R>(
        &self,
        name: &str,
        rooms_max: usize,
        make: impl Fn() -> Room,
        make_place: impl Fn() -> bool,
        act: impl FnOnce(&Arc<Room>, &mut State) -> R,
    ) -> Option<R> {
        loop {
            let room = match self.get_or_make(name, rooms_max, &make) {
                Some(room) => room,
                None if make_place() => continue,
                None => return None,
            };
            let mut state = room.lock();
            // It may have gone in between.
            if !state.is_gone {
                return Some(act(&room, &mut state));
            }
        }
    }

    fn get_or_make(&self, name: &str, rooms_max: usize, make: impl Fn() -> Room) -> Option<Arc<Room>> {
        let mut shard = self.shard(name);
        if let Some(room) = shard.get(name) {
            return Some(Arc::clone(room));
        }
        let one_more = |rooms: usize| (rooms < rooms_max).then_some(rooms + 1);
        self.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        let room = Arc::new(make());
        shard.insert(Arc::clone(&room.name), Arc::clone(&room));
        Some(room)
    }

    /// A room gets in line; its lock is held. True if somebody has to come and look.
    pub fn expire_at(&self, at: Instant, room: &Arc<Room>, is_blank: bool) -> bool {
        let mut line = lock(&self.expiring);
        line.push(at, room, is_blank);
        !std::mem::replace(&mut line.is_watched, true)
    }

    /// Looks at some rooms whose time has come. Those that nobody has been in for long enough go, and `goes` is called for each; of others `trim` lets go what is old. When
    /// to come and look again.
    pub fn expire(
        &self,
        now: Instant,
        (at_most, history_time): (usize, Duration),
        trim: impl Fn(&mut State),
        goes: impl Fn(&Room, &State),
    ) -> Option<Instant> {
        let due: Vec<_> = {
            let mut line = lock(&self.expiring);
            (0..at_most).map_while(|_| line.pop_due(now)).collect()
        };
        for room in due {
            let mut shard = self.shard(&room.name);
            let mut state = room.lock();
            if state.is_gone {
                continue;
            }
            let is_empty = state.is_empty();
            if !is_empty {
                trim(&mut state);
            }
            match state.look_at(history_time) {
                None => state.is_expiring = false,
                Some(at) if is_empty && at <= now => self.end(&mut shard, &room, &mut state, &goes),
                Some(at) => {
                    // Of messages that come one by one several are let go at once.
                    let soon = now.saturating_add((history_time / 64).max(LOOK_AFTER_MIN));
                    let at = if is_empty { at } else { at.max(soon) };
                    lock(&self.expiring).push(at, &room, state.is_blank());
                }
            }
        }
        let mut line = lock(&self.expiring);
        let next = line.rooms.first_key_value().map(|(&(at, _), _)| at);
        line.is_watched = next.is_some();
        next
    }

    /// Takes out a room that remembers nothing, and calls `goes` for it. False if there is none.
    pub fn make_place(&self, goes: impl Fn(&Room, &State)) -> bool {
        loop {
            let Some((at, room)) = lock(&self.expiring).pop_blank() else { return false };
            let mut shard = self.shard(&room.name);
            let mut state = room.lock();
            if state.is_gone || !state.is_blank() {
                continue;
            }
            self.end(&mut shard, &room, &mut state, &goes);
            lock(&self.expiring).rooms.remove(&(at, room.id));
            return true;
        }
    }

    fn end(&self, shard: &mut Shard, room: &Room, state: &mut State, goes: impl Fn(&Room, &State)) {
        state.is_gone = true;
        shard.remove(&room.name);
        self.rooms.fetch_sub(1, Ordering::Relaxed);
        goes(room, state);
    }
}
