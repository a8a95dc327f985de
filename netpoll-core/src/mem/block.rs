//! A piece of memory that a queue fills, on loan from the [`Pool`](super::Pool).
//!
//! Invariant: a block that comes out of the pool is empty and has at least the capacity of its size
//! class. Whoever pushes past that capacity makes it grow (one allocation); the pool sorts it anew by
//! the capacity it comes back with. An empty block without capacity owns nothing.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Owned bytes with room for more, normally of one of the pool's size classes.
///
/// 24 bytes inline. Dropping it frees the memory; [`Pool::give`](super::Pool::give) keeps it for the next one.
#[derive(Default)]
pub struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// A block that owns no memory, the place holder where there is none.
    pub const NONE: Block = Block { bytes: Vec::new() };

    /// A fresh block of at least this capacity, straight from the allocator.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// How many bytes are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no bytes are in it; it may still own memory.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes it can hold without growing.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many more bytes fit without growing.
    #[inline]
    pub fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Forgets the bytes and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Copies `bytes` behind what is there; allocates only beyond [`Block::spare`].
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes as a plain `Vec`, for encoders that push.
    #[inline]
    pub fn as_vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {} bytes)", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_block_keeps_its_memory() {
        let mut block = Block::with_capacity(1024);
        block.extend_from_slice(b"hello");
        assert_eq!((&*block, block.len()), (&b"hello"[..], 5));
        assert_eq!(block.spare(), block.capacity() - 5);

        block.clear();

        assert!(block.is_empty() && block.capacity() >= 1024);
        assert_eq!(Block::NONE.capacity(), 0, "the place holder owns nothing");
    }
}
