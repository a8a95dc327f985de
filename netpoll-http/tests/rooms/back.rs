//! Who comes back, with what it has missed, and who is seen meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_http::rooms::{Position, Presence, Rooms, Settings};
use netpoll_http::websocket::Frame;
use netpoll_http::{TestClient, TestConnection};

use crate::ws_bytes::{close, frame, text};
use crate::{heard, member, numbers, open, opened, publish, publish_long, says, shortened, site, world};

fn position(rooms: &Rooms, room: &str, sequence: u64) -> Position {
    Position { sequence, ..rooms.facts(room).expect("there").at }
}

#[test]
fn who_says_where_it_was_gets_what_it_has_missed_in_front_of_what_is_new() {
    let (rooms, client) = site(Settings::default());
    publish(&rooms, "a", 1..=10);
    let at = position(&rooms, "a", 4);
    let mut back = open(&client);
    assert_eq!(says(&mut back, &format!("resume a {at}")), "> all 6, 5, 6, 7, 8, 9, 10");
    publish(&rooms, "a", [11]);
    client.run();
    assert_eq!(heard(&mut back), ["11"]);
    // Who is in it already is sent there again.
    assert_eq!(says(&mut back, &format!("resume a {}", position(&rooms, "a", 9))), "> all 2, 10, 11");
    assert_eq!(says(&mut back, &format!("resume a {}", position(&rooms, "a", 11))), "> all 0");
    assert_eq!((rooms.members("a"), rooms.stats().gaps), (1, 0));
}

#[test]
fn what_is_published_while_more_is_missed_than_may_wait_in_a_socket_comes_behind_it() {
    let (rooms, client) = site(Settings { queued_bytes_max: 10_000, ..Settings::default() });
    publish_long(&rooms, "a", 1..=100);
    let at = position(&rooms, "a", 0);
    let mut back = open(&client);
    back.put(&text(&format!("resume a {at}")));
    for number in 101..=150 {
        client.turn();
        publish_long(&rooms, "a", [number]);
    }
    client.run();
    let all = shortened(heard(&mut back));
    assert_eq!(all[0], "> all 100");
    assert_eq!(all[1..], numbers(1..=150));
}

#[test]
fn who_comes_back_again_and_again_holds_up_nobody() {
    for members_per_turn in [1, 3, 256] {
        let settings = Settings { queued_bytes_max: 10_000, members_per_turn, ..Settings::default() };
        let (rooms, client) = site(settings);
        publish_long(&rooms, "a", 1..=100);
        let at = position(&rooms, "a", 0);
        let (mut quiet, mut restless) = (member(&client, "a"), [open(&client), open(&client)]);
        let mut got = 0;
        for number in 101..=130 {
            publish_long(&rooms, "a", [number]);
            for _ in 0..10 {
                for connection in &mut restless {
                    connection.put(&text(&format!("resume a {at}")));
                }
                client.turn();
                got += restless.iter_mut().map(|connection| connection.received().len()).sum::<usize>();
            }
            assert_eq!(shortened(heard(&mut quiet)), numbers([number]), "{members_per_turn} in a turn");
        }
        assert!(got > 30 * 10_000, "they get {got} bytes meanwhile");
    }
}

#[test]
fn who_has_missed_more_than_the_room_remembers_is_told_how_much() {
    let (rooms, client) = site(Settings { history_messages: 3, ..Settings::default() });
    publish(&rooms, "a", 1..=10);
    let mut back = open(&client);
    assert_eq!(says(&mut back, &format!("resume a {}", position(&rooms, "a", 4))), "> gap 4..7, 8, 9, 10");
    let mut other = open(&client);
    assert_eq!(says(&mut other, &format!("resume a {}", position(&rooms, "a", 7))), "> all 3, 8, 9, 10");
    publish(&rooms, "a", [11]);
    client.run();
    assert_eq!((heard(&mut back), heard(&mut other)), (numbers([11]), numbers([11])));
    // What is old is not remembered either.
    client.advance(Duration::from_secs(200));
    publish(&rooms, "a", [12]);
    client.advance(Duration::from_secs(200));
    let mut late = open(&client);
    assert_eq!(says(&mut late, &format!("resume a {}", position(&rooms, "a", 9))), "> gap 9..11, 12");
}

#[test]
fn who_was_in_another_life_of_the_room_is_told_to_load_it_anew() {
    let (rooms, client) = site(Settings::default());
    publish(&rooms, "a", 1..=10);
    let before = position(&rooms, "a", 4);
    client.advance(Duration::from_secs(301));
    assert_eq!(rooms.facts("a"), None, "nobody was in it");
    publish(&rooms, "a", 1..=20);
    assert_ne!(position(&rooms, "a", 4), before);
    let ahead = position(&rooms, "a", 21);
    for at in [before, ahead] {
        let mut back = open(&client);
        assert_eq!(says(&mut back, &format!("resume a {at}")), "> anew 20");
        publish(&rooms, "b", [1]);
        assert!(heard(&mut back).is_empty());
        assert_eq!(says(&mut back, "last a 2"), "> at 18, 19, 20", "it is in it, and is sent there again");
        assert_eq!(rooms.members("a"), 1);
        back.close();
        client.run();
    }
}

/// Two workers, and what is said of presence.
fn seen(settings: Settings) -> (Rooms, TestClient, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writes = Arc::clone(&seen);
    let rooms = Rooms::new(settings).on_presence(move |rooms: &Rooms, presence: &Presence| {
        let sign = if presence.is_here { '+' } else { '-' };
        writes.lock().unwrap().push(format!("{sign}{} {}", presence.who, presence.room));
        assert!(&*presence.who != "trouble", "as told");
        assert_eq!(rooms.present(&presence.room).contains(&presence.who), presence.is_here);
    });
    let client = world(&rooms, Options::default().workers(2));
    (rooms, client, seen)
}

fn taken(seen: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *seen.lock().unwrap())
}

fn at_worker(client: &TestClient, worker: usize) -> TestConnection {
    opened(client.connect_to(worker))
}

#[test]
fn a_session_finds_its_rooms_and_what_it_has_missed_on_any_worker_and_was_present_all_the_time() {
    let (rooms, client, seen) = seen(Settings::default());
    let mut phone = at_worker(&client, 0);
    assert_eq!(says(&mut phone, "I am alice phone"), "> back:");
    assert_eq!(says(&mut phone, "I am bob phone"), "> the socket has a session");
    says(&mut phone, "join a");
    says(&mut phone, "join b");
    says(&mut phone, "join c");
    says(&mut phone, "leave c");
    publish(&rooms, "a", [1]);
    client.run();
    assert_eq!(heard(&mut phone), ["1"]);
    assert_eq!(taken(&seen), ["+alice a", "+alice b", "+alice c", "-alice c"]);

    phone.reset();
    client.run();
    assert_eq!(
        (rooms.members("a"), rooms.present("a"), rooms.stats().lingering),
        (0, vec!["alice".into()], 1)
    );
    publish(&rooms, "a", [2, 3]);
    client.advance(Duration::from_secs(59));
    let mut phone = at_worker(&client, 1);
    assert_eq!(says(&mut phone, "I am alice phone"), "> back: a: all 2 b: all 0, 2, 3");
    publish(&rooms, "b", [4]);
    client.advance(Duration::from_secs(100));
    assert!(heard(&mut phone).contains(&"4".to_owned()));
    assert_eq!((rooms.members("a"), rooms.members("b"), rooms.stats().lingering), (1, 1, 0));
    assert!(taken(&seen).is_empty(), "nobody has left or come");
}

#[test]
fn a_client_that_says_where_it_was_gets_what_was_on_its_way_when_its_socket_broke() {
    let (rooms, client, _) = seen(Settings::default());
    let mut phone = at_worker(&client, 0);
    says(&mut phone, "I am alice phone");
    says(&mut phone, "join a");
    phone.stop_reading();
    publish(&rooms, "a", 1..=5);
    client.run();
    phone.reset();
    client.run();
    let at = position(&rooms, "a", 2);
    let mut phone = at_worker(&client, 1);
    assert_eq!(says(&mut phone, &format!("I am alice phone {at}")), "> back: a: all 3, 3, 4, 5");
}

#[test]
fn a_session_that_does_not_come_back_in_time_has_left() {
    let (rooms, client, seen) = seen(Settings::default());
    let mut phone = at_worker(&client, 0);
    says(&mut phone, "I am alice phone");
    says(&mut phone, "join a");
    phone.close();
    client.advance(Duration::from_secs(61));
    assert_eq!(taken(&seen), ["+alice a", "-alice a"]);
    assert_eq!((rooms.present("a").len(), rooms.stats().sessions), (0, 0));
    let mut phone = at_worker(&client, 1);
    assert_eq!(says(&mut phone, "I am alice phone"), "> back:");
}

#[test]
fn a_session_that_comes_and_goes_waits_once() {
    let (rooms, client, seen) = seen(Settings::default());
    for round in 0..100 {
        let mut phone = at_worker(&client, round % 2);
        says(&mut phone, "I am alice phone");
        if round == 0 {
            says(&mut phone, "join a");
        }
        phone.close();
        client.advance(Duration::from_millis(100));
    }
    let before = client.stats().timers_fired;
    client.advance(Duration::from_secs(57));
    assert_eq!((rooms.stats().lingering, taken(&seen)), (1, vec!["+alice a".to_owned()]));
    client.advance(Duration::from_secs(4));
    assert_eq!((rooms.stats().lingering, taken(&seen)), (0, vec!["-alice a".to_owned()]));
    let fired = client.stats().timers_fired - before;
    assert!(fired < 10, "{fired} timers");
}

#[test]
fn who_says_goodbye_leaves_its_rooms_at_once_and_who_goes_away_does_not() {
    for (code, lingers) in [(1000, false), (1001, true), (4000, true)] {
        let (rooms, client, seen) = seen(Settings::default());
        let mut phone = at_worker(&client, 0);
        says(&mut phone, "I am alice phone");
        says(&mut phone, "join a");
        phone.send(&close(code, ""));
        phone.close();
        client.run();
        let expected: &[&str] = if lingers { &["+alice a"] } else { &["+alice a", "-alice a"] };
        assert_eq!(taken(&seen), expected, "{code}");
        assert_eq!(rooms.stats().lingering, usize::from(lingers), "{code}");
    }
    for (code, lingers) in [(1000, false), (1008, false), (1013, true)] {
        let (rooms, client, _) = seen(Settings::default());
        let mut phone = at_worker(&client, 0);
        says(&mut phone, "I am alice phone");
        says(&mut phone, "join a");
        says(&mut phone, &format!("bye {code}"));
        phone.close();
        client.run();
        assert_eq!(rooms.stats().lingering, usize::from(lingers), "told {code}");
    }
    let (rooms, client, _) = seen(Settings { linger: Duration::ZERO, ..Settings::default() });
    let mut phone = at_worker(&client, 0);
    says(&mut phone, "I am alice phone");
    phone.reset();
    client.run();
    assert_eq!(rooms.stats().sessions, 0, "none outlives its socket");
}

#[test]
fn a_session_has_one_socket_and_the_later_one_gets_it() {
    let (rooms, client, seen) = seen(Settings::default());
    let mut old = at_worker(&client, 0);
    says(&mut old, "I am alice phone");
    says(&mut old, "join a");
    publish(&rooms, "a", [1]);
    client.run();
    let at = rooms.facts("a").expect("there").at;
    // The network has not told yet that the old one is gone.
    publish(&rooms, "a", [2]);
    let mut new = at_worker(&client, 1);
    assert_eq!(says(&mut new, &format!("I am alice phone {at}")), "> back: a: all 1, 2");
    client.run();
    assert_eq!(heard(&mut old).last().map(String::as_str), Some("close 1008"));
    publish(&rooms, "a", [3]);
    client.run();
    assert_eq!(heard(&mut new), ["3"]);
    assert!(heard(&mut old).is_empty());
    old.close();
    client.advance(Duration::from_secs(100));
    assert_eq!(taken(&seen), ["+alice a"]);
    assert_eq!((rooms.members("a"), rooms.stats().sessions, rooms.stats().lingering), (1, 1, 0));
    // Who does not say where it was starts from here.
    let mut newest = at_worker(&client, 0);
    assert_eq!(says(&mut newest, "I am alice phone"), "> back: a: anew 3");
}

#[test]
fn a_person_is_in_a_room_as_long_as_one_of_its_devices_is() {
    let (rooms, client, seen) = seen(Settings::default());
    let (mut phone, mut page) = (at_worker(&client, 0), at_worker(&client, 1));
    for connection in [&mut phone, &mut page] {
        // The other way round counts as well.
        says(connection, "join a");
    }
    assert!(taken(&seen).is_empty() && rooms.present("a").is_empty(), "they are nobody yet");
    says(&mut phone, "I am alice phone");
    says(&mut page, "I am alice page");
    client.run();
    assert_eq!(taken(&seen), ["+alice a"]);
    says(&mut phone, "leave a");
    client.run();
    assert!(taken(&seen).is_empty());
    page.send(&close(1000, ""));
    page.close();
    client.run();
    assert_eq!(taken(&seen), ["-alice a"]);
    let facts = rooms.facts("a").expect("there");
    assert_eq!((facts.present, facts.members), (0, 0));
}

#[test]
fn of_more_sessions_than_may_wait_the_one_that_has_waited_longest_ends() {
    let (rooms, client, seen) = seen(Settings { lingering_max: 3, ..Settings::default() });
    for number in 0..10 {
        let mut phone = at_worker(&client, number % 2);
        says(&mut phone, &format!("I am {number} phone"));
        says(&mut phone, "join a");
        phone.reset();
        client.run();
        if number == 8 {
            // One that comes back makes room.
            let mut back = at_worker(&client, 0);
            assert_eq!(says(&mut back, "I am 7 phone"), "> back: a: all 0");
            std::mem::forget(back);
        }
    }
    assert_eq!((rooms.stats().lingering, rooms.stats().sessions), (3, 4));
    assert_eq!(rooms.present("a"), ["6", "7", "8", "9"].map(Into::into));
    let left: Vec<_> = taken(&seen).into_iter().filter(|word| word.starts_with('-')).collect();
    assert_eq!(left, (0..6).map(|number| format!("-{number} a")).collect::<Vec<_>>());
}

#[test]
fn what_is_called_for_presence_may_publish_and_its_panic_is_nobody_elses() {
    let (_, client, seen) = seen(Settings::default());
    let (mut trouble, mut alice) = (at_worker(&client, 0), at_worker(&client, 0));
    says(&mut trouble, "I am trouble phone");
    says(&mut alice, "I am alice phone");
    // In one turn, so both are told of at once.
    trouble.put(&text("join a"));
    alice.put(&text("join a"));
    client.run();
    assert_eq!((client.stats().panics, trouble.is_closed(), alice.is_closed()), (1, false, false));
    assert_eq!(taken(&seen), ["+trouble a", "+alice a"]);

    let rooms = Rooms::new(Settings::default()).on_presence(|rooms: &Rooms, presence: &Presence| {
        rooms.publish(&presence.room, Frame::text(format!("{} {}", presence.who, presence.is_here)));
    });
    let client = world(&rooms, Options::default());
    let mut all = [member(&client, "a"), open(&client)];
    says(&mut all[1], "I am bob phone");
    assert_eq!(says(&mut all[1], "join a"), "> at 0, bob true");
    all[1].send(&frame(0x88, &1000_u16.to_be_bytes()));
    all[1].close();
    client.run();
    assert_eq!(heard(&mut all[0]), ["bob true", "bob false"]);
}

#[test]
fn in_a_drain_nobody_is_said_to_leave() {
    let (_, client, seen) = seen(Settings { linger: Duration::ZERO, ..Settings::default() });
    let mut phone = at_worker(&client, 0);
    says(&mut phone, "I am alice phone");
    says(&mut phone, "join a");
    client.begin_drain(Duration::from_secs(4));
    client.advance(Duration::from_secs(10));
    assert_eq!(client.open(), 0);
    assert_eq!(taken(&seen), ["+alice a"]);
}

#[test]
fn a_program_that_panics_when_it_is_asked_where_somebody_was_leaves_nobody_behind() {
    let (rooms, client, seen) = seen(Settings::default());
    for worker in [0, 1] {
        let mut phone = at_worker(&client, 0);
        says(&mut phone, "I am alice phone");
        says(&mut phone, "join a");
        says(&mut phone, "join b");
        phone.close();
        client.run();
        assert_eq!(rooms.stats().lingering, 1);
        let mut back = at_worker(&client, worker);
        back.send(&text("I am alice phone trouble"));
        client.run();
        assert!(back.is_closed(), "it was reset");
        client.advance(Duration::from_secs(61));
        assert_eq!((rooms.present("a").len(), rooms.present("b").len()), (0, 0));
        assert_eq!((rooms.stats().sessions, rooms.stats().lingering), (0, 0));
    }
    assert_eq!(taken(&seen).len(), 8);
    client.advance(Duration::from_secs(600));
    assert_eq!(rooms.stats().rooms, 0);
}
