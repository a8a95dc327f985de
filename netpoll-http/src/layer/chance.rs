//! Numbers that nobody else has: for names of requests, not for secrets.
//!
//! A counter of the thread under a keyed hash, with keys that the system has chosen. Nothing that a program decides
//! depends on them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static KEYS: RandomState = RandomState::new();
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// So many bytes that no other request has.
pub fn unique<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for piece in bytes.chunks_mut(8) {
        let count = COUNT.replace(COUNT.get() + 1);
        let number = KEYS.with(|keys| keys.hash_one(count)).to_be_bytes();
        piece.copy_from_slice(&number[..piece.len()]);
    }
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
