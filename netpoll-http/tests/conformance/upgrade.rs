//! Switching protocols: only on a request that asks for it, and no byte goes on before the 101.

use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol};
use netpoll_http::{Error, Limits, Request, Response, Router, StatusCode, Worker};

use crate::cases::{CANARY, CANARY_BODY};
use crate::fixture::{Gate, client_with, get, router};
use crate::transport::{App, Server, TcpStream, TestClient};

const SWITCH: &str = "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";
const AFTER: Duration = Duration::from_secs(1);

/// Answers every byte in upper case, and never knows a request.
struct Shout;

impl Protocol for Shout {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"<");
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(&input.bytes().to_ascii_uppercase());
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        conn.send(b">");
        Flow::Close
    }
}

fn switch(req: &Request<'_>) -> Response {
    match req.upgrade("shout") {
        Some(upgrade) => upgrade.accept(Shout),
        None => Response::text("not switched"),
    }
}

/// The routes of the table, `/switch`, and `/later`, which switches when the gate is open.
fn switching(gate: &Gate) -> TestClient {
    let gate = gate.clone();
    client_with(move |_| with_switch(router(), gate.clone()))
}

fn with_switch(router: Router, gate: Gate) -> Router {
    router.get("/switch", switch).post("/switch", switch).get("/later", async move |req: Request| {
        gate.pass().await;
        switch(&req)
    })
}

fn starts_with_101(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    assert!(
        head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: shout\r\n"),
        "{head}"
    );
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    &bytes[end..]
}

#[test]
fn bytes_behind_an_accepted_upgrade_go_to_the_next_protocol_wherever_they_are_cut() {
    let request = [SWITCH.as_bytes(), CANARY].concat();
    let shouted = [b"<", CANARY].concat().to_ascii_uppercase();
    let check = |pieces: &[&[u8]]| {
        let client = switching(&Gate::default());
        let mut connection = client.connect();
        pieces.iter().for_each(|piece| connection.send(piece));
        let bytes = connection.received();
        assert_eq!(starts_with_101(&bytes).escape_ascii().to_string(), shouted.escape_ascii().to_string());
        assert!(!connection.is_closed());
    };
    for cut in 1..request.len() {
        check(&[&request[..cut], &request[cut..]]);
    }
    check(&request.chunks(1).collect::<Vec<_>>());
    check(&[&request]);
}

#[test]
fn bytes_behind_an_upgrade_that_is_not_decided_yet_wait_for_the_101() {
    let later = SWITCH.replace("/switch", "/later");
    let request = [later.as_bytes(), CANARY].concat();
    for cut in 1..request.len() {
        let gate = Gate::default();
        let client = switching(&gate);
        let mut connection = client.connect();
        connection.send(&request[..cut]);
        connection.send(&request[cut..]);
        assert_eq!(connection.received(), b"", "neither served nor handed on");
        gate.open();
        client.run();
        let bytes = connection.received();
        assert_eq!(starts_with_101(&bytes), [b"<", CANARY].concat().to_ascii_uppercase());
        connection.send(b"more");
        assert_eq!(connection.received(), b"MORE");
    }
}

#[test]
fn requests_in_front_of_an_upgrade_are_answered_before_it() {
    let client = switching(&Gate::default());
    let mut connection = client.connect();
    connection.send(&[&get("/")[..], &get("/canary"), SWITCH.as_bytes(), b"x"].concat());
    assert_eq!(connection.response().expect("the first").text(), "hello");
    assert_eq!(connection.response().expect("the second").text(), CANARY_BODY);
    assert_eq!(starts_with_101(&connection.received()), b"<X");
}

#[test]
fn a_request_that_may_not_be_upgraded_is_answered_and_what_follows_is_the_next() {
    let get = |lines: &str| format!("GET /switch HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let requests = [
        get("Upgrade: shout\r\n"),
        get("Connection: upgrade\r\n"),
        get("Connection: upgrade\r\nUpgrade: \r\n"),
        get("Connection: upgrade\r\nUpgrade: whisper, shouting, shout/2\r\n"),
        get("Connection: keep-alive\r\nUpgrade: shout\r\n"),
        get("Connection: upgraded\r\nUpgrade: shout\r\n"),
        get("Connection: upgrade\r\nUpgrade_: shout\r\n"),
        get("Connection: upgrade\r\nUpgrade: shout\r\nContent-Length: 2\r\n").replace("GET", "POST") + "hi",
        get("Connection: upgrade\r\nUpgrade: shout\r\nTransfer-Encoding: chunked\r\n").replace("GET", "POST")
            + "2\r\nhi\r\n0\r\n\r\n",
        get("Connection: upgrade\r\nUpgrade: shout\r\n").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for request in requests {
        let joined = [request.as_bytes(), CANARY].concat();
        for cut in 1..joined.len() {
            let client = switching(&Gate::default());
            let mut connection = client.connect();
            connection.send(&joined[..cut]);
            connection.send(&joined[cut..]);
            if request.contains("HTTP/1.0") {
                assert!(connection.received().ends_with(b"not switched") && connection.is_closed());
                continue;
            }
            assert_eq!(connection.response().expect("an answer").text(), "not switched", "{request}");
            assert_eq!(connection.response().expect("the next").text(), CANARY_BODY, "{request}");
        }
    }
}

#[test]
fn a_request_that_also_asks_to_close_or_for_no_body_is_not_upgraded() {
    for request in [SWITCH.replace("Upgrade\r\n", "close, Upgrade\r\n"), SWITCH.replace("GET", "HEAD")] {
        let client = switching(&Gate::default());
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        assert!(connection.received().starts_with(b"HTTP/1.1 200 OK\r\n"), "{request}");
        assert_eq!(connection.is_closed(), request.starts_with("GET"));
    }
}

#[test]
fn the_protocol_is_found_in_any_line_and_any_case() {
    for lines in [
        "connection: UPGRADE\r\nupgrade: SHOUT\r\n",
        "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, Shout\r\n",
        "Connection: x\r\nUpgrade: whisper\r\nConnection: upgrade\r\nUpgrade:\tshout ,\r\n",
    ] {
        let client = switching(&Gate::default());
        let mut connection = client.connect();
        connection.send(format!("GET /switch HTTP/1.1\r\nHost: a\r\n{lines}\r\nx").as_bytes());
        assert_eq!(starts_with_101(&connection.received()), b"<X");
    }
}

#[test]
fn the_end_of_input_of_a_peer_that_asked_and_left_reaches_the_next_protocol() {
    let client = switching(&Gate::default());
    let mut connection = client.connect();
    connection.send(&SWITCH.as_bytes()[..SWITCH.len() - 1]);
    connection.finish();
    assert!(connection.received().is_empty() && connection.is_closed(), "an incomplete head");

    let (gate, mut limits) = (Gate::default(), Limits::default());
    limits.half_close = true;
    let factory_gate = gate.clone();
    let client =
        App::new(move |_: &Worker| with_switch(router(), factory_gate.clone())).limits(limits).test();
    let mut connection = client.connect();
    connection.send(SWITCH.replace("/switch", "/later").as_bytes());
    connection.finish();
    gate.open();
    client.run();
    assert_eq!(starts_with_101(&connection.received()), b"<>");
    assert!(connection.is_closed());
    assert_eq!(client.open(), 0);
}

#[test]
fn a_server_that_is_stopping_does_not_switch() {
    let gate = Gate::default();
    let client = switching(&gate);
    let mut connection = client.connect();
    connection.send(SWITCH.replace("/switch", "/later").as_bytes());
    client.begin_drain(AFTER);
    gate.open();
    client.run();
    assert!(connection.received().starts_with(b"HTTP/1.1 503 "));
    assert!(connection.is_closed());
}

#[test]
fn an_upgrade_cannot_be_used_for_another_request() {
    use std::cell::RefCell;
    thread_local!(static KEPT: RefCell<Option<Response>> = const { RefCell::new(None) });
    let client = client_with(|_| {
        let keep = |req: &Request| {
            let kept = req.upgrade("shout").map(|upgrade| upgrade.accept(Shout));
            KEPT.set(kept);
            "kept"
        };
        let spend = |_: &Request| KEPT.take().ok_or(Error::from(StatusCode::CONFLICT));
        router().get("/switch", keep).get("/spend", spend)
    });
    let mut connection = client.connect();
    connection.send(SWITCH.as_bytes());
    assert_eq!(connection.response().expect("an answer").text(), "kept");
    connection.send(&[&get("/spend")[..], CANARY].concat());
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(connection.response().expect("the canary").text(), CANARY_BODY);
}

#[test]
fn it_works_the_same_over_a_socket() {
    use std::io::{Read, Write};
    let server = Server::bind("127.0.0.1:0").expect("an address").workers(1);
    let running = server.app(|_: &Worker| with_switch(router(), Gate::default())).start().expect("a port");
    let mut stream = TcpStream::connect(running.addr()).expect("a connection");
    stream.write_all(&[SWITCH.as_bytes(), CANARY].concat()).expect("room");
    stream.shutdown(std::net::Shutdown::Write).expect("a connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a clean end");
    assert_eq!(starts_with_101(&bytes), [b"<", CANARY, b">"].concat().to_ascii_uppercase());
    running.stop(AFTER).expect("a clean stop");
}
