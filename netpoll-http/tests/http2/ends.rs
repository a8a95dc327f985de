//! How connections end: drains, silence, age, clients that leave, and what is noticed of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::ConnLimits;
use netpoll_core::sim::Options;
use netpoll_http::{App, Http2, Request, Router, TestClient};

use crate::peer::*;

fn with_settings(settings: Http2) -> TestClient {
    App::new(|_| {
        Router::new().get("/", |_: &Request| "hello").get("/later", async |_: Request<'static>| {
            netpoll_core::time::sleep(Duration::from_secs(3)).await;
            "later"
        })
    })
    .http2(settings)
    .test()
}

fn hello() -> TestClient {
    with_settings(Http2::default())
}

#[test]
fn in_a_drain_the_client_is_told_and_what_is_under_way_is_answered() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.get(1, "/later");
    client.begin_drain(Duration::from_secs(30));
    let (last, reason) = peer.goodbye().expect("a first goodbye, that refuses nothing");
    assert_eq!((last, reason), ((1 << 31) - 1, NO_ERROR));
    // Under way when the client heard of it.
    peer.ask(3, &GET, true);
    assert_eq!(peer.answer(3).text(), "hello");
    let ping = peer.of(PING).last().unwrap().payload.clone();
    peer.send(PING, ACK, 0, &ping);
    assert_eq!(peer.goodbye(), Some((3, NO_ERROR)), "the last one that is served");
    client.advance(Duration::from_secs(4));
    assert_eq!(peer.answer(1).text(), "later");
    assert!(peer.connection.is_closed());
}

#[test]
fn in_a_drain_a_connection_without_requests_ends_also_if_its_client_says_nothing() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let mut unborn = Peer::silent(&client);
    unborn.raw(b"PRI * HTTP/2.0\r\n");
    peer.assert_well(1);
    client.begin_drain(Duration::from_secs(30));
    assert!(!peer.connection.is_closed());
    client.advance(Duration::from_secs(3));
    assert!(peer.connection.is_closed() && unborn.connection.is_closed());
}

#[test]
fn what_a_drain_finds_at_its_deadline_is_cut() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.get(1, "/later");
    client.begin_drain(Duration::from_secs(2));
    client.advance(Duration::from_secs(4));
    let answer = peer.answer(1);
    assert!(answer.status.is_none() && peer.connection.is_closed());
}

#[test]
fn a_connection_that_is_silent_ends_with_a_goodbye_and_pings_do_not_prolong_it() {
    let client = with_settings(Http2::default().ping_after(None));
    let mut peer = Peer::new(&client);
    peer.assert_well(1);
    for _ in 0..7 {
        client.advance(Duration::from_secs(10));
        peer.send(PING, 0, 0, b"12345678");
        assert!(peer.goodbye().is_none());
    }
    client.advance(Duration::from_secs(10));
    assert_eq!(peer.goodbye().map(|(_, reason)| reason), Some(NO_ERROR));
    client.advance(Duration::from_secs(5));
    assert!(peer.connection.is_closed());
    assert_eq!(peer.goodbye(), Some((1, NO_ERROR)), "whatever was under way was not looked at");
    assert_eq!(client.open(), 0);
}

#[test]
fn who_makes_room_for_others_hears_which_requests_nobody_has_looked_at() {
    let client = App::new(|_| Router::new().get("/", |_: &Request| "hello"))
        .http2(Http2::default())
        .test_with(Options::default().limits(ConnLimits::default().connections_max(1)));
    let mut peer = Peer::new(&client);
    peer.assert_well(1);
    peer.assert_well(3);
    client.advance(Duration::from_secs(1));
    assert_eq!(client.get("/").text(), "hello");
    assert!(peer.connection.is_closed());
    assert_eq!(peer.goodbye(), Some((3, NO_ERROR)));
}

#[test]
fn a_preface_that_does_not_come_on_is_waited_for_as_a_head_is() {
    let client = hello();
    let mut peer = Peer::silent(&client);
    peer.raw(b"PRI * HTTP/2.0\r\n\r\n");
    client.advance(Duration::from_secs(9));
    assert!(!peer.connection.is_closed());
    client.advance(Duration::from_secs(6));
    assert!(peer.connection.is_closed());
}

#[test]
fn a_head_that_does_not_come_on_ends_the_connection_however_it_drips() {
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET));
    let more = frame(CONTINUATION, 0, 1, &[]);
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    // A part of a frame, and frames that say that more follow.
    for (first, then) in [(&whole[..20], &whole[20..21]), (&begun[..], &more[..])] {
        let client = hello();
        let mut peer = Peer::new(&client);
        client.advance(Duration::from_secs(30));
        peer.raw(first);
        client.advance(Duration::from_secs(9));
        peer.raw(then);
        assert!(!peer.connection.is_closed());
        client.advance(Duration::from_secs(2));
        assert!(peer.connection.is_closed());
    }
}

#[test]
fn a_client_that_is_gone_without_a_word_is_noticed_by_a_ping_that_it_does_not_answer() {
    let settings = Http2::default().ping_after(Duration::from_secs(5)).pong_within(Duration::from_secs(2));
    let client = App::new(|_| {
        Router::new().get("/", async |_: Request<'static>| std::future::pending::<&str>().await)
    })
    .limits(netpoll_http::Limits::default().handler_timeout(Duration::from_secs(600)))
    .http2(settings)
    .test();
    let mut peer = Peer::new(&client);
    peer.get(1, "/");
    client.advance(Duration::from_secs(6));
    peer.take();
    let ping = peer.of(PING).last().expect("a ping").payload.clone();
    peer.send(PING, ACK, 0, &ping);
    client.advance(Duration::from_secs(4));
    assert!(!peer.connection.is_closed());
    client.advance(Duration::from_secs(10));
    assert!(peer.connection.is_closed());
    assert_eq!(client.open(), 0);
}

#[test]
fn an_old_connection_is_told_to_go_and_answers_what_is_under_way() {
    let client = with_settings(Http2::default().age_max(Duration::from_secs(20)));
    let mut peer = Peer::new(&client);
    client.advance(Duration::from_secs(18));
    peer.get(1, "/later");
    assert!(peer.goodbye().is_none());
    client.advance(Duration::from_secs(2));
    assert_eq!(peer.goodbye().map(|(_, reason)| reason), Some(NO_ERROR));
    client.advance(Duration::from_secs(4));
    assert_eq!(peer.answer(1).text(), "later");
    client.advance(Duration::from_secs(3));
    assert!(peer.connection.is_closed());
}

/// Counts the handlers that are under way.
struct Under(Rc<Cell<i32>>);

impl Under {
    fn way(count: &Rc<Cell<i32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn counting() -> TestClient {
    App::new(|_| {
        let under = Rc::new(Cell::new(0));
        let seen = Rc::clone(&under);
        let wait = async move |_: Request<'static>| {
            let _under = Under::way(&under);
            std::future::pending::<&str>().await
        };
        Router::new().get("/wait", wait).get("/", move |_: &Request| seen.get().to_string())
    })
    .http2(Http2::default())
    .test()
}

#[test]
fn a_request_that_is_taken_back_drops_its_handler_and_no_other() {
    let client = counting();
    let mut peer = Peer::new(&client);
    peer.get(1, "/wait");
    peer.get(3, "/wait");
    assert_eq!(peer.get(5, "/").text(), "2");
    peer.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    assert_eq!(peer.get(7, "/").text(), "1");
    assert_eq!(client.stats().abandoned, 1);
}

#[test]
fn a_client_that_leaves_takes_all_its_requests_with_it() {
    for how in [
        netpoll_http::TestConnection::reset,
        netpoll_http::TestConnection::close,
        netpoll_http::TestConnection::finish,
    ] {
        let client = counting();
        let mut peer = Peer::new(&client);
        peer.get(1, "/wait");
        peer.get(3, "/wait");
        how(&mut peer.connection);
        assert_eq!(client.get("/").text(), "0");
        assert_eq!(client.stats().panics, 0);
    }
}

#[test]
fn who_is_idle_makes_room_for_newcomers_and_who_waits_for_an_answer_does_not() {
    let limits = netpoll_core::ConnLimits::default().connections_max(2);
    let client = App::new(|_| {
        Router::new().get("/", |_: &Request| "hello").get("/later", async |_: Request<'static>| {
            netpoll_core::time::sleep(Duration::from_secs(3)).await;
            "later"
        })
    })
    .http2(Http2::default())
    .test_with(netpoll_core::sim::Options::default().limits(limits));
    let mut waiting = Peer::new(&client);
    waiting.get(1, "/later");
    let mut idle = Peer::new(&client);
    idle.assert_well(1);
    // Who has just come is not closed.
    client.advance(Duration::from_secs(1));
    let mut newcomer = Peer::new(&client);
    newcomer.assert_well(1);
    assert!(idle.connection.is_closed() && !waiting.connection.is_closed());
    client.advance(Duration::from_secs(4));
    assert_eq!(waiting.answer(1).text(), "later");
}
