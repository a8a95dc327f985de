//! What a runtime listens on and is reached at: the addresses of streams and datagrams, and who serves their peers.
//!
//! Nothing is bound here: `listening.rs` and `udp.rs` do that when it starts, before any worker does.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};

use super::builder::Builder;
use super::programs::WorkerInfo;
use crate::conn::{DatagramProtocol, Listeners, Peer, Protocol, Target};
use crate::mem::Key;
use crate::net::{Stream, accept_in_tasks};
use crate::sys::{self, Address};

type AddListener = Box<dyn Fn(&WorkerInfo, &mut Listeners) -> io::Result<Key> + Send + Sync>;
type MakeDatagrams = Box<dyn Fn(&WorkerInfo) -> io::Result<Box<dyn DatagramProtocol>> + Send + Sync>;

/// Where a listener is to be.
pub(super) enum Place {
    At(Address),
    /// A socket that listens there already.
    Handed(OwnedFd, Address),
}

impl Place {
    /// What it says; its address stays.
    pub fn take(&mut self) -> Self {
        let (Self::At(addr) | Self::Handed(_, addr)) = self;
        let addr = Self::At(addr.clone());
        std::mem::replace(self, addr)
    }
}

pub(super) struct Listen {
    pub place: Place,
    pub add: AddListener,
    pub is_reserved: bool,
}

pub(super) struct Bind {
    pub addr: SocketAddr,
    /// The sockets of the workers do not share a port.
    pub own_ports: bool,
    pub make: MakeDatagrams,
}

impl Builder {
    /// Listens on an address. `protocols` is called on each worker, at its start, and returns what makes a
    /// protocol for each peer there; that and the protocols may be `!Send`.
    ///
    /// Takes what a [`Target`] is made of: `"127.0.0.1:7000"`, `("localhost", 7000)`, a `SocketAddr`, `"unix:/run/x.sock"`.
    /// A name is looked up now, and of several addresses that it has the first is taken. Port 0 lets the kernel choose, see
    /// [`Running::local_addrs`](crate::Running::local_addrs). Can be called several times.
    ///
    /// Each worker has a socket of its own on a port (`SO_REUSEPORT`), bound by `start`.
    ///
    /// A Unix socket is one queue for all workers, who take turns. Its file is made by `start`, with the permissions of
    /// [`socket_mode`](Self::socket_mode), in place of one where nobody listens any more (whoever does sees a connection that is
    /// closed at once), and is removed when the runtime has ended, if it is still the same. What is a setting of TCP does not
    /// concern it, nor do the sizes of buffers, which the kernel takes from the client's side. Descriptors that a peer passes along
    /// (`SCM_RIGHTS`) are dropped, and bytes that it sends behind them may be noticed only with what it sends next.
    ///
    /// As a function with a name, `protocols` says that what it returns borrows nothing of the [`WorkerInfo`], which edition 2024 would
    /// assume otherwise (`use<>`):
    ///
    /// ```no_run
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    ///
    /// use netpoll_core::{Conn, Flow, Input, Peer, Protocol, Runtime, WorkerInfo};
    ///
    /// struct Numbered(u64);
    /// # impl Protocol for Numbered {
    /// #     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
    /// #         Flow::Close
    /// #     }
    /// # }
    ///
    /// fn accept(worker: &WorkerInfo) -> impl FnMut(Peer) -> Numbered + use<> {
    ///     let count: Rc<Cell<u64>> = worker.state::<Cell<u64>>();
    ///     move |_peer| {
    ///         count.set(count.get() + 1);
    ///         Numbered(count.get())
    ///     }
    /// }
    ///
    /// fn main() -> std::io::Result<()> {
    ///     Runtime::builder().state(|_worker| Cell::new(0_u64)).listen("127.0.0.1:7000", accept)?.run()?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The address is malformed, or cannot be resolved.
    pub fn listen<A, F, M, P>(self, addr: A, protocols: F) -> io::Result<Self>
    where
        A: Into<Target>,
        F: Fn(&WorkerInfo) -> M + Send + Sync + 'static,
        M: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        self.try_listen(addr, move |worker| Ok(protocols(worker)))
    }

    /// Listens on an address as [`listen`](Self::listen) does, and starts a task for each peer on the worker that has accepted it:
    /// `serve` makes its future of the [`Stream`] and of who connected. The task ends with the future, and the stream when it is
    /// dropped.
    ///
    /// ```no_run
    /// use netpoll_core::Runtime;
    ///
    /// fn main() -> std::io::Result<()> {
    ///     Runtime::builder()
    ///         .listen_tasks("127.0.0.1:7000", |mut stream, peer| async move {
    ///             // Nobody is told of an error: the peer is gone.
    ///             let _ = stream.write_all(format!("hello {}\n", peer.addr).as_bytes()).await;
    ///         })?
    ///         .run()?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The address is malformed, or cannot be resolved.
    pub fn listen_tasks<A, F, T>(self, addr: A, serve: F) -> io::Result<Self>
    where
        A: Into<Target>,
        F: Fn(Stream, Peer) -> T + Clone + Send + Sync + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.listen(addr, move |_worker| accept_in_tasks(serve.clone()))
    }

    /// [`listen`](Self::listen) with a `protocols` that can fail. Its error is one of [`start`](Self::start), which names
    /// the worker.
    ///
    /// ```no_run
    /// # use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
    /// # struct Greeter;
    /// # impl Protocol for Greeter {
    /// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    /// #         Flow::Close
    /// #     }
    /// # }
    /// # fn main() -> std::io::Result<()> {
    /// Runtime::builder()
    ///     .try_listen("127.0.0.1:7000", |_worker| {
    ///         let greeting = std::fs::read_to_string("greeting.txt")?;
    ///         Ok(move |_peer| {
    ///             println!("{greeting}");
    ///             Greeter
    ///         })
    ///     })?
    ///     .run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The address is malformed, or cannot be resolved.
    pub fn try_listen<A, F, M, P>(self, addr: A, protocols: F) -> io::Result<Self>
    where
        A: Into<Target>,
        F: Fn(&WorkerInfo) -> io::Result<M> + Send + Sync + 'static,
        M: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        let addr = addr.into().resolve()?.swap_remove(0);
        Ok(self.add_listener(Place::At(addr), protocols))
    }

    /// Accepts from a socket that somebody else has opened: a service manager ([`listen_fds`](crate::listen_fds)), the process that
    /// was here before, a program that needed a privilege for it. A TCP or Unix stream socket that listens.
    ///
    /// It is one queue for all workers, who take turns, and for whoever else has the socket. It is made non-blocking, which others
    /// see as well, and what accepted connections inherit is set on it: no delay, [`keepalive`](Self::keepalive),
    /// [`user_timeout`](Self::user_timeout), [`unsent_bytes_max`](Self::unsent_bytes_max) and the sizes of buffers. The backlog,
    /// `defer_accept` and permissions are left as they are.
    ///
    /// A drain takes in who stands in the queue, and then closes its descriptors. The socket itself goes on as long as somebody
    /// else has it, who accepts whoever comes then; so newcomers are not refused, and a file is not removed. Where nobody has, those
    /// who get in line in that moment are reset.
    ///
    /// ```no_run
    /// # use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    /// #         Flow::Close
    /// #     }
    /// # }
    /// # fn main() -> std::io::Result<()> {
    /// let mut builder = Runtime::builder();
    /// for socket in netpoll_core::listen_fds()? {
    ///     builder = builder.listen_on(socket, |_worker| |_peer| Echo)?;
    /// }
    /// builder.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It is no stream socket of TCP or in the Unix domain, or does not listen (`InvalidInput`), or no socket at all.
    pub fn listen_on<F, M, P>(self, socket: impl Into<OwnedFd>, protocols: F) -> io::Result<Self>
    where
        F: Fn(&WorkerInfo) -> M + Send + Sync + 'static,
        M: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        self.try_listen_on(socket, move |worker| Ok(protocols(worker)))
    }

    /// [`listen_on`](Self::listen_on) with a `protocols` that can fail, as that of [`try_listen`](Self::try_listen).
    ///
    /// # Errors
    /// Those of [`listen_on`](Self::listen_on).
    pub fn try_listen_on<F, M, P>(self, socket: impl Into<OwnedFd>, protocols: F) -> io::Result<Self>
    where
        F: Fn(&WorkerInfo) -> io::Result<M> + Send + Sync + 'static,
        M: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        let socket = socket.into();
        let addr = sys::check_listener(socket.as_fd())?;
        Ok(self.add_listener(Place::Handed(socket, addr), protocols))
    }

    fn add_listener<F, M, P>(mut self, place: Place, protocols: F) -> Self
    where
        F: Fn(&WorkerInfo) -> io::Result<M> + Send + Sync + 'static,
        M: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        let add: AddListener = Box::new(move |info, listeners| Ok(listeners.add(protocols(info)?)));
        self.listeners.push(Listen { place, add, is_reserved: false });
        self
    }

    /// Receives datagrams on an address, over UDP. `protocol` is called on each worker, at its start, and returns what handles them
    /// there; that may be `!Send`.
    ///
    /// Each worker has a socket of its own on the port (`SO_REUSEPORT`), bound by `start`; the kernel gives each sender to one of
    /// them, by a hash of the addresses. One that is bound to all addresses (`0.0.0.0`, `[::]`) answers from the one that
    /// was asked. Of several addresses that a name resolves to the first is taken. Port 0 lets the kernel choose, see
    /// [`Running::udp_addrs`](crate::Running::udp_addrs). Can be called several times.
    ///
    /// ```no_run
    /// use netpoll_core::{Datagram, DatagramProtocol, DatagramSocket, Runtime};
    ///
    /// struct Echo;
    ///
    /// impl DatagramProtocol for Echo {
    ///     fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
    ///         socket.send(datagram.path(), datagram.bytes());
    ///     }
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// Runtime::builder().bind_udp("127.0.0.1:7000", |_worker| Echo)?.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The address cannot be resolved.
    pub fn bind_udp<A, F, P>(self, addr: A, protocol: F) -> io::Result<Self>
    where
        A: ToSocketAddrs,
        F: Fn(&WorkerInfo) -> P + Send + Sync + 'static,
        P: DatagramProtocol,
    {
        self.try_bind_udp(addr, move |worker| Ok(protocol(worker)))
    }

    /// [`bind_udp`](Self::bind_udp) with a `protocol` that can fail. Its error is one of [`start`](Self::start), which names the
    /// worker.
    ///
    /// # Errors
    /// The address cannot be resolved.
    pub fn try_bind_udp<A, F, P>(mut self, addr: A, protocol: F) -> io::Result<Self>
    where
        A: ToSocketAddrs,
        F: Fn(&WorkerInfo) -> io::Result<P> + Send + Sync + 'static,
        P: DatagramProtocol,
    {
        let addr = first_addr(addr)?;
        let make: MakeDatagrams = Box::new(move |info| Ok(Box::new(protocol(info)?)));
        self.udp.push(Bind { addr, own_ports: false, make });
        Ok(self)
    }

    /// Gives each worker a port of its own for the `bind_udp` that was called last, instead of one that all of them share: for protocols
    /// that ask others, whose answers then come to the worker that has asked. A port of 0 is what it is for; any other can be
    /// bound by one worker only. [`Running::udp_addrs`](crate::Running::udp_addrs) has the first worker's,
    /// [`DatagramSocket::local_addr`](crate::DatagramSocket::local_addr) each.
    ///
    /// # Panics
    /// If none was called yet.
    #[must_use]
    pub fn own_ports(mut self) -> Self {
        self.udp.last_mut().expect("a UDP address was added").own_ports = true;
        self
    }

    /// Keeps room for the peers of the listener that was added last: they are accepted whatever
    /// [`ConnLimits::connections_max`](crate::ConnLimits::connections_max) and [`connections_per_address_max`](crate::ConnLimits::connections_per_address_max) say,
    /// and when the process runs out of descriptors one of them at a time gets the one that is held back. For health checks and
    /// operators, on an address that strangers do not reach.
    ///
    /// # Panics
    /// If none was added yet.
    #[must_use]
    pub fn reserved(mut self) -> Self {
        self.listeners.last_mut().expect("a listener was added").is_reserved = true;
        self
    }
}

fn first_addr(addr: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address");
    addr.to_socket_addrs()?.next().ok_or_else(no_address)
}
