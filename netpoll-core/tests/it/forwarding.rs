//! Input of one connection as output of another: relays, and who holds back whom.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Answer, Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, ConnectOptions, FileRange, Flow, Input, Lost, Protocol,
    Running, Runtime, Workers,
};

use crate::chance::{Chance, seeds};

const PATIENCE: Duration = Duration::from_secs(30);
const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Seen {
    log: Vec<String>,
    /// How often input was offered.
    offers: usize,
    ids: Vec<ConnId>,
}

type Notes = Rc<RefCell<Seen>>;

/// One half of a relay. The accepted one dials the other.
struct Half {
    notes: Notes,
    name: &'static str,
    dials: bool,
    /// What the dialed one says before anything else.
    greeting: &'static [u8],
    idle: Option<Duration>,
}

impl Half {
    fn dialed(&self) -> Self {
        Self { notes: Rc::clone(&self.notes), name: "backend", dials: false, ..*self }
    }
}

impl Protocol for Half {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let me = conn.id();
        self.notes.borrow_mut().ids.push(me);
        if self.dials {
            let backend = conn.commands().connect(SOMEWHERE, ConnectOptions::default(), self.dialed());
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        } else {
            conn.send(self.greeting);
        }
        if let Some(idle) = self.idle {
            conn.set_deadline(idle);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        panic!("{} is offered {} bytes", self.name, input.len());
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        panic!("{} is told of the end", self.name);
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.notes.borrow_mut().log.push(format!("{} peer ended", self.name));
        Flow::Pause
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        let idle = self.idle.unwrap();
        match conn.forwarded_at().map(|at| at.saturating_add(idle)) {
            Some(next) if next > conn.now() => conn.set_deadline_at(next),
            _ => return Flow::Reset,
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let reason = match reason {
            Lost::Failed(_) => "Failed".to_owned(),
            reason => format!("{reason:?}"),
        };
        self.notes.borrow_mut().log.push(format!("{} {reason}", self.name));
    }
}

struct World {
    sim: Sim,
    listener: ListenerId,
    notes: Notes,
}

impl World {
    fn new(options: Options) -> Self {
        Self::with(options, b"", None)
    }

    fn with(options: Options, greeting: &'static [u8], idle: Option<Duration>) -> Self {
        let notes = Notes::default();
        let mut sim = Sim::new(options);
        let listener = sim.listen({
            let notes = Rc::clone(&notes);
            move |_peer| Half { notes: Rc::clone(&notes), name: "client", dials: true, greeting, idle }
        });
        Self { sim, listener, notes }
    }

    /// The two far ends of a relay.
    fn pair(&mut self) -> (PeerId, PeerId) {
        let client = self.sim.connect(self.listener);
        self.sim.settle();
        (client, self.sim.take_dialed()[0].0)
    }

    fn log(&self) -> Vec<String> {
        let mut log = self.notes.borrow().log.clone();
        log.sort();
        log
    }

    fn is_at_rest(&self) -> bool {
        self.sim.open() == 0 && self.sim.blocks_in_use() == 0
    }
}

#[test]
fn bytes_go_through_in_both_directions_without_a_copy() {
    let mut world = World::new(Options::default());
    let (client, backend) = world.pair();
    for round in 1..4 {
        world.sim.send(client, b"request");
        world.sim.run();
        assert_eq!(world.sim.take_received(backend), b"request");
        world.sim.send(backend, &vec![b'a'; 100_000 * round]);
        world.sim.run();
        assert_eq!(world.sim.take_received(client).len(), 100_000 * round);
    }
    assert_eq!((world.sim.stats().copied_bytes, world.sim.blocks_in_use()), (0, 0));
}

#[test]
fn a_half_close_goes_through_and_both_are_the_end() {
    for client_first in [true, false] {
        let mut world = World::new(Options::default());
        let (client, backend) = world.pair();
        let (first, second) = if client_first { (client, backend) } else { (backend, client) };
        world.sim.send(first, b"last words");
        world.sim.finish(first);
        world.sim.run();
        assert_eq!(world.sim.take_received(second), b"last words");
        assert!(world.sim.is_closed(second) && !world.sim.is_closed(first));
        world.sim.send(second, b"answer");
        world.sim.run();
        assert_eq!(world.sim.take_received(first), b"answer");
        assert_eq!(world.sim.open(), 2);
        world.sim.finish(second);
        world.sim.run();
        assert!(world.sim.is_closed(first) && !world.sim.is_reset(first) && !world.sim.is_reset(second));
        assert_eq!(world.log(), ["backend Closed", "client Closed"]);
        assert!(world.is_at_rest());
    }
}

#[test]
fn a_reset_goes_through_in_both_directions() {
    for from_client in [true, false] {
        let mut world = World::new(Options::default());
        let (client, backend) = world.pair();
        let (first, second) = if from_client { (client, backend) } else { (backend, client) };
        world.sim.send(first, b"begun");
        world.sim.run();
        world.sim.reset(first);
        world.sim.run();
        assert!(world.sim.is_reset(second));
        let (failed, reset) = if from_client { ("client", "backend") } else { ("backend", "client") };
        let mut expected = [format!("{failed} Failed"), format!("{reset} Reset")];
        expected.sort();
        assert_eq!(world.log(), expected);
        assert!(world.is_at_rest());
    }
}

#[test]
fn a_reset_behind_a_half_close_goes_through_as_well() {
    let mut world = World::new(Options::default());
    let (client, backend) = world.pair();
    world.sim.finish(client);
    world.sim.run();
    world.sim.send(backend, b"part of an answer");
    world.sim.run();
    world.sim.reset(client);
    world.sim.run();
    assert!(world.sim.is_reset(backend), "it need not go on answering");
    assert_eq!(world.log(), ["backend Reset", "client Failed"]);
}

#[test]
fn a_slow_reader_on_either_side_stops_its_writer_with_one_read_held() {
    for to_client in [true, false] {
        let mut world = World::new(Options::default());
        let (client, backend) = world.pair();
        let (reader, writer) = if to_client { (client, backend) } else { (backend, client) };
        world.sim.stop_reading(reader);
        for _ in 0..100 {
            world.sim.send(writer, &[b'w'; 64 << 10]);
            world.sim.run();
        }
        assert!(world.sim.blocks_in_use() <= 2, "{} blocks of 64 KiB", world.sim.blocks_in_use());
        // The other direction is not coupled to this one.
        world.sim.send(reader, b"still heard");
        world.sim.run();
        assert_eq!(world.sim.take_received(writer), b"still heard");
        let mut received = 0;
        world.sim.finish(writer);
        world.sim.start_reading(reader);
        world.sim.settle();
        received += world.sim.take_received(reader).len();
        assert_eq!(received, 100 * (64 << 10));
        assert!(world.sim.is_closed(reader));
        world.sim.finish(reader);
        world.sim.settle();
        let mut log = world.log();
        log.retain(|line| !line.ends_with("peer ended"));
        assert_eq!(log, ["backend Closed", "client Closed"]);
        assert!(world.is_at_rest());
    }
}

#[test]
fn a_reader_that_never_reads_is_cut_and_its_writer_is_reset() {
    let mut world = World::new(Options::default());
    let (client, backend) = world.pair();
    world.sim.stop_reading(client);
    world.sim.send(backend, &vec![b'w'; 1 << 20]);
    world.sim.advance(Duration::from_secs(60));
    assert_eq!(world.log(), ["backend Reset", "client Stalled"]);
    assert!(world.sim.is_reset(backend) && world.is_at_rest());
}

#[test]
fn a_backend_that_refuses_resets_its_client() {
    let mut world = World::new(Options::default());
    world.sim.refuse_connections(true);
    let client = world.sim.connect(world.listener);
    world.sim.send(client, b"anybody there?");
    world.sim.run();
    assert!(world.sim.is_reset(client));
    let log = world.log();
    assert!(log[0].starts_with("backend ConnectFailed") && log[1] == "client Reset", "{log:?}");
    assert!(world.is_at_rest());
}

#[test]
fn a_client_that_resets_during_the_dial_takes_the_dial_along() {
    let mut world = World::new(Options::default());
    world.sim.answer_connections(Answer::Ignore);
    let client = world.sim.connect(world.listener);
    world.sim.send(client, b"anybody there?");
    world.sim.run();
    assert_eq!(world.sim.open(), 2);
    world.sim.reset(client);
    world.sim.run();
    assert_eq!(world.log(), ["backend Reset", "client Failed"]);
    assert!(world.is_at_rest());
}

#[test]
fn what_comes_during_the_dial_waits_and_comes_behind_the_greeting() {
    let mut world = World::with(Options::default(), b"PROXY ", None);
    world.sim.answer_connections(Answer::AcceptAfter(Duration::from_secs(1)));
    let client = world.sim.connect(world.listener);
    world.sim.send(client, b"early");
    world.sim.finish(client);
    world.sim.run();
    assert_eq!(world.log(), ["client peer ended"]);
    world.sim.advance(Duration::from_secs(2));
    let backend = world.sim.take_dialed()[0].0;
    assert_eq!(world.sim.take_received(backend), b"PROXY early");
    assert!(world.sim.is_closed(backend));
    world.sim.send(backend, b"late");
    world.sim.finish(backend);
    world.sim.run();
    assert_eq!(world.sim.take_received(client), b"late");
    assert!(world.sim.is_closed(client) && world.is_at_rest());
}

#[test]
fn idle_pairs_are_cut_and_busy_ones_are_not() {
    let mut world = World::with(Options::default(), b"", Some(IDLE));
    let (client, backend) = world.pair();
    for _ in 0..5 {
        world.sim.advance(IDLE - Duration::from_secs(1));
        world.sim.send(backend, b"news");
        world.sim.run();
        assert_eq!(world.sim.open(), 2);
    }
    world.sim.advance(IDLE + Duration::from_millis(2));
    assert!(world.sim.is_reset(client) && world.sim.is_reset(backend) && world.is_at_rest());
}

#[test]
fn who_reads_slowly_is_not_idle() {
    let limits = ConnLimits::default().write_grace(Duration::from_secs(10));
    let mut world = World::with(Options::default().limits(limits), b"", Some(Duration::from_secs(2)));
    let (client, backend) = world.pair();
    world.sim.stop_reading(client);
    world.sim.send(backend, &vec![b'w'; 1 << 20]);
    for _ in 0..3 {
        world.sim.advance(Duration::from_secs(9));
        assert_eq!(world.sim.open(), 2);
        world.sim.start_reading(client);
        world.sim.run();
        world.sim.stop_reading(client);
        world.sim.send(backend, &vec![b'w'; 1 << 20]);
        world.sim.run();
    }
}

#[test]
fn a_drain_lets_pairs_go_on_and_cuts_them_at_its_end() {
    let mut world = World::new(Options::default());
    let ((client, backend), (other, _)) = (world.pair(), world.pair());
    world.sim.begin_drain(Duration::from_secs(20));
    world.sim.advance(Duration::from_secs(15));
    world.sim.send(client, b"still here");
    world.sim.run();
    assert_eq!(world.sim.take_received(backend), b"still here");
    world.sim.finish(client);
    world.sim.finish(backend);
    world.sim.run();
    assert!(world.sim.is_closed(client) && !world.sim.is_reset(client));
    assert_eq!(world.sim.open(), 2);
    world.sim.advance(Duration::from_secs(6));
    assert!(world.sim.is_reset(other) && world.sim.is_finished());
    assert_eq!(world.log(), ["backend Closed", "backend Cut", "client Closed", "client Cut"]);
}

/// Reads a line, and then forwards to the connection of this name, with what it has read behind the line.
struct Lines {
    notes: Notes,
    to: Rc<RefCell<Option<ConnId>>>,
}

impl Protocol for Lines {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.notes.borrow_mut().ids.push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.notes.borrow_mut().offers += 1;
        let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') else { return Flow::Continue };
        conn.send_now(&input.bytes()[..=end]);
        input.advance(end + 1);
        let (me, to) = (conn.id(), self.to.take().unwrap());
        conn.commands().forward(me, to);
        Flow::Pause
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.notes.borrow_mut().log.push(format!("eof {}", input.len()));
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.notes.borrow_mut().log.push(format!("{reason:?}"));
    }
}

/// A world whose connections forward to whatever is in the cell.
fn lines(options: Options) -> (Sim, ListenerId, Notes, Rc<RefCell<Option<ConnId>>>) {
    let (notes, to) = (Notes::default(), Rc::<RefCell<Option<ConnId>>>::default());
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let (notes, to) = (Rc::clone(&notes), Rc::clone(&to));
        move |_peer| Lines { notes: Rc::clone(&notes), to: Rc::clone(&to) }
    });
    (sim, listener, notes, to)
}

/// Whoever connects first has the first name.
fn connect(sim: &mut Sim, listener: ListenerId) -> PeerId {
    let peer = sim.connect(listener);
    sim.run();
    peer
}

#[test]
fn what_was_kept_is_handed_over_in_front_of_the_rest() {
    let (mut sim, listener, notes, to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    *to.borrow_mut() = Some(ids[1]);
    sim.send(from, b"head");
    sim.run();
    let mut body = vec![b'b'; 10_000];
    body.insert(0, b'\n');
    sim.send(from, &body);
    sim.run();
    let copied = sim.stats().copied_bytes;
    sim.send(from, b"rest");
    sim.run();
    let received = sim.take_received(target);
    assert!(received[..10_000].iter().all(|byte| *byte == b'b') && received[10_000..] == *b"rest");
    assert_eq!(sim.take_received(from), b"head\n");
    assert_eq!(sim.stats().copied_bytes, copied);
    sim.finish(from);
    sim.run();
    assert!(sim.is_closed(target));
    assert_eq!(sim.open(), 2, "one direction alone");
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn a_connection_that_is_forwarded_to_itself_echoes() {
    let (mut sim, listener, notes, to) = lines(Options::default());
    let peer = sim.connect(listener);
    sim.run();
    *to.borrow_mut() = Some(notes.borrow().ids[0]);
    sim.send(peer, b"\nkept");
    sim.run();
    sim.stop_reading(peer);
    for _ in 0..10 {
        sim.send(peer, &[b'x'; 50_000]);
        sim.run();
    }
    sim.finish(peer);
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(sim.take_received(peer).len(), 5 + 500_000);
    assert!(sim.is_closed(peer) && sim.open() == 0 && sim.blocks_in_use() == 0);
}

#[test]
fn input_that_has_ended_before_it_is_forwarded_is_forwarded_with_its_end() {
    let (mut sim, listener, notes, to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.send(from, b"no line");
    sim.finish(from);
    sim.run();
    assert_eq!(notes.borrow().log, ["eof 7"]);
    sim.commands().forward(ids[0], ids[1]);
    sim.run();
    assert_eq!(sim.take_received(target), b"no line");
    assert!(sim.is_closed(target));
    drop(to);
}

#[test]
fn a_second_forward_takes_the_place_of_the_first() {
    let (mut sim, listener, notes, to) = lines(Options::default());
    let peers: Vec<PeerId> = (0..3).map(|_| connect(&mut sim, listener)).collect();
    let ids = notes.borrow().ids.clone();
    sim.commands().forward(ids[0], ids[1]);
    sim.run();
    sim.send(peers[0], b"first");
    sim.run();
    // Another target, and then another source for it: the first source hears itself again.
    sim.commands().forward(ids[0], ids[2]);
    sim.run();
    sim.send(peers[0], b"second");
    sim.run();
    sim.commands().forward(ids[1], ids[2]);
    sim.run();
    sim.send(peers[1], b"third");
    *to.borrow_mut() = Some(ids[1]);
    sim.send(peers[0], b"mine\nnot mine");
    sim.run();
    let mut received = |peer: usize| String::from_utf8(sim.take_received(peers[peer])).unwrap();
    assert_eq!(
        (received(0), received(1), received(2)),
        ("mine\n".into(), "firstnot mine".into(), "secondthird".into())
    );
    assert!(notes.borrow().log.is_empty());
}

#[test]
fn where_one_is_not_there_the_other_is_reset() {
    let (mut sim, listener, notes, _to) = lines(Options::default().workers(2));
    let mut connect_to = |worker| {
        let peer = sim.connect_to(listener, worker);
        sim.run();
        peer
    };
    let peers = [0, 0, 0, 1, 0].map(&mut connect_to);
    let ids = notes.borrow().ids.clone();
    let (here, there): (Vec<ConnId>, Vec<ConnId>) = ids.iter().partition(|id| id.worker() == 0);
    sim.reset(peers[2]);
    sim.run();
    let gone = here[2];
    sim.commands().forward(here[0], gone);
    sim.commands().forward(there[0], here[1]);
    sim.run();
    assert!(sim.is_reset(peers[0]) && sim.is_reset(peers[1]));
    assert!(!sim.is_reset(peers[3]), "one that lives elsewhere is left alone");
    // Nor is there anywhere to go for the input of one whose own output ends.
    sim.commands().finish(here[3]);
    sim.commands().forward(here[3], here[3]);
    sim.run();
    assert!(sim.is_reset(peers[4]));
}

#[test]
fn a_target_that_closes_resets_the_source() {
    let (mut sim, listener, notes, _to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.commands().forward(ids[0], ids[1]);
    sim.run();
    sim.commands().finish(ids[1]);
    sim.run();
    assert!(sim.is_closed(target) && !sim.is_reset(from));
    sim.send(from, b"too late");
    sim.run();
    assert!(sim.is_reset(from));
}

#[test]
fn others_may_pause_and_resume_and_wake() {
    let (mut sim, listener, notes, _to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.commands().forward(ids[0], ids[1]);
    sim.commands().pause(ids[0]);
    sim.run();
    sim.send(from, b"held");
    sim.finish(from);
    sim.run();
    sim.commands().wake(ids[0]);
    sim.run();
    assert_eq!(sim.take_received(target), b"", "another callback does not end the pause");
    sim.commands().resume(ids[0]);
    sim.run();
    assert_eq!(sim.take_received(target), b"held");
    assert!(sim.is_closed(target));
}

/// Sends news to this connection, unless it is behind.
struct Teller {
    to: Rc<RefCell<Option<ConnId>>>,
    answers: Rc<RefCell<Vec<Option<usize>>>>,
}

impl Protocol for Teller {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (to, answers) = (self.to.borrow().unwrap(), Rc::clone(&self.answers));
        conn.commands().queued_bytes(to, move |queued, commands| {
            answers.borrow_mut().push(queued);
            if queued.is_some_and(|bytes| bytes < 100_000) {
                commands.send(to, Bytes::from(vec![b'n'; 80_000]));
            }
        });
        Flow::Continue
    }
}

#[test]
fn who_tells_others_may_leave_out_those_that_are_behind() {
    let answers = Rc::<RefCell<Vec<Option<usize>>>>::default();
    let (mut sim, listener, notes, to) = lines(Options::default());
    let tellers = sim.listen({
        let (to, answers) = (Rc::clone(&to), Rc::clone(&answers));
        move |_peer| Teller { to: Rc::clone(&to), answers: Rc::clone(&answers) }
    });
    let reader = sim.connect(listener);
    let teller = sim.connect(tellers);
    sim.run();
    *to.borrow_mut() = Some(notes.borrow().ids[0]);
    sim.stop_reading(reader);
    for _ in 0..4 {
        sim.send(teller, b"!");
        sim.run();
    }
    let window = 64 << 10;
    let queued = |news: usize| Some(news * 80_000 - window);
    assert_eq!(*answers.borrow(), [Some(0), queued(1), queued(2), queued(3)]);
    sim.reset(reader);
    sim.run();
    sim.send(teller, b"!");
    sim.run();
    assert_eq!(answers.borrow().last(), Some(&None));
}

/// What one far end does in a storm.
struct End {
    peer: PeerId,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    finished: bool,
}

impl End {
    fn new(peer: PeerId, chance: &mut Chance) -> Self {
        let bytes = if chance.below(3) == 0 { chance.below(400_000) } else { chance.below(3000) };
        let to_send = (0..bytes).map(|_| chance.below(256) as u8).collect();
        Self { peer, to_send, sent: 0, received: Vec::new(), finished: false }
    }

    fn step(&mut self, sim: &mut Sim, chance: &mut Chance) {
        match chance.below(8) {
            0 => sim.stop_reading(self.peer),
            1 | 2 => sim.start_reading(self.peer),
            _ if self.sent < self.to_send.len() => {
                let part = (1 + chance.below(40_000)).min(self.to_send.len() - self.sent);
                sim.send(self.peer, &self.to_send[self.sent..self.sent + part]);
                self.sent += part;
            }
            3 | 4 => {
                self.finished = true;
                sim.finish(self.peer);
            }
            _ => {}
        }
        sim.drain_received(self.peer, &mut self.received);
    }
}

#[test]
fn in_any_storm_a_relay_moves_every_byte_and_both_ends() {
    for seed in seeds(200) {
        let mut chance = Chance::new(seed);
        let latency = Duration::ZERO..=Duration::from_millis(seed % 4);
        let limits = if seed % 3 == 0 {
            ConnLimits::default().write_high_bytes(5000).write_low_bytes(1000)
        } else {
            ConnLimits::default()
        };
        let mut options =
            Options::default().seed(seed).faults(Faults::stormy()).limits(limits).latency(latency);
        if seed % 2 == 0 {
            options = options.window(1 + chance.below(50_000));
        }
        let mut world = World::with(options, b"", Some(Duration::from_secs(3600)));
        if seed % 5 == 0 {
            world.sim.answer_connections(Answer::AcceptAfter(Duration::from_millis(20)));
        }
        let mut pairs = Vec::new();
        for _ in 0..1 + chance.below(3) {
            let client = End::new(world.sim.connect(world.listener), &mut chance);
            let early = chance.below(1 + client.to_send.len());
            world.sim.send(client.peer, &client.to_send[..early]);
            let client = End { sent: early, ..client };
            world.sim.settle();
            world.sim.advance(Duration::from_millis(50));
            let dialed = world.sim.take_dialed();
            pairs.push((client, End::new(dialed[0].0, &mut chance)));
        }
        let is_over = |pairs: &[(End, End)]| pairs.iter().all(|(one, other)| one.finished && other.finished);
        for _ in 0..2000 {
            if is_over(&pairs) {
                break;
            }
            for (client, backend) in &mut pairs {
                client.step(&mut world.sim, &mut chance);
                backend.step(&mut world.sim, &mut chance);
            }
            world.sim.advance(Duration::from_micros(chance.below(3000) as u64));
        }
        assert!(is_over(&pairs), "seed {seed}");
        for (client, backend) in &mut pairs {
            for end in [&mut *client, &mut *backend] {
                world.sim.start_reading(end.peer);
            }
            world.sim.advance(Duration::from_secs(2));
            for end in [&mut *client, &mut *backend] {
                world.sim.drain_received(end.peer, &mut end.received);
                assert!(world.sim.is_closed(end.peer) && !world.sim.is_reset(end.peer), "seed {seed}");
            }
            assert!(client.received == backend.to_send, "seed {seed}: to the client");
            assert!(backend.received == client.to_send, "seed {seed}: to the backend");
        }
        assert!(world.is_at_rest(), "seed {seed}: {} open", world.sim.open());
        assert!(
            world.log().iter().all(|line| !line.contains("Failed") && !line.contains("Reset")),
            "seed {seed}"
        );
    }
}

#[test]
fn in_any_storm_a_reset_takes_the_other_along() {
    for seed in seeds(200) {
        let mut chance = Chance::new(seed);
        let latency = Duration::ZERO..=Duration::from_millis(seed % 4);
        let options = Options::default().seed(seed).faults(Faults::stormy()).latency(latency).window(20_000);
        let mut world = World::new(options);
        let client = world.sim.connect(world.listener);
        let mut client = End::new(client, &mut chance);
        world.sim.settle();
        let backend = world.sim.take_dialed()[0].0;
        let mut backend = End::new(backend, &mut chance);
        for _ in 0..chance.below(20) {
            client.step(&mut world.sim, &mut chance);
            backend.step(&mut world.sim, &mut chance);
            world.sim.advance(Duration::from_micros(chance.below(3000) as u64));
        }
        let (one, other) = if chance.below(2) == 0 { (client, backend) } else { (backend, client) };
        world.sim.reset(one.peer);
        world.sim.start_reading(other.peer);
        world.sim.advance(Duration::from_secs(5));
        assert!(world.is_at_rest(), "seed {seed}: {:?}", world.log());
        let both_had_ended = one.finished && other.finished;
        assert!(world.sim.is_reset(other.peer) || both_had_ended, "seed {seed}: {:?}", world.log());
    }
}

/// The relay on real sockets: a client that a listener accepts, and the backend that it dials.
struct Relay {
    to: SocketAddr,
    dials: bool,
    ends: mpsc::Sender<String>,
}

impl Protocol for Relay {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.dials {
            let me = conn.id();
            let half = Self { dials: false, ends: self.ends.clone(), ..*self };
            let backend = conn.commands().connect(self.to, ConnectOptions::default(), half);
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Reset
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let half = if self.dials { "client" } else { "backend" };
        let reason = match reason {
            Lost::Failed(_) => "Failed".to_owned(),
            Lost::ConnectFailed(_) => "ConnectFailed".to_owned(),
            reason => format!("{reason:?}"),
        };
        let _ = self.ends.send(format!("{half} {reason}"));
    }
}

struct RealRelay {
    server: Running,
    backend: TcpListener,
    ends: mpsc::Receiver<String>,
}

impl RealRelay {
    fn start() -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = backend.local_addr().unwrap();
        let (sender, ends) = mpsc::channel();
        let server = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| {
                let ends = sender.clone();
                move |_peer| Relay { to, dials: true, ends: ends.clone() }
            })
            .unwrap()
            .start()
            .unwrap();
        Self { server, backend, ends }
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.server.local_addrs()[0].as_socket_addr().unwrap()).unwrap())
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        (client, patient(self.backend.accept().unwrap().0))
    }

    fn ends(&self) -> [String; 2] {
        let mut ends = [(); 2].map(|()| self.ends.recv_timeout(PATIENCE).unwrap());
        ends.sort();
        ends
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| ((index as u32).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn on_real_sockets_half_closes_go_through_in_both_directions() {
    let relay = RealRelay::start();
    for client_first in [true, false] {
        let (client, backend) = relay.pair();
        let (mut first, mut second) = if client_first { (client, backend) } else { (backend, client) };
        let said = noise(3 << 20);
        let writer = std::thread::spawn({
            let said = said.clone();
            move || {
                first.write_all(&said).unwrap();
                first.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                first.read_to_end(&mut answer).unwrap();
                answer
            }
        });
        let mut heard = Vec::new();
        second.read_to_end(&mut heard).unwrap();
        assert!(heard == said);
        second.write_all(&said[..1 << 20]).unwrap();
        drop(second);
        assert!(writer.join().unwrap() == said[..1 << 20]);
        assert_eq!(relay.ends(), ["backend Closed", "client Closed"]);
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn on_real_sockets_resets_go_through_in_both_directions() {
    let relay = RealRelay::start();
    for from_client in [true, false] {
        let (client, backend) = relay.pair();
        let (mut first, mut second) = if from_client { (client, backend) } else { (backend, client) };
        first.write_all(b"begun").unwrap();
        second.read_exact(&mut [0; 5]).unwrap();
        reset(first);
        assert_eq!(second.read(&mut [0; 5]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let expected =
            if from_client { ["backend Reset", "client Failed"] } else { ["backend Failed", "client Reset"] };
        assert_eq!(relay.ends(), expected);
    }
    relay.server.stop(PATIENCE).unwrap();
}

/// More than a client that does not read lets its kernel take at first.
const ANSWER_BYTES: usize = 100 << 10;

/// Waits until the other side's kernel has all that was sent.
fn acknowledged(stream: &TcpStream) {
    let mut unsent: libc::c_int = 1;
    while unsent > 0 {
        #[expect(unsafe_code, reason = "ioctl(2) has no safe form")]
        // SAFETY: TIOCOUTQ writes one int, and `unsent` is one that outlives the call.
        let asked = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
        assert_eq!(asked, 0);
        std::thread::yield_now();
    }
}

#[test]
fn on_real_sockets_what_came_before_a_reset_is_delivered_before_it() {
    let relay = RealRelay::start();
    for _ in 0..20 {
        let (mut client, mut backend) = relay.pair();
        let answer = noise(ANSWER_BYTES);
        backend.write_all(&answer).unwrap();
        acknowledged(&backend);
        reset(backend);
        assert_eq!(relay.ends.recv_timeout(PATIENCE).unwrap(), "backend Failed");
        let mut heard = Vec::new();
        let error = client.read_to_end(&mut heard).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(heard.len(), answer.len());
        assert!(heard == answer);
        assert_eq!(relay.ends.recv_timeout(PATIENCE).unwrap(), "client Reset");
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn on_real_sockets_a_reset_behind_an_answer_and_its_end_leaves_both_whole() {
    let relay = RealRelay::start();
    for _ in 0..20 {
        let (mut client, mut backend) = relay.pair();
        client.write_all(b"a request that is longer than the backend reads").unwrap();
        backend.read_exact(&mut [0; 9]).unwrap();
        let answer = noise(ANSWER_BYTES);
        backend.write_all(&answer).unwrap();
        backend.shutdown(Shutdown::Write).unwrap();
        acknowledged(&backend);
        // With something unread: the kernel resets it.
        drop(backend);
        assert_eq!(relay.ends.recv_timeout(PATIENCE).unwrap(), "backend Failed");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert!(heard == answer);
        assert_eq!(relay.ends.recv_timeout(PATIENCE).unwrap(), "client Reset");
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn on_real_sockets_a_backend_that_refuses_resets_the_client() {
    let RealRelay { server, backend, ends } = RealRelay::start();
    drop(backend);
    let mut client = patient(TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap());
    assert_eq!(client.read(&mut [0; 5]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), "backend ConnectFailed");
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), "client Reset");
    server.stop(PATIENCE).unwrap();
}

#[test]
fn on_real_sockets_a_slow_reader_stops_its_writer_and_costs_one_read() {
    let relay = RealRelay::start();
    for to_client in [true, false] {
        let (client, backend) = relay.pair();
        let (mut reader, writer) = if to_client { (client, backend) } else { (backend, client) };
        // Until the kernel takes no more: what lies in its buffers is not ours.
        writer.set_nonblocking(true).unwrap();
        let said = noise(64 << 10);
        let mut sent = 0;
        let mut quiet_since = std::time::Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(300) {
            match (&writer).write(&said[sent % said.len()..]) {
                Ok(bytes) => {
                    sent += bytes;
                    quiet_since = std::time::Instant::now();
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        let before = relay.server.handle().stats();
        let held = before.received_bytes - before.sent_bytes;
        assert!(held <= 2 * (64 << 10), "{held} bytes are held");
        writer.set_nonblocking(false).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), sent);
        assert!(heard.chunks(said.len()).all(|chunk| *chunk == said[..chunk.len()]));
        drop(reader);
        assert_eq!(relay.ends(), ["backend Closed", "client Closed"]);
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn on_real_sockets_a_drain_waits_for_a_pair() {
    let relay = RealRelay::start();
    let (mut client, mut backend) = relay.pair();
    client.write_all(b"begun").unwrap();
    backend.read_exact(&mut [0; 5]).unwrap();
    relay.server.handle().drain(PATIENCE);
    while !relay.server.handle().is_draining() {
        std::thread::yield_now();
    }
    backend.write_all(b"answer").unwrap();
    drop(backend);
    let mut answer = Vec::new();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(relay.server.stop(PATIENCE).unwrap().cut, 0);
}

/// Keeps all that it receives until its peer has ended, and then sends it back.
struct LateEcho(mpsc::Sender<()>);

impl Protocol for LateEcho {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        let _ = self.0.send(());
        Flow::Pause
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        let me = conn.id();
        conn.commands().forward(me, me);
        Flow::Pause
    }
}

#[test]
fn on_real_sockets_what_came_during_a_pause_is_forwarded_behind_what_was_kept() {
    let (sender, paused) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let sender = sender.clone();
            move |_peer| LateEcho(sender.clone())
        })
        .unwrap()
        .start()
        .unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"kept").unwrap();
    paused.recv_timeout(PATIENCE).unwrap();
    client.write_all(b" later").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"kept later");
    server.stop(PATIENCE).unwrap();
}

/// Commands that lead to commands, so many times.
fn chain(commands: &mut Commands, id: ConnId, left: usize) {
    if left > 0 {
        commands.queued_bytes(id, move |_, commands| chain(commands, id, left - 1));
    }
}

/// Gives commands when it receives something.
struct Trigger<F>(F);

impl<F: FnMut(&mut Commands) + 'static> Protocol for Trigger<F> {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        (self.0)(conn.commands());
        Flow::Continue
    }
}

#[test]
fn a_source_whose_own_output_ends_brings_its_end_when_commands_have_to_wait() {
    for seed in seeds(40) {
        let (mut sim, listener, notes, _to) = lines(Options::default().seed(seed));
        let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
        let ids = notes.borrow().ids.clone();
        let busy = sim.listen({
            let from = ids[0];
            move |_peer| {
                Trigger(move |commands: &mut Commands| {
                    commands.finish(from);
                    chain(commands, from, 100);
                })
            }
        });
        let trigger = connect(&mut sim, busy);
        sim.commands().forward(ids[0], ids[1]);
        sim.run();
        sim.send(from, b"all");
        sim.run();
        sim.send(trigger, b"!");
        sim.finish(from);
        sim.run();
        assert_eq!(sim.take_received(target), b"all");
        assert!(sim.is_closed(target) && !sim.is_reset(target), "seed {seed}");
        assert!(sim.is_closed(from) && !sim.is_reset(from), "seed {seed}");
    }
}

#[test]
fn what_arrives_while_commands_have_to_wait_is_forwarded_behind_what_was_kept() {
    for (ends, seed) in [false, true].into_iter().flat_map(|ends| seeds(20).map(move |seed| (ends, seed))) {
        let (mut sim, listener, notes, _to) = lines(Options::default().seed(seed));
        let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
        let (first, second) = (notes.borrow().ids[0], notes.borrow().ids[1]);
        // Its second turn comes right in front of that of the source, in which what that has kept is to be forwarded.
        let busy =
            sim.listen(move |_peer| {
                Twice(false, move |commands: &mut Commands, again| {
                    if again { chain(commands, first, 200) } else { commands.forward(first, second) }
                })
            });
        let trigger = connect(&mut sim, busy);
        sim.send(from, b"kept");
        sim.run();
        sim.send(trigger, b"!");
        sim.turn();
        sim.send(from, b" later");
        if ends {
            sim.finish(from);
        }
        sim.run();
        assert_eq!(sim.take_received(target), b"kept later", "seed {seed}");
        assert!(sim.is_closed(target) == ends && !sim.is_reset(target), "seed {seed}");
    }
}

/// Gives commands when it receives something, and again in the next turn.
struct Twice<F>(bool, F);

impl<F: FnMut(&mut Commands, bool) + 'static> Protocol for Twice<F> {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        (self.1)(conn.commands(), self.0);
        if std::mem::replace(&mut self.0, true) {
            input.advance_all();
            return Flow::Continue;
        }
        Flow::Yield
    }
}

/// The last of commands that lead to commands, so many rounds later.
fn behind(commands: &mut Commands, rounds: usize, id: ConnId, last: impl FnOnce(&mut Commands) + 'static) {
    if rounds == 0 {
        return last(commands);
    }
    commands.queued_bytes(id, move |_, commands| behind(commands, rounds - 1, id, last));
}

/// Around as many rounds as are carried out at once: what follows an order is noted before it or behind it.
const ROUNDS: std::ops::Range<usize> = 55..75;

#[test]
fn who_is_no_source_any_more_when_commands_had_to_wait_is_offered_what_it_has_kept() {
    for rounds in ROUNDS {
        let (mut sim, listener, notes, to) = lines(Options::default());
        let peers: Vec<PeerId> = (0..3).map(|_| connect(&mut sim, listener)).collect();
        let ids = notes.borrow().ids.clone();
        sim.send(peers[0], b"mine");
        sim.run();
        let (first, target, second) = (ids[0], ids[1], ids[2]);
        // Its second turn comes right in front of that of the source.
        let busy = sim.listen(move |_peer| {
            Twice(false, move |commands: &mut Commands, again| {
                if again {
                    behind(commands, rounds, first, move |commands| commands.forward(second, target));
                } else {
                    commands.forward(first, target);
                }
            })
        });
        let trigger = connect(&mut sim, busy);
        sim.send(trigger, b"!");
        sim.run();
        assert!(!sim.is_reset(peers[0]), "{rounds} rounds");
        let offers = notes.borrow().offers;
        *to.borrow_mut() = Some(target);
        sim.send(peers[0], b"\nforwarded");
        sim.run();
        let all = [sim.take_received(peers[1]), sim.take_received(peers[0])].concat();
        assert!(all == b"forwardedmine\n" || all == b"mineforwarded\n", "{rounds} rounds: {all:?}");
        // When it was unlinked, and not only when more comes.
        assert_eq!(offers, 1 + usize::from(all.starts_with(b"forwarded")), "{rounds} rounds");
    }
}

#[test]
fn who_is_no_source_any_more_when_commands_had_to_wait_is_told_that_its_input_has_ended() {
    for rounds in ROUNDS {
        for (kept, seed) in [("", 1), ("", 2), ("kept", 1), ("kept", 2)] {
            let (mut sim, listener, notes, _to) = lines(Options::default().seed(seed));
            let peers: Vec<PeerId> = (0..3).map(|_| connect(&mut sim, listener)).collect();
            let ids = notes.borrow().ids.clone();
            let (first, target, second) = (ids[0], ids[1], ids[2]);
            sim.send(peers[0], kept.as_bytes());
            sim.run();
            let busy = sim.listen(move |_peer| {
                Twice(false, move |commands: &mut Commands, again| {
                    if again {
                        behind(commands, rounds, first, move |commands| commands.forward(second, target));
                    } else {
                        commands.forward(first, target);
                    }
                })
            });
            let trigger = connect(&mut sim, busy);
            sim.send(trigger, b"!");
            sim.turn();
            sim.finish(peers[0]);
            sim.run();
            let place = format!("{rounds} rounds, {kept:?}, seed {seed}");
            // Either the end has gone where the input went, and then there is no target for the second, or it was told.
            let told = notes.borrow().log.contains(&format!("eof {}", kept.len()));
            assert_eq!(told, !sim.is_closed(peers[1]), "{place}: {:?}", notes.borrow().log);
            assert!(!sim.is_reset(peers[0]) && sim.is_reset(peers[2]) != told, "{place}");
            let eofs = notes.borrow().log.iter().filter(|line| line.starts_with("eof")).count();
            assert_eq!(eofs, usize::from(told), "{place}");
        }
    }
}

#[test]
fn who_is_told_that_its_input_has_ended_is_told_behind_a_pause() {
    let (mut sim, listener, notes, _to) = lines(Options::default());
    let peers: Vec<PeerId> = (0..3).map(|_| connect(&mut sim, listener)).collect();
    let ids = notes.borrow().ids.clone();
    let (first, target, second) = (ids[0], ids[1], ids[2]);
    sim.commands().forward(first, target);
    sim.run();
    let busy = sim.listen(move |_peer| {
        Trigger(move |commands: &mut Commands| {
            behind(commands, 64, first, move |commands| {
                commands.pause(first);
                commands.forward(second, target);
            });
        })
    });
    let trigger = connect(&mut sim, busy);
    sim.send(trigger, b"!");
    sim.finish(peers[0]);
    sim.run();
    assert_eq!(notes.borrow().log, [""; 0], "it is paused");
    sim.commands().resume(first);
    sim.run();
    assert_eq!(notes.borrow().log, ["eof 0"]);
    assert!(!sim.is_closed(peers[1]) && !sim.is_reset(peers[2]));
}

#[test]
fn a_source_that_is_paused_while_commands_have_to_wait_brings_what_it_has_kept_behind_the_pause() {
    for rounds in ROUNDS {
        let (mut sim, listener, notes, _to) = lines(Options::default());
        let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
        let (first, second) = (notes.borrow().ids[0], notes.borrow().ids[1]);
        sim.send(from, b"kept");
        sim.run();
        let busy = sim.listen(move |_peer| {
            Twice(false, move |commands: &mut Commands, again| {
                if again {
                    behind(commands, rounds, first, move |commands| commands.pause(first));
                } else {
                    commands.forward(first, second);
                }
            })
        });
        let trigger = connect(&mut sim, busy);
        sim.send(trigger, b"!");
        sim.turn();
        sim.send(from, b" later");
        sim.run();
        let early = sim.take_received(target);
        assert!(early.is_empty() || early == b"kept" || early == b"kept later", "{rounds} rounds");
        if rounds == 64 {
            assert_eq!(early, b"", "the pause was carried out first");
        }
        sim.commands().resume(first);
        sim.run();
        assert_eq!([early, sim.take_received(target)].concat(), b"kept later", "{rounds} rounds");
    }
}

#[test]
fn a_one_way_forward_that_ends_in_a_drain_leaves_both_the_grace_of_the_drain() {
    for takes_over in [false, true] {
        let (mut sim, listener, notes, _to) = lines(Options::default());
        let peers: Vec<PeerId> = (0..3).map(|_| connect(&mut sim, listener)).collect();
        let ids = notes.borrow().ids.clone();
        sim.commands().forward(ids[0], ids[1]);
        sim.run();
        sim.begin_drain(Duration::from_secs(60));
        sim.advance(Duration::from_secs(10));
        assert_eq!(sim.open(), 2, "the third, which is no end of it, has had its grace");
        sim.send(peers[0], b"last");
        if takes_over {
            // Then the old target is on its own.
            sim.run();
            sim.commands().forward(ids[0], ids[0]);
            sim.run();
        }
        sim.finish(peers[0]);
        sim.run();
        assert_eq!(sim.take_received(peers[1]), b"last");
        // The grace, and the silence of a lingering close.
        sim.advance(Duration::from_secs(4));
        assert!(sim.is_finished(), "{takes_over}: {:?}", notes.borrow().log);
        assert!(sim.is_closed(peers[0]) && !sim.is_reset(peers[0]) && !sim.is_reset(peers[1]));
        assert!(!notes.borrow().log.contains(&"Cut".to_owned()));
    }
}

#[test]
fn a_pair_is_not_idle_when_the_last_to_move_was_a_direction_that_has_ended() {
    for client_ends in [true, false] {
        let mut world = World::with(Options::default(), b"", Some(IDLE));
        let (client, backend) = world.pair();
        world.sim.advance(IDLE - Duration::from_secs(1));
        let (ends, answers) = if client_ends { (client, backend) } else { (backend, client) };
        world.sim.send(ends, b"request");
        world.sim.finish(ends);
        world.sim.advance(IDLE - Duration::from_secs(1));
        assert_eq!(world.sim.open(), 2, "{:?}", world.log());
        world.sim.send(answers, b"answer");
        world.sim.run();
        assert_eq!(world.sim.take_received(ends), b"answer");
        world.sim.advance(IDLE + Duration::from_millis(2));
        assert!(world.sim.is_reset(answers) && world.is_at_rest());
    }
}

#[test]
fn what_lies_in_the_other_socket_counts_more_than_a_deadline_that_has_passed() {
    for from_client in [false, true] {
        // One event a turn: when the deadlines come up most of what had arrived was not read yet.
        let options = Options::default().budget(Budget::fixed(1));
        let mut world = World::with(options, b"", Some(IDLE));
        let pairs: Vec<_> = (0..20).map(|_| world.pair()).collect();
        world.sim.run();
        for (client, backend) in &pairs {
            world.sim.send(if from_client { *client } else { *backend }, b"news");
        }
        world.sim.stand_still(IDLE + Duration::from_secs(1));
        world.sim.run();
        assert_eq!(world.sim.open(), 40, "{:?}", world.log());
        for (client, backend) in &pairs {
            assert_eq!(world.sim.take_received(if from_client { *backend } else { *client }), b"news");
        }
        world.sim.advance(IDLE + Duration::from_millis(2));
        assert!(world.is_at_rest());
    }
}

#[test]
fn a_relay_that_begins_in_a_drain_goes_on_beyond_the_grace() {
    let mut world = World::new(Options::default());
    let client = world.sim.connect(world.listener);
    world.sim.begin_drain(Duration::from_secs(20));
    world.sim.run();
    let backend = world.sim.take_dialed()[0].0;
    for _ in 0..6 {
        world.sim.send(backend, b"part");
        world.sim.advance(Duration::from_millis(500));
    }
    assert_eq!(world.sim.take_received(client), b"part".repeat(6));
    assert!(!world.sim.is_closed(client) && !world.sim.is_closed(backend));
    world.sim.finish(client);
    world.sim.finish(backend);
    world.sim.run();
    assert_eq!(world.log(), ["backend Closed", "client Closed"]);
}

#[test]
fn a_forward_within_the_grace_of_a_drain_calls_the_grace_off() {
    let (mut sim, listener, notes, _to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.begin_drain(Duration::from_secs(20));
    sim.run();
    sim.commands().forward(ids[0], ids[1]);
    for _ in 0..6 {
        sim.send(from, b"part");
        sim.advance(Duration::from_millis(500));
    }
    assert_eq!(sim.take_received(target), b"part".repeat(6));
    assert!(!sim.is_closed(from) && !sim.is_closed(target));
}

/// Sends a file when it is woken.
struct Filing {
    notes: Notes,
    file: std::sync::Arc<std::fs::File>,
    bytes: u64,
}

impl Protocol for Filing {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.notes.borrow_mut().ids.push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send_file(FileRange::new(std::sync::Arc::clone(&self.file), 0, self.bytes));
        Flow::Continue
    }
}

#[test]
fn a_source_goes_on_when_the_rest_of_a_file_in_front_has_left_with_the_output_of_others() {
    let path = std::env::temp_dir().join(format!("core-forwarding-{}", std::process::id()));
    std::fs::write(&path, vec![b'f'; 900_000]).unwrap();
    let file = std::sync::Arc::new(std::fs::File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    for seed in seeds(40) {
        let notes = Notes::default();
        let mut sim = Sim::new(Options::default().seed(seed).window(4 << 20));
        let listener = sim.listen({
            let (notes, file) = (Rc::clone(&notes), std::sync::Arc::clone(&file));
            move |_peer| Filing {
                notes: Rc::clone(&notes),
                file: std::sync::Arc::clone(&file),
                bytes: 900_000,
            }
        });
        let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
        let ids = notes.borrow().ids.clone();
        let waking = sim.listen({
            let target = ids[1];
            move |_peer| Trigger(move |commands: &mut Commands| commands.wake(target))
        });
        let trigger = connect(&mut sim, waking);
        sim.commands().forward(ids[0], ids[1]);
        sim.commands().forward(ids[1], ids[0]);
        sim.run();
        sim.send(trigger, b"!");
        sim.send(from, b"first");
        sim.run();
        sim.send(from, b"second");
        sim.run();
        assert_eq!(sim.take_received(target).len(), 900_000 + 11, "seed {seed}");
    }
}

#[test]
fn what_was_kept_for_a_target_whose_output_ends_is_given_back() {
    let (mut sim, listener, notes, _to) = lines(Options::default());
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.send(from, b"no line");
    sim.run();
    sim.commands().forward(ids[0], ids[1]);
    sim.commands().finish(ids[1]);
    sim.run();
    assert!(sim.is_reset(from) && sim.is_closed(target));
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn of_two_that_are_dialed_the_target_says_its_greeting_first() {
    let slow = SocketAddr::new(SOMEWHERE.ip(), 8);
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    sim.answer_connections_to(slow, Answer::AcceptAfter(Duration::from_secs(1)));
    let half = |name, greeting| Half { notes: Rc::clone(&notes), name, dials: false, greeting, idle: None };
    let source = sim.commands().connect(SOMEWHERE, ConnectOptions::default(), half("source", b""));
    let target = sim.commands().connect(slow, ConnectOptions::default(), half("target", b"PROXY "));
    sim.commands().forward(source, target);
    sim.commands().forward(target, source);
    sim.run();
    let mut dialed = sim.take_dialed();
    sim.send(dialed[0].0, b"early");
    sim.run();
    sim.advance(Duration::from_secs(2));
    dialed.append(&mut sim.take_dialed());
    assert_eq!(sim.take_received(dialed[1].0), b"PROXY early");
    sim.send(dialed[1].0, b"back");
    sim.run();
    assert_eq!(sim.take_received(dialed[0].0), b"back");
    sim.send(dialed[0].0, b"forth");
    sim.run();
    assert_eq!(sim.take_received(dialed[1].0), b"forth");
}

/// Answers each byte with a lot, and writes down when it may go on.
struct Loud(Notes);

impl Protocol for Loud {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().ids.push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(&vec![b'l'; 1 << 20]);
        self.0.borrow_mut().log.push(format!("backed up: {}", conn.is_backed_up()));
        Flow::Continue
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("drained".into());
        Flow::Continue
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("peer ended".into());
        Flow::Pause
    }
}

#[test]
fn who_is_paused_by_others_while_it_is_behind_learns_that_its_peer_has_ended() {
    for forwarded in [false, true] {
        let notes = Notes::default();
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen({
            let notes = Rc::clone(&notes);
            move |_peer| Loud(Rc::clone(&notes))
        });
        let (peer, _target) = (connect(&mut sim, listener), connect(&mut sim, listener));
        let ids = notes.borrow().ids.clone();
        sim.stop_reading(peer);
        sim.send(peer, b"1");
        sim.run();
        sim.send(peer, b"2");
        sim.finish(peer);
        sim.run();
        assert_eq!(notes.borrow().log, ["backed up: true"], "it does not read, and nobody has paused it");
        if forwarded {
            sim.answer_connections(Answer::Ignore);
            let half = Half { notes: Rc::clone(&notes), name: "", dials: false, greeting: b"", idle: None };
            let dialed = sim.commands().connect(SOMEWHERE, ConnectOptions::default(), half);
            sim.commands().forward(ids[0], dialed);
        } else {
            sim.commands().pause(ids[0]);
        }
        sim.run();
        assert_eq!(notes.borrow().log, ["backed up: true", "peer ended"], "forwarded: {forwarded}");
    }
}

#[test]
fn a_target_that_has_its_own_input_is_held_back_by_its_own_output() {
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let notes = Rc::clone(&notes);
        move |_peer| Loud(Rc::clone(&notes))
    });
    let (from, target) = (connect(&mut sim, listener), connect(&mut sim, listener));
    let ids = notes.borrow().ids.clone();
    sim.commands().forward(ids[0], ids[1]);
    sim.run();
    sim.stop_reading(target);
    sim.send(target, b"1");
    sim.run();
    sim.send(target, b"2");
    sim.send(from, b"forwarded");
    sim.run();
    assert_eq!(notes.borrow().log, ["backed up: true"], "it is not read on");
    sim.start_reading(target);
    sim.settle();
    assert_eq!(notes.borrow().log, ["backed up: true", "drained", "backed up: true", "drained"]);
    assert_eq!(sim.take_received(target).len(), (2 << 20) + 9);
}
