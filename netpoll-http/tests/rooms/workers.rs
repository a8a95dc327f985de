//! The same on real workers and sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use netpoll_http::rooms::{Rooms, Settings};
use netpoll_http::websocket::Frame;
use netpoll_http::{Request, Router, Running, Server};

use crate::Member;
use crate::chance::{Chance, Watchdog};
use crate::ws_bytes::{HANDSHAKE, text};

const PATIENCE: Duration = Duration::from_secs(60);

fn serve(rooms: &Rooms, workers: usize) -> Running {
    let rooms = rooms.clone();
    Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(workers)
        .app(move |worker| {
            let rooms = rooms.on(worker);
            Router::new().websocket("/", move |_: &Request| Member(rooms.clone()))
        })
        .start()
        .expect("it starts")
}

struct Client(TcpStream);

impl Client {
    fn new(server: &Running) -> Self {
        let mut stream = TcpStream::connect(server.addr()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(format!("{HANDSHAKE}\r\n").as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a 101");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    fn say(&mut self, words: &str) {
        self.0.write_all(&text(words)).expect("sent");
    }

    fn hear(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a message");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).expect("its length");
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).expect("its payload");
        String::from_utf8(payload).expect("a text")
    }
}

#[test]
fn members_on_all_workers_get_what_several_threads_publish_in_one_order() {
    const MEMBERS: usize = 40;
    const THREADS: usize = 3;
    const MESSAGES: usize = 2000;
    let _watchdog = Watchdog::new(PATIENCE, || "somebody waits for a message".to_owned());
    let rooms = Rooms::new(Settings { history_messages: 100_000, ..Settings::default() });
    let server = serve(&rooms, 2);
    let mut all: Vec<_> = (0..MEMBERS).map(|_| Client::new(&server)).collect();
    for client in &mut all {
        client.say("join a");
        assert_eq!(client.hear(), "> at 0");
    }
    assert_eq!(rooms.members("a"), MEMBERS);
    let publishers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let rooms = rooms.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    rooms.publish("a", Frame::text(format!("{thread} {number}"))).expect("published");
                }
            })
        })
        .collect();
    let heard: Vec<Vec<String>> = all
        .into_iter()
        .map(|mut client| thread::spawn(move || (0..THREADS * MESSAGES).map(|_| client.hear()).collect()))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|listener| listener.join().expect("heard"))
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("published"));
    for all in &heard {
        assert_eq!(*all, heard[0], "the same order for everybody");
    }
    for thread in 0..THREADS {
        let own = heard[0].iter().filter_map(|words| words.strip_prefix(&format!("{thread} ")));
        let numbers: Vec<usize> = own.map(|number| number.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    }
    assert_eq!((rooms.stats().gaps, rooms.stats().dropped), (0, 0));
    server.stop(Duration::from_secs(5)).expect("it ends");
}

#[test]
fn persons_that_come_and_go_on_all_workers_at_once_leave_nothing_behind() {
    const THREADS: u64 = 4;
    let _watchdog = Watchdog::new(PATIENCE, || "somebody is there for ever".to_owned());
    // There is room for few, so that they go all the time.
    let rooms = Rooms::new(Settings {
        rooms_max: 12,
        linger: Duration::from_millis(20),
        history_time: Duration::from_millis(50),
        ..Settings::default()
    });
    let server = serve(&rooms, 2);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (rooms, server) = (&rooms, &server);
            scope.spawn(move || {
                let mut chance = Chance::new(seed);
                for _ in 0..250 {
                    let mut client = Client::new(server);
                    let (who, device) = (chance.below(3), chance.below(2));
                    client.say(&format!("I am person{who} {device}"));
                    for _ in 0..chance.below(12) {
                        let room = chance.below(20);
                        match chance.below(5) {
                            0 => client.say(&format!("leave {room}")),
                            1 => drop(rooms.publish(&room.to_string(), Frame::text("hello"))),
                            2 => client.say(&format!("last {room} 3")),
                            _ => client.say(&format!("join {room}")),
                        }
                    }
                    if chance.below(2) == 0 {
                        client.say("bye 1001");
                        client.hear();
                    }
                }
            });
        }
    });
    while rooms.stats().sessions > 0 || rooms.stats().rooms > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rooms.stats().bytes, 0);
    server.stop(Duration::from_secs(5)).expect("it ends");
}

#[test]
fn on_real_sockets_who_does_not_read_holds_up_nobody_and_hears_what_it_has_missed() {
    const MESSAGES: usize = 3000;
    let _watchdog = Watchdog::new(PATIENCE, || "somebody waits for a message".to_owned());
    let rooms = Rooms::new(Settings::default());
    let server = serve(&rooms, 2);
    let mut all: Vec<_> = (0..6).map(|_| Client::new(&server)).collect();
    for client in &mut all {
        client.say("join a");
        assert_eq!(client.hear(), "> at 0");
    }
    // Thirty megabytes, more than the kernel keeps for a socket, no faster than the others read.
    let (slow, fast) = all.split_at_mut(2);
    let text = |number: usize| format!("{number:010}").repeat(1000);
    for first in (0..MESSAGES).step_by(50) {
        for number in first..first + 50 {
            rooms.publish("a", Frame::text(text(number))).expect("published");
        }
        for client in &mut *fast {
            for number in first..first + 50 {
                assert_eq!(client.hear()[..10], text(number)[..10], "it has missed nothing");
            }
        }
    }
    for client in slow {
        let (mut next, mut gaps) = (0, 0);
        while next < MESSAGES {
            let words = client.hear();
            if let Some((after, until)) = words.strip_prefix("> gap ").and_then(|gap| gap.split_once("..")) {
                assert_eq!(after.parse(), Ok(next));
                next = until.parse().expect("a number");
                gaps += 1;
            } else {
                assert_eq!(words[..10].parse(), Ok(next));
                next += 1;
            }
        }
        assert!(gaps > 0);
    }
    assert!(rooms.stats().dropped > 0);
    server.stop(Duration::from_secs(5)).expect("it ends");
}
