//! Rounds: the same work for several servers next to each other, and only undisturbed ones are kept.
//!
//! A round gives every contestant one turn, in an order of its own (`order.rs`). A round in which the hypervisor
//! stole more than `steal_max` of a core (both cores added up), or other processes used more than `other_max`, is thrown
//! away and repeated. Both are known in ticks of 10 ms only, so they are judged over stretches of half a second or more:
//! over each turn if turns are long, over several or the whole round if they are short. Six times as many rounds as
//! wanted are the end of it; too few kept ones make the check `noisy`, not passed. Before the first round, and after
//! each one that was disturbed, it waits, some seconds at most, for a moment in which nobody else is busy.

use super::order::order;
use super::watch::{TICKS_PER_SECOND, Watch};
use super::{Failure, proc::Machine};
use std::fmt::Arguments;
use std::time::{Duration, Instant};

/// Rounds tried for each one wanted.
const ATTEMPTS: usize = 6;
const QUIET_WAIT: Duration = Duration::from_secs(10);
const QUIET_LOOK: Duration = Duration::from_millis(200);

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
    let mut is_disturbed = true; // nobody has looked yet
    for nth in 0..conditions.rounds * ATTEMPTS {
        if kept.len() == conditions.rounds {
            break;
        }
        if is_disturbed {
            wait_for_quiet(conditions)?;
        }
        let mut samples: Vec<Option<S>> = (0..contestants).map(|_| None).collect();
        let (mut steal, mut other): (f64, f64) = (0.0, 0.0);
        let (mut watch, mut own_seconds) = (Watch::begin()?, 0.0);
        for (place, contestant) in order(nth, contestants).into_iter().enumerate() {
            let sample = turn(contestant)?;
            own_seconds += sample.own_cpu_seconds();
            samples[contestant] = Some(sample);
            if !watch.is_long_enough() && place + 1 < contestants {
                continue;
            }
            let others = watch.others(own_seconds)?;
            (steal, other) = (steal.max(others.stolen), other.max(others.busy));
            is_disturbed = steal > conditions.steal_max || other > conditions.other_max;
            if is_disturbed {
                break;
            }
            (watch, own_seconds) = (Watch::begin()?, 0.0);
        }
        rounds.steal_any = rounds.steal_any.max(steal);
        if is_disturbed {
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
