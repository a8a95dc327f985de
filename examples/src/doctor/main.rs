//! What a machine can do for a server on netpoll, what of it is set too low, and what to type.
//!
//! `cargo run --bin doctor` prints a line for each thing that it has looked at; where one hurts, the reason and a command behind it.
//! `--json` prints the same as one object. `--backend NAME` says what the server is going to run on: then it is broken where that cannot
//! be had (`cargo run --features netpoll-core/uring --bin doctor -- --backend uring` tries io_uring). `--root DIR` reads `proc` and `sys` below a
//! directory, those of another machine, and tries nothing. Nothing is changed in either case.
//!
//! Exit status: 0 nothing hurts, 1 there is advice, 2 something is broken.
//!
//! | file | story |
//! |---|---|
//! | `machine` | the files of `/proc` and `/sys`, as values |
//! | `finding` | one thing that was looked at, and how it is told |
//! | `abilities` | what the machine can |
//! | `limits` | what may be too low |
//! | `trials` | what is found out by doing it |

mod abilities;
mod finding;
mod limits;
mod machine;
mod trials;

use std::io::{self, Write};
use std::process::ExitCode;

use finding::{Finding, State};
use machine::Machine;
use netpoll_core::Backend;
use serde_json::json;
use trials::Trials;

const USAGE: &str = "doctor [--json] [--backend auto|epoll|uring|mio] [--root DIR]";

struct Options {
    is_json: bool,
    backend: Backend,
    root: Option<String>,
}

fn options() -> Result<Options, String> {
    let (backend, mut words) = examples::words().map_err(|error| error.to_string())?;
    let mut options = Options { is_json: false, backend, root: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.is_json = true,
            "--root" => options.root = Some(words.next().ok_or(USAGE)?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(what) => {
            eprintln!("doctor: {what}");
            return ExitCode::from(State::Broken.exit());
        }
    };
    let machine = Machine::below(options.root.as_deref().unwrap_or(""));
    let trials = options.root.is_none().then(|| Trials::of(options.backend));
    let abilities = abilities::look(&machine, trials.as_ref());
    let limits = limits::look(&machine);
    let worst = abilities.iter().chain(&limits).map(|finding| finding.state).max();
    let status = worst.map_or(0, State::exit);
    let groups = [("what the machine can", abilities), ("limits", limits)];
    let said = match options.is_json {
        true => as_json(status, &groups),
        false => as_text(status, &groups),
    };
    // Whoever closed our output (`| head`) has read enough.
    let _ = io::stdout().write_all(said.as_bytes());
    ExitCode::from(status)
}

type Groups = [(&'static str, Vec<Finding>)];

fn as_json(status: u8, groups: &Groups) -> String {
    let findings: Vec<_> =
        groups.iter().flat_map(|(group, findings)| findings.iter().map(|it| it.to_json(group))).collect();
    format!("{:#}\n", json!({ "status": status, "findings": findings }))
}

fn as_text(status: u8, groups: &Groups) -> String {
    let mut text = String::new();
    for (group, findings) in groups {
        text += &format!("{group}\n");
        findings.iter().for_each(|finding| text += &finding.to_string());
        text.push('\n');
    }
    text += match status {
        0 => "nothing hurts\n",
        1 => "there is advice: a `sysctl -w` holds until the next boot, a line in /etc/sysctl.d/ for ever\n",
        _ => "something is broken\n",
    };
    text
}
