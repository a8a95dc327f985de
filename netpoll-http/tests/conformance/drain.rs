//! Stopping: what was on its way is answered with `Connection: close`, then the connection ends without a reset.

use std::io::{Read, Write};
use std::task::{Context, Poll};
use std::time::Duration;

use netpoll_http::{Body, BodyBuf, Pull, Request, Response, Worker};

use crate::answer;
use crate::fixture::{Gate, answers, client, gated, get, router};
use crate::transport::{Server, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

#[test]
fn an_idle_connection_is_closed_after_its_grace() {
    let client = client();
    let (mut fresh, mut used) = (client.connect(), client.connect());
    used.send(&get("/"));
    assert_eq!(answers(&mut used).len(), 1);
    client.begin_drain(PATIENCE);
    client.advance(GRACE - TICK);
    assert!(!fresh.is_closed() && !used.is_closed());
    client.advance(2 * TICK);
    for connection in [&mut fresh, &mut used] {
        assert_eq!(connection.received(), b"");
        assert!(connection.is_closed() && !connection.is_reset());
        connection.finish();
    }
    assert_eq!(client.open(), 0);
}

#[test]
fn a_request_that_is_on_its_way_is_answered_with_close() {
    let client = client();
    let (mut fresh, mut kept) = (client.connect(), client.connect());
    kept.send(&get("/"));
    assert_eq!(answers(&mut kept).len(), 1);
    client.begin_drain(PATIENCE);
    client.advance(GRACE / 2);
    fresh.send(&get("/"));
    kept.send(&[get("/"), get("/canary")].concat());
    for connection in [&mut fresh, &mut kept] {
        let answers = answers(connection);
        assert_eq!((answers.len(), answers[0].status), (1, 200));
        assert!(answers[0].says_close() && connection.is_closed() && !connection.is_reset());
    }
}

#[test]
fn an_answer_that_promised_to_stay_is_followed_by_another() {
    let client = crate::fixture::client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 1 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large"));
    client.begin_drain(PATIENCE);
    connection.start_reading();
    assert!(!answers(&mut connection)[0].says_close());
    client.advance(GRACE / 2);
    connection.send(&get("/"));
    assert!(answers(&mut connection)[0].says_close() && connection.is_closed() && !connection.is_reset());
}

#[test]
fn the_grace_ends_with_the_drain_and_nobody_is_reset() {
    let client = client();
    let connection = client.connect();
    client.begin_drain(GRACE / 4);
    client.advance(GRACE / 4 + TICK);
    assert!(connection.is_closed() && !connection.is_reset());
    assert_eq!(client.open(), 0);
}

#[test]
fn a_stream_and_a_waiting_handler_can_end_themselves_when_a_drain_begins() {
    let client = crate::fixture::client_with(|worker| {
        let (streams, waits) = (worker.handle().clone(), worker.handle().clone());
        let events = move |_: &Request| {
            let handle = streams.clone();
            Response::text(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                if !handle.is_draining() {
                    return Pull::Wait;
                }
                out.extend(b"bye");
                Pull::Done
            }))
        };
        router().get("/events", events).get("/wait", async move |_: Request| {
            let handle = waits.clone();
            std::future::poll_fn(|_| if handle.is_draining() { Poll::Ready(()) } else { Poll::Pending })
                .await;
            "early"
        })
    });
    let (mut stream, mut wait) = (client.connect(), client.connect());
    stream.send(&get("/events"));
    wait.send(&get("/wait"));
    client.begin_drain(PATIENCE);
    assert!(stream.received().ends_with(b"\r\nbye\r\n0\r\n\r\n"));
    let answers = answers(&mut wait);
    assert_eq!(answers[0].body.as_slice(), b"early");
    assert!(answers[0].says_close() && wait.is_closed());
    client.advance(GRACE + TICK);
    assert!(stream.is_closed() && !stream.is_reset());
}

#[test]
fn nobody_new_is_served() {
    let client = client();
    client.begin_drain(PATIENCE);
    assert_eq!(client.connect().received(), b"");
    assert_eq!(client.raw(&get("/")), b"");
}

#[test]
fn a_request_in_progress_is_answered_with_close() {
    let begun: [(&[u8], &[u8]); 4] = [
        (b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", b"llo"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"lo\r\n0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", b"\r\n"),
    ];
    for (first, rest) in begun {
        let client = client();
        let mut connection = client.connect();
        connection.send(first);
        client.begin_drain(PATIENCE);
        assert!(!connection.is_closed(), "{}", first.escape_ascii());
        connection.send(&[rest, &get("/canary")].concat());
        let answers = answers(&mut connection);
        assert_eq!((answers.len(), answers[0].status, answers[0].body.as_slice()), (1, 200, &b"hello"[..]));
        assert!(answers[0].says_close() && connection.is_closed() && !connection.is_reset());
        connection.finish();
        assert_eq!(client.open(), 0);
    }
}

#[test]
fn a_waiting_handler_may_finish_and_its_answer_says_close() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&[get("/gated"), get("/canary")].concat());
    client.begin_drain(PATIENCE);
    assert!(!connection.is_closed());
    gate.open();
    connection.run();
    let answers = answers(&mut connection);
    assert_eq!((answers.len(), answers[0].body.as_slice()), (1, &b"through"[..]));
    assert!(answers[0].says_close() && connection.is_closed() && !connection.is_reset());
}

#[test]
fn an_answer_that_is_being_read_may_be_read_to_its_end() {
    let client = crate::fixture::client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 1 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large"));
    client.begin_drain(PATIENCE);
    connection.start_reading();
    assert_eq!(answers(&mut connection)[0].body.len(), 1 << 20);
    client.advance(GRACE + TICK);
    assert!(connection.is_closed() && !connection.is_reset());
}

#[test]
fn what_is_still_busy_when_patience_ends_is_cut() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&get("/gated"));
    client.begin_drain(Duration::from_secs(5));
    client.advance(Duration::from_millis(4990));
    assert!(!connection.is_closed());
    client.advance(Duration::from_millis(20));
    assert!(connection.is_reset());
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_server_on_a_socket_stops_at_once_when_it_is_idle() {
    let server = Server::bind("127.0.0.1:0").expect("an address").workers(2);
    let running = server.app(|_: &Worker| router()).start().expect("a free port");
    let mut socket = TcpStream::connect(running.addr()).expect("the server listens");
    socket.write_all(&get("/")).expect("an open connection");
    let mut first = [0; 1];
    socket.read_exact(&mut first).expect("an answer");
    let report = running.stop(PATIENCE).expect("the workers live");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("an orderly end");
    assert!(report.took < PATIENCE / 2, "{:?}", report.took);
    assert_eq!(report.cut, 0);
}

#[test]
fn a_server_on_a_socket_answers_what_it_has_in_hand_and_stops() {
    let (gate, (entered, has_entered)) = (Gate::default(), std::sync::mpsc::channel());
    let server = Server::bind("127.0.0.1:0").expect("an address").workers(1);
    let app = {
        let gate = gate.clone();
        server.app(move |_: &Worker| {
            let (gate, entered) = (gate.clone(), entered.clone());
            router().get("/gated", async move |_: Request| {
                entered.send(()).expect("the test waits");
                gate.pass().await;
                "through"
            })
        })
    };
    let running = app.start().expect("a free port");
    let mut socket = TcpStream::connect(running.addr()).expect("the server listens");
    socket.write_all(&get("/gated")).expect("an open connection");
    has_entered.recv().expect("the handler runs");
    let stopping = std::thread::spawn(move || running.stop(PATIENCE));
    gate.open();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("an orderly end");
    let answers = answer::read(&bytes, &[], true).expect("a well-formed answer");
    assert_eq!((answers.len(), answers[0].body.as_slice()), (1, &b"through"[..]));
    let report = stopping.join().expect("no panic").expect("the worker lived");
    assert!(report.took < PATIENCE / 2, "with nothing left to do it does not wait: {:?}", report.took);
    assert_eq!(report.cut, 0);
}
