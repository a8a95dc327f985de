//! Code of the program, called so that a panic in it costs its connection and nothing else.
//!
//! Handlers, hooks, streams, futures, and whatever of theirs is dropped on the way run behind here. What they panicked
//! with is theirs as well: its destructor may panic in its turn, and is caught too.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `call` returns; `None` if it panicked.
#[inline(always)]
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// The same, and `tell` hears what was said, if the panic has said something: `panic!` does.
#[inline(always)]
pub(crate) fn guarded_or_told<R>(call: impl FnOnce() -> R, tell: impl FnOnce(&str)) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if let Some(said) = said(&*payload) {
                tell(said);
            }
            discard(payload);
            None
        }
    }
}

/// Drops a value of the program. False if its destructor panicked.
pub(crate) fn dropped<T>(value: T) -> bool {
    guarded(move || drop(value)).is_some()
}

#[cold]
fn said(payload: &(dyn Any + Send)) -> Option<&str> {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| payload.downcast_ref::<&'static str>().copied())
}

#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        // Somebody who panics about his panic may do so for ever: this one is left where it is.
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn a_panic_whose_payload_panics_whose_payload_panics_is_caught() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| std::panic::panic_any(Bomb)), None::<()>);
        assert!(!dropped(Bomb) && dropped(String::new()));
    }
}
