//! What a connection and the requests that are under way on it share.
//!
//! The requests are tasks of the worker, and what they have to say to their connection, such as that one of them has panicked, lies here
//! until the connection's next callback.
//!
//! Invariant: nothing is borrowed while code of the program runs. What is noted here is counted once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use netpoll_core::{Address, Conn, Held, Instant, time};

use super::settings::Http2;
use super::tale::{Leaving, Tale};
use crate::h1::shared::count_panics;
use crate::h1::{Service, Worker};
use crate::message::Extensions;

#[cfg(feature = "tls")]
type Facts = std::sync::Arc<netpoll_core::tls::TlsFacts>;

pub(super) struct Line<S: Service> {
    pub(super) worker: Rc<Worker<S>>,
    pub(super) settings: Rc<Http2>,
    pub(super) peer: Address,
    #[cfg(feature = "tls")]
    facts: Option<Facts>,
    /// Wakes the connection.
    waker: Waker,
    /// What a client that takes an answer has to take of it in how long.
    pub(super) write_grace: Duration,
    pub(super) least_taken_bytes: u64,
    /// A reading of the clock, and the seconds since 1970 at that time.
    seconds: Cell<(Instant, u64)>,
    is_stopping: Cell<bool>,
    is_short: Cell<bool>,
    is_backed_up: Cell<bool>,
    /// An empty one, of the worker.
    held: Held,
    /// The request that was handed over last, until a task has it.
    pub(super) latest: RefCell<Option<Rc<Tale<S>>>>,
    /// Requests under way.
    streams: Cell<u32>,
    /// Requests that have begun.
    begun: Cell<u32>,
    /// The same that were not counted.
    requests: Cell<u64>,
    panics: Cell<u32>,
    abandoned: Cell<u32>,
    overflows: Cell<u32>,
    /// Bodies that somebody may take more of.
    open_bodies: Cell<u32>,
    /// Bytes of bodies that were taken, or that nobody holds any more.
    taken_bytes: Cell<u64>,
    /// Bytes of bodies that have come and were not taken, at the last look.
    ahead_bytes: Cell<u64>,
    /// Bytes of answers that were made and have not left.
    unsent_bytes: Cell<u64>,
    /// The last bytes of answers whose tasks have ended.
    leftovers: RefCell<Vec<Leftover>>,
}

/// What the task of an answer has left behind, for the client to take.
struct Leftover {
    leaving: Rc<Leaving>,
    /// What there was of it at the last look at its rate.
    seen_bytes: u64,
    seen_at: Instant,
}

impl<S: Service> Line<S> {
    pub(super) fn new(
        worker: &Rc<Worker<S>>,
        settings: &Rc<Http2>,
        peer: &Address,
        conn: &mut Conn<'_>,
    ) -> Rc<Self> {
        let write_grace = conn.limits().write_grace;
        Rc::new(Self {
            worker: Rc::clone(worker),
            settings: Rc::clone(settings),
            peer: peer.clone(),
            #[cfg(feature = "tls")]
            facts: conn.layer_facts(),
            waker: conn.waker(),
            write_grace,
            least_taken_bytes: conn.limits().least_taken_bytes(write_grace),
            seconds: Cell::new((conn.now(), conn.unix_seconds())),
            is_stopping: Cell::new(conn.is_stopping()),
            is_short: Cell::new(false),
            is_backed_up: Cell::new(false),
            held: conn.hold_memory(),
            latest: RefCell::new(None),
            streams: Cell::new(0),
            begun: Cell::new(0),
            requests: Cell::new(0),
            panics: Cell::new(0),
            abandoned: Cell::new(0),
            overflows: Cell::new(0),
            open_bodies: Cell::new(0),
            taken_bytes: Cell::new(0),
            ahead_bytes: Cell::new(0),
            unsent_bytes: Cell::new(0),
            leftovers: RefCell::default(),
        })
    }

    /// Notes what the connection knows.
    pub(super) fn look(&self, conn: &Conn<'_>) {
        self.seconds.set((conn.now(), conn.unix_seconds()));
        self.is_stopping.set(conn.is_stopping());
        self.is_short.set(conn.is_short_of_memory());
    }

    /// Counts what was noted.
    pub(super) fn settle(&self, conn: &mut Conn<'_>) {
        conn.count_requests(self.requests.take());
        for _ in 0..self.panics.take() {
            conn.count_panic();
        }
        for _ in 0..self.abandoned.take() {
            conn.count_abandoned();
        }
        for _ in 0..self.overflows.take() {
            conn.count_memory_overflow();
        }
        count_panics(&self.worker, conn);
    }

    /// Seconds since 1970, now.
    pub(super) fn unix_seconds(&self) -> u64 {
        let (at, seconds) = self.seconds.get();
        seconds + time::now().duration_since(at).as_secs()
    }

    /// What goes with a request before anybody has seen it.
    pub(super) fn known(&self) -> Extensions {
        let extensions = Extensions::new();
        #[cfg(feature = "tls")]
        if let Some(facts) = &self.facts {
            extensions.insert(Facts::clone(facts));
        }
        extensions
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// The worker's connections hold all the memory that they may.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.get()
    }

    /// The connection takes no more output: what its requests have for it waits for that, and who is slow is its own to judge.
    pub(super) fn is_backed_up(&self) -> bool {
        self.is_backed_up.get()
    }

    pub(super) fn set_backed_up(&self, is_backed_up: bool) {
        self.is_backed_up.set(is_backed_up);
    }

    pub(super) fn hold_memory(&self) -> Held {
        self.held.another()
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams.get()
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun.get()
    }

    /// A request is there; one that could be read counts.
    pub(super) fn begin(&self, counts: bool) {
        self.streams.set(self.streams.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        self.requests.set(self.requests.get() + u64::from(counts));
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.streams.set(self.streams.get() - 1);
        if self.streams.get() == 0 {
            // Idle time begins.
            self.waker.wake_by_ref();
        }
    }

    pub(super) fn note_panic(&self) {
        self.panics.set(self.panics.get() + 1);
    }

    pub(super) fn note_panics(&self, panics: u32) {
        self.panics.set(self.panics.get() + panics);
    }

    pub(super) fn note_abandoned(&self) {
        self.abandoned.set(self.abandoned.get() + 1);
    }

    pub(super) fn note_overflow(&self) {
        self.overflows.set(self.overflows.get() + 1);
    }

    /// So much of a body was taken.
    pub(super) fn took(&self, bytes: usize) {
        self.taken_bytes.set(self.taken_bytes.get() + bytes as u64);
    }

    pub(super) fn opens_body(&self) {
        self.open_bodies.set(self.open_bodies.get() + 1);
    }

    pub(super) fn closes_body(&self) {
        self.open_bodies.set(self.open_bodies.get() - 1);
    }

    /// So much has come by now. Where no body is open nothing of it is held: what comes behind one that nobody reads on is dropped where
    /// frames are read, and not seen here.
    pub(super) fn forget_closed_bodies(&self, data_bytes: u64) {
        if self.open_bodies.get() == 0 {
            self.taken_bytes.set(data_bytes);
        }
    }

    pub(super) fn set_ahead_bytes(&self, bytes: u64) {
        self.ahead_bytes.set(bytes);
    }

    /// Bodies that their handlers do not take may have used up the window of all: the client cannot send what others wait for. The window
    /// is opened in halves.
    pub(super) fn may_be_shut(&self) -> bool {
        self.ahead_bytes.get() >= u64::from(self.settings.connection_window_bytes / 2)
    }

    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes.get()
    }

    /// So much of an answer was made.
    pub(super) fn made(&self, bytes: usize) {
        self.unsent_bytes.set(self.unsent_bytes.get() + bytes as u64);
    }

    /// So much of it has left, or is going nowhere.
    pub(super) fn let_go(&self, bytes: usize) {
        self.unsent_bytes.set(self.unsent_bytes.get() - bytes as u64);
    }

    /// The task of an answer has ended in front of its last bytes.
    pub(super) fn leaves_behind(&self, leaving: &Rc<Leaving>) {
        let (leaving, seen_bytes) = (Rc::clone(leaving), leaving.left_bytes());
        self.leftovers.borrow_mut().push(Leftover { leaving, seen_bytes, seen_at: time::now() });
    }

    /// When it is to be looked at what tasks have left behind.
    pub(super) fn leftovers_due_at(&self) -> Option<Instant> {
        let mut leftovers = self.leftovers.borrow_mut();
        leftovers.retain(|leftover| leftover.leaving.left_bytes() > 0);
        leftovers.iter().map(|leftover| leftover.seen_at.saturating_add(self.write_grace)).min()
    }

    /// Whether the client's windows leave any of that where it is, at the rate that goes for connections.
    pub(super) fn has_stuck_leftovers(&self, now: Instant) -> bool {
        let mut is_stuck = false;
        for leftover in &mut *self.leftovers.borrow_mut() {
            let left_bytes = leftover.leaving.left_bytes();
            if left_bytes == 0 || now < leftover.seen_at.saturating_add(self.write_grace) {
                continue;
            }
            is_stuck |= leftover.seen_bytes - left_bytes < self.least_taken_bytes && !self.is_backed_up();
            (leftover.seen_bytes, leftover.seen_at) = (left_bytes, now);
        }
        is_stuck
    }

    pub(super) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes.get()
    }
}
