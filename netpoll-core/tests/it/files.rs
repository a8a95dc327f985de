//! Files on the fast lane, on real sockets and on the simulated network.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnLimits, FileRange, Flow, Input, Lost, Protocol, Running, Runtime, Stats, Workers,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// What one connection may send of files in one turn.
const SHARE_BYTES: usize = 512 * 1024;

/// A named file that is gone when dropped.
struct TempFile {
    path: PathBuf,
    file: Arc<File>,
}

impl TempFile {
    /// A file of so many bytes, which takes no room on the disk.
    fn sparse(name: &str, length: u64) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        Self { path, file: Arc::new(file) }
    }

    fn with(name: &str, bytes: &[u8]) -> Self {
        let file = Self::sparse(name, 0);
        file.file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn range(&self, length: u64) -> FileRange {
        FileRange::new(Arc::clone(&self.file), 0, length)
    }

    /// Owners of the open file beside the test itself.
    fn owners(&self) -> usize {
        Arc::strong_count(&self.file) - 1
    }

    /// Descriptors of this process that lead to it.
    fn descriptors(&self) -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path == self.path)).count()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Answers each letter: `f` with the file between two marks, `q` too and then ends, `r` with the file opened anew,
/// and anything else with itself.
#[derive(Clone)]
struct Sender {
    range: FileRange,
    path: PathBuf,
    says: mpsc::Sender<String>,
}

impl Sender {
    fn new(file: &TempFile, length: u64) -> (Self, mpsc::Receiver<String>) {
        let (says, said) = mpsc::channel();
        (Self { range: file.range(length), path: file.path.clone(), says }, said)
    }
}

impl Protocol for Sender {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(letter) = input.bytes().first().copied() {
            if conn.is_backed_up() {
                return Flow::Yield;
            }
            input.advance(1);
            match letter {
                b'f' | b'q' => {
                    conn.send(b"<");
                    conn.send_file(self.range.clone());
                    conn.send(b">");
                }
                b'r' => {
                    let opened = File::open(&self.path).unwrap();
                    conn.send_file(FileRange::new(opened, 0, self.range.length()));
                }
                other => conn.send(&[other]),
            }
            if letter == b'q' {
                return Flow::Linger;
            }
        }
        Flow::Continue
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        // The test may have ended before the server.
        let _ = self.says.send(format!("drained, {} left", conn.queued_bytes() / 1024));
        Flow::Continue
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.says.send(format!("{reason:?}"));
    }
}

fn serve(sender: &Sender) -> Running {
    let sender = sender.clone();
    Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let sender = sender.clone();
            move |_peer| sender.clone()
        })
        .unwrap()
        .start()
        .unwrap()
}

fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Waits for counters that are published once a turn.
fn stats_when(server: &Running, enough: impl Fn(&Stats) -> bool) -> Stats {
    let begun = Instant::now();
    loop {
        let stats = server.handle().stats();
        if enough(&stats) {
            return stats;
        }
        assert!(begun.elapsed() < PATIENCE, "{stats:?}");
        std::thread::yield_now();
    }
}

fn simulated(sender: &Sender, options: Options) -> (Sim, PeerId) {
    let mut sim = Sim::new(options);
    let sender = sender.clone();
    let listener = sim.listen(move |_peer| sender.clone());
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer)
}

/// How a connection ended, whatever it said before.
fn end(said: &mpsc::Receiver<String>) -> String {
    loop {
        let word = said.recv_timeout(PATIENCE).unwrap();
        if !word.starts_with("drained") {
            return word;
        }
    }
}

/// At low water: how much a socket takes at once is its own affair.
fn assert_has_drained(word: &str) {
    let kib: usize =
        word.strip_prefix("drained, ").and_then(|rest| rest.strip_suffix(" left")).unwrap().parse().unwrap();
    assert!(kib <= ConnLimits::default().write_low_bytes / 1024, "{word}");
}

/// What is said in answer to `f`.
fn framed(bytes: &[u8]) -> Vec<u8> {
    [b"<", bytes, b">"].concat()
}

#[test]
fn a_file_arrives_whole_between_the_bytes_queued_before_and_behind_it() {
    let bytes = noise(3 << 20);
    let file = TempFile::with("whole", &bytes);
    let (sender, said) = Sender::new(&file, bytes.len() as u64);
    let expected = [framed(&bytes), b"x".to_vec(), framed(&bytes)].concat();

    let server = serve(&sender);
    let mut stream = connect(&server);
    stream.write_all(b"fxf").unwrap();
    assert!(read(&mut stream, expected.len()) == expected);
    assert_has_drained(&said.recv_timeout(PATIENCE).unwrap());
    let stats = stats_when(&server, |stats| stats.sent_bytes == expected.len() as u64);
    assert!(stats.syscalls_sendfile >= 12, "at most 512 KiB at a time: {stats:?}");
    assert!(stats.copied_bytes < 16, "no byte of it went through us: {stats:?}");
    assert!(stats.pool_misses <= 4, "and none of it took memory: {stats:?}");

    for faults in [Faults::none(), Faults::stormy()] {
        let mut options = Options::default();
        (options.seed, options.faults) = (1, faults);
        let (mut sim, peer) = simulated(&sender, options);
        sim.send(peer, b"fxf");
        sim.run();
        assert!(sim.take_received(peer) == expected);
        assert_eq!(sim.stats().sent_bytes, expected.len() as u64);
        assert!(sim.stats().syscalls_sendfile >= 12);
        assert_eq!((sim.open(), sim.blocks_in_use()), (1, 0));
    }
}

#[test]
fn one_turn_sends_a_share_of_a_file_and_serves_the_others() {
    let file = TempFile::sparse("share", 3 << 20);
    let (sender, _said) = Sender::new(&file, 3 << 20);
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(move |_peer| sender.clone());
    let (large, quiet) = (sim.connect(listener), sim.connect(listener));
    sim.run();
    sim.send(large, b"f");
    sim.turn();
    for turn in 1..6 {
        assert_eq!(
            sim.take_received(large).len().next_multiple_of(1024),
            SHARE_BYTES.next_multiple_of(1024) + usize::from(turn == 1) * 1024
        );
        sim.send(quiet, b"x");
        sim.turn();
        assert_eq!(sim.take_received(quiet), b"x", "in turn {turn}");
    }
    assert_eq!(sim.take_received(large).len(), SHARE_BYTES + 1, "the last share, and what stood behind it");
}

#[test]
fn a_large_file_holds_input_back_until_it_has_left() {
    let file = TempFile::sparse("held", 1 << 20);
    let (sender, said) = Sender::new(&file, 1 << 20);
    let (mut sim, peer) = simulated(&sender, Options::default());
    sim.stop_reading(peer);
    sim.send(peer, b"f");
    sim.run();
    let before = sim.stats().received_bytes;
    sim.send(peer, b"y");
    sim.run();
    assert_eq!((sim.stats().received_bytes - before, sim.stats().backed_up), (0, 1));
    sim.start_reading(peer);
    sim.run();
    assert_eq!(sim.take_received(peer).len(), (1 << 20) + 3);
    assert_has_drained(&said.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_reader_that_stops_costs_a_few_blocks_whatever_the_size_of_the_file() {
    let file = TempFile::sparse("slow", 1 << 40);
    let (sender, said) = Sender::new(&file, 1 << 40);
    let (mut sim, peer) = simulated(&sender, Options::default());
    sim.stop_reading(peer);
    sim.send(peer, b"f");
    sim.run();
    assert!(sim.blocks_in_use() <= 1 + SHARE_BYTES as u64 / (64 << 10) + 3, "{}", sim.blocks_in_use());
    sim.advance(Duration::from_secs(25));
    assert_eq!(end(&said), "Stalled");
    assert!(sim.is_reset(peer));
    assert_eq!((sim.blocks_in_use(), file.owners()), (0, 2), "only those that make protocols hold it");
}

#[test]
fn others_are_served_while_a_terabyte_waits_for_its_reader() {
    let file = TempFile::sparse("terabyte", 1 << 40);
    let (sender, said) = Sender::new(&file, 1 << 40);
    let server = serve(&sender);
    let (mut slow, mut quick) = (connect(&server), connect(&server));
    slow.write_all(b"f").unwrap();
    assert_eq!(read(&mut slow, 2), b"<\0");
    let blocked = stats_when(&server, |stats| stats.sends_blocked > 0);
    for _ in 0..100 {
        quick.write_all(b"x").unwrap();
        assert_eq!(read(&mut quick, 1), b"x");
    }
    let stats = server.handle().stats().since(&blocked);
    assert!(stats.syscalls_sendfile < 10, "it sleeps until there is room: {stats:?}");

    // A quick reader of the same file does not starve the other connection either.
    let mut reader = slow.try_clone().unwrap();
    let flood =
        std::thread::spawn(move || while reader.read(&mut [0; 1 << 16]).is_ok_and(|bytes| bytes > 0) {});
    let from = server.handle().stats().sent_bytes;
    for _ in 0..100 {
        quick.write_all(b"x").unwrap();
        assert_eq!(read(&mut quick, 1), b"x");
    }
    stats_when(&server, |stats| stats.sent_bytes > from + (8 << 20));
    // It goes away in the middle.
    slow.shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
    drop(slow);
    assert!(end(&said).starts_with("Failed"));
    stats_when(&server, |stats| stats.open() == 1);
}

#[test]
fn a_file_that_was_cut_short_resets_the_connection() {
    let file = TempFile::sparse("short", 1 << 20);
    let promised = (1 << 20) + 1;
    let (sender, said) = Sender::new(&file, promised);

    let server = serve(&sender);
    let mut stream = connect(&server);
    stream.write_all(b"fx").unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(bytes.len() as u64 <= promised);
    assert!(end(&said).starts_with("FileFailed(Custom { kind: UnexpectedEof"));
    assert_eq!(stats_when(&server, |stats| stats.open() == 0).failed, 1);

    for faults in [Faults::none(), Faults::stormy()] {
        let mut options = Options::default();
        options.faults = faults;
        let (mut sim, peer) = simulated(&sender, options);
        sim.send(peer, b"fx");
        sim.run();
        assert!(sim.is_reset(peer));
        assert!(end(&said).starts_with("FileFailed(Custom { kind: UnexpectedEof"));
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().failed), (0, 0, 1));
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_resets_the_connection() {
    let file = TempFile::sparse("shrinks", 1 << 30);
    let (sender, said) = Sender::new(&file, 1 << 30);
    let server = serve(&sender);
    let mut stream = connect(&server);
    stream.write_all(b"f").unwrap();
    read(&mut stream, 1000);
    file.file.set_len(1000).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(end(&said).starts_with("FileFailed"));
}

#[test]
fn a_peer_that_resets_in_the_middle_of_a_file_leaves_no_descriptor_behind() {
    let file = TempFile::sparse("descriptors", 1 << 30);
    let (sender, said) = Sender::new(&file, 1 << 30);
    let server = serve(&sender);
    for _ in 0..20 {
        let mut stream = connect(&server);
        stream.write_all(b"r").unwrap();
        read(&mut stream, 100_000);
        assert_eq!(file.descriptors(), 2, "the test's own, and the one that is being sent");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert!(end(&said).starts_with("Failed"));
    }
    stats_when(&server, |stats| stats.open() == 0);
    assert_eq!(file.descriptors(), 1);

    let mut options = Options::default();
    options.faults.partial_sends = 1000;
    let (mut sim, peer) = simulated(&sender, options);
    sim.send(peer, b"r");
    sim.turn();
    assert_eq!(file.descriptors(), 2);
    sim.reset(peer);
    sim.run();
    assert_eq!((file.descriptors(), sim.blocks_in_use()), (1, 0));
}

#[test]
fn the_end_comes_behind_the_file() {
    let bytes = noise(2 << 20);
    let file = TempFile::with("end", &bytes);
    let (sender, said) = Sender::new(&file, bytes.len() as u64);
    let server = serve(&sender);
    let mut stream = connect(&server);
    stream.write_all(b"q").unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == framed(&bytes));
    drop(stream);
    assert_eq!(end(&said), "Closed");
}

#[test]
fn a_drain_lets_a_file_leave_and_cuts_it_at_the_deadline() {
    let file = TempFile::sparse("drain", 2 << 20);
    let (sender, said) = Sender::new(&file, 2 << 20);
    let server = serve(&sender);
    let mut stream = connect(&server);
    stream.write_all(b"f").unwrap();
    read(&mut stream, 1);
    server.handle().drain(PATIENCE);
    read(&mut stream, (2 << 20) + 1);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.stop(PATIENCE).unwrap().cut, 0);
    assert_eq!(end(&said), "Closed");

    let (mut sim, peer) = simulated(&sender, Options::default());
    sim.stop_reading(peer);
    sim.send(peer, b"f");
    sim.run();
    sim.begin_drain(Duration::from_secs(1));
    sim.advance(Duration::from_millis(1100));
    assert_eq!(end(&said), "Cut");
    assert!(sim.is_finished() && sim.is_reset(peer));
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn a_file_below_high_water_does_not_hold_input_back() {
    let file = TempFile::sparse("small", 100_000);
    let (sender, said) = Sender::new(&file, 100_000);
    let mut options = Options::default();
    options.limits = ConnLimits::default().write_high_bytes(200_000);
    let (mut sim, peer) = simulated(&sender, options);
    sim.send(peer, b"fx");
    sim.turn();
    assert_eq!(sim.take_received(peer).len(), 100_003);
    assert!(said.try_recv().is_err(), "nothing drained");
}

/// The signals that a worker holds back, and those that a program started in one of its callbacks does.
fn blocked_in_a_worker() -> (u64, u64) {
    let (tell, told) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let child = Command::new("cat").arg("/proc/self/status").output().unwrap();
            let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            tell.send((own, String::from_utf8(child.stdout).unwrap())).unwrap();
            |_peer| crate::support::Echo
        })
        .unwrap()
        .start()
        .unwrap();
    let blocked = |status: String| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    let (own, childs) = told.recv().unwrap();
    drop(server);
    (blocked(own), blocked(childs))
}

#[test]
fn a_program_started_in_a_callback_inherits_no_blocked_signal() {
    assert_eq!(blocked_in_a_worker(), (0, 0), "Rust programs ignore SIGPIPE already");
}

#[test]
fn where_a_broken_pipe_is_deadly_a_callback_blocks_no_signal_and_a_peer_that_goes_kills_nobody() {
    crate::hardship::alone("files::where_a_broken_pipe_is_deadly", "");
}

/// Run by `where_a_broken_pipe_is_deadly_a_callback_blocks_no_signal_and_a_peer_that_goes_kills_nobody`.
#[test]
#[ignore = "needs a process of its own"]
fn where_a_broken_pipe_is_deadly() {
    #[expect(unsafe_code, reason = "signal(2) has no safe form")]
    // SAFETY: signal(2) takes a number and this constant, no pointer.
    let was = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_ne!(was, libc::SIG_ERR);
    assert_eq!(blocked_in_a_worker(), (0, 0), "what is started there inherits it");
    let file = TempFile::sparse("to-who-is-gone", 1 << 20);
    let (tell, told) = mpsc::channel();
    let (told, range) = (Arc::new(std::sync::Mutex::new(Some(told))), file.range(1 << 20));
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let (told, range) = (Arc::clone(&told), range.clone());
            move |_peer| Late { gone: told.lock().unwrap().take().unwrap(), range: range.clone() }
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = connect(&server);
    client.write_all(b"?").unwrap();
    client.peek(&mut [0]).unwrap();
    client.write_all(b"!").unwrap();
    // Its end, and then a reset: it has not read the answer. To such a peer the kernel says EPIPE at the first send.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    drop(client);
    tell.send(()).unwrap();
    stats_when(&server, |stats| stats.accepted == 1 && stats.open() == 0);
}

/// Answers a question at once, and what follows with a file when its peer is gone.
struct Late {
    gone: mpsc::Receiver<()>,
    range: FileRange,
}

impl Protocol for Late {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes();
        input.advance_all();
        if bytes == b"?" {
            conn.send(b"answer");
        } else {
            self.gone.recv().unwrap();
            conn.send_file(self.range.clone());
        }
        Flow::Continue
    }
}

/// A program whose environment is long, so that `/proc` has a file of several pieces that cannot be spliced.
struct LongEnvironment(std::process::Child);

impl LongEnvironment {
    fn new() -> Self {
        let mut program = Command::new("cat");
        program.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in ["A", "B"] {
            program.env(name, name.repeat(100_000));
        }
        program.env("PATH", std::env::var_os("PATH").unwrap());
        let mut child = program.spawn().unwrap();
        // Once it answers it has an environment; `spawn` may return a moment earlier.
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/environ", self.0.id()).into()
    }
}

impl Drop for LongEnvironment {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_file_system_without_sendfile_is_read_in_pieces() {
    let program = LongEnvironment::new();
    let bytes = std::fs::read(program.path()).unwrap();
    assert!(bytes.len() > 200_000);
    let (says, said) = mpsc::channel();
    let sender = |length| Sender {
        range: FileRange::new(File::open(program.path()).unwrap(), 0, length),
        path: program.path(),
        says: says.clone(),
    };

    let server = serve(&sender(bytes.len() as u64));
    let mut stream = connect(&server);
    stream.write_all(b"fx").unwrap();
    let expected = [framed(&bytes), b"x".to_vec()].concat();
    assert!(read(&mut stream, expected.len()) == expected);
    let stats = stats_when(&server, |stats| stats.sent_bytes == expected.len() as u64);
    assert!(stats.pool_misses <= 3, "one block at a time: {stats:?}");

    let server = serve(&sender(bytes.len() as u64 + 1));
    let mut stream = connect(&server);
    stream.write_all(b"f").unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(end(&said).starts_with("FileFailed"));
}

/// Answers each letter with so many pieces that are linked, not copied, and in upper case with the file behind them.
struct Linker {
    pieces: usize,
    range: FileRange,
}

/// Linked above 4 KiB.
static PIECE: [u8; 5000] = [b'p'; 5000];

impl Protocol for Linker {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let with_file = input.bytes() == b"F";
        input.advance_all();
        for nth in 0..self.pieces {
            // Each begins with its number, so that none is taken for another.
            let mut piece = PIECE.to_vec();
            piece[0] = nth as u8;
            conn.send_shared(piece.into());
        }
        if with_file {
            conn.send_file(self.range.clone());
        }
        conn.send(b".");
        Flow::Continue
    }
}

#[test]
fn as_many_pieces_as_one_system_call_takes_and_more_arrive_in_order_with_a_file_right_behind_them() {
    let bytes = noise(10_000);
    let file = TempFile::with("behind-pieces", &bytes);
    // A call takes 64.
    for pieces in [1, 63, 64, 65, 127, 128, 129, 200] {
        let range = file.range(bytes.len() as u64);
        let server = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| {
                let range = range.clone();
                move |_peer| Linker { pieces, range: range.clone() }
            })
            .unwrap()
            .start()
            .unwrap();
        let mut client = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut expected = Vec::new();
        for nth in 0..pieces {
            expected.push(nth as u8);
            expected.extend(&PIECE[1..]);
        }
        for letter in [b"f", b"F"] {
            client.write_all(letter).unwrap();
            let file: &[u8] = if letter == b"F" { &bytes } else { b"" };
            let due = [&expected[..], file, b"."].concat();
            let mut back = vec![0; due.len()];
            client.read_exact(&mut back).unwrap();
            assert!(back == due, "{pieces} pieces, {}", letter[0] as char);
        }
        drop(client);
        let stats = server.stop(PATIENCE).unwrap().stats;
        let least = 2 * (pieces as u64 + 1).div_ceil(64);
        assert!(stats.syscalls_send >= least, "{} sends of {pieces} pieces", stats.syscalls_send);
    }
}
