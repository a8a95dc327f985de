//! Clients that do whatever comes to their mind, on a network that does the same: every request is told of once, those that were let be are answered,
//! and nothing is left behind. A run repeats with its seed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_http::explore::Dice;
use netpoll_http::{
    App, Body, BodyReader, Completed, Compress, Error, Handler, Http2, Request, Response, RouteLimits,
    Router, StatusCode, TestClient,
};

use crate::peer::*;

fn service(told: Arc<AtomicU64>, options: Options) -> TestClient {
    App::new(|_| {
        let echo = async |_: Request<'static>, body: BodyReader| {
            Ok::<_, Error>(Response::new(StatusCode::OK).body(Body::from(body)))
        };
        let none = async |_: Request<'static>, body: BodyReader| {
            drop(body);
            "enough"
        };
        let slow = async |_: Request<'static>, mut body: BodyReader| {
            let mut bytes = 0;
            while let Some(piece) = body.chunk().await? {
                bytes += piece.len();
                netpoll_core::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<_, Error>(bytes.to_string())
        };
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/large", |_: &Request| vec![b'x'; 100_000])
            .get("/text", |_: &Request| "so much text; ".repeat(10_000))
            .get("/later", async |_: Request<'static>| {
                netpoll_core::time::sleep(Duration::from_secs(1)).await;
                "later"
            })
            .post("/whole", |req: &Request| req.body().len().to_string())
            .post("/echo", echo.limits(RouteLimits::default().unlimited_body()))
            .post("/none", none.limits(RouteLimits::default().unlimited_body()))
            .post("/slow", slow.limits(RouteLimits::default().unlimited_body()))
            .after(Compress::new().hook())
    })
    .on_complete(move |_| {
        let told = Arc::clone(&told);
        move |_: &Completed<'_>| {
            told.fetch_add(1, Relaxed);
        }
    })
    .http2(Http2::default().ping_after(None))
    .test_with(options)
}

fn faults(dice: &mut Dice) -> Faults {
    let mut some = || *dice.pick(&[0, 0, 100, 500]);
    Faults::none()
        .partial_receives(some())
        .partial_sends(some())
        .interrupted_receives(some())
        .delays(some())
        .short_waits(some())
        .spurious_sent(some())
        .late_receives(some())
}

/// A request of the client.
struct Asked {
    stream: u32,
    path: &'static str,
    sent_bytes: usize,
    is_open: bool,
}

fn storm(seed: u64) {
    let mut dice = Dice::new(seed);
    let told = Arc::new(AtomicU64::new(0));
    let options = Options::default().seed(seed).faults(faults(&mut dice));
    let client = service(Arc::clone(&told), options);
    let is_nice = dice.below(2) == 0;
    let window = *dice.pick(&[0, 1, 1000, 65_535, 1 << 20]);
    let mut peer = Peer::with(&client, &[(4, window)]);
    let mut asked: Vec<Asked> = Vec::new();
    for _ in 0..dice.below(80) {
        match dice.below(if is_nice { 8 } else { 13 }) {
            0 | 1 => {
                let stream = 2 * asked.len() as u32 + 1;
                let path = *dice.pick(&["/", "/large", "/text", "/later"]);
                let gzip = *dice.pick(&["gzip", "identity"]);
                peer.connection.put(&frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream,
                    &block(&with(&[(":path", path), ("accept-encoding", gzip)])),
                ));
                asked.push(Asked { stream, path, sent_bytes: 0, is_open: false });
            }
            2 => {
                let stream = 2 * asked.len() as u32 + 1;
                let path = *dice.pick(&["/whole", "/echo", "/none", "/slow"]);
                let fields = with(&[(":path", path), (":method", "POST")]);
                peer.connection.put(&frame(HEADERS, END_HEADERS, stream, &block(&fields)));
                asked.push(Asked { stream, path, sent_bytes: 0, is_open: true });
            }
            3 | 4 => {
                if let Some(one) = asked.iter_mut().filter(|one| one.is_open).last() {
                    let bytes = dice.below(5000);
                    let (flags, padding) = (*dice.pick(&[0, 0, END_STREAM, 8]), dice.below(200));
                    if one.sent_bytes + bytes + padding < 30_000 {
                        let data = vec![b'd'; bytes];
                        let padded = [&[padding as u8][..], &data, &vec![0; padding]].concat();
                        let payload = if flags & 8 != 0 { &padded } else { &data };
                        peer.connection.put(&frame(DATA, flags, one.stream, payload));
                        one.sent_bytes += bytes;
                        one.is_open = flags & END_STREAM == 0;
                    }
                }
            }
            5 => {
                peer.connection.put(&frame(
                    WINDOW_UPDATE,
                    0,
                    0,
                    &(1 + dice.below(100_000) as u32).to_be_bytes(),
                ));
            }
            // Who lets be is never so slow that an answer is taken back.
            6 => client.advance(Duration::from_millis(dice.below(if is_nice { 200 } else { 3000 }) as u64)),
            7 => peer.connection.run(),
            8 | 9 if !asked.is_empty() => {
                let stream = asked[dice.below(asked.len())].stream;
                let payload = CANCEL.to_be_bytes();
                peer.connection.put(&frame(RST_STREAM, 0, stream, &payload));
            }
            10 if !asked.is_empty() => {
                let stream = asked[dice.below(asked.len())].stream;
                let by = 1 + dice.below(100_000) as u32;
                peer.connection.put(&frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()));
            }
            11 => {
                let [a, b, c, d] = (dice.below(100_000) as u32).to_be_bytes();
                peer.connection.put(&frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d]));
            }
            12 if dice.below(2) == 0 => peer.connection.stop_reading(),
            12 => peer.connection.start_reading(),
            _ => {}
        }
    }
    if is_nice {
        // It ends what it has begun, and takes all that there is.
        let [a, b, c, d] = (1_u32 << 20).to_be_bytes();
        peer.connection.put(&frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d]));
        peer.connection.put(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 28).to_be_bytes()));
        for one in asked.iter_mut().filter(|one| one.is_open) {
            peer.connection.put(&frame(DATA, END_STREAM, one.stream, b""));
        }
        for _ in 0..30 {
            client.advance(Duration::from_secs(1));
        }
        for one in &asked {
            let answer = peer.answer(one.stream);
            assert_eq!(answer.status, Some(200), "seed {seed}, {}: {:?}", one.path, peer.goodbye());
            assert!(
                answer.is_whole,
                "seed {seed}, {}: {:?} of {}",
                one.path,
                answer.reset,
                answer.body.len()
            );
            let expected = match one.path {
                "/" => 5,
                "/later" => 5,
                "/large" => 100_000,
                "/echo" => one.sent_bytes,
                "/whole" | "/slow" => one.sent_bytes.to_string().len(),
                "/none" => 6,
                _ => answer.body.len(),
            };
            assert_eq!(answer.body.len(), expected, "seed {seed}, {}", one.path);
        }
        assert!(peer.goodbye().is_none(), "seed {seed}");
    } else {
        match dice.below(5) {
            0 => peer.connection.reset(),
            1 => peer.connection.close(),
            2 => peer.connection.finish(),
            3 => client.begin_drain(Duration::from_secs(5)),
            _ => {}
        }
    }
    for _ in 0..100 {
        client.advance(Duration::from_secs(2));
    }
    let stats = client.stats();
    assert_eq!(client.open(), 0, "seed {seed}");
    // Of h2, where the last of a connection goes in front of its streams (hyperium/h2#907).
    let panics_max = if cfg!(debug_assertions) { 1 } else { 0 };
    assert!(stats.panics <= panics_max, "seed {seed}: {}", stats.panics);
    assert_eq!(told.load(Relaxed), stats.requests, "seed {seed}");
}

#[test]
fn every_request_is_told_of_once_and_those_that_are_let_be_are_answered() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("NETPOLL_STORM_SEED").unwrap_or(1);
    for seed in first..first + number("NETPOLL_STORM_ROUNDS").unwrap_or(60) {
        storm(seed);
    }
}
