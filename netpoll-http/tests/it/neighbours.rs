//! What a worker remembers of the heads of others makes no difference to anybody.

use std::time::Duration;

use netpoll_http::{Request, Router, TestClient};

use crate::chance::{Chance, seeds};
use crate::{client, text};

/// All that a handler can see of a request.
fn said(request: &Request<'_>) -> String {
    let headers: Vec<_> =
        request.headers().map(|(name, value)| format!("{name}={}", value.escape_ascii())).collect();
    format!(
        "{} {} {} {:?} {:?} {:?} {} {:?} {:?} {:?} {}\n",
        request.method_str(),
        request.target(),
        request.path(),
        request.query_raw(),
        request.host(),
        request.version(),
        request.keep_alive(),
        request.content_type(),
        request.cookies().collect::<Vec<_>>(),
        headers,
        request.body().escape_ascii(),
    )
}

/// Shows requests at once, and when others have come meanwhile.
fn service() -> Router {
    let at_once = |request: &Request| said(request);
    let later = async |request: Request| {
        netpoll_core::time::sleep(Duration::from_millis(1)).await;
        said(&request)
    };
    ["/", "/abs", "/a/longer/path"]
        .into_iter()
        .fold(Router::new().get("/later", later).post("/later", later), |router, path| {
            router.get(path, at_once).post(path, at_once)
        })
}

const TARGETS: [&str; 7] =
    ["/", "/a/longer/path", "/?a=b&c", "/later", "/later?x", "http://other.example/abs?q", "/nowhere"];
/// With a place for the length of a body.
const SECTIONS: [&str; 8] = [
    "Host: one.example\r\nCookie: a=b; c=d\r\nUser-Agent: a browser\r\n{}",
    "Host: two.example\r\nCookie: a=b; c=d\r\nUser-Agent: a browser\r\n{}",
    "{}Host: one.example\r\nCookie: a=b; c=e\r\nContent-Type: text/plain\r\n",
    "Host: one.example\r\nConnection: keep-alive\r\n{}",
    "Host: one.example\r\nConnection: upgrade\r\nUpgrade: something\r\n{}",
    "User-Agent: has no host\r\n{}",
    "Host: one.example\r\nHost: two.example\r\n{}",
    "Host: a\r\n{}",
];

/// Some requests of one client, most of which begin with a section that others have as well.
fn requests(chance: &mut Chance) -> Vec<u8> {
    let usual = chance.below(SECTIONS.len());
    let mut bytes = Vec::new();
    for _ in 0..1 + chance.below(8) {
        let section = SECTIONS[if chance.below(4) == 0 { chance.below(SECTIONS.len()) } else { usual }];
        let target = TARGETS[chance.below(TARGETS.len())];
        let version = ["1.1", "1.1", "1.1", "1.0"][chance.below(4)];
        let (method, length, body) = [
            ("GET", "", ""),
            ("GET", "", ""),
            ("HEAD", "", ""),
            ("POST", "Content-Length: 5\r\n", "hello"),
            ("POST", "Content-Length: 5\r\n", "G\r\n\r\n"),
            ("POST", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ][chance.below(6)];
        let section = section.replace("{}", length);
        bytes.extend(format!("{method} {target} HTTP/{version}\r\n{section}\r\n{body}").bytes());
    }
    bytes
}

fn let_all_happen(client: &TestClient) {
    for _ in 0..20 {
        client.advance(Duration::from_millis(1));
    }
}

#[test]
fn who_shares_a_worker_is_answered_as_if_they_were_alone_on_it() {
    for seed in seeds(300) {
        let mut chance = Chance::new(seed);
        let streams: Vec<Vec<u8>> = (0..4).map(|_| requests(&mut chance)).collect();
        let shared = client(service);
        let mut connections: Vec<_> = streams.iter().map(|_| shared.connect()).collect();
        let mut left: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        while left.iter().any(|left| !left.is_empty()) {
            let nth = chance.below(left.len());
            // Whole requests, some at once, or any piece.
            let len = match chance.below(3) {
                0 => left[nth].len(),
                _ => (1 + chance.below(200)).min(left[nth].len()),
            };
            let (piece, rest) = left[nth].split_at(len);
            left[nth] = rest;
            match chance.below(2) {
                0 => connections[nth].put(piece),
                _ => connections[nth].send(piece),
            }
        }
        shared.run();
        let_all_happen(&shared);
        for (stream, connection) in streams.iter().zip(&mut connections) {
            let alone = client(service);
            let mut other = alone.connect();
            other.send(stream);
            let_all_happen(&alone);
            let (came, expected) = (connection.received(), other.received());
            assert_eq!(text(&came), text(&expected), "seed {seed}, {}", stream.escape_ascii());
        }
    }
}
