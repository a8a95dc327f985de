//! What a socket is called: an IP address with a port, or a name in the Unix domain.
//!
//! Invariant: a Unix name fits into a `sockaddr_un`, and a path in one is not empty and has no NUL (unix(7)). Whoever
//! makes one checks it; nobody else has to.
//!
//! Cost: 32 bytes, like a `SocketAddr`. A Unix name is shared, so that a clone copies no bytes; a peer in the Unix domain
//! hardly ever has one.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use socket2::SockAddr;

use super::system::{HAS_ABSTRACT_NAMES, PATH_TOO_LONG};

/// What a path may have, without the NUL behind it, and an abstract name, without the NUL before it.
pub(super) const UNIX_NAME_MAX: usize =
    size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// Where a socket is: an IPv4 or IPv6 address with a port, or a name in the Unix domain.
///
/// Written and read as `127.0.0.1:80`, `[::1]:80`, `unix:/run/x.sock` and, for an abstract name, `unix:@name`.
///
/// ```
/// use netpoll_core::Address;
///
/// let address: Address = "[::1]:80".parse()?;
/// assert_eq!(address.port(), Some(80));
/// let address: Address = "unix:/run/app.sock".parse()?;
/// assert_eq!((address.ip(), address.to_string()), (None, "unix:/run/app.sock".to_owned()));
/// # Ok::<(), netpoll_core::ParseAddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address with a port.
    Inet(SocketAddr),
    /// A name in the Unix domain.
    Unix(UnixAddress),
    /// Nobody has said: of a peer whose driver accepts without asking. [`Conn::peer_addr`](crate::Conn::peer_addr) asks.
    Unknown,
}

const _: () = assert!(size_of::<Address>() == 32 && size_of::<Option<Address>>() == 32);

/// A name in the Unix domain: a path, an abstract name, or none. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct UnixAddress(
    /// As in `sun_path`: an abstract name begins with a NUL.
    Option<Arc<[u8]>>,
);

impl UnixAddress {
    /// A socket without a name, as that of most peers.
    pub const UNNAMED: Self = Self(None);

    /// A socket in the file system.
    ///
    /// # Errors
    /// The path is empty, has a NUL, or is longer than 107 bytes (`sockaddr_un`; 103 on macOS).
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, ParseAddressError> {
        let bytes = path.as_ref().as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(ParseAddressError("an empty path"));
        }
        if bytes.contains(&0) {
            return Err(ParseAddressError("a path with a NUL"));
        }
        if bytes.len() > UNIX_NAME_MAX {
            return Err(ParseAddressError(PATH_TOO_LONG));
        }
        Ok(Self(Some(bytes.into())))
    }

    /// A name in the abstract namespace, which has no file, and goes with its last socket. Without the leading NUL. Only Linux has it: elsewhere
    /// binding and connecting are refused (`Unsupported`).
    ///
    /// # Errors
    /// The name is empty or longer than a path may be.
    pub fn from_abstract_name(name: impl AsRef<[u8]>) -> Result<Self, ParseAddressError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(ParseAddressError("an empty abstract name"));
        }
        if name.len() > UNIX_NAME_MAX {
            return Err(ParseAddressError("an abstract name has at most 107 bytes"));
        }
        Ok(Self(Some([&[0], name].concat().into())))
    }

    /// The path, if it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match self.0.as_deref() {
            None | Some([0, ..]) => None,
            Some(bytes) => Some(Path::new(OsStr::from_bytes(bytes))),
        }
    }

    /// The abstract name, without its leading NUL, if it is one.
    #[must_use]
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match self.0.as_deref() {
            Some([0, name @ ..]) => Some(name),
            _ => None,
        }
    }

    /// It has no name.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_none()
    }
}

impl Address {
    /// The address of a socket in the file system.
    ///
    /// # Errors
    /// Those of [`UnixAddress::from_path`].
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, ParseAddressError> {
        UnixAddress::from_path(path).map(Self::Unix)
    }

    /// The IP address, if it has one.
    #[inline]
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_socket_addr().map(|addr| addr.ip())
    }

    /// The port, if it has one.
    #[inline]
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.as_socket_addr().map(|addr| addr.port())
    }

    /// The IP address with its port, if it is one.
    #[inline]
    #[must_use]
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Unix(_) | Self::Unknown => None,
        }
    }

    /// The name in the Unix domain, if it is one.
    #[must_use]
    pub fn as_unix(&self) -> Option<&UnixAddress> {
        match self {
            Self::Unix(name) => Some(name),
            Self::Inet(_) | Self::Unknown => None,
        }
    }

    /// The path of a socket in the file system, if it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        self.as_unix()?.as_path()
    }

    /// In the Unix domain.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// As the kernel has it.
    pub(super) fn from_kernel(addr: &SockAddr) -> Self {
        let name = match (addr.as_pathname(), addr.as_abstract_namespace()) {
            _ if addr.domain() != socket2::Domain::UNIX => {
                return addr.as_socket().map_or(Self::Unknown, Self::Inet);
            }
            (Some(path), _) => UnixAddress::from_path(path),
            (_, Some(name)) => UnixAddress::from_abstract_name(name),
            (None, None) => Ok(UnixAddress::UNNAMED),
        };
        // The kernel knows no other names, but takes a path of 108 bytes without a NUL.
        name.map_or(Self::Unknown, Self::Unix)
    }

    /// As the kernel wants it.
    ///
    /// # Errors
    /// It names nothing.
    pub(super) fn to_kernel(&self) -> io::Result<SockAddr> {
        match self {
            Self::Inet(addr) => Ok((*addr).into()),
            Self::Unix(UnixAddress(Some(name))) if name[0] == 0 && !HAS_ABSTRACT_NAMES => {
                Err(no_abstract_names())
            }
            Self::Unix(UnixAddress(Some(name))) => SockAddr::unix(OsStr::from_bytes(name)),
            Self::Unix(UnixAddress(None)) | Self::Unknown => Err(ParseAddressError("no address").into()),
        }
    }
}

/// What abstract names are where there are none.
#[cold]
pub(super) fn no_abstract_names() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "abstract names of sockets are Linux's: take a path")
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_path(), self.as_abstract_name()) {
            // Which would read as an abstract name.
            (Some(path), _) if path.as_os_str().as_bytes().starts_with(b"@") => {
                write!(out, "unix:./{}", path.display())
            }
            (Some(path), _) => write!(out, "unix:{}", path.display()),
            (_, Some(name)) => write!(out, "unix:@{}", OsStr::from_bytes(name).display()),
            (None, None) => out.write_str("unix:"),
        }
    }
}

impl fmt::Debug for UnixAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(out),
            Self::Unix(name) => name.fmt(out),
            Self::Unknown => out.write_str("unknown"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix("unix:") {
            Some(name) => name.parse().map(Self::Unix),
            None => text.parse().map(Self::Inet).map_err(|_| {
                ParseAddressError("not of the form 127.0.0.1:80, [::1]:80, unix:/run/x.sock or unix:@name")
            }),
        }
    }
}

/// What stands behind `unix:`.
impl FromStr for UnixAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix('@') {
            Some(name) => Self::from_abstract_name(name),
            None => Self::from_path(text),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl From<SocketAddrV4> for Address {
    fn from(addr: SocketAddrV4) -> Self {
        Self::Inet(addr.into())
    }
}

impl From<SocketAddrV6> for Address {
    fn from(addr: SocketAddrV6) -> Self {
        Self::Inet(addr.into())
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(addr: (I, u16)) -> Self {
        Self::Inet(addr.into())
    }
}

impl From<UnixAddress> for Address {
    fn from(name: UnixAddress) -> Self {
        Self::Unix(name)
    }
}

impl TryFrom<&Path> for Address {
    type Error = ParseAddressError;

    fn try_from(path: &Path) -> Result<Self, ParseAddressError> {
        Self::unix(path)
    }
}

impl TryFrom<PathBuf> for Address {
    type Error = ParseAddressError;

    fn try_from(path: PathBuf) -> Result<Self, ParseAddressError> {
        Self::unix(path)
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.as_socket_addr() == Some(*other)
    }
}

/// So that a client of `std` connects to it: [`TcpStream::connect`](std::net::TcpStream::connect). One in the Unix domain is
/// an error (`InvalidInput`).
impl ToSocketAddrs for Address {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        match self.as_socket_addr() {
            Some(addr) => Ok(Some(addr).into_iter()),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{self} has no IP address"))),
        }
    }
}

/// Why something is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseAddressError(&'static str);

impl fmt::Display for ParseAddressError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

impl std::error::Error for ParseAddressError {}

impl From<ParseAddressError> for io::Error {
    fn from(error: ParseAddressError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in
            ["127.0.0.1:80", "[::1]:8080", "unix:/run/x.sock", "unix:x.sock", "unix:@name", "unix:/a b:c"]
        {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("127.0.0.1:80").as_socket_addr(), "127.0.0.1:80".parse().ok());
        assert_eq!(parsed("unix:/run/x.sock").as_path(), Some(Path::new("/run/x.sock")));
        assert_eq!(parsed("unix:@name").as_unix().unwrap().as_abstract_name(), Some(&b"name"[..]));
        assert_eq!((parsed("unix:@name").as_path(), parsed("unix:@name").port()), (None, None));
    }

    #[test]
    fn what_names_nothing_is_no_address() {
        for text in
            ["", "127.0.0.1", "localhost:80", "127.0.0.1:70000", "unix:", "unix:@", "unix:/a\0b", "unknown"]
        {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        assert!(format!("unix:/{}", "x".repeat(UNIX_NAME_MAX - 1)).parse::<Address>().is_ok());
        assert!(format!("unix:/{}", "x".repeat(UNIX_NAME_MAX)).parse::<Address>().is_err());
        assert!(format!("unix:@{}", "x".repeat(UNIX_NAME_MAX)).parse::<Address>().is_ok());
        assert!(format!("unix:@{}", "x".repeat(UNIX_NAME_MAX + 1)).parse::<Address>().is_err());
    }

    #[test]
    fn a_relative_path_that_looks_like_an_abstract_name_is_written_as_a_path() {
        let address = Address::unix("@x").unwrap();
        assert_eq!(address.to_string(), "unix:./@x");
        assert_eq!(parsed("unix:./@x").as_path(), Some(Path::new("./@x")));
    }

    proptest! {
        #[test]
        fn every_name_goes_to_the_kernel_and_comes_back(bytes in proptest::collection::vec(1_u8.., 1..=UNIX_NAME_MAX), is_path: bool) {
            let name = match is_path {
                true => UnixAddress::from_path(OsStr::from_bytes(&bytes)),
                false => UnixAddress::from_abstract_name(&bytes),
            };
            let address = Address::Unix(name.unwrap());
            match address.to_kernel() {
                Ok(kernels) => prop_assert_eq!(&Address::from_kernel(&kernels), &address),
                Err(error) => prop_assert!(!is_path && !HAS_ABSTRACT_NAMES, "{}", error),
            }
        }

        #[test]
        fn whatever_is_read_is_written_the_same(text in "(unix:)?[@/]?[ -~]{0,120}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }

        #[test]
        fn an_ip_address_goes_to_the_kernel_and_comes_back(ip: IpAddr, port: u16) {
            let address = Address::from((ip, port));
            prop_assert_eq!(&Address::from_kernel(&address.to_kernel().unwrap()), &address);
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }
}
