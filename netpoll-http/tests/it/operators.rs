//! What operators see of a server from its start to its end, whatever its workers do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use netpoll_core::{Address, Stage};
use netpoll_http::{App, Health, Metrics, Request, Router, Running, Server};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(600);
/// From here on a turn is stuck: more than a busy machine takes a CPU away for, mostly.
const STUCK: Duration = Duration::from_millis(300);

/// The status and the body of an answer, or why there is none.
fn ask(to: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    ask_over(stream, path)
}

fn ask_over(mut stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

fn socket(addr: Option<Address>) -> SocketAddr {
    addr.unwrap().as_socket_addr().unwrap()
}

fn until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "in vain");
        thread::yield_now();
    }
}

/// A server with health checks for operators that answers `hello`, and blocks for `/block` until it is let go.
fn serve(change: impl FnOnce(Server) -> Server) -> (Running, mpsc::Sender<()>) {
    let (let_go, release) = mpsc::channel();
    let release = Arc::new(Mutex::new(release));
    let server = Server::bind("127.0.0.1:0").unwrap().workers(2);
    let server = server.admin("127.0.0.1:0", |worker| Health::of(worker).router()).unwrap();
    let running = change(server)
        .app(move |_worker| {
            let release = Arc::clone(&release);
            let block = move |_: &Request| {
                release.lock().unwrap().recv().unwrap();
                "let go"
            };
            Router::new().get("/", |_: &Request| "hello").get("/block", block)
        })
        .start()
        .unwrap();
    (running, let_go)
}

#[test]
fn a_server_that_serves_is_alive_and_ready() {
    let (running, _let_go) = serve(|server| server);
    let admin = socket(running.admin_addr());
    assert_eq!(ask(admin, "/healthz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(ask(admin, "/readyz").unwrap(), (200, "ready\n".to_owned()));
    running.handle().readiness().set_ready(false);
    assert_eq!(ask(admin, "/readyz").unwrap(), (503, "not ready: the program says so\n".to_owned()));
    assert_eq!(ask(admin, "/healthz").unwrap().0, 200, "that is no reason to restart it");
    running.handle().readiness().set_ready(true);
    assert_eq!(ask(admin, "/readyz").unwrap().0, 200);
}

#[test]
fn health_can_be_asked_for_at_the_service_itself_and_in_a_test() {
    let client = App::new(|worker| Health::of(worker).router()).test();
    assert_eq!(client.get("/healthz").text(), "ok\n");
    let answer = client.get("/readyz");
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, Some("no-store")));
}

#[test]
fn while_factories_run_operators_hear_that_it_is_alive_and_not_ready() {
    let admin = std::env::temp_dir().join(format!("netpoll-operators-{}", std::process::id()));
    let (sender, begun) = mpsc::channel();
    let (go_on, may) = mpsc::channel();
    let may = Mutex::new(may);
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let server = server.admin(format!("unix:{}", admin.display()), |worker| {
        // The handle is the server's, and so are the workers that it counts.
        assert_eq!((worker.index(), worker.count(), worker.handle().workers()), (0, 1, 1));
        Health::of(worker).router()
    });
    let app = server.unwrap().app(move |_worker| {
        sender.send(()).unwrap();
        may.lock().unwrap().recv().unwrap();
        Router::new()
    });
    let starting = thread::spawn(move || app.start().unwrap());
    begun.recv_timeout(PATIENCE).unwrap();
    let ask = |path: &str| ask_over(UnixStream::connect(&admin)?, path);
    assert_eq!(ask("/readyz").unwrap(), (503, "not ready: starting\n".to_owned()));
    assert_eq!(ask("/healthz").unwrap().0, 200);
    go_on.send(()).unwrap();
    let _running = starting.join().unwrap();
    assert_eq!(ask("/readyz").unwrap().0, 200);
}

#[test]
fn a_server_that_is_stopped_is_not_ready_serves_on_and_tells_operators_until_it_has_drained() {
    let (running, let_go) = serve(|server| server.lame_duck(LONG));
    let (admin, addr) = (socket(running.admin_addr()), socket(Some(running.addr())));
    let handle = running.handle().clone();
    let stopped = thread::spawn(move || running.stop(PATIENCE).unwrap());
    until(|| handle.readiness().stage() == Stage::LameDuck);
    assert_eq!(ask(admin, "/readyz").unwrap(), (503, "not ready: about to drain\n".to_owned()));
    assert_eq!(ask(admin, "/healthz").unwrap().0, 200);
    for _ in 0..10 {
        assert_eq!(ask(addr, "/").unwrap(), (200, "hello".to_owned()));
    }
    // What is under way keeps the drain from ending.
    let blocked = thread::spawn(move || ask(addr, "/block"));
    until(|| (0..2).any(|worker| handle.turn_age(worker).is_some_and(|age| age > STUCK)));
    handle.drain(PATIENCE);
    for _ in 0..10 {
        assert_eq!(ask(admin, "/readyz").unwrap(), (503, "not ready: draining\n".to_owned()));
    }
    let_go.send(()).unwrap();
    assert_eq!(blocked.join().unwrap().unwrap(), (200, "let go".to_owned()));
    stopped.join().unwrap();
    assert!(ask(admin, "/readyz").is_err(), "all is over");
}

#[test]
fn a_worker_that_is_stuck_is_named_while_it_is() {
    let metrics = Metrics::new();
    let (shown, hook) = (metrics.clone(), metrics.hook());
    let (running, let_go) = serve(move |server| {
        let server = server.runtime(|builder| builder.stuck_turn(STUCK)).on_complete(hook);
        server
            .admin("127.0.0.1:0", move |worker| Health::of(worker).router().get("/metrics", shown.handler()))
            .unwrap()
    });
    let (admin, addr) = (socket(running.admin_addr()), socket(Some(running.addr())));
    let blocked = thread::spawn(move || ask(addr, "/block"));
    let handle = running.handle().clone();
    let of = |worker: usize| handle.turn_age(worker).is_some_and(|age| age >= STUCK * 2);
    until(|| of(0) || of(1));
    let worker = usize::from(of(1));
    // On whichever worker the clients of the service land.
    for _ in 0..10 {
        let (status, said) = ask(admin, "/healthz").unwrap();
        assert!(
            status == 503 && said.contains(&format!("worker {worker} has been in one turn for ")),
            "{said}"
        );
        assert_eq!(ask(admin, "/readyz").unwrap().0, 200);
    }
    let figures = ask(admin, "/metrics").unwrap().1;
    let name = format!("netpoll_worker_turn_age_seconds{{worker=\"{worker}\"}} ");
    let line = figures.lines().find_map(|line| line.strip_prefix(&name)).expect("the age of its turn");
    assert!(line.parse::<f64>().unwrap() >= STUCK.as_secs_f64(), "{line}");
    let_go.send(()).unwrap();
    assert_eq!(blocked.join().unwrap().unwrap().0, 200);
    until(|| ask(admin, "/healthz").unwrap() == (200, "ok\n".to_owned()));
}

#[test]
fn where_the_port_is_shared_with_the_next_process_operators_are_not_answered_in_a_drain() {
    let (running, let_go) = serve(|server| server.runtime(|builder| builder.share_port(true)));
    let (admin, addr) = (socket(running.admin_addr()), socket(Some(running.addr())));
    let handle = running.handle().clone();
    assert_eq!(ask(admin, "/readyz").unwrap().0, 200);
    let blocked = thread::spawn(move || ask(addr, "/block"));
    until(|| (0..2).any(|worker| handle.turn_age(worker).is_some_and(|age| age > STUCK)));
    handle.drain(PATIENCE);
    until(|| ask(admin, "/readyz").is_err());
    let_go.send(()).unwrap();
    blocked.join().unwrap().unwrap();
    running.wait().unwrap();
}

#[test]
fn a_service_for_operators_that_cannot_start_keeps_the_server_from_starting() {
    static SERVED: AtomicBool = AtomicBool::new(false);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let server = server.admin(taken.local_addr().unwrap(), |_worker| Router::new()).unwrap();
    let error = server
        .app(|_worker| {
            SERVED.store(true, Ordering::Relaxed);
            Router::new()
        })
        .start()
        .expect_err("the port is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let server =
        server.admin("127.0.0.1:0", |_worker| Err::<Router, _>(io::Error::other("no figures"))).unwrap();
    let error = server.app(|_worker| Router::new()).start().expect_err("its factory fails");
    assert!(error.to_string().contains("no figures"), "{error}");
    assert!(!SERVED.load(Ordering::Relaxed));
}
