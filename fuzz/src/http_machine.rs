//! The whole HTTP connection on the simulated network: what clients send in which pieces, when time passes, who half-closes,
//! resets, stops reading, which handlers answer when, and a drain.
//!
//! Three bytes set the world up; then each step is three bytes: what to do, to which of three clients, and how much. A
//! client that sent requests of the menu only is *tidy*: each of them gets the answer that is due. One whose bytes were
//! mutated may be answered with refusals, but whatever a handler was called for is answered once, in order, with what the
//! handler said, and nothing follows an answer that ends the connection. Whoever leaves, in whichever way, leaves nothing
//! behind when time has passed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::{Budget, Conn, Flow, Input, Protocol};
use netpoll_http::internals::wire::Decoder;
use netpoll_http::{
    App, Body, BodyBuf, Limits, Pull, Reply, Request, Response, Router, TestClient, TestConnection,
};

const CLIENTS: usize = 3;
const STEPS_MAX: usize = 150;

/// What long answers begin with.
static PATTERN: [u8; 1 << 15] = {
    let mut bytes = [0; 1 << 15];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = b'a' + (at % 23) as u8;
        at += 1;
    }
    bytes
};

/// What a handler was called for, and what it says.
#[derive(Debug)]
struct Call {
    body: Vec<u8>,
    head_only: bool,
}

/// What the handlers of one run know. They live on this thread.
#[derive(Default)]
struct Site {
    /// By the client's port.
    calls: RefCell<BTreeMap<u16, Vec<Call>>>,
    /// What protocols behind HTTP have sent back.
    echoed: RefCell<BTreeMap<u16, Vec<u8>>>,
    /// Gates that were passed or are waited at, and how many are open.
    gates: Cell<u64>,
    open: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

thread_local!(static SITE: Site = Site::default());

impl Site {
    fn begin(&self) {
        self.calls.borrow_mut().clear();
        self.echoed.borrow_mut().clear();
        self.wakers.borrow_mut().clear();
        self.gates.set(0);
        self.open.set(0);
    }

    /// Opens so many gates.
    fn open(&self, gates: u64) {
        self.open.set(self.open.get().saturating_add(gates));
        let wakers = self.wakers.take();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Something that is waited for until a step opens it.
struct Gate(u64);

impl Gate {
    fn new() -> Self {
        SITE.with(|site| Self(site.gates.replace(site.gates.get() + 1)))
    }

    fn is_open(&self, context: &Context<'_>) -> bool {
        SITE.with(|site| {
            let open = self.0 < site.open.get();
            if !open {
                site.wakers.borrow_mut().push(context.waker().clone());
            }
            open
        })
    }

    async fn pass(self) {
        poll_fn(|context| if self.is_open(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Notes the call, and makes the answer that carries its number.
fn answer(req: &Request<'_>, bytes: &[u8], body: impl Into<Body>) -> Response {
    let head_only = req.method_str() == "HEAD";
    let number = SITE.with(|site| {
        let mut calls = site.calls.borrow_mut();
        let calls = calls.entry(req.peer().port().unwrap_or(0)).or_default();
        calls.push(Call { body: bytes.to_vec(), head_only });
        calls.len() - 1
    });
    Response::bytes(body).header("x-call", number.to_string()).expect("a header")
}

fn part(req: &Request<'_>, times: usize) -> &'static [u8] {
    let n: usize = req.param("n").unwrap_or(0);
    &PATTERN[..(n * times).min(PATTERN.len())]
}

/// A stream in pieces, with a gate at every fourth.
fn stream(bytes: &'static [u8]) -> impl FnMut(&mut Context<'_>, &mut BodyBuf<'_>) -> Pull {
    let (mut at, mut pieces, mut gate) = (0, 0, None::<Gate>);
    move |context, out| {
        if gate.as_ref().is_some_and(|gate| !gate.is_open(context)) {
            return Pull::Wait;
        }
        gate = None;
        let piece = (bytes.len() - at).min(300);
        out.extend(&bytes[at..at + piece]);
        at += piece;
        pieces += 1;
        if at == bytes.len() {
            return Pull::Done;
        }
        match pieces % 4 {
            0 => gate = Some(Gate::new()),
            1 => {
                context.waker().wake_by_ref();
                return Pull::Wait;
            }
            _ => {}
        }
        Pull::More
    }
}

/// Sends back what it gets, pauses now and then, and gives up after a minute.
struct Echo {
    port: u16,
}

impl Protocol for Echo {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(Duration::from_secs(60));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let piece = &input.bytes()[..input.len().min(700)];
        input.advance(piece.len());
        SITE.with(|site| site.echoed.borrow_mut().entry(self.port).or_default().extend(piece));
        conn.send(piece);
        match piece[0] % 4 {
            0 => {
                conn.waker().wake();
                Flow::Pause
            }
            1 if input.is_empty() => Flow::Continue,
            _ => Flow::Yield,
        }
    }
}

fn router() -> Router {
    Router::new()
        .get("/now/{n}", |req: &Request| answer(req, part(req, 1), part(req, 1)))
        .get("/large/{n}", |req: &Request| answer(req, part(req, 700), part(req, 700).to_vec()))
        .get("/soon/{n}", async |req: Request| {
            let mut times = req.param("n").unwrap_or(0) % 4;
            let answer = answer(&req, part(&req, 10), part(&req, 10));
            poll_fn(|context| {
                if times == 0 {
                    return Poll::Ready(());
                }
                times -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            answer
        })
        .get("/wait", async |req: Request| {
            let answer = answer(&req, b"waited", "waited");
            Gate::new().pass().await;
            answer
        })
        .get("/stream/{n}", |req: &Request| answer(req, part(req, 300), Body::stream(stream(part(req, 300)))))
        .get("/sized/{n}", |req: &Request| {
            let bytes = part(req, 300);
            answer(req, bytes, Body::sized_stream(bytes.len() as u64, stream(bytes)))
        })
        .post("/echo", |req: &Request, reply: Reply| reply.send(answer(req, req.body(), req.body().to_vec())))
        .post("/wait", async |req: Request| {
            let answer = answer(&req, req.body(), req.body().to_vec());
            Gate::new().pass().await;
            answer
        })
        .get("/up", |req: &Request| {
            Some(req.upgrade("echo")?.accept(Echo { port: req.peer().port().unwrap_or(0) }))
        })
}

/// An answer as the client reads it.
#[derive(Debug)]
struct Answer {
    status: u16,
    call: Option<usize>,
    closes: bool,
    body: Vec<u8>,
}

/// Why no answer could be taken off the bytes.
#[derive(Debug, PartialEq)]
enum Cut {
    Nothing,
    /// There is a part of one.
    Short,
}

impl Answer {
    /// Takes one final answer off the front.
    fn take(bytes: &mut &[u8], calls: &[Call], is_closed: bool) -> Result<Self, Cut> {
        if bytes.is_empty() {
            return Err(Cut::Nothing);
        }
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").ok_or(Cut::Short)?;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status: u16 = status.and_then(|line| line.get(..3)?.parse().ok()).expect("a status line");
        let mut this = Self { status, call: None, closes: false, body: Vec::new() };
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header line");
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>().expect("a length")),
                "transfer-encoding" => chunked = value == "chunked",
                "connection" => this.closes |= value.eq_ignore_ascii_case("close"),
                "x-call" => this.call = Some(value.parse().expect("a number")),
                _ => {}
            }
        }
        let rest = &bytes[end + 4..];
        if status == 100 {
            *bytes = rest;
            return Self::take(bytes, calls, is_closed);
        }
        let head_only = match this.call {
            Some(call) => calls.get(call).expect("a handler was called").head_only,
            // Of an answer without a handler nobody knows what it was asked for; its text is never empty.
            None => rest.is_empty() || rest.starts_with(b"HTTP/1.1 "),
        };
        let taken = if head_only || matches!(status, 101 | 204 | 304) {
            0
        } else if chunked {
            let mut decoder = Decoder::new();
            let decoded = decoder.decode(rest, &mut this.body, u64::MAX).expect("well-formed chunks");
            if !decoded.done {
                return Err(Cut::Short);
            }
            decoded.consumed
        } else if let Some(length) = length {
            this.body = rest.get(..length).ok_or(Cut::Short)?.to_vec();
            length
        } else if is_closed {
            this.body = rest.to_vec();
            this.closes = true;
            rest.len()
        } else {
            return Err(Cut::Short);
        };
        *bytes = &rest[taken..];
        Ok(this)
    }
}

/// What is due for a request of the menu.
#[derive(Debug)]
struct Due {
    /// Where its last byte is in the stream.
    end: usize,
    status: u16,
    /// Of what the client sent, if the answer is that.
    body: Option<Vec<u8>>,
    closes: bool,
}

struct Client {
    connection: TestConnection,
    port: u16,
    outbox: Vec<u8>,
    sent: usize,
    due: Vec<Due>,
    received: Vec<u8>,
    /// It sent nothing but what is due.
    is_tidy: bool,
    has_finished: bool,
    may_half_close: bool,
    reads: bool,
    /// It did something behind which answers may be missing.
    is_excused: bool,
}

impl Client {
    fn new(client: &TestClient, connected: &mut u16, may_half_close: bool) -> Self {
        let port = 1024 + *connected;
        *connected += 1;
        Self {
            connection: client.connect(),
            port,
            outbox: Vec::new(),
            sent: 0,
            due: Vec::new(),
            received: Vec::new(),
            is_tidy: true,
            has_finished: false,
            may_half_close,
            reads: true,
            is_excused: false,
        }
    }

    /// Puts a request of the menu into the outbox.
    fn order(&mut self, choice: u8) {
        let (kind, n) = (choice & 15, usize::from(choice >> 4));
        let body = &PATTERN[..n * 60];
        let length = format!("Content-Length: {}\r\n", body.len());
        let get = |path: &str| format!("GET /{path}/{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let post = |path: &str, more: &str| {
            let head = format!("POST /{path} HTTP/1.1\r\nHost: a\r\n{length}{more}\r\n");
            [head.as_bytes(), body].concat()
        };
        let mut due = Due { end: 0, status: 200, body: None, closes: false };
        let bytes = match kind {
            0 => get("now"),
            1 => get("large"),
            2 => get("soon"),
            3 => b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            4 => get("stream"),
            5 => get("sized"),
            6 | 8 | 15 => {
                due.body = Some(body.to_vec());
                match kind {
                    6 => post("echo", ""),
                    8 => post("wait", ""),
                    _ => post("echo", "Expect: 100-continue\r\n"),
                }
            }
            7 => {
                due.body = Some(body.to_vec());
                let mut bytes =
                    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for piece in body.chunks(1 + n * 9) {
                    bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                    bytes.extend(piece);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
                bytes
            }
            9 => format!("HEAD /large/{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            10 => {
                due.status = 404;
                get("nowhere")
            }
            11 => {
                due.status = 405;
                post("now/1", "")
            }
            12 => b"GET /now/2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
            13 => {
                due.closes = true;
                b"GET /now/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec()
            }
            _ => {
                due.status = 101;
                b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".to_vec()
            }
        };
        self.outbox.extend(bytes);
        due.end = self.sent + self.outbox.len();
        self.due.push(due);
    }

    fn send(&mut self, bytes: usize) {
        if self.has_finished {
            return;
        }
        let piece: Vec<u8> = self.outbox.drain(..bytes.min(self.outbox.len())).collect();
        if !piece.is_empty() {
            // The server was faster: it has been idle for too long.
            self.is_excused |= self.connection.is_closed();
            self.sent += piece.len();
            self.connection.send(&piece);
        }
    }

    fn finish(&mut self) {
        if !self.has_finished {
            self.has_finished = true;
            // Who half-closes gives an answer up that takes its time, unless the server is told otherwise.
            self.is_excused |= !self.may_half_close;
            self.connection.finish();
        }
    }

    /// Holds all that came against the calls, and against what is due. With `settled` nothing is under way any more.
    fn check(&mut self, settled: bool) {
        self.received.extend(self.connection.received());
        let (is_closed, is_reset) = (self.connection.is_closed(), self.connection.is_reset());
        let mut bytes = &self.received[..];
        let mut answers = Vec::new();
        SITE.with(|site| {
            let (calls, echoed) = (site.calls.borrow(), site.echoed.borrow());
            let calls = calls.get(&self.port).map_or(&[][..], Vec::as_slice);
            let cut = loop {
                match Answer::take(&mut bytes, calls, is_closed && !is_reset) {
                    Ok(answer) if answer.status == 101 => {
                        answers.push(answer);
                        let echoed = echoed.get(&self.port).map_or(&[][..], Vec::as_slice);
                        assert!(echoed.starts_with(bytes), "other bytes than the protocol behind HTTP sent");
                        bytes = &[];
                        break Cut::Nothing;
                    }
                    Ok(answer) => answers.push(answer),
                    Err(cut) => break cut,
                }
                if answers.last().is_some_and(|answer| answer.closes) {
                    assert!(bytes.is_empty(), "behind the last answer: {:?}", String::from_utf8_lossy(bytes));
                    break Cut::Nothing;
                }
            };
            let known: Vec<usize> = answers.iter().filter_map(|answer| answer.call).collect();
            let expected: Vec<usize> = (0..known.len()).collect();
            // A handler that took too long, or whose client has gone, was called and not answered, and ends all.
            assert_eq!(known, expected, "handlers are answered once, in order: {answers:?}");
            for answer in &answers {
                let Some(call) = answer.call else {
                    let refused = matches!(answer.status, 400 | 408 | 413 | 414 | 431 | 503 | 505);
                    assert!(!refused || answer.closes, "a refusal that does not end: {answer:?}");
                    continue;
                };
                let Call { body, head_only } = &calls[call];
                assert!(*head_only || answer.body == *body, "another body than the handler's: {answer:?}");
            }
            if self.is_tidy {
                self.check_due(&answers, calls);
            }
            let last_closes = answers.last().is_some_and(|answer| answer.closes || answer.status == 101);
            if settled && self.is_tidy && self.reads && !self.is_excused && !is_reset && !last_closes {
                let mut due = self.due.iter().filter(|due| due.end <= self.sent).count();
                // Without a route an answer does not wait for the body.
                let early = answers.len() == due + 1 && matches!(self.due[due].status, 404 | 405);
                due += usize::from(early);
                assert_eq!((answers.len(), cut), (due, Cut::Nothing), "each whole request is answered");
            }
        });
    }

    /// A tidy client's answers are those that are due, up to one that the server ends the connection with.
    fn check_due(&self, answers: &[Answer], calls: &[Call]) {
        for (nth, answer) in answers.iter().enumerate() {
            let is_last = nth + 1 == answers.len();
            let Some(due) = self.due.get(nth) else {
                // It took too long over a request.
                assert!(answer.status == 408 && is_last, "an answer to nothing: {answer:?}");
                continue;
            };
            if answer.status == due.status {
                let whole = due.end <= self.sent || matches!(due.status, 404 | 405);
                assert!(whole, "answered before it was whole: {due:?}");
                assert!(!due.closes || answer.closes, "{answer:?} for {due:?}");
                if let (Some(body), Some(call)) = (&due.body, answer.call) {
                    assert!(calls[call].body == *body, "another body than the client sent");
                }
            } else {
                let late = matches!(answer.status, 408 | 503) && answer.closes && is_last;
                assert!(late, "{answer:?} for {due:?}");
            }
        }
    }
}

/// In the second byte: a client that has ended its side still wants its answers.
const HALF_CLOSE: u8 = 8;

fn world(setup: &[u8; 3]) -> TestClient {
    let [network, size, seed] = setup.map(usize::from);
    let mut options = Options::default();
    options.seed = seed as u64;
    let often = |bit: usize| if network & bit == 0 { 0 } else { 500 };
    options.faults.partial_receives = often(1);
    options.faults.partial_sends = often(2);
    options.faults.interrupted_receives = often(4);
    options.faults.delays = often(8) / 2;
    options.faults.late_receives = often(16);
    if size & 1 != 0 {
        (options.limits.write_high_bytes, options.limits.write_low_bytes) = (1000, 300);
    }
    if size & 2 != 0 {
        options.budget = Budget::fixed(1).read_bytes(1024);
    }
    let mut limits = Limits::default();
    limits.head_bytes_max = 600;
    limits.body_bytes_max = 1000;
    if size & 4 != 0 {
        limits.requests_per_turn = Some(1);
    }
    limits.half_close = setup[1] & HALF_CLOSE != 0;
    App::new(|_| router()).limits(limits).test_with(options)
}

/// How long a step lets pass.
const TIMES: [Duration; 8] = [
    Duration::from_micros(900),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(6),
    Duration::from_secs(11),
    Duration::from_secs(31),
    Duration::from_secs(76),
];

/// Plays the steps in `data`.
///
/// # Panics
/// If an answer is missing, doubled, out of order or behind the end, or if somebody leaves something behind.
pub fn run(data: &[u8]) {
    let Some((setup, mut steps)) = data.split_first_chunk::<3>() else { return };
    SITE.with(Site::begin);
    let client = world(setup);
    let (mut connected, may_half_close) = (0, setup[1] & HALF_CLOSE != 0);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::new(&client, &mut connected, may_half_close)).collect();
    let mut is_draining = false;
    for _ in 0..STEPS_MAX {
        let Some((&[step, who, amount], rest)) = steps.split_first_chunk::<3>() else { break };
        steps = rest;
        let this = &mut clients[usize::from(who) % CLIENTS];
        let amount_bytes = usize::from(amount);
        match step % 16 {
            0..=3 => this.order(amount),
            4 => {
                // As they are.
                let (raw, rest) = steps.split_at(amount_bytes.min(steps.len()));
                steps = rest;
                this.outbox.extend(raw);
                this.is_tidy &= raw.is_empty();
            }
            5 if !this.outbox.is_empty() => {
                this.is_tidy = false;
                let at = amount_bytes * this.outbox.len() / 256;
                match who / 64 {
                    0 => this.outbox[at] ^= 1 << (who / 8 % 8),
                    1 => this.outbox[at] = b"\r\n\0 :,0H\x80"[usize::from(who / 3) % 9],
                    2 => drop(this.outbox.remove(at)),
                    _ => this.outbox.insert(at, this.outbox[at]),
                }
            }
            5 | 6 => this.send(1 + amount_bytes),
            7 | 8 => this.send(usize::MAX),
            9 => {
                // Whoever is late is told so, or the answer is given up.
                client.advance(TIMES[amount_bytes % 8]);
            }
            10 => this.finish(),
            11 => {
                this.check(false);
                this.connection.reset();
                *this = Client::new(&client, &mut connected, may_half_close);
                this.is_excused = is_draining;
            }
            12 => {
                this.reads = !this.reads;
                this.is_excused = true;
                if this.reads { this.connection.start_reading() } else { this.connection.stop_reading() }
            }
            13 | 14 => {
                SITE.with(|site| site.open(1 + u64::from(amount) / 64));
                client.run();
            }
            _ if amount > 200 => {
                is_draining = true;
                clients.iter_mut().for_each(|client| client.is_excused = true);
                client.begin_drain(TIMES[amount_bytes % 8]);
            }
            _ => this.send(usize::MAX),
        }
        clients.iter_mut().for_each(|client| client.check(false));
    }

    SITE.with(|site| site.open(u64::MAX / 2));
    client.run();
    clients.iter_mut().for_each(|client| client.check(!is_draining));
    // Everybody goes in one of these ways.
    for (nth, this) in clients.iter_mut().enumerate() {
        match (usize::from(setup[2]) + nth) % 3 {
            0 => this.finish(),
            1 => this.connection.reset(),
            _ => {}
        }
    }
    client.advance(Duration::from_secs(700));
    for this in &mut clients {
        this.is_excused = true;
        this.check(false);
    }
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "somebody left something behind");
}
