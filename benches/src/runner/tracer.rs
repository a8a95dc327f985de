//! System calls, counted from outside.

use super::Failure;
use super::client::{Load, number};
use super::process::Server;
use crate::sys;
use std::process::{Command, Stdio};
use std::time::Duration;

/// System calls per request as a tracer sees them.
///
/// `perf` slows the server little. `strace` stops the server at each call, hence more requests wait at each turn and
/// the figure comes out lower than without it.
///
/// # Errors
/// The tracer is missing, may not trace, or counted nothing.
pub fn traced(
    tracer: &'static str,
    server: &Server,
    load: &Load<'_>,
    options: &str,
) -> Result<(&'static str, f64), Failure> {
    let calls = traced_by(tracer, server.pid(), || number(&load.run(server.port, options)?, "requests"))?;
    Ok((tracer, calls))
}

/// System calls of a process for each thing that `load` has it do, which says how many those were.
///
/// # Errors
/// As [`traced`]; what `load` says.
pub fn traced_by(
    tracer: &'static str,
    pid: u32,
    load: impl FnOnce() -> Result<f64, Failure>,
) -> Result<f64, Failure> {
    let pid = pid.to_string();
    let mut command = Command::new(tracer);
    match tracer {
        "perf" => command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid]),
        _ => command.args(["-c", "-f", "-p", &pid]),
    };
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = sys::dies_with_us(&mut command).spawn()?;
    // No signal tells when a tracer has attached. What it misses before is missing from the count only.
    std::thread::sleep(Duration::from_millis(300));
    let requests = load();
    sys::interrupt(&child)?;
    let output = child.wait_with_output()?;
    let requests = requests?;
    let calls = String::from_utf8_lossy(&output.stderr).lines().find_map(|line| match tracer {
        "perf" => line.contains("sys_enter").then(|| line.split(',').next()?.parse::<f64>().ok())?,
        // "100.00  0.123  1  12345  [errors] total"
        _ => line.trim_end().ends_with(" total").then(|| line.split_whitespace().nth(3)?.parse().ok())?,
    });
    let calls = calls.filter(|&calls| calls > 0.0).ok_or_else(|| format!("{tracer} counted nothing"))?;
    Ok(calls / requests)
}
