//! What openat2(2) does, and what is done where it is missing, as Linux alone can show it.

use std::io::Read;
use std::os::unix::fs::symlink;

use super::super::testing::alone;
use super::tests::{Tree, code, read};
use super::*;

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
