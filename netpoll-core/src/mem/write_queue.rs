//! What a connection still has to send.
//!
//! Callbacks queue, the driver sends: everything that piled up leaves in one system call. Small pieces
//! are copied into one block from the pool, large ones that somebody else owns are linked in between, and so
//! are parts of files, whose bytes never come here (`docs/decisions/0004`).
//!
//! Invariant: a queue with nothing to send owns nothing, its chain and blocks are back in the pool. In a
//! chain `bytes` is the sum of all segments minus `first_sent`; `first_sent` is less than the length of
//! the first segment; no segment is empty. (An append that panicked may leave one
//! empty block last; whatever comes behind takes its place.)
//!
//! Touched by the connection's worker. The usual case is one answer in one block: append, write and
//! consume are then a handful of branches each and allocate nothing once the pool is warm. A chain
//! waits in the pool with its small block in place, so that the next answer moves one pointer only.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

use super::block::Block;
use super::discard::{Guarded, discard};
use super::file_range::FileRange;
use super::pool::{BLOCK_BYTES_MAX, Pool};
use super::read_buffer::ReadBuffer;
use segment::Segment;

mod segment;

pub use segment::FilePart;

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

    /// Whether it owns nothing.
    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.chain.is_none()
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

    /// Queues a copy of `bytes` in front of everything queued before.
    ///
    /// # Panics
    /// If the first segment was sent in part: nothing belongs in the middle of it.
    #[cold]
    pub fn write_front(&mut self, pool: &mut Pool, bytes: &[u8]) {
        let Some(chain) = self.chain.as_mut().filter(|chain| chain.bytes > 0) else {
            return self.write(pool, bytes);
        };
        assert!(chain.first_sent == 0, "the queue has begun to leave");
        for piece in bytes.rchunks(BLOCK_BYTES_MAX) {
            let mut block = pool.take(piece.len());
            block.as_vec().extend_from_slice(piece);
            let behind = mem::replace(&mut chain.first, Segment::Block(block));
            chain.rest.push_front(behind);
            chain.bytes += piece.len();
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
            discard(bytes);
        } else {
            pool.linked(bytes.len());
            self.link(pool, Segment::Shared(Guarded::new(bytes)));
        }
    }

    /// The same for bytes that others hold as well, such as what is sent to many: they do not count as this queue's memory.
    pub fn write_common(&mut self, pool: &mut Pool, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.write(pool, &bytes);
            discard(bytes);
        } else {
            self.link(pool, Segment::Common(Guarded::new(bytes)));
        }
    }

    /// Queues input that somebody has kept: its block is handed over. Up to [`COPY_MAX`] bytes behind others are copied.
    pub fn write_kept(&mut self, pool: &mut Pool, kept: ReadBuffer) {
        if kept.is_empty() {
            return;
        }
        let is_first = self.is_empty();
        if !is_first && kept.len() <= COPY_MAX {
            self.write(pool, kept.bytes());
            let (block, _) = kept.into_parts(pool);
            return pool.give(block);
        }
        let (mut block, consumed) = kept.into_parts(pool);
        if !is_first && consumed > 0 {
            // Only of the first segment a part may be gone.
            block.copy_within(consumed.., 0);
            let left = block.len() - consumed;
            block.as_vec().truncate(left);
        }
        self.link(pool, Segment::Block(block));
        if is_first && let Some(chain) = &mut self.chain {
            chain.first_sent = consumed;
            chain.bytes -= consumed;
        }
    }

    /// Queues a part of a file, which stays open until it was sent. Its bytes count as queued, and take no memory.
    ///
    /// # Panics
    /// If more would be queued than a `usize` counts.
    pub fn write_file(&mut self, pool: &mut Pool, range: FileRange) {
        if range.length() == 0 {
            return;
        }
        let total =
            usize::try_from(range.length()).ok().and_then(|bytes| bytes.checked_add(self.queued_bytes()));
        assert!(total.is_some(), "more is queued than a usize counts");
        self.link(pool, Segment::File(range));
    }

    /// Queues everything that another queue has, of which nothing was sent, and leaves it empty. A small piece behind a block with
    /// room is copied; the rest moves.
    pub fn write_all_of(&mut self, pool: &mut Pool, other: &mut Self) {
        if self.is_empty() {
            // What it owns while it is empty is at most a chain of its own.
            mem::swap(self, other);
            return;
        }
        let Some(mut chain) = other.chain.take() else { return };
        let consumed = mem::take(&mut chain.first_sent);
        match &mut chain.first {
            Segment::Block(block) if consumed > 0 => {
                // Of a block that was handed over a part may have been read before.
                block.copy_within(consumed.., 0);
                let left = block.len() - consumed;
                block.as_vec().truncate(left);
            }
            _ => debug_assert!(consumed == 0, "nothing of it was sent"),
        }
        while chain.bytes > 0 {
            let next = chain.rest.pop_front().unwrap_or(Segment::NONE);
            let segment = mem::replace(&mut chain.first, next);
            chain.bytes -= segment.len();
            match segment {
                Segment::Block(block) if block.len() <= COPY_MAX => {
                    self.write(pool, &block);
                    pool.give(block);
                }
                segment => self.link(pool, segment),
            }
        }
        chain.vacate(pool);
        pool.give_chain(chain);
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
        let (before, room) = (tail.len(), tail.capacity());
        let mut rollback = Rollback { tail, before, room, pool: &mut *pool };
        let result = f(rollback.tail);
        let after = rollback.tail.len();
        rollback.count_room();
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

    /// What is left to send of the first segment; empty if there is nothing to send, or a file comes first.
    #[inline]
    pub fn front(&self) -> &[u8] {
        match &self.chain {
            Some(chain) => chain.front(),
            None => &[],
        }
    }

    /// What is left to send of the file that comes first, if one does.
    #[inline]
    pub fn front_file(&self) -> Option<FilePart<'_>> {
        let chain = self.chain.as_ref()?;
        chain.first.file_part(chain.first_sent)
    }

    /// Whether there is a file among what is left to send. O(segments).
    pub fn has_file(&self) -> bool {
        self.chain
            .as_ref()
            .is_some_and(|chain| chain.first.is_file() || chain.rest.iter().any(Segment::is_file))
    }

    /// Whether [`WriteQueue::front`] is all there is to send, so that a plain `send` does it.
    #[inline]
    pub fn is_single(&self) -> bool {
        let is_single = |chain: &Chain| chain.rest.is_empty() && chain.bytes > 0 && !chain.first.is_file();
        self.chain.as_deref().is_some_and(is_single)
    }

    /// Fills `out` with what is left to send, from the front up to the first file, and returns how many slices
    /// it set.
    ///
    /// Fewer than `out.len()` means that they are all up to there. O(slices set).
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let Some(chain) = &self.chain else { return 0 };
        if chain.first.is_file() {
            return 0;
        }
        let behind = chain.rest.iter().take_while(|segment| !segment.is_file()).map(Segment::bytes);
        let segments = [chain.front()].into_iter().chain(behind);
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
    /// The capacity that the pool knows of.
    room: usize,
    pool: &'a mut Pool,
}

impl Rollback<'_> {
    #[inline]
    fn count_room(&mut self) {
        let room = self.tail.capacity();
        if room != self.room {
            self.pool.resized(self.room, room);
            self.room = room;
        }
    }
}

impl Drop for Rollback<'_> {
    #[cold]
    fn drop(&mut self) {
        // Growing happens only after the assertion in `append`: the bytes are lost, the count stays true.
        self.tail.resize(self.before, 0);
        self.count_room();
    }
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self { first: Segment::NONE, rest: VecDeque::new(), first_sent: 0, bytes: 0 }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.first.len() == 0 && self.rest.is_empty() && self.first_sent == 0 && self.bytes == 0
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

    /// What is left to send of the first segment, if it is in memory.
    #[inline]
    fn front(&self) -> &[u8] {
        if self.first.is_file() { &[] } else { &self.first.bytes()[self.first_sent..] }
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
        let len = segment.len();
        if self.bytes == 0 {
            mem::replace(&mut self.first, segment).recycle(pool);
        } else {
            if self.rest.back().is_some_and(|last| last.len() == 0) {
                self.rest.pop_back().unwrap_or(Segment::NONE).recycle(pool);
            }
            self.rest.push_back(segment);
        }
        len
    }

    /// Drops the first `bytes` bytes, fewer than there are.
    fn advance(&mut self, pool: &mut Pool, mut bytes: usize) {
        self.bytes -= bytes;
        loop {
            let left = self.first.len() - self.first_sent;
            if bytes < left {
                self.first_sent += bytes;
                return;
            }
            bytes -= left;
            self.first_sent = 0;
            let next = self.rest.pop_front().unwrap_or(Segment::NONE);
            mem::replace(&mut self.first, next).recycle(pool);
            debug_assert!(self.first.len() > 0, "what is left to send is in a segment");
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

#[cfg(test)]
mod tests;
