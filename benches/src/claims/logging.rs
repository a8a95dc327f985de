//! What a log costs: none, of one request in a hundred, of all by a thread of its own, and of all by the worker itself.
//!
//! The same servers as `cargo bench-watched` has, without the figures, names and traces of that; fewer rounds, and whatever else the
//! machine does is let pass.

use std::path::Path;

use benches::runner::{Conditions, Failure, digits};
use benches::watched::{LOGS, Plan, Way};

use super::{Claim, Verdict};

/// Requests a second of the client that asks at even intervals.
const RATE: u32 = 20_000;

pub fn claims(programs: &Path) -> Result<Vec<Claim>, Failure> {
    let conditions =
        Conditions { rounds: 11, steal_max: f64::INFINITY, other_max: f64::INFINITY, verbose: false };
    let directory = std::env::temp_dir();
    let plan = Plan { programs, directory: &directory, conditions, seconds: 0.2, rate: RATE };
    let ways: Vec<&Way> = LOGS.iter().collect();
    let (costs, _) = plan.costs(&ways)?;
    let latencies = plan.latencies(&ways)?;
    // What a core answers less in the same time.
    let lost = |nth: usize| 1.0 - 1.0 / costs[nth].ratio.median;
    let here = |nth: usize| {
        let [p50, p99] = [0, 1].map(|part: usize| latencies[nth][part] - latencies[0][part]);
        format!(
            "{:+.1} % of the requests of a core; {:+.0} us in the median and {:+.0} us at the 99th percentile at {RATE} requests a \
             second, which is {} us without a log",
            -100.0 * lost(nth),
            p50,
            p99,
            digits(latencies[0][1]),
        )
    };
    Ok(vec![
        Claim {
            says: "Synchronous logging takes 40 % of the throughput, and 15 ms.",
            here: here(3),
            verdict: Verdict::of(lost(3) >= 0.4),
            why: "a line of JSON for each request, written by the worker into a file; judged by the throughput, which is that of the \
                  smallest request there is",
        },
        Claim {
            says: "Asynchronous logging takes 8 % of the throughput, and 2 ms.",
            here: here(2),
            verdict: Verdict::of(lost(2) <= 0.08),
            why: "the same lines by AccessLog, whose thread has the core of the server",
        },
        Claim {
            says: "Sampled logging takes 3 % of the throughput, and 0.5 ms.",
            here: here(1),
            verdict: Verdict::of(lost(1) <= 0.03),
            why: "of those one in a hundred, AccessLog::sample(100); what went wrong always has its line",
        },
    ])
}
