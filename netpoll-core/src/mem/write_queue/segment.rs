//! One piece of a queue, and who owns its bytes.

use std::fs::File;

use bytes::Bytes;

use super::super::block::Block;
use super::super::discard::Guarded;
use super::super::file_range::FileRange;
use super::super::pool::Pool;

pub(super) enum Segment {
    Block(Block),
    Static(&'static [u8]),
    /// Its owner may be the program's.
    Shared(Guarded<Bytes>),
    /// Held by others as well.
    Common(Guarded<Bytes>),
    /// Its bytes are in no memory of ours: the driver moves them.
    File(FileRange),
}

// A guard takes no room, and a file no more than shared bytes do.
const _: () = assert!(size_of::<Guarded<Bytes>>() == size_of::<Bytes>());
const _: () = assert!(size_of::<FileRange>() <= size_of::<Bytes>());

/// What is left to send of a file at the front of a queue.
#[derive(Debug, Clone, Copy)]
pub struct FilePart<'a> {
    /// The open file.
    pub file: &'a File,
    /// Where the part begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes it has; never zero.
    pub length: usize,
}

impl Segment {
    pub(super) const NONE: Segment = Segment::Static(&[]);

    /// The bytes in memory; of a file, none.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Segment::Block(block) => block,
            Segment::Static(bytes) => bytes,
            Segment::Shared(bytes) | Segment::Common(bytes) => bytes,
            Segment::File(_) => &[],
        }
    }

    /// How many bytes it stands for.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Segment::File(range) => file_bytes(range),
            in_memory => in_memory.bytes().len(),
        }
    }

    #[inline]
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Segment::File(_))
    }

    /// What is left of a file of which so many bytes were sent.
    pub(super) fn file_part(&self, sent: usize) -> Option<FilePart<'_>> {
        let Segment::File(range) = self else { return None };
        let (offset, length) = (range.offset() + sent as u64, file_bytes(range) - sent);
        Some(FilePart { file: range.file(), offset, length })
    }

    #[inline]
    pub(super) fn recycle(self, pool: &mut Pool) {
        match self {
            Segment::Block(block) => pool.give(block),
            Segment::Shared(bytes) => pool.unlinked(bytes.len()),
            Segment::Static(_) | Segment::Common(_) | Segment::File(_) => {}
        }
    }
}

/// A queue counts in `usize`, and refuses what does not fit into one.
fn file_bytes(range: &FileRange) -> usize {
    usize::try_from(range.length()).expect("a queue counts its bytes in a usize")
}
