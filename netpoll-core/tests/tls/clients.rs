//! The other end: a connection that was made, to a server that has to be who it should be.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::pem::PemObject;
use netpoll_core::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use netpoll_core::tls::rustls::{Error, ServerConfig, ServerConnection};
use netpoll_core::tls::{TlsClient, TlsClientBuilder, roots_from_pem_file};
use netpoll_core::{Bytes, Commands, Conn, ConnId, ConnectOptions, Flow, Input, Layered, Lost, Protocol};

use crate::support::{Echo, Far, Log, identity, pem, roots, server_config, taken};

fn speaks_h2() -> ServerConfig {
    let mut config = server_config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A world in which one connection was made.
struct Dialed {
    sim: Sim,
    peer: PeerId,
    far: Far<ServerConnection>,
}

impl Dialed {
    fn new(client: &TlsClient, name: &str, config: ServerConfig, protocol: impl Protocol) -> Self {
        let mut sim = Sim::new(Options::default());
        let layered = Layered::new(client.layer(name).unwrap(), protocol);
        let to = SocketAddr::from(([192, 0, 2, 1], 443));
        sim.commands().connect(to, ConnectOptions::default(), layered);
        sim.settle();
        let (peer, _) = sim.take_dialed().pop().expect("it has connected");
        Self { sim, peer, far: Far::new(ServerConnection::new(Arc::new(config)).unwrap()) }
    }

    fn talk(&mut self) {
        loop {
            let came = self.sim.take_received(self.peer);
            self.far.hear(&came);
            let wire = self.far.wire();
            if !wire.is_empty() {
                self.sim.send(self.peer, &wire);
            }
            self.sim.settle();
            if came.is_empty() && wire.is_empty() {
                return;
            }
        }
    }
}

fn client() -> TlsClientBuilder {
    TlsClient::builder(roots())
}

#[test]
fn a_client_talks_to_the_server_that_it_has_named() {
    for name in ["localhost", "192.0.2.1"] {
        let log = Log::default();
        let tls = client().alpn(["h2", "http/1.1"]).build().unwrap();
        let mut dialed = Dialed::new(&tls, name, speaks_h2(), Echo(Rc::clone(&log)));
        dialed.talk();
        let facts = r#"TLSv1_3 name None alpn Some("h2") certificates 1 resumed false"#;
        assert_eq!(taken(&log), [facts]);
        for bytes in [1, 100_000] {
            dialed.far.say(&vec![b'a'; bytes]);
            dialed.talk();
            assert_eq!(std::mem::take(&mut dialed.far.heard).len(), bytes);
        }
        dialed.far.end();
        dialed.talk();
        assert!(dialed.far.has_ended);
        assert_eq!(taken(&log), ["eof", "lost: closed by us"]);
        assert_eq!((dialed.sim.open(), dialed.sim.blocks_in_use()), (0, 0));
    }
}

/// Keeps why it was lost.
struct Reason(Rc<std::cell::RefCell<Option<Lost>>>);

impl Protocol for Reason {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        panic!("to somebody else")
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        *self.0.borrow_mut() = Some(reason);
    }
}

#[test]
fn a_server_that_is_somebody_else_or_nobody_knows_is_told_so_and_the_program_hears_why() {
    let strangers = roots_from_pem_file(pem("stranger.pem")).unwrap();
    let stranger = TlsClient::builder(strangers).build().unwrap();
    let ours = client().build().unwrap();
    for (tls, name) in [(&ours, "other.test"), (&stranger, "localhost")] {
        let reason = Rc::default();
        let mut dialed = Dialed::new(tls, name, speaks_h2(), Reason(Rc::clone(&reason)));
        dialed.talk();
        assert!(matches!(dialed.far.error, Some(Error::AlertReceived(_))), "{:?}", dialed.far.error);
        dialed.sim.advance(std::time::Duration::from_secs(20));
        let Some(Lost::LayerFailed(error)) = reason.take() else { panic!("{reason:?}") };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        assert!(matches!(error, Some(Error::InvalidCertificate(_))), "{error:?}");
        assert_eq!(
            (dialed.sim.stats().layer_failures, dialed.sim.open(), dialed.sim.stats().panics),
            (1, 0, 0)
        );
    }
}

#[test]
fn what_is_no_name_of_a_server_is_an_error() {
    let error = client().build().unwrap().layer("not a name").expect_err("it has spaces");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_client_that_was_asked_shows_who_it_is() {
    let provider = Arc::new(ring::default_provider());
    let verifier = netpoll_core::tls::rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots()),
        Arc::clone(&provider),
    );
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pem("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(pem("server-key.pem")).unwrap(),
        )
        .unwrap();
    let tls = client().identity(identity("client")).build().unwrap();
    let mut dialed = Dialed::new(&tls, "localhost", config, Echo(Log::default()));
    dialed.talk();
    assert_eq!(dialed.far.error, None);
    assert_eq!(dialed.far.tls.peer_certificates().map(<[_]>::len), Some(1));
}

/// Tells its name, and hears nothing.
struct Named(Rc<std::cell::Cell<Option<ConnId>>>);

impl Protocol for Named {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.set(Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

/// A ticket that comes in pieces lies at the front of the input until the last of them is there.
#[test]
fn who_has_a_part_of_a_message_of_the_handshake_sends_all_the_same() {
    let id = Rc::<std::cell::Cell<Option<ConnId>>>::default();
    let mut config = server_config();
    config.max_fragment_size = Some(64);
    config.ticketer = ring::Ticketer::new().unwrap();
    let mut dialed = Dialed::new(&client().build().unwrap(), "localhost", config, Named(Rc::clone(&id)));
    let mut wire = Vec::new();
    while dialed.far.tls.is_handshaking() {
        let came = dialed.sim.take_received(dialed.peer);
        dialed.far.hear(&came);
        wire = dialed.far.wire();
        if dialed.far.tls.is_handshaking() {
            dialed.sim.send(dialed.peer, &wire);
            dialed.sim.settle();
        }
    }
    assert!(wire.len() > 200, "tickets, in pieces: {} bytes", wire.len());
    let name = id.get().expect("it is open");
    for (at, piece) in wire.chunks(40).enumerate() {
        dialed.sim.send(dialed.peer, piece);
        dialed.sim.handle().send(name, Bytes::from_static(b"hello "));
        dialed.sim.settle();
        let came = dialed.sim.take_received(dialed.peer);
        dialed.far.hear(&came);
        assert_eq!(dialed.far.heard.len(), 6 * (at + 1));
    }
    assert_eq!((dialed.sim.stats().panics, dialed.sim.stats().layer_failures), (0, 0));
    assert_eq!((dialed.sim.open(), dialed.sim.blocks_in_use()), (1, 0));
}
