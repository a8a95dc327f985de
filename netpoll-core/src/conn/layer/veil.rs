//! A connection as the protocol above a layer sees it.
//!
//! For the time of one callback the connection's queue, deadline and marks are those of the protocol above. Nothing of
//! [`Conn`] knows of it, so it costs nothing where there is no layer: a send writes into whatever queue is there, and one that
//! would go to the socket finds something in front of it, as behind a reply.
//!
//! Invariant: when a veil has fallen, whether its callback returned or panicked, the connection is as it was before, but for what
//! the callback asked of the machinery itself (wakers, timers, lists, a pause for want of room).

use std::mem;

use super::super::Conn;
use super::super::reply::Reply;
use super::super::stream::{ENDED, KEEPS, PAUSED, Phase};
use super::upper::{FINISHES, HEARS_ON, State};
use crate::clockwork::Instant;
use crate::mem::WriteQueue;

/// What is of the wire, and has to be there again afterwards.
pub struct Veil<'v, 'c> {
    conn: &'v mut Conn<'c>,
    state: &'v mut State,
    queue: WriteQueue,
    in_flight: usize,
    deadline: Instant,
    marks: u16,
    turn_budget: usize,
    phase: Phase,
    hears_on: bool,
    has_facts: bool,
}

/// Marks of a connection that the protocol above has of its own.
const OWN_MARKS: u16 = PAUSED | ENDED | KEEPS;

impl<'v, 'c> Veil<'v, 'c> {
    /// Shows the connection to the protocol above.
    pub fn draw(conn: &'v mut Conn<'c>, state: &'v mut State) -> Self {
        state.stash.belong(&conn.cx.agenda.pool);
        let stream = &mut *conn.stream;
        let queue = mem::replace(&mut stream.out, state.stash.queue.take());
        // What waits on the wire waits for the protocol above as well.
        let waiting = queue.queued_bytes() + stream.in_flight;
        let in_flight = mem::replace(&mut stream.in_flight, waiting);
        let deadline = stream.deadlines.exchange_protocol(state.deadline);
        let marks = stream.exchange(OWN_MARKS, state.marks());
        let turn_budget = mem::replace(&mut conn.cx.agenda.turn_budget, state.budget_left);
        let phase = stream.phase;
        let hears_on = stream.set_hears_on(state.has(HEARS_ON));
        if state.has(FINISHES) {
            stream.drop_output();
        }
        let has_facts = state.facts.is_some();
        conn.cx.facts.extend(state.facts.take());
        Self { conn, state, queue, in_flight, deadline, marks, turn_budget, phase, hears_on, has_facts }
    }

    /// The connection, behind the veil.
    pub fn conn(&mut self) -> Conn<'_> {
        let Conn { stream, cx, io, key, .. } = &mut *self.conn;
        Conn { stream, cx, io: &mut **io, key: *key, reply: Reply::VEILED }
    }
}

impl Drop for Veil<'_, '_> {
    fn drop(&mut self) {
        if self.has_facts {
            self.state.facts = self.conn.cx.facts.pop();
        }
        let stream = &mut *self.conn.stream;
        self.state.stash.queue = mem::replace(&mut stream.out, self.queue.take());
        stream.in_flight = self.in_flight;
        let finishes = self.phase == Phase::Open && stream.phase.is_half_closed();
        self.state.mark(FINISHES, finishes || self.state.has(FINISHES));
        let hears_on = stream.set_hears_on(self.hears_on);
        self.state.mark(HEARS_ON, hears_on);
        stream.phase = self.phase;
        self.state.deadline = stream.deadlines.exchange_protocol(self.deadline);
        let marks = stream.exchange(OWN_MARKS, self.marks);
        self.state.upper_keeps = marks & KEEPS != 0;
        self.conn.cx.agenda.turn_budget = self.turn_budget;
    }
}
