//! The write queue against a plain buffer, and the rules one by one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::pool::PoolCounts;
use super::*;

/// A part of some file; nobody looks into it here.
fn range(offset: u64, length: u64) -> FileRange {
    FileRange::new(std::fs::File::open("/dev/null").unwrap(), offset, length)
}

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
    assert_eq!(pool.counts(), PoolCounts { misses: 2, dropped: 2, chain_misses: 1, ..PoolCounts::default() });
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
fn a_file_is_counted_but_not_seen_as_bytes() {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    queue.write(&mut pool, b"head");
    queue.write_file(&mut pool, range(1000, 1 << 40));
    queue.write(&mut pool, b"next");
    assert_eq!((queue.queued_bytes(), queue.front()), ((1 << 40) + 8, &b"head"[..]));
    assert!(queue.has_file() && queue.front_file().is_none() && !queue.is_single());
    assert_eq!(queue.slices(&mut [IoSlice::new(&[]); 8]), 1, "up to the file");

    queue.consume(&mut pool, 4 + 24);
    let part = queue.front_file().unwrap();
    assert_eq!((part.offset, part.length), (1024, (1 << 40) - 24));
    assert!(queue.front().is_empty() && !queue.is_single());
    assert_eq!(queue.slices(&mut [IoSlice::new(&[]); 8]), 0);

    queue.consume(&mut pool, (1 << 40) - 24);
    assert_eq!((queue.front(), queue.has_file(), queue.is_single()), (&b"next"[..], false, true));
}

#[test]
fn a_file_is_let_go_of_when_sent_or_cleared() {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    let range = range(0, 10);
    queue.write_file(&mut pool, range.clone());
    queue.write_file(&mut pool, FileRange::new(range.file().clone(), 5, 0));
    assert_eq!(Arc::strong_count(range.file()), 2, "an empty part is not queued");
    queue.consume(&mut pool, 10);
    assert_eq!(Arc::strong_count(range.file()), 1);
    queue.write(&mut pool, b"head");
    queue.write_file(&mut pool, range.clone());
    queue.clear(&mut pool);
    assert_eq!(Arc::strong_count(range.file()), 1);
}

#[test]
#[should_panic = "ends beyond every file"]
fn a_range_that_no_file_can_have_panics() {
    let _ = range(1, i64::MAX as u64);
}

#[test]
#[should_panic = "more is queued than a usize counts"]
fn files_beyond_what_can_be_counted_panic() {
    let (mut pool, mut queue) = (Pool::new(0), WriteQueue::new());
    for _ in 0..3 {
        queue.write_file(&mut pool, range(0, i64::MAX as u64));
    }
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
fn what_is_written_in_front_leaves_first() {
    let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
    queue.write_front(&mut pool, b"second");
    queue.write_static(&mut pool, &PAGE);
    let large = vec![b'1'; 100_000];
    queue.write_front(&mut pool, &large);
    queue.write_front(&mut pool, b"");
    assert_eq!(all(&queue), [&large, &b"second"[..], &PAGE].concat());
    queue.clear(&mut pool);
    assert_eq!((pool.counts().returned, pool.counts().dropped), (3, 0));
}

#[test]
#[should_panic = "the queue has begun to leave"]
fn nothing_is_written_in_front_of_half_a_segment() {
    let (mut pool, mut queue) = (Pool::new(0), WriteQueue::new());
    queue.write(&mut pool, b"half");
    queue.consume(&mut pool, 2);
    queue.write_front(&mut pool, b"front");
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

/// A byte of the model: known, or somewhere in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    FromMemory(u8),
    FromFile(u64),
}

fn in_memory(bytes: &[u8]) -> impl Iterator<Item = Sent> {
    bytes.iter().map(|byte| Sent::FromMemory(*byte))
}

proptest! {
    #[test]
    fn it_sends_what_a_vec_would(steps in prop::collection::vec((0..10u8, 0..12_000usize), 1..80)) {
        static BYTES: [u8; 12_000] = [7; 12_000];
        let file = Arc::clone(range(0, 0).file());
        let (mut pool, mut queue) = (Pool::new(1 << 20), WriteQueue::new());
        let mut model = Vec::new();
        for (step, (kind, bytes)) in steps.into_iter().enumerate() {
            let piece = vec![step as u8; bytes];
            let offset = (step as u64) << 32;
            match kind {
                0 => queue.write(&mut pool, &piece),
                1 => queue.write(&mut pool, &piece[..bytes % 200]),
                2 => queue.write_static(&mut pool, &BYTES[..bytes]),
                3 => queue.write_shared(&mut pool, Bytes::from(piece.clone())),
                4 | 5 => queue.append(&mut pool, bytes % 500, |out| out.extend_from_slice(&piece[..bytes / 8])),
                6 => queue.write_file(&mut pool, FileRange::new(file.clone(), offset, bytes as u64)),
                7 if queue.chain.as_ref().is_some_and(|chain| chain.first_sent > 0) => continue,
                7 => queue.write_front(&mut pool, &piece),
                _ => queue.consume(&mut pool, bytes.min(model.len())),
            }
            match kind {
                0 | 3 => model.extend(in_memory(&piece)),
                1 => model.extend(in_memory(&piece[..bytes % 200])),
                2 => model.extend(in_memory(&BYTES[..bytes])),
                4 | 5 => model.extend(in_memory(&piece[..bytes / 8])),
                6 => model.extend((offset..offset + bytes as u64).map(Sent::FromFile)),
                7 => drop(model.splice(..0, in_memory(&piece))),
                _ => drop(model.drain(..bytes.min(model.len()))),
            }
            prop_assert_eq!((queue.queued_bytes(), queue.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(queue.chain.is_none(), model.is_empty(), "owns something only for bytes");
            let front: Vec<Sent> = in_memory(queue.front()).collect();
            let part = queue.front_file().map_or(0..0, |part| part.offset..part.offset + part.length as u64);
            prop_assert!(model.starts_with(&front));
            prop_assert!(model.starts_with(&part.clone().map(Sent::FromFile).collect::<Vec<_>>()));
            prop_assert_eq!(front.is_empty() && part.is_empty(), model.is_empty());
            prop_assert!(front.is_empty() || part.is_empty());
            prop_assert_eq!(queue.is_single(), !model.is_empty() && front.len() == model.len());
            let first_file = model.iter().position(|byte| matches!(byte, Sent::FromFile(_)));
            prop_assert_eq!(queue.has_file(), first_file.is_some());
            let up_to_file: Vec<Sent> = in_memory(&all(&queue)).collect();
            prop_assert_eq!(up_to_file, &model[..first_file.unwrap_or(model.len())]);
        }
        queue.clear(&mut pool);
        prop_assert_eq!(Arc::strong_count(&file), 1, "no file is kept open");
        let counts = pool.counts();
        prop_assert_eq!(counts.hits + counts.misses, counts.returned + counts.dropped, "all blocks are back");
        prop_assert!(counts.chain_misses <= 1);
    }
}
