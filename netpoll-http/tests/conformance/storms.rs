//! The table on networks where everything goes wrong that can: what is read and written comes in pieces, late or not yet, and
//! waits are cut short. The verdicts are the same. A failure names its seed.

use netpoll_core::sim::{Faults, Options};

use crate::cases::{self, CANARY};
use crate::fixture;
use crate::target;
use crate::verdict::judge;

#[test]
fn every_case_is_answered_alike_on_a_stormy_network() {
    let seeds = std::env::var("NETPOLL_STORM_ROUNDS").map_or(6, |rounds| rounds.parse().expect("a number"));
    for seed in 1..=seeds {
        for case in cases::all_rows().flat_map(|row| (row.cases)()) {
            let client = fixture::client_on(Options::default().seed(seed).faults(Faults::stormy()));
            let outcome = target::in_memory(&client, &[&case.request, CANARY]);
            if let Err(why) = judge(&case.expect, &outcome) {
                panic!("seed {seed}, {}: {why}\n{}", case.name, case.request.escape_ascii());
            }
            assert_eq!((client.open(), client.blocks_in_use()), (0, 0), "seed {seed}, {}", case.name);
            assert_eq!(client.stats().panics, 0, "seed {seed}, {}", case.name);
        }
    }
}
