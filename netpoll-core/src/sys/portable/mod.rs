//! The same names as `linux`, for systems that have POSIX and little beside: macOS, on which people develop.
//!
//! What such a system cannot do is a call that is refused, in a way that the floors above know from a sandbox or an old kernel, or a
//! constant that says so. `docs/TUNING.md` has a table of what that comes to. What differs between macOS and Linux here is a constant; so
//! nearly all of it is run by tests on Linux.

// On Linux only tests use it.
#![cfg_attr(all(target_os = "linux", not(netpoll_portable)), allow(dead_code, unused_imports))]

mod batch;
mod beneath;
mod cpu;
mod doorbell;
mod memory;
mod names;
mod options;
mod peer;
mod sendfile;
mod socket_file;
mod splice;
mod transfer;

pub use batch::{Incoming, Outgoing, cuts_datagrams, join_datagrams};
pub use beneath::{DIRECTORY, LOOK, NO_MOUNT, open_beneath};
pub use cpu::{Affinity, PINS, allowed_cpus, pin_current_thread, quota};
pub use doorbell::{PipeBell as Doorbell, Spare};
pub use memory::{memory_limit, release_free_memory};
pub use names::{HAS_ABSTRACT_NAMES, PATH_TOO_LONG, abstract_address, abstract_name};
pub use options::{
    CUT, JOINED, LOCAL_V4_AT, SPREADS, accept_early_data, attach_reuseport_cpu_steering, defer_accept,
    domain, is_listener, is_tcp, pick_port_late, refuse_new_connections, set_unsent_bytes_max,
    set_user_timeout,
};
pub use peer::{LOOKS_FIRST, RECEIVED, peer_process};
pub use sendfile::sendfile;
pub use socket_file::{Pinned, ShortName, restrict};
pub use splice::Pipe;
pub use transfer::{
    accept, new_socket, recv, send, send_vectored, send_vectored_with_more_behind, unacknowledged_bytes,
};

use std::io;

#[cfg(not(target_os = "macos"))]
pub(super) use libc::__errno_location as errno_location;
/// Where `errno` of the calling thread is.
#[cfg(target_os = "macos")]
pub(super) use libc::__error as errno_location;

/// The clock that every deadline counts on, which is that of `std` as well.
#[cfg(target_os = "macos")]
pub const MONOTONIC: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(not(target_os = "macos"))]
pub const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// How far the limit of open files may be raised where this is the hard one: `OPEN_MAX` of macOS is less (setrlimit(2), COMPATIBILITY).
pub fn open_files_max(hard: u64) -> u64 {
    if cfg!(target_os = "macos") { hard.min(10_240) } else { hard }
}

/// No error has this number: the one of Linux that has the name is not known elsewhere.
pub const ENONET: i32 = 0;

/// Not every poller reports urgent data, at whose mark a receive stops short: only one that finds nothing tells that no more is there.
pub const TELLS_URGENT: bool = false;

/// Nothing raises SIGPIPE here: sockets are told not to, or each send is.
///
/// # Errors
/// None.
pub fn watch_broken_pipe() -> io::Result<()> {
    Ok(())
}

/// What this system does not have.
#[cold]
fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}
