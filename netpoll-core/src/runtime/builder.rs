//! Every setting of a runtime, with its default and its reason, and its start.
//!
//! Where it listens is told it in `endpoints.rs`, what it has on each worker in `programs.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Running;
use super::backend::Backend;
use super::endpoints::{Bind, Listen};
use super::handover::{Family, Handover};
use super::listening::inherited_options;
use super::placement::Workers;
use super::programs::{Beside, OnStart, OnThreadStart, State};
use super::resolver::NameCache;
use super::service_manager::{Manager, ServiceManager};
use super::shutdown::Report;
use super::watchdog::{OnStuck, StuckTurn};
use crate::blocking::JOBS_MAX;
use crate::conn::{ConnLimits, UdpOptions};
use crate::reactor::{Budget, SPIN_MAX, WaitStrategy};
use crate::sys::{Keepalive, ListenFd, StopSignal, StreamOptions};

/// What no handler should take without a wait, and no liveness probe should fail for.
pub(super) const STUCK_TURN: Duration = Duration::from_secs(10);

/// Settings of a runtime. Made by [`Runtime::builder`](crate::Runtime::builder).
pub struct Builder {
    /// What the names of its threads begin with.
    pub(super) name: &'static str,
    pub(super) workers: Workers,
    pub(super) pin: bool,
    pub(super) backend: Backend,
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
    pub(super) splice: bool,
    pub(super) blocking_threads: usize,
    pub(super) blocking_jobs_max: usize,
    pub(super) name_cache: NameCache,
    pub(super) long_turn: Duration,
    pub(super) stuck_turn: Duration,
    pub(super) watchdog: bool,
    pub(super) on_stuck: Vec<OnStuck>,
    pub(super) manager: Manager,
    pub(super) handover: Option<Handover>,
    pub(super) inherited: Vec<ListenFd>,
    /// It stands beside another runtime.
    pub(super) is_beside: bool,
    /// Made of these by `start`, and shared with runtimes beside it.
    pub(super) family: Arc<Family>,
    pub(super) lame_duck: Duration,
    pub(super) drain_within: Duration,
    pub(super) stop_on_signals: bool,
    pub(super) stop_signals: Vec<StopSignal>,
    pub(super) listeners: Vec<Listen>,
    pub(super) udp: Vec<Bind>,
    pub(super) udp_options: UdpOptions,
    pub(super) on_thread_start: Vec<OnThreadStart>,
    pub(super) on_start: Vec<OnStart>,
    pub(super) states: Vec<State>,
    pub(super) beside: Vec<Beside>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            name: "netpoll",
            workers: Workers::Auto,
            pin: true,
            backend: Backend::default(),
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
            splice: true,
            blocking_threads: 32,
            blocking_jobs_max: JOBS_MAX,
            name_cache: NameCache::default(),
            long_turn: Duration::from_millis(10),
            stuck_turn: STUCK_TURN,
            watchdog: false,
            on_stuck: Vec::new(),
            manager: Manager::default(),
            handover: None,
            inherited: Vec::new(),
            is_beside: false,
            family: Arc::default(),
            lame_duck: Duration::ZERO,
            drain_within: Duration::from_secs(10),
            stop_on_signals: false,
            stop_signals: StopSignal::ALL.to_vec(),
            listeners: Vec::new(),
            udp: Vec::new(),
            udp_options: UdpOptions::default(),
            on_thread_start: Vec::new(),
            on_start: Vec::new(),
            states: Vec::new(),
            beside: Vec::new(),
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
    /// other processes are pinned to the same CPUs. Nothing is pinned where the system cannot do that (macOS).
    ///
    /// Threads and processes that a callback starts inherit the worker's one CPU: start a pool of threads before the runtime, or
    /// give its threads an [`Affinity`](crate::Affinity).
    #[must_use]
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// The driver that workers run on. Default [`Backend::Auto`], for which the environment variable `NETPOLL_BACKEND` counts;
    /// [`Setup::backend`](crate::Setup::backend) tells which it came to.
    ///
    /// One that this build or this machine lacks is an error of [`start`](Self::start): no other is taken instead.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
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
    /// first: it saves a wake-up for each connection, and a silent one costs no slot until then. Zero is an error of
    /// [`start`](Self::start), and so is any on another system than Linux.
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
    /// it bounds as well. `None` leaves it to the kernel: a quarter of an hour, and never for a window that stays closed. Less than
    /// a millisecond, which the kernel takes for that as well, is an error of [`start`](Self::start).
    #[must_use]
    pub fn user_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.user_timeout = time.into();
        self
    }

    /// Bytes that the kernel takes from an accepted connection's queue beyond what it can send (`TCP_NOTSENT_LOWAT`). Default
    /// 128 KiB: enough to keep a fast link busy between two turns. What is beyond it waits in the queue, where
    /// [`ConnLimits::write_rate_min`] sees whether the peer takes it; `None` lets the kernel take megabytes, which then
    /// look as if they were delivered. Zero is an error of [`start`](Self::start).
    #[must_use]
    pub fn unsent_bytes_max(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.unsent_bytes_max = bytes.into();
        self
    }

    /// Size of the kernel's send buffer of accepted connections, in bytes (`SO_SNDBUF`; the kernel doubles it, and caps it at
    /// `net.core.wmem_max`). Default `None`: it grows with the connection, up to `net.ipv4.tcp_wmem`.
    /// Zero, and more than 2147483647, are errors of [`start`](Self::start).
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer_bytes = bytes.into();
        self
    }

    /// Size of the kernel's receive buffer of accepted connections, in bytes (`SO_RCVBUF`; the kernel doubles it, and caps it at
    /// `net.core.rmem_max`). Default `None`: it grows with the connection, up to `net.ipv4.tcp_rmem`.
    /// Zero, and more than 2147483647, are errors of [`start`](Self::start).
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.receive_buffer_bytes = bytes.into();
        self
    }

    /// Gives a connection to the worker on the CPU that its first packet came in on (a classic BPF
    /// program on the listeners). Default off: the kernel then spreads by a hash of the addresses. Right when
    /// the network card has a queue for each CPU; on loopback the client's CPU decides.
    ///
    /// It needs Linux, and a worker on each CPU, in order; `start` says so otherwise.
    #[must_use]
    pub fn steer_by_cpu(mut self, steer: bool) -> Self {
        self.steer_by_cpu = steer;
        self
    }

    /// Listens on the port also while another process of the same user does, on this runtime as well, for restarts without
    /// a gap. It is the newcomer that has to ask for it: one that was there before need not have. Default off: a port that
    /// is taken is an error of [`start`](Self::start).
    ///
    /// [`shares_port`](Self::shares_port) tells what was set.
    ///
    /// The path of a Unix socket is taken over: from then on newcomers reach this runtime, and whoever listened there before goes on
    /// with those that it has. In the moment between, nobody is refused. The kernel's own name of the socket, which
    /// [`Conn::local_addr`](crate::Conn::local_addr) says, is then the path with the number of this process behind it; where that would
    /// be more than the kernel takes (107 bytes), it leads through `/proc`, which has to be there.
    #[must_use]
    pub fn share_port(mut self, share: bool) -> Self {
        self.share_port = share;
        self
    }

    /// Whether [`share_port`](Self::share_port) is on.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.share_port
    }

    /// Settings of a runtime that stands beside this one.
    pub(super) fn of_one_beside(&self) -> Self {
        Self {
            name: "netpoll-beside",
            workers: Workers::Count(1),
            pin: false,
            backend: self.backend,
            backlog: self.backlog,
            share_port: self.share_port,
            socket_mode: self.socket_mode,
            is_beside: true,
            family: Arc::clone(&self.family),
            ..Self::new()
        }
    }

    /// Permissions of the files of Unix sockets, such as `0o660`: who may not write may not connect. They hold before anybody can
    /// connect, and whatever the process's mask, which takes `/proc` where it takes some of them away. Default `None`: the mask decides,
    /// which usually lets the owner in only. More than `0o777`, permissions with which nobody may write, and any for an abstract name
    /// (`unix:@name`), which has no file, are errors of [`start`](Self::start).
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

    /// Lets the kernel move the bytes of a [`forward`](crate::Commands::forward) from socket to socket where they come in large pieces,
    /// through a pipe of each worker (`splice(2)`), instead of copying them in and out. Default on. The pipe takes two descriptors of a
    /// worker that has such a relay, and no memory of its own to speak of; what a target does not take at once is
    /// read out of it, so that a relay holds no more than otherwise. Where there is no descriptor, or the kernel refuses, bytes are copied.
    #[must_use]
    pub fn splice(mut self, splice: bool) -> Self {
        self.splice = splice;
        self
    }

    /// Threads for what blocks ([`blocking`](crate::blocking)), of the whole runtime. Default 32: jobs mostly wait, for a disk or for
    /// somebody else, and a disk has as many requests under way at once; but a burst of jobs that compute takes no more CPUs
    /// from the workers than that. A thread is made when it is needed. Zero is an error of
    /// [`start`](Self::start). Names are looked up on four threads of their own.
    #[must_use]
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// Jobs that may wait for one of [`blocking_threads`](Self::blocking_threads); who has one more is refused, or waits for room
    /// ([`blocking::reserve`](crate::blocking::reserve)). Default 4096: with jobs of 10 ms the last one begins a second and a third
    /// later, when its client may still be there. Zero is an error of [`start`](Self::start).
    #[must_use]
    pub fn blocking_jobs_max(mut self, jobs: usize) -> Self {
        self.blocking_jobs_max = jobs;
        self
    }

    /// How long it is kept what a name that is dialed stands for. Default [`NameCache::default`]: 256 names, for 5 s.
    /// [`NameCache::off`] keeps nothing.
    #[must_use]
    pub fn name_cache(mut self, cache: NameCache) -> Self {
        self.name_cache = cache;
        self
    }

    /// Work of one turn from which on it counts as long ([`Stats::long_turns`](crate::Stats::long_turns)).
    /// Default 10 ms: nothing that a callback should do takes as long. Zero is an error of [`start`](Self::start).
    #[must_use]
    pub fn long_turn(mut self, from: Duration) -> Self {
        self.long_turn = from;
        self
    }

    /// A turn that lasts so long counts as stuck while it lasts: [`Handle::stuck`](crate::Handle::stuck) names its worker, and the
    /// [`watchdog`](Self::watchdog) says so. Default 10 s: a worker that serves nobody for that long is not going to by itself. What takes
    /// longer than it should and ends is [`long_turn`](Self::long_turn)'s. Zero is an error of [`start`](Self::start).
    #[must_use]
    pub fn stuck_turn(mut self, from: Duration) -> Self {
        self.stuck_turn = from;
        self
    }

    /// Whether a thread of its own looks at the workers, four times in each [`stuck_turn`](Self::stuck_turn), and says which of them has
    /// been in one turn for that long, once for each such turn, and when it has come back: in the log (feature `tracing`), and to
    /// [`on_stuck`](Self::on_stuck). Default off. The workers do not notice.
    #[must_use]
    pub fn watchdog(mut self, on: bool) -> Self {
        self.watchdog = on;
        self
    }

    /// Calls a function for each turn that is stuck, on the thread of the [`watchdog`](Self::watchdog), which this turns on: once when it
    /// is noticed, and once when it has ended. For an alarm, or for an end (`std::process::abort`). Each call adds one. A panic in it is
    /// caught.
    ///
    /// ```no_run
    /// # use netpoll_core::Runtime;
    /// let builder = Runtime::builder().on_stuck(|turn| eprintln!("{turn}"));
    /// // worker 3 has been in one turn for 10.0s and serves nobody
    /// // worker 3 has come back from a turn of 12.4s
    /// ```
    #[must_use]
    pub fn on_stuck(mut self, call: impl Fn(&StuckTurn) + Send + Sync + 'static) -> Self {
        self.on_stuck.push(Box::new(call));
        self.watchdog(true)
    }

    /// How long [`run`](Self::run) and [`Running::wait`] give connections to end before they are reset. Default 10 s, of which peers
    /// that are idle and do not close take 3 s ([`Handle::drain`](crate::Handle::drain)).
    #[must_use]
    pub fn drain_within(mut self, time: Duration) -> Self {
        self.drain_within = time;
        self
    }

    /// Tells the service manager that has started this process how it is (`sd_notify(3)`): `READY=1` when all workers serve, `STOPPING=1` when
    /// the [`lame_duck`](Self::lame_duck) time or the drain begins, and, twice in each `WATCHDOG_USEC`, `WATCHDOG=1` while no worker is in a turn
    /// that is stuck ([`stuck_turn`](Self::stuck_turn)). The environment is read by [`start`](Self::start); without `NOTIFY_SOCKET` in it nobody
    /// is told. Default off. A thread of its own does it, that of the [`watchdog`](Self::watchdog).
    ///
    /// In a unit: `Type=notify`, and `WatchdogSec=30` with `Restart=on-failure`. SIGHUP means a reload only where the program makes it one, so
    /// `RELOADING=1` is the program's to say ([`ServiceManager::tell`]).
    #[must_use]
    pub fn sd_notify(mut self) -> Self {
        self.manager = Manager::InEnvironment;
        self
    }

    /// The same for a manager that is not looked for in the environment.
    #[must_use]
    pub fn service_manager(mut self, manager: ServiceManager) -> Self {
        self.manager = Manager::This(manager);
        self
    }

    /// Takes over from a process that serves at the same [`Handover`], if there is one, and hands over to the next. Default off.
    ///
    /// [`start`](Self::start) asks that process for its sockets. A [`listen`](Self::listen) or [`bind_udp`](Self::bind_udp) whose address it
    /// has is served at those, with whoever stands in their queues; any other is bound as ever. When all workers are ready, and with them
    /// whatever can fail, this one serves and the other one drains: its listeners are closed and nobody in their queues is lost, its
    /// connections end as in any drain but those that are idle and can go on in this one ([`Protocol::hand_over`](crate::Protocol::hand_over)), and its [`Running::wait`](super::Running::wait) returns. Who connects meanwhile is served by the one or
    /// the other. If this one ends before it serves, with an error or otherwise, the other one serves on as if nothing had been; if the
    /// other one ends before, this one goes on with the sockets. A process that is not of this user, speaks another version, or
    /// is no such process, is an error of `start`, and nothing is bound then.
    ///
    /// Each socket of the other process has a queue of its own, and gets a worker here, whatever the numbers of workers: of
    /// fewer workers some have several, of more some share one, so their number stays that of the process that has bound the
    /// address. Sockets that its tasks have opened are not handed over, nor those of [`own_ports`](Self::own_ports) on port 0. What is inherited by
    /// connections is set as here; backlog, `defer_accept` and permissions stay as they were. An address that
    /// is not listened at here is closed by the other process as in any drain. [`share_port`](Self::share_port) is not needed.
    ///
    /// With [`sd_notify`](Self::sd_notify) the manager hears `RELOADING=1` when one that follows has come and `READY=1` when that is over, with
    /// `MAINPID=` if it serves; then this one says nothing more. The one that follows knows the manager and its watchdog by this
    /// one where its own environment names none.
    ///
    /// It costs a thread that sleeps (two, where it has followed another and that one lives), five descriptors, and one for each socket: whoever has
    /// used up the others is followed all the same. A runtime that stands [beside](Self::beside) this one hands over its
    /// sockets with it; it is started when all workers are ready where there is a process to take over from. It drains with this one if the other
    /// process serves where it did, whatever the workers do, and else ends as ever.
    #[must_use]
    pub fn handover(mut self, handover: Handover) -> Self {
        self.handover = Some(handover);
        self
    }

    /// Whether [`handover`](Self::handover) is set.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.handover.is_some() || self.family.succession.is_some()
    }

    /// Sockets that somebody else has opened, such as a service manager ([`listen_fds`](crate::listen_fds)): a [`listen`](Self::listen) or
    /// [`bind_udp`](Self::bind_udp) whose address one of them has is served at that one instead of binding. For programs whose addresses are
    /// settings, and that may be started with sockets or without; what holds for such sockets is said at
    /// [`listen_on`](Self::listen_on).
    ///
    /// One that nobody listens at is an error of [`start`](Self::start): whoever connects there would wait for ever. So is a descriptor of
    /// another kind.
    #[must_use]
    pub fn inherit(mut self, sockets: impl IntoIterator<Item = ListenFd>) -> Self {
        self.inherited.extend(sockets);
        self
    }

    /// How long the runtime serves on behind the first stop signal, or [`Running::stop`], before it drains. Default zero: it drains at
    /// once. Meanwhile it takes in newcomers and answers as ever, but is not ready ([`Readiness`](crate::Readiness)), so that load balancers
    /// find out and send no more: give it two periods of their probes, or as long as it takes until all of them have heard of an endpoint
    /// that is going.
    ///
    /// A second stop signal has the drain begin, and a third ends the process. So does [`Handle::drain`](crate::Handle::drain) at any time, and a
    /// worker that ends by itself. The thread in [`Running::wait`] or `stop` waits for that; workers do not notice.
    #[must_use]
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
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

    /// This one does not stop, whichever others do: for who has something else to do with it.
    #[must_use]
    pub fn without_stop_signal(mut self, signal: StopSignal) -> Self {
        self.stop_signals.retain(|other| *other != signal);
        self
    }

    /// Settings of all UDP sockets. Default [`UdpOptions::default`].
    #[must_use]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.udp_options = options;
        self
    }

    /// Starts the workers and returns when all of them are ready: they serve together, or none does.
    ///
    /// # Errors
    /// What a function given to [`try_listen`](Self::try_listen), [`try_state`](Self::try_state),
    /// [`on_thread_start`](Self::on_thread_start) or [`on_start`](Self::on_start) returned on any worker, or that one of these or of
    /// their like panicked there; the error names the worker and the cause, and is of the cause's kind. One of these functions that is
    /// still running a second later is not waited for: what it returns is dropped.
    ///
    /// A setting that contradicts itself or cannot be meant (`InvalidInput`), which the error names; a port that is taken (`AddrInUse`)
    /// or may not be used, no file descriptors or threads left, kernel busy polling on a kernel without it; signal handlers that another
    /// runtime of this process has installed; a value of `NETPOLL_BACKEND` that names no [`Backend`] (`InvalidInput`), one that this build
    /// lacks, or a wait strategy that it lacks (`Unsupported`).
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

    pub(super) fn check(&self) -> io::Result<()> {
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
            ("defer_accept", self.defer_accept.is_some_and(|time| time.is_zero())),
            ("long_turn", self.long_turn.is_zero()),
            ("stuck_turn", self.stuck_turn.is_zero()),
            ("blocking_threads", self.blocking_threads == 0),
            ("blocking_jobs_max", self.blocking_jobs_max == 0),
        ];
        if self.backlog <= 0 {
            return invalid("backlog is not above zero");
        }
        if let Some((name, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
            return invalid(&format!("{name} is zero"));
        }
        match self.socket_mode {
            // 660 is 0o1224: whoever has forgotten the `0o` hears of it.
            Some(mode) if mode > 0o777 => {
                return invalid(&format!("socket_mode is {mode:#o}, and permissions are at most 0o777"));
            }
            Some(mode) if mode & 0o222 == 0 => {
                return invalid(&format!("socket_mode is {mode:#o}, with which nobody may connect"));
            }
            _ => {}
        }
        let complaint = inherited_options(self).complaint().or(self.udp_options.complaint());
        if let Some(complaint) = complaint {
            return invalid(complaint);
        }
        match self.wait {
            WaitStrategy::Spin(time) if time > SPIN_MAX => invalid("a spin is at most 10 µs"),
            WaitStrategy::KernelBusyPoll { usecs: 0, .. } => invalid("usecs of KernelBusyPoll is zero"),
            WaitStrategy::KernelBusyPoll { budget: 0, .. } => invalid("budget of KernelBusyPoll is zero"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Runtime;
    use super::StopSignal::{HangUp, Interrupt, Terminate};

    #[test]
    fn a_signal_that_is_left_out_leaves_the_others_as_they_were_chosen() {
        assert_eq!(Runtime::builder().without_stop_signal(HangUp).stop_signals, [Interrupt, Terminate]);
        let builder = Runtime::builder().stop_signals([Terminate, HangUp]).without_stop_signal(HangUp);
        assert_eq!(builder.stop_signals, [Terminate]);
    }
}
