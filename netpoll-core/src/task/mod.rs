//! Wakers: how something that waits elsewhere gets its connection polled again on its own worker.
//!
//! A waker may be woken from any thread and any number of times; between two polls it sends one letter.
//! The key inside goes stale with its connection, and a stale wake finds nothing.

#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
#[path = "sync_loom.rs"]
mod sync;
mod waker;

pub use waker::{Deliver, WakeTarget};
