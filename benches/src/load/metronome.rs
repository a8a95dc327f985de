//! What happens by the clock: phases, opening connections, requests that fall due, and the end.
//!
//! A runtime calls back for connections only, so the metronome is one: to a listener of this program that never
//! answers. A deadline that has passed is called in the next turn, so while the run spins it is called in every
//! turn, and the worker never sleeps. Otherwise it sleeps until something is due.
//!
//! Requests of an open loop are due at constant spacing. The runtime's deadlines are exact to 1 to 2 ms, so the last
//! 3 ms before each request are spent looking: above some 300 requests per second the client does not sleep.

use crate::flood::Flood;
use crate::polite::Polite;
use crate::run::{Phase, Run, nanos};
use benches::sys;
use netpoll_core::{Conn, Flow, Input, Lost, Protocol, Stats};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Connections being made at a time. A server's accept queue holds 128 at least; one that overflows costs a second.
const CONNECTING_MAX: usize = 128;
/// How long to wait after a connection could not be made.
pub const RETRY_NS: u64 = 10_000_000;
/// How long opening all connections may take.
const OPENING_NS: u64 = 20_000_000_000;
/// The error of a deadline, and a bit.
const EARLY_NS: u64 = 3_000_000;
/// A turn without work takes less; what is above it was spent by others on this CPU.
const EMPTY_TURN_NS: u64 = 20_000;

/// The measured window, and what is reported of it.
#[derive(Default)]
pub struct Window {
    pub seconds: f64,
    /// CPU time without turns that found nothing to do, as a share of the window.
    pub busy_share: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub requests: u64,
    pub flood_requests: u64,
    pub unanswered: u64,
    /// Requests of the open loop that nobody had room for.
    pub unsent: u64,
    pub least_answers: u64,
    pub connections_opened: u64,
    pub errors: Vec<u64>,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Latency in us and how often it occurred.
    pub histogram: Vec<(u64, u64)>,
}

/// The connection that keeps time.
pub struct Metronome {
    pub run: Rc<RefCell<Run>>,
    window: Window,
    window_began: u64,
    window_ended: u64,
    at_begin: Stats,
    cpu_at_begin: Duration,
    idle_ns: u64,
    last_tick: u64,
    last_touched: u64,
    /// The last tick asked for the next one at once.
    is_spinning: bool,
}

impl Protocol for Metronome {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let waker = conn.waker();
        self.run.borrow_mut().metronome = Some(waker);
        self.tick(conn)
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.tick(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.tick(conn)
    }

    fn lost(&mut self, reason: Lost) {
        self.run.borrow_mut().end(Err(format!("the metronome stopped: {reason:?}")));
    }
}

impl Metronome {
    pub fn new(run: Rc<RefCell<Run>>) -> Self {
        Self {
            run,
            window: Window::default(),
            window_began: 0,
            window_ended: 0,
            at_begin: Stats::default(),
            cpu_at_begin: Duration::ZERO,
            idle_ns: 0,
            last_tick: 0,
            last_touched: 0,
            is_spinning: false,
        }
    }

    fn tick(&mut self, conn: &mut Conn<'_>) -> Flow {
        let shared = Rc::clone(&self.run);
        let run = &mut *shared.borrow_mut();
        let now = run.now();
        if self.is_spinning && run.touched == self.last_touched {
            self.idle_ns += (now - self.last_tick).min(EMPTY_TURN_NS);
        }
        (self.last_tick, self.last_touched) = (now, run.touched);
        self.advance(run, now, conn);
        if run.phase != Phase::Over {
            self.open(run, now, conn);
            let due = wake_for_due(run, now);
            self.arm(run, now, due, conn);
        }
        Flow::Continue
    }

    /// Goes on to the next phase if it is time.
    fn advance(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        let options = std::sync::Arc::clone(&run.options);
        if run.phase == Phase::Opening {
            let all_open = options.churn || run.open == options.connections;
            if all_open && (!options.flood || run.flood.waker.is_some()) {
                begin(run, now);
                if options.warmup.is_zero() {
                    self.begin_window(run, now, conn);
                }
            } else if now > OPENING_NS {
                run.end(Err(format!("only {} of {} connections are open", run.open, options.connections)));
            }
        }
        if run.phase == Phase::Warmup && now >= run.began + nanos(options.warmup) {
            self.begin_window(run, now, conn);
        }
        let is_done = run.asks_left == 0 && run.owed == 0;
        let is_late = now >= self.window_began + nanos(options.length);
        if run.phase == Phase::Measured && (is_done || is_late && !options.hold) {
            self.end_window(run, now, conn);
        }
        let is_answered = run.owed == 0 && run.flood.asked == run.flood.answered;
        if run.phase == Phase::Draining && (is_answered || now >= self.window_ended + nanos(options.drain)) {
            self.finish(run, now);
        }
    }

    fn begin_window(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        run.phase = Phase::Measured;
        run.asks_left = if run.options.hold { run.options.connections as u64 } else { run.options.requests };
        run.latency.clear();
        run.answers = 0;
        run.flood.asked -= std::mem::take(&mut run.flood.answered);
        run.errors = Default::default();
        run.abandoned = 0;
        if run.options.churn {
            run.connections_opened = 0;
        }
        run.slots.iter_mut().for_each(|slot| slot.answers = 0);
        self.window_began = now;
        self.at_begin = *conn.worker_stats();
        self.cpu_at_begin = sys::thread_cpu_time().unwrap_or_default();
        self.idle_ns = 0;
    }

    fn end_window(&mut self, run: &mut Run, now: u64, conn: &mut Conn<'_>) {
        run.phase = Phase::Draining;
        self.window_ended = now;
        let cpu = sys::thread_cpu_time().unwrap_or_default().saturating_sub(self.cpu_at_begin);
        let stats = conn.worker_stats().since(&self.at_begin);
        let window = &mut self.window;
        window.seconds = (now - self.window_began) as f64 / 1e9;
        let busy = cpu.saturating_sub(Duration::from_nanos(self.idle_ns));
        window.busy_share = (busy.as_secs_f64() / window.seconds).min(1.0);
        (window.bytes_in, window.bytes_out) = (stats.received_bytes, stats.sent_bytes);
        // What was due before the end and could not be sent counts with its age.
        let end = now.min(self.window_began + nanos(run.options.length));
        while let Some(interval_ns) = run.options.interval_ns
            && run.asks_left > window.unsent
            && run.due(window.unsent, interval_ns) < end
        {
            run.record(run.due(window.unsent, interval_ns), now, 1);
            window.unsent += 1;
        }
    }

    fn finish(&mut self, run: &mut Run, now: u64) {
        for nth in 0..run.slots.len() {
            run.record_of(nth, now, run.slots[nth].outstanding);
        }
        let latency = &run.latency;
        let at = |part| latency.value_at_quantile(part);
        let occurred = latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        run.end(Ok(Window {
            requests: run.answers,
            flood_requests: run.flood.answered,
            unanswered: run.owed as u64 + run.abandoned,
            least_answers: run.slots.iter().map(|slot| slot.answers).min().unwrap_or(0),
            connections_opened: run.connections_opened,
            errors: run.errors.to_vec(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latency.max(),
            histogram: if run.options.histogram { occurred.collect() } else { Vec::new() },
            ..std::mem::take(&mut self.window)
        }));
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
        let mut next = match run.phase {
            Phase::Opening => now + RETRY_NS,
            Phase::Warmup => run.began + nanos(options.warmup),
            Phase::Measured if options.hold => u64::MAX,
            Phase::Measured => self.window_began + nanos(options.length),
            Phase::Draining => (now + RETRY_NS).min(self.window_ended + nanos(options.drain)),
            Phase::Over => u64::MAX,
        };
        if !run.free.is_empty() && run.retry_at > now {
            next = next.min(run.retry_at);
        }
        self.is_spinning = options.spin && run.is_asking();
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
    if run.options.interval_ns.is_some() && !run.options.churn {
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
