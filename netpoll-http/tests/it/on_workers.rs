//! State and timers of workers, as handlers and hooks see them.

use std::cell::{Cell, RefCell};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_http::{App, Parts, Request, Response, Router, Server, Worker};

/// Names of those who have called.
#[derive(Default)]
struct Callers(RefCell<Vec<String>>);

/// Counts the answers of a worker.
#[derive(Default)]
struct Answers(Cell<usize>);

/// Handlers of both kinds and both hooks, each with the state of its worker.
fn service(worker: &Worker) -> Router {
    let (callers, listed, waited) =
        (worker.state::<Callers>(), worker.state::<Callers>(), worker.state::<Callers>());
    let (counted, shown) = (worker.state::<Answers>(), worker.state::<Answers>());
    Router::new()
        .before(move |req: &Request| callers.0.borrow_mut().push(req.path().trim_matches('/').to_owned()))
        .get("/list", move |_: &Request| listed.0.borrow().join(","))
        .get("/waited", async move |_: Request| waited.0.borrow().join("+"))
        .get("/answers", move |_: &Request| shown.0.get().to_string())
        .get("/last", |_: &Request| Response::text("bye"))
        .after(move |_: &Request, _: &mut Parts| counted.0.set(counted.0.get() + 1))
}

#[test]
fn handlers_and_hooks_share_the_state_of_their_worker_in_a_test() {
    let client = App::new(service).state(|_| Callers::default()).state(|_| Answers::default()).test();
    assert_eq!(client.get("/list").text(), "list");
    assert_eq!(client.get("/waited").text(), "list+waited");
    assert_eq!(client.get("/answers").text(), "2");
}

#[test]
fn each_worker_of_a_server_has_its_own_state() {
    let running = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(2)
        .state(|worker| Callers(RefCell::new(vec![format!("worker{}", worker.index())])))
        .try_state(|_| Ok(Answers::default()))
        .app(service)
        .start()
        .expect("a server");
    let mut called = [0, 0];
    for _ in 0..20 {
        let mut stream = TcpStream::connect(running.addr()).expect("a connection");
        stream.write_all(b"GET /list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, then the end");
        let (_, list) = answer.split_once("\r\n\r\n").expect("a body");
        let (name, callers) = list.split_once(',').expect("a caller");
        let worker = usize::from(name == "worker1");
        called[worker] += 1;
        assert_eq!(callers, vec!["list"; called[worker]].join(","));
    }
    assert_eq!(running.stop(Duration::from_secs(5)).expect("a report").stats.panics, 0);
}

#[test]
fn a_timer_changes_what_handlers_answer() {
    let client = App::new(service)
        .state(|_| Callers::default())
        .state(|_| Answers::default())
        .every(Duration::from_secs(10), |worker| {
            let callers = worker.state::<Callers>();
            move |local| callers.0.borrow_mut().push(format!("{}s", local.now().as_millis() / 1000))
        })
        .test_with(Options::default().workers(2));
    client.advance(Duration::from_secs(35));
    assert_eq!(client.get("/list").text(), "10s,20s,30s,list");
}

#[test]
fn a_state_that_cannot_be_made_ends_the_start_of_a_server() {
    let app = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(2)
        .try_state(|worker| match worker.index() {
            0 => Ok(Callers::default()),
            _ => Err(Error::new(ErrorKind::NotFound, "no callers")),
        })
        .app(|_| Router::new());
    let error = app.start().expect_err("half a server");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "worker 1 did not start: no callers");
}
