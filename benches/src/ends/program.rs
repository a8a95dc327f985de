//! A mini-program, or a proxy in front of it, as a child: started on a free port, asked to drain, and what it said.
//!
//! `Drop` kills and reaps; the kernel kills what is left when the runner itself is killed.

use crate::client::ask;
use benches::runner::{Failure, Template, end, free_port, with_backend};
use benches::sys::{self, Limit};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a drain may take before it is said to hang: more than its own deadline, which is 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(20);
const START_MAX: Duration = Duration::from_secs(10);

/// A running mini-program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    pub addr: SocketAddr,
}

/// How a mini-program ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// Since SIGTERM, or since the next process has said where it listens.
    pub took: Duration,
    /// Connections that it took out of its accept queues, and those that it took over.
    pub accepted: u64,
    /// Connections that have gone on in the next process.
    pub moved: u64,
}

impl Program {
    /// Starts it and waits until it has said where it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(path: &Path, port: u16, options: &[&str], limit: Option<Limit>) -> Result<Self, Failure> {
        let mut command = Command::new(path);
        command.arg("--addr").arg(format!("127.0.0.1:{port}")).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(limit) = limit {
            sys::limited(&mut command, limit);
        }
        let mut child = sys::dies_with_us(with_backend(&mut command)).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut program = Self { child, output, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let mut line = String::new();
        program.output.read_line(&mut line)?;
        let addr = line.split(['/', ' ']).find_map(|word| word.parse().ok());
        program.addr = addr.ok_or_else(|| format!("mini-program {} does not start", options.join(" ")))?;
        Ok(program)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It has not ended.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to drain and waits for its end; killed when it takes too long.
    ///
    /// # Errors
    /// It had ended before, or what it says at its end is not understood.
    pub fn stop(self) -> Result<Ended, Failure> {
        sys::terminate(&self.child)?;
        self.ended()
    }

    /// Waits for its end, which another process has asked for; killed when it takes too long.
    ///
    /// # Errors
    /// What it says at its end is not understood.
    pub fn ended(mut self) -> Result<Ended, Failure> {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if asked.elapsed() > DRAIN_MAX {
                self.child.kill()?;
                break self.child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = asked.elapsed();
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
        match accepted(&said) {
            Some(accepted) => Ok(Ended { status, took, accepted, moved: moved(&said) }),
            None if status.success() => {
                Err(format!("it does not say how many connections it accepted: {said}").into())
            }
            None => Ok(Ended { status, took, accepted: 0, moved: 0 }),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Connections accepted, those that were turned away at once included.
fn accepted(said: &str) -> Option<u64> {
    let (before, after) = said.split_once(" connections accepted, ")?;
    let admitted: u64 = before.rsplit_once('\n').map_or(before, |(_, line)| line).parse().ok()?;
    let shed: u64 = after.split_once(" turned away")?.0.parse().ok()?;
    Some(admitted + shed)
}

/// Connections that were handed over.
fn moved(said: &str) -> u64 {
    let behind = said.split_once("; its listeners were handed over, and ").map_or("", |(_, behind)| behind);
    match behind.split_once(' ').map(|(count, _)| count) {
        Some("a") => 1,
        count => count.and_then(|count| count.parse().ok()).unwrap_or(0),
    }
}

/// A proxy, or another server to compare with, with a configuration of its own in a directory of its own.
#[derive(Debug)]
pub struct Other {
    child: Child,
    pub addr: SocketAddr,
    /// Removed behind the process.
    dir: PathBuf,
}

impl Other {
    /// Starts `template` with `{port}` and these other words replaced, and waits until it has answered a GET of `path`
    /// with anything below 500.
    ///
    /// # Errors
    /// It does not start or does not answer.
    pub fn start(
        template: &Template,
        text: &str,
        words: &[(&str, String)],
        path: &str,
    ) -> Result<Self, Failure> {
        let port = free_port()?;
        let dir = std::env::temp_dir().join(format!("netpoll-ends-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let (conf, dir_name) = (dir.join("configuration"), dir.display().to_string());
        let words = words.iter().map(|(name, value)| (*name, value.clone()));
        let own = [("{port}", port.to_string()), ("{dir}", dir_name), ("{conf}", conf.display().to_string())];
        let fill = |text: &str| {
            words
                .clone()
                .chain(own.clone())
                .fold(text.to_owned(), |text, (name, value)| text.replace(name, &value))
        };
        std::fs::write(&conf, fill(text))?;
        let line = fill(&template.command);
        let mut parts = line.split_whitespace();
        let mut command = Command::new(parts.next().ok_or("an empty command")?);
        command.args(parts).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = sys::dies_with_us(&mut command).spawn()?;
        let mut other = Self { child, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dir };
        let begun = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: ends\r\nConnection: close\r\n\r\n");
        while !ask(other.addr, request.as_bytes(), Duration::from_secs(1)).is_ok_and(|status| status < 500) {
            if let Some(status) = other.child.try_wait()? {
                return Err(format!("{} ended at once: {status}", template.name).into());
            }
            if begun.elapsed() > START_MAX {
                return Err(format!("{} gives no answer", template.name).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        end(&mut self.child);
        // What cannot be removed is left to whoever cleans the system's temporary files.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Whether a program can be started by its name.
pub fn is_installed(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_server_tell_whom_it_took_in() {
        let said = "Try it\ndrained 3 connections in 1.0s\n1200 connections accepted, 34 turned away\n9 requests; 2 syscalls\n";
        assert_eq!(accepted(said), Some(1234));
        assert_eq!(accepted("drained 3 connections in 1.0s\n"), None);
        let said = |what: &str| {
            format!(
                "drained 3 connections in 1.0s; its listeners were handed over{what}\n1 connections accepted"
            )
        };
        assert_eq!(
            [",", ", and a connection", ", and 17 connections"].map(|what| moved(&said(what))),
            [0, 1, 17]
        );
    }
}
