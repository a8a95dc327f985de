//! Bodies that handlers read while they arrive: in pieces, no faster than they are taken, and with an end that says whose fault it is.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::task::{self, spawn_local};
use netpoll_core::time::{sleep, timeout};
use netpoll_http::{
    App, Body, BodyBuf, BodyError, BodyReader, Error, Handler, IntoResponse, Limits, Method, Params, Parts,
    Pull, Replied, Reply, Request, Response, Route, RouteId, RouteLimits, Router, Service, StatusCode,
    TestClient, TestConnection, routes,
};

use crate::text;

/// What handlers have seen, in their order.
#[derive(Default)]
struct Seen(RefCell<Vec<String>>);

impl Seen {
    fn say(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }
}

fn seen(client: &TestClient) -> Vec<String> {
    client.world(|sim| sim.block_on(async { task::state::<Seen>().0.take() }))
}

/// Reads on and on, and says what it has read.
async fn tell(_: Request<'static>, mut body: BodyReader) -> Result<String, Error> {
    let seen = task::state::<Seen>();
    seen.say("called");
    loop {
        match body.chunk().await {
            Ok(Some(chunk)) => seen.say(String::from_utf8_lossy(&chunk)),
            Ok(None) => break,
            Err(error) => {
                seen.say(format!("{error:?}"));
                return Err(error.into());
            }
        }
    }
    let trailers = body.trailers().map(|(name, value)| format!("{name}={};", text(value)));
    Ok(format!("all {}", trailers.collect::<String>()))
}

/// All of it, at once.
async fn gather(_: Request<'static>, mut body: BodyReader) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn echo(_: Request<'static>, body: BodyReader) -> Response {
    Response::bytes(body)
}

fn any_length() -> RouteLimits {
    RouteLimits::default().unlimited_body()
}

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request| "root")
        .post("/tell", tell)
        .post("/gather", gather.limits(any_length()))
        .post("/small", gather.limits(RouteLimits::default().body_bytes_max(5)))
        .post("/echo", echo.limits(any_length()))
        .post("/late", (async |_: Request, _body: BodyReader| pending::<()>().await).limits(any_length()))
        .post("/at-once", (async |_: Request, body: BodyReader| drop(body)).limits(any_length()))
}

fn app(options: Options) -> TestClient {
    App::new(|_| router()).state(|_| Seen::default()).test_with(options)
}

fn client() -> TestClient {
    app(Options::default())
}

fn post(path: &str, framing: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes()
}

fn chunked(path: &str) -> Vec<u8> {
    post(path, "Transfer-Encoding: chunked")
}

fn sized(path: &str, length: usize) -> Vec<u8> {
    post(path, &format!("Content-Length: {length}"))
}

fn begun(client: &TestClient, head: &[u8]) -> TestConnection {
    let mut connection = client.connect();
    connection.send(head);
    connection
}

#[test]
fn a_handler_is_called_when_the_head_is_there_and_gets_pieces_as_they_come() {
    let client = client();
    let mut connection = begun(&client, &sized("/tell", 8));
    assert_eq!(seen(&client), ["called"]);
    connection.send(b"one");
    assert_eq!(seen(&client), ["one"]);
    connection.send(b"three");
    assert_eq!(seen(&client), ["three"]);
    assert_eq!(connection.response().expect("an answer").text(), "all ");
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_body_that_comes_with_its_head_is_one_piece() {
    let client = client();
    let mut connection = begun(&client, &[sized("/tell", 3), b"one".to_vec()].concat());
    assert_eq!(seen(&client), ["called", "one"]);
    assert_eq!(connection.response().expect("an answer").text(), "all ");
    connection.send(&[chunked("/tell"), b"3\r\none\r\n2\r\nof\r\n0\r\nX-Sum: 5\r\n\r\n".to_vec()].concat());
    assert_eq!(seen(&client), ["called", "oneof"]);
    assert_eq!(connection.response().expect("an answer").text(), "all X-Sum=5;");
    connection.send(&sized("/tell", 0));
    assert_eq!(seen(&client), ["called"]);
    assert_eq!(connection.response().expect("an answer").text(), "all ");
}

#[test]
fn a_body_may_be_cut_anywhere_and_what_follows_it_is_the_next_request() {
    let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for path in ["/gather", "/echo"] {
        for body in [
            "Content-Length: 11\r\n\r\nhello world".to_owned(),
            "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
                .to_owned(),
        ] {
            let requests = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}{next}");
            for cut in 1..requests.len() {
                let mut connection = begun(&client(), &requests.as_bytes()[..cut]);
                connection.send(&requests.as_bytes()[cut..]);
                let place = format!("{path}, cut at {cut}");
                assert_eq!(connection.response().expect("an answer").text(), "hello world", "{place}");
                assert_eq!(connection.response().expect("the next").text(), "root", "{place}");
            }
            let mut connection = client().connect();
            requests.as_bytes().iter().for_each(|byte| connection.send(&[*byte]));
            assert_eq!(connection.response().expect("an answer").text(), "hello world", "{path}");
            assert_eq!(connection.response().expect("the next").text(), "root", "{path}");
        }
    }
}

#[test]
fn the_request_of_a_handler_that_reads_has_no_body() {
    let length = async |req: Request, body: BodyReader| format!("{} {:?}", req.body().len(), body.length());
    let client = App::new(move |_| Router::new().post("/", length)).test();
    let mut connection = begun(&client, &[sized("/", 3), b"one".to_vec()].concat());
    assert_eq!(connection.response().expect("an answer").text(), "0 Some(3)");
    connection.send(&sized("/", 3));
    assert_eq!(connection.response().expect("an answer").text(), "0 Some(3)");
    connection.send(b"one");
    connection.send(&chunked("/"));
    assert_eq!(connection.response().expect("an answer").text(), "0 None");
}

#[test]
fn a_table_of_compile_time_routes_and_nested_routers_read_as_well() {
    let table = |_: &_| routes! { POST "/a" => gather, GET "/" => |_: &Request| "root", POST "/b" => tell };
    let nested = move |worker: &_| Router::new().nest("/deep", table(worker));
    let clients = [
        ("", App::new(table).state(|_| Seen::default()).test()),
        ("/deep", App::new(nested).state(|_| Seen::default()).test()),
    ];
    for (prefix, client) in clients {
        let mut connection = begun(&client, &sized(&format!("{prefix}/b"), 3));
        assert_eq!(seen(&client), ["called"]);
        connection.send(b"one");
        assert_eq!(connection.response().expect("an answer").text(), "all ");
    }
}

#[test]
fn a_service_around_a_router_that_knows_nothing_of_it_has_bodies_as_a_whole() {
    struct Around(Router);
    impl Service for Around {
        fn find(&self, method: &str, path: &[u8], params: &mut Params) -> Route<'_> {
            self.0.find(method, path, params)
        }
        fn methods(&self) -> &str {
            self.0.methods()
        }
        fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
            self.0.call(route, request, reply)
        }
    }
    let client = App::new(|_| Around(router())).state(|_| Seen::default()).test();
    let mut connection = begun(&client, &chunked("/tell"));
    assert_eq!(seen(&client), [""; 0]);
    connection.send(b"3\r\none\r\n");
    connection.send(b"5\r\nthree\r\n0\r\nX-Sum: 8\r\n\r\n");
    assert_eq!(seen(&client), ["called", "onethree"]);
    assert_eq!(connection.response().expect("an answer").text(), "all X-Sum=8;");
}

#[test]
fn hooks_come_first_and_may_wait_and_those_behind_see_the_answer() {
    let sign_in = async |req: Request| {
        sleep(Duration::from_secs(1)).await;
        match req.header("x-key") {
            Some(_) => Ok(()),
            None => Err(Error::from(StatusCode::UNAUTHORIZED)),
        }
    };
    let mark = |req: &Request, parts: &mut Parts| {
        let value = req.path().parse().expect("a value");
        parts.headers.insert("x-path", value);
    };
    let app = App::new(move |_| router().before(sign_in).after(mark)).state(|_| Seen::default());
    let client = app.test();
    for (expect, hundred) in [("", ""), ("Expect: 100-continue\r\n", "HTTP/1.1 100 Continue\r\n\r\n")] {
        let head = post("/tell", &format!("X-Key: 7\r\n{expect}Content-Length: 3"));
        let mut connection = begun(&client, &head);
        assert_eq!((seen(&client), connection.received()), (vec![], vec![]));
        client.advance(Duration::from_secs(1));
        assert_eq!((seen(&client), text(&connection.received())), (vec!["called".to_owned()], hundred));
        connection.send(b"one");
        let response = connection.response().expect("an answer");
        assert_eq!((response.text(), response.header("x-path")), ("all ", Some("/tell")));
        seen(&client);

        let mut early = begun(&client, &[head, b"one".to_vec()].concat());
        client.advance(Duration::from_secs(1));
        assert_eq!(early.response().expect("an answer").text(), "all ");
        assert_eq!(seen(&client), ["called", "one"]);

        let refused = post("/tell", &format!("{expect}Content-Length: 3"));
        let mut refused = begun(&client, &refused);
        client.advance(Duration::from_secs(1));
        assert_eq!(refused.response().expect("an answer").status, StatusCode::UNAUTHORIZED);
        assert_eq!(seen(&client), [""; 0]);
    }
}

#[test]
fn a_client_is_told_to_continue_when_its_body_is_first_waited_for() {
    let slow = async |_: Request, mut body: BodyReader| {
        sleep(Duration::from_secs(3)).await;
        Ok(format!("{:?}", body.chunk().await?))
    };
    let app = App::new(move |_| router().post("/slow", slow)).state(|_| Seen::default());
    let client = app.test();
    let head = |path| post(path, "Expect: 100-continue\r\nContent-Length: 3");
    let mut connection = begun(&client, &head("/slow"));
    client.advance(Duration::from_millis(2900));
    assert_eq!(connection.received(), b"");
    client.advance(Duration::from_millis(200));
    assert_eq!(text(&connection.received()), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(b"one");
    assert_eq!(connection.response().expect("an answer").text(), "Some(b\"one\")");

    // Not if it has not waited, and what it was answered then is final: its body may come or not.
    let mut connection = begun(&client, &head("/at-once"));
    let response = connection.response().expect("an answer");
    assert_eq!((response.status, response.header("connection")), (StatusCode::NO_CONTENT, Some("close")));
    assert!(connection.response().is_none() && connection.is_closed());

    // Nor if it has begun to send by itself.
    let mut connection = begun(&client, &[head("/tell"), b"on".to_vec()].concat());
    assert_eq!(connection.received(), b"");
    connection.send(b"e");
    assert_eq!(connection.response().expect("an answer").text(), "all ");

    // In front of an answer that reads on.
    let mut connection = begun(&client, &head("/echo"));
    let head = connection.received();
    assert!(head.starts_with(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{}", text(&head));
    connection.send(b"one");
    assert_eq!(text(&connection.received()), "one");
}

#[test]
fn what_goes_wrong_with_a_body_is_the_end_of_its_reader_and_its_answer_says_so() {
    let large = [b"4\r\n".to_vec(), vec![b'x'; 4], b"\r\n2\r\n".to_vec()].concat();
    let trailers = [b"0\r\n".to_vec(), vec![b'x'; 5000]].concat();
    let cases = [
        (
            "malformed",
            chunked("/tell"),
            &b"3\r\none\r\n-1\r\n"[..],
            "Malformed(\"A chunk size is not 1 to 16 hexadecimal digits.\")",
            400_u16,
        ),
        (
            "cut",
            chunked("/tell"),
            b"3\r\nonetwo\r\n",
            "Malformed(\"A chunk size or its data is not followed by CRLF.\")",
            400,
        ),
        ("trailers", chunked("/tell"), &trailers, "TrailersTooLarge", 431),
        ("large", chunked("/five"), &large, "TooLarge", 413),
    ];
    for (name, head, body, error, status) in cases {
        let five = RouteLimits::default().body_bytes_max(5);
        for pieces in [1, body.len()] {
            let app = App::new(move |_| router().post("/five", tell.limits(five))).state(|_| Seen::default());
            let client = app.test();
            let mut connection = begun(&client, &head);
            body.chunks(pieces).for_each(|piece| connection.send(piece));
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(seen(&client).pop().as_deref(), Some(error), "{name}");
            let response = connection.response().expect("an answer");
            let said = (response.status.as_u16(), response.header("connection"));
            assert_eq!(said, (status, Some("close")), "{name}");
            assert!(connection.response().is_none() && connection.is_closed(), "{name}: nothing behind it");
            assert_eq!(client.blocks_in_use(), 0);
        }
    }
}

#[test]
fn a_body_that_is_announced_as_too_long_is_refused_in_front_of_its_handler() {
    let client = client();
    let mut connection = begun(&client, &sized("/small", 6));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(connection.is_closed());
    let mut connection = begun(&client, &sized("/gather", usize::MAX >> 1));
    connection.send(b"and so on");
    assert_eq!(connection.received(), b"", "there is no limit");
}

#[test]
fn a_client_that_ends_inside_a_body_is_told_of_and_gets_no_answer() {
    for (head, half) in [(sized("/tell", 4), &b"fo"[..]), (chunked("/tell"), b"2\r\nfo\r\n")] {
        for at_once in [false, true] {
            let client = client();
            let mut connection = client.connect();
            connection.put(&head);
            if !at_once {
                connection.run();
            }
            connection.put(half);
            connection.finish();
            assert_eq!(seen(&client), ["called", "fo", "Left"]);
            assert_eq!(connection.received(), b"");
            assert!(connection.is_closed() && !connection.is_reset());
            assert_eq!((client.open(), client.blocks_in_use(), client.stats().abandoned), (0, 0, 1));
        }
    }
}

#[test]
fn a_handler_whose_client_has_left_in_the_middle_may_clean_up() {
    let tidy = async |_: Request, mut body: BodyReader| {
        while let Ok(Some(_)) = body.chunk().await {}
        sleep(Duration::from_secs(2)).await;
        task::state::<Seen>().say("tidy");
        "which nobody hears"
    };
    let client = App::new(move |_| Router::new().post("/", tidy)).state(|_| Seen::default()).test();
    let mut connection = begun(&client, &sized("/", 4));
    connection.finish();
    assert_eq!((seen(&client), client.open()), (vec![], 1));
    client.advance(Duration::from_secs(2));
    assert_eq!((seen(&client), client.open()), (vec!["tidy".to_owned()], 0));
    assert_eq!(connection.received(), b"");

    let never = async |_: Request, mut body: BodyReader| {
        while let Ok(Some(_)) = body.chunk().await {}
        pending::<()>().await;
    };
    let client = App::new(move |_| Router::new().post("/", never)).test();
    let mut connection = begun(&client, &sized("/", 4));
    connection.finish();
    client.advance(Duration::from_secs(31));
    assert_eq!((connection.received(), client.open(), client.stats().abandoned), (vec![], 0, 1));
}

#[test]
fn a_client_that_is_gone_drops_the_handler_and_a_reader_elsewhere_is_told() {
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            task::state::<Seen>().say("dropped");
        }
    }
    let elsewhere = async |_: Request, mut body: BodyReader| {
        let _dropped = Dropped;
        spawn_local(async move {
            loop {
                let next = body.chunk().await;
                task::state::<Seen>().say(format!("{next:?}"));
                if next.is_err() {
                    break;
                }
            }
        })
        .detach();
        pending::<()>().await;
    };
    let client = App::new(move |_| Router::new().post("/", elsewhere)).state(|_| Seen::default()).test();
    let mut connection = begun(&client, &sized("/", 4));
    connection.send(b"fo");
    assert_eq!(seen(&client), ["Ok(Some(b\"fo\"))"]);
    connection.reset();
    client.run();
    let mut said = seen(&client);
    said.sort();
    assert_eq!(said, ["Err(Left)", "dropped"]);
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_body_ends_with_its_answer() {
    let elsewhere = async |_: Request, mut body: BodyReader| {
        spawn_local(async move {
            let ends = [body.chunk().await.map(|_| ()), body.chunk().await.map(|_| ())];
            task::state::<Seen>().say(format!("{ends:?}"));
        })
        .detach();
        "taken"
    };
    let app = App::new(move |_| Router::new().post("/", elsewhere).get("/", |_: &Request| "root"));
    let client = app.state(|_| Seen::default()).test();
    let mut connection = begun(&client, &sized("/", 4));
    assert_eq!(connection.response().expect("an answer").text(), "taken");
    assert_eq!(seen(&client), ["[Err(Answered), Err(Answered)]"]);
    connection.send(b"bodyGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the next").text(), "root", "and the rest is skipped");
}

#[test]
fn an_answer_in_front_of_the_end_skips_a_short_rest_and_closes_behind_a_long_one() {
    let first = async |_: Request, mut body: BodyReader| Ok(format!("{:?}", body.chunk().await?));
    let app =
        App::new(move |_| router().post("/first", first.limits(any_length()))).state(|_| Seen::default());
    let client = app.test();
    let next = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (head, half) in [(sized("/first", 65_538), &b"on"[..]), (chunked("/first"), b"10002\r\non")] {
        let mut connection = begun(&client, &head);
        connection.send(half);
        let response = connection.response().expect("an answer");
        assert_eq!((response.text(), response.header("connection")), ("Some(b\"on\")", None));
        let rest = vec![b'x'; 65_536];
        let end = if half.len() > 2 { &b"\r\n0\r\n\r\n"[..] } else { b"" };
        connection.send(&[&rest, end, next].concat());
        assert_eq!(connection.response().expect("the next").text(), "root");
    }
    let mut connection = begun(&client, &[sized("/first", 65_539), b"on".to_vec()].concat());
    assert_eq!(connection.response().expect("an answer").header("connection"), Some("close"));
    connection.send(&[vec![b'x'; 65_537].as_slice(), next].concat());
    assert!(connection.response().is_none() && connection.is_closed() && !connection.is_reset());

    // What was read does not count.
    let much = async |_: Request, mut body: BodyReader| {
        let mut read = 0;
        while read < 100_000 {
            read += body.chunk().await?.map_or(100_000, |chunk| chunk.len());
        }
        Ok("enough")
    };
    let app = App::new(move |_| router().post("/much", much.limits(any_length()))).state(|_| Seen::default());
    let mut connection = begun(&app.test(), &chunked("/much"));
    for _ in 0..3 {
        connection.send(&[&b"9c40\r\n"[..], &[b'x'; 40_000], b"\r\n"].concat());
    }
    assert_eq!(connection.response().expect("an answer").text(), "enough");
    connection.send(&[&b"9c40\r\n"[..], &[b'x'; 40_000], b"\r\n0\r\n\r\n", next].concat());
    assert_eq!(connection.response().expect("the next").text(), "root");

    // More than was said in chunks: what is left to say is nothing.
    let mut connection = begun(&client, &[chunked("/first"), b"2\r\non\r\n".to_vec()].concat());
    assert_eq!(connection.response().expect("an answer").text(), "Some(b\"on\")");
    connection.send(b"fffff\r\n");
    assert!(connection.response().is_none() && connection.is_closed());
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_body_that_nobody_reads_holds_its_client_back() {
    let take = async |_: Request, mut body: BodyReader| {
        let mut sizes = Vec::new();
        loop {
            sleep(Duration::from_secs(10)).await;
            match body.chunk().await? {
                Some(chunk) => sizes.push(chunk.len()),
                None => return Ok(format!("{sizes:?}")),
            }
        }
    };
    let limits = Limits::default().body_buffer_bytes(10_000);
    let client = App::new(move |_| Router::new().post("/", take)).limits(limits).test();
    let mut connection = begun(&client, &sized("/", 400_000));
    let before = client.stats().received_bytes;
    connection.send(&vec![b'x'; 400_000]);
    let received = |from: u64| client.stats().received_bytes - from;
    assert!(received(before) <= 128 << 10, "{} bytes were read ahead", received(before));
    let held = client.stats().held_input_bytes;
    assert!(held <= 128 << 10, "{held} bytes of input are kept");
    for _ in 0..40 {
        assert_eq!(connection.received(), b"");
        client.advance(Duration::from_secs(10));
    }
    client.advance(Duration::from_secs(10));
    let sizes = connection.response().expect("an answer");
    assert_eq!(sizes.text(), format!("{:?}", [10_000; 40]), "and nobody was cut for being slow");
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_client_that_is_waited_for_has_to_be_quick_and_what_it_has_sent_adds_up() {
    let client = client();
    let mut connection = begun(&client, &sized("/tell", 50_000));
    // Looked at every five seconds, in which 1280 bytes are asked for, however often the handler has gone round.
    for _ in 0..4 {
        for _ in 0..4 {
            connection.send(&[b'x'; 330]);
            connection.advance(Duration::from_millis(1250));
        }
        assert_eq!(connection.received(), b"");
    }
    for _ in 0..4 {
        connection.send(b"x");
        connection.advance(Duration::from_millis(1250));
    }
    assert_eq!(seen(&client).pop().as_deref(), Some("Late"));
    let response = connection.response().expect("an answer");
    assert_eq!(
        (response.status, response.header("connection")),
        (StatusCode::REQUEST_TIMEOUT, Some("close"))
    );
    assert!(connection.is_closed());
}

#[test]
fn what_was_waited_for_adds_up_over_all_that_a_handler_does_in_between() {
    let diligent = async |_: Request, mut body: BodyReader| {
        while body.chunk().await?.is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        Ok("all")
    };
    let client = App::new(move |_| Router::new().post("/", diligent.limits(any_length()))).test();
    let drip = |bytes: usize| {
        let mut connection = begun(&client, &sized("/", 100_000));
        for _ in 0..20 {
            connection.send(&vec![b'x'; bytes]);
            connection.advance(Duration::from_millis(500));
        }
        connection.response().map(|response| response.status.as_u16())
    };
    assert_eq!(drip(1), Some(408));
    assert_eq!(drip(150), None);
}

#[test]
fn a_wait_that_was_given_up_is_no_wait_of_the_client() {
    let busy = async |_: Request, mut body: BodyReader| {
        assert!(timeout(Duration::from_secs(1), body.chunk()).await.is_err());
        sleep(Duration::from_secs(20)).await;
        while body.chunk().await?.is_some() {}
        Ok("all")
    };
    let client = App::new(move |_| Router::new().post("/", busy)).test();
    let mut connection = begun(&client, &sized("/", 3));
    client.advance(Duration::from_secs(22));
    connection.send(b"one");
    assert_eq!(connection.response().expect("an answer").text(), "all");
}

#[test]
fn who_does_not_take_its_answer_is_not_late_with_its_body() {
    // Much at once, and then what is said to it.
    let greet = async |_: Request, mut body: BodyReader| {
        let mut greeting = Some(vec![b'x'; 2 << 20]);
        Response::bytes(Body::stream(move |cx: &mut Context<'_>, out: &mut BodyBuf<'_>| {
            let next = body.poll_chunk(cx);
            if let Some(greeting) = greeting.take() {
                out.extend(&greeting);
            }
            match next {
                Poll::Pending => Pull::Wait,
                Poll::Ready(Ok(Some(_))) => Pull::More,
                Poll::Ready(Ok(None)) => Pull::Done,
                Poll::Ready(Err(_)) => Pull::Failed,
            }
        }))
    };
    let client = App::new(move |_| Router::new().post("/", greet)).test();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(&sized("/", 3));
    client.advance(Duration::from_secs(9));
    connection.start_reading();
    connection.send(b"one");
    assert_eq!(connection.response().expect("an answer").body.len(), 2 << 20);
}

#[test]
fn a_client_that_listens_behind_its_end_has_its_answer_if_it_may() {
    let slow = async |_: Request, mut body: BodyReader| {
        let mut all = 0;
        while let Some(chunk) = body.chunk().await? {
            all += chunk.len();
            sleep(Duration::from_millis(50)).await;
        }
        Ok(all.to_string())
    };
    let limits = Limits::default().body_buffer_bytes(100).half_close(true);
    let client = App::new(move |_| Router::new().post("/", slow)).limits(limits).test();
    let mut connection = client.connect();
    connection.put(&[sized("/", 2000), vec![b'x'; 1500]].concat());
    connection.run();
    connection.put(&[b'x'; 500]);
    connection.finish();
    client.advance(Duration::from_secs(2));
    assert_eq!(connection.response().expect("an answer").text(), "2000");
    assert!(connection.is_closed());
}

#[test]
fn a_last_request_that_was_read_to_its_end_closes_without_lingering() {
    let client = client();
    let mut connection = begun(&client, &post("/gather", "Connection: close\r\nContent-Length: 3"));
    connection.send(b"one");
    assert_eq!(connection.response().expect("an answer").text(), "one");
    assert_eq!(client.open(), 0);
}

#[test]
fn time_is_the_handlers_while_it_leaves_its_body_alone_and_begins_anew_when_it_looks() {
    let slow = async |req: Request, mut body: BodyReader| {
        let pause: u64 = req.query("pause")?;
        while body.chunk().await?.is_some() {
            sleep(Duration::from_secs(pause)).await;
        }
        Ok("slow but steady")
    };
    let limits = Limits::default().body_buffer_bytes(10);
    let client = App::new(move |_| Router::new().post("/", slow)).limits(limits).test();
    let mut connection = begun(&client, &[sized("/?pause=29", 95), vec![b'x'; 95]].concat());
    let mut other = begun(&client, &sized("/?pause=31", 95));
    other.send(&[b'x'; 50]);
    client.advance(Duration::from_secs(29));
    assert_eq!(connection.response().expect("what is there is one piece").text(), "slow but steady");
    connection.send(&sized("/?pause=29", 95));
    connection.send(&[b'x'; 95]);
    for _ in 0..9 {
        client.advance(Duration::from_secs(29));
        assert_eq!(connection.received(), b"");
    }
    client.advance(Duration::from_secs(29));
    assert_eq!(connection.response().expect("an answer").text(), "slow but steady");
    assert_eq!(other.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(other.is_closed());
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_handler_that_has_its_body_and_does_not_answer_is_dropped_at_its_time() {
    let stuck = async |_: Request, mut body: BodyReader| {
        while body.chunk().await?.is_some() {}
        pending::<Result<(), Error>>().await
    };
    let client = App::new(move |_| Router::new().post("/", stuck)).test();
    let mut connection = begun(&client, &sized("/", 3));
    client.advance(Duration::from_secs(4));
    connection.send(b"one");
    client.advance(Duration::from_millis(29_900));
    assert_eq!(connection.received(), b"");
    client.advance(Duration::from_millis(200));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(connection.is_closed());
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    let patient = async |_: Request, mut body: BodyReader| {
        let (mut all, mut rounds) = (Vec::new(), 0);
        loop {
            match timeout(Duration::from_millis(100), body.chunk()).await {
                Ok(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(format!("{} in {rounds}", text(&all))),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => rounds += 1,
            }
        }
    };
    let client = App::new(move |_| Router::new().post("/", patient)).test();
    let mut connection = begun(&client, &sized("/", 9));
    for piece in ["one", "two", "six"] {
        client.advance(Duration::from_millis(1050));
        connection.send(piece.as_bytes());
    }
    assert_eq!(connection.response().expect("an answer").text(), "onetwosix in 30");
}

#[test]
fn a_handler_may_be_dropped_at_any_moment_and_leaves_nothing_behind() {
    let body = b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n";
    for sent in 0..body.len() {
        for path in ["/tell", "/late", "/echo", "/at-once"] {
            let client = client();
            let mut connection = begun(&client, &chunked(path));
            connection.send(&body[..sent]);
            connection.reset();
            client.run();
            let stats = client.stats();
            assert_eq!((client.open(), client.blocks_in_use(), stats.panics), (0, 0, 0), "{path}, {sent}");
        }
    }
}

#[test]
fn a_client_that_leaves_a_handler_that_does_not_read_cancels_it() {
    let client = client();
    // Its whole body waits, or a part of it with nobody to read it.
    let mut whole = begun(&client, &sized("/late", 3));
    whole.send(b"one");
    let dropping = async |_: Request, body: BodyReader| {
        drop(body);
        pending::<()>().await;
    };
    let other = App::new(move |_| Router::new().post("/", dropping)).test();
    let mut unread = begun(&other, &sized("/", 3));
    unread.send(b"o");
    for (connection, client) in [(&mut whole, &client), (&mut unread, &other)] {
        assert_eq!(client.open(), 1);
        connection.finish();
        assert!(connection.is_closed());
        assert_eq!((client.open(), client.blocks_in_use(), client.stats().abandoned), (0, 0, 1));
    }
}

#[test]
fn an_echo_of_any_length_goes_on_and_on_in_the_memory_of_a_few_pieces() {
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(600 << 10);
    let client = app(options);
    for head in [sized("/echo", 32 << 20), chunked("/echo")] {
        let is_chunked = head.windows(7).any(|window| window == b"chunked");
        let mut connection = begun(&client, &head);
        let (piece, mut came, mut received) = (vec![b'x'; 64 << 10], 0, Vec::new());
        for _ in 0..512 {
            if is_chunked {
                connection.put(b"10000\r\n");
            }
            connection.put(&piece);
            if is_chunked {
                connection.put(b"\r\n");
            }
            connection.run();
            received.clear();
            connection.drain_received(&mut received);
            came += received.iter().filter(|byte| **byte == b'x').count();
        }
        if is_chunked {
            connection.send(b"0\r\n\r\n");
        }
        assert_eq!(came, 32 << 20);
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let rest = connection.received();
        assert!(rest.ends_with(b"root"), "{}", text(&rest));
        assert_eq!((client.blocks_in_use(), client.stats().memory_overflows), (0, 0));
    }
}

#[test]
fn an_echo_to_who_does_not_read_holds_its_client_back_and_nobody_is_late() {
    let client = client();
    let mut connection = begun(&client, &sized("/echo", 8 << 20));
    connection.stop_reading();
    let before = client.stats().received_bytes;
    connection.send(&vec![b'x'; 8 << 20]);
    client.advance(Duration::from_secs(8));
    let read = client.stats().received_bytes - before;
    assert!(read < 1 << 20, "{read} bytes were read");
    connection.start_reading();
    client.run();
    assert_eq!(connection.response().expect("an answer").body.len(), 8 << 20);
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn an_echo_whose_client_stops_is_cut_and_does_not_look_whole() {
    for head in [sized("/echo", 20), chunked("/echo")] {
        for leaves in [false, true] {
            let client = client();
            let mut connection = begun(&client, &head);
            connection.send(b"2\r\non");
            match leaves {
                true => connection.finish(),
                false => client.advance(Duration::from_secs(6)),
            }
            assert!(connection.is_closed());
            assert!(connection.response().is_none(), "half an answer");
            client.advance(Duration::from_secs(20));
            assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
        }
    }
}

#[test]
fn a_drain_waits_for_a_body_and_the_answer_ends_the_connection() {
    let client = client();
    let mut connection = begun(&client, &sized("/tell", 6));
    connection.send(b"one");
    client.begin_drain(Duration::from_secs(60));
    client.advance(Duration::from_secs(4));
    assert_eq!(client.open(), 1);
    connection.send(b"two");
    let response = connection.response().expect("an answer");
    assert_eq!((response.text(), response.header("connection")), ("all ", Some("close")));
    connection.finish();
    client.advance(Duration::from_secs(3));
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn bodies_that_wait_and_pieces_that_are_kept_count_in_the_memory_of_their_worker() {
    thread_local!(static KEPT: RefCell<Vec<netpoll_core::Bytes>> = const { RefCell::new(Vec::new()) });
    let keep = async |_: Request, mut body: BodyReader| {
        while let Some(chunk) = body.chunk().await? {
            KEPT.with_borrow_mut(|kept| kept.push(chunk));
        }
        Ok("kept")
    };
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(1 << 20);
    let app = App::new(move |_| router().post("/keep", keep.limits(any_length()))).state(|_| Seen::default());
    let client = app.test_with(options);
    let upload = |path: &str, pieces: usize| {
        let mut connection = begun(&client, &sized(path, pieces * 50_000));
        (0..pieces).for_each(|_| connection.send(&[b'x'; 50_000]));
        connection
    };
    let refused = upload("/keep", 30).response().expect("an answer");
    assert_eq!(
        (refused.status, refused.header("connection")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("close"))
    );
    assert_eq!(client.stats().memory_overflows, 1);
    assert_eq!(client.post("/keep", "small").text(), "kept", "who brings little is served");
    KEPT.with_borrow_mut(Vec::clear);
    assert_eq!(upload("/gather", 40).response().expect("an answer").body.len(), 2_000_000);

    let waiting: Vec<_> = (0..30).map(|_| upload("/late", 1)).collect();
    assert!(client.stats().memory_overflows > 5, "what waits for handlers counts");
    drop(waiting);
    client.run();
    assert_eq!(upload("/gather", 40).response().expect("an answer").body.len(), 2_000_000);
}

#[test]
fn a_panic_of_a_handler_that_reads_costs_its_connection() {
    let careless = async |_: Request, mut body: BodyReader| {
        let chunk = body.chunk().await?;
        assert!(chunk.is_none(), "a chunk");
        Ok("none")
    };
    let client = App::new(move |_| Router::new().post("/", careless)).test();
    let mut connection = begun(&client, &sized("/", 6));
    connection.send(b"one");
    assert_eq!(connection.response().expect("an answer").status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(connection.is_closed());
    assert_eq!((client.stats().panics, client.blocks_in_use()), (1, 0));
}

#[test]
fn a_wakers_panic_costs_nobody_else_anything() {
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }
    let odd = async |_: Request, mut body: BodyReader| {
        let bomb = Waker::from(Arc::new(Bomb));
        let mut context = std::task::Context::from_waker(&bomb);
        assert!(body.poll_chunk(&mut context).is_pending());
        pending::<()>().await;
    };
    let client = App::new(move |_| Router::new().post("/", odd)).test();
    let mut connection = begun(&client, &sized("/", 6));
    connection.send(b"one");
    assert_eq!(client.stats().panics, 1);
    client.advance(Duration::from_secs(31));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn the_old_protocol_reads_as_well_and_head_and_get_have_no_body() {
    let client = client();
    let mut connection = begun(&client, b"POST /gather HTTP/1.0\r\nContent-Length: 6\r\n\r\none");
    connection.send(b"two");
    let answer = connection.received();
    assert!(answer.ends_with(b"onetwo") && connection.is_closed(), "{}", text(&answer));
    let app = App::new(|_| Router::new().get("/", gather)).test();
    assert_eq!(app.request(Method::GET, "/").body("short").send().text(), "", "nobody wants it");
    assert_eq!(app.request(Method::HEAD, "/").send().status, StatusCode::OK);
}

#[test]
fn parts_of_a_stream_and_of_a_body_go_on_side_by_side() {
    // Each piece is answered with its length, while the body goes on.
    let lengths = async |_: Request, mut body: BodyReader| {
        Response::text(Body::stream(move |cx: &mut Context<'_>, out: &mut BodyBuf<'_>| {
            match body.poll_chunk(cx) {
                Poll::Pending => Pull::Wait,
                Poll::Ready(Ok(Some(chunk))) => {
                    out.extend(format!("{};", chunk.len()).as_bytes());
                    Pull::More
                }
                Poll::Ready(Ok(None)) => Pull::Done,
                Poll::Ready(Err(_)) => Pull::Failed,
            }
        }))
    };
    let app = App::new(move |_| router().post("/lengths", lengths)).state(|_| Seen::default());
    let client = app.test();
    let mut connection = begun(&client, &sized("/lengths", 8));
    let head = connection.received();
    assert!(head.starts_with(b"HTTP/1.1 200"), "the head leaves at once");
    connection.send(b"one");
    assert_eq!(text(&connection.received()), "00000002\r\n3;\r\n");
    connection.send(b"threeGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = connection.received();
    assert!(rest.starts_with(b"00000002\r\n5;\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{}", text(&rest));
    assert!(rest.ends_with(b"root"));
}

#[test]
fn a_stream_that_does_not_read_the_rest_leaves_it_to_be_skipped_or_ends_the_connection() {
    let words = async |_: Request, _body: BodyReader| Response::text(Body::chunks(["one", "two"]));
    let app =
        App::new(move |_| router().post("/words", words.limits(any_length()))).state(|_| Seen::default());
    let client = app.test();
    let mut connection = begun(&client, &sized("/words", 5));
    assert_eq!(connection.response().expect("an answer").text(), "onetwo");
    connection.send(b"shortGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the next").text(), "root");
    let mut connection = begun(&client, &sized("/words", 1 << 20));
    let response = connection.response().expect("an answer");
    assert_eq!((response.text(), response.header("connection")), ("onetwo", Some("close")));
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(connection.response().is_none() && connection.is_closed());
}

#[test]
fn a_reader_that_is_polled_by_turns_in_a_task_holds_back_and_lets_go() {
    thread_local!(static GO: Cell<u32> = const { Cell::new(0) });
    let elsewhere = async |_: Request, mut body: BodyReader| {
        let read = Rc::new(Cell::new(0));
        let counted = Rc::clone(&read);
        let reading = spawn_local(async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                match body.chunk().await {
                    Ok(Some(chunk)) => counted.set(counted.get() + chunk.len()),
                    end => return end,
                }
            }
        });
        reading.await.map_err(Error::internal)??;
        Ok(read.get().to_string())
    };
    let limits = Limits::default().body_buffer_bytes(1000);
    let app = App::new(move |_| Router::new().post("/", elsewhere)).limits(limits);
    let client = app.test();
    let mut connection = begun(&client, &sized("/", 200_000));
    connection.send(&vec![b'x'; 200_000]);
    client.advance(Duration::from_secs(3));
    assert_eq!(connection.response().expect("an answer").text(), "200000");
    assert_eq!((client.blocks_in_use(), GO.get()), (0, 0));
}

#[test]
fn a_poll_that_was_for_nothing_harms_nobody() {
    let impatient = async |_: Request, mut body: BodyReader| {
        let mut all = 0;
        loop {
            // Polled again and again for no reason.
            let mut turns = 3;
            let next = poll_fn(|cx| {
                if turns > 0 {
                    turns -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                body.poll_chunk(cx)
            });
            match next.await? {
                Some(chunk) => all += chunk.len(),
                None => return Ok(all.to_string().into_response()),
            }
        }
    };
    let client = App::new(move |_| Router::new().post("/", impatient)).test();
    let mut connection = begun(&client, &sized("/", 100_000));
    (0..10).for_each(|_| connection.send(&[b'x'; 10_000]));
    assert_eq!(connection.response().expect("an answer").text(), "100000");
}

#[test]
fn an_error_says_whose_fault_it_is() {
    let client_faults = [BodyError::Left, BodyError::Late, BodyError::TooLarge, BodyError::Malformed("x")];
    assert!(client_faults.iter().all(|error| error.is_of_client()));
    assert!(!BodyError::ShortOfMemory.is_of_client() && !BodyError::Answered.is_of_client());
}
