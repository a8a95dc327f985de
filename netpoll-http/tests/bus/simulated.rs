//! How servers are spoken with: in a simulated world, where the test is the server and time takes none.

use std::time::Duration;

use netpoll_core::sim::{Options, PeerId};
use netpoll_http::rooms::bus::{self, Bus};
use netpoll_http::rooms::{Rooms, Settings};
use netpoll_http::websocket::Frame;
use netpoll_http::{App, Request, Router, TestClient};

const AGREED: &[u8] = b"%1\r\n+proto\r\n:3\r\n";
const INFO: &[u8] = b"INFO {\"max_payload\":1048576}\r\n";

struct World {
    rooms: Rooms,
    client: TestClient,
}

impl World {
    fn new(url: &str, is_refused: bool) -> Self {
        Self::with(url, is_refused, Settings::default())
    }

    fn with(url: &str, is_refused: bool, settings: Settings) -> Self {
        // What is too slow for the core is another story.
        let mut options = Options::default();
        options.limits.write_rate_min = 0;
        let bus = if url.starts_with("redis") { Bus::redis(url) } else { Bus::nats(url) };
        let rooms = Rooms::new(settings).bus(bus.expect("a URL"));
        let bound = rooms.clone();
        let client = App::new(move |worker| {
            let rooms = bound.on(worker);
            Router::new().get("/", move |_: &Request| format!("{:?}", rooms.bus_stats()))
        })
        .test_with(options);
        client.world(|sim| sim.refuse_connections(is_refused));
        client.run();
        Self { rooms, client }
    }

    fn redis() -> Self {
        Self::new("redis://192.0.2.1", false)
    }

    /// The server's side of a connection that was made now.
    fn dialed(&self) -> Option<PeerId> {
        self.client.world(|sim| sim.take_dialed().pop()).map(|(server, _)| server)
    }

    fn say(&self, server: PeerId, bytes: &[u8]) {
        self.client.world(|sim| sim.send(server, bytes));
        self.client.run();
    }

    fn heard(&self, server: PeerId) -> String {
        let bytes = self.client.world(|sim| sim.take_received(server));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn is_closed(&self, server: PeerId) -> bool {
        self.client.world(|sim| sim.is_closed(server) || sim.is_reset(server))
    }

    fn seconds(&self, seconds: u64) {
        self.client.advance(Duration::from_secs(seconds));
    }

    fn stats(&self) -> bus::Stats {
        self.rooms.bus_stats().expect("there is a bus")
    }

    fn failure(&self) -> String {
        self.stats().last_failure.expect("something has failed").to_string()
    }
}

/// The words are there, in this order.
fn are_in_order(text: &str, words: &[&str]) {
    let mut rest = text;
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} of {words:?} is not in {rest:?}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn nothing_is_ordered_before_redis_has_agreed_and_subscriptions_come_first() {
    let world = World::redis();
    world.rooms.publish("a", Frame::text("early")).expect("published");
    world.client.run();
    let server = world.dialed().expect("a connection");
    assert_eq!(world.heard(server), "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
    assert!(!world.stats().is_connected);
    world.say(server, &AGREED[..7]);
    assert_eq!(world.heard(server), "");
    world.say(server, &AGREED[7..]);
    assert!(world.stats().is_connected);
    let orders = [
        "SUBSCRIBE",
        "netpoll:all",
        "SUBSCRIBE",
        "netpoll:room:a",
        "PUBLISH",
        "netpoll:all",
        "PUBLISH",
        "early",
    ];
    are_in_order(&world.heard(server), &orders);
    world.rooms.publish("a", Frame::text("late")).expect("published");
    world.client.run();
    are_in_order(&world.heard(server), &["PUBLISH", "netpoll:room:a", "late"]);
    world.seconds(2);
    are_in_order(&world.heard(server), &["PUBLISH", "netpoll:all"]);
}

#[test]
fn nats_speaks_first_and_is_answered_when_it_asks() {
    let world = World::new("nats://token@192.0.2.1", false);
    let server = world.dialed().expect("a connection");
    assert_eq!(world.heard(server), "");
    world.say(server, INFO);
    are_in_order(&world.heard(server), &["CONNECT {", "\"auth_token\":\"token\"}\r\n", "PING\r\n"]);
    world.say(server, b"PONG\r\nPING\r\n");
    are_in_order(&world.heard(server), &["PONG\r\n", "SUB netpoll.all 1\r\n", "PUB netpoll.all 10\r\n"]);
    world.rooms.publish("a", Frame::text("hello")).expect("published");
    world.client.run();
    are_in_order(
        &world.heard(server),
        &["SUB netpoll.room.a 2\r\n", "PUB netpoll.room.a 44\r\n", "hello\r\n"],
    );
}

#[test]
fn what_nats_refuses_of_one_room_is_said_and_costs_the_others_nothing() {
    let world = World::new("nats://192.0.2.1", false);
    let server = world.dialed().expect("a connection");
    world.say(server, INFO);
    world.say(server, b"PONG\r\n");
    for refused in [
        "'maximum subscriptions exceeded'",
        "'Permissions Violation for Subscription to \"netpoll.room.a\"'",
        "'Permissions Violation for Publish to \"netpoll.room.a\"'",
    ] {
        world.say(server, format!("-ERR {refused}\r\n").as_bytes());
        assert!(world.stats().is_connected, "{refused}");
        assert_eq!(world.failure(), format!("192.0.2.1:4222: {refused}"));
    }
    // Without the channel of all nobody would know what is missing.
    world.say(server, b"-ERR 'Permissions Violation for Subscription to \"netpoll.all\"'\r\n");
    assert!(!world.stats().is_connected);
}

#[test]
fn a_name_that_is_too_long_for_a_line_of_nats_is_not_said() {
    let settings = Settings { name_bytes_max: 10_000, ..Settings::default() };
    let world = World::with("nats://192.0.2.1", false, settings);
    let server = world.dialed().expect("a connection");
    world.say(server, INFO);
    world.say(server, b"PONG\r\n");
    world.rooms.publish(&" ".repeat(2000), Frame::text("long")).expect("published");
    world.rooms.publish("short", Frame::text("hello")).expect("published");
    world.client.run();
    let said = world.heard(server);
    are_in_order(&said, &["SUB netpoll.room.short ", "PUB netpoll.room.short "]);
    assert!(said.lines().all(|line| line.len() < 4096), "the longest that a server takes by itself");
    assert_eq!(world.stats().dropped, 1);
}

#[test]
fn a_server_that_is_silent_is_asked_whether_it_is_there_and_given_up_if_it_does_not_answer() {
    let world = World::redis();
    let server = world.dialed().expect("a connection");
    world.say(server, AGREED);
    world.heard(server);
    for _ in 0..3 {
        world.seconds(11);
        assert_eq!(world.heard(server), "*1\r\n$4\r\nPING\r\n", "once");
        world.say(server, b"+PONG\r\n");
    }
    assert!(world.stats().is_connected);
    world.seconds(21);
    assert!(world.is_closed(server));
    assert!(world.failure().ends_with("the server is silent"), "{}", world.failure());
    world.seconds(1);
    let again = world.dialed().expect("it is tried again");
    world.say(again, AGREED);
    assert_eq!((world.stats().is_connected, world.stats().reconnects), (true, 1));
}

#[test]
fn a_server_that_is_not_there_is_tried_less_and_less_often() {
    let world = World::new("redis://192.0.2.1", true);
    world.seconds(2);
    let first = world.client.stats().connect_failures;
    assert!((5..=8).contains(&first), "{first}");
    world.seconds(60);
    let later = world.client.stats().connect_failures - first;
    assert!((12..=27).contains(&later), "{later}");
    assert!(world.failure().starts_with("192.0.2.1:6379: "), "{}", world.failure());
    world.client.world(|sim| sim.refuse_connections(false));
    world.seconds(5);
    let server = world.dialed().expect("a connection");
    world.say(server, AGREED);
    assert_eq!((world.stats().is_connected, world.stats().reconnects), (true, 0));
}

#[test]
fn a_server_that_never_agrees_or_speaks_otherwise_is_given_up() {
    let world = World::redis();
    let silent = world.dialed().expect("a connection");
    world.say(silent, b"$1\r\n");
    world.seconds(16);
    assert!(world.is_closed(silent));
    assert!(world.failure().ends_with("does not say that it is ready"), "{}", world.failure());
    let other = world.dialed().expect("another connection");
    world.say(other, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(world.failure().ends_with("it does not speak as Redis does"), "{}", world.failure());
    world.client.run();
    assert!(world.is_closed(other));
}

#[test]
fn a_server_that_takes_nothing_is_given_up_and_what_waits_is_bounded() {
    let world = World::redis();
    let server = world.dialed().expect("a connection");
    world.say(server, AGREED);
    world.client.world(|sim| {
        sim.set_window(server, 1000);
        sim.stop_reading(server);
    });
    let payload = "x".repeat(100_000);
    for _ in 0..400 {
        world.rooms.publish("a", Frame::text(&payload)).expect("published");
        world.client.run();
    }
    let stats = world.stats();
    assert!(stats.queued_bytes <= bus::Settings::default().queue_bytes, "{stats:?}");
    assert!(stats.dropped > 200, "{stats:?}");
    for _ in 0..4 {
        // It says something, but takes nothing.
        world.say(server, b":1\r\n");
        world.seconds(5);
    }
    assert!(world.failure().ends_with("the server takes nothing"), "{}", world.failure());
}

#[test]
fn what_a_server_says_in_pieces_is_heard_whole() {
    let (one, other) = (World::redis(), World::redis());
    let (at_one, at_other) = (one.dialed().expect("a connection"), other.dialed().expect("a connection"));
    one.say(at_one, AGREED);
    other.rooms.publish("a", Frame::text("its own room")).expect("published");
    other.say(at_other, AGREED);
    one.heard(at_one);
    one.rooms.publish("a", Frame::text("piece by piece")).expect("published");
    one.client.run();
    let said = one.client.world(|sim| sim.take_received(at_one));
    let published = memchr::memmem::rfind(&said, b"PUBLISH\r\n").expect("it was said") + b"PUBLISH\r\n".len();
    let message = [b">3\r\n$7\r\nmessage\r\n", &said[published..]].concat();
    for byte in message {
        other.say(at_other, &[byte]);
    }
    let stats = other.stats();
    assert_eq!((stats.received, stats.malformed, stats.is_connected), (1, 0, true));
    assert_eq!(other.rooms.facts("a").expect("it is there").at.sequence, 2);
}

#[test]
fn a_server_that_agrees_and_refuses_what_follows_is_tried_less_and_less_often() {
    let world = World::redis();
    let mut tried = [0, 0];
    for (minute, tried) in tried.iter_mut().enumerate() {
        for _ in 0..600 {
            if let Some(server) = world.dialed() {
                *tried += 1;
                world.say(server, AGREED);
                are_in_order(&world.heard(server), &["SUBSCRIBE", "netpoll:all"]);
                world.say(server, b"-NOPERM no permissions to access one of the channels\r\n");
                assert!(world.is_closed(server), "{minute}");
            }
            world.client.advance(Duration::from_millis(100));
        }
    }
    assert!((12..=30).contains(&tried[0]) && (12..=24).contains(&tried[1]), "{tried:?}");
    assert!(world.failure().contains("NOPERM"), "{}", world.failure());
    // Whoever has been there for a while is tried again at once.
    world.seconds(10);
    let server = world.dialed().expect("a connection");
    world.say(server, AGREED);
    world.seconds(9);
    world.say(server, b"-ERR\r\n");
    world.client.advance(Duration::from_millis(101));
    assert!(world.dialed().is_some());
}

#[test]
fn a_server_that_asks_and_does_not_take_the_answers_is_given_up() {
    let world = World::new("nats://192.0.2.1", false);
    let server = world.dialed().expect("a connection");
    world.say(server, INFO);
    world.say(server, b"PONG\r\n");
    assert!(world.stats().is_connected);
    world.client.world(|sim| {
        sim.set_window(server, 1000);
        sim.stop_reading(server);
    });
    let questions = b"PING\r\n".repeat(1000);
    let times = (0..1000).take_while(|_| {
        world.say(server, &questions);
        world.stats().is_connected
    });
    assert!(times.count() < 100, "less than 600 KB of answers");
    assert!(world.failure().ends_with("the server takes no answers"), "{}", world.failure());
}
