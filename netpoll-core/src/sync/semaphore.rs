//! A number of permits for tasks of one thread: so many at a time, the others wait their turn.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::line::Line;
use super::wakers::{Step, drive_with, give_way, keep, wake_all, wake_each, wake_one};
use super::{Closed, TryError};
use crate::task::share;

struct Waiter {
    permits: usize,
    is_granted: bool,
    waker: Option<Waker>,
}

struct State {
    free: usize,
    is_closed: bool,
    /// Invariant: who stands first wants more permits than are free; who stands in it has none and no `is_granted`. Who does not
    /// stand in it any more has its permits if `is_granted` says so, or the semaphore was closed.
    line: Line<Waiter>,
}

impl State {
    fn try_acquire(&mut self, permits: usize) -> Result<(), TryError> {
        if self.is_closed {
            return Err(TryError::Closed);
        }
        if !self.line.is_empty() || self.free < permits {
            return Err(TryError::NotNow);
        }
        self.free -= permits;
        Ok(())
    }

    /// Gives the first in line what it wants, if there is enough.
    fn grant(&mut self) -> Option<Waker> {
        let first = self.line.first()?;
        let permits = self.line[first].permits;
        if permits > self.free {
            return None;
        }
        self.free -= permits;
        self.line.leave(first);
        self.line[first].is_granted = true;
        self.line[first].waker.take()
    }
}

/// A number of permits, for tasks of one thread. A clone has the same permits.
///
/// Fair: who came first is served first, also if it wants many and those behind it only one. It is [`!Send`](Send); to
/// acquire and release is O(1), and takes no allocation unless it waits.
///
/// ```
/// use netpoll_core::sync::Semaphore;
/// # futures::executor::block_on(async {
/// let connections = Semaphore::new(2); // to a database that serves two at a time
/// let query = async || {
///     let _permit = connections.acquire(1).await?;
///     // The permit goes back at the end, and when this is cancelled.
///     Ok::<_, netpoll_core::sync::Closed>("row")
/// };
/// let rows = futures::join!(query(), query(), query());
/// assert_eq!(rows, (Ok("row"), Ok("row"), Ok("row")));
/// # });
/// ```
#[derive(Clone)]
pub struct Semaphore {
    /// Open only for a step; never while code of the program runs.
    state: Rc<RefCell<State>>,
}

impl Semaphore {
    /// With so many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let state = State { free: permits, is_closed: false, line: Line::new() };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Waits for so many permits, all or none, in line from the first poll on. Who wants more than there are waits until
    /// some are [added](Self::add), and so does who comes behind it.
    ///
    /// # Errors
    /// [`Closed`] if the semaphore is closed, before or while this waits.
    ///
    /// # Cancel safety
    /// No permit is lost: those that this was given and did not take go to the next in line. Its place does too.
    pub fn acquire(&self, permits: usize) -> Acquiring {
        Acquiring { semaphore: self.clone(), permits, place: None }
    }

    /// So many permits, if they are free and nobody waits.
    ///
    /// # Errors
    /// [`TryError::NotNow`] if not, [`TryError::Closed`] if the semaphore is closed.
    pub fn try_acquire(&self, permits: usize) -> Result<SemaphorePermit, TryError> {
        self.state.borrow_mut().try_acquire(permits)?;
        Ok(SemaphorePermit { semaphore: self.clone(), permits })
    }

    /// Adds permits that were not there before.
    ///
    /// # Panics
    /// If there would be more than [`usize::MAX`].
    pub fn add(&self, permits: usize) {
        {
            let state = &mut *self.state.borrow_mut();
            state.free = state.free.checked_add(permits).expect("permits are counted in a usize");
        }
        wake_each(|| self.state.borrow_mut().grant());
    }

    /// Permits that nobody has. Somebody may wait for more than these.
    #[must_use]
    pub fn available(&self) -> usize {
        self.state.borrow().free
    }

    /// Gives out no permits any more: who waits gets [`Closed`]. Those that are out stay good.
    pub fn close(&self) {
        let wakers = {
            let state = &mut *self.state.borrow_mut();
            state.is_closed = true;
            let mut wakers = Vec::new();
            while let Some(first) = state.line.first() {
                state.line.leave(first);
                wakers.extend(state.line[first].waker.take());
            }
            wakers
        };
        wake_all(wakers);
    }

    /// It was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.borrow().is_closed
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish_non_exhaustive()
    }
}

/// A wait for permits; [`Semaphore::acquire`] makes it.
#[must_use = "nothing is acquired before it is awaited"]
pub struct Acquiring {
    semaphore: Semaphore,
    permits: usize,
    place: Option<usize>,
}

impl Acquiring {
    /// A first poll that gives way: it takes its place in line, where it has its permits at once if they are free.
    #[cold]
    fn give_way<R>(&mut self, cx: &mut Context<'_>) -> Poll<R> {
        let waker = cx.waker().clone();
        if self.semaphore.is_closed() {
            return give_way(&waker);
        }
        let wake = {
            let state = &mut *self.semaphore.state.borrow_mut();
            let waiter = Waiter { permits: self.permits, is_granted: false, waker: Some(waker) };
            self.place = Some(state.line.join(waiter));
            state.grant()
        };
        wake_one(wake);
        Poll::Pending
    }
}

impl Future for Acquiring {
    type Output = Result<SemaphorePermit, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.place.is_none() && share::is_spent() {
            return this.give_way(cx);
        }
        let Self { semaphore, permits, place } = this;
        let acquired = drive_with(None, cx.waker(), |spare| {
            let state = &mut *semaphore.state.borrow_mut();
            if let Some(at) = *place {
                if state.line.is_linked(at) {
                    let is_kept = keep(&mut state.line[at].waker, cx.waker(), spare);
                    return if is_kept { Step::Pending(None) } else { Step::Clone };
                }
                *place = None;
                return Step::Ready(if state.line.remove(at).is_granted { Ok(()) } else { Err(Closed) });
            }
            match state.try_acquire(*permits) {
                Ok(()) => Step::Ready(Ok(())),
                Err(TryError::Closed) => Step::Ready(Err(Closed)),
                Err(TryError::NotNow) if spare.is_none() => Step::Clone,
                Err(TryError::NotNow) => {
                    *place = Some(state.line.join(Waiter {
                        permits: *permits,
                        is_granted: false,
                        waker: spare.take(),
                    }));
                    Step::Pending(None)
                }
            }
        });
        acquired.map(|outcome| {
            outcome.map(|()| SemaphorePermit { semaphore: semaphore.clone(), permits: *permits })
        })
    }
}

impl Drop for Acquiring {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waiter = self.semaphore.state.borrow_mut().line.remove(place);
        // Also when it had none: those behind it may want less.
        self.semaphore.add(if waiter.is_granted { waiter.permits } else { 0 });
    }
}

impl fmt::Debug for Acquiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquiring")
            .field("permits", &self.permits)
            .field("waits", &self.place.is_some())
            .finish_non_exhaustive()
    }
}

/// Permits of a [`Semaphore`]; they go back when this is dropped.
#[must_use = "the permits go back when it is dropped"]
pub struct SemaphorePermit {
    semaphore: Semaphore,
    permits: usize,
}

impl SemaphorePermit {
    /// How many these are.
    #[must_use]
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// Takes so many of these off, to go back on their own. `None` if there are not so many.
    pub fn split(&mut self, permits: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(permits)?;
        Some(Self { semaphore: self.semaphore.clone(), permits })
    }

    /// They never go back: the semaphore has so many less.
    pub fn forget(mut self) {
        self.permits = 0;
    }
}

impl Drop for SemaphorePermit {
    fn drop(&mut self) {
        let permits = mem::take(&mut self.permits);
        if permits > 0 {
            self.semaphore.add(permits);
        }
    }
}

impl fmt::Debug for SemaphorePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphorePermit").field("permits", &self.permits).finish_non_exhaustive()
    }
}
