//! Checks 4 and 5: CPU time per request against the floor, and its user-space part against hyper.
//!
//! *Total* is the scheduler's own sum of run time (/proc/PID/task/*/schedstat), exact to the ns and free of
//! steal. Its ratio to the floor is taken within each round; the figure is the median of the rounds.
//!
//! The client never sleeps (`--spin`), so that no contestant pays for waking it: see the load client.
//!
//! *User space* has no exact source on an ordinary kernel: somebody has to look, now and then, where the server
//! is. utime and stime count which side a timer tick (4 ms at HZ 250) happened to hit; one run of a second has a
//! dozen ticks in user space for a good server, too few for a ratio. So the kernel's sampling clock looks every
//! 0.25 ms of the server's run time ([`benches::sampler`]; ticks are the fallback where that is not permitted),
//! samples are added up over *all* kept rounds first, and then
//!
//! user time per request = (user samples / all samples) x exact run time / requests.
//!
//! It is one ratio of two sums, without a median. It does not suffer from what makes the total noisy: cold caches
//! and deeper kernel queues while the host is busy show up in the kernel's part. What is left is the error of a
//! count, 1/sqrt(user samples), which the note shows as ± one standard deviation; longer or more rounds shrink it.
//! min..max are the figures of the first and the second half of the rounds: how far the measurement repeats.
//! Sampling costs every contestant the same small time, so check 4 is sampled too; `--only 4` is not.

use crate::proc::CpuTime;
use crate::process::{Load, Server, Template, number};
use crate::rounds::{self, Sample};
use crate::table::{Row, Verdict, digits, median, range};
use crate::{Failure, Plan};
use benches::sampler::{Sampler, Sides};

/// One load: connections, pipeline depth, and the bounds of checks 4 and 5 for it.
struct Workload {
    name: &'static str,
    options: &'static str,
    total_bound: f64,
    user_bound: f64,
}

const WORKLOADS: [Workload; 2] = [
    Workload {
        name: "64 connections",
        options: "--connections 64 --spin",
        total_bound: 1.10,
        user_bound: 0.30,
    },
    Workload {
        name: "64 x16 pipelined",
        options: "--connections 64 --depth 16 --spin",
        total_bound: 1.25,
        user_bound: 0.18,
    },
];

struct Window {
    requests: f64,
    cpu: CpuTime,
    load_seconds: f64,
    sampled: Option<Sides>,
}

impl Sample for Window {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e9 + self.load_seconds
    }
}

impl Window {
    fn total_us(&self) -> f64 {
        self.cpu.total_ns as f64 / 1e3 / self.requests
    }

    fn sampled(&self) -> Sides {
        self.sampled.unwrap_or_else(|| self.ticks())
    }

    /// In units of USER_HZ, 100, where HZ is 250: fewer than the ticks were, so an error from them is too large.
    fn ticks(&self) -> Sides {
        Sides { user: self.cpu.user_ticks, kernel: self.cpu.system_ticks }
    }
}

/// User-space time of one contestant, summed over rounds.
struct UserTime {
    us_per_request: f64,
    /// One standard deviation, as a share of the figure.
    error: f64,
}

impl UserTime {
    fn of<'a>(windows: impl Iterator<Item = &'a Window>, sides: fn(&Window) -> Sides) -> Self {
        let (mut requests, mut ns, mut user, mut all) = (0.0, 0, 0, 0);
        for window in windows {
            requests += window.requests;
            ns += window.cpu.total_ns;
            let Sides { user: hits, kernel } = sides(window);
            user += hits;
            all += hits + kernel;
        }
        let share = user as f64 / all.max(1) as f64;
        Self {
            us_per_request: share * ns as f64 / 1e3 / requests,
            error: ((1.0 - share) / user.max(1) as f64).sqrt(),
        }
    }
}

/// A running server and, where the kernel permits it, its sampler.
struct Contestant {
    server: Server,
    sampler: Option<Sampler>,
}

impl Contestant {
    fn window(&mut self, load: &Load<'_>, options: &str) -> Result<Window, Failure> {
        let before = CpuTime::of(self.server.pid())?;
        self.sampler.as_mut().map(Sampler::drain);
        let report = load.run(self.server.port, options)?;
        let cpu = CpuTime::of(self.server.pid())?.since(before);
        Ok(Window {
            requests: number(&report, "requests")?,
            cpu,
            load_seconds: number(&report, "cpu_seconds")?,
            sampled: self.sampler.as_mut().map(Sampler::drain),
        })
    }
}

/// Rows of check 4 and, with `hyper`, of check 5.
pub fn check(
    plan: &Plan,
    server: &Template,
    floor: &Template,
    hyper: Option<&Template>,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut user_rows = Vec::new();
    for workload in &WORKLOADS {
        // One process each for all rounds: start-up stays out of it, and ticks add up without loss.
        let mut servers = Vec::new();
        for template in [Some(server), Some(floor), hyper].into_iter().flatten() {
            let server = Server::start(template, "64", &plan.path)?;
            let sampler = hyper.and_then(|_| Sampler::attach(server.pid()).ok());
            servers.push(Contestant { server, sampler });
        }
        let source = if servers[0].sampler.is_some() { "sampled" } else { "ticks" };
        let load = plan.load();
        for contestant in &mut servers {
            contestant.window(&load, &format!("{} --seconds 0.3", workload.options))?;
        }
        plan.say(format_args!("checks 4 and 5, {}", workload.name));
        let (kept, rounds) = rounds::run(plan, servers.len(), |nth| {
            servers[nth].window(&load, &format!("{} --seconds {}", workload.options, plan.seconds))
        })?;

        let of = |nth: usize| kept.iter().map(move |round| &round[nth]);
        let us = |nth: usize| median(&of(nth).map(Window::total_us).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        let ratios: Vec<f64> = kept.iter().map(|round| round[0].total_us() / round[1].total_us()).collect();
        let noisy = (kept.len() < plan.rounds).then_some(Verdict::Noisy);
        let mut note = format!("{} us against {} us", digits(us(0)), digits(us(1)));
        if hyper.is_some() {
            let to_hyper: Vec<f64> =
                kept.iter().map(|round| round[2].total_us() / round[1].total_us()).collect();
            note += &format!(
                "; hyper {} us = {} x floor",
                digits(us(2)),
                digits(median(&to_hyper).unwrap_or(f64::NAN))
            );
        }
        let rate = |nth: usize| median(&of(nth).map(|one| one.requests / plan.seconds).collect::<Vec<_>>());
        note += &format!("; {:.0} req/s", rate(0).unwrap_or(f64::NAN));
        rows.push(Row {
            figure: median(&ratios),
            range: range(&ratios),
            rounds,
            note,
            verdict: noisy,
            ..Row::new(4, format!("CPU/request against floor, {}", workload.name), "x", workload.total_bound)
        });
        if hyper.is_none() || kept.len() < 2 {
            continue;
        }
        let half = kept.len() / 2;
        let ratio = |part: &[Vec<Window>], sides: fn(&Window) -> Sides| {
            let [ours, theirs] =
                [0, 2].map(|nth| UserTime::of(part.iter().map(|round| &round[nth]), sides).us_per_request);
            ours / theirs
        };
        let [ours, floors, theirs] = [0, 1, 2].map(|nth| UserTime::of(of(nth), Window::sampled));
        user_rows.push(Row {
            figure: Some(ratio(&kept, Window::sampled)),
            range: range(&[ratio(&kept[..half], Window::sampled), ratio(&kept[half..], Window::sampled)]),
            rounds,
            note: format!(
                "± {:.0} % ({source}), by ticks {}; {} us against {} us; floor {} us",
                ours.error.hypot(theirs.error) * 100.0,
                digits(ratio(&kept, Window::ticks)),
                digits(ours.us_per_request),
                digits(theirs.us_per_request),
                digits(floors.us_per_request),
            ),
            verdict: noisy,
            ..Row::new(
                5,
                format!("user CPU/request against hyper, {}", workload.name),
                "x",
                workload.user_bound,
            )
        });
    }
    rows.append(&mut user_rows);
    Ok(rows)
}
