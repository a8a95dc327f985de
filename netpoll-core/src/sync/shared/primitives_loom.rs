//! The primitives that the channels between threads are built on, for the model checker.

pub use loom::sync::Mutex;
pub use loom::sync::atomic::{AtomicUsize, Ordering};
