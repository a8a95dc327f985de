//! Whether this process is a forked copy of the one that set things up.
//!
//! A child of `fork` shares the parent's epoll instances and eventfds, and would take its events. It gets
//! a clear panic instead, by asking [`is_child`]. A child that goes on to `exec` is not affected.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set in the child, by its only thread, before `fork` returns there; never cleared.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// Watches for forks from now on. The first call does it, the others are free.
///
/// # Errors
/// `ENOMEM` from pthread_atfork(3).
pub fn watch() -> io::Result<()> {
    static REGISTERED: OnceLock<libc::c_int> = OnceLock::new();
    let code = *REGISTERED.get_or_init(|| {
        // SAFETY: pthread_atfork(3) keeps the function for ever, and runs it in the child where only
        // async-signal-safe work is allowed: `in_child` is a static function that stores to one atomic.
        // (test: `a_forked_child_knows_that_it_is_one`)
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) }
    });
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// This process was forked from one that called [`watch`]. One relaxed load.
#[inline]
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Stops a forked child that goes on where its parent does: it would send, receive and register on what the two share.
/// One relaxed load.
///
/// # Panics
/// In a forked child.
#[inline]
pub fn assert_not_forked() {
    if is_child() {
        forked();
    }
}

#[cold]
#[inline(never)]
fn forked() -> ! {
    panic!("a netpoll runtime was used in a forked child: start it after the fork");
}

/// Ends a forked child with the status of a panic, and runs nothing: destructors and exit handlers are its parent's.
pub fn end_child() -> ! {
    // SAFETY: _exit(2) takes no pointers, and nothing of this process is used after it.
    // (test: `a_child_that_is_ended_says_so_and_runs_no_exit_handler`)
    unsafe { libc::_exit(PANICKED) }
}

/// What a Rust program that panics ends with.
const PANICKED: libc::c_int = 101;

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// Runs in the forked child, before the other program: its error is what `spawn` returns.
    fn refuse_unless_child() -> io::Result<()> {
        if is_child() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EXDEV)) }
    }

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        watch().unwrap();
        watch().unwrap();
        let mut program = Command::new("/bin/true");
        // SAFETY: `pre_exec` wants async-signal-safe work; `refuse_unless_child` loads an atomic and makes an
        // error value out of a number. (test: `a_forked_child_knows_that_it_is_one`)
        unsafe { program.pre_exec(refuse_unless_child) };

        let mut child = program.spawn().unwrap();

        child.wait().unwrap();
        assert!(!is_child(), "the parent is not");
        assert_not_forked();
    }

    extern "C" fn exit_differently() {
        // SAFETY: _exit(2) takes no pointers. (test: `a_child_that_is_ended_says_so_and_runs_no_exit_handler`)
        unsafe { libc::_exit(7) }
    }

    /// Runs in the forked child.
    fn end_there() -> io::Result<()> {
        // SAFETY: atexit(3) keeps the function, a static one, until the process ends.
        // (test: `a_child_that_is_ended_says_so_and_runs_no_exit_handler`)
        unsafe { libc::atexit(exit_differently) };
        end_child()
    }

    #[test]
    fn a_child_that_is_ended_says_so_and_runs_no_exit_handler() {
        let mut program = Command::new("/bin/true");
        // SAFETY: `pre_exec` wants async-signal-safe work; the child has one thread and takes one lock, that of
        // atexit(3), which no other test here takes. (test: `a_child_that_is_ended_says_so_and_runs_no_exit_handler`)
        unsafe { program.pre_exec(end_there) };

        let status = program.spawn().unwrap().wait().unwrap();

        assert_eq!(status.code(), Some(PANICKED));
    }
}
