//! What other threads may ask of a running runtime.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::mail::{Letter, by_worker};
use super::{
    ConnId, ConnectOptions, DatagramId, Dial, DialNames, LastLongTurn, Life, Local, LongTurn, Message, Order,
    OwnSuccession, Packet, Protocol, Readiness, Stage, Target, Template,
};
use crate::clockwork::{ClockReader, Instant};
use crate::mem::{DatagramPath, Guarded};
use crate::reactor::{Budget, Published, Sender, Stats, WaitStrategy};
use crate::sys::{self, Address};
use crate::task::{self, RemoteHandle};

/// A way to a running runtime from any thread. Cheap to clone; outliving the runtime is harmless: what it asks for then
/// is dropped.
///
/// What it asks for goes into the mailbox of a worker, which has no limit: one allocation now and then, and one system
/// call if that worker sleeps. What one thread asks of one worker arrives in order. A [`ConnId`] means something
/// only to the runtime that it came from.
///
/// # Panics
/// Every method panics in a process that was forked off the one that started the runtime: the workers
/// did not come along, so nothing would ever answer. Fork first, then start.
#[derive(Clone)]
pub struct Handle {
    pub(crate) workers: Arc<[Sender<Letter>]>,
    pub(crate) published: Arc<[Arc<Published>]>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) draining: Arc<AtomicBool>,
    /// Workers that have something left, in a drain.
    pub(crate) undrained: Arc<AtomicUsize>,
    pub(crate) clock: ClockReader,
    pub(crate) names: DialNames,
    pub(crate) long_turns: Arc<[LastLongTurn]>,
    pub(crate) life: Arc<Life>,
    /// What it keeps for the process that follows.
    pub(crate) succession: Option<OwnSuccession>,
}

/// What became of the settings on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setup {
    /// The driver that all workers run on ([`Backend`](crate::Backend)): `epoll` or `mio`, or `sim` in a simulated world.
    pub backend: &'static str,
    /// For each worker the CPU that it was to be pinned to, if any. A kernel that refuses leaves the worker unpinned.
    pub cpus: Vec<Option<usize>>,
    /// How workers wait. A strategy that spins became [`WaitStrategy::Block`] where there is no CPU to spare.
    pub wait: WaitStrategy,
    /// How much one turn takes.
    pub budget: Budget,
    /// What all connections of one worker may hold, in bytes.
    pub memory_bytes_max: usize,
    /// A turn that lasts so long counts as stuck.
    pub stuck_turn: Duration,
    /// Where it listens, see [`Handle::local_addrs`].
    pub local_addrs: Vec<Address>,
    /// Where it receives datagrams, see [`Handle::udp_addrs`].
    pub udp_addrs: Vec<SocketAddr>,
}

impl Handle {
    pub(crate) fn check(&self) {
        sys::assert_not_forked();
    }

    #[track_caller]
    pub(super) fn worker(&self, worker: usize) -> &Sender<Letter> {
        self.check();
        &self.workers[worker]
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What became of the settings on this machine.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where it listens, in the order of the `listen` and `listen_on` calls, with the ports that the kernel chose. Known before the
    /// first function of a builder is called on a worker ([`WorkerInfo::handle`](crate::WorkerInfo::handle)). Empty in a simulated
    /// world, whose listeners have no address.
    #[must_use]
    pub fn local_addrs(&self) -> &[Address] {
        &self.setup.local_addrs
    }

    /// Where it receives datagrams, in the order of the `bind_udp` calls, with the ports that the kernel chose; of sockets with
    /// [`own_ports`](crate::Builder::own_ports) that of the first worker. Empty in a simulated world: see
    /// [`Sim::udp_addr`](crate::sim::Sim::udp_addr).
    #[must_use]
    pub fn udp_addrs(&self) -> &[SocketAddr] {
        &self.setup.udp_addrs
    }

    /// The counters of all workers, added up, each as of the last turn that is over. About fifty loads for each
    /// worker; the workers do not notice.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.check();
        let mut sum = Stats::default();
        for published in self.published.iter() {
            sum.merge(&published.load());
        }
        sum
    }

    /// The counters of one worker, as of its last turn that is over.
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn worker_stats(&self, worker: usize) -> Stats {
        self.check();
        self.published[worker].load()
    }

    /// For how long a worker has been working in its present turn, in which it serves nobody else; `None` while it waits for something
    /// to do. Seconds mean that a callback or a task blocks or computes without end: see
    /// [`Builder::stuck_turn`](crate::Builder::stuck_turn). A load, and a reading of the clock.
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn turn_age(&self, worker: usize) -> Option<Duration> {
        self.check();
        let since = self.published[worker].working_since()?;
        Some(self.now().duration_since(since))
    }

    /// The workers whose present turn has lasted for [`Setup::stuck_turn`] or longer, and for how long.
    #[must_use]
    pub fn stuck(&self) -> Vec<(usize, Duration)> {
        let ages = (0..self.workers()).filter_map(|worker| Some((worker, self.turn_age(worker)?)));
        ages.filter(|(_, age)| *age >= self.setup.stuck_turn).collect()
    }

    /// The last turn of a worker that took long, of those that [`Stats::long_turns`] counts, and what took the most of it.
    ///
    /// A worker that is never long spends no time on the question: so the first long turn has no name, and those within a minute
    /// behind it have one. For that time each call costs a reading of the clock (25 ns).
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn last_long_turn(&self, worker: usize) -> Option<LongTurn> {
        self.check();
        self.long_turns[worker].get()
    }

    /// Queues bytes on a connection, backed up or not. Nothing happens if it is gone; if it is behind by more than
    /// [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max) it is reset.
    ///
    /// `Bytes` are those of the crate `bytes` ([`netpoll_core::Bytes`](crate::Bytes)). Above 4 KiB they are shared, not copied.
    pub fn send(&self, to: ConnId, bytes: Bytes) {
        self.post(to, Letter::Send { to: to.key, bytes: Guarded::new(bytes) });
    }

    /// Queues the same bytes on many connections, as [`send`](Self::send) does on one: one message for each worker, however
    /// many of its connections are among them. A worker sends to 256 in a turn, in the order of `to`, and what was asked of it
    /// later waits until all have got theirs.
    pub fn send_many(&self, to: impl IntoIterator<Item = ConnId>, bytes: Bytes) {
        self.check();
        for (worker, to) in by_worker(to, self.workers.len()).into_iter().enumerate() {
            if !to.is_empty() {
                self.workers[worker].send(Letter::SendMany { to, bytes: Guarded::new(bytes.clone()) });
            }
        }
    }

    /// Hands a value to the protocol of a connection, which gets it in [`Protocol::told`]. Nothing happens if the connection
    /// is gone, or not open yet: the value is dropped.
    ///
    /// ```
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::{Conn, ConnId, Flow, Input, Message, Protocol};
    ///
    /// struct Price(u64);
    /// struct Ticker;
    ///
    /// impl Protocol for Ticker {
    ///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         let (id, handle) = (conn.id(), conn.local().handle().clone());
    ///         std::thread::spawn(move || handle.tell(id, Price(7))).join().expect("a price");
    ///         Flow::Continue
    ///     }
    ///
    ///     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    ///
    ///     fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
    ///         if let Ok(Price(price)) = message.downcast() {
    ///             conn.send(format!("{price}\n").as_bytes());
    ///         }
    ///         Flow::Continue
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(Options::default());
    /// let listener = sim.listen(|_peer| Ticker);
    /// let peer = sim.connect(listener);
    /// sim.settle();
    /// assert_eq!(sim.take_received(peer), b"7\n");
    /// ```
    pub fn tell<T: Any + Send>(&self, to: ConnId, value: T) {
        self.post(to, Letter::Tell { to: to.key, message: Message::new(value) });
    }

    /// Hands a copy of a value to each of many connections, as [`tell`](Self::tell) does to one: one message for each worker, however many of its
    /// connections are among them. A worker tells 256 in a turn, in the order of `to`, and what was asked of it later waits until all have been told.
    ///
    /// # Panics
    /// If a copy for a worker does. One for a connection is made on its worker: if that panics, it is counted, and the connection is not told.
    pub fn tell_many<T: Any + Send + Clone>(&self, to: impl IntoIterator<Item = ConnId>, value: T) {
        self.tell_all_of(to, || Some(Box::new(Guarded::new(value.clone()))));
    }

    /// One letter for each worker, of one template each.
    pub(crate) fn tell_all_of(
        &self,
        to: impl IntoIterator<Item = ConnId>,
        template: impl Fn() -> Option<Box<dyn Template>>,
    ) {
        self.check();
        for (worker, to) in by_worker(to, self.workers.len()).into_iter().enumerate() {
            if !to.is_empty()
                && let Some(template) = template()
            {
                self.workers[worker].send(Letter::TellMany { to, template });
            }
        }
    }

    /// Runs code on a worker, between the callbacks of its connections: what it does there to the worker's
    /// [state](Local::state) takes no lock. It runs in the worker's next turn, behind what was asked of it before.
    ///
    /// If it panics, that is counted and nothing else notices. If the worker has ended, it is dropped and does not run;
    /// so an answer is best awaited by a channel whose sender the code owns: it ends when the code is dropped, whether it ran or not. A
    /// connection that waits is answered by what the code owns, when that is dropped: see the
    /// [example on the first page](crate#one-worker-and-the-others).
    ///
    /// ```no_run
    /// # fn example(handle: &netpoll_core::Handle) {
    /// // Ask every worker for something, and add it up.
    /// let (answers, all) = std::sync::mpsc::channel();
    /// for worker in 0..handle.workers() {
    ///     let answers = answers.clone();
    ///     handle.run_on(worker, move |local| {
    ///         let length = local.state::<Vec<u64>>().len();
    ///         // The receiver may have gone: then nobody wants to know.
    ///         let _ = answers.send(length);
    ///     });
    /// }
    /// drop(answers);
    /// println!("{}", all.iter().sum::<usize>());
    /// # }
    /// ```
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn run_on(&self, worker: usize, code: impl FnOnce(&mut Local<'_>) + Send + 'static) {
        self.worker(worker).send(Letter::Run(Guarded::new(Box::new(code))));
    }

    /// Starts a task on a worker: `make` is called there, in the worker's next turn, and the future that it returns stays there, so
    /// neither has what is between two `await`s to be `Send`. What is returned waits for the result, on any thread.
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::task::yield_now;
    ///
    /// let mut sim = Sim::new(Options::default().workers(2));
    /// let task = sim.handle().spawn_on(1, || async {
    ///     let here = Rc::new(42);
    ///     yield_now().await;
    ///     *here
    /// });
    /// sim.run();
    /// assert_eq!(task.join().unwrap(), 42);
    /// ```
    ///
    /// If the worker has ended, `make` is dropped, and the handle says that the task was.
    ///
    /// # Panics
    /// If there is no such worker.
    #[track_caller]
    pub fn spawn_on<F>(
        &self,
        worker: usize,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let ((finish, handle), place) = (task::pair(), Location::caller());
        self.run_on(worker, move |local| {
            task::spawn_from_elsewhere(&local.cx.lane, make, finish, place);
        });
        handle
    }

    /// The time, on the clock of all workers: what [`Conn::now`](crate::Conn::now) of a turn that begins now would say. Reads
    /// the system's clock; in a simulation the time of that world.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// To the worker of a connection. A name from another runtime may have none here.
    pub(super) fn post(&self, id: ConnId, letter: Letter) {
        self.check();
        if let Some(worker) = self.workers.get(id.worker()) {
            worker.send(letter);
        }
    }

    /// Closes a connection after what it has queued is sent, as [`Commands::close`](crate::Commands::close) does: it lingers.
    /// Nothing happens if it is gone.
    pub fn close(&self, id: ConnId) {
        self.order(id, Order::Close);
    }

    /// Ends our direction of a connection behind what it has queued, as [`Conn::finish`](crate::Conn::finish) does.
    /// Nothing happens if it is gone.
    pub fn finish(&self, id: ConnId) {
        self.order(id, Order::Finish);
    }

    /// Resets a connection; what it has queued is lost. Nothing happens if it is gone.
    pub fn reset(&self, id: ConnId) {
        self.order(id, Order::Reset);
    }

    fn order(&self, id: ConnId, order: Order) {
        self.post(id, Letter::Order { key: id.key, order });
    }

    /// Sends a datagram from a socket, to a peer's address or along the path of a datagram that came from it, as
    /// [`DatagramSocket::send`](crate::DatagramSocket::send) does. It is dropped if the socket is gone.
    pub fn send_datagram(&self, from: DatagramId, to: impl Into<DatagramPath>, bytes: Bytes) {
        self.check();
        if let Some(worker) = self.workers.get(from.worker()) {
            worker.send(Letter::SendDatagram { from: from.key, packet: Packet::new(to.into(), bytes) });
        }
    }

    /// Connects on a worker, as [`Commands::connect`](crate::Commands::connect) does. `protocol` sees `opened`, or `lost(ConnectFailed)`: with `NotConnected` if the
    /// worker ends first, or has no slot left for it. If it has ended already, `lost` comes at once, on this thread; a
    /// protocol that is handed over inside such a call is dropped without one.
    ///
    /// The name is that of the connection from now on, whether it is open or not: see
    /// [`Commands::connect`](crate::Commands::connect).
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn connect<P: Protocol + Send>(
        &self,
        worker: usize,
        to: impl Into<Target>,
        options: ConnectOptions,
        protocol: P,
    ) -> ConnId {
        let sender = self.worker(worker);
        let name = self.names.next();
        sender.send(Letter::Connect(Box::new(Dial::new(name, to.into(), options, protocol))));
        // There are as many workers as a `u16` counts, at most.
        ConnId { worker: worker as u16, key: name }
    }

    /// Whether this runtime wants to be sent work, for who answers load balancers.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(Arc::clone(&self.life))
    }

    /// Whether a drain has begun, on the workers that have heard of it so far. For what takes long and can end early: a
    /// stream of events, a handler that waits. Protocols are told by [`Protocol::stopping`], which is called behind this
    /// change.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether another process serves in place of this one ([`Builder::handover`](crate::Builder::handover)), which drains then.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.succession.as_ref().is_some_and(|succession| succession.shared.is_handed_over())
    }

    /// Begins a graceful drain: listeners close after taking in who waits there, protocols are told
    /// ([`Protocol::stopping`]), dials go on, and what is still open or connecting after this time is reset. Peers that are idle and do not
    /// close themselves take three seconds of it by default: the grace
    /// ([`ConnLimits::drain_grace`](crate::ConnLimits::drain_grace), 1 s) and the silence of a lingering close
    /// ([`linger_silence_max`](crate::ConnLimits::linger_silence_max), 2 s). Returns at once. Under a drain that has begun already, a shorter time
    /// shortens it, and a longer one changes nothing.
    ///
    /// It is not ready from here on ([`readiness`](Self::readiness)), and there is no [`lame_duck`](crate::Builder::lame_duck) time. Who
    /// stops by itself and wants one says `readiness().set_ready(false)` first, and drains so much later.
    pub fn drain(&self, within: Duration) {
        self.check();
        self.life.reach(Stage::Draining);
        if let Some(succession) = &self.succession {
            succession.let_go();
        }
        for worker in self.workers.iter() {
            worker.send(Letter::Stop { within });
        }
    }
}
