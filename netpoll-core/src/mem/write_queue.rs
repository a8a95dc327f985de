//! What a connection still has to send.
//!
//! Callbacks queue, the driver sends: everything that piled up leaves in one system call. Small pieces
//! are copied into one block from the pool, large ones that somebody else owns are linked in between.
//!
//! Invariant: a queue with nothing to send owns nothing, its chain and blocks are back in the pool. In a
//! chain `bytes` is the sum of all segments minus `first_sent`; `first_sent` is less than the length of
//! the first segment; no segment is empty. (An append that panicked may leave one empty block last.)
//!
//! Touched by the connection's worker. The usual case is one answer in one block: append, write and
//! consume are then a handful of branches each and allocate nothing once the pool is warm. A chain
//! waits in the pool with its small block in place, so that the next answer moves one pointer only.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

use super::block::Block;
use super::pool::{BLOCK_BYTES_MAX, Pool};

/// Static and shared bytes up to this many are copied into the last block rather than linked.
///
/// 4 KiB: copying them costs less than the two extra iovecs (theirs and that of the block behind them).
pub const COPY_MAX: usize = 4096;

/// A block up to this size (two classes) stays in its chain; a larger one serves whoever needs it.
const CHAIN_BLOCK_BYTES_MAX: usize = 4 << 10;

/// A chain that had more room for segments than this is not kept: one slow reader's backlog should not
/// stay allocated.
const SPARE_SEGMENTS_MAX: usize = 64;

/// Bytes on their way out, in order. 8 bytes; while empty it owns nothing.
///
/// Dropping it frees its memory; [`WriteQueue::clear`] gives it back to the pool.
#[derive(Default)]
pub struct WriteQueue {
    chain: Option<Box<Chain>>,
}

/// The contents of a queue that is not empty; between two uses it waits in the pool, vacant.
pub(super) struct Chain {
    /// Inline, because most queues never have a second one. In a vacant chain empty: a block, or `NONE`.
    first: Segment,
    rest: VecDeque<Segment>,
    /// How much of `first` was sent already.
    first_sent: usize,
    /// What is left to send, over all segments.
    bytes: usize,
}

enum Segment {
    Block(Block),
    Static(&'static [u8]),
    Shared(Bytes),
}

impl WriteQueue {
    /// A queue with nothing to send.
    pub const fn new() -> Self {
        Self { chain: None }
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued_bytes() == 0
    }

    /// How many bytes are left to send. O(1).
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.chain.as_ref().map_or(0, |chain| chain.bytes)
    }

    /// Queues a copy of `bytes`, behind everything queued before.
    #[inline]
    pub fn write(&mut self, pool: &mut Pool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let chain = self.chain.get_or_insert_with(|| pool.take_chain());
        match chain.tail() {
            Segment::Block(block) if bytes.len() <= block.spare() => {
                block.extend_from_slice(bytes);
                chain.bytes += bytes.len();
            }
            _ => chain.write_blocks(pool, bytes),
        }
    }

    /// Queues bytes that live for ever: linked without a copy if there are more than [`COPY_MAX`].
    #[inline]
    pub fn write_static(&mut self, pool: &mut Pool, bytes: &'static [u8]) {
        if bytes.len() <= COPY_MAX {
            self.write(pool, bytes);
        } else {
            self.link(pool, Segment::Static(bytes));
        }
    }

    /// Queues shared bytes: linked without a copy, and kept alive until sent, if there are more than
    /// [`COPY_MAX`].
    #[inline]
    pub fn write_shared(&mut self, pool: &mut Pool, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.write(pool, &bytes);
        } else {
            self.link(pool, Segment::Shared(bytes));
        }
    }

    fn link(&mut self, pool: &mut Pool, segment: Segment) {
        let chain = self.chain.get_or_insert_with(|| pool.take_chain());
        chain.bytes += chain.push(pool, segment);
    }

    /// Lets `f` write straight into the last block, which has at least `reserve` spare bytes.
    ///
    /// The `Vec` may already hold bytes that were queued earlier: `f` pushes behind them, and may truncate
    /// back to the length that it found, which takes its own bytes back. Pushing more than `reserve` works,
    /// and costs a reallocation when the block is full. If `f` panics, what it pushed is not queued.
    ///
    /// # Panics
    /// If `f` leaves fewer bytes than it found.
    #[inline]
    pub fn append<R>(&mut self, pool: &mut Pool, reserve: usize, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let chain = self.chain.get_or_insert_with(|| pool.take_chain());
        // At least one, so that a full block is never handed out to be reallocated.
        let reserve = reserve.max(1);
        if chain.tail_spare() < reserve {
            chain.push_block(pool, reserve);
        }

        let tail = chain.tail_vec();
        let before = tail.len();
        let rollback = Rollback { tail, before };
        let result = f(rollback.tail);
        let after = rollback.tail.len();
        assert!(after >= before, "an append took back bytes that were queued before it");
        mem::forget(rollback);

        chain.bytes += after - before;
        if after == 0 {
            self.drop_empty_tail(pool);
        }
        result
    }

    /// After an append that pushed nothing into a new block.
    #[cold]
    fn drop_empty_tail(&mut self, pool: &mut Pool) {
        match self.chain.as_mut().and_then(|chain| chain.rest.pop_back()) {
            Some(segment) => segment.recycle(pool),
            None => self.clear(pool),
        }
    }

    /// What is left to send of the first segment; empty if there is nothing to send.
    #[inline]
    pub fn front(&self) -> &[u8] {
        match &self.chain {
            Some(chain) => &chain.first.bytes()[chain.first_sent..],
            None => &[],
        }
    }

    /// Whether [`WriteQueue::front`] is all there is to send, so that a plain `send` does it.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.rest.is_empty() && chain.bytes > 0)
    }

    /// Fills `out` with what is left to send, from the front, and returns how many slices it set.
    ///
    /// Fewer than `out.len()` means that they are all. O(slices set).
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let Some(chain) = &self.chain else { return 0 };
        let front = &chain.first.bytes()[chain.first_sent..];
        let segments = [front].into_iter().chain(chain.rest.iter().map(Segment::bytes));
        let mut filled = 0;
        for (slot, bytes) in out.iter_mut().zip(segments.filter(|bytes| !bytes.is_empty())) {
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Drops the first `bytes` bytes, because they were sent. Finished blocks go back to the pool.
    ///
    /// # Panics
    /// If `bytes` is more than [`WriteQueue::queued_bytes`].
    #[inline]
    pub fn consume(&mut self, pool: &mut Pool, bytes: usize) {
        let queued = self.queued_bytes();
        assert!(bytes <= queued, "more was sent than was queued");
        if bytes == queued {
            self.clear(pool);
        } else if let Some(chain) = &mut self.chain {
            chain.advance(pool, bytes);
        }
    }

    /// Moves everything out, for an operation that stays in flight; this queue is empty then.
    #[inline]
    pub fn take(&mut self) -> WriteQueue {
        mem::take(self)
    }

    /// Gives everything back to the pool, sent or not.
    #[inline]
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(mut chain) = self.chain.take() {
            chain.vacate(pool);
            pool.give_chain(chain);
        }
    }
}

/// Takes back what an append pushed before it panicked.
struct Rollback<'a> {
    tail: &'a mut Vec<u8>,
    before: usize,
}

impl Drop for Rollback<'_> {
    #[cold]
    fn drop(&mut self) {
        // Growing happens only after the assertion in `append`: the bytes are lost, the count stays true.
        self.tail.resize(self.before, 0);
    }
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self { first: Segment::NONE, rest: VecDeque::new(), first_sent: 0, bytes: 0 }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.first.bytes().is_empty() && self.rest.is_empty() && self.first_sent == 0 && self.bytes == 0
    }

    /// Whether a vacant chain is worth keeping.
    #[inline]
    pub(super) fn is_small(&self) -> bool {
        self.rest.capacity() <= SPARE_SEGMENTS_MAX
    }

    /// The memory of the block that a vacant chain kept, in bytes.
    #[inline]
    pub(super) fn block_bytes(&self) -> usize {
        match &self.first {
            Segment::Block(block) => block.capacity(),
            _ => 0,
        }
    }

    /// Takes the block out of a vacant chain.
    pub(super) fn take_block(&mut self) -> Block {
        match mem::replace(&mut self.first, Segment::NONE) {
            Segment::Block(block) => block,
            _ => Block::NONE,
        }
    }

    #[inline]
    fn tail(&mut self) -> &mut Segment {
        match self.rest.back_mut() {
            Some(last) => last,
            None => &mut self.first,
        }
    }

    /// How much can be copied behind the last byte without a new block.
    #[inline]
    fn tail_spare(&mut self) -> usize {
        match self.tail() {
            Segment::Block(block) => block.spare(),
            _ => 0,
        }
    }

    /// The last block, after `push_block` or a look at `tail_spare`.
    #[inline]
    fn tail_vec(&mut self) -> &mut Vec<u8> {
        match self.tail() {
            Segment::Block(block) => block.as_vec(),
            _ => unreachable!("the caller made room in a block"),
        }
    }

    /// Fills the last block, then as many new ones as it takes.
    fn write_blocks(&mut self, pool: &mut Pool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.tail_spare() == 0 {
                self.push_block(pool, bytes.len().min(BLOCK_BYTES_MAX));
            }
            let (now, later) = bytes.split_at(self.tail_spare().min(bytes.len()));
            self.tail_vec().extend_from_slice(now);
            self.bytes += now.len();
            bytes = later;
        }
    }

    /// Adds an empty block. Behind a full one it is of the next class: who fills one may fill more.
    fn push_block(&mut self, pool: &mut Pool, bytes_min: usize) {
        let growth = match self.tail() {
            Segment::Block(block) if !block.is_empty() => (2 * block.capacity()).min(BLOCK_BYTES_MAX),
            _ => 0,
        };
        let block = pool.take(bytes_min.max(growth));
        self.push(pool, Segment::Block(block));
    }

    /// Adds a segment and returns how long it is; counting the bytes is the caller's.
    fn push(&mut self, pool: &mut Pool, segment: Segment) -> usize {
        let len = segment.bytes().len();
        if self.bytes == 0 {
            mem::replace(&mut self.first, segment).recycle(pool);
        } else {
            self.rest.push_back(segment);
        }
        len
    }

    /// Drops the first `bytes` bytes, fewer than there are.
    fn advance(&mut self, pool: &mut Pool, mut bytes: usize) {
        self.bytes -= bytes;
        loop {
            let left = self.first.bytes().len() - self.first_sent;
            if bytes < left {
                self.first_sent += bytes;
                return;
            }
            bytes -= left;
            self.first_sent = 0;
            let next = self.rest.pop_front().unwrap_or(Segment::NONE);
            mem::replace(&mut self.first, next).recycle(pool);
            debug_assert!(!self.first.bytes().is_empty(), "what is left to send is in a segment");
        }
    }

    #[inline]
    fn vacate(&mut self, pool: &mut Pool) {
        match &mut self.first {
            Segment::Block(block) if block.capacity() <= CHAIN_BLOCK_BYTES_MAX => block.clear(),
            first => mem::replace(first, Segment::NONE).recycle(pool),
        }
        if !self.rest.is_empty() {
            self.vacate_rest(pool);
        }
        self.first_sent = 0;
        self.bytes = 0;
    }

    #[cold]
    fn vacate_rest(&mut self, pool: &mut Pool) {
        for segment in self.rest.drain(..) {
            segment.recycle(pool);
        }
    }
}

impl Segment {
    const NONE: Segment = Segment::Static(&[]);

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Block(block) => block,
            Segment::Static(bytes) => bytes,
            Segment::Shared(bytes) => bytes,
        }
    }

    #[inline]
    fn recycle(self, pool: &mut Pool) {
        if let Segment::Block(block) = self {
            pool.give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::super::pool::PoolCounts;
    use super::*;

    static PAGE: [u8; COPY_MAX + 1] = [b'p'; COPY_MAX + 1];

    fn all(queue: &WriteQueue) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); 200];
        let filled = queue.slices(&mut slices);
        assert!(slices[..filled].iter().all(|slice| !slice.is_empty()));
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn a_warm_queue_answers_without_allocating() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        for round in 0..100 {
            queue.append(&mut pool, 200, |out| out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"));
            queue.write(&mut pool, b"Content-Length: 0\r\n");
            queue.write_static(&mut pool, b"\r\n");
            assert!(queue.is_single());
            assert_eq!(queue.front(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            queue.consume(&mut pool, queue.queued_bytes());
            assert!(queue.chain.is_none(), "an empty queue owns nothing");
            let expected =
                PoolCounts { hits: round, misses: 1, returned: round + 1, dropped: 0, chain_misses: 1 };
            assert_eq!(pool.counts(), expected);
        }
        assert_eq!(size_of_val(&queue), 8);
    }

    #[test]
    fn what_waits_in_a_chain_counts_as_retained() {
        let (mut pool, mut queue) = (Pool::new(20 << 10), WriteQueue::new());
        for _ in 0..3 {
            queue.write(&mut pool, b"small");
            assert_eq!(pool.retained_bytes(), 0);
            queue.clear(&mut pool);
            assert_eq!(pool.retained_bytes(), 1024, "in the chain");
        }
        queue.append(&mut pool, 10_000, |out| out.push(b'x'));
        queue.clear(&mut pool);
        assert_eq!(pool.retained_bytes(), (16 << 10) + 1024, "in the lists");
        assert_eq!(pool.take(10_000).capacity() + pool.take(1).capacity(), 17 << 10);
        assert_eq!((pool.counts().misses, pool.retained_bytes()), (2, 0));
    }

    #[test]
    fn a_pool_that_keeps_nothing_keeps_no_block_in_a_chain() {
        let (mut pool, mut queue) = (Pool::new(0), WriteQueue::new());
        for _ in 0..2 {
            queue.write(&mut pool, b"small");
            queue.clear(&mut pool);
        }
        assert_eq!(
            pool.counts(),
            PoolCounts { misses: 2, dropped: 2, chain_misses: 1, ..PoolCounts::default() }
        );
    }

    #[test]
    fn a_partial_send_leaves_the_rest_in_front() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        queue.write(&mut pool, b"first");
        queue.consume(&mut pool, 2);
        queue.write(&mut pool, b"second");
        assert_eq!((queue.front(), queue.queued_bytes()), (&b"rstsecond"[..], 9));
    }

    #[test]
    fn large_pieces_are_linked_and_small_ones_copied() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let shared = Bytes::from(vec![b's'; COPY_MAX + 1]);
        queue.write(&mut pool, b"head");
        queue.write_static(&mut pool, &PAGE);
        queue.write_shared(&mut pool, shared.clone());
        queue.write_shared(&mut pool, shared.slice(..3));
        queue.write_static(&mut pool, b"end");

        let mut slices = [IoSlice::new(&[]); 8];
        let filled = queue.slices(&mut slices);

        assert_eq!(filled, 4);
        assert_eq!((&*slices[0], &*slices[3]), (&b"head"[..], &b"sssend"[..]));
        assert_eq!((slices[1].as_ptr(), slices[2].as_ptr()), (PAGE.as_ptr(), shared.as_ptr()), "not copied");
        assert!(!queue.is_single());
        assert_eq!(queue.slices(&mut [IoSlice::new(&[]); 2]), 2, "as many as there is room for");

        queue.consume(&mut pool, 4 + PAGE.len() + 1);
        assert_eq!(queue.front().as_ptr(), shared[1..].as_ptr());
        queue.consume(&mut pool, queue.queued_bytes());
        assert!(shared.is_unique(), "let go of when sent");
    }

    #[test]
    fn a_queue_that_fills_its_block_gets_a_larger_one() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        for _ in 0..800 {
            queue.write(&mut pool, &[b'x'; 100]);
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = queue.slices(&mut slices);
        assert_eq!(slices[..filled].iter().map(|s| s.len()).collect::<Vec<_>>(), [1024, 4096, 16384, 58496]);
    }

    #[test]
    fn a_large_write_is_spread_over_pool_blocks() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        queue.write(&mut pool, &bytes);
        assert_eq!(all(&queue), bytes);
        queue.clear(&mut pool);
        assert_eq!((pool.counts().returned, pool.counts().dropped), (5, 0));
    }

    #[test]
    fn an_append_may_take_its_own_bytes_back() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let nothing = |out: &mut Vec<u8>| {
            let before = out.len();
            out.extend_from_slice(b"no");
            out.truncate(before);
        };
        queue.append(&mut pool, 10, nothing);
        assert!(queue.chain.is_none(), "still empty, owns nothing");
        queue.write(&mut pool, b"yes");
        queue.append(&mut pool, 10, nothing);
        assert_eq!(queue.front(), b"yes");
        queue.append(&mut pool, 5000, nothing);
        assert!(queue.is_single(), "the new block is gone again");
    }

    #[test]
    fn an_append_may_push_more_than_it_reserved() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let spare = queue.append(&mut pool, 10, |out| {
            out.resize(3000, b'x');
            out.capacity()
        });
        assert!(spare >= 3000);
        assert_eq!((queue.queued_bytes(), queue.is_single()), (3000, true));
    }

    #[test]
    fn an_append_that_panics_queues_nothing() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let panicking = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half an ans");
            std::panic::resume_unwind(Box::new("handler"));
        };
        let attempt = |queue: &mut WriteQueue, pool: &mut Pool, reserve| {
            let append = || queue.append::<()>(pool, reserve, panicking);
            assert!(catch_unwind(AssertUnwindSafe(append)).is_err());
        };

        attempt(&mut queue, &mut pool, 10);
        assert!(queue.is_empty() && queue.front().is_empty() && !queue.is_single());
        queue.write_static(&mut pool, &PAGE);
        attempt(&mut queue, &mut pool, 10);
        assert_eq!(queue.slices(&mut [IoSlice::new(&[]); 8]), 1);
        queue.write(&mut pool, b"500");

        assert_eq!(all(&queue), [&PAGE[..], b"500"].concat());
        queue.consume(&mut pool, PAGE.len());
        assert_eq!(queue.front(), b"500");
        queue.clear(&mut pool);
        assert_eq!(pool.counts().returned, pool.counts().hits + pool.counts().misses, "no block is lost");
    }

    #[test]
    fn taking_moves_everything_out() {
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        queue.write(&mut pool, b"in flight");
        let taken = queue.take();
        queue.write(&mut pool, b"next");
        assert_eq!((taken.front(), queue.front()), (&b"in flight"[..], &b"next"[..]));
    }

    #[test]
    #[should_panic = "took back bytes that were queued before"]
    fn an_append_may_not_take_others_bytes_back() {
        let (mut pool, mut queue) = (Pool::new(0), WriteQueue::new());
        queue.write(&mut pool, b"queued");
        queue.append(&mut pool, 1, Vec::clear);
    }

    #[test]
    #[should_panic = "more was sent than was queued"]
    fn consuming_more_than_queued_panics() {
        WriteQueue::new().consume(&mut Pool::new(0), 1);
    }

    proptest! {
        #[test]
        fn it_sends_what_a_vec_would(steps in prop::collection::vec((0..8u8, 0..12_000usize), 1..80)) {
            static BYTES: [u8; 12_000] = [7; 12_000];
            let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
            let mut model = Vec::new();
            for (step, (kind, bytes)) in steps.into_iter().enumerate() {
                let piece = vec![step as u8; bytes];
                match kind {
                    0 => queue.write(&mut pool, &piece),
                    1 => queue.write(&mut pool, &piece[..bytes % 200]),
                    2 => queue.write_static(&mut pool, &BYTES[..bytes]),
                    3 => queue.write_shared(&mut pool, Bytes::from(piece.clone())),
                    4 | 5 => queue.append(&mut pool, bytes % 500, |out| out.extend_from_slice(&piece[..bytes / 8])),
                    _ => queue.consume(&mut pool, bytes.min(model.len())),
                }
                match kind {
                    0 | 3 => model.extend_from_slice(&piece),
                    1 => model.extend_from_slice(&piece[..bytes % 200]),
                    2 => model.extend_from_slice(&BYTES[..bytes]),
                    4 | 5 => model.extend_from_slice(&piece[..bytes / 8]),
                    _ => drop(model.drain(..bytes.min(model.len()))),
                }
                prop_assert_eq!((queue.queued_bytes(), queue.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(queue.chain.is_none(), model.is_empty(), "owns something only for bytes");
                prop_assert!(model.starts_with(queue.front()) && queue.front().is_empty() == model.is_empty());
                prop_assert_eq!(queue.is_single(), !model.is_empty() && queue.front().len() == model.len());
                prop_assert_eq!(all(&queue), &model[..]);
            }
            queue.clear(&mut pool);
            let counts = pool.counts();
            prop_assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "all blocks are back");
            prop_assert!(counts.chain_misses <= 1);
        }
    }
}
