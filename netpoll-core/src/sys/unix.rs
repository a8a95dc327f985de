//! Listening in the Unix domain, and receiving datagrams: the file of a socket, who may use it, and how it goes again.
//!
//! `bind` makes a file and nothing removes it: it outlives its socket, and the next `bind` finds it taken. So a file
//! where nobody listens is replaced, one where somebody does is not, and whoever made one removes it in the end, if it is
//! still the same.
//!
//! Whether somebody listens is found out by connecting, and `bind` and `listen` are two calls, so of two who start at one
//! moment each could take the other's file for a stale one; looking whose file it is and removing it are two calls as well.
//! Whoever does one of these takes its *turn*: a lock on the directory (flock(2)), which needs no file of its own and goes with
//! its process. Making each file beside the path and linking it there when it listens would need no lock, but the kernel has no call
//! that replaces a certain file and no other, and its own name for every socket would be that of the first file.
//!
//! Cost: [`listen_unix`] and [`bind_unix_datagrams`] 5 to 18 system calls; the turn of somebody else may hold them up for half a second.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::address::{Address, UNIX_NAME_MAX, UnixAddress};
use super::system::{Pinned, ShortName, restrict};
use super::{checked, fork, system};

/// How to listen in the Unix domain.
#[derive(Clone, Copy, Debug)]
pub struct UnixListenOptions {
    /// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Permissions of the file, whatever the process's mask; without it the mask decides. Nobody who has none connects.
    pub mode: Option<u32>,
    /// Takes the path over from somebody who listens there, who goes on with those that it has.
    pub takes_over: bool,
}

/// A socket that listens on `name`, and the file that this has made, if it is a path.
///
/// # Errors
/// The kernel's: `EADDRINUSE` where somebody listens, or where the path is of something else than a socket; `EACCES`,
/// `ENOENT` and `ENOTDIR` of the directory. `EINVAL` without a name; `InvalidInput` of permissions where there is no file.
pub fn listen_unix(
    name: &UnixAddress,
    options: &UnixListenOptions,
) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let socket = new_stream()?;
    let Some(path) = name.as_path() else {
        if options.mode.is_some() {
            let message = "socket_mode is set, but an abstract name has no file: everybody may connect";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        socket.bind(&Address::Unix(name.clone()).to_kernel()?)?;
        socket.listen(options.backlog)?;
        return Ok((socket.into(), None));
    };
    let _turn = take_turn(path);
    let file = match options.takes_over {
        true => bind_over(&socket, path, options)?,
        false => bind_file(&socket, path, options)?,
    };
    Ok((socket.into(), Some(SocketFile(Some(file)))))
}

/// A socket for datagrams with this name, and the file that this has made, if it is a path.
///
/// # Errors
/// The kernel's: `EADDRINUSE` where somebody receives or listens, or where the path is of something else than a socket; `EACCES`,
/// `ENOENT` and `ENOTDIR` of the directory. `EINVAL` without a name.
pub fn bind_unix_datagrams(name: &UnixAddress) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let socket = new_socket(Type::DGRAM)?;
    let Some(path) = name.as_path() else {
        socket.bind(&Address::Unix(name.clone()).to_kernel()?)?;
        return Ok((socket.into(), None));
    };
    let _turn = take_turn(path);
    bind_in_place(&socket, path, Type::DGRAM)?;
    let file = OwnFile::of(std::path::absolute(path)?)?;
    Ok((socket.into(), Some(SocketFile(Some(file)))))
}

/// Lets nobody connect to a listener any more (`ECONNREFUSED`), of whichever process; who stands in its queue is accepted as
/// ever. From then on it is reported as readable, whether somebody stands there or not.
///
/// # Errors
/// The kernel's; none are known.
///
/// unix(7) does not say so: `unix_stream_connect` of the kernel (net/unix/af_unix.c) looks for `RCV_SHUTDOWN`.
pub fn refuse_new_unix_connections(listener: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&listener).shutdown(Shutdown::Read)
}

/// A file that binding has made. Dropped, it is removed, if the path still leads to it.
#[derive(Debug)]
pub struct SocketFile(Option<OwnFile>);

impl SocketFile {
    /// The file that is there now, of a socket that another process has bound.
    ///
    /// # Errors
    /// The kernel's: there is none.
    pub fn of_another(path: &Path) -> io::Result<Self> {
        OwnFile::of(std::path::absolute(path)?).map(|file| Self(Some(file)))
    }

    /// Its path still leads to it.
    pub fn is_there(&self) -> bool {
        self.0.as_ref().is_some_and(OwnFile::is_ours)
    }

    /// Leaves it where it is, because its socket goes on without us.
    pub fn leave(mut self) {
        if let Some(file) = self.0.take() {
            file.leave();
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(file) = self.0.take()
            && !fork::is_child()
        {
            let _turn = take_turn(&file.path);
            drop(file);
        }
    }
}

/// The same for whoever has its turn.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    pinned: Pinned,
}

impl OwnFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let pinned = Pinned::of(&path)?;
        let found = pinned.metadata()?;
        Ok(Self { path, device: found.dev(), inode: found.ino(), pinned })
    }

    fn is_ours(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| {
            (found.dev(), found.ino()) == (self.device, self.inode) && self.pinned.may_be(&found)
        })
    }

    /// Behind `restrict` and binding: gives back what the mask took away. Of the file that is pinned, a socket, whatever the path
    /// leads to by now.
    fn permit(&self, mode: Option<u32>) -> io::Result<()> {
        let Some(mode) = mode else { return Ok(()) };
        let found = self.pinned.metadata()?;
        if !found.file_type().is_socket() {
            return Err(no_socket());
        }
        if found.mode() & 0o777 == mode {
            return Ok(());
        }
        self.pinned.permit(&self.path, mode)
    }

    /// Forgets it: it stays where it is.
    fn leave(mut self) {
        self.path = PathBuf::new();
    }

    /// Puts it in the place of another, at once.
    fn rename(mut self, path: PathBuf) -> io::Result<Self> {
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if !fork::is_child() && self.is_ours() {
            // Whoever removed it first did what was to be done; a directory that forbids it keeps a stale file, which the next
            // one to bind there replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How often it is asked for a turn, a millisecond apart. A turn takes a tenth of that; who keeps the lock for so long is none of
/// us, and must not be able to keep a server from starting.
const TURN_TRIES: usize = 500;

/// Waits until nobody else binds, replaces or removes sockets in the directory of this path, and keeps them waiting until it is
/// dropped. `None` where that cannot be had: a directory that may not be read, a file system without locks, a stranger who does not
/// let go of it.
fn take_turn(path: &Path) -> Option<File> {
    let directory = File::open(directory_of(path)).ok()?;
    for _ in 0..TURN_TRIES {
        match try_lock(&directory) {
            Ok(()) => return Some(directory),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(_) => return None,
        }
    }
    None
}

/// Takes the lock of an open file, which goes with it. `WouldBlock` if somebody has it. (`File::try_lock` wants Rust 1.89.)
fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: flock(2) takes two integers, and the descriptor is open, as `file` has it. Shaken by
    // `a_directory_that_somebody_else_keeps_locked_delays_a_start_and_does_not_prevent_it`.
    let returned = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    checked(returned).map(drop)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Binds to a path, in place of a file that somebody has left there.
///
/// It listens at once: a socket that does not yet is taken for one that nobody has any more.
fn bind_file(socket: &Socket, path: &Path, options: &UnixListenOptions) -> io::Result<OwnFile> {
    restrict(socket, options.mode)?;
    bind_in_place(socket, path, Type::STREAM)?;
    socket.listen(options.backlog)?;
    let file = OwnFile::of(std::path::absolute(path)?)?;
    file.permit(options.mode)?;
    Ok(file)
}

/// Binds to a path, which a file that nobody has any more does not keep.
fn bind_in_place(socket: &Socket, path: &Path, kind: Type) -> io::Result<()> {
    let wanted = Address::unix(path)?.to_kernel()?;
    match socket.bind(&wanted) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, kind)?;
            socket.bind(&wanted)
        }
        bound => bound,
    }
}

/// Binds beside a path and takes it over when the socket listens, so that nobody finds nothing there. The kernel's own
/// name for the socket stays that of the first file.
fn bind_over(socket: &Socket, path: &Path, options: &UnixListenOptions) -> io::Result<OwnFile> {
    if let Ok(found) = fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(no_socket());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let short;
    if beside.len() > UNIX_NAME_MAX {
        short = ShortName::of(directory_of(path))?;
        beside = short.path().join(format!(".netpoll.{}", std::process::id())).into();
    }
    bind_file(socket, Path::new(&beside), options)?.rename(std::path::absolute(path)?)
}

/// Removes the file of a socket that nobody has, as one of this kind finds out.
fn remove_stale(path: &Path, kind: Type) -> io::Result<()> {
    let stale = match OwnFile::of(path.to_owned()) {
        Ok(stale) => stale,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !stale.pinned.metadata()?.file_type().is_socket() {
        // It stays, whoever has put it there.
        stale.leave();
        return Err(no_socket());
    }
    match new_socket(kind)?.connect(&Address::unix(path)?.to_kernel()?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // Somebody has it, be it one of another kind, or nobody can tell.
        Ok(()) | Err(_) => {
            stale.leave();
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
    }
    // One that knows of no turns may just have done the same: what it has made is not stale.
    drop(stale);
    Ok(())
}

#[cold]
fn no_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, "the path leads to something that is no socket")
}

pub(super) fn new_stream() -> io::Result<Socket> {
    new_socket(Type::STREAM)
}

fn new_socket(kind: Type) -> io::Result<Socket> {
    system::new_socket(Domain::UNIX, kind, None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::socket;
    use super::super::testing::{self, Folder};
    use super::*;

    const PLAIN: UnixListenOptions = UnixListenOptions { backlog: 16, mode: None, takes_over: false };

    fn listen(path: &Path, options: &UnixListenOptions) -> io::Result<(OwnedFd, Option<SocketFile>)> {
        listen_unix(&UnixAddress::from_path(path).unwrap(), options)
    }

    #[test]
    fn a_peer_connects_by_the_path_and_the_file_goes_with_its_owner() {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        let (listener, file) = listen(&path, &PLAIN).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (_server, peer) = testing::accept(&listener).unwrap();
        assert_eq!(peer, Address::Unix(UnixAddress::UNNAMED));
        assert_eq!(socket::local_addr(listener.as_fd()).unwrap(), Address::unix(&path).unwrap());

        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_bound_peer_comes_with_its_name() {
        let folder = Folder::new();
        let path = folder.path("a-name-that-is-longer-than-an-ip-address.sock");
        let (listener, _file) = listen(&folder.path("a"), &PLAIN).unwrap();
        let client = new_stream().unwrap();
        client.bind(&Address::unix(&path).unwrap().to_kernel().unwrap()).unwrap();
        client.connect(&Address::unix(folder.path("a")).unwrap().to_kernel().unwrap()).unwrap();

        let (server, peer) = testing::accept(&listener).unwrap();
        assert_eq!(peer.as_path(), Some(&*path));
        assert_eq!(socket::peer_addr(server.as_fd()).unwrap(), peer);
    }

    #[test]
    fn a_file_where_nobody_listens_is_replaced_and_a_live_one_is_not() {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the kernel leaves it");

        let (_listener, _file) = listen(&path, &PLAIN).unwrap();
        let error = listen(&path, &PLAIN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let folder = Folder::new();
        let path = folder.path("precious");
        fs::write(&path, "text").unwrap();
        for takes_over in [false, true] {
            let error = listen(&path, &UnixListenOptions { takes_over, ..PLAIN }).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn a_path_is_taken_over_at_once_and_its_last_owner_leaves_it_alone() {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        let (first, first_file) = listen(&path, &PLAIN).unwrap();
        let early = UnixStream::connect(&path).unwrap();
        let (second, _file) = listen(&path, &UnixListenOptions { takes_over: true, ..PLAIN }).unwrap();
        let late = UnixStream::connect(&path).unwrap();

        testing::accept(&first).unwrap();
        testing::accept(&second).unwrap();
        assert_eq!(socket::accept(first.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop((first, first_file, early, late));
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_file_has_the_permissions_that_were_asked_for() {
        let folder = Folder::new();
        for mode in [0o600, 0o666] {
            let path = folder.path(&format!("{mode:o}.sock"));
            let _listener = listen(&path, &UnixListenOptions { mode: Some(mode), ..PLAIN }).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
        }
    }

    #[test]
    fn nobody_gets_in_line_at_a_listener_that_refuses_and_who_stands_there_is_accepted() {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        let (listener, _file) = listen(&path, &PLAIN).unwrap();
        let _early = UnixStream::connect(&path).unwrap();
        refuse_new_unix_connections(listener.as_fd()).unwrap();

        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        socket::accept(listener.as_fd()).unwrap();
        assert_eq!(socket::accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_abstract_name_has_no_file() {
        if !system::HAS_ABSTRACT_NAMES {
            let error =
                testing::connect(&Address::Unix(UnixAddress::from_abstract_name("x").unwrap())).unwrap_err();
            return assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        let name = format!("netpoll-unix-{}", std::process::id());
        let (listener, file) = listen_unix(&UnixAddress::from_abstract_name(&name).unwrap(), &PLAIN).unwrap();
        assert!(file.is_none());
        assert_eq!(socket::local_addr(listener.as_fd()).unwrap().to_string(), format!("unix:@{name}"));
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        let (first, first_file) = listen(&path, &PLAIN).unwrap();
        // It has closed in a drain, and its runtime has not ended.
        drop(first);
        let (_second, _file) = listen(&path, &PLAIN).unwrap();
        drop(first_file);
        UnixStream::connect(&path).unwrap();
    }
}
