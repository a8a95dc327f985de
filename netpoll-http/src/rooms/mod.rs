//! Rooms of WebSockets: what is published once is sent to many, on all workers, and nobody who is slow or large holds up another.
//!
//! ```
//! use netpoll_http::rooms::{Rooms, Settings};
//! use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
//! use netpoll_http::{App, Request, Router};
//!
//! struct Member(Rooms);
//!
//! impl Handler for Member {
//!     fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
//!         if self.0.join(socket, "lobby").is_err() {
//!             socket.text("there are too many rooms");
//!         }
//!     }
//!
//!     fn message(&mut self, _socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
//!         if let Message::Text(text) = message {
//!             self.0.publish("lobby", Frame::text(text));
//!         }
//!     }
//! }
//!
//! let rooms = Rooms::new(Settings::default()); // of the whole server
//! let published = rooms.clone();
//! let client = App::new(move |worker| {
//!     let rooms = rooms.on(worker);
//!     Router::new().websocket("/lobby", move |_: &Request| Member(rooms.clone()))
//! })
//! .test();
//!
//! let mut member = client.connect();
//! member.send(
//!     b"GET /lobby HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
//!       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
//! );
//! member.response().expect("a 101");
//! published.publish("lobby", Frame::text("hello")); // from any thread
//! client.run();
//! assert_eq!(member.received(), b"\x81\x05hello");
//! assert_eq!(published.members("lobby"), 1);
//! ```
//!
//! A socket leaves its rooms when it ends, by itself. A room is there as long as somebody is in it, or it remembers something. Those of several
//! processes are joined by a [`bus`].
//!
//! # What it promises
//!
//! - Of a room every member gets the same messages in the same order, each once. What it does not get it hears of, in its place ([`Gap`]).
//! - What is published in a turn leaves in one send for each socket, in one piece of memory for all. To publish takes one letter for each worker that has
//!   members, and none if one is on its way already.
//! - A worker brings messages to so many members in a turn and no more ([`Settings::members_per_turn`]); everybody else on it is served in between.
//! - A member that does not read costs what may wait in its socket ([`Settings::queued_bytes_max`]), and nobody else anything. It goes on from the history of the
//!   room, which all members share. When that does not have it any more, it is as [`Behind`] says.
//!
//! # Coming back
//!
//! A client that keeps the [`Position`] of the last message that it has had, says it when it comes back, and gets what it has missed
//! ([`Rooms::resume`]). It can count: messages of a room have consecutive numbers, from the position that [`Rooms::join`] returned on, and a [`Gap`] says where that
//! goes on; or it is told with each message ([`Rooms::publish_with`]). A program that knows its clients by name gives them a [session](Rooms::session): their rooms
//! are kept for a while when their socket breaks, and they are [present](Rooms::present) meanwhile.
//!
//! In a drain each socket is told to come back (1012) at a moment of its own, with the time after which to do so, by its connection:
//! [`websocket::Settings::retry_within`](crate::websocket::Settings::retry_within). Messages are brought until then.

pub mod bus;
mod log;
mod member;
mod position;
mod registry;
mod room;
mod rounds;
mod session;
mod settings;
mod visit;

pub use position::{Gap, ParsePositionError, Position, Resumed};
pub use settings::{Behind, Settings};

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netpoll_core::{Commands, Handle, Instant, Message};

use crate::message::chance::unique_8;
use crate::server::Worker;
use crate::websocket::{CloseCode, Frame, Visit, Visitor, WebSocket};
use log::Bounds;
use member::{Membership, Memberships, Seat, Waits};
use registry::Registry;
use room::{Room, Seats, State};
use rounds::Calls;
use session::{Ended, Found, Left, Over, Sessions, Tenure};

/// Sessions that nobody has come back to in time, ended in one turn.
const SESSIONS_PER_TURN: usize = 256;

/// Rooms of one server; a clone is the same rooms. Any thread may publish; a socket is joined to a room in a callback of its
/// [`Handler`](crate::websocket::Handler).
///
/// Make it outside of the factory, bind it inside, by [`on`](Self::on): see the [example](crate::rooms). Programs whose rooms want different [`Settings`] have several.
#[derive(Clone)]
pub struct Rooms(Arc<Shared>);

struct Shared {
    settings: Settings,
    bounds: Bounds,
    registry: Registry,
    sessions: Sessions,
    runtime: OnceLock<Runtime>,
    on_presence: Option<Box<OnPresence>>,
    /// What all logs have.
    bytes: AtomicUsize,
    totals: Totals,
    /// What joins them with those of other processes.
    bus: Option<bus::Ours>,
}

type OnPresence = dyn Fn(&Rooms, &Presence) + Send + Sync;

/// The workers that they are on.
struct Runtime {
    handle: Handle,
    workers: Box<[rounds::Worker]>,
}

#[derive(Default)]
struct Totals {
    members: AtomicUsize,
    dropped: AtomicU64,
    superseded: AtomicU64,
    gaps: AtomicU64,
    disconnected: AtomicU64,
}

/// Somebody has come to a room, or has left it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// The name of the room.
    pub room: Arc<str>,
    /// Who, as [`Rooms::session`] was told.
    pub who: Arc<str>,
    /// It has come with its first session, or has left with its last.
    pub is_here: bool,
}

/// A room that a session has come back to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Back {
    /// Its name.
    pub room: Arc<str>,
    /// What the socket gets of what it has missed.
    pub resumed: Resumed,
}

/// Why a socket is not in a room, or has no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There are [`Settings::rooms_max`].
    TooManyRooms,
    /// The socket is in [`Settings::rooms_per_socket_max`].
    TooManyRoomsOfSocket,
    /// It has more than [`Settings::name_bytes_max`].
    NameTooLong,
    /// The socket has a session.
    HasSession,
    /// One side has said goodbye.
    Closing,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyRooms => "there are as many rooms as there may be",
            Self::TooManyRoomsOfSocket => "the socket is in as many rooms as it may be",
            Self::NameTooLong => "the name is too long",
            Self::HasSession => "the socket has a session",
            Self::Closing => "the socket is closing",
        })
    }
}

impl std::error::Error for Refused {}

/// What is known of a room; see [`Rooms::facts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Behind its last message.
    pub at: Position,
    /// Sockets that are in it.
    pub members: usize,
    /// Persons that are in it.
    pub present: usize,
    /// Messages that it remembers.
    pub messages: usize,
    /// Their bytes, as [`Settings::history_bytes`] counts them.
    pub bytes: usize,
    /// Messages that members did not get, each counted for each of them. With [`Behind::Newest`] those are among them that were superseded before something
    /// behind them was lost.
    pub dropped: u64,
    /// Messages that members did not get because a newer one of their key had come.
    pub superseded: u64,
}

/// Figures of all rooms; see [`Rooms::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Rooms that are there.
    pub rooms: usize,
    /// Sockets that are in rooms, each counted for each room that it is in.
    pub members: usize,
    /// Sessions.
    pub sessions: usize,
    /// Sessions among them that have no socket now.
    pub lingering: usize,
    /// Bytes that rooms remember.
    pub bytes: usize,
    /// As [`Facts::dropped`].
    pub dropped: u64,
    /// As [`Facts::superseded`].
    pub superseded: u64,
    /// Gaps that members were told of.
    pub gaps: u64,
    /// Sockets that were closed because they were behind ([`Behind::Disconnect`]).
    pub disconnected: u64,
}

/// From where on a member gets messages.
enum Start {
    Now,
    Last(usize),
    Behind(Position),
}

impl Rooms {
    /// No rooms yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let name_bytes_max = settings.name_bytes_max.min(Settings::NAME_BYTES_LIMIT);
        let settings = Settings { name_bytes_max, ..settings };
        Self(Arc::new(Shared {
            settings,
            bounds: Bounds::of(&settings),
            registry: Registry::new(),
            sessions: Sessions::default(),
            runtime: OnceLock::new(),
            on_presence: None,
            bytes: AtomicUsize::new(0),
            totals: Totals::default(),
            bus: None,
        }))
    }

    /// Calls a function when somebody comes to a room, or leaves it: a person with a [session](Self::session), not a socket. Who comes back before its session
    /// ends has not left. A drain is no leaving: everybody comes back, elsewhere.
    ///
    /// It is called on one worker for each room, behind the callback that it comes of, so in order; if it panics, that is counted and nothing else notices.
    ///
    /// ```
    /// use netpoll_http::rooms::{Presence, Rooms, Settings};
    /// use netpoll_http::websocket::Frame;
    ///
    /// let rooms = Rooms::new(Settings::default()).on_presence(|rooms: &Rooms, presence: &Presence| {
    ///     let has = if presence.is_here { "come" } else { "left" };
    ///     rooms.publish(&presence.room, Frame::text(format!("{} has {has}", presence.who)));
    /// });
    /// ```
    ///
    /// # Panics
    /// If there are clones already.
    #[must_use]
    pub fn on_presence(mut self, call: impl Fn(&Self, &Presence) + Send + Sync + 'static) -> Self {
        let Some(shared) = Arc::get_mut(&mut self.0) else {
            panic!("what is called for presence is said before there are clones");
        };
        shared.on_presence = Some(Box::new(call));
        self
    }

    /// The same rooms, for the service of this worker. What is published before the first worker has said so goes nowhere.
    ///
    /// # Panics
    /// If they are those of another server already.
    #[must_use]
    pub fn on(&self, worker: &Worker) -> Self {
        self.bind(worker.handle());
        self.clone()
    }

    fn bind(&self, handle: &Handle) -> &Runtime {
        let runtime = self.0.runtime.get_or_init(|| Runtime {
            handle: handle.clone(),
            workers: (0..handle.workers()).map(|_| rounds::Worker::default()).collect(),
        });
        let is_same = std::ptr::eq(runtime.handle.setup(), handle.setup());
        assert!(is_same, "these rooms are another server's");
        self.begin_bus(runtime);
        runtime
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The socket gets what is published in a room from now on; the position is that in front of it. Nothing changes if it is in it already.
    ///
    /// # Errors
    /// When there are too many rooms, in all or of this socket, when the name is too long, or when the socket is closing.
    pub fn join(&self, socket: &mut WebSocket<'_, '_>, room: &str) -> Result<Position, Refused> {
        self.enter(socket, room, Start::Now).map(|(at, _)| at)
    }

    /// The same with the last so many messages that the room remembers, which follow behind what this callback sends. The position is that in front of them. One that
    /// is in it already is sent there again: so who was told to load the room anew ([`Resumed::Anew`]) gets what it remembers.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_with_last(
        &self,
        socket: &mut WebSocket<'_, '_>,
        room: &str,
        messages: usize,
    ) -> Result<Position, Refused> {
        self.enter(socket, room, Start::Last(messages)).map(|(at, _)| at)
    }

    /// The socket comes back to a room: it gets what was published behind this position, and what is from now on. What it has missed follows behind what
    /// this callback sends, in front of everything new, and a share at a time if it is more than may wait in a socket. One that is in it already is sent there again.
    ///
    /// ```
    /// use netpoll_http::rooms::{Position, Resumed, Rooms};
    /// use netpoll_http::websocket::WebSocket;
    ///
    /// fn come_back(rooms: &Rooms, socket: &mut WebSocket<'_, '_>, room: &str, at: Position) {
    ///     match rooms.resume(socket, room, at) {
    ///         Ok(Resumed::All { messages }) => socket.text(&format!("{messages} messages follow")),
    ///         Ok(_) => socket.text("load all of it again"),
    ///         Err(refused) => socket.text(&refused.to_string()),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn resume(
        &self,
        socket: &mut WebSocket<'_, '_>,
        room: &str,
        from: Position,
    ) -> Result<Resumed, Refused> {
        self.enter(socket, room, Start::Behind(from)).map(|(_, resumed)| resumed)
    }

    /// The socket gets nothing more of a room. False if it was not in it.
    pub fn leave(&self, socket: &mut WebSocket<'_, '_>, room: &str) -> bool {
        let Some(membership) = socket.guest::<Memberships>().and_then(|all| all.of(self)) else {
            return false;
        };
        let Some(index) = membership.seats.iter().position(|seat| *seat.room.name == *room) else {
            return false;
        };
        let seat = membership.seats.swap_remove(index);
        let (worker, session) = (membership.worker, membership.session.clone());
        if let Some(tenure) = &session {
            self.0.sessions.left(tenure, &seat.room);
        }
        self.stand_up(worker, &seat);
        if let Some(Tenure { who, .. }) = &session {
            self.depart(&seat.room, who);
        }
        true
    }

    /// From now on the socket is that of a session, which is not over when the socket is: it is in its rooms for [`Settings::linger`] more, and finds
    /// them when it comes back, on whatever worker. `who` is a person, whose presence is shown ([`present`](Self::present)), `device` tells several sessions
    /// of one apart. Both have to be known and not only said, or strangers would read along: a tab of a browser keeps a key that nobody else knows (`sessionStorage`), which
    /// is its device, or, of a guest whom nothing else tells, the person as well.
    ///
    /// A session comes back to all rooms that it was in. Where a socket is in the one room that its page shows, the name of that room belongs into `device`.
    ///
    /// What is returned are the rooms that it was in, and is in again, each from where the server knows it to have been: what was on its way when the
    /// socket broke does not come again. A client that counts says better where it is: [`session_from`](Self::session_from).
    ///
    /// A socket that has the session at the same time loses it, and is told goodbye (1008): the network often knows later than the client that a connection is gone. Of its rooms
    /// nothing is missed only if the client says where it was. Whoever says goodbye itself (1000), or is told so (1000, 1008), leaves its rooms at once.
    ///
    /// # Errors
    /// When the socket has a session, when a name is too long, or when the socket is closing. A room that has refused it is left out.
    pub fn session(
        &self,
        socket: &mut WebSocket<'_, '_>,
        who: &str,
        device: &str,
    ) -> Result<Vec<Back>, Refused> {
        self.session_from(socket, who, device, |_room| None)
    }

    /// The same, with what the client says of where it was in each room. A page that is loaded anew is nowhere, though the server knows its session: what it is to begin with is
    /// [`join_with_last`](Self::join_with_last), behind this.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub fn session_from(
        &self,
        socket: &mut WebSocket<'_, '_>,
        who: &str,
        device: &str,
        mut says: impl FnMut(&str) -> Option<Position>,
    ) -> Result<Vec<Back>, Refused> {
        if !socket.is_open() {
            return Err(Refused::Closing);
        }
        if who.len().max(device.len()) > self.0.settings.name_bytes_max {
            return Err(Refused::NameTooLong);
        }
        let runtime = self.bind(socket.conn().local().handle());
        let membership = Membership::of(self, socket);
        if membership.session.is_some() {
            return Err(Refused::HasSession);
        }
        let id = membership.id;
        let found = self.0.sessions.take(who, device, id);
        membership.session = Some(found.tenure.clone());
        // In these already, as nobody.
        let rooms: Vec<_> = membership.seats.iter().map(|seat| Arc::clone(&seat.room)).collect();
        for room in rooms {
            self.0.sessions.joined(&found.tenure, &room);
            let mut calls = Calls::default();
            self.arrive(runtime, &mut room.lock(), &room, &found.tenure.who, &mut calls);
            runtime.call(self, calls);
        }
        if let Some(before) = found.before {
            socket.commands().tell(before, Visit(Arc::new(Replaced(self.clone()))));
        }
        let mut back = Vec::with_capacity(found.rooms.len());
        let earlier = Earlier { rooms: self, found };
        for Left { room, at } in &earlier.found.rooms {
            let from = says(&room.name).or(*at).map_or(Start::Now, Start::Behind);
            let is_known = matches!(from, Start::Behind(_));
            if let Ok((at, resumed)) = self.enter(socket, &room.name, from) {
                let resumed = if is_known { resumed } else { Resumed::Anew(at) };
                back.push(Back { room: Arc::clone(&room.name), resumed });
            }
        }
        Ok(back)
    }

    /// Sends a message to everybody in a room, on all workers, from any thread. Its position is that behind it. `None` if there are [`Settings::rooms_max`]
    /// others, the name is too long, or no server has the rooms yet.
    ///
    /// A room that nobody is in remembers it for those who come.
    pub fn publish(&self, room: &str, frame: Frame) -> Option<Position> {
        self.append(room, None, frame, None)
    }

    /// The same, in place of what was published with the same key before: a member that is behind gets the newest of each key
    /// ([`Behind::Newest`]; otherwise a key means nothing).
    pub fn publish_keyed(&self, room: &str, key: &str, frame: Frame) -> Option<Position> {
        self.append(room, Some(key), frame, None)
    }

    /// The same with a frame that says where it is. `make` is called again if somebody else has published to the room meanwhile.
    ///
    /// ```
    /// # use netpoll_http::rooms::Rooms;
    /// use netpoll_http::websocket::Frame;
    ///
    /// fn say(rooms: &Rooms, text: &str) {
    ///     rooms.publish_with("lobby", |at| Frame::text(format!("{at} {text}")));
    /// }
    /// ```
    pub fn publish_with(&self, room: &str, mut make: impl FnMut(Position) -> Frame) -> Option<Position> {
        let runtime = self.0.runtime.get().filter(|_| room.len() <= self.0.settings.name_bytes_max)?;
        loop {
            let next = self.with_room(runtime, room, |_, state, _| next_of(state))?;
            let frame = make(next);
            if let Some(at) = self.append(room, None, frame, Some(next)) {
                return Some(at);
            }
            // Somebody else was faster, or there is no room any more, which the next look finds out.
        }
    }

    /// Sockets in a room.
    #[must_use]
    pub fn members(&self, room: &str) -> usize {
        self.0.registry.get(room).map_or(0, |room| room.lock().members())
    }

    /// Persons in a room, by name: those who have a session there, with a socket or waiting for one.
    #[must_use]
    pub fn present(&self, room: &str) -> Vec<Arc<str>> {
        let room = self.0.registry.get(room);
        room.map_or_else(Vec::new, |room| room.lock().present.keys().cloned().collect())
    }

    /// What is known of a room. `None` if there is none.
    #[must_use]
    pub fn facts(&self, room: &str) -> Option<Facts> {
        let room = self.0.registry.get(room)?;
        let state = room.lock();
        Some(Facts {
            at: state.head(),
            members: state.members(),
            present: state.present.len(),
            messages: state.log.messages(),
            bytes: state.log.bytes(),
            dropped: room.dropped.load(Ordering::Relaxed),
            superseded: room.superseded.load(Ordering::Relaxed),
        })
    }

    /// Figures of all rooms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Shared { registry, sessions, bytes, totals, .. } = &*self.0;
        let (sessions, lingering) = sessions.count();
        Stats {
            rooms: registry.rooms(),
            members: totals.members.load(Ordering::Relaxed),
            sessions,
            lingering,
            bytes: bytes.load(Ordering::Relaxed),
            dropped: totals.dropped.load(Ordering::Relaxed),
            superseded: totals.superseded.load(Ordering::Relaxed),
            gaps: totals.gaps.load(Ordering::Relaxed),
            disconnected: totals.disconnected.load(Ordering::Relaxed),
        }
    }

    /// Acts on a room, which is made if there is none.
    fn with_room<R>(
        &self,
        runtime: &Runtime,
        name: &str,
        act: impl FnOnce(&Arc<Room>, &mut State, &mut Calls) -> R,
    ) -> Option<R> {
        let make = || {
            let now = runtime.handle.now();
            let room = Room::new(name, u64::from_be_bytes(unique_8()), runtime.workers.len(), now);
            if let Some(bus) = self.0.ours() {
                bus.room_is_there(&room.name);
            }
            room
        };
        let make_place = || self.0.registry.make_place(|room, state| self.forget(room, state));
        let mut calls = Calls::default();
        let done = self.0.registry.with(name, self.0.settings.rooms_max, make, make_place, |room, state| {
            let done = act(room, state, &mut calls);
            if state.is_empty() {
                self.let_expire(room, state, &mut calls);
            }
            done
        });
        runtime.call(self, calls);
        done
    }

    /// Adds a message and tells the workers; nothing happens if it were not the one that is expected.
    fn append(
        &self,
        name: &str,
        key: Option<&str>,
        frame: Frame,
        expected: Option<Position>,
    ) -> Option<Position> {
        let name_bytes_max = self.0.settings.name_bytes_max;
        let runtime = self.0.runtime.get()?;
        if name.len().max(key.map_or(0, str::len)) > name_bytes_max {
            return None;
        }
        let now = runtime.handle.now();
        self.with_room(runtime, name, |room, state, calls| {
            if expected.is_some_and(|expected| expected != next_of(state)) {
                return None;
            }
            self.pass_on(room, state, key, &frame, now, calls);
            self.add(room, state, key, frame, now, calls);
            state.used_at = now;
            Some(state.head())
        })?
    }

    /// The next message of a room, for whoever is in it here.
    fn add(
        &self,
        room: &Arc<Room>,
        state: &mut State,
        key: Option<&str>,
        frame: Frame,
        now: Instant,
        calls: &mut Calls,
    ) {
        let Settings { behind, name_bytes_max, .. } = self.0.settings;
        let key = key.filter(|key| behind == Behind::Newest && key.len() <= name_bytes_max);
        let before = state.log.bytes();
        let sequence = state.log.append(frame, key, now);
        self.tell_workers(room, state, sequence, calls);
        self.0.note_bytes(before, state.log.bytes());
        self.trim(state, now);
    }

    /// Something new is there, from this number on.
    fn tell_workers(&self, room: &Arc<Room>, state: &mut State, sequence: u64, calls: &mut Calls) {
        let Some(runtime) = self.0.runtime.get() else { return };
        for (worker, seats) in state.workers.iter_mut().enumerate().filter(|(_, seats)| seats.members > 0) {
            seats.holds_from = seats.holds_from.min(sequence);
            if !std::mem::replace(&mut seats.is_told, true) {
                runtime.announce(room, worker, calls);
            }
        }
    }

    fn trim(&self, state: &mut State, now: Instant) {
        let before = state.log.bytes();
        state.trim(&self.0.bounds, now);
        let after = state.log.bytes();
        if self.0.note_bytes(before, after) > self.0.settings.bytes_max {
            state.trim(&self.0.bounds.least(), now);
            self.0.note_bytes(after, state.log.bytes());
        }
    }

    /// What becomes old in it is let go in time, the room itself if nobody is in it.
    fn let_expire(&self, room: &Arc<Room>, state: &mut State, calls: &mut Calls) {
        if !state.is_expiring
            && let Some(at) = state.look_at(self.0.settings.history_time)
        {
            state.is_expiring = true;
            calls.expires |= self.0.registry.expire_at(at, room, state.is_blank());
        }
    }

    /// A room goes.
    fn forget(&self, room: &Room, state: &State) {
        self.0.forget_bytes(state.log.bytes());
        if let Some(bus) = self.0.ours() {
            bus.room_is_gone(&room.name);
        }
    }

    fn enter(
        &self,
        socket: &mut WebSocket<'_, '_>,
        name: &str,
        from: Start,
    ) -> Result<(Position, Resumed), Refused> {
        if !socket.is_open() {
            return Err(Refused::Closing);
        }
        let Settings { name_bytes_max, rooms_per_socket_max, .. } = self.0.settings;
        if name.len() > name_bytes_max {
            return Err(Refused::NameTooLong);
        }
        let now = socket.conn().now();
        let runtime = self.bind(socket.conn().local().handle());
        let membership = Membership::of(self, socket);
        let (worker, id, session) = (membership.worker, membership.id, membership.session.clone());
        let is_full = membership.seats.len() >= rooms_per_socket_max;
        let is_new = match membership.seat_named(name) {
            Some(Seat { epoch, next, .. }) if matches!(from, Start::Now) => {
                let at = Position { epoch: *epoch, sequence: *next - 1 };
                return Ok((at, Resumed::All { messages: 0 }));
            }
            Some(_) => false,
            None if is_full => return Err(Refused::TooManyRoomsOfSocket),
            None => true,
        };
        let entered = self.with_room(runtime, name, |room, state, calls| {
            self.trim(state, now);
            let (next, resumed) = self.resumed(room, state, from);
            if is_new {
                state.workers[worker].members += 1;
                self.0.totals.members.fetch_add(1, Ordering::Relaxed);
                if let Some(tenure) = &session {
                    self.arrive(runtime, state, room, &tenure.who, calls);
                }
            }
            (Arc::clone(room), state.head(), next, resumed)
        });
        let (room, head, next, resumed) = entered.ok_or(Refused::TooManyRooms)?;
        let waits = if next > head.sequence { Waits::No } else { Waits::ForNextTurn };
        let at = Position { epoch: head.epoch, sequence: next - 1 };
        let place = if is_new {
            let place = self.seat(worker, id, &room, head.sequence);
            if let Some(tenure) = &session {
                self.0.sessions.joined(tenure, &room);
            }
            Membership::of(self, socket).seats.push(Seat {
                room: Arc::clone(&room),
                place: Arc::clone(&place),
                epoch: at.epoch,
                next,
                is_behind: false,
                waits,
            });
            place
        } else {
            let seat = Membership::of(self, socket).seat_mut(&room).expect("it is in it already");
            seat.next = next;
            if seat.waits != Waits::No {
                // It is visited in any case.
                return Ok((at, resumed));
            }
            seat.waits = waits;
            Arc::clone(&seat.place)
        };
        if waits == Waits::ForNextTurn {
            self.visit_again(worker, (id, &place), &room, socket.commands());
        }
        Ok((at, resumed))
    }

    /// The number of the next message of somebody who comes, and what is to be said of those before.
    fn resumed(&self, room: &Room, state: &State, from: Start) -> (u64, Resumed) {
        let is_newest = self.0.settings.behind == Behind::Newest;
        let (log, head) = (&state.log, state.head());
        let all = |next: u64| (next, Resumed::All { messages: log.count_since(next, is_newest) });
        let after = match from {
            Start::Now => return all(head.sequence + 1),
            Start::Last(messages) => {
                let messages = u64::try_from(messages).unwrap_or(u64::MAX);
                return all((head.sequence + 1).saturating_sub(messages).max(log.oldest()));
            }
            Start::Behind(at) => at,
        };
        if after.epoch != head.epoch || after.sequence > head.sequence {
            return (head.sequence + 1, Resumed::Anew(head));
        }
        let next = after.sequence + 1;
        if log.has_all_since(next, is_newest) {
            return all(next);
        }
        let until = if is_newest { log.lost() } else { log.first() - 1 };
        let until = Position { sequence: until, ..head };
        let gap = Gap { room: Arc::clone(&room.name), after, until };
        self.0.totals.gaps.fetch_add(1, Ordering::Relaxed);
        // What is the newest of its key may be older than what is lost.
        (if is_newest { next } else { log.first() }, Resumed::Gap(gap))
    }

    /// A socket is no member any more.
    fn stand_up(&self, worker: usize, seat: &Seat) {
        self.unseat(worker, &seat.room, &seat.place);
        self.leave_behind(&seat.room, |state, _| {
            let seats = &mut state.workers[worker];
            seats.members -= 1;
            self.0.totals.members.fetch_sub(1, Ordering::Relaxed);
            if seats.members == 0 {
                *seats = Seats::NONE;
            }
        });
    }

    /// Somebody comes to a room.
    fn arrive(&self, runtime: &Runtime, state: &mut State, room: &Room, who: &Arc<str>, calls: &mut Calls) {
        if state.arrive(who) {
            self.tell_presence(runtime, room, who, true, calls);
        }
    }

    /// Somebody leaves it. It may be the last one.
    fn depart(&self, room: &Arc<Room>, who: &Arc<str>) {
        self.leave_behind(room, |state, calls| {
            if let Some(runtime) = self.0.runtime.get()
                && state.depart(who)
                && !runtime.handle.is_draining()
            {
                self.tell_presence(runtime, room, who, false, calls);
            }
        });
    }

    fn leave_behind(&self, room: &Arc<Room>, act: impl FnOnce(&mut State, &mut Calls)) {
        let Some(runtime) = self.0.runtime.get() else { return };
        let (mut calls, mut state) = (Calls::default(), room.lock());
        act(&mut state, &mut calls);
        if state.is_empty() {
            state.used_at = state.used_at.max(runtime.handle.now());
            self.let_expire(room, &mut state, &mut calls);
        }
        drop(state);
        runtime.call(self, calls);
    }

    /// Under the lock of the room, so that they are told in order.
    fn tell_presence(
        &self,
        runtime: &Runtime,
        room: &Room,
        who: &Arc<str>,
        is_here: bool,
        calls: &mut Calls,
    ) {
        if self.0.on_presence.is_some() {
            let presence = Presence { room: Arc::clone(&room.name), who: Arc::clone(who), is_here };
            runtime.tell_presence(presence, room.home(runtime.workers.len()), calls);
        }
    }

    /// A socket has ended.
    fn socket_closed(&self, membership: Membership, may_linger: bool, commands: &mut Commands) {
        let Membership { worker, seats, session, .. } = membership;
        seats.iter().for_each(|seat| self.stand_up(worker, seat));
        let Some(tenure) = session else { return };
        let Settings { linger, lingering_max, .. } = self.0.settings;
        let waits = may_linger && !linger.is_zero() && commands.worker().is_some();
        let left = |seat: &Seat| Left {
            room: Arc::clone(&seat.room),
            at: Some(Position { epoch: seat.epoch, sequence: seat.next - 1 }),
        };
        let rooms = seats.iter().map(left).collect();
        let now = self.0.runtime.get().filter(|_| waits).map(|runtime| runtime.handle.now());
        let until = now.map(|now| now.saturating_add(linger));
        match self.0.sessions.socket_ended(&tenure, rooms, until, lingering_max) {
            Ended::Over => seats.iter().for_each(|seat| self.depart(&seat.room, &tenure.who)),
            Ended::Waits { evicted, is_first } => {
                self.all_depart(evicted);
                if is_first {
                    self.expire_sessions_after(linger, commands);
                }
            }
        }
    }

    fn all_depart(&self, over: Vec<Over>) {
        for (who, rooms) in over {
            rooms.iter().for_each(|left| self.depart(&left.room, &who));
        }
    }

    fn expire_sessions_after(&self, time: Duration, commands: &mut Commands) {
        let rooms = self.clone();
        commands.after(time, move |local| {
            let now = local.now();
            let (over, next) = rooms.0.sessions.expire(now, SESSIONS_PER_TURN);
            rooms.all_depart(over);
            if let Some(next) = next {
                rooms.expire_sessions_after(next.duration_since(now), local.commands());
            }
        });
    }
}

/// The position behind the next message.
fn next_of(state: &State) -> Position {
    let head = state.head();
    Position { sequence: head.sequence + 1, ..head }
}

impl Shared {
    /// A log has grown or shrunk. What all of them have now.
    fn note_bytes(&self, before: usize, after: usize) -> usize {
        let change = after.wrapping_sub(before);
        self.bytes.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }

    fn forget_bytes(&self, bytes: usize) {
        self.note_bytes(bytes, 0);
    }
}

/// What a session was before its socket took it over. If it waited it leaves its rooms behind that, also when the program panics meanwhile.
struct Earlier<'r> {
    rooms: &'r Rooms,
    found: Found,
}

impl Drop for Earlier<'_> {
    fn drop(&mut self) {
        let Found { tenure, rooms, before } = &self.found;
        if before.is_none() {
            rooms.iter().for_each(|left| self.rooms.depart(&left.room, &tenure.who));
        }
    }
}

/// Goes to a socket whose session is another one's now.
struct Replaced(Rooms);

impl Visitor for Replaced {
    fn visit(&self, socket: &mut WebSocket<'_, '_>, _tell: &mut dyn FnMut(&mut WebSocket<'_, '_>, Message)) {
        // Its rooms as well: it may take a while to go.
        let names = |membership: &Membership| -> Vec<_> {
            membership.seats.iter().map(|seat| Arc::clone(&seat.room.name)).collect()
        };
        let all = socket.guest::<Memberships>().and_then(|all| all.of(&self.0)).map(|own| names(own));
        for name in all.unwrap_or_default() {
            self.0.leave(socket, &name);
        }
        socket.close(CloseCode::POLICY, "this session goes on elsewhere");
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
