//! How an outgoing connection is made, and what starts it.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Context, Tables};
use crate::driver::Io;

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
