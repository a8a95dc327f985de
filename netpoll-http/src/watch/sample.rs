//! Which of many requests that went well a log shows.
//!
//! One of each so many, at a place that differs from one such block to the next: a rhythm in what is asked, a page and its picture in turns,
//! does not hide one of them. The places are always the same, and no clock or chance has to do with it. A request costs a comparison
//! and an addition, and one in so many ten operations more.
//!
//! Invariant: of each block exactly one is shown.

use std::cell::Cell;

/// Which are shown, on one worker.
#[derive(Debug)]
pub struct Sample {
    one_in: u32,
    /// The next request's place in its block, below `one_in`.
    place: Cell<u32>,
    /// The one of this block that is shown, below `one_in`.
    shown: Cell<u32>,
    state: Cell<u64>,
}

impl Sample {
    /// One in so many, which is at least 1.
    pub fn one_in(one_in: u32) -> Self {
        Self { one_in: one_in.max(1), place: Cell::new(0), shown: Cell::new(0), state: Cell::new(0) }
    }

    /// Whether the next one is shown.
    #[inline]
    pub fn shows_next(&self) -> bool {
        if self.one_in == 1 {
            return true;
        }
        let place = self.place.get();
        let is_shown = place == self.shown.get();
        self.place.set(place + 1);
        if place + 1 == self.one_in {
            self.begin_block();
        }
        is_shown
    }

    #[inline(never)]
    fn begin_block(&self) {
        self.place.set(0);
        self.shown.set(self.somewhere());
    }

    /// A place in a block.
    fn somewhere(&self) -> u32 {
        // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Its upper half as a fraction of a block: below it, and as even as 2^32 allows.
        (((mixed >> 32) * u64::from(self.one_in)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_block_one_is_shown_wherever_it_lies() {
        for one_in in [2, 3, 10, 100] {
            let sample = Sample::one_in(one_in);
            let mut places = vec![0; one_in as usize];
            for _ in 0..1000 {
                let shown: Vec<usize> = (0..one_in as usize).filter(|_| sample.shows_next()).collect();
                assert_eq!(shown.len(), 1);
                places[shown[0]] += 1;
            }
            let least = places.iter().min().copied();
            assert!(least > Some(0), "one in {one_in}: {places:?}");
        }
        let all = Sample::one_in(0);
        assert!((0..10).all(|_| all.shows_next()));
    }
}
