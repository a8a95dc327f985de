//! Workers as threads: placed, started, watched and brought to an end together.
//!
//! Everything that can fail is done before any worker serves: sockets are bound, drivers made and factories called
//! first, and `start` returns the first error. A worker that ends by itself brings the others down.

mod backend;
mod block_on;
mod builder;
mod crew;
mod endpoints;
mod handover;
mod listening;
mod placement;
mod programs;
mod resolver;
mod seat;
mod service_manager;
mod shutdown;
mod udp;
mod watchdog;
mod worker;
mod world;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::blocking::{Limits, Pool};
use crate::clockwork::Clock;
use crate::conn::{DialNames, Handle, LastLongTurn, Letter, Life, OwnSuccession, Setup, Stage};
use crate::mem::Guarded;
use crate::reactor::{Mailbox, Published, Sender};
use crate::sys::{self, Address, Doorbell};

pub use backend::Backend;
pub use builder::Builder;
pub use handover::Handover;
pub use placement::Workers;
pub use programs::{Started, WorkerInfo};
pub use resolver::NameCache;
pub use service_manager::ServiceManager;
pub use shutdown::Report;
pub use watchdog::StuckTurn;
pub use world::{ListenerId, Options, PeerId, Sim, UdpId};

use crew::{Crew, Thread};
use handover::{ManagerName, Offering};
use listening::{Bound, OwnFiles};
use placement::Placement;
use programs::{Beside, Companion};
use resolver::Resolver;
use seat::{Farewell, Seat, Sockets, WorkerError, panicked};
use watchdog::Watchdog;
use worker::Drained;

/// A thread-per-core runtime. Start here.
///
/// ```no_run
/// # use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #         conn.send(input.bytes());
/// #         input.advance_all();
/// #         Flow::Continue
/// #     }
/// # }
/// # fn main() -> std::io::Result<()> {
/// Runtime::builder().listen("127.0.0.1:7000", |_worker| |_peer| Echo)?.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum Runtime {}

impl Runtime {
    /// Settings with their defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Runs a future on one worker, which this thread is meanwhile, until it returns: for programs without listeners. See
    /// [`Builder::block_on`], which has settings.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use netpoll_core::Runtime;
    /// use netpoll_core::task::spawn_local;
    /// use netpoll_core::time::sleep;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let sum = Runtime::block_on(async {
    ///     let tasks: Vec<_> = (0..10)
    ///         .map(|number| spawn_local(async move { sleep(Duration::from_millis(number)).await; number }))
    ///         .collect();
    ///     let mut sum = 0;
    ///     for task in tasks {
    ///         sum += task.await.unwrap();
    ///     }
    ///     sum
    /// })?;
    /// assert_eq!(sum, 45);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Builder::block_on`].
    ///
    /// # Panics
    /// As for [`Builder::block_on`].
    #[track_caller]
    pub fn block_on<F>(future: F) -> io::Result<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Self::builder().block_on(future)
    }
}

/// A runtime whose workers are running. Dropping it cuts all connections and waits for the workers.
pub struct Running {
    handle: Handle,
    /// Of its Unix sockets; they go when the workers have ended.
    _files: OwnFiles,
    resolver: Resolver,
    blocking: Pool,
    watchdog: Option<Watchdog>,
    /// Waits for the process that follows.
    offering: Option<Offering>,
    took_over: bool,
    /// They go when the workers have ended.
    companions: Vec<Companion>,
    threads: Vec<Thread>,
    /// Rung by every worker that ends.
    ended: Arc<Doorbell>,
    signals: Option<sys::StopSignals>,
    lame_duck: Duration,
    drain_within: Duration,
}

/// Everything of a runtime that its workers start with.
struct Beginning {
    handle: Handle,
    seats: Vec<(Seat, Farewell)>,
    files: OwnFiles,
    resolver: Resolver,
    blocking: Pool,
    watchdog: Option<Watchdog>,
    /// What is to stand beside the workers.
    beside: Vec<Beside>,
    settings: Arc<Guarded<Builder>>,
    /// Another way to the service manager.
    manager: Option<ServiceManager>,
    /// Where its `listen` calls have led to, as the kernel says it.
    at: Vec<Address>,
    ended: Arc<Doorbell>,
}

impl Beginning {
    /// Places the workers and makes everything that can fail.
    fn new(mut settings: Builder, before: Option<&ManagerName>) -> io::Result<Self> {
        let backend = settings.backend.choose(settings.wait)?;
        let placement = Placement::find(&settings.workers, settings.pin)?;
        let count = placement.cpus.len();
        if count > usize::from(u16::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "at most 65535 workers"));
        }
        if settings.steer_by_cpu && !placement.matches_cpus {
            let message = "steering by CPU needs a pinned worker on each CPU, in order";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let succession = settings.family.succession.clone();
        let first = succession.as_ref().map_or(0, |succession| succession.len());
        let Bound { mut sockets, addrs, files, files_before } = Bound::bind(&mut settings, backend, count)?;
        let first_of_each =
            (0..settings.listeners.len()).filter_map(|of| sockets[0].iter().find(|it| it.of == of));
        let at = first_of_each.map(|socket| sys::local_addr(socket.fd.as_fd())).collect::<io::Result<_>>()?;
        let udp_addrs = udp::bind_all(&settings, backend, &mut sockets)?;
        let succession = succession.map(|shared| OwnSuccession {
            numbers: first..shared.len(),
            moves: !settings.is_beside,
            shared,
        });
        let files = OwnFiles::new(files, files_before, succession.clone());
        let wait = placement.wait(settings.wait);
        let beside = std::mem::take(&mut settings.beside);
        let manager = std::mem::take(&mut settings.manager).find(before)?;
        let again = manager.as_ref().map(ServiceManager::again).transpose()?;
        let settings = Arc::new(Guarded::new(settings));
        let ended = Arc::new(Doorbell::new()?);

        let mut bells = Vec::new();
        for _ in 0..count {
            bells.push(Arc::new(Doorbell::new()?));
        }
        let mailboxes: Vec<_> = bells.iter().map(|bell| Mailbox::new(Arc::clone(bell))).collect();
        let workers: Arc<[Sender<Letter>]> = mailboxes.iter().map(Mailbox::sender).collect();
        let published: Arc<[Arc<Published>]> = (0..count).map(|_| Arc::default()).collect();
        let setup = Arc::new(Setup {
            backend: backend.name(),
            cpus: placement.cpus.clone(),
            wait,
            budget: settings.budget.clone(),
            memory_bytes_max: settings.limits.memory_bytes(count, sys::memory_limit()),
            stuck_turn: settings.stuck_turn,
            local_addrs: addrs,
            udp_addrs,
        });
        // One origin for all workers, so that their instants can be compared.
        let clock = Clock::monotonic();
        let undrained = Arc::new(AtomicUsize::new(count));
        let (draining, names) = (Arc::default(), DialNames::default());
        let long_turns = (0..count).map(|_| LastLongTurn::default()).collect();
        let handle = Handle {
            workers,
            published,
            setup,
            draining,
            undrained,
            clock: clock.reader(),
            names,
            long_turns,
            life: Arc::new(Life::new()),
            succession,
        };
        let resolver = Resolver::new(settings.name_cache, clock.reader());
        let blocking = Pool::new(Limits {
            name: "netpoll-blocking",
            threads_max: settings.blocking_threads,
            jobs_max: settings.blocking_jobs_max,
        });

        let watchdog = Watchdog::start(&settings, &handle, manager)?;

        let parts = mailboxes.into_iter().zip(bells).zip(sockets).zip(&placement.cpus);
        let seats = parts.enumerate().map(|(index, (((mailbox, bell), sockets), cpu))| {
            let seat = Seat {
                index,
                cpu: *cpu,
                handle: handle.clone(),
                settings: Arc::clone(&settings),
                backend,
                wait,
                clock: clock.clone(),
                mailbox,
                bell,
                sockets: Sockets::new(sockets),
                resolver: resolver.clone(),
                blocking: blocking.clone(),
            };
            (seat, Farewell(Arc::clone(&ended)))
        });
        let seats = seats.collect();
        let manager = again;
        Ok(Self { handle, seats, files, resolver, blocking, watchdog, beside, settings, manager, at, ended })
    }

    /// Starts what is to stand beside the workers.
    fn start_beside(handle: &Handle, settings: &Builder, beside: Vec<Beside>) -> io::Result<Vec<Companion>> {
        let companions: io::Result<Vec<_>> =
            beside.into_iter().map(|start| start(handle, settings.of_one_beside())).collect();
        settings.family.check_claimed()?;
        companions
    }
}

impl Running {
    /// Whatever the kernel refuses is said with what can be done about it.
    fn start(settings: Builder) -> io::Result<Self> {
        Self::start_all(settings).map_err(|error| match error.raw_os_error() {
            Some(_) => sys::missing("the runtime cannot start", error),
            None => error,
        })
    }

    fn start_all(mut settings: Builder) -> io::Result<Self> {
        sys::watch()?;
        let lame_duck = settings.lame_duck;
        // The first only tells that the drain is near, where there is time for that.
        let caught = if lame_duck.is_zero() { 1 } else { 2 };
        let signals = match settings.stop_on_signals {
            true => Some(sys::StopSignals::install(&settings.stop_signals, caught).map_err(caught_already)?),
            false => None,
        };
        let (name, drain_within) = (settings.name, settings.drain_within);
        let handover = settings.handover.take();
        let (heir, mut place) = settings.inherit_all(handover.as_ref())?;
        let (family, is_beside) = (Arc::clone(&settings.family), settings.is_beside);
        let mut taken = match (&heir, &handover) {
            (None, Some(handover)) => place.take().map(|place| place.take(handover, false)).transpose()?,
            _ => None,
        };
        let before = heir.as_ref().and_then(|heir| heir.manager.as_ref());
        let Beginning {
            handle,
            seats,
            mut files,
            resolver,
            blocking,
            watchdog,
            beside,
            settings,
            manager,
            at,
            ended,
        } = Beginning::new(settings, before)?;
        // Whoever asks them is served by the process that goes as long as that one serves.
        let (now, later) = if heir.is_some() { (Vec::new(), beside) } else { (beside, Vec::new()) };
        let mut companions = match &heir {
            None => Beginning::start_beside(&handle, &settings, now)?,
            Some(_) => Vec::new(),
        };
        let serves = || match (&heir, &handover) {
            (Some(heir), Some(handover)) => {
                heir.ready(handover)?;
                companions = Beginning::start_beside(&handle, &settings, later)?;
                // From here on whoever follows comes to this process, and waits until it serves.
                taken = place.take().map(|place| place.take(handover, true)).transpose()?;
                Ok(())
            }
            _ => Ok(()),
        };
        let threads = Crew::new(name).start(seats.into_iter(), serves).inspect_err(|_| {
            resolver.close();
            blocking.close();
        })?;
        handle.life.reach(Stage::Serving);
        let took_over = heir.is_some();
        let before = heir.and_then(|heir| heir.serves(family.claimed())).map(|way| (way, at));
        files.take_over();
        if is_beside && handle.succession.is_some() {
            family.add_companion(handle.clone());
        }
        let offering = match (handover, taken) {
            (Some(handover), Some(place)) => {
                Offering::start(handover, place, before, &handle, family, manager, drain_within)
            }
            _ => None,
        };
        drop(settings);
        Ok(Self {
            handle,
            _files: files,
            resolver,
            blocking,
            watchdog,
            offering,
            took_over,
            companions,
            threads,
            ended,
            signals,
            lame_duck,
            drain_within,
        })
    }

    /// A way to the workers from other threads.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where it listens, in the order of the `listen` and `listen_on` calls, with the ports that the kernel chose.
    #[must_use]
    pub fn local_addrs(&self) -> &[Address] {
        self.handle.local_addrs()
    }

    /// Where it receives datagrams, in the order of the `bind_udp` calls, with the ports that the kernel chose.
    #[must_use]
    pub fn udp_addrs(&self) -> &[SocketAddr] {
        self.handle.udp_addrs()
    }

    /// Whether it has taken over from another process ([`Builder::handover`]).
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// Waits for a stop signal, if [`Builder::stop_on_signals`] is on, or for the end of a drain that
    /// [`Handle::drain`] or a process that follows ([`Builder::handover`]) began, and gives the rest of the connections [`Builder::drain_within`] to end.
    ///
    /// A signal is followed by the [`Builder::lame_duck`] time, if there is one, in which a second one begins the drain; in the
    /// drain the next stop signal, of whatever kind, ends the process at once. Like [`stop`](Self::stop), this has no bound if a
    /// callback does not return.
    ///
    /// # Errors
    /// A worker ended by itself.
    pub fn wait(self) -> io::Result<Report> {
        self.handle.check();
        // Either somebody wants an end or a worker has come to one: in both cases the rest is drained.
        match &self.signals {
            Some(signals) => {
                signals.wait(self.ended.as_fd(), sys::Timeout::Never)?;
            }
            None => self.ended.wait()?,
        }
        let within = self.drain_within;
        self.stop(within)
    }

    /// Drains, waits for the workers, and reports. What is still open after `within` is reset. The [`Builder::lame_duck`] time comes
    /// first, unless a drain is on already or a worker has ended by itself.
    ///
    /// A worker sees to that between callbacks: if one does not return, neither does this, and so it is when a `Running` is
    /// dropped. A stop signal still ends the process then, the second one if they were caught ([`Builder::stop_on_signals`]).
    ///
    /// # Errors
    /// A worker had ended by itself, by a panic or because the kernel refused to wait.
    pub fn stop(mut self, within: Duration) -> io::Result<Report> {
        self.handle.check();
        self.be_lame_duck()?;
        self.handle.drain(within);
        let Drained { open, moved, cut, cut_peers, tasks_cut, took } = self.join()?;
        let handed_over = self.handle.is_handed_over();
        Ok(Report { took, open, moved, cut, cut_peers, tasks_cut, handed_over, stats: self.handle.stats() })
    }

    /// Serves on for a while and says that it is not ready, until a stop signal, or the end of a worker, has it over earlier.
    fn be_lame_duck(&self) -> io::Result<()> {
        if self.lame_duck.is_zero() {
            return Ok(());
        }
        self.handle.life.reach(Stage::LameDuck);
        let ends = self.handle.now().saturating_add(self.lame_duck);
        // Two signals may have come at once.
        let is_hurried = || self.signals.as_ref().is_some_and(sys::StopSignals::have_all_come);
        while self.handle.life.stage() == Stage::LameDuck && !is_hurried() {
            let left = ends.duration_since(self.handle.now());
            if left.is_zero() {
                break;
            }
            let left = sys::Timeout::After(left);
            let is_over = match &self.signals {
                Some(signals) => signals.wait(self.ended.as_fd(), left)? != sys::Woken::Timeout,
                None => self.ended.wait_for(left)?,
            };
            if is_over {
                break;
            }
        }
        if let Some(signals) = &self.signals {
            // As many have come as if there had been no such time, whether the second one has or not.
            signals.catch_one_less();
        }
        Ok(())
    }

    fn join(&mut self) -> io::Result<Drained> {
        let mut sum = Drained::default();
        let mut failure = None;
        for (index, thread) in self.threads.drain(..).enumerate() {
            match thread.join() {
                Ok(Ok(drained)) => sum.merge(drained),
                Ok(Err(error)) => failure = Some(error),
                Err(payload) => failure = Some(WorkerError::of(index, "ended", panicked(payload))),
            }
        }
        self.handle.life.reach(Stage::Ended);
        self.offering = None;
        self.watchdog = None;
        self.companions.clear();
        self.resolver.close();
        self.blocking.close();
        failure.map_or(Ok(sum), Err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty() && !sys::is_child() {
            self.handle.drain(Duration::ZERO);
            // Whoever wants to know how it ended calls `stop`.
            let _ = self.join();
        }
    }
}

/// Says who has the handlers, which "resource busy" does not.
fn caught_already(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::ResourceBusy => io::Error::new(
            kind,
            "another runtime of this process has installed the handlers of the stop signals",
        ),
        _ => error,
    }
}
