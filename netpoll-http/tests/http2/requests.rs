//! Requests and answers: that a service is the same, and what belongs to HTTP/2 alone.

use netpoll_http::{Request, Response, Router, StatusCode};

use crate::peer::*;
use crate::served;

fn hello() -> netpoll_http::TestClient {
    served(|_| {
        Router::new()
            .get("/", |req: &Request| format!("{:?} {} {:?}", req.version(), req.target(), req.host()))
            .get("/empty", |_: &Request| StatusCode::NO_CONTENT)
            .get("/orders/{id}", |req: &Request| req.param::<u32>("id").map(|id| id.to_string()))
            .get("/cookies", |req: &Request| {
                let all: Vec<String> = req.cookies().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{all:?} on {} lines", req.header_lines("cookie").count())
            })
            .get("/later", async |req: Request<'static>| {
                netpoll_core::time::sleep(std::time::Duration::from_secs(1)).await;
                format!("{} later", req.path())
            })
    })
}

#[test]
fn a_request_in_frames_is_answered_by_the_same_service_and_the_connection_stays() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let answer = peer.get(1, "/?a=b");
    assert_eq!((answer.status, answer.text()), (Some(200), "HTTP/2.0 /?a=b Some(\"a\")"));
    assert!(answer.is_whole && answer.reset.is_none());
    let answer = peer.get(3, "/orders/7");
    assert_eq!((answer.status, answer.text()), (Some(200), "7"));
    assert_eq!(peer.get(5, "/orders/x").status, Some(400));
    assert_eq!(peer.get(7, "/nowhere").status, Some(404));
    assert_eq!(peer.of(SETTINGS).filter(|frame| frame.flags & ACK != 0).count(), 1, "ours were acknowledged");
    assert_eq!(client.stats().requests, 4);
    // The same port, and the same service.
    assert_eq!(client.get("/").text(), "HTTP/1.1 / Some(\"test\")");
}

#[test]
fn the_preface_may_come_byte_by_byte_and_what_only_looks_like_it_is_refused_as_ever() {
    let client = hello();
    let mut peer = Peer::silent(&client);
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat();
    for byte in begin {
        peer.raw(&[byte]);
    }
    peer.assert_well(1);
    for (bytes, status) in [
        (&b"PRI * HTTP/1.1\r\n\r\n"[..], "400"),
        (b"PRI / HTTP/2.0\r\n\r\n", "505"),
        (b"GET * HTTP/2.0\r\n\r\n", "505"),
        (b"GET / HTTP/2.0\r\n\r\n", "505"),
        (b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
    ] {
        let answer = client.raw(bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {text}");
    }
    // Behind a request of HTTP/1.1 it is none.
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.send(PREFACE);
    let text = String::from_utf8(connection.received()).unwrap();
    assert!(text.contains("HTTP/1.1 505 "), "{text}");
}

#[test]
fn a_server_that_does_not_speak_it_says_so() {
    let client = netpoll_http::App::new(|_| Router::new()).test();
    let text = String::from_utf8(client.raw(PREFACE)).unwrap();
    assert!(text.starts_with("HTTP/1.1 505 "), "{text}");
}

#[test]
fn what_is_no_preface_behind_its_first_line_ends_the_connection() {
    let client = hello();
    let mut peer = Peer::silent(&client);
    peer.raw(b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert!(peer.connection.is_closed());
    assert!(peer.of(HEADERS).next().is_none());
}

#[test]
fn an_answer_to_head_and_one_without_content_have_no_data() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.ask(1, &with(&[(":method", "HEAD")]), true);
    let expected = |status| Answer { status: Some(status), is_whole: true, ..Answer::default() };
    assert_eq!(peer.answer(1), expected(200));
    assert_eq!(peer.get(3, "/empty"), expected(204));
}

#[test]
fn requests_of_one_connection_do_not_wait_for_each_other() {
    let client = hello();
    let mut peer = Peer::new(&client);
    assert_eq!(peer.get(1, "/later"), Answer::default());
    assert_eq!(peer.get(3, "/").status, Some(200));
    client.advance(std::time::Duration::from_secs(2));
    assert_eq!(peer.answer(1).text(), "/later later");
}

#[test]
fn a_hundred_requests_at_a_time_are_answered_and_more_than_allowed_are_refused() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let asks: Vec<u8> = (0..140)
        .flat_map(|n| {
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&with(&[(":path", "/later")])))
        })
        .collect();
    peer.raw(&asks);
    client.advance(std::time::Duration::from_secs(2));
    let answers: Vec<Answer> = (0..140).map(|n| peer.answer(2 * n + 1)).collect();
    let (answered, refused) = answers.split_at(128);
    assert!(answered.iter().all(|answer| answer.status == Some(200) && answer.is_whole));
    assert!(refused.iter().all(|answer| answer.reset == Some(REFUSED_STREAM)), "{refused:?}");
    peer.assert_well(301);
}

#[test]
fn cookies_that_come_one_by_one_are_one_line() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let mut fields = with(&[(":path", "/cookies")]);
    fields.extend([("cookie", "a=1"), ("cookie", "b=2; c=3")]);
    peer.ask(1, &fields, true);
    assert_eq!(peer.answer(1).text(), "[\"a=1\", \"b=2\", \"c=3\"] on 1 lines");
}

#[test]
fn a_head_is_judged_by_the_rules_of_http_1_1() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let long = format!("/{}", "x".repeat(9000));
    let many: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("host", "b")], 400),
        (&[("host", "a")], 200),
        (&[(":authority", "a b")], 0),
        (&[(":authority", "user@a")], 400),
        (&[(":path", "*")], 400),
        (&[(":path", "/a b")], 0),
        (&[("content-length", "x")], 0),
        (&[("expect", "200-ok")], 417),
        (&[(":method", "BREW")], 501),
        (&[(":method", "OPTIONS"), (":path", "*")], 204),
        (&[(":path", &long)], 414),
        (&many, 431),
    ];
    for (n, (fields, expected)) in cases.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        peer.ask(stream, &with(fields), true);
        let answer = peer.answer(stream);
        match expected {
            // What cannot even be a field of HTTP/2.
            0 => assert_eq!((answer.status, answer.reset), (None, Some(PROTOCOL_ERROR)), "{fields:?}"),
            _ => assert_eq!((answer.status, answer.reset), (Some(*expected), None), "{fields:?}"),
        }
    }
    peer.assert_well(101);
}

#[test]
fn a_websocket_cannot_be_had_and_the_answer_says_so() {
    let client = served(|_| {
        let echo = |req: &Request| match req.upgrade("websocket") {
            Some(upgrade) => Ok(upgrade.accept(Nothing)),
            None => Response::new(StatusCode::UPGRADE_REQUIRED).header("upgrade", "websocket"),
        };
        Router::new().get("/", echo).websocket("/socket", |_: &Request| Silent)
    });
    let mut peer = Peer::new(&client);
    assert_eq!(peer.get(1, "/").status, Some(426));
    assert_eq!(peer.get(3, "/socket").status, Some(426));
    // Not by a CONNECT either (RFC 8441).
    peer.ask(5, &with(&[(":method", "CONNECT"), (":protocol", "websocket")]), false);
    let answer = peer.answer(5);
    assert!(answer.status == Some(501) || answer.reset.is_some(), "{answer:?}");
    peer.ask(7, &[(":method", "CONNECT"), (":authority", "a:80")], false);
    assert_eq!(peer.answer(7).status, Some(501));
}

struct Silent;

impl netpoll_http::websocket::Handler for Silent {
    fn message(
        &mut self,
        _: &mut netpoll_http::websocket::WebSocket<'_, '_>,
        _: netpoll_http::websocket::Message<'_>,
    ) {
    }
}

struct Nothing;

impl netpoll_core::Protocol for Nothing {
    fn received(
        &mut self,
        _: &mut netpoll_core::Conn<'_>,
        input: &mut netpoll_core::Input<'_>,
    ) -> netpoll_core::Flow {
        input.advance_all();
        netpoll_core::Flow::Continue
    }
}
