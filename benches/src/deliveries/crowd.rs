//! The sockets of a room: one that speaks, and all that hear.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use benches::runner::Failure;

/// How long a message may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everybody in the room.
pub struct Crowd {
    sockets: Vec<TcpStream>,
    /// What the first one sends.
    spoken: Vec<u8>,
    /// What everybody has to hear.
    heard: Vec<u8>,
    block: Vec<u8>,
    /// Who has not heard it yet.
    waiting: Vec<usize>,
}

impl Crowd {
    /// Opens so many, for a text of so many bytes.
    ///
    /// # Errors
    /// An opening that is refused, or not answered.
    pub fn gather(port: u16, members: usize, bytes: usize) -> Result<Self, Failure> {
        let payload: Vec<u8> = (0..bytes).map(|at| b'a' + (at % 26) as u8).collect();
        let sockets = (0..members).map(|_| open(port)).collect::<Result<Vec<_>, Failure>>()?;
        let heard = [head(bytes, 0), payload.clone()].concat();
        // Masked with zeros, which changes nothing.
        let spoken = [head(bytes, 0x80), vec![0; 4], payload].concat();
        Ok(Self { sockets, spoken, block: vec![0; heard.len()], waiting: Vec::with_capacity(members), heard })
    }

    /// Speaks again and again for so long. How many deliveries that were.
    ///
    /// # Errors
    /// Somebody has heard something else, or nothing.
    pub fn publish_for(&mut self, seconds: f64) -> Result<u64, Failure> {
        let begin = Instant::now();
        let mut deliveries = 0;
        while begin.elapsed().as_secs_f64() < seconds {
            self.publish()?;
            deliveries += self.sockets.len() as u64;
        }
        Ok(deliveries)
    }

    fn publish(&mut self) -> Result<(), Failure> {
        let mut spoken = &self.spoken[..];
        let begin = Instant::now();
        while !spoken.is_empty() {
            match self.sockets[0].write(spoken) {
                Ok(bytes) => spoken = &spoken[bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
        }
        // In whatever order they are served: who waited for one would let what the others have pile up.
        self.waiting.clear();
        self.waiting.extend(0..self.sockets.len());
        while !self.waiting.is_empty() {
            let mut error = None;
            self.waiting.retain(|&nth| match hear(&mut self.sockets[nth], &mut self.block, &self.heard) {
                Ok(all) => !all,
                Err(why) => {
                    error = Some(format!("socket {nth}: {why}"));
                    false
                }
            });
            if let Some(error) = error {
                return Err(error.into());
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("{} have heard nothing", self.waiting.len()).into());
            }
        }
        Ok(())
    }
}

/// Reads what a socket has heard, if it has: false if nothing has come yet. Whoever has begun to hear is waited for.
fn hear(socket: &mut TcpStream, block: &mut [u8], expected: &[u8]) -> Result<bool, Failure> {
    let (mut heard, mut begin) = (0, None);
    while heard < expected.len() {
        match socket.read(&mut block[heard..]) {
            Ok(0) => return Err("was closed".into()),
            Ok(bytes) => heard += bytes,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if heard == 0 => return Ok(false),
            // Whoever slept here would have to be woken.
            Err(error) if begin.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                return Err(error.into());
            }
            Err(_) => {}
        }
    }
    if block != expected { Err("has heard something else".into()) } else { Ok(true) }
}

/// The head of a text.
pub fn head(bytes: usize, mask: u8) -> Vec<u8> {
    match bytes {
        0..=125 => vec![0x81, mask | bytes as u8],
        126..=65_535 => [&[0x81, mask | 126][..], &(bytes as u16).to_be_bytes()].concat(),
        _ => [&[0x81, mask | 127][..], &(bytes as u64).to_be_bytes()].concat(),
    }
}

fn open(port: u16) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(
        format!(
            "GET /room HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned().into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
