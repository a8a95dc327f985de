//! How a pair is idle, and how it ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{Address, Conn, ConnId, ConnectOptions, Flow, Input, Instant, Protocol};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What a client's connection does after a minute, with its own name and that of its upstream.
type Act = fn(&mut Conn<'_>, ConnId, &Seen) -> Flow;

/// What the client's connection has seen.
type Seen = Rc<Cell<Option<(Instant, Option<Instant>)>>>;

struct Down {
    act: Act,
    seen: Seen,
    up: Option<ConnId>,
}

struct Up(ConnId);

impl Protocol for Down {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let to: Address = "10.0.0.1:1".parse().unwrap();
        let id = conn.id();
        self.up = Some(conn.commands().connect(to, ConnectOptions::default(), Up(id)));
        conn.set_deadline(MINUTE);
        Flow::Pause
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Pause
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        (self.act)(conn, self.up.expect("it is dialed in `opened`"), &self.seen)
    }
}

impl Protocol for Up {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let id = conn.id();
        conn.commands().forward(self.0, id);
        conn.commands().forward(id, self.0);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Pause
    }
}

/// A pair in such a world: the client and the far end of its upstream.
fn pair(options: Options, seen: &Seen, act: Act) -> (Sim, PeerId, PeerId) {
    let mut sim = Sim::new(options);
    let seen = Rc::clone(seen);
    let listener = sim.listen(move |_peer| Down { act, seen: Rc::clone(&seen), up: None });
    let client = sim.connect(listener);
    sim.settle();
    let (up, _) = sim.take_dialed()[0];
    (sim, client, up)
}

#[test]
fn a_pair_that_has_moved_nothing_for_a_minute_says_so_however_often_its_driver_reports_room() {
    let look: Act = |conn, _up, seen| {
        seen.set(Some((conn.now(), conn.forwarded_at())));
        conn.unchanged_flow()
    };
    for (name, faults) in
        [("reports of room", Faults::none().spurious_sent(300)), ("every fault", Faults::stormy())]
    {
        for seed in 0..40 {
            let bytes = [1, 5000, 70_000, 300_000][seed as usize % 4];
            let seen = Seen::default();
            let (mut sim, client, up) = pair(Options::default().seed(seed).faults(faults), &seen, look);
            sim.send(client, &vec![7; bytes]);
            sim.settle();
            sim.advance(SECOND);
            assert_eq!(sim.take_received(up).len(), bytes, "{name}, seed {seed}");
            sim.advance(MINUTE);
            let (now, moved) = seen.take().expect("a minute is over");
            let idle = now.duration_since(moved.expect("it is a pair"));
            assert!(idle >= MINUTE - 2 * SECOND, "{name}, seed {seed}, {bytes} bytes: idle for {idle:?}");
        }
    }
}
