//! `cargo bench-suite`: this server and others side by side, as Markdown, JSON and charts.
//!
//! It builds everybody who builds here, starts them with one worker on core 0 and the load client on core 1, and goes
//! through the workloads in rounds in which each contestant has its turn (`measure.rs`). What is measured and how far to
//! believe it: docs/BENCHMARKING.md. Everything listens on 127.0.0.1, is bounded in count and time, and is ended by
//! pid, also when something fails.
//!
//! Options (defaults in brackets): `--quick` the usual workloads only, fewer rounds, within five minutes; `--only
//! WORKLOAD,..` by the beginning of the name; `--peers NAME,..` of the peers only those whose name contains one of these,
//! `--peers none` for none; `--rounds` \[181, quick 71\]; `--seconds` \[0.03\] of each window (in the open loop a
//! fifth of the rounds, five times as long); `--steal-max` \[0.05\]
//! share of a core above which a round is dropped; `--no-memory`; `--no-scaling`; `--no-traces`; `--no-conformance`;
//! `--out DIR` \[benches/results/DATE-MACHINE\]; `--programs DIR` use our programs there and do not build them;
//! `--list`;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\], and with `uring` the floor too.
//!
//! Three more load nothing, and read the results of earlier runs, in their directories: `--compare DIR DIR` says how far two of
//! them agree, `--chart DIR ..` prints the chart in docs/cpu-per-request.svg, and `--tables DIR ..` the tables in docs/RESULTS.md.

mod chart;
mod compare;
mod conformance;
mod contestants;
mod machine;
mod markdown;
mod measure;
mod memory;
mod progress;
mod results;
mod scaling;
mod summary;
mod workloads;

use benches::runner::{Failure, LOAD_CPU, backend, build, digits};
use benches::{known_options, option, sys};
use chart::{Bar, Chart, Role};
use contestants::{Field, Spec};
use progress::Progress;
use results::{Results, Table};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use workloads::{Kind, WORKLOADS, Workload};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    if args.iter().any(|arg| arg == "--compare") {
        let [_, first, second] = &args[..] else {
            return Err("--compare wants two directories and nothing else".into());
        };
        print!("{}", compare::directories(Path::new(first), Path::new(second))?);
        return Ok(());
    }
    let summary = match args.first().map(String::as_str) {
        Some("--chart") => Some(summary::chart(&args[1..])?),
        Some("--tables") => Some(summary::tables(&args[1..])?),
        _ => None,
    };
    if let Some(text) = summary {
        print!("{text}");
        return Ok(());
    }
    let options = ["--only", "--peers", "--rounds", "--seconds", "--steal-max", "--out", "--programs"];
    known_options(
        &args,
        &options,
        &["--quick", "--list", "--no-memory", "--no-scaling", "--no-traces", "--no-conformance"],
    )?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let words = |name: &str| -> Result<Vec<String>, Failure> {
        let text: String = option(&args, name, String::new())?;
        Ok(text.split(',').filter(|word| !word.is_empty()).map(String::from).collect())
    };
    let (only, quick) = (words("--only")?, has("--quick"));
    let is_wanted = |workload: &&Workload| match only.is_empty() {
        true => !quick || workload.is_quick,
        false => only.iter().any(|name| workload.name.starts_with(name.as_str())),
    };
    let chosen: Vec<&Workload> = WORKLOADS.iter().filter(is_wanted).collect();
    if has("--list") {
        WORKLOADS.iter().for_each(|workload| println!("{:<14} {}", workload.name, workload.title));
        return Ok(());
    }
    if chosen.is_empty() {
        return Err("no workload of that name: see --list".into());
    }
    let programs = if has("--programs") {
        option(&args, "--programs", PathBuf::new())?
    } else {
        build(&[&["-p", "benches", "--bins"], &["-p", "examples", "--bin", "mini-program"]])?
    };
    let kinds: Vec<Kind> = chosen.iter().map(|workload| workload.kind).collect();
    let Field { specs, skipped } = contestants::field(&programs, &words("--peers")?, &kinds)?;
    sys::raise_open_files(20_064)?;
    sys::pin_current_thread(&[LOAD_CPU])?;
    let plan = measure::Plan {
        programs: &programs,
        rounds: option(&args, "--rounds", if quick { 71 } else { 181 })?.clamp(1, 9999),
        seconds: option(&args, "--seconds", 0.03_f64)?.clamp(0.01, 30.0),
        steal_max: option(&args, "--steal-max", 0.05)?,
        traces: !has("--no-traces") && !quick,
    };

    let windows = |workload: &Workload| {
        specs.iter().filter(|spec| spec.can_do(workload)).count() * plan.rounds_of(workload).0
    };
    let mut progress = Progress::new(chosen.iter().map(|workload| windows(workload)).sum());
    let mut tables = Vec::new();
    for workload in &chosen {
        let specs: Vec<Spec> = specs.iter().map(|spec| spec.for_workload(workload)).collect();
        tables.push(measure::table(&plan, workload, &specs, &mut progress)?);
    }
    progress.finish();
    let http: Vec<&Spec> = specs.iter().filter(|spec| spec.kind == Kind::Http).collect();
    let mut failed = skipped;
    let mut memory = Vec::new();
    for spec in http.iter().filter(|spec| !has("--no-memory") && spec.can("idle")) {
        eprintln!("idle connections: {}", spec.name);
        match memory::of(spec, &programs) {
            Ok(one) => memory.push(one),
            Err(error) => failed.push((format!("{}, idle connections", spec.name), error.to_string())),
        }
    }
    let mut conformance = Vec::new();
    for spec in http.iter().filter(|spec| !has("--no-conformance") && !spec.is_floor) {
        eprintln!("conformance: {}", spec.name);
        match conformance::of(spec, &programs) {
            Ok(one) => conformance.push(one),
            Err(error) => failed.push((format!("{}, conformance", spec.name), error.to_string())),
        }
    }
    conformance.sort_by_key(|one| std::cmp::Reverse(one.must.0));
    memory.sort_by(|a, b| a.idle_bytes.total_cmp(&b.idle_bytes));
    let is_scaled = |spec: &&&Spec| {
        spec.can_have(2) && (spec.is_ours || ["hyper", "actix"].iter().any(|name| spec.name.contains(name)))
    };
    let mut scaling = Vec::new();
    for spec in http.iter().filter(is_scaled).filter(|_| !has("--no-scaling") && !quick) {
        eprintln!("two workers: {}", spec.name);
        match scaling::of(&plan, spec) {
            Ok(one) => scaling.push(one),
            Err(error) => failed.push((format!("{}, two workers", spec.name), error.to_string())),
        }
    }
    let results = Results {
        machine: machine::description(),
        command: command(&args),
        contestants: specs
            .iter()
            .map(|spec| (spec.name.clone(), spec.configuration.clone(), spec.leaves_out.clone()))
            .collect(),
        tables,
        memory,
        scaling,
        conformance,
        skipped: failed,
    };
    let date = &results.machine[0].1;
    let default =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("results/{date}-{}", machine::short_name()?));
    let out: PathBuf = option(&args, "--out", default.display().to_string())?.into();
    write(&results, &specs, &out)?;
    results.tables.iter().for_each(|table| println!("{}", markdown::table(table)));
    println!("written to {}", out.display());
    Ok(())
}

/// What to type for the same again.
fn command(args: &[String]) -> String {
    let backend = backend().map(|name| format!("--backend {name}"));
    let words = backend.iter().chain(args).map(String::as_str);
    ["cargo bench-suite"].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn write(results: &Results, specs: &[Spec], out: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("README.md"), markdown::render(results))?;
    std::fs::write(out.join("results.json"), format!("{:#}\n", results.to_json()))?;
    let role = |name: &str| match specs.iter().find(|spec| spec.name == name) {
        Some(spec) if spec.is_ours => Role::Ours,
        Some(spec) if spec.is_floor => Role::Floor,
        _ => Role::Peer,
    };
    for table in &results.tables {
        std::fs::write(out.join(format!("{}.svg", table.name)), ratios(table, &role))?;
        if table.is_open_loop {
            std::fs::write(out.join(format!("{}-latency.svg", table.name)), latencies(table, &role))?;
        }
    }
    if !results.memory.is_empty() {
        let bars: Vec<Bar> = results
            .memory
            .iter()
            .map(|memory| Bar {
                label: memory.contestant.clone(),
                value: memory.idle_bytes,
                whisker: None,
                role: role(&memory.contestant),
                text: format!("{:.0} B", memory.idle_bytes),
            })
            .collect();
        let title = "Resident bytes per idle connection after one request";
        std::fs::write(out.join("memory.svg"), Chart { title, bars, line: None, notes: &[] }.svg())?;
    }
    Ok(())
}

/// CPU per request against the floor or ours, or in us where neither could do it.
fn ratios(table: &Table, role: &dyn Fn(&str) -> Role) -> String {
    let has_scale = table.outcomes.iter().any(|outcome| outcome.ratio().is_some());
    let bars: Vec<Bar> = table
        .ranked()
        .into_iter()
        .map(|outcome| {
            let figure = outcome.ratio().unwrap_or(outcome.cpu_us);
            let unit = if outcome.ratio().is_some() { "x" } else { "us" };
            Bar {
                label: outcome.contestant.clone(),
                value: figure.median,
                whisker: Some((figure.low, figure.high)),
                role: role(&outcome.contestant),
                text: format!("{} {unit}", digits(figure.median)),
            }
        })
        .collect();
    let title = format!("{}: server CPU per request", table.title);
    Chart { title: &title, bars, line: has_scale.then_some((1.0, table.scale())), notes: &[] }.svg()
}

/// The percentiles of an open loop.
fn latencies(table: &Table, role: &dyn Fn(&str) -> Role) -> String {
    let mut ranked = table.ranked();
    ranked.sort_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
    let bars: Vec<Bar> = ranked
        .into_iter()
        .map(|outcome| Bar {
            label: outcome.contestant.clone(),
            value: outcome.p99_us,
            whisker: Some((outcome.p50_us, outcome.p999_us)),
            role: role(&outcome.contestant),
            text: format!("{:.0} / {:.0} / {:.0} us", outcome.p50_us, outcome.p99_us, outcome.p999_us),
        })
        .collect();
    Chart { title: &format!("{}: p50 / p99 / p99.9", table.title), bars, line: None, notes: &[] }.svg()
}
