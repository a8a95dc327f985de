//! What all connections of a run share: its phase, who may ask, and what has been counted.
//!
//! One worker owns all of it, so it is behind an `Rc<RefCell>`: callbacks never nest, hence a borrow never meets
//! another. Invariant: `owed` is the sum of `outstanding` over all slots. A slot is a place for a connection; its
//! connection may end and be followed by another one.
//!
//! Nothing here allocates per request once warm.

use crate::answer::Check;
use crate::options::Options;
use crate::window::Window;
use hdrhistogram::Histogram;
use netpoll_core::{Conn, ConnId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Latencies from 1 us to an hour with three digits; below 2 ms every us counts by itself.
const LATENCY_MAX_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// What can go wrong with a connection, by the names in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    WrongStatus,
    WrongBody,
    Framing,
    Closed,
    Reset,
    Timeout,
    Surplus,
    /// The connection could not be made.
    Connect,
}

impl Fault {
    pub const NAMES: [&str; 8] =
        ["wrong_status", "wrong_body", "framing", "closed", "reset", "timeout", "surplus", "connect"];
}

/// Where a run is. It only goes forward, but on stand-by from `Refilling` back to `Warmup`. From `Draining` on, a
/// connection that owes nothing may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are made, nobody asks.
    Opening,
    /// Like `Measured`, but its figures are dropped.
    Warmup,
    Measured,
    /// Nobody asks any more, answers that are owed still count.
    Draining,
    /// Stand-by: between two windows. Nothing is on the way.
    Quiet,
    /// Stand-by: connections that have closed since are made anew.
    Refilling,
    Over,
}

/// One place for a connection.
#[derive(Default)]
pub struct Slot {
    /// Requests on the way. With churn from the order to connect until the server has closed.
    pub outstanding: usize,
    /// When the latest batch was sent; in an open loop with churn, when it should have been. All times are in
    /// nanoseconds since the run was made.
    pub asked_at: u64,
    /// Open loop: when each request on the way should have been sent.
    pub intended: VecDeque<u64>,
    /// Churn: a good answer is here, and the server has yet to close.
    pub answered_at: Option<u64>,
    /// Answers since the window began.
    pub answers: u64,
    /// The connection has been told to begin.
    pub begun: bool,
    /// Stands in `Run::idle`.
    pub is_idle: bool,
    /// The connection, while it is open.
    pub id: Option<ConnId>,
    pub waker: Option<Waker>,
}

/// What the program has to say.
pub enum Word {
    /// Stand-by: connected, warm, and quiet.
    Ready,
    Window(Box<Window>),
    /// Stand-by: nobody wants another window.
    Over,
}

/// The flooding connection, as far as others care.
#[derive(Default)]
pub struct FloodCount {
    pub asked: u64,
    pub answered: u64,
    /// It is being connected, or is.
    pub is_ordered: bool,
    pub waker: Option<Waker>,
}

/// The state of a run.
pub struct Run {
    pub options: Arc<Options>,
    pub phase: Phase,
    made: Instant,
    /// When the first request was allowed.
    pub began: u64,
    pub slots: Vec<Slot>,
    pub check: Check,
    /// Connections that are open, and those that are being made.
    pub open: usize,
    pub connecting: usize,
    /// Slots without a connection.
    pub free: VecDeque<usize>,
    /// Nothing is connected to before: the last attempt failed.
    pub retry_at: u64,
    /// Open loop: slots with room for a request, the longest unused first.
    pub idle: VecDeque<usize>,
    /// Open loop: requests handed out since the run began.
    pub taken: u64,
    /// Requests that may still be handed out.
    pub asks_left: u64,
    pub owed: usize,
    /// Requests whose connection failed because of another one on it.
    pub abandoned: u64,
    pub flood: FloodCount,
    pub answers: u64,
    pub errors: [u64; Fault::NAMES.len()],
    pub connections_opened: u64,
    pub latency: Histogram<u64>,
    /// Grows with every callback that was about a connection: nothing to do leaves it as it is.
    pub touched: u64,
    /// Calls the metronome in the next turn.
    pub metronome: Option<Waker>,
    words: Sender<Result<Word, String>>,
}

impl Run {
    pub fn new(options: Arc<Options>, words: Sender<Result<Word, String>>) -> Self {
        let connections = options.connections;
        let slots = || Slot {
            intended: VecDeque::with_capacity(if options.interval_ns.is_some() { options.depth } else { 0 }),
            ..Slot::default()
        };
        Self {
            slots: std::iter::repeat_with(slots).take(connections).collect(),
            check: Check::new(&options),
            options,
            phase: Phase::Opening,
            made: Instant::now(),
            began: 0,
            open: 0,
            connecting: 0,
            free: (0..connections).collect(),
            retry_at: 0,
            idle: VecDeque::with_capacity(connections),
            taken: 0,
            asks_left: u64::MAX,
            owed: 0,
            abandoned: 0,
            flood: FloodCount::default(),
            answers: 0,
            errors: [0; Fault::NAMES.len()],
            connections_opened: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("bounds that make sense"),
            touched: 0,
            metronome: None,
            words,
        }
    }

    /// Now, on the run's clock.
    #[inline]
    pub fn now(&self) -> u64 {
        self.made.elapsed().as_nanos() as u64
    }

    /// Whether requests may be sent.
    #[inline]
    pub fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Warmup | Phase::Measured)
    }

    /// Closed loop: how many of so many requests may be sent now. Each of them is owed an answer.
    #[inline]
    pub fn grant(&mut self, wanted: usize) -> usize {
        let granted = match self.is_asking() {
            true => wanted.min(usize::try_from(self.asks_left).unwrap_or(usize::MAX)),
            false => 0,
        };
        if self.asks_left != u64::MAX {
            self.asks_left -= granted as u64;
        }
        self.owed += granted;
        granted
    }

    /// Open loop: when the request behind the next `ahead` ones should be sent, or should have been.
    pub fn due(&self, ahead: u64, interval_ns: f64) -> u64 {
        self.began + ((self.taken + ahead) as f64 * interval_ns) as u64
    }

    /// Open loop: hands out the next request if its time has come; the time it should have been sent.
    pub fn take_due(&mut self, now: u64) -> Option<u64> {
        let due = self.due(0, self.options.interval_ns?);
        if due > now || self.grant(1) == 0 {
            return None;
        }
        self.taken += 1;
        Some(due)
    }

    /// Counts a latency for so many requests.
    #[inline]
    pub fn record(&mut self, from: u64, to: u64, requests: u64) {
        self.latency.saturating_record_n(to.saturating_sub(from) / 1000, requests);
    }

    /// A good answer, or several of one batch.
    #[inline]
    pub fn count(&mut self, nth: usize, now: u64, answers: usize) {
        let slot = &mut self.slots[nth];
        slot.outstanding -= answers;
        slot.answers += answers as u64;
        self.owed -= answers;
        self.answers += answers as u64;
        self.record_of(nth, now, answers);
        if self.owed == 0 && (self.asks_left == 0 || self.phase == Phase::Draining || self.options.hold) {
            self.call_metronome();
        }
    }

    /// Latency of the oldest requests of a connection, or their age.
    #[inline]
    pub fn record_of(&mut self, nth: usize, now: u64, requests: usize) {
        let asked_at = self.slots[nth].asked_at;
        if self.slots[nth].intended.is_empty() && requests > 0 {
            return self.record(asked_at, now, requests as u64);
        }
        for _ in 0..requests {
            let intended = self.slots[nth].intended.pop_front().unwrap_or(asked_at);
            self.record(intended, now, 1);
        }
    }

    /// Something is wrong with a connection, which is over by that. Ends the run unless errors are counted.
    #[cold]
    pub fn fault(&mut self, nth: usize, fault: Fault, detail: &str) {
        let slot = &mut self.slots[nth];
        let lost = std::mem::take(&mut slot.outstanding);
        slot.answered_at = None;
        slot.intended.clear();
        self.owed -= lost;
        if self.phase == Phase::Over {
            return;
        }
        self.abandoned += (lost as u64).saturating_sub(1);
        self.errors[fault as usize] += 1;
        if !self.options.count_errors {
            self.end(Err(format!("{}: {detail}", Fault::NAMES[fault as usize])));
        }
        self.call_metronome();
    }

    /// A connection is gone, or could not be made: its slot waits for the next one.
    pub fn vacate(&mut self, nth: usize) {
        let slot = &mut self.slots[nth];
        slot.waker = None;
        slot.id = None;
        slot.begun = false;
        self.free.push_back(nth);
        self.call_metronome();
    }

    /// Has the metronome look at the run in the next turn.
    pub fn call_metronome(&self) {
        if let Some(waker) = &self.metronome {
            waker.wake_by_ref();
        }
    }

    /// Stand-by: what has not been answered by now never counts; its connections are replaced before the next window.
    pub fn give_up_answers(&mut self, conn: &mut Conn<'_>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.outstanding > 0) {
            self.owed -= std::mem::take(&mut slot.outstanding);
            slot.intended.clear();
            slot.answered_at = None;
            // One that is still being connected finds nothing to ask for when it is.
            slot.id.into_iter().for_each(|id| conn.commands().reset(id));
        }
    }

    /// Tells the program, which prints it.
    pub fn say(&self, word: Result<Word, String>) {
        // Nobody listens any more when the program itself is ending.
        let _ = self.words.send(word);
    }

    /// The last word of the run.
    pub fn end(&mut self, how: Result<Word, String>) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.say(how);
        }
    }
}

/// A duration on the run's clock.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
