//! A workload for all contestants, in rounds next to each other.
//!
//! All servers and all clients of a workload run from its beginning to its end; one that is not asked sleeps and costs
//! nothing. A round gives each of them one short window, in an order of its own, so that a ratio within a round
//! compares moments that are half a second apart at most. Steal is told in ticks of 10 ms, too coarse for a window, so it is
//! judged for stretches of half a second or more, which are one round or several: rounds in a stretch with more than
//! `steal_max` are thrown away. If more than half of the rounds are left they make the figures, else all of them do, and
//! the table says so.

use crate::contestants::Spec;
use crate::progress::Progress;
use crate::results::{Outcome, Table};
use crate::workloads::{Kind, Workload};
use benches::runner::{
    Contestant, Failure, Figure, Load, SERVER_CPU, Server, UserTime, Watch, Window, get, median, number,
    order, percentiles, resident_bytes, traced,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Of every client, before the first window.
pub const WARMUP: &str = "--warmup 0.3";
/// What a tracer looks at.
const TRACED_SECONDS: f64 = 0.4;

/// How much to do.
pub struct Plan<'a> {
    pub programs: &'a Path,
    pub rounds: usize,
    /// Of each window.
    pub seconds: f64,
    pub steal_max: f64,
    /// Count system calls with a tracer, in a run of its own.
    pub traces: bool,
}

impl Plan<'_> {
    /// How many rounds, and how long each window is. In an open loop a server's pause has to fit into a window, for what
    /// would have been due behind its end is never asked: five times as long, and a fifth as many.
    pub fn rounds_of(&self, workload: &Workload) -> (usize, f64) {
        match workload.is_open_loop {
            true => (self.rounds.div_ceil(5), 5.0 * self.seconds),
            false => (self.rounds, self.seconds),
        }
    }
}

/// A contestant, and a window for each round in which it took part: all that there were.
struct Runner<'a> {
    spec: &'a Spec,
    contestant: Contestant,
    windows: Vec<Window>,
}

/// Starts one server for a workload.
pub fn start(spec: &Spec, kind: Kind, path: &str, cpus: &[usize], workers: usize) -> Result<Server, Failure> {
    Server::start_on(cpus, &spec.template(workers, cpus), "64", |port| match kind {
        Kind::Http => get(port, path).map(drop).or_else(|error| {
            // A path that only takes POST answers GET with an error, which is an answer.
            if path == "/echo" { get(port, "/plaintext").map(drop) } else { Err(error) }
        }),
        Kind::Echo => probe_echo(port),
    })
}

fn probe_echo(port: u16) -> Result<(), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping")?;
    let mut echo = [0; 4];
    stream.read_exact(&mut echo)?;
    if &echo == b"ping" { Ok(()) } else { Err("not an echo".into()) }
}

/// All figures of one workload.
pub fn table(
    plan: &Plan<'_>,
    workload: &Workload,
    specs: &[Spec],
    progress: &mut Progress,
) -> Result<Table, Failure> {
    let load = Load { programs: plan.programs, path: workload.path };
    let mut failures = Vec::new();
    let mut running = Vec::new();
    for spec in specs.iter().filter(|spec| spec.can_do(workload)) {
        let options = format!("{} --histogram {WARMUP}", workload.options);
        let started = start(spec, workload.kind, workload.path, &[SERVER_CPU], 1)
            .and_then(|server| Contestant::new(server, &load, &options, true));
        match started {
            Ok(contestant) => running.push(Runner { spec, contestant, windows: Vec::new() }),
            Err(error) => failures.push((spec.name.clone(), error.to_string())),
        }
    }
    let mut steals = Vec::new();
    let (rounds, seconds) = plan.rounds_of(workload);
    let mut watch = Watch::begin()?;
    for round in 0..rounds {
        for nth in order(round, running.len()) {
            let Runner { spec, contestant, windows } = &mut running[nth];
            match window(contestant, seconds) {
                Ok(window) => windows.push(window),
                Err(error) => failures.push((spec.name.clone(), format!("round {round}: {error}"))),
            }
            progress.step(workload.title, &spec.name);
        }
        if watch.is_long_enough() {
            steals.resize(round + 1, watch.others(0.0)?.stolen);
            watch = Watch::begin()?;
        }
        running.retain(|runner| runner.windows.len() > round);
    }
    // What is left is too short for ticks: it passes for what came before it.
    let last = steals.last().copied();
    steals.resize(rounds, last.map_or_else(|| watch.others(0.0).map(|others| others.stolen), Ok)?);
    let used = Used::of(&steals, plan.steal_max);
    let scale = |is_scale: fn(&Spec) -> bool| {
        running.iter().find(|runner| is_scale(runner.spec)).map(|runner| used.totals_us(runner))
    };
    let (floor, ours) = (scale(|spec| spec.is_floor), scale(|spec| spec.is_ours));
    let mut outcomes = Vec::new();
    for runner in &running {
        let mut outcome = outcome(runner, &used, floor.as_deref(), ours.as_deref())?;
        if plan.traces {
            let options = format!("{} --seconds {TRACED_SECONDS}", workload.options);
            outcome.syscalls_per_request = ["perf", "strace"]
                .into_iter()
                .find_map(|tracer| traced(tracer, &runner.contestant.server, &load, &options).ok())
                .map(|(_, calls)| calls);
        }
        outcomes.push(outcome);
    }
    Ok(Table {
        name: workload.name,
        title: workload.title,
        is_open_loop: workload.is_open_loop,
        outcomes,
        failures,
    })
}

fn window(contestant: &mut Contestant, seconds: f64) -> Result<Window, Failure> {
    let window = contestant.window(seconds)?;
    if window.requests == 0.0 {
        return Err("no answer in a whole window".into());
    }
    Ok(window)
}

/// The rounds that make the figures.
struct Used {
    /// In the order in which they were.
    rounds: Vec<usize>,
    /// Quiet ones, whether or not they are enough to be the only ones used.
    quiet: usize,
    /// Highest steal among those used.
    steal: f64,
}

impl Used {
    fn of(steals: &[f64], steal_max: f64) -> Self {
        let quiet: Vec<usize> = (0..steals.len()).filter(|&nth| steals[nth] <= steal_max).collect();
        let is_enough = 2 * quiet.len() > steals.len();
        let rounds = if is_enough { quiet.clone() } else { (0..steals.len()).collect() };
        let steal = rounds.iter().map(|&nth| steals[nth]).fold(0.0, f64::max);
        Self { rounds, quiet: quiet.len(), steal }
    }

    fn windows<'a>(&self, runner: &'a Runner<'_>) -> Vec<&'a Window> {
        self.rounds.iter().map(|&nth| &runner.windows[nth]).collect()
    }

    /// CPU time per request in each of them.
    fn totals_us(&self, runner: &Runner<'_>) -> Vec<f64> {
        self.windows(runner).into_iter().map(Window::total_us).collect()
    }
}

fn outcome(
    runner: &Runner<'_>,
    used: &Used,
    floor: Option<&[f64]>,
    ours: Option<&[f64]>,
) -> Result<Outcome, Failure> {
    let windows = used.windows(runner);
    let cpu = used.totals_us(runner);
    let against = |scale: Option<&[f64]>| {
        let ratios: Vec<f64> = cpu.iter().zip(scale?).map(|(cpu, scale)| cpu / scale).collect();
        Figure::of(&ratios)
    };
    let user = UserTime::of(windows.iter().copied(), Window::sampled);
    let requests: f64 = windows.iter().map(|window| window.requests).sum();
    let switches: u64 = windows.iter().map(|window| window.switches.total()).sum();
    let seconds: f64 = windows.iter().map(|window| window.seconds).sum();
    let server_busy = windows.iter().map(|window| window.cpu.total_ns as f64 / 1e9).sum::<f64>() / seconds;
    // Without the turns in which it only spun.
    let busy_shares: Vec<f64> =
        windows.iter().filter_map(|window| number(&window.report, "busy_share").ok()).collect();
    let client_busy = median(&busy_shares).unwrap_or(0.0);
    let rates: Vec<f64> = windows.iter().map(|window| window.rate()).collect();
    let [p50_us, p99_us, p999_us] = percentiles(&windows, [0.5, 0.99, 0.999])?;
    Ok(Outcome {
        contestant: runner.spec.name.clone(),
        role: runner.spec.role(),
        cpu_us: Figure::of(&cpu).ok_or("no window")?,
        to_floor: against(floor),
        to_ours: against(ours),
        user_us: user.us_per_request,
        user_error: user.error,
        requests_per_second: Figure::of(&rates).ok_or("no window")?,
        switches_per_request: switches as f64 / requests,
        syscalls_per_request: None,
        resident_bytes: resident_bytes(runner.contestant.server.pid())?,
        p50_us,
        p99_us,
        p999_us,
        kept: used.quiet,
        rounds: runner.windows.len(),
        steal: used.steal,
        is_client_bound: server_busy < 0.9 && client_busy > 0.9,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_rounds_make_no_figure_unless_most_of_them_are() {
        let used = Used::of(&[0.01, 0.3, 0.05], 0.05);
        assert_eq!((used.rounds, used.quiet, used.steal), (vec![0, 2], 2, 0.05));

        let used = Used::of(&[0.01, 0.3, 0.2, 0.0], 0.05);
        assert_eq!((used.rounds, used.quiet, used.steal), (vec![0, 1, 2, 3], 2, 0.3));
    }
}
