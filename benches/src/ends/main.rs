//! `cargo bench-ends`: what is lost at the ends of things, counted: restarts, memory, places, refusals.
//!
//! It builds the mini-program, starts it as often as it needs and plays the clients: those that keep to the protocol and those
//! that do not. One row for each check: the exact count, what it may be, and `ok` or `FAILED`. No row depends on how fast
//! the machine is. What each part does is in the header of its file. Everything listens on 127.0.0.1 on free ports, is
//! bounded in count and time, and ends what it started, also when something fails.
//!
//! Options (defaults in brackets):
//! `--only restart,handover,proxy,memory,slots,refusal` which parts; `--quick` fewer restarts, fewer connections and two of the attacks
//! on memory, a minute in all, and the whole takes about nine;
//! `--memory-option` \[--memory-bytes-max\] the mini-program's option for the budget of a worker, if it has one, and
//! `--memory-bytes` \[67108864\] its value; `--programs DIR` use the mini-program there and build nothing;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].
//! Proxies are nginx and HAProxy; where one is not installed, its checks are skipped and a line says so.
//! Exit status: 0 all hold, 1 one failed, 2 could not measure.

mod answer;
mod client;
mod counts;
mod crowd;
mod handover;
mod hoard;
mod memory;
mod part;
mod program;
mod proxy;
mod refusal;
mod restart;
mod slots;
mod socket;
mod table;

use benches::runner::{Failure, build};
use benches::sys::Limit;
use benches::{known_options, option};
use program::Program;
use std::cell::RefCell;
use std::fmt::Arguments;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use table::Row;

type Part = fn(&Plan) -> Result<(), Failure>;
const PARTS: [(&str, Part); 6] = [
    ("restart", restart::check),
    ("handover", handover::check),
    ("proxy", proxy::check),
    ("memory", memory::check),
    ("slots", slots::check),
    ("refusal", refusal::check),
];

/// What to try, and on what.
pub struct Plan {
    program: PathBuf,
    /// Less of everything.
    pub quick: bool,
    /// The option for the budget of a worker, and whether the program has it.
    pub memory_name: String,
    has_memory_option: bool,
    /// Its value.
    pub memory_bytes: String,
    /// The rows that do not hold, as they were printed.
    failed: RefCell<Vec<String>>,
}

impl Plan {
    /// Starts the mini-program on this port, 0 for a free one.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, port: u16, options: &[&str], limit: Option<Limit>) -> Result<Program, Failure> {
        Program::start(&self.program, port, options, limit)
    }

    /// How often a process is replaced.
    pub fn restarts(&self) -> usize {
        if self.quick { 3 } else { 10 }
    }

    /// How often a process takes over from another.
    pub fn handovers(&self) -> usize {
        if self.quick { 3 } else { 20 }
    }

    /// The option for the budget of a worker, if the program has one.
    pub fn memory_option(&self) -> Option<&str> {
        self.has_memory_option.then_some(&self.memory_name)
    }

    /// Prints what has been counted.
    pub fn show(&self, rows: &[Row]) {
        for row in rows {
            let line = row.line();
            println!("{line}");
            if !row.holds() {
                self.failed.borrow_mut().push(line);
            }
        }
    }

    /// Says that a check was not made.
    pub fn skip(&self, part: &str, what: &str, why: Arguments<'_>) {
        println!("{part:<8} {what}: skipped, {why}");
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ends: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Failure> {
    let args = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&args, &["--only", "--programs", "--memory-option", "--memory-bytes"], &["--quick"])?;
    let all = PARTS.map(|(name, _)| name).join(",");
    let only: String = option(&args, "--only", all.clone())?;
    let only: Vec<&str> = only.split(',').collect();
    if let Some(unknown) = only.iter().find(|name| PARTS.iter().all(|(known, _)| known != *name)) {
        return Err(format!("--only {unknown}: the parts are {all}").into());
    }
    let programs = match args.iter().any(|arg| arg == "--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "examples", "--bin", "mini-program"]])?,
    };
    let program = programs.join("mini-program");
    let memory_name: String = option(&args, "--memory-option", "--memory-bytes-max".into())?;
    let plan = Plan {
        has_memory_option: help_of(&program)?.contains(&format!("{memory_name} ")),
        program,
        quick: args.iter().any(|arg| arg == "--quick"),
        memory_name,
        memory_bytes: option::<u64>(&args, "--memory-bytes", 64 * 1024 * 1024)?.to_string(),
        failed: RefCell::default(),
    };

    benches::sys::raise_open_files(20_064)?;
    Row::print_head();
    for (name, check) in PARTS.iter().filter(|(name, _)| only.contains(name)) {
        check(&plan).map_err(|error| format!("{name}: {error}"))?;
    }
    // Once more at the end, where whoever reads a long log looks first.
    let failed = plan.failed.into_inner();
    failed.iter().for_each(|line| eprintln!("ends: {line}"));
    Ok(failed.is_empty())
}

fn help_of(program: &Path) -> Result<String, Failure> {
    let output = Command::new(program).arg("--help").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8(output.stdout)?)
}
