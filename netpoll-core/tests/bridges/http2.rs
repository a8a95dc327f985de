//! HTTP/2 of hyper, both ends on workers.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use netpoll_core::bridge::{HyperExecutor, HyperTimer, SendWrapper};
use netpoll_core::net::Stream;
use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::task::spawn_local;
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Runtime, Workers};

use crate::chance::seeds;
use crate::conversation::faults;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the requests that are being served, and waits as long as it is told to. Nothing of it is `Send`.
struct Served(Rc<Cell<i32>>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn shout(
    request: Request<Incoming>,
    serving: Rc<Cell<i32>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    serving.set(serving.get() + 1);
    let _served = Served(serving);
    let waits = request.uri().path()[1..].parse().unwrap_or(0);
    let body = request.into_body().collect().await?.to_bytes();
    sleep(Duration::from_millis(waits)).await;
    Ok(Response::new(Full::new(body.to_ascii_uppercase().into())))
}

async fn serve(stream: Stream, serving: Rc<Cell<i32>>) {
    let mut builder = server::conn::http2::Builder::new(HyperExecutor);
    builder.timer(HyperTimer).keep_alive_interval(20 * SECOND);
    let service = service_fn(move |request| shout(request, Rc::clone(&serving)));
    // A client that leaves in the middle is no matter.
    let _ = builder.serve_connection(stream, service).await;
}

async fn ask(
    requests: &client::conn::http2::SendRequest<Full<Bytes>>,
    waits: u64,
    body: Vec<u8>,
) -> Result<Bytes, hyper::Error> {
    let request = Request::post(format!("http://a/{waits}")).body(Full::from(body)).unwrap();
    Ok(requests.clone().send_request(request).await?.into_body().collect().await?.to_bytes())
}

/// Thirty requests at once, some longer than the windows of HTTP/2, some slow, and one that is given up.
async fn ask_for_much(stream: Stream) -> usize {
    let mut builder = client::conn::http2::Builder::new(HyperExecutor);
    builder.timer(HyperTimer);
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    let connection = spawn_local(connection);
    let asked = (0..30_usize).map(|number| {
        let requests = &requests;
        async move {
            let body = vec![b'a' + (number % 26) as u8; number * number * 500];
            let answer = ask(requests, (number % 3) as u64 * 10, body.clone()).await.unwrap();
            assert!(answer == body.to_ascii_uppercase(), "request {number}");
            answer.len()
        }
    });
    let bytes = join_all(asked).await.into_iter().sum();
    let given_up = timeout(Duration::from_millis(20), ask(&requests, 3_600_000, Vec::new())).await;
    assert!(given_up.is_err(), "that one takes an hour");
    assert_eq!(ask(&requests, 0, b"last".to_vec()).await.unwrap(), "LAST");
    drop(requests);
    connection.await.unwrap().unwrap();
    bytes
}

const BYTES: usize = 500 * (29 * 30 * 59 / 6);

#[test]
fn requests_are_multiplexed_over_a_pair_of_sockets() {
    let asked = Runtime::block_on(async {
        let serving = Rc::new(Cell::new(0));
        let (ours, theirs) = Stream::pair().unwrap();
        let served = spawn_local(serve(theirs, Rc::clone(&serving)));
        let bytes = ask_for_much(ours).await;
        served.await.unwrap();
        (bytes, serving.get())
    });
    assert_eq!(asked.unwrap(), (BYTES, 0), "the one that was given up is not served any more");
}

#[test]
fn requests_are_multiplexed_over_tcp_between_workers() {
    let builder = Runtime::builder().workers(Workers::Count(1)).pin(false);
    let server = builder.listen_tasks("127.0.0.1:0", |stream, _peer| serve(stream, Rc::default())).unwrap();
    let server = server.start().unwrap();
    let to = server.local_addrs()[0].clone();
    let asked = Runtime::block_on(async move { ask_for_much(Stream::connect(to).await.unwrap()).await });
    assert_eq!(asked.unwrap(), BYTES);
    assert_eq!(server.stop(60 * SECOND).unwrap().stats.panics, 0);
}

/// Joins a peer of ours to one that was dialed.
fn pump(sim: &mut Sim, one: PeerId, other: PeerId) -> bool {
    let (there, back) = (sim.take_received(one), sim.take_received(other));
    sim.send(other, &there);
    sim.send(one, &back);
    !there.is_empty() || !back.is_empty()
}

#[test]
fn requests_are_multiplexed_through_a_network_that_cuts_and_delays() {
    for seed in seeds(12) {
        let millis = Duration::from_millis;
        let options = Options::default().seed(seed).faults(faults()).latency(millis(1)..=millis(9));
        let mut sim = Sim::new(options);
        let (serving, outcome) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
        let counted = Rc::clone(&serving);
        let listener = sim.listen_tasks(move |stream, _peer| serve(stream, Rc::clone(&counted)));
        let accepted = sim.connect(listener);
        let place = Rc::clone(&outcome);
        sim.block_on(async move {
            let _asks = spawn_local(async move {
                let bytes = ask_for_much(Stream::connect("10.0.0.1:80").await.unwrap()).await;
                place.replace(Some(bytes));
            });
        });
        sim.run();
        let dialed = sim.take_dialed()[0].0;
        let mut idle = 0;
        while outcome.borrow().is_none() && idle < 100 {
            sim.advance(millis(5));
            idle = if pump(&mut sim, accepted, dialed) { 0 } else { idle + 1 };
        }
        assert_eq!((*outcome.borrow(), serving.get()), (Some(BYTES), 0), "seed {seed}");
        sim.close(accepted);
        sim.close(dialed);
        sim.advance(60 * SECOND);
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn a_peer_that_answers_no_ping_is_found_dead_in_the_time_of_the_simulation() {
    let mut sim = Sim::new(Options::default());
    let ended = Rc::new(Cell::new(false));
    let place = Rc::clone(&ended);
    let listener = sim.listen_tasks(move |stream, _peer| {
        let place = Rc::clone(&place);
        async move {
            serve(stream, Rc::default()).await;
            place.set(true);
        }
    });
    let peer = sim.connect(listener);
    // A preface, and settings that are empty.
    sim.send(peer, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    sim.advance(39 * SECOND);
    assert!(!ended.get());
    sim.advance(2 * SECOND);
    assert!(ended.get(), "twenty seconds without a word, twenty for the ping");
}

#[test]
fn a_service_may_be_bound_to_its_worker_and_its_stream_too() {
    fn all_is_send<T: Send>(value: T) -> T {
        value
    }
    let said = Runtime::block_on(async {
        let (ours, theirs) = Stream::pair().unwrap();
        let builder = server::conn::http2::Builder::new(HyperExecutor);
        let word = SendWrapper::new(Rc::new(Cell::new(7)));
        let service = service_fn(move |_request: Request<Incoming>| {
            let word = word.clone();
            all_is_send(async move {
                // The body holds an `Rc`, and is `Send` all the same.
                let body =
                    all_is_send(SendWrapper::new(Kept(Full::from(word.get().to_string()), Rc::clone(&word))));
                Ok::<_, Infallible>(Response::new(body))
            })
        });
        let served = spawn_local(builder.serve_connection(all_is_send(SendWrapper::new(theirs)), service));
        let (requests, connection) = client::conn::http2::handshake(HyperExecutor, ours).await.unwrap();
        let connection = spawn_local(connection);
        let answer = ask(&requests, 0, Vec::new()).await.unwrap();
        drop(requests);
        connection.await.unwrap().unwrap();
        served.await.unwrap().unwrap();
        answer
    });
    assert_eq!(said.unwrap(), "7");
}

struct Kept(Full<Bytes>, #[expect(dead_code, reason = "makes it `!Send`")] Rc<Cell<u8>>);

impl hyper::body::Body for Kept {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}
