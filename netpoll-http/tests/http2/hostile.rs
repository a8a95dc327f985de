//! What a client can hold on to without asking for anything: answers that it does not take, and what was begun for it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::Duration;

use netpoll_core::ConnLimits;
use netpoll_core::sim::Options;
use netpoll_http::{
    App, BodyReader, Completed, Compress, Decoding, Error, Handler, Http2, IntoService, Request, RouteLimits,
    Router, TestClient, Worker,
};

use crate::peer::*;
use crate::served;

const POST: (&str, &str) = (":method", "POST");

fn ask(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(&with(fields)))
}

#[test]
fn answers_that_fit_in_one_frame_are_not_kept_for_a_client_that_opens_no_window() {
    let (sender, ended) = channel();
    let client = App::new(|_| Router::new().get("/", |_: &Request| "hello"))
        .on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(done.outcome.to_string()).unwrap()
        })
        .http2(Http2::default())
        .test();
    let mut peer = Peer::with(&client, &[(4, 0)]);
    let asks: Vec<u8> = (0..100).flat_map(|n| ask(2 * n + 1, &[], END_STREAM)).collect();
    peer.raw(&asks);
    for _ in 0..10 {
        client.advance(Duration::from_secs(3));
        peer.send(PING, 0, 0, b"12345678");
    }
    for n in 0..100 {
        let answer = peer.answer(2 * n + 1);
        assert_eq!((answer.status, answer.reset), (Some(200), Some(CANCEL)), "{n}");
    }
    assert!(!peer.connection.is_closed());
    let told: Vec<String> = ended.try_iter().collect();
    assert!(told.len() == 100 && told.iter().all(|outcome| outcome == "abandoned"), "{told:?}");
}

#[test]
fn a_client_that_leaves_the_ends_of_answers_where_they_are_is_told_to_go() {
    let client = served(|_| Router::new().get("/", |_: &Request| "hello"));
    let mut peer = Peer::with(&client, &[(4, 1)]);
    for n in 0..100 {
        assert_eq!(peer.get(2 * n + 1, "/").body.len(), 1);
    }
    // It goes on asking, so it is never idle.
    for n in 100..160 {
        if peer.goodbye().is_some() {
            break;
        }
        client.advance(Duration::from_secs(2));
        peer.ask(2 * n + 1, &with(&[(":method", "HEAD")]), true);
    }
    assert!(peer.goodbye().is_some());
    client.advance(Duration::from_secs(11));
    assert!(peer.connection.is_closed());
}

#[test]
fn streams_share_a_slow_connection_and_are_judged_by_their_windows_alone() {
    let slow =
        Options::default().window(4096).latency(Duration::from_millis(500)..=Duration::from_millis(500));
    let client = App::new(|_| Router::new().get("/", |_: &Request| vec![b'x'; 20_000]))
        .http2(Http2::default().ping_after(None))
        .test_with(slow);
    let mut peer = Peer::with(&client, &[(4, 1 << 20)]);
    peer.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    for n in 0..100 {
        peer.connection.put(&ask(2 * n + 1, &[], END_STREAM));
    }
    // Much more than a connection has to take, and less than that for each stream.
    let mut seconds = 0;
    while !(0..100).all(|n| peer.answer(2 * n + 1).is_whole) {
        client.advance(Duration::from_secs(1));
        seconds += 1;
        assert_eq!(peer.of(RST_STREAM).next(), None, "{seconds} s");
        assert!(peer.goodbye().is_none() && !peer.connection.is_closed(), "{seconds} s");
    }
    assert!(seconds > 100, "{seconds} s");
}

#[test]
fn a_connection_whose_answers_are_on_their_way_does_not_make_room_for_others() {
    let limits = ConnLimits::default().connections_max(2);
    let client = App::new(|_| Router::new().get("/", |_: &Request| vec![b'x'; 1000]))
        .http2(Http2::default())
        .test_with(Options::default().limits(limits));
    let mut peer = Peer::with(&client, &[(4, 900)]);
    let mut idle = Peer::new(&client);
    assert_eq!(peer.get(1, "/").body.len(), 900);
    client.advance(Duration::from_secs(1));
    idle.assert_well(1);
    client.advance(Duration::from_secs(5));
    assert_eq!(client.get("/").status.as_u16(), 200);
    assert!(idle.connection.is_closed() && !peer.connection.is_closed());
    peer.send(WINDOW_UPDATE, 0, 1, &100_u32.to_be_bytes());
    assert!(peer.answer(1).is_whole);
}

fn bounded<S: IntoService>(
    bytes: usize,
    factory: impl Fn(&Worker) -> S + Send + Sync + 'static,
) -> TestClient {
    let limits = ConnLimits::default().memory_bytes_max(bytes);
    App::new(factory).http2(Http2::default()).test_with(Options::default().limits(limits))
}

#[test]
fn answers_that_wait_for_a_window_count_as_memory_and_who_holds_too_much_is_cut() {
    let client = bounded(4 << 20, |_| {
        Router::new().get("/", |_: &Request| "hello").get("/large", |_: &Request| vec![b'x'; 1 << 20])
    });
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::with(&client, &[(4, 0)])).collect();
    for peer in &mut peers {
        for n in 0..20 {
            if !peer.connection.is_closed() {
                peer.raw(&ask(2 * n + 1, &[(":path", "/large")], END_STREAM));
            }
        }
    }
    assert!(peers.iter().any(|peer| peer.connection.is_closed()));
    assert!(client.stats().memory_overflows > 0);
    drop(peers);
    client.run();
    // All of it comes back.
    let mut peer = Peer::with(&client, &[(4, 1 << 24)]);
    peer.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    for n in 0..10 {
        assert_eq!(peer.get(2 * n + 1, "/large").body.len(), 1 << 20);
    }
}

#[test]
fn who_takes_requests_back_when_they_have_begun_is_cut_as_well() {
    let client = served(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/wait", async |_: Request<'static>| std::future::pending::<&str>().await)
    });
    let mut peer = Peer::new(&client);
    let mut rounds = 0;
    while rounds < 100 && !peer.connection.is_closed() {
        let streams = (0..50).map(|n| 2 * (rounds * 50 + n) + 1);
        let asks: Vec<u8> =
            streams.clone().flat_map(|stream| ask(stream, &[(":path", "/wait")], END_STREAM)).collect();
        peer.raw(&asks);
        if peer.connection.is_closed() {
            break;
        }
        let back: Vec<u8> =
            streams.flat_map(|stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).collect();
        peer.raw(&back);
        rounds += 1;
    }
    peer.assert_over(ENHANCE_YOUR_CALM);
    // One now and then is nobody's harm.
    let mut peer = Peer::new(&client);
    for n in 0..300 {
        peer.raw(&ask(4 * n + 1, &[(":path", "/wait")], END_STREAM));
        peer.raw(&frame(RST_STREAM, 0, 4 * n + 1, &CANCEL.to_be_bytes()));
        peer.assert_well(4 * n + 3);
        client.advance(Duration::from_millis(100));
    }
}

#[test]
fn what_came_for_a_request_that_was_refused_is_held_by_nobody_and_not_counted() {
    let client = bounded(800 << 10, |_| {
        Router::new()
            .get("/wait", async |_: Request<'static>| std::future::pending::<&str>().await)
            .post("/none", (|_: &Request| "").limits(RouteLimits::default().body_bytes_max(10)))
            .post("/", |req: &Request| req.body().len().to_string())
            .get("/", |_: &Request| "hello")
    });
    let mut peer = Peer::new(&client);
    peer.get(1, "/wait");
    for n in 1..100 {
        let length = [POST, (":path", "/none"), ("content-length", "16384")];
        peer.raw(&ask(2 * n + 1, &length, 0));
        assert_eq!(peer.answer(2 * n + 1).status, Some(413));
        // What was under way.
        peer.send(DATA, END_STREAM, 2 * n + 1, &[0; 16 * 1024]);
    }
    let answer = client.post("/", vec![0; 300_000]);
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "300000"));
    assert_eq!(client.stats().memory_overflows, 0);
}

#[test]
fn padding_is_held_by_nobody_and_not_counted() {
    let client =
        bounded(800 << 10, |_| Router::new().post("/", |req: &Request| req.body().len().to_string()));
    let mut peer = Peer::new(&client);
    // One body is open all the time.
    peer.raw(&ask(1, &[POST], 0));
    for n in 1..6000 {
        peer.raw(&ask(2 * n + 1, &[POST], 0));
        let padded = [&[200][..], b"1234", &[0; 200]].concat();
        peer.send(DATA, END_STREAM | 8, 2 * n + 1, &padded);
        if n % 100 == 0 {
            peer.send(DATA, 0, 1, b"on");
            assert_eq!(peer.answer(2 * n + 1).text(), "4");
            peer.frames.clear();
        }
    }
    assert_eq!(client.post("/", vec![0; 300_000]).text(), "300000");
    assert_eq!(client.stats().memory_overflows, 0);
}

/// A client asks for a hundred answers at once: how many handlers one turn of the worker calls at most, and how many answers it brings.
fn most_in_a_turn(client: &TestClient, calls: &AtomicUsize, path: &str, body: Option<&[u8]>) -> [usize; 2] {
    let mut peer = Peer::with(client, &[(4, 1 << 20)]);
    peer.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    for n in 0..100 {
        let fields = [(":path", path), ("accept-encoding", "gzip"), (":method", "GET")];
        let coded = [(":path", path), ("content-encoding", "gzip"), (":method", "POST")];
        match body {
            None => peer.connection.put(&ask(2 * n + 1, &fields, END_STREAM)),
            Some(body) => {
                peer.connection.put(&ask(2 * n + 1, &coded, 0));
                peer.connection.put(&frame(DATA, END_STREAM, 2 * n + 1, body));
            }
        }
    }
    let (mut seen, mut most, mut turns) = ([calls.load(Relaxed), 0], [0; 2], 0);
    while seen[1] < 100 {
        client.turn();
        peer.take();
        turns += 1;
        assert!(turns < 10_000, "{seen:?}");
        let answers = peer.of(DATA).filter(|frame| frame.flags & END_STREAM != 0).count();
        let now = [calls.load(Relaxed), answers];
        most = [0, 1].map(|n| most[n].max(now[n] - seen[n]));
        seen = now;
    }
    most
}

#[test]
fn what_many_requests_have_coded_at_once_is_a_share_of_a_turn() {
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let client = served(move |_| {
        let text = "0123456789 and so on, as it comes; ".repeat(900);
        let long = text.repeat(6);
        let [short, length, later] = [(); 3].map(|()| Arc::clone(&called));
        let short = move |_: &Request| {
            short.fetch_add(1, Relaxed);
            text.clone()
        };
        let length = move |req: &Request| {
            length.fetch_add(1, Relaxed);
            req.body().len().to_string()
        };
        let later = async move |req: Request<'static>| {
            later.fetch_add(1, Relaxed);
            netpoll_core::task::yield_now().await;
            req.body().len().to_string()
        };
        Router::new()
            .get("/", short)
            .get("/long", move |_: &Request| long.clone())
            .post("/decoded", Decoding::new().of(length))
            .post("/later", Decoding::new().of(later))
            .after(Compress::new().hook())
    });
    // 31 KiB each, of 64 for each slice of tasks: a turn has two.
    let [called, _] = most_in_a_turn(&client, &calls, "/", None);
    assert!(called <= 8, "{called}");
    // 59 KiB each.
    let body = gzip();
    for path in ["/decoded", "/later"] {
        let [called, _] = most_in_a_turn(&client, &calls, path, Some(&body));
        assert!(called <= 4, "{path}: {called}");
    }
    // Six times as much each, in shares.
    let [_, answered] = most_in_a_turn(&client, &calls, "/long", None);
    assert!(answered <= 8, "{answered}");
}

/// 60 KiB of zeros, by gzip.
fn gzip() -> Vec<u8> {
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| String::from_utf8(vec![b'0'; 60_000]).unwrap())
            .after(Compress::new().inline_bytes_max(100_000).hook())
    })
    .test();
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let answer = connection.received();
    let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    answer[at + 4..].to_vec()
}

#[test]
fn fields_for_a_stream_that_is_over_run_out() {
    let client = served(|_| Router::new().post("/", |req: &Request| req.body().len().to_string()));
    let mut peer = Peer::new(&client);
    // It breaks a rule of its stream, which is over: what comes for it from then on is dropped.
    let overflows = frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]);
    peer.raw(&[ask(1, &[POST], 0), overflows].concat());
    assert_eq!(peer.answer(1).reset, Some(FLOW_CONTROL_ERROR));
    let fields = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-a", "b")]));
    for _ in 0..30 {
        peer.connection.put(&fields.repeat(50));
        peer.connection.run();
    }
    peer.assert_over(ENHANCE_YOUR_CALM);
}

#[test]
fn an_upload_is_not_late_while_others_have_used_up_the_window() {
    let client = served(|_| {
        let hold = async |_: Request<'static>, mut body: BodyReader| {
            netpoll_core::time::sleep(Duration::from_secs(15)).await;
            while body.chunk().await?.is_some() {}
            Ok::<_, Error>("done")
        };
        Router::new()
            .post("/hold", hold.limits(RouteLimits::default().unlimited_body()))
            .post("/", |req: &Request| req.body().len().to_string())
    });
    let mut peer = Peer::new(&client);
    peer.raw(&ask(101, &[POST], 0));
    for n in 51..67 {
        peer.raw(&ask(2 * n + 1, &[POST, (":path", "/hold")], 0));
        for _ in 0..4 {
            peer.send(DATA, 0, 2 * n + 1, &[0; 16 * 1024]);
        }
    }
    // Its client cannot send it: the window of a MiB is used up.
    client.advance(Duration::from_secs(14));
    assert_eq!(peer.answer(101), Answer::default());
    client.advance(Duration::from_secs(2));
    peer.take();
    assert!(peer.of(WINDOW_UPDATE).filter(|frame| frame.stream == 0).count() > 1);
    peer.send(DATA, END_STREAM, 101, b"1234");
    assert_eq!(peer.answer(101).text(), "4");
    // One for which there is room is late as ever, and so is one that nobody holds up any more.
    peer.raw(&ask(201, &[POST], 0));
    client.advance(Duration::from_secs(11));
    assert_eq!(peer.answer(201).status, Some(408));
}
