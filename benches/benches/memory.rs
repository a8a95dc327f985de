//! Tables of connections and the blocks that they borrow.
//!
//! The key slab beside `slab`, whose keys do not notice when they are stale, and `slotmap`, whose keys do. The pool
//! beside the allocator.

use std::hint::black_box;

use criterion::Criterion;
use netpoll_core::internals::{Block, KeySlab, Pool};
use slab::Slab;
use slotmap::SlotMap;

/// A cache line, as a small connection.
type Value = [u64; 8];

const VALUE: Value = [7; 8];
const LIVE: usize = 1024;

pub fn a_value_comes_and_goes(criterion: &mut Criterion) {
    let (mut ours, mut slab, mut slotmap) = (KeySlab::new(1), Slab::new(), SlotMap::new());
    for _ in 0..LIVE {
        ours.insert_with(|_| VALUE);
        slab.insert(VALUE);
        slotmap.insert(VALUE);
    }
    let mut group = criterion.benchmark_group("slab/insert, get, remove");
    group.bench_function("KeySlab", |bencher| {
        bencher.iter(|| {
            let key = black_box(ours.insert_with(|_| black_box(VALUE))).expect("room");
            let sum = ours.get(key).map(|value| value[0]);
            ours.remove(black_box(key));
            ours.reclaim();
            sum
        });
    });
    group.bench_function("slab", |bencher| {
        bencher.iter(|| {
            let key = black_box(slab.insert(black_box(VALUE)));
            let sum = slab.get(key).map(|value| value[0]);
            slab.remove(black_box(key));
            sum
        });
    });
    group.bench_function("slotmap", |bencher| {
        bencher.iter(|| {
            let key = black_box(slotmap.insert(black_box(VALUE)));
            let sum = slotmap.get(key).map(|value| value[0]);
            slotmap.remove(black_box(key));
            sum
        });
    });
    group.finish();
}

pub fn a_value_is_found(criterion: &mut Criterion) {
    /// Looks for one key after the other, in steps that no prefetcher follows.
    struct Keys<K>(Vec<K>, usize);

    impl<K: Copy> Keys<K> {
        fn next(&mut self) -> K {
            self.1 = (self.1 + 389) % LIVE;
            black_box(self.0[self.1])
        }
    }

    let (mut ours, mut slab, mut slotmap) = (KeySlab::new(1), Slab::new(), SlotMap::new());
    let mut our_keys = Keys((0..LIVE).filter_map(|_| ours.insert_with(|_| VALUE)).collect(), 0);
    let mut slab_keys = Keys((0..LIVE).map(|_| slab.insert(VALUE)).collect(), 0);
    let mut slotmap_keys = Keys((0..LIVE).map(|_| slotmap.insert(VALUE)).collect(), 0);
    let mut group = criterion.benchmark_group("slab/get");
    group.bench_function("KeySlab", |bencher| {
        bencher.iter(|| ours.get(our_keys.next()).map(|value| value[0]))
    });
    group.bench_function("slab", |bencher| bencher.iter(|| slab.get(slab_keys.next()).map(|value| value[0])));
    group.bench_function("slotmap", |bencher| {
        bencher.iter(|| slotmap.get(slotmap_keys.next()).map(|value| value[0]));
    });
    group.finish();
}

pub fn a_block_is_taken_and_given_back(criterion: &mut Criterion) {
    const BURST: usize = 64;
    let mut pool = Pool::new(64 << 20);
    for bytes in [1024, 4096, 65536] {
        let mut group = criterion.benchmark_group(format!("pool/{} KiB", bytes / 1024));
        group.bench_function("one, Pool", |bencher| {
            bencher.iter(|| {
                let block = black_box(pool.take(black_box(bytes)));
                pool.give(block);
            });
        });
        group.bench_function("one, malloc", |bencher| {
            bencher.iter(|| drop(black_box(Vec::<u8>::with_capacity(black_box(bytes)))));
        });
        let mut blocks: Vec<Block> = Vec::with_capacity(BURST);
        group.bench_function("64 at once, Pool", |bencher| {
            bencher.iter(|| {
                blocks.extend((0..BURST).map(|_| black_box(pool.take(black_box(bytes)))));
                blocks.drain(..).for_each(|block| pool.give(block));
            });
        });
        let mut vecs: Vec<Vec<u8>> = Vec::with_capacity(BURST);
        group.bench_function("64 at once, malloc", |bencher| {
            bencher.iter(|| {
                vecs.extend((0..BURST).map(|_| black_box(Vec::with_capacity(black_box(bytes)))));
                vecs.clear();
            });
        });
        group.finish();
    }
}
