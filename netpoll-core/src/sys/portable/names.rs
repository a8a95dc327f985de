//! Names in the Unix domain that have no file: there are none.

use std::io;
use std::os::unix::net::SocketAddr;

use crate::sys::address::no_abstract_names;

/// There are no such names.
pub const HAS_ABSTRACT_NAMES: bool = false;

/// Of a path that is longer than the kernel's `sockaddr_un` has room for.
pub const PATH_TOO_LONG: &str = if cfg!(target_os = "macos") {
    "the path of a socket has at most 103 bytes"
} else {
    "the path of a socket has at most 107 bytes"
};

/// # Errors
/// `Unsupported`.
pub fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(no_abstract_names())
}

/// None has one.
pub fn abstract_name(_addr: &SocketAddr) -> Option<&[u8]> {
    None
}
