//! Every way to end, and never to begin.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::{Options, Sim};
use netpoll_core::tls::rustls::{AlertDescription, Error};
use netpoll_core::{Conn, Flow, Input, Layered, Protocol};

use crate::support::{Client, Log, client_config, server, shaken, taken, world};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_cut_is_no_end_and_resets_the_connection() {
    let (mut sim, mut client, log) = shaken(Options::default(), &server("server").build().unwrap());
    client.far.say(b"the beginning of something");
    client.talk(&mut sim);
    sim.finish(client.peer);
    sim.settle();
    assert!(sim.is_reset(client.peer));
    let why = "lost: its layer has failed: the connection was cut: the peer has not said that it ends";
    assert_eq!(taken(&log), [why]);
    assert_eq!((sim.stats().layer_failures, sim.open(), sim.blocks_in_use()), (1, 0, 0));
}

#[test]
fn whoever_speaks_something_else_is_told_so_closed_and_counted() {
    for garbage in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 5], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0xff; 3000]]
    {
        let (mut sim, listener, log) = world(Options::default(), &server("server").build().unwrap());
        let peer = sim.connect(listener);
        sim.send(peer, garbage);
        sim.settle();
        let said = sim.take_received(peer);
        assert!(matches!(said[..], [21, 3, _, 0, 2, 2, _]), "a fatal alert: {said:?}");
        sim.advance(5 * SECOND);
        assert!(sim.is_closed(peer) && !sim.is_reset(peer));
        let log = taken(&log);
        assert!(matches!(&log[..], [lost] if lost.starts_with("lost: its layer has failed: ")), "{log:?}");
        let stats = sim.stats();
        assert_eq!((stats.layer_failures, stats.panics, sim.open(), sim.blocks_in_use()), (1, 0, 0, 0));
    }
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_connection_with_an_alert() {
    let (mut sim, mut client, log) = shaken(Options::default(), &server("server").build().unwrap());
    client.far.say(b"a hundred pounds");
    let mut wire = client.far.wire();
    wire[9] ^= 1;
    sim.send(client.peer, &wire);
    sim.settle();
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    assert_eq!(client.far.error, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    sim.advance(5 * SECOND);
    assert_eq!((taken(&log).len(), sim.open(), sim.stats().layer_failures), (1, 0, 1));
}

#[test]
fn a_handshake_that_does_not_end_is_closed_in_time() {
    let tls = server("server").handshake_time(3 * SECOND).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    let (hello, silent) = (client.far.wire(), sim.connect(listener));
    sim.send(client.peer, &hello[..100]);
    sim.advance(2 * SECOND);
    // That something comes does not prolong it.
    sim.send(client.peer, &hello[100..]);
    sim.advance(SECOND - Duration::from_millis(2));
    assert!(!sim.is_closed(client.peer) && !sim.is_closed(silent));
    sim.advance(Duration::from_millis(4));
    assert!(sim.is_closed(client.peer) && sim.is_closed(silent));
    assert_eq!(taken(&log), ["lost: its layer has failed: the handshake took too long"; 2]);
    assert_eq!((sim.stats().layer_failures, sim.blocks_in_use()), (2, 0));
}

#[test]
fn a_deadline_of_the_handshake_is_none_behind_it() {
    let (mut sim, mut client, _) = shaken(Options::default(), &server("server").build().unwrap());
    sim.advance(60 * SECOND);
    client.far.say(b"still there?");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"still there?");
}

#[test]
fn who_connects_only_to_see_whether_somebody_listens_is_no_failure_and_who_leaves_in_the_middle_is_one() {
    let (mut sim, listener, log) = world(Options::default(), &server("server").build().unwrap());
    let probe = sim.connect(listener);
    sim.finish(probe);
    sim.settle();
    assert_eq!((taken(&log), sim.stats().layer_failures), (vec!["lost: closed by us".to_owned()], 0));

    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    let hello = client.far.wire();
    sim.send(client.peer, &hello[..50]);
    sim.finish(client.peer);
    sim.settle();
    let why = "lost: its layer has failed: the peer has left in the middle of the handshake";
    assert_eq!((taken(&log), sim.stats().layer_failures), (vec![why.to_owned()], 1));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn no_more_of_a_handshake_waits_than_may() {
    let tls = server("server").handshake_bytes_max(2000).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let peer = sim.connect(listener);
    // A hello of 40 000 bytes, in records of a hundred.
    let mut hello = vec![1, 0, 0x9c, 0x40];
    hello.resize(40_000, 0);
    for piece in hello.chunks(100) {
        let mut record = vec![0x16, 3, 1, 0, piece.len() as u8];
        record.extend(piece);
        sim.send(peer, &record);
        sim.run();
        assert!(sim.stats().held_input_bytes <= 4096);
    }
    sim.settle();
    let why = "lost: its layer has failed: more of a handshake has come than may wait for the rest";
    assert_eq!(taken(&log), [why]);
    sim.advance(5 * SECOND);
    assert_eq!((sim.stats().layer_failures, sim.open(), sim.blocks_in_use()), (1, 0, 0));
}

/// Answers when the peer has said all.
struct AnswersAtTheEnd(Vec<u8>);

impl Protocol for AnswersAtTheEnd {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.extend_from_slice(input.bytes());
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        conn.set_deadline(SECOND);
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&self.0);
        Flow::Close
    }
}

#[test]
fn who_has_ended_its_direction_is_answered_later() {
    let (mut sim, tls) = (Sim::new(Options::default()), server("server").build().unwrap());
    let listener = sim.listen(move |_peer| Layered::new(tls.layer(), AnswersAtTheEnd(Vec::new())));
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    client.far.say(b"a question");
    client.far.end();
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"");
    assert!(!client.far.has_ended);
    sim.advance(2 * SECOND);
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    assert_eq!(client.heard(), b"a question");
    assert!(client.far.has_ended && !sim.is_reset(client.peer));
}

/// Says all it has to say, and hears on.
struct SaysAndHears(Log);

impl Protocol for SaysAndHears {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"all of it");
        conn.finish();
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push(String::from_utf8_lossy(input.bytes()).into_owned());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn whose_direction_has_ended_hears_on() {
    let (mut sim, tls, log) =
        (Sim::new(Options::default()), server("server").build().unwrap(), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(tls.layer(), SaysAndHears(Rc::clone(&log)))
    });
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"all of it");
    assert!(client.far.has_ended, "behind a last word");
    client.far.say(b"said later");
    client.talk(&mut sim);
    assert_eq!(taken(&log), ["said later"]);
    client.far.end();
    client.talk(&mut sim);
    sim.finish(client.peer);
    sim.settle();
    assert_eq!((sim.open(), sim.stats().layer_failures, sim.is_reset(client.peer)), (0, 0, false));
}

#[test]
fn a_drain_ends_with_a_last_word() {
    let (mut sim, mut client, log) = shaken(Options::default(), &server("server").build().unwrap());
    sim.begin_drain(30 * SECOND);
    sim.advance(5 * SECOND);
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    assert!(client.far.has_ended && !sim.is_reset(client.peer));
    assert_eq!(taken(&log), ["lost: closed by us"]);
}

#[test]
fn key_updates_of_a_peer_are_followed_and_a_flood_of_them_is_not() {
    let (mut sim, mut client, log) = shaken(Options::default(), &server("server").build().unwrap());
    for _ in 0..20 {
        client.far.tls.refresh_traffic_keys().unwrap();
        client.far.say(b"under a new key");
        client.talk(&mut sim);
        assert_eq!(client.heard(), b"under a new key");
    }
    for _ in 0..40 {
        client.far.tls.refresh_traffic_keys().unwrap();
        let wire = client.far.wire();
        sim.send(client.peer, &wire);
    }
    sim.advance(5 * SECOND);
    let log = taken(&log);
    assert!(matches!(&log[..], [lost] if lost.contains("TooManyKeyUpdateRequests")), "{log:?}");
}

/// Numbers that look like chance and repeat with their seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn whatever_becomes_of_the_bytes_on_their_way_nothing_panics_and_nothing_is_left() {
    let (tls, config) = (server("server").build().unwrap(), Arc::new(client_config()));
    for seed in 0..400 {
        let mut chance = Chance(seed);
        let (mut sim, listener, _) = world(Options::default().seed(seed), &tls);
        let mut client = Client::connect(&mut sim, listener, &config, "localhost");
        client.far.say(&[b'a'; 3000]);
        for _ in 0..5 {
            let mut wire = client.far.wire();
            if !wire.is_empty() && chance.below(3) == 0 {
                let at = chance.below(wire.len());
                match chance.below(4) {
                    0 => wire[at] ^= 1 << chance.below(8),
                    1 => drop(wire.remove(at)),
                    2 => wire.insert(at, 0),
                    _ => wire.extend_from_within(at..),
                }
            }
            sim.send(client.peer, &wire);
            sim.settle();
            let came = sim.take_received(client.peer);
            client.far.hear(&came);
            if client.far.error.is_some() {
                break;
            }
            client.far.say(b"more");
        }
        sim.finish(client.peer);
        sim.advance(60 * SECOND);
        assert_eq!((sim.stats().panics, sim.open(), sim.blocks_in_use()), (0, 0, 0), "seed {seed}");
    }
}
