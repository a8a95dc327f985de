//! A WebSocket as a protocol: frames in, callbacks out, and the ends.
//!
//! The deadline of the connection is, one at a time, that of the heartbeat, of the goodbye in a drain, or of the peer's answer to our Close.
//!
//! Invariant: the handler's last callback is `closed`, once; behind a Close, of either side, no other callback comes before it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU8;
use std::time::Duration;

use netpoll_core::{Bytes, Commands, Conn, ConnId, Flow, Held, Input, Instant, Lost, Protocol};

use super::frame::{Frame, inflated};
use super::guest::Visit;
use super::settings::Times;
use super::socket::{Phase, State, Wait, WebSocket};
use super::{CloseCode, Closed, Handler, Message, Settings, Violation};
use crate::ws::close::{Close, ClosePayload};
use crate::ws::frame::{CONTROL_BYTES_MAX, Head, Kind};
use crate::ws::{Deflate, Deflater, Event, Limits, Reader, Role};

pub(super) struct Connection<H> {
    handler: H,
    reader: Reader,
    state: State,
    /// The peer has said something.
    heard_at: Instant,
    rare: Option<Box<Rare>>,
}

/// What few connections have at a time.
enum Rare {
    /// The memory of a message that is not complete.
    Held { _held: Held },
    /// How it has ended.
    Ended(Closed),
}

/// The last ping of a chunk, whose payload lies where others are lent from.
struct Ping {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

/// What of an inflated message counts as one more in the budget of a turn. With the default budget a turn inflates 256 KiB, and the message that goes beyond them;
/// what has come in a chunk may inflate to a thousand times as much.
const INFLATED_BYTES_PER_MESSAGE: usize = 4096;

/// What an event means for the connection.
enum Step {
    Next,
    /// The peer has said goodbye.
    Ended(Closed),
    Failed(Violation),
}

impl<H: Handler> Connection<H> {
    pub(super) fn new(role: Role, handler: H, settings: &Settings, deflate: Option<Deflate>) -> Self {
        let bits = |deflate: Deflate| match role {
            Role::Server => deflate.server_window_bits.unwrap_or(Deflater::WINDOW_BITS),
            // What a client is asked to restrict itself to it would have had to offer.
            Role::Client => Deflater::WINDOW_BITS,
        };
        Self {
            handler,
            reader: Reader::new(role, deflate.is_some(), settings.limits()),
            state: State {
                times: Times::of(settings),
                phase: Phase::Open,
                is_paused: false,
                window_bits: deflate.map(bits).and_then(NonZeroU8::new),
                wait: Wait::Word,
                role,
                guest: None,
            },
            heard_at: Instant::ZERO,
            rare: None,
        }
    }

    /// Calls the handler, and sees to what has come of it.
    fn call(&mut self, conn: &mut Conn<'_>, callback: impl FnOnce(&mut H, &mut WebSocket<'_, '_>)) -> Flow {
        if self.state.phase != Phase::Open {
            return conn.unchanged_flow();
        }
        let was_paused = self.state.is_paused;
        callback(&mut self.handler, &mut WebSocket { conn, state: &mut self.state });
        self.flow_since(conn, was_paused)
    }

    /// How reading goes on.
    fn flow_since(&self, conn: &Conn<'_>, was_paused: bool) -> Flow {
        match (was_paused, self.state.is_paused) {
            (_, true) => Flow::Pause,
            (true, false) => Flow::Continue,
            (false, false) => conn.unchanged_flow(),
        }
    }

    /// One event, of an open connection or of one that waits for the peer's Close.
    fn step(
        handler: &mut H,
        state: &mut State,
        limits: &Limits,
        conn: &mut Conn<'_>,
        (ping, messages): (&mut Option<Ping>, &mut usize),
        event: Event<'_>,
    ) -> Step {
        let message = match event {
            Event::Failed(violation) => return Step::Failed(violation),
            Event::Close(close) => {
                pong(state, conn, ping.take());
                return Step::Ended(answer(state, conn, &close));
            }
            // What it sends meanwhile is for nobody.
            _ if state.phase != Phase::Open => return Step::Next,
            Event::Text(text) => Message::Text(text),
            Event::Binary(bytes) => Message::Binary(bytes),
            Event::Compressed { is_text, payload } => {
                return inflated(is_text, payload, limits, |event| {
                    *messages += match &event {
                        Event::Text(text) => text.len(),
                        Event::Binary(bytes) => bytes.len(),
                        _ => 0,
                    } / INFLATED_BYTES_PER_MESSAGE;
                    Self::step(handler, state, limits, conn, (ping, messages), event)
                });
            }
            Event::Ping(payload) => {
                // Of several the last will do.
                let mut bytes = [0; CONTROL_BYTES_MAX];
                bytes[..payload.len()].copy_from_slice(payload);
                *ping = Some(Ping { bytes, len: payload.len() as u8 });
                return Step::Next;
            }
            Event::Pong(payload) => {
                handler.pong(&mut WebSocket { conn, state }, payload);
                return Step::Next;
            }
        };
        handler.message(&mut WebSocket { conn, state }, message);
        Step::Next
    }

    /// Says what the peer has done wrong, and looks at nothing more of it.
    #[cold]
    fn fail(&mut self, conn: &mut Conn<'_>, violation: Violation) -> Flow {
        if self.state.phase == Phase::Open {
            let payload = ClosePayload::new(violation.close_code(), violation.reason());
            self.state.send(conn, Kind::CLOSE, &payload);
        }
        self.end(conn, Closed::Failed(violation))
    }

    /// Everything has been said: what is queued leaves, and then our direction ends, and the peer's is awaited: a server closes first, and a client hears it do so.
    fn end(&mut self, conn: &mut Conn<'_>, how: Closed) -> Flow {
        self.has_ended(how);
        self.handler.goodbye();
        // Nothing is read any more, and it may last until all is sent.
        self.reader.stop();
        conn.clear_deadline();
        Flow::Linger
    }

    /// It is over, in this way if not in another one before. No message of it is completed.
    fn has_ended(&mut self, how: Closed) {
        self.state.phase = Phase::Over;
        if !matches!(self.rare.as_deref(), Some(Rare::Ended(_))) {
            self.rare = Some(Box::new(Rare::Ended(how)));
        }
    }

    fn let_go(&mut self) {
        self.rare.take_if(|rare| matches!(**rare, Rare::Held { .. }));
    }

    /// Says goodbye, of which the handler does not know.
    #[cold]
    fn close(&mut self, conn: &mut Conn<'_>, code: CloseCode, reason: &str) {
        self.state.close(conn, code, reason);
        self.handler.goodbye();
    }

    /// Behind our Close, whose answer is not waited for.
    fn end_unanswered(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.state.phase {
            Phase::Closing(code) => self.end(conn, Closed::ByUs { code, is_answered: false }),
            Phase::Open | Phase::Over => Flow::Linger,
        }
    }

    /// Memory of an incomplete message counts as the worker's. False if there is no more.
    #[cold]
    fn holds(&mut self, conn: &mut Conn<'_>) -> bool {
        let bytes = self.reader.gathered_bytes();
        self.let_go();
        if bytes == 0 {
            return true;
        }
        let mut held = conn.hold_memory();
        held.grow(bytes);
        self.rare = Some(Box::new(Rare::Held { _held: held }));
        if conn.is_short_of_memory() {
            conn.count_memory_overflow();
            return false;
        }
        true
    }

    /// The heartbeat begins, or goes on.
    fn await_word(&mut self, conn: &mut Conn<'_>) {
        self.state.wait = Wait::Word;
        let after = self.state.times.ping_after();
        match after.is_zero() {
            true => conn.clear_deadline(),
            false => conn.set_deadline_at(self.heard_at.saturating_add(after)),
        }
    }

    /// The server goes, and another one will be there. A client just goes.
    fn say_come_back(&mut self, conn: &mut Conn<'_>) {
        if self.state.role == Role::Client {
            return self.close(conn, CloseCode::GOING_AWAY, "");
        }
        let retry = part_of(self.state.times.retry_within(), conn.id(), 1).as_millis();
        self.close(conn, CloseCode::RESTART, &format!("retry={retry}"));
    }
}

/// Answers a ping, unless our Close has left.
fn pong(state: &State, conn: &mut Conn<'_>, ping: Option<Ping>) {
    if let Some(Ping { bytes, len }) = ping
        && state.phase == Phase::Open
    {
        state.send(conn, Kind::PONG, &bytes[..usize::from(len)]);
    }
}

/// Answers the peer's Close, if it is not the answer to ours.
fn answer(state: &State, conn: &mut Conn<'_>, close: &Close<'_>) -> Closed {
    if let Phase::Closing(code) = state.phase {
        return Closed::ByUs { code, is_answered: true };
    }
    match close.code {
        Some(code) => state.send(conn, Kind::CLOSE, &ClosePayload::new(code, "")),
        None => state.send(conn, Kind::CLOSE, b""),
    }
    Closed::ByPeer { code: close.code, reason: close.reason.to_owned() }
}

/// A part of a time, another one for each connection. It follows from the name of the connection, so a simulation can be repeated.
fn part_of(time: Duration, id: ConnId, nth: u8) -> Duration {
    let mut hasher = DefaultHasher::new();
    (id, nth).hash(&mut hasher);
    time.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}

impl<H: Handler> Protocol for Connection<H> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.heard_at = conn.now();
        self.await_word(conn);
        self.call(conn, |handler, socket| handler.opened(socket));
        // Whoever has answered late had paused the connection until then.
        if self.state.is_paused { Flow::Pause } else { Flow::Continue }
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.heard_at = conn.now();
        if self.state.wait == Wait::Pong && self.state.phase == Phase::Open {
            self.await_word(conn);
        }
        let (budget, mut messages) = (conn.turn_budget(), 0);
        let limits = self.reader.limits();
        let (mut ping, mut step) = (None, Step::Next);
        let mut chunk = input.bytes_mut();
        let offered = chunk.len();
        // Who does not read its answers is asked no more: the rest is offered again when there is room.
        while messages < budget && !self.state.is_paused && !conn.is_backed_up() {
            let Some(event) = self.reader.next(&mut chunk) else { break };
            messages += 1;
            let share = (&mut ping, &mut messages);
            step = Self::step(&mut self.handler, &mut self.state, &limits, conn, share, event);
            if !matches!(step, Step::Next) {
                break;
            }
        }
        let left = chunk.len();
        // What comes behind an end is for nobody.
        let taken = if matches!(step, Step::Next) { offered - left } else { offered };
        input.advance(taken);
        self.reader.release();
        pong(&self.state, conn, ping);
        match step {
            Step::Next => {}
            Step::Ended(how) => return self.end(conn, how),
            Step::Failed(violation) => return self.fail(conn, violation),
        }
        if (self.rare.is_some() || self.reader.gathered_bytes() > 0) && !self.holds(conn) {
            self.close(conn, CloseCode::TRY_AGAIN, "no memory is left");
            return self.end_unanswered(conn);
        }
        match () {
            () if self.state.is_paused => Flow::Pause,
            () if left > 0 => Flow::Yield,
            () => Flow::Continue,
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        if let Phase::Closing(code) = self.state.phase {
            return self.end(conn, Closed::ByUs { code, is_answered: false });
        }
        // Not a word: it has left.
        self.state.phase = Phase::Over;
        self.reader.stop();
        self.let_go();
        Flow::Close
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.call(conn, |handler, socket| handler.drained(socket))
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        let (ping_after, pong_within) = (self.state.times.ping_after(), self.state.times.pong_within());
        let was_paused = self.state.is_paused;
        match (self.state.phase, self.state.wait) {
            (Phase::Closing(code), _) => return self.end(conn, Closed::ByUs { code, is_answered: false }),
            (Phase::Over, _) => {}
            (Phase::Open, Wait::Goodbye) => self.say_come_back(conn),
            // Nothing is read of it, so nothing is known.
            (Phase::Open, _) if self.state.is_paused || conn.is_backed_up() => {
                self.heard_at = conn.now();
                self.await_word(conn);
            }
            (Phase::Open, Wait::Word) if conn.now().duration_since(self.heard_at) >= ping_after => {
                self.state.send(conn, Kind::PING, b"");
                self.state.wait = Wait::Pong;
                conn.set_deadline(pong_within);
            }
            // The ping has not left: whether the peer takes what is in front of it is watched otherwise, see `ConnLimits::write_rate_min`.
            (Phase::Open, Wait::Pong) if conn.queued_bytes() > 0 => conn.set_deadline(pong_within),
            // Any word would have ended this wait.
            (Phase::Open, Wait::Pong) => {
                self.has_ended(Closed::Silent);
                return Flow::Reset;
            }
            (Phase::Open, Wait::Word) => self.await_word(conn),
        }
        self.flow_since(conn, was_paused)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.call(conn, |handler, socket| handler.woken(socket))
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: netpoll_core::Message) -> Flow {
        let message = match message.downcast::<Visit>() {
            Ok(Visit(visitor)) => {
                return self.call(conn, |handler, socket| {
                    visitor.visit(socket, &mut |socket, message| handler.told(socket, message));
                });
            }
            Err(message) => message,
        };
        match message.downcast::<Frame>() {
            Ok(frame) => {
                if self.state.phase == Phase::Open {
                    let bytes = match self.state.role {
                        Role::Server => frame.wire(&self.state).len(),
                        Role::Client => frame.payload().len(),
                    };
                    let queued = conn.queued_bytes();
                    // As what others send by `Commands::send` is bounded: one to an empty queue fits.
                    if queued > 0 && queued + bytes > conn.limits().output_bytes_max {
                        conn.count_output_overflow();
                        self.has_ended(Closed::Lost(Lost::OutputOverflow));
                        return Flow::Reset;
                    }
                    self.state.send_frame(conn, &frame, |conn, wire| conn.send_common(wire.clone()));
                }
                conn.unchanged_flow()
            }
            Err(message) => self.call(conn, |handler, socket| handler.told(socket, message)),
        }
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        match (self.state.phase, self.state.role) {
            (Phase::Open, Role::Server) => {
                conn.send(&Head::new(Kind::BINARY, bytes.len()));
                conn.send_common(bytes);
            }
            (Phase::Open, Role::Client) => self.state.send(conn, Kind::BINARY, &bytes),
            _ => {}
        }
        conn.unchanged_flow()
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.close(conn, CloseCode::NORMAL, "");
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        let grace = conn.drain_grace();
        match self.state.phase {
            Phase::Open => {
                self.state.wait = Wait::Goodbye;
                // Spread, so that they do not all come back at once. Half of it is for their answers.
                conn.set_deadline(part_of(grace / 2, conn.id(), 0));
            }
            // It has been told, and answers within the grace as those who are told now.
            Phase::Closing(_) => {
                let latest = conn.now().saturating_add(grace);
                conn.set_deadline_at(conn.deadline().map_or(latest, |at| at.min(latest)));
            }
            Phase::Over => {}
        }
        conn.unchanged_flow()
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.close(conn, CloseCode::GOING_AWAY, "");
        self.end_unanswered(conn)
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        let how = match self.rare.take().map(|rare| *rare) {
            Some(Rare::Ended(how)) => how,
            Some(Rare::Held { .. }) | None => Closed::Lost(reason),
        };
        if let Some(mut guest) = self.state.guest.take() {
            guest.closed(&how, commands);
        }
        self.handler.closed(how, commands);
    }
}

// What a WebSocket takes beside its handler and the connection.
const _: () = {
    struct Nobody;
    impl Handler for Nobody {
        fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
    }
    assert!(size_of::<Connection<Nobody>>() <= 120);
};
