//! Dials that are under way when a drain begins, or begin during it.

use std::cell::RefCell;
use std::io::Read;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::sim::{Answer, Options, Sim};
use netpoll_core::{
    Address, Commands, Conn, ConnId, ConnectOptions, Flow, Input, Lost, Protocol, Runtime, Workers,
};

const HALF: Duration = Duration::from_millis(500);

/// Says what becomes of it.
struct Dialed(Rc<RefCell<Vec<String>>>);

impl Protocol for Dialed {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("opened".to_owned());
        conn.send(b"hello");
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("stopping".to_owned());
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

/// A world in which a dial is under way, what it says, and its name.
fn dialing(answer: Answer, options: ConnectOptions) -> (Sim, Rc<RefCell<Vec<String>>>, ConnId) {
    let said = Rc::<RefCell<Vec<String>>>::default();
    let mut sim = Sim::new(Options::default());
    sim.answer_connections(answer);
    let to: Address = "10.0.0.1:80".parse().unwrap();
    let id = sim.commands().connect(to, options, Dialed(Rc::clone(&said)));
    sim.run();
    (sim, said, id)
}

#[test]
fn a_dial_that_is_under_way_goes_on_when_a_drain_begins() {
    let (mut sim, said, _id) = dialing(Answer::AcceptAfter(HALF), ConnectOptions::default());
    sim.begin_drain(Duration::from_secs(30));
    sim.run();
    assert!(!sim.is_finished() && said.borrow().is_empty(), "it is work that is left");
    sim.advance(2 * HALF);
    assert_eq!(*said.borrow(), ["opened", "stopping"], "told of the drain as soon as it is open");
    let (peer, _) = sim.take_dialed()[0];
    assert_eq!(sim.take_received(peer), b"hello");
    sim.close(peer);
    sim.settle();
    assert!(sim.is_finished());
}

#[test]
fn in_a_drain_a_dial_that_nobody_answers_ends_at_its_own_timeout_or_at_the_end_of_the_drain() {
    let timeout = Duration::from_secs(3);
    let (mut sim, said, _id) = dialing(Answer::Ignore, ConnectOptions::default().timeout(timeout));
    sim.begin_drain(Duration::from_secs(30));
    sim.advance(timeout + HALF);
    assert_eq!(*said.borrow(), ["lost: it could not be connected: timed out"]);
    assert!(sim.is_finished());

    let (mut sim, said, _id) = dialing(Answer::Ignore, ConnectOptions::default());
    sim.begin_drain(timeout);
    sim.advance(timeout - HALF);
    assert!(said.borrow().is_empty() && !sim.is_finished());
    sim.advance(2 * HALF);
    assert_eq!(*said.borrow(), ["lost: cut at the end of a drain"]);
    assert!(sim.is_finished());
    assert_eq!(sim.stats().connect_failures, 1);
}

#[test]
fn in_a_drain_a_name_is_looked_up_and_its_addresses_are_tried() {
    let said = Rc::<RefCell<Vec<String>>>::default();
    let mut sim = Sim::new(Options::default());
    sim.set_name("shop", ["10.0.0.3".parse().unwrap(), "10.0.0.4".parse().unwrap()]);
    sim.answer_connections_to("10.0.0.3:80".parse::<Address>().unwrap(), Answer::Ignore);
    sim.commands().connect(("shop", 80), ConnectOptions::default(), Dialed(Rc::clone(&said)));
    sim.begin_drain(Duration::from_secs(30));
    sim.advance(Duration::from_secs(6));
    assert_eq!(*said.borrow(), ["opened", "stopping"]);
}

#[test]
fn on_real_sockets_a_dial_outlives_the_beginning_of_a_drain() {
    /// Dials when a drain begins, which is as late as a dial may be under way then, and waits for it.
    struct Late(std::net::SocketAddr, mpsc::Sender<String>);
    struct Up(mpsc::Sender<String>, ConnId);
    impl Protocol for Late {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            let id = conn.id();
            conn.local().handle().drain(Duration::from_secs(60));
            // Behind the letter that begins the drain, nobody has polled for the end of the dial.
            conn.commands().connect(self.0, ConnectOptions::default(), Up(self.1.clone(), id));
            Flow::Pause
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Pause
        }
        fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
            conn.unchanged_flow()
        }
    }
    impl Protocol for Up {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.0.send("opened".to_owned()).unwrap();
            conn.commands().close(self.1);
            Flow::Close
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Continue
        }
        fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
            self.0.send(reason.to_string()).unwrap();
        }
    }
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap();
    let (said, says) = mpsc::channel();
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .listen("127.0.0.1:0", move |_worker| {
            let said = said.clone();
            move |_peer| Late(to, said.clone())
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = TcpStream::connect(&running.local_addrs()[0]).unwrap();
    assert_eq!(says.recv_timeout(Duration::from_secs(60)).unwrap(), "opened");
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end, and no reset");
    drop(client);
    assert_eq!(running.wait().unwrap().cut, 0);
}
