//! Bodies that are handed over by callbacks while they arrive.

use std::cell::RefCell;
use std::time::Duration;

use netpoll_core::task;
use netpoll_http::{
    App, BodyError, BodySink, Error, Handler, IntoResponse, Request, RouteLimits, Router, StatusCode,
    TestClient, routes, sink,
};

use crate::text;

#[derive(Default)]
struct Seen(RefCell<Vec<String>>);

fn say(what: impl Into<String>) {
    task::state::<Seen>().0.borrow_mut().push(what.into());
}

fn seen(client: &TestClient) -> Vec<String> {
    client.world(|sim| sim.block_on(async { task::state::<Seen>().0.take() }))
}

/// Says what it is told.
struct Told;

impl BodySink for Told {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        say(text(chunk));
        match chunk {
            b"stop" => Err(Error::new(StatusCode::CONFLICT, "stopped")),
            b"panic" => panic!("a chunk"),
            _ => Ok(()),
        }
    }

    fn end(self, request: &Request<'_>) -> impl IntoResponse {
        let trailers = request.trailers().map(|(name, value)| format!("{name}={};", text(value)));
        format!("all of {} {}", request.path(), trailers.collect::<String>())
    }

    fn failed(self, error: BodyError) {
        say(format!("{error:?}"));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        say("dropped");
    }
}

fn told(req: &Request<'_>) -> Result<Told, Error> {
    say("open");
    match req.header("x-refuse") {
        Some(_) => Err(Error::from(StatusCode::FORBIDDEN)),
        None => Ok(Told),
    }
}

fn client() -> TestClient {
    let five = RouteLimits::default().body_bytes_max(5);
    let any = RouteLimits::default().unlimited_body();
    let router = move |_: &_| {
        Router::new()
            .get("/", |_: &Request| "root")
            .post("/", sink(told).limits(any))
            .post("/five", sink(told).limits(five))
            .merge(routes! { POST "/table" => sink(told) })
    };
    App::new(router).state(|_| Seen::default()).test()
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const FIVE: &[u8] = b"POST /five HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_sink_gets_pieces_where_they_land_and_answers_behind_the_last() {
    let client = client();
    for path in ["/", "/table"] {
        let mut connection = client.connect();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n");
        connection.send(head.as_bytes());
        assert_eq!(text(&connection.received()), "HTTP/1.1 100 Continue\r\n\r\n");
        connection.send(b"one");
        assert_eq!(seen(&client), ["open", "one"]);
        connection.send(b"threeGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(seen(&client), ["three", "dropped"]);
        assert_eq!(connection.response().expect("an answer").text(), format!("all of {path} "));
        assert_eq!(connection.response().expect("the next").text(), "root");
    }
}

#[test]
fn a_body_that_comes_with_its_head_is_one_piece_of_a_sink_and_one_of_nothing_is_none() {
    let client = client();
    assert_eq!(client.post("/", "one").text(), "all of / ");
    assert_eq!(seen(&client), ["open", "one", "dropped"]);
    assert_eq!(client.post("/", "").text(), "all of / ");
    assert_eq!(seen(&client), ["open", "dropped"]);
    let mut connection = client.connect();
    connection.send(&[CHUNKED, b"3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n"].concat());
    assert_eq!(connection.response().expect("an answer").text(), "all of / X-Sum=3;");
    assert_eq!(client.post("/five", "six by six").status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn a_sink_that_has_had_enough_answers_in_front_of_the_rest() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&[CHUNKED, b"4\r\nstop\r\n"].concat());
    let response = connection.response().expect("an answer");
    assert_eq!((response.status, response.header("connection")), (StatusCode::CONFLICT, None));
    connection.send(b"4\r\nmore\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the next").text(), "root");
    assert_eq!(seen(&client), ["open", "stop", "dropped"]);

    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    connection.send(b"stop");
    assert_eq!(connection.response().expect("an answer").header("connection"), Some("close"));
    assert!(connection.is_closed());

    let mut refused = client.connect();
    refused.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Refuse: y\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(refused.response().expect("an answer").status, StatusCode::FORBIDDEN);
    refused.send(b"bodyGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(refused.response().expect("the next").text(), "root");
    assert_eq!(client.post("/", "stop").status, StatusCode::CONFLICT, "at once as well");
}

#[test]
fn a_sink_is_told_of_every_end_that_is_not_its_own() {
    let late = |client: &TestClient| client.advance(Duration::from_secs(11));
    let client = client();
    let mut malformed = client.connect();
    malformed.send(&[CHUNKED, b"3\r\none\r\n"].concat());
    malformed.send(b"no\r\n");
    assert_eq!(malformed.response().expect("an answer").status, StatusCode::BAD_REQUEST);
    assert_eq!(
        seen(&client),
        ["open", "one", "Malformed(\"A chunk size is not 1 to 16 hexadecimal digits.\")", "dropped"]
    );

    let mut slow = client.connect();
    slow.send(&[CHUNKED, b"3\r\none\r\n"].concat());
    late(&client);
    assert_eq!(slow.response().expect("an answer").status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(seen(&client), ["open", "one", "Late", "dropped"]);

    let mut large = client.connect();
    large.send(&[FIVE, b"3\r\none\r\n"].concat());
    large.send(b"3\r\n");
    assert_eq!(large.response().expect("an answer").status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(seen(&client), ["open", "one", "TooLarge", "dropped"]);

    for leaves in [netpoll_http::TestConnection::finish, netpoll_http::TestConnection::reset] {
        let mut leaving = client.connect();
        leaving.send(&[CHUNKED, b"3\r\none\r\n"].concat());
        leaves(&mut leaving);
        client.run();
        assert_eq!(seen(&client), ["open", "one", "Left", "dropped"]);
        assert_eq!(leaving.received(), b"");
    }
    assert_eq!((client.stats().panics, client.blocks_in_use()), (0, 0));
}

#[test]
fn a_panic_of_a_sink_costs_its_connection() {
    let client = client();
    for at_once in [false, true] {
        let mut connection = client.connect();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        connection.put(head);
        if !at_once {
            connection.run();
        }
        connection.send(b"panic");
        assert_eq!(connection.response().expect("an answer").status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(connection.is_closed());
        assert_eq!(seen(&client), ["open", "panic", "dropped"]);
    }
    assert_eq!(client.stats().panics, 2);
    assert_eq!(client.get("/").text(), "root");
}

#[test]
fn a_sink_gets_the_same_bytes_however_they_are_cut() {
    #[derive(Default)]
    struct Gather(Vec<u8>);
    impl BodySink for Gather {
        fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
            assert!(!chunk.is_empty());
            self.0.extend_from_slice(chunk);
            Ok(())
        }
        fn end(self, _: &Request<'_>) -> impl IntoResponse {
            self.0
        }
    }
    let app = App::new(|_| Router::new().post("/", sink(|_: &Request<'_>| Ok(Gather::default()))));
    let client = app.test();
    let request = [CHUNKED, b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"].concat();
    for cut in 1..request.len() {
        let mut connection = client.connect();
        connection.send(&request[..cut]);
        connection.send(&request[cut..]);
        assert_eq!(connection.response().expect("an answer").text(), "hello world", "cut at {cut}");
    }
}
