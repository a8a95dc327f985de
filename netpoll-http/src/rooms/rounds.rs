//! How a worker brings messages to the members that it has: a share of a turn at a time.
//!
//! A letter says that rooms have something new. Each of them gets a round: what is new is taken out of its log at once, and every member of this
//! worker is visited, the last one first, so that whoever leaves or joins meanwhile moves nobody to where the round has been. A member
//! whose socket has as much as it may hold is visited again in the next turn, when what is queued has been sent; if that was not taken either it is
//! *behind*: it is looked at every [`RETRY_EVERY`], and reads from the room's log. The next round waits for neither.
//!
//! Rooms stand in line, each once; who is not done when the share is used up goes to its end. The lock is taken by this worker alone: it makes of what
//! never leaves its thread something that letters may lead to.
//!
//! Invariant: what a room holds for this worker ([`Seats::holds_from`](super::room::Seats)) is what members of a round that is under way, or is
//! to come, have not had.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoll_core::{Commands, ConnId, Instant, Local};

use super::room::{Room, State, lock};
use super::visit::{Burst, Delivery, Occasion};
use super::{Presence, Rooms, Runtime};
use crate::websocket::Visit;

/// How often members that are behind are looked at, a share of a turn each time. 64 KiB in 10 ms are 6 MB/s for each; a look costs some 100 ns.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Rooms in which something is old, looked at in one turn.
const EXPIRED_PER_TURN: usize = 256;

/// What one worker has to do.
#[derive(Default)]
pub struct Worker {
    rounds: Mutex<Rounds>,
    outbox: Mutex<Outbox>,
}

/// What others have for this worker.
#[derive(Default)]
struct Outbox {
    /// Rooms with something new.
    rooms: Vec<Arc<Room>>,
    /// Whom the program is to be told of.
    presences: Vec<Presence>,
    /// A letter is on its way.
    is_under_way: bool,
}

#[derive(Default)]
struct Rounds {
    rooms: HashMap<u64, Round>,
    /// Rooms with something to do.
    line: VecDeque<u64>,
    is_scheduled: bool,
    /// Members that are behind.
    behind: VecDeque<(Member, Arc<Room>)>,
    is_retrying: bool,
}

/// A room, as this worker has it.
struct Round {
    room: Arc<Room>,
    members: Vec<Member>,
    /// The last message that a round was begun with.
    taken: u64,
    /// What is brought now.
    burst: Option<Arc<Burst>>,
    /// Members that it has still to be brought to: those in front of this place.
    left: usize,
    /// Members that are to be visited once more.
    again: Vec<Member>,
    has_news: bool,
    is_in_line: bool,
    /// Every other visit, in which one more is visited again.
    is_odd: bool,
}

struct Member {
    id: ConnId,
    /// Where it stands here, or [`GONE`].
    place: Arc<AtomicU32>,
}

/// Whoever was a member and is none any more, though the same socket may be one again. It is in no list but those of visits, where it takes no share.
const GONE: u32 = u32::MAX;

impl Member {
    fn is_gone(&self) -> bool {
        self.place.load(Ordering::Relaxed) == GONE
    }
}

impl Round {
    fn new(room: Arc<Room>, head: u64) -> Self {
        Self {
            room,
            members: Vec::new(),
            taken: head,
            burst: None,
            left: 0,
            again: Vec::new(),
            has_news: false,
            is_in_line: false,
            is_odd: false,
        }
    }

    fn is_under_way(&self) -> bool {
        self.left > 0 || !self.again.is_empty()
    }

    /// Takes what is new.
    fn begin(&mut self, worker: usize) {
        self.has_news = false;
        let mut state = self.room.lock();
        state.workers[worker].is_told = false;
        let messages = state.log.since(self.taken + 1);
        let (head, hole) = (state.log.head(), state.log.hole());
        drop(state);
        if mem::replace(&mut self.taken, head) == head {
            return;
        }
        self.left = self.members.len();
        self.burst = (!messages.is_empty()).then(|| Arc::new(Burst { messages, head, hole }));
    }

    /// All members have had it, or are behind: the room need not keep it for them.
    fn end(&mut self, rooms: &Rooms, worker: usize, now: Instant, calls: &mut Calls) {
        self.burst = None;
        let mut state = self.room.lock();
        let is_all = state.log.head() == self.taken;
        state.workers[worker].holds_from = if is_all { u64::MAX } else { self.taken + 1 };
        rooms.trim(&mut state, now);
        rooms.let_expire(&self.room, &mut state, calls);
    }

    /// Visits members, so many at most, and returns how many. Who is to be visited again, which may be somebody all the time, has half of it.
    fn visit(&mut self, rooms: &Rooms, at_most: usize, commands: &mut Commands) -> usize {
        self.left = self.left.min(self.members.len());
        self.is_odd = !self.is_odd;
        let half = (at_most + usize::from(self.is_odd)) / 2;
        let again = take_here(&mut self.again, half.max(at_most.saturating_sub(self.left)));
        if !again.is_empty() {
            let delivery = self.delivery(rooms, Occasion::Again);
            commands.tell_many(again.iter().map(|member| member.id), Visit(delivery));
        }
        let again = again.len();
        let first = self.left.min(at_most - again);
        if first > 0 {
            let delivery = self.delivery(rooms, Occasion::Round);
            let members = self.members[self.left - first..self.left].iter().rev();
            commands.tell_many(members.map(|member| member.id), Visit(delivery));
            self.left -= first;
        }
        again + first
    }

    fn delivery(&self, rooms: &Rooms, occasion: Occasion) -> Arc<Delivery> {
        Delivery::new(rooms, &self.room, self.burst.clone(), occasion)
    }
}

/// Takes members out of the front, so many at most, and those among them that are gone.
fn take_here(members: &mut Vec<Member>, at_most: usize) -> Vec<Member> {
    let mut here = 0;
    let taken = members.iter().take_while(|member| {
        let is_taken = here < at_most || member.is_gone();
        here += usize::from(!member.is_gone());
        is_taken
    });
    let taken = taken.count();
    let here = members.drain(..taken).filter(|member| !member.is_gone()).collect();
    if members.is_empty() && members.capacity() > 1024 {
        *members = Vec::new();
    }
    here
}

impl Rounds {
    fn put_in_line(&mut self, room: u64) {
        if let Some(round) = self.rooms.get_mut(&room)
            && !mem::replace(&mut round.is_in_line, true)
        {
            self.line.push_back(room);
        }
    }
}

/// Workers that are to be called when the lock of a room is released: a mailbox may drop what the program has put there.
#[derive(Default)]
pub struct Calls {
    workers: Vec<usize>,
    /// Somebody has to look at rooms in which something becomes old.
    pub expires: bool,
    /// Somebody has to tell other processes where this one is.
    pub digests: bool,
}

impl Runtime {
    /// A room has something new for this worker, which is told so once.
    pub(super) fn announce(&self, room: &Arc<Room>, worker: usize, calls: &mut Calls) {
        self.put(worker, calls, |outbox| outbox.rooms.push(Arc::clone(room)));
    }

    /// Somebody has come to a room or left it. Of one room they are told in the order in which this is called.
    pub(super) fn tell_presence(&self, presence: Presence, worker: usize, calls: &mut Calls) {
        self.put(worker, calls, |outbox| outbox.presences.push(presence));
    }

    fn put(&self, worker: usize, calls: &mut Calls, put: impl FnOnce(&mut Outbox)) {
        let mut outbox = lock(&self.workers[worker].outbox);
        put(&mut outbox);
        if !mem::replace(&mut outbox.is_under_way, true) {
            calls.workers.push(worker);
        }
    }

    /// Sends the letters. No lock is held.
    pub(super) fn call(&self, rooms: &Rooms, calls: Calls) {
        for worker in calls.workers {
            let rooms = rooms.clone();
            self.handle.run_on(worker, move |local| rooms.hear(local));
        }
        if calls.expires {
            let rooms = rooms.clone();
            self.handle.run_on(0, move |local| rooms.expire(local));
        }
        if calls.digests {
            rooms.say_places_later(self);
        }
        rooms.wake_engine();
    }
}

impl Rooms {
    fn rounds<R>(&self, worker: usize, act: impl FnOnce(&mut Rounds) -> R) -> Option<R> {
        let runtime = self.0.runtime.get()?;
        Some(act(&mut lock(&runtime.workers[worker].rounds)))
    }

    /// The letter has come.
    fn hear(&self, local: &mut Local<'_>) {
        let Some(runtime) = self.0.runtime.get() else { return };
        let worker = local.worker();
        let own = &runtime.workers[worker];
        let Outbox { rooms: news, presences, .. } = mem::take(&mut *lock(&own.outbox));
        {
            let mut rounds = lock(&own.rounds);
            for room in news {
                if let Some(round) = rounds.rooms.get_mut(&room.id) {
                    round.has_news = true;
                    rounds.put_in_line(room.id);
                }
            }
        }
        self.schedule(worker, local.commands());
        for presence in presences {
            let rooms = self.clone();
            // By itself, as it may panic.
            local.commands().run_on(worker, move |_local| {
                if let Some(call) = &rooms.0.on_presence {
                    call(&rooms, &presence);
                }
            });
        }
    }

    /// Has the line looked after in the next turn, if somebody stands there.
    fn schedule(&self, worker: usize, commands: &mut Commands) {
        let is_due =
            |rounds: &mut Rounds| !rounds.line.is_empty() && !mem::replace(&mut rounds.is_scheduled, true);
        if self.rounds(worker, is_due) == Some(true) {
            let rooms = self.clone();
            commands.next_turn(move |local| rooms.go_around(local));
        }
    }

    /// The share of a turn.
    fn go_around(&self, local: &mut Local<'_>) {
        let worker = local.worker();
        let mut visited = Vec::new();
        let act = |rounds: &mut Rounds| {
            rounds.is_scheduled = false;
            let mut left = self.0.settings.members_per_turn.max(1);
            while left > 0
                && let Some(id) = rounds.line.pop_front()
            {
                let Some(round) = rounds.rooms.get_mut(&id) else { continue };
                round.is_in_line = false;
                if round.left == 0 && round.has_news {
                    round.begin(worker);
                }
                left -= round.visit(self, left, local.commands());
                visited.push(id);
            }
        };
        self.rounds(worker, act);
        // Behind the visits.
        let rooms = self.clone();
        local.commands().run_on(worker, move |local| rooms.settle(visited, local));
    }

    /// The visits have been made: who has more to do gets in line again.
    fn settle(&self, visited: Vec<u64>, local: &mut Local<'_>) {
        let (worker, now, mut calls) = (local.worker(), local.now(), Calls::default());
        let act = |rounds: &mut Rounds| {
            for id in visited {
                let Some(round) = rounds.rooms.get_mut(&id) else { continue };
                take_here(&mut round.again, 0);
                if !round.is_under_way() {
                    round.end(self, worker, now, &mut calls);
                }
                if round.is_under_way() || round.has_news {
                    rounds.put_in_line(id);
                }
            }
        };
        self.rounds(worker, act);
        self.schedule(worker, local.commands());
        if calls.expires {
            self.expire(local);
        }
    }

    /// A member more, that has all up to `head`.
    pub(super) fn seat(&self, worker: usize, id: ConnId, room: &Arc<Room>, head: u64) -> Arc<AtomicU32> {
        let place = Arc::new(AtomicU32::new(0));
        let member = Member { id, place: Arc::clone(&place) };
        self.rounds(worker, |rounds| {
            let new = || Round::new(Arc::clone(room), head);
            let round = rounds.rooms.entry(room.id).or_insert_with(new);
            // A worker has 16 million connections of a kind, at most.
            place.store(round.members.len() as u32, Ordering::Relaxed);
            round.members.push(member);
        });
        place
    }

    /// One less.
    pub(super) fn unseat(&self, worker: usize, room: &Room, place: &AtomicU32) {
        self.rounds(worker, |rounds| {
            let Some(round) = rounds.rooms.get_mut(&room.id) else { return };
            let place = place.swap(GONE, Ordering::Relaxed);
            round.members.swap_remove(place as usize);
            if let Some(moved) = round.members.get(place as usize) {
                moved.place.store(place, Ordering::Relaxed);
            }
            if round.members.is_empty() {
                rounds.rooms.remove(&room.id);
                rounds.shrink();
            } else if round.members.capacity() > 64.max(4 * round.members.len()) {
                round.members.shrink_to(2 * round.members.len());
            }
        });
    }

    /// Has a member visited in the next turn.
    pub(super) fn visit_again(
        &self,
        worker: usize,
        (id, place): (ConnId, &Arc<AtomicU32>),
        room: &Room,
        commands: &mut Commands,
    ) {
        let member = Member { id, place: Arc::clone(place) };
        self.rounds(worker, |rounds| {
            if let Some(round) = rounds.rooms.get_mut(&room.id) {
                round.again.push(member);
                rounds.put_in_line(room.id);
            }
        });
        self.schedule(worker, commands);
    }

    /// Has a member visited when it may have taken something.
    pub(super) fn visit_later(
        &self,
        worker: usize,
        (id, place): (ConnId, &Arc<AtomicU32>),
        room: &Arc<Room>,
        commands: &mut Commands,
    ) {
        let member = Member { id, place: Arc::clone(place) };
        let push = |rounds: &mut Rounds| {
            rounds.behind.push_back((member, Arc::clone(room)));
            !mem::replace(&mut rounds.is_retrying, true)
        };
        if self.rounds(worker, push) == Some(true) {
            self.retry_later(commands);
        }
    }

    fn retry_later(&self, commands: &mut Commands) {
        let rooms = self.clone();
        commands.after(RETRY_EVERY, move |local| rooms.retry(local));
    }

    /// Looks at members that are behind, those who have waited longest.
    fn retry(&self, local: &mut Local<'_>) {
        let at_most = self.0.settings.members_per_turn.max(1);
        let act = |rounds: &mut Rounds| {
            let mut due = Vec::new();
            while due.len() < at_most
                && let Some((member, room)) = rounds.behind.pop_front()
            {
                if !member.is_gone() {
                    due.push((member.id, room));
                }
            }
            rounds.is_retrying = !rounds.behind.is_empty();
            (due, rounds.is_retrying)
        };
        let Some((due, goes_on)) = self.rounds(local.worker(), act) else { return };
        for (id, room) in due {
            let delivery = Delivery::new(self, &room, None, Occasion::Retry);
            local.commands().tell(id, Visit(delivery));
        }
        if goes_on {
            self.retry_later(local.commands());
        }
    }

    fn expire(&self, local: &mut Local<'_>) {
        let (now, time) = (local.now(), self.0.settings.history_time);
        let trim = |state: &mut State| self.trim(state, now);
        let goes = |room: &Room, state: &State| self.forget(room, state);
        let next = self.0.registry.expire(now, (EXPIRED_PER_TURN, time), trim, goes);
        self.wake_engine();
        if let Some(next) = next {
            let rooms = self.clone();
            local.commands().after(next.duration_since(now), move |local| rooms.expire(local));
        }
    }
}

impl Rounds {
    fn shrink(&mut self) {
        if self.rooms.capacity() > 64.max(4 * self.rooms.len()) {
            self.rooms.shrink_to(2 * self.rooms.len());
        }
    }
}

#[cfg(test)]
mod tests;
