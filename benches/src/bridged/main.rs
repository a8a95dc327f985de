//! `cargo bench-bridged`: hyper and axum on netpoll beside the same on current-thread tokio, over HTTP/1.1 and HTTP/2.
//!
//! One program, `benches/peers/src/bin/bridged.rs`, serves all four. Over HTTP/1.1 the load client keeps 64 connections with one request on its way
//! on each, spins and checks every answer; over HTTP/2 it is `h2load` with 16 connections and 8 streams on each, which looks at the
//! status. The server has core 0, the client core 1. In each round each server has one window, in another order each time; CPU time
//! is the scheduler's, user time is told apart by the kernel's sampling clock. Ratios of the whole are taken within each round, and those of
//! user time between sums. Instructions are those of user space, by callgrind with few and with many requests.
//!
//! Needs `h2load` (nghttp2) for HTTP/2 and for instructions, and `valgrind` for these; without them it says what it leaves out.
//!
//! Options (defaults in brackets): `--rounds` \[31\] kept rounds; `--seconds` \[0.1\] of each window over HTTP/1.1; `--requests` \[10000\] of each
//! window over HTTP/2; `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a core at which a round is dropped; `--count-only`
//! instructions, and no time; `--time-only` the other way round; `--verbose` progress on standard error;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].

mod h2load;

use std::process::ExitCode;

use benches::runner::{
    Conditions, Contestant, Failure, Figure, Load, Rounds, SERVER_CPU, Sample, Server, Template, UserTime,
    Window, build, build_peers, get, run,
};
use benches::sampler::Sides;
use benches::{known_options, option};

const OPTIONS: [&str; 5] = ["--rounds", "--seconds", "--requests", "--steal-max", "--other-max"];
const SWITCHES: [&str; 3] = ["--count-only", "--time-only", "--verbose"];
const PATH: &str = "/plaintext";
const PROGRAM: (&str, &str) = ("bridged", "unwind");

/// Each pair is compared: ours, and the same on tokio.
const PAIRS: [(&str, [&str; 2]); 2] =
    [("hyper", ["hyper-netpoll", "hyper-tokio"]), ("axum", ["axum-netpoll", "axum-tokio"])];

/// One window of one server.
pub struct Spent {
    total_us: f64,
    own_cpu_seconds: f64,
    requests: f64,
    sides: Sides,
}

impl Sample for Spent {
    fn own_cpu_seconds(&self) -> f64 {
        self.own_cpu_seconds
    }
}

impl Spent {
    fn of(window: &Window) -> Self {
        Self {
            total_us: window.total_us(),
            own_cpu_seconds: window.own_cpu_seconds(),
            requests: window.requests,
            sides: window.sampled(),
        }
    }

    fn parts(&self) -> (f64, f64, Sides) {
        (self.requests, self.total_us, self.sides)
    }
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bridged: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &OPTIONS, &SWITCHES)?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let peers = build_peers(&[PROGRAM], &[])?;
    let programs = build(&[&["-p", "benches", "--bin", "load"]])?;
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let (seconds, requests) = (option(&args, "--seconds", 0.1)?, option(&args, "--requests", 10_000)?);
    let template = |lane: &str| Template {
        name: lane.into(),
        command: format!("{} --port {{port}} --lane {lane}", peers.join(PROGRAM.1).join(PROGRAM.0).display()),
        configuration: None,
    };
    let lanes: Vec<Template> = PAIRS.iter().flat_map(|(_, lanes)| lanes).map(|lane| template(lane)).collect();
    let start =
        |template: &Template| Server::start_on(&[SERVER_CPU], template, "", |port| get(port, PATH).map(drop));
    let h2load = h2load::is_installed();
    if !h2load {
        println!("no h2load is installed: HTTP/2 and instructions are left out");
    }
    if !has("--count-only") {
        let load = Load { programs: &programs, path: PATH };
        let options = "--connections 64 --spin --warmup 0.3";
        let mut ends = Vec::new();
        for lane in &lanes {
            ends.push(Contestant::new(start(lane)?, &load, options, true)?);
        }
        let turn = |nth: usize| ends[nth].window(seconds).map(|window| Spent::of(&window));
        let (kept, rounds) = run(&conditions, lanes.len(), turn)?;
        print("HTTP/1.1", &kept, rounds)?;
    }
    if !has("--count-only") && h2load {
        let mut ends = Vec::new();
        for lane in &lanes {
            let mut end = h2load::Client::new(start(lane)?)?;
            end.window(PATH, requests)?;
            ends.push(end);
        }
        let (kept, rounds) = run(&conditions, lanes.len(), |nth| ends[nth].window(PATH, requests))?;
        print("HTTP/2", &kept, rounds)?;
    }
    if !has("--time-only") && h2load {
        count(&lanes)?;
    }
    Ok(())
}

fn print(protocol: &str, kept: &[Vec<Spent>], rounds: Rounds) -> Result<(), Failure> {
    println!(
        "\n| {protocol} | on netpoll: CPU, us | on tokio | netpoll : tokio | 95 % | user : user | error |"
    );
    println!("|---|---:|---:|---:|---|---:|---:|");
    for (nth, (name, _)) in PAIRS.iter().enumerate() {
        let (ours, theirs) = (2 * nth, 2 * nth + 1);
        let total =
            |who: usize| Figure::of(&kept.iter().map(|round| round[who].total_us).collect::<Vec<_>>());
        let ratios: Vec<f64> =
            kept.iter().map(|round| round[ours].total_us / round[theirs].total_us).collect();
        let user = [ours, theirs].map(|who| UserTime::of_parts(kept.iter().map(|round| round[who].parts())));
        let (Some(our), Some(their), Some(ratio)) = (total(ours), total(theirs), Figure::of(&ratios)) else {
            return Err("no round was quiet enough".into());
        };
        println!(
            "| {name} | {:.2} | {:.2} | {:.3} | {:.3} to {:.3} | {:.3} | {:.3} |",
            our.median,
            their.median,
            ratio.median,
            ratio.low,
            ratio.high,
            user[0].us_per_request / user[1].us_per_request,
            user[0].error.hypot(user[1].error),
        );
    }
    println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
    Ok(())
}

fn count(lanes: &[Template]) -> Result<(), Failure> {
    println!("\n| instructions | HTTP/1.1 | | HTTP/2 | |\n|---|---:|---:|---:|---:|");
    for pair in lanes.chunks(2) {
        let counts = |protocol| -> Result<Vec<f64>, Failure> {
            pair.iter().map(|lane| h2load::instructions(&lane.command, PATH, protocol)).collect()
        };
        let (one, two) = (counts(h2load::Protocol::Http1)?, counts(h2load::Protocol::Http2)?);
        for (nth, lane) in pair.iter().enumerate() {
            println!(
                "| {} | {:.0} | {:.3} | {:.0} | {:.3} |",
                lane.name,
                one[nth],
                one[nth] / one[1],
                two[nth],
                two[nth] / two[1],
            );
        }
    }
    Ok(())
}
