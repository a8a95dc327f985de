//! The cells of tasks, by their keys.
//!
//! A cell has its place in the table for as long as it is there, and serves one task after the other that fits into it: who spawns a task finds one
//! by its size, and a key leads straight to the future. What few tasks have is in a box beside it ([`Rare`]), which serves the next ones too.
//!
//! Invariant: the number of a cell is the generation of its task, or one that no key has, so that a stale key finds nothing: [`GONE`]
//! while what was in it is dropped, [`FREE`] and the place of the next one when it is in the list of its class. No batch of events
//! holds keys of tasks, so that a place is used again at once.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::Location;
use std::task::Waker;

use super::Parked;
use super::executor::{Kind, TABLE};
use super::sync::Arc;
use super::waker::WakeTarget;
use crate::mem::{GENERATION_MAX, INDEX_MAX, Key};
use crate::sys::{CLASSES, NO_CLASS, Run, TaskCell};

/// Set in the number of a cell that has no task; the rest is the place of the next one.
const FREE: u32 = 1 << 31;
/// The place of no cell.
const NONE: u32 = 1 << 24;
/// The number of a cell that is in no list.
const GONE: u32 = u32::MAX;
const _: () = assert!(GENERATION_MAX < FREE && INDEX_MAX < NONE as usize && FREE | NONE != GONE);
const _: () = assert!(CLASSES <= NO_CLASS as usize);

/// Cells beyond these are freed with the task that was in them: what comes and goes in a turn or two finds one, and a burst is no reason to keep
/// more than half a megabyte.
const FREE_MAX: usize = 1024;

/// The handle of the task is there.
pub const HAS_HANDLE: u16 = 1;
/// No drain waits for it.
pub const IS_DAEMON: u16 = 2;
/// It stands on the list of its lane, by its key.
pub const IS_LISTED: u16 = 4;
/// Its future is gone, and what that has left is there.
pub const HAS_ENDED: u16 = 8;
/// Whoever wanted it to end did so while it was polled.
pub const IS_ABORTED: u16 = 16;
/// Somebody has cloned its waker: it is polled with its own.
pub const HAS_WAKER: u16 = 32;
/// Somebody waits for its end.
pub const IS_JOINED: u16 = 64;

/// A target, and the waker that leads to it.
pub type Wake = (Arc<WakeTarget>, Waker);

/// A task in its cell.
pub type Task = TaskCell<Own>;

/// What a cell keeps beside a task.
pub struct Own {
    /// Where the task was spawned.
    pub place: Cell<&'static Location<'static>>,
    rare: OnceCell<Box<Rare>>,
}

const _: () = assert!(size_of::<Own>() == 16);

/// What few tasks have.
#[derive(Default)]
struct Rare {
    /// Where wakers lead that were cloned.
    wake: OnceCell<Wake>,
    /// Who waits for the end of the task.
    joiner: RefCell<Option<Parked>>,
}

impl Own {
    fn new(place: &'static Location<'static>) -> Self {
        Self { place: Cell::new(place), rare: OnceCell::new() }
    }

    /// Where wakers lead that were cloned, of this task if it [has one](HAS_WAKER), or of one before.
    #[inline]
    pub fn wake(&self) -> Option<&Wake> {
        self.rare.get()?.wake.get()
    }

    /// The same, made if there is none.
    pub fn wake_or_make(&self, make: impl FnOnce() -> Wake) -> &Wake {
        self.rare.get_or_init(Box::default).wake.get_or_init(make)
    }

    /// Whether this one waits for its end.
    pub fn is_joined_by(&self, is_one: impl FnOnce(&Parked) -> bool) -> bool {
        self.rare.get().is_some_and(|rare| rare.joiner.borrow().as_ref().is_some_and(is_one))
    }

    /// Keeps who waits for its end. Who waited before.
    pub fn set_joiner(&self, joiner: Parked) -> Option<Parked> {
        self.rare.get_or_init(Box::default).joiner.replace(Some(joiner))
    }

    /// Who waits for its end; from now on nobody does.
    pub fn take_joiner(&self) -> Option<Parked> {
        self.rare.get()?.joiner.take()
    }

    /// Nobody has a waker that leads to it.
    #[inline]
    fn is_alone(&self) -> bool {
        self.wake().is_none_or(|(target, _)| target.is_alone())
    }
}

/// The cells of a worker.
pub struct Slots {
    cells: Vec<Option<Task>>,
    /// Places without a cell.
    vacant: Vec<u32>,
    /// The first free cell of each class, or `NONE`.
    free: [u32; CLASSES],
    free_count: usize,
    /// Of the newest key. Zero is never issued: such a key leads to no task.
    generation: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self { cells: Vec::new(), vacant: Vec::new(), free: [NONE; CLASSES], free_count: 0, generation: 0 }
    }
}

impl Slots {
    /// Puts a task into a cell, and returns its key.
    ///
    /// # Panics
    /// With 16 million tasks.
    #[inline]
    pub fn insert<B: Run>(&mut self, future: B, marks: u16, place: &'static Location<'static>) -> Key {
        self.generation = if self.generation == GENERATION_MAX { 1 } else { self.generation + 1 };
        let generation = self.generation;
        let class = usize::from(const { Task::class_of::<B>() });
        // Of no class there is none.
        let index = self.free.get(class).map_or(NONE as usize, |index| *index as usize);
        let (index, cell) = match self.cells.get(index) {
            Some(Some(cell)) => {
                self.free[class] = cell.number() & !FREE;
                self.free_count -= 1;
                cell.fill(future);
                cell.place.set(place);
                (index, cell)
            }
            _ => self.add(Task::new(Own::new(place), future)),
        };
        cell.set_number(generation);
        cell.set_marks(marks);
        Key::new(TABLE, generation, index)
    }

    /// A new cell, and its place.
    #[cold]
    #[inline(never)]
    fn add(&mut self, cell: Task) -> (usize, &Task) {
        let index = self.vacant.pop().map_or(self.cells.len(), |index| index as usize);
        if index == self.cells.len() {
            assert!(index <= INDEX_MAX, "a worker has at most 16 million tasks");
            self.cells.push(None);
        }
        (index, self.cells[index].insert(cell))
    }

    /// A task, if it has not gone.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&Task> {
        self.cells.get(key.index())?.as_ref().filter(|cell| cell.number() == key.generation())
    }

    /// A task goes: its key leads nowhere from here on, and nothing may be in its cell when it comes to [`free`](Self::free).
    #[inline]
    pub fn leave(cell: &Task) {
        cell.set_number(GONE);
    }

    /// The cell of a task that has left is free. The cell itself, if it is of no use to the next one, to be dropped when nothing is borrowed.
    #[inline]
    pub fn free(&mut self, key: Key) -> Option<Task> {
        let index = key.index();
        let place = &mut self.cells[index];
        let cell = place.as_ref()?;
        debug_assert!(cell.number() == GONE);
        // A waker that somebody still has leads to whom it has led.
        if self.free_count < FREE_MAX
            && cell.is_empty()
            && cell.is_alone()
            && let Some(first) = self.free.get_mut(usize::from(cell.class()))
        {
            cell.set_number(FREE | *first);
            *first = index as u32;
            self.free_count += 1;
            return None;
        }
        self.vacant.push(index as u32);
        place.take()
    }

    /// Those of a kind that have not ended.
    pub fn running(&self, kind: Kind) -> Vec<Key> {
        let is_daemon = kind == Kind::Daemon;
        let is_one =
            |cell: &Task| cell.number() < FREE && !cell.has(HAS_ENDED) && cell.has(IS_DAEMON) == is_daemon;
        let all = self.cells.iter().enumerate().filter_map(|(index, cell)| Some((index, cell.as_ref()?)));
        all.filter(|(_, cell)| is_one(cell))
            .map(|(index, cell)| Key::new(TABLE, cell.number(), index))
            .collect()
    }

    /// Gives back the memory of free cells, and of places behind the last task.
    pub fn shrink(&mut self) {
        let is_free = |cell: &mut Task| cell.number() & FREE != 0 && cell.number() != GONE;
        for cell in &mut self.cells {
            drop(cell.take_if(is_free));
        }
        (self.free, self.free_count) = ([NONE; CLASSES], 0);
        while self.cells.last().is_some_and(Option::is_none) {
            self.cells.pop();
        }
        self.cells.shrink_to_fit();
        self.vacant.clear();
        let vacant = self.cells.iter().enumerate().filter(|(_, cell)| cell.is_none());
        self.vacant.extend(vacant.map(|(index, _)| index as u32));
        self.vacant.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::super::Deliver;
    use super::super::body::Body;
    use super::*;

    struct Nowhere;

    impl Deliver for Nowhere {
        fn deliver(&self, _key: Key) {}
    }

    fn begin(slots: &mut Slots) -> Key {
        slots.insert(Body::new(pending::<()>()), 0, Location::caller())
    }

    fn wake(slots: &Slots, key: Key) -> Waker {
        let make = || {
            let target = WakeTarget::new(key, 1, Arc::new(Nowhere));
            let waker = target.waker();
            (target, waker)
        };
        slots.get(key).expect("a task").wake_or_make(make).1.clone()
    }

    fn end(slots: &mut Slots, key: Key) -> Option<Task> {
        let cell = slots.get(key).expect("a task");
        cell.empty();
        Slots::leave(cell);
        slots.free(key)
    }

    #[test]
    fn a_cell_serves_one_task_after_the_other_with_its_target_unless_somebody_else_has_that() {
        let mut slots = Slots::default();
        let key = begin(&mut slots);
        let waker = wake(&slots, key);
        assert!(wake(&slots, key).will_wake(&waker), "a task has one");
        let address = waker.data();
        drop(waker);
        assert!(end(&mut slots, key).is_none());
        assert!(slots.get(key).is_none(), "its key is stale");

        let next = begin(&mut slots);
        assert_eq!(next.index(), key.index());
        let kept = wake(&slots, next);
        assert_eq!(kept.data(), address);
        let over = end(&mut slots, next).expect("somebody has a waker");
        assert_eq!(over.wake().map(|own| own.1.data()), Some(kept.data()), "it leads to whom it has led");

        let third = begin(&mut slots);
        assert_eq!(third.index(), key.index(), "its place is taken again");
        assert_ne!(wake(&slots, third).data(), kept.data());
    }

    #[test]
    fn a_task_that_is_larger_has_another_cell() {
        let mut slots = Slots::default();
        let small = begin(&mut slots);
        assert!(end(&mut slots, small).is_none());
        let large = slots.insert(Body::new(ready([7; 20])), 0, Location::caller());
        assert_ne!(large.index(), small.index());
        assert!(end(&mut slots, large).is_none());
        assert_eq!(begin(&mut slots).index(), small.index());
        let again = slots.insert(Body::new(ready([8; 20])), 0, Location::caller());
        assert_eq!(again.index(), large.index());

        let huge = slots.insert(Body::new(ready([7; 2000])), 0, Location::caller());
        assert!(end(&mut slots, huge).is_some(), "too large to be kept");
    }

    #[test]
    fn free_places_behind_the_last_task_go_back_and_keys_go_on() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..3000).map(|_| begin(&mut slots)).collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.index(), index);
            drop(wake(&slots, *key));
        }
        for key in keys.iter().filter(|key| key.index() != 2000) {
            end(&mut slots, *key);
        }
        assert_eq!(slots.free_count, FREE_MAX);
        slots.shrink();
        assert_eq!((slots.cells.len(), slots.vacant.len(), slots.free_count), (2001, 2000, 0));
        assert_eq!(slots.running(Kind::Waited), [keys[2000]]);
        assert!(slots.running(Kind::Daemon).is_empty());
        assert!(slots.get(keys[2500]).is_none());

        slots.generation = GENERATION_MAX;
        let next = begin(&mut slots);
        assert_eq!(next.generation(), 1, "zero is nobody's");
        assert!(next.index() < 2000);
    }
}
