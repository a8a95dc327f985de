//! Sockets that somebody else has opened: a service manager, or the process that was here before.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;
use socket2::{Domain, SockRef, Type};

use super::address::Address;
use super::socket::local_addr;
use super::system;

/// The first that a service manager hands over (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// What one is called that the manager gives no name (sd_listen_fds(3)).
const NAMELESS: &str = "unknown";

/// They were taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What the service manager has opened for this process, or kept for it.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListenFd {
    /// What the manager calls it (`FileDescriptorName=` of systemd), or `unknown`.
    pub name: String,
    /// The socket; or what else the manager keeps for the program (`FileDescriptorStoreMax=` of systemd), such as a file.
    pub socket: OwnedFd,
}

impl ListenFd {
    /// One that somebody else than a manager has opened.
    pub fn new(name: impl Into<String>, socket: impl Into<OwnedFd>) -> Self {
        Self { name: name.into(), socket: socket.into() }
    }
}

impl From<ListenFd> for OwnedFd {
    fn from(fd: ListenFd) -> Self {
        fd.socket
    }
}

/// The sockets that a service manager, such as systemd, has opened for this process and handed over when it started it
/// (`LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, sd_listen_fds(3)), in their order: none if there was no such manager.
/// For [`Builder::listen_on`](crate::Builder::listen_on).
///
/// They are handed out once: a second call returns none. Call it before anything else opens or closes descriptors by their
/// number. A descriptor of another kind, which the manager keeps under a name, is among them; `listen_on` refuses it, and
/// says its number, when the runtime starts.
///
/// The variables stay. A child that they are not for has another process number than they say. A program that executes itself again has
/// the same, but not the descriptors, which are close-on-exec from here on: what is not open, or was opened close-on-exec and so by this
/// program, is left out.
///
/// # Errors
/// A variable that cannot be read.
pub fn listen_fds() -> io::Result<Vec<ListenFd>> {
    let read = |name: &str| std::env::var(name).ok();
    let Some(count) = announced(read("LISTEN_PID"), read("LISTEN_FDS"), std::process::id())? else {
        return Ok(Vec::new());
    };
    let names = read("LISTEN_FDNAMES").unwrap_or_default();
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    // One that is empty has its place like any other.
    let mut names = names.split(':').map(|name| if name.is_empty() { NAMELESS } else { name });
    let named = (FIRST..FIRST + count).map(|number| (number, names.next().unwrap_or(NAMELESS)));
    let fds = named.filter(|(number, _)| was_inherited(*number)).map(|(number, name)| {
        // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns. It was open a line above, and by
        // sd_listen_fds(3) the manager has opened it for this very process, which is asked for by its number; `TAKEN` hands it
        // out once. (test: `sockets_of_a_service_manager_are_taken_once`)
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        close_on_exec(socket.as_fd())?;
        Ok(ListenFd { name: name.to_owned(), socket })
    });
    fds.collect()
}

/// How many there are, if they are for the process with this number.
fn announced(pid: Option<String>, count: Option<String>, own: u32) -> io::Result<Option<c_int>> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(None) };
    let invalid = |name: &str, value: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{name}={value} is no number of that kind"))
    };
    let pid: u32 = pid.parse().map_err(|_| invalid("LISTEN_PID", &pid))?;
    let number = count.parse().ok().filter(|count| (0..=c_int::MAX - FIRST).contains(count));
    let number = number.ok_or_else(|| invalid("LISTEN_FDS", &count))?;
    Ok((pid == own).then_some(number))
}

/// It is open, and came through an exec: what this program has opened would not go through another.
fn was_inherited(number: RawFd) -> bool {
    // SAFETY: fcntl(2): F_GETFD takes no pointers; a number that is not open is an error.
    // (test: `sockets_of_a_service_manager_are_taken_once`)
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_cloexec(true)
}

/// Looks at a socket that is to be accepted from, and makes it non-blocking, which whoever else has it shares, and
/// close-on-exec, which is ours. Where it listens.
///
/// # Errors
/// `InvalidInput`, which names the descriptor: it is no socket, or no stream socket of TCP or in the Unix domain, or does not listen.
pub fn check_listener(socket: BorrowedFd<'_>) -> io::Result<Address> {
    let fd = socket.as_raw_fd();
    let named = |what: &dyn fmt::Display| format!("cannot accept from descriptor {fd}: {what}");
    check(socket).map_err(|error| io::Error::new(error.kind(), named(&error)))
}

fn check(socket: BorrowedFd<'_>) -> io::Result<Address> {
    let invalid = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    let asked = SockRef::from(&socket);
    match asked.r#type() {
        Ok(Type::STREAM) => {}
        Ok(_) => return invalid("it is no stream socket"),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => return invalid("it is no socket"),
        Err(error) => return Err(error),
    }
    let domain = system::domain(socket)?;
    let is_tcp = [Domain::IPV4, Domain::IPV6].contains(&domain) && system::is_tcp(socket)?;
    if !is_tcp && domain != Domain::UNIX {
        return invalid("it is neither a TCP nor a Unix socket");
    }
    if !system::is_listener(socket)? {
        return invalid("it does not listen");
    }
    asked.set_nonblocking(true)?;
    close_on_exec(socket)?;
    local_addr(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::super::testing::{Folder, open_flags};
    use super::*;

    /// Where the test's child process finds that it has executed itself again.
    const AGAIN: &str = "NETPOLL_TEST_AGAIN";

    fn this_test() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sys::inherit::tests::sockets_of_a_service_manager_are_taken_once"]);
        command
    }

    #[test]
    fn sockets_of_a_service_manager_are_taken_once() {
        if std::env::var(AGAIN).is_ok() {
            // The numbers are free again, and are ours now.
            let _own: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            assert!(listen_fds().unwrap().is_empty(), "the variables are of the program before");
            return;
        }
        if std::env::var("LISTEN_FDS").is_ok() {
            let fds = listen_fds().unwrap();
            assert_eq!(
                fds.iter().map(|fd| &*fd.name).collect::<Vec<_>>(),
                ["web", "unknown", "store", "admin"]
            );
            for fd in &fds {
                assert_ne!(open_flags(fd.socket.as_fd()) & libc::O_CLOEXEC, 0);
                assert_eq!(check_listener(fd.socket.as_fd()).is_ok(), fd.name != "store");
            }
            assert!(listen_fds().unwrap().is_empty());
            panic!("the program does not start again: {}", this_test().env(AGAIN, "1").exec());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let status = Command::new("sh")
            .args([
                "-c",
                r#"LISTEN_PID=$$ LISTEN_FDS=5 LISTEN_FDNAMES=web::store:gone:admin exec "$@" 3<&0 4<&0 5</dev/null 6<&- 7<&0"#,
                "sh",
            ])
            .arg(this_test().get_program())
            .args(this_test().get_args())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    }

    #[test]
    fn what_is_for_another_process_is_not_taken_and_nonsense_is_an_error() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(announced(some("7"), some("2"), 7).unwrap(), Some(2));
        assert_eq!(announced(some("7"), some("2"), 8).unwrap(), None);
        assert_eq!(announced(None, some("2"), 8).unwrap(), None);
        for (pid, count) in [("x", "1"), ("7", "-1"), ("7", "2147483647"), ("7", "")] {
            assert!(announced(some(pid), some(count), 7).is_err(), "{pid} {count}");
        }
    }

    #[test]
    fn only_a_stream_socket_that_listens_is_accepted_from() {
        let folder = Folder::new();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = check_listener(tcp.as_fd()).unwrap();
        assert_eq!(address, tcp.local_addr().unwrap());
        assert_ne!(open_flags(tcp.as_fd()) & libc::O_NONBLOCK, 0);
        let unix = UnixListener::bind(folder.path("a")).unwrap();
        assert_eq!(check_listener(unix.as_fd()).unwrap().as_path(), Some(&*folder.path("a")));

        let stream = TcpStream::connect(&address).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let cases = [
            (stream.as_fd(), "it does not listen"),
            (udp.as_fd(), "it is no stream socket"),
            (file.as_fd(), "it is no socket"),
        ];
        for (fd, why) in cases {
            let error = check_listener(fd).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), format!("cannot accept from descriptor {}: {why}", fd.as_raw_fd()));
        }
    }
}
