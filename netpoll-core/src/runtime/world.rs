//! A whole worker on a simulated network, in one thread and without a socket.
//!
//! The code under test is the real one, from the driver contract up: turn, budget, deadlines, back-pressure,
//! callbacks. Network and clock belong to the test, and a seed repeats every run to the byte.

use std::sync::Arc;
use std::time::Duration;

use super::builder::WorkerInfo;
use super::handle::{Handle, Setup};
use super::worker::{Letter, Silent, Wakes, Worker};
use crate::conn::{Addresses, Commands, ConnLimits, Context, Peer, Protocol};
use crate::driver::{Faults, SimDriver, SimNet};
use crate::mem::{self, Key};
use crate::reactor::{Agenda, Budget, Host, Mailbox, Published, Reactor, Stats, WaitStrategy};
use crate::time::{Clock, Instant};

/// How a simulated world is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Decides everything that is left to chance. Default 0.
    pub seed: u64,
    /// How often the network misbehaves. Default never.
    pub faults: Faults,
    /// The poll budget. Default as in a real runtime.
    pub budget: Budget,
    /// Bounds on each connection. Default as in a real runtime.
    pub limits: ConnLimits,
    /// Wall-clock time at the start, in seconds since 1970. Default 784111777, RFC 9110's example date.
    pub unix_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            faults: Faults::none(),
            budget: Budget::default(),
            limits: ConnLimits::default(),
            unix_seconds: 784_111_777,
        }
    }
}

/// Names a listener of a simulated world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerId(Key);

/// Names the far end of a connection in a simulated world.
///
/// It belongs to the [`Sim`] that it came from; another one may panic over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(usize);

/// A worker, its network and its clock.
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
/// sim.run();
/// assert_eq!(sim.take_received(peer), b"ping");
/// ```
pub struct Sim {
    reactor: Reactor<SimDriver, Letter>,
    worker: Worker,
    net: SimNet,
    handle: Handle,
}

/// Turns after which a world that does not come to rest is declared to hang.
const TURNS_MAX: usize = 1_000_000;
/// Turns without an event after which a world is at rest: faults may delay an event for a while.
const QUIET_TURNS: usize = 64;

impl Sim {
    /// A world without connections.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let net = SimNet::new(options.faults);
        let mailbox = Mailbox::new(Silent);
        let sender = mailbox.sender();
        let published = Arc::new(Published::default());
        let draining = Arc::default();
        let memory_bytes_max = options.limits.memory_bytes(1, None);
        let context = Context {
            agenda: Agenda::new(
                Clock::manual(options.unix_seconds),
                usize::MAX,
                Duration::MAX,
                memory_bytes_max,
            ),
            commands: Commands::default(),
            limits: options.limits,
            addresses: Addresses::new(options.limits.connections_per_address_max),
            worker: 0,
            stopping: false,
            drain_ends: Instant::ZERO,
            draining: Arc::clone(&draining),
            wakes: Arc::new(Wakes(sender.clone())),
        };
        let driver = SimDriver::new(net.clone(), options.seed);
        let wait = WaitStrategy::Block;
        let setup = Setup {
            backend: "sim",
            cpus: vec![None],
            wait,
            budget: options.budget.clone(),
            memory_bytes_max,
        };
        let handle = Handle {
            workers: [sender.clone()].into(),
            published: [Arc::clone(&published)].into(),
            setup: Arc::new(setup),
            draining,
        };
        Self {
            reactor: Reactor::new(driver, mailbox, options.budget, wait, Arc::clone(&published)),
            worker: Worker::new(context, vec![sender]),
            net,
            handle,
        }
    }

    /// A listener whose peers get a protocol from `accept`.
    pub fn listen<P: Protocol>(&mut self, accept: impl FnMut(Peer) -> P + 'static) -> ListenerId {
        let key = self.worker.listeners.add(accept);
        self.reactor.driver().listen(key);
        ListenerId(key)
    }

    /// A peer connects. It is accepted in one of the next turns.
    pub fn connect(&mut self, listener: ListenerId) -> PeerId {
        PeerId(self.net.connect(listener.0))
    }

    /// Lets callbacks' commands be given from outside, such as an outgoing connection.
    pub fn commands(&mut self) -> &mut Commands {
        &mut self.worker.cx.commands
    }

    /// The far ends of outgoing connections made since the last call, with the addresses they went to.
    pub fn take_dialed(&mut self) -> Vec<(PeerId, std::net::SocketAddr)> {
        self.net.take_dialed().into_iter().map(|(link, addr)| (PeerId(link), addr)).collect()
    }

    /// Whether outgoing connections are refused from now on.
    pub fn refuse_connections(&mut self, refuse: bool) {
        self.net.refuse(refuse);
    }

    /// The peer sends.
    pub fn send(&mut self, peer: PeerId, bytes: &[u8]) {
        self.net.send(peer.0, bytes);
    }

    /// The peer ends its direction (FIN).
    pub fn finish(&mut self, peer: PeerId) {
        self.net.finish(peer.0);
    }

    /// The peer resets the connection.
    pub fn reset(&mut self, peer: PeerId) {
        self.net.reset(peer.0);
    }

    /// The peer stops reading: its socket buffer takes 64 KiB more, then nothing.
    pub fn stop_reading(&mut self, peer: PeerId) {
        self.net.read(peer.0, false);
    }

    /// The peer reads again.
    pub fn start_reading(&mut self, peer: PeerId) {
        self.net.read(peer.0, true);
    }

    /// What the peer has received since the last call.
    pub fn take_received(&mut self, peer: PeerId) -> Vec<u8> {
        self.net.link(peer.0, |link| std::mem::take(&mut link.received))
    }

    /// Appends what the peer has received to `into`, which allocates less than [`take_received`](Self::take_received).
    pub fn drain_received(&mut self, peer: PeerId, into: &mut Vec<u8>) {
        self.net.link(peer.0, |link| into.append(&mut link.received));
    }

    /// The peer sees the end of our direction, or a reset.
    #[must_use]
    pub fn is_closed(&self, peer: PeerId) -> bool {
        self.net.link(peer.0, |link| link.is_closed())
    }

    /// The peer sees a reset.
    #[must_use]
    pub fn is_reset(&self, peer: PeerId) -> bool {
        self.net.link(peer.0, |link| link.is_reset())
    }

    /// One turn of the loop. How much it did: events, letters, timers, resumed connections.
    ///
    /// # Panics
    /// If an invariant of the loop is broken.
    pub fn turn(&mut self) -> usize {
        self.worker.begin(self.reactor.driver_io());
        self.reactor.turn(&mut self.worker, false).expect("a simulated wait does not fail")
    }

    /// Turns until nothing happens any more.
    ///
    /// # Panics
    /// If it does not come to rest within a million turns.
    pub fn run(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            quiet = if self.turn() == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET_TURNS || (quiet == 2 && self.net.is_perfect()) {
                return;
            }
        }
        panic!("the world did not come to rest in {TURNS_MAX} turns");
    }

    /// Lets time pass, deadline by deadline, and everything happen that follows.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn advance(&mut self, time: Duration) {
        self.run();
        let end = self.now().saturating_add(time);
        while let Some(next) = self.worker.cx.agenda.timers.next_deadline().filter(|next| *next <= end) {
            let step = next.duration_since(self.now());
            self.worker.cx.agenda.clock.advance(step);
            self.run();
            if step.is_zero() && self.worker.cx.agenda.timers.next_deadline() == Some(next) {
                // Due now but rounded up to the next tick of the wheel.
                self.worker.cx.agenda.clock.advance(Duration::from_millis(1));
            }
        }
        let rest = end.duration_since(self.now());
        self.worker.cx.agenda.clock.advance(rest);
        self.run();
    }

    /// The time in this world.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.worker.cx.agenda.clock.now()
    }

    /// The counters, as of the last turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// A way to the worker, as protocols get it. Its letters arrive in the next turn.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the only worker is told about itself.
    #[must_use]
    pub fn worker_info(&self) -> WorkerInfo {
        WorkerInfo { index: 0, workers: 1, cpu: None, handle: self.handle.clone() }
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.worker.tables.len()
    }

    /// Begins a graceful drain; what is still open after this time is reset.
    pub fn begin_drain(&mut self, within: Duration) {
        self.worker.workers[0].send(Letter::Stop { within });
    }

    /// The drain is over: every listener and connection is gone.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Buffers that connections hold now, in blocks: zero when all of them are idle.
    #[must_use]
    pub fn blocks_in_use(&self) -> u64 {
        let counts = self.worker.cx.agenda.pool.counts();
        (counts.hits + counts.misses).saturating_sub(counts.returned + counts.dropped)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.worker.end(self.reactor.driver_io());
        // Of this world; the next one on this thread counts its own.
        mem::take_panics();
    }
}
