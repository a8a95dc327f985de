//! `Expect: 100-continue`.

use netpoll_http::{Error, Request, StatusCode};

use crate::cases::CANARY;
use crate::fixture::{Gate, answers, bodies, client, client_with, gated, get, router, statuses};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn post(target: &str, lines: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{lines}\r\n").into_bytes()
}

#[test]
fn a_client_that_waits_is_told_to_continue_once() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&post("/echo", "Content-Length: 4\r\n"));
    assert_eq!(connection.received(), CONTINUE);
    connection.send(b"bo");
    assert_eq!(connection.received(), b"");
    connection.send(b"dy");
    assert_eq!(bodies(&mut connection), ["body"]);
    connection.send(CANARY);
    assert_eq!(statuses(&mut connection), [200]);
}

#[test]
fn chunks_can_be_waited_for_too() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&post("/echo", "Transfer-Encoding: chunked\r\n"));
    assert_eq!(connection.received(), CONTINUE);
    connection.send(b"2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(bodies(&mut connection), ["hi"]);
}

#[test]
fn the_expectation_is_read_in_any_case_of_letters() {
    let client = client();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nEXPECT: 100-Continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(connection.received(), CONTINUE);
}

#[test]
fn a_client_that_has_begun_to_send_is_not_told() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&[post("/echo", "Content-Length: 4\r\n"), b"b".to_vec()].concat());
    assert_eq!(connection.received(), b"");
    connection.send(b"ody");
    assert_eq!(bodies(&mut connection), ["body"]);
}

#[test]
fn a_client_of_http_1_0_never_gets_an_interim_answer() {
    let client = client();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(connection.received(), b"");
    connection.send(b"body");
    assert_eq!(statuses(&mut connection), [200]);
}

#[test]
fn a_refusal_comes_instead_of_a_100_and_is_the_last_answer() {
    let refuse_all = client_with(|_| {
        router().before(|req: &Request| match req.path() {
            "/header" => Err(Error::from(StatusCode::UNAUTHORIZED)),
            _ => Ok(()),
        })
    });
    let lines = "Content-Length: 38\r\n";
    let cases = [
        (post("/nowhere", lines), 404),
        (post("/", lines), 405),
        (post("/small", lines), 413),
        (post("/header", lines), 401),
        (post("/nowhere", "Transfer-Encoding: chunked\r\n"), 404),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 38\r\n\r\n".to_vec(), 417),
    ];
    for (request, status) in cases {
        let mut connection = refuse_all.connect();
        connection.send(&request);
        let answers = answers(&mut connection);
        let seen: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(seen, [status], "{}", request.escape_ascii());
        assert!(answers[0].says_close() && connection.is_closed());
        // Whether these bytes are the body or a request is something the two sides could disagree about.
        connection.send(CANARY);
        assert_eq!(connection.received(), b"");
    }
}

#[test]
fn a_100_does_not_overtake_the_answers_before_it() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&[get("/gated"), post("/echo", "Content-Length: 4\r\n")].concat());
    assert_eq!(connection.received(), b"");
    gate.open();
    connection.run();
    assert_eq!(statuses(&mut connection), [200, 100]);
    connection.send(b"body");
    assert_eq!(bodies(&mut connection), ["body"]);
}

#[test]
fn an_expectation_without_a_body_is_met_by_the_answer() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&post("/echo", "Content-Length: 0\r\n"));
    connection.send(&post("/echo", ""));
    assert_eq!(statuses(&mut connection), [200, 200]);
}
