//! One worker's thread: it prepares, waits for the others, serves, and ends what is left.
//!
//! Nobody serves before all are ready. A worker that cannot start says so, whichever way it fails, and then finds its gate
//! closed like the others. Until it has left the code of the program it does not hold its sockets, so that a factory that
//! never returns keeps no port.
//!
//! Invariant: no panic leaves [`Seat::take`]. A forked child of this thread never gets out of it.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::backend::Choice;
use super::builder::Builder;
use super::listening::Socket;
use super::programs::WorkerInfo;
use super::resolver::Resolver;
use super::worker::{Drained, Worker};
use crate::blocking::Pool;
use crate::clockwork::{Clock, Instant};
use crate::conn::{
    Addresses, Attempts, Commands, Context, Dialed, Forwards, Handle, Letter, Lookups, OwnStates, Reach,
    Wakes,
};
use crate::driver::{DatagramSetup, Driver};
use crate::mem::{self, Guarded};
use crate::reactor::{Agenda, Mailbox, Reactor, WaitStrategy};
use crate::sys::{self, Doorbell};
use crate::task::{Deliver, Lane, OwnLane};

/// The listening sockets of one worker and those for datagrams, until it takes them or its start is given up.
#[derive(Clone)]
pub struct Sockets(Arc<Mutex<Option<Vec<Socket>>>>);

impl Sockets {
    pub fn new(sockets: Vec<Socket>) -> Self {
        Self(Arc::new(Mutex::new(Some(sockets))))
    }

    /// All of them; `None` if they were taken.
    pub fn take(&self) -> Option<Vec<Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How the starting thread and one worker hear of each other.
pub struct Door {
    /// Whether this worker is ready.
    pub ready: mpsc::Sender<(usize, io::Result<()>)>,
    /// Opens when all are, and breaks when the start has failed.
    pub gate: mpsc::Receiver<()>,
}

/// Everything that one worker thread starts with.
pub struct Seat {
    pub index: usize,
    /// The CPU to be pinned to.
    pub cpu: Option<usize>,
    pub handle: Handle,
    /// Dropped by whoever is last, with the program's functions in it.
    pub settings: Arc<Guarded<Builder>>,
    pub backend: Choice,
    pub wait: WaitStrategy,
    pub clock: Clock,
    pub mailbox: Mailbox<Letter>,
    pub bell: Arc<Doorbell>,
    pub sockets: Sockets,
    pub resolver: Resolver,
    pub blocking: Pool,
}

impl Seat {
    /// Pins, then allocates, then serves until the drain is over.
    pub fn take(self, door: &Door) -> io::Result<Drained> {
        self.take_with(door, |_lane| {})
    }

    /// The same; `begin` is called when all workers are ready, before the first turn. The only place that names a driver.
    pub fn take_with(self, door: &Door, begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        match self.backend {
            Choice::Epoll(epoll) => epoll.take(self, door, begin),
            Choice::Mio(mio) => mio.take(self, door, begin),
            #[cfg(feature = "uring")]
            Choice::Uring(ring) => ring.take(self, door, begin),
        }
    }

    /// On a driver that it makes, and a reactor that is compiled for it.
    pub(super) fn serve<D: Driver>(
        self,
        door: &Door,
        driver: impl FnOnce() -> io::Result<D>,
        begin: impl FnOnce(&Rc<Lane>),
    ) -> io::Result<Drained> {
        let index = self.index;
        let prepared = catch_unwind(AssertUnwindSafe(|| self.prepare(driver)));
        end_forked_child();
        let prepared = prepared
            .unwrap_or_else(|payload| Err(panicked(payload)))
            .map_err(|cause| WorkerError::of(index, "did not start", cause));
        let (mut reactor, mut worker) = match prepared {
            Ok(parts) => parts,
            Err(error) => {
                // Nobody hears it if another worker has failed first.
                let _ = door.ready.send((index, Err(error)));
                return Ok(Drained::default());
            }
        };
        let _ = door.ready.send((index, Ok(())));
        let mut outcome = Ok(Ok(()));
        if door.gate.recv().is_ok() {
            let _entered = worker.cx.lane.enter();
            outcome = catch_unwind(AssertUnwindSafe(|| {
                // Starting may have taken its time, and timers count from now.
                worker.cx.agenda.clock.refresh();
                begin(&worker.cx.lane);
                worker.begin(reactor.driver_io());
                reactor.run(&mut worker)
            }));
            end_forked_child();
        }
        // After a panic of our own the tables may be in no state to be ended.
        mem::guarded(|| worker.end(reactor.driver_io()));
        worker.leave();
        reactor.publish(&mut worker);
        worker.has_drained();
        let drained = std::mem::take(&mut worker.drained);
        match outcome {
            Ok(Ok(())) => Ok(drained),
            Ok(Err(error)) => Err(WorkerError::of(index, "ended", error)),
            Err(payload) => Err(WorkerError::of(index, "ended", panicked(payload))),
        }
    }

    fn prepare<D: Driver>(
        self,
        driver: impl FnOnce() -> io::Result<D>,
    ) -> io::Result<(Reactor<D, Letter>, Worker)> {
        if let Some(cpu) = self.cpu
            && let Err(error) = sys::pin_current_thread(cpu)
        {
            crate::log::pinning_failed(cpu, &error);
        }
        sys::watch_broken_pipe()?;
        let settings = &self.settings;
        let mut driver = driver()?;
        let published = Arc::clone(&self.handle.published[self.index]);
        let wakes: Arc<dyn Deliver> = Arc::new(Wakes(self.mailbox.sender()));
        let resolver = self.resolver.of(self.mailbox.sender());
        let states = OwnStates::default();
        let commands = Commands::new(self.index as u16, &self.handle, &states.0);
        let reach = Reach::new(&commands, &self.handle);
        let home = reach.home(self.index as u16, &states.0);
        let context = Context {
            agenda: Agenda::new(
                self.clock,
                settings.pool_bytes_max,
                settings.long_turn,
                self.handle.setup().memory_bytes_max,
            ),
            commands,
            limits: settings.limits,
            addresses: Addresses::new(settings.limits.connections_per_address_max),
            dialed: Dialed::default(),
            forwards: Forwards::default(),
            above: std::collections::HashMap::new(),
            facts: Vec::new(),
            worker: self.index as u16,
            stopping: false,
            drain_ends: Instant::ZERO,
            draining: Arc::clone(&self.handle.draining),
            lane: OwnLane::new(self.handle.clock.clone(), Arc::clone(&wakes), home),
            reach,
            wakes,
            handle: self.handle.clone(),
            states,
            cause: None,
            attempts: Attempts::default(),
            resolver,
            lookups: Lookups::default(),
        };
        let mut worker = Worker::new(context, driver.io().watcher());
        worker.cx.lane.keep(Rc::new(self.blocking));
        let _entered = worker.cx.lane.enter();
        let info = WorkerInfo {
            index: self.index,
            workers: self.handle.workers(),
            cpu: self.cpu,
            handle: self.handle,
            states: worker.cx.states.0.clone(),
        };
        for start in &settings.on_thread_start {
            start(&info)?;
        }
        for state in &settings.states {
            (state.make)(&info)?;
        }
        let mut reactor = Reactor::new(driver, self.mailbox, settings.budget.clone(), self.wait, published);
        let mut keys = Vec::with_capacity(settings.listeners.len());
        for listen in &settings.listeners {
            let key = (listen.add)(&info, &mut worker.listeners)?;
            if listen.is_reserved {
                worker.listeners.reserve(key);
            }
            keys.push(key);
        }
        let mut bound = Vec::with_capacity(settings.udp.len());
        for bind in &settings.udp {
            bound.push((bind.make)(&info)?);
        }
        for start in &settings.on_start {
            start(&info, &mut worker.cx.commands)?;
        }
        sys::assert_not_forked();
        // They are gone if the start was given up meanwhile.
        let mut bound: Vec<_> = bound.into_iter().map(Some).collect();
        let mut listens = vec![false; keys.len()];
        for Socket { fd, queue, of, number } in self.sockets.take().unwrap_or_default() {
            if let Some(first) = keys.get(of).copied() {
                // The second one of an address has its peers served as the first.
                let key = match std::mem::replace(&mut listens[of], true) {
                    false => first,
                    true => worker.listeners.add_another(first).expect("its first is there"),
                };
                worker.listeners.set_origin(key, of, number);
                reactor.driver().io().listen(key, fd, queue)?;
                continue;
            }
            let of = of - keys.len();
            let protocol = match bound[of].take() {
                Some(protocol) => protocol,
                None => (settings.udp[of].make)(&info)?,
            };
            let addr = sys::local_addr(fd.as_fd())?;
            let addr = addr.as_socket_addr().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let options = &settings.udp_options;
            let key = worker.sockets.add(addr, options, protocol).expect("fewer sockets than a slab holds");
            let setup = DatagramSetup { is_shared: queue.is_shared(), ..options.setup() };
            reactor.driver().io().bind(key, fd, &setup)?;
        }
        Ok((reactor, worker))
    }
}

/// A child that was forked in a callback, and came back from it, ends here: what it would drop is its parent's. Why was
/// said by the panic that ended its loop.
fn end_forked_child() {
    if sys::is_child() {
        sys::end_child();
    }
}

/// What a panic carried, as an error.
pub fn panicked(payload: Box<dyn Any + Send>) -> io::Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "without a text".to_owned(),
    };
    mem::discard_payload(payload);
    io::Error::other(format!("a panic: {text}"))
}

/// An error with the worker that it happened to.
pub struct WorkerError {
    worker: usize,
    what: &'static str,
    cause: io::Error,
}

impl WorkerError {
    /// Of the same kind as its cause.
    pub fn of(worker: usize, what: &'static str, cause: io::Error) -> io::Error {
        io::Error::new(cause.kind(), Self { worker, what, cause })
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "worker {} {}: {}{}", self.worker, self.what, self.cause, sys::cure(&self.cause))
    }
}

/// As a `main` that returns the error shows it.
impl fmt::Debug for WorkerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), out)
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Tells the waiting main thread that a worker has ended, whichever way.
pub struct Farewell(pub Arc<Doorbell>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if !sys::is_child() {
            // The only error is a full counter, and then it has been rung.
            let _ = self.0.signal();
        }
    }
}
