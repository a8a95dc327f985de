//! Bodies that are read while they arrive, on a network that misbehaves: whatever is cut, delayed or refused, each request gets its own
//! answer, in order, and what leaves nothing behind. A failure names its seed.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::task::{self, spawn_local};
use netpoll_core::time::sleep;
use netpoll_http::{
    App, BodyError, BodyReader, BodySink, Error, Handler, IntoResponse, Limits, Request, Response,
    RouteLimits, Router, TestClient, TestConnection, sink,
};

use crate::chance::{Chance, seeds};
use crate::weather::stormy;

/// Handlers that have begun and not ended.
#[derive(Default)]
struct Busy(Cell<i64>);

struct Begun(Rc<Busy>);

impl Begun {
    fn new() -> Self {
        let busy = task::state::<Busy>();
        busy.0.set(busy.0.get() + 1);
        Self(busy)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

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

async fn gather(_: Request<'static>, mut body: BodyReader) -> Result<Vec<u8>, Error> {
    let _begun = Begun::new();
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        assert!(!chunk.is_empty());
        all.extend_from_slice(&chunk);
        match chunk.len() % 4 {
            0 if chunk.len() > 100 => sleep(Duration::from_millis(3)).await,
            turns => give_way(turns).await,
        }
    }
    Ok(all)
}

async fn elsewhere(request: Request<'static>, body: BodyReader) -> Result<Vec<u8>, Error> {
    spawn_local(gather(request, body)).await.map_err(Error::internal)?
}

async fn some(_: Request<'static>, mut body: BodyReader) -> Result<&'static str, Error> {
    let _begun = Begun::new();
    body.chunk().await?;
    Ok("some")
}

struct Gather {
    all: Vec<u8>,
    _begun: Begun,
}

impl BodySink for Gather {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.all.extend_from_slice(chunk);
        Ok(())
    }

    fn end(self, _: &Request<'_>) -> impl IntoResponse {
        self.all
    }

    fn failed(self, error: BodyError) {
        assert!(error.is_of_client());
    }
}

fn site(seed: u64, chance: &mut Chance) -> TestClient {
    let any = RouteLimits::default().unlimited_body();
    let limits = Limits::default().body_buffer_bytes(1 + chance.below(8000));
    let router = move |_: &_| {
        Router::new()
            .get("/", |_: &Request| "root")
            .post("/gather", gather.limits(any))
            .post("/elsewhere", elsewhere.limits(any))
            .post("/some", some.limits(any))
            .post("/echo", (async |_: Request, body: BodyReader| Response::bytes(body)).limits(any))
            .post(
                "/sink",
                sink(|_: &Request| Ok(Gather { all: Vec::new(), _begun: Begun::new() })).limits(any),
            )
    };
    App::new(router).limits(limits).state(|_| Busy::default()).test_with(stormy(seed, chance))
}

fn busy(client: &TestClient) -> i64 {
    client.world(|sim| sim.block_on(async { task::state::<Busy>().0.get() }))
}

/// A random request, and the body of its answer.
fn request(chance: &mut Chance) -> (Vec<u8>, Vec<u8>) {
    let path = ["", "gather", "elsewhere", "some", "echo", "sink"][chance.below(6)];
    let body: Vec<u8> = (0..chance.below(20_000)).map(|at| b'a' + (at % 26) as u8).collect();
    if path.is_empty() {
        return (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), b"root".to_vec());
    }
    let answer = if path == "some" { b"some".to_vec() } else { body.clone() };
    let head = |framing: &str| format!("POST /{path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes();
    if chance.below(2) == 0 {
        return ([head(&format!("Content-Length: {}", body.len())), body].concat(), answer);
    }
    let mut bytes = head("Transfer-Encoding: chunked");
    for chunk in body.chunks(1 + chance.below(5000)) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nX-Last: 1\r\n\r\n");
    (bytes, answer)
}

struct Peer {
    connection: TestConnection,
    bytes: Vec<u8>,
    sent: usize,
    expected: Vec<Vec<u8>>,
    answered: usize,
    is_gone: bool,
}

impl Peer {
    fn new(client: &TestClient, chance: &mut Chance) -> Self {
        let (requests, expected): (Vec<_>, Vec<_>) = (0..6).map(|_| request(chance)).unzip();
        let connection = client.connect();
        Self { connection, bytes: requests.concat(), sent: 0, expected, answered: 0, is_gone: false }
    }

    fn is_done(&self) -> bool {
        self.is_gone || self.sent == self.bytes.len()
    }

    fn send_on(&mut self, chance: &mut Chance) {
        let end = self.bytes.len().min(self.sent + 1 + chance.below(6000));
        let part = &self.bytes[self.sent..end];
        match chance.below(3) {
            0 => self.connection.send(part),
            _ => self.connection.put(part),
        }
        self.sent = end;
    }

    /// What has come are the first of its answers.
    fn check(&mut self, place: &str) {
        while let Some(response) = self.connection.response() {
            if response.status.as_u16() == 408 {
                return;
            }
            let place = format!("{place}, request {}", self.answered);
            assert_eq!(response.status.as_u16(), 200, "{place}: {}", String::from_utf8_lossy(&response.body));
            assert!(response.body == self.expected[self.answered], "{place}");
            self.answered += 1;
        }
    }
}

fn pick(peers: &[Peer], chance: &mut Chance) -> Option<usize> {
    let left: Vec<usize> = (0..peers.len()).filter(|peer| !peers[*peer].is_done()).collect();
    (!left.is_empty()).then(|| left[chance.below(left.len())])
}

#[test]
fn every_body_that_is_read_while_it_arrives_has_its_own_answer_in_order_on_any_network() {
    for seed in seeds(200) {
        let mut chance = Chance::new(seed);
        let client = site(seed, &mut chance);
        let mut peers: Vec<_> = (0..4).map(|_| Peer::new(&client, &mut chance)).collect();
        while let Some(index) = pick(&peers, &mut chance) {
            peers[index].send_on(&mut chance);
            match chance.below(4) {
                0 => client.advance(Duration::from_millis(chance.below(20) as u64)),
                _ => client.turn(),
            }
        }
        client.advance(Duration::from_secs(4));
        for (index, peer) in peers.iter_mut().enumerate() {
            let place = format!("seed {seed}, peer {index}");
            peer.check(&place);
            assert_eq!(peer.answered, peer.expected.len(), "{place}");
            peer.connection.finish();
            assert!(peer.connection.is_closed() && !peer.connection.is_reset(), "{place}");
        }
        let stats = client.stats();
        let left = (client.open(), client.blocks_in_use(), stats.panics, busy(&client));
        assert_eq!(left, (0, 0, 0, 0), "seed {seed}: {stats:?}");
    }
}

#[test]
fn clients_that_leave_in_the_middle_of_a_body_leave_nothing_behind() {
    for seed in seeds(200) {
        let mut chance = Chance::new(seed);
        let client = site(seed, &mut chance);
        let mut peers: Vec<_> = (0..5).map(|_| Peer::new(&client, &mut chance)).collect();
        let mut drains = chance.below(3) == 0;
        while let Some(index) = pick(&peers, &mut chance) {
            let peer = &mut peers[index];
            peer.send_on(&mut chance);
            // The first is polite.
            if index > 0 && chance.below(8) == 0 {
                peer.is_gone = true;
                match chance.below(5) {
                    0 => peer.connection.close(),
                    1 => peer.connection.reset(),
                    2 => peer.connection.finish(),
                    3 => peer.connection.stop_reading(),
                    _ => {}
                }
            }
            match chance.below(6) {
                0 => client.stand_still(Duration::from_millis(chance.below(200) as u64)),
                1 => client.run(),
                2 => client.advance(Duration::from_millis(chance.below(50) as u64)),
                3 if std::mem::take(&mut drains) => client.begin_drain(Duration::from_secs(300)),
                _ => client.turn(),
            }
        }
        client.advance(Duration::from_secs(4));
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.check(&format!("seed {seed}, peer {index}"));
        }
        client.advance(Duration::from_secs(600));
        let stats = client.stats();
        let left = (client.open(), client.blocks_in_use(), stats.panics, busy(&client));
        assert_eq!(left, (0, 0, 0, 0), "seed {seed}: {stats:?}");
    }
}
