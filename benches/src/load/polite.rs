//! The connections that wait for their answers before they ask again.
//!
//! Invariant: a connection has either a batch in flight (`outstanding > 0`), or stands in `paused` once, or the
//! run is over for it. Edge-triggered: a read that fills less than the buffer has drained the socket.

use crate::histogram::Histogram;
use crate::{Layout, Options};
use benches::sys::{EPOLLET, EPOLLIN, EPOLLRDHUP, Epoll};
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

struct Conn {
    stream: TcpStream,
    /// The beginning of an answer whose end has not been read yet; seldom anything.
    rest: Vec<u8>,
    outstanding: usize,
    sent_at: Duration,
    answers: u64,
}

/// All polite connections and what they have seen.
pub struct Polite {
    conns: Vec<Conn>,
    batch: Vec<u8>,
    depth: usize,
    pause: Duration,
    /// Who asks again when; in order, because the pause is the same for all.
    paused: VecDeque<(Duration, usize)>,
    answers: u64,
    answers_max: u64,
    pub latency: Histogram,
}

impl Polite {
    /// Connects all and watches them.
    pub fn connect(options: &Options, epoll: &Epoll) -> io::Result<Self> {
        let mut conns = Vec::with_capacity(options.connections);
        for nth in 0..options.connections {
            let stream = options.connect(nth)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EPOLLIN | EPOLLRDHUP | EPOLLET, nth as u64)?;
            conns.push(Conn {
                stream,
                rest: Vec::new(),
                outstanding: 0,
                sent_at: Duration::ZERO,
                answers: 0,
            });
        }
        Ok(Self {
            conns,
            batch: options.request.repeat(options.depth),
            depth: options.depth,
            pause: options.pause,
            paused: VecDeque::with_capacity(options.connections),
            answers: 0,
            answers_max: if options.requests == 0 { u64::MAX } else { options.requests },
            latency: Histogram::new(),
        })
    }

    /// The first batch of each; with a pause, spread over one pause so that they do not march in step.
    pub fn start(&mut self, now: Duration) -> io::Result<()> {
        for index in 0..self.conns.len() {
            if self.pause.is_zero() {
                self.send(index, now)?;
            } else {
                let share = self.pause.mul_f64(index as f64 / self.conns.len() as f64);
                self.paused.push_back((now + share, index));
            }
        }
        Ok(())
    }

    /// What epoll reported for connection `data`: reads, checks and, while `asking`, asks again.
    pub fn event(
        &mut self,
        data: u64,
        start: Instant,
        asking: bool,
        layout: &mut Layout,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn Error>> {
        let index = usize::try_from(data)?;
        let conn = &mut self.conns[index];
        loop {
            let read = match conn.stream.read(buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let answers = split(layout, &mut conn.rest, &buffer[..read])?;
            if answers > conn.outstanding {
                return Err("more answers than requests".into());
            }
            let now = start.elapsed();
            conn.outstanding -= answers;
            conn.answers += answers as u64;
            self.answers += answers as u64;
            self.latency.record(now.saturating_sub(conn.sent_at), answers as u64);
            if conn.outstanding == 0 && answers > 0 {
                if asking && self.pause.is_zero() && self.answers < self.answers_max {
                    return Ok(self.send(index, now)?);
                }
                if !self.pause.is_zero() {
                    self.paused.push_back((now + self.pause, index));
                }
            }
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Asks again where the pause is over.
    pub fn send_paused(&mut self, start: Instant) -> io::Result<()> {
        while let Some(&(due, index)) = self.paused.front() {
            let now = start.elapsed();
            if due > now {
                break;
            }
            self.paused.pop_front();
            self.send(index, now)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, now: Duration) -> io::Result<()> {
        let conn = &mut self.conns[index];
        conn.sent_at = now;
        conn.outstanding = self.depth;
        match conn.stream.write(&self.batch)? {
            sent if sent == self.batch.len() => Ok(()),
            _ => Err(io::Error::other("a batch did not fit into the socket")),
        }
    }

    /// How long epoll may wait, in its unit.
    pub fn timeout_ms(&self, now: Duration) -> i32 {
        let Some(&(due, _)) = self.paused.front() else { return 10 };
        let us = due.saturating_sub(now).as_micros();
        i32::try_from(us.div_ceil(1000).min(10)).expect("at most ten")
    }

    /// Whether the bound on requests has been reached.
    pub fn is_finished(&self) -> bool {
        self.answers >= self.answers_max
    }

    /// Requests in flight.
    pub fn outstanding(&self) -> usize {
        self.conns.iter().map(|conn| conn.outstanding).sum()
    }

    /// Lets requests that were never answered count with their age.
    pub fn count_unanswered(&mut self, now: Duration) {
        for conn in self.conns.iter().filter(|conn| conn.outstanding > 0) {
            self.latency.record(now.saturating_sub(conn.sent_at), conn.outstanding as u64);
        }
    }

    /// Answers on all connections.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Answers on the connection that got the fewest.
    pub fn least_answers(&self) -> u64 {
        self.conns.iter().map(|conn| conn.answers).min().unwrap_or(0)
    }
}

/// How many answers end in `bytes`; what is left of them goes into `rest`, in front of the next read.
pub fn split(
    layout: &mut Layout,
    rest: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<usize, crate::answer::BadAnswer> {
    let mut answers = 0;
    let mut from = 0;
    if rest.is_empty() {
        while from < bytes.len() {
            let Some(length) = layout.answer(&bytes[from..])? else { break };
            from += length;
            answers += 1;
        }
        rest.extend_from_slice(&bytes[from..]);
        return Ok(answers);
    }
    rest.extend_from_slice(bytes);
    while from < rest.len() {
        let Some(length) = layout.answer(&rest[from..])? else { break };
        from += length;
        answers += 1;
    }
    rest.drain(..from);
    Ok(answers)
}
