//! Part `handover`: a process is replaced by one that takes its sockets over, again and again while clients ask; nothing is lost at all.
//!
//! Twenty times the next mini-program is started with the `--handover` of the one that serves, which ends by itself when that
//! one serves. 200 clients in a closed loop ask directly, half of them with a connection for each request, a quarter of which hesitate
//! before they ask, and half with kept ones, half of which rest between requests. Then as many through nginx, as it comes and with a
//! pool of connections, with GET and with POST, which a proxy does not ask again.
//!
//! Kept connections that are idle move to the next process, and their clients must not notice.
//!
//! No queue is closed here, so nothing is forgiven: as many connections as clients saw established have to be accepted by somebody, and
//! none may be refused, reset, or end with a request unanswered, a later request on a kept connection included.

use crate::Plan;
use crate::counts::Counts;
use crate::crowd::{Crowd, Manner, Question};
use crate::program::{Ended, Program, is_installed};
use crate::proxy::{Nginx, ask_meanwhile};
use crate::restart::{CLIENTS, REST_MAX, THREADS, between};
use crate::table::{Row, Target};
use benches::runner::Failure;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const PART: &str = "handover";

/// A mini-program, and those that were there before.
struct Line {
    current: Program,
    addr: SocketAddr,
    path: PathBuf,
    ended: Vec<Ended>,
}

impl Line {
    fn start(plan: &Plan) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("netpoll-ends-{}.sock", std::process::id()));
        let current = start(plan, 0, &path)?;
        Ok(Self { addr: current.addr, current, path, ended: Vec::new() })
    }

    /// Replaces so many times, each time once `answered` has grown.
    fn roll(&mut self, plan: &Plan, answered: impl Fn() -> u64) -> Result<(), Failure> {
        for _ in 0..plan.handovers() {
            between(&answered);
            let next = start(plan, self.addr.port(), &self.path)?;
            self.ended.push(std::mem::replace(&mut self.current, next).ended()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Ended>, Failure> {
        self.ended.push(self.current.stop()?);
        Ok(self.ended)
    }
}

fn start(plan: &Plan, port: u16, path: &std::path::Path) -> Result<Program, Failure> {
    let path = path.display().to_string();
    plan.start(port, &["--handover", &path], None)
}

pub fn check(plan: &Plan) -> Result<(), Failure> {
    direct(plan)?;
    let proxies = [("nginx, a connection each", Nginx::DEFAULT), ("nginx, a pool", Nginx::POOL)];
    for (name, nginx) in proxies {
        if is_installed("nginx") {
            proxied(plan, name, &nginx)?;
        } else {
            plan.skip(PART, name, format_args!("nginx is not installed"));
        }
    }
    Ok(())
}

fn direct(plan: &Plan) -> Result<(), Failure> {
    let once =
        [Manner::ClosedByServer, Manner::ClosedByClient, Manner::Hesitant(REST_MAX), Manner::ClosedByServer];
    let kept = [Manner::Kept(Duration::ZERO), Manner::Kept(REST_MAX)].repeat(2);
    let manners: Vec<Manner> = once.into_iter().chain(kept).cycle().take(CLIENTS).collect();
    let mut line = Line::start(plan)?;
    let crowd = Crowd::start(line.addr, &Question::get(), &manners, THREADS);
    let rolled = line.roll(plan, || crowd.answered());
    let counts = crowd.finish()?;
    rolled?;
    plan.show(&judged(&counts, &line.finish()?));
    Ok(())
}

fn judged(counts: &Counts, ended: &[Ended]) -> Vec<Row> {
    let moved: u64 = ended.iter().map(|end| end.moved).sum();
    let accepted = ended.iter().map(|end| end.accepted).sum::<u64>().saturating_sub(moved);
    let longest = ended.iter().map(|end| end.took).max().unwrap_or_default();
    let badly = ended.iter().filter(|end| !end.status.success()).count() as u64;
    let row = |what: &str, count, target| Row::new(PART, format!("direct: {what}"), count, target);
    let none = Target::AtMost(0);
    vec![
        row("answered", counts.answered, Target::AtLeast(1)).noting(format!(
            "{} handovers, {} connections, {} told to close, {} ended between requests",
            ended.len() - 1,
            counts.established,
            counts.told_to_close,
            counts.closed_between
        )),
        row("moved while it was idle", moved, Target::Shown),
        row("refused", counts.refused, none),
        row("reset", counts.reset + counts.reset_behind + counts.reset_between + counts.crossed_reset, none),
        row("EOF without an answer", counts.lost + counts.crossed_eof, none),
        row("cut within an answer, or a wrong one", counts.cut + counts.wrong + counts.refusals(), none),
        row("no answer in 10 s, or left open for 5 s behind it", counts.timeouts + counts.left_open, none),
        row("connected after more than 0.5 s", counts.slow_connects, none).noting("a SYN was sent again"),
        row("established, and accepted by nobody", counts.established.saturating_sub(accepted), none),
        row("processes that did not drain", badly, none).noting(format!(
            "{} ended, the slowest {:.2} s behind the start of the next",
            ended.len(),
            longest.as_secs_f64()
        )),
    ]
}

fn proxied(plan: &Plan, name: &str, nginx: &Nginx) -> Result<(), Failure> {
    let mut line = Line::start(plan)?;
    let proxy = nginx.start(line.addr)?;
    ask_meanwhile(plan, PART, name, proxy.addr, |answered| line.roll(plan, answered))?;
    line.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(accepted: u64) -> Ended {
        Ended { status: ExitStatus::from_raw(0), took: Duration::ZERO, accepted, moved: 0 }
    }

    #[test]
    fn every_way_to_lose_something_fails_and_nothing_is_forgiven() {
        let good = Counts { answered: 10, established: 10, ..Counts::default() };
        let failing = |counts: &Counts, accepted| {
            let rows = judged(counts, &[ended(4), ended(accepted)]);
            rows.into_iter().filter(|row| !row.holds()).count()
        };
        assert_eq!(failing(&good, 6), 0);
        assert_eq!(failing(&good, 5), 1);
        let spoil: [fn(&mut Counts); 11] = [
            |counts| counts.refused = 1,
            |counts| counts.lost = 1,
            |counts| counts.reset = 1,
            |counts| counts.reset_behind = 1,
            |counts| counts.reset_between = 1,
            |counts| counts.crossed_eof = 1,
            |counts| counts.crossed_reset = 1,
            |counts| counts.cut = 1,
            |counts| counts.timeouts = 1,
            |counts| counts.slow_connects = 1,
            |counts| *counts.statuses.entry(503).or_default() += 1,
        ];
        for (nth, spoil) in spoil.into_iter().enumerate() {
            let mut counts = good.clone();
            spoil(&mut counts);
            assert_eq!(failing(&counts, 6), 1, "spoilt {nth}: {counts:?}");
        }
    }
}
