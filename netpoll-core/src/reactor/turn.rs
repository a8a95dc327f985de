//! One turn, from the first letter to the last counter. The only place that knows all of it.
//!
//! Order matters: what other threads and earlier events left is done before the worker waits. Output leaves
//! in one flush per connection: that of mail, wakers and timers just before the wait, that of events
//! behind each batch of them.
//! The clock is read when a turn's work begins (after a wait that may have slept) and when it ends; in between,
//! everybody uses the same reading.
//!
//! A turn that finds work left over waits with a zero timeout: new events join, nobody sleeps on work.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::budget::Controller;
use super::wait::{Decision, Waiting};
use super::{Budget, Mailbox, Published, ReadyList, Spike, Stats, WaitStrategy};
use crate::clockwork::{Clock, Instant, Wheel};
use crate::driver::{Driver, Io, Limits, Sink, Wait, Waited};
use crate::mem::{Key, Pool, take_panics};

/// Letters taken from the mailbox in one turn. Four times the default budget of events: most letters are a wake or
/// a short send, and cost less than an event with its system calls.
const LETTERS_PER_TURN: usize = 256;
/// Turns of a worker that is finished, while there is mail: of as many letters as a burst may have.
pub const LAST_TURNS_MAX: usize = 64;
/// Timers fired in one turn, so that a jump of the clock does not stop the loop.
const TIMERS_PER_TURN: usize = 1024;

/// What a worker still has to do, and what every callback may use.
pub struct Agenda {
    pub clock: Clock,
    pub pool: Pool,
    pub timers: Wheel<Key>,
    pub ready: ReadyList,
    /// Connections with output to flush before the next wait; each is marked and here once.
    pub dirty: VecDeque<Key>,
    pub stats: Stats,
    /// Messages of one connection that fit a turn: the poll budget's events.
    pub turn_budget: usize,
    /// Steps of handshakes that this turn has made, each of which takes as long as a hundred messages.
    pub handshake_steps: usize,
    /// Work of a turn above which it counts as long.
    pub long_turn: Duration,
    /// What all connections together may hold.
    pub memory_bytes_max: usize,
    pub spike: Spike,
}

impl Agenda {
    pub fn new(clock: Clock, pool_retain_bytes: usize, long_turn: Duration, memory_bytes_max: usize) -> Self {
        Self {
            clock,
            pool: Pool::new(pool_retain_bytes),
            timers: Wheel::new(),
            ready: ReadyList::default(),
            dirty: VecDeque::new(),
            stats: Stats::default(),
            turn_budget: usize::MAX,
            handshake_steps: 0,
            long_turn,
            memory_bytes_max,
            spike: Spike::default(),
        }
    }

    /// Connections hold more memory than they may: who wants more is cut.
    #[inline]
    pub fn is_short_of_memory(&self) -> bool {
        self.pool.in_use_bytes() > self.memory_bytes_max
    }

    /// Gives back what a spike has left in the lists.
    pub fn shrink(&mut self) {
        self.pool.trim();
        self.timers.shrink();
        self.ready.shrink();
        self.dirty.shrink_to_fit();
    }
}

/// What is to be done about a timer that came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: what it stood for has moved, or is gone.
    Not,
    /// Its deadline has passed.
    Now,
    /// The same, but what lies in the socket comes first.
    LookFirst,
    /// The same, but what lies in the socket of this one comes first: it is news of the other.
    LookThere(Key),
    /// What lies in both sockets does.
    LookAtBoth(Key),
    /// What lies in all sockets comes first.
    LookAtAll,
}

/// What the loop asks of the floors above. The worker implements it.
pub trait Host: Sink {
    type Letter;

    fn agenda(&mut self) -> &mut Agenda;
    /// Opens one letter. One that is worth several takes as many off those that are `left` for this turn; what it has to leave
    /// comes again in the next, before all others.
    fn letter(&mut self, io: &mut dyn Io, letter: Self::Letter, left: &mut usize) -> Option<Self::Letter>;
    /// Goes on with a source from the ready list. True when the driver should deliver more of it.
    fn resume(&mut self, io: &mut dyn Io, key: Key) -> bool;
    /// Sends what a connection has queued.
    fn flush(&mut self, io: &mut dyn Io, key: Key);
    /// Brings wakes from this worker's own thread to where they lead: tasks are polled, connections called. A slice of them; how
    /// many there were.
    fn run_woken(&mut self, io: &mut dyn Io) -> usize;
    /// Somebody was woken on this thread and has not had its turn.
    fn has_woken(&self) -> bool;
    /// The earliest deadline of timers and tasks.
    fn next_deadline(&self) -> Option<Instant>;
    /// Wakes the tasks whose time has come, so many at most, and returns how many.
    fn wake_sleepers(&mut self, now: Instant, at_most: usize) -> usize;
    /// A timer of this key came up.
    fn came_up(&mut self, io: &mut dyn Io, key: Key) -> Due;
    /// It is due, and what had to come first has: carries it out if it still stands.
    fn expired(&mut self, io: &mut dyn Io, key: Key);
    /// All connections.
    fn connections(&mut self) -> Vec<Key>;
    /// Frees what died during the turn, and what a spike has left behind.
    fn reclaim(&mut self, io: &mut dyn Io);
    /// The work of a turn begins.
    fn begins(&mut self, now: Instant);
    /// The work of a turn took so long that it counts as long.
    fn was_long(&mut self, busy: Duration);
    /// Nothing is left to do, ever.
    fn is_finished(&self) -> bool;
}

/// A driver and everything that decides how it is turned.
pub struct Reactor<D, L> {
    driver: D,
    mailbox: Mailbox<L>,
    /// What is left of a letter that was too much for one turn.
    rest: Option<L>,
    budget: Controller,
    waiting: Waiting,
    published: Arc<Published>,
    work_began: Instant,
    waited: Waited,
    due: Vec<Key>,
}

/// A turn that has come to its wait.
pub struct Halfway {
    limits: Limits,
    wait: Wait,
    asleep: bool,
    done: usize,
}

impl Halfway {
    /// The worker sleeps until something wakes it: an event, the bell, or its next deadline.
    pub fn is_asleep(&self) -> bool {
        self.asleep
    }
}

impl<D: Driver, L> Reactor<D, L> {
    pub fn new(
        driver: D,
        mailbox: Mailbox<L>,
        budget: Budget,
        strategy: WaitStrategy,
        published: Arc<Published>,
    ) -> Self {
        Self {
            driver,
            mailbox,
            rest: None,
            budget: Controller::new(budget),
            waiting: Waiting::new(strategy),
            published,
            work_began: Instant::ZERO,
            waited: Waited::default(),
            due: Vec::new(),
        }
    }

    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// The order-taking half of the driver.
    pub fn driver_io(&mut self) -> &mut dyn Io {
        self.driver.io()
    }

    /// Turns until the host is finished.
    ///
    /// # Errors
    /// The driver can no longer wait.
    pub fn run<H: Host<Letter = L>>(&mut self, host: &mut H) -> io::Result<()> {
        // What was done before, starting, is no turn's work.
        self.work_began = host.agenda().clock.refresh();
        self.published.begin_turn(self.work_began);
        // What others asked for while they still had something to do is done; but a thread that goes on asking is not waited for.
        let mut last_turns = 0;
        while !host.is_finished() || (self.has_last_work(host) && last_turns < LAST_TURNS_MAX) {
            last_turns += usize::from(host.is_finished());
            self.turn(host)?;
        }
        // What the last turn did.
        let busy = host.agenda().clock.refresh().duration_since(self.work_began);
        Self::note_long_turn(host, busy);
        self.observe_work(host, busy);
        Ok(())
    }

    /// One turn.
    ///
    /// # Errors
    /// The driver can no longer wait.
    fn turn<H: Host<Letter = L>>(&mut self, host: &mut H) -> io::Result<()> {
        let halfway = self.work(host);
        self.serve(host, halfway)?;
        Ok(())
    }

    /// The first half of a turn: what other threads and earlier events left, up to the wait.
    #[inline]
    pub fn work<H: Host<Letter = L>>(&mut self, host: &mut H) -> Halfway {
        let limits = self.budget.limits();
        host.agenda().turn_budget = self.budget.messages();
        host.agenda().handshake_steps = 0;
        let mut done = self.drain_mailbox(host);
        done += self.resume_ready(host, &limits);
        done += host.run_woken(self.driver.io());
        self.flush_dirty(host);

        let ended = host.agenda().clock.refresh();
        let busy = ended.duration_since(self.work_began);
        // In front of the last look for work: who is told may wake somebody.
        Self::note_long_turn(host, busy);
        // A host that has just finished has nothing to wait for. What a flush has ended may have woken others.
        let work_left =
            host.has_woken() || !host.agenda().ready.is_empty() || self.has_mail() || host.is_finished();
        let (wait, asleep) = self.choose_wait(host, work_left, ended);
        self.budget.observe(self.waited, busy);
        self.observe_work(host, busy);
        Halfway { limits, wait, asleep, done }
    }

    /// The second half: the wait, and what it brings. The number of things done in both.
    ///
    /// # Errors
    /// The driver can no longer wait.
    #[inline]
    pub fn serve<H: Host<Letter = L>>(&mut self, host: &mut H, halfway: Halfway) -> io::Result<usize> {
        let Halfway { limits, wait, asleep, done } = halfway;
        self.driver.wait(&limits, wait)?;
        // Awake before anything is delivered: a wake from a callback, or from another thread meanwhile, rings no bell.
        if asleep {
            self.mailbox.awake();
        }
        let clock = &mut host.agenda().clock;
        let now = if wait == Wait::Poll { clock.now() } else { clock.refresh() };
        self.work_began = now;
        self.published.begin_turn(now);
        host.begins(now);
        let waited = self.driver.deliver(&limits, host);

        let done = done + waited.events + self.expire(host, &limits, now);
        host.reclaim(self.driver.io());
        self.waiting.observe(now, waited.events);
        let stats = &mut host.agenda().stats;
        stats.events += waited.events as u64;
        stats.waits_saturated += u64::from(waited.saturated);
        self.waited = waited;
        Ok(done)
    }

    /// A wait that ended for no reason and brought nothing, for who turns the loop by hand.
    pub fn interrupt(&mut self, halfway: &Halfway) {
        if halfway.asleep {
            self.mailbox.awake();
        }
    }

    /// Something is left to do that was asked for before the host had finished: mail, what tasks have ordered and written, and who was
    /// woken by the last of them.
    pub fn has_last_work<H: Host<Letter = L>>(&self, host: &H) -> bool {
        self.has_mail() || host.has_woken()
    }

    /// Something waits in the mailbox.
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.mailbox.is_empty() || self.rest.is_some()
    }

    fn drain_mailbox<H: Host<Letter = L>>(&mut self, host: &mut H) -> usize {
        // The usual case, without the call that taking one is.
        if !self.has_mail() {
            return 0;
        }
        let (mut left, mut taken) = (LETTERS_PER_TURN, 0);
        while left > 0 {
            let letter = match self.rest.take() {
                Some(rest) => rest,
                None => {
                    let Some(letter) = self.mailbox.take() else { break };
                    taken += 1;
                    letter
                }
            };
            left -= 1;
            self.rest = host.letter(self.driver.io(), letter, &mut left);
        }
        host.agenda().stats.mailbox_messages += taken;
        LETTERS_PER_TURN - left
    }

    /// Each source that was on the list when the turn began gets one share.
    fn resume_ready<H: Host<Letter = L>>(&mut self, host: &mut H, limits: &Limits) -> usize {
        let budget = host.agenda().ready.len().min(limits.events);
        for _ in 0..budget {
            let Some(key) = host.agenda().ready.pop() else { break };
            host.agenda().stats.ready_resumed += 1;
            if host.resume(self.driver.io(), key) {
                self.driver.resume(key, limits, host);
            }
        }
        budget
    }

    fn flush_dirty<H: Host<Letter = L>>(&mut self, host: &mut H) {
        while let Some(key) = host.agenda().dirty.pop_front() {
            host.flush(self.driver.io(), key);
        }
    }

    fn choose_wait<H: Host<Letter = L>>(
        &mut self,
        host: &mut H,
        work_left: bool,
        now: Instant,
    ) -> (Wait, bool) {
        let next_deadline = host.next_deadline();
        let agenda = host.agenda();
        if work_left {
            agenda.stats.waits_polled += 1;
            return (Wait::Poll, false);
        }
        if self.waiting.decide(now) == Decision::Look {
            agenda.stats.waits_spun += 1;
            return (Wait::Poll, false);
        }
        let bound = next_deadline.map(|deadline| deadline.duration_since(now));
        if bound == Some(Duration::ZERO) || !self.mailbox.may_sleep() {
            self.mailbox.awake();
            agenda.stats.waits_polled += 1;
            return (Wait::Poll, false);
        }
        agenda.stats.waits_blocked += 1;
        (Wait::Block(bound), true)
    }

    fn expire<H: Host<Letter = L>>(&mut self, host: &mut H, limits: &Limits, now: Instant) -> usize {
        let mut due = std::mem::take(&mut self.due);
        let fired = host.agenda().timers.expire(now, TIMERS_PER_TURN, |key| due.push(key));
        for key in due.drain(..) {
            match host.came_up(self.driver.io(), key) {
                Due::Not => continue,
                Due::Now => {}
                Due::LookFirst => self.driver.look(key, limits, host),
                Due::LookThere(other) => self.driver.look(other, limits, host),
                Due::LookAtBoth(other) => {
                    self.driver.look(key, limits, host);
                    self.driver.look(other, limits, host);
                }
                Due::LookAtAll => {
                    for key in host.connections() {
                        self.driver.look(key, limits, host);
                    }
                    self.flush_dirty(host);
                }
            }
            host.expired(self.driver.io(), key);
        }
        self.due = due;
        fired + host.wake_sleepers(now, TIMERS_PER_TURN)
    }

    #[inline]
    fn note_long_turn<H: Host<Letter = L>>(host: &mut H, busy: Duration) {
        let agenda = host.agenda();
        if busy >= agenda.long_turn {
            agenda.stats.long_turns += 1;
            host.was_long(busy);
        }
    }

    fn observe_work<H: Host<Letter = L>>(&mut self, host: &mut H, busy: Duration) {
        let events = self.budget.events() as u64;
        let (rung, suppressed) = self.mailbox.wakeups();
        let (paid, unpaid) = (self.waiting.paid_count, self.waiting.unpaid_count);
        let stats = &mut host.agenda().stats;
        stats.turns += 1;
        stats.busy_nanos += busy.as_nanos() as u64;
        stats.budget_events = events;
        (stats.wakeups_sent, stats.wakeups_suppressed, stats.syscalls_wake) = (rung, suppressed, rung);
        (stats.spins_paid, stats.spins_unpaid) = (paid, unpaid);
        self.publish(host);
    }

    /// Shows what was counted, and what is held now.
    #[inline]
    pub fn publish<H: Host<Letter = L>>(&mut self, host: &mut H) {
        let agenda = host.agenda();
        let pool = agenda.pool.counts();
        let (input_bytes, output_bytes) =
            (agenda.pool.input_bytes() as u64, agenda.pool.output_bytes() as u64);
        let blocks_in_use = agenda.pool.blocks_in_use();
        let stats = &mut agenda.stats;
        (stats.pool_hits, stats.pool_misses) = (pool.hits, pool.misses);
        (stats.held_input_bytes, stats.held_output_bytes) = (input_bytes, output_bytes);
        stats.pool_blocks_in_use = blocks_in_use;
        stats.panics += take_panics();
        self.published.store(stats, self.driver.io().counts());
    }
}
