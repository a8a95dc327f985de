//! What handlers may return, and what leaves.

use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::Options;
use netpoll_http::{
    App, Body, Error, HeaderValue, Json, Limits, Method, Parts, Reply, Request, Response, Router, StatusCode,
    TestConnection, header,
};
use serde::Serialize;

use crate::{client, text};

struct Sold;

impl From<Sold> for Error {
    fn from(_: Sold) -> Self {
        Error::new(StatusCode::CONFLICT, "sold\n")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("60"))
    }
}

#[derive(Serialize)]
struct Point {
    x: i32,
    y: i32,
}

#[test]
fn a_static_text_leaves_as_one_head_and_its_bytes() {
    let client = client(|| Router::new().get("/", |_: &Request| "Hello, World!"));
    assert_eq!(
        text(&client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        "HTTP/1.1 200 OK\r\nServer: netpoll\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 13\r\n\r\nHello, World!"
    );
}

#[test]
fn each_kind_of_answer_has_its_status_and_type() {
    let client = client(|| {
        Router::new()
            .get("/string", |_: &Request| String::from("s"))
            .get("/bytes", |_: &Request| Bytes::from_static(b"b"))
            .get("/vec", |_: &Request| vec![1_u8, 2])
            .get("/json", |_: &Request| Json(Point { x: 1, y: -2 }))
            .get("/unit", |_: &Request| ())
            .get("/status", |_: &Request| StatusCode::ACCEPTED)
            .get("/pair", |_: &Request| (StatusCode::CREATED, "made"))
            .get("/none", |_: &Request| None::<&str>)
            .get("/html", |_: &Request| Response::html("<p>"))
    });
    let seen = |path: &str| {
        let response = client.get(path);
        let kind = response.header("content-type").unwrap_or("-").to_owned();
        (response.status.as_u16(), kind, response.body)
    };
    let plain = || "text/plain; charset=utf-8".to_owned();
    let octets = || "application/octet-stream".to_owned();
    assert_eq!(seen("/string"), (200, plain(), b"s".to_vec()));
    assert_eq!(seen("/bytes"), (200, octets(), b"b".to_vec()));
    assert_eq!(seen("/vec"), (200, octets(), vec![1, 2]));
    assert_eq!(seen("/json"), (200, "application/json".to_owned(), br#"{"x":1,"y":-2}"#.to_vec()));
    assert_eq!(seen("/unit"), (204, "-".to_owned(), Vec::new()));
    assert_eq!(seen("/status"), (202, "-".to_owned(), Vec::new()));
    assert_eq!(seen("/pair"), (201, plain(), b"made".to_vec()));
    assert_eq!(seen("/none"), (404, plain(), b"Not Found\n".to_vec()));
    assert_eq!(seen("/html"), (200, "text/html; charset=utf-8".to_owned(), b"<p>".to_vec()));
}

#[test]
fn a_body_of_any_size_and_kind_arrives_whole_and_in_order() {
    let client = client(|| {
        Router::new()
            .get("/static", |_: &Request| Response::bytes(Body::Static(&[7; 300_000])))
            .get("/shared", |_: &Request| Bytes::from(vec![8; 300_000]))
            .get("/owned", |_: &Request| vec![9; 300_000])
            .get("/small", |_: &Request| "small")
    });
    let mut connection = client.connect();
    connection.send(
        b"GET /static HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n\
          GET /shared HTTP/1.1\r\nHost: a\r\n\r\nGET /owned HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut body = || connection.response().expect("an answer").body;
    assert_eq!(body(), [7; 300_000]);
    assert_eq!(body(), b"small");
    assert_eq!(body(), [8; 300_000]);
    assert_eq!(body(), [9; 300_000]);
}

#[test]
fn a_header_that_has_one_value_comes_once_whoever_sets_it() {
    let set = |name: header::HeaderName| {
        move |_: &Request, parts: &mut Parts| {
            parts.headers.append(name.clone(), HeaderValue::from_static("hook"));
        }
    };
    for hooks in [false, true] {
        let client = client(move || {
            let router = Router::new()
                .get("/response", |_: &Request| Response::text("x").header("content-type", "text/x"))
                .get("/map", |_: &Request| {
                    let mut response = Response::text("x");
                    response.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/x"));
                    response
                })
                .get("/reply", |_: &Request, reply: Reply| {
                    let own = HeaderValue::from_static;
                    let reply = reply.with_header(header::CONTENT_TYPE, own("text/w"));
                    let reply = reply.with_header(header::CONTENT_TYPE, own("text/x"));
                    reply.bytes(StatusCode::OK, "text/y", b"x")
                })
                .get("/reply-response", |_: &Request, reply: Reply| {
                    let reply = reply.with_header(header::CONTENT_TYPE, HeaderValue::from_static("text/x"));
                    reply.send(Response::html("x"))
                })
                .get("/error", |_: &Request| -> Result<(), Error> {
                    let own = HeaderValue::from_static;
                    let error = Error::not_found("x").with_header(header::CONTENT_TYPE, own("text/w"));
                    Err(error.with_header(header::CONTENT_TYPE, own("text/x")))
                });
            if hooks { router.after(set(header::LOCATION)).after(set(header::LOCATION)) } else { router }
        });
        for path in ["/response", "/map", "/reply", "/reply-response", "/error"] {
            let response = client.get(path);
            let all = |name: &str| {
                let of_name = response.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
                of_name.map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            assert_eq!(all("content-type"), ["text/x"], "{path}");
            assert_eq!(all("location").len(), usize::from(hooks), "{path}");
        }
    }
}

#[test]
fn a_header_that_is_a_list_keeps_its_lines() {
    let client = client(|| {
        Router::new()
            .get("/response", |_: &Request| {
                Response::text("x").header("set-cookie", "a=1")?.header("set-cookie", "b=2")
            })
            .get("/reply", |_: &Request, reply: Reply| {
                let reply = reply.with_header(header::SET_COOKIE, HeaderValue::from_static("a=1"));
                let mut response = Response::text("x");
                response.headers.insert(header::SET_COOKIE, HeaderValue::from_static("b=2"));
                reply.send(response)
            })
    });
    for path in ["/response", "/reply"] {
        let mut cookies: Vec<_> = client
            .get(path)
            .headers
            .into_iter()
            .filter(|(name, _)| name == "Set-Cookie")
            .map(|(_, c)| c)
            .collect();
        cookies.sort();
        assert_eq!(cookies, ["a=1", "b=2"], "{path}");
    }
}

#[test]
fn reset_content_has_no_content_and_says_so() {
    let client = client(|| {
        let reset = StatusCode::RESET_CONTENT;
        Router::new()
            .get("/text", move |_: &Request| (reset, "something"))
            .get("/json", move |_: &Request| (reset, Json([1])))
            .get("/stream", move |_: &Request| Response::new(reset).body(Body::chunks(["a"])))
            .get("/written", move |_: &Request, reply: Reply| reply.write(reset, "", |out| out.extend(b"x")))
            .get("/large", move |_: &Request| (reset, vec![7; 100_000]))
    });
    let mut connection = client.connect();
    for path in ["/text", "/json", "/stream", "/written", "/large"] {
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let bytes = connection.received();
        assert!(
            bytes.starts_with(b"HTTP/1.1 205 Reset Content\r\n") && bytes.ends_with(b"\r\n\r\n"),
            "{path}"
        );
        assert!(text(&bytes).contains("\r\nContent-Length: 0\r\n"), "{path}");
        assert!(!text(&bytes).contains("Transfer-Encoding"), "{path}");
    }
}

#[test]
fn an_answer_with_an_upgrade_header_says_connection_upgrade() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| Response::new(StatusCode::UPGRADE_REQUIRED).header("upgrade", "echo"))
    });
    let said = |lines: &str| {
        let mut connection = client.connect();
        connection.send(format!("GET / {lines}\r\n\r\n").as_bytes());
        let response = connection.response().expect("an answer");
        assert_eq!((response.status.as_u16(), response.header("upgrade")), (426, Some("echo")));
        response.header("connection").map(str::to_owned)
    };
    assert_eq!(said("HTTP/1.1\r\nHost: a").as_deref(), Some("upgrade"));
    assert_eq!(said("HTTP/1.1\r\nHost: a\r\nConnection: close").as_deref(), Some("close, upgrade"));
    assert_eq!(said("HTTP/1.0\r\nConnection: keep-alive").as_deref(), Some("keep-alive, upgrade"));
}

#[test]
fn who_comes_back_within_the_time_that_it_was_told_is_served_however_far_away_it_is() {
    let latency = Duration::from_millis(300);
    for idle in [5000, 5400, 5999] {
        let mut limits = Limits::default();
        limits.idle_timeout = Duration::from_millis(idle);
        let app = App::new(|_| Router::new().get("/", |_: &Request| "hello")).limits(limits);
        let client = app.test_with(Options::default().latency(latency..=latency));
        let mut connection = client.connect();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = connection.response().expect("an answer");
        let told =
            response.header("keep-alive").and_then(|value| value.strip_prefix("timeout=")).expect("a time");
        connection.advance(Duration::from_secs(told.parse().expect("seconds")) - Duration::from_millis(1));
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.response().expect("in time").text(), "hello", "told {told} s of {idle} ms");
    }
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_millis(1900);
    let client = App::new(|_| Router::new().get("/", |_: &Request| "hello")).limits(limits).test();
    let response = client.request(Method::GET, "/").header("Connection", "keep-alive").send();
    assert_eq!(response.header("connection"), Some("keep-alive"));
    assert_eq!(response.header("keep-alive"), None, "less than a second is no time");
}

#[test]
fn who_asks_for_the_connection_to_stay_is_told_for_how_long() {
    let client = client(|| Router::new().get("/", |_: &Request| "hello"));
    let said = |connection: &mut TestConnection, request: &str| {
        connection.send(request.as_bytes());
        let response = connection.response().expect("an answer");
        let header = |name| response.header(name).unwrap_or("-").to_owned();
        (header("connection"), header("keep-alive"))
    };
    let kept = || ("keep-alive".to_owned(), "timeout=74".to_owned());
    let (nothing, closed) = (("-".to_owned(), "-".to_owned()), ("close".to_owned(), "-".to_owned()));
    let asking = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let silent = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    let mut connection = client.connect();
    assert_eq!(said(&mut connection, asking), kept());
    assert_eq!(said(&mut connection, asking), nothing, "once in a connection");
    let mut connection = client.connect();
    assert_eq!(
        said(&mut connection, "GET /no HTTP/1.1\r\nHost: a\r\nConnection: TE, Keep-Alive\r\n\r\n"),
        kept()
    );
    let mut connection = client.connect();
    assert_eq!(said(&mut connection, silent), nothing, "it did not ask");
    let mut connection = client.connect();
    assert_eq!(
        said(&mut connection, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n"),
        closed
    );
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut connection = client.connect();
    assert_eq!(said(&mut connection, old), kept());
    assert_eq!(said(&mut connection, old), kept(), "HTTP/1.0 is told each time");
    assert_eq!(said(&mut client.connect(), "GET / HTTP/1.0\r\n\r\n"), closed);
}

#[test]
fn the_programs_own_error_becomes_an_answer_with_its_headers() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| {
            Err::<(), Sold>(Sold)?;
            Ok("never")
        })
    });
    let response = client.get("/");
    assert_eq!((response.status, response.text()), (StatusCode::CONFLICT, "sold\n"));
    assert_eq!(response.header("retry-after"), Some("60"));
}

#[test]
fn an_inner_error_keeps_its_status_inside_a_pair() {
    let client = client(|| {
        Router::new()
            .get("/direct", |_: &Request| (StatusCode::CREATED, Err::<&str, Error>(Sold.into())))
            .get("/option", |_: &Request| (StatusCode::CREATED, None::<&str>))
    });
    assert_eq!(client.get("/direct").status, StatusCode::CONFLICT);
    assert_eq!(client.get("/option").status, StatusCode::NOT_FOUND);
}

#[test]
fn a_value_that_cannot_be_serialised_is_a_500_and_nothing_of_it_leaves() {
    struct Broken;
    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error as _, SerializeSeq};
            let mut items = serializer.serialize_seq(None)?;
            items.serialize_element("half of it")?;
            Err(S::Error::custom("the rest is missing"))
        }
    }
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| Json(Broken))
            .get("/created", |_: &Request| (StatusCode::CREATED, Json(Broken)))
    });
    for path in ["/", "/created"] {
        let response = client.get(path);
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.text(), "internal server error\n");
    }
}

#[test]
fn a_deferred_length_is_right_for_small_and_large_json() {
    let client = client(|| Router::new().get("/{n}", |req: &Request| Ok(Json(vec![7_u8; req.param("n")?]))));
    for n in [0_usize, 1, 1000, 100_000] {
        let response = client.get(&format!("/{n}"));
        assert_eq!(response.json::<Vec<u8>>().len(), n);
        let length = response.header("content-length").map(|length| length.trim().parse());
        assert_eq!(length, Some(Ok(response.body.len())));
    }
}

#[test]
fn a_direct_handler_writes_its_answer_itself() {
    let client = client(|| {
        Router::new()
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "image/png", req.body()))
            .get("/write", |_: &Request, reply: Reply| {
                reply.with_header(header::ETAG, HeaderValue::from_static("\"7\"")).write(
                    StatusCode::ACCEPTED,
                    "text/csv",
                    |out| {
                        for n in 0..3 {
                            out.extend(format!("{n};").as_bytes());
                        }
                    },
                )
            })
            .get("/close", |_: &Request, reply: Reply| reply.close().json(StatusCode::OK, &[1, 2]))
    });
    let echo = client.post("/echo", "bytes");
    assert_eq!((echo.header("content-type"), echo.text()), (Some("image/png"), "bytes"));

    let written = client.get("/write");
    assert_eq!((written.status, written.text()), (StatusCode::ACCEPTED, "0;1;2;"));
    assert_eq!((written.header("content-type"), written.header("etag")), (Some("text/csv"), Some("\"7\"")));
    assert_eq!(written.header("content-length").map(str::trim), Some("6"));

    let mut connection = client.connect();
    connection.send(b"GET /close HTTP/1.1\r\nHost: a\r\n\r\nGET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    let closing = connection.response().expect("an answer");
    assert_eq!((closing.header("connection"), closing.text()), (Some("close"), "[1,2]"));
    assert!(connection.response().is_none() && connection.is_closed());
}

#[test]
fn framing_headers_of_a_response_value_are_ignored() {
    let client = client(|| {
        Router::new().get("/", |_: &Request| {
            Response::text("four")
                .header("content-length", "40")?
                .header("transfer-encoding", "chunked")?
                .header("connection", "upgrade")?
                .header("x-kept", "yes")
        })
    });
    let response = client.get("/");
    assert_eq!(response.text(), "four");
    assert_eq!(response.header("x-kept"), Some("yes"));
    assert_eq!((response.header("transfer-encoding"), response.header("connection")), (None, None));
}

#[test]
fn a_header_that_would_split_the_response_is_refused_at_the_api() {
    for (name, value) in [("x", "a\r\nb: c"), ("x", "a\nb"), ("x", "a\0"), ("x\r\ny", "a"), ("", "a")] {
        let refused = Response::text("").header(name, value);
        assert!(refused.is_err_and(|error| error.status() == StatusCode::INTERNAL_SERVER_ERROR), "{value:?}");
    }
}

#[test]
fn head_has_the_length_of_the_body_and_not_the_body() {
    let client = client(|| {
        Router::new()
            .get("/text", |_: &Request| "four")
            .get("/json", |_: &Request| Json([1, 2, 3]))
            .get("/large", |_: &Request| vec![0; 100_000])
            .get("/direct", |_: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", b"direct"))
            .get("/missing", |_: &Request| Err::<(), _>(Error::not_found("nothing")))
    });
    for (path, length) in
        [("/text", "4"), ("/json", "7"), ("/large", "100000"), ("/direct", "6"), ("/missing", "8")]
    {
        let bytes = client.raw(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(bytes.ends_with(b"\r\n\r\n"), "{path}: no body");
        assert_eq!(
            client.request(Method::HEAD, path).send().header("content-length").map(str::trim),
            Some(length)
        );
    }
}

#[test]
fn statuses_without_a_body_get_none_and_no_length() {
    let client = client(|| {
        Router::new()
            .get("/204", |_: &Request| (StatusCode::NO_CONTENT, "text"))
            .get("/304", |_: &Request| (StatusCode::NOT_MODIFIED, Json(1)))
            .get("/after", |_: &Request| "after")
    });
    for path in ["/204", "/304"] {
        let mut connection = client.connect();
        connection.send(
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n")
                .as_bytes(),
        );
        let response = connection.response().expect("an answer");
        assert_eq!((response.header("content-length"), response.header("transfer-encoding")), (None, None));
        assert_eq!(connection.response().expect("the next answer").text(), "after");
    }
}

#[test]
fn an_informational_status_is_no_answer_and_becomes_a_500() {
    let client = client(|| Router::new().get("/", |_: &Request| StatusCode::CONTINUE));
    assert_eq!(client.get("/").status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_content_type_of_the_programs_own_replaces_the_usual_one() {
    let problem = HeaderValue::from_static("application/problem+json");
    let client = client(move || {
        let (for_error, for_reply) = (problem.clone(), problem.clone());
        Router::new()
            .get("/error", move |_: &Request| {
                Err::<(), _>(Error::bad_request("{}").with_header(header::CONTENT_TYPE, for_error.clone()))
            })
            .get("/reply", move |_: &Request, reply: Reply| {
                reply.with_header(header::CONTENT_TYPE, for_reply.clone()).json(StatusCode::OK, &1)
            })
    });
    for path in ["/error", "/reply"] {
        let response = client.get(path);
        let types: Vec<_> = response.headers.iter().filter(|(name, _)| name == "Content-Type").collect();
        assert_eq!(types.len(), 1, "{path}");
        assert_eq!(types[0].1, "application/problem+json", "{path}");
    }
}
