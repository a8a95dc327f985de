//! Names of requests and traces, in and out.

use std::sync::mpsc::channel;
use std::task::Context;
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol};
use netpoll_http::{
    App, BeforeFuture, Body, BodyBuf, Completed, Error, HeaderName, HeaderValue, Json, Method, Params, Parts,
    Pull, Replied, Reply, Request, RequestId, Response, Route, RouteId, Router, ServerHeader, Service,
    StatusCode, TestClient, TraceContext, routes,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn client() -> TestClient {
    let show = |req: &Request| {
        let extensions = req.extensions();
        let trace = extensions.get::<TraceContext>().map(|trace| {
            let state = trace.tracestate().map_or("", |state| state.to_str().expect("ASCII"));
            format!("{} {} {state}", trace.trace_id_hex(), trace.is_sampled())
        });
        format!("{}|{}", extensions.get::<RequestId>().expect("a hook took it"), trace.unwrap_or_default())
    };
    let asynchronous = async |req: Request| {
        req.extensions().get::<RequestId>().map(RequestId::to_string).unwrap_or_default()
    };
    App::new(move |_| {
        Router::new()
            .get("/", show)
            .get("/async", asynchronous)
            .before(RequestId::take)
            .before(TraceContext::take)
            .after(RequestId::show)
    })
    .test()
}

/// What the handler has seen, with these fields.
fn seen(fields: &[(&str, &str)]) -> (String, String) {
    let client = client();
    let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut connection = client.connect();
    connection.send(text.as_bytes());
    let response = connection.response().expect("an answer");
    let (id, trace) = response.text().split_once('|').expect("both");
    assert_eq!(response.header(HeaderName::from_static("x-request-id").as_str()), Some(id));
    (id.to_owned(), trace.to_owned())
}

#[test]
fn a_sane_name_is_taken_over_and_any_other_is_replaced() {
    let id = |fields: &[(&str, &str)]| seen(fields).0;
    let long = "a".repeat(128);
    for sane in ["7", "abc-DEF_0.1~2:3", "a/b+c==", &long] {
        assert_eq!(id(&[("X-Request-Id", sane)]), sane);
    }
    let (too_long, made) = ("a".repeat(129), id(&[]));
    assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    for other in ["", "a b", "a\"b", "a;b", "<b>", "\u{e9}", &too_long] {
        let id = id(&[("X-Request-Id", other)]);
        assert!(id.len() == 32 && id != made, "{other}: {id}");
    }
    assert_eq!(id(&[("X-Request-Id", "a"), ("X-Request-Id", "b")]).len(), 32, "there is no telling which");
}

#[test]
fn every_answer_says_the_name_of_its_request() {
    let client = client();
    let of = |path: &str| client.get(path).header("x-request-id").map(str::to_owned).expect(path);
    assert_ne!(of("/nowhere"), of("/nowhere"));
    let response = client.request(Method::GET, "/async").header("X-Request-Id", "seven").send();
    assert_eq!((response.text(), response.header("x-request-id")), ("seven", Some("seven")));
    let refused = client.raw(b"nonsense\r\n\r\n");
    assert!(String::from_utf8_lossy(&refused).contains("X-Request-Id: "), "one that no hook has seen before");
}

#[test]
fn a_trace_goes_on_and_what_is_malformed_is_no_trace() {
    let trace = |parent: &str| seen(&[("traceparent", parent)]).1;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let span = "00f067aa0ba902b7";
    assert_eq!(trace(&format!("00-{id}-{span}-01")), format!("{id} true "));
    assert_eq!(trace(&format!("00-{id}-{span}-00")), format!("{id} false "));
    assert_eq!(trace(&format!("cc-{id}-{span}-01-what-will-be")), format!("{id} true "), "a later version");
    assert_eq!(trace(&format!("cc-{id}-{span}-01")), format!("{id} true "));
    let (upper, zeros) = (id.to_uppercase(), "0".repeat(32));
    for malformed in [
        format!("ff-{id}-{span}-01"),
        format!("00-{id}-{span}-01-more"),
        format!("cc-{id}-{span}-01.more"),
        format!("00-{upper}-{span}-01"),
        format!("00-{zeros}-{span}-01"),
        format!("00-{id}-0000000000000000-01"),
        format!("00-{id}-{span}"),
        format!("00_{id}-{span}-01"),
        format!("00-{id}_{span}-01"),
        format!("0g-{id}-{span}-01"),
        format!("00-{id}-{span}-0x"),
        String::new(),
    ] {
        assert_eq!(trace(&malformed), "", "{malformed}");
    }
    let parent = format!("00-{id}-{span}-01");
    assert_eq!(seen(&[("traceparent", &parent), ("traceparent", &parent)]).1, "", "one only");
}

#[test]
fn the_state_of_a_trace_goes_with_it() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = |states: &[&str]| {
        let mut fields = vec![("traceparent", parent)];
        fields.extend(states.iter().map(|state| ("tracestate", *state)));
        seen(&fields).1.split_once(" true ").expect("a trace").1.to_owned()
    };
    assert_eq!(state(&["a=1", "", "b=2,c=3"]), "a=1,b=2,c=3");
    assert_eq!(state(&[&format!("a={}", "x".repeat(511))]), "", "more than 512 bytes");
    let entry = |name: char, bytes: usize| format!("{name}={}", "x".repeat(bytes - 2));
    let entries = ['a', 'b', 'c', 'd'].map(|name| entry(name, 120));
    let (four, large) = (entries.join(","), entry('l', 129));
    assert_eq!(state(&[&four]), four, "as many as there may be");
    assert_eq!(state(&[&format!("{large},{four}")]), four, "what is large is left behind first");
    assert_eq!(state(&[&four, &entry('e', 60)]), four, "and then the last");
    assert_eq!(state(&[&format!("{large},a=1")]), format!("{large},a=1"), "there is room for it");
    assert_eq!(seen(&[("tracestate", "a=1")]).1, "", "a state alone is none");
}

/// The same service, with the hook by its name, and within a closure that nobody can tell from any other.
fn two_of_the_same() -> [TestClient; 2] {
    [false, true].map(|is_wrapped| {
        App::new(move |_| {
            let nested =
                Router::new().get("/", |_: &Request| "nested").after(|_: &Request, parts: &mut Parts| {
                    parts.headers.insert(HeaderName::from_static("x-nested"), HeaderValue::from_static("1"));
                });
            let router = Router::new()
                .get("/", |_: &Request| "hello")
                .get("/async", async |_: Request| "hello")
                .get("/own", |_: &Request| {
                    Response::text("own").header(X_REQUEST_ID, HeaderValue::from_static("of-the-handler"))
                })
                .get("/panics", |_: &Request| -> &str { panic!("as told") })
                .get("/json", |_: &Request| Json(7))
                .nest("/nested", nested)
                .before(RequestId::take);
            match is_wrapped {
                false => router.after(RequestId::show),
                true => router.after(|req: &Request, parts: &mut Parts| RequestId::show(req, parts)),
            }
        })
        .test()
    })
}

/// A line without the differences that mean nothing: a length that was filled in has blanks before it.
fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase()
}

#[test]
fn a_name_is_in_each_answer_once_whichever_way_it_takes() {
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/async"),
        ("GET", "/own"),
        ("GET", "/panics"),
        ("GET", "/json"),
        ("GET", "/nested"),
        ("GET", "/nowhere"),
        ("POST", "/"),
        ("GET", "nonsense"),
    ] {
        let answers = two_of_the_same().map(|client| {
            let mut connection = client.connect();
            connection.send(
                format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-7\r\n\r\n").as_bytes(),
            );
            let text = String::from_utf8(connection.received()).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let mut lines: Vec<_> = head.split("\r\n").map(plain).collect();
            lines.sort();
            (lines, body.to_owned())
        });
        let names = answers[0].0.iter().filter(|line| line.starts_with("x-request-id: ")).count();
        assert_eq!(names, 1, "{method} {path}: {answers:?}");
        if path == "nonsense" {
            continue; // Its head was not read, so each has a new name.
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert!(answers[0].0.iter().any(|line| line == "x-request-id: abc-7"), "{answers:?}");
    }
}

/// A service of the program, which asks a router about everything that a program can.
struct Around(Router);

impl Service for Around {
    fn find(&self, method: &str, path: &[u8], params: &mut Params) -> Route<'_> {
        self.0.find(method, path, params)
    }

    fn methods(&self) -> &str {
        self.0.methods()
    }

    fn before(&self, route: Option<RouteId>, request: &Request<'_>) -> Option<Result<Response, Error>> {
        Service::before(&self.0, route, request)
    }

    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.0.call(route, request, reply)
    }
}

#[test]
fn names_are_there_wherever_the_hooks_that_take_them_are() {
    let names = |req: &Request| {
        let (id, trace) = (req.extensions().get::<RequestId>(), req.extensions().get::<TraceContext>());
        format!(
            "{} {}",
            id.map_or("-", RequestId::as_str),
            trace.map_or_else(|| "-".into(), TraceContext::trace_id_hex)
        )
    };
    let router = move || Router::new().get("/", names);
    let named = move || router().before(RequestId::take).before(TraceContext::take);
    let ahead = |_: &Request| ();
    let refuses = |req: &Request| match req.extensions().get::<RequestId>() {
        Some(_) => Ok(()),
        None => Err(Error::from(StatusCode::FORBIDDEN)),
    };
    let twice = move || named().before(RequestId::take).before(TraceContext::take);
    let clients = [
        App::new(move |_| named()).test(),
        App::new(move |_| router().before(TraceContext::take).before(RequestId::take)).test(),
        App::new(move |_| router().before(ahead).before(RequestId::take).before(TraceContext::take)).test(),
        App::new(move |_| router().before(RequestId::take).before(refuses).before(TraceContext::take)).test(),
        App::new(move |_| {
            router().before(RequestId::take).before(async |_: Request| ()).before(TraceContext::take)
        })
        .test(),
        App::new(move |_| Router::new().merge(named())).test(),
        App::new(move |_| Router::new().merge(named()).before(RequestId::take)).test(),
        App::new(move |_| twice()).test(),
        App::new(move |_| Around(named())).test(),
    ];
    for (nth, client) in clients.iter().enumerate() {
        let ask = |fields: &[(&str, &str)]| {
            let request = client.request(Method::GET, "/");
            let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
            request.send().text().to_owned()
        };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let seen = ask(&[("X-Request-ID", "abc-7"), ("TraceParent", parent)]);
        assert_eq!(seen, "abc-7 4bf92f3577b34da6a3ce929d0e0e4736", "client {nth}");
        let seen = ask(&[
            ("x-request-id", "one"),
            ("x-request-id", "two"),
            ("traceparent", parent),
            ("traceparent", parent),
        ]);
        let (id, trace) = seen.split_once(' ').expect("two names");
        assert_eq!((id.len(), trace), (32, "-"), "client {nth}: of several none is taken over");
    }
    let traced = App::new(move |_| router().before(TraceContext::take)).test();
    assert_eq!(traced.get("/").text(), "- -", "nobody has asked for a name");
}

/// A service of the program around another, which passes on all that a [`Service`] is asked.
struct Outside<S>(S);

impl<S: Service> Service for Outside<S> {
    fn find(&self, method: &str, path: &[u8], params: &mut Params) -> Route<'_> {
        self.0.find(method, path, params)
    }

    fn methods(&self) -> &str {
        self.0.methods()
    }

    fn pattern(&self, route: RouteId) -> Option<&str> {
        self.0.pattern(route)
    }

    fn body_bytes_max(&self, route: RouteId) -> Option<usize> {
        self.0.body_bytes_max(route)
    }

    fn handler_timeout(&self, route: RouteId) -> Option<Duration> {
        self.0.handler_timeout(route)
    }

    fn fallback(&self, path: &str, found: Route<'_>) -> Option<RouteId> {
        self.0.fallback(path, found)
    }

    fn has_before(&self, route: Option<RouteId>) -> bool {
        self.0.has_before(route)
    }

    fn before(&self, route: Option<RouteId>, request: &Request<'_>) -> Option<Result<Response, Error>> {
        self.0.before(route, request)
    }

    fn has_before_async(&self, route: Option<RouteId>, request: &Request<'_>) -> bool {
        self.0.has_before_async(route, request)
    }

    fn before_async(&self, route: Option<RouteId>, request: Request<'static>) -> BeforeFuture {
        self.0.before_async(route, request)
    }

    fn has_after(&self, route: Option<RouteId>) -> bool {
        self.0.has_after(route)
    }

    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        self.0.after(route, request, parts);
    }

    fn call(&self, route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        self.0.call(route, request, reply)
    }
}

#[test]
fn a_service_around_a_router_that_passes_on_what_it_is_asked_says_names_as_the_router_does() {
    let router = || {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/async", async |_: Request| "hello")
            .get("/panics", |_: &Request| -> &str { panic!("as told") })
            .get("/json", |_: &Request| Json(7))
            .before(RequestId::take)
            .after(RequestId::show)
    };
    let table = || {
        routes! {
            GET "/" => |_: &Request| "hello",
            GET "/async" => async |_: Request| "hello",
            GET "/panics" => |_: &Request| -> &str { panic!("as told") },
            GET "/json" => |_: &Request| Json(7),
        }
        .before(RequestId::take)
        .after(RequestId::show)
    };
    let clients = [
        App::new(move |_| router()).test(),
        App::new(move |_| Outside(router())).test(),
        App::new(move |_| table()).test(),
        App::new(move |_| Outside(table())).test(),
    ];
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/async"),
        ("GET", "/panics"),
        ("GET", "/json"),
        ("GET", "/nowhere"),
        ("PUT", "/"),
        ("OPTIONS", "*"),
    ] {
        let answers = clients.each_ref().map(|client| {
            let mut connection = client.connect();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-7\r\n\r\n");
            connection.send(head.as_bytes());
            let text = String::from_utf8(connection.received()).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let mut lines: Vec<_> = head.split("\r\n").map(plain).collect();
            lines.sort();
            (lines, body.to_owned())
        });
        assert!(answers[0].0.iter().any(|line| line == "x-request-id: abc-7"), "{answers:?}");
        for other in &answers[1..] {
            assert_eq!(*other, answers[0], "{method} {path}");
        }
    }
    for client in &clients {
        let refused = String::from_utf8(client.raw(b"nonsense\r\n\r\n")).expect("text");
        assert_eq!(refused.matches("X-Request-Id: ").count(), 1, "{refused}");
    }
}

#[test]
fn a_router_that_a_handler_of_another_asks_finds_what_the_other_has_not_looked_for() {
    let said = |req: &Request| {
        let (id, trace) = (req.extensions().get::<RequestId>(), req.extensions().get::<TraceContext>());
        format!("{} {}", id.is_some(), trace.is_some())
    };
    /// Answers with what a router has, which it asks as it may.
    fn asks(inner: Router) -> impl Fn(&Request<'_>, Reply<'_>) -> Replied {
        move |req, reply| {
            let mut params = Params::new();
            let Route::To(route) = inner.find(req.method_str(), req.path().as_bytes(), &mut params) else {
                return reply.fail(StatusCode::NOT_FOUND.into());
            };
            match Service::before(&inner, Some(route), req) {
                Some(answer) => reply.fail(answer.expect_err("nobody answers")),
                None => inner.call(route, req, reply),
            }
        }
    }
    let inner = move || Router::new().get("/", said).before(TraceContext::take);
    let outer = [
        App::new(move |_| Router::new().get("/", asks(inner())).before(RequestId::take)).test(),
        App::new(move |_| {
            let inner = inner().before(RequestId::take);
            Router::new().get("/", asks(inner)).before(TraceContext::take)
        })
        .test(),
    ];
    for client in outer {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let response = client.request(Method::GET, "/").header("traceparent", parent).send();
        assert_eq!(response.text(), "true true");
    }
}

/// Says the same in all its answers, whatever that is.
struct Stamping(&'static str, &'static [u8]);

impl Service for Stamping {
    fn find(&self, _method: &str, _path: &[u8], _params: &mut Params) -> Route<'_> {
        Route::To(RouteId(0))
    }

    fn methods(&self) -> &str {
        "GET"
    }

    fn stamp<'r>(
        &self,
        _route: Option<RouteId>,
        _request: &'r Request<'_>,
    ) -> Option<(&'static str, &'r [u8])> {
        Some((self.0, self.1))
    }

    fn call(&self, _route: RouteId, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match request.upgrade("echo") {
            Some(upgrade) => reply.send(upgrade.accept(Silent)),
            None => reply.bytes(StatusCode::OK, "text/plain", b"hello"),
        }
    }
}

struct Silent;

impl Protocol for Silent {
    fn received(&mut self, _: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_line_of_a_service_that_would_split_a_head_or_frame_a_body_is_left_out() {
    for (name, value, is_said) in [
        ("x-a", &b"fine, \xe4"[..], true),
        ("x-request-id", b"0123456789abcdef0123456789abcdef", true),
        ("x-a", b"1\r\nSet-Cookie: a=b", false),
        ("x-a", b"1\n", false),
        ("x-a", b"\0", false),
        ("x-a\r\nx-b", b"1", false),
        ("X-A", b"1", false),
        ("", b"1", false),
        ("content-length", b"1", false),
        ("transfer-encoding", b"chunked", false),
    ] {
        let client = App::new(move |_| Stamping(name, value)).test();
        for (line, fields) in [
            ("GET / HTTP/1.1", ""),
            ("GET / HTTP/1.0", ""),
            ("HEAD / HTTP/1.1", ""),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: echo\r\n"),
        ] {
            let answer = client.raw(format!("{line}\r\nHost: a\r\n{fields}\r\n").as_bytes());
            let head_bytes = memchr::memmem::find(&answer, b"\r\n\r\n").expect("a head");
            let head = answer[..head_bytes].iter().map(|byte| char::from(*byte)).collect::<String>();
            let head = head.to_ascii_lowercase();
            let status = if fields.is_empty() { " 200 " } else { " 101 " };
            assert!(head.contains(status), "{name:?} {line}: {head}");
            let value: String = value.iter().map(|byte| char::from(*byte)).collect();
            assert_eq!(head.contains(&format!("\r\n{name}: {value}")), is_said, "{line}: {head}");
            assert!(!head.contains("set-cookie") && !head.contains("x-b"), "{head}");
        }
        assert_eq!(client.stats().panics, 0, "{name:?}");
    }
}

#[test]
fn a_name_is_in_the_answer_whatever_is_said_of_the_connection() {
    let router = || {
        let mut pieces = 0;
        let stream = move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
            pieces += 1;
            out.extend(b"piece");
            if pieces == 2 { Pull::Done } else { Pull::More }
        };
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/empty", |_: &Request| ())
            .get("/unchanged", |_: &Request| StatusCode::NOT_MODIFIED)
            .get("/reset", |_: &Request| StatusCode::RESET_CONTENT)
            .get("/odd", |_: &Request| StatusCode::from_u16(999).expect("a status"))
            .get("/created", |_: &Request| (StatusCode::CREATED, Json([1, 2])))
            .get("/large", |_: &Request| "x".repeat(20_000))
            .get("/stream", move |_: &Request| Response::text(Body::stream(stream)))
            .get("/close", |_: &Request, reply: Reply<'_>| reply.close().bytes(StatusCode::OK, "", b"bye"))
            .get("/upgrade", |req: &Request| match req.upgrade("echo") {
                Some(upgrade) => upgrade.accept(Silent),
                None => Response::new(StatusCode::UPGRADE_REQUIRED),
            })
            .before(RequestId::take)
    };
    let servers: [fn() -> ServerHeader; 3] =
        [ServerHeader::default, || ServerHeader::from("a server of ours"), || ServerHeader::from(None)];
    let paths = [
        "/",
        "/empty",
        "/unchanged",
        "/reset",
        "/odd",
        "/created",
        "/large",
        "/stream",
        "/close",
        "/upgrade",
    ];
    let ways = [
        ("GET", "1.1", ""),
        ("HEAD", "1.1", ""),
        ("GET", "1.0", ""),
        ("GET", "1.0", "Connection: keep-alive\r\n"),
        ("GET", "1.1", "Connection: keep-alive\r\n"),
        ("GET", "1.1", "Connection: close\r\n"),
        ("GET", "1.1", "Connection: upgrade\r\nUpgrade: echo\r\n"),
    ];
    let long = "l".repeat(128);
    for server in servers {
        let plain_client = App::new(move |_| router()).server_header(server()).test();
        let client = App::new(move |_| router().after(RequestId::show)).server_header(server()).test();
        for path in paths {
            for (method, version, fields) in ways {
                for id in ["7", "0123456789abcdef0123456789abcdef", &long] {
                    let head = format!(
                        "{method} {path} HTTP/{version}\r\nHost: a\r\nX-Request-Id: {id}\r\n{fields}\r\n"
                    );
                    // Two, one behind the other.
                    let head = head.repeat(2);
                    let [without, with] = [&plain_client, &client].map(|client| {
                        let mut connection = client.connect();
                        connection.send(head.as_bytes());
                        String::from_utf8(connection.received()).expect("text")
                    });
                    let line = format!("X-Request-Id: {id}\r\n");
                    let heads = with.matches("HTTP/1.1 ").count();
                    assert_eq!(with.matches(&line).count(), heads, "{head}{with}");
                    let with = with.replace(&line, "");
                    let sorted = |text: &str| {
                        let mut lines: Vec<_> = text.split("\r\n").map(plain).collect();
                        lines.sort();
                        lines
                    };
                    assert_eq!(sorted(&with), sorted(&without), "{head}");
                }
            }
        }
    }
}

/// What the document of the W3C says, letter by letter.
fn is_trace_parent(text: &[u8]) -> bool {
    let is_hex = |digits: &[u8]| digits.iter().all(|digit| b"0123456789abcdef".contains(digit));
    let has_some = |digits: &[u8]| digits.iter().any(|digit| *digit != b'0');
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'-').collect();
    let [version, trace, parent, flags, more @ ..] = &parts[..] else { return false };
    [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2]
        && [version, trace, parent, flags].iter().all(|part| is_hex(part))
        && has_some(trace)
        && has_some(parent)
        && **version != b"ff"[..]
        && (**version != b"00"[..] || more.is_empty())
}

#[test]
fn a_trace_is_taken_over_exactly_if_it_is_one_by_the_letter_and_a_name_if_it_is_sane() {
    let client = client();
    let mut connection = client.connect();
    let mut ask = |parent: &[u8], id: &[u8]| {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice();
        let rest = [b"traceparent: ".as_slice(), parent, b"\r\nX-Request-Id: ", id, b"\r\n\r\n"].concat();
        connection.send(&[head, &rest].concat());
        let response = connection.response().expect("an answer");
        let (id, trace) = response.text().split_once('|').expect("both");
        (id.to_owned(), !trace.is_empty())
    };
    let parents = [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000001-1000000000000000-ff",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        "fe-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "f0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    ];
    let mut taken = 0;
    for parent in parents {
        for at in 0..parent.len() {
            for byte in (b' '..=b'~').chain(0x80..=0xff) {
                let mut parent = parent.as_bytes().to_vec();
                parent[at] = byte;
                let expected = is_trace_parent(parent.trim_ascii());
                taken += u32::from(expected);
                assert_eq!(ask(&parent, b"a").1, expected, "{}", parent.escape_ascii());
            }
        }
        for length in 0..parent.len() {
            let part = &parent.as_bytes()[..length];
            assert_eq!(ask(part, b"a").1, is_trace_parent(part), "{}", part.escape_ascii());
        }
    }
    assert!(taken > 1000, "{taken}");
    for length in 1..=130 {
        for at in [0, length / 2, length - 1] {
            for byte in (b'!'..=b'~').chain(0x80..=0xff) {
                let mut id = vec![b'i'; length];
                id[at] = byte;
                let is_sane = length <= 128 && (byte.is_ascii_alphanumeric() || b"-._~:/+=".contains(&byte));
                let said = ask(b"", &id).0;
                assert_eq!(said.as_bytes() == id, is_sane, "{} {said}", id.escape_ascii());
                assert!(is_sane || said.len() == 32, "{said}");
            }
        }
    }
}

#[test]
fn an_upgrade_that_comes_too_late_is_declined_by_the_name_of_its_request_in_answer_and_log() {
    let upgrades = |req: &Request| match req.upgrade("echo") {
        Some(upgrade) => upgrade.accept(Silent),
        None => Response::new(StatusCode::UPGRADE_REQUIRED),
    };
    let later = async move |req: Request| upgrades(&req);
    let router = move || Router::new().get("/", upgrades).get("/async", later).after(RequestId::show);
    let (sender, ids) = channel();
    for (is_taken, is_rendered) in [(true, false), (false, false), (true, true)] {
        let sender = sender.clone();
        let app = App::new(move |_| if is_taken { router().before(RequestId::take) } else { router() });
        let app = app.on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| {
                let id = done.request.extensions().get::<RequestId>().map(RequestId::to_string);
                sender.send(id.unwrap_or_default()).expect("the test listens");
            }
        });
        let app = if is_rendered {
            app.errors(|error, request| Response::text(request.target().to_owned()).status(error.status()))
        } else {
            app
        };
        let client = app.test();
        let mut connections = ["/", "/async"].map(|path| (path, client.connect()));
        for (path, connection) in &mut connections {
            let line = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-7\r\n");
            connection.send(line.as_bytes());
        }
        client.begin_drain(Duration::from_secs(10));
        for (path, mut connection) in connections {
            connection.send(b"Connection: upgrade\r\nUpgrade: echo\r\n\r\n");
            let response = connection.response().expect("an answer");
            assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.header("x-request-id"), Some("abc-7"), "{path} {is_taken} {is_rendered}");
            assert!(!is_rendered || response.text() == path, "{}", response.text());
            assert_eq!(ids.try_recv().as_deref(), Ok("abc-7"), "{path}");
            assert!(ids.try_recv().is_err(), "once");
        }
    }
}
