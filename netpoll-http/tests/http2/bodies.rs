//! Bodies, both ways: received as a whole, read while they arrive, handed over by callbacks; sent as they are, as files, and as they are made.

use std::io::Write;
use std::time::Duration;

use netpoll_http::{
    App, Body, BodyReader, BodySink, Error, Event, Events, Handler, Http2, IntoResponse, Limits, Request,
    Response, RouteLimits, Router, StatusCode, TestClient, sink,
};

use crate::peer::*;
use crate::served;

const POST: (&str, &str) = (":method", "POST");

fn post(path: &str) -> Vec<(&str, &str)> {
    with(&[POST, (":path", path)])
}

#[derive(Default)]
struct Sum(u64);

impl BodySink for Sum {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.0 += chunk.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        if self.0 > 1_000_000 { Err(StatusCode::INSUFFICIENT_STORAGE.into()) } else { Ok(()) }
    }

    fn end(self, req: &Request<'_>) -> impl IntoResponse {
        format!("{} {:?}", self.0, req.trailer("x-check").map(String::from_utf8_lossy))
    }
}

fn takers() -> TestClient {
    served(|_| {
        let read = async |_: Request<'static>, mut body: BodyReader| {
            let (mut bytes, mut pieces) = (0, 0);
            while let Some(piece) = body.chunk().await? {
                bytes += piece.len();
                pieces += 1;
            }
            let check = body.trailers().find(|(name, _)| *name == "x-check");
            Ok::<_, Error>(format!("{bytes} in {pieces}, {}", check.is_some()))
        };
        let whole = |req: &Request| {
            format!("{} {:?}", req.body().len(), req.trailer("x-check").map(String::from_utf8_lossy))
        };
        Router::new()
            .post("/whole", whole)
            .post("/short", whole.limits(RouteLimits::default().body_bytes_max(10)))
            .post("/read", read.limits(RouteLimits::default().unlimited_body()))
            .post("/sink", sink(|_: &Request| Ok(Sum::default())))
            .post("/echo", async |_: Request<'static>, body: BodyReader| {
                Ok::<_, Error>(Response::new(StatusCode::OK).body(Body::from(body)))
            })
            .post("/none", async |_: Request<'static>, body: BodyReader| {
                drop(body);
                "enough"
            })
            .get("/", whole)
    })
}

#[test]
fn a_body_is_received_as_a_whole_with_what_comes_behind_it() {
    let client = takers();
    let mut peer = Peer::new(&client);
    peer.ask(1, &post("/whole"), false);
    peer.send(DATA, 0, 1, b"hello ");
    peer.send(DATA, 0, 1, b"world");
    assert_eq!(peer.answer(1), Answer::default());
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-check", "7"), ("host", "b")]));
    assert_eq!(peer.answer(1).text(), "11 Some(\"7\")");
    // One with a length, and one that is empty.
    peer.ask(3, &with(&[POST, (":path", "/whole"), ("content-length", "5")]), false);
    peer.send(DATA, END_STREAM, 3, b"hello");
    assert_eq!(peer.answer(3).text(), "5 None");
    peer.ask(5, &post("/whole"), true);
    assert_eq!(peer.answer(5).text(), "0 None");
}

#[test]
fn a_body_is_read_and_handed_over_while_it_arrives() {
    let client = takers();
    let mut peer = Peer::new(&client);
    for (stream, path, expected) in [(1, "/read", "6 in 2, true"), (3, "/sink", "600 Some(\"7\")")] {
        peer.ask(stream, &post(path), false);
        peer.send(DATA, 0, stream, b"ddd");
        peer.send(DATA, 0, stream, b"ddd");
        peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("x-check", "7")]));
        assert_eq!(peer.answer(stream).text(), expected, "{path}");
    }
    peer.ask(5, &post("/sink"), false);
    peer.send(DATA, 0, 5, &[255; 4000]);
    let answer = peer.answer(5);
    assert_eq!((answer.status, answer.is_whole, answer.reset), (Some(507), true, Some(NO_ERROR)));
    peer.assert_well_post(7);
}

impl Peer {
    fn assert_well_post(&mut self, stream: u32) {
        self.ask(stream, &post("/whole"), false);
        self.send(DATA, END_STREAM, stream, b"123");
        assert_eq!(self.answer(stream).text(), "3 None");
        assert!(self.goodbye().is_none());
    }
}

#[test]
fn an_echo_is_sent_while_it_arrives() {
    let client = takers();
    let mut peer = Peer::new(&client);
    peer.ask(1, &post("/echo"), false);
    peer.send(DATA, 0, 1, b"one ");
    assert_eq!((peer.answer(1).text(), peer.answer(1).is_whole), ("one ", false));
    peer.send(DATA, 0, 1, b"two");
    assert_eq!(peer.answer(1).text(), "one two");
    peer.send(DATA, END_STREAM, 1, b"");
    assert!(peer.answer(1).is_whole);
}

#[test]
fn a_body_that_is_too_long_is_refused_however_it_is_taken() {
    let client = takers();
    let mut peer = Peer::new(&client);
    // By its length alone, and by what comes.
    peer.ask(1, &with(&[POST, (":path", "/short"), ("content-length", "11")]), false);
    assert_eq!(peer.answer(1).status, Some(413));
    peer.ask(3, &post("/short"), false);
    peer.send(DATA, 0, 3, b"1234567");
    peer.send(DATA, 0, 3, b"8901234");
    let answer = peer.answer(3);
    assert_eq!((answer.status, answer.is_whole, answer.reset), (Some(413), true, Some(NO_ERROR)));
    // One that nobody wants is dropped, up to a length.
    peer.ask(5, &GET, false);
    peer.send(DATA, END_STREAM, 5, b"whatever");
    assert_eq!(peer.answer(5).text(), "0 None");
    peer.assert_well_post(7);
}

#[test]
fn a_handler_that_has_enough_answers_in_front_of_the_rest() {
    let client = takers();
    let mut peer = Peer::new(&client);
    peer.ask(1, &post("/none"), false);
    let answer = peer.answer(1);
    assert_eq!((answer.text(), answer.is_whole, answer.reset), ("enough", true, Some(NO_ERROR)));
    peer.send(DATA, END_STREAM, 1, b"what was under way");
    peer.assert_well_post(3);
}

/// A service whose handler reads a piece each time that it is told to.
fn slow_reader() -> (TestClient, std::sync::mpsc::Receiver<usize>) {
    let (sender, taken) = std::sync::mpsc::channel();
    let client = served(move |_| {
        let sender = sender.clone();
        let read = async move |_: Request<'static>, mut body: BodyReader| {
            loop {
                netpoll_core::time::sleep(Duration::from_secs(1)).await;
                match body.chunk().await? {
                    Some(piece) => sender.send(piece.len()).unwrap(),
                    None => return Ok::<_, Error>("done"),
                }
            }
        };
        Router::new().post("/", read.limits(RouteLimits::default().unlimited_body()))
    });
    (client, taken)
}

#[test]
fn the_window_of_a_body_opens_as_its_handler_takes_it_and_no_sooner() {
    let (client, taken) = slow_reader();
    let mut peer = Peer::new(&client);
    // The window that the settings of the server have named.
    let settings = peer.of(SETTINGS).find(|frame| frame.flags & ACK == 0).unwrap();
    let window = settings
        .payload
        .chunks(6)
        .find(|setting| setting[..2] == [0, 4])
        .map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()));
    assert_eq!(window, Some(65_536));
    peer.ask(1, &with(&[POST]), false);
    for _ in 0..4 {
        peer.send(DATA, 0, 1, &[0; 16 * 1024]);
    }
    let opened = |peer: &Peer| peer.of(WINDOW_UPDATE).filter(|frame| frame.stream == 1).count();
    assert_eq!(opened(&peer), 0);
    // One byte more than there is room for is the fault of the client.
    client.advance(Duration::from_millis(3500));
    assert_eq!(taken.try_iter().sum::<usize>(), 3 * 16 * 1024);
    peer.take();
    assert!(opened(&peer) > 0);
}

#[test]
fn who_sends_more_than_the_window_is_cut() {
    let (client, _taken) = slow_reader();
    let mut peer = Peer::new(&client);
    peer.ask(1, &with(&[POST]), false);
    for _ in 0..4 {
        peer.send(DATA, 0, 1, &[0; 16 * 1024]);
    }
    peer.send(DATA, 0, 1, &[0; 1]);
    let answer = peer.answer(1);
    let reason = answer.reset.or(peer.goodbye().map(|(_, reason)| reason));
    assert_eq!(reason, Some(FLOW_CONTROL_ERROR), "{:?}", peer.frames);
}

#[test]
fn a_body_that_stops_is_refused_in_time_and_the_connection_stays() {
    let client = takers();
    let mut peer = Peer::new(&client);
    for (stream, path) in [(1, "/whole"), (3, "/read"), (5, "/sink")] {
        peer.ask(stream, &post(path), false);
        peer.send(DATA, 0, stream, b"some");
    }
    client.advance(Duration::from_secs(11));
    for stream in [1, 3, 5] {
        let answer = peer.answer(stream);
        assert_eq!((answer.status, answer.is_whole), (Some(408), true), "{stream}");
    }
    peer.assert_well_post(7);
}

fn makers(limits: Limits) -> TestClient {
    let file = tempfile();
    App::new(move |_| {
        let file = file.clone();
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/static", |_: &Request| "0123456789abcdef".repeat(1000).leak() as &'static str)
            .get("/owned", |_: &Request| vec![b'x'; 70_000])
            .get("/shared", |_: &Request| netpoll_core::Bytes::from(vec![b'y'; 70_000]))
            .get("/file", move |_: &Request| {
                let body = Body::file(file.clone()).map_err(Error::internal)?;
                Ok::<_, Error>(Response::new(StatusCode::OK).body(body))
            })
            .get("/chunks", |_: &Request| {
                Response::new(StatusCode::OK).body(Body::chunks(["a", "", "b", "c"]))
            })
            .get("/sized", |_: &Request| {
                let stream = |_: &mut std::task::Context<'_>, out: &mut netpoll_http::BodyBuf<'_>| {
                    out.extend(b"abc");
                    netpoll_http::Pull::More
                };
                Response::new(StatusCode::OK).body(Body::sized_stream(10, stream))
            })
            .get("/failing", |_: &Request| {
                let mut pulls = 0;
                let stream = move |_: &mut std::task::Context<'_>, out: &mut netpoll_http::BodyBuf<'_>| {
                    pulls += 1;
                    out.extend(b"abc");
                    if pulls > 2 { netpoll_http::Pull::Failed } else { netpoll_http::Pull::More }
                };
                Response::new(StatusCode::OK).body(Body::stream(stream))
            })
            .get("/panics", |_: &Request| {
                let stream = |_: &mut std::task::Context<'_>,
                              _: &mut netpoll_http::BodyBuf<'_>|
                 -> netpoll_http::Pull { panic!("as it was told") };
                Response::new(StatusCode::OK).body(Body::stream(stream))
            })
            .get("/waits", async |_: Request<'static>| {
                netpoll_core::time::sleep(Duration::from_secs(3)).await;
                "waited"
            })
    })
    .limits(limits)
    .http2(Http2::default())
    .test()
}

/// A file of 100 000 bytes without a name.
fn tempfile() -> std::sync::Arc<std::fs::File> {
    let path = std::env::temp_dir().join(format!(
        "netpoll-http2-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(&vec![b'f'; 100_000]).unwrap();
    file.into()
}

#[test]
fn answers_of_every_kind_arrive() {
    let client = makers(Limits::default());
    let mut peer = Peer::with(&client, &[(4, 1 << 20)]);
    peer.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    let cases: &[(&str, usize, u8)] = &[
        ("/static", 16_000, b'0'),
        ("/owned", 70_000, b'x'),
        ("/shared", 70_000, b'y'),
        ("/file", 100_000, b'f'),
        ("/chunks", 3, b'a'),
        ("/sized", 10, b'a'),
    ];
    for (n, (path, bytes, first)) in cases.iter().enumerate() {
        let answer = peer.get(2 * n as u32 + 1, path);
        assert_eq!((answer.status, answer.body.len()), (Some(200), *bytes), "{path}");
        assert!(answer.body[0] == *first && answer.is_whole && answer.reset.is_none(), "{path}");
    }
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let client = served(|_| {
        let events = |_: &Request| {
            let (sender, events) = Events::channel(8);
            drop(netpoll_core::task::spawn_local(async move {
                for n in 0..3 {
                    netpoll_core::time::sleep(Duration::from_secs(1)).await;
                    sender.send(Event::data(n.to_string())).await.unwrap();
                }
            }));
            events
        };
        Router::new().get("/", events)
    });
    let mut peer = Peer::new(&client);
    assert_eq!(peer.get(1, "/").status, Some(200));
    for n in 1..=3 {
        client.advance(Duration::from_secs(1));
        assert_eq!(peer.answer(1).text().matches("data: ").count(), n, "{:?}", peer.frames);
    }
    assert!(peer.answer(1).is_whole);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_and_others_go_on() {
    let client = makers(Limits::default());
    let mut peer = Peer::new(&client);
    for (stream, path) in [(1, "/failing"), (3, "/panics")] {
        let answer = peer.get(stream, path);
        // What had been made by then may have left, or not.
        assert_eq!((answer.reset, answer.is_whole), (Some(INTERNAL_ERROR), false), "{path}");
    }
    peer.assert_well(5);
    assert_eq!(client.stats().panics, 1);
}

#[test]
fn a_handler_that_is_late_is_answered_for() {
    let client = makers(Limits::default().handler_timeout(Duration::from_secs(1)));
    let mut peer = Peer::new(&client);
    peer.get(1, "/waits");
    client.advance(Duration::from_secs(2));
    assert_eq!(peer.answer(1).status, Some(503));
    peer.assert_well(3);
}

#[test]
fn a_client_that_does_not_open_its_window_loses_the_answer_and_no_other() {
    let client = makers(Limits::default());
    let mut peer = Peer::with(&client, &[(4, 1000)]);
    assert_eq!(peer.get(1, "/file").body.len(), 1000);
    client.advance(Duration::from_secs(25));
    let answer = peer.answer(1);
    assert_eq!((answer.is_whole, answer.reset), (false, Some(CANCEL)), "{:?}", peer.frames);
    peer.assert_well(3);
    // One that goes on is let go on.
    assert_eq!(peer.get(5, "/file").body.len(), 1000);
    for n in 1..30 {
        client.advance(Duration::from_secs(2));
        peer.send(WINDOW_UPDATE, 0, 5, &4000_u32.to_be_bytes());
        peer.send(WINDOW_UPDATE, 0, 0, &4000_u32.to_be_bytes());
        let answer = peer.answer(5);
        assert_eq!((answer.body.len(), answer.reset), ((1000 + n * 4000).min(100_000), None), "{n}");
    }
    assert!(peer.answer(5).is_whole);
}
