//! Calls that raise SIGPIPE, where that would end the process.
//!
//! sendfile(2) and splice(2) take no `MSG_NOSIGNAL`: to a peer that is gone they raise the signal in the thread that called, and the
//! default action ends the process. Rust programs ignore the signal from the start, and nothing has to be done. In another the signal is
//! blocked for the call alone, and taken out again if the call has raised it: whatever a callback starts beside that, a thread or a
//! program, inherits no blocked signal and would not be deaf to one that is meant for it.
//!
//! Cost: one load where the signal is ignored; elsewhere three system calls beside the one that is made.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::signal::action;

/// The process does not ignore the signal.
static IS_DEADLY: AtomicBool = AtomicBool::new(false);

/// Looks whether the process ignores the signal. Called when a worker begins.
///
/// # Errors
/// None are known.
pub fn watch_broken_pipe() -> io::Result<()> {
    IS_DEADLY.store(action(libc::SIGPIPE, None)?.sa_sigaction != libc::SIG_IGN, Ordering::Relaxed);
    Ok(())
}

/// Makes a call that may raise it.
#[inline]
pub(super) fn without_broken_pipe(call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    if IS_DEADLY.load(Ordering::Relaxed) { blocked(call) } else { call() }
}

#[cold]
fn blocked(call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let signals = broken_pipe()?;
    let before = mask(libc::SIG_BLOCK, &signals)?;
    // One that was blocked before may have been pending before.
    // SAFETY: sigismember(3) reads one `sigset_t`, which the kernel has written.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    let was_blocked = unsafe { libc::sigismember(&raw const before, libc::SIGPIPE) } == 1;
    let result = call();
    if !was_blocked {
        // Whatever the call has returned: one that has moved something and then failed says how much that was, and the signal is there.
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: sigtimedwait(2) reads one `sigset_t` and one `timespec`, both locals, and is asked for no `siginfo_t`.
        // (test: `a_large_file_for_a_peer_that_goes_meanwhile_raises_no_signal`)
        unsafe { libc::sigtimedwait(&raw const signals, ptr::null_mut(), &raw const at_once) };
        mask(libc::SIG_SETMASK, &before)?;
    }
    result
}

/// The set of this one signal.
fn broken_pipe() -> io::Result<libc::sigset_t> {
    // SAFETY: a `sigset_t` is plain C data, of which all zeroes is a valid one.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: sigemptyset(3) writes one `sigset_t`, a local.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    crate::sys::checked(unsafe { libc::sigemptyset(&raw mut signals) })?;
    // SAFETY: sigaddset(3) changes one `sigset_t`, a local that was initialised above.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    crate::sys::checked(unsafe { libc::sigaddset(&raw mut signals, libc::SIGPIPE) })?;
    Ok(signals)
}

/// Changes what is blocked on this thread; what was before.
fn mask(how: libc::c_int, signals: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    // SAFETY: as in `broken_pipe`; the kernel overwrites it.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: pthread_sigmask(3) reads one `sigset_t` and writes one; both references are valid for the call.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    match unsafe { libc::pthread_sigmask(how, signals, &raw mut before) } {
        0 => Ok(before),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
