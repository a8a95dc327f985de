//! A server takes over from the one before it, with the connections that are idle. Both are servers of this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use netpoll_core::{Conn, Flow, Handover, Input, Protocol, Stage};
use netpoll_http::{Completed, Health, Outcome, Report, Request, Router, Running, Server};

const PATIENCE: Duration = Duration::from_secs(60);

/// An empty directory, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("netpoll-http-handover-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("handover.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(addr: &str, path: &Path) -> Server {
    let path = path.to_owned();
    Server::bind(addr).unwrap().runtime(|builder| builder.pin(false).handover(Handover::at(path)))
}

/// Says which one it is, and who asks.
fn routes(name: &'static str) -> Router {
    Router::new().get("/", move |req: &Request| format!("{name} {}", req.peer()))
}

fn serve(name: &'static str, workers: usize, path: &Path) -> Running {
    server("127.0.0.1:0", path).workers(workers).app(move |_worker| routes(name)).start().unwrap()
}

fn addr(of: &Running) -> SocketAddr {
    of.addr().as_socket_addr().unwrap()
}

fn connected(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut impl Write) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
}

/// The body of the next answer, and whether it was the last one.
fn answer(stream: &mut impl Read) -> (String, bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (String::from_utf8(body).unwrap(), head.contains("Connection: close"))
}

fn asked(stream: &mut (impl Read + Write)) -> (String, bool) {
    ask(stream);
    answer(stream)
}

fn ending(running: Running) -> JoinHandle<Report> {
    std::thread::spawn(move || running.wait().unwrap())
}

/// Whether connections move on the driver that is tried here.
fn moves(running: &Running) -> bool {
    let moves = running.handle().setup().backend != "uring";
    if !moves {
        println!("skipped: io_uring receives ahead, so its connections are drained");
    }
    moves
}

#[test]
fn idle_connections_go_on_with_the_one_that_follows_and_notice_nothing() {
    for (before, after) in [(1, 1), (2, 1), (1, 3)] {
        let folder = Folder::new();
        let old = serve("old", before, &folder.path());
        if !moves(&old) {
            return;
        }
        let at = addr(&old);
        let mut clients: Vec<_> = (0..100).map(|_| connected(at)).collect();
        // Half of them have not asked yet: they are as good.
        for client in clients.iter_mut().skip(50) {
            assert!(asked(client).0.starts_with("old 127.0.0.1:"));
        }
        // All are accepted by now, for who comes behind them is served.
        while old.handle().stats().accepted < 100 {
            std::thread::yield_now();
        }
        let old = ending(old);
        let new = serve("new", after, &folder.path());
        let report = old.join().unwrap();
        assert_eq!((report.moved, report.open, report.cut), (100, 0, 0), "{report}");
        assert!(report.to_string().ends_with("; its listeners were handed over, and 100 connections"));
        for client in &mut clients {
            let own = client.local_addr().unwrap();
            for _ in 0..2 {
                assert_eq!(asked(client), (format!("new {own}"), false));
            }
        }
        drop(new);
    }
}

#[test]
fn a_client_behind_a_proxy_is_still_known_and_so_is_one_of_a_unix_socket_served() {
    let folder = Folder::new();
    let start = |name| {
        let server = server("127.0.0.1:0", &folder.path()).workers(1).proxy_protocol(true);
        server.app(move |_worker| routes(name)).start().unwrap()
    };
    let old = start("old");
    if !moves(&old) {
        return;
    }
    let mut client = connected(addr(&old));
    client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n").unwrap();
    assert_eq!(asked(&mut client).0, "old 192.0.2.7:4711");
    // The header of this one has not come: it is not idle, and nobody waits for long.
    let mut silent = connected(addr(&old));
    let old = ending(old);
    let _new = start("new");
    assert_eq!(old.join().unwrap().moved, 1);
    assert_eq!(asked(&mut client), ("new 192.0.2.7:4711".to_owned(), false));
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);

    let folder = Folder::new();
    let at = folder.0.join("served.sock");
    let target = format!("unix:{}", at.display());
    let start =
        |name| server(&target, &folder.path()).workers(2).app(move |_worker| routes(name)).start().unwrap();
    let old = start("old");
    let mut client = UnixStream::connect(&at).unwrap();
    assert!(asked(&mut client).0.starts_with("old unix:"));
    let old = ending(old);
    let _new = start("new");
    assert_eq!(old.join().unwrap().moved, 1);
    assert!(asked(&mut client).0.starts_with("new unix:"));
}

#[test]
fn what_is_under_way_is_answered_by_the_one_that_goes_and_what_lies_in_the_socket_by_the_one_that_follows() {
    let folder = Folder::new();
    let barrier = Arc::new(Barrier::new(2));
    let held = Arc::clone(&barrier);
    let (told, ended) = mpsc::channel();
    let old = server("127.0.0.1:0", &folder.path())
        .workers(1)
        .on_complete(move |_worker| {
            let told = told.clone();
            move |done: &Completed| told.send((done.request.path().to_owned(), done.outcome)).unwrap()
        })
        .app(move |_worker| {
            let held = Arc::clone(&held);
            routes("old").get("/held", move |_: &Request| {
                held.wait();
                held.wait();
                "old and held"
            })
        })
        .start()
        .unwrap();
    let (at, moves) = (addr(&old), moves(&old));
    let (mut idle, mut held, mut half) = (connected(at), connected(at), connected(at));
    assert!(asked(&mut idle).0.starts_with("old "));
    assert!(asked(&mut half).0.starts_with("old "));
    half.write_all(b"GET / HTT").unwrap();
    held.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    barrier.wait();
    // The worker has heard of that half of a head or will, and of this one it has not.
    ask(&mut idle);
    let (handle, old) = (old.handle().clone(), ending(old));
    let _new = serve("new", 1, &folder.path());
    while handle.readiness().stage() < Stage::Draining {
        std::thread::yield_now();
    }
    barrier.wait();
    // When it was answered its worker had not heard that it is over.
    assert_eq!(answer(&mut held), ("old and held".to_owned(), false));
    let own = |stream: &TcpStream| stream.local_addr().unwrap();
    if moves {
        // The order to drain reaches the worker before it looks at its sockets again, or just behind that.
        let (said, closes) = answer(&mut idle);
        assert!(!closes && [format!("new {}", own(&idle)), format!("old {}", own(&idle))].contains(&said));
        let (said, closes) = asked(&mut held);
        assert!(said == format!("new {}", own(&held)) && !closes || said == format!("old {}", own(&held)));
    }
    half.write_all(b"P/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (said, closes) = answer(&mut half);
    // Whether it was read by then is the kernel's.
    assert!(
        said == format!("old {}", own(&half)) && closes || said == format!("new {}", own(&half)) && !closes
    );
    drop((half, held));
    let report = old.join().unwrap();
    assert_eq!(report.cut, 0);
    assert!(ended.iter().all(|(_, outcome)| outcome == Outcome::Answered));
}

#[test]
fn a_connection_goes_on_from_one_process_to_the_next_as_long_as_it_is_idle() {
    let folder = Folder::new();
    let mut current = serve("0", 2, &folder.path());
    if !moves(&current) {
        return;
    }
    let at = addr(&current);
    let mut clients: Vec<_> = (0..10).map(|_| connected(at)).collect();
    for name in ["1", "2", "3", "4"] {
        for client in &mut clients {
            assert!(!asked(client).1);
        }
        let old = ending(current);
        current = serve(name, 1 + name.len(), &folder.path());
        assert_eq!(old.join().unwrap().moved, 10);
        for client in &mut clients {
            let own = client.local_addr().unwrap();
            assert_eq!(asked(client), (format!("{name} {own}"), false));
        }
    }
}

/// Sends back what comes.
struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_connection_that_another_protocol_has_stays_with_it() {
    let folder = Folder::new();
    let start = |name: &'static str| {
        let app = server("127.0.0.1:0", &folder.path()).workers(1).app(move |_worker| {
            routes(name).get("/echo", |req: &Request| Some(req.upgrade("echo")?.accept(Echo)))
        });
        app.start().unwrap()
    };
    let old = start("old");
    let mut stream = connected(addr(&old));
    stream
        .write_all(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let (handle, old) = (old.handle().clone(), ending(old));
    let _new = start("new");
    while !handle.is_draining() {
        std::thread::yield_now();
    }
    stream.write_all(b"still here").unwrap();
    let mut echoed = [0; 10];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"still here");
    drop(stream);
    assert_eq!(old.join().unwrap().moved, 0);
}

#[test]
fn who_asks_one_that_was_followed_whether_it_is_ready_hears_that_the_service_is() {
    let folder = Folder::new();
    let start = || {
        let server = server("127.0.0.1:0", &folder.path()).workers(1);
        server.app(|worker| Health::of(worker).router()).start().unwrap()
    };
    let old = start();
    let mut stream = connected(addr(&old));
    // It is under way, so this one answers it.
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").unwrap();
    while old.handle().stats().received_bytes == 0 {
        std::thread::yield_now();
    }
    let (handle, old) = (old.handle().clone(), ending(old));
    let _new = start();
    while !handle.is_draining() {
        std::thread::yield_now();
    }
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(answer(&mut stream), ("ready\n".to_owned(), true));
    drop(stream);
    old.join().unwrap();
}

#[test]
fn who_asks_one_that_was_followed_and_is_stuck_whether_it_is_alive_hears_that_the_service_is() {
    let folder = Folder::new();
    let (barrier, path) = (Arc::new(Barrier::new(2)), folder.path());
    let start = || {
        let (held, path) = (Arc::clone(&barrier), path.clone());
        let server = Server::bind("127.0.0.1:0").unwrap().workers(1).runtime(move |builder| {
            let builder = builder.pin(false).handover(Handover::at(path));
            builder.stuck_turn(Duration::from_millis(1))
        });
        let server = server.admin("127.0.0.1:0", |worker| Health::of(worker).router()).unwrap();
        let app = server.app(move |_worker| {
            let held = Arc::clone(&held);
            Router::new().get("/held", move |_: &Request| {
                held.wait();
                held.wait();
                "it was held"
            })
        });
        app.start().unwrap()
    };
    let old = start();
    let mut stuck = connected(addr(&old));
    stuck.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    barrier.wait();
    while old.handle().stuck().is_empty() {
        std::thread::yield_now();
    }
    let ask = |stream: &mut TcpStream| stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut operator = connected(old.admin_addr().unwrap().as_socket_addr().unwrap());
    ask(&mut operator);
    operator.write_all(b"\r\n").unwrap();
    assert!(answer(&mut operator).0.starts_with("worker 0 has been in one turn for "));
    // It is under way, so this one answers it.
    ask(&mut operator);
    let _new = start();
    while !old.handle().is_handed_over() {
        std::thread::yield_now();
    }
    operator.write_all(b"\r\n").unwrap();
    let (said, _) = answer(&mut operator);
    barrier.wait();
    assert_eq!((said, answer(&mut stuck).0), ("ok\n".to_owned(), "it was held".to_owned()));
    drop((stuck, operator));
    old.wait().unwrap();
}

/// Asks over and over, and connects again when it was told to; how often it was answered.
fn asks_until(to: SocketAddr, stops: &AtomicBool) -> usize {
    let mut stream = connected(to);
    let mut answers = 0;
    while !stops.load(Ordering::Relaxed) {
        let own = stream.local_addr().unwrap();
        let (said, closes) = asked(&mut stream);
        assert!(said.ends_with(&format!(" {own}")), "{said} is for another one than {own}");
        answers += 1;
        if closes {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "an answer too many");
            stream = connected(to);
        }
    }
    answers
}

#[test]
fn whoever_asks_all_the_time_is_answered_once_for_each_request_whoever_serves() {
    let folder = Folder::new();
    let mut current = serve("0", 2, &folder.path());
    let (at, stops) = (addr(&current), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| asks_until(at, &stops))).collect();
        for workers in [1, 3, 2, 1, 2, 3] {
            let before = current.handle().stats().requests;
            while current.handle().stats().requests < before + 200 {
                std::thread::yield_now();
            }
            let old = ending(current);
            current = serve("next", workers, &folder.path());
            let report = old.join().unwrap();
            assert_eq!(report.cut, 0, "{report}");
        }
        stops.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| assert!(client.join().unwrap() > 0));
    });
}
