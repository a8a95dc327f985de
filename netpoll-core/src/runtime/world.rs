//! Whole workers on a simulated network, in one thread and without a socket.
//!
//! The code under test is the real one, from the driver contract up: turn, budget, deadlines, back-pressure,
//! callbacks, letters. Network and clock belong to the test, and a seed repeats every run to the byte.

mod datagrams;
mod options;
mod peers;
mod seat;
mod time;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::builder::STUCK_TURN;
use super::programs::WorkerInfo;
use super::worker::Worker;
use crate::blocking::{Limits, Pool};
use crate::clockwork::{Clock, Instant};
use crate::conn::{
    Addresses, Attempts, Commands, Context, DialNames, Dialed, Forwards, Handle, LastLongTurn, Letter, Life,
    Local, Lookups, OwnStates, Peer, Protocol, Reach, Resolve, Setup, Stage, UdpOptions, Wakes, no_address,
};
use crate::driver::{Random, SimDriver, SimNet};
use crate::mem::{self, Key};
use crate::net::{Stream, accept_in_tasks};
use crate::reactor::{Agenda, Mailbox, Published, Reactor, Sender, Stats, WaitStrategy};
use crate::signal::{Hub, SignalKind};
use crate::sys::Address;
use crate::task::{Deliver, OwnLane};
use seat::{Seat, SimBell};

pub use datagrams::UdpId;
pub use options::Options;

/// Names a listener of a simulated world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerId(usize);

/// Names the far end of a connection in a simulated world.
///
/// It belongs to the [`Sim`] that it came from; another one may panic over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(usize);

/// Workers, their network and their clock.
///
/// ```
/// use netpoll_core::sim::{Options, Sim};
/// # use netpoll_core::{Conn, Flow, Input, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #         conn.send(input.bytes());
/// #         input.advance_all();
/// #         Flow::Continue
/// #     }
/// # }
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(|_peer| Echo);
/// let peer = sim.connect(listener);
/// sim.send(peer, b"ping");
/// sim.settle();
/// assert_eq!(sim.take_received(peer), b"ping");
/// ```
///
/// [`run`](Self::run) lets everything happen that takes no time, [`settle`](Self::settle) what is under way as well, and
/// [`advance`](Self::advance) lets time pass. A worker that sleeps is woken by an event, a deadline or its doorbell only,
/// so that a wake-up that is lost is seen; [`Stats::wakeups_sent`] counts the rings.
pub struct Sim {
    seats: Vec<Seat>,
    net: SimNet,
    handle: Handle,
    /// The keys of each listener, one for each worker.
    listeners: Vec<Vec<Key>>,
    /// The sockets of each `bind_udp` in the network, one for each worker.
    udp: Vec<Vec<usize>>,
    udp_options: UdpOptions,
    names: Names,
    /// What blocks; it has no threads.
    blocking: Pool,
    signals: Hub,
    seed: u64,
    /// Chooses workers.
    random: Random,
    /// Of all workers, in [`run`](Self::run).
    turns: usize,
}

/// What names stand for in this world.
type Names = Rc<RefCell<HashMap<String, Vec<IpAddr>>>>;

/// Looks names up in it; the answer comes by mail, as from another thread.
struct Asker {
    names: Names,
    worker: Sender<Letter>,
}

impl Resolve for Asker {
    fn look_up(&self, key: Key, name: String, port: u16) {
        let names = self.names.borrow();
        let found = names.get(&name).filter(|ips| !ips.is_empty());
        let found = found.map(|ips| ips.iter().map(|ip| Address::from((*ip, port))).collect());
        let found = found.ok_or_else(|| no_address(io::ErrorKind::NotFound, &name, &"it is not set"));
        self.worker.send(Letter::Found { key, found });
    }

    /// It was answered at once.
    fn forget(&self, _key: Key) {}
}

impl Sim {
    /// A world without connections.
    ///
    /// # Panics
    /// With no worker, or more than 65 535.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let count = options.workers;
        assert!((1..=usize::from(u16::MAX)).contains(&count), "1 to 65535 workers, not {count}");
        let mut random = Random(options.seed);
        let net = SimNet::new(count, options.faults, random.fork().0);
        net.configure(options.latency.clone(), options.window);
        net.limit_datagrams(options.datagram_bytes_max);
        let bells: Vec<_> = (0..count).map(|_| SimBell::default()).collect();
        let mailboxes: Vec<_> = bells.iter().map(|bell| Mailbox::new(bell.clone())).collect();
        let wait = WaitStrategy::Block;
        let memory_bytes_max = options.limits.memory_bytes(count, None);
        let setup = Setup {
            backend: "sim",
            cpus: vec![None; count],
            wait,
            budget: options.budget.clone(),
            memory_bytes_max,
            stuck_turn: STUCK_TURN,
            local_addrs: Vec::new(),
            udp_addrs: Vec::new(),
        };
        let clock = Clock::manual(options.unix_seconds);
        let handle = Handle {
            workers: mailboxes.iter().map(Mailbox::sender).collect(),
            published: (0..count).map(|_| Arc::<Published>::default()).collect(),
            setup: Arc::new(setup),
            draining: Arc::default(),
            undrained: Arc::new(AtomicUsize::new(count)),
            clock: clock.reader(),
            names: DialNames::default(),
            long_turns: (0..count).map(|_| LastLongTurn::default()).collect(),
            life: Arc::new(Life::new()),
            succession: None,
        };
        handle.life.reach(Stage::Serving);
        let names = Names::default();
        let signals = Hub::default();
        let jobs_max = options.blocking_jobs_max;
        let blocking = Pool::new(Limits { name: "the world", threads_max: 0, jobs_max });
        let seats = mailboxes.into_iter().zip(bells).enumerate().map(|(index, (mailbox, bell))| {
            let driver = SimDriver::new(net.clone(), index, Arc::clone(&bell.0), random.fork());
            let wakes: Arc<dyn Deliver> = Arc::new(Wakes(mailbox.sender()));
            let states = OwnStates::default();
            let commands = Commands::new(index as u16, &handle, &states.0);
            let reach = Reach::new(&commands, &handle);
            let home = reach.home(index as u16, &states.0);
            let context = Context {
                agenda: Agenda::new(clock.clone(), usize::MAX, Duration::MAX, memory_bytes_max),
                commands,
                limits: options.limits,
                addresses: Addresses::new(options.limits.connections_per_address_max),
                dialed: Dialed::default(),
                forwards: Forwards::default(),
                above: std::collections::HashMap::new(),
                facts: Vec::new(),
                worker: index as u16,
                stopping: false,
                drain_ends: Instant::ZERO,
                draining: Arc::clone(&handle.draining),
                lane: OwnLane::new(clock.reader(), Arc::clone(&wakes), home),
                reach,
                wakes,
                handle: handle.clone(),
                states,
                cause: None,
                attempts: Attempts::default(),
                resolver: Rc::new(Asker { names: Rc::clone(&names), worker: mailbox.sender() }),
                lookups: Lookups::default(),
            };
            let published = Arc::clone(&handle.published[index]);
            let reactor = Reactor::new(driver, mailbox, options.budget.clone(), wait, published);
            let worker = Worker::new(context, None);
            worker.cx.lane.keep(Rc::new(blocking.clone()));
            worker.cx.lane.keep(Rc::new(signals.clone()));
            Seat { reactor, worker, bell, halfway: None, last_turns: 0 }
        });
        let seats = seats.collect();
        Self {
            seats,
            net,
            handle,
            listeners: Vec::new(),
            udp: Vec::new(),
            udp_options: options.udp,
            names,
            blocking,
            signals,
            seed: options.seed,
            random,
            turns: 0,
        }
    }

    /// A listener whose peers get a protocol from `accept`, whichever worker accepts them.
    pub fn listen<P: Protocol>(&mut self, accept: impl FnMut(Peer) -> P + 'static) -> ListenerId {
        let accept = Rc::new(RefCell::new(accept));
        self.listen_each(|_worker| {
            let accept = Rc::clone(&accept);
            move |peer| (accept.borrow_mut())(peer)
        })
    }

    /// A listener each of whose peers gets a task, as [`Builder::listen_tasks`](crate::Builder::listen_tasks) has it.
    pub fn listen_tasks<F, T>(&mut self, serve: F) -> ListenerId
    where
        F: Fn(Stream, Peer) -> T + Clone + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.listen_each(|_worker| accept_in_tasks(serve.clone()))
    }

    /// A listener on every worker, each with an accept function of its own, as [`Builder::listen`](crate::Builder::listen)
    /// makes them.
    pub fn listen_each<P, A>(&mut self, mut make: impl FnMut(&WorkerInfo) -> A) -> ListenerId
    where
        P: Protocol,
        A: FnMut(Peer) -> P + 'static,
    {
        let infos = (0..self.seats.len()).map(|worker| self.info(worker)).collect::<Vec<_>>();
        let keys = self.seats.iter_mut().zip(&infos).map(|(seat, info)| {
            let _inside = seat.worker.cx.lane.visit();
            let key = seat.worker.listeners.add(make(info));
            seat.reactor.driver().listen(key);
            key
        });
        self.listeners.push(keys.collect());
        ListenerId(self.listeners.len() - 1)
    }

    /// Gives every worker a value of its own, as [`Builder::state`](crate::Builder::state) does. Before the listeners that use
    /// it.
    ///
    /// # Panics
    /// If the workers have a state of this type already.
    pub fn state<S: 'static>(&mut self, mut make: impl FnMut(&WorkerInfo) -> S) {
        for worker in 0..self.seats.len() {
            let info = self.info(worker);
            let _inside = self.seats[worker].worker.cx.lane.visit();
            let value = make(&info);
            info.states.add(value);
        }
    }

    /// The state of this type of a worker: what a test wants to look at, or to change.
    ///
    /// # Panics
    /// If the worker has none, or there is no such worker.
    #[must_use]
    #[track_caller]
    pub fn state_of<S: 'static>(&self, worker: usize) -> Rc<S> {
        self.seats[worker].worker.cx.states.0.get()
    }

    /// A timer on every worker, as [`Builder::every`](crate::Builder::every) starts them. It counts from now.
    ///
    /// # Panics
    /// If the period is zero.
    #[track_caller]
    pub fn every<T>(&mut self, period: Duration, mut make: impl FnMut(&WorkerInfo) -> T)
    where
        T: FnMut(&mut Local<'_>) + 'static,
    {
        for worker in 0..self.seats.len() {
            let call = {
                let _inside = self.seats[worker].worker.cx.lane.visit();
                make(&self.info(worker))
            };
            self.commands_of(worker).every(period, call);
        }
    }

    /// Lets callbacks' commands be given from outside, such as an outgoing connection. The first worker carries them out.
    pub fn commands(&mut self) -> &mut Commands {
        self.commands_of(0)
    }

    /// The same for any worker.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn commands_of(&mut self, worker: usize) -> &mut Commands {
        &mut self.seats[worker].worker.cx.commands
    }

    /// The counters of all workers, added up, as of the last turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// A way to the workers, as protocols get it. Its letters arrive in one of the next turns.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// [`Options::seed`], which decides what happens here.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the first worker is told about itself.
    #[must_use]
    pub fn worker_info(&self) -> WorkerInfo {
        self.info(0)
    }

    fn info(&self, index: usize) -> WorkerInfo {
        WorkerInfo {
            index,
            workers: self.seats.len(),
            cpu: None,
            handle: self.handle.clone(),
            states: self.seats[index].worker.cx.states.0.clone(),
        }
    }

    /// The world gets a signal: those of its tasks hear of it that listen to it ([`signal::on`](crate::signal::on)).
    pub fn signal(&mut self, kind: SignalKind) {
        self.signals.came(kind);
    }

    /// Connections open now, on all workers.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seats.iter().map(|seat| seat.worker.tables.len()).sum()
    }

    /// Tasks that have not ended, on all workers.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.seats.iter().map(|seat| seat.worker.cx.lane.executor().len()).sum()
    }

    /// Where they were spawned, on one worker after the other, and on each those that a drain waits for in front of daemons: for a test that
    /// wants none to be left.
    #[must_use]
    pub fn task_places(&self) -> Vec<&'static Location<'static>> {
        self.seats.iter().flat_map(|seat| seat.worker.cx.lane.executor().places()).collect()
    }

    /// Begins a graceful drain; what is still open after this time is reset.
    pub fn begin_drain(&mut self, within: Duration) {
        self.handle.drain(within);
    }

    /// The drain is over: every listener and connection is gone.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.seats.iter().all(|seat| seat.is_finished())
    }

    /// Buffers that connections hold now, in blocks: zero when all of them are idle.
    #[must_use]
    pub fn blocks_in_use(&self) -> u64 {
        self.seats.iter().map(|seat| seat.worker.cx.agenda.pool.blocks_in_use()).sum()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for seat in &mut self.seats {
            seat.worker.end(seat.reactor.driver_io());
            seat.reactor.publish(&mut seat.worker);
        }
        self.blocking.close();
        // What is left of the program goes here, so that a destructor that panics counts in this world and not in the next one on this
        // thread. A handle that outlives the world tells.
        self.seats.clear();
        if let Some(first) = self.handle.published.first() {
            first.count_panics(mem::take_panics());
        }
    }
}
