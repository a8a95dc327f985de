//! What it costs to know what a server does: logs, figures, names of requests, each alone and together.
//!
//! One service, `GET /plaintext`, in as many processes as there are ways to watch it. In each round each has one window, in another order
//! each time, so that a ratio compares moments that are close together. The client keeps 64 connections with a request on its way on each, or
//! asks at even intervals; it sends a `User-Agent` and a `traceparent` that is not sampled. What the thread of the log takes is in
//! the figures: it has the core of the server.
//!
//! A line is written 20 ms after its request at most, so of each window the last lines are not charged, and none is twice. A window is
//! long enough that this does not matter.

mod serve;

use std::path::Path;

use crate::runner::{
    Conditions, Contestant, Failure, Figure, Load, Rounds, SERVER_CPU, Server, Template, UserTime, Window,
    collected, get, number, percentiles, run,
};

pub use serve::serve;

/// How a server is watched.
pub struct Way {
    /// On the command line of its process.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    log: Log,
    has_figures: bool,
    has_names: bool,
    has_traces: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Log {
    None,
    /// By `AccessLog`, of one request in so many.
    Combined(u32),
    Json(u32),
    /// The worker writes each line itself, as JSON.
    Synchronous,
}

const OFF: Way = Way {
    name: "off",
    title: "off",
    log: Log::None,
    has_figures: false,
    has_names: false,
    has_traces: false,
};
const SAMPLED: Way =
    Way { name: "sampled", title: "figures, log of 1 in 100", log: Log::Json(100), has_figures: true, ..OFF };
const ALL: Way = Way {
    name: "all",
    title: "figures, names, traces, log of all",
    log: Log::Json(1),
    has_names: true,
    has_traces: true,
    ..SAMPLED
};
const SYNCHRONOUS: Way =
    Way { name: "synchronous", title: "the same, log written by the worker", log: Log::Synchronous, ..ALL };

/// What is promised, and what it is held against: from nothing to everything.
pub const LADDER: [Way; 4] = [OFF, SAMPLED, ALL, SYNCHRONOUS];

/// A log and nothing else: none, of one request in a hundred, of all, and written by the worker.
pub const LOGS: [Way; 4] = [
    OFF,
    Way { name: "one-in-100", title: "log alone, 1 in 100", log: Log::Json(100), ..OFF },
    Way { name: "json", title: "log alone, JSON", log: Log::Json(1), ..OFF },
    Way { name: "json-synchronous", title: "log alone, written by the worker", log: Log::Synchronous, ..OFF },
];

/// Each thing by itself, beside the logs, and other choices of everything.
pub const ALONE: [Way; 6] = [
    Way { name: "figures", title: "figures alone", has_figures: true, ..OFF },
    Way { name: "names", title: "names alone", has_names: true, ..OFF },
    Way { name: "traces", title: "traces alone", has_traces: true, ..OFF },
    Way { name: "combined", title: "log alone, combined", log: Log::Combined(1), ..OFF },
    Way { name: "sampled-named", title: "all, log of 1 in 100", log: Log::Json(100), ..ALL },
    Way { name: "all-combined", title: "all, combined", log: Log::Combined(1), ..ALL },
];

/// Of the CPU time of a request, what may come to it.
pub const SAMPLED_MORE_MAX: f64 = 0.03;
/// The same with everything.
pub const ALL_MORE_MAX: f64 = 0.08;

/// What the client sends beside what it must.
const HEADERS: &str = "--header User-Agent:load/1.0 \
    --header traceparent:00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const PATH: &str = "/plaintext";
/// Requests of the two runs whose instructions are counted.
const COUNTED: [u32; 2] = [2000, 12_000];

/// How to measure.
pub struct Plan<'a> {
    /// Where the programs are.
    pub programs: &'a Path,
    /// Where the logs are written.
    pub directory: &'a Path,
    /// What a round has to be like.
    pub conditions: Conditions,
    /// Of each window.
    pub seconds: f64,
    /// Requests a second, of the client that asks at even intervals.
    pub rate: u32,
}

/// What one way has cost.
pub struct Cost {
    /// CPU time of a request, in us.
    pub total_us: Figure,
    /// The same as a multiple of the first way's, in the same round.
    pub ratio: Figure,
    /// Of that time the part in user space.
    pub user: UserTime,
}

impl Plan<'_> {
    fn template(&self, way: &Way) -> Template {
        let (program, directory) = (self.programs.join("watched"), self.directory.display());
        let command =
            format!("{} --serve {} --port {{port}} --directory {directory}", program.display(), way.name);
        Template { name: way.name.into(), command, configuration: None }
    }

    fn start(&self, ways: &[&Way], options: &str) -> Result<Vec<Contestant>, Failure> {
        let load = Load { programs: self.programs, path: PATH };
        let options = format!("{options} {HEADERS} --spin --warmup 0.3");
        let start = |way: &&Way| {
            let server =
                Server::start_on(&[SERVER_CPU], &self.template(way), "", |port| get(port, PATH).map(drop))?;
            Contestant::new(server, &load, &options, true)
        };
        ways.iter().map(start).collect()
    }

    fn windows(&self, ways: &[&Way], options: &str) -> Result<(Vec<Vec<Window>>, Rounds), Failure> {
        let mut contestants = self.start(ways, options)?;
        let turn = |nth: usize| contestants[nth].window(self.seconds);
        let (kept, rounds) = run(&self.conditions, ways.len(), turn)?;
        if kept.is_empty() { Err("no round was quiet enough".into()) } else { Ok((kept, rounds)) }
    }

    /// What each of these costs, beside the first, under as many requests as 64 connections bring.
    ///
    /// # Errors
    /// A server or the client failed, or no round was quiet.
    pub fn costs(&self, ways: &[&Way]) -> Result<(Vec<Cost>, Rounds), Failure> {
        let (kept, rounds) = self.windows(ways, "--connections 64")?;
        let cost = |nth: usize| {
            let of = |figure: &dyn Fn(&[Window]) -> f64| {
                let figures: Vec<f64> = kept.iter().map(|round| figure(round)).collect();
                Figure::of(&figures).ok_or("no round")
            };
            Ok(Cost {
                total_us: of(&|round| round[nth].total_us())?,
                ratio: of(&|round| round[nth].total_us() / round[0].total_us())?,
                user: UserTime::of(kept.iter().map(|round| &round[nth]), Window::sampled),
            })
        };
        Ok(((0..ways.len()).map(cost).collect::<Result<_, Failure>>()?, rounds))
    }

    /// The median and the 99th percentile of latency of each, in us, at even intervals.
    ///
    /// # Errors
    /// The same.
    pub fn latencies(&self, ways: &[&Way]) -> Result<Vec<[f64; 2]>, Failure> {
        let (kept, _) = self.windows(ways, &format!("--connections 64 --rate {} --histogram", self.rate))?;
        let of = |nth: usize| {
            let windows: Vec<&Window> = kept.iter().map(|round| &round[nth]).collect();
            percentiles(&windows, [0.5, 0.99])
        };
        (0..ways.len()).map(of).collect()
    }

    /// Instructions of a request in user space, those of the thread of the log with them.
    ///
    /// # Errors
    /// Valgrind is not installed, or a server or the client failed.
    pub fn instructions(&self, way: &Way) -> Result<f64, Failure> {
        let load = Load { programs: self.programs, path: PATH };
        let [few, many] = COUNTED.map(|requests| {
            collected(&self.template(way).command, |port| {
                let options = format!(
                    "--connections 16 --seconds 300 --requests {requests} {HEADERS} --timeout-ms 60000"
                );
                wait_for(port)?;
                number(&load.run(port, &options)?, "requests").map(drop)
            })
        });
        Ok((many? - few?) / f64::from(COUNTED[1] - COUNTED[0]))
    }
}

/// Under valgrind a server takes long to start.
fn wait_for(port: u16) -> Result<(), Failure> {
    for _ in 0..1000 {
        if get(port, PATH).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    get(port, PATH).map(drop)
}
