//! Hooks before and after handlers.

use std::cell::RefCell;

use netpoll_http::{
    App, Error, HeaderValue, Method, Parts, Request, Response, Router, StatusCode, header, routes,
};

use crate::client;

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
