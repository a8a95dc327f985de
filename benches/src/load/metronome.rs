//! What happens by the clock: phases, opening connections, requests that fall due, and the end.
//!
//! A runtime calls back for connections only, so the metronome is one: to a listener of this program that never
//! answers. A deadline that has passed is called in the next turn, so while the run spins it is called in every
//! turn, and the worker never sleeps. Otherwise it sleeps until something is due.
//!
//! Requests of an open loop are due at constant spacing. The runtime's deadlines are exact to 1 to 2 ms, so the last
//! 3 ms before each request are spent looking: above some 300 requests per second the client does not sleep.
//!
//! On stand-by the run is quiet between windows: nothing is on the way and nothing is armed, so the worker sleeps until
//! standard input orders a window. What the server has closed meanwhile is seen and made anew before that begins.

use crate::flood::Flood;
use crate::orders::{Order, Orders};
use crate::polite::Polite;
use crate::run::{Phase, Run, Word, nanos};
use crate::window::Meter;
use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Connections being made at a time. A server's accept queue holds 128 at least; one that overflows costs a second.
const CONNECTING_MAX: usize = 128;
/// How long to wait after a connection could not be made.
pub const RETRY_NS: u64 = 10_000_000;
/// How long opening all connections may take.
const OPENING_NS: u64 = 20_000_000_000;
/// The error of a deadline, and a bit.
const EARLY_NS: u64 = 3_000_000;

/// The connection that keeps time.
pub struct Metronome {
    pub run: Rc<RefCell<Run>>,
    meter: Meter,
    /// Stand-by only.
    orders: Option<Orders>,
    /// Stand-by: the next window, and whether anybody hears of it; nobody does of the warm-up.
    length: Duration,
    is_ready: bool,
    /// Stand-by: connections that the server has closed may still be unseen.
    is_looking: bool,
    /// When the latest opening began.
    opening_began: u64,
    last_tick: u64,
    last_touched: u64,
    /// The last tick asked for the next one at once.
    is_spinning: bool,
}

impl Protocol for Metronome {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let waker = conn.waker();
        let options = Arc::clone(&self.run.borrow().options);
        self.length = if options.stand_by { options.warmup } else { options.length };
        self.orders = options.stand_by.then(|| Orders::listen(options.length, waker.clone()));
        self.run.borrow_mut().metronome = Some(waker);
        self.tick(conn)
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        // While it spins, once in each turn, behind what the turn has brought.
        self.look_back(true);
        self.tick(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.look_back(false);
        self.tick(conn)
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.run.borrow_mut().end(Err(format!("the metronome stopped: {reason:?}")));
    }
}

impl Metronome {
    pub fn new(run: Rc<RefCell<Run>>) -> Self {
        Self {
            run,
            meter: Meter::default(),
            orders: None,
            length: Duration::ZERO,
            is_ready: false,
            is_looking: false,
            opening_began: 0,
            last_tick: 0,
            last_touched: 0,
            is_spinning: false,
        }
    }

    /// Notes what the turn was that is over, if one is: within it nothing says that nothing will come.
    fn look_back(&mut self, is_over: bool) {
        let (now, touched) = {
            let run = self.run.borrow();
            (run.now(), run.touched)
        };
        if is_over && self.is_spinning && touched == self.last_touched {
            self.meter.was_idle(now - self.last_tick);
            // A whole turn brought no news of any connection.
            self.is_looking = false;
        }
        if is_over || !self.is_spinning {
            (self.last_tick, self.last_touched) = (now, touched);
        }
    }

    fn tick(&mut self, conn: &mut Conn<'_>) -> Flow {
        let shared = Rc::clone(&self.run);
        let run = &mut *shared.borrow_mut();
        let now = run.now();
        self.advance(run, now, conn);
        if run.phase != Phase::Over {
            if run.phase != Phase::Quiet && !self.is_looking {
                self.open(run, now, conn);
            }
            let due = wake_for_due(run, now);
            self.arm(run, now, due, conn);
        }
        Flow::Continue
    }

    /// Goes on to the next phase if it is time.
    fn advance(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        let options = Arc::clone(&run.options);
        if run.phase == Phase::Quiet {
            self.obey(run, now);
        }
        if matches!(run.phase, Phase::Opening | Phase::Refilling) && !self.is_looking {
            let all_open = options.churn || run.open == options.connections;
            if all_open && (!options.flood || run.flood.waker.is_some()) {
                self.all_are_open(run, now, conn);
            } else if now > self.opening_began + OPENING_NS {
                run.end(Err(format!("only {} of {} connections are open", run.open, options.connections)));
            }
        }
        if run.phase == Phase::Warmup && now >= run.began + nanos(options.warmup) {
            self.begin_window(run, now, conn);
        }
        let is_done = run.asks_left == 0 && run.owed == 0;
        let is_late = now >= self.meter.ends_at();
        if run.phase == Phase::Measured && (is_done || is_late && !options.hold) {
            run.phase = Phase::Draining;
            self.meter.end(run, now, &conn.worker_stats());
        }
        let is_answered = run.owed == 0 && run.flood.asked == run.flood.answered;
        if run.phase == Phase::Draining && (is_answered || now >= self.meter.drained_at(options.drain)) {
            let window = Box::new(self.meter.finish(run, now));
            if options.stand_by {
                let word = if self.is_ready { Word::Window(window) } else { Word::Ready };
                self.rest(run, word, conn);
            } else {
                run.end(Ok(Word::Window(window)));
            }
        }
    }

    /// Stand-by: takes the next order.
    fn obey(&mut self, run: &mut Run, now: u64) {
        match self.orders.as_ref().map(Orders::next) {
            Some(Ok(Order::Window(length))) => {
                self.length = length;
                self.opening_began = now;
                self.is_looking = true;
                run.connections_opened = 0;
                run.phase = Phase::Refilling;
            }
            Some(Ok(Order::End)) => run.end(Ok(Word::Over)),
            Some(Err(wrong)) => run.end(Err(wrong)),
            Some(Ok(Order::Wait)) | None => {}
        }
    }

    fn all_are_open(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        if run.options.stand_by && self.length.is_zero() {
            return self.rest(run, Word::Ready, conn);
        }
        begin(run, now);
        if run.options.stand_by || run.options.warmup.is_zero() {
            self.begin_window(run, now, conn);
        }
    }

    fn begin_window(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        run.phase = Phase::Measured;
        self.meter.begin(run, now, self.length, &conn.worker_stats());
    }

    /// Stand-by: a window is over, or the run is ready for the first one.
    fn rest(&mut self, run: &mut Run, word: Word, conn: &mut Conn<'_>) {
        run.phase = Phase::Quiet;
        self.is_ready = true;
        run.give_up_answers(conn);
        run.say(Ok(word));
        // The next order may be here already.
        run.call_metronome();
    }

    /// Makes connections for free slots; with churn, only for a request.
    fn open(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        if run.options.flood && !std::mem::replace(&mut run.flood.is_ordered, true) {
            let flood = Flood::new(Rc::clone(&self.run), &run.options.short_request);
            conn.commands().connect(run.options.to(), run.options.connect(0), flood);
        }
        while now >= run.retry_at && run.connecting < CONNECTING_MAX && !run.free.is_empty() {
            let intended = match (run.options.churn, run.options.interval_ns) {
                (false, _) => None,
                (true, Some(_)) => run.take_due(now),
                (true, None) => (run.grant(1) > 0).then_some(now),
            };
            if run.options.churn && intended.is_none() {
                return;
            }
            let Some(nth) = run.free.pop_front() else { return };
            if let Some(intended) = intended {
                run.slots[nth].outstanding = 1;
                run.slots[nth].asked_at = intended;
            }
            run.connecting += 1;
            let polite = Polite { run: Rc::clone(&self.run), nth, is_open: false };
            conn.commands().connect(run.options.to(), run.options.connect(nth), polite);
        }
    }

    /// Decides when to be called next.
    fn arm(&mut self, run: &Run, now: u64, due: Option<u64>, conn: &mut Conn<'_>) {
        let options = &run.options;
        if run.phase == Phase::Quiet {
            self.is_spinning = false;
            return conn.clear_deadline();
        }
        let mut next = match run.phase {
            Phase::Opening | Phase::Refilling => now + RETRY_NS,
            Phase::Warmup => run.began + nanos(options.warmup),
            Phase::Measured if options.hold => u64::MAX,
            Phase::Measured => self.meter.ends_at(),
            Phase::Draining => (now + RETRY_NS).min(self.meter.drained_at(options.drain)),
            Phase::Quiet | Phase::Over => u64::MAX,
        };
        if !run.free.is_empty() && run.retry_at > now {
            next = next.min(run.retry_at);
        }
        self.is_spinning = self.is_looking || options.spin && run.is_asking();
        // What is due already waits for room, and whoever gets room calls.
        if let Some(due) = due.filter(|&due| due > now) {
            self.is_spinning |= due < now + EARLY_NS;
            next = next.min(due.saturating_sub(EARLY_NS));
        }
        match self.is_spinning {
            true => conn.set_deadline_at(conn.now()),
            false => conn.set_deadline(Duration::from_nanos(next.saturating_sub(now).min(RETRY_NS * 1000))),
        }
    }
}

/// Lets everybody ask.
fn begin(run: &mut Run, now: u64) {
    run.phase = Phase::Warmup;
    run.began = now;
    run.taken = 0;
    run.slots.iter_mut().for_each(|slot| slot.begun = false);
    if run.options.interval_ns.is_some() && !run.options.churn {
        run.idle.clear();
        run.idle.extend(0..run.slots.len());
        run.slots.iter_mut().for_each(|slot| slot.is_idle = true);
        return;
    }
    run.slots.iter().filter_map(|slot| slot.waker.as_ref()).for_each(|waker| waker.wake_by_ref());
    run.flood.waker.iter().for_each(|waker| waker.wake_by_ref());
}

/// Open loop: calls as many connections with room as requests are due; when the next one is due.
fn wake_for_due(run: &mut Run, now: u64) -> Option<u64> {
    let interval_ns = run.options.interval_ns.filter(|_| run.is_asking())?;
    let mut called = 0;
    while run.due(called, interval_ns) <= now
        && let Some(nth) = run.idle.pop_front()
    {
        run.slots[nth].is_idle = false;
        run.slots[nth].waker.iter().for_each(|waker| waker.wake_by_ref());
        called += 1;
    }
    Some(run.due(called, interval_ns))
}
