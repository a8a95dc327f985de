//! What others order of a connection, one thing at a time.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Lost, Message, Protocol, Runtime,
    Workers,
};

const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

#[derive(Default)]
struct Seen {
    log: Vec<String>,
    ids: Vec<ConnId>,
    bytes: Vec<u8>,
}

type Notes = Rc<RefCell<Seen>>;

/// Writes down what it hears, and consumes all that it is offered, or nothing.
struct Scripted {
    notes: Notes,
    leaves: bool,
}

impl Protocol for Scripted {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.notes.borrow_mut().ids.push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if !self.leaves {
            self.notes.borrow_mut().bytes.extend(input.bytes());
            input.advance_all();
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.notes.borrow_mut().log.push(format!("lost {reason:?}"));
    }
}

fn scripted(sim: &mut Sim, notes: &Notes, leaves: bool) -> ListenerId {
    let notes = Rc::clone(notes);
    sim.listen(move |_peer| Scripted { notes: Rc::clone(&notes), leaves })
}

fn log(notes: &Notes) -> Vec<String> {
    notes.borrow().log.clone()
}

/// Input that had left the socket when it was held back, of a connection that may leave less of it.
fn held_late(notes: &Notes, leaves: bool) -> (Sim, PeerId, ConnId) {
    let limits = ConnLimits::default().input_bytes_max(4096);
    let mut sim = Sim::new(Options::default().limits(limits).faults(Faults::none().late_receives(1000)));
    let listener = scripted(&mut sim, notes, leaves);
    let peer = sim.connect(listener);
    sim.run();
    let id = notes.borrow().ids[0];
    sim.send(peer, &[b'x'; 20_000]);
    (sim, peer, id)
}

#[test]
fn a_pause_by_others_does_not_cut_a_connection_whose_input_had_left_the_socket() {
    let notes = Notes::default();
    let (mut sim, _, id) = held_late(&notes, false);
    sim.commands().pause(id);
    sim.turn();
    sim.run();
    assert!(sim.blocks_in_use() > 0, "it is kept");
    sim.commands().resume(id);
    sim.settle();
    assert_eq!((notes.borrow().bytes.len(), log(&notes)), (20_000, vec![]));
}

#[test]
fn what_a_connection_leaves_of_what_was_kept_for_it_is_judged_when_it_is_offered() {
    let notes = Notes::default();
    let (mut sim, _, id) = held_late(&notes, true);
    sim.commands().pause(id);
    sim.turn();
    sim.run();
    assert_eq!(log(&notes), [""; 0]);
    sim.commands().resume(id);
    sim.settle();
    assert_eq!(log(&notes), ["lost InputOverflow"]);
}

#[test]
fn a_forward_does_not_cut_a_connection_whose_input_had_left_the_socket() {
    let notes = Notes::default();
    let (mut sim, _, id) = held_late(&notes, false);
    let backend = Scripted { notes: Rc::clone(&notes), leaves: false };
    let to = sim.commands().connect(SOMEWHERE, ConnectOptions::default(), backend);
    sim.commands().forward(id, to);
    sim.turn();
    sim.settle();
    let (peer, _) = sim.take_dialed()[0];
    assert_eq!((sim.take_received(peer).len(), log(&notes)), (20_000, vec![]));
}

/// A batch has received ahead for a connection that another one pauses in the same batch.
#[test]
fn on_real_sockets_a_pause_by_others_does_not_cut_a_connection() {
    struct Node {
        ids: Arc<Mutex<Vec<ConnId>>>,
        consumed: mpsc::Sender<usize>,
    }
    impl Protocol for Node {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.ids.lock().unwrap().push(conn.id());
            conn.send(b"!");
            Flow::Continue
        }
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            if input.bytes() == b"pause the other" {
                let other = self.ids.lock().unwrap()[1];
                conn.commands().pause(other);
                conn.commands().after(Duration::from_millis(20), move |local| local.commands().resume(other));
            } else {
                let _ = self.consumed.send(input.len());
            }
            input.advance_all();
            Flow::Continue
        }
        fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
            if matches!(reason, Lost::InputOverflow) {
                let _ = self.consumed.send(0);
            }
        }
    }
    let ids = Arc::<Mutex<Vec<ConnId>>>::default();
    let (consumed, consumes) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .limits(ConnLimits::default().input_bytes_max(8 << 10))
        .listen("127.0.0.1:0", {
            let ids = Arc::clone(&ids);
            move |_worker| {
                let (ids, consumed) = (Arc::clone(&ids), consumed.clone());
                move |_peer| Node { ids: Arc::clone(&ids), consumed: consumed.clone() }
            }
        })
        .unwrap()
        .start()
        .unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    let (mut one, mut other) = (connect(), connect());
    // Both are there before the worker looks again.
    let (go_on, waits) = mpsc::channel::<()>();
    server.handle().run_on(0, move |_| waits.recv().unwrap());
    one.write_all(b"pause the other").unwrap();
    other.write_all(&[b'x'; 32 << 10]).unwrap();
    go_on.send(()).unwrap();
    let mut left = 32 << 10;
    while left > 0 {
        let count = consumes.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(count > 0, "the connection was cut for input that it was not offered (InputOverflow)");
        left -= count;
    }
}

/// Hears numbers, and tells the first connection some: odd ones by commands, even ones by the handle of its worker.
struct Tells {
    told: Rc<RefCell<Vec<u32>>>,
    notes: Notes,
}

impl Protocol for Tells {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.notes.borrow_mut().ids.push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let to = self.notes.borrow().ids[0];
        for number in 0..10_u32 {
            match number % 2 {
                0 => conn.local().handle().tell(to, number),
                _ => conn.commands().tell(to, number),
            }
        }
        Flow::Continue
    }

    fn told(&mut self, _conn: &mut Conn<'_>, message: Message) -> Flow {
        self.told.borrow_mut().push(message.downcast().unwrap());
        Flow::Continue
    }
}

#[test]
fn what_one_worker_tells_a_connection_arrives_in_order_by_commands_and_in_order_by_handles() {
    for workers in [1, 2] {
        let (told, notes) = (Rc::new(RefCell::new(Vec::new())), Notes::default());
        let mut sim = Sim::new(Options::default().workers(workers));
        let listener = sim.listen({
            let (told, notes) = (Rc::clone(&told), Rc::clone(&notes));
            move |_peer| Tells { told: Rc::clone(&told), notes: Rc::clone(&notes) }
        });
        sim.connect_to(listener, 0);
        sim.run();
        let other = sim.connect_to(listener, workers - 1);
        sim.run();
        sim.send(other, b"!");
        sim.run();
        let part =
            |rest| told.borrow().iter().copied().filter(|number| number % 2 == rest).collect::<Vec<_>>();
        assert_eq!((part(0), part(1)), (vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]));
    }
}
