//! Several requests at once: order, fairness, back-pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netpoll_http::Request;

use crate::fixture::{Gate, answers, bodies, client, client_with, gated, get, router, statuses};

#[test]
fn a_thousand_requests_in_one_packet_are_answered_in_order() {
    let client = client();
    let mut connection = client.connect();
    let all: Vec<String> = (0..1000).map(|number| format!("/path/{number}")).collect();
    connection.send(&all.iter().flat_map(|target| get(target)).collect::<Vec<u8>>());
    assert_eq!(bodies(&mut connection), all);
}

#[test]
fn order_is_kept_while_a_handler_in_the_middle_waits() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&[get("/path/1"), get("/gated"), get("/path/3"), get("/gated"), get("/path/5")].concat());
    assert_eq!(bodies(&mut connection), ["/path/1"]);
    connection.send(&get("/path/6"));
    assert_eq!(bodies(&mut connection), [""; 0], "nothing overtakes");
    gate.open();
    connection.run();
    assert_eq!(bodies(&mut connection), ["through", "/path/3", "through", "/path/5", "/path/6"]);
}

#[test]
fn a_waiting_handler_does_not_hold_up_other_connections() {
    let gate = Gate::default();
    let client = gated(&gate);
    let (mut waiting, mut other) = (client.connect(), client.connect());
    waiting.send(&get("/gated"));
    other.send(&get("/"));
    assert_eq!(bodies(&mut other), ["hello"]);
    assert_eq!(waiting.received(), b"");
}

#[test]
fn a_bad_request_behind_a_waiting_handler_is_refused_in_its_turn() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection
        .send(&[get("/gated"), b"GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_vec(), get("/canary")].concat());
    assert_eq!(connection.received(), b"");
    gate.open();
    connection.run();
    assert_eq!(statuses(&mut connection), [200, 400]);
    assert!(connection.is_closed());
}

#[test]
fn a_close_behind_a_waiting_handler_is_honoured() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    let closing = b"GET /gated HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec();
    connection.send(&[get("/"), closing, get("/canary")].concat());
    gate.open();
    connection.run();
    let answers = answers(&mut connection);
    assert_eq!(answers.iter().map(|answer| answer.says_close()).collect::<Vec<_>>(), [false, true]);
    assert!(connection.is_closed() && !connection.is_reset());
}

#[test]
fn handlers_stop_when_their_answers_back_up_and_go_on_when_they_are_read() {
    const ANSWER_BYTES: usize = 64 * 1024;
    let calls = Arc::new(AtomicUsize::new(0));
    let client = {
        let calls = Arc::clone(&calls);
        client_with(move |_| {
            let calls = Arc::clone(&calls);
            router().get("/large", move |_: &Request| {
                calls.fetch_add(1, Ordering::Relaxed);
                vec![b'x'; ANSWER_BYTES]
            })
        })
    };
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large").repeat(100));
    let called = calls.load(Ordering::Relaxed);
    // High water is 256 KiB, and the peer's kernel has taken 64 KiB.
    assert!(called * ANSWER_BYTES <= (256 + 64 + 64 + 64) * 1024, "{called} answers pile up");
    connection.start_reading();
    let lengths: Vec<usize> = answers(&mut connection).iter().map(|answer| answer.body.len()).collect();
    assert_eq!(lengths, [ANSWER_BYTES; 100]);
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn requests_behind_a_waiting_handler_are_left_to_the_network() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&get("/gated"));
    for _ in 0..100 {
        connection.send(&get("/").repeat(1000));
    }
    assert!(client.blocks_in_use() <= 8, "{} blocks", client.blocks_in_use());
    gate.open();
    connection.run();
    assert_eq!(answers(&mut connection).len(), 100_001);
}

#[test]
fn small_answers_back_up_as_well() {
    let client = client();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/").repeat(20_000));
    assert!(client.stats().requests < 5000, "{} requests were served", client.stats().requests);
    connection.start_reading();
    assert_eq!(answers(&mut connection).len(), 20_000);
}
