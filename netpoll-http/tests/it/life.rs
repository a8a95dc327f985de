//! The life of a connection: persistence, pipelining, back-pressure, panics, endings.

use std::time::Duration;

use netpoll_http::{App, Json, Limits, Request, Router, StatusCode, TestClient};

use crate::{client, text};

fn site() -> TestClient {
    client(|| {
        Router::new()
            .get("/", |_: &Request| "root")
            .get("/{n}", |req: &Request| req.param::<String>("n"))
            .get("/kib/{n}", |req: &Request| Ok("x".repeat(1024 * req.param::<usize>("n")?)))
            .post("/echo", |req: &Request| String::from_utf8_lossy(req.body()).into_owned())
            .get("/panic", |_: &Request| {
                if true {
                    panic!("in a handler");
                }
                Json(1)
            })
    })
}

#[test]
fn pipelined_requests_are_answered_in_order_with_one_write() {
    let client = site();
    let mut connection = client.connect();
    let before = client.stats().syscalls_send;
    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.send(requests.as_bytes());
    for n in 0..50 {
        assert_eq!(connection.response().expect("an answer").text(), n.to_string());
    }
    assert_eq!(client.stats().syscalls_send - before, 1);
}

#[test]
fn answers_to_what_arrived_together_share_one_block_once_warm() {
    let client = client(|| Router::new().get("/{n}", |req: &Request| req.param::<String>("n")));
    let mut connection = client.connect();
    let batch: String = (0..16).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let blocks = |client: &TestClient| client.stats().pool_hits + client.stats().pool_misses;
    for round in 0..6 {
        let (before, allocated) = (blocks(&client), client.stats().pool_misses);
        connection.send(batch.as_bytes());
        assert!(connection.received().len() > 16 * 100);
        if round > 1 {
            assert_eq!(blocks(&client) - before, 1, "one block for sixteen answers");
            assert_eq!(client.stats().pool_misses, allocated, "a used one");
        }
    }
}

#[test]
fn requests_byte_by_byte_are_the_same_requests() {
    let mut connection = site().connect();
    for byte in b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n" {
        connection.send(&[*byte]);
    }
    assert_eq!(connection.response().expect("an answer").text(), "1");
    assert_eq!(connection.response().expect("an answer").text(), "2");
}

#[test]
fn connection_close_is_answered_said_and_done() {
    let mut connection = site().connect();
    connection
        .send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!((response.header("connection"), response.text()), (Some("close"), "1"));
    assert!(connection.response().is_none() && connection.is_closed() && !connection.is_reset());
}

#[test]
fn http_1_0_closes_unless_it_asks_to_stay() {
    let mut leaves = site().connect();
    leaves.send(b"GET /1 HTTP/1.0\r\n\r\n");
    assert_eq!(leaves.response().expect("an answer").header("connection"), Some("close"));
    assert!(leaves.is_closed());

    let mut stays = site().connect();
    stays.send(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(stays.response().expect("an answer").header("connection"), Some("keep-alive"));
    assert!(!stays.is_closed());
}

#[test]
fn a_framing_error_is_answered_after_the_requests_before_it_and_ends_everything() {
    let mut connection = site().connect();
    connection.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost : a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the first").text(), "1");
    let refusal = connection.response().expect("the refusal");
    assert_eq!((refusal.status, refusal.header("connection")), (StatusCode::BAD_REQUEST, Some("close")));
    assert_eq!(refusal.text(), "There is white space between a header name and its colon.\n");
    assert!(connection.response().is_none() && connection.is_closed());
}

#[test]
fn a_tls_handshake_is_closed_without_an_answer() {
    let mut connection = site().connect();
    connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(connection.received(), b"");
    assert!(connection.is_closed());
}

#[test]
fn a_panic_in_a_handler_is_a_500_that_closes_and_the_worker_lives() {
    let client = site();
    let mut connection = client.connect();
    connection.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /panic HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the first").text(), "1");
    let apology = connection.response().expect("the apology");
    assert_eq!(
        (apology.status, apology.header("connection")),
        (StatusCode::INTERNAL_SERVER_ERROR, Some("close"))
    );
    assert!(connection.response().is_none() && connection.is_closed());
    assert_eq!(client.get("/").text(), "root");
    assert_eq!(client.stats().panics, 1);
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let client = site();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&b"GET /kib/64 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    connection.finish();
    connection.start_reading();
    for n in 0..20 {
        assert_eq!(connection.response().unwrap_or_else(|| panic!("answer {n}")).body.len(), 64 * 1024);
    }
    assert!(connection.is_closed() && !connection.is_reset());
}

#[test]
fn a_client_that_ends_inside_a_head_is_closed() {
    let mut connection = site().connect();
    connection.send(b"GET / HTTP/1.1\r\nHo");
    connection.finish();
    assert!(connection.is_closed());
    assert_eq!(connection.received(), b"");
}

#[test]
fn a_slow_reader_stops_being_read_and_later_gets_everything() {
    let client = site();
    let mut connection = client.connect();
    connection.stop_reading();
    for _ in 0..40 {
        connection.send(b"GET /kib/64 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let answered = client.stats().requests;
    assert!(answered < 10, "{answered} answers of 64 KiB for a peer that does not read");
    connection.start_reading();
    for n in 0..40 {
        assert_eq!(connection.response().unwrap_or_else(|| panic!("answer {n}")).body.len(), 64 * 1024);
    }
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let client = site();
    let mut connections: Vec<_> = (0..10).map(|_| client.connect()).collect();
    for connection in &mut connections {
        connection.send(b"GET /kib/20 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(connection.response().is_some());
    }
    assert_eq!((client.open(), client.blocks_in_use()), (10, 0));
}

#[test]
fn a_drain_closes_idle_connections_after_its_grace_and_lets_a_request_in_hand_finish() {
    let client = site();
    let (idle, mut busy) = (client.connect(), client.connect());
    busy.send(b"GET /1 HTTP/1.1\r\nHo");
    client.begin_drain(Duration::from_secs(5));
    client.advance(Duration::from_millis(990));
    assert!(!idle.is_closed());
    client.advance(Duration::from_millis(20));
    assert!(idle.is_closed() && !idle.is_reset() && !busy.is_closed());
    busy.send(b"st: a\r\n\r\n");
    let response = busy.response().expect("an answer");
    assert_eq!((response.text(), response.header("connection")), ("1", Some("close")));
    assert!(busy.is_closed());
}

#[test]
fn a_pipeline_ends_in_a_drain_behind_an_answer_that_says_close_whatever_its_client_sends_on() {
    for in_a_turn in [1, 3] {
        let mut limits = Limits::default();
        limits.requests_per_turn = Some(in_a_turn);
        let router = |_: &_| Router::new().get("/{n}", |req: &Request| req.param::<String>("n"));
        let client = App::new(router).limits(limits).test();
        let mut connection = client.connect();
        let mut sent = 0;
        let mut ask = |connection: &mut netpoll_http::TestConnection| {
            sent += 1;
            connection.put(format!("GET /{sent} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        };
        (0..20).for_each(|_| ask(&mut connection));
        client.turn();
        client.turn();
        client.begin_drain(Duration::from_secs(60));
        // It has more before it than a turn's work, all the time.
        for _ in 0..100 {
            (0..in_a_turn).for_each(|_| ask(&mut connection));
            client.turn();
            client.stand_still(Duration::from_millis(10));
        }
        let answers: Vec<_> = std::iter::from_fn(|| connection.response()).collect();
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(answer.text(), (index + 1).to_string());
            let is_last = index + 1 == answers.len();
            assert_eq!(answer.header("connection") == Some("close"), is_last, "answer {index}");
        }
        assert!((2..20).contains(&answers.len()), "{} answers", answers.len());
        assert!(connection.is_closed() && !connection.is_reset());
    }
}

#[test]
fn a_drain_resets_nobody_who_has_not_taken_its_answer_yet() {
    let client = site();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(b"GET /kib/60 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.begin_drain(Duration::from_secs(30));
    connection.advance(Duration::from_secs(2));
    assert!(!connection.is_reset(), "all of it is under way");
    connection.start_reading();
    assert_eq!(connection.response().expect("an answer").text().len(), 60 * 1024);
    assert!(connection.is_closed() && !connection.is_reset());

    // Nor one whose body is still coming although its answer is complete, at the end of the drain.
    let client = site();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(b"POST /nowhere/at/all HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    client.begin_drain(Duration::from_secs(3));
    connection.advance(Duration::from_secs(4));
    assert!(!connection.is_reset());
    connection.start_reading();
    assert_eq!(connection.response().expect("an answer").status, StatusCode::NOT_FOUND);
}

#[test]
fn who_still_takes_its_answer_is_not_idle_and_who_has_stopped_is_cut() {
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_secs(1);
    let large = |_: &Request| "x".repeat(60 * 1024);
    let client = App::new(move |_| Router::new().get("/", large)).limits(limits).test();
    let (mut slow, mut stopped) = (client.connect(), client.connect());
    for connection in [&mut slow, &mut stopped] {
        connection.stop_reading();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    client.advance(Duration::from_secs(5));
    slow.start_reading();
    assert_eq!(slow.response().expect("an answer").text().len(), 60 * 1024);
    client.advance(Duration::from_secs(5));
    assert!(!slow.is_closed() && !stopped.is_closed());
    client.advance(Duration::from_secs(2));
    assert!(slow.is_closed() && !slow.is_reset());
    assert!(stopped.is_reset(), "it took nothing for ten seconds");
    assert_eq!(client.open(), 0);
}

#[test]
fn how_slowly_an_answer_may_be_taken_is_one_setting_wherever_the_answer_lies() {
    for (grace, rate, cut) in [(10, 256, true), (60, 256, false), (10, 0, false)] {
        let mut options = netpoll_core::sim::Options::default();
        options.limits.write_grace = Duration::from_secs(grace);
        options.limits.write_rate_min = rate;
        let mut limits = Limits::default();
        limits.idle_timeout = Duration::from_secs(1);
        let large = |_: &Request| "x".repeat(60 * 1024);
        let client = App::new(move |_| Router::new().get("/", large)).limits(limits).test_with(options);
        let mut connection = client.connect();
        connection.stop_reading();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.advance(Duration::from_secs(30));
        assert_eq!(connection.is_reset(), cut, "{rate} bytes in a second, looked at every {grace} s");
    }
}

#[test]
fn the_date_follows_the_clock() {
    let client = site();
    let mut connection = client.connect();
    let mut date = || {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = connection.response().expect("an answer");
        response.header("date").expect("a date").to_owned()
    };
    let first = date();
    client.advance(Duration::from_secs(3));
    assert_eq!(
        (first.as_str(), date().as_str()),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:40 GMT")
    );
}

#[test]
fn the_answer_to_a_refused_request_has_one_date_and_one_length() {
    let bytes = site().raw(b"GET / HTTP/2.0\r\n\r\n");
    let head = text(&bytes);
    assert!(head.starts_with("HTTP/1.1 505 "));
    assert_eq!((head.matches("Date: ").count(), head.matches("Content-Length: ").count()), (1, 1));
}

const LAST: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn who_says_that_nothing_follows_is_not_waited_for() {
    for last in [
        LAST,
        b"GET /1 HTTP/1.0\r\n\r\n",
        b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
    ] {
        let client = site();
        let mut connection = client.connect();
        connection.send(last);
        let mut answer = connection.response().expect("an answer");
        if answer.text() == "2" {
            answer = connection.response().expect("another");
        }
        assert_eq!(answer.text(), "1", "{}", text(last));
        assert!(connection.is_closed() && !connection.is_reset(), "{}", text(last));
        assert_eq!((client.open(), client.stats().syscalls_shutdown), (0, 0), "{}", text(last));
    }
}

#[test]
fn a_close_that_the_client_did_not_ask_for_waits_for_its_end() {
    let post = "POST /kib/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    for (what, bytes) in [
        ("bytes behind the request", [LAST, b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"].concat()),
        ("a refusal", b"GET /1 HTTP/2.0\r\n\r\n".to_vec()),
        ("a panic of the handler", b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a body that nobody reads", format!("{post}Content-Length: 1000\r\n\r\nsome").into_bytes()),
        ("a body above its limit", format!("{post}Content-Length: 9999999\r\n\r\nsome").into_bytes()),
    ] {
        let client = site();
        let mut connection = client.connect();
        connection.send(&bytes);
        assert!(connection.response().is_some(), "{what}");
        assert!(connection.is_closed() && !connection.is_reset(), "{what}");
        assert_eq!((client.open(), client.stats().syscalls_shutdown), (1, 1), "{what}");
        connection.send(b"and more of it");
        assert!(!connection.is_reset(), "{what}");
        connection.finish();
        assert_eq!(client.open(), 0, "{what}");
    }
}

#[test]
fn a_last_answer_leaves_whole_before_the_connection_closes() {
    let client = site();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(b"GET /kib/2000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.open(), 1, "most of it is queued");
    connection.start_reading();
    assert_eq!(connection.response().expect("an answer").body.len(), 2000 * 1024);
    assert!(connection.is_closed() && !connection.is_reset());
    assert_eq!(
        client.open(),
        1,
        "it did not leave at once: nothing that still comes may destroy the end of it"
    );
    connection.send(b"\r\n");
    assert!(!connection.is_reset());
    connection.finish();
    assert_eq!(client.open(), 0);
}

#[test]
fn a_drain_waits_for_the_end_of_who_wanted_to_stay() {
    let client = site();
    let mut connection = client.connect();
    connection.send(b"GET /1 HTTP/1.1\r\nHo");
    client.begin_drain(Duration::from_secs(5));
    connection.send(b"st: a\r\n\r\n");
    assert!(connection.response().is_some());
    assert_eq!((client.open(), client.stats().syscalls_shutdown), (1, 1));
}
