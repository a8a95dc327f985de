//! The primitives that the channels between threads are built on, for the model checker.

pub use loom::sync::atomic::{AtomicUsize, Ordering};
pub use loom::sync::{Condvar, Mutex};
