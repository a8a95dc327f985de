//! Rounds: the same work for several servers next to each other, and only undisturbed ones are kept.
//!
//! A round gives every contestant one turn, in reversed order every other round, so that a slow drift of the
//! machine hits all alike. A round in which the hypervisor stole more than `steal_max` of a core (both cores
//! added up), or other processes used more than `other_max`, is thrown away and repeated. Six times as many
//! rounds as wanted are the end of it; too few kept ones make the check `noisy`, not passed. Before each round it
//! waits, some seconds at most, for a moment in which nobody else is busy.

use super::Failure;
use super::proc::Machine;
use std::fmt::Arguments;
use std::time::{Duration, Instant};

/// Rounds tried for each one wanted.
const ATTEMPTS: usize = 6;
const QUIET_WAIT: Duration = Duration::from_secs(10);
const QUIET_LOOK: Duration = Duration::from_millis(200);

/// The unit of /proc/stat and /proc/PID/stat (USER_HZ): part of the kernel's interface on x86 and ARM.
pub const TICKS_PER_SECOND: f64 = 100.0;

/// What a round has to be like to count.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Kept rounds that make a comparison.
    pub rounds: usize,
    /// Share of a core, both cores added up, that may be stolen in a round.
    pub steal_max: f64,
    /// Share of a core that processes other than ours may use in a round.
    pub other_max: f64,
    /// Progress on standard error.
    pub verbose: bool,
}

impl Conditions {
    /// Progress for whoever watches.
    pub fn say(&self, what: Arguments<'_>) {
        if self.verbose {
            eprintln!("{what}");
        }
    }
}

/// Rounds of a measurement.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rounds {
    /// Rounds that count.
    pub kept: usize,
    /// Disturbed ones.
    pub dropped: usize,
    /// Highest share of a core that was stolen in a kept round.
    pub steal_kept: f64,
    /// The same of all rounds.
    pub steal_any: f64,
}

/// What one contestant did in one round.
pub trait Sample {
    /// Seconds of CPU that the sample's own processes used: the server and the client.
    fn own_cpu_seconds(&self) -> f64;
}

/// Kept rounds, each with a sample per contestant in the contestants' order.
///
/// # Errors
/// The first turn that failed.
pub fn run<S: Sample>(
    conditions: &Conditions,
    contestants: usize,
    mut turn: impl FnMut(usize) -> Result<S, Failure>,
) -> Result<(Vec<Vec<S>>, Rounds), Failure> {
    let mut kept = Vec::new();
    let mut rounds = Rounds::default();
    for nth in 0..conditions.rounds * ATTEMPTS {
        if kept.len() == conditions.rounds {
            break;
        }
        wait_for_quiet(conditions)?;
        let mut samples: Vec<Option<S>> = (0..contestants).map(|_| None).collect();
        let mut steal: f64 = 0.0;
        let mut other: f64 = 0.0;
        for place in 0..contestants {
            let contestant = if nth % 2 == 0 { place } else { contestants - 1 - place };
            let (before, begin) = (Machine::now()?, Instant::now());
            let sample = turn(contestant)?;
            let (after, seconds) = (Machine::now()?, begin.elapsed().as_secs_f64());
            let ticks = TICKS_PER_SECOND * seconds;
            steal = steal.max((after.stolen - before.stolen) as f64 / ticks);
            other = other.max((after.busy - before.busy) as f64 / ticks - sample.own_cpu_seconds() / seconds);
            samples[contestant] = Some(sample);
            if steal > conditions.steal_max || other > conditions.other_max {
                break;
            }
        }
        rounds.steal_any = rounds.steal_any.max(steal);
        if steal > conditions.steal_max || other > conditions.other_max {
            rounds.dropped += 1;
            conditions.say(format_args!(
                "round {nth} dropped: steal {:.1} %, others {:.1} %",
                steal * 100.0,
                other * 100.0
            ));
            continue;
        }
        rounds.steal_kept = rounds.steal_kept.max(steal);
        kept.push(samples.into_iter().flatten().collect());
    }
    rounds.kept = kept.len();
    Ok((kept, rounds))
}

/// Returns once both cores are all but idle for a moment, or when it has waited long enough.
fn wait_for_quiet(conditions: &Conditions) -> Result<(), Failure> {
    let begin = Instant::now();
    while begin.elapsed() < QUIET_WAIT {
        let before = Machine::now()?;
        std::thread::sleep(QUIET_LOOK);
        let after = Machine::now()?;
        let ticks = TICKS_PER_SECOND * QUIET_LOOK.as_secs_f64();
        let quiet = |used: u64, share: f64| used as f64 <= ticks * share + 1.0;
        if quiet(after.stolen - before.stolen, conditions.steal_max)
            && quiet(after.busy - before.busy, conditions.other_max)
        {
            return Ok(());
        }
    }
    Ok(())
}
