//! Connections that take what they can get and give nothing: half heads, half bodies, answers that are not read.
//!
//! One thread with an epoll of its own holds them all; each sends the same bytes as fast as the server takes them and then
//! stays until the server ends it, or the hoard is dropped. Costs a socket for each, and no memory of ours.

use crate::socket::{self, Connecting};
use benches::sys::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Epoll, epoll_event};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that are begun at a time, so that the accept queue is not what is tested.
const CONNECTING_MAX: usize = 256;
/// The kernel's part of what we have sent and the server has not taken.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// What each connection does.
#[derive(Clone)]
pub struct Plan {
    pub connections: usize,
    pub bytes: Arc<[u8]>,
    /// Bytes to read, and how often, with a small receive buffer; `None` reads all that comes.
    pub reads: Option<(usize, Duration)>,
}

/// How it stands.
#[derive(Clone, Default, Debug)]
pub struct Standing {
    /// Connections that were established, those that have ended since included.
    pub established: usize,
    /// Connections that have sent all they had.
    pub sent: usize,
    /// Connections that the server has ended or refused.
    pub ended: usize,
    /// How many of these got an answer first, by its status.
    pub statuses: BTreeMap<u16, usize>,
    /// What went wrong on this machine.
    pub fault: Option<String>,
}

impl Standing {
    pub fn in_words(&self) -> String {
        let statuses = self.statuses.iter().map(|(status, count)| format!(", {count} x {status}"));
        format!("{} sent all, {} ended{}", self.sent, self.ended, statuses.collect::<String>())
    }
}

/// The connections, as long as it lives.
pub struct Hoard {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    standing: Mutex<Standing>,
    is_over: AtomicBool,
}

impl Hoard {
    pub fn start(to: SocketAddr, plan: Plan) -> Self {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut holder = Holder::default();
            if let Err(error) = holder.run(to, &plan, &mine) {
                holder.standing.fault = Some(error.to_string());
                mine.publish(&holder.standing);
            }
        });
        Self { thread: Some(thread), shared }
    }

    pub fn standing(&self) -> Standing {
        self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has panicked and said so; there is nothing to hold any more.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn publish(&self, standing: &Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing.clone();
    }
}

#[derive(Default)]
struct Holder {
    held: Vec<Option<Held>>,
    connecting: usize,
    standing: Standing,
}

struct Held {
    stream: TcpStream,
    is_established: bool,
    sent: usize,
    status: Option<u16>,
}

impl Holder {
    fn run(&mut self, to: SocketAddr, plan: &Plan, shared: &Shared) -> io::Result<()> {
        let epoll = Epoll::new()?;
        let mut events = [epoll_event { events: 0, u64: 0 }; 256];
        let mut turns: VecDeque<(Instant, usize)> = VecDeque::new();
        while !shared.is_over.load(Ordering::Relaxed) {
            while self.held.len() < plan.connections && self.connecting < CONNECTING_MAX {
                let nth = self.held.len();
                let socket = socket::open(nth)?;
                socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
                if let Some((bytes, interval)) = plan.reads {
                    socket.set_recv_buffer_size(bytes)?;
                    turns.push_back((Instant::now() + interval, nth));
                }
                let stream = socket::connect(socket, to)?;
                epoll.add(&stream, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, nth as u64)?;
                self.held.push(Some(Held { stream, is_established: false, sent: 0, status: None }));
                self.connecting += 1;
            }
            let filled = epoll.wait(&mut events, 20)?;
            for event in &events[..filled] {
                let is_over = event.events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP).cast_unsigned() != 0;
                self.go_on(event.u64 as usize, plan, is_over)?;
            }
            while let Some(&(due, nth)) = turns.front().filter(|(due, _)| *due <= Instant::now()) {
                turns.pop_front();
                if let Some((bytes, interval)) = plan.reads
                    && self.held[nth].is_some()
                {
                    self.read(nth, &mut vec![0; bytes]);
                    turns.push_back((due + interval, nth));
                }
            }
            shared.publish(&self.standing);
        }
        Ok(())
    }

    fn go_on(&mut self, nth: usize, plan: &Plan, is_over: bool) -> io::Result<()> {
        let Some(held) = &mut self.held[nth] else { return Ok(()) };
        if !held.is_established {
            match socket::connecting(&held.stream) {
                Connecting::Pending => return Ok(()),
                Connecting::Established => {
                    held.is_established = true;
                    self.standing.established += 1;
                    self.connecting -= 1;
                }
                Connecting::Refused | Connecting::Reset => {
                    self.connecting -= 1;
                    self.end(nth);
                    return Ok(());
                }
                Connecting::Failed(error) => return Err(error),
            }
        }
        let Some(held) = &mut self.held[nth] else { return Ok(()) };
        while held.sent < plan.bytes.len() {
            match held.stream.write(&plan.bytes[held.sent..]) {
                Ok(bytes) => {
                    held.sent += bytes;
                    self.standing.sent += usize::from(held.sent == plan.bytes.len());
                }
                // Ended or full; reading tells which.
                Err(_) => break,
            }
        }
        let mut piece = [0; 16 * 1024];
        if plan.reads.is_none() {
            while self.read(nth, &mut piece) {}
        } else if is_over {
            // Whoever does not read learns of the end from the kernel; the first words tell how it came.
            self.read(nth, &mut piece);
            self.end(nth);
        }
        Ok(())
    }

    /// Reads once; whether something came.
    fn read(&mut self, nth: usize, piece: &mut [u8]) -> bool {
        let Some(held) = &mut self.held[nth] else { return false };
        match held.stream.read(piece) {
            Ok(0) => self.end(nth),
            Ok(bytes) => {
                let line = str::from_utf8(&piece[..bytes.min(12)]).unwrap_or_default();
                if let Some(status) = line.strip_prefix("HTTP/1.1 ").and_then(|status| status.parse().ok()) {
                    held.status.get_or_insert(status);
                }
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.end(nth),
        }
        false
    }

    fn end(&mut self, nth: usize) {
        let Some(held) = self.held[nth].take() else { return };
        self.standing.ended += 1;
        if let Some(status) = held.status {
            *self.standing.statuses.entry(status).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const WORDS: &[u8] = b"half a head";

    /// How a hoard stands whose connections meet this end each, once it has been told of all of them.
    fn ended(connections: usize, reads: Option<(usize, Duration)>, end: fn(&mut TcpStream)) -> Standing {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = Plan { connections, bytes: WORDS.into(), reads };
        let hoard = Hoard::start(listener.local_addr().unwrap(), plan);
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; WORDS.len()]).unwrap();
            end(&mut stream);
        }
        let begun = Instant::now();
        while hoard.standing().ended < connections {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", hoard.standing());
            std::thread::yield_now();
        }
        hoard.standing()
    }

    #[test]
    fn a_connection_that_is_answered_and_ended_is_counted_by_its_status() {
        let standing =
            ended(3, None, |stream| stream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap());
        assert_eq!((standing.sent, standing.ended), (3, 3));
        assert_eq!(standing.statuses, [(408, 3)].into());
    }

    #[test]
    fn a_connection_that_is_reset_has_ended_as_well() {
        let standing = ended(2, None, |stream| {
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        assert_eq!((standing.established, standing.ended, standing.statuses.len()), (2, 2, 0));
    }

    #[test]
    fn who_does_not_read_learns_of_the_end_all_the_same() {
        let slowly = Some((1000, Duration::from_secs(3600)));
        let standing = ended(2, slowly, |stream| stream.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").unwrap());
        assert_eq!((standing.ended, standing.statuses), (2, [(503, 2)].into()));
    }

    #[test]
    fn a_connection_that_nobody_ends_has_not_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = Plan { connections: 1, bytes: WORDS.into(), reads: None };
        let hoard = Hoard::start(listener.local_addr().unwrap(), plan);
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; WORDS.len()]).unwrap();
        let begun = Instant::now();
        while hoard.standing().sent < 1 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert_eq!(hoard.standing().ended, 0);
    }
}
