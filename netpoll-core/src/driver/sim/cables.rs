//! Connections between two sockets of one world: a dial to an address where one of its workers listens.
//!
//! Each socket has a link of its own, with its faults and its latency, whose far end is not the test but the other link: what
//! arrives there is sent on. Invariant: a far end stops reading while a window's worth waits in the other socket, so that a reader who is
//! slow is felt at the other end.

use super::link::{Segment, Travel, WINDOW_BYTES};
use super::network::Net;
use crate::mem::Key;
use crate::sys::Address;
use std::io;
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

/// Ports that are chosen begin here.
const FIRST_PORT: u16 = 20_000;

impl Net {
    /// Gives a listener an address. That with the port that was chosen, if it was left to the network.
    pub fn bind(&mut self, worker: usize, key: Key, addr: &Address) -> io::Result<Address> {
        let addr = match (addr.ip(), addr.port()) {
            (Some(ip), Some(0)) => {
                let port = FIRST_PORT + (self.ports_chosen % 10_000);
                self.ports_chosen += 1;
                Address::from((ip, port))
            }
            _ => addr.clone(),
        };
        if self.bound.iter().any(|bound| bound.addr == addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.bound.push(Bound { addr: addr.clone(), worker, key });
        self.shares[worker].listeners.insert(key, true);
        Ok(addr)
    }

    /// Who listens there: at this very address, or at all of its port.
    pub fn bound_at(&self, addr: &Address) -> Option<(usize, Key)> {
        let is_any = |bound: &Bound| {
            bound.addr.ip().is_some_and(|ip| ip.is_unspecified()) && bound.addr.port() == addr.port()
        };
        let bound = self.bound.iter().find(|bound| bound.addr == *addr || is_any(bound))?;
        Some((bound.worker, bound.key))
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
