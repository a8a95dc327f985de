//! Input that never ends is refused after a bounded number of bytes.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use netpoll_core::ConnLimits;
use netpoll_http::{Limits, Worker};

use crate::fixture::{bodies, client, client_limited, get, router, statuses};
use crate::transport::{Server, TcpStream};

const PIECE_BYTES: usize = 1000;

/// Sends `piece` for ever behind `start`; it has to be refused with `status` within `bytes_max` bytes.
#[track_caller]
fn refused_within(bytes_max: usize, start: &str, piece: &str, status: u16) {
    let client = client();
    let mut connection = client.connect();
    connection.send(start.as_bytes());
    let piece = piece.repeat(PIECE_BYTES.div_ceil(piece.len()));
    let mut sent = 0;
    while !connection.is_closed() {
        assert!(sent <= bytes_max, "{sent} bytes were taken");
        assert!(client.blocks_in_use() <= 2, "and no more than that is kept");
        connection.send(piece.as_bytes());
        sent += piece.len();
    }
    assert_eq!(statuses(&mut connection), [status]);
    connection.finish();
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn an_endless_method_is_refused() {
    refused_within(PIECE_BYTES, "", "GET", 501);
}

#[test]
fn an_endless_target_is_refused() {
    refused_within(8192 + PIECE_BYTES, "GET /", "a", 414);
}

#[test]
fn endless_empty_lines_are_refused() {
    refused_within(PIECE_BYTES, "", "\r\n", 400);
}

#[test]
fn an_endless_header_name_is_refused() {
    refused_within(16_384 + PIECE_BYTES, "GET / HTTP/1.1\r\n", "X", 431);
}

#[test]
fn an_endless_header_value_is_refused() {
    refused_within(16_384 + PIECE_BYTES, "GET / HTTP/1.1\r\nHost: ", "a", 431);
    refused_within(16_384 + PIECE_BYTES, "GET / HTTP/1.1\r\nHost: a\r\nX:", " ", 431);
}

#[test]
fn endless_headers_are_refused() {
    refused_within(PIECE_BYTES, "GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n", 431);
    refused_within(
        16_384 + PIECE_BYTES,
        "GET / HTTP/1.1\r\nHost: a\r\n",
        &format!("X: {}\r\n", "y".repeat(990)),
        431,
    );
}

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn an_endless_chunk_size_is_refused() {
    refused_within(PIECE_BYTES, CHUNKED, "0", 400);
}

#[test]
fn an_endless_chunk_extension_is_refused() {
    refused_within(4096 + PIECE_BYTES, &format!("{CHUNKED}2;"), "e", 400);
    refused_within(4096 + PIECE_BYTES, &format!("{CHUNKED}2"), " ", 400);
}

#[test]
fn an_endless_trailer_section_is_refused() {
    refused_within(4096 + PIECE_BYTES, &format!("{CHUNKED}0\r\n"), "X: y\r\n", 431);
    refused_within(4096 + PIECE_BYTES, &format!("{CHUNKED}0\r\nX: "), "y", 431);
}

#[test]
fn an_endless_body_is_refused() {
    refused_within((1 << 20) / 100 * 101, CHUNKED, &format!("3e8\r\n{}\r\n", "x".repeat(1000)), 413);
}

#[test]
fn endless_tiny_chunks_are_refused() {
    refused_within(130 * 1024, CHUNKED, "1\r\nx\r\n", 400);
}

#[test]
fn a_length_over_the_limit_is_refused_before_any_of_the_body_is_read() {
    let client = client();
    let mut connection = client.connect();
    connection
        .send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(statuses(&mut connection), [413]);
    assert!(connection.is_closed());
}

#[test]
fn a_body_of_the_limit_is_served() {
    let body = "x".repeat(1 << 20);
    let client = client();
    let mut connection = client.connect();
    connection.send(
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
    );
    connection.send(&get("/"));
    assert_eq!(bodies(&mut connection), [&body, "hello"]);
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn the_limits_can_be_set() {
    let client = client_limited(|limits: &mut Limits| {
        limits.head_bytes_max = 200;
        limits.headers_max = 3;
        limits.target_bytes_max = 20;
        limits.body_bytes_max = 5;
    });
    let send = |request: &str| {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        statuses(&mut connection)
    };
    assert_eq!(send("GET /path/789012345678901 HTTP/1.1\r\nHost: a\r\n\r\n"), [414]);
    assert_eq!(send("GET /path/78901234567890 HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
    assert_eq!(send("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"), [431]);
    assert_eq!(send("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n"), [200]);
    assert_eq!(send(&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(200))), [431]);
    assert_eq!(send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"), [413]);
    assert_eq!(send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), [200]);
}

#[test]
fn a_thousand_partial_heads_are_all_let_go() {
    let client = client();
    let mut connections: Vec<_> = (0..1000).map(|_| client.connect()).collect();
    for connection in &mut connections {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: y");
    }
    assert_eq!(client.open(), 1000);
    assert!(client.blocks_in_use() <= 1000, "a partial head is one block");
    client.advance(Duration::from_secs(13));
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
    assert!(connections.iter_mut().all(|connection| statuses(connection) == [408]));
}

#[test]
fn a_connection_over_the_limit_is_closed_and_the_others_live() {
    let limits = ConnLimits::default().connections_max(1);
    let server = Server::bind("127.0.0.1:0").expect("an address").workers(1);
    let server = server.runtime(|builder| builder.limits(limits));
    let running = server.app(|_: &Worker| router()).start().expect("a free port");
    let mut answer = [0; 12];

    let mut first = TcpStream::connect(running.addr()).expect("the server listens");
    first.write_all(&get("/")).expect("an open connection");
    first.read_exact(&mut answer).expect("an answer");
    // Behind TLS whoever connects has something to say, and may hear of the end before it has.
    let second = TcpStream::connect(running.addr()).and_then(|mut second| second.read(&mut answer));
    let ended = match second {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(ended, "closed without an answer");

    first.write_all(&get("/")).expect("still open");
    first.read_exact(&mut answer).expect("still served");
    drop(first);
    running.stop(Duration::from_secs(5)).expect("the worker lives");
}
