//! What a callback wants of other connections, carried out after it has returned.
//!
//! Callbacks never nest, so nothing here takes effect at once, and a connection that is gone by then is
//! left alone: the name finds nothing.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::table::Dial;
use super::{ConnId, Protocol, Tables};
use crate::conn::Context;
use crate::driver::Io;
use crate::mem::Guarded;

/// An order for later.
pub enum Command {
    Send { to: ConnId, bytes: Guarded<Bytes> },
    Close { id: ConnId, reset: bool },
    Connect(Box<dyn Start>),
}

/// An outgoing connection of whatever protocol, ready to start on a worker.
pub trait Start {
    fn start(self: Box<Self>, tables: &mut Tables, cx: &mut Context, io: &mut dyn Io);
}

/// How an outgoing connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long it may take; then `lost` says `ConnectFailed(TimedOut)`. Default 10 s.
    pub timeout: Duration,
    /// The local address to use, with port 0 for any port; `None`, the default, leaves both to the kernel.
    pub from: Option<SocketAddr>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), from: None }
    }
}

/// Orders of one callback, carried out in order when it has returned; see [`Conn::commands`](crate::Conn::commands).
#[derive(Default)]
pub struct Commands {
    queue: Vec<Command>,
}

impl Commands {
    /// Queues bytes on another connection, on any worker. Nothing happens if it is gone.
    ///
    /// Above 4 KiB the bytes are shared, not copied, however many connections get them. They are queued even if
    /// that connection is backed up; one that falls behind by more than
    /// [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max) is reset.
    pub fn send(&mut self, to: ConnId, bytes: Bytes) {
        self.queue.push(Command::Send { to, bytes: Guarded::new(bytes) });
    }

    /// Closes another connection after what it has queued is sent, as [`Flow::Linger`](crate::Flow::Linger) does.
    /// Nothing happens if it is gone.
    pub fn close(&mut self, id: ConnId) {
        self.queue.push(Command::Close { id, reset: false });
    }

    /// Resets another connection; what it has queued is lost. Nothing happens if it is gone.
    pub fn reset(&mut self, id: ConnId) {
        self.queue.push(Command::Close { id, reset: true });
    }

    /// Connects to an address on this worker. `protocol` sees `opened`, or `lost(ConnectFailed)`: with `NotConnected` when
    /// the worker ends first, or has no slot left for it. One allocation.
    pub fn connect<P: Protocol>(&mut self, to: SocketAddr, options: ConnectOptions, protocol: P) {
        self.queue.push(Command::Connect(Box::new(Dial::new(to, options, protocol))));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.queue)
    }
}
