//! A workload for all contestants, in rounds next to each other.
//!
//! All servers of a workload run from its beginning to its end; one that is not asked sleeps and costs nothing. A
//! round gives each of them one window, in reversed order every other round. Windows with more than `steal_max`
//! of steal are thrown away, but with a dozen contestants not the whole round: if more than half of the windows
//! of a contestant are left they make its figures, else all of them do, and the table says so.

use crate::contestants::Spec;
use crate::progress::Progress;
use crate::results::{Figure, Outcome, Table};
use crate::workloads::{Kind, Workload};
use benches::runner::{
    Contestant, Failure, Load, Machine, SERVER_CPU, Server, UserTime, Window, get, median, number,
    resident_bytes, traced,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Ticks of /proc/stat per second.
const TICKS: f64 = benches::runner::TICKS_PER_SECOND;

/// How much to do.
pub struct Plan<'a> {
    pub programs: &'a Path,
    pub rounds: usize,
    pub seconds: f64,
    pub steal_max: f64,
    /// Count system calls with a tracer, in a run of its own.
    pub traces: bool,
}

/// One window and the steal in it.
struct Taken {
    window: Window,
    seconds: f64,
    steal: f64,
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
    let options = format!("{} --seconds {}", workload.options, plan.seconds);
    let mut failures = Vec::new();
    let mut running = Vec::new();
    for spec in specs.iter().filter(|spec| spec.can_do(workload)) {
        let warm = format!("{} --seconds 0.3", workload.options);
        let started = start(spec, workload.kind, workload.path, &[SERVER_CPU], 1)
            .map(|server| Contestant::new(server, true))
            .and_then(|mut contestant| contestant.window(&load, &warm).map(|_| contestant));
        match started {
            Ok(contestant) => running.push((spec, contestant, Vec::<Taken>::new())),
            Err(error) => failures.push((spec.name.clone(), error.to_string())),
        }
    }
    for round in 0..plan.rounds {
        let count = running.len();
        for place in 0..count {
            let nth = if round % 2 == 0 { place } else { count - 1 - place };
            let (spec, contestant, taken) = &mut running[nth];
            match take(contestant, &load, &options) {
                Ok(window) => taken.push(window),
                Err(error) => failures.push((spec.name.clone(), format!("round {round}: {error}"))),
            }
            progress.step(workload.title, &spec.name);
        }
        running.retain(|(.., taken)| taken.len() > round);
    }
    let floor = running.iter().position(|(spec, ..)| spec.is_floor);
    let floor: Option<Vec<f64>> =
        floor.map(|nth| running[nth].2.iter().map(|taken| taken.window.total_us()).collect());
    let mut outcomes = Vec::new();
    for (spec, contestant, taken) in &running {
        let mut outcome = outcome(plan, spec, contestant, taken, floor.as_deref())?;
        if plan.traces {
            outcome.syscalls_per_request = ["perf", "strace"]
                .into_iter()
                .find_map(|tracer| traced(tracer, &contestant.server, &load, &options).ok())
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

fn take(contestant: &mut Contestant, load: &Load<'_>, options: &str) -> Result<Taken, Failure> {
    let (before, begin) = (Machine::now()?, Instant::now());
    let window = contestant.window(load, options)?;
    if window.requests == 0.0 {
        return Err("no answer in a whole window".into());
    }
    let (after, seconds) = (Machine::now()?, begin.elapsed().as_secs_f64());
    Ok(Taken { window, seconds, steal: (after.stolen - before.stolen) as f64 / (TICKS * seconds) })
}

fn outcome(
    plan: &Plan<'_>,
    spec: &Spec,
    contestant: &Contestant,
    taken: &[Taken],
    floor: Option<&[f64]>,
) -> Result<Outcome, Failure> {
    let quiet: Vec<usize> = (0..taken.len()).filter(|&nth| taken[nth].steal <= plan.steal_max).collect();
    let used = if 2 * quiet.len() > taken.len() { quiet.clone() } else { (0..taken.len()).collect() };
    let windows: Vec<&Window> = used.iter().map(|&nth| &taken[nth].window).collect();
    let of = |figure: &dyn Fn(&Window) -> f64| -> Vec<f64> {
        windows.iter().map(|window| figure(window)).collect()
    };
    let report = |key: &str| median(&of(&|window| number(&window.report, key).unwrap_or(f64::NAN)));
    let cpu = of(&Window::total_us);
    let ratios: Option<Vec<f64>> = floor.map(|floor| {
        used.iter().filter_map(|&nth| Some(taken[nth].window.total_us() / floor.get(nth)?)).collect()
    });
    let user = UserTime::of(windows.iter().copied(), Window::sampled);
    let requests: f64 = windows.iter().map(|window| window.requests).sum();
    let switches: u64 = windows.iter().map(|window| window.switches.total()).sum();
    let seconds: f64 = used.iter().map(|&nth| taken[nth].seconds).sum();
    let server_busy = windows.iter().map(|window| window.cpu.total_ns as f64 / 1e9).sum::<f64>() / seconds;
    // Without the turns in which it only spun.
    let client_busy = report("busy_share").unwrap_or(0.0);
    let missing = || Failure::from("no window");
    Ok(Outcome {
        contestant: spec.name.clone(),
        cpu_us: Figure::of(&cpu).ok_or_else(missing)?,
        to_floor: ratios.as_deref().and_then(Figure::of),
        user_us: user.us_per_request,
        user_error: user.error,
        requests_per_second: Figure::of(&of(&|window| {
            number(&window.report, "requests_per_second").unwrap_or(f64::NAN)
        }))
        .ok_or_else(missing)?,
        switches_per_request: switches as f64 / requests,
        syscalls_per_request: None,
        resident_bytes: resident_bytes(contestant.server.pid())?,
        p50_us: report("p50_us").unwrap_or(f64::NAN),
        p99_us: report("p99_us").unwrap_or(f64::NAN),
        p999_us: report("p999_us").unwrap_or(f64::NAN),
        kept: quiet.len(),
        rounds: taken.len(),
        steal: used.iter().map(|&nth| taken[nth].steal).fold(0.0, f64::max),
        is_client_bound: server_busy < 0.9 && client_busy > 0.9,
    })
}
