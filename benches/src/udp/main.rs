//! `cargo bench-udp`: the name server of the examples beside others with the same parser and zone, over UDP.
//!
//! It builds what it needs, starts each server on core 0, with one thread, and asks from core 1. In each round each server has one
//! window under the same load; what is counted is the CPU time of the server, as the scheduler measured it, and the
//! answers, each of which is checked. The ratio to the floor (`dns-floor`, a blocking socket) is taken within each round. System calls
//! are counted by perf or strace in a run of their own; strace slows the server, so that more waits for each of its turns.
//!
//! On loopback a sender also pays for the receiving side of its datagrams, so an answer costs what the client's socket takes of it.
//!
//! Options (defaults in brackets): `--rounds` \[41\] kept rounds; `--seconds` \[0.05\] of each window; `--steal-max` \[0.05\] and
//! `--other-max` \[0.10\] shares of a core at which a round is dropped; `--programs DIR` use the programs there and build nothing;
//! `--verbose` progress on standard error;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].

mod client;

use benches::runner::{
    Conditions, CpuTime, Failure, Figure, Sample, Server, Template, build, digits, run, traced_by,
};
use benches::{known_options, option, sys};
use client::{Client, Load};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const OPTIONS: [&str; 5] = ["--rounds", "--seconds", "--steal-max", "--other-max", "--programs"];

const LOADS: [Load; 4] = [
    Load { name: "1 question at a time", clients: 1, window: 1 },
    Load { name: "64 clients, 1 each", clients: 64, window: 1 },
    Load { name: "1 client, 64 at once", clients: 1, window: 64 },
    Load { name: "8 clients, 8 at once", clients: 8, window: 8 },
];

/// What one server did in one window.
struct Turn {
    answers: u64,
    cpu_ns: u64,
    seconds: f64,
    client_seconds: f64,
}

impl Turn {
    fn ns(&self) -> f64 {
        self.cpu_ns as f64 / self.answers as f64
    }
}

impl Sample for Turn {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu_ns as f64 / 1e9 + self.client_seconds
    }
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &OPTIONS, &["--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let programs = if has("--programs") {
        option(&args, "--programs", PathBuf::new())?
    } else {
        let peers = ["-p", "benches", "--features", "peers", "--bin", "dns-floor", "--bin", "dns-tokio"];
        build(&[&peers, &["-p", "examples", "--bin", "dns"]])?
    };
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 41)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let window = Duration::from_secs_f64(option(&args, "--seconds", 0.05)?);
    let program = |name: &str, arguments: &str| Template {
        name: name.into(),
        command: format!("{} {arguments}", programs.join(name).display()),
        configuration: None,
    };
    // The floor is the first one.
    let templates = [
        program("dns-floor", "--port {port}"),
        program("dns", "127.0.0.1:{port} 1"),
        program("dns-tokio", "--port {port}"),
    ];
    println!(
        "| load | server | CPU per answer, ns | 95 % | against the floor | answers/s | system calls per answer |"
    );
    println!("|---|---|---:|---|---:|---:|---:|");
    for load in &LOADS {
        measure_load(load, &templates, &conditions, window)?;
    }
    Ok(())
}

fn measure_load(
    load: &Load,
    templates: &[Template],
    conditions: &Conditions,
    window: Duration,
) -> Result<(), Failure> {
    let mut ends = Vec::new();
    for template in templates {
        let probe = |port| Client::new(&Load { clients: 1, window: 1, ..*load }, port)?.run(Duration::ZERO);
        let once = |port| Client::new(load, port)?.run(Duration::from_millis(1)).map(drop);
        let server = Server::start_on(&[benches::runner::SERVER_CPU], template, "", |port| {
            probe(port)?;
            once(port)
        })?;
        let client = Client::new(load, server.port)?;
        ends.push((server, client));
    }
    for (_, client) in &mut ends {
        client.run(Duration::from_millis(200))?;
    }
    conditions.say(format_args!("{}", load.name));
    let (kept, rounds) = run(conditions, ends.len(), |nth| {
        let (server, client) = &mut ends[nth];
        let (cpu, own) = (CpuTime::of(server.pid())?, sys::thread_cpu_time()?);
        let begin = std::time::Instant::now();
        let answers = client.run(window)?;
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_ns = CpuTime::of(server.pid())?.since(cpu).total_ns;
        let client_seconds = (sys::thread_cpu_time()? - own).as_secs_f64();
        Ok(Turn { answers, cpu_ns, seconds, client_seconds })
    })?;
    for (nth, (server, client)) in ends.iter_mut().enumerate() {
        let of = |value: fn(&Turn) -> f64| kept.iter().map(|round| value(&round[nth])).collect::<Vec<_>>();
        let ratios: Vec<f64> = kept.iter().map(|round| round[nth].ns() / round[0].ns()).collect();
        let (Some(cpu), Some(ratio), Some(rate)) = (
            Figure::of(&of(Turn::ns)),
            Figure::of(&ratios),
            Figure::of(&of(|turn| turn.answers as f64 / turn.seconds)),
        ) else {
            return Err("no round was quiet enough".into());
        };
        let mut traced =
            |tracer| traced_by(tracer, server.pid(), || Ok(client.run(Duration::from_millis(500))? as f64));
        // strace stops the server at each call, so more waits for each of its turns.
        let calls = match traced("perf") {
            Ok(calls) => digits(calls),
            Err(_) => {
                traced("strace").map_or_else(|error| error.to_string(), |calls| digits(calls) + " (strace)")
            }
        };
        println!(
            "| {} | {} | {} | {} to {} | {:.2} | {:.0} | {calls} |",
            load.name,
            templates[nth].name,
            digits(cpu.median),
            digits(cpu.low),
            digits(cpu.high),
            ratio.median,
            rate.median,
        );
    }
    conditions.say(format_args!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped));
    Ok(())
}
