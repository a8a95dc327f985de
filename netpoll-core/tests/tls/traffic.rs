//! Bytes both ways.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Conn, ConnLimits, Flow, Input, Layered, Protocol};

use crate::support::{Client, client_config, server, shaken, taken, world};

/// Bytes that do not repeat where a record ends.
fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[test]
fn what_is_said_comes_back_whatever_its_length() {
    let (mut sim, mut client, _) = shaken(Options::default(), &server("server").build().unwrap());
    for bytes in [1, 2, 100, 16_383, 16_384, 16_385, 65_536, 1_000_000] {
        client.far.say(&text(bytes));
        client.talk(&mut sim);
        assert!(client.heard() == text(bytes), "{bytes} bytes");
    }
    client.far.end();
    client.talk(&mut sim);
    assert!(client.far.has_ended && sim.is_closed(client.peer) && !sim.is_reset(client.peer));
    assert_eq!(
        (sim.open(), sim.blocks_in_use(), sim.stats().panics, sim.stats().layer_failures),
        (0, 0, 0, 0)
    );
}

#[test]
fn storms_of_the_network_change_nothing() {
    let tls = server("server").build().unwrap();
    for seed in 1..20 {
        let (mut sim, mut client, log) = shaken(Options::default().seed(seed).faults(Faults::stormy()), &tls);
        for bytes in [1, 5000, 200_000] {
            client.far.say(&text(bytes));
            client.talk(&mut sim);
            assert!(client.heard() == text(bytes), "seed {seed}, {bytes} bytes");
        }
        client.far.end();
        client.talk(&mut sim);
        sim.finish(client.peer);
        sim.settle();
        assert_eq!(taken(&log), ["eof", "lost: closed by us"], "seed {seed}");
        assert!(client.far.has_ended, "seed {seed}");
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0));
    }
}

#[test]
fn a_wire_that_brings_a_byte_at_a_time_is_one_like_any_other() {
    let (mut sim, listener, log) = world(Options::default(), &server("server").build().unwrap());
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.far.say(b"hello");
    while !client.far.tls.wants_write() || client.far.heard.is_empty() {
        let wire = client.far.wire();
        if wire.is_empty() {
            break;
        }
        for byte in wire {
            sim.send(client.peer, &[byte]);
            sim.settle();
        }
        let came = sim.take_received(client.peer);
        client.far.hear(&came);
    }
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"hello");
    client.far.end();
    client.talk(&mut sim);
    assert_eq!(taken(&log)[1..], ["eof", "lost: closed by us"]);
}

#[test]
fn records_that_come_with_the_end_of_the_handshake_are_read_and_so_is_the_end_behind_them() {
    let (mut sim, listener, log) = world(Options::default(), &server("server").build().unwrap());
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    let hello = client.far.wire();
    sim.send(client.peer, &hello);
    sim.settle();
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    client.far.say(b"one, ");
    client.far.say(b"two, ");
    client.far.say(b"three");
    client.far.end();
    let wire = client.far.wire();
    sim.send(client.peer, &wire);
    sim.finish(client.peer);
    sim.settle();
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    assert_eq!(client.heard(), b"one, two, three");
    assert!(client.far.has_ended && !sim.is_reset(client.peer));
    assert_eq!(taken(&log)[1..], ["eof", "lost: closed by us"]);
}

#[test]
fn a_connection_between_two_messages_owns_no_block() {
    let (mut sim, mut client, _) = shaken(Options::default(), &server("server").build().unwrap());
    assert_eq!(sim.blocks_in_use(), 0, "behind the handshake");
    client.far.say(&text(100_000));
    client.talk(&mut sim);
    assert_eq!((sim.open(), sim.blocks_in_use()), (1, 0));
}

/// Sends without end.
struct Fountain(Rc<Cell<usize>>);

impl Protocol for Fountain {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.drained(conn)
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        while !conn.is_backed_up() {
            conn.send(&[b'f'; 10_000]);
            self.0.set(self.0.get() + 10_000);
        }
        Flow::Continue
    }
}

#[test]
fn a_client_that_does_not_read_holds_no_more_than_high_water_and_is_cut() {
    let (mut sim, sent) = (Sim::new(Options::default()), Rc::<Cell<usize>>::default());
    let tls = server("server").build().unwrap();
    let listener = sim.listen({
        let sent = Rc::clone(&sent);
        move |_peer| Layered::new(tls.layer(), Fountain(Rc::clone(&sent)))
    });
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    let hello = client.far.wire();
    sim.send(client.peer, &hello);
    sim.settle();
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    sim.stop_reading(client.peer);
    let wire = client.far.wire();
    sim.send(client.peer, &wire);
    sim.settle();
    let stopped_at = sent.get();
    let held = sim.stats().held_output_bytes as usize;
    assert!(held <= 2 * ConnLimits::default().write_high_bytes, "{held} bytes are held");
    sim.advance(Duration::from_secs(60));
    assert_eq!(sent.get(), stopped_at);
    assert_eq!((sim.stats().stalled, sim.open(), sim.blocks_in_use()), (1, 0, 0));
}

/// Sends back what it is sent, without TLS.
struct Plain;

impl Protocol for Plain {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn the_handshakes_of_a_burst_take_turns_and_keep_nobody_else_waiting() {
    const PER_TURN: usize = 4;
    let tls = server("server").handshake_steps_per_turn(PER_TURN).build().unwrap();
    let (mut sim, listener, _log) = world(Options::default(), &tls);
    let plain = sim.listen(|_peer| Plain);
    let config = Arc::new(client_config());
    let mut burst: Vec<Client> =
        (0..5 * PER_TURN).map(|_| Client::connect(&mut sim, listener, &config, "localhost")).collect();
    let bystander = sim.connect(plain);
    sim.settle();
    for client in &mut burst {
        let hello = client.far.wire();
        sim.send(client.peer, &hello);
    }
    sim.send(bystander, b"hello");
    let (mut answered, mut turns) = (0, 0);
    while answered < burst.len() {
        sim.turn();
        turns += 1;
        let now: Vec<_> = burst.iter_mut().map(|client| (sim.take_received(client.peer), client)).collect();
        let spoken_to = now.iter().filter(|(came, _)| !came.is_empty()).count();
        assert!(spoken_to <= PER_TURN, "{spoken_to} in one turn");
        answered += spoken_to;
        now.into_iter().for_each(|(came, client)| client.far.hear(&came));
        assert!(turns < 100, "{answered} were answered");
    }
    assert!(turns >= 5);
    assert_eq!(sim.take_received(bystander), b"hello");
    for client in &mut burst {
        client.talk(&mut sim);
        client.far.say(b"all is well");
        client.talk(&mut sim);
        assert_eq!((client.heard(), client.far.error.take()), (b"all is well".to_vec(), None));
    }
}
