//! Rooms of several processes: each has a world of its own, and a bus that may lose, repeat and break joins them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoll_core::Local;
use netpoll_core::sim::Options;
use netpoll_http::rooms::bus::{self, Bus, Channel, Engine, Hub, Line, Order};
use netpoll_http::rooms::{Behind, Rooms, Settings};
use netpoll_http::websocket::Frame;
use netpoll_http::{TestClient, TestConnection};

use crate::chance::{Chance, seeds};
use crate::ws_bytes::text;
use crate::{heard, member, says, world};

/// Gives the test the line of each process, in the order in which they begin.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl Engine for Lines {
    fn start(&self, line: Line, _local: &mut Local<'_>) {
        self.0.lock().expect("whole").push(line);
    }
}

struct Process {
    rooms: Rooms,
    client: TestClient,
    line: Line,
    /// As the engine has it.
    channels: BTreeSet<Channel>,
    is_connected: bool,
    /// What is on its way to it.
    inbox: VecDeque<Vec<u8>>,
}

impl Process {
    fn new(settings: Settings, bus_settings: bus::Settings) -> Self {
        let lines = Lines::default();
        let rooms = Rooms::new(settings).bus(Bus::new(lines.clone()).settings(bus_settings));
        let client = world(&rooms, Options::default());
        client.run();
        let line = lines.0.lock().expect("whole").pop().expect("it has begun");
        let (channels, inbox) = (BTreeSet::new(), VecDeque::new());
        Self { rooms, client, line, channels, is_connected: false, inbox }
    }

    fn publish(&self, room: &str, text: &str) {
        self.rooms.publish(room, Frame::text(text)).expect("published");
    }

    fn connect(&mut self) {
        self.is_connected = true;
        self.line.connected();
    }

    /// What is on its way to it is lost.
    fn disconnect(&mut self) {
        self.is_connected = false;
        self.inbox.clear();
        self.channels.clear();
        self.line.disconnected("killed");
    }

    fn stats(&self) -> bus::Stats {
        self.rooms.bus_stats().expect("there is a bus")
    }
}

/// Carries what processes want to say to all others that subscribe, so many times each. Where they are is not lost on the way, unless a connection is.
fn carry(all: &mut [Process], mut times: impl FnMut() -> usize) {
    for index in 0..all.len() {
        all[index].client.run();
        while let Some(order) = all[index].line.try_next() {
            assert!(all[index].is_connected, "nothing is ordered of an engine that is not there");
            match order {
                Order::Subscribe(channel) => assert!(all[index].channels.insert(channel), "once"),
                Order::Unsubscribe(channel) => assert!(all[index].channels.remove(&channel), "it was"),
                Order::Publish { to, payload } => {
                    let is_message = to.room.is_some();
                    for (other, process) in all.iter_mut().enumerate() {
                        let times = match process.channels.contains(&to) {
                            // Whether it comes back is the same.
                            true if other == index => 1,
                            true if is_message => times(),
                            is_subscribed => usize::from(is_subscribed),
                        };
                        (0..times).for_each(|_| process.inbox.push_back(payload.clone()));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// So much of what is on its way has come.
fn arrive(process: &mut Process, messages: usize) {
    for _ in 0..messages {
        let Some(payload) = process.inbox.pop_front() else { break };
        process.line.received(&payload);
    }
    process.client.run();
}

fn settle(all: &mut [Process]) {
    for _ in 0..4 {
        carry(all, || 1);
        for process in all.iter_mut() {
            arrive(process, usize::MAX);
            process.client.advance(bus::Settings::default().digest_after);
        }
    }
}

fn two(settings: Settings, bus_settings: bus::Settings) -> Vec<Process> {
    let mut all: Vec<_> = (0..2).map(|_| Process::new(settings, bus_settings)).collect();
    all.iter_mut().for_each(Process::connect);
    all
}

#[test]
fn rooms_on_one_hub_are_one() {
    let hub = Hub::default();
    let make = || {
        let rooms = Rooms::new(Settings::default()).bus(Bus::new(hub.clone()));
        let client = world(&rooms, Options::default());
        client.run();
        (rooms, client)
    };
    let ((one, client), (_other, others)) = (make(), make());
    let (mut here, mut there) = (member(&client, "a"), member(&others, "a"));
    one.publish("a", Frame::text("hello"));
    one.publish("a", Frame::binary(b"bytes"));
    one.publish("b", Frame::text("of another room"));
    for (member, client) in [(&mut here, &client), (&mut there, &others)] {
        client.run();
        assert_eq!(member.received(), b"\x81\x05hello\x82\x05bytes");
    }
    let stats = one.bus_stats().expect("there is a bus");
    assert!(stats.is_connected);
    assert_eq!((stats.sent, stats.received, stats.reconnects, stats.channels), (3, 0, 0, 2));
    drop((one, client, here));
    assert_eq!(says(&mut there, "say a alone"), "alone");
}

#[test]
fn a_message_of_another_process_has_the_next_number_here() {
    let mut all = two(Settings::default(), bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    all[1].publish("a", "zero");
    carry(&mut all, || 1);
    arrive(&mut all[0], usize::MAX);
    assert_eq!(heard(&mut member), ["zero"]);
    all[0].publish("a", "one");
    all[0].client.run();
    assert_eq!(heard(&mut member), ["one"]);
    let position = all[0].rooms.facts("a").expect("it is there").at;
    assert_eq!(position.sequence, 2);
    assert_eq!(says(&mut member, &format!("resume a {position}")), "> all 0");
    all[1].publish("a", "two");
    settle(&mut all);
    assert_eq!(heard(&mut member), ["two"]);
    assert_eq!(says(&mut member, &format!("resume a {position}")), "> all 1, two");
}

#[test]
fn what_is_lost_on_the_way_is_a_gap_in_its_place() {
    let mut all = two(Settings::default(), bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    carry(&mut all, || 1);
    for text in ["1", "2", "3", "4"] {
        all[1].publish("a", text);
    }
    let mut times = [1, 0, 0, 1].into_iter();
    carry(&mut all, || times.next().expect("four messages to one process"));
    arrive(&mut all[0], usize::MAX);
    assert_eq!(heard(&mut member), ["1", "> gap 1..3", "4"]);
    assert_eq!((all[0].stats().gaps, all[0].stats().missing, all[0].stats().received), (1, 2, 2));
    assert_eq!((all[0].rooms.stats().gaps, all[0].rooms.stats().dropped), (1, 2));
    let at = all[0].rooms.facts("a").expect("it is there").at;
    assert_eq!((at.sequence, all[0].rooms.facts("a").expect("it is there").messages), (4, 2));
    // Who was in front of the hole goes on behind it.
    let from = netpoll_http::rooms::Position { sequence: 0, ..at };
    assert_eq!(says(&mut member, &format!("resume a {from}")), "> gap 0..3, 4");
    assert_eq!(says(&mut crate::open(&all[0].client), "last a 4"), "> at 0, 1, > gap 1..3, 4");
}

#[test]
fn a_loss_is_told_though_nobody_publishes_any_more() {
    let mut all = two(Settings::default(), bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].publish("a", "lost");
    carry(&mut all, || 0);
    settle(&mut all);
    assert_eq!(heard(&mut member), ["> gap 0..1"]);
    settle(&mut all);
    assert_eq!(heard(&mut member), Vec::<String>::new(), "once");
}

#[test]
fn whoever_may_miss_nothing_is_told_to_come_back() {
    let settings = Settings { behind: Behind::Disconnect, ..Settings::default() };
    let mut all = two(settings, bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].publish("a", "lost");
    carry(&mut all, || 0);
    all[1].publish("a", "found");
    settle(&mut all);
    assert_eq!(heard(&mut member), ["close 1013"]);
}

#[test]
fn what_comes_twice_is_heard_once() {
    let mut all = two(Settings::default(), bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    carry(&mut all, || 1);
    all[1].publish("a", "1");
    carry(&mut all, || 3);
    settle(&mut all);
    assert_eq!(heard(&mut member), ["1"]);
    assert_eq!(all[0].stats().duplicates, 2);
}

#[test]
fn what_was_published_before_a_room_was_there_is_not_missing_in_it() {
    let mut all = two(Settings::default(), bus::Settings::default());
    all[1].publish("a", "early");
    settle(&mut all);
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].publish("a", "late");
    settle(&mut all);
    assert_eq!(heard(&mut member), ["late"]);
    assert_eq!(all[0].stats().gaps, 0);
}

#[test]
fn what_is_published_without_an_engine_waits_and_what_is_too_much_is_missed() {
    let bus_settings = bus::Settings { queue_messages: 3, ..bus::Settings::default() };
    let mut all = two(Settings::default(), bus_settings);
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].disconnect();
    for text in ["1", "2", "3", "4", "5"] {
        all[1].publish("a", text);
    }
    assert_eq!((all[1].stats().queued, all[1].stats().dropped), (3, 2));
    assert_eq!(all[1].stats().last_failure.as_deref(), Some("killed"));
    settle(&mut all);
    assert_eq!(heard(&mut member), Vec::<String>::new());
    all[1].connect();
    settle(&mut all);
    assert_eq!(heard(&mut member), ["> gap 0..2", "3", "4", "5"]);
    assert_eq!((all[1].stats().queued, all[1].stats().queued_bytes, all[1].stats().reconnects), (0, 0, 1));
}

#[test]
fn what_has_waited_for_too_long_or_is_too_large_does_not_leave() {
    let bus_settings = bus::Settings { message_bytes_max: 4, ..bus::Settings::default() };
    let mut all = two(Settings::default(), bus_settings);
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].publish("a", "large");
    all[1].disconnect();
    all[1].publish("a", "old");
    for process in &all {
        process.client.advance(bus_settings.queue_time);
    }
    all[1].publish("a", "new");
    all[1].connect();
    settle(&mut all);
    assert_eq!(heard(&mut member), ["> gap 0..2", "new"]);
    assert_eq!(all[1].stats().dropped, 2);
}

#[test]
fn a_room_is_subscribed_to_as_long_as_it_is_there() {
    let settings = Settings { history_time: Duration::from_secs(10), ..Settings::default() };
    let mut all = two(settings, bus::Settings::default());
    let mut connection = member(&all[0].client, "a");
    carry(&mut all, || 1);
    let channels = |process: &Process| process.channels.iter().map(Channel::to_string).collect::<Vec<_>>();
    assert_eq!(channels(&all[0]), ["netpoll:all", "netpoll:room:a"]);
    says(&mut connection, "leave a");
    for _ in 0..8 {
        // What others say does not keep it.
        all[1].publish("a", "is there anybody?");
        settle(&mut all);
    }
    assert_eq!(channels(&all[0]), ["netpoll:all"]);
    assert_eq!((all[0].stats().channels, all[0].rooms.stats().rooms), (0, 0));
}

#[test]
fn rooms_that_come_and_go_while_there_is_no_engine_leave_nothing() {
    let settings = Settings { history_time: Duration::from_secs(1), ..Settings::default() };
    let mut process = Process::new(settings, bus::Settings::default());
    for is_new in [true, false] {
        for round in 0..10 {
            for number in 0..20 {
                process.publish(&format!("{round} {number}"), "hello");
            }
            assert_eq!(process.stats().channels, 20);
            process.client.advance(Duration::from_secs(3));
            assert_eq!((process.rooms.stats().rooms, process.stats().channels), (0, 0));
        }
        if is_new {
            process.publish("old", "hello");
            process.connect();
            carry(std::slice::from_mut(&mut process), || 0);
            assert_eq!(process.channels.len(), 2);
            process.disconnect();
            process.client.advance(Duration::from_secs(3));
        }
    }
    process.publish("a", "hello");
    process.connect();
    carry(std::slice::from_mut(&mut process), || 0);
    let channels: Vec<_> = process.channels.iter().map(Channel::to_string).collect();
    assert_eq!(channels, ["netpoll:all", "netpoll:room:a"]);
}

#[test]
fn a_message_that_no_queue_holds_pushes_no_other_out_of_it() {
    let bus_settings = bus::Settings { queue_bytes: 1000, ..bus::Settings::default() };
    let mut all = two(Settings::default(), bus_settings);
    let mut member = member(&all[0].client, "a");
    settle(&mut all);
    all[1].publish("a", "1");
    all[1].publish("a", &"x".repeat(1000));
    all[1].publish("a", "3");
    assert_eq!((all[1].stats().queued, all[1].stats().dropped), (2, 1));
    settle(&mut all);
    assert_eq!(heard(&mut member), ["1", "> gap 1..2", "3"]);
}

#[test]
fn what_is_nothing_that_a_process_says_changes_nothing() {
    let all = two(Settings::default(), bus::Settings::default());
    let mut member = member(&all[0].client, "a");
    for strange in [&b""[..], b"\x01", b"\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00", &[1; 40]] {
        all[0].line.received(strange);
    }
    all[0].client.run();
    assert_eq!(heard(&mut member), Vec::<String>::new());
    assert_eq!(all[0].stats().malformed, 4);
}

#[test]
fn a_bus_outlives_no_rooms() {
    let all = two(Settings::default(), bus::Settings::default());
    let line = all[0].line.clone();
    assert!(!line.is_over());
    drop(all);
    assert!(line.is_over());
    assert_eq!(line.try_next(), None);
    line.connected();
    line.received(b"");
    line.disconnected("");
}

/// What a member has heard, by the process that has said it.
struct Ear {
    connection: TestConnection,
    /// The last of each process, and how many messages and missing ones there were.
    last: Vec<usize>,
    heard: usize,
    missing: usize,
}

impl Ear {
    fn listen(&mut self, place: &str) {
        for words in heard(&mut self.connection) {
            if let Some(gap) = words.strip_prefix("> gap ") {
                let (after, until) = gap.split_once("..").expect(place);
                let number = |digits: &str| digits.parse::<usize>().expect(place);
                self.missing += number(until) - number(after);
                continue;
            }
            if words.starts_with("> ") {
                // It has come or left.
                continue;
            }
            let (process, number) = words.split_once(' ').expect(place);
            let (process, number) =
                (process.parse::<usize>().expect(place), number.parse::<usize>().expect(place));
            assert!(number > self.last[process], "{place}: {words} comes behind {}", self.last[process]);
            self.last[process] = number;
            self.heard += 1;
        }
    }
}

const ROOMS: [&str; 2] = ["a", "b"];

/// Messages that were published, and that were missed.
fn storm(seed: u64) -> (usize, usize) {
    let mut chance = Chance::new(seed);
    let processes = 2 + chance.below(3);
    let settings = Settings {
        members_per_turn: 1 + chance.below(4),
        history_time: Duration::from_millis(100 + chance.below(2000) as u64),
        ..Settings::default()
    };
    let bus_settings = bus::Settings {
        queue_messages: 2 + chance.below(30),
        queue_bytes: 500 + chance.below(20_000),
        ..bus::Settings::default()
    };
    let mut all: Vec<_> = (0..processes).map(|_| Process::new(settings, bus_settings)).collect();
    let ear = |process: &Process, room: &str| {
        let connection = member(&process.client, room);
        Ear { connection, last: vec![0; processes], heard: 0, missing: 0 }
    };
    let mut ears: Vec<Vec<Ear>> =
        all.iter().map(|process| ROOMS.iter().map(|room| ear(process, room)).collect()).collect();
    // They come and go, and so do their rooms.
    let mut visitors: Vec<_> = all.iter().map(|process| ear(process, "c")).collect();
    // What is published now is younger than all rooms.
    all.iter().for_each(|process| process.client.advance(Duration::from_millis(2)));
    let (mut published, mut visits) = ([0; ROOMS.len()], 0);
    let mut numbers = vec![[0; ROOMS.len()]; processes];
    let loses = chance.below(3) > 0;
    for step in 0..300 {
        let place = format!("seed {seed}, step {step}");
        let index = chance.below(processes);
        let room = chance.below(ROOMS.len());
        match chance.below(20) {
            0 if all[index].is_connected && loses => all[index].disconnect(),
            // The engine itself.
            1 if chance.below(3) == 0 && loses => all.iter_mut().for_each(Process::disconnect),
            0..=2 if !all[index].is_connected => all[index].connect(),
            3..=5 => carry(&mut all, || if loses { 2_usize.pow(chance.below(8) as u32 / 6) } else { 1 }),
            6 if loses => carry(&mut all, || chance.below(2)),
            7..=9 => {
                let messages = chance.below(10);
                arrive(&mut all[index], messages);
                ears[index][room].listen(&place);
            }
            10 => {
                let time = Duration::from_millis(chance.below(700) as u64);
                all.iter().for_each(|process| process.client.advance(time));
            }
            11 | 12 => {
                let what = if chance.below(2) == 0 { "join" } else { "leave" };
                visitors[index].listen(&place);
                visitors[index].connection.send(&text(&format!("{what} c")));
                visitors[index].listen(&place);
            }
            13 | 14 => {
                visits += 1;
                all[index].publish("c", &format!("{index} {visits}"));
            }
            _ => {
                numbers[index][room] += 1;
                published[room] += 1;
                all[index].publish(ROOMS[room], &format!("{index} {}", numbers[index][room]));
            }
        }
    }
    all.iter_mut().filter(|process| !process.is_connected).for_each(Process::connect);
    settle(&mut all);
    let missing = |ears: &mut Vec<Vec<Ear>>| {
        let all = ears.iter_mut().flatten();
        all.map(|ear| {
            ear.listen("at the end");
            ear.missing
        })
        .collect::<Vec<_>>()
    };
    let before = missing(&mut ears);
    for (index, process) in all.iter().enumerate() {
        for (room, name) in ROOMS.iter().enumerate() {
            numbers[index][room] += 1;
            published[room] += 1;
            process.publish(name, &format!("{index} {}", numbers[index][room]));
        }
    }
    settle(&mut all);
    assert_eq!(missing(&mut ears), before, "seed {seed}: it is whole again");
    let mut missed = 0;
    for (index, ears) in ears.iter_mut().enumerate() {
        for (room, ear) in ears.iter_mut().enumerate() {
            let place = format!("seed {seed}, process {index}, room {room}");
            ear.listen(&place);
            assert_eq!(ear.heard + ear.missing, published[room], "{place}");
            missed += ear.missing;
        }
        let stats = all[index].stats();
        assert_eq!((stats.queued, stats.queued_bytes, stats.malformed), (0, 0, 0), "seed {seed}");
        visitors[index].listen(&format!("seed {seed}, visitor of {index}"));
    }
    (published.iter().sum(), missed)
}

#[test]
fn whatever_becomes_of_the_engine_all_is_heard_once_in_order_or_told_to_be_missing() {
    let (mut published, mut missed) = (0, 0);
    for seed in seeds(300) {
        let (more, of_them) = storm(seed);
        published += more;
        missed += of_them;
    }
    println!("{published} messages, {missed} misses");
    assert!(missed > 0);
}
