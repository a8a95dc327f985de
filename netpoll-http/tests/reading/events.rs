//! Server-sent events: what is written, to whom, and for how long.

use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

use netpoll_core::sync::mpsc::{Sender, TrySendError};
use netpoll_core::task;
use netpoll_core::time::sleep;
use netpoll_http::{
    App, Event, Events, Handler, IntoResponse, Method, Request, Router, TestClient, TestConnection,
};
use proptest::prelude::*;

use crate::text;

/// The senders of all who listen.
#[derive(Default)]
struct Listeners(RefCell<Vec<Sender<Event>>>);

fn listen(_: &Request<'_>) -> Events {
    let (sender, events) = Events::channel(4);
    task::state::<Listeners>().0.borrow_mut().push(sender);
    events
}

fn client() -> TestClient {
    let router = |_: &_| {
        Router::new()
            .get("/", |_: &Request| "root")
            .get("/events", listen)
            .get("/quiet", |req: &Request| listen(req).heartbeat(None))
    };
    App::new(router).state(|_| Listeners::default()).test()
}

fn listening(client: &TestClient, path: &str) -> TestConnection {
    let mut connection = client.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    connection
}

/// Does something with the senders in the world of the client, and lets happen what follows.
fn tell<R: 'static>(client: &TestClient, act: impl FnOnce(&mut Vec<Sender<Event>>) -> R + 'static) -> R {
    let result =
        client.world(|sim| sim.block_on(async { act(&mut task::state::<Listeners>().0.borrow_mut()) }));
    client.run();
    result
}

fn send(client: &TestClient, event: Event) {
    tell(client, move |listeners| listeners.retain(|listener| listener.try_send(event.clone()).is_ok()));
}

/// The chunks that have come, without their framing, and without the head.
fn heard(connection: &mut TestConnection) -> String {
    let bytes = connection.received();
    let mut rest = text(&bytes);
    if let Some((head, body)) = rest.split_once("\r\n\r\n")
        && head.starts_with("HTTP/1.1")
    {
        rest = body;
    }
    let mut all = String::new();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let bytes = usize::from_str_radix(size, 16).expect("the size of a chunk");
        all += &behind[..bytes];
        rest = &behind[bytes + 2..];
    }
    all
}

#[test]
fn an_event_is_lines_of_fields() {
    for (event, expected) in [
        (Event::data("tea"), "data: tea\n\n"),
        (Event::data(""), "data: \n\n"),
        (Event::data("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (
            Event::data(" tea: \u{e9}").id("7").event("kitchen"),
            "data:  tea: \u{e9}\nid: 7\nevent: kitchen\n\n",
        ),
        (Event::data("x").id("7\ndata: y\r\0"), "data: x\nid: 7data: y\n\n"),
        (Event::data("x").event("a\r\n\r\ndata: y"), "data: x\nevent: adata: y\n\n"),
        (Event::comment("a\n\ndata: b"), ": a\n: \n: data: b\n\n"),
        (Event::data("x").retry(Duration::from_micros(1500)), "data: x\nretry: 2\n\n"),
        (Event::json(&[1, 2]).expect("JSON"), "data: [1,2]\n\n"),
        (Event::json("a\nb").expect("JSON"), "data: \"a\\nb\"\n\n"),
    ] {
        assert_eq!(text_of(&event), expected);
        let shared = event.clone();
        assert!(text_of(&event.clone().id("9")).ends_with("\nid: 9\n\n"));
        assert_eq!(
            (event, text_of(&shared)),
            (shared.clone(), expected.to_owned()),
            "a copy is left as it was"
        );
    }
}

fn text_of(event: &Event) -> String {
    String::from_utf8(event.as_bytes().to_vec()).expect("text")
}

/// What a client makes of a stream, as the standard has it (section 9.2.6): data, name and id of each event.
fn dispatched(stream: &str) -> Vec<(String, String, String)> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut id) = (Vec::new(), String::new());
    let (mut data, mut name) = (String::new(), String::new());
    for line in lines.split_terminator('\n') {
        if line.is_empty() {
            let mut data = std::mem::take(&mut data);
            let name = std::mem::take(&mut name);
            if data.pop().is_some() {
                events.push((data, name, id.clone()));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data += &format!("{value}\n"),
            "event" => name = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            _ => {}
        }
    }
    events
}

proptest! {
    #[test]
    fn whatever_a_text_has_in_it_a_client_sees_one_event_of_it(
        data in "[a-c:\r\n\0 \u{e9}]{0,12}", name in "[a-c:\r\n\0 ]{0,8}", id in "[a-c:\r\n\0 ]{0,8}",
        comment in "[a-c:\r\n\0 ]{0,8}",
    ) {
        let event = Event::data(&data).event(&name).id(&id);
        let stream = text_of(&event) + &text_of(&Event::comment(comment));
        let line = |text: &str| text.replace(['\r', '\n', '\0'], "");
        let expected = (data.replace("\r\n", "\n").replace('\r', "\n"), line(&name), line(&id));
        prop_assert_eq!(dispatched(&stream), vec![expected]);
    }
}

#[test]
fn the_head_leaves_at_once_and_is_one_of_events() {
    let client = client();
    let mut connection = listening(&client, "/events");
    let head = connection.received();
    let head = text(&head);
    for line in [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
    ] {
        assert!(head.to_lowercase().contains(&format!("{}\r\n", line.to_lowercase())), "{line} in {head}");
    }
    send(&client, Event::data("one"));
    assert_eq!(heard(&mut connection), "data: one\n\n");
    let head = client.request(Method::HEAD, "/events").send();
    assert_eq!((head.header("content-type"), head.body.len()), (Some("text/event-stream"), 0));
}

#[test]
fn a_client_that_has_heard_nothing_for_a_while_is_sent_a_comment() {
    let client = client();
    let mut connections = [listening(&client, "/events"), listening(&client, "/quiet")];
    connections.iter_mut().for_each(|connection| assert_eq!(heard(connection), ""));
    client.advance(Duration::from_secs(10));
    send(&client, Event::data("one"));
    client.advance(Duration::from_millis(14_900));
    connections.iter_mut().for_each(|connection| assert_eq!(heard(connection), "data: one\n\n"));
    client.advance(Duration::from_millis(200));
    assert_eq!(connections.each_mut().map(heard), [":\n\n", ""]);
    client.advance(Duration::from_secs(45));
    assert_eq!(connections.each_mut().map(heard), [":\n\n:\n\n:\n\n", ""]);
}

#[test]
fn a_client_that_does_not_read_fills_its_queue_and_is_let_go_by_who_sends() {
    let client = client();
    let mut connection = listening(&client, "/events");
    connection.stop_reading();
    let large = Event::data("x".repeat(200_000));
    let sent = tell(&client, move |listeners| {
        let mut sent = 0;
        while listeners[0].try_send(large.clone()).is_ok() {
            sent += 1;
        }
        assert!(matches!(listeners[0].try_send(large.clone()), Err(TrySendError::Full(_))));
        sent
    });
    assert_eq!(sent, 4, "as many as the channel holds, as nothing has left meanwhile");
    let beyond = (0..40)
        .filter(|_| {
            tell(&client, |listeners| listeners[0].try_send(Event::data("x".repeat(200_000))).is_ok())
        })
        .count();
    assert!(beyond < 10, "{beyond} more were taken by the queues below");
    tell(&client, Vec::clear);
    connection.start_reading();
    client.run();
    let response = connection.response().expect("all that was queued, and the end");
    assert_eq!(response.body.len(), (sent + beyond) * 200_008);
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_drain_ends_the_stream_behind_what_is_queued() {
    let client = client();
    let mut connection = listening(&client, "/events");
    tell(&client, |listeners| {
        for data in ["one", "two"] {
            listeners[0].try_send(Event::data(data)).expect("room");
        }
    });
    client.begin_drain(Duration::from_secs(60));
    assert_eq!(connection.response().expect("an end").text(), "data: one\n\ndata: two\n\n");
    assert!(tell(&client, |listeners| listeners[0].is_closed()));
}

#[test]
fn a_drain_ends_a_stream_of_who_never_rests() {
    let endless = |_: &Request<'_>| {
        Events::run(async |client| {
            let event = Event::data("x".repeat(100_000));
            for _ in 0..100_000 {
                client.send(event.clone()).await?;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        })
    };
    let client = App::new(move |_| Router::new().get("/events", endless)).test();
    let mut connection = client.connect();
    connection.put(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        client.turn();
    }
    assert!(connection.received().len() > 1_000_000);
    client.world(|sim| sim.begin_drain(Duration::from_secs(60)));
    for _ in 0..100 {
        client.turn();
    }
    assert!(connection.received().ends_with(b"\r\n0\r\n\r\n"), "what was queued, and an end");
}

#[test]
fn a_client_that_leaves_closes_the_channel_and_ends_its_task() {
    thread_local!(static DROPPED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) });
    struct Dropped(u32);
    impl Drop for Dropped {
        fn drop(&mut self) {
            DROPPED.with_borrow_mut(|dropped| dropped.push(self.0));
        }
    }
    let count = |req: &Request<'_>| {
        let last: u32 = req.last_event_id().and_then(|id| id.parse().ok()).unwrap_or(0);
        Events::run(async move |client| {
            let _dropped = Dropped(last);
            for n in last + 1..=last + 3 {
                client.send(Event::data("n").id(n.to_string())).await?;
                sleep(Duration::from_secs(1)).await;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        })
    };
    let forever = async |_: Request| Events::run(async |_| pending::<()>().await);
    let router =
        move |_: &_| Router::new().get("/count", count).get("/forever", forever.limits(Default::default()));
    let app = App::new(router);
    let client = app.test();
    for leaves in [TestConnection::finish, TestConnection::reset] {
        let mut connection = client.connect();
        connection.send(b"GET /count HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 7\r\n\r\n");
        assert_eq!(heard(&mut connection), "data: n\nid: 8\n\n");
        leaves(&mut connection);
        client.run();
        assert_eq!((DROPPED.take(), client.open()), (vec![7], 0));
    }
    let whole = client.get("/count");
    assert_eq!(whole.text().matches("data: n\n").count(), 3, "it ends when the task does");
    assert_eq!(DROPPED.take(), [0]);

    let mut connection = listening(&client, "/forever");
    client.begin_drain(Duration::from_secs(60));
    assert_eq!(connection.response().expect("an end").text(), "");
    let stats = client.stats();
    assert_eq!((stats.panics, client.blocks_in_use()), (0, 0));
}

#[test]
fn the_old_protocol_hears_them_until_the_connection_ends() {
    let client = client();
    let mut connection = client.connect();
    connection.send(b"GET /events HTTP/1.0\r\n\r\n");
    send(&client, Event::data("one"));
    tell(&client, Vec::clear);
    let bytes = connection.received();
    assert!(bytes.ends_with(b"\r\n\r\ndata: one\n\n") && connection.is_closed(), "{}", text(&bytes));
}

#[test]
fn an_answer_of_events_may_have_more_headers() {
    let named = |_: &Request<'_>| {
        let (_, events) = Events::channel(1);
        events.into_response().header("x-stream", "news")
    };
    let client = App::new(move |_| Router::new().get("/", named)).test();
    let response = client.get("/");
    assert_eq!((response.header("x-stream"), response.text()), (Some("news"), ""));
}
