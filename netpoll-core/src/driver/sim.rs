//! A driver with a seed instead of a kernel.
//!
//! It is shaped like a completion interface: output is taken out of the queue and reported as sent
//! later, input arrives in chunks that the driver chooses. Together with the pollers it proves that nothing above
//! the contract depends on readiness. The same seed and the same calls give the same run, to the byte.
//!
//! The other end of every link belongs to the test, through [`SimNet`].

mod network;
mod outgoing;

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use super::{Close, Demand, Driver, Flushed, HangUp, Io, IoCounts, Limits, Sink, Verdict, Wait, Waited};
use crate::mem::{Key, Pool, WriteQueue};
use network::{Link, Random, State, WINDOW_BYTES};
use outgoing::{move_bytes, take_with_files};

pub use network::{Faults, SimNet};

struct SimIo {
    net: SimNet,
    random: Random,
    counts: IoCounts,
    /// Output of closed links, until its blocks can go back to the pool.
    dead: Vec<WriteQueue>,
}

/// A driver without a kernel.
pub struct SimDriver {
    io: SimIo,
    chunk: Vec<u8>,
    /// What goes back when everything was delivered.
    replies: Vec<(Key, Vec<u8>)>,
}

/// What happens next on one link. Decided with the network borrowed, delivered without.
enum Next {
    Nothing,
    Accept(Key),
    Opened(Key, io::Result<()>),
    Sent(Key, usize),
    Chunk(Key),
    Ending(Key),
    End(Key, HangUp),
    Interrupted(Key),
}

impl SimDriver {
    pub fn new(net: SimNet, seed: u64) -> Self {
        Self {
            io: SimIo { net, random: Random(seed), counts: IoCounts::default(), dead: Vec::new() },
            chunk: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn next(&mut self, index: usize, limits: &Limits, pool: &mut Pool) -> Next {
        let Self { io: SimIo { net, random, counts, .. }, chunk, .. } = self;
        let mut guard = net.net.borrow_mut();
        let net = &mut *guard;
        let faults = net.faults;
        let link = &mut net.links[index];
        if random.happens(faults.delays) {
            return Next::Nothing;
        }
        let key = match link.state {
            State::Gone => return Next::Nothing,
            State::Queued(listener) => {
                let accepts = net.listeners.get(listener).copied().unwrap_or(false);
                return if accepts { Next::Accept(listener) } else { Next::Nothing };
            }
            State::Dialing(key) if link.refused || net.refuse => {
                link.state = State::Gone;
                net.by_key.remove(key);
                return Next::Opened(key, Err(io::ErrorKind::ConnectionRefused.into()));
            }
            State::Dialing(key) => {
                link.state = State::Open(key);
                return Next::Opened(key, Ok(()));
            }
            State::Open(key) => key,
        };
        if link.peer_reset && !link.end_delivered {
            link.end_delivered = true;
            return Next::End(key, HangUp::Failed(io::ErrorKind::ConnectionReset.into()));
        }
        if !link.in_flight.is_empty() {
            let room = if link.peer_reads { usize::MAX } else { WINDOW_BYTES - link.unread.len() };
            let left = link.in_flight.queued_bytes().min(room);
            let bytes = random.part(left, faults.partial_sends);
            take_in(link, bytes, pool);
            if bytes > 0 {
                counts.sent_bytes += bytes as u64;
                return Next::Sent(key, bytes);
            }
        } else if random.happens(faults.spurious_sent) {
            return Next::Sent(key, 0);
        }
        if link.interrupted || link.end_delivered {
            return Next::Nothing;
        }
        if link.paused {
            if link.take_end_to_tell() {
                return Next::Ending(key);
            }
            let late = !link.to_us.is_empty() && std::mem::take(&mut link.may_be_late);
            if !late || !random.happens(faults.late_receives) {
                return Next::Nothing;
            }
        }
        if link.to_us.is_empty() {
            if link.peer_finished {
                link.end_delivered = true;
                return Next::End(key, HangUp::Eof);
            }
            return Next::Nothing;
        }
        if random.happens(faults.interrupted_receives) {
            link.interrupted = true;
            return Next::Interrupted(key);
        }
        let most = link.to_us.len().min(limits.read_bytes).min(64 * 1024);
        let bytes = random.part(most, faults.partial_receives);
        chunk.clear();
        let (front, back) = link.to_us.as_slices();
        let first = bytes.min(front.len());
        chunk.extend_from_slice(&front[..first]);
        chunk.extend_from_slice(&back[..bytes - first]);
        link.to_us.drain(..bytes);
        counts.syscalls_recv += 1;
        counts.received_bytes += bytes as u64;
        Next::Chunk(key)
    }

    fn deliver<S: Sink>(&mut self, index: usize, next: Next, sink: &mut S) {
        match next {
            Next::Nothing => {}
            Next::Accept(listener) => self.accept(index, listener, sink),
            Next::Opened(key, result) => sink.opened(&mut self.io, key, result),
            Next::Sent(key, bytes) => sink.sent(&mut self.io, key, bytes),
            Next::End(key, how) => sink.hung_up(&mut self.io, key, how),
            Next::Interrupted(key) => sink.unfinished(key),
            Next::Ending(key) => sink.ending(&mut self.io, key),
            Next::Chunk(key) => {
                let chunk = std::mem::take(&mut self.chunk);
                // Stop is remembered by the pause that came with it, or by `unfinished`.
                if let Verdict::Reply { start, end } = sink.received(&mut self.io, key, &chunk) {
                    self.replies.push((key, chunk[start as usize..end as usize].to_vec()));
                }
                self.chunk = chunk;
            }
        }
    }

    #[cold]
    fn reply<S: Sink>(&mut self, sink: &mut S) {
        for (key, bytes) in self.replies.drain(..) {
            let sent = self.io.send(key, &bytes);
            if sent < bytes.len() {
                sink.unsent(key, &bytes[sent..]);
            }
        }
    }

    fn accept<S: Sink>(&mut self, index: usize, listener: Key, sink: &mut S) {
        self.io.counts.syscalls_accept += 1;
        let shortage = self.io.net.net.borrow().faults.descriptor_shortages;
        if self.io.random.happens(shortage) {
            self.io.counts.descriptors_exhausted += 1;
            if let Some(accepts) = self.io.net.net.borrow_mut().listeners.get_mut(listener) {
                *accepts = false;
            }
            sink.accepted(&mut self.io, listener, Err(io::Error::from_raw_os_error(libc::EMFILE)));
            return;
        }
        // A port per link, so that peers can be told apart.
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024 + (index % 60_000) as u16));
        match sink.accepted(&mut self.io, listener, Ok(peer)) {
            Some(key) => {
                self.io.open(index, key, State::Open(key));
                sink.opened(&mut self.io, key, Ok(()));
            }
            None => self.io.net.link(index, |link| link.state = State::Gone),
        }
    }
}

/// So many bytes of what is in flight reach the peer.
fn take_in(link: &mut Link, bytes: usize, pool: &mut Pool) {
    let into = if link.peer_reads { &mut link.received } else { &mut link.unread };
    move_bytes(&mut link.in_flight, into, bytes, pool);
}

impl SimIo {
    fn open(&mut self, index: usize, key: Key, state: State) {
        let mut net = self.net.net.borrow_mut();
        net.links[index].state = state;
        net.by_key.insert(key, index);
    }

    fn with<R>(&mut self, key: Key, act: impl FnOnce(&mut Link) -> R) -> Option<R> {
        let mut net = self.net.net.borrow_mut();
        let index = *net.by_key.get(key)?;
        Some(act(&mut net.links[index]))
    }
}

impl Io for SimIo {
    fn listen(&mut self, key: Key, socket: OwnedFd) -> io::Result<()> {
        drop(socket);
        self.net.net.borrow_mut().listeners.insert(key, true);
        Ok(())
    }

    fn connect(&mut self, key: Key, to: SocketAddr, _from: Option<SocketAddr>) -> io::Result<()> {
        let mut net = self.net.net.borrow_mut();
        net.links.push(Link::new(State::Dialing(key)));
        let index = net.links.len() - 1;
        net.by_key.insert(key, index);
        net.dialed.push((index, to));
        Ok(())
    }

    fn adopt(&mut self, _key: Key, _socket: OwnedFd) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the simulated network has no real sockets"))
    }

    fn receive(&mut self, key: Key, demand: Demand) -> bool {
        let mut net = self.net.net.borrow_mut();
        if let Some(accepts) = net.listeners.get_mut(key) {
            *accepts = demand == Demand::Flow;
            return false;
        }
        drop(net);
        self.with(key, |link| {
            link.paused = demand == Demand::Pause;
            link.may_be_late = link.paused;
            if link.paused { link.take_end_to_tell() } else { link.interrupted }
        })
        .unwrap_or(false)
    }

    fn may_have_input(&mut self, key: Key) -> bool {
        self.with(key, |link| !link.to_us.is_empty()).unwrap_or(false)
    }

    fn has_input(&mut self, key: Key) -> bool {
        self.may_have_input(key)
    }

    fn flush(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        self.counts.syscalls_send += 1;
        let slow = self.net.net.borrow().faults.partial_sends > 0;
        let queued = queue.queued_bytes();
        let mut sent = 0;
        let mut reads = 0;
        let flushed = self.with(key, |link| {
            if link.peer_reset {
                return Flushed::Failed(io::ErrorKind::ConnectionReset.into());
            }
            if link.we_finished {
                return Flushed::Failed(io::ErrorKind::BrokenPipe.into());
            }
            if !slow && link.peer_reads && link.in_flight.is_empty() {
                sent = queued;
                let mut slices = [IoSlice::new(&[]); 16];
                while !queue.is_empty() {
                    let filled = queue.slices(&mut slices);
                    if filled == 0 {
                        reads += 1;
                        let taken = take_with_files(queue, pool);
                        sent = queued - queue.queued_bytes();
                        let mut taken = match taken {
                            Ok(taken) => taken,
                            Err(error) => return Flushed::Broken(error),
                        };
                        move_bytes(&mut taken, &mut link.received, usize::MAX, pool);
                        return if queue.is_empty() { Flushed::Done } else { Flushed::ShareSpent };
                    }
                    let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
                    for slice in &slices[..filled] {
                        link.received.extend_from_slice(slice);
                    }
                    slices = [IoSlice::new(&[]); 16];
                    queue.consume(pool, bytes);
                }
                return Flushed::Done;
            }
            if !link.in_flight.is_empty() {
                // One send at a time, as an io_uring driver does it: the rest stays in the queue.
                return Flushed::Blocked { in_flight: 0 };
            }
            link.in_flight = if queue.has_file() {
                reads += 1;
                match take_with_files(queue, pool) {
                    Ok(taken) => taken,
                    Err(error) => return Flushed::Broken(error),
                }
            } else {
                queue.take()
            };
            Flushed::Blocked { in_flight: link.in_flight.queued_bytes() }
        });
        self.counts.sent_bytes += sent as u64;
        self.counts.syscalls_sendfile += reads;
        flushed.unwrap_or_else(|| Flushed::Failed(io::ErrorKind::NotConnected.into()))
    }

    fn send(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut net = self.net.net.borrow_mut();
        let partial_sends = net.faults.partial_sends;
        let Some(index) = net.by_key.get(key).copied() else { return 0 };
        let link = &mut net.links[index];
        // What cannot be sent is said when the rest is flushed.
        if link.peer_reset || link.we_finished {
            return 0;
        }
        assert!(link.in_flight.is_empty(), "lent bytes do not overtake others");
        let room = if link.peer_reads { usize::MAX } else { WINDOW_BYTES - link.unread.len() };
        let mut taken = bytes.len().min(room);
        if self.random.happens(partial_sends) {
            // Nothing is a part too: a socket may be full, and other drivers never take any.
            taken = self.random.below(taken + 1);
        }
        let into = if link.peer_reads { &mut link.received } else { &mut link.unread };
        into.extend_from_slice(&bytes[..taken]);
        self.counts.syscalls_send += 1;
        self.counts.sent_bytes += taken as u64;
        taken
    }

    fn retire(&mut self, listener: Key) -> bool {
        let mut net = self.net.net.borrow_mut();
        net.retired.insert(listener, ()).is_none()
    }

    fn finish(&mut self, key: Key) {
        self.counts.syscalls_shutdown += 1;
        self.with(key, |link| link.we_finished = true);
    }

    fn unacknowledged(&mut self, key: Key) -> Option<usize> {
        self.with(key, |link| link.unread.len())
    }

    fn close(&mut self, key: Key, how: Close) {
        self.counts.syscalls_close += 1;
        let mut net = self.net.net.borrow_mut();
        if net.listeners.remove(key).is_some() {
            return;
        }
        let Some(index) = net.by_key.remove(key) else { return };
        let link = &mut net.links[index];
        link.state = State::Gone;
        // Linux resets when unread input is thrown away with the socket.
        link.we_reset |= how == Close::Reset || !link.to_us.is_empty();
        link.to_us.clear();
        self.dead.push(link.in_flight.take());
    }

    fn shrink(&mut self) {
        self.dead.shrink_to_fit();
    }

    fn counts(&self) -> &IoCounts {
        &self.counts
    }
}

impl SimDriver {
    /// Starts to accept peers that connect to this key.
    pub fn listen(&mut self, key: Key) {
        self.io.net.net.borrow_mut().listeners.insert(key, true);
    }
}

impl Driver for SimDriver {
    fn io(&mut self) -> &mut dyn Io {
        &mut self.io
    }

    fn wait(&mut self, _limits: &Limits, _wait: Wait) -> io::Result<()> {
        self.io.counts.syscalls_wait += 1;
        Ok(())
    }

    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited {
        for mut queue in self.io.dead.drain(..) {
            queue.clear(sink.pool());
        }
        let links = self.io.net.net.borrow().links.len();
        let start = self.io.random.below(links);
        let mut events = 0;
        let mut offset = 0;
        while offset < links && events < limits.events {
            let index = (start + offset) % links;
            let next = self.next(index, limits, sink.pool());
            // What a peer had sent when it was accepted is there as well.
            offset += usize::from(!matches!(next, Next::Accept(_)));
            if matches!(next, Next::Nothing) {
                continue;
            }
            // A false alarm is no progress: a world that only has those is at rest.
            events += usize::from(!matches!(next, Next::Sent(_, 0)));
            self.deliver(index, next, sink);
        }
        if !self.replies.is_empty() {
            self.reply(sink);
        }
        sink.delivered(&mut self.io);
        Waited { events, saturated: events == limits.events }
    }

    fn resume<S: Sink>(&mut self, key: Key, _limits: &Limits, _sink: &mut S) {
        // Delivery goes on in the next wait, which follows at once.
        self.io.with(key, |link| link.interrupted = false);
    }

    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        let Some(index) = self.io.net.net.borrow().by_key.get(key).copied() else { return };
        // Nothing is late for one who looks.
        let faults = std::mem::replace(&mut self.io.net.net.borrow_mut().faults, Faults::none());
        loop {
            let next = self.next(index, limits, sink.pool());
            let goes_on = matches!(next, Next::Sent(..) | Next::Chunk(_));
            self.deliver(index, next, sink);
            if !goes_on {
                break;
            }
        }
        if !self.replies.is_empty() {
            self.reply(sink);
        }
        self.io.net.net.borrow_mut().faults = faults;
    }
}
