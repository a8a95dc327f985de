//! A client for tests: the real service and the real connection, in memory.
//!
//! Everything from the driver contract up is what a server runs; only the network and the clock belong to the
//! test. So a test says what is sent, byte by byte if it wants to, and how much time passes.

pub mod explore;
mod response;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{Address, Peer, Protocol, Stats, WorkerInfo};

pub use response::TestResponse;

/// How long an answer may take, in the time of the world: twice what a handler may by default.
const PATIENCE: Duration = Duration::from_secs(60);

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
    pub(crate) fn new<P, A>(
        options: Options,
        prepare: impl FnOnce(&mut Sim),
        make: impl FnMut(&WorkerInfo) -> A,
    ) -> Self
    where
        P: Protocol,
        A: FnMut(Peer) -> P + 'static,
    {
        let mut sim = Sim::new(options);
        prepare(&mut sim);
        let listener = sim.listen_each(make);
        Self { sim: Rc::new(RefCell::new(sim)), listener }
    }

    /// Sends GET.
    ///
    /// # Panics
    /// When no complete answer comes, here and in the other methods that return one.
    #[track_caller]
    pub fn get(&self, target: &str) -> TestResponse {
        self.request(Method::GET, target).send()
    }

    /// Sends POST with this body.
    #[track_caller]
    pub fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> TestResponse {
        self.request(Method::POST, target).body(body).send()
    }

    /// Sends PUT with this body.
    #[track_caller]
    pub fn put(&self, target: &str, body: impl Into<Vec<u8>>) -> TestResponse {
        self.request(Method::PUT, target).body(body).send()
    }

    /// Sends PATCH with this body.
    #[track_caller]
    pub fn patch(&self, target: &str, body: impl Into<Vec<u8>>) -> TestResponse {
        self.request(Method::PATCH, target).body(body).send()
    }

    /// Sends DELETE.
    #[track_caller]
    pub fn delete(&self, target: &str) -> TestResponse {
        self.request(Method::DELETE, target).send()
    }

    /// Sends POST with these fields, as a form in a page does.
    #[track_caller]
    pub fn post_form(&self, target: &str, fields: &[(&str, &str)]) -> TestResponse {
        self.request(Method::POST, target).form(fields).send()
    }

    /// Sends POST with this value as `application/json`.
    #[cfg(feature = "json")]
    #[track_caller]
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

    /// Sends bytes on a new connection and returns all that comes back without waiting for a deadline.
    ///
    /// The connection is then reset. Use [`connect`](Self::connect) to see what happens to it.
    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.received()
    }

    /// A new connection, to a worker that the seed chooses.
    #[track_caller]
    pub fn connect(&self) -> TestConnection {
        self.connected(|sim| sim.connect(self.listener))
    }

    /// A new connection from this address, which may be one in the Unix domain.
    #[track_caller]
    pub fn connect_from(&self, addr: impl Into<Address>) -> TestConnection {
        self.connected(|sim| sim.connect_from(self.listener, addr))
    }

    /// A new connection to this worker.
    ///
    /// # Panics
    /// If there is no such worker.
    #[track_caller]
    pub fn connect_to(&self, worker: usize) -> TestConnection {
        self.connected(|sim| sim.connect_to(self.listener, worker))
    }

    #[track_caller]
    fn connected(&self, connect: impl FnOnce(&mut Sim) -> PeerId) -> TestConnection {
        let mut sim = self.sim.borrow_mut();
        let peer = connect(&mut sim);
        sim.settle();
        TestConnection { sim: Rc::clone(&self.sim), peer, received: Vec::new() }
    }

    /// Lets time pass for all connections, deadline by deadline.
    pub fn advance(&self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    /// The process stands still for so long: time passes and nothing is delivered, until something else is called.
    pub fn stand_still(&self, time: Duration) {
        self.sim.borrow_mut().stand_still(time);
    }

    /// Lets every worker go around once, so that things can be done while others are under way.
    pub fn turn(&self) {
        self.sim.borrow_mut().turn();
    }

    /// Lets everything happen that is due or under way, for example after a test has woken a handler.
    pub fn run(&self) {
        self.sim.borrow_mut().settle();
    }

    /// Begins a graceful drain as SIGTERM does; what is open after `within` is cut.
    pub fn begin_drain(&self, within: Duration) {
        let mut sim = self.sim.borrow_mut();
        sim.begin_drain(within);
        sim.settle();
    }

    /// Lets a test do what only the world can: give addresses to a name, see whom handlers have dialed and speak for them, run
    /// tasks beside the service ([`Sim::block_on`]). Nothing else of this client may be called meanwhile.
    ///
    /// ```
    /// use netpoll_core::net::Stream;
    /// use netpoll_http::{App, Error, Request, Router};
    ///
    /// async fn quote(_req: Request<'static>) -> Result<String, Error> {
    ///     let mut stream = Stream::connect("10.0.0.7:17").await.map_err(Error::internal)?;
    ///     let mut quote = [0; 5];
    ///     stream.read_exact(&mut quote).await.map_err(Error::internal)?;
    ///     Ok(String::from_utf8_lossy(&quote).into_owned())
    /// }
    ///
    /// let client = App::new(|_| Router::new().get("/", quote)).test();
    /// let mut connection = client.connect();
    /// connection.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    /// client.world(|sim| {
    ///     let (server, address) = sim.take_dialed().remove(0);
    ///     assert_eq!(address.to_string(), "10.0.0.7:17");
    ///     sim.send(server, b"hello");
    ///     sim.settle();
    /// });
    /// assert_eq!(connection.response().unwrap().text(), "hello");
    /// ```
    pub fn world<R>(&self, act: impl FnOnce(&mut Sim) -> R) -> R {
        act(&mut self.sim.borrow_mut())
    }

    /// The counters of all workers, added up.
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

/// As a form writes it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'*' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
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

    /// Sets the body and `Content-Type: application/x-www-form-urlencoded`.
    #[must_use]
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let body = fields.collect::<Vec<_>>().join("&");
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    /// Sets the body and `Content-Type: application/json`.
    ///
    /// # Panics
    /// When the value cannot be serialised.
    #[cfg(feature = "json")]
    #[must_use]
    #[track_caller]
    pub fn json(self, value: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("the value can be serialised");
        self.header("Content-Type", "application/json").body(body)
    }

    /// Sends it on a new connection and returns the answer, which may take a minute of the time of this world: a handler may
    /// sleep, and it takes no time here.
    ///
    /// # Panics
    /// When no complete answer comes within that, or none that can be read.
    #[track_caller]
    pub fn send(mut self) -> TestResponse {
        if let Some(body) = &self.body {
            self.head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = self.head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        let mut connection = self.client.connect();
        connection.send(&bytes);
        let mut answer = connection.answer(self.is_head);
        if answer.is_none() && !connection.is_closed() {
            let sim = Rc::clone(&connection.sim);
            sim.borrow_mut().run_until(PATIENCE, |sim| {
                sim.drain_received(connection.peer, &mut connection.received);
                let closed = sim.is_closed(connection.peer);
                closed
                    || matches!(
                        TestResponse::parse(&connection.received, self.is_head, closed),
                        Ok(Some(_)) | Err(_)
                    )
            });
            answer = connection.answer(self.is_head);
        }
        match answer {
            Some(response) => response,
            None => panic!("no complete answer, but {}", connection.account()),
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
    /// Sends bytes and lets everything happen that follows from them without waiting for a deadline.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let mut sim = self.sim.borrow_mut();
        sim.send(self.peer, bytes);
        sim.settle();
    }

    /// Sends bytes and lets nothing happen yet: the next call does that lets something happen on any connection.
    pub fn put(&mut self, bytes: &[u8]) {
        self.sim.borrow_mut().send(self.peer, bytes);
    }

    /// Ends the sending direction (FIN).
    #[track_caller]
    pub fn finish(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.finish(self.peer);
        sim.settle();
    }

    /// Closes the connection as a client does that has enough: FIN, and a reset for whatever comes from now on.
    pub fn close(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.close(self.peer);
        sim.settle();
    }

    /// Breaks the connection (RST).
    pub fn reset(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.reset(self.peer);
        sim.settle();
    }

    /// Stops taking bytes, like a peer whose window is full.
    pub fn stop_reading(&mut self) {
        self.sim.borrow_mut().stop_reading(self.peer);
    }

    /// Takes bytes again.
    pub fn start_reading(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.start_reading(self.peer);
        sim.settle();
    }

    /// Takes no more than so many bytes at once from now on, so that larger sends are cut short.
    pub fn set_window(&mut self, bytes: usize) {
        self.sim.borrow_mut().set_window(self.peer, bytes);
    }

    /// Faults of this connection, instead of those of the options.
    pub fn set_faults(&mut self, faults: Faults) {
        self.sim.borrow_mut().set_faults(self.peer, faults);
    }

    /// Lets time pass, for all connections of the client.
    pub fn advance(&mut self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    /// Lets everything happen that is due or under way.
    pub fn run(&mut self) {
        self.sim.borrow_mut().settle();
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
    ///
    /// # Panics
    /// When what came is not an answer.
    #[track_caller]
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

    #[track_caller]
    fn answer(&mut self, to_head: bool) -> Option<TestResponse> {
        self.take_in();
        match TestResponse::parse(&self.received, to_head, self.is_closed()) {
            Ok(parsed) => {
                let (response, bytes) = parsed?;
                self.received.drain(..bytes);
                Some(response)
            }
            Err(why) => panic!("{why}, in {}", self.account()),
        }
    }

    /// What has come that nobody took, and how the connection stands, for a message.
    fn account(&mut self) -> String {
        self.take_in();
        let state = match () {
            () if self.is_reset() => "reset",
            () if self.is_closed() => "closed",
            () => "open",
        };
        format!("{:?} (the connection is {state})", String::from_utf8_lossy(&self.received))
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
