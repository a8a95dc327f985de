//! Lines from one worker to the thread that writes them, without a lock and without waiting.
//!
//! A ring of words. The worker copies a line in and moves the head behind it; the writer copies it out and moves the tail. Each
//! of the two is stored by one thread. What there is no room for is not taken, and counted.
//!
//! `tests/loom.rs` has it, its writer and their wake-ups in every interleaving.
//!
//! Invariant: between tail and head lie whole lines, each a word with its length in bytes and then its bytes, filled up to a word.
//! Who stores a place owns it: the worker those from head to tail, the writer the others. A line costs a load and a store for each
//! word, and two for the head.

use super::sync::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Bytes of a word.
const WORD: usize = 8;

/// Fewer have no eighth to keep.
const WORDS_MIN: usize = 8;

/// How much a line matters when not all can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A request that went well.
    Usual,
    /// One that went wrong for its client: 4xx, or it left.
    Client,
    /// One that went wrong for us: 5xx, panics, what was broken off or cut.
    Failure,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usual, Self::Client, Self::Failure];
}

/// A counter that one thread stores.
///
/// With a line of the cache to itself: the other thread looks at it while its neighbour changes.
#[derive(Default)]
#[repr(align(64))]
struct Place(AtomicU64);

/// The ring of one worker.
pub struct Ring {
    /// A power of two of them.
    words: Box<[AtomicU64]>,
    /// Words that were ever put in.
    head: Place,
    /// Words that were ever taken out. Never more than `head`, which is never further ahead than there are words.
    tail: Place,
    /// Lines that there was no room for, by level.
    lost: [AtomicU64; 3],
    /// Lines that nobody wanted in it.
    sampled_out: AtomicU64,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The writer finds it when it looks.
    Taken,
    /// The same, and now more than half is full: the writer should look soon.
    TakenAndHalfFull,
    /// There was no room for a line of its level.
    Lost,
}

impl Ring {
    /// A ring of at least so many bytes.
    pub fn new(bytes: usize) -> Self {
        let words = bytes.div_ceil(WORD).next_power_of_two().max(WORDS_MIN);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            head: Place::default(),
            tail: Place::default(),
            lost: Default::default(),
            sampled_out: AtomicU64::new(0),
        }
    }

    /// How full it may be for a line of this level to be taken: the last quarter is for what went wrong, and the last eighth for
    /// what went wrong for us.
    fn words_max(&self, level: Level) -> usize {
        let all = self.words.len();
        match level {
            Level::Usual => all / 4 * 3,
            Level::Client => all / 8 * 7,
            Level::Failure => all,
        }
    }

    /// Puts a line in. By the worker only.
    pub fn put(&self, line: &[u8], level: Level) -> Put {
        let needed = 1 + line.len().div_ceil(WORD);
        let head = self.head.0.load(Relaxed);
        // Pairs with the store in `take`: what was copied out before may be overwritten.
        let used = (head - self.tail.0.load(Acquire)) as usize;
        if used + needed > self.words_max(level) {
            add_one(&self.lost[level as usize]);
            return Put::Lost;
        }
        let (first, second) = self.places(head, needed);
        first[0].store(line.len() as u64, Relaxed);
        fill(second, fill(&first[1..], line));
        self.head.0.store(head + needed as u64, Release);
        let half = self.words.len() / 2;
        if used <= half && used + needed > half { Put::TakenAndHalfFull } else { Put::Taken }
    }

    /// Counts one that is left out on purpose. By the worker only.
    pub fn leave_out(&self) {
        add_one(&self.sampled_out);
    }

    /// Where the lines end that are in it now, for [`take`](Self::take). By the writer only.
    pub fn end(&self) -> u64 {
        // Pairs with the store in `put`: the lines are there.
        self.head.0.load(Acquire)
    }

    /// Takes lines out that lie before an end, until `out` has about so many bytes, and returns how many. By the writer only.
    pub fn take(&self, out: &mut Vec<u8>, bytes_max: usize, end: u64) -> u64 {
        let mut tail = self.tail.0.load(Relaxed);
        let mut lines = 0;
        while tail < end && out.len() < bytes_max {
            let bytes = self.places(tail, 1).0[0].load(Relaxed) as usize;
            let words = bytes.div_ceil(WORD);
            let begin = out.len();
            out.resize(begin + words * WORD, 0);
            let (first, second) = self.places(tail + 1, words);
            let (chunks, _) = out[begin..].as_chunks_mut::<WORD>();
            let (before, behind) = chunks.split_at_mut(first.len());
            for (words, chunks) in [(first, before), (second, behind)] {
                for (word, chunk) in words.iter().zip(chunks) {
                    *chunk = word.load(Relaxed).to_ne_bytes();
                }
            }
            out.truncate(begin + bytes);
            tail += 1 + words as u64;
            lines += 1;
        }
        self.tail.0.store(tail, Release);
        lines
    }

    /// So many words from there on: up to the end of the memory, and from its beginning on.
    fn places(&self, at: u64, words: usize) -> (&[AtomicU64], &[AtomicU64]) {
        let start = at as usize & (self.words.len() - 1);
        let (before, from_here) = self.words.split_at(start);
        match from_here.get(..words) {
            Some(first) => (first, &[]),
            None => (from_here, &before[..words - from_here.len()]),
        }
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.tail.0.load(Relaxed) == self.head.0.load(Acquire)
    }

    /// Lines of a level that there was no room for, ever.
    pub fn lost(&self, level: Level) -> u64 {
        self.lost[level as usize].load(Relaxed)
    }

    /// Those that were left out on purpose, ever.
    pub fn sampled_out(&self) -> u64 {
        self.sampled_out.load(Relaxed)
    }
}

/// Stores bytes, as many as there is room for, and returns the others.
fn fill<'b>(places: &[AtomicU64], bytes: &'b [u8]) -> &'b [u8] {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    for (place, chunk) in places.iter().zip(whole) {
        place.store(u64::from_ne_bytes(*chunk), Relaxed);
    }
    if let (Some(place), false) = (places.get(whole.len()), rest.is_empty()) {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        place.store(u64::from_ne_bytes(last), Relaxed);
    }
    bytes.get(places.len() * WORD..).unwrap_or_default()
}

/// By the one thread that stores it.
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_went_wrong_is_lost_last() {
        let ring = Ring::new(1024);
        let fill =
            |level| std::iter::from_fn(|| (ring.put(&[b'x'; 24], level) != Put::Lost).then_some(())).count();
        assert_eq!(fill(Level::Usual), 24, "of 128 words, 4 for each line");
        assert_eq!((fill(Level::Client), fill(Level::Failure)), (4, 4));
        let lost = Level::ALL.map(|level| ring.lost(level));
        assert_eq!(lost, [1, 1, 1]);
        let mut out = Vec::new();
        assert_eq!((ring.take(&mut out, usize::MAX, ring.end()), out.len()), (32, 32 * 24));
        assert!(ring.is_empty() && ring.put(b"again", Level::Usual) == Put::Taken);
    }

    #[test]
    fn lines_of_another_thread_arrive_whole_and_in_order_but_for_those_that_were_lost() {
        let ring = Ring::new(4096);
        let lines = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..lines {
                    ring.put(format!("{number}:{}\n", "x".repeat(number % 100)).as_bytes(), Level::Usual);
                }
                while ring.put(b"end\n", Level::Failure) == Put::Lost {
                    std::thread::yield_now();
                }
            });
            let (mut out, mut taken) = (Vec::new(), 0);
            while !out.ends_with(b"end\n") {
                taken += ring.take(&mut out, usize::MAX, ring.end());
                std::thread::yield_now();
            }
            let text = std::str::from_utf8(&out).expect("it was text");
            let mut last = None;
            for line in text.lines().filter(|line| *line != "end") {
                let (number, rest) = line.split_once(':').expect("a whole line");
                let number: usize = number.parse().expect("a number");
                assert_eq!(rest.len(), number % 100);
                assert!(last.is_none_or(|last| last < number));
                last = Some(number);
            }
            assert_eq!(taken + ring.lost(Level::Usual), lines as u64 + 1);
        });
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(rounds in proptest::collection::vec((0_usize..200, any::<bool>()), 1..200)) {
            let ring = Ring::new(2048);
            let (mut expected, mut out) = (Vec::new(), Vec::new());
            for (number, (bytes, takes)) in rounds.into_iter().enumerate() {
                let line = vec![number as u8; bytes];
                if ring.put(&line, Level::Usual) != Put::Lost {
                    expected.extend_from_slice(&line);
                }
                if takes {
                    let bytes_max = out.len() + 300;
                    ring.take(&mut out, bytes_max, ring.end());
                }
            }
            ring.take(&mut out, usize::MAX, ring.end());
            prop_assert_eq!(out, expected);
        }
    }
}
