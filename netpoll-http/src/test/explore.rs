//! A service in many worlds, each of which a seed decides: what clients do, what the network does to it, in which pieces and in which order.
//!
//! An [`Exploration`] has an app and what it may be asked. In each world a few clients ask: politely, byte by byte, without reading, leaving
//! in the middle; on a network that cuts, delays and runs out of descriptors; on one worker or several; with a process that stands still,
//! and one that drains. What has to hold whatever happens is looked at in each:
//!
//! - every request of a client that keeps the rules is answered once, rightly and in order, unless an answer before it said that it was the last
//!   or its connection is seen to end;
//! - no answer comes that was not asked for, and none behind the last one;
//! - nothing panics, and no counter disagrees with another;
//! - the connection of a client that has left ends soon, whatever its handlers wait for;
//! - whoever falls silent is sent away in time, and then no connection, no task and no buffer is left;
//! - a drain ends.
//!
//! ```
//! use netpoll_http::explore::{Exploration, Question};
//! use netpoll_http::{App, Error, Request, Router};
//!
//! fn double(req: &Request<'_>) -> Result<String, Error> {
//!     let n: u64 = req.param("n")?;
//!     Ok((2 * n).to_string())
//! }
//!
//! let report = Exploration::new(|options| App::new(|_| Router::new().get("/double/{n}", double)).test_with(options))
//!     .ask(|dice| {
//!         let n = dice.below(1000);
//!         Question::get(&format!("/double/{n}")).answered(200, (2 * n).to_string())
//!     })
//!     .ask(|_| Question::get("/double/two").status(400))
//!     .run(1..=20);
//! assert_eq!(report.worlds, 20);
//! ```
//!
//! A failure names its seed and the line that repeats it, and nothing else: `NETPOLL_EXPLORE=17` has the same program run world 17 alone. What
//! makes worlds differ that have one seed is the app's own: time of the system, numbers at random, threads.

mod dice;
mod peer;
mod question;
mod world;

use std::any::Any;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netpoll_core::sim::Options;

use super::TestClient;

pub use dice::Dice;
pub use question::Question;

/// The variable of the environment that says which worlds are run instead: `17`, or `17-40`.
const VARIABLE: &str = "NETPOLL_EXPLORE";

type Make<'a> = Box<dyn Fn(Options) -> TestClient + Sync + 'a>;
type Ask<'a> = Box<dyn Fn(&mut Dice) -> Question + Sync + 'a>;

/// An app, and what it is asked in many worlds.
pub struct Exploration<'a> {
    make: Make<'a>,
    asks: Vec<Ask<'a>>,
    quiet: Duration,
    half_close: bool,
    threads: Option<usize>,
}

/// What happened in all worlds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Worlds.
    pub worlds: u64,
    /// Clients.
    pub clients: u64,
    /// Requests that were sent as a whole.
    pub asked: u64,
    /// Answers that came, each of which was right.
    pub answered: u64,
    /// Worlds in which the server was told to end while clients were at it.
    pub drained: u64,
    /// Depends on what happened in each of the worlds, and not on their order: the same again for an app that leaves nothing to chance.
    pub digest: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.clients += other.clients;
        self.asked += other.asked;
        self.answered += other.answered;
        self.drained += other.drained;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, clients, asked, answered, drained, digest } = self;
        write!(
            f,
            "{worlds} worlds, {drained} of them drained: {clients} clients, {asked} requests, {answered} answers, digest {digest:016x}"
        )
    }
}

/// A world in which something did not hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the world.
    pub seed: u64,
    /// What did not hold, and for whom.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}\n{VARIABLE}={} repeats it", self.seed, self.what, self.seed)
    }
}

impl std::error::Error for Failure {}

impl<'a> Exploration<'a> {
    /// Explores what this makes of the options of a world: the app, with [`App::test_with`](crate::App::test_with). It is called on several threads.
    ///
    /// It may change the options, though not their seed: limits of connections, say.
    pub fn new(make: impl Fn(Options) -> TestClient + Sync + 'a) -> Self {
        Self {
            make: Box::new(make),
            asks: Vec::new(),
            quiet: Duration::from_secs(600),
            half_close: false,
            threads: None,
        }
    }

    /// One more thing that clients ask. Each request is one of these, as the dice have it.
    #[must_use]
    pub fn ask(mut self, ask: impl Fn(&mut Dice) -> Question + Sync + 'a) -> Self {
        self.asks.push(Box::new(ask));
        self
    }

    /// The time, in that of a world, within which whoever has fallen silent is sent away: longer than the longest of the app's limits of
    /// time. Ten minutes by default.
    #[must_use]
    pub const fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// The app answers clients that have ended their direction ([`Limits::half_close`](crate::Limits)), so one that has left is not told from one that
    /// waits: its connection may last as long as its handlers do. By default it has to be given up.
    #[must_use]
    pub const fn half_close(mut self, half_close: bool) -> Self {
        self.half_close = half_close;
        self
    }

    /// How many threads run worlds, at least one. By default one for each CPU.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Runs the worlds of these seeds, or those that `NETPOLL_EXPLORE` names.
    ///
    /// # Panics
    /// If something does not hold, with the [`Failure`] as the message; if nothing is asked; if the variable names no worlds.
    #[track_caller]
    pub fn run(&self, seeds: RangeInclusive<u64>) -> Report {
        let named = match std::env::var(VARIABLE) {
            Ok(text) => {
                Some(worlds(&text).unwrap_or_else(|| panic!("{VARIABLE}={text}: it is 17, or 17-40")))
            }
            Err(_) => None,
        };
        match self.try_run(named.unwrap_or(seeds)) {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Runs the worlds of these seeds, and asks no environment.
    ///
    /// # Errors
    /// Something did not hold: the failure of the lowest seed that is known when the threads have stopped.
    ///
    /// # Panics
    /// If nothing is asked.
    #[track_caller]
    pub fn try_run(&self, seeds: RangeInclusive<u64>) -> Result<Report, Failure> {
        assert!(!self.asks.is_empty(), "an exploration has something to ask");
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or_else(cpus);
        let (first, last) = seeds.into_inner();
        let next = AtomicU64::new(first);
        let found = Mutex::new((Report::default(), None::<Failure>));
        let work = || {
            let mut report = Report::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > last || seed < first {
                    break;
                }
                match self.world(seed) {
                    Ok(world) => report.add(&world),
                    Err(what) => {
                        // Nobody begins another one.
                        next.store(last.saturating_add(1), Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.1.as_ref().is_none_or(|known| seed < known.seed) {
                            found.1 = Some(Failure { seed, what });
                        }
                        break;
                    }
                }
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).0.add(&report);
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let (report, failure) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(report), Err)
    }

    fn world(&self, seed: u64) -> Result<Report, String> {
        catch_unwind(AssertUnwindSafe(|| world::run(self, seed)))
            .unwrap_or_else(|payload| Err(format!("a panic: {}", said(&*payload))))
    }
}

impl fmt::Debug for Exploration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exploration").field("asks", &self.asks.len()).finish_non_exhaustive()
    }
}

/// What the variable names.
fn worlds(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn said(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref::<&str>().copied().unwrap_or("of something else than text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_one_world_or_a_range() {
        assert_eq!(worlds("17"), Some(17..=17));
        assert_eq!(worlds("17-40"), Some(17..=40));
        for none in ["", "x", "17-", "-17", "40-17", "1-2-3"] {
            assert_eq!(worlds(none), None, "{none}");
        }
    }
}
