//! Pollers: the stream engine that turns readiness into bytes, and under it epoll, or the poller of the crate `mio`.
//!
//! Nothing outside this room knows of readiness. A poller says what is ready ([`streams::Register`] is what the engine needs of
//! one), and the engine receives, accepts and sends until it is not.

mod accept;
mod announcing;
mod arrivals;
mod batch;
mod datagrams;
mod door;
mod epoll;
mod files;
#[cfg(feature = "mio")]
mod mio;
mod orders;
mod sending;
mod source;
mod splicing;
mod streams;
mod watcher;

#[cfg(feature = "mio")]
pub use self::mio::{Mio, MioOptions};
pub use accept::is_exhaustion;
pub use epoll::{Epoll, EpollOptions};
