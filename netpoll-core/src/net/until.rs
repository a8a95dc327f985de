//! One task in a crowd that waits, until what it tries succeeds.

use std::cell::RefCell;
use std::future::poll_fn;

use crate::sync::{Crowd, Step, drive};

/// Its place, which is given up with it.
struct Stand<'a> {
    crowd: &'a RefCell<Crowd>,
    place: Option<usize>,
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        let waker = self.place.and_then(|place| self.crowd.borrow_mut().remove(place));
        drop(waker);
    }
}

/// Tries until there is a result, now and whenever the crowd is woken. `attempt` runs no code of the program.
///
/// Cancel-safe: what an attempt takes is returned in the same poll.
pub async fn until<R>(crowd: &RefCell<Crowd>, mut attempt: impl FnMut() -> Option<R>) -> R {
    let mut stand = Stand { crowd, place: None };
    poll_fn(|cx| {
        drive(cx.waker(), |spare| {
            if let Some(result) = attempt() {
                return Step::Ready(result);
            }
            let kept = stand.crowd.borrow_mut().wait(&mut stand.place, cx.waker(), spare);
            if kept { Step::Pending(None) } else { Step::Clone }
        })
    })
    .await
}
