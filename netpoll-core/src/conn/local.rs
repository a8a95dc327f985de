//! A worker as code that runs on it sees it, when that code belongs to no connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::{Commands, Context, Handle};
use crate::clockwork::Instant;
use crate::{mem, sys};

/// The worker that code runs on: timers ([`Builder::every`](crate::Builder::every), [`Commands::after`]), what other
/// threads hand over ([`Handle::run_on`]), and callbacks of a connection through [`Conn::local`](crate::Conn::local).
///
/// Such code runs between the callbacks of connections, on their thread: it takes no lock, and must not block. What it orders
/// by [`commands`](Self::commands) is carried out when it has returned. If it panics nothing else notices; the panic is counted
/// in [`Stats::panics`](crate::Stats::panics).
///
/// ```
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// use netpoll_core::sim::{Options, Sim};
///
/// #[derive(Default)]
/// struct Counter(Cell<u64>);
///
/// let mut sim = Sim::new(Options::default().workers(2));
/// sim.state(|_worker| Counter::default());
/// sim.handle().run_on(1, |local| {
///     let counter = local.state::<Counter>();
///     local.commands().every(Duration::from_secs(1), move |_local| counter.0.set(counter.0.get() + 1));
/// });
/// sim.advance(Duration::from_secs(10));
/// sim.handle().run_on(1, |local| assert_eq!(local.state::<Counter>().0.get(), 10));
/// sim.run();
/// assert_eq!(sim.stats().panics, 0);
/// ```
pub struct Local<'a> {
    pub(in crate::conn) cx: &'a mut Context,
}

impl Local<'_> {
    /// Which worker, from zero.
    #[must_use]
    pub fn worker(&self) -> usize {
        usize::from(self.cx.worker)
    }

    /// The time at which this turn's work began. Free: the clock is read once a turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.cx.agenda.clock.now()
    }

    /// Seconds since 1970, from the same reading.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.cx.agenda.clock.unix_seconds()
    }

    /// The value of this type that [`Builder::state`](crate::Builder::state) made for this worker. A short search and a clone
    /// of an `Rc`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Rc<S> {
        self.cx.states.0.get()
    }

    /// What to do once this code has returned: to connections, on other workers, and later.
    pub fn commands(&mut self) -> &mut Commands {
        &mut self.cx.commands
    }

    /// A way to all workers, to keep or to hand to other threads.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.cx.handle
    }

    /// The runtime is shutting down gracefully.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.cx.stopping
    }
}

impl Context {
    /// Runs code of the program. False if it panicked.
    pub fn run(&mut self, code: impl FnOnce(&mut Local<'_>)) -> bool {
        let mut local = Local { cx: self };
        let called = catch_unwind(AssertUnwindSafe(|| code(&mut local)));
        sys::assert_not_forked();
        let Err(payload) = called else { return true };
        self.agenda.stats.panics += 1;
        crate::log::code_panicked();
        mem::discard_payload(payload);
        false
    }
}
