//! How many descriptors this process may have open.

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
}
