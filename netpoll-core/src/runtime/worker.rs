//! One worker: it owns its connections, hears from its driver and opens its mail.
//!
//! The only implementation of [`Sink`] and [`Host`]; it sends each event to the table of its key and
//! carries out the commands that the callback left. No other thread touches any of it.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::clockwork::Instant;
use crate::conn::{
    Answer, Arrived, CUT_PEERS_MAX, Callee, Command, ConnId, Context, CutPeer, DatagramId, Later, Letter,
    Listeners, LongTurn, Message, Order, OwnSuccession, Reach, Sockets, Tables, Template, Watch,
    desk::{self, Desk},
};
use crate::driver::{Datagrams, HangUp, Io, Ready, Sink, Verdict, Watcher};
use crate::mem::{self, Guarded, Key, Pool};
use crate::net::Watched;
use crate::reactor::{Agenda, Bell, Due, Host};
use crate::sys::{self, Address, Doorbell};
use crate::task::{self, Came, Lane};

/// The timer of the drain deadline: a key that no table issues.
const DRAIN_DEADLINE: Key = Key::new(u8::MAX, 0, 0);

/// The timer behind a spike, of no table either: when it comes up there is a turn, which looks whether more can go back.
const SPIKE_OVER: Key = Key::new(u8::MAX, 0, 1);

/// Rounds of commands that led to commands, after which others come first.
const ROUNDS_MAX: usize = 64;

/// Polls of tasks in a row, after which sockets have their turn.
const POLLS_PER_SLICE: usize = 128;

impl Bell for std::sync::Arc<Doorbell> {
    fn ring(&self) -> io::Result<()> {
        // A forked child would ring at its parent's.
        if sys::is_child() { Ok(()) } else { self.signal() }
    }
}

/// How the drain of a worker went, or of all of them.
#[derive(Debug, Default)]
pub struct Drained {
    /// Connections that were open when it began.
    pub open: u64,
    /// Connections that went over to the process that follows before it began.
    pub moved: u64,
    /// Connections that its deadline cut.
    pub cut: u64,
    /// Who was at the other end of some of them.
    pub cut_peers: Vec<CutPeer>,
    /// Tasks that it dropped.
    pub tasks_cut: u64,
    /// How long it took; of several workers the longest.
    pub took: Duration,
}

impl Drained {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        self.open += other.open;
        self.moved += other.moved;
        self.cut += other.cut;
        let room = CUT_PEERS_MAX.saturating_sub(self.cut_peers.len());
        self.cut_peers.extend(other.cut_peers.into_iter().take(room));
        self.tasks_cut += other.tasks_cut;
        self.took = self.took.max(other.took);
    }
}

/// The state of one worker.
pub struct Worker {
    pub cx: Context,
    pub tables: Tables,
    pub listeners: Listeners,
    pub sockets: Sockets,
    /// Descriptors that are watched for its tasks.
    watched: Rc<Watched>,
    /// How its drain went.
    pub drained: Drained,
    drain_began: Instant,
    /// It has said that it has nothing left.
    has_left: Cell<bool>,
    /// A letter to itself is under way, behind which commands go on.
    obeys_later: bool,
    /// Code that others come before.
    later: Vec<Later>,
    /// Polls of tasks that the batches of this turn may still bring.
    polls_left: usize,
    /// Which call makes a turn long.
    watch: Watch,
}

impl Worker {
    pub fn new(cx: Context, watcher: Option<Rc<dyn Watcher>>) -> Self {
        let watched = Watched::of(&cx.lane, watcher);
        Self {
            watched,
            cx,
            tables: Tables::new(),
            listeners: Listeners::new(),
            sockets: Sockets::new(),
            drained: Drained::default(),
            drain_began: Instant::ZERO,
            has_left: Cell::new(false),
            obeys_later: false,
            later: Vec::new(),
            polls_left: POLLS_PER_SLICE,
            watch: Watch::default(),
        }
    }

    /// A call into the program has returned that was for this key.
    #[inline]
    fn lap(&mut self, key: Key) {
        if self.watch.is_on() {
            self.lap_of(self.callee(key));
        }
    }

    #[cold]
    fn lap_of(&mut self, callee: Callee) {
        self.watch.lap(self.cx.lane.now(), callee);
    }

    /// What is called for a key: of a task before it is polled.
    #[cold]
    fn callee(&self, key: Key) -> Callee {
        let worker = self.cx.worker;
        match key.table() {
            task::TABLE => self.cx.lane.executor().place(key).map_or(Callee::Code, Callee::Task),
            Sockets::TABLE => Callee::Datagrams(DatagramId { worker, key }),
            _ if Tables::is_of_connections(key) => {
                Callee::Connection(ConnId { worker, key: self.cx.dialed.name_of(key) })
            }
            _ => Callee::Code,
        }
    }

    /// What a letter calls.
    #[cold]
    fn addressee(&self, letter: &Letter) -> Callee {
        match letter {
            Letter::Tell { to, .. } | Letter::Send { to, .. } => self.callee(self.cx.dialed.key_of(*to)),
            Letter::Order { key, .. } => self.callee(self.cx.dialed.key_of(*key)),
            Letter::Woken(key) | Letter::Found { key, .. } | Letter::SendDatagram { from: key, .. } => {
                self.callee(*key)
            }
            _ => Callee::Code,
        }
    }

    /// Carries out what tasks have ordered.
    #[cold]
    fn obey_tasks(&mut self, io: &mut dyn Io) {
        let mut given = self.cx.reach.take_given();
        self.cx.commands.append(&mut given);
        self.obey(io);
    }

    /// Carries out what was asked for before the first turn.
    pub fn begin(&mut self, io: &mut dyn Io) {
        self.sockets.open_all(&mut self.cx, io);
        self.obey(io);
    }

    /// Carries out what callbacks asked for, including what that leads to.
    #[inline]
    fn obey(&mut self, io: &mut dyn Io) {
        if !self.cx.commands.is_empty() && !self.obeys_later {
            self.obey_all(io);
        }
    }

    #[cold]
    fn obey_all(&mut self, io: &mut dyn Io) {
        for _ in 0..ROUNDS_MAX {
            if self.cx.commands.is_empty() {
                return;
            }
            let mut commands = self.cx.commands.take();
            for command in commands.drain(..) {
                self.carry_out(io, command);
            }
            self.cx.commands.reuse(commands);
        }
        // Two that answer each other would go on for ever.
        if !self.cx.commands.is_empty() {
            self.obeys_later = true;
            self.cx.handle.workers[usize::from(self.cx.worker)].send(Letter::Obey);
        }
    }

    fn carry_out(&mut self, io: &mut dyn Io, command: Command) {
        let own = self.cx.worker;
        match command {
            Command::Send { to, bytes } if to.worker == own => self.send(io, to.key, bytes),
            Command::Send { to, bytes } => self.post(to, Letter::Send { to: to.key, bytes }),
            Command::SendMany { to, bytes } => {
                for id in to.iter().filter(|id| id.worker == own) {
                    self.send(io, id.key, Guarded::new(Bytes::clone(&bytes)));
                }
                let others = to.into_iter().filter(|id| id.worker != own);
                self.cx.handle.send_many(others, Bytes::clone(&bytes));
            }
            Command::Tell { to, message } if to.worker == own => self.tell(io, to.key, message),
            Command::Tell { to, message } => self.post(to, Letter::Tell { to: to.key, message }),
            Command::TellMany { to, template } => {
                for id in to.iter().filter(|id| id.worker == own) {
                    self.tell_copy(io, id.key, &*template);
                }
                let others = to.into_iter().filter(|id| id.worker != own);
                self.cx.handle.tell_all_of(others, || template.another());
            }
            Command::Order { id, order } if id.worker == own => self.order(io, id.key, order),
            Command::Order { id, order } => self.post(id, Letter::Order { key: id.key, order }),
            Command::Connect(dial) => dial.start(&mut self.tables, &mut self.cx, io),
            Command::Run { worker, code } if worker == own => {
                self.cx.run(|local| code.into_inner()(local));
            }
            Command::Run { worker, code } => {
                self.cx.handle.workers[usize::from(worker)].send(Letter::Run(code));
            }
            Command::RunLater(code) => self.later.push(code),
            Command::SendDatagram { from, packet } if from.worker == own => {
                self.sockets.send(&mut self.cx, from.key, packet.to, &packet.bytes);
            }
            Command::SendDatagram { from, packet } => {
                self.post_to(from.worker, Letter::SendDatagram { from: from.key, packet });
            }
            Command::OnSockets(job) => job(&mut self.sockets, &mut self.cx, io),
            Command::Link { from, to } => {
                let (from, to) = (self.own(from), self.own(to));
                self.tables.link(&mut self.cx, io, from, to);
            }
            Command::Install(install) => install(&mut self.listeners, &mut self.cx, io),
            Command::Forward(what) => self.tables.forward(&mut self.cx, io, what),
            Command::Queued { id, answer } => self.answer(id, answer.into_inner()),
            Command::Arm { timer, after } => self.cx.arm_timer(timer, after),
            Command::Disarm(entry) => {
                self.cx.agenda.timers.remove(entry);
            }
        }
    }

    /// The chunk goes to another connection, the callback has given commands, or it is timed.
    #[cold]
    fn received_with_commands(
        &mut self,
        io: &mut dyn Io,
        key: Key,
        chunk: &[u8],
        verdict: Verdict,
    ) -> Verdict {
        let forwards = self.cx.commands.take_chunk();
        let verdict =
            if forwards { self.tables.forward_chunk(&mut self.cx, io, key, chunk) } else { verdict };
        self.obey(io);
        self.lap(key);
        verdict
    }

    /// The key of a connection that lives here.
    fn own(&self, id: ConnId) -> Option<Key> {
        (id.worker == self.cx.worker).then(|| self.cx.dialed.key_of(id.key))
    }

    /// Tells how much a connection has queued.
    fn answer(&mut self, id: ConnId, answer: Answer) {
        let key = self.own(id);
        let queued = key.and_then(|key| {
            let on_wire = self.tables.get(key)?.stream(key)?.waiting_bytes();
            Some(on_wire + self.cx.above.get(&key).unwrap_or(&0))
        });
        if mem::guarded(|| answer(queued, &mut self.cx.commands)).is_none() {
            crate::log::panicked(&id);
        }
        sys::assert_not_forked();
    }

    /// To the worker of a connection. A name from another runtime may have none here.
    fn post(&self, id: ConnId, letter: Letter) {
        self.post_to(id.worker, letter);
    }

    fn post_to(&self, worker: u16, letter: Letter) {
        if let Some(worker) = self.cx.handle.workers.get(usize::from(worker)) {
            worker.send(letter);
        }
    }

    fn tell(&mut self, io: &mut dyn Io, to: Key, message: Message) {
        let to = self.cx.dialed.key_of(to);
        if let Some(table) = self.tables.get(to) {
            table.tell(&mut self.cx, io, to, message);
        }
    }

    fn tell_copy(&mut self, io: &mut dyn Io, to: Key, template: &dyn Template) {
        if let Some(message) = template.message() {
            self.tell(io, to, message);
        }
    }

    fn send(&mut self, io: &mut dyn Io, to: Key, bytes: Guarded<Bytes>) {
        let to = self.cx.dialed.key_of(to);
        if let Some(table) = self.tables.get(to) {
            table.send(&mut self.cx, io, to, bytes);
        }
    }

    fn order(&mut self, io: &mut dyn Io, key: Key, order: Order) {
        let key = self.cx.dialed.key_of(key);
        if let Some(table) = self.tables.get(key) {
            table.order(&mut self.cx, io, key, order);
        }
    }

    /// Asks where a peer comes from that was accepted without an address, and whether there is room for it.
    #[cold]
    fn ask(&mut self, io: &mut dyn Io, key: Key, result: io::Result<()>) -> io::Result<()> {
        result?;
        match io.peer_addr(key) {
            Some(peer) if !self.cx.addresses.is_from(&peer, key) => {
                self.cx.agenda.stats.shed_by_address += 1;
                let message = "its address has as many connections as one may have";
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, message))
            }
            _ => Ok(()),
        }
    }

    /// Brings a wake to where its key leads.
    fn woken(&mut self, io: &mut dyn Io, key: Key, came: Came) {
        if key.table() == task::TABLE {
            let lane = Rc::clone(&self.cx.lane);
            desk::lend(&mut self.cx, io, || lane.executor().poll(&lane, key, came));
        } else if let Some(table) = self.tables.get(key) {
            table.woken(&mut self.cx, io, key, came);
        } else if key.table() == Sockets::TABLE {
            self.sockets.woken(&mut self.cx, io, key, came);
        } else if key == Reach::GIVEN {
            self.obey_tasks(io);
        }
    }

    /// Brings the wakes of this thread to where they lead, so many at most.
    #[inline(never)]
    fn run_all_woken(&mut self, io: &mut dyn Io, at_most: usize) {
        if self.watch.is_on() {
            self.run_all_woken_timed(io, at_most);
        } else {
            self.run_woken(io, at_most);
        }
        self.look_after_stirred(io);
        sys::assert_not_forked();
    }

    #[inline]
    fn run_woken(&mut self, io: &mut dyn Io, mut at_most: usize) {
        let lane = Rc::clone(&self.cx.lane);
        while at_most > 0 {
            if let Some(other) = self.run_tasks(io, &lane, &mut at_most) {
                self.woken(io, other, Came::Here);
            }
            self.obey(io);
        }
    }

    /// Polls the tasks among those that were woken, until something else comes first: the key of somebody else, or what a task has asked for.
    /// Nothing is left of `at_most` when the list is empty.
    #[inline(always)]
    fn run_tasks(&mut self, io: &mut dyn Io, lane: &Rc<Lane>, at_most: &mut usize) -> Option<Key> {
        let mut desk = Desk::new(&mut self.cx, io);
        while *at_most > 0 {
            let Some(key) = lane.take_woken() else {
                *at_most = 0;
                break;
            };
            *at_most -= 1;
            if key.table() != task::TABLE {
                return Some(key);
            }
            desk.lend(|| lane.executor().poll(lane, key, Came::Here));
            if !desk.cx.commands.is_empty() {
                break;
            }
        }
        None
    }

    /// The same, with a reading of the clock behind each.
    #[cold]
    fn run_all_woken_timed(&mut self, io: &mut dyn Io, at_most: usize) {
        for _ in 0..at_most {
            let Some(key) = self.cx.lane.take_woken() else { break };
            let callee = self.callee(key);
            self.woken(io, key, Came::Here);
            self.obey(io);
            self.lap_of(callee);
        }
    }

    /// Runs the code that was put off to this turn. What that puts off is for the next.
    #[cold]
    fn run_later(&mut self, io: &mut dyn Io) {
        for code in std::mem::take(&mut self.later) {
            self.cx.run(|local| code.into_inner()(local));
            self.obey(io);
            if self.watch.is_on() {
                self.lap_of(Callee::Code);
            }
        }
    }

    /// Looks after those to whom tasks have left something. What that leads to is for the next time.
    #[inline]
    fn look_after_stirred(&mut self, io: &mut dyn Io) {
        for _ in 0..self.cx.lane.stirred() {
            let Some(key) = self.cx.lane.take_stirred() else { return };
            self.stirred(io, key);
            self.obey(io);
            self.lap(key);
        }
    }

    fn stirred(&mut self, io: &mut dyn Io, key: Key) {
        if key.table() == Tables::LISTENERS {
            self.listeners.stirred(&mut self.cx, io, key);
        } else if let Some(table) = self.tables.get(key) {
            table.order(&mut self.cx, io, key, Order::Wake);
        } else if key.table() == Sockets::TABLE {
            self.sockets.woken(&mut self.cx, io, key, Came::Here);
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
        self.move_idle(io);
        for table in self.tables.each() {
            table.stop_all(&mut self.cx, io);
        }
        self.sockets.stop_all(&mut self.cx, io);
        self.cx.lane.stop();
    }

    /// Sends connections that can go on in the process that follows there.
    #[cold]
    fn move_idle(&mut self, io: &mut dyn Io) {
        let Some(OwnSuccession { shared, moves: true, .. }) = self.cx.handle.succession.clone() else {
            return;
        };
        let Some(way) = shared.take_way(usize::from(self.cx.worker)) else { return };
        for table in self.tables.each() {
            self.drained.moved += table.move_idle(&mut self.cx, io, &shared, &way);
        }
        self.drained.open -= self.drained.moved;
    }

    /// Goes on with a connection of the process before.
    #[cold]
    fn take_over(&mut self, io: &mut dyn Io, arrived: Arrived) {
        let Arrived { of, socket, state } = arrived;
        // It may have ended on its way, and so may the listener.
        let (Ok(peer), Some(listener)) = (sys::peer_addr(socket.as_fd()), self.listeners.of(of)) else {
            return;
        };
        let Self { listeners, tables, cx, .. } = self;
        let Some(key) = listeners.arrived(tables, cx, io, listener, peer) else { return };
        let result = io.adopt(key, socket);
        self.opened(io, key, result);
        if let Some(table) = self.tables.get(key) {
            table.has_arrived(&mut self.cx, io, key, &state);
        }
    }

    /// A spike is over: gives its memory back to the system.
    #[cold]
    fn give_back(&mut self, io: &mut dyn Io) {
        self.cx.agenda.shrink();
        self.cx.addresses.shrink();
        self.cx.attempts.shrink();
        self.cx.dialed.shrink();
        self.cx.forwards.shrink();
        self.cx.above.shrink_to_fit();
        self.tables.shrink();
        self.cx.commands.shrink();
        self.sockets.shrink();
        self.cx.lane.shrink();
        self.cx.reach.shrink();
        self.watched.shrink();
        io.shrink();
        sys::release_free_memory();
        if self.watch.is_on() {
            self.watch.resume(self.cx.lane.now());
        }
        self.cx.agenda.stats.spikes += 1;
        // What was left of it goes in a moment, and a worker that is idle by then has no turn of its own.
        let agenda = &mut self.cx.agenda;
        let now = agenda.clock.now();
        agenda.timers.insert(now, now.saturating_add(agenda.spike.rest()), SPIKE_OVER);
    }

    /// Ends what is left when its loop has ended, for whatever reason: nobody is served any more.
    pub fn end(&mut self, io: &mut dyn Io) {
        let lane = Rc::clone(&self.cx.lane);
        let _entered = lane.enter();
        // Tasks first, while everything that they own still works; daemons last, which hear of the others.
        desk::lend(&mut self.cx, io, || lane.executor().close_to_tasks());
        self.clear_orders();
        self.listeners.cut_all(io);
        self.close_quiet(io);
        for table in self.tables.each() {
            table.cut_all(&mut self.cx, io, &mut Vec::new());
        }
        self.sockets.cut_all(&mut self.cx, io);
        // What the last callbacks wanted; then nobody is left who could see the state.
        self.clear_orders();
        desk::lend(&mut self.cx, io, || lane.executor().close());
        drop(self.cx.reach.take_given());
        self.watched.close();
        self.cx.states.0.clear();
        lane.settle(&mut self.cx.agenda.pool);
    }

    /// Closes what is connected to servers and holds no drain: they are told, and not reset.
    pub fn close_quiet(&mut self, io: &mut dyn Io) {
        for table in self.tables.each() {
            table.close_quiet(&mut self.cx, io);
        }
    }

    fn clear_orders(&mut self) {
        self.cx.commands.clear();
        self.later.clear();
        drop(self.cx.reach.take_given());
    }

    /// Nothing is left here, in a drain, nor on any other worker.
    #[cold]
    fn has_finished(&self) -> bool {
        if !self.listeners.is_empty()
            || !self.sockets.is_empty()
            || self.cx.lane.executor().waited() > 0
            // What a task has left for a connection may be something to send.
            || self.tables.len() > 0 && (self.cx.lane.stirred() > 0 || self.tables.hold_drain())
        {
            if self.has_left.get() {
                self.come_back();
            }
            return false;
        }
        // Others may still need what is kept here, and send code for it.
        self.leave();
        self.cx.handle.undrained.load(Ordering::Acquire) == 0
    }

    /// Says, once, that nothing is left here. The last one tells the others.
    #[cold]
    pub fn leave(&self) {
        if self.has_left.replace(true) || self.cx.handle.undrained.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let others = self.cx.handle.workers.iter().enumerate();
        for (_, worker) in others.filter(|(index, _)| *index != usize::from(self.cx.worker)) {
            worker.send(Letter::AllDrained);
        }
    }

    /// Takes it back, if there still is somebody to wait: others have given this worker something.
    #[cold]
    fn come_back(&self) {
        let one_more = |left: usize| (left > 0).then_some(left + 1);
        let come_back = self.cx.handle.undrained.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        self.has_left.set(come_back.is_err());
    }

    /// The drain is over.
    pub fn has_drained(&mut self) {
        if self.cx.stopping {
            self.drained.took = self.cx.agenda.clock.refresh().duration_since(self.drain_began);
        }
    }

    fn cut(&mut self, io: &mut dyn Io) {
        self.drained.tasks_cut += self.cx.lane.executor().waited() as u64;
        // While everything that they own still works. Daemons are for the end.
        let lane = Rc::clone(&self.cx.lane);
        desk::lend(&mut self.cx, io, || lane.executor().close_to_tasks());
        self.listeners.cut_all(io);
        for table in self.tables.each() {
            self.drained.cut += table.cut_all(&mut self.cx, io, &mut self.drained.cut_peers) as u64;
        }
        self.sockets.cut_all(&mut self.cx, io);
    }
}

impl Sink for Worker {
    fn pool(&mut self) -> &mut Pool {
        &mut self.cx.agenda.pool
    }

    fn accepted(&mut self, io: &mut dyn Io, listener: Key, peer: io::Result<Option<Address>>) -> Option<Key> {
        let admitted = self.listeners.accepted(&mut self.tables, &mut self.cx, io, listener, peer);
        self.obey(io);
        // Nothing of the newcomer was called.
        self.lap(listener);
        admitted
    }

    fn listener_empty(&mut self, io: &mut dyn Io, listener: Key) {
        self.listeners.empty(io, listener);
    }

    fn opened(&mut self, io: &mut dyn Io, key: Key, result: io::Result<()>) {
        let result = if self.cx.addresses.is_to_ask(key) { self.ask(io, key, result) } else { result };
        if let Some(table) = self.tables.get(key) {
            table.opened(&mut self.cx, io, key, result);
            self.obey(io);
            self.lap(key);
        }
    }

    #[inline]
    fn received(&mut self, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict {
        let Some(table) = self.tables.get(key) else { return Verdict::Gone };
        let verdict = table.received(&mut self.cx, io, key, chunk);
        if self.cx.commands.is_empty() && !self.watch.is_on() {
            return verdict;
        }
        self.received_with_commands(io, key, chunk, verdict)
    }

    fn splices_to(&mut self, key: Key) -> Option<Key> {
        self.tables.splices_to(&self.cx, key)
    }

    fn spliced(&mut self, io: &mut dyn Io, key: Key, bytes: usize, rest: &[u8]) -> Verdict {
        let verdict = self.tables.spliced(&mut self.cx, io, key, bytes, rest);
        self.obey(io);
        self.lap(key);
        verdict
    }

    fn announced(&mut self, io: &mut dyn Io, key: Key) -> Option<Verdict> {
        let verdict = self.tables.get(key)?.announced(&mut self.cx, io, key);
        if !self.cx.commands.is_empty() || self.watch.is_on() {
            self.obey(io);
            self.lap(key);
        }
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
            self.lap(key);
        } else if key.table() == Sockets::TABLE {
            self.sockets.sent(&mut self.cx, io, key);
            self.obey(io);
            self.lap(key);
        }
    }

    fn datagrams(&mut self, io: &mut dyn Io, key: Key, batch: &mut Datagrams<'_>) {
        self.sockets.received(&mut self.cx, io, key, batch);
        self.obey(io);
        self.lap(key);
    }

    fn hung_up(&mut self, io: &mut dyn Io, key: Key, how: HangUp) {
        if let Some(table) = self.tables.get(key) {
            table.hung_up(&mut self.cx, io, key, how);
            self.obey(io);
            self.lap(key);
        }
    }

    fn ending(&mut self, io: &mut dyn Io, key: Key) {
        if let Some(table) = self.tables.get(key) {
            table.ending(&mut self.cx, io, key);
            self.obey(io);
            self.lap(key);
        }
    }

    fn delivered(&mut self, io: &mut dyn Io) {
        sys::assert_not_forked();
        if self.cx.lane.has_woken() {
            // Each once: who wakes others, or itself, does so for later. Of all batches of a turn no more than a slice.
            let at_most = self.cx.lane.woken().min(self.polls_left);
            self.polls_left -= at_most;
            self.run_all_woken(io, at_most);
        }
        while let Some(key) = self.cx.agenda.dirty.pop_front() {
            self.flush(io, key);
        }
    }

    fn ready(&mut self, key: Key, ready: Ready) {
        self.watched.report(key, ready);
        self.lap(key);
    }

    fn unfinished(&mut self, key: Key) {
        if key.table() == Tables::LISTENERS {
            self.listeners.unfinished(&mut self.cx, key);
        } else if let Some(table) = self.tables.get(key) {
            table.unfinished(&mut self.cx, key);
        } else if key.table() == Sockets::TABLE {
            self.sockets.unfinished(&mut self.cx, key);
        }
    }
}

/// The next of many: one, and as many as are left for this turn.
fn next_of<'t>(to: &'t mut Vec<Key>, left: &mut usize) -> impl Iterator<Item = Key> + use<'t> {
    let count = to.len().min(*left + 1);
    *left -= count.saturating_sub(1);
    to.drain(to.len() - count..).rev()
}

impl Host for Worker {
    type Letter = Letter;

    fn agenda(&mut self) -> &mut Agenda {
        &mut self.cx.agenda
    }

    fn letter(&mut self, io: &mut dyn Io, letter: Letter, left: &mut usize) -> Option<Letter> {
        let mut rest = None;
        let callee = self.watch.is_on().then(|| self.addressee(&letter));
        match letter {
            Letter::Woken(key) => self.woken(io, key, Came::ByLetter),
            Letter::Send { to, bytes } => self.send(io, to, bytes),
            Letter::SendMany { mut to, bytes } => {
                next_of(&mut to, left).for_each(|key| self.send(io, key, Guarded::new(bytes.clone())));
                rest = (!to.is_empty()).then_some(Letter::SendMany { to, bytes });
            }
            Letter::Tell { to, message } => self.tell(io, to, message),
            Letter::TellMany { mut to, template } => {
                next_of(&mut to, left).for_each(|key| self.tell_copy(io, key, &*template));
                rest = (!to.is_empty()).then_some(Letter::TellMany { to, template });
            }
            Letter::Order { key, order } => self.order(io, key, order),
            Letter::Connect(dial) => dial.start(&mut self.tables, &mut self.cx, io),
            Letter::Run(code) => {
                self.cx.run(|local| code.into_inner()(local));
            }
            Letter::SendDatagram { from, packet } => {
                self.sockets.send(&mut self.cx, from, packet.to, &packet.bytes);
            }
            Letter::Arrived(arrived) => self.take_over(io, *arrived),
            Letter::LookAtListeners => self.listeners.look_at_all(&mut self.cx),
            Letter::AllDrained => {}
            Letter::Obey => {
                self.obeys_later = false;
                *left = 0;
            }
            Letter::Found { key, found } if key.table() == Tables::LOOKUPS => {
                self.cx.lookups.found(key, found);
            }
            Letter::Found { key, found } => {
                if let Some(table) = self.tables.get(key) {
                    table.found(&mut self.cx, io, key, found);
                }
            }
            Letter::Stop { within } => self.stop(io, within),
        }
        self.obey(io);
        if let Some(callee) = callee {
            self.lap_of(callee);
        }
        rest
    }

    fn resume(&mut self, io: &mut dyn Io, key: Key) -> bool {
        if key.table() == Tables::LISTENERS {
            return self.listeners.resume(key);
        }
        let more = match self.tables.get(key) {
            Some(table) => table.resume(&mut self.cx, io, key),
            None => key.table() == Sockets::TABLE && self.sockets.resume(&mut self.cx, io, key),
        };
        self.obey(io);
        self.lap(key);
        more
    }

    fn flush(&mut self, io: &mut dyn Io, key: Key) {
        if let Some(table) = self.tables.get(key) {
            table.flush(&mut self.cx, io, key);
            self.obey(io);
            self.lap(key);
        } else if key.table() == Sockets::TABLE {
            self.sockets.flush(&mut self.cx, io, key);
        }
    }

    fn run_woken(&mut self, io: &mut dyn Io) -> usize {
        let before = self.cx.lane.woken() + self.later.len();
        if !self.later.is_empty() {
            self.run_later(io);
        }
        self.polls_left = POLLS_PER_SLICE;
        if self.cx.lane.has_woken() {
            self.run_all_woken(io, POLLS_PER_SLICE);
        }
        before
    }

    #[inline]
    fn has_woken(&self) -> bool {
        self.cx.lane.has_woken() || !self.later.is_empty()
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        let (timers, sleeps) = (self.cx.agenda.timers.next_deadline(), self.cx.lane.sleeps().next_deadline());
        match (timers, sleeps) {
            (Some(timer), Some(sleep)) => Some(timer.min(sleep)),
            (timer, sleep) => timer.or(sleep),
        }
    }

    #[inline]
    fn wake_sleepers(&mut self, now: Instant, at_most: usize) -> usize {
        let lane = &self.cx.lane;
        let woken = lane.sleeps().expire(lane, now, at_most);
        // Wakers may be anybody's.
        self.lap(DRAIN_DEADLINE);
        woken
    }

    fn came_up(&mut self, io: &mut dyn Io, key: Key) -> Due {
        if key == DRAIN_DEADLINE {
            return Due::LookAtAll;
        }
        if matches!(key.table(), Tables::LISTENERS | Tables::TIMERS) {
            return Due::Now;
        }
        if key.table() == Sockets::TABLE {
            let due = self.sockets.came_up(&mut self.cx, key);
            self.lap(key);
            return due;
        }
        let Some(table) = self.tables.get(key) else { return Due::Not };
        let due = table.came_up(&mut self.cx, io, key);
        self.obey(io);
        self.lap(key);
        self.tables.look_at_source(&self.cx, key, due)
    }

    fn connections(&mut self) -> Vec<Key> {
        let mut keys = self.tables.keys();
        keys.extend(self.sockets.keys());
        keys
    }

    fn expired(&mut self, io: &mut dyn Io, key: Key) {
        if key == DRAIN_DEADLINE {
            self.cut(io);
        } else if key.table() == Tables::LISTENERS {
            self.listeners.expired(&mut self.cx, io, key);
        } else if key.table() == Tables::TIMERS {
            self.cx.timer_came_up(key);
        } else if let Some(table) = self.tables.get(key) {
            table.expired(&mut self.cx, io, key);
        } else if key.table() == Sockets::TABLE {
            self.sockets.expired(&mut self.cx, io, key);
        }
        self.obey(io);
        self.lap(key);
    }

    fn reclaim(&mut self, io: &mut dyn Io) {
        self.tables.reclaim();
        self.cx.agenda.pool.collect();
        self.listeners.reclaim();
        self.sockets.reclaim();
        self.watched.reclaim();
        self.cx.lane.settle(&mut self.cx.agenda.pool);
        let agenda = &mut self.cx.agenda;
        let in_use = agenda.pool.in_use_bytes() + self.cx.lane.in_use_bytes();
        let (open, now) = (agenda.stats.open(), agenda.clock.now());
        // Giving back a million small pieces takes 0.1 s: not while so many wait for their turn.
        if self.cx.lane.woken() < POLLS_PER_SLICE && agenda.spike.is_over(in_use, open, now) {
            self.give_back(io);
        }
    }

    #[inline]
    fn begins(&mut self, now: Instant) {
        if self.watch.is_alert() {
            self.watch.begin(now);
        }
    }

    #[cold]
    fn was_long(&mut self, took: Duration) {
        let at = self.cx.agenda.clock.now();
        let turn = LongTurn { at, took, longest: self.watch.was_long(at) };
        self.cx.handle.long_turns[usize::from(self.cx.worker)].set(turn);
        crate::log::long_turn(&turn);
    }

    #[inline]
    fn is_finished(&self) -> bool {
        // Asked in every turn: a callback that forked must not run this loop twice on one epoll set.
        sys::assert_not_forked();
        self.cx.stopping && self.has_finished()
    }
}
