//! Servers as child processes: started pinned, ended by pid, also when the runner fails or is killed.
//!
//! A child inherits the affinity that the runner has while it spawns it, so a server needs no pinning of its
//! own. `Drop` kills and reaps; the kernel kills what is left when the runner itself is killed.

use super::Failure;
use super::backend::with_backend;
use crate::sys;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core of the server.
pub const SERVER_CPU: usize = 0;
/// The core of the load client and of the runner.
pub const LOAD_CPU: usize = 1;

/// How a server is started: a command line with `{port}` and, where it knows one, `{budget}`.
#[derive(Clone, Debug)]
pub struct Template {
    /// For people.
    pub name: String,
    /// Program and arguments, separated by blanks.
    pub command: String,
    /// A file that it wants with `{port}` replaced; `{conf}` in the command becomes the copy, `{dir}` its directory.
    pub configuration: Option<PathBuf>,
}

impl Template {
    /// Whether the turn budget can be chosen.
    pub fn has_budget(&self) -> bool {
        self.command.contains("{budget}")
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// From before `fork` until the first answer had been read.
    pub first_answer: Duration,
    /// Dropped after the process has ended.
    _copy: Option<ConfigurationCopy>,
}

/// A directory of its own with the copy of a configuration, as long as its server runs.
#[derive(Debug)]
struct ConfigurationCopy(PathBuf);

impl ConfigurationCopy {
    fn of(file: &Path, port: u16) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("netpoll-benches-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let copy = Self(dir);
        std::fs::write(copy.file(), std::fs::read_to_string(file)?.replace("{port}", &port.to_string()))?;
        Ok(copy)
    }

    fn file(&self) -> PathBuf {
        self.0.join("configuration")
    }
}

impl Drop for ConfigurationCopy {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the system's temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Server {
    /// Starts it on its core and waits for its first answer to a GET of `path`.
    ///
    /// # Errors
    /// It does not start, ends, or gives no right answer within five seconds.
    pub fn start(template: &Template, budget: &str, path: &str) -> Result<Self, Failure> {
        Self::start_on(&[SERVER_CPU], template, budget, |port| get(port, path).map(drop))
    }

    /// Starts it on these cores and waits until `probe` succeeds on its port.
    ///
    /// # Errors
    /// It does not start, ends, or `probe` fails for five seconds.
    pub fn start_on(
        cpus: &[usize],
        template: &Template,
        budget: &str,
        probe: impl Fn(u16) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let port = free_port()?;
        let mut words = template.command.replace("{port}", &port.to_string()).replace("{budget}", budget);
        let copy =
            template.configuration.as_ref().map(|file| ConfigurationCopy::of(file, port)).transpose()?;
        if let Some(copy) = &copy {
            words = words
                .replace("{conf}", &copy.file().display().to_string())
                .replace("{dir}", &copy.0.display().to_string());
        }
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().ok_or("an empty server command")?);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        sys::pin_current_thread(cpus)?;
        let begin = Instant::now();
        let child = sys::dies_with_us(with_backend(&mut command)).spawn();
        sys::pin_current_thread(&[LOAD_CPU])?;
        let child = child.map_err(|error| format!("{}: {error}", template.command))?;
        let mut server = Self { child, port, first_answer: Duration::ZERO, _copy: copy };
        while let Err(error) = probe(port) {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{} ended at once: {status}", template.name).into());
            }
            if begin.elapsed() > Duration::from_secs(5) {
                return Err(format!("{} gives no answer: {error}", template.name).into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        server.first_answer = begin.elapsed();
        Ok(server)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills and reaps.
pub fn end(child: &mut Child) {
    // Both fail only if it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

/// A port that was free a moment ago.
///
/// # Errors
/// The kernel's: no port is left.
pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The body of one GET.
///
/// # Errors
/// Anything but a whole 200 answer.
pub fn get(port: u16, path: &str) -> Result<Vec<u8>, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = str::from_utf8(&answer[..head_end])?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                return Err(format!("{path}: {}", head.lines().next().unwrap_or("")).into());
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.ok_or("no Content-Length")?.trim().parse()?;
            if answer.len() >= head_end + 4 + length {
                return Ok(answer[head_end + 4..head_end + 4 + length].to_vec());
            }
        }
        match stream.read(&mut piece)? {
            0 => return Err("the connection ended within an answer".into()),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_of_a_configuration_knows_its_port_and_does_not_outlive_its_server() {
        let original = std::env::temp_dir().join(format!("netpoll-benches-{}.in", std::process::id()));
        std::fs::write(&original, "listen {port};").unwrap();
        let copy = ConfigurationCopy::of(&original, 7000).unwrap();
        std::fs::remove_file(&original).unwrap();
        let (dir, file) = (copy.0.clone(), copy.file());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "listen 7000;");
        std::fs::write(dir.join("pid"), "what a server leaves there").unwrap();
        drop(copy);
        assert!(!dir.exists());
    }
}
