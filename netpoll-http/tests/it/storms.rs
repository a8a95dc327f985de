//! Many connections on a network that misbehaves: whatever is cut, delayed or refused, each request gets its own
//! answer, in order. A failure names its seed.

use std::future::poll_fn;
use std::task::{Context, Poll};

use netpoll_core::sim::{Faults, Options};
use netpoll_http::{
    App, Body, BodyBuf, Limits, Pull, Reply, Request, Response, Router, StatusCode, TestClient,
};

/// A small generator of its own (xorshift64*), so that a seed is all there is to repeat.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// Gives way `turns` times.
async fn give_way(mut turns: usize) {
    poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn site(seed: u64) -> TestClient {
    let mut options = Options::default();
    options.seed = seed;
    options.faults = Faults::stormy();
    // A shortage lasts until time passes, and with false alarms a world never comes to rest.
    options.faults.descriptor_shortages = 0;
    options.faults.spurious_sent = 0;
    options.limits.write_high_bytes = 8 * 1024;
    options.limits.write_low_bytes = 2 * 1024;
    let mut limits = Limits::default();
    limits.requests_per_turn = Some(3);
    App::new(|_| {
        Router::new()
            .get("/text/{n}", |req: &Request| req.param::<String>("n"))
            .get("/large/{n}", |req: &Request| Ok("x".repeat(req.param("n")?)))
            .get("/later/{n}", async |req: Request| {
                let n: usize = req.param("n")?;
                give_way(n % 5).await;
                Ok(n.to_string())
            })
            .get("/stream/{n}", |req: &Request| {
                let mut left: usize = req.param("n")?;
                let stream = move |context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                    let piece = left.min(700);
                    out.extend(&[b'x'; 700][..piece]);
                    left -= piece;
                    if left == 0 {
                        return Pull::Done;
                    }
                    if left.is_multiple_of(3) {
                        context.waker().wake_by_ref();
                        return Pull::Wait;
                    }
                    Pull::More
                };
                Ok(Response::text(Body::stream(stream)))
            })
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
            .post("/later", async |req: Request| {
                give_way(2).await;
                req.body_bytes()
            })
    })
    .limits(limits)
    .test_with(options)
}

/// A random request, and the status and body that it has to be answered with.
fn request(chance: &mut Chance) -> (Vec<u8>, u16, Vec<u8>) {
    let n = chance.below(30_000);
    let body = vec![b'b'; chance.below(3000)];
    let get = |path: &str| format!("GET /{path}/{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let post = |path: &str| {
        let length = body.len();
        let head = format!("POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body].concat()
    };
    match chance.below(7) {
        0 => (get("text"), 200, n.to_string().into_bytes()),
        1 => (get("large"), 200, vec![b'x'; n]),
        2 => (get("later"), 200, n.to_string().into_bytes()),
        3 => (get("stream"), 200, vec![b'x'; n]),
        4 => (post("echo"), 200, body),
        5 => (post("nowhere"), 404, b"Not Found".to_vec()),
        _ => {
            let mut bytes = b"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(100 + n % 1000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            (bytes, 200, body)
        }
    }
}

#[test]
fn every_request_gets_its_own_answer_in_order_on_any_network() {
    for seed in 1..=60 {
        let client = site(seed);
        let mut chance = Chance(seed);
        let mut peers: Vec<_> = (0..4)
            .map(|_| {
                let requests: Vec<_> = (0..12).map(|_| request(&mut chance)).collect();
                let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
                (client.connect(), requests, bytes, 0)
            })
            .collect();

        while peers.iter().any(|(_, _, bytes, sent)| *sent < bytes.len()) {
            let (connection, _, bytes, sent) = &mut peers[chance.below(4)];
            let end = bytes.len().min(*sent + 1 + chance.below(5000));
            connection.send(&bytes[*sent..end]);
            *sent = end;
            if end == bytes.len() {
                connection.finish();
            }
        }
        for (peer, (connection, requests, ..)) in peers.iter_mut().enumerate() {
            for (number, (_, status, body)) in requests.iter().enumerate() {
                let place = format!("seed {seed}, peer {peer}, request {number}");
                let response = connection.response().unwrap_or_else(|| panic!("no answer: {place}"));
                assert_eq!(response.status.as_u16(), *status, "{place}");
                assert!(response.body == *body, "{place}");
            }
            assert!(connection.received().is_empty() && connection.is_closed(), "seed {seed}, peer {peer}");
            assert!(!connection.is_reset(), "seed {seed}, peer {peer}");
        }
        assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "seed {seed}");
    }
}
