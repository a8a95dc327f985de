//! One connection: an opening, bytes out, bytes in, and how it ended.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use crate::wire::{self, Frame};

/// How long a server may be silent before it is said to wait for more.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that one exchange takes.
const TOTAL: Duration = Duration::from_secs(10);

/// The key that openings are made with, and what has to come back of it (RFC 6455, section 1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Where the server is.
pub struct Site {
    pub to: SocketAddrV4,
    pub path: String,
}

impl Site {
    /// A good opening, with these lines as well.
    pub fn opening(&self, lines: &str) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n{lines}\r\n",
            self.path, self.to
        )
    }

    /// Sees whether somebody is there who echoes.
    pub fn probe(&self) -> Result<(), Box<dyn Error>> {
        let mut connection = Connection::to(self)?;
        connection.send(self.opening("").as_bytes());
        connection.read_head();
        match &connection.head {
            Some(head) if head.status == 101 => {}
            other => return Err(format!("no WebSocket is opened at {}: {other:?}", self.path).into()),
        }
        connection.send(&wire::frame(wire::TEXT, b"hello"));
        connection.read_until(|frames| !frames.is_empty());
        match &connection.frames[..] {
            [echo] if echo.payload == b"hello" => Ok(()),
            other => Err(format!("{} does not echo: {other:?}", self.path).into()),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was waited for has come.
    Kept,
    /// The server ended it (FIN).
    Closed,
    /// The server broke it (RST).
    Reset,
    /// The server went silent and left it open.
    Silent,
}

/// The head of the answer to an opening.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        let named = move |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str())
    }

    pub fn one<'h>(&'h self, name: &'h str) -> Option<&'h str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }
}

pub struct Connection {
    socket: TcpStream,
    deadline: Instant,
    bytes: Vec<u8>,
    pub head: Option<Head>,
    pub frames: Vec<Frame>,
    /// What is wrong with what the server has sent.
    pub wrong: Option<String>,
    pub end: End,
}

impl Connection {
    /// # Errors
    /// The kernel's: nobody listens.
    pub fn to(site: &Site) -> std::io::Result<Self> {
        let socket = TcpStream::connect(site.to)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(TOTAL))?;
        Ok(Self {
            socket,
            deadline: Instant::now() + TOTAL,
            bytes: Vec::new(),
            head: None,
            frames: Vec::new(),
            wrong: None,
            end: End::Kept,
        })
    }

    /// A server that has refused the first bytes may be gone before the last; what it said is still there to read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Reads the head of the answer.
    pub fn read_head(&mut self) {
        self.read(PATIENCE, |this| this.head.is_some());
    }

    /// Reads until `is_done` with the frames that came, the connection ends, or the server is silent.
    pub fn read_until(&mut self, is_done: impl Fn(&[Frame]) -> bool) {
        self.read(PATIENCE, |this| this.wrong.is_some() || is_done(&this.frames));
    }

    /// Whether the server has said goodbye, or has gone, by what is there now.
    pub fn is_over(&mut self) -> bool {
        self.read(Duration::from_millis(1), |_| false);
        self.end != End::Silent || self.frames.iter().any(|frame| frame.opcode == wire::CLOSE)
    }

    /// Reads until the connection ends, or the server is silent.
    pub fn read_to_end(&mut self) {
        self.read(PATIENCE, |_| false);
    }

    fn read(&mut self, patience: Duration, is_done: impl Fn(&Self) -> bool) {
        let mut block = [0; 64 * 1024];
        loop {
            if is_done(self) {
                self.end = End::Kept;
                return;
            }
            let left = patience.min(self.deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                self.end = End::Silent;
                return;
            }
            match self.socket.read(&mut block) {
                Ok(0) => {
                    self.end = End::Closed;
                    return;
                }
                Ok(count) => {
                    self.bytes.extend_from_slice(&block[..count]);
                    self.look();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.end = End::Silent;
                    return;
                }
                Err(_) => {
                    self.end = End::Reset;
                    return;
                }
            }
        }
    }

    /// Takes heads and frames out of what has come.
    fn look(&mut self) {
        if self.head.is_none() {
            let Some(len) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let text = String::from_utf8_lossy(&self.bytes[..len]).into_owned();
            let mut lines = text.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
            let fields = lines.filter_map(|line| line.split_once(':'));
            let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
            self.head = Some(Head { status, fields });
            self.bytes.drain(..len + 4);
        }
        // Behind a refusal come no frames.
        if self.head.as_ref().is_some_and(|head| head.status == 101) && self.wrong.is_none() {
            match wire::read(&self.bytes) {
                Ok((frames, len)) => {
                    self.frames.extend(frames);
                    self.bytes.drain(..len);
                }
                Err(wrong) => self.wrong = Some(wrong),
            }
        }
    }
}
