//! Datagrams on real sockets.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::{
    Builder, Conn, Datagram, DatagramId, DatagramProtocol, DatagramSocket, Datagrams, Flow, Input, Protocol,
    Running, Runtime, UdpOptions, Workers,
};

use crate::support::is_on_linux;

const LONG: Duration = Duration::from_secs(20);

/// Sends back what it gets, and obeys what is a command.
#[derive(Default)]
struct Server {
    /// Where it says that it is held, and what it waits for then.
    hold: Option<(Sender<()>, Receiver<()>)>,
    log: Option<Arc<Mutex<Vec<String>>>>,
    id: Option<Sender<DatagramId>>,
}

impl DatagramProtocol for Server {
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        if let Some(id) = &self.id {
            id.send(socket.id()).unwrap();
        }
    }

    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        if let Some(log) = &self.log {
            log.lock().unwrap().push(String::from_utf8_lossy(datagram.bytes()).into_owned());
        }
        match datagram.bytes() {
            b"hold" => {
                if let Some((held, go)) = &self.hold {
                    held.send(()).unwrap();
                    go.recv().unwrap();
                }
            }
            b"panic" => panic!("asked to"),
            b"close" => socket.close(),
            b"soon" => socket.set_deadline(Duration::from_millis(20)),
            b"wake" => {
                let waker = socket.waker();
                std::thread::spawn(move || waker.wake());
            }
            b"forbidden" => {
                // Broadcasting has to be asked for, which this socket has not.
                socket.send(SocketAddr::from(([255, 255, 255, 255], 9)), b"");
            }
            _ => {}
        }
        let is_truncated = datagram.is_truncated();
        let (_, fits) = socket.append(datagram.path(), |out| {
            out.extend_from_slice(datagram.bytes());
            out.extend_from_slice(if is_truncated { b"..." } else { b"" });
        });
        assert!(fits);
    }

    fn deadline(&mut self, socket: &mut DatagramSocket<'_>) {
        self.log.as_ref().unwrap().lock().unwrap().push("deadline".to_owned());
        socket.close();
    }

    fn woken(&mut self, socket: &mut DatagramSocket<'_>) {
        self.log.as_ref().unwrap().lock().unwrap().push("woken".to_owned());
        socket.close();
    }
}

fn one() -> Builder {
    Runtime::builder().workers(Workers::Count(1)).pin(false)
}

fn start(builder: Builder, addr: &str) -> (Running, SocketAddr) {
    let running = builder.bind_udp(addr, |_worker| Server::default()).unwrap().start().unwrap();
    let addr = running.udp_addrs()[0];
    (running, addr)
}

/// A worker that can be held in a callback: says when it is, and goes on when told to.
fn holding(
    builder: Builder,
    log: Option<&Arc<Mutex<Vec<String>>>>,
) -> (Running, SocketAddr, Receiver<()>, Sender<()>) {
    let (held, is_held) = channel();
    let (go, may_go) = channel();
    let hold = Mutex::new(Some((held, may_go)));
    let log = log.cloned();
    let server = move |_: &_| Server { hold: hold.lock().unwrap().take(), log: log.clone(), id: None };
    let running = builder.bind_udp("127.0.0.1:0", server).unwrap().start().unwrap();
    let addr = running.udp_addrs()[0];
    (running, addr, is_held, go)
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn answer(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 65_536];
    let (len, from) = client.recv_from(&mut bytes).unwrap();
    (bytes[..len].to_vec(), from)
}

fn ask(client: &UdpSocket, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    client.send_to(bytes, to).unwrap();
    answer(client).0
}

#[test]
fn a_datagram_is_answered_whole_whatever_its_length() {
    for join in [true, false] {
        let options = UdpOptions::default().join_received(join).join_sent(join);
        let (running, addr) = start(one().udp_options(options), "127.0.0.1:0");
        let client = client();
        for len in [0, 1, 1472, 1473, 9000, 65_507] {
            let bytes: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            assert_eq!(ask(&client, addr, &bytes), bytes);
        }
        let stats = running.stop(LONG).unwrap().stats;
        assert_eq!((stats.datagrams_received, stats.datagrams_sent), (6, 6));
        assert_eq!((stats.datagrams_dropped, stats.datagrams_refused, stats.datagrams_truncated), (0, 0, 0));
    }
}

#[test]
fn a_burst_is_received_and_answered_in_batches() {
    for join in [true, false] {
        let options = UdpOptions::default().join_sent(join);
        let (running, addr, is_held, go) = holding(one().udp_options(options), None);
        let client = client();
        client.send_to(b"hold", addr).unwrap();
        is_held.recv().unwrap();
        let questions: Vec<Vec<u8>> = (0..100).map(|index| format!("{index:03}").into_bytes()).collect();
        for question in &questions {
            client.send_to(question, addr).unwrap();
        }
        go.send(()).unwrap();
        assert_eq!(answer(&client).0, b"hold");
        for question in &questions {
            assert_eq!(&answer(&client).0, question, "in order");
        }
        let stats = running.stop(LONG).unwrap().stats;
        // 1, then 4 (or 8), 8, 16, 32, 32 and the rest; and one for the drain, which finds nothing.
        assert!(stats.syscalls_recvmmsg <= 9, "{}", stats.syscalls_recvmmsg);
        assert!(stats.syscalls_sendmmsg <= 8, "{}", stats.syscalls_sendmmsg);
        assert_eq!((stats.datagrams_received, stats.datagrams_sent), (101, 101));
    }
}

#[test]
fn a_socket_of_all_addresses_answers_from_the_one_that_was_asked() {
    let (_running, addr) = start(one(), "0.0.0.0:0");
    let client = client();
    for ip in [[127, 0, 0, 1], [127, 0, 0, 5], [127, 9, 8, 7]] {
        let called = SocketAddr::from((ip, addr.port()));
        client.send_to(b"ping", called).unwrap();
        assert_eq!(answer(&client), (b"ping".to_vec(), called));
    }
}

#[test]
fn a_datagram_that_is_too_long_is_cut_and_marked_and_counted() {
    for join in [true, false] {
        let options = UdpOptions::default().datagram_bytes_max(8).join_received(join);
        let (running, addr) = start(one().udp_options(options), "127.0.0.1:0");
        let client = client();
        assert_eq!(ask(&client, addr, b"12345678"), b"12345678");
        assert_eq!(ask(&client, addr, b"123456789"), b"12345678...");
        assert_eq!(running.stop(LONG).unwrap().stats.datagrams_truncated, 1);
    }
}

#[test]
fn a_peer_that_is_gone_and_a_way_that_is_closed_cost_their_datagrams_only() {
    let (running, addr) = start(one(), "127.0.0.1:0");
    let client = client();
    for _ in 0..3 {
        // Its answer finds nobody: the kernel is told by ICMP.
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.send_to(b"gone", addr).unwrap();
        drop(gone);
        assert_eq!(ask(&client, addr, b"here"), b"here");
        assert_eq!(ask(&client, addr, b"forbidden"), b"forbidden");
    }
    let stats = running.stop(LONG).unwrap().stats;
    assert_eq!((stats.datagrams_received, stats.datagrams_refused), (9, 3));
    assert_eq!(stats.datagrams_sent, 9);
}

#[test]
fn a_panic_costs_the_datagram_that_it_was_called_for() {
    let (running, addr, is_held, go) = holding(one(), None);
    let client = client();
    client.send_to(b"hold", addr).unwrap();
    is_held.recv().unwrap();
    for question in ["a", "panic", "b", "panic", "panic", "c"] {
        client.send_to(question.as_bytes(), addr).unwrap();
    }
    go.send(()).unwrap();
    for expected in ["hold", "a", "b", "c"] {
        assert_eq!(answer(&client).0, expected.as_bytes());
    }
    assert_eq!(ask(&client, addr, b"and later"), b"and later");
    assert_eq!(running.stop(LONG).unwrap().stats.panics, 3);
}

/// Takes none of a batch before it panics.
struct Hopeless;

impl DatagramProtocol for Hopeless {
    fn received(&mut self, _socket: &mut DatagramSocket<'_>, _datagram: Datagram<'_>) {}

    fn received_batch(&mut self, _socket: &mut DatagramSocket<'_>, batch: &mut Datagrams<'_>) {
        panic!("with {} of them", batch.len());
    }
}

#[test]
fn a_batch_that_is_never_taken_from_comes_to_an_end() {
    let running = one().bind_udp("127.0.0.1:0", |_worker| Hopeless).unwrap().start().unwrap();
    let client = client();
    for _ in 0..5 {
        client.send_to(b"x", running.udp_addrs()[0]).unwrap();
    }
    assert_eq!(running.stop(LONG).unwrap().stats.panics, 5, "what had come before the drain is handed over");
}

/// Writes down what comes; answers.
struct Noting(Arc<Mutex<Vec<String>>>);

impl Protocol for Noting {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.lock().unwrap().push("connection".to_owned());
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_flood_of_datagrams_leaves_time_for_a_connection() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&log);
    let builder = one()
        .udp_options(UdpOptions::default().batch(4).datagrams_per_turn(8))
        .listen("127.0.0.1:0", move |_worker| {
            let noted = Arc::clone(&noted);
            move |_peer| Noting(Arc::clone(&noted))
        })
        .unwrap();
    let (running, addr, is_held, go) = holding(builder, Some(&log));
    let mut connection = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    connection.write_all(b"1").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    let client = client();
    client.send_to(b"hold", addr).unwrap();
    is_held.recv().unwrap();
    client.send_to(b"hold", addr).unwrap();
    for _ in 0..100 {
        client.send_to(b"flood", addr).unwrap();
    }
    go.send(()).unwrap();
    // In the middle of the flood the connection has something to say.
    is_held.recv().unwrap();
    connection.write_all(b"2").unwrap();
    go.send(()).unwrap();
    connection.read_exact(&mut [0]).unwrap();
    for _ in 0..102 {
        answer(&client);
    }
    let log = log.lock().unwrap();
    let before = log.iter().skip(1).position(|what| what == "connection").unwrap();
    assert!(
        (2..=1 + 2 * 8).contains(&before),
        "the share that was under way, and one more at most: {before}"
    );
    drop(running);
}

#[test]
fn a_drain_answers_what_had_arrived_and_closes_the_socket() {
    let (running, addr, is_held, go) =
        holding(one().udp_options(UdpOptions::default().datagrams_per_turn(7)), None);
    let client = client();
    client.send_to(b"hold", addr).unwrap();
    is_held.recv().unwrap();
    for index in 0..100_u8 {
        client.send_to(&[index], addr).unwrap();
    }
    running.handle().drain(LONG);
    go.send(()).unwrap();
    let report = running.stop(LONG).unwrap();
    assert_eq!(report.stats.datagrams_sent, 101);
    assert!(report.took < LONG / 2, "{:?}", report.took);
    assert_eq!(answer(&client).0, b"hold");
    for index in 0..100 {
        assert_eq!(answer(&client).0, [index]);
    }
    UdpSocket::bind(addr).expect("nobody has the port any more");
}

#[test]
fn a_flood_does_not_hold_up_a_drain() {
    let (running, addr) = start(one(), "127.0.0.1:0");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = client();
            // Bounded: about as many as a worker handles in the grace of a drain, several times over.
            for _ in 0..3_000_000 {
                if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                // Nobody may be there any more.
                let _ = client.send_to(b"flood", addr);
            }
        });
        while running.handle().stats().datagrams_received == 0 {
            std::thread::yield_now();
        }
        let report = running.stop(LONG).unwrap();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(report.took < LONG / 2, "{:?}", report.took);
    });
}

#[test]
fn a_socket_that_closes_itself_sends_what_it_has_queued() {
    let (running, addr) = start(one(), "127.0.0.1:0");
    let client = client();
    assert_eq!(ask(&client, addr, b"close"), b"close");
    let deadline = std::time::Instant::now() + LONG;
    while UdpSocket::bind(addr).is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
        assert!(std::time::Instant::now() < deadline, "the port is given back");
        std::thread::yield_now();
    }
    running.stop(LONG).unwrap();
}

#[test]
fn a_deadline_and_a_waker_lead_back_to_the_socket() {
    for (word, expected) in [("soon", "deadline"), ("wake", "woken")] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (running, addr, ..) = holding(one(), Some(&log));
        assert_eq!(ask(&client(), addr, word.as_bytes()), word.as_bytes());
        let deadline = std::time::Instant::now() + LONG;
        while log.lock().unwrap().len() < 2 {
            assert!(std::time::Instant::now() < deadline, "{expected}");
            std::thread::yield_now();
        }
        assert_eq!(*log.lock().unwrap(), [word, expected]);
        running.stop(LONG).unwrap();
    }
}

/// A connection that sends what it gets as a datagram.
struct Bridge(SocketAddr, Arc<Mutex<Option<DatagramId>>>);

impl Protocol for Bridge {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let (to, from) = (self.0, self.1.lock().unwrap().unwrap());
        conn.commands().send_datagram(from, to, Bytes::copy_from_slice(input.bytes()));
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn other_threads_and_connections_of_any_worker_send_from_a_socket() {
    let (id, ids) = channel();
    let (client, name) = (client(), Arc::new(Mutex::new(None)));
    let to = client.local_addr().unwrap();
    let known = Arc::clone(&name);
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .pin(false)
        .bind_udp("127.0.0.1:0", move |_worker| Server { id: Some(id.clone()), ..Server::default() })
        .unwrap()
        .listen("127.0.0.1:0", move |_worker| {
            let known = Arc::clone(&known);
            move |_peer| Bridge(to, Arc::clone(&known))
        })
        .unwrap()
        .start()
        .unwrap();
    let from = running.udp_addrs()[0];
    for _ in 0..2 {
        let id = ids.recv_timeout(LONG).unwrap();
        running.handle().send_datagram(id, to, Bytes::from_static(b"by the handle"));
        assert_eq!(answer(&client), (b"by the handle".to_vec(), from));
        *name.lock().unwrap() = Some(id);
        // Of several connections one is on each worker, sooner or later; each has to do, wherever it is.
        for _ in 0..8 {
            let mut connection =
                TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
            connection.write_all(b"by a connection").unwrap();
            assert_eq!(answer(&client), (b"by a connection".to_vec(), from));
        }
    }
    let handle = running.handle().clone();
    let id = name.lock().unwrap().unwrap();
    running.stop(LONG).unwrap();
    handle.send_datagram(id, to, Bytes::from_static(b"too late"));
}

#[test]
fn every_worker_has_a_socket_and_a_sender_stays_with_one() {
    if !is_on_linux("workers share a socket") {
        return;
    }
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .pin(false)
        .bind_udp("127.0.0.1:0", |worker| Index(worker.index as u8))
        .unwrap()
        .start()
        .unwrap();
    let addr = running.udp_addrs()[0];
    let mut seen = BTreeSet::new();
    for _ in 0..64 {
        let client = client();
        let first = ask(&client, addr, b"who");
        assert_eq!(ask(&client, addr, b"who"), first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "one in 2^63 runs finds all of them at one");
}

/// Answers with the number of its worker.
struct Index(u8);

impl DatagramProtocol for Index {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        assert_eq!(socket.worker(), usize::from(self.0));
        socket.send(datagram.path(), &[self.0]);
    }
}

#[test]
fn a_port_that_is_taken_or_a_setting_that_lets_nothing_through_is_an_error_of_start() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    for workers in [1, 2] {
        let builder = Runtime::builder().workers(Workers::Count(workers)).pin(false);
        let builder = builder.bind_udp(taken.local_addr().unwrap(), |_worker| Hopeless).unwrap();
        let error = builder.start().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("cannot receive datagrams on 127.0.0.1"), "{error}");
    }
    let options = UdpOptions::default();
    for (options, name) in [
        (options.batch(0), "batch"),
        (options.batch(1025), "batch"),
        (options.datagrams_per_turn(0), "datagrams_per_turn"),
        (options.datagram_bytes_max(0), "datagram_bytes_max"),
        (options.datagram_bytes_max(65_536), "datagram_bytes_max"),
        (options.queue_bytes_max(0), "queue_bytes_max"),
    ] {
        let error = one().udp_options(options).start().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(name), "{error}");
    }
    let failing = |_: &_| Err::<Hopeless, _>(std::io::Error::other("no zone"));
    let error = one().try_bind_udp("127.0.0.1:0", failing).unwrap().start().map(drop).unwrap_err();
    assert!(error.to_string().contains("worker 0 did not start: no zone"), "{error}");
}

/// Asks whoever it is told to, and reports who has answered.
struct Asker(SocketAddr, Sender<(usize, SocketAddr)>);

impl DatagramProtocol for Asker {
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        socket.send(self.0, &[socket.worker() as u8]);
    }

    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        assert_eq!(datagram.bytes(), [socket.worker() as u8], "the answer to its own question");
        self.1.send((socket.worker(), socket.local_addr())).unwrap();
    }
}

#[test]
fn workers_with_ports_of_their_own_get_the_answers_to_what_they_asked() {
    let (server, addr) = start(one(), "127.0.0.1:0");
    let (answers, seen) = channel();
    let running = Runtime::builder()
        .workers(Workers::Count(4))
        .pin(false)
        .bind_udp("127.0.0.1:0", move |_worker| Asker(addr, answers.clone()))
        .unwrap()
        .own_ports()
        .start()
        .unwrap();
    let seen: BTreeSet<_> = (0..4).map(|_| seen.recv_timeout(LONG).unwrap()).collect();
    let ports: BTreeSet<_> = seen.iter().map(|(_, addr)| *addr).collect();
    assert_eq!((seen.len(), ports.len()), (4, 4));
    assert_eq!(seen.first(), Some(&(0, running.udp_addrs()[0])));
    drop((server, running));
    // One port cannot be several workers' own.
    let builder = Runtime::builder().workers(Workers::Count(2)).pin(false);
    let error =
        builder.bind_udp(addr, |_worker| Hopeless).unwrap().own_ports().start().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_port_that_the_kernel_chooses_is_not_one_that_a_stranger_shares() {
    // Others of the same user who share their ports with whoever asks for it: a few of a hundred of those to choose from.
    let strangers: Vec<UdpSocket> =
        (0..400).map(|_| sharing(SocketAddr::from(([127, 0, 0, 1], 0)))).collect();
    let taken: BTreeSet<u16> = strangers.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    for share_port in [false, true] {
        let mut builder = Runtime::builder().workers(Workers::Count(2)).pin(false).share_port(share_port);
        for _ in 0..100 {
            builder = builder.bind_udp("127.0.0.1:0", |_worker| Server::default()).unwrap();
        }
        let running = builder.start().unwrap();
        let ports: BTreeSet<u16> = running.udp_addrs().iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 100, "nor one of our own");
        assert_eq!(ports.intersection(&taken).count(), 0, "{share_port}");
        // Of a runtime that shares its ports another process may have one as well, which it has to know.
        let addr = running.udp_addrs()[0];
        if share_port {
            sharing(addr);
        }
    }
}

/// A socket of somebody who shares its port.
fn sharing(addr: SocketAddr) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.into()
}
