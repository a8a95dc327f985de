//! Datagrams in a simulated world.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Datagram, DatagramPath, DatagramProtocol, DatagramSocket, Datagrams, UdpOptions};

use crate::support::{Echo as StreamEcho, Log};

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000 + number))
}

/// Sends back what it gets.
struct Echo;

impl DatagramProtocol for Echo {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        socket.send(datagram.path(), datagram.bytes());
    }
}

/// Writes down what happens; a word may be an order.
struct Recorder {
    log: Log,
    /// How long it goes on in a drain.
    longer: Duration,
    last: Option<DatagramPath>,
}

impl Recorder {
    fn new(log: &Log) -> Self {
        Self::going_on_for(log, Duration::ZERO)
    }

    fn going_on_for(log: &Log, longer: Duration) -> Self {
        Self { log: Rc::clone(log), longer, last: None }
    }

    fn note(&self, what: &str) {
        self.log.borrow_mut().push(what.to_owned());
    }
}

impl DatagramProtocol for Recorder {
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        self.note("opened");
        if socket.local_addr().port() != 53 {
            panic!("there is one socket");
        }
    }

    fn received_batch(&mut self, socket: &mut DatagramSocket<'_>, batch: &mut Datagrams<'_>) {
        let before = batch.len();
        let mut taken = 0;
        while !socket.is_closing()
            && let Some(datagram) = batch.next()
        {
            self.received(socket, datagram);
            taken += 1;
        }
        assert_eq!(taken + batch.len(), before);
    }

    fn received(&mut self, socket: &mut DatagramSocket<'_>, mut datagram: Datagram<'_>) {
        let word = String::from_utf8_lossy(datagram.bytes()).into_owned();
        self.note(&word);
        self.last = Some(datagram.path());
        match &word[..] {
            "soon" => socket.set_deadline(Duration::from_millis(50)),
            "never" => socket.clear_deadline(),
            "wake" => socket.waker().wake(),
            "close" => socket.close(),
            "three" => {
                for _ in 0..3 {
                    if !socket.send(datagram.path(), &[b'x'; 100]) {
                        self.note("no room");
                    }
                }
            }
            _ => {
                datagram.bytes_mut().make_ascii_uppercase();
                socket.send(datagram.path(), datagram.bytes());
            }
        }
    }

    fn drained(&mut self, socket: &mut DatagramSocket<'_>) {
        assert_eq!((socket.queued(), socket.is_backed_up()), (0, false));
        self.note("drained");
    }

    fn deadline(&mut self, socket: &mut DatagramSocket<'_>) {
        assert_eq!(socket.deadline(), None);
        self.note("deadline");
        socket.send(self.last.unwrap(), b"late");
    }

    fn woken(&mut self, socket: &mut DatagramSocket<'_>) {
        self.note("woken");
        socket.send(self.last.unwrap(), b"awake");
    }

    fn stopping(&mut self, socket: &mut DatagramSocket<'_>) -> Duration {
        assert!(socket.is_stopping());
        self.note("stopping");
        self.longer
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

fn words(sim: &mut Sim, of: SocketAddr) -> Vec<String> {
    sim.take_datagrams(of).into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn datagrams_are_answered_in_place_and_in_order_on_a_perfect_network() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let udp = sim.bind_udp(|_worker| Recorder::new(&log));
    for word in ["one", "two", "three", "four"] {
        sim.send_datagram(udp, peer(1), word.as_bytes());
    }
    sim.run();
    let x = "x".repeat(100);
    assert_eq!(words(&mut sim, peer(1)), ["ONE", "TWO", &x, &x, &x, "FOUR"]);
    assert_eq!(*log.borrow(), ["opened", "one", "two", "three", "four"]);
    let stats = sim.stats();
    assert_eq!((stats.datagrams_received, stats.datagrams_sent), (4, 6));
    assert_eq!((stats.syscalls_recvmmsg, stats.syscalls_sendmmsg), (1, 1), "one batch");
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    let mut sim = Sim::new(Options::default());
    let udp = sim.bind_udp(|_worker| Echo);
    sim.send_datagram_to(udp, "203.0.113.7".parse().unwrap(), peer(1), b"ping");
    sim.run();
    assert_eq!(sim.take_datagrams(peer(1)), [("203.0.113.7:53".parse().unwrap(), b"ping".to_vec())]);
}

#[test]
fn whatever_the_network_does_each_datagram_that_came_is_answered_once() {
    for seed in 0..200 {
        let options = Options::default()
            .seed(seed)
            .workers(1 + seed as usize % 3)
            .faults(Faults::stormy())
            .latency(Duration::ZERO..=Duration::from_millis(seed % 7))
            .udp(UdpOptions::default().batch(4).datagrams_per_turn(1 + seed as usize % 9));
        let mut sim = Sim::new(options);
        let udp = sim.bind_udp(|_worker| Echo);
        let mut sent = BTreeMap::new();
        for round in 0..40_u32 {
            for number in 0..3 {
                let bytes = vec![round as u8; 1 + (round as usize * 7 + number as usize) % 5];
                sim.send_datagram(udp, peer(number), &bytes);
                *sent.entry((number, bytes)).or_insert(0) += 1;
            }
            sim.turn();
        }
        sim.settle();
        let stats = sim.stats();
        assert_eq!(stats.datagrams_received, stats.datagrams_sent, "seed {seed}");
        assert!((60..180).contains(&stats.datagrams_received), "seed {seed}: {}", stats.datagrams_received);
        for number in 0..3 {
            for (from, bytes) in sim.take_datagrams(peer(number)) {
                assert_eq!(from, sim.udp_addr(udp));
                // Doubled on both ways at most.
                let left = sent.get_mut(&(number, bytes)).expect("nothing is made up or mixed");
                *left -= 1;
                assert!(*left >= -3 * 2, "seed {seed}");
            }
        }
    }
}

#[test]
fn the_network_loses_doubles_and_reorders_as_it_is_told_to() {
    let received = |faults: Faults| {
        let mut sim = Sim::new(Options::default().seed(3).faults(faults));
        let udp = sim.bind_udp(|_worker| Echo);
        for index in 0..50 {
            sim.send_datagram(udp, peer(1), &[index]);
        }
        sim.settle();
        sim.take_datagrams(peer(1)).into_iter().map(|(_, bytes)| bytes[0]).collect::<Vec<u8>>()
    };
    assert_eq!(received(Faults::none()), (0..50).collect::<Vec<_>>());
    assert_eq!(received(Faults::none().datagram_losses(1000)), []);
    assert_eq!(received(Faults::none().datagram_duplicates(1000)).len(), 200, "on both ways");
    let mut reordered = received(Faults::none().datagram_reorders(300));
    assert!(!reordered.is_sorted());
    reordered.sort_unstable();
    assert_eq!(reordered, (0..50).collect::<Vec<_>>());
    let lost = received(Faults::none().datagram_losses(300)).len();
    assert!((10..45).contains(&lost), "{lost}");
}

#[test]
fn a_datagram_that_the_network_does_not_carry_is_lost_or_refused_and_one_that_is_too_long_is_cut() {
    let udp_options = UdpOptions::default().datagram_bytes_max(10);
    for join in [true, false] {
        let options = Options::default().datagram_bytes_max(99).udp(udp_options.join_received(join));
        let (mut sim, log) = (Sim::new(options), Log::default());
        let udp = sim.bind_udp(|_worker| Recorder::new(&log));
        sim.send_datagram(udp, peer(1), &[b'a'; 100]);
        sim.send_datagram(udp, peer(1), &[b'a'; 99]);
        sim.send_datagram(udp, peer(1), b"three");
        sim.run();
        assert_eq!(words(&mut sim, peer(1)), ["AAAAAAAAAA"]);
        let stats = sim.stats();
        assert_eq!((stats.datagrams_received, stats.datagrams_truncated), (2, 1));
        assert_eq!((stats.datagrams_sent, stats.datagrams_refused), (1, 3));
    }
}

#[test]
fn a_full_queue_drops_and_counts_what_does_not_fit() {
    // Room for two of 100 bytes and what they cost.
    let options = Options::default().udp(UdpOptions::default().queue_bytes_max(2 * 164));
    let (mut sim, log) = (Sim::new(options), Log::default());
    let udp = sim.bind_udp(|_worker| Recorder::new(&log));
    sim.send_datagram(udp, peer(1), b"three");
    sim.run();
    assert_eq!(sim.take_datagrams(peer(1)).len(), 2);
    assert_eq!(*log.borrow(), ["opened", "three", "no room"]);
    assert_eq!((sim.stats().datagrams_sent, sim.stats().datagrams_dropped), (2, 1));
}

#[test]
fn what_has_to_wait_for_room_leaves_when_there_is_some() {
    let (mut waited, mut at_once) = (0, 0);
    for seed in 0..100 {
        let options = Options::default().seed(seed).faults(Faults::none().partial_sends(600));
        let (mut sim, log) = (Sim::new(options), Log::default());
        let udp = sim.bind_udp(|_worker| Recorder::new(&log));
        sim.send_datagram(udp, peer(1), b"three");
        sim.run();
        assert_eq!(sim.take_datagrams(peer(1)).len(), 3, "seed {seed}");
        match log.borrow().last().unwrap().as_str() {
            "drained" => waited += 1,
            _ => at_once += 1,
        }
    }
    assert!(waited > 10 && at_once > 10, "{waited} and {at_once}");
}

#[test]
fn a_flood_gets_its_share_of_a_turn_and_no_more() {
    let mut sim = Sim::new(Options::default().udp(UdpOptions::default().datagrams_per_turn(16)));
    let (udp, listener) = (sim.bind_udp(|_worker| Echo), sim.listen(|_peer| StreamEcho));
    let connection = sim.connect(listener);
    sim.run();
    for _ in 0..1000 {
        sim.send_datagram(udp, peer(1), b"flood");
    }
    sim.send(connection, b"ping");
    sim.turn();
    assert_eq!(sim.take_received(connection), b"ping", "in the same turn");
    assert_eq!(sim.take_datagrams(peer(1)).len(), 16);
    sim.run();
    assert_eq!(sim.take_datagrams(peer(1)).len(), 1000 - 16);
}

#[test]
fn a_deadline_comes_behind_what_had_arrived_and_a_waker_leads_back() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let udp = sim.bind_udp(|_worker| Recorder::new(&log));
    sim.send_datagram(udp, peer(1), b"soon");
    sim.advance(Duration::from_millis(49));
    assert_eq!(log.borrow().last().unwrap(), "soon");
    sim.advance(Duration::from_millis(3));
    assert_eq!(log.borrow().last().unwrap(), "deadline");
    assert_eq!(words(&mut sim, peer(1)), ["late"]);
    // The process stands still; the answer that the deadline is about lies in the socket by then.
    sim.send_datagram(udp, peer(1), b"soon");
    sim.run();
    sim.send_datagram(udp, peer(1), b"never");
    sim.stand_still(Duration::from_millis(60));
    sim.run();
    assert_eq!(log.borrow().last().unwrap(), "never");
    sim.send_datagram(udp, peer(1), b"wake");
    sim.run();
    assert_eq!(log.borrow().last().unwrap(), "woken");
    assert_eq!(words(&mut sim, peer(1)), ["awake"]);
}

#[test]
fn a_deadline_that_passes_while_the_answer_lies_in_the_socket_finds_it_first() {
    for seed in 0..50 {
        let faults = Faults::none().short_waits(900).delays(800);
        let (mut sim, log) = (Sim::new(Options::default().seed(seed).faults(faults)), Log::default());
        let udp = sim.bind_udp(|_worker| Recorder::new(&log));
        sim.send_datagram(udp, peer(1), b"soon");
        sim.settle();
        sim.send_datagram(udp, peer(1), b"never");
        sim.stand_still(Duration::from_millis(60));
        sim.settle();
        sim.run();
        assert!(!log.borrow().iter().any(|what| what == "deadline"), "seed {seed}: {:?}", log.borrow());
    }
}

#[test]
fn a_drain_answers_what_had_arrived_and_tells_the_protocol_first() {
    for seed in 0..50 {
        let faults = Faults::stormy().datagram_losses(0).datagram_duplicates(0).datagram_reorders(0);
        let options = Options::default().seed(seed).workers(2).faults(faults);
        let options = options.udp(UdpOptions::default().datagrams_per_turn(3));
        let (mut sim, log) = (Sim::new(options), Log::default());
        let udp = sim.bind_udp(|_worker| Recorder::new(&log));
        sim.settle();
        for number in 0..20 {
            sim.send_datagram(udp, peer(number), b"word");
        }
        sim.begin_drain(Duration::from_secs(5));
        sim.settle();
        assert!(sim.is_finished(), "seed {seed}");
        assert_eq!(sim.udp_open(udp), 0);
        for number in 0..20 {
            assert_eq!(words(&mut sim, peer(number)), ["WORD"], "seed {seed}");
        }
        assert_eq!(log.borrow().iter().filter(|what| *what == "dropped").count(), 2);
        sim.send_datagram(udp, peer(1), b"late");
        sim.run();
        assert_eq!(words(&mut sim, peer(1)), [""; 0]);
    }
}

#[test]
fn a_protocol_that_needs_longer_gets_it_but_not_beyond_the_deadline() {
    let seconds = Duration::from_secs;
    for (longer, within, expected) in [(2, 5, 2), (9, 5, 5)] {
        let (mut sim, log) = (Sim::new(Options::default()), Log::default());
        let udp = sim.bind_udp(|_worker| Recorder::going_on_for(&log, seconds(longer)));
        sim.run();
        sim.begin_drain(seconds(within));
        sim.advance(seconds(expected) - Duration::from_millis(10));
        sim.send_datagram(udp, peer(1), b"still");
        sim.run();
        assert_eq!(words(&mut sim, peer(1)), ["STILL"]);
        sim.advance(Duration::from_millis(20));
        assert!(sim.is_finished());
    }
    // A shorter drain shortens that.
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    sim.bind_udp(|_worker| Recorder::going_on_for(&log, seconds(9)));
    sim.run();
    sim.begin_drain(seconds(10));
    sim.advance(seconds(1));
    sim.begin_drain(seconds(1));
    sim.advance(Duration::from_millis(1010));
    assert!(sim.is_finished());
    // One that is done sooner closes.
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let udp = sim.bind_udp(|_worker| Recorder::going_on_for(&log, seconds(9)));
    sim.run();
    sim.begin_drain(seconds(10));
    sim.run();
    assert!(!sim.is_finished());
    sim.send_datagram(udp, peer(1), b"close");
    sim.run();
    assert!(sim.is_finished());
}

#[test]
fn arrivals_do_not_prolong_a_drain_beyond_its_grace() {
    let mut sim = Sim::new(Options::default().udp(UdpOptions::default().datagrams_per_turn(1)));
    let udp = sim.bind_udp(|_worker| Echo);
    sim.run();
    sim.begin_drain(Duration::from_secs(60));
    for _ in 0..300 {
        sim.send_datagram(udp, peer(1), b"flood");
        sim.send_datagram(udp, peer(1), b"flood");
        sim.turn();
        sim.stand_still(Duration::from_millis(10));
    }
    assert!(sim.is_finished());
    assert!(
        (50..150).contains(&sim.stats().datagrams_sent),
        "a second of them: {}",
        sim.stats().datagrams_sent
    );
}

#[test]
fn a_panic_in_a_batch_of_ones_own_costs_what_was_taken_out() {
    /// Takes two at a time, and panics over the first of them once.
    struct Pairs(Rc<RefCell<Vec<u8>>>, bool);
    impl DatagramProtocol for Pairs {
        fn received(&mut self, _socket: &mut DatagramSocket<'_>, _datagram: Datagram<'_>) {}
        fn received_batch(&mut self, _socket: &mut DatagramSocket<'_>, batch: &mut Datagrams<'_>) {
            while let Some(first) = batch.next() {
                let second = batch.next();
                if std::mem::take(&mut self.1) {
                    panic!("over a pair");
                }
                for datagram in [Some(first), second].into_iter().flatten() {
                    self.0.borrow_mut().push(datagram.into_bytes()[0]);
                }
            }
        }
    }
    let (mut sim, seen) = (Sim::new(Options::default()), Rc::default());
    let udp = sim.bind_udp(|_worker| Pairs(Rc::clone(&seen), true));
    for index in 0..7 {
        sim.send_datagram(udp, peer(1), &[index]);
    }
    sim.run();
    assert_eq!(*seen.borrow(), [2, 3, 4, 5, 6]);
    assert_eq!(sim.stats().panics, 1);
}

#[test]
fn a_run_repeats_to_the_byte_by_its_seed() {
    let run = |seed| {
        let latency = Duration::ZERO..=Duration::from_millis(9);
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()).latency(latency));
        let udp = sim.bind_udp(|_worker| Echo);
        for index in 0..50 {
            sim.send_datagram(udp, peer(1), &[index]);
        }
        sim.settle();
        (sim.take_datagrams(peer(1)), sim.stats())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}

/// Panics in each callback that is named.
struct Panicky(&'static str);

impl Panicky {
    fn callback(&self, name: &str) {
        assert_ne!(name, self.0, "asked to");
    }
}

impl DatagramProtocol for Panicky {
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        socket.set_deadline(Duration::from_millis(10));
        socket.waker().wake();
        self.callback("opened");
    }

    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        socket.append(datagram.path(), |out| {
            out.extend_from_slice(datagram.bytes());
            self.callback("received");
        });
    }

    fn deadline(&mut self, _socket: &mut DatagramSocket<'_>) {
        self.callback("deadline");
    }

    fn woken(&mut self, _socket: &mut DatagramSocket<'_>) {
        self.callback("woken");
    }

    fn stopping(&mut self, _socket: &mut DatagramSocket<'_>) -> Duration {
        self.callback("stopping");
        Duration::ZERO
    }
}

impl Drop for Panicky {
    fn drop(&mut self) {
        self.callback("drop");
    }
}

#[test]
fn a_panic_in_any_callback_costs_that_call_and_is_counted() {
    for name in ["opened", "received", "deadline", "woken", "stopping", "drop", "none of them"] {
        let mut sim = Sim::new(Options::default());
        let udp = sim.bind_udp(|_worker| Panicky(name));
        sim.run();
        sim.send_datagram(udp, peer(1), b"ping");
        sim.advance(Duration::from_millis(20));
        let expected = if name == "received" { 0 } else { 1 };
        assert_eq!(sim.take_datagrams(peer(1)).len(), expected, "{name}: half a datagram is none");
        assert_eq!(sim.udp_open(udp), 1, "{name}");
        sim.begin_drain(Duration::from_secs(1));
        sim.run();
        assert!(sim.is_finished(), "{name}");
        assert_eq!(sim.stats().panics, u64::from(name != "none of them"), "{name}");
    }
}

#[test]
fn a_socket_that_closes_hands_over_nothing_more() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let udp = sim.bind_udp(|_worker| Recorder::new(&log));
    for word in ["one", "close", "two"] {
        sim.send_datagram(udp, peer(1), word.as_bytes());
    }
    sim.run();
    assert_eq!(words(&mut sim, peer(1)), ["ONE"], "what was queued leaves");
    assert_eq!(*log.borrow(), ["opened", "one", "close", "dropped"]);
    assert_eq!(sim.udp_open(udp), 0);
    let before = sim.stats().datagrams_received;
    sim.send_datagram(udp, peer(1), b"three");
    sim.run();
    assert_eq!(sim.stats().datagrams_received, before);
}

#[test]
fn workers_with_ports_of_their_own_get_what_is_sent_there() {
    let mut sim = Sim::new(Options::default().workers(3));
    let (shared, own) =
        (sim.bind_udp(|_worker| Echo), sim.bind_udp_own_ports(|worker| Asker(worker.index as u8)));
    sim.run();
    let asked = sim.take_datagrams(peer(9));
    assert_eq!(asked.len(), 3);
    for (from, bytes) in &asked {
        sim.send_datagram_at(*from, peer(9), bytes);
    }
    sim.run();
    let mut thanked: Vec<_> = sim.take_datagrams(peer(9));
    assert!(thanked.iter().all(|(_, bytes)| bytes == b"right"));
    thanked.sort();
    let mut ports: Vec<SocketAddr> = asked.into_iter().map(|(from, _)| from).collect();
    ports.sort();
    assert_eq!(thanked.into_iter().map(|(from, _)| from).collect::<Vec<_>>(), ports);
    assert_eq!(sim.udp_addr(own), ports[0]);
    assert_ne!(sim.udp_addr(shared), sim.udp_addr(own));
    sim.send_datagram_at("127.0.0.1:9".parse().unwrap(), peer(9), b"nobody is there");
    sim.run();
    assert_eq!(sim.take_datagrams(peer(9)), []);
}

/// Asks with the number of its worker, and says whether the answer is its own.
struct Asker(u8);

impl DatagramProtocol for Asker {
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        socket.send(peer(9), &[self.0]);
    }

    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        let is_own = datagram.bytes() == [self.0];
        socket.send(datagram.path(), if is_own { b"right" } else { b"wrong" });
    }
}

/// Counts in the worker's state, and answers later with what it has counted.
struct Counter;

impl DatagramProtocol for Counter {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        let count = socket.state::<RefCell<u8>>();
        *count.borrow_mut() += 1;
        let (id, path) = (socket.id(), datagram.path());
        socket.local().commands().after(Duration::from_millis(10), move |local| {
            let counted = *local.state::<RefCell<u8>>().borrow();
            local.commands().send_datagram(id, path, Bytes::copy_from_slice(&[counted]));
        });
    }
}

#[test]
fn a_socket_reaches_its_workers_state_and_code_of_its_worker_reaches_the_socket() {
    let mut sim = Sim::new(Options::default());
    sim.state(|_worker| RefCell::new(40_u8));
    let udp = sim.bind_udp(|worker| {
        assert_eq!(*worker.state::<RefCell<u8>>().borrow(), 40);
        Counter
    });
    sim.send_datagram(udp, peer(1), b"one");
    sim.send_datagram(udp, peer(1), b"two");
    sim.run();
    assert_eq!(sim.take_datagrams(peer(1)), []);
    sim.advance(Duration::from_millis(20));
    let answers: Vec<_> = sim.take_datagrams(peer(1)).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(answers, [[42], [42]]);
}

/// Answers the first, and takes what is queued back, or would, on behalf of the second.
struct Clears(u32);

impl DatagramProtocol for Clears {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        self.0 += 1;
        match self.0 {
            2 => drop(socket.append(datagram.path(), |out| {
                out.clear();
                out.extend_from_slice(b"mine");
            })),
            _ => drop(socket.send(datagram.path(), datagram.bytes())),
        }
    }
}

#[test]
fn who_writes_a_datagram_cannot_reach_those_of_others() {
    let mut sim = Sim::new(Options::default());
    let udp = sim.bind_udp(|_worker| Clears(0));
    let peers: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    for (peer, bytes) in peers.iter().zip([b"a", b"b", b"c"]) {
        sim.send_datagram(udp, *peer, bytes);
    }
    sim.run();
    let got: Vec<Vec<u8>> = peers.iter().map(|peer| sim.take_datagrams(*peer).remove(0).1).collect();
    assert_eq!(got, [&b"a"[..], b"mine", b"c"]);
}
