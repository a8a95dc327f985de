//! Names that tasks have looked up: who waits for which answer.
//!
//! An answer comes by mail, for a key of this table ([`Resolve`](super::Resolve)). Whoever gives up forgets the key, and an answer
//! that comes later finds nothing.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::tables::Tables;
use crate::mem::{self, Key, KeySlab};
use crate::sys::Address;

/// One name.
#[derive(Default)]
pub struct LookUp {
    answer: RefCell<Option<io::Result<Vec<Address>>>>,
    waker: RefCell<Option<Waker>>,
}

impl LookUp {
    /// The answer, once it is there.
    pub fn poll(&self, waker: &Waker) -> Poll<io::Result<Vec<Address>>> {
        let answer = self.answer.borrow_mut().take();
        if let Some(answer) = answer {
            return Poll::Ready(answer);
        }
        let waker = waker.clone();
        let before = self.waker.borrow_mut().replace(waker);
        drop(before);
        Poll::Pending
    }

    fn answer(&self, answer: io::Result<Vec<Address>>) {
        *self.answer.borrow_mut() = Some(answer);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            mem::guarded(|| waker.wake());
        }
    }
}

/// Those of one worker.
pub struct Lookups(KeySlab<Rc<LookUp>>);

impl Default for Lookups {
    fn default() -> Self {
        Self(KeySlab::new(Tables::LOOKUPS))
    }
}

impl Lookups {
    /// A name is about to be looked up.
    ///
    /// # Panics
    /// With 16 million names on one worker.
    pub fn begin(&mut self) -> (Key, Rc<LookUp>) {
        let look_up = Rc::new(LookUp::default());
        let key = self.0.insert_with(|_| Rc::clone(&look_up)).expect("fewer names than a slab holds");
        (key, look_up)
    }

    /// Its answer.
    pub fn found(&mut self, key: Key, found: io::Result<Vec<Address>>) {
        if let Some(look_up) = self.0.remove(key) {
            self.0.reclaim();
            look_up.answer(found);
        }
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self, key: Key) {
        if self.0.remove(key).is_some() {
            self.0.reclaim();
        }
    }
}
