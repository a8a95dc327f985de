//! What other threads may ask of a running runtime.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::worker::Letter;
use crate::conn::{ConnId, ConnectOptions, Dial, Protocol};
use crate::mem::Guarded;
use crate::reactor::{Budget, Published, Sender, Stats, WaitStrategy};
use crate::sys;

/// A way to a running runtime from any thread. Cheap to clone; outliving the runtime is harmless: what it asks for then
/// is dropped.
///
/// What it asks for goes into the mailbox of a worker, which has no limit: one allocation now and then, and one system
/// call if that worker sleeps. Letters of one thread to one worker arrive in order. A [`ConnId`] means something
/// only to the runtime that it came from.
///
/// # Panics
/// Every method panics in a process that was forked off the one that started the runtime: the workers
/// did not come along, so nothing would ever answer. Fork first, then start.
#[derive(Clone)]
pub struct Handle {
    pub(super) workers: Arc<[Sender<Letter>]>,
    pub(super) published: Arc<[Arc<Published>]>,
    pub(super) setup: Arc<Setup>,
    pub(super) draining: Arc<AtomicBool>,
}

/// What became of the settings on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setup {
    /// The driver: `epoll`, or `sim` in a simulated world.
    pub backend: &'static str,
    /// For each worker the CPU that it was to be pinned to, if any. A kernel that refuses leaves the worker unpinned.
    pub cpus: Vec<Option<usize>>,
    /// How workers wait. A strategy that spins became [`WaitStrategy::Block`] where there is no CPU to spare.
    pub wait: WaitStrategy,
    /// How much one turn takes.
    pub budget: Budget,
    /// What all connections of one worker may hold, in bytes.
    pub memory_bytes_max: usize,
}

impl Handle {
    pub(super) fn check(&self) {
        sys::assert_not_forked();
    }

    fn worker(&self, worker: usize) -> &Sender<Letter> {
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

    /// Queues bytes on a connection, backed up or not. Nothing happens if it is gone; if it is behind by more than
    /// [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max) it is reset.
    ///
    /// Above 4 KiB they are shared, not copied.
    pub fn send(&self, to: ConnId, bytes: Bytes) {
        self.tell(to, Letter::Send { to: to.key, bytes: Guarded::new(bytes) });
    }

    /// To the worker of a connection. A name from another runtime may have none here.
    fn tell(&self, id: ConnId, letter: Letter) {
        self.check();
        if let Some(worker) = self.workers.get(id.worker()) {
            worker.send(letter);
        }
    }

    /// Closes a connection after what it has queued is sent, as [`Flow::Linger`](crate::Flow::Linger) does.
    /// Nothing happens if it is gone.
    pub fn close(&self, id: ConnId) {
        self.tell(id, Letter::Close { key: id.key, reset: false });
    }

    /// Resets a connection; what it has queued is lost. Nothing happens if it is gone.
    pub fn reset(&self, id: ConnId) {
        self.tell(id, Letter::Close { key: id.key, reset: true });
    }

    /// Connects to an address on a worker. `protocol` sees `opened`, or `lost(ConnectFailed)`: with `NotConnected` if the
    /// worker ends first, or has no slot left for it. If it has ended already, `lost` comes at once, on this thread; a
    /// protocol that is handed over inside such a call is dropped without one.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn connect<P: Protocol + Send>(
        &self,
        worker: usize,
        to: SocketAddr,
        options: ConnectOptions,
        protocol: P,
    ) {
        self.worker(worker).send(Letter::Connect(Box::new(Dial::new(to, options, protocol))));
    }

    /// Whether a drain has begun, on the workers that have heard of it so far. For what takes long and can end early: a
    /// stream of events, a handler that waits. Protocols are told by [`Protocol::stopping`], which is called behind this
    /// change.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Begins a graceful drain: listeners close after taking in who waits there, protocols are told, and
    /// what is still open after this time is reset. Returns at once. Under a drain that has begun already, a shorter time
    /// shortens it, and a longer one changes nothing.
    pub fn drain(&self, within: Duration) {
        self.check();
        for worker in self.workers.iter() {
            worker.send(Letter::Stop { within });
        }
    }
}
