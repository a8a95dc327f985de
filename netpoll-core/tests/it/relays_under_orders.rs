//! What relays and pauses owe to others while something else is under way.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Answer, Options, Sim};
use netpoll_core::{Commands, Conn, ConnId, ConnectOptions, Flow, Input, Lost, Protocol};

const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

type Log = Rc<RefCell<Vec<String>>>;

/// Dials a backend for whoever is accepted, and forwards in both directions.
struct Half {
    log: Log,
    dials: bool,
}

impl Protocol for Half {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.dials {
            let (me, half) = (conn.id(), Self { log: Rc::clone(&self.log), dials: false });
            let backend = conn.commands().connect(SOMEWHERE, ConnectOptions::default(), half);
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Reset
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.log.borrow_mut().push(format!("{reason:?}"));
    }
}

#[test]
fn a_relay_whose_backend_is_being_dialed_when_a_drain_begins_goes_on() {
    let log = Log::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Half { log: Rc::clone(&log), dials: true }
    });
    sim.answer_connections(Answer::AcceptAfter(Duration::from_millis(50)));
    let client = sim.connect(listener);
    sim.send(client, b"request");
    sim.run();
    sim.begin_drain(Duration::from_secs(20));
    sim.advance(Duration::from_millis(100));
    assert!(!sim.is_reset(client), "{:?}", log.borrow());
    let backend = sim.take_dialed()[0].0;
    assert_eq!(sim.take_received(backend), b"request");
}

/// Says much, whatever it hears.
struct Talkative(Log, Rc<RefCell<Option<ConnId>>>);

impl Protocol for Talkative {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        *self.1.borrow_mut() = Some(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(&vec![b'l'; 1 << 20]);
        Flow::Continue
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("peer ended".to_owned());
        conn.unchanged_flow()
    }
}

#[test]
fn who_is_paused_by_others_while_it_is_backed_up_hears_that_its_peer_has_ended() {
    let (log, id) = (Log::default(), Rc::new(RefCell::new(None)));
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let (log, id) = (Rc::clone(&log), Rc::clone(&id));
        move |_peer| Talkative(Rc::clone(&log), Rc::clone(&id))
    });
    let peer = sim.connect(listener);
    sim.run();
    sim.stop_reading(peer);
    sim.send(peer, b"1");
    sim.run();
    sim.send(peer, b"2");
    sim.finish(peer);
    sim.run();
    assert_eq!(*log.borrow(), [""; 0], "held by its own output, which is no pause");
    let id = id.borrow().unwrap();
    sim.commands().pause(id);
    sim.run();
    assert_eq!(*log.borrow(), ["peer ended"]);
}
