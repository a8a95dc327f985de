//! Pollers: the stream engine that turns readiness into bytes, and epoll under it.
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
mod orders;
mod sending;
mod source;
mod splicing;
mod streams;
mod watcher;

pub use accept::is_exhaustion;
pub use epoll::{Epoll, EpollOptions};
