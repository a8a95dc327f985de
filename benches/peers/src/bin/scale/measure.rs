//! A window of one server, and rounds in which each server has one.
//!
//! Servers are started anew for each window, so that each meets the machine as the others do and none keeps its memory, and connections are
//! spread over its workers anew, as luck has it. Whoever cannot be started is left out with what it said, and is not tried again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Failure;
use crate::cpus::Halves;
use crate::process::{evenness, since, threads};
use crate::serve::{Server, directory};

const WARMUP_SECONDS: f64 = 0.2;
/// For a server to give its first answer, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Plan {
    pub rounds: usize,
    pub seconds: f64,
    /// For each worker.
    pub connections: usize,
    pub depth: usize,
    pub halves: Halves,
}

/// One window of one server.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub requests_per_second: f64,
    /// All threads of the server, in user space and in the kernel.
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub evenness: f64,
    /// Of the CPUs that the client has; near 1 says that it was the limit.
    pub client_busy: f64,
}

/// A server with so many workers: its windows, one for each round.
pub struct Row {
    pub server: &'static Server,
    pub workers: usize,
    pub windows: Vec<Window>,
}

pub struct Results {
    pub rows: Vec<Row>,
    /// Who is not there, and why.
    pub left_out: Vec<(&'static str, String)>,
}

pub fn all(plan: &Plan, workers: &[usize], servers: &[&'static Server]) -> Result<Results, Failure> {
    let mut results = Results { rows: Vec::new(), left_out: Vec::new() };
    for &workers in workers {
        let mut rows: Vec<Row> = servers
            .iter()
            .filter(|server| results.left_out.iter().all(|(name, _)| *name != server.name))
            .map(|&server| Row { server, workers, windows: Vec::new() })
            .collect();
        for round in 0..plan.rounds {
            eprintln!("{workers} workers, round {} of {}", round + 1, plan.rounds);
            // From another one each time, and back: neighbours change sides.
            let count = rows.len().max(1);
            rows.rotate_left(round % count);
            if round % 2 == 1 {
                rows.reverse();
            }
            rows.retain_mut(|row| match window(plan, row.server, workers) {
                Ok(window) => {
                    row.windows.push(window);
                    true
                }
                Err(why) => {
                    results.left_out.push((row.server.name, format!("with {workers} workers: {why}")));
                    false
                }
            });
        }
        rows.sort_by_key(|row| servers.iter().position(|server| server.name == row.server.name));
        results.rows.extend(rows);
    }
    Ok(results)
}

fn window(plan: &Plan, server: &Server, workers: usize) -> Result<Window, Failure> {
    let cpus = &plan.halves.servers[..workers];
    let running = Process::server(server.name, workers, &list(cpus))?;
    let client = &plan.halves.client;
    let mut asking =
        Process::client(running.port, &list(client), plan.connections * workers, plan.depth, plan.seconds)?;
    asking.line()?;
    let before = (threads(running.pid())?, threads(asking.pid())?);
    let report: Value = serde_json::from_str(&asking.line()?)?;
    let after = (threads(running.pid())?, threads(asking.pid())?);
    let number = |key: &str| report[key].as_f64().ok_or("the client says nothing");
    let (answers, seconds) = (number("answers")?, number("seconds")?);
    if answers == 0.0 {
        return Err("no answer in a whole window".into());
    }
    let spent = since(&after.0, &before.0);
    let asked = since(&after.1, &before.1).iter().sum::<u64>() as f64 / 1e9;
    Ok(Window {
        requests_per_second: answers / seconds,
        cpu_us: spent.iter().sum::<u64>() as f64 / 1e3 / answers,
        p50_us: number("p50_us")?,
        p99_us: number("p99_us")?,
        evenness: evenness(spent, workers),
        client_busy: asked / seconds / client.len() as f64,
    })
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// This program, as a server or as the client. Ended when it is dropped; the kernel ends it when the runner is killed.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Process {
    fn start(words: &[&str], port: u16) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).env_remove("NETPOLL_BACKEND");
        // The client stays until its input ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, output, port })
    }

    fn server(name: &str, workers: usize, cpus: &str) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let (port_word, workers) = (port.to_string(), workers.to_string());
        let words = ["--serve", name, "--port", &port_word, "--workers", &workers, "--cpu", cpus];
        let mut server = Self::start(&words, port)?;
        let began = Instant::now();
        while !answers(port) {
            if server.child.try_wait()?.is_some() {
                return Err(server.said().into());
            }
            if began.elapsed() > PATIENCE {
                return Err("it gives no answer".into());
            }
            sleep(Duration::from_millis(2));
        }
        Ok(server)
    }

    fn client(
        port: u16,
        cpus: &str,
        connections: usize,
        depth: usize,
        seconds: f64,
    ) -> Result<Self, Failure> {
        let [port_word, connections, depth, seconds, warmup] = [
            port.to_string(),
            connections.to_string(),
            depth.to_string(),
            seconds.to_string(),
            WARMUP_SECONDS.to_string(),
        ];
        let words = [
            "--ask",
            "--port",
            &port_word,
            "--cpu",
            cpus,
            "--connections",
            &connections,
            "--depth",
            &depth,
            "--seconds",
            &seconds,
            "--warmup",
            &warmup,
        ];
        Self::start(&words, port)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(self.said().into());
        }
        Ok(line)
    }

    /// The last line of what it said on standard error, when it has ended.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            // What cannot be read is not said.
            let _ = errors.read_to_string(&mut text);
        }
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it ended without a word");
        last.trim_start_matches("scale: ").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first: who has processes of its own ends them. All of this fails only for one that is gone.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(directory(self.port));
    }
}

/// Whether somebody there knows the page.
fn answers(port: u16) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    asked().unwrap_or(false)
}
