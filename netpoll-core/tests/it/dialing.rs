//! Names of outgoing connections, which lead to them from the start, and commands of those that are lost.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Answer, Faults, Options, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnectOptions, Flow, Handle, Input, Lost, Protocol, Runtime, Workers,
};

use crate::support::Echo;

const PATIENCE: Duration = Duration::from_secs(30);
const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);

#[derive(Default)]
struct Seen {
    log: Vec<String>,
    ids: Vec<ConnId>,
}

type Notes = Rc<RefCell<Seen>>;

/// Says hello, and writes down what happens to it.
struct Dialer(Notes);

impl Protocol for Dialer {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().ids.push(conn.id());
        conn.send(b"hello");
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().log.push(String::from_utf8_lossy(input.bytes()).into_owned());
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().log.push(format!("lost {reason:?}"));
    }
}

fn dial(sim: &mut Sim, notes: &Notes) -> ConnId {
    let protocol = Dialer(Rc::clone(notes));
    sim.commands().connect(SOMEWHERE, ConnectOptions::default(), protocol)
}

fn log(notes: &Notes) -> Vec<String> {
    notes.borrow().log.clone()
}

#[test]
fn a_dial_has_its_name_from_the_start_and_keeps_it() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let (first, second) = (dial(&mut sim, &notes), dial(&mut sim, &notes));
    assert_ne!(first, second);
    sim.run();
    assert_eq!(notes.borrow().ids, [first, second]);
    let peers = sim.take_dialed();
    sim.commands().send(first, Bytes::from_static(b" first"));
    sim.handle().send(second, Bytes::from_static(b" second"));
    sim.run();
    assert_eq!(sim.take_received(peers[0].0), b"hello first");
    assert_eq!(sim.take_received(peers[1].0), b"hello second");
    sim.commands().close(first);
    sim.handle().reset(second);
    sim.advance(Duration::from_secs(30));
    assert_eq!(log(&notes), ["lost Reset", "lost Closed"]);
}

#[test]
fn a_name_outlives_its_connection_and_leads_to_no_other() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let first = dial(&mut sim, &notes);
    sim.run();
    sim.commands().reset(first);
    sim.run();
    let second = dial(&mut sim, &notes);
    sim.run();
    sim.commands().send(first, Bytes::from_static(b"lost"));
    sim.commands().reset(first);
    sim.run();
    assert_eq!((log(&notes), sim.open()), (vec!["lost Reset".to_owned()], 1));
    assert_eq!(notes.borrow().ids, [first, second]);
    let peer = sim_peer(&mut sim, 1);
    assert_eq!(sim.take_received(peer), b"hello");
}

fn sim_peer(sim: &mut Sim, nth: usize) -> netpoll_core::sim::PeerId {
    sim.take_dialed()[nth].0
}

#[test]
fn a_dial_is_given_up_while_it_is_under_way_or_before_it_has_begun() {
    for begun in [false, true] {
        let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
        sim.answer_connections(Answer::Ignore);
        let (first, second) = (dial(&mut sim, &notes), dial(&mut sim, &notes));
        if begun {
            sim.run();
            assert_eq!(sim.open(), 2);
        }
        sim.commands().close(first);
        sim.commands().reset(second);
        sim.run();
        assert_eq!(log(&notes), ["lost Closed", "lost Reset"]);
        assert_eq!((sim.open(), sim.stats().connect_failures), (0, 2));
    }
}

#[test]
fn a_dial_that_is_to_finish_says_what_it_has_to_say_first() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    sim.answer_connections(Answer::AcceptAfter(Duration::from_secs(1)));
    let id = dial(&mut sim, &notes);
    sim.commands().finish(id);
    sim.run();
    sim.commands().send(id, Bytes::from_static(b"too early"));
    sim.advance(Duration::from_secs(2));
    let peer = sim_peer(&mut sim, 0);
    assert_eq!(sim.take_received(peer), b"hello");
    assert!(sim.is_closed(peer) && sim.open() == 1);
    sim.send(peer, b"answer");
    sim.finish(peer);
    sim.run();
    assert_eq!(log(&notes), ["answer", "lost Closed"]);
}

#[test]
fn workers_and_threads_reach_a_dial_by_its_name() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let runtime = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let (sender, opened) = mpsc::channel();
    for worker in 0..2 {
        let protocol = Named(sender.clone());
        let id = runtime.handle().connect(worker, addr, ConnectOptions::default(), protocol);
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(opened.recv_timeout(PATIENCE).unwrap(), id);
        assert_eq!(id.worker(), worker);
        runtime.handle().send(id, Bytes::from_static(b"by name"));
        runtime.handle().finish(id);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"by name");
    }
    runtime.stop(Duration::ZERO).unwrap();
}

struct Named(mpsc::Sender<ConnId>);

impl Protocol for Named {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.send(conn.id()).unwrap();
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }
}

#[test]
fn a_dial_that_hangs_is_given_up_by_another_thread() {
    // A listener whose queue is full answers nobody.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(addr).unwrap();
    let runtime = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (sender, ends) = mpsc::channel();
    let id = runtime.handle().connect(0, addr, ConnectOptions::default(), Ending(sender));
    runtime.handle().close(id);
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), "Closed");
    assert_eq!(runtime.stop(Duration::ZERO).unwrap().cut, 0);
}

struct Ending(mpsc::Sender<String>);

impl Protocol for Ending {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.0.send(format!("{reason:?}"));
    }
}

/// Takes this other connection along when it goes.
struct Half(Rc<RefCell<Option<ConnId>>>);

impl Protocol for Half {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        if let Some(other) = self.0.take() {
            commands.send(other, Bytes::from_static(b"goodbye"));
            commands.close(other);
        }
    }
}

#[test]
fn who_is_lost_can_take_another_along() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let other = Rc::<RefCell<Option<ConnId>>>::default();
    let listener = sim.listen({
        let other = Rc::clone(&other);
        move |_peer| Half(Rc::clone(&other))
    });
    let peer = sim.connect(listener);
    *other.borrow_mut() = Some(dial(&mut sim, &notes));
    sim.run();
    sim.reset(peer);
    sim.run();
    let far = sim_peer(&mut sim, 0);
    assert_eq!(sim.take_received(far), b"hellogoodbye");
    assert!(sim.is_closed(far));
}

/// Dials again whenever it is lost, without a pause.
struct Again {
    times: Arc<AtomicUsize>,
    options: ConnectOptions,
}

impl Protocol for Again {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        self.times.fetch_add(1, Ordering::Relaxed);
        commands.connect(
            SOMEWHERE,
            self.options,
            Self { times: Arc::clone(&self.times), options: self.options },
        );
    }
}

#[test]
fn who_dials_in_vain_for_ever_does_not_keep_others_waiting() {
    let times = Arc::<AtomicUsize>::default();
    let mut sim = Sim::new(Options::default().faults(Faults::none().failed_registrations(1000)));
    let listener = sim.listen(|_peer| Echo);
    let protocol = Again { times: Arc::clone(&times), options: ConnectOptions::default() };
    sim.commands().connect(SOMEWHERE, ConnectOptions::default(), protocol);
    let peer = sim.connect(listener);
    sim.set_faults(peer, Faults::none());
    sim.send(peer, b"ping");
    for _ in 0..3 {
        sim.turn();
    }
    assert_eq!(sim.take_received(peer), b"ping");
    assert!((3..1000).contains(&times.load(Ordering::Relaxed)), "{times:?} in three turns");
}

#[test]
fn who_dials_in_vain_for_ever_on_a_real_worker_does_not_either_and_ends_with_it() {
    let times = Arc::<AtomicUsize>::default();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)
        .unwrap()
        .start()
        .unwrap();
    // An address that this machine does not have: the kernel refuses at once.
    let from = Some(SocketAddr::from(([192, 0, 2, 1], 0)));
    let options = ConnectOptions::default().from(from);
    let protocol = Again { times: Arc::clone(&times), options };
    server.handle().connect(0, SOMEWHERE, options, protocol);
    let mut client = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..20 {
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    assert!(times.load(Ordering::Relaxed) > 20);
    let handle: Handle = server.handle().clone();
    drop(client);
    let _ = server.stop(Duration::ZERO);
    assert_eq!(Arc::strong_count(&times), 1, "nobody dials any more");
    drop(handle);
}

#[test]
fn a_name_with_many_addresses_leaves_each_the_time_of_a_handshake() {
    let millis = Duration::from_millis;
    for (addresses, timeout, handshake) in [(1, 2_000, 300), (8, 2_000, 300), (12, 10_000, 1_050)] {
        let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
        sim.set_name("far.example", (1..=addresses).map(|last| [10, 0, 0, last].into()));
        sim.answer_connections(Answer::AcceptAfter(millis(handshake)));
        let options = ConnectOptions::default().timeout(millis(timeout));
        sim.commands().connect("far.example:80", options, Dialer(Rc::clone(&notes)));
        sim.advance(millis(timeout * 2));
        assert_eq!(notes.borrow().ids.len(), 1, "{addresses} addresses: {:?}", log(&notes));
    }
}
