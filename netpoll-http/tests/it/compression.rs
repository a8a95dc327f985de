//! Answers that leave compressed, and bodies that come so.

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::task::{Context, Waker};
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_http::{
    App, Body, BodyBuf, Coding, Compress, Decoding, HeaderValue, Method, Parts, Pull, Request, Response,
    Router, Server, StatusCode, TestClient, TestResponse, header,
};

use crate::chance::{Chance, seeds};
use crate::{client, text};

const CODINGS: &[(&str, Coding)] = &[
    ("gzip", Coding::Gzip),
    #[cfg(feature = "br")]
    ("br", Coding::Br),
    #[cfg(feature = "zstd")]
    ("zstd", Coding::Zstd),
];

/// Words, so many bytes of them, that are not all the same.
fn words(bytes: usize) -> Vec<u8> {
    let mut chance = Chance::new(bytes as u64);
    let words = ["apple", "pear", "{\"id\":", "}, ", "\n", "quince"];
    let mut text = Vec::with_capacity(bytes + 8);
    while text.len() < bytes {
        text.extend_from_slice(words[chance.below(words.len())].as_bytes());
    }
    text.truncate(bytes);
    text
}

/// What cannot be compressed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut chance = Chance::new(bytes as u64);
    (0..bytes).map(|_| chance.below(256) as u8).collect()
}

fn ask(client: &TestClient, method: Method, path: &str, accepted: &str) -> TestResponse {
    client.request(method, path).header("Accept-Encoding", accepted).send()
}

fn get(client: &TestClient, path: &str, accepted: &str) -> TestResponse {
    ask(client, Method::GET, path, accepted)
}

/// Sends a coded body and returns what its handler has got.
fn sent_coded(client: &TestClient, path: &str, coding: &str, body: &[u8]) -> TestResponse {
    client.request(Method::POST, path).header("Content-Encoding", coding).body(body).send()
}

/// What a coded body is.
fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let all = || Decoding::new().bytes_max(64 << 20).ratio_max(usize::MAX);
    let large = netpoll_http::Limits::default().body_bytes_max(64 << 20);
    let echo = |req: &Request| req.body().to_vec();
    let echo = App::new(move |_| Router::new().post("/", all().of(echo))).limits(large).test();
    let response = sent_coded(&echo, "/", coding, body);
    assert_eq!(response.status, StatusCode::OK, "{:?}", String::from_utf8_lossy(&response.body));
    response.body
}

/// A coded body of these bytes.
fn coded(coding: Coding, bytes: Vec<u8>) -> Vec<u8> {
    let bytes = std::sync::Arc::new(bytes);
    let client = client(move || {
        let bytes = std::sync::Arc::clone(&bytes);
        let whole = move |_: &Request| Response::text(bytes.to_vec());
        Router::new().get("/", whole).after(Compress::new().bytes_min(0).codings([coding]).hook())
    });
    let response = get(&client, "/", coding.name());
    assert_eq!(response.header("content-encoding"), Some(coding.name()));
    response.body
}

/// A router with answers of many kinds, all of which pass the hook.
fn site(compress: impl Fn() -> Compress + Send + Sync + 'static) -> TestClient {
    client(move || {
        let with = |name: header::HeaderName, value: &'static str| {
            move |_: &Request| {
                let mut response = Response::text(words(5000));
                response.headers.insert(name.clone(), HeaderValue::from_static(value));
                response
            }
        };
        Router::new()
            .get("/text", |_: &Request| String::from_utf8(words(5000)).unwrap())
            .get("/short", |_: &Request| String::from_utf8(words(500)).unwrap())
            .get("/empty", |_: &Request| "")
            .get("/long", |_: &Request| Response::text(words(300_000)))
            .get("/json", |_: &Request| {
                Response::bytes(words(2000))
                    .content_type(HeaderValue::from_static("application/problem+json; v=1"))
            })
            .get("/image", |_: &Request| {
                Response::bytes(words(5000)).content_type(HeaderValue::from_static("image/png"))
            })
            .get("/stream", |_: &Request| {
                Response::text(Body::chunks(words(5000).chunks(700).map(<[u8]>::to_vec).collect::<Vec<_>>()))
            })
            .get("/fixed", with(header::CACHE_CONTROL, "max-age=5, no-transform"))
            .get("/coded", with(header::CONTENT_ENCODING, "br"))
            .get("/digest", with(header::HeaderName::from_static("repr-digest"), "sha-256=:AA==:"))
            .get("/range", with(header::CONTENT_RANGE, "bytes 0-4999/9999"))
            .get("/part", |_: &Request| Response::text(words(5000)).status(StatusCode::PARTIAL_CONTENT))
            .get("/tagged", |req: &Request| {
                let response = match req.header_str("if-none-match") {
                    Some(tags) if tags.contains("\"one\"") => Response::new(StatusCode::NOT_MODIFIED),
                    _ => Response::text(words(5000)).header("accept-ranges", "bytes")?,
                };
                response.header("etag", "\"one\"")
            })
            .get("/varies", with(header::VARY, "Origin, ACCEPT-ENCODING"))
            .get("/fails", |_: &Request| Response::text(words(5000)).status(StatusCode::BAD_GATEWAY))
            .get("/later", async |_: Request| Response::text(words(5000)))
            .after(compress().hook())
    })
}

#[test]
fn an_answer_is_compressed_for_who_accepts_it_and_says_so_to_all() {
    let client = site(Compress::new);
    let plain = client.get("/text");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    assert_eq!(plain.body, words(5000));
    for (name, _) in CODINGS {
        for path in ["/text", "/stream", "/later", "/fails"] {
            let response = get(&client, path, name);
            assert_eq!(response.header("content-encoding"), Some(*name), "{path}");
            assert_eq!(response.header("vary"), Some("accept-encoding"), "{path}");
            assert!(response.body.len() < 2500, "{path} {name}: {} bytes", response.body.len());
            assert_eq!(decoded(name, &response.body), words(5000), "{path} {name}");
        }
        let length = get(&client, "/text", name).header("content-length").map(str::to_owned);
        assert_eq!(
            length,
            Some(get(&client, "/text", name).body.len().to_string()),
            "the length is of what leaves"
        );
    }
    assert_eq!(get(&client, "/json", "gzip").header("content-encoding"), Some("gzip"));
}

#[test]
fn what_gains_nothing_or_must_not_change_leaves_as_it_is() {
    let client = site(Compress::new);
    for (path, bytes) in [
        ("/short", 500),
        ("/empty", 0),
        ("/image", 5000),
        ("/fixed", 5000),
        ("/digest", 5000),
        ("/range", 5000),
        ("/part", 5000),
        ("/coded", 5000),
    ] {
        let response = get(&client, path, "gzip, br, zstd");
        let coding = if path == "/coded" { Some("br") } else { None };
        assert_eq!((response.header("content-encoding"), response.body.len()), (coding, bytes), "{path}");
        assert_eq!(response.header("vary"), None, "{path}: the same for everybody");
    }
    let response = get(&client, "/varies", "gzip");
    let lines = response.headers.iter().filter(|(name, _)| name == "Vary").count();
    assert_eq!((response.header("vary"), lines), (Some("Origin, ACCEPT-ENCODING"), 1), "said already");
}

#[test]
fn whoever_refuses_answers_without_a_coding_gets_short_ones_and_others_compressed_too() {
    let client = site(Compress::new);
    for path in ["/short", "/image"] {
        let response = get(&client, path, "gzip, identity;q=0");
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(response.header("vary"), Some("accept-encoding"), "{path}");
    }
    for (path, accepted) in
        [("/empty", "gzip, identity;q=0"), ("/short", "deflate, *;q=0"), ("/fixed", "gzip, *;q=0")]
    {
        let response = get(&client, path, accepted);
        assert_eq!((response.status.as_u16(), response.header("content-encoding")), (200, None), "{path}");
    }
}

#[test]
fn the_coding_that_a_client_wants_most_is_taken_and_else_the_first_that_is_offered() {
    let offered = || Compress::new().codings([Coding::Gzip]);
    assert_eq!(get(&site(offered), "/text", "br, zstd, gzip;q=0.1").header("content-encoding"), Some("gzip"));
    assert_eq!(get(&site(offered), "/text", "gzip;q=0.5, identity").header("content-encoding"), None);
    let last = CODINGS.last().unwrap();
    let accepted = CODINGS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let backwards = || Compress::new().codings(CODINGS.iter().rev().map(|(_, coding)| *coding));
    assert_eq!(get(&site(backwards), "/text", &accepted).header("content-encoding"), Some(last.0));
}

#[test]
fn http_1_0_gets_nothing_compressed() {
    let mut connection = site(Compress::new).connect();
    connection.send(b"GET /text HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!((response.header("content-encoding"), response.body.len()), (None, 5000));
    assert_eq!(response.header("vary"), Some("accept-encoding"));
}

#[test]
fn head_is_answered_as_get_is_but_for_the_length() {
    let client = site(Compress::new);
    for path in [
        "/text", "/short", "/long", "/json", "/image", "/stream", "/fixed", "/coded", "/part", "/tagged",
        "/later",
    ] {
        for accepted in ["gzip", "identity"] {
            let heads = [Method::GET, Method::HEAD].map(|method| {
                let mut response = ask(&client, method, path, accepted);
                let is_length = |name: &str| {
                    ["content-length", "transfer-encoding"].iter().any(|of| name.eq_ignore_ascii_case(of))
                };
                let length = response.header("content-length").map(str::to_owned);
                response.headers.retain(|(name, _)| !is_length(name));
                (length, response.headers)
            });
            assert_eq!(heads[0].1, heads[1].1, "{path} {accepted}");
            assert!(heads[1].0.is_none() || heads[0].0 == heads[1].0, "{path} {accepted}: no other length");
        }
    }
}

#[test]
fn a_strong_tag_becomes_a_weak_one_and_that_of_a_304_fits_what_its_client_has() {
    let client = site(Compress::new);
    let response = get(&client, "/tagged", "gzip");
    assert_eq!((response.header("etag"), response.header("accept-ranges")), (Some("W/\"one\""), None));
    let response = get(&client, "/tagged", "identity");
    assert_eq!((response.header("etag"), response.header("accept-ranges")), (Some("\"one\""), Some("bytes")));

    let again = |accepted: &str, has: &str| {
        let request = client.request(Method::GET, "/tagged").header("Accept-Encoding", accepted);
        let response = request.header("If-None-Match", has).send();
        assert_eq!((response.status.as_u16(), response.header("vary")), (304, Some("accept-encoding")));
        assert_eq!(response.header("content-encoding"), None);
        response.header("etag").unwrap().to_owned()
    };
    assert_eq!(again("gzip", "W/\"one\""), "W/\"one\"");
    assert_eq!(again("gzip", "\"two\", \"one\""), "\"one\"");
    assert_eq!(again("identity", "W/\"one\""), "\"one\"");
}

#[test]
fn hooks_see_the_answer_as_it_was_and_the_innermost_of_two_compresses() {
    let client = client(|| {
        let inner = Router::new()
            .get("/inner", |_: &Request| Response::text(words(2000)))
            .after(Compress::new().codings([Coding::Gzip]).bytes_min(3000).hook());
        Router::new()
            .get("/outer", |_: &Request| Response::text(words(2000)))
            .merge(inner)
            .after(|_: &Request, parts: &mut Parts| {
                assert!(!parts.headers.contains_key(header::CONTENT_ENCODING));
                parts.headers.insert("x-seen", HeaderValue::from_static("yes"));
            })
            .after(Compress::new().codings([Coding::Gzip]).hook())
    });
    let response = get(&client, "/outer", "gzip");
    assert_eq!((response.header("content-encoding"), response.header("x-seen")), (Some("gzip"), Some("yes")));
    let response = get(&client, "/inner", "gzip");
    assert_eq!((response.header("content-encoding"), response.header("x-seen")), (None, Some("yes")));
}

#[test]
fn a_hook_outside_may_still_forbid_it() {
    let client = client(|| {
        let forbid = |_: &Request<'_>, parts: &mut Parts| {
            parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-transform"));
        };
        Router::new()
            .get("/", |_: &Request| Response::text(words(2000)))
            .after(forbid)
            .after(Compress::new().hook())
    });
    assert_eq!(get(&client, "/", "gzip").header("content-encoding"), None);
}

#[test]
fn any_body_in_any_pieces_through_any_network_decodes_to_the_same() {
    thread_local!(static BODY: RefCell<Vec<u8>> = RefCell::default());
    for seed in seeds(120) {
        let mut chance = Chance::new(seed);
        let bytes = [0, 1, 30, 3000, 70_000, 400_000][chance.below(6)];
        let bytes = bytes + chance.below(bytes + 1);
        let body = match chance.below(4) {
            0 => noise(bytes),
            1 => vec![b'a'; bytes],
            _ => words(bytes),
        };
        BODY.replace(body.clone());
        let options = crate::weather::stormy(seed, &mut chance);
        let inline = [0, 1000, 64 * 1024, 1 << 30][chance.below(4)];
        let client = App::new(move |_| {
            Router::new()
                .get("/owned", |_: &Request| Response::text(BODY.with_borrow(Vec::clone)))
                .get("/written", |_: &Request, reply: netpoll_http::Reply| {
                    reply.write(StatusCode::OK, "text/plain", |out| BODY.with_borrow(|body| out.extend(body)))
                })
                .get("/pieces", move |_: &Request| Response::text(pieces(seed, None)))
                .get("/sized", move |_: &Request| {
                    Response::text(pieces(seed, Some(BODY.with_borrow(Vec::len) as u64)))
                })
                .after(Compress::new().bytes_min(0).inline_bytes_max(inline).streams_max(2).hook())
        })
        .test_with(options);
        for path in ["/owned", "/written", "/pieces", "/sized"] {
            let (name, _) = CODINGS[chance.below(CODINGS.len())];
            let mut connection = client.connect();
            let ask = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {name}\r\n\r\n");
            let cut = chance.below(ask.len());
            connection.send(&ask.as_bytes()[..cut]);
            connection.send(&ask.as_bytes()[cut..]);
            let mut response = connection.response();
            for _ in 0..200 {
                if response.is_some() || connection.is_closed() {
                    break;
                }
                client.advance(Duration::from_millis(50));
                response = connection.response();
            }
            let place = format!("seed {seed}, {path}, {name}, {} bytes", body.len());
            let Some(response) = response else { panic!("{place}: no answer") };
            let came = match response.header("content-encoding") {
                Some(coding) => decoded(coding, &response.body),
                None => response.body,
            };
            assert!(came == body, "{place}: another body");
            connection.close();
            client.run();
        }
        let stats = client.stats();
        assert_eq!((client.open(), client.blocks_in_use(), stats.panics), (0, 0, 0), "seed {seed}");
    }

    /// The body in pieces, some of them empty, some behind a wait.
    fn pieces(seed: u64, length: Option<u64>) -> Body {
        let mut chance = Chance::new(seed ^ 0xf00d);
        let mut at = 0;
        let pull = move |context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
            BODY.with_borrow(|body| {
                let most = [1, 100, 20_000][chance.below(3)];
                let end = body.len().min(at + chance.below(most + 1));
                out.extend(&body[at..end]);
                at = end;
                if at == body.len() {
                    return Pull::Done;
                }
                if chance.below(3) > 0 {
                    return Pull::More;
                }
                context.waker().wake_by_ref();
                Pull::Wait
            })
        };
        match length {
            Some(length) => Body::sized_stream(length, pull),
            None => Body::stream(pull),
        }
    }
}

/// What streams of events are told by a test.
#[derive(Default)]
struct Feed {
    events: Vec<&'static str>,
    waker: Option<Waker>,
}

thread_local!(static FEED: RefCell<Feed> = RefCell::default());

fn tell(client: &TestClient, event: &'static str) {
    let waker = FEED.with_borrow_mut(|feed| {
        feed.events.insert(0, event);
        feed.waker.take()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
    client.run();
}

fn events() -> Body {
    Body::stream(|context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
        FEED.with_borrow_mut(|feed| match feed.events.pop() {
            Some("end") => Pull::Done,
            Some(event) => {
                out.extend(event.as_bytes());
                Pull::More
            }
            None => {
                feed.waker = Some(context.waker().clone());
                Pull::Wait
            }
        })
    })
}

#[test]
fn an_event_leaves_when_it_is_there_and_can_be_read() {
    for (name, coding) in CODINGS.iter().copied() {
        FEED.take();
        let client = client(move || {
            let kind = HeaderValue::from_static("text/event-stream");
            let stream = move |_: &Request| Response::text(events()).content_type(kind.clone());
            Router::new().get("/", stream).after(Compress::new().codings([coding]).hook())
        });
        let mut connection = client.connect();
        connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {name}\r\n\r\n").as_bytes());
        let head = connection.received();
        assert!(
            text(&head).contains(&format!("Content-Encoding: {name}\r\n")) && head.ends_with(b"\r\n\r\n")
        );
        let mut body = Vec::new();
        for event in ["data: one\n\n", "data: two\n\n", "data: and one more, which is longer\n\n"] {
            tell(&client, event);
            let came = connection.received();
            assert!(!came.is_empty(), "{name}: {event} was held back");
            body.extend(came);
            assert_eq!(connection.received(), b"", "{name}: all of it");
        }
        tell(&client, "end");
        body.extend(connection.received());
        let whole = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &body[..]].concat();
        let mut chunks = Vec::new();
        let mut rest = &whole[whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4..];
        while let Some(line) = rest.windows(2).position(|end| end == b"\r\n") {
            let bytes = usize::from_str_radix(text(&rest[..line]), 16).unwrap();
            chunks.extend_from_slice(&rest[line + 2..line + 2 + bytes]);
            rest = &rest[line + 4 + bytes..];
        }
        assert_eq!(
            text(&decoded(name, &chunks)),
            "data: one\n\ndata: two\n\ndata: and one more, which is longer\n\n"
        );
    }
}

#[test]
fn a_stream_that_is_not_read_is_not_pulled_and_a_worker_compresses_so_many_at_once() {
    thread_local!(static PULLED: Cell<usize> = const { Cell::new(0) });
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| {
                let noise = noise(2048 * 1024);
                let mut left = 2048;
                Response::text(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                    PULLED.set(PULLED.get() + 1);
                    left -= 1;
                    out.extend(&noise[left * 1024..][..1024]);
                    if left == 0 { Pull::Done } else { Pull::More }
                }))
            })
            .after(Compress::new().streams_max(2).hook())
    });
    let begin = || {
        let mut connection = client.connect();
        connection.stop_reading();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        connection
    };
    let mut connections = [begin(), begin(), begin()];
    assert!(PULLED.get() < 3 * 512, "{} KiB for peers that do not read", PULLED.get());
    let codings = connections.each_mut().map(|connection| {
        connection.start_reading();
        connection.response().expect("an answer").header("content-encoding").map(str::to_owned)
    });
    assert_eq!(codings, [Some("gzip".to_owned()), Some("gzip".to_owned()), None], "the third found no room");
    let [mut first, ..] = connections;
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(
        first.response().expect("an answer").header("content-encoding"),
        Some("gzip"),
        "there is room again"
    );
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_peer_that_leaves_makes_room_for_another_stream() {
    let client = client(|| {
        Router::new()
            .get("/", |_: &Request| Response::text(events()))
            .after(Compress::new().streams_max(1).hook())
    });
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
    for _ in 0..3 {
        FEED.take();
        let mut connection = client.connect();
        connection.send(request);
        assert!(text(&connection.received()).contains("Content-Encoding: gzip"));
        drop(connection);
        client.run();
    }
}

#[test]
fn a_stream_is_held_to_the_length_that_it_has_promised_though_that_is_not_said() {
    let client = client(|| {
        let sized = |bytes: &'static [u8], length| {
            move |_: &Request| {
                let mut left = Some(bytes);
                Response::text(Body::sized_stream(
                    length,
                    move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                        left.take().map_or(Pull::Done, |bytes| {
                            out.extend(bytes);
                            Pull::More
                        })
                    },
                ))
            }
        };
        Router::new()
            .get("/more", sized(b"abcdef", 4))
            .get("/less", sized(b"abcdef", 8))
            .get("/fails", |_: &Request| {
                Response::text(Body::stream(|_: &mut Context<'_>, _: &mut BodyBuf<'_>| Pull::Failed))
            })
            .get("/panics", |_: &Request| {
                Response::text(Body::stream(|_: &mut Context<'_>, _: &mut BodyBuf<'_>| panic!("a test")))
            })
            .after(Compress::new().hook())
    });
    let response = get(&client, "/more", "gzip");
    assert_eq!(
        (response.header("content-length"), decoded("gzip", &response.body)),
        (None, b"abcd".to_vec())
    );
    for path in ["/less", "/fails", "/panics"] {
        let mut connection = client.connect();
        connection
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes());
        assert!(connection.response().is_none() && connection.is_closed(), "{path}: no complete answer");
    }
}

#[test]
fn a_long_body_that_is_compressed_lets_others_have_their_turns() {
    // One of which hardly anything is left, and one of which a fifth is.
    for body in [vec![b'x'; 8 << 20], words(8 << 20)] {
        let served = std::sync::Arc::new(body.clone());
        let client = client(move || {
            let served = std::sync::Arc::clone(&served);
            Router::new()
                .get("/long", move |_: &Request| Response::text(served.to_vec()))
                .get("/short", |_: &Request| "short")
                .after(Compress::new().codings([Coding::Gzip]).hook())
        });
        let (mut long, mut short) = (client.connect(), client.connect());
        long.put(b"GET /long HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let mut turns = 0;
        let mut came = false;
        let response = loop {
            client.turn();
            turns += 1;
            if turns == 3 {
                short.put(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            came |= short.response().is_some_and(|response| response.text() == "short");
            if let Some(response) = long.response() {
                break response;
            }
            assert!(turns < 2000);
        };
        assert!(decoded("gzip", &response.body) == body);
        // A turn has two places in which it goes on.
        assert!(came && turns >= (8 << 20) / (2 * 32 * 1024), "{turns} turns");
    }
}

#[test]
fn who_asks_for_many_answers_at_once_that_are_compressed_gets_a_few_of_them_in_a_turn() {
    let client = client(|| {
        Router::new()
            .get("/page", |_: &Request| Response::text(words(30_000)))
            .get("/later", async |_: Request| Response::text(words(30_000)))
            .get("/short", |_: &Request| Response::text(words(1500)))
            .after(Compress::new().hook())
    });
    for (path, most) in [("page", 3), ("later", 3), ("short", 64)] {
        for (coding, most) in [("gzip", most), ("identity", 64)] {
            let mut connection = client.connect();
            let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n");
            connection.put(request.repeat(20).as_bytes());
            let mut came = 0;
            for turn in 0..100 {
                client.turn();
                let now = std::iter::from_fn(|| connection.response()).count();
                assert!(now <= most, "{now} of {path} as {coding} in turn {turn}");
                came += now;
            }
            assert_eq!(came, 20, "{path} as {coding}");
            // And is at rest again: nobody waits for it for ever.
            client.advance(std::time::Duration::from_secs(100));
            assert!(connection.is_closed());
        }
    }
}

#[test]
fn a_body_that_comes_compressed_is_decoded_where_a_route_asks_for_it() {
    let client = client(|| {
        let text = |req: &Request| req.text().map(str::to_owned);
        Router::new()
            .post("/decoded", Decoding::new().of(text))
            .post("/later", Decoding::new().of(async |req: Request| req.text().map(str::to_owned)))
            .post("/as-it-came", |req: &Request| req.body().len().to_string())
            .post("/json", |req: &Request| req.json::<Vec<u32>>().map(|list| list.len().to_string()))
            .post(
                "/json-decoded",
                Decoding::new().of(|req: &Request| req.json::<Vec<u32>>().map(|list| list.len().to_string())),
            )
    });
    for (name, coding) in CODINGS.iter().copied() {
        let body = coded(coding, words(5000));
        for path in ["/decoded", "/later"] {
            assert_eq!(sent_coded(&client, path, name, &body).body, words(5000), "{path} {name}");
        }
        assert_eq!(sent_coded(&client, "/as-it-came", name, &body).text(), body.len().to_string());
        let json = coded(coding, b"[1, 2, 3]".to_vec());
        let send = |path: &str, body: &[u8]| {
            let request = client.request(Method::POST, path).header("Content-Encoding", name);
            request.header("Content-Type", "application/json").body(body).send()
        };
        assert_eq!(send("/json", &json).status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(send("/json-decoded", &json).text(), "3");
        assert_eq!(send("/json-decoded", &coded(coding, b"[1, x]".to_vec())).status, StatusCode::BAD_REQUEST);
        let chunked: Vec<u8> = body
            .chunks(100)
            .flat_map(|part| {
                [format!("{:x}\r\n", part.len()).into_bytes(), part.to_vec(), b"\r\n".to_vec()].concat()
            })
            .collect();
        let mut connection = client.connect();
        connection.send(format!("POST /decoded HTTP/1.1\r\nHost: a\r\nContent-Encoding: {name}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
        connection.send(&chunked);
        connection.send(b"0\r\n\r\n");
        assert_eq!(connection.response().expect("an answer").body, words(5000), "{name} in chunks");
    }
    for name in ["identity", "", "IDENTITY, identity"] {
        assert_eq!(sent_coded(&client, "/decoded", name, b"plain").text(), "plain");
    }
    assert_eq!(client.post("/decoded", "plain").text(), "plain");
    assert_eq!(sent_coded(&client, "/decoded", "gzip", b"").text(), "", "no body has no coding");
    let gzip = coded(Coding::Gzip, b"hello".to_vec());
    assert_eq!(sent_coded(&client, "/decoded", "X-GZIP", &gzip).text(), "hello");
    let twice = [&gzip[..], &gzip].concat();
    assert_eq!(sent_coded(&client, "/decoded", "gzip", &twice).text(), "hellohello", "a file of two members");
}

#[test]
fn a_body_that_is_not_what_it_says_is_refused_and_so_are_several_codings() {
    let client =
        client(|| Router::new().post("/", Decoding::new().of(|req: &Request| req.body().len().to_string())));
    for (name, coding) in CODINGS.iter().copied() {
        let body = coded(coding, words(3000));
        let refused = |body: &[u8], what: &str| {
            let response = sent_coded(&client, "/", name, body);
            assert_eq!(response.status, StatusCode::BAD_REQUEST, "{name}: {what}");
        };
        refused(&words(300), "no coding at all");
        refused(&[&body[..], b"\0"].concat(), "something behind it");
        for end in [1, body.len() / 2, body.len() - 1] {
            refused(&body[..end], "not whole");
        }
        for other in [
            format!("{name}, {name}"),
            format!("{name},br,gzip"),
            "deflate".to_owned(),
            "compress".to_owned(),
        ] {
            let response = sent_coded(&client, "/", &other, &body);
            assert_eq!(response.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{other}");
            assert!(response.header("accept-encoding").is_some_and(|taken| taken.contains(name)), "{other}");
        }
        let two_lines = client.request(Method::POST, "/").header("Content-Encoding", name);
        let response = two_lines.header("Content-Encoding", name).body(&body[..]).send();
        assert_eq!(response.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "on two lines");
    }
    let many = coded(Coding::Gzip, b"x".to_vec()).repeat(65);
    assert_eq!(sent_coded(&client, "/", "gzip", &many).status, StatusCode::BAD_REQUEST, "too many members");
}

#[test]
fn a_body_that_becomes_too_large_is_refused_as_soon_as_it_does() {
    let client = client(|| {
        let len = |req: &Request| req.body().len().to_string();
        Router::new()
            .post("/few", Decoding::new().bytes_max(3000).of(len))
            .post("/dense", Decoding::new().bytes_max(64 << 20).of(len))
            .post("/default", Decoding::new().of(len))
    });
    for (name, coding) in CODINGS.iter().copied() {
        let status = |path: &str, body: &[u8]| sent_coded(&client, path, name, body).status.as_u16();
        assert_eq!(status("/few", &coded(coding, words(3000))), 200, "{name}");
        assert_eq!(status("/few", &coded(coding, words(3001))), 413, "{name}");
        let bomb = coded(coding, vec![0; 16 << 20]);
        assert!(bomb.len() < 100_000, "{name}: {} bytes", bomb.len());
        for path in ["/few", "/dense", "/default"] {
            assert_eq!(status(path, &bomb), 413, "{name} {path}");
        }
        assert_eq!(
            status("/dense", &coded(coding, vec![0; 64 * 1024])),
            200,
            "{name}: short texts may repeat themselves"
        );
        assert_eq!(status("/dense", &coded(coding, words(3 << 20))), 200, "{name}: and long ones be text");
    }
}

#[test]
fn curl_reads_what_was_compressed_and_what_it_sends_is_decoded() {
    let Ok(version) = Command::new("curl").arg("--version").output() else {
        println!("skipped: there is no curl");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let router = |_: &netpoll_http::Worker| {
        Router::new()
            .get("/short", |_: &Request| Response::text(words(5000)))
            .get("/long", |_: &Request| Response::text(words(2 << 20)))
            .get("/stream", |_: &Request| {
                Response::text(Body::chunks(
                    words(50_000).chunks(700).map(<[u8]>::to_vec).collect::<Vec<_>>(),
                ))
            })
            .post("/", Decoding::new().of(|req: &Request| req.body().to_vec()))
            .after(Compress::new().hook())
    };
    let running = Server::bind("127.0.0.1:0").unwrap().workers(1).app(router).start().unwrap();
    let url = format!("http://{}", running.addr());
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for (name, coding) in CODINGS.iter().copied() {
        let library = if name == "gzip" {
            "libz"
        } else if name == "br" {
            "brotli"
        } else {
            "zstd"
        };
        if !version.contains(library) {
            println!("skipped: this curl has no {name}");
            continue;
        }
        let accept = format!("Accept-Encoding: {name}");
        for (path, body) in [("/short", words(5000)), ("/long", words(2 << 20)), ("/stream", words(50_000))] {
            let came = curl(&["--compressed", "-H", &accept, &format!("{url}{path}")]);
            assert!(came == body, "{name} {path}: {} bytes", came.len());
            let raw = curl(&["-H", &accept, &format!("{url}{path}")]);
            assert!(raw.len() < body.len() / 2, "{name} {path}: {} bytes", raw.len());
        }
        let file = std::env::temp_dir().join(format!("netpoll-coded-{}-{name}", std::process::id()));
        std::fs::write(&file, coded(coding, words(9000))).unwrap();
        let data = format!("@{}", file.display());
        let came = curl(&["--data-binary", &data, "-H", &format!("Content-Encoding: {name}"), &url]);
        std::fs::remove_file(file).unwrap();
        assert!(came == words(9000), "{name}");
    }
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_faulty_network_changes_nothing_of_what_a_worker_holds() {
    let options = Options::default().faults(Faults::stormy()).seed(7);
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| Response::text(words(200_000)))
            .after(Compress::new().streams_max(3).hook())
    })
    .test_with(options);
    for round in 0..30 {
        let mut connection = client.connect();
        connection.put(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        for _ in 0..round % 7 {
            client.turn();
        }
    }
    client.run();
    assert_eq!((client.open(), client.blocks_in_use(), client.stats().panics), (0, 0, 0));
    let response = get(&client, "/", "gzip");
    assert_eq!(response.header("content-encoding"), Some("gzip"), "there is room again");
}
