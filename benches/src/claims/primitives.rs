//! What locks, counters and dispatch cost on this machine, timed in a loop.
//!
//! Each figure is the median of several short runs. The loops do nothing else, so these are the costs at their most
//! crowded; the criterion benches have the same and more with statistics.

use benches::runner::median;
use netpoll_http::router::{Found, Params, Table};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, RwLock};
use std::time::Instant;

const RUNS: usize = 9;
const TURNS: u64 = 1_000_000;

/// Nanoseconds of one `turn` while this many threads are at it, of the slowest of them.
fn time(threads: usize, turn: impl Fn(u64) + Sync) -> f64 {
    let start = Barrier::new(threads);
    let one = || {
        start.wait();
        let begin = Instant::now();
        (0..TURNS).for_each(&turn);
        begin.elapsed().as_nanos() as f64 / TURNS as f64
    };
    let run = || {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
            others.into_iter().map(|other| other.join().expect("a turn does not panic")).fold(one(), f64::max)
        })
    };
    median(&(0..RUNS).map(|_| run()).collect::<Vec<_>>()).unwrap_or(f64::NAN)
}

/// Lock and unlock, add one: `(alone, with two threads)` in ns.
pub fn mutex() -> (f64, f64) {
    let number = Mutex::new(0_u64);
    let turn = |_| *number.lock().expect("nobody panics") += 1;
    (time(1, turn), time(2, turn))
}

/// Lock to read.
pub fn rw_lock() -> (f64, f64) {
    let number = RwLock::new(0_u64);
    let turn = |_| {
        black_box(*number.read().expect("nobody panics"));
    };
    (time(1, turn), time(2, turn))
}

/// Add one.
pub fn atomic() -> (f64, f64) {
    let number = AtomicU64::new(0);
    let turn = |_| {
        number.fetch_add(1, Ordering::Relaxed);
    };
    (time(1, turn), time(2, turn))
}

/// Data that two threads read nine times in ten, and write else: ns of a turn under a `Mutex` and an `RwLock`.
pub fn read_mostly() -> (f64, f64) {
    let map: HashMap<u64, u64> = (0..64).map(|key| (key, key)).collect();
    let (mutex, rw_lock) = (Mutex::new(map.clone()), RwLock::new(map));
    let under_mutex = |nth: u64| {
        let mut map = mutex.lock().expect("nobody panics");
        if nth.is_multiple_of(10) {
            map.insert(nth % 64, nth);
        } else {
            black_box(map.get(&(nth % 64)));
        }
    };
    let under_rw_lock = |nth: u64| {
        if nth.is_multiple_of(10) {
            rw_lock.write().expect("nobody panics").insert(nth % 64, nth);
        } else {
            black_box(rw_lock.read().expect("nobody panics").get(&(nth % 64)));
        }
    };
    (time(2, under_mutex), time(2, under_rw_lock))
}

type Handler = Box<dyn Fn(&str) -> usize + Send + Sync>;

const PATHS: [&str; 12] = [
    "/login",
    "/me",
    "/orders",
    "/orders/latest",
    "/plaintext",
    "/json",
    "/echo",
    "/healthz",
    "/stats",
    "/users",
    "/rooms/list",
    "/rooms/members",
];

netpoll_http::route_table! {
    struct Routes {
        GET "/login", GET "/me", GET "/orders", GET "/orders/latest", GET "/plaintext", GET "/json", GET "/echo",
        GET "/healthz", GET "/stats", GET "/users", GET "/rooms/list", GET "/rooms/members"
    }
}

/// Finding a handler and calling it: `(HashMap of boxed functions, a table of routes!)` in ns.
pub fn dispatch() -> (f64, f64) {
    let map: HashMap<String, Handler> = PATHS
        .iter()
        .map(|path| {
            let handler: Handler = Box::new(|path: &str| black_box(path.len()));
            ((*path).to_owned(), handler)
        })
        .collect();
    // An order that no branch predictor learns by heart in a few turns.
    let order: Vec<&str> = (0..4096_usize).map(|nth| PATHS[nth * 7919 % 4099 % PATHS.len()]).collect();
    let path = |nth: u64| black_box(order[nth as usize % order.len()]);
    let by_map = time(1, |nth| {
        let path = path(nth);
        black_box(map.get(path).map_or(0, |handler| handler(path)));
    });
    let by_table = time(1, |nth| {
        let path = path(nth);
        if let Found::Route(_) = Routes::find("GET", path, &mut Params::new()) {
            black_box(path.len());
        }
    });
    (by_map, by_table)
}
