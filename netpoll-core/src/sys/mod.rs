//! Linux as it is, typed: one function per system call, nothing decided here.
//!
//! This is the lowest floor and the only room of the poller path with `unsafe`. It knows nothing of
//! the rest of the crate. Descriptors come in as [`BorrowedFd`](std::os::fd::BorrowedFd) and go out as
//! [`OwnedFd`](std::os::fd::OwnedFd), so none is used after it was closed and none is lost.
//!
//! Invariant: every descriptor made here is close-on-exec, and every socket is non-blocking as well.
//! A call that the kernel refused returns the kernel's own [`io::Error`]; nothing is retried unless the
//! function says so. Where `socket2` or `std` have the call already, they are used; what is left over is
//! listed, with its rules, in `docs/UNSAFE.md`.

use std::io;

mod address;
mod broken_pipe;
mod carried;
mod control;
mod cpu;
mod datagrams;
mod directory;
mod epoll;
mod eventfd;
mod fork;
mod inherit;
mod kernel;
mod lend;
mod limits;
mod memory;
mod monotonic;
mod reserve;
mod sendfile;
mod signal;
mod socket;
mod sockopt;
mod splice;
mod stream_options;
mod task_cell;
mod unix;
#[cfg(feature = "uring")]
mod uring;
mod waker;

pub use address::{Address, ParseAddressError, UnixAddress};
pub use broken_pipe::watch_broken_pipe;
pub use carried::Carried;
pub use control::LocalIp;
pub use cpu::{Affinity, allowed_cpus, pin_current_thread, quota};
pub use datagrams::{
    DATAGRAM_BYTES_MAX, DatagramOption, Incoming, Outgoing, Parcel, bind_datagrams, cuts_datagrams,
    join_datagrams, set_datagram_option, tell_local_ip,
};
pub use directory::Directory;
pub use epoll::{
    EDGE_IN, EDGE_IN_OUT, EDGE_STREAM, Epoll, Event, Events, LEVEL_IN, LEVEL_IN_SHARED, NOTHING, Timeout,
    WATCH_IN, WATCH_OUT, WATCH_URGENT,
};
pub use eventfd::EventFd;
pub use fork::{assert_not_forked, end_child, is_child, watch};
pub use inherit::{ListenFd, check_listener, listen_fds};
pub use lend::{Lendable, Lent};
pub use limits::{open_files, raise_open_files};
pub use memory::{memory_limit, release_free_memory};
pub use monotonic::monotonic_nanos;
pub use reserve::ReserveFd;
pub use sendfile::sendfile;
pub use signal::{
    Listening, SignalKind, StopSignal, StopSignals, Woken, has_come, prepare_signals, wait_for_signals,
};
pub use socket::{
    ListenOptions, Sharing, accept, connect, has_connected_or_failed, is_connected_to_itself, is_unix,
    listen, local_addr, peer_addr, recv, reset_on_close, send, send_vectored, send_vectored_with_more_behind,
    set_nonblocking, shutdown_write, take_error, unacknowledged_bytes, unread_bytes,
};
pub use sockopt::{attach_reuseport_cpu_steering, refuse_new_connections, set_buffers};
pub use splice::Pipe;
pub use stream_options::{Keepalive, StreamOptions, is_buffer_size};
pub use task_cell::{CLASSES, NO_CLASS, Run, TaskCell};
pub use unix::{
    SocketFile, UnixListenOptions, bind_unix_datagrams, listen_unix, refuse_new_unix_connections,
};
#[cfg(feature = "uring")]
pub use uring::RingName;
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
    use std::path::Path;

    /// All source text under `directory`.
    fn source(directory: &Path) -> String {
        let mut text = String::new();
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            text += &if path.is_dir() { source(&path) } else { fs::read_to_string(path).unwrap() };
        }
        text
    }

    #[test]
    fn every_file_with_unsafe_code_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = fs::read_to_string(root.join("../docs/UNSAFE.md")).unwrap();
        let rooms = ["src/sys", "src/driver/uring"].map(|room| fs::read_dir(root.join(room)).unwrap());
        for file in rooms.into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            if file.is_file() && fs::read_to_string(&file).unwrap().contains(concat!("unsafe", " {")) {
                let row = format!("`{name}`");
                assert!(
                    matches!(name, "testing.rs" | "tests.rs") || list.contains(&row),
                    "{name} is not in docs/UNSAFE.md"
                );
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
