//! What a protocol that took a connection over gets to see.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::net::{Stream, in_task};
use netpoll_core::time::sleep;
use netpoll_core::{Commands, Conn, ConnId, Flow, Input, Layered, Lost, Message, Protocol};
use netpoll_http::{
    Error, HeaderValue, Parts, Request, Response, Router, StatusCode, TestClient, TestConnection,
};

use crate::cipher::{Cipher, Codec, Record};
use crate::{client, text};

thread_local!(static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

/// Logs its callbacks, and does what a line says.
struct Told;

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn logged() -> Vec<String> {
    LOG.take()
}

impl Drop for Told {
    fn drop(&mut self) {
        log("dropped");
    }
}

impl Protocol for Told {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        log("opened");
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let told = String::from_utf8_lossy(input.bytes()).into_owned();
        input.advance_all();
        log(told.clone());
        match told.as_str() {
            "panic" => panic!("as told"),
            "wake" => conn.waker().wake(),
            "deadline" => conn.set_deadline(Duration::from_secs(1000)),
            "others" => {
                let id = conn.id();
                conn.commands().send(id, Bytes::from_static(b"sent"));
                conn.commands().tell(id, 7_u8);
                conn.commands().close(id);
            }
            "much" => conn.send_static(&[b'x'; 1 << 20]),
            "pause" => return Flow::Pause,
            "close" => return Flow::Close,
            _ => conn.send(b"ok"),
        }
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        log("eof");
        Flow::Close
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        log("drained");
        Flow::Continue
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        log("late");
        Flow::Continue
    }

    fn woken(&mut self, _conn: &mut Conn<'_>) -> Flow {
        log("woken");
        Flow::Continue
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        log("outgoing");
        conn.send_common(bytes);
        Flow::Continue
    }

    fn told(&mut self, _conn: &mut Conn<'_>, message: Message) -> Flow {
        log(format!("told {:?}", message.downcast_ref::<u8>()));
        Flow::Continue
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        log("closing");
        conn.send(b"bye");
        Flow::Close
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        log("stopping");
        conn.send(b"bye");
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        log(format!("{reason:?}"));
    }
}

fn accept(req: &Request<'_>) -> Option<Response> {
    Some(req.upgrade("told")?.accept(Told))
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: told\r\n\r\n";

fn upgraded(client: &TestClient) -> TestConnection {
    let mut connection = client.connect();
    connection.send(REQUEST);
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(logged(), ["opened"]);
    connection
}

fn told() -> (TestClient, TestConnection) {
    let client = client(|| Router::new().get("/", accept));
    let connection = upgraded(&client);
    (client, connection)
}

#[test]
fn every_callback_reaches_the_next_protocol() {
    let (_client, mut connection) = told();
    connection.send(b"a");
    assert_eq!(connection.received(), b"ok");
    connection.send(b"wake");
    connection.send(b"much");
    assert_eq!(connection.received().len(), 1 << 20);
    connection.send(b"deadline");
    connection.advance(Duration::from_secs(1001));
    connection.finish();
    assert!(connection.is_closed());
    let log = logged();
    assert_eq!(
        log,
        ["a", "wake", "woken", "much", "drained", "deadline", "late", "eof", "Closed", "dropped"]
    );
}

#[test]
fn what_others_send_tell_and_want_reaches_the_next_protocol() {
    let (_client, mut connection) = told();
    connection.send(b"others");
    assert_eq!(connection.received(), b"sentbye");
    assert!(connection.is_closed());
    assert_eq!(logged(), ["others", "outgoing", "told Some(7)", "closing", "Closed", "dropped"]);
}

#[test]
fn the_deadlines_of_http_end_with_it() {
    let (_client, mut connection) = told();
    connection.advance(Duration::from_secs(100_000));
    assert!(!connection.is_closed());
    connection.send(b"still there");
    assert_eq!(connection.received(), b"ok");
    assert_eq!(logged(), ["still there"]);
}

#[test]
fn a_pause_holds_what_follows_until_the_next_protocol_goes_on() {
    let (client, mut connection) = told();
    connection.send(b"pause");
    connection.send(b"held");
    client.run();
    assert_eq!(logged(), ["pause"]);
}

#[test]
fn a_drain_reaches_the_next_protocol_which_may_say_farewell() {
    let (client, mut connection) = told();
    client.begin_drain(Duration::from_secs(1));
    assert_eq!(connection.received(), b"bye");
    assert!(connection.is_closed());
    assert_eq!(logged(), ["stopping", "Closed", "dropped"]);
}

#[test]
fn a_panic_of_the_next_protocol_costs_its_connection_and_no_other() {
    let (client, mut connection) = told();
    let mut other = upgraded(&client);
    connection.send(b"panic");
    assert!(connection.is_reset());
    assert_eq!(client.stats().panics, 1);
    other.send(b"a");
    assert_eq!(other.received(), b"ok");
    assert_eq!(logged(), ["panic", "Panicked", "dropped", "a"]);
}

/// Panics in its first callback.
struct Stillborn;

impl Protocol for Stillborn {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        panic!("at once");
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        unreachable!("it was lost before")
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        log(format!("{reason:?}"));
    }
}

#[test]
fn a_protocol_that_panics_when_it_begins_hears_of_its_end() {
    let client =
        client(|| Router::new().get("/", |req: &Request| Some(req.upgrade("told")?.accept(Stillborn))));
    let mut connection = client.connect();
    connection.send(REQUEST);
    assert!(connection.is_reset());
    assert_eq!((logged(), client.stats().panics, client.open()), (vec!["Panicked".to_owned()], 1, 0));
}

#[test]
fn an_upgraded_connection_that_ends_leaves_nothing_behind() {
    let (client, mut connection) = told();
    connection.send(b"close");
    assert!(connection.is_closed() && !connection.is_reset());
    let mut connection = {
        logged();
        upgraded(&client)
    };
    connection.reset();
    assert_eq!(logged().last().map(String::as_str), Some("dropped"));
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn an_after_hook_may_add_headers_to_a_101_or_decline_it() {
    let client = client(|| {
        let after = |req: &Request, parts: &mut Parts| {
            parts.headers.insert("x-hook", HeaderValue::from_static("seen"));
            match req.query_raw() {
                Some("no") => parts.status = StatusCode::FORBIDDEN,
                Some("odd") => parts.status = StatusCode::OK,
                _ => {}
            }
        };
        Router::new().get("/", accept).after(after)
    });
    for (query, status) in [("", 101), ("?odd", 101), ("?no", 403)] {
        let mut connection = client.connect();
        let request = text(REQUEST).replace("GET /", &format!("GET /{query}"));
        connection.send(format!("{request}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = connection.response().expect("an answer");
        assert_eq!((response.status.as_u16(), response.header("x-hook")), (status, Some("seen")));
        let next = connection.received();
        assert_eq!(next.starts_with(b"HTTP/1.1 404 "), status == 403, "{}", text(&next));
        drop(connection);
        logged();
    }
}

#[test]
fn headers_of_the_response_leave_with_the_101() {
    let client = client(|| {
        Router::new().get("/", |req: &Request| match accept(req) {
            Some(response) => response.header("Sec-Told-Accept", "x"),
            None => Err(Error::from(StatusCode::UPGRADE_REQUIRED)),
        })
    });
    let mut connection = client.connect();
    connection.send(REQUEST);
    let response = connection.response().expect("an answer");
    assert_eq!(response.header("sec-told-accept"), Some("x"));
    assert_eq!(client.get("/").status, StatusCode::UPGRADE_REQUIRED);
}

/// A client that speaks the cipher behind its request.
struct Ciphered {
    connection: TestConnection,
    codec: Codec,
    wire: Vec<u8>,
}

impl Ciphered {
    /// Greets, and says this, `together` with the request or behind the 101.
    fn upgraded(client: &TestClient, path: &str, together: bool, says: &[u8]) -> Self {
        let (mut connection, mut codec) = (client.connect(), Codec::new(1));
        let request = text(REQUEST).replace("GET /", &format!("GET {path}"));
        let mut early = Vec::new();
        codec.greet(&mut early);
        codec.data(says, &mut early);
        if together {
            connection.send(&[request.as_bytes(), &early].concat());
        } else {
            connection.send(request.as_bytes());
            assert_eq!(logged(), [""; 0], "the layer is not ready");
            connection.send(&early);
        }
        assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
        Self { connection, codec, wire: Vec::new() }
    }

    fn say(&mut self, plain: &[u8]) {
        let mut wire = Vec::new();
        self.codec.data(plain, &mut wire);
        self.connection.send(&wire);
    }

    fn heard(&mut self) -> Vec<u8> {
        self.wire.extend(self.connection.received());
        let (mut plain, mut at) = (Vec::new(), 0);
        while let Some((record, bytes)) = self.codec.open(&mut self.wire[at..]).expect("a good record") {
            if let Record::Data(length) = record {
                plain.extend_from_slice(&self.wire[at + 3..][..length]);
            }
            at += bytes;
        }
        self.wire.drain(..at);
        plain
    }
}

fn accept_ciphered(req: &Request<'_>) -> Option<Response> {
    Some(req.upgrade("told")?.accept(Layered::new(Cipher::new(2), Told)))
}

fn ciphered() -> TestClient {
    client(|| {
        let later = async |req: Request| {
            let mut turns = 0;
            std::future::poll_fn(|context| {
                turns += 1;
                context.waker().wake_by_ref();
                if turns < 3 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            })
            .await;
            accept_ciphered(&req)
        };
        Router::new().get("/", accept_ciphered).get("/later", later)
    })
}

#[test]
fn the_next_protocol_may_lie_behind_a_layer() {
    for (path, together) in [("/", true), ("/", false), ("/later", true), ("/later", false)] {
        let client = ciphered();
        let mut ciphered = Ciphered::upgraded(&client, path, together, b"early");
        assert_eq!(ciphered.heard(), b"ok", "{path}, together: {together}");
        ciphered.say(b"wake");
        ciphered.say(b"much");
        assert_eq!(ciphered.heard().len(), 1 << 20);
        ciphered.say(b"deadline");
        ciphered.connection.advance(Duration::from_secs(1001));
        assert_eq!(
            logged(),
            ["opened", "early", "wake", "woken", "much", "drained", "deadline", "late"],
            "{path}, together: {together}"
        );
        ciphered.say(b"others");
        assert_eq!(ciphered.heard(), b"sentbye");
        assert!(ciphered.codec.is_over, "the layer has said its last word");
        assert!(ciphered.connection.is_closed() && !ciphered.connection.is_reset());
        assert_eq!(logged(), ["others", "outgoing", "told Some(7)", "closing", "Closed", "dropped"]);
        assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
    }
}

#[test]
fn a_layer_behind_an_upgrade_has_its_own_deadline_and_end() {
    let client = ciphered();
    let mut connection = client.connect();
    connection.send(REQUEST);
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    connection.advance(Duration::from_secs(11));
    assert!(connection.is_closed() && !connection.is_reset(), "it has not greeted");
    assert_eq!(logged(), ["Closed", "dropped"]);

    let mut ciphered = Ciphered::upgraded(&client, "/", true, b"early");
    client.begin_drain(Duration::from_secs(5));
    assert_eq!(ciphered.heard(), b"okbye");
    assert!(ciphered.codec.is_over && ciphered.connection.is_closed() && !ciphered.connection.is_reset());
    assert_eq!(logged(), ["opened", "early", "stopping", "Closed", "dropped"]);
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

thread_local!(static FIRST: RefCell<Option<ConnId>> = const { RefCell::new(None) });

/// Forwards to the one that came before it, in both directions.
struct Joins;

impl Protocol for Joins {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let me = conn.id();
        if let Some(first) = FIRST.take() {
            conn.commands().forward(me, first);
            conn.commands().forward(first, me);
        } else {
            FIRST.set(Some(me));
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        log(format!("received {}", input.len()));
        Flow::Pause
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        log("eof");
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        log(format!("{reason:?}"));
    }
}

fn joining() -> TestClient {
    client(|| {
        let ciphered = |req: &Request| Some(req.upgrade("told")?.accept(Layered::new(Cipher::new(2), Joins)));
        Router::new()
            .get("/", |req: &Request| Some(req.upgrade("told")?.accept(Joins)))
            .get("/ciphered", ciphered)
            .get("/hello", |_: &Request| "hello")
    })
}

#[test]
fn what_took_connections_over_may_forward_them_to_each_other() {
    let client = joining();
    let (mut one, mut other) = (client.connect(), client.connect());
    one.send(&[REQUEST, b"early"].concat());
    other.send(&[REQUEST, b"as early"].concat());
    for connection in [&mut one, &mut other] {
        assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    }
    assert_eq!((one.received(), other.received()), (b"as early".to_vec(), b"early".to_vec()));
    one.send(b" and late");
    one.finish();
    assert_eq!(other.received(), b" and late");
    assert!(other.is_closed() && !one.is_closed());
    other.send(b"answer");
    other.finish();
    assert_eq!(one.received(), b"answer");
    assert!(one.is_closed() && !one.is_reset() && !other.is_reset());
    let heard = logged();
    assert!(heard.iter().all(|line| line.starts_with("received") || line == "Closed"), "{heard:?}");
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_layer_that_took_a_connection_over_is_no_end_of_a_forward() {
    for (first, second) in [("/", "/ciphered"), ("/ciphered", "/"), ("/ciphered", "/ciphered")] {
        let client = joining();
        let mut connections = [first, second].map(|path| {
            let (mut connection, mut codec) = (client.connect(), Codec::new(1));
            connection.send(text(REQUEST).replace("GET /", &format!("GET {path}")).as_bytes());
            if path == "/ciphered" {
                let mut greeting = Vec::new();
                codec.greet(&mut greeting);
                connection.send(&greeting);
            }
            connection
        });
        client.run();
        assert!(connections.iter_mut().all(|connection| connection.is_reset()), "{first}, {second}");
        assert_eq!(logged(), ["Reset", "Reset"]);
        assert_eq!(client.get("/hello").text(), "hello");
        FIRST.set(None);
    }
}

/// Answers `big` with as much as is sent at once elsewhere, and everything else with itself.
async fn speaks(mut stream: Stream) {
    log("spawned");
    let mut buffer = [0; 100];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) if &buffer[..count] == b"big" => {
                for _ in 0..3 {
                    stream.write_all(&[b'x'; 9000]).await.unwrap();
                    stream.write_all(b"small").await.unwrap();
                }
            }
            Ok(count) => stream.write_all(&buffer[..count]).await.unwrap(),
            Err(error) => return log(format!("{:?}", error.kind())),
        }
    }
    log("ended");
}

#[test]
fn a_task_may_take_the_connection_over_behind_a_layer_as_well() {
    let upgrade = |req: &Request<'_>| Some(req.upgrade("told")?.accept(in_task(speaks)));
    let layered =
        |req: &Request<'_>| Some(req.upgrade("told")?.accept(Layered::new(Cipher::new(2), in_task(speaks))));
    let client = client(move || Router::new().get("/", upgrade).get("/layered", layered));
    let big = [[b'x'; 9000].as_slice(), b"small"].concat().repeat(3);

    let mut connection = client.connect();
    connection.send(&[REQUEST, b"early"].concat());
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(connection.received(), b"early");
    connection.send(b"big");
    assert!(connection.received() == big);
    connection.finish();
    assert_eq!(logged(), ["spawned", "ended"]);

    let mut ciphered = Ciphered { connection: client.connect(), codec: Codec::new(1), wire: Vec::new() };
    let mut early = Vec::new();
    ciphered.codec.greet(&mut early);
    ciphered.codec.data(b"early", &mut early);
    let request = text(REQUEST).replace("GET /", "GET /layered");
    ciphered.connection.send(&[request.as_bytes(), &early].concat());
    assert_eq!(ciphered.connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(ciphered.heard(), b"early");
    ciphered.say(b"big");
    assert!(ciphered.heard() == big, "nothing went past the layer");
    drop(ciphered);
    client.run();
    assert_eq!(logged(), ["spawned", "ConnectionReset"]);
    drop(connection);
    client.run();
    assert_eq!((client.open(), client.blocks_in_use(), client.stats().panics), (0, 0, 0));
}

/// Reads late, and says how much that was and how it ended.
async fn reads_late(mut stream: Stream) {
    sleep(Duration::from_secs(10)).await;
    let (mut read, mut buffer) = (0, [0; 10_000]);
    let end = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break "end".to_owned(),
            Ok(count) => read += count,
            Err(error) => break format!("{:?}", error.kind()),
        }
    };
    log(format!("{read}, {end}"));
}

#[test]
fn a_task_that_took_the_connection_over_and_reads_late_hears_all_that_came_before_a_failure() {
    let upgrade = |req: &Request<'_>| Some(req.upgrade("told")?.accept(in_task(reads_late)));
    let client = client(move || Router::new().get("/", upgrade));
    let mut connection = client.connect();
    connection.send(REQUEST);
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SWITCHING_PROTOCOLS);
    // More than a stream takes in before it is read.
    connection.send(&[b'x'; 150_000]);
    drop(connection);
    client.advance(Duration::from_secs(20));
    assert_eq!(logged(), ["150000, ConnectionReset"]);
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_task_whose_upgrade_is_declined_hears_that_there_is_no_connection() {
    let client = client(|| {
        let upgrade = |req: &Request<'_>| Some(req.upgrade("told")?.accept(in_task(speaks)));
        Router::new()
            .get("/", upgrade)
            .after(|_: &Request, parts: &mut Parts| parts.status = StatusCode::FORBIDDEN)
    });
    let mut connection = client.connect();
    connection.send(REQUEST);
    assert_eq!(connection.response().expect("an answer").status, StatusCode::FORBIDDEN);
    assert_eq!(logged(), ["spawned", "NotConnected"]);
}
