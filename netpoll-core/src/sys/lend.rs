//! Lending: what a caller has by `&mut` reaches code that it calls without being able to hand it over.
//!
//! A future is polled with nothing but a waker. Whoever polls it has things that the code in it needs: the pool, a driver. They
//! are lent through a thread-local for as long as the call lasts, and whoever borrows them has them alone.
//!
//! Invariants: the pointer is set only while [`Lent::lend`] runs, which holds the `&mut` that it was made of and does not use it; it
//! is taken out while [`Lent::with`] runs, so that there are never two. Both are put back whether code returns or unwinds.

use std::cell::Cell;
use std::ptr::NonNull;

/// What is lent: a type for each lifetime of the borrows in it.
pub trait Lendable {
    type Of<'a>;
}

/// The place of one that is lent on this thread, or of none.
pub struct Lent<L: Lendable>(Cell<Option<NonNull<L::Of<'static>>>>);

/// Puts a pointer back when it is dropped.
struct PutBack<'a, L: Lendable> {
    place: &'a Lent<L>,
    pointer: Option<NonNull<L::Of<'static>>>,
}

impl<L: Lendable> Drop for PutBack<'_, L> {
    fn drop(&mut self) {
        self.place.0.set(self.pointer);
    }
}

impl<L: Lendable> Lent<L> {
    /// A place where nothing is lent.
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Lends `what` to the code that `call` runs. What was lent before is out of reach meanwhile.
    #[inline]
    pub fn lend<'a, R>(&self, what: &mut L::Of<'a>, call: impl FnOnce() -> R) -> R {
        // The same type but for its lifetimes, which are over when the pointer is gone.
        let pointer = NonNull::from(what).cast();
        let _put_back = PutBack { place: self, pointer: self.0.replace(Some(pointer)) };
        call()
    }

    /// What is lent. `None` if nothing is, or somebody has it just now.
    #[inline]
    pub fn with<R>(&self, borrow: impl for<'a> FnOnce(&mut L::Of<'a>) -> R) -> Option<R> {
        let mut pointer = self.0.take()?;
        let _put_back = PutBack { place: self, pointer: Some(pointer) };
        // SAFETY: the pointer was made of a `&mut` that `lend`, which is still running on this thread, holds for longer than this
        // call and does not touch, because it runs `call`; a thread-local place is not reached from others (`Cell` is not
        // `Sync`). Nobody else has it: it was taken out, and comes back behind `borrow`. The lifetimes in it are those of
        // the lender shortened to the call: `borrow` is generic over them, so it can neither keep what it finds nor put something in
        // that does not outlive it. Shaken by `what_is_lent_is_had_by_one_at_a_time_and_not_behind_its_end`.
        let lent = unsafe { pointer.as_mut() };
        Some(borrow(lent))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    struct Names;

    impl Lendable for Names {
        type Of<'a> = &'a mut Vec<String>;
    }

    thread_local! {
        static NAMES: Lent<Names> = const { Lent::new() };
    }

    fn add(name: &str) -> Option<usize> {
        NAMES.with(|place| {
            place.with(|names| {
                names.push(name.to_owned());
                names.len()
            })
        })
    }

    fn lend<R>(names: &mut Vec<String>, call: impl FnOnce() -> R) -> R {
        let mut names = names;
        NAMES.with(|place| place.lend(&mut names, call))
    }

    #[test]
    fn what_is_lent_is_had_by_one_at_a_time_and_not_behind_its_end() {
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        assert_eq!(add("nobody's"), None);
        lend(&mut outer, || {
            assert_eq!(add("a"), Some(1));
            let nested = NAMES.with(|place| place.with(|names| (names.len(), add("b"))));
            assert_eq!(nested, Some((1, None)), "somebody has it");
            lend(&mut inner, || assert_eq!(add("c"), Some(1)));
            let panicked = catch_unwind(AssertUnwindSafe(|| lend(&mut Vec::new(), || panic!("in it"))));
            assert!(panicked.is_err());
            let panicked = catch_unwind(|| NAMES.with(|place| place.with(|_names| panic!("with it"))));
            assert!(panicked.is_err());
            assert_eq!(add("d"), Some(2));
        });
        assert_eq!(add("late"), None);
        assert_eq!((outer, inner), (vec!["a".to_owned(), "d".to_owned()], vec!["c".to_owned()]));
    }
}
