//! The coders of a worker.
//!
//! Invariant: `streams` is the number of leases for streams that are there; a coder comes back when what it coded is whole, and is dropped otherwise.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::coding::{Coding, Encoder, Levels};

/// Coders that are kept for the next answer: one of each kind, and what a few streams have left.
const KEPT_MAX: usize = 4;

/// Memory for the pieces of streams that is kept.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

pub struct Pool {
    levels: Levels,
    streams_max: usize,
    streams: Cell<usize>,
    kept: RefCell<Vec<Encoder>>,
    scratch: Cell<Vec<u8>>,
}

impl Pool {
    pub fn new(levels: Levels, streams_max: usize) -> Rc<Self> {
        let (kept, scratch) = (RefCell::default(), Cell::default());
        Rc::new(Self { levels, streams_max, streams: Cell::new(0), kept, scratch })
    }

    /// Whether there may be one more stream.
    pub fn has_room(&self) -> bool {
        self.streams.get() < self.streams_max
    }

    /// A coder for what is there at once; `None` if there is no memory for one.
    pub fn lease(self: &Rc<Self>, coding: Coding) -> Option<Lease> {
        let mut kept = self.kept.borrow_mut();
        let encoder = match kept.iter().position(|encoder| encoder.coding() == coding) {
            Some(at) => kept.remove(at),
            None => Encoder::new(coding, self.levels).ok()?,
        };
        Some(Lease { encoder: Some(encoder), is_of_stream: false, pool: Rc::clone(self) })
    }

    /// One for a stream; `None` if there are as many as may be.
    pub fn lease_for_stream(self: &Rc<Self>, coding: Coding) -> Option<Lease> {
        let mut lease = self.has_room().then(|| self.lease(coding)).flatten()?;
        lease.is_of_stream = true;
        self.streams.set(self.streams.get() + 1);
        Some(lease)
    }

    /// Lends memory for one piece.
    pub fn with_scratch<R>(&self, act: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut scratch = self.scratch.take();
        scratch.clear();
        let result = act(&mut scratch);
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch.set(scratch);
        }
        result
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("streams", &self.streams.get()).finish_non_exhaustive()
    }
}

/// A coder that is at work.
pub struct Lease {
    /// There until it is given back.
    encoder: Option<Encoder>,
    is_of_stream: bool,
    pool: Rc<Pool>,
}

impl Lease {
    /// # Panics
    /// When it was given back.
    pub fn encoder(&mut self) -> &mut Encoder {
        self.encoder.as_mut().expect("a lease has its coder until it ends")
    }

    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The coder has finished, and can be used again.
    pub fn give_back(mut self) {
        let mut kept = self.pool.kept.borrow_mut();
        if kept.len() >= KEPT_MAX {
            // The one that was used longest ago, of whatever kind, makes room.
            kept.remove(0);
        }
        kept.extend(self.encoder.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_of_stream {
            self.pool.streams.set(self.pool.streams.get() - 1);
        }
    }
}
