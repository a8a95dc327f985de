//! A server on real sockets.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_http::{App, Request, Router, Server};

#[test]
fn a_server_answers_on_a_real_socket_and_reports_what_it_did() {
    let running = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(1)
        .app(|worker| {
            let index = worker.index();
            Router::new().get("/", move |_: &Request| format!("worker {index}"))
        })
        .start()
        .expect("a server");

    let mut stream = TcpStream::connect(running.addr()).expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nworker 0"), "{answer}");
    drop(stream);

    let report = running.stop(Duration::from_secs(5)).expect("a report");
    assert_eq!(report.stats.requests, 1);
}

#[test]
fn an_address_that_makes_no_sense_is_named_in_the_error() {
    let error = Server::bind("127.0.0.1:notaport").expect_err("not an address");
    assert!(error.to_string().contains("127.0.0.1:notaport"), "{error}");
}

#[test]
fn a_port_that_is_taken_is_an_error_and_not_a_second_listener() {
    let app = |addr: &str| Server::bind(addr).expect("an address").workers(1).app(|_| Router::new());
    let first = app("127.0.0.1:0").start().expect("a server");
    let error = app(&first.addr().to_string()).start().expect_err("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_factory_that_fails_on_one_worker_is_an_error_of_start_that_names_both() {
    for failing in 0..2 {
        let denied = move || Error::new(ErrorKind::PermissionDenied, "no database");
        let app = Server::bind("127.0.0.1:0").expect("an address").workers(2).app(move |worker| {
            if worker.index() == failing {
                return Err(denied());
            }
            Ok(Router::new().get("/", |_: &Request| "served"))
        });
        let error = app.start().expect_err("half a server");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.contains(&format!("worker {failing}")) && text.contains("no database"), "{text}");
    }
}

#[test]
fn a_factory_that_panics_on_one_worker_is_an_error_of_start() {
    for failing in 0..2 {
        let app = Server::bind("127.0.0.1:0").expect("an address").workers(2).app(move |worker| {
            assert!(worker.index() != failing, "no database");
            Router::new()
        });
        let error = app.start().expect_err("half a server").to_string();
        assert!(error.contains(&format!("worker {failing}")) && error.contains("no database"), "{error}");
    }
}

#[test]
fn a_factory_may_return_a_result_without_naming_its_error() {
    let client = App::new(|_| Ok(Router::new().get("/", |_: &Request| "served"))).test();
    assert_eq!(client.get("/").text(), "served");
}

#[test]
fn an_app_without_an_address_cannot_serve() {
    let error = App::new(|_| Router::new()).start().expect_err("nowhere to listen");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_last_answer_larger_than_the_socket_arrives_whole_on_a_real_one() {
    const BYTES: usize = 16 << 20;
    let running = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(1)
        .app(|_| Router::new().get("/", |_: &Request| "x".repeat(BYTES)))
        .start()
        .expect("a server");
    for _ in 0..3 {
        let mut stream = TcpStream::connect(running.addr()).expect("a connection");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer, then the end, and no reset");
        assert!(answer.len() > BYTES && answer.ends_with(b"xxx"), "{} bytes", answer.len());
    }
    let stats = running.stop(Duration::from_secs(5)).expect("a report").stats;
    assert_eq!((stats.closed, stats.failed), (3, 0));
    assert_eq!(stats.syscalls_shutdown, 3, "what did not leave at once is lingered behind");
}

#[test]
fn a_reserved_address_is_served_when_all_places_are_taken() {
    let running = Server::bind("127.0.0.1:0")
        .expect("an address")
        .bind_reserved("127.0.0.1:0")
        .expect("another")
        .workers(1)
        .runtime(|builder| {
            let limits = netpoll_core::ConnLimits::default().connections_max(3);
            builder.limits(limits)
        })
        .app(|_| Router::new().get("/healthz", |_: &Request| "ok"))
        .start()
        .expect("a server");
    // Heads on their way are not idle: nobody can be closed for a newcomer.
    let busy: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(running.addr()).expect("a connection");
            stream.write_all(b"GET /healthz HT").expect("written");
            stream
        })
        .collect();
    let ask = |addr: &netpoll_core::Address| {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        // It may be closed by now.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.ends_with(b"ok")
    };
    let reserved = running.reserved_addr().expect("it was asked for");
    assert!((0..10).all(|_| ask(&reserved)));
    assert!(!ask(&running.addr()), "no room");
    drop(busy);
}
