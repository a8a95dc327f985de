//! Answers as values: redirects, cookies, JSON, and the end of the connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_http::{
    App, Body, Cookie, HeaderValue, Method, Parts, Request, Response, Router, SameSite, Server, StatusCode,
    TestClient, header,
};
use proptest::prelude::*;

use crate::{client, text};

fn set_cookie(cookie: Cookie) -> Result<String, StatusCode> {
    let line = cookie.to_header().map_err(|error| error.status())?;
    Ok(line.to_str().expect("it is ASCII").to_owned())
}

#[test]
fn a_redirect_has_its_status_and_its_location() {
    let client = client(|| {
        let redirect = |req: &Request| {
            let status = StatusCode::from_u16(req.param("status")?).expect("a status");
            Response::redirect(status, req.query::<String>("to")?)
        };
        Router::new().get("/{status}", redirect)
    });
    for status in [301, 302, 303, 307, 308] {
        let sent = client.get(&format!("/{status}?to=/orders/7%3Fa%3Db"));
        assert_eq!((sent.status.as_u16(), sent.header("location")), (status, Some("/orders/7?a=b")));
    }
    for wrong in [
        "/200?to=/",
        "/304?to=/",
        "/404?to=/",
        "/303?to=",
        "/303?to=/a%0d%0aSet-Cookie:%20a=b",
        "/303?to=/a%20b",
    ] {
        let sent = client.get(wrong);
        assert_eq!(sent.status, StatusCode::INTERNAL_SERVER_ERROR, "{wrong}");
        assert_eq!((sent.header("location"), sent.header("set-cookie")), (None, None));
    }
}

fn closing() -> TestClient {
    client(|| {
        let asks = |req: &Request| req.query_opt::<String>("close").ok().flatten().is_some();
        Router::new()
            .get("/text", |_: &Request| Response::text("text").close())
            .get("/stream", |_: &Request| Response::text(Body::chunks(["a", "b"])).close())
            .get("/large", |_: &Request| Response::bytes(vec![b'x'; 100_000]).close())
            .get("/async", async |_: Request| Response::text("text").close())
            .get("/by-hand", |_: &Request| Response::text("text").header("connection", "Keep-Alive, CLOSE"))
            .get("/stays", |_: &Request| Response::text("text").header("connection", "keep-alive, closed"))
            .nest(
                "/hooked",
                Router::new().get("/", |_: &Request| "text").after(
                    move |req: &Request, parts: &mut Parts| {
                        if asks(req) {
                            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                        }
                    },
                ),
            )
            .nest("/answered", Router::new().before(|_: &Request| Some(Response::text("text").close())))
    })
}

#[test]
fn an_answer_can_close_its_connection() {
    let client = closing();
    for (path, closes) in [
        ("/text", true),
        ("/stream", true),
        ("/large", true),
        ("/async", true),
        ("/by-hand", true),
        ("/stays", false),
        ("/hooked", false),
        ("/hooked?close", true),
        ("/answered/x", true),
    ] {
        let mut connection = client.connect();
        connection.send(
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /stays HTTP/1.1\r\nHost: a\r\n\r\n")
                .as_bytes(),
        );
        let answer = connection.response().expect("an answer");
        assert_eq!(answer.header("connection"), closes.then_some("close"), "{path}");
        assert_eq!((connection.response().is_none(), connection.is_closed()), (closes, closes), "{path}");
    }
}

#[test]
fn on_real_sockets_an_answer_closes_its_connection_too() {
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let router = |_: &_| Router::new().get("/", |_: &Request| Response::text("text").close());
    let running = server.app(router).start().unwrap();
    let mut stream = TcpStream::connect(running.addr()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(
        text(&bytes).contains("\r\nConnection: close\r\n") && bytes.ends_with(b"text"),
        "{}",
        text(&bytes)
    );
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn json_as_a_response_may_borrow_from_the_request() {
    #[derive(serde::Serialize)]
    struct Seen<'a> {
        path: &'a str,
    }
    let client = client(|| {
        let seen =
            |req: &Request| Ok(Response::json(&Seen { path: req.path() })?.status(StatusCode::ACCEPTED));
        let waits = async |req: Request| Response::json(&Seen { path: req.path() });
        Router::new().get("/a", seen).get("/b", waits)
    });
    let seen = client.get("/a");
    assert_eq!((seen.status.as_u16(), seen.text()), (202, r#"{"path":"/a"}"#));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(client.get("/b").text(), r#"{"path":"/b"}"#);
    let broken = std::collections::HashMap::from([([1], 2)]);
    assert_eq!(Response::json(&broken).unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn cookies_are_set_one_on_each_line_with_their_attributes() {
    let client = client(|| {
        let login = |_: &Request| {
            let session = Cookie::new("session", "abc")
                .path("/")
                .domain("example.org")
                .max_age(Duration::from_millis(90_999))
                .http_only()
                .secure()
                .same_site(SameSite::Strict);
            Response::text("in").cookie(session)?.cookie(Cookie::removal("old").path("/old"))
        };
        Router::new().post("/login", login)
    });
    let sent = client.post("/login", "");
    let lines = sent.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let lines: Vec<_> = lines.map(|(_, value)| value.as_str()).collect();
    assert_eq!(
        lines,
        [
            "session=abc; Path=/; Domain=example.org; Max-Age=90; HttpOnly; Secure; SameSite=Strict",
            "old=; Path=/old; Max-Age=0",
        ]
    );
}

#[test]
fn a_cookie_that_could_be_taken_for_something_else_is_refused() {
    let fine = || Cookie::new("a", "b");
    for (what, cookie) in [
        ("no name", Cookie::new("", "b")),
        ("a name with a sign", Cookie::new("a=b", "c")),
        ("a name with a line end", Cookie::new("a\r\nX: y", "c")),
        ("a second attribute", Cookie::new("a", "b; Domain=evil")),
        ("a second line", Cookie::new("a", "b\r\nSet-Cookie: c=d")),
        ("a second cookie", Cookie::new("a", "b, c=d")),
        ("a space", Cookie::new("a", "b c")),
        ("a quote", Cookie::new("a", "\"b\"")),
        ("other than ASCII", Cookie::new("a", "ä")),
        ("NUL", Cookie::new("a", "\0")),
        ("a path with an attribute", fine().path("/; Domain=evil")),
        ("a path with a line end", fine().path("/\r\nX: y")),
        ("a path without a slash", fine().path("x")),
        ("a domain with an attribute", fine().domain("example.org; Path=/")),
        ("no domain", fine().domain("")),
        ("a domain of dots", fine().domain("..")),
        ("a path that browsers pass over", fine().path(format!("/{}", "x".repeat(1024)))),
        ("a domain that browsers pass over", fine().domain("x".repeat(1025))),
        ("too long", Cookie::new("a", "b".repeat(4096))),
        ("a name that promises TLS", Cookie::new("__Secure-a", "b")),
        ("a name that promises a host", Cookie::new("__host-a", "b").secure().path("/x")),
        ("a name that promises no scripts", Cookie::new("__Http-a", "b").secure()),
        ("a name that promises no scripts and TLS", Cookie::new("__Http-a", "b").http_only()),
        ("a name that promises all of it", Cookie::new("__Host-Http-a", "b").secure().path("/")),
        ("a name that promises one host", Cookie::new("__Host-a", "b").secure().path("/").domain("a.org")),
    ] {
        assert_eq!(set_cookie(cookie), Err(StatusCode::INTERNAL_SERVER_ERROR), "{what}");
    }
    let longest = Cookie::new("a", "b".repeat(4095));
    assert!(set_cookie(longest).is_ok());
    assert!(set_cookie(fine().path(format!("/{}", "x".repeat(1023)))).is_ok());
    let session = Cookie::new("__Host-Http-a", "b").secure().path("/").http_only();
    assert_eq!(set_cookie(session).as_deref(), Ok("__Host-Http-a=b; Path=/; HttpOnly; Secure"));
    let host = Cookie::new("__Host-a", "b").secure().path("/");
    assert_eq!(set_cookie(host).as_deref(), Ok("__Host-a=b; Path=/; Secure"));
    let other_sites = Cookie::new("a", "b").same_site(SameSite::None);
    assert_eq!(set_cookie(other_sites).as_deref(), Ok("a=b; Secure; SameSite=None"));
}

#[test]
fn cookies_of_a_request_are_there_in_their_order() {
    let client = client(|| {
        Router::new().get("/", |req: &Request| {
            let all: Vec<_> = req.cookies().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} / {:?} {:?}", all.join("|"), req.cookie("a"), req.cookie("none"))
        })
    });
    let sent = client
        .request(Method::GET, "/")
        .header("Cookie", "a=1; b=\"2\";c; =d;a=3")
        .header("cookie", " e = f=g ");
    assert_eq!(sent.send().text(), "a=1|b=\"2\"|a=3|e=f=g / Some(\"1\") None");
    assert_eq!(client.get("/").text(), " / None None");
}

fn fields() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9_.%+-]{1,12}",
        2 => "[a-z=;, /\"\\\\]{1,4}",
        1 => "[ -~]{0,12}",
        1 => "[\\PC\r\n\0;,=\" ]{0,8}",
    ]
}

proptest! {
    /// Whatever is asked for, one cookie leaves with what was asked for, or none.
    #[test]
    fn a_cookie_leaves_as_it_is_or_not_at_all(
        name in fields(), value in fields(), path in fields(), domain in fields(), with in 0..4,
    ) {
        let mut cookie = Cookie::new(name.clone(), value.clone());
        if with & 1 != 0 {
            cookie = cookie.path(format!("/{path}"));
        }
        if with & 2 != 0 {
            cookie = cookie.domain(domain.clone());
        }
        if let Ok(line) = set_cookie(cookie) {
            // As a browser reads it: RFC 6265 section 5.2.
            let mut parts = line.split(';').map(|part| part.trim_matches([' ', '\t']));
            prop_assert_eq!(parts.next().and_then(|pair| pair.split_once('=')), Some((name.as_str(), value.as_str())));
            let attributes: Vec<&str> = parts.collect();
            let path = format!("Path=/{path}");
            let domain = format!("Domain={domain}");
            let mut expected = Vec::new();
            if with & 1 != 0 {
                expected.push(path.trim_end_matches(' '));
            }
            if with & 2 != 0 {
                expected.push(&domain);
            }
            prop_assert_eq!(attributes, expected);
            prop_assert!(line.is_ascii() && !line.contains(['\r', '\n', '\0']));
        }
    }

    /// What was set comes back as it was.
    #[test]
    fn a_cookie_that_was_set_is_read_again(pairs in prop::collection::vec((fields(), fields()), 1..5)) {
        let sent: Vec<(String, String)> = pairs
            .into_iter()
            .filter(|(name, value)| set_cookie(Cookie::new(name.clone(), value.clone())).is_ok())
            .collect();
        let line = sent.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let expected = sent.clone();
        let client = App::new(move |_| {
            let expected = expected.clone();
            Router::new().get("/", move |req: &Request| {
                let cookies = req.cookies().map(|(name, value)| (name.to_owned(), value.to_owned()));
                (cookies.collect::<Vec<_>>() == expected).to_string()
            })
        })
        .test();
        let answer = client.request(Method::GET, "/").header("Cookie", &line).send();
        prop_assert_eq!(answer.text(), "true");
    }

    /// Any bytes in a Cookie line are read without a panic, and pairs are parts of the line.
    #[test]
    fn any_cookie_line_is_read(line in "[ -~]{0,60}") {
        let client = client(|| {
            Router::new().get("/", |req: &Request| {
                let whole = req.header_str("cookie").unwrap_or_default();
                let is_part = |(name, value): (&str, &str)| !name.is_empty() && whole.contains(name) && whole.contains(value);
                req.cookies().all(is_part).to_string()
            })
        });
        let answer = client.request(Method::GET, "/").header("Cookie", line.trim()).send();
        prop_assert_eq!(answer.text(), "true");
    }
}

#[test]
fn the_names_of_all_headers_are_spelled_in_one_way_whoever_adds_them() {
    let long = "x-a-name-that-is-longer-than-thirty-two-bytes-x9-a";
    let answer = move |_: &Request| {
        let response = Response::text("a").header("x-rate-limit", "7")?.header("a", "b-c")?;
        response.header("etag", "\"x-y\"")?.header(long, "lower-case")
    };
    let routes = move |_: &_| {
        Router::new()
            .get("/slow", answer)
            .get("/fast", |_: &Request| "a")
            .get("/file", |_: &Request| Response::html("a"))
    };
    let client = App::new(routes).test();
    for path in ["slow", "fast", "file", "nowhere"] {
        let bytes = client.raw(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let text = String::from_utf8(bytes).expect("text");
        let (head, _) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\nContent-Type: text/") && head.contains("\r\nContent-Length: "), "{head}");
        for line in head.lines().skip(1) {
            let (name, _) = line.split_once(": ").expect("a header");
            let is_capital = |word: &str| !word.starts_with(|first: char| first.is_ascii_lowercase());
            assert!(name.split('-').all(is_capital), "{line}");
        }
        if path == "slow" {
            let said = "\r\nX-Rate-Limit: 7\r\nA: b-c\r\nEtag: \"x-y\"\r\n";
            assert!(said.split("\r\n").all(|line| head.contains(line)), "{head}");
            assert!(
                head.contains("\r\nX-A-Name-That-Is-Longer-Than-Thirty-Two-Bytes-X9-A: lower-case"),
                "{head}"
            );
        }
    }
}
