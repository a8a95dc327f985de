//! The connection that never waits: it pipelines requests as fast as the socket takes them.
//!
//! It reads at most one buffer and sends at most one per turn, after all polite connections have been served,
//! so that the client's own share in a polite request's latency stays at some tens of µs. Only its first answer
//! is checked; the others are counted by their length and discarded in the kernel, because a client that read
//! them would be slower than the server, and the server would see a peer that pauses. Invariant: `writable` and `readable` are true unless the socket said "would
//! block" (or a short read) since its last edge.

use crate::polite::split;
use crate::{Layout, Options};
use benches::sys::{self, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Epoll};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// What epoll reports for the flooding connection.
pub const DATA: u64 = u64::MAX;
const SEND_BYTES: usize = 64 * 1024;
const DISCARD_BYTES: usize = 4 * 1024 * 1024;

pub struct Flood {
    stream: TcpStream,
    rest: Vec<u8>,
    /// Bytes of an answer that has not arrived whole.
    discarded_bytes: usize,
    /// Whole requests, about `SEND_BYTES` of them.
    requests: Vec<u8>,
    request_bytes: usize,
    /// All bytes ever sent.
    sent_bytes: usize,
    answers: usize,
    readable: bool,
    writable: bool,
}

impl Flood {
    pub fn connect(options: &Options, epoll: &Epoll) -> io::Result<Self> {
        let stream = options.connect(0)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, DATA)?;
        let request_bytes = options.short_request.len();
        Ok(Self {
            stream,
            rest: Vec::new(),
            discarded_bytes: 0,
            requests: options.short_request.repeat(SEND_BYTES / request_bytes),
            request_bytes,
            sent_bytes: 0,
            answers: 0,
            readable: false,
            writable: false,
        })
    }

    pub fn woken(&mut self, bits: u32) {
        self.readable |= bits & !EPOLLOUT.cast_unsigned() != 0;
        self.writable |= bits & EPOLLOUT.cast_unsigned() != 0;
    }

    /// Whether there is something to do without waiting.
    pub fn is_ready(&self, asking: bool) -> bool {
        self.readable || (self.writable && asking)
    }

    pub fn outstanding(&self) -> usize {
        self.sent_bytes / self.request_bytes - self.answers
    }

    pub fn answers(&self) -> u64 {
        self.answers as u64
    }

    /// One read and, while `asking`, one write.
    pub fn turn(
        &mut self,
        asking: bool,
        layout: &mut Layout,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn Error>> {
        if self.readable {
            let known = layout.total_bytes();
            let received = match known {
                None => self.stream.read(buffer),
                Some(_) => sys::discard(&self.stream, DISCARD_BYTES),
            };
            match received {
                Ok(0) => return Err("the server closed the flooding connection".into()),
                Ok(read) => match known {
                    None => {
                        self.answers += split(layout, &mut self.rest, &buffer[..read])?;
                        self.discarded_bytes = self.rest.len();
                        self.readable = read == buffer.len();
                    }
                    Some(answer_bytes) => {
                        self.discarded_bytes += read;
                        self.answers += self.discarded_bytes / answer_bytes;
                        self.discarded_bytes %= answer_bytes;
                        self.readable = read == DISCARD_BYTES;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error.into()),
            }
        }
        if self.writable && asking {
            // The requests are periodic: where the last send stopped is where this one begins.
            let from = self.sent_bytes % self.request_bytes;
            match self.stream.write(&self.requests[from..]) {
                Ok(sent) => self.sent_bytes += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
