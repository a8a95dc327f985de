//! How a simulated world goes on: by turns, and by time.

use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Sim;
use crate::clockwork::Instant;
use crate::task::{self, Kind};

/// Turns after which a world that does not come to rest is declared to hang.
const TURNS_MAX: usize = 1_000_000;
/// What a far end may have received that the test has not taken: more is an answer without an end, which would take all memory before the
/// turns are over.
const UNTAKEN_BYTES_MAX: usize = 128 << 20;
/// How often that is looked at, in turns.
const LOOK_TURNS: usize = 64;

impl Sim {
    /// One turn of every worker, in an order that the seed chooses, whether it has a reason to wake up or not. How much they
    /// did: events, letters, timers, resumed connections. Then the jobs that wait in the [pool](crate::blocking), which count as well.
    ///
    /// # Panics
    /// If an invariant of the loop is broken.
    pub fn turn(&mut self) -> usize {
        let mut done = 0;
        let workers = self.seats.len();
        let first = if workers > 1 { self.random.below(workers) } else { 0 };
        for offset in 0..workers {
            done += self.seats[(first + offset) % workers].turn();
        }
        for _ in 0..self.blocking.waiting() {
            done += usize::from(self.run_job());
        }
        done
    }

    /// Turns until nothing happens any more without time passing: every worker sleeps, and nothing would wake it. Which
    /// worker goes on next is left to the seed.
    ///
    /// # Panics
    /// If it does not come to rest within a million turns, or sends 128 MiB to a far end of which nothing is taken.
    pub fn run(&mut self) {
        let mut awake = Vec::new();
        for _ in 0..TURNS_MAX {
            let has_jobs = self.blocking.waiting() > 0;
            let next = match &self.seats[..] {
                [seat] if !has_jobs => seat.has_reason(0, &self.net).then_some(0),
                seats => {
                    awake.clear();
                    awake
                        .extend((0..seats.len()).filter(|index| seats[*index].has_reason(*index, &self.net)));
                    // The pool is one more that may go on.
                    awake.extend(has_jobs.then_some(seats.len()));
                    if awake.is_empty() { None } else { Some(awake[self.random.below(awake.len())]) }
                }
            };
            let Some(next) = next else {
                if self.net.pump() {
                    continue;
                }
                return;
            };
            self.turns += 1;
            if self.turns.is_multiple_of(LOOK_TURNS) && self.net.untaken_bytes() > UNTAKEN_BYTES_MAX {
                panic!(
                    "what is sent to a far end does not end: more than {UNTAKEN_BYTES_MAX} bytes wait there to be taken"
                );
            }
            match self.seats.get_mut(next) {
                Some(seat) => seat.step(),
                None => {
                    self.run_job();
                }
            }
            self.net.pump();
        }
        panic!("the world did not come to rest in {TURNS_MAX} turns");
    }

    /// Lets time pass, deadline by deadline and arrival by arrival, and everything happen that follows.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn advance(&mut self, time: Duration) {
        self.run();
        let end = self.now().saturating_add(time);
        while let Some(next) = self.next_change().filter(|next| *next <= end) {
            self.go_to(next);
        }
        self.pass(end.duration_since(self.now()));
        self.run();
    }

    /// Lets everything happen that is under way: as [`run`](Self::run), and time passes as long as segments travel, an
    /// outgoing connection is about to be accepted, or somebody waits at a listener that rests for want of descriptors.
    /// Deadlines of protocols that lie further ahead than these do not pass.
    ///
    /// With [`Faults::stormy`](super::Options::faults) this is what brings everything to its end that
    /// [`run`](Self::run) brings there on a perfect network.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn settle(&mut self) {
        self.run();
        for _ in 0..TURNS_MAX {
            let next = if self.net.waits_at_resting_listener() {
                self.next_change()
            } else {
                self.net.next_arrival()
            };
            let Some(next) = next else { return };
            self.go_to(next.min(self.next_change().unwrap_or(next)));
        }
        panic!("the world did not settle in {TURNS_MAX} steps");
    }

    /// The process stands still for so long, as one that is stopped, or whose machine sleeps: time passes, segments arrive,
    /// and nothing is delivered. Whatever was due meanwhile is due at once, events and deadlines together, in the turns
    /// that follow.
    pub fn stand_still(&mut self, time: Duration) {
        self.pass(time);
    }

    /// Runs a future as a task of the first worker until it returns, and lets as much time pass as that takes.
    ///
    /// # Panics
    /// If the future does; if nothing is left that could wake it.
    #[track_caller]
    pub fn block_on<F>(&mut self, future: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let lane = Rc::clone(&self.seats[0].worker.cx.lane);
        let mut task = {
            let _inside = lane.visit();
            task::spawn_at(&lane, future, Kind::Waited, Location::caller())
        };
        loop {
            self.run();
            if task.is_finished() {
                break;
            }
            let next =
                self.next_change().expect("the future waits for something that nothing is left to bring");
            self.go_to(next);
        }
        match Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(output)) => output,
            Poll::Ready(Err(error)) => match error.into_panic() {
                Some(payload) => resume_unwind(payload),
                None => panic!("the world ended before the future did"),
            },
            Poll::Pending => unreachable!("a task that has ended has a result"),
        }
    }

    /// Lets time pass until `is_done` says so, asked whenever nothing happens any more without time passing, for at most so long.
    /// Whether it did.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_until(&mut self, at_most: Duration, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now().saturating_add(at_most);
        loop {
            self.run();
            if is_done(self) {
                return true;
            }
            let Some(next) = self.next_change().filter(|next| *next <= end) else {
                self.pass(end.duration_since(self.now()));
                self.run();
                return is_done(self);
            };
            self.go_to(next);
        }
    }

    /// The time in this world.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.seats[0].worker.cx.agenda.clock.now()
    }

    /// The job that has waited longest, if there is one.
    fn run_job(&self) -> bool {
        // On another thread it would be on no worker, and whom it wakes would be told by letter.
        let _elsewhere = task::leave_all();
        self.blocking.run_next()
    }

    /// The next deadline or arrival.
    fn next_change(&self) -> Option<Instant> {
        let deadlines = self.seats.iter().filter_map(|seat| seat.next_deadline());
        deadlines.chain(self.net.next_arrival()).min()
    }

    /// To a deadline or arrival, and what follows.
    fn go_to(&mut self, next: Instant) {
        let step = next.duration_since(self.now());
        self.pass(step);
        self.run();
        if step.is_zero() && self.next_change() == Some(next) {
            // Due now but rounded up to the next tick of the wheel.
            self.pass(Duration::from_millis(1));
            self.run();
        }
    }

    fn pass(&mut self, time: Duration) {
        for seat in &mut self.seats {
            seat.worker.cx.agenda.clock.advance(time);
        }
        self.net.advance(self.now());
    }
}
