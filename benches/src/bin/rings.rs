//! `cargo bench-rings`: HTTP on io_uring, netpoll beside a loop by hand and runtimes that have nothing else, in one run.
//!
//! `GET /plaintext` in four ways: on 64 connections with one request on its way on each (`plaintext`); the same with 16 (`pipelined`); with a new
//! connection for each request, 16 at once (`churn`); and when they are due, at even intervals on 64 connections (`open-loop`). netpoll is the
//! mini-program, on io_uring and on epoll. By hand is `floor-uring`, which answers constants without parsing, and for `churn` closes behind
//! them. monoio, compio, glommio and kimojio have the server of `benches/peers/src/http1.rs` in common, and differ in the runtime below it.
//!
//! Each server has one thread on core 0, the client spins on core 1 and checks every answer. In each round each server has one window, in
//! another order each time. What counts is the CPU time of the server, as the scheduler measured it, and of that the part in user space,
//! sampled by the kernel four times a millisecond. Ratios of the whole are taken within each round, ratios of user time between sums over all
//! of them. Who does not build, does not start or gives a wrong answer is named below the table, with the reason.
//!
//! Options (defaults in brackets): `--only WORKLOAD,..` by the beginning of the name; `--rounds` \[31\] kept rounds of each; `--seconds` \[0.06\] of each
//! window, in the open loop five times as long; `--rate` \[20000\] requests a second of the open loop; `--steal-max` \[0.05\] and `--other-max` \[0.10\]
//! shares of a core at which a round is dropped; `--peers DIR` use the programs of `benches/peers` there and build none; `--programs DIR` the same of
//! ours, which have io_uring; `--verbose` progress on standard error.
//!
//! Exit status: 0 measured, 2 could not measure.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::runner::{
    Conditions, Contestant, Failure, Figure, LOAD_CPU, Load, Rounds, SERVER_CPU, Sample, Server, Template,
    UserTime, Window, build, build_peers, digits, get, percentiles, run,
};
use benches::{known_options, option, sys};

const OPTIONS: [&str; 8] =
    ["--only", "--rounds", "--seconds", "--rate", "--steal-max", "--other-max", "--peers", "--programs"];
const PATH: &str = "/plaintext";
/// Of the peers.
const PROFILE: &str = "release";

/// One load, the same for all.
struct Workload {
    /// As in `--only`.
    name: &'static str,
    title: &'static str,
    /// Of the load client.
    options: &'static str,
    is_open_loop: bool,
}

const CHURN: &str = "churn";
const WORKLOADS: [Workload; 4] = [
    Workload { name: "plaintext", title: "64 connections", options: "--connections 64", is_open_loop: false },
    Workload {
        name: "pipelined",
        title: "64 connections, 16 pipelined",
        options: "--connections 64 --depth 16",
        is_open_loop: false,
    },
    Workload {
        name: CHURN,
        title: "a new connection for each request, 16 at once",
        options: "--connections 16 --churn --sources 100",
        is_open_loop: false,
    },
    Workload {
        name: "open-loop",
        title: "requests a second at even intervals, 64 connections",
        options: "--connections 64",
        is_open_loop: true,
    },
];

/// Who takes part.
struct Entry {
    /// For people.
    name: &'static str,
    /// The program with its options, but for the address.
    command: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    MiniProgram,
    ByHand,
    Peer,
}

const fn peer(name: &'static str, command: &'static str) -> Entry {
    Entry { name, command, kind: Kind::Peer }
}

/// The first is the scale.
const ENTRIES: [Entry; 7] = [
    Entry { name: "netpoll", command: "mini-program --workers 1 --backend uring", kind: Kind::MiniProgram },
    Entry {
        name: "netpoll, on epoll",
        command: "mini-program --workers 1 --backend epoll",
        kind: Kind::MiniProgram,
    },
    Entry { name: "by hand", command: "floor-uring", kind: Kind::ByHand },
    peer("monoio", "http-monoio --driver uring"),
    peer("compio", "http-compio"),
    peer("glommio", "http-glommio"),
    peer("kimojio", "http-kimojio"),
];

impl Entry {
    fn program(&self) -> &'static str {
        self.command.split(' ').next().unwrap_or_default()
    }
}

struct Plan {
    programs: PathBuf,
    peers: PathBuf,
    /// Peers that do not build.
    missing: Vec<&'static str>,
    conditions: Conditions,
    seconds: f64,
    rate: u32,
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rings: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::arguments(include_str!("rings.rs"));
    known_options(&args, &OPTIONS, &["--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let workloads = chosen(&option(&args, "--only", String::new())?)?;
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let (seconds, rate) = (option(&args, "--seconds", 0.06)?, option(&args, "--rate", 20_000)?);
    let programs = match has("--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[
            &["-p", "benches", "--bin", "load", "--bin", "floor-uring"],
            &["-p", "examples", "--bin", "mini-program", "--features", "netpoll-core/uring"],
        ])?,
    };
    let (peers, missing) = match has("--peers") {
        true => (option(&args, "--peers", PathBuf::new())?, Vec::new()),
        false => build_all()?,
    };
    let plan = Plan { programs, peers, missing, conditions, seconds, rate };
    sys::pin_current_thread(&[LOAD_CPU])?;
    workloads.into_iter().try_for_each(|workload| plan.measure(workload))
}

/// Those whose names begin with one of these words; all of them if there is none.
fn chosen(only: &str) -> Result<Vec<&'static Workload>, Failure> {
    let words: Vec<&str> = only.split(',').filter(|word| !word.is_empty()).collect();
    if let Some(word) = words.iter().find(|&&word| !WORKLOADS.iter().any(|it| it.name.starts_with(word))) {
        let names = WORKLOADS.map(|it| it.name).join(", ");
        return Err(format!("--only {word}: none of {names}").into());
    }
    let is_chosen = |it: &&Workload| words.is_empty() || words.iter().any(|&word| it.name.starts_with(word));
    Ok(WORKLOADS.iter().filter(is_chosen).collect())
}

/// Where the peers are, and which of them do not build; the compiler has said why.
fn build_all() -> Result<(PathBuf, Vec<&'static str>), Failure> {
    let directory = build_peers(&[], &[])?;
    let is_missing = |it: &&Entry| build_peers(&[(it.program(), PROFILE)], &[]).is_err();
    let missing = ENTRIES.iter().filter(|it| it.kind == Kind::Peer).filter(is_missing);
    Ok((directory, missing.map(|it| it.name).collect()))
}

/// A server with its client, for as long as it does what it is asked.
struct Entrant {
    entry: &'static Entry,
    contestant: Result<Contestant, String>,
}

/// One window; none of a server that has failed.
struct Turn(Option<Window>);

impl Sample for Turn {
    fn own_cpu_seconds(&self) -> f64 {
        self.0.as_ref().map_or(0.0, Sample::own_cpu_seconds)
    }
}

impl Entrant {
    fn turn(&mut self, seconds: f64) -> Turn {
        let Ok(contestant) = &mut self.contestant else { return Turn(None) };
        let failure = match contestant.window(seconds) {
            Ok(window) if window.requests > 0.0 => return Turn(Some(window)),
            Ok(_) => "no answer in a whole window".into(),
            Err(error) => error.to_string(),
        };
        self.contestant = Err(failure);
        Turn(None)
    }

    /// As the scale has to be.
    fn must_be_there(&self) -> Result<(), Failure> {
        match &self.contestant {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("{}, beside which all stand: {why}", self.entry.name).into()),
        }
    }
}

impl Plan {
    fn template(&self, entry: &Entry, workload: &Workload) -> Template {
        let (directory, address) = match entry.kind {
            Kind::MiniProgram => (self.programs.clone(), "--addr 127.0.0.1:{port}"),
            // It does not read that it is to close.
            Kind::ByHand if workload.name == CHURN => (self.programs.clone(), "--close --port {port}"),
            Kind::ByHand => (self.programs.clone(), "--port {port}"),
            Kind::Peer => (self.peers.join(PROFILE), "--port {port}"),
        };
        let command = format!("{} {address}", directory.join(entry.command).display());
        Template { name: entry.name.into(), command, configuration: None }
    }

    fn enter(&self, entry: &'static Entry, workload: &Workload) -> Entrant {
        let start = || -> Result<Contestant, Failure> {
            if self.missing.contains(&entry.name) {
                return Err(format!("{} does not build", entry.program()).into());
            }
            let mut options = format!("{} --spin --warmup 0.3", workload.options);
            if workload.is_open_loop {
                options += &format!(" --rate {} --histogram", self.rate);
            }
            let server = Server::start_on(&[SERVER_CPU], &self.template(entry, workload), "", |port| {
                get(port, PATH).map(drop)
            })?;
            Contestant::new(server, &Load { programs: &self.programs, path: PATH }, &options, true)
        };
        Entrant { entry, contestant: start().map_err(|error| error.to_string()) }
    }

    fn measure(&self, workload: &'static Workload) -> Result<(), Failure> {
        self.conditions.say(format_args!("{}", workload.name));
        let mut entrants: Vec<Entrant> = ENTRIES.iter().map(|entry| self.enter(entry, workload)).collect();
        let seconds = if workload.is_open_loop { 5.0 * self.seconds } else { self.seconds };
        entrants[0].must_be_there()?;
        let (kept, rounds) = run(&self.conditions, entrants.len(), |nth| Ok(entrants[nth].turn(seconds)))?;
        entrants[0].must_be_there()?;
        if kept.is_empty() {
            return Err("no round was quiet enough".into());
        }
        self.print(workload, &entrants, &kept, rounds)
    }

    fn print(
        &self,
        workload: &Workload,
        entrants: &[Entrant],
        kept: &[Vec<Turn>],
        rounds: Rounds,
    ) -> Result<(), Failure> {
        let (rate, last) = match workload.is_open_loop {
            true => (format!("{} ", self.rate), "p50, us | p99 |\n|---|---:|---:|---|---:|---:|---:|---:|"),
            false => (String::new(), "requests/s |\n|---|---:|---:|---|---:|---:|---:|"),
        };
        println!(
            "\n| {rate}{} | CPU, us | beside netpoll | 95 % | user, us | beside netpoll | {last}",
            workload.title
        );
        let windows = |nth: usize| kept.iter().filter_map(move |round| round[nth].0.as_ref());
        let first_user = UserTime::of(windows(0), Window::sampled).us_per_request;
        for (nth, entrant) in entrants.iter().enumerate().filter(|(_, it)| it.contestant.is_ok()) {
            let own: Vec<&Window> = windows(nth).collect();
            let figure = |values: Vec<f64>| Figure::of(&values).ok_or("no window");
            let cpu = figure(own.iter().map(|window| window.total_us()).collect())?;
            let ratio = figure(
                own.iter().zip(windows(0)).map(|(it, first)| it.total_us() / first.total_us()).collect(),
            )?;
            let user = UserTime::of(own.iter().copied(), Window::sampled);
            let last = match workload.is_open_loop {
                true => percentiles(&own, [0.5, 0.99])?.map(digits).join(" | "),
                false => digits(figure(own.iter().map(|window| window.rate()).collect())?.median),
            };
            println!(
                "| {} | {:.3} | {:.3} | {:.3} to {:.3} | {:.3} ± {:.3} | {:.2} | {last} |",
                entrant.entry.name,
                cpu.median,
                ratio.median,
                ratio.low,
                ratio.high,
                user.us_per_request,
                user.us_per_request * user.error,
                user.us_per_request / first_user,
            );
        }
        for entrant in entrants {
            if let Err(why) = &entrant.contestant {
                println!("left out: {}: {why}", entrant.entry.name);
            }
        }
        println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
        Ok(())
    }
}
