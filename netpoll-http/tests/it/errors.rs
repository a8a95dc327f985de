//! Errors: whoever makes them, one function writes them, and no source leaves.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::blocking::spawn_blocking;
use netpoll_http::{
    App, Body, Error, HeaderValue, IntoResponse, Json, Limits, Method, Parts, Reply, Request, Response,
    ResponseError, Router, Server, StatusCode, TestClient, errors, header,
};

use crate::text;

/// All that a renderer is told.
fn seen(error: &Error, request: &Request<'_>) -> Response {
    let source = std::error::Error::source(error).map_or("-".to_owned(), ToString::to_string);
    let path = if request.is_unread() { "?" } else { request.path() };
    let status = error.status().as_u16();
    Response::text(format!("{status}|{}|{source}|{} {path}", error.message(), request.method_str()))
}

#[derive(Debug)]
enum Sale {
    OutOfStock,
    Database,
}

impl fmt::Display for Sale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sale::OutOfStock => "out of stock",
            Sale::Database => "no route to 10.0.0.7",
        })
    }
}

impl std::error::Error for Sale {}

impl ResponseError for Sale {
    fn status(&self) -> StatusCode {
        match self {
            Sale::OutOfStock => StatusCode::CONFLICT,
            Sale::Database => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn lost() -> io::Result<&'static str> {
    Err(io::Error::other("the disk is gone"))
}

fn boxed(error: &'static str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match error {
        "known" => Err(Error::not_found("no such boxed thing"))?,
        other => Err(other)?,
    }
}

fn router() -> Router {
    Router::new()
        .get("/fine", |_: &Request| "fine")
        .get("/io", |_: &Request| Ok(lost()?))
        .get("/async-io", async |_: Request| Ok(lost()?))
        .get("/sold", |_: &Request| Ok(Err::<(), _>(Sale::OutOfStock)?))
        .get("/database", |_: &Request| Ok(Err::<(), _>(Sale::Database)?))
        .get("/boxed/{which}", |req: &Request| {
            Ok(boxed(if req.param_raw("which") == Some("known") { "known" } else { "a loose end" })?)
        })
        .get("/none", |_: &Request| None::<&'static str>)
        .get("/param/{n}", |req: &Request| Ok(req.param::<u8>("n")?.to_string()))
        .get("/pair", |_: &Request| (StatusCode::CREATED, Err::<(), _>(Error::bad_request("not so"))))
        .get("/panics", |_: &Request| -> &'static str { panic!("on purpose") })
        .get("/async-panics", async |_: Request| -> &'static str { panic!("on purpose") })
        .get("/late", async |_: Request| std::future::pending::<()>().await)
        .get("/by-hand", |_: &Request, reply: Reply| reply.fail(Error::bad_request("by hand")))
        .get("/busy", |_: &Request| {
            let error = Error::new(StatusCode::TOO_MANY_REQUESTS, "slowly");
            Err::<(), _>(error.with_header(header::RETRY_AFTER, HeaderValue::from_static("7")))
        })
        .post("/json", |req: &Request| Ok(Json(req.json::<u8>()?)))
        .before(|req: &Request| match req.header("x-refuse") {
            Some(_) => Err(Error::from(StatusCode::UNAUTHORIZED)),
            None => Ok(()),
        })
}

fn app(with_after: bool) -> TestClient {
    App::new(move |_| match with_after {
        true => router().after(|_: &Request, parts: &mut Parts| {
            parts.headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }),
        false => router(),
    })
    .limits(Limits::default().body_bytes_max(8).head_bytes_max(2000))
    .errors(seen)
    .test()
}

const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Requests, and what the renderer is told of their errors.
fn refused() -> Vec<(String, String)> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |head: &str, body: &str| format!("POST /json HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}");
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", LONG.repeat(30));
    [
        (get("/io"), "500|internal server error|the disk is gone|GET /io"),
        (get("/async-io"), "500|internal server error|the disk is gone|GET /async-io"),
        (get("/sold"), "409|out of stock|out of stock|GET /sold"),
        (get("/database"), "503|Service Unavailable|no route to 10.0.0.7|GET /database"),
        (get("/boxed/known"), "404|no such boxed thing|-|GET /boxed/known"),
        (get("/boxed/other"), "500|internal server error|a loose end|GET /boxed/other"),
        (get("/none"), "404|Not Found|-|GET /none"),
        (get("/param/x"), "400|path parameter `n`: invalid digit found in string|-|GET /param/x"),
        (get("/pair"), "400|not so|-|GET /pair"),
        (get("/panics"), "500|Internal Server Error|-|GET /panics"),
        (get("/async-panics"), "500|Internal Server Error|-|GET /async-panics"),
        (get("/by-hand"), "400|by hand|-|GET /by-hand"),
        (get("/nowhere"), "404|Not Found|-|GET /nowhere"),
        (
            post("Content-Length: 2\r\nContent-Type: application/json", "1x"),
            "400|request body: trailing characters at line 1 column 2|-|POST /json",
        ),
        (post("Content-Length: 9", ""), "413|the request body may have at most 8 bytes|-|POST /json"),
        (
            post("Transfer-Encoding: chunked", "9\r\n123456789\r\n0\r\n\r\n"),
            "413|The request body is too large.|-|POST /json",
        ),
        (
            post("Transfer-Encoding: chunked", "x"),
            "400|A chunk size is not 1 to 16 hexadecimal digits.|-|POST /json",
        ),
        (post("X-Refuse: 1\r\nContent-Length: 2", "12"), "401|Unauthorized|-|POST /json"),
        ("PUT /fine HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405|Method Not Allowed|-|PUT /fine"),
        ("BREW /fine HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "501|Not Implemented|-|BREW /fine"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400|The Host header is missing.|-|GET /"),
        (
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
            "400|There is white space between a header name and its colon.|-|- ?",
        ),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), "505|This server speaks HTTP/1.x only.|-|- ?"),
        (long, "431|The request head is too large.|-|- ?"),
    ]
    .map(|(request, told)| (request, told.to_owned()))
    .into()
}

#[test]
fn every_error_is_written_by_one_function_which_sees_its_source_and_its_request() {
    for with_after in [false, true] {
        for (request, told) in refused() {
            let mut connection = app(with_after).connect();
            connection.send(request.as_bytes());
            let answer = connection.response().unwrap_or_else(|| panic!("no answer to {request}"));
            assert_eq!(answer.text(), told, "{request}");
            assert_eq!(answer.status.as_str(), &told[..3], "{request}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{request}");
            assert_eq!(answer.header("vary"), with_after.then_some("origin"), "{request}");
        }
    }
}

#[test]
fn what_is_late_is_written_by_it_as_well() {
    let client = app(false);
    let mut late = client.connect();
    late.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut slow = client.connect();
    slow.send(b"GET / HT");
    client.advance(Duration::from_secs(31));
    let told = "503|the answer took too long to make|the handler was dropped at its deadline|GET /late";
    assert_eq!(late.response().expect("an answer").text(), told);
    let told = "408|the request took too long to arrive|-|- ?";
    assert_eq!(slow.response().expect("an answer").text(), told);
}

#[test]
fn headers_of_an_error_come_along() {
    let client = app(false);
    let busy = client.get("/busy");
    assert_eq!((busy.status.as_u16(), busy.header("retry-after")), (429, Some("7")));
    let put = client.request(Method::PUT, "/fine").send();
    assert_eq!((put.status.as_u16(), put.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_answer_to_head_has_the_length_of_a_written_error_and_not_its_bytes() {
    let bytes = app(false).raw(b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    let length = seen_length("404|Not Found|-|HEAD /nowhere");
    assert!(text(&bytes).contains(&length) && bytes.ends_with(b"\r\n\r\n"), "{}", text(&bytes));
}

fn seen_length(told: &str) -> String {
    format!("Content-Length: {}\r\n", told.len())
}

#[test]
fn the_status_is_the_errors_unless_the_function_says_another_error() {
    fn hide(error: &Error, _: &Request<'_>) -> Response {
        match error.status() {
            StatusCode::UNAUTHORIZED => Response::text("nothing here").status(StatusCode::NOT_FOUND),
            _ => Response::text("no").status(StatusCode::OK),
        }
    }
    let router = || {
        Router::new()
            .get("/secret", |_: &Request| Err::<(), _>(Error::from(StatusCode::UNAUTHORIZED)))
            .get("/panics", |_: &Request| -> () { panic!("on purpose") })
    };
    let client = App::new(move |_| router()).errors(hide).test();
    for (path, status, body) in
        [("/secret", 404, "nothing here"), ("/nowhere", 404, "no"), ("/panics", 500, "no")]
    {
        let answer = client.get(path);
        assert_eq!((answer.status.as_u16(), answer.text()), (status, body), "{path}");
    }
}

#[test]
fn a_written_error_may_have_any_body() {
    fn body(_: &Error, request: &Request<'_>) -> Response {
        match request.path() {
            "/stream" => Response::text(Body::chunks(["a", "b"])),
            "/large" => Response::bytes(vec![b'x'; 100_000]),
            _ => Response::new(StatusCode::OK),
        }
    }
    let panics = |_: &Request| -> &'static str { panic!("on purpose") };
    let router = move || Router::new().get("/stream", panics).get("/large", panics);
    let client = App::new(move |_| router()).errors(body).test();
    assert_eq!(client.get("/stream").text(), "ab");
    assert_eq!(client.post("/stream", "").text(), "ab");
    assert_eq!(client.get("/large").body.len(), 100_000);
    assert_eq!(client.post("/large", "").body.len(), 100_000);
    assert_eq!((client.get("/x").status.as_u16(), client.get("/x").text()), (404, ""));
    let bytes = client.raw(b"POST /stream HTTP/1.0\r\n\r\n");
    assert!(text(&bytes).ends_with("\r\n\r\nab"), "{}", text(&bytes));
}

#[test]
fn a_panic_of_the_function_is_a_500_as_text_and_costs_one_connection() {
    fn broken(_: &Error, _: &Request<'_>) -> Response {
        panic!("on purpose")
    }
    for with_after in [false, true] {
        let client = App::new(move |_| match with_after {
            true => router().after(|_: &Request, _: &mut Parts| ()),
            false => router(),
        })
        .errors(broken)
        .test();
        for path in ["/nowhere", "/panics", "/async-panics", "/io"] {
            let mut connection = client.connect();
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            let answer = connection.response().expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.text()), (500, "Internal Server Error\n"), "{path}");
            assert!(connection.is_closed());
        }
        assert_eq!(client.get("/fine").text(), "fine");
    }
}

#[test]
fn a_hook_that_panics_is_answered_by_the_function_as_well() {
    let router = || {
        let panics = |_: &Request, _: &mut Parts| panic!("on purpose");
        let outer = |_: &Request, parts: &mut Parts| {
            assert!(parts.error.is_some());
            parts.headers.insert("x-outer", HeaderValue::from_static("1"));
        };
        Router::new().get("/", |_: &Request| "text").after(outer).after(panics)
    };
    let client = App::new(move |_| router()).errors(errors::json).test();
    let answer = client.get("/");
    assert_eq!((answer.status.as_u16(), answer.header("x-outer")), (500, Some("1")));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.text(), r#"{"status":500,"title":"Internal Server Error"}"#);
}

#[test]
fn a_switch_of_protocols_that_comes_too_late_is_refused_by_the_function() {
    struct Nothing;
    impl netpoll_core::Protocol for Nothing {
        fn received(
            &mut self,
            _: &mut netpoll_core::Conn<'_>,
            _: &mut netpoll_core::Input<'_>,
        ) -> netpoll_core::Flow {
            netpoll_core::Flow::Close
        }
    }
    for with_after in [false, true] {
        let router = move || {
            let accept = |req: &Request| Ok(req.upgrade("x").ok_or(StatusCode::NOT_FOUND)?.accept(Nothing));
            let router = Router::new().get("/", accept);
            if with_after { router.after(|_: &Request, _: &mut Parts| ()) } else { router }
        };
        let client = App::new(move |_| router()).errors(errors::json).test();
        let mut connection = client.connect();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(connection.response().expect("an answer").status.as_u16(), 101);

        let mut connection = client.connect();
        connection
            .send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"[..20].as_ref());
        client.begin_drain(Duration::from_secs(5));
        connection
            .send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"[20..].as_ref());
        let answer = connection.response().expect("an answer");
        assert_eq!(answer.status.as_u16(), 503);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

#[test]
fn errors_as_text_are_lines() {
    let limits = Limits::default().body_bytes_max(8).head_bytes_max(2000);
    let client = App::new(|_| router()).limits(limits).test();
    for (request, told) in refused() {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        let answer = connection.response().unwrap_or_else(|| panic!("no answer to {request}"));
        let lines = answer.text().matches('\n').count();
        assert!(lines == 1 && answer.text().ends_with('\n'), "{request}: {:?}", answer.text());
        assert_eq!(answer.status.as_str(), &told[..3], "{request}");
        assert!(!answer.text().contains("10.0.0.7") && !answer.text().contains("the disk"), "{request}");
    }
    assert_eq!(Error::bad_request("a line\n").into_response().body.length(), Some(7));
    assert_eq!(Error::new(StatusCode::BAD_REQUEST, "").into_response().body.length(), Some(0));
}

#[test]
fn on_real_sockets_a_server_writes_its_errors_as_told() {
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1).errors(errors::json);
    let running = server.app(|_| router()).start().unwrap();
    for (request, last) in [
        (
            "GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            r#"{"status":404,"title":"Not Found"}"#,
        ),
        (
            "GET / HTTP/1.1\r\n\r\n",
            r#"{"status":400,"title":"Bad Request","detail":"The Host header is missing."}"#,
        ),
    ] {
        let mut stream = TcpStream::connect(running.addr()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert!(text(&bytes).ends_with(last), "{}", text(&bytes));
    }
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_job_that_finds_no_room_is_503_and_one_that_panics_500() {
    let full = async |_: Request| -> Result<&'static str, Error> {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let mut jobs: Vec<_> = (0..4)
            .map(|_| {
                let wait = std::sync::Arc::clone(&wait);
                spawn_blocking(move || drop(wait.lock().map(|wait| wait.recv())))
            })
            .collect();
        // One runs, and one waits.
        let last = jobs.pop().expect("there were four").await;
        drop(go_on);
        for job in jobs {
            // The third of them found no room either; who asks next finds some.
            drop(job.await);
        }
        last?;
        Ok("there was room")
    };
    let panics =
        async |_: Request| -> Result<String, Error> { Ok(spawn_blocking(|| panic!("on purpose")).await?) };
    let running = Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(1)
        .runtime(|builder| builder.blocking_threads(1).blocking_jobs_max(1))
        .app(move |_worker| Router::new().get("/full", full).get("/panics", panics))
        .start()
        .unwrap();
    let addr = running.addr().as_socket_addr().unwrap();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("/full");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nService Unavailable\n"),
        "{answer}"
    );
    let answer = ask("/panics");
    assert!(
        answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("\r\n\r\ninternal server error\n"),
        "{answer}"
    );
}

#[test]
fn a_status_has_one_name_in_the_status_line_and_in_every_body() {
    for code in [413, 422, 404, 503] {
        let status = StatusCode::from_u16(code).expect("a status");
        let routes = move |_: &_| {
            Router::new().get("/", move |_: &Request| -> Result<(), Error> { Err(status.into()) })
        };
        let raw = |client: TestClient| {
            String::from_utf8(client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).expect("text")
        };
        let text = raw(App::new(routes).test());
        let line = text.lines().next().expect("a status line");
        let name = line.strip_prefix(&format!("HTTP/1.1 {code} ")).expect("this status");
        assert!(text.ends_with(&format!("\r\n\r\n{name}\n")), "{text}");
        let json = raw(App::new(routes).errors(errors::json).test());
        assert!(json.ends_with(&format!("\r\n\r\n{{\"status\":{code},\"title\":\"{name}\"}}")), "{json}");
    }
}
