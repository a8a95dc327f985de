//! Rooms by their names, and the line of those that nobody is in.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use netpoll_core::Instant;

use super::room::{Room, State, lock};

/// Parts with a lock of their own, so that hardly two threads want the same.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<Room>>;

pub struct Registry {
    shards: Box<[Mutex<Shard>]>,
    rooms: AtomicUsize,
    expiring: Mutex<Line>,
}

/// Rooms that nobody is in, and when each is looked at.
#[derive(Default)]
struct Line {
    rooms: VecDeque<(Instant, Arc<Room>)>,
    /// Somebody comes and looks.
    is_watched: bool,
}

impl Line {
    fn pop_due(&mut self, now: Instant) -> Option<Arc<Room>> {
        self.rooms.front().filter(|(at, _)| *at <= now)?;
        self.rooms.pop_front().map(|(_, room)| room)
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

    /// Acts on the room of this name, which is made if there is none, and is not gone before that is done. `None` if there may be no other room.
    pub fn with<R>(
        &self,
        name: &str,
        rooms_max: usize,
        make: impl Fn() -> Room,
        act: impl FnOnce(&Arc<Room>, &mut State) -> R,
    ) -> Option<R> {
        loop {
            let room = self.get_or_make(name, rooms_max, &make)?;
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

    /// A room that nobody is in gets in line. True if somebody has to come and look.
    pub fn expire_at(&self, at: Instant, room: &Arc<Room>) -> bool {
        let mut line = lock(&self.expiring);
        line.rooms.push_back((at, Arc::clone(room)));
        !std::mem::replace(&mut line.is_watched, true)
    }

    /// Takes rooms out that nobody has been in for long enough, some of those whose time has come, and calls `goes` for each. When to come and look again.
    pub fn expire(
        &self,
        now: Instant,
        at_most: usize,
        until: impl Fn(&State) -> Instant,
        mut goes: impl FnMut(&Room, &State),
    ) -> Option<Instant> {
        let due: Vec<_> = {
            let mut line = lock(&self.expiring);
            (0..at_most).map_while(|_| line.pop_due(now)).collect()
        };
        let mut later = Vec::new();
        for room in due {
            let mut shard = self.shard(&room.name);
            let mut state = room.lock();
            if !state.is_empty() {
                state.is_expiring = false;
            } else if until(&state) > now {
                later.push((until(&state), Arc::clone(&room)));
            } else {
                state.is_gone = true;
                shard.remove(&room.name);
                self.rooms.fetch_sub(1, Ordering::Relaxed);
                goes(&room, &state);
            }
        }
        let mut line = lock(&self.expiring);
        line.rooms.extend(later);
        if line.rooms.capacity() > 64.max(4 * line.rooms.len()) {
            let rooms = line.rooms.len();
            line.rooms.shrink_to(2 * rooms);
        }
        let next = line.rooms.front().map(|(at, _)| *at);
        line.is_watched = next.is_some();
        next
    }
}
