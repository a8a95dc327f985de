//! Datagram sockets of a simulated world, and their far ends, which are addresses.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Sim;
use crate::conn::DatagramProtocol;
use crate::mem::DatagramPath;
use crate::runtime::WorkerInfo;

/// The port of the first socket; each further [`Sim::bind_udp`] has the next one.
const FIRST_PORT: u16 = 53;
/// From here on each worker has one of its own, where it is to have one.
const OWN_PORTS: u16 = 40_000;

/// Names the datagram sockets of one [`Sim::bind_udp`], one on each worker.
///
/// It belongs to the [`Sim`] that it came from; another one may panic over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpId(usize);

impl Sim {
    /// A datagram socket on every worker, as [`Builder::bind_udp`](crate::Builder::bind_udp) makes them, with the settings of
    /// [`Options::udp`](super::Options::udp).
    ///
    /// ```
    /// use netpoll_core::sim::{Options, Sim};
    /// # use netpoll_core::{Datagram, DatagramProtocol, DatagramSocket};
    /// # struct Echo;
    /// # impl DatagramProtocol for Echo {
    /// #     fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
    /// #         socket.send(datagram.path(), datagram.bytes());
    /// #     }
    /// # }
    /// let mut sim = Sim::new(Options::default());
    /// let udp = sim.bind_udp(|_worker| Echo);
    /// let peer = "192.0.2.1:4000".parse().unwrap();
    /// sim.send_datagram(udp, peer, b"ping");
    /// sim.settle();
    /// assert_eq!(sim.take_datagrams(peer), [(sim.udp_addr(udp), b"ping".to_vec())]);
    /// ```
    ///
    /// # Panics
    /// With more sockets than a worker can have.
    pub fn bind_udp<P: DatagramProtocol>(&mut self, protocol: impl FnMut(&WorkerInfo) -> P) -> UdpId {
        self.bind_each(false, protocol)
    }

    /// The same with a port for each worker, as [`Builder::own_ports`](crate::Builder::own_ports) gives them: answers of far ends
    /// come to the worker that has asked if they are sent by [`send_datagram_at`](Self::send_datagram_at).
    ///
    /// # Panics
    /// With more sockets than a worker can have.
    pub fn bind_udp_own_ports<P: DatagramProtocol>(
        &mut self,
        protocol: impl FnMut(&WorkerInfo) -> P,
    ) -> UdpId {
        self.bind_each(true, protocol)
    }

    fn bind_each<P: DatagramProtocol>(
        &mut self,
        own_ports: bool,
        mut protocol: impl FnMut(&WorkerInfo) -> P,
    ) -> UdpId {
        let id = UdpId(self.udp.len());
        let shared = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + id.0 as u16));
        let workers = self.seats.len();
        let own = |worker: usize| {
            let port = OWN_PORTS + (id.0 * workers + worker) as u16;
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        };
        let infos = (0..self.seats.len()).map(|worker| self.info(worker)).collect::<Vec<_>>();
        let options = self.udp_options;
        let ports = self.seats.iter_mut().zip(&infos).map(|(seat, info)| {
            let addr = if own_ports { own(info.index) } else { shared };
            let _inside = seat.worker.cx.lane.visit();
            let key = seat.worker.sockets.add(addr, &options, Box::new(protocol(info)));
            let key = key.expect("fewer sockets than a slab holds");
            seat.reactor.driver().bind(key, addr, &options.setup())
        });
        let ports = ports.collect();
        self.udp.push(ports);
        id
    }

    /// Where these sockets are bound; the first worker's, if each has a port of its own.
    #[must_use]
    pub fn udp_addr(&self, udp: UdpId) -> SocketAddr {
        self.net.udp_addr(self.udp[udp.0][0])
    }

    /// A far end sends a datagram to the socket that is bound to this address, as an answer to one that came from there. Those of tasks
    /// ([`UdpSocket`](crate::net::UdpSocket)) have no other name. Where there is none, it is lost.
    pub fn send_datagram_at(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let path = DatagramPath::from(from);
        if let Some(port) = self.net.udp_at(to, &path) {
            self.net.send_datagram(port, path, bytes);
        }
    }

    /// A far end sends a datagram. It comes to the socket of one of the workers that still have one, always the same for one
    /// address, and lies there until that worker receives it. Where none has, it is lost.
    pub fn send_datagram(&mut self, udp: UdpId, from: SocketAddr, bytes: &[u8]) {
        self.post(udp, DatagramPath::from(from), bytes);
    }

    /// As [`send_datagram`](Self::send_datagram), to this address of ours, as of a socket that is bound to all of them.
    pub fn send_datagram_to(&mut self, udp: UdpId, to: IpAddr, from: SocketAddr, bytes: &[u8]) {
        self.post(udp, DatagramPath::new(from, Some((to, 1))), bytes);
    }

    fn post(&mut self, udp: UdpId, path: DatagramPath, bytes: &[u8]) {
        let open: Vec<usize> =
            self.udp[udp.0].iter().copied().filter(|port| self.net.receives(*port)).collect();
        if open.is_empty() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let port = open[(hasher.finish() % open.len() as u64) as usize];
        self.net.send_datagram(port, path, bytes);
    }

    /// What a far end has received since the last call: the address of ours that each datagram came from, and its bytes.
    pub fn take_datagrams(&mut self, peer: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.net.take_datagrams(peer)
    }

    /// Workers whose socket is open.
    #[must_use]
    pub fn udp_open(&self, udp: UdpId) -> usize {
        self.udp[udp.0].iter().filter(|port| self.net.receives(**port)).count()
    }
}
