//! What the ends of requests are told to: the access log and the figures.
//!
//! Both are hooks of [`Server::on_complete`](crate::Server::on_complete), and know no more than it tells.
//!
//! Invariant: no worker waits for another, for a disk, or for who reads.

mod access_log;
mod counters;
mod cursor;
mod escape;
mod exposition;
mod line;
mod metrics;
mod pages;
mod process;
mod sample;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
#[path = "sync_loom.rs"]
mod sync;
mod writer;

pub use access_log::{AccessLog, LostLines};
pub use line::LogFormat;
pub use metrics::Metrics;

/// The log between its threads, for the model checker.
#[cfg(feature = "internals")]
pub mod internals {
    pub use super::line::Lines;
    pub use super::pages::{Level, Page, Pages, Put};
    pub use super::writer::{Shared, Sink, start};
}
