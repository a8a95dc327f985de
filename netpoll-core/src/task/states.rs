//! What a program keeps on one worker: a value of each type that it has asked for.
//!
//! Nothing in here is borrowed while code of the program runs: a value leaves as a clone of its `Rc`, and is dropped outside.

use std::any::{Any, TypeId, type_name};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::mem::Guarded;

/// Why a second state of one type is refused.
pub fn two_states<S>() -> String {
    format!("a worker has one state of a type, and there is one of type `{}` already", type_name::<S>())
}

/// The values of one worker. Clones show the same.
#[derive(Clone, Default)]
pub struct States(Rc<Inner>);

type Entry = (TypeId, Guarded<Rc<dyn Any>>);

#[derive(Default)]
struct Inner {
    /// A handful at most, in the order in which they were made.
    values: RefCell<Vec<Entry>>,
    has_ended: Cell<bool>,
}

impl States {
    /// Keeps a value.
    ///
    /// # Panics
    /// If one of its type is there.
    pub fn add<S: 'static>(&self, value: S) {
        let (id, value) = (TypeId::of::<S>(), Guarded::new(Rc::new(value) as Rc<dyn Any>));
        let mut values = self.0.values.borrow_mut();
        assert!(values.iter().all(|(other, _)| *other != id), "{}", two_states::<S>());
        values.push((id, value));
    }

    /// The value of this type.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn get<S: 'static>(&self) -> Rc<S> {
        let wanted = TypeId::of::<S>();
        let values = self.0.values.borrow();
        let Some((_, found)) = values.iter().find(|(id, _)| *id == wanted) else {
            drop(values);
            self.report_missing(type_name::<S>());
        };
        Rc::clone(found).downcast().expect("a value is found by its own type")
    }

    #[cold]
    #[track_caller]
    fn report_missing(&self, name: &str) -> ! {
        assert!(!self.0.has_ended.get(), "the worker has ended, and its state `{name}` with it");
        panic!(
            "this worker has no state of type `{name}`: make it with `Builder::state(|worker| ..)`, in a simulation with \
             `Sim::state`, before what uses it"
        );
    }

    /// Drops all values, the newest first.
    pub fn clear(&self) {
        self.0.has_ended.set(true);
        loop {
            let last = self.0.values.borrow_mut().pop();
            if last.is_none() {
                return;
            }
        }
    }
}

/// The values of the worker that this belongs to: they end with it, whoever else still sees them.
#[derive(Default)]
pub struct OwnStates(pub States);

impl Drop for OwnStates {
    fn drop(&mut self) {
        self.0.clear();
    }
}
