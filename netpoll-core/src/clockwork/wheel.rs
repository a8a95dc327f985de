//! Deadlines of one worker: a hierarchical timing wheel.
//!
//! Nearly every connection has a deadline and nearly none is ever reached, so setting and dropping one
//! has to be O(1); a heap is not. Time is cut into ticks of one millisecond. Each level is a ring of 4096 lists:
//! a list of level 0 is one tick, one of level 1 is 64 of them, and so on. A timer waits on the lowest level whose ring
//! reaches its tick. When time reaches a list of level 0 its timers fire; when it reaches one above, its timers
//! move down.
//!
//! So a timer that is due has those in front of it that move down with it, and no others: they are due within a 64th of
//! the time that it was set for, and there are none if that was less than four seconds.
//!
//! Invariant: the tick of a timer is not before the current one, and less than a round of its ring away. So the
//! first list that a ring has, from the current one on, is its next; of the next ones of all rings that which begins first is
//! the next of all, and where two begin at once the higher, whose timers may belong in front. A list is not empty exactly if its bit
//! in `lists_occupied` is set, and a bit in `words_occupied` if its word is not zero.
//!
//! Scheme: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987). Touched by its worker
//! only. Insert, remove and reschedule are O(1) and do not allocate once warm; a timer moves down at
//! most once per level. The levels hold every instant there is, so nothing lies beyond the wheel.

use std::num::NonZeroU32;

use slab::Slab;

use super::clock::Instant;

const NANOS_PER_TICK: u64 = 1_000_000;
/// So many times longer is a list of the next level; and so many lists have a word of bits in common.
const STEP: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 6;
/// Lists of one ring.
const RING: usize = 1 << RING_BITS;
const RING_BITS: u32 = 2 * STEP_BITS;
/// Seven are enough; of a power of two a place is always one.
const LEVELS: usize = 8;

/// How many timers one `expire` may move down for each that it may fire. A move costs about a quarter.
const MOVES_PER_FIRED: usize = 4;

/// The end of a list. `Slab` would need 2^32 timers to reach it.
const NONE: u32 = u32::MAX;

const _: () = assert!(u64::MAX.div_ceil(NANOS_PER_TICK) < 1 << (STEP_BITS as usize * LEVELS));

/// The name of one timer in one [`Wheel`]; stale once it fired or was removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}

// Many have one or none.
const _: () = assert!(size_of::<Option<TimerKey>>() == 8);

/// Timers that carry a `T` each.
///
/// A timer never fires before its deadline, and fires in the first `expire` whose `now` is at least a
/// tick (1 ms) past it. 256 KiB, of which those pages are touched that have had timers, plus 24 bytes and a `T` per timer.
pub struct Wheel<T> {
    timers: Slab<Timer<T>>,
    /// By place. What an empty one says means nothing.
    lists: Box<[List; LEVELS * RING]>,
    /// By level: a bit for each list of its ring.
    lists_occupied: Box<[[u64; STEP]; LEVELS]>,
    /// By level: a bit for each word of those.
    words_occupied: [u64; LEVELS],
    /// The list that time reaches next, or [`UNKNOWN`].
    next: Next,
    /// The current tick: all timers of earlier ones have fired.
    tick: u64,
    /// Of the newest key.
    generation: u32,
}

struct Timer<T> {
    entry: Entry,
    value: T,
}

/// Which timer it is, and where it stands.
#[derive(Clone, Copy)]
struct Entry {
    /// It fires when the current tick is this one.
    tick: u64,
    next: u32,
    previous: u32,
    generation: NonZeroU32,
    place: Place,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// The first and the last of a list. An array, because memory that is zero is then not written to be so.
type List = [u32; 2];
const FIRST: usize = 0;
const LAST: usize = 1;

/// A list, and its first tick.
#[derive(Clone, Copy)]
struct Next {
    place: Place,
    tick: u64,
}

/// There is no list.
const NOTHING: Next = Next { place: Place(0), tick: u64::MAX };
/// The one that there was is empty: it has to be looked for. Nothing begins earlier.
const UNKNOWN: Next = Next { place: Place(0), tick: 0 };

/// Names a list: its level, and its index in the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u16);

const _: () = assert!(STEP == u64::BITS as usize);
const _: () = assert!(LEVELS * RING <= 1 << u16::BITS);

impl Place {
    /// Where a timer for `tick` waits while `current` is the current tick, not after it, and the first tick of that list.
    #[inline]
    fn of(tick: u64, current: u64) -> (Self, u64) {
        let away = tick - current;
        // The last list of a round is not the first of the next, wherever in its own the current tick is.
        let level = ((away + (away >> (RING_BITS - 1))) | STEP as u64).ilog2() / STEP_BITS - 1;
        let list = tick >> (STEP_BITS * level);
        (Self::new(level, list as usize % RING), list << (STEP_BITS * level))
    }

    #[inline]
    fn new(level: u32, list: usize) -> Self {
        Self((level << RING_BITS) as u16 | list as u16)
    }

    #[inline]
    fn level(self) -> usize {
        usize::from(self.0) / RING % LEVELS
    }

    #[inline]
    fn index(self) -> usize {
        usize::from(self.0) % (LEVELS * RING)
    }

    #[inline]
    fn word(self) -> usize {
        usize::from(self.0) / STEP % STEP
    }

    #[inline]
    fn bit(self) -> u64 {
        1 << (usize::from(self.0) % STEP)
    }
}

impl<T: Copy> Wheel<T> {
    /// A wheel without timers, at [`Instant::ZERO`].
    ///
    /// # Panics
    /// Never: the lists are as many as are asked for.
    pub fn new() -> Self {
        let lists = vec![List::default(); LEVELS * RING].into_boxed_slice();
        Self {
            timers: Slab::new(),
            lists: lists.try_into().expect("as many as there are"),
            lists_occupied: Box::new([[0; STEP]; LEVELS]),
            words_occupied: [0; LEVELS],
            next: NOTHING,
            tick: 0,
            generation: 0,
        }
    }

    /// Starts a timer for `at`. If that is not after `now`, it fires in the next [`Wheel::expire`].
    ///
    /// # Panics
    /// If there are 2^32 - 1 timers already.
    pub fn insert(&mut self, now: Instant, at: Instant, value: T) -> TimerKey {
        if self.timers.is_empty() {
            // Nothing to pass on the way, and the nearer the current tick the lower the level.
            self.tick = self.tick.max(ticks_passed(now));
            self.next = NOTHING;
        }
        let tick = if at <= now { ticks_passed(now) } else { ticks_until(at) };
        let index = u32::try_from(self.timers.vacant_key()).ok();
        let index = index.filter(|&index| index != NONE).expect("fewer than 2^32 timers");
        let generation = NonZeroU32::new(self.generation.wrapping_add(1)).unwrap_or(NonZeroU32::MIN);
        self.generation = generation.get();
        let entry = self.link(index, tick, generation);
        self.timers.insert(Timer { entry, value });
        TimerKey { index, generation }
    }

    /// Stops a timer and returns what it carried; `None` if the key is stale.
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        self.find(key)?;
        self.unlink(key.index);
        Some(self.timers.remove(key.index as usize).value)
    }

    /// Moves a timer to another deadline, later or earlier; `false` if the key is stale.
    ///
    /// It fires in the first `expire` that reaches the tick of `at`; if `at` is in the past, the next one.
    pub fn reschedule(&mut self, key: TimerKey, at: Instant) -> bool {
        let Some(timer) = self.find(key) else { return false };
        let tick = ticks_until(at);
        if timer.entry.tick != tick {
            self.move_to(key.index, tick);
        }
        true
    }

    /// Gives back the memory of free places behind the last timer. O(places).
    pub fn shrink(&mut self) {
        self.timers.shrink_to_fit();
    }

    /// How many timers are waiting.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer is waiting.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// When [`Wheel::expire`] next has something to do; `None` without timers.
    ///
    /// Never later than a tick after the earliest deadline, but it may be earlier than that deadline, when
    /// timers have to move down first. In the past if something is due already. A few instructions,
    /// whatever the number of timers.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = if self.next.tick == UNKNOWN.tick { self.find_next() } else { self.next };
        let is_there = next.tick != NOTHING.tick;
        is_there.then(|| Instant::from_nanos(next.tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// Fires the timers that are due at `now`, earliest tick first, `max` at most, and returns how many.
    ///
    /// `f` gets what each carried. What was not reached stays due, and [`Wheel::next_deadline`] is then in
    /// the past. The work is bounded by `max` too: at most four times as many timers move down, so
    /// with a huge number of them that are due at nearly the same time fewer than `max` may fire although more are due.
    #[inline]
    pub fn expire(&mut self, now: Instant, max: usize, f: impl FnMut(T)) -> usize {
        let end = ticks_passed(now);
        if self.next.tick > end {
            self.tick = self.tick.max(end);
            return 0;
        }
        self.expire_to(end, max, f)
    }

    fn expire_to(&mut self, end: u64, max: usize, mut f: impl FnMut(T)) -> usize {
        let (mut fired, mut moves_left) = (0, max.saturating_mul(MOVES_PER_FIRED));
        loop {
            let next = self.find_next();
            self.next = next;
            if next.tick > end {
                self.tick = self.tick.max(end);
                return fired;
            }
            self.tick = next.tick;
            if next.place.level() > 0 {
                if !self.cascade(next.place, &mut moves_left) {
                    return fired;
                }
                continue;
            }
            while let Some(index) = self.first_in(next.place) {
                if fired == max {
                    return fired;
                }
                self.unlink(index);
                fired += 1;
                f(self.timers.remove(index as usize).value);
            }
        }
    }

    /// Moves the timers of a list that time has reached to lower levels; `false` if some are left.
    fn cascade(&mut self, place: Place, moves_left: &mut usize) -> bool {
        while let Some(index) = self.first_in(place) {
            if *moves_left == 0 {
                return false;
            }
            *moves_left -= 1;
            let tick = self.timers[index as usize].entry.tick;
            self.move_to(index, tick);
        }
        true
    }

    /// Looks for the list that time reaches next.
    #[inline(never)]
    fn find_next(&self) -> Next {
        let mut next = NOTHING;
        for level in (0..LEVELS as u32).filter(|level| self.words_occupied[*level as usize] != 0) {
            let current = self.tick >> (STEP_BITS * level);
            let list = self.next_list(level as usize, current as usize % RING);
            let away = list.wrapping_sub(current as usize) % RING;
            let tick = (current + away as u64) << (STEP_BITS * level);
            if tick <= next.tick {
                next = Next { place: Place::new(level, list), tick };
            }
        }
        next
    }

    /// The first list of a ring that is not empty, from this one on and round. There is one.
    #[inline]
    fn next_list(&self, level: usize, from: usize) -> usize {
        let (words, lists) = (self.words_occupied[level], &self.lists_occupied[level]);
        let (word, bit) = (from / STEP, from % STEP);
        let rest = lists[word] >> bit;
        if rest != 0 {
            return from + rest.trailing_zeros() as usize;
        }
        // The word that it began with comes last, with the bits below.
        let after = (word + 1) % STEP;
        let word = (after + words.rotate_right(after as u32).trailing_zeros() as usize) % STEP;
        word * STEP + lists[word].trailing_zeros() as usize
    }

    #[inline]
    fn first_in(&self, place: Place) -> Option<u32> {
        let is_occupied = self.lists_occupied[place.level()][place.word()] & place.bit() != 0;
        is_occupied.then(|| self.lists[place.index()][FIRST])
    }

    #[inline]
    fn find(&self, key: TimerKey) -> Option<&Timer<T>> {
        self.timers.get(key.index as usize).filter(|timer| timer.entry.generation == key.generation)
    }

    fn move_to(&mut self, index: u32, tick: u64) {
        self.unlink(index);
        let generation = self.timers[index as usize].entry.generation;
        self.timers[index as usize].entry = self.link(index, tick, generation);
    }

    /// Puts a timer at the end of the list of its tick, the current one if that has passed.
    #[inline]
    fn link(&mut self, index: u32, tick: u64, generation: NonZeroU32) -> Entry {
        let tick = tick.max(self.tick);
        let (place, begins) = Place::of(tick, self.tick);
        let (level, word) = (place.level(), place.word());
        let list = &mut self.lists[place.index()];
        let occupied = &mut self.lists_occupied[level][word];
        let mut previous = NONE;
        if *occupied & place.bit() != 0 {
            previous = list[LAST];
            self.timers[previous as usize].entry.next = index;
        } else {
            list[FIRST] = index;
            *occupied |= place.bit();
            self.words_occupied[level] |= 1 << word;
            if begins < self.next.tick {
                self.next = Next { place, tick: begins };
            }
        }
        list[LAST] = index;
        Entry { tick, next: NONE, previous, generation, place }
    }

    fn unlink(&mut self, index: u32) {
        let Entry { place, previous, next, .. } = self.timers[index as usize].entry;
        if previous == NONE && next == NONE {
            return self.empty(place);
        }
        let list = &mut self.lists[place.index()];
        match previous {
            NONE => list[FIRST] = next,
            _ => self.timers[previous as usize].entry.next = next,
        }
        match next {
            NONE => list[LAST] = previous,
            _ => self.timers[next as usize].entry.previous = previous,
        }
    }

    /// The last timer of a list leaves it.
    #[inline]
    fn empty(&mut self, place: Place) {
        if place == self.next.place {
            self.next = UNKNOWN;
        }
        let (level, word) = (place.level(), place.word());
        let occupied = &mut self.lists_occupied[level][word];
        *occupied &= !place.bit();
        if *occupied == 0 {
            self.words_occupied[level] &= !(1 << word);
        }
    }
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The tick that has begun at `now`.
#[inline]
const fn ticks_passed(now: Instant) -> u64 {
    now.as_nanos() / NANOS_PER_TICK
}

/// The first tick that begins at `at` or later.
#[inline]
const fn ticks_until(at: Instant) -> u64 {
    at.as_nanos().div_ceil(NANOS_PER_TICK)
}

#[cfg(test)]
mod tests;
