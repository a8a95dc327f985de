//! SIGINT and SIGTERM as an event that one thread can wait for.
//!
//! The handlers do one thing: they write to an eventfd. Its descriptor sits in an atomic, is made once per
//! process and is never closed, so a handler that is still running while [`StopSignals`] is dropped writes to
//! it and to nothing else.
//!
//! Each signal is caught once: the second SIGINT, or the second SIGTERM, ends the process as if there were
//! no handler. In a forked child the first one does. Only one [`StopSignals`] exists at a time, because handlers
//! belong to the process.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libc::c_int;

use super::checked;
use super::epoll::Timeout;
use super::eventfd::EventFd;
use super::fork;

const STOP: [c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// The eventfd, for whoever waits. Never dropped.
static BELL: OnceLock<EventFd> = OnceLock::new();

/// The same as a number, for the handler; -1 until the first `install`.
static BELL_FD: AtomicI32 = AtomicI32::new(-1);

/// A `StopSignals` exists.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Why [`StopSignals::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// SIGINT or SIGTERM came since the last time this was returned.
    Signal,
    /// The other descriptor is readable, or hung up.
    Other,
    /// The time is up, or a signal that is not ours interrupted a timed wait.
    Timeout,
}

/// Catches SIGINT and SIGTERM while it lives; dropping it puts the previous handlers back.
pub struct StopSignals {
    bell: &'static EventFd,
    /// what to put back, in the order of installing
    previous: Vec<(c_int, libc::sigaction)>,
}

impl StopSignals {
    /// Installs the handlers, for the whole process.
    ///
    /// # Errors
    /// `EBUSY` while another one exists; `EMFILE` and the like when there is no eventfd to be had.
    pub fn install() -> io::Result<StopSignals> {
        fork::watch()?;
        let bell = match BELL.get() {
            Some(bell) => bell,
            None => {
                let new = EventFd::new()?;
                BELL.get_or_init(|| new)
            }
        };
        if INSTALLED.swap(true, Ordering::AcqRel) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        // From here on dropping it undoes everything.
        let mut signals = StopSignals { bell, previous: Vec::with_capacity(STOP.len()) };
        bell.take()?;
        BELL_FD.store(bell.as_fd().as_raw_fd(), Ordering::Release);
        for signal in STOP {
            signals.previous.push((signal, replace_action(signal, &catching()?)?));
        }
        Ok(signals)
    }

    /// Sleeps until a stop signal came, `also` is readable, or the time is up. A signal goes first.
    ///
    /// One `poll`, and one `read` after a signal. The time is in milliseconds, rounded up.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM`.
    pub fn wait(&self, also: BorrowedFd<'_>, timeout: Timeout) -> io::Result<Woken> {
        let watch =
            |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds = [watch(self.bell.as_fd()), watch(also)];
        let mut millis = timeout.as_millis_rounded_up();
        loop {
            match poll(&mut fds, millis) {
                Ok(_) => break,
                // One of ours has rung the bell; for any other, a timed wait looks once more and ends.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => millis = millis.min(0),
                Err(error) => return Err(error),
            }
        }
        if fds[0].revents != 0 {
            self.bell.take()?;
            return Ok(Woken::Signal);
        }
        Ok(if fds[1].revents != 0 { Woken::Other } else { Woken::Timeout })
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        for (signal, previous) in self.previous.drain(..).rev() {
            // The kernel gave us this action for this signal, so it takes it back; and if it does not, a
            // destructor can do nothing better than go on.
            let _ = replace_action(signal, &previous);
        }
        INSTALLED.store(false, Ordering::Release);
    }
}

/// Runs between any two instructions of any thread: atomics, write(2) and raise(3) only, `errno` kept
/// (signal-safety(7)).
extern "C" fn on_stop(signal: c_int) {
    // SAFETY: __errno_location has no preconditions; it returns this thread's `errno`.
    // (test: `the_handler_keeps_errno`)
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the line above returned a valid, aligned c_int that only this thread uses.
    // (test: `the_handler_keeps_errno`)
    let saved = unsafe { *errno };
    if fork::is_child() {
        // The bell is the parent's. The default action is back already (SA_RESETHAND) and takes effect
        // when this handler returns.
        // SAFETY: raise(3) is async-signal-safe and takes no pointers.
        // (test: `a_forked_child_dies_of_the_first_signal`)
        unsafe { libc::raise(signal) };
    } else {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: write(2) is async-signal-safe and reads eight bytes of `one`, a local. The descriptor is the
        // bell's, which is never closed, or -1, which is refused. (test: `a_stop_signal_ends_the_wait`)
        unsafe { libc::write(BELL_FD.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
    }
    // SAFETY: as for reading it. (test: `the_handler_keeps_errno`)
    unsafe { *errno = saved };
}

/// `on_stop`, once per signal, with interrupted system calls restarted.
fn catching() -> io::Result<libc::sigaction> {
    // SAFETY: `sigaction` is plain C data; all zeroes is a valid one (default action, no flags, no mask).
    // (test: `a_stop_signal_ends_the_wait`)
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_stop as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
    // SAFETY: sigemptyset(3) writes one `sigset_t`, the one inside `action`.
    // (test: `a_stop_signal_ends_the_wait`)
    checked(unsafe { libc::sigemptyset(&raw mut action.sa_mask) })?;
    Ok(action)
}

fn replace_action(signal: c_int, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    // SAFETY: as in `catching`: zeroes are a valid `sigaction`; the kernel overwrites it.
    // (test: `dropping_puts_the_previous_handlers_back`)
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: sigaction(2) reads one `sigaction` and writes one; both references are valid for the call. The
    // handler in it is `on_stop`, which keeps to async-signal-safe work, or whatever was installed before us.
    // (test: `dropping_puts_the_previous_handlers_back`)
    checked(unsafe { libc::sigaction(signal, ptr::from_ref(action), &raw mut previous) })?;
    Ok(previous)
}

/// Holds SIGPIPE back from this thread for the rest of its life, whatever the process does about it.
///
/// sendfile(2) takes no `MSG_NOSIGNAL`: to a peer that is gone it raises the signal in the thread that called,
/// and the default action ends the process. Blocked, it stays pending where nobody looks; the call returns
/// `EPIPE` as it should. Rust programs ignore the signal from the start, others may not.
///
/// # Errors
/// None are known.
pub fn block_broken_pipe() -> io::Result<()> {
    // SAFETY: a `sigset_t` is plain C data, of which all zeroes is a valid one.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: sigemptyset(3) writes one `sigset_t`, a local.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    checked(unsafe { libc::sigemptyset(&raw mut signals) })?;
    // SAFETY: sigaddset(3) changes one `sigset_t`, a local that was initialised above.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    checked(unsafe { libc::sigaddset(&raw mut signals, libc::SIGPIPE) })?;
    // SAFETY: pthread_sigmask(3) reads one `sigset_t`, a local, and is not asked for the old mask.
    // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

pub(super) fn poll(fds: &mut [libc::pollfd], millis: c_int) -> io::Result<c_int> {
    // SAFETY: poll(2) reads and writes `nfds` entries from the start of `fds` on: its length. Their descriptors are
    // borrowed by the caller. (test: `the_other_descriptor_ends_the_wait`)
    checked(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;
    use std::time::Duration;

    use super::super::testing::{alone, in_child, interrupted};
    use super::*;

    fn raise(signal: c_int) {
        // SAFETY: raise(3) takes no pointers. (test: `a_stop_signal_ends_the_wait`)
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    /// Makes a signal deadly. A test run in the background of a shell begins with SIGINT ignored.
    fn by_default(signal: c_int) {
        // SAFETY: signal(2) takes no pointers but this constant.
        // (test: `dropping_puts_the_previous_handlers_back`)
        assert_ne!(unsafe { libc::signal(signal, libc::SIG_DFL) }, libc::SIG_ERR);
    }

    /// Runs the test `name` in a process of its own, which must be killed by `signal`; false in that process.
    fn dies_of(signal: c_int, name: &str) -> bool {
        let Some(output) = in_child(&format!("{}::{name}", module_path!())) else { return false };
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
        true
    }

    #[test]
    fn a_stop_signal_ends_the_wait() {
        alone!(a_stop_signal_ends_the_wait);
        let (signals, quiet) = (StopSignals::install().unwrap(), EventFd::new().unwrap());
        for signal in STOP {
            raise(signal);
            assert_eq!(signals.wait(quiet.as_fd(), Timeout::Never).unwrap(), Woken::Signal);
            assert_eq!(signals.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout, "reported once");
        }
    }

    #[test]
    fn the_other_descriptor_ends_the_wait() {
        alone!(the_other_descriptor_ends_the_wait);
        let (signals, other) = (StopSignals::install().unwrap(), EventFd::new().unwrap());
        other.signal().unwrap();
        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Other);

        raise(libc::SIGINT);

        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Signal, "it goes first");
        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Other);
    }

    #[test]
    fn a_quiet_wait_ends_in_time() {
        alone!(a_quiet_wait_ends_in_time);
        let (signals, quiet) = (StopSignals::install().unwrap(), EventFd::new().unwrap());
        let short = Timeout::After(Duration::from_micros(200));
        assert_eq!(signals.wait(quiet.as_fd(), short).unwrap(), Woken::Timeout);
        let long = Timeout::After(Duration::from_secs(1000));
        let woken = interrupted(|| signals.wait(quiet.as_fd(), long).unwrap());
        assert_eq!(woken, Woken::Timeout, "interrupted");
    }

    #[test]
    fn a_second_signal_of_the_same_kind_kills() {
        if dies_of(libc::SIGTERM, "a_second_signal_of_the_same_kind_kills") {
            return;
        }
        by_default(libc::SIGTERM);
        let _signals = StopSignals::install().unwrap();
        raise(libc::SIGTERM);
        raise(libc::SIGTERM);
    }

    #[test]
    fn dropping_puts_the_previous_handlers_back() {
        if dies_of(libc::SIGINT, "dropping_puts_the_previous_handlers_back") {
            return;
        }
        by_default(libc::SIGINT);
        drop(StopSignals::install().unwrap());
        raise(libc::SIGINT);
    }

    #[test]
    fn signals_can_be_caught_again_but_not_twice_at_a_time() {
        alone!(signals_can_be_caught_again_but_not_twice_at_a_time);
        let (first, quiet) = (StopSignals::install().unwrap(), EventFd::new().unwrap());
        let busy = StopSignals::install().err().unwrap();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
        raise(libc::SIGINT);
        drop(first);

        let second = StopSignals::install().unwrap();

        assert_eq!(second.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout, "the old ring is gone");
        raise(libc::SIGINT);
        assert_eq!(second.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Signal);
    }

    #[test]
    fn the_handler_keeps_errno() {
        alone!(the_handler_keeps_errno);
        let _signals = StopSignals::install().unwrap();
        BELL_FD.store(-1, Ordering::Release); // the handler's write fails with EBADF
        let refused = checked_errno(libc::ENOENT);

        raise(libc::SIGTERM);

        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(refused));
    }

    /// Leaves `code` in `errno`.
    fn checked_errno(code: c_int) -> c_int {
        // SAFETY: no preconditions. (test: `the_handler_keeps_errno`)
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: this thread's own `errno`, valid and aligned. (test: `the_handler_keeps_errno`)
        unsafe { *errno = code };
        code
    }

    /// Runs in the forked child, before the other program.
    fn raise_there() -> io::Result<()> {
        raise(libc::SIGTERM);
        Ok(())
    }

    #[test]
    fn a_forked_child_dies_of_the_first_signal() {
        alone!(a_forked_child_dies_of_the_first_signal);
        let (signals, quiet) = (StopSignals::install().unwrap(), EventFd::new().unwrap());
        let mut program = Command::new("/bin/true");
        // SAFETY: `pre_exec` wants async-signal-safe work; raise(3) is.
        // (test: `a_forked_child_dies_of_the_first_signal`)
        unsafe { program.pre_exec(raise_there) };

        let status = program.spawn().unwrap().wait().unwrap();

        assert_eq!(status.signal(), Some(libc::SIGTERM));
        let woken = signals.wait(quiet.as_fd(), Timeout::Now).unwrap();
        assert_eq!(woken, Woken::Timeout, "the parent's bell is silent");
    }
}
