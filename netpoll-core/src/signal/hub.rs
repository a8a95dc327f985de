//! Who listens to which signal: of the process, or of a simulated world.
//!
//! Invariant: the process catches a signal exactly while somebody is in `listeners` of its kind; nothing of the program runs under the
//! lock.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use slab::Slab;

use super::SignalKind;
use crate::mem;
use crate::sys;

/// Those who listen to one kind.
#[derive(Default)]
struct Kind {
    /// Signals since the first listener ever.
    count: u64,
    listeners: Slab<Option<Waker>>,
    /// Of the process, while there are listeners.
    caught: Option<sys::Listening>,
}

#[derive(Default)]
struct Inner {
    kinds: Mutex<[Kind; SignalKind::ALL.len()]>,
    /// It is that of the process.
    catches: bool,
}

/// A clone is the same one.
#[derive(Clone, Default)]
pub struct Hub(Arc<Inner>);

impl Hub {
    /// That of the process, with the thread that tells it.
    pub fn of_the_process() -> io::Result<Self> {
        sys::assert_not_forked();
        static HUB: OnceLock<Hub> = OnceLock::new();
        static IS_TOLD: Mutex<bool> = Mutex::new(false);
        let hub = HUB.get_or_init(|| Self(Arc::new(Inner { catches: true, ..Inner::default() })));
        sys::prepare_signals()?;
        let mut is_told = IS_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_told {
            let told = hub.clone();
            let name = "netpoll-signals";
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || told.tell());
            thread.map_err(|error| sys::no_thread(name, error))?;
            *is_told = true;
        }
        Ok(hub.clone())
    }

    fn kinds(&self) -> MutexGuard<'_, [Kind; SignalKind::ALL.len()]> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more listener: its place, and the signals so far.
    pub fn listen(&self, kind: SignalKind) -> io::Result<(usize, u64)> {
        let mut kinds = self.kinds();
        let of = &mut kinds[kind as usize];
        if self.0.catches && of.caught.is_none() {
            of.caught = Some(sys::Listening::to(kind)?);
        }
        Ok((of.listeners.insert(None), of.count))
    }

    /// One less.
    pub fn leave(&self, kind: SignalKind, listener: usize) {
        let mut kinds = self.kinds();
        let of = &mut kinds[kind as usize];
        let waker = of.listeners.try_remove(listener);
        if of.listeners.is_empty() {
            of.caught = None;
        }
        drop(kinds);
        drop(waker);
    }

    /// Whether there is a signal that the listener has not seen; if not, it is woken when there is.
    pub fn poll(&self, kind: SignalKind, listener: usize, seen: &mut u64, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut kinds = self.kinds();
        let of = &mut kinds[kind as usize];
        if of.count != *seen {
            *seen = of.count;
            drop(kinds);
            return Poll::Ready(());
        }
        let before = of.listeners[listener].replace(waker);
        drop(kinds);
        drop(before);
        Poll::Pending
    }

    /// A signal has come.
    pub fn came(&self, kind: SignalKind) {
        let mut kinds = self.kinds();
        let of = &mut kinds[kind as usize];
        of.count += 1;
        let wakers: Vec<Waker> = of.listeners.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(kinds);
        for waker in wakers {
            mem::guarded(|| waker.wake());
        }
    }

    /// On a thread of its own, for ever.
    fn tell(&self) {
        while sys::wait_for_signals().is_ok() {
            for kind in SignalKind::ALL {
                if sys::has_come(kind) {
                    self.came(kind);
                }
            }
        }
    }
}
