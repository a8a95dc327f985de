//! Programs as child processes, and a client that is as plain as possible.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes a tenth of it; it ends a test that would hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running program. Killed if the test does not end it.
pub struct Program {
    child: Child,
    /// None once it was closed.
    output: Option<BufReader<ChildStdout>>,
    /// What it has printed so far.
    pub printed: String,
    pub addr: SocketAddr,
}

impl Program {
    /// Starts a program and reads on until it has printed where it listens.
    pub fn start(path: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(path).args(arguments))
    }

    /// The same for one whose environment is somebody's choice.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = child.stdout.take().map(BufReader::new);
        let mut program = Self { child, output, printed: String::new(), addr: SocketAddr::from(([0; 4], 0)) };
        program.addr = loop {
            let line = program.line();
            let words = line.split([' ', '/', '\n']);
            if let Some(addr) = words.filter_map(|word| word.parse().ok()).next() {
                break addr;
            }
        };
        program
    }

    /// The same for one whose standard error is a pipe, which is the test's.
    pub fn spawn_heard(command: &mut Command) -> (Self, ChildStderr) {
        let mut program = Self::spawn(command.stderr(Stdio::piped()));
        let errors = program.child.stderr.take().unwrap();
        (program, errors)
    }

    /// Starts a program whose output goes elsewhere: nobody learns where it listens.
    pub fn start_unheard(path: &str, arguments: &[&str], output: Stdio) -> Self {
        let mut command = Command::new(path);
        let command = command.args(arguments).stdin(Stdio::null()).stdout(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { child, output: None, printed: String::new(), addr: SocketAddr::from(([0; 4], 0)) }
    }

    /// Closes the pipe that it prints to, as `| head -1` does.
    pub fn stop_listening(&mut self) {
        self.output = None;
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.as_mut().unwrap().read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "ended after printing {:?}", self.printed);
        self.printed.push_str(&line);
        line
    }

    /// A connection whose reads do not take for ever.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request on a connection of its own and returns the answer.
    pub fn request(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = self.connect();
        send_request(&mut stream, method, target, headers, body);
        Answer::read(&mut stream)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], "")
    }

    /// Bytes of memory that it has taken; without the pages of its file, of which the kernel shows as many as it likes.
    pub fn own_resident_bytes(&self) -> u64 {
        self.status("RssAnon:").split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The most that has been resident, its file included.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status("VmHWM:").split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Asks it to end, as `kill` does, and returns all that it printed from then on, and how it ended.
    pub fn terminate(mut self) -> (String, ExitStatus) {
        self.ask_to_end();
        self.wait()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM. It is sent once the program catches it: the address may be printed before that.
    pub fn ask_to_end(&mut self) {
        let asked = Instant::now();
        while !self.catches_sigterm() {
            assert!(asked.elapsed() < PATIENCE, "it never catches SIGTERM");
            std::thread::yield_now();
        }
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits for its end; returns what it printed in the meantime.
    pub fn wait(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        if let Some(output) = &mut self.output {
            output.read_to_string(&mut rest).unwrap();
        }
        (rest, self.child.wait().unwrap())
    }

    fn catches_sigterm(&self) -> bool {
        let mask = u64::from_str_radix(&self.status("SigCgt:"), 16).unwrap();
        mask & (1 << (15 - 1)) != 0
    }

    /// A line of `/proc/PID/status`.
    fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, or the test has failed: nobody needs to know why this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send_request(stream: &mut TcpStream, method: &str, target: &str, headers: &[&str], body: &str) {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
}

/// An answer with a `Content-Length`; none of the programs sends another kind.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads one answer and nothing behind it.
    pub fn read(stream: &mut impl Read) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(byte(stream).unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&head));
            }));
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let mut answer = Self { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// Status and body, to compare both at once.
    pub fn said(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

fn byte(stream: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Runs a program that is to end by itself: its exit code, output, and errors.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}
