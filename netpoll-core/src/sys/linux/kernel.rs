//! The way into the kernel for the calls that every message makes, without a function around it.
//!
//! The kernel overwrites what the CPU remembers of return addresses, on some CPUs on purpose (the mitigations
//! of Spectre and its kin), so every `ret` behind a system call is mispredicted. A call that is inlined where it is
//! needed has one less; the C library's wrappers add one, and `recv` and `send` there are cancellation points,
//! which cost two atomic exchanges in a program with threads. Measured in
//! `docs/decisions/0006-system-calls-without-a-wrapper.md`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{c_int, c_long};

/// Makes the system call `number` and returns its value.
///
/// # Errors
/// The kernel's. `errno` is left alone.
///
/// # Safety
/// As the call's manual page says: it may read and write memory through what is passed to it.
#[inline(always)]
pub unsafe fn call(number: c_long, arguments: [usize; 6]) -> io::Result<usize> {
    // SAFETY: what the kernel does with the arguments is for the caller to answer, as said above.
    // (test: `a_call_returns_what_the_kernel_says`)
    let returned = unsafe { enter(number, arguments) };
    // No call that is made here returns anything else that is negative.
    usize::try_from(returned).map_err(|_| refused(returned))
}

/// A descriptor as an argument.
#[inline(always)]
pub fn descriptor(fd: BorrowedFd<'_>) -> usize {
    int(fd.as_raw_fd())
}

/// A number as an argument.
#[inline(always)]
pub fn int(number: c_int) -> usize {
    number as isize as usize
}

/// The kernel returns errors as their negative numbers, -1 to -4095 (`MAX_ERRNO`).
#[cold]
fn refused(returned: isize) -> io::Error {
    io::Error::from_raw_os_error(returned.wrapping_neg() as i32)
}

/// Returns what the kernel leaves in the register.
///
/// # Safety
/// As [`call`].
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
#[inline(always)]
unsafe fn enter(number: c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> isize {
    let returned;
    // SAFETY: `syscall` takes number and arguments from these registers, returns in rax, destroys rcx and r11, and
    // uses nobody's stack (System V ABI for x86-64, A.2.1); memory is taken to have changed.
    // (test: `every_argument_arrives`)
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") first, in("rsi") second, in("rdx") third,
            in("r10") fourth, in("r8") fifth, in("r9") sixth,
            lateout("rcx") _, lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    returned
}

/// Returns what the kernel leaves in the register.
///
/// # Safety
/// As [`call`].
#[cfg(all(target_arch = "aarch64", target_pointer_width = "64", not(miri)))]
#[inline(always)]
unsafe fn enter(number: c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> isize {
    let returned;
    // SAFETY: `svc 0` takes the number from x8 and arguments from x0 on, returns in x0, and uses nobody's stack (syscall(2),
    // calling conventions). It keeps the general registers, but of the vector ones no more than a function has to
    // (Linux, arm64/sve.rst), so all that a function may destroy is given up; memory is taken to have changed.
    // (test: `every_argument_arrives`)
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first as isize => returned,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth, in("x5") sixth,
            clobber_abi("C"),
            options(nostack),
        );
    }
    returned
}

/// By way of the C library, where the registers are others, and under an interpreter.
///
/// # Safety
/// As [`call`].
#[cfg(not(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(miri)
)))]
unsafe fn enter(number: c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> isize {
    // SAFETY: syscall(2) passes on what it is given, at the width of a register.
    // (test: `every_argument_arrives`)
    let returned = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if returned == -1 {
        return -(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize);
    }
    returned as isize
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_call_returns_what_the_kernel_says() {
        // SAFETY: getpid(2) takes no arguments and touches no memory.
        // (test: `a_call_returns_what_the_kernel_says`)
        let pid = unsafe { call(libc::SYS_getpid, [0; 6]) };
        assert_eq!(pid.unwrap(), std::process::id() as usize);
        // SAFETY: close(2) of no descriptor does nothing. (test: `a_call_returns_what_the_kernel_says`)
        let closed = unsafe { call(libc::SYS_close, [int(-1), 0, 0, 0, 0, 0]) };
        assert_eq!(closed.unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn every_argument_arrives() {
        // copy_file_range(2) has six, and is refused if one of them is wrong.
        let path = std::env::temp_dir().join(format!("netpoll-kernel-call-{}", std::process::id()));
        let mut file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let (mut from, mut to) = (2_i64, 20_i64);
        let fd = descriptor(file.as_fd());
        let arguments =
            [fd, (&raw mut from).expose_provenance(), fd, (&raw mut to).expose_provenance(), 5, 0];
        // SAFETY: copy_file_range(2) reads and writes two `loff_t`, which these are, and they outlive the call.
        // (test: `every_argument_arrives`)
        let copied = unsafe { call(libc::SYS_copy_file_range, arguments) }.unwrap();
        assert_eq!((copied, from, to), (5, 7, 25));
        let mut refused = arguments;
        refused[5] = 1; // flags, of which there are none
        // SAFETY: as above. (test: `every_argument_arrives`)
        let error = unsafe { call(libc::SYS_copy_file_range, refused) }.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
