//! A layer and the protocol above it, as one protocol: callbacks find the one or the other, output goes through the layer, and
//! what both want becomes one flow.
//!
//! What the protocol above queues is put on the wire when its callback has returned, until more than high water waits there;
//! the rest stays above and follows each time that the wire has come down to low water. So a layer holds no more than a
//! connection without one, and a file is read piece by piece.

use std::fmt;

use bytes::Bytes;

use super::super::commands::Command;
use super::super::connect::Order;
use super::super::stream::{KEEPS, PAUSED};
use super::super::{Commands, Conn, Flow, Input, Lost, Message, Protocol};
use super::Layer;
use super::upper::{
    FINISHES, GIVES_WAY, HAD_TO_WAIT, LAYER_PAUSED, LAYER_SPEAKS, NO_ROOM, OPEN, STOPS, State, UPPER_PAUSED,
    Upper, WANTS_RESET,
};
use super::veil::Veil;
use crate::clockwork::Instant;
use crate::driver::read_part;
use crate::mem::{BLOCK_BYTES_MAX, Stash};

/// A protocol behind a [`Layer`]: what it sends and what is sent to its connection goes through the layer, and it receives what the
/// layer hands on. The protocol itself is the same as without.
///
/// It sees a connection as usual. Bytes count as queued ([`Conn::queued_bytes`], [`Conn::is_backed_up`]) while they wait above the
/// layer, as they are, or on the wire, as the layer has made them, for [`Commands::queued_bytes`] too;
/// [`Conn::send_now`] queues; [`Conn::send_file`] is read, in pieces of 64 KiB, as there is room on the wire. Its [`Flow::Close`] and
/// [`Flow::Linger`] let its output leave, then the layer says its last word ([`Layer::finish`]), and then the connection ends like
/// that. Behind [`Conn::finish`] it hears on, however much has still to leave. `opened` comes when the layer says so; if that never happens, it is only told that the connection is lost.
///
/// Commands that it gives are carried out when the layer's own callback has returned: behind all that the layer hands on of one read, as
/// if it had come in one piece, and before the end.
///
/// Layers can lie on layers. One costs its connection 104 bytes beside its own.
pub struct Layered<L, P> {
    layer: L,
    protocol: P,
    state: State,
}

impl<L: Layer, P: Protocol> Layered<L, P> {
    /// This protocol behind this layer.
    pub fn new(layer: L, protocol: P) -> Self {
        Self { layer, protocol, state: State::new() }
    }

    /// The layer.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// The protocol above it.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The layer, and the way to the protocol above.
    fn split(&mut self) -> (&mut L, Upper<'_>) {
        (&mut self.layer, Upper { protocol: &mut self.protocol, state: &mut self.state })
    }

    /// A callback of the connection. `body` says what the layer wants, if it was asked.
    fn within(
        &mut self,
        conn: &mut Conn<'_>,
        body: impl FnOnce(&mut Self, &mut Conn<'_>) -> Option<Flow>,
    ) -> Flow {
        if !conn.stream.is_layered() && !self.take_over(conn) {
            return Flow::Reset;
        }
        let paused = self.enter(conn);
        let above = self.state.above_bytes();
        let said = body(self, conn);
        let flow = self.settle(conn, said);
        self.count_above(conn, above);
        self.leave(conn, paused);
        flow
    }

    /// Adds to what waits above all layers of the connection what waits here, where it was so much before.
    fn count_above(&self, conn: &mut Conn<'_>, before: usize) {
        let now = self.state.above_bytes();
        if now == before {
            return;
        }
        let above = conn.cx.above.entry(conn.key).or_default();
        *above = above.wrapping_add(now).wrapping_sub(before);
        if *above == 0 {
            conn.cx.above.remove(&conn.key);
        }
    }

    /// From here on the connection has a layer. False if it is an end of a forward, where bytes would go past the layer: then it
    /// is reset.
    #[cold]
    fn take_over(&mut self, conn: &mut Conn<'_>) -> bool {
        conn.stream.set_layered();
        if !conn.stream.is_linked() {
            return true;
        }
        self.state.mark(WANTS_RESET, true);
        // Whatever becomes of the flow in the protocol around.
        let id = conn.id();
        conn.cx.commands.push(Command::Order { id, order: Order::Reset });
        false
    }

    /// The connection has the layer's deadline, and its pause, while a callback lasts. Returns the mark of the pause.
    fn enter(&mut self, conn: &mut Conn<'_>) -> u16 {
        self.state.mark(GIVES_WAY, false);
        self.state.budget_left = conn.cx.agenda.turn_budget;
        let stream = &mut *conn.stream;
        stream.deadlines.exchange_protocol(self.state.layer_deadline);
        let paused = if self.state.has(LAYER_PAUSED) { PAUSED } else { 0 };
        stream.exchange(PAUSED, paused)
    }

    /// It has the earlier of two deadlines, and the pause of both, again.
    fn leave(&mut self, conn: &mut Conn<'_>, paused: u16) {
        let (state, agenda) = (&mut self.state, &mut conn.cx.agenda);
        let stream = &mut *conn.stream;
        state.layer_deadline = stream.deadlines.exchange_protocol(Instant::MAX);
        let first = state.layer_deadline.min(state.deadline);
        let now = agenda.clock.now();
        stream.deadlines.set_protocol(&mut agenda.timers, now, conn.key, first);
        stream.exchange(PAUSED, paused);
        stream.mark(KEEPS, state.keeps());
    }

    /// Puts output on the wire, and makes one flow of what everybody wants.
    fn settle(&mut self, conn: &mut Conn<'_>, said: Option<Flow>) -> Flow {
        match said {
            None => {}
            Some(flow @ (Flow::Close | Flow::Linger | Flow::Reset)) => return self.give_up(conn, flow),
            Some(Flow::Retire) => conn.stream.begin_to_retire(conn.cx, conn.key),
            Some(flow) => {
                self.state.mark(LAYER_PAUSED, flow == Flow::Pause);
                self.state.mark(GIVES_WAY, self.state.has(GIVES_WAY) || flow == Flow::Yield);
            }
        }
        if !self.state.has(WANTS_RESET)
            && let Some(flow) = self.put_on_wire(conn)
        {
            return self.give_up(conn, flow);
        }
        if self.state.has(WANTS_RESET) {
            return Flow::Reset;
        }
        let is_empty = self.state.stash.queue.is_empty();
        if let Some(flow) = self.state.ending.filter(|_| is_empty) {
            if !self.state.take_unfinished() {
                return flow;
            }
            if self.state.has(OPEN) {
                self.layer.finish(conn);
            }
            // What had to wait has not arrived, in all likelihood: nothing that the peer still sends may destroy it.
            let had_to_wait = self.state.has(HAD_TO_WAIT);
            return self.give_up(conn, if had_to_wait { Flow::Linger } else { flow });
        }
        if is_empty && self.state.take(FINISHES) {
            if self.state.take_unfinished() && self.state.has(OPEN) {
                self.layer.finish(conn);
            }
            conn.finish();
            self.go_on_without_room();
        }
        self.hear_on(conn);
        self.wait_for_room(conn, is_empty);
        if self.state.ending.is_some() {
            // The rest has to leave first, and is watched from here on: the grace of a drain is called off.
            conn.stream.go_on_after_all(&mut conn.cx.agenda, &conn.cx.limits, conn.io, conn.key);
            return Flow::Pause;
        }
        if self.state.has(UPPER_PAUSED | LAYER_PAUSED) {
            return Flow::Pause;
        }
        if self.state.has(GIVES_WAY) || self.state.owes_offer() { Flow::Yield } else { Flow::Continue }
    }

    /// The connection is over as far as the layer is concerned.
    #[cold]
    fn give_up(&mut self, conn: &mut Conn<'_>, flow: Flow) -> Flow {
        self.state.end(&mut conn.cx.agenda.pool, flow);
        conn.clear_deadline();
        flow
    }

    /// Whether input is received although output waits to leave: of who has finished it brings no more of that, unless
    /// the layer itself has to say something to it.
    fn hear_on(&mut self, conn: &mut Conn<'_>) {
        let hears_on = self.state.hears_on() && !self.state.has(LAYER_SPEAKS);
        if conn.stream.set_hears_on(hears_on) == hears_on {
            return;
        }
        if self.state.has(FINISHES) {
            self.go_on_without_room();
        }
        // When its turn comes the driver is told.
        conn.stream.push_ready(&mut conn.cx.agenda, conn.key);
    }

    /// What was held back because it would have brought more output is offered now.
    fn go_on_without_room(&mut self) {
        if self.state.take(NO_ROOM) {
            self.state.mark(GIVES_WAY, true);
        }
    }

    /// Output that has to wait above comes when the wire has come down to low water, and so does `drained`.
    fn wait_for_room(&mut self, conn: &mut Conn<'_>, is_empty: bool) {
        // Of one whose output has ended nobody waits for room.
        let waits = (!is_empty || self.state.has(NO_ROOM)) && !conn.stream.phase.is_half_closed();
        // Above high water the flush behind the callback sees to it.
        if waits && conn.stream.waiting_bytes() <= conn.cx.limits.write_high_bytes {
            conn.stream.hold_for_room(&mut conn.cx.agenda, conn.io, conn.key);
        }
        if !is_empty {
            self.state.mark(HAD_TO_WAIT, true);
        } else if self.state.take(HAD_TO_WAIT) {
            conn.stream.output_left(&mut conn.cx.agenda, conn.key);
        }
    }

    /// Sends what waits above, as far as there is room. A flow, if that ends the connection.
    fn put_on_wire(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        let Self { layer, state, .. } = self;
        if state.stash.queue.is_empty() {
            return None;
        }
        let high = conn.cx.limits.write_high_bytes;
        while conn.stream.waiting_bytes() <= high && !state.stash.queue.is_empty() {
            let flow = match state.stash.queue.front_file() {
                Some(_) => send_file(layer, state, conn),
                None => send_piece(layer, state, conn),
            };
            if flow != Flow::Continue {
                return Some(flow);
            }
            if state.has(WANTS_RESET) {
                return None;
            }
        }
        layer.flush(conn);
        None
    }
}

/// Sends what is in memory at the front, or the beginning of it.
fn send_piece<L: Layer>(layer: &mut L, state: &mut State, conn: &mut Conn<'_>) -> Flow {
    let front = state.stash.queue.front();
    let bytes = front.len().min(L::PIECE_BYTES_MAX.max(1));
    let flow = layer.send(conn, &front[..bytes]);
    state.stash.queue.consume(&mut conn.cx.agenda.pool, bytes);
    flow
}

/// Reads the beginning of the file at the front, and sends it.
fn send_file<L: Layer>(layer: &mut L, state: &mut State, conn: &mut Conn<'_>) -> Flow {
    let Some(part) = state.stash.queue.front_file() else { return Flow::Continue };
    let mut block = Stash::zeroed(&mut conn.cx.agenda.pool, part.length.min(BLOCK_BYTES_MAX));
    let read = match read_part(part, block.rest.bytes_mut()) {
        Ok(read) => read,
        Err(error) => {
            block.clear(&mut conn.cx.agenda.pool);
            state.fail(conn, Lost::FileFailed(error));
            return Flow::Continue;
        }
    };
    let mut flow = Flow::Continue;
    for piece in block.rest.bytes()[..read].chunks(L::PIECE_BYTES_MAX.max(1)) {
        flow = layer.send(conn, piece);
        if flow != Flow::Continue {
            break;
        }
    }
    let pool = &mut conn.cx.agenda.pool;
    block.clear(pool);
    state.stash.queue.consume(pool, read);
    flow
}

impl<L: Layer, P: Protocol> Protocol for Layered<L, P> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            let (layer, mut upper) = this.split();
            Some(layer.opened(conn, &mut upper))
        })
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.within(conn, |this, conn| {
            this.state.begin_turn();
            let is_again = input.is_empty();
            let (layer, mut upper) = this.split();
            upper.go_on(conn, is_again);
            let asks_layer = !input.is_empty() && (!upper.is_open() || upper.takes_more(conn));
            let (heard_on, waiting) = (upper.state.hears_on(), conn.stream.waiting_bytes());
            let said = asks_layer.then(|| layer.received(conn, input, &mut upper));
            let spoke = conn.stream.waiting_bytes() > waiting.max(conn.cx.limits.write_high_bytes);
            if heard_on && spoke {
                this.state.mark(LAYER_SPEAKS, true);
            }
            this.state.end_turn(!input.is_empty());
            said
        })
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.within(conn, |this, conn| {
            if this.state.ending.is_some() {
                return None;
            }
            let (layer, mut upper) = this.split();
            upper.go_on(conn, false);
            Some(layer.eof(conn, input, &mut upper))
        })
    }

    fn takes_last_input(&mut self) -> bool {
        self.state.takes_last = self.state.is_live() && self.protocol.takes_last_input();
        self.state.takes_last
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            if this.state.is_live() {
                this.state.call(conn, |conn| match this.protocol.peer_ended(conn) {
                    // The pause that goes on may be that of others.
                    Flow::Pause => conn.unchanged_flow(),
                    flow => flow,
                });
            }
            None
        })
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        let flow = self.within(conn, |this, conn| {
            if this.state.is_live() && this.state.stash.queue.is_empty() {
                this.state.call(conn, |conn| {
                    this.protocol.flushed(conn);
                    conn.unchanged_flow()
                });
            }
            None
        });
        if matches!(flow, Flow::Close | Flow::Linger | Flow::Reset) {
            // Nobody listens to it here: `drained` says it again.
            conn.stream.hold_for_room(&mut conn.cx.agenda, conn.io, conn.key);
        }
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            this.state.mark(LAYER_SPEAKS, false);
            let said = this.put_on_wire(conn);
            let has_room = this.state.stash.queue.is_empty()
                && conn.stream.waiting_bytes() <= conn.cx.limits.write_low_bytes;
            let tells = said.is_none() && has_room && this.state.take(NO_ROOM) && this.state.is_live();
            // Who has finished is offered what is left, and that is all.
            if tells && !this.state.has(FINISHES) {
                this.state.call(conn, |conn| this.protocol.drained(conn));
            }
            said
        })
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        let now = conn.now();
        let is_layers = self.state.layer_deadline <= now;
        let is_uppers = self.state.deadline <= now;
        self.within(conn, |this, conn| {
            let mut said = None;
            if is_layers {
                conn.clear_deadline();
                let (layer, mut upper) = this.split();
                said = Some(layer.deadline(conn, &mut upper));
            }
            let goes_on = !matches!(said, Some(Flow::Close | Flow::Linger | Flow::Reset));
            if is_uppers && goes_on && this.state.is_live() {
                this.state.deadline = Instant::MAX;
                this.state.call(conn, |conn| this.protocol.deadline(conn));
            }
            said
        })
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            let (layer, mut upper) = this.split();
            let said = layer.woken(conn, &mut upper);
            let goes_on = !matches!(said, Flow::Close | Flow::Linger | Flow::Reset);
            if goes_on && this.state.is_live() {
                this.state.call(conn, |conn| this.protocol.woken(conn));
            }
            Some(said)
        })
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        if self.state.is_over() || self.state.keeps() || self.state.above_bytes() > 0 {
            return None;
        }
        let paused = self.enter(conn);
        let since = if self.state.has(OPEN) {
            let mut veil = Veil::draw(conn, &mut self.state);
            self.protocol.idle_since(&mut veil.conn())
        } else {
            self.layer.idle_since(conn)
        };
        self.leave(conn, paused);
        since
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            if !this.state.has(OPEN) {
                this.state.mark(STOPS, true);
                return Some(this.layer.stopping(conn));
            }
            if this.state.is_live() {
                this.state.call(conn, |conn| this.protocol.stopping(conn));
            }
            None
        })
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            if this.state.is_live() {
                this.state.call(conn, |conn| this.protocol.closing(conn));
            } else if this.state.ending.is_none() {
                this.state.ending = Some(Flow::Linger);
            }
            None
        })
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        self.within(conn, |this, conn| {
            let (_, mut upper) = this.split();
            upper.outgoing(conn, bytes);
            None
        })
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        self.within(conn, |this, conn| {
            let (_, mut upper) = this.split();
            upper.told(conn, message);
            None
        })
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.within(conn, |this, conn| {
            let (_, mut upper) = this.split();
            upper.finishing(conn);
            None
        })
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        let reason = self.state.take_failure().map_or(reason, Lost::LayerFailed);
        self.protocol.lost(reason, commands);
    }
}

impl<L: fmt::Debug, P: fmt::Debug> fmt::Debug for Layered<L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("layer", &self.layer)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
