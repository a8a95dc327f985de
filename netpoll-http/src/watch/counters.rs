//! What one worker counts of its requests, in memory that only it writes.
//!
//! A count is a load and a store, without a lock and without a line of the cache that another worker writes. Who reads adds up
//! those of all workers, which may be a request apart from each other.
//!
//! Invariant: each counter has one writer, and only grows.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::h1::{Completed, Outcome};

/// Upper bounds of the histogram of times, in seconds: from what one turn takes to the default deadline of a handler and beyond.
pub const BOUNDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Classes of status: 1xx to 5xx, and no answer.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Routes of one service that have figures of their own. What is routed by others counts as without a route.
pub const ROUTES_MAX: u32 = 4096;

/// Of one route.
#[derive(Default)]
pub struct OfRoute {
    pub classes: [AtomicU64; CLASSES.len()],
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// The last is what took longer than all bounds.
    pub buckets: [AtomicU64; BOUNDS.len() + 1],
    pub nanos: AtomicU64,
}

/// Of one worker, for one service.
#[derive(Default)]
pub struct Shard {
    /// By pattern; empty for what found no route.
    routes: Mutex<Vec<(Box<str>, Arc<OfRoute>)>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Shard {
    /// Shows all routes that were asked for.
    pub fn each_route(&self, mut look: impl FnMut(&str, &OfRoute)) {
        for (pattern, figures) in self.routes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            look(pattern, figures);
        }
    }

    /// How many requests had this outcome.
    pub fn with(&self, outcome: Outcome) -> u64 {
        place(outcome).map_or(0, |at| self.outcomes[at].load(Relaxed))
    }

    fn begin_route(&self, pattern: &str) -> Arc<OfRoute> {
        let figures = Arc::new(OfRoute::default());
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.push((pattern.into(), Arc::clone(&figures)));
        figures
    }
}

#[inline]
fn place(outcome: Outcome) -> Option<usize> {
    // The first of them, and of most requests.
    if outcome == Outcome::Answered { Some(0) } else { place_slowly(outcome) }
}

#[cold]
fn place_slowly(outcome: Outcome) -> Option<usize> {
    Outcome::ALL.iter().position(|known| *known == outcome)
}

/// By the one writer.
fn add(counter: &AtomicU64, figure: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(figure), Relaxed);
}

/// A worker's way to its counters.
pub struct Counting {
    shard: Arc<Shard>,
    without_route: Arc<OfRoute>,
    /// By the number of the route.
    by_route: RefCell<Vec<Option<Arc<OfRoute>>>>,
}

impl Counting {
    pub fn new(shard: Arc<Shard>) -> Self {
        let without_route = shard.begin_route("");
        Self { shard, without_route, by_route: RefCell::default() }
    }

    pub fn count(&self, done: &Completed<'_>) {
        if let Some(at) = place(done.outcome) {
            add(&self.shard.outcomes[at], 1);
        }
        match (done.route_id, done.route) {
            (Some(route), Some(pattern)) if route.0 < ROUTES_MAX => {
                let at = route.0 as usize;
                if let Some(Some(figures)) = self.by_route.borrow().get(at) {
                    return figures.count(done);
                }
                self.begin_route(at, pattern).count(done);
            }
            _ => self.without_route.count(done),
        }
    }

    #[cold]
    fn begin_route(&self, at: usize, pattern: &str) -> Arc<OfRoute> {
        let figures = self.shard.begin_route(pattern);
        let mut by_route = self.by_route.borrow_mut();
        if by_route.len() <= at {
            by_route.resize(at + 1, None);
        }
        by_route[at] = Some(Arc::clone(&figures));
        figures
    }
}

impl OfRoute {
    #[inline(always)]
    fn count(&self, done: &Completed<'_>) {
        add(&self.classes[class(done)], 1);
        add(&self.bytes_in, done.bytes_in);
        add(&self.bytes_out, done.bytes_out);
        if !done.outcome.is_sent() {
            return;
        }
        if done.took_no_time {
            add(&self.buckets[0], 1);
        } else {
            self.count_time(done.total());
        }
    }

    #[inline(never)]
    fn count_time(&self, time: Duration) {
        add(&self.buckets[bucket(time)], 1);
        add(&self.nanos, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

#[inline(always)]
fn class(done: &Completed<'_>) -> usize {
    match done.status.map(|status| status.as_u16()) {
        Some(200..300) => 1,
        Some(status) => usize::from(status / 100).clamp(1, 5) - 1,
        None => 5,
    }
}

fn bucket(time: Duration) -> usize {
    BOUNDS.partition_point(|bound| *bound < time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let of = |micros| bucket(Duration::from_micros(micros));
        assert_eq!((of(0), of(100), of(101), of(1000)), (0, 0, 1, 3));
        assert_eq!((of(60_000_000), of(60_000_001)), (15, 16));
    }
}
