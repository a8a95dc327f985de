//! Rooms of two processes over a real Redis and a real NATS.

#[path = "../../../netpoll-core/tests/it/chance.rs"]
#[expect(dead_code, reason = "nothing here is by chance")]
mod chance;
mod engines;
mod recipe;
mod simulated;
#[path = "../it/ws_bytes.rs"]
#[expect(dead_code, reason = "nobody says goodbye")]
mod ws_bytes;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netpoll_core::Message as Told;
use netpoll_http::rooms::bus::{self, Bus};
use netpoll_http::rooms::{Gap, Rooms, Settings};
use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
use netpoll_http::{Request, Router, Running, Server};

use chance::Watchdog;
use engines::{Engine, Kind};
use ws_bytes::{HANDSHAKE, frames, text};

const PATIENCE: Duration = Duration::from_secs(120);
const ROOM: &str = "das große Zimmer.*>";
/// What waits without an engine.
const QUEUED: usize = 1500;

/// Is in the room. Says there what its peer says, but `state`.
struct Member(Rooms);

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.0.join(socket, ROOM).expect("there are few rooms");
        socket.text("here");
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        match message {
            Message::Text("state") => {
                let is_connected = self.0.bus_stats().expect("there is a bus").is_connected;
                socket.text(if is_connected { "connected" } else { "alone" });
            }
            Message::Text(text) => drop(self.0.publish(ROOM, Frame::text(text))),
            _ => {}
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        let gap = value.downcast::<Gap>().expect("a gap");
        socket.text(&format!("missing {}", gap.messages()));
    }
}

fn serve(bus: Bus) -> (Rooms, Running) {
    let bus_settings = bus::Settings {
        queue_messages: QUEUED,
        digest_after: Duration::from_millis(200),
        ..bus::Settings::default()
    };
    let rooms = Rooms::new(Settings { history_messages: 100_000, ..Settings::default() });
    let rooms = rooms.bus(bus.settings(bus_settings));
    let published = rooms.clone();
    let server = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(2)
        .app(move |worker| {
            let rooms = rooms.on(worker);
            Router::new().websocket("/", move |_: &Request| Member(rooms.clone()))
        })
        .start()
        .expect("it starts");
    (published, server)
}

const URL: &str = "NETPOLL_TEST_BUS";

/// Begun by other tests, with an engine; by itself it is no test.
#[test]
fn a_process_of_its_own() {
    let Ok(url) = std::env::var(URL) else { return };
    let (_rooms, server) = serve(Kind::bus(&url));
    println!("\nserves {}", server.addr());
    // Until who has begun it lets go of it.
    io::copy(&mut io::stdin(), &mut io::sink()).expect("read");
    server.stop(Duration::from_secs(5)).expect("it ends");
}

struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "a_process_of_its_own", "--nocapture"])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let addr = lines
            .map(|line| line.expect("a line"))
            .find_map(|line| line.strip_prefix("serves ").map(|addr| addr.parse().expect("an address")))
            .expect("it serves");
        Self { child, addr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // What it says of itself at its end has nobody to hear it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
}

/// A member, and what it has heard: messages of `a` and `b`, each with a number.
struct Ear {
    stream: TcpStream,
    came: Vec<u8>,
    last: [usize; 2],
    heard: usize,
    missing: usize,
    state: String,
}

impl Ear {
    fn new(addr: impl ToSocketAddrs) -> Self {
        let mut stream = TcpStream::connect(addr).expect("connected");
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
        stream.write_all(format!("{HANDSHAKE}\r\n").as_bytes()).expect("sent");
        let mut this =
            Self { stream, came: Vec::new(), last: [0; 2], heard: 0, missing: 0, state: String::new() };
        until(|| {
            this.read();
            let Some(end) = memchr::memmem::find(&this.came, b"\r\n\r\n") else { return false };
            this.came.drain(..end + 4);
            true
        });
        this.until(|this| this.state == "here");
        this
    }

    fn say(&mut self, words: &str) {
        self.stream.write_all(&text(words)).expect("sent");
    }

    fn read(&mut self) {
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => panic!("it was closed"),
            Ok(count) => self.came.extend(&bytes[..count]),
            Err(error) => {
                assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
            }
        }
    }

    /// Messages are shorter than 126 bytes.
    fn listen(&mut self) {
        self.read();
        let mut whole = 0;
        while let Some(len) = self.came.get(whole + 1)
            && self.came.len() >= whole + 2 + usize::from(*len)
        {
            whole += 2 + usize::from(*len);
        }
        let bytes: Vec<_> = self.came.drain(..whole).collect();
        for (_, words) in frames(&bytes) {
            let words = String::from_utf8(words).expect("a text");
            match words.split_once(' ') {
                None => self.state = words,
                Some(("missing", number)) => self.missing += number.parse::<usize>().expect("a number"),
                Some((who, number)) => {
                    let number = number.parse().expect("a number");
                    let last = &mut self.last[usize::from(who == "b")];
                    assert!(*last < number, "{words} comes behind {last}");
                    *last = number;
                    self.heard += 1;
                }
            }
        }
    }

    fn until(&mut self, mut is_so: impl FnMut(&Self) -> bool) {
        until(|| {
            self.listen();
            is_so(self)
        });
    }

    /// The process that it is in has a connection to the engine, or has none.
    fn until_it_is(&mut self, state: &str) {
        until(|| {
            self.state.clear();
            self.say("state");
            self.until(|this| !this.state.is_empty());
            self.state == state
        });
    }
}

/// Both processes have published so many, and each member of both has heard them all, or of what is missing.
fn until_all_is_heard(ears: &mut [Ear; 2], published: [usize; 2]) {
    for ear in ears {
        let all = published[0] + published[1];
        ear.until(|ear| {
            assert!(ear.heard + ear.missing <= all, "{} and {} of {all}", ear.heard, ear.missing);
            ear.heard + ear.missing == all
        });
    }
}

fn two_processes(kind: Kind) {
    let Some(mut engine) = Engine::start(kind) else { return };
    let _watchdog = Watchdog::new(PATIENCE, || "somebody waits for a message".to_owned());
    let (rooms, server) = serve(Kind::bus(&engine.url()));
    let other = Process::start(&engine.url());
    let mut ears = [Ear::new(server.addr()), Ear::new(other.addr)];
    ears.iter_mut().for_each(|ear| ear.until_it_is("connected"));
    let mut published = [0, 0];
    let mut say = |ears: &mut [Ear; 2], process: usize, messages: usize| {
        for _ in 0..messages {
            published[process] += 1;
            ears[process].say(&format!("{} {}", ["a", "b"][process], published[process]));
        }
        published
    };
    // The first may come in front of the subscriptions; what comes behind what was heard is not lost.
    for process in [0, 1] {
        let published = say(&mut ears, process, 1);
        until_all_is_heard(&mut ears, published);
    }
    let missing = ears.each_ref().map(|ear| ear.missing);
    let (_, published) = (say(&mut ears, 0, 500), say(&mut ears, 1, 500));
    until_all_is_heard(&mut ears, published);
    assert_eq!(ears.each_ref().map(|ear| ear.missing), missing, "of a whole engine nothing is missing");
    assert_eq!(ears[0].last, [501, 501]);

    // Killed in the middle of a burst.
    say(&mut ears, 0, 1000);
    say(&mut ears, 1, 500);
    engine.kill();
    say(&mut ears, 1, 500);
    ears.iter_mut().for_each(|ear| ear.until_it_is("alone"));
    assert!(rooms.bus_stats().expect("there is a bus").last_failure.is_some());
    // More than waits.
    let (_, published) = (say(&mut ears, 0, 3 * QUEUED), say(&mut ears, 1, QUEUED / 2));
    let all_of_its_own = |ear: &Ear, process: usize| ear.last[process] == published[process];
    ears[0].until(|ear| all_of_its_own(ear, 0));
    ears[1].until(|ear| all_of_its_own(ear, 1));

    engine.start_again();
    ears.iter_mut().for_each(|ear| ear.until_it_is("connected"));
    until_all_is_heard(&mut ears, published);
    assert!(ears[1].missing >= missing[1] + 2 * QUEUED, "{}", ears[1].missing);
    let before = ears.each_ref().map(|ear| ear.missing);
    let (_, published) = (say(&mut ears, 0, 200), say(&mut ears, 1, 200));
    until_all_is_heard(&mut ears, published);
    assert_eq!(ears.each_ref().map(|ear| ear.missing), before, "it is whole again");
    assert_eq!(ears[0].last, published);
    let stats = rooms.bus_stats().expect("there is a bus");
    assert_eq!((stats.reconnects, stats.queued, stats.malformed, stats.duplicates), (1, 0, 0, 0));
    assert_eq!(stats.missing, ears[0].missing as u64);
    println!("{kind:?}: {published:?} published, {before:?} missing, {stats:?}");
    drop(ears);
    server.stop(Duration::from_secs(5)).expect("it ends");
}

#[test]
fn rooms_of_two_processes_are_one_over_redis_and_what_it_loses_when_it_is_killed_is_told() {
    two_processes(Kind::Redis);
}

#[test]
fn rooms_of_two_processes_are_one_over_nats_and_what_it_loses_when_it_is_killed_is_told() {
    two_processes(Kind::Nats);
}

#[test]
fn a_wrong_password_and_a_server_that_is_not_there_are_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its name");
    let (rooms, server) = serve(Kind::bus(&format!("redis://{free}")));
    let failure = |rooms: &Rooms| rooms.bus_stats().expect("there is a bus").last_failure;
    until(|| failure(&rooms).is_some());
    assert!(failure(&rooms).is_some_and(|why| why.contains("refused")), "{:?}", failure(&rooms));
    server.stop(Duration::from_secs(5)).expect("it ends");
    for (kind, why) in [(Kind::Redis, "WRONGPASS"), (Kind::Nats, "Authorization")] {
        let Some(engine) = Engine::start(kind) else { continue };
        let (rooms, server) = serve(Kind::bus(&engine.url().replace("ret@", "rets@")));
        until(|| failure(&rooms).is_some());
        assert!(failure(&rooms).is_some_and(|failure| failure.contains(why)), "{:?}", failure(&rooms));
        assert!(!rooms.bus_stats().expect("there is a bus").is_connected);
        server.stop(Duration::from_secs(5)).expect("it ends");
    }
}

#[test]
fn the_recipe_of_the_cookbook_is_one_chat_in_two_processes() {
    let lines = |text: &str| text.lines().map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    let page = include_str!("../../../docs/COOKBOOK.md").split_once("\n## Rooms in several processes\n");
    let block = page.and_then(|(_, page)| page.split("```").nth(1)).expect("it is there");
    let (program, block) =
        (lines(include_str!("recipe.rs")), lines(block.trim_start_matches("rust,ignore\n")));
    let block: Vec<_> = block.iter().map(|line| line.replace("fn start", "pub fn start")).collect();
    let block = block.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let program =
        program.iter().map(|line| line.as_str()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    assert!(program.windows(block.len()).any(|window| window == block), "{block:#?}");

    let Some(engine) = Engine::start(Kind::Redis) else { return };
    let any = || SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = [(); 2].map(|()| recipe::start(any(), &engine.url()).expect("it starts"));
    let mut ears = servers.each_ref().map(|server| Ear::new(server.addr()));
    // The first may come in front of the subscription.
    let mut number = 0;
    until(|| {
        number += 1;
        ears[0].say(&format!("a {number}"));
        ears[1].listen();
        ears[1].heard > 0
    });
    drop(ears);
    for server in servers {
        server.stop(Duration::from_secs(5)).expect("it ends");
    }
}
