//! Where bytes are sent to: a server in memory, or any server behind an address.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::answer;
use crate::cases::CANARY_BODY;
use crate::fixture;
use crate::transport::{TcpStream, TestClient};

/// How an exchange ended, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server left the connection open, and ended it when the client did.
    Kept,
    /// The server ended the connection (FIN).
    Closed,
    /// The server broke the connection (RST).
    Reset,
    /// The server neither served the canary nor ended the connection.
    Hung,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub bytes: Vec<u8>,
    pub end: End,
}

/// Something that can be sent bytes on a fresh connection.
pub trait Target {
    /// Sends the pieces one by one and waits until the canary was answered or the connection has ended.
    fn exchange(&self, pieces: &[&[u8]]) -> Outcome;
}

/// The fixture in memory, made anew for every exchange.
pub struct Memory;

impl Target for Memory {
    fn exchange(&self, pieces: &[&[u8]]) -> Outcome {
        let client = fixture::client();
        let outcome = in_memory(&client, pieces);
        assert_eq!(client.open(), 0, "the connection is gone");
        assert_eq!(client.blocks_in_use(), 0, "and has left no buffer behind");
        assert_eq!(client.stats().panics, 0);
        outcome
    }
}

/// An exchange with this server.
pub fn in_memory(client: &TestClient, pieces: &[&[u8]]) -> Outcome {
    let mut connection = client.connect();
    for piece in pieces {
        connection.send(piece);
    }
    let mut bytes = connection.received();
    let is_closed = connection.is_closed();
    let is_served = has_canary(&bytes);
    connection.finish();
    bytes.extend(connection.received());
    let end = match (connection.is_reset(), is_closed, connection.is_closed()) {
        (true, ..) => End::Reset,
        (_, true, _) => End::Closed,
        (_, _, true) if is_served => End::Kept,
        _ => End::Hung,
    };
    Outcome { bytes, end }
}

/// A server behind an address.
pub struct Tcp {
    pub addr: SocketAddr,
}

/// How long a server that owes an answer is waited for, before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(20);

impl Target for Tcp {
    fn exchange(&self, pieces: &[&[u8]]) -> Outcome {
        let mut socket = TcpStream::connect(self.addr).expect("the server listens");
        socket.set_nodelay(true).expect("an open socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        for piece in pieces {
            // A server that has refused the first piece may be gone before the last one.
            if socket.write_all(piece).is_err() {
                break;
            }
        }
        let mut bytes = Vec::new();
        let mut end = read_until(&mut socket, &mut bytes, has_canary);
        if end == End::Kept {
            let finished = socket.shutdown(Shutdown::Write);
            let rest = read_until(&mut socket, &mut bytes, |_| false);
            end = if finished.is_ok() && rest == End::Closed { End::Kept } else { rest };
        }
        Outcome { bytes, end }
    }
}

fn read_until(socket: &mut TcpStream, bytes: &mut Vec<u8>, done: impl Fn(&[u8]) -> bool) -> End {
    let mut block = [0; 16 * 1024];
    loop {
        if done(bytes) {
            return End::Kept;
        }
        match socket.read(&mut block) {
            Ok(0) => return End::Closed,
            Ok(count) => bytes.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return End::Hung;
            }
            Err(_) => return End::Reset,
        }
    }
}

/// Whether the canary was served.
pub fn has_canary(bytes: &[u8]) -> bool {
    answer::find(bytes, CANARY_BODY.as_bytes()).is_some()
}
