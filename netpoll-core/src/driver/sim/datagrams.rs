//! Datagrams of the simulated network: lost, doubled, late and in another order, as chance will have it.
//!
//! There are no links: a far end is an address, and may be that of another socket of a worker. What a far end sends lies in the socket of one worker until it is received;
//! what it is sent lies in its inbox until the test takes it.
//!
//! Invariant: a datagram arrives whole or not at all. Nothing here keeps an order; with a latency, one that takes less time
//! overtakes.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::SimIo;
use super::faults::{Faults, Random};
use super::network::Net;
use crate::clockwork::Instant;
use crate::driver::{DatagramBind, DatagramSetup, Datagrams, DatagramsFlushed, Place, Sink};
use crate::mem::{DatagramPath, DatagramQueue, Joining, Key};

/// The first port that a socket gets which does not name one, or rather the one behind.
const PORT_BEFORE_FIRST: u16 = 49_151;

/// One on its way or arrived.
#[derive(Clone)]
pub struct Packet {
    pub path: DatagramPath,
    pub bytes: Vec<u8>,
}

/// A socket of a worker.
pub struct Port {
    pub worker: usize,
    pub key: Key,
    pub addr: SocketAddr,
    setup: DatagramSetup,
    /// In the socket, not received yet.
    arrived: VecDeque<Packet>,
    is_open: bool,
    /// It stopped with datagrams left, and has to be resumed.
    interrupted: bool,
    /// A send was cut short: room is to be announced.
    blocked: bool,
}

/// What is between the sockets and the far ends.
#[derive(Default)]
pub struct Post {
    pub ports: Vec<Port>,
    to_us: Vec<(Instant, usize, Packet)>,
    to_peers: Vec<(Instant, SocketAddr, Packet)>,
    /// By far end: from which address of ours, and what.
    inboxes: BTreeMap<SocketAddr, VecDeque<(SocketAddr, Vec<u8>)>>,
    /// Ports that were given to sockets that had named none.
    chosen: u16,
}

impl Post {
    pub fn add(&mut self, worker: usize, key: Key, addr: SocketAddr, setup: DatagramSetup) -> usize {
        let (arrived, is_open) = (VecDeque::new(), true);
        self.ports.push(Port {
            worker,
            key,
            addr,
            setup,
            arrived,
            is_open,
            interrupted: false,
            blocked: false,
        });
        self.ports.len() - 1
    }

    fn by_key(&mut self, worker: usize, key: Key) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.is_open && port.worker == worker && port.key == key)
    }

    /// What was not received is lost. True if there was such a socket.
    pub fn close(&mut self, worker: usize, key: Key) -> bool {
        let Some(port) = self.by_key(worker, key) else { return false };
        port.is_open = false;
        port.arrived.clear();
        true
    }

    pub fn is_open(&self, port: usize) -> bool {
        self.ports[port].is_open
    }

    /// Which of our sockets hears what is sent to this address along this path, if one does. Of several that share it always the same.
    pub fn port_at(&self, to: SocketAddr, path: &DatagramPath) -> Option<usize> {
        let hears = |port: &&usize| {
            let Port { addr, is_open, .. } = &self.ports[**port];
            *is_open && addr.port() == to.port() && (addr.ip() == to.ip() || hears_all(*addr, to.ip()))
        };
        let all: Vec<usize> = (0..self.ports.len()).collect();
        let ports: Vec<usize> = all.iter().filter(hears).copied().collect();
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        (!ports.is_empty()).then(|| ports[(hasher.finish() % ports.len() as u64) as usize])
    }

    /// A wait of this worker would bring something.
    pub fn is_due(&self, worker: usize, faults: &Faults) -> bool {
        faults.delays < 1000
            && self.ports.iter().any(|port| {
                port.is_open
                    && port.worker == worker
                    && (port.blocked || (!port.interrupted && !port.arrived.is_empty()))
            })
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        let to_us = self.to_us.iter().map(|(at, ..)| *at);
        to_us.chain(self.to_peers.iter().map(|(at, ..)| *at)).min()
    }

    fn arrive_at_port(&mut self, random: &mut Random, faults: &Faults, port: usize, packet: Packet) {
        let port = &mut self.ports[port];
        if port.is_open {
            let place = place(random, faults, port.arrived.len());
            port.arrived.insert(place, packet);
        }
    }

    fn arrive_at_peer(&mut self, random: &mut Random, faults: &Faults, from: SocketAddr, packet: Packet) {
        let ip = packet.path.local_ip().unwrap_or_else(|| said_ip(from.ip()));
        let (to, from) = (packet.path.peer(), SocketAddr::from((ip, from.port())));
        if let Some(port) = self.port_at(to, &DatagramPath::from(from)) {
            let local = self.ports[port].addr.ip().is_unspecified().then(|| (to.ip(), 1));
            let packet = Packet { path: DatagramPath::new(from, local), bytes: packet.bytes };
            return self.arrive_at_port(random, faults, port, packet);
        }
        let inbox = self.inboxes.entry(to).or_default();
        let place = place(random, faults, inbox.len());
        inbox.insert(place, (from, packet.bytes));
    }

    /// What a far end has received since the last call: from which address of ours, and the bytes.
    pub fn take(&mut self, peer: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.inboxes.remove(&peer).unwrap_or_default().into()
    }
}

/// Whether a socket at this address hears what is sent to any of ours of its family.
fn hears_all(addr: SocketAddr, ip: IpAddr) -> bool {
    addr.ip().is_unspecified() && (addr.is_ipv6() || ip.is_ipv4())
}

/// What a socket that is bound to all addresses has as its own: this host has no other.
fn said_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Where in a queue of so many a datagram gets in line.
fn place(random: &mut Random, faults: &Faults, waiting: usize) -> usize {
    if random.happens(faults.datagram_reorders) { random.below(waiting + 1) } else { waiting }
}

/// How many of one that was sent arrive.
fn copies(random: &mut Random, faults: &Faults) -> usize {
    if random.happens(faults.datagram_losses) {
        0
    } else {
        1 + usize::from(random.happens(faults.datagram_duplicates))
    }
}

impl Net {
    /// A far end sends.
    pub fn send_to_port(&mut self, port: usize, packet: &Packet) {
        if packet.bytes.len() > self.datagram_bytes_max {
            return;
        }
        let faults = self.faults;
        for _ in 0..copies(&mut self.random, &faults) {
            let at = self.datagram_arrival();
            if at <= self.now {
                self.post.arrive_at_port(&mut self.random, &faults, port, packet.clone());
            } else {
                self.post.to_us.push((at, port, packet.clone()));
            }
        }
    }

    fn send_to_peer(&mut self, from: SocketAddr, packet: &Packet) {
        let faults = self.faults;
        for _ in 0..copies(&mut self.random, &faults) {
            let at = self.datagram_arrival();
            if at <= self.now {
                self.post.arrive_at_peer(&mut self.random, &faults, from, packet.clone());
            } else {
                self.post.to_peers.push((at, from, packet.clone()));
            }
        }
    }

    /// What is due arrives.
    pub fn deliver_post(&mut self) {
        let (now, faults) = (self.now, self.faults);
        for (_, port, packet) in due(&mut self.post.to_us, now) {
            self.post.arrive_at_port(&mut self.random, &faults, port, packet);
        }
        for (_, from, packet) in due(&mut self.post.to_peers, now) {
            self.post.arrive_at_peer(&mut self.random, &faults, from, packet);
        }
    }
}

/// Takes out what has arrived by now, the earliest first.
fn due<T>(under_way: &mut Vec<(Instant, T, Packet)>, now: Instant) -> Vec<(Instant, T, Packet)> {
    let mut arrived: Vec<_> = under_way.extract_if(.., |(at, ..)| *at <= now).collect();
    arrived.sort_by_key(|(at, ..)| *at);
    arrived
}

/// Received together, laid out as a driver does it.
#[derive(Default)]
pub struct Batch {
    block: Vec<u8>,
    places: Vec<Place>,
}

impl Batch {
    fn clear(&mut self) {
        self.block.clear();
        self.places.clear();
    }

    fn push(&mut self, setup: &DatagramSetup, Packet { path, bytes }: &Packet) {
        let start = self.block.len();
        if setup.join_received
            && let Some(last) = self.places.last_mut()
            && last.path == *path
            && !bytes.is_empty()
            && bytes.len() <= last.segment.unwrap_or(last.len)
            && last.len.is_multiple_of(last.segment.unwrap_or(last.len).max(1))
        {
            last.segment.get_or_insert(last.len);
            last.len += bytes.len();
        } else {
            let is_truncated = !setup.join_received && bytes.len() > setup.bytes_max;
            let len = if is_truncated { setup.bytes_max } else { bytes.len() };
            self.places.push(Place { path: *path, start, len, segment: None, is_truncated });
        }
        self.block.extend_from_slice(bytes);
    }
}

impl SimIo {
    /// Delivers datagrams of one socket: a part of what has come, or all that a turn takes. True if there were any.
    pub(super) fn deliver_datagrams<S: Sink>(&mut self, port: usize, is_sure: bool, sink: &mut S) -> bool {
        let Self { net, random, counts, batch, .. } = self;
        let mut guard = net.net.borrow_mut();
        let Net { post, faults, .. } = &mut *guard;
        let socket = &mut post.ports[port];
        let (key, setup) = (socket.key, socket.setup);
        if !socket.is_open || socket.arrived.is_empty() || (!is_sure && socket.interrupted) {
            return false;
        }
        let most = socket.arrived.len().min(setup.per_turn);
        let count = if is_sure { most } else { random.part(most, faults.partial_receives) };
        let mut batch_now = std::mem::take(batch);
        batch_now.clear();
        for packet in socket.arrived.drain(..count) {
            counts.received_bytes += packet.bytes.len() as u64;
            batch_now.push(&setup, &packet);
        }
        counts.syscalls_recvmmsg += 1;
        counts.datagrams_received += count as u64;
        let truncated: usize = batch_now.places.iter().map(|place| place.truncated(setup.bytes_max)).sum();
        counts.datagrams_truncated += truncated as u64;
        // More than a turn takes, or the driver stops in the middle.
        let stops = !socket.arrived.is_empty()
            && (count == setup.per_turn || random.happens(faults.interrupted_receives));
        socket.interrupted = stops;
        drop(guard);
        let mut batch = Datagrams::new(&mut batch_now.block, &batch_now.places, setup.bytes_max);
        sink.datagrams(self, key, &mut batch);
        self.batch = batch_now;
        if stops {
            sink.unfinished(key);
        }
        true
    }

    /// Announces room to a socket that waits for it. True if it does.
    pub(super) fn announce_room<S: Sink>(&mut self, port: usize, sink: &mut S) -> bool {
        let mut net = self.net.net.borrow_mut();
        let socket = &mut net.post.ports[port];
        let key = socket.key;
        if !socket.is_open || !std::mem::take(&mut socket.blocked) {
            return false;
        }
        drop(net);
        sink.sent(self, key, 0);
        true
    }

    /// The socket of a key of this worker.
    pub(super) fn port(&self, key: Key) -> Option<usize> {
        let net = self.net.net.borrow();
        let is_it = |port: &Port| port.is_open && port.worker == self.worker && port.key == key;
        net.post.ports.iter().position(is_it)
    }

    pub(super) fn resume_datagrams(&mut self, key: Key) {
        if let Some(port) = self.net.net.borrow_mut().post.by_key(self.worker, key) {
            port.interrupted = false;
        }
    }

    pub(super) fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> DatagramsFlushed {
        let Self { net, random, counts, worker, .. } = self;
        let mut guard = net.net.borrow_mut();
        let net = &mut *guard;
        let faults = net.faults;
        let Some(port) = net.post.by_key(*worker, key) else { return DatagramsFlushed::Done };
        let from = port.addr;
        counts.syscalls_sendmmsg += 1;
        let mut count = queue.len();
        if random.happens(faults.partial_sends) {
            count = random.below(count + 1);
            port.blocked = count < queue.len();
        }
        let blocked = port.blocked;
        for run in queue.front(Joining::NONE).take(count) {
            if run.bytes.len() > net.datagram_bytes_max {
                counts.datagrams_refused += 1;
                continue;
            }
            counts.datagrams_sent += 1;
            counts.sent_bytes += run.bytes.len() as u64;
            net.send_to_peer(from, &Packet { path: run.path, bytes: run.bytes.to_vec() });
        }
        queue.pop(count);
        if blocked {
            counts.sends_blocked += 1;
            return DatagramsFlushed::Blocked;
        }
        DatagramsFlushed::Done
    }

    /// A socket that a worker opens while it serves.
    pub(super) fn open_port(&mut self, key: Key, bind: &DatagramBind) -> io::Result<SocketAddr> {
        let mut guard = self.net.net.borrow_mut();
        let net = &mut *guard;
        if self.random.happens(net.faults.failed_registrations) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let mut addr = bind.addr;
        let taken = |post: &Post, addr: SocketAddr| {
            let clashes = |port: &Port| {
                let ips = [port.addr.ip(), addr.ip()];
                ips[0] == ips[1] || ips.iter().any(IpAddr::is_unspecified)
            };
            post.ports.iter().any(|port| port.is_open && port.addr.port() == addr.port() && clashes(port))
        };
        while addr.port() == 0 || (bind.addr.port() == 0 && taken(&net.post, addr)) {
            net.post.chosen = net.post.chosen.wrapping_add(1);
            addr.set_port(PORT_BEFORE_FIRST.wrapping_add(net.post.chosen));
        }
        if taken(&net.post, addr) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        net.post.add(self.worker, key, addr, bind.setup);
        Ok(addr)
    }

    /// A socket that lives in this network only.
    pub(super) fn bind_port(&mut self, key: Key, addr: SocketAddr, setup: &DatagramSetup) -> usize {
        self.net.net.borrow_mut().post.add(self.worker, key, addr, *setup)
    }
}
