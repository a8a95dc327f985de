//! One worker: it owns its connections, hears from its driver and opens its mail.
//!
//! The only implementation of [`Sink`] and [`Host`]; it sends each event to the table of its key and
//! carries out the commands that the callback left. No other thread touches any of it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::conn::{Command, ConnId, Context, Listeners, Start, Tables};
use crate::driver::{HangUp, Io, Sink, Verdict};
use crate::mem::{Guarded, Key, Pool};
use crate::reactor::{Agenda, Bell, Due, Host, Sender};
use crate::sys::{self, EventFd};
use crate::task::Deliver;
use crate::time::Instant;

/// The timer of the drain deadline: a key that no table issues.
const DRAIN_DEADLINE: Key = Key::new(u8::MAX, 0, 0);

/// The timer behind a spike, of no table either: when it comes up there is a turn, which looks whether more can go back.
const SPIKE_OVER: Key = Key::new(u8::MAX, 0, 1);

/// What other threads may ask of a worker.
pub enum Letter {
    /// A waker of this connection was woken.
    Woken(Key),
    Send {
        to: Key,
        bytes: Guarded<Bytes>,
    },
    Close {
        key: Key,
        reset: bool,
    },
    Connect(Box<dyn Start + Send>),
    /// Drain; cut what is left after this time.
    Stop {
        within: Duration,
    },
}

/// Wakers reach their worker through its mailbox.
pub struct Wakes(pub Sender<Letter>);

impl Deliver for Wakes {
    fn deliver(&self, key: Key) {
        self.0.send(Letter::Woken(key));
    }
}

impl Bell for std::sync::Arc<EventFd> {
    fn ring(&self) -> io::Result<()> {
        // A forked child would ring at its parent's.
        if sys::is_child() { Ok(()) } else { self.signal() }
    }
}

/// How the drain of a worker went, or of all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drained {
    /// Connections that were open when it began.
    pub open: u64,
    /// Connections that its deadline cut.
    pub cut: u64,
    /// How long it took; of several workers the longest.
    pub took: Duration,
}

impl Drained {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        self.open += other.open;
        self.cut += other.cut;
        self.took = self.took.max(other.took);
    }
}

/// The state of one worker.
pub struct Worker {
    pub cx: Context,
    pub tables: Tables,
    pub listeners: Listeners,
    /// Mailboxes of all workers, in order.
    pub workers: Vec<Sender<Letter>>,
    /// How its drain went.
    pub drained: Drained,
    drain_began: Instant,
}

impl Worker {
    pub fn new(cx: Context, workers: Vec<Sender<Letter>>) -> Self {
        Self {
            cx,
            tables: Tables::new(),
            listeners: Listeners::new(),
            workers,
            drained: Drained::default(),
            drain_began: Instant::ZERO,
        }
    }

    /// Carries out what was asked for before the first turn.
    pub fn begin(&mut self, io: &mut dyn Io) {
        self.obey(io);
    }

    /// Carries out what callbacks asked for, including what that leads to.
    #[inline]
    fn obey(&mut self, io: &mut dyn Io) {
        if !self.cx.commands.is_empty() {
            self.obey_all(io);
        }
    }

    #[cold]
    fn obey_all(&mut self, io: &mut dyn Io) {
        while !self.cx.commands.is_empty() {
            for command in self.cx.commands.take() {
                match command {
                    Command::Send { to, bytes } if to.worker == self.cx.worker => {
                        self.send(io, to.key, bytes);
                    }
                    Command::Send { to, bytes } => self.tell(to, Letter::Send { to: to.key, bytes }),
                    Command::Close { id, reset } if id.worker == self.cx.worker => {
                        self.close(io, id.key, reset);
                    }
                    Command::Close { id, reset } => self.tell(id, Letter::Close { key: id.key, reset }),
                    Command::Connect(dial) => dial.start(&mut self.tables, &mut self.cx, io),
                }
            }
        }
    }

    /// To the worker of a connection. A name from another runtime may have none here.
    fn tell(&self, id: ConnId, letter: Letter) {
        if let Some(worker) = self.workers.get(usize::from(id.worker)) {
            worker.send(letter);
        }
    }

    fn send(&mut self, io: &mut dyn Io, to: Key, bytes: Guarded<Bytes>) {
        if let Some(table) = self.tables.get(to) {
            table.send(&mut self.cx, io, to, bytes);
        }
    }

    fn close(&mut self, io: &mut dyn Io, key: Key, reset: bool) {
        if let Some(table) = self.tables.get(key) {
            table.close(&mut self.cx, io, key, reset);
        }
    }

    fn stop(&mut self, io: &mut dyn Io, within: Duration) {
        let now = self.cx.agenda.clock.now();
        let ends = now.saturating_add(within);
        if self.cx.stopping && ends >= self.cx.drain_ends {
            return;
        }
        self.cx.drain_ends = ends;
        self.cx.agenda.timers.insert(now, ends, DRAIN_DEADLINE);
        if self.cx.stopping {
            return;
        }
        self.cx.stopping = true;
        self.drained.open = self.tables.len() as u64;
        self.drain_began = now;
        self.cx.draining.store(true, Ordering::Relaxed);
        self.listeners.close_all(&mut self.cx, io);
        for table in self.tables.each() {
            table.stop_all(&mut self.cx, io);
        }
    }

    /// A spike is over: gives its memory back to the system.
    #[cold]
    fn give_back(&mut self, io: &mut dyn Io) {
        self.cx.agenda.shrink();
        self.cx.addresses.shrink();
        self.tables.shrink();
        io.shrink();
        sys::release_free_memory();
        self.cx.agenda.stats.spikes += 1;
        // What was left of it goes in a moment, and a worker that is idle by then has no turn of its own.
        let agenda = &mut self.cx.agenda;
        let now = agenda.clock.now();
        agenda.timers.insert(now, now.saturating_add(agenda.spike.rest()), SPIKE_OVER);
    }

    /// Ends what is left when its loop has ended, for whatever reason: nobody is served any more.
    pub fn end(&mut self, io: &mut dyn Io) {
        drop(self.cx.commands.take());
        self.listeners.cut_all(io);
        for table in self.tables.each() {
            table.cut_all(&mut self.cx, io);
        }
    }

    /// The drain is over.
    pub fn has_drained(&mut self) {
        if self.cx.stopping {
            self.drained.took = self.cx.agenda.clock.refresh().duration_since(self.drain_began);
        }
    }

    fn cut(&mut self, io: &mut dyn Io) {
        self.listeners.cut_all(io);
        for table in self.tables.each() {
            self.drained.cut += table.cut_all(&mut self.cx, io) as u64;
        }
    }
}

impl Sink for Worker {
    fn pool(&mut self) -> &mut Pool {
        &mut self.cx.agenda.pool
    }

    fn accepted(&mut self, io: &mut dyn Io, listener: Key, peer: io::Result<SocketAddr>) -> Option<Key> {
        let admitted = self.listeners.accepted(&mut self.tables, &mut self.cx, io, listener, peer);
        self.obey(io);
        admitted
    }

    fn opened(&mut self, io: &mut dyn Io, key: Key, result: io::Result<()>) {
        if let Some(table) = self.tables.get(key) {
            table.opened(&mut self.cx, io, key, result);
            self.obey(io);
        }
    }

    #[inline]
    fn received(&mut self, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict {
        let Some(table) = self.tables.get(key) else { return Verdict::Gone };
        let verdict = table.received(&mut self.cx, io, key, chunk);
        self.obey(io);
        verdict
    }

    fn unsent(&mut self, key: Key, bytes: &[u8]) {
        if let Some(table) = self.tables.get(key) {
            table.unsent(&mut self.cx, key, bytes);
        }
    }

    fn sent(&mut self, io: &mut dyn Io, key: Key, bytes: usize) {
        if let Some(table) = self.tables.get(key) {
            table.sent(&mut self.cx, io, key, bytes);
            self.obey(io);
        }
    }

    fn hung_up(&mut self, io: &mut dyn Io, key: Key, how: HangUp) {
        if let Some(table) = self.tables.get(key) {
            table.hung_up(&mut self.cx, io, key, how);
            self.obey(io);
        }
    }

    fn ending(&mut self, io: &mut dyn Io, key: Key) {
        if let Some(table) = self.tables.get(key) {
            table.ending(&mut self.cx, io, key);
            self.obey(io);
        }
    }

    fn delivered(&mut self, io: &mut dyn Io) {
        sys::assert_not_forked();
        while let Some(key) = self.cx.agenda.dirty.pop_front() {
            self.flush(io, key);
        }
    }

    fn unfinished(&mut self, key: Key) {
        if key.table() == Tables::LISTENERS {
            self.listeners.unfinished(&mut self.cx, key);
        } else if let Some(table) = self.tables.get(key) {
            table.unfinished(&mut self.cx, key);
        }
    }
}

impl Host for Worker {
    type Letter = Letter;

    fn agenda(&mut self) -> &mut Agenda {
        &mut self.cx.agenda
    }

    fn letter(&mut self, io: &mut dyn Io, letter: Letter) {
        match letter {
            Letter::Woken(key) => {
                if let Some(table) = self.tables.get(key) {
                    table.woken(&mut self.cx, io, key);
                }
            }
            Letter::Send { to, bytes } => self.send(io, to, bytes),
            Letter::Close { key, reset } => self.close(io, key, reset),
            Letter::Connect(dial) => dial.start(&mut self.tables, &mut self.cx, io),
            Letter::Stop { within } => self.stop(io, within),
        }
        self.obey(io);
    }

    fn resume(&mut self, io: &mut dyn Io, key: Key) -> bool {
        if key.table() == Tables::LISTENERS {
            return self.listeners.resume(&mut self.cx, io, key);
        }
        let Some(table) = self.tables.get(key) else { return false };
        let more = table.resume(&mut self.cx, io, key);
        self.obey(io);
        more
    }

    fn flush(&mut self, io: &mut dyn Io, key: Key) {
        if let Some(table) = self.tables.get(key) {
            table.flush(&mut self.cx, io, key);
            self.obey(io);
        }
    }

    fn came_up(&mut self, io: &mut dyn Io, key: Key) -> Due {
        if key == DRAIN_DEADLINE {
            return Due::LookAtAll;
        }
        if key.table() == Tables::LISTENERS {
            return Due::Now;
        }
        let Some(table) = self.tables.get(key) else { return Due::Not };
        let due = table.came_up(&mut self.cx, io, key);
        self.obey(io);
        due
    }

    fn connections(&mut self) -> Vec<Key> {
        self.tables.keys()
    }

    fn expired(&mut self, io: &mut dyn Io, key: Key) {
        if key == DRAIN_DEADLINE {
            self.cut(io);
        } else if key.table() == Tables::LISTENERS {
            self.listeners.expired(&mut self.cx, io, key);
        } else if let Some(table) = self.tables.get(key) {
            table.expired(&mut self.cx, io, key);
        }
        self.obey(io);
    }

    fn reclaim(&mut self, io: &mut dyn Io) {
        self.tables.reclaim();
        self.listeners.reclaim();
        let agenda = &mut self.cx.agenda;
        let (in_use, open, now) = (agenda.pool.in_use_bytes(), agenda.stats.open(), agenda.clock.now());
        if agenda.spike.is_over(in_use, open, now) {
            self.give_back(io);
        }
    }

    fn is_finished(&self) -> bool {
        // Asked in every turn: a callback that forked must not run this loop twice on one epoll set.
        sys::assert_not_forked();
        self.cx.stopping && self.listeners.is_empty() && self.tables.len() == 0
    }
}
