//! Input that goes back to where it came from, without a copy and behind the callbacks of its batch.
//!
//! Invariant: when a part of the chunk was marked, nothing was queued or in flight on its connection. What is queued
//! afterwards comes behind it: the driver sends the part when the callback has returned, before what is queued leaves,
//! and hands back what the socket does not take.

use super::Context;
use super::stream::Stream;
use crate::driver::{Io, Verdict};
use crate::mem::Key;

/// A part of a chunk. It ends at 0 if nothing is marked: no byte goes back that is not there.
#[derive(Clone, Copy)]
pub struct Part {
    start: u32,
    end: u32,
}

impl Part {
    const NONE: Self = Self { start: 0, end: 0 };

    #[inline]
    fn is_none(self) -> bool {
        self.end == 0
    }

    /// What the driver is told.
    #[inline]
    pub fn verdict(self) -> Verdict {
        if self.is_none() { Verdict::Continue } else { Verdict::Reply { start: self.start, end: self.end } }
    }

    /// Sends it, of this chunk, at once; what the socket does not take goes in front of the queue.
    #[cold]
    pub fn send(self, chunk: &[u8], stream: &mut Stream, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let bytes = &chunk[self.start as usize..self.end as usize];
        if !bytes.is_empty() {
            let sent = io.send(key, bytes);
            stream.progressed(sent);
            stream.out.write_front(&mut cx.agenda.pool, &bytes[sent..]);
        }
    }
}

/// The chunk that a callback is offered, by its place in memory, and what of it goes back.
pub struct Reply {
    /// As the driver received it; empty where the input is not the driver's.
    start: usize,
    len: usize,
    part: Part,
}

impl Reply {
    /// Of no chunk.
    pub const NONE: Self = Self { start: 0, len: 0, part: Part::NONE };

    /// Of no chunk, and something is in front: whatever is sent is queued. For a connection that is not the wire itself.
    pub const VEILED: Self = Self { start: 0, len: 0, part: Part { start: 0, end: u32::MAX } };

    /// Nothing of this chunk yet.
    #[inline]
    pub fn none(chunk: &[u8]) -> Self {
        Self { start: chunk.as_ptr().addr(), len: chunk.len(), part: Part::NONE }
    }

    /// It is that of a protocol above a layer.
    pub fn is_veiled(&self) -> bool {
        self.part.end == u32::MAX
    }

    #[inline]
    pub fn part(&self) -> Part {
        self.part
    }

    #[inline]
    pub fn is_none(&self) -> bool {
        self.part.is_none()
    }

    /// Marks these bytes, if they lie in the chunk, and behind the marked ones without a gap. True if they do.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr().addr().wrapping_sub(self.start);
        let is_inside = start < self.len && bytes.len() <= self.len - start;
        if !is_inside || !(self.is_none() || start == self.part.end as usize) {
            return false;
        }
        // A chunk is a part of the read block, far below 4 GiB.
        if self.is_none() {
            self.part.start = start as u32;
        }
        self.part.end = (start + bytes.len()) as u32;
        true
    }
}
