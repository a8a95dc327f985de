//! `cargo bench-watched`: what it costs a server to be watched, by logs, figures, names of requests and traces.
//!
//! The same service in four processes, watched in no way; by figures and a JSON line for one request in a hundred; by figures, names, traces and a
//! line for each; and by all of that with a log that the worker writes itself, a `write(2)` for each line. CPU time of a request in a
//! closed loop of 64 connections, as a multiple of the first in the same round, of which the part in user space by the kernel's
//! sampling clock; and latency at an even rate. The server has core 0, with the thread of the log, the client core 1. The logs are
//! files without a name in `--directory`.
//!
//! Options (defaults in brackets): `--rounds` \[31\] kept rounds; `--seconds` \[0.25\] of each window; `--rate` \[20000\] requests a
//! second; `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a core at which a round is dropped; `--directory` \[that for temporary
//! files\]; `--alone` each thing by itself as well; `--count-only` instructions of all of them under callgrind, and no time; `--verbose`
//! progress on standard error; `--programs DIR` use the programs there and build nothing; `--backend auto|epoll|uring|mio` what they run on
//! \[their own choice\].
//!
//! Exit status: 0 sampled takes at most 3 % more and all of it at most 8 %, 1 it takes more, 2 could not measure.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::runner::{Conditions, Failure, LOAD_CPU, Rounds, build, digits};
use benches::watched::{ALL_MORE_MAX, ALONE, Cost, LADDER, LOGS, Plan, SAMPLED_MORE_MAX, Way, serve};
use benches::{known_options, option, sys};

const OPTIONS: [&str; 9] = [
    "--rounds",
    "--seconds",
    "--rate",
    "--steal-max",
    "--other-max",
    "--directory",
    "--programs",
    "--serve",
    "--port",
];
const SWITCHES: [&str; 3] = ["--alone", "--count-only", "--verbose"];

fn main() -> ExitCode {
    measure().unwrap_or_else(|error| {
        eprintln!("watched: {error}");
        ExitCode::from(2)
    })
}

fn measure() -> Result<ExitCode, Failure> {
    let args = benches::runner::arguments(include_str!("watched.rs"))?;
    known_options(&args, &OPTIONS, &SWITCHES)?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let directory: PathBuf = match has("--directory") {
        true => option(&args, "--directory", PathBuf::new())?,
        false => std::env::temp_dir(),
    };
    if has("--serve") {
        serve(&option(&args, "--serve", String::new())?, option(&args, "--port", 8080)?, &directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let programs = match has("--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "benches", "--bin", "load", "--bin", "watched"]])?,
    };
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let (seconds, rate) = (option(&args, "--seconds", 0.25)?, option(&args, "--rate", 20_000)?);
    let plan = Plan { programs: &programs, directory: &directory, conditions, seconds, rate };
    let ladder: Vec<&Way> = LADDER.iter().collect();
    let everything: Vec<&Way> = LADDER.iter().chain(&LOGS[1..]).chain(&ALONE).collect();
    if has("--count-only") {
        count(&plan, &everything)?;
        return Ok(ExitCode::SUCCESS);
    }
    sys::pin_current_thread(&[LOAD_CPU])?;
    let ways = if has("--alone") { &everything } else { &ladder };
    let (costs, rounds) = plan.costs(ways)?;
    let latencies = plan.latencies(ways)?;
    print(ways, &costs, &latencies, rate, rounds);
    Ok(if holds(&costs) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(ways: &[&Way], costs: &[Cost], latencies: &[[f64; 2]], rate: u32, rounds: Rounds) {
    println!(
        "| watched by | CPU, us | beside off | 95 % | user, us | more than off | p50 at {rate}/s, us | p99 |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---:|");
    for ((way, cost), [p50, p99]) in ways.iter().zip(costs).zip(latencies) {
        let Cost { total_us, ratio, user } = cost;
        println!(
            "| {} | {:.2} | {:.3} | {:.3} to {:.3} | {:.3} ± {:.3} | {:+.3} | {} | {} |",
            way.title,
            total_us.median,
            ratio.median,
            ratio.low,
            ratio.high,
            user.us_per_request,
            user.us_per_request * user.error,
            user.us_per_request - costs[0].user.us_per_request,
            digits(*p50),
            digits(*p99),
        );
    }
    println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
    let ratio = |nth: usize| costs[nth].ratio.median;
    let is_in_order = (1..LADDER.len()).all(|nth| ratio(nth - 1) < ratio(nth));
    println!(
        "sampled {:+.1} % (at most {:+.0} %), all {:+.1} % (at most {:+.0} %), synchronous {:+.1} %: {}",
        (ratio(1) - 1.0) * 100.0,
        SAMPLED_MORE_MAX * 100.0,
        (ratio(2) - 1.0) * 100.0,
        ALL_MORE_MAX * 100.0,
        (ratio(3) - 1.0) * 100.0,
        if is_in_order { "in this order" } else { "not in this order" },
    );
}

fn holds(costs: &[Cost]) -> bool {
    costs[1].ratio.median <= 1.0 + SAMPLED_MORE_MAX && costs[2].ratio.median <= 1.0 + ALL_MORE_MAX
}

fn count(plan: &Plan<'_>, ways: &[&Way]) -> Result<(), Failure> {
    println!("| watched by | instructions | more than off |\n|---|---:|---:|");
    let mut off = None;
    for way in ways {
        let instructions = plan.instructions(way)?;
        let off = *off.get_or_insert(instructions);
        println!("| {} | {instructions:.0} | {:+.0} |", way.title, instructions - off);
    }
    Ok(())
}
