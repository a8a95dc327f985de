//! Who an end says it is: certificate chains with their keys, from files, and which of them a client is shown.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::provider::provider;

/// A chain of certificates, and the key of the first one.
///
/// ECDSA with P-256 is the key to have: a handshake with RSA takes the worker three times as long.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// Where they were read: certificates, key.
    files: Option<(Arc<Path>, Arc<Path>)>,
}

impl Identity {
    /// From two PEM files: the certificates, that of the host itself first and those of its issuers behind it, and the private key (PKCS #8, SEC 1 or
    /// PKCS #1, not encrypted). They may be one file. Read at once, and again by [`TlsServer::reload`](super::TlsServer::reload).
    ///
    /// # Errors
    /// A file that cannot be read, has no certificate or no key in it, or a key that is not that of the certificate. The text begins
    /// with the file.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let chain = read_certificates(certificates)?;
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, "private key", error))?;
        let read = Self::new(chain, private).map_err(|error| {
            let text = format!("{} with {}: {error}", certificates.display(), key.display());
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { files: Some((certificates.into(), key.into())), ..read })
    }

    /// The same as it is in its files now; of one that was not read from files, itself.
    pub(super) fn read_again(&self) -> io::Result<Self> {
        match &self.files {
            Some((certificates, key)) => Self::from_pem_files(certificates, key),
            None => Ok(self.clone()),
        }
    }

    /// From what a program has otherwise. Certificates as in [`from_pem_files`](Self::from_pem_files).
    ///
    /// # Errors
    /// `InvalidData` if there is no certificate, or if the key is not that of the first one or of no kind that is known.
    pub fn new(certificates: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> io::Result<Self> {
        let key = CertifiedKey::from_der(certificates, key, &provider()).map_err(invalid)?;
        // Whether it is one is known when it is parsed; a client would be told in every handshake.
        ParsedCertificate::try_from(key.end_entity_cert().map_err(invalid)?).map_err(invalid)?;
        Ok(Self { key: Arc::new(key), files: None })
    }

    pub(super) fn is_from_files(&self) -> bool {
        self.files.is_some()
    }

    /// It is this one, and not one with the same content.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let Some(certificate) = self.key.cert.first() else { return false };
        ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.key.cert.len()).finish_non_exhaustive()
    }
}

/// The certificates of those who are trusted to have issued others, from a PEM file.
///
/// # Errors
/// A file that cannot be read or has no certificate in it, or one of them that can be trusted in nothing. The text begins with the file.
pub fn roots_from_pem_file(path: impl AsRef<Path>) -> io::Result<RootCertStore> {
    let path = path.as_ref();
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let failed = |error| of_file(path, "certificate", error);
    let chain = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(failed)?;
    if chain.is_empty() {
        return Err(of_file(path, "certificate", pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn of_file(path: &Path, what: &str, error: pem::Error) -> io::Error {
    let path = path.display();
    match error {
        pem::Error::Io(error) => io::Error::new(error.kind(), format!("{path}: {error}")),
        pem::Error::NoItemsFound => {
            io::Error::new(io::ErrorKind::InvalidData, format!("{path}: no {what} in PEM is in this file"))
        }
        error => io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error}")),
    }
}

pub fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

thread_local! {
    /// The host that was named in the hello that rustls works on, which does not keep it where we could ask.
    static NAMED_HOST: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The host that was named in the hello that this thread has worked on last. Once.
pub fn take_named_host() -> Option<Box<str>> {
    NAMED_HOST.take()
}

/// Leaves the choice to another, and remembers the host.
#[derive(Debug)]
pub struct Remembering(pub Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Remembering {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        NAMED_HOST.set(hello.server_name().map(|name| name.to_ascii_lowercase().into()));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// Shows the first that has the name that a client asks for and a key that it understands; the first of all, where none has.
#[derive(Debug)]
pub struct Identities(pub Vec<Identity>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_understood =
            |identity: &&Identity| identity.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = name.and_then(|name| {
            self.0.iter().filter(is_understood).find(|identity| self.0.len() == 1 || identity.is_for(&name))
        });
        let chosen = named.or_else(|| self.0.iter().find(is_understood)).or(self.0.first())?;
        Some(Arc::clone(&chosen.key))
    }
}
