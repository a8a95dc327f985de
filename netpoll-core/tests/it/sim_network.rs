//! What the simulated network does: peers that leave in every way, segments that travel, windows, faults of one connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Answer, Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{Budget, Commands, Conn, ConnId, ConnectOptions, Flow, Input, Lost, Protocol};

use crate::support::{Echo, Log, Recorder};

const MILLI: Duration = Duration::from_millis(1);

fn world(options: Options) -> (Sim, ListenerId, Log) {
    let log = Log::default();
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| Recorder::new(&log)
    });
    (sim, listener, log)
}

fn connected(options: Options) -> (Sim, PeerId, Log) {
    let (mut sim, listener, log) = world(options);
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer, log)
}

fn last(log: &Log) -> String {
    log.borrow().last().expect("something happened").clone()
}

/// Goes on behind the peer's end: says something then, and again at each deadline.
struct Stubborn(Log);

impl Protocol for Stubborn {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push("eof".to_owned());
        conn.send(b"still there?");
        conn.set_deadline(Duration::from_secs(1));
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("deadline".to_owned());
        conn.send(b"and now?");
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let reason = match reason {
            Lost::Failed(error) => format!("failed: {:?}", error.kind()),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(reason);
    }
}

fn stubborn(options: Options) -> (Sim, PeerId, Log) {
    let log = Log::default();
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| Stubborn(log.clone())
    });
    let peer = sim.connect(listener);
    sim.settle();
    (sim, peer, log)
}

#[test]
fn a_peer_that_has_finished_still_listens() {
    let (mut sim, peer, log) = stubborn(Options::default());
    sim.finish(peer);
    sim.advance(Duration::from_secs(2));
    assert_eq!(sim.take_received(peer), b"still there?and now?");
    assert_eq!(*log.borrow(), ["eof", "deadline"]);
}

#[test]
fn a_peer_that_has_closed_answers_what_we_send_with_a_reset() {
    let (mut sim, peer, log) = stubborn(Options::default());
    sim.close(peer);
    sim.run();
    assert_eq!(sim.take_received(peer), b"", "nobody reads it");
    assert_eq!(*log.borrow(), ["eof", "failed: BrokenPipe"]);
    assert_eq!((sim.open(), sim.stats().failed), (0, 1));
}

#[test]
fn a_peer_that_closes_with_bytes_unread_resets_at_once() {
    let (mut sim, peer, log) = connected(Options::default());
    sim.stop_reading(peer);
    sim.send(peer, b"line\n");
    sim.run();
    sim.close(peer);
    sim.run();
    assert!(last(&log).starts_with("lost Failed"), "{}", last(&log));
    assert!(!log.borrow().iter().any(|what| what.starts_with("eof")), "a reset is no end");
}

#[test]
fn what_a_peer_sends_to_a_closed_connection_is_answered_with_a_reset_that_takes_what_it_has_not_read() {
    let (mut sim, peer, _log) = connected(Options::default());
    sim.stop_reading(peer);
    sim.send(peer, b"close\n");
    sim.run();
    assert!(!sim.is_reset(peer) && sim.open() == 0);
    sim.send(peer, b"\r\n");
    sim.start_reading(peer);
    assert!(sim.is_reset(peer));
    assert_eq!(sim.take_received(peer), b"", "`<close>` had arrived and was not read");
}

#[test]
fn output_that_was_taken_is_lost_when_the_peer_resets() {
    for seed in 0..20 {
        let (mut sim, peer, log) = connected(Options::default().seed(seed));
        sim.stop_reading(peer);
        sim.send(peer, b"large\n");
        sim.run();
        sim.reset(peer);
        sim.run();
        assert_eq!(sim.take_received(peer), b"");
        assert!(last(&log).starts_with("lost Failed"));
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "seed {seed}");
    }
}

#[test]
fn what_had_arrived_before_a_reset_is_read() {
    let (mut sim, peer, log) = connected(Options::default());
    sim.send(peer, b"last words\n");
    sim.reset(peer);
    sim.run();
    assert_eq!(log.borrow()[..2], ["opened", "last words"]);
    assert!(last(&log).starts_with("lost Failed"));
}

/// Pauses at the first byte, and says what it hears of its peer.
struct Pausing(Log);

impl Protocol for Pausing {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Pause
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("peer ended".to_owned());
        Flow::Pause
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("{reason:?}"));
    }
}

#[test]
fn a_paused_connection_hears_once_of_a_peer_that_has_ended_in_any_way() {
    type End = fn(&mut Sim, PeerId);
    let ends: [(End, &str); 3] = [
        (Sim::finish, "peer ended"),
        (Sim::close, "peer ended"),
        (Sim::reset, "Failed(Kind(ConnectionReset))"),
    ];
    for (seed, (end, heard)) in (0..30).flat_map(|seed| ends.map(|end| (seed, end))) {
        let log = Log::default();
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()));
        let listener = sim.listen({
            let log = log.clone();
            move |_peer| Pausing(log.clone())
        });
        let peer = sim.connect(listener);
        sim.send(peer, b"x");
        sim.settle();
        sim.send(peer, b"more that nobody reads");
        end(&mut sim, peer);
        sim.advance(Duration::from_secs(100));
        assert_eq!(*log.borrow(), [heard], "seed {seed}");
    }
}

/// An interruption hides what lies in the socket until the connection is resumed, which a pause puts off.
#[test]
fn the_end_of_a_peer_is_told_to_who_was_paused_behind_an_interruption() {
    type End = fn(&mut Sim, PeerId);
    let ends: [(End, &str); 2] = [(Sim::finish, "peer ended"), (Sim::reset, "Failed(Kind(ConnectionReset))")];
    for (end, heard) in ends {
        let (log, id) = (Log::default(), Rc::new(Cell::new(None)));
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen({
            let (log, id) = (log.clone(), Rc::clone(&id));
            move |_peer| Named(Rc::clone(&id), Pausing(log.clone()))
        });
        let peer = sim.connect(listener);
        sim.run();
        sim.set_faults(peer, Faults::none().interrupted_receives(1000));
        sim.send(peer, b"bytes");
        sim.turn();
        sim.set_faults(peer, Faults::none());
        sim.commands().pause(id.get().unwrap());
        sim.turn();
        end(&mut sim, peer);
        sim.run();
        assert_eq!(*log.borrow(), [heard]);
    }
}

/// Says what it is called.
struct Named(Rc<Cell<Option<ConnId>>>, Pausing);

impl Protocol for Named {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.1.received(conn, input)
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.1.peer_ended(conn)
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        self.1.lost(reason, commands);
    }
}

#[test]
fn segments_arrive_when_they_have_travelled() {
    let (mut sim, peer, log) = connected(Options::default().latency(20 * MILLI..=20 * MILLI));
    sim.send(peer, b"a\n");
    sim.advance(19 * MILLI);
    assert_eq!(*log.borrow(), ["opened"]);
    sim.advance(MILLI);
    assert_eq!(*log.borrow(), ["opened", "a"]);
    sim.advance(19 * MILLI);
    assert_eq!(sim.take_received(peer), b"");
    sim.advance(MILLI);
    assert_eq!(sim.take_received(peer), b"<a>");
}

#[test]
fn segments_of_one_connection_do_not_overtake_each_other() {
    for seed in 0..50 {
        let options = Options::default().seed(seed).faults(Faults::stormy()).latency(MILLI..=50 * MILLI);
        let (mut sim, listener, _log) = world(options);
        let peer = sim.connect(listener);
        let mut expected = Vec::new();
        for line in 0..20 {
            sim.send(peer, format!("{line}\n").as_bytes());
            expected.extend(format!("<{line}>").into_bytes());
            sim.advance(3 * MILLI);
        }
        sim.finish(peer);
        sim.settle();
        expected.extend(b"bye");
        assert_eq!(sim.take_received(peer), expected, "seed {seed}");
        assert!(sim.is_closed(peer) && !sim.is_reset(peer) && sim.open() == 0);
    }
}

#[test]
fn the_end_of_a_peer_is_known_when_its_segment_has_come() {
    let (mut sim, peer, log) = stubborn(Options::default());
    sim.set_latency(peer, 30 * MILLI..=30 * MILLI);
    sim.close(peer);
    sim.advance(30 * MILLI);
    assert_eq!(*log.borrow(), ["eof"]);
    assert_eq!(sim.open(), 1, "what it said is under way, the reset is not there yet");
    sim.advance(59 * MILLI);
    assert_eq!(sim.open(), 1);
    sim.advance(MILLI);
    assert_eq!(log.borrow()[1..], ["failed: BrokenPipe"]);
}

#[test]
fn a_small_window_cuts_sends_short_on_a_perfect_network() {
    for seed in 0..20 {
        let (mut sim, peer, log) = connected(Options::default().seed(seed));
        sim.set_window(peer, 1000);
        sim.send(peer, b"large\n");
        sim.turn();
        let first = sim.take_received(peer).len();
        assert!(first <= 3000, "seed {seed}: {first} bytes in one turn");
        sim.run();
        assert_eq!(first + sim.take_received(peer).len(), "<large>".len() + (1 << 20));
        assert!(log.borrow().contains(&"drained".to_owned()));
        let stats = sim.stats();
        assert!(stats.sends_blocked > 0 && stats.backed_up == 1, "seed {seed}: {stats:?}");
    }
}

#[test]
fn a_window_is_a_setting_of_all_peers_and_counts_what_is_not_read() {
    let (mut sim, peer, _log) = connected(Options::default().window(5000));
    sim.stop_reading(peer);
    sim.send(peer, b"large\n");
    sim.run();
    sim.start_reading(peer);
    assert_eq!(sim.take_received(peer).len(), 5000);
}

#[test]
fn faults_of_one_connection_spare_the_others() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Echo);
    let (unlucky, lucky) = (sim.connect(listener), sim.connect(listener));
    sim.run();
    sim.set_faults(unlucky, Faults::none().delays(1000));
    for peer in [unlucky, lucky] {
        sim.send(peer, b"ping");
    }
    sim.advance(Duration::from_secs(60));
    assert_eq!((sim.take_received(unlucky), sim.take_received(lucky)), (vec![], b"ping".to_vec()));
    sim.set_faults(unlucky, Faults::none());
    sim.run();
    assert_eq!(sim.take_received(unlucky), b"ping");
}

#[test]
fn an_accepted_connection_that_cannot_be_registered_is_lost_before_its_first_callback() {
    let (mut sim, listener, log) = world(Options::default());
    let peer = sim.connect(listener);
    sim.set_faults(peer, Faults::none().failed_registrations(1000));
    sim.run();
    assert_eq!(log.borrow().len(), 1);
    assert!(last(&log).starts_with("lost Failed"), "{}", last(&log));
    assert!(sim.is_closed(peer) && sim.open() == 0);
}

fn dial(sim: &mut Sim, log: &Log) {
    sim.commands().connect("10.0.0.1:80", ConnectOptions::default(), Recorder::new(log));
    sim.run();
}

#[test]
fn an_outgoing_connection_that_cannot_be_registered_fails_at_once() {
    let (mut sim, _listener, log) =
        world(Options::default().faults(Faults::none().failed_registrations(1000)));
    dial(&mut sim, &log);
    assert!(last(&log).starts_with("lost ConnectFailed"), "{}", last(&log));
    assert_eq!(sim.stats().connect_failures, 1);
}

#[test]
fn an_outgoing_connection_that_nobody_answers_ends_at_its_timeout() {
    let (mut sim, _listener, log) = world(Options::default());
    sim.answer_connections(Answer::Ignore);
    dial(&mut sim, &log);
    sim.settle();
    sim.advance(Duration::from_millis(9990));
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_millis(20));
    assert_eq!(last(&log), "lost ConnectFailed(Kind(TimedOut))");
}

#[test]
fn an_outgoing_connection_may_take_its_time() {
    let (mut sim, _listener, log) = world(Options::default());
    sim.answer_connections(Answer::AcceptAfter(Duration::from_secs(9)));
    dial(&mut sim, &log);
    sim.advance(Duration::from_secs(8));
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_secs(1));
    assert_eq!(*log.borrow(), ["opened"]);
}

#[test]
fn an_outgoing_connection_whose_answer_came_while_the_process_stood_still_is_open() {
    let (mut sim, _listener, log) = world(Options::default());
    sim.answer_connections(Answer::AcceptAfter(Duration::from_secs(1)));
    dial(&mut sim, &log);
    sim.stand_still(Duration::from_secs(60));
    sim.run();
    assert_eq!(*log.borrow(), ["opened"]);
}

#[test]
fn a_peer_connects_from_the_address_that_it_is_given() {
    let log = Log::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let log = log.clone();
        move |peer| {
            log.borrow_mut().push(peer.addr.to_string());
            Echo
        }
    });
    sim.connect_from(listener, "[2001:db8::7]:4711".parse::<std::net::SocketAddr>().unwrap());
    sim.run();
    assert_eq!(*log.borrow(), ["[2001:db8::7]:4711"]);
}

/// Closes silent peers after 100 ms.
struct Impatient;

impl Protocol for Impatient {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(100 * MILLI);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        conn.set_deadline(100 * MILLI);
        Flow::Continue
    }
}

#[test]
fn what_came_while_the_process_stood_still_is_answered_before_deadlines_that_passed_meanwhile() {
    for seed in 0..100 {
        let faults =
            [Faults::none(), Faults::none().short_waits(900), Faults::none().interrupted_receives(500)];
        let faults = faults[seed as usize % 3];
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults).budget(Budget::fixed(8)));
        let listener = sim.listen(|_peer| Impatient);
        let peers: Vec<PeerId> = (0..40).map(|_| sim.connect(listener)).collect();
        sim.run();
        for peer in &peers {
            sim.send(*peer, b"here I am");
        }
        sim.stand_still(Duration::from_secs(1));
        sim.run();
        let answered = peers.iter().filter(|peer| sim.take_received(**peer) == b"here I am").count();
        assert_eq!(answered, 40, "seed {seed}");
        sim.advance(Duration::from_secs(1));
        assert_eq!(sim.open(), 0);
    }
}

#[test]
fn a_wait_may_bring_less_than_there_is() {
    let mut sim = Sim::new(Options::default().faults(Faults::none().short_waits(1000)));
    let listener = sim.listen(|_peer| Echo);
    let peers: Vec<PeerId> = (0..20).map(|_| sim.connect(listener)).collect();
    sim.run();
    for peer in &peers {
        sim.send(*peer, b"ping");
    }
    for _ in 0..20 {
        assert!(sim.turn() < 4);
    }
    sim.run();
    assert!(peers.iter().all(|peer| sim.take_received(*peer) == b"ping"));
    assert_eq!(sim.stats().waits_saturated, 0, "an early end is no full wait");
}

#[test]
fn settling_takes_as_long_as_a_listener_rests_and_spares_deadlines_that_are_further_away() {
    let (mut sim, listener, log) = world(Options::default());
    let early = sim.connect(listener);
    sim.send(early, b"soon\n");
    sim.settle();
    assert_eq!(sim.now().as_millis(), 0, "nothing was under way");
    let late = sim.connect(listener);
    sim.set_faults(late, Faults::none().descriptor_shortages(1000));
    sim.run();
    assert_eq!(sim.open(), 1);
    sim.set_faults(late, Faults::none());
    sim.settle();
    assert_eq!(sim.open(), 2);
    let now = sim.now().as_millis();
    assert!((10..20).contains(&now), "{now} ms");
    assert!(!log.borrow().contains(&"deadline".to_owned()), "it comes after 50 ms");
}

#[test]
fn the_example_of_the_front_page_passes_for_every_seed() {
    for seed in 0..300 {
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()));
        let listener = sim.listen(|_peer| Echo);
        let peer = sim.connect(listener);
        sim.send(peer, b"hello");
        sim.finish(peer);
        sim.settle();
        assert_eq!(sim.take_received(peer), b"hello", "seed {seed}");
        assert!(sim.is_closed(peer), "seed {seed}");
    }
}

/// Sends 20 000 bytes at first and 1000 twice a second from then on, whether queued or at once.
struct Steady {
    sends_now: bool,
}

impl Steady {
    fn say(&self, conn: &mut Conn<'_>, bytes: &[u8]) {
        if self.sends_now {
            conn.send_now(bytes)
        } else {
            conn.send(bytes)
        }
        conn.set_deadline(500 * MILLI);
    }
}

impl Protocol for Steady {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.say(conn, &[b'x'; 20_000]);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.say(conn, &[b'x'; 1000]);
        Flow::Continue
    }
}

#[test]
fn a_steady_stream_to_a_peer_that_is_far_away_is_no_stall() {
    for (seed, sends_now) in (0..8).flat_map(|seed| [(seed, false), (seed, true)]) {
        let latency = 1000 * MILLI;
        let mut sim = Sim::new(Options::default().seed(seed).window(10_000).latency(latency..=latency));
        let listener = sim.listen(move |_peer| Steady { sends_now });
        let peer = sim.connect(listener);
        sim.advance(120_000 * MILLI);
        assert_eq!(sim.stats().stalled, 0, "seed {seed}, at once {sends_now}");
        let got = sim.take_received(peer).len();
        assert!((250_000..=260_000).contains(&got), "{got}, seed {seed}, at once {sends_now}");
    }
}

/// Sends 20 000 bytes at first and a beat of ten bytes each second from then on.
struct Heartbeat;

impl Protocol for Heartbeat {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&[b'x'; 20_000]);
        conn.set_deadline(1000 * MILLI);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&[b'.'; 10]);
        conn.set_deadline(1000 * MILLI);
        Flow::Continue
    }
}

#[test]
fn who_takes_all_that_there_is_is_no_stall_however_little_that_is() {
    for seed in 0..8 {
        let latency = 1500 * MILLI;
        let mut sim = Sim::new(Options::default().seed(seed).window(10_000).latency(latency..=latency));
        let listener = sim.listen(|_peer| Heartbeat);
        let peer = sim.connect(listener);
        sim.advance(120_000 * MILLI);
        assert_eq!((sim.stats().stalled, sim.open()), (0, 1), "seed {seed}");
        assert!(sim.take_received(peer).len() > 20_000 + 10 * 110, "seed {seed}");
    }
}

#[test]
fn the_least_rate_is_one_of_bytes_per_second_however_long_the_time_between_looks() {
    // A window each 250 ms; 256 bytes in a second are the least.
    for (grace, window, cut) in [(500, 100, false), (500, 20, true), (1900, 50, true), (1900, 100, false)] {
        for seed in 0..8 {
            let latency = 250 * MILLI;
            let mut options = Options::default().seed(seed).window(window).latency(latency..=latency);
            options.limits.write_grace = grace * MILLI;
            let mut sim = Sim::new(options);
            let listener = sim.listen(|_peer| Heartbeat);
            sim.connect(listener);
            sim.advance(20_000 * MILLI);
            assert_eq!(sim.stats().stalled, u64::from(cut), "{window} bytes, grace {grace} ms, seed {seed}");
        }
    }
}

/// Sends 20 000 bytes, and is idle from the time on when they have arrived.
struct Answering(Log);

impl Protocol for Answering {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&[b'x'; 20_000]);
        conn.set_deadline(7000 * MILLI);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        self.0.borrow_mut().push("flushed".to_owned());
        conn.set_deadline(7000 * MILLI);
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("deadline".to_owned());
        Flow::Close
    }
}

#[test]
fn output_that_has_arrived_is_told_before_a_deadline() {
    for seed in 0..8 {
        let latency = 1000 * MILLI;
        let mut sim = Sim::new(Options::default().seed(seed).window(10_000).latency(latency..=latency));
        let log = Log::default();
        let listener = sim.listen({
            let log = log.clone();
            move |_peer| Answering(log.clone())
        });
        sim.connect(listener);
        sim.advance(13_000 * MILLI);
        assert_eq!(*log.borrow(), ["flushed"], "seed {seed}");
        sim.advance(2000 * MILLI);
        assert_eq!(*log.borrow(), ["flushed", "deadline"], "seed {seed}");
    }
}

/// Answers with as much as it is asked for, and wants to hear when that has left.
struct Told(Log);

impl Protocol for Told {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(&vec![b'x'; 1000 * input.len()]);
        input.advance_all();
        self.0.borrow_mut().push(format!("queued {}", conn.awaits_peer()));
        conn.tell_when_flushed();
        Flow::Continue
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        self.0.borrow_mut().push(format!("flushed {}", conn.queued_bytes()));
    }
}

#[test]
fn who_asks_is_told_once_that_output_has_left_whether_it_had_to_wait_or_not() {
    let mut sim = Sim::new(Options::default().window(10_000));
    let log = Log::default();
    let listener = sim.listen({
        let log = log.clone();
        move |_peer| Told(log.clone())
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"a");
    sim.settle();
    assert_eq!(*log.borrow(), ["queued false", "flushed 0"], "it left at once");

    log.borrow_mut().clear();
    sim.stop_reading(peer);
    sim.send(peer, &[b'a'; 50]);
    sim.settle();
    assert_eq!(*log.borrow(), ["queued false"], "it waits for its peer");
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(*log.borrow(), ["queued false", "flushed 0"]);
}
