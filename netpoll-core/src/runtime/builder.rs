//! Every knob of a runtime, with its default and its reason.

use std::any::TypeId;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::Running;
use super::placement::Workers;
use super::shutdown::Report;
use crate::conn::{
    Commands, ConnLimits, DatagramProtocol, Handle, Listeners, Local, Peer, Protocol, States, Target,
    UdpOptions, two_states,
};
use crate::mem::Key;
use crate::reactor::{Budget, SPIN_MAX, WaitStrategy};
use crate::sys::{self, Address, Keepalive, StopSignal, StreamOptions};

/// What a worker is told about itself when its protocols are made. Made on its worker, and stays there.
#[derive(Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number, from zero.
    pub index: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The CPU that it was to be pinned to, if any.
    pub cpu: Option<usize>,
    /// A way to all workers, for protocols that show counters or talk across workers.
    pub handle: Handle,
    pub(super) states: States,
}

impl WorkerInfo {
    /// The value of this type that [`Builder::state`] made for this worker.
    ///
    /// # Panics
    /// If there is none, or not any more: states end with their worker.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Rc<S> {
        self.states.get()
    }
}

type AddListener = Box<dyn Fn(&WorkerInfo, &mut Listeners) -> io::Result<Key> + Send + Sync>;
type MakeDatagrams = Box<dyn Fn(&WorkerInfo) -> io::Result<Box<dyn DatagramProtocol>> + Send + Sync>;
type MakeState = Box<dyn Fn(&WorkerInfo) -> io::Result<()> + Send + Sync>;
type OnStart = Box<dyn Fn(&WorkerInfo, &mut Commands) -> io::Result<()> + Send + Sync>;

/// What a function for [`Builder::on_start`] may return: nothing, or [`io::Result<()>`](io::Result).
pub trait Started: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> io::Result<()>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for std::io::Result<()> {}
}

impl Started for () {
    fn into_result(self) -> io::Result<()> {
        Ok(())
    }
}

impl Started for io::Result<()> {
    fn into_result(self) -> io::Result<()> {
        self
    }
}

/// What is kept on each worker.
pub(super) struct State {
    id: TypeId,
    pub make: MakeState,
}

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

/// Settings of a runtime. Made by [`Runtime::builder`](crate::Runtime::builder).
pub struct Builder {
    pub(super) workers: Workers,
    pub(super) pin: bool,
    pub(super) budget: Budget,
    pub(super) wait: WaitStrategy,
    pub(super) limits: ConnLimits,
    pub(super) backlog: i32,
    pub(super) defer_accept: Option<Duration>,
    pub(super) keepalive: Option<Keepalive>,
    pub(super) user_timeout: Option<Duration>,
    pub(super) unsent_bytes_max: Option<u32>,
    pub(super) send_buffer_bytes: Option<usize>,
    pub(super) receive_buffer_bytes: Option<usize>,
    pub(super) steer_by_cpu: bool,
    pub(super) share_port: bool,
    pub(super) socket_mode: Option<u32>,
    pub(super) pool_bytes_max: usize,
    pub(super) long_turn: Duration,
    pub(super) drain_within: Duration,
    pub(super) stop_on_signals: bool,
    pub(super) stop_signals: Vec<StopSignal>,
    pub(super) listeners: Vec<Listen>,
    pub(super) udp: Vec<Bind>,
    pub(super) udp_options: UdpOptions,
    pub(super) on_start: Vec<OnStart>,
    pub(super) states: Vec<State>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            workers: Workers::Auto,
            pin: true,
            budget: Budget::default(),
            wait: WaitStrategy::default(),
            limits: ConnLimits::default(),
            backlog: 4096,
            defer_accept: None,
            keepalive: StreamOptions::DEFAULT.keepalive,
            user_timeout: StreamOptions::DEFAULT.user_timeout,
            unsent_bytes_max: StreamOptions::DEFAULT.unsent_bytes_max,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            steer_by_cpu: false,
            share_port: false,
            socket_mode: None,
            pool_bytes_max: 4 * 1024 * 1024,
            long_turn: Duration::from_millis(10),
            drain_within: Duration::from_secs(10),
            stop_on_signals: false,
            stop_signals: StopSignal::ALL.to_vec(),
            listeners: Vec::new(),
            udp: Vec::new(),
            udp_options: UdpOptions::default(),
            on_start: Vec::new(),
            states: Vec::new(),
        }
    }

    /// How many workers, and on which CPUs. Default [`Workers::Auto`].
    #[must_use]
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// Whether workers are pinned to their CPUs. Default true, if there is a CPU for each; CPUs named with
    /// [`Workers::Cpus`] are always pinned to. A pinned worker keeps its caches; turn it off where
    /// other processes are pinned to the same CPUs.
    ///
    /// Threads and processes that a callback starts inherit the worker's one CPU: start a pool of threads before the runtime, or
    /// let it choose its CPUs itself.
    #[must_use]
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// How much one turn takes from the kernel. Default [`Budget::fixed`] with 64 events.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// How a worker waits when it has nothing to do. Default [`WaitStrategy::Block`]. A strategy that
    /// spins becomes `Block` with one CPU, a CPU quota, or more workers than CPUs.
    #[must_use]
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// Bounds on each connection. Default [`ConnLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: ConnLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Connections that the kernel queues for one listener before it drops new ones. Default 4096; the kernel
    /// lowers it to `net.core.somaxconn`.
    #[must_use]
    pub fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections;
        self
    }

    /// Accepts a connection only when its first bytes are there, or this time has passed
    /// (`TCP_DEFER_ACCEPT`, rounded up to whole seconds). Default off. For protocols in which the client speaks
    /// first: it saves a wake-up for each connection, and a silent one costs no slot until then.
    #[must_use]
    pub fn defer_accept(mut self, at_most: Duration) -> Self {
        self.defer_accept = Some(at_most);
        self
    }

    /// Has the kernel probe silent peers of accepted connections (`SO_KEEPALIVE`), and end the connection of one that is
    /// gone without a word. Default after 60 s of silence, every 15 s, and four times without an answer: two minutes
    /// in all, below the time that most NATs remember a connection. `None` turns it off. Set once on the listener, so an
    /// accepted connection costs no system call. Values out of range are an error of [`start`](Self::start).
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// How long what was sent to an accepted connection may stay without an acknowledgement, or its peer's window closed, before the
    /// kernel ends the connection (`TCP_USER_TIMEOUT`, in milliseconds). Default 120 s, as long as keepalive takes, whose probes
    /// it bounds as well. `None` leaves it to the kernel: a quarter of an hour, and never for a window that stays closed.
    #[must_use]
    pub fn user_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.user_timeout = time.into();
        self
    }

    /// Bytes that the kernel takes from an accepted connection's queue beyond what it can send (`TCP_NOTSENT_LOWAT`). Default
    /// 128 KiB: enough to keep a fast link busy between two turns. What is beyond it waits in the queue, where
    /// [`ConnLimits::write_rate_min`] sees whether the peer takes it; `None` lets the kernel take megabytes, which then
    /// look as if they were delivered.
    #[must_use]
    pub fn unsent_bytes_max(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.unsent_bytes_max = bytes.into();
        self
    }

    /// Size of the kernel's send buffer of accepted connections, in bytes (`SO_SNDBUF`; the kernel doubles it, and caps it at
    /// `net.core.wmem_max`). Default `None`: it grows with the connection, up to `net.ipv4.tcp_wmem`.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer_bytes = bytes.into();
        self
    }

    /// Size of the kernel's receive buffer of accepted connections, in bytes (`SO_RCVBUF`; the kernel doubles it, and caps it at
    /// `net.core.rmem_max`). Default `None`: it grows with the connection, up to `net.ipv4.tcp_rmem`.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.receive_buffer_bytes = bytes.into();
        self
    }

    /// Gives a connection to the worker on the CPU that its first packet came in on (a classic BPF
    /// program on the listeners). Default off: the kernel then spreads by a hash of the addresses. Right when
    /// the network card has a queue for each CPU; on loopback the client's CPU decides.
    ///
    /// It needs a worker on each CPU, in order; `start` says so otherwise.
    #[must_use]
    pub fn steer_by_cpu(mut self, steer: bool) -> Self {
        self.steer_by_cpu = steer;
        self
    }

    /// Listens on the port also while another process of the same user does, on this runtime as well, for restarts without
    /// a gap. It is the newcomer that has to ask for it: one that was there before need not have. Default off: a port that
    /// is taken is an error of [`start`](Self::start).
    ///
    /// The path of a Unix socket is taken over: from then on newcomers reach this runtime, and whoever listened there before
    /// goes on with those that it has. In the moment between, nobody is refused. The kernel's own name of the socket, which
    /// [`Conn::local_addr`](crate::Conn::local_addr) says, is then the path with the number of this process behind it.
    #[must_use]
    pub fn share_port(mut self, share: bool) -> Self {
        self.share_port = share;
        self
    }

    /// Permissions of the files of Unix sockets, such as `0o660`: who may not write may not connect. They hold before anybody
    /// can connect, and whatever the process's mask. Default `None`: the mask decides, which usually lets the owner in only.
    #[must_use]
    pub fn socket_mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.socket_mode = mode.into();
        self
    }

    /// Bytes of free buffers that one worker keeps. Default 4 MiB: a thousand answers of 4 KiB at once. What is in
    /// use comes on top and is bounded by the limits of the connections. Zero frees every buffer after use, which
    /// costs an allocation for each answer.
    #[must_use]
    pub fn pool_bytes_max(mut self, bytes: usize) -> Self {
        self.pool_bytes_max = bytes;
        self
    }

    /// Work of one turn from which on it counts as long ([`Stats::long_turns`](crate::Stats::long_turns)).
    /// Default 10 ms: nothing that a callback should do takes as long.
    #[must_use]
    pub fn long_turn(mut self, from: Duration) -> Self {
        self.long_turn = from;
        self
    }

    /// How long [`run`](Self::run) and [`Running::wait`] give connections to end before they are reset. Default 10 s.
    #[must_use]
    pub fn drain_within(mut self, time: Duration) -> Self {
        self.drain_within = time;
        self
    }

    /// Has SIGINT, SIGTERM and SIGHUP end [`Running::wait`], or those of [`stop_signals`](Self::stop_signals). Default off;
    /// [`run`](Self::run) turns it on. The handlers are installed before anything listens, so no signal comes too early, and
    /// taken back when the [`Running`] ends.
    ///
    /// A second one, of the same kind or another, ends the process at once as if it had not been caught; a process that is
    /// number 1 of its PID namespace, which the kernel would spare, exits with 128 plus the signal's number.
    ///
    /// A signal that is ignored when the runtime starts stays ignored: a shell does that with SIGINT for what runs in the
    /// background, and nohup(1) with SIGHUP. So does SIGHUP if the program has a handler for it, as for reloading.
    #[must_use]
    pub fn stop_on_signals(mut self, stop: bool) -> Self {
        self.stop_on_signals = stop;
        self
    }

    /// Which signals stop, if [`stop_on_signals`](Self::stop_on_signals) is on. Default [`StopSignal::ALL`]. What is not among
    /// them keeps its action, which for SIGHUP is to end the process without a drain.
    #[must_use]
    pub fn stop_signals(mut self, signals: impl IntoIterator<Item = StopSignal>) -> Self {
        self.stop_signals = signals.into_iter().collect();
        self
    }

    /// Listens on an address. `protocols` is called on each worker, at its start, and returns what makes a
    /// protocol for each peer there; that and the protocols may be `!Send`.
    ///
    /// Takes what a [`Target`] is made of: `"127.0.0.1:7000"`, `("localhost", 7000)`, a `SocketAddr`, `"unix:/run/x.sock"`.
    /// A name is looked up now, and of several addresses that it has the first is taken. Port 0 lets the kernel choose, see
    /// [`Running::local_addrs`]. Can be called several times.
    ///
    /// Each worker has a socket of its own on a port (`SO_REUSEPORT`), bound by `start`.
    ///
    /// A Unix socket is one queue for all workers, who take turns. Its file is made by `start`, with the permissions of
    /// [`socket_mode`](Self::socket_mode), in place of one where nobody listens any more (whoever does sees a connection that is
    /// closed at once), and is removed when the runtime has ended, if it is still the same. What is a setting of TCP does not
    /// concern it, nor do the sizes of buffers, which the kernel takes from the client's side. Descriptors that a peer passes along
    /// (`SCM_RIGHTS`) are dropped, and bytes that it sends behind them may be noticed only with what it sends next.
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
    /// [`Running::udp_addrs`]. Can be called several times.
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
    /// bound by one worker only. [`Running::udp_addrs`] has the first worker's,
    /// [`DatagramSocket::local_addr`](crate::DatagramSocket::local_addr) each.
    ///
    /// # Panics
    /// If none was called yet.
    #[must_use]
    pub fn own_ports(mut self) -> Self {
        self.udp.last_mut().expect("a UDP address was added").own_ports = true;
        self
    }

    /// Settings of all UDP sockets. Default [`UdpOptions::default`].
    #[must_use]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.udp_options = options;
        self
    }

    /// Keeps room for the peers of the listener that was added last: they are accepted whatever
    /// [`ConnLimits::connections_max`] and [`connections_per_address_max`](ConnLimits::connections_per_address_max) say,
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

    /// Called on each worker at its start, for outgoing connections. Default nothing; each call adds one. It may return an
    /// [`io::Result`], whose error is one of [`start`](Self::start). What it asks for is done when all workers are ready.
    #[must_use]
    pub fn on_start<R: Started>(
        mut self,
        start: impl Fn(&WorkerInfo, &mut Commands) -> R + Send + Sync + 'static,
    ) -> Self {
        self.on_start.push(Box::new(move |info, commands| start(info, commands).into_result()));
        self
    }

    /// Keeps a value of this type on each worker: a shard of data, a cache, a set of connections. `make` is called on each
    /// worker at its start, before the functions of listeners and of [`on_start`](Self::on_start); it finds the states that were
    /// asked for before it.
    ///
    /// Callbacks reach it by [`Conn::state`](crate::Conn::state), timers and code from elsewhere by [`Local::state`], factories
    /// by [`WorkerInfo::state`], each as an `Rc`: it belongs to one thread, so a `Cell` or `RefCell` in it is all that is needed to
    /// change it. It is dropped on its worker at its end, when its connections and timers are gone.
    ///
    /// ```no_run
    /// use std::cell::Cell;
    /// use std::time::Duration;
    ///
    /// use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
    ///
    /// /// How many bytes this worker has seen in this second.
    /// #[derive(Default)]
    /// struct Rate(Cell<usize>);
    ///
    /// struct Sink;
    /// impl Protocol for Sink {
    ///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         let rate = conn.state::<Rate>();
    ///         rate.0.set(rate.0.get() + input.len());
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// Runtime::builder()
    ///     .state(|_worker| Rate::default())
    ///     .every(Duration::from_secs(1), |worker| {
    ///         let (index, rate) = (worker.index, worker.state::<Rate>());
    ///         move |_local| println!("worker {index}: {} B/s", rate.0.take())
    ///     })
    ///     .listen("127.0.0.1:7000", |_worker| |_peer| Sink)?
    ///     .run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If there is a state of this type already: one that is to be there twice takes two types.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(self, make: impl Fn(&WorkerInfo) -> S + Send + Sync + 'static) -> Self {
        self.try_state(move |worker| Ok(make(worker)))
    }

    /// [`state`](Self::state) with a `make` that can fail. Its error is one of [`start`](Self::start), which names the worker.
    ///
    /// # Panics
    /// As `state`.
    #[must_use]
    #[track_caller]
    pub fn try_state<S: 'static>(
        mut self,
        make: impl Fn(&WorkerInfo) -> io::Result<S> + Send + Sync + 'static,
    ) -> Self {
        let id = TypeId::of::<S>();
        assert!(self.states.iter().all(|state| state.id != id), "{}", two_states::<S>());
        let make = Box::new(move |worker: &WorkerInfo| {
            worker.states.add(make(worker)?);
            Ok(())
        });
        self.states.push(State { id, make });
        self
    }

    /// Calls a function on each worker again and again: `make` is called there at the start, behind the functions of
    /// listeners, and returns what is called, first one period after all workers are ready. Default none; each call adds one. See
    /// [`Commands::every`] for how exactly it keeps time, and [`state`](Self::state) for an example.
    ///
    /// # Panics
    /// If the period is zero.
    #[must_use]
    #[track_caller]
    pub fn every<T>(self, period: Duration, make: impl Fn(&WorkerInfo) -> T + Send + Sync + 'static) -> Self
    where
        T: FnMut(&mut Local<'_>) + 'static,
    {
        assert!(!period.is_zero(), "the period of a timer is above zero");
        self.on_start(move |worker, commands| {
            commands.every(period, make(worker));
        })
    }

    /// Starts the workers and returns when all of them are ready: they serve together, or none does.
    ///
    /// # Errors
    /// What a function given to [`try_listen`](Self::try_listen), [`try_state`](Self::try_state) or
    /// [`on_start`](Self::on_start) returned on any worker, or that one of these or of their like panicked there; the error names the worker and the cause, and is of
    /// the cause's kind. One of these functions that is still running a second later is not waited for: what it
    /// returns is dropped.
    ///
    /// A setting that contradicts itself (`InvalidInput`), a port that is taken (`AddrInUse`) or may not
    /// be used, no file descriptors or threads left, kernel busy polling on a kernel without it; signal handlers
    /// that another runtime of this process has installed.
    pub fn start(self) -> io::Result<Running> {
        self.check()?;
        Running::start(self)
    }

    /// Starts the workers, waits for SIGINT, SIGTERM or SIGHUP ([`stop_signals`](Self::stop_signals)), drains, and reports. A
    /// second one ends the process at once.
    ///
    /// # Errors
    /// Those of [`start`](Self::start); a worker that ended by itself.
    pub fn run(self) -> io::Result<Report> {
        self.stop_on_signals(true).start()?.wait()
    }

    fn check(&self) -> io::Result<()> {
        let invalid = |message: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if self.limits.write_low_bytes > self.limits.write_high_bytes {
            return invalid("write_low_bytes is above write_high_bytes");
        }
        let limits = &self.limits;
        // Zero would let nothing through, or cut everybody at once. What zero means elsewhere is said where it is set.
        let zeros = [
            ("connections_max", limits.connections_max == 0),
            ("connections_per_address_max", limits.connections_per_address_max == Some(0)),
            ("memory_bytes_max", limits.memory_bytes_max == Some(0)),
            ("write_grace", limits.write_grace.is_zero()),
        ];
        if self.backlog <= 0 {
            return invalid("backlog is not above zero");
        }
        if let Some((name, _)) = zeros.iter().find(|(_, is_zero)| *is_zero) {
            return invalid(&format!("{name} is zero"));
        }
        if let Some(complaint) = self.udp_options.complaint() {
            return invalid(complaint);
        }
        match self.wait {
            WaitStrategy::Spin(time) if time > SPIN_MAX => invalid("a spin is at most 10 µs"),
            _ => Ok(()),
        }
    }
}

fn first_addr(addr: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address");
    addr.to_socket_addrs()?.next().ok_or_else(no_address)
}
