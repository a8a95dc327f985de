//! What storms are made of: chance that a seed repeats, and a watchdog that says who is stuck. The tests of both crates
//! share this file.

use std::io::Write;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A small generator (xorshift64*), so that a seed is all there is to repeat.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Seeds that lie side by side have nothing in common, and none is zero.
        let mut this = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        this.next();
        this
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From zero to one less than `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    /// Another one, for another thread.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// The seeds of a storm: from `NETPOLL_STORM_SEED` (1) on, `NETPOLL_STORM_ROUNDS` of them.
pub fn seeds(rounds: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = number("NETPOLL_STORM_SEED");
    let rounds = number("NETPOLL_STORM_ROUNDS").unwrap_or(if first.is_some() { 1 } else { rounds });
    let first = first.unwrap_or(1);
    (first..first + rounds).inspect(|seed| println!("seed {seed}"))
}

/// Ends the process, and says what is stuck, unless it is dropped in time.
pub struct Watchdog(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl Watchdog {
    pub fn new(limit: Duration, what_is_stuck: impl Fn() -> String + Send + 'static) -> Self {
        let (sender, dropped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Past the capture of the test harness, which would keep it to itself.
                let _ = writeln!(std::io::stderr(), "stuck for {limit:?}:\n{}", what_is_stuck());
                std::process::abort();
            }
        });
        Self(Some((sender, thread)))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            // It has nothing to say any more.
            let _ = thread.join();
        }
    }
}
