//! On sockets, and by clients that others have written: hyper, rustls, and curl and h2load where they are installed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use netpoll_core::bridge::HyperExecutor;
use netpoll_core::net::Stream;
use netpoll_core::task::spawn_local;
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::ServerName;
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use netpoll_core::tls::{Identity, TlsServer, roots_from_pem_file};
use netpoll_core::{Bytes, Runtime};
use netpoll_http::{
    Body, BodyReader, Error, Handler, Http2, Request, Response, RouteLimits, Router, Running, Server,
    StatusCode,
};

use crate::peer::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../netpoll-core/tests/tls/pems").join(name)
}

fn tls() -> TlsServer {
    let identity = Identity::from_pem_files(pem("server.pem"), pem("server-key.pem")).unwrap();
    TlsServer::builder(identity).build().unwrap()
}

fn served(change: impl FnOnce(Server) -> Server) -> (Running, SocketAddr) {
    let server = Server::bind("127.0.0.1:0").unwrap().workers(2).http2(Http2::default());
    let running = change(server)
        .app(|_worker| {
            let echo = async |_: Request<'static>, body: BodyReader| {
                Ok::<_, Error>(Response::new(StatusCode::OK).body(Body::from(body)))
            };
            Router::new()
                .get("/", |req: &Request| {
                    let tls = req.tls().and_then(|tls| tls.alpn()).map(String::from_utf8_lossy);
                    format!("{:?} {tls:?}", req.version())
                })
                .get("/large", |_: &Request| "0123456789abcdef".repeat(60_000))
                .get("/later", async |_: Request<'static>| {
                    netpoll_core::time::sleep(Duration::from_millis(300)).await;
                    "later"
                })
                .post("/echo", echo.limits(RouteLimits::default().unlimited_body()))
        })
        .start()
        .unwrap();
    let addr = running.addr().as_socket_addr().unwrap();
    (running, addr)
}

fn ask(method: &str, path: &str, body: &'static [u8]) -> hyper::Request<Full<Bytes>> {
    let request = hyper::Request::builder().method(method).uri(format!("http://a{path}"));
    request.body(Full::new(Bytes::from_static(body))).unwrap()
}

#[test]
fn the_client_of_hyper_is_answered_with_fields_and_bodies() {
    let (running, addr) = served(|server| server);
    Runtime::block_on(async move {
        let stream = Stream::connect(addr).await.unwrap();
        let (mut requests, connection) = http2::handshake(HyperExecutor, stream).await.unwrap();
        let connection = spawn_local(connection);
        let answer = requests.send_request(ask("GET", "/", b"")).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, hyper::Version::HTTP_2));
        let fields: Vec<&str> = answer.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(fields, ["server", "content-type", "date", "content-length"]);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 None");
        // Many at a time, each larger than every window on its way.
        let all: Vec<_> = (0..20)
            .map(|n| {
                let mut requests = requests.clone();
                spawn_local(async move {
                    let large = n % 2 == 0;
                    let request = if large {
                        ask("GET", "/large", b"")
                    } else {
                        ask("POST", "/echo", Box::leak(vec![n; 700_000].into_boxed_slice()))
                    };
                    let answer = requests.send_request(request).await.unwrap();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    let whole = if large { 960_000 } else { 700_000 };
                    assert!(body.len() == whole && (large || body.iter().all(|&byte| byte == n)), "{n}");
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        // HEAD says how long it would be.
        let answer = requests.send_request(ask("HEAD", "/large", b"")).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "960000");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        drop(requests);
        connection.await.unwrap().unwrap();
    })
    .unwrap();
    let report = running.stop(PATIENCE).unwrap();
    assert_eq!((report.stats.requests, report.stats.panics), (22, 0));
}

#[test]
fn a_drain_on_sockets_answers_what_is_under_way() {
    let (running, addr) = served(|server| server);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        Runtime::block_on(async move {
            let stream = Stream::connect(addr).await.unwrap();
            let (mut requests, connection) = http2::handshake(HyperExecutor, stream).await.unwrap();
            let connection = spawn_local(connection);
            let later = spawn_local(requests.send_request(ask("GET", "/later", b"")));
            // Its answer says that the one in front of it is under way.
            let second = requests.send_request(ask("GET", "/", b"")).await.unwrap();
            assert_eq!(second.status(), StatusCode::OK);
            begun.send(()).unwrap();
            let later = later.await.unwrap().unwrap();
            let answer = later.into_body().collect().await.unwrap().to_bytes();
            (answer, connection.await.unwrap().is_ok())
        })
        .unwrap()
    });
    has_begun.recv().unwrap();
    let report = running.stop(PATIENCE).unwrap();
    let (answer, is_clean) = client.join().unwrap();
    assert_eq!((&answer[..], is_clean), (&b"later"[..], true));
    assert_eq!(report.stats.panics, 0);
}

/// A TLS connection that has agreed on one of these.
fn connect(to: SocketAddr, offered: &[&str]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots_from_pem_file(pem("ca.pem")).unwrap())
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// Frames until one of this kind, on the stream if it has one.
fn until(stream: &mut impl Read, kind: u8) -> Frame {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        if head[3] == kind {
            return Frame { kind, flags: head[4], stream, payload };
        }
    }
}

#[test]
fn behind_tls_it_is_spoken_with_whom_it_was_agreed_on() {
    let (running, addr) = served(|server| server.tls(tls()));
    let mut stream = connect(addr, &["http/1.1", "h2"]);
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&with(&[(":scheme", "https")])));
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get].concat()).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(until(&mut stream, DATA).payload, b"HTTP/2.0 Some(\"h2\")");
    // It is the server that speaks first, if its client waits.
    let mut stream = connect(addr, &["h2"]);
    stream.flush().unwrap();
    assert_eq!(until(&mut stream, SETTINGS).flags, 0);
    // Who wants the other one has it, and may not change his mind.
    let mut stream = connect(addr, &["http/1.1"]);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.ends_with("HTTP/1.1 Some(\"http/1.1\")"), "{answer}");
    let mut stream = connect(addr, &["http/1.1"]);
    stream.write_all(PREFACE).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 505");
    // And who has agreed on it does not speak the other one.
    let mut stream = connect(addr, &["h2"]);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.windows(8).any(|bytes| bytes == b"HTTP/1.1"), "{answer:?}");
    assert_eq!(running.stop(PATIENCE).unwrap().stats.panics, 0);
}

/// What a program says, if it is installed.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let careful: &[&str] = if program == "curl" { &["--noproxy", "*", "--max-time", "60"] } else { &[] };
    match Command::new(program).args(careful).args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program}: {}{text}", String::from_utf8_lossy(&output.stderr));
            Some(text)
        }
        Err(_) => {
            println!("skipped: there is no {program}");
            None
        }
    }
}

#[test]
fn curl_is_answered_with_and_without_tls() {
    let (running, addr) = served(|server| server);
    let url = format!("http://{addr}/");
    if let Some(said) = says("curl", &["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", &url]) {
        assert_eq!(said, "HTTP/2.0 None 2");
        let echo = ["-sS", "--http2-prior-knowledge", "-H", "Expect:", "-d", "hello", &format!("{url}echo")];
        assert_eq!(says("curl", &echo).as_deref(), Some("hello"));
        // Asked to upgrade, it is not: HTTP/1.1 is what is spoken on.
        let upgrade = ["-sS", "--http2", "-w", " %{http_version}", &url];
        assert_eq!(says("curl", &upgrade).as_deref(), Some("HTTP/1.1 None 1.1"));
    }
    running.stop(PATIENCE).unwrap();
    let (running, addr) = served(|server| server.tls(tls()));
    let url = format!("https://{addr}/");
    if let Some(said) = says("curl", &["-sS", "-k", "-w", " %{http_version}", &url]) {
        assert_eq!(said, "HTTP/2.0 Some(\"h2\") 2");
    }
    running.stop(PATIENCE).unwrap();
}

#[test]
fn a_load_of_h2load_is_answered_whole() {
    let (running, addr) = served(|server| server);
    for (path, requests) in [("", "5000"), ("large", "200"), ("later", "200")] {
        let url = format!("http://{addr}/{path}");
        let Some(said) = says("h2load", &["-n", requests, "-c", "10", "-m", "50", "-T", "60", &url]) else {
            break;
        };
        let expected = format!("{requests} succeeded, 0 failed, 0 errored");
        assert!(said.contains(&expected), "{said}");
    }
    assert_eq!(running.stop(PATIENCE).unwrap().stats.panics, 0);
}
