//! Hooks before and after handlers.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use netpoll_http::{
    App, Body, BodyBuf, Error, Handler, HeaderValue, Json, Method, Params, Parts, Pull, Replied, Reply,
    Request, Response, Route, RouteId, RouteLimits, Router, Service, StatusCode, header, routes,
};

use crate::{client, text};

thread_local!(static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

fn log(line: impl Into<String>) {
    LOG.with_borrow_mut(|log| log.push(line.into()));
}

fn with_key(req: &Request<'_>) -> Result<(), Error> {
    match req.header("x-key") {
        Some(b"secret") => Ok(()),
        _ => Err(Error::from(StatusCode::UNAUTHORIZED)),
    }
}

#[test]
fn a_before_hook_can_refuse_a_request_and_the_handler_does_not_run() {
    let client = client(|| {
        let handler = |_: &Request| {
            log("handled");
            "in"
        };
        Router::new().get("/", handler).before(with_key)
    });
    assert_eq!(client.get("/").status, StatusCode::UNAUTHORIZED);
    LOG.with_borrow(|log| assert!(log.is_empty()));
    assert_eq!(client.request(Method::GET, "/").header("X-Key", "secret").send().text(), "in");
}

#[test]
fn a_before_hook_can_answer_with_a_response_of_its_own() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| "new").before(|req: &Request| {
            (req.path() == "/old").then(|| Response::new(StatusCode::MOVED_PERMANENTLY))
        })
    });
    assert_eq!(client.get("/old").status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn a_refused_upload_is_not_asked_for() {
    let client = client(|| Router::new().post("/", |_: &Request| "taken").before(with_key));
    let mut connection = client.connect();
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let bytes = connection.received();
    assert!(bytes.starts_with(b"HTTP/1.1 401 "), "no 100 before the refusal");
    assert!(connection.is_closed(), "the body may or may not come, so nothing can follow");
}

#[test]
fn an_after_hook_sees_every_answer_and_may_change_it() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| "text")
            .get("/async", async |_: Request| "text")
            .get("/fails", |_: &Request| Err::<(), _>(Error::internal("why")))
            .after(|req: &Request, parts: &mut Parts| {
                let why = parts.error.as_ref().and_then(std::error::Error::source).map(ToString::to_string);
                log(format!("{} {} {:?}", req.path(), parts.status.as_u16(), why));
                parts.headers.insert(header::VARY, HeaderValue::from_static("origin"));
            })
    });
    for path in ["/", "/async", "/fails", "/nowhere"] {
        assert_eq!(client.get(path).header("vary"), Some("origin"), "{path}");
    }
    assert_eq!(client.request(Method::OPTIONS, "/").send().header("vary"), Some("origin"));
    assert_eq!(client.get("/").header("content-type"), Some("text/plain; charset=utf-8"));
    LOG.with_borrow(|log| {
        let expected = ["/ 200 None", "/async 200 None", "/fails 500 Some(\"why\")", "/nowhere 404 None"];
        assert_eq!(log[..4], expected);
    });
}

#[test]
fn an_after_hook_that_makes_the_status_bodiless_drops_the_body() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| (StatusCode::CREATED, netpoll_http::Json([1, 2])))
            .after(|_: &Request, parts: &mut Parts| parts.status = StatusCode::NOT_MODIFIED)
    });
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..2 {
        let response = connection.response().expect("an answer");
        assert_eq!((response.status, response.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
}

#[test]
fn a_panic_in_a_hook_is_a_500() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| "text").after(|_: &Request, _: &mut Parts| panic!("in a hook"))
    });
    assert_eq!(client.get("/").status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_panic_in_a_before_hook_costs_no_more_than_its_connection() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| "text").before(|req: &Request| {
            assert!(req.header("x-bad").is_none(), "in a hook");
        })
    });
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Bad: 1\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(connection.is_closed());
    assert_eq!(client.get("/").text(), "text");
}

#[test]
fn a_nested_router_keeps_its_hooks_inside_those_around_it() {
    let client = client(|| {
        let inner = Router::new()
            .get("/x", |_: &Request| "x")
            .before(|_: &Request| log("inner before"))
            .after(|_: &Request, _: &mut Parts| log("inner after"));
        Router::new()
            .before(|_: &Request| log("outer before"))
            .after(|_: &Request, _: &mut Parts| log("outer after"))
            .get("/y", |_: &Request| "y")
            .nest("/in", inner)
    });
    assert_eq!(client.get("/in/x").text(), "x");
    LOG.with_borrow_mut(|log| {
        assert_eq!(*log, ["outer before", "inner before", "inner after", "outer after"]);
        log.clear();
    });
    assert_eq!(client.get("/y").text(), "y");
    LOG.with_borrow(|log| assert_eq!(*log, ["outer before", "outer after"]));
}

#[test]
fn a_compile_time_table_takes_hooks_as_well() {
    let client = App::new(|_| {
        routes! { GET "/" => |_: &Request| "in" }.before(with_key).after(|_: &Request, parts: &mut Parts| {
            parts.headers.insert(header::VARY, HeaderValue::from_static("x-key"));
        })
    })
    .test();
    let refused = client.get("/");
    assert_eq!((refused.status, refused.header("vary")), (StatusCode::UNAUTHORIZED, Some("x-key")));
    assert_eq!(client.request(Method::GET, "/").header("X-Key", "secret").send().text(), "in");
}

/// Remembers what an access log would: method, path and status.
fn access_log(req: &Request<'_>, parts: &mut Parts) {
    log(format!("{} {} {}", req.method_str(), req.path(), parts.status.as_u16()));
}

fn logged() -> Vec<String> {
    LOG.with_borrow_mut(std::mem::take)
}

struct Broken;
impl serde::Serialize for Broken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error as _, SerializeSeq};
        serializer.serialize_seq(None)?.serialize_element("half of it")?;
        Err(S::Error::custom("the rest is missing"))
    }
}

struct PanicsWhenSerialised;
impl serde::Serialize for PanicsWhenSerialised {
    fn serialize<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        panic!("on purpose")
    }
}

struct PanicsWhenDropped;
impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "on purpose, in a destructor");
    }
}

/// Everything that a handler may do to an answer, with an access log around it.
fn eventful() -> Router {
    Router::new()
        .get("/", |_: &Request| "text")
        .get("/panics", |_: &Request| -> &'static str { panic!("on purpose") })
        .get("/async-panics", async |_: Request| -> &'static str { panic!("on purpose") })
        .get("/panics-behind", |_: &Request, reply: Reply| {
            let _replied = reply.bytes(StatusCode::OK, "text/plain", b"an answer");
            panic!("on purpose, behind the answer")
        })
        .get("/panics-within", |_: &Request, reply: Reply| {
            reply.write(StatusCode::OK, "text/plain", |out| {
                out.extend(b"half of it");
                panic!("on purpose")
            })
        })
        .get("/broken", |_: &Request| (StatusCode::CREATED, Json(Broken)))
        .get("/async-broken", async |_: Request| Json(Broken))
        .get("/serialise-panics", |_: &Request| Json(PanicsWhenSerialised))
        .get("/drop-panics", |_: &Request| {
            let owner = PanicsWhenDropped;
            Response::text(Body::stream(move |_: &mut Context<'_>, _: &mut BodyBuf<'_>| {
                let _owned = &owner;
                Pull::Done
            }))
        })
        .get("/payload-panics", |_: &Request| -> &'static str { std::panic::panic_any(PanicsWhenDropped) })
        .get("/json", |_: &Request| Json([1, 2, 3]))
        .get("/large", |_: &Request| vec![b'x'; 100_000])
        .get("/written", |_: &Request, reply: Reply| {
            reply.write(StatusCode::OK, "text/plain", |out| out.extend(b"written"))
        })
        .get("/stream", |_: &Request| Response::text(Body::chunks(["a", "b"])))
        .post(
            "/small",
            (|req: &Request| req.body().to_vec()).limits(RouteLimits::default().body_bytes_max(4)),
        )
        .after(access_log)
}

#[test]
fn an_access_log_has_every_answer_once() {
    let client = client(eventful);
    for (path, status) in [
        ("/", 200),
        ("/panics", 500),
        ("/async-panics", 500),
        ("/panics-behind", 500),
        ("/panics-within", 500),
        ("/broken", 500),
        ("/async-broken", 500),
        ("/serialise-panics", 500),
        ("/payload-panics", 500),
        ("/json", 200),
        ("/large", 200),
        ("/written", 200),
        ("/stream", 200),
        ("/nowhere", 404),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let response = client.request(method.clone(), path).send();
            assert_eq!(response.status.as_u16(), status, "{method} {path}");
            assert_eq!(logged(), [format!("{method} {path} {status}")]);
            let body: &[u8] = match (path, status) {
                _ if method == Method::HEAD => b"",
                (_, 500) if path.contains("broken") => b"internal server error\n",
                (_, 500) => b"Internal Server Error\n",
                ("/", _) => b"text",
                ("/json", _) => b"[1,2,3]",
                ("/large", _) => &[b'x'; 100_000],
                ("/written", _) => b"written",
                ("/stream", _) => b"ab",
                _ => b"Not Found\n",
            };
            assert!(response.body == body, "{method} {path}");
        }
    }
    assert_eq!(client.get("/").text(), "text", "and the worker lives");
}

#[test]
fn an_answer_that_was_taken_back_was_never_shown_to_hooks_nor_keeps_its_headers() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request, reply: Reply| {
                let reply = reply.with_header(header::ETAG, HeaderValue::from_static("\"v1\""));
                let _replied = reply.bytes(StatusCode::OK, "text/html", b"<p>");
                panic!("on purpose")
            })
            .after(|_: &Request, parts: &mut Parts| {
                assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
                assert!(parts.error.is_some());
                parts.headers.insert("x-request-id", HeaderValue::from_static("7"));
            })
    });
    let response = client.get("/");
    assert_eq!((response.status, response.header("etag")), (StatusCode::INTERNAL_SERVER_ERROR, None));
    assert_eq!(response.header("x-request-id"), Some("7"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(client.stats().panics, 1);
}

#[test]
fn headers_that_were_added_beforehand_leave_with_the_answer_to_a_value_that_cannot_be_serialised() {
    let handler = |_: &Request, reply: Reply| {
        reply.with_header(header::VARY, HeaderValue::from_static("accept")).json(StatusCode::OK, &Broken)
    };
    for hooks in [false, true] {
        let client = client(move || {
            let router = Router::new().get("/", handler);
            if hooks { router.after(access_log) } else { router }
        });
        let response = client.get("/");
        assert_eq!((response.status.as_u16(), response.header("vary")), (500, Some("accept")));
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn an_access_log_has_refusals_with_what_is_known_of_their_request() {
    let client = client(eventful);
    let long = "x".repeat(20_000);
    let refusals = [
        ("GET / HTTP/9.1\r\nHost: a\r\n\r\n".to_owned(), "-  505"),
        ("GET /a?b HTTP/1.1\r\n\r\n".to_owned(), "GET /a 400"),
        ("\r\nBREW /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "BREW /a 400"),
        ("GET http://a/b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "GET /b 400"),
        ("GET a:b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "GET  400"),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_owned(), "PUT /a 400"),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "PUT /a 400"),
        ("\0".to_owned(), "-  400"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), "-  431"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "-  414"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".to_owned(), "GET / 417"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), "-  501"),
        ("BREW /tea HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "BREW /tea 501"),
        ("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n".to_owned(), "POST /small 413"),
        (
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello".to_owned(),
            "POST /small 413",
        ),
        (
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx".to_owned(),
            "POST /small 400",
        ),
    ];
    for (request, line) in refusals {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        assert!(!connection.received().is_empty(), "{line}");
        assert_eq!(logged(), [line]);
    }
    let mut half = client.connect();
    half.send(b"GET / HTTP/1.1\r\nHos");
    half.advance(Duration::from_secs(11));
    assert_eq!(half.response().expect("an answer").status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(logged(), ["-  408"]);
    let mut upload = client.connect();
    upload.send(b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nx");
    upload.advance(Duration::from_secs(60));
    assert_eq!(upload.response().expect("an answer").status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(logged(), ["POST /small 408"]);
}

#[test]
fn what_stands_for_a_request_that_could_not_be_read_says_so() {
    let client = client(|| {
        Router::new().get("/", |req: &Request| req.is_unread().to_string()).after(
            |req: &Request, parts: &mut Parts| {
                assert_eq!(req.is_unread(), parts.status == StatusCode::BAD_REQUEST);
                assert_eq!(parts.error.is_some(), req.is_unread());
                let rest = (req.target(), req.headers().count(), req.body().len(), req.host());
                assert!(!req.is_unread() || rest == ("", 0, 0, None));
                log(format!("{}", req.peer().ip().unwrap()));
            },
        )
    });
    assert_eq!(client.get("/").text(), "false");
    assert!(client.raw(b"nonsense\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    assert_eq!(logged().len(), 2);
}

#[test]
fn a_request_that_breaks_a_rule_as_a_whole_is_shown_to_hooks_as_it_was_sent() {
    let client = client(|| {
        Router::new().get("/a/{id}", |_: &Request| "a").after(|req: &Request, parts: &mut Parts| {
            let Some(error) = &parts.error else { return };
            assert!(!req.is_unread() && req.param_raw("id").is_none());
            let text = |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
            log(format!(
                "{} {} {:?} {:?} {:?} {:?} {}",
                req.method(),
                req.target(),
                req.query_raw(),
                text(req.header("x-id")),
                req.header_lines("host").count(),
                req.host(),
                error.message(),
            ));
        })
    });
    let pieces: [&[u8]; 3] = [b"\r\nHEAD /a/7?q HTTP/1.1\r\nX-I", b"d: 7\r\nHost: a\r\nHost: b\r", b"\n\r\n"];
    let mut connection = client.connect();
    pieces.into_iter().for_each(|piece| connection.send(piece));
    let received = connection.received();
    let answer = text(&received);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "no body to HEAD: {answer}");
    assert_eq!(logged(), [r#"HEAD /a/7?q Some("q") Some("7") 2 None There is more than one Host header."#]);
    // What was known of it is forgotten when the next one is not read.
    let mut other = client.connect();
    other.send(b"GET /a/8 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(other.received().starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn an_error_that_a_hook_answers_with_is_the_error_of_the_answer() {
    let client = client(|| {
        let refuse = |req: &Request| -> Result<(), Error> {
            match req.header_str("x-refuse") {
                Some("plain") => Err(Error::bad_request("not like this")),
                Some(_) => Err(Error::internal("the disk is full")
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("9"))),
                None => Ok(()),
            }
        };
        let inner = Router::new().post("/x", |_: &Request| "x").before(refuse);
        Router::new().nest("/in", inner).post("/out", |_: &Request| "out").after(
            |_: &Request, parts: &mut Parts| {
                let why = parts.error.as_ref().and_then(std::error::Error::source).map(ToString::to_string);
                log(format!(
                    "{} {:?}",
                    parts.status.as_u16(),
                    why.or(parts.error.as_ref().map(|error| error.message().to_owned()))
                ));
            },
        )
    });
    for (refuse, line, body) in [
        ("plain", r#"400 Some("not like this")"#, "not like this"),
        ("source", r#"500 Some("the disk is full")"#, "internal server error"),
    ] {
        // Its body is dropped, and the connection stays.
        let mut connection = client.connect();
        for _ in 0..2 {
            connection.send(
                format!(
                    "POST /in/x HTTP/1.1\r\nHost: a\r\nX-Refuse: {refuse}\r\nContent-Length: 5\r\n\r\nhello"
                )
                .as_bytes(),
            );
            let answer = connection.response().expect("an answer");
            assert_eq!(
                (answer.text().trim_end(), answer.header("content-type")),
                (body, Some("text/plain; charset=utf-8"))
            );
            assert_eq!(answer.header("retry-after"), (refuse == "source").then_some("9"));
            assert_eq!(logged(), [line]);
        }
    }
}

#[test]
fn a_handler_that_takes_too_long_is_in_the_access_log() {
    let client = client(|| {
        Router::new()
            .get("/", async |_: Request| -> &'static str { std::future::pending().await })
            .after(access_log)
    });
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.advance(Duration::from_secs(31));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(logged(), ["GET / 503"]);
}

#[test]
fn hooks_around_one_that_panics_see_its_500() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| "text")
            .after(access_log)
            .after(|req: &Request, _: &mut Parts| assert!(req.header("x-bad").is_none(), "on purpose"))
            .after(|_: &Request, parts: &mut Parts| {
                log("inner");
                parts.headers.insert("x-inner", HeaderValue::from_static("1"));
            })
    });
    let mut connection = client.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Bad: 1\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!((response.status.as_u16(), response.header("x-inner")), (500, None));
    assert_eq!(response.text(), "Internal Server Error\n");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(connection.is_closed());
    assert_eq!(logged(), ["inner", "GET / 500"]);
    assert_eq!(client.get("/").header("x-inner"), Some("1"));
}

#[test]
fn hooks_that_all_panic_are_called_once_and_the_500_leaves() {
    let client = client(|| {
        let panicking = |req: &Request, _: &mut Parts| {
            log(req.path());
            std::panic::panic_any(PanicsWhenDropped);
        };
        Router::new()
            .get("/", |_: &Request| -> &'static str { panic!("on purpose") })
            .after(panicking)
            .after(panicking)
    });
    assert_eq!(client.get("/").text(), "Internal Server Error\n");
    assert_eq!(logged(), ["/", "/"]);
    assert_eq!(client.stats().panics, 3);
}

#[test]
fn a_panic_in_a_before_hook_is_in_the_access_log() {
    let client = client(|| {
        let bad = |req: &Request| assert!(req.path() != "/bad", "on purpose");
        Router::new().get("/", |_: &Request| "text").before(bad).after(access_log)
    });
    assert_eq!(client.get("/bad").status.as_u16(), 500);
    assert_eq!(logged(), ["GET /bad 500"]);
}

#[test]
fn what_a_handler_hands_over_may_panic_when_it_is_dropped() {
    let client = client(eventful);
    let mut connection = client.connect();
    connection.send(b"GET /drop-panics HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("an answer").status, StatusCode::OK);
    assert_eq!(connection.response().expect("the next").text(), "text");
    assert_eq!(logged(), ["GET /drop-panics 200", "GET / 200"]);
    // To HEAD nobody takes the stream over: it is dropped while the handler's answer is made.
    assert_eq!(client.request(Method::HEAD, "/drop-panics").send().status.as_u16(), 500);
    assert_eq!(logged(), ["HEAD /drop-panics 500"]);
    assert_eq!(client.stats().panics, 2);
}

#[test]
fn a_future_may_panic_in_its_destructor_behind_its_answer_and_behind_its_panic() {
    struct Careless(bool);
    impl Future for Careless {
        type Output = &'static str;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<&'static str> {
            assert!(!self.0, "on purpose");
            Poll::Ready("done")
        }
    }
    impl Drop for Careless {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "on purpose, in a destructor");
        }
    }
    let client = client(|| {
        Router::new()
            .get("/good", async |_: Request| Careless(false).await)
            .get("/bad", async |_: Request| Careless(true).await)
            .get("/ok", |_: &Request| "ok")
            .after(access_log)
    });
    for path in ["/good", "/bad"] {
        let status = client.get(path).status.as_u16();
        assert_eq!(logged(), [format!("GET {path} {status}")]);
    }
    assert_eq!(client.get("/ok").text(), "ok");
}

#[test]
fn an_after_of_a_service_of_ones_own_sees_the_same() {
    struct Own;
    impl Service for Own {
        fn find(&self, _method: &str, path: &[u8], _params: &mut Params) -> Route<'_> {
            if path == b"/" { Route::To(RouteId(0)) } else { Route::NotFound }
        }
        fn methods(&self) -> &str {
            "GET, HEAD"
        }
        fn has_after(&self, _route: Option<RouteId>) -> bool {
            true
        }
        fn after(&self, _route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
            access_log(request, parts);
            assert!(request.path() != "/bad", "on purpose");
        }
        fn call(&self, _route: RouteId, _request: &Request<'_>, _reply: Reply<'_>) -> Replied {
            panic!("on purpose")
        }
    }
    let client = App::new(|_| Own).test();
    assert_eq!(client.get("/").status.as_u16(), 500);
    assert_eq!(client.get("/x").status.as_u16(), 404);
    assert_eq!(client.get("/bad").status.as_u16(), 500);
    client.raw(b"\0");
    assert_eq!(logged(), ["GET / 500", "GET /x 404", "GET /bad 404", "-  400"]);
}

#[test]
fn hooks_of_a_nested_router_see_its_404_405_and_options() {
    let client = client(|| {
        let api = Router::new()
            .get("/orders", |_: &Request| "orders")
            .get("/orders/{id}/lines/{line}", |_: &Request| "line")
            .before(with_key)
            .after(|_: &Request, parts: &mut Parts| {
                parts.headers.insert("x-api", HeaderValue::from_static("1"));
            });
        Router::new().get("/", |_: &Request| "root").nest("/api", api).after(access_log)
    });
    let sent = |method: &str, path: &str, key: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a token");
        let response = client.request(method.clone(), path).header("x-key", key).send();
        assert_eq!(logged(), [format!("{method} {path} {}", response.status.as_u16())]);
        (response.status.as_u16(), response.header("x-api").is_some())
    };
    let unknown =
        [("GET", "/api/nothing"), ("GET", "/api"), ("GET", "/api/"), ("GET", "/api/orders/7/lines/")];
    for (method, path) in unknown {
        assert_eq!(sent(method, path, "wrong"), (401, true), "{path}: nobody learns that it is not there");
        assert_eq!(sent(method, path, "secret"), (404, true), "{path}");
    }
    for path in ["/api/orders", "/api/orders/7/lines/2"] {
        assert_eq!((sent("PUT", path, "wrong"), sent("PUT", path, "secret")), ((401, true), (405, true)));
        assert_eq!(
            (sent("OPTIONS", path, "wrong"), sent("OPTIONS", path, "secret")),
            ((401, true), (204, true))
        );
        assert_eq!(sent("BREW", path, "wrong"), (401, true));
    }
    for (method, path, status) in [
        ("GET", "/apis", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/", 405),
        ("GET", "/", 200),
        ("GET", "/ap", 404),
    ] {
        assert_eq!(sent(method, path, "wrong"), (status, false), "{path} is not below it");
    }
    assert_eq!(sent("OPTIONS", "*", "wrong"), (204, false));
}

#[test]
fn a_request_without_a_route_passes_the_hooks_of_the_innermost_router_at_its_prefix() {
    fn named(name: &'static str) -> Router {
        Router::new().get("/x", |_: &Request| "x").after(move |_: &Request, _: &mut Parts| log(name))
    }
    let client = client(|| {
        let users = named("users").nest("/{id}/pets", named("pets"));
        let open = Router::new().get("/x", |_: &Request| "x");
        let merged = || {
            let router = Router::new().get("/m", |_: &Request| "m").post("/both", |_: &Request| "m");
            router.after(|_: &Request, _: &mut Parts| log("merged"))
        };
        named("outer")
            .nest("/api", named("api").nest("/users", users).nest("/users/me", named("me")))
            .nest("/api/open", open)
            .merge(merged())
            .nest("/twice", named("first"))
            .nest("/twice", Router::new().get("/y", |_: &Request| "y"))
            .get("/both", |_: &Request| "outer")
    });
    for (path, seen) in [
        ("/nothing", "outer"),
        ("/api/nothing", "api outer"),
        ("/api/users", "users api outer"),
        ("/api/users/7/nothing", "users api outer"),
        ("/api/users/7/pets", "pets users api outer"),
        ("/api/users/7/pets/nothing/more", "pets users api outer"),
        ("/api/users//pets", "users api outer"),
        ("/api/users/me/pets", "me api outer"),
        ("/api/users/me/pets/x", "me api outer"),
        ("/api/users/me/nothing", "me api outer"),
        ("/api/open/nothing", "outer"),
        ("/twice/nothing", "first outer"),
        ("/twice/y", "outer"),
        ("/mm", "outer"),
    ] {
        client.get(path);
        assert_eq!(logged().join(" "), seen, "{path}");
    }
    for (path, seen) in
        [("/m", "merged outer"), ("/both", "merged outer"), ("/api/users/7/pets/x", "pets users api outer")]
    {
        assert_eq!(client.request(Method::DELETE, path).send().status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(logged().join(" "), seen, "DELETE {path}");
    }
}

#[test]
fn a_service_that_panics_before_it_is_called_answers_500_and_costs_its_connection_and_nothing_else() {
    struct Careless;
    impl Service for Careless {
        fn find(&self, _method: &str, path: &[u8], _params: &mut Params) -> Route<'_> {
            assert!(path != b"/find", "on purpose");
            match path {
                b"/" => Route::To(RouteId(0)),
                b"/before" => Route::To(RouteId(1)),
                b"/bytes" => Route::To(RouteId(2)),
                _ => Route::NotFound,
            }
        }
        fn has_before(&self, route: Option<RouteId>) -> bool {
            assert!(route != Some(RouteId(1)), "on purpose");
            false
        }
        fn body_bytes_max(&self, route: RouteId) -> Option<usize> {
            assert!(route != RouteId(2), "on purpose");
            None
        }
        fn methods(&self) -> &str {
            panic!("on purpose")
        }
        fn has_after(&self, route: Option<RouteId>) -> bool {
            assert!(route.is_some(), "on purpose");
            false
        }
        fn call(&self, _route: RouteId, _request: &Request<'_>, reply: Reply<'_>) -> Replied {
            reply.bytes(StatusCode::OK, "", b"fine")
        }
    }
    let client = App::new(|_| Careless).test();
    let mut other = client.connect();
    let lines = [
        "GET /find HTTP/1.1",
        "POST /before HTTP/1.1",
        "POST /bytes HTTP/1.1",
        "BREW /none HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ];
    for line in lines {
        let mut connection = client.connect();
        connection.send(format!("{line}\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").as_bytes());
        assert_eq!(connection.response().expect("an answer").status.as_u16(), 500, "{line}");
        connection.finish();
        assert!(connection.is_closed() && !connection.is_reset());
        other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(other.response().expect("an answer").text(), "fine");
    }
    // Whether hooks want to see the answer is asked as well, and panics for what has no route.
    assert_eq!((client.stats().panics, client.open()), (10, 1));
    let answer = client.get("/none");
    assert_eq!((answer.status.as_u16(), client.stats().panics), (404, 11));
}

#[test]
fn a_protocol_that_is_declined_may_panic_when_it_is_dropped() {
    struct Careless;
    impl netpoll_core::Protocol for Careless {
        fn received(
            &mut self,
            _: &mut netpoll_core::Conn<'_>,
            _: &mut netpoll_core::Input<'_>,
        ) -> netpoll_core::Flow {
            netpoll_core::Flow::Continue
        }
    }
    impl Drop for Careless {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "on purpose, in a destructor");
        }
    }
    let client = client(|| {
        let accept = |req: &Request| req.upgrade("x").map(|upgrade| upgrade.accept(Careless));
        Router::new().get("/", accept).get("/ok", |_: &Request| "ok").after(access_log).after(
            |req: &Request, parts: &mut Parts| {
                if req.header("x-decline").is_some() {
                    parts.status = StatusCode::FORBIDDEN;
                }
            },
        )
    });
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nX-Decline: 1\r\n\r\n";
    let mut connection = client.connect();
    connection.send(upgrade.as_bytes());
    assert_eq!(connection.response().expect("an answer").status, StatusCode::FORBIDDEN);
    assert_eq!(logged(), ["GET / 403"]);
    // A connection that ends cannot switch: the hooks see the 503 that says so, and nothing else.
    let mut ending = client.connect();
    ending.send(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
    client.begin_drain(Duration::from_secs(5));
    ending.send(upgrade.replace("X-Decline", "X-Other").as_bytes());
    let statuses: Vec<_> =
        std::iter::from_fn(|| ending.response()).map(|answer| answer.status.as_u16()).collect();
    assert!(matches!(statuses[..], [200] | [200, 503]), "{statuses:?}");
    let lines: Vec<_> = statuses
        .iter()
        .map(|status| format!("{} {status}", if *status == 200 { "GET /ok" } else { "GET /" }))
        .collect();
    assert_eq!(logged(), lines);
    assert_eq!(client.stats().panics as usize, statuses.len());
}

#[test]
fn a_body_of_no_bytes_is_no_body_whatever_the_method_and_the_hooks() {
    let app = App::new(|_| {
        let taken = |req: &Request| format!("{} bytes", req.body().len());
        Router::new().get("/", taken).post("/", taken).delete("/", taken).before(|_: &Request| ())
    });
    let client = app.test();
    for method in ["GET", "POST", "DELETE"] {
        let answer =
            client.raw(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").as_bytes());
        assert!(text(&answer).ends_with("\r\n\r\n0 bytes"), "{method}: {}", text(&answer));
    }
}
