//! Members that read slowly, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpoll_core::Message as Told;
use netpoll_core::sim::Options;
use netpoll_http::rooms::{Behind, Rooms, Settings};
use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
use netpoll_http::{App, Request, Router, TestClient, TestConnection};

use crate::{heard, member, numbers, publish_long, shortened, world};

/// Messages of 3.6 KB, of which five may wait in a socket.
const SETTINGS: Settings = Settings {
    behind: Behind::DropOldest,
    queued_bytes_max: 20_000,
    members_per_turn: 256,
    history_messages: 20,
    history_bytes: 1 << 20,
    history_time: Duration::from_secs(300),
    burst_bytes_max: 4 << 20,
    bytes_max: 256 << 20,
    keys_max: 1024,
    rooms_max: 100,
    rooms_per_socket_max: 64,
    name_bytes_max: 256,
    linger: Duration::from_secs(60),
    lingering_max: 100,
};

/// One that does not read, whose kernel takes about ten messages, and one that does.
fn site(settings: Settings) -> (Rooms, TestClient, TestConnection, TestConnection) {
    let rooms = Rooms::new(settings);
    let mut options = Options::default();
    options.limits.write_rate_min = 0;
    let client = world(&rooms, options);
    let (mut slow, fast) = (member(&client, "a"), member(&client, "a"));
    slow.set_window(45_000);
    slow.stop_reading();
    (rooms, client, slow, fast)
}

/// Publishes one message after the other, and reads what the fast one gets.
fn publish_slowly(
    rooms: &Rooms,
    client: &TestClient,
    fast: &mut TestConnection,
    of: std::ops::RangeInclusive<usize>,
) {
    for number in of {
        publish_long(rooms, "a", [number]);
        client.run();
        assert_eq!(shortened(heard(fast)), numbers([number]), "whoever reads is not held up");
    }
}

/// Reads all there is, in time.
fn catches_up(client: &TestClient, slow: &mut TestConnection) -> Vec<String> {
    slow.start_reading();
    slow.set_window(1 << 20);
    client.advance(Duration::from_secs(1));
    shortened(heard(slow))
}

/// The numbers that came, what was said of those that did not, and whether each is one or the other.
fn account(all: &[String], last: usize) -> (Vec<usize>, Vec<(usize, usize)>) {
    let (mut next, mut came, mut gaps) = (1, Vec::new(), Vec::new());
    for word in all {
        if let Some((after, until)) = word.strip_prefix("> gap ").and_then(|gap| gap.split_once("..")) {
            let (after, until) = (after.parse::<usize>().unwrap(), until.parse::<usize>().unwrap());
            assert_eq!(after + 1, next, "{all:?}");
            next = until + 1;
            gaps.push((after, until));
        } else {
            assert_eq!(word.parse(), Ok(next), "{all:?}");
            came.push(next);
            next += 1;
        }
    }
    assert_eq!(next, last + 1, "{all:?}");
    (came, gaps)
}

#[test]
fn who_does_not_read_costs_what_may_wait_in_its_socket_and_goes_on_with_the_oldest_that_is_left() {
    let (rooms, client, mut slow, mut fast) = site(SETTINGS);
    publish_slowly(&rooms, &client, &mut fast, 1..=1000);
    let held = client.stats().held_output_bytes;
    assert!(held < 30_000, "{held} bytes wait");
    assert_eq!(rooms.facts("a").map(|facts| facts.messages), Some(20));
    let (came, gaps) = account(&catches_up(&client, &mut slow), 1000);
    let [(after, 980)] = gaps[..] else { panic!("{gaps:?}") };
    assert!((5..25).contains(&after), "what had been queued came");
    assert_eq!(came.len(), after + 20);
    let dropped = (980 - after) as u64;
    assert_eq!((rooms.stats().dropped, rooms.stats().gaps), (dropped, 1), "each is counted");
    assert_eq!(rooms.facts("a").map(|facts| facts.dropped), Some(dropped));
    // From here on it is as any other.
    publish_slowly(&rooms, &client, &mut fast, 1001..=1003);
    assert_eq!(shortened(heard(&mut slow)), numbers(1001..=1003));
}

#[test]
fn who_reads_again_before_it_has_missed_something_has_missed_nothing() {
    let (rooms, client, mut slow, mut fast) = site(SETTINGS);
    publish_slowly(&rooms, &client, &mut fast, 1..=28);
    assert!(client.stats().held_output_bytes > 10_000, "it is behind");
    let (came, gaps) = account(&catches_up(&client, &mut slow), 28);
    assert_eq!((came.len(), gaps.len(), rooms.stats().dropped), (28, 0, 0));
}

#[test]
fn who_reads_a_little_at_a_time_gets_a_little_at_a_time_and_hears_of_each_jump() {
    let (rooms, client, mut slow, mut fast) = site(SETTINGS);
    let mut all = Vec::new();
    for round in 0..40 {
        publish_slowly(&rooms, &client, &mut fast, round * 30 + 1..=round * 30 + 30);
        slow.start_reading();
        client.advance(Duration::from_millis(15));
        all.extend(slow.received());
        slow.stop_reading();
    }
    slow.start_reading();
    client.advance(Duration::from_secs(1));
    all.extend(slow.received());
    let words = crate::words(&all);
    let (came, gaps) = account(&shortened(words), 1200);
    assert!(gaps.len() > 10 && came.len() > 400, "{} and {}", gaps.len(), came.len());
    let missing: usize = gaps.iter().map(|(after, until)| until - after).sum();
    assert_eq!((came.len() + missing, rooms.stats().dropped), (1200, missing as u64));
}

#[test]
fn with_the_newest_of_each_key_who_is_behind_gets_that_alone_and_hears_of_each_jump() {
    let (rooms, client, mut slow, mut fast) = site(Settings { behind: Behind::Newest, ..SETTINGS });
    publish_slowly(&rooms, &client, &mut fast, 1..=40);
    let lost_before = rooms.stats().dropped;
    for number in 41..=400 {
        let key = if number == 41 { "rare".to_owned() } else { format!("key {}", number % 5) };
        rooms.publish_keyed("a", &key, Frame::text(crate::long(number)));
        client.run();
        assert_eq!(shortened(heard(&mut fast)), numbers([number]), "whoever reads gets all");
    }
    let all = catches_up(&client, &mut slow);
    let (came, _) = account(&all, 400);
    let behind: Vec<_> = came.iter().copied().filter(|number| *number > 40).collect();
    assert_eq!(behind, [41, 396, 397, 398, 399, 400], "the rare one has left the history long ago");
    let stats = rooms.stats();
    assert!(stats.dropped > lost_before && stats.superseded == 354, "{stats:?}");
}

#[test]
fn of_messages_that_may_not_be_missed_who_has_missed_one_is_told_to_come_back() {
    let (rooms, client, mut slow, mut fast) = site(Settings { behind: Behind::Disconnect, ..SETTINGS });
    publish_slowly(&rooms, &client, &mut fast, 1..=28);
    client.advance(Duration::from_secs(1));
    assert_eq!(rooms.stats().disconnected, 0, "it is behind, and has missed nothing");
    publish_slowly(&rooms, &client, &mut fast, 29..=60);
    client.advance(Duration::from_secs(1));
    assert_eq!(rooms.stats().disconnected, 1, "it need not read for that");
    slow.start_reading();
    client.run();
    let all = shortened(heard(&mut slow));
    let [came @ .., close] = &all[..] else { panic!("nothing came") };
    assert_eq!(close, "close 1013");
    account(came, came.len());
    assert_eq!((rooms.stats().disconnected, rooms.stats().dropped), (1, 0));
    assert!(slow.is_closed() || client.open() > 0);
}

#[test]
fn a_hundred_that_do_not_read_do_not_hold_up_the_others_and_their_memory_is_bounded() {
    let rooms = Rooms::new(SETTINGS);
    let mut options = Options::default();
    options.limits.write_rate_min = 0;
    let client = world(&rooms, options);
    let mut all: Vec<_> = (0..120).map(|_| member(&client, "a")).collect();
    for slow in &mut all[20..] {
        slow.set_window(1000);
        slow.stop_reading();
    }
    for number in 1..=200 {
        publish_long(&rooms, "a", [number]);
        client.advance(Duration::from_millis(1));
        for fast in &mut all[..20] {
            assert_eq!(shortened(heard(fast)), numbers([number]));
        }
    }
    let held = client.stats().held_output_bytes;
    assert!(held < 100 * 33_000, "{held} bytes wait in blocks of 16 KiB");
    assert!(rooms.stats().bytes < 20 * 5000);
    for slow in all.drain(20..) {
        drop(slow);
    }
    client.run();
    assert_eq!((rooms.members("a"), client.stats().held_output_bytes), (20, 0));
}

#[test]
fn what_a_program_says_of_gaps_does_not_pile_up_where_nobody_reads() {
    // Nothing is remembered, so all is missing at once, for everybody.
    let settings = Settings { history_messages: 0, history_bytes: 0, burst_bytes_max: 0, ..SETTINGS };
    let (rooms, client, mut slow, mut fast) = site(settings);
    slow.set_window(1000);
    for number in 0..10_000 {
        publish_long(&rooms, "a", [number]);
        client.run();
        let got = heard(&mut fast);
        assert_eq!(got, [format!("> gap {number}..{}", number + 1)]);
    }
    let held = client.stats().held_output_bytes;
    assert!(held < 50_000, "{held} bytes wait");
    let all = catches_up(&client, &mut slow);
    assert_eq!(account(&all, 10_000).0.len(), 0);
}

/// Says that it lags, in the room itself, each time that it hears of a gap.
struct Plaintive(Rooms, Arc<AtomicUsize>);

impl Handler for Plaintive {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.0.join(socket, "a").expect("there are few rooms");
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}

    fn told(&mut self, _socket: &mut WebSocket<'_, '_>, _gap: Told) {
        let times = self.1.fetch_add(1, Ordering::Relaxed);
        assert!(times < 100_000, "it has no end");
        self.0.publish_keyed("a", "lags", Frame::text(times.to_string()));
    }
}

#[test]
fn who_answers_a_gap_with_what_makes_another_one_does_so_a_turn_at_a_time() {
    let settings = Settings { behind: Behind::Newest, ..SETTINGS };
    let (rooms, told) = (Rooms::new(settings), Arc::new(AtomicUsize::new(0)));
    let (bound, counted) = (rooms.clone(), Arc::clone(&told));
    let client = App::new(move |worker| {
        let (rooms, told) = (bound.on(worker), Arc::clone(&counted));
        Router::new()
            .websocket("/", move |_: &Request| Plaintive(rooms.clone(), Arc::clone(&told)))
            .get("/plain", |_: &Request| "plain")
    })
    .test_with({
        let mut options = Options::default();
        options.limits.write_rate_min = 0;
        options
    });
    let (mut slow, mut other) = (crate::open(&client), client.connect());
    slow.set_window(45_000);
    slow.stop_reading();
    for number in 0..100 {
        rooms.publish_keyed("a", "lags", Frame::text(crate::long(number)));
        client.turn();
    }
    // Each of its complaints supersedes the one that it would get next.
    slow.start_reading();
    slow.set_window(1 << 20);
    rooms.publish_keyed("a", "lags", Frame::text("once more"));
    for _ in 0..100 {
        other.put(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..3 {
            client.turn();
        }
        assert!(other.response().is_some(), "others are served meanwhile");
    }
    let told = told.load(Ordering::Relaxed);
    assert!((100..30_000).contains(&told), "{told} times");
}
