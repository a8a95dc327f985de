//! How a pair is idle, and how it ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{Address, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Instant, Protocol};

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

/// A pair that does this after a minute; both are looked at a moment later.
fn pair_after_a_minute(act: Act) -> (Sim, PeerId, PeerId) {
    let (mut sim, client, up) = pair(Options::default(), &Seen::default(), act);
    sim.advance(MINUTE + SECOND / 10);
    (sim, client, up)
}

/// Neither of them is reset.
fn assert_no_reset(sim: &Sim, client: PeerId, up: PeerId) {
    assert!(!sim.is_reset(client), "the client");
    assert!(!sim.is_reset(up), "the upstream");
}

/// Ways to close both that tell both peers of an end.
const CLOSINGS: [(&str, Act); 3] = [
    ("linger and close", |conn, up, _seen| {
        conn.commands().close(up);
        Flow::Linger
    }),
    ("close and close", |conn, up, _seen| {
        conn.commands().close(up);
        Flow::Close
    }),
    ("close by name and close by name", |conn, up, _seen| {
        let id = conn.id();
        conn.commands().close(id);
        conn.commands().close(up);
        conn.unchanged_flow()
    }),
];

#[test]
fn a_pair_whose_ends_are_both_closed_ends_without_a_reset() {
    for (name, act) in CLOSINGS {
        let (mut sim, client, up) = pair_after_a_minute(act);
        assert!(sim.is_closed(client) && sim.is_closed(up), "{name}: both see an end");
        sim.advance(5 * SECOND);
        assert_eq!(sim.open(), 0, "{name}: nobody waits for longer than a lingering close");
        assert_no_reset(&sim, client, up);

        // Peers that end as well, one after the other.
        let (mut sim, client, up) = pair_after_a_minute(act);
        sim.close(up);
        sim.advance(SECOND);
        assert_no_reset(&sim, client, up);
        sim.close(client);
        sim.settle();
        assert_eq!(sim.open(), 0, "{name}");
        assert_no_reset(&sim, client, up);
    }
}

const FINISH_BOTH: Act = |conn, up, _seen| {
    conn.commands().finish(up);
    conn.finish();
    Flow::Continue
};

#[test]
fn a_pair_whose_ends_are_both_finished_ends_with_its_peers_whichever_is_first() {
    for client_is_first in [true, false] {
        let (mut sim, client, up) = pair_after_a_minute(FINISH_BOTH);
        assert!(sim.is_closed(client) && sim.is_closed(up), "both see an end");
        let (first, second) = if client_is_first { (client, up) } else { (up, client) };
        sim.close(first);
        sim.advance(MINUTE);
        assert_eq!(sim.open(), 1);
        assert_no_reset(&sim, client, up);
        sim.close(second);
        sim.settle();
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
        assert_no_reset(&sim, client, up);
    }
}

#[test]
fn of_a_pair_that_is_finished_who_goes_on_sending_is_reset_and_the_other_is_not() {
    for client_goes_on in [true, false] {
        let (mut sim, client, up) = pair_after_a_minute(FINISH_BOTH);
        let (noisy, quiet) = if client_goes_on { (client, up) } else { (up, client) };
        sim.send(noisy, b"x");
        sim.settle();
        assert!(sim.is_reset(noisy) && !sim.is_reset(quiet));
        assert_eq!(sim.open(), 1);
        sim.close(quiet);
        sim.settle();
        assert!(!sim.is_reset(quiet));
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));

        // Also when the other was first to end.
        let (mut sim, client, up) = pair_after_a_minute(FINISH_BOTH);
        let (noisy, quiet) = if client_goes_on { (client, up) } else { (up, client) };
        sim.close(quiet);
        sim.settle();
        sim.send(noisy, b"x");
        sim.settle();
        assert!(sim.is_reset(noisy) && !sim.is_reset(quiet));
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

const FINISH_THE_TARGET: Act = |conn, up, _seen| {
    conn.commands().finish(up);
    Flow::Continue
};

#[test]
fn a_target_that_its_own_protocol_has_finished_costs_nobody_a_reset_until_there_are_bytes_for_it() {
    let (mut sim, client, up) = pair_after_a_minute(FINISH_THE_TARGET);
    assert!(sim.is_closed(up) && !sim.is_closed(client));
    sim.send(up, b"the other direction goes on");
    sim.settle();
    assert_eq!(sim.take_received(client), b"the other direction goes on");
    sim.finish(client);
    sim.close(up);
    sim.settle();
    assert_eq!(sim.open(), 0);
    assert_no_reset(&sim, client, up);

    let (mut sim, client, up) = pair_after_a_minute(FINISH_THE_TARGET);
    sim.send(client, b"x");
    sim.settle();
    assert!(sim.is_reset(client), "nobody takes it");
    assert!(!sim.is_reset(up), "it has said all before that");
    sim.close(up);
    sim.settle();
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn an_end_that_was_passed_on_does_not_keep_a_reset_from_the_other() {
    let (mut sim, client, up) =
        pair(Options::default(), &Seen::default(), |conn, _up, _seen| conn.unchanged_flow());
    sim.send(client, b"question");
    sim.finish(client);
    sim.settle();
    assert!(sim.is_closed(up));
    sim.reset(client);
    sim.settle();
    assert!(sim.is_reset(up), "nobody waits for the answer");
    assert_eq!(sim.open(), 0);
}

#[test]
fn who_does_not_read_outlives_the_source_of_its_relay_by_a_lingering_close_and_no_more() {
    for bytes in [1000, 300_000] {
        for rate in [0, 256] {
            let limits = ConnLimits::default().write_rate_min(rate);
            let look: Act = |conn, _up, _seen| conn.unchanged_flow();
            let (mut sim, client, up) = pair(Options::default().limits(limits), &Seen::default(), look);
            sim.set_window(client, 1000);
            sim.stop_reading(client);
            sim.send(up, &vec![7; bytes]);
            sim.settle();
            sim.reset(up);
            sim.advance(9 * SECOND);
            assert_eq!(sim.open(), 1, "{bytes} bytes, {rate} B/s: its peer may still read");
            sim.advance(2 * SECOND);
            assert_eq!(sim.open(), 0, "{bytes} bytes, {rate} B/s");
        }
    }
}

#[test]
fn one_that_is_cut_when_its_peer_has_all_is_looked_at_more_and_more_rarely() {
    let look: Act = |conn, _up, _seen| conn.unchanged_flow();
    let (mut sim, client, up) = pair(Options::default(), &Seen::default(), look);
    sim.stop_reading(client);
    sim.send(up, &[7; 1000]);
    sim.settle();
    let before = sim.stats().timers_fired;
    sim.reset(up);
    sim.advance(9 * SECOND);
    assert_eq!(sim.open(), 1, "its peer has not read");
    let fired = sim.stats().timers_fired - before;
    assert!((1..=25).contains(&fired), "{fired} looks in nine seconds");
}
