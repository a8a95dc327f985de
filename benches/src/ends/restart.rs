//! Part `restart`: processes that share a port are replaced one after the other while clients ask; nothing is lost.
//!
//! Two mini-programs share a port. Ten times the older one is asked to end (SIGTERM) once another has started beside them,
//! under 200 clients in a closed loop: first with a connection for each request, a quarter of which hesitate before they ask,
//! then with kept connections, half of which rest between requests; both for less than the grace of a drain.
//!
//! A drain can lose a request in four ways, and each is a row: a connection is refused, ends or is reset without an
//! answer, is cut within one, or hangs. A request on a kept connection that its end crosses is a row of its own: the protocol
//! allows it, and the grace of a drain is there so that it does not happen.
//!
//! *In a queue that was closed* are connections that the kernel had established and no process accepted: what clients saw
//! established, less what all processes say that they accepted. They were queued, or on their way into the queue, between the
//! last accept and the close, which only a listening socket that is handed on can avoid, so resets are forgiven up to that number.

use crate::Plan;
use crate::counts::Counts;
use crate::crowd::{Crowd, Manner, Question};
use crate::program::{Ended, Program};
use crate::table::{Row, Target};
use benches::runner::Failure;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PART: &str = "restart";
pub const CLIENTS: usize = 200;
pub const THREADS: usize = 2;
/// Clients rest or hesitate for up to this, well below the grace of a drain.
pub const REST_MAX: Duration = Duration::from_millis(400);
/// What has to be answered between two restarts, and how long that may take.
const ANSWERS_BETWEEN: u64 = 1000;
const BETWEEN_MIN: Duration = Duration::from_millis(200);
const BETWEEN_MAX: Duration = Duration::from_secs(10);

/// Two mini-programs that share a port, one of which can be replaced.
pub struct Pair {
    programs: VecDeque<Program>,
    pub addr: SocketAddr,
    ended: Vec<Ended>,
}

impl Pair {
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let first = plan.start(0, &["--share-port"], None)?;
        let addr = first.addr;
        let second = plan.start(addr.port(), &["--share-port"], None)?;
        Ok(Self { programs: [first, second].into(), addr, ended: Vec::new() })
    }

    /// Starts another and ends the oldest.
    fn replace(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.programs.push_back(plan.start(self.addr.port(), &["--share-port"], None)?);
        if let Some(oldest) = self.programs.pop_front() {
            self.ended.push(oldest.stop()?);
        }
        Ok(())
    }

    /// Replaces so many times, each time once `answered` has grown.
    pub fn roll(&mut self, plan: &Plan, times: usize, answered: impl Fn() -> u64) -> Result<(), Failure> {
        for _ in 0..times {
            between(&answered);
            self.replace(plan)?;
        }
        Ok(())
    }

    /// Ends those that are left; how all have ended.
    pub fn finish(mut self) -> Result<Vec<Ended>, Failure> {
        for program in self.programs.drain(..) {
            self.ended.push(program.stop()?);
        }
        Ok(self.ended)
    }
}

/// Waits between two restarts until clients have had their time.
pub fn between(answered: &impl Fn() -> u64) {
    let (before, begun) = (answered(), Instant::now());
    while begun.elapsed() < BETWEEN_MIN
        || (answered() < before + ANSWERS_BETWEEN && begun.elapsed() < BETWEEN_MAX)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn check(plan: &Plan) -> Result<(), Failure> {
    let late = Manner::Hesitant(REST_MAX);
    let once = [Manner::ClosedByServer, Manner::ClosedByClient, Manner::ClosedByServer, late];
    let kept = [Manner::Kept(Duration::ZERO), Manner::Kept(REST_MAX)];
    rolling(plan, "a connection each", &once)?;
    rolling(plan, "kept connections", &kept)
}

fn rolling(plan: &Plan, who: &str, manners: &[Manner]) -> Result<(), Failure> {
    let mut pair = Pair::start(plan)?;
    let manners: Vec<Manner> = manners.iter().copied().cycle().take(CLIENTS).collect();
    let crowd = Crowd::start(pair.addr, &Question::get(), &manners, THREADS);
    let rolled = pair.roll(plan, plan.restarts(), || crowd.answered());
    let counts = crowd.finish()?;
    rolled?;
    plan.show(&judged(who, &counts, &pair.finish()?, plan.restarts()));
    Ok(())
}

fn judged(who: &str, counts: &Counts, ended: &[Ended], restarts: usize) -> Vec<Row> {
    let accepted: u64 = ended.iter().map(|end| end.accepted).sum();
    let queued = counts.established.saturating_sub(accepted);
    let resets = counts.reset + counts.reset_behind + counts.reset_between;
    let longest = ended.iter().map(|end| end.took).max().unwrap_or_default();
    let badly = ended.iter().filter(|end| !end.status.success()).count() as u64;
    let row = |what: &str, count, target| Row::new(PART, format!("{who}: {what}"), count, target);
    let none = Target::AtMost(0);
    vec![
        row("answered", counts.answered, Target::AtLeast(1)).noting(format!(
            "{restarts} restarts, {} connections, {} told to close, {} ended between requests",
            counts.established, counts.told_to_close, counts.closed_between
        )),
        row("refused", counts.refused, none),
        row("EOF without an answer on a new connection", counts.lost, none),
        row("reset", resets.saturating_sub(queued.min(counts.reset)), none).noting(format!(
            "{} without an answer on a new connection, {} behind an answer, {} between requests; those in a closed queue \
             are forgiven",
            counts.reset, counts.reset_behind, counts.reset_between
        )),
        row("a later request crossed by the end", counts.crossed(), none)
            .noting(format!("{} EOF, {} RST", counts.crossed_eof, counts.crossed_reset)),
        row("cut within an answer, or a wrong one", counts.cut + counts.wrong + counts.refusals(), none),
        row("no answer in 10 s, or left open for 5 s behind it", counts.timeouts + counts.left_open, none),
        row("connected after more than 0.5 s", counts.slow_connects, Target::Shown).noting("a SYN was sent again"),
        row("in a queue that was closed", queued, Target::Shown).noting("established, and accepted by nobody"),
        row("processes that did not drain", badly, none)
            .noting(format!("{} ended, the slowest in {:.2} s", ended.len(), longest.as_secs_f64())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(accepted: u64) -> Ended {
        Ended { status: ExitStatus::from_raw(0), took: Duration::ZERO, accepted, moved: 0 }
    }

    fn failing(counts: &Counts, accepted: &[u64]) -> Vec<String> {
        let ended: Vec<Ended> = accepted.iter().map(|&accepted| ended(accepted)).collect();
        let rows = judged("x", counts, &ended, 1);
        rows.into_iter().filter(|row| !row.holds()).map(|row| row.what).collect()
    }

    #[test]
    fn every_way_to_lose_a_request_fails() {
        let good = Counts { answered: 10, established: 10, ..Counts::default() };
        assert_eq!(failing(&good, &[4, 6]), [""; 0]);
        let spoil: [fn(&mut Counts); 10] = [
            |counts| counts.refused = 1,
            |counts| counts.lost = 1,
            |counts| counts.reset = 1,
            |counts| counts.reset_behind = 1,
            |counts| counts.reset_between = 1,
            |counts| counts.crossed_eof = 1,
            |counts| counts.crossed_reset = 1,
            |counts| counts.cut = 1,
            |counts| counts.timeouts = 1,
            |counts| *counts.statuses.entry(503).or_default() += 1,
        ];
        for (nth, spoil) in spoil.into_iter().enumerate() {
            let mut counts = good.clone();
            spoil(&mut counts);
            assert_eq!(failing(&counts, &[4, 6]).len(), 1, "spoilt {nth}: {counts:?}");
        }
    }

    #[test]
    fn resets_are_forgiven_up_to_the_number_that_nobody_accepted() {
        let counts = |reset| Counts { answered: 10, established: 10, reset, ..Counts::default() };
        assert_eq!(failing(&counts(2), &[4, 4]), [""; 0]);
        assert_eq!(failing(&counts(3), &[4, 4]), ["x: reset"]);
    }
}
