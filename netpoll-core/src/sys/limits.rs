//! How many descriptors this process may have open, and what is said where the kernel has refused one, or a thread.

use std::error::Error;
use std::fmt;
use std::io;

use super::{checked, system};

/// The limit on open descriptors of this process (`RLIMIT_NOFILE`): the one in force, and how far it may be raised.
///
/// A connection takes one; a worker takes three (epoll, doorbell, reserve) and one for each listener.
///
/// # Errors
/// The kernel's; none are known.
pub fn open_files() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one `rlimit`; `limit` is one and outlives the call.
    // (test: `raising_the_limit_stops_at_the_hard_one`)
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the limit in force to `want`, or to the hard limit if that is less, and returns what is in
/// force then. Never lowers it. It holds for the whole process.
///
/// # Errors
/// The kernel's: `EPERM` where a sandbox forbids it.
pub fn raise_open_files(want: u64) -> io::Result<u64> {
    let (soft, hard) = open_files()?;
    let raised = want.min(system::open_files_max(hard));
    if raised <= soft {
        return Ok(soft);
    }
    set_open_files(raised, hard)?;
    Ok(raised)
}

/// What there was none of, why, and who can give more.
struct Missing {
    what: String,
    cause: io::Error,
    cure: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}{}", self.what, self.cause, self.cure)
    }
}

/// As a `main` that returns the error shows it.
impl fmt::Debug for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), out)
    }
}

impl Error for Missing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// An error of the kernel, of the same kind, that says what it was about, and what can be done.
pub fn missing(what: impl Into<String>, cause: io::Error) -> io::Error {
    let cure = cure(&cause);
    io::Error::new(cause.kind(), Missing { what: what.into(), cause, cure })
}

/// The same for a thread, of this name. That there are too many already is no `WouldBlock`, which those who wait for a socket take for its own.
pub fn no_thread(name: &str, cause: io::Error) -> io::Error {
    let cure = match cause.raw_os_error() {
        Some(libc::EAGAIN) => {
            "; `ulimit -u`, or TasksMax= or another limit of the control group, allows more"
        }
        Some(libc::EPERM | libc::ENOSYS) => {
            "; a filter of system calls (seccomp) forbids it, as those do that are older than the call `clone3`"
        }
        _ => "",
    };
    let what = format!("no thread for `{name}`");
    let kind = match cause.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::ResourceBusy,
        kind => kind,
    };
    io::Error::new(kind, Missing { what, cause, cure: cure.to_owned() })
}

/// Who can give more, where the error says of what there is none; a part of a sentence, or nothing.
pub fn cure(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            let allowed = open_files().map_or_else(|_| "so many".to_owned(), |(soft, _)| soft.to_string());
            format!(
                "; this process may have {allowed}: `ulimit -n`, LimitNOFILE= or `raise_open_files` allows more"
            )
        }
        Some(libc::ENFILE) => "; the whole machine has no more: sysctl fs.file-max".to_owned(),
        _ => String::new(),
    }
}

pub(super) fn set_open_files(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: setrlimit(2) reads one `rlimit`; `limit` is one, initialised, and outlives the call.
    // (test: `raising_the_limit_stops_at_the_hard_one`)
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(())
}

/// How many descriptors this process has open. Lists `/dev/fd`: for tests and reports.
///
/// # Errors
/// The kernel's, when it is not there or no descriptor is left to list it with.
#[cfg(test)]
pub fn open_file_count() -> io::Result<usize> {
    let listed = std::fs::read_dir("/dev/fd")?.count();
    // One of them is the listing's own.
    Ok(listed - 1)
}

#[cfg(test)]
mod tests {
    use super::super::system::Spare;
    use super::super::testing::alone;
    use super::*;

    #[test]
    fn raising_the_limit_stops_at_the_hard_one() {
        alone!(raising_the_limit_stops_at_the_hard_one);
        set_open_files(64, 256).unwrap();

        assert_eq!(open_files().unwrap(), (64, 256));
        assert_eq!(raise_open_files(100).unwrap(), 100);
        assert_eq!(raise_open_files(80).unwrap(), 100, "never lowers it");
        assert_eq!(raise_open_files(u64::MAX).unwrap(), 256);
        assert_eq!(open_files().unwrap(), (256, 256));
    }

    #[test]
    fn open_files_are_counted() {
        alone!(open_files_are_counted);
        let before = open_file_count().unwrap();
        let _held = [Spare::new().unwrap(), Spare::new().unwrap()];
        assert_eq!(open_file_count().unwrap(), before + 2);
    }

    #[test]
    fn what_the_kernel_refuses_is_said_with_who_can_give_more() {
        let of = io::Error::from_raw_os_error;
        for (error, cure) in [
            (missing("a thing", of(libc::EMFILE)), "`ulimit -n`"),
            (missing("a thing", of(libc::ENFILE)), "fs.file-max"),
            (no_thread("a thing", of(libc::EAGAIN)), "`ulimit -u`"),
            (no_thread("a thing", of(libc::EPERM)), "clone3"),
        ] {
            let said = error.to_string();
            assert!(
                format!("{error:?}").contains(&format!("{said:?}")),
                "also where it is returned from `main`"
            );
            assert!(
                said.contains("a thing") && said.contains(" (os error ") && said.contains(cure),
                "{said}"
            );
            let cause = error.get_ref().and_then(|error| error.source()).unwrap();
            assert!(
                cause.downcast_ref::<io::Error>().unwrap().raw_os_error().is_some(),
                "the kernel's own is its source"
            );
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
        }
        let other = missing("a thing", of(libc::EACCES)).to_string();
        assert_eq!(other, format!("a thing: {}", of(libc::EACCES)));
    }
}
