//! Where the body of an answer ends, and handlers that do not keep their word about it.

use std::task::Context;

use netpoll_http::{Body, BodyBuf, Pull, Reply, Request, Response, Router, StatusCode};

use crate::answer::{self, Answer};
use crate::cases::CANARY;
use crate::fixture::{answers, client_with, get, router};
use crate::target::has_canary;
use crate::transport::{TestClient, TestConnection};

/// A body of these pieces, and then this.
fn pieces(
    pieces: &'static [&'static str],
    then: Pull,
) -> impl FnMut(&mut Context<'_>, &mut BodyBuf<'_>) -> Pull {
    let mut pieces = pieces.iter();
    move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| match pieces.next() {
        Some(piece) => {
            out.extend(piece.as_bytes());
            Pull::More
        }
        None => then,
    }
}

fn stream(of: &'static [&'static str], then: Pull) -> Response {
    Response::new(StatusCode::OK).body(Body::stream(pieces(of, then)))
}

fn sized(length: u64, of: &'static [&'static str], then: Pull) -> Response {
    Response::new(StatusCode::OK).body(Body::sized_stream(length, pieces(of, then)))
}

fn streams() -> Router {
    router()
        .get("/stream", |_: &Request| stream(&["one", "", "two"], Pull::Done))
        .get("/failing", |_: &Request| stream(&["one", "two"], Pull::Failed))
        .get("/sized", |_: &Request| sized(6, &["one", "two"], Pull::Done))
        .get("/more", |_: &Request| sized(5, &["one", "two", "three"], Pull::Done))
        .get("/less", |_: &Request| sized(10, &["one", "two"], Pull::Done))
        .get("/none", |_: &Request| sized(10, &[], Pull::Done))
        .get("/failing-sized", |_: &Request| sized(10, &["one"], Pull::Failed))
        .get("/no-content", |_: &Request| ())
        .get("/no-content-but-text", |_: &Request| (StatusCode::NO_CONTENT, "text"))
        .get("/not-modified", |_: &Request| StatusCode::NOT_MODIFIED)
        .get("/not-modified-but-text", |_: &Request| (StatusCode::NOT_MODIFIED, "text"))
        .get("/no-content-but-stream", |_: &Request| {
            stream(&["one"], Pull::Done).status(StatusCode::NO_CONTENT)
        })
        .get("/large", |_: &Request| vec![b'x'; 100_000])
        .get("/written", |_: &Request, reply: Reply| {
            reply.write(StatusCode::OK, "text/plain", |out| out.extend(b"written"))
        })
        .get("/not-found-but-large", |_: &Request| (StatusCode::NOT_FOUND, "x".repeat(100_000)))
}

/// Sends bytes, and tells whether the connection is still good for another request.
pub fn send(client: &TestClient, request: &[u8]) -> (TestConnection, Vec<u8>, bool) {
    let mut connection = client.connect();
    connection.send(request);
    let bytes = connection.received();
    connection.send(CANARY);
    let is_kept = has_canary(&connection.received());
    (connection, bytes, is_kept)
}

/// The one answer in these bytes.
pub fn only(bytes: &[u8], to_head: bool, is_closed: bool) -> Answer {
    let mut answers = answer::read(bytes, &[to_head], is_closed).expect("a well-formed answer");
    assert_eq!(answers.len(), 1, "one answer");
    answers.remove(0)
}

#[test]
fn head_gets_the_head_of_get_and_nothing_else() {
    let client = client_with(|_| streams());
    for target in
        ["/", "/large", "/sized", "/written", "/nowhere", "/not-found-but-large", "/no-content", "/echo"]
    {
        let (_, to_get, _) = send(&client, &get(target));
        let head = format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (_, to_head, is_kept) = send(&client, head.as_bytes());
        let (to_get, to_head) = (only(&to_get, false, false), only(&to_head, true, false));
        assert_eq!((to_head.status, &to_head.headers), (to_get.status, &to_get.headers), "{target}");
        assert!(is_kept, "{target}: the next answer is where it belongs");
    }
}

#[test]
fn head_of_a_stream_has_no_transfer_coding_and_no_body() {
    let client = client_with(|_| streams());
    for version in ["1.1", "1.0"] {
        let request = format!("HEAD /stream HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let (connection, bytes, _) = send(&client, request.as_bytes());
        let answer = only(&bytes, true, connection.is_closed());
        assert_eq!(answer.all("transfer-encoding").count(), 0);
        assert!(bytes.ends_with(b"\r\n\r\n"));
    }
}

#[test]
fn no_content_and_not_modified_have_no_body_whatever_the_handler_returns() {
    let client = client_with(|_| streams());
    let targets = [
        ("/no-content", 204),
        ("/no-content-but-text", 204),
        ("/no-content-but-stream", 204),
        ("/not-modified", 304),
        ("/not-modified-but-text", 304),
    ];
    for (target, status) in targets {
        let (_, bytes, is_kept) = send(&client, &get(target));
        let answer = only(&bytes, false, false);
        assert_eq!((answer.status, answer.all("transfer-encoding").count()), (status, 0), "{target}");
        assert!(is_kept, "{target}");
    }
}

#[test]
fn a_stream_is_chunked_for_http_1_1() {
    let client = client_with(|_| streams());
    let (_, bytes, is_kept) = send(&client, &get("/stream"));
    let answer = only(&bytes, false, false);
    assert_eq!(answer.one("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(answer.body, b"onetwo", "a pull that wrote nothing does not end the body");
    assert!(is_kept);
}

#[test]
fn a_stream_ends_with_the_connection_for_http_1_0() {
    let client = client_with(|_| streams());
    for lines in ["", "Connection: keep-alive\r\n"] {
        let (connection, bytes, is_kept) =
            send(&client, format!("GET /stream HTTP/1.0\r\n{lines}\r\n").as_bytes());
        let answer = only(&bytes, false, connection.is_closed());
        assert_eq!((answer.all("transfer-encoding").count(), answer.all("content-length").count()), (0, 0));
        assert_eq!(answer.body, b"onetwo");
        // The canary behind a last word may be answered with a reset.
        assert!(answer.says_close() && connection.is_closed() && !is_kept);
    }
}

#[test]
fn http_1_0_is_told_that_the_connection_stays() {
    let client = client_with(|_| streams());
    for target in ["/", "/sized", "/nowhere", "/written", "/no-content"] {
        let request = format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let (_, bytes, is_kept) = send(&client, request.as_bytes());
        let said = only(&bytes, false, false).one("connection").unwrap_or_default();
        assert_eq!((said.to_ascii_lowercase().as_str(), is_kept), ("keep-alive", true), "{target}");
    }
}

#[test]
fn a_stream_of_known_length_has_that_length() {
    let client = client_with(|_| streams());
    let (_, bytes, is_kept) = send(&client, &get("/sized"));
    let answer = only(&bytes, false, false);
    assert_eq!(
        (answer.one("content-length").as_deref(), answer.body.as_slice()),
        (Some("6"), &b"onetwo"[..])
    );
    assert!(is_kept);
}

#[test]
fn what_a_handler_writes_beyond_its_length_is_cut() {
    let client = client_with(|_| streams());
    let (_, bytes, is_kept) = send(&client, &get("/more"));
    assert_eq!(only(&bytes, false, false).body, b"onetw");
    assert!(is_kept, "and the next answer is where it belongs");
}

#[test]
fn a_handler_that_writes_less_than_its_length_costs_the_connection() {
    let client = client_with(|_| streams());
    for target in ["/less", "/none", "/failing-sized"] {
        let (connection, bytes, is_kept) = send(&client, &[get(target), get("/canary")].concat());
        assert!(connection.is_closed() && !is_kept && !has_canary(&bytes), "{target}");
        let complete = answer::read(&bytes, &[], true);
        assert!(
            complete.is_err() || complete.is_ok_and(|answers| answers.is_empty()),
            "{target}: the client notices"
        );
    }
}

#[test]
fn a_stream_that_fails_does_not_look_complete() {
    let client = client_with(|_| streams());
    let (connection, bytes, is_kept) = send(&client, &[get("/failing"), get("/canary")].concat());
    assert!(connection.is_closed() && !is_kept && !has_canary(&bytes));
    assert!(answer::read(&bytes, &[], true).is_err(), "the last chunk is missing");

    let (connection, _, _) = send(&client, b"GET /failing HTTP/1.0\r\n\r\n");
    assert!(connection.is_reset(), "a FIN would be the end of a complete body");
}

#[test]
fn large_bodies_arrive_whole_whatever_they_are_made_of() {
    static STATIC: [u8; 300_000] = [b's'; 300_000];
    let client = client_with(|_| {
        Router::new()
            .get("/static", |_: &Request| Response::bytes(&STATIC[..]))
            .get("/owned", |_: &Request| vec![b's'; 300_000])
            .get("/text", |_: &Request| "s".repeat(300_000))
            .get("/chunks", |_: &Request| {
                Response::bytes(Body::chunks(std::iter::repeat_n(vec![b's'; 1000], 300)))
            })
            .get("/written", |_: &Request, reply: Reply| {
                reply.write(StatusCode::OK, "", |out| (0..300).for_each(|_| out.extend(&[b's'; 1000])))
            })
            .get("/later", async |_: Request| vec![b's'; 300_000])
    });
    let targets = ["/static", "/owned", "/text", "/chunks", "/written", "/later"];
    let mut connection = client.connect();
    connection.send(&targets.iter().flat_map(|target| get(target)).collect::<Vec<u8>>());
    for (target, answer) in targets.iter().zip(answers(&mut connection)) {
        assert!(answer.body == STATIC, "{target}");
    }
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_hook_that_changes_the_status_changes_the_framing_with_it() {
    let client = client_with(|_| router().after(|_: &Request, parts| parts.status = StatusCode::NO_CONTENT));
    let (_, bytes, is_kept) = send(&client, &get("/"));
    assert_eq!(only(&bytes, false, false).status, 204);
    let (_, rest, _) = send(&client, &get("/path/a"));
    assert_eq!(only(&rest, false, false).status, 204);
    assert!(!is_kept, "the canary's body is gone too");
}

#[test]
fn a_handler_can_close_the_connection() {
    let client = client_with(|_| {
        router().get("/bye", |_: &Request, reply: Reply| reply.close().bytes(StatusCode::OK, "", b"bye"))
    });
    let mut connection = client.connect();
    connection.send(&[get("/"), get("/bye"), get("/canary")].concat());
    let answers = answers(&mut connection);
    assert_eq!(answers.iter().map(|answer| answer.says_close()).collect::<Vec<_>>(), [false, true]);
    assert!(connection.is_closed());
}

#[test]
fn an_informational_status_is_no_answer() {
    let client = client_with(|_| {
        router()
            .get("/100", |_: &Request| StatusCode::CONTINUE)
            .get("/101", |_: &Request| (StatusCode::SWITCHING_PROTOCOLS, "text"))
            .get("/103", |_: &Request, reply: Reply| reply.bytes(StatusCode::EARLY_HINTS, "", b"text"))
    });
    for target in ["/100", "/101", "/103"] {
        let (_, bytes, is_kept) = send(&client, &get(target));
        assert_eq!(only(&bytes, false, false).status, 500, "{target}");
        assert!(is_kept, "{target}: the next answer is where it belongs");
    }
}
