//! Everything that a protocol may do, on networks where everything goes wrong that can: polite peers get all of their answers,
//! others a beginning of theirs, nobody is forgotten, and nothing is kept. A failure names its seed.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Answer, Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnLimits, ConnectOptions, FileRange, Flow, Input, Layered, Lost, Protocol,
};

use crate::chance::{Chance, seeds};
use crate::cipher::Cipher;
use crate::layers::FarEnd;

/// As long as the longest answer.
static LETTERS: LazyLock<Arc<File>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("core-letters-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&vec![b'f'; ANSWER_BYTES_MAX]).unwrap();
    // It lives on without a name.
    std::fs::remove_file(path).unwrap();
    Arc::new(file)
});

const ANSWER_BYTES_MAX: usize = 40_000;
/// Two bytes of a length stand behind the letter that says how to answer.
const ORDER_BYTES: usize = 3;
const WAYS: &[u8] = b"ansahfyptw";

fn answer_of(way: u8, bytes: usize) -> Vec<u8> {
    let mut answer = vec![way; bytes];
    answer.push(b'\n');
    answer
}

/// What is known of all connections.
#[derive(Default)]
struct Ledger {
    opened: usize,
    lost: Vec<String>,
}

/// Carries out orders, each in its way, and keeps account of its life.
struct Actor {
    ledger: Rc<RefCell<Ledger>>,
    is_open: bool,
    is_lost: bool,
    /// An answer that is owed when the deadline comes, or the wake.
    owed: Option<(u8, usize)>,
}

impl Actor {
    fn new(ledger: &Rc<RefCell<Ledger>>) -> Self {
        Self { ledger: Rc::clone(ledger), is_open: false, is_lost: false, owed: None }
    }

    fn check(&self) {
        assert!(self.is_open && !self.is_lost, "a callback outside of its life");
    }

    fn go_on(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.owed.take() {
            Some((way, bytes)) => conn.send(&answer_of(way, bytes)),
            None => return Flow::Continue,
        }
        Flow::Continue
    }

    /// Carries one order out.
    fn obey(&mut self, conn: &mut Conn<'_>, way: u8, bytes: usize) -> Option<Flow> {
        let answer = || answer_of(way, bytes);
        match way {
            b'n' => conn.send_now(&answer()),
            b's' => conn.send_shared(Bytes::from(answer())),
            b'a' => conn.append(bytes, |out| out.extend(answer())),
            b'h' => {
                let answer = answer();
                let (now, later) = answer.split_at(answer.len() / 2);
                conn.send_now(now);
                conn.send(later);
            }
            b'f' => {
                conn.send_file(FileRange::new(Arc::clone(&LETTERS), 0, bytes as u64));
                conn.send_static(b"\n");
            }
            b'y' => {
                conn.send(&answer());
                return Some(Flow::Yield);
            }
            b'p' => {
                self.owed = Some((way, bytes));
                conn.set_deadline(Duration::from_millis(1 + bytes as u64 % 20));
                return Some(Flow::Pause);
            }
            b'w' => {
                self.owed = Some((way, bytes));
                conn.waker().wake();
                return Some(Flow::Pause);
            }
            // Goes the long way, through the worker's commands, and still before what is answered later.
            b't' => {
                let id = conn.id();
                conn.commands().send(id, Bytes::from(answer()));
                return Some(Flow::Yield);
            }
            _ => unreachable!("{way}"),
        }
        None
    }
}

impl Protocol for Actor {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        assert!(!std::mem::replace(&mut self.is_open, true) && !self.is_lost, "opened once, first");
        self.ledger.borrow_mut().opened += 1;
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.check();
        assert!(self.owed.is_none(), "nothing is received in a pause");
        while let Some(&[way, high, low]) = input.bytes().first_chunk::<ORDER_BYTES>() {
            if conn.is_backed_up() {
                return Flow::Yield;
            }
            input.advance(ORDER_BYTES);
            if let Some(flow) = self.obey(conn, way, usize::from(u16::from_be_bytes([high, low]))) {
                return flow;
            }
        }
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.check();
        assert!(self.owed.is_none(), "the end is not read in a pause");
        Flow::Close
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.check();
        self.go_on(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.check();
        match self.owed {
            Some((b'w', _)) | None => self.go_on(conn),
            // A wake that was late; the deadline is to come.
            Some(_) => Flow::Pause,
        }
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.check();
        if self.owed.is_some() { Flow::Pause } else { Flow::Continue }
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.check();
        Flow::Pause
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        assert!(!std::mem::replace(&mut self.is_lost, true), "lost once");
        self.ledger.borrow_mut().lost.push(format!("{reason:?}"));
    }
}

/// One peer: what it says, and what it has to be answered.
struct Speaker {
    peer: PeerId,
    /// It speaks through the cipher.
    far: Option<FarEnd>,
    says: Vec<u8>,
    said: usize,
    expected: Vec<u8>,
    received: Vec<u8>,
}

impl Speaker {
    fn new(peer: PeerId, far: Option<FarEnd>, chance: &mut Chance) -> Self {
        let (mut says, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..1 + chance.below(15) {
            let way = WAYS[chance.below(WAYS.len())];
            let bytes = if chance.below(4) == 0 { chance.below(ANSWER_BYTES_MAX) } else { chance.below(100) };
            says.push(way);
            says.extend((bytes as u16).to_be_bytes());
            expected.extend(answer_of(way, bytes));
        }
        Self { peer, far, says, said: 0, expected, received: Vec::new() }
    }

    fn speak(&mut self, sim: &mut Sim, chance: &mut Chance) {
        let end = self.says.len().min(self.said + 1 + chance.below(9));
        let says = &self.says[self.said..end];
        match &mut self.far {
            Some(far) => sim.send(self.peer, &far.seal(says)),
            None => sim.send(self.peer, says),
        }
        self.said = end;
        if end == self.says.len() {
            if let Some(far) = &mut self.far {
                sim.send(self.peer, &far.bye());
            }
            sim.finish(self.peer);
        }
    }

    fn listen(&mut self, sim: &mut Sim) {
        match &mut self.far {
            Some(far) => self.received.extend(far.open(&sim.take_received(self.peer))),
            None => sim.drain_received(self.peer, &mut self.received),
        }
    }

    fn has_beginning(&self) -> bool {
        self.expected.starts_with(&self.received)
    }
}

struct Storm {
    sim: Sim,
    listener: ListenerId,
    ledger: Rc<RefCell<Ledger>>,
    chance: Chance,
    layered: bool,
}

/// Workers, windows, ways and budgets as the seed says.
fn storm(seed: u64, faults: Faults, layered: bool) -> Storm {
    let mut chance = Chance::new(seed);
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).faults(faults).workers(1 + chance.below(3));
    if chance.below(2) == 0 {
        options = options.latency(millis(chance.below(3))..=millis(3 + chance.below(20)));
    }
    if chance.below(2) == 0 {
        options = options.window(300 + chance.below(9000));
    }
    if chance.below(3) == 0 {
        options = options.budget(Budget::fixed(1 + chance.below(4)).read_bytes(1 + chance.below(50)));
    }
    options.limits = ConnLimits::default()
        .write_high_bytes(2000 + chance.below(20_000))
        .write_low_bytes(chance.below(2000));
    let (mut sim, ledger) = (Sim::new(options), Rc::new(RefCell::new(Ledger::default())));
    let make = {
        let ledger = Rc::clone(&ledger);
        move || Actor::new(&ledger)
    };
    let listener = match layered {
        true => sim.listen(move |_peer| Layered::new(Cipher::new(2), make())),
        false => sim.listen(move |_peer| make()),
    };
    Storm { sim, listener, ledger, chance, layered }
}

impl Storm {
    fn speaker(&mut self) -> Speaker {
        let peer = self.sim.connect(self.listener);
        let far = self.layered.then(|| {
            let mut far = FarEnd::new();
            self.sim.send(peer, &far.greeting());
            far
        });
        Speaker::new(peer, far, &mut self.chance)
    }

    /// Lets something happen.
    fn go_on(&mut self) {
        let some_millis = Duration::from_millis(self.chance.below(30) as u64);
        match self.chance.below(8) {
            0 => self.sim.run(),
            1 => self.sim.advance(some_millis),
            2 => self.sim.stand_still(some_millis),
            3 => self.sim.settle(),
            _ => _ = self.sim.turn(),
        }
    }

    fn end(&mut self, place: &str) {
        self.sim.advance(Duration::from_secs(60));
        let (ledger, stats) = (self.ledger.borrow(), self.sim.stats());
        let place = format!("{place}: {:?}, {stats:?}", ledger.lost);
        assert_eq!((self.sim.open(), self.sim.blocks_in_use(), stats.panics), (0, 0, 0), "{place}");
        assert_eq!(stats.accepted as usize, ledger.lost.len(), "every connection is lost once, {place}");
    }
}

#[test]
fn whatever_a_protocol_does_polite_peers_get_all_of_their_answers_and_others_a_beginning() {
    speak_and_leave(400, false);
}

#[test]
fn whatever_a_protocol_does_polite_peers_get_all_of_their_answers_and_others_a_beginning_through_a_layer() {
    speak_and_leave(400, true);
}

fn speak_and_leave(rounds: u64, layered: bool) {
    for seed in seeds(rounds) {
        let mut storm = storm(seed, Faults::stormy(), layered);
        let mut speakers: Vec<Speaker> = (0..8).map(|_| storm.speaker()).collect();
        let mut left: Vec<usize> = (0..8).collect();
        while !left.is_empty() {
            let place = storm.chance.below(left.len());
            let index = left[place];
            let speaker = &mut speakers[index];
            speaker.speak(&mut storm.sim, &mut storm.chance);
            let mut is_over = speaker.said == speaker.says.len();
            if index >= 3 && storm.chance.below(5) == 0 {
                let (sim, peer) = (&mut storm.sim, speaker.peer);
                is_over = true;
                match storm.chance.below(4) {
                    0 => sim.close(peer),
                    1 => sim.reset(peer),
                    2 => sim.finish(peer),
                    _ => {
                        sim.stop_reading(peer);
                        is_over = false;
                    }
                }
            }
            if is_over {
                left.swap_remove(place);
            }
            storm.go_on();
        }
        storm.sim.advance(Duration::from_secs(60));
        for (index, speaker) in speakers.iter_mut().enumerate() {
            speaker.listen(&mut storm.sim);
            let place = format!("seed {seed}, peer {index}");
            assert!(speaker.has_beginning(), "{place}");
            if index < 3 {
                let (got, of) = (speaker.received.len(), speaker.expected.len());
                assert_eq!(got, of, "{place}: {:?}", storm.ledger.borrow().lost);
                assert!(storm.sim.is_closed(speaker.peer) && !storm.sim.is_reset(speaker.peer), "{place}");
            }
        }
        storm.end(&format!("seed {seed}"));
    }
}

#[test]
fn what_cannot_be_registered_read_or_reached_costs_its_own_connection_only() {
    fail(200, false);
}

#[test]
fn what_cannot_be_registered_read_or_reached_costs_its_own_connection_only_through_a_layer() {
    fail(200, true);
}

fn fail(rounds: u64, layered: bool) {
    for seed in seeds(rounds) {
        let mut storm = storm(seed, Faults::stormy(), layered);
        let mut speakers: Vec<Speaker> = (0..6).map(|_| storm.speaker()).collect();
        for speaker in &speakers[3..] {
            let faults = Faults::stormy().failed_registrations(300).failed_files(500);
            storm.sim.set_faults(speaker.peer, faults);
        }
        let answers = [Answer::Refuse, Answer::Ignore, Answer::AcceptAfter(Duration::from_secs(9))];
        for answer in answers {
            storm.sim.answer_connections(answer);
            let to = "10.0.0.1:80";
            storm.sim.commands().connect(to, ConnectOptions::default(), Actor::new(&storm.ledger));
            storm.sim.turn();
        }
        while speakers.iter().any(|speaker| speaker.said < speaker.says.len()) {
            let index = storm.chance.below(6);
            let speaker = &mut speakers[index];
            if speaker.said < speaker.says.len() {
                speaker.speak(&mut storm.sim, &mut storm.chance);
                storm.go_on();
            }
        }
        storm.sim.advance(Duration::from_secs(60));
        for (index, speaker) in speakers.iter_mut().enumerate() {
            speaker.listen(&mut storm.sim);
            let whole = speaker.received.len() == speaker.expected.len();
            let place = format!("seed {seed}, peer {index}");
            assert!(speaker.has_beginning() && (whole || index >= 3), "{place}");
        }
        let stats = storm.sim.stats();
        assert_eq!((stats.connected, stats.connect_failures), (1, 2), "seed {seed}");
        for (peer, _) in storm.sim.take_dialed() {
            storm.sim.close(peer);
        }
        storm.sim.settle();
        assert_eq!((storm.sim.open(), storm.sim.blocks_in_use(), stats.panics), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn a_drain_at_any_moment_loses_no_order_that_had_arrived_and_ends_in_time() {
    drain(400, false);
}

#[test]
fn a_drain_at_any_moment_loses_no_order_that_had_arrived_and_ends_in_time_through_a_layer() {
    drain(400, true);
}

fn drain(rounds: u64, layered: bool) {
    for seed in seeds(rounds) {
        let mut storm = storm(seed, Faults::stormy(), layered);
        let mut speakers: Vec<Speaker> = (0..5).map(|_| storm.speaker()).collect();
        storm.go_on();
        for _ in 0..storm.chance.below(12) {
            let index = storm.chance.below(5);
            let speaker = &mut speakers[index];
            if speaker.said < speaker.says.len() {
                speaker.speak(&mut storm.sim, &mut storm.chance);
            }
            storm.go_on();
        }
        // All that was said is on its way or there.
        storm.sim.begin_drain(Duration::from_secs(30));
        storm.go_on();
        storm.sim.advance(Duration::from_secs(20));
        for (index, speaker) in speakers.iter_mut().enumerate() {
            speaker.listen(&mut storm.sim);
            let place = format!("seed {seed}, peer {index}: {:?}", storm.ledger.borrow().lost);
            let orders = speaker.said / ORDER_BYTES;
            let mut owed = Vec::new();
            for order in speaker.says.chunks(ORDER_BYTES).take(orders) {
                owed.extend(answer_of(order[0], usize::from(u16::from_be_bytes([order[1], order[2]]))));
            }
            assert!(speaker.has_beginning(), "{place}");
            assert_eq!(speaker.received.len(), owed.len(), "{place}");
            assert!(!storm.sim.is_reset(speaker.peer), "{place}");
        }
        assert!(storm.sim.is_finished(), "seed {seed}: {:?}", storm.ledger.borrow().lost);
        storm.end(&format!("seed {seed}"));
    }
}
