//! Sessions: who comes back finds its rooms, on whatever worker.
//!
//! Invariant: a session has one tenure at a time, and each has a number of its own; whoever holds an older number has lost it, and changes nothing. A session without a
//! socket stands in the line of those, with that number; what stands there with another one is stale.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use netpoll_core::ConnId;

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
    /// It waits. Those for whom there was no room any more have ended.
    Waits(Vec<(Arc<str>, Vec<Left>)>),
    /// It is over, or was another socket's already.
    Over,
}

#[derive(Default)]
pub struct Sessions(Mutex<Book>);

#[derive(Default)]
struct Book {
    sessions: HashMap<Name, Session>,
    /// Those without a socket, who has waited longest first, and some that are stale.
    line: VecDeque<(Name, u64)>,
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

    /// Its socket has ended, and was so far in its rooms.
    pub fn socket_ended(&self, tenure: &Tenure, rooms: Vec<Left>, waits: bool, at_most: usize) -> Ended {
        let mut book = lock(&self.0);
        let name = tenure.name();
        let Some(session) = book.of(tenure) else { return Ended::Over };
        if !waits || at_most == 0 {
            book.end(&name);
            return Ended::Over;
        }
        session.socket = None;
        session.rooms = rooms;
        book.waiting += 1;
        book.line.push_back((name, tenure.number));
        let mut evicted = Vec::new();
        while let Some((name, number)) = book.line.front().cloned() {
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
            line.retain(|(name, number)| book.is_waiting(name, *number));
            book.line = line;
        }
        Ended::Waits(evicted)
    }

    /// Nobody has come back in time. The rooms that it was in.
    pub fn expire(&self, tenure: &Tenure) -> Vec<Left> {
        let mut book = lock(&self.0);
        let name = tenure.name();
        if !book.is_waiting(&name, tenure.number) {
            return Vec::new();
        }
        book.end(&name)
    }
}
