//! What a WebSocket promises its handler and its peer.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::{Commands, ConnId, Lost};
use netpoll_http::websocket::{
    CloseCode, Closed, Frame, Handler, Message, Opening, Settings, Violation, WebSocket,
};
use netpoll_http::{App, Request, Response, Router, StatusCode, TestClient, TestConnection};

use crate::ws_bytes::{HANDSHAKE, close, frame, frames, text};

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static MEMBERS: RefCell<Vec<ConnId>> = const { RefCell::new(Vec::new()) };
}

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn logged() -> Vec<String> {
    LOG.take()
}

/// Writes down what it is told, and does what a text says.
struct Told;

impl Handler for Told {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        log("opened");
        MEMBERS.with_borrow_mut(|members| members.push(socket.id()));
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => {
                log(format!("{} bytes", bytes.len()));
                return socket.binary(bytes);
            }
        };
        log(text.chars().take(20).collect::<String>());
        match text {
            "bye" => {
                socket.text("so be it");
                socket.close(CloseCode::NORMAL, "as told");
                socket.text("nobody hears this");
                socket.send(&Frame::text("nor this"));
            }
            "pause" => socket.pause(),
            "ping" => socket.ping(b"there?"),
            "panic" => panic!("as told"),
            "all" => {
                let frame = Frame::text("to all ".repeat(200));
                for member in MEMBERS.with_borrow(Vec::clone) {
                    socket.commands().tell(member, frame.clone());
                }
            }
            "raw" => {
                let id = socket.id();
                socket.commands().send(id, vec![7; 200].into());
                socket.commands().tell(id, 8_u8);
            }
            "evict" => {
                let id = socket.id();
                socket.commands().close(id);
            }
            "resume others" => {
                for member in MEMBERS.with_borrow(Vec::clone) {
                    socket.commands().wake(member);
                }
            }
            text => socket.text(text),
        }
    }

    fn pong(&mut self, _socket: &mut WebSocket<'_, '_>, payload: &[u8]) {
        log(format!("pong {}", payload.escape_ascii()));
    }

    fn told(&mut self, _socket: &mut WebSocket<'_, '_>, value: netpoll_core::Message) {
        log(format!("told {:?}", value.downcast_ref::<u8>()));
    }

    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        socket.resume();
    }

    fn closed(&mut self, how: Closed, _commands: &mut Commands) {
        log(format!("{how:?}"));
    }
}

fn client_with(settings: Settings) -> TestClient {
    MEMBERS.take();
    LOG.take();
    let open = move |req: &Request| Opening::of(req)?.settings(settings).accept(Told);
    App::new(move |_| Router::new().get("/", open).get("/plain", |_: &Request| "plain")).test()
}

fn client() -> TestClient {
    client_with(Settings::default())
}

fn open_with(client: &TestClient, fields: &str) -> TestConnection {
    let mut connection = client.connect();
    connection.send(format!("{HANDSHAKE}{fields}\r\n").as_bytes());
    let answer = connection.response().expect("a 101");
    assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS, "{}", answer.text());
    connection
}

fn open(client: &TestClient) -> TestConnection {
    open_with(client, "")
}

/// What a server's Close says.
fn goodbye(bytes: &[u8]) -> (u16, String) {
    let frames = frames(bytes);
    let [(0x88, payload)] = &frames[..] else { panic!("{frames:x?}") };
    (u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8(payload[2..].to_vec()).expect("text"))
}

#[test]
fn messages_of_any_size_and_in_any_pieces_come_whole_and_in_order() {
    let client = client();
    let mut connection = open(&client);
    for len in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        connection.send(&frame(0x82, &payload));
        assert_eq!(frames(&connection.received()), [(0x82, payload)]);
    }
    // By single bytes, in fragments, with a ping among them.
    let parts =
        [frame(0x01, b"a"), frame(0x89, b"now"), frame(0x00, b""), frame(0x80, "ö".as_bytes())].concat();
    for byte in &parts {
        connection.send(&[*byte]);
    }
    assert_eq!(frames(&connection.received()), [(0x8a, b"now".to_vec()), (0x81, "aö".into())]);
    // Many at once, behind each other.
    connection.send(&(0..500).flat_map(|nth| text(&nth.to_string())).collect::<Vec<_>>());
    let echoes: Vec<_> = (0..500).map(|nth| (0x81, nth.to_string().into_bytes())).collect();
    assert_eq!(frames(&connection.received()), echoes);
    assert_eq!(client.blocks_in_use(), 0, "nothing is kept between messages");
}

#[test]
fn what_comes_in_one_piece_with_the_handshake_is_the_first_message() {
    let client = client();
    let mut connection = client.connect();
    connection.send(&[format!("{HANDSHAKE}\r\n").as_bytes(), &text("early")].concat());
    assert_eq!(connection.response().expect("a 101").status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(frames(&connection.received()), [(0x81, b"early".to_vec())]);
}

#[test]
fn a_request_that_opens_none_is_told_what_is_wrong_and_the_connection_goes_on() {
    let client = client();
    let mut connection = client.connect();
    let asked = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let good = &HANDSHAKE["GET / HTTP/1.1\r\nHost: a\r\n".len()..];
    for (request, status) in [
        (asked(""), 426),
        (asked(&good.replace("13", "8")), 426),
        (asked(&good.replace("keep-alive, Upgrade", "keep-alive")), 426),
        (asked(&good.replace("dGhl", "dGh")), 400),
        (asked(&format!("{good}Content-Length: 1\r\n")) + "x", 400),
        (asked(&format!("{good}Sec-WebSocket-Protocol: a, a\r\n")), 400),
        (asked(good).replace("GET", "HEAD"), 405),
    ] {
        connection.send(request.as_bytes());
        let got = connection.received();
        let head = String::from_utf8_lossy(&got);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{head}");
        let lower = head.to_ascii_lowercase();
        assert_eq!(lower.contains("sec-websocket-version: 13"), status == 426, "{head}");
        assert_eq!(
            lower.contains("upgrade: websocket") && lower.contains("connection: upgrade"),
            status == 426
        );
    }
    connection.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("an answer").text(), "plain");
    assert!(logged().is_empty());
}

#[test]
fn who_asks_for_the_end_of_the_connection_opens_none() {
    let client = client();
    let answer = client.raw(
        HANDSHAKE
            .replace("keep-alive", "close")
            .as_bytes()
            .iter()
            .chain(b"\r\n")
            .copied()
            .collect::<Vec<_>>()
            .as_slice(),
    );
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
}

#[test]
fn a_subprotocol_is_agreed_on_by_the_clients_liking_and_an_origin_can_be_declined() {
    let open = |req: &Request| {
        let mut opening = Opening::of(req)?;
        if opening.origin() == Some(b"https://evil.example") {
            return Ok(Response::text("no").status(StatusCode::FORBIDDEN));
        }
        let chosen = opening.choose(&["v1", "v2"]);
        assert_eq!(chosen, opening.protocols().first().copied().filter(|first| *first != "v9"));
        opening.accept(Told)
    };
    let client = App::new(move |_| Router::new().get("/", open)).test();
    for (offered, chosen) in [("v2, v1", Some("v2")), ("v1", Some("v1")), ("v9", None)] {
        let mut connection = client.connect();
        connection.send(format!("{HANDSHAKE}Sec-WebSocket-Protocol: {offered}\r\n\r\n").as_bytes());
        let answer = connection.response().expect("a 101");
        assert_eq!(answer.header("sec-websocket-protocol"), chosen);
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
    let mut connection = client.connect();
    connection.send(format!("{HANDSHAKE}Origin: https://evil.example\r\n\r\n").as_bytes());
    assert_eq!(connection.response().expect("an answer").status, StatusCode::FORBIDDEN);
}

#[test]
fn the_peers_goodbye_is_answered_with_its_code_and_we_close_first() {
    let client = client();
    for (sent, answered, how) in [
        (close(1001, "left"), Some(1001), "ByPeer { code: Some(CloseCode(1001)), reason: \"left\" }"),
        (close(4321, ""), Some(4321), "ByPeer { code: Some(CloseCode(4321)), reason: \"\" }"),
        (frame(0x88, b""), None, "ByPeer { code: None, reason: \"\" }"),
    ] {
        let mut connection = open(&client);
        logged();
        // What it says behind it is for nobody.
        connection.send(&[text("hi"), sent, text("ghost")].concat());
        let all = frames(&connection.received());
        let payload = answered.map_or(vec![], |code: u16| code.to_be_bytes().to_vec());
        assert_eq!(all, [(0x81, b"hi".to_vec()), (0x88, payload)]);
        assert!(connection.is_closed() && !connection.is_reset());
        connection.close();
        client.run();
        assert_eq!(logged(), ["hi".to_owned(), how.to_owned()]);
    }
}

#[test]
fn behind_our_goodbye_nothing_leaves_and_the_peers_answer_is_waited_for() {
    let client = client();
    let mut connection = open(&client);
    connection.send(&[text("bye"), text("ghost"), frame(0x89, b"ghost")].concat());
    let all = frames(&connection.received());
    assert_eq!(all, [(0x81, b"so be it".to_vec()), (0x88, b"\x03\xe8as told".to_vec())]);
    assert!(!connection.is_closed(), "it may have something to say");
    connection.send(&close(1000, ""));
    assert!(connection.is_closed() && connection.received().is_empty());
    connection.close();
    client.run();
    assert_eq!(logged(), ["opened", "bye", "ByUs { code: CloseCode(1000), is_answered: true }"]);
}

#[test]
fn a_peer_that_does_not_answer_our_goodbye_is_waited_for_no_longer_than_was_set() {
    let client = client_with(Settings { close_within: Duration::from_secs(3), ..Settings::default() });
    let mut connection = open(&client);
    connection.send(&text("bye"));
    connection.received();
    connection.advance(Duration::from_millis(2900));
    assert!(!connection.is_closed());
    connection.advance(Duration::from_millis(200));
    assert!(connection.is_closed());
    connection.close();
    client.run();
    assert_eq!(logged()[2], "ByUs { code: CloseCode(1000), is_answered: false }");
}

#[test]
fn a_peer_that_breaks_a_rule_is_told_which_and_nothing_of_it_is_looked_at() {
    for (bytes, code) in [
        (b"\x81\x02hi".to_vec(), 1002),
        (frame(0x83, b""), 1002),
        (frame(0xc1, b"compressed"), 1002),
        (frame(0x80, b"no message"), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x88, b"\x03"), 1002),
        (close(1005, ""), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        ([&[0x82, 0xff][..], &(2_u64 << 20).to_be_bytes(), &[0; 4]].concat(), 1009),
    ] {
        let client = client();
        let mut connection = open(&client);
        connection.send(&[&text("hi")[..], &bytes, &text("ghost")].concat());
        let mut got = connection.received();
        let behind = got.split_off(4);
        assert_eq!(frames(&got), [(0x81, b"hi".to_vec())]);
        let (said, reason) = goodbye(&behind);
        assert_eq!(said, code, "{reason}");
        assert!(connection.is_closed());
        connection.close();
        client.run();
        let log = logged();
        assert_eq!(log[..2], ["opened", "hi"]);
        let violation =
            Violation::ALL.iter().find(|violation| violation.reason() == reason).expect("one of them");
        assert_eq!(log[2..], [format!("Failed({violation:?})")]);
    }
}

#[test]
fn the_limits_of_a_message_are_those_that_were_set_and_fragments_count() {
    let settings = Settings { message_bytes_max: 10, fragments_max: 3, ..Settings::default() };
    let many = [frame(0x01, b""), frame(0, b""), frame(0, b""), frame(0, b"")].concat();
    for (bytes, violation) in [
        (text("0123456789a"), Violation::MessageTooLarge),
        ([frame(0x01, b"012345"), frame(0x80, b"67890")].concat(), Violation::MessageTooLarge),
        (many, Violation::TooManyFragments),
    ] {
        let client = client_with(settings);
        let mut connection = open(&client);
        connection.send(&text("0123456789"));
        connection.received();
        connection.send(&bytes);
        assert_eq!(goodbye(&connection.received()), (1009, violation.reason().to_owned()));
    }
}

#[test]
fn a_silent_peer_is_asked_and_then_reset_and_whatever_it_says_is_a_sign_of_life() {
    let client = client();
    let Settings { ping_after, pong_within, .. } = Settings::default();
    let mut connection = open(&client);
    connection.advance(ping_after - Duration::from_millis(10));
    assert!(connection.received().is_empty());
    connection.send(&text("here"));
    connection.received();
    connection.advance(ping_after - Duration::from_millis(10));
    assert!(connection.received().is_empty(), "its time began anew");
    connection.advance(Duration::from_millis(20));
    assert_eq!(frames(&connection.received()), [(0x89, vec![])]);
    connection.send(&frame(0x8a, b""));
    connection.advance(ping_after + Duration::from_millis(10));
    assert_eq!(frames(&connection.received()), [(0x89, vec![])]);
    connection.advance(pong_within + Duration::from_millis(10));
    assert!(connection.is_reset());
    assert_eq!(logged(), ["opened", "here", "pong ", "Silent"]);
}

#[test]
fn without_a_heartbeat_nobody_is_asked() {
    let client = client_with(Settings { ping_after: Duration::ZERO, ..Settings::default() });
    let mut connection = open(&client);
    connection.advance(Duration::from_secs(10_000));
    assert!(connection.received().is_empty() && !connection.is_closed());
}

#[test]
fn of_many_pings_in_a_row_the_last_is_answered_and_pings_of_ours_come_back() {
    let client = client();
    let mut connection = open(&client);
    connection.send(&(0..9).flat_map(|nth| frame(0x89, &[b'0' + nth])).collect::<Vec<_>>());
    assert_eq!(frames(&connection.received()), [(0x8a, b"8".to_vec())]);
    connection.send(&text("ping"));
    assert_eq!(frames(&connection.received()), [(0x89, b"there?".to_vec())]);
    connection.send(&frame(0x8a, b"there?"));
    assert_eq!(logged(), ["opened", "ping", "pong there?"]);
}

#[test]
fn who_has_paused_gets_the_rest_when_it_goes_on() {
    let client = client();
    let mut connection = open(&client);
    connection.send(&[text("pause"), text("one"), frame(0x89, b"?")].concat());
    assert!(connection.received().is_empty());
    connection.advance(Duration::from_secs(200));
    assert!(!connection.is_closed(), "who is not read from cannot answer");
    connection.received();
    let mut other = open(&client);
    other.send(&text("resume others"));
    assert_eq!(frames(&connection.received()), [(0x81, b"one".to_vec()), (0x8a, b"?".to_vec())]);
}

#[test]
fn a_frame_goes_to_all_and_what_others_send_is_framed() {
    let client = client();
    let mut all: Vec<_> = (0..3).map(|_| open(&client)).collect();
    all[0].send(&text("all"));
    client.run();
    for connection in &mut all {
        assert_eq!(frames(&connection.received()), [(0x81, b"to all ".repeat(200))]);
    }
    all[1].send(&text("raw"));
    assert_eq!(frames(&all[1].received()), [(0x82, vec![7; 200])]);
    assert_eq!(logged().last().map(String::as_str), Some("told Some(8)"));
    // Who has said goodbye hears nothing any more.
    all[2].send(&text("bye"));
    all[2].received();
    all[0].send(&text("all"));
    client.run();
    assert!(all[2].received().is_empty());
}

#[test]
fn what_is_agreed_to_be_compressed_is_where_it_becomes_shorter_and_a_bomb_is_refused() {
    let client =
        client_with(Settings { compression: true, message_bytes_max: 100_000, ..Settings::default() });
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut connection = client.connect();
    connection.send(format!("{HANDSHAKE}{offer}\r\n").as_bytes());
    let answer = connection.response().expect("a 101");
    let agreed = answer.header("sec-websocket-extensions").expect("agreed on");
    assert!(agreed.contains("server_no_context_takeover") && agreed.contains("client_no_context_takeover"));
    let mut plain = open(&client);

    plain.send(&text("all"));
    client.run();
    assert_eq!(frames(&plain.received()), [(0x81, b"to all ".repeat(200))]);
    let got = frames(&connection.received());
    let [(0xc1, deflated)] = &got[..] else { panic!("{got:x?}") };
    assert!(deflated.len() < 100);
    // Back to whoever has made it: it comes out as it went in.
    connection.send(&frame(0xc2, deflated));
    assert_eq!(frames(&connection.received()), [(0xc2, deflated.clone())]);
    assert_eq!(logged().last().map(String::as_str), Some("1400 bytes"));
    connection.send(&text("short"));
    assert_eq!(frames(&connection.received()), [(0x81, b"short".to_vec())]);
    // Two hundred kilobytes of zeros, in stored and fixed blocks of 258 each.
    let bomb = deflated_zeros(200_000);
    assert!(bomb.len() < 2000);
    connection.send(&frame(0xc2, &bomb));
    assert_eq!(goodbye(&connection.received()), (1009, Violation::MessageTooLarge.reason().to_owned()));
}

#[test]
fn messages_that_are_long_when_they_are_inflated_take_as_many_turns_as_long_ones() {
    let client = client_with(Settings { compression: true, ..Settings::default() });
    let mut connection = open_with(&client, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let bomb = deflated_zeros(1_000_000);
    connection.put(&frame(0xc2, &bomb).repeat(10));
    logged();
    let mut came = 0;
    for turn in 0..100 {
        client.turn();
        let now = logged().iter().filter(|line| line.ends_with(" bytes")).count();
        assert!(now <= 2, "{now} in turn {turn}");
        came += now;
    }
    assert_eq!(came, 10);
    // Those that stay short are messages like any others.
    connection.put(&frame(0xc2, &deflated_zeros(100)).repeat(50));
    while logged().is_empty() {
        client.turn();
    }
    assert_eq!(frames(&connection.received()).len(), 10 + 50);
}

#[test]
fn who_wants_a_smaller_window_than_ours_is_sent_messages_as_they_are_and_may_compress_its_own() {
    let client = client_with(Settings { compression: true, ..Settings::default() });
    let fields = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let mut connection = open_with(&client, fields);
    connection.send(&text(&"a".repeat(2000)));
    assert_eq!(frames(&connection.received()), [(0x81, b"a".repeat(2000))]);
    connection.send(&frame(0xc2, &deflated_zeros(2580)));
    assert_eq!(frames(&connection.received()), [(0x82, vec![0; 2581])]);
}

/// Zeros by a fixed block of DEFLATE: a literal, and copies of 258 bytes from one byte back.
fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u64, 0);
    let mut put = |value: u64, width: u32| {
        bits |= value << count;
        count += width;
        while count >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    put(0b010, 3);
    // The literal 0 is 0011_0000, from its highest bit on.
    put(0b0000_1100, 8);
    for _ in 0..bytes / 258 {
        // Length 285 is 1100_0101, distance 0 five zeros.
        put(0b1010_0011, 8);
        put(0, 5);
    }
    // The end of the block, and an empty stored one whose lengths are left out.
    put(0, 7);
    put(0b000, 3);
    put(0, 7);
    out
}

#[test]
fn in_a_drain_each_is_told_to_come_back_at_a_moment_of_its_own() {
    let client = client();
    let mut all: Vec<_> = (0..20).map(|_| open(&client)).collect();
    logged();
    client.begin_drain(Duration::from_secs(10));
    let mut told_at = Vec::new();
    let mut retries = Vec::new();
    for step in 0..200 {
        client.advance(Duration::from_millis(50));
        for connection in &mut all {
            let got = connection.received();
            if !got.is_empty() {
                let (code, reason) = goodbye(&got);
                let retry: u64 = reason.strip_prefix("retry=").expect("when").parse().expect("a number");
                assert!(code == 1012 && retry < 10_000, "{code} {reason}");
                told_at.push(step);
                retries.push(retry);
                connection.send(&close(1012, ""));
                assert!(connection.is_closed());
                connection.close();
            }
        }
    }
    assert_eq!(told_at.len(), all.len());
    told_at.dedup();
    retries.sort_unstable();
    retries.dedup();
    assert!(told_at.len() > 5 && retries.len() > 15, "{told_at:?} {retries:?}");
    assert_eq!(client.open(), 0);
    assert!(logged().iter().all(|line| line == "ByUs { code: CloseCode(1012), is_answered: true }"));
}

#[test]
fn who_is_closed_by_others_says_goodbye_and_who_leaves_or_panics_is_told_of() {
    let client = client();
    let mut evicted = open(&client);
    evicted.send(&text("evict"));
    assert_eq!(goodbye(&evicted.received()), (1001, String::new()));
    evicted.close();
    let mut leaves = open(&client);
    leaves.send(&frame(0x01, b"half a mess"));
    leaves.close();
    let mut panics = open(&client);
    panics.send(&text("panic"));
    assert!(panics.is_reset());
    client.run();
    let ends: Vec<_> = logged().into_iter().filter(|line| line.contains('(') || line.contains('{')).collect();
    assert_eq!(ends[0], "ByUs { code: CloseCode(1001), is_answered: false }");
    assert_eq!(ends[1..], [format!("Lost({:?})", Lost::Closed), format!("Lost({:?})", Lost::Panicked)]);
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn who_answers_a_ping_at_once_is_alive() {
    let client = client();
    let Settings { ping_after, pong_within, .. } = Settings::default();
    let mut connection = open(&client);
    for _ in 0..3 {
        // Until the very moment of the ping, so that its answer is as old as the ping.
        for _ in 0..=ping_after.as_millis() {
            connection.advance(Duration::from_millis(1));
            let got = connection.received();
            if !got.is_empty() {
                assert_eq!(frames(&got), [(0x89, vec![])]);
                connection.send(&frame(0x8a, b""));
                break;
            }
        }
        assert_eq!(logged().last().map(String::as_str), Some("pong "));
        connection.advance(pong_within + Duration::from_millis(2));
        assert!(!connection.is_closed(), "{:?}", logged());
        assert!(connection.received().is_empty());
    }
}

#[test]
fn a_ping_that_waits_behind_a_long_answer_is_not_held_against_its_reader() {
    MEMBERS.take();
    LOG.take();
    let settings = Settings {
        ping_after: Duration::from_secs(1),
        pong_within: Duration::from_secs(2),
        ..Settings::default()
    };
    let open_one = move |req: &Request| Opening::of(req)?.settings(settings).accept(Told);
    let options =
        Options::default().latency(Duration::from_millis(100)..=Duration::from_millis(100)).window(1000);
    let client = App::new(move |_| Router::new().get("/", open_one)).test_with(options);
    let mut connection = open(&client);
    let long = vec![7; 100_000];
    connection.send(&frame(0x82, &long));
    let mut came = Vec::new();
    for _ in 0..1000 {
        came.extend(connection.received());
        if came.len() >= long.len() + 12 {
            break;
        }
        connection.advance(Duration::from_millis(50));
    }
    assert!(!connection.is_closed(), "{:?}", logged());
    assert_eq!(frames(&came), [(0x82, long), (0x89, vec![])]);
    connection.advance(Duration::from_secs(5));
    assert_eq!(logged().last().map(String::as_str), Some("Silent"), "now it has had it");
}

#[test]
fn a_ping_in_front_of_the_peers_goodbye_is_answered_in_front_of_ours() {
    let client = client();
    let mut connection = open(&client);
    connection.send(&[frame(0x89, b"?"), close(1000, "")].concat());
    assert_eq!(frames(&connection.received()), [(0x8a, b"?".to_vec()), (0x88, b"\x03\xe8".to_vec())]);
}

#[test]
fn a_member_that_does_not_read_is_reset_when_more_than_the_limit_is_queued_for_it() {
    MEMBERS.take();
    LOG.take();
    let mut options = Options::default();
    options.limits.output_bytes_max = 100_000;
    let client = App::new(|_| Router::new().websocket("/", |_: &Request| Told)).test_with(options);
    let mut slow = open(&client);
    slow.stop_reading();
    slow.set_window(1000);
    let mut other = open(&client);
    for _ in 0..1000 {
        other.send(&text("all"));
        other.received();
    }
    assert!(slow.is_reset());
    assert_eq!(client.stats().output_overflows, 1);
    assert!(logged().contains(&"Lost(OutputOverflow)".to_owned()));
    assert!(!other.is_closed());
}

#[test]
fn who_does_not_read_its_answers_is_asked_no_more_behind_high_water() {
    let client = App::new(|_| Router::new().websocket("/", |_: &Request| Generous)).test();
    let mut connection = open(&client);
    connection.stop_reading();
    connection.set_window(1000);
    connection.send(&text("more").repeat(50));
    assert_eq!(CALLS.get(), 3, "each is a hundred kilobytes, and high water 256 KiB");
    connection.set_window(1 << 20);
    connection.start_reading();
    client.run();
    assert_eq!(CALLS.get(), 50);
    assert_eq!(frames(&connection.received()).len(), 50);
}

#[test]
fn who_has_been_told_goodbye_has_no_more_than_its_grace_when_a_drain_begins() {
    let client = client_with(Settings { close_within: Duration::from_secs(60), ..Settings::default() });
    let mut connection = open(&client);
    connection.send(&text("bye"));
    connection.received();
    client.begin_drain(Duration::from_secs(8));
    connection.advance(Duration::from_secs(2));
    assert!(connection.is_closed() && !connection.is_reset());
    connection.advance(Duration::from_secs(8));
    assert_eq!(logged()[2], "ByUs { code: CloseCode(1000), is_answered: false }");
}

#[test]
fn halves_of_messages_come_to_no_more_than_the_memory_of_the_worker_and_whoever_is_refused_is_told() {
    MEMBERS.take();
    LOG.take();
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(1 << 20);
    let client = App::new(|_| Router::new().websocket("/", |_: &Request| Told)).test_with(options);
    for _ in 0..3 {
        let mut all: Vec<_> = (0..20).map(|_| open(&client)).collect();
        let message = frame(0x82, &[7; 200_000]);
        let (half, rest) = message.split_at(90_000);
        for connection in &mut all {
            connection.send(half);
        }
        let refused = all.iter_mut().map(TestConnection::received).filter(|got| !got.is_empty());
        let refused: Vec<_> = refused.map(|got| goodbye(&got)).collect();
        assert!((10..18).contains(&refused.len()), "{} of 20 are refused", refused.len());
        assert!(refused.iter().all(|(code, _)| *code == CloseCode::TRY_AGAIN.get()), "{refused:?}");
        assert!(!all[0].is_closed(), "who was there first stays");
        all.truncate(1);
        client.run();
        all[0].send(rest);
        assert_eq!(frames(&all[0].received()), [(0x82, vec![7; 200_000])]);
        all[0].close();
        client.run();
        assert_eq!(client.open(), 0);
    }
}

/// Does one thing in one callback, and writes down what it is told.
struct Once(&'static str, fn(&mut WebSocket<'_, '_>));

impl Once {
    fn at(&self, place: &str, socket: &mut WebSocket<'_, '_>) {
        log(place);
        if self.0 == place {
            (self.1)(socket);
        }
    }
}

impl Handler for Once {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.at("opened", socket);
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        match message {
            Message::Text("wake") => socket.conn().waker().wake_by_ref(),
            Message::Text("tell") => {
                let id = socket.id();
                socket.commands().tell(id, 1_u8);
            }
            Message::Text("much") => return socket.binary(&[1; 400_000]),
            Message::Text("pause") => {
                socket.conn().waker().wake_by_ref();
                return socket.pause();
            }
            _ => {}
        }
        self.at("message", socket);
    }

    fn pong(&mut self, socket: &mut WebSocket<'_, '_>, _payload: &[u8]) {
        self.at("pong", socket);
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, _value: netpoll_core::Message) {
        self.at("told", socket);
    }

    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        socket.resume();
        self.at("woken", socket);
    }

    fn drained(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.at("drained", socket);
    }

    fn closed(&mut self, how: Closed, _commands: &mut Commands) {
        log(format!("{how:?}"));
    }
}

/// Each callback, and what brings it about.
fn callbacks() -> [(&'static str, Vec<u8>); 7] {
    [
        ("opened", vec![]),
        ("message", text("a")),
        ("pong", frame(0x8a, b"")),
        ("told", text("tell")),
        ("woken", text("wake")),
        ("woken", text("pause")),
        ("drained", text("much")),
    ]
}

fn once(place: &'static str, act: fn(&mut WebSocket<'_, '_>)) -> TestClient {
    LOG.take();
    App::new(move |_| Router::new().websocket("/", move |_: &Request| Once(place, act))).test()
}

#[test]
fn a_goodbye_may_be_said_in_any_callback_and_none_follows_it() {
    for (place, cause) in callbacks() {
        for ghosts in [vec![], [text("ghost"), frame(0x89, b"ghost"), frame(0x01, b"half a gh")].concat()] {
            let client = once(place, |socket| socket.close(CloseCode::POLICY, "now"));
            let mut connection = open(&client);
            connection.send(&[cause.clone(), ghosts.clone()].concat());
            client.run();
            let got = frames(&connection.received());
            assert_eq!(got.last(), Some(&(0x88, b"\x03\xf0now".to_vec())), "{place}: {got:x?}");
            assert!(!connection.is_closed(), "{place}");
            let rest = if ghosts.is_empty() { vec![] } else { frame(0x80, b"ost") };
            connection.send(&[rest, close(1008, "")].concat());
            assert!(connection.is_closed() && !connection.is_reset(), "{place}");
            assert!(connection.received().is_empty(), "{place}");
            connection.close();
            client.run();
            let log = logged();
            let [.., last, end] = &log[..] else { panic!("{log:?}") };
            assert_eq!(last, place, "{log:?}");
            assert_eq!(end, "ByUs { code: CloseCode(1008), is_answered: true }", "{place}");
            assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
        }
    }
}

#[test]
fn a_panic_in_any_callback_is_an_end_that_is_told_once() {
    for (place, cause) in callbacks() {
        let client = once(place, |_| panic!("as told"));
        let mut connection = client.connect();
        connection.send(&[format!("{HANDSHAKE}\r\n").as_bytes(), &cause, &text("ghost")].concat());
        client.run();
        assert!(connection.is_reset(), "{place}");
        let log = logged();
        let [.., last, end] = &log[..] else { panic!("{log:?}") };
        assert_eq!((last.as_str(), end.as_str()), (place, "Lost(Panicked)"), "{log:?}");
        assert_eq!((client.open(), client.stats().panics, client.blocks_in_use()), (0, 1, 0), "{place}");
    }
}

#[test]
fn a_handler_that_pauses_and_goes_on_in_any_callback_misses_nothing() {
    for (place, cause) in callbacks().into_iter().filter(|(place, _)| *place != "woken") {
        let client = once(place, |socket| {
            socket.pause();
            socket.conn().waker().wake_by_ref();
        });
        let mut connection = client.connect();
        let messages = [text("b"), frame(0x89, b"?"), text("c"), close(1000, "")].concat();
        connection.send(&[format!("{HANDSHAKE}\r\n").as_bytes(), &cause, &messages].concat());
        connection.response().expect("a 101");
        connection.finish();
        client.run();
        let got = frames(&connection.received());
        let [.., pong, end] = &got[..] else { panic!("{place}: {got:x?}") };
        assert_eq!((pong.0, end.0), (0x8a, 0x88), "{place}");
        assert!(connection.is_closed() && !connection.is_reset(), "{place}");
        let log = logged();
        assert!(log.last().is_some_and(|end| end.starts_with("ByPeer")), "{place}: {log:?}");
        assert!(log.iter().filter(|line| *line == "message").count() >= 2, "{place}: {log:?}");
    }
}

/// Answers anything with a hundred kilobytes.
struct Generous;

impl Handler for Generous {
    fn message(&mut self, socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {
        CALLS.set(CALLS.get() + 1);
        socket.binary(&[7; 100_000]);
    }
}

#[test]
fn goodbyes_that_cross_end_it_and_each_side_has_said_its_own() {
    let client = client();
    let mut connection = open(&client);
    let mut other = open(&client);
    logged();
    // Ours leaves in the turn in which the peer's arrives.
    other.put(&text("all"));
    connection.send(&[text("bye"), close(4000, "mine")].concat());
    let got = frames(&connection.received());
    let closes: Vec<_> = got.iter().filter(|(first, _)| *first == 0x88).collect();
    assert_eq!(closes, [&(0x88, b"\x03\xe8as told".to_vec())]);
    assert!(connection.is_closed() && !connection.is_reset());
    connection.close();
    client.run();
    assert!(logged().contains(&"ByUs { code: CloseCode(1000), is_answered: true }".to_owned()));
}

#[test]
fn a_peer_with_a_small_window_gets_nothing_that_reaches_further_back() {
    let client = client_with(Settings { compression: true, ..Settings::default() });
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n";
    let mut small = open_with(&client, offer);
    let mut large = open_with(&client, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    // Of 1400 bytes, in a frame that is told.
    small.send(&text("all"));
    client.run();
    assert_eq!(frames(&small.received()), [(0x81, b"to all ".repeat(200))]);
    assert_eq!(frames(&large.received())[0].0, 0xc1);
    for (len, first) in [(1024, 0xc2), (1025, 0x82)] {
        small.send(&frame(0x82, &vec![b'a'; len]));
        assert_eq!(frames(&small.received())[0].0, first, "{len} bytes");
        large.send(&frame(0x82, &vec![b'a'; len]));
        assert_eq!(frames(&large.received())[0].0, 0xc2, "{len} bytes");
    }
}

#[test]
fn a_handler_that_waits_before_it_accepts_gets_what_came_meanwhile() {
    LOG.take();
    let open_later = async |req: Request<'static>| {
        let opening = Opening::of(&req)?;
        netpoll_core::time::sleep(Duration::from_secs(1)).await;
        opening.accept(Told)
    };
    let client = App::new(move |_| Router::new().get("/", open_later)).test();
    for drains in [false, true] {
        let mut connection = client.connect();
        connection.send(&[format!("{HANDSHAKE}\r\n").as_bytes(), &text("early")[..3]].concat());
        connection.send(&[&text("early")[3..], &text("more")].concat());
        assert!(connection.received().is_empty() && logged().is_empty());
        if drains {
            client.begin_drain(Duration::from_secs(10));
        }
        connection.advance(Duration::from_secs(1));
        connection.run();
        let status = connection.response().expect("an answer").status.as_u16();
        if drains {
            assert_eq!((status, logged()), (503, vec![]));
        } else {
            assert_eq!(status, 101);
            assert_eq!(frames(&connection.received()), [(0x81, b"early".to_vec()), (0x81, b"more".to_vec())]);
            connection.close();
            client.run();
            assert_eq!(logged().len(), 4);
        }
    }
}

#[test]
fn the_longest_times_are_for_ever_and_the_shortest_end_without_a_loop() {
    let longest = Settings {
        message_bytes_max: u32::MAX,
        fragments_max: u32::MAX,
        ping_after: Duration::MAX,
        pong_within: Duration::MAX,
        close_within: Duration::MAX,
        retry_within: Duration::MAX,
        compression: true,
    };
    let client = client_with(longest);
    let mut connection = open(&client);
    connection.advance(Duration::from_secs(30 * 24 * 3600));
    connection.send(&[text("hi"), text("bye")].concat());
    assert_eq!(frames(&connection.received()).len(), 3);
    connection.advance(Duration::from_secs(30 * 24 * 3600));
    assert!(!connection.is_closed());
    let mut told = open(&client);
    client.begin_drain(Duration::from_secs(4));
    client.advance(Duration::from_secs(1));
    let (code, reason) = goodbye(&told.received());
    assert!(code == 1012 && reason.starts_with("retry="), "{code} {reason}");
    client.advance(Duration::from_secs(4));
    assert_eq!(client.open(), 0);

    MEMBERS.take();
    LOG.take();
    let shortest = Settings {
        message_bytes_max: 0,
        fragments_max: 0,
        ping_after: Duration::from_nanos(1),
        pong_within: Duration::ZERO,
        close_within: Duration::ZERO,
        retry_within: Duration::ZERO,
        compression: false,
    };
    let open_one = move |req: &Request| Opening::of(req)?.settings(shortest).accept(Generous);
    let options =
        Options::default().latency(Duration::from_millis(100)..=Duration::from_millis(100)).window(1000);
    let client = App::new(move |_| Router::new().get("/", open_one)).test_with(options);
    let mut connection = open(&client);
    connection.send(&text(""));
    connection.advance(Duration::from_secs(1));
    let timers = client.stats().timers_fired;
    assert!(timers < 2000, "{timers} timers in a second");
    connection.advance(Duration::from_secs(100));
    assert!(connection.is_closed());
}
