//! Limits of heads and of time.

use std::time::Duration;

use netpoll_http::{App, Limits, Request, Router, Server, StatusCode, TestClient};

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

/// A service that has room for so many connections.
fn crowded(connections_max: usize) -> TestClient {
    let mut options = netpoll_core::sim::Options::default();
    options.limits.connections_max = connections_max;
    App::new(|_| Router::new().get("/", |_: &Request| "hello").get("/healthz", |_: &Request| "ok"))
        .test_with(options)
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn idle_connections_make_room_for_newcomers_and_a_health_check() {
    let client = crowded(100);
    let mut idle: Vec<_> = (0..100).map(|_| client.connect()).collect();
    for connection in &mut idle {
        connection.send(HELLO);
        assert_eq!(connection.response().expect("an answer").text(), "hello");
        client.advance(Duration::from_millis(10));
    }
    let mut others = Vec::new();
    for _ in 0..50 {
        client.advance(Duration::from_millis(20));
        let mut polite = client.connect();
        polite.send(HELLO);
        assert_eq!(polite.response().expect("an answer").text(), "hello");
        others.push(polite);
        assert_eq!(client.get("/healthz").text(), "ok");
    }
    assert_eq!(client.stats().shed, 0);
    let closed = idle.iter().filter(|connection| connection.is_closed()).count();
    assert_eq!(closed as u64, client.stats().evicted);
    assert!((50..=60).contains(&closed), "{closed}");
    assert!(
        !idle.iter().any(|connection| connection.is_reset()) && !others.iter().any(|other| other.is_closed())
    );
}

#[test]
fn who_has_idled_longest_goes_first() {
    let client = crowded(3);
    let mut connections: Vec<_> = (0..3).map(|_| client.connect()).collect();
    client.advance(Duration::from_secs(1));
    for nth in [2, 0, 1] {
        connections[nth].send(HELLO);
        client.advance(Duration::from_millis(400));
    }
    let mut newcomers = Vec::new();
    for nth in [2, 0, 1] {
        newcomers.push(client.connect());
        let closed: Vec<bool> = connections.iter().map(|connection| connection.is_closed()).collect();
        assert!(closed[nth], "{nth}: {closed:?}");
        client.advance(Duration::from_millis(1));
    }
}

#[test]
fn who_may_idle_for_ever_makes_room_all_the_same() {
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::MAX;
    let mut options = netpoll_core::sim::Options::default();
    options.limits.connections_max = 3;
    let client =
        App::new(|_| Router::new().get("/", |_: &Request| "hello")).limits(limits).test_with(options);
    let mut idle: Vec<_> = (0..3).map(|_| client.connect()).collect();
    assert!(client.connect().is_closed(), "they have just come");
    client.advance(Duration::from_secs(1));
    for nth in [1, 0, 2] {
        idle[nth].send(HELLO);
        client.advance(Duration::from_millis(400));
    }
    let mut newcomer = client.connect();
    newcomer.send(HELLO);
    assert_eq!(newcomer.response().expect("an answer").text(), "hello");
    let closed: Vec<bool> = idle.iter().map(|connection| connection.is_closed()).collect();
    assert_eq!(closed, [false, true, false], "who has idled longest goes");
}

#[test]
fn nobody_who_is_busy_or_has_just_come_is_closed_for_a_newcomer() {
    let client = crowded(3);
    let mut busy: Vec<_> = (0..3).map(|_| client.connect()).collect();
    busy[0].send(b"GET / HT");
    busy[1].send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1");
    let newcomer = client.connect();
    assert!(newcomer.is_closed(), "the third has just come");
    assert_eq!((client.stats().shed, client.stats().evicted), (1, 0));
    client.advance(Duration::from_millis(300));
    assert!(!client.connect().is_closed());
    assert!(busy[2].is_closed() && !busy[0].is_closed());
}

#[test]
fn idle_time_shrinks_when_connections_are_many() {
    let client = crowded(100);
    let idle: Vec<_> = (0..74).map(|_| client.connect()).collect();
    client.advance(Duration::from_secs(40));
    let _few: Vec<_> = (0..5).map(|_| client.connect()).collect();
    assert_eq!(client.stats().evicted, 0, "40 s are allowed as long as a good part is free");
    let many: Vec<_> = (0..17).map(|_| client.connect()).collect();
    assert!(client.stats().evicted > 0 && client.open() < 96);
    assert!(
        many.iter().all(|connection| !connection.is_closed())
            && idle.iter().any(|connection| connection.is_closed())
    );
}

#[test]
fn an_address_has_only_so_many_connections_where_that_is_limited() {
    let mut options = netpoll_core::sim::Options::default();
    options.limits.connections_per_address_max = Some(2);
    let client = App::new(|_| Router::new().get("/", |_: &Request| "hello")).test_with(options);
    let (mut first, second) = (client.connect(), client.connect());
    assert!(client.connect().is_closed(), "all peers here have one address");
    assert_eq!((client.stats().shed_by_address, client.open()), (1, 2));
    first.finish();
    assert!(!client.connect().is_closed() && !second.is_closed());
}

#[test]
fn a_limit_that_lets_nothing_through_is_named_when_the_server_starts() {
    type Change = fn(&mut Limits);
    let cases: [(&str, Change); 8] = [
        ("head_bytes_max", |limits| limits.head_bytes_max = 0),
        ("headers_max", |limits| limits.headers_max = 0),
        ("target_bytes_max", |limits| limits.target_bytes_max = 0),
        ("head_timeout", |limits| limits.head_timeout = Duration::ZERO),
        ("idle_timeout", |limits| limits.idle_timeout = Duration::ZERO),
        ("body_grace", |limits| limits.body_grace = Duration::ZERO),
        ("handler_timeout", |limits| limits.handler_timeout = Duration::ZERO),
        ("requests_per_turn", |limits| limits.requests_per_turn = Some(0)),
    ];
    for (name, change) in cases {
        let mut limits = Limits::default();
        change(&mut limits);
        let server = Server::bind("127.0.0.1:0").expect("an address").limits(limits);
        let error = server.app(|_| Router::new()).start().expect_err(name);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("Limits::{name} is zero: ")), "{error}");
    }
}

#[test]
#[should_panic(expected = "Limits::requests_per_turn is zero")]
fn a_test_says_so_too() {
    let _ = hello(|limits| limits.requests_per_turn = Some(0));
}
