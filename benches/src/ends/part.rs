//! What one thread of a crowd does: its clients, each a small state machine that goes as far as it can without waiting.
//!
//! Edges bring a client on, and every 5 ms a look at what waits for time. Invariant: a client in `Away` has no connection, one
//! in any other state has one, and each request is counted once, when its answer is there or its connection ends. Touched by
//! its own thread only; the count of answers is shared.

use crate::answer::Answer;
use crate::counts::{Counts, SLOW_CONNECT};
use crate::crowd::{Manner, Question, Shared};
use crate::socket::{self, Connecting};
use benches::sys::{EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Epoll, epoll_event};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A request without an answer for so long has none.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// So long a server may keep a connection open behind its last answer.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Between a refusal and the next try.
const RETRY: Duration = Duration::from_millis(10);
/// What waits for time is looked at this often.
const LOOK: Duration = Duration::from_millis(5);

/// The clients of one thread.
pub struct Part {
    to: SocketAddr,
    epoll: Epoll,
    clients: Vec<Client>,
    expected: Vec<u8>,
    once: Vec<u8>,
    kept: Vec<u8>,
    counts: Counts,
    shared: Arc<Shared>,
    chance: Chance,
}

/// Pauses that differ: xorshift64.
struct Chance(u64);

impl Chance {
    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 % 1024) as f64 / 1024.0)
    }
}

struct Client {
    nth: usize,
    manner: Manner,
    stream: Option<TcpStream>,
    state: State,
    /// When the state began, and in `Away` and `Resting` when it is over.
    since: Instant,
    /// What came of the present answer.
    input: Vec<u8>,
    /// Requests that were answered on this connection.
    answered: u64,
    /// A write has met an RST; the kernel says so once, and EOF from then on.
    is_reset: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No connection, and none before `since`.
    Away,
    Connecting,
    /// This many bytes of the request are sent.
    Asking(usize),
    /// Nothing asked, nothing to ask before `since`.
    Resting,
    /// The last answer is there; the server ends the connection.
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Eof,
    Reset,
}

impl Part {
    pub fn new(
        to: SocketAddr,
        question: &Question,
        clients: &[(usize, Manner)],
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let since = Instant::now();
        let clients = clients.iter().map(|&(nth, manner)| Client {
            nth,
            manner,
            stream: None,
            state: State::Away,
            since,
            input: Vec::new(),
            answered: 0,
            is_reset: false,
        });
        Ok(Self {
            to,
            epoll: Epoll::new()?,
            clients: clients.collect(),
            expected: question.expected.clone(),
            once: question.bytes(true),
            kept: question.bytes(false),
            counts: Counts::default(),
            shared,
            chance: Chance(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// Goes on until nothing more is to be asked and everything that was has come to its end.
    pub fn run(&mut self) -> io::Result<Counts> {
        let mut events = [epoll_event { events: 0, u64: 0 }; 64];
        let mut looked = Instant::now() - LOOK;
        loop {
            let is_over = self.is_over();
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                for at in 0..self.clients.len() {
                    self.look(at, looked)?;
                }
                if is_over && self.clients.iter().all(|client| client.state == State::Away) {
                    return Ok(std::mem::take(&mut self.counts));
                }
            }
            let filled = self.epoll.wait(&mut events, LOOK.as_millis() as i32)?;
            for event in &events[..filled] {
                self.go_on(event.u64 as usize)?;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    /// What time alone brings about.
    fn look(&mut self, at: usize, now: Instant) -> io::Result<()> {
        let client = &self.clients[at];
        let waited = now.saturating_duration_since(client.since);
        match client.state {
            State::Away if now >= client.since => self.connect(at),
            State::Resting if now >= client.since || self.is_over() => self.go_on(at),
            State::Connecting | State::Asking(_) if waited > ANSWER_MAX => {
                self.counts.timeouts += 1;
                self.hang_up(at, Duration::ZERO);
                Ok(())
            }
            State::Leaving if waited > CLOSE_MAX => {
                self.counts.left_open += 1;
                self.hang_up(at, Duration::ZERO);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, at: usize) -> io::Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let client = &mut self.clients[at];
        client.since = Instant::now();
        let stream = socket::connect(socket::open(client.nth)?, self.to)?;
        self.epoll.add(&stream, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, at as u64)?;
        client.stream = Some(stream);
        client.state = State::Connecting;
        (client.answered, client.is_reset) = (0, false);
        self.go_on(at)
    }

    /// Does what can be done without waiting; an edge brings it here again.
    fn go_on(&mut self, at: usize) -> io::Result<()> {
        loop {
            let client = &mut self.clients[at];
            let Some(stream) = &mut client.stream else { return Ok(()) };
            match client.state {
                State::Away => return Ok(()),
                State::Connecting => match socket::connecting(stream) {
                    Connecting::Pending => return Ok(()),
                    Connecting::Established => {
                        self.counts.established += 1;
                        self.counts.slow_connects += u64::from(client.since.elapsed() > SLOW_CONNECT);
                        let now = Instant::now();
                        (client.state, client.since) = match client.manner {
                            Manner::Hesitant(pause_max) => {
                                (State::Resting, now + self.chance.up_to(pause_max))
                            }
                            _ => (State::Asking(0), now),
                        };
                    }
                    Connecting::Refused => {
                        self.counts.refused += 1;
                        self.hang_up(at, RETRY);
                        return Ok(());
                    }
                    Connecting::Reset => {
                        self.counts.established += 1;
                        self.counts.reset += 1;
                        self.hang_up(at, Duration::ZERO);
                        return Ok(());
                    }
                    Connecting::Failed(error) => return Err(error),
                },
                State::Asking(sent) => {
                    let request = match client.manner {
                        Manner::ClosedByServer | Manner::Hesitant(_) => &self.once,
                        Manner::ClosedByClient | Manner::Kept(_) => &self.kept,
                    };
                    if sent < request.len() {
                        match stream.write(&request[sent..]) {
                            Ok(bytes) => {
                                client.state = State::Asking(sent + bytes);
                                continue;
                            }
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            // What came before the reset can still be read.
                            Err(_) => {
                                client.is_reset = true;
                                client.state = State::Asking(request.len());
                            }
                        }
                    }
                    if !self.read(at) {
                        return Ok(());
                    }
                }
                State::Resting => {
                    // Look before asking: an EOF that is here already has not crossed anything.
                    if self.read(at) {
                        continue;
                    }
                    let (is_over, client) = (self.is_over(), &mut self.clients[at]);
                    if client.state != State::Resting {
                        return Ok(());
                    }
                    if is_over {
                        self.hang_up(at, Duration::ZERO);
                        return Ok(());
                    }
                    let now = Instant::now();
                    if now < client.since {
                        return Ok(());
                    }
                    (client.state, client.since) = (State::Asking(0), now);
                }
                State::Leaving => {
                    if !self.read(at) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads once. Whether there may be more to do at once.
    fn read(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(stream) = &mut client.stream else { return false };
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece) {
            Ok(0) if client.is_reset => self.ended(at, End::Reset),
            Ok(0) => self.ended(at, End::Eof),
            Ok(bytes) => {
                client.input.extend_from_slice(&piece[..bytes]);
                return self.understand(at);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.ended(at, End::Reset),
        }
        false
    }

    /// Something has come. Whether the client goes on.
    fn understand(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        if !matches!(client.state, State::Asking(_)) {
            // Nobody has asked: a 408 to a quiet connection, or more than was framed.
            self.counts.wrong += 1;
            self.hang_up(at, Duration::ZERO);
            return false;
        }
        let answer = match Answer::read(&client.input) {
            Ok(None) => return true,
            Ok(Some(answer)) if answer.bytes == client.input.len() => answer,
            Ok(Some(_)) | Err(_) => {
                self.counts.wrong += 1;
                self.hang_up(at, Duration::ZERO);
                return false;
            }
        };
        match answer.status {
            200 if answer.body == self.expected => {
                self.counts.answered += 1;
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            200 => self.counts.wrong += 1,
            status => *self.counts.statuses.entry(status).or_default() += 1,
        }
        let closes = answer.closes;
        client.input.clear();
        client.answered += 1;
        client.since = Instant::now();
        match client.manner {
            Manner::ClosedByServer | Manner::Hesitant(_) => client.state = State::Leaving,
            Manner::ClosedByClient => {
                self.hang_up(at, Duration::ZERO);
                return false;
            }
            Manner::Kept(_) if closes => {
                self.counts.told_to_close += 1;
                client.state = State::Leaving;
            }
            Manner::Kept(pause_max) => {
                client.state = State::Resting;
                client.since += self.chance.up_to(pause_max);
            }
        }
        true
    }

    /// The server has ended the connection.
    fn ended(&mut self, at: usize, end: End) {
        let client = &self.clients[at];
        let counts = &mut self.counts;
        let count = match (client.state, end) {
            (State::Asking(_), _) if !client.input.is_empty() => &mut counts.cut,
            (State::Asking(_) | State::Resting, End::Eof) if client.answered == 0 => &mut counts.lost,
            (State::Asking(_) | State::Resting, End::Reset) if client.answered == 0 => &mut counts.reset,
            (State::Asking(_), End::Eof) => &mut counts.crossed_eof,
            (State::Asking(_), End::Reset) => &mut counts.crossed_reset,
            (State::Leaving, End::Reset) => &mut counts.reset_behind,
            (State::Leaving, End::Eof) => return self.hang_up(at, Duration::ZERO),
            (_, End::Reset) => &mut counts.reset_between,
            (_, End::Eof) => &mut counts.closed_between,
        };
        *count += 1;
        self.hang_up(at, Duration::ZERO);
    }

    /// Closes, to come again after a while.
    fn hang_up(&mut self, at: usize, until: Duration) {
        let client = &mut self.clients[at];
        client.stream = None;
        client.input.clear();
        (client.state, client.since) = (State::Away, Instant::now() + until);
    }
}
