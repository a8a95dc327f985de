//! Peers that go away: half of them (FIN) or altogether (RST), at every stage.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use netpoll_http::{Body, BodyBuf, Pull, Request, Response, StatusCode};

use crate::answer;
use crate::fixture::{
    Gate, answers, bodies, client, client_with, gated, gated_limited, get, router, statuses,
};
use crate::run;
use crate::transport::{TcpStream, TestClient};

const REQUESTS: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
];

#[track_caller]
fn assert_unharmed(client: &TestClient) {
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "nothing is left behind");
    assert_eq!(client.stats().panics, 0);
    assert_eq!(client.get("/").text(), "hello", "the server lives");
}

#[test]
fn a_peer_may_reset_behind_every_byte() {
    for request in REQUESTS {
        for at in 0..=request.len() {
            let client = client();
            let mut connection = client.connect();
            connection.send(&request[..at]);
            connection.reset();
            assert_unharmed(&client);
        }
    }
}

#[test]
fn a_peer_that_ends_behind_a_whole_request_gets_its_answer() {
    for request in REQUESTS {
        let client = client();
        let mut connection = client.connect();
        connection.send(request);
        connection.finish();
        assert_eq!(answers(&mut connection).len(), 1);
        assert!(connection.is_closed() && !connection.is_reset());
        assert_unharmed(&client);
    }
}

#[test]
fn a_request_that_ends_early_is_not_handled_and_not_answered_with_success() {
    for request in REQUESTS {
        for at in 0..request.len() {
            let client = client();
            let mut connection = client.connect();
            connection.send(&request[..at]);
            connection.finish();
            let statuses = statuses(&mut connection);
            assert!(statuses.iter().all(|status| !(200..300).contains(status)), "{at}: {statuses:?}");
            assert!(connection.is_closed() && !connection.is_reset(), "cut behind {at} bytes");
            assert_unharmed(&client);
        }
    }
}

#[test]
fn the_handler_of_a_body_that_ends_early_is_not_called() {
    let calls = Arc::new(AtomicUsize::new(0));
    let client = {
        let calls = Arc::clone(&calls);
        client_with(move |_| {
            let calls = Arc::clone(&calls);
            router().post("/count", move |_: &Request| {
                calls.fetch_add(1, Ordering::Relaxed);
                "counted"
            })
        })
    };
    for framing in [
        "Content-Length: 5\r\n\r\nhell",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        let mut connection = client.connect();
        connection.send(format!("POST /count HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes());
        connection.finish();
        assert!(connection.is_closed());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_peer_that_ends_has_left_whoever_it_waited_for() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&[get("/"), get("/gated"), get("/path/3")].concat());
    connection.finish();
    assert_eq!(bodies(&mut connection), ["hello"], "what was answered by then");
    assert!(connection.is_closed());
    assert_eq!(client.stats().abandoned, 1);
    assert_unharmed(&client);
}

#[test]
fn a_peer_that_may_half_close_gets_the_answers_to_all_it_has_sent() {
    let gate = Gate::default();
    let client = gated_limited(&gate, |limits| limits.half_close = true);
    let mut connection = client.connect();
    connection.send(&[get("/"), get("/gated"), get("/path/3")].concat());
    connection.finish();
    assert!(!connection.is_closed(), "an answer is owed");
    gate.open();
    connection.run();
    assert_eq!(bodies(&mut connection), ["hello", "through", "/path/3"]);
    assert!(connection.is_closed() && !connection.is_reset());
    assert_unharmed(&client);
}

#[test]
fn the_end_may_come_in_the_same_packet_as_the_request() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&[get("/path/1"), get("/path/2"), b"GET /pa".to_vec()].concat());
    connection.finish();
    assert_eq!(bodies(&mut connection), ["/path/1", "/path/2"]);
    assert!(connection.is_closed());
    assert_unharmed(&client);
}

#[test]
fn a_peer_that_ends_and_reads_late_gets_a_large_answer_whole() {
    let client = client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 1 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large").repeat(3));
    connection.finish();
    connection.start_reading();
    let lengths: Vec<usize> = answers(&mut connection).iter().map(|answer| answer.body.len()).collect();
    assert_eq!(lengths, [1 << 20; 3]);
    assert!(connection.is_closed() && !connection.is_reset());
    assert_unharmed(&client);
}

#[test]
fn a_peer_may_reset_while_its_handler_waits() {
    let gate = Gate::default();
    let client = gated(&gate);
    let mut connection = client.connect();
    connection.send(&[get("/gated"), get("/")].concat());
    connection.reset();
    assert_unharmed(&client);
    gate.open();
    client.run();
    assert_unharmed(&client);
}

#[test]
fn a_handler_whose_peer_is_gone_is_dropped() {
    let held = Arc::new(());
    let client = {
        let held = Arc::clone(&held);
        client_with(move |_| {
            let held = Arc::clone(&held);
            router().get("/held", async move |_: Request| {
                let _mine = Arc::clone(&held);
                std::future::pending::<&'static str>().await
            })
        })
    };
    let idle = Arc::strong_count(&held);
    let mut connection = client.connect();
    connection.send(&get("/held"));
    assert_eq!(Arc::strong_count(&held), idle + 1);
    connection.reset();
    assert_eq!(Arc::strong_count(&held), idle);
    assert_unharmed(&client);
}

#[test]
fn a_peer_may_reset_while_answers_wait_for_it() {
    let client = client_with(|_| router().get("/large", |_: &Request| vec![b'x'; 1 << 20]));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/large").repeat(10));
    connection.reset();
    assert_unharmed(&client);
}

#[test]
fn a_peer_may_reset_or_end_while_a_stream_runs() {
    let endless = |_: &Request| {
        Response::new(StatusCode::OK).body(Body::stream(|_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
            out.extend(&[b'x'; 1000]);
            Pull::More
        }))
    };
    let client = client_with(move |_| router().get("/endless", endless));
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&get("/endless"));
    connection.finish();
    assert!(!connection.is_closed(), "a peer that has ended still gets its answer");
    connection.reset();
    assert_unharmed(&client);
}

#[test]
fn a_peer_may_reset_while_its_refusal_lingers() {
    let client = client();
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/2.0\r\n\r\n");
    connection.reset();
    assert_unharmed(&client);
}

#[test]
fn a_peer_may_end_without_a_word() {
    let client = client();
    let mut connection = client.connect();
    connection.finish();
    assert_eq!(connection.received(), b"");
    assert!(connection.is_closed() && !connection.is_reset());
    assert_unharmed(&client);
}

#[test]
fn a_half_closed_socket_gets_its_answers() {
    let mut socket = TcpStream::connect(run::addr()).expect("the server listens");
    let body = "x".repeat(200_000);
    let post = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket
        .write_all(&[get("/path/1"), post.into_bytes(), get("/path/3")].concat())
        .expect("an open connection");
    socket.shutdown(Shutdown::Write).expect("an open connection");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("an orderly end");
    let answers = answer::read(&bytes, &[], true).expect("well-formed answers");
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.body.len()).collect();
    assert_eq!(lengths, [7, 200_000, 7]);
}

#[test]
fn sockets_that_break_at_any_stage_do_not_harm_the_server() {
    for request in REQUESTS {
        for at in 0..=request.len() {
            let mut socket = TcpStream::connect(run::addr()).expect("the server listens");
            // Two answers, of which one byte is read: the kernel resets a socket that is dropped like that.
            socket.write_all(&[&get("/").repeat(2), &request[..at]].concat()).expect("an open connection");
            socket.read_exact(&mut [0]).expect("an answer");
        }
    }
    let mut socket = TcpStream::connect(run::addr()).expect("the server listens");
    socket.write_all(&get("/")).expect("an open connection");
    socket.read_exact(&mut [0]).expect("the server lives");
}
