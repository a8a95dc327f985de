//! Keys for what a client sends: nobody who sees some can tell the next.
//!
//! A keyed hash of a count. The system has chosen the key, another one for each thread; no key of a frame decides anything in this program, so a simulation
//! repeats whatever they are. They are no secrets: they keep whoever chooses a payload from choosing what is on the wire (RFC 6455 section 10.3).

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static CHOSEN: RandomState = RandomState::new();
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn next() -> u64 {
    let count = COUNT.get();
    COUNT.set(count.wrapping_add(1));
    CHOSEN.with(|chosen| chosen.hash_one(count))
}

/// For a frame.
pub fn key() -> [u8; 4] {
    (next() as u32).to_le_bytes()
}

/// For a handshake.
pub fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&next().to_le_bytes());
    nonce[8..].copy_from_slice(&next().to_le_bytes());
    nonce
}
