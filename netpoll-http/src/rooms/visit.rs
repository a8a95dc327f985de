//! A member is brought what it has not had, as far as its socket has room.
//!
//! A member knows the number of its next message and nothing else, so whatever it is brought is in order, comes once, and without a jump that it is not
//! told of. What waits for a member that is behind is the room's log, which all of them share: it takes no memory of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use netpoll_core::Message;

use super::log::{Numbered, Read};
use super::member::{Memberships, Seat, Waits};
use super::room::Room;
use super::{Behind, Gap, Position, Rooms, Settings};
use crate::websocket::{CloseCode, Visitor, WebSocket};

/// Gaps that a member is told of in one visit. A program may answer one with a message that makes another.
const GAPS_PER_VISIT: usize = 64;

/// What is new in a room, as one worker has taken it.
pub struct Burst {
    pub messages: Vec<Numbered>,
    /// The newest message when it was taken.
    pub head: u64,
    /// What is missing up to here was lost by another process.
    pub hole: u64,
}

impl Burst {
    /// The messages from this number on, if it has that one or comes right in front of it.
    fn since(&self, next: u64) -> Option<&[Numbered]> {
        let first = self.messages.first()?.sequence;
        if !(first..=self.head + 1).contains(&next) {
            return None;
        }
        let skipped = self.messages.partition_point(|message| message.sequence < next);
        Some(&self.messages[skipped..])
    }
}

/// Why a member is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The room has something new.
    Round,
    /// It had no room a turn ago, or has just come back.
    Again,
    /// It is behind, and may have taken something.
    Retry,
}

/// The same for all members of a room on a worker.
pub struct Delivery {
    rooms: Rooms,
    room: Arc<Room>,
    burst: Option<Arc<Burst>>,
    occasion: Occasion,
}

/// How far one member is.
struct Place {
    epoch: u64,
    next: u64,
    is_behind: bool,
    has_sent: bool,
}

/// Why no more is sent now.
enum Stop {
    /// It has had all.
    UpToDate,
    /// Its socket has no room.
    NoRoom,
    /// It has to hear of this first.
    Missing(Gap),
    /// It is not to go on.
    Closed,
}

impl Delivery {
    pub fn new(rooms: &Rooms, room: &Arc<Room>, burst: Option<Arc<Burst>>, occasion: Occasion) -> Arc<Self> {
        Arc::new(Self { rooms: rooms.clone(), room: Arc::clone(room), burst, occasion })
    }

    /// Sends what there is, from where the member is.
    fn send(&self, socket: &mut WebSocket<'_, '_>, place: &mut Place) -> Stop {
        // Who is behind gets what is left of it, which the room knows.
        let burst = self.burst.as_ref().filter(|_| !place.is_behind);
        if let Some((burst, messages)) = burst.and_then(|burst| Some((burst, burst.since(place.next)?))) {
            for message in messages {
                if let Some(stop) = self.send_one(socket, place, message, burst.hole) {
                    return stop;
                }
            }
            return match () {
                () if place.next > burst.hole => Stop::UpToDate,
                () if !self.may_go_on(socket, 0, true) => Stop::NoRoom,
                () => self.missing(socket, place, burst.head, burst.hole),
            };
        }
        if place.is_behind && self.has_hardly_taken(socket, place.next) {
            return Stop::NoRoom;
        }
        loop {
            let read = self.read(place.next, socket.queued_bytes());
            for message in &read.messages {
                if let Some(stop) = self.send_one(socket, place, message, read.lost) {
                    return stop;
                }
            }
            if !read.is_complete {
                continue;
            }
            // What came last may be gone already.
            let is_missing = place.next <= read.head;
            return match () {
                () if !is_missing => Stop::UpToDate,
                () if !self.may_go_on(socket, 0, is_missing) => Stop::NoRoom,
                () => self.missing(socket, place, read.head, read.lost),
            };
        }
    }

    /// There is room for so much, or it is not to go on in any case.
    fn may_go_on(&self, socket: &WebSocket<'_, '_>, bytes: usize, is_missing: bool) -> bool {
        let Settings { queued_bytes_max, behind, .. } = self.rooms.0.settings;
        let queued = socket.queued_bytes();
        queued == 0 || queued + bytes <= queued_bytes_max || is_missing && behind == Behind::Disconnect
    }

    /// Nothing is looked for that would not leave, but what it may not miss.
    fn has_hardly_taken(&self, socket: &WebSocket<'_, '_>, next: u64) -> bool {
        let Settings { queued_bytes_max, behind, .. } = self.rooms.0.settings;
        socket.queued_bytes() > queued_bytes_max / 2
            && (behind != Behind::Disconnect || self.room.lock().log.has_all_since(next, false))
    }

    /// What there is from here on, about as much as there is room for.
    fn read(&self, next: u64, queued: usize) -> Read {
        let Settings { queued_bytes_max, behind, .. } = self.rooms.0.settings;
        let state = self.room.lock();
        state.log.read(next, behind == Behind::Newest, queued_bytes_max.saturating_sub(queued))
    }

    fn send_one(
        &self,
        socket: &mut WebSocket<'_, '_>,
        place: &mut Place,
        message: &Numbered,
        lost: u64,
    ) -> Option<Stop> {
        let is_missing = message.sequence > place.next;
        if !self.may_go_on(socket, message.frame.wire_bytes(), is_missing) {
            return Some(Stop::NoRoom);
        }
        if is_missing {
            return Some(self.missing(socket, place, message.sequence - 1, lost));
        }
        socket.send_common(&message.frame);
        place.next = message.sequence + 1;
        place.has_sent = true;
        None
    }

    /// The member does not get what is next, up to `until`; of that what is numbered `lost` or less is gone.
    #[cold]
    fn missing(&self, socket: &mut WebSocket<'_, '_>, place: &mut Place, until: u64, lost: u64) -> Stop {
        let totals = &self.rooms.0.totals;
        let is_lost = lost >= place.next;
        if is_lost && self.rooms.0.settings.behind == Behind::Disconnect {
            totals.disconnected.fetch_add(1, Ordering::Relaxed);
            socket.close(CloseCode::TRY_AGAIN, "too far behind");
            return Stop::Closed;
        }
        let messages = until + 1 - place.next;
        let gone = if is_lost { lost.min(until) + 1 - place.next } else { 0 };
        for (figure, count) in [
            (&self.room.dropped, gone),
            (&totals.dropped, gone),
            (&self.room.superseded, messages - gone),
            (&totals.superseded, messages - gone),
            (&totals.gaps, 1),
        ] {
            figure.fetch_add(count, Ordering::Relaxed);
        }
        let epoch = place.epoch;
        let gap = Gap {
            room: Arc::clone(&self.room.name),
            after: Position { epoch, sequence: place.next - 1 },
            until: Position { epoch, sequence: until },
        };
        place.next = until + 1;
        Stop::Missing(gap)
    }

    /// There may be more, for which the others do not wait.
    fn go_on_later(&self, socket: &mut WebSocket<'_, '_>) -> Option<()> {
        let id = socket.id();
        let membership = socket.guest::<Memberships>()?.of(&self.rooms)?;
        let worker = membership.worker;
        let seat = membership.seat_mut(&self.room)?;
        if seat.waits == Waits::No {
            seat.waits = Waits::ForNextTurn;
            let member = Arc::clone(&seat.place);
            self.rooms.visit_again(worker, (id, &member), &self.room, socket.commands());
        }
        Some(())
    }

    /// Sends what there is; a gap that the handler is to hear of, and then it is to be called once more.
    fn step(&self, socket: &mut WebSocket<'_, '_>, occasion: Occasion) -> Option<Gap> {
        socket.with_guest(|socket, memberships: &mut Memberships| {
            let membership = memberships.of(&self.rooms)?;
            let worker = membership.worker;
            self.step_of(socket, worker, membership.seat_mut(&self.room)?, occasion)
        })?
    }

    fn step_of(
        &self,
        socket: &mut WebSocket<'_, '_>,
        worker: usize,
        seat: &mut Seat,
        occasion: Occasion,
    ) -> Option<Gap> {
        match occasion {
            Occasion::Again if seat.waits == Waits::ForNextTurn => seat.waits = Waits::No,
            Occasion::Retry if seat.waits == Waits::ForRoom => seat.waits = Waits::No,
            _ => {}
        }
        let was_behind = seat.is_behind;
        let mut place = Place { epoch: seat.epoch, next: seat.next, is_behind: was_behind, has_sent: false };
        let stop = self.send(socket, &mut place);
        seat.next = place.next;
        match stop {
            Stop::Missing(gap) => return Some(gap),
            Stop::Closed => {}
            Stop::UpToDate => seat.is_behind = false,
            Stop::NoRoom => {
                // What was queued a turn ago was not taken.
                let has_waited = occasion == Occasion::Again && !place.has_sent;
                seat.is_behind = was_behind || has_waited;
                let waits = if seat.is_behind { Waits::ForRoom } else { Waits::ForNextTurn };
                if seat.waits == Waits::No {
                    seat.waits = waits;
                    let (member, commands) = ((socket.id(), &seat.place), socket.commands());
                    match waits {
                        Waits::ForRoom => self.rooms.visit_later(worker, member, &self.room, commands),
                        _ => self.rooms.visit_again(worker, member, &self.room, commands),
                    }
                }
            }
        }
        None
    }
}

impl Visitor for Delivery {
    fn visit(&self, socket: &mut WebSocket<'_, '_>, tell: &mut dyn FnMut(&mut WebSocket<'_, '_>, Message)) {
        let mut occasion = self.occasion;
        for _ in 0..GAPS_PER_VISIT {
            let Some(gap) = self.step(socket, occasion) else { return };
            tell(socket, Message::new(gap));
            if !socket.is_open() {
                return;
            }
            // It has waited for no turn since.
            if occasion == Occasion::Again {
                occasion = Occasion::Round;
            }
        }
        self.go_on_later(socket);
    }
}
