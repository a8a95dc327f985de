//! A line of waiters: who came first is served first, and anybody may leave at any time.
//!
//! A waiter has a place from when it joins until its future takes it away. It stands in the line until it is served or
//! leaves; behind that its place says what has come of it. Places are numbers, links lead from one to the next.
//!
//! Invariant: a place is used until `remove`, so its number is its future's alone; the line holds exactly the places whose
//! `is_linked` is set, oldest first. All is O(1), and allocates only when the line grows longer than ever before.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// No place: the end of the line.
const NONE: usize = usize::MAX;

/// More places than this are given back when the last one is free.
const KEPT_PLACES: usize = 64;

struct Place<T> {
    item: T,
    before: usize,
    behind: usize,
    is_linked: bool,
}

/// Waiters in the order in which they came.
pub struct Line<T> {
    places: Slab<Place<T>>,
    first: usize,
    last: usize,
}

impl<T> Line<T> {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { places: Slab::new(), first: NONE, last: NONE }
    }

    /// Nobody stands in the line.
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// The place of who has waited longest.
    pub fn first(&self) -> Option<usize> {
        (self.first != NONE).then_some(self.first)
    }

    /// Takes a place at the end.
    pub fn join(&mut self, item: T) -> usize {
        let place = self.places.insert(Place { item, before: self.last, behind: NONE, is_linked: true });
        match self.last {
            NONE => self.first = place,
            last => self.places[last].behind = place,
        }
        self.last = place;
        place
    }

    /// Steps out of the line, and keeps the place.
    pub fn leave(&mut self, place: usize) {
        let Place { before, behind, is_linked, .. } = self.places[place];
        if !is_linked {
            return;
        }
        self.places[place].is_linked = false;
        match before {
            NONE => self.first = behind,
            before => self.places[before].behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => self.places[behind].before = before,
        }
    }

    /// Gives the place up. It is the caller's to drop what stood there, when nothing is borrowed.
    pub fn remove(&mut self, place: usize) -> T {
        self.leave(place);
        let item = self.places.remove(place).item;
        if self.places.is_empty() && self.places.capacity() > KEPT_PLACES {
            self.places = Slab::new();
        }
        item
    }

    /// Who still stands in the line.
    pub fn is_linked(&self, place: usize) -> bool {
        self.places[place].is_linked
    }
}

impl<T> Index<usize> for Line<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.places[place].item
    }
}

impl<T> IndexMut<usize> for Line<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.places[place].item
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Join,
        ServeFirst,
        Leave(usize),
        Remove(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Join),
            1 => Just(Step::ServeFirst),
            1 => any::<usize>().prop_map(Step::Leave),
            2 => any::<usize>().prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn who_came_first_is_first_whoever_leaves(steps in steps()) {
            let mut line = Line::new();
            let (mut standing, mut places) = (Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Join => {
                        let place = line.join(number);
                        standing.push(place);
                        places.push((place, number));
                    }
                    Step::ServeFirst => {
                        prop_assert_eq!(line.first(), standing.first().copied());
                        if let Some(first) = line.first() {
                            line.leave(first);
                            standing.remove(0);
                        }
                    }
                    Step::Leave(which) if !places.is_empty() => {
                        let (place, _) = places[which % places.len()];
                        line.leave(place);
                        standing.retain(|other| *other != place);
                    }
                    Step::Remove(which) if !places.is_empty() => {
                        let (place, number) = places.swap_remove(which % places.len());
                        prop_assert_eq!(line.remove(place), number);
                        standing.retain(|other| *other != place);
                    }
                    Step::Leave(_) | Step::Remove(_) => {}
                }
                prop_assert_eq!(line.first(), standing.first().copied());
                prop_assert_eq!(line.is_empty(), standing.is_empty());
                for (place, number) in &places {
                    prop_assert_eq!(line[*place], *number);
                    prop_assert_eq!(line.is_linked(*place), standing.contains(place));
                }
            }
        }
    }
}
