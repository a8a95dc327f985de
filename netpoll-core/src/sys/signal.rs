//! Signals as events that a thread can wait for: those that stop a runtime, and those that the program listens to.
//!
//! One handler serves both. It counts a signal that is listened to and rings one doorbell, and rings another for one that stops. Their
//! descriptors sit in atomics, are made once per process and are never closed, so a handler that is still running while
//! [`StopSignals`] or a [`Listening`] is dropped writes to them and to nothing else.
//!
//! Invariant: our handler is installed for a signal while somebody uses it, and what was there before is kept beside it in `CAUGHT`; the
//! last who goes puts that back, unless somebody else has installed another by then.
//!
//! One stop signal is caught, or two where the first is only told in advance: the next, whichever they are, ends the process as if
//! there were no handler. The kernel does not do that to number 1 of a PID namespace (pid_namespaces(7)), which therefore exits by
//! itself, with the status that a shell would give it. In a forked child the first signal does it. Only one [`StopSignals`]
//! exists at a time, because handlers belong to the process. Whoever listens to a stop signal hears it too, and changes nothing of this.
//!
//! What was ignored when it was installed stays ignored, and a handler of the program for SIGHUP stays, unless the program listens to
//! it here: that signal means reload as often as stop.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::c_int;

use super::checked;
use super::fork;
use super::system::{Doorbell, errno_location};
use super::timeout::Timeout;

/// A signal that stops a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: `kill`, and what supervisors send.
    Terminate,
    /// SIGHUP: the terminal was closed; by convention also an order to reload.
    HangUp,
}

impl StopSignal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Interrupt, Self::Terminate, Self::HangUp];

    const fn number(self) -> c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::HangUp => libc::SIGHUP,
        }
    }

    /// Whether a runtime may take it from its present action.
    const fn is_free(self, present: libc::sighandler_t) -> bool {
        match self {
            Self::HangUp => present == libc::SIG_DFL,
            Self::Interrupt | Self::Terminate => present != libc::SIG_IGN,
        }
    }
}

/// A signal that a program may listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignalKind {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: `kill`, and what supervisors send.
    Terminate,
    /// SIGHUP: the terminal was closed; by convention also an order to reload.
    HangUp,
    /// SIGQUIT: Ctrl-\\.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGCHLD: a child has ended or was stopped.
    Child,
    /// SIGWINCH: the terminal has another size.
    WindowChange,
    /// SIGCONT: the process goes on after it was stopped.
    Continue,
}

impl SignalKind {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Interrupt,
        Self::Terminate,
        Self::HangUp,
        Self::Quit,
        Self::User1,
        Self::User2,
        Self::Child,
        Self::WindowChange,
        Self::Continue,
    ];

    const fn number(self) -> c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::HangUp => libc::SIGHUP,
            Self::Quit => libc::SIGQUIT,
            Self::User1 => libc::SIGUSR1,
            Self::User2 => libc::SIGUSR2,
            Self::Child => libc::SIGCHLD,
            Self::WindowChange => libc::SIGWINCH,
            Self::Continue => libc::SIGCONT,
        }
    }
}

/// What the handler does with a signal.
struct Marks {
    /// It stops.
    stops: AtomicBool,
    /// Somebody listens to it.
    is_heard: AtomicBool,
    /// How often it came while somebody listened, and was not taken yet.
    came: AtomicU64,
}

/// By number.
static MARKS: [Marks; 65] = [const {
    Marks { stops: AtomicBool::new(false), is_heard: AtomicBool::new(false), came: AtomicU64::new(0) }
}; 65];

fn marks(signal: c_int) -> &'static Marks {
    &MARKS[usize::try_from(signal).expect("a signal has a number above zero")]
}

/// A signal that our handler is installed for.
struct Caught {
    signal: c_int,
    uses: usize,
    /// What to put back.
    previous: libc::sigaction,
}

static CAUGHT: Mutex<Vec<Caught>> = Mutex::new(Vec::new());

/// Uses our handler for a signal once more. False if it is not free: what it was before ours says.
fn catch(signal: c_int, is_free: impl Fn(libc::sighandler_t) -> bool) -> io::Result<bool> {
    let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = caught.iter_mut().find(|caught| caught.signal == signal) {
        let is_free = is_free(known.previous.sa_sigaction);
        known.uses += usize::from(is_free);
        return Ok(is_free);
    }
    if !is_free(action(signal, None)?.sa_sigaction) {
        return Ok(false);
    }
    let previous = action(signal, Some(&catching()?))?;
    caught.push(Caught { signal, uses: 1, previous });
    Ok(true)
}

/// Uses it once less.
fn let_go(signal: c_int) {
    let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(at) = caught.iter().position(|caught| caught.signal == signal) else { return };
    caught[at].uses -= 1;
    if caught[at].uses == 0 {
        let previous = caught.swap_remove(at).previous;
        let is_ours =
            action(signal, None).is_ok_and(|now| now.sa_sigaction == on_signal as *const () as usize);
        if is_ours {
            // The kernel gave us this action for this signal, so it takes it back; and if it does not, whoever
            // goes can do nothing better than go on.
            let _ = action(signal, Some(&previous));
        }
    }
}

/// Rung by each signal that is listened to. Never dropped.
static NEWS: OnceLock<Doorbell> = OnceLock::new();

/// The same as a number, for the handler; -1 until the first [`Listening`].
static NEWS_FD: AtomicI32 = AtomicI32::new(-1);

/// The doorbell `NEWS`, or the one of the stop signals; made by who comes first.
fn once(bell: &'static OnceLock<Doorbell>, number: &AtomicI32) -> io::Result<&'static Doorbell> {
    fork::watch()?;
    let bell = match bell.get() {
        Some(bell) => bell,
        None => {
            let new = Doorbell::new()?;
            bell.get_or_init(|| new)
        }
    };
    number.store(bell.ringer().as_raw_fd(), Ordering::Release);
    Ok(bell)
}

/// The process catches a signal while it lives, unless it ignored it before. Of a kind there is one at a time.
pub struct Listening {
    kind: SignalKind,
    is_caught: bool,
}

impl Listening {
    /// Catches the signal, for the whole process. A handler of the program rests meanwhile.
    ///
    /// # Errors
    /// `EMFILE` and the like when there is no doorbell to be had.
    pub fn to(kind: SignalKind) -> io::Result<Self> {
        once(&NEWS, &NEWS_FD)?;
        let number = kind.number();
        marks(number).came.store(0, Ordering::Release);
        // Marked while it is not caught yet, or not any more: one that comes between the two is never lost.
        marks(number).is_heard.store(true, Ordering::Release);
        let caught = catch(number, |present| present != libc::SIG_IGN);
        if !matches!(caught, Ok(true)) {
            marks(number).is_heard.store(false, Ordering::Release);
        }
        Ok(Self { kind, is_caught: caught? })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.is_caught {
            let number = self.kind.number();
            let_go(number);
            marks(number).is_heard.store(false, Ordering::Release);
        }
    }
}

/// Makes what a [`Listening`] and [`wait_for_signals`] need. The first call does it, the others are free.
///
/// # Errors
/// `EMFILE` and the like when there is no doorbell to be had.
pub fn prepare_signals() -> io::Result<()> {
    once(&NEWS, &NEWS_FD).map(drop)
}

/// Sleeps until a signal has come that is listened to. Behind [`prepare_signals`].
///
/// # Errors
/// The kernel's: `ENOMEM`. `EBADF` if nothing is prepared.
pub fn wait_for_signals() -> io::Result<()> {
    let news = NEWS.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
    news.wait()?;
    news.take()?;
    Ok(())
}

/// Whether a signal of this kind has come, while it was listened to, since the last call.
pub fn has_come(kind: SignalKind) -> bool {
    marks(kind.number()).came.swap(0, Ordering::AcqRel) > 0
}

/// The doorbell of the stop signals, for whoever waits. Never dropped.
static BELL: OnceLock<Doorbell> = OnceLock::new();

/// The same as a number, for the handler; -1 until the first `install`.
static BELL_FD: AtomicI32 = AtomicI32::new(-1);

/// How many stop signals are still caught: at zero the next one ends the process.
static CAUGHT_YET: AtomicU32 = AtomicU32::new(0);

/// One of them less. False if there was none.
fn catch_one_less() -> bool {
    CAUGHT_YET.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

/// A `StopSignals` exists.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Why [`StopSignals::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A stop signal came. Returned once for those that came by then.
    Signal,
    /// The other descriptor is readable, or hung up.
    Other,
    /// The time is up, or a signal that is not ours interrupted a timed wait.
    Timeout,
}

/// Catches stop signals while it lives; dropping it puts the previous handlers back.
pub struct StopSignals {
    bell: &'static Doorbell,
    /// What is caught.
    signals: Vec<c_int>,
}

impl StopSignals {
    /// Installs handlers for these signals, for the whole process. So many of them are caught; the next ends the process.
    ///
    /// # Errors
    /// `EBUSY` while another one exists; `EMFILE` and the like when there is no doorbell to be had.
    pub fn install(stop: &[StopSignal], caught: u32) -> io::Result<StopSignals> {
        let bell = once(&BELL, &BELL_FD)?;
        if INSTALLED.swap(true, Ordering::AcqRel) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        // From here on dropping it undoes everything.
        let mut signals = StopSignals { bell, signals: Vec::with_capacity(stop.len()) };
        bell.take()?;
        CAUGHT_YET.store(caught, Ordering::Release);
        for &signal in stop {
            let number = signal.number();
            // Marked first, as in `Listening`.
            marks(number).stops.store(true, Ordering::Release);
            match catch(number, |present| signal.is_free(present)) {
                Ok(true) => signals.signals.push(number),
                not_caught => {
                    marks(number).stops.store(false, Ordering::Release);
                    not_caught?;
                }
            }
        }
        Ok(signals)
    }

    /// Catches one less than was asked for, if it has not come: what it would have told is known.
    pub fn catch_one_less(&self) {
        catch_one_less();
    }

    /// As many have come as are caught: the next ends the process.
    pub fn have_all_come(&self) -> bool {
        CAUGHT_YET.load(Ordering::Acquire) == 0
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
        for signal in self.signals.drain(..).rev() {
            let_go(signal);
            marks(signal).stops.store(false, Ordering::Release);
        }
        INSTALLED.store(false, Ordering::Release);
    }
}

/// Runs between any two instructions of any thread: atomics, write(2) and what `die` does only, `errno` kept
/// (signal-safety(7)).
extern "C" fn on_signal(signal: c_int) {
    // SAFETY: errno_location has no preconditions; it returns this thread's `errno`.
    // (test: `the_handler_keeps_errno`)
    let errno = unsafe { errno_location() };
    // SAFETY: the line above returned a valid, aligned c_int that only this thread uses.
    // (test: `the_handler_keeps_errno`)
    let saved = unsafe { *errno };
    let marks = usize::try_from(signal).ok().and_then(|signal| MARKS.get(signal));
    let is = |mark: fn(&Marks) -> &AtomicBool| marks.is_some_and(|marks| mark(marks).load(Ordering::Acquire));
    if fork::is_child() {
        // It has no bell of its own.
        die(signal);
    } else {
        if let Some(marks) = marks.filter(|_| is(|marks| &marks.is_heard)) {
            marks.came.fetch_add(1, Ordering::AcqRel);
            ring(&NEWS_FD);
        }
        if is(|marks| &marks.stops) {
            if catch_one_less() {
                ring(&BELL_FD);
            } else {
                // One more is not to be waited for.
                die(signal);
            }
        }
    }
    // SAFETY: as for reading it. (test: `the_handler_keeps_errno`)
    unsafe { *errno = saved };
}

/// Rings a doorbell by the number of its descriptor. For signal handlers.
fn ring(bell: &AtomicI32) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe and reads eight bytes of `one`, a local. The descriptor is that of a
    // bell, which is never closed, or -1, which is refused. (test: `a_stop_signal_ends_the_wait`)
    unsafe { libc::write(bell.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
}

/// Ends the process as if the signal had not been caught: when the handler returns, or at once where the kernel would
/// ignore it. For signal handlers: getpid(2), _exit(2), signal(2) and raise(3) are async-signal-safe.
fn die(signal: c_int) {
    // SAFETY: getpid(2) has no preconditions. (test: `a_second_signal_ends_even_the_first_process_of_a_namespace`)
    if unsafe { libc::getpid() } == 1 {
        // SAFETY: _exit(2) takes no pointers, and nothing of this process is used after it.
        // (test: `a_second_signal_ends_even_the_first_process_of_a_namespace`)
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: signal(2) takes no pointer that is used: SIG_DFL is a number. (test: `any_second_signal_kills`)
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: raise(3) takes no pointers. The signal is blocked while its handler runs, and takes effect behind it.
    // (test: `any_second_signal_kills`)
    unsafe { libc::raise(signal) };
}

/// `on_signal`, with interrupted system calls restarted.
fn catching() -> io::Result<libc::sigaction> {
    // SAFETY: `sigaction` is plain C data; all zeroes is a valid one (default action, no flags, no mask).
    // (test: `a_stop_signal_ends_the_wait`)
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: sigemptyset(3) writes one `sigset_t`, the one inside `action`.
    // (test: `a_stop_signal_ends_the_wait`)
    checked(unsafe { libc::sigemptyset(&raw mut action.sa_mask) })?;
    Ok(action)
}

/// The action of a signal, which `new` replaces if there is one.
pub(super) fn action(signal: c_int, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: as in `catching`: zeroes are a valid `sigaction`; the kernel overwrites it.
    // (test: `dropping_puts_the_previous_handlers_back`)
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: sigaction(2) reads one `sigaction`, or none if the pointer is null, and writes one; both references are valid
    // for the call. The handler in it is `on_signal`, which keeps to async-signal-safe work, or whatever was installed before
    // us. (test: `dropping_puts_the_previous_handlers_back`)
    checked(unsafe { libc::sigaction(signal, new, &raw mut previous) })?;
    Ok(previous)
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

    use super::super::testing::{alone, in_child, in_child_with, interrupted};
    use super::*;

    fn raise(signal: c_int) {
        // SAFETY: raise(3) takes no pointers. (test: `a_stop_signal_ends_the_wait`)
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    const NUMBERS: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

    fn install() -> StopSignals {
        StopSignals::install(&StopSignal::ALL, 1).unwrap()
    }

    fn set(signal: c_int, action: libc::sighandler_t) {
        // SAFETY: signal(2) takes a number or a static function; `note` stores to one atomic.
        // (test: `a_handler_of_the_program_for_hang_ups_stays`)
        assert_ne!(unsafe { libc::signal(signal, action) }, libc::SIG_ERR);
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
        let quiet = Doorbell::new().unwrap();
        for signal in NUMBERS {
            by_default(signal);
            let signals = install();
            raise(signal);
            assert_eq!(signals.wait(quiet.as_fd(), Timeout::Never).unwrap(), Woken::Signal);
            assert_eq!(signals.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout, "reported once");
        }
    }

    #[test]
    fn as_many_signals_as_were_asked_for_are_told_and_the_next_kills() {
        if dies_of(libc::SIGHUP, "as_many_signals_as_were_asked_for_are_told_and_the_next_kills") {
            return;
        }
        NUMBERS.into_iter().for_each(by_default);
        let quiet = Doorbell::new().unwrap();
        for caught in [2, 3] {
            let signals = StopSignals::install(&StopSignal::ALL, caught).unwrap();
            if caught == 3 {
                signals.catch_one_less();
            }
            for signal in [libc::SIGTERM, libc::SIGINT] {
                raise(signal);
                assert_eq!(signals.wait(quiet.as_fd(), Timeout::Never).unwrap(), Woken::Signal);
            }
            assert!(signals.have_all_come());
            if caught == 3 {
                raise(libc::SIGHUP);
            }
        }
    }

    #[test]
    fn the_other_descriptor_ends_the_wait() {
        alone!(the_other_descriptor_ends_the_wait);
        NUMBERS.into_iter().for_each(by_default);
        let (signals, other) = (install(), Doorbell::new().unwrap());
        other.signal().unwrap();
        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Other);

        raise(libc::SIGINT);

        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Signal, "it goes first");
        assert_eq!(signals.wait(other.as_fd(), Timeout::Never).unwrap(), Woken::Other);
    }

    #[test]
    fn a_quiet_wait_ends_in_time() {
        alone!(a_quiet_wait_ends_in_time);
        let (signals, quiet) = (install(), Doorbell::new().unwrap());
        let short = Timeout::After(Duration::from_micros(200));
        assert_eq!(signals.wait(quiet.as_fd(), short).unwrap(), Woken::Timeout);
        let long = Timeout::After(Duration::from_secs(1000));
        let woken = interrupted(|| signals.wait(quiet.as_fd(), long).unwrap());
        assert_eq!(woken, Woken::Timeout, "interrupted");
    }

    /// Where the pair of a test's child process comes from.
    const PAIR: &str = "NETPOLL_TEST_SIGNALS";

    /// In a child of `any_second_signal_kills`.
    fn raise_pair(pair: &str) {
        NUMBERS.into_iter().for_each(by_default);
        let _signals = install();
        for number in pair.split(' ') {
            raise(number.parse().unwrap());
        }
    }

    #[test]
    fn any_second_signal_kills() {
        let name = concat!(module_path!(), "::any_second_signal_kills");
        if let Ok(pair) = std::env::var(PAIR) {
            return raise_pair(&pair);
        }
        for first in NUMBERS {
            for second in NUMBERS {
                let output = in_child_with(name, &[(PAIR, &format!("{first} {second}"))]).unwrap();
                assert_eq!(output.status.signal(), Some(second), "{first} {second}: {output:?}");
            }
            let output = in_child_with(name, &[(PAIR, &format!("{first}"))]).unwrap();
            assert!(output.status.success(), "{first} alone: {output:?}");
        }
    }

    #[test]
    fn a_second_signal_ends_even_the_first_process_of_a_namespace() {
        if std::process::id() == 1 {
            return raise_pair(&format!("{} {}", libc::SIGTERM, libc::SIGINT));
        }
        let name = "sys::signal::tests::a_second_signal_ends_even_the_first_process_of_a_namespace";
        let mut test = Command::new("unshare");
        test.args(["--user", "--map-root-user", "--pid", "--fork", "--"])
            .arg(std::env::current_exe().unwrap());
        let output = test.args(["--exact", name, "--test-threads=1"]).output();
        let Ok(output) = output else { return eprintln!("not run: there is no unshare(1)") };
        if String::from_utf8_lossy(&output.stderr).contains("unshare") {
            return eprintln!("not run: no PID namespace to be had: {output:?}");
        }
        assert_eq!(output.status.code(), Some(128 + libc::SIGINT), "{output:?}");
    }

    #[test]
    fn a_signal_that_was_ignored_stays_ignored() {
        alone!(a_signal_that_was_ignored_stays_ignored);
        for number in NUMBERS {
            set(number, libc::SIG_IGN);
        }
        let (signals, quiet) = (install(), Doorbell::new().unwrap());
        for _ in 0..2 {
            NUMBERS.into_iter().for_each(raise);
        }
        assert_eq!(signals.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout);
    }

    /// The last signal that `note` was called for.
    static NOTED: AtomicI32 = AtomicI32::new(0);

    extern "C" fn note(signal: c_int) {
        NOTED.store(signal, Ordering::Relaxed);
    }

    #[test]
    fn a_handler_of_the_program_for_hang_ups_stays() {
        alone!(a_handler_of_the_program_for_hang_ups_stays);
        NUMBERS.into_iter().for_each(by_default);
        set(libc::SIGHUP, note as *const () as libc::sighandler_t);
        let (signals, quiet) = (install(), Doorbell::new().unwrap());
        raise(libc::SIGHUP);
        assert_eq!(NOTED.load(Ordering::Relaxed), libc::SIGHUP);
        assert_eq!(signals.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout);
        raise(libc::SIGTERM);
        assert_eq!(signals.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Signal);
    }

    #[test]
    fn a_signal_that_is_not_asked_for_keeps_its_action() {
        if dies_of(libc::SIGHUP, "a_signal_that_is_not_asked_for_keeps_its_action") {
            return;
        }
        by_default(libc::SIGHUP);
        let _signals = StopSignals::install(&[StopSignal::Interrupt, StopSignal::Terminate], 1).unwrap();
        raise(libc::SIGHUP);
    }

    #[test]
    fn dropping_puts_the_previous_handlers_back() {
        if dies_of(libc::SIGINT, "dropping_puts_the_previous_handlers_back") {
            return;
        }
        by_default(libc::SIGINT);
        drop(install());
        raise(libc::SIGINT);
    }

    #[test]
    fn signals_can_be_caught_again_but_not_twice_at_a_time() {
        alone!(signals_can_be_caught_again_but_not_twice_at_a_time);
        NUMBERS.into_iter().for_each(by_default);
        let (first, quiet) = (install(), Doorbell::new().unwrap());
        let busy = StopSignals::install(&StopSignal::ALL, 1).err().unwrap();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
        raise(libc::SIGINT);
        drop(first);

        let second = install();

        assert_eq!(second.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Timeout, "the old ring is gone");
        raise(libc::SIGINT);
        assert_eq!(second.wait(quiet.as_fd(), Timeout::Now).unwrap(), Woken::Signal);
    }

    #[test]
    fn the_handler_keeps_errno() {
        alone!(the_handler_keeps_errno);
        let _signals = install();
        BELL_FD.store(-1, Ordering::Release); // the handler's write fails with EBADF
        let refused = checked_errno(libc::ENOENT);

        raise(libc::SIGTERM);

        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(refused));
    }

    /// Leaves `code` in `errno`.
    fn checked_errno(code: c_int) -> c_int {
        // SAFETY: no preconditions. (test: `the_handler_keeps_errno`)
        let errno = unsafe { errno_location() };
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
        let (signals, quiet) = (install(), Doorbell::new().unwrap());
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
