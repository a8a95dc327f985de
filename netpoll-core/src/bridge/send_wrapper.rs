//! A value that is `Send` for the compiler, and stays on its worker.
//!
//! What may be done with the bytes of it on which thread is the business of [`Carried`]; here it is which worker, and the way home.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sys::Carried;
use crate::task::{self, Deliver, Lane, is_in};

/// A value that is [`Send`] and [`Sync`] whatever is in it, because it is checked, at each use, that it is used on the worker that has made it.
///
/// Handlers of axum and services of tonic have to be `Send`, and so have streams of `serve_connection_with_upgrades` and of redis, although none of
/// them ever leaves the worker here. Where sockets, channels and tasks of this crate, or an `Rc`, are used inside of them, this is put around: around a
/// value by [`new`](Self::new), around a future by [`pin`](Self::pin).
///
/// ```
/// use std::rc::Rc;
///
/// use netpoll_core::Runtime;
/// use netpoll_core::bridge::SendWrapper;
/// use netpoll_core::net::Stream;
///
/// /// As axum has it of a handler.
/// fn handler<F: Future<Output = String> + Send + 'static>(handler: impl Fn() -> F) -> F {
///     handler()
/// }
///
/// let said = Runtime::block_on(async {
///     let handler = handler(|| async {
///         SendWrapper::pin(async {
///             let (mut one, mut other) = Stream::pair()?; // not `Send`, and held across `.await`
///             let word = Rc::new("hello");
///             one.write_all(word.as_bytes()).await?;
///             let mut said = [0; 5];
///             other.read_exact(&mut said).await?;
///             std::io::Result::Ok(String::from_utf8_lossy(&said).into_owned())
///         })
///         .await
///         .unwrap()
///     });
///     handler.await
/// });
/// assert_eq!(said.unwrap(), "hello");
/// ```
///
/// It is like `SendWrapper` of the crate `send_wrapper`, and checks the worker as well as the thread: workers of a [simulation](crate::sim) share one.
///
/// # What happens elsewhere
///
/// Using it on another worker, or on a thread that is none, panics; it is not used then. *Dropping* it elsewhere sends what is in it home, to be
/// dropped by its worker in its next turn: a response that a client of another thread gives up, say. If that worker has ended, what is in it is leaked,
/// and said so by a warning of the feature `tracing`.
///
/// Cost: a word of the thread is compared at each use; making one counts a reference, of an `Arc`, up. [`pin`](Self::pin) allocates.
pub struct SendWrapper<T: 'static> {
    /// `None` while it is dropped.
    value: Option<Carried<AtHome<T>>>,
    lane: u64,
    wakes: Arc<dyn Deliver>,
}

struct AtHome<T> {
    value: T,
    lane: Rc<Lane>,
}

impl<T> AtHome<T> {
    /// On the thread of the worker, which may not be in it just now: a simulation, or another of its workers, has the thread.
    fn drop_inside(self) {
        let _inside = self.lane.visit();
        drop(self.value);
    }
}

impl<T: 'static> SendWrapper<T> {
    /// Binds a value to the worker that this thread is.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn new(value: T) -> Self {
        let lane = task::current("`SendWrapper::new`");
        let (number, wakes) = (lane.number(), lane.wakes());
        Self { value: Some(Carried::new(AtHome { value, lane })), lane: number, wakes }
    }

    /// Whether this is its worker.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.here().is_some()
    }

    /// The value.
    ///
    /// # Panics
    /// On another worker, or a thread that is none: the value goes home to be dropped.
    #[track_caller]
    pub fn into_inner(mut self) -> T {
        let value = if is_in(self.lane) { self.value.take() } else { None };
        match value.map(Carried::into_inner) {
            Some(Ok(at_home)) => at_home.value,
            _ => elsewhere(),
        }
    }

    #[inline]
    fn here(&self) -> Option<&T> {
        if !is_in(self.lane) {
            return None;
        }
        self.value.as_ref()?.get().map(|at_home| &at_home.value)
    }
}

impl<F: Future + 'static> SendWrapper<Pin<Box<F>>> {
    /// Binds a future to the worker that this thread is. It is polled there and nowhere else.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn pin(future: F) -> Self {
        Self::new(Box::pin(future))
    }
}

#[cold]
#[track_caller]
fn elsewhere() -> ! {
    panic!(
        "a `SendWrapper` was used elsewhere than on the worker that has made it: what is in it stays there; move \
         its use into a task of that worker (`Handle::spawn_on`)"
    );
}

impl<T> Deref for SendWrapper<T> {
    type Target = T;

    /// # Panics
    /// On another worker than that which has made it, and on a thread that is none.
    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        match self.here() {
            Some(value) => value,
            None => elsewhere(),
        }
    }
}

impl<T> DerefMut for SendWrapper<T> {
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        if is_in(self.lane)
            && let Some(at_home) = self.value.as_mut().and_then(Carried::get_mut)
        {
            return &mut at_home.value;
        }
        elsewhere()
    }
}

impl<F: Future + Unpin> Future for SendWrapper<F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut **self).poll(cx)
    }
}

/// Nothing in it is pinned by a pin of it.
impl<T> Unpin for SendWrapper<T> {}

impl<T: Clone> Clone for SendWrapper<T> {
    /// # Panics
    /// Elsewhere, as each use.
    #[track_caller]
    fn clone(&self) -> Self {
        Self::new(T::clone(self))
    }
}

impl<T: fmt::Debug> fmt::Debug for SendWrapper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.here() {
            Some(value) => f.debug_tuple("SendWrapper").field(value).finish(),
            None => f.write_str("SendWrapper(elsewhere)"),
        }
    }
}

impl<T> Drop for SendWrapper<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        if is_in(self.lane) {
            return drop(value);
        }
        match value.into_inner() {
            Ok(at_home) => at_home.drop_inside(),
            Err(value) => self.wakes.carry_home(Box::new(Homecoming(Some(value)))),
        }
    }
}

/// What is on its way home.
struct Homecoming<T: 'static>(Option<Carried<AtHome<T>>>);

impl<T> Drop for Homecoming<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        match value.into_inner() {
            Ok(at_home) => at_home.drop_inside(),
            // Its worker is gone, and nobody else may touch it.
            Err(leaked) => {
                crate::log::leaked();
                drop(leaked);
            }
        }
    }
}
