//! Output queued in every way and sent in pieces of any size, against a plain `Vec`.
//!
//! Each step is three bytes: what to do, and a size. What leaves is what came in, in order; an empty queue
//! owns nothing; every block finds its way back to the pool.

use std::io::IoSlice;

use bytes::Bytes;
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

/// Plays the steps in `data`.
pub fn run(data: &[u8]) {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    let mut model = Vec::<u8>::new();
    let mut slices_max = 0;

    for step in data.chunks_exact(3) {
        let size = usize::from(u16::from_le_bytes([step[1], step[2]]));
        let piece = &PIECES[size % 251..][..size % (3 * COPY_MAX)];
        match step[0] % 9 {
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
            0..=3 => model.extend_from_slice(piece),
            4 | 5 => {}
            6 if size % 16 == 0 => model.clear(),
            _ => drop(model.drain(..size.min(model.len()))),
        }
        slices_max += 4;
        check(&queue, &model, slices_max);
    }
    queue.clear(&mut pool);
    let counts = pool.counts();
    assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "a block was lost");
}

fn check(queue: &WriteQueue, model: &[u8], slices_max: usize) {
    assert_eq!((queue.queued_bytes(), queue.is_empty()), (model.len(), model.is_empty()));
    assert!(model.starts_with(queue.front()));
    assert_eq!(queue.front().is_empty(), model.is_empty());
    assert_eq!(queue.is_single(), !model.is_empty() && queue.front().len() == model.len());

    let mut slices = vec![IoSlice::new(&[]); slices_max];
    let filled = queue.slices(&mut slices);
    let mut left = model;
    for slice in &slices[..filled] {
        assert!(!slice.is_empty(), "an empty iovec");
        left = left.strip_prefix(&**slice).expect("other bytes than were queued");
    }
    assert!(left.is_empty(), "bytes without an iovec");
}
