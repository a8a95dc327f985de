//! Deadlines: the wheel beside an ordered map, with ten thousand connections that have one each.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use netpoll_core::internals::{Instant, Wheel};

const WAITING: u32 = 10_000;
const DUE: u32 = 1024;

/// The deadline and, to keep equal ones apart, who has it.
type Timers = BTreeMap<(Instant, u32), u32>;

/// A minute ahead, each some other millisecond.
fn deadline(timer: u32) -> Instant {
    Instant::ZERO.saturating_add(Duration::from_millis(60_000 + u64::from(timer.wrapping_mul(7919) % 60_000)))
}

pub fn a_timer_is_set_and_cancelled(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer/set and cancel");
    let mut wheel = Wheel::new();
    let mut map = Timers::new();
    for timer in 0..WAITING {
        wheel.insert(Instant::ZERO, deadline(timer), timer);
        map.insert((deadline(timer), timer), timer);
    }
    let mut timer = WAITING;
    group.bench_function("Wheel", |bencher| {
        bencher.iter(|| {
            timer = timer.wrapping_add(1);
            let key = wheel.insert(Instant::ZERO, black_box(deadline(timer)), timer);
            wheel.remove(black_box(key))
        });
    });
    group.bench_function("BTreeMap", |bencher| {
        bencher.iter(|| {
            // Never one of those that wait.
            timer = timer.wrapping_add(1).max(WAITING);
            let key = black_box((deadline(timer), timer));
            map.insert(key, timer);
            map.remove(&black_box(key))
        });
    });
    group.finish();
}

/// A thousand timers of one second, due one after the other.
pub fn timers_expire(criterion: &mut Criterion) {
    let due = |timer: u32| Instant::from_nanos(u64::from(timer.wrapping_mul(7919) % DUE) * 976_562 + 1);
    let end = Instant::ZERO.saturating_add(Duration::from_secs(2));
    let mut group = criterion.benchmark_group("timer/expire 1024");
    group.throughput(Throughput::Elements(u64::from(DUE)));
    group.bench_function("Wheel", |bencher| {
        let set = || {
            let mut wheel = Wheel::new();
            for timer in 0..DUE {
                wheel.insert(Instant::ZERO, due(timer), timer);
            }
            wheel
        };
        bencher.iter_batched_ref(
            set,
            |wheel| wheel.expire(end, usize::MAX, |timer| _ = black_box(timer)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("BTreeMap", |bencher| {
        let set = || (0..DUE).map(|timer| ((due(timer), timer), timer)).collect::<Timers>();
        let expire = |map: &mut Timers| {
            while let Some(first) = map.first_entry().filter(|first| first.key().0 <= end) {
                black_box(first.remove());
            }
        };
        bencher.iter_batched_ref(set, expire, BatchSize::SmallInput);
    });
    group.finish();
}
