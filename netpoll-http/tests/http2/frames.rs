//! Frames that break a rule, and those that keep it at its edge (RFC 9113).

use netpoll_http::{Request, Router, TestClient};

use crate::peer::*;
use crate::served;

fn hello() -> TestClient {
    served(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/large", |_: &Request| "x".repeat(200_000))
            .post("/", |req: &Request| req.body().len().to_string())
    })
}

const POST: &[(&str, &str)] = &[(":method", "POST")];

#[test]
fn a_ping_is_answered_with_what_it_said() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.send(PING, 0, 0, b"12345678");
    let pong = peer.of(PING).next().unwrap();
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"12345678"[..]));
    peer.assert_well(1);
}

#[test]
fn what_breaks_a_rule_of_the_connection_ends_it_and_says_why() {
    let headers = |flags, stream, fields: &[(&str, &str)]| frame(HEADERS, flags, stream, &block(fields));
    let half = END_STREAM;
    let all = END_STREAM | END_HEADERS;
    let cases: &[(&str, Vec<u8>, u32)] = &[
        ("a frame larger than it may be", frame(DATA, 0, 1, &vec![0; 16 * 1024 + 1]), FRAME_SIZE_ERROR),
        ("a ping that is too short", frame(PING, 0, 0, b"1234"), FRAME_SIZE_ERROR),
        ("a ping of a stream", frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
        ("settings that are cut", frame(SETTINGS, 0, 0, &[0, 4, 0]), FRAME_SIZE_ERROR),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0, 4, 0, 0, 0, 1]), FRAME_SIZE_ERROR),
        ("a window above its limit", frame(SETTINGS, 0, 0, &[0, 4, 255, 0, 0, 0]), FLOW_CONTROL_ERROR),
        ("a frame length below its limit", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), PROTOCOL_ERROR),
        ("a window that is opened by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), FLOW_CONTROL_ERROR),
        ("data of a stream that has not begun", frame(DATA, 0, 1, b"data"), PROTOCOL_ERROR),
        ("data of no stream", frame(DATA, 0, 0, b"data"), PROTOCOL_ERROR),
        ("a reset of a stream that has not begun", frame(RST_STREAM, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        ("a stream with an even number", headers(all, 2, &GET), PROTOCOL_ERROR),
        ("a request of no stream", headers(all, 0, &GET), PROTOCOL_ERROR),
        ("a promise of a client", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("fields that go on from nowhere", frame(CONTINUATION, END_HEADERS, 1, &[]), PROTOCOL_ERROR),
        (
            "another frame between fields",
            [headers(half, 1, &GET), frame(PING, 0, 0, b"12345678")].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "fields that go on for another stream",
            [headers(half, 1, &GET), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "a number that is too small",
            [headers(all, 3, &GET), headers(all, 1, &GET)].concat(),
            PROTOCOL_ERROR,
        ),
        ("padding longer than its frame", frame(HEADERS, all | 8, 1, &[200, 0, 0]), PROTOCOL_ERROR),
        (
            "a block that is none",
            frame(HEADERS, all, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            COMPRESSION_ERROR,
        ),
        ("a field that the table does not have", frame(HEADERS, all, 1, &[0xff]), COMPRESSION_ERROR),
    ];
    for (what, bytes, reason) in cases {
        let client = hello();
        let mut peer = Peer::new(&client);
        peer.raw(bytes);
        // What has a reason of its own is PROTOCOL_ERROR all the same to some, which is none the worse.
        let said = peer.goodbye().map(|(_, reason)| reason);
        assert!(said == Some(*reason) || said == Some(PROTOCOL_ERROR), "{what}: {:?}", peer.frames);
        assert!(peer.connection.is_closed(), "{what}");
        assert_eq!(client.stats().panics, 0, "{what}");
    }
}

#[test]
fn what_breaks_a_rule_of_a_request_costs_this_request_alone() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let replaced = |name: &str, value: &'static str| -> Vec<(&'static str, &'static str)> {
        GET.iter().map(|&(known, old)| (known, if known == name { value } else { old })).collect()
    };
    let without = |name: &str| -> Vec<(&'static str, &'static str)> {
        GET.iter().copied().filter(|(known, _)| *known != name).collect()
    };
    let and = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let cases: &[(&str, Vec<(&str, &str)>)] = &[
        ("Connection", and(&[("connection", "close")])),
        ("Keep-Alive", and(&[("keep-alive", "1")])),
        ("Transfer-Encoding", and(&[("transfer-encoding", "chunked")])),
        ("Upgrade", and(&[("upgrade", "websocket")])),
        ("TE with something else", and(&[("te", "gzip")])),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", replaced(":path", "")),
        ("two methods", and(&[(":method", "GET")])),
        ("a pseudo field behind a field", [&without(":path")[..], &[("x-a", "1"), (":path", "/")]].concat()),
        ("a status", and(&[(":status", "200")])),
        ("a length of a body that there is not", and(&[("content-length", "5")])),
    ];
    for (n, (what, fields)) in cases.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        peer.ask(stream, fields, true);
        let answer = peer.answer(stream);
        assert!(answer.status != Some(200), "{what}: {answer:?}, {:?}", peer.goodbye());
        let is_refused = answer.reset == Some(PROTOCOL_ERROR) || answer.status == Some(400);
        assert!(is_refused, "{what}: {answer:?}, {:?}", peer.goodbye());
    }
    peer.assert_well(101);
    assert_eq!(client.stats().panics, 0);
}

#[test]
fn a_name_or_a_value_that_is_none_ends_the_connection() {
    for (name, value) in [("X-A", "1"), ("x a", "1"), ("", "1"), (":colour", "red"), ("x-a", "1\r\nx-b: 2")] {
        let client = hello();
        let mut peer = Peer::new(&client);
        peer.ask(1, &with(&[(name, value)]), true);
        peer.assert_over(PROTOCOL_ERROR);
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_was_said_to_be_is_no_request() {
    let client = hello();
    let mut peer = Peer::new(&client);
    for (stream, data) in [(1, &b"1234"[..]), (3, b"123456")] {
        peer.ask(stream, &with(&[POST[0], ("content-length", "5")]), false);
        peer.send(DATA, END_STREAM, stream, data);
        let answer = peer.answer(stream);
        assert_eq!((answer.status, answer.reset), (None, Some(PROTOCOL_ERROR)), "{data:?}");
    }
    peer.ask(5, &with(&[POST[0], ("content-length", "5")]), false);
    peer.send(DATA, END_STREAM, 5, b"12345");
    assert_eq!(peer.answer(5).text(), "5");
}

#[test]
fn padding_priorities_and_unknown_frames_change_nothing() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.send(99, 255, 7, b"whatever");
    peer.send(PRIORITY, 0, 5, &[0, 0, 0, 3, 200]);
    // With padding and a priority of its own.
    let mut payload = vec![3, 0, 0, 0, 0, 15];
    payload.extend(block(&with(POST)));
    payload.extend([0; 3]);
    peer.send(HEADERS, END_HEADERS | 8 | 32, 1, &payload);
    peer.send(DATA, 8, 1, &[2, b'a', b'b', b'c', 0, 0]);
    peer.send(DATA, END_STREAM, 1, b"");
    assert_eq!(peer.answer(1).text(), "3");
    // One that depends on itself.
    peer.send(PRIORITY, 0, 3, &[0, 0, 0, 3, 200]);
    assert!(peer.goodbye().is_none() || peer.connection.is_closed());
}

#[test]
fn fields_may_come_in_several_frames() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let block = block(&GET);
    peer.send(HEADERS, END_STREAM, 1, &block[..5]);
    peer.send(CONTINUATION, 0, 1, &block[5..6]);
    peer.send(CONTINUATION, END_HEADERS, 1, &block[6..]);
    assert_eq!(peer.answer(1).status, Some(200));
}

#[test]
fn an_answer_is_sent_as_far_as_the_windows_go_and_goes_on_when_they_open() {
    let client = hello();
    let mut peer = Peer::with(&client, &[(4, 1000)]);
    let answer = peer.get(1, "/large");
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (Some(200), 1000, false));
    peer.send(WINDOW_UPDATE, 0, 1, &500_u32.to_be_bytes());
    assert_eq!(peer.answer(1).body.len(), 1500);
    // The window of all streams together is what the RFC begins with.
    peer.send(WINDOW_UPDATE, 0, 1, &300_000_u32.to_be_bytes());
    assert_eq!(peer.answer(1).body.len(), 65_535);
    peer.send(WINDOW_UPDATE, 0, 0, &300_000_u32.to_be_bytes());
    let answer = peer.answer(1);
    assert_eq!((answer.body.len(), answer.is_whole), (200_000, true));
    // Those that are opened by settings as well.
    assert_eq!(peer.get(3, "/large").body.len(), 1000);
    peer.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0]);
    assert_eq!(peer.answer(3).body.len(), 4096);
}
