//! How much rooms may be, and what is left of those that nobody is in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_http::rooms::{Behind, ParsePositionError, Position, Rooms, Settings};
use netpoll_http::websocket::Frame;

use crate::{heard, long, member, open, publish, publish_long, says, site, world};

#[test]
fn a_room_that_nobody_is_in_goes_when_what_it_remembers_is_old() {
    let (rooms, client) = site(Settings::default());
    let mut one = member(&client, "a");
    publish(&rooms, "a", [1]);
    client.advance(Duration::from_secs(1000));
    assert!(rooms.facts("a").is_some(), "somebody is in it");
    assert_eq!(says(&mut one, "leave a"), "1, > left true");
    publish(&rooms, "b", [1]);
    client.advance(Duration::from_secs(299));
    assert_eq!(rooms.stats().rooms, 2);
    publish(&rooms, "b", [2]);
    client.advance(Duration::from_secs(2));
    assert!(rooms.facts("a").is_none());
    // Somebody comes at the last moment.
    client.advance(Duration::from_secs(296));
    says(&mut one, "join b");
    client.advance(Duration::from_secs(1000));
    assert_eq!(rooms.facts("b").map(|facts| facts.at.sequence), Some(2));
    one.close();
    client.advance(Duration::from_secs(302));
    assert_eq!((rooms.stats().rooms, rooms.stats().bytes), (0, 0));
}

#[test]
fn a_thousand_rooms_come_and_go() {
    let (rooms, client) = site(Settings { rooms_max: 1000, ..Settings::default() });
    for round in 0..3 {
        for number in 0..1000 {
            publish(&rooms, &format!("{round} {number}"), [number]);
        }
        assert_eq!(rooms.publish("one more", Frame::text("x")), None);
        assert!(rooms.publish(&format!("{round} 7"), Frame::text("x")).is_some(), "it is there already");
        let mut one = open(&client);
        assert_eq!(says(&mut one, "join more"), "> there are as many rooms as there may be");
        client.advance(Duration::from_secs(301));
        assert_eq!((rooms.stats().rooms, rooms.stats().bytes), (0, 0));
    }
}

#[test]
fn a_socket_is_in_so_many_rooms_and_a_name_is_so_long_and_no_more() {
    let settings = Settings { rooms_per_socket_max: 2, name_bytes_max: 5, ..Settings::default() };
    let (rooms, client) = site(settings);
    let mut one = open(&client);
    assert_eq!(says(&mut one, "join a"), "> at 0");
    assert_eq!(says(&mut one, "join b"), "> at 0");
    assert_eq!(says(&mut one, "join c"), "> the socket is in as many rooms as it may be");
    assert_eq!(says(&mut one, "join a"), "> at 0", "it is in it already");
    says(&mut one, "leave a");
    assert_eq!(says(&mut one, "join 123456"), "> the name is too long");
    assert_eq!(says(&mut one, "join 12345"), "> at 0");
    assert_eq!(says(&mut one, "I am somebody x"), "> the name is too long");
    assert_eq!(rooms.publish("123456", Frame::text("x")), None);
    assert_eq!(rooms.publish_with("123456", |_| Frame::text("x")), None);
    assert_eq!(rooms.publish_keyed("a", "123456", Frame::text("x")), None);
    assert_eq!(rooms.stats().rooms, 3);
}

#[test]
fn what_rooms_remember_is_bounded_for_each_and_for_all() {
    // Of 3.8 KB each, all counted.
    let settings = Settings { history_bytes: 50_000, bytes_max: 200_000, ..Settings::default() };
    let (rooms, client) = site(settings);
    let mut one = member(&client, "0");
    for number in 0..20 {
        publish_long(&rooms, &number.to_string(), 1..=30);
        client.run();
        let facts = rooms.facts(&number.to_string()).expect("there");
        assert!(facts.bytes <= 50_000 && facts.messages > 0, "{facts:?}");
        assert!(rooms.stats().bytes < 200_000 + 20 * 5000, "{:?}", rooms.stats());
    }
    assert_eq!(rooms.facts("1").map(|facts| facts.messages), Some(13));
    assert_eq!(rooms.facts("19").map(|facts| facts.messages), Some(1), "the last one");
    assert_eq!(heard(&mut one).len(), 30, "whoever reads has had them");
    let sum: usize = (0..20).map(|number| rooms.facts(&number.to_string()).expect("there").bytes).sum();
    assert_eq!(rooms.stats().bytes, sum);
    client.advance(Duration::from_secs(301));
    assert_eq!(rooms.stats().bytes, rooms.facts("0").expect("somebody is in it").bytes);
}

#[test]
fn what_is_kept_by_its_key_counts_among_the_bytes_of_a_room() {
    let settings = Settings {
        behind: Behind::Newest,
        history_messages: 4,
        history_bytes: 50_000,
        ..Settings::default()
    };
    let (rooms, _client) = site(settings);
    for number in 0..100 {
        rooms.publish_keyed("a", &format!("small {number}"), Frame::text("x"));
    }
    for number in 0..60 {
        rooms.publish_keyed("a", &format!("large {number}"), Frame::text(long(number)));
        let facts = rooms.facts("a").expect("there");
        assert!(facts.bytes <= 50_000 && facts.messages > 0, "{facts:?}");
    }
    assert_eq!(rooms.facts("a").map(|facts| (facts.bytes, facts.messages)), Some((13 * 3812, 13)));
}

#[test]
fn keys_count_among_the_bytes_of_a_room() {
    let settings = Settings {
        behind: Behind::Newest,
        history_messages: 4,
        history_bytes: 50_000,
        name_bytes_max: 10_000,
        ..Settings::default()
    };
    let (rooms, _client) = site(settings);
    for number in 0..100 {
        rooms.publish_keyed("a", &format!("{number:010000}"), Frame::text("x"));
        let facts = rooms.facts("a").expect("there");
        assert!(facts.messages <= 4, "{facts:?}");
    }
}

#[test]
fn what_is_old_goes_though_somebody_is_in_the_room() {
    let (rooms, client) = site(Settings::default());
    let mut one = member(&client, "a");
    publish(&rooms, "a", 1..=10);
    client.advance(Duration::from_secs(200));
    publish(&rooms, "a", [11]);
    let messages = || rooms.facts("a").expect("somebody is in it").messages;
    client.advance(Duration::from_secs(99));
    assert_eq!(messages(), 11);
    client.advance(Duration::from_secs(2));
    assert_eq!(messages(), 1);
    client.advance(Duration::from_secs(200));
    assert_eq!((messages(), rooms.stats().bytes, rooms.stats().rooms), (0, 0, 1));
    assert_eq!(heard(&mut one).len(), 11);
    publish(&rooms, "a", [12]);
    client.run();
    assert_eq!(heard(&mut one), ["12"]);
}

#[test]
fn a_room_that_is_used_again_and_again_goes_in_time_behind_the_last() {
    let (rooms, client) = site(Settings::default());
    publish(&rooms, "a", [1]);
    client.advance(Duration::from_secs(10));
    publish(&rooms, "a", [2]);
    client.advance(Duration::from_secs(280));
    publish(&rooms, "b", [1]);
    client.advance(Duration::from_secs(21));
    assert_eq!((rooms.facts("a"), rooms.stats().rooms), (None, 1), "b is younger, and a waits for nobody");
}

#[test]
fn rooms_that_remember_nothing_make_room_for_others() {
    let (rooms, client) = site(Settings { rooms_max: 100, ..Settings::default() });
    let (mut restless, mut other) = (open(&client), member(&client, "used"));
    publish(&rooms, "said", [1]);
    for number in 0..1000 {
        assert_eq!(says(&mut restless, &format!("join {number}")), "> at 0");
        assert_eq!(says(&mut restless, &format!("leave {number}")), "> left true");
    }
    assert!(rooms.stats().rooms <= 100);
    assert_eq!(says(&mut other, "join more"), "> at 0");
    assert_eq!(rooms.facts("said").map(|facts| facts.messages), Some(1), "it remembers something");
    assert_eq!(rooms.members("used"), 1);
}

#[test]
fn no_name_is_longer_than_a_bus_can_say_it() {
    let (rooms, client) = site(Settings { name_bytes_max: 1 << 20, ..Settings::default() });
    let mut one = open(&client);
    assert_eq!(says(&mut one, &format!("join {}", "x".repeat(65_535))), "> the name is too long");
    assert_eq!(says(&mut one, &format!("join {}", "x".repeat(65_534))), "> at 0");
    assert_eq!(rooms.publish_keyed("a", &"x".repeat(65_535), Frame::text("x")), None);
}

#[test]
fn without_a_server_nobody_hears_and_with_another_one_it_is_a_mistake() {
    let rooms = Rooms::new(Settings::default());
    assert_eq!(rooms.publish("a", Frame::text("x")), None);
    assert_eq!(rooms.publish_with("a", |_| Frame::text("x")), None);
    assert_eq!((rooms.members("a"), rooms.facts("a")), (0, None));
    let client = world(&rooms, Options::default());
    assert!(rooms.publish("a", Frame::text("x")).is_some());
    let again = catch_unwind(AssertUnwindSafe(|| world(&rooms, Options::default())));
    assert!(again.is_err());
    drop(client);
    assert!(rooms.publish("a", Frame::text("x")).is_some(), "the world has ended, and nothing happens");
}

#[test]
fn a_position_is_read_as_it_was_written_and_nothing_else_is_one() {
    for (epoch, sequence) in [(0, 0), (7, 42), (u64::MAX, u64::MAX)] {
        let at = Position { epoch, sequence };
        assert_eq!(at.to_string().parse(), Ok(at));
    }
    for text in [
        "",
        ".",
        "7.42",
        "0000000000000007.",
        "0000000000000007.-1",
        "+000000000000007.1",
        "0000000000000007.1 ",
        "0000000000000007.18446744073709551616",
    ] {
        assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text}");
    }
}
