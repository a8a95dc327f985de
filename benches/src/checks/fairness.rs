//! Check 8: what one flooding connection costs 64 polite ones, with a turn budget and without.
//!
//! Polite connections pause 5 ms between answer and next request, so that their latency is the wait behind the
//! flood and not behind each other. Two servers run, one with `--budget 64` and one with `--budget unlimited`;
//! rounds alternate. The figure is the median over rounds of p99(unlimited) / p99(64). With the budget, the
//! longest wait of any round is bounded too, and nobody may be left without an answer.

use crate::Plan;
use crate::table::{Row, Verdict};
use benches::runner::Failure;
use benches::runner::{Conditions, CpuTime};
use benches::runner::{Sample, run};
use benches::runner::{Server, Template, number};
use benches::runner::{digits, median, range};

const OPTIONS: &str = "--connections 64 --pause-us 5000 --flood 1";
/// Enough for a 99th percentile of polite requests in each.
const SECONDS: f64 = 1.0;
const ROUNDS: usize = 11;
/// Longer than any scheduling hiccup of a shared host, far shorter than "for ever".
const WAIT_MAX_MS: f64 = 500.0;

struct Waits {
    p99_us: f64,
    max_us: f64,
    starved: bool,
    flood: f64,
    polite: f64,
    cpu_seconds: f64,
}

impl Sample for Waits {
    fn own_cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }
}

pub fn check(plan: &Plan, template: &Template) -> Result<Vec<Row>, Failure> {
    let what = "p99 beside a flood: unlimited / budget 64";
    let mut ratio = Row { at_least: true, ..Row::new(8, what, "x", 3.0) };
    if !template.has_budget() {
        ratio.note = "the server command has no {budget}".into();
        return Ok(vec![ratio]);
    }
    let servers =
        [Server::start(template, "64", &plan.path)?, Server::start(template, "unlimited", &plan.path)?];
    let load = plan.load();
    plan.conditions.say(format_args!("check 8"));
    let conditions = Conditions { rounds: ROUNDS, ..plan.conditions };
    let (kept, rounds) = run(&conditions, servers.len(), |nth| {
        let before = CpuTime::of(servers[nth].pid())?;
        let report = load.run(servers[nth].port, &format!("{OPTIONS} --seconds {SECONDS}"))?;
        let cpu = CpuTime::of(servers[nth].pid())?.since(before);
        Ok(Waits {
            cpu_seconds: cpu.total_ns as f64 / 1e9 + number(&report, "cpu_seconds")?,
            p99_us: number(&report, "p99_us")?.max(1.0),
            max_us: number(&report, "max_us")?,
            starved: number(&report, "least_answers_of_a_connection")? < 1.0
                || number(&report, "unanswered")? > 0.0,
            flood: number(&report, "flood_requests")? / SECONDS,
            polite: number(&report, "requests_per_second")?,
        })
    })?;
    let ratios: Vec<f64> = kept.iter().map(|round| round[1].p99_us / round[0].p99_us).collect();
    let middle = |pick: fn(&Waits) -> f64, nth: usize| {
        digits(median(&kept.iter().map(|round| pick(&round[nth])).collect::<Vec<_>>()).unwrap_or(f64::NAN))
    };
    let noisy = (kept.len() < ROUNDS).then_some(Verdict::Noisy);
    ratio = Row {
        figure: median(&ratios),
        range: range(&ratios),
        rounds,
        note: format!(
            "{} us against {} us; flood {}/s against {}/s, polite {}/s against {}/s",
            middle(|waits| waits.p99_us, 1),
            middle(|waits| waits.p99_us, 0),
            middle(|waits| waits.flood, 1),
            middle(|waits| waits.flood, 0),
            middle(|waits| waits.polite, 1),
            middle(|waits| waits.polite, 0),
        ),
        verdict: noisy,
        ..ratio
    };
    let waits: Vec<f64> = kept.iter().map(|round| round[0].max_us / 1e3).collect();
    let starved = kept.iter().any(|round| round[0].starved);
    let longest = Row {
        figure: range(&waits).map(|(_, max)| max),
        range: range(&waits),
        rounds,
        note: if starved { "a connection got no answer".into() } else { "everybody was answered".into() },
        verdict: if starved { Some(Verdict::Fail) } else { noisy },
        ..Row::new(8, "longest wait beside a flood, budget 64", "ms", WAIT_MAX_MS)
    };
    Ok(vec![ratio, longest])
}
