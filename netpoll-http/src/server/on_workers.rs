//! What workers have beside their service: state and timers.
//!
//! The same is asked of a runtime and of a simulated world, so that a service is tested with all that it stands on.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::Sim;
use netpoll_core::{Builder, Local};

use super::{App, IntoService, Server, Worker};

/// Something that every worker is to have.
pub struct OnWorkers {
    build: Box<dyn FnOnce(Builder) -> Builder + Send + Sync>,
    simulate: Box<dyn FnOnce(&mut Sim) + Send + Sync>,
}

impl OnWorkers {
    pub fn build(self, builder: Builder) -> Builder {
        (self.build)(builder)
    }

    /// # Panics
    /// If it cannot be made.
    pub fn simulate(self, sim: &mut Sim) {
        (self.simulate)(sim);
    }

    fn state<S, F>(make: F) -> Self
    where
        S: 'static,
        F: Fn(&Worker) -> io::Result<S> + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let simulated = Arc::clone(&make);
        Self {
            build: Box::new(move |builder| builder.try_state(move |info| make(&Worker::from(info)))),
            simulate: Box::new(move |sim| {
                sim.state(|info| match simulated(&Worker::from(info)) {
                    Ok(state) => state,
                    Err(error) => panic!("the state cannot be made: {error}"),
                });
            }),
        }
    }

    fn every<T, F>(period: Duration, make: F) -> Self
    where
        T: FnMut(&mut Local<'_>) + 'static,
        F: Fn(&Worker) -> T + Send + Sync + 'static,
    {
        assert!(!period.is_zero(), "the period of a timer is above zero");
        let make = Arc::new(make);
        let simulated = Arc::clone(&make);
        Self {
            build: Box::new(move |builder| builder.every(period, move |info| make(&Worker::from(info)))),
            simulate: Box::new(move |sim| sim.every(period, |info| simulated(&Worker::from(info)))),
        }
    }
}

impl fmt::Debug for OnWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnWorkers").finish_non_exhaustive()
    }
}

impl Server {
    /// Keeps a value of this type on each worker: a cache, a pool, figures. `make` is called on each worker before the factory
    /// of the service, which finds the value with [`Worker::state`] and hands it to the handlers and hooks that need it. It
    /// belongs to one thread, so a `Cell` or `RefCell` in it is all that is needed to change it. [`App::test`] has it too.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::time::Duration;
    ///
    /// use netpoll_http::{App, Request, Router};
    ///
    /// /// Requests of the last full minute, and of this one.
    /// #[derive(Default)]
    /// struct Rate {
    ///     last: Cell<u64>,
    ///     current: Cell<u64>,
    /// }
    ///
    /// let client = App::new(|worker| {
    ///     let (rate, counted) = (worker.state::<Rate>(), worker.state::<Rate>());
    ///     Router::new()
    ///         .before(move |_: &Request| counted.current.set(counted.current.get() + 1))
    ///         .get("/rate", move |_: &Request| rate.last.get().to_string())
    /// })
    /// .state(|_worker| Rate::default())
    /// .every(Duration::from_secs(60), |worker| {
    ///     let rate = worker.state::<Rate>();
    ///     move |_local| rate.last.set(rate.current.take())
    /// })
    /// .test();
    ///
    /// client.get("/rate");
    /// client.advance(Duration::from_secs(60));
    /// assert_eq!(client.get("/rate").text(), "1");
    /// ```
    ///
    /// # Panics
    /// When the server starts, if there are two states of one type.
    #[must_use]
    pub fn state<S, F>(self, make: F) -> Self
    where
        S: 'static,
        F: Fn(&Worker) -> S + Send + Sync + 'static,
    {
        self.try_state(move |worker| Ok(make(worker)))
    }

    /// [`state`](Self::state) with a `make` that can fail: its error ends the start of the server, which names the worker.
    ///
    /// # Panics
    /// As `state`.
    #[must_use]
    pub fn try_state<S, F>(mut self, make: F) -> Self
    where
        S: 'static,
        F: Fn(&Worker) -> io::Result<S> + Send + Sync + 'static,
    {
        self.on_workers.push(OnWorkers::state(make));
        self
    }

    /// Calls a function on each worker again and again, first one period after the start. `make` is called there once and
    /// returns it. See [`Commands::every`](netpoll_core::Commands::every) for how it keeps time.
    ///
    /// # Panics
    /// If the period is zero.
    #[must_use]
    pub fn every<T, F>(mut self, period: Duration, make: F) -> Self
    where
        T: FnMut(&mut Local<'_>) + 'static,
        F: Fn(&Worker) -> T + Send + Sync + 'static,
    {
        self.on_workers.push(OnWorkers::every(period, make));
        self
    }
}

impl<F, S> App<F>
where
    F: Fn(&Worker) -> S + Send + Sync + 'static,
    S: IntoService,
{
    /// As [`Server::state`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn state<V, M>(self, make: M) -> Self
    where
        V: 'static,
        M: Fn(&Worker) -> V + Send + Sync + 'static,
    {
        self.try_state(move |worker| Ok(make(worker)))
    }

    /// As [`Server::try_state`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn try_state<V, M>(mut self, make: M) -> Self
    where
        V: 'static,
        M: Fn(&Worker) -> io::Result<V> + Send + Sync + 'static,
    {
        self.on_workers.push(OnWorkers::state(make));
        self
    }

    /// As [`Server::every`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn every<T, M>(mut self, period: Duration, make: M) -> Self
    where
        T: FnMut(&mut Local<'_>) + 'static,
        M: Fn(&Worker) -> T + Send + Sync + 'static,
    {
        self.on_workers.push(OnWorkers::every(period, make));
        self
    }
}
