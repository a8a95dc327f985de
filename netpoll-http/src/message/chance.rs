//! Numbers that nobody else has: for names of requests, not for secrets.
//!
//! Two sequences for each thread, which the system has chosen the beginnings of. Each runs through all 64-bit numbers before it
//! repeats, and who has seen one number can tell the next. Nothing that a program decides depends on them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static PLACES: Cell<[u64; 2]> = {
        let chosen = RandomState::new();
        Cell::new([chosen.hash_one(0), chosen.hash_one(1)])
    };
}

/// Eight bytes that no other request of this thread has, and of others hardly any.
pub fn unique_8() -> [u8; 8] {
    next()[0].to_be_bytes()
}

/// Sixteen bytes that no other request has.
pub fn unique_16() -> [u8; 16] {
    let [high, low] = next();
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn next() -> [u64; 2] {
    // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64.
    let places = PLACES.get().map(|place| place.wrapping_add(0x9e37_79b9_7f4a_7c15));
    PLACES.set(places);
    places.map(|place| {
        let mixed = (place ^ (place >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Bytes as lower-case hexadecimal digits, two for each.
pub fn hex(bytes: &[u8], digits: &mut [u8]) {
    const PAIRS: [[u8; 2]; 256] = {
        let (digits, mut pairs, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
        while byte < 256 {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_of_all_threads_differ() {
        let many = || (0..1000).map(|_| unique_16()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(many)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("it counts")).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4000);
        assert_eq!((0..1000).map(|_| unique_8()).collect::<HashSet<_>>().len(), 1000);
        let mut digits = [0; 8];
        hex(&[0, 0x1f, 0xa9, 0xff], &mut digits);
        assert_eq!(&digits, b"001fa9ff");
    }
}
