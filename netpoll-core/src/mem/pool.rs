//! The blocks that one worker has to spare, by size class.
//!
//! Connections need memory in short bursts: for a half-received head, for an answer on its way out. An
//! allocator would do, but it takes longer, may lock, and cannot say how much an idle worker keeps.
//!
//! Invariant: every kept block is empty and holds at least its class; `retained_bytes` is the sum of
//! their capacities, in lists and in chains, and never above `retain_bytes_max`. Touched by the worker's own thread only. Take
//! and give are O(1), a `Vec` pop and push.
//!
//! The pool also knows the sum of what connections hold, which is what a worker's budget bounds: blocks that are out, shared bytes
//! that only wait here to leave, and what protocols say that they keep ([`Held`]). Counting blocks costs nothing in
//! the usual case: their sum changes only when one is allocated, grows or is freed.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::block::Block;
use super::stash::Home;
use super::write_queue::Chain;

/// The smallest size class: 1 KiB, enough for the answer to a short JSON request.
pub const BLOCK_BYTES_MIN: usize = 1 << 10;

/// The largest size class: 64 KiB, the read quantum of one connection in one turn.
pub const BLOCK_BYTES_MAX: usize = BLOCK_BYTES_MIN << (2 * (CLASSES - 1));

/// 1, 4, 16 and 64 KiB.
const CLASSES: usize = 4;

/// Chains kept for write queues, by count because they are small (about 90 bytes): one for each event
/// of the largest batch.
const CHAINS_MAX: usize = 2048;

const _: () = assert!(BLOCK_BYTES_MAX == 64 << 10);

/// What the pool was asked for since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Blocks taken that were kept from before, those inside a write queue's chain included.
    pub hits: u64,
    /// Blocks taken that had to be allocated.
    pub misses: u64,
    /// Blocks given back and kept.
    pub returned: u64,
    /// Blocks given back and freed: pool full, or the block fits no class.
    pub dropped: u64,
    /// Write queues that had to allocate their chain. Counted apart from the blocks.
    pub chain_misses: u64,
}

/// One worker's spare blocks and spare write-queue chains.
pub struct Pool {
    free: [Vec<Block>; CLASSES],
    #[expect(clippy::vec_box, reason = "a queue takes the box itself, so that none is allocated once warm")]
    chains: Vec<Box<Chain>>,
    retained_bytes: usize,
    retain_bytes_max: usize,
    /// Of all blocks that there are, kept or out. Less than that, or than zero, if blocks from elsewhere were given.
    allocated_bytes: isize,
    /// Of shared segments in write queues that nobody else is likely to hold. Below zero for those that another pool knows of.
    linked_bytes: isize,
    held_bytes: Arc<AtomicUsize>,
    /// Of blocks in read buffers.
    input_bytes: isize,
    /// What was dropped where the pool is out of reach comes here.
    home: Arc<Home>,
    counts: PoolCounts,
}

/// Memory that a protocol keeps for its connection, counted in its worker's budget until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// Of all that are held on the worker. Atomic, because what is held may be dropped on another thread.
    sum: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// So many bytes more. It cuts nobody, this connection included, whatever they come to: the protocol asks
    /// [`Conn::is_short_of_memory`](crate::Conn::is_short_of_memory) and lets go, or others are cut when they want to hold more. Two
    /// atomic operations on a line that one worker uses.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.sum.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Another one of the same worker, of nothing at first: for who has to hold something where there is no
    /// [`Conn`](crate::Conn), such as a task.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { sum: Arc::clone(&self.sum), bytes: 0 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pool {
    /// An empty pool that keeps at most `retain_bytes_max` bytes of spare blocks. Allocates nothing yet.
    ///
    /// Zero keeps no block: every take is then an allocation. Up to 2048 chains of write queues (about 90
    /// bytes each) are kept on top of that.
    pub fn new(retain_bytes_max: usize) -> Self {
        Self {
            free: [const { Vec::new() }; CLASSES],
            chains: Vec::new(),
            retained_bytes: 0,
            retain_bytes_max,
            allocated_bytes: 0,
            linked_bytes: 0,
            held_bytes: Arc::default(),
            input_bytes: 0,
            home: Arc::default(),
            counts: PoolCounts { hits: 0, misses: 0, returned: 0, dropped: 0, chain_misses: 0 },
        }
    }

    /// An empty block for at least `bytes_min` bytes: of the smallest class that is large enough, or,
    /// above [`BLOCK_BYTES_MAX`], of just that size and always allocated.
    #[inline]
    pub fn take(&mut self, bytes_min: usize) -> Block {
        let class = class_for(bytes_min);
        if let Some(block) = self.free.get_mut(class).and_then(Vec::pop) {
            self.retained_bytes -= block.capacity();
            self.counts.hits += 1;
            return block;
        }
        self.allocate(bytes_min)
    }

    #[cold]
    fn allocate(&mut self, bytes_min: usize) -> Block {
        self.counts.misses += 1;
        let block = match class_for(bytes_min) {
            class if class < CLASSES => Block::with_capacity(class_bytes(class)),
            _ => Block::with_capacity(bytes_min),
        };
        self.allocated_bytes += block.capacity() as isize;
        block
    }

    /// A block that is out has another capacity: it grew, or the program put another vector in its place.
    #[cold]
    pub(super) fn resized(&mut self, from: usize, to: usize) {
        self.allocated_bytes += to as isize - from as isize;
    }

    /// So many shared bytes wait in a write queue.
    #[inline]
    pub(super) fn linked(&mut self, bytes: usize) {
        self.linked_bytes += bytes as isize;
    }

    /// So many of them do no more.
    #[inline]
    pub(super) fn unlinked(&mut self, bytes: usize) {
        self.linked_bytes -= bytes as isize;
    }

    /// A block is one of a read buffer now.
    #[inline]
    pub(super) fn reads_into(&mut self, block_bytes: usize) {
        self.input_bytes += block_bytes as isize;
    }

    /// It is none any more.
    #[inline]
    pub(super) fn has_read_out(&mut self, block_bytes: usize) {
        self.input_bytes -= block_bytes as isize;
    }

    /// The memory of read buffers now, in bytes.
    #[inline]
    pub fn input_bytes(&self) -> usize {
        self.input_bytes.max(0) as usize
    }

    /// The memory of write queues now, in bytes: blocks, and shared bytes that nobody else is likely to hold.
    #[inline]
    pub fn output_bytes(&self) -> usize {
        let blocks = self.allocated_bytes - self.retained_bytes as isize - self.input_bytes.max(0);
        (blocks.max(0) + self.linked_bytes).max(0) as usize
    }

    /// Blocks that are out now.
    #[inline]
    pub fn blocks_in_use(&self) -> u64 {
        let PoolCounts { hits, misses, returned, dropped, .. } = self.counts;
        (hits + misses).saturating_sub(returned + dropped)
    }

    /// Counts what a protocol holds; nothing yet.
    pub fn hold(&self) -> Held {
        Held { sum: Arc::clone(&self.held_bytes), bytes: 0 }
    }

    /// Counts here what was taken from a pool that stood in for this one, and given to it.
    pub fn absorb(&mut self, stand_in: &mut Self) {
        stand_in.trim();
        self.allocated_bytes += mem::take(&mut stand_in.allocated_bytes);
        self.linked_bytes += mem::take(&mut stand_in.linked_bytes);
        self.input_bytes += mem::take(&mut stand_in.input_bytes);
        let counts = mem::take(&mut stand_in.counts);
        self.counts.hits += counts.hits;
        self.counts.misses += counts.misses;
        self.counts.returned += counts.returned;
        self.counts.dropped += counts.dropped;
        self.counts.chain_misses += counts.chain_misses;
    }

    /// Where blocks of this pool can be left by whoever cannot reach it.
    pub fn home(&self) -> Arc<Home> {
        Arc::clone(&self.home)
    }

    /// Picks up what was left there.
    #[inline]
    pub fn collect(&mut self) {
        if self.home.is_waiting() {
            self.pick_up();
        }
    }

    #[cold]
    fn pick_up(&mut self) {
        for (mut queue, block) in self.home.take() {
            queue.clear(self);
            self.has_read_out(block.capacity());
            self.give(block);
        }
    }

    /// The memory that connections hold now, in bytes: blocks, shared bytes on their way out, and what protocols hold.
    #[inline]
    pub fn in_use_bytes(&self) -> usize {
        // Below zero until what another pool has taken or given instead of this one is counted here.
        let counted = self.allocated_bytes - self.retained_bytes as isize + self.linked_bytes;
        counted.max(0) as usize + self.held_bytes.load(Ordering::Relaxed)
    }

    /// Keeps a block for later; the bytes in it are forgotten.
    ///
    /// It is freed instead if it would lift the pool above its limit, or if it is smaller than the
    /// smallest class or larger than the largest. A block without memory is ignored.
    #[inline]
    pub fn give(&mut self, mut block: Block) {
        let capacity = block.capacity();
        let fits = (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&capacity);
        if fits && capacity <= self.retain_bytes_max - self.retained_bytes {
            block.clear();
            self.retained_bytes += capacity;
            self.counts.returned += 1;
            self.free[class_within(capacity)].push(block);
        } else {
            self.counts.dropped += u64::from(capacity > 0);
            self.allocated_bytes -= capacity as isize;
        }
    }

    /// A vacant chain for a write queue, with or without a block. The block counts as taken.
    #[inline]
    pub(super) fn take_chain(&mut self) -> Box<Chain> {
        let Some(chain) = self.chains.pop() else { return self.allocate_chain() };
        let block_bytes = chain.block_bytes();
        self.retained_bytes -= block_bytes;
        self.counts.hits += u64::from(block_bytes > 0);
        chain
    }

    #[cold]
    fn allocate_chain(&mut self) -> Box<Chain> {
        self.counts.chain_misses += 1;
        Box::new(Chain::new())
    }

    /// Keeps a vacant chain for the next write queue. The block in it counts as given back.
    #[inline]
    pub(super) fn give_chain(&mut self, mut chain: Box<Chain>) {
        debug_assert!(chain.is_vacant(), "a chain comes back without bytes");
        let block_bytes = chain.block_bytes();
        let room = self.chains.len() < CHAINS_MAX && chain.is_small();
        if room
            && block_bytes >= BLOCK_BYTES_MIN
            && block_bytes <= self.retain_bytes_max - self.retained_bytes
        {
            self.retained_bytes += block_bytes;
            self.counts.returned += 1;
            self.chains.push(chain);
            return;
        }
        self.give(chain.take_block());
        if room {
            self.chains.push(chain);
        }
    }

    /// What was asked for so far.
    pub fn counts(&self) -> PoolCounts {
        self.counts
    }

    /// The memory of all spare blocks, in bytes.
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    /// Frees everything that is kept. Counts stay.
    pub fn trim(&mut self) {
        self.free = Default::default();
        self.chains = Vec::new();
        self.allocated_bytes -= self.retained_bytes as isize;
        self.retained_bytes = 0;
    }
}

/// Bytes of a class: each four times the one before.
#[inline]
const fn class_bytes(class: usize) -> usize {
    BLOCK_BYTES_MIN << (2 * class)
}

/// The smallest class that holds `bytes`; `CLASSES` or more if none does.
#[inline]
const fn class_for(bytes: usize) -> usize {
    let bits = usize::BITS - (bytes.saturating_sub(1) / BLOCK_BYTES_MIN).leading_zeros();
    bits.div_ceil(2) as usize
}

/// The largest class that a block of this capacity fills. Only for capacities within the classes.
#[inline]
const fn class_within(capacity: usize) -> usize {
    (capacity / BLOCK_BYTES_MIN).ilog2() as usize / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_has_the_smallest_class_that_is_large_enough() {
        let mut pool = Pool::new(0);
        let kib = |pool: &mut Pool, bytes| pool.take(bytes).capacity() / 1024;
        assert_eq!([0, 1, 1024].map(|bytes| kib(&mut pool, bytes)), [1, 1, 1]);
        assert_eq!([1025, 4096, 4097, 16384].map(|bytes| kib(&mut pool, bytes)), [4, 4, 16, 16]);
        assert_eq!([16385, 65536, 65 << 10].map(|bytes| kib(&mut pool, bytes)), [64, 64, 65]);
    }

    #[test]
    fn a_block_given_back_is_taken_again() {
        let mut pool = Pool::new(1 << 20);
        let mut block = pool.take(2000);
        block.extend_from_slice(b"secret");
        pool.give(block);
        assert_eq!(pool.retained_bytes(), 4096);

        let again = pool.take(4096);

        assert!(again.is_empty(), "nothing of the former owner is left");
        assert_eq!(pool.retained_bytes(), 0);
        assert_eq!(pool.counts(), PoolCounts { hits: 1, misses: 1, returned: 1, ..PoolCounts::default() });
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let mut pool = Pool::new(2048);
        let blocks = [pool.take(1), pool.take(1), pool.take(1), pool.take(4096)];
        blocks.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.retained_bytes(), 2048);
        assert_eq!((pool.counts().returned, pool.counts().dropped), (2, 2));
    }

    #[test]
    fn blocks_outside_the_classes_are_not_kept() {
        let mut pool = Pool::new(1 << 20);
        let large = pool.take(BLOCK_BYTES_MAX + 1);
        for block in [large, Block::with_capacity(100), Block::NONE] {
            pool.give(block);
        }
        assert_eq!((pool.retained_bytes(), pool.counts().dropped), (0, 2), "no memory, nothing dropped");
    }

    #[test]
    fn a_block_that_grew_comes_back_in_the_class_it_fills() {
        let mut pool = Pool::new(1 << 20);
        pool.give(Block::with_capacity(5000));
        assert_eq!(pool.take(5000).capacity(), 16384, "not large enough for every taker of 16 KiB");
        assert_eq!((pool.take(4096).capacity(), pool.retained_bytes()), (5000, 0));
    }

    #[test]
    fn what_another_one_holds_counts_in_the_same_sum_until_it_is_dropped() {
        let pool = Pool::new(0);
        let mut held = pool.hold();
        held.grow(7);
        let mut another = held.another();
        another.grow(100);
        drop(held);
        assert_eq!(pool.in_use_bytes(), 100);
        drop(another);
        assert_eq!(pool.in_use_bytes(), 0);
    }

    #[test]
    fn trimming_frees_everything() {
        let mut pool = Pool::new(1 << 20);
        let chain = pool.take_chain();
        pool.give_chain(chain);
        pool.give(Block::with_capacity(1024));

        pool.trim();

        assert_eq!((pool.retained_bytes(), pool.chains.len()), (0, 0));
        pool.take(1);
        assert_eq!(pool.counts().misses, 1);
    }

    proptest! {
        #[test]
        fn retained_bytes_are_what_the_lists_hold(
            limit in 0..200_000usize,
            steps in prop::collection::vec((any::<bool>(), 0..100_000usize), 1..100),
        ) {
            let mut pool = Pool::new(limit);
            let mut held = Vec::new();
            let (mut takes, mut gives) = (0, 0);
            for (take, bytes) in steps {
                if take {
                    let mut block = pool.take(bytes);
                    prop_assert!(block.is_empty() && block.capacity() >= bytes);
                    block.extend_from_slice(b"x");
                    held.push(block);
                    takes += 1;
                } else if !held.is_empty() {
                    let mut block = held.swap_remove(bytes % held.len());
                    block.as_vec().reserve(bytes / 2);
                    pool.give(block);
                    gives += 1;
                }
                let kept: usize = pool.free.iter().flatten().map(Block::capacity).sum();
                prop_assert_eq!(pool.retained_bytes(), kept);
                prop_assert!(kept <= limit);
                for (class, list) in pool.free.iter().enumerate() {
                    prop_assert!(list.iter().all(|block| block.capacity() >= class_bytes(class)));
                }
                let PoolCounts { hits, misses, returned, dropped, .. } = pool.counts();
                prop_assert_eq!((hits + misses, returned + dropped), (takes, gives));
            }
        }
    }
}
