//! The weather of storms: what a network does to connections, as a seed says. The tests in `it` and in `reading` share this file.

use std::time::Duration;

use netpoll_core::sim::{Faults, Options};

use crate::chance::Chance;

/// Windows and ways as the seed says, for one worker; everything goes wrong that changes timing only.
pub fn stormy(seed: u64, chance: &mut Chance) -> Options {
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).faults(Faults::stormy());
    if chance.below(2) == 0 {
        options = options.latency(millis(chance.below(3))..=millis(3 + chance.below(10)));
    }
    if chance.below(2) == 0 {
        options = options.window(1000 + chance.below(9000));
    }
    options.limits.write_high_bytes = 8 * 1024;
    options.limits.write_low_bytes = 2 * 1024;
    options
}
