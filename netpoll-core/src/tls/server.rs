//! The settings of a server, shared by its workers, and the layer for each of its connections.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::identity::{Identities, Identity, Remembering, invalid};
use super::layer::{HandshakeLimits, Tls};
use super::provider::{provider, ticketer};

/// TLS for connections that are accepted. A clone is the same server.
///
/// Sessions are resumed by tickets, one for each handshake: the client keeps the session, sealed by a key that all workers share, and no memory of it
/// stays here. There is no early data (0-RTT), which could be replayed. TLS 1.3 and 1.2.
///
/// A handshake takes the worker 0.1 to 0.2 ms, in which it does nothing else, and takes a read lock that nobody holds but [`replace`](Self::replace).
#[derive(Clone)]
pub struct TlsServer {
    shared: Arc<Shared>,
}

struct Shared {
    config: RwLock<Arc<ServerConfig>>,
    limits: HandshakeLimits,
}

impl TlsServer {
    /// Settings for a server that shows this identity.
    #[must_use]
    pub fn builder(identity: Identity) -> TlsServerBuilder {
        TlsServerBuilder {
            identities: vec![identity],
            alpn: Vec::new(),
            clients: None,
            limits: HandshakeLimits::default(),
        }
    }

    /// A server with settings of rustls' own, for what the builder does not have. Its defaults are others than here: sessions are kept in a
    /// cache of the process, behind a lock, and each handshake makes two tickets.
    ///
    /// # Errors
    /// `InvalidData` if rustls does not take them.
    pub fn from_config(config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        let mut config = Arc::unwrap_or_clone(config.into());
        config.cert_resolver = Arc::new(Remembering(config.cert_resolver));
        Self::with(Arc::new(config), HandshakeLimits::default())
    }

    fn with(config: Arc<ServerConfig>, limits: HandshakeLimits) -> io::Result<Self> {
        UnbufferedServerConnection::new(Arc::clone(&config)).map_err(invalid)?;
        Ok(Self { shared: Arc::new(Shared { config: RwLock::new(config), limits }) })
    }

    /// TLS for one more connection.
    ///
    /// ```
    /// # use netpoll_core::{Conn, Flow, Input, Protocol};
    /// use netpoll_core::tls::{Identity, TlsServer};
    /// use netpoll_core::{Layered, Runtime};
    ///
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    /// #         conn.send(input.bytes());
    /// #         input.advance_all();
    /// #         Flow::Continue
    /// #     }
    /// # }
    /// # fn main() -> std::io::Result<()> {
    /// # let (certificates, key) = ("tests/tls/pems/server.pem", "tests/tls/pems/server-key.pem");
    /// let tls = TlsServer::builder(Identity::from_pem_files(certificates, key)?).build()?;
    /// let server = Runtime::builder().listen("127.0.0.1:0", move |_worker| {
    ///     let tls = tls.clone();
    ///     move |_peer| Layered::new(tls.layer(), Echo)
    /// })?;
    /// # server.start()?.stop(std::time::Duration::from_secs(1))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If rustls does not take settings that it has taken before.
    #[must_use]
    pub fn layer(&self) -> Tls<UnbufferedServerConnection> {
        let config = Arc::clone(&self.shared.config.read().unwrap_or_else(PoisonError::into_inner));
        let machine =
            UnbufferedServerConnection::new(config).expect("rustls has taken these settings before");
        Tls::new(machine, self.shared.limits)
    }

    /// Shows other identities from here on, the first of them to who asks for none of theirs: certificates that were renewed. Connections
    /// keep those that they have begun with, also where the handshake is under way, and tickets are good as before. From any thread.
    ///
    /// # Errors
    /// `InvalidInput` if there are none; then nothing changes.
    pub fn replace(&self, identities: Vec<Identity>) -> io::Result<()> {
        if identities.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a TLS server has an identity"));
        }
        let mut config = self.shared.config.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = ServerConfig::clone(&config);
        next.cert_resolver = Arc::new(Remembering(Arc::new(Identities(identities))));
        *config = Arc::new(next);
        Ok(())
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

/// Settings of a [`TlsServer`].
#[derive(Debug)]
pub struct TlsServerBuilder {
    identities: Vec<Identity>,
    alpn: Vec<Vec<u8>>,
    clients: Option<(RootCertStore, bool)>,
    limits: HandshakeLimits,
}

impl TlsServerBuilder {
    /// One more identity, for clients that name a host that is in its certificate and not in one that came before (SNI). Who names another
    /// host, or none, is shown the first. Each of them is looked at in each handshake, which takes about a microsecond.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// The protocols that are spoken above, the preferred first, such as `["h2", "http/1.1"]` (ALPN). Default none: the client is not asked. With
    /// some, a client that offers others is refused, and one that offers none is not.
    #[must_use]
    pub fn alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.alpn = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// Clients have to show a certificate that one of these has issued; by default they are not asked. Whose it is,
    /// [`TlsFacts::peer_certificates`](super::TlsFacts::peer_certificates) says.
    #[must_use]
    pub fn require_client_certificates(mut self, roots: RootCertStore) -> Self {
        self.clients = Some((roots, true));
        self
    }

    /// Clients are asked for a certificate and may have none. One that is not good is refused.
    #[must_use]
    pub fn ask_for_client_certificates(mut self, roots: RootCertStore) -> Self {
        self.clients = Some((roots, false));
        self
    }

    /// How long a handshake may take, from the first moment of the connection. Default 10 s: a few round trips with retransmissions. Behind it
    /// the connection is closed.
    #[must_use]
    pub fn handshake_time(mut self, time: Duration) -> Self {
        self.limits.time = time;
        self
    }

    /// Bytes of a handshake that may wait for the rest of a message. Default 64 KiB, which is also the most that rustls takes of one: the
    /// certificates of a client take a few. Above it the connection is closed.
    #[must_use]
    pub fn handshake_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes;
        self
    }

    /// The server.
    ///
    /// # Errors
    /// `InvalidInput` if certificates of clients are wanted and the store of roots is empty. Whatever the random numbers of the system fail by.
    pub fn build(self) -> io::Result<TlsServer> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(invalid)?;
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some((roots, is_required)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build();
                let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
                builder.with_client_cert_verifier(verifier.map_err(invalid)?)
            }
        };
        let identities = Arc::new(Identities(self.identities));
        let mut config = builder.with_cert_resolver(Arc::new(Remembering(identities)));
        config.alpn_protocols = self.alpn;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer()?;
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        TlsServer::with(Arc::new(config), self.limits)
    }
}
