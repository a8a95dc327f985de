//! Sessions: who comes back finds its rooms, on whatever worker.
//!
//! Invariant: a session has one tenure at a time, and each has a number of its own; whoever holds an older number has lost it, and changes nothing. A session without a
//! socket stands in the line of those, with that number; what stands there with another one is stale. Whoever is first is looked at when its time is over, by one timer
//! for all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use netpoll_core::{ConnId, Instant};

use super::Position;
use super::room::{Room, lock};

/// Whose it is, and on which of its devices.
type Name = (Arc<str>, Arc<str>);

/// What a socket has as long as the session is its own.
#[derive(Clone)]
pub struct Tenure {
    pub who: Arc<str>,
    pub device: Arc<str>,
    pub number: u64,
}

impl Tenure {
    fn name(&self) -> Name {
        (Arc::clone(&self.who), Arc::clone(&self.device))
    }
}

/// A room that a session is in, and where it was when its socket ended.
pub struct Left {
    pub room: Arc<Room>,
    pub at: Option<Position>,
}

struct Session {
    number: u64,
    /// The socket, if there is one.
    socket: Option<ConnId>,
    rooms: Vec<Left>,
}

/// What somebody finds who comes.
pub struct Found {
    pub tenure: Tenure,
    pub rooms: Vec<Left>,
    /// The socket that had it until now.
    pub before: Option<ConnId>,
}

/// What becomes of a session whose socket has ended.
pub enum Ended {
    /// It waits.
    Waits {
        /// Those for whom there was no room any more.
        evicted: Vec<Over>,
        /// Somebody has to come and look when its time is over.
        is_first: bool,
    },
    /// It is over, or was another socket's already.
    Over,
}

/// Whose session is over, and the rooms that it was in.
pub type Over = (Arc<str>, Vec<Left>);

#[derive(Default)]
pub struct Sessions(Mutex<Book>);

#[derive(Default)]
struct Book {
    sessions: HashMap<Name, Session>,
    /// Those without a socket, who has waited longest first, and until when; and some that are stale.
    line: VecDeque<(Name, u64, Instant)>,
    /// Somebody comes and looks.
    is_watched: bool,
    waiting: usize,
    tenures: u64,
}

impl Book {
    fn of(&mut self, tenure: &Tenure) -> Option<&mut Session> {
        self.sessions.get_mut(&tenure.name()).filter(|session| session.number == tenure.number)
    }

    fn is_waiting(&self, name: &Name, number: u64) -> bool {
        self.sessions.get(name).is_some_and(|session| session.number == number && session.socket.is_none())
    }

    fn end(&mut self, name: &Name) -> Vec<Left> {
        let Some(session) = self.sessions.remove(name) else { return Vec::new() };
        self.waiting -= usize::from(session.socket.is_none());
        session.rooms
    }
}

impl Sessions {
    /// Sessions, and how many of them have no socket.
    pub fn count(&self) -> (usize, usize) {
        let book = lock(&self.0);
        (book.sessions.len(), book.waiting)
    }

    /// Takes a session over, or begins it.
    pub fn take(&self, who: &str, device: &str, socket: ConnId) -> Found {
        let mut book = lock(&self.0);
        book.tenures += 1;
        let tenure = Tenure { who: Arc::from(who), device: Arc::from(device), number: book.tenures };
        let session = Session { number: tenure.number, socket: Some(socket), rooms: Vec::new() };
        let old = book.sessions.insert(tenure.name(), session);
        let Some(old) = old else { return Found { tenure, rooms: Vec::new(), before: None } };
        book.waiting -= usize::from(old.socket.is_none());
        Found { tenure, rooms: old.rooms, before: old.socket }
    }

    /// The socket of a session has joined a room.
    pub fn joined(&self, tenure: &Tenure, room: &Arc<Room>) {
        if let Some(session) = lock(&self.0).of(tenure) {
            session.rooms.push(Left { room: Arc::clone(room), at: None });
        }
    }

    /// It has left one.
    pub fn left(&self, tenure: &Tenure, room: &Room) {
        if let Some(session) = lock(&self.0).of(tenure) {
            session.rooms.retain(|left| left.room.id != room.id);
        }
    }

    /// Its socket has ended, and was so far in its rooms. It waits until then, if it does.
    pub fn socket_ended(
        &self,
        tenure: &Tenure,
        rooms: Vec<Left>,
        until: Option<Instant>,
        at_most: usize,
    ) -> Ended {
        let mut book = lock(&self.0);
        let name = tenure.name();
        let Some(session) = book.of(tenure) else { return Ended::Over };
        let Some(until) = until.filter(|_| at_most > 0) else {
            book.end(&name);
            return Ended::Over;
        };
        session.socket = None;
        session.rooms = rooms;
        book.waiting += 1;
        book.line.push_back((name, tenure.number, until));
        let mut evicted = Vec::new();
        while let Some((name, number, _)) = book.line.front().cloned() {
            let is_waiting = book.is_waiting(&name, number);
            if is_waiting && book.waiting <= at_most {
                break;
            }
            book.line.pop_front();
            if is_waiting {
                let who = Arc::clone(&name.0);
                evicted.push((who, book.end(&name)));
            }
        }
        // Those who have come back stand between others who wait.
        if book.line.len() > 64.max(4 * book.waiting) {
            let mut line = std::mem::take(&mut book.line);
            line.retain(|(name, number, _)| book.is_waiting(name, *number));
            book.line = line;
        }
        Ended::Waits { evicted, is_first: !std::mem::replace(&mut book.is_watched, true) }
    }

    /// Those that nobody has come back to in time, so many at most, and when to come and look again.
    pub fn expire(&self, now: Instant, at_most: usize) -> (Vec<Over>, Option<Instant>) {
        let (mut book, mut over) = (lock(&self.0), Vec::new());
        while let Some((name, number, until)) = book.line.front().cloned() {
            let is_waiting = book.is_waiting(&name, number);
            if is_waiting && (until > now || over.len() == at_most) {
                break;
            }
            book.line.pop_front();
            if is_waiting {
                let who = Arc::clone(&name.0);
                over.push((who, book.end(&name)));
            }
        }
        let next = book.line.front().map(|(.., until)| *until);
        book.is_watched = next.is_some();
        (over, next)
    }
}
