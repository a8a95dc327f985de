//! What both ends of a connection have agreed upon, for the protocol above.

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use super::side::Side;

/// What the handshake of a connection has brought: by [`Conn::layer_facts`](crate::Conn::layer_facts), in every callback of the protocol above.
///
/// ```
/// # use netpoll_core::{Conn, Flow, Input, Protocol};
/// use netpoll_core::tls::TlsFacts;
///
/// /// Speaks one protocol or another, as the client likes.
/// #[derive(Default)]
/// struct Either {
///     is_h2: bool,
/// }
///
/// impl Protocol for Either {
///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
///         // None where the same protocol is served without TLS.
///         let facts = conn.layer_facts::<TlsFacts>();
///         self.is_h2 = facts.is_some_and(|facts| facts.alpn() == Some(b"h2"));
///         Flow::Continue
///     }
/// #   fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #       input.advance_all();
/// #       Flow::Continue
/// #   }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TlsFacts {
    version: ProtocolVersion,
    suite: CipherSuite,
    is_resumed: bool,
    alpn: Option<Box<[u8]>>,
    server_name: Option<Box<str>>,
    peer_certificates: Box<[CertificateDer<'static>]>,
}

impl TlsFacts {
    /// None before the handshake is done.
    pub(super) fn of(machine: &impl Side, server_name: Option<Box<str>>) -> Option<Self> {
        let certificates = machine.peer_certificates().unwrap_or_default();
        Some(Self {
            version: machine.protocol_version()?,
            suite: machine.negotiated_cipher_suite()?.suite(),
            is_resumed: machine.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: machine.alpn_protocol().map(Box::from),
            server_name,
            peer_certificates: certificates.to_vec().into_boxed_slice(),
        })
    }

    /// TLS 1.3 or 1.2.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The cipher suite.
    #[must_use]
    pub fn cipher_suite(&self) -> CipherSuite {
        self.suite
    }

    /// The protocol that both have chosen (ALPN), if both have offered any.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The host that the client has named (SNI), in lower case. `None` on the client's own side.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The certificates that the peer has shown and that were found good, its own first. Empty where it was not asked or has none. Those of a
    /// session that was resumed are those of its beginning.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// The session was resumed by a ticket: nobody has shown a certificate this time.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
