//! The places of tasks. One that is free keeps the wake target of the task that has ended there, with its waker, for the next.
//!
//! Invariant: the key of a slot is that of its task, or, while it is free, one that is never issued; so a stale key finds nothing. A slot is
//! in `free` exactly once or has a task. No batch of events holds keys of tasks, so that a place is used again at once.

use std::task::Waker;

use super::body::Task;
use super::executor::{Kind, TABLE};
use super::sync::Arc;
use super::waker::WakeTarget;
use crate::mem::{GENERATION_MAX, INDEX_MAX, Key};

/// Free slots beyond these give their targets back when a spike is over.
const SPARE_MAX: usize = 1024;

/// A target, and the waker that leads to it.
pub type Wake = (Arc<WakeTarget>, Waker);

/// One place.
pub struct Slot {
    key: Key,
    /// `None` while it is polled, and while the slot is free.
    pub task: Option<Task>,
    /// `None` if others still have the last one.
    pub target: Option<Arc<WakeTarget>>,
    /// Of who waits for the end of the task; once that has ended its own, which leads to the target.
    pub waker: Option<Waker>,
    pub marks: Marks,
}

/// What else is known of a task.
#[derive(Clone, Copy, Default)]
pub struct Marks {
    pub has_handle: bool,
    pub has_ended: bool,
    /// Whoever wanted it to end did so while it was polled.
    pub is_aborted: bool,
    /// No drain waits for it.
    pub is_daemon: bool,
}

/// All places of a worker.
#[derive(Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Of the newest key. Zero is never issued.
    generation: u32,
}

/// The key of a free slot.
const fn nobody(index: usize) -> Key {
    Key::new(TABLE, 0, index)
}

impl Slots {
    /// The index of a place for a new task, which [`begin`](Self::begin) has to follow for; with the target and waker of the one before,
    /// if they are free.
    ///
    /// # Panics
    /// With 16 million tasks.
    #[inline]
    pub fn reserve(&mut self) -> (usize, Option<Wake>) {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => self.add(),
        };
        let slot = &mut self.slots[index];
        (index, slot.target.take().zip(slot.waker.take()))
    }

    /// A task is there, to be listed under the key that it gets.
    #[inline]
    pub fn begin(&mut self, index: usize, task: Task, target: Arc<WakeTarget>, marks: Marks) -> Key {
        self.generation = if self.generation == GENERATION_MAX { 1 } else { self.generation + 1 };
        let key = Key::new(TABLE, self.generation, index);
        target.begin(key);
        let slot = &mut self.slots[index];
        debug_assert!(slot.task.is_none() && slot.target.is_none() && slot.waker.is_none());
        (slot.key, slot.task, slot.target, slot.marks) = (key, Some(task), Some(target), marks);
        key
    }

    #[cold]
    fn add(&mut self) -> usize {
        let index = self.slots.len();
        assert!(index <= INDEX_MAX, "a worker has at most 16 million tasks");
        let (key, marks) = (nobody(index), Marks::default());
        self.slots.push(Slot { key, task: None, target: None, waker: None, marks });
        index
    }

    /// The place of a task, if it has one.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.index()).filter(|slot| slot.key == key)
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.index()).filter(|slot| slot.key == key)
    }

    /// The place of a task is free. What of it is of no use to the next one, to be dropped when nothing is borrowed any more.
    #[inline]
    pub fn end(&mut self, key: Key) -> Option<Wake> {
        let index = key.index();
        let slot = &mut self.slots[index];
        debug_assert!(slot.key == key && slot.task.is_none());
        slot.key = nobody(index);
        self.free.push(index as u32);
        if slot.target.as_ref().is_some_and(|target| target.is_alone()) {
            return None;
        }
        slot.target.take().zip(slot.waker.take())
    }

    /// Those of a kind that have not ended.
    pub fn running(&self, kind: Kind) -> Vec<Key> {
        let is_daemon = kind == Kind::Daemon;
        let taken = self.slots.iter().enumerate().filter(|(index, slot)| slot.key != nobody(*index));
        taken
            .filter(|(_, slot)| !slot.marks.has_ended && slot.marks.is_daemon == is_daemon)
            .map(|(_, slot)| slot.key)
            .collect()
    }

    /// Gives back the memory of free slots behind the last task, and the targets of all others but a few.
    pub fn shrink(&mut self) {
        while self.slots.last().is_some_and(|slot| slot.key == nobody(self.slots.len() - 1)) {
            self.slots.pop();
        }
        self.slots.shrink_to_fit();
        let slots = &mut self.slots;
        self.free.retain(|index| (*index as usize) < slots.len());
        self.free.shrink_to_fit();
        for index in self.free.iter().rev().skip(SPARE_MAX) {
            let slot = &mut slots[*index as usize];
            (slot.target, slot.waker) = (None, None);
        }
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
        let (index, spare) = slots.reserve();
        let (target, waker) = spare.unwrap_or_else(|| {
            let target = WakeTarget::new(nobody(0), 1, Arc::new(Nowhere));
            let waker = target.waker();
            (target, waker)
        });
        let task = body::task(pending::<()>(), waker, Location::caller());
        let key = slots.begin(index, task, target, Marks::default());
        // As the poll that follows does.
        slots
            .get(key)
            .and_then(|slot| slot.target.as_ref())
            .expect("a target")
            .arrived(super::super::Came::Here);
        key
    }

    /// Ends a task, whose waker has been cloned or not.
    fn end(slots: &mut Slots, key: Key, is_kept: bool) -> Option<Waker> {
        let slot = slots.get_mut(key).expect("a task");
        let own = slot.task.take().and_then(|mut task| task.as_mut().cancel());
        let kept = own.clone().filter(|_| is_kept);
        slot.waker = own;
        drop(slots.end(key));
        kept
    }

    #[test]
    fn a_place_keeps_its_target_unless_somebody_else_has_it() {
        let mut slots = Slots::default();
        let key = begin(&mut slots);
        assert!(end(&mut slots, key, false).is_none());
        assert!(slots.get(key).is_none(), "its key is stale");
        assert!(slots.slots[0].target.is_some());

        let next = begin(&mut slots);
        assert_eq!((next.index(), slots.slots[0].waker.is_some()), (key.index(), false));
        let kept = end(&mut slots, next, true);
        assert!(kept.is_some() && slots.slots[0].target.is_none(), "the waker leads to whom it has led");
    }

    #[test]
    fn free_places_behind_the_last_task_go_back_and_keys_go_on() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..3000).map(|_| begin(&mut slots)).collect();
        for (index, key) in keys.iter().enumerate().filter(|(index, _)| *index != 2000) {
            assert_eq!(key.index(), index);
            end(&mut slots, *key, false);
        }
        slots.shrink();
        assert_eq!((slots.slots.len(), slots.free.len()), (2001, 2000));
        let kept = slots.slots.iter().filter(|slot| slot.waker.is_some()).count();
        assert_eq!(kept, SPARE_MAX);
        assert_eq!(slots.running(Kind::Waited), [keys[2000]]);
        assert!(slots.running(Kind::Daemon).is_empty());
        assert!(slots.get(keys[2500]).is_none());

        slots.generation = GENERATION_MAX;
        assert_eq!(begin(&mut slots).generation(), 1, "zero is nobody's");
    }
}
