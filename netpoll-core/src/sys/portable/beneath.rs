//! Opening a path that must not lead out of its directory: no call does it at once, so it is walked, name by name (`directory.rs`).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use libc::c_int;

/// What is a symbolic link is not followed, and so is never looked at behind it: opening it is refused.
pub const LOOK: c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
/// A directory on the way, which has to be readable.
pub const DIRECTORY: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
/// There is nothing of the kind.
pub const NO_MOUNT: c_int = 0;

/// There is no such call.
///
/// # Errors
/// `ENOSYS`.
pub fn open_beneath(_at: BorrowedFd<'_>, _path: &CStr, _flags: c_int) -> io::Result<File> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
