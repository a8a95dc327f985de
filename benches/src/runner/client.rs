//! The load client as a child process: a run to its end, one that stands by for windows, or one that holds connections.
//!
//! `Drop` ends it by pid; the kernel ends what is left when the runner itself is killed.

use super::Failure;
use super::backend::without_backend;
use super::process::{LOAD_CPU, end};
use crate::sys;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A load client that holds connections until it is dropped.
pub struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Where the programs of this crate are, and the options that every load run gets.
pub struct Load<'a> {
    /// The directory of `load`.
    pub programs: &'a Path,
    /// What to ask for.
    pub path: &'a str,
}

impl Load<'_> {
    fn command(&self, port: u16, options: &str) -> Command {
        let mut command = Command::new(self.programs.join("load"));
        command.args([
            "--to",
            &format!("127.0.0.1:{port}"),
            "--path",
            self.path,
            "--cpu",
            &LOAD_CPU.to_string(),
        ]);
        command.args(options.split_whitespace());
        sys::dies_with_us(without_backend(&mut command));
        command
    }

    /// Runs it to its end; what it printed.
    ///
    /// # Errors
    /// What it said on standard error.
    pub fn run(&self, port: u16, options: &str) -> Result<Value, Failure> {
        let output = self.command(port, options).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(format!("load {options}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts it with `--stand-by` and waits until it has connected and warmed up.
    ///
    /// # Errors
    /// What it said on standard error.
    pub fn stand_by(&self, port: u16, options: &str) -> Result<StandBy, Failure> {
        let mut command = self.command(port, options);
        command.arg("--stand-by").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let reports = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut client = StandBy { orders: child.stdin.take().ok_or("no pipe")?, reports, child };
        client.report()?;
        Ok(client)
    }

    /// Starts it with `--hold` and waits until all connections have had their answer; how many they are.
    ///
    /// # Errors
    /// It failed before.
    pub fn hold(&self, port: u16, options: &str) -> Result<(Held, u64), Failure> {
        let mut command = self.command(port, options);
        command.arg("--hold").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = Held(command.spawn()?);
        let mut line = String::new();
        BufReader::new(held.0.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let report: Value = serde_json::from_str(&line).map_err(|_| "the load client failed, see above")?;
        Ok((held, number(&report, "connections")? as u64))
    }
}

/// A client that is connected and warm, and measures when it is told to. In between it sleeps.
#[derive(Debug)]
pub struct StandBy {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl StandBy {
    /// One window; its report.
    ///
    /// # Errors
    /// What the client said on standard error when it ended instead.
    pub fn window(&mut self, seconds: f64) -> Result<Value, Failure> {
        // One write, so that the client wakes once. One that has ended says why below.
        let _ = self.orders.write_all(format!("{seconds}\n").as_bytes());
        self.report()
    }

    fn report(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        if self.reports.read_line(&mut line)? > 0 {
            return Ok(serde_json::from_str(&line)?);
        }
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut said)?;
        }
        Err(format!("load: {}", said.trim()).into())
    }
}

impl Drop for StandBy {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A number from a JSON object.
///
/// # Errors
/// It is not there.
pub fn number(report: &Value, key: &str) -> Result<f64, Failure> {
    Ok(report.get(key).and_then(Value::as_f64).ok_or_else(|| format!("no number {key:?} in {report}"))?)
}
