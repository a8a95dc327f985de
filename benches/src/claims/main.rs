//! `cargo bench-claims`: what the article says, beside what this machine shows.
//!
//! The article describes how a Go team serves mini-programs at a million requests a second. Each of its figures is
//! measured here on netpoll, or on what the claim is about, in a minute; a claim that has no meaning on this machine
//! says so. It judges the claim, not the article: other hardware and other software were measured there.
//!
//! Options: `--json` one object per claim; `--programs DIR` use the programs there and build nothing;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].

mod blocking;
mod copies;
mod logging;
mod primitives;

use benches::runner::{
    Contestant, Failure, LOAD_CPU, Load, SERVER_CPU, Server, Template, build, digits, get, number,
    resident_bytes,
};
use benches::{known_options, option, sys};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Of each measured window.
const SECONDS: f64 = 1.0;

/// What became of a claim.
#[derive(Clone, Copy)]
enum Verdict {
    Holds,
    DoesNotHold,
    CannotBeShown,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::DoesNotHold }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::CannotBeShown => "cannot be shown here",
        }
    }
}

struct Claim {
    says: &'static str,
    here: String,
    verdict: Verdict,
    why: &'static str,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claims: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &["--programs", "--port"], &["--json", "--serve-blocking"])?;
    if args.iter().any(|arg| arg == "--serve-blocking") {
        return blocking::serve(option(&args, "--port", 8080)?);
    }
    let programs = match args.iter().any(|arg| arg == "--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "benches", "--bins"], &["-p", "examples", "--bin", "mini-program"]])?,
    };
    sys::raise_open_files(20_064)?;
    let mut claims = of_primitives();
    sys::pin_current_thread(&[LOAD_CPU])?;
    claims.extend(of_servers(&programs)?);
    claims.extend(logging::claims(&programs)?);
    claims.extend(copies::claims()?);
    claims.push(of_the_cache());
    for claim in &claims {
        if args.iter().any(|arg| arg == "--json") {
            println!("{}", claim.to_json());
        } else {
            println!(
                "{}\n    here: {}\n    {}: {}\n",
                claim.says,
                claim.here,
                claim.verdict.name(),
                claim.why
            );
        }
    }
    Ok(())
}

impl Claim {
    fn to_json(&self) -> Value {
        json!({ "claim": self.says, "here": self.here, "verdict": self.verdict.name(), "why": self.why })
    }
}

fn of_primitives() -> Vec<Claim> {
    let (map, table) = primitives::dispatch();
    let saved = 1.0 - table / map;
    let (mutex, mutex_2) = primitives::mutex();
    let (rw_lock, rw_lock_2) = primitives::rw_lock();
    let (atomic, atomic_2) = primitives::atomic();
    let (under_mutex, under_rw_lock) = primitives::read_mostly();
    let faster = under_mutex / under_rw_lock - 1.0;
    vec![
        Claim {
            says: "Static routes take the dispatch of a handler from 1.8 to 0.6 us, -66.7 %.",
            here: format!(
                "HashMap of boxed functions {} ns, routes! {} ns: {:.1} % less",
                digits(map),
                digits(table),
                saved * 100.0
            ),
            verdict: Verdict::of(saved >= 0.667),
            why: "judged by the saving; both are far below a microsecond, so it hardly matters to a request",
        },
        Claim {
            says: "RWMutex is 30 % faster than Mutex on read-mostly data.",
            here: format!(
                "two threads, nine reads to a write: Mutex {} ns a turn, RwLock {} ns: {:+.0} %",
                digits(under_mutex),
                digits(under_rw_lock),
                faster * 100.0
            ),
            verdict: Verdict::of(faster >= 0.3),
            why: "short critical sections; the longer a reader stays, the more an RwLock gains",
        },
        Claim {
            says: "A Mutex takes about 80 ns, an RWMutex 40 ns, an atomic 10 ns.",
            here: format!(
                "alone: Mutex {}, RwLock read {}, atomic {} ns; two threads: {}, {}, {} ns",
                digits(mutex),
                digits(rw_lock),
                digits(atomic),
                digits(mutex_2),
                digits(rw_lock_2),
                digits(atomic_2)
            ),
            verdict: Verdict::of(mutex_2 > rw_lock_2 && rw_lock_2 > atomic_2),
            why: "judged by the order with two threads; absolute figures belong to a machine",
        },
    ]
}

fn of_servers(programs: &Path) -> Result<Vec<Claim>, Failure> {
    let ours = Template {
        name: "mini-program".into(),
        command: format!(
            "{} --addr 127.0.0.1:{{port}} --workers 1 --cpus {SERVER_CPU}",
            programs.join("mini-program").display()
        ),
        configuration: None,
    };
    let blocking = Template {
        name: "a thread per connection".into(),
        command: format!("{} --serve-blocking --port {{port}}", std::env::current_exe()?.display()),
        configuration: None,
    };
    let path = "/plaintext";
    let load = Load { programs, path };
    let server = Server::start(&ours, "64", path)?;
    let first_answer_ms = server.first_answer.as_secs_f64() * 1e3;
    let at_rest = resident_bytes(server.pid())?;
    let mut contestant = Contestant::new(server, &load, "--connections 64 --warmup 1", false)?;
    let stats = |contestant: &Contestant| -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&get(contestant.server.port, "/stats")?)?)
    };
    let before = stats(&contestant)?;
    let single = contestant.window(SECONDS)?;
    let after = stats(&contestant)?;
    let grown = |key: &str| -> Result<f64, Failure> { Ok(number(&after, key)? - number(&before, key)?) };
    let calls = grown("syscalls_total")? / grown("requests")?;
    let options = "--connections 64 --depth 16 --spin --warmup 0.3";
    let mut contestant = Contestant::new(contestant.into_server(), &load, options, false)?;
    let pipelined = contestant.window(SECONDS)?;
    drop(contestant);

    let server = Server::start(&blocking, "64", path)?;
    let mut threads = Contestant::new(server, &load, "--connections 64 --warmup 1", false)?;
    let before = number(&stats(&threads)?, "switches")?;
    let threaded = threads.window(SECONDS)?;
    let threaded = (number(&stats(&threads)?, "switches")? - before) / threaded.requests;
    drop(threads);
    let switches = single.switches.total() as f64 / single.requests;
    let fewer = 1.0 - switches / threaded;

    let server = Server::start(&ours, "64", path)?;
    let empty = resident_bytes(server.pid())?;
    let (held, connections) = load.hold(server.port, "--connections 10000 --sources 100 --seconds 30")?;
    let idle = resident_bytes(server.pid())?.saturating_sub(empty) as f64 / connections as f64;
    drop(held);
    let per_core = |window: &benches::runner::Window| 1e6 / window.total_us();
    Ok(vec![
        Claim {
            says: "Netpoll takes a request from 12 to 3 system calls, -75 %.",
            here: format!(
                "{} for each request with 64 connections, by the server's own count",
                digits(calls)
            ),
            verdict: Verdict::of(calls <= 3.0),
            why: "judged by the 3; the 12 belong to a program that is not public",
        },
        Claim {
            says: "Netpoll saves 70 % of the context switches.",
            here: format!(
                "{} for each request, {} with a thread for each connection: {:.1} % fewer",
                digits(switches),
                digits(threaded),
                fewer * 100.0
            ),
            verdict: Verdict::of(fewer >= 0.7),
            why: "compared with blocking threads; goroutines switch in user space, where the kernel does not count",
        },
        Claim {
            says: "A goroutine takes 2 KB, so a connection is cheap.",
            here: format!("{idle:.0} B for each of {connections} idle connections, and no stack"),
            verdict: Verdict::of(idle <= 2048.0),
            why: "resident memory of the server after one request on each",
        },
        Claim {
            says: "About 10 MB and an instant start.",
            here: format!(
                "{:.1} MB at rest, first answer after {} ms",
                at_rest as f64 / 1e6,
                digits(first_answer_ms)
            ),
            verdict: Verdict::of(at_rest <= 10_000_000 && first_answer_ms <= 100.0),
            why: "the example backend with one worker",
        },
        Claim {
            says: "A million requests a second.",
            here: format!(
                "{:.0} for each second of a core without pipelining, {:.0} with 16 pipelined",
                per_core(&single),
                per_core(&pipelined)
            ),
            verdict: if per_core(&pipelined) >= 1e6 { Verdict::Holds } else { Verdict::CannotBeShown },
            why: "judged by pipelined requests and one core of this machine over loopback; a promise for no other",
        },
    ])
}

fn of_the_cache() -> Claim {
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "L1-dcache-loads,L1-dcache-load-misses", "true"])
        .stdin(Stdio::null())
        .output();
    let counts: Vec<f64> = output
        .map(|output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            text.lines().filter_map(|line| line.split(',').next()?.parse().ok()).collect()
        })
        .unwrap_or_default();
    Claim {
        says: "91.3 % of loads hit the first-level cache.",
        here: match counts[..] {
            [loads, misses] => format!(
                "the counters work here: {:.1} % for a trivial program",
                100.0 - 100.0 * misses / loads
            ),
            _ => "no hardware counters".into(),
        },
        verdict: Verdict::CannotBeShown,
        why: "it is the figure of one program on one machine; virtual machines mostly hide the counters",
    }
}
