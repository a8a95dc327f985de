//! Clients that mean no good: what they can make a worker do is bounded, and they are cut.

use std::time::Duration;

use netpoll_core::ConnLimits;
use netpoll_core::sim::{Faults, Options};
use netpoll_http::{
    App, BodyReader, Error, Handler, Http2, Limits, Request, RouteLimits, Router, TestClient,
};

use crate::peer::*;
use crate::served;

fn hello() -> TestClient {
    served(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/wait", async |_: Request<'static>| std::future::pending::<&str>().await)
    })
}

/// Sends these bytes again and again. True if the connection was ended in the end, and after how many.
fn flood(peer: &mut Peer, times: usize, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<usize> {
    for n in 0..times {
        peer.connection.put(&bytes(n as u32));
        if n % 50 == 49 {
            peer.connection.run();
            if peer.connection.is_closed() {
                return Some(n);
            }
        }
    }
    None
}

#[test]
fn who_takes_requests_back_as_fast_as_they_come_is_cut() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&with(&[(":path", "/wait")])));
        [ask, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    };
    assert!(flood(&mut peer, 1000, reset).is_some());
    peer.assert_over(ENHANCE_YOUR_CALM);
    assert!(client.stats().requests < 200, "{}", client.stats().requests);
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn who_has_us_take_requests_back_is_cut() {
    let client = hello();
    let mut peer = Peer::new(&client);
    // Each breaks a rule of its stream, whose place is free again at once.
    let ask = |n: u32| {
        let stream = 2 * n + 1;
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&with(&[(":path", "/wait")])));
        [ask, frame(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255])].concat()
    };
    assert!(flood(&mut peer, 3000, ask).is_some());
    peer.assert_over(ENHANCE_YOUR_CALM);
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn fields_that_go_on_and_on_are_cut_off() {
    // A few bytes each, and nothing at all.
    for payload in [&block(&[("x-a", "b")])[..], &[]] {
        let client = hello();
        let mut peer = Peer::new(&client);
        peer.connection.put(&frame(HEADERS, END_STREAM, 1, &block(&GET)));
        assert!(flood(&mut peer, 40_000, |_| frame(CONTINUATION, 0, 1, payload)).is_some());
        assert!(peer.connection.is_closed());
        assert_eq!(client.stats().panics, 0);
    }
}

#[test]
fn fields_that_are_too_many_are_refused_or_end_the_connection() {
    let client = hello();
    let mut peer = Peer::new(&client);
    let long = "x".repeat(10_000);
    peer.ask(1, &with(&[("x-a", &long)]), true);
    assert_eq!(peer.answer(1).status, Some(200));
    let block = block(&with(&[("x-a", &long), ("x-b", &long)]));
    peer.send(HEADERS, END_STREAM, 3, &block[..15_000]);
    peer.send(CONTINUATION, END_HEADERS, 3, &block[15_000..]);
    assert_eq!(peer.answer(3).status, Some(431));
    peer.assert_well(5);
}

#[test]
fn frames_that_bring_nothing_run_out() {
    let kinds: &[(&str, Vec<u8>)] = &[
        ("pings", frame(PING, 0, 0, b"12345678")),
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 7])),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 5])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", frame(77, 0, 0, b"")),
    ];
    for (what, bytes) in kinds {
        let client = hello();
        let mut peer = Peer::new(&client);
        let cut = flood(&mut peer, 3000, |_| bytes.clone());
        assert!(cut.is_some_and(|n| (900..1200).contains(&n)), "{what}: {cut:?}");
        peer.assert_over(ENHANCE_YOUR_CALM);
        // With time, or with requests between them, they are as welcome as ever.
        let mut peer = Peer::new(&client);
        for n in 0..40 {
            peer.raw(&bytes.repeat(100));
            client.advance(Duration::from_secs(1));
            peer.assert_well(2 * n + 1);
        }
    }
}

#[test]
fn a_limit_of_idle_frames_is_what_it_is_set_to() {
    let client = App::new(|_| Router::new()).http2(Http2::default().idle_frames_max(10)).test();
    let mut peer = Peer::new(&client);
    peer.raw(&frame(PING, 0, 0, b"12345678").repeat(20));
    peer.assert_over(ENHANCE_YOUR_CALM);
}

#[test]
fn empty_data_without_end_runs_out() {
    let client = served(|_| Router::new().post("/", |req: &Request| req.body().len().to_string()));
    let mut peer = Peer::new(&client);
    peer.ask(1, &with(&[(":method", "POST")]), false);
    assert!(flood(&mut peer, 40_000, |_| frame(DATA, 0, 1, &[])).is_some());
    assert!(peer.connection.is_closed());
}

#[test]
fn who_asks_without_end_and_reads_nothing_is_not_read_and_is_cut_in_the_end() {
    let client = hello();
    let mut peer = Peer::new(&client);
    peer.connection.stop_reading();
    let ask = |n: u32| frame(PING, 0, 0, &u64::from(n).to_be_bytes());
    flood(&mut peer, 900, ask);
    let asks = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&GET));
    flood(&mut peer, 20_000, asks);
    // What is under way is bounded by the queue, not by what was asked.
    assert!(client.stats().requests < 20_000, "{}", client.stats().requests);
    client.advance(Duration::from_secs(60));
    assert!(client.open() == 0, "{} open", client.open());
}

#[test]
fn a_client_that_begins_many_requests_at_once_gives_way_to_others() {
    let limits = Limits::default().requests_per_turn(10);
    let client = App::new(|_| Router::new().get("/", |_: &Request| "hello"))
        .limits(limits)
        .http2(Http2::default())
        .test();
    let mut peer = Peer::new(&client);
    let long = "x".repeat(1000);
    let block = block(&with(&[("x-a", &long)]));
    let asks: Vec<u8> =
        (0..100).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block)).collect();
    peer.connection.put(&asks);
    let (mut begun, mut turns) = (0, 0);
    while begun < 100 && turns < 100 {
        client.turn();
        let more = client.stats().requests - begun;
        // A callback reads 4 KiB at a time; a turn of this world has two.
        assert!(more <= 2 * (10 + 4), "{more} in a turn, behind {begun}");
        (begun, turns) = (begun + more, turns + 1);
    }
    peer.connection.run();
    assert!((0..100).all(|n| peer.answer(2 * n + 1).status == Some(200)), "{begun}");
}

#[test]
fn bodies_that_nobody_takes_count_as_memory_and_who_holds_too_much_is_cut() {
    let limits = ConnLimits::default().memory_bytes_max(4 << 20);
    let hold = async |_: Request<'static>, mut body: BodyReader| {
        netpoll_core::time::sleep(Duration::from_secs(20)).await;
        while body.chunk().await?.is_some() {}
        Ok::<_, Error>("done")
    };
    let client = App::new(move |_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .post("/", hold.limits(RouteLimits::default().unlimited_body()))
    })
    .http2(Http2::default())
    .test_with(Options::default().limits(limits));
    let mut peers: Vec<Peer> = (0..16).map(|_| Peer::new(&client)).collect();
    for peer in &mut peers {
        for n in 0..15 {
            let stream = 2 * n + 1;
            peer.connection.put(&frame(HEADERS, END_HEADERS, stream, &block(&with(&[(":method", "POST")]))));
            for _ in 0..4 {
                peer.connection.put(&frame(DATA, 0, stream, &[0; 16 * 1024]));
            }
            peer.connection.run();
        }
    }
    let cut = peers.iter().filter(|peer| peer.connection.is_closed()).count();
    assert!((1..16).contains(&cut), "{cut} cut");
    assert!(client.stats().memory_overflows > 0);
    assert_eq!(client.get("/").text(), "hello");
    // All of it comes back.
    drop(peers);
    client.run();
    let mut peer = Peer::new(&client);
    peer.ask(1, &with(&[(":method", "POST")]), false);
    peer.send(DATA, END_STREAM, 1, &[0; 10_000]);
    client.advance(Duration::from_secs(21));
    assert_eq!(peer.answer(1).text(), "done");
}

#[test]
fn a_body_that_there_is_no_memory_for_is_refused_and_the_connection_stays() {
    let limits = ConnLimits::default().memory_bytes_max(400 << 10);
    let client = App::new(move |_| {
        Router::new().get("/", |_: &Request| "hello").post("/", |req: &Request| req.body().len().to_string())
    })
    .http2(Http2::default())
    .test_with(Options::default().limits(limits));
    let mut peer = Peer::new(&client);
    peer.ask(1, &with(&[(":method", "POST")]), false);
    let mut sent = 0;
    while peer.answer(1).status.is_none() && sent < 1 << 20 {
        peer.send(DATA, 0, 1, &[0; 16 * 1024]);
        sent += 16 * 1024;
    }
    let answer = peer.answer(1);
    assert_eq!((answer.status, answer.is_whole), (Some(503), true), "behind {sent}");
    assert!(client.stats().memory_overflows > 0);
    peer.assert_well(3);
}

#[test]
fn an_endless_answer_to_who_takes_nothing_of_it_holds_little() {
    let client = served(|_| {
        Router::new().get("/", |_: &Request| {
            let stream = |_: &mut std::task::Context<'_>, out: &mut netpoll_http::BodyBuf<'_>| {
                out.extend(&[0; 8192]);
                netpoll_http::Pull::More
            };
            netpoll_http::Response::new(netpoll_http::StatusCode::OK).body(netpoll_http::Body::stream(stream))
        })
    });
    let mut peer = Peer::with(&client, &[(4, 1 << 20)]);
    // The window of all streams is 64 KiB, and never opens.
    assert_eq!(peer.get(1, "/").body.len(), 65_535);
    client.advance(Duration::from_secs(30));
    assert_eq!(peer.answer(1).reset, Some(CANCEL));
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % most
    }

    /// A frame of a client that mostly keeps the rules. `asked` is the last stream that was begun, if one was.
    fn frame(&mut self, asked: &mut u32) -> Vec<u8> {
        let flags = self.below(64) as u8;
        let payload: Vec<u8> = (0..self.below(40)).map(|_| self.below(256) as u8).collect();
        if *asked == 0 || self.below(3) == 0 {
            *asked += if *asked == 0 { 1 } else { 2 };
            let path = ["/", "/wait", "/body", "/nowhere"][self.below(4) as usize];
            let method = ["GET", "POST", "HEAD"][self.below(3) as usize];
            let ask = block(&with(&[(":path", path), (":method", method)]));
            return frame(HEADERS, END_HEADERS | flags & END_STREAM, *asked, &ask);
        }
        let stream = asked.saturating_sub(2 * self.below(4) as u32).max(1);
        match self.below(60) {
            0..20 => frame(DATA, flags & END_STREAM, stream, &payload),
            20..30 => frame(WINDOW_UPDATE, 0, stream, &(1 + self.below(1 << 16) as u32).to_be_bytes()),
            30..40 => frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
            40..50 => frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 7]),
            50..58 => frame(PING, flags & ACK, 0, &[7; 8]),
            _ => frame(self.below(12) as u8, flags, self.below(12) as u32, &payload),
        }
    }
}

#[test]
fn whatever_frames_come_nothing_panics_and_others_are_served() {
    let mut requests = 0;
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let faults = if seed % 2 == 0 { Faults::stormy() } else { Faults::default() };
        let hold = async |_: Request<'static>, mut body: BodyReader| {
            while body.chunk().await?.is_some() {
                netpoll_core::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<_, Error>("done")
        };
        let client = App::new(move |_| {
            Router::new()
                .get("/", |_: &Request| "hello")
                .post("/", |req: &Request| req.body().to_vec())
                .get("/wait", async |_: Request<'static>| {
                    netpoll_core::time::sleep(Duration::from_secs(1)).await;
                    "waited"
                })
                .post("/body", hold)
        })
        .http2(Http2::default())
        .test_with(Options::default().seed(seed).faults(faults));
        let (mut peer, mut asked) = (Peer::new(&client), 0);
        for _ in 0..chance.below(60) {
            peer.connection.put(&chance.frame(&mut asked));
            if chance.below(3) == 0 {
                peer.connection.run();
                client.advance(Duration::from_millis(chance.below(400)));
            }
        }
        peer.connection.run();
        peer.take();
        assert_eq!(client.stats().panics, 0, "seed {seed}");
        client.advance(Duration::from_secs(200));
        assert_eq!(client.open(), 0, "seed {seed}");
        assert_eq!((client.stats().panics, client.blocks_in_use()), (0, 0), "seed {seed}");
        requests += client.stats().requests;
    }
    assert!(requests > 1000, "{requests}");
}
