//! The primitives that the mailbox is built on, in a normal build.

pub use crossbeam_queue::SegQueue as Queue;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
