//! What becomes of input that a protocol leaves, and the order of a flow and of commands: the tables of the manual.

use std::cell::Cell;
use std::rc::Rc;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{Commands, Conn, ConnId, Flow, Input, Lost, Message, Protocol};

use crate::support::Log;

/// Takes one byte of what it is offered. What `received` and `eof` return is the test's, and `told` returns what it is told.
struct Probe {
    log: Log,
    id: Rc<Cell<Option<ConnId>>>,
    flow: Flow,
    answer_bytes: usize,
}

impl Probe {
    fn offered(&self, callback: &str, input: &mut Input<'_>) -> Flow {
        self.log.borrow_mut().push(format!("{callback} {}", String::from_utf8_lossy(input.bytes())));
        input.advance(1.min(input.len()));
        self.flow
    }
}

impl Protocol for Probe {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.id.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(&vec![b'x'; self.answer_bytes]);
        self.offered("received", input)
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.offered("eof", input)
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.log.borrow_mut().push("peer_ended".to_owned());
        conn.unchanged_flow()
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.log.borrow_mut().push("drained".to_owned());
        Flow::Continue
    }

    fn told(&mut self, _conn: &mut Conn<'_>, message: Message) -> Flow {
        self.log.borrow_mut().push("told".to_owned());
        message.downcast::<Flow>().unwrap()
    }
}

struct World {
    sim: Sim,
    peer: PeerId,
    log: Log,
    id: ConnId,
}

impl World {
    /// With a protocol that returns this flow.
    fn of(flow: Flow) -> Self {
        Self::answering(flow, 0)
    }

    fn answering(flow: Flow, answer_bytes: usize) -> Self {
        let (log, id) = (Log::default(), Rc::<Cell<Option<ConnId>>>::default());
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen({
            let (log, id) = (log.clone(), Rc::clone(&id));
            move |_peer| Probe { log: log.clone(), id: Rc::clone(&id), flow, answer_bytes }
        });
        let peer = sim.connect(listener);
        sim.settle();
        Self { sim, peer, log, id: id.get().expect("it is open") }
    }

    /// What it has heard since the last time.
    fn hears(&mut self) -> Vec<String> {
        self.sim.settle();
        std::mem::take(&mut *self.log.borrow_mut())
    }

    fn send(&mut self, bytes: &[u8]) -> Vec<String> {
        self.sim.send(self.peer, bytes);
        self.hears()
    }

    fn finish(&mut self) -> Vec<String> {
        self.sim.finish(self.peer);
        self.hears()
    }

    fn tell(&mut self, flow: Flow) -> Vec<String> {
        self.sim.commands().tell(self.id, flow);
        self.hears()
    }
}

#[test]
fn behind_continue_the_rest_is_offered_with_the_next_bytes_or_the_end_or_behind_a_yield() {
    let mut world = World::of(Flow::Continue);
    assert_eq!(world.send(b"abcd"), ["received abcd"]);
    assert_eq!(world.tell(Flow::Continue), ["told"]);
    assert_eq!(world.send(b"e"), ["received bcde"]);
    assert_eq!(world.tell(Flow::Yield), ["told", "received cde"], "without new bytes");
    assert_eq!(world.finish(), ["eof de"]);
}

#[test]
fn behind_yield_the_rest_is_offered_in_the_next_turn_and_nothing_is_offered_if_nothing_is_left() {
    let mut world = World::of(Flow::Yield);
    assert_eq!(world.send(b"abc"), ["received abc", "received bc", "received c"]);
    assert_eq!(world.tell(Flow::Continue), ["told"]);
    assert_eq!(world.send(b"d"), ["received d"], "and reading goes on");
    world.sim.send(world.peer, b"ef");
    assert_eq!(world.finish(), ["received ef", "received f", "eof "], "the end is behind all of it");
}

#[test]
fn behind_pause_the_rest_is_offered_when_another_callback_ends_the_pause() {
    for ends in [Flow::Continue, Flow::Yield] {
        let mut world = World::of(Flow::Pause);
        assert_eq!(world.send(b"abc"), ["received abc"]);
        assert_eq!(world.send(b"d"), [""; 0], "it is not read");
        assert_eq!(world.tell(Flow::Pause), ["told"]);
        assert_eq!(world.tell(ends), ["told", "received bc"], "what was left, and no new bytes");
        assert_eq!(world.finish(), ["peer_ended"], "told once");
        assert_eq!(world.tell(ends), ["told", "received c"]);
        assert_eq!(world.tell(ends), ["told", "received d"]);
        assert_eq!(world.tell(ends), ["told", "eof "]);
    }
}

#[test]
fn what_eof_leaves_is_offered_behind_a_yield_or_the_end_of_a_pause() {
    let mut world = World::of(Flow::Continue);
    world.send(b"abc");
    assert_eq!(world.finish(), ["eof bc"]);
    assert_eq!(world.tell(Flow::Continue), ["told"]);
    assert_eq!(world.tell(Flow::Yield), ["told", "received c"]);

    let mut world = World::of(Flow::Pause);
    world.send(b"abc");
    world.finish();
    world.tell(Flow::Continue);
    assert_eq!(world.tell(Flow::Continue), ["told", "received c"]);
    assert_eq!(world.tell(Flow::Continue), ["told", "eof "]);
}

#[test]
fn behind_more_than_high_water_the_rest_is_offered_when_there_is_room() {
    let mut world = World::answering(Flow::Continue, 300 << 10);
    world.sim.stop_reading(world.peer);
    assert_eq!(world.send(b"ab"), ["received ab"]);
    assert_eq!(world.send(b"c"), [""; 0], "it is not read");
    world.sim.start_reading(world.peer);
    assert_eq!(world.hears()[..2], ["drained", "received b"]);
}

/// Orders something for its own connection and for another one in `received`, and returns this flow.
struct Ordering {
    flow: Flow,
    other: Rc<Cell<Option<ConnId>>>,
}

impl Protocol for Ordering {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.other.get().is_none() {
            self.other.set(Some(conn.id()));
        }
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (id, other) = (conn.id(), self.other.get().expect("it was first"));
        conn.commands().send(id, b"ordered".as_slice().into());
        conn.commands().send(other, b"received, ".as_slice().into());
        conn.send(b"sent, ");
        self.flow
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        commands.send(self.other.get().expect("it was first"), b"lost".as_slice().into());
    }
}

#[test]
fn the_flow_of_a_callback_comes_before_its_commands_and_those_of_lost_behind_them() {
    let cases = [
        (Flow::Continue, "sent, ordered", "received, "),
        (Flow::Pause, "sent, ordered", "received, "),
        (Flow::Yield, "sent, ordered", "received, "),
        // What closes takes no more, and what is reset is gone.
        (Flow::Close, "sent, ", "received, lost"),
        (Flow::Linger, "sent, ", "received, "),
        (Flow::Reset, "", "received, lost"),
    ];
    for (flow, own, others) in cases {
        let other = Rc::<Cell<Option<ConnId>>>::default();
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen(move |_peer| Ordering { flow, other: Rc::clone(&other) });
        let first = sim.connect(listener);
        sim.settle();
        let second = sim.connect(listener);
        sim.send(second, b"x");
        sim.run();
        assert_eq!(String::from_utf8_lossy(&sim.take_received(second)), own, "{flow:?}");
        assert_eq!(String::from_utf8_lossy(&sim.take_received(first)), others, "{flow:?}");
    }
}
