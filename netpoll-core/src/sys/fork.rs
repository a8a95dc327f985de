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
    }
}
