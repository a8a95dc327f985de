//! UDP sockets of tasks.
//!
//! A socket is one of the worker's datagram sockets like any other, with a protocol ([`Inbox`]) that shares a cell with the handle: what
//! comes is put there, what a task sends is taken from there, both as whole queues without a copy where that can be. So it
//! runs on every driver, and in the simulation.
//!
//! Invariant: the cell is borrowed only in here, where no code of the program runs; a datagram is taken out of it in the poll that
//! returns it. What waits to be received and what batches hold is no more than the limit. A queue that is empty has no memory: it gives it to the worker's other sockets.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;

use super::batch::DatagramBatch;
use super::connect;
use super::until::until;
use super::watched::wake;
use crate::conn::{Command, DatagramProtocol, DatagramSocket, Sockets, Spares, Target, UdpOptions};
use crate::driver::{Datagram, Datagrams, Io};
use crate::mem::{DatagramPath, DatagramQueue, Joining, Key};
use crate::sync::Crowd;
use crate::sys::{Address, DatagramOption};
use crate::task::Lane;

/// A UDP socket for tasks of one worker.
///
/// Methods take `&self`: several tasks may use one, behind an `Rc`. It lives on the worker that has bound it.
///
/// What is sent leaves behind the tasks of this slice, with what others have sent, by one system call for up to 64 datagrams;
/// those of one length to one peer in a row are one to the kernel, where it can (GSO). What comes is received in batches (GRO) whether
/// somebody waits or not, and kept up to [`UdpOptions::unread_bytes_max`]; what is beyond is dropped and counted. A socket with
/// nothing in it holds no buffer.
///
/// # Cancel safety
/// Every future here may be dropped at any time. A datagram that was not returned is there for the next who asks; one that was not
/// accepted (the future of a send did not return) is not sent.
///
/// # Errors of the network
/// What a peer's host or a router says of a datagram (`ECONNREFUSED` and the like) ends nothing and is told to nobody: it is counted
/// ([`Stats::datagram_errors`](crate::Stats::datagram_errors)). So is what the kernel refuses to send
/// ([`Stats::datagrams_refused`](crate::Stats::datagrams_refused)): a datagram is too long for the way, or there is no way.
///
/// # Drain
/// A drain waits for tasks, not for sockets: they work until it is over. A socket that is dropped sends what it has queued first.
///
/// ```
/// use netpoll_core::net::UdpSocket;
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::task::spawn_local;
///
/// let mut sim = Sim::new(Options::default()); // with sockets: Runtime::block_on, or a handler, or a callback
/// let answer = sim.block_on(async {
///     let server = UdpSocket::bind("127.0.0.1:0").await?;
///     let addr = server.local_addr();
///     let echo = spawn_local(async move {
///         let mut buffer = [0; 2048];
///         loop {
///             let (len, path) = server.recv_path(&mut buffer).await?;
///             server.send_to(&buffer[..len], path).await?;
///         }
///         #[expect(unreachable_code, reason = "it names the type")]
///         std::io::Result::Ok(())
///     });
///     let client = UdpSocket::bind("127.0.0.1:0").await?;
///     client.connect(addr);
///     client.send(b"hello").await?;
///     let mut buffer = [0; 2048];
///     let len = client.recv(&mut buffer).await?;
///     echo.abort();
///     std::io::Result::Ok(buffer[..len].to_vec())
/// });
/// assert_eq!(answer.unwrap(), b"hello");
/// ```
pub struct UdpSocket {
    shared: Rc<Shared>,
    key: Key,
    addr: SocketAddr,
}

/// What the handle and the protocol share.
pub(super) struct Shared {
    lane: Rc<Lane>,
    spares: Rc<Spares>,
    unread_bytes_max: usize,
    queue_bytes_max: usize,
    /// `None` if none fits.
    datagram_bytes_max: Option<usize>,
    peer: Cell<Option<SocketAddr>>,
    /// Came, and was not received.
    pub(super) unread: RefCell<DatagramQueue>,
    /// What batches hold that are being received from counts too: it may come back.
    pub(super) lent_bytes: Cell<usize>,
    /// Sent, and not taken by the worker's socket.
    unsent: RefCell<DatagramQueue>,
    /// The worker's socket will be called, and takes it then.
    is_stirred: Cell<bool>,
    /// The handle is gone.
    is_left: Cell<bool>,
    /// The worker's socket is gone.
    is_gone: Cell<bool>,
    pub(super) readers: RefCell<Crowd>,
    writers: RefCell<Crowd>,
}

impl Shared {
    fn new(lane: Rc<Lane>, spares: Rc<Spares>, options: &UdpOptions) -> Rc<Self> {
        Rc::new(Self {
            lane,
            spares,
            unread_bytes_max: options.unread_bytes_max,
            queue_bytes_max: options.queue_bytes_max,
            datagram_bytes_max: DatagramQueue::longest(options.queue_bytes_max)
                .map(|longest| longest.min(UdpOptions::DATAGRAM_BYTES_MAX)),
            peer: Cell::new(None),
            unread: RefCell::new(DatagramQueue::new(0)),
            lent_bytes: Cell::new(0),
            unsent: RefCell::new(DatagramQueue::new(0)),
            is_stirred: Cell::new(false),
            is_left: Cell::new(false),
            is_gone: Cell::new(false),
            readers: RefCell::default(),
            writers: RefCell::default(),
        })
    }

    fn hears(&self, from: SocketAddr) -> bool {
        self.peer.get().is_none_or(|peer| is_of(from, peer))
    }

    /// Queues one that came. False if there is no room.
    fn keep(&self, datagram: &Datagram<'_>) -> bool {
        let mut unread = self.unread.borrow_mut();
        if unread.is_empty() {
            *unread = self.spares.take(self.unread_bytes_max);
        }
        let fits = unread.has_room(self.lent_bytes.get() + datagram.bytes().len())
            && unread.push(datagram.path(), datagram.bytes());
        self.give_back(&mut unread);
        fits
    }

    /// Queues one that is to leave. False if there is no room now.
    fn queue(&self, path: DatagramPath, bytes: &[u8]) -> bool {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            *unsent = self.spares.take(self.queue_bytes_max);
        }
        unsent.push(path, bytes)
    }

    /// What is to leave goes to the worker's socket, unless that has to wait for room itself and somebody is there who may wait.
    fn hand_over(&self, socket: &mut DatagramSocket<'_>) {
        let is_left = self.is_left.get();
        if is_left || !socket.is_backed_up() {
            let mut unsent = self.unsent.borrow_mut();
            if !unsent.is_empty() {
                socket.send_queue(&mut unsent);
                self.give_back(&mut unsent);
                drop(unsent);
                wake(&self.writers);
            }
        }
        if is_left {
            socket.close();
        }
    }

    /// Takes the first that came, or looks at it.
    fn first<R>(&self, takes: bool, read: impl FnOnce(DatagramPath, &[u8]) -> R) -> Option<R> {
        let mut unread = self.unread.borrow_mut();
        let first = unread.front(Joining::NONE).next()?;
        let result = read(first.path, first.bytes);
        if takes {
            unread.pop(1);
            self.give_back(&mut unread);
        }
        Some(result)
    }

    /// Gives the memory of a queue back that is empty.
    pub(super) fn give_back(&self, queue: &mut DatagramQueue) {
        if queue.is_empty() {
            self.spares.put(queue);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.is_gone.get() { Err(gone()) } else { Ok(()) }
    }
}

/// Whether a datagram from there is one of the peer that a socket is connected to, by whatever name that was given: `::ffff:192.0.2.1` is
/// `192.0.2.1`, to no address is to this host ([`to_somebody`]), and an interface counts if both have one.
fn is_of(from: SocketAddr, peer: SocketAddr) -> bool {
    let scopes = match (from, peer) {
        (SocketAddr::V6(from), SocketAddr::V6(peer)) => [from.scope_id(), peer.scope_id()],
        _ => [0, 0],
    };
    from.port() == peer.port()
        && from.ip().to_canonical() == peer.ip().to_canonical()
        && (scopes[0] == scopes[1] || scopes.contains(&0))
}

/// What the kernel takes the peer of a socket that is bound there to be: no address means the socket's own, or loopback (Linux,
/// `ip_route_output_key_hash` and `udpv6_sendmsg`).
fn to_somebody(peer: SocketAddr, bound: SocketAddr) -> SocketAddr {
    let ip = match (peer.ip().to_canonical(), bound.ip().to_canonical()) {
        (IpAddr::V4(ip), IpAddr::V4(own)) if ip.is_unspecified() && !own.is_unspecified() => own.into(),
        (IpAddr::V4(ip), _) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V6(ip), _) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return peer,
    };
    SocketAddr::new(ip, peer.port())
}

#[cold]
fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket ended with its worker")
}

/// The worker's side.
struct Inbox(Rc<Shared>);

impl DatagramProtocol for Inbox {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        if !self.0.hears(datagram.peer()) || !self.0.keep(&datagram) {
            socket.count_dropped(1);
        }
    }

    fn received_batch(&mut self, socket: &mut DatagramSocket<'_>, batch: &mut Datagrams<'_>) {
        for datagram in batch {
            self.received(socket, datagram);
        }
        wake(&self.0.readers);
    }

    fn drained(&mut self, socket: &mut DatagramSocket<'_>) {
        self.0.hand_over(socket);
    }

    fn woken(&mut self, socket: &mut DatagramSocket<'_>) {
        self.0.is_stirred.set(false);
        self.0.hand_over(socket);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.is_gone.set(true);
        wake(&self.0.readers);
        wake(&self.0.writers);
    }
}

/// Somebody waits for what was ordered, until this is dropped.
struct Ordered<R>(Rc<Order<R>>);

/// What is ordered of the worker, and what it has come to.
struct Order<R> {
    outcome: Cell<Option<R>>,
    is_given_up: Cell<bool>,
}

impl<R: 'static> Ordered<R> {
    /// Orders it, unless it is given up before it is carried out.
    fn new(lane: &Lane, order: impl FnOnce(&mut Sockets, &mut dyn Io) -> R + 'static) -> io::Result<Self> {
        let shared = Rc::new(Order { outcome: Cell::new(None), is_given_up: Cell::new(false) });
        let place = Rc::clone(&shared);
        connect::order(lane, |cx| {
            cx.commands.push(Command::OnSockets(Box::new(move |sockets, _cx, io| {
                if !place.is_given_up.get() {
                    place.outcome.set(Some(order(sockets, io)));
                }
            })));
        })?;
        Ok(Self(shared))
    }

    async fn outcome(self) -> R {
        poll_fn(|cx| match self.0.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                // It is carried out right behind this poll.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }
}

impl<R> Drop for Ordered<R> {
    fn drop(&mut self) {
        self.0.is_given_up.set(true);
    }
}

impl UdpSocket {
    /// Binds a socket to an address: `"127.0.0.1:53"`, `"[::]:0"`, a [`SocketAddr`], a name. Port 0 takes a free one. Of several
    /// addresses the first that can be had. With [`UdpOptions::default`].
    ///
    /// Cancel-safe: given up, it leaves no socket.
    ///
    /// # Errors
    /// The kernel's: `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` of a port below 1024, no descriptor left; those of
    /// [`lookup`](super::lookup); `InvalidInput` of a Unix socket; `Unsupported` outside of tasks and handlers of a worker.
    pub async fn bind(to: impl Into<Target>) -> io::Result<Self> {
        Self::bind_with(to, UdpOptions::default()).await
    }

    /// The same with settings. [`UdpOptions::queue_bytes_max`] bounds what waits for the kernel, and once more what waits for that to
    /// have left.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `InvalidInput` of settings that are out of range.
    pub async fn bind_with(to: impl Into<Target>, options: UdpOptions) -> io::Result<Self> {
        if let Some(complaint) = options.complaint() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, complaint));
        }
        let mut outcome = Err(io::ErrorKind::InvalidInput.into());
        for address in super::lookup(to).await? {
            outcome = Self::open(&address, options).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot receive datagrams on {address}: {error}"))
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn open(address: &Address, options: UdpOptions) -> io::Result<Self> {
        let not_ip = || io::Error::new(io::ErrorKind::InvalidInput, "it is no IP address");
        let addr = address.as_socket_addr().ok_or_else(not_ip)?;
        let lane = connect::lane()?;
        let home = Rc::clone(&lane);
        let opened = Ordered::new(&lane, move |sockets, io| {
            let shared = Shared::new(home, Rc::clone(sockets.spares()), &options);
            let (key, addr) = sockets.open(io, addr, &options, Box::new(Inbox(Rc::clone(&shared))))?;
            // From here on it is closed by whoever has this.
            Ok(Self { shared, key, addr })
        })?;
        opened.outcome().await
    }

    /// Where it is bound, with the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whom it is [connected](Self::connect) to.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer.get()
    }

    /// From now on [`send`](Self::send) sends to this peer, and what comes from others is dropped and counted
    /// ([`Stats::datagrams_dropped`](crate::Stats::datagrams_dropped)); what came before stays. No packet is
    /// sent, and nothing says whether the peer is there. No system call.
    ///
    /// As with the kernel's `connect`, `0.0.0.0` and `[::]` are this host, of which [`peer_addr`](Self::peer_addr) then says the address.
    /// A peer is the same with and without `::ffff:`, and a link-local one without an interface is heard at any.
    pub fn connect(&self, peer: SocketAddr) {
        self.shared.peer.set(Some(to_somebody(peer, self.addr)));
    }

    /// Sends a datagram to its peer. What [`send_to`](Self::send_to) says.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); `NotConnected` without a peer.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let peer = self.peer()?;
        self.send_to(bytes, peer).await
    }

    /// Sends a datagram, copied, to a peer's address, or along the path of one that came from it ([`recv_path`](Self::recv_path)), so
    /// that it leaves from the address that was asked. It returns when the datagram is queued: at once, unless the kernel has not kept
    /// up. Its length. Nobody learns whether it arrives.
    ///
    /// # Errors
    /// `InvalidInput` of more than 65 535 bytes, or than fit the queue; `NotConnected` behind the end of the worker.
    pub async fn send_to(&self, bytes: &[u8], to: impl Into<DatagramPath>) -> io::Result<usize> {
        let to = to.into();
        until(&self.shared.writers, || would_wait(self.try_send_to(bytes, to))).await
    }

    /// [`send`](Self::send), if there is room now.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; as [`send`](Self::send).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send_to(bytes, self.peer()?)
    }

    /// [`send_to`](Self::send_to), if there is room now.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; as [`send_to`](Self::send_to).
    pub fn try_send_to(&self, bytes: &[u8], to: impl Into<DatagramPath>) -> io::Result<usize> {
        let shared = &self.shared;
        shared.check()?;
        if shared.datagram_bytes_max.is_none_or(|longest| bytes.len() > longest) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the datagram is longer than any may be",
            ));
        }
        if !shared.queue(to.into(), bytes) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !shared.is_stirred.replace(true) {
            shared.lane.stir(self.key);
        }
        Ok(bytes.len())
    }

    /// Sends bytes as datagrams of this length, of which the last may be shorter, to one peer: the kernel, or the network card, cuts
    /// them where it can. As many datagrams as fit at a time; waits for room for the others, and returns when all are queued. Dropped
    /// before, it has sent the first of them.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); `InvalidInput` of a length of zero.
    pub async fn send_segments(
        &self,
        bytes: &[u8],
        segment: usize,
        to: impl Into<DatagramPath>,
    ) -> io::Result<()> {
        if segment == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "datagrams without bytes have no end"));
        }
        let to = to.into();
        for datagram in bytes.chunks(segment) {
            self.send_to(datagram, to).await?;
        }
        Ok(())
    }

    /// Receives a datagram: its length, and who sent it. What does not fit into `into` is lost.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, path) = self.recv_path(into).await?;
        Ok((len, path.peer()))
    }

    /// [`recv_from`](Self::recv_from) with the path that it took, for the answer: of a socket that is bound to all addresses it
    /// has the one that was asked.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn recv_path(&self, into: &mut [u8]) -> io::Result<(usize, DatagramPath)> {
        until(&self.shared.readers, || would_wait(self.try_first(into, true))).await
    }

    /// [`recv_from`](Self::recv_from) without the sender.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        let (len, _) = self.recv_path(into).await?;
        Ok(len)
    }

    /// [`recv_from`](Self::recv_from), and the datagram stays for the next who asks.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn peek_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, path) = until(&self.shared.readers, || would_wait(self.try_first(into, false))).await?;
        Ok((len, path.peer()))
    }

    /// [`recv_from`](Self::recv_from), if something is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; `NotConnected` behind the end of the worker.
    pub fn try_recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, path) = self.try_first(into, true)?;
        Ok((len, path.peer()))
    }

    /// [`recv`](Self::recv), if something is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; `NotConnected` behind the end of the worker.
    pub fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.try_first(into, true)?.0)
    }

    /// Receives all that is there, one datagram at least, without a copy.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn recv_batch(&self) -> io::Result<DatagramBatch<'_>> {
        let shared = &self.shared;
        until(&shared.readers, || {
            let mut unread = shared.unread.borrow_mut();
            match unread.is_empty() {
                true => shared.check().err().map(Err),
                false => {
                    let queue = std::mem::replace(&mut *unread, DatagramQueue::new(0));
                    Some(Ok(DatagramBatch::new(shared, queue)))
                }
            }
        })
        .await
    }

    /// Waits until there is something to receive.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn readable(&self) -> io::Result<()> {
        until(&self.shared.readers, || would_wait(self.try_first(&mut [], false))).await?;
        Ok(())
    }

    /// Waits until there is room to send the longest datagram.
    ///
    /// # Errors
    /// `NotConnected` behind the end of the worker.
    pub async fn writable(&self) -> io::Result<()> {
        let shared = &self.shared;
        until(&shared.writers, || {
            let unsent = shared.unsent.borrow();
            let has_room = unsent.is_empty() || unsent.has_room(shared.datagram_bytes_max.unwrap_or(0));
            if has_room { Some(shared.check()) } else { shared.check().err().map(Err) }
        })
        .await
    }

    fn try_first(&self, into: &mut [u8], takes: bool) -> io::Result<(usize, DatagramPath)> {
        let first = self.shared.first(takes, |path, bytes| {
            let len = bytes.len().min(into.len());
            into[..len].copy_from_slice(&bytes[..len]);
            (len, path)
        });
        match first {
            Some(first) => Ok(first),
            None => Err(self.shared.check().err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())),
        }
    }

    fn peer(&self) -> io::Result<SocketAddr> {
        let none =
            || io::Error::new(io::ErrorKind::NotConnected, "the socket has no peer: connect it, or name one");
        self.shared.peer.get().ok_or_else(none)
    }

    /// Lets it send to broadcast addresses (`SO_BROADCAST`). Not in a simulation (`Unsupported`), as all options here.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.set(DatagramOption::Broadcast(on)).await
    }

    /// How many routers what it sends may pass (`IP_TTL`, `IPV6_UNICAST_HOPS`), 1 to 255.
    ///
    /// # Errors
    /// The kernel's: `InvalidInput` of another number.
    pub async fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.set(DatagramOption::Ttl(hops)).await
    }

    /// The same of what it sends to groups, 0 to 255. The kernel's default is 1.
    ///
    /// # Errors
    /// The kernel's: `InvalidInput` of another number.
    pub async fn set_multicast_ttl(&self, hops: u32) -> io::Result<()> {
        self.set(DatagramOption::MulticastTtl(hops)).await
    }

    /// Whether this host hears what it sends to groups. The kernel's default is true.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn set_multicast_loop(&self, on: bool) -> io::Result<()> {
        self.set(DatagramOption::MulticastLoop(on)).await
    }

    /// Joins a group at the interface that has this address; at one that the kernel chooses if it is `0.0.0.0`.
    ///
    /// # Errors
    /// The kernel's: `InvalidInput` of what is no group, `AddrInUse` of one that it is in, no such interface.
    pub async fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.set(DatagramOption::JoinV4(group, interface)).await
    }

    /// Leaves it.
    ///
    /// # Errors
    /// The kernel's: `AddrNotAvailable` of one that it is not in.
    pub async fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.set(DatagramOption::LeaveV4(group, interface)).await
    }

    /// Joins a group at the interface of this number; at one that the kernel chooses if it is zero.
    ///
    /// # Errors
    /// As [`join_multicast_v4`](Self::join_multicast_v4).
    pub async fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.set(DatagramOption::JoinV6(group, interface)).await
    }

    /// Leaves it.
    ///
    /// # Errors
    /// As [`leave_multicast_v4`](Self::leave_multicast_v4).
    pub async fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.set(DatagramOption::LeaveV6(group, interface)).await
    }

    async fn set(&self, option: DatagramOption) -> io::Result<()> {
        self.shared.check()?;
        let key = self.key;
        Ordered::new(&self.shared.lane, move |_sockets, io| io.set_datagram_option(key, option))?
            .outcome()
            .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.is_left.set(true);
        if !shared.is_gone.get() && !shared.is_stirred.replace(true) {
            shared.lane.stir(self.key);
        }
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local_addr", &self.addr)
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

/// The result of a try, unless it is that there was nothing to be had.
fn would_wait<R>(result: io::Result<R>) -> Option<io::Result<R>> {
    let waits = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    (!waits).then_some(result)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::task::Deliver;

    struct Nowhere;

    impl Deliver for Nowhere {
        fn deliver(&self, _key: Key) {}
    }

    fn shared(spares: &Rc<Spares>) -> Rc<Shared> {
        let lane = Lane::for_test(Arc::new(Nowhere));
        Shared::new(lane, Rc::clone(spares), &UdpOptions::default())
    }

    #[test]
    fn a_peer_is_the_same_by_whatever_name() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (from, peer, is_same) in [
            ("192.0.2.1:5", "192.0.2.1:5", true),
            ("192.0.2.1:5", "192.0.2.1:6", false),
            ("192.0.2.1:5", "192.0.2.2:5", false),
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5", true),
            ("192.0.2.1:5", "[::ffff:192.0.2.1]:5", true),
            ("[fe80::1%3]:5", "[fe80::1]:5", true),
            ("[2001:db8::1]:5", "[2001:db8::1%3]:5", true),
            ("[fe80::1%3]:5", "[fe80::1%2]:5", false),
        ] {
            assert_eq!(is_of(addr(from), addr(peer)), is_same, "{from} of {peer}");
        }
        for (peer, bound, somebody) in [
            ("192.0.2.1:5", "0.0.0.0:9", "192.0.2.1:5"),
            ("0.0.0.0:5", "0.0.0.0:9", "127.0.0.1:5"),
            ("0.0.0.0:5", "192.0.2.7:9", "192.0.2.7:5"),
            ("0.0.0.0:5", "[::]:9", "127.0.0.1:5"),
            ("[::ffff:0.0.0.0]:5", "[::]:9", "127.0.0.1:5"),
            ("[::]:5", "[::]:9", "[::1]:5"),
        ] {
            assert_eq!(to_somebody(addr(peer), addr(bound)), addr(somebody), "{peer} of {bound}");
        }
    }

    #[test]
    fn a_socket_that_has_sent_and_received_everything_has_no_buffer_and_the_next_one_uses_it() {
        let spares = Rc::new(Spares::default());
        let (one, other) = (shared(&spares), shared(&spares));
        let path = DatagramPath::from(SocketAddr::from(([127, 0, 0, 1], 9)));
        assert!(one.queue(path, &[7; 1000]));
        // What the worker's socket does with it.
        let mut taken = one.unsent.replace(DatagramQueue::new(0));
        assert!(taken.capacity() >= 1000 && one.unsent.borrow().capacity() == 0);
        taken.pop(1);
        let memory = taken.capacity();
        spares.put(&mut taken);
        assert_eq!(taken.capacity(), 0);

        *other.unread.borrow_mut() = spares.take(other.unread_bytes_max);
        assert_eq!(other.unread.borrow().capacity(), memory, "it is used again");
        assert!(other.unread.borrow_mut().push(path, b"news"));
        assert_eq!(other.first(false, |_, bytes| bytes.len()), Some(4));
        assert_eq!(other.unread.borrow().capacity(), memory);
        assert_eq!(other.first(true, |_, bytes| bytes.to_vec()), Some(b"news".to_vec()));
        assert_eq!(other.unread.borrow().capacity(), 0);
    }
}
