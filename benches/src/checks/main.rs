//! `cargo bench-checks`: the figures that the project promises, measured, as one table.
//!
//! It builds what it needs, starts servers with one worker on core 0 and the load client on core 1, and prints a
//! row per check: the figure, its bound, the smallest and largest round, kept and dropped rounds, and the steal.
//! How each figure is made is in the header of its file; how rounds are kept in `runner/rounds.rs`. Everything listens on
//! 127.0.0.1 on free ports, is bounded in count and time, and is ended by pid, also when something fails.
//!
//! Options (defaults in brackets):
//! `--only 3,4,5,7,8,13` which checks; `--rounds` \[61\] kept rounds of checks 4 and 5, and `--seconds` \[0.2\] of each
//! window in them (the others have lengths of their own); `--json` one JSON object per row, on standard output, instead of the table;
//! `--server "CMD {port} {budget}"` the server to judge \[mini-program\]; `--floor "CMD {port}"` what to compare
//! it with \[floor\]; `--hyper "CMD {port}"` \[hyper-peer\]; `--no-hyper`; `--path` \[/plaintext\];
//! `--steal-max` \[0.05\] and `--other-max` \[0.10\] shares of a core at which a round is dropped;
//! `--programs DIR` use the programs there and build nothing; `--verbose` progress on standard error;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].
//! Exit status: 0 all passed or skipped, 1 one failed or was too noisy to say, 2 could not measure.

mod compare;
mod fairness;
mod idle;
mod start;
mod syscalls;
mod table;

use benches::runner::{Conditions, Failure, LOAD_CPU, Load, Template, build};
use benches::{known_options, option, sys};
use std::path::PathBuf;
use std::process::ExitCode;
use table::{Row, Verdict};

const OPTIONS: [&str; 10] = [
    "--only",
    "--rounds",
    "--seconds",
    "--server",
    "--floor",
    "--hyper",
    "--path",
    "--steal-max",
    "--other-max",
    "--programs",
];

/// How to measure.
pub struct Plan {
    /// Rounds of checks 4 and 5, and the quiet that all need.
    pub conditions: Conditions,
    /// Length of each window in checks 4 and 5.
    pub seconds: f64,
    /// What to ask for.
    pub path: String,
    programs: PathBuf,
}

impl Plan {
    /// The load client with the options that all runs share.
    pub fn load(&self) -> Load<'_> {
        Load { programs: &self.programs, path: &self.path }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("checks: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &OPTIONS, &["--json", "--no-hyper", "--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let only: String = option(&args, "--only", "3,4,5,7,8,13".into())?;
    let only = only.split(',').map(str::parse).collect::<Result<Vec<u8>, _>>()?;
    let programs = if has("--programs") {
        option(&args, "--programs", PathBuf::new())?
    } else {
        let mut packages = vec![&["-p", "benches", "--bins", "--features", "peers"][..]];
        if has("--no-hyper") {
            packages[0] = &packages[0][..3];
        }
        if !has("--server") {
            packages.push(&["-p", "examples", "--bin", "mini-program"]);
        }
        build(&packages)?
    };
    let program = |name: &'static str, rest: &str, flag: &str| -> Result<Template, Failure> {
        let default = format!("{} {rest}", programs.join(name).display());
        Ok(Template { name: name.into(), command: option(&args, flag, default)?, configuration: None })
    };
    let server_options = "--addr 127.0.0.1:{port} --workers 1 --cpus 0 --budget {budget}";
    let mut server = program("mini-program", server_options, "--server")?;
    if has("--server") {
        server.name = "the server".into();
    }
    let floor = program("floor", "--port {port}", "--floor")?;
    let hyper = program("hyper-peer", "--port {port}", "--hyper")?;
    let plan = Plan {
        conditions: Conditions {
            rounds: option(&args, "--rounds", 61_usize)?.clamp(1, 9999),
            steal_max: option(&args, "--steal-max", 0.05)?,
            other_max: option(&args, "--other-max", 0.10)?,
            verbose: has("--verbose"),
        },
        seconds: option(&args, "--seconds", 0.2_f64)?.clamp(0.02, 30.0),
        path: option(&args, "--path", "/plaintext".into())?,
        programs: programs.clone(),
    };

    sys::raise_open_files(20_064)?;
    sys::pin_current_thread(&[LOAD_CPU])?;
    if !has("--json") {
        Row::print_head();
    }
    let mut good = true;
    let mut show = |rows: Vec<Row>| {
        for row in rows.iter().filter(|row| only.contains(&row.check)) {
            good &= matches!(row.verdict(), Verdict::Pass | Verdict::Skipped);
            if has("--json") {
                println!("{}", row.to_json());
            } else {
                row.print();
            }
        }
    };
    if only.contains(&3) {
        show(syscalls::check(&plan, &server)?);
    }
    if only.contains(&4) || only.contains(&5) {
        let hyper = (only.contains(&5) && !has("--no-hyper")).then_some(&hyper);
        show(compare::check(&plan, &server, &floor, hyper)?);
    }
    if only.contains(&7) {
        show(idle::check(&plan, &server)?);
    }
    if only.contains(&8) {
        show(fairness::check(&plan, &server)?);
    }
    if only.contains(&13) {
        show(start::check(&plan, &server)?);
    }
    Ok(good)
}
