//! Whose cryptography it is: that of ring, or of aws-lc-rs by the feature `tls-aws-lc-rs`.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
#[cfg(feature = "tls-aws-lc-rs")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(not(feature = "tls-aws-lc-rs"))]
use rustls::crypto::ring as chosen;
use rustls::server::ProducesTickets;

/// One for the process, named everywhere: what others install as rustls' default changes nothing here.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(chosen::default_provider())))
}

/// What makes and reads tickets, with keys that live for twelve hours.
pub fn ticketer() -> io::Result<Arc<dyn ProducesTickets>> {
    chosen::Ticketer::new().map_err(io::Error::other)
}
