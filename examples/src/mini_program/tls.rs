//! The certificate that clients are shown: from files, or made for a trial.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use netpoll_core::Address;
use netpoll_core::tls::{Identity, TlsServer};
use netpoll_http::Server;
use sha2::{Digest as _, Sha256};

use crate::options::{Certificate, Options};

/// Puts a server behind TLS if it is to be, and says what there is to say about that.
pub fn behind(
    server: Server,
    options: &Options,
    told: impl Fn(io::Result<()>) + Send + Sync + 'static,
) -> io::Result<(Server, String)> {
    match &options.certificate {
        None => Ok((server, String::new())),
        Some(Certificate::Files { chain, key }) => {
            let tls = TlsServer::builder(Identity::from_pem_files(chain, key)?).build()?;
            Ok((server.tls(tls).reload_on_hangup(told), String::new()))
        }
        Some(Certificate::OfItsOwn) => {
            let (identity, fingerprint) = of_its_own(&options.addr)?;
            let tls = TlsServer::builder(identity).build()?;
            let said = format!(
                "its certificate is one of its own, for trials, which nobody trusts; SHA-256 {fingerprint}\n"
            );
            Ok((server.tls(tls), said))
        }
    }
}

/// A certificate for this machine's own names and the address that is listened on, by nobody but itself, and the fingerprint that browsers show of it.
fn of_its_own(addr: &Address) -> io::Result<(Identity, String)> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listens_on = addr.as_socket_addr().map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
    names.extend(listens_on.map(|ip: IpAddr| ip.to_string()).filter(|ip| !names.contains(ip)));
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let mut fingerprint = String::new();
    for byte in Sha256::digest(made.cert.der()) {
        let colon = if fingerprint.is_empty() { "" } else { ":" };
        // A string takes all that is written.
        let _ = write!(fingerprint, "{colon}{byte:02X}");
    }
    let identity = Identity::new(vec![made.cert.der().clone()], made.signing_key.into())?;
    Ok((identity, fingerprint))
}
