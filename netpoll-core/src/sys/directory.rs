//! A directory, and the files below it that a stranger may name.
//!
//! A path from outside must not lead out of its directory: not by `..`, not by a leading slash, not by a symbolic
//! link, and not while somebody renames directories on the way. openat2(2) checks all of it in one system call
//! (Linux 5.6). Where that call is missing or forbidden the path is walked name by name, and then no symbolic link
//! is followed at all.
//!
//! Opening is an act: it lets a writer of a FIFO go on, and some devices do something. So where only a file is wanted,
//! the name is looked at before it is opened, and what was opened is looked at again.
//!
//! Invariant: whatever is opened was below the directory at that moment, on either way.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libc::c_int;

use super::checked;
use super::system::{DIRECTORY, LOOK, NO_MOUNT, open_beneath};

/// To read, without waiting for a writer of a FIFO, and without becoming the terminal's process.
const READ: c_int = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// How often an open is tried again when a rename elsewhere made openat2(2) unsure where it was (`EAGAIN`).
const ATTEMPTS: usize = 8;

/// A directory that files are opened below, and never outside of.
///
/// It is the directory that had the name when it was opened: if it is renamed, or a symbolic link that led to it is
/// turned elsewhere, it stays the old one. One descriptor; threads may share it.
///
/// ```
/// use netpoll_core::Directory;
///
/// # fn main() -> std::io::Result<()> {
/// let sources = Directory::open("src")?;
/// assert!(sources.open_beneath("lib.rs")?.metadata()?.is_file());
/// assert!(sources.open_beneath("../Cargo.toml").is_err());
/// assert!(sources.open_beneath("/etc/passwd").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// The kernel said that it has no openat2(2): not asked again.
    walks: AtomicBool,
}

impl Directory {
    /// Opens a directory by any path; symbolic links in it are followed, this once. One system call.
    ///
    /// # Errors
    /// The kernel's: not found, `ENOTDIR`, no permission to search a directory on the way, `EMFILE`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(DIRECTORY).open(path)?;
        Ok(Self { fd: file.into(), walks: AtomicBool::new(false) })
    }

    /// Opens what has this path below the directory, for reading: a file, a directory, a FIFO or a device, of which
    /// the caller has to find out before it reads (`File::metadata`).
    ///
    /// A symbolic link is followed if all of it lies below the directory. One system call; the disk may have to be
    /// waited for when the names are not in the kernel's cache. Before Linux 5.6, or where a sandbox forbids
    /// openat2(2), it is one for each name in the path, and symbolic links are refused.
    ///
    /// # Errors
    /// - `EXDEV`: the path has `..` in it, is absolute, or a link leads out of the directory.
    /// - `InvalidInput`: there is a NUL in the path.
    /// - The kernel's: not found, not permitted, `ENOTDIR` for a file with something behind it, `ENAMETOOLONG`,
    ///   `ELOOP` for links that lead in circles and, on the slow way, for any; `ENXIO` for a socket; `EMFILE`.
    pub fn open_beneath(&self, path: impl AsRef<Path>) -> io::Result<File> {
        self.find(path.as_ref(), READ)
    }

    /// Opens a regular file below the directory, for reading, and says what it is. `None` for a directory, a FIFO, a
    /// device and a socket, none of which is opened.
    ///
    /// Paths, links and errors are those of [`open_beneath`](Self::open_beneath). Three system calls, two more where the
    /// name is a symbolic link. Links on the way are followed to look, wherever they lead, and to open only if they
    /// stay below. Whoever may write into the directory can put something else in the file's place between the look
    /// and the opening; it is opened then, without waiting for it, and closed again.
    ///
    /// # Errors
    /// Those of [`open_beneath`](Self::open_beneath).
    pub fn open_file_beneath(&self, path: impl AsRef<Path>) -> io::Result<Option<(File, Metadata)>> {
        let path = path.as_ref();
        check(path)?;
        let name = CString::new(path.as_os_str().as_bytes())?;
        let is_file = match kind(self.fd.as_fd(), &name)? {
            libc::S_IFREG => true,
            libc::S_IFLNK => self.find(path, LOOK)?.metadata()?.is_file(),
            _ => false,
        };
        if !is_file {
            return Ok(None);
        }
        let file = self.find(path, READ)?;
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    fn find(&self, path: &Path, flags: c_int) -> io::Result<File> {
        check(path)?;
        if self.walks.load(Relaxed) {
            return self.walk(path, flags);
        }
        let name = CString::new(path.as_os_str().as_bytes())?;
        for _ in 1..ATTEMPTS {
            match open_beneath(self.fd.as_fd(), &name, flags) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    self.walks.store(true, Relaxed);
                    return self.walk(path, flags);
                }
                // What a sandbox says to calls that it does not know, or the file system about this file: the
                // walk finds out.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => return self.walk(path, flags),
                opened => return opened,
            }
        }
        open_beneath(self.fd.as_fd(), &name, flags)
    }

    /// Without openat2(2): name by name, and through no symbolic link.
    #[cold]
    fn walk(&self, path: &Path, flags: c_int) -> io::Result<File> {
        let mut names = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(CString::new(name.as_bytes())),
            _ => None,
        });
        // "." is the directory itself; an empty path is nothing, as for the kernel.
        let mut name = match names.next() {
            Some(name) => name?,
            None if path.as_os_str().is_empty() => return Err(io::Error::from_raw_os_error(libc::ENOENT)),
            None => c".".to_owned(),
        };
        let mut inner: Option<OwnedFd> = None;
        for next in names {
            let at = inner.as_ref().unwrap_or(&self.fd).as_fd();
            inner = Some(open_at(at, &name, DIRECTORY | libc::O_NOFOLLOW)?);
            name = next?;
        }
        let at = inner.as_ref().unwrap_or(&self.fd).as_fd();
        // A slash behind a name asks for a directory.
        let bytes = path.as_os_str().as_bytes();
        let is_directory = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        let kind = if is_directory { libc::O_DIRECTORY } else { 0 };
        let file: File = open_at(at, &name, flags | kind | libc::O_NOFOLLOW)?.into();
        // Looking at a link without following it is not refused by itself.
        if flags == LOOK && file.metadata()?.is_symlink() {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        Ok(file)
    }
}

/// Refuses a path that leads out by itself.
fn check(path: &Path) -> io::Result<()> {
    let leads_out = |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().any(leads_out) {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    Ok(())
}

/// What has this name, as the type bits of a mode; a symbolic link is one.
fn kind(at: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::mode_t> {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | NO_MOUNT;
    // SAFETY: fstatat(2) reads a string up to its NUL and writes one `stat`. `name` is a `CStr` that is borrowed during
    // the call, `found` a local of that type. (test: `only_a_regular_file_is_opened_as_one`)
    checked(unsafe { libc::fstatat(at.as_raw_fd(), name.as_ptr(), found.as_mut_ptr(), flags) })?;
    // SAFETY: `assume_init` wants it written. The line above returned without an error, and then all of it is.
    // (test: `only_a_regular_file_is_opened_as_one`)
    let found = unsafe { found.assume_init() };
    Ok(found.st_mode & libc::S_IFMT)
}

fn open_at(at: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: openat(2) reads a string up to its NUL, of a `CStr` that is borrowed during the call; nothing is
    // created, so it takes no mode. (test: `what_lies_below_the_directory_is_opened`)
    let raw = checked(unsafe { libc::openat(at.as_raw_fd(), name.as_ptr(), flags) })?;
    // SAFETY: as in `open_beneath`. (test: `an_opened_file_closes_when_dropped`)
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(all(test, target_os = "linux", not(netpoll_portable)))]
mod linux_tests;
#[cfg(test)]
mod tests;
