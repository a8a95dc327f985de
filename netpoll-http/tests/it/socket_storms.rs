//! Storms on real sockets: requests pipelined and chopped, to handlers of every kind, by clients that stay, leave, break
//! off or talk nonsense. Each request that was whole gets its own answer, in order, and nothing behind a refusal or a last
//! word is answered.
//!
//! `NETPOLL_STORM_SEED` and `NETPOLL_STORM_ROUNDS` choose other storms than those of every run, as in netpoll-core. A seed
//! repeats a failure as far as threads and the kernel allow.

use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::{Budget, Conn, ConnLimits, Flow, Input, Protocol};
use netpoll_http::{
    Body, BodyBuf, Limits, Pull, Reply, Request, Response, Router, Running, Server, StatusCode,
};

use crate::chance::{Chance, Watchdog, seeds};

/// Nobody waits for so long unless something is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before that, so that it can say who waits.
const STUCK: Duration = Duration::from_secs(100);

const PATTERN_BYTES: usize = 1 << 16;

/// What long answers are the beginning of; without a short period.
static PATTERN: [u8; PATTERN_BYTES] = {
    let mut bytes = [0; PATTERN_BYTES];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
        at += 1;
    }
    bytes
};

/// Gives way so often, woken by itself or by another thread.
async fn give_way(mut times: usize, wakers: &mpsc::Sender<Waker>) {
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        if times.is_multiple_of(2) {
            context.waker().wake_by_ref();
        } else {
            wakers.send(context.waker().clone()).expect("wakes until everybody has gone");
        }
        Poll::Pending
    })
    .await;
}

/// Sends back what it gets.
struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

fn router(wakers: &mpsc::Sender<Waker>, file: &Arc<File>) -> Router {
    let to_wake = || wakers.clone();
    let (later, stream, posted) = (to_wake(), to_wake(), to_wake());
    let file = Arc::clone(file);
    let static_pattern = Bytes::from_static(&PATTERN);
    Router::new()
        .get("/text/{n}", |req: &Request| req.param::<String>("n"))
        .get("/large/{n}", |req: &Request| Ok(PATTERN[..req.param("n")?].to_vec()))
        .get("/shared/{n}", move |req: &Request| Ok(static_pattern.slice(..req.param::<usize>("n")?)))
        .get("/later/{n}", async move |req: Request| {
            let n: usize = req.param("n")?;
            give_way(n % 5, &later).await;
            Ok(PATTERN[..n].to_vec())
        })
        .get("/stream/{n}", move |req: &Request| {
            let (n, mut at): (usize, usize) = (req.param("n")?, 0);
            let wakers = stream.clone();
            let stream = move |context: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                let piece = (n - at).min(1 + n % 3000);
                out.extend(&PATTERN[at..at + piece]);
                at += piece;
                if at == n {
                    return Pull::Done;
                }
                match at % 7 {
                    0 => context.waker().wake_by_ref(),
                    1 => wakers.send(context.waker().clone()).expect("wakes until everybody has gone"),
                    _ => return Pull::More,
                }
                Pull::Wait
            };
            let body = if n % 2 == 0 { Body::stream(stream) } else { Body::sized_stream(n as u64, stream) };
            Ok(Response::text(body))
        })
        .get("/file", move |_: &Request| Response::text(Body::file(Arc::clone(&file)).expect("an open file")))
        .get("/upgrade", |req: &Request| Some(req.upgrade("echo")?.accept(Echo)))
        .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
        .post("/later", async move |req: Request| {
            give_way(req.body_bytes().len() % 4, &posted).await;
            req.body_bytes()
        })
}

/// What is due for one request.
#[derive(Debug)]
struct Due {
    status: u16,
    body: Vec<u8>,
    to_head: bool,
}

impl Due {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), to_head: false }
    }
}

/// How a client and its connection part.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// The client has everything, and closes.
    Leaves,
    /// The last request says so.
    LastWord,
    /// The client half-closes, perhaps within a request.
    HalfClose,
    /// The last request is none, and the client goes on talking.
    Refused,
    /// The last request changes the protocol.
    Upgrade,
    /// The client closes without having read anything.
    Gone,
    Reset,
}

struct Script {
    bytes: Vec<u8>,
    due: Vec<Due>,
    /// What has to come back behind the answers.
    echo: Vec<u8>,
    ending: Ending,
}

/// Head of a request, with whether the client closes behind it.
fn head(line: &str, is_last: bool, more: &str) -> Vec<u8> {
    let close = if is_last { "Connection: close\r\n" } else { "" };
    format!("{line} HTTP/1.1\r\nHost: a\r\n{close}{more}\r\n").into_bytes()
}

/// A random request, and what is due for it. Only handlers that answer at once if `at_once`.
fn request(chance: &mut Chance, at_once: bool, is_last: bool) -> (Vec<u8>, Due) {
    let bound = [3, 400, 6000, PATTERN_BYTES][chance.below(4)];
    let n = chance.below(bound);
    let get = |path: &str| head(&format!("GET /{path}/{n}"), is_last, "");
    let part = || Due::ok(&PATTERN[..n]);
    match chance.below(if at_once { 7 } else { 11 }) {
        0 => (get("text"), Due::ok(n.to_string())),
        1 => (get("large"), part()),
        2 => (get("shared"), part()),
        3 => (head("GET /file", is_last, ""), Due::ok(PATTERN)),
        4 => {
            let line = format!("HEAD /large/{n}");
            (head(&line, is_last, ""), Due { status: 200, body: Vec::new(), to_head: true })
        }
        5 => (post(chance, "/echo", n, is_last), part()),
        6 => {
            let body = b"Not Found\n".to_vec();
            (get("nowhere"), Due { status: 404, body, to_head: false })
        }
        7 => (get("later"), part()),
        8 | 9 => (get("stream"), part()),
        _ => (post(chance, "/later", n, is_last), part()),
    }
}

fn post(chance: &mut Chance, path: &str, n: usize, is_last: bool) -> Vec<u8> {
    let line = format!("POST {path}");
    let expects = if chance.below(4) == 0 { "Expect: 100-continue\r\n" } else { "" };
    if chance.below(2) == 0 {
        let mut bytes = head(&line, is_last, &format!("Content-Length: {n}\r\n{expects}"));
        bytes.extend(&PATTERN[..n]);
        return bytes;
    }
    let mut bytes = head(&line, is_last, &format!("Transfer-Encoding: chunked\r\n{expects}"));
    let mut at = 0;
    while at < n {
        let piece = 1 + chance.below((n - at).min(5000));
        bytes.extend(format!("{piece:x};a=b\r\n").as_bytes());
        bytes.extend(&PATTERN[at..at + piece]);
        bytes.extend(b"\r\n");
        at += piece;
    }
    bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
    bytes
}

impl Script {
    fn new(chance: &mut Chance) -> Self {
        let endings = [
            Ending::Leaves,
            Ending::LastWord,
            Ending::HalfClose,
            Ending::Refused,
            Ending::Upgrade,
            Ending::Gone,
            Ending::Reset,
        ];
        let ending = endings[chance.below(7)];
        let mut this = Self { bytes: Vec::new(), due: Vec::new(), echo: Vec::new(), ending };
        let requests = 1 + chance.below(12);
        for nth in 1..=requests {
            let is_last = ending == Ending::LastWord && nth == requests;
            let (bytes, due) = request(chance, ending == Ending::HalfClose, is_last);
            this.bytes.extend(bytes);
            this.due.push(due);
        }
        match ending {
            Ending::HalfClose if chance.below(2) == 0 => {
                // Never answered, because it never ends.
                let (bytes, _) = request(chance, true, false);
                this.bytes.extend(&bytes[..1 + chance.below(bytes.len() - 1)]);
            }
            Ending::Refused => {
                this.bytes.extend(b"GET /text/1 HTTP/1.1\r\nHost : a\r\n\r\n");
                this.due.push(Due { status: 400, body: Vec::new(), to_head: true });
                for _ in 0..chance.below(4) {
                    let (bytes, _) = request(chance, true, false);
                    this.bytes.extend(bytes);
                }
            }
            Ending::Upgrade => {
                this.bytes.extend(head("GET /upgrade", false, "Connection: upgrade\r\nUpgrade: echo\r\n"));
                this.due.push(Due { status: 101, body: Vec::new(), to_head: true });
                let noise = chance.below(PATTERN_BYTES);
                this.bytes.extend(&PATTERN[..noise]);
                this.echo.extend(&PATTERN[..noise]);
            }
            Ending::Gone | Ending::Reset => this.bytes.truncate(1 + chance.below(this.bytes.len())),
            _ => {}
        }
        this
    }
}

/// How far a client is, for the watchdog.
#[derive(Default)]
struct Place {
    what: Mutex<String>,
    sent: AtomicUsize,
    answers: AtomicUsize,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        write!(out, "{what}: sent {:?}, answers {:?}", self.sent, self.answers)
    }
}

/// Sends in pieces. Who is refused may find the connection closed before all is said.
fn send(mut stream: &TcpStream, mut chance: Chance, script: &Script, place: &Place) {
    let mut sent = 0;
    while sent < script.bytes.len() {
        let bound = [1, 10, 300, 5000, 100_000][chance.below(5)];
        let end = script.bytes.len().min(sent + 1 + chance.below(bound));
        if let Err(error) = stream.write_all(&script.bytes[sent..end]) {
            let may_fail = matches!(script.ending, Ending::Refused | Ending::Gone | Ending::Reset);
            assert!(may_fail, "{error} behind {sent} bytes");
            return;
        }
        sent = end;
        place.sent.store(sent, Relaxed);
        if chance.below(4) == 0 {
            std::thread::yield_now();
        }
    }
    if script.ending == Ending::HalfClose {
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Answers as they come.
struct Reader<'a> {
    stream: &'a TcpStream,
    chance: Chance,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// Reads more; false at the end.
    fn more(&mut self) -> bool {
        let mut block = [0; 8192];
        let bound = [20, 1000, 8192][self.chance.below(3)];
        let room = 1 + self.chance.below(bound);
        let bytes = self.stream.read(&mut block[..room]).expect("more, or an orderly end");
        self.bytes.extend(&block[..bytes]);
        bytes > 0
    }

    /// Takes what is there up to `end`.
    fn take(&mut self, len: usize) -> Vec<u8> {
        while self.bytes.len() < len {
            assert!(self.more(), "the end came within an answer, at {} of {len}", self.bytes.len());
        }
        self.bytes.drain(..len).collect()
    }

    /// A line without its end.
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|end| end == b"\r\n") {
                let line = self.take(end + 2);
                return String::from_utf8(line[..end].to_vec()).expect("heads are ASCII");
            }
            assert!(self.more(), "the end came within a head: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// One final answer: status and body.
    fn answer(&mut self, to_head: bool) -> (u16, Vec<u8>) {
        let line = self.line();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|line| line[..3].parse::<u16>().ok());
        let status = status.unwrap_or_else(|| panic!("not an answer: {line:?}"));
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = Some(value.parse::<usize>().expect("a length"));
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        if status == 100 {
            return self.answer(to_head);
        }
        if to_head && status != 400 || status == 101 {
            return (status, Vec::new());
        }
        if !chunked {
            let length = length.expect("a length or chunks");
            return (status, self.take(length));
        }
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).expect("a size");
            body.extend(self.take(size));
            assert_eq!(self.line(), "", "behind a chunk");
            if size == 0 {
                return (status, body);
            }
        }
    }
}

fn connect(chance: &mut Chance, addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if chance.below(3) == 0 {
        socket.set_recv_buffer_size(8192 + chance.below(32_768)).unwrap();
    }
    socket.connect(&addr.into()).unwrap();
    socket.set_tcp_nodelay(chance.below(2) == 0).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn session(seed: u64, number: usize, addr: SocketAddr, place: &Place) {
    let mut chance = Chance::new(seed.wrapping_mul(7919) ^ (number as u64) << 32);
    let script = Script::new(&mut chance);
    let (ending, size, due) = (script.ending, script.bytes.len(), script.due.len());
    *place.what.lock().unwrap() = format!("client {number}, {ending:?}, sends {size}, {due} answers");
    let stream = connect(&mut chance, addr);
    let (sending, reading) = (chance.fork(), chance.fork());
    if matches!(ending, Ending::Gone | Ending::Reset) {
        send(&stream, sending, &script, place);
        if ending == Ending::Reset {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        return;
    }
    std::thread::scope(|scope| {
        let (script, stream) = (&script, &stream);
        scope.spawn(move || send(stream, sending, script, place));
        let mut reader = Reader { stream, chance: reading, bytes: Vec::new() };
        for (nth, due) in script.due.iter().enumerate() {
            let (status, body) = reader.answer(due.to_head);
            assert_eq!(status, due.status, "answer {nth} of {place}");
            assert!(due.to_head || body == due.body, "body of answer {nth} of {place}");
            place.answers.store(nth + 1, Relaxed);
        }
        assert!(reader.take(script.echo.len()) == script.echo, "the protocol behind HTTP");
        match ending {
            Ending::Upgrade => stream.shutdown(Shutdown::Write).unwrap(),
            Ending::Leaves => return,
            _ => {}
        }
        while reader.more() {}
        assert!(reader.bytes.is_empty(), "more than was due: {:?}", String::from_utf8_lossy(&reader.bytes));
    });
}

fn start(seed: u64, wakers: &mpsc::Sender<Waker>, file: &Arc<File>) -> Running {
    let mut chance = Chance::new(seed);
    // Slow machines are no fault here.
    let mut limits = Limits::default();
    limits.head_timeout = PATIENCE;
    limits.idle_timeout = PATIENCE;
    limits.body_grace = PATIENCE;
    limits.handler_timeout = PATIENCE;
    limits.requests_per_turn = [None, Some(1), Some(3)][chance.below(3)];
    let conn_limits = ConnLimits::default()
        .write_high_bytes([2 << 10, 8 << 10, 256 << 10][chance.below(3)])
        .write_low_bytes(1 << 10)
        .write_grace(PATIENCE)
        .linger_silence_max(PATIENCE)
        .linger_time_max(PATIENCE)
        .linger_bytes_max(16 << 20);
    let budget = match chance.below(3) {
        0 => Budget::fixed(2).read_bytes(1500),
        1 => Budget::adaptive(),
        _ => Budget::default(),
    };
    let (wakers, file) = (Mutex::new(wakers.clone()), Arc::clone(file));
    Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(3)
        .limits(limits)
        .runtime(|builder| builder.limits(conn_limits).budget(budget))
        .app(move |_| router(&wakers.lock().unwrap().clone(), &file))
        .start()
        .unwrap()
}

/// Clients at a time, and how many each of them plays one after the other.
const CLIENTS: usize = 8;
const SESSIONS: usize = 8;

fn storm(seed: u64, file: &Arc<File>) {
    let (wakers, to_wake) = mpsc::channel::<Waker>();
    let running = start(seed, &wakers, file);
    drop(wakers);
    let waking = std::thread::spawn(move || to_wake.iter().for_each(Waker::wake));
    let places: Arc<Vec<Place>> = Arc::new((0..CLIENTS).map(|_| Place::default()).collect());
    let watchdog = Watchdog::new(STUCK, {
        let (places, handle) = (Arc::clone(&places), running.handle().clone());
        move || {
            let mut text = format!("seed {seed}: {:?}\n", handle.stats());
            places.iter().for_each(|place| text += &format!("{place}\n"));
            text
        }
    });
    let addr = running.addr().as_socket_addr().expect("a port");
    std::thread::scope(|scope| {
        for (client, place) in places.iter().enumerate() {
            scope.spawn(move || {
                for nth in 0..SESSIONS {
                    session(seed, nth * CLIENTS + client, addr, place);
                }
                *place.what.lock().unwrap() = format!("client {client} has played all");
            });
        }
    });
    // Everybody has gone, and the server finds out by itself.
    while running.handle().stats().open() > 0 {
        std::thread::yield_now();
    }
    let report = running.stop(PATIENCE).unwrap();
    let stats = report.stats;
    assert_eq!((report.cut, stats.open(), stats.panics, stats.stalled), (0, 0, 0, 0), "{stats:?}");
    // The waking thread ends with the last handler.
    waking.join().unwrap();
    assert_eq!(Arc::strong_count(file), 1, "a file was kept open");
    drop(watchdog);
}

#[test]
fn every_whole_request_gets_its_own_answer_in_any_storm_on_real_sockets() {
    let path = std::env::temp_dir().join(format!("netpoll-http-storm-{}", std::process::id()));
    std::fs::write(&path, PATTERN).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    std::fs::remove_file(path).unwrap();
    for seed in seeds(6) {
        storm(seed, &file);
    }
}
