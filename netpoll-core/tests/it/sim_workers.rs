//! Several workers in one simulated world: letters between them, doorbells, and who is turned when.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{Commands, Conn, ConnId, ConnectOptions, Flow, Input, Lost, Protocol};

use crate::support::{Echo, Log, Recorder};

type Members = Rc<RefCell<Vec<ConnId>>>;

/// Whatever one says goes to all; `close` closes all others.
struct Chat(Members);

impl Protocol for Chat {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let (own, bytes) = (conn.id(), Bytes::copy_from_slice(input.bytes()));
        input.advance_all();
        for member in self.0.borrow().iter() {
            match &bytes[..] {
                b"close" if *member != own => conn.commands().close(*member),
                b"close" => {}
                _ => conn.commands().send(*member, bytes.clone()),
            }
        }
        Flow::Continue
    }
}

fn chat(options: Options) -> (Sim, ListenerId, Members) {
    let (mut sim, members) = (Sim::new(options), Members::default());
    let listener = sim.listen({
        let members = Rc::clone(&members);
        move |_peer| Chat(Rc::clone(&members))
    });
    (sim, listener, members)
}

#[test]
fn a_message_reaches_connections_of_all_workers() {
    for seed in 0..100 {
        let (mut sim, listener, _) = chat(Options::default().seed(seed).workers(3).faults(Faults::stormy()));
        let peers: Vec<PeerId> = (0..6).map(|peer| sim.connect_to(listener, peer % 3)).collect();
        sim.settle();
        sim.send(peers[0], b"!");
        sim.settle();
        for peer in &peers {
            assert_eq!(sim.take_received(*peer), b"!", "seed {seed}, worker {}", sim.worker_of(*peer));
        }
    }
}

#[test]
fn a_connection_of_another_worker_is_closed_by_a_command_and_by_the_handle() {
    let (mut sim, listener, members) = chat(Options::default().workers(2));
    let peers = [0, 1, 1].map(|worker| sim.connect_to(listener, worker));
    sim.run();
    let third = members.borrow()[2];
    sim.handle().reset(third);
    sim.run();
    assert_eq!(sim.open(), 2);
    sim.send(peers[0], b"close");
    sim.run();
    let other = peers.iter().filter(|peer| sim.is_closed(**peer)).count();
    assert_eq!(other, 2);
    assert!(!sim.is_closed(peers[0]));
}

#[test]
fn a_burst_of_letters_rings_a_sleeping_worker_once() {
    let (mut sim, listener, members) = chat(Options::default().workers(2));
    let peer = sim.connect_to(listener, 1);
    sim.run();
    let before = sim.handle().worker_stats(1);
    for _ in 0..100 {
        sim.handle().send(members.borrow()[0], Bytes::from_static(b"x"));
    }
    sim.run();
    assert_eq!(sim.take_received(peer), vec![b'x'; 100]);
    let after = sim.handle().worker_stats(1).since(&before);
    assert_eq!((after.wakeups_sent, after.wakeups_suppressed, after.mailbox_messages), (1, 99, 100));
    assert_eq!(sim.handle().worker_stats(0).wakeups_sent, 0);
}

#[test]
fn letters_of_one_turn_ring_the_other_worker_once_and_none_rings_its_own() {
    let (mut sim, listener, _) = chat(Options::default().workers(2));
    let peers = [0, 0, 0, 1, 1, 1].map(|worker| sim.connect_to(listener, worker));
    sim.run();
    sim.send(peers[0], b"!");
    sim.run();
    assert!(peers.iter().all(|peer| sim.take_received(*peer) == b"!"));
    let rings = [0, 1].map(|worker| sim.handle().worker_stats(worker).wakeups_sent);
    assert_eq!(rings, [0, 1]);
}

/// Wakes itself at each byte, and answers when that has come.
struct SelfWaking;

impl Protocol for SelfWaking {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.waker().wake();
        Flow::Pause
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"awake");
        Flow::Continue
    }
}

#[test]
fn a_wake_from_a_callback_rings_no_bell() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| SelfWaking);
    let peer = sim.connect(listener);
    for _ in 0..100 {
        sim.send(peer, b"?");
        sim.run();
        assert_eq!(sim.take_received(peer), b"awake");
    }
    let stats = sim.stats();
    assert_eq!((stats.wakeups_sent, stats.mailbox_messages), (0, 0), "no letter at all");
}

#[test]
fn a_sleeping_worker_is_not_turned_for_others() {
    let (mut sim, listener, _) = chat(Options::default().workers(2));
    let peer = sim.connect_to(listener, 0);
    sim.connect_to(listener, 1);
    sim.run();
    let before = sim.handle().worker_stats(1).turns;
    for _ in 0..50 {
        sim.finish(peer);
        sim.advance(Duration::from_millis(1));
    }
    assert_eq!(sim.handle().worker_stats(1).turns, before);
}

#[test]
fn peers_go_to_the_worker_that_the_seed_chooses() {
    let places = |seed| {
        let mut sim = Sim::new(Options::default().seed(seed).workers(4));
        let listener = sim.listen(|_peer| Echo);
        let peers: Vec<PeerId> = (0..40).map(|_| sim.connect(listener)).collect();
        sim.run();
        assert_eq!(sim.open(), 40);
        peers.iter().map(|peer| sim.worker_of(*peer)).collect::<Vec<_>>()
    };
    assert_eq!(places(1).iter().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(places(1), places(1));
    assert_ne!(places(1), places(2));
}

#[test]
fn each_worker_has_an_accept_function_of_its_own_if_that_is_wanted() {
    let log = Log::default();
    let mut sim = Sim::new(Options::default().workers(2));
    let listener = sim.listen_each(|worker| {
        let (log, index) = (log.clone(), worker.index);
        assert_eq!(worker.workers, 2);
        move |_peer| {
            log.borrow_mut().push(format!("accepted by {index}"));
            Echo
        }
    });
    sim.connect_to(listener, 1);
    sim.run();
    assert_eq!(*log.borrow(), ["accepted by 1"]);
}

#[test]
fn an_outgoing_connection_belongs_to_the_worker_that_was_asked() {
    let mut sim = Sim::new(Options::default().workers(2));
    let to = "10.0.0.1:80";
    sim.handle().connect(1, to, ConnectOptions::default(), Echo);
    sim.run();
    let dialed = sim.take_dialed();
    let (peer, addr) = (dialed[0].0, &dialed[0].1);
    assert_eq!((addr.to_string(), sim.worker_of(peer)), (to.to_owned(), 1));
    sim.send(peer, b"ping");
    sim.run();
    assert_eq!(sim.take_received(peer), b"ping");
    assert_eq!(sim.handle().worker_stats(1).connected, 1);
}

#[test]
fn a_drain_is_over_when_all_workers_are_and_turns_newcomers_away() {
    let mut sim = Sim::new(Options::default().workers(2));
    let log = Log::default();
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| Recorder::new(&log)
    });
    let peers = [0, 1].map(|worker| sim.connect_to(listener, worker));
    sim.run();
    sim.begin_drain(Duration::from_secs(5));
    sim.run();
    let early = sim.connect(listener);
    sim.advance(Duration::from_secs(1));
    assert!(peers.iter().all(|peer| sim.is_closed(*peer)) && sim.is_finished());
    assert!(!sim.is_closed(early), "its first segment was dropped without a word");
    let late = sim.connect(listener);
    assert!(sim.is_reset(late));
}

/// Dials again whenever it is lost.
struct Redials(Rc<Cell<usize>>);

impl Protocol for Redials {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        self.0.set(self.0.get() + 1);
        let somewhere = SocketAddr::from(([127, 0, 0, 1], 7));
        commands.connect(somewhere, ConnectOptions::default(), Self(Rc::clone(&self.0)));
    }
}

/// As a real worker does: behind the deadline each dial is cut at once, and dials again.
#[test]
fn a_drain_ends_though_somebody_dials_again_whenever_it_is_lost() {
    let lost = Rc::new(Cell::new(0));
    let mut sim = Sim::new(Options::default());
    let dials = Redials(Rc::clone(&lost));
    sim.commands().connect(SocketAddr::from(([127, 0, 0, 1], 7)), ConnectOptions::default(), dials);
    sim.run();
    assert_eq!((sim.open(), lost.get()), (1, 0));
    sim.begin_drain(Duration::from_secs(1));
    sim.advance(Duration::from_secs(2));
    assert!(sim.is_finished() && lost.get() > 0);
}

#[test]
fn the_same_seed_gives_the_same_run_of_several_workers() {
    let run = |seed| {
        let mut faults = Faults::stormy().failed_registrations(30);
        faults.delays = 200;
        let millis = Duration::from_millis;
        let options = Options::default().seed(seed).workers(3).faults(faults).latency(millis(0)..=millis(30));
        let (mut sim, listener, members) = chat(options.window(900));
        let peers: Vec<PeerId> = (0..12).map(|_| sim.connect(listener)).collect();
        sim.set_faults(peers[3], Faults::none());
        sim.set_latency(peers[4], millis(100)..=millis(200));
        let mut seen = Vec::new();
        for round in 0..20_usize {
            let peer = peers[round * 7 % 12];
            match round % 8 {
                7 => sim.close(peer),
                5 => sim.reset(peer),
                3 => sim.stop_reading(peer),
                _ => sim.send(peer, &vec![b'a' + round as u8; 300 * round]),
            }
            match round % 3 {
                0 => sim.advance(millis(10)),
                1 => sim.stand_still(millis(20)),
                _ => _ = sim.turn(),
            }
        }
        sim.settle();
        for peer in peers {
            seen.push((
                sim.worker_of(peer),
                sim.take_received(peer),
                sim.is_closed(peer),
                sim.is_reset(peer),
            ));
        }
        let workers = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker));
        (seen, workers, members.borrow().clone(), sim.now())
    };
    for seed in 0..20 {
        assert!(run(seed) == run(seed), "seed {seed}");
    }
    assert!(run(1) != run(2));
}
