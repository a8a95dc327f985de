//! The half of the simulated driver that takes orders.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::link::{Link, Segment, State};
use super::network::Answer;
use super::next::reset_error;
use super::outgoing::{send_from, take_with_files};
use super::{SimIo, Taking};
use crate::driver::{
    Close, DatagramBind, DatagramsFlushed, Demand, Flushed, Io, IoCounts, Queue, Retired, pays_to_take,
};
use crate::mem::{DatagramQueue, Key, Pool, WriteQueue};
use crate::sys::{Address, StreamOptions};

/// How often a flush that is cut short has taken everything out of the queue, as a completion driver does it, instead of
/// leaving the rest there, as a poller does. In thousandths.
const TAKEN_AT_ONCE: u16 = 500;

impl SimIo {
    pub(super) fn open(&mut self, index: usize, key: Key) {
        let mut net = self.net.net.borrow_mut();
        net.links[index].state = State::Open(key);
        net.shares[self.worker].by_key.insert(key, index);
    }

    /// Our end of a link that has no key is closed.
    pub(super) fn drop_link(&mut self, index: usize) {
        let mut net = self.net.net.borrow_mut();
        let travel = net.travel(index);
        net.links[index].hang_up(travel, false);
    }

    fn with<R>(&mut self, key: Key, act: impl FnOnce(&mut Link) -> R) -> Option<R> {
        let mut net = self.net.net.borrow_mut();
        let index = *net.shares[self.worker].by_key.get(key)?;
        Some(act(&mut net.links[index]))
    }
}

impl Io for SimIo {
    fn listen(&mut self, key: Key, socket: OwnedFd, _queue: Queue) -> io::Result<()> {
        drop(socket);
        self.net.net.borrow_mut().shares[self.worker].listeners.insert(key, true);
        Ok(())
    }

    fn connect(&mut self, key: Key, to: &Address, options: &StreamOptions) -> io::Result<()> {
        let mut net = self.net.net.borrow_mut();
        if self.random.happens(net.faults.failed_registrations) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if net.own_answer_of(to).is_none()
            && let Some(bound) = net.bound_at(to)
        {
            let from = options.from.filter(|_| !to.is_unix()).map(Address::from);
            net.dial_here(key, self.worker, to, from, bound);
            return Ok(());
        }
        let answer = net.answer_of(to);
        let at = match answer {
            Answer::Accept | Answer::Refuse => Some(net.now),
            Answer::AcceptAfter(time) => Some(net.now.saturating_add(time)),
            Answer::Ignore => None,
        };
        let from = options.from.filter(|_| !to.is_unix()).map(Address::from);
        let index = net.add(State::Dialing(key, at), self.worker, Some(to.clone()), from);
        if answer == Answer::Refuse {
            let link = &mut net.links[index];
            (link.reset, link.peer_silent, link.peer_closed) = (true, true, true);
        }
        net.shares[self.worker].by_key.insert(key, index);
        net.dialed.push((index, to.clone()));
        Ok(())
    }

    fn has_sockets(&self) -> bool {
        false
    }

    fn listen_at(&mut self, key: Key, addr: &Address) -> io::Result<Address> {
        self.net.net.borrow_mut().bind(self.worker, key, addr)
    }

    fn adopt(&mut self, _key: Key, _socket: OwnedFd) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the simulated network has no real sockets"))
    }

    fn receive(&mut self, key: Key, demand: Demand) -> bool {
        let mut net = self.net.net.borrow_mut();
        if let Some(accepts) = net.shares[self.worker].listeners.get_mut(key) {
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

    fn salvage(&mut self, key: Key, into: &mut [u8]) -> usize {
        let taken = self.with(key, |link| link.take(into));
        self.counts.syscalls_recv += 1;
        self.counts.received_bytes += taken.unwrap_or(0) as u64;
        taken.unwrap_or(0)
    }

    fn announce(&mut self, key: Key) {
        self.with(key, |link| link.announced = true);
    }

    fn take(&mut self, key: Key, into: &mut [u8]) -> usize {
        let left = self.taking.as_ref().filter(|taking| taking.key == key).map_or(0, |taking| taking.left);
        let room = into.len().min(left);
        let taken = self.with(key, |link| if link.paused { 0 } else { link.take(&mut into[..room]) });
        let Some(taken @ 1..) = taken else { return 0 };
        self.counts.syscalls_recv += 1;
        self.counts.received_bytes += taken as u64;
        self.taking = Some(Taking { key, left: left - taken, pays: pays_to_take(taken, into.len()) });
        taken
    }

    fn flush(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed {
        let Self { net, random, counts, worker, .. } = self;
        counts.syscalls_send += 1;
        let mut net = net.net.borrow_mut();
        let Some(index) = net.shares[*worker].by_key.get(key).copied() else {
            return Flushed::Failed(io::ErrorKind::NotConnected.into());
        };
        let (faults, travel) = (net.faults(index), net.travel(index));
        let link = &mut net.links[index];
        if link.reset {
            return Flushed::Failed(reset_error(link));
        }
        if link.we_finished {
            return Flushed::Failed(io::ErrorKind::BrokenPipe.into());
        }
        if !link.in_flight.is_empty() {
            // One send at a time, as an io_uring driver does it: the rest stays in the queue.
            return Flushed::Blocked { in_flight: 0 };
        }
        let (queued, room) = (queue.queued_bytes(), link.room());
        let whole = faults.partial_sends == 0 && queued <= room;
        if !queue.has_file() && (whole || !random.happens(TAKEN_AT_ONCE)) {
            let part = random.part(queued.min(room), faults.partial_sends);
            send_from(queue, link, travel, part, pool);
            counts.sent_bytes += part as u64;
            if queue.is_empty() {
                return Flushed::Done;
            }
            link.blocked = true;
            counts.sends_blocked += 1;
            return Flushed::Blocked { in_flight: 0 };
        }
        let mut taken = if queue.has_file() {
            counts.syscalls_sendfile += 1;
            match take_with_files(queue, pool, random.happens(faults.failed_files)) {
                Ok(taken) => taken,
                Err(error) => return Flushed::Broken(error),
            }
        } else {
            queue.take()
        };
        if whole {
            counts.sent_bytes += taken.queued_bytes() as u64;
            send_from(&mut taken, link, travel, usize::MAX, pool);
            return if queue.is_empty() { Flushed::Done } else { Flushed::ShareSpent };
        }
        counts.sends_blocked += 1;
        link.in_flight = taken;
        Flushed::Blocked { in_flight: link.in_flight.queued_bytes() }
    }

    fn send(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut net = self.net.net.borrow_mut();
        let Some(index) = net.shares[self.worker].by_key.get(key).copied() else { return 0 };
        let (faults, travel) = (net.faults(index), net.travel(index));
        let link = &mut net.links[index];
        // What cannot be sent is said when the rest is flushed.
        if link.reset || link.we_finished {
            return 0;
        }
        assert!(link.in_flight.is_empty(), "lent bytes do not overtake others");
        let mut taken = bytes.len().min(link.room());
        if self.random.happens(faults.partial_sends) {
            // Nothing is a part too: a socket may be full, and other drivers never take any.
            taken = self.random.below(taken + 1);
        }
        link.send_bytes_to_peer(travel, &bytes[..taken]);
        self.counts.syscalls_send += 1;
        self.counts.sent_bytes += taken as u64;
        taken
    }

    fn open_datagrams(&mut self, key: Key, bind: &DatagramBind) -> io::Result<SocketAddr> {
        self.open_port(key, bind)
    }

    fn send_to(&mut self, key: Key, queue: &mut DatagramQueue) -> DatagramsFlushed {
        self.send_datagrams(key, queue)
    }

    fn retire(&mut self, listener: Key) -> Retired {
        self.net.net.borrow_mut().shares[self.worker].retired.insert(listener, ());
        Retired::Soon
    }

    fn drain_listener(&mut self, listener: Key) -> bool {
        let mut net = self.net.net.borrow_mut();
        let is_late = self.random.happens(net.faults.late_accepts);
        let drained = &mut net.shares[self.worker].drained;
        match drained.iter().find(|(key, _)| *key == listener) {
            Some((_, is_late)) => !is_late,
            None => {
                drained.push((listener, is_late));
                !is_late
            }
        }
    }

    fn peer_addr(&mut self, key: Key) -> Option<Address> {
        let addr = self.with(key, |link| match link.state {
            State::Open(_) => link.addr.clone(),
            _ => Address::Unknown,
        })?;
        Some(addr).filter(|addr| *addr != Address::Unknown)
    }

    fn local_addr(&mut self, key: Key) -> Option<Address> {
        self.with(key, |link| link.local.clone())
    }

    fn finish(&mut self, key: Key) {
        self.counts.syscalls_shutdown += 1;
        let mut net = self.net.net.borrow_mut();
        let Some(index) = net.shares[self.worker].by_key.get(key).copied() else { return };
        let travel = net.travel(index);
        let link = &mut net.links[index];
        link.we_finished = true;
        link.send_to_peer(travel, Segment::Fin);
    }

    fn unacknowledged(&mut self, key: Key) -> Option<usize> {
        self.with(key, |link| link.unacknowledged_bytes())
    }

    fn unacknowledged_step(&mut self, _key: Key) -> usize {
        0
    }

    fn close(&mut self, key: Key, how: Close) {
        self.counts.syscalls_close += 1;
        let mut net = self.net.net.borrow_mut();
        if net.close_listener(self.worker, key) || net.post.close(self.worker, key) {
            return;
        }
        let Some(index) = net.shares[self.worker].by_key.remove(key) else { return };
        let travel = net.travel(index);
        let link = &mut net.links[index];
        link.hang_up(travel, how == Close::Reset);
        let in_flight = link.in_flight.take();
        if !in_flight.is_empty() {
            net.shares[self.worker].owes_blocks = true;
            self.dead.push(in_flight);
        }
    }

    fn shrink(&mut self) {
        self.dead.shrink_to_fit();
    }

    fn counts(&self) -> &IoCounts {
        &self.counts
    }
}
