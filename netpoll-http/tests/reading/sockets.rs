//! The same over sockets of the kernel, whichever the driver.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netpoll_core::time::sleep;
use netpoll_http::{
    BodyReader, BodySink, Error, Handler, IntoResponse, Request, Response, RouteLimits, Router, Running,
    Server, sink,
};

struct Length(u64);

impl BodySink for Length {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.0 += chunk.len() as u64;
        Ok(())
    }

    fn end(self, _: &Request<'_>) -> impl IntoResponse {
        self.0.to_string()
    }
}

async fn length(_: Request<'static>, mut body: BodyReader) -> Result<String, Error> {
    let mut length = 0;
    while let Some(chunk) = body.chunk().await? {
        length += chunk.len();
    }
    Ok(length.to_string())
}

fn server(more: impl Fn(Router) -> Router + Send + Sync + 'static) -> Running {
    let any = RouteLimits::default().unlimited_body();
    let router = move |_: &_| {
        let router = Router::new()
            .post("/length", length.limits(any))
            .post("/sink", sink(|_: &Request| Ok(Length(0))).limits(any))
            .post("/echo", (async |_: Request, body: BodyReader| Response::bytes(body)).limits(any));
        more(router)
    };
    Server::bind("127.0.0.1:0").expect("an address").workers(1).app(router).start().expect("a server")
}

fn begin(server: &Running, path: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr().to_string()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the head");
    stream
}

const LENGTH: usize = 32 << 20;

#[test]
fn long_bodies_come_whole() {
    let server = server(|router| router);
    for path in ["/length", "/sink"] {
        let mut stream = begin(&server, path, LENGTH);
        let piece = vec![b'x'; 1 << 20];
        (0..LENGTH >> 20).for_each(|_| stream.write_all(&piece).expect("a piece"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with(&format!("\r\n\r\n{LENGTH}")), "{path}: {answer}");
    }
    server.stop(Duration::from_secs(5)).expect("an end");
}

#[test]
fn an_echo_returns_what_it_is_sent() {
    let server = server(|router| router);
    let mut stream = begin(&server, "/echo", LENGTH);
    let mut reading = stream.try_clone().expect("a copy");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        reading.read_to_end(&mut all).map(|_| all)
    });
    let piece: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    (0..LENGTH >> 20).for_each(|_| stream.write_all(&piece).expect("a piece"));
    let answer = reader.join().expect("no panic").expect("an answer");
    let head = answer.len() - LENGTH;
    assert!(answer[..head].ends_with(b"\r\n\r\n"));
    assert!(answer[head..].chunks(1 << 20).all(|chunk| chunk == piece));
    server.stop(Duration::from_secs(5)).expect("an end");
}

#[test]
fn a_handler_that_does_not_read_holds_its_client_back() {
    static GO: AtomicBool = AtomicBool::new(false);
    let patient = async |request: Request<'static>, body: BodyReader| {
        while !GO.load(Ordering::Acquire) {
            sleep(Duration::from_millis(5)).await;
        }
        length(request, body).await
    };
    let any = RouteLimits::default().unlimited_body();
    let server = server(move |router| router.post("/patient", patient.limits(any)));
    let mut stream = begin(&server, "/patient", LENGTH);
    stream.set_nonblocking(true).expect("a mode");
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    // Until neither kernel takes any more for a while.
    let mut refused = 0;
    while refused < 50 && sent < LENGTH {
        match stream.write(&piece[..piece.len().min(LENGTH - sent)]) {
            Ok(bytes) => (sent, refused) = (sent + bytes, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let received = server.handle().stats().received_bytes;
    assert!(received < 1 << 20, "{received} bytes were received ahead");
    assert!(sent < LENGTH, "the kernels hold {sent} bytes at most");
    GO.store(true, Ordering::Release);
    stream.set_nonblocking(false).expect("a mode");
    while sent < LENGTH {
        sent += stream.write(&piece[..piece.len().min(LENGTH - sent)]).expect("a piece");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with(&format!("\r\n\r\n{LENGTH}")), "{answer}");
    server.stop(Duration::from_secs(5)).expect("an end");
}
