//! Sources that still owe work when their share of a turn ran out.
//!
//! An edge-triggered poller reports a source once and then stays silent until the source has been
//! drained. A turn that stops early has to remember it, or the peer hangs.
//!
//! Invariant: a key stands here at most once; whoever pushes keeps a mark beside the source and clears
//! it when the key comes back. First in, first out, so that sources take turns. Push and pop are O(1) and
//! do not allocate once warm.

use std::collections::VecDeque;

use crate::mem::Key;

/// Keys to resume, oldest first.
#[derive(Default)]
pub struct ReadyList {
    keys: VecDeque<Key>,
}

impl ReadyList {
    /// The caller has checked its mark: the key is not here yet.
    pub fn push(&mut self, key: Key) {
        debug_assert!(!self.keys.contains(&key), "{key:?} is on the ready list already");
        self.keys.push_back(key);
    }

    pub fn pop(&mut self) -> Option<Key> {
        self.keys.pop_front()
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.keys.shrink_to_fit();
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
