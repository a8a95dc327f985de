//! Options of a stream, of the kind that a listener hands down and a connection that we begin has to be given.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::SockRef;

use super::sockopt::{set_buffers, set_keepalive};
use super::system::{set_unsent_bytes_max, set_user_timeout};

/// When the kernel probes a silent peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe. Whole seconds, 1 to 32767; fractions are dropped.
    pub idle: Duration,
    /// Time between probes. Whole seconds, 1 to 32767; fractions are dropped.
    pub interval: Duration,
    /// Probes without an answer after which the connection has failed, 1 to 127.
    pub probes: u32,
}

/// How a stream is set up. What it says of TCP does not concern one in the Unix domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    pub nodelay: bool,
    pub keepalive: Option<Keepalive>,
    pub user_timeout: Option<Duration>,
    pub unsent_bytes_max: Option<u32>,
    pub send_buffer_bytes: Option<usize>,
    pub receive_buffer_bytes: Option<usize>,
    /// Where a connection comes from.
    pub from: Option<SocketAddr>,
}

impl StreamOptions {
    /// What suits most: small messages leave at once, and a peer that is gone without a word is noticed within two minutes.
    pub const DEFAULT: Self = Self {
        nodelay: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            probes: 4,
        }),
        user_timeout: Some(Duration::from_secs(120)),
        unsent_bytes_max: Some(128 * 1024),
        send_buffer_bytes: None,
        receive_buffer_bytes: None,
        from: None,
    };

    /// What cannot be meant, if something is: what the kernel refuses, and what it takes for something else. It reads zero as "off" or
    /// "the default", which is said by `None` here, and the lower bits of a number that is too large.
    pub fn complaint(&self) -> Option<&'static str> {
        const SECONDS_MAX: u64 = 32_767;
        let is_out_of_range = |time: Duration| !(1..=SECONDS_MAX).contains(&time.as_secs());
        let complaints = [
            (
                self.keepalive.is_some_and(|keepalive| {
                    is_out_of_range(keepalive.idle) || is_out_of_range(keepalive.interval)
                }),
                "keepalive: idle or interval is not between 1 and 32767 seconds",
            ),
            (
                self.keepalive.is_some_and(|keepalive| !(1..=127).contains(&keepalive.probes)),
                "keepalive: probes are not between 1 and 127",
            ),
            (
                self.user_timeout.is_some_and(|time| time.as_millis() == 0),
                "user_timeout is below a millisecond: None leaves it to the kernel",
            ),
            (
                self.user_timeout.is_some_and(|time| time.as_millis() > i32::MAX as u128),
                "user_timeout is above 2147483647 milliseconds: None leaves it to the kernel",
            ),
            (self.unsent_bytes_max == Some(0), "unsent_bytes_max is zero: None leaves it to the kernel"),
            (
                !is_buffer_size(self.send_buffer_bytes),
                "send_buffer_bytes is not between 1 and 2147483647: None lets it grow by itself",
            ),
            (
                !is_buffer_size(self.receive_buffer_bytes),
                "receive_buffer_bytes is not between 1 and 2147483647: None lets it grow by itself",
            ),
        ];
        complaints.into_iter().find(|(is_so, _)| *is_so).map(|(_, complaint)| complaint)
    }

    /// Sets up a TCP socket. Up to nine system calls, none of which goes to the network.
    ///
    /// # Errors
    /// The kernel's, with the name of the setting: `EINVAL` for times out of range.
    pub fn apply(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(true)?;
        }
        if let Some(Keepalive { idle, interval, probes }) = self.keepalive {
            let set = set_keepalive(socket, idle, interval, probes);
            unless_unknown(set).map_err(|error| refused("keepalive", &error))?;
        }
        if let Some(time) = self.user_timeout {
            let set = set_user_timeout(socket, time);
            unless_unknown(set).map_err(|error| refused("user_timeout", &error))?;
        }
        if let Some(bytes) = self.unsent_bytes_max {
            set_unsent_bytes_max(socket, bytes).map_err(|error| refused("unsent_bytes_max", &error))?;
        }
        self.apply_buffers(socket)
    }

    /// How many system calls [`apply`](Self::apply) makes.
    pub fn calls(&self) -> u64 {
        let buffers = [self.send_buffer_bytes, self.receive_buffer_bytes];
        let singles = [self.nodelay, self.user_timeout.is_some(), self.unsent_bytes_max.is_some()];
        let keepalive = if self.keepalive.is_some() { 4 } else { 0 };
        keepalive
            + singles.iter().filter(|is_set| **is_set).count() as u64
            + buffers.iter().flatten().count() as u64
    }

    /// Sets the sizes of the buffers, which a Unix socket has as well.
    ///
    /// # Errors
    /// The kernel's; none are known.
    pub fn apply_buffers(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        set_buffers(socket, self.send_buffer_bytes, self.receive_buffer_bytes)
            .map_err(|error| refused("a buffer's size", &error))
    }
}

/// Whether a size of a buffer is one that the kernel takes as it is said; `None` is.
pub fn is_buffer_size(bytes: Option<usize>) -> bool {
    bytes.is_none_or(|bytes| (1..=i32::MAX as usize).contains(&bytes))
}

#[cold]
/// Passes over an option that the socket's protocol does not have: MPTCP lacks some of those of TCP, and serves without.
fn unless_unknown(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)) => Ok(()),
        set => set,
    }
}

fn refused(setting: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{setting}: {error}"))
}
