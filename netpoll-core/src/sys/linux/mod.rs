//! Calls that only Linux has. `portable` has the same names for other systems.

mod batch;
mod beneath;
mod broken_pipe;
mod cpu;
pub(super) mod epoll;
mod eventfd;
mod kernel;
mod memory;
mod names;
mod options;
mod peer;
mod sendfile;
mod socket_file;
mod splice;
mod transfer;
#[cfg(feature = "uring")]
pub(super) mod uring;

pub use batch::{Incoming, Outgoing, cuts_datagrams, join_datagrams};
pub use beneath::{DIRECTORY, LOOK, NO_MOUNT, open_beneath};
pub use broken_pipe::watch_broken_pipe;
pub use cpu::{Affinity, PINS, allowed_cpus, pin_current_thread, quota};
pub use eventfd::{EventFd as Doorbell, EventFd as Spare};
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

/// Where `errno` of the calling thread is.
pub(super) use libc::__errno_location as errno_location;

/// The clock that every deadline counts on.
pub const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// How far the limit of open files may be raised where this is the hard one.
pub fn open_files_max(hard: u64) -> u64 {
    hard
}

/// Accepting says which errors are those of the connection and not of the listener.
pub const ENONET: i32 = libc::ENONET;

/// A poller reports urgent data, so that a receive that brings less than was asked for tells that no more is there.
pub const TELLS_URGENT: bool = true;
