//! WebSockets on a network that misbehaves: what is sent is echoed, whole and in order, to who stays; who leaves in any way is told of once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Commands, ConnId};
use netpoll_http::websocket::{
    CloseCode, Closed, Frame, Handler, Message, Opening, Settings, Socket, WebSocket,
};
use netpoll_http::{App, Request, Router, StatusCode, TestClient, TestConnection};

use crate::chance::{Chance, seeds};
use crate::weather::stormy;
use crate::ws_bytes::{HANDSHAKE, close, frame};

thread_local! {
    /// Whether each is open, or has heard of its end.
    static ENDS: RefCell<HashMap<ConnId, bool>> = RefCell::default();
    /// Tasks that have not ended.
    static TASKS: Cell<usize> = const { Cell::new(0) };
}

/// Echoes, pauses now and then, and tells the others.
struct Echo {
    id: Option<ConnId>,
    messages: usize,
    chance: Chance,
}

impl Echo {
    fn acts(&self) {
        let id = self.id.expect("`opened` comes first");
        assert_eq!(
            ENDS.with_borrow(|ends| ends.get(&id).copied()),
            Some(true),
            "a callback behind the last one"
        );
    }
}

impl Handler for Echo {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.id = Some(socket.id());
        assert_eq!(ENDS.with_borrow_mut(|ends| ends.insert(socket.id(), true)), None, "opened once");
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        self.acts();
        assert!(socket.is_open());
        self.messages += 1;
        match message {
            Message::Text(text) => socket.text(text),
            Message::Binary(bytes) => socket.send(&Frame::binary(bytes)),
        }
        match self.chance.below(12) {
            0 => {
                socket.pause();
                socket.conn().waker().wake_by_ref();
            }
            1 => {
                socket.pause();
                socket.resume();
            }
            2 => {
                let others: Vec<ConnId> = ENDS.with_borrow(|ends| ends.keys().copied().collect());
                let frame = Frame::text("to all");
                for other in others {
                    socket.commands().tell(other, frame.clone());
                }
            }
            _ => {}
        }
    }

    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.acts();
        socket.resume();
    }

    fn drained(&mut self, _socket: &mut WebSocket<'_, '_>) {
        self.acts();
    }

    fn closed(&mut self, _how: Closed, _commands: &mut Commands) {
        self.acts();
        ENDS.with_borrow_mut(|ends| ends.insert(self.id.expect("it was opened"), false));
    }
}

fn has_heartbeat(seed: u64) -> bool {
    !seed.is_multiple_of(3)
}

fn site(seed: u64) -> TestClient {
    ENDS.take();
    let mut chance = Chance::new(seed);
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let options = stormy(seed, &mut chance);
    let ping_after = if has_heartbeat(seed) { millis(50 + 50 * chance.below(3)) } else { Duration::ZERO };
    let settings = Settings { ping_after, ..Settings::default() };
    let open = move |req: &Request| {
        let chance = Chance::new(seed.wrapping_add(ENDS.with_borrow(HashMap::len) as u64));
        Opening::of(req)?.settings(settings).accept(Echo { id: None, messages: 0, chance })
    };
    App::new(move |_| Router::new().get("/", open)).test_with(options)
}

/// A task that is counted until it ends.
struct Counted;

impl Counted {
    fn new() -> Self {
        TASKS.set(TASKS.get() + 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TASKS.set(TASKS.get() - 1);
    }
}

/// Echoes as a task, which gives up now and then, takes its time, and has somebody else send.
async fn echo(mut socket: Socket, seed: u64) -> io::Result<()> {
    let _counted = Counted::new();
    let mut chance = Chance::new(seed);
    loop {
        let patience = Duration::from_millis(1 + chance.below(30) as u64);
        let Ok(message) = timeout(patience, socket.recv()).await else { continue };
        let Some(message) = message? else { return Ok(()) };
        match chance.below(8) {
            0 => sleep(Duration::from_millis(chance.below(20) as u64)).await,
            1 => yield_now().await,
            _ => {}
        }
        while timeout(Duration::from_millis(chance.below(3) as u64), socket.send(message.clone()))
            .await
            .is_err()
        {}
        if chance.below(10) == 0 {
            let sender = socket.sender();
            let counted = Counted::new();
            spawn_local(async move {
                // Nobody is told of an error: it is over.
                let _ = sender.send(&Frame::text("to all")).await;
                drop(counted);
            })
            .detach();
        }
    }
}

/// The same site with a task for each.
fn site_of_tasks(seed: u64) -> TestClient {
    ENDS.take();
    TASKS.set(0);
    let mut chance = Chance::new(seed);
    let options = stormy(seed, &mut chance);
    let ping_after = if has_heartbeat(seed) { Duration::from_millis(150) } else { Duration::ZERO };
    let settings = Settings { ping_after, compression: false, ..Settings::default() };
    let open = move |req: &Request| {
        Opening::of(req)?.settings(settings).accept_task(move |socket| echo(socket, seed))
    };
    App::new(move |_| Router::new().get("/", open)).test_with(options)
}

struct Peer {
    connection: TestConnection,
    bytes: Vec<u8>,
    sent: usize,
    expected: Vec<(u8, Vec<u8>)>,
    came: Vec<u8>,
    echoed: usize,
    goodbye: Option<Vec<u8>>,
    is_open: bool,
}

impl Peer {
    fn new(client: &TestClient, chance: &mut Chance) -> Self {
        let mut bytes = format!("{HANDSHAKE}\r\n").into_bytes();
        let mut expected = Vec::new();
        for _ in 0..20 {
            let len = match chance.below(10) {
                0 => 0,
                1 => 60_000 + chance.below(10_000),
                2..5 => chance.below(3000),
                _ => chance.below(130),
            };
            let payload: Vec<u8> = (0..len).map(|at| b'a' + ((at + len) % 26) as u8).collect();
            let opcode = 1 + chance.below(2) as u8;
            let mut rest = &payload[..];
            let mut first = opcode;
            while chance.below(3) == 0 {
                let (piece, behind) = rest.split_at(chance.below(rest.len() + 1));
                bytes.extend(frame(first, piece));
                (rest, first) = (behind, 0);
                if chance.below(2) == 0 {
                    bytes.extend(frame(0x89, b"between"));
                }
            }
            bytes.extend(frame(0x80 | first, rest));
            expected.push((0x80 | opcode, payload));
            match chance.below(6) {
                0 => bytes.extend(frame(0x89, b"behind")),
                1 => bytes.extend(frame(0x8a, b"of itself")),
                _ => {}
            }
        }
        bytes.extend(close(4000 + chance.below(900) as u16, "enough"));
        Self {
            connection: client.connect(),
            bytes,
            sent: 0,
            expected,
            came: Vec::new(),
            echoed: 0,
            goodbye: None,
            is_open: false,
        }
    }

    fn has_sent_all(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Sends a part; answers a ping as soon as it is seen, if that is between two frames.
    fn send(&mut self, chance: &mut Chance) {
        let most = [1, 20, 5000, 70_000][chance.below(4)];
        let end = self.bytes.len().min(self.sent + 1 + chance.below(most));
        let part = &self.bytes[self.sent..end];
        self.sent = end;
        if chance.below(3) == 0 { self.connection.send(part) } else { self.connection.put(part) }
    }

    fn check(&mut self, place: &str) {
        if !self.is_open {
            let Some(answer) = self.connection.response() else { return };
            assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS, "{place}");
            self.is_open = true;
        }
        self.came.extend(self.connection.received());
        while let Some((first, payload)) = self.next_frame() {
            assert!(self.goodbye.is_none(), "{place}: {first:x} behind a Close");
            match first {
                0x8a => assert!(payload == b"between" || payload == b"behind", "{place}"),
                0x89 => assert!(payload.is_empty(), "{place}"),
                0x81 if payload == b"to all" => {}
                0x88 => self.goodbye = Some(payload),
                _ => {
                    let (kind, sent) = self.expected.get(self.echoed).expect(place);
                    assert!(first == *kind && payload == *sent, "{place}: echo {}", self.echoed);
                    self.echoed += 1;
                }
            }
        }
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (len, head) = match self.came.get(1)? {
            126 => (usize::from(u16::from_be_bytes(self.came.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(self.came.get(2..10)?.try_into().ok()?)).ok()?, 10),
            len => (usize::from(*len), 2),
        };
        let payload = self.came.get(head..head + len)?.to_vec();
        let first = self.came[0];
        self.came.drain(..head + len);
        Some((first, payload))
    }
}

/// All have heard of their end, once, and nothing is left of them.
fn check_ends(client: &TestClient, place: &str) {
    let stats = client.stats();
    assert_eq!((client.open(), client.blocks_in_use(), stats.panics), (0, 0, 0), "{place}");
    assert!(ENDS.with_borrow(|ends| ends.values().all(|is_open| !is_open)), "{place}");
    assert_eq!(TASKS.get(), 0, "{place}: tasks");
}

#[test]
fn every_message_is_echoed_in_order_on_any_network_and_the_goodbye_behind_it() {
    for seed in seeds(150) {
        let client = site(seed);
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..3).map(|_| Peer::new(&client, &mut chance)).collect();
        while let Some(index) = pick(&peers, &mut chance) {
            peers[index].send(&mut chance);
            client.turn();
            peers[index].check(&format!("seed {seed}, peer {index}"));
        }
        client.run();
        for (index, peer) in peers.iter_mut().enumerate() {
            let place = format!("seed {seed}, peer {index}");
            peer.check(&place);
            assert_eq!(peer.echoed, peer.expected.len(), "{place}");
            let code = &peer.goodbye.as_ref().expect(&place)[..2];
            assert_eq!(u16::from_be_bytes([code[0], code[1]]) / 1000, 4, "{place}");
            assert!(peer.connection.is_closed() && !peer.connection.is_reset(), "{place}");
            peer.connection.close();
        }
        client.run();
        check_ends(&client, &format!("seed {seed}"));
    }
}

#[test]
fn who_leaves_in_any_way_and_whoever_is_drained_hears_of_one_end() {
    ends_in_any_way(site, 150);
}

#[test]
fn every_task_echoes_in_order_on_any_network_and_hears_of_the_goodbye_behind_it() {
    for seed in seeds(100) {
        let client = site_of_tasks(seed);
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..3).map(|_| Peer::new(&client, &mut chance)).collect();
        // A goodbye is answered whatever the task has still to say, so it waits for that.
        let before = frame(0x88, b"..enough").len();
        let goodbyes: Vec<_> =
            peers.iter_mut().map(|peer| peer.bytes.split_off(peer.bytes.len() - before)).collect();
        let mut steps = 0;
        while peers.iter().any(|peer| peer.echoed < peer.expected.len()) {
            match pick(&peers, &mut chance) {
                Some(index) => peers[index].send(&mut chance),
                None => client.advance(Duration::from_millis(5)),
            }
            if chance.below(3) == 0 {
                client.advance(Duration::from_millis(chance.below(5) as u64));
            }
            client.turn();
            for (index, peer) in peers.iter_mut().enumerate() {
                peer.check(&format!("seed {seed}, peer {index}"));
            }
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: they hang");
        }
        for (index, (peer, goodbye)) in peers.iter_mut().zip(goodbyes).enumerate() {
            let place = format!("seed {seed}, peer {index}");
            peer.connection.send(&goodbye);
            client.advance(Duration::from_millis(100));
            peer.check(&place);
            let code = &peer.goodbye.as_ref().expect(&place)[..2];
            assert_eq!(u16::from_be_bytes([code[0], code[1]]) / 1000, 4, "{place}");
            assert!(!peer.connection.is_reset(), "{place}");
            peer.connection.close();
        }
        client.advance(Duration::from_secs(1));
        check_ends(&client, &format!("seed {seed}"));
    }
}

#[test]
fn no_task_outlives_its_connection_however_that_ends() {
    ends_in_any_way(site_of_tasks, 100);
}

fn ends_in_any_way(site: fn(u64) -> TestClient, rounds: u64) {
    for seed in seeds(rounds) {
        let client = site(seed);
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..6).map(|_| Peer::new(&client, &mut chance)).collect();
        let drains_at = chance.below(200);
        let mut steps = 0;
        while let Some(index) = pick(&peers, &mut chance) {
            steps += 1;
            if steps == drains_at {
                client.begin_drain(Duration::from_millis(1 + chance.below(5000) as u64));
            }
            let peer = &mut peers[index];
            peer.send(&mut chance);
            let leaves = chance.below(12) == 0;
            match chance.below(5) {
                0 if leaves => peer.connection.close(),
                1 if leaves => peer.connection.reset(),
                2 if leaves => peer.connection.finish(),
                3 if leaves => peer.connection.stop_reading(),
                0 => client.stand_still(Duration::from_millis(chance.below(200) as u64)),
                1 => client.run(),
                2 => client.advance(Duration::from_millis(chance.below(300) as u64)),
                _ => client.turn(),
            }
            if leaves {
                peer.sent = peer.bytes.len();
            }
        }
        client.run();
        client.advance(Duration::from_secs(600));
        if !has_heartbeat(seed) {
            // Whoever only stops reading, and has nothing to read, is there until then.
            client.begin_drain(Duration::from_secs(4));
            client.advance(Duration::from_secs(20));
        }
        check_ends(&client, &format!("seed {seed}"));
    }
}

#[test]
fn whoever_answers_its_goodbye_in_a_drain_is_not_cut() {
    for seed in seeds(100) {
        let client = site(seed);
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..4).map(|_| Peer::new(&client, &mut chance)).collect();
        for peer in &mut peers {
            // All but the goodbye, in one piece.
            let all = peer.bytes.len() - frame(0x88, b"..enough").len();
            peer.connection.put(&peer.bytes[..all]);
            peer.sent = all;
            if chance.below(2) == 0 {
                client.turn();
            }
        }
        client.run();
        client.begin_drain(Duration::from_secs(4));
        for _ in 0..500 {
            client.advance(Duration::from_millis(10));
            for (index, peer) in peers.iter_mut().enumerate() {
                let place = format!("seed {seed}, peer {index}");
                let was_told = peer.goodbye.is_some();
                peer.check(&place);
                if let Some(goodbye) = &peer.goodbye
                    && !was_told
                {
                    assert_eq!(goodbye[..2], CloseCode::RESTART.get().to_be_bytes(), "{place}");
                    assert_eq!(peer.echoed, peer.expected.len(), "{place}");
                    peer.connection.send(&close(1012, ""));
                }
                assert!(!peer.connection.is_reset(), "{place}");
            }
        }
        check_ends(&client, &format!("seed {seed}"));
        assert!(peers.iter().all(|peer| peer.goodbye.is_some()), "seed {seed}");
    }
}

/// One that has not sent all.
fn pick(peers: &[Peer], chance: &mut Chance) -> Option<usize> {
    let left: Vec<usize> = (0..peers.len()).filter(|peer| !peers[*peer].has_sent_all()).collect();
    (!left.is_empty()).then(|| left[chance.below(left.len())])
}
