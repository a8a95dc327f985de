//! Output queued in every way and sent in pieces of any size, against a plain model.
//!
//! Each step is three bytes: what to do, and a size. What leaves is what came in, in order; an empty queue
//! owns nothing; every block finds its way back to the pool, and no file stays open.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use netpoll_core::FileRange;
use netpoll_core::internals::{COPY_MAX, Pool, WriteQueue};

/// Large enough to be linked, and with a period that shows a piece in the wrong place.
static PIECES: [u8; 16 << 10] = {
    let mut bytes = [0; 16 << 10];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % 251) as u8;
        at += 1;
    }
    bytes
};

/// What is to be sent. Bytes that lie side by side are one piece, so that comparing them is one `memcmp`.
#[derive(Debug, PartialEq)]
enum Piece {
    Bytes(Vec<u8>),
    OfFile(Range<u64>),
}

#[derive(Debug, Default)]
struct Model {
    pieces: VecDeque<Piece>,
    len: usize,
}

impl Model {
    fn write(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.pieces.back_mut() {
            _ if bytes.is_empty() => {}
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push_back(Piece::Bytes(bytes.to_vec())),
        }
    }

    fn write_file(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.len += (range.end - range.start) as usize;
            self.pieces.push_back(Piece::OfFile(range));
        }
    }

    fn consume(&mut self, mut bytes: usize) {
        self.len -= bytes;
        while bytes > 0 {
            let taken = match &mut self.pieces[0] {
                Piece::Bytes(first) => first.drain(..bytes.min(first.len())).len(),
                Piece::OfFile(range) => {
                    let taken = (bytes as u64).min(range.end - range.start);
                    range.start += taken;
                    taken as usize
                }
            };
            bytes -= taken;
            let is_sent = match &self.pieces[0] {
                Piece::Bytes(first) => first.is_empty(),
                Piece::OfFile(range) => range.is_empty(),
            };
            if is_sent {
                self.pieces.pop_front();
            }
        }
    }

    /// What comes first, if it is in memory: all bytes up to a file or the end.
    fn first_bytes(&self) -> &[u8] {
        match self.pieces.front() {
            Some(Piece::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    fn first_file(&self) -> Option<Range<u64>> {
        match self.pieces.front() {
            Some(Piece::OfFile(range)) => Some(range.clone()),
            _ => None,
        }
    }
}

/// Plays the steps in `data`.
pub fn run(data: &[u8]) {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    let mut model = Model::default();
    let mut slices_max = 0;
    // Never read: only a driver does.
    let file = Arc::new(File::open("/dev/null").expect("a file"));

    for (number, step) in data.chunks_exact(3).enumerate() {
        let size = usize::from(u16::from_le_bytes([step[1], step[2]]));
        let piece = &PIECES[size % 251..][..size % (3 * COPY_MAX)];
        let offset = (number as u64) << 32;
        match step[0] % 9 {
            _ if step[0] >= FILES_FROM => {
                queue.write_file(&mut pool, FileRange::new(Arc::clone(&file), offset, piece.len() as u64));
            }
            0 => queue.write(&mut pool, piece),
            1 => queue.write_static(&mut pool, piece),
            2 => queue.write_shared(&mut pool, Bytes::from_static(piece)),
            3 => queue.append(&mut pool, size % 300, |out| out.extend_from_slice(piece)),
            4 => queue.append(&mut pool, piece.len(), |out| {
                let before = out.len();
                out.extend_from_slice(piece);
                out.truncate(before);
            }),
            5 => {
                let mut taken = queue.take();
                assert!(queue.is_empty(), "taking moves everything out");
                std::mem::swap(&mut taken, &mut queue);
            }
            6 if size % 16 == 0 => queue.clear(&mut pool),
            _ => queue.consume(&mut pool, size.min(model.len)),
        }
        match step[0] % 9 {
            _ if step[0] >= FILES_FROM => {
                model.write_file(offset..offset + piece.len() as u64);
            }
            0..=3 => model.write(piece),
            4 | 5 => {}
            6 if size % 16 == 0 => model = Model::default(),
            _ => model.consume(size.min(model.len)),
        }
        slices_max += 4;
        check(&queue, &model, slices_max);
    }
    queue.clear(&mut pool);
    assert_eq!(Arc::strong_count(&file), 1, "a file was kept open");
    let counts = pool.counts();
    assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "a block was lost");
}

/// First bytes of steps that queue a part of a file.
const FILES_FROM: u8 = 0xf0;

fn check(queue: &WriteQueue, model: &Model, slices_max: usize) {
    assert_eq!((queue.queued_bytes(), queue.is_empty()), (model.len, model.len == 0));
    let part = queue.front_file().map(|part| part.offset..part.offset + part.length as u64);
    assert_eq!(part, model.first_file());
    let bytes = model.first_bytes();
    assert!(bytes.starts_with(queue.front()), "other bytes than were queued");
    assert_eq!(queue.front().is_empty(), bytes.is_empty());
    assert_eq!(queue.is_single(), model.len > 0 && queue.front().len() == model.len);
    let has_file = model.pieces.iter().any(|piece| matches!(piece, Piece::OfFile(_)));
    assert_eq!(queue.has_file(), has_file);

    let mut slices = vec![IoSlice::new(&[]); slices_max];
    let filled = queue.slices(&mut slices);
    let mut left = bytes;
    for slice in &slices[..filled] {
        assert!(!slice.is_empty(), "an empty iovec");
        left = left.strip_prefix(&**slice).expect("other bytes than were queued");
    }
    assert!(left.is_empty(), "bytes without an iovec");
}
