//! Where the kernel receives into: blocks that it is provided with, and fills one after the other.
//!
//! With incremental buffers (Linux 6.12) a block serves as many small receives as fit into it; before that each receive has
//! one for itself. There are as many blocks as the load has needed: a receive that finds none ends, one more is provided, and it
//! goes on. Nobody holds a block: a chunk is consumed or copied in the callback that it is delivered to, or sent back from
//! where it lies, which is over with the next enter.
//!
//! The kernel says how much it has filled, and not where: the places of answers follow from their order. Whoever takes one out of it has
//! all found first.
//!
//! It goes on where the last receive has ended, and copies to there. One message of four bytes would put all large ones behind it askew, each
//! of which takes it a quarter more time. So behind a large one that ended inside a page it is told to begin with the next page: where
//! it goes on stands in shared memory, and it looks there with each receive.
//!
//! Invariant: of a block that was provided the kernel writes only behind what it has reported; one that is full is written
//! to again when it was provided again, which is when its chunks are delivered and nothing is sent from it.

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::{Answer, Ring};
use super::selftest::Features;

/// The only group.
pub const GROUP: u16 = 0;

/// The entries of the buffer ring, which are a power of two. 16 bytes each: one page.
const ENTRIES: u16 = 64;

/// `IOU_PBUF_RING_INC` of linux/io_uring.h.
const INCREMENTAL: u16 = 2;

/// Blocks of incremental buffers: what a first-level cache and half of a second-level one hold, so that they are still there
/// when they come round; and how many there may be when many peers send much at the same time.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCKS: usize = 2;
const BLOCKS_MAX: usize = 32;

/// The same without: a small request takes a whole one.
const WHOLE_BLOCK_BYTES: usize = 8 * 1024;
const WHOLE_BLOCKS: usize = 32;

/// Where large receives begin, and how large those are.
pub const PAGE: usize = 4096;
const LARGE: i32 = PAGE as i32 / 2;

const _: () = assert!(BLOCKS_MAX <= ENTRIES as usize && WHOLE_BLOCKS <= ENTRIES as usize);

struct Block {
    /// `None` while there is none at this number.
    memory: Option<NonNull<u8>>,
    /// What the kernel has filled and reported.
    filled: usize,
    /// Chunks whose place is known, and that are not delivered yet, or are being sent.
    pins: u32,
    /// The kernel has it.
    is_provided: bool,
    /// Where it stands among the entries.
    entry: u16,
}

/// The blocks of a ring, and the ring in which it finds them.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    tail: u16,
    blocks: Vec<Block>,
    block_bytes: usize,
    blocks_min: usize,
    blocks_max: usize,
    /// How many there are.
    live: usize,
    /// Of them so many go as soon as they are full and delivered.
    surplus: usize,
    /// They are the kernel's for good.
    is_leaked: bool,
    /// Large receives begin with a page.
    aligns: bool,
    /// The last receive was large, and the kernel goes on with its block.
    behind_large: Option<u16>,
}

/// A part of a block that was received.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    block: u16,
    start: usize,
    pub len: usize,
}

impl Buffers {
    /// Registers buffers with a ring.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` before Linux 5.19, or 6.12 with incremental ones.
    pub fn new(ring: &Ring, features: Features) -> io::Result<Self> {
        let is_incremental = features.incremental_buffers;
        let (block_bytes, blocks, blocks_max) = match is_incremental {
            true => (BLOCK_BYTES, BLOCKS, BLOCKS_MAX),
            false => (WHOLE_BLOCK_BYTES, WHOLE_BLOCKS, WHOLE_BLOCKS),
        };
        let entries = allocate(entries_layout()).cast();
        let mut buffers = Self {
            entries,
            tail: 0,
            blocks: Vec::new(),
            block_bytes,
            blocks_min: blocks,
            blocks_max,
            live: 0,
            surplus: 0,
            is_leaked: false,
            aligns: is_incremental && features.aligned_receives && ring.defers(),
            behind_large: None,
        };
        let (address, flags) =
            (entries.as_ptr().expose_provenance() as u64, u16::from(is_incremental) * INCREMENTAL);
        let submitter = ring.io_uring().submitter();
        // SAFETY: the entries have to be a page of their own, and there until the ring is gone. They are allocated above for
        // this, and `Drop` frees them; whoever owns both drops the ring first, or leaks this. (test: `what_has_come_lies_in_the_blocks`)
        unsafe { submitter.register_buf_ring_with_flags(address, ENTRIES, GROUP, flags) }?;
        for _ in 0..blocks {
            buffers.grow();
        }
        Ok(buffers)
    }

    /// Provides one block more, if there may be one. False if not.
    pub fn grow(&mut self) -> bool {
        self.surplus = 0;
        if self.live == self.blocks_max {
            return false;
        }
        let memory = Some(allocate(block_layout(self.block_bytes)));
        let block = Block { memory, filled: 0, pins: 0, is_provided: false, entry: 0 };
        let index = match self.blocks.iter().position(|block| block.memory.is_none()) {
            Some(index) => {
                self.blocks[index] = block;
                index
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() - 1
            }
        };
        self.live += 1;
        self.provide(index);
        true
    }

    /// Lets go of what a spike has left, a block each time that one is full and delivered.
    pub fn shrink(&mut self) {
        self.surplus = self.live - self.blocks_min;
    }

    /// How many blocks there are.
    #[cfg(test)]
    pub fn blocks(&self) -> usize {
        self.live
    }

    /// Whether the kernel has a block.
    pub fn has_provided(&self) -> bool {
        self.blocks.iter().any(|block| block.is_provided)
    }

    /// What an answer says that was received. It is held until [`release`](Self::release).
    ///
    /// # Panics
    /// If the kernel names a buffer that there is not, or more than is in it.
    #[inline]
    pub fn received(&mut self, mut answer: Answer) -> Option<Chunk> {
        let (id, goes_on) = answer.buffer()?;
        if answer.start.is_none() {
            self.arrived(id, goes_on, &mut answer);
        }
        Some(Chunk { block: id, start: answer.start? as usize, len: answer.result.max(0) as usize })
    }

    /// Finds the places of answers before one of them is handled in front of others: where the bytes of one lie follows from those before it,
    /// and no block is provided again before all of them are delivered.
    #[cold]
    pub fn place_all<'a>(&mut self, answers: impl Iterator<Item = &'a mut Answer>) {
        for answer in answers.filter(|answer| answer.start.is_none()) {
            if let Some((id, goes_on)) = answer.buffer() {
                self.arrived(id, goes_on, answer);
            }
        }
    }

    #[inline]
    fn arrived(&mut self, id: u16, goes_on: bool, answer: &mut Answer) {
        let block = &mut self.blocks[usize::from(id)];
        answer.start = Some(block.filled as u32);
        block.filled += answer.result.max(0) as usize;
        assert!(
            block.is_provided && block.filled <= self.block_bytes,
            "the kernel filled what it does not have"
        );
        block.is_provided = goes_on;
        block.pins += 1;
        self.behind_large = (goes_on && answer.result >= LARGE).then_some(id);
    }

    /// Has the next receive begin with a page, if the last one was large. Only while the kernel cannot receive: between the enters of a ring that
    /// [defers](Ring::defers) its work.
    #[inline]
    pub fn align(&mut self) {
        if let Some(id) = self.behind_large.take()
            && self.aligns
        {
            self.go_to_page(usize::from(id));
        }
    }

    fn go_to_page(&mut self, index: usize) {
        let (block, block_bytes) = (&self.blocks[index], self.block_bytes);
        let (filled, page) = (block.filled, block.filled.next_multiple_of(PAGE));
        let Some(memory) = block.memory.filter(|_| block.is_provided && page < block_bytes) else { return };
        let start = memory.as_ptr().expose_provenance() as u64;
        let entry = self.entry(block.entry);
        // Not if it has received more than was placed yet.
        if entry.len() as usize == block_bytes - filled {
            entry.set_addr(start + page as u64);
            entry.set_len((block_bytes - page) as u32);
            self.blocks[index].filled = page;
        }
    }

    /// One of the entries that are shared with the kernel.
    fn entry(&mut self, at: u16) -> &mut BufRingEntry {
        assert!(at < ENTRIES);
        // SAFETY: the offset is inside the allocation, which is of `ENTRIES` entries. (test: `what_has_come_lies_in_the_blocks`)
        let entry = unsafe { self.entries.add(usize::from(at)) };
        // SAFETY: the entry is allocated, and was zeroed at first. Nobody else has a reference to it, and the kernel, which moves the entry that
        // it receives into, does so only within an enter: one that is behind the tail it does not know, and others are asked for by
        // `go_to_page` alone. (tests: `what_has_come_lies_in_the_blocks`, `a_large_receive_begins_with_a_page`)
        unsafe { &mut *entry.as_ptr() }
    }

    /// A chunk is held once more.
    #[inline]
    pub fn hold(&mut self, chunk: Chunk) {
        self.blocks[usize::from(chunk.block)].pins += 1;
    }

    /// A chunk is held once less. A block that is full and that nobody holds any more is provided again.
    #[inline]
    pub fn release(&mut self, chunk: Chunk) {
        let index = usize::from(chunk.block);
        let block = &mut self.blocks[index];
        block.pins -= 1;
        if block.pins == 0 && !block.is_provided {
            match self.surplus {
                0 => self.provide(index),
                _ => self.let_go(index),
            }
        }
    }

    /// Leaves them to the kernel, which may still write to them.
    #[cold]
    pub fn leak(&mut self) {
        self.is_leaked = true;
    }

    /// Where a chunk lies.
    #[inline]
    pub fn place(&self, chunk: Chunk) -> Place {
        let block = &self.blocks[usize::from(chunk.block)];
        debug_assert!(block.pins > 0 && chunk.start + chunk.len <= block.filled);
        let memory = block.memory.expect("a held chunk lies in a block");
        Place { start: memory.as_ptr().wrapping_add(chunk.start), len: chunk.len }
    }

    #[cold]
    fn let_go(&mut self, index: usize) {
        (self.surplus, self.live) = (self.surplus - 1, self.live - 1);
        if let Some(memory) = self.blocks[index].memory.take() {
            // SAFETY: it was allocated with this layout. The kernel has reported the end of it, and no chunk of it is held.
            // (test: `what_a_spike_has_left_goes_block_by_block`)
            unsafe { alloc::dealloc(memory.as_ptr(), block_layout(self.block_bytes)) };
        }
    }

    #[inline(never)]
    fn provide(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        let memory = block.memory.expect("only a block is provided");
        (block.filled, block.is_provided) = (0, true);
        block.entry = self.tail & (ENTRIES - 1);
        let at = block.entry;
        let block_bytes = self.block_bytes as u32;
        let entry = self.entry(at);
        entry.set_addr(memory.as_ptr().expose_provenance() as u64);
        entry.set_len(block_bytes);
        entry.set_bid(index as u16);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the pointer has to be that of the first entry. (test: `what_has_come_lies_in_the_blocks`)
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is two aligned bytes of the first entry that no field of it covers which is written here, and which the kernel
        // reads with acquire ordering. (test: `what_has_come_lies_in_the_blocks`)
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Bytes in a block, as long as their chunk is held.
#[derive(Clone, Copy)]
pub struct Place {
    start: *mut u8,
    len: usize,
}

impl Place {
    pub fn as_ptr(self) -> *const u8 {
        self.start
    }

    /// # Safety
    /// The chunk is held for as long as the slice is used, and nobody else looks at it or changes it meanwhile.
    #[inline]
    pub unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: the block is allocated and was zeroed, and the kernel does not write to what it has reported until the block is provided
        // again, which a held chunk prevents. The rest is for the caller. (test: `what_has_come_lies_in_the_blocks`)
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.is_leaked {
            return;
        }
        for memory in self.blocks.drain(..).filter_map(|block| block.memory) {
            // SAFETY: it was allocated with this layout. The ring, whose orders might still write to it, is gone: see `new`.
            // (test: `what_has_come_lies_in_the_blocks`)
            unsafe { alloc::dealloc(memory.as_ptr(), block_layout(self.block_bytes)) };
        }
        // SAFETY: as above. (test: `what_has_come_lies_in_the_blocks`)
        unsafe { alloc::dealloc(self.entries.as_ptr().cast(), entries_layout()) };
    }
}

/// Zeroed memory.
fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0);
    // SAFETY: the size is not zero, as checked. (test: `what_has_come_lies_in_the_blocks`)
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

fn entries_layout() -> Layout {
    Layout::array::<BufRingEntry>(ENTRIES.into()).and_then(|layout| layout.align_to(PAGE)).expect("a page")
}

fn block_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE).expect("less than the address space")
}
