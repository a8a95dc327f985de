//! The client, in a process of its own: this program with `--ask --port P --cpu LIST --connections N --depth D --seconds S --warmup S`.
//!
//! A closed loop of callbacks on netpoll-core, on epoll whatever the server runs on, with a worker for each CPU. A connection sends
//! `--depth` requests and, when all are answered, the next; what is counted is when the last byte of them is there. Every answer has to be a
//! 200 with the one body that there is, and nothing behind it.
//!
//! It prints `begin` when the warm-up is over, and a line of JSON at the end of the window; then it is quiet until its standard input ends, so
//! that its threads can be looked at. It ends with the first thing that goes wrong.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netpoll_core::{Backend, Commands, Conn, ConnectOptions, Flow, Input, Lost, Protocol, Runtime, Workers};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::json;

use crate::{Failure, option};

const REQUEST: &[u8] =
    b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain,text/html;q=0.9,*/*;q=0.8\r\n\
    Connection: keep-alive\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 ";
const END: &[u8] = b"\r\n\r\nHello, World!";
/// The empty line of it.
const END_OF_HEAD: usize = 4;
/// With all that may have come behind it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// For all connections to be open, and for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts of latencies: 32 steps for each power of two of nanoseconds, so that a figure is at most 3 % too high.
pub struct Histogram(Vec<u64>);

impl Histogram {
    const STEPS: u32 = 5;

    fn new() -> Self {
        Self(vec![0; 64 << Self::STEPS])
    }

    fn add(&mut self, ns: u64) {
        let power = ns.max(1).ilog2();
        let step = (ns << (63 - power) << 1) >> (64 - Self::STEPS);
        self.0[(power << Self::STEPS) as usize + step as usize] += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(all, one)| *all += one);
    }

    /// The upper end of the step that has it, in microseconds.
    fn percentile_us(&self, share: f64) -> f64 {
        let wanted = (self.0.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let at = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        let at = at.unwrap_or(0) as u32;
        let (power, step) = (at >> Self::STEPS, at & ((1 << Self::STEPS) - 1));
        2f64.powi(power as i32) * (1.0 + f64::from(step + 1) / f64::from(1_u32 << Self::STEPS)) / 1e3
    }
}

/// What a worker of the client has seen in this window.
struct Tally {
    answers: u64,
    latencies: Histogram,
    wrong: Option<String>,
}

/// Held for a moment by a worker, and twice in a run by the main thread.
type Shared = Arc<Mutex<Tally>>;

struct Asker {
    tally: Shared,
    opened: Arc<AtomicUsize>,
    batch: Arc<[u8]>,
    depth: usize,
    sent: Instant,
    /// Answers that have not come yet.
    owed: usize,
    /// Bytes of the one before, which most have.
    last: usize,
}

impl Asker {
    fn ask(&mut self, conn: &mut Conn<'_>) -> Flow {
        (self.sent, self.owed) = (Instant::now(), self.depth);
        conn.send(&self.batch);
        conn.set_deadline(PATIENCE);
        Flow::Continue
    }

    fn wrong(&self, what: impl Into<String>) -> Flow {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.wrong.get_or_insert(what.into());
        Flow::Reset
    }
}

/// The length of the answer that these bytes begin with, tried first with that of the one before; `None` while it is not all there.
///
/// # Errors
/// It is none.
fn answer(bytes: &[u8], last: usize) -> Result<Option<usize>, ()> {
    let seen = bytes.len().min(OK.len());
    if bytes[..seen] != OK[..seen] || bytes.len() > ANSWER_BYTES_MAX {
        return Err(());
    }
    if last > 0 && bytes.get(..last).is_some_and(|bytes| bytes.ends_with(END)) {
        return Ok(Some(last));
    }
    let (gap, wanted) = END.split_at(END_OF_HEAD);
    let Some(head) = bytes.windows(gap.len()).position(|bytes| bytes == gap) else { return Ok(None) };
    let body = &bytes[head + gap.len()..];
    let seen = body.len().min(wanted.len());
    // Said at once: who waited for the right one would be a connection that is slow.
    if body[..seen] != wanted[..seen] {
        return Err(());
    }
    Ok((seen == wanted.len()).then_some(head + END.len()))
}

impl Protocol for Asker {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.ask(conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while self.owed > 0 {
            match answer(input.bytes(), self.last) {
                Ok(Some(length)) => {
                    input.advance(length);
                    self.last = length;
                    self.owed -= 1;
                }
                Ok(None) => return Flow::Continue,
                Err(()) => break,
            }
        }
        if self.owed > 0 || !input.is_empty() {
            return self.wrong(format!("not an answer: {:?}", String::from_utf8_lossy(input.bytes())));
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.answers += self.depth as u64;
        tally.latencies.add(self.sent.elapsed().as_nanos() as u64);
        drop(tally);
        self.ask(conn)
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.wrong("no answer for 10 s")
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.wrong(format!("a connection ended: {reason:?}"));
    }
}

/// The whole life of the client.
pub fn ask(words: &[String]) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, option(words, "--port", 0)?));
    let list = option(words, "--cpu", String::new())?;
    let cpus: Vec<usize> = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let connections: usize = option(words, "--connections", 64)?;
    let depth: usize = option(words, "--depth", 1)?;
    let (seconds, warmup) = (option(words, "--seconds", 1.0)?, option(words, "--warmup", 0.2)?);

    let tally = || Tally { answers: 0, latencies: Histogram::new(), wrong: None };
    let tallies: Vec<Shared> = cpus.iter().map(|_| Arc::new(Mutex::new(tally()))).collect();
    let opened = Arc::new(AtomicUsize::new(0));
    let batch: Arc<[u8]> = REQUEST.repeat(depth).into();
    let (each, count) = (tallies.clone(), Arc::clone(&opened));
    let running = Runtime::builder()
        .workers(Workers::Cpus(cpus))
        .backend(Backend::Epoll)
        .on_start(move |worker, commands| {
            for _ in (worker.index..connections).step_by(worker.workers) {
                let asker = Asker {
                    tally: Arc::clone(&each[worker.index]),
                    opened: Arc::clone(&count),
                    batch: Arc::clone(&batch),
                    depth,
                    sent: Instant::now(),
                    owed: 0,
                    last: 0,
                };
                let options =
                    ConnectOptions::default().keepalive(None).user_timeout(None).unsent_bytes_max(None);
                commands.connect(to, options.timeout(PATIENCE), asker);
            }
        })
        .start()?;
    let wrong = || {
        tallies.iter().find_map(|tally| tally.lock().unwrap_or_else(PoisonError::into_inner).wrong.clone())
    };
    let began = Instant::now();
    while opened.load(Ordering::Relaxed) < connections {
        if began.elapsed() > PATIENCE || wrong().is_some() {
            return Err(wrong().unwrap_or_else(|| "not all connections were opened".into()).into());
        }
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_secs_f64(warmup));
    for shared in &tallies {
        let mut counted = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = counted.wrong.take();
        *counted = Tally { wrong, ..tally() };
    }
    println!("begin");
    std::io::stdout().flush()?;
    let began = Instant::now();
    sleep(Duration::from_secs_f64(seconds));
    let (mut answers, mut latencies) = (0, Histogram::new());
    for shared in &tallies {
        let counted = shared.lock().unwrap_or_else(PoisonError::into_inner);
        answers += counted.answers;
        latencies.merge(&counted.latencies);
    }
    let took = began.elapsed().as_secs_f64();
    if let Some(wrong) = wrong() {
        return Err(wrong.into());
    }
    let (p50, p99) = (latencies.percentile_us(0.50), latencies.percentile_us(0.99));
    println!("{}", json!({ "answers": answers, "seconds": took, "p50_us": p50, "p99_us": p99 }));
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    running.stop(Duration::ZERO)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_at_most_three_percent_high() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us: u64| histogram.add(us * 1000));
        for (share, us) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0)] {
            let found = histogram.percentile_us(share);
            assert!((us..us * 1.035).contains(&found), "{share}: {found}");
        }
    }

    #[test]
    fn an_answer_is_a_200_with_the_body_and_may_have_another_length_than_the_last() {
        let two = b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nHello, World!HTTP/1.1 200 OK\r\n\r\nHello, World!";
        assert_eq!(
            (answer(two, 0), answer(two, 7), answer(&two[41..], 41)),
            (Ok(Some(41)), Ok(Some(41)), Ok(Some(32)))
        );
        assert_eq!((answer(&two[..40], 41), answer(b"HTT", 0)), (Ok(None), Ok(None)));
        assert_eq!(answer(b"HTTP/1.1 404 Not Found\r\n\r\nHello, World!", 0), Err(()));
        assert_eq!(
            (answer(b"HTTP/1.1 200 OK\r\n\r\n", 0), answer(b"HTTP/1.1 200 OK\r\n\r\nHel", 0)),
            (Ok(None), Ok(None))
        );
        for wrong in ["Hello, Worlb!", "hello", "\r\n\r\nHello, World!"] {
            let bytes = format!("HTTP/1.1 200 OK\r\n\r\n{wrong}HTTP/1.1 200 OK\r\n\r\nHello, World!");
            assert_eq!(answer(bytes.as_bytes(), 0), Err(()), "not taken for one with the next");
        }
    }
}
