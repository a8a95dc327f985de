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
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
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

    /// The directory, as opened by openat2(2), and as walked.
    fn both(&self) -> [(&'static str, Directory); 2] {
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

fn read(opened: io::Result<File>) -> io::Result<String> {
    let mut text = String::new();
    opened?.read_to_string(&mut text)?;
    Ok(text)
}

fn code(opened: io::Result<File>) -> i32 {
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
fn links_that_stay_inside_are_followed_where_the_kernel_watches_them() {
    let tree = Tree::new("links");
    let [(_, asked), (_, walked)] = tree.both();
    for path in ["link_within/file", "inner/up/link_within/file"] {
        assert_eq!(read(asked.open_beneath(path)).unwrap(), "deep");
        assert_eq!(code(walked.open_beneath(path)), libc::ENOTDIR);
    }
    assert_eq!(code(walked.open_beneath("link_within")), libc::ELOOP);
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
fn only_a_regular_file_is_opened_as_one() {
    let tree = Tree::new("regular");
    symlink("fifo", tree.0.join("root/link_fifo")).unwrap();
    symlink("file", tree.0.join("root/link_file")).unwrap();
    symlink("../out", tree.0.join("root/inner/link_away")).unwrap();
    let opened = Opened::watch(&tree.0.join("root/fifo"));
    for (way, directory) in tree.both() {
        let kind = |path: &str| directory.open_file_beneath(path).map(|found| found.is_some());
        assert!(kind("file").unwrap() && kind("inner/deep/file").unwrap(), "{way}");
        for path in ["fifo", "inner", "inner/deep", "."] {
            assert!(!kind(path).unwrap(), "{way}: {path}");
        }
        let (file, metadata) = directory.open_file_beneath("file").unwrap().unwrap();
        assert_eq!((read(Ok(file)).unwrap().as_str(), metadata.len()), ("top", 3));
        for path in
            ["missing", "file/", "../out", "/etc/passwd", "link_out", "inner/far_up/out", "circle", ""]
        {
            assert!(directory.open_file_beneath(path).is_err(), "{way}: {path}");
        }
        // The walk follows no link at all.
        assert_eq!(kind("link_file").ok(), (way == "openat2").then_some(true), "{way}");
        assert_eq!(kind("link_fifo").ok(), (way == "openat2").then_some(false), "{way}");
        assert!(!opened.is_reported(), "{way}: the FIFO was never opened");
        drop(directory.open_beneath("fifo").unwrap());
        assert!(opened.is_reported(), "{way}: which would have been seen");
    }
}

/// Tells whether a file was opened, by inotify(7).
struct Opened(OwnedFd);

impl Opened {
    fn watch(path: &Path) -> Self {
        // SAFETY: inotify_init1(2) takes no pointer. (test: `only_a_regular_file_is_opened_as_one`)
        let raw = checked(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) }).unwrap();
        // SAFETY: the kernel has just made it, and nobody else has it. (test: as above)
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: inotify_add_watch(2) reads a string up to its NUL, of a local. (test: as above)
        let watch = unsafe { libc::inotify_add_watch(raw, path.as_ptr(), libc::IN_OPEN) };
        checked(watch).unwrap();
        Self(fd)
    }

    fn is_reported(&self) -> bool {
        let mut events = [0_u8; 4096];
        let mut file = File::from(self.0.try_clone().unwrap());
        file.read(&mut events).is_ok_and(|bytes| bytes > 0)
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

#[test]
fn a_kernel_without_openat2_is_walked_from_then_on() {
    alone!(a_kernel_without_openat2_is_walked_from_then_on);
    let tree = Tree::new("forbidden");
    for refusal in [libc::EPERM, libc::ENOSYS] {
        // Filters add up, and the latest of equal strength decides.
        forbid_openat2(refusal);
        let directory = Directory::open(tree.0.join("root")).unwrap();
        assert_eq!(read(directory.open_beneath("inner/deep/file")).unwrap(), "deep");
        assert_eq!(code(directory.open_beneath("link_within")), libc::ELOOP);
        assert_eq!(directory.walks.load(Relaxed), refusal == libc::ENOSYS);
    }
}

/// Makes openat2(2) fail with this error in this thread, as a sandbox does (seccomp(2)).
fn forbid_openat2(refusal: c_int) {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // `seccomp_data` begins with the number of the call.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, libc::SYS_openat2 as u32, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | refusal as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl(2) takes no pointers for this. (test: `a_kernel_without_openat2_is_walked_from_then_on`)
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).unwrap();
    // SAFETY: prctl(2) reads one `sock_fprog` and the steps that it names; both are locals.
    // (test: `a_kernel_without_openat2_is_walked_from_then_on`)
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    checked(set).unwrap();
}
