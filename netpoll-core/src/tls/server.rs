//! The settings of a server, shared by its workers, and the layer for each of its connections.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::identity::{Identities, Identity, Remembering, invalid};
use super::layer::{HandshakeLimits, Tls};
use super::provider::{provider, ticketer};

/// TLS for connections that are accepted. A clone is the same server: its certificates are renewed with those of all others.
///
/// Sessions are resumed by tickets, one for each handshake: the client keeps the session, sealed by a key that all workers share, and no memory of it
/// stays here. There is no early data (0-RTT), which could be replayed. TLS 1.3 and 1.2.
///
/// A handshake takes the worker 0.1 to 0.2 ms, in which it does nothing else, and takes a read lock that nobody holds but [`replace`](Self::replace).
#[derive(Clone)]
pub struct TlsServer {
    shared: Arc<Shared>,
    /// Which of the configurations is its own.
    which: usize,
}

struct Shared {
    now: RwLock<Now>,
    limits: HandshakeLimits,
}

/// What connections begin with that begin now.
struct Now {
    /// One for each list of protocols that is offered.
    configs: Vec<Arc<ServerConfig>>,
    /// What it shows, unless rustls' own settings say that.
    identities: Vec<Identity>,
}

impl Now {
    /// The same with other identities. The key of the tickets stays.
    fn show(&mut self, identities: Vec<Identity>) {
        let shown = Arc::new(Remembering(Arc::new(Identities(identities.clone()))));
        for config in &mut self.configs {
            let mut next = ServerConfig::clone(config);
            next.cert_resolver = Arc::clone(&shown) as _;
            *config = Arc::new(next);
        }
        self.identities = identities;
    }
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
    /// cache of the process, behind a lock, and each handshake makes two tickets. Early data is not taken, whatever they say.
    ///
    /// # Errors
    /// `InvalidData` if rustls does not take them.
    pub fn from_config(config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        let mut config = Arc::unwrap_or_clone(config.into());
        config.max_early_data_size = 0;
        config.cert_resolver = Arc::new(Remembering(config.cert_resolver));
        Self::with(config, Vec::new(), HandshakeLimits::default())
    }

    fn with(config: ServerConfig, identities: Vec<Identity>, limits: HandshakeLimits) -> io::Result<Self> {
        let config = Arc::new(config);
        UnbufferedServerConnection::new(Arc::clone(&config)).map_err(invalid)?;
        let now = RwLock::new(Now { configs: vec![config], identities });
        Ok(Self { shared: Arc::new(Shared { now, limits }), which: 0 })
    }

    fn now(&self) -> RwLockReadGuard<'_, Now> {
        self.shared.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Now> {
        self.shared.now.write().unwrap_or_else(PoisonError::into_inner)
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
        let config = Arc::clone(&self.now().configs[self.which]);
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
        self.change().show(identities);
        Ok(())
    }

    /// Reads the files of its identities again ([`Identity::from_pem_files`]), and shows what is in them from here on, as by [`replace`](Self::replace). Reads files, so it
    /// blocks: on a worker it belongs into [`spawn_blocking`](crate::blocking::spawn_blocking).
    ///
    /// # Errors
    /// That of the first file that cannot be read or is no good; then nothing changes, and the connections go on with what was there before. `InvalidInput` if
    /// none of the identities is from files.
    pub fn reload(&self) -> io::Result<()> {
        loop {
            let before = self.now().identities.clone();
            if !before.iter().any(Identity::is_from_files) {
                let why = "no identity of this TLS server is from files";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let read = before.iter().map(Identity::read_again).collect::<io::Result<Vec<_>>>()?;
            let mut now = self.change();
            let is_as_before = now.identities.len() == before.len()
                && now.identities.iter().zip(&before).all(|(now, before)| now.is(before));
            if is_as_before {
                now.show(read);
                return Ok(());
            }
            // Somebody else was faster, and may have read older files, or shows others: what is there now is read.
        }
    }

    /// The same server for a protocol that has a name, such as `http/1.1`: where the settings offer no protocols (ALPN) it offers these, and a client that wants
    /// another one is refused in the handshake. The clones that there are offer what they did; certificates are renewed for all of them together.
    #[must_use]
    pub fn or_alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let mut now = self.change();
        if !now.configs[self.which].alpn_protocols.is_empty() {
            drop(now);
            return self;
        }
        let mut config = ServerConfig::clone(&now.configs[self.which]);
        config.alpn_protocols = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        let same = now.configs.iter().position(|other| other.alpn_protocols == config.alpn_protocols);
        let which = same.unwrap_or_else(|| {
            now.configs.push(Arc::new(config));
            now.configs.len() - 1
        });
        drop(now);
        self.which = which;
        self
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

    /// Steps that handshakes make in a turn of a worker, all of its connections together: behind so many they give way to everything else, and go on in the next turn. Default 16,
    /// about 2 ms. A step is a record of the peer; a handshake has three of them, of which one takes nearly all of its time. Zero is taken as one.
    #[must_use]
    pub fn handshake_steps_per_turn(mut self, steps: usize) -> Self {
        self.limits.steps_per_turn = steps.max(1);
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
        let shown = Arc::new(Identities(self.identities.clone()));
        let mut config = builder.with_cert_resolver(Arc::new(Remembering(shown)));
        config.alpn_protocols = self.alpn;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer()?;
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        TlsServer::with(config, self.identities, self.limits)
    }
}
