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

impl Left {
    fn again(&self) -> Self {
        Self { room: Arc::clone(&self.room), at: self.at }
    }
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
        if self.sessions.capacity() > 64.max(4 * self.sessions.len()) {
            self.sessions.shrink_to(2 * self.sessions.len());
        }
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
        let old = book.sessions.remove(&tenure.name());
        // Its rooms at once, which the socket is about to join: it may lose the session before it has.
        let rooms = old.iter().flat_map(|old| &old.rooms).map(Left::again).collect();
        let session = Session { number: tenure.number, socket: Some(socket), rooms };
        book.sessions.insert(tenure.name(), session);
        let Some(old) = old else { return Found { tenure, rooms: Vec::new(), before: None } };
        book.waiting -= usize::from(old.socket.is_none());
        Found { tenure, rooms: old.rooms, before: old.socket }
    }

    /// The socket of a session has joined a room.
    pub fn joined(&self, tenure: &Tenure, room: &Arc<Room>) {
        if let Some(session) = lock(&self.0).of(tenure) {
            match session.rooms.iter_mut().find(|left| left.room.id == room.id) {
                Some(left) => left.at = None,
                None => session.rooms.push(Left { room: Arc::clone(room), at: None }),
            }
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

#[cfg(test)]
mod tests {
    use netpoll_core::Commands;
    use netpoll_core::sim::{Options, Sim};

    use super::*;
    use crate::websocket::{Client, Handler, Message, WebSocket};

    struct Nobody;

    impl Handler for Nobody {
        fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
    }

    /// The name of some connection.
    fn connection() -> ConnId {
        let dial = |commands: &mut Commands| Client::new("ws://192.0.2.1/")?.dial(commands, Nobody);
        Sim::new(Options::default()).block_on(async move { Commands::with(dial) }).expect("it is ws")
    }

    fn names(rooms: &[Left]) -> Vec<&str> {
        rooms.iter().map(|left| &*left.room.name).collect()
    }

    #[test]
    fn who_takes_a_session_over_that_is_just_being_taken_over_finds_all_of_its_rooms() {
        let (sessions, socket) = (Sessions::default(), connection());
        let room = |name| Arc::new(Room::new(name, 1, 1, Instant::ZERO));
        let (a, b, c) = (room("a"), room("b"), room("c"));
        let first = sessions.take("who", "device", socket);
        sessions.joined(&first.tenure, &a);
        sessions.joined(&first.tenure, &b);
        let second = sessions.take("who", "device", socket);
        assert_eq!(names(&second.rooms), ["a", "b"]);
        // It has joined one of them again, and one of its own.
        sessions.joined(&second.tenure, &a);
        sessions.joined(&second.tenure, &c);
        let third = sessions.take("who", "device", socket);
        assert_eq!(names(&third.rooms), ["a", "b", "c"]);
        sessions.left(&third.tenure, &b);
        assert_eq!(names(&sessions.take("who", "device", socket).rooms), ["a", "c"]);
    }
}
