//! Clients that do as they like, on networks that misbehave: each request is told of once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_core::time::sleep;
use netpoll_core::{Conn, Flow, Input, Protocol};
use netpoll_http::{
    App, Body, BodyBuf, Completed, Error, Limits, Pull, Request, Response, Router, StatusCode, TestClient,
};

use crate::chance::{Chance, seeds};

struct Echo;
impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

/// Pieces of 3000 bytes, and then this.
fn stream(pieces: u32, end: Pull) -> Response {
    let (mut left, mut end) = (pieces, Some(end));
    Response::text(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
        if left == 0 {
            return end.take().unwrap_or_else(|| panic!("as told"));
        }
        left -= 1;
        out.extend(&[b'x'; 3000]);
        Pull::More
    }))
}

const PATHS: [&str; 18] = [
    "/",
    "/large",
    "/sleep",
    "/for_ever",
    "/panics",
    "/panics_later",
    "/stream",
    "/fails",
    "/hangs",
    "/stream_panics",
    "/upgrade",
    "/hooked",
    "/hooked/stream",
    "/hooked/later",
    "/hooked/panics",
    "/hooked/refused",
    "/hooked/nowhere",
    "/nowhere",
];

async fn hook(req: Request<'static>) -> Result<(), Error> {
    if req.path().ends_with("refused") {
        return Err(StatusCode::FORBIDDEN.into());
    }
    sleep(Duration::from_millis(100)).await;
    assert!(!req.path().ends_with("panics"), "as told");
    Ok(())
}

fn service() -> Router {
    let hooked = Router::new()
        .before(hook)
        .any("/", |req: &Request| req.body().len().to_string())
        .get("/stream", |_: &Request| stream(30, Pull::Done))
        .get("/later", async |_: Request| sleep(Duration::from_millis(300)).await);
    Router::new()
        .any("/", |req: &Request| req.body().to_vec())
        .get("/large", |_: &Request| vec![b'x'; 200_000])
        .get("/sleep", async |_: Request| sleep(Duration::from_millis(500)).await)
        .get("/for_ever", async |_: Request| std::future::pending::<()>().await)
        .get("/panics", |_: &Request| -> &str { panic!("as told") })
        .get("/panics_later", async |_: Request| -> &'static str {
            sleep(Duration::from_millis(5)).await;
            panic!("as told")
        })
        .get("/stream", |_: &Request| stream(100, Pull::Done))
        .get("/fails", |_: &Request| stream(3, Pull::Failed))
        .get("/hangs", |_: &Request| stream(3, Pull::Wait))
        .get("/stream_panics", |_: &Request| stream(3, Pull::More))
        .get("/upgrade", |req: &Request| match req.upgrade("echo") {
            Some(upgrade) => upgrade.accept(Echo),
            None => Response::new(StatusCode::UPGRADE_REQUIRED),
        })
        .nest("/hooked", hooked)
}

/// By the number of each request, how often hooks have seen it, less how often its end was told.
type Open = Arc<Mutex<BTreeMap<String, i32>>>;

fn count(open: &Open, request: &Request<'_>, by: i32) {
    // Of one that ended within its head nobody knows the number, and no hook before a handler sees it.
    if let Some(number) = request.query_raw() {
        *open.lock().expect("nobody panics here").entry(number.to_owned()).or_default() += by;
    }
}

fn served(seed: u64, open: &Open) -> TestClient {
    let (seen, told) = (Arc::clone(open), Arc::clone(open));
    let app = App::new(move |_| {
        let seen = Arc::clone(&seen);
        service().before(move |req: &Request| count(&seen, req, 1))
    });
    let app = app.limits(Limits::default().half_close(seed % 3 == 1)).on_complete(move |_| {
        let told = Arc::clone(&told);
        move |done: &Completed<'_>| count(&told, done.request, -1)
    });
    let app = match seed % 5 {
        0 => app.errors(|error, _| match error.status() {
            StatusCode::NOT_FOUND => panic!("as told"),
            status => stream(2, Pull::Done).status(status),
        }),
        _ => app,
    };
    let options = Options::default().seed(seed);
    app.test_with(if seed % 2 == 1 { options.faults(Faults::stormy()) } else { options })
}

/// Requests one behind the other.
fn requests(chance: &mut Chance, number: &mut u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=chance.below(3) {
        *number += 1;
        let path = PATHS[chance.below(PATHS.len())];
        let (method, version) = ([("GET", 1), ("GET", 1), ("HEAD", 1), ("GET", 0)])[chance.below(4)];
        let fields = match (path, chance.below(4)) {
            ("/upgrade", _) => "Connection: upgrade\r\nUpgrade: echo\r\n",
            (_, 0) => "Connection: close\r\n",
            _ => "",
        };
        let head = format!("{method} {path}?{number} HTTP/1.{version}\r\nHost: a\r\n{fields}\r\n");
        bytes.extend_from_slice(head.as_bytes());
    }
    bytes
}

/// One with a body.
fn upload(chance: &mut Chance, number: &mut u32) -> Vec<u8> {
    *number += 1;
    let path = ["/", "/hooked", "/nowhere", "/large"][chance.below(4)];
    let expect = ["", "Expect: 100-continue\r\n"][chance.below(2)];
    let body_bytes = chance.below(30_000);
    let head =
        format!("POST {path}?{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {body_bytes}\r\n{expect}\r\n");
    [head.as_bytes(), &vec![b'y'; body_bytes]].concat()
}

#[test]
fn each_request_that_hooks_have_seen_is_told_of_once_whatever_clients_and_the_network_do() {
    for seed in seeds(60) {
        let mut chance = Chance::new(seed);
        let open = Open::default();
        let client = served(seed, &open);
        let mut connections: Vec<_> = (0..6).map(|_| client.connect()).collect();
        let mut number = 0;
        for _ in 0..60 {
            let connection = &mut connections[chance.below(6)];
            match chance.below(12) {
                what @ 0..=7 => {
                    let make = if what < 6 { requests } else { upload };
                    let bytes = make(&mut chance, &mut number);
                    let cut = if chance.below(5) == 0 { chance.below(bytes.len()) } else { bytes.len() };
                    connection.put(&bytes[..cut]);
                    if chance.below(2) == 0 {
                        connection.run();
                    }
                    if cut < bytes.len() && chance.below(2) == 0 {
                        connection.send(&bytes[cut..]);
                    } else if cut < bytes.len() {
                        // What would follow would be taken for the rest.
                        connection.finish();
                        connection.advance(Duration::from_millis(300));
                        *connection = client.connect();
                    }
                }
                8 => connection.finish(),
                9 => {
                    connection.reset();
                    *connection = client.connect();
                }
                10 => connection.stop_reading(),
                _ => client.advance(Duration::from_millis(200)),
            }
        }
        if seed % 4 == 1 {
            client.begin_drain(Duration::from_secs(chance.below(20) as u64));
        }
        client.advance(Duration::from_secs(100));
        connections.iter_mut().for_each(|connection| {
            connection.reset();
            connection.run();
        });
        client.advance(Duration::from_secs(100));
        assert_eq!(client.open(), 0, "seed {seed}");
        let open = open.lock().expect("nobody panics here");
        let left: Vec<_> = open.iter().filter(|(_, times)| **times != 0).collect();
        assert!(left.is_empty() && !open.is_empty(), "seed {seed}: {left:?} of {}", open.len());
    }
}
