//! Protocols and helpers that the stories share.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol, Runtime, Workers};

/// The backend that workers have here where nobody names one: all tests can be run on each, by `NETPOLL_BACKEND`.
pub fn backend() -> &'static str {
    static BACKEND: OnceLock<&str> = OnceLock::new();
    BACKEND.get_or_init(|| {
        let running = Runtime::builder().workers(Workers::Count(1)).pin(false).start().unwrap();
        running.handle().setup().backend
    })
}

/// For a test of what some backends can do and not all: whether this one can, or it says that the test is skipped, and why.
pub fn is_on(backends: &[&str], why: &str) -> bool {
    let is_one = backends.contains(&backend());
    if !is_one {
        println!("skipped on {}: {why}", backend());
    }
    is_one
}

/// For a test of what only Linux's half of the system calls can do, and not that of macOS (`docs/TUNING.md` has a table of it): whether it is
/// Linux's, or it says that the test is skipped, and why.
pub fn is_on_linux(why: &str) -> bool {
    let is_linux = cfg!(all(target_os = "linux", not(netpoll_portable)));
    if !is_linux {
        println!("skipped on this system: {why}");
    }
    is_linux
}

/// Runs an ignored test of this module (`module_path!()`) in a process of its own.
pub fn alone(module: &str, test: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = module.split_once("::").map_or(test.to_owned(), |(_, module)| format!("{module}::{test}"));
    let output = command.args(["--exact", &name, "--ignored", "--test-threads=1"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{name}: {text}");
    if output.status.code().is_some_and(|code| code != 0) {
        panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status
}

/// Sends back what it gets.
pub struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

/// What happened to a connection, in order.
pub type Log = Rc<RefCell<Vec<String>>>;

/// Writes down each callback; answers lines, and obeys the ones that are commands.
pub struct Recorder {
    pub log: Log,
}

impl Recorder {
    pub fn new(log: &Log) -> Self {
        Self { log: Rc::clone(log) }
    }

    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }
}

impl Protocol for Recorder {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.note("opened");
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') else {
            self.note(format!("partial {}", input.len()));
            return Flow::Continue;
        };
        let line = String::from_utf8_lossy(&input.bytes()[..end]).into_owned();
        input.advance(end + 1);
        self.note(line.clone());
        conn.send(format!("<{line}>").as_bytes());
        match line.as_str() {
            "pause" => Flow::Pause,
            "close" => Flow::Close,
            "linger" => Flow::Linger,
            "reset" => Flow::Reset,
            "panic" => panic!("asked to"),
            "soon" => {
                conn.set_deadline(Duration::from_millis(50));
                Flow::Yield
            }
            "large" => {
                conn.send(&vec![b'x'; 1 << 20]);
                Flow::Yield
            }
            _ => Flow::Yield,
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.note(format!("eof {}", input.len()));
        conn.send(b"bye");
        Flow::Close
    }

    fn drained(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.note("drained");
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note("deadline");
        conn.send(b"late");
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note("stopping");
        conn.send(b"stop");
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.note(format!("lost {reason:?}"));
    }
}

/// Panics when it is dropped.
pub struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a destructor that panics");
    }
}

/// A client that waits for what it expects, but not for ever.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// These bytes come next.
    pub fn reads(&mut self, wanted: &[u8]) {
        let mut read = vec![0; wanted.len()];
        self.0.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(wanted));
    }

    /// What comes next, at least a byte.
    pub fn reads_some(&mut self) -> String {
        let mut read = vec![0; 4096];
        let count = self.0.read(&mut read).unwrap();
        assert!(count > 0, "the connection has ended");
        read.truncate(count);
        String::from_utf8(read).unwrap()
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
}
