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
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
pub(super) mod epoll;
mod files;
#[cfg(any(feature = "mio", not(target_os = "linux"), netpoll_portable))]
mod mio;
mod orders;
mod register;
mod sending;
pub(super) mod source;
pub(super) mod splicing;
pub(super) mod streams;
// What a poller of mio can say of urgent data, where it can.
#[cfg(all(any(feature = "mio", netpoll_portable), target_os = "linux"))]
mod urgent;
#[cfg(not(target_os = "linux"))]
#[path = "no_urgent.rs"]
mod urgent;
pub(super) mod watcher;

#[cfg(any(feature = "mio", not(target_os = "linux"), netpoll_portable))]
pub use self::mio::{Mio, MioOptions};
pub use accept::is_exhaustion;
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
pub use epoll::{Epoll, EpollOptions};
