//! The primitives that the channels between threads are built on, in a normal build.

pub use std::sync::Mutex;
pub use std::sync::atomic::{AtomicUsize, Ordering};
