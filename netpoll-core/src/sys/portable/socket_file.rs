//! The file of a socket, which cannot be opened, as it was when it was looked at.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::Socket;

use super::unsupported;

/// What a file was. Nothing keeps its inode: another file may have its number once it is removed, and is told by when it was made, where the
/// file system knows that.
#[derive(Debug)]
pub struct Pinned(Metadata);

impl Pinned {
    /// What has this path, a symbolic link included.
    ///
    /// # Errors
    /// The kernel's: not found, not permitted.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(Self)
    }

    /// What it is.
    ///
    /// # Errors
    /// None.
    pub fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.0.clone())
    }

    /// Whether a file of its number may be the same.
    pub fn may_be(&self, found: &Metadata) -> bool {
        self.0.created().ok() == found.created().ok()
    }

    /// Gives what has the path these permissions.
    ///
    /// # Errors
    /// The kernel's: not found, not permitted.
    pub fn permit(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// Does nothing: a socket has no permissions before it is bound, and gets them right behind that.
///
/// # Errors
/// None.
pub fn restrict(_socket: &Socket, _mode: Option<u32>) -> io::Result<()> {
    Ok(())
}

/// A directory under a name that is short: there is none.
pub enum ShortName {}

impl ShortName {
    /// # Errors
    /// `Unsupported`.
    pub fn of(_directory: &Path) -> io::Result<Self> {
        Err(unsupported("the path is too long to be taken over: shorten it by eight bytes"))
    }

    /// Never called.
    pub fn path(&self) -> PathBuf {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::Folder;

    #[test]
    fn a_file_that_was_looked_at_gets_its_permissions_by_its_path() {
        let folder = Folder::new();
        let path = folder.path("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let pinned = Pinned::of(&path).unwrap();
        pinned.permit(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::os::unix::fs::FileTypeExt::is_socket(&pinned.metadata().unwrap().file_type()));
        assert!(ShortName::of(&path).is_err());
        let now = Pinned::of(&path).unwrap().metadata().unwrap();
        assert!(pinned.may_be(&now), "its permissions and its name do not make it another");
        fs::rename(&path, folder.path("moved")).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let other = Pinned::of(&path).unwrap().metadata().unwrap();
        assert!(!pinned.may_be(&other) || other.created().is_err());
    }
}
