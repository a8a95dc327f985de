//! What may be asked of a connection from outside: how an outgoing one is made and what starts it, and orders by name.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Context, Tables};
use crate::driver::Io;
use crate::sys::{Keepalive, StreamOptions};

/// What one connection, or another thread, may want of a connection that it knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ends our direction behind what is queued, and goes on receiving.
    Finish,
    /// Closes it behind what is queued.
    Close,
    Reset,
    /// Calls `woken`.
    Wake,
    /// Holds its input back.
    Pause,
    /// Lets it go.
    Resume,
}

/// An outgoing connection of whatever protocol, ready to start on a worker.
pub trait Start {
    fn start(self: Box<Self>, tables: &mut Tables, cx: &mut Context, io: &mut dyn Io);
}

/// How an outgoing connection is made, and its socket set up.
///
/// ```
/// use std::time::Duration;
///
/// use netpoll_core::ConnectOptions;
///
/// let options = ConnectOptions::default().timeout(Duration::from_secs(2)).keepalive(None);
/// assert!(options.nodelay);
/// ```
///
/// Values that cannot be meant fail the connection ([`ConnectFailed`](crate::Lost::ConnectFailed), `InvalidInput`), and the error names
/// them: times of zero, sizes of buffers of zero or above 2147483647, [`Keepalive`] out of range, and a `from` of the other family
/// than the address that is tried.
///
/// The options of TCP take six system calls in all by default, none of which goes to the network, and do not concern a Unix
/// socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How long it may take, with looking up a name and trying all its addresses; then `lost` says
    /// `ConnectFailed(TimedOut)`. Default 10 s. Of several addresses each gets its share of what is left, and two seconds at least if there are so many.
    pub timeout: Duration,
    /// The local address to use, with port 0 for any port; `None`, the default, leaves both to the kernel.
    pub from: Option<SocketAddr>,
    /// Whether small pieces leave at once (`TCP_NODELAY`). Default true.
    pub nodelay: bool,
    /// When the kernel probes a peer that is silent. Default as for accepted connections
    /// ([`Builder::keepalive`](crate::Builder::keepalive)): after 60 s, every 15 s, four times.
    pub keepalive: Option<Keepalive>,
    /// How long what was sent may stay without an acknowledgement before the kernel ends the connection
    /// ([`Builder::user_timeout`](crate::Builder::user_timeout)). Default 120 s.
    pub user_timeout: Option<Duration>,
    /// Bytes that the kernel takes beyond what it can send ([`Builder::unsent_bytes_max`](crate::Builder::unsent_bytes_max)).
    /// Default `None`, unlike that of accepted connections: the kernel takes megabytes. Who connects often says all it has to say
    /// before it listens, and a connection is not read while more than [`ConnLimits::write_high_bytes`](crate::ConnLimits) of
    /// its output wait.
    pub unsent_bytes_max: Option<u32>,
    /// Size of the kernel's send buffer, in bytes (`SO_SNDBUF`; the kernel doubles it). Default `None`: it grows by itself. Of a Unix
    /// socket too.
    pub send_buffer_bytes: Option<usize>,
    /// Size of the kernel's receive buffer, in bytes (`SO_RCVBUF`; the kernel doubles it). Default `None`: it grows by itself.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let StreamOptions {
            nodelay,
            keepalive,
            user_timeout,
            send_buffer_bytes,
            receive_buffer_bytes,
            from,
            ..
        } = StreamOptions::DEFAULT;
        Self {
            timeout: Duration::from_secs(10),
            from,
            nodelay,
            keepalive,
            user_timeout,
            unsent_bytes_max: None,
            send_buffer_bytes,
            receive_buffer_bytes,
        }
    }
}

setters! {
    ConnectOptions {
        timeout: Duration,
        from: impl Into<Option<SocketAddr>>,
        nodelay: bool,
        keepalive: impl Into<Option<Keepalive>>,
        user_timeout: impl Into<Option<Duration>>,
        unsent_bytes_max: impl Into<Option<u32>>,
        send_buffer_bytes: impl Into<Option<usize>>,
        receive_buffer_bytes: impl Into<Option<usize>>,
    }
}

impl ConnectOptions {
    /// What cannot be meant, if something is.
    pub(super) fn complaint(&self) -> Option<&'static str> {
        if self.timeout.is_zero() { Some("timeout is zero") } else { self.stream().complaint() }
    }

    /// What the driver has to know of them.
    pub(super) fn stream(&self) -> StreamOptions {
        StreamOptions {
            nodelay: self.nodelay,
            keepalive: self.keepalive,
            user_timeout: self.user_timeout,
            unsent_bytes_max: self.unsent_bytes_max,
            send_buffer_bytes: self.send_buffer_bytes,
            receive_buffer_bytes: self.receive_buffer_bytes,
            from: self.from,
        }
    }
}
