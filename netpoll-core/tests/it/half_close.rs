//! The end of our direction alone: what is queued leaves, input goes on, and both ends are the end.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, FileRange, Flow, Input, Lost, Protocol, Running, Runtime, Workers,
};

use crate::chance::{Chance, seeds};

const PATIENCE: Duration = Duration::from_secs(30);
const LARGE: usize = 1 << 20;

/// What happened, and the name of the connection.
#[derive(Default)]
struct Seen {
    log: Vec<String>,
    received: Vec<u8>,
    id: Option<ConnId>,
}

type Notes = Rc<RefCell<Seen>>;

/// Does what each letter of its input says, and writes down what happens to it.
struct Orders(Notes);

/// Everything that sends.
fn send_in_all_ways(conn: &mut Conn<'_>) {
    conn.send(b"send");
    conn.send_now(b"now");
    conn.send_static(b"static");
    conn.send_shared(Bytes::from(vec![b'x'; 8192]));
    conn.send_common(Bytes::from_static(b"common"));
    assert_eq!(conn.append(1 << 16, |out| (out.extend(b"append"), 7).1), 7);
    conn.send_file(FileRange::new(letters(), 0, 10));
    let id = conn.id();
    conn.commands().send(id, Bytes::from_static(b"command"));
}

fn letters() -> Arc<std::fs::File> {
    Arc::new(std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap())
}

impl Protocol for Orders {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().id = Some(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(letter) = input.bytes().first().copied() {
            input.advance(1);
            self.0.borrow_mut().received.push(letter);
            match letter {
                b's' => conn.send(b"some"),
                b'l' => conn.send(&vec![b'l'; LARGE]),
                b'f' => conn.finish(),
                b'e' => {
                    conn.finish();
                    send_in_all_ways(conn);
                    assert!(conn.is_finished());
                }
                b'd' => conn.set_deadline(Duration::from_secs(1)),
                b'p' => return Flow::Pause,
                b'y' => return Flow::Yield,
                b'c' => return Flow::Close,
                b'g' => return Flow::Linger,
                b'r' => return Flow::Reset,
                _ => {}
            }
        }
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().log.push("eof".into());
        if input.is_empty() { Flow::Continue } else { Flow::Yield }
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("drained".into());
        Flow::Continue
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("peer ended".into());
        Flow::Pause
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("deadline".into());
        conn.finish();
        Flow::Continue
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().log.push("stopping".into());
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().log.push(format!("lost {reason:?}"));
    }
}

fn world(options: Options) -> (Sim, ListenerId, Notes) {
    let notes = Notes::default();
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let notes = Rc::clone(&notes);
        move |_peer| Orders(Rc::clone(&notes))
    });
    (sim, listener, notes)
}

fn connected() -> (Sim, PeerId, Notes) {
    let (mut sim, listener, notes) = world(Options::default());
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer, notes)
}

fn log(notes: &Notes) -> Vec<String> {
    notes.borrow().log.clone()
}

#[test]
fn our_direction_ends_behind_what_is_queued_and_input_goes_on() {
    let (mut sim, peer, notes) = connected();
    sim.send(peer, b"sf");
    sim.run();
    assert_eq!(sim.take_received(peer), b"some");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer) && sim.open() == 1);
    sim.send(peer, b"MORE");
    sim.run();
    assert_eq!(notes.borrow().received, b"sfMORE");
    sim.finish(peer);
    sim.run();
    assert_eq!(log(&notes), ["eof", "lost Closed"]);
    assert!(!sim.is_reset(peer));
}

#[test]
fn what_is_sent_behind_the_end_is_dropped_in_whatever_way() {
    let (mut sim, peer, notes) = connected();
    for orders in [&b"se"[..], b"s", b"e"] {
        sim.send(peer, orders);
        sim.run();
    }
    let id = notes.borrow().id.unwrap();
    sim.handle().send(id, Bytes::from_static(b"letter"));
    sim.run();
    assert_eq!(sim.take_received(peer), b"some");
    sim.finish(peer);
    sim.run();
    assert_eq!(log(&notes), ["eof", "lost Closed"]);
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn who_ends_first_makes_no_difference() {
    let (mut sim, peer, notes) = connected();
    sim.send(peer, b"ds");
    sim.finish(peer);
    sim.run();
    assert_eq!((log(&notes), sim.open()), (vec!["eof".to_owned()], 1));
    sim.advance(Duration::from_secs(2));
    assert_eq!(log(&notes), ["eof", "deadline", "lost Closed"]);
    assert_eq!(sim.take_received(peer), b"some");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn a_queue_that_the_peer_does_not_read_holds_back_the_end_and_not_the_input() {
    let (mut sim, peer, notes) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"l");
    sim.run();
    sim.send(peer, b"held");
    sim.run();
    assert_eq!(notes.borrow().received, b"l", "it is backed up");
    sim.handle().finish(notes.borrow().id.unwrap());
    sim.run();
    assert_eq!(notes.borrow().received, b"lheld");
    sim.finish(peer);
    sim.run();
    assert_eq!(log(&notes), ["eof"], "its output is still to leave");
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(sim.take_received(peer).len(), LARGE);
    assert_eq!(log(&notes), ["eof", "lost Closed"]);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn a_queue_that_is_never_read_is_cut_as_ever() {
    let (mut sim, peer, notes) = connected();
    sim.stop_reading(peer);
    sim.send(peer, b"lf");
    sim.advance(Duration::from_secs(60));
    assert_eq!(log(&notes), ["lost Stalled"]);
}

#[test]
fn a_pause_lasts_behind_both_ends() {
    let (mut sim, peer, notes) = connected();
    sim.send(peer, b"dfp");
    sim.run();
    sim.send(peer, b"REST");
    sim.finish(peer);
    sim.run();
    assert_eq!(log(&notes), ["peer ended"]);
    assert!(sim.is_closed(peer));
    sim.advance(Duration::from_secs(2));
    assert_eq!(log(&notes), ["peer ended", "deadline", "eof", "lost Closed"]);
    assert_eq!(notes.borrow().received, b"dfpREST");
    assert!(!sim.is_reset(peer));
}

#[test]
fn what_is_left_by_a_yield_is_offered_before_it_closes() {
    let (mut sim, peer, notes) = connected();
    sim.send(peer, b"fyyyyx");
    sim.finish(peer);
    sim.run();
    assert_eq!(notes.borrow().received, b"fyyyyx");
    assert_eq!(log(&notes).last().unwrap(), "lost Closed");
}

/// Consumes nothing before the end, and then a byte a turn. At the end it sends this file, and ends its direction.
struct Late(Notes, Option<FileRange>);

impl Protocol for Late {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if !conn.is_finished_by_peer() {
            return Flow::Continue;
        }
        self.0.borrow_mut().received.push(input.bytes()[0]);
        input.advance(1);
        if input.is_empty() { Flow::Continue } else { Flow::Yield }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.1.take().into_iter().for_each(|file| conn.send_file(file));
        conn.finish();
        Flow::Yield
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().log.push(format!("lost {reason:?}"));
    }
}

/// What is sent to a late one, and the length of the file that it sends.
fn late(sent: &[u8], file_bytes: u64) {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("late-{}-{file_bytes}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(file_bytes).unwrap();
    let file = Arc::new(file);
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let notes = Rc::clone(&notes);
        move |_peer| Late(Rc::clone(&notes), Some(FileRange::new(Arc::clone(&file), 0, file_bytes)))
    });
    let peer = sim.connect(listener);
    sim.send(peer, sent);
    sim.finish(peer);
    sim.run();
    assert_eq!(notes.borrow().received, sent);
    assert_eq!(log(&notes), ["lost Closed"]);
    assert!(sim.take_received(peer).len() as u64 == file_bytes && !sim.is_reset(peer));
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn input_that_is_left_for_later_behind_both_ends_is_offered_to_the_last_byte() {
    late(b"later", 0);
}

#[test]
fn it_is_offered_before_the_rest_of_a_file_is_the_end() {
    late(b"later", 1400 << 10);
}

#[test]
fn giving_way_behind_both_ends_without_input_ends_all_the_same() {
    late(b"", 1);
}

#[test]
fn other_ends_come_behind_the_end_of_our_direction() {
    for (end, lost) in [(b'c', "lost Closed"), (b'g', "lost Closed"), (b'r', "lost Reset")] {
        let (mut sim, peer, notes) = connected();
        sim.send(peer, b"sf");
        sim.run();
        sim.send(peer, &[end]);
        sim.run();
        sim.send(peer, b"UNHEARD");
        sim.advance(Duration::from_secs(20));
        assert_eq!(log(&notes), [lost], "{}", end as char);
        assert!(notes.borrow().received.len() == 3 && sim.open() == 0);
    }
}

#[test]
fn a_peer_that_resets_behind_our_end_has_failed() {
    let (mut sim, peer, notes) = connected();
    sim.send(peer, b"f");
    sim.run();
    sim.reset(peer);
    sim.run();
    assert!(log(&notes)[0].starts_with("lost Failed"), "{:?}", log(&notes));
}

#[test]
fn a_drain_waits_for_the_other_direction_and_cuts_it_without_a_reset() {
    let (mut sim, listener, notes) = world(Options::default());
    let peer = sim.connect(listener);
    sim.send(peer, b"sf");
    sim.run();
    sim.begin_drain(Duration::from_secs(5));
    sim.advance(Duration::from_secs(4));
    sim.send(peer, b"MORE");
    sim.run();
    assert_eq!(notes.borrow().received, b"sfMORE");
    sim.advance(Duration::from_secs(2));
    assert_eq!(log(&notes), ["stopping", "lost Cut"]);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer) && sim.is_finished());
    assert_eq!(sim.take_received(peer), b"some");
}

/// Retires, as the default is.
struct Retiring(Notes);

impl Protocol for Retiring {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        conn.finish();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().log.push(format!("lost {reason:?}"));
    }
}

#[test]
fn who_retires_behind_its_own_end_lingers_for_its_peer() {
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let notes = Rc::clone(&notes);
        move |_peer| Retiring(Rc::clone(&notes))
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"word");
    sim.run();
    sim.begin_drain(Duration::from_secs(30));
    sim.advance(Duration::from_secs(10));
    assert_eq!(log(&notes), ["lost Closed"]);
    assert!(sim.take_received(peer) == b"word" && !sim.is_reset(peer) && sim.is_finished());
}

/// Takes everything, answers each piece in a way that chance chooses, and ends its direction in the middle of it.
struct Stormy {
    notes: Notes,
    chance: Chance,
    sent: Vec<u8>,
}

impl Protocol for Stormy {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.notes.borrow_mut().received.extend(input.bytes());
        let bytes = vec![b'a' + self.chance.below(26) as u8; self.chance.below(30_000)];
        if !conn.is_finished() {
            match self.chance.below(5) {
                0 => conn.send_now(&bytes),
                1 => conn.send_shared(Bytes::from(bytes.clone())),
                2 => conn.append(10, |out| out.extend(&bytes)),
                _ => conn.send(&bytes),
            }
            self.sent.extend(&bytes);
            if self.chance.below(4) == 0 {
                conn.send_now(input.bytes());
                self.sent.extend(input.bytes());
            }
        }
        input.advance_all();
        if self.chance.below(6) == 0 {
            conn.finish();
            send_in_all_ways(conn);
        }
        match self.chance.below(8) {
            0 => Flow::Yield,
            1 => {
                conn.set_deadline(Duration::from_millis(3));
                Flow::Pause
            }
            _ => Flow::Continue,
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        assert!(input.is_empty());
        conn.finish();
        Flow::Continue
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let mut notes = self.notes.borrow_mut();
        notes.log.push(format!("{reason:?}"));
        let sent = std::mem::take(&mut self.sent);
        notes.log.push(String::from_utf8(sent).unwrap());
    }
}

#[test]
fn in_any_storm_both_directions_are_whole_and_end_by_themselves() {
    for seed in seeds(300) {
        let mut chance = Chance::new(seed);
        let notes = Notes::default();
        let mut faults = Faults::stormy();
        faults.failed_registrations = 0;
        let limits = ConnLimits::default().write_high_bytes(9_000).write_low_bytes(100);
        let latency = Duration::ZERO..=Duration::from_millis(seed % 3);
        let mut sim = Sim::new(
            Options::default().seed(seed).faults(faults).limits(limits).latency(latency).window(7_000),
        );
        let listener = sim.listen({
            let notes = Rc::clone(&notes);
            let mut chance = Chance::new(seed);
            move |_peer| Stormy { notes: Rc::clone(&notes), chance: chance.fork(), sent: Vec::new() }
        });
        let peer = sim.connect(listener);
        let mut said = Vec::new();
        for _ in 0..chance.below(12) {
            let bytes = vec![b'A' + chance.below(26) as u8; 1 + chance.below(20_000)];
            sim.send(peer, &bytes);
            said.extend(bytes);
            match chance.below(4) {
                0 => sim.stop_reading(peer),
                1 => sim.start_reading(peer),
                _ => sim.advance(Duration::from_millis(chance.below(5) as u64)),
            }
        }
        sim.finish(peer);
        sim.start_reading(peer);
        sim.advance(Duration::from_secs(3));
        let seen = notes.borrow();
        assert_eq!(seen.log.first().map(String::as_str), Some("Closed"), "seed {seed}");
        assert!(seen.received == said, "seed {seed}: what the peer said");
        let heard = sim.take_received(peer);
        assert!(heard == seen.log[1].as_bytes(), "seed {seed}: what we said, {} bytes", heard.len());
        assert!(sim.is_closed(peer) && !sim.is_reset(peer), "seed {seed}");
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "seed {seed}");
    }
}

/// Sends back what it gets, and ends its direction when it is told to; reports its end, and how much it got by then.
struct Told {
    reports: mpsc::Sender<Report>,
    received_bytes: usize,
}

enum Report {
    Open(ConnId),
    Lost(String, usize),
}

impl Protocol for Told {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = self.reports.send(Report::Open(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.received_bytes += input.len();
        conn.send_now(input.bytes());
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.reports.send(Report::Lost(format!("{reason:?}"), self.received_bytes));
    }
}

fn start() -> (Running, TcpStream, ConnId, mpsc::Receiver<Report>) {
    let (sender, reports) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let reports = sender.clone();
            move |_peer| Told { reports: reports.clone(), received_bytes: 0 }
        })
        .unwrap()
        .start()
        .unwrap();
    let client = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let Report::Open(id) = reports.recv_timeout(PATIENCE).unwrap() else { panic!("it opens first") };
    (server, client, id, reports)
}

fn end_of(reports: &mpsc::Receiver<Report>) -> (String, usize) {
    match reports.recv_timeout(PATIENCE).unwrap() {
        Report::Lost(reason, received_bytes) => (reason, received_bytes),
        Report::Open(_) => panic!("nobody else connects"),
    }
}

#[test]
fn on_a_real_socket_the_peer_sees_the_end_and_may_go_on() {
    let (server, mut client, id, reports) = start();
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    server.handle().finish(id);
    assert_eq!(client.read(&mut [0; 4]).unwrap(), 0, "our direction has ended");
    let more = vec![b'm'; 3 << 20];
    client.write_all(&more).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(end_of(&reports), ("Closed".to_owned(), 4 + more.len()));
    assert_eq!(client.read(&mut [0; 4]).unwrap(), 0, "and no reset behind it");
    server.stop(PATIENCE).unwrap();
}

#[test]
fn on_a_real_socket_the_peer_may_end_first() {
    let (server, mut client, id, reports) = start();
    client.write_all(b"ping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    server.handle().send(id, Bytes::from(vec![b'l'; LARGE]));
    server.handle().finish(id);
    server.handle().send(id, Bytes::from_static(b"dropped"));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), LARGE);
    assert_eq!(end_of(&reports), ("Closed".to_owned(), 4));
    server.stop(PATIENCE).unwrap();
}

#[test]
fn on_a_real_socket_a_reset_behind_our_end_is_a_failure() {
    let (server, client, id, reports) = start();
    server.handle().finish(id);
    assert_eq!((&client).read(&mut [0; 4]).unwrap(), 0);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(end_of(&reports).0.starts_with("Failed"));
    server.stop(PATIENCE).unwrap();
}
