//! What is counted. A case makes its world, then does its operation so many rounds.
//!
//! Invariant: after the first rounds a world does not grow any more, so that every round costs the same; a count that
//! does not repeat to the digit comes from a case that breaks this.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use benches::requests::{BROWSER, PLAINTEXT, SMALL, UPLOAD, chunked_body, head_with, post};
use benches::routes;
use netpoll_core::internals::{Bell, Instant, KeySlab, Mailbox, Pool, Wheel};
use netpoll_core::net::Stream;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::sync::{mpsc, shared};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::timeout;
use netpoll_core::{Conn, Flow, Input, Protocol};
use netpoll_http::internals::wire::response::{close_head, header, open_head, patch_length, usual_head};
use netpoll_http::internals::wire::{
    Connection, ContentType, Decoder, HeadIndex, HeadReader, HeadStarts, Length, Limits, Progress,
    ResponseHead, Scan, parse,
};
use netpoll_http::{
    AccessLog, App, Completed, LogFormat, Metrics, Params, Reply, Request, RequestId, Route, Router, Service,
    StatusCode, TestClient, TraceContext,
};

/// One thing that is counted.
pub struct Case {
    pub name: &'static str,
    /// What a round holds of what is counted.
    pub operations: u64,
    pub run: fn(rounds: u64),
}

const fn case(name: &'static str, run: fn(u64)) -> Case {
    Case { name, operations: 1, run }
}

/// All of them, sorted by name.
pub const CASES: &[Case] = &[
    case("channel_local_hop", a_value_wakes_a_receiver_that_waits),
    case("channel_local_send_recv", a_value_is_sent_and_received),
    Case { name: "channel_shared_burst", operations: BURST, run: a_burst_between_threads_is_received },
    case("chunked_decode_4_kib", a_body_of_eight_chunks_is_decoded),
    case("encode_head_json_deferred", |rounds| a_head_is_written(rounds, Length::Deferred)),
    case("encode_head_three_headers", a_head_with_free_headers_is_written),
    case("encode_head_usual", |rounds| a_head_is_written(rounds, Length::Known(13))),
    case("key_slab_insert_get_remove", a_value_comes_and_goes),
    case("mailbox_send_take", a_letter_is_sent_and_taken),
    case("net_echo_4096", messages_are_echoed::<4096>),
    case("net_echo_64", messages_are_echoed::<64>),
    case("net_echo_filled_64", messages_are_echoed_from_where_they_lie),
    case("net_relay_64", messages_are_handed_on),
    case("parse_head_64_headers", |rounds| a_head_is_read(rounds, &head_with(64))),
    case("parse_head_browser", |rounds| a_head_is_read(rounds, BROWSER)),
    case("parse_head_browser_again", |rounds| heads_are_read(rounds, &[BROWSER.to_vec()])),
    case("parse_head_browsers", |rounds| heads_are_read(rounds, &browsers())),
    case("parse_head_chunked_upload", |rounds| a_head_is_read(rounds, UPLOAD)),
    case("parse_head_plaintext", |rounds| a_head_is_read(rounds, PLAINTEXT)),
    case("parse_head_small", |rounds| a_head_is_read(rounds, SMALL)),
    case("pool_take_give", a_block_is_taken_and_given_back),
    case("route_fixed_router", |rounds| a_route_is_found(rounds, &routes::router(), FIXED)),
    case("route_fixed_routes", |rounds| a_route_is_found(rounds, &routes::service(), FIXED)),
    case("route_parameter_router", |rounds| a_route_is_found(rounds, &routes::router(), WITH_PARAMETER)),
    case("route_parameter_routes", |rounds| a_route_is_found(rounds, &routes::service(), WITH_PARAMETER)),
    case("stack_browsers", browsers_are_answered),
    case("stack_observed_off", |rounds| requests_are_observed(rounds, Observed::Off)),
    case("stack_observed_sampled", |rounds| requests_are_observed(rounds, Observed::Sampled)),
    case("stack_plaintext", requests_are_answered::<1>),
    case("stack_plaintext_logged", |rounds| requests_are_logged(rounds, LogFormat::Combined, 1)),
    case("stack_plaintext_logged_json", |rounds| requests_are_logged(rounds, LogFormat::Json, 1)),
    case("stack_plaintext_logged_sampled", |rounds| requests_are_logged(rounds, LogFormat::Json, 100)),
    case("stack_plaintext_measured", requests_are_measured::<1>),
    case("stack_plaintext_observed", |rounds| requests_are_observed(rounds, Observed::All)),
    Case { name: "stack_plaintext_pipelined", operations: 16, run: requests_are_answered::<16> },
    case("stack_plaintext_named", requests_are_named),
    case("stack_plaintext_traced", requests_are_traced),
    case("stack_plaintext_watched", requests_are_watched::<1>),
    case("stack_post_1_kib", bodies_are_echoed),
    Case { name: "task_hop", operations: 2, run: two_tasks_wake_each_other },
    case("task_sleep_cancel", a_sleep_is_begun_and_given_up),
    Case { name: "task_spawn_run_drop", operations: 64, run: tasks_are_spawned_and_end },
    case("task_yield", a_task_yields),
    case("timer_insert_cancel", a_timer_is_set_and_cancelled),
    case("turn_no_event", a_turn_finds_nothing),
    case("turn_one_event", a_turn_finds_one_byte),
];

const FIXED: &str = "/api/v1/items";
/// As `PLAINTEXT`, with a trace.
const TRACED: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
/// The same of a trace that nobody records, and the program that asks.
const OBSERVED: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: load/1.0\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\r\n";
const WITH_PARAMETER: &str = "/orders/81723";

fn a_head_is_read(rounds: u64, bytes: &[u8]) {
    let (mut scan, limits, mut index) = (Scan::default(), Limits::default(), HeadIndex::new());
    for _ in 0..rounds {
        match parse(black_box(bytes), &mut scan, &limits, &mut index) {
            Ok(Progress::Done(head)) => _ = black_box(head),
            other => unreachable!("{other:?}"),
        }
    }
}

/// By a worker, one after the other.
fn heads_are_read(rounds: u64, heads: &[Vec<u8>]) {
    let (scan, limits, mut reader) = (Scan::default(), Limits::default(), HeadReader::new());
    for head in heads.iter().cycle().take(rounds as usize) {
        let len = reader.parse_whole(black_box(head), &scan, &limits);
        assert_eq!(len, Some(head.len()));
        black_box(reader.index());
    }
}

/// Eight clients with one browser, each with a session of its own.
fn browsers() -> Vec<Vec<u8>> {
    let text = str::from_utf8(BROWSER).expect("it is ASCII");
    (0..8).map(|nth| text.replacen("session=", &format!("session={nth}"), 1).into_bytes()).collect()
}

fn a_body_of_eight_chunks_is_decoded(rounds: u64) {
    let body = chunked_body(8, 512);
    let mut out = Vec::with_capacity(body.len());
    for _ in 0..rounds {
        out.clear();
        let decoded = Decoder::new().decode(black_box(&body), &mut out, u64::MAX);
        assert!(decoded.is_ok_and(|decoded| decoded.done));
        black_box(&out);
    }
}

fn a_head_is_written(rounds: u64, length: Length) {
    let mut starts = HeadStarts::new();
    let mut out = Vec::with_capacity(1024);
    for _ in 0..rounds {
        out.clear();
        let (starts, status, length) = (starts.at(black_box(784_111_777)), StatusCode::OK, black_box(length));
        let slot = usual_head(&mut out, starts, black_box(status), ContentType::Json, length);
        if let Some(slot) = slot.expect("a usual head") {
            patch_length(&mut out, slot, black_box(27));
        }
        black_box(&out);
    }
}

fn a_head_with_free_headers_is_written(rounds: u64) {
    const FREE: [(&str, &str); 3] =
        [("cache-control", "no-store"), ("x-request-id", "6f1c0d1e9a7b4c52"), ("vary", "accept-encoding")];
    let mut starts = HeadStarts::new();
    let mut out = Vec::with_capacity(1024);
    for _ in 0..rounds {
        out.clear();
        let head = ResponseHead {
            status: black_box(StatusCode::OK),
            content_type: ContentType::Json,
            starts: starts.at(black_box(784_111_777)),
            connection: Connection::Unsaid,
            length: Length::Known(black_box(27)),
        };
        open_head(&mut out, &head);
        for (name, value) in black_box(FREE) {
            header(&mut out, name, value.as_bytes()).expect("valid headers");
        }
        close_head(&mut out);
        black_box(&out);
    }
}

fn a_route_is_found(rounds: u64, service: &impl Service, path: &str) {
    let mut params = Params::new();
    for _ in 0..rounds {
        let found = service.find(black_box("GET"), black_box(path.as_bytes()), &mut params);
        assert!(matches!(black_box(found), Route::To(_)));
    }
}

/// Through everything above the driver contract. The simulated network is part of the figure: it copies each batch
/// in and each answer out, and turns in which nothing happens end each batch.
fn requests_are_answered<const DEPTH: usize>(rounds: u64) {
    answered::<DEPTH>(rounds, App::new(|_| plaintext()).test());
}

/// The same where a hook is told of each that is over.
fn requests_are_watched<const DEPTH: usize>(rounds: u64) {
    let look = |_: &_| |done: &Completed| _ = black_box(done.bytes_out);
    answered::<DEPTH>(rounds, App::new(|_| plaintext()).on_complete(look).test());
}

/// The same with figures by route.
fn requests_are_measured<const DEPTH: usize>(rounds: u64) {
    answered::<DEPTH>(rounds, App::new(|_| plaintext()).on_complete(Metrics::new().hook()).test());
}

/// The same with a log, of which nothing is lost; its thread's instructions are in the figure.
fn requests_are_logged(rounds: u64, format: LogFormat, one_in: u32) {
    let log = AccessLog::to(io::sink(), format).expect("a thread").room_bytes(4 << 20).sample(one_in);
    let client = App::new(|_| plaintext()).on_complete(log.hook()).test();
    answered::<1>(rounds, client);
    // What the thread has not written by itself, so that all of it is in each count.
    log.flush();
    assert_eq!(log.lost().total(), 0);
}

/// Each request gets a name of its own, which its answer says.
fn requests_are_named(rounds: u64) {
    let named = |_: &_| plaintext().before(RequestId::take).after(RequestId::show);
    answered::<1>(rounds, App::new(named).test());
}

/// Each request says which trace it belongs to.
fn requests_are_traced(rounds: u64) {
    asked(rounds, TRACED, App::new(|_| plaintext().before(TraceContext::take)).test());
}

/// How much of a request that `cargo bench-watched` sends is observed, as it has it.
#[derive(Clone, Copy, PartialEq)]
enum Observed {
    /// Nothing.
    Off,
    /// Figures, and a line for one in a hundred.
    Sampled,
    /// Figures, names, traces, and a line for each.
    All,
}

fn requests_are_observed(rounds: u64, observed: Observed) {
    if observed == Observed::Off {
        return asked(rounds, OBSERVED, App::new(|_| plaintext()).test());
    }
    let has_names = observed == Observed::All;
    let log = AccessLog::to(io::sink(), LogFormat::Json).expect("a thread").room_bytes(4 << 20);
    let log = log.sample(if has_names { 1 } else { 100 });
    let service = move |_: &_| match has_names {
        true => plaintext().before(RequestId::take).after(RequestId::show).before(TraceContext::take),
        false => plaintext(),
    };
    let app = App::new(service).on_complete(log.hook()).on_complete(Metrics::new().hook());
    asked(rounds, OBSERVED, app.test());
    log.flush();
    assert_eq!(log.lost().total(), 0);
}

fn asked(rounds: u64, request: &[u8], client: TestClient) {
    let mut connection = client.connect();
    let mut answer = Vec::with_capacity(8192);
    for _ in 0..rounds {
        answer.clear();
        connection.send(request);
        connection.drain_received(&mut answer);
        assert!(answer.ends_with(b"Hello, World!"));
    }
}

fn plaintext() -> Router {
    let plaintext = |_: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", b"Hello, World!");
    Router::new().get("/plaintext", plaintext)
}

fn answered<const DEPTH: usize>(rounds: u64, client: TestClient) {
    let mut connection = client.connect();
    let (batch, mut answers) = (PLAINTEXT.repeat(DEPTH), Vec::with_capacity(8192));
    for _ in 0..rounds {
        answers.clear();
        connection.send(&batch);
        connection.drain_received(&mut answers);
        assert!(answers.ends_with(b"Hello, World!"));
    }
}

/// One after the other, so that no head is what the one before it was.
fn browsers_are_answered(rounds: u64) {
    let client = App::new(|_: &_| plaintext()).test();
    let mut connection = client.connect();
    let heads: Vec<Vec<u8>> = browsers()
        .iter()
        .map(|head| [&b"GET /plaintext?page=2"[..], &head[b"GET /orders?page=2".len()..]].concat())
        .collect();
    let mut answer = Vec::with_capacity(8192);
    for head in heads.iter().cycle().take(rounds as usize) {
        answer.clear();
        connection.send(head);
        connection.drain_received(&mut answer);
        assert!(answer.ends_with(b"Hello, World!"));
    }
}

/// The same with a body, which goes back as bytes.
fn bodies_are_echoed(rounds: u64) {
    let echo = |request: &Request, reply: Reply| {
        reply.bytes(StatusCode::OK, "application/octet-stream", request.body())
    };
    let client = App::new(move |_| Router::new().post("/echo", echo)).test();
    let mut connection = client.connect();
    let (request, mut answer) = (post("/echo", &[b'x'; 1024]), Vec::with_capacity(8192));
    for _ in 0..rounds {
        answer.clear();
        connection.send(&request);
        connection.drain_received(&mut answer);
        assert!(answer.ends_with(&[b'x'; 1024]));
    }
}

/// Reads into memory of its own, and writes that: the echo of a task. The simulated network is part of the figure.
fn messages_are_echoed<const BYTES: usize>(rounds: u64) {
    echoed(rounds, BYTES, async |mut stream| {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
}

/// Writes what it was lent.
fn messages_are_echoed_from_where_they_lie(rounds: u64) {
    echoed(rounds, 64, async |stream| {
        let (mut reader, mut writer) = stream.into_split();
        while let Ok(input @ [_, ..]) = reader.fill_buf().await {
            let count = input.len();
            if writer.write_all(input).await.is_err() {
                return;
            }
            reader.consume(count);
        }
    });
}

fn echoed<F>(rounds: u64, bytes: usize, echo: impl Fn(Stream) -> F + Clone + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(move |stream, _peer| echo(stream));
    let peer = sim.connect(listener);
    sim.run();
    let (message, mut answer) = (vec![b'e'; bytes], Vec::with_capacity(8192));
    for _ in 0..rounds {
        answer.clear();
        sim.send(peer, black_box(&message));
        sim.turn();
        sim.drain_received(peer, &mut answer);
        assert_eq!(answer.len(), bytes);
    }
}

/// From one stream to another, by one task.
fn messages_are_handed_on(rounds: u64) {
    let mut sim = Sim::new(Options::default());
    let other = Rc::new(RefCell::new(None));
    let first = Rc::clone(&other);
    let listener = sim.listen_tasks(move |mut stream, _peer| {
        let first = Rc::clone(&first);
        async move {
            let Some(mut from): Option<Stream> = first.take() else {
                first.replace(Some(stream));
                return;
            };
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    });
    let (from, to) = (sim.connect(listener), sim.connect(listener));
    sim.run();
    let mut received = Vec::with_capacity(8192);
    for _ in 0..rounds {
        received.clear();
        sim.send(from, black_box(&[b'r'; 64]));
        sim.turn();
        sim.drain_received(to, &mut received);
        assert_eq!(received.len(), 64);
    }
}

struct Discard;

impl Protocol for Discard {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

fn a_turn_finds_nothing(rounds: u64) {
    let mut sim = Sim::new(Options::default());
    sim.listen(|_peer| Discard);
    for _ in 0..rounds {
        assert_eq!(sim.turn(), 0);
    }
}

fn a_turn_finds_one_byte(rounds: u64) {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Discard);
    let peer = sim.connect(listener);
    sim.run();
    for _ in 0..rounds {
        sim.send(peer, black_box(b"x"));
        assert_eq!(sim.turn(), 1);
    }
}

fn a_timer_is_set_and_cancelled(rounds: u64) {
    let mut wheel = Wheel::new();
    let at = |millis| Instant::ZERO.saturating_add(Duration::from_millis(millis));
    for timer in 0..1000 {
        wheel.insert(Instant::ZERO, at(60_000 + timer), timer);
    }
    for _ in 0..rounds {
        let key = wheel.insert(Instant::ZERO, black_box(at(30_000)), 7);
        assert!(wheel.remove(black_box(key)).is_some());
    }
}

fn a_value_comes_and_goes(rounds: u64) {
    let mut slab = KeySlab::new(1);
    for value in 0..1000_u64 {
        slab.insert_with(|_| value);
    }
    for value in 0..rounds {
        let key = black_box(slab.insert_with(|_| black_box(value))).expect("room");
        black_box(slab.get(key));
        black_box(slab.remove(black_box(key)));
        slab.reclaim();
    }
}

fn a_block_is_taken_and_given_back(rounds: u64) {
    let mut pool = Pool::new(1 << 20);
    for _ in 0..rounds {
        let block = black_box(pool.take(black_box(4096)));
        pool.give(block);
    }
}

struct Silent;

impl Bell for Silent {
    fn ring(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Values in a burst.
const BURST: u64 = 64;

/// A task that hears nothing; its waker costs what one of a task does.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
    fn wake_by_ref(self: &Arc<Self>) {}
}

fn a_value_is_sent_and_received(rounds: u64) {
    let (sender, mut receiver) = mpsc::channel(BURST as usize);
    let waker = Waker::from(Arc::new(Deaf));
    for value in 0..rounds {
        assert!(sender.try_send(black_box(value)).is_ok());
        assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_ready());
    }
}

fn a_value_wakes_a_receiver_that_waits(rounds: u64) {
    let (sender, mut receiver) = mpsc::channel(1);
    let waker = Waker::from(Arc::new(Deaf));
    let context = &mut Context::from_waker(&waker);
    for value in 0..rounds {
        assert!(receiver.poll_recv(context).is_pending());
        assert!(sender.try_send(black_box(value)).is_ok());
        assert!(receiver.poll_recv(context).is_ready());
    }
}

/// All of it on one thread: what it costs without another one that gets in the way.
fn a_burst_between_threads_is_received(rounds: u64) {
    let (sender, mut receiver) = shared::mpsc::channel(BURST as usize);
    let waker = Waker::from(Arc::new(Deaf));
    let context = &mut Context::from_waker(&waker);
    for _ in 0..rounds {
        while receiver.poll_recv(context).is_ready() {}
        for value in 0..BURST {
            assert!(sender.try_send(black_box(value)).is_ok());
        }
        for _ in 0..BURST {
            assert!(receiver.poll_recv(context).is_ready());
        }
    }
}

fn a_letter_is_sent_and_taken(rounds: u64) {
    let mailbox = Mailbox::new(Silent);
    let sender = mailbox.sender();
    for letter in 0..rounds {
        sender.send(black_box(letter));
        black_box(mailbox.take());
    }
}

fn tasks_are_spawned_and_end(rounds: u64) {
    Sim::new(Options::default()).block_on(async move {
        for _ in 0..rounds {
            for _ in 0..64 {
                drop(spawn_local(async {}));
            }
            yield_now().await;
        }
    });
}

/// The turns between slices are part of the figure.
fn a_task_yields(rounds: u64) {
    Sim::new(Options::default()).block_on(async move {
        for _ in 0..rounds {
            yield_now().await;
        }
    });
}

/// Each wakes the other and waits.
fn two_tasks_wake_each_other(rounds: u64) {
    type Place = Rc<RefCell<Option<Waker>>>;

    async fn player(rounds: u64, own: Place, other: Place) {
        for _ in 0..rounds {
            if let Some(waker) = other.borrow_mut().take() {
                waker.wake();
            }
            let mut is_first = true;
            poll_fn(|cx| {
                if std::mem::replace(&mut is_first, false) {
                    *own.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
        }
        if let Some(waker) = other.borrow_mut().take() {
            waker.wake();
        }
    }

    Sim::new(Options::default()).block_on(async move {
        let (one, two) = (Place::default(), Place::default());
        let first = spawn_local(player(rounds, Rc::clone(&one), Rc::clone(&two)));
        let second = spawn_local(player(rounds, two, one));
        first.await.expect("it ends");
        second.await.expect("it ends");
    });
}

fn a_sleep_is_begun_and_given_up(rounds: u64) {
    Sim::new(Options::default()).block_on(async move {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..rounds {
            let mut bound = pin!(timeout(Duration::from_secs(30), pending::<()>()));
            assert!(black_box(&mut bound).as_mut().poll(&mut cx).is_pending());
        }
    });
}
