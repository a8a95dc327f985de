//! From a file to a socket: its bytes are read and sent, as of a file that cannot be spliced.

use std::io;
use std::os::fd::BorrowedFd;

/// Sends nothing: the file has to be read.
///
/// # Errors
/// `ENOSYS`.
pub fn sendfile(
    _socket: BorrowedFd<'_>,
    _file: BorrowedFd<'_>,
    _offset: u64,
    _length: usize,
) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
