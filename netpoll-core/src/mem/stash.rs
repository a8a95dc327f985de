//! Queue and remainder that a protocol keeps for itself, and that find home alone.
//!
//! What a connection owns goes back to the pool when it ends, because its table does that. What lies inside a protocol is
//! dropped with it: in a callback that panics, in a box of somebody else, on whatever thread. So it goes through [`Home`],
//! where the pool picks it up, and the sum of what connections hold stays true.
//!
//! Invariant: a block that was taken comes back to its pool, or its pool is gone. An empty stash owns nothing but a
//! reference. Only a stash that is dropped with something in it takes the lock.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::Block;
use super::pool::Pool;
use super::read_buffer::ReadBuffer;
use super::write_queue::WriteQueue;

/// Where things wait for their pool.
#[derive(Default)]
pub struct Home {
    /// Something waits. Set with the lock held; a reader that misses it finds it at the next look.
    is_waiting: AtomicBool,
    waiting: Mutex<Vec<(WriteQueue, Block)>>,
}

impl Home {
    /// Whether the pool has something to pick up. One load.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// What waits, which is the caller's then.
    #[cold]
    pub fn take(&self) -> Vec<(WriteQueue, Block)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_waiting.store(false, Ordering::Relaxed);
        mem::take(&mut waiting)
    }

    #[cold]
    fn put(&self, queue: WriteQueue, block: Block) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((queue, block));
        self.is_waiting.store(true, Ordering::Relaxed);
    }
}

/// A queue and a remainder outside of a slot. 48 bytes.
#[derive(Default)]
pub struct Stash {
    /// What waits to be sent.
    pub queue: WriteQueue,
    /// What was not consumed.
    pub rest: ReadBuffer,
    /// Of the pool that they come from; none before the first use.
    home: Option<Arc<Home>>,
}

impl Stash {
    /// Names the pool that things are going to come from: always the same one. A branch, but for the first time.
    #[inline]
    pub fn belong(&mut self, pool: &Pool) {
        if self.home.is_none() {
            self.home = Some(pool.home());
        }
    }

    /// The remainder, in a stash of its own for as long as somebody else works on it.
    pub fn lift_rest(&mut self) -> Stash {
        Stash { queue: WriteQueue::new(), rest: mem::take(&mut self.rest), home: self.home.clone() }
    }

    /// A stash whose remainder is so many zeros, to be written over. At least one.
    pub fn zeroed(pool: &mut Pool, bytes: usize) -> Stash {
        let mut block = pool.take(bytes);
        block.as_vec().resize(bytes, 0);
        Stash { queue: WriteQueue::new(), rest: ReadBuffer::of(pool, block), home: Some(pool.home()) }
    }

    /// Gives everything back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.queue.clear(pool);
        self.rest.clear(pool);
    }
}

impl Drop for Stash {
    fn drop(&mut self) {
        if self.queue.is_vacant() && self.rest.capacity() == 0 {
            return;
        }
        if let Some(home) = &self.home {
            home.put(self.queue.take(), mem::take(&mut self.rest).into_block());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_dropped_with_its_owner_comes_back() {
        let mut pool = Pool::new(1 << 20);
        let mut stash = Stash::default();
        stash.belong(&pool);
        stash.queue.write(&mut pool, b"an answer");
        stash.rest.append(&mut pool, b"half a head");
        let held = pool.in_use_bytes();
        assert!(pool.input_bytes() >= 11 && pool.input_bytes() + pool.output_bytes() == held);

        drop(stash);
        pool.collect();
        assert_eq!((pool.input_bytes(), pool.output_bytes(), pool.blocks_in_use()), (0, 0, 0));

        assert!(held >= 2048, "{held}");
        assert_eq!(pool.in_use_bytes(), 0);
        let counts = pool.counts();
        assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "all blocks are back");
    }

    #[test]
    fn it_may_be_dropped_on_another_thread() {
        let mut pool = Pool::new(1 << 20);
        let stash = Stash::zeroed(&mut pool, 4096);
        std::thread::spawn(move || drop(stash)).join().expect("no panic");
        assert_eq!(pool.in_use_bytes(), 4096);
        pool.collect();
        assert_eq!(pool.in_use_bytes(), 0);
    }

    #[test]
    fn an_empty_one_leaves_nothing_to_pick_up() {
        let mut pool = Pool::new(1 << 20);
        let mut stash = Stash::default();
        stash.belong(&pool);
        stash.queue.write(&mut pool, b"an answer");
        stash.clear(&mut pool);
        drop(stash);
        assert!(!pool.home().is_waiting());
    }

    proptest! {
        #[test]
        fn the_pool_counts_what_stashes_hold_and_no_more(
            sizes in prop::collection::vec((0..200_000usize, 0..200_000usize, any::<bool>()), 1..20),
        ) {
            let mut pool = Pool::new(1 << 20);
            let mut stashes = Vec::new();
            for (queued, kept, ends) in sizes {
                let mut stash = Stash::default();
                stash.belong(&pool);
                stash.queue.write(&mut pool, &vec![b'q'; queued]);
                stash.queue.write_shared(&mut pool, bytes::Bytes::from(vec![b's'; kept]));
                stash.rest.append(&mut pool, &vec![b'r'; kept]);
                stashes.push(stash);
                if ends {
                    stashes.remove(0);
                    pool.collect();
                }
            }
            drop(stashes);
            pool.collect();
            prop_assert_eq!(pool.in_use_bytes(), 0);
            let counts = pool.counts();
            prop_assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped);
        }
    }
}
