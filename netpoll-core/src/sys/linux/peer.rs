//! Who is at the other end of a Unix socket, and how descriptors come over one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::checked;

/// How a message with a descriptor is received: that is close-on-exec from the moment it is there.
pub const RECEIVED: libc::c_int = libc::MSG_CMSG_CLOEXEC;

/// What has it looked at first: a copy of the descriptor comes, and the message stays, and so does the descriptor in it if there is no room
/// for a copy (unix_stream_read_generic, net/unix/af_unix.c).
pub const LOOKS_FIRST: Option<libc::c_int> = Some(libc::MSG_PEEK);

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
