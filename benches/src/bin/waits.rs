//! `cargo bench-waits`: what each way to wait for events costs and brings, by load.
//!
//! The mini-program with one worker, in a process for each way to wait (`--wait block|hybrid|spin`) on each driver, epoll and io_uring. Capacity is
//! what 64 connections in a closed loop get out of the slowest of them. Then requests are due at even intervals, at 10, 50 and 90 % of that: CPU time of a
//! request, how much of its core the server has, and latency from when the request was due. In each round each has a window, in another order each time,
//! and is compared with `block` on the same driver in the same round. The server has core 0, the client, which never sleeps, core 1.
//!
//! Options (defaults in brackets): `--rounds` \[11\] kept rounds at each load; `--seconds` \[0.5\] of each window; `--connections` \[64\]; `--path`
//! \[/plaintext\]; `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a core at which a round is dropped; `--verbose` progress on standard
//! error; `--programs DIR` use the programs there, which have both drivers, and build nothing.
//!
//! Exit status: 0 hybrid takes at most 3 % more CPU than block on each driver at each load, 1 it takes more, 2 could not measure.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::runner::{
    Conditions, Contestant, Failure, Figure, LOAD_CPU, Load, SERVER_CPU, Server, Template, Window, build,
    digits, get, percentiles, run,
};
use benches::{known_options, option, sys};

const OPTIONS: [&str; 7] =
    ["--rounds", "--seconds", "--connections", "--path", "--steal-max", "--other-max", "--programs"];
const DRIVERS: [&str; 2] = ["epoll", "uring"];
/// The first one is what the others are held against.
const WAYS: [&str; 3] = ["block", "hybrid", "spin"];
const HYBRID: usize = 1;
const SHARES: [f64; 3] = [0.1, 0.5, 0.9];
const HYBRID_MORE_MAX: f64 = 0.03;

fn main() -> ExitCode {
    measure().unwrap_or_else(|error| {
        eprintln!("waits: {error}");
        ExitCode::from(2)
    })
}

struct Plan {
    programs: PathBuf,
    path: String,
    connections: u32,
    seconds: f64,
    conditions: Conditions,
}

/// What one way came to at one load.
struct Outcome {
    total_us: f64,
    core: f64,
    /// CPU time of a request as a multiple of the first way's on the same driver.
    ratio: Figure,
    latency: [f64; 3],
}

fn measure() -> Result<ExitCode, Failure> {
    let args = benches::arguments(include_str!("waits.rs"));
    known_options(&args, &OPTIONS, &["--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let plan = Plan {
        programs: match has("--programs") {
            true => option(&args, "--programs", PathBuf::new())?,
            false => build(&[
                &["-p", "benches", "--bin", "load"],
                &["-p", "examples", "--bin", "mini-program", "--features", "netpoll-core/uring"],
            ])?,
        },
        path: option(&args, "--path", "/plaintext".to_owned())?,
        connections: option(&args, "--connections", 64)?,
        seconds: option(&args, "--seconds", 0.5)?,
        conditions: Conditions {
            rounds: option(&args, "--rounds", 11)?,
            steal_max: option(&args, "--steal-max", 0.05)?,
            other_max: option(&args, "--other-max", 0.10)?,
            verbose: has("--verbose"),
        },
    };
    sys::pin_current_thread(&[LOAD_CPU])?;
    let capacity = plan.capacity()?;
    println!("capacity: {} requests a second\n", digits(capacity));
    println!(
        "| load | driver | wait | CPU, us | beside block | 95 % | of its core | p50, us | p99 | p99.9 |\n\
         |---:|---|---|---:|---:|---|---:|---:|---:|---:|"
    );
    let mut holds = true;
    for share in SHARES {
        let outcomes = plan.outcomes(capacity * share)?;
        for (nth, Outcome { total_us, core, ratio, latency }) in outcomes.iter().enumerate() {
            let (driver, way) = (DRIVERS[nth / WAYS.len()], nth % WAYS.len());
            println!(
                "| {:.0} % | {driver} | {} | {total_us:.2} | {:.3} | {:.3} to {:.3} | {:.0} % | {} | {} | {} |",
                share * 100.0,
                WAYS[way],
                ratio.median,
                ratio.low,
                ratio.high,
                core * 100.0,
                digits(latency[0]),
                digits(latency[1]),
                digits(latency[2]),
            );
            holds &= way != HYBRID || ratio.median <= 1.0 + HYBRID_MORE_MAX;
        }
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Plan {
    fn contestants(&self, options: &str) -> Result<Vec<Contestant>, Failure> {
        let load = Load { programs: &self.programs, path: &self.path };
        let options = format!("--connections {} --spin --warmup 0.3 {options}", self.connections);
        let program = self.programs.join("mini-program");
        let start = |nth: usize| {
            let (driver, way) = (DRIVERS[nth / WAYS.len()], WAYS[nth % WAYS.len()]);
            let command = format!(
                "{} --addr 127.0.0.1:{{port}} --workers 1 --cpus {SERVER_CPU} --backend {driver} --wait {way}",
                program.display()
            );
            let template = Template { name: format!("{way} on {driver}"), command, configuration: None };
            // A process that may use one CPU alone has none to spare, and always blocks.
            let server = Server::start_on(&[SERVER_CPU, LOAD_CPU], &template, "", |port| {
                get(port, &self.path).map(drop)
            })?;
            Contestant::new(server, &load, &options, false)
        };
        (0..DRIVERS.len() * WAYS.len()).map(start).collect()
    }

    fn rounds(&self, options: &str) -> Result<Vec<Vec<Window>>, Failure> {
        let mut contestants = self.contestants(options)?;
        let (kept, _) =
            run(&self.conditions, contestants.len(), |nth| contestants[nth].window(self.seconds))?;
        if kept.is_empty() { Err("no round was quiet enough".into()) } else { Ok(kept) }
    }

    /// Requests a second of the slowest.
    fn capacity(&self) -> Result<f64, Failure> {
        let kept = self.rounds("")?;
        let rate = |nth: usize| {
            let rates: Vec<f64> = kept.iter().map(|round| round[nth].rate()).collect();
            Figure::of(&rates).map_or(0.0, |figure| figure.median)
        };
        Ok((0..kept[0].len()).map(rate).fold(f64::INFINITY, f64::min))
    }

    fn outcomes(&self, rate: f64) -> Result<Vec<Outcome>, Failure> {
        let kept = self.rounds(&format!("--rate {rate:.0} --histogram"))?;
        let outcome = |nth: usize| {
            let of = |figure: &dyn Fn(&[Window]) -> f64| {
                let figures: Vec<f64> = kept.iter().map(|round| figure(round)).collect();
                Figure::of(&figures).ok_or("no round")
            };
            let first = nth - nth % WAYS.len();
            let windows: Vec<&Window> = kept.iter().map(|round| &round[nth]).collect();
            Ok(Outcome {
                total_us: of(&|round| round[nth].total_us())?.median,
                core: of(&|round| round[nth].cpu.total_ns as f64 / 1e9 / round[nth].seconds)?.median,
                ratio: of(&|round| round[nth].total_us() / round[first].total_us())?,
                latency: percentiles(&windows, [0.5, 0.99, 0.999])?,
            })
        };
        (0..kept[0].len()).map(outcome).collect()
    }
}
