//! A datagram socket as its callbacks see it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Spares, UdpOptions};
use crate::clockwork::Instant;
use crate::conn::deadline::Deadlines;
use crate::conn::{Commands, Context, Local};
use crate::mem::{DatagramPath, DatagramQueue, Key};
use crate::task::WakeTarget;

/// Names a datagram socket, on any thread, for ever: once it is gone the name finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramId {
    pub(crate) worker: u16,
    pub(crate) key: Key,
}

impl DatagramId {
    /// The worker that owns the socket.
    #[must_use]
    pub fn worker(self) -> usize {
        usize::from(self.worker)
    }
}

/// Where a socket stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Bound; its worker does not serve yet.
    New,
    Open,
    /// A drain has begun, and it goes on until this time.
    Stopping(Instant),
    /// What has come is handed over; then it closes, at this time whatever comes.
    Finishing(Instant),
    /// Nothing is handed over any more: it closes when its queue is empty, or at this time.
    Closing(Instant),
}

/// What belongs to one socket beside its protocol.
pub(super) struct Core {
    pub queue: DatagramQueue,
    /// Of a socket that belongs to a task: where the queue's memory goes when it is empty.
    pub spares: Option<Rc<Spares>>,
    pub deadlines: Deadlines,
    pub wake: Option<Arc<WakeTarget>>,
    pub addr: SocketAddr,
    pub phase: Phase,
    /// Told by `close`, until the callback has returned.
    pub wants_close: bool,
    /// The kernel takes no more; it will say when it does.
    pub blocked: bool,
    pub on_ready_list: bool,
    pub on_dirty_list: bool,
    /// Something has come since it was resumed last.
    pub has_come: bool,
}

impl Core {
    pub fn new(addr: SocketAddr, options: &UdpOptions) -> Self {
        Self {
            queue: DatagramQueue::new(options.queue_bytes_max),
            spares: None,
            deadlines: Deadlines::new(),
            wake: None,
            addr,
            phase: Phase::New,
            wants_close: false,
            blocked: false,
            on_ready_list: false,
            on_dirty_list: false,
            has_come: false,
        }
    }

    /// The machinery's own deadline.
    pub fn guard(&self) -> Option<Instant> {
        match self.phase {
            Phase::New | Phase::Open => None,
            Phase::Stopping(at) | Phase::Finishing(at) | Phase::Closing(at) => Some(at),
        }
    }

    /// It belongs to a task, whose end is what ends it: a drain does not wait for it as long as nobody has closed it.
    pub fn is_of_task(&self) -> bool {
        self.spares.is_some() && !matches!(self.phase, Phase::Closing(_))
    }

    /// Callbacks are called.
    pub fn is_served(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Stopping(_) | Phase::Finishing(_))
    }

    /// Queues a copy; false, and counted, if there is no room.
    #[inline]
    pub fn send(&mut self, cx: &mut Context, path: DatagramPath, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= UdpOptions::DATAGRAM_BYTES_MAX && self.queue.push(path, bytes);
        cx.agenda.stats.datagrams_dropped += u64::from(!fits);
        fits
    }
}

/// The datagram socket that a callback is about.
///
/// What is queued here leaves behind the callback, or behind that of the whole batch, by one `sendmmsg` for up to 64
/// datagrams. Nobody learns whether a datagram arrives.
pub struct DatagramSocket<'a> {
    pub(super) core: &'a mut Core,
    pub(super) cx: &'a mut Context,
    pub(super) key: Key,
}

impl DatagramSocket<'_> {
    /// A name for this socket that other sockets, connections and threads can use.
    #[must_use]
    pub fn id(&self) -> DatagramId {
        DatagramId { worker: self.cx.worker, key: self.key }
    }

    /// The worker that this socket lives on, counted from zero.
    #[must_use]
    pub fn worker(&self) -> usize {
        usize::from(self.cx.worker)
    }

    /// Where it is bound, with the port that the kernel chose. All workers' sockets of one
    /// [`Builder::bind_udp`](crate::Builder::bind_udp) have the same.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.core.addr
    }

    /// The time at which this turn's work began. Free: the clock is read once a turn.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        self.cx.agenda.clock.now()
    }

    /// Seconds since 1970, from the same reading.
    #[inline]
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.cx.agenda.clock.unix_seconds()
    }

    /// Queues a datagram, copied: to a peer's address, or along the path of a datagram that came from it
    /// ([`Datagram::path`](crate::Datagram::path)), so that the answer leaves from the address that was asked.
    ///
    /// False, and counted ([`Stats::datagrams_dropped`](crate::Stats::datagrams_dropped)), if there is no room
    /// ([`UdpOptions::queue_bytes_max`]) or it is longer than any datagram may be: it is dropped, as a network would. What the
    /// kernel refuses later, because no way leads there or the datagram is too long for it, is counted as refused.
    #[inline]
    pub fn send(&mut self, to: impl Into<DatagramPath>, bytes: &[u8]) -> bool {
        self.core.send(self.cx, to.into(), bytes)
    }

    /// Writes a datagram: what `write` leaves in the vector, which is empty at first. What `write` returned, and whether there was
    /// room, as in [`send`](Self::send). No allocation once the vector has grown.
    #[inline]
    pub fn append<R>(
        &mut self,
        to: impl Into<DatagramPath>,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> (R, bool) {
        let (returned, fits) = self.core.queue.append(to.into(), UdpOptions::DATAGRAM_BYTES_MAX, write);
        self.cx.agenda.stats.datagrams_dropped += u64::from(!fits);
        (returned, fits)
    }

    /// Lets what was queued elsewhere leave, in the place of the queue, or behind what is in that, whatever the limit.
    pub(crate) fn send_queue(&mut self, queue: &mut DatagramQueue) {
        if self.core.queue.is_empty() {
            std::mem::swap(&mut self.core.queue, queue);
        } else {
            self.core.queue.append_all(queue);
        }
    }

    /// Counts datagrams that were dropped.
    pub(crate) fn count_dropped(&mut self, datagrams: u64) {
        self.cx.agenda.stats.datagrams_dropped += datagrams;
    }

    /// Datagrams that were queued and that the kernel has not taken.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.core.queue.len()
    }

    /// The kernel takes no more now, so what is queued waits; [`drained`](crate::DatagramProtocol::drained) comes when it has
    /// left.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.core.blocked
    }

    /// Calls `deadline` so long after now. A socket has one deadline; this replaces it. In the common case, a deadline later
    /// than the last one, this is a store.
    #[inline]
    pub fn set_deadline(&mut self, after: Duration) {
        self.set_deadline_at(self.now().saturating_add(after));
    }

    /// Calls `deadline` at this time, or in the next turn if it has passed.
    #[inline]
    pub fn set_deadline_at(&mut self, at: Instant) {
        let agenda = &mut self.cx.agenda;
        let now = agenda.clock.now();
        self.core.deadlines.set_protocol(&mut agenda.timers, now, self.key, at);
    }

    /// No `deadline` call, until one is set again.
    pub fn clear_deadline(&mut self) {
        self.core.deadlines.clear_protocol();
    }

    /// The deadline that is set, if one is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.deadlines.protocol()
    }

    /// A waker that leads to `woken` on this socket, from any thread. One allocation at the first call; a burst of wakes is one
    /// `woken`.
    pub fn waker(&mut self) -> Waker {
        let (key, cx) = (self.key, &self.cx);
        self.core
            .wake
            .get_or_insert_with(|| WakeTarget::new(key, cx.lane.number(), Arc::clone(&cx.wakes)))
            .waker()
    }

    /// The value of this type that [`Builder::state`](crate::Builder::state) made for this worker, as
    /// [`Conn::state`](crate::Conn::state) finds it.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Rc<S> {
        self.cx.states.0.get()
    }

    /// The worker that this socket lives on, as code sees it that belongs to no source.
    pub fn local(&mut self) -> Local<'_> {
        Local { cx: self.cx }
    }

    /// What to do to connections and other sockets once this callback has returned.
    pub fn commands(&mut self) -> &mut Commands {
        &mut self.cx.commands
    }

    /// The runtime is shutting down gracefully: see [`stopping`](crate::DatagramProtocol::stopping).
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.cx.stopping
    }

    /// Closes this worker's socket when the callback has returned and what is queued has left. No callback comes any more, and the
    /// protocol is dropped then; what has arrived and was not handed over is lost. Other workers' sockets on the address get its share of what comes from then on.
    pub fn close(&mut self) {
        self.core.wants_close = true;
    }

    /// [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.core.wants_close
    }

    /// The counters of this worker, as of its last turn for what the driver counts.
    #[must_use]
    pub fn worker_stats(&self) -> crate::Stats {
        self.cx.stats()
    }

    /// Adds answered requests to the ledger, which divides everything else by them.
    #[inline]
    pub fn count_requests(&mut self, requests: u64) {
        self.cx.agenda.stats.requests += requests;
    }
}
