//! Slow peers. Time passes only where a test says so.

use std::time::Duration;

use netpoll_http::{RateLimit, Request};

use crate::fixture::{
    Gate, answers, bodies, client, client_limited, client_with, gated, get, router, statuses,
};
use crate::transport::{TestClient, TestConnection};

const SECOND: Duration = Duration::from_secs(1);
/// Deadlines fire up to a tick of 1 ms late.
const TICK: Duration = Duration::from_millis(2);

const POST: &[u8] = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";

fn opened(first: &[u8]) -> (TestClient, TestConnection) {
    let client = client();
    let mut connection = client.connect();
    connection.send(first);
    (client, connection)
}

#[track_caller]
fn assert_quiet(connection: &mut TestConnection) {
    assert!(!connection.is_closed(), "still open");
    assert_eq!(connection.received(), b"", "and nothing said");
}

#[track_caller]
fn assert_timed_out(connection: &mut TestConnection) {
    let answers = answers(connection);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [408]);
    assert!(answers[0].says_close() && connection.is_closed() && !connection.is_reset());
}

#[track_caller]
fn assert_closed_in_silence(connection: &mut TestConnection) {
    assert_eq!(connection.received(), b"");
    assert!(connection.is_closed() && !connection.is_reset());
}

/// Sends what `drip` makes every second until the server has had enough; how many seconds that took.
fn drip_until_closed(connection: &mut TestConnection, mut drip: impl FnMut(usize) -> Vec<u8>) -> usize {
    for second in 0..200 {
        connection.send(&drip(second));
        connection.advance(SECOND);
        if connection.is_closed() {
            return second + 1;
        }
    }
    panic!("the server waits for ever");
}

#[test]
fn a_dripping_head_gets_408_ten_seconds_after_its_first_byte() {
    let (_, mut connection) = opened(b"");
    for byte in &b"GET / HTTP"[..9] {
        connection.send(&[*byte]);
        connection.advance(SECOND);
        assert_quiet(&mut connection);
    }
    connection.send(b"P");
    connection.advance(SECOND - TICK);
    assert_quiet(&mut connection);
    connection.advance(2 * TICK);
    assert_timed_out(&mut connection);
}

#[test]
fn a_head_that_stops_gets_408() {
    for head in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
        "\r\nG",
    ] {
        let (_, mut connection) = opened(head.as_bytes());
        connection.advance(10 * SECOND - TICK);
        assert_quiet(&mut connection);
        connection.advance(2 * TICK);
        assert_timed_out(&mut connection);
    }
}

#[test]
fn many_headers_do_not_buy_more_time() {
    let (_, mut connection) = opened(b"GET / HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(drip_until_closed(&mut connection, |second| format!("X{second}: y\r\n").into_bytes()), 10);
    assert_timed_out(&mut connection);
}

#[test]
fn each_head_has_its_own_ten_seconds() {
    let (_, mut connection) = opened(b"GET / HT");
    connection.advance(9 * SECOND);
    connection.send(b"TP/1.1\r\nHost: a\r\n\r\nGET");
    assert_eq!(bodies(&mut connection), ["hello"]);
    connection.advance(9 * SECOND);
    assert_quiet(&mut connection);
    connection.advance(SECOND + TICK);
    assert_timed_out(&mut connection);
}

#[test]
fn nothing_that_arrives_behind_a_408_is_served() {
    let (_, mut connection) = opened(b"GET /");
    connection.advance(10 * SECOND + TICK);
    assert_timed_out(&mut connection);
    connection.send(b" HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.received(), b"");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    for (first, answered) in [(Vec::new(), 0), (get("/"), 1), (b"\r\n".to_vec(), 0)] {
        let (_, mut connection) = opened(&first);
        assert_eq!(answers(&mut connection).len(), answered);
        connection.advance(75 * SECOND - TICK);
        assert_quiet(&mut connection);
        connection.advance(2 * TICK);
        assert_closed_in_silence(&mut connection);
    }
}

#[test]
fn a_request_now_and_then_keeps_a_connection_open() {
    let (client, mut connection) = opened(b"");
    for _ in 0..10 {
        connection.advance(70 * SECOND);
        connection.send(&get("/"));
        assert_eq!(bodies(&mut connection), ["hello"]);
    }
    assert_eq!((client.open(), client.blocks_in_use()), (1, 0), "an idle connection owns no buffer");
}

#[test]
fn a_body_that_does_not_come_gets_408_after_the_grace_period() {
    let (client, mut connection) = opened(POST);
    connection.advance(5 * SECOND - TICK);
    assert_quiet(&mut connection);
    connection.advance(2 * TICK);
    assert_timed_out(&mut connection);
    assert_eq!(client.stats().panics, 0);
}

#[test]
fn a_body_that_drips_gets_408() {
    let (_, mut connection) = opened(POST);
    // 100 bytes per second are 156 less than asked for, which is seen at the first look.
    assert_eq!(drip_until_closed(&mut connection, |_| vec![b'x'; 100]), 5);
    assert_timed_out(&mut connection);
}

#[test]
fn a_body_that_comes_at_the_minimum_rate_is_served() {
    let (_, mut connection) = opened(POST);
    for _ in 0..(20_000 / 250) {
        assert_quiet(&mut connection);
        connection.send(&[b'x'; 250]);
        // Six times in every five seconds.
        connection.advance(Duration::from_millis(830));
    }
    assert_eq!(bodies(&mut connection), ["x".repeat(20_000)]);
}

#[test]
fn a_body_that_stops_gets_408_however_much_of_it_is_there() {
    for bytes in [1280, 19_000] {
        let (_, mut connection) = opened(POST);
        connection.send(&vec![b'x'; bytes]);
        connection.advance(10 * SECOND - TICK);
        assert_quiet(&mut connection);
        connection.advance(2 * TICK);
        assert_timed_out(&mut connection);
    }
}

#[test]
fn chunk_framing_does_not_count_as_progress() {
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let dripped = [
        ("", "0".to_owned(), 6),
        ("5;", "e".repeat(300), 6),
        ("0\r\n", "X: y\r\n".to_owned(), 6),
        // 50 bytes of data in each 300.
        ("", "1\r\nx\r\n".repeat(50), 7),
    ];
    for (start, drip, seconds) in dripped {
        let (_, mut connection) = opened(&[head, start.as_bytes()].concat());
        let taken = drip_until_closed(&mut connection, |_| drip.clone().into_bytes());
        assert!(taken <= seconds, "{taken} seconds behind {start:?}");
        assert_timed_out(&mut connection);
    }
}

#[test]
fn a_client_that_never_sends_what_it_announced_with_expect_gets_408() {
    let (_, mut connection) =
        opened(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(statuses(&mut connection), [100]);
    connection.advance(5 * SECOND + TICK);
    assert_timed_out(&mut connection);
}

#[test]
fn an_unwanted_body_that_drips_is_cut_off_and_gets_no_second_answer() {
    let (client, mut connection) =
        opened(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
    assert_eq!(statuses(&mut connection), [404]);
    assert!(drip_until_closed(&mut connection, |_| vec![b'x'; 10]) <= 11);
    assert_eq!(connection.received(), b"");
    connection.advance(3 * SECOND);
    assert_eq!(client.open(), 0);
}

#[test]
fn a_peer_that_does_not_read_a_large_answer_is_cut() {
    let client = client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 4 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large"));
    connection.advance(9 * SECOND);
    assert!(!connection.is_closed(), "it has time");
    connection.advance(2 * SECOND);
    assert!(connection.is_reset(), "it took nothing for ten seconds");
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_peer_that_pauses_and_then_reads_gets_all_of_it() {
    let client = client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 4 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&[get("/large"), get("/")].concat());
    connection.advance(9 * SECOND);
    connection.start_reading();
    let lengths: Vec<usize> = answers(&mut connection).iter().map(|answer| answer.body.len()).collect();
    assert_eq!(lengths, [4 << 20, 5]);
}

#[test]
fn an_address_that_asks_too_often_gets_429_and_the_time_to_come_back() {
    let limit = RateLimit::per_address(1, 2);
    let client = client_with(move |_| {
        let (limit, calls) = (limit.clone(), std::cell::Cell::new(0));
        let count = move |_: &Request| {
            calls.set(calls.get() + 1);
            calls.get().to_string()
        };
        router().get("/count", count).before(move |req: &Request| limit.check(req))
    });
    let mut connection = client.connect();
    connection.send(&[get("/count"), get("/count"), get("/count")].concat());
    let all = answers(&mut connection);
    assert_eq!(all.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!(all[2].one("retry-after").as_deref(), Some("1"));
    connection.advance(SECOND);
    connection.send(&get("/count"));
    assert_eq!(bodies(&mut connection), ["3"], "the handler did not see the refused one");
}

#[test]
fn a_handler_may_take_thirty_seconds_and_then_it_is_answered_for() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&get("/gated"));
    connection.advance(30 * SECOND - TICK);
    assert_quiet(&mut connection);
    gate.open();
    connection.run();
    assert_eq!(bodies(&mut connection), ["through"]);

    gate.close();
    connection.send(&[get("/gated"), get("/")].concat());
    connection.advance(30 * SECOND + TICK);
    assert_eq!(statuses(&mut connection), [503], "nothing behind it is served");
}

#[test]
fn a_refused_peer_may_send_on_for_two_seconds() {
    let (client, mut connection) = opened(b"GET / HTTP/2.0\r\n\r\n");
    assert_eq!(statuses(&mut connection), [505]);
    assert_eq!(client.open(), 1, "so that the kernel does not take the answer back");
    connection.advance(2 * SECOND - TICK);
    assert_eq!(client.open(), 1);
    connection.advance(2 * TICK);
    assert_eq!(client.open(), 0);
}

#[test]
fn a_refused_peer_may_send_sixteen_mebibytes_more_and_is_held_back_then() {
    let (client, mut connection) = opened(b"GET / HTTP/2.0\r\n\r\n");
    let refused = client.stats().received_bytes;
    for _ in 0..20 {
        connection.send(&vec![b'x'; 1 << 20]);
    }
    let discarded = client.stats().received_bytes - refused;
    assert!((16 << 20..17 << 20).contains(&discarded), "{discarded}");
    assert_eq!((client.open(), client.blocks_in_use()), (1, 0), "discarded, not kept");
    assert!(!connection.is_reset());
    assert_eq!(statuses(&mut connection), [505]);
    connection.advance(10 * SECOND + TICK);
    assert_eq!(client.open(), 0);
}

#[test]
fn a_refused_peer_that_ends_is_gone_at_once() {
    let (client, mut connection) = opened(b"GET / HTTP/2.0\r\n\r\n");
    connection.finish();
    assert_eq!(client.open(), 0);
    assert_eq!(statuses(&mut connection), [505]);
}

#[test]
fn the_limits_can_be_set() {
    let client = client_limited(|limits| {
        limits.head_timeout = SECOND;
        limits.idle_timeout = 3 * SECOND;
        limits.body_grace = SECOND;
        limits.body_bytes_per_second_min = 10;
    });
    let (mut slow, mut idle, mut late) = (client.connect(), client.connect(), client.connect());
    slow.send(b"GET");
    late.send(POST);
    client.advance(SECOND + TICK);
    assert_timed_out(&mut slow);
    assert_timed_out(&mut late);
    assert_quiet(&mut idle);
    client.advance(2 * SECOND);
    assert_closed_in_silence(&mut idle);
}
