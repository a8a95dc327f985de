//! Both far ends of a relay: a backend and its clients, on one worker of this process.
//!
//! Bulk: the backend sends so many bytes to whoever connects, and closes. Short: the client asks a few bytes, and the backend
//! answers and closes, which is a connection's whole life. A client that is lost makes room for the next one, so that as
//! many as were asked for are under way until all have been.

use benches::runner::Failure;
use netpoll_core::{Commands, Conn, ConnectOptions, Flow, Input, Lost, Protocol, Running, Runtime, Workers};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

static BLOCK: [u8; 256 << 10] = [b'b'; 256 << 10];
const QUESTION: &[u8] = &[b'q'; 100];
const ANSWER: &[u8] = &[b'a'; 100];
/// Of one round. A relay that takes longer has stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of a relay in one round.
#[derive(Clone, Copy)]
pub struct Task {
    pub connections: usize,
    pub at_once: usize,
    /// What each brings from the backend; zero asks for a short answer.
    pub bytes: usize,
}

impl Task {
    /// What all of them bring to their clients.
    fn sum(self) -> u64 {
        (self.connections * if self.bytes == 0 { ANSWER.len() } else { self.bytes }) as u64
    }
}

/// Sends a long answer, or a short one when it is asked.
struct Backend {
    left: usize,
}

impl Backend {
    fn pump(&mut self, conn: &mut Conn<'_>) -> Flow {
        while self.left > 0 && !conn.is_backed_up() {
            let part = self.left.min(BLOCK.len());
            conn.send_static(&BLOCK[..part]);
            self.left -= part;
        }
        if self.left == 0 { Flow::Close } else { Flow::Continue }
    }
}

impl Protocol for Backend {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.left > 0 { self.pump(conn) } else { Flow::Continue }
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.len() < QUESTION.len() {
            return Flow::Continue;
        }
        input.advance_all();
        conn.send(ANSWER);
        Flow::Close
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.pump(conn)
    }
}

/// What all clients of a round know.
struct Round {
    relay: SocketAddr,
    task: Task,
    to_start: AtomicUsize,
    to_end: AtomicUsize,
    received: AtomicU64,
    over: mpsc::Sender<()>,
}

struct Client {
    round: Arc<Round>,
}

impl Protocol for Client {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.round.task.bytes == 0 {
            conn.send(QUESTION);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.round.received.fetch_add(input.len() as u64, Relaxed);
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        let round = &self.round;
        if round.to_start.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let next = Self { round: Arc::clone(round) };
            commands.connect(round.relay, ConnectOptions::default(), next);
        }
        if round.to_end.fetch_sub(1, Relaxed) == 1 {
            // The receiver is there until its patience is over.
            let _ = round.over.send(());
        }
    }
}

/// The worker that both ends live on.
pub struct Ends {
    runtime: Running,
}

impl Ends {
    /// Starts it, with a backend for each of these tasks, in order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(tasks: &[Task]) -> Result<Self, Failure> {
        let mut builder = Runtime::builder().workers(Workers::Count(1));
        for Task { bytes, .. } in tasks.iter().copied() {
            builder = builder.listen("127.0.0.1:0", move |_worker| move |_peer| Backend { left: bytes })?;
        }
        Ok(Self { runtime: builder.start()? })
    }

    /// Where the backends listen.
    pub fn backends(&self) -> Vec<SocketAddr> {
        self.runtime.local_addrs().iter().filter_map(|addr| addr.as_socket_addr()).collect()
    }

    /// Does one task through the relay on this port.
    ///
    /// # Errors
    /// It takes too long, or does not bring all bytes.
    pub fn round(&self, port: u16, task: Task) -> Result<(), Failure> {
        let (over, is_over) = mpsc::channel();
        let round = Arc::new(Round {
            relay: SocketAddr::from(([127, 0, 0, 1], port)),
            task,
            to_start: AtomicUsize::new(task.connections - task.at_once),
            to_end: AtomicUsize::new(task.connections),
            received: AtomicU64::new(0),
            over,
        });
        for _ in 0..task.at_once {
            let client = Client { round: Arc::clone(&round) };
            self.runtime.handle().connect(0, round.relay, ConnectOptions::default(), client);
        }
        is_over.recv_timeout(PATIENCE)?;
        let received = round.received.load(Relaxed);
        if received == task.sum() {
            Ok(())
        } else {
            Err(format!("{received} bytes of {}", task.sum()).into())
        }
    }
}
