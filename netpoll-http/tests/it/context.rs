//! What hooks, handlers and hooks again know of each other, and hooks that wait.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_core::time::sleep;
use netpoll_http::{
    App, Body, Error, HeaderValue, Limits, Method, Parts, Reply, Request, Response, Router, Server,
    StatusCode, TestClient, TestConnection, routes,
};

use crate::{client, text};

thread_local!(static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn logged() -> Vec<String> {
    LOG.take()
}

/// Who asks.
struct User(String);

fn user<'r>(req: &'r Request<'_>) -> &'r str {
    req.extensions().get::<User>().map_or("nobody", |user| &user.0)
}

fn sign_in(req: &Request<'_>) {
    if let Some(name) = req.header_str("x-user") {
        req.extensions().insert(User(name.to_owned()));
    }
}

fn signed() -> TestClient {
    client(|| {
        Router::new()
            .get("/", |req: &Request| user(req).to_owned())
            .get("/async", async |req: Request| {
                sleep(Duration::from_millis(10)).await;
                req.extensions().insert(7_u32);
                user(&req).to_owned()
            })
            .get("/direct", |req: &Request, reply: Reply| {
                req.extensions().insert(7_u32);
                reply.bytes(StatusCode::OK, "text/plain", user(req).as_bytes())
            })
            .post("/", |req: &Request| format!("{} {}", user(req), req.body().len()))
            .post("/async", async |req: Request| format!("{} {}", user(&req), req.body().len()))
            .before(sign_in)
            .after(|req: &Request, parts: &mut Parts| {
                log(format!("{} {:?}", user(req), req.extensions().get::<u32>()));
                parts.headers.insert("x-seen", HeaderValue::from_static("1"));
            })
    })
}

#[test]
fn what_a_hook_knows_of_a_request_its_handler_and_later_hooks_know() {
    let client = signed();
    for (path, number) in [("/", "None"), ("/async", "Some(7)"), ("/direct", "Some(7)")] {
        let mut connection = client.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-User: Ada\r\n\r\n").as_bytes());
        client.advance(Duration::from_millis(20));
        assert_eq!(connection.response().expect("an answer").text(), "Ada", "{path}");
        assert_eq!(logged(), [format!("Ada {number}")], "{path}");
    }
}

#[test]
fn it_is_still_known_when_the_body_has_come() {
    let client = signed();
    for path in ["/", "/async"] {
        let mut connection = client.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-User: Ada\r\nContent-Length: 5\r\n\r\n");
        connection.send(head.as_bytes());
        connection.send(b"he");
        connection.send(b"llo");
        assert_eq!(connection.response().expect("an answer").text(), "Ada 5", "{path}");
        assert_eq!(logged(), ["Ada None"], "{path}");
    }
}

#[test]
fn requests_know_nothing_of_each_other() {
    let mut connection = signed().connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-User: Ada\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the first").text(), "Ada");
    assert_eq!(connection.response().expect("the second").text(), "nobody");
}

#[test]
fn requests_that_find_nothing_or_are_cut_are_known_as_well() {
    let client = signed();
    client.request(Method::GET, "/nowhere").header("X-User", "Ada").send();
    let mut slow = client.connect();
    slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-User: Bob\r\nContent-Length: 5\r\n\r\nhe");
    client.advance(Duration::from_secs(60));
    assert_eq!(slow.response().expect("an answer").status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(logged(), ["Ada None", "Bob None"]);
}

#[test]
fn a_request_can_be_sent_to_another_thread_with_what_is_known_of_it() {
    fn is_sent_and_shared<T: Send + Sync>() {}
    is_sent_and_shared::<Request<'static>>();
    let client = client(|| {
        let handler = |req: &Request| {
            let owned = req.to_owned();
            std::thread::spawn(move || user(&owned).to_owned()).join().expect("no panic")
        };
        Router::new().get("/", handler).before(sign_in)
    });
    assert_eq!(client.request(Method::GET, "/").header("X-User", "Ada").send().text(), "Ada");
}

struct Counted(Arc<AtomicUsize>);
impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn what_is_known_of_a_request_ends_with_it() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Noted;
    impl Drop for Noted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }
    let client = client(|| {
        Router::new()
            .get("/", |req: &Request| req.extensions().insert(Noted))
            .get("/async", async |req: Request| req.extensions().insert(Noted))
            .post("/", |req: &Request| req.extensions().insert(Noted))
    });
    client.get("/");
    client.get("/async");
    client.post("/", "hello");
    assert_eq!(DROPS.load(Relaxed), 3);
}

struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose")
    }
}

#[test]
fn a_value_that_panics_when_it_is_dropped_costs_nobody_an_answer() {
    let client = client(|| {
        let hooked = Router::new().get("/x", |_: &Request| "hooked").post("/x", |_: &Request| "posted");
        Router::new()
            .get("/", |req: &Request| {
                req.extensions().insert(Bomb);
                "plain"
            })
            .nest("/hooked", hooked.before(|req: &Request| req.extensions().insert(Bomb)))
    });
    for round in 1..=2 {
        assert_eq!(client.get("/").text(), "plain");
        assert_eq!(client.get("/hooked/x").text(), "hooked");
        let mut upload = client.connect();
        upload.send(b"POST /hooked/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        upload.send(b"hello");
        assert_eq!(upload.response().expect("an answer").text(), "posted");
        assert_eq!(client.stats().panics, 3 * round);
    }
}

// Hooks that wait.

async fn with_key(req: Request<'_>) -> Result<(), Error> {
    log(format!("asked about {}", req.path()));
    sleep(Duration::from_millis(10)).await;
    match req.header("x-key") {
        Some(b"secret") => {
            req.extensions().insert(User("Ada".to_owned()));
            Ok(())
        }
        _ => Err(Error::from(StatusCode::UNAUTHORIZED)),
    }
}

fn guarded() -> Router {
    Router::new()
        .get("/", |req: &Request| user(req).to_owned())
        .get("/async", async |req: Request| user(&req).to_owned())
        .post("/", |req: &Request| format!("{} {}", user(req), text(req.body())))
        .post("/async", async |req: Request| format!("{} {}", user(&req), text(req.body())))
        .before(with_key)
}

/// Sends it and lets time pass.
fn ask(client: &TestClient, request: &str) -> (u16, String) {
    let mut connection = client.connect();
    connection.send(request.as_bytes());
    client.advance(Duration::from_millis(20));
    let answer = connection.response().unwrap_or_else(|| panic!("no answer to {request}"));
    (answer.status.as_u16(), answer.text().to_owned())
}

#[test]
fn a_hook_may_wait_before_it_lets_a_request_pass_or_refuses_it() {
    let client = client(guarded);
    for path in ["/", "/async"] {
        let open = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n");
        assert_eq!(ask(&client, &open), (200, "Ada".to_owned()));
        let shut = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(ask(&client, &shut), (401, "Unauthorized\n".to_owned()));
        let body = "Content-Length: 5\r\n\r\nhello";
        let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n{body}");
        assert_eq!(ask(&client, &post), (200, "Ada hello".to_owned()));
        let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n{chunked}");
        assert_eq!(ask(&client, &post), (200, "Ada hello".to_owned()));
        let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}");
        assert_eq!(ask(&client, &post), (401, "Unauthorized\n".to_owned()));
    }
}

#[test]
fn a_hook_that_is_ready_at_once_needs_no_time() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| "in")
            .post("/", |req: &Request| req.body().len().to_string())
            .before(async |req: Request| match req.header("x-key") {
                Some(_) => Ok(()),
                None => Err(Error::from(StatusCode::UNAUTHORIZED)),
            })
    });
    assert_eq!(client.get("/").status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.request(Method::GET, "/").header("X-Key", "1").send().text(), "in");
    let post = client.request(Method::POST, "/").header("X-Key", "1").body(vec![b'x'; 100_000]).send();
    assert_eq!(post.text(), "100000");
}

#[test]
fn requests_that_find_no_route_pass_a_hook_that_waits() {
    let client = client(|| Router::new().get("/", |_: &Request| "root").nest("/in", guarded()));
    assert_eq!(client.get("/").text(), "root");
    assert_eq!(client.get("/nowhere").status.as_u16(), 404);
    for (request, status) in [
        ("GET /in/nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 401),
        ("GET /in/nowhere HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n", 404),
        ("PUT /in/ HTTP/1.1\r\nHost: a\r\n\r\n", 401),
        ("PUT /in/ HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n", 405),
        ("OPTIONS /in/ HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n", 204),
    ] {
        assert_eq!(ask(&client, request).0, status, "{request}");
    }
}

#[test]
fn hooks_that_wait_and_hooks_that_do_not_run_in_their_order() {
    let client = client(|| {
        let inner = Router::new()
            .get("/x", |_: &Request| log("handler"))
            .before(async |_: Request| {
                sleep(Duration::from_millis(1)).await;
                log("inner, waits");
            })
            .before(|_: &Request| log("inner"))
            .after(|_: &Request, _: &mut Parts| log("after"));
        Router::new()
            .before(|_: &Request| log("outer"))
            .before(async |_: Request| log("outer, might wait"))
            .before(|_: &Request| log("outer again"))
            .nest("/in", inner)
    });
    assert_eq!(ask(&client, "GET /in/x HTTP/1.1\r\nHost: a\r\n\r\n").0, 204);
    let expected = ["outer", "outer, might wait", "outer again", "inner, waits", "inner", "handler", "after"];
    assert_eq!(logged(), expected);
}

#[test]
fn the_first_hook_that_answers_ends_it_and_the_body_is_dropped() {
    let client = client(|| {
        Router::new()
            .post("/", |_: &Request| log("handler"))
            .before(async |_: Request| {
                sleep(Duration::from_millis(1)).await;
                Some(Response::text("answered").status(StatusCode::ACCEPTED))
            })
            .before(|_: &Request| log("later"))
    });
    let mut connection = client.connect();
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    client.advance(Duration::from_millis(20));
    connection.send(b"lloPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    client.advance(Duration::from_millis(20));
    for _ in 0..2 {
        let answer = connection.response().expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text()), (202, "answered"));
    }
    assert!(logged().is_empty());
}

#[test]
fn an_answer_of_a_hook_may_be_a_stream() {
    let client = client(|| {
        Router::new().post("/", |_: &Request| "handler").before(async |_: Request| {
            sleep(Duration::from_millis(1)).await;
            Some(Response::text(Body::chunks(["a", "b"])))
        })
    });
    for body in ["", "hello"] {
        let length = body.len();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_eq!(ask(&client, &request), (200, "ab".to_owned()));
    }
}

#[test]
fn the_body_is_asked_for_when_the_hook_lets_it_pass_and_not_before() {
    let client = client(guarded);
    let head = |key: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut open = client.connect();
    open.send(head("X-Key: secret\r\n").as_bytes());
    assert_eq!(open.received(), b"", "nothing is said while the hook waits");
    client.advance(Duration::from_millis(20));
    assert_eq!(text(&open.received()), "HTTP/1.1 100 Continue\r\n\r\n");
    open.send(b"hello");
    assert_eq!(open.response().expect("an answer").text(), "Ada hello");

    let mut shut = client.connect();
    shut.send(head("").as_bytes());
    client.advance(Duration::from_millis(20));
    assert!(shut.received().starts_with(b"HTTP/1.1 401 "), "no 100 before the refusal");
    assert!(shut.is_closed(), "the body may or may not come, so nothing can follow");
}

#[test]
fn requests_behind_one_that_a_hook_waits_for_are_answered_behind_it() {
    let client = client(guarded);
    let mut connection = client.connect();
    let get = "GET / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\nContent-Length: 5\r\n\r\nhello";
    connection.send(format!("{get}{post}{get}{post}").as_bytes());
    for expected in ["Ada", "Ada hello", "Ada", "Ada hello"] {
        client.advance(Duration::from_millis(20));
        assert_eq!(connection.response().expect("an answer").text(), expected);
    }
    assert_eq!(logged().len(), 4, "each was asked about once");
}

#[test]
fn a_hook_that_takes_too_long_is_dropped_and_answered_503() {
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| "in")
            .before(async |_: Request| std::future::pending::<()>().await)
    })
    .limits(Limits::default().handler_timeout(Duration::from_secs(3)))
    .test();
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.advance(Duration::from_secs(4));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(connection.is_closed());
}

#[test]
fn a_client_that_leaves_cancels_a_hook() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Noted;
    impl Drop for Noted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }
    let client = client(|| {
        Router::new().get("/", |_: &Request| "in").before(async |_: Request| {
            let _noted = Noted;
            std::future::pending::<()>().await;
        })
    });
    let leaves: [fn(&mut TestConnection); 2] = [TestConnection::reset, TestConnection::finish];
    for leave in leaves {
        let mut connection = client.connect();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        leave(&mut connection);
        client.run();
    }
    assert_eq!((DROPS.load(Relaxed), client.open()), (2, 0));
}

#[test]
fn a_panic_in_a_hook_that_waits_is_a_500_and_costs_one_connection() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| "in").before(async |req: Request| {
            sleep(Duration::from_millis(1)).await;
            assert!(req.header("x-bad").is_none(), "on purpose");
        })
    });
    assert_eq!(ask(&client, "GET / HTTP/1.1\r\nHost: a\r\nX-Bad: 1\r\n\r\n").0, 500);
    assert_eq!(ask(&client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (200, "in".to_owned()));
    assert_eq!(client.stats().panics, 1);
}

#[test]
fn a_compile_time_table_takes_hooks_that_wait_as_well() {
    let client = App::new(|_| {
        routes! {
            GET "/" => |req: &Request| user(req).to_owned(),
            POST "/" => |req: &Request| req.body().len().to_string(),
        }
        .before(with_key)
    })
    .test();
    assert_eq!(ask(&client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").0, 401);
    assert_eq!(ask(&client, "GET / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\n\r\n").1, "Ada");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(&client, post).1, "5");
}

#[test]
fn in_a_drain_a_request_that_a_hook_waits_for_is_answered() {
    let client = client(guarded);
    let mut connection = client.connect();
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\nContent-Length: 5\r\n\r\nhello");
    client.begin_drain(Duration::from_secs(5));
    client.advance(Duration::from_millis(20));
    let answer = connection.response().expect("an answer");
    assert_eq!((answer.text(), answer.header("connection")), ("Ada hello", Some("close")));
}

#[test]
fn hooks_that_wait_see_each_request_once_on_any_network() {
    for seed in 0..60 {
        let options = Options::default().seed(seed).faults(Faults::stormy());
        let client = App::new(|_| guarded()).test_with(options);
        let mut connection = client.connect();
        let post = |n: usize| {
            let body = "x".repeat(n * 700);
            let length = body.len();
            format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: secret\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let requests: String = (0..6).map(post).collect();
        for part in requests.as_bytes().chunks(1 + seed as usize * 37) {
            connection.send(part);
        }
        for n in 0..6 {
            let mut answer = None;
            for _ in 0..100 {
                answer = connection.response();
                if answer.is_some() {
                    break;
                }
                client.advance(Duration::from_millis(50));
            }
            let answer = answer.unwrap_or_else(|| panic!("seed {seed}, request {n}"));
            assert_eq!(answer.text(), format!("Ada {}", "x".repeat(n * 700)), "seed {seed}, request {n}");
        }
        assert_eq!(logged().len(), 6, "seed {seed}");
    }
}

#[test]
fn on_real_sockets_a_hook_waits_and_the_body_comes_behind_it() {
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let running = server.app(|_| guarded()).start().unwrap();
    let head = |key: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 100000\r\n\r\n");
    let body = "x".repeat(100_000);
    for cut in [0, 1, 70_000, 100_000] {
        let mut stream = TcpStream::connect(running.addr()).unwrap();
        stream.write_all(format!("{}{}", head("X-Key: secret\r\n"), &body[..cut]).as_bytes()).unwrap();
        stream.write_all(&body.as_bytes()[cut..]).unwrap();
        let whole = format!("Ada {body}");
        let mut bytes = Vec::new();
        while !bytes.ends_with(whole.as_bytes()) {
            let mut buffer = [0; 8192];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "cut at {cut}: {}", text(&bytes));
            bytes.extend_from_slice(&buffer[..read]);
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    let mut stranger = TcpStream::connect(running.addr()).unwrap();
    stranger.write_all(head("").as_bytes()).unwrap();
    let mut start = [0; 13];
    stranger.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 401 ");
    drop(stranger);
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn what_an_unfinished_hook_holds_is_dropped_with_the_server() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&drops);
    let client = App::new(move |_| {
        let counted = Arc::clone(&counted);
        Router::new().get("/", |_: &Request| "in").before(async move |_: Request| {
            let _held = Counted(Arc::clone(&counted));
            std::future::pending::<()>().await;
        })
    })
    .test();
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(connection);
    drop(client);
    assert_eq!(drops.load(Relaxed), 1);
}

/// Panics when it is dropped: one of several types.
struct Mine<const NUMBER: u8>;
impl<const NUMBER: u8> Drop for Mine<NUMBER> {
    fn drop(&mut self) {
        panic!("as told")
    }
}

#[test]
fn values_that_panic_when_they_are_dropped_cost_neither_each_other_nor_the_process() {
    let dropped = Arc::new(());
    let kept = Arc::clone(&dropped);
    let client = client(move || {
        let kept = Arc::clone(&kept);
        Router::new().before(|req: &Request| req.extensions().insert(Mutex::new(Mine::<1>))).get(
            "/",
            move |req: &Request| {
                req.extensions().insert(Mutex::new(Mine::<2>));
                req.extensions().insert(Arc::clone(&kept));
                req.extensions().insert(Mutex::new(Mine::<3>));
                "hello"
            },
        )
    });
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(client.stats().panics, 2, "one for each request");
    assert_eq!(
        Arc::strong_count(&dropped),
        2,
        "what lay between them is gone: the test and the handler have it"
    );
}
