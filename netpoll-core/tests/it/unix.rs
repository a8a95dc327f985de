//! Unix sockets: listening, connecting, and every way to end.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use netpoll_core::{
    Address, Builder, Commands, Conn, ConnLimits, ConnectOptions, Flow, Input, Lost, Protocol, Running,
    Runtime, Workers,
};

use crate::support::{Echo, is_on_linux};

const PATIENCE: Duration = Duration::from_secs(20);

/// An empty directory, gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("netpoll-it-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever is left of it goes with the machine.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut UnixStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn builder(workers: usize) -> Builder {
    Runtime::builder().workers(Workers::Count(workers)).pin(false)
}

fn echo(builder: Builder, path: &Path) -> Running {
    builder.listen(path, |_worker| |_peer| Echo).unwrap().start().unwrap()
}

#[test]
fn a_server_answers_at_a_path_and_its_file_goes_with_it() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    for workers in [1, 2] {
        let server = echo(builder(workers), &path);
        assert_eq!(server.local_addrs(), [Address::unix(&path).unwrap()]);
        assert_eq!(ask(&mut connect(&path), b"hello"), b"hello");
        server.stop(PATIENCE).unwrap();
        assert!(!path.exists());
    }
}

#[test]
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
fn a_server_answers_at_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("netpoll-it-{}", std::process::id());
    let listening = builder(2).listen(format!("unix:@{name}"), |_worker| |_peer| Echo).unwrap();
    let _server = listening.start().unwrap();
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    assert_eq!(ask(&mut UnixStream::connect_addr(&addr).unwrap(), b"hello"), b"hello");
}

/// Says which worker it lives on, and where it and its peer are.
struct Introduction;

impl Protocol for Introduction {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let (worker, peer, local) = (conn.worker(), conn.peer_addr(), conn.local_addr());
        conn.send(format!("{worker} {} {}", peer.unwrap(), local.unwrap()).as_bytes());
        Flow::Close
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

fn introduced(stream: &mut impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_workers_take_turns_at_a_path() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let listening = builder(2).listen(&*path, |_worker| |_peer| Introduction).unwrap();
    let _server = listening.start().unwrap();
    // Who is awake is faster, and on an idle machine that may be one of them for a while: nobody is left out.
    let mut peers = [0; 2];
    while peers.iter().any(|peers| *peers < 8) {
        let said = introduced(&mut connect(&path));
        peers[usize::from(said.starts_with('1'))] += 1;
        assert!(peers.iter().sum::<u32>() < 20_000, "{peers:?}");
    }
}

#[test]
fn a_connection_knows_where_both_of_its_ends_are() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let (sender, peers) = mpsc::channel();
    let protocols = move |_: &_| {
        let sender = sender.clone();
        move |peer: netpoll_core::Peer| {
            sender.send(peer.addr).unwrap();
            Introduction
        }
    };
    let listening = builder(1).listen(&*path, protocols.clone()).unwrap();
    let server = listening.listen("127.0.0.1:0", protocols).unwrap().start().unwrap();

    assert_eq!(introduced(&mut connect(&path)), format!("0 unix: unix:{}", path.display()));
    assert!(peers.recv().unwrap().as_unix().unwrap().is_unnamed());
    let mut stream = std::net::TcpStream::connect(&server.local_addrs()[1]).unwrap();
    let own = stream.local_addr().unwrap();
    assert_eq!(introduced(&mut stream), format!("0 {own} {}", server.local_addrs()[1]));
    assert_eq!(peers.recv().unwrap(), own);
}

#[test]
fn the_file_of_a_server_that_was_killed_is_replaced_and_that_of_a_live_one_is_not() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    drop(UnixListener::bind(&path).unwrap());

    let _server = echo(builder(2), &path);
    let second = builder(2).listen(&*path, |_worker| |_peer| Echo).unwrap().start();
    let error = second.err().expect("somebody listens there");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(ask(&mut connect(&path), b"hello"), b"hello");
}

#[test]
fn a_path_that_is_shared_is_taken_over_and_both_end_without_harm() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let older = echo(builder(1), &path);
    let mut early = connect(&path);
    ask(&mut early, b"early");
    let newer = echo(builder(1).share_port(true), &path);
    let mut late = connect(&path);
    ask(&mut late, b"late");

    assert_eq!(ask(&mut early, b"still"), b"still");
    drop(early);
    assert_eq!(older.stop(PATIENCE).unwrap().stats.accepted, 1);
    assert_eq!(ask(&mut connect(&path), b"hello"), b"hello");
    drop(late);
    assert_eq!(newer.stop(PATIENCE).unwrap().stats.accepted, 2);
    assert!(!path.exists());
}

#[test]
fn a_path_as_long_as_any_may_be_is_listened_on_and_taken_over() {
    if !is_on_linux("a path that is taken over needs room for a name beside it") {
        return;
    }
    let folder = Folder::new();
    for bytes in [90, 100, 107] {
        for depth in [0, 1] {
            // Once most of it is the file's name, and once that of its directory.
            let mut path = folder.0.clone();
            let rest = bytes - path.as_os_str().len() - 1;
            if depth == 1 {
                path.push("d".repeat(rest - 2));
                std::fs::create_dir(&path).unwrap();
            }
            path.push("x".repeat(if depth == 1 { 1 } else { rest }));
            assert_eq!(path.as_os_str().len(), bytes);
            let older = echo(builder(1), &path);
            let newer = echo(builder(1).share_port(true), &path);
            assert_eq!(ask(&mut connect(&path), b"hello"), b"hello");
            assert_eq!(older.stop(PATIENCE).unwrap().stats.accepted, 0);
            assert_eq!(newer.stop(PATIENCE).unwrap().stats.accepted, 1);
            assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing is left");
            if depth == 1 {
                std::fs::remove_dir(path.parent().unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn of_servers_that_start_at_one_moment_on_a_stale_path_one_serves_it() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    // On rings those that come too late wait for half a second.
    let rounds =
        if std::env::var("NETPOLL_BACKEND").is_ok_and(|backend| backend == "uring") { 10 } else { 1500 };
    for round in 0..rounds {
        drop(UnixListener::bind(&path).unwrap());
        let begin = std::sync::Barrier::new(4);
        let servers: Vec<Running> = std::thread::scope(|scope| {
            let starting = [(); 4].map(|()| {
                let listening = builder(1).listen(&*path, |_worker| |_peer| Echo).unwrap();
                scope.spawn(|| {
                    begin.wait();
                    listening.start()
                })
            });
            let started = starting.map(|starting| starting.join().unwrap());
            started.into_iter().filter_map(Result::ok).collect()
        });
        assert_eq!(servers.len(), 1, "round {round}");
        assert_eq!(ask(&mut connect(&path), b"hello"), b"hello", "round {round}");
        // The others have looked whether it is there.
        drop(servers);
        assert!(!path.exists());
    }
}

#[test]
fn a_directory_that_somebody_else_keeps_locked_delays_a_start_and_does_not_prevent_it() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let locked = std::fs::File::open(&folder.0).unwrap();
    #[expect(unsafe_code, reason = "std has a safe form from Rust 1.89 on")]
    // SAFETY: flock(2) takes two integers, and `locked` has the descriptor open.
    let returned = unsafe { libc::flock(locked.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(returned, 0);
    let server = echo(builder(1), &path);
    assert_eq!(ask(&mut connect(&path), b"hello"), b"hello");
    server.stop(PATIENCE).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_file_has_the_permissions_of_the_setting() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let _server = echo(builder(1).socket_mode(0o666), &path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
}

#[test]
fn permissions_of_an_abstract_name_are_an_error_and_not_forgotten() {
    let name = format!("unix:@netpoll-permissions-{}", std::process::id());
    let builder = builder(1).socket_mode(0o600).listen(&name, |_worker| |_peer| Echo).unwrap();
    let error = builder.start().err().expect("it cannot be kept from anybody");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("socket_mode"), "{error}");
}

#[test]
fn a_start_that_fails_leaves_no_file() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let fails = |_: &_| Err::<fn(netpoll_core::Peer) -> Echo, _>(std::io::Error::other("no"));
    builder(1).try_listen(&*path, fails).unwrap().start().err().expect("no factory");
    assert!(!path.exists());
}

/// An echo that keeps its worker busy when asked to "hold".
#[derive(Clone)]
struct Holding {
    held: mpsc::Sender<()>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Protocol for Holding {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes() == b"hold" {
            self.held.send(()).unwrap();
            self.release.lock().unwrap().recv().unwrap();
        }
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_drain_of_two_workers_answers_whoever_has_connected() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    for _ in 0..20 {
        let server = echo(builder(2), &path);
        let mut peers: Vec<UnixStream> = (0..50).map(|_| connect(&path)).collect();
        for peer in &mut peers {
            peer.write_all(b"hello").unwrap();
        }
        server.handle().drain(PATIENCE);
        for peer in &mut peers {
            peer.read_exact(&mut [0; 5]).unwrap();
        }
        drop(peers);
        assert_eq!(server.wait().unwrap().stats.accepted, 50);
    }
}

#[test]
fn running_out_of_descriptors_at_a_path_sheds_and_recovers() {
    crate::hardship::alone("unix::with_few_descriptors", "ulimit -n 50;");
}

/// Run by `running_out_of_descriptors_at_a_path_sheds_and_recovers` with 50 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_few_descriptors() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let server = echo(builder(2), &path);
    let mut first = connect(&path);
    ask(&mut first, b"a");
    // Client and server share the limit: the crowd takes what there is before it connects.
    let (domain, kind) = (socket2::Domain::UNIX, socket2::Type::STREAM);
    let mut crowd: Vec<_> = std::iter::from_fn(|| socket2::Socket::new(domain, kind, None).ok()).collect();
    for socket in &crowd {
        socket.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    }
    let mut wait = 0;
    while server.handle().stats().descriptors_exhausted == 0 {
        std::thread::yield_now();
        wait += 1;
        assert!(wait < 100_000_000, "the server never ran out");
    }
    ask(&mut first, b"b");

    crowd.clear();
    let patience = Instant::now() + PATIENCE;
    let asked = |mut late: UnixStream| late.write_all(b"c").and_then(|()| late.read_exact(&mut [0]));
    while UnixStream::connect(&path).and_then(asked).is_err() {
        assert!(Instant::now() < patience, "nobody is served after the shortage");
        std::thread::yield_now();
    }
    let exhausted = server.handle().stats().descriptors_exhausted;
    assert!(exhausted < 200, "it pauses instead of spinning: {exhausted}");
}

#[test]
fn a_drain_answers_who_stands_in_the_queue_and_refuses_who_comes_later() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let ((held_sender, held), (release, receiver)) = (mpsc::channel(), mpsc::channel());
    let holding = Holding { held: held_sender, release: Arc::new(Mutex::new(receiver)) };
    let protocols = move |_: &_| {
        let holding = holding.clone();
        move |_peer| holding.clone()
    };
    let server = builder(1).listen(&*path, protocols).unwrap().start().unwrap();
    let mut busy = connect(&path);
    busy.write_all(b"hold").unwrap();
    held.recv().unwrap();
    let mut queued: Vec<UnixStream> = (0..100).map(|_| connect(&path)).collect();
    for stream in &mut queued {
        stream.write_all(b"hello").unwrap();
    }
    server.handle().drain(PATIENCE);
    release.send(()).unwrap();

    for stream in &mut queued {
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop((busy, queued));
    let report = server.wait().unwrap();
    assert_eq!((report.stats.accepted, report.cut), (101, 0));
}

/// Answers the first byte with so many, and reports its end.
#[derive(Clone)]
struct Large(usize, Flow, mpsc::Sender<Lost>);

impl Protocol for Large {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(&vec![b'x'; self.0]);
        self.1
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        // The test may have ended before the server.
        let _ = self.2.send(reason);
    }
}

fn large(limits: ConnLimits, flow: Flow, path: &Path) -> (Running, mpsc::Receiver<Lost>) {
    let (sender, lost) = mpsc::channel();
    let protocols = move |_: &_| {
        let large = Large(4 << 20, flow, sender.clone());
        move |_peer| large.clone()
    };
    (builder(1).limits(limits).listen(path, protocols).unwrap().start().unwrap(), lost)
}

#[test]
fn a_large_answer_arrives_whole_in_front_of_a_close() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let (_server, lost) = large(ConnLimits::default(), Flow::Close, &path);
    let mut stream = connect(&path);
    stream.write_all(b"?").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 4 << 20);
    drop(stream);
    assert!(matches!(lost.recv_timeout(PATIENCE).unwrap(), Lost::Closed));
}

#[test]
fn a_peer_that_reads_nothing_is_cut_once_it_can_be_told_from_one_that_reads_at_the_least_rate() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    // In one grace it has to read 16 KiB, which is not seen before it has read a piece of up to 64.
    let grace = Duration::from_millis(50);
    let limits = ConnLimits::default().write_grace(grace).write_rate_min(20 * 16 * 1024);
    let (server, lost) = large(limits, Flow::Continue, &path);
    let mut stream = connect(&path);
    let began = Instant::now();
    stream.write_all(b"?").unwrap();

    assert!(matches!(lost.recv_timeout(PATIENCE).unwrap(), Lost::Stalled));
    assert!(began.elapsed() >= 4 * grace, "{:?}", began.elapsed());
    assert_eq!(server.stop(PATIENCE).unwrap().stats.stalled, 1);
}

#[test]
fn peers_at_a_path_have_no_address_that_limits_them() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let limits = ConnLimits::default().connections_per_address_max(Some(1));
    let server = echo(builder(1).limits(limits), &path);
    let mut peers: Vec<UnixStream> = (0..5).map(|_| connect(&path)).collect();
    for peer in &mut peers {
        assert_eq!(ask(peer, b"hello"), b"hello");
    }
    drop(peers);
    let stats = server.stop(PATIENCE).unwrap().stats;
    assert_eq!((stats.accepted, stats.shed_by_address), (5, 0));
}

/// Says hello, and reports what becomes of it.
struct Client(mpsc::Sender<String>);

impl Protocol for Client {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.send(format!("opened {}", conn.peer_addr().unwrap())).unwrap();
        conn.send(b"hello");
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.send(String::from_utf8_lossy(input.bytes()).into_owned()).unwrap();
        input.advance_all();
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.0.send(format!("{reason:?}"));
    }
}

#[test]
fn a_client_connects_to_a_path() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let server = echo(builder(1), &path);
    let (sender, said) = mpsc::channel();
    server.handle().connect(0, &*path, ConnectOptions::default(), Client(sender));
    let said: Vec<String> = (0..3).map(|_| said.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(said, [format!("opened unix:{}", path.display()), "hello".to_owned(), "Closed".to_owned()]);
}

#[test]
fn a_client_hears_that_nobody_listens_at_a_path() {
    let folder = Folder::new();
    let clients = builder(1).start().unwrap();
    let (sender, said) = mpsc::channel();
    let connect = |path: PathBuf| {
        clients.handle().connect(0, path, ConnectOptions::default(), Client(sender.clone()));
        said.recv_timeout(PATIENCE).unwrap()
    };
    assert!(connect(folder.path("nothing")).contains("NotFound"));
    drop(UnixListener::bind(folder.path("stale")).unwrap());
    assert!(connect(folder.path("stale")).contains("ConnectionRefused"));
    assert!(connect(PathBuf::new()).contains("InvalidInput"));
}

#[test]
fn a_client_waits_for_room_in_the_queue_of_a_listener_as_long_as_it_may() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _first = connect(&path);

    let clients = builder(1).start().unwrap();
    let (sender, said) = mpsc::channel();
    let patience = ConnectOptions::default().timeout(Duration::from_millis(50));
    clients.handle().connect(0, &*path, patience, Client(sender.clone()));
    assert!(said.recv_timeout(PATIENCE).unwrap().contains("TimedOut"), "the queue is full");

    clients.handle().connect(0, &*path, ConnectOptions::default().timeout(PATIENCE), Client(sender));
    listener.accept().unwrap();
    assert!(said.recv_timeout(PATIENCE).unwrap().starts_with("opened"), "there is room");
}
