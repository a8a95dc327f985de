//! Outgoing connections: by name, by several addresses, and with options for their sockets.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::sim::{Answer, Options, Sim};
use netpoll_core::{
    Address, Commands, Conn, ConnectOptions, Flow, Input, Keepalive, Lost, Protocol, Running, Runtime,
    Target, Workers,
};

use crate::support::{Log, Recorder};

const PATIENCE: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

/// Says where it got to, and closes.
struct Client(mpsc::Sender<String>);

impl Protocol for Client {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.send(format!("opened {}", conn.peer_addr().unwrap())).unwrap();
        Flow::Close
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        // The test may have ended before its clients.
        let _ = self.0.send(format!("{reason:?}"));
    }
}

fn clients() -> Running {
    Runtime::builder().workers(Workers::Count(1)).pin(false).start().unwrap()
}

fn said_of(clients: &Running, to: impl Into<Target>, options: ConnectOptions) -> String {
    let (sender, said) = mpsc::channel();
    clients.handle().connect(0, to, options, Client(sender));
    said.recv_timeout(PATIENCE).unwrap()
}

/// An address where nobody listens, and nobody else will while the socket lives.
fn deaf() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

#[test]
fn a_name_is_looked_up_and_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let clients = clients();
    // The name may stand for ::1 as well, where nobody listens.
    for to in [Target::from(("localhost", port)), Target::from(format!("localhost:{port}"))] {
        assert_eq!(said_of(&clients, to, ConnectOptions::default()), format!("opened 127.0.0.1:{port}"));
    }
}

#[test]
fn many_names_are_looked_up_at_the_same_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (clients, (sender, said)) = (clients(), mpsc::channel());
    for _ in 0..50 {
        let options = ConnectOptions::default().timeout(PATIENCE);
        clients.handle().connect(0, ("localhost", port), options, Client(sender.clone()));
    }
    drop(sender);
    let opened = said.iter().filter(|said| said.starts_with("opened")).count();
    assert_eq!(opened, 50);
}

#[test]
fn what_is_no_address_and_no_name_is_lost_with_the_reason() {
    let clients = clients();
    for to in ["nonsense", "unix:", ":80"] {
        let said = said_of(&clients, to, ConnectOptions::default());
        assert!(said.contains("ConnectFailed") && said.contains("InvalidInput"), "{said}");
        assert!(said.contains(to), "it says what: {said}");
        let Err(error) = Runtime::builder().listen(to, |_worker| |_peer| crate::support::Echo) else {
            panic!("{to} is no address");
        };
        assert!(error.to_string().contains(to), "{error}");
    }
    // RFC 6761, section 6.4: no resolver has an address for it.
    let said = said_of(&clients, "netpoll.invalid:80", ConnectOptions::default().timeout(PATIENCE));
    assert!(said.contains("ConnectFailed") && said.contains("netpoll.invalid"), "{said}");
}

#[test]
fn of_several_addresses_the_first_that_answers_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_deaf, nobody) = deaf();
    let addrs = [nobody, nobody, listener.local_addr().unwrap()];
    let clients = clients();
    let said = said_of(&clients, &addrs[..], ConnectOptions::default());
    assert_eq!(said, format!("opened {}", addrs[2]));
    let said = said_of(&clients, &addrs[..2], ConnectOptions::default());
    assert!(said.contains("ConnectionRefused"), "{said}");
    let stats = clients.stop(PATIENCE).unwrap().stats;
    assert_eq!((stats.connected, stats.connect_failures), (1, 1), "an attempt is no connection");
}

#[test]
fn who_waits_for_a_name_in_a_drain_is_connected_and_ends_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (clients, (sender, said)) = (clients(), mpsc::channel());
    for _ in 0..20 {
        clients.handle().connect(0, ("localhost", port), ConnectOptions::default(), Client(sender.clone()));
    }
    drop(sender);
    let report = clients.stop(PATIENCE).unwrap();
    let (opened, ended): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.starts_with("opened"));
    assert_eq!((opened.len(), ended.len(), report.cut), (20, 20, 0), "{ended:?}");
}

#[test]
fn a_setting_that_the_kernel_refuses_is_an_error_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let keepalive = Keepalive { idle: Duration::ZERO, interval: SECOND, probes: 1 };
    let options = ConnectOptions::default().keepalive(keepalive);
    let said = said_of(&clients(), listener.local_addr().unwrap(), options);
    assert!(said.contains("ConnectFailed") && said.contains("keepalive"), "{said}");
}

#[test]
fn a_connection_comes_from_the_address_that_it_is_told_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ConnectOptions::default().from(SocketAddr::from(([127, 0, 0, 3], 0))).keepalive(None);
    said_of(&clients(), listener.local_addr().unwrap(), options.send_buffer_bytes(20_000).nodelay(false));
    let (mut stream, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.3");
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// Says that it is open.
struct Quiet(mpsc::Sender<()>);

impl Protocol for Quiet {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.send(()).unwrap();
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn of_a_connect_that_succeeds_the_kernel_is_asked_for_our_port_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients = clients();
    let before = clients.handle().stats().syscalls_other;
    let (sender, opened) = mpsc::channel();
    let bare = ConnectOptions::default().keepalive(None).user_timeout(None).nodelay(false);
    for _ in 0..5 {
        clients.handle().connect(0, listener.local_addr().unwrap(), bare, Quiet(sender.clone()));
        opened.recv_timeout(PATIENCE).unwrap();
    }
    let counted = std::iter::repeat_with(|| {
        std::thread::yield_now();
        clients.handle().stats()
    });
    let stats = counted.into_iter().find(|stats| stats.connected == 5).unwrap();
    assert_eq!(stats.syscalls_other - before, 5);
}

fn world() -> (Sim, Log) {
    (Sim::new(Options::default()), Log::default())
}

#[test]
fn in_a_simulated_world_names_have_the_addresses_that_they_are_given() {
    let (mut sim, log) = world();
    sim.set_name("db.internal", ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
    sim.answer_connections_to("10.0.0.1:5432".parse::<Address>().unwrap(), Answer::Refuse);
    sim.commands().connect("db.internal:5432", ConnectOptions::default(), Recorder::new(&log));
    sim.run();
    assert_eq!(*log.borrow(), ["opened"]);
    let dialed: Vec<String> = sim.take_dialed().iter().map(|(_, addr)| addr.to_string()).collect();
    assert_eq!(dialed, ["10.0.0.1:5432", "10.0.0.2:5432"]);

    sim.commands().connect("nobody:1", ConnectOptions::default(), Recorder::new(&log));
    sim.run();
    let said = &log.borrow()[1];
    assert!(said.contains("ConnectFailed") && said.contains("NotFound") && said.contains("nobody"), "{said}");
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let (mut sim, log) = world();
    sim.set_name("far", (1..=4).map(|last| std::net::Ipv4Addr::new(10, 0, 0, last).into()));
    sim.answer_connections(Answer::Ignore);
    sim.answer_connections_to("10.0.0.3:1".parse::<Address>().unwrap(), Answer::Accept);
    sim.commands().connect("far:1", ConnectOptions::default().timeout(8 * SECOND), Recorder::new(&log));
    sim.advance(3 * SECOND);
    assert!(log.borrow().is_empty());
    sim.advance(SECOND + Duration::from_millis(10));
    assert_eq!(*log.borrow(), ["opened"], "a quarter of the time, and a third of the rest");
}

#[test]
fn whatever_does_not_answer_the_time_in_all_is_what_was_said() {
    let (mut sim, log) = world();
    sim.set_name("far", (1..=4).map(|last| std::net::Ipv4Addr::new(10, 0, 0, last).into()));
    sim.answer_connections(Answer::Ignore);
    sim.commands().connect("far:1", ConnectOptions::default().timeout(8 * SECOND), Recorder::new(&log));
    sim.advance(Duration::from_millis(7900));
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_millis(200));
    assert_eq!(*log.borrow(), ["lost ConnectFailed(Kind(TimedOut))"]);
    assert_eq!((sim.stats().connect_failures, sim.open()), (1, 0));
}

#[test]
fn in_a_simulated_world_a_path_is_connected_to() {
    let (mut sim, log) = world();
    sim.commands().connect("unix:/run/db.sock", ConnectOptions::default(), Recorder::new(&log));
    sim.run();
    let dialed = sim.take_dialed();
    assert_eq!(dialed[0].1.as_path(), Some(std::path::Path::new("/run/db.sock")));
    sim.send(dialed[0].0, b"hello\n");
    sim.run();
    assert_eq!(sim.take_received(dialed[0].0), b"<hello>");
}
