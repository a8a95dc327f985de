//! What a callback wants of other connections, carried out after it has returned.
//!
//! Callbacks never nest, so nothing here takes effect at once, and a connection that is gone by then is
//! left alone: the name finds nothing.

use std::net::SocketAddr;

use bytes::Bytes;

use super::connect::{ConnectOptions, Start};
use super::dial::Dial;
use super::{ConnId, Protocol};
use crate::mem::Guarded;

/// An order for later.
pub enum Command {
    Send { to: ConnId, bytes: Guarded<Bytes> },
    Close { id: ConnId, reset: bool },
    Connect(Box<dyn Start>),
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
