//! A client for tests: the real service and the real connection, in memory.
//!
//! Everything from the driver contract up is what a server runs; only the network and the clock belong to the
//! test. So a test says what is sent, byte by byte if it wants to, and how much time passes.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode};
use netpoll_core::sim::{ListenerId, Options, PeerId, Sim};
use netpoll_core::{Peer, Protocol, Stats, WorkerInfo};

/// Talks to a service in memory; made by [`App::test`](crate::App::test). Cheap to clone.
///
/// ```
/// use netpoll_http::{App, Request, Router, StatusCode};
///
/// let client = App::new(|_| Router::new().get("/", |_: &Request| "hello")).test();
/// assert_eq!(client.get("/").text(), "hello");
/// assert_eq!(client.get("/nowhere").status, StatusCode::NOT_FOUND);
///
/// let bytes = client.raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
/// assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
/// ```
#[derive(Clone)]
pub struct TestClient {
    sim: Rc<RefCell<Sim>>,
    listener: ListenerId,
}

impl TestClient {
    pub(crate) fn new<P, A>(make: impl FnOnce(&WorkerInfo) -> A, options: Options) -> Self
    where
        P: Protocol,
        A: FnMut(Peer) -> P + 'static,
    {
        let mut sim = Sim::new(options);
        let accept = make(&sim.worker_info());
        let listener = sim.listen(accept);
        Self { sim: Rc::new(RefCell::new(sim)), listener }
    }

    /// Sends GET.
    ///
    /// # Panics
    /// When no complete answer comes, here and in the other methods that return one.
    pub fn get(&self, target: &str) -> TestResponse {
        self.request(Method::GET, target).send()
    }

    /// Sends POST with this body.
    pub fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> TestResponse {
        self.request(Method::POST, target).body(body).send()
    }

    /// Sends POST with this value as `application/json`.
    #[cfg(feature = "json")]
    pub fn post_json(&self, target: &str, value: &impl serde::Serialize) -> TestResponse {
        self.request(Method::POST, target).json(value).send()
    }

    /// A request to be completed with headers and a body, and to be sent.
    pub fn request(&self, method: Method, target: &str) -> TestRequest<'_> {
        TestRequest {
            client: self,
            is_head: method == Method::HEAD,
            head: format!("{method} {target} HTTP/1.1\r\nHost: test\r\n"),
            body: None,
        }
    }

    /// Sends bytes on a new connection and returns all that comes back without time passing.
    ///
    /// The connection is then reset. Use [`connect`](Self::connect) to see what happens to it.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.received()
    }

    /// A new connection.
    pub fn connect(&self) -> TestConnection {
        let peer = self.sim.borrow_mut().connect(self.listener);
        self.sim.borrow_mut().run();
        TestConnection { sim: Rc::clone(&self.sim), peer, received: Vec::new() }
    }

    /// Lets time pass for all connections, deadline by deadline.
    pub fn advance(&self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    /// Lets everything happen that is due, for example after a test has woken a handler.
    pub fn run(&self) {
        self.sim.borrow_mut().run();
    }

    /// Begins a graceful drain as SIGTERM does; what is open after `within` is cut.
    pub fn begin_drain(&self, within: Duration) {
        let mut sim = self.sim.borrow_mut();
        sim.begin_drain(within);
        sim.run();
    }

    /// The counters of the worker.
    pub fn stats(&self) -> Stats {
        self.sim.borrow().stats()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.sim.borrow().open()
    }

    /// Buffers that connections hold now; zero when all of them are idle.
    pub fn blocks_in_use(&self) -> u64 {
        self.sim.borrow().blocks_in_use()
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").finish_non_exhaustive()
    }
}

/// A request that is being put together.
#[derive(Debug)]
pub struct TestRequest<'c> {
    client: &'c TestClient,
    is_head: bool,
    head: String,
    body: Option<Vec<u8>>,
}

impl TestRequest<'_> {
    /// Adds a header line, as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sets the body, which is sent with its `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the body and `Content-Type: application/json`.
    ///
    /// # Panics
    /// When the value cannot be serialised.
    #[cfg(feature = "json")]
    #[must_use]
    pub fn json(self, value: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("the value can be serialised");
        self.header("Content-Type", "application/json").body(body)
    }

    /// Sends it on a new connection and returns the answer.
    ///
    /// # Panics
    /// When no complete answer comes without time passing.
    pub fn send(mut self) -> TestResponse {
        if let Some(body) = &self.body {
            self.head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = self.head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        let mut connection = self.client.connect();
        connection.send(&bytes);
        match connection.answer(self.is_head) {
            Some(response) => response,
            None => panic!("no complete answer, but {:?}", String::from_utf8_lossy(&connection.received())),
        }
    }
}

/// A raw connection: bytes in, bytes out. Dropping it resets it.
pub struct TestConnection {
    sim: Rc<RefCell<Sim>>,
    peer: PeerId,
    received: Vec<u8>,
}

impl TestConnection {
    /// Sends bytes and lets everything happen that follows from them without time passing.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut sim = self.sim.borrow_mut();
        sim.send(self.peer, bytes);
        sim.run();
    }

    /// Ends the sending direction (FIN).
    pub fn finish(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.finish(self.peer);
        sim.run();
    }

    /// Breaks the connection (RST).
    pub fn reset(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.reset(self.peer);
        sim.run();
    }

    /// Stops taking bytes, like a peer whose window is full.
    pub fn stop_reading(&mut self) {
        self.sim.borrow_mut().stop_reading(self.peer);
    }

    /// Takes bytes again.
    pub fn start_reading(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.start_reading(self.peer);
        sim.run();
    }

    /// Lets time pass, for all connections of the client.
    pub fn advance(&mut self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    /// Lets everything happen that is due.
    pub fn run(&mut self) {
        self.sim.borrow_mut().run();
    }

    /// All bytes that came and were not looked at yet.
    pub fn received(&mut self) -> Vec<u8> {
        self.take_in();
        std::mem::take(&mut self.received)
    }

    /// Like [`received`](Self::received), appended to a vector that is reused, so that nothing is allocated.
    pub fn drain_received(&mut self, into: &mut Vec<u8>) {
        into.append(&mut self.received);
        self.sim.borrow_mut().drain_received(self.peer, into);
    }

    /// The next complete answer, if there is one; it is taken off the bytes that came.
    pub fn response(&mut self) -> Option<TestResponse> {
        self.answer(false)
    }

    /// Whether the server ended the connection (FIN or RST).
    pub fn is_closed(&self) -> bool {
        self.sim.borrow().is_closed(self.peer)
    }

    /// Whether the server broke the connection (RST).
    pub fn is_reset(&self) -> bool {
        self.sim.borrow().is_reset(self.peer)
    }

    fn take_in(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.drain_received(self.peer, &mut self.received);
    }

    fn answer(&mut self, to_head: bool) -> Option<TestResponse> {
        self.take_in();
        let (response, bytes) = TestResponse::parse(&self.received, to_head, self.is_closed())?;
        self.received.drain(..bytes);
        Some(response)
    }
}

impl Drop for TestConnection {
    fn drop(&mut self) {
        // While a test panics the world may be borrowed, and nobody looks at it any more.
        if let Ok(mut sim) = self.sim.try_borrow_mut()
            && !std::thread::panicking()
        {
            sim.reset(self.peer);
        }
    }
}

impl fmt::Debug for TestConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers in their order; names as they were sent.
    pub headers: Vec<(String, String)>,
    /// The body, with chunked coding removed.
    pub body: Vec<u8>,
}

impl TestResponse {
    /// The first header of that name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON of that shape.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// Reads one final answer off the front and says how many bytes it had; `None` while it is incomplete.
    /// Informational answers before it are passed over.
    fn parse(mut bytes: &[u8], to_head: bool, is_closed: bool) -> Option<(Self, usize)> {
        let all = bytes.len();
        loop {
            let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&bytes[..head_bytes - 4]);
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
            let status = status.and_then(|line| StatusCode::from_bytes(line.as_bytes().get(..3)?).ok());
            let status = status.unwrap_or_else(|| panic!("not an answer: {head:?}"));
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                bytes = &bytes[head_bytes..];
                continue;
            }
            let header = |line: &str| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
                None => panic!("not a header ({line:?}): {head:?}"),
            };
            let mut response = Self { status, headers: lines.map(header).collect(), body: Vec::new() };
            let rest = &bytes[head_bytes..];
            let body_bytes = response.read_body(rest, to_head, is_closed)?;
            return Some((response, all - rest.len() + body_bytes));
        }
    }

    fn read_body(&mut self, rest: &[u8], to_head: bool, is_closed: bool) -> Option<usize> {
        if to_head || matches!(self.status.as_u16(), 101 | 204 | 304) {
            return Some(0);
        }
        if self.header("transfer-encoding").is_some() {
            let mut decoder = crate::wire::Decoder::new();
            let decoded = decoder.decode(rest, &mut self.body, u64::MAX).expect("well-formed chunks");
            return decoded.done.then_some(decoded.consumed);
        }
        let length = match self.header("content-length") {
            Some(length) => length.trim().parse().expect("a length"),
            // Without a length the body ends with the connection.
            None if is_closed => rest.len(),
            None => return None,
        };
        self.body = rest.get(..length)?.to_vec();
        Some(length)
    }
}
