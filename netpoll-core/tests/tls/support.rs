//! Far ends that speak TLS by hand, and protocols that know nothing of it.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use netpoll_core::sim::{ListenerId, Options, PeerId, Sim};
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, Error, HandshakeKind, RootCertStore, ServerConfig,
    SideData,
    pki_types::pem::PemObject,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use netpoll_core::tls::{Identity, TlsFacts, TlsServer, TlsServerBuilder, roots_from_pem_file};
use netpoll_core::{Commands, Conn, Flow, Input, Layered, Lost, Protocol};

pub fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls/pems").join(name)
}

pub fn identity(name: &str) -> Identity {
    Identity::from_pem_files(pem(&format!("{name}.pem")), pem(&format!("{name}-key.pem"))).unwrap()
}

pub fn roots() -> RootCertStore {
    roots_from_pem_file(pem("ca.pem")).unwrap()
}

pub fn server(name: &str) -> TlsServerBuilder {
    TlsServer::builder(identity(name))
}

/// What happens, in order.
pub type Log = Rc<RefCell<Vec<String>>>;

pub fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.borrow_mut())
}

/// Sends back what it is sent, and says what happens to it.
pub struct Echo(pub Log);

impl Protocol for Echo {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let facts = conn.layer_facts::<TlsFacts>().expect("there is a layer");
        let alpn = facts.alpn().map(String::from_utf8_lossy);
        let certificates = facts.peer_certificates().len();
        let text = format!(
            "{:?} name {:?} alpn {alpn:?} certificates {certificates} resumed {}",
            facts.version(),
            facts.server_name(),
            facts.is_resumed()
        );
        self.0.borrow_mut().push(text);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push("eof".to_owned());
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

/// The settings of a client that trusts the issuer of these tests.
pub fn client_config() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth()
}

/// The settings of a server as rustls makes them.
pub fn server_config() -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pem("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(pem("server-key.pem")).unwrap(),
        )
        .unwrap()
}

/// A far end without a socket.
pub struct Far<C> {
    pub tls: C,
    /// All plain text that has come.
    pub heard: Vec<u8>,
    pub has_ended: bool,
    pub error: Option<Error>,
}

impl<C, D> Far<C>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    pub fn new(mut tls: C) -> Self {
        tls.set_buffer_limit(None);
        Self { tls, heard: Vec::new(), has_ended: false, error: None }
    }

    /// What it wants to send.
    pub fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    pub fn say(&mut self, plain: &[u8]) {
        self.tls.writer().write_all(plain).unwrap();
    }

    pub fn end(&mut self) {
        self.tls.send_close_notify();
    }

    /// Hears what has come.
    pub fn hear(&mut self, mut wire: &[u8]) {
        while !wire.is_empty() {
            if self.tls.read_tls(&mut wire).is_err() {
                return;
            }
            match self.tls.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut plain).unwrap();
                    self.heard.extend(plain);
                    self.has_ended |= state.peer_has_closed();
                }
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    pub fn kind(&self) -> Option<HandshakeKind> {
        self.tls.handshake_kind()
    }
}

/// A client by hand, in a simulated world.
pub struct Client {
    pub peer: PeerId,
    pub far: Far<ClientConnection>,
}

impl Client {
    pub fn connect(
        sim: &mut Sim,
        listener: ListenerId,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self { peer: sim.connect(listener), far: Far::new(tls) }
    }

    /// Sends and hears until nothing happens any more.
    pub fn talk(&mut self, sim: &mut Sim) {
        loop {
            let wire = self.far.wire();
            if !wire.is_empty() {
                sim.send(self.peer, &wire);
            }
            sim.settle();
            let came = sim.take_received(self.peer);
            self.far.hear(&came);
            if came.is_empty() && !self.far.tls.wants_write() {
                return;
            }
        }
    }

    /// All that it has heard since the last time.
    pub fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.far.heard)
    }
}

/// A world with a server of echoes in it.
pub fn world(options: Options, tls: &TlsServer) -> (Sim, ListenerId, Log) {
    let (mut sim, log, tls) = (Sim::new(options), Log::default(), tls.clone());
    let listener = sim.listen({
        let log = Rc::clone(&log);
        move |_peer| Layered::new(tls.layer(), Echo(Rc::clone(&log)))
    });
    (sim, listener, log)
}

/// The same with a client that is through its handshake.
pub fn shaken(options: Options, tls: &TlsServer) -> (Sim, Client, Log) {
    let (mut sim, listener, log) = world(options, tls);
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    assert_eq!(client.far.error, None);
    taken(&log);
    (sim, client, log)
}
