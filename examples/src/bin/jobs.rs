//! A job for each worker: a program that listens to nothing, spreads work, and adds up what comes back.
//!
//! `cargo run --release --bin jobs` counts primes, a range for each worker. Each job is a task of its worker, which gives way now and then, so that
//! the worker could serve connections meanwhile; what takes longer without giving way belongs on `blocking::spawn_blocking`.

use std::io;
use std::ops::Range;
use std::time::Instant;

use netpoll_core::Runtime;
use netpoll_core::task::yield_now;

const UP_TO: u64 = 200_000;
/// Numbers that are looked at before others have their turn.
const SLICE: u64 = 500;

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

async fn primes(range: Range<u64>) -> usize {
    let mut count = 0;
    let mut from = range.start;
    while from < range.end {
        let to = (from + SLICE).min(range.end);
        count += (from..to).filter(|number| is_prime(*number)).count();
        from = to;
        yield_now().await;
    }
    count
}

fn main() -> io::Result<()> {
    let began = Instant::now();
    let (backend, _) = examples::words()?;
    let runtime = Runtime::builder().backend(backend).start()?;
    let handle = runtime.handle();
    let workers = handle.workers() as u64;
    let share = UP_TO.div_ceil(workers);
    let jobs: Vec<_> = (0..workers)
        .map(|worker| {
            let range = worker * share..((worker + 1) * share).min(UP_TO);
            handle.spawn_on(worker as usize, move || primes(range))
        })
        .collect();
    let mut count = 0;
    for job in jobs {
        count += job.join().map_err(io::Error::other)?;
    }
    println!("{count} primes below {UP_TO}, by {workers} workers in {:?}", began.elapsed());
    runtime.stop(std::time::Duration::from_secs(1))?;
    Ok(())
}
