//! Names of requests and traces, in and out.

use netpoll_http::{
    App, Error, HeaderName, HeaderValue, Json, Method, Params, Parts, Replied, Reply, Request, RequestId,
    Response, Route, RouteId, Router, Service, StatusCode, TestClient, TraceContext,
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
