//! What only the inside can know: whom the poller asks for room, and what it makes of errors that loopback does not bring.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::super::super::{HangUp, Io, Limits, Verdict};
use super::super::batch::Batch;
use super::*;
use crate::mem::Pool;
use crate::sys::{Epoll, Events, Timeout};

const KEY: Key = Key::new(254, 1, 0);
const LIMITS: Limits = Limits { events: 8, read_bytes: 1024, accepts: 1 };
const SETUP: DatagramSetup = DatagramSetup {
    batch: 4,
    per_turn: 6,
    bytes_max: 100,
    join_received: false,
    join_sent: true,
    is_shared: false,
};

/// Writes down what is reported.
struct Log {
    pool: Pool,
    seen: Vec<String>,
}

impl Sink for Log {
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }
    fn listener_empty(&mut self, _io: &mut dyn Io, _listener: Key) {}

    fn accepted(
        &mut self,
        _io: &mut dyn Io,
        _listener: Key,
        _peer: io::Result<Option<sys::Address>>,
    ) -> Option<Key> {
        None
    }
    fn opened(&mut self, _io: &mut dyn Io, _key: Key, _result: io::Result<()>) {}
    fn received(&mut self, _io: &mut dyn Io, _key: Key, _chunk: &mut [u8]) -> Verdict {
        Verdict::Gone
    }
    fn unsent(&mut self, _key: Key, _bytes: &[u8]) {}
    fn sent(&mut self, _io: &mut dyn Io, key: Key, bytes: usize) {
        assert_eq!((key, bytes), (KEY, 0));
        self.seen.push("room".to_owned());
    }
    fn hung_up(&mut self, _io: &mut dyn Io, _key: Key, _how: HangUp) {}
    fn ending(&mut self, _io: &mut dyn Io, _key: Key) {}
    fn datagrams(&mut self, _io: &mut dyn Io, key: Key, batch: &mut Datagrams<'_>) {
        assert_eq!(key, KEY);
        self.seen.push(format!("{} datagrams", batch.len()));
    }
    fn unfinished(&mut self, key: Key) {
        assert_eq!(key, KEY);
        self.seen.push("unfinished".to_owned());
    }
    fn delivered(&mut self, _io: &mut dyn Io) {}
}

struct World {
    streams: Streams<Epoll>,
    batch: Batch,
    addr: SocketAddr,
    peer: UdpSocket,
}

impl World {
    fn new() -> Self {
        Self::with(&SETUP)
    }

    fn with(setup: &DatagramSetup) -> Self {
        let mut streams = Streams::new(Epoll::new().unwrap()).unwrap();
        let socket = sys::bind_datagrams("127.0.0.1:0".parse().unwrap(), sys::Sharing::Alone).unwrap();
        let addr = sys::local_addr(socket.as_fd()).unwrap().as_socket_addr().unwrap();
        streams.bind(KEY, socket, setup).unwrap();
        Self { streams, batch: Batch::new(), addr, peer: UdpSocket::bind("127.0.0.1:0").unwrap() }
    }

    /// What is reported at once.
    fn look(&mut self) -> Vec<String> {
        let mut events = Events::with_capacity(8);
        let count = self.streams.poller.wait(&mut events, 8, Timeout::After(Duration::ZERO)).unwrap();
        let mut log = Log { pool: Pool::new(0), seen: Vec::new() };
        for index in 0..count {
            let event = events.get(index);
            assert_eq!(Key::from_bits(event.data), KEY);
            let (readable, writable, failed) = (event.is_readable(), event.is_writable(), event.is_error());
            if writable {
                log.seen.push("writable".to_owned());
            }
            self.batch.put_off(KEY, Readiness { readable, writable, failed, ..Readiness::default() });
        }
        self.streams.deliver(&mut self.batch, &LIMITS, &mut log);
        log.seen
    }

    fn resume(&mut self) -> Vec<String> {
        let mut log = Log { pool: Pool::new(0), seen: Vec::new() };
        self.streams.resume(&mut self.batch, &LIMITS, &mut log, KEY);
        log.seen
    }

    fn queue(&self, datagrams: usize, len: usize) -> DatagramQueue {
        let mut queue = DatagramQueue::new(usize::MAX);
        for _ in 0..datagrams {
            assert!(queue.push(self.peer.local_addr().unwrap().into(), &vec![7; len]));
        }
        queue
    }
}

#[test]
fn a_turn_takes_its_share_and_the_rest_is_reported_unfinished() {
    let mut world = World::new();
    assert_eq!(world.look(), [""; 0]);
    for _ in 0..14 {
        world.peer.send_to(b"x", world.addr).unwrap();
    }
    assert_eq!(world.look(), ["4 datagrams", "2 datagrams", "unfinished"]);
    assert_eq!(world.look(), [""; 0], "the poller reports an edge once");
    assert_eq!(world.resume(), ["4 datagrams", "2 datagrams", "unfinished"]);
    assert_eq!(world.resume(), ["2 datagrams"]);
    assert_eq!(world.streams.counts().quantum_hits, 2);
    assert_eq!(world.resume(), [""; 0]);
}

#[test]
fn what_a_peer_sends_joined_comes_one_by_one_whether_the_kernel_may_join_it_or_not() {
    for (join_received, expected) in
        [(false, ["4 datagrams", "4 datagrams", "2 datagrams"]), (true, ["10 datagrams", "", ""])]
    {
        let mut world = World::with(&DatagramSetup { join_received, per_turn: 100, ..SETUP });
        let bytes: Vec<u8> = (0..200).collect();
        let parcel = Parcel { to: world.addr, from: None, bytes: &bytes, segment: Some(20) };
        // Ten datagrams that together are longer than one may be.
        assert_eq!(Outgoing::new().send(world.peer.as_fd(), [parcel].into_iter()).unwrap(), 1);
        let seen = world.look();
        assert_eq!(seen, expected.into_iter().filter(|what| !what.is_empty()).collect::<Vec<_>>());
        let counts = world.streams.counts();
        assert_eq!((counts.datagrams_received, counts.datagrams_truncated), (10, 0));
    }
}

#[test]
fn room_is_asked_for_when_a_send_was_cut_short_and_no_longer() {
    let mut world = World::new();
    let mut queue = world.queue(3, 10);
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    assert_eq!(world.look(), [""; 0], "what has left is no event");
    // Loopback never fills a socket; here somebody says that it has.
    world.streams.datagrams.sockets.get_mut(KEY).unwrap().awaits_room = true;
    world.streams.await_room(KEY, true);
    world.peer.send_to(b"x", world.addr).unwrap();
    assert_eq!(world.look(), ["writable", "room", "1 datagrams"]);
    let mut queue = world.queue(3, 10);
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    assert_eq!(world.look(), [""; 0]);
}

#[test]
fn what_cannot_leave_joined_leaves_one_by_one_and_is_not_tried_again() {
    let mut world = World::new();
    // Longer than a packet of loopback, so that it cannot be a segment (`udp_send_skb` says EINVAL or EMSGSIZE).
    world.streams.datagrams.sockets.get_mut(KEY).unwrap().joining.bytes_max = usize::MAX;
    let mut queue = world.queue(2, 65_500);
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    for _ in 0..2 {
        assert_eq!(world.peer.recv(&mut [0; 65_536]).unwrap(), 65_500);
    }
    let counts = *world.streams.counts();
    assert_eq!((counts.datagrams_sent, counts.datagrams_refused), (2, 0));
    assert_eq!(counts.syscalls_sendmmsg, 3, "joined, once more as it may be another's error, and alone");
    let mut queue = world.queue(2, 65_500);
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    assert_eq!(world.streams.counts().syscalls_sendmmsg, 4, "it knows better now");
}

#[test]
fn a_peer_that_cannot_be_answered_does_not_keep_others_from_being_answered_joined() {
    let mut world = World::new();
    // Whoever writes a source port of zero into datagrams of theirs.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut queue = DatagramQueue::new(usize::MAX);
    for _ in 0..3 {
        assert!(queue.push(nobody.into(), b"ten bytes."));
    }
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    let counts = *world.streams.counts();
    assert_eq!((counts.datagrams_refused, counts.datagrams_sent), (3, 0));
    assert_eq!(counts.syscalls_sendmmsg, 4, "joined, and each by itself");
    let socket = world.streams.datagrams.sockets.get(KEY).unwrap();
    assert_eq!((socket.joining.segment_max, socket.joining.datagrams_max), (usize::MAX, 64));
}

#[test]
fn a_refusal_costs_one_datagram_of_those_in_front_and_behind() {
    let mut world = World::new();
    let mut queue = world.queue(2, 10);
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    for _ in 0..2 {
        assert!(queue.push(broadcast.into(), b"nobody has asked for that"));
    }
    assert!(queue.push(world.peer.local_addr().unwrap().into(), b"last"));
    assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    let counts = world.streams.counts();
    assert_eq!((counts.datagrams_sent, counts.datagrams_refused), (3, 2));
}

#[test]
fn a_pending_error_is_counted_and_neither_direction_ends() {
    let mut world = World::new();
    // Only a connected socket is told of ICMP errors: this one is, for the time of the test.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = world.streams.datagrams.sockets.get(KEY).unwrap().fd.try_clone().unwrap();
    let socket = UdpSocket::from(socket);
    socket.connect(gone).unwrap();
    for _ in 0..2 {
        let mut queue = DatagramQueue::new(usize::MAX);
        assert!(queue.push(gone.into(), b"is anybody there?"));
        // The error of the first one is told to the second one, which leaves all the same.
        assert_eq!(world.streams.send_to(KEY, &mut queue), DatagramsFlushed::Done);
    }
    assert_eq!(world.look(), [""; 0]);
    let counts = *world.streams.counts();
    assert_eq!((counts.datagrams_sent, counts.datagrams_refused), (2, 0));
    assert_eq!(counts.datagram_errors, 2, "one was told to a send, one to a receive");
    socket.connect(world.peer.local_addr().unwrap()).unwrap();
    world.peer.send_to(b"x", world.addr).unwrap();
    assert_eq!(world.look(), ["1 datagrams"]);
}
