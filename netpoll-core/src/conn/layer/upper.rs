//! The protocol above a layer: what waits for it, what it wants, and its callbacks.
//!
//! Invariants:
//! - a callback comes only between `opened` and the end that one of them has asked for;
//! - the remainder is offered again, without new bytes, whenever a pause, a turn or a lack of room is over, and its end is told
//!   behind it;
//! - a state holds output only while high water waits on the wire.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::stream::{BACKED_UP, ENDED, PAUSED};
use super::super::{Conn, Flow, Input, Lost, Message, Protocol};
use super::veil::Veil;
use crate::clockwork::Instant;
use crate::mem::{self, Guarded, Pool, Stash};

/// What each message that waits for a protocol to open takes, beside its bytes.
const EARLY_BYTES: usize = 64;

/// `opened` was called.
pub const OPEN: u16 = 1;
/// It paused.
pub const UPPER_PAUSED: u16 = 1 << 1;
/// It gave way, and its turn has not come yet.
const GAVE_WAY: u16 = 1 << 2;
/// It gave way in this callback: the connection does.
pub const GIVES_WAY: u16 = 1 << 3;
/// The remainder is to be offered without new bytes.
const OFFER_AGAIN: u16 = 1 << 4;
/// The end waits behind the remainder.
const EOF_WAITS: u16 = 1 << 5;
/// `eof` was called.
const EOF_TOLD: u16 = 1 << 6;
/// More than high water waited behind one of its callbacks: it waits for `drained`.
pub const NO_ROOM: u16 = 1 << 7;
/// Some of its output had to wait above: when all has left it is told.
pub const HAD_TO_WAIT: u16 = 1 << 8;
/// It wants a reset.
pub const WANTS_RESET: u16 = 1 << 9;
/// The layer itself paused.
pub const LAYER_PAUSED: u16 = 1 << 10;
/// A drain has begun before it was open.
pub const STOPS: u16 = 1 << 12;
/// The protocol above has finished its direction: ours ends when what waits above has left.
pub const FINISHES: u16 = 1 << 13;
/// The layer has said its last word.
const FINISHED: u16 = 1 << 11;
/// A layer above has finished, and what waits there goes out when there is room: it hears on meanwhile.
pub const HEARS_ON: u16 = 1 << 14;
/// The layer itself has something to say to what it receives behind output that has no room: it receives no more until there is.
pub const LAYER_SPEAKS: u16 = 1 << 15;

/// What others send.
enum Early {
    Bytes(Guarded<Bytes>),
    Message(Message),
    /// Our direction is to end.
    Finish,
}

/// What few connections have at a time.
#[derive(Default)]
struct Rare {
    /// What others sent before it was open.
    early: Vec<Early>,
    early_bytes: usize,
    /// Why the layer has ended the connection.
    failure: Option<io::Error>,
}

/// What a layer keeps for the protocol above.
pub struct State {
    /// Its output that is not on the wire yet, and its input that it has not consumed.
    pub stash: Stash,
    rare: Option<Box<Rare>>,
    /// What the layer has told of itself. Whoever is called behind the veil finds it in the context instead.
    pub facts: Option<Arc<dyn Any + Send + Sync>>,
    /// Its deadline, and that of the layer; the connection has the earlier one.
    pub deadline: Instant,
    pub layer_deadline: Instant,
    /// What is left of the turn's messages.
    pub budget_left: usize,
    /// How it closes, if it does.
    pub ending: Option<Flow>,
    bits: u16,
    /// It is a layer itself, and keeps something.
    pub upper_keeps: bool,
    /// The connection has failed, and what is left of its input is offered, whether the protocol has paused or not.
    pub takes_last: bool,
}

// What a layer costs a connection, beside its own.
const _: () = assert!(size_of::<State>() <= 104);

impl State {
    pub fn new() -> Self {
        Self {
            stash: Stash::default(),
            rare: None,
            facts: None,
            deadline: Instant::MAX,
            layer_deadline: Instant::MAX,
            budget_left: usize::MAX,
            ending: None,
            bits: 0,
            takes_last: false,
            upper_keeps: false,
        }
    }

    #[inline]
    pub fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    #[inline]
    pub fn mark(&mut self, bits: u16, on: bool) {
        self.bits = if on { self.bits | bits } else { self.bits & !bits };
    }

    /// True once.
    pub fn take(&mut self, bit: u16) -> bool {
        let was = self.has(bit);
        self.mark(bit, false);
        was
    }

    /// It is open, and has not asked for an end.
    pub fn is_live(&self) -> bool {
        self.has(OPEN) && !self.is_over()
    }

    /// An end was asked for.
    pub fn is_over(&self) -> bool {
        self.ending.is_some() || self.has(WANTS_RESET)
    }

    /// The marks of a connection as it sees them.
    pub fn marks(&self) -> u16 {
        let paused = if self.has(UPPER_PAUSED) { PAUSED } else { 0 };
        let ended = if self.has(EOF_TOLD) { ENDED } else { 0 };
        paused | ended
    }

    /// Whether something of it waits that is to be offered, or sent, when input flows again.
    pub fn keeps(&self) -> bool {
        self.upper_keeps || self.has(EOF_WAITS) || !self.stash.rest.is_empty() || !self.stash.queue.is_empty()
    }

    /// Everything that waits to leave, above and on the wire.
    pub fn waiting_bytes(&self, conn: &Conn<'_>) -> usize {
        conn.stream.waiting_bytes() + self.above_bytes()
    }

    /// What waits above.
    pub fn above_bytes(&self) -> usize {
        self.stash.queue.queued_bytes() + self.rare.as_ref().map_or(0, |rare| rare.early_bytes)
    }

    /// Its turn has come.
    pub fn begin_turn(&mut self) {
        self.mark(GAVE_WAY, false);
    }

    /// Its turn is over. Who has used it up gives way if there is more.
    pub fn end_turn(&mut self, is_more: bool) {
        self.mark(GIVES_WAY, self.has(GIVES_WAY) || (is_more && self.budget_left == 0));
    }

    /// Whether the remainder, or the end behind it, is to be offered, and only a turn is missing.
    pub fn owes_offer(&self) -> bool {
        self.has(OFFER_AGAIN | EOF_WAITS) && !self.lacks_room()
    }

    /// Whether it is offered nothing until there is room for its output. Who has finished needs none.
    fn lacks_room(&self) -> bool {
        self.has(NO_ROOM) && !self.hears_on()
    }

    /// Whether it is offered input whatever waits to leave.
    pub fn hears_on(&self) -> bool {
        self.has(FINISHES | HEARS_ON)
    }

    /// True if the layer has not said its last word yet.
    pub fn take_unfinished(&mut self) -> bool {
        let was = !self.has(FINISHED);
        self.mark(FINISHED, true);
        was
    }

    /// Nothing is sent or received any more.
    pub fn end(&mut self, pool: &mut Pool, flow: Flow) {
        self.stash.clear(pool);
        self.take_early();
        self.deadline = Instant::MAX;
        self.mark(FINISHED, true);
        match flow {
            Flow::Reset => self.mark(WANTS_RESET, true),
            flow => self.ending = Some(flow),
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// What others sent before it was open, and does not wait any more.
    fn take_early(&mut self) -> Vec<Early> {
        let Some(rare) = &mut self.rare else { return Vec::new() };
        rare.early_bytes = 0;
        let early = std::mem::take(&mut rare.early);
        if rare.failure.is_none() {
            self.rare = None;
        }
        early
    }

    /// Why the layer has ended the connection, if it has.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.rare.take()?.failure
    }

    /// The connection is to be reset for this reason.
    #[cold]
    pub fn fail(&mut self, conn: &mut Conn<'_>, reason: Lost) {
        conn.cx.cause = Some((conn.key, reason));
        self.mark(WANTS_RESET, true);
    }

    /// One callback, behind a veil, and what it wants.
    pub fn call(&mut self, conn: &mut Conn<'_>, callback: impl FnOnce(&mut Conn<'_>) -> Flow) {
        let requests = conn.cx.agenda.stats.requests;
        let flow = {
            let mut veil = Veil::draw(conn, self);
            callback(&mut veil.conn())
        };
        let messages = conn.cx.agenda.stats.requests.saturating_sub(requests).max(1);
        self.budget_left = self.budget_left.saturating_sub(usize::try_from(messages).unwrap_or(usize::MAX));
        match flow {
            Flow::Continue => self.mark(UPPER_PAUSED, false),
            Flow::Pause => self.mark(UPPER_PAUSED, true),
            Flow::Yield => {
                self.mark(UPPER_PAUSED, false);
                self.mark(GAVE_WAY | GIVES_WAY, true);
            }
            Flow::Close | Flow::Linger => {
                self.ending = Some(flow);
                self.deadline = Instant::MAX;
            }
            Flow::Retire => conn.stream.begin_to_retire(conn.cx, conn.key),
            Flow::Reset => self.mark(WANTS_RESET, true),
        }
        let is_backed_up = self.waiting_bytes(conn) > conn.cx.limits.write_high_bytes;
        // Behind the end of our direction nobody waits for room, and nobody says that there is some.
        let ends = conn.stream.phase.is_half_closed() || self.has(FINISHES);
        if (is_backed_up || conn.stream.has(BACKED_UP)) && !ends {
            self.mark(NO_ROOM, true);
        }
        let stops = matches!(flow, Flow::Pause | Flow::Yield) || self.lacks_room();
        let waits = !self.stash.rest.is_empty() && stops;
        self.mark(OFFER_AGAIN, self.has(OFFER_AGAIN) || waits);
    }
}

/// Callbacks that a layer leads to, whatever the protocol.
pub trait Callbacks {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow;
    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow;
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow;
    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow;
    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant>;
}

impl<P: Protocol> Callbacks for P {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::opened(self, conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        Protocol::received(self, conn, input)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        Protocol::eof(self, conn, input)
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::stopping(self, conn)
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        Protocol::outgoing(self, conn, bytes)
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        Protocol::told(self, conn, message)
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::finishing(self, conn)
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        Protocol::idle_since(self, conn)
    }
}

/// The protocol above a [`Layer`](super::Layer), as the layer sees it.
pub struct Upper<'a> {
    pub(super) protocol: &'a mut dyn Callbacks,
    pub(super) state: &'a mut State,
}

impl Upper<'_> {
    /// Opens it: its first callback comes now. What others have sent to the connection by then goes out behind that. Nothing
    /// happens if it is open.
    pub fn open(&mut self, conn: &mut Conn<'_>) {
        if self.state.has(OPEN) {
            return;
        }
        self.state.mark(OPEN, true);
        let Self { protocol, state } = self;
        state.call(conn, |conn| protocol.opened(conn));
        if state.take(STOPS) && state.is_live() {
            // What was to end in a moment was the layer's business: now it is said by who knows.
            conn.stream.go_on_after_all(&mut conn.cx.agenda, &conn.cx.limits, conn.io, conn.key);
            state.call(conn, |conn| protocol.stopping(conn));
        }
        for early in state.take_early() {
            let takes = !(matches!(early, Early::Bytes(_)) && state.has(FINISHES));
            if state.is_live() && takes {
                state.call(conn, |conn| match early {
                    Early::Bytes(bytes) => protocol.outgoing(conn, bytes.into_inner()),
                    Early::Message(message) => protocol.told(conn, message),
                    Early::Finish => protocol.finishing(conn),
                });
            }
        }
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.has(OPEN)
    }

    /// Offers it these bytes, behind what it has left before. What it does not consume is copied and kept. False when it takes
    /// no more for now, as [`takes_more`](Self::takes_more) says.
    ///
    /// # Panics
    /// If it is not open.
    pub fn received(&mut self, conn: &mut Conn<'_>, plain: &mut [u8]) -> bool {
        assert!(self.state.has(OPEN), "a layer opens the protocol above before it hands bytes on");
        if plain.is_empty() || !self.state.is_live() || self.state.has(EOF_WAITS | EOF_TOLD) {
            return self.takes_more(conn);
        }
        if !self.takes_more(conn) {
            self.keep(conn, plain);
            self.state.mark(OFFER_AGAIN, true);
        } else if self.state.stash.rest.is_empty() {
            let Self { protocol, state } = self;
            let mut input = Input::new(plain);
            state.call(conn, |conn| protocol.received(conn, &mut input));
            let consumed = input.consumed();
            self.keep(conn, &plain[consumed..]);
        } else {
            self.keep(conn, plain);
            self.offer_rest(conn);
        }
        self.takes_more(conn)
    }

    /// The same of bytes that nobody may change where they lie, which are copied once, into a block of the worker.
    ///
    /// # Panics
    /// If it is not open.
    pub fn received_copy(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> bool {
        assert!(self.state.has(OPEN), "a layer opens the protocol above before it hands bytes on");
        if plain.is_empty() || !self.state.is_live() || self.state.has(EOF_WAITS | EOF_TOLD) {
            return self.takes_more(conn);
        }
        if self.takes_more(conn) {
            self.copy(conn, plain);
            self.offer_rest(conn);
        } else {
            self.keep(conn, plain);
            self.state.mark(OFFER_AGAIN, true);
        }
        self.takes_more(conn)
    }

    /// The layer tells the protocol above of itself: who the peer is, what was agreed upon. It finds that by
    /// [`Conn::layer_facts`], from its next callback on. A layer tells before it opens it, and keeps to that.
    pub fn tell_facts(&mut self, facts: Arc<dyn Any + Send + Sync>) {
        self.state.facts = Some(facts);
    }

    /// The layer ends the connection for this reason, by the flow that it returns next. It is counted
    /// ([`Stats::layer_failures`](crate::Stats::layer_failures)), and in the end the protocol above is told
    /// [`Lost::LayerFailed`], whatever becomes of the connection by then. Only the first reason counts.
    #[cold]
    pub fn fail(&mut self, conn: &mut Conn<'_>, why: io::Error) {
        let rare = self.state.rare();
        if rare.failure.is_none() {
            rare.failure = Some(why);
            conn.cx.agenda.stats.layer_failures += 1;
        }
    }

    /// Whether nothing is under way: it is open, nothing waits to be offered to it or to leave, and its protocol says so
    /// ([`Protocol::idle_since`](crate::Protocol::idle_since)). An end at such a moment cuts nothing off, whoever has not said goodbye.
    #[must_use]
    pub fn is_idle(&mut self, conn: &mut Conn<'_>) -> bool {
        let Self { protocol, state } = self;
        if !state.is_live() || state.has(UPPER_PAUSED) || state.keeps() || state.waiting_bytes(conn) > 0 {
            return false;
        }
        let mut veil = Veil::draw(conn, state);
        protocol.idle_since(&mut veil.conn()).is_some()
    }

    /// Whether it would take more now. No while it pauses, has given way to others or has used up its turn, is backed up, or
    /// has ended. What waits behind the end of our direction ([`Conn::finish`]) backs up nobody.
    #[must_use]
    pub fn takes_more(&self, conn: &Conn<'_>) -> bool {
        let state = &*self.state;
        if state.takes_last {
            return state.is_live();
        }
        state.is_live()
            && !state.has(UPPER_PAUSED | GAVE_WAY | EOF_WAITS)
            && state.budget_left > 0
            && (conn.stream.phase.is_half_closed()
                || state.hears_on()
                || state.waiting_bytes(conn) <= conn.cx.limits.write_high_bytes)
    }

    /// Tells it that the peer has sent all it will send: now, or behind what it has left when it goes on, and behind the commands that
    /// it has given. Only the first call counts, and one before it is open does not.
    pub fn eof(&mut self, conn: &mut Conn<'_>) {
        if !self.state.is_live() || self.state.has(EOF_TOLD) {
            return;
        }
        self.state.mark(EOF_WAITS, true);
        self.tell_eof(conn);
    }

    /// Goes on with what it has left, and tells the end behind it.
    pub(super) fn go_on(&mut self, conn: &mut Conn<'_>, is_again: bool) {
        // The end is told with what is left, which is not offered once more before.
        let is_again = is_again && (self.state.upper_keeps || !self.state.has(EOF_WAITS));
        let again = self.state.take(OFFER_AGAIN) || is_again;
        if again && self.state.is_live() && (!self.state.stash.rest.is_empty() || self.state.upper_keeps) {
            self.offer_rest(conn);
        }
        if self.state.has(EOF_WAITS) && self.state.is_live() {
            self.tell_eof(conn);
        }
    }

    /// Bytes that others have sent to the connection.
    pub(super) fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) {
        if self.state.has(OPEN) && (!self.state.is_live() || self.state.has(FINISHES)) {
            // It takes no more, and so does not fall behind either.
            return mem::discard(bytes);
        }
        if !self.has_room_for(conn, bytes.len()) {
            return;
        }
        let Self { protocol, state } = self;
        if !state.has(OPEN) {
            let rare = state.rare();
            rare.early_bytes += bytes.len() + EARLY_BYTES;
            rare.early.push(Early::Bytes(Guarded::new(bytes)));
        } else if state.is_live() {
            state.call(conn, |conn| protocol.outgoing(conn, bytes));
        }
    }

    /// A value that others have sent to the connection.
    pub(super) fn told(&mut self, conn: &mut Conn<'_>, message: Message) {
        let Self { protocol, state } = &mut *self;
        if state.is_live() {
            state.call(conn, |conn| protocol.told(conn, message));
        } else if !state.has(OPEN) && self.has_room_for(conn, 0) {
            let rare = self.state.rare();
            rare.early_bytes += EARLY_BYTES;
            rare.early.push(Early::Message(message));
        }
    }

    /// Others want our direction to end.
    pub(super) fn finishing(&mut self, conn: &mut Conn<'_>) {
        let Self { protocol, state } = self;
        if state.is_live() {
            state.call(conn, |conn| protocol.finishing(conn));
        } else if !state.has(OPEN) && !matches!(state.rare().early.last(), Some(Early::Finish)) {
            state.rare().early.push(Early::Finish);
        }
    }

    /// Whether so many bytes may wait behind what waits. Whatever its size, one message may.
    fn has_room_for(&mut self, conn: &mut Conn<'_>, bytes: usize) -> bool {
        let waiting = self.state.waiting_bytes(conn);
        let has_room = waiting == 0 || waiting + bytes <= conn.cx.limits.output_bytes_max;
        if !has_room {
            conn.cx.agenda.stats.output_overflows += 1;
            self.state.fail(conn, Lost::OutputOverflow);
        }
        has_room
    }

    /// Tells the end that waits, unless something comes first: a pause, a turn, or what it has commanded in this one.
    fn tell_eof(&mut self, conn: &mut Conn<'_>) {
        if self.state.has(UPPER_PAUSED | GAVE_WAY | OFFER_AGAIN) || !conn.cx.commands.is_empty() {
            return;
        }
        self.state.mark(EOF_WAITS, false);
        self.state.mark(EOF_TOLD, true);
        self.offer(conn, |protocol, conn, input| protocol.eof(conn, input));
    }

    fn offer_rest(&mut self, conn: &mut Conn<'_>) {
        self.state.mark(OFFER_AGAIN, false);
        self.offer(conn, |protocol, conn, input| protocol.received(conn, input));
    }

    fn offer(
        &mut self,
        conn: &mut Conn<'_>,
        callback: impl FnOnce(&mut dyn Callbacks, &mut Conn<'_>, &mut Input<'_>) -> Flow,
    ) {
        let Self { protocol, state } = self;
        state.stash.belong(&conn.cx.agenda.pool);
        let mut lifted = state.stash.lift_rest();
        let mut input = Input::new(lifted.rest.bytes_mut());
        state.call(conn, |conn| callback(&mut **protocol, conn, &mut input));
        let consumed = input.consumed();
        lifted.rest.advance(&mut conn.cx.agenda.pool, consumed);
        self.keep_lifted(conn, lifted);
    }

    fn keep_lifted(&mut self, conn: &mut Conn<'_>, mut lifted: Stash) {
        std::mem::swap(&mut self.state.stash.rest, &mut lifted.rest);
        self.settle_rest(conn);
    }

    fn keep(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.copy(conn, bytes);
        self.settle_rest(conn);
    }

    fn copy(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) {
        self.state.stash.belong(&conn.cx.agenda.pool);
        self.state.stash.rest.append(&mut conn.cx.agenda.pool, bytes);
        conn.cx.agenda.stats.copied_bytes += bytes.len() as u64;
    }

    /// What is left waits for a turn of its own if it is not only more bytes that it needs, and there is a limit to it.
    fn settle_rest(&mut self, conn: &mut Conn<'_>) {
        let state = &mut *self.state;
        if state.stash.rest.is_empty() || !state.is_live() {
            return;
        }
        let waits = state.has(UPPER_PAUSED | GAVE_WAY);
        if waits || state.lacks_room() {
            state.mark(OFFER_AGAIN, true);
        }
        if !waits && state.stash.rest.len() > conn.cx.limits.input_bytes_max {
            conn.cx.agenda.stats.input_overflows += 1;
            state.fail(conn, Lost::InputOverflow);
        } else if conn.cx.agenda.is_short_of_memory() {
            conn.cx.agenda.stats.memory_overflows += 1;
            state.fail(conn, Lost::MemoryOverflow);
        }
    }
}
