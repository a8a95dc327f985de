//! Peers that do not read behind our end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{Conn, ConnId, ConnLimits, Flow, Input, Protocol};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// More than a simulated peer takes that does not read.
const LARGE: usize = 1 << 20;

/// Answers with much, and ends.
struct Answers(Rc<Cell<Option<ConnId>>>, Flow);

impl Protocol for Answers {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(&vec![b'x'; LARGE]);
        self.0.set(Some(conn.id()));
        self.1
    }
}

/// A world that cuts nobody, whose peer does not read the answer, and the name of the connection.
fn world(end: Flow) -> (Sim, PeerId, ConnId) {
    let id = Rc::new(Cell::new(None));
    let named = Rc::clone(&id);
    let mut sim = Sim::new(Options::default().limits(ConnLimits::default().write_rate_min(0)));
    let listener = sim.listen(move |_peer| Answers(Rc::clone(&named), end));
    let peer = sim.connect(listener);
    sim.stop_reading(peer);
    sim.send(peer, b"ask");
    sim.settle();
    (sim, peer, id.get().unwrap())
}

#[test]
fn where_nobody_is_cut_who_does_not_read_behind_our_end_stays_until_it_does() {
    for end in [Flow::Close, Flow::Linger] {
        let (mut sim, peer, _) = world(end);
        sim.advance(DAY);
        assert_eq!(sim.open(), 1);
        sim.start_reading(peer);
        sim.settle();
        assert_eq!(sim.take_received(peer).len(), LARGE);
        sim.advance(Duration::from_secs(3));
        assert_eq!((sim.open(), sim.is_reset(peer)), (0, false));
    }
}

#[test]
fn where_nobody_is_cut_a_reset_by_name_and_the_end_of_a_drain_still_end_who_does_not_read() {
    for end in [Flow::Close, Flow::Linger] {
        let (mut sim, peer, id) = world(end);
        sim.handle().reset(id);
        sim.settle();
        assert_eq!((sim.open(), sim.is_reset(peer)), (0, true));

        let (mut sim, peer, _) = world(end);
        sim.begin_drain(Duration::from_secs(30));
        sim.advance(Duration::from_secs(29));
        assert_eq!(sim.open(), 1);
        sim.advance(Duration::from_secs(2));
        assert_eq!((sim.is_finished(), sim.is_reset(peer)), (true, true));
    }
}
