//! WebSockets that are opened from here.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::time::timeout;
use netpoll_core::{Commands, ConnectOptions, Layered, Runtime};
use netpoll_http::websocket::{
    Client, CloseCode, Closed, Frame, Handler, Message, NotOpened, Opening, OwnedMessage, Settings, Socket,
    WebSocket,
};
use netpoll_http::{App, HeaderValue, Request, Router, Server, TestClient, TestConnection, header};
use tungstenite::Message as Foreign;

use crate::chance::{Chance, seeds};
use crate::cipher::{Cipher, Codec, Record};
use crate::weather::stormy;

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static DONE: Cell<usize> = const { Cell::new(0) };
}

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn logged() -> Vec<String> {
    LOG.take()
}

/// The value of a field of a request.
fn field<'r>(request: &'r str, name: &str) -> Option<&'r str> {
    request.lines().find_map(|line| {
        let (known, value) = line.split_once(": ")?;
        known.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The accept of a request's key, as the server of this crate says it.
fn accept_of(request: &str) -> String {
    let key = field(request, "sec-websocket-key").expect("a key");
    let client = App::new(|_| Router::new().websocket("/", |_| Nobody)).test();
    let mut connection = client.connect();
    connection.send(
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        .as_bytes(),
    );
    connection.response().expect("a 101").header("sec-websocket-accept").expect("an accept").to_owned()
}

struct Nobody;

impl Handler for Nobody {
    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
}

/// The frames of a client, unmasked, and their keys.
fn unmasked(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, [u8; 4])> {
    let mut all = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        assert!(len & 0x80 != 0, "what a client sends is masked");
        let (len, rest) = match len & 0x7f {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().expect("eight")) as usize, &rest[8..]),
            len => (usize::from(len), rest),
        };
        let key: [u8; 4] = rest[..4].try_into().expect("four");
        let payload = rest[4..4 + len].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        all.push((*first, payload, key));
        bytes = &rest[4 + len..];
    }
    all
}

/// A frame of a server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, payload.len() as u8], payload].concat()
}

/// A world in which a client has dialed, its far end, and what it has asked.
fn asked(
    client: Client,
    then: impl AsyncFnOnce(Result<Socket, NotOpened>) + Send + 'static,
) -> (Sim, PeerId, String) {
    logged();
    let mut sim = Sim::new(Options::default());
    drop(sim.handle().spawn_on(0, move || async move { then(client.connect().await).await }));
    sim.settle();
    let (peer, _) = sim.take_dialed().remove(0);
    let request = String::from_utf8(sim.take_received(peer)).expect("a head");
    (sim, peer, request)
}

/// What a client makes of an answer, in which `{accept}` is the right one.
fn outcome(client: Client, answer: &str) -> String {
    let (mut sim, peer, request) = asked(client, async |opened| match opened {
        Ok(socket) => log(format!("open {:?}", socket.protocol())),
        Err(why) => log(format!("{why:?}")),
    });
    let answer = answer.replace("{accept}", &accept_of(&request));
    logged();
    let (first, rest) = answer.split_at(answer.len() / 2);
    sim.send(peer, first.as_bytes());
    sim.settle();
    sim.send(peer, rest.as_bytes());
    sim.settle();
    let mut log = logged();
    assert!(log.len() < 2, "{log:?}");
    log.pop().unwrap_or_default()
}

fn client() -> Client {
    Client::new("ws://10.0.0.1:8080/chat?room=7").expect("a URL")
}

const ANSWER: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n";

#[test]
fn a_client_asks_as_the_rfc_has_it() {
    let client = client()
        .protocols(["chat.v2", "chat.v1"])
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))
        .settings(Settings { compression: true, ..Settings::default() });
    let (_sim, _peer, request) = asked(client, async |_| ());
    assert!(
        request.starts_with("GET /chat?room=7 HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"),
        "{request}"
    );
    let field = |name| field(&request, name);
    assert_eq!(field("Host"), Some("10.0.0.1:8080"));
    assert_eq!((field("Connection"), field("Upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(field("Sec-WebSocket-Version"), Some("13"));
    assert_eq!(field("Sec-WebSocket-Key").map(str::len), Some(24));
    assert_eq!(field("Sec-WebSocket-Protocol"), Some("chat.v2, chat.v1"));
    assert_eq!(field("Authorization"), Some("Bearer x"));
    assert!(field("Sec-WebSocket-Extensions").is_some_and(|offer| offer.starts_with("permessage-deflate")));
    let (_sim, _peer, other) = asked(self::client(), async |_| ());
    assert_ne!(self::field(&other, "Sec-WebSocket-Key"), field("Sec-WebSocket-Key"), "a key of its own");
    assert_eq!(self::field(&other, "Sec-WebSocket-Extensions"), None);
}

#[test]
fn an_answer_that_is_the_one_that_was_asked_for_opens_it() {
    let right = format!("{ANSWER}Sec-WebSocket-Accept: {{accept}}\r\n");
    assert_eq!(outcome(client(), &format!("{right}\r\n")), "open None");
    assert_eq!(
        outcome(client(), &format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{right}\r\n")),
        "open None"
    );
    assert_eq!(outcome(client(), &format!("{right}X-Other:\r\n\r\n")), "open None");
    let chosen = format!("{right}sec-websocket-protocol: b\r\n\r\n");
    assert_eq!(outcome(client().protocols(["a", "b"]), &chosen), "open Some(\"b\")");
}

#[test]
fn an_answer_that_is_another_opens_nothing_and_says_why() {
    let right = format!("{ANSWER}Sec-WebSocket-Accept: {{accept}}\r\n");
    let says = |client: Client, answer: &str| outcome(client, answer);
    let is = |answer: &str, why: &str| {
        let got = says(client(), answer);
        assert!(got.contains(why), "{answer:?}: {got:?}");
    };
    is("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "Refused(200)");
    is("HTTP/1.1 401 \r\n\r\n", "Refused(401)");
    is("HTTP/1.1 302 Found\r\nLocation: ws://10.0.0.1/\r\n\r\n", "Refused(302)");
    is(&format!("{ANSWER}\r\n"), "Sec-WebSocket-Accept is not there once");
    is(&format!("{ANSWER}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "or not of our key");
    is(&format!("{right}Sec-WebSocket-Accept: {{accept}}\r\n\r\n"), "Sec-WebSocket-Accept is not there once");
    is("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", "lacks Upgrade");
    is(
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
        "does not list upgrade",
    );
    is(&format!("{right}Sec-WebSocket-Protocol: chat\r\n\r\n"), "names a subprotocol that we did not");
    is(
        &format!("{right}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        "extension that we did not offer",
    );
    for answer in [
        "HTTP/1.0 101 X\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 1O1 X\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 1010 X\r\n\r\n",
        "HTTP/1.1 101 X\r\nno colon\r\n\r\n",
        "HTTP/1.1 101 X\r\nspace : x\r\n\r\n",
        "HTTP/1.1 101 X\r\nfolded: x\r\n y\r\n\r\n",
        "HTTP/1.1 101 X\r\nbare: \n\r\n\r\n",
    ] {
        is(answer, "Malformed");
    }
    let long = format!("HTTP/1.1 101 X\r\nlong: {}\r\n\r\n", "x".repeat(20_000));
    is(&long, "Malformed");
    is(&format!("HTTP/1.1 101 X\r\nlong: {}", "x".repeat(40_000)), "Malformed");
    let dripping = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    is(&dripping, "Malformed");
}

#[test]
fn what_a_client_sends_is_masked_with_a_key_for_each_frame() {
    let (mut sim, peer, request) = asked(client(), async |opened| {
        let mut socket = opened.expect("it is open");
        for _ in 0..20 {
            socket.send("the same").await.expect("it is open");
        }
        socket.send(vec![7; 70_000]).await.expect("it is open");
        socket.send(&Frame::text("of many")).await.expect("it is open");
        socket.ping(b"there?");
        while let Ok(Some(message)) = socket.recv().await {
            log(format!("{message:?}"));
        }
        log(format!("{:?}", socket.closed().expect("it is over")));
    });
    let accept = accept_of(&request);
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    // Behind the head, and in one piece with it.
    sim.send(peer, &[frame(0x81, b"hello"), frame(0x89, b"?")].concat());
    sim.settle();
    let mut frames = unmasked(&sim.take_received(peer));
    let at = frames.iter().position(|(first, ..)| *first == 0x8a).expect("an answer to the ping");
    assert_eq!(frames.remove(at).1, b"?");
    let expected = [
        vec![(0x81, b"the same".to_vec()); 20],
        vec![(0x82, vec![7; 70_000]), (0x81, b"of many".to_vec()), (0x89, b"there?".to_vec())],
    ];
    let mut keys: Vec<_> = frames.iter().map(|(.., key)| *key).collect();
    let came: Vec<_> = frames.into_iter().map(|(first, payload, _)| (first, payload)).collect();
    assert_eq!(came, expected.concat());
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() >= 22, "{} keys of 23 frames", keys.len());

    sim.send(peer, &frame(0x88, &1001_u16.to_be_bytes()));
    sim.settle();
    let goodbye = unmasked(&sim.take_received(peer));
    assert_eq!(goodbye.len(), 1);
    assert_eq!((goodbye[0].0, &goodbye[0].1[..]), (0x88, &1001_u16.to_be_bytes()[..]));
    sim.close(peer);
    sim.settle();
    assert_eq!(logged(), ["Text(\"hello\")", "ByPeer { code: Some(CloseCode(1001)), reason: \"\" }"]);
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn a_server_that_masks_or_breaks_another_rule_is_told_so() {
    let (mut sim, peer, request) = asked(client(), async |opened| {
        let mut socket = opened.expect("it is open");
        log(format!("{:?}", socket.recv().await.map_err(|error| error.kind())));
    });
    let accept = accept_of(&request);
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    sim.send(peer, b"\x81\x82\0\0\0\0hi");
    sim.settle();
    let goodbye = unmasked(&sim.take_received(peer));
    assert_eq!((goodbye[0].0, &goodbye[0].1[..2]), (0x88, &1002_u16.to_be_bytes()[..]));
    sim.close(peer);
    sim.settle();
    assert_eq!(logged(), ["Err(InvalidData)"]);
}

#[test]
fn a_dial_that_comes_to_nothing_and_an_answer_that_does_not_come_are_told_apart() {
    let mut sim = Sim::new(Options::default());
    sim.refuse_connections(true);
    let refused = sim.block_on(async { client().connect().await.expect_err("nobody listens") });
    assert!(
        matches!(&refused, NotOpened::Dial(error) if error.kind() == io::ErrorKind::ConnectionRefused),
        "{refused:?}"
    );

    let (mut sim, peer, _) = asked(client().handshake_within(Duration::from_secs(3)), async |opened| {
        log(format!("{:?}", opened.expect_err("no answer")));
    });
    sim.send(peer, b"HTTP/1.1 101 Swi");
    sim.advance(Duration::from_millis(2999));
    assert_eq!(logged(), Vec::<String>::new());
    sim.advance(Duration::from_millis(2));
    assert_eq!(logged(), ["TooLate"]);
    assert!(sim.is_reset(peer));

    let (mut sim, peer, _) =
        asked(client(), async |opened| log(format!("{:?}", opened.expect_err("no answer"))));
    sim.close(peer);
    sim.settle();
    assert_eq!(logged(), ["Lost(Closed)"]);

    let secure = Client::new("wss://10.0.0.1/").expect("a URL");
    let error =
        Sim::new(Options::default()).block_on(async move { secure.connect().await.expect_err("no layer") });
    assert!(matches!(error, NotOpened::Dial(error) if error.kind() == io::ErrorKind::Unsupported));
}

#[test]
fn a_client_that_gives_up_leaves_nothing_behind() {
    for answers in [false, true] {
        let mut sim = Sim::new(Options::default());
        let latency = Duration::from_millis(50);
        drop(sim.handle().spawn_on(0, move || async move {
            assert!(timeout(latency, client().connect()).await.is_err());
            log("given up");
        }));
        sim.settle();
        let (peer, _) = sim.take_dialed().remove(0);
        sim.advance(latency);
        assert_eq!(logged(), ["given up"]);
        if answers {
            sim.send(peer, b"HTTP/1.1 101 X\r\n\r\n");
        }
        sim.settle();
        assert!(sim.is_reset(peer));
        assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn one_that_opens_when_nobody_waits_for_it_any_more_says_goodbye() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let (protocol, connecting) = client().prepare();
        Commands::with(|commands| commands.connect("10.0.0.1:80", ConnectOptions::default(), protocol));
        drop(connecting);
    });
    let (peer, _) = sim.take_dialed().remove(0);
    let accept = accept_of(std::str::from_utf8(&sim.take_received(peer)).expect("a head"));
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    sim.settle();
    let goodbye = unmasked(&sim.take_received(peer));
    assert_eq!((goodbye[0].0, &goodbye[0].1[..]), (0x88, &1001_u16.to_be_bytes()[..]));
}

#[test]
fn what_is_no_url_of_a_websocket_is_refused() {
    for url in [
        "",
        "ws:",
        "ws://",
        "ws:///",
        "http://a/",
        "a:80",
        "//a/",
        "ws://a:0/",
        "ws://a:x/",
        "ws://a:65536/",
        "ws://:80/",
        "ws://u@a/",
        "ws://a/#f",
        "ws://a b/",
        "ws://a/\r\nX: y",
        "ws://[::1",
        "ws://[a]/",
        "ws://[::1]x/",
        "ws://a/\u{e9}",
    ] {
        assert!(Client::new(url).is_err(), "{url:?}");
    }
    for (url, host, path) in [
        ("ws://a", "a", "/"),
        ("WS://A.example:81/x/y?z=1", "A.example:81", "/x/y?z=1"),
        ("ws://10.0.0.2?q", "10.0.0.2", "/?q"),
        ("ws://[2001:db8::1]:9000/", "[2001:db8::1]:9000", "/"),
    ] {
        let client = Client::new(url).expect(url).target("10.0.0.9:80");
        let (_sim, _peer, request) = asked(client, async |_| ());
        assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n")), "{url}: {request}");
    }
}

/// Writes down what it is told.
struct Told(&'static str);

impl Handler for Told {
    fn agreed(&mut self, protocol: Option<&str>) {
        log(format!("agreed {protocol:?}"));
        assert!(self.0 != "panic", "as told");
    }

    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        log("opened");
        socket.text(self.0);
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        log(format!("{message:?}"));
        socket.close(CloseCode::NORMAL, "");
    }

    fn closed(&mut self, how: Closed, _commands: &mut Commands) {
        log(format!("{how:?}"));
    }
}

#[test]
fn a_client_with_callbacks_hears_what_a_task_would() {
    logged();
    let mut sim = Sim::new(Options::default());
    sim.block_on(async { Commands::with(|commands| client().dial(commands, Told("hi")).expect("it is ws")) });
    let (peer, _) = sim.take_dialed().remove(0);
    let request = String::from_utf8(sim.take_received(peer)).unwrap();
    let accept = accept_of(&request);
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    sim.settle();
    assert_eq!(unmasked(&sim.take_received(peer))[0].1, b"hi");
    sim.send(peer, &frame(0x81, b"ho"));
    sim.settle();
    assert_eq!(unmasked(&sim.take_received(peer))[0].0, 0x88);
    sim.send(peer, &frame(0x88, &1000_u16.to_be_bytes()));
    sim.close(peer);
    sim.settle();
    let how = "ByUs { code: CloseCode(1000), is_answered: true }";
    assert_eq!(logged(), ["agreed None", "opened", "Text(\"ho\")", how]);

    sim.refuse_connections(true);
    sim.block_on(async { Commands::with(|commands| client().dial(commands, Told("hi")).expect("it is ws")) });
    sim.settle();
    let log = logged();
    assert!(log.len() == 1 && log[0].starts_with("NotOpened(Dial("), "{log:?}");
}

#[test]
fn a_client_whose_callback_panics_hears_of_the_end_all_the_same() {
    logged();
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        Commands::with(|commands| client().dial(commands, Told("panic")).expect("it is ws"))
    });
    let (peer, _) = sim.take_dialed().remove(0);
    let accept = accept_of(std::str::from_utf8(&sim.take_received(peer)).expect("a head"));
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    sim.settle();
    assert_eq!(logged(), ["agreed None", "NotOpened(Lost(Panicked))"]);
    assert_eq!((sim.open(), sim.stats().panics), (0, 1));
}

#[test]
fn a_client_in_a_drain_says_goodbye() {
    let (mut sim, peer, request) = asked(client(), async |opened| {
        let mut socket = opened.expect("it is open");
        log(format!("{:?}", socket.recv().await.map_err(|error| error.kind())));
    });
    let accept = accept_of(&request);
    sim.send(peer, format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    sim.settle();
    sim.begin_drain(Duration::from_secs(30));
    sim.advance(Duration::from_secs(2));
    let goodbye = unmasked(&sim.take_received(peer));
    assert_eq!((goodbye[0].0, &goodbye[0].1[..]), (0x88, &1001_u16.to_be_bytes()[..]));
    sim.send(peer, &frame(0x88, &1001_u16.to_be_bytes()));
    sim.close(peer);
    sim.settle();
    assert_eq!(logged(), ["Ok(None)"]);
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_client_goes_under_a_layer() {
    logged();
    let mut sim = Sim::new(Options::default());
    drop(sim.handle().spawn_on(0, || async {
        let (protocol, connecting) = Client::new("wss://10.0.0.1/").expect("a URL").prepare();
        let layered = Layered::new(Cipher::new(2), protocol);
        Commands::with(|commands| commands.connect("10.0.0.1:443", ConnectOptions::default(), layered));
        let mut socket = connecting.await.expect("it is opened");
        let message = socket.recv().await;
        log(format!("{message:?}"));
    }));
    sim.settle();
    let (peer, _) = sim.take_dialed().remove(0);
    let (mut codec, mut wire) = (Codec::new(1), Vec::new());
    let say = |sim: &mut Sim, bytes: &[u8]| {
        sim.send(peer, bytes);
        sim.settle();
    };
    let mut greeting = Vec::new();
    codec.greet(&mut greeting);
    say(&mut sim, &greeting);
    wire.extend(sim.take_received(peer));
    let mut request = Vec::new();
    while let Some((record, bytes)) = codec.open(&mut wire).expect("records") {
        if let Record::Data(len) = record {
            request.extend_from_slice(&wire[3..3 + len]);
        }
        wire.drain(..bytes);
    }
    let accept = accept_of(std::str::from_utf8(&request).expect("a head"));
    let answer = format!("{ANSWER}Sec-WebSocket-Accept: {accept}\r\n\r\n");
    let mut sealed = Vec::new();
    codec.data(&[answer.as_bytes(), &frame(0x81, b"hello")].concat(), &mut sealed);
    say(&mut sim, &sealed);
    assert_eq!(logged(), ["Ok(Some(Text(\"hello\")))"]);
}

/// Echoes, in a task.
async fn echo(mut socket: Socket) -> io::Result<()> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

fn payload(chance: &mut Chance) -> OwnedMessage {
    let len = match chance.below(8) {
        0 => 0,
        1 => 60_000 + chance.below(20_000),
        2 | 3 => chance.below(4000),
        _ => chance.below(130),
    };
    let bytes: Vec<u8> = (0..len).map(|at| b'a' + ((at * 7 + len) % 26) as u8).collect();
    match chance.below(2) {
        0 => OwnedMessage::Text(String::from_utf8(bytes).expect("letters")),
        _ => OwnedMessage::Binary(bytes),
    }
}

/// Sends messages and hears them again, and counts that in `DONE`.
async fn converse(client: Client, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut socket = client.connect().await.expect("it is opened");
    let (mut sent, mut heard) = (std::collections::VecDeque::new(), 0);
    while heard < 25 {
        if sent.len() + heard < 25 && (sent.is_empty() || chance.below(2) == 0) {
            let message = payload(&mut chance);
            // Whoever gives up has sent nothing.
            match timeout(Duration::from_millis(1 + chance.below(20) as u64), socket.send(message.clone()))
                .await
            {
                Ok(done) => {
                    done.expect("it is open");
                    sent.push_back(message);
                }
                Err(_) if sent.is_empty() => continue,
                Err(_) => {}
            }
        }
        if sent.is_empty() || (sent.len() + heard < 25 && chance.below(3) > 0) {
            continue;
        }
        if let Ok(came) = timeout(Duration::from_millis(1 + chance.below(50) as u64), socket.recv()).await {
            let came = came.expect("it is open").expect("it is open");
            assert!(Some(&came) == sent.pop_front().as_ref(), "seed {seed}: echo {heard}");
            heard += 1;
        }
    }
    socket.close(CloseCode::NORMAL, "done");
    assert!(matches!(socket.recv().await, Ok(None)), "seed {seed}");
    let how = socket.closed().expect("it is over");
    assert!(matches!(*how, Closed::ByUs { is_answered: true, .. }), "seed {seed}: {how:?}");
    DONE.set(DONE.get() + 1);
}

/// A dialed connection and one to the server, that are one.
struct Cable {
    dialed: PeerId,
    accepted: TestConnection,
}

fn pump(client: &TestClient, cables: &mut Vec<Cable>, chance: &mut Chance) {
    for (dialed, _) in client.world(Sim::take_dialed) {
        cables.push(Cable { dialed, accepted: client.connect() });
    }
    for Cable { dialed, accepted } in cables {
        let dialed = *dialed;
        if chance.below(3) > 0 {
            let bytes = client.world(|sim| sim.take_received(dialed));
            accepted.put(&bytes);
            if client.world(|sim| sim.is_closed(dialed)) {
                accepted.finish();
            }
        }
        if chance.below(3) > 0 {
            let bytes = accepted.received();
            client.world(|sim| sim.send(dialed, &bytes));
            if accepted.is_closed() {
                client.world(|sim| sim.finish(dialed));
            }
        }
    }
}

#[test]
fn a_client_and_a_server_of_tasks_converse_on_any_network() {
    for seed in seeds(60) {
        DONE.set(0);
        let mut chance = Chance::new(seed);
        let options = stormy(seed, &mut chance);
        let settings = Settings { compression: seed.is_multiple_of(2), ..Settings::default() };
        let open = move |req: &Request| Opening::of(req)?.settings(settings).accept_task(echo);
        let server = App::new(move |_| Router::new().get("/echo", open)).test_with(options);
        for number in 0..3_u64 {
            let client = Client::new("ws://10.0.0.1/echo").expect("a URL").settings(settings);
            let handle = server.world(|sim| sim.handle().clone());
            drop(handle.spawn_on(0, move || converse(client, seed * 10 + number)));
        }
        let mut cables = Vec::new();
        let mut rounds = 0;
        while DONE.get() < 3 {
            pump(&server, &mut cables, &mut chance);
            match chance.below(4) {
                0 => server.advance(Duration::from_millis(chance.below(20) as u64)),
                _ => server.turn(),
            }
            rounds += 1;
            assert!(rounds < 100_000, "seed {seed}: {} are done", DONE.get());
        }
        for _ in 0..50 {
            pump(&server, &mut cables, &mut chance);
            server.advance(Duration::from_millis(100));
        }
        drop(cables);
        server.run();
        server.advance(Duration::from_secs(10));
        let stats = server.stats();
        assert_eq!((server.open(), server.blocks_in_use(), stats.panics), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn a_client_and_a_server_converse_on_real_sockets() {
    for compression in [false, true] {
        let settings = Settings { compression, ..Settings::default() };
        let open = move |req: &Request| {
            let mut opening = Opening::of(req)?;
            opening.choose(&["echo"]);
            opening.settings(settings).accept_task(echo)
        };
        let router = move |_: &netpoll_http::Worker| Router::new().get("/", open);
        let running = Server::bind("127.0.0.1:0").unwrap().workers(1).app(router).start().unwrap();
        let client =
            Client::new(&format!("ws://{}/", running.addr())).unwrap().protocols(["echo"]).settings(settings);
        let conversed = Runtime::builder().block_on(async move {
            let mut socket = client.connect().await.expect("it is opened");
            assert_eq!(socket.protocol().as_deref(), Some("echo"));
            for bytes in [0, 1, 125, 126, 65_535, 65_536, 900_000] {
                let text = "ab".repeat(bytes / 2);
                socket.send(text.as_str()).await.expect("it is open");
                assert_eq!(socket.recv().await.unwrap(), Some(OwnedMessage::Text(text)));
            }
            socket.close(CloseCode::NORMAL, "");
            socket.ended().await
        });
        let how = conversed.unwrap();
        assert!(matches!(*how, Closed::ByUs { is_answered: true, .. }), "{how:?}");
        running.stop(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn a_foreign_client_converses_with_a_task() {
    let router = |_: &netpoll_http::Worker| Router::new().websocket_task("/", echo);
    let running = Server::bind("127.0.0.1:0").unwrap().workers(1).app(router).start().unwrap();
    let stream = TcpStream::connect(running.addr().to_string()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut socket, answer) = tungstenite::client(format!("ws://{}/", running.addr()), stream).unwrap();
    assert_eq!(answer.status().as_u16(), 101);
    for bytes in [0, 1, 125, 126, 65_535, 65_536, 900_000] {
        socket.send(Foreign::Binary(vec![7; bytes].into())).unwrap();
        socket.send(Foreign::Ping(vec![1, 2, 3].into())).unwrap();
        let (mut echoed, mut ponged) = (false, false);
        while !(echoed && ponged) {
            match socket.read().unwrap() {
                Foreign::Binary(came) => echoed = came.len() == bytes,
                Foreign::Pong(came) => ponged = came[..] == [1, 2, 3],
                other => panic!("{other:?}"),
            }
        }
    }
    socket.close(None).unwrap();
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_client_converses_with_a_foreign_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&heard);
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        socket.send(Foreign::Ping(vec![9].into())).unwrap();
        loop {
            match socket.read() {
                Ok(message @ (Foreign::Text(_) | Foreign::Binary(_))) => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    socket.send(message).unwrap();
                }
                Ok(Foreign::Pong(payload)) => assert_eq!(payload[..], [9]),
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let client = Client::new(&format!("ws://localhost:{}/path", addr.port())).unwrap();
    let client =
        client.target(addr).connect_options(ConnectOptions::default().timeout(Duration::from_secs(5)));
    let conversed = Runtime::builder().block_on(async move {
        let mut socket = client.connect().await.expect("it is opened");
        let mut chance = Chance::new(3);
        for _ in 0..100 {
            let message = payload(&mut chance);
            socket.send(message.clone()).await.expect("it is open");
            assert!(socket.recv().await.unwrap() == Some(message));
        }
        socket.close(CloseCode::NORMAL, "enough");
        socket.ended().await
    });
    let how = conversed.unwrap();
    assert!(matches!(*how, Closed::ByUs { is_answered: true, .. }), "{how:?}");
    server.join().unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 100);
}
