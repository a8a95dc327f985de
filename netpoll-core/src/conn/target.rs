//! What `listen` and `connect` take: an address, several, or a name that has to be looked up.
//!
//! It is made without a system call and without an error, so that it can be handed to another thread as it is; what is wrong
//! with it is said where it is used.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crate::sys::{Address, ParseAddressError, UnixAddress};

/// Where to listen or to connect to: an [`Address`], a name with a port, or several addresses of one place.
///
/// Made from `"127.0.0.1:80"`, `"[::1]:80"`, `"localhost:80"`, `"unix:/run/x.sock"`, `"unix:@name"`, from
/// `("localhost", 80)`, from a [`SocketAddr`], an [`Address`], a slice or `Vec` of either, or a [`Path`], which is that of a Unix socket. What cannot be
/// understood is an error where it is used.
///
/// ```
/// use netpoll_core::Target;
///
/// assert_eq!(Target::from(("localhost", 80)).to_string(), "localhost:80");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Place);

/// What a target turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One address, or several of which any will do.
    Known(Address, Vec<Address>),
    /// To be looked up.
    Name(String, u16),
    /// Nothing of these: its text, and why.
    Nothing(String, &'static str),
}

impl Target {
    /// Looks it up, unless it is an address already, and waits for the answer: the addresses, in the order of the system's
    /// resolver (getaddrinfo(3)); one at least.
    ///
    /// # Errors
    /// It is malformed (`InvalidInput`), or the name has no address (`NotFound`); the resolver's.
    pub fn resolve(&self) -> io::Result<Vec<Address>> {
        match &self.0 {
            Place::Known(first, others) => Ok(std::iter::once(first).chain(others).cloned().collect()),
            Place::Name(name, port) => look_up(name, *port),
            Place::Nothing(text, why) => Err(malformed(text, why)),
        }
    }

    pub(crate) fn into_place(self) -> Place {
        self.0
    }

    fn of(address: impl Into<Address>) -> Self {
        Self(Place::Known(address.into(), Vec::new()))
    }

    fn of_unix(name: Result<Address, ParseAddressError>, text: impl fmt::Display) -> Self {
        match name {
            Ok(address) => Self::of(address),
            Err(_) => Self(Place::Nothing(format!("unix:{text}"), "not the path of a socket")),
        }
    }
}

/// Asks the system's resolver, which may take as long as it likes.
pub(crate) fn look_up(name: &str, port: u16) -> io::Result<Vec<Address>> {
    let found = (name, port).to_socket_addrs().map_err(|error| no_address(error.kind(), name, &error))?;
    let found: Vec<Address> = found.map(Address::from).collect();
    if found.is_empty() {
        return Err(no_address(io::ErrorKind::NotFound, name, &"it has none"));
    }
    Ok(found)
}

/// The error of a name without an address: it says which.
pub(crate) fn no_address(kind: io::ErrorKind, name: &str, why: &dyn fmt::Display) -> io::Error {
    io::Error::new(kind, format!("no address of {name:?}: {why}"))
}

/// The error of what is no target: it says what.
pub(crate) fn malformed(text: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?}: {why}"))
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Known(first, _) => first.fmt(out),
            Place::Name(name, port) => write!(out, "{name}:{port}"),
            Place::Nothing(text, _) => out.write_str(text),
        }
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        if let Ok(address) = text.parse::<Address>() {
            return Self::of(address);
        }
        let nothing = |why| Self(Place::Nothing(text.to_owned(), why));
        if text.starts_with("unix:") {
            return nothing(
                "not the name of a Unix socket: unix:/run/x.sock or unix:@name, of at most 107 bytes",
            );
        }
        match text.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
            // A URL is none, and no name has a slash in it.
            Some((name, Ok(port))) if !name.is_empty() && !name.contains('/') => {
                Self(Place::Name(name.to_owned(), port))
            }
            _ => nothing("not of the form name:port, 127.0.0.1:80, [::1]:80, unix:/run/x.sock or unix:@name"),
        }
    }
}

impl From<&String> for Target {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<(&str, u16)> for Target {
    fn from((name, port): (&str, u16)) -> Self {
        match name.parse::<IpAddr>() {
            Ok(ip) => Self::of((ip, port)),
            Err(_) if name.is_empty() => Self(Place::Nothing(format!(":{port}"), "an empty name")),
            Err(_) => Self(Place::Name(name.to_owned(), port)),
        }
    }
}

impl From<(String, u16)> for Target {
    fn from((name, port): (String, u16)) -> Self {
        Self::from((name.as_str(), port))
    }
}

/// Any of these will do: what [`lookup`](crate::net::lookup) has found, for one.
impl From<&[Address]> for Target {
    fn from(addresses: &[Address]) -> Self {
        match addresses {
            [first, others @ ..] => Self(Place::Known(first.clone(), others.to_vec())),
            [] => Self(Place::Nothing(String::new(), "no address")),
        }
    }
}

/// Any of these will do.
impl From<Vec<Address>> for Target {
    fn from(addresses: Vec<Address>) -> Self {
        Self::from(&addresses[..])
    }
}

/// Any of these will do.
impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Self {
        Self::from(&addrs[..])
    }
}

/// Any of these will do.
impl From<&[SocketAddr]> for Target {
    fn from(addrs: &[SocketAddr]) -> Self {
        match addrs {
            [first, others @ ..] => {
                Self(Place::Known((*first).into(), others.iter().copied().map(Address::from).collect()))
            }
            [] => Self(Place::Nothing(String::new(), "no address")),
        }
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::of_unix(Address::unix(path), path.display())
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&PathBuf> for Target {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&SocketAddr> for Target {
    fn from(addr: &SocketAddr) -> Self {
        Self::of(*addr)
    }
}

impl From<&Address> for Target {
    fn from(address: &Address) -> Self {
        Self::of(address.clone())
    }
}

macro_rules! from_addresses {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Target {
            fn from(address: $kind) -> Self {
                Self::of(address)
            }
        }
    )*};
}

from_addresses!(
    Address,
    UnixAddress,
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

#[cfg(test)]
mod tests {
    use super::*;

    fn place(target: impl Into<Target>) -> Place {
        target.into().into_place()
    }

    #[test]
    fn an_address_is_known_and_a_name_is_to_be_looked_up() {
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/x.sock", "unix:@x"] {
            assert!(matches!(place(text), Place::Known(address, _) if address.to_string() == text), "{text}");
        }
        assert_eq!(place("localhost:80"), Place::Name("localhost".to_owned(), 80));
        assert_eq!(place(("::1", 80)), place("[::1]:80"));
        assert_eq!(place(Path::new("/run/x.sock")), place("unix:/run/x.sock"));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_where_it_is_used() {
        for text in [
            "",
            "localhost",
            ":80",
            "localhost:http",
            "unix:",
            "unix:/\0",
            "localhost:70000",
            "http://localhost:80",
        ] {
            let error = Target::from(text).resolve().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{text:?}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        let none: [Address; 0] = [];
        assert!(Target::from(Path::new("")).resolve().is_err() && Target::from(&none[..]).resolve().is_err());
        let both: Vec<Address> = vec!["[::1]:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()];
        assert_eq!(Target::from(both.clone()).resolve().unwrap(), both);
    }

    #[test]
    fn a_name_is_looked_up_by_the_system() {
        let found = Target::from("localhost:80").resolve().unwrap();
        assert!(
            found.iter().all(|address| address.ip().unwrap().is_loopback() && address.port() == Some(80))
        );
    }
}
