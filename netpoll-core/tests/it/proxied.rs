//! Connections behind a proxy that says who its client is.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use netpoll_core::net::in_task;
use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{Conn, Flow, Input, Layered, Peer, Protocol, Proxied, Runtime, Workers};

use crate::chance::{Chance, seeds};
use crate::cipher::Cipher;
use crate::layers::FarEnd;
use crate::support::Echo;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
const SECOND: Duration = Duration::from_secs(1);

/// Tells its client where it comes from, then says what it hears; a drain ends it with a word.
struct Whence(Peer);

impl Protocol for Whence {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(format!("{}\n", self.0.addr).as_bytes());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"bye\n");
        Flow::Close
    }
}

fn connected<P: Protocol>(options: Options, accept: impl FnMut(Peer) -> P + 'static) -> (Sim, PeerId) {
    let mut sim = Sim::new(options);
    let listener = sim.listen(Proxied::accept(accept));
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer)
}

#[test]
fn the_client_is_who_the_header_names_and_the_rest_is_the_clients_however_it_is_cut() {
    for header in [LINE, BINARY] {
        let whole = [header, b"hello"].concat();
        for seed in seeds(60) {
            let options = Options::default().seed(seed).faults(Faults::stormy());
            let (mut sim, peer) = connected(options, Whence);
            let mut chance = Chance::new(seed);
            let mut left = &whole[..];
            while !left.is_empty() {
                let (piece, rest) = left.split_at(1 + chance.below(left.len()));
                sim.send(peer, piece);
                if chance.below(2) == 0 {
                    sim.settle();
                }
                left = rest;
            }
            sim.settle();
            assert_eq!(sim.take_received(peer), b"192.0.2.7:4711\nhello", "seed {seed}");
        }
    }
}

#[test]
fn where_the_proxy_speaks_for_itself_it_is_the_client() {
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        // For itself, whatever addresses there are, and for a client whose datagrams it has.
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x50",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\0\x50",
    ] {
        let (mut sim, peer) = connected(Options::default(), Whence);
        sim.send(peer, header);
        sim.settle();
        let said = String::from_utf8(sim.take_received(peer)).unwrap();
        assert!(!said.contains("192.0.2.7") && said.ends_with('\n'), "{said}");
    }
}

#[test]
fn who_begins_with_anything_else_is_closed_without_a_word() {
    for said in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0"]
    {
        let (mut sim, peer) =
            connected(Options::default(), |_peer| -> Whence { unreachable!("there is no client") });
        sim.send(peer, said);
        sim.settle();
        assert!(sim.is_closed(peer) && sim.take_received(peer).is_empty());
        assert_eq!((sim.stats().panics, sim.stats().open()), (0, 0));
    }
}

#[test]
fn a_header_that_does_not_come_within_five_seconds_is_not_waited_for_and_then_the_deadline_is_the_clients() {
    let (mut sim, silent) = connected(Options::default(), Whence);
    sim.advance(SECOND * 4);
    sim.send(silent, &LINE[..LINE.len() - 1]);
    sim.settle();
    assert!(!sim.is_closed(silent));
    sim.advance(SECOND);
    assert!(sim.is_closed(silent) && sim.take_received(silent).is_empty());

    let (mut sim, peer) = connected(Options::default(), Whence);
    sim.send(peer, LINE);
    sim.advance(SECOND * 60);
    assert!(!sim.is_closed(peer), "the client has no deadline of its own");
}

#[test]
fn a_drain_hears_of_clients_whose_header_is_on_its_way_and_waits_for_no_other() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(Proxied::accept(Whence));
    let [late, silent] = [sim.connect(listener), sim.connect(listener)];
    sim.settle();
    sim.begin_drain(30 * SECOND);
    sim.settle();
    sim.send(late, LINE);
    sim.settle();
    assert_eq!(sim.take_received(late), b"192.0.2.7:4711\nbye\n");
    sim.advance(SECOND * 10);
    assert!(sim.is_closed(late) && sim.is_closed(silent));
    assert!(sim.take_received(silent).is_empty());
}

#[test]
fn layers_and_tasks_take_over_behind_a_header() {
    let (mut sim, peer) = connected(Options::default(), |_peer| Layered::new(Cipher::new(2), Echo));
    let mut far = FarEnd::new();
    let said = [LINE, &far.greeting(), &far.seal(b"secret")].concat();
    sim.send(peer, &said);
    sim.settle();
    let heard = sim.take_received(peer);
    assert_eq!(far.open(&heard), b"secret");

    let (mut sim, peer) = connected(Options::default(), |peer| {
        in_task(|mut stream| async move {
            stream.write_all(peer.addr.to_string().as_bytes()).await.unwrap();
        })
    });
    sim.send(peer, BINARY);
    sim.settle();
    assert_eq!(sim.take_received(peer), b"192.0.2.7:4711");
}

#[test]
fn an_accept_function_that_panics_costs_its_connection_alone() {
    let mut count = 0;
    let (mut sim, first) = connected(Options::default(), move |peer| {
        count += 1;
        assert!(count > 1, "on purpose");
        Whence(peer)
    });
    sim.send(first, LINE);
    sim.settle();
    assert!(sim.is_reset(first));
    assert_eq!(sim.stats().panics, 1);
}

/// From an address of this machine.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn where_others_connect_too_only_proxies_are_believed() {
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", |_worker| {
            let is_proxy = |from: &netpoll_core::Address| from.ip() == Some(IpAddr::from([127, 0, 0, 9]));
            Proxied::accept_from(is_proxy, Whence)
        })
        .unwrap()
        .start()
        .unwrap();
    let to = running.local_addrs()[0].as_socket_addr().unwrap();
    let heard = |last: u8| {
        let mut stream = connect_from(last, to);
        stream.write_all(LINE).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        heard
    };
    assert_eq!(heard(9), "192.0.2.7:4711\n");
    let client = heard(1);
    assert!(
        client.starts_with("127.0.0.1:") && client.ends_with(std::str::from_utf8(LINE).unwrap()),
        "{client}"
    );
}
