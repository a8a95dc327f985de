//! The settings of a client, and the layer for each connection that it makes.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::identity::{Identity, invalid};
use super::layer::{HandshakeLimits, Tls};
use super::provider::provider;

/// TLS for connections that are made. A clone is the same client.
///
/// Sessions are resumed by the tickets of servers, of which the process keeps those of 256 servers, behind a lock that a handshake takes. No early data
/// is sent. TLS 1.3 and 1.2.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    limits: HandshakeLimits,
}

impl TlsClient {
    /// Settings for a client that trusts those whom these have vouched for. There is no other trust: not that of the system, and no list of ours.
    #[must_use]
    pub fn builder(roots: RootCertStore) -> TlsClientBuilder {
        TlsClientBuilder { roots, alpn: Vec::new(), identity: None, limits: HandshakeLimits::default() }
    }

    /// A client with settings of rustls' own, for what the builder does not have.
    #[must_use]
    pub fn from_config(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self { config: config.into(), limits: HandshakeLimits::default() }
    }

    /// TLS for one more connection, to a server that has to be this one: a name of DNS or an IP address. If it is not, or cannot show it, the
    /// connection ends before the protocol above opens, with [`Lost::LayerFailed`](crate::Lost::LayerFailed), in which is the
    /// `rustls::Error`.
    ///
    /// ```
    /// # use netpoll_core::{Commands, Conn, Flow, Input, Protocol};
    /// use netpoll_core::tls::TlsClient;
    /// use netpoll_core::{ConnectOptions, Layered};
    ///
    /// # struct Query;
    /// # impl Protocol for Query {
    /// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow { Flow::Close }
    /// # }
    /// fn ask(tls: &TlsClient, commands: &mut Commands) -> std::io::Result<()> {
    ///     let layer = tls.layer("example.com")?;
    ///     commands.connect("example.com:443", ConnectOptions::default(), Layered::new(layer, Query));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if it is neither. `InvalidData` if rustls does not take the settings.
    pub fn layer(&self, server: &str) -> io::Result<Tls<UnbufferedClientConnection>> {
        let name = ServerName::try_from(server.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{server:?}: {error}")))?;
        let machine = UnbufferedClientConnection::new(Arc::clone(&self.config), name).map_err(invalid)?;
        Ok(Tls::new(machine, self.limits))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Settings of a [`TlsClient`].
#[derive(Debug)]
pub struct TlsClientBuilder {
    roots: RootCertStore,
    alpn: Vec<Vec<u8>>,
    identity: Option<Identity>,
    limits: HandshakeLimits,
}

impl TlsClientBuilder {
    /// The protocols that may be spoken above, the preferred first (ALPN). Default none: nothing is offered.
    #[must_use]
    pub fn alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.alpn = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// Who this client is, for servers that ask. Default nobody.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// How long a handshake may take, from the moment that the connection is made. Default 10 s, as for a
    /// [server](super::TlsServerBuilder::handshake_time).
    #[must_use]
    pub fn handshake_time(mut self, time: Duration) -> Self {
        self.limits.time = time;
        self
    }

    /// Bytes of a handshake that may wait for the rest of a message. Default 64 KiB, as for a
    /// [server](super::TlsServerBuilder::handshake_bytes_max).
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

    /// The client.
    ///
    /// # Errors
    /// `InvalidData` if rustls does not take the settings.
    pub fn build(self) -> io::Result<TlsClient> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(invalid)?;
        let builder = builder.with_root_certificates(self.roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
            }
        };
        config.alpn_protocols = self.alpn;
        Ok(TlsClient { config: Arc::new(config), limits: self.limits })
    }
}
