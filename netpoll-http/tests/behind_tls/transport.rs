//! The same client and server as without a layer, with everything behind TLS.
//!
//! Invariant: a connection that the server ends in an orderly way has said its `close_notify` before.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netpoll_core::sim::{ListenerId, Options, PeerId, Sim};
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::server::UnbufferedServerConnection;
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection};
use netpoll_core::tls::{Identity, Tls, TlsServer, roots_from_pem_file};
use netpoll_core::{Address, Builder, Layered, Peer, Report, Runtime, Stats, WorkerInfo, Workers};
use netpoll_http::{Http, Limits, Service, StatusCode, TestResponse, Worker};

use crate::answer;

fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../netpoll-core/tests/tls/pems").join(name)
}

/// One for all, so that most handshakes resume a session.
fn tls_server() -> TlsServer {
    static SERVER: OnceLock<TlsServer> = OnceLock::new();
    let make = || {
        let identity = Identity::from_pem_files(pem("server.pem"), pem("server-key.pem")).unwrap();
        TlsServer::builder(identity).build().unwrap()
    };
    SERVER.get_or_init(make).clone()
}

fn tls_client() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots_from_pem_file(pem("ca.pem")).unwrap())
            .with_no_client_auth();
        Arc::new(config)
    };
    Arc::clone(CONFIG.get_or_init(make))
}

/// What makes the connections of one worker.
fn accept<S: Service>(
    tls: TlsServer,
    service: S,
    limits: Limits,
) -> impl FnMut(Peer) -> Layered<Tls<UnbufferedServerConnection>, Http<S>> + 'static {
    let mut http = Http::acceptor(service, limits).expect("limits that let something through");
    move |peer| Layered::new(tls.layer(), http(peer))
}

/// A server that is being put together.
pub struct Server {
    addr: String,
    builder: Builder,
}

impl Server {
    pub fn bind(addr: &str) -> io::Result<Self> {
        Ok(Self { addr: addr.to_owned(), builder: Runtime::builder() })
    }

    pub fn workers(self, count: usize) -> Self {
        self.runtime(|builder| builder.workers(Workers::Count(count)))
    }

    pub fn runtime(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.builder = change(self.builder);
        self
    }

    pub fn app<S, F>(self, factory: F) -> App<F>
    where
        S: Service,
        F: Fn(&Worker) -> S + Send + Sync + 'static,
    {
        App { server: Some(self), factory, limits: Limits::default() }
    }
}

/// A server, or none, and what it serves.
pub struct App<F> {
    server: Option<Server>,
    factory: F,
    limits: Limits,
}

impl<F, S> App<F>
where
    S: Service,
    F: Fn(&Worker) -> S + Send + Sync + 'static,
{
    pub fn new(factory: F) -> Self {
        Self { server: None, factory, limits: Limits::default() }
    }

    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    pub fn start(self) -> io::Result<Running> {
        let Server { addr, builder } = self.server.expect("an app with an address");
        let (factory, limits) = (Arc::new(self.factory), self.limits);
        let tls = tls_server();
        let make =
            move |info: &WorkerInfo| Ok(accept(tls.clone(), factory(&Worker::from(info)), limits.clone()));
        Ok(Running(builder.try_listen(addr, make)?.start()?))
    }

    pub fn test(self) -> TestClient {
        self.test_with(Options::default())
    }

    pub fn test_with(self, options: Options) -> TestClient {
        let mut sim = Sim::new(options);
        let tls = tls_server();
        let make =
            |info: &WorkerInfo| accept(tls.clone(), (self.factory)(&Worker::from(info)), self.limits.clone());
        let listener = sim.listen_each(make);
        TestClient { sim: Rc::new(RefCell::new(sim)), listener }
    }
}

/// A server in the background.
pub struct Running(netpoll_core::Running);

impl Running {
    pub fn addr(&self) -> Address {
        self.0.local_addrs()[0].clone()
    }

    pub fn stop(self, within: Duration) -> io::Result<Report> {
        self.0.stop(within)
    }
}

/// The client's half of TLS, and what was said.
struct Incoming {
    tls: ClientConnection,
    wire: Vec<u8>,
    plain: Vec<u8>,
    has_ended: bool,
}

impl Incoming {
    fn new() -> Self {
        let mut tls = ClientConnection::new(tls_client(), "localhost".try_into().unwrap()).unwrap();
        tls.set_buffer_limit(None);
        Self { tls, wire: Vec::new(), plain: Vec::new(), has_ended: false }
    }

    /// What is to go over the wire.
    fn outgoing(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        // Records of any length, so that they end in the middle of everything.
        let mut rest = plain;
        while !rest.is_empty() {
            let bytes = rest.len().min([16_384, 1, 700, 33][(plain.len() + rest.len()) % 4]);
            self.tls.writer().write_all(&rest[..bytes]).unwrap();
            rest = &rest[bytes..];
        }
        self.outgoing()
    }

    fn bye(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.outgoing()
    }

    fn decode(&mut self) {
        let wire = std::mem::take(&mut self.wire);
        let mut rest = &wire[..];
        while !rest.is_empty() && self.tls.read_tls(&mut rest).unwrap() > 0 {
            let state = self.tls.process_new_packets().expect("records");
            let came = self.plain.len();
            self.plain.resize(came + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut self.plain[came..]).unwrap();
            self.has_ended |= state.peer_has_closed();
        }
    }

    /// Whether the wire may end here in an orderly way.
    fn may_end(&self) -> bool {
        self.has_ended || self.tls.is_handshaking()
    }
}

/// Talks to the server in memory.
pub struct TestClient {
    sim: Rc<RefCell<Sim>>,
    listener: ListenerId,
}

impl TestClient {
    #[track_caller]
    pub fn get(&self, target: &str) -> TestResponse {
        let mut connection = self.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        connection.response().expect("a complete answer")
    }

    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.received()
    }

    #[track_caller]
    pub fn connect(&self) -> TestConnection {
        let mut sim = self.sim.borrow_mut();
        let peer = sim.connect(self.listener);
        let mut incoming = Incoming::new();
        loop {
            let wire = incoming.outgoing();
            sim.send(peer, &wire);
            sim.settle();
            sim.drain_received(peer, &mut incoming.wire);
            if incoming.wire.is_empty() {
                break;
            }
            incoming.decode();
        }
        TestConnection { sim: Rc::clone(&self.sim), peer, incoming: RefCell::new(incoming) }
    }

    pub fn advance(&self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    pub fn run(&self) {
        self.sim.borrow_mut().settle();
    }

    pub fn begin_drain(&self, within: Duration) {
        let mut sim = self.sim.borrow_mut();
        sim.begin_drain(within);
        sim.settle();
    }

    pub fn stats(&self) -> Stats {
        self.sim.borrow().stats()
    }

    pub fn open(&self) -> usize {
        self.sim.borrow().open()
    }

    pub fn blocks_in_use(&self) -> u64 {
        self.sim.borrow().blocks_in_use()
    }
}

/// A connection in memory. Dropping it resets it.
pub struct TestConnection {
    sim: Rc<RefCell<Sim>>,
    peer: PeerId,
    incoming: RefCell<Incoming>,
}

impl TestConnection {
    fn put(&mut self, wire: &[u8], then: impl FnOnce(&mut Sim, PeerId)) {
        let mut sim = self.sim.borrow_mut();
        sim.send(self.peer, wire);
        then(&mut sim, self.peer);
        sim.settle();
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let wire = self.incoming.get_mut().seal(bytes);
        self.put(&wire, |_, _| ());
    }

    #[track_caller]
    pub fn finish(&mut self) {
        let bye = self.incoming.get_mut().bye();
        self.put(&bye, Sim::finish);
    }

    pub fn reset(&mut self) {
        self.put(&[], Sim::reset);
    }

    pub fn stop_reading(&mut self) {
        self.sim.borrow_mut().stop_reading(self.peer);
    }

    pub fn start_reading(&mut self) {
        self.put(&[], Sim::start_reading);
    }

    pub fn advance(&mut self, time: Duration) {
        self.sim.borrow_mut().advance(time);
    }

    pub fn run(&mut self) {
        self.sim.borrow_mut().settle();
    }

    fn take_in(&self) {
        let mut incoming = self.incoming.borrow_mut();
        self.sim.borrow_mut().drain_received(self.peer, &mut incoming.wire);
        incoming.decode();
    }

    #[track_caller]
    pub fn received(&mut self) -> Vec<u8> {
        self.take_in();
        std::mem::take(&mut self.incoming.get_mut().plain)
    }

    #[track_caller]
    pub fn response(&mut self) -> Option<TestResponse> {
        self.take_in();
        let plain = &mut self.incoming.get_mut().plain;
        let first = answer::one(plain, 0, false, false).ok()?;
        plain.drain(..first.range.end);
        let text = |(name, value): (String, Vec<u8>)| (name, String::from_utf8(value).expect("a text"));
        Some(TestResponse {
            status: StatusCode::from_u16(first.status).expect("a status"),
            headers: first.headers.into_iter().map(text).collect(),
            body: first.body,
        })
    }

    #[track_caller]
    pub fn is_closed(&self) -> bool {
        let is_closed = self.sim.borrow().is_closed(self.peer);
        if is_closed && !self.is_reset() {
            self.take_in();
            assert!(self.incoming.borrow().may_end(), "it ended without a last word");
        }
        is_closed
    }

    pub fn is_reset(&self) -> bool {
        self.sim.borrow().is_reset(self.peer)
    }
}

impl Drop for TestConnection {
    fn drop(&mut self) {
        if let Ok(mut sim) = self.sim.try_borrow_mut()
            && !std::thread::panicking()
        {
            sim.reset(self.peer);
        }
    }
}

/// A socket.
pub struct TcpStream {
    socket: std::net::TcpStream,
    incoming: Incoming,
}

impl TcpStream {
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut socket = std::net::TcpStream::connect(addr)?;
        let mut incoming = Incoming::new();
        // Who is not taken in notices when it speaks.
        match incoming.tls.complete_io(&mut socket) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(Self { socket, incoming }),
        }
    }

    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.set_nodelay(nodelay)
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        let bye = self.incoming.bye();
        self.socket.write_all(&bye)?;
        self.socket.shutdown(how)
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wire = self.incoming.seal(bytes);
        self.socket.write_all(&wire)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        while self.incoming.plain.is_empty() {
            match self.socket.read(&mut block)? {
                0 if self.incoming.may_end() => return Ok(0),
                0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended without a last word")),
                count => self.incoming.wire.extend_from_slice(&block[..count]),
            }
            self.incoming.decode();
        }
        let count = into.len().min(self.incoming.plain.len());
        into[..count].copy_from_slice(&self.incoming.plain[..count]);
        self.incoming.plain.drain(..count);
        Ok(count)
    }
}
