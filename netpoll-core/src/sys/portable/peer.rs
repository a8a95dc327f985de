//! Who is at the other end of a Unix socket, and how descriptors come over one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::checked;

/// How a message with a descriptor is received. No flag has it closed on exec.
pub const RECEIVED: libc::c_int = 0;

/// No system promises that a message with a descriptor can be looked at first.
pub const LOOKS_FIRST: Option<libc::c_int> = None;

/// A process at the other end of a Unix socket, as it was when the two were connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    /// Its number; zero if it has none in our namespace.
    pub pid: u32,
    /// Its effective user.
    pub user: u32,
}

/// Who is at the other end.
///
/// # Errors
/// The kernel's: it is no connected Unix socket.
#[cfg(target_os = "macos")]
pub fn peer_process(socket: BorrowedFd<'_>) -> io::Result<PeerProcess> {
    let (mut user, mut group) = (0, 0);
    // SAFETY: getpeereid(3) writes one number to each of the two, which outlive the call.
    // (test: `who_is_at_the_other_end_is_known`)
    checked(unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut user, &raw mut group) })?;
    Ok(PeerProcess {
        pid: u32::try_from(option(socket, libc::SOL_LOCAL, libc::LOCAL_PEERPID)?).unwrap_or(0),
        user,
    })
}

/// Who is at the other end.
///
/// # Errors
/// The kernel's: it is no connected Unix socket.
#[cfg(not(target_os = "macos"))]
pub fn peer_process(socket: BorrowedFd<'_>) -> io::Result<PeerProcess> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `len` bytes to `found`, which is that large and plain integers; both outlive the call.
    // (test: `who_is_at_the_other_end_is_known`)
    checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    })?;
    Ok(PeerProcess { pid: u32::try_from(found.pid).unwrap_or(0), user: found.uid })
}

/// A number that the kernel says of a socket.
#[cfg(target_os = "macos")]
fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `len` bytes to `value`, which is that large; both outlive the call.
    // (test: `who_is_at_the_other_end_is_known`)
    checked(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}
