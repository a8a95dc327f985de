//! Relays whose bytes the kernel moves from socket to socket: that they do, when they do not, and that nobody can tell.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use netpoll_core::{
    Address, Builder, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Instant, Lost,
    Message, Protocol, Running, Runtime, Stats, Target, Workers,
};

use crate::chance::{Chance, seeds};
use crate::hardship::alone;
use crate::support::is_on_linux;

/// Why a test is skipped elsewhere.
const NO_SPLICE: &str = "nothing is spliced";

const PATIENCE: Duration = Duration::from_secs(30);
/// What one step moves, at most.
const STEP_BYTES: u64 = 128 << 10;

/// What a half of a relay tells.
enum News {
    Opened(ConnId),
    /// It was offered these bytes itself.
    Offered(Vec<u8>),
    MovedAt(Option<Instant>),
    Lost(String),
}

/// A half of a relay; the accepted one dials the other.
struct Half {
    to: Option<Target>,
    news: mpsc::Sender<News>,
}

impl Half {
    fn tell(&self, news: News) {
        // Whoever was told may have heard enough.
        let _ = self.news.send(news);
    }
}

impl Protocol for Half {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let me = conn.id();
        self.tell(News::Opened(me));
        if let Some(to) = self.to.take() {
            let half = Self { to: None, news: self.news.clone() };
            let backend = conn.commands().connect(to, ConnectOptions::default(), half);
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.tell(News::Offered(input.bytes().to_vec()));
        input.advance_all();
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, _message: Message) -> Flow {
        self.tell(News::MovedAt(conn.forwarded_at()));
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let reason = match reason {
            Lost::Failed(_) => "Failed".to_owned(),
            reason => format!("{reason:?}"),
        };
        self.tell(News::Lost(reason));
    }
}

struct Relay {
    server: Running,
    backend: TcpListener,
    news: mpsc::Receiver<News>,
}

impl Relay {
    fn start() -> Self {
        Self::with(|builder| builder)
    }

    fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Target::from(backend.local_addr().unwrap());
        let (sender, news) = mpsc::channel();
        let server = set(Runtime::builder().workers(Workers::Count(1)))
            .listen("127.0.0.1:0", move |_worker| {
                let (news, to) = (sender.clone(), to.clone());
                move |_peer| Half { to: Some(to.clone()), news: news.clone() }
            })
            .unwrap()
            .start()
            .unwrap();
        Self { server, backend, news }
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.server.local_addrs()[0].as_socket_addr().unwrap()).unwrap())
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        (client, patient(self.backend.accept().unwrap().0))
    }

    fn named_pair(&self) -> ((TcpStream, ConnId), (TcpStream, ConnId)) {
        let (client, backend) = self.pair();
        let id = || match self.next() {
            News::Opened(id) => id,
            _ => panic!("a half is opened first"),
        };
        let (of_client, of_backend) = (id(), id());
        ((client, of_client), (backend, of_backend))
    }

    fn next(&self) -> News {
        self.news.recv_timeout(PATIENCE).unwrap()
    }

    /// How the next two have ended.
    fn ends(&self) -> [String; 2] {
        let mut ends = [(); 2].map(|()| {
            loop {
                if let News::Lost(reason) = self.next() {
                    break reason;
                }
            }
        });
        ends.sort();
        ends
    }

    fn stats(&self) -> Stats {
        self.server.handle().stats()
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Stats) -> bool) -> Stats {
        let patience = std::time::Instant::now() + PATIENCE;
        loop {
            let stats = self.stats();
            if is_so(&stats) {
                return stats;
            }
            assert!(std::time::Instant::now() < patience, "{what}: {stats:?}");
            std::thread::yield_now();
        }
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| ((index as u32).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Writes these bytes in pieces of any size, and ends.
fn writes(to: &TcpStream, bytes: Vec<u8>, mut chance: Chance) -> JoinHandle<()> {
    let mut to = to.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut left = &bytes[..];
        while !left.is_empty() {
            let largest = [300, 20_000, 400_000][chance.below(3)];
            let (piece, rest) = left.split_at((1 + chance.below(largest)).min(left.len()));
            to.write_all(piece).unwrap();
            left = rest;
        }
        to.shutdown(Shutdown::Write).unwrap();
    })
}

/// Reads to the end, in pieces of any size, now and then not at all for a while.
fn reads(from: &TcpStream, mut chance: Chance) -> JoinHandle<Vec<u8>> {
    let mut from = from.try_clone().unwrap();
    std::thread::spawn(move || {
        let (mut heard, mut room) = (Vec::new(), vec![0; 300_000]);
        loop {
            let largest = [500, 50_000, 300_000][chance.below(3)];
            let bytes = from.read(&mut room[..1 + chance.below(largest)]).unwrap();
            if bytes == 0 {
                return heard;
            }
            heard.extend_from_slice(&room[..bytes]);
            for _ in 0..chance.below(50) {
                std::thread::yield_now();
            }
        }
    })
}

#[test]
fn a_large_flow_is_spliced_in_both_directions_and_every_byte_arrives_once() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    for seed in seeds(6) {
        let mut chance = Chance::new(seed);
        let relay =
            Relay::with(|builder| if seed % 2 == 0 { builder.send_buffer_bytes(60_000) } else { builder });
        let (client, backend) = relay.pair();
        let (asked, answered) = (noise(2_000_000 + chance.below(4_000_000)), noise(chance.below(9_000_000)));
        let writers = [
            writes(&client, asked.clone(), chance.fork()),
            writes(&backend, answered.clone(), chance.fork()),
        ];
        let readers = [reads(&backend, chance.fork()), reads(&client, chance.fork())];
        let [heard, answer] = readers.map(|reader| reader.join().unwrap());
        assert!(heard == asked && answer == answered, "seed {seed}");
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(relay.ends(), ["Closed", "Closed"], "half-closes go through");
        let stats = relay.server.stop(PATIENCE).unwrap().stats;
        let sum = (asked.len() + answered.len()) as u64;
        assert_eq!((stats.received_bytes, stats.sent_bytes), (sum, sum));
        assert!(stats.spliced_bytes > 0 && stats.syscalls_splice > 0, "{stats:?}");
    }
}

#[test]
fn a_flow_to_and_from_a_unix_socket_is_spliced_as_well() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let path = std::env::temp_dir().join(format!("core-splicing-{}", std::process::id()));
    let unix = UnixListener::bind(&path).unwrap();
    let (sender, _news) = mpsc::channel();
    let to = Target::from(Address::unix(&path).unwrap());
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let (news, to) = (sender.clone(), to.clone());
            move |_peer| Half { to: Some(to.clone()), news: news.clone() }
        })
        .unwrap()
        .start()
        .unwrap();
    let client = patient(TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap());
    let mut backend = unix.accept().unwrap().0;
    std::fs::remove_file(path).unwrap();
    let said = noise(6 << 20);
    let writer = writes(&client, said.clone(), Chance::new(1));
    let mut heard = Vec::new();
    backend.read_to_end(&mut heard).unwrap();
    writer.join().unwrap();
    assert!(heard == said);
    let asked = server.handle().stats().spliced_bytes;
    let reader = reads(&client, Chance::new(2));
    backend.write_all(&said).unwrap();
    drop(backend);
    assert!(reader.join().unwrap() == said);
    let stats = server.stop(PATIENCE).unwrap().stats;
    assert!(asked > 0 && stats.spliced_bytes > asked, "{asked} {stats:?}");
}

#[test]
fn a_relay_of_small_messages_makes_no_splice_call() {
    let relay = Relay::start();
    let (mut client, mut backend) = relay.pair();
    let mut message = noise(8000);
    for _ in 0..200 {
        client.write_all(&message).unwrap();
        backend.read_exact(&mut message).unwrap();
        backend.write_all(&message).unwrap();
        client.read_exact(&mut message).unwrap();
    }
    drop((client, backend));
    let stats = relay.server.stop(PATIENCE).unwrap().stats;
    assert_eq!((stats.syscalls_splice, stats.spliced_bytes), (0, 0));
    assert_eq!(stats.sent_bytes, 2 * 200 * 8000);
}

/// Has a flow spliced from one end to the other.
fn flow(from: &mut TcpStream, to: &mut TcpStream, relay: &Relay) {
    let before = relay.stats().spliced_bytes;
    let (bytes, mut heard) = (noise(256 << 10), vec![0; 256 << 10]);
    while relay.stats().spliced_bytes == before {
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(&bytes).unwrap());
            to.read_exact(&mut heard).unwrap();
        });
        assert!(heard == bytes);
    }
}

#[test]
fn small_messages_behind_a_flow_are_copied_again() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let (mut client, mut backend) = relay.pair();
    let mut say = |message: &str| {
        backend.write_all(message.as_bytes()).unwrap();
        let mut heard = vec![0; message.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), message);
        relay.stats()
    };
    for _ in 0..3 {
        let before = say("one");
        for _ in 0..100 {
            say(&"large".repeat(20_000));
        }
        for message in ["two", "and a bit", "three", "four"] {
            say(message);
        }
        // What was done for one message is counted when a later one has come.
        let mut behind = say("five");
        for _ in 0..8 {
            behind = say("five again");
        }
        assert!(behind.spliced_bytes > before.spliced_bytes);
        for _ in 0..50 {
            say("six");
        }
        assert_eq!(say("seven").syscalls_splice, behind.syscalls_splice);
    }
    relay.server.stop(Duration::ZERO).unwrap();
}

/// Writes until nothing more is taken, and the relay's target is full.
fn fill(from: &mut TcpStream, relay: &Relay) {
    let (block, blocked) = (noise(1 << 20), relay.stats().sends_blocked);
    from.set_nonblocking(true).unwrap();
    let patience = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < patience, "everything is taken");
        match from.write(&block) {
            Ok(_) => {}
            Err(error) if relay.stats().sends_blocked > blocked => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return from.set_nonblocking(false).unwrap();
            }
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn a_reset_goes_through_while_the_target_is_full() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    for of_source in [true, false] {
        let (mut client, mut backend) = relay.pair();
        flow(&mut backend, &mut client, &relay);
        fill(&mut backend, &relay);
        let (gone, mut left) = if of_source { (backend, client) } else { (client, backend) };
        reset(gone);
        let mut heard = Vec::new();
        assert_eq!(left.read_to_end(&mut heard).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(relay.ends(), ["Failed", "Reset"]);
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn a_reset_of_a_source_that_is_spliced_is_no_end() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let (message, mut heard) = (noise(64 << 10), vec![0; 64 << 10]);
    for _ in 0..30 {
        let (mut client, mut backend) = relay.pair();
        flow(&mut backend, &mut client, &relay);
        backend.write_all(&message).unwrap();
        client.read_exact(&mut heard).unwrap();
        reset(backend);
        assert_eq!(client.read(&mut [0; 5]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(relay.ends(), ["Failed", "Reset"]);
    }
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn what_a_full_target_leaves_comes_behind_what_it_took() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let (mut client, mut backend) = relay.pair();
    for from_backend in [true, false] {
        let (from, to) = if from_backend { (&mut backend, &mut client) } else { (&mut client, &mut backend) };
        socket2::SockRef::from(&*to).set_recv_buffer_size(50_000).unwrap();
        for _ in 0..5 {
            flow(from, to, &relay);
            let (before, bytes) = (relay.stats(), noise(12 << 20));
            std::thread::scope(|scope| {
                scope.spawn(|| from.write_all(&bytes).unwrap());
                let stats = relay.wait_for("the target is full", |stats| {
                    stats.sends_blocked > before.sends_blocked && stats.spliced_bytes > before.spliced_bytes
                });
                let held = stats.received_bytes - stats.sent_bytes;
                assert!(held <= STEP_BYTES, "{held} bytes are held");
                let mut heard = vec![0; bytes.len()];
                to.read_exact(&mut heard).unwrap();
                assert!(heard == bytes);
            });
        }
    }
    relay.server.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_reader_that_stops_in_a_flow_is_cut_and_its_writer_is_reset() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let limits = ConnLimits::default().write_grace(Duration::from_millis(500));
    let relay = Relay::with(|builder| builder.limits(limits));
    let (mut client, mut backend) = relay.pair();
    flow(&mut backend, &mut client, &relay);
    let block = noise(1 << 20);
    while backend.write_all(&block).is_ok() {}
    assert_eq!(relay.ends(), ["Reset", "Stalled"]);
    relay.server.stop(PATIENCE).unwrap();
}

#[test]
fn another_forward_within_a_flow_loses_nothing_and_sends_nothing_twice() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    for seed in seeds(4) {
        let relay = Relay::start();
        let ((first, id), (source, from)) = relay.named_pair();
        let ((mut second, to), _other) = relay.named_pair();
        let said = noise(24 << 20);
        let mut writer = source.try_clone().unwrap();
        let whole = said.clone();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            // A busy machine may move all there is before anybody looks: the last of it waits for the order.
            let (most, last) = whole.split_at(20 << 20);
            writer.write_all(most).unwrap();
            goes_on.recv().unwrap();
            writer.write_all(last).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let heard = reads(&first, Chance::new(seed));
        relay.wait_for("it is spliced", |stats| stats.spliced_bytes > 2 << 20);
        relay.server.handle().run_on(0, move |local| {
            local.commands().forward(from, to);
            go_on.send(()).unwrap();
        });
        let mut behind = Vec::new();
        second.read_to_end(&mut behind).unwrap();
        writer.join().unwrap();
        // The first target hears no more; its own end is what ends its reader.
        relay.server.handle().finish(id);
        let mut all = heard.join().unwrap();
        assert!(!behind.is_empty() && all.len() < said.len(), "{} and {}", all.len(), behind.len());
        all.extend_from_slice(&behind);
        assert!(all == said, "seed {seed}: {} bytes of {}", all.len(), said.len());
        relay.server.stop(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_protocol_that_takes_over_within_a_flow_is_offered_all_that_is_left() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let ((mut first, to), (source, from)) = relay.named_pair();
    let (_other, (_backend, another)) = relay.named_pair();
    let said = noise(24 << 20);
    let mut writer = source.try_clone().unwrap();
    let whole = said.clone();
    let writer = std::thread::spawn(move || writer.write_all(&whole).unwrap());
    let mut all = vec![0; 4 << 20];
    first.read_exact(&mut all).unwrap();
    relay.wait_for("it is spliced", |stats| stats.spliced_bytes > 0);
    // Somebody else is the source of the first target now.
    relay.server.handle().run_on(0, move |local| {
        local.commands().forward(another, to);
        local.commands().finish(to);
    });
    first.read_to_end(&mut all).unwrap();
    let at_first = all.len();
    while all.len() < said.len() {
        match relay.next() {
            News::Offered(bytes) => all.extend_from_slice(&bytes),
            News::Lost(reason) => panic!("{reason}"),
            _ => {}
        }
    }
    assert!(at_first < said.len() && all == said);
    writer.join().unwrap();
    drop((source, from));
    relay.server.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_flow_that_is_spliced_is_not_idle() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let ((mut client, _), (mut backend, id)) = relay.named_pair();
    flow(&mut backend, &mut client, &relay);
    let ask = || {
        relay.server.handle().tell(id, ());
        match relay.next() {
            News::MovedAt(at) => at.unwrap(),
            _ => panic!("nothing else happens"),
        }
    };
    // Time stands still within a turn, and what was done in it is counted behind it.
    let moved_at = || {
        let turns = relay.stats().turns;
        while relay.stats().turns < turns + 2 {
            ask();
        }
        (ask(), relay.stats())
    };
    let (message, mut heard) = (noise(64 << 10), vec![0; 64 << 10]);
    let mut spliced_whole = 0;
    for _ in 0..10_000 {
        let (before, counted) = moved_at();
        moved_at();
        backend.write_all(&message).unwrap();
        client.read_exact(&mut heard).unwrap();
        let (after, stats) = moved_at();
        assert!(after > before);
        spliced_whole += usize::from(stats.spliced_bytes - counted.spliced_bytes == 64 << 10);
        if spliced_whole == 3 {
            break;
        }
    }
    assert_eq!(spliced_whole, 3);
    relay.server.stop(Duration::ZERO).unwrap();
}

#[test]
fn urgent_data_within_a_flow_ends_neither_the_flow_nor_a_byte() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    for seed in seeds(3) {
        let relay = Relay::start();
        let (mut client, mut backend) = relay.pair();
        flow(&mut backend, &mut client, &relay);
        let heard = reads(&client, Chance::new(seed));
        let said = noise(4 << 20);
        let (part, rest) = said.split_at(3 << 20);
        backend.write_all(part).unwrap();
        socket2::SockRef::from(&backend).send_out_of_band(b"!").unwrap();
        backend.write_all(rest).unwrap();
        backend.shutdown(Shutdown::Write).unwrap();
        let heard = heard.join().unwrap();
        assert!(heard == said, "seed {seed}: {} bytes of {}", heard.len(), said.len());
        relay.server.stop(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_turn_moves_no_more_than_a_share_of_a_flow_and_others_are_served_in_between() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    let relay = Relay::start();
    let ((mut client, _), (mut backend, _)) = relay.named_pair();
    let (mut other, mut answers) = relay.pair();
    let before = relay.stats();
    let said = noise(1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                backend.write_all(&said).unwrap();
            }
            backend.shutdown(Shutdown::Write).unwrap();
        });
        let reader = scope.spawn(|| {
            let (mut room, mut sum) = (vec![0; 1 << 20], 0);
            while let bytes @ 1.. = client.read(&mut room).unwrap() {
                sum += bytes;
            }
            sum
        });
        while !reader.is_finished() {
            other.write_all(b"ping").unwrap();
            answers.read_exact(&mut [0; 4]).unwrap();
        }
        assert_eq!(reader.join().unwrap(), 100 << 20);
    });
    let stats = relay.stats().since(&before);
    assert!(stats.spliced_bytes > 0);
    // Two shares: one that was left from the turn before, and one for an event.
    assert!(stats.spliced_bytes <= 2 * stats.turns * STEP_BYTES, "{stats:?}");
    relay.server.stop(Duration::ZERO).unwrap();
}

#[test]
fn where_it_is_turned_off_nothing_is_spliced() {
    let relay = Relay::with(|builder| builder.splice(false));
    let (client, backend) = relay.pair();
    let said = noise(4 << 20);
    let (writer, reader) = (writes(&backend, said.clone(), Chance::new(1)), reads(&client, Chance::new(2)));
    assert!(reader.join().unwrap() == said);
    writer.join().unwrap();
    let stats = relay.server.stop(Duration::ZERO).unwrap().stats;
    assert_eq!((stats.spliced_bytes, stats.syscalls_splice, stats.sent_bytes), (0, 0, 4 << 20));
}

#[test]
fn a_worker_has_one_pipe_for_all_flows() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    alone("splicing::with_pipes_that_are_counted", "");
}

/// Pipes of this process; both ends of each.
fn pipe_ends() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_pipe = |path: std::path::PathBuf| path.to_string_lossy().starts_with("pipe:");
    links.filter(|link| std::fs::read_link(link.as_ref().unwrap().path()).is_ok_and(is_pipe)).count()
}

/// Run by `a_worker_has_one_pipe_for_all_flows`.
#[test]
#[ignore = "needs a process of its own"]
fn with_pipes_that_are_counted() {
    let before = pipe_ends();
    let relay = Relay::start();
    let mut pairs: Vec<_> = (0..5).map(|_| relay.pair()).collect();
    assert_eq!(pipe_ends(), before, "none before it is needed");
    for (client, backend) in &mut pairs {
        flow(backend, client, &relay);
        flow(client, backend, &relay);
        assert_eq!(pipe_ends(), before + 2);
    }
    // One that ends in the middle of a flow leaves nothing in it.
    fill(&mut pairs[0].1, &relay);
    let (client, backend) = pairs.swap_remove(0);
    reset(client);
    drop(backend);
    assert_eq!(relay.ends(), ["Failed", "Reset"]);
    let (client, backend) = &mut pairs[0];
    flow(backend, client, &relay);
    assert_eq!(pipe_ends(), before + 2);
    relay.server.stop(Duration::ZERO).unwrap();
    assert_eq!(pipe_ends(), before);
}

#[test]
fn a_flow_for_which_there_is_no_pipe_is_copied_until_there_is_one() {
    if !is_on_linux(NO_SPLICE) {
        return;
    }
    alone("splicing::with_no_descriptor_for_a_pipe", "ulimit -n 60;");
}

/// Run by `a_flow_for_which_there_is_no_pipe_is_copied_until_there_is_one` with 60 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_no_descriptor_for_a_pipe() {
    let relay = Relay::start();
    let (mut client, mut backend) = relay.pair();
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let (said, mut heard) = (noise(4 << 20), vec![0; 4 << 20]);
    let mut relays = || {
        std::thread::scope(|scope| {
            scope.spawn(|| backend.write_all(&said).unwrap());
            client.read_exact(&mut heard).unwrap();
        });
        assert!(heard == said);
        relay.stats().spliced_bytes
    };
    assert_eq!(relays(), 0);
    held.clear();
    let patience = std::time::Instant::now() + PATIENCE;
    while relays() == 0 {
        assert!(std::time::Instant::now() < patience, "it is not tried again");
    }
    relay.server.stop(Duration::ZERO).unwrap();
}
