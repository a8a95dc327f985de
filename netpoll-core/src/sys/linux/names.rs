//! Names in the Unix domain that have no file: an abstract namespace, which goes with its sockets.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

/// There are such names.
pub const HAS_ABSTRACT_NAMES: bool = true;

/// Of a path that is longer than the kernel's `sockaddr_un` has room for.
pub const PATH_TOO_LONG: &str = "the path of a socket has at most 107 bytes";

/// The address of an abstract name, without its leading NUL.
///
/// # Errors
/// `InvalidInput` if it is too long.
pub fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

/// The abstract name of an address, if it has one.
pub fn abstract_name(addr: &SocketAddr) -> Option<&[u8]> {
    addr.as_abstract_name()
}
