//! Peers that know TLS well, of whom most mean no good.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::{Options, Sim};
use netpoll_core::tls::TlsServer;
use netpoll_core::tls::rustls::{ClientConnection, ServerConnection};
use netpoll_core::{Commands, Conn, ConnLimits, Flow, Input, Layered, Lost, Protocol};

use crate::support::{Client, Far, Log, client_config, server, server_config, shaken, taken, world};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn whom_another_client_has_named_is_nothing_to_a_client_that_names_nobody() {
    let tls = server("server").alpn(["h2"]).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let mut stranger = client_config();
    stranger.alpn_protocols = vec![b"none-of-ours".to_vec()];
    let mut stranger = Client::connect(&mut sim, listener, &Arc::new(stranger), "localhost");
    stranger.talk(&mut sim);
    assert!(stranger.far.error.is_some());
    sim.advance(5 * SECOND);
    taken(&log);
    let mut config = client_config();
    config.enable_sni = false;
    config.max_fragment_size = Some(64);
    let mut client = Client::connect(&mut sim, listener, &Arc::new(config), "localhost");
    let hello = client.far.wire();
    for piece in hello.chunks(64) {
        sim.send(client.peer, piece);
        sim.settle();
    }
    client.talk(&mut sim);
    assert_eq!(client.far.error, None);
    assert!(taken(&log)[0].contains("name None"));
}

#[test]
fn records_are_no_input_that_the_protocol_has_left() {
    let mut options = Options::default();
    options.limits = ConnLimits::default().input_bytes_max(2000);
    let (mut sim, mut client, log) = shaken(options, &server("server").build().unwrap());
    let text = vec![b'a'; 50_000];
    client.far.say(&text);
    let wire = client.far.wire();
    for piece in wire.chunks(3000) {
        sim.send(client.peer, piece);
        sim.settle();
    }
    let came = sim.take_received(client.peer);
    client.far.hear(&came);
    assert_eq!(client.heard().len(), text.len(), "{:?}", taken(&log));
}

#[test]
fn who_has_said_all_is_answered_also_when_its_turn_comes_later() {
    let tls = server("server").handshake_steps_per_turn(1).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let config = Arc::new(client_config());
    let mut clients: Vec<_> =
        (0..20).map(|_| Client::connect(&mut sim, listener, &config, "localhost")).collect();
    for client in &mut clients {
        let hello = client.far.wire();
        sim.send(client.peer, &hello);
    }
    sim.settle();
    for client in &mut clients {
        let came = sim.take_received(client.peer);
        client.far.hear(&came);
        client.far.say(b"hello");
        client.far.end();
        let wire = client.far.wire();
        sim.send(client.peer, &wire);
        sim.finish(client.peer);
    }
    sim.settle();
    for client in &mut clients {
        let came = sim.take_received(client.peer);
        client.far.hear(&came);
        assert_eq!(client.heard(), b"hello");
        assert!(client.far.has_ended && !sim.is_reset(client.peer));
    }
    assert_eq!(taken(&log).iter().filter(|said| *said == "lost: closed by us").count(), 20);
}

#[test]
fn who_shakes_hands_for_long_does_not_keep_its_place() {
    let mut options = Options::default();
    options.limits = ConnLimits::default().connections_max(4);
    let (mut sim, listener, _log) = world(options, &server("server").build().unwrap());
    let silent: Vec<_> = (0..4).map(|_| sim.connect(listener)).collect();
    sim.settle();
    sim.advance(SECOND);
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.far.say(b"hello");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"hello");
    assert_eq!(silent.iter().filter(|peer| sim.is_closed(**peer)).count(), 1);
}

/// A client is told by one server that it may send early data, and sends it to another.
#[test]
fn early_data_that_another_server_has_allowed_is_skipped() {
    for (records, bytes) in [(1, 400), (2, 1400)] {
        let mut config = server_config();
        config.max_early_data_size = 16_384;
        let tls = TlsServer::from_config(config.clone()).unwrap();
        let mut client = client_config();
        client.enable_early_data = true;
        client.max_fragment_size = Some(bytes + 32);
        let client = Arc::new(client);
        let mut first =
            Far::new(ClientConnection::new(Arc::clone(&client), "localhost".try_into().unwrap()).unwrap());
        let mut other = Far::new(ServerConnection::new(Arc::new(config)).unwrap());
        loop {
            let (there, back) = (first.wire(), other.wire());
            if there.is_empty() && back.is_empty() {
                break;
            }
            other.hear(&there);
            first.hear(&back);
        }
        let (mut sim, listener, log) = world(Options::default(), &tls);
        let mut client = Client::connect(&mut sim, listener, &client, "localhost");
        {
            let mut early = client.far.tls.early_data().expect("it has a ticket");
            for _ in 0..records {
                early.write_all(&vec![b'e'; bytes]).unwrap();
            }
        }
        client.far.say(b"hello");
        client.talk(&mut sim);
        assert_eq!((client.far.error.clone(), client.heard()), (None, b"hello".to_vec()));
        assert!(taken(&log)[0].ends_with("resumed true"));
    }
}

#[test]
fn a_record_that_is_no_good_behind_our_own_last_word_ends_the_connection() {
    struct Finishes(Log);
    impl Protocol for Finishes {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            conn.send(b"all of it");
            conn.finish();
            Flow::Continue
        }
        fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            Flow::Continue
        }
        fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
            self.0.borrow_mut().push(format!("lost: {reason}"));
        }
    }
    let (mut sim, tls, log) =
        (Sim::new(Options::default()), server("server").build().unwrap(), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(tls.layer(), Finishes(Rc::clone(&log)))
    });
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"all of it");
    client.far.say(b"said later");
    let mut wire = client.far.wire();
    wire[9] ^= 1;
    sim.send(client.peer, &wire);
    sim.settle();
    sim.advance(20 * SECOND);
    let log = taken(&log);
    // rustls asserts in debug builds that it says no alert behind a last word of its own.
    let why = if cfg!(debug_assertions) { "a callback panicked" } else { "its layer has failed" };
    assert!(matches!(&log[..], [lost] if lost.contains(why)), "{log:?}");
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn a_flood_of_pieces_of_hellos_does_not_keep_a_client_waiting_for_ever() {
    let (mut sim, listener, _log) = world(Options::default(), &server("server").build().unwrap());
    let flood: Vec<_> = (0..200).map(|_| sim.connect(listener)).collect();
    let mut begins = vec![1, 0, 0xff, 0];
    begins.resize(60_000, 0);
    let pieces: Vec<u8> = begins.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    for peer in &flood {
        sim.send(*peer, &pieces[..60_000]);
    }
    sim.turn();
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.far.say(b"hello");
    let mut turns = 0;
    while client.far.heard.is_empty() {
        let wire = client.far.wire();
        sim.send(client.peer, &wire);
        sim.turn();
        turns += 1;
        let came = sim.take_received(client.peer);
        client.far.hear(&came);
        assert!(turns < 5000, "{turns} turns");
    }
    println!("{turns} turns");
}
