//! Any descriptor that the kernel can report as ready, for tasks.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::watched::{Place, Readiness, Seen, Watched};
use crate::driver::{Interest, Ready};
use crate::mem::Key;

/// A descriptor of your own, and when it is ready: an eventfd, a pipe, a timerfd, inotify, a socket of another crate.
///
/// The worker tells when a try may be worth it, and you try: [`async_io`](Self::async_io) does both. The descriptor has to be non-blocking
/// (`O_NONBLOCK`), or a try that finds nothing holds up the worker.
///
/// It says what was reported, once: [`readable`](Self::readable) stays true until a try has found nothing and said so
/// ([`ReadyGuard::clear_ready`], which [`try_io`](Self::try_io) and [`async_io`](Self::async_io) do themselves). So read until `WouldBlock`, or what
/// is left is not told again.
///
/// It belongs to the worker that has made it, and neither is nor needs to be `Send`. A drain does not wait for it. The names are those of
/// `tokio::io::unix::AsyncFd`; what is otherwise there: several tasks may wait in one direction here as well as there, errors and hang-ups end
/// waits in both directions, and an interest may be given to all of them.
///
/// Cost: one `epoll_ctl` to begin and one to end; a wait that finds it ready is a load. 200 bytes, and one allocation.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::{Read, Write};
/// use netpoll_core::Runtime;
/// use netpoll_core::net::{AsyncFd, Interest};
///
/// let read = Runtime::block_on(async {
///     let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?; // as some other crate may have made it
///     ours.set_nonblocking(true)?;
///     let ours = AsyncFd::new(ours)?;
///     theirs.write_all(b"news")?;
///     let mut buffer = [0; 16];
///     let len = ours.async_io(Interest::READABLE, |mut ours| ours.read(&mut buffer)).await?;
///     std::io::Result::Ok(buffer[..len].to_vec())
/// })??;
/// assert_eq!(read, b"news");
/// # Ok(())
/// # }
/// ```
pub struct AsyncFd<T: AsFd> {
    /// `None` only when it was given back.
    inner: Option<T>,
    watched: Rc<Watched>,
    key: Key,
    readiness: Rc<Readiness>,
}

impl<T: AsFd> AsyncFd<T> {
    /// Waits for input and for room, on the worker that this thread is.
    ///
    /// # Errors
    /// `PermissionDenied` of a descriptor that is always ready, as files and directories on disk are; `AlreadyExists` if this very
    /// descriptor is watched already (a copy of it may be); `Unsupported` in a simulation, which has no descriptors, and when the worker
    /// has ended; `ENOSPC` at `/proc/sys/fs/epoll/max_user_watches`. `inner` is dropped then.
    ///
    /// # Panics
    /// On a thread that is no worker; with 16 million of them on one worker.
    #[track_caller]
    pub fn new(inner: T) -> io::Result<Self> {
        Self::with_interest(inner, Interest::READABLE | Interest::WRITABLE)
    }

    /// The same for one direction, or for urgent data as well: what is not waited for wakes nobody, and waiting for it never ends
    /// but by an error or a hang-up.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn with_interest(inner: T, interest: Interest) -> io::Result<Self> {
        let watched = Watched::current("`AsyncFd::new`");
        let (key, readiness) = watched.watch(inner.as_fd(), interest)?;
        Ok(Self { inner: Some(inner), watched, key, readiness })
    }

    /// What is watched. It may be read and written directly: at worst a wait ends for nothing once.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        inner(self.inner.as_ref())
    }

    /// The same, to change. It has to stay the descriptor that it is.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut T {
        inner(self.inner.as_mut())
    }

    /// Gives it back, watched no more. Nothing that has come to it is lost.
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.unwatch();
        inner(self.inner.take())
    }

    fn unwatch(&self) {
        if let Some(inner) = &self.inner {
            self.watched.unwatch(self.key, inner.as_fd());
        }
    }

    /// Waits until reading is worth a try: there is input, its end, or an error.
    ///
    /// It returns at once, and again and again, until a try has found nothing and [has said so](ReadyGuard::clear_ready).
    /// Cancel-safe.
    ///
    /// # Errors
    /// None: what is wrong with the descriptor is found by the try.
    pub fn readable(&self) -> impl Future<Output = io::Result<ReadyGuard<'_, T>>> {
        self.ready(Interest::READABLE)
    }

    /// Waits until writing is worth a try: there is room, nobody to take it, or an error. As [`readable`](Self::readable).
    ///
    /// # Errors
    /// None: what is wrong with the descriptor is found by the try.
    pub fn writable(&self) -> impl Future<Output = io::Result<ReadyGuard<'_, T>>> {
        self.ready(Interest::WRITABLE)
    }

    /// Waits for any of these. As [`readable`](Self::readable).
    ///
    /// # Errors
    /// None: what is wrong with the descriptor is found by the try.
    pub async fn ready(&self, interest: Interest) -> io::Result<ReadyGuard<'_, T>> {
        let seen = self.wait(interest).await;
        Ok(ReadyGuard { of: self, seen })
    }

    fn wait(&self, interest: Interest) -> Wait<'_> {
        Wait { readiness: &self.readiness, interest, place: Place::default() }
    }

    /// A try, if it is worth one by what was reported: `call` is not called otherwise. What finds nothing (`WouldBlock`) is remembered,
    /// so that the next wait is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing to be had; those of `call`.
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        let seen = self.readiness.see(interest).ok_or(io::ErrorKind::WouldBlock)?;
        let result = call(self.get_ref());
        self.note(seen, &result);
        result
    }

    /// Tries until it finds something or fails, and waits in between. `call` is not called before the descriptor was reported as ready.
    ///
    /// Cancel-safe: no `call` is under way while it waits. A loop over a descriptor that is always ready [gives way](crate::sync#giving-way).
    ///
    /// # Errors
    /// Those of `call` but `WouldBlock`.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let seen = self.wait(interest).await;
            let result = call(self.get_ref());
            if !self.note(seen, &result) {
                return result;
            }
        }
    }

    /// [`async_io`](Self::async_io) for who needs the descriptor to change it.
    ///
    /// # Errors
    /// Those of `call` but `WouldBlock`.
    pub async fn async_io_mut<R>(
        &mut self,
        interest: Interest,
        mut call: impl FnMut(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let seen = self.wait(interest).await;
            let result = call(self.get_mut());
            if !self.note(seen, &result) {
                return result;
            }
        }
    }

    /// Remembers that a try has found nothing. True if it has.
    fn note<R>(&self, seen: Seen, result: &io::Result<R>) -> bool {
        let blocks = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if blocks {
            self.readiness.found_nothing(seen);
        }
        blocks
    }
}

/// What is there until `into_inner`, which nobody survives.
fn inner<T>(inner: Option<T>) -> T {
    inner.expect("it was not given back")
}

impl<T: AsFd> Drop for AsyncFd<T> {
    fn drop(&mut self) {
        // It is closed behind this, if it is.
        self.unwatch();
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T: AsFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd").field("inner", self.get_ref()).finish_non_exhaustive()
    }
}

/// A wait for a descriptor.
struct Wait<'a> {
    readiness: &'a Readiness,
    interest: Interest,
    place: Place,
}

impl Future for Wait<'_> {
    type Output = Seen;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Seen> {
        let Self { readiness, interest, place } = &mut *self;
        readiness.poll(*interest, place, cx)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.readiness.leave(&mut self.place);
    }
}

/// A descriptor is ready, as was reported. Try, and [say so](Self::clear_ready) when there was nothing, or let
/// [`try_io`](Self::try_io) do it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # use std::io::{Read, Write};
/// # use netpoll_core::Runtime;
/// # use netpoll_core::net::AsyncFd;
/// # Runtime::block_on(async {
/// # let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
/// # ours.set_nonblocking(true)?;
/// # let ours = AsyncFd::new(ours)?;
/// # theirs.write_all(b"news")?;
/// # let mut buffer = [0; 16];
/// let len = loop {
///     let mut guard = ours.readable().await?;
///     match guard.try_io(|ours| ours.get_ref().read(&mut buffer)) {
///         Ok(read) => break read?,
///         Err(_nothing_there) => continue, // it was cleared: the next wait waits
///     }
/// };
/// # assert_eq!(len, 4);
/// # std::io::Result::Ok(())
/// # })?
/// # }
/// ```
#[must_use = "what is ready stays so until a try that finds nothing clears it"]
pub struct ReadyGuard<'a, T: AsFd> {
    of: &'a AsyncFd<T>,
    seen: Seen,
}

/// The try of a [`ReadyGuard`] has found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NothingThere(());

impl<'a, T: AsFd> ReadyGuard<'a, T> {
    /// How it was ready when the wait ended, of what was waited for.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.seen.ready
    }

    /// A try has found nothing: it is ready no more, until the kernel says so again. If it has said so since this guard was made, nothing
    /// is cleared. What is closed stays closed.
    pub fn clear_ready(&mut self) {
        self.clear_ready_matching(self.seen.ready);
    }

    /// The same for a part of what it was.
    pub fn clear_ready_matching(&mut self, ready: Ready) {
        self.of.readiness.clear(ready, self.seen);
        self.seen.ready = self.seen.ready.without(ready);
    }

    /// Says nothing.
    pub fn retain_ready(&mut self) {}

    /// Tries, and clears what was ready if there is nothing.
    ///
    /// # Errors
    /// [`NothingThere`] if `call` has returned `WouldBlock`; other errors of it are inside.
    pub fn try_io<R>(
        &mut self,
        call: impl FnOnce(&'a AsyncFd<T>) -> io::Result<R>,
    ) -> Result<io::Result<R>, NothingThere> {
        let result = call(self.of);
        if self.of.note(self.seen, &result) { Err(NothingThere(())) } else { Ok(result) }
    }

    /// What is watched.
    #[must_use]
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.of
    }

    /// The descriptor itself.
    #[must_use]
    pub fn get_inner(&self) -> &'a T {
        self.of.get_ref()
    }
}

impl<T: AsFd> fmt::Debug for ReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyGuard").field("ready", &self.seen.ready).finish_non_exhaustive()
    }
}

impl fmt::Display for NothingThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there was nothing, though it was reported as ready")
    }
}

impl std::error::Error for NothingThere {}
