//! Limits of heads and of time.

use std::time::Duration;

use netpoll_http::{App, Limits, Request, Router, StatusCode, TestClient};

fn hello(change: impl FnOnce(&mut Limits)) -> TestClient {
    let mut limits = Limits::default();
    change(&mut limits);
    App::new(|_| Router::new().get("/", |_: &Request| "hello")).limits(limits).test()
}

#[test]
fn a_slow_head_is_a_408_at_its_absolute_deadline_and_dripping_does_not_help() {
    let mut connection = hello(|_| ()).connect();
    connection.advance(Duration::from_secs(30));
    for byte in b"GET / HTT" {
        connection.send(&[*byte]);
        connection.advance(Duration::from_secs(1));
    }
    assert_eq!(connection.received(), b"");
    connection.advance(Duration::from_millis(1100));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::REQUEST_TIMEOUT);
    assert!(connection.is_closed());
}

#[test]
fn an_idle_connection_is_closed_silently() {
    let mut fresh = hello(|_| ()).connect();
    fresh.advance(Duration::from_secs(74));
    assert!(!fresh.is_closed());
    fresh.advance(Duration::from_secs(2));
    assert!(fresh.is_closed());
    assert_eq!(fresh.received(), b"");

    let mut used = hello(|limits| limits.idle_timeout = Duration::from_secs(5)).connect();
    used.advance(Duration::from_secs(4));
    used.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    used.advance(Duration::from_secs(4));
    assert!(!used.is_closed(), "each request starts the time again");
    used.advance(Duration::from_secs(2));
    assert!(used.is_closed());
}

#[test]
fn a_head_finished_in_time_leaves_no_deadline_behind() {
    let mut connection = hello(|_| ()).connect();
    connection.send(b"GET / HT");
    connection.advance(Duration::from_secs(9));
    connection.send(b"TP/1.1\r\nHost: a\r\n\r\n");
    connection.advance(Duration::from_secs(60));
    assert_eq!(connection.response().expect("an answer").text(), "hello");
    assert!(!connection.is_closed());
}

#[test]
fn limits_of_the_head_are_those_that_were_set() {
    let client = hello(|limits| {
        limits.head_bytes_max = 200;
        limits.headers_max = 3;
        limits.target_bytes_max = 20;
    });
    let status = |bytes: &str| {
        let mut connection = client.connect();
        connection.send(bytes.as_bytes());
        assert!(connection.is_closed(), "{bytes}");
        connection.response().expect("an answer").status.as_u16()
    };
    let long = "x".repeat(200);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")), 431);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"), 431);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20))), 414);
}

#[test]
fn a_pipelining_peer_gives_way_after_its_share_and_still_gets_everything() {
    let client = hello(|limits| limits.requests_per_turn = Some(4));
    let mut connection = client.connect();
    connection.send(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(11));
    for _ in 0..11 {
        assert_eq!(connection.response().expect("an answer").text(), "hello");
    }
    assert_eq!(client.stats().requests, 11);
    assert!(client.stats().yields >= 2);
}
