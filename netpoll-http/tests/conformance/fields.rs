//! The header fields of an answer: dates, what is allowed, and what nobody can slip in.

use std::time::Duration;

use netpoll_http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING,
};
use netpoll_http::{Error, Reply, Request, Response, Router, StatusCode};

use crate::answer;
use crate::fixture::{answers, bodies, client, client_with, get, router, statuses};
use crate::responses::{only, send};

#[test]
fn the_date_is_the_time_of_the_answer() {
    let client = client_with(|_| router().get("/not-modified", |_: &Request| StatusCode::NOT_MODIFIED));
    let mut connection = client.connect();
    let mut date = |request: &[u8]| {
        connection.send(request);
        answers(&mut connection)[0].one("date").expect("a date")
    };
    assert_eq!(date(&get("/")), "Sun, 06 Nov 1994 08:49:37 GMT");
    client.advance(Duration::from_millis(999));
    assert_eq!(date(&get("/nowhere")), "Sun, 06 Nov 1994 08:49:37 GMT");
    client.advance(Duration::from_millis(1));
    assert_eq!(date(&get("/")), "Sun, 06 Nov 1994 08:49:38 GMT");
    client.advance(Duration::from_secs(60));
    assert_eq!(date(&get("/not-modified")), "Sun, 06 Nov 1994 08:50:38 GMT");
    assert_eq!(date(b"GET / HTTP/2.0\r\n\r\n"), "Sun, 06 Nov 1994 08:50:38 GMT");
}

#[test]
fn a_header_that_would_split_the_answer_is_refused_where_it_is_made() {
    for bad in ["a\r\nSet-Cookie: b=c", "a\nb", "a\rb", "a\0b", "\r\n\r\n", "a\u{7f}"] {
        assert!(Response::new(StatusCode::OK).header("x-note", bad).is_err(), "value {bad:?}");
        assert!(Response::new(StatusCode::OK).header(bad, "x").is_err(), "name {bad:?}");
        assert!(HeaderValue::from_str(bad).is_err() && HeaderName::from_bytes(bad.as_bytes()).is_err());
    }
    for bad in ["", " ", "a b", "a:", ":", "a(", "\u{e9}"] {
        assert!(Response::new(StatusCode::OK).header(bad, "x").is_err(), "name {bad:?}");
    }
}

#[test]
fn what_a_peer_puts_into_a_header_cannot_split_the_answer() {
    let redirect = |req: &Request| -> Result<Response, Error> {
        let to: String = req.param("to")?;
        Response::new(StatusCode::FOUND).header(LOCATION, to)
    };
    let client = client_with(move |_| {
        Router::new()
            .get("/to/{to}", redirect)
            .get("/type/{to}", |req: &Request, reply: Reply| {
                let to: String = req.param("to").unwrap_or_default();
                reply.bytes(StatusCode::OK, &to, b"body")
            })
            .get("/typed/{to}", |req: &Request, reply: Reply| {
                let to: String = req.param("to").unwrap_or_default();
                reply.write(StatusCode::OK, &to, |out| out.extend(b"body"))
            })
    });
    let evil = "a%0d%0aSet-Cookie:%20b=c%0d%0a%0d%0aevil";
    for (target, status) in [("/to", 500), ("/type", 200), ("/typed", 200)] {
        let mut connection = client.connect();
        connection.send(&get(&format!("{target}/{evil}")));
        let bytes = connection.received();
        let answer = only(&bytes, false, false);
        assert_eq!((answer.status, answer.all("set-cookie").count()), (status, 0), "{target}");
        assert!(answer::find(&bytes, b"evil").is_none() && answer::find(&bytes, b"Set-Cookie").is_none());
    }
    assert_eq!(client.get("/to/elsewhere").header("location"), Some("elsewhere"));
}

#[test]
fn a_handler_cannot_overrule_the_framing() {
    let lying = |_: &Request| {
        let mut response = Response::text("body");
        for (name, value) in [
            (CONTENT_LENGTH, "100"),
            (TRANSFER_ENCODING, "chunked"),
            (CONNECTION, "upgrade"),
            (DATE, "never"),
        ] {
            response.headers.insert(name, HeaderValue::from_static(value));
        }
        response
    };
    let client = client_with(move |_| router().get("/lie", lying));
    let (_, bytes, is_kept) = send(&client, &get("/lie"));
    let answer = only(&bytes, false, false);
    assert_eq!((answer.one("content-length").as_deref(), answer.body.as_slice()), (Some("4"), &b"body"[..]));
    assert_eq!(answer.one("date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let lines = |name: &str| answer.all(name).count();
    assert_eq!((lines("transfer-encoding"), lines("connection"), is_kept), (0, 0, true));
}

#[test]
fn a_hook_cannot_overrule_the_framing() {
    let client = client_with(|_| {
        router().after(|_: &Request, parts| {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("100"));
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            parts.headers.insert("x-seen", HeaderValue::from_static("yes"));
        })
    });
    for target in ["/", "/nowhere"] {
        let (_, bytes, is_kept) = send(&client, &get(target));
        let answer = only(&bytes, false, false);
        assert_eq!(answer.one("x-seen").as_deref(), Some("yes"));
        assert_eq!((answer.all("transfer-encoding").count(), is_kept), (0, true), "{target}");
    }
}

#[test]
fn a_405_and_an_options_answer_name_what_is_allowed() {
    let client = client();
    let allow = |request: &str| {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        let allow = answers(&mut connection)[0].one("allow").expect("an Allow header");
        let mut methods: Vec<String> = allow.split(", ").map(str::to_owned).collect();
        methods.sort();
        methods
    };
    assert_eq!(allow("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"), ["GET", "HEAD"]);
    assert_eq!(allow("GET /small HTTP/1.1\r\nHost: a\r\n\r\n"), ["POST"]);
    assert_eq!(allow("OPTIONS /header HTTP/1.1\r\nHost: a\r\n\r\n"), ["GET", "HEAD", "POST"]);
    let all = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    assert_eq!(allow("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), all);
}

#[test]
fn an_answer_of_many_headers_is_well_formed() {
    let client = client_with(|_| {
        Router::new().get("/", |_: &Request| -> Result<Response, Error> {
            (0..200).try_fold(Response::text("many"), |response, number| {
                response.header(format!("x-{number}"), "v".repeat(number))
            })
        })
    });
    let mut connection = client.connect();
    connection.send(&get("/"));
    let answers = answers(&mut connection);
    assert_eq!((answers[0].headers.len() >= 203, answers[0].body.as_slice()), (true, &b"many"[..]));
    connection.send(&get("/nowhere"));
    assert_eq!(statuses(&mut connection), [404]);
    connection.send(&get("/"));
    assert_eq!(bodies(&mut connection), ["many"]);
}
