//! What the hook of `on_complete` is told, however a request ends.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::task::Context;
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol};
use netpoll_http::{
    App, Body, BodyBuf, BodyReader, BodySink, Completed, Error, Files, IntoResponse, Limits, Outcome, Parts,
    Pull, Refusal, Request, Response, RouteLimits, Router, StatusCode, TestClient, routes, sink,
};

/// What is kept of a request that is over.
#[derive(Debug, PartialEq)]
struct Seen {
    line: String,
    status: Option<u16>,
    outcome: Outcome,
    bytes_in: u64,
    bytes_out: u64,
    times: [Duration; 3],
}

impl Seen {
    fn of(done: &Completed<'_>) -> Self {
        Self {
            line: format!(
                "{} {} {}",
                done.request.method_str(),
                done.request.target(),
                done.route.unwrap_or("-")
            ),
            status: done.status.map(|status| status.as_u16()),
            outcome: done.outcome,
            bytes_in: done.bytes_in,
            bytes_out: done.bytes_out,
            times: [done.queue, done.handler, done.send],
        }
    }

    fn brief(&self) -> (&str, Option<u16>, Outcome) {
        (&self.line, self.status, self.outcome)
    }
}

struct Echo;
impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

fn stream(last: Pull) -> Response {
    let mut last = Some(last);
    Response::text(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
        out.extend(b"half");
        last.take().unwrap_or(Pull::Done)
    }))
}

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request| "hello")
        .get("/orders/{id}", |req: &Request| req.param::<u64>("id").map(|id| id.to_string()))
        .post("/echo", |req: &Request| req.body().to_vec())
        .get("/async", async |_: Request| "later")
        .get("/waits", async |_: Request| {
            netpoll_core::time::sleep(Duration::from_secs(5)).await;
            "at last"
        })
        .get("/for_ever", async |_: Request| std::future::pending::<()>().await)
        .get("/panics", |_: &Request| -> &str { panic!("as told") })
        .get("/panics_later", async |_: Request| -> &'static str { panic!("as told") })
        .get("/stream", |_: &Request| stream(Pull::More))
        .get("/fails", |_: &Request| stream(Pull::Failed))
        .get("/hangs", |_: &Request| {
            Response::text(Body::stream(|_: &mut Context<'_>, _: &mut BodyBuf<'_>| Pull::Wait))
        })
        .get("/large", |_: &Request| vec![b'x'; 1 << 20])
        .get("/upgrade", |req: &Request| match req.upgrade("echo") {
            Some(upgrade) => upgrade.accept(Echo),
            None => Response::new(StatusCode::UPGRADE_REQUIRED),
        })
        .nest("/deep", Router::new().get("/", |_: &Request| "root").get("/{a}", |_: &Request| "leaf"))
}

fn watched() -> (TestClient, Receiver<Seen>) {
    watched_with(Limits::default(), router)
}

fn watched_with(limits: Limits, router: fn() -> Router) -> (TestClient, Receiver<Seen>) {
    let (sender, seen) = channel();
    let app = App::new(move |_| router()).limits(limits).on_complete(move |_worker| {
        let sender = sender.clone();
        move |done: &Completed<'_>| sender.send(Seen::of(done)).expect("the test listens")
    });
    (app.test(), seen)
}

const REST: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path}{REST}").into_bytes()
}

/// The one request that was told of, and none more.
#[track_caller]
fn only(seen: &Receiver<Seen>) -> Seen {
    let one = seen.try_recv().expect("a request that is over");
    assert_eq!(seen.try_recv().ok(), None, "once");
    one
}

#[test]
fn an_answered_request_is_told_of_with_its_pattern_its_status_and_its_bytes() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    let request = get("/orders/17?a=b");
    connection.send(&request);
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /orders/17?a=b /orders/{id}", Some(200), Outcome::Answered));
    assert_eq!((one.bytes_in, one.bytes_out), (request.len() as u64, answer.len() as u64));
    assert_eq!(one.times, [Duration::ZERO; 3], "all in one turn");
}

#[test]
fn a_body_that_is_read_while_it_arrives_is_counted_as_far_as_it_was_received() {
    fn reading() -> Router {
        let read = async |_: Request, mut body: BodyReader| {
            while body.chunk().await?.is_some() {}
            Ok("read")
        };
        struct Nothing;
        impl BodySink for Nothing {
            fn chunk(&mut self, _: &[u8]) -> Result<(), Error> {
                Ok(())
            }
            fn end(self, _: &Request<'_>) -> impl IntoResponse {
                "poured"
            }
        }
        Router::new()
            .post("/read", read)
            .post("/echo", async |_: Request, body: BodyReader| Response::bytes(body))
            .post("/pour", sink(|_: &Request| Ok(Nothing)))
    }
    let (client, seen) = watched_with(Limits::default(), reading);
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes()
    };
    let body = b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n";
    for path in ["/read", "/echo", "/pour"] {
        let mut connection = client.connect();
        connection.send(&head(path));
        client.advance(Duration::from_secs(2));
        connection.send(&body[..10]);
        connection.send(&body[10..]);
        let one = only(&seen);
        let line = format!("POST {path} {path}");
        assert_eq!(one.brief(), (line.as_str(), Some(200), Outcome::Answered));
        let (bytes_in, bytes_out) = (head(path).len() + body.len(), connection.received().len());
        assert_eq!((one.bytes_in, one.bytes_out), (bytes_in as u64, bytes_out as u64), "{path}");

        let mut leaving = client.connect();
        leaving.send(&[head(path), body[..10].to_vec()].concat());
        leaving.finish();
        let one = only(&seen);
        let status = (path == "/echo").then_some(200);
        let outcome = if path == "/echo" { Outcome::BrokenOff } else { Outcome::Abandoned };
        assert_eq!(one.brief(), (line.as_str(), status, outcome));
        assert_eq!(one.bytes_in, (head(path).len() + 10) as u64, "{path}");
    }
    for (behind, status, refusal) in [("", 408, Refusal::Late), ("x", 400, Refusal::Malformed)] {
        let mut connection = client.connect();
        connection.send(&head("/read"));
        connection.send(behind.as_bytes());
        client.advance(Duration::from_secs(6));
        assert_eq!(only(&seen).brief(), ("POST /read /read", Some(status), Outcome::Refused(refusal)));
    }
}

#[test]
fn each_of_a_pipeline_is_told_of_once_and_in_order() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(&[get("/"), get("/orders/x"), get("/async"), get("/stream"), get("/")].concat());
    connection.received();
    let lines: Vec<Seen> = seen.try_iter().collect();
    let lines: Vec<_> = lines.iter().map(|seen| (&*seen.line, seen.status)).collect();
    let expected = [
        ("GET / /", Some(200)),
        ("GET /orders/x /orders/{id}", Some(400)),
        ("GET /async /async", Some(200)),
        ("GET /stream /stream", Some(200)),
        ("GET / /", Some(200)),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_refusal_by_the_layer_is_told_of_with_its_reason() {
    let refused = |bytes: &[u8]| {
        let (client, seen) = watched();
        let answer = client.raw(bytes);
        let one = only(&seen);
        let said = std::str::from_utf8(&answer[9..12]).expect("a status").parse().ok();
        assert_eq!(one.status, said, "{one:?}");
        assert_eq!((one.bytes_out, one.bytes_in > 0), (answer.len() as u64, true), "{one:?}");
        match one.outcome {
            Outcome::Refused(refusal) => (refusal, one.line),
            outcome => panic!("{outcome}"),
        }
    };
    let unread = "-  -".to_owned();
    assert_eq!(refused(b"nonsense\r\n\r\n"), (Refusal::Malformed, unread.clone()));
    assert_eq!(refused(&get(&format!("/{}", "a".repeat(20_000)))), (Refusal::TargetTooLong, unread.clone()));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(64_000));
    assert_eq!(refused(many.as_bytes()), (Refusal::HeadTooLarge, unread.clone()));
    assert_eq!(refused(b"GET / HTTP/2.0\r\n\r\n"), (Refusal::Version, unread));
    assert_eq!(refused(&get("/nowhere")), (Refusal::NotFound, "GET /nowhere -".to_owned()));
    assert_eq!(refused(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").0, Refusal::MethodNotAllowed);
    assert_eq!(refused(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n").0, Refusal::NotImplemented);
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), (Refusal::Malformed, "GET / -".to_owned()), "no host");
    assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n").0, Refusal::Expectation);
    let large = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(refused(large), (Refusal::BodyTooLarge, "POST /echo /echo".to_owned()));
    let chunk = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(refused(chunk), (Refusal::Malformed, "POST /echo /echo".to_owned()));
}

#[test]
fn a_head_or_a_body_that_is_late_is_refused_and_its_time_is_told() {
    let limits = Limits::default();
    let (head, body) = (limits.head_timeout, limits.body_grace);
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(b"GET / HT");
    connection.advance(head);
    let one = only(&seen);
    assert_eq!(one.brief(), ("-  -", Some(408), Outcome::Refused(Refusal::Late)));
    assert_eq!(one.times, [head, Duration::ZERO, Duration::ZERO]);

    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    connection.advance(body);
    let one = only(&seen);
    assert_eq!(one.brief(), ("POST /echo /echo", Some(408), Outcome::Refused(Refusal::Late)));
    assert_eq!(one.times[0], body);
}

#[test]
fn the_time_of_a_request_is_that_of_its_body_then_of_its_handler() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head.as_bytes());
    connection.advance(Duration::from_secs(2));
    connection.send(b"5\r\nhello\r\n0\r\n\r\n");
    let one = only(&seen);
    assert_eq!(one.times, [Duration::from_secs(2), Duration::ZERO, Duration::ZERO]);
    assert_eq!(one.bytes_in, head.len() as u64 + 15, "as they were on the wire");

    connection.send(&get("/waits"));
    assert_eq!(seen.try_recv().ok(), None, "not yet");
    connection.advance(Duration::from_secs(5));
    assert_eq!(only(&seen).times, [Duration::ZERO, Duration::from_secs(5), Duration::ZERO]);
}

#[test]
fn a_handler_that_is_late_and_one_that_panics_are_told_apart() {
    let (client, seen) = watched_with(Limits::default(), || {
        router().limits(RouteLimits::default().handler_timeout(Duration::from_secs(3)))
    });
    let mut connection = client.connect();
    connection.send(&get("/for_ever"));
    connection.advance(Duration::from_secs(3));
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /for_ever /for_ever", Some(503), Outcome::Refused(Refusal::HandlerLate)));
    assert_eq!(one.times[1], Duration::from_secs(3));

    for path in ["/panics", "/panics_later"] {
        assert_eq!(client.get(path).status, StatusCode::INTERNAL_SERVER_ERROR);
        let one = only(&seen);
        assert_eq!((one.status, one.outcome), (Some(500), Outcome::Panicked), "{path}");
    }
}

fn failing() -> Router {
    let source = || io::Error::other("no route to 10.0.0.7\n\u{1b}[31mä");
    let hooked = |path: &str| Router::new().get(path, |_: &Request| "well");
    let pieces = |_: &mut Context<'_>, _: &mut BodyBuf<'_>| -> Pull { panic!("a piece is missing") };
    Router::new()
        .get("/well", |_: &Request| "well")
        .get("/database", move |_: &Request| -> Result<(), Error> { Err(source().into()) })
        .get("/later", async move |_: Request| -> Result<(), Error> { Err(source().into()) })
        .get("/away", |_: &Request| -> Result<(), Error> {
            let error = Error::new(StatusCode::SERVICE_UNAVAILABLE, "try later");
            Err(error.with_source(Error::internal("the pool is empty")))
        })
        .get("/mine", |_: &Request| -> Result<(), Error> {
            Err(Error::bad_request("no tea").with_source("the peer's"))
        })
        .get("/status", |_: &Request| StatusCode::BAD_GATEWAY)
        .get("/panics", |_: &Request| -> &str { panic!("cup {} is broken", 7) })
        .get("/panics_later", async |_: Request| -> &'static str { panic!("the kettle") })
        .get("/panics_silently", |_: &Request| -> &str { std::panic::panic_any(7) })
        .get("/stream", move |_: &Request| Response::text(Body::stream(pieces)))
        .merge(hooked("/before").before(|_: &Request| -> Option<Response> { panic!("a hook before") }))
        .merge(hooked("/after").after(|_: &Request, _: &mut Parts| panic!("a hook after")))
        .get("/for_ever", async |_: Request| std::future::pending::<()>().await)
}

#[test]
fn of_an_answer_of_5xx_the_hook_is_told_why_and_of_a_panic_what_it_said() {
    let (sender, seen) = channel();
    let client = App::new(|_| failing())
        .on_complete(move |_worker| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(done.error.map(str::to_owned)).expect("the test listens")
        })
        .test();
    let why = |path: &str| {
        let mut connection = client.connect();
        connection.send(&get(path));
        connection.advance(Limits::default().handler_timeout);
        let answer = String::from_utf8_lossy(&connection.received()).into_owned();
        let why = seen.try_recv().expect("a request that is over");
        assert!(seen.try_recv().is_err(), "once");
        assert!(["10.0.0.7", "pool", "cup", "hook"].iter().all(|word| !answer.contains(word)), "{answer}");
        why
    };
    let source = Some("no route to 10.0.0.7\n\u{1b}[31mä");
    for (path, expected) in [
        ("/database", source),
        ("/well", None),
        ("/later", source),
        ("/away", Some("try later: 500 internal server error: the pool is empty")),
        ("/mine", None),
        ("/status", None),
        ("/panics", Some("cup 7 is broken")),
        ("/panics_later", Some("the kettle")),
        ("/panics_silently", None),
        ("/stream", Some("a piece is missing")),
        ("/before", Some("a hook before")),
        ("/after", Some("a hook after")),
        ("/for_ever", Some("the answer took too long to make: the handler was dropped at its deadline")),
        ("/nowhere", None),
    ] {
        assert_eq!(why(path).as_deref(), expected, "{path}");
    }
}

#[test]
fn a_client_that_leaves_before_its_answer_is_told_of_without_a_status() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(&get("/waits"));
    connection.advance(Duration::from_secs(1));
    connection.close();
    client.run();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /waits /waits", None, Outcome::Abandoned));
    assert_eq!(one.times, [Duration::ZERO, Duration::from_secs(1), Duration::ZERO]);

    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    connection.close();
    client.run();
    assert_eq!(only(&seen).brief(), ("POST /echo /echo", None, Outcome::Abandoned));

    let mut connection = client.connect();
    connection.send(&get("/for_ever"));
    connection.reset();
    client.run();
    assert_eq!(only(&seen).brief(), ("GET /for_ever /for_ever", None, Outcome::Abandoned));
}

#[test]
fn a_stream_is_told_of_when_it_is_over_and_how() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(&get("/stream"));
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /stream /stream", Some(200), Outcome::Answered));
    assert_eq!(one.bytes_out, answer.len() as u64);

    connection.send(&get("/fails"));
    assert_eq!(only(&seen).brief(), ("GET /fails /fails", Some(200), Outcome::BrokenOff));

    let mut connection = client.connect();
    connection.send(&get("/hangs"));
    connection.advance(Duration::from_secs(7));
    assert_eq!(seen.try_recv().ok(), None, "not yet");
    connection.close();
    client.run();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /hangs /hangs", Some(200), Outcome::Abandoned));
    assert_eq!(one.times[2], Duration::from_secs(7));
}

#[test]
fn a_long_answer_is_told_of_when_the_last_of_it_was_taken() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.set_window(64 * 1024);
    connection.stop_reading();
    connection.send(&get("/large"));
    connection.advance(Duration::from_millis(1500));
    assert_eq!(seen.try_recv().ok(), None, "its client does not read");
    connection.start_reading();
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /large /large", Some(200), Outcome::Answered));
    assert_eq!(one.bytes_out, answer.len() as u64);
    assert!(one.times[2] >= Duration::from_millis(1500), "{one:?}");

    connection.stop_reading();
    connection.send(&get("/large"));
    connection.reset();
    client.run();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /large /large", Some(200), Outcome::Abandoned), "not all was taken");
}

#[test]
fn a_long_answer_that_the_kernel_takes_at_once_is_told_of_as_well_and_behind_it_the_end() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(&get("/large"));
    connection.received();
    assert_eq!(only(&seen).brief(), ("GET /large /large", Some(200), Outcome::Answered));

    connection.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.received();
    connection.close();
    client.run();
    assert_eq!(only(&seen).brief(), ("GET /large /large", Some(200), Outcome::Answered));
}

#[test]
fn answers_behind_one_that_waits_are_told_of_once_each() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.set_window(1 << 20);
    connection.stop_reading();
    connection.send(&get("/large"));
    connection.send(&get("/").repeat(100));
    connection.start_reading();
    connection.received();
    connection.run();
    let told: Vec<Seen> = seen.try_iter().collect();
    assert_eq!(told.len(), 101);
    assert!(told.iter().all(|one| one.outcome == Outcome::Answered));
}

#[test]
fn an_upgrade_is_told_of_when_the_connection_changes_hands_and_one_too_late_is_a_refusal() {
    let (client, seen) = watched();
    let upgrade = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut connection = client.connect();
    connection.send(upgrade);
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /upgrade /upgrade", Some(101), Outcome::Upgraded));
    assert_eq!(one.bytes_out, answer.len() as u64);
    connection.send(b"hello");
    connection.close();
    client.run();
    assert_eq!(seen.try_recv().ok(), None, "what follows is no request");

    let mut connection = client.connect();
    client.begin_drain(Duration::from_secs(10));
    connection.send(upgrade);
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /upgrade /upgrade", Some(503), Outcome::Refused(Refusal::UpgradeTooLate)));
    assert_eq!(one.bytes_out, answer.len() as u64);
}

#[test]
fn what_the_deadline_of_a_drain_cuts_is_told_of_as_cut() {
    let (client, seen) = watched();
    let (mut waits, mut hangs) = (client.connect(), client.connect());
    waits.send(&get("/for_ever"));
    hangs.send(&get("/hangs"));
    client.begin_drain(Duration::from_secs(2));
    client.advance(Duration::from_secs(2));
    let mut told: Vec<Seen> = seen.try_iter().collect();
    told.sort_by(|a, b| a.line.cmp(&b.line));
    let told: Vec<_> = told.iter().map(Seen::brief).collect();
    let expected =
        [("GET /for_ever /for_ever", None, Outcome::Cut), ("GET /hangs /hangs", Some(200), Outcome::Cut)];
    assert_eq!(told, expected);
}

#[test]
fn a_file_is_told_of_with_all_its_bytes() {
    let folder = std::env::temp_dir().join(format!("netpoll-completed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("a.txt"), "some text").expect("a file");
    let (sender, seen) = channel();
    let path = folder.clone();
    let client = App::new(move |_| Ok(Router::new().get("/files/{*path}", Files::new(&path)?)))
        .on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(Seen::of(done)).expect("the test listens")
        })
        .test();
    let mut connection = client.connect();
    connection.send(&get("/files/a.txt"));
    let answer = connection.received();
    let one = only(&seen);
    assert_eq!(one.brief(), ("GET /files/a.txt /files/{*path}", Some(200), Outcome::Answered));
    assert_eq!(one.bytes_out, answer.len() as u64);
    std::fs::remove_dir_all(folder).expect("it was made above");
}

#[test]
fn patterns_are_told_as_they_are_from_the_root() {
    let (client, seen) = watched();
    for (path, pattern) in [("/deep", "/deep"), ("/deep/", "/deep"), ("/deep/7", "/deep/{a}")] {
        client.get(path);
        assert_eq!(only(&seen).line, format!("GET {path} {pattern}"));
    }
    let (sender, seen) = channel();
    let table = |_: &_| routes! { GET "/a/{b}" => |_: &Request| "c" };
    let client = App::new(table)
        .on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(Seen::of(done)).expect("the test listens")
        })
        .test();
    client.get("/a/7");
    assert_eq!(only(&seen).line, "GET /a/7 /a/{b}");
}

#[test]
fn what_hooks_have_found_out_is_there_when_a_request_is_over() {
    struct User(&'static str);
    let (sender, users) = channel();
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/async", async |_: Request| "hello")
            .before(|req: &Request| req.extensions().insert(User("Ada")))
            .before(async |_: Request| Ok::<(), Error>(()))
    })
    .on_complete(move |_| {
        let sender = sender.clone();
        move |done: &Completed<'_>| {
            let user = done.request.extensions().get::<User>().map(|user| user.0);
            sender.send(user).expect("the test listens");
        }
    })
    .test();
    client.get("/");
    client.get("/async");
    assert_eq!(users.try_iter().collect::<Vec<_>>(), [Some("Ada"), Some("Ada")]);
}

#[test]
fn a_hook_that_panics_costs_nothing_but_is_counted_and_the_next_is_called() {
    let (sender, seen) = channel();
    let client = App::new(|_| router())
        .on_complete(|_| |_: &Completed<'_>| panic!("as told"))
        .on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(Seen::of(done)).expect("the test listens")
        })
        .test();
    let mut connection = client.connect();
    connection.send(&get("/"));
    connection.send(&get("/"));
    assert_eq!((seen.try_iter().count(), client.stats().panics), (2, 2));
    assert!(!connection.is_closed());
}

#[test]
fn who_says_nothing_or_half_a_head_is_no_request() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(b"GET / HT");
    connection.close();
    client.connect().close();
    client.run();
    assert_eq!(seen.try_recv().ok(), None);
}

/// Panics when it is dropped.
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as told")
    }
}

#[test]
fn what_panics_when_its_client_has_left_is_counted_as_if_nobody_watched() {
    fn service() -> Router {
        let arm = |req: &Request| req.extensions().insert(std::sync::Mutex::new(Bomb));
        Router::new()
            .get("/waits", async |_: Request| {
                let _bomb = Bomb;
                std::future::pending::<()>().await
            })
            .nest("/armed", Router::new().before(arm).post("/", |_: &Request| "never"))
    }
    let (client, seen) = watched_with(Limits::default(), service);
    let lose = |request: &[u8]| {
        let mut connection = client.connect();
        connection.send(request);
        connection.reset();
        connection.run();
    };
    lose(&get("/waits"));
    assert_eq!((only(&seen).outcome, client.stats().panics), (Outcome::Abandoned, 1));
    lose(b"POST /armed HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(only(&seen).outcome, Outcome::Abandoned);
    client.get("/nowhere");
    assert_eq!(client.stats().panics, 2, "where the next request is over");
}

#[test]
fn a_head_that_is_late_or_refused_has_the_bytes_that_have_come() {
    let (client, seen) = watched();
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\n");
    connection.send(b"Host: a");
    connection.advance(Limits::default().head_timeout);
    let late = only(&seen);
    assert_eq!((late.outcome, late.bytes_in), (Outcome::Refused(Refusal::Late), 23));
    let mut connection = client.connect();
    for part in get("/").chunks(5) {
        connection.send(part);
    }
    assert_eq!(only(&seen).bytes_in, get("/").len() as u64, "each byte once");
}
