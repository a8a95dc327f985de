//! HTTP/1.1 of hyper, served on the worker.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use netpoll_core::bridge::{HyperTimer, SendWrapper};
use netpoll_core::net::Stream;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, stopping};
use netpoll_core::time::sleep;

use crate::conversation::Step::{Finishes, Hears, HearsTheEnd, Says};
use crate::conversation::{Serving, converse};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(HyperTimer).auto_date_header(false);
    builder
}

/// Shouts what it is told. Its state is not `Send`.
async fn shout(
    request: Request<Incoming>,
    count: Rc<Cell<u32>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    count.set(count.get() + 1);
    let body = request.into_body().collect().await?.to_bytes();
    let text = format!("{}{}", count.get(), String::from_utf8_lossy(&body).to_uppercase());
    Ok(Response::new(Full::new(text.into())))
}

fn serve(stream: Stream) -> Serving {
    Box::pin(async move {
        let count = Rc::new(Cell::new(0));
        let service = service_fn(move |request| shout(request, Rc::clone(&count)));
        // A peer that leaves in the middle is no matter.
        let _ = builder().half_close(true).serve_connection(stream, service).await;
    })
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_are_answered_whole_whatever_pieces_they_come_in() {
    let long = "x".repeat(5000);
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}", long.len());
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5001\r\n\r\n2{}", "X".repeat(5000));
    converse(
        serve,
        &[
            Says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"),
            Says(b"lo"),
            Hears(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n1HELLO"),
            Says(post.as_bytes()),
            // Pipelined.
            Says(GET),
            Says(GET),
            Hears(answer.as_bytes()),
            Hears(
                b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n4",
            ),
            Says(b"GET / HTTP/1.0\r\n\r\n"),
            Finishes,
            Hears(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n5"),
            HearsTheEnd,
        ],
    );
}

/// Becomes an echo behind the answer 101.
async fn upgrade(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let _goes_on = spawn_local(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let parts = upgraded.downcast::<SendWrapper<Stream>>().expect("what was served");
        let mut stream = parts.io.into_inner();
        stream.write_all(&parts.read_buf).await.unwrap();
        while let Ok(input @ [_, ..]) = stream.fill_buf().await {
            let input = input.to_vec();
            stream.consume(input.len());
            stream.write_all(&input).await.unwrap();
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    Ok(response.header(CONNECTION, "upgrade").header(UPGRADE, "echo").body(Full::default()).unwrap())
}

#[test]
fn an_upgraded_connection_is_the_stream_with_what_was_read_too_far() {
    converse(
        |stream| {
            Box::pin(async move {
                let connection = builder().serve_connection(SendWrapper::new(stream), service_fn(upgrade));
                // A peer that leaves in the middle is no matter.
                let _ = connection.with_upgrades().await;
            })
        },
        &[
            Says(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly,"),
            Hears(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"),
            Hears(b"early,"),
            Says(b"late"),
            Hears(b"late"),
            Finishes,
            HearsTheEnd,
        ],
    );
}

#[test]
fn timeouts_of_hyper_pass_in_the_time_of_the_simulation() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(|stream, _peer| async move {
        let mut builder = builder();
        builder.header_read_timeout(10 * SECOND);
        let service = service_fn(|request| shout(request, Rc::default()));
        assert!(builder.serve_connection(stream, service).await.unwrap_err().is_timeout());
    });
    let peer = sim.connect(listener);
    for _ in 0..3 {
        // Each head has its own ten seconds.
        sim.send(peer, b"GET / HT");
        sim.advance(9 * SECOND);
        sim.send(peer, b"TP/1.1\r\nHost: a\r\n\r\n");
        sim.settle();
        assert_eq!(sim.take_received(peer), b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1");
    }
    sim.send(peer, b"GET / HT");
    sim.advance(9 * SECOND);
    assert!(!sim.is_closed(peer));
    sim.advance(2 * SECOND);
    assert!(sim.is_closed(peer));
    assert_eq!(sim.stats().panics, 0);
}

/// So many pieces, and how many were asked for.
struct Pieces {
    left: usize,
    asked: Rc<Cell<usize>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.asked.set(self.asked.get() + 1);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 32 * 1024])))))
    }
}

#[test]
fn a_body_is_asked_for_no_more_while_its_peer_does_not_read() {
    const PIECES: usize = 300;
    let mut sim = Sim::new(Options::default());
    let asked = Rc::new(Cell::new(0));
    let counted = Rc::clone(&asked);
    let listener = sim.listen_tasks(move |stream, _peer| {
        let counted = Rc::clone(&counted);
        async move {
            let service = service_fn(move |_request| {
                let asked = Rc::clone(&counted);
                async move { Ok::<_, Infallible>(Response::new(Pieces { left: PIECES, asked })) }
            });
            builder().serve_connection(stream, service).await.unwrap();
        }
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"GET / HTTP/1.0\r\n\r\n");
    sim.stop_reading(peer);
    sim.settle();
    assert!((1..50).contains(&asked.get()), "{}", asked.get());
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(asked.get(), PIECES);
    assert!(sim.take_received(peer).len() > PIECES * 32 * 1024 && sim.is_closed(peer));
}

#[test]
fn a_drain_lets_a_request_be_answered_and_ends_the_connection_behind_it() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(|stream, _peer| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            if request.method() == Method::POST {
                sleep(5 * SECOND).await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
        });
        let mut connection = std::pin::pin!(builder().serve_connection(stream, service));
        let mut stopping = std::pin::pin!(stopping());
        let served = std::future::poll_fn(|cx| {
            if stopping.as_mut().poll(cx).is_ready() {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        served.await.unwrap();
    });
    let (idle, busy) = (sim.connect(listener), sim.connect(listener));
    sim.send(idle, GET);
    sim.send(busy, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    sim.settle();
    assert_eq!(sim.take_received(idle), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
    sim.begin_drain(60 * SECOND);
    sim.settle();
    assert!(sim.is_closed(idle) && !sim.is_closed(busy));
    sim.advance(6 * SECOND);
    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone";
    assert_eq!(String::from_utf8_lossy(&sim.take_received(busy)), String::from_utf8_lossy(answer));
    assert!(sim.is_closed(busy));
    sim.close(idle);
    sim.close(busy);
    sim.advance(SECOND);
    assert!(sim.is_finished());
}
