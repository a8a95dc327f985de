//! What the far ends of connections do in a simulated world, and what they see.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ListenerId, PeerId, Sim};
use crate::driver::{Answer, Faults};
use crate::sys::Address;

impl Sim {
    /// A peer connects, to a worker that the seed chooses. It is accepted in one of the next turns.
    ///
    /// Where no worker lets anybody in any more, as in a drain, the peer hears nothing, as one whose first segment is lost;
    /// where nobody listens it is reset.
    pub fn connect(&mut self, listener: ListenerId) -> PeerId {
        let worker = self.choose_worker(listener);
        self.connect_to(listener, worker)
    }

    /// As [`connect`](Self::connect), from this address instead of one of its own on 127.0.0.1; it may be in the Unix domain.
    /// [`Address::Unknown`] is one that nobody ever learns.
    pub fn connect_from(&mut self, listener: ListenerId, addr: impl Into<Address>) -> PeerId {
        let worker = self.choose_worker(listener);
        PeerId(self.net.connect(worker, self.listeners[listener.0][worker], Some(addr.into())))
    }

    /// A peer connects to the listener of this worker, as one whose segments the kernel steers there.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn connect_to(&mut self, listener: ListenerId, worker: usize) -> PeerId {
        PeerId(self.net.connect(worker, self.listeners[listener.0][worker], None))
    }

    /// One of those that still listen, if any does.
    fn choose_worker(&mut self, listener: ListenerId) -> usize {
        let workers = self.seats.len();
        if workers == 1 {
            return 0;
        }
        let keys = &self.listeners[listener.0];
        let open: Vec<usize> =
            (0..workers).filter(|worker| self.net.listens(*worker, keys[*worker])).collect();
        open.get(self.random.below(open.len())).copied().unwrap_or(0)
    }

    /// The worker that this peer is or was connected to.
    #[must_use]
    pub fn worker_of(&self, peer: PeerId) -> usize {
        self.net.link(peer.0, |link| link.worker)
    }

    /// The far ends of outgoing connections that were made since the last call, with the addresses they went to. One that was refused,
    /// or that nobody answers, was tried and not made: it is not among them
    /// ([`Stats::connect_failures`](crate::Stats::connect_failures) counts it).
    pub fn take_dialed(&mut self) -> Vec<(PeerId, Address)> {
        self.net.take_dialed().into_iter().map(|(link, addr)| (PeerId(link), addr)).collect()
    }

    /// The addresses of a name for outgoing connections that are made from now on, in the order in which they are tried. A name
    /// that has none is `NotFound`.
    pub fn set_name(&mut self, name: &str, addresses: impl IntoIterator<Item = std::net::IpAddr>) {
        self.names.borrow_mut().insert(name.to_owned(), addresses.into_iter().collect());
    }

    /// How outgoing connections to this address are answered, whatever holds for the others.
    pub fn answer_connections_to(&mut self, addr: impl Into<Address>, answer: Answer) {
        self.net.answer_to(addr.into(), answer);
    }

    /// Whether outgoing connections are refused from now on.
    pub fn refuse_connections(&mut self, refuse: bool) {
        self.answer_connections(if refuse { Answer::Refuse } else { Answer::Accept });
    }

    /// How outgoing connections are answered that are made from now on. At first all are accepted at once.
    pub fn answer_connections(&mut self, answer: Answer) {
        self.net.answer(answer);
    }

    /// Faults of this connection, instead of those of the whole network. Only `short_waits` is no property of a connection.
    pub fn set_faults(&mut self, peer: PeerId, faults: Faults) {
        self.net.link(peer.0, |link| link.faults = Some(faults));
    }

    /// How long segments of this connection are under way from now on, instead of [`Options::latency`](super::Options).
    pub fn set_latency(&mut self, peer: PeerId, latency: RangeInclusive<Duration>) {
        self.net.link(peer.0, |link| link.latency = Some(latency));
    }

    /// How many bytes this peer takes at once from now on, instead of [`Options::window`](super::Options): a send that is
    /// longer is cut short although nothing goes wrong.
    pub fn set_window(&mut self, peer: PeerId, bytes: usize) {
        self.net.link(peer.0, |link| {
            link.window = Some(bytes);
            link.reopen_window();
        });
    }

    /// The peer sends. Nothing is sent behind [`finish`](Self::finish), [`close`](Self::close) or
    /// [`reset`](Self::reset).
    pub fn send(&mut self, peer: PeerId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.net.send(peer.0, bytes);
        }
    }

    /// The peer ends its direction (FIN), and goes on reading.
    pub fn finish(&mut self, peer: PeerId) {
        self.net.finish(peer.0);
    }

    /// The peer closes its socket, as a program does that has enough: FIN, and a reset for whatever we send it from now on,
    /// or at once if bytes lie in its socket that it has not read.
    ///
    /// Behind such a FIN nothing tells this peer from one that only has [finished](Self::finish) and waits for an answer,
    /// until something is sent.
    pub fn close(&mut self, peer: PeerId) {
        self.net.close(peer.0);
    }

    /// The peer resets the connection. What it has not read is lost, what is in flight as well.
    pub fn reset(&mut self, peer: PeerId) {
        self.net.reset(peer.0);
    }

    /// The peer stops reading: its socket buffer takes 64 KiB more, or its window if it has one, then nothing.
    pub fn stop_reading(&mut self, peer: PeerId) {
        self.net.read(peer.0, false);
    }

    /// The peer reads again.
    pub fn start_reading(&mut self, peer: PeerId) {
        self.net.read(peer.0, true);
    }

    /// What the peer has received since the last call.
    pub fn take_received(&mut self, peer: PeerId) -> Vec<u8> {
        self.net.link(peer.0, |link| std::mem::take(&mut link.received))
    }

    /// Appends what the peer has received to `into`, which allocates less than [`take_received`](Self::take_received).
    pub fn drain_received(&mut self, peer: PeerId, into: &mut Vec<u8>) {
        self.net.link(peer.0, |link| into.append(&mut link.received));
    }

    /// The peer sees the end of our direction and has read all before it, or sees a reset.
    #[must_use]
    pub fn is_closed(&self, peer: PeerId) -> bool {
        self.net.link(peer.0, |link| link.is_closed())
    }

    /// The peer sees a reset. What it had not read by then is lost: some kernels would still hand it out, others do not.
    #[must_use]
    pub fn is_reset(&self, peer: PeerId) -> bool {
        self.net.link(peer.0, |link| link.reset_seen)
    }
}
