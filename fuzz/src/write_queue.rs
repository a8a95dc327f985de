//! Output queued in every way and sent in pieces of any size, against a plain `Vec`.
//!
//! Each step is three bytes: what to do, and a size. What leaves is what came in, in order; an empty queue
//! owns nothing; every block finds its way back to the pool, and no file stays open.

use std::fs::File;
use std::io::IoSlice;
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

/// A byte that is to be sent: known, or somewhere in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Byte {
    Known(u8),
    OfFile(u64),
}

fn known(bytes: &[u8]) -> impl Iterator<Item = Byte> {
    bytes.iter().map(|byte| Byte::Known(*byte))
}

/// Plays the steps in `data`.
pub fn run(data: &[u8]) {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    let mut model = Vec::<Byte>::new();
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
            _ => queue.consume(&mut pool, size.min(model.len())),
        }
        match step[0] % 9 {
            _ if step[0] >= FILES_FROM => {
                model.extend((offset..offset + piece.len() as u64).map(Byte::OfFile));
            }
            0..=3 => model.extend(known(piece)),
            4 | 5 => {}
            6 if size % 16 == 0 => model.clear(),
            _ => drop(model.drain(..size.min(model.len()))),
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

fn check(queue: &WriteQueue, model: &[Byte], slices_max: usize) {
    assert_eq!((queue.queued_bytes(), queue.is_empty()), (model.len(), model.is_empty()));
    let part = queue.front_file().map_or(0..0, |part| part.offset..part.offset + part.length as u64);
    let front: Vec<Byte> = known(queue.front()).chain(part.clone().map(Byte::OfFile)).collect();
    assert!(model.starts_with(&front));
    assert!(queue.front().is_empty() || part.is_empty());
    assert_eq!(front.is_empty(), model.is_empty());
    assert_eq!(queue.is_single(), !queue.front().is_empty() && front.len() == model.len());
    let to_file = model.iter().position(|byte| matches!(byte, Byte::OfFile(_)));
    assert_eq!(queue.has_file(), to_file.is_some());

    let mut slices = vec![IoSlice::new(&[]); slices_max];
    let filled = queue.slices(&mut slices);
    let mut left = &model[..to_file.unwrap_or(model.len())];
    for slice in &slices[..filled] {
        assert!(!slice.is_empty(), "an empty iovec");
        let bytes: Vec<Byte> = known(slice).collect();
        left = left.strip_prefix(&*bytes).expect("other bytes than were queued");
    }
    assert!(left.is_empty(), "bytes without an iovec");
}
