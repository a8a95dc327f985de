//! Both ways of opening a file below a directory, on the same tree of files.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::super::limits::open_file_count;
use super::super::testing::{alone, open_flags};
use super::*;

/// A tree with everything in it that a path may meet, gone when dropped:
/// `out` beside `root`, and in `root` the names that the tests open.
pub struct Tree(pub PathBuf);

impl Tree {
    pub fn new(name: &str) -> Self {
        let tree = std::env::temp_dir().join(format!("netpoll-directory-{}-{name}", std::process::id()));
        let root = tree.join("root");
        std::fs::create_dir_all(root.join("inner/deep")).unwrap();
        std::fs::write(tree.join("out"), "secret").unwrap();
        std::fs::write(root.join("file"), "top").unwrap();
        std::fs::write(root.join("inner/deep/file"), "deep").unwrap();
        symlink("inner/deep", root.join("link_within")).unwrap();
        symlink("../out", root.join("link_out")).unwrap();
        symlink("/etc/passwd", root.join("link_absolute")).unwrap();
        symlink("..", root.join("inner/up")).unwrap();
        symlink("../..", root.join("inner/far_up")).unwrap();
        symlink("/proc/self/fd/0", root.join("link_magic")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        assert!(Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
        Self(tree)
    }

    /// The directory, as opened by openat2(2), where there is one, and as walked.
    pub fn both(&self) -> [(&'static str, Directory); 2] {
        let walked = Directory::open(self.0.join("root")).unwrap();
        walked.walks.store(true, Relaxed);
        [("openat2", Directory::open(self.0.join("root")).unwrap()), ("walk", walked)]
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

pub fn read(opened: io::Result<File>) -> io::Result<String> {
    let mut text = String::new();
    opened?.read_to_string(&mut text)?;
    Ok(text)
}

pub fn code(opened: io::Result<File>) -> i32 {
    opened.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn what_lies_below_the_directory_is_opened() {
    let tree = Tree::new("below");
    for (way, directory) in tree.both() {
        assert_eq!(read(directory.open_beneath("file")).unwrap(), "top", "{way}");
        assert_eq!(read(directory.open_beneath("./file")).unwrap(), "top", "{way}");
        assert_eq!(read(directory.open_beneath("inner/deep/file")).unwrap(), "deep", "{way}");
        assert_eq!(read(directory.open_beneath("inner//deep/./file")).unwrap(), "deep", "{way}");
        assert!(directory.open_beneath("inner/deep").unwrap().metadata().unwrap().is_dir(), "{way}");
        assert!(directory.open_beneath(".").unwrap().metadata().unwrap().is_dir(), "{way}");
        assert_eq!(code(directory.open_beneath("")), libc::ENOENT, "{way}");
        assert_eq!(code(directory.open_beneath("missing")), libc::ENOENT, "{way}");
        assert_eq!(code(directory.open_beneath("missing/file")), libc::ENOENT, "{way}");
        assert_eq!(code(directory.open_beneath("file/more")), libc::ENOTDIR, "{way}");
        for path in ["file/", "file/."] {
            assert_eq!(code(directory.open_beneath(path)), libc::ENOTDIR, "{way}: {path}");
        }
    }
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let tree = Tree::new("out");
    for (way, directory) in tree.both() {
        for path in ["..", "../out", "inner/../../out", "inner/../file", "/etc/passwd", "/"] {
            assert_eq!(code(directory.open_beneath(path)), libc::EXDEV, "{way}: {path}");
        }
        for path in ["link_out", "link_absolute", "inner/far_up/out", "link_magic", "circle", "circle/file"] {
            assert!(directory.open_beneath(path).is_err(), "{way}: {path}");
        }
        let error = directory.open_beneath("file\0more").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{way}");
    }
}

#[test]
fn a_fifo_without_a_writer_is_opened_at_once() {
    let tree = Tree::new("fifo");
    for (way, directory) in tree.both() {
        let fifo = directory.open_beneath("fifo").unwrap();
        assert!(!fifo.metadata().unwrap().is_file(), "{way}");
        let flags = open_flags(fifo.as_fd());
        assert!(flags & libc::O_CLOEXEC != 0 && flags & libc::O_NONBLOCK != 0, "{way}");
    }
}

#[test]
fn an_opened_file_closes_when_dropped() {
    alone!(an_opened_file_closes_when_dropped);
    let tree = Tree::new("closes");
    for (way, directory) in tree.both() {
        let before = open_file_count().unwrap();
        let file = directory.open_beneath("inner/deep/file").unwrap();
        assert_eq!(open_file_count().unwrap(), before + 1, "{way}: what was opened on the way is closed");
        drop(file);
        assert_eq!(open_file_count().unwrap(), before, "{way}");
    }
}

#[test]
fn only_a_directory_can_be_opened_as_one() {
    assert_eq!(Directory::open("/dev/null").unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
    assert_eq!(Directory::open("/nowhere").unwrap_err().kind(), io::ErrorKind::NotFound);
}
