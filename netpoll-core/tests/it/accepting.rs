//! How peers get in, on real sockets: few or many, early or late, alive or not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol, Running, Runtime, Workers};

use crate::support::{backend, is_on_linux};

const FLOOD_BYTES: usize = 16 << 20;

/// An echo that keeps its worker busy when asked to "hold", closes behind "close" and adds 16 MiB to "flood".
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
        let bytes = input.bytes();
        conn.send(bytes);
        input.advance_all();
        if bytes == b"flood" {
            conn.send(&vec![b'x'; FLOOD_BYTES]);
        }
        if bytes == b"close" { Flow::Close } else { Flow::Continue }
    }

    /// Its peer has something to say, even if that was not read yet.
    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }
}

/// A server of one worker that can be kept busy.
struct Server {
    running: Running,
    held: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

impl Server {
    fn start() -> Self {
        let ((held_sender, held), (release, release_receiver)) = (mpsc::channel(), mpsc::channel());
        let holding = Holding { held: held_sender, release: Arc::new(Mutex::new(release_receiver)) };
        let running = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| {
                let holding = holding.clone();
                move |_peer| holding.clone()
            })
            .unwrap()
            .start()
            .unwrap();
        Self { running, held, release }
    }

    /// Keeps the worker busy until `release` is told.
    fn hold(&self) -> TcpStream {
        let mut stream = connect(self.running.local_addrs()[0].as_socket_addr().unwrap());
        stream.write_all(b"hold").unwrap();
        self.held.recv().unwrap();
        stream
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn echoed(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut back = vec![0; len];
    stream.read_exact(&mut back).unwrap();
    back
}

#[test]
fn a_burst_of_hundreds_of_connections_is_all_accepted() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let holder = server.hold();
    let mut peers: Vec<TcpStream> = (0..300).map(|_| connect(addr)).collect();
    server.release.send(()).unwrap();
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.write_all(index.to_string().as_bytes()).unwrap();
    }
    for (index, peer) in peers.iter_mut().enumerate() {
        let sent = index.to_string().into_bytes();
        assert_eq!(echoed(peer, sent.len()), sent);
    }
    drop((holder, peers));
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!((stats.accepted, stats.shed), (301, 0));
    assert!(stats.syscalls_accept < 301 + 8, "{} accepts", stats.syscalls_accept);
}

#[test]
fn connections_that_come_one_at_a_time_seldom_cost_an_accept_that_finds_nothing() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    for _ in 0..400 {
        let mut peer = connect(addr);
        peer.write_all(b"x").unwrap();
        echoed(&mut peer, 1);
    }
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!(stats.accepted, 400);
    let in_vain = match backend() {
        // Each edge of the listener is accepted from to the end, and the start is one.
        "mio" => 400 + 1,
        // Behind 4, 8, and then every 16 of them.
        _ => 27,
    };
    assert!(stats.syscalls_accept <= 400 + in_vain, "{} accepts", stats.syscalls_accept);
}

#[test]
fn a_drain_takes_in_who_already_stands_in_the_queue_of_a_real_listener() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let holder = server.hold();
    let mut peers: Vec<TcpStream> = (0..100).map(|_| connect(addr)).collect();
    for peer in &mut peers {
        peer.write_all(b"me too").unwrap();
    }
    // The order is in the worker's mailbox before it is let go.
    server.running.handle().drain(Duration::from_secs(20));
    server.release.send(()).unwrap();
    for peer in &mut peers {
        assert_eq!(echoed(peer, 6), b"me too");
    }
    drop((holder, peers));
    let report = server.running.wait().unwrap();
    assert_eq!((report.stats.accepted, report.cut), (101, 0));
}

#[test]
fn a_peer_that_is_gone_before_it_is_accepted_is_forgotten() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let mut holder = server.hold();
    for _ in 0..20 {
        let mut gone = connect(addr);
        gone.write_all(b"too late").unwrap();
        socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let mut half_closed = connect(addr);
    half_closed.write_all(b"last words").unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    server.release.send(()).unwrap();

    let mut back = Vec::new();
    half_closed.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"last words");
    echoed(&mut holder, 4);
    drop(holder);
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!((stats.accepted, stats.open(), stats.failed), (22, 0, 20));
}

#[test]
fn a_connection_whose_only_request_was_there_when_it_was_accepted_is_not_registered() {
    if !is_on_linux("system calls are counted") {
        return;
    }
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let holder = server.hold();
    let mut peers: Vec<TcpStream> = (0..50).map(|_| connect(addr)).collect();
    for peer in &mut peers {
        peer.write_all(b"close").unwrap();
    }
    server.release.send(()).unwrap();
    for peer in &mut peers {
        let mut back = Vec::new();
        peer.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"close");
    }
    drop(holder);
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!(stats.accepted, 51);
    if backend() == "uring" {
        return;
    }
    assert_eq!(stats.syscalls_ctl, 2, "the listener, and the connection that kept the worker busy");
    assert!(stats.syscalls_recv <= 50 + 3, "{} receives", stats.syscalls_recv);
}

#[test]
fn connections_that_say_nothing_at_first_are_served_when_they_speak() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let mut peers: Vec<TcpStream> = (0..60).map(|_| connect(addr)).collect();
    while server.running.handle().stats().accepted < 60 {
        std::thread::yield_now();
    }
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[index as u8]).unwrap();
        assert_eq!(echoed(peer, 1), [index as u8]);
    }
    drop(peers);
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!((stats.accepted, stats.closed), (60, 60));
    if backend() == "uring" || !is_on_linux("system calls are counted") {
        return;
    }
    assert_eq!(stats.syscalls_ctl, 61);
    // After 32 the worker no longer tries, but for those that it has accepted with the last of them: as many as stand in the queue where
    // a listener is reported once.
    let at_once = if backend() == "mio" { 60 } else { 8 };
    assert!((32..32 + at_once).contains(&stats.receives_empty), "{} receives in vain", stats.receives_empty);
}

#[test]
fn a_first_answer_that_the_socket_does_not_hold_arrives_whole() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let mut holder = server.hold();
    let mut peer = connect(addr);
    peer.write_all(b"flood").unwrap();
    server.release.send(()).unwrap();
    // Until then nobody has read anything, so the socket is full before the connection is registered.
    echoed(&mut holder, 4);
    while server.running.handle().stats().sends_blocked == 0 {
        std::thread::yield_now();
    }
    let back = echoed(&mut peer, 5 + FLOOD_BYTES);
    assert!(back.starts_with(b"flood") && back[5..].iter().all(|&byte| byte == b'x'));
    peer.write_all(b"and on").unwrap();
    assert_eq!(echoed(&mut peer, 6), b"and on");
    drop((holder, peer));
    server.running.stop(Duration::from_secs(10)).unwrap();
}

#[test]
fn more_first_bytes_than_a_turn_reads_are_all_read() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0].as_socket_addr().unwrap();
    let holder = server.hold();
    let mut peers: Vec<TcpStream> = (0..20).map(|_| connect(addr)).collect();
    let sent: Vec<u8> =
        (0..100_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for peer in &mut peers {
        peer.write_all(&sent).unwrap();
    }
    server.release.send(()).unwrap();
    for peer in &mut peers {
        assert!(echoed(peer, sent.len()) == sent);
    }
    drop((holder, peers));
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert!(stats.quantum_hits >= 1 || backend() == "uring", "{stats:?}");
}
