//! The part of a connection's input that its protocol could not use yet.
//!
//! Reads land in a block of the worker; only what is left over (half a head, half a frame) is copied
//! here, and offered again in front of the next bytes.
//!
//! Invariant: `start < block.len()`, or both are zero and the buffer owns nothing: an idle connection
//! holds no memory. Touched by the connection's worker. Append copies the new bytes, and moves the old
//! ones only when the block is full; advance is an addition.

use std::mem;

use super::block::Block;
use super::pool::{BLOCK_BYTES_MAX, Pool};

/// Unconsumed input, in order and in one piece. 32 bytes; while empty it owns nothing.
///
/// Dropping it frees its memory; [`ReadBuffer::clear`] gives it back to the pool. It sets no limit: its
/// owner decides when a remainder is too long.
#[derive(Default)]
pub struct ReadBuffer {
    block: Block,
    /// How much of `block` was consumed.
    start: usize,
}

const _: () = assert!(size_of::<ReadBuffer>() <= 32);

impl ReadBuffer {
    /// A buffer with nothing in it.
    pub const fn new() -> Self {
        Self { block: Block::NONE, start: 0 }
    }

    /// What is in a block that is not empty.
    pub(super) fn of(pool: &mut Pool, block: Block) -> Self {
        pool.reads_into(block.capacity());
        debug_assert!(!block.is_empty(), "an empty buffer owns nothing");
        Self { block, start: 0 }
    }

    /// The memory that it owns, in bytes.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// The block itself, which is the caller's then.
    pub(super) fn into_block(self) -> Block {
        self.block
    }

    /// Whether nothing is left to consume.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// How many bytes are left to consume.
    #[inline]
    pub fn len(&self) -> usize {
        self.block.len() - self.start
    }

    /// What is left to consume.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.block[self.start..]
    }

    /// The same, to be changed where it lies.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block.as_vec()[self.start..]
    }

    /// Copies `bytes` behind what is there.
    ///
    /// When the block is full the remainder moves to its front if that makes enough room, otherwise into
    /// a larger block: the next class that fits, beyond 64 KiB at least twice the size. Amortised
    /// O(`bytes.len()`) there; up to 64 KiB one append moves at most the remainder.
    #[inline]
    pub fn append(&mut self, pool: &mut Pool, bytes: &[u8]) {
        if bytes.len() > self.block.spare() {
            self.make_room(pool, bytes.len());
        }
        self.block.extend_from_slice(bytes);
    }

    fn make_room(&mut self, pool: &mut Pool, additional: usize) {
        if self.block.capacity() == 0 {
            self.block = pool.take(additional);
            pool.reads_into(self.block.capacity());
            return;
        }
        let (len, capacity) = (self.len(), self.block.capacity());
        let needed = len + additional;
        // Moving a large remainder for a few bytes, again and again, would be quadratic.
        let worth_moving = capacity <= BLOCK_BYTES_MAX || self.start >= len;
        if needed <= capacity && worth_moving {
            self.block.copy_within(self.start.., 0);
            self.block.as_vec().truncate(len);
        } else {
            let bytes_min = if needed <= BLOCK_BYTES_MAX { needed } else { needed.max(2 * capacity) };
            let mut larger = pool.take(bytes_min);
            pool.reads_into(larger.capacity());
            pool.has_read_out(capacity);
            larger.extend_from_slice(self.bytes());
            pool.give(mem::replace(&mut self.block, larger));
        }
        self.start = 0;
    }

    /// Drops the first `bytes` bytes, because they were consumed. The last one gives the block back.
    ///
    /// # Panics
    /// If `bytes` is more than [`ReadBuffer::len`].
    #[inline]
    pub fn advance(&mut self, pool: &mut Pool, bytes: usize) {
        assert!(bytes <= self.len(), "more was consumed than was there");
        self.start += bytes;
        if self.start == self.block.len() {
            self.clear(pool);
        }
    }

    /// The block, and how much of it was consumed.
    pub(super) fn into_parts(self, pool: &mut Pool) -> (Block, usize) {
        pool.has_read_out(self.block.capacity());
        (self.block, self.start)
    }

    /// Gives everything back to the pool, consumed or not.
    #[inline]
    pub fn clear(&mut self, pool: &mut Pool) {
        self.start = 0;
        pool.has_read_out(self.block.capacity());
        pool.give(mem::take(&mut self.block));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_consumed_stays_in_front_of_new_bytes() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
        buffer.append(&mut pool, b"GET / HT");
        buffer.advance(&mut pool, 4);
        buffer.append(&mut pool, b"TP/1.1");
        assert_eq!((buffer.bytes(), buffer.len()), (&b"/ HTTP/1.1"[..], 10));
    }

    #[test]
    fn an_empty_buffer_owns_nothing() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
        buffer.append(&mut pool, b"");
        assert_eq!(pool.counts().misses, 0, "nothing to keep takes no block");
        for _ in 0..3 {
            buffer.append(&mut pool, b"half a head");
            buffer.advance(&mut pool, 11);
            assert!(buffer.is_empty() && buffer.block.capacity() == 0);
        }
        assert_eq!((pool.counts().misses, pool.counts().hits), (1, 2));
    }

    #[test]
    fn a_full_block_moves_its_remainder_before_it_grows() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
        buffer.append(&mut pool, &[b'a'; 1000]);
        buffer.advance(&mut pool, 500);
        buffer.append(&mut pool, &[b'b'; 524]);
        assert_eq!((buffer.block.capacity(), buffer.start), (1024, 0), "it fitted");

        buffer.append(&mut pool, b"c");

        assert_eq!((buffer.block.capacity(), buffer.len()), (4096, 1025));
        assert_eq!(pool.counts().returned, 1, "the small block went back");
    }

    #[test]
    fn beyond_the_largest_class_it_doubles() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
        for _ in 0..65 {
            buffer.append(&mut pool, &[b'x'; 1024]);
        }
        assert_eq!(buffer.block.capacity(), 128 << 10);
        assert_eq!(buffer.bytes(), [b'x'; 65 << 10]);
    }

    #[test]
    fn a_large_remainder_is_not_moved_for_a_few_bytes() {
        let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
        buffer.append(&mut pool, &vec![b'x'; 200 << 10]);
        let mut moves = 0;
        for _ in 0..1000 {
            buffer.advance(&mut pool, 10);
            let start = buffer.start;
            buffer.append(&mut pool, b"0123456789");
            moves += usize::from(buffer.start < start);
        }
        assert_eq!(moves, 1, "it grew once and then had room");
        assert_eq!(buffer.len(), 200 << 10);
    }

    #[test]
    #[should_panic = "more was consumed than was there"]
    fn consuming_more_than_there_is_panics() {
        let (mut pool, mut buffer) = (Pool::new(0), ReadBuffer::new());
        buffer.append(&mut pool, b"abc");
        buffer.advance(&mut pool, 4);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_vec_would(steps in prop::collection::vec((any::<bool>(), 0..9_000usize, any::<u8>()), 1..60)) {
            let (mut pool, mut buffer) = (Pool::new(1 << 20), ReadBuffer::new());
            let mut model = Vec::new();
            for (append, bytes, fill) in steps {
                if append {
                    let bytes = vec![fill; bytes * (1 + usize::from(fill % 16 == 0) * 7)];
                    buffer.append(&mut pool, &bytes);
                    model.extend_from_slice(&bytes);
                } else {
                    let bytes = bytes.min(model.len());
                    buffer.advance(&mut pool, bytes);
                    model.drain(..bytes);
                }
                prop_assert_eq!(buffer.bytes(), &model);
                prop_assert_eq!((buffer.len(), buffer.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(buffer.block.capacity() == 0, model.is_empty(), "owns memory only for bytes");
            }
            buffer.clear(&mut pool);
            let counts = pool.counts();
            prop_assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "all blocks are back");
        }
    }
}
