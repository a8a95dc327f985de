//! Opening a path that must not lead out of its directory, in one system call: openat2(2), Linux 5.6.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd};

use libc::c_int;

use super::kernel;

/// A name for whatever it is, which is not opened.
pub const LOOK: c_int = libc::O_PATH | libc::O_CLOEXEC;
/// A name for a directory: needs no permission to read it.
pub const DIRECTORY: c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
/// Looking at a name mounts nothing.
pub const NO_MOUNT: c_int = libc::AT_NO_AUTOMOUNT;

/// The argument of openat2(2), as of its first version.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

// OPEN_HOW_SIZE_VER0.
const _: () = assert!(size_of::<OpenHow>() == 24);

/// Opens what has this path below a directory.
///
/// # Errors
/// The kernel's; `ENOSYS` where it has no such call.
pub fn open_beneath(at: BorrowedFd<'_>, path: &CStr, flags: c_int) -> io::Result<File> {
    let how = OpenHow {
        flags: flags as u64,
        mode: 0,
        resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS,
    };
    let (path, how) = (path.as_ptr().expose_provenance(), (&raw const how).expose_provenance());
    let arguments = [kernel::descriptor(at), path, how, size_of::<OpenHow>(), 0, 0];
    // SAFETY: openat2(2) reads a string up to its NUL, and `size` bytes from `how` on. `path` is a `CStr` that is
    // borrowed during the call, `how` is a local of that size. (test: `what_lies_below_the_directory_is_opened`)
    let fd = unsafe { kernel::call(libc::SYS_openat2, arguments) }?;
    // SAFETY: `from_raw_fd` wants a descriptor that nobody else owns. The line above has just got it from
    // the kernel, and `fd` is not used again. (test: `an_opened_file_closes_when_dropped`)
    Ok(unsafe { File::from_raw_fd(fd as c_int) })
}
