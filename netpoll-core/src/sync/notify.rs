//! A bell for tasks of one thread: somebody waits, somebody else says when.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::line::Line;
use super::wakers::{Step, drive_with, keep, wake_all, wake_one};
use crate::task::share;

/// What a waiter has heard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// A notification that was for one waiter only, and has to be passed on if this one is dropped.
    One,
    All,
}

struct Waiter {
    heard: Heard,
    waker: Option<Waker>,
}

struct State {
    /// Invariant: whoever stands in the line has heard nothing, and while anybody does no permit is kept.
    line: Line<Waiter>,
    has_permit: bool,
    /// How often all were notified.
    rounds: u64,
}

impl State {
    fn notify_one(&mut self) -> Option<Waker> {
        let Some(first) = self.line.first() else {
            self.has_permit = true;
            return None;
        };
        self.hear(first, Heard::One)
    }

    fn hear(&mut self, place: usize, heard: Heard) -> Option<Waker> {
        self.line.leave(place);
        self.line[place].heard = heard;
        self.line[place].waker.take()
    }
}

/// A bell without a value, for tasks of one thread. A clone is the same bell.
///
/// Who waits has to look for itself what has happened. It is [`!Send`](Send); a notification is O(1) for each that it wakes.
///
/// ```
/// use netpoll_core::sync::Notify;
/// # futures::executor::block_on(async {
/// let bell = Notify::new();
/// let wait = async {
///     bell.notified().await;
///     "rung"
/// };
/// assert_eq!(futures::join!(wait, async { bell.notify_one() }).0, "rung");
/// # });
/// ```
#[derive(Clone)]
pub struct Notify {
    /// Open only for a step; never while code of the program runs.
    state: Rc<RefCell<State>>,
}

impl Notify {
    /// A bell that has not been rung.
    #[must_use]
    pub fn new() -> Self {
        let state = State { line: Line::new(), has_permit: false, rounds: 0 };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Waits for a notification, in line from the first poll on; for one to all from now on, polled or not.
    ///
    /// # Cancel safety
    /// No notification is lost: one that this was given and did not take goes to the next in line, or is kept.
    pub fn notified(&self) -> Notified {
        let round = self.state.borrow().rounds;
        Notified { notify: self.clone(), round, place: None }
    }

    /// Wakes who has waited longest. If nobody waits, the next one does not have to: one notification is kept, not two.
    pub fn notify_one(&self) {
        let wake = self.state.borrow_mut().notify_one();
        wake_one(wake);
    }

    /// Wakes all who wait now. None is kept for others, and one that is kept stays.
    pub fn notify_all(&self) {
        let wakers = {
            let state = &mut *self.state.borrow_mut();
            state.rounds += 1;
            let mut wakers = Vec::new();
            while let Some(first) = state.line.first() {
                wakers.extend(state.hear(first, Heard::All));
            }
            wakers
        };
        wake_all(wakers);
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("has_permit", &self.state.borrow().has_permit).finish_non_exhaustive()
    }
}

/// A wait for a notification; [`Notify::notified`] makes it.
#[must_use = "nothing is waited for before it is awaited"]
pub struct Notified {
    notify: Notify,
    /// How often all had been notified when this was made, or when it was done.
    round: u64,
    place: Option<usize>,
}

impl Notified {
    /// A first poll that gives way: it takes its place in line, and a notification that is kept.
    #[cold]
    fn give_way(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let wake = {
            let state = &mut *self.notify.state.borrow_mut();
            if self.round != state.rounds {
                // All were notified, this one too: that stays so.
                Some(waker)
            } else {
                let place = state.line.join(Waiter { heard: Heard::Nothing, waker: Some(waker) });
                self.place = Some(place);
                if mem::take(&mut state.has_permit) { state.hear(place, Heard::One) } else { None }
            }
        };
        wake_one(wake);
        Poll::Pending
    }
}

impl Future for Notified {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.place.is_none() && share::is_spent() {
            return this.give_way(cx);
        }
        let Self { notify, round, place } = this;
        drive_with(None, cx.waker(), |spare| {
            let state = &mut *notify.state.borrow_mut();
            if let Some(at) = *place {
                if state.line[at].heard != Heard::Nothing {
                    state.line.remove(at);
                    (*place, *round) = (None, state.rounds);
                    return Step::Ready(());
                }
                let is_kept = keep(&mut state.line[at].waker, cx.waker(), spare);
                return if is_kept { Step::Pending(None) } else { Step::Clone };
            }
            if mem::replace(round, state.rounds) != state.rounds || mem::take(&mut state.has_permit) {
                return Step::Ready(());
            }
            if spare.is_none() {
                return Step::Clone;
            }
            *place = Some(state.line.join(Waiter { heard: Heard::Nothing, waker: spare.take() }));
            Step::Pending(None)
        })
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waiter = self.notify.state.borrow_mut().line.remove(place);
        if waiter.heard == Heard::One {
            self.notify.notify_one();
        }
    }
}

impl fmt::Debug for Notified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notified").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}
