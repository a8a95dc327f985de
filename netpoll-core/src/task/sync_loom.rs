//! The primitives that wakers are built on, for the model checker.

pub use std::sync::Arc;

pub use loom::sync::{Condvar, Mutex};

pub use loom::sync::atomic::{AtomicBool, Ordering};

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use super::Lane;

loom::thread_local! {
    pub static HERE: Cell<u64> = Cell::new(0);
    pub static LEFT: Cell<i32> = Cell::new(0);
    pub static CURRENT: Cell<ManuallyDrop<Option<Rc<Lane>>>> = Cell::new(ManuallyDrop::new(None));
}
