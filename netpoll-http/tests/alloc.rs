//! How many allocations a request costs, counted by the allocator itself.
//!
//! Each thread counts for itself: the test harness allocates now and then on a thread of its own.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use netpoll_http::{
    AccessLog, App, BodyReader, BodySink, Error, IntoResponse, Json, LogFormat, Metrics, Reply, Request,
    RequestId, Response, Router, StatusCode, TestConnection, TraceContext, sink,
};
use serde::{Deserialize, Serialize};

struct Counting;

thread_local! {
    // Made at compile time and without a destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on to `System`, which keeps the trait's rules; counting touches no other memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, because all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the caller's promise about `bytes` is the one that `System` asks for.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Deserialize, Serialize)]
struct Order {
    item: u64,
    count: u32,
}

const ROUNDS: u64 = 200;

/// Allocations of one request on a warm keep-alive connection, simulated network included.
fn allocations(connection: &mut TestConnection, request: &[u8]) -> f64 {
    let mut received = Vec::with_capacity(1 << 20);
    let mut round = || {
        connection.send(request);
        received.clear();
        connection.drain_received(&mut received);
        assert!(received.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&received));
    };
    for _ in 0..ROUNDS {
        round();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..ROUNDS {
        round();
    }
    (ALLOCATIONS.get() - before) as f64 / ROUNDS as f64
}

#[test]
fn a_warm_request_that_is_logged_and_measured_allocates_nothing() {
    for format in [LogFormat::Combined, LogFormat::Json] {
        let log = AccessLog::to(std::io::sink(), format).expect("a thread");
        let metrics = Metrics::new();
        let client = App::new(|_| Router::new().get("/", |_: &Request| "Hello, World!"))
            .on_complete(log.hook())
            .on_complete(metrics.hook())
            .test();
        let mut connection = client.connect();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\n\r\n";
        assert_eq!(allocations(&mut connection, request), 0.0, "{format:?}");
    }
}

#[test]
fn a_warm_request_that_is_named_and_traced_as_well_allocates_nothing() {
    let log = AccessLog::to(std::io::sink(), LogFormat::Json).expect("a thread");
    let router = |_: &_| {
        Router::new()
            .get("/", |_: &Request| "Hello, World!")
            .before(RequestId::take)
            .before(TraceContext::take)
            .after(RequestId::show)
    };
    let client = App::new(router).on_complete(log.hook()).on_complete(Metrics::new().hook()).test();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\r\n";
    let counted = allocations(&mut client.connect(), head.as_bytes());
    log.flush();
    assert_eq!(counted, 0.0, "{:?}", log.lost());
}

#[test]
fn a_warm_synchronous_request_allocates_nothing() {
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| "Hello, World!")
            .get("/orders/{id}", |req: &Request| {
                Ok(Json(Order { item: req.param("id")?, count: req.query("count")? }))
            })
            .get("/large", |_: &Request| Json([[7_u64; 32]; 32]))
            .post("/orders", |req: &Request| Ok((StatusCode::CREATED, Json(req.json::<Order>()?))))
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
            .get("/async", async |_: Request| "hello")
    })
    .test();
    let mut connection = client.connect();
    let head = "Host: a\r\nUser-Agent: test\r\nAccept: */*\r\n";

    for (what, request) in [
        ("text", format!("GET / HTTP/1.1\r\n{head}\r\n")),
        ("text, pipelined", format!("GET / HTTP/1.1\r\n{head}\r\n").repeat(16)),
        ("parameters and JSON", format!("GET /orders/7?count=3 HTTP/1.1\r\n{head}\r\n")),
        ("4 KiB of JSON", format!("GET /large HTTP/1.1\r\n{head}\r\n")),
        ("echo", format!("POST /echo HTTP/1.1\r\n{head}Content-Length: 5\r\n\r\nhello")),
        (
            "JSON both ways",
            format!(
                "POST /orders HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n\
                 {{\"item\":1,\"count\":2}}"
            ),
        ),
    ] {
        assert_eq!(allocations(&mut connection, request.as_bytes()), 0.0, "{what}");
    }

    // The copy of the request, its shared owner, the future, and the answer behind a pointer.
    let asynchronous = allocations(&mut connection, format!("GET /async HTTP/1.1\r\n{head}\r\n").as_bytes());
    assert!(asynchronous <= 4.0, "{asynchronous} for an asynchronous handler that is ready at once");
}

#[test]
fn pieces_of_a_body_cost_a_sink_nothing_and_a_reader_two_allocations_each() {
    struct Sum(u64);
    impl BodySink for Sum {
        fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
            self.0 += chunk.len() as u64;
            Ok(())
        }
        fn end(self, _: &Request<'_>) -> impl IntoResponse {
            (self.0 > 0).then_some("some")
        }
    }
    let read = async |_: Request, mut body: BodyReader| {
        while body.chunk().await?.is_some() {}
        Ok("read")
    };
    let echo = async |_: Request, body: BodyReader| Response::bytes(body);
    let router = move |_: &_| {
        Router::new().post("/sink", sink(|_: &Request| Ok(Sum(0)))).post("/read", read).post("/echo", echo)
    };
    let client = App::new(router).test();
    for (path, each) in [("/sink", 0), ("/read", 2), ("/echo", 0)] {
        let mut connection = client.connect();
        let (piece, mut received) = ([b'x'; 8000], Vec::with_capacity(1 << 20));
        let mut upload = |pieces: usize| {
            let length = pieces * piece.len();
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let before = ALLOCATIONS.get();
            connection.send(head.as_bytes());
            (0..pieces).for_each(|_| connection.send(&piece));
            received.clear();
            connection.drain_received(&mut received);
            assert!(received.starts_with(b"HTTP/1.1 200 OK"));
            ALLOCATIONS.get() - before
        };
        (0..20).for_each(|_| _ = upload(10));
        let (few, many) = (upload(10), upload(60));
        // The blocks of a long answer may grow once or twice.
        assert!(many - few <= 50 * each + 5, "{path}: {few} for ten pieces, {many} for sixty");
    }
}

#[cfg(all(feature = "internals", feature = "websocket"))]
mod websocket {
    use netpoll_http::internals::ws::{Event, Kind, Limits, Reader, Role, frame};

    use super::ALLOCATIONS;

    /// Events in these bytes, which come in so many chunks, and allocations for them.
    fn events(reader: &mut Reader, bytes: &mut [u8], step: usize) -> (u64, u64) {
        let before = ALLOCATIONS.get();
        let mut events = 0;
        for mut chunk in bytes.chunks_mut(step) {
            while let Some(event) = reader.next(&mut chunk) {
                assert!(!matches!(event, Event::Failed(_)), "{event:?}");
                events += 1;
            }
        }
        (events, ALLOCATIONS.get() - before)
    }

    /// A text, a binary message, a ping and a pong.
    fn messages() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload_bytes) in
            [(Kind::TEXT, 64), (Kind::BINARY, 4000), (Kind::PING, 125), (Kind::PONG, 0)]
        {
            frame::push_masked(&mut bytes, kind, &vec![b'x'; payload_bytes], [1, 2, 3, 4]);
        }
        bytes
    }

    #[test]
    fn a_reader_and_whole_messages_allocate_nothing() {
        let bytes = messages();
        let before = ALLOCATIONS.get();
        let mut reader = Reader::new(Role::Server, false, Limits::default());
        assert_eq!(ALLOCATIONS.get(), before);
        for _ in 0..3 {
            let mut bytes = bytes.clone();
            let step = bytes.len();
            assert_eq!(events(&mut reader, &mut bytes, step), (4, 0));
        }
    }

    #[test]
    fn a_header_that_is_cut_allocates_nothing() {
        let mut reader = Reader::new(Role::Server, false, Limits::default());
        let mut bytes = Vec::new();
        for _ in 0..10 {
            frame::push_masked(&mut bytes, Kind::TEXT, b"", [1, 2, 3, 4]);
        }
        assert_eq!(events(&mut reader, &mut bytes, 5), (10, 0));
    }

    #[test]
    fn a_message_that_is_cut_allocates_once_for_each_doubling() {
        let mut reader = Reader::new(Role::Server, false, Limits::default());
        let mut bytes = Vec::new();
        frame::push_masked(&mut bytes, Kind::BINARY, &vec![7; 1 << 20], [1, 2, 3, 4]);
        let (seen, allocations) = events(&mut reader, &mut bytes, 4096);
        assert_eq!(seen, 1);
        assert!(allocations <= 9, "{allocations}");
    }

    #[test]
    fn a_shared_frame_is_allocated_once_and_counted_once() {
        let payload = [b'x'; 1000];
        let before = ALLOCATIONS.get();
        let frame = frame::shared(Kind::TEXT, &payload);
        let all: [_; 8] = std::array::from_fn(|_| frame.clone());
        assert_eq!(ALLOCATIONS.get() - before, 2);
        assert!(all.iter().all(|one| one.len() == 1004));
    }
}
