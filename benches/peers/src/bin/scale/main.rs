//! `cargo bench-scale`: what a server gains by more workers, beside others, on any Linux machine.
//!
//! One program is server, client and runner: it starts itself again, once for each server, and once more as a client. The CPUs are halved
//! by whole cores (`cpus.rs`): a server has 1, 2, 4 .. of the first half, with a worker on each, and the client always has the whole second half. All
//! serve `GET /plaintext` over 127.0.0.1, and every answer is checked. In each round each server is started, warmed up, measured for a
//! while and ended, in another order each time. Built with `--target x86_64-unknown-linux-musl` it needs nothing of the machine that
//! it is carried to (docs/BENCHMARKING.md).
//!
//! Options (defaults in brackets): `--workers LIST` \[1,2,4 .. and all of the half\]; `--only NAME,..` servers by parts of their names; `--rounds`
//! \[5\], up to 51; `--seconds` \[1\] of each window, 0.1 to 30; `--connections` \[64\] for each worker, up to 1024; `--depth` \[1\] requests that a
//! connection has on its way, up to 64; `--out DIR` \[scale-results\] for `scale.md`, `scale.json` and `scale.svg`; `--list` names the servers;
//! `--help`.
//!
//! | file | story |
//! |---|---|
//! | `cpus` | the two halves |
//! | `serve` | the servers |
//! | `ask` | the client |
//! | `measure` | a window, and rounds of them |
//! | `process` | what the kernel says of a process |
//! | `report` | table, JSON and chart |
//!
//! Exit status: 0 measured, 1 nobody could be measured, 2 not understood.

mod ask;
#[path = "../../../../src/suite/chart.rs"]
#[allow(dead_code, reason = "of the suite; there is no floor here, and no line across")]
mod chart;
mod cpus;
mod measure;
mod process;
mod report;
mod serve;

use std::error::Error;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use measure::Plan;
use serve::SERVERS;

/// For all, as in the suite: one allocator keeps it out of the comparison, and the one of musl is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("--serve") => serve::serve(&words[1..]).map(|()| true),
        Some("--ask") => ask::ask(&words[1..]).map(|()| true),
        _ => run(&words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> Result<bool, Failure> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        let lines = include_str!("main.rs").lines().map_while(|line| line.strip_prefix("//!"));
        lines.for_each(|line| println!("{}", line.trim_start().replace("\\[", "[").replace("\\]", "]")));
        return Ok(true);
    }
    if words.iter().any(|word| word == "--list") {
        SERVERS.iter().for_each(|server| println!("{:<16} {}", server.name, server.what));
        return Ok(true);
    }
    let known = ["--workers", "--only", "--rounds", "--seconds", "--connections", "--depth", "--out"];
    if let Some(unknown) = words.iter().step_by(2).find(|word| !known.contains(&word.as_str())) {
        return Err(format!("{unknown}: not understood; --help explains the options").into());
    }
    let halves = cpus::Halves::of_this_machine()?;
    let workers: Vec<usize> = match option(words, "--workers", String::new())? {
        list if list.is_empty() => halves.steps(),
        list => {
            let parsed: Result<_, _> = list.split(',').map(str::parse).collect();
            parsed.map_err(|error| format!("--workers {list}: {error}"))?
        }
    };
    if let Some(wrong) = workers.iter().find(|&&workers| !(1..=halves.servers.len()).contains(&workers)) {
        return Err(format!("--workers {wrong}: there are {} CPUs for servers", halves.servers.len()).into());
    }
    let only = option(words, "--only", String::new())?;
    let chosen: Vec<_> = SERVERS
        .iter()
        .filter(|server| only.is_empty() || only.split(',').any(|part| server.name.contains(part)))
        .collect();
    if chosen.is_empty() {
        return Err(format!("--only {only}: no such server; see --list").into());
    }
    let plan = Plan {
        rounds: within(words, "--rounds", 5, 1..=51)?,
        seconds: within(words, "--seconds", 1.0, 0.1..=30.0)?,
        connections: within(words, "--connections", 64, 1..=1024)?,
        depth: within(words, "--depth", 1, 1..=64)?,
        halves,
    };
    let out: PathBuf = option(words, "--out", "scale-results".to_owned())?.into();
    let results = measure::all(&plan, &workers, &chosen)?;
    let report = report::Report { plan: &plan, words, results: &results };
    report.write(&out)?;
    print!("{}", report.markdown());
    println!("\nwritten to {}", out.display());
    Ok(!results.rows.is_empty())
}

/// The value behind an option, or what it is without.
fn option<T: FromStr<Err: Display>>(words: &[String], name: &str, default: T) -> Result<T, Failure> {
    let Some(at) = words.iter().position(|word| word == name) else { return Ok(default) };
    let value = words.get(at + 1).ok_or_else(|| format!("{name} wants a value"))?;
    Ok(value.parse().map_err(|error| format!("{name} {value}: {error}"))?)
}

/// The same where not every value makes sense.
fn within<T>(words: &[String], name: &str, default: T, values: RangeInclusive<T>) -> Result<T, Failure>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let value = option(words, name, default)?;
    match values.contains(&value) {
        true => Ok(value),
        false => Err(format!("{name} {value}: it is {} to {}", values.start(), values.end()).into()),
    }
}
