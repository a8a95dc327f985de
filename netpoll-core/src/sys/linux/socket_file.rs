//! The file of a socket as Linux lets it be held: by a descriptor of its path.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::Socket;

/// Keeps the inode of a file, so that its number names no other file.
#[derive(Debug)]
pub struct Pinned(File);

impl Pinned {
    /// That of what has this path, a symbolic link included.
    ///
    /// # Errors
    /// The kernel's: not found, not permitted, `EMFILE`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// What it is.
    ///
    /// # Errors
    /// None are known.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Whether a file of its number, which no other has, may be the same: it is.
    pub fn may_be(&self, _found: &Metadata) -> bool {
        true
    }

    /// Gives it these permissions, whatever its path leads to by now.
    ///
    /// # Errors
    /// The kernel's: not permitted; no `/proc`.
    pub fn permit(&self, _path: &Path, mode: u32) -> io::Result<()> {
        // A descriptor of a path is no open file, whose permissions fchmod(2) would change; its name in /proc leads to the inode.
        let pinned = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        std::fs::set_permissions(pinned, Permissions::from_mode(mode))
    }
}

/// Before it is bound: the file is then made with these permissions, less those of the process's mask.
///
/// # Errors
/// None are known.
pub fn restrict(socket: &Socket, mode: Option<u32>) -> io::Result<()> {
    let Some(mode) = mode else { return Ok(()) };
    File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(Permissions::from_mode(mode))
}

/// A directory under a name that is short, as long as it is open (proc(5)).
pub struct ShortName(File);

impl ShortName {
    /// # Errors
    /// The kernel's: not found, not permitted, `EMFILE`.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        OpenOptions::new().read(true).custom_flags(flags).open(directory).map(Self)
    }

    /// The name.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
