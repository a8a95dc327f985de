//! The primitives that wakers are built on, in a normal build.

pub use std::sync::atomic::{AtomicBool, Ordering};
pub use std::sync::{Arc, Condvar, Mutex};

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use super::Lane;

thread_local! {
    /// The number of the lane that this thread is in; 0: none.
    pub static HERE: Cell<u64> = const { Cell::new(0) };
    /// Waits that may be over when they begin, until who awaits them gives way.
    pub static LEFT: Cell<i32> = const { Cell::new(0) };
    /// That lane. Whoever enters one leaves it, so that there is nothing to drop, and who looks need not ask whether it was.
    pub static CURRENT: Cell<ManuallyDrop<Option<Rc<Lane>>>> = const { Cell::new(ManuallyDrop::new(None)) };
}
