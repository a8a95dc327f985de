//! One worker of a simulated world, between its turns.
//!
//! A turn is cut at its wait, so that a worker can be asleep: then it goes on when something would end that wait in a
//! real one, and not before. A letter whose bell nobody rang is slept over here as well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::super::worker::Worker;
use crate::clockwork::Instant;
use crate::conn::Letter;
use crate::driver::{SimDriver, SimNet};
use crate::reactor::{Bell, Halfway, Host, LAST_TURNS_MAX, Reactor};

/// The doorbell of a simulated worker.
#[derive(Clone, Default)]
pub struct SimBell(pub Arc<AtomicBool>);

impl Bell for SimBell {
    fn ring(&self) -> io::Result<()> {
        self.0.store(true, Relaxed);
        Ok(())
    }
}

pub struct Seat {
    pub reactor: Reactor<SimDriver, Letter>,
    pub worker: Worker,
    pub bell: SimBell,
    /// Where its turn stands; `None` between two turns.
    pub halfway: Option<Halfway>,
    /// Turns since it has had nothing left to do but mail.
    pub last_turns: usize,
}

impl Seat {
    /// The worker goes on by itself: it has work, or its sleep would end.
    pub fn has_reason(&self, index: usize, net: &SimNet) -> bool {
        if self.is_finished() {
            // Nothing is left but blocks to give back.
            return net.owes_blocks(index);
        }
        let asleep = self.halfway.as_ref().is_some_and(Halfway::is_asleep);
        let is_due = |now: Instant| self.next_deadline().is_some_and(|at| at <= now);
        !asleep
            || self.bell.0.load(Relaxed)
            || !self.worker.cx.commands.is_empty()
            || is_due(self.worker.cx.agenda.clock.now())
            || net.has_event(index)
    }

    /// It has ended: nothing is left to do, and nothing was asked of it, or somebody goes on asking, as in [`Reactor::run`].
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
            && !(self.reactor.has_last_work(&self.worker) && self.last_turns < LAST_TURNS_MAX)
    }

    /// Its next deadline; a worker that has ended has none.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.worker.next_deadline().filter(|_| !self.is_finished())
    }

    /// A whole turn. A worker that sleeps is woken for no reason first. How much it did: events, timers, letters,
    /// resumed connections.
    pub fn turn(&mut self) -> usize {
        if self.is_finished() {
            return 0;
        }
        if let Some(halfway) = self.halfway.take() {
            self.reactor.interrupt(&halfway);
        }
        self.work();
        self.serve()
    }

    /// Half a turn: to the wait, or from there to the end.
    pub fn step(&mut self) {
        if self.halfway.is_none() {
            self.work();
        } else {
            self.serve();
        }
    }

    fn work(&mut self) {
        self.last_turns += usize::from(self.worker.is_finished());
        let Self { reactor, worker, halfway, .. } = self;
        let _entered = worker.cx.lane.enter();
        worker.begin(reactor.driver_io());
        *halfway = Some(reactor.work(worker));
        Self::look_whether_it_ends(reactor, worker);
    }

    fn serve(&mut self) -> usize {
        let Self { reactor, worker, halfway, .. } = self;
        let _entered = worker.cx.lane.enter();
        let halfway = halfway.take().expect("a turn that has come to its wait");
        let done = reactor.serve(worker, halfway).expect("a simulated wait does not fail");
        Self::look_whether_it_ends(reactor, worker);
        done
    }

    #[inline(always)]
    fn look_whether_it_ends(reactor: &mut Reactor<SimDriver, Letter>, worker: &mut Worker) {
        if worker.is_finished() {
            Self::ends(reactor, worker);
        }
    }

    #[cold]
    fn ends(reactor: &mut Reactor<SimDriver, Letter>, worker: &mut Worker) {
        worker.close_quiet(reactor.driver_io());
        // There is no turn that would show what this one has counted.
        reactor.publish(worker);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Options, Sim};

    #[test]
    fn a_letter_whose_bell_nobody_hears_is_slept_over_until_something_else_happens() {
        let mut sim = Sim::new(Options::default());
        sim.run();
        let bell = std::mem::take(&mut sim.seats[0].bell);
        sim.begin_drain(Duration::from_secs(1));
        assert!(bell.0.load(std::sync::atomic::Ordering::Relaxed), "it was rung");
        sim.advance(Duration::from_secs(10));
        assert_eq!((sim.stats().mailbox_messages, sim.is_finished()), (0, false));
        sim.turn();
        assert!(sim.is_finished());
    }
}
