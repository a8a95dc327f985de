//! Who is next to whom in a round: everybody has one turn, and nobody keeps a neighbour.
//!
//! A contestant leaves its successor cold caches, a slow one more so than a fast one, and a machine that drifts favours
//! one end of a round. So every other round is shuffled anew, with the round as seed, and the one that follows runs
//! it backwards: what drifts evenly through two rounds hits all alike.

/// The turns of a round, as places of the contestants; the same for the same round.
pub fn order(round: usize, contestants: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contestants).collect();
    let mut state = (round / 2) as u64;
    let mut next = || {
        // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    // Knuth, "The Art of Computer Programming", volume 2, algorithm P. A few numbers of 2^64 that are too many for an even
    // choice among so few do not matter.
    for last in (1..contestants).rev() {
        let chosen = (next() % (last as u64 + 1)) as usize;
        order.swap(last, chosen);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everybody_has_one_turn_in_every_round() {
        for contestants in [0, 1, 2, 3, 15] {
            for round in 0..50 {
                let mut all = order(round, contestants);
                all.sort_unstable();
                assert_eq!(all, (0..contestants).collect::<Vec<_>>(), "round {round}");
            }
        }
    }

    #[test]
    fn a_round_runs_its_predecessor_backwards() {
        for round in (0..20).step_by(2) {
            let backwards: Vec<usize> = order(round + 1, 15).into_iter().rev().collect();
            assert_eq!(order(round, 15), backwards);
        }
    }

    #[test]
    fn nobody_always_follows_the_same_neighbour() {
        let mut before = vec![BTreeSet::new(); 15];
        for round in 0..41 {
            let order = order(round, 15);
            order.windows(2).for_each(|pair| _ = before[pair[1]].insert(pair[0]));
        }
        for (contestant, neighbours) in before.iter().enumerate() {
            assert!(neighbours.len() >= 10, "{contestant} follows {neighbours:?} only");
        }
    }
}
