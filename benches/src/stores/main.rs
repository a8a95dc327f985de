//! `cargo bench-stores`: the sharded key-value store of the examples beside a real `redis-server`, driven by `redis-benchmark`.
//!
//! Each server runs on core 0, `redis-benchmark` on core 1, with the same connections and pipelines. In each round
//! every server gets one run of SET and one of GET on random keys, in an order of its own; the server's CPU time is read from
//! /proc just before and just after. A third contestant is the store with two shards on the one core: half of the requests
//! of each batch go to the other worker and back. What is printed is the CPU time of an operation, median and 95 %
//! confidence interval of the kept rounds, its ratio to Redis in the same round, and the operations a second that
//! the client saw.
//!
//! Needs Debian's package `redis-server`, which has both programs; without them it says so and ends well.
//!
//! Options (defaults in brackets): `--rounds` \[31\] kept rounds; `--requests` \[200000\] of each run; `--connections` \[50\];
//! `--pipeline` \[16\]; `--keys` \[100000\]; `--bytes` \[3\] of a value; `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a
//! core at which a round is dropped; `--json` one object per row; `--programs DIR` use the programs there and build
//! nothing; `--verbose` progress on standard error;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].
//! Exit status: 0 below Redis, or skipped; 1 not below, or too noisy to say; 2 could not measure.

use benches::runner::{
    Conditions, CpuTime, Failure, Figure, LOAD_CPU, SERVER_CPU, Sample, Server, Template, build, digits, run,
};
use benches::{known_options, option, sys};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const OPTIONS: [&str; 9] = [
    "--rounds",
    "--requests",
    "--connections",
    "--pipeline",
    "--keys",
    "--bytes",
    "--steal-max",
    "--other-max",
    "--programs",
];

/// SET first: GET finds what it has stored.
const WORKLOADS: [&str; 2] = ["SET", "GET"];

/// Redis is the scale.
const REDIS: usize = 0;

fn main() -> ExitCode {
    match measure() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("stores: {error}");
            ExitCode::from(2)
        }
    }
}

/// What `redis-benchmark` is asked for.
struct Load {
    requests: u32,
    connections: u32,
    pipeline: u32,
    keys: u32,
    bytes: u32,
}

/// One run against one server.
#[derive(Clone, Copy, Default)]
struct Run {
    cpu_ns_per_operation: f64,
    operations_per_second: f64,
}

/// The turn of one server in one round: a run of each workload.
struct Turn {
    runs: [Run; WORKLOADS.len()],
    cpu_seconds: f64,
}

impl Sample for Turn {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }
}

fn measure() -> Result<ExitCode, Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &OPTIONS, &["--json", "--verbose"])?;
    let has = |switch: &str| args.iter().any(|arg| arg == switch);
    for program in ["redis-server", "redis-benchmark"] {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            println!("skipped: {program} is not installed (apt-get install redis-server)");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31_usize)?.clamp(1, 999),
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let load = Load {
        requests: option(&args, "--requests", 200_000)?.clamp(1_000, 100_000_000),
        connections: option(&args, "--connections", 50)?.clamp(1, 10_000),
        pipeline: option(&args, "--pipeline", 16)?.clamp(1, 1_000),
        keys: option(&args, "--keys", 100_000)?.clamp(1, 1_000_000),
        bytes: option(&args, "--bytes", 3)?.clamp(1, 100_000),
    };
    let programs = match has("--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "examples", "--bin", "key_value_store"]])?,
    };
    sys::pin_current_thread(&[LOAD_CPU])?;

    let store = programs.join("key_value_store").display().to_string();
    let redis = "redis-server --bind 127.0.0.1 --port {port} --save \"\" --appendonly no --daemonize no";
    let contestants = [
        ("redis-server", redis.to_owned()),
        ("key_value_store", format!("{store} 127.0.0.1:{{port}} --workers 1")),
        ("key_value_store, 2 shards", format!("{store} 127.0.0.1:{{port}} --workers 2")),
    ];
    let servers = contestants.iter().map(|(name, command)| {
        let template = Template { name: (*name).to_owned(), command: command.clone(), configuration: None };
        Server::start_on(&[SERVER_CPU], &template, "", ping)
    });
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    // Caches, tables and the memory of each are warm, and all keys are there.
    for server in &servers {
        load.turn(server)?;
        load.turn(server)?;
    }
    let (rounds, kept) = run(&conditions, servers.len(), |nth| load.turn(&servers[nth]))?;

    let mut is_below = true;
    for (workload, name) in WORKLOADS.iter().enumerate() {
        for (nth, (contestant, _)) in contestants.iter().enumerate() {
            let of = |value: &dyn Fn(&[Turn]) -> f64| {
                Figure::of(&rounds.iter().map(|round| value(round)).collect::<Vec<_>>())
            };
            let cpu = |round: &[Turn], nth: usize| round[nth].runs[workload].cpu_ns_per_operation;
            let nanos =
                of(&|round| cpu(round, nth)).ok_or("no round was quiet; see --steal-max and --other-max")?;
            let ratio = of(&|round| cpu(round, nth) / cpu(round, REDIS)).ok_or("no round")?;
            let speed = of(&|round| round[nth].runs[workload].operations_per_second).ok_or("no round")?;
            is_below &= nth != 1 || ratio.high < 1.0;
            if has("--json") {
                let (nanos, ratio, speed) = (nanos.to_json(), ratio.to_json(), speed.to_json());
                println!(
                    "{}",
                    json!({
                        "workload": name, "server": contestant, "cpu_ns_per_operation": nanos, "ratio_to_redis": ratio,
                        "operations_per_second": speed,
                    })
                );
            } else {
                println!(
                    "{name}  {contestant:<26} {:>6} ns CPU ({}..{})   {:.3} of Redis ({:.3}..{:.3})   {:>9.0} operations/s",
                    digits(nanos.median),
                    digits(nanos.low),
                    digits(nanos.high),
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    speed.median
                );
            }
        }
    }
    if !has("--json") {
        println!(
            "{} rounds kept, {} dropped; {} requests, {} connections, pipelines of {}, {} keys, values of {} bytes",
            kept.kept, kept.dropped, load.requests, load.connections, load.pipeline, load.keys, load.bytes
        );
    }
    Ok(if is_below && kept.kept >= conditions.rounds / 2 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Load {
    /// Each workload once.
    fn turn(&self, server: &Server) -> Result<Turn, Failure> {
        let mut turn = Turn { runs: Default::default(), cpu_seconds: 0.0 };
        for (run, workload) in turn.runs.iter_mut().zip(WORKLOADS) {
            let mut command = Command::new("redis-benchmark");
            command.args(["-p", &server.port.to_string(), "-t", &workload.to_lowercase(), "--csv"]);
            for (option, value) in [
                ("-n", self.requests),
                ("-c", self.connections),
                ("-P", self.pipeline),
                ("-r", self.keys),
                ("-d", self.bytes),
            ] {
                command.args([option, &value.to_string()]);
            }
            let (client_before, before) = (sys::children_cpu_time()?, CpuTime::of(server.pid())?);
            let output = sys::dies_with_us(&mut command).stdin(Stdio::null()).output()?;
            let spent = CpuTime::of(server.pid())?.since(before).total_ns;
            let client = sys::children_cpu_time()?.saturating_sub(client_before);
            let text = String::from_utf8(output.stdout)?;
            let row = text.lines().find(|line| line.starts_with(&format!("\"{workload}\"")));
            let speed = row.and_then(|row| row.split(',').nth(1)?.trim_matches('"').parse::<f64>().ok());
            let complaint = String::from_utf8_lossy(&output.stderr);
            let speed = speed.ok_or_else(|| format!("redis-benchmark says {text:?} {complaint:?}"))?;
            *run = Run {
                cpu_ns_per_operation: spent as f64 / f64::from(self.requests),
                operations_per_second: speed,
            };
            turn.cpu_seconds += Duration::from_nanos(spent).as_secs_f64() + client.as_secs_f64();
        }
        Ok(turn)
    }
}

/// Whether the server answers.
fn ping(port: u16) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"+PONG\r\n" => Ok(()),
        _ => Err(format!("an odd answer to PING after {:?}", begin.elapsed()).into()),
    }
}
