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
//! What has to hold of the program's own state, its destructor may say: it runs when the world has ended, and a panic in it is a failure as well.
//!
//! ```
//! # use std::cell::Cell;
//! struct State {
//!     in_flight: Cell<u32>,
//! }
//!
//! impl Drop for State {
//!     fn drop(&mut self) {
//!         assert_eq!(self.in_flight.get(), 0, "whoever came has gone");
//!     }
//! }
//! # State { in_flight: Cell::new(0) };
//! ```
//!
//! A failure names its seed and what repeats it: with `NETPOLL_EXPLORE=17` in its environment the same test runs world 17 alone, and `17-40`
//! names several. The world is run again before that is said. What makes worlds differ that have one seed is the app's own: time of the
//! system, numbers at random (the order of a `HashMap` is one), threads, what one world leaves in a `static` for the next.
//!
//! A world that does not come back, as a handler loops, is named on standard error while it lasts. One that takes the process along (a
//! stack that overflows, an abort) names nobody: halves of the seeds find it.
//!
//! An answer has to come to an end: a stream that goes on until its client leaves cannot be asked for, unless the request bounds it.

mod dice;
mod peer;
mod question;
mod world;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netpoll_core::sim::Options;

use super::TestClient;

pub use dice::Dice;
pub use question::Question;

/// The variable of the environment that says which worlds are run instead: `17`, or `17-40`.
const VARIABLE: &str = "NETPOLL_EXPLORE";

/// How often worlds are looked at that last: one that is there twice is named. Most take a millisecond.
const LOOK: Duration = Duration::from_secs(20);

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
    /// The same came of the same world once more, so its seed repeats it.
    pub repeats: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, repeats } = self;
        writeln!(f, "seed {seed}: {what}")?;
        match repeats {
            true => write!(f, "{VARIABLE}={seed} repeats it"),
            false => f.write_str(
                "not so when that world was run again: something decides that is not its seed, such as time of the system, numbers \
                 at random, threads, or what a world before has left in a static",
            ),
        }
    }
}

impl std::error::Error for Failure {}

impl<'a> Exploration<'a> {
    /// Explores what this makes of the options of a world: the app, with [`App::test_with`](crate::App::test_with). It is called on several threads.
    ///
    /// It may change the options, though not their seed: limits of connections, say. A world that is made of others is a failure.
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

    /// The time, in that of a world, within which an answer has come, and whoever has fallen silent is sent away: longer than the longest of
    /// the app's limits of time. Ten minutes by default.
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

    /// Runs the worlds of these seeds, or those that `NETPOLL_EXPLORE` names, if it is not empty.
    ///
    /// # Panics
    /// If something does not hold, with the [`Failure`] as the message; if nothing is asked; if there is no seed; if the variable names no worlds.
    #[track_caller]
    pub fn run(&self, seeds: RangeInclusive<u64>) -> Report {
        let named = named(std::env::var_os(VARIABLE)).unwrap_or_else(|wrong| panic!("{wrong}"));
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
    /// If nothing is asked; if there is no seed.
    #[track_caller]
    pub fn try_run(&self, seeds: RangeInclusive<u64>) -> Result<Report, Failure> {
        assert!(!self.asks.is_empty(), "an exploration has something to ask");
        assert!(!seeds.is_empty(), "an exploration has worlds: {seeds:?} names no seed");
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or_else(cpus);
        let (first, last) = seeds.into_inner();
        let next = AtomicU64::new(first);
        let found = Mutex::new((Report::default(), None::<(u64, String)>));
        let under_way: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(NOBODY)).collect();
        let work = |_ended: mpsc::Sender<()>, here: &AtomicU64| {
            let mut report = Report::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > last || seed < first {
                    break;
                }
                here.store(seed, Ordering::Relaxed);
                let outcome = self.world(seed);
                here.store(NOBODY, Ordering::Relaxed);
                match outcome {
                    Ok(world) => report.add(&world),
                    Err(what) => {
                        // Nobody begins another one.
                        next.store(last.saturating_add(1), Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.1.as_ref().is_none_or(|(known, _)| seed < *known) {
                            found.1 = Some((seed, what));
                        }
                        break;
                    }
                }
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).0.add(&report);
        };
        let (ended, all_ended) = mpsc::channel();
        std::thread::scope(|scope| {
            let places = &under_way;
            // Not by `eprintln`, which a test captures, and shows when it has ended.
            scope.spawn(move || name_those_that_last(places, &all_ended, LOOK, &mut io::stderr()));
            for here in &under_way[1..] {
                let ended = ended.clone();
                scope.spawn(|| work(ended, here));
            }
            work(ended, &under_way[0]);
        });
        let (report, failure) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some((seed, what)) => {
                let repeats = self.world(seed).is_err_and(|again| again == what);
                Err(Failure { seed, what, repeats })
            }
            None => Ok(report),
        }
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

/// In the place of a seed. That world may last unnamed.
const NOBODY: u64 = u64::MAX;

/// A test that hangs has no other way to say where.
fn name_those_that_last(
    under_way: &[AtomicU64],
    all_ended: &mpsc::Receiver<()>,
    look: Duration,
    out: &mut impl Write,
) {
    let now = || under_way.iter().map(|seed| seed.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (mut before, mut named) = (now(), vec![NOBODY]);
    while all_ended.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
        let here = now();
        for (seed, _) in here.iter().zip(&before).filter(|(seed, before)| seed == before) {
            if !named.contains(seed) {
                named.push(*seed);
                // Nobody else could be told.
                let _ = writeln!(out, "seed {seed} does not come to an end: {VARIABLE}={seed} runs it alone");
            }
        }
        before = here;
    }
}

/// The worlds that are to be run instead, if there are some.
fn named(variable: Option<OsString>) -> Result<Option<RangeInclusive<u64>>, String> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = text.to_string_lossy();
    worlds(&text).map(Some).ok_or_else(|| format!("{VARIABLE}={text}: it is 17, or 17-40"))
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

    /// Ends what is watched when something was said of it.
    struct Heard(Option<mpsc::Sender<()>>, Vec<u8>);

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            if bytes.contains(&b'\n') {
                self.0 = None;
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_world_that_lasts_is_named_and_no_thread_that_has_none() {
        let (ended, all_ended) = mpsc::channel();
        let mut heard = Heard(Some(ended), Vec::new());
        let under_way = [AtomicU64::new(NOBODY), AtomicU64::new(333)];
        name_those_that_last(&under_way, &all_ended, Duration::from_millis(1), &mut heard);
        let said = String::from_utf8(heard.1).unwrap();
        assert_eq!(said, "seed 333 does not come to an end: NETPOLL_EXPLORE=333 runs it alone\n");
    }

    #[test]
    fn a_variable_that_is_empty_names_nothing() {
        assert_eq!(named(None), Ok(None));
        assert_eq!(named(Some("".into())), Ok(None));
        assert_eq!(named(Some("17".into())), Ok(Some(17..=17)));
        assert_eq!(named(Some("none".into())), Err("NETPOLL_EXPLORE=none: it is 17, or 17-40".into()));
    }

    #[test]
    fn the_variable_names_one_world_or_a_range() {
        assert_eq!(worlds("17"), Some(17..=17));
        assert_eq!(worlds("17-40"), Some(17..=40));
        for none in ["", "x", "17-", "-17", "40-17", "1-2-3"] {
            assert_eq!(worlds(none), None, "{none}");
        }
    }
}
