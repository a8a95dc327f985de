//! What a driver counts: its system calls by kind, and bytes.
//!
//! Plain integers with one writer; the turn publishes them. An increment is one instruction.

/// Work done by one driver since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// `epoll_pwait` and `epoll_pwait2`, the `epoll_wait` of mio, or `io_uring_enter`.
    pub syscalls_wait: u64,
    /// `recv`.
    pub syscalls_recv: u64,
    /// `send` and `sendmsg`.
    pub syscalls_send: u64,
    /// `sendfile`, and `pread` of files that have no `sendfile`.
    pub syscalls_sendfile: u64,
    /// `splice`, and `read` of what it has left in a pipe.
    pub syscalls_splice: u64,
    /// `recvmmsg`.
    pub syscalls_recvmmsg: u64,
    /// `sendmmsg`.
    pub syscalls_sendmmsg: u64,
    /// `accept4`.
    pub syscalls_accept: u64,
    /// `epoll_ctl`: one for each listener, at most one for each stream, two for each pause of a listener;
    /// one for each datagram socket, two for each time that it has to wait for room.
    pub syscalls_ctl: u64,
    /// `close`.
    pub syscalls_close: u64,
    /// `shutdown`.
    pub syscalls_shutdown: u64,
    /// `socket` and `connect`.
    pub syscalls_connect: u64,
    /// `setsockopt`, `getsockopt`, `ioctl` and what refills the reserve descriptor.
    pub syscalls_other: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes that were received and sent by `splice`, which are part of both sums.
    pub spliced_bytes: u64,
    /// Sends that the peer's window or our socket buffer cut short.
    pub sends_blocked: u64,
    /// Reads that found nothing.
    pub receives_empty: u64,
    /// Reads that ended because the connection's share of the turn was used up.
    pub quantum_hits: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams that were longer than they may be, and were cut.
    pub datagrams_truncated: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams that the kernel would not send: too long, no way there, forbidden.
    pub datagrams_refused: u64,
    /// Errors that the kernel told of a datagram socket, such as ICMP messages.
    pub datagram_errors: u64,
    /// Times that the process or the system had no descriptor left for an accepted peer.
    pub descriptors_exhausted: u64,
}
