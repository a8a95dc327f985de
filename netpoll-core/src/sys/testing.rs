//! What the tests of this room share: connected sockets, waiting without sleeping, and child processes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::address::Address;
use super::signal::poll;
use super::socket::{self, ListenOptions, Sharing};
use super::stream_options::StreamOptions;

pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub const PLAIN: ListenOptions =
    ListenOptions { backlog: 16, sharing: Sharing::Alone, defer_accept: None, fast_open: None };

/// Two ends of a connection, both settled.
pub struct Pair {
    pub client: OwnedFd,
    pub server: OwnedFd,
}

impl Pair {
    pub fn new() -> Pair {
        let listener = socket::listen(LOOPBACK, &PLAIN).unwrap();
        let client = connect(&socket::local_addr(listener.as_fd()).unwrap()).unwrap();
        let (server, _) = accept(&listener).unwrap();
        until(client.as_fd(), libc::POLLOUT);
        Pair { client, server }
    }
}

/// Waits until one of `bits` is reported, at most ten seconds, and returns what was.
pub fn until(fd: BorrowedFd<'_>, bits: libc::c_short) -> libc::c_short {
    let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events: bits, revents: 0 }];
    let count = loop {
        match poll(&mut fds, 10_000) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => break polled.unwrap(),
        }
    };
    assert_eq!(count, 1, "nothing happened for ten seconds");
    fds[0].revents
}

/// Accepts once there is something to accept.
pub fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, Address)> {
    until(listener.as_fd(), libc::POLLIN);
    socket::accept(listener.as_fd())
}

/// Begins a connection as most are begun.
pub fn connect(addr: &Address) -> io::Result<OwnedFd> {
    socket::connect(addr, &StreamOptions::DEFAULT)
}

/// An empty directory, gone when dropped.
pub struct Folder(std::path::PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("netpoll-sys-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Receives once there is something to receive.
pub fn recv(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    until(fd.as_fd(), libc::POLLIN);
    let mut bytes = vec![0; 4096];
    let count = socket::recv(fd.as_fd(), &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// `O_CLOEXEC` and the like.
pub fn open_flags(fd: BorrowedFd<'_>) -> libc::c_int {
    // SAFETY: fcntl(2): F_GETFL takes no argument. (test: `no_socket_blocks_or_is_inherited`)
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above. (test: `no_socket_blocks_or_is_inherited`)
    let of_descriptor = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    assert!(flags >= 0 && of_descriptor >= 0, "it is open");
    if of_descriptor & libc::FD_CLOEXEC != 0 { flags | libc::O_CLOEXEC } else { flags }
}

/// Runs the test called `name` again, alone in a process of its own, and returns how that went; `None`
/// when this is that process. For tests that change what the whole process shares.
pub fn in_child(name: &str) -> Option<Output> {
    in_child_with(name, &[])
}

/// The same with these variables in the environment of the child.
pub fn in_child_with(name: &str, variables: &[(&str, &str)]) -> Option<Output> {
    const CHILD: &str = "NETPOLL_TEST_CHILD";
    let name = name.split_once("::").unwrap().1; // without the crate
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return None;
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name);
    test.envs(variables.iter().copied());
    Some(test.output().unwrap())
}

/// The child ran exactly this test, and it passed.
pub fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

/// The rest of the test runs in a process of its own.
macro_rules! alone {
    ($name:ident) => {
        if let Some(output) = $crate::sys::testing::in_child(concat!(module_path!(), "::", stringify!($name)))
        {
            return $crate::sys::testing::assert_passed(&output);
        }
    };
}
pub(crate) use alone;

extern "C" fn do_nothing(_: libc::c_int) {}

/// Interrupts whatever `work` sleeps in, over and over. Alone in a process: it replaces SIGALRM's handler.
pub fn interrupted<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: signal(2) takes a static function; this one does nothing, which is async-signal-safe.
    // (test: `an_interrupted_wait_has_no_events`)
    unsafe { libc::signal(libc::SIGALRM, do_nothing as *const () as libc::sighandler_t) };
    // SAFETY: pthread_self(3) has no preconditions. (test: `an_interrupted_wait_has_no_events`)
    let worker = unsafe { libc::pthread_self() };
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                // SAFETY: pthread_kill(3) wants a thread that has not ended; `worker` is the one that waits
                // for this one at the end of the scope. (test: `an_interrupted_wait_has_no_events`)
                unsafe { libc::pthread_kill(worker, libc::SIGALRM) };
                thread::yield_now();
            }
        });
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        result
    })
}
