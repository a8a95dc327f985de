//! Pollers: the stream engine that turns readiness into bytes, and under it epoll, or the poller of the crate `mio`.
//!
//! Nothing outside this room knows of readiness. A poller says what is ready ([`streams::Register`] is what the engine needs of
//! one), and the engine receives, accepts and sends until it is not.

mod accept;
mod announcing;
mod arrivals;
pub(super) mod batch;
mod datagrams;
pub(super) mod door;
pub(super) mod epoll;
mod files;
#[cfg(feature = "mio")]
mod mio;
mod orders;
mod register;
mod sending;
pub(super) mod source;
pub(super) mod splicing;
pub(super) mod streams;
pub(super) mod watcher;

#[cfg(feature = "mio")]
pub use self::mio::{Mio, MioOptions};
pub use accept::is_exhaustion;
pub use epoll::{Epoll, EpollOptions};
