//! Numbers that nobody else has: for names of requests, not for secrets.
//!
//! A sequence for each thread, which the system has chosen the beginning of. It runs through all 64-bit numbers before it
//! repeats, and who has seen one number can tell the next. What tells threads apart is a number of each, chosen by the system as well. Nothing
//! that a program decides depends on them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// The place in the sequence, and the digits of the thread.
#[derive(Clone, Copy)]
struct Chance {
    place: u64,
    of_thread: [u8; 16],
}

thread_local! {
    static CHANCE: Cell<Chance> = {
        let (chosen, mut of_thread) = (RandomState::new(), [0; 16]);
        hex(&chosen.hash_one(1).to_be_bytes(), &mut of_thread);
        Cell::new(Chance { place: chosen.hash_one(0), of_thread })
    };
}

/// Eight bytes that no other request of this thread has, and of others hardly any.
pub fn unique_8() -> [u8; 8] {
    next().0.to_be_bytes()
}

/// Thirty-two digits that no other request has. The last sixteen are those of the thread.
pub fn unique_digits() -> [u8; 32] {
    let (number, of_thread) = next();
    let mut digits = [0; 32];
    hex(&number.to_be_bytes(), &mut digits);
    digits[16..].copy_from_slice(&of_thread);
    digits
}

#[inline]
fn next() -> (u64, [u8; 16]) {
    let Chance { place, of_thread } = CHANCE.get();
    // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64.
    let place = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    CHANCE.set(Chance { place, of_thread });
    let mixed = (place ^ (place >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31), of_thread)
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
        let many = || (0..1000).map(|_| unique_digits()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(many)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("it counts")).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4000);
        assert_eq!((0..1000).map(|_| unique_8()).collect::<HashSet<_>>().len(), 1000);
        let mut digits = [0; 8];
        hex(&[0, 0x1f, 0xa9, 0xff], &mut digits);
        assert_eq!(&digits, b"001fa9ff");
    }
}
