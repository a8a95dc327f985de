//! Bytes that are sent inside a callback: order, what the socket does not take, and streams that have failed.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Waker;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{Commands, Conn, ConnId, Flow, Input, Lost, Protocol, Running, Runtime, Workers};

use crate::support::{Log, backend};

/// More than any socket takes while its peer does not read.
const FLOOD_BYTES: usize = 16 << 20;
/// Between low and high water.
const SOME_BYTES: usize = 100 << 10;

/// Does what each byte says, and tells what happens to it.
#[derive(Clone)]
struct Sender<T: Fn(String) + Clone> {
    tell: T,
    waker: Rc<RefCell<Option<Waker>>>,
    /// To be waited for by `w`.
    gate: Option<Rc<mpsc::Receiver<()>>>,
}

impl<T: Fn(String) + Clone + 'static> Sender<T> {
    fn new(tell: T) -> Self {
        Self { tell, waker: Rc::default(), gate: None }
    }
}

impl<T: Fn(String) + Clone + 'static> Protocol for Sender<T> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        *self.waker.borrow_mut() = Some(conn.waker());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(order) = input.bytes().first() {
            let this = &input.bytes()[..1];
            input.advance(1);
            match order {
                b'b' | b'A'..=b'Z' => conn.send_now(this),
                b'a' => conn.append(1, |out| out.push(b'a')),
                b'i' => conn.send_static(b"i"),
                b'h' => conn.send_shared(bytes::Bytes::from_static(b"h")),
                b'q' => conn.send(b"queued "),
                b'n' => conn.send_now(b"now "),
                b'e' => conn.send_now(b""),
                b's' => conn.send_now(&pattern(SOME_BYTES)),
                b'f' => conn.send_now(&pattern(FLOOD_BYTES)),
                b'?' => (self.tell)(format!("queued {}", conn.queued_bytes())),
                b'w' => self.gate.as_ref().expect("a gate").recv().expect("the test opens it"),
                b'p' => panic!("asked to"),
                b'c' => return Flow::Close,
                b'r' => return Flow::Reset,
                _ => (self.tell)("other".to_owned()),
            }
            if conn.is_backed_up() {
                (self.tell)("backed up".to_owned());
                return Flow::Yield;
            }
        }
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send_now(b"woken ");
        (self.tell)(format!("woken, queued {}", conn.queued_bytes()));
        Flow::Continue
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        (self.tell)("drained".to_owned());
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        (self.tell)(match reason {
            Lost::Failed(error) => format!("failed {:?}", error.kind()),
            other => format!("lost {other:?}"),
        });
    }
}

/// Bytes without a short period.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

struct World {
    sim: Sim,
    peer: PeerId,
    log: Log,
    waker: Waker,
}

fn world(options: Options) -> World {
    let (log, mut sim) = (Log::default(), Sim::new(options));
    let sender = Sender::new({
        let log = Rc::clone(&log);
        move |what| log.borrow_mut().push(what)
    });
    let waker = Rc::clone(&sender.waker);
    let listener = sim.listen(move |_peer| sender.clone());
    let peer = sim.connect(listener);
    while waker.borrow().is_none() {
        // Where descriptors run short the listener pauses for a while.
        sim.advance(Duration::from_secs(1));
    }
    let waker = waker.take().expect("opened");
    World { sim, peer, log, waker }
}

impl World {
    /// The peer sends, and everything happens that follows.
    fn order(&mut self, orders: &[u8]) {
        self.sim.send(self.peer, orders);
        self.sim.run();
    }

    fn received(&mut self) -> Vec<u8> {
        self.sim.take_received(self.peer)
    }

    fn said(&self) -> Vec<String> {
        self.log.take()
    }
}

#[test]
fn bytes_sent_now_are_not_copied_and_leave_before_the_callback_returns() {
    let mut world = world(Options::default());
    world.order(b"s?n?e?");
    assert_eq!(world.said(), ["queued 0", "queued 0", "queued 0"]);
    assert_eq!(world.received(), [pattern(SOME_BYTES), b"now ".to_vec()].concat());
    let stats = world.sim.stats();
    assert_eq!((stats.syscalls_send, stats.sent_bytes), (2, SOME_BYTES as u64 + 4), "none for no bytes");
    assert_eq!((stats.pool_hits, stats.pool_misses), (0, 0), "no block was taken");
}

#[test]
fn bytes_sent_now_do_not_overtake_what_is_queued() {
    let mut world = world(Options::default());
    world.order(b"nqnqnc");
    assert_eq!(world.received(), b"now queued now queued now ");
    assert_eq!(world.sim.stats().syscalls_send, 2, "the first by itself, the others together");
    assert!(world.sim.is_closed(world.peer));
}

#[test]
fn input_goes_back_without_a_copy_in_one_send_behind_the_callback() {
    let mut world = world(Options::default());
    world.order(b"bbb");
    assert_eq!(world.received(), b"bbb");
    let stats = world.sim.stats();
    assert_eq!((stats.syscalls_send, stats.sent_bytes), (1, 3));
    assert_eq!((stats.pool_hits, stats.pool_misses), (0, 0), "no block was taken");
}

#[test]
fn input_that_goes_back_keeps_its_place_among_other_output() {
    for (orders, expected, sends) in [
        (b"bqb".as_slice(), b"bqueued b".as_slice(), 2),
        (b"nb", b"now b", 2),
        (b"bn", b"bnow ", 2),
        (b"ebe", b"b", 1),
        (b"b?b", b"bb", 2),
        (b"qbn", b"queued bnow ", 1),
        (b"bab", b"bab", 2),
        (b"bib", b"bib", 2),
        (b"bhb", b"bhb", 2),
    ] {
        let mut world = world(Options::default());
        world.order(orders);
        assert_eq!(world.received(), expected);
        assert_eq!(world.sim.stats().syscalls_send, sends, "{orders:?}");
    }
}

#[test]
fn input_goes_back_before_the_connection_ends() {
    for end in [b"bc", b"br", b"bp"] {
        let mut world = world(Options::default());
        world.order(end);
        assert_eq!(world.received(), b"b");
        assert!(world.sim.is_closed(world.peer));
    }
}

#[test]
fn input_that_does_not_go_back_at_once_follows_when_there_is_room() {
    let mut world = world(Options::default());
    world.sim.stop_reading(world.peer);
    world.order(&[b'b'; 60 << 10]);
    world.order(&[b'b'; 20 << 10]);
    world.sim.start_reading(world.peer);
    world.sim.run();
    assert!(world.received() == [b'b'; 80 << 10]);
    assert_eq!(world.sim.blocks_in_use(), 0);
}

/// Sends its input back, and a word to another connection with each of it.
struct Neighbour {
    other: Rc<RefCell<Vec<ConnId>>>,
    replies: Rc<RefCell<Vec<usize>>>,
}

/// Not in any input.
const WORD: &[u8] = b"<neighbour>";

impl Protocol for Neighbour {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.other.borrow_mut().push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send_now(input.bytes());
        let ids = self.other.borrow();
        if conn.id() == ids[0] {
            self.replies.borrow_mut().push(input.len());
        }
        conn.commands().send(ids[0], bytes::Bytes::from_static(WORD));
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn what_others_send_comes_between_replies_and_never_into_one() {
    for seed in 0..300 {
        let mut options = Options::default();
        (options.seed, options.faults) = (seed, Faults::stormy());
        let mut sim = Sim::new(options);
        let (other, replies) = (Rc::default(), Rc::default());
        let listener = sim.listen({
            let (other, replies) = (Rc::clone(&other), Rc::clone(&replies));
            move |_peer| Neighbour { other: Rc::clone(&other), replies: Rc::clone(&replies) }
        });
        let peers = [sim.connect(listener), sim.connect(listener), sim.connect(listener)];
        sim.advance(Duration::from_secs(5));
        assert_eq!(other.borrow().len(), 3, "seed {seed}");
        let input: Vec<u8> = pattern(5000).into_iter().map(|byte| byte | 0x80).collect();
        for piece in input.chunks(500) {
            for peer in peers {
                sim.send(peer, piece);
            }
            sim.turn();
        }
        sim.advance(Duration::from_secs(5));
        let streams = peers.map(|peer| sim.take_received(peer));
        assert_eq!(streams.iter().filter(|stream| **stream == input).count(), 2, "seed {seed}");
        // Which of the peers is the first connection is the network's choice.
        let stream = streams.iter().max_by_key(|stream| stream.len()).unwrap();
        let mut rest = &stream[..];
        let mut replied = Vec::new();
        for reply in replies.borrow().iter() {
            while let Some(behind) = rest.strip_prefix(WORD) {
                rest = behind;
            }
            assert!(rest.len() >= *reply, "seed {seed}");
            replied.extend_from_slice(&rest[..*reply]);
            rest = &rest[*reply..];
        }
        assert!(replied == input, "seed {seed}");
        assert!(rest.chunks(WORD.len()).all(|word| word == WORD), "seed {seed}");
        assert_eq!(sim.blocks_in_use(), 0, "seed {seed}");
    }
}

#[test]
fn order_is_kept_whatever_part_of_it_the_network_takes() {
    for seed in 0..200 {
        let mut options = Options::default();
        (options.seed, options.faults) = (seed, Faults::stormy());
        let mut world = world(options);
        for orders in [b"nsqn".as_slice(), b"s", b"nnqsnbbqb", b"bb", b"bbqc"] {
            world.sim.send(world.peer, orders);
            world.sim.turn();
        }
        world.sim.run();
        let some = pattern(SOME_BYTES);
        let parts: [&[u8]; 16] = [
            b"now ", &some, b"queued ", b"now ", &some, b"now ", b"now ", b"queued ", &some, b"now ", b"bb",
            b"queued ", b"b", b"bb", b"bb", b"queued ",
        ];
        assert!(world.received() == parts.concat(), "seed {seed}");
        assert_eq!(world.sim.stats().sent_bytes, parts.concat().len() as u64, "seed {seed}");
        assert_eq!(world.sim.blocks_in_use(), 0, "seed {seed}");
    }
}

#[test]
fn what_a_full_socket_leaves_is_queued_and_follows_when_there_is_room() {
    let mut world = world(Options::default());
    world.sim.stop_reading(world.peer);
    world.order(b"s?");
    world.order(b"n?");
    let left = SOME_BYTES - (64 << 10);
    assert_eq!(world.said(), [format!("queued {left}"), format!("queued {}", left + 4)]);
    world.sim.start_reading(world.peer);
    world.order(b"?");
    assert_eq!(world.said(), ["queued 0"]);
    assert_eq!(world.received(), [pattern(SOME_BYTES), b"now ".to_vec()].concat());
}

#[test]
fn more_than_the_socket_takes_holds_the_connection_back_until_it_is_drained() {
    let mut world = world(Options::default());
    world.sim.stop_reading(world.peer);
    world.order(b"f?");
    assert_eq!(world.said(), ["backed up"], "what follows waits");
    assert_eq!(world.sim.stats().backed_up, 1);
    world.sim.start_reading(world.peer);
    world.sim.run();
    assert_eq!(world.said(), ["drained", "queued 0"]);
    assert!(world.received() == pattern(FLOOD_BYTES));
}

#[test]
fn a_peer_that_takes_nothing_of_what_was_sent_now_is_cut() {
    for orders in [[b's'].as_slice(), &[b'b'; 64 << 10]] {
        let mut world = world(Options::default());
        world.sim.stop_reading(world.peer);
        world.order(orders);
        world.order(b"b");
        world.sim.advance(Duration::from_secs(60));
        assert_eq!(world.said(), ["lost Stalled"]);
    }
}

#[test]
fn a_failed_stream_is_lost_behind_the_callback_that_sent_now() {
    let mut world = world(Options::default());
    world.waker.wake_by_ref();
    world.sim.reset(world.peer);
    // Letters are opened before the network is asked, so the callback is the first to meet the reset.
    world.sim.turn();
    assert_eq!(world.said(), ["woken, queued 6", "failed ConnectionReset"]);
    assert_eq!((world.sim.open(), world.sim.blocks_in_use()), (0, 0));
}

#[test]
fn what_was_sent_now_is_not_taken_back_by_a_reset_or_a_panic() {
    for end in [b"nr".as_slice(), b"np"] {
        let mut world = world(Options::default());
        world.order(end);
        assert_eq!(world.received(), b"now ");
        assert!(world.sim.is_reset(world.peer));
    }
}

/// A server on real sockets with one connection, whose callback waits at `w` for the test.
fn server() -> (Running, TcpStream, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let tell = tell.clone();
            // The test may have ended before the server.
            let mut sender = Sender::new(move |what| drop(tell.send(what)));
            sender.gate = gate.lock().unwrap().take().map(Rc::new);
            move |_peer| sender.clone()
        })
        .unwrap()
        .start()
        .unwrap();
    let stream = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (server, stream, told, open)
}

fn next(told: &mpsc::Receiver<String>) -> String {
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

#[test]
fn a_real_socket_gets_bytes_sent_now_in_their_order() {
    let (server, mut stream, told, _open) = server();
    stream.write_all(b"?nqn?").unwrap();
    let mut back = [0; 15];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"now queued now ");
    assert_eq!([next(&told), next(&told)], ["queued 0", "queued 11"]);
    drop(stream);
    // What is queued and small leaves with the wait there.
    let sends = if backend() == "uring" { 1 } else { 2 };
    let stats = server.stop(Duration::from_secs(5)).unwrap().stats;
    assert_eq!((stats.syscalls_send, stats.sent_bytes), (sends, 15));
}

#[test]
fn a_real_socket_gets_its_input_back_however_slowly_it_reads() {
    let (server, mut stream, _told, _open) = server();
    let mut writer = stream.try_clone().unwrap();
    // More than both directions hold, so the server has to hold the writer back.
    let letters: Vec<u8> = pattern(FLOOD_BYTES).into_iter().map(|byte| b'A' + byte % 26).collect();
    let orders = letters.clone();
    let writing = std::thread::spawn(move || writer.write_all(&orders).unwrap());
    let mut back = vec![0; FLOOD_BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == letters);
    writing.join().unwrap();
    drop(stream);
    let stats = server.stop(Duration::from_secs(5)).unwrap().stats;
    assert_eq!(stats.sent_bytes, FLOOD_BYTES as u64);
}

#[test]
fn a_full_real_socket_holds_the_connection_back_until_it_is_drained() {
    let (server, mut stream, told, _open) = server();
    stream.write_all(b"fnqf").unwrap();
    assert_eq!(next(&told), "backed up");
    let flood = pattern(FLOOD_BYTES);
    let expected = [&flood, b"now queued ".as_slice(), &flood].concat();
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == expected);
    assert_eq!([next(&told), next(&told), next(&told)], ["drained", "backed up", "drained"]);
    drop(stream);
    let stats = server.stop(Duration::from_secs(5)).unwrap().stats;
    assert_eq!(stats.sent_bytes, expected.len() as u64);
    // The reader may have made room for the second flood before its rest is flushed.
    assert!((1..=2).contains(&stats.backed_up) && stats.sends_blocked >= 2, "{stats:?}");
}

#[test]
fn the_error_of_input_that_goes_back_is_the_loss_of_its_connection() {
    let (server, mut stream, told, open) = server();
    stream.write_all(b"?wb").unwrap();
    assert_eq!(next(&told), "queued 0");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    open.send(()).unwrap();
    assert_eq!(next(&told), "failed ConnectionReset");
    assert_eq!(server.stop(Duration::from_secs(5)).unwrap().stats.failed, 1);
}

#[test]
fn the_error_of_a_send_inside_a_callback_is_the_loss_of_its_connection() {
    let (server, mut stream, told, open) = server();
    stream.write_all(b"?wn?").unwrap();
    assert_eq!(next(&told), "queued 0");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    open.send(()).unwrap();
    // The kernel says it once; the next send would only be told of a broken pipe.
    assert_eq!([next(&told), next(&told)], ["queued 4", "failed ConnectionReset"]);
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert_eq!((report.stats.failed, report.cut), (1, 0));
}
