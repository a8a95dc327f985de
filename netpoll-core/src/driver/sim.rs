//! A driver with a seed instead of a kernel.
//!
//! It is shaped like a completion interface now and like a poller then: output is taken out of the queue and reported as
//! sent later, or left there until there is room; input arrives in chunks that the driver chooses. Together with the
//! pollers it proves that nothing above the contract depends on either. The same seed and the same calls give the same
//! run, to the byte.
//!
//! The other end of every link belongs to the test, through [`SimNet`], and so does the time. A wait never sleeps: whoever
//! turns a worker asks before whether it would wake up.

mod cables;
mod datagrams;
mod faults;
mod link;
mod network;
mod next;
mod orders;
mod outgoing;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{DatagramSetup, Driver, Io, IoCounts, Limits, Sink, Verdict, Wait, Waited};
use crate::mem::{Key, WriteQueue};
use crate::sys::Address;
use next::Next;

pub use faults::{Faults, Random};
pub use network::{Answer, SimNet};

/// Events of a wait that ends early are fewer than this.
const SHORT_WAIT_EVENTS: usize = 4;

struct SimIo {
    net: SimNet,
    worker: usize,
    random: Random,
    counts: IoCounts,
    /// Output of closed links, until its blocks can go back to the pool.
    dead: Vec<WriteQueue>,
    batch: datagrams::Batch,
    /// The link whose input is being announced.
    taking: Option<Taking>,
}

/// Input that is being announced.
struct Taking {
    key: Key,
    /// Bytes that may still be taken.
    left: usize,
    /// What was taken last was worth it.
    pays: bool,
}

/// A driver without a kernel.
pub struct SimDriver {
    io: SimIo,
    /// Set by whoever rings.
    bell: Arc<AtomicBool>,
    /// What the last wait found of it.
    rung: bool,
    chunk: Vec<u8>,
    /// What goes back when everything was delivered.
    replies: Vec<(Key, Vec<u8>)>,
}

impl SimDriver {
    /// The driver of one worker of this network.
    pub fn new(net: SimNet, worker: usize, bell: Arc<AtomicBool>, random: Random) -> Self {
        Self {
            io: SimIo {
                net,
                worker,
                random,
                counts: IoCounts::default(),
                dead: Vec::new(),
                batch: datagrams::Batch::default(),
                taking: None,
            },
            bell,
            rung: false,
            chunk: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Starts to accept peers that connect to this key.
    pub fn listen(&mut self, key: Key) {
        self.io.net.net.borrow_mut().shares[self.io.worker].listeners.insert(key, true);
    }

    /// Starts to receive datagrams that are sent to this socket, whose number in the network is returned.
    pub fn bind(&mut self, key: Key, addr: SocketAddr, setup: &DatagramSetup) -> usize {
        self.io.bind_port(key, addr, setup)
    }

    /// Delivers datagrams, up to so many events. How many those were.
    fn deliver_datagrams<S: Sink>(&mut self, events_max: usize, sink: &mut S) -> usize {
        let (ports, delays) = {
            let net = self.io.net.net.borrow();
            (net.post.ports.len(), net.faults.delays)
        };
        if ports == 0 {
            return 0;
        }
        let (start, mut events) = (self.io.random.below(ports), 0);
        for offset in 0..ports {
            let port = (start + offset) % ports;
            let is_own = self.io.net.net.borrow().post.ports[port].worker == self.io.worker;
            if !is_own || events == events_max || self.io.random.happens(delays) {
                continue;
            }
            let has_room = self.io.announce_room(port, sink);
            let has_come = self.io.deliver_datagrams(port, false, sink);
            events += usize::from(has_room || has_come);
        }
        events
    }

    fn deliver_one<S: Sink>(&mut self, index: usize, next: Next, sink: &mut S) {
        match next {
            Next::Nothing => {}
            Next::Ending(key) => sink.ending(&mut self.io, key),
            Next::Accept(listener) => self.accept(index, listener, sink),
            Next::Opened(key, result) => sink.opened(&mut self.io, key, result),
            Next::Sent(key, bytes) => sink.sent(&mut self.io, key, bytes),
            Next::Room(key) | Next::NoRoom(key) => sink.sent(&mut self.io, key, 0),
            Next::End(key, how) => sink.hung_up(&mut self.io, key, how),
            Next::Interrupted(key) => sink.unfinished(key),
            Next::Announced(key, bytes) => {
                if !self.announce_input(index, key, bytes, sink) {
                    let next = self.next_seen(index, bytes);
                    self.deliver_one(index, next, sink);
                }
            }
            Next::Chunk(key) => {
                let mut chunk = std::mem::take(&mut self.chunk);
                // Stop is remembered by the pause that came with it, or by `unfinished`.
                if let Verdict::Reply { start, end } = sink.received(&mut self.io, key, &mut chunk) {
                    self.replies.push((key, chunk[start as usize..end as usize].to_vec()));
                }
                self.chunk = chunk;
            }
        }
    }

    /// Lets the receiver take so many bytes out of the socket of a link. False if it takes none.
    fn announce_input<S: Sink>(&mut self, index: usize, key: Key, bytes: usize, sink: &mut S) -> bool {
        self.io.taking = Some(Taking { key, left: bytes, pays: false });
        sink.announced(&mut self.io, key);
        let Some(taking) = self.io.taking.take() else { return true };
        let is_taken = taking.left < bytes;
        if !taking.pays {
            self.io.net.net.borrow_mut().links[index].announced = false;
        }
        is_taken
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

    /// Brings the end of drains that were to be brought later.
    fn end_drains<S: Sink>(&mut self, sink: &mut S) -> usize {
        let mut ended = 0;
        while let Some(listener) = self.io.net.take_drained(self.io.worker, true) {
            sink.listener_empty(&mut self.io, listener);
            ended += 1;
        }
        ended
    }

    fn accept<S: Sink>(&mut self, index: usize, listener: Key, sink: &mut S) {
        let Self { io, .. } = self;
        io.counts.syscalls_accept += 1;
        let (faults, addr) = {
            let net = io.net.net.borrow();
            (net.faults(index), net.links[index].addr.clone())
        };
        let addr = Some(addr)
            .filter(|addr| *addr != Address::Unknown && !io.random.happens(faults.unsaid_addresses));
        if io.random.happens(faults.descriptor_shortages) {
            io.counts.descriptors_exhausted += 1;
            io.receive(listener, super::Demand::Pause);
            sink.accepted(io, listener, Err(io::Error::from_raw_os_error(libc::EMFILE)));
            return;
        }
        match sink.accepted(io, listener, Ok(addr)) {
            Some(key) if io.random.happens(faults.failed_registrations) => {
                io.drop_link(index);
                sink.opened(io, key, Err(io::Error::from_raw_os_error(libc::ENOSPC)));
            }
            Some(key) => {
                io.open(index, key);
                sink.opened(io, key, Ok(()));
            }
            None => io.drop_link(index),
        }
    }
}

impl Driver for SimDriver {
    fn io(&mut self) -> &mut dyn Io {
        &mut self.io
    }

    fn wait(&mut self, _limits: &Limits, _wait: Wait) -> io::Result<()> {
        self.io.counts.syscalls_wait += 1;
        self.rung = self.bell.swap(false, Relaxed);
        Ok(())
    }

    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited {
        for mut queue in self.io.dead.drain(..) {
            queue.clear(sink.pool());
        }
        let (links, short_waits, drains) = {
            let mut net = self.io.net.net.borrow_mut();
            let net = &mut *net;
            let share = &mut net.shares[self.io.worker];
            share.owes_blocks = false;
            (net.links.len(), net.faults.short_waits, !share.drained.is_empty())
        };
        let mut events_max = limits.events;
        if self.io.random.happens(short_waits) {
            events_max = events_max.min(self.io.random.below(SHORT_WAIT_EVENTS));
        }
        let start = self.io.random.below(links);
        let mut events = usize::from(std::mem::take(&mut self.rung));
        let mut offset = 0;
        while offset < links && events < events_max {
            let index = (start + offset) % links;
            let next = self.next(index, limits, sink.pool());
            // What a peer had sent when it was accepted is there as well.
            offset += usize::from(!matches!(next, Next::Accept(_)));
            if matches!(next, Next::Nothing) {
                continue;
            }
            // A false alarm is no progress: a world that only has those is at rest.
            events += usize::from(!matches!(next, Next::NoRoom(_)));
            self.deliver_one(index, next, sink);
        }
        events += self.deliver_datagrams(events_max - events.min(events_max), sink);
        if drains {
            events += self.end_drains(sink);
        }
        if !self.replies.is_empty() {
            self.reply(sink);
        }
        sink.delivered(&mut self.io);
        Waited { events, saturated: events == limits.events }
    }

    fn resume<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        let mut net = self.io.net.net.borrow_mut();
        if let Some(index) = net.shares[self.io.worker].by_key.get(key).copied() {
            // Delivery goes on in the next wait, which follows at once.
            net.links[index].interrupted = false;
            return;
        }
        drop(net);
        if let Some(port) = self.io.port(key) {
            self.io.resume_datagrams(key);
            self.io.deliver_datagrams(port, true, sink);
            return;
        }
        for _ in 0..limits.accepts {
            let Some(index) = self.io.net.first_queued(self.io.worker, key) else { break };
            self.accept(index, key, sink);
        }
        if let Some(listener) = self.io.net.take_drained(self.io.worker, false) {
            sink.listener_empty(&mut self.io, listener);
        } else if self.io.net.first_queued(self.io.worker, key).is_some() {
            sink.unfinished(key);
        }
    }

    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        let index = self.io.net.net.borrow().shares[self.io.worker].by_key.get(key).copied();
        let Some(index) = index else {
            if let Some(port) = self.io.port(key) {
                self.io.resume_datagrams(key);
                self.io.deliver_datagrams(port, true, sink);
            }
            return;
        };
        let mut bytes_left = limits.read_bytes;
        loop {
            let next = self.next_seen(index, bytes_left);
            let is_last = !matches!(next, Next::Chunk(_));
            bytes_left = bytes_left.saturating_sub(self.chunk.len());
            self.deliver_one(index, next, sink);
            if is_last {
                break;
            }
        }
        if !self.replies.is_empty() {
            self.reply(sink);
        }
    }
}
