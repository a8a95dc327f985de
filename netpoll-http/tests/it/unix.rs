//! HTTP over Unix sockets, and over sockets that somebody else has opened.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use netpoll_core::Address;
use netpoll_http::{App, RateLimit, Request, Router, Server};

const PATIENCE: Duration = Duration::from_secs(20);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("netpoll-http-{}-{name}.sock", std::process::id()))
}

fn router() -> Router {
    Router::new().get("/", |req: &Request| format!("hello {}", req.peer()))
}

/// Asks once and returns the whole answer.
fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_answers_at_a_path() {
    let path = path("answers");
    for at in [format!("unix:{}", path.display()).into(), netpoll_core::Target::from(&*path)] {
        let running = Server::bind(at).unwrap().workers(2).app(|_worker| router()).start().unwrap();
        assert_eq!(running.addr(), Address::unix(&path).unwrap());
        for _ in 0..4 {
            let answer = ask(UnixStream::connect(&path).unwrap());
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello unix:"), "{answer}");
        }
        let report = running.stop(PATIENCE).unwrap();
        assert_eq!((report.stats.requests, report.cut, path.exists()), (4, 0, false));
    }
}

#[test]
fn a_health_check_may_have_a_path_of_its_own() {
    let path = path("health");
    let server = Server::bind("127.0.0.1:0").unwrap().bind_reserved(&*path).unwrap().workers(1);
    let running = server.app(|_worker| router()).start().unwrap();
    assert_eq!(running.reserved_addr().unwrap().as_path(), Some(&*path));
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200"));
    assert!(ask(TcpStream::connect(running.addr()).unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_server_serves_on_a_socket_that_it_is_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let running = Server::on(listener).workers(2).app(|_worker| router()).start().unwrap();
    assert_eq!(running.addr(), addr);
    let stream = TcpStream::connect(addr).unwrap();
    let own = stream.local_addr().unwrap();
    assert!(ask(stream).ends_with(&format!("hello {own}")));
}

#[test]
fn what_is_no_listener_is_an_error_of_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let error = Server::on(stream).app(|_worker| router()).start().expect_err("it does not listen");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_rate_limit_by_address_does_not_concern_neighbours_on_a_unix_socket() {
    let limit = RateLimit::per_address(1, 1);
    let client = App::new(move |_worker| {
        let limit = limit.clone();
        router().before(move |req: &Request| limit.check(req))
    })
    .test();
    let statuses = |from: &str| {
        let mut connection = client.connect_from(from.parse::<Address>().unwrap());
        [0; 3].map(|_| {
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            connection.response().unwrap().status.as_u16()
        })
    };
    assert_eq!(statuses("10.0.0.1:7"), [200, 429, 429]);
    assert_eq!(statuses("unix:@proxy"), [200, 200, 200]);
}

#[test]
fn a_request_says_where_it_comes_from_whether_the_driver_did_or_not() {
    let faults = netpoll_core::sim::Faults::none().unsaid_addresses(1000);
    let client = App::new(|_worker| router()).test_with(netpoll_core::sim::Options::default().faults(faults));
    let mut connection = client.connect_from("10.0.0.1:7".parse::<Address>().unwrap());
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().unwrap().text(), "hello 10.0.0.1:7");
}
