//! TLS between a connection and its protocol, by rustls (feature `tls`).
//!
//! [`TlsServer`] and [`TlsClient`] are settings, shared by all workers. Each makes a [`Tls`] for each connection, which is a
//! [`Layer`](crate::Layer): [`Layered`](crate::Layered) puts it around a protocol, which is the same as without.
//! What was agreed upon is in [`TlsFacts`], who we are in [`Identity`], and why it came to nothing in
//! [`Lost::LayerFailed`](crate::Lost::LayerFailed).
//!
//! Both ends in one world, which have a certificate and its issuer from files:
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::tls::{Identity, TlsClient, TlsFacts, TlsServer, roots_from_pem_file};
//! use netpoll_core::{Conn, ConnectOptions, Flow, Input, Layered, Protocol};
//!
//! /// Says by which protocol it is spoken to, and to whom.
//! struct Greeter;
//!
//! impl Protocol for Greeter {
//!     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
//!         let facts = conn.layer_facts::<TlsFacts>().expect("it is behind TLS");
//!         conn.send(format!("{:?}, {:?}", facts.version(), facts.server_name()).as_bytes());
//!         Flow::Close // behind a `close_notify`
//!     }
//!
//!     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
//!         Flow::Close
//!     }
//! }
//!
//! /// Keeps what it is told.
//! struct Listener(Rc<RefCell<Vec<u8>>>);
//!
//! impl Protocol for Listener {
//!     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
//!         self.0.borrow_mut().extend_from_slice(input.bytes());
//!         input.advance_all();
//!         Flow::Continue
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! # let (certificates, key) = ("tests/tls/pems/server.pem", "tests/tls/pems/server-key.pem");
//! # let issuer = "tests/tls/pems/ca.pem";
//! let server = TlsServer::builder(Identity::from_pem_files(certificates, key)?).build()?;
//! let client = TlsClient::builder(roots_from_pem_file(issuer)?).build()?;
//!
//! let mut sim = Sim::new(Options::default());
//! let listener = sim.listen(move |_peer| Layered::new(server.layer(), Greeter));
//! let heard = Rc::new(RefCell::new(Vec::new()));
//! let listening = Layered::new(client.layer("localhost")?, Listener(Rc::clone(&heard)));
//! sim.commands().connect("192.0.2.1:443".parse::<std::net::SocketAddr>().unwrap(), ConnectOptions::default(), listening);
//! sim.settle();
//! # let server = sim.connect(listener);
//! # let dialed = sim.take_dialed().pop().expect("a connection").0;
//! # for _ in 0..8 {
//! #     let bytes = sim.take_received(dialed);
//! #     sim.send(server, &bytes);
//! #     sim.settle();
//! #     let bytes = sim.take_received(server);
//! #     sim.send(dialed, &bytes);
//! #     sim.settle();
//! # }
//! assert_eq!(&heard.borrow()[..], b"TLSv1_3, Some(\"localhost\")");
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! An idle connection takes less than 4 KB, nearly all of it in rustls, and no buffer. A record is 16 KiB at most, in both directions; rustls allocates
//! for each, so what allocates nothing without TLS does with it. Plain text that has come is copied once, out of rustls. Files are read and sealed in pieces of 64 KiB.
//!
//! rustls asks the system for random numbers and the time (of certificates and tickets): a simulated run repeats in what happens, and not in its bytes.
//!
//! The cryptography is that of ring; with the feature `tls-aws-lc-rs` it is that of aws-lc-rs, which is faster and exchanges keys that quantum computers do not
//! find out (X25519MLKEM768), and takes longer to build.

mod client;
mod facts;
mod identity;
mod layer;
mod provider;
mod server;
mod side;

pub use client::{TlsClient, TlsClientBuilder};
pub use facts::TlsFacts;
pub use identity::{Identity, roots_from_pem_file};
pub use layer::Tls;
/// The crate `rustls` that is used here, whose types are in these.
pub use rustls;
pub use server::{TlsServer, TlsServerBuilder};
pub use side::Side;
