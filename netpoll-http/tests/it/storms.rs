//! Many connections on a network that misbehaves: whatever is cut, delayed or refused, each request gets its own
//! answer, in order, and clients that leave cost nobody anything. A failure names its seed.

use std::fs::File;
use std::future::poll_fn;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_http::{
    App, Body, BodyBuf, FileRange, Limits, Pull, Reply, Request, Response, Router, StatusCode, TestClient,
    TestConnection,
};

use crate::chance::{Chance, seeds};
use crate::weather::stormy;

/// A file of as many `f` as the longest answer has bytes.
static LETTERS: LazyLock<Arc<File>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("letters-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&[b'f'; BODY_BYTES_MAX]).unwrap();
    // It lives on without a name.
    std::fs::remove_file(path).unwrap();
    Arc::new(file)
});

const BODY_BYTES_MAX: usize = 30_000;

/// Gives way `turns` times.
async fn give_way(mut turns: usize) {
    poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Workers, windows and ways as the seed says; everything goes wrong that changes timing only.
fn options(seed: u64) -> Options {
    let mut chance = Chance::new(seed);
    let workers = 1 + chance.below(3);
    stormy(seed, &mut chance).workers(workers)
}

fn site(options: Options) -> TestClient {
    let mut limits = Limits::default();
    limits.requests_per_turn = Some(3);
    limits.half_close = true;
    App::new(move |_| {
        Router::new()
            .get("/file/{n}", |req: &Request| {
                Ok(Response::text(FileRange::new(Arc::clone(&LETTERS), 0, req.param("n")?)))
            })
            .get("/text/{n}", |req: &Request| req.param::<String>("n"))
            .get("/large/{n}", |req: &Request| Ok("x".repeat(req.param("n")?)))
            .get("/later/{n}", async |req: Request| {
                let n: usize = req.param("n")?;
                give_way(n % 5).await;
                Ok(n.to_string())
            })
            .get("/stream/{n}", |req: &Request| {
                let mut left: usize = req.param("n")?;
                let stream = move |context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                    let piece = left.min(700);
                    out.extend(&[b'x'; 700][..piece]);
                    left -= piece;
                    if left == 0 {
                        return Pull::Done;
                    }
                    if left.is_multiple_of(3) {
                        context.waker().wake_by_ref();
                        return Pull::Wait;
                    }
                    Pull::More
                };
                Ok(Response::text(Body::stream(stream)))
            })
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
            .post("/later", async |req: Request| {
                give_way(2).await;
                req.body_bytes()
            })
    })
    .limits(limits)
    .test_with(options)
}

/// What a peer asks, and how far it has come.
struct Peer {
    connection: TestConnection,
    bytes: Vec<u8>,
    sent: usize,
    /// Status and body of each answer.
    expected: Vec<(u16, Vec<u8>)>,
    answered: usize,
}

impl Peer {
    fn new(client: &TestClient, chance: &mut Chance, requests: usize) -> Self {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..requests {
            let (request, status, body) = request(chance);
            bytes.extend(request);
            expected.push((status, body));
        }
        Self { connection: client.connect(), bytes, sent: 0, expected, answered: 0 }
    }

    fn next(&mut self, chance: &mut Chance) -> Vec<u8> {
        let end = self.bytes.len().min(self.sent + 1 + chance.below(5000));
        let part = self.bytes[self.sent..end].to_vec();
        self.sent = end;
        part
    }

    fn has_sent_all(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Compares what has come; every answer is its own, as far as they go.
    fn check(&mut self, place: &str) {
        self.check_until(StatusCode::IM_A_TEAPOT, place);
    }

    /// The same, up to an answer that ends the connection because the peer stopped in the middle of a request.
    fn check_until(&mut self, last: StatusCode, place: &str) {
        while let Some(response) = self.connection.response().filter(|response| response.status != last) {
            let place = format!("{place}, request {}", self.answered);
            let (status, body) =
                self.expected.get(self.answered).unwrap_or_else(|| panic!("too much: {place}"));
            assert_eq!(response.status.as_u16(), *status, "{place}");
            assert!(response.body == *body, "{place}");
            self.answered += 1;
        }
    }

    /// All answers have come, then the end.
    fn check_all(&mut self, place: &str) {
        self.check(place);
        let left = self.connection.received();
        assert_eq!(self.answered, self.expected.len(), "{place}: {:?}", String::from_utf8_lossy(&left));
        assert!(left.is_empty() && self.connection.is_closed() && !self.connection.is_reset(), "{place}");
    }
}

/// A random request, and the status and body that it has to be answered with.
fn request(chance: &mut Chance) -> (Vec<u8>, u16, Vec<u8>) {
    let n = chance.below(BODY_BYTES_MAX);
    let body = vec![b'b'; chance.below(3000)];
    let get = |path: &str| format!("GET /{path}/{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let post = |path: &str| {
        let length = body.len();
        let head = format!("POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body].concat()
    };
    match chance.below(8) {
        0 => (get("text"), 200, n.to_string().into_bytes()),
        1 => (get("large"), 200, vec![b'x'; n]),
        2 => (get("later"), 200, n.to_string().into_bytes()),
        3 => (get("stream"), 200, vec![b'x'; n]),
        4 => (post("echo"), 200, body),
        5 => (post("nowhere"), 404, b"Not Found\n".to_vec()),
        6 => (get("file"), 200, vec![b'f'; n]),
        _ => {
            let mut bytes = b"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(100 + n % 1000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            (bytes, 200, body)
        }
    }
}

#[test]
fn every_request_gets_its_own_answer_in_order_on_any_network() {
    for seed in seeds(300) {
        let client = site(options(seed));
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..4).map(|_| Peer::new(&client, &mut chance, 12)).collect();
        while let Some(index) = pick(&peers, &mut chance) {
            let peer = &mut peers[index];
            let part = peer.next(&mut chance);
            match chance.below(3) {
                0 => peer.connection.send(&part),
                _ => peer.connection.put(&part),
            }
            if peer.has_sent_all() {
                peer.connection.finish();
            }
            client.turn();
        }
        client.run();
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.check_all(&format!("seed {seed}, peer {index}"));
        }
        assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "seed {seed}");
    }
}

/// One that has not sent all.
fn pick(peers: &[Peer], chance: &mut Chance) -> Option<usize> {
    let left: Vec<usize> = (0..peers.len()).filter(|peer| !peers[*peer].has_sent_all()).collect();
    (!left.is_empty()).then(|| left[chance.below(left.len())])
}

#[test]
fn clients_that_leave_in_any_way_cost_nothing_but_their_own_answers() {
    for seed in seeds(300) {
        let client = site(options(seed));
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..6).map(|_| Peer::new(&client, &mut chance, 8)).collect();
        // The first two are polite.
        while let Some(index) = pick(&peers, &mut chance) {
            let peer = &mut peers[index];
            let part = peer.next(&mut chance);
            peer.connection.put(&part);
            let leaves = index >= 2 && chance.below(6) == 0;
            match chance.below(4) {
                0 if leaves => peer.connection.close(),
                1 if leaves => peer.connection.reset(),
                2 if leaves => peer.connection.finish(),
                3 if leaves => peer.connection.stop_reading(),
                0 => client.stand_still(Duration::from_millis(chance.below(200) as u64)),
                1 => client.run(),
                _ => client.turn(),
            }
            if leaves {
                peer.sent = peer.bytes.len();
            } else if peer.has_sent_all() {
                peer.connection.finish();
            }
        }
        client.run();
        for (index, peer) in peers.iter_mut().enumerate() {
            let place = format!("seed {seed}, peer {index}");
            match index {
                0 | 1 => peer.check_all(&place),
                _ => peer.check_until(StatusCode::REQUEST_TIMEOUT, &place),
            }
        }
        client.advance(Duration::from_secs(600));
        let stats = client.stats();
        assert_eq!(
            (client.open(), client.blocks_in_use(), stats.panics),
            (0, 0, 0),
            "seed {seed}: {stats:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_costs_its_own_connection_only() {
    let mut failed = 0;
    for seed in seeds(100) {
        let client = site(options(seed));
        let mut chance = Chance::new(seed);
        let mut peers: Vec<_> = (0..4).map(|_| Peer::new(&client, &mut chance, 8)).collect();
        peers[3].connection.set_faults(Faults::stormy().failed_files(1000));
        while let Some(index) = pick(&peers, &mut chance) {
            let peer = &mut peers[index];
            let part = peer.next(&mut chance);
            peer.connection.put(&part);
            if peer.has_sent_all() {
                peer.connection.finish();
            }
            client.turn();
        }
        client.run();
        for (index, peer) in peers.iter_mut().enumerate() {
            let place = format!("seed {seed}, peer {index}");
            if index < 3 || !peer.connection.is_reset() { peer.check_all(&place) } else { peer.check(&place) }
        }
        let stats = client.stats();
        failed += stats.failed;
        assert_eq!(
            (client.open(), client.blocks_in_use(), stats.panics),
            (0, 0, 0),
            "seed {seed}: {stats:?}"
        );
    }
    assert!(failed > 10, "{failed} files failed");
}

#[test]
fn a_test_client_gets_its_answers_for_every_seed() {
    for seed in seeds(300) {
        let client = App::new(|_| Router::new().get("/", |_: &Request| "hello"))
            .test_with(Options::default().seed(seed).faults(Faults::stormy()));
        assert_eq!(client.get("/").text(), "hello", "seed {seed}");
        assert_eq!(client.post("/", "x").status, StatusCode::METHOD_NOT_ALLOWED, "seed {seed}");
    }
}

#[test]
#[should_panic = r#"no complete answer, but "HTTP/1.1 200 OK\r\n"#]
fn a_test_client_says_what_it_got_instead_of_an_answer() {
    let stuck = |_: &Request| {
        let stream = |_: &mut Context<'_>, _: &mut BodyBuf<'_>| Pull::Wait;
        Response::text(Body::stream(stream))
    };
    App::new(move |_| Router::new().get("/", stuck)).test().get("/");
}

#[test]
fn a_panic_of_a_test_client_points_to_the_test() {
    static PLACE: std::sync::Mutex<Option<(String, u32)>> = std::sync::Mutex::new(None);
    let (own, before) = (std::thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == own {
            *PLACE.lock().unwrap() = panic.location().map(|place| (place.file().to_owned(), place.line()));
        } else {
            before(panic);
        }
    }));
    // Longer than a test waits for an answer.
    let limits = Limits::default().handler_timeout(std::time::Duration::from_secs(3600));
    let client =
        App::new(|_| Router::new().get("/", async |_: Request| std::future::pending::<String>().await))
            .limits(limits)
            .test();
    let line = line!() + 1;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.get("/")));
    assert!(outcome.is_err());
    let (file, at) = PLACE.lock().unwrap().clone().expect("a place");
    assert!(file.ends_with("storms.rs") && at == line, "{file}:{at}, not line {line}");
}
