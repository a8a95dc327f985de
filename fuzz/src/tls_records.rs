//! TLS around an echo: a client that speaks it well, and a wire on which everything happens to what it says. Nothing panics, nothing is left, and what the
//! protocol above is handed is the beginning of what was said.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::tls::rustls::crypto::CryptoProvider;
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, crypto};
use netpoll_core::tls::{Identity, TlsServer, roots_from_pem_file};
use netpoll_core::{Conn, Flow, Input, Layered, Protocol};

struct Echo(Rc<RefCell<Vec<u8>>>);

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().extend(input.bytes());
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

/// Made once: keys take their time.
fn both() -> &'static (TlsServer, Arc<ClientConfig>) {
    static BOTH: OnceLock<(TlsServer, Arc<ClientConfig>)> = OnceLock::new();
    BOTH.get_or_init(|| {
        let pems = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netpoll-core/tests/tls/pems");
        let identity = Identity::from_pem_files(pems.join("server.pem"), pems.join("server-key.pem"));
        let server = TlsServer::builder(identity.unwrap()).handshake_bytes_max(8192).build().unwrap();
        let provider: CryptoProvider = crypto::ring::default_provider();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots_from_pem_file(pems.join("ca.pem")).unwrap())
            .with_no_client_auth();
        config.max_fragment_size = Some(200);
        (server, Arc::new(config))
    })
}

struct Client {
    tls: ClientConnection,
    peer: PeerId,
    /// On its way, and not sent yet.
    wire: Vec<u8>,
    said: Vec<u8>,
    /// It has failed, or said its last word: it hears nothing more.
    is_over: bool,
}

impl Client {
    fn collect(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.wire).unwrap();
        }
    }

    fn hear(&mut self, sim: &mut Sim) {
        let came = sim.take_received(self.peer);
        let mut rest = &came[..];
        while !self.is_over && !rest.is_empty() && self.tls.read_tls(&mut rest).is_ok_and(|read| read > 0) {
            match self.tls.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut plain).unwrap();
                }
                Err(_) => self.is_over = true,
            }
        }
        self.collect();
    }
}

/// # Panics
/// If the layer does, if something is left, or if what was handed on is not what was said.
pub fn run(data: &[u8]) {
    let (server, config) = both();
    let heard = Rc::<RefCell<Vec<u8>>>::default();
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen({
        let heard = Rc::clone(&heard);
        move |_peer| Layered::new(server.layer(), Echo(Rc::clone(&heard)))
    });
    let tls = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    let peer = sim.connect(listener);
    let mut client = Client { tls, peer, wire: Vec::new(), said: Vec::new(), is_over: false };
    client.collect();
    for order in data.chunks(3) {
        let [what, a, b] = [0, 1, 2].map(|at| order.get(at).copied().unwrap_or(0));
        let at = usize::from(a) * client.wire.len() / 256;
        match what % 16 {
            0..=2 => {
                let wire = std::mem::take(&mut client.wire);
                sim.send(peer, &wire);
            }
            3 => {
                let wire: Vec<u8> = client.wire.drain(..at).collect();
                sim.send(peer, &wire);
            }
            4 | 5 => sim.settle(),
            6 => _ = sim.turn(),
            7 if !client.is_over => {
                let text: Vec<u8> = (0..usize::from(a) * 4).map(|at| at as u8 ^ b).collect();
                client.said.extend(&text);
                client.tls.writer().write_all(&text).unwrap();
            }
            8 if !client.is_over => drop(client.tls.refresh_traffic_keys()),
            9 if !client.is_over => {
                client.tls.send_close_notify();
                client.is_over = true;
            }
            10 if !client.wire.is_empty() => client.wire[at] ^= b,
            11 => client.wire.insert(at, b),
            12 => {
                let until = (at + usize::from(b)).min(client.wire.len());
                drop(client.wire.drain(at..until));
            }
            13 => sim.send(peer, &[a, 3, 3, 0, b]),
            14 => sim.finish(peer),
            15 if a % 2 == 0 => sim.stop_reading(peer),
            15 => sim.start_reading(peer),
            _ => {}
        }
        client.hear(&mut sim);
    }
    sim.send(peer, &client.wire);
    sim.finish(peer);
    sim.start_reading(peer);
    sim.advance(Duration::from_secs(60));
    assert!(client.said.starts_with(&heard.borrow()), "what was handed on was not said");
    let stats = sim.stats();
    assert_eq!((stats.panics, sim.open(), sim.blocks_in_use()), (0, 0, 0));
}
