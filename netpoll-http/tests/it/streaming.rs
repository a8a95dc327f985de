//! Bodies that are made while they are sent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use netpoll_core::sim::{Options, Sim};
use netpoll_core::{Commands, Conn, ConnId, Flow, Input, Lost, Protocol};
use netpoll_http::{App, Body, BodyBuf, Http, Limits, Method, Pull, Request, Response, Router, TestClient};

use crate::{client, text};

fn streams() -> TestClient {
    client(|| {
        Router::new()
            .get("/chunks", |_: &Request| Response::text(Body::chunks(["one", "", "two"])))
            .get("/sized", |_: &Request| Response::text(Body::sized_stream(6, pieces(["abc", "def"]))))
            .get("/more", |_: &Request| Response::text(Body::sized_stream(4, pieces(["abc", "def"]))))
            .get("/less", |_: &Request| Response::text(Body::sized_stream(9, pieces(["abc", "def"]))))
            .get("/empty", |_: &Request| Response::text(Body::sized_stream(0, pieces([]))))
            .get("/fails", |_: &Request| {
                Response::text(Body::stream(|_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                    out.extend(b"half");
                    Pull::Failed
                }))
            })
            .get("/panics", |_: &Request| {
                Response::text(Body::stream(|_: &mut Context<'_>, _: &mut BodyBuf<'_>| panic!("in a stream")))
            })
            .get("/after", |_: &Request| "after")
    })
}

fn pieces<const N: usize>(
    pieces: [&'static str; N],
) -> impl FnMut(&mut Context<'_>, &mut BodyBuf<'_>) -> Pull + 'static {
    let mut pieces = pieces.into_iter();
    move |_, out| match pieces.next() {
        Some(piece) => {
            out.extend(piece.as_bytes());
            Pull::More
        }
        None => Pull::Done,
    }
}

#[test]
fn a_stream_of_unknown_length_is_chunked_and_the_connection_goes_on() {
    let mut connection = streams().connect();
    connection.send(b"GET /chunks HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.response().expect("an answer");
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    assert_eq!((response.header("content-length"), response.text()), (None, "onetwo"));
    assert_eq!(connection.response().expect("the next").text(), "after");
}

#[test]
fn a_stream_to_http_1_0_ends_with_the_connection() {
    let mut connection = streams().connect();
    connection.send(b"GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let bytes = connection.received();
    let (head, body) = text(&bytes).split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "onetwo");
    assert!(head.contains("\r\nConnection: close") && !head.contains("chunked"), "{head}");
    assert!(connection.is_closed() && !connection.is_reset());
}

#[test]
fn a_stream_of_known_length_has_that_length() {
    let response = streams().get("/sized");
    assert_eq!((response.header("content-length"), response.text()), (Some("6"), "abcdef"));
    assert_eq!(streams().get("/empty").text(), "");
}

#[test]
fn a_stream_that_writes_more_than_its_length_is_cut() {
    let mut connection = streams().connect();
    connection.send(b"GET /more HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("an answer").text(), "abcd");
    assert_eq!(connection.response().expect("the next").text(), "after");
}

#[test]
fn a_stream_that_ends_early_ends_the_connection() {
    for path in ["/less", "/fails", "/panics"] {
        let mut connection = streams().connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(connection.response().is_none(), "{path}: no complete answer");
        assert!(connection.is_closed(), "{path}");
    }
}

#[test]
fn a_stream_that_fails_on_http_1_0_is_reset_so_that_it_cannot_look_complete() {
    let mut connection = streams().connect();
    connection.send(b"GET /fails HTTP/1.0\r\n\r\n");
    assert!(connection.is_reset());
}

#[test]
fn head_does_not_start_a_stream() {
    let response = streams().request(Method::HEAD, "/fails").send();
    assert_eq!((response.header("transfer-encoding"), response.header("content-length")), (None, None));
    assert_eq!(streams().request(Method::HEAD, "/sized").send().header("content-length"), Some("6"));
}

#[test]
fn a_stream_is_pulled_only_as_fast_as_the_peer_reads() {
    thread_local!(static PULLED: Cell<usize> = const { Cell::new(0) });
    let client = client(|| {
        Router::new().get("/", |_: &Request| {
            let mut left = 4096;
            Response::bytes(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                PULLED.set(PULLED.get() + 1);
                out.extend(&[b'x'; 1024]);
                left -= 1;
                if left == 0 { Pull::Done } else { Pull::More }
            }))
        })
    });
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let while_stuck = PULLED.get();
    assert!(while_stuck < 512, "{while_stuck} KiB for a peer that does not read");

    connection.start_reading();
    assert_eq!(connection.response().expect("an answer").body.len(), 4096 * 1024);
    assert_eq!(client.blocks_in_use(), 0, "an idle connection holds no buffer");
}

#[test]
fn a_waiting_stream_goes_on_when_it_is_woken() {
    type Shared = Rc<RefCell<(Vec<&'static str>, Option<Waker>)>>;
    thread_local!(static FEED: Shared = Rc::default());
    let app = App::new(|_| {
        Router::new().get("/events", |_: &Request| {
            Response::text(Body::stream(|context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                FEED.with_borrow_feed(|(events, waker)| match events.pop() {
                    Some("end") => Pull::Done,
                    Some(event) => {
                        out.extend(event.as_bytes());
                        Pull::More
                    }
                    None => {
                        *waker = Some(context.waker().clone());
                        Pull::Wait
                    }
                })
            }))
        })
    });
    trait Feed {
        fn with_borrow_feed<R>(
            &'static self,
            f: impl FnOnce(&mut (Vec<&'static str>, Option<Waker>)) -> R,
        ) -> R;
    }
    impl Feed for std::thread::LocalKey<Shared> {
        fn with_borrow_feed<R>(
            &'static self,
            f: impl FnOnce(&mut (Vec<&'static str>, Option<Waker>)) -> R,
        ) -> R {
            self.with(|shared| f(&mut shared.borrow_mut()))
        }
    }
    let push = |event| {
        let waker = FEED.with_borrow_feed(|(events, waker)| {
            events.push(event);
            waker.take()
        });
        waker.expect("the stream waits").wake();
    };

    let client = app.test();
    let mut connection = client.connect();
    connection.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text(&connection.received()).ends_with("\r\n\r\n"), "the head leaves at once");
    push("first");
    client.run();
    assert_eq!(text(&connection.received()), "00000005\r\nfirst\r\n");
    push("end");
    client.run();
    assert_eq!(text(&connection.received()), "0\r\n\r\n");
}

#[test]
fn a_stream_that_is_the_last_answer_leaves_whole_and_nobody_is_waited_for() {
    for (head, framed) in [
        ("HTTP/1.1\r\nHost: a\r\nConnection: close", "00000003\r\none\r\n00000003\r\ntwo\r\n0\r\n\r\n"),
        ("HTTP/1.0", "onetwo"),
    ] {
        let client = streams();
        let mut connection = client.connect();
        connection.send(format!("GET /chunks {head}\r\n\r\n").as_bytes());
        let bytes = connection.received();
        assert_eq!(text(&bytes).split_once("\r\n\r\n").expect("a head").1, framed);
        assert!(connection.is_closed() && !connection.is_reset());
        assert_eq!((client.open(), client.stats().syscalls_shutdown), (0, 0), "{head}");
    }
}

#[test]
fn a_client_that_ends_its_direction_gets_a_stream_that_has_something_to_send() {
    let large = |last: Pull| {
        move |_: &Request| {
            let mut pieces = 0;
            Response::text(Body::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                pieces += 1;
                if pieces > 1000 {
                    return last;
                }
                out.extend(&[b'x'; 1000]);
                Pull::More
            }))
        }
    };
    let client = client(move || {
        let wait = async |_: Request| std::future::pending::<()>().await;
        Router::new()
            .get("/whole", large(Pull::Done))
            .get("/gaps", |_: &Request| {
                Response::text(Body::chunks((0..2000).map(|n| vec![b'x'; 1000 * (n % 2)])))
            })
            .get("/waits", large(Pull::Wait))
            .get("/asks_again", large(Pull::More))
            .get("/handler", wait)
    });
    for (paths, answers, abandoned) in [
        (&["/whole"][..], 1, 0),
        (&["/whole", "/whole"], 2, 0),
        (&["/gaps"], 1, 0),
        // Behind that it is given up.
        (&["/waits"], 0, 1),
        (&["/asks_again"], 0, 1),
        (&["/whole", "/waits"], 1, 1),
        (&["/whole", "/handler"], 1, 1),
    ] {
        let before = client.stats().abandoned;
        let mut connection = client.connect();
        for path in paths {
            connection.put(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        }
        connection.finish();
        for _ in 0..answers {
            assert_eq!(connection.response().expect("an answer").body.len(), 1_000_000, "{paths:?}");
        }
        connection.received();
        assert_eq!((client.open(), client.stats().abandoned - before), (0, abandoned), "{paths:?}");
    }
}

/// HTTP in a protocol of the program's, which knows its name, and may end its direction by itself when others want that.
struct Named {
    http: Http<Router>,
    id: Rc<Cell<Option<ConnId>>>,
    hands_on: bool,
}

impl Protocol for Named {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.id.set(Some(conn.id()));
        self.http.opened(conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.http.received(conn, input)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.http.eof(conn, input)
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.http.drained(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.http.woken(conn)
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.hands_on {
            return self.http.finishing(conn);
        }
        conn.finish();
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        self.http.lost(reason, commands);
    }
}

#[derive(Default)]
struct Endless {
    pulls: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    is_dropped: Cell<bool>,
}

/// A stream that waits once, and then goes on for ever.
struct Pulled(Rc<Endless>);

impl Drop for Pulled {
    fn drop(&mut self) {
        self.0.is_dropped.set(true);
    }
}

impl Pulled {
    fn pull(&self, context: &Context<'_>, out: &mut BodyBuf<'_>) -> Pull {
        self.0.pulls.set(self.0.pulls.get() + 1);
        assert!(self.0.pulls.get() < 100_000, "it is pulled for ever");
        out.extend(b"more");
        if self.0.waker.replace(Some(context.waker().clone())).is_none() {
            return Pull::Wait;
        }
        Pull::More
    }
}

#[test]
fn a_stream_whose_direction_others_end_is_given_up_and_seen_to_be_incomplete() {
    for (hands_on, version) in [(true, 1), (false, 1), (true, 0), (false, 0)] {
        let (endless, id) = (Rc::<Endless>::default(), Rc::<Cell<Option<ConnId>>>::default());
        let router = Router::new().get("/", {
            let endless = Rc::clone(&endless);
            move |_: &Request| {
                let pulled = Pulled(Rc::clone(&endless));
                Response::text(Body::stream(move |context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                    pulled.pull(context, out)
                }))
            }
        });
        let mut http = Http::acceptor(router, Limits::default()).expect("good limits");
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen({
            let id = Rc::clone(&id);
            move |peer| Named { http: http(peer), id: Rc::clone(&id), hands_on }
        });
        let peer = sim.connect(listener);
        sim.send(peer, format!("GET / HTTP/1.{version}\r\nHost: a\r\n\r\n").as_bytes());
        sim.run();
        assert_eq!(endless.pulls.get(), 1);
        sim.commands().finish(id.get().expect("it is open"));
        sim.run();
        endless.waker.take().expect("it waits").wake();
        sim.run();
        let place = format!("HTTP/1.{version}, hands on: {hands_on}");
        assert!(endless.is_dropped.get() && endless.pulls.get() == 1, "{place}");
        let received = sim.take_received(peer);
        assert!(text(&received).contains("more") && !text(&received).ends_with("0\r\n\r\n"), "{place}");
        assert!(sim.is_closed(peer), "{place}");
        assert_eq!((sim.open(), sim.stats().panics, sim.blocks_in_use()), (0, 0, 0), "{place}");
        assert_eq!(sim.stats().abandoned, 0, "{place}: the client has not left");
    }
}

#[test]
fn behind_the_end_of_our_direction_nothing_is_taken_for_a_request() {
    let (called, id) = (Rc::<Cell<usize>>::default(), Rc::<Cell<Option<ConnId>>>::default());
    let router = Router::new().get("/", {
        let called = Rc::clone(&called);
        move |_: &Request| {
            called.set(called.get() + 1);
            "answer"
        }
    });
    let mut http = Http::acceptor(router, Limits::default()).expect("good limits");
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let id = Rc::clone(&id);
        move |peer| Named { http: http(peer), id: Rc::clone(&id), hands_on: true }
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    sim.run();
    sim.commands().finish(id.get().expect("it is open"));
    sim.run();
    sim.send(peer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    sim.run();
    assert_eq!(called.get(), 1, "it would be carried out without an answer");
    assert!(text(&sim.take_received(peer)).ends_with("answer"));
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    sim.finish(peer);
    sim.run();
    assert_eq!(sim.open(), 0);
}
