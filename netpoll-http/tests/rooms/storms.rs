//! Rooms on a network that misbehaves: each member gets a sequence without a hole, or hears of the hole in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use netpoll_core::Message as Told;
use netpoll_core::sim::{Faults, Options};
use netpoll_http::rooms::{Behind, Gap, Position, Resumed, Rooms, Settings};
use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
use netpoll_http::{App, Request, Router, TestClient, TestConnection};

use crate::chance::{Chance, seeds};
use crate::ws_bytes::{HANDSHAKE, close, frame, text};

const ROOMS: [&str; 3] = ["a", "b", "c"];

/// Does what it is told, and says where it is.
struct Member {
    rooms: Rooms,
    behind: Behind,
}

impl Handler for Member {
    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let words: Vec<_> = text.split(' ').collect();
        let answer = match words[..] {
            ["join", room] => self.rooms.join(socket, room).map(|at| format!("joined {room} {at}")),
            ["leave", room] => {
                self.rooms.leave(socket, room);
                Ok(format!("left {room}"))
            }
            ["resume", room, at] => {
                let from: Position = at.parse().expect("a position");
                self.rooms.resume(socket, room, from).map(|resumed| match resumed {
                    Resumed::All { .. } => format!("resumed {room} {from} all"),
                    Resumed::Gap(gap) => {
                        // Of the newest of each key it hears one by one.
                        let at = if self.behind == Behind::Newest { gap.after } else { gap.until };
                        format!("resumed {room} {at} gap")
                    }
                    Resumed::Anew(at) => format!("resumed {room} {at} anew"),
                    other => panic!("{other:?}"),
                })
            }
            ["I", "am", who, device] => self.rooms.session(socket, who, device).map(|back| {
                for back in back {
                    socket.text(&format!("back {}", back.room));
                }
                "here".to_owned()
            }),
            _ => panic!("{text}"),
        };
        match answer {
            Ok(answer) => socket.text(&answer),
            Err(_) => socket.text("refused"),
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        let gap = value.downcast::<Gap>().expect("a gap");
        socket.text(&format!("gap {} {} {}", gap.room, gap.after, gap.until));
    }
}

fn world(rooms: &Rooms, behind: Behind, options: Options) -> TestClient {
    let rooms = rooms.clone();
    App::new(move |worker| {
        let rooms = rooms.on(worker);
        Router::new().websocket("/", move |_: &Request| Member { rooms: rooms.clone(), behind })
    })
    .test_with(options)
}

fn settings(chance: &mut Chance, behind: Behind) -> Settings {
    Settings {
        behind,
        queued_bytes_max: 50 + chance.below(2000),
        members_per_turn: 1 + chance.below(5),
        history_messages: chance.below(30),
        history_bytes: 2000 + chance.below(20_000),
        burst_bytes_max: chance.below(30_000),
        bytes_max: 20_000 + chance.below(100_000),
        keys_max: chance.below(6),
        linger: Duration::from_millis(chance.below(500) as u64),
        lingering_max: chance.below(4),
        history_time: Duration::from_millis(500 + chance.below(5000) as u64),
        ..Settings::default()
    }
}

/// As HTTP's storms have it.
fn stormy(seed: u64, chance: &mut Chance) -> Options {
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(1 + chance.below(3)).faults(Faults::stormy());
    if chance.below(2) == 0 {
        options = options.latency(millis(chance.below(3))..=millis(3 + chance.below(10)));
    }
    if chance.below(2) == 0 {
        options = options.window(100 + chance.below(3000));
    }
    options.limits.write_high_bytes = 8 * 1024;
    options.limits.write_low_bytes = 2 * 1024;
    options.limits.write_rate_min = 0;
    options
}

/// Where a client knows itself to be in a room: what it has had, or that it has asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// The position is known, so the next message is the one behind it.
    Known(Position),
    /// It has asked to join, or to come back from there.
    Asked(Option<Position>),
    /// The server knows, so it is where the next message is.
    Told,
    /// It has left: what is still on its way does not count.
    Left,
}

struct Peer {
    connection: TestConnection,
    came: Vec<u8>,
    is_open: bool,
    is_over: bool,
    reads: bool,
    rooms: BTreeMap<&'static str, At>,
    heard: usize,
    gaps: usize,
}

impl Peer {
    fn new(client: &TestClient) -> Self {
        let mut connection = client.connect();
        connection.put(format!("{HANDSHAKE}\r\n").as_bytes());
        Self {
            connection,
            came: Vec::new(),
            is_open: false,
            is_over: false,
            reads: true,
            rooms: BTreeMap::new(),
            heard: 0,
            gaps: 0,
        }
    }

    fn say(&mut self, words: &str) {
        self.connection.put(&text(words));
    }

    /// It has had all of the rooms that it is in.
    fn is_up_to_date(&self, rooms: &Rooms) -> bool {
        let has_all = |(room, at): (&&str, &At)| match (*at, rooms.facts(room)) {
            (At::Known(at), Some(facts)) => at == facts.at,
            _ => true,
        };
        // Who does not read does not answer pings, and is reset in the end.
        self.is_over || self.connection.is_closed() || self.rooms.iter().all(has_all)
    }

    /// Takes in what has come, and looks whether it may have. Always true.
    fn check(&mut self, place: &str) -> bool {
        if !self.is_open {
            let Some(answer) = self.connection.response() else { return true };
            assert_eq!(answer.status.as_u16(), 101, "{place}");
            self.is_open = true;
        }
        self.came.extend(self.connection.received());
        while let Some(words) = self.next(place) {
            self.hear(&words, place);
        }
        true
    }

    fn next(&mut self, place: &str) -> Option<String> {
        let (len, head) = match self.came.get(1)? {
            126 => (usize::from(u16::from_be_bytes(self.came.get(2..4)?.try_into().ok()?)), 4),
            len => (usize::from(*len), 2),
        };
        let payload = self.came.get(head..head + len)?.to_vec();
        let first = self.came[0];
        self.came.drain(..head + len);
        if first == 0x88 {
            self.is_over = true;
            self.connection.put(&close(1000, ""));
            return self.next(place);
        }
        if first == 0x89 {
            self.connection.put(&frame(0x8a, b""));
            return self.next(place);
        }
        assert_eq!(first, 0x81, "{place}");
        Some(String::from_utf8(payload).expect(place))
    }

    fn hear(&mut self, words: &str, place: &str) {
        assert!(!self.is_over, "{place}: {words} behind a goodbye");
        let parts: Vec<_> = words.split(' ').collect();
        match parts[..] {
            // A message: its room, where it is, and what makes it long.
            ["m", room, at, _] => {
                let at: Position = at.parse().expect(place);
                match self.rooms.get_mut(room).expect(place) {
                    At::Known(known) => {
                        assert_eq!(
                            (at.epoch, at.sequence),
                            (known.epoch, known.sequence + 1),
                            "{place}: {room}"
                        );
                        *known = at;
                        self.heard += 1;
                    }
                    told @ At::Told => *told = At::Known(at),
                    At::Asked(_) | At::Left => {}
                }
            }
            ["joined", room, at] => {
                self.rooms.insert(name(room), At::Known(at.parse().expect(place)));
            }
            ["left", room] => {
                self.rooms.insert(name(room), At::Left);
            }
            ["back", room] => {
                self.rooms.insert(name(room), At::Told);
            }
            ["resumed", room, at, how] => {
                let at: Position = at.parse().expect(place);
                match (self.rooms[room], how) {
                    (At::Asked(Some(asked)), "all") => assert_eq!(at, asked, "{place}"),
                    (At::Asked(Some(asked)), "gap") => {
                        assert!(at.epoch == asked.epoch && at.sequence >= asked.sequence, "{place}");
                    }
                    (At::Asked(Some(asked)), "anew") => {
                        assert!(at.epoch != asked.epoch || at.sequence < asked.sequence, "{place}");
                    }
                    // What it asked for before counts no more.
                    (_, _) => {}
                }
                self.rooms.insert(name(room), At::Known(at));
            }
            ["gap", room, after, until] => {
                let (after, until): (Position, Position) =
                    (after.parse().expect(place), until.parse().expect(place));
                self.gaps += 1;
                assert!(until.sequence > after.sequence && until.epoch == after.epoch, "{place}");
                match self.rooms.get_mut(room).expect(place) {
                    At::Known(known) => {
                        assert_eq!(after, *known, "{place}: {room}");
                        *known = until;
                    }
                    told @ At::Told => *told = At::Known(until),
                    At::Asked(_) | At::Left => {}
                }
            }
            ["refused" | "here"] => {}
            _ => panic!("{place}: {words}"),
        }
    }
}

fn name(room: &str) -> &'static str {
    ROOMS.into_iter().find(|name| *name == room).expect("one of them")
}

fn storm(seed: u64, behind: Behind) -> (usize, usize) {
    let mut chance = Chance::new(seed);
    let rooms = Rooms::new(settings(&mut chance.fork(), behind));
    let client = world(&rooms, behind, stormy(seed, &mut chance));
    let mut peers: Vec<Peer> = (0..5).map(|_| Peer::new(&client)).collect();
    let (mut heard, mut gaps) = (0, 0);
    for step in 0..400 {
        let place = format!("seed {seed}, step {step}");
        let room = ROOMS[chance.below(ROOMS.len())];
        let index = chance.below(peers.len());
        let peer = &mut peers[index];
        match chance.below(20) {
            0 | 1 => {
                peer.say(&format!("join {room}"));
                let at = peer.rooms.entry(room).or_insert(At::Asked(None));
                // Of one that it may be in the answer says where it is.
                *at = At::Asked(None);
            }
            2 => {
                if let Some(At::Known(at)) = peer.rooms.get(room).copied() {
                    peer.say(&format!("resume {room} {at}"));
                    peer.rooms.insert(room, At::Asked(Some(at)));
                }
            }
            3 => {
                peer.say(&format!("leave {room}"));
                peer.rooms.insert(room, At::Left);
            }
            4 => {
                peer.reads = !peer.reads;
                if peer.reads { peer.connection.start_reading() } else { peer.connection.stop_reading() }
            }
            5 if chance.below(4) == 0 => {
                let mut old = std::mem::replace(peer, Peer::new(&client));
                old.check(&place);
                (heard, gaps) = (heard + old.heard, gaps + old.gaps);
                match chance.below(3) {
                    0 => old.connection.reset(),
                    1 => old.connection.close(),
                    _ => old.connection.send(&close(1000, "")),
                }
                // It comes back to where it was.
                for (room, at) in old.rooms {
                    if let At::Known(at) = at {
                        peer.say(&format!("resume {room} {at}"));
                        peer.rooms.insert(room, At::Asked(Some(at)));
                    }
                }
            }
            6 => peer.say(&format!("I am person{} {}", chance.below(3), chance.below(2))),
            7 => client.advance(Duration::from_millis(chance.below(200) as u64)),
            8 if chance.below(10) == 0 => client.advance(Duration::from_secs(6)),
            9 => client.run(),
            _ => {
                let long = "x".repeat(chance.below(300));
                for _ in 0..1 + chance.below(4) {
                    let make = |at: Position| Frame::text(format!("m {room} {at} {long}"));
                    if behind == Behind::Newest && chance.below(4) > 0 {
                        // Where it is, is only known behind it: so nobody else publishes.
                        let at = rooms.facts(room).map(|facts| facts.at);
                        if let Some(at) = at {
                            let at = Position { sequence: at.sequence + 1, ..at };
                            let key = format!("key {}", chance.below(8));
                            rooms.publish_keyed(room, &key, make(at));
                        }
                    } else {
                        rooms.publish_with(room, make);
                    }
                }
            }
        }
        client.turn();
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.check(&format!("{place}, peer {index}"));
        }
    }
    // Whoever is there and reads has had all in the end.
    for peer in &mut peers {
        peer.connection.start_reading();
    }
    let place = |index: usize| format!("seed {seed}, peer {index} at the end");
    for _ in 0..600 {
        client.advance(Duration::from_millis(100));
        let mut all = peers.iter_mut().enumerate();
        if all.all(|(index, peer)| peer.check(&place(index)) && peer.is_up_to_date(&rooms)) {
            break;
        }
    }
    for (index, peer) in peers.iter_mut().enumerate() {
        assert!(peer.is_up_to_date(&rooms), "{}: {:?}", place(index), peer.rooms);
        (heard, gaps) = (heard + peer.heard, gaps + peer.gaps);
    }
    let members: usize = ROOMS.iter().map(|room| rooms.members(room)).sum();
    assert!(members <= 5 * ROOMS.len());
    drop(peers);
    client.advance(Duration::from_secs(60));
    let stats = rooms.stats();
    assert_eq!((stats.rooms, stats.bytes, stats.sessions, stats.lingering), (0, 0, 0, 0), "seed {seed}");
    assert_eq!((client.open(), client.stats().panics, client.blocks_in_use()), (0, 0, 0), "seed {seed}");
    (heard, gaps)
}

fn storms(behind: Behind) {
    let (mut heard, mut gaps, mut count) = (0, 0, 0);
    for seed in seeds(100) {
        let (more, told) = storm(seed, behind);
        (heard, gaps, count) = (heard + more, gaps + told, count + 1);
    }
    assert!(
        count < 10 || (heard > 50 * count && (gaps > 0 || behind == Behind::Disconnect)),
        "{heard}, {gaps}"
    );
}

#[test]
fn each_member_gets_a_sequence_without_a_hole_or_hears_of_the_hole() {
    storms(Behind::DropOldest);
}

#[test]
fn each_jump_to_the_newest_of_a_key_is_told_of() {
    storms(Behind::Newest);
}

#[test]
fn whoever_may_miss_nothing_misses_nothing_or_is_told_to_come_back() {
    storms(Behind::Disconnect);
}
