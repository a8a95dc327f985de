//! Request bodies: whole, in pieces, too large, unwanted.

use std::time::Duration;

use netpoll_http::{
    App, Handler, Limits, Method, Reply, Request, RouteLimits, Router, StatusCode, TestClient, routes,
};

use crate::{client, text};

fn at_most(bytes: usize) -> RouteLimits {
    RouteLimits::default().body_bytes_max(bytes)
}

fn echo() -> TestClient {
    let mut limits = Limits::default();
    limits.body_bytes_max = 100_000;
    App::new(|_| {
        Router::new()
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
            .post("/small", (|req: &Request| req.body().len().to_string()).limits(at_most(5)))
            .post("/later", async |req: Request| req.body().len().to_string())
            .get("/", |_: &Request| "root")
    })
    .limits(limits)
    .test()
}

/// Sends a request for the echo of `hello world`, and one for `root` behind it, cut in two at each byte.
fn echoes_whatever_the_cut(requests: &[u8]) {
    for cut in 1..requests.len() {
        let client = echo();
        let mut connection = client.connect();
        connection.send(&requests[..cut]);
        connection.send(&requests[cut..]);
        assert_eq!(connection.response().expect("an answer").text(), "hello world", "cut at {cut}");
        assert_eq!(connection.response().expect("the next").text(), "root", "cut at {cut}");
    }
}

#[test]
fn a_body_may_come_in_any_pieces() {
    echoes_whatever_the_cut(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello worldGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

#[test]
fn a_chunked_body_may_come_in_any_pieces() {
    echoes_whatever_the_cut(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

#[test]
fn a_body_byte_by_byte_is_the_same_body() {
    let client = echo();
    let mut connection = client.connect();
    for byte in b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" {
        connection.send(&[*byte]);
    }
    assert_eq!(connection.response().expect("an answer").text(), "3");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    for (path, length) in [("/echo", 100_001), ("/small", 6)] {
        let client = echo();
        let mut connection = client.connect();
        connection.send(
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
            )
            .as_bytes(),
        );
        let bytes = connection.received();
        assert!(bytes.starts_with(b"HTTP/1.1 413 "), "{}", text(&bytes));
        assert!(text(&bytes).ends_with(&format!("at most {} bytes\n", length - 1)));
        assert!(connection.is_closed());
    }
}

#[test]
fn a_compile_time_table_has_a_limit_for_all_routes_and_one_for_each() {
    let take = |req: &Request<'_>| req.body().len().to_string();
    let client = App::new(move |_| {
        routes! { POST "/" => take, PUT "/" => take, POST "/{id}" => take.limits(at_most(8)) }
            .limits(at_most(5))
    })
    .test();
    for (method, target, most) in [(Method::POST, "/", 5), (Method::PUT, "/", 5), (Method::POST, "/7", 8)] {
        let send = |length| client.request(method.clone(), target).body(vec![b'x'; length]).send();
        assert_eq!(send(most).text(), most.to_string());
        assert_eq!(send(most + 1).status, StatusCode::PAYLOAD_TOO_LARGE, "{method} {target}");
    }
}

#[test]
fn a_chunked_body_over_the_limit_of_its_route_is_refused() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(
        b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n",
    );
    assert!(connection.received().starts_with(b"HTTP/1.1 413 "));
    assert!(connection.is_closed());
}

#[test]
fn continue_is_said_once_and_only_while_the_body_is_not_there() {
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let client = echo();
    let mut waits = client.connect();
    waits.send(head);
    assert_eq!(waits.received(), b"HTTP/1.1 100 Continue\r\n\r\n");
    waits.send(b"fo");
    waits.send(b"ur");
    assert_eq!(waits.response().expect("an answer").text(), "four");

    let mut sends = client.connect();
    sends.send(&[head, &b"fo"[..]].concat());
    assert_eq!(sends.received(), b"");
    sends.send(b"ur");
    assert!(sends.received().starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn an_unwanted_short_body_is_skipped_and_the_connection_goes_on() {
    for body in ["Content-Length: 4\r\n\r\nGET ", "Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n"]
    {
        let request = format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{body}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        for cut in 1..request.len() {
            let client = echo();
            let mut connection = client.connect();
            connection.send(&request.as_bytes()[..cut]);
            connection.send(&request.as_bytes()[cut..]);
            assert_eq!(connection.response().expect("an answer").status, StatusCode::NOT_FOUND);
            assert_eq!(connection.response().expect("the next").text(), "root");
            assert!(connection.response().is_none());
        }
    }
}

#[test]
fn an_unwanted_long_body_ends_the_connection() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!((response.status, response.header("connection")), (StatusCode::NOT_FOUND, Some("close")));
    assert!(connection.response().is_none() && connection.is_closed());
}

#[test]
fn a_broken_chunk_is_answered_once_and_nothing_after_it_is_served() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("an answer").status, StatusCode::BAD_REQUEST);
    assert!(connection.response().is_none() && connection.is_closed());
}

#[test]
fn a_peer_that_ends_inside_a_body_gets_no_2xx() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfo");
    connection.finish();
    assert_eq!(connection.received(), b"");
    assert!(connection.is_closed());
}

#[test]
fn a_body_slower_than_the_minimum_rate_is_a_408() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
    // Looked at every five seconds, in which 1280 bytes are asked for.
    for bytes in [4000, 0] {
        connection.send(&vec![b'x'; bytes]);
        connection.advance(Duration::from_millis(4900));
        assert_eq!(connection.received(), b"");
        connection.advance(Duration::from_millis(150));
    }
    let response = connection.response().expect("an answer");
    assert_eq!(
        (response.status, response.header("connection")),
        (StatusCode::REQUEST_TIMEOUT, Some("close"))
    );
    assert!(connection.is_closed());
}

#[test]
fn a_body_at_the_minimum_rate_may_take_its_time() {
    let client = echo();
    let mut connection = client.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 7680\r\n\r\n");
    for _ in 0..30 {
        connection.send(&[b'x'; 256]);
        connection.advance(Duration::from_millis(999));
    }
    assert_eq!(connection.response().expect("an answer").body.len(), 7680);
}

#[test]
fn uploads_of_all_together_are_bounded_and_who_brings_none_is_served() {
    let mut options = netpoll_core::sim::Options::default();
    options.limits.memory_bytes_max = Some(8 << 20);
    let app = App::new(|_| Router::new().post("/", |_: &Request| "taken").get("/", |_: &Request| "hello"));
    let client = app.test_with(options);
    let mut uploads: Vec<_> = (0..40).map(|_| client.connect()).collect();
    for upload in &mut uploads {
        upload.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
        upload.send(&vec![b'x'; 900 << 10]);
        assert_eq!(client.get("/").text(), "hello");
        assert_eq!(client.post("/", "small").text(), "taken", "what is at hand takes no memory");
    }
    let refused: Vec<_> = uploads.iter_mut().filter_map(|upload| upload.response()).collect();
    assert!((30..=34).contains(&refused.len()), "{} refused", refused.len());
    for response in &refused {
        let said = (response.status, response.header("connection"));
        assert_eq!(said, (StatusCode::SERVICE_UNAVAILABLE, Some("close")));
    }
    assert_eq!(client.stats().memory_overflows, refused.len() as u64);

    // All that stopped are cut, and others find room again.
    client.advance(Duration::from_secs(11));
    let mut late = client.connect();
    late.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
    late.send(&vec![b'x'; 512 << 10]);
    late.send(&vec![b'x'; 512 << 10]);
    assert_eq!(late.response().expect("an answer").text(), "taken");
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_body_counts_as_long_as_somebody_holds_it() {
    let mut options = netpoll_core::sim::Options::default();
    options.limits.memory_bytes_max = Some(1_790_000);
    thread_local!(static KEPT: std::cell::RefCell<Vec<bytes::Bytes>> = const { std::cell::RefCell::new(Vec::new()) });
    let app = App::new(|_| {
        Router::new().post("/", async |req: Request| {
            KEPT.with(|kept| kept.borrow_mut().push(req.body_bytes()));
            "kept"
        })
    });
    let client = app.test_with(options);
    let upload = || {
        let mut upload = client.connect();
        upload.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
        upload.send(&vec![b'x'; 450_000]);
        upload.send(&vec![b'x'; 450_000]);
        upload.response().expect("an answer").status
    };
    assert_eq!([upload(), upload()], [StatusCode::OK, StatusCode::OK]);
    assert_eq!(upload(), StatusCode::SERVICE_UNAVAILABLE);
    KEPT.with(|kept| kept.borrow_mut().clear());
    assert_eq!(upload(), StatusCode::OK);
}

#[test]
fn memory_grows_with_what_arrives_and_not_with_what_is_announced() {
    let mut limits = Limits::default();
    limits.body_bytes_max = usize::MAX;
    let app = App::new(|_| Router::new().post("/", |_: &Request| "taken")).limits(limits);
    let client = app.test();
    let mut connection = client.connect();
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n");
    connection.send(b"a few bytes");
    assert_eq!(connection.received(), b"", "still waiting, and still alive");
}

#[test]
fn trailers_reach_the_handler_apart_from_the_headers() {
    let told = |req: &Request| {
        let list = |fields: &mut dyn Iterator<Item = (&str, &[u8])>| {
            fields.map(|(name, value)| format!("{name}={};", text(value))).collect::<String>()
        };
        assert_eq!(req.trailer("X-SUM"), req.trailers().next().map(|(_, value)| value));
        format!("{} {}", list(&mut req.headers()), list(&mut req.trailers()))
    };
    let client = App::new(move |_| {
        Router::new().post("/", move |req: &Request| told(req)).put("/", async move |req: Request| told(&req))
    });
    let client = client.test();
    let trailers = "x-sum: \t 77 \r\nHost: evil\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nTE: x\r\n\
                    Connection: close\r\nAuthorization: x\r\nX-Empty:\r\n";
    let expected = "Host=a;Transfer-Encoding=chunked; x-sum=77;X-Empty=;";
    for method in ["POST", "PUT"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let request = format!("{head}2\r\nab\r\n0\r\n{trailers}\r\n");
        for cut in 1..request.len() {
            let mut connection = client.connect();
            connection.send(&request.as_bytes()[..cut]);
            connection.send(&request.as_bytes()[cut..]);
            connection.send(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(connection.response().expect("an answer").text(), expected, "cut at {cut}");
            assert_eq!(connection.response().expect("the next").text(), "Host=a; ", "cut at {cut}");
        }
    }
}

#[test]
fn a_length_of_zero_is_answered_at_once_where_no_body_is_wanted() {
    let client = client(|| {
        let length = |req: &Request| req.body().len().to_string();
        Router::new().get("/", length).delete("/", length).options("/", length).before(|_: &Request| ())
    });
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut connection = client.connect();
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 0\r\n\r\n");
            connection.send(request.as_bytes());
            let answer = connection.received();
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{request}{}", text(&answer));
            assert!(!connection.is_closed());
        }
    }
}

#[test]
fn copies_that_waiting_handlers_hold_are_bounded_and_small_requests_are_served() {
    let mut options = netpoll_core::sim::Options::default();
    options.limits.memory_bytes_max = Some(1 << 20);
    let app = App::new(|_| {
        Router::new().post("/", async |req: Request| {
            if req.header("x-wait").is_some() {
                std::future::pending::<()>().await;
            }
            req.body().len().to_string()
        })
    });
    let client = app.test_with(options);
    let large = |line: &str| {
        let mut request =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{line}Content-Length: 30000\r\n\r\n").into_bytes();
        request.resize(request.len() + 30_000, b'x');
        let mut connection = client.connect();
        connection.send(&request);
        connection
    };
    let mut waiting: Vec<_> = (0..50).map(|_| large("X-Wait: y\r\n")).collect();
    let refused: Vec<_> = waiting.iter_mut().filter_map(|connection| connection.response()).collect();
    assert!((10..=18).contains(&refused.len()), "{} refused", refused.len());
    for response in &refused {
        let said = (response.status, response.header("connection"));
        assert_eq!(said, (StatusCode::SERVICE_UNAVAILABLE, Some("close")));
    }
    assert_eq!(client.stats().memory_overflows, refused.len() as u64);
    assert_eq!(client.post("/", "small").text(), "5", "and who brings little is served");

    drop(waiting);
    client.advance(Duration::from_secs(31));
    assert_eq!(large("").response().expect("an answer").text(), "30000");
}
