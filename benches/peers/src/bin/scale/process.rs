//! What the kernel says of a process and of those that it has started: run time of each thread, in nanoseconds, exact.

use std::collections::BTreeMap;
use std::fs;

use crate::Failure;

/// Run time of each thread, by its number.
pub type Threads = BTreeMap<u32, u64>;

/// Of a process and its children, which is what nginx serves with.
///
/// # Errors
/// The process is gone.
pub fn threads(pid: u32) -> Result<Threads, Failure> {
    let mut threads = of(pid)?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if parent(other) == Some(pid) {
            // It may have ended since.
            threads.extend(of(other).unwrap_or_default());
        }
    }
    Ok(threads)
}

fn of(pid: u32) -> Result<Threads, Failure> {
    let mut threads = Threads::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let run = text.split_whitespace().next().ok_or("a short schedstat")?;
        threads.insert(thread, run.parse()?);
    }
    Ok(threads)
}

/// The fourth field of `/proc/PID/stat`; the second is a name in brackets that may have blanks in it.
fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// What was added since, of each thread that is there at the end.
pub fn since(after: &Threads, before: &Threads) -> Vec<u64> {
    after.iter().map(|(thread, ns)| ns.saturating_sub(before.get(thread).copied().unwrap_or(0))).collect()
}

/// How even the work was: the least busy worker as a share of the busiest. More threads than workers are not looked at, and a worker
/// without a thread had nothing to do.
pub fn evenness(mut ns: Vec<u64>, workers: usize) -> f64 {
    ns.sort_unstable_by(|a, b| b.cmp(a));
    ns.resize(workers, 0);
    match (ns.first(), ns.last()) {
        (Some(&most @ 1..), Some(&least)) => least as f64 / most as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenness_looks_at_the_workers_alone() {
        assert!((evenness(vec![3, 100, 50], 2) - 0.5).abs() < 1e-9);
        assert!((evenness(vec![70], 1) - 1.0).abs() < 1e-9);
        assert!(evenness(vec![70], 2).abs() < 1e-9);
    }

    #[test]
    fn this_process_is_seen_at_work() {
        let before = threads(std::process::id()).expect("it runs");
        let mut sum = 0_u64;
        while since(&threads(std::process::id()).expect("it runs"), &before).iter().sum::<u64>() == 0 {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
