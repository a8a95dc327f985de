//! Behind a close nothing is asked of a protocol any more; and a pause lasts until somebody ends it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, Flow, Input, Instant, Layer, Layered, Lost, Message, Protocol, Upper,
};

const MS: Duration = Duration::from_millis(1);
/// More than the peer takes while it does not read.
const LARGE: usize = 900_000;

type Log = Rc<RefCell<Vec<&'static str>>>;

/// Ends as it is told to behind output that waits, and says what it is called for after that; each such callback would destroy
/// what is queued.
struct Ends {
    log: Log,
    id: Rc<RefCell<Option<ConnId>>>,
    flow: Flow,
    over: bool,
}

impl Ends {
    fn called(&self, what: &'static str) -> Flow {
        if self.over {
            self.log.borrow_mut().push(what);
            return Flow::Reset;
        }
        Flow::Continue
    }
}

impl Protocol for Ends {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        *self.id.borrow_mut() = Some(conn.id());
        self.called("opened")
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let letter = input.bytes()[0];
        input.advance(1);
        let flow = self.called("received");
        match letter {
            b'r' => return Flow::Retire,
            b'e' => {}
            _ => return flow,
        }
        self.over = true;
        conn.send(&[b'x'; LARGE]);
        conn.set_deadline(100 * MS);
        conn.waker().wake();
        let id = conn.id();
        let commands = conn.commands();
        commands.send(id, Bytes::from_static(b"own"));
        commands.tell(id, 5_u8);
        commands.wake(id);
        commands.finish(id);
        commands.close(id);
        self.flow
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.called("eof")
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("peer ended")
    }

    fn flushed(&mut self, _conn: &mut Conn<'_>) {
        self.called("flushed");
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("drained")
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("deadline")
    }

    fn woken(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("woken")
    }

    fn told(&mut self, _conn: &mut Conn<'_>, _message: Message) -> Flow {
        self.called("told")
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        self.called("idle since");
        Some(conn.now())
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("stopping")
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.called("finishing");
        conn.unchanged_flow()
    }

    fn closing(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.called("closing")
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        self.called("outgoing");
        conn.send_common(bytes);
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.log.borrow_mut().push(match reason {
            Lost::Closed => "closed",
            Lost::Stalled => "stalled",
            _ => "lost",
        });
    }
}

/// Changes nothing.
struct Same;

impl Layer for Same {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if upper.takes_more(conn) {
            upper.received(conn, input.bytes_mut());
            input.advance_all();
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

/// A connection whose peer does not read, how it is to end, and what is noted.
fn world(layered: bool, flow: Flow) -> (Sim, PeerId, Log, ConnId) {
    let (log, id) = (Log::default(), Rc::default());
    let limits =
        ConnLimits::default().drain_grace(500 * MS).write_grace(2_000 * MS).output_bytes_max(2 * LARGE);
    let mut sim = Sim::new(Options::default().limits(limits));
    let (made, name) = (Rc::clone(&log), Rc::clone(&id));
    let make = move || Ends { log: Rc::clone(&made), id: Rc::clone(&name), flow, over: false };
    let listener = match layered {
        false => sim.listen(move |_peer| make()),
        true => sim.listen(move |_peer| Layered::new(Same, make())),
    };
    let peer = sim.connect(listener);
    sim.settle();
    sim.stop_reading(peer);
    let id = id.borrow().unwrap();
    (sim, peer, log, id)
}

#[test]
fn nothing_but_its_end_comes_behind_a_close() {
    for layered in [false, true] {
        for flow in [Flow::Close, Flow::Linger] {
            for retires in [false, true] {
                for input_left in [false, true] {
                    let (mut sim, peer, log, id) = world(layered, flow);
                    if retires {
                        sim.send(peer, b"r");
                        sim.settle();
                    }
                    sim.send(peer, if input_left { b"eabc" } else { b"e" });
                    sim.settle();
                    let commands = sim.commands();
                    commands.send(id, Bytes::from(vec![b'o'; LARGE * 8]));
                    commands.tell(id, 6_u8);
                    commands.wake(id);
                    commands.finish(id);
                    commands.close(id);
                    sim.send(peer, b"more");
                    // Beyond its deadline, and beyond the grace.
                    sim.advance(600 * MS);
                    sim.begin_drain(60_000 * MS);
                    sim.advance(700 * MS);
                    let case = format!("layered {layered} {flow:?} retires {retires} left {input_left}");
                    assert_eq!(*log.borrow(), [""; 0], "{case}");
                    sim.start_reading(peer);
                    sim.settle();
                    sim.finish(peer);
                    sim.advance(30_000 * MS);
                    assert_eq!(*log.borrow(), ["closed"], "{case}");
                    assert_eq!(sim.take_received(peer), [b'x'; LARGE], "{case}");
                    assert!(!sim.is_reset(peer), "{case}");
                    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "{case}");
                }
            }
        }
    }
}

#[test]
fn who_reads_nothing_of_what_a_close_has_left_is_cut_whatever_grace_ran_before() {
    for layered in [false, true] {
        let (mut sim, peer, log, _) = world(layered, Flow::Close);
        sim.send(peer, b"r");
        sim.settle();
        sim.send(peer, b"e");
        sim.advance(1_999 * MS);
        assert_eq!(*log.borrow(), [""; 0], "layered {layered}: it has its time");
        sim.advance(2 * MS);
        assert_eq!(*log.borrow(), ["stalled"], "layered {layered}: from the close on");
    }
}

#[test]
fn others_can_still_reset_what_is_closing() {
    for layered in [false, true] {
        let (mut sim, peer, log, id) = world(layered, Flow::Linger);
        sim.send(peer, b"e");
        sim.settle();
        sim.commands().reset(id);
        sim.settle();
        assert_eq!(*log.borrow(), ["lost"], "layered {layered}");
        assert!(sim.is_reset(peer));
    }
}

/// Pauses, and leaves everything else to the defaults.
struct Pauses {
    offered: Rc<RefCell<usize>>,
    by: usize,
}

impl Protocol for Pauses {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        *self.offered.borrow_mut() += 1;
        input.advance_all();
        let id = conn.id();
        match self.by {
            0 => conn.send(&[b'x'; LARGE]),
            1 => conn.waker().wake(),
            2 => conn.commands().wake(id),
            3 => conn.commands().tell(id, ()),
            4 => conn.commands().send(id, Bytes::from_static(b"sent")),
            5 => conn.commands().finish(id),
            6 => {
                conn.commands().pause(id);
                conn.commands().resume(id);
            }
            _ => {}
        }
        Flow::Pause
    }
}

#[test]
fn no_default_ends_a_pause() {
    for layered in [false, true] {
        for by in 0..9 {
            let offered = Rc::default();
            let made = Rc::clone(&offered);
            let make = move || Pauses { offered: Rc::clone(&made), by };
            let mut sim = Sim::new(Options::default());
            let listener = match layered {
                false => sim.listen(move |_peer| make()),
                true => sim.listen(move |_peer| Layered::new(Same, make())),
            };
            let peer = sim.connect(listener);
            sim.stop_reading(peer);
            sim.send(peer, b"first");
            sim.settle();
            sim.send(peer, b"second");
            match by {
                7 => sim.finish(peer),
                8 => sim.begin_drain(60_000 * MS),
                _ => {}
            }
            sim.advance(10 * MS);
            sim.start_reading(peer);
            sim.advance(10 * MS);
            assert_eq!(*offered.borrow(), 1, "layered {layered}, by {by}");
        }
    }
}
