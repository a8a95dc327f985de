//! The network between the simulated drivers and the test: links, their settings, and the time.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use super::cables::{Bound, Cable};
use super::datagrams::{Packet, Post};
use super::faults::{Faults, Random};
use super::link::{Link, Segment, State, Travel};
use crate::clockwork::Instant;
use crate::mem::{DatagramPath, Key, KeyMap};
use crate::sys::{Address, UnixAddress};

/// How the far end takes an outgoing connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Answer {
    /// At once.
    #[default]
    Accept,
    /// It is accepted after this time, as by a host that is far away or busy.
    AcceptAfter(Duration),
    /// Nobody listens there: `ConnectionRefused`.
    Refuse,
    /// Never: whoever connects waits until a timeout of its own.
    Ignore,
}

/// What belongs to one worker.
#[derive(Default)]
pub struct Share {
    pub by_key: KeyMap<usize>,
    /// Listeners, and whether they accept now.
    pub listeners: KeyMap<bool>,
    /// Listeners that nobody new gets in line at.
    pub retired: KeyMap<()>,
    /// Listeners whose queues are taken in, and whether the end of that is brought by a wait instead of a resume.
    pub drained: Vec<(Key, bool)>,
    /// Blocks of closed links go back to its pool in its next turn.
    pub owes_blocks: bool,
}

pub struct Net {
    pub links: Vec<Link>,
    pub shares: Vec<Share>,
    pub dialed: Vec<(usize, Address)>,
    pub answer: Answer,
    /// Of some addresses.
    pub answers: Vec<(Address, Answer)>,
    pub faults: Faults,
    pub latency: RangeInclusive<Duration>,
    pub window: Option<usize>,
    pub now: Instant,
    pub random: Random,
    pub post: Post,
    /// Longer datagrams do not get through.
    pub datagram_bytes_max: usize,
    /// Where workers listen at an address.
    pub bound: Vec<Bound>,
    /// The last port that was chosen, of those that are.
    pub port_chosen: u16,
    /// Connections between them.
    pub cables: Vec<Cable>,
}

impl Net {
    #[inline]
    pub fn faults(&self, link: usize) -> Faults {
        self.links[link].faults.unwrap_or(self.faults)
    }

    /// The next segment of this link, in either direction.
    #[inline]
    pub fn travel(&mut self, link: usize) -> Travel {
        let range = self.links[link].latency.as_ref().unwrap_or(&self.latency);
        let time = if range.end().is_zero() { Duration::ZERO } else { draw(&mut self.random, range) };
        Travel { now: self.now, time }
    }

    /// When a datagram that is sent now arrives.
    pub fn datagram_arrival(&mut self) -> Instant {
        let range = &self.latency;
        let time = if range.end().is_zero() { Duration::ZERO } else { draw(&mut self.random, range) };
        self.now.saturating_add(time)
    }

    /// A link between this peer and us; each is at a port of its own on 127.0.0.1 if nothing else is said.
    pub fn add(
        &mut self,
        state: State,
        worker: usize,
        addr: Option<Address>,
        local: Option<Address>,
    ) -> usize {
        let index = self.links.len();
        // A port per link, so that peers can be told apart.
        let own = || Address::from((Ipv4Addr::LOCALHOST, 1024 + (index % 60_000) as u16));
        let addr = addr.unwrap_or_else(own);
        let local = local.unwrap_or_else(|| match &addr {
            Address::Unix(_) => UnixAddress::UNNAMED.into(),
            _ => own(),
        });
        let mut link = Link::new(state, worker, addr, local);
        (link.window, link.window_left) = (self.window, self.window.unwrap_or_default());
        self.links.push(link);
        index
    }

    /// A peer connects to a listener of a worker; it waits there until it is accepted. Where nobody listens any more it
    /// is reset, and where nobody new is let in it hears nothing.
    pub fn connect(&mut self, worker: usize, listener: Key, addr: Option<Address>, local: Address) -> usize {
        let index = self.add(State::Queued(listener), worker, addr, Some(local));
        if self.shares[worker].listeners.get(listener).is_none() {
            let travel = self.travel(index);
            self.links[index].hang_up(travel, true);
        } else if self.shares[worker].retired.get(listener).is_some() {
            self.links[index].drop_silently();
        }
        index
    }

    /// How this address answers. `None` if nothing was said of it.
    pub fn own_answer_of(&self, addr: &Address) -> Option<Answer> {
        self.answers.iter().find(|(known, _)| known == addr).map(|(_, answer)| *answer)
    }

    /// How this address answers.
    pub fn answer_of(&self, addr: &Address) -> Answer {
        self.own_answer_of(addr).unwrap_or(self.answer)
    }

    /// Closes a listener; who waits in its queue is reset.
    pub fn close_listener(&mut self, worker: usize, key: Key) -> bool {
        if self.shares[worker].listeners.remove(key).is_none() {
            return false;
        }
        self.unbind(worker, key);
        self.refuse_unanswered(worker, key);
        self.shares[worker].retired.remove(key);
        self.shares[worker].drained.retain(|(drained, _)| *drained != key);
        for index in 0..self.links.len() {
            if self.links[index].worker == worker && self.links[index].state == State::Queued(key) {
                let travel = self.travel(index);
                self.links[index].hang_up(travel, true);
            }
        }
        true
    }

    /// A listener that is drained, and at which nobody stands any more.
    fn drained(&self, worker: usize, late: bool) -> Option<usize> {
        let share = &self.shares[worker];
        if share.drained.is_empty() {
            return None;
        }
        share.drained.iter().position(|(key, is_late)| {
            let waits = |link: &Link| link.worker == worker && link.state == State::Queued(*key);
            *is_late == late && share.listeners.get(*key) == Some(&true) && !self.links.iter().any(waits)
        })
    }

    /// A wait of this worker would bring something of this link.
    fn is_due(&self, link: &Link) -> bool {
        let faults = link.faults.as_ref().unwrap_or(&self.faults);
        if faults.delays >= 1000 {
            return false;
        }
        match link.state {
            State::Gone => return false,
            State::Queued(listener) => {
                return self.shares[link.worker].listeners.get(listener).copied().unwrap_or(false);
            }
            State::Dialing(_, at) => return link.reset || at.is_some_and(|at| at <= self.now),
            State::Open(_) => {}
        }
        if (!link.in_flight.is_empty() || link.blocked) && link.has_room() && !link.reset {
            return true;
        }
        if link.reset && !link.reset_told {
            return true;
        }
        if link.eof_told {
            return false;
        }
        if link.paused {
            let may_be_late = link.may_be_late && !link.interrupted && !link.to_us.is_empty();
            return (faults.late_receives > 0 && may_be_late) || link.has_end_to_tell();
        }
        !link.interrupted && (!link.to_us.is_empty() || link.finished)
    }
}

fn draw(random: &mut Random, range: &RangeInclusive<Duration>) -> Duration {
    Duration::from_nanos(random.between(range.start().as_nanos() as u64, range.end().as_nanos() as u64))
}

/// The network as the test sees it. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct SimNet {
    pub(super) net: Rc<RefCell<Net>>,
}

impl SimNet {
    /// A network of so many workers.
    pub fn new(workers: usize, faults: Faults, seed: u64) -> Self {
        let net = Net {
            links: Vec::new(),
            shares: (0..workers).map(|_| Share::default()).collect(),
            dialed: Vec::new(),
            answer: Answer::Accept,
            answers: Vec::new(),
            faults,
            latency: Duration::ZERO..=Duration::ZERO,
            window: None,
            now: Instant::ZERO,
            random: Random(seed),
            post: Post::default(),
            datagram_bytes_max: usize::MAX,
            bound: Vec::new(),
            port_chosen: 9_999,
            cables: Vec::new(),
        };
        Self { net: Rc::new(RefCell::new(net)) }
    }

    /// Looks at one link.
    pub fn link<R>(&self, link: usize, look: impl FnOnce(&mut Link) -> R) -> R {
        look(&mut self.net.borrow_mut().links[link])
    }

    /// Does something that a segment may come of.
    fn act<R>(&self, link: usize, act: impl FnOnce(&mut Link, Travel) -> R) -> R {
        let mut net = self.net.borrow_mut();
        let travel = net.travel(link);
        act(&mut net.links[link], travel)
    }

    /// A peer connects to a listener of a worker.
    pub fn connect(&self, worker: usize, listener: Key, addr: Option<Address>) -> usize {
        let local = match &addr {
            Some(Address::Unix(_)) => UnixAddress::from_abstract_name("sim").unwrap_or_default().into(),
            _ => Address::from((Ipv4Addr::LOCALHOST, 80)),
        };
        self.net.borrow_mut().connect(worker, listener, addr, local)
    }

    /// Brings what has arrived at one end of a connection within this world to its other end. True if something did.
    pub fn pump(&self) -> bool {
        let mut net = self.net.borrow_mut();
        !net.cables.is_empty() && net.pump()
    }

    /// What the test has not taken, at the far end where most of it is.
    pub fn untaken_bytes(&self) -> usize {
        self.net.borrow().links.iter().map(|link| link.received.len()).max().unwrap_or(0)
    }

    /// A listener that lets somebody in.
    pub fn listens(&self, worker: usize, listener: Key) -> bool {
        let share = &self.net.borrow().shares[worker];
        share.listeners.get(listener).is_some() && share.retired.get(listener).is_none()
    }

    pub fn send(&self, link: usize, bytes: &[u8]) {
        self.act(link, |link, travel| link.send_bytes_to_us(travel, bytes));
    }

    pub fn finish(&self, link: usize) {
        self.act(link, |link, travel| {
            if !std::mem::replace(&mut link.peer_silent, true) {
                link.send_to_us(travel, Segment::Fin);
            }
        });
    }

    pub fn close(&self, link: usize) {
        self.act(link, Link::close_peer);
    }

    pub fn reset(&self, link: usize) {
        self.act(link, |link, travel| {
            (link.peer_silent, link.peer_closed) = (true, true);
            link.unread.clear();
            if !std::mem::replace(&mut link.peer_reset, true) {
                link.send_to_us(travel, Segment::Reset);
            }
        });
    }

    pub fn read(&self, link: usize, reads: bool) {
        self.link(link, |link| {
            link.peer_reads = reads;
            if reads {
                link.received.append(&mut link.unread);
                link.reopen_window();
            }
        });
    }

    /// Outgoing connections since the last call.
    pub fn take_dialed(&self) -> Vec<(usize, Address)> {
        std::mem::take(&mut self.net.borrow_mut().dialed)
    }

    /// How outgoing connections are taken that are made from now on.
    pub fn answer(&self, answer: Answer) {
        self.net.borrow_mut().answer = answer;
    }

    /// The same for one address.
    pub fn answer_to(&self, addr: Address, answer: Answer) {
        self.net.borrow_mut().answers.insert(0, (addr, answer));
    }

    /// What holds for links that have no setting of their own.
    pub fn configure(&self, latency: RangeInclusive<Duration>, window: Option<usize>) {
        let mut net = self.net.borrow_mut();
        (net.latency, net.window) = (latency, window);
    }

    /// Datagrams that are longer do not get through.
    pub fn limit_datagrams(&self, bytes_max: usize) {
        self.net.borrow_mut().datagram_bytes_max = bytes_max;
    }

    /// A far end sends a datagram to a socket.
    pub fn send_datagram(&self, port: usize, path: DatagramPath, bytes: &[u8]) {
        self.net.borrow_mut().send_to_port(port, &Packet { path, bytes: bytes.to_vec() });
    }

    /// What a far end has received since the last call, each with the address of ours that it came from.
    pub fn take_datagrams(&self, peer: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.net.borrow_mut().post.take(peer)
    }

    /// Where a socket is bound.
    pub fn udp_addr(&self, port: usize) -> SocketAddr {
        self.net.borrow().post.ports[port].addr
    }

    /// Which socket is bound to this address, if one is.
    pub fn udp_at(&self, to: SocketAddr, path: &DatagramPath) -> Option<usize> {
        self.net.borrow().post.port_at(to, path)
    }

    /// Whether a socket still receives.
    pub fn receives(&self, port: usize) -> bool {
        self.net.borrow().post.is_open(port)
    }

    /// Output of closed links waits to be given back to this worker's pool.
    pub fn owes_blocks(&self, worker: usize) -> bool {
        self.net.borrow().shares[worker].owes_blocks
    }

    /// A wait of this worker would bring something.
    pub fn has_event(&self, worker: usize) -> bool {
        let net = self.net.borrow();
        net.shares[worker].owes_blocks
            || net.post.is_due(worker, &net.faults)
            || net.links.iter().any(|link| link.worker == worker && net.is_due(link))
            || net.drained(worker, true).is_some()
    }

    /// Who waits longest at a listener that accepts.
    pub(super) fn first_queued(&self, worker: usize, listener: Key) -> Option<usize> {
        let net = self.net.borrow();
        let accepts = net.shares[worker].listeners.get(listener) == Some(&true);
        let queued = |link: &Link| link.worker == worker && link.state == State::Queued(listener);
        net.links.iter().position(queued).filter(|_| accepts)
    }

    /// The same, once, of those that a wait is to bring the end of, or a resume.
    pub(super) fn take_drained(&self, worker: usize, late: bool) -> Option<Key> {
        let mut net = self.net.borrow_mut();
        let index = net.drained(worker, late)?;
        Some(net.shares[worker].drained.swap_remove(index).0)
    }

    /// Somebody waits at a listener that rests, or it has to be drained.
    pub fn waits_at_resting_listener(&self) -> bool {
        let net = self.net.borrow();
        net.links.iter().any(|link| match link.state {
            State::Queued(key) => net.shares[link.worker].listeners.get(key) == Some(&false),
            _ => false,
        }) || net
            .shares
            .iter()
            .any(|share| share.drained.iter().any(|(key, _)| share.listeners.get(*key) == Some(&false)))
    }

    /// When the next segment arrives, or the next answer to an outgoing connection.
    pub fn next_arrival(&self) -> Option<Instant> {
        let net = self.net.borrow();
        let arrivals = net.links.iter().flat_map(|link| {
            let answer = match link.state {
                State::Dialing(_, Some(at)) if at > net.now => Some(at),
                _ => None,
            };
            [link.way_to_us.next_arrival(), link.way_to_peer.next_arrival(), answer]
        });
        arrivals.flatten().chain(net.post.next_arrival()).min()
    }

    /// Time passes, and what is due arrives.
    pub fn advance(&self, now: Instant) {
        let mut net = self.net.borrow_mut();
        net.now = now;
        net.deliver_post();
        for index in 0..net.links.len() {
            let link = &net.links[index];
            if !link.way_to_us.is_empty() || !link.way_to_peer.is_empty() {
                let travel = net.travel(index);
                net.links[index].arrive_due(travel);
            }
        }
    }
}
