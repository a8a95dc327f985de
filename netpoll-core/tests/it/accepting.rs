//! How peers get in, on real sockets: few or many, early or late, alive or not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol, Running, Runtime, Workers};

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
        let mut stream = connect(self.running.local_addrs()[0]);
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
    let addr = server.running.local_addrs()[0];
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
fn connections_that_come_one_at_a_time_hardly_ever_cost_an_accept_that_finds_nothing() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0];
    for _ in 0..400 {
        let mut peer = connect(addr);
        peer.write_all(b"x").unwrap();
        echoed(&mut peer, 1);
    }
    let stats = server.running.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!(stats.accepted, 400);
    // Behind 4, 8, 16, 32, 64, 128 and 128 of them, if each next one comes before the worker looks again.
    assert!(stats.syscalls_accept <= 400 + 7, "{} accepts", stats.syscalls_accept);
}

#[test]
fn a_drain_takes_in_who_already_stands_in_the_queue_of_a_real_listener() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0];
    let holder = server.hold();
    let mut peers: Vec<TcpStream> = (0..100).map(|_| connect(addr)).collect();
    for peer in &mut peers {
        peer.write_all(b"me too").unwrap();
    }
    let running = server.running;
    let stopped = std::thread::spawn(move || running.stop(Duration::from_secs(20)).unwrap());
    // Long enough for the order to stop to be there before the worker looks for it.
    std::thread::sleep(Duration::from_millis(50));
    server.release.send(()).unwrap();
    for peer in &mut peers {
        assert_eq!(echoed(peer, 6), b"me too");
    }
    drop((holder, peers));
    let report = stopped.join().unwrap();
    assert_eq!((report.stats.accepted, report.cut), (101, 0));
}

#[test]
fn a_peer_that_is_gone_before_it_is_accepted_is_forgotten() {
    let server = Server::start();
    let addr = server.running.local_addrs()[0];
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
