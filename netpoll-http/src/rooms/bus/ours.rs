//! A bus as the rooms of a process share it: what they publish and how far they are goes out, and what others say comes in.
//!
//! What another process has published gets its number where all messages of the room do, under its lock; so do those that are missing. The lock of a room is taken in
//! front of those of the queue and of what is due.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use netpoll_core::Instant;

use super::super::room::{Room, State, lock};
use super::super::rounds::Calls;
use super::super::{Rooms, Runtime, Shared};
use super::envelope::{self, PLACE_BYTES, Place, Said};
use super::peers::Peers;
use super::queue::{Message, Queue};
use super::{Bus, Engine, Line, Settings, Stats};
use crate::message::chance::unique_8;
use crate::websocket::Frame;

/// Rooms whose places are said in one go; the rest follows [`Settings::digest_after`] later. 4096 are some 200 KB.
const PLACES_PER_DIGEST: usize = 4096;

/// Bytes of one digest.
const DIGEST_BYTES: usize = 32 * 1024;

/// What a gap has of messages, at most: whatever the others say, no number ever overflows.
const MISSING_MAX: u64 = 1 << 32;

/// The bus of some rooms, as it is shared.
pub struct Ours {
    engine: Box<dyn Engine>,
    pub prefix: Arc<str>,
    pub settings: Settings,
    /// No other process has it.
    pub process: u64,
    has_begun: AtomicBool,
    pub queue: Queue,
    digests: Mutex<Digests>,
    pub totals: Totals,
    pub last_failure: Mutex<Option<Arc<str>>>,
}

#[derive(Default)]
struct Digests {
    /// Rooms whose places are to be said, by their number in this process.
    due: BTreeMap<u64, Arc<Room>>,
    /// Those of all rooms are.
    are_all_due: bool,
    /// Somebody comes and says them.
    is_scheduled: bool,
}

#[derive(Default)]
pub struct Totals {
    connects: AtomicU64,
    pub sent: AtomicU64,
    received: AtomicU64,
    duplicates: AtomicU64,
    gaps: AtomicU64,
    missing: AtomicU64,
    malformed: AtomicU64,
}

pub fn count(figure: &AtomicU64, more: u64) {
    figure.fetch_add(more, Ordering::Relaxed);
}

impl Ours {
    pub fn new(bus: Bus) -> Self {
        Self {
            engine: bus.engine,
            prefix: bus.prefix,
            settings: bus.settings,
            process: u64::from_be_bytes(unique_8()),
            has_begun: AtomicBool::new(false),
            queue: Queue::default(),
            digests: Mutex::default(),
            totals: Totals::default(),
            last_failure: Mutex::default(),
        }
    }

    pub fn room_is_there(&self, room: &Arc<str>) {
        self.queue.room_is_there(room);
    }

    pub fn room_is_gone(&self, room: &Arc<str>) {
        self.queue.room_is_gone(room);
    }

    /// A message of ours is on its way to the others. The lock of its room is held.
    fn publish(&self, room: &Room, state: &State, key: Option<&str>, frame: &Frame, now: Instant) {
        let is_too_large = frame.payload().len() > self.settings.message_bytes_max;
        if is_too_large {
            count(&self.queue.dropped, 1);
            return;
        }
        let message = Message {
            room: Arc::clone(&room.name),
            life: room.id,
            number: state.published,
            first_at: state.first_published_at,
            key: key.map(Arc::from),
            frame: frame.clone(),
            published_at: now,
        };
        self.queue.push(message, &self.settings);
    }

    /// Notes that there are places to say. True if somebody has to see to it.
    fn is_due(&self, add: impl FnOnce(&mut Digests)) -> bool {
        // Nobody would hear it; behind the next connect all is due.
        if !self.queue.is_connected() {
            return false;
        }
        let mut digests = lock(&self.digests);
        add(&mut digests);
        !mem::replace(&mut digests.is_scheduled, true)
    }

    /// There is no connection: nobody is told of single places, so what they are of need not be kept. Behind the next connect all are due.
    pub fn disconnected(&self) {
        self.queue.disconnected();
        let due = mem::take(&mut lock(&self.digests).due);
        drop(due);
    }

    pub fn stats(&self) -> Stats {
        let figures = self.queue.figures();
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Stats {
            is_connected: figures.is_connected,
            reconnects: of(&self.totals.connects).saturating_sub(1),
            channels: figures.channels,
            queued: figures.messages,
            queued_bytes: figures.bytes,
            sent: of(&self.totals.sent),
            received: of(&self.totals.received),
            dropped: of(&self.queue.dropped),
            duplicates: of(&self.totals.duplicates),
            gaps: of(&self.totals.gaps),
            missing: of(&self.totals.missing),
            malformed: of(&self.totals.malformed),
            last_failure: lock(&self.last_failure).clone(),
        }
    }
}

impl Rooms {
    /// The engine begins, if it has not.
    pub(in super::super) fn begin_bus(&self, runtime: &Runtime) {
        let Some(bus) = &self.0.bus else { return };
        if !bus.has_begun.swap(true, Ordering::Relaxed) {
            let line = Line::new(self);
            runtime.handle.run_on(0, move |local| {
                if let Some(shared) = line.shared()
                    && let Some(bus) = &shared.bus
                {
                    bus.engine.start(line, local);
                }
            });
        }
    }

    /// What was appended here goes to the others as well. The lock of the room is held.
    pub(in super::super) fn pass_on(
        &self,
        room: &Arc<Room>,
        state: &mut State,
        key: Option<&str>,
        frame: &Frame,
        now: Instant,
        calls: &mut Calls,
    ) {
        let Some(bus) = &self.0.bus else { return };
        if state.published == 0 {
            state.first_published_at = now;
        }
        state.published += 1;
        bus.publish(room, state, key, frame, now);
        calls.digests |= bus.is_due(|digests| drop(digests.due.insert(room.id, Arc::clone(room))));
    }

    /// Orders may wait for it. No lock is held.
    pub(in super::super) fn wake_engine(&self) {
        if let Some(bus) = &self.0.bus {
            bus.queue.wake();
        }
    }

    /// Has places said, a moment later.
    pub(in super::super) fn say_places_later(&self, runtime: &Runtime) {
        let Some(bus) = &self.0.bus else { return };
        let (line, after) = (Line::new(self), bus.settings.digest_after);
        runtime.handle.run_on(0, move |local| {
            local.commands().after(after, move |_local| {
                if let Some(shared) = line.shared() {
                    Self(shared).say_places();
                }
            });
        });
    }

    /// Says where this process is in rooms that have changed.
    fn say_places(&self) {
        let (Some(bus), Some(runtime)) = (&self.0.bus, self.0.runtime.get()) else { return };
        let is_slow = bus.queue.has_digest();
        let are_all_due = !is_slow && mem::take(&mut lock(&bus.digests).are_all_due);
        let all = if are_all_due { self.0.registry.all() } else { Vec::new() };
        let (due, is_rest) = {
            let mut digests = lock(&bus.digests);
            digests.is_scheduled = false;
            digests.due.extend(all.into_iter().map(|room| (room.id, room)));
            let count = if is_slow { 0 } else { digests.due.len().min(PLACES_PER_DIGEST) };
            let due: Vec<_> = (0..count).filter_map(|_| digests.due.pop_first()).collect();
            (due, is_slow || !digests.due.is_empty())
        };
        let (now, mut digest) = (runtime.handle.now(), Vec::new());
        for (life, room) in due {
            let state = room.lock();
            let (number, age) = (state.published, now.duration_since(state.first_published_at));
            drop(state);
            if number == 0 {
                continue;
            }
            if digest.len() + PLACE_BYTES + room.name.len() > DIGEST_BYTES {
                let whole = mem::take(&mut digest);
                bus.queue.push_digest(whole);
            }
            if digest.is_empty() {
                digest = envelope::digest(bus.process);
            }
            envelope::put_place(&mut digest, &Place { room: &room.name, life, number, age });
        }
        if !digest.is_empty() {
            bus.queue.push_digest(digest);
        }
        bus.queue.wake();
        if is_rest && bus.is_due(|_| ()) {
            self.say_places_later(runtime);
        }
    }

    /// Another process, or this one, has said something.
    pub(super) fn hear_from_bus(&self, bytes: &[u8]) {
        let (Some(bus), Some(runtime)) = (&self.0.bus, self.0.runtime.get()) else { return };
        let Some((process, said)) = envelope::read(bytes) else {
            count(&bus.totals.malformed, 1);
            return;
        };
        if process == bus.process {
            return;
        }
        match said {
            Said::Question => self.say_all_places_later(bus, runtime),
            Said::Digest(places) => {
                for at in places {
                    self.hear_of_room(bus, runtime, process, &at, None);
                }
            }
            Said::Message { at, key, payload } => {
                self.hear_of_room(bus, runtime, process, &at, Some((key, payload.frame())));
            }
        }
    }

    fn hear_of_room(
        &self,
        bus: &Ours,
        runtime: &Runtime,
        process: u64,
        at: &Place<'_>,
        message: Option<(Option<&str>, Frame)>,
    ) {
        // Nobody makes a room for what others say.
        let Some(room) = self.0.registry.get(at.room) else { return };
        let now = runtime.handle.now();
        let (mut calls, mut state) = (Calls::default(), room.lock());
        if state.is_gone {
            return;
        }
        let came = u64::from(message.is_some());
        let begun_at = state.begun_at;
        let peers = state.peers.get_or_insert_with(|| Box::new(Peers::new(begun_at)));
        let Some(missing) = peers.hear(process, at, came, now) else {
            count(&bus.totals.duplicates, came);
            return;
        };
        if missing > 0 {
            let missing = missing.min(MISSING_MAX);
            count(&bus.totals.gaps, 1);
            count(&bus.totals.missing, missing);
            state.log.lose(missing);
        }
        if let Some((key, frame)) = message {
            count(&bus.totals.received, 1);
            self.add(&room, &mut state, key, frame, now, &mut calls);
        } else if missing > 0 {
            let sequence = state.log.head();
            self.tell_workers(&room, &mut state, sequence, &mut calls);
        }
        drop(state);
        runtime.call(self, calls);
    }

    pub(super) fn bus_connected(&self) {
        let (Some(bus), Some(runtime)) = (&self.0.bus, self.0.runtime.get()) else { return };
        count(&bus.totals.connects, 1);
        bus.queue.connected();
        bus.queue.wake();
        self.say_all_places_later(bus, runtime);
    }

    fn say_all_places_later(&self, bus: &Ours, runtime: &Runtime) {
        if bus.is_due(|digests| digests.are_all_due = true) {
            self.say_places_later(runtime);
        }
    }
}

impl Shared {
    pub(in super::super) fn ours(&self) -> Option<&Ours> {
        self.bus.as_ref()
    }
}
