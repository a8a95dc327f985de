//! `cargo bench-deliveries`: one room, a thousand WebSockets in it, and what a message to all of them costs.
//!
//! The first socket sends a text of `--bytes`, the server sends it to everybody in the room, and when all have it the next one is sent. What counts
//! is the CPU time of the server for each delivery, as the scheduler measured it, and of that the part in user space, sampled by the kernel four times a
//! millisecond. Ratios of the whole are taken within each round, ratios of user time between sums over all of them.
//!
//! The floor has the sockets in a list and writes a frame that is ready to each: what the kernel takes for it. netpoll is a room of this crate's on one worker, on
//! epoll and on io_uring. tungstenite and fastwebsockets are those of `benches/peers`; ws and uWebSockets are scripts in `benches/peers/websockets`, which Node.js and Bun run:
//! `npm install ws bun`, and both on the path. Who does not build, does not start or loses a message is named below the table, with the reason.
//!
//! Each server has one thread on core 0. The client reads on core 1 and never sleeps, so that nobody pays for waking it.
//!
//! Options (defaults in brackets): `--bytes` \[64,1024,16384\]; `--members` \[1000\]; `--rounds` \[31\] kept rounds of each; `--seconds` \[0.1\] of each window;
//! `--only NAME,..` by the beginning of the name, of all but the floor; `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a core at which a round is dropped; `--peers DIR` use the programs
//! of `benches/peers` there and build none; `--programs DIR` the same of ours; `--verbose` progress on standard error. `--serve floor|netpoll --port PORT` is one of
//! the servers.
//!
//! Exit status: 0 measured, 2 could not measure.

mod crowd;
mod floor;
mod room;

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::runner::{
    Conditions, Failure, Figure, LOAD_CPU, Metered, Rounds, SERVER_CPU, Sample, Server, Spent, Template,
    build, build_peers, run,
};
use benches::{known_options, option, sys};
use crowd::Crowd;

const OPTIONS: [&str; 12] = [
    "--bytes",
    "--members",
    "--rounds",
    "--seconds",
    "--only",
    "--steal-max",
    "--other-max",
    "--peers",
    "--programs",
    "--serve",
    "--port",
    "--backend",
];
/// Of the peers.
const PROFILE: &str = "release";

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// This program.
    Own,
    /// Of `benches/peers`.
    Peer,
    /// Run by somebody else.
    Script,
}

/// Who takes part. `{bytes}` and `{port}` are filled in.
struct Entry {
    name: &'static str,
    command: &'static str,
    kind: Kind,
}

/// The first is the scale.
const ENTRIES: [Entry; 7] = [
    Entry { name: "floor", command: "--serve floor --bytes {bytes} --port {port}", kind: Kind::Own },
    Entry { name: "netpoll", command: "--serve netpoll --backend epoll --port {port}", kind: Kind::Own },
    Entry {
        name: "netpoll on io_uring",
        command: "--serve netpoll --backend uring --port {port}",
        kind: Kind::Own,
    },
    Entry { name: "tungstenite", command: "room-tungstenite --port {port}", kind: Kind::Peer },
    Entry { name: "fastwebsockets", command: "room-fastwebsockets --port {port}", kind: Kind::Peer },
    Entry { name: "ws", command: "node {scripts}/ws.js {port}", kind: Kind::Script },
    Entry { name: "uWebSockets", command: "bun {scripts}/uwebsockets.js {port}", kind: Kind::Script },
];

struct Plan {
    programs: PathBuf,
    peers: PathBuf,
    /// Peers that do not build.
    missing: Vec<&'static str>,
    only: String,
    conditions: Conditions,
    seconds: f64,
    members: usize,
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deliveries: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::arguments(include_str!("main.rs"));
    known_options(&args, &OPTIONS, &["--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let bytes: String = option(&args, "--bytes", "64,1024,16384".into())?;
    let bytes = bytes.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    if has("--serve") {
        let (role, port) = (option(&args, "--serve", String::new())?, option(&args, "--port", 0)?);
        return match role.as_str() {
            "floor" => floor::serve(port, bytes[0]),
            "netpoll" => room::serve(port, option(&args, "--backend", netpoll_core::Backend::Auto)?),
            other => Err(format!("--serve {other}: neither floor nor netpoll").into()),
        };
    }
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let members = option(&args, "--members", 1000)?;
    sys::raise_open_files(members as u64 + 64)?;
    let programs = match has("--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "benches", "--bin", "deliveries", "--features", "netpoll-core/uring"]])?,
    };
    let (peers, missing) = match has("--peers") {
        true => (option(&args, "--peers", PathBuf::new())?, Vec::new()),
        false => build_all()?,
    };
    let (only, seconds) = (option(&args, "--only", String::new())?, option(&args, "--seconds", 0.1)?);
    let plan = Plan { programs, peers, missing, only, conditions, seconds, members };
    sys::pin_current_thread(&[LOAD_CPU])?;
    bytes.into_iter().try_for_each(|bytes| plan.measure(bytes))
}

/// Where the peers are, and which of them do not build; the compiler has said why.
fn build_all() -> Result<(PathBuf, Vec<&'static str>), Failure> {
    let directory = build_peers(&[], &[])?;
    let program = |entry: &Entry| entry.command.split(' ').next().unwrap_or_default();
    let is_missing = |entry: &&Entry| build_peers(&[(program(entry), PROFILE)], &[]).is_err();
    let missing = ENTRIES.iter().filter(|entry| entry.kind == Kind::Peer).filter(is_missing);
    Ok((directory, missing.map(|entry| entry.name).collect()))
}

/// A server with its crowd, for as long as it does what it is asked.
struct Entrant {
    name: &'static str,
    there: Result<There, String>,
}

struct There {
    // In front of its server, which it talks to.
    crowd: Crowd,
    metered: Metered,
}

/// One window; none of a server that has failed.
struct Turn(Option<Spent>);

impl Sample for Turn {
    fn own_cpu_seconds(&self) -> f64 {
        self.0.as_ref().map_or(0.0, Sample::own_cpu_seconds)
    }
}

impl Entrant {
    fn turn(&mut self, seconds: f64) -> Turn {
        let Ok(there) = &mut self.there else { return Turn(None) };
        let There { crowd, metered } = there;
        match metered.during(|| crowd.publish_for(seconds).map(|deliveries| deliveries as f64)) {
            Ok(spent) => Turn(Some(spent)),
            Err(error) => {
                self.there = Err(error.to_string());
                Turn(None)
            }
        }
    }
}

impl Plan {
    fn template(&self, entry: &Entry, bytes: usize) -> Template {
        let command = match entry.kind {
            Kind::Own => format!("{} {}", self.programs.join("deliveries").display(), entry.command),
            Kind::Peer => self.peers.join(PROFILE).join(entry.command).display().to_string(),
            Kind::Script => {
                let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/websockets");
                entry.command.replace("{scripts}", &scripts.display().to_string())
            }
        };
        let command = command.replace("{bytes}", &bytes.to_string());
        Template { name: entry.name.into(), command, configuration: None }
    }

    fn enter(&self, entry: &'static Entry, bytes: usize) -> Entrant {
        let start = || -> Result<There, Failure> {
            if self.missing.contains(&entry.name) {
                return Err("it does not build".into());
            }
            let server = Server::start_on(&[SERVER_CPU], &self.template(entry, bytes), "", |port| {
                Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?)
            })?;
            let mut crowd = Crowd::gather(server.port, self.members, bytes)?;
            // Warm, and nobody is lost.
            crowd.publish_for(0.2)?;
            Ok(There { crowd, metered: Metered::new(server) })
        };
        Entrant { name: entry.name, there: start().map_err(|error| error.to_string()) }
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let mut names = self.only.split(',').filter(|name| !name.is_empty()).peekable();
        entry.name == ENTRIES[0].name
            || names.peek().is_none()
            || names.any(|name| entry.name.starts_with(name))
    }

    fn measure(&self, bytes: usize) -> Result<(), Failure> {
        self.conditions.say(format_args!("{bytes} bytes"));
        let wanted = ENTRIES.iter().filter(|entry| self.is_wanted(entry));
        let mut entrants: Vec<Entrant> = wanted.map(|entry| self.enter(entry, bytes)).collect();
        if let Err(why) = &entrants[0].there {
            return Err(format!("the floor, beside which all stand: {why}").into());
        }
        let (kept, rounds) =
            run(&self.conditions, entrants.len(), |nth| Ok(entrants[nth].turn(self.seconds)))?;
        if kept.is_empty() {
            return Err("no round was quiet enough".into());
        }
        self.print(bytes, &entrants, &kept, rounds)
    }

    fn print(
        &self,
        bytes: usize,
        entrants: &[Entrant],
        kept: &[Vec<Turn>],
        rounds: Rounds,
    ) -> Result<(), Failure> {
        println!(
            "\n| {bytes} bytes to {} | CPU of a delivery, us | beside the floor | 95 % | user, us | deliveries of a CPU second |",
            self.members
        );
        println!("|---|---:|---:|---|---:|---:|");
        let windows = |nth: usize| kept.iter().filter_map(move |round| round[nth].0.as_ref());
        for (nth, entrant) in entrants.iter().enumerate().filter(|(_, entrant)| entrant.there.is_ok()) {
            let figure = |values: Vec<f64>| Figure::of(&values).ok_or("no window");
            let us = figure(windows(nth).map(Spent::us).collect())?;
            let ratios = windows(nth).zip(windows(0)).map(|(own, floor)| own.us() / floor.us());
            let ratio = figure(ratios.collect())?;
            let user = Spent::user(windows(nth));
            println!(
                "| {} | {:.3} | {:.3} | {:.3} to {:.3} | {:.3} ± {:.3} | {:.0} |",
                entrant.name,
                us.median,
                ratio.median,
                ratio.low,
                ratio.high,
                user.us_per_request,
                user.us_per_request * user.error,
                1e6 / us.median,
            );
        }
        for entrant in entrants {
            if let Err(why) = &entrant.there {
                println!("left out: {}: {why}", entrant.name);
            }
        }
        println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
        Ok(())
    }
}
