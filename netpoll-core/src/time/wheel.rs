//! Deadlines of one worker: a hierarchical timing wheel.
//!
//! Nearly every connection has a deadline and nearly none is ever reached, so setting and dropping one
//! has to be O(1); a heap is not. Time is cut into ticks of one millisecond. A tick number is read as
//! digits of six bits, and a timer waits on the level of the highest digit in which its tick differs from
//! the current one, in the slot of its own digit there. When time reaches a slot of level 0 its timers
//! fire; when it reaches one above, its timers move down.
//!
//! Invariant: on every level above 0 all timers are in slots after the current digit, on level 0 in or
//! after it; so the first occupied slot of the lowest occupied level comes next, and no search wraps
//! round. The one exception is a slot that is being moved down (`cascading`), whose start is the
//! current tick. A bit in `slots_occupied` is set exactly if the list of that slot is not empty.
//!
//! Scheme: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987). Touched by its worker
//! only. Insert, remove and reschedule are O(1) and do not allocate once warm; a timer moves down at
//! most once per level. Eight levels hold every instant there is, so nothing lies beyond the wheel.

use slab::Slab;

use super::clock::Instant;

const NANOS_PER_TICK: u64 = 1_000_000;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 8;

/// How many timers one `expire` may move down for each that it may fire. A move costs about a quarter.
const MOVES_PER_FIRED: usize = 4;

/// The end of a list. `Slab` would need 2^32 timers to reach it.
const NONE: u32 = u32::MAX;

const _: () = assert!(u64::MAX.div_ceil(NANOS_PER_TICK) < 1 << (SLOT_BITS as usize * LEVELS));

/// The name of one timer in one [`Wheel`]; stale once it fired or was removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

/// Timers that carry a `T` each.
///
/// A timer never fires before its deadline, and fires in the first `expire` whose `now` is at least a
/// tick (1 ms) past it. About 4 KiB when empty, plus 32 bytes and a `T` per timer.
pub struct Wheel<T> {
    timers: Slab<Timer<T>>,
    /// By level, then by slot.
    lists: Box<[[List; SLOTS]; LEVELS]>,
    slots_occupied: [u64; LEVELS],
    levels_occupied: u8,
    /// A slot above level 0 that time has reached and whose timers have not all moved down. Not empty.
    cascading: Option<Place>,
    /// The current tick: all timers of earlier ones have fired.
    tick: u64,
    /// Of the newest key.
    generation: u32,
}

struct Timer<T> {
    /// Fires when the current tick is this one.
    tick: u64,
    next: u32,
    previous: u32,
    generation: u32,
    place: Place,
    value: T,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    level: u8,
    slot: u8,
}

const _: () = assert!(LEVELS <= u8::BITS as usize && SLOTS == u64::BITS as usize);

impl<T: Copy> Wheel<T> {
    /// A wheel without timers, at [`Instant::ZERO`].
    pub fn new() -> Self {
        Self {
            timers: Slab::new(),
            lists: Box::new([[List { first: NONE, last: NONE }; SLOTS]; LEVELS]),
            slots_occupied: [0; LEVELS],
            levels_occupied: 0,
            cascading: None,
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
        }
        let tick = if at <= now { ticks_passed(now) } else { ticks_until(at) };
        let slot = self.timers.vacant_entry();
        let index =
            u32::try_from(slot.key()).ok().filter(|&index| index != NONE).expect("fewer than 2^32 timers");
        self.generation = self.generation.wrapping_add(1);
        let (generation, place) = (self.generation, Place { level: 0, slot: 0 });
        slot.insert(Timer { tick, next: NONE, previous: NONE, generation, place, value });
        self.link(index, tick);
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
        if timer.tick != tick {
            self.unlink(key.index);
            self.link(key.index, tick);
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
        let (_, tick) = self.next_place()?;
        Some(Instant::from_nanos(tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// Fires the timers that are due at `now`, earliest tick first, `max` at most, and returns how many.
    ///
    /// `f` gets what each carried. What was not reached stays due, and [`Wheel::next_deadline`] is then in
    /// the past. The work is bounded by `max` too: at most four times as many timers move down, so
    /// with a huge number of timers fewer than `max` may fire although more are due.
    #[inline]
    pub fn expire(&mut self, now: Instant, max: usize, mut f: impl FnMut(T)) -> usize {
        let end = ticks_passed(now);
        let (mut fired, mut moves_left) = (0, max.saturating_mul(MOVES_PER_FIRED));
        while let Some((place, tick)) = self.next_place()
            && tick <= end
        {
            self.tick = tick;
            if place.level > 0 {
                self.cascading = Some(place);
                if !self.cascade(place, &mut moves_left) {
                    return fired;
                }
                continue;
            }
            while let Some(index) = self.first_in(place) {
                if fired == max {
                    return fired;
                }
                self.unlink(index);
                fired += 1;
                f(self.timers.remove(index as usize).value);
            }
        }
        self.tick = self.tick.max(end);
        fired
    }

    /// Moves the timers of a slot that time has reached to lower levels; `false` if some are left.
    fn cascade(&mut self, place: Place, moves_left: &mut usize) -> bool {
        while let Some(index) = self.first_in(place) {
            if *moves_left == 0 {
                return false;
            }
            *moves_left -= 1;
            let tick = self.timers[index as usize].tick;
            self.unlink(index);
            self.link(index, tick);
        }
        true
    }

    /// The slot that time reaches next, and its first tick.
    #[inline]
    fn next_place(&self) -> Option<(Place, u64)> {
        if let Some(place) = self.cascading {
            return Some((place, self.tick));
        }
        if self.levels_occupied == 0 {
            return None;
        }
        let level = self.levels_occupied.trailing_zeros();
        let slot = self.slots_occupied[level as usize].trailing_zeros();
        let shift = SLOT_BITS * level;
        let above = self.tick >> (shift + SLOT_BITS) << SLOT_BITS;
        let place = Place { level: level as u8, slot: slot as u8 };
        Some((place, (above | u64::from(slot)) << shift))
    }

    #[inline]
    fn first_in(&self, place: Place) -> Option<u32> {
        let first = self.lists[place.level as usize][place.slot as usize].first;
        (first != NONE).then_some(first)
    }

    #[inline]
    fn find(&self, key: TimerKey) -> Option<&Timer<T>> {
        self.timers.get(key.index as usize).filter(|timer| timer.generation == key.generation)
    }

    /// Puts a timer at the end of the list of its tick, the current one if that has passed.
    fn link(&mut self, index: u32, tick: u64) {
        let tick = tick.max(self.tick);
        let place = place_of(tick, self.tick);
        let (level, slot) = (place.level as usize, place.slot as usize);
        let previous = std::mem::replace(&mut self.lists[level][slot].last, index);
        match previous {
            NONE => self.lists[level][slot].first = index,
            _ => self.timers[previous as usize].next = index,
        }
        let timer = &mut self.timers[index as usize];
        (timer.tick, timer.place, timer.previous, timer.next) = (tick, place, previous, NONE);
        self.slots_occupied[level] |= 1 << slot;
        self.levels_occupied |= 1 << level;
    }

    fn unlink(&mut self, index: u32) {
        let &Timer { place, previous, next, .. } = &self.timers[index as usize];
        let (level, slot) = (place.level as usize, place.slot as usize);
        match previous {
            NONE => self.lists[level][slot].first = next,
            _ => self.timers[previous as usize].next = next,
        }
        match next {
            NONE => self.lists[level][slot].last = previous,
            _ => self.timers[next as usize].previous = previous,
        }
        if previous == NONE && next == NONE {
            self.slots_occupied[level] &= !(1 << slot);
            if self.slots_occupied[level] == 0 {
                self.levels_occupied &= !(1 << level);
            }
            if self.cascading == Some(place) {
                self.cascading = None;
            }
        }
    }
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a timer for `tick` waits while `current` is the current tick, not after it.
#[inline]
fn place_of(tick: u64, current: u64) -> Place {
    let level = (tick ^ current).checked_ilog2().unwrap_or(0) / SLOT_BITS;
    Place { level: level as u8, slot: (tick >> (SLOT_BITS * level)) as u8 % SLOTS as u8 }
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
