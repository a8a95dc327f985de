//! WebSockets in tasks of the server's workers.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::sync::Notify;
use netpoll_core::task::spawn_local;
use netpoll_core::time::timeout;
use netpoll_http::websocket::{CloseCode, Closed, Opening, OwnedMessage, Settings, Socket};
use netpoll_http::{App, Request, Router, StatusCode, TestClient, TestConnection};

use crate::ws_bytes::{HANDSHAKE, close, frame, frames};

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static GO: RefCell<Option<std::rc::Rc<Notify>>> = const { RefCell::new(None) };
    static SENT: Cell<usize> = const { Cell::new(0) };
    static POLLS: Cell<usize> = const { Cell::new(0) };
}

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn logged() -> Vec<String> {
    LOG.take()
}

/// What a test lets go on.
fn go() -> std::rc::Rc<Notify> {
    GO.with_borrow_mut(|go| std::rc::Rc::clone(go.get_or_insert_default()))
}

fn let_go(client: &TestClient) {
    go().notify_one();
    client.run();
}

/// Writes down what comes and how it ends, and does what a text says.
async fn told(mut socket: Socket) -> io::Result<()> {
    loop {
        let message = match socket.recv().await {
            Ok(Some(message)) => message,
            end => {
                log(format!("{:?}", end.map_err(|error| error.kind())));
                log(format!("{:?}", socket.closed().expect("it is over")));
                return Ok(());
            }
        };
        let Some(text) = message.text() else {
            socket.send(message).await?;
            continue;
        };
        match text {
            "bye" => {
                socket.send("so be it").await?;
                socket.close(CloseCode::POLICY, "as told");
                log(format!("{:?}", socket.send("nobody hears this").await.map_err(|error| error.kind())));
            }
            "wait" => go().notified().await,
            "drop" => return Ok(()),
            "fail" => return Err(io::Error::other("as told")),
            "close and fail" => {
                socket.close(CloseCode::POLICY, "as told");
                return Err(io::Error::other("as told"));
            }
            "panic" => panic!("as told"),
            "ping" => socket.ping(b"there?"),
            "ended" => {
                let how = socket.ended().await;
                log(format!("ended {how:?}"));
            }
            "impatient" => {
                while timeout(Duration::from_millis(10), socket.recv()).await.is_err() {
                    log("nothing yet");
                }
            }
            "flood" => {
                for _ in 0..3000 {
                    socket.send([b'x'; 1024].as_slice()).await?;
                    SENT.set(SENT.get() + 1);
                }
            }
            "given up" => {
                let mut given_up = 0;
                for number in 0..200_u32 {
                    let mut payload = vec![b'.'; 8 * 1024];
                    payload[..4].copy_from_slice(&number.to_be_bytes());
                    let sending = socket.send(payload);
                    match timeout(Duration::from_millis(1), sending).await {
                        Ok(sent) => sent?,
                        Err(_) => given_up += 1,
                    }
                }
                socket.send(format!("{given_up} given up")).await?;
            }
            "late" => {
                go().notified().await;
                log(format!("{}", socket.is_open()));
                log(format!("{:?}", socket.send("late").await.map_err(|error| error.kind())));
            }
            "crowd" => {
                for _ in 0..1000 {
                    let sender = socket.sender();
                    spawn_local(async move {
                        counted(sender.send([b'x'; 1024].as_slice())).await.expect("it is open");
                        SENT.set(SENT.get() + 1);
                    })
                    .detach();
                }
            }
            "senders" => {
                for number in 0..5 {
                    let sender = socket.sender();
                    spawn_local(async move {
                        for round in 0..20 {
                            if sender.send(format!("{number}:{round}")).await.is_err() {
                                return log("broken");
                            }
                        }
                        go().notified().await;
                        log(format!("{:?}", sender.send("late").await.map_err(|error| error.kind())));
                    })
                    .detach();
                }
            }
            text => socket.send(text).await?,
        }
    }
}

fn client_with(settings: Settings) -> TestClient {
    logged();
    GO.take();
    SENT.set(0);
    POLLS.set(0);
    let open = move |req: &Request| Opening::of(req)?.settings(settings).accept_task(told);
    App::new(move |_| Router::new().get("/", open)).test()
}

fn client() -> TestClient {
    client_with(Settings::default())
}

fn open(client: &TestClient) -> TestConnection {
    let mut connection = client.connect();
    connection.send(format!("{HANDSHAKE}\r\n").as_bytes());
    assert_eq!(connection.response().expect("a 101").status, StatusCode::SWITCHING_PROTOCOLS);
    connection
}

fn say(connection: &mut TestConnection, text: &str) -> Vec<(u8, Vec<u8>)> {
    connection.send(&frame(0x81, text.as_bytes()));
    frames(&connection.received())
}

fn goodbye(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (0x88, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

#[test]
fn a_task_gets_messages_and_sends_some_and_hears_of_the_goodbye() {
    let client = client();
    let mut connection = open(&client);
    assert_eq!(say(&mut connection, "hello"), [(0x81, b"hello".to_vec())]);
    connection.send(
        &[frame(0x82, b"\0\xff"), frame(0x01, b"in "), frame(0x89, b"?"), frame(0x80, b"pieces")].concat(),
    );
    let came = frames(&connection.received());
    assert_eq!(came.len(), 3);
    for expected in [(0x82, b"\0\xff".to_vec()), (0x8a, b"?".to_vec()), (0x81, b"in pieces".to_vec())] {
        assert!(came.contains(&expected), "{came:?}");
    }
    assert_eq!(say(&mut connection, "ping"), [(0x89, b"there?".to_vec())]);
    connection.send(&close(4001, "enough"));
    assert_eq!(frames(&connection.received()), [goodbye(4001, "")]);
    connection.close();
    let by_peer = format!("{:?}", Closed::ByPeer { code: CloseCode::new(4001), reason: "enough".to_owned() });
    assert_eq!(logged(), ["Ok(None)".to_owned(), by_peer]);
    assert!(connection.is_closed());
}

#[test]
fn a_route_has_a_task_for_each_and_refuses_what_is_no_handshake() {
    let echo = async |mut socket: Socket| {
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok(())
    };
    let client = App::new(move |_| Router::new().websocket_task("/", echo)).test();
    assert_eq!(client.get("/").status, StatusCode::UPGRADE_REQUIRED);
    let (mut one, mut other) = (open(&client), open(&client));
    assert_eq!(say(&mut one, "one"), [(0x81, b"one".to_vec())]);
    assert_eq!(say(&mut other, "other"), [(0x81, b"other".to_vec())]);
    one.send(&close(1000, ""));
    assert_eq!(frames(&one.received()), [goodbye(1000, "")]);
    assert_eq!(say(&mut other, "still"), [(0x81, b"still".to_vec())]);
}

#[test]
fn a_peer_whose_messages_are_not_taken_is_not_read() {
    let client = client();
    let mut connection = open(&client);
    assert_eq!(say(&mut connection, "wait"), []);
    let many: Vec<u8> = (0..15).flat_map(|number| frame(0x81, format!("{number}").as_bytes())).collect();
    connection.send(&[many, frame(0x89, b"read")].concat());
    assert_eq!(frames(&connection.received()), [(0x8a, b"read".to_vec())], "fifteen may wait");
    connection.send(&[frame(0x81, b"15"), frame(0x89, b"not read"), frame(0x81, b"16")].concat());
    assert_eq!(frames(&connection.received()), [], "of sixteen the connection is not read");
    let_go(&client);
    let came = frames(&connection.received());
    let texts: Vec<_> =
        came.iter().filter(|(first, _)| *first == 0x81).map(|(_, text)| text.clone()).collect();
    assert_eq!(texts, (0..17).map(|number| format!("{number}").into_bytes()).collect::<Vec<_>>());
    assert!(came.contains(&(0x8a, b"not read".to_vec())), "and is read again");

    assert_eq!(say(&mut connection, "wait"), []);
    connection.send(&[frame(0x82, &[7; 70_000]), frame(0x89, b"not read")].concat());
    assert_eq!(frames(&connection.received()), [], "one large message is enough as well");
    let_go(&client);
    assert_eq!(frames(&connection.received()).len(), 2);
}

#[test]
fn a_task_that_sends_waits_for_a_peer_that_does_not_read() {
    let client = client();
    let mut connection = open(&client);
    connection.stop_reading();
    connection.send(&frame(0x81, b"flood"));
    let sent = SENT.get();
    assert!((16..1000).contains(&sent), "{sent} KiB for a peer that does not read");
    client.turn();
    assert_eq!(SENT.get(), sent);
    connection.start_reading();
    assert_eq!(SENT.get(), 3000, "and goes on when it does");
    assert_eq!(frames(&connection.received()).len(), 3000);
}

#[test]
fn a_recv_that_is_given_up_has_taken_nothing() {
    let client = client();
    let mut connection = open(&client);
    assert_eq!(say(&mut connection, "impatient"), []);
    client.advance(Duration::from_millis(35));
    assert_eq!(logged(), ["nothing yet", "nothing yet", "nothing yet"]);
    connection.send(&[frame(0x81, b"taken by it"), frame(0x81, b"one"), frame(0x81, b"two")].concat());
    assert_eq!(frames(&connection.received()), [(0x81, b"one".to_vec()), (0x81, b"two".to_vec())]);
}

#[test]
fn a_send_that_is_given_up_has_sent_nothing() {
    let client = client();
    let mut connection = open(&client);
    connection.stop_reading();
    connection.send(&frame(0x81, b"given up"));
    client.advance(Duration::from_secs(1));
    connection.start_reading();
    client.advance(Duration::from_secs(1));
    let mut came = frames(&connection.received());
    let (_, last) = came.pop().expect("the count");
    let last = String::from_utf8(last).expect("a text");
    let given_up: usize = last.strip_suffix(" given up").expect("the count").parse().expect("a number");
    assert!(given_up > 0 && came.len() == 200 - given_up, "{} came, {given_up} were given up", came.len());
    let numbers: Vec<_> = came.iter().map(|(_, payload)| payload[..4].to_vec()).collect();
    assert!(numbers.is_sorted() && came.iter().all(|(_, payload)| payload.len() == 8 * 1024));
}

#[test]
fn a_socket_that_is_dropped_says_goodbye_and_one_whose_task_has_failed_says_that() {
    for (what, code, reason) in
        [("drop", 1000, ""), ("fail", 1011, ""), ("panic", 1011, ""), ("close and fail", 1008, "as told")]
    {
        let client = client();
        let mut connection = open(&client);
        assert_eq!(say(&mut connection, what), [goodbye(code, reason)], "{what}");
        connection.send(&[frame(0x81, b"unheard"), close(code, "")].concat());
        assert!(connection.is_closed() && !connection.is_reset(), "{what}");
        connection.close();
        client.run();
        assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "{what}");
        assert_eq!(client.stats().panics, u64::from(what == "panic"), "{what}");
    }
}

#[test]
fn a_goodbye_of_the_task_leaves_behind_what_it_has_sent_and_is_awaited() {
    let client = client();
    let mut connection = open(&client);
    assert_eq!(say(&mut connection, "bye"), [(0x81, b"so be it".to_vec()), goodbye(1008, "as told")]);
    assert_eq!(logged(), ["Err(BrokenPipe)"]);
    connection.send(&[frame(0x81, b"unheard"), close(1008, "")].concat());
    connection.close();
    assert_eq!(logged(), ["Ok(None)", "ByUs { code: CloseCode(1008), is_answered: true }"]);

    let mut silent = open(&client);
    say(&mut silent, "bye");
    client.advance(Duration::from_secs(8));
    assert_eq!(logged()[1..], ["Ok(None)", "ByUs { code: CloseCode(1008), is_answered: false }"]);
}

#[test]
fn an_end_that_nobody_meant_is_an_error_behind_what_had_come() {
    let client = client_with(Settings {
        ping_after: Duration::from_secs(1),
        pong_within: Duration::from_secs(1),
        ..Settings::default()
    });
    let end = |act: &dyn Fn(&mut TestConnection)| {
        let mut connection = open(&client);
        say(&mut connection, "wait");
        connection.send(&frame(0x81, b"ping"));
        act(&mut connection);
        client.run();
        let_go(&client);
        client.advance(Duration::from_secs(10));
        let mut log = logged();
        log.truncate(1);
        log.remove(0)
    };
    assert_eq!(end(&|connection| connection.reset()), "Err(ConnectionReset)");
    assert_eq!(end(&|connection| connection.finish()), "Err(UnexpectedEof)");
    assert_eq!(end(&|connection| connection.send(b"\x83\x80\0\0\0\0")), "Err(InvalidData)");
    assert_eq!(end(&|_| ()), "Err(TimedOut)");
    assert_eq!(end(&|connection| connection.send(&close(1001, ""))), "Ok(None)");
}

#[test]
fn who_waits_for_the_end_hears_how_it_came() {
    let client = client();
    let mut connection = open(&client);
    say(&mut connection, "ended");
    connection.send(&close(1001, "gone"));
    connection.close();
    let by_peer =
        format!("ended {:?}", Closed::ByPeer { code: CloseCode::new(1001), reason: "gone".to_owned() });
    assert_eq!(logged()[0], by_peer);
}

#[test]
fn other_tasks_send_as_well_and_do_not_keep_it_open() {
    let client = client();
    let mut connection = open(&client);
    let came = say(&mut connection, "senders");
    assert_eq!(came.len(), 100);
    for number in 0..5 {
        let of: Vec<_> =
            came.iter().filter(|(_, text)| text.starts_with(format!("{number}:").as_bytes())).collect();
        assert!(
            of.iter().enumerate().all(|(round, (_, text))| text.ends_with(format!(":{round}").as_bytes()))
        );
    }
    assert_eq!(say(&mut connection, "drop"), [goodbye(1000, "")]);
    connection.send(&close(1000, ""));
    go().notify_all();
    client.run();
    assert_eq!(logged(), vec!["Err(BrokenPipe)"; 5]);
}

#[test]
fn who_sends_behind_a_goodbye_hears_that_it_is_not_sent_though_the_end_takes_its_time() {
    for how in ["the peer's", "the peer breaks a rule", "a drain"] {
        let client = client();
        let mut connection = open(&client);
        assert_eq!(say(&mut connection, "late"), []);
        match how {
            "the peer's" => connection.send(&close(1000, "")),
            "the peer breaks a rule" => connection.send(&frame(0x83, b"")),
            _ => {
                client.begin_drain(Duration::from_secs(30));
            }
        }
        let mut came = frames(&connection.received());
        while came.is_empty() {
            client.advance(Duration::from_millis(100));
            came = frames(&connection.received());
        }
        assert_eq!(came[0].0, 0x88, "the goodbye");
        let_go(&client);
        assert_eq!(logged(), ["false", "Err(BrokenPipe)"], "{how}");
    }
}

/// Counts polls.
async fn counted<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        POLLS.set(POLLS.get() + 1);
        future.as_mut().poll(cx)
    })
    .await
}

#[test]
fn of_many_that_wait_to_send_those_are_woken_for_whom_there_is_room() {
    let client = client();
    let mut connection = open(&client);
    connection.stop_reading();
    connection.send(&frame(0x81, b"crowd"));
    let waiting = 1000 - SENT.get();
    assert!(waiting > 600, "{waiting} wait");
    connection.start_reading();
    client.run();
    assert_eq!((SENT.get(), frames(&connection.received()).len()), (1000, 1000));
    assert!(POLLS.get() < 3000, "{} polls", POLLS.get());
}

#[test]
fn in_a_drain_the_peer_is_told_to_come_back_and_the_task_that_it_is_over() {
    let client = client();
    let mut connections: Vec<_> = (0..20).map(|_| open(&client)).collect();
    client.begin_drain(Duration::from_secs(30));
    for _ in 0..200 {
        client.advance(Duration::from_millis(10));
        for connection in &mut connections {
            for (first, payload) in frames(&connection.received()) {
                assert_eq!((first, &payload[..2]), (0x88, &1012_u16.to_be_bytes()[..]));
                assert!(payload[2..].starts_with(b"retry="));
                connection.send(&close(1012, ""));
                connection.close();
            }
        }
    }
    let log = logged();
    assert_eq!(log.iter().filter(|line| *line == "Ok(None)").count(), 20);
    let how = "ByUs { code: CloseCode(1012), is_answered: true }";
    assert_eq!(log.iter().filter(|line| *line == how).count(), 20);
    assert!(connections.iter().all(TestConnection::is_closed));
    assert_eq!(client.open(), 0);
}

#[test]
fn a_subprotocol_and_compression_are_those_of_the_opening() {
    let open = |req: &Request| {
        let mut opening = Opening::of(req)?;
        opening.choose(&["chat.v1", "chat.v2"]);
        let settings = Settings { compression: true, ..Settings::default() };
        opening.settings(settings).accept_task(async |mut socket: Socket| {
            socket.send(socket.protocol().unwrap_or_default()).await?;
            while let Some(OwnedMessage::Text(text)) = socket.recv().await? {
                socket.send(text.repeat(1000)).await?;
            }
            Ok(())
        })
    };
    let client = App::new(move |_| Router::new().get("/", open)).test();
    let mut connection = client.connect();
    let fields =
        "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    connection.send(format!("{HANDSHAKE}{fields}\r\n").as_bytes());
    let answer = connection.response().expect("a 101");
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat.v2"));
    assert_eq!(frames(&connection.received()), [(0x81, b"chat.v2".to_vec())]);
    let came = say(&mut connection, "abc");
    assert!(came.len() == 1 && came[0].0 == 0xc1 && came[0].1.len() < 100, "compressed");
}

#[test]
fn messages_that_nobody_takes_count_in_the_memory_of_the_worker() {
    let _ = client();
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(1 << 20);
    let client = App::new(|_| Router::new().websocket_task("/", told)).test_with(options);
    let mut told_so = 0;
    let mut connections: Vec<_> = (0..40).map(|_| open(&client)).collect();
    for connection in &mut connections {
        say(connection, "wait");
        connection.send(&frame(0x82, &[7; 60_000]));
        told_so += usize::from(frames(&connection.received()).contains(&goodbye(1013, "no memory is left")));
    }
    assert!((20..30).contains(&told_so), "{told_so} of 40 times 60 kB");
    assert_eq!(client.stats().memory_overflows, told_so as u64);
    drop(connections);
    client.run();
    go().notify_all();
    client.run();
    let mut later = open(&client);
    say(&mut later, "wait");
    later.send(&frame(0x82, &[7; 60_000]));
    assert_eq!(frames(&later.received()), [], "there is memory again");
}
