//! The system as it is, typed: one function per system call, nothing decided here. `linux` has what only Linux has, `portable` the same
//! names for other systems.
//!
//! This is the lowest floor and the only room of the poller path with `unsafe`. It knows nothing of
//! the rest of the crate. Descriptors come in as [`BorrowedFd`](std::os::fd::BorrowedFd) and go out as
//! [`OwnedFd`](std::os::fd::OwnedFd), so none is used after it was closed and none is lost.
//!
//! Invariant: every descriptor made here is close-on-exec, and every socket is non-blocking as well; on a system that cannot say so in one
//! call, some calls later.
//! A call that the kernel refused returns the kernel's own [`io::Error`]; nothing is retried unless the
//! function says so. Where `socket2` or `std` have the call already, they are used; what is left over is
//! listed, with its rules, in `docs/UNSAFE.md`.

use std::io;

mod address;
mod carried;
mod control;
mod datagrams;
mod directory;
mod fork;
mod inherit;
mod lend;
mod limits;
mod monotonic;
mod passing;
mod reserve;
mod signal;
mod socket;
mod sockopt;
mod stream_options;
mod task_cell;
mod timeout;
mod unix;
mod waker;

// What systems do differently has one name in both. On Linux the portable half is there for its tests; `--cfg netpoll_portable` takes
// it instead of Linux's own, so that what runs on other systems can be run here.
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
mod linux;
#[cfg(any(test, not(target_os = "linux"), netpoll_portable))]
mod portable;
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
use linux as system;
#[cfg(not(all(target_os = "linux", not(netpoll_portable))))]
use portable as system;

pub use address::{Address, ParseAddressError, UnixAddress};
pub use carried::Carried;
pub use control::LocalIp;
pub use datagrams::{
    DATAGRAM_BYTES_MAX, DatagramOption, Parcel, bind_datagrams, set_datagram_option, tell_local_ip,
};
pub use directory::Directory;
pub use fork::{assert_not_forked, end_child, is_child, watch};
pub use inherit::{ListenFd, check_listener, listen_fds};
pub use lend::{Lendable, Lent};
pub use limits::{cure, missing, no_thread, open_files, raise_open_files};
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
pub use linux::epoll::{
    EDGE_IN, EDGE_IN_OUT, EDGE_STREAM, Epoll, Event, Events, LEVEL_IN, LEVEL_IN_SHARED, NOTHING, WATCH_IN,
    WATCH_OUT, WATCH_URGENT,
};
#[cfg(all(feature = "uring", target_os = "linux", not(netpoll_portable)))]
pub use linux::uring::RingName;
pub use monotonic::monotonic_nanos;
pub use passing::{
    Heard, Passed, check_datagrams, own_user, peer_process, recv_with_fd, send_with_fd, wait_for_fd,
};
pub use reserve::ReserveFd;
pub use signal::{
    Listening, SignalKind, StopSignal, StopSignals, Woken, has_come, prepare_signals, wait_for_signals,
};
pub use socket::{
    ListenOptions, Sharing, connect, has_connected_or_failed, is_connected_to_itself, is_unix, listen,
    local_addr, peer_addr, reset_on_close, set_nonblocking, shutdown_write, take_error, unread_bytes,
};
pub use sockopt::set_buffers;
pub use stream_options::{Keepalive, StreamOptions, is_buffer_size};
pub use system::{
    Affinity, Doorbell, ENONET, Incoming, Outgoing, PINS, Pipe, SPREADS, TELLS_URGENT, abstract_address,
    abstract_name, accept, allowed_cpus, attach_reuseport_cpu_steering, cuts_datagrams, join_datagrams,
    memory_limit, pin_current_thread, quota, recv, refuse_new_connections, release_free_memory, send,
    send_vectored, send_vectored_with_more_behind, sendfile, unacknowledged_bytes, watch_broken_pipe,
};
pub use task_cell::{CLASSES, NO_CLASS, Run, TaskCell};
pub use timeout::Timeout;
pub use unix::{
    SocketFile, UnixListenOptions, bind_unix_datagrams, listen_unix, refuse_new_unix_connections,
};
pub use waker::{Borrowed, with_waker};

/// What a system call returned: `-1` is the error in `errno`, anything else is the value.
///
/// To be called before anything else can touch `errno`.
#[inline]
fn checked(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// The same for calls that return a number of bytes.
#[inline]
fn checked_bytes(returned: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// All files under `directory`.
    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    /// Their text.
    fn source(directory: &Path) -> String {
        files(directory).into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn every_file_with_unsafe_code_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = fs::read_to_string(root.join("../docs/UNSAFE.md")).unwrap();
        for room in ["src/sys", "src/driver/uring"].map(|room| root.join(room)) {
            for file in files(&room) {
                let name = file.strip_prefix(&room).unwrap().to_str().unwrap();
                if fs::read_to_string(&file).unwrap().contains(concat!("unsafe", " {")) {
                    let row = format!("`{name}`");
                    assert!(
                        name.ends_with("testing.rs") || name.ends_with("tests.rs") || list.contains(&row),
                        "{name} is not in docs/UNSAFE.md"
                    );
                }
            }
        }
    }

    #[test]
    fn every_test_that_a_safety_note_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = source(&root.join("src/sys")) + &source(&root.join("src/driver/uring"));
        let notes = text.lines().filter(|line| line.trim_start().starts_with("// "));
        let named: Vec<&str> = notes
            .filter_map(|line| line.split_once("(test: ").or(line.split_once("(tests: ")))
            .flat_map(|(_, names)| names.split('`').skip(1).step_by(2))
            .collect();

        assert!(named.len() > 30, "found only {} names", named.len());
        for name in named {
            assert!(text.contains(&format!("fn {name}()")), "{name} is named, but does not exist");
        }
    }
}
