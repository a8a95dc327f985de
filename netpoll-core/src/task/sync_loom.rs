//! The primitives that wakers are built on, for the model checker.

pub use loom::sync::atomic::{AtomicBool, Ordering};
