//! What a runtime has on each worker beside its peers: state, timers, and what is done at the start.

use std::any::TypeId;
use std::io;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use super::builder::Builder;
use crate::conn::{Commands, Handle, Local, States, two_states};
use crate::mem::Guarded;

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
    /// A way to all workers, for protocols that show counters or talk across workers. What they run on is in [`Handle::setup`].
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

type MakeState = Box<dyn Fn(&WorkerInfo) -> io::Result<()> + Send + Sync>;
pub(super) type OnThreadStart = Box<dyn Fn(&WorkerInfo) -> io::Result<()> + Send + Sync>;
pub(super) type OnStart = Box<dyn Fn(&WorkerInfo, &mut Commands) -> io::Result<()> + Send + Sync>;

/// What stands beside the workers, once it is started.
pub(super) type Companion = Guarded<Box<dyn Send + Sync>>;
pub(super) type Beside = Box<dyn FnOnce(&Handle, Builder) -> io::Result<Companion> + Send + Sync>;

/// What a function for [`Builder::on_start`] or [`Builder::on_thread_start`] may return: nothing, or [`io::Result<()>`](io::Result).
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

impl Builder {
    /// Called on each worker's thread, which is pinned by then, before anything else of the program runs there: states, the functions
    /// of listeners, [`on_start`](Self::on_start). Default nothing; each call adds one. It may return an
    /// [`io::Result`], whose error is one of [`start`](Self::start).
    ///
    /// For what belongs to the thread and not to the worker, such as a context that code finds in a thread-local. So a worker enters
    /// a tokio runtime that stands beside it, and polls futures of tokio while a thread of that drives them:
    /// `.on_thread_start(move |_worker| std::mem::forget(handle.enter()))`. Forgotten, because the guard would have to be dropped behind
    /// everything of the program that is dropped on this thread; what was entered goes with the thread. `docs/ASYNC.md` has the
    /// whole of it.
    ///
    /// With [`block_on`](Self::block_on) the thread is the caller's. Workers of a simulation have no threads of their own, and none
    /// of this.
    #[must_use]
    pub fn on_thread_start<R: Started>(
        mut self,
        start: impl Fn(&WorkerInfo) -> R + Send + Sync + 'static,
    ) -> Self {
        self.on_thread_start.push(Box::new(move |info| start(info).into_result()));
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

    /// Has something stand beside the workers: most of all another [`Running`](crate::Running), of a worker that none of these can
    /// keep waiting, for what has to answer whatever they do. `start` is called by [`start`](Self::start) when sockets are bound and before
    /// the workers are made, with the way to them, and with settings for a runtime like that: one worker without a CPU of its own, and
    /// what was set here of how sockets are bound ([`backlog`](Self::backlog), [`share_port`](Self::share_port),
    /// [`socket_mode`](Self::socket_mode)). An error ends the start. What it returns is dropped when the workers have ended.
    ///
    /// Default nothing; each call adds one.
    ///
    /// ```no_run
    /// # use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
    /// #         Flow::Close
    /// #     }
    /// # }
    /// # fn main() -> std::io::Result<()> {
    /// Runtime::builder()
    ///     .listen("127.0.0.1:7000", |_worker| |_peer| Echo)?
    ///     .beside(|handle, builder| {
    ///         let handle = handle.clone();
    ///         let lines = move |mut stream: netpoll_core::net::Stream, _peer| {
    ///             let line = format!("{:?} {}\n", handle.readiness(), handle.stats());
    ///             // Who has left does not want to know.
    ///             async move { stream.write_all(line.as_bytes()).await.unwrap_or_default() }
    ///         };
    ///         builder.listen_tasks("127.0.0.1:7001", lines)?.start()
    ///     })
    ///     .run()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn beside<T: Send + 'static>(
        mut self,
        start: impl FnOnce(&Handle, Builder) -> io::Result<T> + Send + Sync + 'static,
    ) -> Self {
        self.beside.push(Box::new(move |handle, builder| {
            // For the sake of `Sync`: nobody locks it.
            let companion: Box<dyn Send + Sync> = Box::new(Mutex::new(start(handle, builder)?));
            Ok(Guarded::new(companion))
        }));
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
}
