//! The primitives that wakers are built on, in a normal build.

pub use std::sync::atomic::{AtomicBool, Ordering};
