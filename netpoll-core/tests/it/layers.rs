//! A protocol behind a layer: it is served as without, and nothing of it is on the wire as it is.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, ConnectOptions, FileRange, Flow, Input, Layer, Layered, Lost,
    Message, Protocol, Runtime, Upper, Workers,
};

use crate::chance::{Chance, seeds};
use crate::cipher::{Cipher, Codec, Record};
use crate::support::{Echo, Log, Recorder};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(2);

/// The other end of a cipher, in a test.
pub struct FarEnd {
    codec: Codec,
    wire: Vec<u8>,
    /// All that came, as it was on the wire.
    pub seen: Vec<u8>,
}

impl FarEnd {
    pub fn new() -> Self {
        Self { codec: Codec::new(1), wire: Vec::new(), seen: Vec::new() }
    }

    pub fn greeting(&mut self) -> Vec<u8> {
        self.made(Codec::greet)
    }

    pub fn bye(&mut self) -> Vec<u8> {
        self.made(Codec::bye)
    }

    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.made(|codec, wire| plain.chunks(16_384).for_each(|piece| codec.data(piece, wire)))
    }

    fn made(&mut self, make: impl FnOnce(&mut Codec, &mut Vec<u8>)) -> Vec<u8> {
        let mut wire = Vec::new();
        make(&mut self.codec, &mut wire);
        wire
    }

    /// What these bytes of the wire say, with what came before.
    pub fn open(&mut self, wire: &[u8]) -> Vec<u8> {
        self.seen.extend_from_slice(wire);
        self.wire.extend_from_slice(wire);
        let (mut plain, mut at) = (Vec::new(), 0);
        while let Some((record, bytes)) = self.codec.open(&mut self.wire[at..]).expect("a good record") {
            if let Record::Data(length) = record {
                plain.extend_from_slice(&self.wire[at + 3..][..length]);
            }
            at += bytes;
        }
        self.wire.drain(..at);
        plain
    }

    pub fn is_over(&self) -> bool {
        self.codec.is_over
    }
}

/// A peer that speaks the cipher, in a simulated world.
struct Peer {
    peer: PeerId,
    far: FarEnd,
}

impl Peer {
    fn greet(sim: &mut Sim, peer: PeerId) -> Self {
        let mut far = FarEnd::new();
        sim.send(peer, &far.greeting());
        sim.run();
        Self { peer, far }
    }

    fn say(&mut self, sim: &mut Sim, plain: &[u8]) {
        sim.send(self.peer, &self.far.seal(plain));
        sim.settle();
    }

    fn finish(&mut self, sim: &mut Sim) {
        sim.send(self.peer, &self.far.bye());
        sim.finish(self.peer);
        sim.settle();
    }

    fn heard(&mut self, sim: &mut Sim) -> Vec<u8> {
        let wire = sim.take_received(self.peer);
        self.far.open(&wire)
    }
}

fn world<P: Protocol>(options: Options, mut make: impl FnMut() -> P + 'static) -> (Sim, Peer) {
    let mut sim = Sim::new(options);
    let listener = sim.listen(move |_peer| Layered::new(Cipher::new(2), make()));
    let peer = sim.connect(listener);
    let peer = Peer::greet(&mut sim, peer);
    (sim, peer)
}

fn recorded(options: Options) -> (Sim, Peer, Log) {
    let log = Log::default();
    let (sim, peer) = world(options, {
        let log = Rc::clone(&log);
        move || Recorder::new(&log)
    });
    (sim, peer, log)
}

fn log_of(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.borrow_mut())
}

/// A file of so many letters, without a name.
fn letters(name: &str, bytes: usize) -> Arc<File> {
    let name = format!("core-layers-{name}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&vec![b'f'; bytes]).unwrap();
    std::fs::remove_file(path).unwrap();
    Arc::new(file)
}

static WORDS: [u8; 9000] = [b's'; 9000];

/// Answers a byte in every way that there is.
struct AllWays {
    file: Arc<File>,
    id: Rc<Cell<Option<ConnId>>>,
}

impl Protocol for AllWays {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.id.set(Some(conn.id()));
        conn.send(b"<hello there>");
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send_now(input.bytes());
        input.advance_all();
        conn.send_now(b"sent at once");
        conn.send(b"sent when it may");
        conn.send_static(&WORDS);
        conn.send_shared(Bytes::from(vec![b'b'; 9000]));
        conn.send_file(FileRange::new(Arc::clone(&self.file), 0, 9000));
        conn.append(20, |out| out.extend(b"appended"));
        let id = conn.id();
        conn.commands().send(id, Bytes::from_static(b"by a command"));
        conn.waker().wake();
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send_now(b"when it was woken");
        conn.set_deadline(SECOND);
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send_now(b"when it was late");
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        conn.send_now(message.downcast::<&str>().expect("a text").as_bytes());
        conn.unchanged_flow()
    }
}

fn all_ways() -> (Vec<u8>, Vec<u8>) {
    let now = [
        b"the question itselfsent at oncesent when it may".to_vec(),
        vec![b's'; 9000],
        vec![b'b'; 9000],
        vec![b'f'; 9000],
        b"appendedby a commandwhen it was woken".to_vec(),
    ];
    (now.concat(), b"by a handlewhen it was late".to_vec())
}

#[test]
fn nothing_that_is_sent_by_whomever_in_whatever_way_is_on_the_wire_as_it_is() {
    for seed in seeds(40) {
        let faults = if seed == 1 { Faults::default() } else { Faults::stormy() };
        let id = Rc::<Cell<Option<ConnId>>>::default();
        let (mut sim, mut peer) = world(Options::default().seed(seed).faults(faults), {
            let (id, file) = (Rc::clone(&id), letters("ways", 9000));
            move || AllWays { file: Arc::clone(&file), id: Rc::clone(&id) }
        });
        sim.settle();
        assert_eq!(peer.heard(&mut sim), b"<hello there>");
        peer.say(&mut sim, b"the question itself");
        let (now, later) = all_ways();
        assert!(peer.heard(&mut sim) == now, "seed {seed}");
        sim.handle().send(id.get().expect("it is open"), Bytes::from_static(b"by a handle"));
        sim.advance(2 * SECOND);
        assert!(peer.heard(&mut sim) == later, "seed {seed}");

        let seen = &peer.far.seen;
        for plain in
            ["hello", "question", "at once", "may", "ssss", "bbbb", "ffff", "appe", "by a", "when", "late"]
        {
            assert!(!seen.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain} is seen");
        }
        peer.finish(&mut sim);
        assert!(sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
        peer.heard(&mut sim);
        assert!(peer.far.is_over(), "it has said its last word");
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0));
    }
}

/// Says who it is before the peer has greeted.
struct Telling(Cipher, Rc<Cell<Option<ConnId>>>);
impl Layer for Telling {
    fn opened(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        self.1.set(Some(conn.id()));
        self.0.opened(conn, upper)
    }
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        self.0.received(conn, input, upper)
    }
    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        self.0.send(conn, plain)
    }
}

#[test]
fn what_is_sent_before_the_layer_is_ready_goes_out_behind_the_first_callback() {
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let (id, file) = (Rc::clone(&id), letters("early", 1));
        move |_peer| {
            let protocol = AllWays { file: Arc::clone(&file), id: Rc::default() };
            Layered::new(Telling(Cipher::new(2), Rc::clone(&id)), protocol)
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    let greeting_bytes = sim.take_received(peer);
    let name = id.get().expect("it is open");
    sim.handle().send(name, Bytes::from_static(b"early"));
    sim.handle().tell(name, "and told");
    sim.run();
    assert_eq!(sim.take_received(peer), b"", "it waits");
    let mut peer = Peer::greet(&mut sim, peer);
    peer.far.open(&greeting_bytes);
    assert_eq!(peer.heard(&mut sim), b"<hello there>earlyand told");
    sim.handle().tell(name, "and told later");
    sim.run();
    assert_eq!(peer.heard(&mut sim), b"and told later");
}

#[test]
fn a_peer_that_does_not_greet_is_closed_by_the_layers_deadline_and_the_protocol_only_hears_of_the_end() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Cipher::new(2), Recorder::new(&log))
    });
    let peer = sim.connect(listener);
    sim.advance(10 * SECOND - TICK);
    assert!(!sim.is_closed(peer));
    sim.advance(2 * TICK);
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    assert_eq!(log_of(&log), ["lost Closed"]);
}

#[test]
fn a_record_that_was_changed_or_a_cut_resets_the_connection() {
    let (mut sim, peer, log) = recorded(Options::default());
    sim.send(peer.peer, b"D\0\x05hello?");
    sim.settle();
    assert!(sim.is_reset(peer.peer));
    assert_eq!(log_of(&log), ["opened", "lost Reset"]);

    let (mut sim, mut peer, log) = recorded(Options::default());
    peer.say(&mut sim, b"a\n");
    sim.finish(peer.peer);
    sim.settle();
    assert!(sim.is_reset(peer.peer), "a FIN that the peer has not announced may be anybody's");
    assert_eq!(log_of(&log), ["opened", "a", "lost Reset"]);
}

#[test]
fn the_protocol_above_is_called_as_without_a_layer() {
    let (mut sim, mut peer, log) = recorded(Options::default());
    peer.say(&mut sim, b"a\nb\nc\nhal");
    assert_eq!(log_of(&log), ["opened", "a", "b", "c", "partial 3"]);
    peer.say(&mut sim, b"f\nsoon\nrest");
    assert_eq!(log_of(&log), ["half", "soon", "partial 4"]);
    sim.advance(Duration::from_millis(60));
    assert_eq!(log_of(&log), ["deadline"]);
    peer.finish(&mut sim);
    assert_eq!(log_of(&log), ["eof 4", "lost Closed"]);
    assert_eq!(peer.heard(&mut sim), b"<a><b><c><half><soon>latebye");
    assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn each_way_to_end_is_the_protocols_behind_the_layers_last_word() {
    for (line, lost, says_bye) in [
        ("close", "lost Closed", true),
        ("linger", "lost Closed", true),
        ("reset", "lost Reset", false),
        ("panic", "lost Panicked", false),
    ] {
        let (mut sim, mut peer, log) = recorded(Options::default());
        peer.say(&mut sim, format!("{line}\nmore\n").as_bytes());
        if says_bye {
            assert_eq!(peer.heard(&mut sim), format!("<{line}>").as_bytes(), "what it said has left");
            assert!(peer.far.is_over());
        }
        sim.advance(5 * SECOND);
        assert_eq!(log_of(&log), ["opened", line, lost]);
        assert_eq!(sim.is_reset(peer.peer), !says_bye);
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "{line}");
    }
}

/// Pauses at each line until it is woken.
struct Stopping(Log, Rc<RefCell<Option<std::task::Waker>>>);
impl Protocol for Stopping {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes().iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if bytes == 0 {
            return Flow::Continue;
        }
        self.0.borrow_mut().push(String::from_utf8_lossy(&input.bytes()[..bytes - 1]).into_owned());
        input.advance(bytes);
        *self.1.borrow_mut() = Some(conn.waker());
        Flow::Pause
    }
    fn eof(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push(format!("eof {}", input.len()));
        Flow::Close
    }
    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("peer ended".to_owned());
        Flow::Pause
    }
    fn woken(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }
}

#[test]
fn a_pause_above_holds_the_wire_and_what_had_arrived_is_offered_behind_it() {
    for seed in 0..20 {
        let (log, waker) = (Log::default(), Rc::<RefCell<Option<std::task::Waker>>>::default());
        let faults = if seed == 0 { Faults::default() } else { Faults::stormy() };
        let (mut sim, mut peer) = world(Options::default().seed(seed).faults(faults), {
            let (log, waker) = (Rc::clone(&log), Rc::clone(&waker));
            move || Stopping(Rc::clone(&log), Rc::clone(&waker))
        });
        peer.say(&mut sim, b"1\n2\n");
        peer.say(&mut sim, &[&b"3\n"[..], &[b'x'; 300_000]].concat());
        peer.finish(&mut sim);
        let first = log_of(&log);
        assert!(first[0] == "1" && first[1..].iter().all(|line| line == "peer ended"), "{first:?}");
        assert!(sim.blocks_in_use() <= 4, "the rest is the peer's to keep: {}", sim.blocks_in_use());
        for line in ["2", "3"] {
            waker.borrow().as_ref().expect("it has paused").wake_by_ref();
            sim.settle();
            assert_eq!(log_of(&log).first().map(String::as_str), Some(line), "seed {seed}");
        }
        waker.borrow().as_ref().expect("it has paused").wake_by_ref();
        sim.settle();
        let last = log_of(&log);
        assert_eq!(last.last().map(String::as_str), Some("eof 300000"), "seed {seed}: {last:?}");
        assert!(sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn who_closes_behind_output_that_had_to_wait_lingers_as_without_a_layer() {
    /// Has a long last word.
    struct Eloquent;
    impl Protocol for Eloquent {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&vec![b'x'; 1 << 20]);
            Flow::Close
        }
    }
    for layered in [false, true] {
        let mut sim = Sim::new(Options::default());
        let listener = match layered {
            false => sim.listen(|_peer| Eloquent),
            true => sim.listen(|_peer| Layered::new(Marked, Eloquent)),
        };
        let peer = sim.connect(listener);
        sim.stop_reading(peer);
        sim.send(peer, b"speak");
        sim.run();
        sim.start_reading(peer);
        sim.settle();
        assert_eq!(sim.take_received(peer).len(), 1 << 20);
        sim.send(peer, b"what comes now must not destroy it");
        sim.settle();
        assert!(sim.is_closed(peer) && !sim.is_reset(peer), "layered: {layered}");
        sim.finish(peer);
        sim.settle();
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

/// Plain, but for a mark that says that no more comes.
struct Marked;

impl Layer for Marked {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        let bytes = input.bytes_mut();
        let (plain, has_mark) = match bytes.iter().position(|byte| *byte == b'$') {
            Some(end) => (&mut bytes[..end], true),
            None => (bytes, false),
        };
        upper.received(conn, plain);
        if has_mark {
            upper.eof(conn);
        }
        input.advance_all();
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

#[test]
fn an_end_that_a_layer_finds_is_told_behind_what_was_left_before_it() {
    let (log, waker) = (Log::default(), Rc::<RefCell<Option<std::task::Waker>>>::default());
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let (log, waker) = (Rc::clone(&log), Rc::clone(&waker));
        move |_peer| Layered::new(Marked, Stopping(Rc::clone(&log), Rc::clone(&waker)))
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"1\n2\n345$");
    sim.settle();
    assert_eq!(log_of(&log), ["1"]);
    for line in ["2", "eof 3"] {
        waker.borrow().as_ref().expect("it has paused").wake_by_ref();
        sim.settle();
        assert_eq!(log_of(&log), [line]);
    }
    assert!(sim.is_closed(peer));
}

/// Sends much more than there is room for.
struct Generous {
    file: Arc<File>,
    log: Log,
}

impl Protocol for Generous {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.log.borrow_mut().push(String::from_utf8_lossy(input.bytes()).into_owned());
        if input.bytes() == b"more" {
            conn.send_file(FileRange::new(Arc::clone(&self.file), 0, 10 << 20));
            conn.send(b"behind it");
            assert!(conn.is_backed_up() && conn.queued_bytes() > 10 << 20);
        }
        input.advance_all();
        Flow::Continue
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        assert!(conn.queued_bytes() <= conn.limits().write_low_bytes);
        self.log.borrow_mut().push("drained".to_owned());
        Flow::Continue
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        assert_eq!(conn.queued_bytes(), 0);
        self.log.borrow_mut().push("flushed".to_owned());
    }
}

#[test]
fn a_large_file_is_read_piece_by_piece_as_the_peer_takes_it() {
    let log = Log::default();
    let (mut sim, mut peer) = world(Options::default(), {
        let (file, log) = (letters("large", 10 << 20), Rc::clone(&log));
        move || Generous { file: Arc::clone(&file), log: Rc::clone(&log) }
    });
    sim.stop_reading(peer.peer);
    peer.say(&mut sim, b"more");
    peer.say(&mut sim, b"less");
    // High water in blocks of 64 KiB at most, and those that begin small.
    assert!(sim.blocks_in_use() <= 24, "{} blocks", sim.blocks_in_use());
    assert_eq!(log_of(&log), ["more"], "held back until there is room");
    sim.start_reading(peer.peer);
    sim.settle();
    let heard = peer.heard(&mut sim);
    assert_eq!(heard.len(), (10 << 20) + 9);
    assert!(heard.ends_with(b"fbehind it"));
    // Whether it has arrived is looked at now and then.
    sim.advance(15 * SECOND);
    assert_eq!(log_of(&log), ["drained", "less", "flushed"], "told once each");
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn a_file_that_is_shorter_than_promised_resets_the_connection_and_says_why() {
    /// Promises too much.
    struct Liar(Arc<File>, Log);
    impl Protocol for Liar {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send_file(FileRange::new(Arc::clone(&self.0), 0, 100));
            Flow::Close
        }
        fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
            self.1.borrow_mut().push(format!("{reason:?}"));
        }
    }
    let log = Log::default();
    let (mut sim, mut peer) = world(Options::default(), {
        let (file, log) = (letters("short", 99), Rc::clone(&log));
        move || Liar(Arc::clone(&file), Rc::clone(&log))
    });
    peer.say(&mut sim, b"x");
    assert!(sim.is_reset(peer.peer));
    assert!(log_of(&log)[0].starts_with("FileFailed("));
    assert_eq!((sim.stats().failed, sim.blocks_in_use()), (1, 0));
}

#[test]
fn limits_hold_above_a_layer_and_the_reasons_are_the_same() {
    fn limited(change: impl FnOnce(&mut ConnLimits)) -> (Sim, Peer, Log) {
        let mut options = Options::default();
        change(&mut options.limits);
        recorded(options)
    }
    let (mut sim, mut peer, log) = limited(|limits| limits.input_bytes_max = 1000);
    peer.say(&mut sim, &[b'x'; 999]);
    assert!(!sim.is_closed(peer.peer));
    peer.say(&mut sim, b"xx");
    assert!(sim.is_reset(peer.peer));
    assert_eq!(log_of(&log).last().map(String::as_str), Some("lost InputOverflow"));
    assert_eq!((sim.stats().input_overflows, sim.blocks_in_use()), (1, 0));

    let (mut sim, mut peer, log) = limited(|limits| limits.memory_bytes_max = Some(20_000));
    for _ in 0..30 {
        peer.say(&mut sim, &[b'x'; 1000]);
    }
    assert!(sim.is_reset(peer.peer));
    assert_eq!(log_of(&log).last().map(String::as_str), Some("lost MemoryOverflow"));
    assert_eq!((sim.stats().memory_overflows, sim.blocks_in_use()), (1, 0));
}

#[test]
fn who_is_sent_more_than_it_takes_is_reset_wherever_it_waits() {
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let mut options = Options::default().window(1000);
    options.limits.output_bytes_max = 2 << 20;
    let (mut sim, peer) = world(options, {
        let (id, file) = (Rc::clone(&id), letters("flooded", 1));
        move || AllWays { file: Arc::clone(&file), id: Rc::clone(&id) }
    });
    sim.stop_reading(peer.peer);
    let id = id.get().expect("it is open");
    for _ in 0..20 {
        sim.handle().send(id, Bytes::from(vec![b'x'; 100_000]));
        sim.settle();
    }
    assert!(!sim.is_closed(peer.peer), "high water was passed long ago");
    sim.handle().send(id, Bytes::from(vec![b'x'; 100_000]));
    sim.settle();
    assert!(sim.is_reset(peer.peer));
    assert_eq!((sim.stats().output_overflows, sim.open(), sim.blocks_in_use()), (1, 0, 0));
}

#[test]
fn who_is_closed_by_others_or_by_a_drain_says_its_last_word() {
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let make = {
        let (id, file) = (Rc::clone(&id), letters("closed", 1));
        move || AllWays { file: Arc::clone(&file), id: Rc::clone(&id) }
    };
    let (mut sim, mut peer) = world(Options::default(), make.clone());
    sim.handle().close(id.get().expect("it is open"));
    sim.settle();
    peer.heard(&mut sim);
    assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));

    // `Protocol::stopping` is as it is: the grace, and then the end.
    for within in [SECOND / 2, 10 * SECOND] {
        let (mut sim, mut peer) = world(Options::default(), make.clone());
        sim.begin_drain(within);
        sim.advance((within / 2).min(SECOND) - TICK);
        assert!(!sim.is_closed(peer.peer));
        sim.advance(2 * TICK);
        peer.heard(&mut sim);
        assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer), "{within:?}");
        sim.advance(5 * SECOND);
        assert!(sim.is_finished());
        assert_eq!(sim.blocks_in_use(), 0);
    }
}

/// Knows when a drain may end it.
struct Busy(Log);

impl Protocol for Busy {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("opened".to_owned());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Close
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("stopping".to_owned());
        Flow::Continue
    }

    fn closing(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("closing".to_owned());
        Flow::Linger
    }
}

#[test]
fn a_drain_that_begins_before_the_layer_is_ready_is_told_when_it_is_and_the_protocol_says_what_becomes_of_it()
{
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Cipher::new(2), Busy(Rc::clone(&log)))
    });
    let (peer, silent) = (sim.connect(listener), sim.connect(listener));
    sim.run();
    sim.begin_drain(20 * SECOND);
    sim.advance(SECOND / 2);
    let mut peer = Peer::greet(&mut sim, peer);
    assert_eq!(log_of(&log), ["opened", "stopping"]);
    sim.advance(5 * SECOND);
    assert!(sim.is_closed(silent) && !sim.is_reset(silent), "nobody waits for who does not greet");
    assert!(!sim.is_closed(peer.peer), "but for who is being served");
    peer.say(&mut sim, b"done");
    assert_eq!(peer.heard(&mut sim), b"done");
    assert!(sim.is_closed(peer.peer) && log_of(&log).is_empty());
}

#[test]
fn who_opens_in_a_drain_is_told_of_it_once() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Marked, Busy(Rc::clone(&log)))
    });
    // It stands in line when the drain begins.
    sim.connect(listener);
    sim.begin_drain(20 * SECOND);
    sim.settle();
    assert_eq!(log_of(&log), ["opened", "stopping"]);
}

#[test]
fn a_protocol_can_say_something_before_it_is_closed_by_others() {
    struct Polite(Rc<Cell<Option<ConnId>>>);
    impl Protocol for Polite {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.0.set(Some(conn.id()));
            Flow::Continue
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Continue
        }
        fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
            conn.send(b"sorry");
            Flow::Linger
        }
    }
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let id = Rc::clone(&id);
        move |_peer| Polite(Rc::clone(&id))
    });
    let closed = sim.connect(listener);
    sim.run();
    sim.handle().close(id.get().expect("it is open"));
    sim.run();
    assert_eq!(sim.take_received(closed), b"sorry");
    let retired = sim.connect(listener);
    sim.run();
    sim.begin_drain(10 * SECOND);
    sim.advance(SECOND + TICK);
    assert_eq!(sim.take_received(retired), b"sorry");
    assert!(sim.is_closed(retired) && !sim.is_reset(retired));
}

#[test]
fn what_others_send_goes_through_the_protocol_and_a_panic_there_costs_its_own_connection() {
    /// Frames what others send, and holds its own input.
    struct Framing(Rc<RefCell<Vec<ConnId>>>);
    impl Protocol for Framing {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.0.borrow_mut().push(conn.id());
            Flow::Pause
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            unreachable!("it pauses")
        }
        fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
            assert!(bytes != "panic", "asked to");
            conn.append(bytes.len() + 2, |out| {
                out.push(b'[');
                out.extend_from_slice(&bytes);
                out.push(b']');
            });
            conn.unchanged_flow()
        }
    }
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Framing(Rc::clone(&ids))
    });
    let peers = [sim.connect(listener), sim.connect(listener)];
    sim.run();
    let ids = ids.borrow().clone();
    sim.send(peers[0], b"not read");
    sim.handle().send(ids[0], Bytes::from_static(b"one"));
    sim.run();
    sim.commands().send(ids[0], Bytes::from_static(b"two"));
    sim.handle().send(ids[1], Bytes::from_static(b"panic"));
    sim.run();
    assert_eq!(sim.take_received(peers[0]), b"[one][two]");
    assert!(!sim.is_closed(peers[0]) && sim.is_reset(peers[1]));
    assert_eq!(sim.stats().panics, 1);
}

#[test]
fn a_layer_may_lie_on_a_layer() {
    for seed in seeds(30) {
        let faults = if seed == 1 { Faults::default() } else { Faults::stormy() };
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        let log = Log::default();
        let listener = sim.listen({
            let log = Rc::clone(&log);
            move |_peer| Layered::new(Cipher::new(2), Layered::new(Cipher::new(4), Recorder::new(&log)))
        });
        let peer = sim.connect(listener);
        let mut outer = Peer::greet(&mut sim, peer);
        let mut inner = FarEnd::new();
        let say = |sim: &mut Sim, outer: &mut Peer, wire: &[u8]| {
            wire.chunks(7).for_each(|piece| outer.say(sim, piece))
        };
        say(&mut sim, &mut outer, &inner.greeting());
        say(&mut sim, &mut outer, &inner.seal(b"a\nb\nlarge\nsoon\nc"));
        let mut heard = inner.open(&outer.heard(&mut sim));
        sim.advance(SECOND);
        // In one go: behind the inner end nobody reads.
        sim.send(peer, &outer.far.seal(&inner.bye()));
        outer.finish(&mut sim);
        heard.extend(inner.open(&outer.heard(&mut sim)));
        let expected = [&b"<a><b><large>"[..], &vec![b'x'; 1 << 20], b"<soon>latebye"].concat();
        assert!(heard == expected, "seed {seed}: {} bytes", heard.len());
        assert!(inner.is_over() && outer.far.is_over(), "seed {seed}");
        assert!(sim.is_closed(peer), "seed {seed}");
        let log = log_of(&log);
        assert!(log.contains(&"drained".to_owned()), "seed {seed}: {log:?}");
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "seed {seed}");
    }
}

/// Makes next to nothing of whatever it is given.
struct Shrinking;

impl Layer for Shrinking {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        let mut plain = input.bytes().to_vec();
        input.advance_all();
        upper.received(conn, &mut plain);
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(&plain[..1]);
        Flow::Continue
    }
}

#[test]
fn who_was_backed_up_hears_of_room_even_if_next_to_nothing_is_left_on_the_wire() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Shrinking, Recorder::new(&log))
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"large\na\n");
    sim.settle();
    assert_eq!(log_of(&log), ["opened", "large", "drained", "a"]);
    assert_eq!(sim.take_received(peer).len(), (1 << 20) / 16_384 + 2);
}

#[test]
fn a_layer_that_panics_costs_its_own_connection_and_leaves_nothing_behind() {
    /// Panics in one of its callbacks.
    struct Broken(u8);
    impl Layer for Broken {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
            let bytes = input.bytes_mut();
            let length = bytes.len();
            upper.received(conn, bytes);
            input.advance(length);
            assert!(self.0 != b'r', "asked to");
            Flow::Continue
        }
        fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
            conn.send(&plain[..plain.len() / 2]);
            assert!(self.0 != b's', "asked to");
            conn.send(&plain[plain.len() / 2..]);
            Flow::Continue
        }
        fn finish(&mut self, _conn: &mut Conn<'_>) {
            assert!(self.0 != b'f', "asked to");
        }
    }
    for (place, line) in [(b'r', "half"), (b's', "large\n"), (b'f', "close\n"), (b'-', "panic\n")] {
        let (mut sim, log) = (Sim::new(Options::default()), Log::default());
        let listener = sim.listen({
            let log = Rc::clone(&log);
            move |_peer| Layered::new(Broken(place), Recorder::new(&log))
        });
        let peer = sim.connect(listener);
        sim.send(peer, line.as_bytes());
        sim.settle();
        assert!(sim.is_reset(peer), "{line}");
        assert_eq!(log_of(&log).last().map(String::as_str), Some("lost Panicked"), "{line}");
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 1), "{line}");
    }
}

#[test]
fn small_records_do_not_stretch_a_turn() {
    /// Answers each byte, as many as it should in a turn.
    struct Fair(Rc<Cell<usize>>);
    impl Protocol for Fair {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            for _ in 0..conn.turn_budget() {
                if input.is_empty() {
                    return Flow::Continue;
                }
                input.advance(1);
                conn.send(b"y");
                conn.count_requests(1);
                self.0.set(self.0.get() + 1);
            }
            if input.is_empty() { Flow::Continue } else { Flow::Yield }
        }
    }
    let answered = Rc::<Cell<usize>>::default();
    let (mut sim, mut peer) = world(Options::default(), {
        let answered = Rc::clone(&answered);
        move || Fair(Rc::clone(&answered))
    });
    let wire: Vec<u8> = (0..100).flat_map(|_| peer.far.seal(&[b'x'; 50])).collect();
    sim.send(peer.peer, &wire);
    let mut most = 0;
    for _ in 0..200 {
        let before = answered.get();
        sim.turn();
        most = most.max(answered.get() - before);
    }
    assert_eq!((answered.get(), most), (5000, 64));
    assert_eq!(peer.heard(&mut sim), [b'y'; 5000]);
}

/// Says so much to an echo, a piece for each that has come back: who said all at once, and reads when there is room
/// again, would wait for an echo that waits for it.
struct Caller {
    says: usize,
    said: usize,
    heard: usize,
    done: std::sync::mpsc::Sender<usize>,
}

impl Caller {
    fn go_on(&mut self, conn: &mut Conn<'_>) {
        let piece = (self.says - self.said).min(self.heard + (64 << 10) - self.said);
        conn.send(&vec![b'c'; piece]);
        self.said += piece;
    }
}

impl Protocol for Caller {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.go_on(conn);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        assert!(input.bytes().iter().all(|byte| *byte == b'c'));
        self.heard += input.len();
        input.advance_all();
        if self.heard == self.says {
            return Flow::Close;
        }
        self.go_on(conn);
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        assert!(matches!(reason, Lost::Closed), "{reason:?}");
        self.done.send(self.heard).expect("the test waits");
    }
}

#[test]
fn on_sockets_both_ends_may_be_layered() {
    let server = Runtime::builder()
        .workers(Workers::Count(2))
        .listen("127.0.0.1:0", |_worker| |_peer| Layered::new(Cipher::new(2), Echo))
        .expect("an address")
        .start()
        .expect("a free port");
    let (done, ends) = std::sync::mpsc::channel();
    for says in [1, 1000, 100_000, 3 << 20] {
        let caller = Caller { says, said: 0, heard: 0, done: done.clone() };
        let protocol = Layered::new(Cipher::new(1), caller);
        server.handle().connect(0, &server.local_addrs()[0], ConnectOptions::default(), protocol);
    }
    let mut heard: Vec<usize> = (0..4).map(|_| ends.recv_timeout(60 * SECOND).expect("an end")).collect();
    heard.sort_unstable();
    assert_eq!(heard, [1, 1000, 100_000, 3 << 20]);
    let report = server.stop(10 * SECOND).expect("the workers live");
    assert_eq!((report.stats.panics, report.stats.failed), (0, 0));
}

#[test]
fn on_sockets_records_may_be_cut_anywhere_and_peers_may_be_slow_or_leave() {
    let server = Runtime::builder()
        .workers(Workers::Count(2))
        .listen("127.0.0.1:0", |_worker| |_peer| Layered::new(Cipher::new(2), Echo))
        .expect("an address")
        .start()
        .expect("a free port");
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let talk = |seed: u64| {
        let mut chance = Chance::new(seed);
        let (mut far, mut socket) = (FarEnd::new(), TcpStream::connect(addr).expect("it listens"));
        socket.set_nodelay(true).expect("an open socket");
        let says: Vec<u8> = (0..1 + chance.below(600_000)).map(|index| (index / 7) as u8).collect();
        let mut wire = far.greeting();
        let mut rest = &says[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + chance.below(16_384)));
            wire.extend(far.seal(now));
            rest = later;
        }
        let leaves = chance.below(3) == 0;
        let mut writer = socket.try_clone().expect("a descriptor");
        let bye = far.bye();
        let mut cuts = chance.fork();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut rest = &wire[..];
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(1 + cuts.below(9000)));
                    if writer.write_all(now).is_err() {
                        return;
                    }
                    rest = later;
                }
                if !leaves {
                    writer.write_all(&bye).expect("an open socket");
                    writer.shutdown(Shutdown::Write).expect("an open socket");
                }
            });
            let (mut heard, mut block) = (Vec::new(), vec![0; 10_000]);
            loop {
                let room = 1 + chance.below(block.len());
                let count = socket.read(&mut block[..room]).expect("no reset");
                heard.extend(far.open(&block[..count]));
                assert!(says.starts_with(&heard), "seed {seed}");
                if leaves && heard.len() > says.len() / 2 {
                    let _ = socket.shutdown(Shutdown::Both);
                    return;
                }
                if count == 0 {
                    break;
                }
            }
            assert!(heard == says && far.is_over(), "seed {seed}: {} of {}", heard.len(), says.len());
        });
    };
    for together in seeds(12).collect::<Vec<_>>().chunks(12) {
        std::thread::scope(|scope| {
            for seed in together {
                scope.spawn(|| talk(*seed));
            }
        });
    }
    let report = server.stop(10 * SECOND).expect("the workers live");
    assert_eq!(report.stats.panics, 0);
}

/// Ends its direction at the first word, which it answers, and listens on.
struct Finishing {
    log: Log,
    by_name: bool,
    answer_bytes: usize,
}

impl Protocol for Finishing {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.log.borrow_mut().push(String::from_utf8_lossy(input.bytes()).into_owned());
        input.advance_all();
        conn.send_shared(Bytes::from(vec![b'a'; self.answer_bytes]));
        if self.by_name {
            let id = conn.id();
            conn.commands().finish(id);
            return Flow::Continue;
        }
        conn.finish();
        conn.send(b"dropped");
        assert!(conn.is_finished());
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.log.borrow_mut().push("eof".into());
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.log.borrow_mut().push(format!("{reason:?}"));
    }
}

#[test]
fn our_direction_ends_behind_what_waits_above_and_the_layers_last_word_and_input_goes_on() {
    for by_name in [false, true] {
        let log = Log::default();
        let (mut sim, mut peer) = world(Options::default().window(1000), {
            let log = Rc::clone(&log);
            move || Finishing { log: Rc::clone(&log), by_name, answer_bytes: 300_000 }
        });
        sim.stop_reading(peer.peer);
        peer.say(&mut sim, b"question");
        assert!(!sim.is_closed(peer.peer));
        sim.start_reading(peer.peer);
        sim.settle();
        assert_eq!(peer.heard(&mut sim), [b'a'; 300_000]);
        assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
        peer.say(&mut sim, b"more");
        assert_eq!(peer.heard(&mut sim), b"");
        peer.finish(&mut sim);
        assert_eq!(log_of(&log), ["question", "more", "eof", "Closed"]);
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn our_direction_ends_behind_two_layers_as_behind_one() {
    for (by_name, answer_bytes) in [(false, 10), (true, 10), (false, 300_000), (true, 300_000)] {
        let (mut sim, log) = (Sim::new(Options::default().window(1000)), Log::default());
        let listener = sim.listen({
            let log = Rc::clone(&log);
            move |_peer| {
                let protocol = Finishing { log: Rc::clone(&log), by_name, answer_bytes };
                Layered::new(Cipher::new(2), Layered::new(Cipher::new(4), protocol))
            }
        });
        let peer = sim.connect(listener);
        let (mut outer, mut inner) = (Peer::greet(&mut sim, peer), FarEnd::new());
        outer.say(&mut sim, &inner.greeting());
        outer.say(&mut sim, &inner.seal(b"question"));
        let heard = inner.open(&outer.heard(&mut sim));
        assert!(heard == vec![b'a'; answer_bytes], "{} of {answer_bytes}", heard.len());
        assert!(inner.is_over() && outer.far.is_over(), "both have said their last word");
        assert!(sim.is_closed(peer) && !sim.is_reset(peer));
        outer.say(&mut sim, &inner.seal(b"more"));
        assert_eq!(outer.heard(&mut sim), b"");
        sim.send(peer, &outer.far.seal(&inner.bye()));
        outer.finish(&mut sim);
        assert_eq!(log_of(&log), ["question", "more", "eof", "Closed"]);
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn who_has_finished_hears_on_however_much_of_its_output_nobody_reads() {
    // All of the answer goes on the wire, or most of it waits above for longer.
    for (in_one_go, pieces) in [(false, 5), (true, 5), (false, 40), (true, 40)] {
        let mut options = Options::default().window(1000);
        // The last piece goes on the wire with nearly as much as it is too much.
        (options.limits.write_high_bytes, options.limits.write_low_bytes) = (4 * 16_388 + 8, 16_384);
        let log = Log::default();
        let (mut sim, mut peer) = world(options, {
            let log = Rc::clone(&log);
            move || Finishing { log: Rc::clone(&log), by_name: false, answer_bytes: pieces * 16_384 }
        });
        sim.stop_reading(peer.peer);
        let records = [peer.far.seal(b"question"), peer.far.seal(b"more"), peer.far.bye()];
        if in_one_go {
            sim.send(peer.peer, &records.concat());
        } else {
            records.iter().for_each(|record| {
                sim.send(peer.peer, record);
                sim.run();
            });
        }
        sim.run();
        assert_eq!(log_of(&log), ["question", "more", "eof"], "{pieces} pieces, in one go: {in_one_go}");
        sim.finish(peer.peer);
        sim.run();
        sim.start_reading(peer.peer);
        sim.settle();
        assert!(peer.heard(&mut sim) == vec![b'a'; pieces * 16_384]);
        assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
        assert_eq!(log_of(&log), ["Closed"]);
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn who_has_finished_above_two_layers_hears_on_as_well() {
    for (by_name, answer_bytes) in [(false, 100_000), (true, 100_000), (false, 900_000), (true, 900_000)] {
        let (mut sim, log) = (Sim::new(Options::default().window(1000)), Log::default());
        let listener = sim.listen({
            let log = Rc::clone(&log);
            move |_peer| {
                let protocol = Finishing { log: Rc::clone(&log), by_name, answer_bytes };
                Layered::new(Cipher::new(2), Layered::new(Cipher::new(4), protocol))
            }
        });
        let peer = sim.connect(listener);
        let (mut outer, mut inner) = (Peer::greet(&mut sim, peer), FarEnd::new());
        outer.say(&mut sim, &inner.greeting());
        let mut heard = inner.open(&outer.heard(&mut sim));
        sim.stop_reading(peer);
        for words in ["question", "more"] {
            outer.say(&mut sim, &inner.seal(words.as_bytes()));
        }
        let bye = inner.bye();
        outer.say(&mut sim, &bye);
        assert_eq!(log_of(&log), ["question", "more", "eof"], "{answer_bytes}, by name: {by_name}");
        outer.finish(&mut sim);
        sim.start_reading(peer);
        sim.settle();
        heard.extend(inner.open(&outer.heard(&mut sim)));
        assert!(heard == vec![b'a'; answer_bytes], "{} of {answer_bytes}", heard.len());
        assert!(inner.is_over() && outer.far.is_over() && sim.is_closed(peer) && !sim.is_reset(peer));
        assert_eq!(log_of(&log), ["Closed"]);
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

/// Answers each byte of the wire itself, and hands it on.
struct Pinged;

impl Layer for Pinged {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        while !input.is_empty() && upper.takes_more(conn) {
            conn.append(1000, |out| out.extend([b'p'; 1000]));
            upper.received(conn, &mut input.bytes_mut()[..1]);
            input.advance(1);
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

#[test]
fn what_a_layer_itself_answers_behind_an_end_of_our_direction_is_bounded() {
    let mut sim = Sim::new(Options::default().window(1000));
    let log = Log::default();
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| {
            Layered::new(Pinged, Finishing { log: Rc::clone(&log), by_name: false, answer_bytes: 400_000 })
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    sim.stop_reading(peer);
    let mut most = 0;
    for _ in 0..2000 {
        sim.send(peer, b"!");
        sim.run();
        most = most.max(sim.blocks_in_use());
    }
    assert!(most < 16, "{most} blocks of 64 KiB");
    sim.start_reading(peer);
    sim.finish(peer);
    sim.settle();
    let heard = sim.take_received(peer);
    assert_eq!(heard.iter().filter(|byte| **byte == b'a').count(), 400_000);
    assert!(log.borrow().iter().filter(|line| *line == "!").count() == 2000, "all was heard in the end");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

/// Is always idle, and says a word when it has to go.
struct Evictable(Log);

impl Protocol for Evictable {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn idle_since(&mut self, _conn: &mut Conn<'_>) -> Option<netpoll_core::Instant> {
        Some(netpoll_core::Instant::ZERO)
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("closing".into());
        conn.send(b"others need the place");
        Flow::Linger
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("{reason:?}"));
    }
}

#[test]
fn who_has_to_make_room_says_its_last_word_and_that_of_its_layer_and_keeps_no_place_for_it() {
    let limits = ConnLimits::default().connections_max(1);
    let (mut sim, log) = (Sim::new(Options::default().limits(limits)), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Cipher::new(2), Evictable(Rc::clone(&log)))
    });
    let peer = sim.connect(listener);
    let mut peer = Peer::greet(&mut sim, peer);
    sim.advance(SECOND);
    let next = sim.connect(listener);
    sim.run();
    assert_eq!(peer.heard(&mut sim), b"others need the place");
    assert!(peer.far.is_over() && sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
    assert_eq!(log_of(&log), ["closing", "Evicted"]);
    assert!(!sim.is_closed(next));
    assert_eq!((sim.open(), sim.stats().evicted), (1, 1));
}

#[test]
fn an_end_that_others_want_before_the_layer_is_ready_follows_what_was_sent_before_it() {
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let (id, file) = (Rc::clone(&id), letters("early-end", 1));
        move |_peer| {
            let protocol = AllWays { file: Arc::clone(&file), id: Rc::default() };
            Layered::new(Telling(Cipher::new(2), Rc::clone(&id)), protocol)
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    let name = id.get().expect("it is open");
    sim.handle().send(name, Bytes::from_static(b"early"));
    sim.handle().finish(name);
    sim.handle().send(name, Bytes::from_static(b"too late"));
    sim.run();
    sim.commands().finish(name);
    sim.run();
    assert!(!sim.is_closed(peer), "it waits");
    let mut peer = Peer::greet(&mut sim, peer);
    assert_eq!(peer.heard(&mut sim), b"<hello there>early");
    assert!(sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
    peer.finish(&mut sim);
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

/// Writes down what comes.
struct Heard(Log, Rc<Cell<Option<ConnId>>>);

impl Protocol for Heard {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.1.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push(String::from_utf8_lossy(input.bytes()).into_owned());
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push("eof".into());
        Flow::Close
    }
}

#[test]
fn who_was_paused_by_others_hears_the_rest_and_the_end_when_they_let_it_go() {
    let (log, id) = (Log::default(), Rc::<Cell<Option<ConnId>>>::default());
    let (mut sim, mut peer) = world(Options::default(), {
        let (log, id) = (Rc::clone(&log), Rc::clone(&id));
        move || Heard(Rc::clone(&log), Rc::clone(&id))
    });
    let id = id.get().expect("it is open");
    sim.commands().pause(id);
    sim.run();
    peer.say(&mut sim, b"more");
    peer.finish(&mut sim);
    assert_eq!(log_of(&log), [""; 0]);
    sim.commands().resume(id);
    sim.settle();
    assert_eq!(log_of(&log), ["more", "eof"]);
    assert!(sim.is_closed(peer.peer) && !sim.is_reset(peer.peer));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn what_waits_above_layers_is_queued_for_who_asks_by_name() {
    for layers in [1, 2] {
        let (log, id) = (Log::default(), Rc::<Cell<Option<ConnId>>>::default());
        let mut sim = Sim::new(Options::default().window(1000));
        let make = {
            let (log, id) = (Rc::clone(&log), Rc::clone(&id));
            move || Heard(Rc::clone(&log), Rc::clone(&id))
        };
        let listener = match layers {
            1 => sim.listen(move |_peer| Layered::new(Cipher::new(2), make())),
            _ => sim.listen(move |_peer| Layered::new(Cipher::new(2), Layered::new(Cipher::new(4), make()))),
        };
        let peer = sim.connect(listener);
        let (mut outer, mut inner) = (Peer::greet(&mut sim, peer), FarEnd::new());
        if layers == 2 {
            outer.say(&mut sim, &inner.greeting());
            inner.open(&outer.heard(&mut sim));
        }
        sim.stop_reading(peer);
        let answers = Rc::<RefCell<Vec<usize>>>::default();
        let ask = |sim: &mut Sim| {
            let answers = Rc::clone(&answers);
            let ask =
                move |queued: Option<usize>, _: &mut Commands| answers.borrow_mut().push(queued.unwrap());
            sim.commands().queued_bytes(id.get().expect("it is open"), ask);
            sim.run();
        };
        ask(&mut sim);
        for _ in 0..2 {
            sim.commands().send(id.get().expect("it is open"), Bytes::from(vec![b'n'; 1_000_000]));
            sim.run();
            ask(&mut sim);
        }
        sim.start_reading(peer);
        sim.settle();
        ask(&mut sim);
        let [before, one, two, behind] = answers.borrow()[..] else { panic!("four answers") };
        assert_eq!((before, behind), (0, 0));
        // But for what the peer's kernel has taken; the ciphers add a little.
        assert!((995_000..1_010_000).contains(&one) && (1_995_000..2_010_000).contains(&two), "{one}, {two}");
    }
}

#[test]
fn a_connection_with_a_layer_is_no_end_of_a_forward() {
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let plain = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Known(Rc::clone(&ids))
    });
    let layered = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Layered::new(Cipher::new(2), Known(Rc::clone(&ids)))
    });
    let (one, other) = (sim.connect(plain), sim.connect(plain));
    sim.run();
    let peer = sim.connect(layered);
    let mut peer = Peer::greet(&mut sim, peer);
    let names = ids.borrow().clone();
    sim.commands().forward(names[0], names[2]);
    sim.commands().forward(names[2], names[1]);
    sim.run();
    assert!(sim.is_reset(one) && sim.is_reset(other), "nothing goes past the layer");
    peer.say(&mut sim, b"still here");
    assert_eq!(sim.open(), 1);
}

#[test]
fn two_connections_with_a_layer_are_reset_by_a_forward_between_them() {
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let layered = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Layered::new(Marked, Known(Rc::clone(&ids)))
    });
    let (one, other) = (sim.connect(layered), sim.connect(layered));
    sim.run();
    let names = ids.borrow().clone();
    sim.commands().forward(names[0], names[1]);
    sim.run();
    assert!(sim.is_reset(one) && sim.is_reset(other));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

/// Says what it is called.
struct Known(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for Known {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

/// Is behind a layer from the first word on, or from the beginning: as a program writes it that has both on one port.
enum Starts {
    Plain(Rc<RefCell<Vec<ConnId>>>),
    Layered(Box<Layered<Cipher, Known>>),
}

impl Starts {
    fn layered(ids: &Rc<RefCell<Vec<ConnId>>>) -> Self {
        Self::Layered(Box::new(Layered::new(Cipher::new(2), Known(Rc::clone(ids)))))
    }
}

impl Protocol for Starts {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Plain(ids) => {
                ids.borrow_mut().push(conn.id());
                Flow::Continue
            }
            Self::Layered(layered) => layered.opened(conn),
        }
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        match self {
            Self::Plain(ids) => {
                input.advance_all();
                *self = Self::layered(&Rc::clone(ids));
                // A layer that finds itself in a forward need not be asked what becomes of it.
                let _ = self.opened(conn);
                Flow::Continue
            }
            Self::Layered(layered) => layered.received(conn, input),
        }
    }
}

#[test]
fn a_layer_inside_of_a_programs_own_protocol_is_no_end_of_a_forward_either() {
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let plain = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Known(Rc::clone(&ids))
    });
    let layered = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Starts::layered(&ids)
    });
    let (one, other) = (sim.connect(plain), sim.connect(plain));
    sim.run();
    let peer = sim.connect(layered);
    let mut peer = Peer::greet(&mut sim, peer);
    peer.heard(&mut sim);
    let names = ids.borrow().clone();
    sim.commands().forward(names[0], names[2]);
    sim.commands().forward(names[2], names[1]);
    sim.run();
    assert!(sim.is_reset(one) && sim.is_reset(other), "nothing goes past the layer");
    sim.send(one, b"in plain text");
    peer.say(&mut sim, b"still here");
    assert_eq!((peer.heard(&mut sim), sim.take_received(other)), (vec![], vec![]));
    assert_eq!(sim.open(), 1);
}

#[test]
fn a_layer_that_begins_on_an_end_of_a_forward_resets_both() {
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Starts::Plain(Rc::clone(&ids))
    });
    let (one, other) = (sim.connect(listener), sim.connect(listener));
    sim.run();
    let names = ids.borrow().clone();
    sim.commands().forward(names[0], names[1]);
    sim.run();
    sim.send(one, b"in plain text");
    sim.run();
    assert_eq!(sim.take_received(other), b"in plain text", "there is no layer yet");
    sim.send(other, b"begin");
    sim.run();
    sim.send(one, b"in plain text");
    sim.settle();
    assert!(sim.is_reset(one) && sim.is_reset(other));
    assert_eq!(sim.take_received(other), b"", "nothing goes past the layer");
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

/// What a layer may tell of itself.
struct Depth(u32);

/// Tells of itself, passes bytes on, and fails when it is to.
struct Telltale(u32);

impl Layer for Telltale {
    fn opened(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        upper.tell_facts(Arc::new(Depth(self.0)));
        upper.open(conn);
        conn.unchanged_flow()
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if input.bytes_mut() == b"fail" {
            upper.fail(conn, std::io::Error::other("as it was told"));
            upper.fail(conn, std::io::Error::other("and once more"));
            conn.send(b"sorry");
            return Flow::Linger;
        }
        upper.received(conn, input.bytes_mut());
        input.advance_all();
        conn.unchanged_flow()
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

/// Says what is below it.
struct Asks(Log);

impl Protocol for Asks {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        assert!(conn.layer_facts::<String>().is_none());
        let depth = conn.layer_facts::<Depth>().map_or(0, |depth| depth.0);
        conn.send(depth.to_string().as_bytes());
        assert_ne!(input.bytes(), b"panic");
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

#[test]
fn a_protocol_is_told_of_the_nearest_layer_below_it_and_of_no_other_connections() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let plain = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Asks(Rc::clone(&log))
    });
    let layered = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Telltale(1), Layered::new(Telltale(2), Asks(Rc::clone(&log))))
    });
    let (plain, layered, panics) = (sim.connect(plain), sim.connect(layered), sim.connect(layered));
    for _ in 0..2 {
        for (peer, depth) in [(layered, b"2"), (plain, b"0")] {
            sim.send(peer, b"?");
            sim.settle();
            assert_eq!(sim.take_received(peer), depth);
        }
        sim.send(panics, b"panic");
        sim.settle();
    }
    assert_eq!(sim.stats().panics, 1, "and it has changed nothing for the others");
}

#[test]
fn a_layer_that_fails_is_counted_once_and_the_protocol_above_hears_its_reason() {
    let (mut sim, log) = (Sim::new(Options::default()), Log::default());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(Telltale(1), Asks(Rc::clone(&log)))
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"fail");
    sim.finish(peer);
    sim.settle();
    assert_eq!(sim.take_received(peer), b"sorry");
    assert_eq!(log_of(&log), ["its layer has failed: as it was told"]);
    assert_eq!((sim.stats().layer_failures, sim.open(), sim.blocks_in_use()), (1, 0, 0));
}
