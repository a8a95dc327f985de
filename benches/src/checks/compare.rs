//! Checks 4 and 5: CPU time per request against the floor, and its user-space part against hyper.
//!
//! Servers and clients stay for all rounds, and windows are short, so that a round is over before the machine has changed.
//! The ratio to the floor is taken within each round; the figure is the median of the rounds. User time is added up over
//! all kept rounds, and min..max are the figures of the first and the second half of them: how far the measurement
//! repeats. How both are measured: [`benches::runner::Contestant`]. With `--only 4` nothing is sampled.
//!
//! The client never sleeps (`--spin`), so that no contestant pays for waking it: see the load client.

use crate::Plan;
use crate::table::{Row, Verdict};
use benches::runner::{Contestant, Failure, Server, Template, UserTime, Window, digits, median, range, run};
use benches::sampler::Sides;

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
        let load = plan.load();
        let options = format!("{} --warmup 0.3", workload.options);
        let mut servers = Vec::new();
        for template in [Some(server), Some(floor), hyper].into_iter().flatten() {
            let server = Server::start(template, "64", &plan.path)?;
            servers.push(Contestant::new(server, &load, &options, hyper.is_some())?);
        }
        let source = if servers[0].is_sampled() { "sampled" } else { "ticks" };
        plan.conditions.say(format_args!("checks 4 and 5, {}", workload.name));
        let (kept, rounds) = run(&plan.conditions, servers.len(), |nth| servers[nth].window(plan.seconds))?;

        let of = |nth: usize| kept.iter().map(move |round| &round[nth]);
        let us = |nth: usize| median(&of(nth).map(Window::total_us).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        let ratios: Vec<f64> = kept.iter().map(|round| round[0].total_us() / round[1].total_us()).collect();
        let noisy = (kept.len() < plan.conditions.rounds).then_some(Verdict::Noisy);
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
        let rate = |nth: usize| median(&of(nth).map(Window::rate).collect::<Vec<_>>());
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
