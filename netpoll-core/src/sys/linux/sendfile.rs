//! From a file to a socket without a copy through us.
//!
//! One system call, without a retry. The offset is passed with each call, so the file's own cursor is neither
//! used nor moved, and one open file serves any number of sockets at a time. Pages that are not in the cache are
//! read while the caller waits: a non-blocking socket does not make the disk so.
//!
//! There is no flag against SIGPIPE: `broken_pipe.rs` keeps it away.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::broken_pipe::without_broken_pipe;
use crate::sys::checked_bytes;

/// Sends up to `length` bytes of `file` from `offset` on, and returns how many were taken.
///
/// Zero means that the file has no bytes there (or `length` is zero). Fewer than asked for means that the socket
/// is full, that the file ends, or that a signal came: only the next call tells.
///
/// # Errors
/// The kernel's: `EAGAIN` when the send buffer is full, `EPIPE`, `ECONNRESET`; `EINVAL` for a file that cannot be
/// spliced, `ENOSYS` where a sandbox forbids the call; `EIO` from the disk; `EOVERFLOW` for an offset that no file
/// has.
pub fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    length: usize,
) -> io::Result<usize> {
    let too_far = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
    let mut offset = libc::off_t::try_from(offset).map_err(too_far)?;
    without_broken_pipe(|| {
        // SAFETY: sendfile(2) reads and writes one `off_t`, the local `offset`, which outlives the call. Both
        // descriptors are borrowed during it. (test: `a_part_of_a_file_is_sent_and_its_cursor_stays`)
        checked_bytes(unsafe {
            libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, length)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    use super::super::broken_pipe::watch_broken_pipe;
    use super::*;
    use crate::sys::socket;
    use crate::sys::testing::{Pair, alone, recv, until};

    /// An unnamed file with these bytes.
    fn file(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("netpoll-sendfile-{}", std::process::id()));
        let path = path.with_extension(format!("{:?}", std::thread::current().id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_part_of_a_file_is_sent_and_its_cursor_stays() {
        let (pair, mut file) = (Pair::new(), file(b"0123456789"));
        file.seek(SeekFrom::Start(7)).unwrap();

        let sent = sendfile(pair.server.as_fd(), file.as_fd(), 2, 4).unwrap();

        assert_eq!((sent, recv(&pair.client).unwrap()), (4, b"2345".to_vec()));
        assert_eq!(file.stream_position().unwrap(), 7);
    }

    #[test]
    fn behind_the_end_of_a_file_nothing_is_sent() {
        let (pair, file) = (Pair::new(), file(b"0123456789"));
        let send = |offset, length| sendfile(pair.server.as_fd(), file.as_fd(), offset, length);
        assert_eq!(send(8, 100).unwrap(), 2, "what there is");
        assert_eq!(send(10, 1).unwrap(), 0);
        assert_eq!(send(1 << 40, 1).unwrap(), 0);
        assert_eq!(send(u64::MAX, 1).unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
    }

    #[test]
    fn a_full_socket_takes_no_file() {
        let (pair, file) = (Pair::new(), file(&[0; 1 << 16]));
        let mut sends = 0;
        let error = loop {
            match sendfile(pair.server.as_fd(), file.as_fd(), 0, 1 << 16) {
                Ok(sent) => assert!(sent > 0),
                Err(error) => break error,
            }
            sends += 1;
            assert!(sends < 10_000, "the peer does not read");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_without_pages_is_refused() {
        let pair = Pair::new();
        let environment = File::open("/proc/self/environ").unwrap();
        let error = sendfile(pair.server.as_fd(), environment.as_fd(), 0, 10).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal() {
        alone!(a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal);
        // SAFETY: signal(2) takes no pointers but this constant.
        // (test: `a_file_for_a_peer_that_is_gone_is_an_error_and_no_signal`)
        assert_ne!(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) }, libc::SIG_ERR);
        watch_broken_pipe().unwrap();
        let (pair, file) = (Pair::new(), file(b"0123456789"));
        socket::reset_on_close(pair.client.as_fd()).unwrap();
        drop(pair.client);
        until(pair.server.as_fd(), libc::POLLHUP);
        assert!(socket::take_error(pair.server.as_fd()).unwrap().is_some());

        let error = sendfile(pair.server.as_fd(), file.as_fd(), 0, 10).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        for set in ["SigBlk", "SigPnd"] {
            let line = format!("{set}:\t{:016x}", 0);
            assert!(status.contains(&line), "{set} is not empty: {status}");
        }
    }

    #[test]
    fn a_large_file_for_a_peer_that_goes_meanwhile_raises_no_signal() {
        alone!(a_large_file_for_a_peer_that_goes_meanwhile_raises_no_signal);
        // SAFETY: signal(2) takes no pointers but this constant.
        // (test: `a_large_file_for_a_peer_that_goes_meanwhile_raises_no_signal`)
        assert_ne!(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) }, libc::SIG_ERR);
        watch_broken_pipe().unwrap();
        let (pair, file) = (Pair::new(), file(&vec![7; 1 << 20]));
        drop(pair.client);
        until(pair.server.as_fd(), libc::POLLRDHUP);

        // The first round draws a reset; in the second the signal comes, and the call tells of the first.
        let sent = sendfile(pair.server.as_fd(), file.as_fd(), 0, 512 << 10).unwrap();

        assert!(sent < 512 << 10, "{sent} bytes for nobody");
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = format!("SigPnd:\t{:016x}", 0);
        assert!(status.contains(&line), "a signal is left: {status}");
    }
}
