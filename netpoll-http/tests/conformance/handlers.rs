//! Handlers that panic: 500 and close for their request, nothing for anybody else.

use std::panic::panic_any;
use std::task::Context;

use netpoll_http::{Body, BodyBuf, Error, Pull, Reply, Request, Response, Router, StatusCode};

use crate::answer;
use crate::fixture::{Gate, answers, bodies, client_with, get, router, statuses};
use crate::target::has_canary;
use crate::transport::TestClient;

fn panicking(gate: &Gate) -> Router {
    let gate = gate.clone();
    router()
        .get("/sync", |_: &Request| -> &'static str { panic!("on purpose") })
        .get("/any", |_: &Request| -> &'static str { panic_any(5) })
        .post("/read", |req: &Request| -> String { panic!("on purpose: {}", req.body().len()) })
        .get("/async", async |_: Request| -> &'static str { panic!("on purpose") })
        .get("/later", async move |_: Request| -> &'static str {
            gate.pass().await;
            panic!("on purpose")
        })
        .get("/direct", |_: &Request, reply: Reply| {
            reply.write(StatusCode::OK, "text/plain", |out| {
                out.extend(b"half of a body");
                panic!("on purpose")
            })
        })
        .get("/stream", |_: &Request| stream(false))
        .get("/late-stream", |_: &Request| stream(true))
}

/// A stream that panics, at once or behind some bytes.
fn stream(late: bool) -> Response {
    let mut begun = !late;
    Response::new(StatusCode::OK).body(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
        assert!(!begun, "on purpose");
        begun = true;
        out.extend(b"some bytes");
        Pull::More
    }))
}

#[track_caller]
fn assert_500_and_close(client: &TestClient, request: &[u8]) {
    let mut other = client.connect();
    let mut connection = client.connect();
    let panics = client.stats().panics;
    connection.send(&[get("/path/before"), request.to_vec(), get("/canary")].concat());
    client.run();
    let answers = answers(&mut connection);
    let seen: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(seen, [200, 500], "{}", request.escape_ascii());
    assert!(answers[1].says_close() && connection.is_closed() && !connection.is_reset());
    assert_eq!(client.stats().panics, panics + 1);
    other.send(&get("/"));
    assert_eq!(bodies(&mut other), ["hello"], "other connections live");
    assert_eq!(client.get("/").text(), "hello", "new ones too");
}

#[test]
fn a_panic_in_a_handler_is_500_and_close() {
    let gate = Gate::default();
    gate.open();
    let client = client_with(move |_| panicking(&gate));
    for target in ["/sync", "/any", "/async", "/later", "/direct"] {
        assert_500_and_close(&client, &get(target));
    }
    assert_500_and_close(&client, b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_500_and_close(
        &client,
        b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
}

#[test]
fn a_panic_behind_an_await_is_500_and_close() {
    let gate = Gate::default();
    let client = {
        let gate = gate.clone();
        client_with(move |_| panicking(&gate))
    };
    let mut connection = client.connect();
    connection.send(&[get("/later"), get("/canary")].concat());
    assert_eq!(connection.received(), b"");
    gate.open();
    connection.run();
    assert_eq!(statuses(&mut connection), [500]);
    assert!(connection.is_closed());
    connection.finish();
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_panic_in_a_stream_leaves_an_answer_that_is_not_complete() {
    let client = client_with(|_| panicking(&Gate::default()));
    for target in ["/stream", "/late-stream"] {
        let mut connection = client.connect();
        connection.send(&[get(target), get("/canary")].concat());
        let bytes = connection.received();
        assert!(connection.is_closed() && !has_canary(&bytes), "{target}");
        let complete = answer::read(&bytes, &[], true);
        let is_refusal =
            complete.as_ref().is_ok_and(|answers| answers.iter().all(|answer| answer.status == 500));
        assert!(complete.is_err() || is_refusal, "{target}: {}", bytes.escape_ascii());
    }
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(client.stats().panics, 2);
}

#[test]
fn a_panic_in_a_hook_is_500_and_close() {
    let before = client_with(|_| {
        router().before(|req: &Request| -> Result<(), Error> {
            assert!(req.path() != "/sync", "on purpose");
            Ok(())
        })
    });
    assert_500_and_close(&before, &get("/sync"));
    let after = client_with(|_| {
        router().get("/sync", |_: &Request| "fine").after(|req: &Request, _| {
            assert!(req.path() != "/sync", "on purpose");
        })
    });
    assert_500_and_close(&after, &get("/sync"));
}

#[test]
fn a_panic_does_not_leak_what_was_written_before_it() {
    let client = client_with(|_| panicking(&Gate::default()));
    let mut connection = client.connect();
    connection.send(&get("/direct"));
    let bytes = connection.received();
    assert!(answer::find(&bytes, b"half of a body").is_none());
    assert!(answer::find(&bytes, b"on purpose").is_none(), "the message is nobody's business");
}
