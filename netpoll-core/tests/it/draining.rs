//! A drain under load: what was taken is answered, and it ends whatever peers do.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{Address, Budget, Conn, ConnectOptions, Flow, Input, Protocol, Runtime, Workers};

use crate::support::Echo;

const HALF: Duration = Duration::from_millis(500);

/// Answers each byte with itself, as many in a turn as the budget says; its drain is the machinery's.
struct Bytewise;

impl Protocol for Bytewise {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        for _ in 0..conn.turn_budget() {
            let Some(byte) = input.bytes().first().copied() else { return Flow::Continue };
            conn.send(&[byte]);
            input.advance(1);
        }
        if input.is_empty() { Flow::Continue } else { Flow::Yield }
    }
}

/// A world of those with this budget, and a peer.
fn bytewise(budget: Budget) -> (Sim, PeerId) {
    let mut sim = Sim::new(Options::default().budget(budget));
    let listener = sim.listen(|_peer| Bytewise);
    let peer = sim.connect(listener);
    sim.settle();
    (sim, peer)
}

#[test]
fn who_pipelines_all_the_time_is_closed_between_two_messages_when_the_grace_of_a_drain_is_over() {
    for messages_in_a_turn in [1, 2, 64] {
        let (mut sim, peer) = bytewise(Budget::fixed(messages_in_a_turn));
        sim.begin_drain(Duration::from_secs(4));
        let mut said = 0;
        while !sim.is_closed(peer) {
            said += 1;
            assert!(said <= 3, "the grace of 1 s is over");
            sim.send(peer, b"abc");
            // The clock of its deadlines moves while it has more than a turn's work before it.
            sim.stand_still(HALF);
            sim.run();
            assert_eq!(sim.take_received(peer), b"abc", "in half second {said}");
        }
        assert!(!sim.is_reset(peer), "what was taken was answered");
    }
}

#[test]
fn who_never_stops_sending_does_not_hold_up_a_drain() {
    let (mut sim, peer) = bytewise(Budget::fixed(1));
    sim.begin_drain(Duration::from_secs(60));
    let (mut sent, mut got, mut turns) = (0, Vec::new(), 0);
    while !sim.is_closed(peer) {
        turns += 1;
        assert!(turns < 6000, "a grace, another one for what had arrived, and what was taken in by then");
        // More than is answered in a turn: something is left in every one, and more and more waits in the socket.
        sim.send(peer, b"ab");
        sent += 2;
        sim.turn();
        sim.stand_still(Duration::from_millis(1));
        sim.drain_received(peer, &mut got);
    }
    assert!(!sim.is_reset(peer));
    assert!(got.len() < sent && b"ab".repeat(sent).starts_with(&got), "{} of {sent}", got.len());
    assert!(turns >= 1000, "it has had its grace");
    sim.finish(peer);
    sim.settle();
    assert!(sim.is_finished());
}

#[test]
fn who_always_leaves_something_for_later_and_takes_nothing_does_not_hold_up_a_drain() {
    struct Hesitant;
    impl Protocol for Hesitant {
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Yield
        }
    }
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Hesitant);
    let peer = sim.connect(listener);
    sim.send(peer, b"x");
    sim.begin_drain(Duration::from_secs(60));
    for _ in 0..5000 {
        sim.turn();
        sim.stand_still(Duration::from_millis(1));
    }
    assert!(sim.is_finished(), "two graces, and two seconds of silence");
}

#[test]
fn who_takes_messages_without_an_answer_takes_what_was_read_before_it_is_closed() {
    /// Takes a byte in each turn and writes it down.
    struct Silent(Rc<RefCell<Vec<u8>>>);
    impl Protocol for Silent {
        fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            self.0.borrow_mut().extend(input.bytes().first());
            input.advance(1.min(input.len()));
            if input.is_empty() { Flow::Continue } else { Flow::Yield }
        }
    }
    let taken = Rc::<RefCell<Vec<u8>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let taken = Rc::clone(&taken);
        move |_peer| Silent(Rc::clone(&taken))
    });
    let peer = sim.connect(listener);
    sim.send(peer, &[b'x'; 100]);
    sim.begin_drain(Duration::from_secs(60));
    for _ in 0..200 {
        sim.turn();
        sim.stand_still(Duration::from_millis(50));
    }
    assert_eq!(taken.borrow().len(), 100);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn a_drain_leaves_time_for_the_end_of_who_is_in_the_middle_of_something() {
    // As long as the grace: half of it is for what comes, the rest for what has come.
    let (mut sim, peer) = bytewise(Budget::fixed(1));
    sim.begin_drain(Duration::from_secs(1));
    while !sim.is_closed(peer) {
        // As much as is answered: something is left in every turn.
        sim.send(peer, b"ab");
        for _ in 0..2 {
            sim.turn();
            sim.stand_still(Duration::from_millis(1));
        }
    }
    assert!(!sim.is_reset(peer));
    sim.finish(peer);
    sim.settle();
    assert!(sim.is_finished());
}

#[test]
fn on_real_sockets_busy_pipelines_end_behind_an_answer() {
    const PIPELINE: usize = 2000;
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .listen("127.0.0.1:0", |_worker| |_peer| Bytewise)
        .unwrap()
        .start()
        .unwrap();
    let addr = running.local_addrs()[0].clone();
    let (answered, is_answered) = mpsc::channel();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&addr).unwrap();
            let answered = answered.clone();
            std::thread::spawn(move || {
                let (out, mut back) = (vec![b'x'; PIPELINE], vec![0; PIPELINE]);
                loop {
                    stream.write_all(&out)?;
                    let mut got = 0;
                    while got < PIPELINE {
                        match stream.read(&mut back)? {
                            0 => return std::io::Result::Ok(()),
                            bytes => got += bytes,
                        }
                    }
                    // The test may have seen enough.
                    let _ = answered.send(());
                }
            })
        })
        .collect();
    for _ in 0..80 {
        is_answered.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    let report = running.stop(Duration::from_secs(60)).unwrap();
    assert_eq!((report.open, report.cut), (8, 0));
    assert!(report.took < Duration::from_secs(30), "{report}");
    for client in clients {
        client.join().unwrap().expect("an end, and no reset");
    }
}

#[test]
fn who_is_in_the_middle_of_nothing_still_ends_with_its_grace() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Echo);
    let peer = sim.connect(listener);
    sim.settle();
    sim.begin_drain(Duration::from_secs(60));
    sim.advance(Duration::from_millis(990));
    assert!(!sim.is_closed(peer));
    sim.advance(Duration::from_millis(20));
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

/// Owes an answer for ever, and has asked others for it.
struct Debtor(Address);

impl Protocol for Debtor {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.commands().connect(self.0.clone(), ConnectOptions::default(), Waits);
        Flow::Pause
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }
}

/// Waits for an answer, whatever else there is.
struct Waits;

impl Protocol for Waits {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"a question");
        Flow::Continue
    }

    fn received(&mut self, _: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }
}

#[test]
fn a_report_names_some_of_those_that_the_deadline_has_cut() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::from(upstream.local_addr().unwrap());
    let asked = to.clone();
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .pin(false)
        .listen("127.0.0.1:0", move |_worker| {
            let asked = asked.clone();
            move |_peer| Debtor(asked.clone())
        })
        .unwrap()
        .start()
        .unwrap();
    let addr = running.local_addrs()[0].clone();
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut client = TcpStream::connect(&addr).unwrap();
        client.write_all(b"x").unwrap();
        let (mut asks, _) = upstream.accept().unwrap();
        asks.read_exact(&mut [0; 10]).unwrap();
        held.push((client, asks));
    }
    let report = running.stop(Duration::ZERO).unwrap();
    assert_eq!((report.cut, report.cut_peers.len()), (12, 8), "{report}");
    let clients: Vec<Address> = held.iter().map(|(client, _)| client.local_addr().unwrap().into()).collect();
    for peer in &report.cut_peers {
        assert!(if peer.is_dialed { peer.addr == to } else { clients.contains(&peer.addr) }, "{report}");
    }
    let line = report.to_string();
    let first = report.cut_peers[0].to_string();
    assert!(line.contains(&format!(" 12 of them cut by the deadline ({first}, ")), "{line}");
    assert!(line.ends_with(" and 4 more)"), "{line}");
}
