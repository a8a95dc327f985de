//! A point in time to wait for.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clockwork::Instant;
use crate::mem::Key;
use crate::task::{self, Parked};

/// Waits until a point in time. `Send + Sync`, and `Unpin`.
///
/// It has an entry in the wheel of the worker that has polled it, which goes when it is dropped there. Polled on another worker
/// it waits there from then on, and what is left behind wakes nobody who minds. Workers of one runtime, that is: another counts its
/// time from another beginning. Cancel-safe: dropping it loses nothing.
///
/// One that is over when it is polled first is ready at once; behind 128 of these in a row others have their turn first.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    deadline: Instant,
    place: Option<Place>,
}

/// Where it waits.
#[derive(Clone, Copy)]
struct Place {
    /// The number of the lane whose wheel it is in.
    lane: u64,
    key: Key,
}

/// Waits so long from now: from the call, not from the first poll, nor from when the turn began. Longer than the clock runs is
/// for ever.
///
/// # Panics
/// On a thread that is no worker.
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(task::current("`sleep`").now().saturating_add(duration))
}

/// Waits until this instant; not at all if it has passed.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, place: None }
}

impl Sleep {
    /// When it is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for another instant, whether this one has passed or not. Whoever waits for it has to poll it again.
    pub fn reset(&mut self, deadline: Instant) {
        self.leave();
        self.deadline = deadline;
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take()
            && let Some(lane) = task::try_current().filter(|lane| lane.number() == place.lane)
        {
            lane.sleeps().cancel(place.key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// On a thread that is no worker.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lane = task::current("the poll of a `Sleep`");
        let place = self.place.filter(|place| place.lane == lane.number());
        let waited = place.is_some();
        if let Some(place) = place {
            if lane.sleeps().wait(&lane, place.key, cx.waker()) {
                return Poll::Pending;
            }
            self.place = None;
        }
        let now = lane.now();
        if now >= self.deadline {
            if waited || !lane.is_late_too_often() {
                return Poll::Ready(());
            }
            // Others first: who is late again and again would never give its worker back.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        lane.waits();
        let key = lane.sleeps().start(now, self.deadline, Parked::of(&lane, cx.waker()));
        self.place = Some(Place { lane: lane.number(), key });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
