//! The connection machinery on the simulated network: every callback and every way to end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Answer, Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Instant, Lost, Protocol,
};

use crate::support::{Echo, Log, Recorder};

fn world(options: Options) -> (Sim, ListenerId, Log) {
    let log = Log::default();
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| Recorder::new(&log)
    });
    (sim, listener, log)
}

fn connected() -> (Sim, PeerId, Log) {
    let (mut sim, listener, log) = world(Options::default());
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer, log)
}

fn log_of(log: &Log) -> Vec<String> {
    log.borrow().clone()
}

#[test]
fn lines_are_answered_in_order_and_in_one_flush_each() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"a\nb\nc\n");
    sim.run();
    assert_eq!(sim.take_received(peer), b"<a><b><c>");
    assert_eq!(log_of(&log), ["opened", "a", "b", "c"]);
}

#[test]
fn what_is_not_consumed_comes_back_in_front_of_new_bytes() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"hel");
    sim.run();
    sim.send(peer, b"lo\n");
    sim.run();
    assert_eq!(log_of(&log), ["opened", "partial 3", "hello"]);
    assert_eq!(sim.blocks_in_use(), 0, "an idle connection owns no buffer");
}

/// Answers each byte with more than fits between low and high water, and counts how often it hears of room.
struct Crowded {
    id: Rc<Cell<Option<ConnId>>>,
    drained: Rc<Cell<usize>>,
}

impl Protocol for Crowded {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.id.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance(1);
        conn.send(&[b'a'; 300 << 10]);
        Flow::Yield
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.drained.set(self.drained.get() + 1);
        Flow::Continue
    }
}

#[test]
fn who_is_sent_more_before_it_hears_of_room_hears_of_it_all_the_same() {
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let drained = Rc::<Cell<usize>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let (id, drained) = (Rc::clone(&id), Rc::clone(&drained));
        move |_peer| Crowded { id: Rc::clone(&id), drained: Rc::clone(&drained) }
    });
    let peer = sim.connect(listener);
    sim.run();
    for round in 1..=3 {
        // All of it leaves at once; before the next turn, in which there would be room, somebody else sends.
        sim.send(peer, b"x");
        while sim.take_received(peer).is_empty() {
            sim.turn();
        }
        sim.handle().send(id.get().expect("opened"), Bytes::from(vec![b'b'; 100 << 10]));
        sim.run();
        assert_eq!(sim.take_received(peer).len(), 100 << 10);
        assert_eq!(drained.get(), round, "told once each time, and read again");
    }
}

#[test]
fn the_end_comes_after_all_bytes_and_the_last_answer_still_leaves() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"a\nrest");
    sim.finish(peer);
    sim.run();
    assert_eq!(sim.take_received(peer), b"<a>bye");
    assert_eq!(log_of(&log), ["opened", "a", "partial 4", "eof 4", "lost Closed"]);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn what_was_left_for_later_is_offered_before_the_end_that_came_meanwhile() {
    /// Takes a byte at a time, and gives way while the peer does not read.
    struct Polite(Log);
    impl Protocol for Polite {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            while !input.is_empty() {
                if conn.is_backed_up() {
                    return Flow::Yield;
                }
                input.advance(1);
                conn.send(&[b'x'; 1000]);
            }
            Flow::Continue
        }
        fn eof(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            self.0.borrow_mut().push(format!("eof {}", input.len()));
            Flow::Close
        }
    }
    for seed in 0..20 {
        let mut options = Options::default().seed(seed);
        (options.limits.write_high_bytes, options.limits.write_low_bytes) = (3000, 1000);
        if seed > 0 {
            options.faults = Faults::stormy();
        }
        let (mut sim, log) = (Sim::new(options), Log::default());
        let listener = sim.listen({
            let log = log.clone();
            move |_peer| Polite(log.clone())
        });
        let peer = sim.connect(listener);
        sim.send(peer, &[b'?'; 20]);
        sim.finish(peer);
        sim.settle();
        assert_eq!(log_of(&log), ["eof 0"], "seed {seed}");
        assert_eq!(sim.take_received(peer).len(), 20_000, "seed {seed}");
    }
}

#[test]
fn a_paused_connection_is_not_read_until_a_callback_continues() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"soon\npause\nafter\n");
    sim.run();
    assert_eq!(log_of(&log), ["opened", "soon", "pause"]);
    sim.advance(Duration::from_millis(60));
    assert_eq!(log_of(&log)[3..], ["deadline", "after"]);
    assert_eq!(sim.take_received(peer), b"<soon><pause>late<after>");
}

#[test]
fn bytes_that_had_left_the_socket_before_a_pause_wait_for_its_end() {
    let mut options = Options::default();
    options.faults.late_receives = 1000;
    let (mut sim, listener, log) = world(options);
    let peer = sim.connect(listener);
    sim.send(peer, b"soon\npause\n");
    sim.run();
    let received_bytes = sim.stats().received_bytes;
    sim.send(peer, b"after\n");
    sim.run();
    assert_eq!(sim.stats().received_bytes, received_bytes + 6, "they came");
    assert_eq!(log_of(&log), ["opened", "soon", "pause"]);
    sim.advance(Duration::from_millis(60));
    assert_eq!(log_of(&log)[3..], ["deadline", "after"]);
    assert_eq!(sim.take_received(peer), b"<soon><pause>late<after>");
}

#[test]
fn more_connections_than_a_batch_are_answered_in_the_turn_of_their_events() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Echo);
    let peers: Vec<PeerId> = (0..40).map(|_| sim.connect(listener)).collect();
    sim.run();
    for peer in &peers {
        sim.send(*peer, b"ping");
    }
    sim.turn();
    assert!(peers.iter().all(|peer| sim.take_received(*peer) == b"ping"));
}

#[test]
fn a_slow_reader_is_held_back_and_goes_on_when_there_is_room() {
    let (mut sim, peer, log) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"large\nnext\n");
    sim.run();
    assert_eq!(log_of(&log), ["opened", "large"], "what follows waits");
    assert_eq!(sim.stats().backed_up, 1);

    sim.start_reading(peer);
    sim.run();
    assert_eq!(log_of(&log)[2..], ["drained", "next"]);
    assert_eq!(sim.take_received(peer).len(), "<large><next>".len() + (1 << 20));
}

#[test]
fn a_peer_that_does_not_read_at_all_is_cut() {
    let (mut sim, peer, log) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"large\n");
    sim.advance(Duration::from_secs(25));
    assert_eq!(log_of(&log).last().unwrap(), "lost Stalled");
    assert!(sim.is_reset(peer));
    assert_eq!((sim.stats().stalled, sim.blocks_in_use()), (1, 0));
}

#[test]
fn a_lingering_close_discards_what_still_comes() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"linger\nmore and more\n");
    sim.run();
    assert_eq!(sim.take_received(peer), b"<linger>");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    sim.send(peer, b"even more");
    sim.run();
    assert_eq!(sim.open(), 1, "it waits for the peer");
    sim.finish(peer);
    sim.run();
    assert_eq!(log_of(&log), ["opened", "linger", "lost Closed"]);
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_lingering_close_ends_by_itself_after_two_seconds() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"linger\n");
    sim.advance(Duration::from_millis(1990));
    assert_eq!(sim.open(), 1);
    sim.advance(Duration::from_millis(20));
    assert_eq!(sim.open(), 0);
    assert_eq!(log_of(&log).last().unwrap(), "lost Closed");
}

#[test]
fn a_lingering_close_discards_only_so_much_and_then_waits_for_its_time() {
    let mut options = Options::default();
    options.limits.linger_bytes_max = 256 * 1024;
    let (mut sim, listener, _log) = world(options);
    let peer = sim.connect(listener);
    sim.send(peer, b"linger\n");
    sim.send(peer, &vec![0; 400 * 1024]);
    sim.run();
    let discarded = sim.stats().received_bytes;
    assert!((256 * 1024..400 * 1024).contains(&discarded), "{discarded} bytes were read");
    assert_eq!((sim.open(), sim.is_reset(peer)), (1, false), "a reset would destroy the answer");
    sim.advance(Duration::from_millis(9900));
    assert_eq!((sim.open(), sim.is_reset(peer)), (1, false));
    sim.advance(Duration::from_millis(200));
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_lingering_close_goes_on_while_the_peer_speaks_but_not_for_ever() {
    let (mut sim, peer, _log) = connected();
    sim.send(peer, b"linger\n");
    for second in 0..9 {
        sim.send(peer, b"more");
        sim.advance(Duration::from_secs(1));
        assert_eq!(sim.open(), 1, "after {second} s");
    }
    for _ in 0..2 {
        sim.send(peer, b"more");
        sim.advance(Duration::from_secs(1));
    }
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_close_with_input_left_unread_lingers_instead_of_resetting() {
    let mut options = Options::default();
    options.budget = Budget::fixed(64).read_bytes(1024);
    let (mut sim, listener, _log) = world(options);
    let peer = sim.connect(listener);
    sim.send(peer, b"close\n");
    sim.send(peer, &[b'x'; 4000]);
    sim.run();
    assert_eq!(sim.take_received(peer), b"<close>");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    sim.finish(peer);
    sim.run();
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_close_while_what_was_sent_before_is_under_way_lets_it_arrive() {
    struct Large;
    impl Protocol for Large {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&[b'x'; 15_000]);
            Flow::Continue
        }

        fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
            Flow::Close
        }
    }
    let millis = Duration::from_millis;
    for seed in 0..16 {
        let limits = ConnLimits::default().write_high_bytes(12_000).write_low_bytes(0);
        let options = Options::default().seed(seed).limits(limits).window(10_000);
        let mut sim = Sim::new(options.latency(millis(10)..=millis(10)));
        let listener = sim.listen(|_peer| Large);
        let peer = sim.connect(listener);
        sim.stop_reading(peer);
        sim.send(peer, b"x");
        sim.advance(millis(100));
        // It reads what is there, and the rest sets out.
        sim.start_reading(peer);
        sim.stop_reading(peer);
        sim.advance(millis(100));
        // A stray byte, which nobody reads: it must not be answered with a reset.
        sim.send(peer, b"\n");
        sim.advance(millis(100));
        sim.start_reading(peer);
        sim.advance(millis(100));
        assert_eq!((sim.take_received(peer).len(), sim.is_reset(peer)), (15_000, false), "seed {seed}");
        sim.advance(millis(5000));
        assert_eq!(sim.open(), 0);
    }
}

#[test]
fn a_panic_costs_its_own_connection_only() {
    let (mut sim, listener, log) = world(Options::default());
    let (bad, good) = (sim.connect(listener), sim.connect(listener));
    sim.send(bad, b"panic\n");
    sim.send(good, b"fine\n");
    sim.run();
    assert!(sim.is_reset(bad));
    assert_eq!(sim.take_received(good), b"<fine>");
    assert_eq!((sim.stats().panics, sim.open()), (1, 1));
    assert!(log_of(&log).contains(&"lost Panicked".to_owned()));
}

#[test]
fn a_peers_reset_ends_the_connection_even_while_it_is_paused() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, b"pause\n");
    sim.run();
    sim.reset(peer);
    sim.run();
    assert!(log_of(&log).last().unwrap().starts_with("lost Failed"));
    assert_eq!((sim.open(), sim.stats().failed), (0, 1));
}

#[test]
fn unconsumed_input_has_a_limit() {
    let (mut sim, peer, log) = connected();
    sim.send(peer, &vec![b'x'; 3 << 20]);
    sim.run();
    assert_eq!(log_of(&log).last().unwrap(), "lost InputOverflow");
    assert_eq!((sim.stats().input_overflows, sim.blocks_in_use()), (1, 0));
}

/// Says its name, reads, and answers nothing.
struct Listening(Rc<Cell<Option<ConnId>>>, Log);

impl Protocol for Listening {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.1.borrow_mut().push(format!("{reason:?}"));
    }
}

#[test]
fn a_connection_that_falls_too_far_behind_what_others_send_it_is_cut() {
    let limits = ConnLimits::default().output_bytes_max(1 << 20);
    let mut options = Options::default();
    options.limits = limits;
    let mut sim = Sim::new(options);
    let (id, log) = (Rc::new(Cell::new(None)), Log::default());
    let (name, lines) = (Rc::clone(&id), Rc::clone(&log));
    let listener = sim.listen(move |_| Listening(Rc::clone(&name), Rc::clone(&lines)));
    let peer = sim.connect(listener);
    sim.run();
    let (to, handle) = (id.get().unwrap(), sim.handle().clone());

    // One message may be larger than that: there was nothing that the peer had not taken.
    handle.send(to, Bytes::from(vec![b'x'; 3 << 20]));
    sim.run();
    assert_eq!(sim.take_received(peer).len(), 3 << 20);

    sim.stop_reading(peer);
    for _ in 0..2 {
        handle.send(to, Bytes::from(vec![b'x'; 400 << 10]));
        sim.run();
    }
    assert_eq!((sim.open(), sim.stats().output_overflows), (1, 0));
    handle.send(to, Bytes::from(vec![b'x'; 700 << 10]));
    sim.run();
    assert_eq!((sim.open(), sim.stats().output_overflows, sim.blocks_in_use()), (0, 1, 0));
    assert!(sim.is_reset(peer));
    assert_eq!(log_of(&log), ["OutputOverflow"]);
}

#[test]
fn connections_over_the_limit_are_turned_away() {
    let limits = ConnLimits::default().connections_max(2);
    let mut options = Options::default();
    options.limits = limits;
    let (mut sim, listener, _log) = world(options);
    let peers = [(); 3].map(|()| sim.connect(listener));
    sim.run();
    assert_eq!((sim.open(), sim.stats().shed), (2, 1));
    assert_eq!(peers.iter().filter(|peer| sim.is_closed(**peer)).count(), 1);
}

#[test]
fn a_drain_tells_every_connection_and_lets_queued_output_leave() {
    let (mut sim, peer, log) = connected();
    sim.begin_drain(Duration::from_secs(5));
    sim.run();
    assert_eq!(sim.take_received(peer), b"stop");
    assert_eq!(log_of(&log), ["opened", "stopping", "lost Closed"]);
    assert!(!sim.is_finished(), "handshakes that had begun get a moment");
    sim.advance(Duration::from_millis(250));
    assert!(sim.is_finished());
}

#[test]
fn a_drain_takes_in_who_already_stands_in_the_queue() {
    let (mut sim, listener, _log) = world(Options::default());
    let late = sim.connect(listener);
    sim.send(late, b"me too\n");
    sim.begin_drain(Duration::from_secs(5));
    sim.run();
    assert_eq!(sim.take_received(late), b"stop", "who comes in during a drain is told of it");

    let (mut sim, listener) = echo(Options::default());
    let late = sim.connect(listener);
    sim.begin_drain(Duration::from_secs(5));
    sim.run();
    sim.send(late, b"me too");
    sim.run();
    assert_eq!(sim.take_received(late), b"me too");
}

/// A world of echoes, which leave their end to the machinery.
fn echo(options: Options) -> (Sim, ListenerId) {
    let mut sim = Sim::new(options);
    let listener = sim.listen(|_peer| crate::support::Echo);
    (sim, listener)
}

#[test]
fn a_drain_answers_what_arrives_within_its_grace_and_then_lingers() {
    let (mut sim, listener) = echo(Options::default());
    let (spoke, fresh, silent) = (sim.connect(listener), sim.connect(listener), sim.connect(listener));
    sim.send(spoke, b"one");
    sim.run();
    sim.take_received(spoke);
    // In the socket when the drain begins, and a moment later.
    sim.send(spoke, b"two");
    sim.begin_drain(Duration::from_secs(10));
    sim.advance(Duration::from_millis(900));
    sim.send(fresh, b"three");
    sim.run();
    assert_eq!(sim.take_received(spoke), b"two");
    assert_eq!(sim.take_received(fresh), b"three");
    assert!(![spoke, fresh, silent].iter().any(|peer| sim.is_closed(*peer)));

    sim.advance(Duration::from_millis(200));
    for peer in [spoke, fresh, silent] {
        assert!(sim.is_closed(peer) && !sim.is_reset(peer));
        sim.finish(peer);
    }
    sim.run();
    assert!(sim.is_finished());
}

#[test]
fn a_drain_answers_what_had_arrived_as_long_as_a_slow_peer_reads_on() {
    struct Slowed;
    impl Protocol for Slowed {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            while !input.is_empty() {
                if conn.is_backed_up() {
                    return Flow::Yield;
                }
                input.advance(1);
                conn.send(&[b'x'; 1000]);
            }
            Flow::Continue
        }
    }
    // A window each 20 ms: 50 kB in a second, which is the grace.
    let mut options =
        Options::default().window(1000).latency(Duration::from_millis(20)..=Duration::from_millis(20));
    (options.limits.write_high_bytes, options.limits.write_low_bytes) = (3000, 1000);
    let mut sim = Sim::new(options);
    let listener = sim.listen(|_peer| Slowed);
    let peer = sim.connect(listener);
    sim.send(peer, &[b'?'; 300]);
    sim.advance(Duration::from_millis(100));
    sim.begin_drain(Duration::from_secs(60));
    sim.advance(Duration::from_secs(50));
    assert_eq!(sim.take_received(peer).len(), 300_000);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn the_grace_of_a_drain_ends_with_the_drain() {
    let (mut sim, listener) = echo(Options::default());
    let peer = sim.connect(listener);
    sim.run();
    sim.begin_drain(Duration::from_millis(300));
    sim.advance(Duration::from_millis(310));
    assert!(sim.is_finished());
    assert!(sim.is_closed(peer) && !sim.is_reset(peer), "nothing was under way");
}

#[test]
fn who_comes_in_during_a_drain_and_says_nothing_does_not_hold_it_up() {
    let (mut sim, listener) = echo(Options::default());
    sim.connect(listener);
    sim.begin_drain(Duration::from_secs(3600));
    sim.advance(Duration::from_secs(4));
    assert!(sim.is_finished(), "a grace of 1 s, and 2 s of silence");
}

#[test]
fn newcomers_do_not_prolong_a_drain() {
    let (mut sim, listener) = echo(Options::default());
    sim.begin_drain(Duration::from_secs(3600));
    sim.run();
    let mut taken_in = 0;
    for _ in 0..1000 {
        let peer = sim.connect(listener);
        sim.send(peer, b"x");
        sim.advance(Duration::from_millis(1));
        taken_in += usize::from(!sim.take_received(peer).is_empty());
    }
    assert_eq!(taken_in, 0, "who was not there when it began goes elsewhere");
    sim.advance(Duration::from_secs(3));
    assert!(sim.is_finished());
}

#[test]
fn a_second_shorter_drain_shortens_the_first() {
    let (mut sim, peer, log) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"large\n");
    sim.run();
    sim.begin_drain(Duration::from_secs(3600));
    sim.advance(Duration::from_secs(2));
    assert!(!sim.is_finished());
    sim.begin_drain(Duration::from_millis(50));
    sim.advance(Duration::from_millis(60));
    assert!(sim.is_finished());
    assert_eq!(log_of(&log).iter().filter(|line| *line == "stopping").count(), 1, "told once");
}

#[test]
fn a_paused_connection_stays_paused_in_a_drain_and_lingers_in_the_end() {
    struct Pausing;
    impl Protocol for Pausing {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            conn.send(input.bytes());
            input.advance_all();
            Flow::Pause
        }
    }
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Pausing);
    let peer = sim.connect(listener);
    sim.send(peer, b"1");
    sim.run();
    sim.begin_drain(Duration::from_secs(10));
    sim.send(peer, b"2");
    sim.advance(Duration::from_millis(900));
    assert_eq!(sim.take_received(peer), b"1");
    sim.advance(Duration::from_secs(5));
    assert!(sim.is_finished() && !sim.is_reset(peer));
}

/// Its deadline is 5 s away and it does not care for drains. What it does at the deadline is the test's.
struct Busy<D>(Log, D);

impl<D: FnMut(&mut Conn<'_>) + 'static> Protocol for Busy<D> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(Duration::from_secs(5));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        (self.1)(conn);
        Flow::Continue
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("busy: {reason:?}"));
    }
}

/// A world whose drain deadline and whose busy connection's deadline have passed in the same moment; what happened.
fn stood_still_beyond_both_deadlines(at_deadline: fn(&mut Conn<'_>, &Log)) -> (Sim, Log) {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| {
            let copy = log.clone();
            Busy(log.clone(), move |conn: &mut Conn<'_>| at_deadline(conn, &copy))
        }
    });
    sim.connect(listener);
    sim.run();
    sim.begin_drain(Duration::from_secs(4));
    sim.run();
    sim.stand_still(Duration::from_secs(10));
    sim.answer_connections(Answer::Ignore);
    sim.run();
    (sim, log)
}

#[test]
fn a_connection_that_is_begun_behind_the_drain_deadline_does_not_outlive_it() {
    let (sim, log) = stood_still_beyond_both_deadlines(|conn, log| {
        let to = "10.0.0.1:80";
        conn.commands().connect(to, ConnectOptions::default(), Recorder::new(log));
    });
    assert!(sim.is_finished());
    assert_eq!(log_of(&log), ["busy: Cut", "lost Cut"]);
}

#[test]
fn a_deadline_in_the_past_may_be_set_while_one_that_has_passed_is_about_to_be_told() {
    let (sim, log) = stood_still_beyond_both_deadlines(|conn, _log| conn.set_deadline_at(Instant::ZERO));
    assert!(sim.is_finished());
    assert_eq!(log_of(&log), ["busy: Cut"]);
}

#[test]
fn a_deadline_that_comes_with_the_end_of_a_drain_is_cleared_like_any_other() {
    let (sim, log) = stood_still_beyond_both_deadlines(|conn, log| {
        log.borrow_mut().push(format!("deadline {:?}", conn.deadline()));
    });
    assert!(sim.is_finished());
    assert_eq!(log_of(&log), ["deadline None", "busy: Cut"]);
    assert_eq!(sim.stats().timers_fired, 1);
}

#[test]
fn who_retires_with_output_that_nobody_reads_is_cut() {
    struct Retiring;
    impl Protocol for Retiring {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&[b'x'; 100_000]);
            Flow::Retire
        }
    }
    for seed in 0..16 {
        let mut sim = Sim::new(Options::default().seed(seed).window(1000));
        let listener = sim.listen(|_peer| Retiring);
        let peer = sim.connect(listener);
        sim.stop_reading(peer);
        sim.send(peer, b"x");
        sim.advance(Duration::from_secs(60));
        assert_eq!(sim.open(), 0, "seed {seed}");
    }
}

#[test]
fn who_retires_with_output_that_its_peer_hardly_reads_is_cut() {
    /// Is held back by its output, and returns `Flow::Retire`.
    struct Retiring;
    impl Protocol for Retiring {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance(1);
            conn.send(&[b'x'; 300_000]);
            Flow::Retire
        }
    }
    for seed in 0..16 {
        // A window in a second: half of what is the least.
        let latency = Duration::from_secs(1);
        let mut sim = Sim::new(Options::default().seed(seed).window(128).latency(latency..=latency));
        let listener = sim.listen(|_peer| Retiring);
        let peer = sim.connect(listener);
        sim.send(peer, b"xx");
        sim.advance(Duration::from_secs(60));
        assert_eq!((sim.open(), sim.stats().stalled), (0, 1), "seed {seed}");
    }
}

#[test]
fn what_arrived_before_the_grace_of_a_drain_was_over_is_answered_however_many_turns_it_takes() {
    /// Echoes a byte in each turn.
    struct Bytewise;
    impl Protocol for Bytewise {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            conn.send(&input.bytes()[..1]);
            input.advance(1);
            if input.is_empty() { Flow::Continue } else { Flow::Yield }
        }
    }
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Bytewise);
    let peer = sim.connect(listener);
    sim.run();
    sim.begin_drain(Duration::from_secs(60));
    sim.send(peer, b"abcdef");
    sim.turn();
    sim.turn();
    sim.stand_still(Duration::from_secs(2));
    sim.advance(Duration::from_secs(10));
    assert_eq!(sim.take_received(peer), b"abcdef");
    assert!(sim.is_finished());
}

#[test]
fn the_drain_deadline_cuts_what_is_left() {
    let (mut sim, peer, log) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"large\n");
    sim.run();
    sim.begin_drain(Duration::from_secs(1));
    sim.advance(Duration::from_millis(1100));
    assert_eq!(log_of(&log).last().unwrap(), "lost Cut");
    assert!(sim.is_finished() && sim.is_reset(peer));
}

#[test]
fn an_outgoing_connection_opens_or_says_why_not() {
    let (mut sim, _listener, log) = world(Options::default());
    let to = "10.0.0.1:80";
    sim.commands().connect(to, ConnectOptions::default(), Recorder::new(&log));
    sim.run();
    let dialed = sim.take_dialed();
    assert_eq!(dialed[0].1.to_string(), to);
    assert_eq!(log_of(&log), ["opened"]);

    sim.refuse_connections(true);
    sim.commands().connect(to, ConnectOptions::default(), Recorder::new(&log));
    sim.run();
    assert!(log_of(&log)[1].contains("ConnectFailed") && log_of(&log)[1].contains("ConnectionRefused"));
    assert_eq!(sim.stats().connect_failures, 1);
}

#[test]
fn a_flooding_peer_gives_way_to_a_quiet_one_in_every_turn() {
    let mut options = Options::default();
    options.budget = Budget::fixed(64).read_bytes(1024);
    let mut sim = Sim::new(options);
    let listener = sim.listen(|_peer| Echo);
    let (flood, quiet) = (sim.connect(listener), sim.connect(listener));
    sim.turn();
    sim.send(flood, &vec![b'x'; 1 << 20]);
    sim.send(quiet, b"ping");
    sim.turn();
    assert_eq!(sim.take_received(quiet), b"ping");
    assert!(sim.take_received(flood).len() <= 2048);
}

#[test]
fn a_stormy_network_changes_timing_and_nothing_else() {
    for seed in 0..100 {
        let mut options = Options::default();
        (options.seed, options.faults) = (seed, Faults::stormy());
        let (mut sim, listener, _log) = world(options);
        let mut expected = Vec::new();
        let peers: Vec<PeerId> = (0..4).map(|_| sim.connect(listener)).collect();
        for line in 0..20 {
            let text = format!("seed {seed} line {line}");
            expected.extend(format!("<{text}>").into_bytes());
            for peer in &peers {
                sim.send(*peer, format!("{text}\n").as_bytes());
            }
            sim.turn();
        }
        for peer in &peers {
            sim.finish(*peer);
        }
        sim.advance(Duration::from_secs(3));
        expected.extend(b"bye");
        for peer in &peers {
            let received = sim.take_received(*peer);
            assert_eq!(received, expected, "seed {seed}: {}", String::from_utf8_lossy(&received));
        }
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut options = Options::default();
        (options.seed, options.faults) = (seed, Faults::stormy());
        let (mut sim, listener, log) = world(options);
        let peer = sim.connect(listener);
        sim.send(peer, b"one\ntwo\nthree and the rest of it\n");
        sim.finish(peer);
        sim.advance(Duration::from_secs(3));
        (log_of(&log), sim.stats())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}

#[test]
#[should_panic = "does not end"]
fn output_without_an_end_is_told_before_it_takes_all_memory() {
    /// Says more whenever there is room.
    struct Endless;

    impl Protocol for Endless {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            self.drained(conn)
        }

        fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
            conn.send(&[b'x'; 512 << 10]);
            Flow::Continue
        }
    }

    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Endless);
    let peer = sim.connect(listener);
    sim.send(peer, b"say something");
    sim.settle();
}
