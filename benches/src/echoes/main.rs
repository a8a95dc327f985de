//! `cargo bench-echo`: TCP echo with callbacks, with tasks, on tokio and on monoio, in one run.
//!
//! 64 connections, one message on its way on each, of 64 B and of 4 KiB. Each server has one thread on core 0, the client spins on core
//! 1 and checks every answer. In each round each server has one window, in another order each time; what counts is the
//! CPU time of the server, as the scheduler measured it, and of that the part in user space, sampled by the kernel four times a
//! millisecond: the rest is the kernel's path through loopback TCP, which is the same for all. Ratios of the whole are taken within
//! each round, ratios of user time between sums over all of them. Instructions are those of user space, counted by callgrind in a run of
//! their own.
//!
//! Options (defaults in brackets): `--rounds` \[41\] kept rounds; `--seconds` \[0.06\] of each window; `--steal-max` \[0.05\] and
//! `--other-max` \[0.10\] shares of a core at which a round is dropped; `--bytes` one size of message alone; `--count-only` instructions, and no
//! time; `--time-only` the other way round; `--peers DIR` use the programs of `benches/peers` there and build none; `--verbose` progress on
//! standard error;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\];
//! `--rings` others: ours on io_uring, a loop on io_uring written by hand, and runtimes that have nothing else; time alone, as callgrind does not
//! know what a ring does.

mod count;

use benches::runner::{
    Conditions, Contestant, Failure, Figure, Load, SERVER_CPU, Sample, Server, Template, UserTime, Window,
    build, build_peers, digits, run,
};
use benches::{known_options, option};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const OPTIONS: [&str; 6] = ["--rounds", "--seconds", "--steal-max", "--other-max", "--bytes", "--peers"];
const SWITCHES: [&str; 4] = ["--count-only", "--time-only", "--rings", "--verbose"];

/// Connections, each with one message on its way.
const CONNECTIONS: usize = 64;
const SIZES: [usize; 2] = [64, 4096];

/// The programs, and the profiles that they are built with.
const PROGRAMS: [(&str, &str); 3] =
    [("echo-netpoll", "unwind"), ("echo-tokio", "release"), ("echo-monoio", "release")];

/// Who takes part: for people, profile, program with its options. The first is the scale.
const CONTESTANTS: [(&str, &str, &str); 6] = [
    ("callbacks, `send`", "unwind", "echo-netpoll --lane queue"),
    ("callbacks, `send_now`", "unwind", "echo-netpoll --lane now"),
    ("task, `read` and `write_all`", "unwind", "echo-netpoll --lane read"),
    ("task, `fill_buf` and `write_all`", "unwind", "echo-netpoll --lane fill"),
    ("tokio, `LocalSet`", "release", "echo-tokio"),
    ("monoio, epoll", "release", "echo-monoio"),
];

/// The programs of those on rings.
const RING_PROGRAMS: [(&str, &str); 5] = [
    ("echo-netpoll", "unwind"),
    ("echo-monoio", "release"),
    ("echo-compio", "release"),
    ("echo-glommio", "release"),
    ("echo-kimojio", "release"),
];

/// Who takes part with `--rings`, the same way.
const ON_RINGS: [(&str, &str, &str); 9] = [
    ("callbacks, `send_now`", "unwind", "echo-netpoll --lane now"),
    ("callbacks, `send`", "unwind", "echo-netpoll --lane queue"),
    ("task, `read` and `write_all`", "unwind", "echo-netpoll --lane read"),
    ("callbacks, `send_now`, on epoll", "unwind", "echo-netpoll --lane now"),
    ("by hand", BY_HAND, "floor-uring --echo"),
    ("monoio", "release", "echo-monoio --driver uring"),
    ("compio", "release", "echo-compio"),
    ("glommio", "release", "echo-glommio"),
    ("kimojio", "release", "echo-kimojio"),
];
/// In place of a profile: a program of this package.
const BY_HAND: &str = "";

/// One window of one server.
struct Turn(Window);

impl Sample for Turn {
    fn own_cpu_seconds(&self) -> f64 {
        self.0.own_cpu_seconds()
    }
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echoes: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &OPTIONS, &SWITCHES)?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let rings = has("--rings");
    let peers = match has("--peers") {
        true => option(&args, "--peers", PathBuf::new())?,
        false if rings => build_peers(&RING_PROGRAMS, &["netpoll-core/uring"])?,
        false => build_peers(&PROGRAMS, &[])?,
    };
    let programs = build(&[&["-p", "benches", "--bin", "load", "--bin", "floor-uring"]])?;
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 41)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let seconds = option(&args, "--seconds", 0.06)?;
    let only = option(&args, "--bytes", 0)?;
    let template = |&(name, profile, command): &(&str, &str, &str)| {
        let directory = if profile == BY_HAND { programs.clone() } else { peers.join(profile) };
        let backend = match rings {
            true if name.ends_with("on epoll") => "env NETPOLL_BACKEND=epoll ",
            // Programs of others do not know it.
            true => "env NETPOLL_BACKEND=uring ",
            false => "",
        };
        let command = format!("{backend}{} --port {{port}}", directory.join(command).display());
        Template { name: name.into(), command, configuration: None }
    };
    let contestants: &[_] = if rings { &ON_RINGS } else { &CONTESTANTS };
    let templates: Vec<Template> = contestants.iter().map(template).collect();
    for bytes in SIZES.into_iter().filter(|&bytes| only == 0 || bytes == only) {
        if !has("--count-only") || rings {
            time(&templates, bytes, seconds, &conditions, &programs)?;
        }
        if !has("--time-only") && !rings {
            count_all(&templates, bytes)?;
        }
    }
    Ok(())
}

fn time(
    templates: &[Template],
    bytes: usize,
    seconds: f64,
    conditions: &Conditions,
    programs: &Path,
) -> Result<(), Failure> {
    let load = Load { programs, path: "/echo" };
    let options = format!("--connections {CONNECTIONS} --echo {bytes} --spin --warmup 0.3");
    let mut ends = Vec::new();
    for template in templates {
        let server = Server::start_on(&[SERVER_CPU], template, "", probe)?;
        ends.push(Contestant::new(server, &load, &options, true)?);
    }
    conditions.say(format_args!("{bytes} B"));
    let (kept, rounds) = run(conditions, ends.len(), |nth| ends[nth].window(seconds).map(Turn))?;
    let user: Vec<UserTime> = (0..ends.len())
        .map(|nth| UserTime::of(kept.iter().map(|round| &round[nth].0), Window::sampled))
        .collect();
    println!(
        "\n| {bytes} B | CPU, us | 95 % | beside the first | user, us | beside the first | messages/s |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|");
    for (nth, template) in templates.iter().enumerate() {
        let of =
            |value: fn(&Window) -> f64| kept.iter().map(|round| value(&round[nth].0)).collect::<Vec<_>>();
        let ratios: Vec<f64> =
            kept.iter().map(|round| round[nth].0.total_us() / round[0].0.total_us()).collect();
        let (Some(cpu), Some(ratio), Some(rate)) =
            (Figure::of(&of(Window::total_us)), Figure::of(&ratios), Figure::of(&of(Window::rate)))
        else {
            return Err("no round was quiet enough".into());
        };
        println!(
            "| {} | {:.2} | {:.2} to {:.2} | {:.3} | {:.3} ± {:.3} | {:.2} | {} |",
            template.name,
            cpu.median,
            cpu.low,
            cpu.high,
            ratio.median,
            user[nth].us_per_request,
            user[nth].us_per_request * user[nth].error,
            user[nth].us_per_request / user[0].us_per_request,
            digits(rate.median),
        );
    }
    println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
    Ok(())
}

fn count_all(templates: &[Template], bytes: usize) -> Result<(), Failure> {
    println!("\n| {bytes} B | instructions | beside the first |\n|---|---:|---:|");
    let mut first = None;
    for template in templates {
        let count = count::instructions(&template.command, bytes)?;
        let first = *first.get_or_insert(count);
        println!("| {} | {count:.0} | {:.2} |", template.name, count / first);
    }
    Ok(())
}

fn probe(port: u16) -> Result<(), Failure> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if &answer == b"ping" { Ok(()) } else { Err("not an echo".into()) }
}
