//! One connection: bytes out, bytes in, and how it ended. Always within 5 s.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// How long a server may be silent before it is said to wait for more.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long answers behind the canary are looked for.
const AFTERMATH: Duration = Duration::from_millis(100);
/// The most that one exchange takes, however slowly a server answers.
const TOTAL: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was waited for has come, and the server had left the connection open until then.
    Kept,
    /// The server ended it (FIN).
    Closed,
    /// The server broke it (RST).
    Reset,
    /// The server went silent and left it open.
    Silent,
}

/// What came back.
#[derive(Debug)]
pub struct Outcome {
    pub bytes: Vec<u8>,
    pub end: End,
}

/// Sends the bytes and reads until `is_done` with what came, the connection ends, or the server is silent.
///
/// # Errors
/// The kernel's: nobody listens.
pub fn exchange(
    to: SocketAddrV4,
    request: &[u8],
    is_done: impl Fn(&[u8]) -> bool,
) -> std::io::Result<Outcome> {
    let deadline = Instant::now() + TOTAL;
    let mut socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    // A server that has refused the first bytes may be gone before the last; what it said is still there to read.
    let _ = socket.write_all(request);
    let mut bytes = Vec::new();
    let mut end = read(&mut socket, &mut bytes, PATIENCE, deadline, is_done);
    if end == End::Kept {
        // A server may have ended the connection behind its answer already; then there is nothing to end here.
        let _ = socket.shutdown(Shutdown::Write);
        if read(&mut socket, &mut bytes, AFTERMATH, deadline, |_| false) == End::Reset {
            end = End::Reset;
        }
    }
    Ok(Outcome { bytes, end })
}

fn read(
    socket: &mut TcpStream,
    bytes: &mut Vec<u8>,
    patience: Duration,
    deadline: Instant,
    is_done: impl Fn(&[u8]) -> bool,
) -> End {
    let mut block = [0; 16 * 1024];
    loop {
        if is_done(bytes) {
            return End::Kept;
        }
        let left = patience.min(deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return End::Silent;
        }
        match socket.read(&mut block) {
            Ok(0) => return End::Closed,
            Ok(count) => bytes.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return End::Silent;
            }
            Err(_) => return End::Reset,
        }
    }
}
