//! Who gets what, when, and in how many pieces.

use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_http::rooms::{Rooms, Settings};
use netpoll_http::websocket::{Client, CloseCode, Frame, Handler, Message, WebSocket};
use netpoll_http::{App, Request, Router};

use crate::ws_bytes::{HANDSHAKE, close, frames, text};
use crate::{heard, member, numbers, open, opened, publish, publish_long, says, shortened, site, world};

#[test]
fn whoever_is_in_a_room_gets_what_is_published_there_in_order_and_nobody_else_does() {
    let (rooms, client) = site(Settings::default());
    let mut all = [member(&client, "a"), member(&client, "a"), member(&client, "b")];
    publish(&rooms, "a", 0..500);
    publish(&rooms, "b", [7]);
    client.run();
    assert_eq!(heard(&mut all[0]), numbers(0..500));
    assert_eq!(heard(&mut all[1]), numbers(0..500));
    assert_eq!(heard(&mut all[2]), ["7"]);
    // One that leaves, and one that says something.
    assert_eq!(says(&mut all[0], "leave a"), "> left true");
    assert_eq!(says(&mut all[0], "leave a"), "> left false");
    assert_eq!(says(&mut all[0], "say a hello"), "", "it is no member any more");
    assert_eq!(heard(&mut all[1]), ["hello"]);
    assert_eq!((rooms.members("a"), rooms.members("b"), rooms.members("c")), (1, 1, 0));
    assert_eq!(rooms.stats().gaps, 0);
}

#[test]
fn a_socket_counts_once_for_each_room_that_it_is_in_however_it_leaves() {
    let (rooms, client) = site(Settings::default());
    let mut all = [member(&client, "a"), member(&client, "a"), member(&client, "b")];
    assert_eq!(says(&mut all[0], "join b"), "> at 0");
    assert_eq!(says(&mut all[0], "join b"), "> at 0");
    assert_eq!((rooms.stats().members, rooms.stats().rooms), (4, 2));
    assert_eq!(says(&mut all[0], "leave a"), "> left true");
    assert_eq!(rooms.stats().members, 3);
    all[0].close();
    all[1].reset();
    client.run();
    assert_eq!(rooms.stats().members, 1);
}

#[test]
fn who_joins_gets_what_comes_behind_the_position_that_it_is_told_and_joins_once() {
    let (rooms, client) = site(Settings::default());
    publish(&rooms, "a", 1..=3);
    let mut one = open(&client);
    assert_eq!(says(&mut one, "join a"), "> at 3");
    assert_eq!(says(&mut one, "join a"), "> at 3");
    publish(&rooms, "a", [4]);
    client.run();
    assert_eq!(says(&mut one, "join a"), "4, > at 4");
    let mut late = open(&client);
    assert_eq!(says(&mut late, "last a 2"), "> at 2, 3, 4");
    let mut curious = open(&client);
    assert_eq!(says(&mut curious, "last a 100"), "> at 0, 1, 2, 3, 4");
    publish(&rooms, "a", [5]);
    client.run();
    for connection in [&mut one, &mut late, &mut curious] {
        assert_eq!(heard(connection), ["5"]);
    }
    assert_eq!(rooms.facts("a").map(|facts| (facts.members, facts.at.sequence)), Some((3, 5)));
}

#[test]
fn what_is_published_in_a_turn_leaves_in_one_send_for_each_socket() {
    let (rooms, client) = site(Settings::default());
    let mut all: Vec<_> = (0..20).map(|_| member(&client, "a")).collect();
    for connection in &mut all {
        says(connection, "join b");
    }
    let before = client.stats().syscalls_send;
    for round in 0..10 {
        publish(&rooms, "a", [round]);
        publish(&rooms, "b", [round]);
    }
    client.run();
    assert_eq!(client.stats().syscalls_send - before, 20);
    for connection in &mut all {
        let (mut a, mut b) = (0, 0);
        for number in heard(connection) {
            let number: usize = number.parse().expect("a number");
            assert!(
                (a == number && {
                    a += 1;
                    true
                }) || (b == number && {
                    b += 1;
                    true
                })
            );
        }
        assert_eq!((a, b), (10, 10));
    }
    // Of what members themselves say in a turn the same holds: each says one thing, all at once.
    let before = client.stats().syscalls_send;
    for connection in &mut all {
        connection.put(&text("say a x"));
    }
    client.run();
    assert_eq!(client.stats().syscalls_send - before, 20);
    assert!(all.iter_mut().all(|connection| heard(connection) == ["x"; 20]));
}

#[test]
fn to_publish_takes_one_letter_for_each_worker_with_members_and_burst() {
    let rooms = Rooms::new(Settings::default());
    let client = world(&rooms, Options::default().workers(4));
    let mut all: Vec<_> = [0, 0, 2].map(|worker| opened(client.connect_to(worker))).into();
    for connection in &mut all {
        says(connection, "join a");
        says(connection, "join b");
    }
    client.run();
    let before = client.stats().mailbox_messages;
    publish(&rooms, "a", 0..100);
    publish(&rooms, "b", 100..200);
    client.run();
    assert_eq!(client.stats().mailbox_messages - before, 2);
    assert!(all.iter_mut().all(|connection| heard(connection) == numbers(0..200)));
}

#[test]
fn a_large_room_takes_its_share_of_a_turn_and_others_are_served_in_between() {
    let (rooms, client) = site(Settings { members_per_turn: 100, ..Settings::default() });
    let mut crowd: Vec<_> = (0..950).map(|_| member(&client, "crowd")).collect();
    let mut few = member(&client, "few");
    let mut other = client.connect();
    publish(&rooms, "crowd", [1, 2]);
    publish(&rooms, "few", [3]);
    other.put(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut served, mut answered_at, mut heard_at) = (0, None, None);
    for turn in 1.. {
        client.turn();
        let now = crowd.iter_mut().map(heard).filter(|heard| *heard == ["1", "2"]).count();
        assert!(now <= 100, "{now} in turn {turn}");
        served += now;
        if other.response().is_some() {
            answered_at = Some(served);
        }
        if heard(&mut few) == ["3"] {
            heard_at = Some(served);
        }
        // A second burst comes behind the first, for everybody.
        if turn == 3 {
            publish(&rooms, "crowd", [4]);
        }
        if served == crowd.len() || turn > 50 {
            break;
        }
    }
    assert_eq!(served, 950);
    assert!(answered_at.is_some_and(|served| served <= 200), "{answered_at:?}");
    assert!(heard_at.is_some_and(|served| served <= 200), "{heard_at:?}");
    client.run();
    assert!(crowd.iter_mut().all(|connection| heard(connection) == ["4"]));
}

#[test]
fn who_comes_and_goes_while_a_large_room_is_served_takes_nothing_from_the_others() {
    let (rooms, client) = site(Settings { members_per_turn: 10, ..Settings::default() });
    let mut all: Vec<_> = (0..200).map(|_| member(&client, "a")).collect();
    let mut others: Vec<_> = (0..5).map(|_| open(&client)).collect();
    publish(&rooms, "a", [1]);
    let (mut index, mut left) = (0, Vec::new());
    for other in &mut others {
        for _ in 0..3 {
            client.turn();
            for _ in 0..5 {
                index = (index + 37) % all.len();
                let mut leaves = all.swap_remove(index);
                leaves.put(&text("leave a"));
                left.push(leaves);
            }
        }
        other.put(&text("join a"));
    }
    for round in 1..=2 {
        client.run();
        assert!(all.iter_mut().all(|connection| heard(connection) == [round.to_string()]));
        publish(&rooms, "a", [2]);
    }
    assert!(others.iter_mut().all(|other| heard(other) == ["> at 1", "2"]));
    assert_eq!((rooms.stats().gaps, client.stats().panics), (0, 0));
    assert_eq!(rooms.members("a"), 125 + 5);
    drop((all, others, left));
    client.run();
    assert_eq!(rooms.members("a"), 0);
}

#[test]
fn who_has_left_takes_no_share_of_a_turn() {
    let (rooms, client) = site(Settings { members_per_turn: 1, ..Settings::default() });
    let mut stays = member(&client, "a");
    let mut all: Vec<_> = (0..100).map(|_| member(&client, "a")).collect();
    for (index, leaves) in all.iter_mut().enumerate() {
        if index % 2 == 0 {
            says(leaves, "leave a");
        } else {
            leaves.reset();
        }
    }
    publish(&rooms, "a", [1]);
    client.turn();
    assert_eq!(heard(&mut stays), ["1"]);
}

#[test]
fn a_burst_of_more_than_a_room_remembers_reaches_whoever_reads() {
    // Two megabytes in one turn, far more than may wait in a socket at a time.
    let (rooms, client) = site(Settings { history_messages: 10, ..Settings::default() });
    let mut all = [member(&client, "a"), member(&client, "a")];
    publish_long(&rooms, "a", 1..=500);
    assert!(client.stats().held_output_bytes < 1 << 20);
    client.run();
    for connection in &mut all {
        assert_eq!(shortened(heard(connection)), numbers(1..=500));
    }
    let facts = rooms.facts("a").expect("there");
    assert_eq!((rooms.stats().gaps, facts.messages), (0, 10), "it is forgotten when all have it");
}

#[test]
fn a_message_larger_than_may_wait_in_a_socket_reaches_all_the_same() {
    let (rooms, client) = site(Settings { queued_bytes_max: 100, ..Settings::default() });
    let mut all = [member(&client, "a"), member(&client, "a")];
    let large = "x".repeat(100_000);
    for _ in 0..3 {
        rooms.publish("a", Frame::text(&large));
    }
    client.run();
    assert!(all.iter_mut().all(|connection| heard(connection) == [&large[..], &large, &large]));
}

#[test]
fn who_has_agreed_on_compression_gets_a_message_compressed_and_whoever_has_not_does_not() {
    let (rooms, client) = site(Settings::default());
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut connection = client.connect();
    connection.send(format!("{HANDSHAKE}{offer}\r\n").as_bytes());
    connection.response().expect("a 101");
    says(&mut connection, "join a");
    let mut plain = member(&client, "a");
    rooms.publish("a", Frame::text("to all ".repeat(200)));
    client.run();
    assert_eq!(heard(&mut plain), ["to all ".repeat(200)]);
    let got = frames(&connection.received());
    let [(0xc1, deflated)] = &got[..] else { panic!("{got:x?}") };
    assert!(deflated.len() < 100);
}

#[test]
fn a_message_says_where_it_is_whoever_else_publishes() {
    let (rooms, client) = site(Settings::default());
    let mut all = [member(&client, "a"), member(&client, "b")];
    let mut calls = 0;
    let at = rooms.publish_with("a", |at| {
        calls += 1;
        if calls < 3 {
            publish(&rooms, "a", [7]); // somebody is faster
        }
        Frame::text(format!("number {}", at.sequence))
    });
    client.run();
    assert_eq!((calls, at.map(|at| at.sequence)), (3, Some(3)));
    assert_eq!(heard(&mut all[0]), ["7", "7", "number 3"]);
    assert!(heard(&mut all[1]).is_empty());
}

#[test]
fn a_socket_may_be_in_rooms_of_several_kinds() {
    struct Both(Rooms, Rooms);
    impl Handler for Both {
        fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
            self.0.join(socket, "a").expect("joined");
            self.1.join(socket, "a").expect("joined");
        }

        fn message(&mut self, socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {
            assert!(self.0.leave(socket, "a") && !self.0.leave(socket, "a"));
        }
    }
    let (one, other) = (Rooms::new(Settings::default()), Rooms::new(Settings::default()));
    let (first, second) = (one.clone(), other.clone());
    let client = App::new(move |worker| {
        let (one, other) = (first.on(worker), second.on(worker));
        Router::new().websocket("/", move |_: &Request| Both(one.clone(), other.clone()))
    })
    .test();
    let mut connection = open(&client);
    publish(&one, "a", [1]);
    publish(&other, "a", [2]);
    client.run();
    assert_eq!(heard(&mut connection), ["1", "2"]);
    connection.send(&text("leave the first"));
    publish(&one, "a", [3]);
    publish(&other, "a", [4]);
    client.run();
    assert_eq!(heard(&mut connection), ["4"]);
    connection.reset();
    assert_eq!((one.members("a"), other.members("a")), (0, 0));
}

#[test]
fn who_has_said_goodbye_gets_nothing_more_and_leaves_its_rooms_with_its_connection() {
    let (rooms, client) = site(Settings::default());
    let mut all = [member(&client, "a"), member(&client, "a")];
    assert_eq!(says(&mut all[0], "bye 4000"), "close 4000");
    publish(&rooms, "a", [1]);
    client.run();
    assert!(heard(&mut all[0]).is_empty());
    assert_eq!(rooms.members("a"), 2, "it may still answer");
    all[0].send(&close(4000, ""));
    all[0].close();
    client.run();
    assert_eq!(rooms.members("a"), 1);
    assert_eq!(heard(&mut all[1]), ["1"]);
}

#[test]
fn in_a_drain_messages_are_brought_until_each_is_told_to_come_back() {
    let (rooms, client) = site(Settings::default());
    let mut all: Vec<_> = (0..20).map(|_| member(&client, "a")).collect();
    client.begin_drain(Duration::from_secs(10));
    let mut told = vec![None; all.len()];
    for step in 0..200 {
        client.advance(Duration::from_millis(50));
        publish(&rooms, "a", [step]);
        client.run();
        for (connection, told) in all.iter_mut().zip(&mut told) {
            let got = heard(connection);
            match told {
                Some(_) => assert!(got.is_empty(), "{got:?} behind its goodbye"),
                None if got.first().is_some_and(|word| word.starts_with("close")) => {
                    assert_eq!(got, [format!("close {}", CloseCode::RESTART.get())]);
                    *told = Some(step);
                    connection.send(&close(1012, ""));
                    connection.close();
                }
                None => assert_eq!(got, [step.to_string()]),
            }
        }
    }
    told.sort_unstable();
    told.dedup();
    assert!(told.len() > 5 && told.iter().all(Option::is_some), "spread: {told:?}");
    assert_eq!((client.open(), rooms.members("a")), (0, 0));
}

#[test]
fn who_comes_and_goes_all_the_time_takes_no_turn_from_the_others() {
    let (rooms, client) = site(Settings { members_per_turn: 10, ..Settings::default() });
    publish(&rooms, "a", [1]);
    let mut quiet = member(&client, "a");
    let mut restless = open(&client);
    restless.put(&[text("last a 1"), text("leave a")].concat().repeat(2000));
    for number in 2..12 {
        publish(&rooms, "a", [number]);
        for _ in 0..3 {
            client.turn();
        }
        assert_eq!(heard(&mut quiet), numbers([number]));
    }
    assert!(restless.received().len() > 1000, "it comes and goes all the while");
}

/// Opens a WebSocket elsewhere, which is in the room as well.
struct Gateway(Rooms);

impl Handler for Gateway {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        let there = Client::new("ws://192.0.2.1/").expect("a URL");
        there.dial(socket.commands(), There(self.0.clone())).expect("it has no layer");
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
}

struct There(Rooms);

impl Handler for There {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.0.join(socket, "a").expect("there are few rooms");
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
}

#[test]
fn a_member_that_is_a_client_sends_what_it_gets_masked() {
    let rooms = Rooms::new(Settings::default());
    let bound = rooms.clone();
    let client = App::new(move |worker| {
        let rooms = bound.on(worker);
        Router::new().websocket("/", move |_: &Request| Gateway(rooms.clone()))
    })
    .test();
    let _gateway = open(&client);
    client.run();
    let (there, _) = client.world(|sim| sim.take_dialed().pop()).expect("it has dialed");
    let asked = String::from_utf8(client.world(|sim| sim.take_received(there))).expect("a head");
    let key =
        asked.split_once("Sec-WebSocket-Key: ").and_then(|(_, rest)| rest.split_once('\r')).expect("a key").0;
    // What the right accept is, a server knows.
    let mut server = client.connect();
    let lines = HANDSHAKE.lines().map(|line| match line.starts_with("Sec-WebSocket-Key") {
        true => format!("Sec-WebSocket-Key: {key}\r\n"),
        false => format!("{line}\r\n"),
    });
    server.send(format!("{}\r\n", lines.collect::<String>()).as_bytes());
    let answer = server.response().expect("a 101");
    let accept = answer.header("sec-websocket-accept").expect("it is there");
    let answer = format!(
        "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    client.world(|sim| sim.send(there, answer.as_bytes()));
    client.run();
    assert_eq!(rooms.members("a"), 1);
    rooms.publish("a", Frame::text("hello"));
    client.run();
    let said = client.world(|sim| sim.take_received(there));
    let [0x81, 0x85, k0, k1, k2, k3, masked @ ..] = &said[..] else { panic!("{said:x?}") };
    let said: Vec<u8> =
        masked.iter().zip([k0, k1, k2, k3].into_iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(said, b"hello");
}
