//! What a socket has of rooms: its seats, and the session that it is the socket of.
//!
//! It lies with the connection, and ends with it: nobody has to leave a room.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use netpoll_core::{Commands, ConnId};

use super::Rooms;
use super::room::Room;
use super::session::Tenure;
use crate::websocket::{CloseCode, Closed, Guest, WebSocket};

/// Those of all [`Rooms`] that the socket is in rooms of.
pub struct Memberships(Vec<Membership>);

pub struct Membership {
    pub rooms: Rooms,
    pub worker: usize,
    pub id: ConnId,
    pub seats: Vec<Seat>,
    pub session: Option<Tenure>,
}

/// A room that the socket is in.
pub struct Seat {
    pub room: Arc<Room>,
    /// Its place among the members of its worker.
    pub place: Arc<AtomicU32>,
    pub epoch: u64,
    /// The number of the message that it gets next.
    pub next: u64,
    /// It takes less than comes.
    pub is_behind: bool,
    pub waits: Waits,
}

// A member takes one in its connection, and what `place` leads to.
const _: () = assert!(size_of::<Seat>() <= 40);

/// Whether it stands in a list of those who are to be visited. In each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    No,
    /// For what is queued to leave with its turn.
    ForNextTurn,
    /// For the peer to take something.
    ForRoom,
}

impl Memberships {
    pub fn of(&mut self, rooms: &Rooms) -> Option<&mut Membership> {
        self.0.iter_mut().find(|membership| membership.rooms.is_same(rooms))
    }
}

impl Membership {
    /// That of a socket, which is made if there is none.
    pub fn of<'s>(rooms: &Rooms, socket: &'s mut WebSocket<'_, '_>) -> &'s mut Self {
        let (worker, id) = (socket.conn().worker(), socket.id());
        if socket.guest::<Memberships>().is_none() {
            socket.set_guest(Memberships(Vec::with_capacity(1)));
        }
        let Some(Memberships(all)) = socket.guest::<Memberships>() else { unreachable!("it was put there") };
        let known = all.iter().position(|membership| membership.rooms.is_same(rooms));
        let index = known.unwrap_or_else(|| {
            let rooms = rooms.clone();
            all.push(Self { rooms, worker, id, seats: Vec::new(), session: None });
            all.len() - 1
        });
        &mut all[index]
    }

    pub fn seat_named(&mut self, name: &str) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| *seat.room.name == *name)
    }

    pub fn seat_mut(&mut self, room: &Room) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.room.id == room.id)
    }
}

impl Guest for Memberships {
    fn closed(&mut self, how: &Closed, commands: &mut Commands) {
        // Whoever has said that it has had enough is not waited for.
        let is_goodbye = match how {
            Closed::ByPeer { code, .. } => *code == Some(CloseCode::NORMAL),
            Closed::ByUs { code, .. } => matches!(*code, CloseCode::NORMAL | CloseCode::POLICY),
            Closed::Failed(_) | Closed::Silent | Closed::Lost(_) | Closed::NotOpened(_) => false,
        };
        for membership in self.0.drain(..) {
            let rooms = membership.rooms.clone();
            rooms.socket_closed(membership, !is_goodbye, commands);
        }
    }
}
