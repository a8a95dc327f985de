//! The places of tasks.
//!
//! A place is small: what few tasks have is in a box beside it ([`Rare`]), and a box whose task has ended serves the next one, with the wake
//! target in it if nobody else has that.
//!
//! Invariant: the generation of a slot is that of its task, or `FREE`, which no key has; so a stale key finds nothing. A slot is
//! in `free` exactly once or has a task. No batch of events holds keys of tasks, so that a place is used again at once.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::Parked;
use super::body::Task;
use super::executor::{Kind, TABLE};
use super::sync::Arc;
use super::waker::WakeTarget;
use crate::mem::{GENERATION_MAX, INDEX_MAX, Key};

/// No generation of a key.
const FREE: u32 = u32::MAX;
const _: () = assert!(FREE > GENERATION_MAX);

/// Boxes beyond these are freed with the task that has had them.
const SPARE_MAX: usize = 1024;

/// A target, and the waker that leads to it.
pub type Wake = (Arc<WakeTarget>, Waker);

/// One place. 32 bytes.
pub struct Slot {
    generation: u32,
    pub marks: Marks,
    /// `None` while it is polled, and while the slot is free.
    pub task: Option<Task>,
    rare: Option<Rc<Rare>>,
}

const _: () = assert!(size_of::<Slot>() == 32);

/// What few tasks have. Shared with the poll of the task.
#[derive(Default)]
pub struct Rare {
    /// Where wakers lead that were cloned.
    own: OnceCell<Wake>,
    /// Who waits for the end of the task.
    joiner: RefCell<Option<Parked>>,
}

impl Rare {
    /// The waker of its own that the task has, if somebody has cloned one.
    #[inline]
    pub fn waker(&self) -> Option<&Waker> {
        self.own.get().map(|own| &own.1)
    }
}

/// How far a task is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Runs,
    /// The same, and whoever wanted it to end did so while it was polled.
    IsAborted,
    HasEnded,
}

/// What else is known of a task.
#[derive(Clone, Copy, Default)]
pub struct Marks {
    pub has_handle: bool,
    /// No drain waits for it.
    pub is_daemon: bool,
    /// It stands on the list of its lane, by its key.
    pub is_listed: bool,
    pub stage: Stage,
}

impl Slot {
    /// Where its wakers lead that were cloned.
    #[inline]
    pub fn own(&self) -> Option<&Arc<WakeTarget>> {
        Some(&self.rare.as_ref()?.own.get()?.0)
    }

    /// Puts a task where none is.
    #[inline]
    pub fn put(&mut self, task: Task) {
        let before = self.task.replace(task);
        debug_assert!(before.is_none());
        // Nothing, which the compiler does not know.
        std::mem::forget(before);
    }

    /// What it has that few have.
    #[inline]
    pub fn rare(&self) -> Option<&Rc<Rare>> {
        self.rare.as_ref()
    }

    /// Whether this one waits for its end.
    pub fn is_joined_by(&self, is_one: impl FnOnce(&Parked) -> bool) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.joiner.borrow().as_ref().is_some_and(is_one))
    }

    /// Who waits for its end; from now on nobody does.
    #[inline]
    pub fn take_joiner(&mut self) -> Option<Parked> {
        self.rare.as_ref()?.joiner.take()
    }

    #[inline]
    pub fn has_ended(&self) -> bool {
        self.marks.stage == Stage::HasEnded
    }
}

/// All places of a worker.
#[derive(Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Of the newest key. Zero is never issued: such a key leads to no task.
    generation: u32,
    /// Boxes of tasks that have ended. Whoever had a joiner has none any more.
    spare: Vec<Rc<Rare>>,
}

impl Slots {
    /// Gives a task a place, and returns its key.
    ///
    /// # Panics
    /// With 16 million tasks.
    #[inline]
    pub fn insert(&mut self, task: Task, marks: Marks) -> Key {
        self.generation = if self.generation == GENERATION_MAX { 1 } else { self.generation + 1 };
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.add(),
        };
        let slot = &mut self.slots[index];
        debug_assert!(slot.generation == FREE && slot.rare.is_none());
        (slot.generation, slot.marks) = (self.generation, marks);
        slot.put(task);
        Key::new(TABLE, self.generation, index)
    }

    /// A free slot at the end.
    #[cold]
    fn add(&mut self) -> usize {
        let index = self.slots.len();
        assert!(index <= INDEX_MAX, "a worker has at most 16 million tasks");
        self.slots.push(Slot { generation: FREE, marks: Marks::default(), task: None, rare: None });
        index
    }

    /// The place of a task, if it has one.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.index()).filter(|slot| slot.generation == key.generation())
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.index()).filter(|slot| slot.generation == key.generation())
    }

    fn rare(&mut self, key: Key) -> &Rare {
        let spare = &mut self.spare;
        let slot = &mut self.slots[key.index()];
        debug_assert!(slot.generation == key.generation());
        slot.rare.get_or_insert_with(|| {
            let rare = spare.pop().unwrap_or_default();
            if let Some((target, _)) = rare.own.get() {
                target.begin(key);
            }
            rare
        })
    }

    /// The waker of its own that a task has from now on.
    pub fn own(&mut self, key: Key, make: impl FnOnce() -> Wake) -> &Waker {
        &self.rare(key).own.get_or_init(make).1
    }

    /// Keeps who waits for the end of a task. Who waited before, to be dropped when nothing is borrowed.
    pub fn set_joiner(&mut self, key: Key, joiner: Parked) -> Option<Parked> {
        self.rare(key).joiner.replace(Some(joiner))
    }

    /// The place of a task is free, of which no poll is under way. What it had that few have, if that is of no use to the next one, to be
    /// dropped when nothing is borrowed any more.
    #[inline]
    pub fn end(&mut self, key: Key) -> Option<Rc<Rare>> {
        let index = key.index();
        let slot = &mut self.slots[index];
        debug_assert!(slot.generation == key.generation() && slot.task.is_none());
        slot.generation = FREE;
        self.free.push(index as u32);
        let rare = slot.rare.take()?;
        self.keep(rare)
    }

    #[inline(never)]
    fn keep(&mut self, rare: Rc<Rare>) -> Option<Rc<Rare>> {
        debug_assert!(rare.joiner.borrow().is_none() && Rc::strong_count(&rare) == 1);
        let is_free = rare.own.get().is_none_or(|(target, _)| target.is_alone());
        if !is_free || self.spare.len() >= SPARE_MAX {
            return Some(rare);
        }
        self.spare.push(rare);
        None
    }

    /// Those of a kind that have not ended.
    pub fn running(&self, kind: Kind) -> Vec<Key> {
        let is_daemon = kind == Kind::Daemon;
        let is_one =
            |slot: &Slot| slot.generation != FREE && !slot.has_ended() && slot.marks.is_daemon == is_daemon;
        let all = self.slots.iter().enumerate();
        all.filter(|(_, slot)| is_one(slot))
            .map(|(index, slot)| Key::new(TABLE, slot.generation, index))
            .collect()
    }

    /// Gives back the memory of free slots behind the last task, and all spare boxes.
    pub fn shrink(&mut self) {
        while self.slots.last().is_some_and(|slot| slot.generation == FREE) {
            self.slots.pop();
        }
        self.slots.shrink_to_fit();
        let slots = self.slots.len();
        self.free.retain(|index| (*index as usize) < slots);
        self.free.shrink_to_fit();
        self.spare = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::Location;

    use super::super::{Deliver, body};
    use super::*;

    struct Nowhere;

    impl Deliver for Nowhere {
        fn deliver(&self, _key: Key) {}
    }

    fn begin(slots: &mut Slots) -> Key {
        slots.insert(body::task(pending::<()>(), Location::caller()), Marks::default())
    }

    fn own(slots: &mut Slots, key: Key) -> Waker {
        let make = || {
            let target = WakeTarget::new(key, 1, Arc::new(Nowhere));
            let waker = target.waker();
            (target, waker)
        };
        slots.own(key, make).clone()
    }

    fn end(slots: &mut Slots, key: Key) -> Option<Rc<Rare>> {
        slots.get_mut(key).expect("a task").task = None;
        slots.end(key)
    }

    #[test]
    fn a_target_serves_one_task_after_the_other_unless_somebody_else_has_it() {
        let mut slots = Slots::default();
        let key = begin(&mut slots);
        let waker = own(&mut slots, key);
        assert!(own(&mut slots, key).will_wake(&waker), "a task has one");
        let address = waker.data();
        drop(waker);
        assert!(end(&mut slots, key).is_none());
        assert!(slots.get(key).is_none(), "its key is stale");

        let next = begin(&mut slots);
        assert_eq!(next.index(), key.index());
        assert!(slots.get(next).is_some_and(|slot| slot.own().is_none()), "most never have one");
        let kept = own(&mut slots, next);
        assert_eq!(kept.data(), address);
        let over = end(&mut slots, next).expect("somebody has a waker");
        assert!(over.waker().is_some_and(|own| own.will_wake(&kept)), "it leads to whom it has led");

        let third = begin(&mut slots);
        assert!(!own(&mut slots, third).will_wake(&kept));
    }

    #[test]
    fn free_places_behind_the_last_task_go_back_and_keys_go_on() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..3000).map(|_| begin(&mut slots)).collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.index(), index);
            drop(own(&mut slots, *key));
        }
        for key in keys.iter().filter(|key| key.index() != 2000) {
            end(&mut slots, *key);
        }
        assert_eq!(slots.spare.len(), SPARE_MAX);
        slots.shrink();
        assert_eq!((slots.slots.len(), slots.free.len(), slots.spare.len()), (2001, 2000, 0));
        assert_eq!(slots.running(Kind::Waited), [keys[2000]]);
        assert!(slots.running(Kind::Daemon).is_empty());
        assert!(slots.get(keys[2500]).is_none());

        slots.generation = GENERATION_MAX;
        assert_eq!(begin(&mut slots).generation(), 1, "zero is nobody's");
    }
}
