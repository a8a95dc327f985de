//! Connections between two sockets of one world: a dial to an address where one of its workers listens.
//!
//! Each socket has a link of its own, with its faults and its latency, whose far end is not the test but the other link: what
//! arrives there is sent on. Invariant: a far end stops reading while a window's worth waits in the other socket, so that a reader who is
//! slow is felt at the other end.

use super::link::{Segment, State, Travel, WINDOW_BYTES};
use super::network::Net;
use crate::mem::Key;
use crate::sys::Address;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Two links that are one connection.
pub struct Cable {
    ends: [usize; 2],
    /// Whether the end of this one's output was passed on.
    ended: [bool; 2],
    reset: bool,
}

/// Where a worker listens.
pub struct Bound {
    addr: Address,
    worker: usize,
    key: Key,
}

/// Ports that are chosen begin here, and so many are.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

/// When who hears nothing asks again, counted from the first time, in seconds (Linux, `tcp_syn_retries`: 1 s, doubled).
const ASKS_AGAIN: [u64; 6] = [1, 3, 7, 15, 31, 63];

/// Whether a socket at the one address takes what is for the other: it is the same, or all of its port. `[::]` is all of IPv4 too, as
/// sockets are bound here.
fn takes(bound: &Address, to: &Address) -> bool {
    let is_any = match (bound.ip(), to.ip()) {
        (Some(IpAddr::V4(ip)), Some(IpAddr::V4(_))) => ip.is_unspecified(),
        (Some(IpAddr::V6(ip)), Some(_)) => ip.is_unspecified(),
        _ => false,
    };
    bound == to || (is_any && bound.port() == to.port())
}

impl Net {
    /// Gives a listener an address. That with the port that was chosen, if it was left to the network.
    pub fn bind(&mut self, worker: usize, key: Key, addr: &Address) -> io::Result<Address> {
        let is_free = |addr: &Address| {
            !self.bound.iter().any(|bound| takes(&bound.addr, addr) || takes(addr, &bound.addr))
        };
        let addr = match (addr.ip(), addr.port()) {
            (Some(ip), Some(0)) => {
                let last = self.port_chosen;
                let ports = (1..=PORTS).map(|step| FIRST_PORT + (last + step) % PORTS);
                ports.map(|port| Address::from((ip, port))).find(is_free)
            }
            _ => Some(addr.clone()).filter(is_free),
        };
        let addr = addr.ok_or(io::ErrorKind::AddrInUse)?;
        self.port_chosen = match addr.port() {
            Some(port @ FIRST_PORT..) if port < FIRST_PORT + PORTS => port - FIRST_PORT,
            _ => self.port_chosen,
        };
        self.bound.push(Bound { addr: addr.clone(), worker, key });
        self.shares[worker].listeners.insert(key, true);
        Ok(addr)
    }

    /// Who listens there: at this very address, or at all of its port.
    pub fn bound_at(&self, addr: &Address) -> Option<(usize, Key)> {
        let bound = self.bound.iter().find(|bound| takes(&bound.addr, addr))?;
        Some((bound.worker, bound.key))
    }

    /// A dial to an address where one of this world's workers listens, which takes a round trip. Where nobody new is let in it hears
    /// nothing, until it asks again behind the listener's end.
    pub fn dial_here(
        &mut self,
        key: Key,
        dialer: usize,
        to: &Address,
        from: Option<Address>,
        at: (usize, Key),
    ) {
        let (worker, listener) = at;
        let is_let_in = self.shares[worker].retired.get(listener).is_none();
        let index = self.add(State::Dialing(key, None), dialer, Some(to.clone()), from);
        self.shares[dialer].by_key.insert(key, index);
        if !is_let_in {
            self.links[index].unanswered = Some((worker, listener, self.now));
            return;
        }
        let there = self.travel(index).arrival();
        let back = self.travel(index).time;
        self.links[index].state = State::Dialing(key, Some(there.saturating_add(back)));
        let from = self.links[index].local.clone();
        let accepted = self.connect(worker, listener, Some(from), to.clone());
        self.lay(index, accepted);
    }

    /// Who had dialed this listener in vain is refused when it asks again.
    pub fn refuse_unanswered(&mut self, worker: usize, listener: Key) {
        let now = self.now;
        for link in &mut self.links {
            let (State::Dialing(key, None), Some((of, at, dialed))) = (link.state, link.unanswered) else {
                continue;
            };
            let asks = |after: &u64| dialed.saturating_add(Duration::from_secs(*after));
            let again = ASKS_AGAIN.iter().map(asks).find(|again| *again >= now);
            if (of, at) == (worker, listener) && again.is_some() {
                link.state = State::Dialing(key, again);
                (link.is_refused, link.peer_silent, link.peer_closed) = (true, true, true);
            }
        }
    }

    /// A listener has closed.
    pub fn unbind(&mut self, worker: usize, key: Key) {
        self.bound.retain(|bound| (bound.worker, bound.key) != (worker, key));
    }

    /// Makes two links one connection.
    pub fn lay(&mut self, one: usize, other: usize) {
        self.cables.push(Cable { ends: [one, other], ended: [false; 2], reset: false });
    }

    /// Sends on what has arrived. True if something did.
    pub fn pump(&mut self) -> bool {
        let mut cables = std::mem::take(&mut self.cables);
        let mut moved = false;
        cables.retain_mut(|cable| {
            for (from, to) in [(0, 1), (1, 0)] {
                moved |= self.pump_one(cable, from, to);
            }
            let is_over = cable.reset || cable.ended == [true; 2];
            !is_over
        });
        self.cables = cables;
        moved
    }

    fn pump_one(&mut self, cable: &mut Cable, from: usize, to: usize) -> bool {
        let (source, target) = (cable.ends[from], cable.ends[to]);
        let at_once = Travel { now: self.now, time: Duration::ZERO };
        let waiting = self.links[target].to_us.len() + self.links[target].way_to_us.bytes();
        let link = &mut self.links[source];
        link.peer_reads = waiting < WINDOW_BYTES;
        if link.peer_reads {
            link.received.append(&mut link.unread);
            link.reopen_window();
        }
        let bytes = std::mem::take(&mut link.received);
        let (is_closed, is_reset) = (link.is_closed(), link.reset_seen);
        let mut moved = !bytes.is_empty();
        let link = &mut self.links[target];
        if !bytes.is_empty() {
            link.send_bytes_to_us(at_once, &bytes);
        }
        if is_reset && !cable.reset {
            (cable.reset, moved) = (true, true);
            (link.peer_silent, link.peer_closed) = (true, true);
            link.unread.clear();
            if !std::mem::replace(&mut link.peer_reset, true) {
                link.send_to_us(at_once, Segment::Reset);
            }
        } else if is_closed && !cable.ended[from] {
            (cable.ended[from], moved) = (true, true);
            if !std::mem::replace(&mut link.peer_silent, true) {
                link.send_to_us(at_once, Segment::Fin);
            }
        }
        moved
    }
}
