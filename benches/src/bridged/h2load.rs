//! h2load as the client: a fixed number of requests for each window, all of which have to succeed.

use std::process::{Command, Stdio};
use std::time::Duration;

use benches::runner::{CpuTime, Failure, LOAD_CPU, Server, collected, get};
use benches::sampler::{Sampler, Sides};
use benches::sys;

use super::Spent;

const CONNECTIONS: u32 = 16;
const STREAMS: u32 = 8;
/// Requests of the two runs whose instructions are counted.
const COUNTED: [u32; 2] = [2000, 6000];
/// Valgrind makes a program some fifty times slower.
const STARTS: u32 = 1000;

/// What it speaks.
#[derive(Clone, Copy)]
pub enum Protocol {
    /// One request on its way on each connection.
    Http1,
    /// [`STREAMS`] on each.
    Http2,
}

pub fn is_installed() -> bool {
    let mut command = Command::new("h2load");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A server that is asked by it.
pub struct Client {
    server: Server,
    sampler: Option<Sampler>,
}

impl Client {
    pub fn new(server: Server) -> Result<Self, Failure> {
        let sampler = Sampler::attach(server.pid()).ok();
        Ok(Self { server, sampler })
    }

    /// So many requests, and what they cost the server, its new connections included.
    ///
    /// # Errors
    /// One failed.
    pub fn window(&mut self, path: &str, requests: u32) -> Result<Spent, Failure> {
        let pid = self.server.pid();
        let before = CpuTime::of(pid)?;
        self.sampler.as_mut().map(Sampler::drain);
        let children = sys::children_cpu_time()?;
        ask(self.server.port, path, Protocol::Http2, requests)?;
        let client = sys::children_cpu_time()?.saturating_sub(children);
        let sampled = self.sampler.as_mut().map(Sampler::drain);
        let cpu = CpuTime::of(pid)?.since(before);
        let seconds = Duration::from_nanos(cpu.total_ns) + client;
        Ok(Spent {
            total_us: cpu.total_ns as f64 / 1e3 / f64::from(requests),
            own_cpu_seconds: seconds.as_secs_f64(),
            requests: f64::from(requests),
            sides: sampled.unwrap_or(Sides { user: cpu.user_ticks, kernel: cpu.system_ticks }),
        })
    }
}

fn ask(port: u16, path: &str, protocol: Protocol, requests: u32) -> Result<(), Failure> {
    let mut command = Command::new("taskset");
    command.args(["-c", &LOAD_CPU.to_string(), "h2load", "-t1"]);
    command.arg(format!("-n{requests}")).arg(format!("-c{CONNECTIONS}"));
    match protocol {
        Protocol::Http1 => command.arg("--h1"),
        Protocol::Http2 => command.arg(format!("-m{STREAMS}")),
    };
    command.arg(format!("http://127.0.0.1:{port}{path}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = sys::dies_with_us(&mut command).spawn()?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.contains(&format!("status codes: {requests} 2xx")) {
        true => Ok(()),
        false => Err(format!("h2load: {said}").into()),
    }
}

/// Instructions of one request: the server under callgrind, with few and with many; the difference leaves out its start and its end, and
/// the making of its connections.
///
/// # Errors
/// Valgrind is not installed, or a request failed.
pub fn instructions(command: &str, path: &str, protocol: Protocol) -> Result<f64, Failure> {
    let [few, many] = COUNTED.map(|requests| {
        collected(command, |port| wait_for(port, path).and_then(|()| ask(port, path, protocol, requests)))
    });
    Ok((many? - few?) / f64::from(COUNTED[1] - COUNTED[0]))
}

fn wait_for(port: u16, path: &str) -> Result<(), Failure> {
    for _ in 0..STARTS {
        if get(port, path).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    get(port, path).map(drop)
}
