//! What threads share things by, alone and with a second thread at the same thing: why workers share nothing.
//!
//! With two threads each does the same number of steps, and the figure is the time of the slower one for one step.
//! On one core, or with neighbours, the two hardly meet, and the figure says little.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};

/// On a pair of cache lines of its own, because processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

#[derive(Default)]
struct Shared {
    mutex: Mutex<u64>,
    lock: RwLock<u64>,
    atomic: Shard,
    shards: [Shard; 2],
    locked_snapshot: RwLock<Arc<u64>>,
    snapshot: ArcSwap<u64>,
}

/// One step of the thread with this number.
type Step = fn(&Shared, usize);

// A poisoned lock cannot occur: no step panics.
const STEPS: [(&str, Step); 8] = [
    ("Mutex, count", |shared, _| *shared.mutex.lock().unwrap_or_else(PoisonError::into_inner) += 1),
    ("RwLock, count", |shared, _| *shared.lock.write().unwrap_or_else(PoisonError::into_inner) += 1),
    ("atomic, count", |shared, _| _ = shared.atomic.0.fetch_add(1, Ordering::Relaxed)),
    ("sharded, count", |shared, thread| _ = shared.shards[thread].0.fetch_add(1, Ordering::Relaxed)),
    ("RwLock, read", |shared, _| _ = black_box(*shared.lock.read().unwrap_or_else(PoisonError::into_inner))),
    ("atomic, read", |shared, _| _ = black_box(shared.atomic.0.load(Ordering::Acquire))),
    ("RwLock<Arc>, snapshot", |shared, _| {
        let snapshot = shared.locked_snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        black_box(*snapshot);
    }),
    ("ArcSwap, snapshot", |shared, _| _ = black_box(**shared.snapshot.load())),
];

pub fn one_thread(criterion: &mut Criterion) {
    let shared = Shared::default();
    let mut group = criterion.benchmark_group("primitives/one thread");
    for (name, step) in STEPS {
        group.bench_function(name, |bencher| bencher.iter(|| step(black_box(&shared), 0)));
    }
    group.finish();
}

pub fn two_threads(criterion: &mut Criterion) {
    let mut group: BenchmarkGroup<'_, WallTime> = criterion.benchmark_group("primitives/two threads");
    for (name, step) in STEPS {
        group.bench_function(name, |bencher| bencher.iter_custom(|steps| together(step, steps)));
    }
    group.finish();
}

/// How long two threads take that begin together, each for so many steps.
fn together(step: Step, steps: u64) -> Duration {
    let (shared, start) = (&Shared::default(), &Barrier::new(2));
    let run = move |thread: usize| {
        start.wait();
        let begin = Instant::now();
        for _ in 0..steps {
            step(black_box(shared), thread);
        }
        begin.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(move || run(1));
        run(0).max(other.join().unwrap_or_default())
    })
}
