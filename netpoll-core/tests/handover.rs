//! A process takes over from the one before it. Both ends are runtimes of this process, or one of them is a script that ends, lies or waits.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use netpoll_core::{
    Address, Builder, Commands, Conn, Datagram, DatagramProtocol, DatagramSocket, Flow, Handover, Input,
    ListenFd, Lost, Protocol, Report, Running, Runtime, ServiceManager, Stage, WorkerInfo, Workers,
};
use socket2::{MsgHdr, SockRef};

const PATIENCE: Duration = Duration::from_secs(60);

/// An empty directory, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("netpoll-handover-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("handover.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Answers each byte with its name.
#[derive(Clone, Copy)]
struct Named(u8);

impl Protocol for Named {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        (0..input.len()).for_each(|_| conn.send(&[self.0]));
        input.advance_all();
        Flow::Continue
    }
}

impl DatagramProtocol for Named {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        socket.send(datagram.path(), &[self.0]);
    }
}

fn builder(workers: usize, path: &Path) -> Builder {
    Runtime::builder().workers(Workers::Count(workers)).pin(false).handover(Handover::at(path))
}

fn serving(name: u8, workers: usize, path: &Path, addr: impl Into<netpoll_core::Target>) -> Running {
    let builder = builder(workers, path).listen(addr, move |_worker| move |_peer| Named(name)).unwrap();
    builder.start().unwrap()
}

fn addr(of: &Running) -> SocketAddr {
    of.local_addrs()[0].as_socket_addr().unwrap()
}

fn client(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn asked(stream: &mut (impl Read + Write)) -> u8 {
    let mut answer = [0];
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

/// Waits for the end of a runtime, elsewhere.
fn ending(running: Running) -> JoinHandle<Report> {
    std::thread::spawn(move || running.wait().unwrap())
}

/// It serves, alone and all of it: so many newcomers in a row are its own.
fn serves_alone(name: u8, addr: SocketAddr) {
    for _ in 0..20 {
        assert_eq!(asked(&mut client(addr)) as char, name as char);
    }
}

#[test]
fn a_process_that_follows_serves_the_same_sockets_whatever_the_numbers_of_workers_and_the_other_one_drains() {
    for (before, after) in [(1, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let folder = Folder::new();
        let old = serving(b'1', before, &folder.socket(), "127.0.0.1:0");
        assert!(!old.took_over());
        let at = addr(&old);
        let mut kept = client(at);
        assert_eq!(asked(&mut kept), b'1');
        let (handle, old) = (old.handle().clone(), ending(old));

        let new = serving(b'2', after, &folder.socket(), "127.0.0.1:0");
        assert!(new.took_over());
        assert_eq!(addr(&new), at, "what was asked for with port 0 is found by those words");
        // Of a connection that cannot move what is under way is still answered.
        assert_eq!(asked(&mut kept), b'1');
        drop(kept);
        let report = old.join().unwrap();
        assert!(report.handed_over && report.to_string().ends_with("its listeners were handed over"));
        assert!(handle.is_handed_over() && !new.handle().is_handed_over());
        serves_alone(b'2', at);
        new.stop(PATIENCE).unwrap();
        assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(!folder.socket().exists());
    }
}

/// Holds its worker up until it is told to go on.
struct Stuck(Arc<Barrier>);

impl Protocol for Stuck {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.0.wait();
        self.0.wait();
        Flow::Close
    }
}

#[test]
fn who_stands_in_a_queue_that_nobody_has_accepted_from_is_served_by_the_one_that_follows() {
    let folder = Folder::new();
    let barrier = Arc::new(Barrier::new(2));
    let held = Arc::clone(&barrier);
    let old = builder(1, &folder.socket())
        .listen("127.0.0.1:0", move |_worker| {
            let held = Arc::clone(&held);
            move |_peer| Stuck(Arc::clone(&held))
        })
        .unwrap()
        .start()
        .unwrap();
    let at = addr(&old);
    let mut first = client(at);
    first.write_all(b"?").unwrap();
    barrier.wait();
    let mut queued: Vec<_> = (0..50).map(|_| client(at)).collect();
    let new = serving(b'2', 3, &folder.socket(), "127.0.0.1:0");
    for client in &mut queued {
        assert_eq!(asked(client), b'2');
    }
    barrier.wait();
    drop(first);
    assert!(old.wait().unwrap().handed_over);
    drop(new);
}

#[test]
fn one_after_the_other_takes_over_and_the_last_one_removes_the_file() {
    let folder = Folder::new();
    let mut current = serving(b'a', 2, &folder.socket(), "127.0.0.1:0");
    let at = addr(&current);
    let mode = std::fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (nth, workers) in [1, 3, 2, 2].into_iter().enumerate() {
        let name = b'b' + nth as u8;
        let old = ending(current);
        current = serving(name, workers, &folder.socket(), at);
        assert!(old.join().unwrap().handed_over);
        serves_alone(name, at);
    }
    drop(current);
    assert!(!folder.socket().exists() && std::fs::read_dir(&folder.0).unwrap().next().is_none());
}

#[test]
fn one_that_cannot_start_changes_nothing() {
    let folder = Folder::new();
    let (told, outcomes) = mpsc::channel();
    let handover = Handover::at(folder.socket())
        .on_end(move |outcome| told.send(outcome.map_err(ToString::to_string)).unwrap());
    let old = Runtime::builder()
        .workers(Workers::Count(2))
        .handover(handover)
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'1'))
        .unwrap()
        .start()
        .unwrap();
    let at = addr(&old);
    let failing = builder(2, &folder.socket())
        .try_state(|_worker| Err::<u8, _>(std::io::Error::other("no disk")))
        .listen(at, |_worker| |_peer| Named(b'x'))
        .unwrap();
    assert!(failing.start().err().unwrap().to_string().contains("no disk"));
    let why = outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(why, "while this process waited for its being ready: the other process has gone");
    serves_alone(b'1', at);
    // And one of an address that somebody else has.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let failing = builder(2, &folder.socket())
        .listen(at, |_worker| |_peer| Named(b'x'))
        .unwrap()
        .listen(taken.local_addr().unwrap(), |_worker| |_peer| Named(b'x'))
        .unwrap();
    assert_eq!(failing.start().err().unwrap().kind(), ErrorKind::AddrInUse);
    outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
    serves_alone(b'1', at);
    let old = ending(old);
    let _new = serving(b'2', 2, &folder.socket(), at);
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(std::process::id()));
    old.join().unwrap();
    serves_alone(b'2', at);
}

/// A message of version 1.
fn message(kind: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_le_bytes();
    [&[kind, 0], &len[..], rest].concat()
}

fn hello(version: u16) -> Vec<u8> {
    message(1, &[&b"netpoll-handover"[..], &version.to_le_bytes()].concat())
}

const HELLO: u8 = 1;
const REFUSED: u8 = 2;
const OFFER: u8 = 3;
const SOCKET: u8 = 4;
const READY: u8 = 5;
const GO_AHEAD: u8 = 6;
const SERVING: u8 = 7;
const CONNECTION: u8 = 8;

/// The next message, whose descriptor is dropped; `None` at the end.
fn heard(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut rest = vec![0; usize::from(u16::from_le_bytes([header[2], header[3]]))];
    stream.read_exact(&mut rest).unwrap();
    Some((header[0], rest))
}

fn connected(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How far a process that wants to follow gets before it ends.
fn follow(stream: &mut UnixStream, steps: usize) {
    let expect = |stream: &mut UnixStream, kind| assert_eq!(heard(stream).unwrap().0, kind);
    if steps > 0 {
        stream.write_all(&hello(1)).unwrap();
    }
    if steps > 1 {
        expect(stream, HELLO);
        expect(stream, OFFER);
        (0..3).for_each(|_| expect(stream, SOCKET));
    }
    if steps > 2 {
        stream.write_all(&message(READY, b"")).unwrap();
    }
    if steps > 3 {
        expect(stream, GO_AHEAD);
    }
}

#[test]
fn one_that_ends_before_it_serves_leaves_everything_as_it_was_wherever_it_ends() {
    let folder = Folder::new();
    let (told, outcomes) = mpsc::channel();
    let handover = Handover::at(folder.socket())
        .on_end(move |outcome| told.send(outcome.map_err(ToString::to_string)).unwrap());
    let old = Runtime::builder().workers(Workers::Count(2)).handover(handover);
    let file = folder.0.join("served.sock");
    let old = old
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'1'))
        .unwrap()
        .listen(Address::unix(&file).unwrap(), |_worker| |_peer| Named(b'1'))
        .unwrap()
        .start()
        .unwrap();
    let at = addr(&old);
    let waits = ["hello", "being ready", "being ready", "beginning to serve", "beginning to serve"];
    for (steps, what) in waits.into_iter().enumerate() {
        let mut stream = connected(&folder.socket());
        follow(&mut stream, steps);
        drop(stream);
        let why = outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
        // Whoever hangs up with something unread resets, and a message may be on its way to him.
        let said = why.contains(&format!("for its {what}: the other process has gone"))
            || why.contains("for its") && why.contains("reset")
            || why.starts_with("cannot say");
        assert!(said, "after {steps} steps: {why}");
        serves_alone(b'1', at);
    }
    // Its own end is that of one who was never asked: newcomers are refused, and nobody is lost.
    let queued = client(at);
    let report = old.stop(Duration::from_secs(5)).unwrap();
    assert!(!report.handed_over && !file.exists() && !folder.socket().exists());
    drop(queued);
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_no_handover_is_refused_with_the_reason() {
    let folder = Folder::new();
    let old = Runtime::builder()
        .workers(Workers::Count(1))
        .handover(Handover::at(folder.socket()).ready_within(Duration::from_millis(100)))
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'1'))
        .unwrap()
        .start()
        .unwrap();
    let at = addr(&old);
    let refusal = |bytes: &[u8]| {
        let mut stream = connected(&folder.socket());
        stream.write_all(bytes).unwrap();
        loop {
            match heard(&mut stream).expect("a reason") {
                (REFUSED, why) => return String::from_utf8(why).unwrap(),
                (HELLO | OFFER | SOCKET | GO_AHEAD, _) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let garbage = "what the other process says is no handover";
    assert!(refusal(b"GET / HTTP/1.1\r\n\r\n").ends_with(garbage));
    assert!(refusal(&message(1, b"netpoll-overhand\x01\x00")).ends_with(garbage));
    assert!(refusal(&message(77, b"")).ends_with(garbage));
    assert!(refusal(&message(READY, b"")).ends_with("for its hello: it says ready"));
    assert_eq!(
        refusal(&hello(2)),
        "the other process speaks version 2 of the handover, and this one version 1"
    );
    let late = refusal(&hello(1));
    assert_eq!(late, "while this process waited for its being ready: the other process does not answer");
    let twice = [hello(1), hello(1)].concat();
    assert!(refusal(&twice).ends_with("for its being ready: it says hello"));
    assert!(refusal(&[hello(1), message(READY, b"and more")].concat()).ends_with(garbage));
    let wrong = [hello(1), message(READY, b""), message(READY, b"")].concat();
    assert!(refusal(&wrong).ends_with("for its beginning to serve: it says ready"));
    serves_alone(b'1', at);
}

/// A process that serves, in a script: what it says to the one that follows, and a socket where there is to be one.
fn script(path: &Path, play: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        play(stream);
    })
}

#[test]
fn one_that_is_not_handed_anything_does_not_start_and_says_why() {
    let refused = [hello(1), message(REFUSED, b"not today")].concat();
    let cut = [hello(1), message(OFFER, b"\x01\x00")].concat();
    let without = [hello(1), message(OFFER, b"\x01\x00"), message(SOCKET, b"\0\0\0\0\x01a\x01b")].concat();
    let cases: [(Vec<u8>, &str); 5] = [
        (hello(7), "the other process speaks version 7 of the handover, and this one version 1"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "what the other process says is no handover"),
        (refused, "not today"),
        (cut, "for its sockets: the other process has gone"),
        (without, "for its sockets: it says socket"),
    ];
    for (says, expected) in cases {
        let folder = Folder::new();
        let old = script(&folder.socket(), move |mut stream| {
            heard(&mut stream).expect("a hello");
            stream.write_all(&says).unwrap();
        });
        let failing = builder(1, &folder.socket()).listen("127.0.0.1:0", |_worker| |_peer| Named(b'x'));
        let error = failing.unwrap().start().err().expect("it does not start");
        let (error, path) = (error.to_string(), folder.socket());
        assert!(error.starts_with(&format!("handover at {}: ", path.display())), "{error}");
        assert!(error.ends_with(expected), "{error}");
        old.join().unwrap();
    }
}

#[test]
fn one_whose_predecessor_goes_without_a_word_starts_as_the_first_one() {
    let folder = Folder::new();
    let old = script(&folder.socket(), |mut stream| drop(heard(&mut stream).expect("a hello")));
    let new = serving(b'2', 1, &folder.socket(), "127.0.0.1:0");
    assert!(!new.took_over());
    old.join().unwrap();
    serves_alone(b'2', addr(&new));
}

/// Hands one socket over, up to where the other one is ready.
fn hand_over(stream: &mut UnixStream, socket: &impl AsFd, at: SocketAddr) {
    heard(stream).expect("a hello");
    stream.write_all(&[hello(1), message(OFFER, b"\x01\x00")].concat()).unwrap();
    let text = at.to_string();
    let mut named = vec![0, 0, 0, 0];
    (0..2).for_each(|_| named.extend([&[text.len() as u8], text.as_bytes()].concat()));
    let bytes = message(SOCKET, &named);
    // A control message as cmsg(3) lays it out: length, level, kind, and the descriptor, padded.
    let mut control = Vec::new();
    control.extend(20_usize.to_ne_bytes());
    let fd = socket.as_fd().as_raw_fd();
    [1_i32, 1, fd, 0].iter().for_each(|int| control.extend(int.to_ne_bytes()));
    let slices = [IoSlice::new(&bytes)];
    let header = MsgHdr::new().with_buffers(&slices).with_control(&control);
    assert_eq!(SockRef::from(&*stream).sendmsg(&header, 0).unwrap(), bytes.len());
    assert_eq!(heard(stream).unwrap().0, READY);
}

#[test]
fn one_whose_predecessor_dies_while_it_starts_goes_on_with_its_sockets() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut queued = client(at);
    let old = script(&folder.socket(), move |mut stream| hand_over(&mut stream, &listener, at));
    let new = serving(b'2', 2, &folder.socket(), at);
    assert!(new.took_over());
    assert_eq!(asked(&mut queued), b'2');
    old.join().unwrap();
    serves_alone(b'2', at);
}

#[test]
fn one_that_was_too_late_does_not_serve() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let old = script(&folder.socket(), move |mut stream| {
        hand_over(&mut stream, &listener, at);
        stream.write_all(&message(REFUSED, b"too late")).unwrap();
    });
    let failing = builder(2, &folder.socket()).listen(at, |_worker| |_peer| Named(b'x')).unwrap();
    let error = failing.start().err().expect("it does not start").to_string();
    assert!(error.ends_with(": too late"), "{error}");
    old.join().unwrap();
}

#[test]
fn a_descriptor_that_is_no_socket_of_that_kind_is_not_served() {
    let folder = Folder::new();
    let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let old = script(&folder.socket(), move |mut stream| {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hand_over(&mut stream, &udp, at)));
        assert!(gone.is_err(), "nobody is ready with that");
    });
    let failing = builder(2, &folder.socket()).listen(at, |_worker| |_peer| Named(b'x')).unwrap();
    let error = failing.start().err().expect("it does not start").to_string();
    assert!(error.ends_with("it is no stream socket"), "{error}");
    old.join().unwrap();
}

#[test]
fn a_process_that_drains_hands_nothing_over() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let mut kept = client(addr(&old));
    assert_eq!(asked(&mut kept), b'1');
    old.handle().drain(PATIENCE);
    let failing = builder(1, &folder.socket()).listen("127.0.0.1:0", |_worker| |_peer| Named(b'x')).unwrap();
    let error = failing.start().err().expect("it does not start").to_string();
    assert!(error.ends_with(": this process drains"), "{error}");
    drop(kept);
    old.wait().unwrap();
}

#[test]
fn the_path_of_a_unix_socket_leads_to_the_one_that_follows_and_goes_with_the_last_one() {
    for (before, after) in [(1, 2), (3, 1)] {
        let folder = Folder::new();
        let path = folder.0.join("served.sock");
        let target = || format!("unix:{}", path.display());
        let old = serving(b'1', before, &folder.socket(), target().as_str());
        assert_eq!(asked(&mut UnixStream::connect(&path).unwrap()), b'1');
        let old = ending(old);
        let new = serving(b'2', after, &folder.socket(), target().as_str());
        assert_eq!(new.local_addrs(), [Address::unix(&path).unwrap()]);
        assert!(old.join().unwrap().handed_over);
        for _ in 0..20 {
            assert_eq!(asked(&mut UnixStream::connect(&path).unwrap()), b'2');
        }
        drop(new);
        assert!(!path.exists() && !folder.socket().exists());
    }
}

fn receiving(name: u8, workers: usize, path: &Path, addr: &str) -> Running {
    builder(workers, path).bind_udp(addr, move |_worker| Named(name)).unwrap().start().unwrap()
}

fn datagram(socket: &UdpSocket) -> u8 {
    let mut answer = [0];
    socket.send(b"?").unwrap();
    assert_eq!(socket.recv(&mut answer).unwrap(), 1);
    answer[0]
}

#[test]
fn datagram_sockets_are_handed_over_and_every_datagram_is_answered() {
    for (before, after) in [(1, 1), (1, 2), (3, 2)] {
        let folder = Folder::new();
        let old = receiving(b'1', before, &folder.socket(), "127.0.0.1:0");
        let at = old.udp_addrs()[0];
        let clients: Vec<_> = (0..10).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for client in &clients {
            client.connect(at).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(datagram(client), b'1');
        }
        let old = ending(old);
        let new = receiving(b'2', after, &folder.socket(), "127.0.0.1:0");
        assert_eq!(new.udp_addrs(), [at]);
        while !old.is_finished() {
            clients.iter().for_each(|client| assert!(b"12".contains(&datagram(client))));
        }
        assert!(old.join().unwrap().handed_over);
        clients.iter().for_each(|client| assert_eq!(datagram(client), b'2'));
    }
}

#[test]
fn an_address_that_is_new_is_bound_and_one_that_is_gone_is_closed_behind_its_queue() {
    let folder = Folder::new();
    let old = builder(2, &folder.socket())
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'1'))
        .unwrap()
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'3'))
        .unwrap()
        .start()
        .unwrap();
    let addrs: Vec<SocketAddr> =
        old.local_addrs().iter().map(|addr| addr.as_socket_addr().unwrap()).collect();
    let mut queued = client(addrs[1]);
    let old = ending(old);
    let new = serving(b'2', 2, &folder.socket(), addrs[0]);
    assert_eq!(asked(&mut queued), b'3');
    drop(queued);
    assert!(old.join().unwrap().handed_over);
    serves_alone(b'2', addrs[0]);
    assert_eq!(TcpStream::connect(addrs[1]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(new);
}

#[test]
fn what_stands_beside_a_runtime_is_handed_over_with_it() {
    let folder = Folder::new();
    let start = |name: u8| {
        let (told, addrs) = mpsc::channel();
        let running = builder(2, &folder.socket())
            .listen("127.0.0.1:0", move |_worker| move |_peer| Named(name))
            .unwrap()
            .beside(move |served, builder| {
                let beside = builder.listen("127.0.0.1:0", move |_worker| move |_peer| Named(name + 10))?;
                let running = beside.start()?;
                told.send(addr(&running)).unwrap();
                assert!(served.readiness().stage() == Stage::Starting);
                Ok(running)
            })
            .start()
            .unwrap();
        (running, addrs.recv().unwrap())
    };
    let (old, beside) = start(b'a');
    let at = addr(&old);
    let old = ending(old);
    let (new, beside_new) = start(b'b');
    assert_eq!((addr(&new), beside_new), (at, beside));
    assert!(old.join().unwrap().handed_over);
    serves_alone(b'b', at);
    serves_alone(b'b' + 10, beside);
}

#[test]
fn sockets_that_were_handed_in_are_listened_at_where_their_addresses_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (at, udp_at) = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
    let fds = || {
        [OwnedFd::from(listener.try_clone().unwrap()), OwnedFd::from(udp.try_clone().unwrap())].map(named_fd)
    };
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .inherit(fds())
        .listen(at, |_worker| |_peer| Named(b'1'))
        .unwrap()
        .bind_udp(udp_at, |_worker| Named(b'2'))
        .unwrap()
        .start()
        .unwrap();
    serves_alone(b'1', at);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(udp_at).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(datagram(&client), b'2');
    drop(running);
    // Its owner has it still: nobody is refused, and somebody waits for the next one.
    let mut queued = self::client(at);
    let elsewhere = Runtime::builder().inherit(fds()).listen(at, |_worker| |_peer| Named(b'3')).unwrap();
    let error = elsewhere.start().err().expect("nobody receives").to_string();
    assert_eq!(error, format!("a UDP socket at {udp_at} was handed in, and nobody receives there"));
    // The port is right, and the name is another: a socket unit with nothing but a port is one of IPv6 as well.
    let every = SocketAddr::from(([0, 0, 0, 0], at.port()));
    let elsewhere = Runtime::builder().inherit(fds()).listen(every, |_worker| |_peer| Named(b'3')).unwrap();
    let error = elsewhere.start().err().expect("the port is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&format!("; a socket at {at} was handed in, which is ")), "{error}");
    let next = Runtime::builder().inherit(fds().into_iter().take(1));
    let _next = next.listen(at, |_worker| |_peer| Named(b'3')).unwrap().start().unwrap();
    assert_eq!(asked(&mut queued), b'3');
}

fn named_fd(socket: OwnedFd) -> ListenFd {
    ListenFd::new("web", socket)
}

/// A service manager that listens there.
fn manager_at(path: &Path) -> UnixDatagram {
    let manager = UnixDatagram::bind(path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    manager
}

/// What it is told next.
fn told_next(manager: &UnixDatagram) -> String {
    let mut text = [0; 256];
    let len = manager.recv(&mut text).unwrap();
    String::from_utf8_lossy(&text[..len]).into_owned()
}

#[test]
fn a_service_manager_hears_who_serves_and_the_one_that_follows_knows_it_by_the_other_one() {
    let folder = Folder::new();
    let path = folder.0.join("notify.sock");
    let manager = manager_at(&path);
    let hear = || told_next(&manager);
    let day = Duration::from_secs(86400);
    let old = builder(1, &folder.socket())
        .service_manager(ServiceManager::at(&path).unwrap().watchdog(day))
        .listen("127.0.0.1:0", |_worker| |_peer| Named(b'1'))
        .unwrap()
        .start()
        .unwrap();
    let at = addr(&old);
    let mut said = [hear(), hear()];
    said.sort();
    assert_eq!(said, ["READY=1", "WATCHDOG=1"]);
    let failing = builder(1, &folder.socket()).try_state(|_worker| Err::<u8, _>(ErrorKind::Other.into()));
    assert!(failing.listen(at, |_worker| |_peer| Named(b'x')).unwrap().start().is_err());
    let reloading = |text: &str| {
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(text);
        assert!(usec.parse::<u64>().unwrap() > 0);
    };
    reloading(&hear());
    assert_eq!(hear(), "READY=1");

    let old = ending(old);
    let new = builder(1, &folder.socket()).sd_notify();
    let new = new.listen(at, |_worker| |_peer| Named(b'2')).unwrap().start().unwrap();
    let mut said: Vec<String> = (0..4).map(|_| hear()).collect();
    said.sort();
    reloading(&said[2]);
    said.remove(2);
    assert_eq!(
        said,
        [
            format!("MAINPID={}\nREADY=1\nWATCHDOG=1", std::process::id()),
            "READY=1".into(),
            "WATCHDOG=1".into()
        ]
    );
    old.join().unwrap();
    new.stop(PATIENCE).unwrap();
    assert_eq!(hear(), "STOPPING=1");
}

/// What it says of itself when it is to move, with so many.
type Says = fn(u8) -> Option<Vec<u8>>;

/// Answers each byte with how many there were.
struct Counting {
    so_far: u8,
    says: Says,
}

impl Protocol for Counting {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        for _ in 0..input.len() {
            self.so_far += 1;
            conn.send(&[self.so_far]);
        }
        input.advance_all();
        Flow::Continue
    }

    fn hand_over(&mut self, _conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        (self.says)(self.so_far)
    }

    fn taken_over(&mut self, conn: &mut Conn<'_>, state: &[u8]) -> Flow {
        self.so_far = state[0];
        conn.send(b"!");
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        if matches!(reason, Lost::HandedOver) {
            MOVED.fetch_add(1, Ordering::SeqCst);
        }
    }
}

static MOVED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_protocol_that_can_say_what_there_is_to_know_of_a_connection_goes_on_with_it_elsewhere() {
    let cases: [(Says, bool); 4] = [
        (|so_far| Some(vec![so_far]), true),
        (|_| None, false),
        (|_| Some(vec![0; 1025]), false),
        (|_| panic!("it cannot say"), false),
    ];
    for (says, can_move) in cases {
        let folder = Folder::new();
        let start = || {
            let make = move |_worker: &WorkerInfo| move |_peer| Counting { so_far: 0, says };
            let builder = builder(1, &folder.socket()).drain_within(Duration::from_millis(100));
            builder.listen("127.0.0.1:0", make).unwrap().start().unwrap()
        };
        let old = start();
        let moves = can_move && old.handle().setup().backend != "uring";
        let mut client = client(addr(&old));
        assert_eq!([asked(&mut client), asked(&mut client)], [1, 2]);
        let (old, before) = (ending(old), MOVED.load(Ordering::SeqCst));
        let new = start();
        assert_eq!(old.join().unwrap().moved, u64::from(moves));
        assert_eq!(MOVED.load(Ordering::SeqCst) - before, usize::from(moves));
        let mut next = [0; 2];
        if moves {
            client.read_exact(&mut next[..1]).unwrap();
            next[1] = asked(&mut client);
            assert_eq!(next, [b'!', 3]);
        } else {
            assert!(matches!(client.read(&mut next), Ok(0) | Err(_)), "its time is over");
        }
        drop(new);
    }
}

#[test]
fn what_is_sent_in_place_of_a_connection_changes_nothing_for_those_who_are_served() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let old = script(&folder.socket(), move |mut stream| {
        hand_over(&mut stream, &listener, at);
        stream.write_all(&message(GO_AHEAD, b"")).unwrap();
        assert_eq!(heard(&mut stream).unwrap().0, SERVING);
        // A connection without its descriptor.
        stream.write_all(&message(CONNECTION, b"")).unwrap();
        // It is left alone from there on.
        assert_eq!(heard(&mut stream), None);
    });
    let new = serving(b'2', 2, &folder.socket(), at);
    old.join().unwrap();
    serves_alone(b'2', at);
    // And the next one takes over.
    let new = ending(new);
    let _next = serving(b'3', 2, &folder.socket(), at);
    assert!(new.join().unwrap().handed_over);
    serves_alone(b'3', at);
}

/// Waits for a whole line, and would move at any time.
struct Lines;

impl Protocol for Lines {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes().ends_with(b"\n") {
            conn.send(b"!");
            input.advance_all();
        }
        Flow::Continue
    }

    fn hand_over(&mut self, _conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

#[test]
fn a_connection_of_which_a_part_was_read_stays_and_is_answered() {
    let folder = Folder::new();
    let builder = || builder(1, &folder.socket());
    let old = builder().listen("127.0.0.1:0", |_worker| |_peer| Lines).unwrap().start().unwrap();
    let mut client = client(addr(&old));
    client.write_all(b"half a").unwrap();
    while old.handle().stats().received_bytes < 6 {
        std::thread::yield_now();
    }
    let (handle, old) = (old.handle().clone(), ending(old));
    let _new = builder().listen("127.0.0.1:0", |_worker| |_peer| Named(b'2')).unwrap().start().unwrap();
    while !handle.is_draining() {
        std::thread::yield_now();
    }
    client.write_all(b" line\n").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"!");
    drop(client);
    assert_eq!(old.join().unwrap().moved, 0);
}

/// Where the child finds the path.
const STRANGERS_PATH: &str = "NETPOLL_TEST_HANDOVER";

#[test]
#[ignore = "it is another process's part of the next one"]
fn stranger() {
    let mut stream = UnixStream::connect(std::env::var(STRANGERS_PATH).unwrap()).unwrap();
    let _ = stream.write_all(&hello(1));
    assert_eq!(heard(&mut stream), None);
}

#[test]
fn another_user_gets_nothing_whatever_the_permissions_are() {
    let folder = Folder::new();
    let (told, outcomes) = mpsc::channel();
    let handover = Handover::at(folder.socket())
        .on_end(move |outcome| told.send(outcome.map_err(ToString::to_string)).unwrap());
    let old = Runtime::builder().workers(Workers::Count(1)).handover(handover);
    let old = old.listen("127.0.0.1:0", |_worker| |_peer| Named(b'1')).unwrap().start().unwrap();
    std::fs::set_permissions(folder.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut child = Command::new("/proc/self/exe");
    child.args(["--exact", "stranger", "--ignored"]).env(STRANGERS_PATH, folder.socket()).uid(65534);
    let output = match child.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no process of another user can be started: {error}"),
    };
    let why = outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(why.starts_with("the other process is of user 65534, and this one of "), "{why}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serves_alone(b'1', addr(&old));
}

#[path = "handover/troubles.rs"]
mod troubles;
