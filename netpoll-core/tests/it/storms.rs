//! Storms on real sockets: whatever peers and callbacks do, everybody gets exactly the bytes that are theirs.
//!
//! A client sends a script of orders and knows what has to come back, byte for byte; the server obeys in a way that a seed
//! decides. Threads and the kernel add chance of their own, so a seed repeats a failure only as far as these allow:
//!
//! ```text
//! NETPOLL_STORM_SEED=7 NETPOLL_STORM_ROUNDS=100 cargo test -p netpoll-core --test it storms
//! ```
//!
//! runs a hundred storms from seed 7 on. Who is stuck is named by the watchdog, with how far it got.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, ConnectOptions, FileRange, Flow, Input, Lost, Peer, Protocol,
    Running, Runtime, WaitStrategy, Workers,
};

use crate::chance::{Chance, Watchdog, seeds};

/// Nobody waits for so long unless something is lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Before that, so that it can say who waits.
const STUCK: Duration = Duration::from_secs(100);

/// What files and constants are parts of; without a short period.
static PATTERN: [u8; 1 << 17] = {
    let mut bytes = [0; 1 << 17];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
        at += 1;
    }
    bytes
};

/// An order is its letter, a length and a number; some have bytes behind them.
const ORDER_BYTES: usize = 5;

fn order(letter: u8, len: usize, number: u16) -> [u8; ORDER_BYTES] {
    let ([a, b], [c, d]) = ((len as u16).to_le_bytes(), number.to_le_bytes());
    [letter, a, b, c, d]
}

/// What the connections of one storm share.
struct Shared {
    seed: u64,
    file: Arc<File>,
    /// Takes wakers and wakes them.
    wakers: mpsc::Sender<Waker>,
    /// Connections that others talk to.
    names: Mutex<HashMap<u16, ConnId>>,
    /// The listener that takes everything for bytes to be echoed.
    echo: OnceLock<SocketAddr>,
    made: AtomicU64,
    lost: AtomicU64,
}

/// Obeys the orders of its peer, in pieces and pauses that chance decides.
struct Obedient {
    shared: Arc<Shared>,
    wakers: mpsc::Sender<Waker>,
    chance: Chance,
    /// Bytes of the peer that are still to be echoed, or to be handed on.
    echo_left: usize,
    relay_left: usize,
    /// Whom it hands on to.
    partner: Option<ConnId>,
    /// It hands everything on, from the number on that its partner gets.
    dialing: Option<u16>,
    passes: bool,
    ends: bool,
}

/// What is to be done next.
enum Step {
    Went,
    NeedsMore,
    Flow(Flow),
}

impl Obedient {
    fn new(shared: &Arc<Shared>, wakers: mpsc::Sender<Waker>) -> Self {
        let nth = shared.made.fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            wakers,
            chance: Chance::new(shared.seed.wrapping_mul(1_000_003) ^ nth),
            echo_left: 0,
            relay_left: 0,
            partner: None,
            dialing: None,
            passes: false,
            ends: false,
        }
    }

    fn echo(shared: &Arc<Shared>, wakers: mpsc::Sender<Waker>) -> Self {
        Self { echo_left: usize::MAX, ..Self::new(shared, wakers) }
    }

    /// Somebody else comes first: input that is left is offered again, one way or another.
    fn gives_way(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        match self.chance.below(40) {
            0..=3 => return Some(Flow::Yield),
            4 => {
                self.wakers.send(conn.waker()).expect("wakes until everybody has gone");
            }
            5 => conn.waker().wake_by_ref(),
            6 => conn.set_deadline(Duration::from_micros(self.chance.below(2000) as u64)),
            7 => {
                // Two that race, and a deadline that is taken back.
                conn.set_deadline(Duration::from_secs(3600));
                conn.clear_deadline();
                conn.waker().wake_by_ref();
                self.wakers.send(conn.waker()).expect("wakes until everybody has gone");
            }
            _ => return None,
        }
        Some(Flow::Pause)
    }

    /// Some of what is to be echoed, in one of the ways that bytes can leave.
    fn answer(&mut self, conn: &mut Conn<'_>, piece: &[u8]) {
        match self.chance.below(6) {
            0 => conn.send(piece),
            1 => conn.append(piece.len() / 2, |out| out.extend_from_slice(piece)),
            2 => conn.send_now(piece),
            3 => conn.send_now(&Vec::from(piece)),
            4 => conn.send_shared(Bytes::copy_from_slice(piece)),
            _ => {
                conn.append(piece.len() + 2, |out| {
                    let start = out.len();
                    out.extend_from_slice(b"not this");
                    out.truncate(start);
                    out.extend_from_slice(piece);
                });
            }
        }
    }

    fn step(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Step {
        let bytes = input.bytes();
        if bytes.is_empty() {
            return Step::NeedsMore;
        }
        if self.dialing.is_some() {
            return Step::Flow(Flow::Pause);
        }
        let left = if self.passes { usize::MAX } else { self.echo_left.max(self.relay_left) };
        if left > 0 {
            let part = bytes.len().min(left);
            let part = if self.chance.below(3) == 0 { 1 + self.chance.below(part) } else { part };
            input.advance(part);
            if self.passes || self.relay_left > 0 {
                self.relay_left = self.relay_left.saturating_sub(part);
                let partner = self.partner.expect("somebody to talk to");
                conn.commands().send(partner, Bytes::copy_from_slice(&bytes[..part]));
            } else {
                self.echo_left -= part;
                self.answer(conn, &bytes[..part]);
            }
            return Step::Went;
        }
        let Some(&[letter, a, b, c, d]) = bytes.first_chunk() else { return Step::NeedsMore };
        input.advance(ORDER_BYTES);
        let (len, number) = (usize::from(u16::from_le_bytes([a, b])), u16::from_le_bytes([c, d]));
        let part = usize::from(number)..usize::from(number) + len;
        match letter {
            b'e' => self.echo_left = len,
            b'r' => self.relay_left = len,
            b'f' => {
                let file = Arc::clone(&self.shared.file);
                conn.send_file(FileRange::new(file, part.start as u64, len as u64));
            }
            b's' => conn.send_static(&PATTERN[part]),
            b'n' => {
                self.shared.names.lock().unwrap().insert(number, conn.id());
                conn.send(b"!");
            }
            b't' => self.partner = self.shared.names.lock().unwrap().get(&number).copied(),
            b'c' => conn.commands().close(self.partner.expect("somebody to talk to")),
            b'p' => {
                let far =
                    Far { near: conn.id(), number, waker: conn.waker(), shared: Arc::clone(&self.shared) };
                let to = *self.shared.echo.get().expect("set before anybody connects");
                conn.commands().connect(to, ConnectOptions::default(), far);
                self.dialing = Some(number);
                return Step::Flow(Flow::Pause);
            }
            b'l' => return Step::Flow(Flow::Linger),
            b'q' => return Step::Flow(Flow::Close),
            b'x' => return Step::Flow(Flow::Reset),
            other => panic!("not an order: {other}"),
        }
        Step::Went
    }
}

impl Protocol for Obedient {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        loop {
            if !input.is_empty()
                && let Some(flow) = self.gives_way(conn)
            {
                return flow;
            }
            match self.step(conn, input) {
                Step::Went if conn.is_backed_up() => return Flow::Yield,
                Step::Went => {}
                Step::NeedsMore => return Flow::Continue,
                Step::Flow(flow) => return flow,
            }
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        loop {
            match self.step(conn, input) {
                Step::Went => {}
                Step::NeedsMore => break,
                Step::Flow(flow) => return flow,
            }
        }
        if self.passes {
            conn.commands().close(self.partner.expect("somebody to talk to"));
        }
        match self.chance.below(3) {
            0 => Flow::Close,
            1 => Flow::Linger,
            _ => {
                // Later.
                self.ends = true;
                self.wakers.send(conn.waker()).expect("wakes until everybody has gone");
                Flow::Continue
            }
        }
    }

    fn woken(&mut self, _conn: &mut Conn<'_>) -> Flow {
        if let Some(number) = self.dialing {
            let far = self.shared.names.lock().unwrap().get(&number).copied();
            if far.is_none() {
                return Flow::Pause;
            }
            (self.partner, self.dialing, self.passes) = (far, None, true);
        }
        if self.ends { Flow::Close } else { Flow::Continue }
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.woken(conn)
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        self.shared.lost.fetch_add(1, Relaxed);
    }
}

/// The outgoing connection of one that passes everything on.
struct Far {
    near: ConnId,
    number: u16,
    waker: Waker,
    shared: Arc<Shared>,
}

impl Protocol for Far {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.shared.made.fetch_add(1, Relaxed);
        self.shared.names.lock().unwrap().insert(self.number, conn.id());
        self.waker.wake_by_ref();
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.commands().send(self.near, Bytes::copy_from_slice(input.bytes()));
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        assert!(!matches!(reason, Lost::ConnectFailed(_)), "{reason:?}");
        self.shared.lost.fetch_add(1, Relaxed);
    }
}

/// How a client and its connection part.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// The client half-closes and reads to the end.
    HalfClose,
    /// The server lingers while the client goes on talking.
    Linger,
    /// The server closes behind the last word.
    Close,
    /// The server closes with input unread.
    CloseUnread,
    ServerReset,
    ClientReset,
    /// The client closes without having read anything.
    ClientGone,
}

impl Ending {
    /// The client gets everything.
    fn is_whole(self) -> bool {
        matches!(self, Self::HalfClose | Self::Linger | Self::Close)
    }
}

/// What a client sends, and what it must get for it.
struct Script {
    bytes: Vec<u8>,
    /// Where one urgent byte goes, which is no part of the stream.
    urgent_at: Option<usize>,
    answer: Vec<u8>,
    /// What its partner gets.
    relayed: Vec<u8>,
    ending: Ending,
}

fn noise(chance: &mut Chance, len: usize) -> Vec<u8> {
    let start = chance.below(PATTERN.len() - len);
    PATTERN[start..start + len].to_vec()
}

impl Script {
    fn new(chance: &mut Chance, relays: bool, ending: Ending) -> Self {
        let mut this =
            Self { bytes: Vec::new(), urgent_at: None, answer: Vec::new(), relayed: Vec::new(), ending };
        let large = chance.below(4) == 0;
        for _ in 0..1 + chance.below(40) {
            let bound = [2, 30, 700, if large { 60_000 } else { 6000 }][chance.below(4)];
            let len = chance.below(bound);
            let number = chance.below(usize::from(u16::MAX));
            match chance.below(if relays { 8 } else { 5 }) {
                0 => {
                    this.bytes.extend(order(b'f', len, number as u16));
                    this.answer.extend(&PATTERN[number..number + len]);
                }
                1 => {
                    this.bytes.extend(order(b's', len, number as u16));
                    this.answer.extend(&PATTERN[number..number + len]);
                }
                2..=4 => {
                    let bytes = noise(chance, len);
                    this.bytes.extend(order(b'e', len, 0));
                    this.bytes.extend(&bytes);
                    this.answer.extend(&bytes);
                }
                _ => {
                    let bytes = noise(chance, len);
                    this.bytes.extend(order(b'r', len, 0));
                    this.bytes.extend(&bytes);
                    this.relayed.extend(&bytes);
                }
            }
        }
        if chance.below(3) == 0 {
            this.urgent_at = Some(chance.below(this.bytes.len()));
        }
        match ending {
            Ending::Linger => {
                this.bytes.extend(order(b'l', 0, 0));
                let len = chance.below(60_000);
                this.bytes.extend(noise(chance, len));
            }
            Ending::Close => this.bytes.extend(order(b'q', 0, 0)),
            Ending::CloseUnread => {
                this.bytes.extend(order(b'q', 0, 0));
                let len = 1 + chance.below(20_000);
                this.bytes.extend(noise(chance, len));
            }
            Ending::ServerReset => this.bytes.extend(order(b'x', 0, 0)),
            Ending::ClientReset => this.bytes.truncate(chance.below(this.bytes.len())),
            Ending::HalfClose | Ending::ClientGone => {}
        }
        if this.urgent_at.is_some_and(|at| at >= this.bytes.len()) {
            this.urgent_at = None;
        }
        this
    }
}

/// How far a client is, for the watchdog.
#[derive(Default)]
struct Place {
    what: Mutex<String>,
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{self}");
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        write!(out, "{what}: sent {:?}, received {:?}", self.sent, self.received)
    }
}

fn connect(chance: &mut Chance, addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if chance.below(3) == 0 {
        socket.set_recv_buffer_size(8192 + chance.below(32_768)).unwrap();
    }
    socket.connect(&addr.into()).unwrap();
    socket.set_tcp_nodelay(chance.below(2) == 0).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a script in pieces; an error is told only where everything has to arrive.
fn send(mut stream: &TcpStream, mut chance: Chance, script: &Script, place: &Place) {
    let bytes = &script.bytes;
    let mut sent = 0;
    while sent < bytes.len() {
        if script.urgent_at == Some(sent) {
            let urgent = socket2::SockRef::from(stream).send_out_of_band(b"!");
            assert!(urgent.is_ok() || script.ending != Ending::HalfClose, "{urgent:?}");
        }
        let bound = [1, 4, 100, 3000, 100_000][chance.below(5)];
        let mut end = bytes.len().min(sent + 1 + chance.below(bound));
        if let Some(urgent) = script.urgent_at.filter(|urgent| (sent + 1..end).contains(urgent)) {
            end = urgent;
        }
        if let Err(error) = stream.write_all(&bytes[sent..end]) {
            assert!(script.ending != Ending::HalfClose, "{error} behind {sent} bytes");
            return;
        }
        sent = end;
        place.sent.store(sent, Relaxed);
        if chance.below(4) == 0 {
            std::thread::yield_now();
        }
    }
    if script.ending == Ending::HalfClose {
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Reads to the end: what came, and whether the end was orderly.
fn read(mut stream: &TcpStream, mut chance: Chance, place: &Place) -> (Vec<u8>, bool) {
    let mut received = Vec::new();
    let mut block = vec![0; 20_000];
    loop {
        let bound = [10, 500, 20_000][chance.below(3)];
        let room = 1 + chance.below(bound);
        match stream.read(&mut block[..room]) {
            Ok(0) => return (received, true),
            Ok(bytes) => received.extend(&block[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "nothing came any more");
                return (received, false);
            }
        }
        place.received.store(received.len(), Relaxed);
        if chance.below(8) == 0 {
            std::thread::yield_now();
        }
    }
}

/// Holds what came against what had to come.
fn compare(received: &[u8], expected: &[u8], whole: bool, orderly: bool) {
    let same = received.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let (came, due) = (received.len(), expected.len());
    assert!(same == came, "another byte than expected behind {same} of {due} ({came} came)");
    if whole {
        assert!(came == due && orderly, "{came} of {due} bytes came, orderly end: {orderly}");
    }
}

/// One client from its connection to its end.
fn session(seed: u64, number: u16, addr: SocketAddr, place: &Place) {
    let mut chance = Chance::new(seed.wrapping_mul(7919) ^ u64::from(number) << 32);
    let (kind, ending) = match chance.below(10) {
        0..=1 => ("pair", Ending::HalfClose),
        2 => ("passed on", Ending::HalfClose),
        3..=5 => ("alone", Ending::HalfClose),
        _ => {
            let endings = [
                Ending::Linger,
                Ending::Close,
                Ending::CloseUnread,
                Ending::ServerReset,
                Ending::ClientReset,
                Ending::ClientGone,
            ];
            ("alone", endings[chance.below(6)])
        }
    };
    let mut script = Script::new(&mut chance, kind == "pair", ending);
    let mut partner = None;
    match kind {
        "pair" => {
            // Another connection, on whatever worker, that only listens.
            let mut listening = connect(&mut chance, addr);
            listening.write_all(&order(b'n', 0, number)).unwrap();
            listening.read_exact(&mut [0]).unwrap();
            partner = Some(listening);
            let place = script.urgent_at.as_mut();
            place.into_iter().for_each(|at| *at += ORDER_BYTES);
            script.bytes.splice(0..0, order(b't', 0, number));
            script.bytes.extend(order(b'c', 0, 0));
        }
        "passed on" => {
            // All of it goes to another connection, and comes back.
            script.answer = script.bytes.clone();
            let place = script.urgent_at.as_mut();
            place.into_iter().for_each(|at| *at += ORDER_BYTES);
            script.bytes.splice(0..0, order(b'p', 0, number));
        }
        _ => {}
    }
    let due = (script.bytes.len(), script.answer.len());
    *place.what.lock().unwrap() = format!("client {number}, {kind}, {ending:?}, sends and gets {due:?}");
    let stream = connect(&mut chance, addr);
    let (sending, reading, listening) = (chance.fork(), chance.fork(), chance.fork());
    if ending == Ending::ClientReset || ending == Ending::ClientGone {
        send(&stream, sending, &script, place);
        if ending == Ending::ClientReset {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        return;
    }
    std::thread::scope(|scope| {
        let script = &script;
        // What is passed on has no end of its own that comes back: the client ends when it has everything.
        let passed_on = kind == "passed on";
        let stream = &stream;
        scope.spawn(move || {
            let ending = if passed_on { Ending::ClientGone } else { script.ending };
            let Script { bytes, urgent_at, .. } = script;
            let (bytes, relayed, answer) = (bytes.clone(), Vec::new(), Vec::new());
            send(stream, sending, &Script { bytes, urgent_at: *urgent_at, answer, relayed, ending }, place);
        });
        if let Some(partner) = &partner {
            scope.spawn(move || {
                let (received, orderly) = read(partner, listening, &Place::default());
                compare(&received, &script.relayed, true, orderly);
            });
        }
        if passed_on {
            let mut received = Vec::new();
            while received.len() < script.answer.len() {
                let mut block = [0; 4096];
                let room = block.len().min(script.answer.len() - received.len());
                let bytes = { stream }.read(&mut block[..room]).unwrap();
                assert_ne!(bytes, 0, "the end came first");
                received.extend(&block[..bytes]);
                place.received.store(received.len(), Relaxed);
            }
            compare(&received, &script.answer, true, true);
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let (received, orderly) = read(stream, reading, place);
        let answer: &[u8] = if passed_on { b"" } else { &script.answer };
        compare(&received, answer, ending.is_whole(), orderly);
    });
}

/// A runtime with settings that a seed decides: small budgets, small queues.
fn start(seed: u64, shared: &Arc<Shared>) -> Running {
    let mut chance = Chance::new(seed);
    let limits = ConnLimits::default()
        .write_high_bytes([256, 8 << 10, 256 << 10][chance.below(3)])
        .write_low_bytes(128)
        .write_grace(PATIENCE)
        .linger_silence_max(PATIENCE)
        .linger_time_max(PATIENCE);
    let budget = match chance.below(4) {
        0 => Budget::fixed(1).read_bytes(1024),
        1 => Budget::fixed(3).read_bytes(2000),
        2 => Budget::adaptive(),
        _ => Budget::default(),
    };
    let wait = [WaitStrategy::Block, WaitStrategy::Hybrid][chance.below(2)];
    let makes = |make: fn(&Arc<Shared>, mpsc::Sender<Waker>) -> Obedient| {
        let shared = Arc::clone(shared);
        move |_worker: &_| {
            let (shared, wakers) = (Arc::clone(&shared), shared.wakers.clone());
            move |_peer: Peer| make(&shared, wakers.clone())
        }
    };
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .limits(limits)
        .budget(budget)
        .wait(wait)
        .pool_bytes_max([0, 64 << 10, 4 << 20][chance.below(3)])
        .listen("127.0.0.1:0", makes(Obedient::new))
        .unwrap()
        .listen("127.0.0.1:0", makes(Obedient::echo))
        .unwrap()
        .start()
        .unwrap();
    shared.echo.set(running.local_addrs()[1].as_socket_addr().unwrap()).unwrap();
    running
}

/// Clients at a time, and how many each of them plays one after the other.
const CLIENTS: usize = 8;
const SESSIONS: usize = 6;

fn storm(seed: u64, file: &Arc<File>) {
    let (wakers, to_wake) = mpsc::channel::<Waker>();
    let shared = Arc::new(Shared {
        seed,
        file: Arc::clone(file),
        wakers,
        names: Mutex::default(),
        echo: OnceLock::new(),
        made: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    });
    let running = start(seed, &shared);
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let waking = std::thread::spawn(move || to_wake.iter().for_each(Waker::wake));
    let places: Arc<Vec<Place>> = Arc::new((0..CLIENTS).map(|_| Place::default()).collect());
    let watchdog = Watchdog::new(STUCK, {
        let (places, handle) = (Arc::clone(&places), running.handle().clone());
        move || {
            let mut text = format!("seed {seed}: {:?}\n", handle.stats());
            places.iter().for_each(|place| text += &format!("{place}\n"));
            text
        }
    });
    std::thread::scope(|scope| {
        for (client, place) in places.iter().enumerate() {
            scope.spawn(move || {
                for nth in 0..SESSIONS {
                    session(seed, (nth * CLIENTS + client) as u16, addr, place);
                }
                *place.what.lock().unwrap() = format!("client {client} has played all");
            });
        }
        // Meanwhile somebody asks, and talks to those who have gone: nobody else may get it.
        let handle = running.handle();
        for _ in 0..200 {
            let stats = handle.stats();
            assert_eq!(stats.panics, 0, "{stats:?}");
            std::thread::yield_now();
        }
    });
    // Everybody has gone, and the server finds out by itself.
    while running.handle().stats().open() > 0 {
        std::thread::yield_now();
    }
    let gone: Vec<ConnId> = shared.names.lock().unwrap().values().copied().collect();
    for id in gone {
        running.handle().send(id, Bytes::from_static(b"to nobody"));
        running.handle().reset(id);
    }
    let report = running.stop(PATIENCE).unwrap();
    assert_eq!((report.cut, report.stats.open(), report.stats.panics), (0, 0, 0), "{:?}", report.stats);
    assert_eq!(shared.made.load(Relaxed), shared.lost.load(Relaxed), "each is told once that it is over");
    assert_eq!(report.stats.stalled + report.stats.output_overflows, 0, "{:?}", report.stats);
    // The waking thread ends with the last sender.
    drop(shared);
    waking.join().unwrap();
    assert_eq!(Arc::strong_count(file), 1, "a file was kept open");
    drop(watchdog);
}

#[test]
fn everybody_gets_the_bytes_that_are_theirs_in_any_storm() {
    let mut file = tempfile();
    file.write_all(&PATTERN).unwrap();
    let file = Arc::new(file);
    for seed in seeds(6) {
        storm(seed, &file);
    }
}

/// A file without a name.
fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("netpoll-storm-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}
