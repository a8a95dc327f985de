//! A runtime of one worker on the thread that asks for it, for as long as a future runs.

use std::cell::RefCell;
use std::io;
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::sync::mpsc;

use super::seat::Door;
use super::{Beginning, Builder, Workers};
use crate::conn::Stage;
use crate::sys;
use crate::task::{self, JoinError, Kind};

impl Builder {
    /// Runs a future on one worker, which this thread is meanwhile, with these settings but the number of workers and their CPU:
    /// it is not pinned. What it listens to is served as well, and stop signals are not caught.
    ///
    /// When the future has returned, other tasks are dropped, none is started any more, and connections get
    /// [`drain_within`](Self::drain_within) to send what they have queued; [daemons](crate::task::spawn_daemon) are dropped behind them. For several workers there is [`start`](Self::start), with
    /// [`Handle::spawn_on`](crate::Handle::spawn_on).
    ///
    /// # Errors
    /// Those of [`start`](Self::start); the worker ended by itself.
    ///
    /// # Panics
    /// If the future does; on a thread that is a worker.
    #[track_caller]
    pub fn block_on<F>(mut self, future: F) -> io::Result<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        assert!(
            task::try_current().is_none(),
            "`block_on` would block a worker: await the future there, or spawn it"
        );
        self.check()?;
        sys::watch()?;
        if self.handover.is_some() {
            let message = "a handover needs `start`: what `block_on` runs ends with its future";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.inherit_all(None)?;
        self.workers = Workers::Count(1);
        self.pin = false;
        let drain_within = self.drain_within;
        let Beginning { handle, seats, mut files, resolver, blocking, watchdog, beside, settings, .. } =
            Beginning::new(self, None)?;
        let companions = Beginning::start_beside(&handle, &settings, beside)?;
        drop(settings);
        files.take_over();
        let (seat, _farewell) = seats.into_iter().next().expect("one worker");
        let (ready, reports) = mpsc::channel();
        let (gate, opened) = mpsc::channel();
        // Nobody else has to be ready.
        gate.send(()).expect("the other end is here");
        let life = std::sync::Arc::clone(&handle.life);
        let result = Rc::new(RefCell::new(None));
        let (place, spawned_at) = (Rc::clone(&result), Location::caller());
        let ended = seat.take_with(&Door { ready, gate: opened }, move |lane| {
            handle.life.reach(Stage::Serving);
            let (main, at) = (task::spawn_at(lane, future, Kind::Waited, spawned_at), Rc::clone(lane));
            let watch = async move {
                let outcome = main.await;
                *place.borrow_mut() = Some(outcome);
                at.executor().close_to_tasks();
                handle.drain(drain_within);
            };
            task::spawn_at(lane, watch, Kind::Waited, spawned_at).detach();
        });
        life.reach(Stage::Ended);
        drop(watchdog);
        drop(companions);
        resolver.close();
        blocking.close();
        drop(files);
        // A worker that did not start has said why.
        if let Ok((_, Err(error))) = reports.try_recv() {
            return Err(error);
        }
        let outcome: Option<Result<F::Output, JoinError>> = result.borrow_mut().take();
        match (outcome, ended) {
            (Some(Ok(output)), _) => Ok(output),
            (Some(Err(error)), ended) => match (error.into_panic(), ended) {
                (Some(payload), _) => resume_unwind(payload),
                (None, Err(error)) => Err(error),
                (None, Ok(_)) => {
                    Err(io::Error::other("the worker was drained before the future had returned"))
                }
            },
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(io::Error::other("the worker was drained before the future had returned")),
        }
    }
}
