//! A polite client: one thread, one request at a time, blocking, and a count of what was answered.

use crate::answer::Answer;
use crate::socket;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(20);
/// A polite client waits for so long; then it was not served.
const PATIENCE: Duration = Duration::from_secs(5);
/// What it asks for.
pub const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: ends\r\n\r\n";

/// Sends a request on a connection of its own; the status of the answer.
///
/// # Errors
/// Refused, reset, ended, or nothing whole within `patience`.
pub fn ask(to: SocketAddr, request: &[u8], patience: Duration) -> io::Result<u16> {
    let mut stream = connect(0, to, patience)?;
    stream.write_all(request)?;
    answer(&mut stream, patience)
}

/// A blocking connection of the `nth` client.
///
/// # Errors
/// The kernel's, or none within `patience`.
pub fn connect(nth: usize, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = socket::open(nth)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&to.into(), patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket.into())
}

/// Reads one answer; its status.
///
/// # Errors
/// The connection ended before the answer did, or nothing whole came within `patience`.
pub fn answer(stream: &mut impl Read, patience: Duration) -> io::Result<u16> {
    let begun = Instant::now();
    let (mut input, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match Answer::read(&input) {
            Ok(Some(answer)) => return Ok(answer.status),
            Ok(None) => {}
            Err(_) => return Err(io::Error::new(ErrorKind::InvalidData, "no HTTP")),
        }
        if begun.elapsed() > patience {
            return Err(ErrorKind::TimedOut.into());
        }
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            bytes => input.extend_from_slice(&piece[..bytes]),
        }
    }
}

/// How many requests were sent and how many of them were answered with 200.
#[derive(Clone, Default, Debug)]
pub struct Served {
    pub asked: u64,
    pub answered: u64,
    /// The longest that an answer took.
    pub longest: Duration,
    /// Why the first one of those that were not answered was not.
    pub first_fault: Option<String>,
}

impl Served {
    /// One more.
    pub fn add(&mut self, result: io::Result<u16>, took: Duration) {
        self.asked += 1;
        self.longest = self.longest.max(took);
        match result {
            Ok(200) => self.answered += 1,
            Ok(status) => _ = self.first_fault.get_or_insert_with(|| status.to_string()),
            Err(error) => _ = self.first_fault.get_or_insert_with(|| error.to_string()),
        }
    }

    pub fn in_words(&self) -> String {
        let fault =
            self.first_fault.as_ref().map_or(String::new(), |fault| format!(", first fault: {fault}"));
        format!("{} of {}, longest {} ms{fault}", self.answered, self.asked, self.longest.as_millis())
    }
}

/// A polite client in a thread of its own: every other request on a new connection, the others on a kept one.
pub struct Polite {
    thread: JoinHandle<Served>,
    is_over: Arc<AtomicBool>,
}

impl Polite {
    pub fn start(to: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut served = Served::default();
            let mut kept = None;
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let result = match served.asked % 2 {
                    0 => ask(to, REQUEST, PATIENCE),
                    _ => ask_again(to, &mut kept),
                };
                if result.is_err() {
                    kept = None;
                }
                served.add(result, begun.elapsed());
                std::thread::sleep(PAUSE);
            }
            served
        });
        Self { thread, is_over }
    }

    /// Ends it behind its present request.
    pub fn finish(self) -> Served {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Asks on the connection that is there, or on a new one where the server has ended it in the meantime.
fn ask_again(to: SocketAddr, kept: &mut Option<TcpStream>) -> io::Result<u16> {
    let is_open = kept.as_ref().is_some_and(|stream| {
        let seen = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        let is_quiet = matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock);
        is_quiet && stream.set_nonblocking(false).is_ok()
    });
    let mut stream = match kept.take() {
        Some(stream) if is_open => stream,
        _ => connect(1, to, PATIENCE)?,
    };
    stream.write_all(REQUEST)?;
    let status = answer(&mut stream, PATIENCE)?;
    *kept = Some(stream);
    Ok(status)
}
